#!/bin/bash
# Checks what no compiler checks: who may include whom, that every header compiles alone, lengths of
# functions, files and lines, white space, leftover notes, and compiler flags that would break
# exactness. Prints one line per finding, "FILE:LINE: what", and fails if there is any.
#
#   tests/style.sh [FOLDER [BUILD-FOLDER]]    of the project (this one), and of its build (build)
#
# Exceptions: kernels/ and files named *_table.c may have long functions and files.
set -uo pipefail
root=${1-$(dirname "$0")/..}
cd "$root" || exit 2
build=${2-build}
cc=${CC-gcc}
findings=$(mktemp)
trap 'rm -f "$findings"' EXIT

finding() { printf '%s\n' "$*" >>"$findings"; }

# files PATTERN...: the project's own files of these names, not what was built or is a model.
files() {
    local names=() pattern
    for pattern in "$@"; do
        names+=(-o -name "$pattern")
    done
    find . \( -name .git -o -name 'build*' -o -path ./models/demo \) -prune \
        -o -type f \( "${names[@]:1}" \) -print | sed 's,^\./,,' | sort
}

# Headers that libc and the compilers have: all that kernels/ may include.
libc='assert|complex|ctype|errno|fenv|float|inttypes|limits|locale|math|setjmp|signal|stdalign'
libc+='|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|string|strings|time|unistd'
libc+='|pthread|sched|sys/auxv|asm/hwcap|cpuid|immintrin|arm_neon|arm_fp16'

# Which folders' headers a file may include.
allowed_folders() {
    case $1 in
    kernels/*) echo 'kernels' ;;
    common/*) echo 'common|proto' ;;
    worker/*) echo 'worker|common|kernels|proto' ;;
    coordinator/main.c) echo 'coordinator|worker|common|kernels|proto' ;;
    coordinator/*) echo 'coordinator|common|proto' ;;
    tools/*) echo 'common|kernels' ;;
    tests/*) echo 'tests|coordinator|worker|common|kernels|proto' ;;
    *) echo 'none' ;;
    esac
}

check_includes() {
    local file folders
    while read -r file; do
        folders=$(allowed_folders "$file")
        awk -v file="$file" -v folders="^($folders)/" -v libc="^($libc)[.]h$" '
            !/^[ \t]*#[ \t]*include/ { next }
            { name = $0; sub(/^[^<"]*[<"]/, "", name); sub(/[>"].*/, "", name) }
            /"/ && name !~ folders { print file ":" FNR ": must not include \"" name "\"" }
            /</ && file ~ /^kernels\// && name !~ libc {
                print file ":" FNR ": kernels include libc only, not <" name ">" }
            /</ && name == "mpi.h" && file != "common/transport_mpi.c" {
                print file ":" FNR ": <mpi.h> belongs in common/transport_mpi.c alone" }
        ' "$file" >>"$findings"
    done < <(files '*.c' '*.h')
}

# Each header by itself, in its folder's compile flags.
check_headers() {
    local header flags
    local libraries
    libraries=$(pkg-config --cflags libprotobuf-c liblz4 libxxhash jansson libpcre2-8 libutf8proc)
    while read -r header; do
        flags=()
        case $header in
        */x86/*)
            [ "$(uname -m)" = x86_64 ] || continue
            flags=(-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
                -mavx512vbmi)
            ;;
        */arm/*) [ "$(uname -m)" = aarch64 ] || continue ;;
        # The macros that the tests' CMake files define.
        tests/*) flags=('-DSBIT_SOURCE_DIR=""' '-DSBIT_SHARED_DIR=""' '-DSBIT_TEST_DIR=""') ;;
        esac
        # shellcheck disable=SC2086  # several flags in one word
        printf '#include "%s"\nextern int style_check;\n' "$header" |
            "$cc" -std=gnu11 -fsyntax-only -Wall -Wextra -Werror -fopenmp "${flags[@]}" -I. \
                -isystem "$build" $libraries -x c - 2>/dev/null ||
            finding "$header:1: does not compile alone"
    done < <(files '*.h')
}

# A function is what stands between a "{" and a "}" in the first column (the project's brace style).
check_lengths() {
    local file
    while read -r file; do
        LC_ALL=C awk -v file="$file" '
            function report(line, what) { print file ":" line ": " what }
            { columns = $0; gsub(/[\200-\277]/, "", columns) }  # UTF-8 continuation bytes
            file !~ /_table\.c$/ && length(columns) > 120 { report(FNR, "over 120 columns") }
            file ~ /^kernels\/|_table\.c$/ { next }
            /^{/ { start = FNR }
            /^}/ && start {
                if (FNR - start - 1 > 100) report(start, "function of " FNR - start - 1 " lines")
                start = 0
            }
            END { if (FNR > 800 && file !~ /^kernels\/|_table\.c$/) report(FNR, "over 800 lines") }
        ' "$file" >>"$findings"
    done < <(files '*.c' '*.h')
}

check_text() {
    local file
    # The patterns are written so that they do not find themselves.
    local note='(^|[^A-Za-z0-9_])(TOD[O]|FIXM[E]|XX[X])([^A-Za-z0-9_]|$)'
    while read -r file; do
        LC_ALL=C awk -v file="$file" -v note="$note" '
            function report(what) { print file ":" FNR ": " what }
            /\r/ { report("carriage return") }
            /[ \t]$/ { report("trailing blank") }
            /\t/ { report("tab") }
            $0 ~ note { report("leftover note") }
        ' "$file" >>"$findings"
        if [ -s "$file" ] && [ -n "$(tail -c 1 "$file")" ]; then
            finding "$file:1: no newline at the end"
        fi
    done < <(files '*.c' '*.h' '*.proto' '*.sh' '*.cmake' CMakeLists.txt CMakePresets.json '*.md' run)
}

# Exactness: the same bits on every CPU (comments may name what is forbidden).
check_flags() {
    local file
    local inexact='-m(arch|tune)=nativ[e]|-ffast-mat[h]|-Ofas[t]|-funsafe-mat[h]|fp-contract=fas[t]'
    while read -r file; do
        sed 's/#.*//' "$file" | grep -nE -e "$inexact" |
            sed "s,^\([0-9]*\):.*,$file:\1: a flag that breaks exactness," >>"$findings"
    done < <(files CMakeLists.txt '*.cmake' CMakePresets.json)
    while read -r file; do
        grep -nE '#pragma.*(fast-mat[h]|Ofas[t]|FP_CONTRACT +ON)' "$file" |
            sed "s,^\([0-9]*\):.*,$file:\1: a pragma that breaks exactness," >>"$findings"
    done < <(files '*.c' '*.h')
}

check_includes
check_headers
check_lengths
check_text
check_flags

if [ -s "$findings" ]; then
    cat "$findings"
    printf 'style: %d findings\n' "$(wc -l <"$findings")"
    exit 1
fi
echo "style: nothing found in $(files '*.c' '*.h' '*.sh' '*.md' | wc -l) files"
