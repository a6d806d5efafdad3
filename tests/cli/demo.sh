#!/bin/sh
# The main job on a short text, and Ctrl-C in the middle of it.
. "$(dirname "$0")/common.inc"

tool demo -m "$MODEL" --text "$DATA/demo.txt" --out "$work/out dir" --length 2200 --depth 0.3
[ "$code" -eq 0 ] || fail "the demo fails"
for method in dense flashprefill+block_sparse flashprefill+compactattn flashprefill+auto; do
    grep -q "^$method .* yes " "$work/out" || fail "$method does not find the fact"
    grep -q "^| $method |.*| yes |" "$work/out dir/summary.md" || fail "summary.md has no row for $method"
    grep -q "^$method,.*,yes," "$work/out dir/summary.csv" || fail "summary.csv has no row for $method"
    grep -q "^$method: .*tokens/s" "$work/err" || fail "no progress is told for $method"
done
for picture in speedup.png mask.png; do
    [ "$(head -c 4 "$work/out dir/$picture" | tail -c 3)" = PNG ] || fail "$picture is no PNG file"
done
tool demo -m "$MODEL" --text "$DATA/demo.txt" --out "$work/o2" --length 600 --methods dense --json
[ "$code" -eq 0 ] || fail "demo --json fails"
json_keys
printed '"found": true'

# Interrupted after the first method: exit code 130, its row is kept.
"$COMPACTATTN" demo -m "$MODEL" --text "$DATA/demo.txt" --out "$work/o3" --length 4000 >"$work/out" 2>"$work/err" &
pid=$!
tries=0
until grep -q "^dense," "$work/o3/summary.csv" 2>/dev/null || [ "$tries" -ge 600 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
kill -INT "$pid"
code=0
wait "$pid" || code=$?
[ "$code" -eq 130 ] || fail "exit code $code after Ctrl-C, not 130"
grep -q "^compactattn: interrupted$" "$work/err" || fail "Ctrl-C is not reported"
grep -q "^dense,.*,yes," "$work/o3/summary.csv" || fail "the finished row is lost"
! grep -q compactattn "$work/o3/summary.csv" || fail "Ctrl-C did not stop the demo"
finish
