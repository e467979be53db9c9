#!/usr/bin/env bash
# A compression with --distill that is killed at any moment and continued, by another number of ranks, ends in the file of
# an undisturbed run, searches no matrix twice and tunes no step before the last that was kept. $SEED and $KILLS as in
# resume.sh.
# shellcheck source=resume_lib.sh
. "$(dirname "$0")/resume_lib.sh"

KILLS_WANTED=${KILLS:-8}
SOURCE=$SHARED/models/stories260K
[ -d "$SOURCE" ] || SOURCE=$ROOT/models/demo
ARGS=(--bits 2 --calib-tokens 1100 --calib-ctx 64 --recipe descent=1 --threads 1 --distill 8)

make want.gguf 0 "${ARGS[@]}"
begun=$(date +%s%N)
make new.gguf 2 "${ARGS[@]}"
WHOLE=$((($(date +%s%N) - begun) / 1000000))
same want.gguf new.gguf "undisturbed, two ranks"
clean "an undisturbed run"
rm new.gguf

# How many steps of tuning are kept.
steps() { awk '$2 == "tuning" { n = $4 } END { print n + 0 }' new.gguf.journal 2>/dev/null; }
# No matrix was searched by two runs, and nothing that was kept is lost.
check_searches() {
    local twice
    twice=$(awk '$2 == "searched" { print $3 }' new.gguf.journal 2>/dev/null | sort | uniq -d)
    [ -z "$twice" ] || fail "$1: searched again: units" $twice
    [ "$(lines searched)" -ge "$2" ] || fail "$1: $2 matrices were searched, $(lines searched) are left"
}

note "-- kills"
kills=0 files=0
while [ $kills -lt "$KILLS_WANTED" ]; do
    n=$((RANDOM % 4)) before=$(lines searched) tuned=$(steps) word=searched least=0
    ms=$((20 + (RANDOM * 32768 + RANDOM) % (WHOLE + 100)))
    case $((RANDOM % 5)) in
        0) ms=0 least=$((before + 1 + RANDOM % 12)) ;;
        1) ms=0 word=unit least=$(($(units) + 1 + RANDOM % 9)) ;;
        2 | 3) ms=$((RANDOM % 50)) word=tuning least=$(($(lines tuning) + 1 + RANDOM % 3)) ;;
    esac
    attempt $n $ms $word $least "${ARGS[@]}" --resume
    code=$?
    if [ -e new.gguf ] && [ ! -e new.gguf.journal ]; then # finished, or killed on its way out
        same want.gguf new.gguf "after $kills kills"
        clean "a whole run"
        rm new.gguf
        files=$((files + 1))
        [ $files -gt $((5 * KILLS_WANTED)) ] && { fail "too fast to be killed"; finish; }
        [ $code -eq 0 ] && continue
    elif ! grep -qaE 'signal 9|Killed|stopped' log && [ $code -ne 137 ]; then
        fail "the job fails by itself, code $code:"
        cat log
        finish
    else
        check_searches "kill $kills" "$before"
        [ "$(steps)" -ge "${tuned:-0}" ] || fail "kill $kills: $tuned steps were tuned, $(steps) are left"
    fi
    kills=$((kills + 1))
    printf '%s+%s+%s ' "$(lines searched)" "$(steps)" "$(units)"
done
resume new.gguf 3 "${ARGS[@]}"
same want.gguf new.gguf "after $kills kills"
clean "the last run"
note "matrices searched, steps tuned and units done after each of $kills kills ($((files + 1)) files, $WHOLE ms undisturbed)"

# interrupted NAME WORD COUNT: stops a run once the journal has so many such lines; leaves copies.
interrupted() {
    local job
    rm -f new.gguf*
    "$SBIT" compress "$SOURCE" -o new.gguf "${ARGS[@]}" >log 2>&1 </dev/null &
    job=$!
    while kill -0 $job 2>/dev/null && [ "$(lines "$2")" -lt "$3" ]; do sleep 0.01; done
    kill -INT $job 2>/dev/null
    wait $job && fail "$1: too fast to be stopped"
    for end in part distill.part journal; do cp "new.gguf.$end" "$1.$end"; done
}
again() {
    rm -f new.gguf*
    for end in part distill.part journal; do cp "$1.$end" "new.gguf.$end"; done
}
says() { grep -aqE "$1" log || { fail "does not say \"$1\" but:"; cat log; }; }
# continued RANKS WHAT: the copy, changed or not, ends in the same file.
continued() {
    resume new.gguf "$1" "${ARGS[@]}"
    same want.gguf new.gguf "$2"
    clean "$2"
    note "$2: $(grep -a continuing log)"
}

note "-- what is kept"
interrupted half searched 9
note "$(grep -a resume log)"
says 'matrices are searched and kept in new.gguf.distill.part.*--resume'
again half
"$SBIT" compress "$SOURCE" -o new.gguf "${ARGS[@]}" >log 2>&1 && fail "writes over an unfinished job"
says 'unfinished.*matrices searched.*--resume'
cmp half.distill.part new.gguf.distill.part || fail "changes what was searched"
continued 2 "half of the matrices"
says "continuing with .*$(grep -ac ' searched ' half.journal) of [0-9]+ matrices searched"
interrupted all searched "$(grep -ac ' measured ' half.journal)"
again all
continued 3 "all matrices"
interrupted tuned tuning 2
says 'steps of distillation are done and kept in new.gguf.distill.part.*--resume'
TUNED=$(steps)
for n in 0 3; do
    again tuned
    continued $n "some steps, on $n ranks"
    says "continuing with .*, $TUNED steps tuned"
done

note "-- damage"
again all
printf 'XXXX' | dd of=new.gguf.distill.part bs=1 seek=40000 conv=notrunc status=none
continued 0 "a damaged file aside"
says 'cannot be used as they stand in new.gguf.distill.part'
again all
truncate -s 5000 new.gguf.distill.part
continued 2 "a file aside that was cut"
again all
rm new.gguf.distill.part
continued 0 "no file aside"
again tuned
at=$(($(stat -c %s tuned.distill.part) / 4)) # in one of the two states, each of nearly half of the file
printf 'XXXX' | dd of=new.gguf.distill.part bs=1 seek=$at conv=notrunc status=none
printf 'XXXX' | dd of=new.gguf.distill.part bs=1 seek=$((3 * at)) conv=notrunc status=none
continued 2 "two damaged states"
says "cannot go on at step $TUNED, which is damaged"
again tuned
head -n -1 tuned.journal >new.gguf.journal
continued 3 "a journal without its last line"

note "-- a full disk"
rm -f new.gguf*
(ulimit -f $(($(stat -c %s want.gguf) / 1024 + 100)) && "$SBIT" compress "$SOURCE" -o new.gguf "${ARGS[@]}" >log 2>&1) &&
    fail "writes beyond the limit"
says 'cannot write new.gguf.distill, which needs .*--resume'
continued 0 "after a full disk"

note "-- a file in the way"
again all
rm new.gguf.journal new.gguf.part
"$SBIT" compress "$SOURCE" -o new.gguf "${ARGS[@]}" >log 2>&1 && fail "writes over a file aside that no journal knows"
says 'new.gguf.distill.part is in the way'
cmp all.distill.part new.gguf.distill.part || fail "changes a file aside that no journal knows"
finish
