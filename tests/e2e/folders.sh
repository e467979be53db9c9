#!/usr/bin/env bash
# Folders as they are published, and files made from files: nothing of the tokenizer is lost on the way.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# ids MODEL: of a text with the things that tokenizers treat in their own way.
ids() { "$SBIT" tokenize "$1" -p "  Once upon a time,  Lily said: \"1234 caf\u00e9s!\" " 2>err.txt | tr '\n' ' ' || cat err.txt; }

# make MODEL OUT METHOD
make() { "$SBIT" compress "$1" -o "$2" --method "$3" --calib none >log 2>&1 || { cat log; fail "compress $*"; }; }

# Llama 2 and Mistral say so in tokenizer_config.json; it is no 64-bit integer.
cp -r "$ROOT/models/demo" m
sed -i 's/"model_max_length": 512/"model_max_length": 1000000000000000019884624838656/' m/tokenizer_config.json
grep -q 19884624838656 m/tokenizer_config.json || fail "the test did not change tokenizer_config.json"
"$SBIT" run m -p "Once upon a time" -n 8 --temp 0 >out.txt 2>err.txt || { cat err.txt; fail "run with a huge model_max_length"; }
grep -q "there was a little girl" out.txt || fail "run with a huge model_max_length says: $(cat out.txt)"

# A tokenizer of its own kind survives two compressions.
again() {
    local want
    want=$(ids "$1")
    [ -n "$want" ] || fail "$1: no tokens"
    make "$1" one.gguf q8_0
    make one.gguf two.gguf q4_0
    [ "$(ids one.gguf)" = "$want" ] || fail "$1: other tokens after one compression"
    [ "$(ids two.gguf)" = "$want" ] || fail "$1: other tokens after two"
}
cp -r "$ROOT/models/demo" own
sed -i 's/"use_regex": true/"use_regex": false/' own/tokenizer.json
again own
again "$ROOT/models/demo"
if [ -d "$SHARED/models" ]; then
    again "$SHARED/models/stories260K"
    again "$SHARED/models/babyllama-1M"
fi
finish
