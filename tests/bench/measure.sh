# Compressing a model in some way and measuring what became of it, for the scripts of this folder; sourced.
# shellcheck shell=bash
# JOBS runs go on at once (default: the number of cores), each with its share of the cores.

# measure_open USAGE SBIT MODEL TEXT [CTX [CALIB [TOKENS]]]: sets $sbit, $work, a folder that disappears at exit, and
# $original, the perplexity of MODEL on TEXT in windows of CTX tokens (256).
measure_open() {
    local usage=$1
    sbit=${2:?$usage}
    model=${3:?MODEL: a Hugging Face folder or a GGUF file; $usage}
    text=${4:?TEXT: a file to measure on; $usage}
    ctx=${5:-256}
    calib=()
    [ $# -lt 6 ] || [ -z "$6" ] || calib+=(--calib "$6")
    [ $# -lt 7 ] || calib+=(--calib-tokens "$7")
    jobs=${JOBS:-$(nproc)}
    threads=$(($(nproc) / jobs))
    [ "$threads" -gt 0 ] || threads=1
    rows=0 printed=0
    # shellcheck source=scripts/json.sh
    . "$(dirname "${BASH_SOURCE[0]}")/../../scripts/json.sh"
    work=$(mktemp -d)
    trap measure_close EXIT
    measure_quiet "$work/log" "$sbit" eval "$model" --text "$text" --ctx "$ctx" --json "$work/original.json"
    original=$(json_get "$work/original.json" perplexity)
}

# Runs that are still going when one has failed end with it.
measure_close() {
    local pid
    for pid in $(jobs -rp); do kill "$pid" || true; done
    rm -rf "$work"
}

# measure_quiet LOG COMMAND...: shows what it said only when it fails.
measure_quiet() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 || {
        cat "$log" >&2
        return 1
    }
}

# measure FOLDER OPTIONS...: compresses the model with OPTIONS of sbit compress, on the calibration text unless they
# say otherwise, and evaluates the file. Fills FOLDER/compress.json and FOLDER/eval.json, leaves no model behind.
measure() {
    local folder=$1 given=()
    shift
    case " $* " in
    *" --calib none "* | *" --method sign "*) ;;
    *) given=("${calib[@]}") ;;
    esac
    mkdir -p "$folder"
    measure_quiet "$folder/log" "$sbit" compress "$model" -o "$folder/small.gguf" --threads "$threads" "$@" \
        "${given[@]}" --json "$folder/compress.json" || return
    measure_quiet "$folder/log" "$sbit" eval "$folder/small.gguf" --threads "$threads" --text "$text" --ctx "$ctx" \
        --against "$model" --json "$folder/eval.json" || return
    rm "$folder/small.gguf"
}

# measure_row FOLDER NAME: a row of the table from what measure left there; NAME is followed by how many matrices have
# another type because their rows do not fit the one asked for.
measure_row() {
    local other all
    other=$(grep -c 'blk.*stored as' "$1/compress.json" || true)
    all=$(grep -c '"name": "blk\.' "$1/compress.json")
    if [ "$other" -eq "$all" ]; then
        printf '| %s | not one row of this model fits | | | | | |\n' "$2"
        return
    fi
    [ "$other" -eq 0 ] || set -- "$1" "$2 ($other of $all matrices do not fit)"
    awk -v name="$2" -v bits="$(json_get "$1/compress.json" matrix_bits_per_weight)" \
        -v ppl="$(json_get "$1/eval.json" perplexity)" -v original="$original" \
        -v kl="$(json_get "$1/eval.json" kl)" -v top="$(json_get "$1/eval.json" top1)" \
        -v seconds="$(json_get "$1/compress.json" seconds)" 'BEGIN {
            printf "| %s | %.2f | %.3f | %.4f | %.4f | %.1f %% | %.1f |\n",
                name, bits, ppl, ppl / original, kl, 100 * top, seconds
        }'
}

# table_begin: the heads, and the original's row.
table_begin() {
    echo "| method | bits of the matrices | perplexity | ratio to the original | KL, nats | same top token | seconds |"
    echo "|---|---|---|---|---|---|---|"
    printf '| original | | %.3f | | | | |\n' "$original"
}

# table_print: rows that are there, in their order, as far as none before is missing.
table_print() {
    while [ -e "$work/$printed.row" ]; do
        cat "$work/$printed.row"
        printed=$((printed + 1))
    done
}

# table_add NAME OPTIONS...: a row, worked out in the background once fewer than $jobs are. Fails when one has failed.
table_add() {
    local at=$work/$rows name=$1
    shift
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
        wait -n || return
        table_print
    done
    rows=$((rows + 1))
    {
        measure "$at" "$@" && measure_row "$at" "$name" >"$at.part" && mv "$at.part" "$at.row"
    } &
}

# table_end: waits for all rows.
table_end() {
    wait
    table_print
    [ "$printed" -eq "$rows" ]
}
