/* bench_shapes.c - any batch, any shape: what a step and inference take, what they cannot go below, and which way each
   layer takes.

       make bench          or          build/bench_shapes [--threads N] [--seconds S] [--ways] [NAME ...]

   The rows are those that the peer program sweep.py times in PyTorch. A row's floor is the larger of two times: for its
   multiply-adds, if the registers did nothing else; and for its compulsory bytes, if memory did nothing else: each operation
   reads its input and weights and writes its output once; on the way back it reads input, output and gradient, and writes
   its own; Adam reads four numbers a weight and writes three. What stays in a cache from one operation to the next, or is
   computed with fewer multiplications (Winograd, gradients that are 0), goes below. The two rates are measured in turn with
   the row, in five rounds, because a shared machine has others in the next minute; a ratio is the rounds' median. */
#define _POSIX_C_SOURCE 200809L
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "measure.h"

#define LENET "c6:5:1:2,r,m2,c16:5:1:2,r,m2,c120:5:1:2,r,f,l84,r,l10"
#define MNIST "c32:3:1:1,r,c64:3:1:1,r,m2,d,f,l128,r,d,l10"
#define CIFAR "c32:3:1:1,r,c32:3:1:1,r,m2,d,c64:3:1:1,r,c64:3:1:1,r,m2,d,f,l512,r,d,l10"
#define VGG   "c64:3:1:1,r,c64:3:1:1,r,m2,c128:3:1:1,r,c128:3:1:1,r,m2,c256:3:1:1,r,c256:3:1:1,r,m2," \
              "c512:3:1:1,r,c512:3:1:1,r,m2,f,l512,r,l10"

/* cK:k:s:p:g  conv2d with K kernels of size k, stride s, padding p, groups g;  x: conv1d;  r  ReLU;  mK  max, aK  average
   pooling;  g  global average pooling;  f  flatten;  lN  linear;  d  dropout */
typedef struct row { const char *name; int channels, height, width, batch; const char *layers; } row;
static const row rows[] = {
    { "lenet5 b1", 1, 28, 28, 1, LENET }, { "lenet5 b8", 1, 28, 28, 8, LENET }, { "lenet5 b32", 1, 28, 28, 32, LENET },
    { "lenet5 b64", 1, 28, 28, 64, LENET }, { "lenet5 b128", 1, 28, 28, 128, LENET }, { "lenet5 b512", 1, 28, 28, 512, LENET },
    { "mnist_cnn b1", 1, 28, 28, 1, MNIST }, { "mnist_cnn b8", 1, 28, 28, 8, MNIST },
    { "mnist_cnn b32", 1, 28, 28, 32, MNIST }, { "mnist_cnn b128", 1, 28, 28, 128, MNIST },
    { "cifar_cnn b1", 3, 32, 32, 1, CIFAR }, { "cifar_cnn b8", 3, 32, 32, 8, CIFAR },
    { "cifar_cnn b32", 3, 32, 32, 32, CIFAR }, { "cifar_cnn b128", 3, 32, 32, 128, CIFAR },
    { "vgg b1", 3, 32, 32, 1, VGG }, { "vgg b32", 3, 32, 32, 32, VGG },
    { "mlp b1", 1, 28, 28, 1, "f,l512,r,l512,r,l10" }, { "mlp b128", 1, 28, 28, 128, "f,l512,r,l512,r,l10" },
    { "1x1 64-256 14^2 b64", 3, 14, 14, 64, "c64:3:1:1,r,c256:1:1:0,r,c64:1:1:0,r,g,f,l10" },
    { "3x3 stride 2 b64", 3, 28, 28, 64, "c64:3:1:1,r,c128:3:2:1,r,g,f,l10" },
    { "depthwise 64 28^2 b64", 3, 28, 28, 64, "c64:3:1:1,r,c64:3:1:1:64,r,g,f,l10" },
    { "7x7 stride 2 112^2 b16", 3, 112, 112, 16, "c64:7:2:3,r,m2,c64:3:1:1,r,g,f,l10" },
    { "11x11 stride 4 224^2 b8", 3, 224, 224, 8, "c64:11:4:2,r,m2,c192:5:1:2,r,m2,g,f,l10" },
    { "1d k9 1024 b32", 1, 1, 1024, 32, "x32:9:1:4,r,x64:9:2:4,r,g,f,l10" },
    { "no relu, average b64", 3, 32, 32, 64, "c32:3:1:1,c32:3:1:1,a2,c64:3:1:1,g,f,l10" }
};
enum { ROWS = sizeof rows / sizeof *rows };

static void fail(const char *sentence)
{
    fprintf(stderr, "bench_shapes: %s\n", sentence);
    exit(1);
}

static cnn_net *network_of(const row *r, int threads)
{
    cnn_net *net = cnn_new(r->channels, r->height, r->width);
    const char *text = r->layers;
    cnn_set_num_threads(net, threads);
    for (; text; text = strchr(text, ',')) {
        int a[5] = { 0, 3, 1, 0, 1 };
        if (*text == ',') text++;
        sscanf(text + 1, "%d:%d:%d:%d:%d", &a[0], &a[1], &a[2], &a[3], &a[4]);
        switch (*text) {
        case 'c':
            cnn_conv2d(net, .out_channels = a[0], .kernel_size = a[1], .stride = a[2], .padding = a[3], .groups = a[4]);
            break;
        case 'x':
            cnn_conv1d(net, .out_channels = a[0], .kernel_size = a[1], .stride = a[2], .padding = a[3], .groups = a[4]);
            break;
        case 'r': cnn_relu(net); break;
        case 'm': cnn_max_pool2d(net, .kernel_size = a[0]); break;
        case 'a': cnn_avg_pool2d(net, .kernel_size = a[0]); break;
        case 'g': cnn_global_avg_pool2d(net); break;
        case 'f': cnn_flatten(net); break;
        case 'l': cnn_linear(net, .out_features = a[0]); break;
        default: cnn_dropout(net, .p = .5f); break;
        }
    }
    cnn_adam(net, .lr = 1e-3f);
    return net;
}

/* ---- the floor ---- */

typedef struct cost { double gflop, gigabytes; } cost;     /* of a batch */

static void costs_of(const cnn_net *net, int batch, cost *step, cost *inference)
{
    double weights = (double)net->parameter_count, values = 0, flop = 0, flop_back = 0;
    int i, k;
    for (i = 0; i < net->op_count; i++) {
        const cnn__op *op = &net->pass.ops[i];
        const cnn__layer *l = &net->layers[op->first];
        double work = 2 * cnn__layer_multiply_adds(l);
        values += (double)cnn__size(net->layers[op->last].out);
        for (k = 0; k < l->input_count; k++) values += (double)cnn__input_size(l, k);
        flop += work;
        flop_back += work * (i ? 2 : 1);                   /* the first needs no gradient of the samples */
    }
    inference->gflop = 1e-9 * flop * batch;
    step->gflop = 1e-9 * (flop + flop_back) * batch;
    inference->gigabytes = 4e-9 * (values * batch + weights);
    step->gigabytes = 4e-9 * (3 * values * batch + (1 + 2 + 7) * weights);
}

/* GB/s, read and written, with all threads: a vector is scaled in place, far larger than a cache. */
enum { BANDWIDTH_FLOATS = 1 << 24, BANDWIDTH_PIECES = 64 };

static void scale_piece(void *arguments, int piece, int thread)
{
    float *x = (float *)arguments + (size_t)piece * (BANDWIDTH_FLOATS / BANDWIDTH_PIECES);
    (void)thread;
    cnn__choose_isa(NULL, 0)->leaky_forward(x, x, .999f, BANDWIDTH_FLOATS / BANDWIDTH_PIECES);
}

static double bandwidth(int threads)
{
    static float *x;
    double begun;
    int i;
    if (!x && !(x = (float *)calloc(BANDWIDTH_FLOATS, sizeof *x))) fail("out of memory");
    for (i = 0; i < 2; i++) {                              /* once to warm up */
        begun = seconds();
        cnn__parallel(threads, BANDWIDTH_PIECES, scale_piece, x);
    }
    return 2e-9 * BANDWIDTH_FLOATS * sizeof *x / (seconds() - begun);
}

/* ---- the ways ---- */

/* What cnn__choose_cut and cnn__choose_convolution say of a layer, in words */
static void print_way(const cnn__op *op, const cnn__layer *l, int batch, int threads)
{
    const cnn__isa *isa = cnn__choose_isa(NULL, 0);
    cnn_conv2d_shape s = op->shapes.conv, bundle, few;
    cnn__cut cut;
    cnn__conv_plan p, back;
    int lanes, bundles;
    if (l->multiply_adds <= 0) return;
    if (l->kind->work != cnn__layer_conv2d_work) {
        printf("    %-10s %4d -> %-4d                 %s in the lanes\n", "linear", op->shapes.linear.in_features,
               op->shapes.linear.out_features, cnn__fills_lanes(batch, isa->lanes) ? "samples" : "inputs");
        return;
    }
    s.batch = s.pool.batch = batch;
    bundle = cnn__bundle_of(&s, isa);
    bundles = s.groups / bundle.groups;
    cut = cnn__choose_cut(&bundle, isa);
    p = cnn__plan_cut(&cut, &bundle, isa, threads);
    back = cnn__plan_conv(&bundle, isa, threads, 1);
    lanes = cut.part.batch < isa->lanes * p.blocks ? cut.part.batch : isa->lanes * p.blocks;
    printf("    %-10s %4d -> %-4d of %3d x %-3d %2d x %-2d ", "conv2d", s.in_channels, s.out_channels, s.out_height, s.out_width,
           s.kernel_height, s.kernel_width);
    if (cut.down * cut.right > 1) printf("%d x %d parts of an image", cut.down, cut.right);
    else printf("images");
    printf(" in %d of %d lanes; %s; forward %d pieces, backward %d; dx %s\n", lanes, isa->lanes * p.blocks,
           p.forward.points == 6 ? "Winograd, 6 x 6 points" : p.forward.points ? "Winograd, 8 x 8 points" : "direct",
           bundles * p.blocks * p.shares, bundles * back.pieces * back.shares,
           cnn__few_back(&s, isa, threads, &few) ? "as a forward pass" : back.phases ? "in phases" : back.backward.points ? "by Winograd" : "direct");
}

/* ---- the rows ---- */

static double median_ms(cnn_net *net, cnn_loader *loader, const float *x, float *y, int batch, double length)
{
    series found = { NULL, 0, 0 };
    double begun = seconds(), start, ms;
    cnn_batch b;
    while (found.count < 5 || seconds() - begun < length) {
        start = seconds();
        if (loader) {
            while (!cnn_next(loader, &b)) if (cnn_error(net)) fail(cnn_error(net));
            cnn_forward(net, &b);
            cnn_cross_entropy(net, &b);
            cnn_zero_grad(net);
            cnn_backward(net);
            cnn_step(net);
        } else cnn_predict(net, y, x, batch);
        add(&found, 1e3 * (seconds() - start));
    }
    if (cnn_error(net)) fail(cnn_error(net));
    ms = median(&found);
    free(found.values);
    return ms;
}

enum { ROUNDS = 5 };

static void print_row(const row *r, const instruction_set *set, int threads, double length, int ways)
{
    int samples = r->batch < 16 ? 64 : 4 * r->batch, k;
    size_t pixels = (size_t)r->channels * (size_t)r->height * (size_t)r->width, i;
    float *x = (float *)malloc(sizeof *x * pixels * (size_t)samples), *y = (float *)malloc(sizeof *y * 10 * (size_t)r->batch);
    int *labels = (int *)malloc(sizeof *labels * (size_t)samples);
    cnn_net *net = network_of(r, threads);
    cnn_data *data;
    cnn_loader *loader;
    cost costs[2];                                         /* of a step, and of inference */
    series ms[2] = { { NULL, 0, 0 }, { NULL, 0, 0 } }, floors[2] = { { NULL, 0, 0 }, { NULL, 0, 0 } },
           ratios[2] = { { NULL, 0, 0 }, { NULL, 0, 0 } };
    int round;
    if (!x || !y || !labels) fail("out of memory");
    for (i = 0; i < pixels * (size_t)samples; i++) x[i] = (float)(i * 2654435761u % 1000) / 1000 - .3f;
    for (k = 0; k < samples; k++) labels[k] = (int)((unsigned)k * 40503u % 10);
    data = cnn_data_new(.count = samples, .channels = r->channels, .height = r->height, .width = r->width, .classes = 10,
                        .floats = x, .labels = labels);
    loader = cnn_loader_new(data, .batch_size = r->batch, .drop_last = 1);
    median_ms(net, loader, x, y, r->batch, 0);             /* to warm up */
    costs_of(net, r->batch, &costs[0], &costs[1]);
    for (round = 0; round < ROUNDS; round++) {
        double most = limit(set, threads), memory = bandwidth(threads);
        for (k = 0; k < 2; k++) {
            double found = median_ms(net, k ? NULL : loader, x, y, r->batch, length / ROUNDS);
            double least = 1e3 * fmax(costs[k].gflop / most, costs[k].gigabytes / memory);
            add(&ms[k], found);
            add(&floors[k], least);
            add(&ratios[k], found / least);
        }
    }
    printf("%-26s", r->name);
    for (k = 0; k < 2; k++) printf("%s %9.3f %9.3f %6.2f", k ? "  " : "", median(&ms[k]), median(&floors[k]), median(&ratios[k]));
    putchar('\n');
    for (k = 0; ways && k < net->op_count; k++)
        print_way(&net->pass.ops[k], &net->layers[net->pass.ops[k].first], r->batch, threads);
    fflush(stdout);
    cnn_loader_free(loader);
    cnn_data_free(data);
    cnn_free(net);
    for (k = 0; k < 2; k++) free(ms[k].values), free(floors[k].values), free(ratios[k].values);
    free(x); free(y); free(labels);
}

static int wanted(const char *name, char **names, int count)
{
    int i;
    for (i = 0; i < count; i++) if (strstr(name, names[i])) return 1;
    return !count;
}

int main(int argc, char **argv)
{
    static const char *const usage = "usage: bench_shapes [--threads N] [--seconds S] [--ways] [NAME ...]";
    instruction_set set = best_instruction_set();
    int threads = processors() < 2 ? 1 : 2, ways = 0, i, k, names = 0;
    double length = .5;
    series most = { NULL, 0, 0 }, memory = { NULL, 0, 0 };
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--ways")) ways = 1;
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc) threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--seconds") && i + 1 < argc) length = atof(argv[++i]);
        else if (argv[i][0] == '-') return fputs(usage, stderr), fputc('\n', stderr), 1;
        else argv[1 + names++] = argv[i];
    }
    if (threads < 1 || length <= 0) return fputs(usage, stderr), fputc('\n', stderr), 1;
    for (i = 0; i < 9; i++) add(&most, limit(&set, threads)), add(&memory, bandwidth(threads));
    printf("%s, %s, %s; %d threads: %.1f GFLOP/s in registers, %.1f GB/s to and from memory\n", processor(), set.name,
           compiler(), threads, median(&most), median(&memory));
    printf("%-26s  step, ms     floor  ratio  inference     floor  ratio\n", "network, batch");
    for (k = 0; k < ROWS; k++)
        if (wanted(rows[k].name, argv + 1, names)) print_row(&rows[k], &set, threads, length, ways);
    return 0;
}
