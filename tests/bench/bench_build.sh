#!/bin/sh
# bench_build.sh - what starting and compiling cost, and what flags are worth: make bench-build
#   ./lenet5 --help from start to end; a program of one file with cnn.h at -O2; and training steps of cc -O2
#   and of cc -O3 -march=native, in turn, as medians of 7 rounds, one thread in time on the processor.
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
cd "$root" || exit 1
cc=${CC:-cc}
clock="build/bench --time"
work=build/bench_build.$$
mkdir -p "$work" && trap 'rm -rf "$work"' EXIT || exit 1
trap 'exit 1' HUP INT TERM

fail() { echo "bench_build: $1" >&2; exit 1; }

cat >"$work/program.c" <<'END'
#define CNN_IMPLEMENTATION
#include "cnn.h"
int main(void)
{
    cnn_net *net = cnn_new(1, 28, 28);
    cnn_linear(net, .out_features = 10);
    cnn_free(net);
    return 0;
}
END
ms=$($clock 20 ./lenet5 --help) || exit 1
echo "./lenet5 --help: $ms"
ms=$($clock 5 $cc -std=c99 -O2 -I. "$work/program.c" -o "$work/program" -lm) || exit 1
echo "$cc -O2 program.c -lm: $ms"

$cc -std=c99 -O2 tests/bench/bench.c -o "$work/o2" -lm || fail "tests/bench/bench.c does not compile"
$cc -std=c99 -O3 -march=native tests/bench/bench.c -o "$work/native" -lm || fail "$cc does not know -O3 -march=native"
for net in lenet5 mnist_cnn cifar10_cnn; do
    for round in 1 2 3 4 5 6 7; do
        for flags in o2 native; do
            "$work/$flags" --short --cpu-time --threads 1 --repeats 5 --net $net >>"$work/$flags.$net" \
                || fail "$net failed in round $round"
        done
    done
    for flags in o2 native; do
        sed -n 's/.*train \([0-9.]*\) ms.*/\1/p' "$work/$flags.$net" | sort -n | sed -n 4p
    done | paste -s -d ' ' - | awk -v net=$net -v cc="$cc" '
        { printf "%s, ms a training step: %s -O2 %s, -O3 -march=native %s, ratio %.3f\n", net, cc, $1, $2, $1 / $2 }'
done
