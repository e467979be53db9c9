#!/usr/bin/env bash
# Compression where only some ranks have the source: the others get from rank 0 what they need, and make the same file. A
# rank without it is one in another folder, where the model's relative path leads nowhere.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

transport shared
ln -s "$ROOT/models/demo" model
cp "$ROOT/models/demo-eval.txt" text.txt
mkdir empty other
"$TOOLS/make_model" model small.gguf 3 64 96 4 2 || { fail "make_model"; finish; }

# job OUT WHERE... -- ARGS...: sbit ARGS -o OUT, on one rank for each folder WHERE; alone if there is none.
job() {
    local out=$1 line=() where=()
    shift
    while [ "$1" != -- ]; do
        where+=("$1")
        shift
    done
    shift
    for folder in "${where[@]}"; do
        line+=(${line[@]:+:} -n 1 -wdir "$folder" "$SBIT" "$@" -o "$WORK/$out")
    done
    if [ ${#where[@]} -eq 0 ]; then
        "$SBIT" "$@" -o "$out" >out.txt 2>err.txt
    else
        mpirun "${line[@]}" >out.txt 2>err.txt
    fi
}

# same NAME FOLDERS LACKING -- ARGS...: the job on these ranks makes the file that one rank makes.
same() {
    local name=$1 folders=$2 lacking=$3
    shift 4
    # shellcheck disable=SC2086  # a list of words
    job "$name.gguf" $folders -- "$@" || { cat err.txt; fail "$name on $folders"; return; }
    [ "$(grep -c "has no .*: rank 0 sends it what it needs" err.txt)" -eq "$lacking" ] ||
        { cat err.txt; fail "$name: not $lacking ranks are told to lack the source"; }
    cmp want.gguf "$name.gguf" || fail "$name on $folders makes another file"
}

CODE=(compress model --bits 1 --threads 1 --calib-tokens 4096)
job want.gguf -- "${CODE[@]}" || { cat err.txt; fail "one rank"; }
same two "$WORK empty" 1 -- "${CODE[@]}"
same three "$WORK empty empty" 2 -- "${CODE[@]}"
same some "$WORK empty $WORK" 1 -- "${CODE[@]}"
grep -q "memory of rank 1: .*source sent" err.txt || { cat err.txt; fail "the plan of memory does not tell what is sent"; }
same limited "$WORK empty" 1 -- "${CODE[@]}" --ram 400M

for args in "--distill 1 --calib-tokens 4096" "--method q4_0 --calib-tokens 4096" "--calib none" "--method sign" \
    "--embeddings f16 --bits 2 --calib-tokens 4096"; do
    # shellcheck disable=SC2206  # a list of words
    JOB=(compress model --threads 1 $args)
    job want.gguf -- "${JOB[@]}" || { cat err.txt; fail "one rank, $args"; }
    same other "$WORK empty empty" 2 -- "${JOB[@]}"
done

# A source in one GGUF file, whose rows of q and k stand in another order.
GGUF=(compress small.gguf --bits 1 --threads 1 --calib-tokens 4096 --calib-ctx 64)
job want.gguf -- "${GGUF[@]}" || { cat err.txt; fail "one rank, GGUF"; }
same gguf "$WORK empty" 1 -- "${GGUF[@]}"

# The estimate measures everywhere.
job none.gguf "$WORK" empty -- "${CODE[@]}" --dry-run || { cat err.txt; fail "--dry-run"; }
grep -q "on 2 ranks" out.txt || { cat out.txt; fail "--dry-run tells nothing"; }

# Another model under the name, and a damaged one, are refused rather than replaced.
ln -s "$WORK/small.gguf" other/model
job none.gguf "$WORK" other -- "${CODE[@]}" && fail "another model was accepted"
grep -q "sees another model at model than rank 0 does" err.txt || { cat err.txt; fail "another model: not the reason"; }
rm other/model
printf GGUF >other/model
job none.gguf "$WORK" other -- "${CODE[@]}" && fail "a damaged model was accepted"
grep -q "rank 1 .*model" err.txt || { cat err.txt; fail "a damaged model: not the reason"; }
finish
