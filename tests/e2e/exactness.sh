#!/usr/bin/env bash
# The same text and the same bits of logits whatever the ranks, the transport, the threads, the micro-batch and
# the kernels: DESIGN section 3. Every value of every factor is met in every model; factors vary together.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

DEMO=$ROOT/models/demo
PROMPT="Once upon a time there was a little dog who lived in a big house near the sea. One day he saw"
CPUS=$("$SBIT" --version | sed -n 's/.*this machine can run: //p')

# make NAME ARGS...: compresses the demo model into NAME.gguf.
make() {
    local name=$1
    shift
    must_compress 0 "$DEMO" "$name.gguf" "$@"
}

# answer MODEL RANKS THREADS BATCH CPU: "hash text".
answer() {
    rm -f out.json
    SBIT_CPU=$5 ranks "$2" "$SBIT" run "$1" -p "$PROMPT" -n 24 --temp 0 --ignore-eos --threads "$3" --batch "$4" \
        --kv "$KV" --json out.json >out.txt 2>err.txt || cat err.txt
    printf '%s %s' "$(json_get out.json logits_hash)" "$(json_get out.json text)"
}

check() {
    local got
    got=$(answer "$@")
    [ "$got" = "$WANT" ] || fail "$* (${OMPI_MCA_btl-alone}): $got instead of $WANT"
}

has_cpu() { case " $CPUS " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# Each line: ranks, threads, micro-batch, kernels (where this CPU lacks them: its best). Together with the two
# transports every value meets every model.
table() {
    cat <<'END'
1 1 64 scalar
2 2 7 avx2
3 1 1 avx512
5 2 64 scalar
8 1 7 best
END
}

# check_all MODEL: the whole table with both transports, against one rank alone.
check_all() {
    WANT=$(answer "$1" 0 1 64 scalar)
    note "$(basename "$1"), cache $KV: $WANT"
    [ "${#WANT}" -gt 20 ] || fail "$1: no answer"
    for way in shared tcp; do
        transport $way
        while read -r n threads batch cpu; do
            has_cpu "$cpu" || cpu=${CPUS##* }
            check "$1" "$n" "$threads" "$batch" "$cpu" </dev/null
        done < <(table)
    done
}

make code1 --method code --bits 1 --calib none
make code5 --method code --bits 5 --calib none # and standard types
make sign --method sign
make q8_0 --method q8_0 --calib none
make q4_0 --method q4_0 --calib none
make coded --method code --bits 1.5 --embeddings code2.67 --calib none
note "kernel levels: $CPUS"
KV=f16
for model in "$DEMO" code1.gguf code5.gguf sign.gguf q8_0.gguf coded.gguf q4_0.gguf; do
    check_all "$model"
done
half=$WANT
KV=q8
check_all q4_0.gguf
[ "$WANT" != "$half" ] || fail "--kv q8 changes nothing"
finish
