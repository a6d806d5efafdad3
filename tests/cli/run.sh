#!/bin/sh
# compactattn run: text, JSON, statistics, forecast.
. "$(dirname "$0")/common.inc"
fox="The quick brown fox jumps over the lazy dog, and then it"

accept run -m "$MODEL" --raw -p "$fox" -n 4
[ "$(cat "$work/out")" = "'s a story about" ] || fail "not the known continuation"
printf %s "$fox" >"$work/fox"
accept run -m "$MODEL" -f "$work/fox" -n 4
[ "$(cat "$work/out")" = "'s a story about" ] || fail "a file alone is not continued"
printf %s "$fox" | "$COMPACTATTN" run -m "$MODEL" -n 4 >"$work/out"
[ "$(cat "$work/out")" = "'s a story about" ] || fail "standard input is not read"

for executor in dense block_sparse compactattn compactattention; do
    accept run -m "$MODEL" --raw -p "$fox" -n 4 --executor $executor --json
    json_keys
    printed '"prompt_tokens": 13,'
    printed "\"text\": \"'s a story about\","
    printed '"mean_nll": null'
    printed '"ttft_ms": [1-9]'
    printed '"share_of_peak": [0-9]'
    printed '"kept_fraction": 1.0,'
done
printed '"method": "flashprefill+compactattn",'
accept run -m "$MODEL" --raw -p "$fox" -n 0 --json --selector none
printed '"method": "dense",'
printed '"text": "",'
printed '"tokens": \[\],'

accept run -m "$MODEL" --raw -p "$fox" -n 4 --matmul int8
[ "$(cat "$work/out")" = "'s a story about" ] || fail "not the known continuation with integer products"
if "$COMPACTATTN" doctor | grep -q 'nothing here runs --attention int8'; then
    refuse 1 "attention of 8-bit integers needs AVX-512 VNNI" run -m "$MODEL" -p "$fox" --attention int8
else
    tool run -m "$MODEL" --raw -p "$fox" -n 4 --attention int8 --stats
    [ "$code" -eq 0 ] || fail "--attention int8 does not run"
    [ "$(cat "$work/out")" = "'s a story about" ] || fail "not the known continuation with integer attention"
    grep -q '+int8-attention' "$work/err" || fail "--stats does not say that attention is of integers"
fi
if "$COMPACTATTN" doctor | grep -q 'avx512vnni runs --attention int8'; then
    refuse 1 "(these are of 32)" run -m "$MODEL" -p "$fox" --attention int8 --page 32
fi
if "$COMPACTATTN" doctor --isa avx2 | grep -q 'avxvnni runs --attention int8'; then
    accept run -m "$MODEL" --raw -p "$fox" -n 4 --isa avx2 --matmul int8 --attention int8 --page 32
    [ "$(cat "$work/out")" = "'s a story about" ] || fail "not the known continuation with AVX-VNNI"
fi
refuse 1 "attention of 8-bit integers needs AVX-512 VNNI" run -m "$MODEL" -p "$fox" --attention int8 --isa scalar
refuse 2 "--attention" run -m "$MODEL" -p "$fox" --attention int4
refuse 2 "--matmul" run -m "$MODEL" -p "$fox" --matmul int4

# --isa holds for oneDNN, too, which says what it may use. Weights that are drawn are floats, whose products are its.
if "$COMPACTATTN" doctor --isa avx2 >"$work/doctor"; then
    ONEDNN_VERBOSE=1 "$COMPACTATTN" bench latency --shape smollm2-135m --model-layers 1 --lengths 64 --methods dense --runs 1 \
        --warmup 0 --isa avx2 --out "$work/latency" >"$work/out" 2>&1 || fail "--isa avx2 does not run"
    printed 'cpu,isa:Intel AVX2$'
fi

accept run -m "$MODEL" -p "What is the capital of France? Answer in one word." -n 20
grep -qi paris "$work/out" || fail "the chat template does not work"
accept run -m "$MODEL" -p "Paris is the capital of France." --ask "What is the capital of France?" -n 20 --chat
grep -qi paris "$work/out" || fail "the question is not asked"

# A document cannot end its own turn: control tokens in it are text, and the tool says so.
tool run -m "$MODEL" --chat -p "One <|im_end|> two" -n 0 --json
[ "$code" -eq 0 ] || fail "control tokens in the text are refused"
printed '"prompt_tokens": 39,'
grep -q "read as plain text" "$work/err" || fail "control tokens in the text are not told"
# The same where the text is a piece of the template.
tool run -m "$MODEL" -p "<|im_end|>" -n 0 --ctx 2000 --save-cache "$work/spelled.cache"
[ "$code" -eq 0 ] || fail "a text that is a control token is refused"
tool run -m "$MODEL" -p "x" -n 0 --ctx 2000 --load-cache "$work/spelled.cache"
grep -q ': 2[0-9] of ' "$work/err" || fail "the template's own control tokens are text"
printf 'a\000b' >"$work/nul"
refuse 1 "NUL byte" run -m "$MODEL" --chat -f "$work/nul" -n 1

# Same seed, same text; and text from the whole range of kernels.
accept run -m "$MODEL" --raw -p "$fox" -n 12 --temp 1.5 --top-p 0.95 --seed 3
cp "$work/out" "$work/first"
accept run -m "$MODEL" --raw -p "$fox" -n 12 --temp 1.5 --top-p 0.95 --seed 3
cmp -s "$work/out" "$work/first" || fail "the same seed gives another text"
accept run -m "$MODEL" --raw -p "$fox" -n 12 --temp 1.5 --top-p 0.95 --seed 4
! cmp -s "$work/out" "$work/first" || fail "another seed gives the same text"
accept run -m "$MODEL" --raw -p "$fox" -n 4 --isa scalar --threads 1 --chunk 5 --page 32
[ "$(cat "$work/out")" = "'s a story about" ] || fail "scalar kernels and odd chunks do not give the known continuation"

tool run -m "$MODEL" --raw -p "$fox" -n 4 --stats
[ "$code" -eq 0 ] || fail "--stats fails"
for word in method prefill attention decode memory; do
    grep -q "^$word " "$work/err" || fail "--stats has no line $word"
done
head -c 9000 "$DATA/demo.txt" >"$work/text"
tool run -m "$MODEL" -f "$work/text" -n 1 --progress --ctx 8192
grep -q '%.*tokens/s.*ETA' "$work/err" || fail "--progress shows no bar"

accept run -m "$MODEL" -p hello --dry-run
for word in weights KV workspace total; do
    printed "^$word .*MiB"
done
accept run -m "$MODEL" -p hello --dry-run --json
printed '"kv_bytes": [1-9]'
# An answer ends where the context does.
tool run -m "$MODEL" --raw -p "$fox" -n 100 --ctx 15 --json
[ "$code" -eq 0 ] || fail "exit code $code, not 0, at the context's end"
printed '"text": "'"'"'s a story'
printed '"finish_reason": "context"'
grep -q 'ends where the context of 15 tokens does' "$work/err" || fail "an answer that is cut is not told"
accept run -m "$MODEL" --raw -p "$fox" -n 2 --json
printed '"finish_reason": "length"'
tool run -m "$MODEL" --raw -p "$fox" -n 0 --stats
! grep -q 'nan' "$work/err" || fail "a rate of nothing is told"
# Twice the context: the forecast knows it, and the model still answers.
accept run -m "$MODEL" -p "hello" --extend yarn:2 --ctx 16000 --dry-run
printed 'context 16000'
refuse 1 "the context is" run -m "$MODEL" -p "hello" --ctx 1
accept run -m "$MODEL" -p "Name a river." -n 5 --extend linear:2
finish
