#!/bin/sh
# gpu.sh - make test-cuda: what can be proved only on a GPU. Fails where there is none. Run from the repository root.
#   1. the test programs with the backend cuda, and with the naive kernels
#   2. the same under compute-sanitizer, where it is installed: memcheck, racecheck, initcheck, synccheck
#   3. each training program, one epoch on cuda, on direct and on cuda in TF32: close losses; and on cuda again: the same bits
here=build/cuda
passed=0 failed=0 skipped=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ok() {  # ok NAME COMMAND...
    name=$1
    shift
    if "$@" >"$work/said" 2>&1; then passed=$((passed + 1)); return; fi
    failed=$((failed + 1))
    echo "FAIL gpu: $name"
    tail -n 5 "$work/said" | sed 's/^/    /'
}

# trains NAME BACKEND, or 'BACKEND OPTIONS': the epoch's line without its seconds
trains() { ./$1 --backend $2 --epochs 1 --limit ${LIMIT:-2560} --seed 3 --quiet | sed -n 's/ seconds.*//; /^epoch/p'; }

# near A B: two such lines have losses that differ by less than 1 in 100
near() { printf '%s\n%s\n' "$1" "$2" | awk '{ loss[NR] = $4; test[NR] = $8 }
    END { l = loss[1] / loss[2] - 1; t = test[1] / test[2] - 1; exit !(NR == 2 && l * l < 1e-4 && t * t < 1e-4) }'; }

ok "test_cuda" $here/test_cuda
if [ "$failed" -gt 0 ]; then echo "gpu: $passed passed, $failed failed"; exit 1; fi
ok "test_mma" $here/test_mma
ok "test_backends, cuda" $here/test_backends cuda
ok "test_backends, cuda_naive" $here/test_backends cuda_naive
ok "test_learning" $here/test_learning
ok "test_library" $here/test_library
ok "test_numbers" $here/test_numbers
for tool in memcheck racecheck initcheck synccheck; do
    if command -v compute-sanitizer >/dev/null; then
        ok "$tool" compute-sanitizer --tool $tool --error-exitcode 9 $here/test_backends cuda 20
    else
        skipped=$((skipped + 1))
        echo "SKIP compute-sanitizer is not there: no $tool"
    fi
done
for program in lenet5 mnist_cnn fashion_mnist cifar10; do
    first=$(trains $program cuda 2>"$work/why")
    if grep -q 'get it with: make' "$work/why"; then skipped=$((skipped + 1)); echo "SKIP $(cat "$work/why")"; continue; fi
    ok "$program: cuda and direct learn the same" near "$first" "$(trains $program direct)"
    ok "$program: TF32 and float32 learn the same" near "$first" "$(trains $program 'cuda --precision tf32')"
    ok "$program: two runs on cuda print the same digits" test "$first" = "$(trains $program cuda)"
done
echo "gpu: $passed passed, $failed failed$([ $skipped -gt 0 ] && echo ", $skipped skipped")"
[ "$failed" -eq 0 ]
