/* bench_cuda.c - cnn.h's side of make bench-cuda, which bench_cuda_torch.py compares with PyTorch's:

       bench_cuda step NETWORK [PRECISION [STEPS [BACKEND]]]    ms a training step: lenet5, mnist_cnn or cifar10_cnn;
                                                               float32 (default) or tf32; 200 steps; cuda
       bench_cuda fit DIRECTORY [PRECISION [EPOCHS [BACKEND]]]  seconds for LeNet-5 on the MNIST files there; 30 epochs

   A step's batch of 128 is gathered by a shuffled order from bytes that lie on the GPU. All steps are under way at once; the
   host waits for the last one. */
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../lecture.h"

enum { BATCH = 128, BATCHES = 100 };

static const struct program { const char *name; void (*build)(cnn_net *); int channels, size; } programs[] = {
    { "lenet5", network_lenet5, 1, 28 }, { "mnist_cnn", network_mnist_cnn, 1, 28 },
    { "cifar10_cnn", network_cifar10_cnn, 3, 32 }
};

static int fails(const char *sentence)
{
    printf("bench_cuda: %s\n", sentence);
    return 1;
}

static cnn_net *new_net(const struct program *p, const char *precision, const char *backend)
{
    cnn_net *net = cnn_new(p->channels, p->size, p->size);
    cnn_to(net, backend);
    p->build(net);
    cnn_adam(net, .lr = 1e-3f);
    cnn_allow_tf32(net, !strcmp(precision, "tf32"));
    cnn_num_parameters(net);                /* opens the backend */
    return net;
}

static cnn_data *random_data(const struct program *p)
{
    size_t values = (size_t)BATCHES * BATCH * p->channels * p->size * p->size, k;
    unsigned char *bytes = (unsigned char *)malloc(values);
    static int labels[BATCHES * BATCH];
    cnn_data_options o;
    uint32_t r[4];
    memset(&o, 0, sizeof o);
    for (k = 0; k < values; k += 16) { cnn_random(r, 1, 0, 0, (uint32_t)(k / 16)); memcpy(bytes + k, r, 16); }
    for (k = 0; k < BATCHES * BATCH; k++) { cnn_random(r, 1, 1, 0, (uint32_t)k); labels[k] = (int)(r[0] % 10); }
    o.count = BATCHES * BATCH; o.channels = p->channels; o.height = o.width = p->size; o.classes = 10;
    o.bytes = bytes; o.labels = labels;
    o.constant = 1;
    return cnn_data_new_with(o);
}

static double seconds_for(cnn_net *net, cnn_loader *loader, int steps)
{
    double start = cnn__seconds();
    cnn_batch batch;
    while (steps && !cnn_error(net)) {
        if (!cnn_next(loader, &batch)) continue;           /* the end of an epoch */
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
        steps--;
    }
    cnn_loss(net);                          /* waits */
    return cnn__seconds() - start;
}

static int bench_step(const struct program *p, const char *precision, int steps, const char *backend)
{
    cnn_net *net = new_net(p, precision, backend);
    cnn_data *data = random_data(p);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = BATCH, .shuffle = 1);
    double seconds;
    seconds_for(net, loader, steps / 4 + 3);               /* the steps are recorded, the clocks go up */
    seconds = seconds_for(net, loader, steps);
    if (cnn_error(net)) return fails(cnn_error(net));
    printf("%s %s %s: %.4f ms/step\n", p->name, precision, backend, 1e3 * seconds / steps);
    return 0;
}

static int bench_fit(const char *directory, const char *precision, int epochs, const char *backend)
{
    cnn_data *train = cnn_load_mnist(directory, "train"), *test = cnn_load_mnist(directory, "t10k");
    cnn_net *net = new_net(&programs[0], precision, backend);
    const cnn_epoch *history;
    double start = cnn__seconds();
    int count;
    if (train->error || test->error) return fails(train->error ? train->error : test->error);
    if (!cnn_fit(net, train, test, .epochs = epochs)) return fails(cnn_error(net));
    history = cnn_history(net, &count);
    printf("LeNet-5 %s %s, %d epochs: %.3f seconds, test_acc %.2f%%\n", precision, backend, count, cnn__seconds() - start,
           100 * history[count - 1].test.accuracy);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "", *precision = argc > 3 ? argv[3] : "float32";
    const char *backend = argc > 5 ? argv[5] : "cuda";
    int times = argc > 4 ? atoi(argv[4]) : 0, i;
    if (!strcmp(what, "fit")) return bench_fit(argv[2], precision, times ? times : 30, backend);
    for (i = 0; i < 3 && !strcmp(what, "step"); i++)
        if (!strcmp(argv[2], programs[i].name)) return bench_step(&programs[i], precision, times ? times : 200, backend);
    return fails("say step and a network, or fit and a folder: see its first lines");
}
