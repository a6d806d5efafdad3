#!/bin/sh
# The hidden fact is found at five depths in 1K, 2K and 4K tokens, by dense and by compactattn with the defaults.
. "$(dirname "$0")/common.inc"

for length in 1000 2000 4000; do
    for depth in 0.1 0.3 0.5 0.7 0.9; do
        tool demo -m "$MODEL" --text "$DATA/demo.txt" --out "$work/o" --length "$length" --depth "$depth" --methods dense,compactattn
        [ "$code" -eq 0 ] || fail "the demo fails at length $length, depth $depth"
        for method in dense flashprefill+compactattn; do
            grep -q "^$method,.*,yes," "$work/o/summary.csv" || fail "$method misses the fact at length $length, depth $depth"
        done
    done
done
finish
