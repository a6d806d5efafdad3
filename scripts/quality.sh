#!/bin/sh
# What a method costs in quality: negative log-likelihood of the second half of a text, over settings. Prints the table of
# docs/quality.md.
#   scripts/quality.sh MODEL TEXT FIRST_SCORED_TOKEN      (COMPACTATTN: the tool, default build/compactattn)
set -eu
tool=${COMPACTATTN:-build/compactattn}
model=$1
text=$2
from=$3

number() { # KEY JSON
    printf '%s' "$2" | tr -d ' \n' | sed "s/.*\"$1\":\([-0-9.e]*\).*/\1/"
}

dense=
row() { # NAME OPTIONS...
    name=$1
    shift
    json=$("$tool" perplexity -m "$model" -f "$text" --from "$from" --json "$@")
    nll=$(number mean_nll "$json")
    [ -n "$dense" ] || dense=$nll
    awk -v name="$name" -v kept="$(number kept_fraction "$json")" -v nll="$nll" -v dense="$dense" -v ms="$(number attention_ms "$json")" \
        'BEGIN { printf "| %s | %.0f %% | %.4f | %+.4f | %.0f |\n", name, 100 * kept, nll, nll - dense, ms }'
}

echo "| method | past KV pages read | mean NLL | against dense | attention ms |"
echo "|---|---|---|---|---|"
row dense --executor dense
for alpha in 0.02 0.06 0.12 0.18 0.3 0.5; do
    row "compactattn, alpha $alpha" --executor compactattn --alpha "$alpha" --dense-tail 0
done
for alpha in 0.003 0.01 0.03 0.06; do
    row "block_sparse, alpha $alpha" --executor block_sparse --alpha "$alpha" --dense-tail 0
done
for alpha in 0.06 0.18; do
    row "compactattn, alpha $alpha, 64-token pages" --executor compactattn --alpha "$alpha" --page 64 --sink 4 --window 8 --dense-tail 0
done
