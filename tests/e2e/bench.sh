#!/usr/bin/env bash
# sbit bench: random models are written once, run on one rank and several, and reported; kernels are measured and
# compared. What is measured is not looked at, beyond being there.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

KEYS='prompt_tok_s decode_tok_s read_bandwidth bytes_per_token peak_rss_bytes limit_bytes threads prompt_tokens decode_tokens bits'

# positive FILE KEY...: each key is there with a number above 0.
positive() {
    local file=$1 key value
    shift
    for key in "$@"; do
        value=$(json_get "$file" "$key")
        awk -v v="$value" 'BEGIN { exit !(v + 0 > 0) }' || fail "$file: $key is \"$value\""
    done
}

# model RANKS OPTION...: a run of the smallest shape; 0 ranks: without mpirun.
model() {
    local n=$1
    shift
    rm -f out.json
    ranks "$n" "$SBIT" bench model --shape demo --prompt 16 --decode 8 --cache cache --threads 1 --json out.json "$@" \
        >out.txt 2>err.txt || { fail "bench model $*: exit $?"; cat err.txt; return; }
    # shellcheck disable=SC2086  # a list
    positive out.json $KEYS
}

# refused TEXT OPTION...: bench model ends with one sentence that holds TEXT.
refused() {
    local text=$1
    shift
    "$SBIT" bench model --cache cache "$@" >out.txt 2>err.txt && fail "bench model $*: no failure"
    [ "$(wc -l <err.txt)" -eq 1 ] && grep -qF -- "$text" err.txt || { fail "bench model $*: not \"$text\" but:"; cat err.txt; }
}

for type in code q8_0 q4_0 q2_0 q1_0 f16 bf16 f32; do
    model 0 --type $type
    grep -q 'writing .* MB of random weights' err.txt || fail "$type: nothing said about writing"
    [ "$(json_get out.json type)" = $type ] || fail "$type: reported as $(json_get out.json type)"
    model 0 --type $type
    [ -s err.txt ] && { fail "$type, second run: not from the cache"; cat err.txt; }
done
for bits in 0.5 2 3 4; do model 0 --bits $bits; done
model 0 --embeddings f16 --batch 5 --ctx 100
model 0 --embeddings code4
model 0 --type q4_0 --embeddings code2.67
[ "$(find cache -name '*.gguf' | wc -l)" -eq 15 ] || { fail "not 15 models in the cache:"; ls cache; }
[ "$(find cache -type f | wc -l)" -eq 15 ] || fail "something else is left in the cache"

# The file is a model like any other, whose numbers are finite.
"$SBIT" inspect cache/random1-demo-code8-q8_0.gguf >out.txt 2>err.txt || { fail inspect; cat err.txt; }
"$SBIT" run cache/random1-demo-code8-q8_0.gguf -p a -n 4 --temp 0 --json run.json >out.txt 2>err.txt || { fail run; cat err.txt; }

# Without --cache: where the desktop standard says.
XDG_CACHE_HOME=$PWD/xdg "$SBIT" bench model --shape demo --prompt 2 --decode 2 >out.txt 2>err.txt || fail "XDG_CACHE_HOME"
[ -f xdg/singularbit/random1-demo-code8-q8_0.gguf ] || fail "nothing in XDG_CACHE_HOME"
env -u XDG_CACHE_HOME HOME="$PWD" "$SBIT" bench model --shape demo --prompt 2 --decode 2 >out.txt 2>err.txt || fail HOME
[ -f .cache/singularbit/random1-demo-code8-q8_0.gguf ] || fail "nothing in ~/.cache"

rm -r cache # so that it is written under mpirun
model 2
[ "$(grep -c '"rank":' out.json)" -eq 2 ] || fail "2 ranks: not 2 in the report"
[ "$(grep -c ' demo, random weights' out.txt)" -eq 1 ] || { fail "2 ranks: not one report"; cat out.txt; }

refused 'there is no shape "tinylama": there are demo' --shape tinylama
refused 'code, q8_0, q4_0' --shape demo --type q3
refused '--bits belongs to --type code' --shape demo --type q4_0 --bits 2
refused 'no multiple of 128 as type q1_0 needs' --shape smollm2-135m --type q1_0
refused '--ctx 8 is less than the 24 tokens' --shape demo --prompt 16 --decode 8 --ctx 8
refused 'one word too many' demo
echo >file
"$SBIT" bench model --shape demo --cache file/x >out.txt 2>err.txt && fail "a cache inside a file"
"$SBIT" bench >out.txt 2>err.txt && fail "bench alone"
grep -q 'bench kernels and bench model' err.txt || { fail "bench alone:"; cat err.txt; }
for what in kernels model; do
    "$SBIT" bench $what --help >out.txt 2>err.txt || fail "bench $what --help"
    "$SBIT" help bench $what | cmp -s - out.txt || fail "help bench $what"
done

"$SBIT" bench kernels --quick --threads 2 --json kernels.json >out.txt 2>err.txt || { fail "bench kernels"; cat err.txt; }
grep -q 'all are the same, bit for bit' out.txt || { fail "bench kernels says nothing of comparing"; tail -n 3 out.txt; }
positive kernels.json read_bandwidth read_bandwidth_one_thread seconds per_s bytes_per_s x_scalar
for op in product prepare row rms_norm rope swiglu add to_f16 to_q8 attention; do
    grep -q "\"operation\": \"$op\"" kernels.json || fail "bench kernels: no $op"
done
"$SBIT" bench kernels --quick --type q4_0 --cpu scalar >out.txt 2>err.txt || { fail "bench kernels --cpu scalar"; cat err.txt; }
grep -q 'q8_0' out.txt && fail "--type q4_0 measures others"
SBIT_CPU=scalar "$SBIT" bench kernels --quick --type q4_0 >out.txt 2>err.txt || { fail "SBIT_CPU=scalar"; cat err.txt; }
"$SBIT" bench kernels --cpu best >out.txt 2>err.txt && fail "--cpu best"
grep -q 'cpu best is no level' err.txt || { fail "--cpu best:"; cat err.txt; }
finish
