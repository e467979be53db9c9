#!/bin/bash
# Proves that tests/style.sh can fail: a small clean tree passes, and each single fault put into it is
# found under the right name.
set -euo pipefail
style=$(realpath "$(dirname "$0")/style.sh")
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

make_clean_tree() {
    rm -rf "$tree"
    mkdir -p "$tree"/{kernels/x86,common,worker,coordinator,tests/unit,build}
    cd "$tree"
    printf '#include <stdint.h>\nint64_t add(int64_t a, int64_t b);\n' >kernels/add.h
    printf '#include "kernels/add.h"\n#include <math.h>\n' >kernels/add.c
    printf '#pragma once\n' >common/error.h
    printf '#include "common/error.h"\n#include <mpi.h>\n' >common/transport_mpi.c
    printf '#include "common/error.h"\n#include "kernels/add.h"\n' >worker/worker.c
    printf '#include "common/error.h"\n#include "worker/worker.h"\n' >coordinator/main.c
    printf '#pragma once\n' >worker/worker.h
    printf '#include "worker/worker.h"\n' >tests/unit/test.c
    printf '# never -ffast-%s here\nproject(clean)\n' math >CMakeLists.txt
    printf 'text\n' >README.md
}

# repeat N LINE
repeat() { awk -v n="$1" -v line="$2" 'BEGIN { for (i = 0; i < n; i++) print line }'; }

# function_of N: a function of N lines.
function_of() {
    printf 'void f(void)\n{\n'
    repeat "$1" '    g();'
    printf '}\n'
}

accepts() {
    if ! output=$("$style" "$tree" build); then
        printf 'FAILED: %s is refused: %s\n' "$1" "$output"
        failures=$((failures + 1))
    fi
}

# refuses WHAT MESSAGE: the tree as it is now, which is then clean again.
refuses() {
    local output
    if output=$("$style" "$tree" build); then
        printf 'FAILED: %s is not found\n' "$1"
        failures=$((failures + 1))
    elif [ "$(grep -c . <<<"$output")" -ne 2 ] || ! grep -qF -e "$2" <<<"$output"; then
        printf 'FAILED: %s: expected one finding "%s", got: %s\n' "$1" "$2" "$output"
        failures=$((failures + 1))
    fi
    make_clean_tree
}

make_clean_tree
accepts "the clean tree"

echo '#include "common/error.h"' >>kernels/add.c
refuses "kernels including common" 'kernels/add.c:3: must not include "common/error.h"'
echo '#include <jansson.h>' >>kernels/add.c
refuses "kernels including a library" 'kernels include libc only, not <jansson.h>'
echo '#include "worker/worker.h"' >>common/transport_mpi.c
refuses "common including worker" 'must not include "worker/worker.h"'
echo '#include "worker/worker.h"' >coordinator/plan.c
refuses "coordinator including worker" 'coordinator/plan.c:1: must not include'
echo '#include "error.h"' >common/other.c
refuses "an include not from the root" 'must not include "error.h"'
echo '#include <mpi.h>' >>worker/worker.c
refuses "a second <mpi.h>" '<mpi.h> belongs in common/transport_mpi.c alone'
echo 'size_t length(void);' >common/alone.h
refuses "a header that needs another" 'common/alone.h:1: does not compile alone'

function_of 100 >worker/long.c
accepts "a function of 100 lines"
function_of 101 >worker/long.c
refuses "a function of 101 lines" 'worker/long.c:2: function of 101 lines'
function_of 101 >kernels/long.c
accepts "a long kernel"
repeat 801 'int x;' >worker/big.c
refuses "a file of 801 lines" 'over 800 lines'
repeat 801 'int x;' >worker/big_table.c
accepts "a long table"
printf '// %0120d\n' 0 >worker/wide.c
refuses "a line of 123 columns" 'over 120 columns'

printf 'int x; \n' >worker/blank.c
refuses "a trailing blank" 'trailing blank'
printf '\tint x;\n' >worker/tab.c
refuses "a tab" 'worker/tab.c:1: tab'
printf 'int x;\r\n' >worker/cr.c
refuses "a carriage return" 'carriage return'
printf 'int x;' >worker/end.c
refuses "a missing last newline" 'no newline at the end'
printf '// %sDO: later\n' TO >worker/note.c
refuses "a leftover note" 'leftover note'
printf 'add_compile_options(-march=%s)\n' native >>CMakeLists.txt
refuses "a flag for one CPU only" 'a flag that breaks exactness'
printf '#pragma GCC optimize("%s")\n' Ofast >worker/pragma.c
refuses "a pragma for inexact arithmetic" 'a pragma that breaks exactness'

[ $failures -eq 0 ] || exit 1
echo "style: all faults are found"
