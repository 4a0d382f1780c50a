/* bench_cuda.c - milliseconds of a training step of the lecture's networks, on random bytes, as PyTorch's side is measured.

       bench_cuda [backend [batch [steps]]]        default cuda, 128 and 200; make bench-cuda runs it beside PyTorch on a GPU

   Twice: waiting for the loss of each step (the median), and with all steps under way at once (the mean). And both in float32
   and with TF32 allowed, as PyTorch allows it by default. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "../examples/networks.h"
#include "lecture.h"

static const struct { const char *name; void (*build)(cnn_net *); int channels, size; } programs[] = {
    { "lenet5", network_lenet5, 1, 28 }, { "mnist_cnn", network_mnist_cnn, 1, 28 },
    { "cifar10_cnn", network_cifar10_cnn, 3, 32 }
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void train_step(cnn_net *net, const cnn_batch *batch)
{
    cnn_forward(net, batch);
    cnn_cross_entropy(net, batch);
    cnn_zero_grad(net);
    cnn_backward(net);
    cnn_step(net);
}

static int bench(int program, const char *backend, int tf32, int batch_size, int steps)
{
    int channels = programs[program].channels, size = programs[program].size, i;
    size_t values = (size_t)batch_size * channels * size * size, k;
    unsigned char *bytes = (unsigned char *)malloc(values);
    int *labels = (int *)malloc(sizeof *labels * (size_t)batch_size);
    double *seconds = (double *)malloc(sizeof *seconds * (size_t)steps), start;
    cnn_net *net = cnn_new(channels, size, size);
    cnn_data_options o;
    cnn_data *data;
    cnn_loader *loader;
    cnn_batch batch;
    uint32_t r[4];
    memset(&o, 0, sizeof o);
    for (k = 0; k < values; k++) { cnn_random(r, 1, 0, 0, (uint32_t)k); bytes[k] = (unsigned char)r[0]; }
    for (i = 0; i < batch_size; i++) { cnn_random(r, 1, 1, 0, (uint32_t)i); labels[i] = (int)(r[0] % 10); }
    o.count = batch_size; o.channels = channels; o.height = o.width = size; o.classes = 10; o.bytes = bytes; o.labels = labels;
    data = cnn_data_new_with(o);
    cnn_to(net, backend);
    cnn_allow_tf32(net, tf32);
    programs[program].build(net);
    cnn_adam(net, .lr = 1e-3f);
    loader = cnn_loader_new(data, .batch_size = batch_size);
    cnn_next(loader, &batch);
    for (i = 0; i < 10 && !cnn_error(net); i++) train_step(net, &batch);
    for (i = 0; i < steps && !cnn_error(net); i++) {
        cnn_loss(net);
        start = cnn__seconds();
        train_step(net, &batch);
        cnn_loss(net);
        seconds[i] = cnn__seconds() - start;
    }
    qsort(seconds, (size_t)i, sizeof *seconds, by_size);
    start = cnn__seconds();
    for (i = 0; i < steps && !cnn_error(net); i++) train_step(net, &batch);
    cnn_loss(net);
    start = cnn__seconds() - start;
    if (cnn_error(net)) printf("%s %s: %s\n", programs[program].name, backend, cnn_error(net));
    else
        printf("%s cnn.h %s %s: train %.3f ms/step waiting for each loss, %.3f ms/step without, batch %d\n",
               programs[program].name, backend, tf32 ? "tf32" : "float32", 1e3 * seconds[steps / 2], 1e3 * start / steps,
               batch_size);
    fflush(stdout);
    i = cnn_error(net) != NULL;
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_data_free(data);
    free(bytes); free(labels); free(seconds);
    return i;
}

int main(int argc, char **argv)
{
    const char *backend = argc > 1 ? argv[1] : "cuda";
    int batch = argc > 2 ? atoi(argv[2]) : 128, steps = argc > 3 ? atoi(argv[3]) : 200, failed = 0, i;
    for (i = 0; i < 6; i++) failed |= bench(i / 2, backend, i % 2, batch, steps);
    return failed;
}
