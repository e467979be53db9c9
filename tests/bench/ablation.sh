#!/usr/bin/env bash
# What each step of the compression is worth: MODEL at BITS (1) bits per weight with all steps off, then with one after
# the other switched on, measured on TEXT against MODEL. Prints a Markdown table, each row with all steps above it.
# METHOD (code) may also be a standard type; DISTILL (2) passes distil. JOBS runs (default: the number of cores) go on
# at once.
# Usage: [BITS=B] [METHOD=NAME] [DISTILL=N] [JOBS=N] tests/bench/ablation.sh SBIT MODEL TEXT [CTX [CALIB [TOKENS]]]
set -eu
# shellcheck source=tests/bench/measure.sh
. "$(dirname "$0")/measure.sh"

# A step: its name, what --recipe says to switch it off, and to switch it on where that is not the default.
steps=(
    "feedback feedback=0"
    "descent descent=0"
    "joint joint=0"
    "qep qep=0"
    "columns columns=0"
    "measure measure=0"
    "distill distill=0 distill=${DISTILL:-2}"
    "recode recode=0"
)

measure_open 'usage: tests/bench/ablation.sh SBIT MODEL TEXT [CTX [CALIB [TOKENS]]]' "$@"
options=(--method "${METHOD:-code}")
[ "${METHOD:-code}" != code ] || options+=(--bits "${BITS:-1}")

# recipe N: with the first N steps on.
recipe() {
    local n=0 step off on text=
    for step in "${steps[@]}"; do
        read -r _ off on <<<"$step"
        [ $n -ge "$1" ] || off=$on
        text+=${off:+,$off}
        n=$((n + 1))
    done
    echo "${text#,}"
}

table_begin
table_add "all steps off" "${options[@]}" --recipe "$(recipe 0)"
for at in "${!steps[@]}"; do
    table_add "+ ${steps[at]%% *}" "${options[@]}" --recipe "$(recipe $((at + 1)))"
done
table_end
