#!/usr/bin/env bash
# sbit eval --tasks: the same answers for any number of ranks, threads and sequences at once; log-likelihoods that
# eval --text confirms; answers that follow from them; choices in another order.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

DEMO=$ROOT/models/demo
TASKS=$ROOT/models/demo-tasks.jsonl

# answer OUT TASKS RANKS OPTION...: the report of a run of the demo model; 0 ranks: without mpirun.
answer() {
    local out=$1 tasks=$2 n=$3
    shift 3
    ranks "$n" "$SBIT" eval "$DEMO" --tasks "$tasks" --json "$out" "$@" >out.txt 2>err.txt ||
        { cat err.txt; fail "eval --tasks $tasks, $n ranks, $*: exit $?"; }
}
# per_question FILE: for each question one line: answer, the model's choice per byte and plain, then
# bytes and log-likelihood of each choice.
per_question() {
    awk '
        /"answers":/ { on = 1 }
        /"ranks":/ { on = 0 }
        !on { next }
        { gsub(/[",:]/, " ") }
        $1 == "answer" { answer = $2 }
        $1 == "bytes" || $1 == "tokens" || $1 == "log_likelihood" { list = $1; n = 0; next }
        $1 == "]" { list = "" }
        $1 == "reference" { model = 0 }
        $1 == "model" { model = 1 }
        $1 == "per_byte" && model { normal = $2 }
        $1 == "plain" && model { plain = $2 }
        list == "bytes" { bytes[n++] = $1 }
        list == "log_likelihood" && model { sum[n++] = $1 }
        list == "" && $1 == "]" && model && n {
            line = answer " " normal " " plain
            for (i = 0; i < n; i++) line = line " " bytes[i] " " sum[i]
            print line
            n = 0
        }' "$1"
}

# The model knows more than chance, and says so.
answer base.json "$TASKS" 0
cat out.txt
per_question base.json >base.txt
[ "$(wc -l <base.txt)" -eq "$(wc -l <"$TASKS")" ] || { fail "not one answer for each question"; head base.txt; }
right=$(json_get base.json per_byte)
awk -v a="$right" -v c="$(json_get base.json chance)" 'BEGIN { exit !(c == 0.25 && a > 0.5 && a < 1) }' ||
    fail "the demo model answers $right of the questions"

# What is reported follows from the log-likelihoods.
awk -v questions="$(json_get base.json questions)" -v right="$right" '
    {
        normal = plain = 0
        for (i = 1; i < (NF - 3) / 2; i++) {
            if ($(5 + 2 * i) > $(5 + 2 * plain)) plain = i
            if ($(5 + 2 * i) / $(4 + 2 * i) > $(5 + 2 * normal) / $(4 + 2 * normal)) normal = i
        }
        if ($2 != normal || $3 != plain) { print "question " NR ": " $0; bad = 1 }
        hits += normal == $1
    }
    END { exit bad || NR != questions || hits / NR - right > 1e-9 || right - hits / NR > 1e-9 }' base.txt ||
    fail "picks or accuracy do not follow from the log-likelihoods"

# Ranks, threads, micro-batches.
while read -r n threads batch; do
    answer other.json "$TASKS" "$n" --threads "$threads" --batch "$batch"
    per_question other.json | cmp - base.txt || fail "other answers with $n ranks, $threads threads, micro-batch $batch"
done <<'END'
1 1 64
2 2 7
3 1 1
5 1 500
END

# The same against itself: every choice is the same one.
answer self.json "$TASKS" 2 --against "$DEMO"
cat out.txt
per_question self.json | cmp - base.txt || fail "--against changes the answers"
[ "$(awk '/"same_choice"/ { on = 1 } on && /"plain"/ { print $2; exit }' self.json)" = 1.0 ] ||
    fail "the model does not agree with itself"
sed -n '/"reference_accuracy"/,/}/p' self.json | grep -q "\"per_byte\": $right" || fail "accuracy of the reference"

# Choices in another order: the same ones are taken.
sed -E 's/"choices": \["(.*)", "(.*)", "(.*)", "(.*)"\]/"choices": ["\4", "\1", "\2", "\3"]/' "$TASKS" |
    awk -F '"answer": ' -v OFS='"answer": ' '{ $2 = ($2 + 1) % 4 "}"; print }' >turned.jsonl
answer turned.json turned.jsonl 0
awk '{ print ($1 + 1) % 4, ($2 + 1) % 4, ($3 + 1) % 4, $10, $11, $4, $5, $6, $7, $8, $9 }' base.txt >want.txt
per_question turned.json | cmp - want.txt || fail "another order of the choices changes more than the order"

# By hand: ln p(choice | question) = ln p(question and choice) - ln p(question), each by eval --text.
# score TEXT: ln p of it.
score() {
    printf %s "$1" >text.txt
    "$SBIT" eval "$DEMO" --text text.txt --json text.json >out.txt 2>err.txt || cat err.txt
    awk -v nll="$(json_get text.json nll)" -v n="$(json_get text.json tokens)" 'BEGIN { printf "%.12f", -nll * n }'
}
printf '\xef\xbb\xbf%s\r\n\n%s' \
    '{"question": "The dog was happy. He", "choices": ["wagged his tail.", " ran", "\nate"], "answer": 2, "id": "x"}' \
    '{"question": "", "choices": ["Once upon a time", "Upon a once time"], "answer": 1}' >hand.jsonl
answer hand.json - 0 <hand.jsonl
Q="The dog was happy. He"
asked=$(score "$Q")
: >want.txt
for choice in "$Q wagged his tail." "$Q ran" "$Q"$'\nate'; do
    score "$choice" | awk -v asked="$asked" '{ printf "%.9f\n", $1 - asked }' >>want.txt
done
for choice in "Once upon a time" "Upon a once time"; do
    score "$choice" | awk '{ printf "%.9f\n", $1 }' >>want.txt
done
per_question hand.json | awk '{ for (i = 5; i <= NF; i += 2) printf "%.9f\n", $i }' >got.txt
paste got.txt want.txt
paste got.txt want.txt | awk '{ d = $1 - $2; if (d > 1e-8 || d < -1e-8) exit 1 } END { exit NR != 5 }' ||
    fail "log-likelihoods are not those of eval --text"
per_question hand.json | awk 'NR == 1 { exit !($4 == 16 && $6 == 3 && $8 == 3) }' || fail "bytes of the choices"
grep -q '"chance": 0.41666' hand.json || fail "chance is not the mean of 1/3 and 1/2"
finish
