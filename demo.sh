#!/bin/bash
# Shows sbit at work on this machine: compresses the small model of models/demo on four ranks, tells a
# story with it on one and on four ranks, and compares sizes and qualities. Everything that it makes
# is in build/demo/. Installs missing Debian packages first (scripts/prepare.sh).
set -euo pipefail
cd "$(dirname "$0")"

scripts/prepare.sh sbit
# shellcheck source=scripts/mpi-env.sh
. scripts/mpi-env.sh
# shellcheck source=scripts/json.sh
. scripts/json.sh

sbit=build/sbit
out=build/demo
text=models/demo-eval.txt
prompt="Once upon a time"
rm -rf "$out"
mkdir -p "$out"

title() { printf '\n== %s\n\n' "$*"; }

# The command as a reader would type it, then its output.
show() {
    local word
    printf '$'
    for word in "$@"; do
        case $word in
        *' '*) printf ' "%s"' "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    echo
    "$@" </dev/null
}

# logged LOG COMMAND...: the output is added to LOG, and shown only if the command fails.
logged() {
    local log=$1
    shift
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        return 1
    fi
}

# measure MODEL NAME: perplexity into NAME.eval.json, the story into NAME.run.json.
measure() {
    logged "$out/$2.log" "$sbit" eval "$1" --text "$text" --ctx 256 --json "$out/$2.eval.json"
    logged "$out/$2.log" "$sbit" run "$1" -p "$prompt" -n 24 --temp 0 --json "$out/$2.run.json"
}

# row LABEL NAME BYTES BITS-OF-MATRICES BITS-OF-ALL
row() {
    local words
    words=$(json_get "$out/$2.run.json" text)
    case $words in
    *[![:space:]]*) ;;
    *) words="(no words at all)" ;;
    esac
    printf '%-9s %9d  %8.2f %6.2f  %10.2f  %s\n' "$1" "$3" "$4" "$5" \
        "$(json_get "$out/$2.eval.json" perplexity)" "$words"
}

# compressed_row LABEL NAME: of the file NAME.gguf that compressed into NAME.json.
compressed_row() {
    row "$1" "$2" "$(stat -c %s "$out/$2.gguf")" \
        "$(json_get "$out/$2.json" matrix_bits_per_weight)" \
        "$(json_get "$out/$2.json" bits_per_weight)"
}

title "Four ranks compress models/demo together"
echo "Here and below, for mpirun on one machine:"
echo "\$ . scripts/mpi-env.sh"
show mpirun -n 4 "$sbit" compress models/demo -o "$out/code-2.gguf" --method code --bits 2 \
    --calib-tokens 32768 \
    --json "$out/code-2.json"

title "One rank tells a story with the compressed model"
show "$sbit" run "$out/code-2.gguf" -p "$prompt" -n 60 --temp 0 --json "$out/one.json"

title "Four ranks tell the same story, each with a part of the model"
show mpirun -n 4 "$sbit" run "$out/code-2.gguf" -p "$prompt" -n 60 --temp 0 \
    --json "$out/four.json"

echo
for key in text logits_hash; do
    one=$(json_get "$out/one.json" $key)
    four=$(json_get "$out/four.json" $key)
    if [ -z "$one" ] || [ "$one" != "$four" ]; then
        printf 'demo: %s differs between one rank (%s) and four (%s)\n' $key "$one" "$four" >&2
        exit 1
    fi
done
printf 'Same text, and the same bits in every logit: hash %s on one rank and on four.\n' "$one"

title "How much each method keeps"
# Name, method and bits of the files to compare; code at 2 bits is there already.
while read -r name method bits; do
    more="--calib-tokens 32768"
    if [ "$method" = sign ]; then # never calibrated
        more=""
    fi
    # shellcheck disable=SC2086
    logged "$out/$name.log" "$sbit" compress models/demo -o "$out/$name.gguf" \
        --method "$method" ${bits:+--bits "$bits"} $more --json "$out/$name.json"
done <<'LIST'
q4_0 q4_0
sign sign
code-4 code 4
code-1 code 1
LIST
measure models/demo original
for name in q4_0 sign code-4 code-2 code-1; do
    measure "$out/$name.gguf" $name
done

printf '%-9s %9s  %15s  %10s  %s\n' "" "file" "bits per weight" "" ""
printf '%-9s %9s  %8s %6s  %10s  %s\n' method bytes matrices all perplexity \
    "\"$prompt\", at temperature 0"
# models/demo holds BF16 throughout: 16 bits a weight.
row original original "$(stat -c %s models/demo/model.safetensors)" 16 16
compressed_row q4_0 q4_0
compressed_row sign sign
compressed_row "code 4" code-4
compressed_row "code 2" code-2
compressed_row "code 1" code-1

cat <<TEXT

Perplexity is measured on $text; less is better. For one of them:
    $sbit eval $out/code-2.gguf --text $text --ctx 256
"matrices" counts the blocks' matrices, "all" also the embeddings, which stay at 8.5 bits and weigh
heavily in so small a model.
TEXT
awk -v original="$(json_get "$out/original.eval.json" perplexity)" \
    -v two="$(json_get "$out/code-2.eval.json" perplexity)" \
    -v one="$(json_get "$out/code-1.eval.json" perplexity)" \
    -v sign="$(json_get "$out/sign.eval.json" perplexity)" 'BEGIN {
    printf "\nWhat looks bad: so small a model has little to spare, and nothing was distilled here (--distill 2). "
    printf "Against\nthe original, perplexity is %.1f times as high for code at 2 bits, %.0f times at 1 bit, ",
        two / original, one / original
    printf "%.1f times for\nsign; a model that loses a factor of several no longer speaks sense, as the ",
        sign / original
    printf "last column shows.\n"
}'
