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
for key in profile tokenizer wrapper seed samples haystack essay files; do
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
generate 1 "3 samples asked for, the file has 1 questions" --tasks qa_1 --samples 3 --squad "$work/squad.json" --out "$work/bad"
[ -z "$(find "$work/bad" -name '*.jsonl*')" ] || fail "a file that failed is left"

# Upstream's rows hold the prefix apart.
tool eval ruler generate -m "$MODEL" --tasks cwe --lengths 1024 --samples 1 --profile upstream --out "$work/upstream"
grep -q '"answer_prefix": " Answer: The top 10' "$work/upstream/synthetic/1024/data/cwe/validation.jsonl" || fail "answer_prefix"

echo '{"words": 1}' >"$work/essay.json"
generate 1 'the key "text" is missing' --tasks niah_single_2 --essay "$work/essay.json" --out "$work/e1"
echo '{"text": ' >"$work/essay.json"
generate 1 "line 2: " --tasks niah_single_2 --essay "$work/essay.json" --out "$work/e2"
generate 1 "No such file" --tasks niah_single_2 --essay "$work/nothing" --out "$work/e3"
generate 1 "too short" --tasks niah_single_1 --lengths 150 --out "$work/e4"
generate 2 'unknown task "vtt"' --tasks vt,vtt --out "$work/e5"
generate 2 "unknown; known: base, " --template nothing --out "$work/e5"
generate 2 "expected whole numbers" --lengths 1k --out "$work/e5"
generate 2 "expected one of" --profile new --out "$work/e5"
generate 2 "--out PATH is missing"
refuse 1 "nothing.gguf" eval ruler generate -m "$work/nothing.gguf" --out "$work/e5"
finish
