#!/usr/bin/env bash
# The conformance vectors of ../shared/tokenizers through the command line: each text of FILE.inp must give the
# ids of its line in FILE.out.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

"$SBIT" tokenize "$ROOT/models/demo" -p "Once upon a time" >ids 2>err.txt || { cat err.txt; fail "tokenize the demo"; }
[ "$(tr '\n' ' ' <ids)" = "$("$SBIT" tokenize "$ROOT/models/demo" -f <(printf 'Once upon a time') | tr '\n' ' ')" ] ||
    fail "-p and -f differ"
need_shared
V=$SHARED/tokenizers

# split FILE.inp: texts into text.0, text.1, ... without the line break in front of each separator line.
split_texts() {
    rm -f text.*
    awk -v RS='\n__ggml_vocab_test__\n' -v ORS='' '{ file = "text." (NR - 1); print > file; close(file) }' "$1"
}

# vectors MODEL VOCABULARY
vectors() {
    local i=0 line got
    split_texts "$V/ggml-vocab-$2.gguf.inp"
    while IFS= read -r line; do
        [ -e text.$i ] || : >text.$i
        got=$("$SBIT" tokenize "$1" -f text.$i | tr '\n' ' ')
        [ "$got" = "${line# }${line:+ }" ] || fail "$1, text $i: \"$got\" instead of \"$line\""
        i=$((i + 1))
    done <"$V/ggml-vocab-$2.gguf.out"
    note "$1: $i texts"
    [ $i -ge 40 ] || fail "$1: only $i texts"
}

for name in gpt-2 llama-bpe llama-spm qwen2; do
    vectors "$V/ggml-vocab-$name.gguf" $name
done
vectors "$V/hf/llama2/tokenizer.model" llama-spm
finish
