#!/bin/sh
# walkthrough.sh - what the walkthrough programs print is walkthrough/NAME.txt, to the last character. The two
# that train must learn what they claim. Run after `make`, which builds the programs beside cnn.h.
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
work=$root/build/walkthrough.$$
mkdir -p "$work" && cd "$work" || exit 1
trap 'cd / && rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
unset CNN_DATA
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAIL $1"; }

# there NAME: was it built? The programs that read pictures need stb_image.
there() {
    [ -x "$root/$1" ] && return 0
    if [ "$1" = edges ]; then skipped=$((skipped + 1)); echo "SKIP $1 was not built, as stb_image is missing"
    else fail "$1 was not built"; fi
    return 1
}

# same NAME TEXT: compares what the program printed, in ./printed, with the expected text
same() {
    if diff "$root/tests/programs/walkthrough/$2" printed >difference; then pass; return; fi
    fail "$1 does not print tests/programs/walkthrough/$2 (< expected, > printed):"
    head -n 12 difference
}

for program in conv1d conv2d edges padding stride kernels activation pooling sharing lenet1998; do
    there $program || continue
    if "$root/$program" >printed 2>said; then same $program $program.txt; else fail "$program ended with $?: $(head -n 1 said)"; fi
done

if [ -x "$root/edges" ]; then
    "$root/edges" edges_input.png >printed && same 'edges, on the picture that it wrote,' edges.txt
    "$root/edges" nothing.png >printed 2>&1
    if [ $? -eq 1 ] && grep -q '^edges: nothing.png: ' printed; then pass; else fail 'edges does not refuse a missing picture'; fi
fi

if there losses; then
    "$root/losses" --limit 256 --epochs 1 >all && sed '/^No MNIST/,$d' all >printed
    same losses losses.txt
fi
if there features; then
    if "$root/features" --limit 3000 --epochs 3 >printed && awk '$1 == 3 && $3 == "%" { found = 1; exit !($6 > $2 + 5) } END { if (!found) exit 1 }' printed; then pass
    else fail 'features: what is learned does not beat what is made by hand'; cat printed; fi
fi

printf 'walkthrough: %d passed, %d failed' $passed $failed
[ $skipped -eq 0 ] || printf ', %d skipped' $skipped
echo
[ $failed -eq 0 ] && [ $passed -gt 0 ]
