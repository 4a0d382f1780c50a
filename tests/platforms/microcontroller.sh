#!/bin/sh
# microcontroller.sh - LeNet-5, exported as one C file, reads digits on a Cortex-M3: newlib, semihosting, qemu's mps2-an385.
#   apt install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
cd "$(dirname "$0")/../.." || exit 1
arm=${ARM_CC:-arm-none-eabi-gcc}
qemu=${QEMU_ARM:-qemu-system-arm}
failed() { echo "FAIL microcontroller: $1"; echo "microcontroller: 0 passed, 1 failed"; exit 1; }
for tool in "$arm" "$qemu"; do
    command -v "$tool" >/dev/null 2>&1 && continue
    echo "SKIP microcontroller: $tool is not installed"
    echo "microcontroller: 0 passed, 0 failed, 1 skipped"
    exit 0
done
work=build/microcontroller
mkdir -p $work
warnings='-std=c99 -Wall -Wextra -pedantic -Werror'
${CC:-cc} $warnings -O2 -DEXPORT tests/platforms/microcontroller.c -o $work/export -lm || failed 'the exporting program does not compile'
(cd $work && ./export) || failed 'LeNet-5 was not exported'
"$arm" $warnings -O2 -mcpu=cortex-m3 -mthumb --specs=rdimon.specs -I$work -T tests/platforms/microcontroller.ld \
    tests/platforms/microcontroller.c $work/lenet5_weights.c -o $work/lenet5.elf -lm || failed 'it does not compile'
"${arm%gcc}size" $work/lenet5.elf
timeout 300 "$qemu" -M mps2-an385 -display none -monitor none -serial none -semihosting-config enable=on,target=native \
    -kernel $work/lenet5.elf || failed "it ended with status $?"
echo "microcontroller: 1 passed, 0 failed"
