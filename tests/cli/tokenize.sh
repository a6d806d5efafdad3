#!/bin/sh
# Text to ids and back.
. "$(dirname "$0")/common.inc"
same() { # EXPECTED: the whole output
    [ "$(cat "$work/out")" = "$1" ] || fail "expected $1"
}

accept tokenize -m "$MODEL" -p "Hello, world!"
same "[19556, 28, 905, 17]"
accept tokenize -m "$MODEL" -p " leading" --no-bos
same "[2899]"
accept tokenize -m "$MODEL" -p ""
same "[]"
accept tokenize -m "$MODEL" -p "<|im_end|>" --parse-special
same "[2]"
accept tokenize -m "$MODEL" -p "<|im_end|>"
[ "$(cat "$work/out")" != "[2]" ] || fail "a special token is parsed unasked"

printf 'trailing ' >"$work/text"
accept tokenize -m "$MODEL" -f "$work/text"
same "[4861, 4966, 216]"
printf 'trailing ' | "$COMPACTATTN" tokenize -m "$MODEL" >"$work/out"
same "[4861, 4966, 216]"

accept tokenize -m "$MODEL" --decode -p "[19556, 28, 905, 17]"
same "Hello, world!"
accept tokenize -m "$MODEL" --decode -p "[2]"
same ""
accept tokenize -m "$MODEL" --decode --parse-special -p "[2]"
same "<|im_end|>"

printf '"Hello, world!"\n" leading"\n""\n"two\\nlines"\n' >"$work/lines"
accept tokenize -m "$MODEL" --jsonl -f "$work/lines"
[ "$(wc -l <"$work/out")" -eq 4 ] || fail "not one line for each line"
[ "$(head -n 3 "$work/out" | tr '\n' ' ')" = "[19556, 28, 905, 17] [2899] [] " ] || fail "ids of lines"
cp "$work/out" "$work/ids"
accept tokenize -m "$MODEL" --jsonl --decode -f "$work/ids"
cmp -s "$work/out" "$work/lines" || fail "decoded lines differ from the text"

accept tokenize -m "$MODEL" -f "$DATA/demo.txt"
cp "$work/out" "$work/ids"
accept tokenize -m "$MODEL" --decode -f "$work/ids"
cmp -s "$work/out" "$DATA/demo.txt" || fail "the decoded text differs from the text"
finish
