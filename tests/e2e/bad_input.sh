#!/usr/bin/env bash
# Whatever is wrong with the input: one clear sentence on stderr, a non-zero exit, no hang, no partial output.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

DEMO=$ROOT/models/demo
export LC_ALL=C

# refuses PATTERN COMMAND...: fails with one sentence that matches the pattern (extended regular expression).
refuses() {
    local pattern=$1 code lines
    shift
    timeout 60 "$@" >out.txt 2>err.txt </dev/null
    code=$?
    lines=$(grep -a '^sbit: ' err.txt | grep -acv '^sbit: memory of rank') # which says what a job will need
    if [ $code -eq 0 ]; then
        fail "accepted: $*"
    elif [ $code -eq 124 ]; then
        fail "hangs: $*"
    elif [ $code -ge 128 ]; then
        fail "dies of signal $((code - 128)): $*"
    elif [ "$lines" -ne 1 ] || ! grep -aE '^sbit: ' err.txt | grep -qaE "$pattern"; then
        fail "$* does not say \"$pattern\" in one sentence but:"
        cat err.txt
    else
        note "$(grep -a '^sbit: ' err.txt)"
    fi
    leftovers "$*"
}
leftovers() {
    local left
    left=$(find . -name 'new*.gguf*' -o -name '*.part*')
    [ -z "$left" ] || { fail "left behind $left after: $1"; rm -rf new.gguf* ./*.part*; }
}

# poke FILE OFFSET BYTES: overwrites bytes, given as printf escapes.
poke() { printf %b "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
# copy NAME: a fresh copy of the demo folder.
copy() {
    rm -rf "$1"
    cp -r "$DEMO" "$1"
}
run() { refuses "$1" "$SBIT" run "$2" -p "Once" -n 2 "${@:3}"; }

note "-- command line"
refuses 'MODEL' "$SBIT" run
refuses 'no-such-option' "$SBIT" run "$DEMO" --no-such-option
refuses 'bits.*0\.5 to 16 ' "$SBIT" compress "$DEMO" -o new.gguf --bits 0.4
refuses 'bits.*0\.5 to 16 ' "$SBIT" compress "$DEMO" -o new.gguf --bits 16.1
refuses 'bits' "$SBIT" compress "$DEMO" -o new.gguf --bits much
refuses 'method.*zip' "$SBIT" compress "$DEMO" -o new.gguf --method zip
refuses 'output|-o' "$SBIT" compress "$DEMO"
refuses 'recipe.*qep' "$SBIT" compress "$DEMO" -o new.gguf --recipe speed=1
refuses 'qep=2.*0 to 1' "$SBIT" compress "$DEMO" -o new.gguf --recipe qep=2
refuses 'calib none.*exclude' "$SBIT" compress "$DEMO" -o new.gguf --calib none --calib text.txt
refuses 'sign.*never calibrated' "$SBIT" compress "$DEMO" -o new.gguf --method sign --calib text.txt
refuses 'q2_0 needs a calibration text' "$SBIT" compress "$DEMO" -o new.gguf --method q2_0 --calib none
refuses 'frobnicate' "$SBIT" frobnicate

note "-- missing and foreign things"
run 'nowhere' nowhere
run 'nowhere.gguf' nowhere.gguf
mkdir empty
run 'empty.*config.json' empty
printf 'hello, I am a text file' >text.gguf
run 'text.gguf.*GGUF' text.gguf
: >zero.gguf
run 'zero.gguf' zero.gguf
refuses 'nowhere.txt' "$SBIT" eval "$DEMO" --text nowhere.txt
refuses 'nowhere.txt' "$SBIT" run "$DEMO" -f nowhere.txt
mkfifo pipe.gguf
run 'pipe.gguf.*not an ordinary file' pipe.gguf
(
    ulimit -v 4000000
    FAILED=0
    refuses '/dev/zero has more than' "$SBIT" run "$DEMO" -f /dev/zero
    exit "$FAILED"
) || fail "endless text"
refuses 'x\?y.gguf' "$SBIT" run $'x\ny.gguf' -p Once
LONG=$(printf './%.0s' $(seq 1000))
run 'No such file' "$LONG/nowhere.gguf"
copy m && sed -i 's/LlamaForCausalLM/MambaForCausalLM/; s/"llama"/"mamba"/' m/config.json
run 'm/config.json.*[Mm]amba' m
copy m && sed -i 's/"hidden_size": 128/"hidden_size": 99999999999/' m/config.json
run 'm/config.json.*hidden_size' m
copy m && printf '{"architectures": [' >m/config.json
run 'm/config.json' m
copy m && rm m/model.safetensors
run 'm.*safetensors' m
copy m && rm m/tokenizer.json
run 'm.*tokenizer' m

note "-- safetensors"
copy m && sed -i 's/model\.norm\.weight/model.nurm.weight/' m/model.safetensors
run 'model.nurm.weight' m
copy m && sed -i 's/model\.layers\.7\.post_attention_layernorm\.weight/model.layers.7.xxxxxxxxxxx.rotary_emb.inv_freq/' m/model.safetensors
run '(post_attention_layernorm|blk.7.ffn_norm)' m
copy m && sed -i '0,/"shape":\[384,128\]/s//"shape":[192,256]/' m/model.safetensors
run 'ffn_(gate|up).*192' m
copy m && sed -i '0,/"data_offsets":\[524288,524544\]/s//"data_offsets":[524280,524536]/' m/model.safetensors
run 'm/model.safetensors.*overlap' m
copy m && truncate -s 1000000 m/model.safetensors
run 'm/model.safetensors' m
copy m && truncate -s 5 m/model.safetensors
run 'm/model.safetensors' m
copy m && poke m/model.safetensors 0 '\xff\xff\xff\xff\xff\xff\xff\x7f'
run 'm/model.safetensors' m
copy m && poke m/model.safetensors 8 '['
run 'm/model.safetensors' m
copy m && poke m/model.safetensors 3000000 '\xc0\x7f\xc0\x7f'
refuses 'm/model.safetensors.*finite' "$SBIT" compress m -o new.gguf --method code --calib none --bits 1
refuses 'm/model.safetensors.*finite' "$SBIT" compress m -o new.gguf --method q4_0 --calib-tokens 1024
run 'm: .*not finite' m

note "-- tokenizer"
copy m && sed -i '0,/"merges": \[/s//"merges": [ "zzz qqq",/' m/tokenizer.json
run 'm/tokenizer.json.*merge' m
copy m && sed -i 's/"BPE"/"WordPiece"/' m/tokenizer.json
run 'm/tokenizer.json' m
copy m && head -c 20000 "$DEMO/tokenizer.json" >m/tokenizer.json
run 'm/tokenizer.json' m

note "-- our own files"
"$SBIT" compress "$DEMO" -o good.gguf --method code --calib none --bits 1 >log 2>&1 || { cat log; fail compress; finish; }
SIZE=$(stat -c %s good.gguf)
# damaged OFFSET BYTES PATTERN
damaged() {
    cp good.gguf bad.gguf
    poke bad.gguf "$1" "$2"
    cmp -s good.gguf bad.gguf && poke bad.gguf "$1" '\x5a'
    run "$3" bad.gguf
}
damaged 0 'GGML' 'bad.gguf.*GGUF'
damaged 4 '\x63' 'bad.gguf.*version'
damaged 8 '\xff\xff\xff\xff\xff\xff\xff\xff' 'bad.gguf'
damaged 16 '\xff\xff\xff\xff\xff\xff\xff\x7f' 'bad.gguf'
for offset in 24 30 40 100 1000 5000 20000; do
    damaged $offset '\xa5' 'bad.gguf'
done
for share in 50 70 99; do
    damaged $((SIZE * share / 100)) '\xa5\x5a\xa5\x5a' 'bad.gguf.*(hash|damaged)'
done
for share in 1 10 60 99; do
    head -c $((SIZE * share / 100)) good.gguf >bad.gguf
    run 'bad.gguf' bad.gguf
done

note "-- files that do not belong together, or change"
cp good.gguf victim.gguf
refuses 'overwrite victim.gguf' "$SBIT" run victim.gguf -p Once -n 2 --json "$PWD/victim.gguf"
cmp -s good.gguf victim.gguf || fail "--json wrote over the model"
refuses 'overwrite new.gguf' "$SBIT" compress "$DEMO" -o new.gguf --json ./new.gguf
refuses 'UTF-8' "$SBIT" run $'\xff.gguf' -p Once --json report.json
printf 'Once upon a time there was a dog.' >text.txt
if [ -d "$SHARED/models" ]; then # the same number of tokens, most of them other texts
    cp -r "$SHARED/models/stories260K" other
    chmod -R u+w other
    tr aeiostn eiostna <"$SHARED/models/stories260K/tokenizer.model" >other/tokenizer.model
    refuses 'different texts' "$SBIT" eval "$SHARED/models/stories260K" --text text.txt --against other
fi
"$SBIT" compress "$DEMO" -o set.gguf --method q8_0 --calib none --embeddings f32 --shard-size 1M >log 2>&1 || fail "shards"
"$SBIT" run set-00003-of-00003.gguf -p Once -n 2 >log 2>&1 || fail "the last shard does not stand for the set"
copy m && poke m/model.safetensors 3000000 '\x80\x3c' # another model of the same shape
"$SBIT" compress m -o mixed.gguf --method q8_0 --calib none --embeddings f32 --shard-size 1M >log 2>&1 || fail "shards"
cp set-00002-of-00003.gguf mixed-00002-of-00003.gguf
run 'mixed-00002-of-00003.gguf: file 2 of 3 belongs to another compression' mixed-00001-of-00003.gguf
(sleep 2 && echo Once && sleep 2) | "$SBIT" run victim.gguf -n 2 >out.txt 2>err.txt &
sleep 1
truncate -s 1000 victim.gguf
wait $! && fail "runs on with a file cut short"
grep -q '^sbit: .*cut short' err.txt || { fail "no sentence about a file cut short but:"; cat err.txt; }
LONG=$(printf 'the dog ran home %.0s' $(seq 200))
refuses 'context|--ctx' "$SBIT" run "$DEMO" -p "$LONG" --ctx 64
refuses 'good.gguf' "$SBIT" compress good.gguf -o new.gguf --method q8_0 --calib none

note "-- questions"
# asks PATTERN LINE: a good question, then this line; the sentence names the second line.
asks() {
    printf '%s\n%s\n' '{"question": "A dog", "choices": ["ran", "sat"], "answer": 0}' "$2" >tasks.jsonl
    refuses "tasks.jsonl, line 2.*$1" "$SBIT" eval "$DEMO" --tasks tasks.jsonl "${@:3}"
}
asks 'not valid JSON' '{"question": "A dog"'
asks 'choices' '{"question": "A dog", "choices": ["ran"], "answer": 0}'
asks 'empty' '{"question": "A dog", "choices": ["ran", ""], "answer": 0}'
asks 'answer.*0 to 1' '{"question": "A dog", "choices": ["ran", "sat"], "answer": 2}'
asks 'tokens but the context holds 512' \
    "{\"question\": \"$(printf 'the dog ran home %.0s' $(seq 200))\", \"choices\": [\"ran\", \"sat\"], \"answer\": 0}"
asks 'give --ctx 7' '{"question": "A dog and a cat", "choices": ["ran", "sat"], "answer": 0}' --ctx 6
refuses 'nowhere.jsonl' "$SBIT" eval "$DEMO" --tasks nowhere.jsonl
refuses 'no questions' "$SBIT" eval "$DEMO" --tasks /dev/null
refuses 'overwrite tasks.jsonl' "$SBIT" eval "$DEMO" --tasks tasks.jsonl --json ./tasks.jsonl
refuses 'exclude' "$SBIT" eval "$DEMO" --tasks tasks.jsonl --text text.txt

note "-- calibration text"
printf 'Once upon a time\0there was' >nul.txt
refuses 'nul.txt.*NUL bytes' "$SBIT" compress "$DEMO" -o new.gguf --calib nul.txt
refuses 'nowhere.txt' "$SBIT" compress "$DEMO" -o new.gguf --calib nowhere.txt
refuses '/dev/null holds 0 tokens' "$SBIT" compress "$DEMO" -o new.gguf --calib /dev/null
printf x >one.txt
refuses 'one.txt holds 1 token:' "$SBIT" compress "$DEMO" -o new.gguf --calib one.txt
refuses 'calib-ctx 513.*512 positions' "$SBIT" compress "$DEMO" -o new.gguf --calib-ctx 513
refuses 'standard input holds 0' "$SBIT" compress "$DEMO" -o new.gguf --calib -
refuses 'overwrite page.html' "$SBIT" compress "$DEMO" -o new.gguf --html page.html --json ./page.html
refuses 'cannot write no/such/page.html' "$SBIT" compress "$DEMO" -o new.gguf --html no/such/page.html
refuses 'overwrite text.txt' "$SBIT" compress "$DEMO" -o new.gguf --calib text.txt --html text.txt
# Nor do reports replace a file of the model's folder, weights, or what an unfinished compression has left.
cp -rL "$DEMO" source && chmod -R u+w source
refuses 'html source/config.json would overwrite' "$SBIT" compress source -o new.gguf --html source/config.json
refuses 'json source/tokenizer.json would overwrite' "$SBIT" inspect source --json source/tokenizer.json
refuses 'json config.json would overwrite' sh -c 'cd source && exec "$1" inspect . --json config.json' sh "$SBIT"
refuses 'name of a file of weights' "$SBIT" compress source -o new.gguf --json source/model.safetensors
refuses 'name of a file of weights' "$SBIT" compress source -o new.gguf --json new-00001-of-00002.gguf
refuses 'json new.gguf.part would overwrite' "$SBIT" compress source -o new.gguf --json new.gguf.part
refuses 'html ./new.gguf.journal would overwrite' "$SBIT" compress source -o new.gguf --html ./new.gguf.journal
cmp source/config.json "$DEMO/config.json" || fail "config.json has changed"
rm -r source
echo precious >keep.part
"$SBIT" inspect "$DEMO" --json keep >log 2>&1 || { fail "inspect --json keep"; cat log; }
[ "$(cat keep.part)" = precious ] || fail "a report has removed keep.part"
rm -f keep keep.part
# What is no UTF-8 is used, but said to be none; a character that the end cuts off is as good as whole.
printf 'Once upon a time there was a caf\xe9.\xff\xfe Once upon a time there was a dog.' >latin.txt
printf 'Once upon a time there was a caf\xc3\xa9 \xc3' >cut.txt
FOREIGN='^sbit: 3 of the 70 bytes of latin.txt are no UTF-8, the first at offset 32'
"$SBIT" compress "$DEMO" -o new.gguf --dry-run --calib latin.txt >log 2>&1 || { cat log; fail "a text in Latin-1"; }
grep -qE "$FOREIGN" log || { fail "does not say that a calibration text is no UTF-8"; cat log; }
"$SBIT" eval "$DEMO" --text latin.txt >log 2>&1 || { cat log; fail "a text in Latin-1 to score"; }
grep -qE "$FOREIGN" log || { fail "does not say that a text is no UTF-8"; cat log; }
"$SBIT" eval "$DEMO" --text - <latin.txt 2>&1 | grep -q 'bytes of standard input are no UTF-8' || fail "standard input"
"$SBIT" eval "$DEMO" --text cut.txt >log 2>&1 || { cat log; fail "a text that was cut"; }
grep -q UTF-8 log && { fail "a text that was cut"; cat log; }
# Too short a text is used, but said to be.
printf 'the dog ran home %.0s' $(seq 20) >short.txt
"$SBIT" compress "$DEMO" -o new.gguf --method q8_0 --calib short.txt --recipe descent=0,rounds=1 >log 2>&1 ||
    { cat log; fail "a short calibration text"; }
grep -q 'fewer than the 131072 asked for' log || fail "does not say that a text is shorter than asked for"
grep -q 'say little' log || fail "does not say that a text is too short"
rm -f new.gguf

note "-- output"
refuses 'no/such/folder|such' "$SBIT" compress "$DEMO" -o no/such/folder/new.gguf --method q8_0 --calib none
mkdir -p folder.gguf
refuses 'folder.gguf' "$SBIT" compress "$DEMO" -o folder.gguf --method q8_0 --calib none
refuses 'name of a file' "$SBIT" compress "$DEMO" -o - --method q8_0 --calib none
[ ! -e ./- ] || fail "-o - makes a file named -"
copy m
ln m/tokenizer.json hard.gguf
ln -s m/config.json soft.gguf
for own in m/model.safetensors m/config.json ./m/../m/tokenizer.json hard.gguf soft.gguf; do
    refuses "$own is a file that this compression reads" "$SBIT" compress m -o "$own" --method q8_0 --calib none
done
diff -r m "$DEMO" || fail "the source is another one now"
refuses 'set-00002-of-00003.gguf is a file that this compression reads' \
    "$SBIT" compress set-00001-of-00003.gguf -o set-00002-of-00003.gguf --method q4_0 --calib none
refuses 'set-00001-of-00003.gguf is a file that this compression reads' \
    "$SBIT" compress set-00002-of-00003.gguf -o set.gguf --method q8_0 --calib none --embeddings f32 --shard-size 1M
for _ in 1 2; do
    "$SBIT" compress m -o m/small.gguf --method q8_0 --calib none >log 2>&1 ||
        fail "an older output in the folder of the source cannot be replaced"
done
rm -f hard.gguf soft.gguf
: >kept
ln -s /dev/fd/9 soft.gguf
refuses 'soft.gguf.*device' "$SBIT" compress "$DEMO" -o soft.gguf --method q8_0 --calib none 9>>kept
ln -sf nothing soft.gguf
refuses 'soft.gguf is a symbolic link to .*nothing' "$SBIT" compress "$DEMO" -o soft.gguf --method q8_0 --calib none
ln -sf kept soft.gguf
"$SBIT" compress "$DEMO" -o soft.gguf --method q8_0 --calib none >log 2>&1
[ -L soft.gguf ] || fail "a symbolic link as output is replaced"
"$SBIT" run kept -p Once -n 2 >log 2>&1 || fail "a symbolic link as output is not followed"
mkdir -p shards/set-00002-of-00003.gguf
refuses 'set-00002-of-00003.gguf is a folder' \
    "$SBIT" compress "$DEMO" -o shards/set.gguf --method q8_0 --calib none --embeddings f32 --shard-size 1M
rm -r shards
copy m && poke m/model.safetensors 3000000 '\x4a\x71'
for method in code sign q8_0 q4_0; do
    refuses 'm/model.safetensors: tensor blk.* beyond what' "$SBIT" compress m -o new.gguf --method $method --calib none --outliers 0
done
(
    trap '' XFSZ
    ulimit -f 100
    FAILED=0
    refuses 'new.gguf' "$SBIT" compress "$DEMO" -o new.gguf --method q8_0 --calib none
    exit "$FAILED"
) || fail "full disk (file size limit)"
mkdir disk
if mount -t tmpfs -o size=200k none disk 2>/dev/null; then
    refuses 'new.gguf.*space' "$SBIT" compress "$DEMO" -o disk/new.gguf --method q8_0 --calib none
    [ -z "$(ls disk)" ] || fail "left on the full disk: $(ls disk)"
    umount disk
fi

note "-- streams"
"$SBIT" run good.gguf -p Once -n 2 >&- 2>err.txt && fail "standard output is closed, and nobody minds"
grep -q '^sbit: cannot write to standard output' err.txt || fail "closed standard output"
"$SBIT" compress "$DEMO" -o blind.gguf --method q8_0 --calib none <&- >&- 2>&-
"$SBIT" compress "$DEMO" -o seen.gguf --method q8_0 --calib none >log 2>&1
cmp blind.gguf seen.gguf || fail "without standard streams the file is another one"
"$SBIT" compress "$DEMO" -o piped.gguf --method q8_0 --calib none >log 2>&1 &
while kill -0 $! 2>/dev/null && ! ls piped.gguf.part* >/dev/null 2>&1; do :; done
kill -PIPE $! 2>/dev/null # what it gets when the reader of its messages goes away
wait $! || fail "a lost reader of messages ends compress"
cmp piped.gguf seen.gguf || fail "a lost reader of messages changes the file"
leftovers "a lost reader of messages"
rm -f blind.gguf seen.gguf piped.gguf

note "-- ranks"
refuses 'nowhere' mpirun -n 3 "$SBIT" run nowhere -p Once -n 2
refuses 'bits' mpirun -n 3 "$SBIT" compress "$DEMO" -o new.gguf --bits 17
# Ranks that were given different words: all hear of it at once.
GOOD=("$SBIT" compress "$DEMO" -o new.gguf --method q8_0 --calib none --timeout 1000)
refuses 'rank [12][ :].*--bits 17' mpirun -n 1 "${GOOD[@]}" : -n 2 "$SBIT" compress "$DEMO" -o new.gguf --bits 17
refuses '^sbit: --bits 17' mpirun -n 1 "$SBIT" compress "$DEMO" -o new.gguf --bits 17 : -n 2 "${GOOD[@]}"
# Two ranks that start in the folders rank0 and rank1, as on machines that hold different files.
apart() {
    # shellcheck disable=SC2016
    refuses "$1" mpirun -n 2 bash -c 'cd "$0/rank$OMPI_COMM_WORLD_RANK" && exec "$@"' "$WORK" \
        "$SBIT" run model.gguf -p Once -n 2
}
mkdir rank0 rank1
cp good.gguf rank0/model.gguf
apart 'rank 1 .*No such file'
"$SBIT" compress "$DEMO" -o rank1/model.gguf --method q8_0 --calib none >log 2>&1
apart 'rank 1 .*another model|same file'
cp good.gguf rank1/model.gguf
poke rank1/model.gguf $((SIZE * 9 / 10)) '\xa5\x5a\xa5\x5a'
apart 'rank 1 .*(hash|damaged)'
timeout 60 mpirun -n 10 "$SBIT" run good.gguf -p Once -n 2 >out.txt 2>err.txt || fail "10 ranks for 8 blocks"
grep -qa 'idle' err.txt || fail "10 ranks for 8 blocks: nobody says that some stay idle"

# pid_of RANK: the process of that rank of the job started last.
pid_of() {
    local process
    for process in /proc/[0-9]*; do
        [ "$(cat "$process/comm" 2>/dev/null)" = sbit ] && [ "$(readlink "$process/cwd")" = "$WORK" ] &&
            tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -q "^OMPI_COMM_WORLD_RANK=$1\$" &&
            echo "${process#/proc/}" && return
    done
}
# loses SIGNAL RANK PATTERN: a job whose rank gets that signal ends by itself with a useful message.
loses() {
    local job pid code
    rm -f out.txt # or the words of the job before would pass for this one's
    timeout 60 mpirun -n 3 "$SBIT" run good.gguf -p "Once upon a time" -n 100000 --ctx 100100 --ignore-eos \
        --timeout 4 >out.txt 2>err.txt </dev/null &
    job=$!
    for _ in $(seq 200); do
        pid=$(pid_of "$2")
        [ -s out.txt ] && [ -n "$pid" ] && break
        sleep 0.1
    done
    if [ -z "$pid" ]; then
        fail "rank $2 not found"
        kill $job
        return
    fi
    kill "-$1" "$pid"
    wait $job
    code=$?
    kill -CONT "$pid" 2>/dev/null && kill -KILL "$pid" 2>/dev/null
    if [ $code -eq 0 ] || [ $code -eq 124 ]; then fail "rank $2 got $1 and mpirun exits with $code"; fi
    grep -qaE "$3" err.txt || { fail "rank $2 got $1: no message like $3 but:"; cat err.txt; }
    note "rank $2 got $1: exit $code, $(grep -aE "$3" err.txt | head -n 1)"
}
# Nobody is silent while the user types.
(sleep 5 && echo Once) | mpirun -n 2 "$SBIT" run good.gguf -f - -n 2 --timeout 2 >out.txt 2>err.txt ||
    { fail "slow standard input:"; cat err.txt; }
loses KILL 2 'rank 2|signal 9'
loses KILL 1 'rank 1|signal 9'
loses STOP 2 'rank 2 .*not answered'
finish
