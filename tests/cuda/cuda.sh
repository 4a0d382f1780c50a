#!/bin/sh
# cuda.sh - cnn_cuda.cu on the CPU: every operation against `direct` with the threads of a block in three orders, the naive
# kernels and the used ones; then whole networks. Run from the repository root, after make test has built the programs.
here=build/cuda-on-cpu
if [ ! -x $here/test_cuda ]; then
    echo "SKIP cuda: cnn_cuda.cu was not run: g++ is not there (or make test has not built $here)"
    echo "cuda: 0 passed, 0 failed, 1 skipped"
    exit 0
fi

# ran PROGRAM ARGUMENTS...: how many checks passed, and whether it failed; if so, what it said
ran() {
    output=$("$@" 2>&1)
    status=$?
    passed=$(printf '%s\n' "$output" | tail -n 1 | sed -n 's/^[a-z_]*: \([0-9]*\) passed, [0-9]* failed.*/\1/p')
    [ "$status" -eq 0 ] && [ -n "$passed" ] && echo "RAN $passed 0" && return
    echo "RAN ${passed:-0} 1"
    echo "FAIL cuda: $* (CUDA_SHIM_ORDER=$CUDA_SHIM_ORDER): status $status"
    printf '%s\n' "$output" | tail -n 5
}

# 20 programs; those of an order, and the rest, side by side, as each has one thread
for CUDA_SHIM_ORDER in forward reversed shuffled; do
    export CUDA_SHIM_ORDER
    {
        ran $here/test_backends cuda 24
        ran $here/test_backends cuda_naive 12
        ran $here/test_cuda
        ran $here/test_mma
    } >$here/said_$CUDA_SHIM_ORDER &
done
for test in augment graph norm learning library flow "shapes 40" numbers; do ran $here/test_$test; done >$here/said_others
wait
cat $here/said_* | awk '/^RAN / { passed += $2; failed += $3; programs++; next } { print }
    END { failed += 20 - programs; print "cuda: " passed + 0 " passed, " failed " failed"; exit failed > 0 }'
