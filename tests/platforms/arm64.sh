#!/bin/sh
# arm64.sh - the library on 64-bit ARM: fixtures, the pool and threads, and the backends against `direct` on a few shapes, compiled with
# a cross compiler and run by qemu. Takes minutes; for CI or by hand:
#   apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
cd "$(dirname "$0")/../.." || exit 1
cc=${ARM64_CC:-aarch64-linux-gnu-gcc}
qemu=${QEMU:-qemu-aarch64}
for tool in "$cc" "$qemu"; do
    command -v "$tool" >/dev/null 2>&1 && continue
    echo "SKIP arm64: $tool is not installed"
    echo "arm64: 0 passed, 0 failed, 1 skipped"
    exit 0
done
mkdir -p build/arm64
for test in test_fixtures test_backends test_threads test_pool; do
    if ! "$cc" -std=c99 -Wall -Wextra -pedantic -Werror -O2 "tests/$test.c" -o "build/arm64/$test" -lm; then
        echo "FAIL arm64: tests/$test.c does not compile"
        echo "arm64: 0 passed, 1 failed"
        exit 1
    fi
done
export CNN_TEST_SHORT=1 CNN_TEST_NO_FORK=1 QEMU_LD_PREFIX="${QEMU_LD_PREFIX:-/usr/aarch64-linux-gnu}"
tests/run --under "$qemu" build/arm64/test_fixtures build/arm64/test_backends build/arm64/test_threads build/arm64/test_pool
