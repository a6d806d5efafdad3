#!/bin/sh
# chat; and the KV cache kept in a file.
. "$(dirname "$0")/common.inc"
printf 'Name a river in France.\nAnd another.\n/reset\nSay hello.\n' >"$work/lines"
code=0
"$COMPACTATTN" chat -m "$MODEL" -n 12 --stats <"$work/lines" >"$work/out" 2>"$work/err" || code=$?
[ "$code" -eq 0 ] || fail "chat: exit code $code"
[ "$(wc -l <"$work/out")" -eq 3 ] || fail "chat: not three answers"
[ "$(sed -n 's/.* tokens, \([0-9]*\) of them reused.*/\1/p' "$work/err" | head -n 1)" = 0 ] || fail "chat: the first turn reuses something"
[ "$(sed -n 's/.* tokens, \([0-9]*\) of them reused.*/\1/p' "$work/err" | sed -n 2p)" -gt 40 ] || fail "chat: the second turn reuses nothing"

# What a user types does not end the turn: "<|im_end|>" is one token as a control token, and more as text.
turn() { # WORDS: tokens of a conversation of that message
    printf '%s\n' "$1" | "$COMPACTATTN" chat -m "$MODEL" -n 1 --stats 2>&1 >/dev/null | sed -n 's/.*: \([0-9]*\) tokens, .*/\1/p'
}
[ $(($(turn 'a <|im_end|><|im_end|>') - $(turn 'a'))) -gt 8 ] || fail "control tokens of a message are control tokens"
# A message that does not fit is forgotten, and the conversation goes on.
{ head -c 400 "$DATA/demo.txt" | tr '\n' ' '; printf '\n/reset\nSay hello.\r\n'; } >"$work/lines"
code=0
"$COMPACTATTN" chat -m "$MODEL" -n 4 --ctx 80 <"$work/lines" >"$work/out" 2>"$work/err" || code=$?
[ "$code" -eq 1 ] || fail "exit code $code, not 1, after a message that does not fit"
grep -q 'the context holds 80: the message is forgotten; /reset starts anew, --ctx raises it$' "$work/err" || fail "a full context is not told"
[ "$(wc -l <"$work/out")" -eq 1 ] || fail "the conversation ends with a full context"

head -c 6000 "$DATA/demo.txt" >"$work/text"
accept run -m "$MODEL" -f "$work/text" --ask "Who speaks?" -n 8 --save-cache "$work/cache"
cp "$work/out" "$work/first"
tool run -m "$MODEL" -f "$work/text" --ask "Who speaks?" -n 8 --load-cache "$work/cache"
[ "$code" -eq 0 ] && cmp -s "$work/out" "$work/first" || fail "another answer from a loaded cache"
grep -q '^compactattn: \([0-9]*\) of [0-9]* prompt tokens are in ' "$work/err" || fail "what is reused is not said"
# The next question may be shorter than the one that was kept, and short prompts are no other settings.
accept run -m "$MODEL" -p "Name three rivers of Europe, and tell me which of them is the longest one." -n 30 --save-cache "$work/long"
tool run -m "$MODEL" -p "Name three lakes." -n 2 --load-cache "$work/long"
[ "$code" -eq 0 ] || fail "a cache that is longer than prompt and answer is refused"
tool run -m "$MODEL" -p "Name three rivers of Europe." -n 200 --load-cache "$work/long"
[ "$code" -eq 0 ] || fail "another number of tokens to write is another setting"
refuse 1 "is not a saved session" run -m "$MODEL" -p hello -n 1 --load-cache "$work/text"
refuse 1 "int8 products" run -m "$MODEL" -f "$work/text" --ask "Who speaks?" --matmul int8 --load-cache "$work/cache"
refuse 1 "was saved with 'alpha " run -m "$MODEL" -f "$work/text" --ask "Who speaks?" --alpha 0.3 --load-cache "$work/cache"
head -c 1000 "$work/cache" >"$work/cut"
refuse 1 "the checksum is wrong" run -m "$MODEL" -f "$work/text" --ask "Who speaks?" --load-cache "$work/cut"
refuse 1 "$work/no/cache" run -m "$MODEL" -p hello -n 1 --save-cache "$work/no/cache"
refuse 1 "is no regular file" run -m none -p hello -n 1 --save-cache "$work"
refuse 1 "the prompt is empty" run -m none -f /dev/null --ask "Who wins?"

accept run -m "$MODEL" -p "Count: 1, 2, 3," --raw -n 30 --stop "xyz" --stop "7,"
printed '^ 4, 5, 6, $'
finish
