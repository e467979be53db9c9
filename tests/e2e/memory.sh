#!/usr/bin/env bash
# A rank's peak memory: below its share of the model plus, on rank 0, the embeddings, plus 64 MiB, while
# running; plus one largest matrix in F32 (factor 1) while compressing. The model is generated: 400 MB, 16 blocks.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

MIB=1048576
RANKS=4
"$TOOLS/make_model" "$ROOT/models/demo" big.gguf 16 1024 3072 16 8 || { fail "make_model"; finish; }
BYTES=$(stat -c %s big.gguf)
EMBEDDINGS=$((2048 * 1024 * 2))
MATRIX=$((3072 * 1024 * 4))

# below FILE LIMIT WHAT: every rank's peak_rss_bytes in the report is below the limit (rank 0: plus embeddings).
below() {
    local rank=0 peak limit
    while read -r peak; do
        limit=$2
        [ $rank -eq 0 ] && limit=$((limit + EMBEDDINGS))
        note "$3: rank $rank peak $((peak / MIB)) MiB, limit $((limit / MIB)) MiB"
        [ "$peak" -lt "$limit" ] || fail "$3: rank $rank used $peak bytes, limit $limit"
        rank=$((rank + 1))
    done < <(sed -n 's/.*"peak_rss_bytes": \([0-9]*\).*/\1/p' "$1")
    [ $rank -eq $RANKS ] || fail "$3: $rank ranks reported instead of $RANKS"
}

transport shared
ranks $RANKS "$SBIT" run big.gguf -p "Once upon a time" -n 4 --temp 0 --json run.json >out.txt 2>err.txt ||
    { cat err.txt; fail "run"; }
below run.json $((BYTES / RANKS + 64 * MIB)) run
for method in code sign q4_0; do
    ranks $RANKS "$SBIT" compress big.gguf -o small.gguf --method $method --calib none --json compress.json >out.txt 2>err.txt ||
        { cat err.txt; fail "compress --method $method"; }
    below compress.json $((BYTES / RANKS + MATRIX + 64 * MIB)) "compress $method"
done
finish
