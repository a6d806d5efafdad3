#!/bin/sh
# LongBench-v2: scores from files of answers; a small run, in shards, stopped and torn, ends as the unbroken one does; what is refused.
. "$(dirname "$0")/common.inc"
row() { # ID ANSWER REST
    echo "{\"_id\": \"$1\", \"answer\": \"$2\", \"difficulty\": \"hard\", \"length\": \"long\", \"domain\": \"D\", $3}"
}
{
    row 1 A '"pred_answer": "A"'
    row 2 B '"pred_answer": null, "response": "The correct answer is (B)."'
    row 3 C '"pred_answer": null, "response": "no idea"'
} >"$work/a.jsonl"
row 1 A '"pred_answer": "B"' >"$work/b.jsonl" # counted already
row 4 D '"pred_answer": "A"' >>"$work/b.jsonl"

tool eval longbench score --pred "$work/a.jsonl" --pred "$work/b.jsonl"
[ "$code" -eq 0 ] || fail "exit code $code"
printed '^4 answers, 1 without a choice'
printed '^overall   50.0$'
grep -q '"nulls": 1,' "$work/summary.json" || fail "summary.json"
printf 'metric,value\r\ncount,4\r\noverall,50.0\r\neasy,0.0\r\nhard,50.0\r\nshort,0.0\r\nmedium,0.0\r\nlong,50.0\r\nnulls,1\r\n\r\n' >"$work/want"
printf 'domain,count,score\r\nD,4,50.0\r\n' >>"$work/want"
cmp -s "$work/summary.csv" "$work/want" || fail "summary.csv"

tool eval longbench score --pred "$work/a.jsonl" --official --out "$work/official"
[ "$code" -ne 0 ] || fail "a row without a response was taken by the strict rule"
grep -q 'line 1: no text "response"' "$work/err" || fail "the row is not named"
[ -s "$work/official/summary.json" ] || fail "the other rows are not scored"

refuse 2 "--pred FILE is missing" eval longbench score
refuse 1 "no row that can be scored" eval longbench score --pred /dev/null --out "$work/none"
refuse 1 "nothing.jsonl" eval longbench score --pred "$work/nothing.jsonl" --out "$work/none"

# item ID ANSWER DIFFICULTY LENGTH QUESTION A B C D: a question about a short text, with about 150 tokens of prompt.
text=$(head -c 180 "$golden/smollm2/p1500.txt" | tr -d '"\\' | tr '\n\t' '  ')
item() {
    printf '{"_id": "%s", "domain": "Single-Document QA", "sub_domain": "Invented", "answer": "%s", "difficulty": "%s", ' "$1" "$2" "$3"
    printf '"length": "%s", "question": " %s\\n", "choice_A": "%s", "choice_B": "%s", "choice_C": "%s", "choice_D": "%s", ' "$4" "$5" \
        "$6" "$7" "$8" "$9"
    printf '"context": "\\nThe ferry is blue. %s The captain feeds a cat.\\n"}' "$text"
}
{
    item boat A easy short "What is blue?" "the ferry" "the bridge" "the house" "the lamp" && echo
    item cat B hard medium "What does the captain feed?" "a dog" "a cat" "a horse" "a bird" && echo
    echo '{"_id": "half", "question": "?", "context": "", "choice_A": "a", "choice_B": "b", "choice_D": "d", "answer": "A"}'
    item sum D hard long "How much is two and two?" one two three four && echo
    item boat C easy short "Asked twice?" yes no "it is" never && echo
    item color C easy medium "Which one is a color?" table chair green window && echo
    item day B easy short "Which day comes after Monday?" Sunday Tuesday Friday Saturday && echo
} >"$work/data.jsonl"

# run OUT ARGS..: the run that is repeated below; two rows of its data cannot be used.
with=
run() {
    out=$1
    shift
    $with "$COMPACTATTN" eval longbench run -m "$MODEL" --data "$work/data.jsonl" --prompt official --max-tokens 6 --methods dense,auto \
        --chunk 32 --page 32 --sink 32 --window 32 --alpha 0.9 --dense-tail 0 --threads 1 --out "$out" "$@"
}

# answers OUT: the rows of all answers in order of method and id, without milliseconds.
answers() {
    for method in dense flashprefill+auto; do
        cat "$1/$method"/pred*.jsonl 2>/dev/null | sed 's/"[a-z]*_ms":[0-9.e+-]*,//g' | sort
    done
}

# stop SIGNAL: starts the run, sends the signal when two more answers are there.
stop() {
    before=$(answers "$work/broken" | wc -l)
    with=exec # so that the signal goes to the tool
    run "$work/broken" >/dev/null 2>"$work/err" </dev/null &
    with=
    pid=$!
    for _ in $(seq 600); do
        [ "$(answers "$work/broken" | wc -l)" -lt $((before + 2)) ] || break
        sleep 0.05
    done
    kill -s "$1" $pid
    code=0
    wait $pid 2>/dev/null || code=$?
}

code=0
run "$work/whole" >"$work/out" 2>"$work/err" </dev/null || code=$?
[ "$code" -eq 1 ] || fail "items that are left out are not told by the exit code"
for words in "$work/data.jsonl: line 3: id half: no text \"choice_C\"; it is left out" \
    "$work/data.jsonl: line 5: id boat: the id came before, at line 1; it is left out"; do
    grep -qF -- "$words" "$work/err" || fail "not told: $words"
done
grep -q '^cat: answered, [0-9]* % of the tokens done, about [0-9]* s left$' "$work/err" || fail "no progress"
answers "$work/whole" >"$work/want"
[ "$(wc -l <"$work/want")" -eq 10 ] || fail "not 10 answers"
row='^{"_id":"cat","domain":"Single-Document QA","sub_domain":"Invented","difficulty":"hard","length":"medium","answer":"B"'
grep -q "$row"',"pred_answer":\("[A-D]"\|null\),"judge":\(true\|false\),"response":".*","original_prompt_tokens":[0-9]*,"truncated":false,' \
    "$work/want" || fail "a row's keys"
! grep -q '"response":""' "$work/want" || fail "the model says nothing"
grep '"method":"flashprefill+auto"' "$work/want" | grep -q '"kept_fraction":0\.' || fail "auto reads all"

# Shards at the same time in one new folder; and a score that is that of the whole.
for shard in 0/2 1/2; do run "$work/shards" --shard $shard >/dev/null 2>&1 </dev/null & done
wait
[ "$(wc -l <"$work/shards/dense/pred.0-of-2.jsonl")" -eq 2 ] || fail "rows 0 and 6 are not the first shard's"
[ "$(wc -l <"$work/shards/dense/pred.1-of-2.jsonl")" -eq 3 ] || fail "rows 1, 3 and 5 are not the second shard's"
answers "$work/shards" | cmp - "$work/want" || fail "shards answer otherwise"
run "$work/shards" >/dev/null 2>&1 </dev/null || true
[ ! -e "$work/shards/dense/pred.jsonl" ] || fail "what shards have answered is answered again"
head -n 1 "$work/shards/dense/pred.1-of-2.jsonl" >"$work/again.jsonl"
accept eval longbench score --pred "$work/whole/dense/pred.jsonl" --out "$work/score.whole"
tool eval longbench score --pred "$work/shards/dense/pred.0-of-2.jsonl" --pred "$work/shards/dense/pred.1-of-2.jsonl" \
    --pred "$work/again.jsonl" --out "$work/score.shards"
[ "$code" -eq 0 ] || fail "shards are not scored"
grep -q ': 1 answers to items that are answered above; the first ones count$' "$work/err" || fail "a repeated answer is not told"
for name in summary.json summary.csv; do
    cmp "$work/score.whole/$name" "$work/score.shards/$name" || fail "$name of shards is another"
done
grep -v '"half"\|twice' "$work/data.jsonl" >"$work/good.jsonl"
tool eval longbench score --pred "$work/shards/dense/pred.1-of-2.jsonl" --data "$work/good.jsonl" --out "$work/score.half"
[ "$code" -eq 1 ] || fail "missing answers are not told by the exit code"
grep -q ': 2 of 5 items have no answer: boat, day$' "$work/err" || fail "missing answers are not named"

# A run that is interrupted, killed and torn.
stop INT
[ "$code" -eq 130 ] || fail "exit code $code, not 130, after an interrupt"
grep -q 'stopped; what is answered is kept, and the same command goes on$' "$work/err" || fail "an interrupt is not told"
first=$(answers "$work/broken" | wc -l)
[ "$first" -ge 2 ] && [ "$first" -lt 10 ] || fail "$first answers after an interrupt"
stop KILL
file=$work/broken/dense/pred.jsonl
head -c $(($(wc -c <"$file") - 7)) "$file" >"$work/torn" && cp "$work/torn" "$file" # as a crash leaves it
run "$work/broken" >"$work/out" 2>"$work/err" </dev/null || true
answers "$work/broken" | cmp - "$work/want" || fail "a stopped run ends otherwise than an unbroken one"

# The whole evaluation of what is there answers nothing, and compares.
all="eval longbench -m $MODEL --data $work/data.jsonl --prompt official --chunk 32 --page 32 --sink 32 --window 32 --dense-tail 0"
all="$all --threads 1 --out $work/broken"
# shellcheck disable=SC2086
tool $all --max-tokens 6 --methods dense,auto --alpha 0.9
[ "$code" -eq 1 ] || fail "eval longbench: exit code $code"
[ "$(grep -c answered "$work/err")" -eq 0 ] || fail "what is answered is answered again"
printed '^dense  *5  *[0-9.]*  '
printed '^flashprefill+auto  *5  *[0-9.]*  '
cmp "$work/broken/dense/summary.json" "$work/score.whole/summary.json" || fail "eval longbench scores otherwise"
[ "$(wc -l <"$work/broken/summary.csv")" -eq 3 ] || fail "summary.csv"
grep -q '^| dense | 5 | ' "$work/broken/summary.md" || fail "summary.md"

# Settings of what is there are kept.
all="$all --ids boat --data $work/good.jsonl"
# shellcheck disable=SC2086
refuse 1 "broken/manifest.json: data was \"sha256:" $all --max-tokens 6 --methods dense
cp "$work/good.jsonl" "$work/data.jsonl"
all="eval longbench run -m $MODEL --data $work/good.jsonl --methods dense --chunk 32 --page 32 --dense-tail 0 --max-tokens 6 --threads 1"
# shellcheck disable=SC2086
accept_quietly() { # ARGS..: without a word on standard error but progress and the context's note
    tool $all "$@"
    [ "$code" -eq 0 ] || fail "exit code $code, not 0: $*"
    ! grep -v 'answered, \|^compactattn: prompts are cut to the [0-9]* tokens that' "$work/err" || fail "more is said: $*"
}
accept_quietly --ids boat --out "$work/plain" # the reference's prompt
# shellcheck disable=SC2086
refuse 1 "manifest.json: max_length was 131072 and is now 90: results of different settings" $all --max-length 90 --out "$work/plain"
# shellcheck disable=SC2086
refuse 1 "manifest.json: prompt was \"reference\" and is now \"official\"" $all --prompt official --max-length 90 --out "$work/plain"

# Cut prompts, a chain of thought, items chosen otherwise, and an array of items.
{
    echo "["
    sed 's/$/,/' "$work/good.jsonl" | sed '$s/,$//'
    echo "]"
} >"$work/data.json"
accept_quietly --data "$work/data.json" --prompt official --cot --cot-tokens 5 --max-length 90 --difficulty easy --length short --limit 1 \
    --out "$work/cut"
file=$work/cut/dense/pred.jsonl
[ "$(wc -l <"$file")" -eq 1 ] || fail "--difficulty, --length or --limit"
grep -q '"_id":"boat".*"truncated":true,.*"response_cot":"..*"' "$file" || fail "a cut prompt with thoughts"
tokens=$(sed 's/.*"prompt_tokens":\([0-9]*\).*/\1/' "$file")
[ "$tokens" -ge 90 ] && [ "$tokens" -lt 140 ] || fail "$tokens tokens of a prompt that is cut to 90 and put into a template"
accept_quietly --ctx 120 --clean-spaces --domain "Single-Document QA" --ids cat --out "$work/context" # BOS and all fit exactly
grep -q '"truncated":true,.*"prompt_tokens":114,' "$work/context/dense/pred.jsonl" || fail "a prompt that is cut to the context"
# shellcheck disable=SC2086
tool $all --ctx 120 --max-length 0 --ids cat --out "$work/uncut"
[ "$code" -eq 1 ] || fail "a prompt that does not fit is not told by the exit code"
grep -q 'id cat: [0-9]* tokens and 6 to write do not fit the context of 120; it is left out$' "$work/err" || fail "it is not named"

# shellcheck disable=SC2086
{
    refuse 1 "--ids: $work/good.jsonl has no item dog" $all --max-length 90 --ids cat,dog --out "$work/none"
    refuse 1 "no item is left" $all --max-length 90 --domain Nothing --out "$work/none"
    refuse 1 "--max-length 9000: the context of 8192 tokens has room for 8186" $all --max-length 9000 --out "$work/none"
    refuse 2 "--shard 2/2: expected I/N" $all --shard 2/2 --out "$work/none"
    refuse 2 "--shard 1: expected I/N" $all --shard 1 --out "$work/none"
    refuse 2 "--cot: the published evaluation has none" $all --cot --out "$work/none"
    refuse 2 "the reference's prompt is no chat" $all --thinking off --out "$work/none"
    refuse 2 "--data FILE is missing" eval longbench run -m "$MODEL" --out "$work/none"
}
[ ! -e "$work/none" ] || fail "commands with nothing to do leave a folder"

# One item of an array with an escape that is no character is left out, with its strings' braces and quotes; the rest is read.
sed 's/"question": "/"question": "} \\" { \\ud800 /;3q' "$work/data.json" | sed '2s/} .* { .ud800 //;$s/,$//' >"$work/escape.json"
echo "]" >>"$work/escape.json"
# shellcheck disable=SC2086
tool $all --data "$work/escape.json" --out "$work/escape"
[ "$code" -eq 1 ] || fail "exit code $code, not 1, for an item that is left out"
grep -q 'escape.json: index 1: .*; it is left out$' "$work/err" || fail "an escape that is no character is not told"
[ "$(wc -l <"$work/escape/dense/pred.jsonl")" -eq 1 ] || fail "the other item is not answered"

# The table has the methods of earlier calls, too.
both="eval longbench -m $MODEL --data $work/good.jsonl --chunk 32 --page 32 --dense-tail 0 --max-tokens 6 --threads 1 --ids boat"
# shellcheck disable=SC2086
tool $both --methods dense --out "$work/both"
# shellcheck disable=SC2086
tool $both --methods auto --out "$work/both"
printed '^dense  *1 '
printed '^flashprefill+auto  *1 '

head -c 300 "$work/data.json" >"$work/torn.json"
refuse 1 "torn.json: line 2: " eval longbench run -m "$MODEL" --data "$work/torn.json" --out "$work/none"
refuse 1 "nothing.json: " eval longbench -m "$MODEL" --data "$work/nothing.json" --out "$work/none"
# An item that the memory does not hold is left out, the others answered. How much the program itself takes is found by trying.
filler=$(head -c 800 "$golden/smollm2/p1500.txt" | tr -d '"\\' | tr '\n\t' '  ')
long=$(for _ in $(seq 30); do printf '%s ' "$filler"; done)
item() {
    printf '{"_id": "%s", "domain": "x", "sub_domain": "y", "difficulty": "easy", "length": "short", "question": "Which?", "choice_A": "a",' "$1"
    printf ' "choice_B": "b", "choice_C": "c", "choice_D": "d", "answer": "A", "context": "%s"}%s' "$2" "$3"
}
{
    printf '['
    item one "$filler" ,
    item two "$long" ,
    item three "$filler" ']'
} >"$work/large.json"
for kib in $(seq 200000 30000 1500000); do
    rm -rf "$work/large.out"
    code=0
    (
        # shellcheck disable=SC3045 # dash and bash have it
        ulimit -v "$kib"
        "$COMPACTATTN" eval longbench run -m "$MODEL" --data "$work/large.json" --methods dense --threads 1 --out "$work/large.out"
    ) >"$work/out" 2>"$work/err" </dev/null || code=$?
    [ ! -s "$work/large.out/dense/pred.jsonl" ] || break
done
[ "$code" -eq 1 ] || fail "exit code $code with an item that does not fit the memory"
grep -q "^compactattn: two dense: is left out" "$work/err" || fail "an item that does not fit the memory is not told"
[ "$(wc -l <"$work/large.out/dense/pred.jsonl")" -eq 2 ] || fail "the items that fit are not answered"
finish
