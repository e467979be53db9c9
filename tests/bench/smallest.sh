#!/usr/bin/env bash
# The smallest --bits, in steps of 0.1, with which MODEL loses less than LOSS (0.5) percent of its perplexity on TEXT:
# found by halving 0.5 to 16, as if more bits were always better. Prints each try. DISTILL (0) passes over the
# calibration text tune each of them.
# Usage: [LOSS=PERCENT] [DISTILL=N] tests/bench/smallest.sh SBIT MODEL TEXT [CTX [CALIB [TOKENS]]]
set -eu
# shellcheck source=tests/bench/measure.sh
. "$(dirname "$0")/measure.sh"
measure_open 'usage: tests/bench/smallest.sh SBIT MODEL TEXT [CTX [CALIB [TOKENS]]]' "$@"
threads=$(nproc) # one run at a time: each needs to know the one before
loss=${LOSS:-0.5}

# enough TENTHS: tries so many tenths of a bit; whether the loss is small enough.
enough() {
    local bits
    bits=$(awk -v t="$1" 'BEGIN { printf "%.1f", t / 10 }')
    measure "$work/try" --bits "$bits" --distill "${DISTILL:-0}" || exit 1
    measure_row "$work/try" "--bits $bits"
    awk -v p="$(json_get "$work/try/eval.json" perplexity)" -v o="$original" -v l="$loss" \
        'BEGIN { exit !(p < o * (1 + l / 100)) }'
}

table_begin
low=4 high=161 # tenths: too few; enough, or one more than there are
while [ $((high - low)) -gt 1 ]; do
    middle=$(((low + high) / 2))
    if enough $middle; then high=$middle; else low=$middle; fi
done
echo
if [ $high -gt 160 ]; then
    echo "not even 16 bits per weight lose less than $loss % of perplexity"
    exit 1
fi
awk -v t=$high -v l="$loss" 'BEGIN { printf "below %s %% loss of perplexity: --bits %.1f\n", l, t / 10 }'
