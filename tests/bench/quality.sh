#!/usr/bin/env bash
# What each method costs in quality: compresses MODEL in every way and measures the files on TEXT against MODEL.
# Prints a Markdown table. Usage: tests/bench/quality.sh SBIT MODEL TEXT [CTX]
set -eu
sbit=${1:?usage: tests/bench/quality.sh SBIT MODEL TEXT [CTX]}
model=${2:?MODEL: a Hugging Face folder or a GGUF file}
text=${3:?TEXT: a file to measure on}
ctx=${4:-256}
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
while read -r method bits; do
    "$sbit" compress "$model" -o "$work/small.gguf" --method "$method" ${bits:+--bits "$bits"} \
        --json "$work/compress.json" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    awk -v name="$method${bits:+ $bits}" -v m="$(json_get "$work/compress.json" matrix_bits_per_weight)" \
        -v a="$(json_get "$work/compress.json" bits_per_weight)" -v b="$(json_get "$work/compress.json" file_bytes)" \
        'BEGIN { printf "| %s | %.2f | %.2f | %.2f | ", name, m, a, b / 1e6 }'
    evaluate "$work/small.gguf"
done <<'LIST'
q8_0
q4_0
sign
code 4
code 3
code 2.5
code 2
code 1.5
code 1
LIST
