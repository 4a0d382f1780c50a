#!/bin/sh
# cuda_compile.sh OBJECT LOG - what can be said of the compiled cnn_cuda.o without a GPU: registers and shared memory of each
# kernel, of LOG, which the compiler wrote; where cuobjdump and nvdisasm are, its machine code and the loads that are to be on
# their way together; and that nothing is linked but the CUDA runtime. Warnings and spilled registers were errors when OBJECT was compiled.
# NVCC is the compiler; ARCH, of the architectures in OBJECT, the one to look at.
passed=0 failed=0 skipped=0
arch=${ARCH:-sm_90} work=build/cuda-compile
PATH=$PATH:$(dirname "$(readlink -f "$NVCC")")

# ok WHAT STATUS
ok() { if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL cuda_compile: $1"; fi; }

c++filt -p <"$2" | awk -v arch=$arch '
    BEGIN { printf "%-64s%9s%16s\n", "kernel", "registers", "shared bytes" }
    /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; sub(/^void /, "", kernel); this = part[4] == arch }
    this && /Used [0-9]+ registers/ {
        shared = 0
        for (i = 2; i <= NF; i++) { if ($i ~ /^registers/) used = $(i - 1); if ($i ~ /^smem/) shared = $(i - 2) }
        printf "%-64s%9d%16d\n", kernel, used, shared }' | tee $work/registers
[ "$(wc -l <$work/registers)" -gt 50 ]
ok "some kernels were not compiled" $?

# loads KERNEL AT_LEAST UNTIL: so many loads from memory in a row, before the first UNTIL (an instruction)
loads() {
    most=$(awk -v kernel="$1" -v until=" $3" '
        /Function :/ { inside = index($0, kernel) > 0; run = 0 }
        inside && / LDG/ { run++; if (run > most) most = run }
        inside && index($0, until) { run = 0 }
        END { print most + 0 }' $work/sass)
    [ "$most" -ge "$2" ]
    ok "$1: only $most loads before $3, not $2" $?
}

if command -v cuobjdump >/dev/null && command -v nvdisasm >/dev/null; then
    cuobjdump -arch $arch -sass "$1" | c++filt -p >$work/sass
    awk '/Function :/ { sub(/.*Function : (void )?/, ""); name = $0 }
        / \/\*[0-9a-f][0-9a-f][0-9a-f][0-9a-f]+\*\/ / { bytes[name] += 16; all += 16 }
        END { for (name in bytes) printf "%9d %s\n", bytes[name], name; printf "%9d all of them\n", all }' $work/sass | sort -n >$work/sizes
    echo "bytes of machine code, the ten largest kernels:"
    tail -n 11 $work/sizes
    awk '$1 > 131072 && !/ all of them$/ { bad = 1 } END { exit bad }' $work/sizes
    ok "a kernel has more than 128 KB of machine code" $?
    loads 'add_parts<linear_forward_job>' 8 FADD
    loads 'add_parts<conv2d_du_squares>' 8 FADD
    loads adam_step 4 STG
else
    skipped=1
    echo "SKIP cuobjdump and nvdisasm are not both there (pip: nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm): nothing said of the machine code"
fi

! nm -u "$1" | grep -i -E 'cublas|cudnn|curand|cufft|cusparse|thrust|nccl'
ok "it needs a library" $?
! ldd $work/test_cuda | grep -i -E 'cublas|cudnn|curand|cudart'
ok "a program is linked with a library" $?
if ! $work/test_cuda >$work/said 2>&1; then             # no GPU: one sentence with CUDA's reason
    grep -q 'it does not start: there is no NVIDIA driver or device; CUDA says: ' $work/said
    ok "without a GPU: $(head -n 1 $work/said)" $?
fi
echo "cuda_compile: $passed passed, $failed failed$([ $skipped -gt 0 ] && echo ", $skipped skipped")"
[ "$failed" -eq 0 ]
