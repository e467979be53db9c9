#!/usr/bin/env bash
# How well ranks share a compression: BLOCKS random blocks of SHAPE compressed on 1, 2, 4 ... ranks of one thread each.
# Prints for each number of ranks the seconds, the CPU time of the busiest rank, and two efficiencies against one rank:
# by seconds (only while every rank has a core of its own), and by CPU time, which says what N machines could reach if
# no rank ever waited. Checks that all files are the same. The machine should do nothing else.
# Usage: tests/bench/efficiency.sh BUILD [SHAPE [BLOCKS [TOKENS [RANKS...]]]]
#   BUILD    build folder (sbit, make_7b)
#   SHAPE    any that sbit bench model knows (tinyllama-1.1b); BLOCKS of it (2)
#   TOKENS   of the calibration text (4096); RANKS to try (1 2 4)
# Environment: OPTIONS, more options of sbit compress.
set -eu
if [ $# -lt 1 ] || [ ! -x "$1/sbit" ]; then
    sed -n '6,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
build=$(cd "$1" && pwd) shape=${2:-tinyllama-1.1b} blocks=${3:-2} tokens=${4:-4096}
shift $(($# < 4 ? $# : 4))
[ $# -gt 0 ] || set -- 1 2 4
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=../../scripts/mpi-env.sh
. "$root/scripts/mpi-env.sh"
# shellcheck source=../../scripts/json.sh
. "$root/scripts/json.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work OMP_WAIT_POLICY=passive work
"$build/tests/e2e/make_7b" "$root/models/demo" "$work/model" --shape "$shape" --blocks "$blocks"
read -ra options <<<"${OPTIONS:-}"

# A rank's CPU time goes to a file of its own; the variables are those of the rank's shell.
# shellcheck disable=SC2016
rank='TIMEFORMAT="%U %S"; { time "$@" >&3 2>&4; } 3>>"$work/out" 4>>"$work/log" 2>"$work/cpu.$OMPI_COMM_WORLD_RANK"'
echo "$blocks blocks of $shape, $tokens tokens, one thread a rank"
echo "| ranks | seconds | CPU s of the busiest rank | CPU s of all | efficiency by seconds | by CPU time |"
echo "|---|---|---|---|---|---|"
for ranks; do
    rm -f "$work"/cpu.* "$work"/*.gguf*
    mpirun -n "$ranks" bash -c "$rank" rank "$build/sbit" compress "$work/model" -o "$work/n.gguf" --bits 1 --threads 1 \
        --calib-tokens "$tokens" --json "$work/n.json" "${options[@]}" || { cat "$work/log" >&2; exit 1; }
    sum=$(sha256sum <"$work/n.gguf")
    [ "${first:=$sum}" = "$sum" ] || { echo "efficiency.sh: the file of $ranks ranks is another one" >&2; exit 1; }
    cat "$work"/cpu.* | awk -v n="$ranks" -v cores="$(nproc)" -v wall="$(json_get "$work/n.json" seconds)" \
        -v wall1="${wall1:-0}" -v cpu1="${cpu1:-0}" '
        { cpu = $1 + $2; all += cpu; most = cpu > most ? cpu : most }
        END {
            if (!wall1) { wall1 = wall * n; cpu1 = all }
            by = n > cores ? "" : sprintf("%.2f", wall1 / (n * wall))
            printf "| %d | %.1f | %.1f | %.1f | %s | %.2f |\n", n, wall, most, all, by, cpu1 / (n * most)
            print wall1, cpu1 >"/dev/stderr"
        }' 2>"$work/first"
    read -r wall1 cpu1 <"$work/first"
done
