#!/bin/sh
# logits, perplexity, bench prefill, inspect model, doctor.
. "$(dirname "$0")/common.inc"
ids "$work/ids.npy" 40 41 42 43 44 45 46 47 48 49

accept logits -m "$MODEL" --tokens "$work/ids.npy" --last 3 --out "$work/logits.npy"
[ ! -s "$work/out" ] || fail "logits prints something"
[ "$(wc -c <"$work/logits.npy")" -eq $((128 + 3 * 49152 * 4)) ] || fail "logits.npy has another size"
head -c 128 "$work/logits.npy" | grep -q "'shape': (3, 49152)" || fail "logits.npy has another shape"
accept logits -m "$MODEL" --tokens "$work/ids.npy" --last 1 --out "$work/last.npy"
tail -c $((49152 * 4)) "$work/logits.npy" >"$work/a"
tail -c $((49152 * 4)) "$work/last.npy" >"$work/b"
cmp -s "$work/a" "$work/b" || fail "the last row depends on --last"
accept logits -m "$MODEL" --tokens "$work/ids.npy" --out "$work/last.npy" --json
json_keys

# The known mean of p1500 is 2.68127 in fp32; bf16 and Q4_1 weights stay within 0.01 of it.
accept perplexity -m "$MODEL" -f "$golden/smollm2/p1500.txt"
printed '^tokens  *1499$'
printed '^scored  *1498$'
printed '^mean_nll  *2\.6[789]'
printed '^perplexity  *14\.'
accept perplexity -m "$MODEL" --tokens "$golden/smollm2/p1500.ids.npy" --executor compactattn --from 1000 --json
json_keys
printed '"scored_tokens": 499'
printed '"mean_nll": [123]\.'
printed '"method": "flashprefill+compactattn",'

accept bench prefill -m "$MODEL" --lengths 64,1100 --runs 2 --warmup 0 --csv "$work/rows.csv"
[ "$(grep -c '^flashprefill+compactattn  *\(64\|1100\)  ' "$work/out")" -eq 2 ] || fail "not a row for each length"
[ "$(wc -l <"$work/rows.csv")" -eq 9 ] || fail "the CSV has not 1 + 2 x 4 lines"
head -n 1 "$work/rows.csv" | grep -q '^method,prompt_tokens,ttft_ms,.*,ttft_speedup$' || fail "the CSV has another heading"
[ "$(tail -n +2 "$work/rows.csv" | tr -cd ',\n' | sort -u)" = ",,,,,,,,,,,," ] || fail "the CSV's rows have not 13 fields"
accept bench prefill -m "$MODEL" --lengths 64 --methods compactattn --runs 1 --warmup 0 --json
json_keys
printed '"gemm_ms": [0-9.]*[1-9]'
printed '"gemm_gflop_s": [0-9.]*[1-9]'
printed '"peak_gflops": [1-9]'
[ "$(grep -c '"method"' "$work/out")" -eq 1 ] || fail "other methods than asked for"
refuse 1 "$work/no/rows.csv" bench prefill -m "$MODEL" --lengths 64 --methods dense --runs 1 --warmup 0 --csv "$work/no/rows.csv"

accept bench attention --shape q64,kv500,h6:2,d64 --shape q70,kv300,h4:4,d16,p32 --methods auto,flashprefill+block_sparse,quoka,xattention,oracle --keep 0.5 --runs 1
[ "$(grep -c '^q64,kv500,h6:2,d64 ' "$work/out")" -eq 7 ] || fail "not 7 rows for a shape"
[ "$(grep -c '^q70,kv300,h4:4,d16,p32 .*quoka' "$work/out")" -eq 1 ] || fail "no row for quoka"
[ "$(grep -c ' [1-9]\.[0-9]e-\(0[3-9]\|1[0-9]\)$' "$work/out")" -eq 14 ] || fail "an output is off by 1 % or more, or not checked"
accept bench attention --shape q64,kv512,h4:2,d32 --methods seer --runs 1 --json
printed '"executor": "seer+auto"'
printed '"share_of_peak": [0-9]'
[ "$(grep -c '"error": [0-9.]*\(e-\|[0-9]\)' "$work/out")" -eq 2 ] || fail "the JSON has no errors"
# In f32 only the order of sums is left; in bf16 the weights are rounded, too.
accept bench attention --shape q64,kv500,h6:2,d64 --methods flashprefill+block_sparse --runs 1 --isa scalar
[ "$(grep -c ' [0-9.]*e-\(0[6-9]\|1[0-9]\)$' "$work/out")" -eq 2 ] || fail "an output in f32 is off by 1e-5 or more"
accept bench attention --shape q64,kv512,h4:2,d32 --methods dense --runs 1 --json --no-check
printed '"error": null'
# Where queries are fewer than a page has tokens, the memory counts, too; else it is not measured.
accept bench attention --shape q1,kv4096,h4:2,d64 --methods dense --runs 1 --json --no-check
printed '"gb_per_s": [0-9.e-]*[1-9]'
printed '"share_of_memory": \(0\.[0-9]*\|1\.[0-4][0-9]*\|[1-9][0-9.]*e-[0-9]*\),'
printed '"memory_gb_per_s": [1-9]'
accept bench attention --shape q1024,kv1024,h1:1,d16 --methods dense --runs 1 --json --no-check
[ "$(grep -c '"\(gb_per_s\|memory_gb_per_s\|share_of_memory\)": null' "$work/out")" -eq 3 ] || fail "memory without need"
if "$COMPACTATTN" doctor --json | grep -q '"int8_attention": "'; then
    accept bench attention --shape q256,kv1024,h4:2,d64 --methods auto --runs 1 --json --attention int8
    printed '"error": 0.0[0-3]' # rounded, and no more
    XDG_CACHE_HOME=$work/cache accept doctor --tune
    printed 'Cost model of auto rows with --attention int8: measured, '
else
    refuse 1 "no attention of 8-bit integers" bench attention --shape q256,kv1024,h4:2,d64 --runs 1 --attention int8
fi
head -c 3000 "$golden/smollm2/p1500.txt" >"$work/short.txt"
accept bench quality -m "$MODEL" -f "$work/short.txt" --out "$work/q" --runs 1 --chunk 200 --sweep dense --sweep auto:alpha=0,5
[ "$(wc -l <"$work/q/quality.csv")" -eq 4 ] || fail "quality.csv has not 1 + 3 lines"
[ -s "$work/q/quality.png" ] && [ -s "$work/q/quality.md" ] || fail "quality: files are missing"
[ "$(sed -n 2p "$work/q/quality.csv" | cut -d, -f4)" = "$(sed -n 3p "$work/q/quality.csv" | cut -d, -f4)" ] || fail "alpha 0 is not dense"

accept inspect model -m "$MODEL"
printed '^llama.block_count .* 30$'
printed '^token_embd.weight  *Q[48]_[01]  *576 x 49152 '
accept inspect model -m "$MODEL" --json
printed '"architecture": "llama"'
printed '"block_count": "30"'
# 2^17 keys: 8 bytes of length, the name, u32 7 for bool, true. This would run for hours if each looked at all others.
{
    printf 'GGUF\003\0\0\0\0\0\0\0\0\0\0\0\0\0\002\0\0\0\0\0'
    seq -f 'LZZZZZZZ%08.0fBZZZT' 131072 | tr -d '\n' | tr 'LZBT' '\010\000\007\001'
    head -c 64 /dev/zero
} >"$work/keys.gguf"
accept inspect model -m "$work/keys.gguf"
printed '^00131072  *bool  *true'

accept doctor
printed '^  scalar '
printed '^peak  *[1-9][0-9]* GFLOP/s'
printed '^  oneDNN  *[0-9.]* (compiled against '
accept doctor -m "$MODEL" --isa scalar
printed '^  scalar  *chosen'
printed 'whole context of 8192 tokens'
XDG_CACHE_HOME=$work/cache accept doctor --tune
printed 'Cost model of auto rows: measured, '
[ -s "$work/cache/compactattn/cost.json" ] || fail "the cost model is not kept"
XDG_CACHE_HOME=$work/cache accept doctor --json
printed '"measured_in": "'
accept doctor --json
printed '"libraries": \['
# Differences and their errors are those from the first dense row, wherever it is given.
head -c 2500 "$DATA/demo.txt" >"$work/short.txt"
tool bench quality -m "$MODEL" -f "$work/short.txt" --runs 1 --chunk 256 --sweep trishape:window=128 --sweep dense:page=128,32 --out "$work/quality"
[ "$code" -eq 0 ] || fail "bench quality: exit code $code"
printed '^dense  *page=128  *1\.000  *[0-9.]*  *0\.0000  *0\.0000 '
printed '^trishape+auto  *window=128  *0\.[0-9]*  *[0-9.]*  *-*0\.[0-9]*  *0\.0[0-9]* '
finish
