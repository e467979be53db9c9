#!/usr/bin/env bash
# tests/bench/make_7b: generated folders are read as published ones are, in several shards; the same arguments give
# the same bytes; fewer blocks are the first ones; activations stay finite. In a small shape, for time.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# generate FOLDER OPTION...
generate() { "$TOOLS/make_7b" "$ROOT/models/demo" "$@" --shape demo --shard-mb 1 || fail "make_7b $*"; }
# rows FOLDER PATTERN: the rows of sbit inspect that match.
rows() { "$SBIT" inspect "$1" 2>err.txt | grep -E "$2" || { cat err.txt; fail "inspect $1 lists no $2"; }; }

generate all
generate again --seed 1
generate other --seed 2
generate two --blocks 2
diff -r all again || fail "the same arguments give other files"
cmp -s all/model-00001-of-00004.safetensors other/model-00001-of-00004.safetensors && fail "--seed changes nothing"
diff all/config.json two/config.json | grep -c '^[<>]' | grep -qx 2 || fail "--blocks changes more than the number of blocks"
rows two 'source|blocks|parameters'
[ "$(rows two 'blk')" = "$(rows all 'blk[.][01][.]')" ] || fail "the two blocks have other shapes"
[ "$(rows all 'blk.*q.weight' | wc -l)" -eq 8 ] || fail "not 8 blocks"

cmp all/model-00001-of-*.safetensors two/model-00001-of-*.safetensors || fail "the first blocks are others"

for model in all two; do
    "$SBIT" compress $model -o $model.gguf --method q8_0 --calib none >log 2>&1 || { cat log; fail "compress $model"; }
done
printf 'Once upon a time there was a dog who liked to play.' >text.txt
for model in all two two.gguf; do
    "$SBIT" eval $model --text text.txt --json out.json >out.txt 2>err.txt || { cat err.txt; fail "eval $model"; }
    perplexity=$(json_get out.json perplexity)
    note "$model: perplexity $perplexity"
    # Logits of about Gaussian size say nothing about 2048 tokens.
    awk -v p="$perplexity" 'BEGIN { exit !(p > 200 && p < 200000) }' || fail "$model: perplexity $perplexity"
done
# Without weights: the same sizes, no room on the disk.
generate empty --empty
for file in all/*; do
    [ "$(stat -c %s "$file")" = "$(stat -c %s "empty/${file#all/}")" ] || fail "$file has another size with --empty"
done
[ "$(du -s --block-size=1 empty | cut -f 1)" -lt 1500000 ] || fail "--empty takes room"
"$SBIT" compress empty -o no.gguf --calib none --dry-run >out.txt 2>err.txt || { cat err.txt; fail "--dry-run of an empty folder"; }
"$SBIT" compress all -o all8.gguf --calib none >log 2>&1 || { cat log; fail "compress all"; }
size=$(stat -c %s all8.gguf)
grep -q "the whole file: $(awk -v s="$size" 'BEGIN { printf "%.1f MB", s / 1e6 }'), .* times smaller than F32" out.txt ||
    { cat out.txt; fail "--dry-run tells another size than the $size bytes written"; }
"$SBIT" run two -p "Once upon" -n 4 --temp 0 >out.txt 2>err.txt || { cat err.txt; fail "run"; }
"$TOOLS/make_7b" "$ROOT/models/demo" bad --shape nonsense 2>err.txt && fail "accepts any shape"
grep -q 'there is no shape' err.txt || { fail "no sentence about shapes but:"; cat err.txt; }
"$TOOLS/make_7b" "$ROOT/models/demo" no/such/folder --shape demo 2>err.txt && fail "writes nowhere"
grep -q 'no/such/folder' err.txt || { fail "no sentence about the folder but:"; cat err.txt; }
finish
