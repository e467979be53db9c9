#!/usr/bin/env bash
# sbit run without -p and -f: lines continue one text, a full context starts afresh, a line too long is left out.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

DEMO=$ROOT/models/demo

# says RANKS WANT CODE LINE...: the answers to these lines, each line as one argument; 0 ranks: without mpirun.
says() {
    local n=$1 want=$2 want_code=$3 got code
    shift 3
    got=$(printf '%s\n' "$@" | ranks "$n" "$SBIT" run "$DEMO" --ctx 34 --temp 0 -n 20 --json out.json 2>err.txt)
    code=$?
    [ "$got" = "$want" ] || { fail "$n ranks, $*: \"$got\" instead of \"$want\""; cat err.txt; }
    [ $code -eq "$want_code" ] || { fail "$n ranks, $*: exit $code instead of $want_code"; cat err.txt; }
}
# count WANT PATTERN: so many lines of the last errors match.
count() { [ "$(grep -acE "$2" err.txt)" -eq "$1" ] || { fail "not $1 times \"$2\" but:"; cat err.txt; }; }

FIRST=$("$SBIT" run "$DEMO" -p "Once upon a time" --ctx 34 --temp 0 -n 20 2>err.txt)
FIRST=${FIRST#Once upon a time}
LAST=$("$SBIT" run "$DEMO" -p "The dog was very big and very happy to see" --ctx 34 --temp 0 -n 20 2>err.txt)
LAST=${LAST#The dog was very big and very happy to see}
TOO_LONG=$(printf 'the dog ran home %.0s' $(seq 40))
for n in 0 3; do
    says $n "$FIRST" 0 "Once upon a time"
    count 0 'afresh'
    # The second line does not fit behind the first and its answer, so it is as if it stood alone.
    says $n "$FIRST"$'\n'"$LAST" 0 "Once upon a time" "" "The dog was very big and very happy to see"
    count 1 '^sbit: the context of 34 tokens is full: starting afresh'
    says $n "$FIRST"$'\n'"$LAST" 1 "Once upon a time" "$TOO_LONG" "The dog was very big and very happy to see"
    count 1 '^sbit: this line has [0-9]+ tokens but the context holds 34'
    count 1 '^sbit: 1 line of the input did not fit'
done
[ "$(json_get out.json ctx)" = 34 ] || fail "--json: ctx"
finish
