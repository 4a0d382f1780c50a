/* ladder_cuda.c - what each step from the naive kernel to the used one buys: every layer of the lecture's networks, forward and
   backward, on the backends cuda_naive, cuda, and cuda with TF32 allowed, with results compared.

       ladder_cuda [batch [repetitions]]           default 128 and 20; make ladder-cuda runs it on a GPU

   One line a layer: milliseconds (the smallest of the repetitions, memory traffic included), and GFLOP/s of the last. Linear
   layers, and convolutions with fewer than 16 channels, calculate in float32 there, too. */
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../lecture.h"
#include "../test.h"

enum { NAIVE, USED, TF32, STEPS };

static const struct { const char *network; layer l; } layers[] = {
    { "LeNet-5", { 1, 28, 6, 5, 1 } }, { "LeNet-5", { 6, 14, 16, 5, 1 } }, { "LeNet-5", { 16, 7, 120, 5, 0 } },
    { "LeNet-5", { 5880, 1, 84, 0, 0 } }, { "LeNet-5", { 84, 1, 10, 0, 0 } },
    { "MNIST CNN", { 1, 28, 32, 3, 0 } }, { "MNIST CNN", { 32, 28, 64, 3, 1 } },
    { "MNIST CNN", { 12544, 1, 128, 0, 0 } }, { "MNIST CNN", { 128, 1, 10, 0, 0 } },
    { "CIFAR-10 CNN", { 3, 32, 32, 3, 0 } }, { "CIFAR-10 CNN", { 32, 32, 32, 3, 1 } },
    { "CIFAR-10 CNN", { 32, 16, 64, 3, 0 } }, { "CIFAR-10 CNN", { 64, 16, 64, 3, 1 } },
    { "CIFAR-10 CNN", { 4096, 1, 512, 0, 0 } }, { "CIFAR-10 CNN", { 512, 1, 10, 0, 0 } }
};

static float *numbers(const cnn_backend *b, size_t count, float scale, uint32_t stream)
{
    float *host = (float *)malloc(count * sizeof *host), *memory = (float *)b->alloc(b->context, count * sizeof *host);
    uint32_t r[4];
    size_t i;
    for (i = 0; i < count; i++) {
        cnn_random(r, 5, stream, 0, (uint32_t)i);
        host[i] = scale * ((float)r[0] / 2147483648.0f - 1);
    }
    b->upload(b->context, memory, host, count * sizeof *host);
    free(host);
    return memory;
}

typedef struct run { double forward, backward; float *result; size_t count; } run;     /* seconds; dweight */

static run run_layer(const cnn_backend *b, layer l, int tf32, int batch, int repetitions)
{
    cnn_conv2d_shape conv = lecture_conv2d(l, batch);
    cnn_linear_shape linear = { 0, 0, 0, CNN_RELU, 0 };
    size_t taps = (size_t)(l.kernel ? l.kernel * l.kernel : 1), side = (size_t)l.size / (l.pooled ? 2 : 1);
    size_t inputs = (size_t)batch * l.in * l.size * l.size, outputs = (size_t)batch * l.out * side * side;
    size_t weights = (size_t)l.out * l.in * taps;
    float *x = numbers(b, inputs, 1, 1), *w = numbers(b, weights, 1 / sqrtf((float)(l.in * taps)), 2);
    float *bias = numbers(b, (size_t)l.out, 1, 3);
    float *y = numbers(b, outputs, 0, 4), *dy = numbers(b, outputs, 1, 5), *dx = numbers(b, inputs, 0, 6);
    float *dw = numbers(b, weights, 0, 7), *db = numbers(b, (size_t)l.out, 0, 8);
    unsigned char *index = (unsigned char *)b->alloc(b->context, outputs);
    void *work;
    run r = { HUGE_VAL, HUGE_VAL, NULL, 0 };
    int i;
    conv.allow_tf32 = tf32;
    linear.batch = batch; linear.in_features = l.in; linear.out_features = l.out;
    work = b->alloc(b->context, l.kernel ? b->conv2d_work(b->context, &conv) : b->linear_work(b->context, &linear));
    for (i = 0; i < repetitions; i++) {
        double start = cnn__seconds(), middle;
        if (l.kernel) b->conv2d_forward(b->context, &conv, y, l.pooled ? index : NULL, x, w, bias, work);
        else b->linear_forward(b->context, &linear, y, x, w, bias, work);
        b->sync(b->context);
        middle = cnn__seconds();
        if (l.kernel) b->conv2d_backward(b->context, &conv, dx, dw, db, dy, y, index, x, w, work);
        else b->linear_backward(b->context, &linear, dx, dw, db, dy, y, x, w, work);
        CHECK(!b->sync(b->context), "%s: %s", b->name, b->sync(b->context));
        if (middle - start < r.forward) r.forward = middle - start;
        if (cnn__seconds() - middle < r.backward) r.backward = cnn__seconds() - middle;
    }
    r.count = weights;
    r.result = (float *)malloc(weights * sizeof(float));
    b->download(b->context, r.result, dw, weights * sizeof(float));
    b->free(b->context, x); b->free(b->context, w); b->free(b->context, bias); b->free(b->context, y);
    b->free(b->context, dy); b->free(b->context, dx); b->free(b->context, dw); b->free(b->context, db);
    b->free(b->context, index); b->free(b->context, work);
    return r;
}

/* ||a - b|| / ||b||: TF32 rounds, and where two pixels of a window are nearly equal, another one wins */
static double norm_apart(const run *a, const run *b)
{
    double apart = 0, norm = 0;
    size_t i;
    for (i = 0; i < b->count; i++) {
        apart += ((double)a->result[i] - b->result[i]) * ((double)a->result[i] - b->result[i]);
        norm += (double)b->result[i] * b->result[i];
    }
    return sqrt(apart / norm);
}

int main(int argc, char **argv)
{
    int batch = argc > 1 ? atoi(argv[1]) : 128, repetitions = argc > 2 ? atoi(argv[2]) : 20, t;
    const char *const names[STEPS] = { "cuda_naive", "cuda", "cuda" };
    cnn_backend table[STEPS];
    size_t i;
    for (t = 0; t < STEPS; t++) {
        const cnn_backend *found = cnn_find_backend(names[t]);
        char sentence[256] = "this program has no such backend";
        if (found) table[t] = *found;
        if (!found || !(table[t].context = table[t].open(1, sentence, sizeof sentence))) {
            printf("%s: %s\n", names[t], sentence);
            return 1;
        }
    }
    printf("batch %d; milliseconds and GFLOP/s\n%-14s%-26s%10s%10s%9s%8s%8s%12s%10s%9s%8s%8s\n", batch, "network", "layer",
           "forward:", "naive", "float32", "TF32", "GF/s", "backward:", "naive", "float32", "TF32", "GF/s");
    for (i = 0; i < sizeof layers / sizeof *layers; i++) {
        layer l = layers[i].l;
        double products = (double)batch * l.out * l.in * l.size * l.size * (l.kernel ? l.kernel * l.kernel : 1);
        char text[64];
        run r[STEPS];
        for (t = 0; t < STEPS; t++) r[t] = run_layer(&table[t], l, t == TF32, batch, repetitions);
        if (l.kernel)
            snprintf(text, sizeof text, "%d x %d x %d to %d%s", l.in, l.size, l.size, l.out, l.pooled ? ", pool" : "");
        else snprintf(text, sizeof text, "%d to %d", l.in, l.out);
        printf("%-14s%-26s%20.3f%9.3f%8.3f%8.0f%22.3f%9.3f%8.3f%8.0f\n", layers[i].network, text, 1e3 * r[NAIVE].forward,
               1e3 * r[USED].forward, 1e3 * r[TF32].forward, 2e-9 * products / r[TF32].forward, 1e3 * r[NAIVE].backward,
               1e3 * r[USED].backward, 1e3 * r[TF32].backward, 4e-9 * products / r[TF32].backward);
        fflush(stdout);
        CHECK(test_distance(r[USED].result, r[NAIVE].result, r[USED].count, 1e-3 * repetitions * sqrt(batch), 1e-3) <= 1,
              "%s: naive and used kernels give different gradients", text);
        CHECK(norm_apart(&r[TF32], &r[USED]) <= 0.1, "%s: TF32 gives different gradients", text);
        for (t = 0; t < STEPS; t++) free(r[t].result);
    }
    for (t = 0; t < STEPS; t++) table[t].close(table[t].context);
    return test_end("ladder_cuda");
}
