/* ladder.c - from eq. 6.2 to the last kernel: one convolution, computed faster in each step by one idea.

       make ladder          or          build/ladder [rounds]

   The convolution is the second one of the lecture's MNIST network: 32 maps of 28 x 28 in, 64 out, kernels of 3 x 3,
   padded by 1; the last steps go back. The second ladder computes one image in place of 128. Each step is checked against the textbook's result, all are timed in turn, and
   GFLOP/s are those of the textbook's multiply-adds. The own steps are compiled with -fno-tree-vectorize: each shows its idea alone, and
   what a compiler makes of loops by itself comes to none of them. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include "../../cnn.h"
#include "measure.h"

enum {
    IN = 32, OUT = 64, SIDE = 28, KERNEL = 3, PAD = 1,
    PIXELS = SIDE * SIDE,                   /* of a map, before and after */
    TAPS = IN * KERNEL * KERNEL,            /* products in a sum: eq. 6.2 with all input maps */
    PANEL = 48,                             /* columns that are worked on together */
    WIDE = (PIXELS + PANEL - 1) / PANEL * PANEL,           /* rows are longer than needed, so that all panels are whole */
    BATCH = 128
};

/* ---- step 1: im2col and the naive product. The idea: a convolution is a product of matrices ----

   windows (TAPS, WIDE): row (c, y, x) is what that tap of the kernels sees at each pixel, column i all that pixel i is
   the sum over. Then  y (OUT, PIXELS) = u (OUT, TAPS) windows  with the kernels u as they lie in memory. */
static void im2col(float *windows, const float *z)
{
    int c, y, x, j, i;
    for (c = 0; c < IN; c++)
        for (y = 0; y < KERNEL; y++)
            for (x = 0; x < KERNEL; x++, windows += WIDE)
                for (j = 0; j < SIDE; j++)
                    for (i = 0; i < SIDE; i++) {
                        int row = j + y - PAD, column = i + x - PAD;
                        int inside = row >= 0 && row < SIDE && column >= 0 && column < SIDE;
                        windows[j * SIDE + i] = inside ? z[(c * SIDE + row) * SIDE + column] : 0;
                    }
}

static void product_naive(float *f, const float *u, const float *windows)
{
    int k, i, t;
    for (k = 0; k < OUT; k++)
        for (i = 0; i < PIXELS; i++)
            for (t = 0; t < TAPS; t++) f[k * WIDE + i] += u[k * TAPS + t] * windows[t * WIDE + i];
}

/* ---- step 2: blocked. The idea: use what is in the cache before it is gone ----

   The naive product walks down a column, a cache line a step, and comes back for the line's other 15 numbers when
   it has long been overwritten. A block of windows, 96 x 48 numbers = 18 KB, stays in the first cache while all
   kernels use it, and its rows are read from left to right. */
static void product_blocked(float *f, const float *u, const float *windows)
{
    enum { DEEP = 96 };
    int i0, t0, k, t, i;
    for (i0 = 0; i0 < WIDE; i0 += PANEL)
        for (t0 = 0; t0 < TAPS; t0 += DEEP)
            for (k = 0; k < OUT; k++)
                for (t = t0; t < t0 + DEEP; t++)
                    for (i = i0; i < i0 + PANEL; i++) f[k * WIDE + i] += u[k * TAPS + t] * windows[t * WIDE + i];
}

/* ---- step 3: packed panels and a tile in registers. The idea: load a number once, use it several times ----

   A multiply-add of step 2 also loads two numbers and stores one. Here 4 x 4 sums stay in registers over all taps: a
   tap loads 4 + 4 numbers for 16 multiply-adds. For that, a panel of windows is first copied to where its rows
   follow each other: the tile then reads memory strictly onwards. */
static void pack(float *panel, const float *windows)
{
    int t;
    for (t = 0; t < TAPS; t++) memcpy(panel + t * PANEL, windows + t * WIDE, sizeof *panel * PANEL);
}

static void tile_4x4(float *f, const float *u, const float *panel)
{
    float f00 = 0, f01 = 0, f02 = 0, f03 = 0, f10 = 0, f11 = 0, f12 = 0, f13 = 0;
    float f20 = 0, f21 = 0, f22 = 0, f23 = 0, f30 = 0, f31 = 0, f32 = 0, f33 = 0;
    int t;
    for (t = 0; t < TAPS; t++, u++, panel += PANEL) {
        float u0 = u[0], u1 = u[TAPS], u2 = u[2 * TAPS], u3 = u[3 * TAPS];
        float w0 = panel[0], w1 = panel[1], w2 = panel[2], w3 = panel[3];
        f00 += u0 * w0; f01 += u0 * w1; f02 += u0 * w2; f03 += u0 * w3;
        f10 += u1 * w0; f11 += u1 * w1; f12 += u1 * w2; f13 += u1 * w3;
        f20 += u2 * w0; f21 += u2 * w1; f22 += u2 * w2; f23 += u2 * w3;
        f30 += u3 * w0; f31 += u3 * w1; f32 += u3 * w2; f33 += u3 * w3;
    }
    f[0] += f00; f[1] += f01; f[2] += f02; f[3] += f03; f += WIDE;
    f[0] += f10; f[1] += f11; f[2] += f12; f[3] += f13; f += WIDE;
    f[0] += f20; f[1] += f21; f[2] += f22; f[3] += f23; f += WIDE;
    f[0] += f30; f[1] += f31; f[2] += f32; f[3] += f33;
}

static void product_packed(float *f, const float *u, const float *windows)
{
    static float panel[TAPS * PANEL];
    int i0, k, i;
    for (i0 = 0; i0 < WIDE; i0 += PANEL) {
        pack(panel, windows + i0);
        for (k = 0; k < OUT; k += 4)
            for (i = 0; i < PANEL; i += 4) tile_4x4(f + k * WIDE + i0 + i, u + k * TAPS, panel + i);
    }
}

/* ---- step 4: vectorised. The idea: a register holds 4, 8 or 16 numbers, and one instruction serves them all ----

   The same tile with a vector where step 3 has a number, and as many sums as there are registers for: ROWS x VECTORS
   of them. Each waits some cycles for its last multiply-add; there are enough of them that the units never do. */
#if defined(__AVX512F__)
enum { LANES = 16, ROWS = 8, VECTORS = 3 };
#elif defined(__AVX2__) && defined(__FMA__)
enum { LANES = 8, ROWS = 4, VECTORS = 3 };
#elif defined(__aarch64__)
enum { LANES = 4, ROWS = 8, VECTORS = 3 };
#else
enum { LANES = 4, ROWS = 4, VECTORS = 2 };
#endif

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static void tile_vectors(float *f, int pitch, const float *u, const float *panel)
{
    vector sum[ROWS][VECTORS], w[VECTORS];
    int t, r, v;
    MEASURE_UNROLL for (r = 0; r < ROWS; r++)
        MEASURE_UNROLL for (v = 0; v < VECTORS; v++) sum[r][v] = (vector){ 0 };
    for (t = 0; t < TAPS; t++, panel += PANEL) {
        MEASURE_UNROLL for (v = 0; v < VECTORS; v++) w[v] = *(const vector *)(panel + v * LANES);
        MEASURE_UNROLL for (r = 0; r < ROWS; r++)
            MEASURE_UNROLL for (v = 0; v < VECTORS; v++) sum[r][v] += u[r * TAPS + t] * w[v];
    }
    MEASURE_UNROLL for (r = 0; r < ROWS; r++)
        MEASURE_UNROLL for (v = 0; v < VECTORS; v++) *(vector *)(f + r * pitch + v * LANES) += sum[r][v];
}

static void product_vectorised(float *f, const float *u, const float *windows)
{
    static float panel[TAPS * PANEL];
    int i0, k, i;
    for (i0 = 0; i0 < WIDE; i0 += PANEL) {
        pack(panel, windows + i0);
        for (k = 0; k < OUT; k += ROWS)
            for (i = 0; i < PANEL; i += LANES * VECTORS) tile_vectors(f + k * WIDE + i0 + i, WIDE, u + k * TAPS, panel + i);
    }
}

/* ---- what all products have around them ---- */

typedef void product(float *f, const float *u, const float *windows);

static const float *z, *u, *b;              /* BATCH images, kernels, bias */
static float *y, *kept;                     /* kept: the maps before pooling, where pooling is a step of its own */
static const float *dy;                     /* for the way back: gradients, and the maps and winners that `fused` puts out */
static float *pooled;
static unsigned char *winners;

static void convolve(product *multiply, int images)
{
    static float windows[TAPS * WIDE], f[OUT * WIDE];
    int n, k, i;
    for (n = 0; n < images; n++) {
        im2col(windows, z + (size_t)n * IN * PIXELS);
        for (k = 0; k < OUT; k++)
            for (i = 0; i < WIDE; i++) f[k * WIDE + i] = b[k];
        multiply(f, u, windows);
        for (k = 0; k < OUT; k++) memcpy(y + ((size_t)n * OUT + k) * PIXELS, f + k * WIDE, sizeof *y * PIXELS);
    }
}

/* ---- step 5: panels straight from the image. The idea: do not write what can be read where it is ----

   im2col writes each number of the image nine times, and pack copies them all once more: by now that takes as long
   as the product. In an image with its border of zeros, what a tap sees along an output row lies side by side: the
   panel is copied from there, row by row. Each copy is a whole row, so that its length is known when this is
   compiled; what it writes too much is overwritten by the next. */
enum { HIGH = SIDE + 2 * PAD };             /* of a map with its border */

static void pack_straight(float *panel, const float *padded, int first)
{
    int c, y, x, i;
    for (c = 0; c < IN; c++)
        for (y = 0; y < KERNEL; y++)
            for (x = 0; x < KERNEL; x++, panel += PANEL)
                for (i = first; i < first + PANEL; i += SIDE - i % SIDE)
                    memcpy(panel + i - first, padded + (c * HIGH + y + i / SIDE) * HIGH + x + i % SIDE, sizeof *panel * SIDE);
}

static void convolve_straight(int images)
{
    static float padded[(IN * HIGH + 4) * HIGH], panel[TAPS * PANEL + SIDE], f[OUT * PANEL];
    int n, c, j, i0, k, i;
    for (n = 0; n < images; n++) {
        for (c = 0; c < IN; c++)
            for (j = 0; j < SIDE; j++)
                memcpy(padded + (c * HIGH + j + PAD) * HIGH + PAD, z + ((size_t)(n * IN + c) * SIDE + j) * SIDE,
                       sizeof *z * SIDE);
        for (i0 = 0; i0 < PIXELS; i0 += PANEL) {
            int width = PIXELS - i0 < PANEL ? PIXELS - i0 : PANEL;
            pack_straight(panel, padded, i0);
            for (k = 0; k < OUT; k++)
                for (i = 0; i < PANEL; i++) f[k * PANEL + i] = b[k];
            for (k = 0; k < OUT; k += ROWS)
                for (i = 0; i < PANEL; i += LANES * VECTORS) tile_vectors(f + k * PANEL + i, PANEL, u + k * TAPS, panel + i);
            for (k = 0; k < OUT; k++)
                memcpy(y + ((size_t)n * OUT + k) * PIXELS + i0, f + k * PANEL, sizeof *y * (size_t)width);
        }
    }
}

/* ---- the last steps: the library's own entries. The ideas: see cnn.h, >>simd, and one more each ---- */

typedef struct library { cnn_backend table; void *work; } library;

static library direct, simd[2];             /* simd: with 1 thread, and with all that this run has */
static instruction_set set;
static uint64_t weight_version;             /* 0: the library keeps nothing of the kernels between calls */

static cnn_conv2d_shape shape_of(int images, int fused)
{
    cnn_conv2d_shape s = { 0 };
    s.batch = images;
    s.in_channels = IN; s.out_channels = OUT; s.groups = 1;
    s.in_height = s.in_width = s.out_height = s.out_width = SIDE;
    s.kernel_height = s.kernel_width = KERNEL;
    s.stride_height = s.stride_width = s.dilation_height = s.dilation_width = 1;
    s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = PAD;
    s.weight_version = weight_version;
    if (!fused) return s;
    s.activation = CNN_RELU;
    s.pool.batch = images; s.pool.channels = OUT;
    s.pool.in_height = s.pool.in_width = SIDE; s.pool.out_height = s.pool.out_width = SIDE / 2;
    s.pool.kernel_height = s.pool.kernel_width = s.pool.stride_height = s.pool.stride_width = 2;
    return s;
}

static void convolve_entry(const library *l, int images, int fused, float *to)
{
    cnn_conv2d_shape s = shape_of(images, fused);
    l->table.conv2d_forward(l->table.context, &s, to, NULL, z, u, b, l->work);
}

static void convolve_then_relu_then_pool(const library *l, int images)
{
    cnn_pool2d_shape pool = shape_of(images, 1).pool;
    size_t n = (size_t)images * OUT * PIXELS;
    convolve_entry(l, images, 0, kept);
    l->table.activation_forward(l->table.context, CNN_RELU, 0, kept, kept, n);
    l->table.pool2d_forward(l->table.context, &pool, y, kept);
}

static void maps_for_the_way_back(const library *l, int images)
{
    cnn_conv2d_shape s = shape_of(images, 1);
    l->table.conv2d_forward(l->table.context, &s, pooled, winners, z, u, b, l->work);
}

/* The way back to dweight and dx. dweight ends in y, as of one pair of images. */
static void go_back(const library *l, int images, int fused)
{
    cnn_conv2d_shape s = shape_of(images, fused);
    int i;
    memset(y, 0, sizeof *y * OUT * TAPS);
    l->table.conv2d_backward(l->table.context, &s, kept, y, NULL, dy, fused ? pooled : kept, fused ? winners : NULL, z, u, l->work);
    for (i = 0; i < OUT * TAPS; i++) y[i] *= 2 / (float)images;
}

/* ---- the ladder ---- */

static void direct_step(int images) { convolve_entry(&direct, images, 0, y); }
static void naive_step(int images) { convolve(product_naive, images); }
static void blocked_step(int images) { convolve(product_blocked, images); }
static void packed_step(int images) { convolve(product_packed, images); }
static void vectorised_step(int images) { convolve(product_vectorised, images); }
static void straight_step(int images) { convolve_straight(images); }
static void simd_step(int images) { convolve_entry(&simd[0], images, 0, y); }
static void threads_step(int images) { convolve_entry(&simd[1], images, 0, y); }
static void apart_step(int images) { convolve_then_relu_then_pool(&simd[1], images); }
static void fused_step(int images) { convolve_entry(&simd[1], images, 1, y); }
static void back_step(int images) { go_back(&simd[1], images, 0); }
static void zeros_step(int images) { go_back(&simd[1], images, 1); }

/* One image. With as many as there are lanes, what is computed for the others would be computed for empty lanes, too. */
static void lane_step(int images) { convolve_entry(&simd[0], images * set.lanes, 0, y); }
static void parts_step(int images) { convolve_entry(&simd[0], images, 0, y); }

static void keep_and_convolve(const library *l, int images)
{
    weight_version = 1;
    convolve_entry(l, images, 0, y);
    weight_version = 0;
}

static void kept_step(int images) { keep_and_convolve(&simd[0], images); }
static void shares_step(int images) { keep_and_convolve(&simd[1], images); }

typedef struct step {
    const char *name, *idea;
    void (*run)(int images);
    int images;                             /* few for the slow ones */
    int fused;                              /* with ReLU and pooling */
    int threaded;
    int back;                               /* dweight and dx, twice the multiply-adds */
    series rates;
} step;

static step steps[] = {
    { "direct", "eq. 6.2 as it stands", direct_step, 2, 0, 0, 0, { 0 } },
    { "naive", "im2col and a product of matrices", naive_step, 2, 0, 0, 0, { 0 } },
    { "blocked", "use what is in the cache", blocked_step, 4, 0, 0, 0, { 0 } },
    { "packed", "panels, and a tile in registers", packed_step, 8, 0, 0, 0, { 0 } },
    { "vectorised", "many numbers an instruction", vectorised_step, 32, 0, 0, 0, { 0 } },
    { "straight", "panels from the image itself", straight_step, 32, 0, 0, 0, { 0 } },
    { "simd", "the library, one thread", simd_step, BATCH, 0, 0, 0, { 0 } },
    { "threads", "the library, all threads", threads_step, BATCH, 0, 1, 0, { 0 } },
    { "apart", "then ReLU, then max pooling", apart_step, BATCH, 1, 1, 0, { 0 } },
    { "fused", "all three in one entry", fused_step, BATCH, 1, 1, 0, { 0 } },
    { "back", "the way back, without activation", back_step, BATCH, 0, 1, 1, { 0 } },
    { "no zeros", "and behind ReLU and max pooling", zeros_step, BATCH, 1, 1, 1, { 0 } },
    { "direct", "eq. 6.2 as it stands", direct_step, 1, 0, 0, 0, { 0 } },
    { "straight", "pixels in the lanes, as above", straight_step, 1, 0, 0, 0, { 0 } },
    { "one lane", "an image a lane: the others are empty", lane_step, 1, 0, 0, 0, { 0 } },
    { "parts", "a part of the image in each lane", parts_step, 1, 0, 0, 0, { 0 } },
    { "kept", "Winograd's kernels from the last call", kept_step, 1, 0, 0, 0, { 0 } },
    { "shares", "output channels shared by all threads", shares_step, 1, 0, 1, 0, { 0 } }
};
enum { STEPS = sizeof steps / sizeof *steps, DIFFERENT = 2 };          /* image n is image n % DIFFERENT */

static void fail(const char *sentence)
{
    fprintf(stderr, "ladder: %s\n", sentence);
    exit(1);
}

static void *room_for(size_t n, size_t size)
{
    void *x = direct.table.alloc(direct.table.context, size * n);
    if (!x) fail("out of memory");
    return x;
}

static float *random_floats(size_t n, float low, float high)
{
    float *x = (float *)room_for(n, sizeof *x);
    uint32_t r = 1;
    size_t i;
    for (i = 0; i < n; i++) x[i] = low + (high - low) * (float)((r = r * 1664525u + 1013904223u) >> 8) / 16777216;
    return x;
}

static library open_library(const char *name, int threads)
{
    const int counts[] = { 1, DIFFERENT, set.lanes, BATCH };               /* few may need more than many */
    library l;
    char sentence[256] = "";
    size_t room = 1;
    int i;
    l.table = *cnn_find_backend(name);
    if (l.table.open && !(l.table.context = l.table.open(threads, sentence, sizeof sentence))) fail(sentence);
    for (i = 0; i < 8; i++) {
        cnn_conv2d_shape s = shape_of(counts[i / 2], i % 2);
        size_t needed = l.table.conv2d_work(l.table.context, &s);
        if (needed > room) room = needed;
    }
    l.work = l.table.alloc(l.table.context, room);
    if (!l.work) fail("out of memory");
    return l;
}

/* The largest difference between what a step puts out and what `direct` does (for DIFFERENT images), where values are about 1. */
static double difference(const step *s, const float *right)
{
    size_t different = s->images < DIFFERENT ? 1 : DIFFERENT;
    size_t values = s->back ? OUT * TAPS : OUT * PIXELS * different / (s->fused ? 4 : 1), n, i;
    size_t times = s->back ? 1 : (size_t)s->images / different;
    double worst = 0;
    memset(y, 0xFF, sizeof *y * values * times);           /* NaN, where nothing is written */
    s->run(s->images);
    for (n = 0; n < times; n++)
        for (i = 0; i < values; i++) {
            double apart = fabs((double)y[n * values + i] - right[i]);
            if (!(apart <= worst)) worst = apart == apart ? apart : HUGE_VAL;
        }
    return worst;
}

/* `count` images' worth of values, of which only the first DIFFERENT images are their own */
static float *repeated(size_t values, int count, float low, float high)
{
    float *x = random_floats(values * (size_t)count, low, high);
    int i;
    for (i = DIFFERENT; i < count; i++) memcpy(x + (size_t)i * values, x + (size_t)(i % DIFFERENT) * values, sizeof *x * values);
    return x;
}

/* What `direct` makes of DIFFERENT images: [back][fused] */
static void right_results(float *right[2][2])
{
    int fused;
    for (fused = 0; fused < 2; fused++) {
        right[0][fused] = (float *)room_for((size_t)OUT * PIXELS * DIFFERENT, sizeof(float));
        right[1][fused] = (float *)room_for(OUT * TAPS, sizeof(float));
        convolve_entry(&direct, DIFFERENT, fused, right[0][fused]);
    }
    maps_for_the_way_back(&direct, DIFFERENT);
    for (fused = 0; fused < 2; fused++) {
        go_back(&direct, DIFFERENT, fused);
        memcpy(right[1][fused], y, sizeof *y * OUT * TAPS);
    }
}

int main(int argc, char **argv)
{
    enum { WARM_UP = 2 };
    int rounds = argc > 1 ? atoi(argv[1]) : 30, most = processors() < 2 ? 1 : 2, i, r;
    size_t outputs = (size_t)OUT * PIXELS;
    double gflop = 2e-9 * OUT * PIXELS * TAPS, before = 0;
    float *right[2][2];
    series limits[2] = { { 0 }, { 0 } };

    if (rounds < 1) fail("the number of rounds is at least 1");
    set = best_instruction_set();
    direct = open_library("direct", 1);
    simd[0] = open_library("simd", 1);
    simd[1] = open_library("simd", most);
    z = repeated((size_t)IN * PIXELS, BATCH, 0, 1);
    u = random_floats(OUT * TAPS, -0.1f, 0.1f);
    b = random_floats(OUT, -1, 1);
    dy = repeated(outputs / 4, 4 * BATCH, -0.1f, 0.1f);    /* repeats itself for pooled maps and for whole ones */
    y = random_floats(outputs * BATCH, 0, 0);
    kept = random_floats(outputs * BATCH, 0, 0);
    pooled = random_floats(outputs * BATCH / 4, 0, 0);
    winners = (unsigned char *)room_for(outputs * BATCH / 4, 1);
    right_results(right);
    maps_for_the_way_back(&simd[0], BATCH);
    for (i = 0; i < STEPS; i++) {
        double apart = difference(&steps[i], right[steps[i].back][steps[i].fused]);
        if (apart <= 1e-4) continue;
        fprintf(stderr, "ladder: step %s is wrong: it differs from direct by %g\n", steps[i].name, apart);
        return 1;
    }
    for (r = 0; r < rounds + WARM_UP; r++) {
        for (i = 0; i < 2; i++) {
            add(&limits[i], limit(&set, i ? most : 1));
            if (r < WARM_UP) limits[i].count = 0;
        }
        for (i = 0; i < STEPS; i++) {
            double begun = seconds();
            steps[i].run(steps[i].images);
            if (r >= WARM_UP) add(&steps[i].rates, (steps[i].back ? 2 : 1) * gflop * steps[i].images / (seconds() - begun));
        }
    }
    printf("%s, %s, %s; medians of %d rounds\n", processor(), set.name, compiler(), rounds);
    printf("32 maps of 28 x 28 -> 64, 3 x 3: %.1f MFLOP an image; limit %.1f GFLOP/s with 1 thread, %.1f with %d\n\n",
           1e3 * gflop, median(&limits[0]), median(&limits[1]), most);
    printf("  %-11s %-37s %8s %7s %10s\n", "step", "idea", "GFLOP/s", "limit", "faster by");
    for (i = 0; i < STEPS; i++) {
        double rate = median(&steps[i].rates);
        int first = !i || (steps[i].images == 1 && steps[i - 1].images > 1);
        if (i && first) printf("\n  one image\n");
        printf("  %-11s %-37s %8.2f %6.1f%%", steps[i].name, steps[i].idea, rate,
               100 * rate / median(&limits[steps[i].threaded]));
        if (!first && steps[i].back == steps[i - 1].back) printf(" %8.2f x", rate / before);
        printf("\n");
        before = rate;
    }
    return 0;
}
