#!/bin/sh
# cuda_compile.sh OBJECT - what can be said of the compiled cnn_cuda.o without a GPU: registers and shared memory of each kernel,
# and that nothing is linked but the CUDA runtime. NVCC is the compiler. Warnings and spills have been errors when it was built.
passed=0 failed=0
"$NVCC" -O3 -std=c++17 -arch=${CUDA_ARCH:-sm_90} -Xptxas -v -c cnn_cuda.cu -o build/cuda/registers.o 2>&1 | c++filt | awk '
    BEGIN { printf "%-28s%10s%16s\n", "kernel", "registers", "shared bytes" }
    /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; sub(/\(.*/, "", kernel) }
    /Used [0-9]+ registers/ { shared = 0; for (i = 2; i <= NF; i++) { if ($i ~ /^registers/) used = $(i - 1); if ($i ~ /^smem/) shared = $(i - 2) }
        printf "%-28s%10d%16d\n", kernel, used, shared }' | tee build/cuda/registers.txt
kernels=$(sed 1d build/cuda/registers.txt | wc -l)
if [ "$kernels" -ge 50 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL only $kernels kernels were compiled"; fi
foreign=$(nm -u "$1" | grep -i -E 'cublas|cudnn|curand|cufft|cusparse|thrust|nccl')
if [ -z "$foreign" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL it needs a library: $foreign"; fi
if ! ldd build/cuda/test_cuda | grep -i -E 'cublas|cudnn|curand|cudart'; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL a program links it"; fi
if ! build/cuda/test_cuda >build/cuda/said 2>&1; then            # no GPU: one sentence with CUDA's reason
    if grep -q 'it does not start: there is no NVIDIA driver or device; CUDA says: ' build/cuda/said; then passed=$((passed + 1))
    else failed=$((failed + 1)); echo "FAIL without a GPU:"; cat build/cuda/said; fi
fi
echo "cuda_compile: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
