# Reads sbit's --json files from a script; sourced. Needs awk and nothing else.
# shellcheck shell=sh

# json_get FILE KEY: prints the first value under KEY, a number as it stands or a string without its
# escapes (a newline becomes a space). A key inside a string cannot be mistaken for one: its quotes
# are escaped there. Prints nothing when there is no such key.
json_get() {
    LC_ALL=C awk -v key="$2" '
        { all = all $0 "\n" }
        END {
            if (!match(all, "\"" key "\"[ \t\n]*:[ \t\n]*")) exit
            rest = substr(all, RSTART + RLENGTH)
            if (substr(rest, 1, 1) != "\"") {
                match(rest, /^[^],} \t\n]*/)
                print substr(rest, 1, RLENGTH)
                exit
            }
            for (i = 2; i <= length(rest); i++) {
                c = substr(rest, i, 1)
                if (c == "\"") break
                if (c == "\\") {
                    c = substr(rest, ++i, 1)
                    if (c ~ /[nrtbf]/) c = " "
                    if (c == "u") { c = "?"; i += 4 }
                }
                out = out c
            }
            print out
        }' "$1"
}
