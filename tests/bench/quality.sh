#!/usr/bin/env bash
# What each method costs in quality: compresses MODEL in every way and measures the files on TEXT against MODEL.
# Prints a Markdown table. CALIB is a text to calibrate on instead of the program's own; rows "distilled" take DISTILL
# (2) passes over it at the end, "plain" rows round each weight by itself. JOBS (default: the number of cores) runs go
# on at once: seconds are of a run with its share of the cores.
# Usage: [JOBS=N] [DISTILL=N] tests/bench/quality.sh SBIT MODEL TEXT [CTX [CALIB [TOKENS]]]
set -eu
# shellcheck source=tests/bench/measure.sh
. "$(dirname "$0")/measure.sh"
measure_open 'usage: tests/bench/quality.sh SBIT MODEL TEXT [CTX [CALIB [TOKENS]]]' "$@"
distill=${DISTILL:-2}
table_begin
for bits in 4 2 1.5 1 0.8 0.55; do
    table_add "code $bits" --method code --bits "$bits"
    table_add "code $bits, distilled" --method code --bits "$bits" --distill "$distill"
done
table_add "code 1, plain" --method code --bits 1 --calib none
table_add sign --method sign
for method in q8_0 q4_0 q2_0 q1_0; do
    table_add "$method" --method $method
    table_add "$method, distilled" --method $method --distill "$distill"
    case $method in
    q8_0 | q4_0) table_add "$method, plain" --method $method --calib none ;;
    *) table_add "$method, plain" --method $method --recipe plain ;; # not offered without a calibration
    esac
done
table_end
