#!/bin/sh
# eval ruler run and score: a small grid, stopped twice and torn, ends as the unbroken one does; what is refused; foreign answers.
. "$(dirname "$0")/common.inc"

# rows FILE QUESTION ANSWER..: a data file with one prompt of about 210 tokens an answer.
filler=$(head -c 800 "$golden/smollm2/p1500.txt" | tr -d '"\\' | tr '\n\t' '  ')
rows() {
    mkdir -p "$(dirname "$1")"
    out=$1 question=$2 index=0
    shift 2
    for answer in "$@"; do
        printf '{"index": %d, "input": "%s %s. %s %s", "outputs": ["%s"], "length": 240}\n' $index "$question" "$answer" "$filler" \
            "$question" "$answer"
        index=$((index + 1))
    done >"$out"
}
data=$work/data
rows "$data/synthetic/512/data/vt/validation.jsonl" "The secret number of the house is" 7351 2846 9128
rows "$data/synthetic/512/data/qa_1/validation.jsonl" "The name of the captain is" Barbara George Anna

# grid OUT ARGS..: the run that is repeated below.
with=
grid() {
    out=$1
    shift
    $with "$COMPACTATTN" eval ruler run -m "$MODEL" --data "$data" --lengths 512 --tasks vt,qa_1 --samples 3 --methods dense,auto \
        --chunk 96 --page 32 --sink 32 --window 32 --alpha 0.9 --dense-tail 0 --out "$out" "$@"
}

# answered OUT: lines of all answer files.
answered() {
    cat "$1"/*/synthetic/512/pred/*.jsonl 2>/dev/null | wc -l
}

# stop OUT SIGNAL: starts the grid, sends the signal when two more answers are there.
stop() {
    before=$(answered "$1")
    with=exec # so that the signal goes to the tool
    grid "$1" >/dev/null 2>"$work/err" </dev/null &
    with=
    pid=$!
    for _ in $(seq 600); do
        [ "$(answered "$1")" -lt $((before + 2)) ] || break
        sleep 0.05
    done
    kill -s "$2" $pid
    code=0
    wait $pid 2>/dev/null || code=$?
}

# untimed OUT: all that a run leaves, without milliseconds and without the folder's name.
untimed() {
    cut -d, -f1-9,12- "$1/summary.csv"
    for file in "$1"/*/synthetic/512/pred/*.jsonl "$1"/*/synthetic/512/pred/summary.csv "$1"/*/manifest.json "$1/manifest.json"; do
        echo "${file#"$1"}"
        sed 's/"[a-z]*_ms":[0-9.e+-]*//g' "$file"
    done
}

grid "$work/whole" >"$work/out" 2>"$work/err" </dev/null || fail "the unbroken run"
grep -q '^512 vt dense: 3 answered, [0-9]* % of the tokens done, about [0-9]* s left$' "$work/err" || fail "no progress"
[ "$(answered "$work/whole")" -eq 12 ] || fail "not 12 answers"
! grep -q 'made' "$work/err" || fail "the prompts are said to be made for others"
accept eval ruler score "$work/whole"
printed '^dense  *[0-9.]*  *[0-9.]*  *[0-9.]*  *[0-9.]* to [0-9.]* '
printed '^flashprefill+auto '
printed '^Length 512$'
cp "$work/out" "$work/table"
[ "$(sed -n 2p "$work/whole/summary.csv" | cut -d, -f1-7)" = "512,dense,vt,3,0,100,100" ] || fail "dense does not repeat the numbers"
kept=$(grep 'auto,average' "$work/whole/summary.csv" | cut -d, -f9)
case $kept in 0.*) ;; *) fail "auto kept $kept of the past" ;; esac
[ "$(head -c 4 "$work/whole/heatmap.png" | tail -c 3)" = PNG ] || fail "no picture"
grep -q '^| dense | ' "$work/whole/summary.md" || fail "no Markdown table"

stop "$work/broken" INT
[ "$code" -eq 130 ] || fail "exit code $code, not 130, after an interrupt"
grep -q 'stopped; what is answered is kept' "$work/err" || fail "an interrupt is not told"
first=$(answered "$work/broken")
[ "$first" -ge 2 ] && [ "$first" -lt 12 ] || fail "$first answers after an interrupt"
stop "$work/broken" KILL
[ "$(answered "$work/broken")" -gt "$first" ] || fail "no answer after the second start"
for file in "$work"/broken/*/synthetic/512/pred/*.jsonl; do last=$file; done
head -c $(($(wc -c <"$last") - 7)) "$last" >"$work/torn" && cp "$work/torn" "$last" # as a crash leaves it
grid "$work/broken" >"$work/out" 2>"$work/err" </dev/null || fail "the run that goes on"
accept eval ruler score "$work/broken" --json
printed '"haystack": null'
[ "$(grep -c '"task": "average"' "$work/out")" -eq 2 ] || fail "not an average for each method"
untimed "$work/whole" >"$work/a"
untimed "$work/broken" >"$work/b"
cmp "$work/a" "$work/b" || fail "a stopped run ends otherwise than an unbroken one"
grid "$work/broken" >"$work/out" 2>"$work/err" </dev/null || fail "a run with nothing to do"
[ ! -s "$work/err" ] || fail "a run with nothing to do does something"

# Settings of what is there are kept; more methods may come.
args="eval ruler run -m $MODEL --data $data --lengths 512 --tasks vt --samples 1 --chunk 96 --page 32 --sink 32 --window 32"
args="$args --dense-tail 0 --out $work/broken"
# shellcheck disable=SC2086
refuse 1 "flashprefill+auto/manifest.json: settings.alpha was 0.9 and is now 0.5: " $args --methods auto --alpha 0.5
# shellcheck disable=SC2086
refuse 1 "dense/manifest.json: settings.chunk was 96 and is now 64: " $args --methods dense --chunk 64
# shellcheck disable=SC2086
tool $args --sweep auto:alpha=0.5,0
[ "$code" -eq 0 ] || fail "a sweep is refused"
[ "$(wc -l <"$work/broken/flashprefill+auto,alpha=0.5/synthetic/512/pred/vt.jsonl")" -eq 1 ] || fail "a sweep has not its own folder"
# shellcheck disable=SC2086
refuse 2 "method dense is listed twice" $args --methods dense --sweep dense
# shellcheck disable=SC2086
refuse 2 "length 512 is listed twice" $args --lengths 512,512

# A short last chunk joins the one before it; the manifest says so. The dense tail must fit into the last chunk.
chunks() { # OUT
    sed 's/.*"prompt_tokens":\([0-9]*\),"chunks":\([0-9]*\),.*/\1 \2/' "$1"/dense/synthetic/512/pred/vt.jsonl
}
grep -q '"last_chunk": "merge"' "$work/whole/dense/manifest.json" || fail "the manifest does not say what a short last chunk is"
[ "$(chunks "$work/whole" | wc -l)" -eq 3 ] || fail "the answers do not say their chunks"
chunks "$work/whole" | while read -r tokens n; do
    [ $((tokens % 96)) -ne 0 ] && [ "$n" -eq $((tokens / 96)) ] || exit 1
done || fail "a short last chunk is not merged"
grid "$work/own" --last-chunk own --methods dense >"$work/out" 2>"$work/err" </dev/null || fail "the run with --last-chunk own"
grep -q '"last_chunk": "own"' "$work/own/dense/manifest.json" || fail "the manifest does not say that a short chunk stays"
chunks "$work/own" | while read -r tokens n; do
    [ "$n" -eq $((tokens / 96 + 1)) ] || exit 1
done || fail "--last-chunk own merges"
pred() {
    sed 's/.*"pred":\("[^"]*"\).*/\1/' "$1/dense/synthetic/512/pred/vt.jsonl"
}
[ "$(pred "$work/own")" = "$(pred "$work/whole")" ] || fail "dense answers depend on the chunks"
# shellcheck disable=SC2086
refuse 1 'dense/manifest.json: last_chunk was "merge" and is now "own"' $args --methods dense --last-chunk own
# shellcheck disable=SC2086
refuse 2 "--dense-tail 97 is longer than a chunk of 96" $args --methods dense --dense-tail 97 --out "$work/tail.out"

# Prompts that another tokenizer was counted for, and prompts of another length, are told with both numbers.
other=$work/other
mkdir -p "$other/synthetic/512/data/vt" "$other/synthetic/100/data/vt"
sed 's/"length": 240/"length": 500/' "$data/synthetic/512/data/vt/validation.jsonl" >"$other/synthetic/512/data/vt/validation.jsonl"
cp "$data/synthetic/512/data/vt/validation.jsonl" "$other/synthetic/100/data/vt/validation.jsonl"
one="eval ruler run -m $MODEL --methods dense --tasks vt --samples 1 --chunk 96 --page 32 --dense-tail 0"
# shellcheck disable=SC2086
tool $one --data "$other" --lengths 512,100 --out "$work/other.out"
[ "$code" -eq 0 ] || fail "exit code $code with prompts of another tokenizer"
file=$other/synthetic/512/data/vt/validation.jsonl
grep -q "$file: made with another tokenizer, it seems: its rows say 500 tokens on average, this model counts [23][0-9]*, at most [23][0-9]*, in a folder of 512$" \
    "$work/err" || fail "another tokenizer is not told"
grep -q "$other/synthetic/100/data/vt/validation.jsonl: made for another length, it seems: up to [23][0-9]* tokens, in a folder of 100$" "$work/err" ||
    fail "another length is not told"
[ "$(grep -c 'made' "$work/err")" -eq 2 ] || fail "not one line a file"
[ -e "$work/other.out/manifest.json" ] || fail "no manifest"

# What the data's manifest says is skipped is no failure; tables have a hole there.
made=$work/made
rows "$made/synthetic/512/data/fwe/validation.jsonl" "The secret number of the house is" 7351
for task in fwe vt; do
    rows "$made/synthetic/1024/data/$task/validation.jsonl" "The secret number of the house is" 7351
done
echo '{"profile": "ruler-ref", "note": {"skipped": {"512/vt": "too short for it", "512/cwe": 3}}}' >"$made/manifest.json"
# shellcheck disable=SC2086
tool $one --tasks fwe,vt --data "$made" --lengths 512,1024 --out "$work/made.out"
[ "$code" -eq 0 ] || fail "exit code $code with a hole in the data"
grep -q '^compactattn: vt is skipped at 512 tokens: too short for it$' "$work/err" || fail "the hole is not told"
grep -q '"512/vt": "too short for it"' "$work/made.out/manifest.json" || fail "the answers' manifest does not have the hole"
accept eval ruler score "$work/made.out"
printed '^512/vt is skipped: too short for it; averages there are over fewer tasks\.$'
printed '^dense  *-  *100\.00  *100\.00 '
printed '^dense  *100\.00  *100\.00  *100\.00 '
! grep -q 'has no answers' "$work/out" || fail "a hole is told as an answer that is missing"
accept eval ruler score "$work/made.out" --json
printed '"512/vt": "too short for it"'
# An average over fewer tasks than other methods may have stands in no comparison of averages.
cp -r "$work/made.out" "$work/less.out"
rm "$work/less.out"/dense/synthetic/1024/pred/fwe.jsonl
accept eval ruler score "$work/less.out"
printed '^dense has no answers to fwe at 1024: its averages there are over fewer tasks, its mean is left out\.$'
printed '^dense  *100\.00  *-  *-$'
# shellcheck disable=SC2086
tool $one --tasks cwe,fwe --data "$made" --lengths 512 --out "$work/made2.out"
[ "$code" -eq 1 ] || fail "a file that is missing without a reason is no failure"

# Prompts that are far too short for their folder are told; fewer of them than asked for, too.
mkdir -p "$other/synthetic/1024/data/vt"
cp "$data/synthetic/512/data/vt/validation.jsonl" "$other/synthetic/1024/data/vt/validation.jsonl"
# shellcheck disable=SC2086
tool $one --data "$other" --lengths 1024 --samples 4 --out "$work/short.out"
grep -q 'made for another length, it seems: up to [23][0-9]* tokens, in a folder of 1024$' "$work/err" || fail "short prompts are not told"
grep -q ': has 3 of the 4 samples asked for$' "$work/err" || fail "missing samples are not told"

# A command that had nothing to do leaves nothing that would refuse the corrected one.
refuse 1 "$work/nothing: holds no prompts" eval ruler run -m "$MODEL" --data "$work/nothing" --out "$work/wrong"
[ ! -e "$work/wrong" ] || fail "a run without prompts leaves a folder"

# The public-domain haystack is told of one method's folder, too; prompts of two essays do not go into one folder.
essay=$work/essay
rows "$essay/synthetic/512/data/niah_single_2/validation.jsonl" "The secret number of the house is" 7351
inputs() {
    echo '{"haystack": "public-domain", "note": {"inputs": {"--essay": "sha256:'"$1"'"}}}' >"$essay/manifest.json"
}
inputs 1
# shellcheck disable=SC2086
tool $one --tasks niah_single_2 --data "$essay" --lengths 512 --out "$work/essay.out"
[ "$code" -eq 0 ] || fail "essay prompts"
accept eval ruler score "$work/essay.out/dense" --out "$work/essay.score"
printed '^haystack=public-domain: .* they cannot be compared with published results\.$'
inputs 2
# shellcheck disable=SC2086
refuse 1 'inputs.--essay was "sha256:1" and is now "sha256:2"' $one --tasks niah_single_2 --data "$essay" --lengths 512 --out "$work/essay.out"

# Bad prompts: told by file and line, the rest goes on. One does not fit the context.
file=$data/synthetic/512/data/vt/validation.jsonl
{
    head -n 1 "$file"
    echo '{"index": 1, "input": "x"}'
    echo '{"index": 2, "in'
    printf '{"index": 3, "input": "\377", "outputs": ["x"]}\n'
    echo '{"index": 4, "input": "", "outputs": ["x"]}'
    sed -n 3p "$file"
} >"$work/bad" && cp "$work/bad" "$file"
mkdir -p "$data/synthetic/512/data/cwe" "$data/synthetic/4k/data/vt" "$data/synthetic/512/data/niah_single_1"
: >"$data/synthetic/512/data/cwe/validation.jsonl"
echo '[' >"$data/synthetic/512/data/niah_single_1/validation.jsonl"
# shellcheck disable=SC2086
tool $args --methods dense --tasks vt,fwe,cwe,niah_single_1 --samples 9 --ctx 512 --out "$work/bad.out"
[ "$code" -eq 1 ] || fail "left-out rows are not told by the exit code"
for words in "$file: line 2: no list of texts \"outputs\"; it is left out" "$file: line 3: " "$file: line 4: unable to decode byte 0xff" \
    "$file: line 5: no text \"input\"; it is left out" "$data/synthetic/512/data/cwe/validation.jsonl: holds no rows" \
    "$data/synthetic/512/data/niah_single_1/validation.jsonl: line 1: " \
    "$data/synthetic/512/data/niah_single_1/validation.jsonl: no line can be used" \
    "$data/synthetic/4k: not a length in tokens; it is left out" \
    "$data/synthetic/512/data/fwe/validation.jsonl: is not there; fwe is skipped at 512"; do
    grep -qF -- "$words" "$work/err" || fail "not told: $words"
done
[ "$(wc -l <"$work/bad.out/dense/synthetic/512/pred/vt.jsonl")" -eq 2 ] || fail "the good lines are not answered"
mkdir -p "$work/bad.out/dense/synthetic/512.old/pred"
tool eval ruler score "$work/bad.out"
[ "$code" -eq 0 ] || fail "exit code $code with a folder that is no length"
grep -qF "$work/bad.out/dense/synthetic/512.old: not a length in tokens; it is left out" "$work/err" ||
    fail "a folder of answers that is no length is not told"
rm -r "$data/synthetic/4k"
# shellcheck disable=SC2086
tool $args --methods dense --samples 9 --ctx 100 --out "$work/short.out"
grep -q "$file: 2 of 2 prompts do not fit the context of 100 and are left out (index 0: [0-9]* tokens and 30 to write)" "$work/err" ||
    fail "too long prompts are not told"
rows "$file" "The secret number of the ship is" 7351
# shellcheck disable=SC2086
refuse 1 "index 0 was answered for another prompt than $data has now" $args --methods dense

# A length that the memory does not hold is left out, the other one answered. How much the program itself takes is found by trying.
long=$(for _ in $(seq 34); do printf '%s ' "$filler"; done)
mkdir -p "$work/large/synthetic/512/data/vt" "$work/large/synthetic/7900/data/vt"
row='{"index": 0, "input": "%s The ship is", "outputs": ["x"], "length": 0}\n'
# shellcheck disable=SC2059
printf "$row" "$filler" >"$work/large/synthetic/512/data/vt/validation.jsonl"
# shellcheck disable=SC2059
printf "$row" "$long" >"$work/large/synthetic/7900/data/vt/validation.jsonl"
for kib in $(seq 200000 30000 1500000); do
    rm -rf "$work/large.out"
    code=0
    (
        # shellcheck disable=SC3045 # dash and bash have it
        ulimit -v "$kib"
        "$COMPACTATTN" eval ruler run -m "$MODEL" --data "$work/large" --lengths 512,7900 --tasks vt --samples 1 --methods dense --threads 1 \
            --out "$work/large.out"
    ) >"$work/out" 2>"$work/err" </dev/null || code=$?
    [ ! -s "$work/large.out/dense/synthetic/512/pred/vt.jsonl" ] || break
done
[ "$code" -eq 1 ] || fail "exit code $code with a length that does not fit the memory"
grep -q "^compactattn: 7900 vt dense: 1 of 1 prompts are left out" "$work/err" || fail "what is left out is not told"
grep -q "MiB are available\|cannot be mapped" "$work/err" || fail "the memory that is missing is not told"
grep -q '"7900/vt/dense": 1' "$work/large.out/manifest.json" || fail "what is left out is not in the manifest"
tool eval ruler run -m "$MODEL" --data "$work/large" --lengths 512,7900 --tasks vt --samples 1 --methods dense --threads 1 --out "$work/large.out"
[ "$code" -eq 0 ] || fail "with the memory that it takes: exit code $code"
grep -q '"7900/vt/dense": 0' "$work/large.out/manifest.json" || fail "what was left out is still in the manifest"

# Answers of the published runner: index, input, outputs, pred. 1 and 1/2 in dense, 1/2 of the second in the other.
for method in x_dense_5e-4 x_quoka_dense_5e-4; do
    mkdir -p "$work/foreign/$method/synthetic/4096/pred"
    {
        echo '{"index": 1, "input": "", "outputs": ["AB", "cd"], "pred": "ab", "others": {}, "truncation": -1, "length": 9}'
        echo '{"index": 0, "input": "", "outputs": ["x"], "pred": " X ", "others": {}, "truncation": -1, "length": 9}'
        echo '{"index": 2, "input": "", "outputs": ["x"], "pred": " ", "others": {}, "truncation": -1, "length": 9}'
    } >"$work/foreign/$method/synthetic/4096/pred/cwe.jsonl"
done
sed -i '2s/ X /no/' "$work/foreign/x_quoka_dense_5e-4/synthetic/4096/pred/cwe.jsonl"
echo '{"index": 2, "outputs": ["x"], "pred": "x"}' >>"$work/foreign/x_dense_5e-4/synthetic/4096/pred/cwe.jsonl"
tool eval ruler score "$work/foreign"
[ "$code" -eq 1 ] || fail "a line that is left out is not told by the exit code"
grep -q 'x_dense_5e-4/synthetic/4096/pred/cwe.jsonl: line 4: index 2 is there already; it is left out$' "$work/err" ||
    fail "an index that comes twice is not told"
printed '^x_dense_5e-4  *50\.00  *50\.00 '
printed '^x_quoka_dense_5e-4  *16\.67  *16\.67 .* -33\.33 '
printf 'Metric,cwe\r\nScore,16.67\r\nNulls,1/3\r\n' | cmp -s - "$work/foreign/x_quoka_dense_5e-4/synthetic/4096/pred/summary.csv" ||
    fail "the published summary.csv"
accept eval ruler score "$work/foreign/x_quoka_dense_5e-4" --out "$work/scores"
printed '^x_quoka_dense_5e-4  *16\.67 '
[ -s "$work/scores/summary.csv" ] || fail "score --out"
refuse 1 "holds no answers" eval ruler score "$data/synthetic/512"
refuse 1 "No such file" eval ruler score "$work/nothing"
finish
