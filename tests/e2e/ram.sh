#!/usr/bin/env bash
# Calibrated compression under --ram: every rank's peak memory stays below it where a job without a limit takes more, the
# file does not depend on the number of ranks, and what cannot be kept is refused before any work: a limit too small, a
# disk too small for the activations.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

MIB=1048576
LIMIT=300
transport shared
export TMPDIR=$WORK/spill
mkdir "$TMPDIR"
"$TOOLS/make_model" "$ROOT/models/demo" big.gguf 2 1024 4096 16 8 || { fail "make_model"; finish; }
JOB=(compress big.gguf --calib-tokens 4096 --calib-ctx 256 --recipe measure=0,descent=0,rounds=1)

# peaks FILE: every rank's peak memory, in MiB.
peaks() { sed -n 's/.*"peak_rss_bytes": \([0-9]*\).*/\1/p' "$1" | while read -r b; do echo $((b / MIB)); done; }

"$SBIT" "${JOB[@]}" -o full.gguf --json full.json >out.txt 2>err.txt || { cat err.txt; fail "no limit"; }
note "without a limit: $(peaks full.json) MiB"
[ "$(peaks full.json)" -gt $LIMIT ] || fail "without a limit the job takes so little that the limit says nothing"
for n in 0 2; do
    ranks $n "$SBIT" "${JOB[@]}" -o kept$n.gguf --ram ${LIMIT}M --json kept$n.json >out.txt 2>err.txt ||
        { cat err.txt; fail "--ram ${LIMIT}M with $n ranks"; }
    grep -q "on disk" err.txt || fail "the plan with $n ranks does not say that activations go to disk"
    grep -q "in blocks of at most" err.txt || fail "the plan with $n ranks does not say how large blocks are"
    note "--ram ${LIMIT}M, mpirun -n $n: $(peaks kept$n.json | tr '\n' ' ')MiB; $(grep -h 'memory of' err.txt)"
    for peak in $(peaks kept$n.json); do
        [ "$peak" -lt $LIMIT ] || fail "a rank of $n took $peak MiB of $LIMIT"
    done
done
cmp kept0.gguf kept2.gguf || fail "under --ram the file depends on the number of ranks"
cmp -s full.gguf kept0.gguf && fail "blocks of moments made no difference at all"

# With enough for full moments only the activations move, which changes nothing.
"$SBIT" "${JOB[@]}" -o spilt.gguf --ram 870M >out.txt 2>err.txt || { cat err.txt; fail "--ram 870M"; }
grep -q "(full).*on disk" err.txt || { cat err.txt; fail "--ram 870M does not spill with full moments"; }
cmp full.gguf spilt.gguf || fail "activations on disk change the file"
[ -z "$(ls -A "$TMPDIR")" ] || fail "temporary files are left: $(ls -A "$TMPDIR")"

# Refused before any work.
"$SBIT" "${JOB[@]}" -o no.gguf --ram 100M >out.txt 2>err.txt && fail "--ram 100M was accepted"
grep -q -- "--ram 100 MiB is [0-9]* MiB too little" err.txt || { cat err.txt; fail "--ram 100M: not the reason"; }
[ ! -e no.gguf ] || fail "--ram 100M left an output"

(ulimit -f 60000 && "$SBIT" "${JOB[@]}" -o no.gguf --ram ${LIMIT}M) >out.txt 2>err.txt && fail "a full disk was accepted"
grep -q "room for a temporary file in $TMPDIR for the activations of the calibration text, [0-9]* bytes (set TMPDIR" err.txt ||
    { cat err.txt; fail "a full disk: not the reason"; }
[ ! -e no.gguf ] || fail "a full disk left an output"
finish
