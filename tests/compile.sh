#!/bin/sh
# compile.sh [directory] - every way to take cnn.h into a program compiles without a word, and the program works.
# The programs are written into a folder of their own below the directory (default: build), which is removed at the end.
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
work=${1:-$root/build}/compile.$$
mkdir -p "$work/sub" "$work/user" && cd "$work" || exit 1
trap 'cd / && rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cc=${CC:-cc}
strict='-Wall -Wextra -pedantic -Werror'
passed=0 failed=0 skipped=0

skip() { skipped=$((skipped + 1)); echo "SKIP $1"; }

# verdict NAME: by the status of the command before; what was said is shown only where it failed
verdict() {
    if [ $? -eq 0 ]; then passed=$((passed + 1)); return; fi
    failed=$((failed + 1))
    echo "FAIL $1"
    sed 's/^/    /' said
}

there() { command -v "$1" >/dev/null 2>&1; }

# links COMPILER FLAGS...: can it do that at all?
links() { echo '#include <stdio.h>
int main(void) { return 0; }' >empty.c && "$@" empty.c -o empty >said 2>&1 && ./empty; }

# works NAME COMPILER ARGUMENTS...: compiles without a warning; the program trains its network and ends with 0
works() {
    name=$1
    shift
    if ! there "$1"; then skip "$name: $1 is not installed"; return; fi
    : >result
    "$@" -o program -lm >said 2>&1 && [ ! -s said ] && ./program >result 2>said
    verdict "$name: $*"
}

# refused NAME MESSAGE COMPILER ARGUMENTS...: does not compile, and says why
refused() {
    name=$1 message=$2
    shift 2
    if ! there "$1"; then skip "$name: $1 is not installed"; return; fi
    ! "$@" -fsyntax-only >said 2>&1 && grep -q -e "$message" said
    verdict "$name: $*"
}

# ---- the programs ----

cp "$root/cnn.h" sub/cnn.h

# Two classes of 4 x 4 pixels: the left half is bright, or the right half.
cat >data.h <<'END'
static cnn_data_options halves(void)
{
    static float x[8 * 16];
    static int labels[8];
    cnn_data_options o;
    int i;
    for (i = 0; i < 8; i++) labels[i] = i % 2;
    for (i = 0; i < 8 * 16; i++) x[i] = (i % 4 < 2) == labels[i / 16] ? 1 : 0.1f * (float)(i / 16);
    memset(&o, 0, sizeof o);
    o.count = 8; o.channels = 1; o.height = o.width = 4; o.classes = 2; o.floats = x; o.labels = labels;
    return o;
}

/* Prints the loss to its last bit; 0 if all has gone well. */
static int judged(cnn_net *net, cnn_data *data)
{
    cnn_score score = cnn_evaluate(net, data, 3, CNN_CROSS_ENTROPY);
    unsigned bits;
    float loss = (float)score.loss;
    memcpy(&bits, &loss, sizeof bits);
    printf("%08x\n", bits);
    if (cnn_error(net)) puts(cnn_error(net));
    cnn_free(net);
    cnn_data_free(data);
    return !(score.count == 8 && score.accuracy == 1 && score.loss < 0.1);
}
END

cat >train.h <<'END'
#include <string.h>
#include "data.h"
static int train(void)
{
    cnn_data *data = cnn_data_new_with(halves());
    cnn_net *net = cnn_new(1, 4, 4);
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 2);
    cnn_adam(net, 0);
    cnn_adam(net, .lr = 0.05f);
    cnn_loader_free(cnn_loader_new(data, 0));
    cnn_fit(net, data, NULL, .epochs = 40, .batch_size = 4);
    return judged(net, data);
}
END

cat >train.hpp <<'END'
#include <cstring>
#include "data.h"
static int train()
{
    cnn_conv2d_options conv = cnn_conv2d_options();
    cnn_pool2d_options pool = cnn_pool2d_options();
    cnn_linear_options linear = cnn_linear_options();
    cnn_adam_options adam = cnn_adam_options();
    cnn_fit_options fit = cnn_fit_options();
    conv.out_channels = 4; conv.kernel_size = 3; conv.padding = 1;
    pool.kernel_size = 2;
    linear.out_features = 2;
    adam.lr = 0.05f;
    fit.epochs = 40; fit.batch_size = 4;
    cnn_data *data = cnn_data_new_with(halves());
    cnn_net *net = cnn_new(1, 4, 4);
    cnn_conv2d_with(net, conv);
    cnn_relu(net);
    cnn_max_pool2d_with(net, pool);
    cnn_flatten(net);
    cnn_linear_with(net, linear);
    cnn_adam_with(net, adam);
    cnn_fit_with(net, data, nullptr, fit);
    return judged(net, data);
}
END

cat >whole.c <<'END'
#define CNN_IMPLEMENTATION
#include "cnn.h"
#include "train.h"
int main(void) { return train(); }
END
sed 's/train\.h/train.hpp/; s/(void)/()/' whole.c >whole.cpp

cat >designated.cpp <<'END'
#define CNN_IMPLEMENTATION
#include "cnn.h"
#include <cstring>
#include "data.h"
int main()
{
    cnn_data *data = cnn_data_new_with(halves());
    cnn_net *net = cnn_new(1, 4, 4);
    cnn_flatten(net);
    cnn_linear_with(net, { .out_features = 2 });
    cnn_sgd_with(net, { .lr = 0.5f });
    cnn_fit_with(net, data, nullptr, { .epochs = 40, .batch_size = 4 });
    return judged(net, data);
}
END

cat >implementation.c <<'END'
#define CNN_IMPLEMENTATION
#include "cnn.h"
END
cat >user.c <<'END'
#include "cnn.h"
#include "train.h"
int main(void) { return train(); }
END
sed 's/train\.h/train.hpp/; s/(void)/()/' user.c >user.cpp

cat >plain_first.c <<'END'
#include "cnn.h"
#define CNN_IMPLEMENTATION
#include "cnn.h"
#include "cnn.h"
#include "train.h"
int main(void) { return train(); }
END

cat >user/relative.c <<'END'
#define CNN_IMPLEMENTATION
#include "../sub/cnn.h"
#include "../train.h"
int main(void) { return train(); }
END

cat >allocator.c <<'END'
#include <stdlib.h>
static long blocks, most;
static void *take(size_t bytes) { if (++blocks > most) most = blocks; return malloc(bytes); }
static void give(void *block) { if (block) blocks--; free(block); }
#define CNN_MALLOC(bytes) take(bytes)
#define CNN_FREE(block) give(block)
#define CNN_IMPLEMENTATION
#include "cnn.h"
#include "train.h"
int main(void) { return train() || blocks != 0 || most < 10; }
END

# ---- languages, compilers, optimization, threads ----

works 'C99' gcc -std=c99 $strict -O2 -Isub whole.c
works 'C11' gcc -std=c11 $strict -O0 -Isub whole.c
if there gcc; then
    mv result threads
    works 'C11, without threads' gcc -std=c11 $strict -O0 -DCNN_NO_THREADS -Isub whole.c
    cmp threads result >said 2>&1
    verdict 'threads change no bit of the result'
fi
works 'C99' clang -std=c99 $strict -O0 -Isub whole.c
works 'C11' clang -std=c11 $strict -O2 -Isub whole.c
works 'C++11' g++ -std=c++11 $strict -O2 -Isub whole.cpp
works 'C++17' g++ -std=c++17 $strict -O0 -Isub whole.cpp
works 'C++11, without threads' g++ -std=c++11 $strict -O0 -DCNN_NO_THREADS -Isub whole.cpp
works 'C++11' clang++ -std=c++11 $strict -O0 -Isub whole.cpp
works 'C++17' clang++ -std=c++17 $strict -O0 -Isub whole.cpp
works 'C++20, designated' clang++ -std=c++20 -Wall -pedantic -Werror -O0 -Isub designated.cpp

# ---- ways to include it ----

works 'two files' "$cc" -std=c99 $strict -O0 -Isub implementation.c user.c
works 'included before and after' "$cc" -std=c99 $strict -O0 -Isub plain_first.c
works 'by a relative path' "$cc" -std=c99 $strict -O0 user/relative.c
works 'POSIX and nothing else' "$cc" -std=c99 -D_POSIX_C_SOURCE=200112L -U__linux__ $strict -O0 -Isub whole.c
works 'own allocator' "$cc" -std=c99 $strict -O0 -Isub allocator.c
if there g++; then "$cc" -std=c99 -O0 -Isub -c implementation.c -o implementation.o; fi
works 'C from C++' g++ -std=c++11 $strict -O0 -Isub user.cpp implementation.o

# ---- what is refused, and 32 bits ----

refused 'fast math' 'without -ffast-math' gcc -O1 -ffast-math -Isub whole.c
refused 'fast math' 'without -ffast-math' clang -O1 -ffast-math -Isub whole.c
refused 'half an allocator' 'both CNN_MALLOC and CNN_FREE' "$cc" '-DCNN_MALLOC(bytes)=malloc(bytes)' -Isub whole.c
if links "$cc" -m32; then works '32 bits' "$cc" -m32 -std=c99 $strict -O0 -Isub whole.c; else skip "$cc does not link with -m32"; fi

if [ "$skipped" -gt 0 ]; then echo "compile: $passed passed, $failed failed, $skipped skipped"; else echo "compile: $passed passed, $failed failed"; fi
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
