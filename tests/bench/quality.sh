#!/usr/bin/env bash
# What each method costs in quality: compresses MODEL in every way and measures the files on TEXT against MODEL.
# Prints a Markdown table. CALIB is a text to calibrate on instead of the program's own.
# Usage: tests/bench/quality.sh SBIT MODEL TEXT [CTX [CALIB [TOKENS]]]
set -eu
usage='usage: tests/bench/quality.sh SBIT MODEL TEXT [CTX [CALIB [TOKENS]]]'
sbit=${1:?$usage}
model=${2:?MODEL: a Hugging Face folder or a GGUF file; $usage}
text=${3:?TEXT: a file to measure on; $usage}
ctx=${4:-256}
calib=()
[ $# -lt 5 ] || calib+=(--calib "$5")
[ $# -lt 6 ] || calib+=(--calib-tokens "$6")
# shellcheck source=scripts/json.sh
. "$(dirname "$0")/../../scripts/json.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# evaluate FILE: the measures of a model, columns 5 to 7.
evaluate() {
    "$sbit" eval "$1" --text "$text" --ctx "$ctx" --against "$model" --json "$work/eval.json" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; exit 1; }
    awk -v p="$(json_get "$work/eval.json" perplexity)" -v k="$(json_get "$work/eval.json" kl)" \
        -v t="$(json_get "$work/eval.json" top1)" 'BEGIN { printf "%.2f | %.4f | %.1f %% |\n", p, k, 100 * t }'
}

echo "| method | matrices, bits per weight | whole file, bits per weight | file, MB | perplexity | KL, nats | same top token |"
echo "|---|---|---|---|---|---|---|"
printf '| original | | | | '
evaluate "$model"
while read -r -a words; do
    options=(--method "${words[0]}" "${words[@]:1}")
    case "${words[*]}" in
    sign* | *"calib none"*) ;;
    *) options+=("${calib[@]}") ;;
    esac
    "$sbit" compress "$model" -o "$work/small.gguf" "${options[@]}" --json "$work/compress.json" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; exit 1; }
    awk -v name="${words[*]}" -v m="$(json_get "$work/compress.json" matrix_bits_per_weight)" \
        -v a="$(json_get "$work/compress.json" bits_per_weight)" -v b="$(json_get "$work/compress.json" file_bytes)" \
        'BEGIN { gsub("--", "", name); printf "| %s | %.2f | %.2f | %.2f | ", name, m, a, b / 1e6 }'
    evaluate "$work/small.gguf"
done <<'LIST'
q8_0
q4_0
q4_0 --calib none
q2_0
q1_0
sign
code --bits 4
code --bits 2
code --bits 2 --distill 2
code --bits 1.5
code --bits 1
code --bits 1 --calib none
code --bits 1 --distill 2
code --bits 0.8 --distill 2
code --bits 0.55 --distill 2
LIST
