#!/usr/bin/env bash
# A compression that is stopped by whatever, and continued, ends in the file that it would have made undisturbed.
# Kills random ranks at random moments; the seed is printed, and taken from $SEED when set; $KILLS: how often.
# shellcheck source=resume_lib.sh
. "$(dirname "$0")/resume_lib.sh"

DEMO=$ROOT/models/demo
SOURCE=$DEMO
KILLS_WANTED=${KILLS:-50}
"$TOOLS/make_model" "$DEMO" big.gguf 8 512 1536 8 4 || { fail make_model; finish; }

CODE=(--calib-tokens 1024 --calib-ctx 128 --recipe descent=1 --threads 1)
BLOCKS=(--method q4_0 "${CODE[@]}")
ALONE=(--calib none --threads 1)

# Kills until there were so many; the number of ranks may change from run to run.
# storm COUNT RANKS ARGS...
storm() {
    local count=$1 n=$2 kills=0 files=0 code ms least before now whole
    shift 2
    make want.gguf 0 "$@"
    rm -f new.gguf*
    whole=$(date +%s%N)
    make new.gguf "$n" "$@"
    whole=$((($(date +%s%N) - whole) / 1000000))
    rm -f new.gguf
    while [ $kills -lt "$count" ]; do
        before=$(units)
        # Some moments by the clock, others some units later than the last.
        ms=$((20 + (RANDOM * 32768 + RANDOM) % (whole + 100)))
        least=0
        [ $((RANDOM % 3)) -gt 0 ] && ms=$((RANDOM % 30)) least=$((before + 1 + RANDOM % 12))
        attempt "$n" $ms unit $least "$@" --resume
        code=$?
        now=$(units)
        if [ $code -eq 0 ]; then
            same want.gguf new.gguf "after $kills kills"
            clean "a whole run"
            rm -f new.gguf
            files=$((files + 1))
            [ $files -gt $((5 * count)) ] && { fail "too fast to be killed"; break; }
            continue
        fi
        if ! grep -qaE 'signal 9|Killed|stopped' log && [ $code -ne 137 ]; then
            fail "the job fails by itself, code $code:"
            cat log
            finish
        fi
        kills=$((kills + 1))
        if [ -e new.gguf ] && [ ! -e new.gguf.journal ]; then
            # Killed with all its work done, on its way out.
            same want.gguf new.gguf "killed when it was finished"
            clean "a run killed when it was finished"
            rm -f new.gguf
            files=$((files + 1))
            printf 'all '
            continue
        fi
        [ "${now:-0}" -ge "${before:-0}" ] || fail "$before units were done, $now are left"
        printf '%s ' "${now:-0}"
    done
    resume new.gguf "$n" "$@"
    same want.gguf new.gguf "after $kills kills"
    clean "the last run"
    note "units done after each of $kills kills; $n ranks, $* ($((files + 1)) files, $whole ms undisturbed)"
}
storm $((KILLS_WANTED / 2 - 6)) 0 "${CODE[@]}"
storm $((KILLS_WANTED / 2 - 6)) 3 "${CODE[@]}"
storm 6 3 "${BLOCKS[@]}"
storm 3 2 --bits 4.5 "${CODE[@]}"
"$SBIT" inspect want.gguf >out.txt
for method in code q4_0 q8_0; do
    grep -q "^    blk[.].* $method " out.txt || { fail "4.5 bits without $method"; cat out.txt; }
done
SOURCE=$WORK/big.gguf
storm 6 0 "${ALONE[@]}"
storm 3 3 "${ALONE[@]}"
SOURCE=$DEMO

# interrupted NAME UNITS ARGS...: stops a run once so many units are done; leaves copies NAME.part and NAME.journal.
interrupted() {
    local name=$1 least=$2 job
    shift 2
    rm -f new.gguf*
    "$SBIT" compress "$SOURCE" -o new.gguf "$@" >log 2>&1 </dev/null &
    job=$!
    while kill -0 $job 2>/dev/null && [ "$(units)" -lt "$least" ]; do sleep 0.02; done
    kill -INT $job 2>/dev/null
    wait $job
    CODE_OF=$?
    cp new.gguf.part "$name.part" && cp new.gguf.journal "$name.journal"
}
again() {
    rm -f new.gguf
    cp "$1.part" new.gguf.part
    cp "$1.journal" new.gguf.journal
}
# refuses PATTERN ARGS...: one sentence, and nothing is lost.
refuses() {
    local pattern=$1
    shift
    again half
    if "$SBIT" compress "$@" -o new.gguf >log 2>&1; then
        fail "accepted: $*"
    elif [ "$(grep -a '^sbit: ' log | grep -acv ' %, about ')" -gt 3 ] || ! grep -aqE "^sbit: .*$pattern" log; then
        fail "$* does not say \"$pattern\" but:"
        cat log
    else
        note "$(grep -aE -e "$pattern" log)"
    fi
    cmp -s half.part new.gguf.part || fail "$* changes what was finished"
    cmp -s half.journal new.gguf.journal || fail "$* changes the journal"
}

make want.gguf 0 "${CODE[@]}"
interrupted half 9 "${CODE[@]}"
note "-- interrupted: $(grep resume log)"
[ "$CODE_OF" -eq 130 ] || fail "after Ctrl-C exit code $CODE_OF"
grep -q 'units are finished.*--resume' log || { fail "does not say how to go on"; cat log; }
resume new.gguf 3 "${CODE[@]}"
same want.gguf new.gguf "begun alone and continued by three ranks"

note "-- other jobs"
cp -r "$DEMO" other
refuses 'unfinished.*--resume' "$DEMO" "${CODE[@]}"
refuses '--bits was 1 there and is 2 now' "$DEMO" "${CODE[@]}" --bits 2 --resume
refuses '--method was code there and is q4_0 now' "$DEMO" "${BLOCKS[@]}" --resume
refuses '--recipe was' "$DEMO" --calib-tokens 1024 --calib-ctx 128 --recipe descent=2 --resume
refuses '--embeddings was' "$DEMO" "${CODE[@]}" --embeddings f16 --resume
refuses '--shard-size was' "$DEMO" "${CODE[@]}" --shard-size 1M --resume
refuses 'tokens of calibration was 1024' "$DEMO" "${CODE[@]}" --calib-tokens 1100 --resume
refuses 'calibration text was' "$DEMO" "${CODE[@]}" --calib "$ROOT/models/demo-eval.txt" --resume
refuses 'laid out differently' other "${CODE[@]}" --resume
mkdir trained
cp -r "$DEMO" trained/demo
printf '\x80\x3c' | dd of=trained/demo/model.safetensors bs=1 seek=$(($(stat -c %s "$DEMO/model.safetensors") - 2)) conv=notrunc status=none
refuses 'weights of the source was' trained/demo "${CODE[@]}" --resume
again half
"$SBIT" compress "$DEMO" -o new.gguf "${CODE[@]}" --resume >log 2>&1 &
sleep 0.3
"$SBIT" compress "$DEMO" -o new.gguf "${CODE[@]}" --resume >log2 2>&1 && fail "two at once"
grep -q 'another sbit is at work' log2 || { fail "two at once do not say so:"; cat log2; }
wait $!
same want.gguf new.gguf "beside another that was refused"

note "-- damage"
# survives WHAT: the copy of the half job, changed, ends in the same file or is refused with a sentence.
survives() {
    if "$SBIT" compress "$SOURCE" -o new.gguf "${ARGS[@]}" --resume >log 2>&1; then
        same want.gguf new.gguf "$1"
    elif [ "$(grep -a '^sbit: ' log | grep -acv ' %, about ')" -gt 3 ] || ! grep -aq 'journal.*remove it' log; then
        fail "$1: no sentence but:"
        cat log
    fi
    rm -f new.gguf*
}
ARGS=("${CODE[@]}")
SIZE=$(stat -c %s half.journal)
for _ in $(seq 12); do
    again half
    at=$(((RANDOM * 32768 + RANDOM) % SIZE))
    byte=$(od -An -tu1 -j $at -N 1 half.journal)
    printf %b "\\x$(printf %02x $((byte ^ (1 << RANDOM % 8))))" | dd of=new.gguf.journal bs=1 seek=$at conv=notrunc status=none
    survives "a flipped bit in byte $at of the journal"
done
again half
printf 'XXXX' | dd of=new.gguf.part bs=1 seek=$(($(stat -c %s half.part) / 4)) conv=notrunc status=none
survives "a damaged partial file"
again half
truncate -s 100000 new.gguf.part
survives "a partial file that was cut"
again half
rm new.gguf.part
survives "no partial file"
again half
rm new.gguf.journal
if "$SBIT" compress "$DEMO" -o new.gguf "${CODE[@]}" >log 2>&1; then fail "writes over a file that no journal knows"; fi
grep -q 'new.gguf.part is in the way' log || { fail "says nothing of a file in the way:"; cat log; }
rm -f new.gguf*
# cuts NAME STEP: the journal ends at a line, or in it.
cuts() {
    local line lines
    lines=$(wc -l <"$1.journal")
    for line in $(seq 0 "$2" "$lines"); do
        again "$1"
        head -n "$line" "$1.journal" >new.gguf.journal
        [ $((line / $2 % 2)) -eq 1 ] && sed -n "$((line + 1))p" "$1.journal" | head -c 20 >>new.gguf.journal
        survives "a journal of $line of $lines lines"
    done
}
cuts half 9
SOURCE=$WORK/big.gguf
make want.gguf 0 "${ALONE[@]}"
interrupted quick 20 "${ALONE[@]}"
ARGS=("${ALONE[@]}")
cuts quick 3
SOURCE=$DEMO

note "-- full disks"
make want.gguf 0 "${CODE[@]}"
(ulimit -f 200 && "$SBIT" compress "$DEMO" -o new.gguf "${CODE[@]}" >log 2>&1) && fail "writes beyond the limit"
grep -q 'cannot write.*--resume' log || { fail "a full disk does not say so:"; cat log; }
resume new.gguf 0 "${CODE[@]}"
grep -q 'measuring' log && fail "measures again after a full disk"
same want.gguf new.gguf "after a full disk"
if mkdir disk && mount -t tmpfs -o size=1M tmpfs disk 2>/dev/null; then
    trap 'umount "$WORK/disk"; rm -rf "$WORK"' EXIT
    # Room for the file and what was measured, but not for all of the journal.
    head -c $((1048576 - ($(stat -c %s want.gguf) / 4096 + 6) * 4096)) /dev/zero >disk/filler
    "$SBIT" compress "$DEMO" -o disk/new.gguf "${CODE[@]}" >log 2>&1 && fail "a disk of 1 MB holds everything"
    note "$(grep 'cannot write' log)"
    rm disk/filler
    resume disk/new.gguf 0 "${CODE[@]}"
    same want.gguf disk/new.gguf "after a disk was full for the journal"
else
    note "no file system can be mounted here: the journal's own full disk is not tried"
fi

note "-- nothing to resume"
rm -f new.gguf*
resume new.gguf 0 "${CODE[@]}"
grep -q 'nothing to resume' log || fail "says nothing of a missing journal"
same want.gguf new.gguf "resumed from nothing"
resume new.gguf 0 "${CODE[@]}"
same want.gguf new.gguf "resumed when all was finished"

note "-- shards"
SOURCE=$WORK/big.gguf
make want.gguf 0 "${ALONE[@]}" --shard-size 1M
"$SBIT" compress "$SOURCE" -o new.gguf "${ALONE[@]}" --shard-size 1M >log 2>&1 </dev/null &
JOB=$!
while kill -0 $JOB 2>/dev/null && [ "$(units)" -lt 20 ]; do sleep 0.02; done
kill -KILL $JOB
{ wait $JOB; } 2>/dev/null
note "$(find . -name 'new-*.part' | wc -l) shards and $(units) units of an unfinished run"
resume new.gguf 0 "${ALONE[@]}" --shard-size 1M
grep -q 'continuing with' log || fail "does not continue shards"
for shard in want-*; do same "$shard" "new${shard#want}" "shards"; done
[ -z "$(find . -name 'new*.part' -o -name 'new*.journal')" ] || fail "shards leave parts"
finish
