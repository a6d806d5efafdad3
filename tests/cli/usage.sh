#!/bin/sh
# Wrong usage: exit code 2, one line that says what is wrong. Help: exit code 0, an example, the defaults.
. "$(dirname "$0")/common.inc"

refuse 2 "no command given"
refuse 2 "unknown command fly" fly
refuse 2 "bench is not a command by itself; known: bench prefill, bench attention, " bench
refuse 2 "bench is not a command by itself" bench decode
refuse 2 "inspect is not a command by itself" inspect
accept bench --help
printed '^  bench latency  '
accept help eval ruler run
printed '^Usage: compactattn eval ruler run '
refuse 2 "--la could be --last-dense, --last-mute, --last-scope" run -m m -p hi --la 3
refuse 2 "--json takes no value" run -m m -p hi --json=1
refuse 2 "--methods and --executor exclude each other" bench prefill -m m --methods dense --executor auto
refuse 2 "--page 100: expected 32, 64 or 128" run -m "$MODEL" -p hi --page 100
refuse 2 "--stride 9: expected 8 or 16" run -m "$MODEL" -p hi --selector xattention --stride 9
refuse 2 "processors" run -m "$MODEL" -p hi --threads 4000
refuse 2 "unknown option --foo (see compactattn run --help)" run --foo
refuse 2 "unknown option --foo=3" run --foo=3
refuse 2 "unknown option -z" run -z
refuse 2 "unknown option --depth" run --depth 0.5
refuse 2 "unknown option --lengths" logits --lengths 5
refuse 2 "--chunk needs a value" run -m x --chunk
refuse 2 "-m needs a value" run -m
refuse 2 "unexpected argument stray" run -m "$MODEL" stray
refuse 2 "--model FILE is missing" run -p hello
refuse 2 "--out PATH is missing" logits -m "$MODEL" --tokens x.npy
refuse 2 "--tokens FILE is missing" logits -m "$MODEL" --out x.npy
refuse 2 "either --tokens" perplexity -m "$MODEL"
refuse 2 "either --tokens" perplexity -m "$MODEL" --tokens a.npy -f b.txt
refuse 2 "exclude each other" run -m "$MODEL" -p a -f b
refuse 2 "exclude each other" run -m "$MODEL" -p a --chat --raw
refuse 2 "exclude each other" tokenize -m "$MODEL" -p a -f b
refuse 2 "--jsonl" tokenize -m "$MODEL" -p a --jsonl

# option, values that do not fit
while read -r option values; do
    for value in $values; do
        refuse 2 "--$option $value: expected" run -m "$MODEL" -p hello "--$option" "$value"
    done
done <<'END'
chunk 0 -1 1048577 1.5 12x x 0x10 99999999999999999999
page 31 129 -32
ctx 0 4294967296
threads -1 4097
max-tokens -1 ten
temp -0.1 101 nan inf x 0.5x
top-p 0 1.1 -1
seed -1 9007199254740993
alpha -1 nan 1e7
sink -1 1e3
window 0 -5
min-budget -1
last-dense -1
last-mute x
heads-per-row -1 4097
dense-tail -1
executor sparse Dense denseX compact
selector block None
last-scope all
head-worth -1 x
qblock-worth -0.5
qblocks-per-row -1
dense-prefix -1
stride 7 17
query-ratio 1.5 -1
kv-ratio 2
top-k 0
threshold 1.5 -1 x
isa sse2 AVX2
END
refuse 2 "--chunk : expected" run -m "$MODEL" -p hello --chunk ""
refuse 2 "--depth 1.5: expected" demo -m "$MODEL" --out "$work/o" --depth 1.5
refuse 2 "--runs 0: expected" bench prefill -m "$MODEL" --runs 0
refuse 2 "--last 0: expected" logits -m "$MODEL" --tokens a --out b --last 0
refuse 2 "--from 0: expected" perplexity -m "$MODEL" -f a --from 0
refuse 2 "--executor dense does not go with --selector flashprefill" run -m "$MODEL" -p x --executor dense --selector flashprefill
refuse 2 "--executor compactattn does not go with --selector none" run -m "$MODEL" -p x --executor compactattn --selector none
refuse 2 "--selector seer needs --gate" run -m "$MODEL" -p x --selector seer
refuse 1 "quoka: query_ratio" run -m "$MODEL" -p x --selector quoka --query-ratio 0
for extend in yarn yarn: yarn:x yarn:0.5 ntk:2 linear:2x; do
    refuse 2 "--extend $extend: expected" run -m "$MODEL" -p hello --extend "$extend"
done
refuse 1 "scales its RoPE already (yarn)" run -m "$golden/models/qwen2_yarn" -p hello --raw --extend yarn:2
refuse 2 "--shape x: expected" bench attention --shape x
refuse 2 "the heads are a multiple" bench attention --shape q1,kv8,h3:2,d64
refuse 2 "--keep 2: expected" bench attention --shape q1,kv8,h2:2,d64 --keep 2
refuse 2 "--sweep: nothing is not a setting" bench quality -m "$MODEL" -f a --out "$work/q" --sweep auto:nothing=1
for option in threads=1 matmul=int8 isa=avx2 gate=a samples=1 max-tokens=1 ctx=100; do # read once, not for each method
    refuse 2 "--sweep: ${option%%=*} is not a setting" eval ruler run -m "$MODEL" --data a --out "$work/q" --sweep "auto:$option"
done
refuse 2 "--alpha x: expected" bench quality -m "$MODEL" -f a --out "$work/q" --sweep auto:alpha=x
refuse 2 "unknown method \"sparse\"" bench prefill -m "$MODEL" --methods dense,sparse
refuse 2 "unknown method \"\"" bench prefill -m "$MODEL" --methods dense,
refuse 2 "listed twice" bench prefill -m "$MODEL" --methods compactattn,flashprefill+compact_attention
for lengths in 0 1 x "10," "10,,5" 10,x -5 99999999999 1024,1024x "10 20"; do
    refuse 2 "--lengths $lengths: expected" bench prefill -m "$MODEL" --lengths "$lengths"
done

accept --version
printed '^compactattn [0-9]*\.[0-9]*\.[0-9]*$'
accept --help
printed '^Example:'
for command in run "bench prefill" logits perplexity tokenize "inspect model" "inspect mask" "inspect recall" "bench attention" "bench quality" doctor demo "convert gate"; do
    accept --help
    printed "^  $command "
    # shellcheck disable=SC2086 # two words
    accept $command --help
    printed "^Usage: compactattn $command "
    printed "^Examples\{0,1\}:"
    printed "^  compactattn $command "
    printed "^ *-h, --help"
done
accept run --help
printed "chunk N .*\[default: [1-9][0-9]*\]"
printed "sink N .*\[default: [0-9]*\]"
accept run -h
# What is read is not written over, also where a link or another path leads to it; a link to a result stays one.
printf 'In the beginning was the word' >"$work/text"
ln -s text "$work/link"
refuse 2 "--csv $work/./text is the file of --file, which would be lost" bench prefill -m "$MODEL" -f "$work/text" --csv "$work/./text"
refuse 2 "--save-cache $work/link is the file of --file, which would be lost" run -m "$MODEL" -f "$work/text" --save-cache "$work/link"
refuse 1 "there is a file that is no saved session" run -m "$MODEL" -p hi --save-cache "$work/text"
[ "$(cat "$work/text")" = "In the beginning was the word" ] || fail "a file that was read is lost"
: >"$work/rows.csv"
ln -s rows.csv "$work/rows.link"
tool bench prefill -m "$MODEL" --lengths 32 --methods dense --runs 1 --csv "$work/rows.link"
[ "$code" -eq 0 ] && [ -L "$work/rows.link" ] && [ -s "$work/rows.csv" ] || fail "a result that a link leads to"

for words in doctor "bench attention" "run -m $MODEL -p hi"; do
    # shellcheck disable=SC2086 # words
    refuse 2 "--threads 4096: this machine has " $words --threads 4096
done
finish
