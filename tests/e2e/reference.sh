#!/usr/bin/env bash
# Real models give the texts and perplexities that independent programs computed (../shared/models/reference.md);
# a Hugging Face folder and its GGUF form say the same.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

TEXT=$SHARED/data/tinystories-dev.txt

# starts MODEL TEXT: the greedy continuation of "Once upon a time" begins with TEXT.
starts() {
    "$SBIT" run "$1" -p "Once upon a time" -n "$3" --temp 0 --json out.json >out.txt 2>err.txt || cat err.txt
    local got
    got=$(json_get out.json text)
    case $got in
        "$2"*) note "$1: $got" ;;
        *) fail "$1 says \"$got\" instead of \"$2\"" ;;
    esac
}

# perplexity MODEL WANT TOKENS: within 0.1 %, and exactly so many tokens.
perplexity() {
    "$SBIT" eval "$1" --text "$TEXT" --ctx 256 --json out.json >out.txt 2>err.txt || cat err.txt
    local got tokens
    got=$(json_get out.json perplexity)
    tokens=$(json_get out.json tokens)
    note "$1: perplexity $got over $tokens tokens"
    within "$got" "$2" 0.001 || fail "$1: perplexity $got instead of $2"
    [ "$tokens" = "$3" ] || fail "$1: $tokens tokens instead of $3"
}

starts "$ROOT/models/demo" ", there was a little girl named Lily. She loved to play outside in the sunshine. One day, she found a big, red ball. She was so happy and wanted to play with it." 60
need_shared
M=$SHARED/models
STORY=", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it,"
starts "$M/stories260K" "$STORY" 100
starts "$M/stories260K/model-f32.gguf" "$STORY" 100
BABY=", there was a little girl named Lily. She loved to play outside in the sunshine. One day, she went t"
starts "$M/babyllama-1M" "$BABY" 110
starts "$M/babyllama-1M/model-f32.gguf" "$BABY" 110
perplexity "$ROOT/models/demo" 8.7878 108848
perplexity "$M/stories260K" 5.0008 193791
perplexity "$M/stories260K/model-f32.gguf" 4.9992 193792
perplexity "$M/babyllama-1M" 2.3489 394724
finish
