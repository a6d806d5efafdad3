#!/bin/sh
# Every family and format that the repository carries, with every method: the table of README.md lists what ran here, no more.
. "$(dirname "$0")/common.inc"
models=$golden/models
readme=$(dirname "$0")/../../README.md

# row FAMILY FORMAT MODEL IDS: runs every method over the ids in small chunks and pages; the row must be in the README.
row() {
    ran=
    for method in "none dense" "flashprefill auto" "flashprefill compactattn" "flashprefill block_sparse" "xattention auto" \
        "minference auto" "trishape auto" "oracle auto" "quoka dense"; do
        selector=${method% *}
        executor=${method#* }
        tool logits -m "$3" --tokens "$4" --out "$work/logits.npy" --selector "$selector" --executor "$executor" --chunk 70 --page 32 \
            --sink 32 --window 64 --dense-tail 10
        [ "$code" -eq 0 ] || fail "$1 from $2 with $method: exit code $code"
        case $selector in
        none) name=dense ;;
        quoka) name=quoka ;;
        *) name=$selector+$executor ;;
        esac
        [ "$code" -ne 0 ] || ran="$ran${ran:+, }$name"
    done
    grep -qF "| $1 | $2 | $ran |" "$readme" || fail "README.md lacks the row: | $1 | $2 | $ran |"
    rows=$((rows + 1))
}

rows=0
ids "$work/ids.npy" $(seq 20 255)
row llama "GGUF" "$MODEL" "$work/ids.npy"
row llama "Hugging Face folder" "$models/llama_untied" "$models/llama_untied/ref/len0300.ids.npy"
row qwen2 "Hugging Face folder" "$models/qwen2_yarn" "$models/qwen2_yarn/ref/len0300.ids.npy"
row qwen3 "GGUF" "$models"/qwen3/gguf/*.gguf "$models/qwen3/ref/len0300.ids.npy"
row qwen3_moe "Hugging Face folder" "$models/qwen3_moe" "$models/qwen3_moe/ref/len0300.ids.npy"
row gemma3 "Hugging Face folder" "$models/gemma3_nested" "$models/gemma3_nested/ref/len0300.ids.npy"
[ "$(grep -c '+compactattn, flashprefill+block_sparse' "$readme")" -eq "$rows" ] || fail "README.md lists families that did not run"
finish
