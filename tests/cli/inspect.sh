#!/bin/sh
# inspect mask and inspect recall: files, keys, fractions that can be, and refusals.
. "$(dirname "$0")/common.inc"
head -c 9000 "$DATA/demo.txt" >"$work/text.txt"
small="-m $MODEL -f $work/text.txt --chunk 512 --page 64"

is_png() {
    [ "$(head -c 4 "$1" | tail -c 3)" = PNG ] || fail "$1 is no PNG file"
}

# fractions FILE KIND: in each line "asked q_union g_union executed" the first three ascend and all lie in [0, 1]. KIND says what the
# last one equals.
fractions() {
    awk -v kind="$2" '{
        if ($1 < 0 || $1 > $2 + 1e-9 || $2 > $3 + 1e-9 || $3 > 1 || $4 < 0 || $4 > 1) bad = 1
        if (kind == "union" && $4 != $3) bad = 1
        if (kind == "asked" && $4 != $1) bad = 1
        n++
    } END { exit bad || n == 0 }' "$1" || fail "the fractions cannot be: $(cat "$1")"
}

# kept_lines N: the first N rows of the printed table, without the scope, in $work/kept.
kept_lines() {
    sed -n '/^---/,/^$/p' "$work/out" | sed '1d;/^$/d' | head -n "$1" | awk '{ print $(NF-3), $(NF-2), $(NF-1), $NF }' >"$work/kept"
    [ "$(wc -l <"$work/kept")" -eq "$1" ] || fail "not $1 rows of fractions"
}

# shellcheck disable=SC2086 # $small is many words
accept inspect mask $small --out "$work/m dir" --layer 2 --head 4
is_png "$work/m dir/mask.png"
kept_lines 4
fractions "$work/kept" any
# shellcheck disable=SC2086
accept inspect mask $small --out "$work/m2" --layer 2 --executor compactattn
kept_lines 2
fractions "$work/kept" union
# shellcheck disable=SC2086
accept inspect mask $small --out "$work/m3" --layer 2 --executor block_sparse --chunk-index 2 --json
for key in method prompt_tokens layer head kv_head first_token n_tokens page_tokens n_rows kept; do printed "^ *\"$key\": "; done
printed '"first_token": 1024'
printed '"n_tokens": 512'
printed '"n_rows": 24' # 3 heads x 8 Q blocks
for key in scores mask q_union g_union rows first_qblock n_kblocks; do
    grep -q "\"$key\": " "$work/m3/mask.json" || fail "mask.json has no $key"
done
[ "$(grep -o '"blocks": ' "$work/m3/mask.json" | wc -l)" -eq 24 ] || fail "mask.json has not 24 rows"
# shellcheck disable=SC2086
accept inspect mask $small --out "$work/m4" --selector trishape --window 128 --executor block_sparse
grep -q '"scores": null' "$work/m4/mask.json" || fail "trishape has scores"
kept_lines 2
fractions "$work/kept" asked
# shellcheck disable=SC2086
accept inspect mask $small --out "$work/m5" --chunk-index 0 --sparse-first --executor compactattn
printed 'tokens 0 to 511'

# shellcheck disable=SC2086
{
    refuse 2 "quoka has no block mask" inspect mask $small --out "$work/x" --selector quoka
    refuse 2 "dense has no block mask" inspect mask $small --out "$work/x" --executor dense
    refuse 2 "--layer 30: the model has 30 layers" inspect mask $small --out "$work/x" --layer 30
    refuse 2 "--head 9: the model has 9 query heads" inspect mask $small --out "$work/x" --head 9
    refuse 2 "--chunk-index 77: the prompt has" inspect mask $small --out "$work/x" --chunk-index 77
    refuse 1 "chunk 0 is read densely" inspect mask $small --out "$work/x" --chunk-index 0
    refuse 1 "give a longer text" inspect mask $small --out "$work/x" --chunk 8192
    refuse 1 "choose another" inspect mask $small --out "$work/no/x"
    refuse 2 "--out PATH is missing" inspect mask $small
    refuse 2 "--selector what: expected" inspect mask $small --out "$work/x" --selector what
}

# points NAME: rows of recall.csv of that selector.
points() {
    grep "^[0-9]*,[0-9]*,[0-9]*,$1," "$work/r dir/recall.csv"
}

# shellcheck disable=SC2086
accept inspect recall $small --out "$work/r dir" --layers 1,20 --executor compactattn --recall 0.9
is_png "$work/r dir/recall.png"
head -n 1 "$work/r dir/recall.csv" | grep -q '^layer,chunk,past,selector,option,value,mass_kept,kept_fraction,output_error$' ||
    fail "recall.csv has another heading"
for selector in flashprefill xattention minference trishape quoka oracle; do
    points $selector >"$work/points" || fail "recall.csv has no $selector"
    # Settings follow from strict to loose within a layer and chunk: more is read, more mass is kept.
    awk -F, '{
        if ($7 < 0 || $7 > 1 || $8 < 0 || $8 > 1 || $9 < 0) bad = 1
        if (last == $1 "," $2 && ($7 < mass - 1e-4 || $8 < kept - 1e-9)) bad = 1
        if ($8 == 1 && ($7 < 0.999 || $9 > 0)) bad = 1
        last = $1 "," $2; mass = $7; kept = $8
    } END { exit bad || NR < 12 }' "$work/points" || fail "recall of $selector does not grow with what is read: $(cat "$work/points")"
    printed "^$selector  *--"
    printed "^  $selector  *\(--selector $selector \|none reaches it\)"
done
points oracle | awk -F, '$7 < $6 - 1e-3 { bad = 1 } END { exit bad }' || fail "the oracle keeps less than its mass"
cut -d, -f1,2 "$work/r dir/recall.csv" | sort -u | grep -c '^\(1\|20\),[23]$' | grep -qx 4 || fail "not two layers and two chunks"
printed '^  oracle  *--selector oracle --executor compactattn --threshold 0\.[0-9]* '

# shellcheck disable=SC2086
accept inspect recall $small --out "$work/r2" --layers 5 --chunks 1 --selectors oracle,quoka --recall 1 --json
for key in model prompt_tokens executor n_layers chunks n_samples recall_asked interrupted settings recommended; do
    printed "^ *\"$key\": "
done
printed '"n_samples": 1,'
printed '"reached": false' # quoka reads 80 % at most
printed '"options": "--selector quoka --kv-ratio 0.8"'

# shellcheck disable=SC2086
{
    refuse 2 "--layers 30: expected" inspect recall $small --out "$work/x" --layers 30
    refuse 2 "--layers 1,,2: expected" inspect recall $small --out "$work/x" --layers 1,,2
    refuse 2 "\"what\" is not among" inspect recall $small --out "$work/x" --selectors oracle,what
    refuse 2 "listed twice" inspect recall $small --out "$work/x" --selectors oracle,oracle
    refuse 2 "needs --gate FILE" inspect recall $small --out "$work/x" --selectors seer
    refuse 2 "reads everything" inspect recall $small --out "$work/x" --executor dense
    refuse 2 "--recall 2: expected" inspect recall $small --out "$work/x" --recall 2
    refuse 2 "unknown option --alpha" inspect recall $small --out "$work/x" --alpha 0.1
    refuse 1 "no chunk has a past" inspect recall $small --out "$work/x" --chunk 8192
}

# Interrupted after the first sample: exit code 130, what is finished is reported.
# shellcheck disable=SC2086
"$COMPACTATTN" inspect recall $small --out "$work/r3" --chunks 8 --progress >"$work/out" 2>"$work/err" &
pid=$!
tries=0
until tr '\r' '\n' <"$work/err" | grep -Eq ' ([6-9]|[1-9][0-9]) %' || [ "$tries" -ge 600 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
kill -INT "$pid"
code=0
wait "$pid" || code=$?
[ "$code" -eq 130 ] || fail "exit code $code after Ctrl-C, not 130"
grep -q "compactattn: interrupted$" "$work/err" || fail "Ctrl-C is not reported"
printed '^oracle  *--'
grep -q '^0,1,512,oracle,' "$work/r3/recall.csv" || fail "the finished sample is lost"
! grep -q '^29,4,' "$work/r3/recall.csv" || fail "Ctrl-C did not stop the measuring"
finish
