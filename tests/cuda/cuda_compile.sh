#!/bin/sh
# cuda_compile.sh OBJECT - what can be said of the compiled cnn_cuda.o without a GPU: registers, shared memory and machine code
# of each kernel, the loads that are to be on their way together, and that nothing is linked but the CUDA runtime. Warnings and
# spilled registers were errors when OBJECT was compiled. NVCC is the compiler; ARCH, of those in OBJECT, the one to look at.
passed=0 failed=0
arch=${ARCH:-sm_90} work=build/cuda-compile
dump=$(dirname "$(readlink -f "$NVCC")")/cuobjdump

# ok WHAT STATUS
ok() { if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL cuda_compile: $1"; fi; }

"$dump" -arch $arch -res-usage "$1" 2>/dev/null | c++filt -p >$work/usage
"$dump" -arch $arch -elf "$1" 2>/dev/null | sed -n 's/^ *[0-9a-f]* *[0-9a-f]* *\([0-9a-f]*\) .*\.text\.\(_Z[A-Za-z0-9_]*\).*/\1 \2/p' |
    sort -u -k2 | c++filt -p >$work/sizes
awk 'function hex(s,   i, n) { for (i = 1; i <= length(s); i++) n = 16 * n + index("0123456789abcdef", substr(s, i, 1)) - 1; return n }
    BEGIN { printf "%-64s%9s%13s%12s\n", "kernel", "registers", "shared bytes", "code bytes" }
    FNR == NR { size = $1; sub(/^[^ ]* /, ""); code[$0] = hex(size); total += code[$0]; next }
    / Function / { sub(/.* Function /, ""); sub(/:$/, ""); name = $0; next }
    / REG:/ {
        for (i = 1; i <= NF; i++) { split($i, part, ":"); if (part[1] == "REG") used = part[2]; if (part[1] == "SHARED") shared = part[2] }
        printf "%-64s%9d%13d%12d\n", name, used, shared, code[name] }
    END { printf "all: %d bytes of machine code\n", total }' $work/sizes $work/usage | tee $work/kernels
[ "$(wc -l <$work/kernels)" -gt 50 ]
ok "some kernels were not compiled" $?
awk '$NF > 65536 && !/^all/ { print; bad = 1 } END { exit bad }' $work/kernels
ok "a kernel has more than 64 KB of machine code" $?

# loads KERNEL AT_LEAST UNTIL: so many loads from memory in a row, before the first UNTIL (an instruction)
loads() {
    "$dump" -arch $arch -sass "$1" 2>/dev/null | c++filt -p | awk -v kernel="$2" -v until="$4" '
        /Function :/ { inside = index($0, kernel) > 0; run = 0 }
        inside && / LDG/ { run++; if (run > most) most = run }
        inside && $0 ~ until { run = 0 }
        END { print most + 0 }' >$work/most
    [ "$(cat $work/most)" -ge "$3" ]
    ok "$2: only $(cat $work/most) loads before $4, not $3" $?
}
loads "$1" 'add_parts<linear_forward_job>' 8 ' FADD'
loads "$1" 'add_parts<conv2d_du_squares>' 8 ' FADD'
loads "$1" ' adam_step' 4 ' STG'

! nm -u "$1" | grep -i -E 'cublas|cudnn|curand|cufft|cusparse|thrust|nccl'
ok "it needs a library" $?
! ldd $work/test_cuda | grep -i -E 'cublas|cudnn|curand|cudart'
ok "a program is linked with a library" $?
if ! $work/test_cuda >$work/said 2>&1; then             # no GPU: one sentence with CUDA's reason
    grep -q 'it does not start: there is no NVIDIA driver or device; CUDA says: ' $work/said
    ok "without a GPU: $(head -n 1 $work/said)" $?
fi
echo "cuda_compile: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
