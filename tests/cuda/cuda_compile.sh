#!/bin/sh
# cuda_compile.sh OBJECT - what can be said of the compiled cnn_cuda.o without a GPU: registers and shared memory of each
# kernel, and that nothing is linked but the CUDA runtime. NVCC is the compiler; for it, warnings and spills were errors.
passed=0 failed=0

# ok WHAT STATUS
ok() { if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL cuda_compile: $1"; fi; }

"$NVCC" -O3 -std=c++17 -arch=${CUDA_ARCH:-sm_90} -Xptxas -v -c cnn_cuda.cu -o build/cuda/registers.o 2>&1 | c++filt | awk '
    BEGIN { printf "%-36s%9s%16s\n", "kernel", "registers", "shared bytes" }
    /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; sub(/\(.*/, "", kernel) }
    /Used [0-9]+ registers/ {
        shared = 0
        for (i = 2; i <= NF; i++) { if ($i ~ /^registers/) used = $(i - 1); if ($i ~ /^smem/) shared = $(i - 2) }
        printf "%-36s%9d%16d\n", kernel, used, shared }' | tee build/cuda/registers.txt
[ "$(wc -l <build/cuda/registers.txt)" -gt 50 ]
ok "some kernels were not compiled" $?
! nm -u "$1" | grep -i -E 'cublas|cudnn|curand|cufft|cusparse|thrust|nccl'
ok "it needs a library" $?
! ldd build/cuda/test_cuda | grep -i -E 'cublas|cudnn|curand|cudart'
ok "a program is linked with a library" $?
if ! build/cuda/test_cuda >build/cuda/said 2>&1; then            # no GPU: one sentence with CUDA's reason
    grep -q 'it does not start: there is no NVIDIA driver or device; CUDA says: ' build/cuda/said
    ok "without a GPU: $(head -n 1 build/cuda/said)" $?
fi
echo "cuda_compile: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
