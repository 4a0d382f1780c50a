#!/bin/sh
# compile.sh [directory] - every way to take cnn.h into a program compiles without a word, and the program works.
# The programs are written into a folder of their own below the directory (default: build), which is removed at the end.
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
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
links() { echo '#include <errno.h>
#include <stdio.h>
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
#ifndef __cplusplus
    memset(&o, 0, sizeof o);
#endif
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

# README's lines for C++
cat >designated.cpp <<'END'
#include <cstring>
#define CNN_IMPLEMENTATION
#include "cnn.h"
#include "data.h"
int main()
{
    cnn_data *data = cnn_data_new_with(halves());
    cnn_net *net = cnn_new(1, 4, 4);
    cnn_conv2d_with(net, { .out_channels = 4, .kernel_size = 3, .padding = 1 });
    cnn_relu(net);
    cnn_max_pool2d_with(net, { .kernel_size = 2 });
    cnn_flatten(net);
    cnn_linear_with(net, { .out_features = 2 });
    cnn_adam_with(net, { .lr = 0.05f });
    cnn_fit_with(net, data, nullptr, { .epochs = 40, .batch_size = 4 });
    return judged(net, data);
}
END

# every options struct with its last field alone, and with none
cat >options.cpp <<'END'
#include <cstring>
#define CNN_IMPLEMENTATION
#include "cnn.h"
int main()
{
    static const float x[2] = { 0, 1 };
    cnn_data *data = cnn_data_new_with({ .count = 2, .channels = 1, .height = 1, .width = 1, .outputs = 1, .floats = x, .targets = x });
    cnn_net *net = cnn_new(1, 1, 1);
    cnn_batch batch;
    cnn_conv2d_with(net, { .out_channels = 1, .kernel_size = 1, .in_channels = 1 });
    cnn_avg_pool2d_with(net, { .kernel_size = 1, .exclude_padding = 1 });
    cnn_max_pool1d_with(net, { .kernel_size = 1 });
    cnn_leaky_relu_with(net, {});
    cnn_dropout_with(net, { .p = 0.5f });
    cnn_linear_with(net, { .out_features = 1, .in_features = 1 });
    cnn_sgd_with(net, { .lr = 0.1f, .nesterov = 0 });
    cnn_adamw_with(net, { .lr = 0.01f, .weight_decay = 0.1f });
    cnn_cosine_lr_with(net, { .t_max = 3 });
    cnn_one_cycle_lr_with(net, { .max_lr = 0.1f, .total_steps = 3 });
    cnn_step_lr_with(net, { .step_size = 3 });
    cnn_loader *loader = cnn_loader_new_with(data, { .batch_size = 2 });
    if (!cnn_next(loader, &batch)) return 1;
    cnn_forward(net, &batch);
    cnn_mse_loss(net, &batch);
    cnn_backward(net);
    cnn_step(net);
    cnn_fit_with(net, data, nullptr, { .epochs = 1, .batch_size = 2, .loss = CNN_MSE, .user = nullptr });
    if (cnn_error(net)) puts(cnn_error(net));
    int failed = cnn_error(net) != nullptr;
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_data_free(data);
    return failed;
}
END

# C++11: structs begin as zero without a word
sed 's/ = cnn_[a-z0-9]*_options()//' train.hpp >train_plain.hpp
sed 's/train\.hpp/train_plain.hpp/' whole.cpp >plain.cpp 2>/dev/null

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

# the header under another name, beside the program and by -I
mkdir -p other
cp "$root/cnn.h" other/convnet.hpp
sed 's/"cnn\.h"/"other\/convnet.hpp"/' whole.c >renamed.c
sed 's/"cnn\.h"/"other\/convnet.hpp"/' whole.cpp >renamed.cpp
sed 's/"cnn\.h"/<convnet.hpp>/' whole.c >user/renamed_by_path.c

# names that programs define: all of these before the header
{
    echo '#include <stdlib.h>'
    echo '#include <string.h>'
    number=0
    for name in A B C D E F G H I J K L M N O P Q R S T U V W X Y Z AA BB CC DD II JJ KK MM NN XX YY ZZ N0 N1 N2 K0 K1 X0 X1 Y0 Y1 \
        WIDTH HEIGHT DEPTH ROWS ROW COLS COL COLUMNS COLUMN SAMPLES SAMPLE MAPS MAP SHOWN LANES VECTORS SUMS TILES TILE BLOCK BLOCKS \
        BATCH BATCHES BATCH_SIZE EPOCHS EPOCH CLASSES CLASS LABELS LABEL CHANNELS CHANNEL IN OUT IN_CHANNELS OUT_CHANNELS INPUT OUTPUT \
        INPUTS OUTPUTS INPUT_SIZE OUTPUT_SIZE HIDDEN UNITS LAYERS LAYER KERNEL KERNEL_SIZE KERNELS FILTERS FILTER STRIDE PADDING PAD \
        DILATION GROUPS POOL POOL_SIZE IMAGE IMAGES IMAGE_SIZE PIXELS PIXEL SIZE SIZES LENGTH LEN COUNT TOTAL NUMBER NUM INDEX \
        FIRST LAST BEGIN END START STOP LOW HIGH LOWER UPPER LEFT RIGHT TOP BOTTOM UP DOWN FRONT BACK ZERO ONE TWO TEN HALF \
        PI TAU EPS EPSILON ALPHA BETA BETA1 BETA2 GAMMA DELTA LAMBDA SIGMA MU RHO THETA LR LEARNING_RATE RATE MOMENTUM DECAY \
        WEIGHT_DECAY WEIGHT WEIGHTS BIAS BIASES LOSS ERROR ERRORS ACCURACY SCORE SEED RANDOM RAND NOISE MEAN STD VAR VARIANCE SCALE \
        SHIFT OFFSET NORM DOT CROSS SUM PRODUCT MEAN_SQUARE SOFTMAX RELU SIGMOID TANH LEAKY LINEAR FLATTEN DROPOUT CONV CONV2D \
        ADAM SGD MSE CROSS_ENTROPY TRAIN TEST VALID VALIDATION EVAL TRUE FALSE YES NO ON OFF OK FAIL FAILED DONE NONE ANY ALL SOME \
        DEBUG INFO WARN WARNING LOG TRACE VERBOSE QUIET FAST SLOW DATA DATASET PATH FILENAME NAME FORMAT TYPE KIND MODE STATE FLAG \
        FLAGS STATUS RESULT CODE KEY VALUE VALUES NODE EDGE EDGES TREE LIST STACK QUEUE BUFFER BUFSIZE CHUNK CHUNKS PIECE PAGE LINE \
        WORD BYTE BYTES BITS BIT SHORT LONG INT FLOAT DOUBLE REAL VECTOR MATRIX TENSOR ARRAY STRING TEXT CHAR BOOL VOID CONST \
        STATIC INLINE RESTRICT UNUSED EXPORT IMPORT API PUBLIC PRIVATE THREADS THREAD CORES WORKERS JOBS TIMEOUT TIME SECONDS VERSION \
        MAJOR MINOR PATCH RED GREEN BLUE WHITE BLACK GRAY ALIGN ALIGNMENT CACHE_LINE MAXIMUM MINIMUM INFINITE FOREVER MAGIC HEADER \
        ENTRY ENTRIES RECORD RECORDS FIELD FIELDS CAPACITY ROOM LIMIT LIMITS MOST LEAST BEST WORST STEP STEPS ROUND ROUNDS PASS \
        POINT POINTS TAPS TAP WINDOW BORDER SAME REFLECT CIRCULAR REPLICATE ZEROS ONES PERIOD PHASE AXIS X_MAX Y_MAX X_MIN Y_MIN; do
        number=$((number + 1))
        echo "#ifndef $name"
        echo "#define $name ($number . not a number)"
        echo '#endif'
    done
    for name in min max MIN MAX ABS abs_ lerp LERP swap SWAP clamp CLAMP sqr SQR square cube sign sgn mod div_up round_up ROUND_UP \
        ALIGN_UP array_size ARRAY_SIZE array_len countof COUNT_OF lengthof LENGTH_OF NELEM offset_of container_of likely unlikely \
        LIKELY UNLIKELY unused UNUSED_ARG stringify STRINGIFY CONCAT JOIN GLUE PASTE CAT foreach FOR EACH repeat REPEAT loop print \
        debug trace warn error fail die check CHECK ASSERT TRY CATCH THROW RAISE NEW DELETE ALLOC FREE free malloc \
        ZERO_OUT bit set_bit clear_bit BSWAP be32 le32 rgb RGB AT at idx IDX get GET set SET rnd randf uniform rgba deg2rad \
        dot cross norm mix step smoothstep saturate fract sum mean pool relu sigmoid softmax conv linear dropout; do
        echo "#undef $name"
        echo "#define $name(x) (x . not a call)"
    done
    echo '#define CNN_MALLOC(bytes) (malloc)(bytes)'
    echo '#define CNN_FREE(block) (free)(block)'
    sed '/train\.h/d; s/return train()/return cnn_find_backend("simd") == NULL/' whole.c
} >names.c
sed 's/return cnn_find_backend("simd") == NULL/return cnn_find_backend("simd") == nullptr/; s/(void)/()/' names.c >names.cpp

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

# each call that is given a path, without files: an error that names the path
cat >no_files.c <<'END'
#define CNN_IMPLEMENTATION
#include "cnn.h"
#define PATH "folder/file.safetensors"
static int refused(const char *message)
{
    return message && strstr(message, "CNN_NO_FILES") && !strncmp(message, "folder/file", 11);
}
static int refused_data(cnn_data *data)
{
    int good = refused(data->error);
    cnn_data_free(data);
    return good;
}
static int refused_net(cnn_net *net, int result)
{
    int good = !result && refused(cnn_error(net));
    cnn_clear_error(net);
    return good;
}
int main(void)
{
    cnn_net *net = cnn_new(1, 4, 4), *same = cnn_new(1, 4, 4);
    static unsigned char bytes[4096];
    char value[200];
    size_t size;
    float a[10], b[10];
    cnn_flatten(net);
    cnn_flatten(same);
    cnn_linear(net, .out_features = 2);
    cnn_linear(same, .out_features = 2);
    cnn_manual_seed(same, 1);
    cnn_adam(net, 0);
    if (!refused_net(net, cnn_load(net, PATH)) || !refused_net(net, cnn_save(net, PATH))) return 1;
    if (!refused_net(net, cnn_checkpoint_save(net, PATH)) || !refused_net(net, cnn_checkpoint_load(net, PATH))) return 2;
    if (!refused_net(net, cnn_export_c(net, PATH, "f"))) return 3;
    if (!refused_data(cnn_load_mnist("folder/file", "train")) || !refused_data(cnn_load_cifar10("folder/file", "test"))) return 4;
    if (!refused_data(cnn_load_idx(PATH, PATH, 10))) return 5;
    if (cnn_read_metadata(PATH, "key", value, sizeof value) || !strstr(value, "CNN_NO_FILES")) return 6;
    size = cnn_save_memory(net, ".safetensors", bytes, sizeof bytes);
    if (!size || size > sizeof bytes || !cnn_load_memory(same, bytes, size)) return 7;
    cnn_get(net, "1.bias", a, 10);
    cnn_get(same, "1.bias", b, 10);
    if (memcmp(a, b, 2 * sizeof *a)) return 8;
    cnn_free(net);
    cnn_free(same);
    return 0;
}
END

# ---- languages, compilers, optimization, threads ----

works 'C99' gcc -std=c99 $strict -O2 -Isub whole.c
works 'C11' gcc -std=c11 $strict -O0 -Isub whole.c
if there gcc; then
    mv result threads
    works 'C11, without threads' gcc -std=c11 $strict -O0 -DCNN_NO_THREADS -Isub whole.c
    cmp threads result >said 2>&1
    verdict 'threads change no bit of the result'
    works 'C11, without files' gcc -std=c11 $strict -O0 -DCNN_NO_THREADS -DCNN_NO_FILES -Isub whole.c
    cmp threads result >said 2>&1
    verdict 'files change no bit of the result'
    works 'files are refused' gcc -std=c99 $strict -O0 -DCNN_NO_FILES -Isub no_files.c
fi
works 'C99' clang -std=c99 $strict -O0 -Isub whole.c
works 'C11' clang -std=c11 $strict -O2 -Isub whole.c
works 'C++11' g++ -std=c++11 $strict -O2 -Isub whole.cpp
works 'C++17' g++ -std=c++17 $strict -O0 -Isub whole.cpp
works 'C++11, without files' g++ -std=c++11 $strict -O0 -DCNN_NO_FILES -Isub whole.cpp
works 'C++11, without threads' g++ -std=c++11 $strict -O0 -DCNN_NO_THREADS -Isub whole.cpp
works 'C++11' clang++ -std=c++11 $strict -O0 -Isub whole.cpp
works 'C++17' clang++ -std=c++17 $strict -O0 -Isub whole.cpp
works 'C++20, designated' g++ -std=c++20 $strict -O0 -Isub designated.cpp
works 'C++20, designated' clang++ -std=c++20 $strict -O0 -Isub designated.cpp
works 'C++20, all options' g++ -std=c++20 $strict -O0 -Isub options.cpp
works 'C++20, all options' clang++ -std=c++20 $strict -O0 -Isub options.cpp
works 'C++11, without zeroing' g++ -std=c++11 $strict -O0 -Isub plain.cpp

# ---- ways to include it ----

works 'two files' "$cc" -std=c99 $strict -O0 -Isub implementation.c user.c
works 'included before and after' "$cc" -std=c99 $strict -O0 -Isub plain_first.c
works 'by a relative path' "$cc" -std=c99 $strict -O0 user/relative.c
works 'POSIX and nothing else' "$cc" -std=c99 -D_POSIX_C_SOURCE=200112L -U__linux__ $strict -O0 -Isub whole.c
works 'under another name' gcc -std=c99 $strict -O0 renamed.c
works 'under another name' clang -std=c99 $strict -O0 renamed.c
works 'under another name' g++ -std=c++11 $strict -O0 renamed.cpp
works 'under another name, by -I' "$cc" -std=c99 $strict -O0 -I. -Iother user/renamed_by_path.c
works 'under another name, told' gcc -std=c99 $strict -Wno-builtin-macro-redefined -U__FILE_NAME__ '-DCNN_FILE_NAME="convnet.hpp"' -O0 renamed.c
works "programs' macros" "$cc" -std=c99 $strict -O0 -Isub names.c
works "programs' macros" g++ -std=c++11 $strict -O0 -Isub names.cpp
works 'own allocator' "$cc" -std=c99 $strict -O0 -Isub allocator.c
if there g++; then "$cc" -std=c99 -O0 -Isub -c implementation.c -o implementation.o; fi
works 'C from C++' g++ -std=c++11 $strict -O0 -Isub user.cpp implementation.o

# ---- what is refused, and 32 bits ----

refused 'fast math' 'without -ffast-math' gcc -O1 -ffast-math -Isub whole.c
refused 'fast math' 'without -ffast-math' clang -O1 -ffast-math -Isub whole.c
refused 'half an allocator' 'both CNN_MALLOC and CNN_FREE' "$cc" '-DCNN_MALLOC(bytes)=malloc(bytes)' -Isub whole.c
if links "$cc" -m32; then
    works '32 bits' "$cc" -m32 -msse2 -mfpmath=sse -std=c99 $strict -O0 -Isub whole.c
    works '32 bits, the i387' "$cc" -m32 -mfpmath=387 -std=c99 $strict -O2 -Isub whole.c
else skip "$cc does not link with -m32"; fi
if there clang && [ -d /usr/include/wasm32-wasi ]; then
    clang --target=wasm32-wasi -std=c99 $strict -O0 -msimd128 -DCNN_NO_THREADS -DCNN_NO_FILES -Isub -c whole.c -o whole.o >said 2>&1 && [ ! -s said ]
    verdict 'WebAssembly: clang --target=wasm32-wasi'
else skip 'clang or wasi-libc is not installed'; fi
if there arm-none-eabi-gcc; then
    arm-none-eabi-gcc -mcpu=cortex-m3 -std=c99 $strict -O0 -DCNN_NO_THREADS -DCNN_NO_FILES -Isub -c whole.c -o whole.o >said 2>&1 && [ ! -s said ]
    verdict 'a microcontroller: arm-none-eabi-gcc with newlib'
else skip 'arm-none-eabi-gcc is not installed'; fi
if there s390x-linux-gnu-gcc && there qemu-s390x; then
    s390x-linux-gnu-gcc -static -std=c99 $strict -O1 -Isub whole.c -o program -lm >said 2>&1 && [ ! -s said ] && qemu-s390x ./program >result 2>said
    verdict 's390x: highest byte first, and floats calculated as doubles'
else skip "s390x-linux-gnu-gcc or qemu-s390x is not installed"; fi

# ---- strict flags: none of their warnings come from cnn.h into its users' builds ----

conversions='-Wconversion -Wsign-conversion -Wdouble-promotion'
works 'strict conversions' gcc -std=c99 $strict $conversions -O0 -Isub whole.c
works 'strict conversions' clang -std=c99 $strict $conversions -O0 -Isub whole.c
works 'strict conversions' g++ -std=c++11 $strict $conversions -O0 -Isub whole.cpp
works 'strict conversions' clang++ -std=c++11 $strict $conversions -O0 -Isub whole.cpp

# ---- its names are its own ----

# Every name in capitals is CNN_..., or comes from a header that cnn.h includes (FILE and DIR are types, GCC stands in pragmas, L before strings).
# Comments, characters and strings are taken out first.
sed -n 's/^ *# *include *\(<.*>\).*/#include \1/p' sub/cnn.h | grep -v -e 'io\.h' -e 'process\.h' -e 'intrin\.h' | sort -u >headers.c
"$cc" -dM -E headers.c 2>/dev/null | sed 's/^#define \([A-Za-z0-9_]*\).*/\1/' | sort -u >theirs
printf '%s\n' FILE DIR L GCC STBI_INCLUDE_STB_IMAGE_H STBI_NO_ZLIB STBI_NO_STDIO >>theirs
gcc -fpreprocessed -dD -E -P sub/cnn.h 2>/dev/null | sed "s/'[^'\\\\]'//g"'; s/"\([^"\\]\|\\.\)*"//g' |
    grep -o '[A-Za-z0-9_]\{1,\}' | grep '^[A-Z][A-Z0-9_]*$' | sort -u | grep -v '^CNN_' | grep -v -x -F -f theirs >said
[ ! -s said ]
verdict 'names in capitals that a program may have defined'

# ---- the version ----

version=$(sed -n 's/^#define CNN_VERSION "\(.*\)".*/\1/p' sub/cnn.h)
numbers=$(sed -n 's/^#define CNN_VERSION_[MP][A-Z]* *\([0-9]*\).*/\1/p' sub/cnn.h | paste -sd .)
make -s -C "$root" install DESTDIR="$work/installed" PREFIX=/usr >said 2>&1
[ -n "$version" ] && [ "$version" = "$numbers" ] && grep -q -x "Version: $version" installed/usr/lib/pkgconfig/cnn.pc
verdict "the version is one: \"$version\", $numbers and that of cnn.pc"

if [ "$skipped" -gt 0 ]; then echo "compile: $passed passed, $failed failed, $skipped skipped"; else echo "compile: $passed passed, $failed failed"; fi
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
