#!/bin/sh
# Bad files: exit code 1 and one line that says what, where and what to do.
. "$(dirname "$0")/common.inc"
no=$work/none.gguf
ids "$work/ids.npy" 40 41 42

# Every command that reads a model: a file that is missing, a folder, empty, text, cut short.
: >"$work/empty.gguf"
echo "this is not a model" >"$work/text.gguf"
head -c 20 "$MODEL" >"$work/cut20.gguf"
head -c 1000000 "$MODEL" >"$work/cut1m.gguf"
head -c 60000000 "$MODEL" >"$work/cut60m.gguf"
for model in "$no" "$work" "$work/empty.gguf" "$work/text.gguf" "$work/cut20.gguf" "$work/cut1m.gguf" "$work/cut60m.gguf"; do
    refuse 1 "$model" run -m "$model" -p hello
    refuse 1 "$model" inspect model -m "$model"
done
name=$(printf '%0200d' 0)
refuse 1 "No such file" inspect model -m "$work/$name/$name/$name/$name.gguf"
for model in "$no" "$work/text.gguf" "$work/cut1m.gguf"; do
    refuse 1 "$model" bench prefill -m "$model"
    refuse 1 "$model" logits -m "$model" --tokens "$work/ids.npy" --out "$work/out.npy"
    refuse 1 "$model" perplexity -m "$model" --tokens "$work/ids.npy"
    refuse 1 "$model" tokenize -m "$model" -p hello
    refuse 1 "$model" doctor -m "$model"
    refuse 1 "$model" demo -m "$model" --text "$DATA/demo.txt" --out "$work/demo"
done

# Texts.
refuse 1 "$work/none.txt: No such file" run -m "$MODEL" -f "$work/none.txt"
refuse 1 "$work: Is a directory" run -m "$MODEL" -f "$work"
refuse 1 "$work/none.txt: No such file" perplexity -m "$MODEL" -f "$work/none.txt"
refuse 1 "$work/none.txt: No such file" tokenize -m "$MODEL" -f "$work/none.txt"
refuse 1 "$work/none.txt: No such file" tokenize -m "$MODEL" --jsonl -f "$work/none.txt"
refuse 1 "$work/none.txt: No such file" demo -m "$MODEL" --text "$work/none.txt" --out "$work/demo"
refuse 1 "$work/none.txt: No such file" bench prefill -m "$MODEL" -f "$work/none.txt"
refuse 1 "the prompt is empty" run -m "$MODEL" -p ""
refuse 1 "the prompt is empty" run -m "$MODEL"
printf x >"$work/x.txt"
refuse 1 "none is left to score" perplexity -m "$MODEL" -f "$work/x.txt"
printf 'a\0b' >"$work/nul.txt"
refuse 1 "$work/nul.txt" demo -m "$MODEL" --text "$work/nul.txt" --out "$work/demo"

# Prompts that are too long: both numbers and what to do.
cat "$DATA/demo.txt" "$DATA/demo.txt" >"$work/long.txt"
refuse 1 "the context is 8192" run -m "$MODEL" -f "$work/long.txt" -n 1
refuse 1 "shorten the text" run -m "$MODEL" -f "$work/long.txt" -n 1
refuse 1 "raise --ctx" run -m "$MODEL" -p "one two three four five six seven eight" --ctx 5
refuse 1 "the context is 8192" run -m "$MODEL" -f "$work/long.txt" --dry-run
refuse 1 "the context is 8192" perplexity -m "$MODEL" -f "$work/long.txt"
refuse 1 "the context is 8192" bench prefill -m "$MODEL" --lengths 9000
refuse 1 "9000" run -m "$MODEL" -p hello --ctx 9000
refuse 2 "--page 48: expected 32, 64 or 128" run -m "$MODEL" -p hello --page 48

# Token files.
logits() { # WORDS FILE
    refuse 1 "$1" logits -m "$MODEL" --tokens "$2" --out "$work/out.npy"
    refuse 1 "$1" perplexity -m "$MODEL" --tokens "$2"
    [ ! -e "$work/out.npy" ] || fail "a result is left behind for $2"
}
logits "No such file" "$work/none.npy"
logits "not a .npy file" "$MODEL"
logits "not a .npy file" "$work/empty.gguf"
head -c 70 "$work/ids.npy" >"$work/short.npy"
logits "promises 3 elements" "$work/short.npy"
head -c 30 "$work/ids.npy" >"$work/header.npy"
logits "header is longer" "$work/header.npy"
sed "s/<u4/<f4/" "$work/ids.npy" >"$work/float.npy"
logits "type must be uint32" "$work/float.npy"
{
    head -c -4 "$work/ids.npy"
    printf '\0\0\377\0'
} >"$work/vocab.npy"
logits "token 2 is 16711680, but the model's vocabulary has 49152" "$work/vocab.npy"
refuse 1 "more positions than its 3 tokens" logits -m "$MODEL" --tokens "$work/ids.npy" --last 4 --out "$work/out.npy"
refuse 1 "$work/no/out.npy: No such file" logits -m "$MODEL" --tokens "$work/ids.npy" --out "$work/no/out.npy"
refuse 1 "/dev/full: No space left" logits -m "$MODEL" --tokens "$work/ids.npy" --out /dev/full
[ -c /dev/full ] || fail "/dev/full is gone"

# JSON.
for json in '{}' '"a"' '[1, "a"]' '[-1]' '[1.5]' '[4294967296]' '[' '' '[99999999]' '[1] 2'; do
    refuse 1 "" tokenize -m "$MODEL" --decode -p "$json"
done
printf '"good"\n[1]\n' >"$work/mixed.jsonl"
tool tokenize -m "$MODEL" --jsonl -f "$work/mixed.jsonl"
[ "$code" -eq 1 ] || fail "a line that is no JSON string is accepted"
grep -q "$work/mixed.jsonl: line 2: " "$work/err" || fail "the line is not named"

# Results that cannot be written: noticed before any work.
: >"$work/file"
refuse 1 "$work/file/out: the folder cannot be made" demo -m "$no" --text "$DATA/demo.txt" --out "$work/file/out"
refuse 1 "$work/file/summary.csv: cannot be written" demo -m "$no" --text "$DATA/demo.txt" --out "$work/file"
mkdir "$work/busy" "$work/busy/summary.csv"
refuse 1 "$work/busy/summary.csv: cannot be written" demo -m "$no" --text "$DATA/demo.txt" --out "$work/busy"

# A message is one line even when what it quotes is not.
refuse 2 "unknown command a?b" "a
b"
code=0
"$COMPACTATTN" --help >/dev/full 2>"$work/err" || code=$?
: >"$work/out"
[ "$code" -eq 1 ] || fail "a full disk under standard output is not noticed"
finish
