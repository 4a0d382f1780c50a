#!/bin/sh
# cuda.sh - cnn_cuda.cu on the CPU: every operation against `direct` with the threads of a block in three orders, the naive
# kernels and the used ones; then whole networks. Run from the repository root, after make test has built the programs.
here=build/cuda-on-cpu
if [ ! -x $here/test_cuda ]; then
    echo "SKIP cuda: cnn_cuda.cu was not run: g++ is not there (or make test has not built $here)"
    echo "cuda: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
passed=0 failed=0

# adds PROGRAM ARGUMENTS...: runs it and adds its closing line to the sum
adds() {
    output=$("$@" 2>&1)
    status=$?
    numbers=$(printf '%s\n' "$output" | tail -n 1 | sed -n 's/^[a-z_]*: \([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p')
    if [ "$status" -ne 0 ] || [ -z "$numbers" ]; then
        failed=$((failed + 1))
        echo "FAIL cuda: $* (CUDA_SHIM_ORDER=$CUDA_SHIM_ORDER): status $status"
        printf '%s\n' "$output" | tail -n 5
    fi
    passed=$((passed + ${numbers%% *}))
}

for CUDA_SHIM_ORDER in forward reversed shuffled; do
    export CUDA_SHIM_ORDER
    adds $here/test_backends cuda 24
    adds $here/test_backends cuda_naive 12
    adds $here/test_cuda
    adds $here/test_mma
done
adds $here/test_augment
adds $here/test_graph
adds $here/test_norm
adds $here/test_learning
adds $here/test_library
adds $here/test_flow
adds $here/test_shapes 40
adds $here/test_numbers
echo "cuda: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
