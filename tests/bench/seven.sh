#!/usr/bin/env bash
# A 7B-shaped model on this machine: generates BLOCKS full blocks of the shape mistral-7b, compresses them on RANKS ranks
# under a limit of memory each, and prints what that took and what it says of the whole model. Weights are random: sizes,
# times and memory mean something, quality does not. Needs 3 GB of disk, and about half an hour on two cores.
# Usage: tests/bench/seven.sh BUILD [SHAPE [BLOCKS [TOKENS [CONTEXT [RANKS]]]]]
#   BUILD    build folder (sbit, make_7b, bench_linear)
#   SHAPE    mistral-7b, llama-2-7b or another that sbit bench model knows (mistral-7b)
#   BLOCKS   generated and compressed (2)
#   TOKENS   of the calibration text (8192), in windows of CONTEXT (512)
#   RANKS    (2)
# Environment: RAM, the limits to try (2G 1G); THREADS per rank; WORK, a folder for the files (a temporary one).
set -eu
if [ $# -lt 1 ] || [ ! -x "$1/sbit" ]; then
    sed -n '5,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
build=$(cd "$1" && pwd) shape=${2:-mistral-7b} blocks=${3:-2} tokens=${4:-8192} context=${5:-512} ranks=${6:-2}
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=../../scripts/mpi-env.sh
. "$root/scripts/mpi-env.sh"
# shellcheck source=../../scripts/json.sh
. "$root/scripts/json.sh"
limits=${RAM:-2G 1G}
threads=${THREADS:-$(($(nproc) > ranks ? $(nproc) / ranks : 1))}
work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
export TMPDIR=$work OMP_WAIT_POLICY=passive

# make FOLDER OPTION...: a generated folder.
make() { "$build/tests/e2e/make_7b" "$root/models/demo" "$work/$1" --shape "$shape" "${@:2}"; }

# Sizes of the whole model, from headers alone.
make whole --empty
depth=$("$build/sbit" inspect "$work/whole" | sed -n 's/.*: \([0-9]*\) blocks.*/\1/p')
echo "$shape, $depth blocks, whole file against F32 (sbit compress --dry-run --calib none):"
for form in '1 q8_0' '1 q4_0' '1 code4' '0.8 q8_0' '0.8 q4_0' '0.8 code4' '0.8 code2.67'; do
    printf '  --bits %-4s --embeddings %-8s ' "${form% *}" "${form#* }"
    "$build/sbit" compress "$work/whole" -o "$work/no.gguf" --dry-run --calib none --bits "${form% *}" \
        --embeddings "${form#* }" 2>"$work/log" | sed -n 's/.*the whole file: //p'
done

echo "dense steps in one thread, share of SGEMM:"
"$build/tests/bench/bench_linear" 1 4096 | tee "$work/linear.json" |
    sed -n 's/.*"what": "\([^"]*\)", "n": \([0-9]*\).*"gflops": \([0-9.]*\), "share_of_sgemm": \([0-9.]*\).*/\1 \2 \3 \4/p' |
    sed 's/\(.*\) \([0-9]*\) \([0-9.]*\) \([0-9.]*\)$/  \1, \2 columns: \3 GFLOP\/s, \4/'
sgemm=$(sed -n 's/.*"sgemm_gflops": \([0-9.]*\).*/\1/p' "$work/linear.json")

make part --blocks "$blocks"
# job RAM BITS EMBEDDINGS: the estimate, then the work.
job() {
    local all=(compress "$work/part" -o "$work/part.gguf" --ram "$1" --bits "$2" --embeddings "$3" --threads "$threads"
        --calib-tokens "$tokens" --calib-ctx "$context" --json "$work/part.json")
    echo "$blocks blocks, $ranks ranks of $threads threads, --ram $1 --bits $2 --embeddings $3, $tokens tokens in windows of $context:"
    mpirun -n "$ranks" "$build/sbit" "${all[@]}" --dry-run >"$work/plan" 2>"$work/log" || { cat "$work/log"; return; }
    sed -n 's/^sbit: memory/  memory/p' "$work/log"
    sed -n '/^  part /,$p' "$work/plan"
    rm -f "$work"/part.gguf*
    { time mpirun -n "$ranks" "$build/sbit" "${all[@]}" >"$work/out" 2>"$work/log"; } 2>"$work/cpu" ||
        { cat "$work/log"; return; }
    # By CPU time too: others may use the machine. Embeddings and head are made once, whatever the blocks.
    {
        sed -n 's/^  all  *\([0-9.e+]*\).*/flop \1/p' "$work/plan"
        sed 's/^/cpu /' "$work/cpu"
        echo "wall $(json_get "$work/part.json" seconds)"
        awk '/"name": "(token_embd|output).weight"/ { on = 1 } on && /"seconds"/ { sub(/.*: */, ""); print "once", $0 + 0; on = 0 }' \
            "$work/part.json"
    } | awk -v blocks="$blocks" -v depth="$depth" -v sgemm="$sgemm" '
        { sum[$1] += $2 + $3 }
        END {
            each = (sum["wall"] - sum["once"]) / blocks
            core = (sum["cpu"] - sum["once"]) / blocks
            printf "  %.0f s, of it %.0f s for embeddings and head: %.0f s a block, %.0f s of CPU time\n", sum["wall"], sum["once"], each, core
            printf "  all %d blocks: %.1f hours as here, %.1f core hours\n", depth, (each * depth + sum["once"]) / 3600,
                (core * depth + sum["once"]) / 3600
            rate = sum["flop"] / (sum["cpu"] - sum["once"])
            printf "  %.4g GFLOP, %.1f a second of CPU time: %.2f of SGEMM\n", sum["flop"], rate, rate / sgemm
        }'
    sed -n 's/.*"peak_rss_bytes": \([0-9]*\).*/\1/p' "$work/part.json" |
        awk '{ printf "%s %.0f", NR == 1 ? "  peak memory in MiB:" : ",", $1 / 1048576 } END { print "" }'
    sed -n 's/^  after  */  file of these blocks: /p' "$work/out"
}
TIMEFORMAT='%U %S'
for ram in $limits; do job "$ram" 1 q8_0; done
job "${limits%% *}" 0.8 code4
