/* test_numbers.c - numbers at the edge, and numbers by chance. What an operation gives is compared with the equation in double
   here, not with another backend: so a bug that all backends share is seen. Each backend, and `simd` on each instruction set.

   1. Losses of logits of 1000 and -1000, of equal and of tiny ones; NaN; batches of 1 to 600; clipping up to its last gradient.
   2. Batches that leave a remainder in a unit of lanes, in small whole numbers, whose sums are exact.
   3. Dropout's share, the shuffle's and the split's fairness (chi-square), initialisation's distributions and bounds.
   4. Optimizers and schedules, options and defaults, against the same written as a loop of doubles.
   5. Data sets whose bytes are not all alike.
   6. Sentences that carry numbers: the numbers are the right ones, in the right order. */
#define _POSIX_C_SOURCE 200112L             /* setenv */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

#include <ctype.h>
#include <float.h>

static cnn_backend b;                       /* the one under test, opened */
static char whose[40];                      /* its name and instruction set, for messages */

static void ask_for_isa(const char *name)
{
#ifdef _WIN32
    _putenv_s("CNN_ISA", name);
#else
    if (*name) setenv("CNN_ISA", name, 1);
    else unsetenv("CNN_ISA");
#endif
}

/* Calls it on every backend, and on simd once for each instruction set that this machine has. */
static void on_each(void (*test)(void))
{
    static const struct { const char *backend, *isa; } all[] = {
        { "direct", "" }, { "simd", "baseline" }, { "simd", "avx2" }, { "simd", "avx512" }, { "cuda", "" }, { "cuda_naive", "" } };
    const char *asked = getenv("CNN_ISA");
    char before[40];
    size_t i;
    snprintf(before, sizeof before, "%s", asked ? asked : "");
    for (i = 0; i < sizeof all / sizeof *all; i++) {
        const cnn_backend *backend = cnn_find_backend(all[i].backend);
        char sentence[256] = "";
        if (!backend) continue;
        b = *backend;
        if (all[i].isa[0]) ask_for_isa(all[i].isa);
        snprintf(whose, sizeof whose, "%s %s", b.name, all[i].isa);
        if (b.open) b.context = b.open(3, sentence, sizeof sentence);
        if (!b.open || b.context) {
            test();
            if (b.close) b.close(b.context);
        } else if (!all[i].isa[0]) SKIP("%s: %s", whose, sentence);
        ask_for_isa(before);
    }
}

/* ---- arrays in the backend's memory ---- */

static void *sent(const void *host, size_t bytes)
{
    void *memory = b.alloc(b.context, bytes + 4);
    if (host) b.upload(b.context, memory, host, bytes);
    return memory;
}

static void fetch(void *host, void *memory, size_t bytes)  /* and gives the memory back */
{
    if (host) b.download(b.context, host, memory, bytes);
    b.free(b.context, memory);
}

static const cnn_cross_entropy_options plain_loss = { NULL, 0, 0, -100, 0 };

/* all n numbers as one parameter */
static cnn_span *one_span(size_t n, float weight_decay)
{
    cnn_span span;
    memset(&span, 0, sizeof span);
    span.count = n; span.weight_decay = weight_decay; span.trainable = 1;
    return (cnn_span *)sent(&span, sizeof span);
}

static double chance(uint32_t stream, size_t i)            /* in [0, 1) */
{
    uint32_t r[4];
    cnn_random(r, 99, stream, 7, (uint32_t)i);
    return (double)r[0] / 4294967296.0;
}

static int near(double a, double expected, double relative, double absolute)
{
    if (expected != expected) return a != a;
    if (fabs(expected) > DBL_MAX) return a == expected;
    return fabs(a - expected) <= absolute + relative * fabs(expected);
}

/* ---- 1. losses ---- */

enum { MOST = 600, WIDTH = 120 };
static float y_host[MOST * WIDTH], dy_host[MOST * WIDTH], target_host[MOST * WIDTH];
static int labels_host[MOST];

/* Two calls on the same rows: the last batch's numbers are of one, the sums of both. */
static void check_loss(const char *what, int mse, int targets, int labels, int batch, int outputs)
{
    size_t n = (size_t)batch * (size_t)outputs, i, bad = n;
    double loss = 0, worst = 0;
    int correct = 0, s, o;
    cnn_counters c;
    void *y = sent(y_host, n * 4), *dy = sent(NULL, n * 4), *t = sent(target_host, n * 4);
    int *l = (int *)sent(labels_host, (size_t)batch * 4);
    cnn_counters *counters;
    memset(&c, 0, sizeof c);
    c.loss_sum = 5; c.correct_sum = 3; c.seen = 2;
    counters = (cnn_counters *)sent(&c, sizeof c);
    for (i = 0; i < 2; i++) {
        if (mse) b.mse(b.context, counters, i ? (float *)dy : NULL, (float *)y, targets ? (float *)t : NULL, labels ? l : NULL, batch, outputs);
        else b.softmax_cross_entropy(b.context, counters, &plain_loss, i ? (float *)dy : NULL, (float *)y, NULL, l, batch, outputs);
    }
    fetch(dy_host, dy, n * 4); fetch(&c, counters, sizeof c);
    fetch(NULL, y, 0); fetch(NULL, t, 0); fetch(NULL, l, 0);
    for (s = 0; s < batch; s++) {
        const float *row = y_host + (size_t)s * (size_t)outputs;
        double largest = row[0], sum = 0;
        int best = 0;
        for (o = 1; o < outputs; o++) if (row[o] > largest) largest = row[o], best = o;
        for (o = 0; o < outputs; o++) sum += exp(row[o] - largest);
        correct += (!mse || labels) && best == labels_host[s];
        if (!mse) loss += log(sum) - (row[labels_host[s]] - largest);
        for (o = 0; o < outputs; o++) {
            size_t at = (size_t)s * (size_t)outputs + (size_t)o;
            double error = row[o] - (targets ? (double)target_host[at] : o == labels_host[s]);
            double expected = mse ? 2 * error / (double)n : (exp(row[o] - largest) / sum - (o == labels_host[s])) / batch;
            double off = fabs(dy_host[at] - expected) / (2e-6 / (mse ? (double)n : batch) + 2e-6 * fabs(expected));
            if (mse) loss += error * error;
            if (!(off <= worst)) worst = off == off ? off : HUGE_VAL, bad = at;
        }
    }
    loss /= mse ? (double)n : batch;
    CHECK(worst <= 1, "%s: %s, %d x %d: dy[%lu] is %g", whose, what, batch, outputs, (unsigned long)bad, dy_host[bad < n ? bad : 0]);
    CHECK(near(c.loss, loss, 2e-6, 1e-6) && near(c.loss_sum, 5 + 2 * batch * loss, 2e-6, 1e-6 * batch),
          "%s: %s, %d x %d: loss %.9g and sum %.9g, not %.9g and %.9g", whose, what, batch, outputs, c.loss, c.loss_sum, loss,
          5 + 2 * batch * loss);
    CHECK(c.correct == correct && c.correct_sum == 3 + 2 * correct && c.seen == 2 + 2 * batch,
          "%s: %s, %d x %d: %d correct, not %d; in all %d of %d", whose, what, batch, outputs, c.correct, correct, c.correct_sum, c.seen);
}

/* Batches up to 600, so more than one block of threads and more than 16 units of lanes, with and without a remainder. */
static void test_losses(void)
{
    static const int batches[] = { 1, 2, 3, 15, 16, 17, 31, 33, 127, 128, 129, 255, 256, 257, 271, 272, 273, 300, 511, 512, 513, 599, 600 };
    static const double sizes[] = { 1, 30, 1000, 1e-40 };
    size_t k, i, s;
    for (i = 0; i < MOST; i++) labels_host[i] = (int)(chance(1, i) * 7);
    for (s = 0; s < 4; s++) {
        for (i = 0; i < MOST * WIDTH; i++) {
            y_host[i] = (float)(sizes[s] * (s == 2 ? floor(chance(2, i) * 3) - 1 : 2 * chance(2, i) - 1));     /* 1000: many are equal */
            target_host[i] = (float)(2 * chance(3, i) - 1);
        }
        for (k = 0; k < sizeof batches / sizeof *batches; k++) {
            int outputs = k % 2 ? 7 : 11;
            check_loss("cross-entropy", 0, 0, 1, batches[k], outputs);
            if (s == 2) continue;
            check_loss("mse of labels", 1, 0, 1, batches[k], outputs);
            check_loss("mse of targets", 1, 1, 0, batches[k], outputs);
            check_loss("mse of targets and labels", 1, 1, 1, batches[k], outputs);
        }
    }
    for (i = 0; i < MOST * WIDTH; i++) y_host[i] = 0.25f;
    check_loss("equal logits", 0, 0, 1, 300, 40);
    check_loss("mse of more than 65536", 1, 0, 1, MOST, WIDTH);
    for (i = 0; i < MOST * WIDTH; i++) y_host[i] = -1e30f;
    check_loss("equal logits of -1e30", 0, 0, 1, 30, 9);
    for (i = 0; i < MOST; i++) labels_host[i] = 0;
    check_loss("one class", 0, 0, 1, 5, 1);
}

static void test_nan_loss(void)
{
    static const int labels[2] = { 1, 1 };
    float y[6] = { 0, 1, 2, 1, (float)NAN, 0 };
    cnn_counters c;
    void *memory = sent(y, sizeof y), *dy = sent(NULL, sizeof y), *l = sent(labels, sizeof labels);
    cnn_counters *counters;
    memset(&c, 0, sizeof c);
    counters = (cnn_counters *)sent(&c, sizeof c);
    b.softmax_cross_entropy(b.context, counters, &plain_loss, (float *)dy, (float *)memory, NULL, (int *)l, 2, 3);
    fetch(y, dy, sizeof y); fetch(&c, counters, sizeof c); fetch(NULL, memory, 0); fetch(NULL, l, 0);
    CHECK(c.loss != c.loss && c.loss_sum != c.loss_sum && c.seen == 2, "%s: a NaN among the logits: loss %g", whose, c.loss);
    CHECK(y[0] == y[0] && y[4] != y[4], "%s: a NaN among the logits: gradients %g and %g", whose, y[0], y[4]);
}

static void test_softmax(void)
{
    enum { CHANNELS = 5, PIXELS = 3, BATCH = 2, ALL = CHANNELS * PIXELS * BATCH };
    static const float logits[PIXELS * BATCH][CHANNELS] = {
        { 1000, 999, -1000, 0, 1000 }, { -1000, -1000, -1000, -1000, -1000 }, { 0, 1e-40f, -1e-40f, 0, 0 },
        { 89, 88, 87, 90, -104 }, { -500, -501, -502, 3e38f, 0 }, { 3, 1, 4, 1, 5 } };
    static const cnn_map_shape s = { BATCH, CHANNELS, PIXELS };
    float x[ALL], y[ALL];
    int p, c;
    void *to, *from;
    for (p = 0; p < PIXELS * BATCH; p++)
        for (c = 0; c < CHANNELS; c++) x[(p / PIXELS * CHANNELS + c) * PIXELS + p % PIXELS] = logits[p][c];
    from = sent(x, sizeof x); to = sent(NULL, sizeof y);
    b.softmax_forward(b.context, &s, (float *)to, (float *)from);
    fetch(y, to, sizeof y); fetch(NULL, from, 0);
    for (p = 0; p < PIXELS * BATCH; p++) {
        double largest = logits[p][0], sum = 0;
        for (c = 1; c < CHANNELS; c++) largest = fmax(largest, logits[p][c]);
        for (c = 0; c < CHANNELS; c++) sum += exp(logits[p][c] - largest);
        for (c = 0; c < CHANNELS; c++) {
            float got = y[(p / PIXELS * CHANNELS + c) * PIXELS + p % PIXELS];
            CHECK(near(got, exp(logits[p][c] - largest) / sum, 1e-6, 1e-30), "%s: softmax %d of pixel %d is %g", whose, c, p, got);
        }
    }
}

static void test_activations(void)
{
    static const float x[] = { 1000, -1000, 88, -88, 17, -17, 1e-20f, -1e-20f, 0, (float)NAN, 3e38f, -3e38f, 1, -1, 0.5f, -0.5f, 9, -9, 2 };
    enum { N = sizeof x / sizeof *x };
    float y[N];
    int f, i;
    for (f = CNN_RELU; f <= CNN_TANH; f++) {
        void *from = sent(x, sizeof x), *to = sent(NULL, sizeof y);
        b.activation_forward(b.context, (cnn_activation)f, 0.125f, (float *)to, (float *)from, N);
        fetch(y, to, sizeof y); fetch(NULL, from, 0);
        for (i = 0; i < N; i++) {
            double v = x[i], expected = f == CNN_RELU ? (v <= 0 ? 0 : v) : f == CNN_LEAKY_RELU ? (v > 0 ? v : 0.125 * v)
                                      : f == CNN_SIGMOID ? 1 / (1 + exp(-v)) : tanh(v);
            CHECK(near(y[i], expected, 1e-6, 1e-30), "%s: activation %d of %g is %g, not %g", whose, f, x[i], y[i], expected);
        }
    }
}

/* ---- clipping: every gradient is in the norm, and every one is scaled ---- */

static void check_clip(const char *what, const float *g, size_t n, float most)
{
    float *after = (float *)malloc(n * sizeof *after);
    double sum = 0, norm, factor;
    size_t i, bad = 0;
    cnn_counters c, *counters;
    cnn_span *spans;
    void *memory = sent(g, n * 4);
    memset(&c, 0, sizeof c);
    counters = (cnn_counters *)sent(&c, sizeof c);
    spans = one_span(n, 0);
    b.clip_grad_norm(b.context, counters, (float *)memory, n, spans, 1, most);
    fetch(NULL, spans, 0);
    fetch(after, memory, n * 4); fetch(&c, counters, sizeof c);
    for (i = 0; i < n; i++) sum += (double)g[i] * g[i];
    norm = sqrt(sum);
    factor = most / (norm + 1e-6);
    for (i = 0; i < n; i++) bad += !near(after[i], factor >= 1 ? g[i] : g[i] * (double)(float)factor, 2e-7, 0);
    CHECK(near(c.grad_norm, norm, 1e-9, 0), "%s: %s, %lu gradients: their norm is %.12g, not %.12g", whose, what, (unsigned long)n,
          c.grad_norm, norm);
    CHECK(!bad, "%s: %s, %lu gradients to %g: %lu are wrong", whose, what, (unsigned long)n, most, (unsigned long)bad);
    free(after);
}

static void test_clipping(void)
{
    static float g[200003];
    static const size_t counts[] = { 1, 2, 255, 256, 257, 65535, 65536, 65537, 131073, 200003 };
    size_t k, i;
    for (i = 0; i < 200003; i++) g[i] = (float)(chance(4, i) - 0.5);
    for (k = 0; k < sizeof counts / sizeof *counts; k++) {
        float last = g[counts[k] - 1];
        check_clip("clipped", g, counts[k], 0.125f);
        check_clip("not clipped", g, counts[k], 1e4f);
        g[counts[k] - 1] = 1e3f;                           /* the last one weighs more than all the others */
        check_clip("the last is large", g, counts[k], 1);
        g[counts[k] - 1] = last;
    }
    for (i = 0; i < 300; i++) g[i] = 1e25f;                /* the squares are beyond float */
    check_clip("of 1e25", g, 300, 2);
    for (i = 0; i < 300; i++) g[i] = 1e-25f;
    check_clip("of 1e-25", g, 300, 1);
    for (i = 0; i < 3; i++) g[i] = (float)(i + 1);
    check_clip("at the limit", g, 3, (float)sqrt(14));
    g[1] = (float)NAN;                                     /* as PyTorch: then all are NaN, which a loss soon shows */
    check_clip("a NaN", g, 3, 1);
    g[1] = (float)INFINITY;                                /* and with an infinity the others are 0 */
    check_clip("an infinity", g, 3, 1);
}

/* ---- 2. batches that do not fill the last unit of lanes ---- */

static void whole_numbers(float *to, size_t n, uint32_t stream)
{
    size_t i;
    for (i = 0; i < n; i++) to[i] = (float)((int)(chance(stream, i) * 5) - 2);
}

enum { IN = 2, OUT = 3, SIDE = 4, IMAGE = IN * SIDE * SIDE, POOLED = OUT * 4, KERNELS = OUT * IN * 9 };
static float x_host[MOST * IMAGE], f_host[MOST * OUT * SIDE * SIDE], weight_host[KERNELS], bias_host[OUT];

static float beyond(int n, int c, int row, int column)     /* zeros around the image */
{
    if (row < 0 || column < 0 || row >= SIDE || column >= SIDE) return 0;
    return x_host[((n * IN + c) * SIDE + row) * SIDE + column];
}

/* relu(conv) and a pool of 2 x 2, forward and backward, against plain loops: all sums are whole, so all must be equal. */
static void check_batch(int batch)
{
    static float pooled[MOST * POOLED], dy[MOST * POOLED], dx[MOST * IMAGE], df[MOST * OUT * SIDE * SIDE], expected_dx[MOST * IMAGE];
    float dweight[KERNELS] = { 0 }, dbias[OUT] = { 0 }, got_dweight[KERNELS], got_dbias[OUT];
    size_t images = (size_t)batch, outputs = images * POOLED;
    int n, k, c, row, column, j, i, wrong_y = 0, wrong_dx = 0;
    cnn_conv2d_shape s;
    void *x = sent(x_host, images * IMAGE * 4), *w = sent(weight_host, sizeof weight_host), *bias = sent(bias_host, sizeof bias_host);
    void *y = sent(NULL, outputs * 4), *index = sent(NULL, outputs), *from, *to = sent(NULL, images * IMAGE * 4), *work;
    void *dw = sent(dweight, sizeof dweight), *db = sent(dbias, sizeof dbias);
    memset(&s, 0, sizeof s);
    s.batch = batch; s.in_channels = IN; s.in_height = s.in_width = SIDE;
    s.out_channels = OUT; s.out_height = s.out_width = SIDE;
    s.kernel_height = s.kernel_width = 3; s.stride_height = s.stride_width = s.dilation_height = s.dilation_width = 1;
    s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = 1; s.groups = 1;
    s.activation = CNN_RELU;
    s.pool.batch = batch; s.pool.channels = OUT; s.pool.in_height = s.pool.in_width = SIDE; s.pool.out_height = s.pool.out_width = 2;
    s.pool.kernel_height = s.pool.kernel_width = s.pool.stride_height = s.pool.stride_width = 2;
    work = sent(NULL, b.conv2d_work(b.context, &s) + 64);
    b.conv2d_forward(b.context, &s, (float *)y, (unsigned char *)index, (float *)x, (float *)w, (float *)bias, work);
    whole_numbers(dy, outputs, 12);
    from = sent(dy, outputs * 4);
    b.conv2d_backward(b.context, &s, (float *)to, (float *)dw, (float *)db, (float *)from, (float *)y, (unsigned char *)index, (float *)x,
                      (float *)w, work);
    fetch(pooled, y, outputs * 4); fetch(dx, to, images * IMAGE * 4);
    fetch(got_dweight, dw, sizeof dweight); fetch(got_dbias, db, sizeof dbias);
    fetch(NULL, x, 0); fetch(NULL, w, 0); fetch(NULL, bias, 0); fetch(NULL, index, 0); fetch(NULL, from, 0); fetch(NULL, work, 0);
    memset(df, 0, sizeof df);
    memset(expected_dx, 0, sizeof expected_dx);
    for (n = 0; n < batch; n++)
        for (k = 0; k < OUT; k++)
            for (row = 0; row < 2; row++)
                for (column = 0; column < 2; column++) {
                    float *map = f_host + (n * OUT + k) * SIDE * SIDE, largest;
                    int at = (n * OUT + k) * 4 + row * 2 + column, winner = 2 * row * SIDE + 2 * column;
                    for (i = 1; i < 4; i++) {
                        int other = (2 * row + i / 2) * SIDE + 2 * column + i % 2;
                        if (map[other] > map[winner]) winner = other;
                    }
                    largest = map[winner];
                    wrong_y += pooled[at] != largest;
                    if (largest > 0) df[(n * OUT + k) * SIDE * SIDE + winner] = dy[at];
                }
    for (n = 0; n < batch; n++)
        for (k = 0; k < OUT; k++)
            for (row = 0; row < SIDE; row++)
                for (column = 0; column < SIDE; column++) {
                    float d = df[((n * OUT + k) * SIDE + row) * SIDE + column];
                    if (d == 0) continue;
                    dbias[k] += d;
                    for (c = 0; c < IN; c++)
                        for (j = 0; j < 3; j++)
                            for (i = 0; i < 3; i++) {
                                int r = row + j - 1, q = column + i - 1;
                                dweight[((k * IN + c) * 3 + j) * 3 + i] += d * beyond(n, c, r, q);
                                if (r >= 0 && q >= 0 && r < SIDE && q < SIDE)
                                    expected_dx[((n * IN + c) * SIDE + r) * SIDE + q] += d * weight_host[((k * IN + c) * 3 + j) * 3 + i];
                            }
                }
    for (i = 0; i < batch * IMAGE; i++) wrong_dx += dx[i] != expected_dx[i];
    CHECK(!wrong_y, "%s: a batch of %d: %d outputs are wrong", whose, batch, wrong_y);
    CHECK(!wrong_dx, "%s: a batch of %d: %d values of dx are wrong", whose, batch, wrong_dx);
    CHECK(!memcmp(dweight, got_dweight, sizeof dweight) && !memcmp(dbias, got_dbias, sizeof dbias), "%s: a batch of %d: dweight", whose, batch);
}

/* The same of a linear layer, of an average and of a gathered batch: beside `direct`, whose sums are exact too. */
static void check_batch_of_rows(int batch)
{
    enum { FEATURES = 37, UNITS = 10, MAPS = 3, EDGE = 5, SMALL = 2 };
    static float rows[MOST * FEATURES], dy[MOST * UNITS], y[2][MOST * UNITS], dx[2][MOST * FEATURES], images[MOST * MAPS * EDGE * EDGE];
    static float means[2][MOST * MAPS * SMALL * SMALL], dimages[2][MOST * MAPS * EDGE * EDGE], seen[2][MOST * FEATURES];
    static int order[MOST];
    static const float scale = 2, shift = -3;
    float weight[FEATURES * UNITS], bias[UNITS], dweight[2][FEATURES * UNITS], dbias[2][UNITS];
    const cnn_backend tested = b;
    size_t n = (size_t)batch;
    int side, i;
    whole_numbers(rows, n * FEATURES, 14); whole_numbers(dy, n * UNITS, 15); whole_numbers(images, n * MAPS * EDGE * EDGE, 16);
    whole_numbers(weight, FEATURES * UNITS, 17); whole_numbers(bias, UNITS, 18);
    for (i = 0; i < batch; i++) order[i] = (int)(chance(19, (size_t)i) * batch);
    for (side = 0; side < 2; side++) {
        cnn_linear_shape s;
        cnn_pool2d_shape p;
        cnn_gather_shape m;
        cnn_counters c;
        void *x, *w, *h, *to, *from, *dw, *db, *work, *in, *out, *back, *k, *chosen, *batch_of, *a, *add;
        if (!side) b = *cnn_find_backend("direct");
        else b = tested;
        memset(&s, 0, sizeof s); memset(&p, 0, sizeof p); memset(&c, 0, sizeof c); memset(&m, 0, sizeof m);
        s.batch = batch; s.in_features = FEATURES; s.out_features = UNITS; s.activation = CNN_RELU;
        p.batch = batch; p.channels = MAPS; p.in_height = p.in_width = EDGE; p.out_height = p.out_width = SMALL; p.average = 1;
        p.kernel_height = p.kernel_width = p.stride_height = p.stride_width = 2;
        m.batch = batch; m.channels = 1; m.height = 1; m.width = FEATURES;
        memset(dweight[side], 0, sizeof dweight[side]); memset(dbias[side], 0, sizeof dbias[side]);
        x = sent(rows, n * FEATURES * 4); w = sent(weight, sizeof weight); h = sent(bias, sizeof bias); to = sent(NULL, n * UNITS * 4);
        from = sent(dy, n * UNITS * 4); dw = sent(dweight[side], sizeof weight); db = sent(dbias[side], sizeof bias);
        back = sent(NULL, n * FEATURES * 4);
        work = sent(NULL, b.linear_work(b.context, &s) + 64);
        b.linear_forward(b.context, &s, (float *)to, (float *)x, (float *)w, (float *)h, work);
        b.linear_backward(b.context, &s, (float *)back, (float *)dw, (float *)db, (float *)from, (float *)to, (float *)x, (float *)w, work);
        fetch(y[side], to, n * UNITS * 4); fetch(dx[side], back, n * FEATURES * 4);
        fetch(dweight[side], dw, sizeof weight); fetch(dbias[side], db, sizeof bias);
        fetch(NULL, w, 0); fetch(NULL, h, 0); fetch(NULL, from, 0); fetch(NULL, work, 0);
        in = sent(images, n * MAPS * EDGE * EDGE * 4); out = sent(NULL, n * MAPS * SMALL * SMALL * 4);
        back = sent(NULL, n * MAPS * EDGE * EDGE * 4);
        b.pool2d_forward(b.context, &p, (float *)out, (float *)in);
        b.pool2d_backward(b.context, &p, (float *)back, (float *)out, (float *)in);
        fetch(means[side], out, n * MAPS * SMALL * SMALL * 4); fetch(dimages[side], back, n * MAPS * EDGE * EDGE * 4); fetch(NULL, in, 0);
        k = sent(&c, sizeof c); chosen = sent(order, n * 4); batch_of = sent(NULL, n * FEATURES * 4);
        a = sent(&scale, 4); add = sent(&shift, 4);
        b.gather(b.context, (cnn_counters *)k, &m, (float *)batch_of, NULL, (float *)x, (int *)chosen, (float *)a, (float *)add);
        fetch(seen[side], batch_of, n * FEATURES * 4);
        fetch(NULL, k, 0); fetch(NULL, chosen, 0); fetch(NULL, a, 0); fetch(NULL, add, 0); fetch(NULL, x, 0);
    }
    CHECK(!memcmp(y[0], y[1], n * UNITS * 4) && !memcmp(dx[0], dx[1], n * FEATURES * 4) && !memcmp(dweight[0], dweight[1], sizeof weight)
          && !memcmp(dbias[0], dbias[1], sizeof bias), "%s: a linear layer of a batch of %d", whose, batch);
    CHECK(test_distance(means[1], means[0], n * MAPS * SMALL * SMALL, 1e-6, 1e-6) <= 1
          && test_distance(dimages[1], dimages[0], n * MAPS * EDGE * EDGE, 1e-6, 1e-6) <= 1, "%s: averages of a batch of %d", whose, batch);
    CHECK(!memcmp(seen[0], seen[1], n * FEATURES * 4), "%s: a gathered batch of %d", whose, batch);
}

static void test_batches(void)
{
    int n, k, c, row, column, j, i, on_cpu = b.reads_host, step = getenv("CNN_TEST_SHORT") ? 13 : 1;
    whole_numbers(x_host, MOST * IMAGE, 10);
    whole_numbers(weight_host, KERNELS, 11);
    whole_numbers(bias_host, OUT, 13);
    for (n = 0; n < MOST; n++)
        for (k = 0; k < OUT; k++)
            for (row = 0; row < SIDE; row++)
                for (column = 0; column < SIDE; column++) {
                    float sum = bias_host[k];
                    for (c = 0; c < IN; c++)
                        for (j = 0; j < 3; j++)
                            for (i = 0; i < 3; i++) sum += beyond(n, c, row + j - 1, column + i - 1) * weight_host[((k * IN + c) * 3 + j) * 3 + i];
                    f_host[((n * OUT + k) * SIDE + row) * SIDE + column] = sum > 0 ? sum : 0;
                }
    for (n = 1; n <= MOST; n += n < 36 || n % 16 == 15 || n % 16 == 0 ? 1 : on_cpu ? step : 97)
        if (on_cpu || n < 10 || n > 250) {
            check_batch(n);
            check_batch_of_rows(n);
        }
    check_batch(MOST);
    check_batch_of_rows(MOST);
}

/* One value a thread, through more values than any one block or chunk has. */
static void test_steps(void)
{
    enum { N = 70001 };
    static float w[N], g[N], v[N], after[N], moved[N];
    cnn_sgd_options o;
    cnn_counters c, *counters;
    cnn_span *spans;
    void *weight, *gradient, *velocity;
    size_t i, bad = 0;
    for (i = 0; i < N; i++) w[i] = (float)chance(20, i), g[i] = (float)(chance(21, i) - 0.5), v[i] = (float)(chance(22, i) - 0.5);
    memset(&o, 0, sizeof o);
    o.momentum = 0.5f; o.nesterov = 1; o.weight_decay = 0.25f;
    memset(&c, 0, sizeof c);
    c.lr = 0.125;
    counters = (cnn_counters *)sent(&c, sizeof c);
    weight = sent(w, sizeof w); gradient = sent(g, sizeof g); velocity = sent(v, sizeof v);
    spans = one_span(N, 0.25f);
    b.sgd_step(b.context, counters, &o, (float *)weight, (float *)velocity, (float *)gradient, N, spans, 1);
    fetch(NULL, spans, 0);
    fetch(after, weight, sizeof w); fetch(moved, velocity, sizeof v); fetch(NULL, gradient, 0); fetch(&c, counters, sizeof c);
    for (i = 0; i < N; i++) {
        double d = g[i] + 0.25 * w[i], m = 0.5 * v[i] + d;
        bad += !near(moved[i], m, 1e-6, 1e-6) || !near(after[i], w[i] - 0.125 * (d + 0.5 * m), 1e-6, 1e-6);
    }
    CHECK(!bad && c.step == 1, "%s: %lu of %d weights are wrong after SGD's step %d", whose, (unsigned long)bad, N, (int)c.step);
}

/* ---- 3. by chance ---- */

/* A value is kept if its random number is p or more. */
static void test_dropout_bound(void)
{
    enum { N = 40, AT = 21 };
    static float x[N], y[N];
    cnn_counters c, *counters;
    void *from, *to;
    int i;
    float p;
    for (i = 0; i < N; i++) x[i] = 1;
    memset(&c, 0, sizeof c);
    c.seed = 5;
    p = cnn__unit(cnn__word(c.seed, 2, 0, AT));
    from = sent(x, sizeof x); to = sent(NULL, sizeof x); counters = (cnn_counters *)sent(&c, sizeof c);
    b.dropout_forward(b.context, counters, 2, p, (float *)to, (float *)from, N);
    fetch(y, to, sizeof x); fetch(NULL, from, 0); fetch(NULL, counters, 0);
    CHECK(p > 0 && p < 1 && y[AT] > 0, "%s: %g is left out by p = %g", whose, p, p);
    for (i = 0; i < N; i++) CHECK((y[i] > 0) == (cnn__unit(cnn__word(c.seed, 2, 0, (size_t)i)) >= p), "%s: value %d", whose, i);
}

static void test_dropout(void)
{
    enum { N = 100003 };
    static float x[N], y[3][N];
    static const float shares[] = { 0.1f, 0.5f, 0.9f };
    size_t k, i;
    int m;
    for (i = 0; i < N; i++) x[i] = (float)(1 + chance(30, i));
    for (k = 0; k < 3; k++) {
        float p = shares[k];
        double both = 0, pairs = 0;
        for (m = 0; m < 3; m++) {                          /* another layer, another pass */
            size_t zeros = 0, wrong = 0;
            cnn_counters c, *counters;
            void *from = sent(x, sizeof x), *to = sent(NULL, sizeof x);
            memset(&c, 0, sizeof c);
            c.seed = 5; c.pass = (uint64_t)(m == 2) << 33;
            counters = (cnn_counters *)sent(&c, sizeof c);
            b.dropout_forward(b.context, counters, 2 + (m == 1), p, (float *)to, (float *)from, N);
            fetch(y[m], to, sizeof x); fetch(NULL, from, 0); fetch(NULL, counters, 0);
            for (i = 0; i < N; i++) {
                zeros += y[m][i] == 0;
                wrong += y[m][i] != 0 && !near(y[m][i], x[i] / (1.0 - p), 1e-6, 0);
                pairs += m == 0 && i && y[0][i] == 0 && y[0][i - 1] == 0;
                both += m && y[m][i] == 0 && y[0][i] == 0;
            }
            CHECK(fabs((double)zeros / N - p) < 5 * sqrt(p * (1.0 - p) / N), "%s: dropout of %g leaves %lu of %d out", whose, p,
                  (unsigned long)zeros, N);
            CHECK(!wrong, "%s: dropout of %g: %lu values have not grown by 1 / (1 - p)", whose, p, (unsigned long)wrong);
        }
        CHECK(fabs(both / N - 2 * p * (double)p) < 0.02 && fabs(pairs / N - p * (double)p) < 0.01,
              "%s: dropout of %g: masks depend on one another: %g, neighbours %g", whose, p, both / N, pairs / N);
    }
}

/* Chi-square of counts that should all be equal, in deviations from its mean: beyond 5 is no chance. */
static double unfairness(const int *counts, int n, double freedom)
{
    double all = 0, sum = 0;
    int i;
    for (i = 0; i < n; i++) all += counts[i];
    for (i = 0; i < n; i++) sum += (counts[i] - all / n) * (counts[i] - all / n) / (all / n);
    return (sum - freedom) / sqrt(2 * freedom);
}

static int place_among(const int *order, int n)            /* the number of a permutation, from 0 */
{
    int place = 0, i, k;
    for (i = 0; i < n; i++) {
        int less = 0;
        for (k = i + 1; k < n; k++) less += order[k] < order[i];
        place = place * (n - i) + less;
    }
    return place;
}

static cnn_data *numbered(int count)                       /* sample i is the number i */
{
    static float values[2000];
    static int labels[2000];
    int i;
    for (i = 0; i < count; i++) values[i] = (float)i, labels[i] = i % 7;
    return cnn_data_new(.count = count, .channels = 1, .height = 1, .width = 1, .classes = 7, .floats = values, .labels = labels);
}

static void test_shuffle(void)
{
    enum { FOUR = 4, DRAWS = 24000, TEN = 10 };
    int permutations[24], places[TEN * TEN], order[2000], seen[2000], epochs, i, n, good = 1;
    cnn_batch batch;
    for (epochs = 0; epochs < 2; epochs++) {               /* over seeds, then over the epochs of one loader */
        cnn_data *four = numbered(FOUR), *ten = numbered(TEN);
        cnn_loader *all_four = cnn_loader_new(four, .batch_size = FOUR, .shuffle = 1, .seed = 1);
        cnn_loader *all_ten = cnn_loader_new(ten, .batch_size = TEN, .shuffle = 1, .seed = 1);
        memset(permutations, 0, sizeof permutations);
        memset(places, 0, sizeof places);
        for (i = 0; i < DRAWS; i++) {
            cnn_loader *one = epochs ? all_four : cnn_loader_new(four, .batch_size = FOUR, .shuffle = 1, .seed = (uint64_t)i);
            cnn_loader *other = epochs ? all_ten : cnn_loader_new(ten, .batch_size = TEN, .shuffle = 1, .seed = (uint64_t)i << 32);
            if (cnn_next(one, &batch)) permutations[place_among(batch.order, FOUR) % 24]++;
            if (cnn_next(other, &batch)) for (n = 0; n < TEN; n++) places[n * TEN + batch.order[n] % TEN]++;
            good = good && (!epochs || (!cnn_next(one, &batch) && !cnn_next(other, &batch)));
            if (!epochs) cnn_loader_free(one), cnn_loader_free(other);
        }
        CHECK(unfairness(permutations, 24, 23) < 5, "shuffles of 4, over %s: chi-square is %.1f deviations off", epochs ? "epochs" : "seeds",
              unfairness(permutations, 24, 23));
        CHECK(unfairness(places, TEN * TEN, 81) < 5, "places in shuffles of 10, over %s: chi-square is %.1f deviations off",
              epochs ? "epochs" : "seeds", unfairness(places, TEN * TEN, 81));
        cnn_loader_free(all_four); cnn_loader_free(all_ten);
        cnn_data_free(four); cnn_data_free(ten);
    }
    CHECK(good, "an epoch of one batch has two");
    for (n = 1; n < 2000; n = n * 3 / 2 + 1) {             /* no sample is lost, whatever the batches */
        cnn_data *data = numbered(n);
        int size = n / 3 + 1, drop = n % 2, at = 0, batches = 0;
        cnn_loader *loader = cnn_loader_new(data, .batch_size = size, .shuffle = 1, .drop_last = drop, .seed = 4);
        while (cnn_next(loader, &batch)) {
            CHECK(batch.size == size || (!drop && at + batch.size == n), "a batch of %d of %d", batch.size, n);
            memcpy(order + at, batch.order, sizeof *order * (size_t)batch.size);
            at += batch.size;
            batches++;
        }
        CHECK(at == (drop ? n / size * size : n) && batches == cnn_batches(loader), "%d of %d samples in %d batches", at, n, batches);
        memset(seen, 0, sizeof seen);
        for (i = 0, good = 1; i < at; i++) good = good && order[i] >= 0 && order[i] < n && !seen[order[i]]++;
        CHECK(good, "a sample of %d comes twice", n);
        cnn_loader_free(loader);
        cnn_data_free(data);
    }
}

static void test_split(void)
{
    enum { COUNT = 5, TAKEN = 2, DRAWS = 6000 };
    int pairs[COUNT * COUNT] = { 0 }, fair[COUNT * (COUNT - 1)], i, n = 0, k, same = 0;
    for (i = 0; i < DRAWS; i++) {
        cnn_data *data = numbered(COUNT), *first, *second;
        int bits = 0;
        cnn_random_split(data, TAKEN, (uint64_t)i, &first, &second);
        for (k = 0; k < COUNT - TAKEN; k++) bits |= 1 << (int)first->floats[k], same += first->labels[k] == (int)first->floats[k];
        for (k = 0; k < TAKEN; k++) bits |= 1 << (int)second->floats[k], same += second->labels[k] == (int)second->floats[k];
        n += bits == (1 << COUNT) - 1;
        pairs[(int)second->floats[0] * COUNT + (int)second->floats[1]]++;
        cnn_data_free(first); cnn_data_free(second); cnn_data_free(data);
    }
    CHECK(n == DRAWS && same == DRAWS * COUNT, "of %d splits %d have every sample; %d labels are right", DRAWS, n, same);
    for (i = n = 0; i < COUNT * COUNT; i++) if (i / COUNT != i % COUNT) fair[n++] = pairs[i];
    CHECK(unfairness(fair, n, n - 1) < 5, "splits of 5: chi-square is %.1f deviations off", unfairness(fair, n, n - 1));
}

/* The bounds of a uniform distribution are nearly reached, its quarters are full; a normal one has its tails; no two are alike. */
static void check_begun(const char *what, const float *w, size_t n, double bound, double deviation)
{
    double sum = 0, square = 0, neighbours = 0, negative = 0, outer = 0, apart = 0, most = 0, variance;
    size_t i;
    variance = deviation > 0 ? deviation * deviation : bound * bound / 3;
    for (i = 0; i < n; i++) {
        double v = w[i];
        sum += v; square += v * v;
        if (i) neighbours += v * w[i - 1];
        if (i > 1) apart += v * w[i - 2];
        negative += v < 0;
        outer += fabs(v) > (deviation > 0 ? 2 * deviation : bound / 2);
        most = fmax(most, fabs(v));
    }
    CHECK(fabs(sum / (double)n) < 5 * sqrt(variance / (double)n), "%s: mean %g", what, sum / (double)n);
    CHECK(fabs(square / (double)n / variance - 1) < 8 / sqrt((double)n), "%s: variance %g, not %g", what, square / (double)n, variance);
    CHECK(fabs(negative / (double)n - 0.5) < 2.5 / sqrt((double)n), "%s: %g are negative", what, negative / (double)n);
    CHECK(fabs(outer / (double)n - (deviation > 0 ? 0.0455 : 0.5)) < 2.5 / sqrt((double)n), "%s: %g are far out", what, outer / (double)n);
    CHECK(fabs(neighbours) / (double)n < 5 * variance / sqrt((double)n) && fabs(apart) / (double)n < 5 * variance / sqrt((double)n),
          "%s: neighbours are alike", what);
    if (deviation <= 0) CHECK(most <= bound * 1.0000001 && most > bound * (1 - 12 / (double)n), "%s: %g is the largest, within %g", what, most, bound);
    else CHECK(most > 3 * deviation && most < 6 * deviation, "%s: %g deviations is the largest", what, most / deviation);
}

static void test_init(void)
{
    static float w[20000], other[20000];
    static const struct { cnn_init init; double of_fan_in, of_both; } kinds[] = {       /* variances: 1 / these */
        { CNN_INIT_DEFAULT, 3, 0 }, { CNN_KAIMING_UNIFORM, 0.5, 0 }, { CNN_KAIMING_NORMAL, 0.5, 0 },
        { CNN_XAVIER_UNIFORM, 0, 0.5 }, { CNN_XAVIER_NORMAL, 0, 0.5 } };
    int k, second;
    for (k = 0; k < 5; k++) {
        cnn_net *net = cnn_new(4, 8, 8), *again = cnn_new(4, 8, 8);
        int normal = kinds[k].init == CNN_KAIMING_NORMAL || kinds[k].init == CNN_XAVIER_NORMAL;
        for (second = 0; second < 2; second++) {
            cnn_net *one = second ? again : net;
            cnn_manual_seed(one, (uint64_t)second);
            cnn_conv2d(one, .out_channels = 50, .kernel_height = 3, .kernel_width = 5, .groups = 2, .padding = CNN_SAME, .init = kinds[k].init);
            cnn_conv2d(one, .out_channels = 4, .kernel_size = 1);
            cnn_flatten(one);
            cnn_linear(one, .out_features = 60, .init = kinds[k].init);
        }
        for (second = 0; second < 2; second++) {
            double in = second ? 256 : 2 * 15, out = second ? 60 : 50 * 15, variance;
            const char *key = second ? "3.weight" : "0.weight";
            size_t n = cnn_get(net, key, w, 20000);
            variance = 1 / (kinds[k].of_fan_in * in + kinds[k].of_both * (in + out));
            CHECK(n == (second ? 60u * 256 : 50u * 30), "%lu weights", (unsigned long)n);
            check_begun(key, w, n, normal ? 0 : sqrt(3 * variance), normal ? sqrt(variance) : 0);
            CHECK(cnn_get(again, key, other, 20000) == n && memcmp(w, other, n * sizeof *w), "%s: another seed gives the same", key);
        }
        cnn_get(net, "0.weight", w, 20000);
        cnn_get(net, "3.weight", other, 20000);
        CHECK(fabs(w[0] * sqrt(30) - other[0] * sqrt(256)) > 1e-3, "two tensors begin alike");
        cnn_free(net); cnn_free(again);
    }
}

/* ---- 4. optimizers and schedules: one weight, whose gradient is known ---- */

typedef enum rule { SGD, MOMENTUM, NESTEROV, DECAYED, ADAM, ADAM_OPTIONS, ADAMW, ADAMW_OPTIONS, RULES } rule;

/* loss (w x - t)^2 with x 2, t 3, so g = 2 (2 w - 3) 2 */
static void check_rule(const char *backend, rule r)
{
    static const float x = 2, t = 3, begin = 0.25f;
    static const int order = 0;
    cnn_data *data = cnn_data_new(.count = 1, .channels = 1, .height = 1, .width = 1, .outputs = 1, .floats = &x, .targets = &t);
    cnn_net *net = cnn_new(1, 1, 1);
    cnn_batch batch = { data, &order, 1 };
    double w = begin, m = 0, v = 0, lr = 1e-3, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8, decay = 0;
    float got = 0;
    int step;
    cnn_to(net, backend);
    cnn_linear(net, .out_features = 1, .no_bias = 1);
    switch (r) {
    case SGD:      cnn_sgd(net, 0); break;
    case MOMENTUM: cnn_sgd(net, .lr = 0.01f, .momentum = 0.75f); lr = 0.01f; break;
    case NESTEROV: cnn_sgd(net, .lr = 0.01f, .momentum = 0.75f, .nesterov = 1); lr = 0.01f; break;
    case DECAYED:  cnn_sgd(net, .lr = 0.02f, .momentum = 0.5f, .weight_decay = 0.125f); lr = 0.02f; decay = 0.125; break;
    case ADAM:     cnn_adam(net, 0); break;
    case ADAMW:    cnn_adamw(net, 0); decay = 0.01f; break;
    case ADAM_OPTIONS:
        cnn_adam(net, .lr = 0.02f, .beta1 = 0.5f, .beta2 = 0.75f, .eps = 0.25f, .weight_decay = 0.5f);
        lr = 0.02f; beta1 = 0.5; beta2 = 0.75; eps = 0.25; decay = 0.5;
        break;
    default:
        cnn_adamw(net, .lr = 0.02f, .beta1 = 0.5f, .beta2 = 0.75f, .eps = 0.25f, .weight_decay = 0.5f);
        lr = 0.02f; beta1 = 0.5; beta2 = 0.75; eps = 0.25; decay = 0.5;
    }
    cnn_set(net, "0.weight", &begin, 1);
    for (step = 1; step <= 5; step++) {
        double g = 4 * (2 * w - 3), mu = r == MOMENTUM || r == NESTEROV ? 0.75 : r == DECAYED ? 0.5 : 0;
        cnn_forward(net, &batch);
        cnn_mse_loss(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
        if (r < ADAM) {
            g += decay * w;
            m = mu * m + g;
            w -= lr * (r == NESTEROV ? g + mu * m : m);
        } else {
            if (r >= ADAMW) w -= lr * decay * w;
            else g += decay * w;
            m = beta1 * m + (1 - beta1) * g;
            v = beta2 * v + (1 - beta2) * g * g;
            w -= lr * m / (1 - pow(beta1, step)) / (sqrt(v / (1 - pow(beta2, step))) + eps);
        }
        cnn_get(net, "0.weight", &got, 1);
        CHECK(near(got, w, 1e-6, 1e-6), "%s: rule %d, step %d: the weight is %.9g, not %.9g", backend, (int)r, step, got, w);
    }
    CHECK(!cnn_error(net), "%s", cnn_error(net));
    cnn_free(net);
    cnn_data_free(data);
}

static void test_rules(void)
{
    int r;
    for (r = 0; r < RULES; r++) {
        check_rule("direct", (rule)r);
        check_rule("simd", (rule)r);
        if (cnn_find_backend("cuda")) check_rule("cuda", (rule)r);
    }
}

static double half_wave(double from, double to, double share) { return to + (from - to) * (1 + cos(acos(-1.0) * share)) / 2; }

static void test_schedules(void)
{
    cnn_net *net[4];
    int i, t;
    for (i = 0; i < 4; i++) {
        net[i] = cnn_new(1, 1, 1);
        cnn_linear(net[i], .out_features = 1);
        cnn_sgd(net[i], .lr = 0.5f);
    }
    cnn_step_lr(net[0], .step_size = 3);                   /* gamma 0.1 */
    cnn_cosine_lr(net[1], .t_max = 6);                     /* down to 0 */
    cnn_one_cycle_lr(net[2], .max_lr = 0.5f, .total_steps = 20);                        /* .3, 25, 1e4 */
    cnn_one_cycle_lr(net[3], .max_lr = 2, .total_steps = 9, .pct_start = 0.5f, .div_factor = 4, .final_div_factor = 8);
    for (t = 0; t < 20; t++) {
        double expected[4], top = 0.3f * 20 - 1, other = 0.5 * 9 - 1;
        expected[0] = 0.5 * pow(0.1f, t / 3);
        expected[1] = half_wave(0.5, 0, t / 6.0);
        expected[2] = t <= top ? half_wave(0.02, 0.5, t / top) : half_wave(0.5, 2e-6, (t - top) / (19 - top));
        expected[3] = t >= 8 ? 0.0625 : t <= other ? half_wave(0.5, 2, t / other) : half_wave(2, 0.0625, (t - other) / (8 - other));
        for (i = 0; i < 4; i++) {
            if ((i == 1 && t > 6) || (i == 3 && t > 8)) continue;
            CHECK(near(cnn_lr(net[i]), expected[i], 2e-6, 1e-8), "schedule %d, step %d: the rate is %.9g, not %.9g", i, t, cnn_lr(net[i]),
                  expected[i]);
            cnn_scheduler_step(net[i]);
        }
    }
    for (i = 0; i < 4; i++) {
        CHECK(!cnn_error(net[i]), "%s", cnn_error(net[i]));
        cnn_free(net[i]);
    }
}

/* ---- what a backend is told ---- */

static cnn_conv2d_shape told;

static void noting_forward(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index, const float *x, const float *weight,
                           const float *bias, void *work)
{
    told = *s;
    cnn_find_backend("direct")->conv2d_forward(context, s, y, index, x, weight, bias, work);
}

static void test_told(void)
{
    static const float values[18] = { 1 };
    static const int labels[2] = { 0, 1 }, order[2] = { 1, 0 };
    cnn_data *data = cnn_data_new(.count = 2, .channels = 1, .height = 3, .width = 3, .classes = 2, .floats = values, .labels = labels);
    cnn_net *net = cnn_new(1, 3, 3);
    cnn_backend own = *cnn_find_backend("direct");
    cnn_batch batch;
    int allow;
    batch.data = data; batch.order = order; batch.size = 2;
    own.name = "noting";
    own.conv2d_forward = noting_forward;
    cnn_use_backend(net, &own);
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 2);
    cnn_leaky_relu(net, .negative_slope = 0.25f);
    cnn_flatten(net);
    cnn_forward(net, &batch);
    CHECK(told.allow_tf32 == 0 && told.activation == CNN_LEAKY_RELU && told.slope == 0.25f && told.batch == 2 && !told.pool.kernel_height,
          "at first: tf32 %d, activation %d of slope %g, batch %d", told.allow_tf32, (int)told.activation, told.slope, told.batch);
    for (allow = 5; allow >= 0; allow -= 5) {
        cnn_allow_tf32(net, allow);
        cnn_forward(net, &batch);
        CHECK(told.allow_tf32 == (allow > 0), "allowed %d: told %d", allow, told.allow_tf32);
    }
    CHECK(!cnn_error(net), "%s", cnn_error(net));
    cnn_free(net);
    cnn_data_free(data);
}

/* ---- 5. data of which no two bytes that could be mistaken for one another are alike ---- */

static unsigned char byte_at(size_t i) { return (unsigned char)(chance(40, i) * 256); }

static int write_all(const char *name, const unsigned char *bytes, size_t count)
{
    FILE *file = fopen(in_folder(name), "wb");
    int written = file && fwrite(bytes, 1, count, file) == count;
    if (file) fclose(file);
    CHECK(written, "%s cannot be written", name);
    return written;
}

/* IDX files as `images` and `labels`: 259 images of 3 x 5, the first `zeros` of 1000 pixels 0 */
enum { IDX_COUNT = 259, IDX_PIXELS = 15 };

static void write_idx(const char *image_name, const char *label_name, int zeros)
{
    static unsigned char bytes[16 + IDX_COUNT * IDX_PIXELS] = { 0, 0, 8, 3, 0, 0, 1, 3, 0, 0, 0, 3, 0, 0, 0, 5 };
    static unsigned char labels[8 + IDX_COUNT] = { 0, 0, 8, 1, 0, 0, 1, 3 };
    int i, all = IDX_COUNT * IDX_PIXELS;
    for (i = 0; i < all; i++) bytes[16 + i] = (double)i * 1000 < (double)zeros * all ? 0 : (unsigned char)(1 + byte_at((size_t)i) % 255);
    for (i = 0; i < IDX_COUNT; i++) labels[8 + i] = (unsigned char)(byte_at((size_t)i) % 10);
    write_all(image_name, bytes, sizeof bytes);
    write_all(label_name, labels, sizeof labels);
}

static int same_idx(const cnn_data *data)
{
    int i, right = !data->error && data->count == IDX_COUNT && data->channels == 1 && data->height == 3 && data->width == 5
                   && data->classes == 10 && data->bytes && !data->floats;
    for (i = 0; right && i < IDX_COUNT * IDX_PIXELS; i++) right = data->bytes[i] == 1 + byte_at((size_t)i) % 255;
    for (i = 0; right && i < IDX_COUNT; i++) right = data->labels[i] == byte_at((size_t)i) % 10;
    return right;
}

/* The share of zeros tells MNIST from Fashion-MNIST: four fifths and a half. */
static void test_idx(void)
{
    static const struct { int zeros, is_mnist, is_fashion; } shares[] = {
        { 0, 1, 1 }, { 440, 1, 1 }, { 460, 0, 1 }, { 500, 0, 1 }, { 540, 0, 1 }, { 560, 1, 1 }, { 690, 1, 1 }, { 710, 1, 0 }, { 1000, 1, 0 } };
    size_t k;
    cnn_data *data;
    write_idx("pictures", "answers", 0);
    data = cnn_load_idx(in_folder("pictures"), in_folder("answers"), 10);
    CHECK(same_idx(data), "IDX: %s", data->error ? data->error : "other contents");
    CHECK(!data->class_names && data->scale[0] == 1.0f / 255 && data->shift[0] == 0, "IDX: the scale");
    cnn_data_free(data);
    for (k = 0; k < sizeof shares / sizeof *shares; k++) {
        const char *split = k % 2 ? "train" : "t10k";
        char images[80], labels[80];
        cnn_data *mnist, *fashion;
        snprintf(images, sizeof images, "%s-images-idx3-ubyte", split);
        snprintf(labels, sizeof labels, "%s-labels-idx1-ubyte", split);
        write_idx(images, labels, shares[k].zeros);
        mnist = cnn_load_mnist(folder, split);
        fashion = cnn_load_fashion_mnist(folder, split);
        CHECK((mnist->error == NULL) == shares[k].is_mnist && (fashion->error == NULL) == shares[k].is_fashion,
              "%d of 1000 are 0: %s; %s", shares[k].zeros,
              mnist->error ? mnist->error : "MNIST", fashion->error ? fashion->error : "Fashion-MNIST");
        if (!k) CHECK(same_idx(mnist) && same_idx(fashion) && !strcmp(mnist->class_names[7], "7") && !strcmp(fashion->class_names[7], "Sneaker"),
                      "other contents");
        cnn_data_free(mnist); cnn_data_free(fashion);
        remove(in_folder(images)); remove(in_folder(labels));
    }
    remove(in_folder("pictures")); remove(in_folder("answers"));
}

static void test_cifar10(void)
{
    enum { ROW = 3073, ROWS = 10000 };
    unsigned char *file = (unsigned char *)malloc((size_t)ROW * ROWS);
    char name[40];
    size_t i, k;
    int f, n, wrong = 0;
    cnn_data *data;
    for (f = 0; f < 6; f++) {                              /* 0: the test samples */
        for (i = 0; i < (size_t)ROW * ROWS; i++) file[i] = i % ROW ? (unsigned char)(i * 31 + i / 1000 * 7 + (size_t)f * 101)
                                                                   : (unsigned char)((i / ROW * 7 + (size_t)f) % 10);
        snprintf(name, sizeof name, f ? "data_batch_%d.bin" : "test_batch.bin", f);
        write_all(name, file, (size_t)ROW * ROWS);
    }
    for (k = 0; k < 2; k++) {
        data = cnn_load_cifar10(folder, k ? "train" : "test");
        CHECK(!data->error && data->count == (k ? 5 : 1) * ROWS && data->channels == 3 && data->height == 32 && data->width == 32
              && data->classes == 10 && !strcmp(data->class_names[9], "truck"), "CIFAR-10: %s", data->error ? data->error : "another shape");
        for (n = 0; !data->error && n < data->count; n++) {
            size_t row = (size_t)(n % ROWS) * ROW;
            int number = k ? n / ROWS + 1 : 0;
            wrong += data->labels[n] != (n % ROWS * 7 + number) % 10;
            for (i = 1; i < ROW; i += n % 97 ? 1023 : 1)
                wrong += data->bytes[(size_t)n * (ROW - 1) + i - 1]
                         != (unsigned char)((row + i) * 31 + (row + i) / 1000 * 7 + (size_t)number * 101);
        }
        CHECK(!wrong, "CIFAR-10: %d values are wrong", wrong);
        cnn_data_free(data);
    }
    for (f = 0; f < 6; f++) {
        snprintf(name, sizeof name, f ? "data_batch_%d.bin" : "test_batch.bin", f);
        remove(in_folder(name));
    }
    free(file);
}

/* What the network sees of each channel, and what a part of a split keeps: bytes, targets, names, scale. */
static void test_parts(void)
{
    enum { COUNT = 12, PIXELS = 6, CHANNELS = 3, ALL = COUNT * CHANNELS * PIXELS };
    static const char *const names[4] = { "north", "east", "south", "west" };
    static const float mean[CHANNELS] = { 0.25f, 0.5f, -1 }, std[CHANNELS] = { 0.5f, 2, 0.125f };
    unsigned char bytes[ALL];
    float targets[COUNT * 2];
    int labels[COUNT], i, k, n;
    cnn_data *data, *part[2];
    for (i = 0; i < ALL; i++) bytes[i] = byte_at((size_t)i);
    for (i = 0; i < COUNT; i++) labels[i] = i % 4, targets[2 * i] = (float)i, targets[2 * i + 1] = (float)-i;
    data = cnn_data_new(.count = COUNT, .channels = CHANNELS, .height = 2, .width = 3, .classes = 4, .outputs = 2, .bytes = bytes,
                        .labels = labels, .targets = targets, .class_names = names);
    cnn_normalize(data, mean, std);
    for (i = 0; i < CHANNELS; i++)
        CHECK(near(data->scale[i], 1 / (255.0 * std[i]), 1e-6, 0) && near(data->shift[i], -mean[i] / (double)std[i], 1e-6, 0),
              "channel %d: scale %g, shift %g", i, data->scale[i], data->shift[i]);
    cnn_random_split(data, 5, 8, &part[0], &part[1]);
    for (k = 0; k < 2; k++) {
        const cnn_data *p = part[k];
        CHECK(!p->error && p->count == (k ? 5 : 7) && p->channels == CHANNELS && p->height == 2 && p->width == 3 && p->classes == 4
              && p->outputs == 2 && p->class_names == names && !p->floats, "part %d is of another kind", k);
        for (i = 0; i < CHANNELS; i++) CHECK(p->scale[i] == data->scale[i] && p->shift[i] == data->shift[i], "part %d: the scale", k);
        for (n = 0; n < p->count; n++) {
            int from = (int)p->targets[2 * n];
            CHECK(p->targets[2 * n + 1] == (float)-from && p->labels[n] == from % 4
                  && !memcmp(p->bytes + n * CHANNELS * PIXELS, bytes + from * CHANNELS * PIXELS, CHANNELS * PIXELS), "part %d: sample %d", k, n);
        }
    }
    cnn_data_free(part[0]); cnn_data_free(part[1]); cnn_data_free(data);
}

/* ---- 6. sentences ---- */

/* The whole numbers of a sentence, less the "layer N" that it begins with, are these; -1 ends them. */
static void check_numbers(int line, const char *sentence, ...)
{
    va_list expected;
    const char *at = sentence ? sentence : "nothing";
    char found[256] = "", wanted[256] = "";
    if (!strncmp(at, "layer ", 6)) at = strpbrk(at + 6, " ") ? strpbrk(at + 6, " ") : at;
    for (; *at; at++) {
        int inside = at > sentence && (isalnum((unsigned char)at[-1]) || at[-1] == '_' || at[-1] == '.');
        if (!isdigit((unsigned char)*at) || inside) continue;
        snprintf(found + strlen(found), sizeof found - strlen(found), "%ld ", strtol(at, NULL, 10));
    }
    va_start(expected, sentence);
    for (;;) {
        int n = va_arg(expected, int);
        if (n < 0) break;
        snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), "%d ", n);
    }
    va_end(expected);
    CHECK(!strncmp(found, wanted, strlen(wanted)), "line %d: the numbers are %s, not %s: %s", line, found, wanted, sentence ? sentence : "nothing");
}

#define NUMBERS(sentence, ...) check_numbers(__LINE__, sentence, __VA_ARGS__, -1)

/* A network of 3 x 11 x 13 that this call breaks */
#define WRONG(call, ...)                                                          \
    do {                                                                          \
        cnn_net *net = cnn_new(3, 11, 13);                                        \
        call;                                                                     \
        NUMBERS(cnn_error(net), __VA_ARGS__);                                     \
        cnn_free(net);                                                            \
    } while (0)

static void test_sentences(void)
{
    static const float values[60] = { 0 };
    static const int labels[5] = { 0, 1, 2, 5, 1 };
    cnn_data *data;
    cnn_net *net = cnn_new(3, -4, 5);
    NUMBERS(cnn_error(net), 3, 4, 5, 1);
    cnn_free(net);
    WRONG(cnn_conv2d(net, .out_channels = 0, .kernel_height = 2, .kernel_width = 4), 1, 0, 2, 4);
    WRONG(cnn_conv2d(net, .out_channels = 2, .kernel_size = 1, .in_channels = 7), 7, 3);
    WRONG(cnn_conv2d(net, .out_channels = 8, .kernel_size = 1, .groups = 2), 2, 3, 8);
    WRONG(cnn_conv2d(net, .out_channels = 2, .kernel_size = 3, .padding = CNN_SAME, .stride_height = 2, .stride_width = 3), 1, 2, 3);
    WRONG(cnn_conv1d(net, .out_channels = 2, .kernel_size = 3), 1, 3, 11, 13);
    WRONG(cnn_conv2d(net, .out_channels = 2, .kernel_size = 3, .padding_height = 4, .padding_width = 20, .padding_mode = CNN_CIRCULAR), 4, 20, 11, 13);
    WRONG(cnn_max_pool2d(net, .kernel_height = 4, .kernel_width = 5, .padding_height = 3, .padding_width = 1), 0, 3, 1, 4, 5);
    WRONG((cnn_flatten(net), cnn_conv2d(net, .out_channels = 2, .kernel_size = 3)), 429);
    WRONG(cnn_linear(net, .out_features = 2), 3, 11, 13);
    WRONG((cnn_flatten(net), cnn_linear(net, .out_features = 2, .in_features = 300)), 300);
    data = cnn_data_new(.count = 5, .channels = 1, .height = 3, .width = 4, .classes = 5, .floats = values, .labels = labels);
    NUMBERS(data->error, 5, 3, 0, 4);
    cnn_data_free(data);
    data = cnn_data_new(.count = 0, .channels = 1, .height = 3, .width = 4, .classes = 5, .floats = values, .labels = labels);
    NUMBERS(data->error, 0, 1, 3, 4);
    cnn_data_free(data);
    data = cnn_data_new(.count = 3, .channels = 1, .height = 3, .width = 4, .classes = 5, .floats = values, .labels = labels);
    CHECK(!data->error, "%s", data->error);
    {
        cnn_loader *loader = cnn_loader_new(data, .batch_size = 4, .drop_last = 1);
        cnn_data *first, *second;
        NUMBERS(cnn_loader_error(loader), 3, 4);
        cnn_loader_free(loader);
        cnn_random_split(data, 3, 0, &first, &second);
        NUMBERS(first->error, 3, 3);
        NUMBERS(second->error, 3, 3);
        cnn_data_free(first); cnn_data_free(second);
        net = cnn_new(1, 4, 3);
        cnn_flatten(net);
        cnn_evaluate(net, data, 2, CNN_CROSS_ENTROPY);
        NUMBERS(cnn_error(net), 1, 3, 4);
        cnn_free(net);
    }
    cnn_data_free(data);
}

/* ---- scratch memory: what an operation asks for it uses, and no more ---- */

enum { BEHIND = 4096 };                                     /* bytes behind what was asked for */

static void *patterned(size_t bytes)
{
    void *memory = b.alloc(b.context, bytes + BEHIND);
    memset(memory, 0x5a, bytes + BEHIND);
    return memory;
}

/* How many of the bytes asked for lie behind the last that was written; gives the memory back. */
static size_t unused_of(void *memory, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)memory;
    size_t n = bytes + BEHIND;
    while (n && at[n - 1] == 0x5a) n--;
    b.free(b.context, memory);
    CHECK(n <= bytes, "%s: %d bytes are written behind the %d that were asked for", whose, (int)(n - bytes), (int)bytes);
    return n < bytes ? bytes - n : 0;
}

static void check_conv2d_work(const int q[10])              /* batch, channels, side, kernels, their side, stride, padding, groups, activation, pooled */
{
    int out = (q[2] + 2 * q[6] - q[4]) / q[5] + 1;
    size_t images = (size_t)(q[0] * q[1] * q[2] * q[2]), maps = (size_t)(q[0] * q[3] * out * out), kernels = (size_t)(q[3] * q[1] / q[7] * q[4] * q[4]);
    float *x = (float *)sent(NULL, images * 4), *dx = (float *)sent(NULL, images * 4), *y = (float *)sent(NULL, maps * 4), *dy = (float *)sent(NULL, maps * 4);
    float *w = (float *)sent(NULL, kernels * 4), *dw = (float *)sent(NULL, kernels * 4), *bias = (float *)sent(NULL, (size_t)q[3] * 4), *db = (float *)sent(NULL, (size_t)q[3] * 4);
    unsigned char *index = (unsigned char *)sent(NULL, maps);
    size_t asked, forward, backward, i;
    cnn_conv2d_shape s;
    void *work;
    memset(&s, 0, sizeof s);
    s.batch = q[0]; s.in_channels = q[1]; s.in_height = s.in_width = q[2]; s.out_channels = q[3]; s.out_height = s.out_width = out;
    s.kernel_height = s.kernel_width = q[4]; s.stride_height = s.stride_width = q[5]; s.dilation_height = s.dilation_width = 1;
    s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = q[6]; s.groups = q[7];
    if (q[8]) s.activation = CNN_RELU;
    if (q[9]) {
        s.pool.batch = q[0]; s.pool.channels = q[3]; s.pool.in_height = s.pool.in_width = out; s.pool.out_height = s.pool.out_width = out / 2;
        s.pool.kernel_height = s.pool.kernel_width = s.pool.stride_height = s.pool.stride_width = 2;
    }
    for (i = 0; i < images; i++) x[i] = (float)(i % 7 + 1);
    for (i = 0; i < kernels; i++) w[i] = (float)(i % 5) - 1.5f;
    for (i = 0; i < maps; i++) dy[i] = (float)(i % 3 + 1);
    memset(dw, 0, kernels * 4); memset(bias, 0, (size_t)q[3] * 4); memset(db, 0, (size_t)q[3] * 4);
    asked = b.conv2d_work(b.context, &s);
    work = patterned(asked);
    b.conv2d_forward(b.context, &s, y, q[9] ? index : NULL, x, w, bias, work);
    forward = unused_of(work, asked);
    work = patterned(asked);
    b.conv2d_backward(b.context, &s, dx, dw, db, dy, y, q[9] ? index : NULL, x, w, work);
    backward = unused_of(work, asked);
    CHECK(forward < 64 || backward < 64, "%s: a convolution of %d x %d x %d x %d to %d by %d x %d, stride %d: of %d bytes, %d stay unused", whose, q[0], q[1], q[2], q[2],
          q[3], q[4], q[4], q[5], (int)asked, (int)(forward < backward ? forward : backward));
    fetch(NULL, x, 0); fetch(NULL, dx, 0); fetch(NULL, y, 0); fetch(NULL, dy, 0); fetch(NULL, w, 0); fetch(NULL, dw, 0); fetch(NULL, bias, 0); fetch(NULL, db, 0);
    fetch(NULL, index, 0);
}

static void check_linear_work(int batch, int in, int out)
{
    size_t inputs = (size_t)(batch * in), outputs = (size_t)(batch * out), weights = (size_t)(in * out), asked, forward, backward, i;
    float *x = (float *)sent(NULL, inputs * 4), *dx = (float *)sent(NULL, inputs * 4), *y = (float *)sent(NULL, outputs * 4);
    float *w = (float *)sent(NULL, weights * 4), *dw = (float *)sent(NULL, weights * 4), *bias = (float *)sent(NULL, (size_t)out * 4), *db = (float *)sent(NULL, (size_t)out * 4);
    cnn_linear_shape s;
    void *work;
    memset(&s, 0, sizeof s);
    s.batch = batch; s.in_features = in; s.out_features = out;
    for (i = 0; i < inputs; i++) x[i] = 1;
    for (i = 0; i < weights; i++) w[i] = 1;
    memset(dw, 0, weights * 4); memset(bias, 0, (size_t)out * 4); memset(db, 0, (size_t)out * 4);
    asked = b.linear_work(b.context, &s);
    work = patterned(asked);
    b.linear_forward(b.context, &s, y, x, w, bias, work);
    forward = unused_of(work, asked);
    work = patterned(asked);
    b.linear_backward(b.context, &s, dx, dw, db, y, y, x, w, work);
    backward = unused_of(work, asked);
    CHECK(forward < 8000 || backward < 8000, "%s: a linear layer of %d x %d to %d: of %d bytes, %d stay unused", whose, batch, in, out, (int)asked,
          (int)(forward < backward ? forward : backward));
    fetch(NULL, x, 0); fetch(NULL, dx, 0); fetch(NULL, y, 0); fetch(NULL, w, 0); fetch(NULL, dw, 0); fetch(NULL, bias, 0); fetch(NULL, db, 0);
}

static void test_work(void)
{
    static const int convolutions[][10] = { { 16, 8, 12, 16, 3, 1, 1, 1, 1, 0 }, { 16, 8, 12, 16, 5, 1, 2, 1, 1, 1 }, { 1, 8, 12, 16, 3, 1, 1, 1, 1, 0 }, { 16, 1, 28, 6, 5, 1, 2, 1, 1, 1 },
        { 16, 32, 14, 32, 3, 1, 1, 1, 0, 0 }, { 16, 32, 14, 32, 3, 2, 1, 1, 1, 0 }, { 16, 8, 12, 8, 3, 1, 1, 8, 1, 0 }, { 16, 16, 8, 16, 1, 1, 0, 1, 1, 0 }, { 3, 3, 33, 7, 7, 2, 3, 1, 0, 0 } };
    static const int linears[][3] = { { 64, 9, 1000 }, { 64, 1000, 48 }, { 45, 1000, 48 }, { 128, 400, 120 }, { 17, 33, 65 }, { 9, 1, 1000 }, { 1000, 3, 9 } };
    const cnn_backend many = b;
    char sentence[256] = "";
    size_t i;
    if (strcmp(b.name, "simd")) return;
    b.context = b.open(1, sentence, sizeof sentence);       /* of several threads one may find nothing to do */
    for (i = 0; i < sizeof convolutions / sizeof *convolutions; i++) check_conv2d_work(convolutions[i]);
    for (i = 0; i < sizeof linears / sizeof *linears; i++) check_linear_work(linears[i][0], linears[i][1], linears[i][2]);
    b.close(b.context);
    b = many;
}

int main(void)
{
    on_each(test_work);
    on_each(test_losses);
    on_each(test_nan_loss);
    on_each(test_softmax);
    on_each(test_activations);
    on_each(test_clipping);
    on_each(test_batches);
    on_each(test_steps);
    on_each(test_dropout);
    on_each(test_dropout_bound);
    test_shuffle();
    test_split();
    test_init();
    test_rules();
    test_schedules();
    test_told();
    folder_make();
    test_idx();
    test_cifar10();
    test_parts();
    folder_remove();
    test_sentences();
    return test_end("numbers");
}
