#!/bin/sh
# Usage: failure.sh PHRASE COMMAND...: the command (mpirun) must fail, and say PHRASE. Its own time limit
# (MPIEXEC_TIMEOUT) makes it end without the phrase when it hangs.
phrase=$1
shift
output=$("$@" 2>&1)
code=$?
printf '%s\nexit code %s\n' "$output" "$code"
if [ "$code" -eq 0 ]; then
    echo "FAILED: exit code 0"
    exit 1
fi
case $output in
*"$phrase"*) ;;
*)
    echo "FAILED: nobody said \"$phrase\""
    exit 1
    ;;
esac
