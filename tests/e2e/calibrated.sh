#!/usr/bin/env bash
# Calibrated compression: the same file from any number of ranks and threads, and every step of the recipe worth
# what it costs. Qualities are of the demo model on its own text, calibrated on the general one inside the program.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

DEMO=$ROOT/models/demo
TEXT=$ROOT/models/demo-eval.txt
FEW=(--calib-tokens 16384)
SHORT=(--calib-tokens 4096 --calib-ctx 128) # enough to tell one file from another: two windows a lane

# make NAME RANKS ARGS...: compresses the demo model into NAME.gguf.
make() {
    local name=$1 n=$2
    shift 2
    must_compress "$n" "$DEMO" "$name.gguf" "$@"
}

# kl NAME: mean KL divergence of NAME.gguf from the original.
kl() {
    "$SBIT" eval "$1.gguf" --text "$TEXT" --ctx 256 --against "$DEMO" --json eval.json >log 2>&1 || cat log >&2
    json_get eval.json kl
}

# better A B SHARE WHY: whether A's KL is at most SHARE of B's.
better() {
    local a b
    a=$(kl "$1") b=$(kl "$2")
    note "$4: KL $a against $b"
    awk -v a="$a" -v b="$b" -v s="$3" 'BEGIN { exit !(a > 0 && a <= s * b) }' || fail "$4: KL $a, not below $3 of $b"
}

# One file, whoever makes it.
for asked in "--bits 4" "--method q4_0"; do # 4 bits: codes, q4_0 and q8_0
    read -r -a asked <<<"$asked"
    make one 0 "${asked[@]}" --threads 1 "${SHORT[@]}"
    want=$(sha256sum <one.gguf)
    for way in "0 2" "3 1" "5 1"; do
        read -r n threads <<<"$way"
        make other "$n" "${asked[@]}" --threads "$threads" "${SHORT[@]}"
        cmp one.gguf other.gguf || fail "${asked[*]}: $n ranks of $threads threads make another file"
    done
    note "${asked[*]}: $want"
done

# So with embeddings of codes, which the student's stream begins with; they cost little.
make one 0 --embeddings code4 --threads 1 "${SHORT[@]}"
make other 3 --embeddings code4 --threads 2 "${SHORT[@]}"
cmp one.gguf other.gguf || fail "--embeddings code4: 3 ranks make another file"
"$SBIT" inspect one.gguf >out.txt && grep -q '^    token_embd  *code *2 *4[.]' out.txt || { fail "no embeddings of 4 bits"; cat out.txt; }

# What was lost is in the file, but where nothing was calibrated.
grep -q 'relative squared error *relative loss$' out.txt || { fail "no heads of losses"; cat out.txt; }
grep -qE '^    blk[.]0[.]attn_q  *code .* 0[.][0-9]*[1-9][0-9]*$' out.txt || { fail "no loss of a matrix"; cat out.txt; }
grep -qE '^    token_embd .* -$' out.txt || { fail "a loss of embeddings"; cat out.txt; }
"$SBIT" inspect one.gguf --json out.json >/dev/null && json_get out.json matrix_loss | grep -q '^\[' || fail "no losses in JSON"
make plain 0 --bits 1 --calib none
"$SBIT" inspect plain.gguf >out.txt && ! grep -q 'relative loss' out.txt || { fail "losses without calibration"; cat out.txt; }

# Each step of the recipe. One bit: where errors are large.
make whole 0 --bits 1 "${FEW[@]}"
make none 0 --bits 1 --recipe qep=0,feedback=0,descent=0,joint=0 "${FEW[@]}"
make no_qep 0 --bits 1 --recipe qep=0 "${FEW[@]}"
make no_search 0 --bits 1 --recipe feedback=0,descent=0,joint=0 "${FEW[@]}"
better whole plain 0.5 "calibrated against uncalibrated"
better whole no_qep 0.9 "with the correction for the compressed prefix"
better whole no_search 0.95 "with feedback and descent"
better no_qep none 0.9 "with feedback and descent, no correction"

# So many steps that codes can change: one window each.
make scales 0 --bits 1 --distill 3 --recipe batch=1,recode=0 "${FEW[@]}"
make recoded 0 --bits 1 --distill 3 --recipe batch=1 "${FEW[@]}"
better scales whole 0.96 "with row scales and norms distilled"
better recoded scales 0.97 "with codes chosen anew"
make distilled 0 --bits 1 --distill 1 --threads 1 "${SHORT[@]}"
make distilled2 0 --bits 1 --distill 1 --threads 2 "${SHORT[@]}"
cmp distilled.gguf distilled2.gguf || fail "two threads distil another file"
make distilled3 3 --bits 1 --distill 1 --threads 1 "${SHORT[@]}"
cmp distilled.gguf distilled3.gguf || fail "three ranks distil another file"

# Two massive channels in every norm, made up for in the columns behind: the same bits from the model itself, and
# codes with column scales hardly lose more.
cp -rL "$DEMO" massive && chmod -R u+w massive && "$TOOLS/make_massive" massive || { fail make_massive; finish; }
perplexity() {
    "$SBIT" eval "$1" --text "$TEXT" --ctx 256 --json eval.json >log 2>&1 || cat log >&2
    json_get eval.json perplexity
}
[ "$(perplexity massive)" = "$(perplexity "$DEMO")" ] || fail "massive channels make another model"
must_compress 0 massive columns.gguf --bits 2 "${FEW[@]}"
must_compress 0 massive no_columns.gguf --bits 2 --recipe columns=0 "${FEW[@]}"
better columns no_columns 0.85 "with column scales where channels are massive"
within "$(perplexity columns.gguf)" "$(perplexity "$DEMO")" 0.25 || fail "massive channels: perplexity $(perplexity columns.gguf)"

# Too many weights for codes to be chosen anew: said before the work begins.
"$TOOLS/make_model" "$DEMO" big.gguf 20 512 1536 8 8 || { fail make_model; finish; }
# tells WANTED SRC ARGS...: how often that is said.
tells() {
    local wanted=$1 said
    shift
    "$SBIT" compress "$@" -o new.gguf --dry-run --calib-tokens 256 --calib-ctx 16 >log 2>&1 || { fail "dry run $*"; cat log; }
    said=$(grep -c 'distillation leaves byte codes.*tunes row scales and norms.* 74[.]1 million.* 67[.]1 million' log)
    [ "$said" -eq "$wanted" ] || { fail "says $said times that codes stay: $*"; cat log; }
}
tells 1 big.gguf --distill 2
tells 1 big.gguf --recipe distill=2
tells 0 big.gguf
tells 0 big.gguf --distill 2 --recipe recode=0
tells 0 big.gguf --distill 2 --method q4_0
tells 0 "$DEMO" --distill 2
rm big.gguf

# Standard types: the same bytes say more.
for method in q4_0 q2_0 q1_0; do
    make "plain_$method" 0 --method $method --recipe plain "${FEW[@]}"
    make "$method" 0 --method $method "${FEW[@]}"
    better "$method" "plain_$method" 0.85 "$method calibrated against rounded"
done
make code2 0 --bits 2 "${FEW[@]}"
better code2 q2_0 0.8 "codes of 2 bits against q2_0 at 2.25"
make mixed 0 --bits 4.5 "${FEW[@]}"
better mixed q4_0 0.97 "codes and standard types for 4.5 bits against q4_0 alone"
finish
