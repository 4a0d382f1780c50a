#!/bin/sh
# pages.sh - what README.md, examples/README.md and tests/README.md name is there: functions and sections of cnn.h, files, headings
# behind links, make targets, breakpoints; the programs in README.md compile. Run from the repository root.
passed=0 failed=0 skipped=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

ok() {  # ok NAME COMMAND...
    name=$1; shift
    if "$@" >"$work/said" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL pages: $name"; head -n 5 "$work/said"; fi
}
function_of() { grep -q -E "^[a-z].*[ *]$2(_with)?\(|^#define $2\(" "$1"; }            # function_of FILE NAME
section() { grep -q "^   >>$1   " cnn.h cnn_cuda.cu; }                                 # its heading, not the contents
target() { [ -f "examples/$1.c" ] || grep -q -E "^([a-z0-9 -]* )?$1( [a-z0-9 -]*)?:" Makefile; }
# as GitHub makes it: lower case, no punctuation, a hyphen for each space
heading() { sed -n 's/^##* //p' "$1" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9\n-' | grep -q -x -e "$2"; }

# each KIND PAGE: sorts the names that it reads, one a line; there must be one
each() {
    sort -u >"$work/names"
    ok "$2 names a $1" test -s "$work/names"
}

for page in README.md examples/README.md tests/README.md; do
    folder=$(dirname "$page")
    grep -o '`cnn__*[a-z0-9_]*' $page | tr -d '`' | grep -v -x 'cnn_cuda' | each function $page
    while read -r name; do ok "$page: $name is a function of cnn.h" function_of cnn.h "$name"; done <"$work/names"

    grep -o '](\([^)#:]*\)[^):]*)' $page | sed 's/^](//; s/)$//' | each link $page
    while IFS='#' read -r path anchor; do
        ok "$page: the link $path" test -e "$folder/$path"
        [ -z "$anchor" ] || ok "$page: the heading $path#$anchor" heading "$folder/$path" "$anchor"
    done <"$work/names"

    sed 's/\[`[^]]*](/(/g' $page | grep -o '`[a-zA-Z0-9_./]*\.\(c\|h\|cu\|sh\|py\|txt\)`' | tr -d '`' | each file $page
    while read -r path; do ok "$page: the file $path" sh -c "[ -f '$folder/$path' ] || [ -f '$path' ]"; done <"$work/names"

    grep -o -e '^    make [a-z0-9][a-z0-9_-]*' -e '`make [a-z0-9][a-z0-9_-]*' $page | sed 's/.*make //' | each 'make target' $page
    while read -r name; do ok "$page: make $name" target "$name"; done <"$work/names"
done

grep -h -o '>>[a-z]*' README.md examples/README.md tests/README.md | tr -d '>' | each section 'one of them'
while read -r name; do ok "the section >>$name" section "$name"; done <"$work/names"

# `# break NAME` names a function of that backend
sed -n 's/.*gdb --args .*--backend \([a-z_]*\) .*# break \([a-z_0-9]*\).*/\1 \2/p' examples/README.md tests/README.md | each breakpoint 'one of them'
while read -r backend name; do
    file=cnn.h
    case $backend in cuda*) file=cnn_cuda.cu;; esac
    ok "$name is a function of the backend $backend" sh -c "grep -q '^static .*[ *]$name(' $file && grep -q '\"$backend\"' $file"
done <"$work/names"

# ---- the programs in README.md ----

block() { sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/p" README.md | sed '/^```$/,$d; /^```/d'; }  # the first one in that language
block c >"$work/program.c"
ok "README.md: its program" ${CC:-cc} -std=c99 -Wall -Wextra -pedantic -Werror -I. "$work/program.c" -o "$work/program" -lm
mkdir "$work/empty"
ok "README.md: its program says that there is no data" sh -c "cd '$work/empty' && ../program | grep -q 'data/mnist/train-images-idx3-ubyte: cannot be opened'"
block cpp >"$work/program.cpp"
if echo 'int main() {}' | ${CXX:-g++} -std=c++20 -x c++ -fsyntax-only - 2>/dev/null; then
    ok "README.md: its program in C++" ${CXX:-g++} -std=c++20 -Wall -Wextra -fsyntax-only -I. "$work/program.cpp"
else
    skipped=$((skipped + 1))
    echo "SKIP pages: ${CXX:-g++} is not there or knows no C++20"
fi
ok "README.md has 200 lines at most" test "$(wc -l <README.md)" -le 200
version=$(sed -n 's/^#define CNN_VERSION "\(.*\)".*/\1/p' cnn.h)
ok "README.md is of version $version" grep -q "Version $version " README.md

printf 'pages: %d passed, %d failed' $passed $failed
[ $skipped -eq 0 ] || printf ', %d skipped' $skipped
echo
[ $failed -eq 0 ]
