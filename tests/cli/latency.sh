#!/bin/sh
# bench latency: a grid over a shape without weights, its files, what does not fit, what is refused, and a run that is killed.
. "$(dirname "$0")/common.inc"
shape=$work/tiny.json
cat >"$shape" <<'END'
{"model_type": "llama", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 500, "max_position_embeddings": 200000000, "rms_norm_eps": 1e-5}
END
latency="bench latency --threads 1 --page 32 --dense-tail 0"
grid="--lengths 256,512 --batches 1,2 --chunks 128 --methods dense,auto --runs 2"

# works ARGS..: the tool must succeed; progress goes to standard error.
works() {
    tool "$@"
    [ "$code" -eq 0 ] || fail "exit code $code, not 0: compactattn $*"
}

# rows FILE PHASE: lines of that phase
rows() {
    grep -c "\"phase\":\"$2\"" "$1" || true
}

works $latency --shape "$shape" $grid --keep 0.5 --out "$work/grid"
printed '^tiny, 3 of 3 layers, '
printed '^flashprefill+auto  *2  *512 '
# Twelve of 36 runs leave half of attention out; progress is counted in operations, so 256 and 512 tokens are not one and two thirds.
grep -q '^.*, 512 tokens, batch [12]: [0-9]* of [0-9]* GFLOP, [0-9]* GFLOP/s, ETA [0-9]* s$' "$work/err" || fail "progress is not told"
! grep -q 'tokens/s' "$work/err" || fail "progress is counted in tokens"
[ "$(rows "$work/grid/runs.jsonl" measured)" -eq 24 ] || fail "not 3 methods x 2 lengths x 2 batches x 2 runs"
[ "$(rows "$work/grid/runs.jsonl" warmup)" -eq 12 ] || fail "not one warm-up run of each"
[ "$(wc -l <"$work/grid/summary.csv")" -eq 13 ] || fail "summary.csv has not 1 + 12 lines"
head -n 1 "$work/grid/summary.csv" | grep -q '^model,.*,e2e_mean_ms,e2e_std_ms,.*,attn_mean_ms,.*,attn_speedup,e2e_speedup,.*,status,error$' ||
    fail "summary.csv has another heading"
[ "$(grep -c '^## tiny, batch [12], chunk 128, threads 1$' "$work/grid/summary.md")" -eq 2 ] || fail "summary.md has not two groups"
[ "$(grep -c '^| keep=0.5+compactattn | [0-9.]* ([0-9.]* x) | [0-9.]* ([0-9.]* x) |$' "$work/grid/summary.md")" -eq 6 ] ||
    fail "summary.md has not three tables a group"
[ "$(grep '"keep=0.5' "$work/grid/runs.jsonl" | grep -c '"kept_block_fraction":0\.5[,0]')" -eq 12 ] || fail "keep=0.5 does not keep half"
for batch in 1 2; do
    head -c 8 "$work/grid/speedup-b$batch-c128-t1.png" | grep -q PNG || fail "speedup-b$batch-c128-t1.png is no picture"
done

# The same command does nothing more; other settings are another folder's.
cp "$work/grid/runs.jsonl" "$work/before.jsonl"
works $latency --shape "$shape" $grid --keep 0.5 --out "$work/grid" --json
printed '"kept_block_pct": 50\.0'
[ "$(grep -c '"e2e_speedup": [0-9]' "$work/out")" -eq 12 ] || fail "the JSON has not 12 rows"
cmp -s "$work/before.jsonl" "$work/grid/runs.jsonl" || fail "a finished folder grew"
refuse 1 runs $latency --shape "$shape" $grid --keep 0.5 --runs 3 --out "$work/grid"

# Killed and taken up again: the rows of an unbroken run.
rm -f "$work/grid/summary.csv"
"$COMPACTATTN" $latency --shape "$shape" $grid --chunks 64 --warmup 0 --runs 9 --out "$work/killed" >/dev/null 2>&1 &
pid=$!
tries=0
until [ $tries -ge 200 ] || { [ -s "$work/killed/runs.jsonl" ] && [ "$(wc -l <"$work/killed/runs.jsonl")" -ge 5 ]; }; do
    tries=$((tries + 1))
    sleep 0.02
done
kill -9 $pid 2>/dev/null || true
wait $pid 2>/dev/null || true
printf '{"schema_version":1,"run_id":"half a li' >>"$work/killed/runs.jsonl"
works $latency --shape "$shape" $grid --chunks 64 --warmup 0 --runs 9 --out "$work/killed"
[ "$(rows "$work/killed/runs.jsonl" measured)" -eq 72 ] || fail "not every run once after it was killed"
[ "$(sed 's/.*"run_id":"\([^"]*\)".*/\1/' "$work/killed/runs.jsonl" | sort -u | wc -l)" -eq 72 ] || fail "a run was done twice"
[ "$(wc -l <"$work/killed/summary.csv")" -eq 9 ] || fail "the summary after it was killed has not 1 + 8 lines"

# Fewer layers: what all would take is marked. Batches and schedules need nothing more.
works $latency --shape "$shape" --model-layers 2 --lengths 200 --chunks 64 --methods dense,compactattn --runs 1 --schedule cycle --json
printed '"layers_whole": 3,'
printed '"e2e_extrapolated_ms": [0-9]'
printed '"input_schedule": "cycle"'

# What does not fit is a row, and the rest is measured.
"$COMPACTATTN" $latency --shape "$shape" --lengths 64,190000000 --methods dense --runs 1 --out "$work/oom" >"$work/out" 2>"$work/err" &&
    fail "an absurd length is fine"
grep -q 'l190000000-r0: oom: [0-9.]* MiB are needed' "$work/err" || fail "the absurd length is not told"
grep -q '"status":"oom"' "$work/oom/runs.jsonl" || fail "no row for what does not fit"
grep -q ',64,.*,ok,$' "$work/oom/summary.csv" || fail "the length that fits is missing"
grep -q ',190000000,.*,oom,.*MiB are needed' "$work/oom/summary.csv" || fail "summary.csv does not say oom"
tool $latency --shape "$shape" --lengths 190000000 --methods dense --runs 1 # the table says so where no line is otherwise, too
printed '^dense *190000000 .* oom *$'

# Real prompts in RULER's folders, with a tokenizer of another model; a length without a file is a failed row.
mkdir -p "$work/ruler/synthetic/64/data/vt"
printf '{"index": 0, "input": "One two three four five six seven.", "outputs": ["x"], "length": 9}\n' \
    >"$work/ruler/synthetic/64/data/vt/validation.jsonl"
works $latency --shape "$shape" --lengths 64 --methods dense --runs 1 --data "$work/ruler" --tokenizer "$MODEL" --out "$work/vt"
grep -q '"prompt_source":"ruler","task":"vt","sample_ids":\[0\]' "$work/vt/runs.jsonl" || fail "the rows do not name the task"
[ "$(grep -c 'made for another length or tokenizer, it seems: a prompt of [0-9]* tokens is filled up to 64$' "$work/err")" -eq 1 ] ||
    fail "a prompt that does not fill its length is not told once"
"$COMPACTATTN" $latency --shape "$shape" --lengths 96 --methods dense --runs 1 --data "$work/ruler" --tokenizer "$MODEL" \
    >"$work/out" 2>"$work/err" && fail "a length without prompts is fine"
grep -q 'failed: .*synthetic/96/data/vt' "$work/err" || fail "the missing file is not told"

# What failed is tried again when the same command comes back: the file is there now, and the summary says nothing of the failure.
retry="$latency --shape $shape --lengths 96,64 --methods dense --runs 1 --data $work/ruler --tokenizer $MODEL --out $work/retry"
tool $retry
[ "$code" -eq 1 ] || fail "exit code $code, not 1, for a length without prompts"
printed '^dense *96 .*failed'
mkdir -p "$work/ruler/synthetic/96/data/vt"
cp "$work/ruler/synthetic/64/data/vt/validation.jsonl" "$work/ruler/synthetic/96/data/vt/"
works $retry
grep -q 'l96-[wr]0: failed in an earlier call (.*): it is tried again$' "$work/err" || fail "what failed is not tried again aloud"
! grep -q 'failed' "$work/out" || fail "the summary says what failed once"
sed -n 2p "$work/retry/summary.csv" | grep -q ',96,.*,ok,$' || fail "lengths are not in the grid's order after a failure"
echo >>"$work/ruler/synthetic/96/data/vt/validation.jsonl"
refuse 1 'inputs.prompts of 96 was' $retry
"$COMPACTATTN" $latency --shape "$shape" --lengths 64,190000000 --methods dense --runs 1 --out "$work/oom" >"$work/out" 2>"$work/err" &&
    fail "an absurd length is fine the second time"
grep -q 'l190000000-r0: oom in an earlier call (.*): it is tried again$' "$work/err" || fail "what failed is not tried again aloud"
[ "$(grep -c '"status":"oom"' "$work/oom/runs.jsonl")" -eq 2 ] || fail "what failed is not tried again"
[ "$(wc -l <"$work/oom/summary.csv")" -eq 3 ] || fail "a repeated failure is not one line"
printed 'oom'

# Settings that would not compare do not go into one folder.
refuse 1 'task was' $latency --shape "$shape" --lengths 64 --methods dense --runs 1 --data "$work/ruler" --task fwe --tokenizer "$MODEL" \
    --out "$work/vt"
refuse 1 'extend was' $latency --shape "$shape" --lengths 64 --methods dense --runs 1 --data "$work/ruler" --tokenizer "$MODEL" \
    --extend linear:1.2 --out "$work/vt"

# A model file, the quick mode.
works bench latency -m "$MODEL" --threads 1 --mode quickstart --lengths 300 --methods dense,quoka
printed '^dense  *300 '

printf '{' >"$work/broken.json"
refuse 1 no-such-shape bench latency --shape no-such-shape
refuse 1 'broken.json: line 1' bench latency --shape "$work/broken.json"
refuse 1 '9 layers' bench latency --shape "$shape" --model-layers 9
refuse 2 '--tokenizer' bench latency --shape "$shape" -f "$shape"
refuse 2 'either -m MODEL or --shape' bench latency
refuse 2 'twice' bench latency --shape "$shape" --lengths 64,64
refuse 2 '--chunks 0' bench latency --shape "$shape" --chunks 0
refuse 2 'listed twice' bench latency --shape "$shape" --keep 0.1,0.10
refuse 2 'needs --gate' bench latency --shape "$shape" --methods dense,seer
refuse 2 '--threshold foo' bench latency --shape "$shape" --methods dense,xattention --threshold foo
refuse 2 '--keep 2' bench latency --shape "$shape" --keep 2
finish
