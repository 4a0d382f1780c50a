/* bench.c - how fast training is, against the machine's own limit.

       make bench          or          build/bench [--threads N] [--repeats N] [--net NAME] [--short] [--help]

   All contestants run in turn, round after round, so that a machine that gets slower for a while does so for all;
   each figure is the median of its rounds. The networks run on a backend of their own: the table `simd` with a clock
   around every entry. So the parts of a step are timed in the very steps that are reported. They have learned for a while
   by then, the networks of 28 x 28 pixels on drawn digits, as `simd` leaves out what a ReLU has switched off.
   GFLOP are the textbook's: two for each multiply-add of the convolutions and linear layers, forward once, backward
   once for the weights and once for the input, but not for the input of the network. An algorithm that needs fewer
   multiplications (Winograd's) may therefore pass the limit. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>

static void *bench_alloc(size_t bytes);
static void bench_free(void *memory);
#define CNN_MALLOC(bytes) bench_alloc(bytes)
#define CNN_FREE(pointer) bench_free(pointer)
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../../examples/digits.h"
#include "../lecture.h"
#include "measure.h"

#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { BATCH = 128, BATCHES = 20, LEARNED = 200, WARM_UP = 3, MOST_PARTS = 256, MOST_THREADS = 64 };

static void fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    exit(1);
}

/* ---- what the library allocates ---- */

enum { HEADER = 16 };                       /* before each block: its size */
static size_t bytes_held, allocations;

static void *bench_alloc(size_t bytes)
{
    unsigned char *block = (unsigned char *)malloc(bytes + HEADER);
    if (!block) return NULL;
    memcpy(block, &bytes, sizeof bytes);
    bytes_held += bytes;
    allocations++;
    return block + HEADER;
}

static void bench_free(void *memory)
{
    size_t bytes;
    if (!memory) return;
    memcpy(&bytes, (unsigned char *)memory - HEADER, sizeof bytes);
    bytes_held -= bytes;
    free((unsigned char *)memory - HEADER);
}

/* ---- the table with a clock around its entries ---- */

typedef struct part {                       /* one call of an entry within a training step */
    char entry[32], shape[64];
    double gflop;
    series ms;
    int shown;
} part;

typedef struct profile { part parts[MOST_PARTS]; int count, at; } profile;

static cnn_backend simd;                    /* the table that is timed */
static profile *recording;                  /* NULL: nobody looks */

static void record(double begun, const char *entry, double multiply_adds, const char *shape, ...)
{
    double spent = seconds() - begun;
    part *p;
    va_list list;
    if (!recording || recording->at == MOST_PARTS) return;
    p = &recording->parts[recording->at++];
    add(&p->ms, 1e3 * spent);
    if (recording->at <= recording->count) return;         /* known from an earlier step */
    recording->count = recording->at;
    snprintf(p->entry, sizeof p->entry, "%s", entry);
    p->gflop = 2e-9 * multiply_adds;
    va_start(list, shape);
    vsnprintf(p->shape, sizeof p->shape, shape, list);
    va_end(list);
}

#define CLOCK(entry, parameters, arguments, multiply_adds, ...)                              \
    static void clock_##entry parameters                                                     \
    {                                                                                        \
        double begun = seconds();                                                            \
        simd.entry arguments;                                                                \
        record(begun, #entry, multiply_adds, __VA_ARGS__);                                   \
    }

static double conv_work(const cnn_conv2d_shape *s)
{
    return (double)s->batch * s->out_channels * s->out_height * s->out_width * (s->in_channels / s->groups)
         * s->kernel_height * s->kernel_width;
}

static double linear_work(const cnn_linear_shape *s) { return (double)s->batch * s->in_features * s->out_features; }

static const char *fused(cnn_activation f, int pool)
{
    return f && pool ? " + act + pool" : f ? " + act" : pool ? " + pool" : "";
}

static const char *activation(cnn_activation f)
{
    static const char *const names[] = { "none", "relu", "leaky_relu", "sigmoid", "tanh", "gelu" };
    return names[f];
}

#define CONV_SHAPE "%d -> %d of %d x %d, %d x %d%s", s->in_channels, s->out_channels, s->out_height, s->out_width, \
                   s->kernel_height, s->kernel_width, fused(s->activation, s->pool.kernel_height)
#define POOL_SHAPE "%d of %d x %d to %d x %d", s->channels, s->in_height, s->in_width, s->out_height, s->out_width
#define NORM_SHAPE "%d of %d pixels%s", s->channels, s->pixels, fused(s->activation, 0)
#define MAP_SHAPE "%d of %d pixels", s->channels, s->pixels
#define LINEAR_SHAPE "%d -> %d%s", s->in_features, s->out_features, fused(s->activation, 0)

CLOCK(conv2d_forward,
      (void *c, const cnn_conv2d_shape *s, float *y, unsigned char *index, const float *x, const float *w, const float *b,
       void *work),
      (c, s, y, index, x, w, b, work), conv_work(s), CONV_SHAPE)
CLOCK(conv2d_backward,
      (void *c, const cnn_conv2d_shape *s, float *dx, float *dw, float *db, const float *dy, const float *y,
       const unsigned char *index, const float *x, const float *w, void *work),
      (c, s, dx, dw, db, dy, y, index, x, w, work), (dx ? 2 : 1) * conv_work(s), CONV_SHAPE)
CLOCK(linear_forward,
      (void *c, const cnn_linear_shape *s, float *y, const float *x, const float *w, const float *b, void *work),
      (c, s, y, x, w, b, work), linear_work(s), LINEAR_SHAPE)
CLOCK(linear_backward,
      (void *c, const cnn_linear_shape *s, float *dx, float *dw, float *db, const float *dy, const float *y, const float *x,
       const float *w, void *work),
      (c, s, dx, dw, db, dy, y, x, w, work), (dx ? 2 : 1) * linear_work(s), LINEAR_SHAPE)
CLOCK(pool2d_forward, (void *c, const cnn_pool2d_shape *s, float *y, const float *x), (c, s, y, x), 0, POOL_SHAPE)
CLOCK(pool2d_backward, (void *c, const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x), (c, s, dx, dy, x), 0, POOL_SHAPE)
CLOCK(batch_norm_forward,
      (void *c, const cnn_batch_norm_shape *s, float *y, float *saved, float *mean, float *var, int64_t *batches, const float *x,
       const float *w, const float *b),
      (c, s, y, saved, mean, var, batches, x, w, b), 0, NORM_SHAPE)
CLOCK(batch_norm_backward,
      (void *c, const cnn_batch_norm_shape *s, float *dx, float *dw, float *db, const float *dy, const float *y, const float *saved,
       const float *x, const float *w, void *work),
      (c, s, dx, dw, db, dy, y, saved, x, w, work), 0, NORM_SHAPE)
CLOCK(activation_forward, (void *c, cnn_activation f, float slope, float *y, const float *x, size_t n), (c, f, slope, y, x, n), 0,
      "%s of %lu values", activation(f), (unsigned long)n)
CLOCK(activation_backward,
      (void *c, cnn_activation f, float slope, float *dx, const float *dy, const float *y, const float *x, size_t n),
      (c, f, slope, dx, dy, y, x, n), 0, "%s of %lu values", activation(f), (unsigned long)n)
CLOCK(prelu_forward, (void *c, const cnn_map_shape *s, float *y, const float *x, const float *w), (c, s, y, x, w), 0, MAP_SHAPE)
CLOCK(prelu_backward,
      (void *c, const cnn_map_shape *s, float *dx, float *dw, const float *dy, const float *x, const float *w, float *work),
      (c, s, dx, dw, dy, x, w, work), 0, MAP_SHAPE)
CLOCK(add, (void *c, float *y, const float *a, const float *b, size_t n), (c, y, a, b, n), 0, "%lu values", (unsigned long)n)
CLOCK(copy_channels, (void *c, const cnn_copy_shape *s, float *to, const float *from), (c, s, to, from), 0, "%d of %d pixels",
      s->channels, s->pixels)
CLOCK(pad2d, (void *c, const cnn_pad2d_shape *s, float *to, const float *from), (c, s, to, from), 0, "%d of %d x %d to %d x %d",
      s->channels, s->in_height, s->in_width, s->out_height, s->out_width)
CLOCK(dropout_forward,
      (void *c, const cnn_counters *k, int layer, float p, float *y, const float *x, size_t n),
      (c, k, layer, p, y, x, n), 0, "%lu values", (unsigned long)n)
CLOCK(dropout_backward,
      (void *c, const cnn_counters *k, int layer, float p, float *dx, const float *dy, size_t n),
      (c, k, layer, p, dx, dy, n), 0, "%lu values", (unsigned long)n)
CLOCK(gather,
      (void *c, const cnn_counters *k, const cnn_gather_shape *s, float *x, const unsigned char *bytes, const float *floats,
       const int *order, const float *scale, const float *shift),
      (c, k, s, x, bytes, floats, order, scale, shift), 0, "%d samples", s->batch)
CLOCK(zero, (void *c, void *memory, size_t bytes), (c, memory, bytes), 0, "%lu bytes", (unsigned long)bytes)
CLOCK(softmax_cross_entropy,
      (void *c, cnn_counters *k, const cnn_cross_entropy_options *o, float *dy, const float *y, const float *target,
       const int *labels, int batch, int outputs),
      (c, k, o, dy, y, target, labels, batch, outputs), 0, "%d x %d", batch, outputs)
CLOCK(adam_step,
      (void *c, cnn_counters *k, const cnn_adam_options *o, int decoupled, float *w, float *m, float *v, const float *g,
       size_t n, cnn_span *spans, int count),
      (c, k, o, decoupled, w, m, v, g, n, spans, count), 0, "%lu parameters", (unsigned long)n)

static cnn_backend clocked(void)
{
    cnn_backend b = simd;
    b.name = "simd with a clock";
    b.conv2d_forward = clock_conv2d_forward;
    b.conv2d_backward = clock_conv2d_backward;
    b.linear_forward = clock_linear_forward;
    b.linear_backward = clock_linear_backward;
    b.pool2d_forward = clock_pool2d_forward;
    b.pool2d_backward = clock_pool2d_backward;
    b.batch_norm_forward = clock_batch_norm_forward;
    b.batch_norm_backward = clock_batch_norm_backward;
    b.activation_forward = clock_activation_forward;
    b.activation_backward = clock_activation_backward;
    b.prelu_forward = clock_prelu_forward;
    b.prelu_backward = clock_prelu_backward;
    b.add = clock_add;
    b.copy_channels = clock_copy_channels;
    b.pad2d = clock_pad2d;
    b.dropout_forward = clock_dropout_forward;
    b.dropout_backward = clock_dropout_backward;
    b.gather = clock_gather;
    b.zero = clock_zero;
    b.softmax_cross_entropy = clock_softmax_cross_entropy;
    b.adam_step = clock_adam_step;
    return b;
}

/* ---- the networks ---- */

typedef struct network {
    const char *name, *title;
    void (*layers)(cnn_net *net);
    int channels, side, samples;            /* of its data set */
} network;

/* Layers that no other network here has, each where it costs something */
static void network_others(cnn_net *net)
{
    int x;
    cnn_conv2d(net, .out_channels = 32, .kernel_size = 3, .padding = 1);
    cnn_gelu(net);
    x = cnn_here(net);
    cnn_zero_pad2d(net, .padding_right = 1, .padding_bottom = 1);
    cnn_conv2d(net, .out_channels = 32, .kernel_size = 2);
    cnn_prelu(net, .num_parameters = 32);
    cnn_concat(net, x);
    cnn_adaptive_avg_pool2d(net, .output_size = 7);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 10);
}

static const network networks[] = {
    { "lenet5", "LeNet-5", network_lenet5, 1, 28, 60000 },
    { "mnist_cnn", "MNIST CNN", network_mnist_cnn, 1, 28, 60000 },
    { "cifar10_cnn", "CIFAR-10 CNN", network_cifar10_cnn, 3, 32, 50000 },
    { "resnet20", "ResNet-20", network_resnet20, 3, 32, 50000 },
    { "others", "other layers", network_others, 3, 32, 50000 }
};
enum { NETWORKS = sizeof networks / sizeof *networks };

static cnn_data *random_data(const network *w, int count)
{
    size_t n = (size_t)count * w->channels * w->side * w->side, i;
    unsigned char *bytes = (unsigned char *)malloc(n);
    int *labels = (int *)malloc(sizeof *labels * (size_t)count);
    uint32_t r = 1;
    if (!bytes || !labels) fail("out of memory");
    for (i = 0; i < n; i++) bytes[i] = (unsigned char)((r = r * 1664525u + 1013904223u) >> 24);
    for (i = 0; i < (size_t)count; i++) labels[i] = (int)(i % 10);
    return cnn_data_new(.count = count, .channels = w->channels, .height = w->side, .width = w->side, .classes = 10,
                        .bytes = bytes, .labels = labels);
}

static cnn_net *new_net(const network *w, int threads)
{
    cnn_backend table = clocked();
    cnn_net *net = cnn_new(w->channels, w->side, w->side);
    cnn_use_backend(net, &table);
    cnn_set_num_threads(net, threads);
    w->layers(net);
    cnn_adam(net, .lr = 1e-3f);
    return net;
}

static void train_step(cnn_net *net, const cnn_batch *batch)
{
    cnn_forward(net, batch);
    cnn_cross_entropy(net, batch);
    cnn_zero_grad(net);
    cnn_backward(net);
    cnn_step(net);
    cnn_loss(net);                          /* waits for all of it */
}

/* ---- the contestants ---- */

typedef struct training {                   /* one network with so many threads */
    const network *network;
    int threads;
    cnn_net *net;
    cnn_data *data;
    cnn_loader *loader;
    float *x, *y;                           /* what inference reads and writes */
    profile parts;
    series step, inference;
    double gflop_step, gflop_inference;
} training;

static void next_step(training *t)
{
    cnn_batch batch;
    while (!cnn_next(t->loader, &batch)) if (cnn_error(t->net)) return;       /* at the end of an epoch the next one begins */
    train_step(t->net, &batch);
}

static void training_new(training *t, const network *w, int threads)
{
    size_t values = (size_t)BATCH * w->channels * w->side * w->side, i;
    memset(t, 0, sizeof *t);
    t->network = w;
    t->threads = threads;
    t->data = w->channels == 1 ? digits_new(0, BATCH * BATCHES) : random_data(w, BATCH * BATCHES);
    t->loader = cnn_loader_new(t->data, .batch_size = BATCH);
    t->net = new_net(w, threads);
    t->x = (float *)malloc(sizeof *t->x * values);
    t->y = (float *)malloc(sizeof *t->y * BATCH * 10);
    if (!t->x || !t->y) fail("out of memory");
    for (i = 0; i < values; i++) t->x[i] = (float)t->data->bytes[i] / 255;
    for (i = 0; i < LEARNED; i++) next_step(t);
}

/* A contestant's turn begins with SETTLE seconds that do not count: threads that slept wake up on one processor, and it takes
   the system a while to spread them again. Training runs for hours and never sees that. */
static const double SETTLE = 0.03;

static void training_round(training *t)
{
    double begun = seconds();
    do next_step(t); while (seconds() - begun < SETTLE);
    recording = &t->parts;
    recording->at = 0;
    begun = seconds();
    next_step(t);
    add(&t->step, 1e3 * (seconds() - begun));
    recording = NULL;
    cnn_predict(t->net, t->y, t->x, BATCH);
    begun = seconds();
    cnn_predict(t->net, t->y, t->x, BATCH);
    add(&t->inference, 1e3 * (seconds() - begun));
    if (cnn_error(t->net)) fail("%s", cnn_error(t->net));
}

typedef struct product {                    /* y (rows, out) = x (rows, in) weight (out, in)^T, as a linear layer */
    const char *what;
    int rows, in, out;
} product;

static const product products[] = {
    { "1024^3", 1024, 1024, 1024 },
    { "LeNet-5, conv 2", 784, 150, 16 }, { "LeNet-5, conv 3", 784, 400, 120 }, { "LeNet-5, linear 1", 128, 5880, 84 },
    { "MNIST CNN, conv 2", 784, 288, 64 }, { "MNIST CNN, linear 1", 128, 12544, 128 },
    { "CIFAR-10 CNN, conv 2", 1024, 288, 32 }, { "CIFAR-10 CNN, conv 4", 1024, 576, 64 },
    { "CIFAR-10 CNN, linear 1", 128, 4096, 512 }
};
enum { PRODUCTS = sizeof products / sizeof *products };

typedef struct multiplication {             /* one product with so many threads */
    const product *product;
    void *context, *work;
    cnn_linear_shape shape;
    float *y, *x, *weight;
    int calls;                              /* in a repeat: as many as are surely longer than the clock's errors */
    double gflop;
    series ms;
} multiplication;

static float *random_floats(void *context, size_t n)
{
    float *x = (float *)simd.alloc(context, sizeof *x * n);
    uint32_t r = 1;
    size_t i;
    if (!x) fail("out of memory");
    for (i = 0; i < n; i++) x[i] = (float)((r = r * 1664525u + 1013904223u) >> 8) / 8388608 - 1;
    return x;
}

static void *open_simd(int threads)
{
    char sentence[256] = "";
    void *context = simd.open(threads, sentence, sizeof sentence);
    if (!context) fail("%s", sentence);
    return context;
}

static void multiplication_new(multiplication *m, const product *p, int threads)
{
    memset(m, 0, sizeof *m);
    m->product = p;
    m->context = open_simd(threads);
    m->shape.batch = p->rows; m->shape.in_features = p->in; m->shape.out_features = p->out;
    m->work = simd.alloc(m->context, simd.linear_work(m->context, &m->shape) + 1);
    m->x = random_floats(m->context, (size_t)p->rows * p->in);
    m->weight = random_floats(m->context, (size_t)p->out * p->in);
    m->y = random_floats(m->context, (size_t)p->rows * p->out);
    m->gflop = 2e-9 * linear_work(&m->shape);
    m->calls = 1 + (int)(0.3 / m->gflop);
}

static void multiplication_round(multiplication *m)
{
    double begun = seconds();
    int i;
    do simd.linear_forward(m->context, &m->shape, m->y, m->x, m->weight, NULL, m->work); while (seconds() - begun < SETTLE);
    begun = seconds();
    for (i = 0; i < m->calls; i++) simd.linear_forward(m->context, &m->shape, m->y, m->x, m->weight, NULL, m->work);
    add(&m->ms, 1e3 * (seconds() - begun) / m->calls);
}

/* ---- denormals: numbers below 1e-38, which some processors multiply a hundred times slower. Gradients that vanish
   late in training are such numbers; so are Adam's moments where gradients have become 0, and they stay so ---- */

static const float scales[] = { 1, 1e-30f, 1e-40f };        /* of gradients and moments; 1e-30 is denormal once squared */
static const char *const denormal_entries[] = { "adam_step", "adam_step, gradients 0", "conv2d_backward", "linear_backward",
                                                "activation_backward" };
enum { SCALES = 3, DENORMAL_ENTRIES = sizeof denormal_entries / sizeof *denormal_entries, DENORMAL_VALUES = 1 << 20 };

typedef struct denormal_arrays {
    void *context, *work;
    float *w, *m, *v, *g, *none, *dx;       /* DENORMAL_VALUES each */
    float *m0, *v0;                         /* what m and v begin with */
    cnn_conv2d_shape conv;
    cnn_linear_shape linear;
    series ms[DENORMAL_ENTRIES];
} denormal_arrays;

static void denormal_new(denormal_arrays *a, float scale)
{
    cnn_conv2d_shape *c = &a->conv;
    size_t conv_room, linear_room, i;
    float **arrays[] = { &a->w, &a->m, &a->v, &a->g, &a->none, &a->dx, &a->m0, &a->v0 };
    memset(a, 0, sizeof *a);
    a->context = open_simd(1);
    for (i = 0; i < sizeof arrays / sizeof *arrays; i++) *arrays[i] = random_floats(a->context, DENORMAL_VALUES);
    for (i = 0; i < DENORMAL_VALUES; i++) {
        a->m0[i] *= scale;
        a->v0[i] = fabsf(a->v0[i]) * scale;
        a->g[i] *= scale;
        a->none[i] = 0;
    }
    c->batch = 16; c->in_channels = 32; c->out_channels = 64; c->groups = 1;
    c->in_height = c->in_width = c->out_height = c->out_width = 28;
    c->kernel_height = c->kernel_width = 3;
    c->stride_height = c->stride_width = c->dilation_height = c->dilation_width = 1;
    c->pad_top = c->pad_left = c->pad_bottom = c->pad_right = 1;
    a->linear.batch = 128; a->linear.in_features = 4096; a->linear.out_features = 128;
    conv_room = simd.conv2d_work(a->context, c);
    linear_room = simd.linear_work(a->context, &a->linear);
    a->work = simd.alloc(a->context, (conv_room > linear_room ? conv_room : linear_room) + 1);
    if (!a->work) fail("out of memory");
}

static void denormal_round(denormal_arrays *a, int entry)
{
    cnn_adam_options adam = { 1e-3f, 0.9f, 0.999f, 1e-8f, 0 };
    cnn_counters counters = { 0 };
    cnn_span span;
    const float *g = entry ? a->none : a->g;
    double begun;
    counters.lr = 1e-3;
    memset(&span, 0, sizeof span);
    span.count = DENORMAL_VALUES;
    span.trainable = 1;
    memcpy(a->m, a->m0, sizeof(float) * DENORMAL_VALUES);
    memcpy(a->v, a->v0, sizeof(float) * DENORMAL_VALUES);
    begun = seconds();
    if (entry < 2) simd.adam_step(a->context, &counters, &adam, 0, a->w, a->m, a->v, g, DENORMAL_VALUES, &span, 1);
    else if (entry == 2)
        simd.conv2d_backward(a->context, &a->conv, a->dx, a->m, NULL, a->g, a->w, NULL, a->w, a->w, a->work);
    else if (entry == 3)
        simd.linear_backward(a->context, &a->linear, a->dx, a->m, NULL, a->g, a->w, a->w, a->w, a->work);
    else simd.activation_backward(a->context, CNN_RELU, 0, a->dx, a->g, a->w, NULL, DENORMAL_VALUES);
    add(&a->ms[entry], 1e3 * (seconds() - begun));
}

static void denormals(int repeats)
{
    static denormal_arrays arrays[SCALES];
    int i, k, r;
    for (k = 0; k < SCALES; k++) denormal_new(&arrays[k], scales[k]);
    for (r = 0; r < repeats + WARM_UP; r++)
        for (i = 0; i < DENORMAL_ENTRIES; i++)
            for (k = 0; k < SCALES; k++) {
                denormal_round(&arrays[k], i);
                if (r < WARM_UP) arrays[k].ms[i].count = 0;
            }
    printf("\nTiny gradients and moments, 1 thread: ms where they are about\n  %-24s", "");
    for (k = 0; k < SCALES; k++) printf(" %9s", k == 0 ? "1" : k == 1 ? "1e-30" : "1e-40");
    printf("   slower by\n");
    for (i = 0; i < DENORMAL_ENTRIES; i++) {
        printf("  %-24s", denormal_entries[i]);
        for (k = 0; k < SCALES; k++) printf(" %9.3f", median(&arrays[k].ms[i]));
        printf(" %9.2f x\n", median(&arrays[SCALES - 1].ms[i]) / median(&arrays[0].ms[i]));
    }
}

/* ---- memory, in a process of its own: the whole data set, an epoch cut short, an evaluation ---- */

typedef struct memory { long peak_kib; size_t held, late_allocations; } memory;

static memory train_and_weigh(const network *w)
{
    cnn_data *train = random_data(w, w->samples), *test = random_data(w, 10000);
    cnn_loader *loader = cnn_loader_new(train, .batch_size = BATCH);
    cnn_batch batch;
    size_t before = bytes_held, allocated;
    cnn_net *net = new_net(w, 1);
    struct rusage usage;
    memory result;
    int i;
    cnn_next(loader, &batch);
    train_step(net, &batch);
    allocated = allocations;
    for (i = 0; i < 3; i++) train_step(net, &batch);
    result.late_allocations = allocations - allocated;
    train->count = 2 * BATCH;
    test->count = 2 * BATCH;
    cnn_fit(net, train, test, .epochs = 1);
    result.held = bytes_held - before;
    if (cnn_error(net)) fail("%s", cnn_error(net));
    getrusage(RUSAGE_SELF, &usage);
    result.peak_kib = usage.ru_maxrss;
    return result;
}

static memory weigh(const network *w)
{
    memory result = { 0, 0, 0 };
    int ends[2];
    pid_t child = -1;
    fflush(stdout);
    if (!pipe(ends)) child = fork();
    if (child < 0) fail("no process for measuring memory");
    if (!child) {
        result = train_and_weigh(w);
        _exit(write(ends[1], &result, sizeof result) != sizeof result);
    }
    close(ends[1]);
    if (read(ends[0], &result, sizeof result) != sizeof result) fail("measuring memory came to nothing");
    close(ends[0]);
    waitpid(child, NULL, 0);
    return result;
}

/* ---- other programs: how long they take from start to end ---- */

static double children_seconds(void)        /* that they had a processor for */
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
         + 1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void time_command(int repeats, char **command)
{
    series ms = { 0 }, of_them = { 0 };
    int r, status;
    for (r = 0; r < repeats; r++) {
        double begun = seconds(), before = children_seconds();
        pid_t child = fork();
        if (!child) {
            if (freopen("/dev/null", "w", stdout)) execvp(command[0], command);
            _exit(127);
        }
        if (child < 0 || waitpid(child, &status, 0) != child || status) fail("%s did not end well", command[0]);
        add(&ms, 1e3 * (seconds() - begun));
        add(&of_them, 1e3 * (children_seconds() - before));
    }
    printf("%.2f ms, %.2f on the processor (medians of %d)\n", median(&ms), median(&of_them), repeats);
}

/* ---- the options ---- */

static struct { int threads, repeats, is_short, cpu_time; const char *net; } options = { 0, 30, 0, 0, NULL };

static int chosen(const network *w) { return !options.net || !strcmp(options.net, w->name); }

static void help(void)
{
    puts("bench - how fast training is, against the machine's own limit\n\n"
         "usage: build/bench [options]\n"
         "  --threads N   with N threads only (default: 1, and 2 where there are two processors)\n"
         "  --repeats N   rounds, of which the median counts (default 30)\n"
         "  --net NAME    lenet5, mnist_cnn, cifar10_cnn, resnet20 or others only\n"
         "  --short       one line a network: ms a training step and an inference batch\n"
         "  --cpu-time    the process's own time instead of the clock's: for one thread on a machine that others use\n"
         "  --time N COMMAND...  only the ms that COMMAND takes, N runs");
    exit(0);
}

static int whole_number(const char *option, const char *text, int most)
{
    char *end;
    long value = text ? strtol(text, &end, 10) : 0;
    if (!text || *end || value < 1 || value > most) fail("%s needs a whole number from 1 to %d", option, most);
    return (int)value;
}

static void read_options(int argc, char **argv)
{
    int i, known = 0;
    for (i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--help")) help();
        else if (!strcmp(argv[i], "--short")) options.is_short = 1;
        else if (!strcmp(argv[i], "--cpu-time")) options.cpu_time = 1;
        else if (!strcmp(argv[i], "--threads")) options.threads = whole_number(argv[i++], value, MOST_THREADS);
        else if (!strcmp(argv[i], "--repeats")) options.repeats = whole_number(argv[i++], value, 100000);
        else if (!strcmp(argv[i], "--net") && value) options.net = value, i++;
        else if (!strcmp(argv[i], "--time") && i + 2 < argc) {
            time_command(whole_number(argv[i], value, 1000), argv + i + 2);
            exit(0);
        } else fail("there is no option %.60s, or it needs a value; --help lists those there are", argv[i]);
    }
    for (i = 0; i < NETWORKS; i++) known += chosen(&networks[i]);
    if (!known) fail("there is no network %.60s; --help lists those there are", options.net);
    if (options.cpu_time && options.threads != 1) fail("--cpu-time adds up the time of all threads; give --threads 1 as well");
    if (options.cpu_time) measure_clock = CLOCK_PROCESS_CPUTIME_ID;
}

/* ---- the run ---- */

enum { THREADS = 2 };                       /* numbers of threads that one run compares */

static int threads[THREADS] = { 1, 2 }, threads_count, trained, multiplied;
static series limits[THREADS];
static training trainings[THREADS * NETWORKS];
static multiplication multiplications[THREADS * PRODUCTS];
static memory memories[NETWORKS];

static void enter_contestants(void)
{
    int i, k;
    for (k = 0; k < threads_count; k++) {
        for (i = 0; i < NETWORKS; i++)
            if (chosen(&networks[i])) training_new(&trainings[trained++], &networks[i], threads[k]);
        for (i = 0; i < PRODUCTS && !options.is_short; i++)
            multiplication_new(&multiplications[multiplied++], &products[i], threads[k]);
    }
}

static void forget(void)                    /* the warm-up */
{
    int i, k;
    for (k = 0; k < threads_count; k++) limits[k].count = 0;
    for (i = 0; i < multiplied; i++) multiplications[i].ms.count = 0;
    for (i = 0; i < trained; i++) {
        training *t = &trainings[i];
        t->step.count = t->inference.count = 0;
        for (k = 0; k < t->parts.count; k++) t->parts.parts[k].ms.count = 0;
    }
}

static void measure(void)
{
    instruction_set set = best_instruction_set();
    int i, k, r;
    for (r = 0; r < options.repeats + WARM_UP; r++) {
        if (r == WARM_UP) forget();
        for (k = 0; k < threads_count && !options.is_short; k++) add(&limits[k], limit(&set, threads[k]));
        for (i = 0; i < multiplied; i++) multiplication_round(&multiplications[i]);
        for (i = 0; i < trained; i++) training_round(&trainings[i]);
    }
}

/* ---- what is printed ---- */

static const char *threads_text(int count)
{
    static char text[32];
    snprintf(text, sizeof text, "%d thread%s", count, count == 1 ? "" : "s");
    return text;
}

static void print_rate(double gflop, double ms, double most)
{
    printf(" %9.3f", ms);
    if (gflop > 0) printf(" %8.1f %5.0f%%", 1e3 * gflop / ms, 1e5 * gflop / ms / most);
}

static void print_products(void)
{
    int i, k;
    printf("\nThe product alone\n  %-24s %-22s", "", "rows x depth x columns");
    for (k = 0; k < threads_count; k++) printf("  %9s ms  GFLOP/s limit", threads_text(threads[k]));
    printf("\n");
    for (i = 0; i < PRODUCTS; i++) {
        char shape[64];
        snprintf(shape, sizeof shape, "%d x %d x %d", products[i].rows, products[i].in, products[i].out);
        printf("  %-24s %-22s", products[i].what, shape);
        for (k = 0; k < threads_count; k++) {
            multiplication *m = &multiplications[k * PRODUCTS + i];
            printf("   ");
            print_rate(m->gflop, median(&m->ms), median(&limits[k]));
        }
        printf("\n");
    }
}

static void print_trainings(void)
{
    int i, k;
    printf("\nTraining steps (forward, loss, backward, Adam) and inference\n  %-14s %-9s  step: GFLOP        ms  GFLOP/s limit"
           "   inference: GFLOP        ms  GFLOP/s limit\n", "", "");
    for (i = 0; i < trained; i++) {
        training *t = &trainings[i];
        double most = median(&limits[t->threads != threads[0]]), step = 0, inference = 0;
        for (k = 0; k < t->parts.count; k++) {
            step += t->parts.parts[k].gflop;
            if (strstr(t->parts.parts[k].entry, "_forward")) inference += t->parts.parts[k].gflop;
        }
        printf("  %-14s %-9s %12.2f", t->network->title, threads_text(t->threads), step);
        print_rate(step, median(&t->step), most);
        printf(" %18.2f", inference);
        print_rate(inference, median(&t->inference), most);
        printf("\n");
    }
}

/* The way back of what went forward at `at`: the next call of that entry, with that shape, that is not taken */
static part *way_back(profile *p, int at)
{
    part *f = &p->parts[at];
    char *end = strstr(f->entry, "_forward");
    int k;
    for (k = at + 1; end && k < p->count; k++) {
        part *b = &p->parts[k];
        if (!b->shown && !strcmp(b->entry + (end - f->entry), "_backward") && !strcmp(b->shape, f->shape)
            && !strncmp(b->entry, f->entry, (size_t)(end - f->entry)))
            return b;
    }
    return NULL;
}

/* Later calls of the same kind as part i are added to it, but for the way back. Returns how many there are, with i. */
static int gather_parts(profile *p, int i, double *ms, double *gflop)
{
    int k, calls = 0;
    part *f = &p->parts[i];
    *ms = *gflop = 0;
    for (k = i; k < p->count; k++) {
        part *o = &p->parts[k];
        if (o->shown || strcmp(o->entry, f->entry) || strcmp(o->shape, f->shape)) continue;
        *ms += median(&o->ms);
        *gflop += o->gflop;
        o->shown = 1;
        calls++;
    }
    return calls;
}

static void print_parts(training *t, double most)
{
    profile *p = &t->parts;
    double rest = median(&t->step), ms, gflop;
    int i, calls;
    printf("\n%s, %s: ms an operation within the training step\n  %-22s %-40s %9s %8s %6s %9s %8s %6s\n", t->network->title,
           threads_text(t->threads), "", "", "forward", "GFLOP/s", "limit", "backward", "GFLOP/s", "limit");
    for (i = 0; i < p->count; i++) {
        part *f = &p->parts[i], *b;
        char label[80];
        rest -= median(&f->ms);
        if (f->shown) continue;
        b = way_back(p, i);
        calls = gather_parts(p, i, &ms, &gflop);
        if (calls > 1) snprintf(label, sizeof label, "%d x  %.60s", calls, f->shape);
        else snprintf(label, sizeof label, "%.63s", f->shape);
        printf("  %-22.*s %-40s", (int)strlen(f->entry) - (b ? (int)strlen("_forward") : 0), f->entry, label);
        print_rate(gflop, ms, most);
        if (b) {
            gather_parts(p, (int)(b - p->parts), &ms, &gflop);
            if (!(f->gflop > 0)) printf(" %15s", "");
            print_rate(gflop, ms, most);
        }
        printf("\n");
    }
    printf("  %-63s %9.3f\n", "all else", rest);
}

static void print_memory(void)
{
    int i;
    printf("\nMemory of a training run with its whole data set, 1 thread\n"
           "  %-14s peak resident   the network holds   allocations after the first step\n", "");
    for (i = 0; i < NETWORKS; i++)
        if (chosen(&networks[i]))
            printf("  %-14s %10.1f MB %16.1f MB %34lu\n", networks[i].title, (double)memories[i].peak_kib * 1024 / 1e6,
                   (double)memories[i].held / 1e6, (unsigned long)memories[i].late_allocations);
}

static void print_all(void)
{
    int i, k;
    printf("%s, %d processor%s, %s, %s; batch %d, medians of %d rounds\n", processor(), processors(),
           processors() == 1 ? "" : "s", best_instruction_set().name, compiler(), BATCH, options.repeats);
    printf("\nThe limit: multiply-adds in registers\n");
    for (k = 0; k < threads_count; k++) printf("  %-9s %8.1f GFLOP/s\n", threads_text(threads[k]), median(&limits[k]));
    print_products();
    print_trainings();
    for (i = 0; i < trained; i++) print_parts(&trainings[i], median(&limits[trainings[i].threads != threads[0]]));
    print_memory();
    denormals(options.repeats);
}

int main(int argc, char **argv)
{
    int i;
    read_options(argc, argv);
    simd = *cnn_find_backend("simd");
    threads_count = options.threads || processors() < 2 ? 1 : THREADS;
    if (options.threads) threads[0] = options.threads;
    for (i = 0; i < NETWORKS && !options.is_short; i++)    /* first, while this process is still small */
        if (chosen(&networks[i])) memories[i] = weigh(&networks[i]);
    enter_contestants();
    measure();
    if (!options.is_short) print_all();
    for (i = 0; i < trained && options.is_short; i++)
        printf("%s threads %d: train %.3f ms/step, infer %.3f ms/batch of %d\n", trainings[i].network->name,
               trainings[i].threads, median(&trainings[i].step), median(&trainings[i].inference), BATCH);
    return 0;
}
