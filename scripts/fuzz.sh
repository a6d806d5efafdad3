#!/bin/sh
# Runs every fuzzer of a build folder over a copy of its corpus.
#   scripts/fuzz.sh BUILD SECONDS
set -eu
build=$1
seconds=$2
for fuzzer in "$build"/tests/fuzz_*; do
    [ -x "$fuzzer" ] || continue
    name=$(basename "$fuzzer")
    mkdir -p "$build/corpus/$name" "$build/crashes"
    echo "fuzz: $name for $seconds s"
    "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=3000 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="$build/crashes/$name-" "$build/corpus/$name" "tests/fuzz/corpus/$name"
done
