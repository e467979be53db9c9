#!/bin/bash
# What the inner loops of the AArch64 kernels would reach on the cores of a Raspberry Pi 4 (Cortex-A72) and 5
# (Cortex-A76), where there is no board to measure on: compiles the kernels to assembly, takes each operation's
# hottest loop from it and asks llvm-mca for its cycles, data in the first-level cache. Predictions.
#
#   tests/bench/mca.sh                  needs gcc-aarch64-linux-gnu (or CC) and llvm (llvm-mca, or LLVM_MCA)
#
# LLVM describes both cores as a Cortex-A57. Its Neoverse N1 is the A76 for servers, and newer releases (19 does)
# describe it on its own; where llvm-mca knows it, it stands for the A76 as well. These cores take in fewer
# instructions per cycle than they execute at best: the cycles are at least instructions / 3 (A72), / 4 (A76, N1)
# and / 5 (N2, a server core with SMMLA).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cc=${CC-aarch64-linux-gnu-gcc}
mca=${LLVM_MCA-}
iterations=1000

if [ -z "$mca" ]; then # the newest one
    mca=$(compgen -c llvm-mca | grep -E '^llvm-mca(-[0-9]+)?$' | sort -t- -k3 -n | tail -1 || true)
fi
for tool in "${cc%% *}" "${mca:-llvm-mca}"; do
    if ! command -v "$tool" >/dev/null; then
        echo "mca.sh: $tool is missing; install gcc-aarch64-linux-gnu and llvm" >&2
        exit 77
    fi
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# assembly FILE FLAGS...: $work/FILE.s
assembly() {
    local file=$1
    shift
    # shellcheck disable=SC2086 # CC may carry options
    $cc -std=gnu11 -O3 -ffp-contract=off -I"$root" "$@" -S "$root/kernels/arm/$file.c" \
        -o "$work/$file.s"
}

# loop FILE FUNCTION MUST NOT KEY [MOST]: of FUNCTION's innermost loops (* for any function) that contain an
# instruction like MUST and none like NOT, the one with most instructions like KEY (MOST at most), to
# $work/loop.s; prints how many KEYs it has.
loop() {
    awk -v function_name="$2" -v must="$3" -v not="$4" -v key="$5" -v limit="${6-1000}" \
        -v out="$work/loop.s" '
    function target(s,   w) {
        sub(/[ \t]*(\/\/.*)?$/, "", s)
        return s ~ /^\t(b[a-z.]*|cbn?z|tbn?z)[ \t].*\.L[^ \t,]+$/ ? substr(s, match(s, /\.L[^ \t,]+$/)) : ""
    }
    function innermost(first, last,   i) {
        for (i = first; i < last; i++)
            if (target(line[i]) != "")
                return 0
        return 1
    }
    function consider(first, last,   i, keys, found, bad, text) {
        for (i = first; i <= last; i++) {
            if (line[i] !~ /^\t[a-z]/)
                continue
            text = text line[i] "\n"
            keys += line[i] ~ key
            found += line[i] ~ must
            bad += not != "" && line[i] ~ not
        }
        if (found && !bad && keys > most && keys <= limit) {
            most = keys
            best = text
        }
    }
    function scan(   i, t) {
        for (i = 0; i < n; i++) {
            t = target(line[i])
            if (t in label && label[t] < i && innermost(label[t] + 1, i))
                consider(label[t] + 1, i)
        }
    }
    /^\t\.type.*(%|@)function/ {
        split($2, name, ",")
        inside = function_name == "*" || name[1] == function_name
        n = 0
        split("", label)
        next
    }
    /^\t\.size/ { if (inside) scan(); inside = 0 }
    inside && /^\.L[0-9A-Za-z_]+:/ { label[substr($1, 1, index($1, ":") - 1)] = n }
    inside { line[n++] = $0 }
    END {
        if (!most)
            exit 1
        printf "%s", best > out
        print most
    }' "$work/$1.s"
}

# cycles CPU WIDTH: of one iteration of $work/loop.s; instructions before it.
cycles() {
    "$mca" -march=aarch64 -mcpu="$1" -mattr=+dotprod,+i8mm -iterations=$iterations \
        -resource-pressure=0 -instruction-info=0 "$work/loop.s" |
        awk -v n=$iterations -v width="$2" '
        /^Instructions:/ { instructions = $2 / n }
        /^Total Cycles:/ { cycles = $3 / n }
        END {
            if (!cycles) exit 1
            if (cycles < instructions / width) cycles = instructions / width
            printf "%d %.2f\n", instructions, cycles
        }'
}

# Whether this llvm-mca describes the Neoverse N1 otherwise than a Cortex-A57.
knows_n1() {
    local of
    for of in cortex-a57 neoverse-n1; do
        printf 'tbl v0.16b, {v16.16b-v19.16b}, v1.16b\n' |
            "$mca" -march=aarch64 -mcpu=$of -iterations=100 2>/dev/null | grep '^Total Cycles' || true
    done | uniq | wc -l | grep -qx 2
}

# row NAME FILE FUNCTION MUST NOT KEY WEIGHTS [MOST]: a line of the table for each core; WEIGHTS: multiplications by a
# weight that one KEY does.
row() {
    local name=$1 weights=$7 keys core width clocks result
    keys=$(loop "${@:2:5}" ${8+"$8"}) || { echo "mca.sh: no loop of $name in $2" >&2; exit 1; }
    for core in $cores; do
        width=4 clocks=2.4
        case $core in
        cortex-a72) width=3 clocks='1.5 1.8' ;;
        neoverse-n2) width=5 clocks=3.0 ;;
        esac
        result=$(cycles "$core" "$width")
        awk -v name="$name" -v core="$core" -v keys="$keys" -v weights="$weights" \
            -v result="$result" -v clocks="$clocks" 'BEGIN {
            split(result, r, " ")
            per = keys * weights / r[2]
            k = split(clocks, c, " ")
            speed = sprintf("%.0f at %s GHz", per * c[1], c[1])
            if (k > 1) speed = speed sprintf(", %.0f at %s", per * c[2], c[2])
            printf "| %-22s | %-11s | %3d | %6.1f | %5.1f | %-24s |\n", name, core, r[1], r[2], per, speed
            print name "|" core "|" per >> "'"$work/rates"'"
        }'
    done
}

# The operations of one instruction set. PRODUCT: its multiplication of bytes, which does WEIGHTS.
operations() {
    local isa=$1 product=$2 weights=$3 type
    for type in q8_0 q4_0 q2_0; do
        row "$type, 1 token" "product_block_$isa" "kernels_product_${type}_$isa" fcvtl '' \
            "$product" "$weights"
    done
    row "q8_0, many tokens" "product_block_$isa" "kernels_product_q8_0_$isa" "$product" fcvtl \
        "$product" "$weights"
    row "f16, 1 token" product_float_neon kernels_product_f16_neon fcvtl '' fmla 4 8
    row "f16, many tokens" product_float_neon kernels_product_f16_neon fcvtl '' fmla 4
}

# decode BOARD CORE GHZ GB/S: tokens per second of models, one after the other and in a prompt, from the rates of
# the table: four cores, and the memory's bandwidth over the bytes of a token; the larger time counts, for the
# blocks and for the head, which is q8_0. Attention and the small operations are left out.
decode() {
    awk -F'|' -v board="$1" -v core="$2" -v clock="$3" -v bus="$4" '
    FNR == NR { rate[$1 "|" $2] = $3 * 4 * clock; next }
    function seconds(weights, type, bytes,   compute, memory) {
        compute = weights / (rate[type ", 1 token|" core] * 1e9)
        memory = weights * bytes / (bus * 1e9)
        bound = compute > memory ? "cores" : "bus"
        return compute > memory ? compute : memory
    }
    function cell(type, bytes,   head, blocks) {
        head = seconds($3 * 1e6, "q8_0", 34 / 32)
        blocks = seconds($2 * 1e6, type, bytes)
        return sprintf(" %.1f %s |", 1 / (blocks + head), bound)
    }
    function prompt(type) { return sprintf(" %.0f |", rate[type "|" core] * 1e3 / $2) }
    {
        print "| " $1 " | " board " |" cell("code d = 8", 1 / 8) cell("code d = 16", 1 / 16) \
            cell("q4_0", 18 / 32) cell("q8_0", 34 / 32) prompt("code, many tokens") \
            prompt("q8_0, many tokens")
    }' "$work/rates" - <<END
TinyLlama-1.1B|969|66
Llama-3.2-1B|973|263
Llama-3.2-3B|2819|394
Mistral-7B|6979|131
END
}

assembly product_code_neon
assembly product_block_neon
assembly product_float_neon
assembly product_code_dotprod -march=armv8.2-a+dotprod
assembly product_block_dotprod -march=armv8.2-a+dotprod
assembly product_code_i8mm -march=armv8.2-a+dotprod+i8mm

echo "$("$mca" --version | grep -o 'LLVM version .*'), $($cc --version | head -1)"
echo
echo "| loop | core | instructions | cycles | weights per cycle | G weights/s per core |"
echo "|---|---|---:|---:|---:|---|"
cores=cortex-a72
row "code d = 8, 1 token" product_code_neon '*' ubfx smlal2 '\t(smull|smlal)\t' 8
row "code d = 16, 1 token" product_code_neon look_up ldr '' 'ldr\t[sw][0-9]+, \[x[0-9]+, x[0-9]+, lsl 2' 16
row "code, many tokens" product_code_neon '*' smlal2 ubfx smlal2 16
row "q1_0, 1 token" product_block_neon kernels_product_q1_0_neon fcvtl '' 'sadalp\tv[0-9]+.8h' 16
operations neon '\t(smull|smlal)2?\t' 8
cores=cortex-a76
! knows_n1 || cores+=' neoverse-n1'
row "code d = 8, 1 token" product_code_dotprod '*' ubfx '' 'sdot\tv[0-9]+.2s' 8
row "code d = 16, 1 token" product_code_dotprod '*' ubfx '' 'sdot\tv[0-9]+.4s' 16
row "code, many tokens" product_code_dotprod '*' sdot ubfx 'sdot\tv[0-9]+.4s' 16
row "q1_0, 1 token" product_block_dotprod kernels_product_q1_0_dotprod fcvtl '' sdot 16
operations dotprod sdot 16
if knows_n1; then # and a core with SMMLA
    cores=neoverse-n2
    row "code, tokens, sdot" product_code_dotprod '*' sdot ubfx 'sdot\tv[0-9]+.4s' 16
    row "code, tokens, smmla" product_code_i8mm '*' smmla ubfx smmla 32
fi

big=neoverse-n1
knows_n1 || big=cortex-a76
echo
echo "Tokens per second by these figures, and what bounds the blocks (Pi 4: 4 GB/s, Pi 5: 10 GB/s of $big)"
echo
echo "| model | board | code 1.0 bits | code 0.5 bits | q4_0 | q8_0 | prompt, code | prompt, q8_0 |"
echo "|---|---|---|---|---|---|---:|---:|"
decode "Pi 4, 1.5 GHz" cortex-a72 1.5 4
decode "Pi 4, 1.8 GHz" cortex-a72 1.8 4
decode "Pi 5, 2.4 GHz" "$big" 2.4 10
