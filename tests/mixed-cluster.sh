#!/bin/bash
# One job of x86-64 and AArch64 ranks: rank 0 on this machine, two ranks in an emulated AArch64 Debian of the
# same release, each behind a daemon of its own as on other hosts of a cluster. The committed state runs
# models/demo, as it is and compressed to codes of 1 bit, in the mixed job and in jobs of one kind; prints
# all hashes of logits and texts, and fails unless they are equal. Also compares the compressed files.
#
#   tests/mixed-cluster.sh [--keep | --in FOLDER]
#
# Needs what debian.sh says and some ten minutes. --keep leaves the AArch64 system, --in uses one that
# was kept by this script or fresh-machine.sh.
set -euo pipefail
# shellcheck source=debian.sh
. "$(dirname "$0")/debian.sh"
# shellcheck source=../scripts/json.sh
. "$repository/scripts/json.sh"

keep=no folder=()
case "${1-} $#" in
' 0') ;;
'--keep 1') keep=yes ;;
'--in 2') keep=yes folder=("$(realpath "$2")") ;;
*) die "usage: tests/mixed-cluster.sh [--keep | --in FOLDER]" ;;
esac
[ "$host_arch" = amd64 ] || die "mixes an x86-64 machine with AArch64, and this one is $host_arch"
[ $# -lt 2 ] || [ -e "${folder[0]}/root/sbit.bundle" ] || die "${folder[0]} is no system that was kept"
own_mounts "$@"

prompt="Once upon a time there was a little dog who lived in a big house near the sea."
settings=(--mca btl "tcp,self" --mca btl_tcp_if_include lo --mca oob_tcp_if_include lo
    --mca plm_rsh_no_tree_spawn 1 --bind-to none)

# Both programs, from the same commit. The path of the AArch64 system leads to its root within it too, so that
# every file has one name for all ranks, as a job demands.
prepare() {
    mkdir -p "$machine${machine%/*}"
    ln -sfn / "$machine$machine"
    clone
    inside "cd sbit && scripts/prepare.sh sbit"
    mkdir -p "$machine/native"
    (
        cd "$machine/native"
        cp ../root/sbit.bundle .
        eval "$clone_commands"
        sbit/scripts/prepare.sh sbit
    )
    native=$machine/native/sbit/build/sbit
    emulated=$machine/root/sbit/build/sbit
    work=$machine/mixed
    rm -rf "$work"
    mkdir "$work"
    printf '%s' "$prompt" >"$work/prompt.txt"
    write_agent
}

# What mpirun calls instead of ssh: agent HOST COMMAND... runs it in the AArch64 system. A daemon looks for it
# there too, before it starts anything.
write_agent() {
    agent=$work/agent
    {
        printf '#!/bin/sh\nshift\nexec'
        printf " '%s'" "${enter[@]}"
        # shellcheck disable=SC2016  # $* is for the agent
        printf ' sh -c "$*"\n'
    } >"$agent"
    chmod +x "$agent"
}

# The three jobs: mixed, x86-64, AArch64. Each of three ranks, and called with the arguments of sbit.
job() {
    local kind=$1
    shift
    case $kind in
    mixed)
        printf '%s\n' "-n 1 --host localhost $native $*" "-n 2 --host pi1,pi2 $emulated $*" \
            >"$work/app"
        mpirun --leave-session-attached --mca plm_rsh_agent "$agent" "${settings[@]}" \
            --app "$work/app"
        ;;
    x86-64) mpirun -n 3 "${settings[@]}" "$native" "$@" ;;
    aarch64) inside ". sbit/scripts/mpi-env.sh && mpirun -n 3 ${settings[*]} $emulated $*" ;;
    esac
}

# logged KIND ARGUMENTS...: a job whose output is shown only if it fails.
logged() {
    job "$@" </dev/null >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        die "the $1 job failed: sbit ${*:2}"
    }
}

# answers MODEL NAME: what each job says.
answers() {
    local kind out hash
    for kind in mixed x86-64 aarch64; do
        out=$work/$2.$kind.json
        logged $kind run "$1" -f "$work/prompt.txt" -n 24 --temp 0 --ignore-eos --json "$out"
        hash=$(json_get "$out" logits_hash)
        [ -n "$hash" ] || die "no hash in $out"
        printf '%-8s %s %s\n' $kind "$hash" "$(json_get "$out" text)"
    done
}

# files NAME OPTIONS...: the hash of the file that each job compresses the model to.
files() {
    local kind out
    for kind in mixed x86-64 aarch64; do
        out=$work/$1.$kind.gguf
        logged $kind compress "$model" -o "$out" "${@:2}"
        printf '%-8s %s\n' $kind "$(sha256sum <"$out" | cut -d ' ' -f 1)"
    done
}

# compare WHAT COMMAND...: fails where the three lines that the command prints differ after the job's name.
compare() {
    echo "== $1"
    "${@:2}" | tee "$work/lines"
    [ "$(cut -c 10- "$work/lines" | sort -u | wc -l)" -eq 1 ] || die "the jobs differ"
}

start_machine "$host_suite" arm64 $keep "${folder[@]}"
prepare
# shellcheck source=../scripts/mpi-env.sh
. "$repository/scripts/mpi-env.sh"
model=$machine/root/sbit/models/demo
"$native" --version
inside "$emulated --version"
SECONDS=0
compare "models/demo: hash of all logits, text" answers "$model" demo
compare "compressed to codes of 1 bit: SHA-256 of the file" files code-1 --method code --bits 1
compare "what was compressed: hash of all logits, text" answers "$work/code-1.mixed.gguf" code-1
echo "The same bits in the mixed job, on x86-64 alone and on AArch64 alone ($SECONDS s)"
