#!/bin/sh
# LongBench-v2's scores from files of answers.
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
finish
