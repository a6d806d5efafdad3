#!/bin/sh
# RULER's data root: what is written, what is kept, what is refused.
. "$(dirname "$0")/common.inc"
cd "$DATA/.." || exit 1
root=$work/root
file=$root/synthetic/1024/data/vt/validation.jsonl
make_vt() { # ARGS..
    tool eval ruler generate -m "$MODEL" --tasks vt --lengths 1024 --samples 3 --out "$root" "$@"
    [ "$code" -eq 0 ] || fail "exit code $code: $*"
}
generate() { # CODE WORDS ARGS..: refused with one line
    want=$1 words=$2
    shift 2
    refuse "$want" "$words" eval ruler generate -m "$MODEL" "$@"
}

make_vt
printed 'template qwen2.5, profile ref$'
[ "$(wc -l <"$file")" -eq 3 ] || fail "not three rows"
head -n 1 "$file" | grep -q '^{"index": 0, "input": "<|im_start|>user.*are: ", "outputs": \["[A-Z]*", .*\], "length": [0-9]*}$' ||
    fail "the row's form"
for key in profile tokenizer wrapper seed samples haystack files; do
    grep -q "\"$key\": " "$root/manifest.json" || fail "manifest.json has no $key"
done
[ "$(grep -o 'sha256:[0-9a-f]*",*$' "$root/manifest.json" | wc -l)" -ge 2 ] || fail "manifest.json has no hashes"
grep -qF "vt/validation.jsonl\": \"sha256:$(sha256sum <"$file" | cut -d ' ' -f 1)\"" "$root/manifest.json" || fail "the file's hash"

# Kept as it is; made again when it is gone, byte for byte; other settings and changed files are refused.
cp "$file" "$work/first"
make_vt
[ ! -s "$work/err" ] || fail "something was made again"
rm "$file"
make_vt
cmp -s "$file" "$work/first" || fail "the same settings gave another file"
generate 1 "choose another" --tasks vt --lengths 1024 --samples 4 --out "$root"
generate 1 "choose another" --tasks vt --lengths 1024 --samples 3 --seed 43 --out "$root"
generate 1 "choose another" --tasks vt --lengths 1024 --samples 3 --profile upstream --out "$root"
echo >>"$file"
generate 1 "remove the file to have it made again" --tasks vt --lengths 1024 --samples 3 --out "$root"

# A root of others is used as it is.
rm "$root/manifest.json"
accept eval ruler generate -m "$MODEL" --tasks vt --lengths 1024 --samples 3 --out "$root"
[ ! -e "$root/manifest.json" ] || fail "a root of others was changed"
generate 1 "has no manifest.json" --tasks cwe --lengths 1024 --out "$root"

# The essay's origin is said; qa tasks without data are left out by name.
tool eval ruler generate -m "$MODEL" --tasks niah_single_2,qa_1,qa_2 --lengths 1024 --samples 1 --out "$work/essay"
[ "$code" -eq 0 ] || fail "exit code $code, essay"
printed 'haystack=public-domain'
grep -q '"haystack": "public-domain"' "$work/essay/manifest.json" || fail "manifest.json: haystack"
grep -q '"--essay": "sha256:' "$work/essay/manifest.json" || fail "manifest.json: the essay's hash"
grep -q 'qa_1 is skipped: it needs --squad FILE' "$work/err" || fail "qa_1 is not named"
grep -q 'qa_2 is skipped: it needs --hotpotqa FILE' "$work/err" || fail "qa_2 is not named"
[ ! -e "$work/essay/synthetic/1024/data/qa_1" ] || fail "qa_1 was made"

cat >"$work/squad.json" <<'EOF'
{"data": [{"paragraphs": [{"context": "One.", "qas": [{"question": "Who?", "is_impossible": false, "answers": [{"text": "I"}]}]},
                          {"context": "Two.", "qas": []}]}]}
EOF
tool eval ruler generate -m "$MODEL" --tasks qa_1 --lengths 1024 --samples 1 --squad "$work/squad.json" --out "$work/qa"
[ "$code" -eq 0 ] || fail "exit code $code, qa"
grep -q 'Document 2:.*Question: Who?.*"outputs": \["I"\]' "$work/qa/synthetic/1024/data/qa_1/validation.jsonl" || fail "the qa row"
sed 's/One/Three/' "$work/squad.json" >"$work/other.json"
generate 1 "is another file than the one used before" --tasks qa_1 --lengths 1024 --samples 1 --squad "$work/other.json" --out "$work/qa"
tool eval ruler generate -m "$MODEL" --tasks vt,qa_1 --lengths 1024 --samples 3 --squad "$work/squad.json" --out "$work/bad"
[ "$code" -eq 0 ] || fail "too few questions stop other tasks"
grep -q 'qa_1 is skipped at 1024 tokens: more samples are asked for than its file has questions$' "$work/err" || fail "too few questions"
[ -s "$work/bad/synthetic/1024/data/vt/validation.jsonl" ] || fail "too few questions stop other tasks"
rm -r "$work/bad/synthetic/1024/data/vt"
[ -z "$(find "$work/bad" -name '*.jsonl*')" ] || fail "a file that failed is left"

# A task that does not fit a length is skipped there, by name; the rest is made, and the same command says the same.
holes="eval ruler generate -m $MODEL --tasks niah_single_1,vt --samples 2"
for time in first second; do
    # shellcheck disable=SC2086
    tool $holes --lengths 512,1024 --out "$work/holes"
    [ "$code" -eq 0 ] || fail "exit code $code with a hole, $time time"
    grep -q '^compactattn: vt is skipped at 512 tokens: too short' "$work/err" || fail "the hole is not told, $time time"
    [ "$(grep -c 'is skipped' "$work/err")" -eq 1 ] || fail "not one hole, $time time"
    printed ': 2 tasks x 2 lengths x 2 samples, .*; 1 of 4 datasets are skipped$'
    for file in 512/data/niah_single_1 1024/data/niah_single_1 1024/data/vt; do
        [ "$(wc -l <"$work/holes/synthetic/$file/validation.jsonl")" -eq 2 ] || fail "no rows: $file"
    done
    [ ! -e "$work/holes/synthetic/512/data/vt" ] || fail "the hole leaves a folder"
done
! grep -q ' rows/s' "$work/err" || fail "a hole is tried again"
grep -q '"512/vt": "too short' "$work/holes/manifest.json" || fail "manifest.json does not say what is skipped"
# shellcheck disable=SC2086
accept $holes --lengths 1024 --out "$work/holes" --json
printed '"skipped": {}'
# shellcheck disable=SC2086
tool $holes --lengths 150 --out "$work/e4"
[ "$code" -eq 1 ] || fail "exit code $code where nothing fits"
grep -q 'nothing is written, every task is skipped' "$work/err" || fail "that nothing fits is not told"

# The word lists and the essay are read for the tasks that use them only.
mkdir -p "$work/lone/bin"
cp "$COMPACTATTN" "$work/lone/bin/compactattn"
(
    cd "$work/lone" || exit 1
    COMPACTATTN=$work/lone/bin/compactattn
    tool eval ruler generate -m "$MODEL" --tasks vt,fwe,niah_multikey_3 --lengths 1024 --samples 1 --out "$work/lone/root"
    [ "$code" -eq 0 ] || fail "exit code $code without data"
    refuse 1 "data/ruler" eval ruler generate -m "$MODEL" --tasks niah_single_1 --lengths 1024 --samples 1 --out "$work/lone/words"
    refuse 1 "essay.txt.gz is missing" eval ruler generate -m "$MODEL" --tasks niah_single_2 --lengths 1024 --samples 1 \
        --out "$work/lone/essay"
    finish
) || fail "without the program's data"

# Upstream's rows hold the prefix apart.
tool eval ruler generate -m "$MODEL" --tasks cwe --lengths 1024 --samples 1 --profile upstream --out "$work/upstream"
grep -q '"answer_prefix": " Answer: The top 10' "$work/upstream/synthetic/1024/data/cwe/validation.jsonl" || fail "answer_prefix"

echo '{"words": 1}' >"$work/essay.json"
generate 1 'the key "text" is missing' --tasks niah_single_2 --essay "$work/essay.json" --out "$work/e1"
echo '{"text": ' >"$work/essay.json"
generate 1 "line 2: " --tasks niah_single_2 --essay "$work/essay.json" --out "$work/e2"
generate 1 "No such file" --tasks niah_single_2 --essay "$work/nothing" --out "$work/e3"
generate 2 'unknown task "vtt"' --tasks vt,vtt --out "$work/e5"
generate 2 "unknown; known: base, " --template nothing --out "$work/e5"
generate 2 "expected whole numbers" --lengths 1k --out "$work/e5"
generate 2 "expected one of" --profile new --out "$work/e5"
generate 2 "--out PATH is missing"
refuse 1 "nothing.gguf" eval ruler generate -m "$work/nothing.gguf" --out "$work/e5"
finish
