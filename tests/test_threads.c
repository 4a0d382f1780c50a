/* test_threads.c - the number of threads, and the way to write the loop, change no bit of any result.
   With CNN_TEST_SHORT in the environment (valgrind) there are fewer samples, epochs and runs.

   1. Four networks are trained with 1, 2, 3, 4, 7, 16 and 64 threads; losses, scores, parameters and predictions are
      compared bit for bit. Batches of 37 divide neither the samples nor the work; evaluation has batches of 45.
   2. cnn_fit gives what the explicit loop gives, bit for bit.
   3. Two backward passes without cnn_zero_grad give twice the gradient.
   4. Each activation that cnn_get reads from within a fused block is what `direct` makes of the one before.
   5. Denormal numbers, which make a processor slow, count as 0 in every thread. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "test.h"

enum { BATCH = 37, TEST_BATCH = 45, CLASSES = 10 };

static int samples_to_train = 150, samples_to_test = 61, epochs = 2, runs = 7;

/* ---- four networks ---- */

static void lenet(cnn_net *net)
{
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 5, .padding = 2);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 5, .padding = 2);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_conv2d(net, .out_channels = 40, .kernel_size = 5, .padding = 2);
    cnn_relu(net);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 84);
    cnn_relu(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adam(net, .lr = 1e-3f);
}

static void mnist_cnn(cnn_net *net)
{
    cnn_conv2d(net, .out_channels = 12, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_conv2d(net, .out_channels = 24, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_dropout(net, .p = 0.25f);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 50);
    cnn_relu(net);
    cnn_dropout(net, .p = 0.5f);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adamw(net, .lr = 1e-3f);
}

static void cifar_cnn(cnn_net *net)
{
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_dropout(net, .p = 0.25f);
    cnn_conv2d(net, .out_channels = 24, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_conv2d(net, .out_channels = 24, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_dropout(net, .p = 0.25f);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 65);
    cnn_relu(net);
    cnn_dropout(net, .p = 0.5f);
    cnn_linear(net, .out_features = CLASSES);
    cnn_sgd(net, .lr = 0.01f, .momentum = 0.9f);
}

static void unusual(cnn_net *net)
{
    cnn_conv2d(net, .out_channels = 9, .kernel_height = 3, .kernel_width = 4, .stride = 2, .padding = 2, .groups = 3,
               .padding_mode = CNN_REFLECT);
    cnn_tanh(net);
    cnn_avg_pool2d(net, .kernel_size = 3, .stride = 1, .padding = 1);
    cnn_conv2d(net, .out_channels = 15, .kernel_size = 3, .dilation = 2, .padding = CNN_SAME, .padding_mode = CNN_CIRCULAR,
               .no_bias = 1);
    cnn_leaky_relu(net, .negative_slope = 0.1f);
    cnn_max_pool2d(net, .kernel_size = 3, .stride = 2, .padding = 1, .ceil_mode = 1);
    cnn_conv2d(net, .out_channels = 15, .kernel_size = 3, .padding = 1, .groups = 15, .padding_mode = CNN_REPLICATE);
    cnn_sigmoid(net);
    cnn_avg_pool2d(net, .kernel_size = 2, .ceil_mode = 1);
    cnn_flatten(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_softmax(net);
    cnn_sgd(net, .lr = 0.1f, .weight_decay = 1e-3f);
}

typedef struct task { const char *name; void (*build)(cnn_net *net); int channels, size; cnn_loss_kind loss; float clip; } task;
static const task tasks[] = {
    { "lenet", lenet, 1, 28, CNN_CROSS_ENTROPY, 0 }, { "mnist_cnn", mnist_cnn, 1, 28, CNN_CROSS_ENTROPY, 0 },
    { "cifar_cnn", cifar_cnn, 3, 32, CNN_CROSS_ENTROPY, 0 }, { "unusual", unusual, 3, 23, CNN_MSE, 1e-3f }
};
enum { TASKS = sizeof tasks / sizeof *tasks };

static const char *said(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "no error"; }

static cnn_net *new_net(const task *t, int threads)
{
    cnn_net *net = cnn_new(t->channels, t->size, t->size);
    cnn_manual_seed(net, 7);
    cnn_set_num_threads(net, threads);
    t->build(net);
    return net;
}

/* ---- random samples ---- */

typedef struct samples { unsigned char *bytes; int *labels; cnn_data *data; } samples;

static samples new_samples(const task *t, int count, uint32_t stream)
{
    samples s;
    size_t pixels = (size_t)t->channels * t->size * t->size, i;
    uint32_t r[4];
    s.bytes = malloc(pixels * (size_t)count);
    s.labels = malloc(sizeof *s.labels * (size_t)count);
    for (i = 0; i < (size_t)count; i++) {
        cnn_random(r, 1, stream, 0, (uint32_t)i);
        s.labels[i] = (int)(r[0] % CLASSES);
    }
    for (i = 0; i < pixels * (size_t)count; i++) {         /* brighter for larger labels: something to learn */
        cnn_random(r, 1, stream, 1, (uint32_t)i);
        s.bytes[i] = (unsigned char)(r[0] % 128 + 12 * (unsigned)s.labels[i / pixels]);
    }
    s.data = cnn_data_new(.count = count, .channels = t->channels, .height = t->size, .width = t->size, .classes = CLASSES,
                          .bytes = s.bytes, .labels = s.labels);
    return s;
}

static void free_samples(samples *s)
{
    cnn_data_free(s->data);
    free(s->labels);
    free(s->bytes);
}

/* ---- a run, as bytes that can be compared ---- */

typedef struct record { unsigned char *bytes; size_t size; } record;

static void append(record *r, const void *from, size_t size)
{
    r->bytes = realloc(r->bytes, r->size + size);
    memcpy(r->bytes + r->size, from, size);
    r->size += size;
}

static void append_tensors(record *r, cnn_net *net, const char *suffix)
{
    int i;
    for (i = 0; cnn_key(net, i); i++) {
        char key[128];
        float *values;
        size_t n;
        snprintf(key, sizeof key, "%s%s", cnn_key(net, i), suffix);
        n = cnn_get(net, key, NULL, 0);
        values = malloc(n * sizeof *values);
        cnn_get(net, key, values, n);
        append(r, values, n * sizeof *values);
        free(values);
    }
}

static void append_score(record *r, cnn_score s)
{
    append(r, &s.loss, sizeof s.loss);
    append(r, &s.accuracy, sizeof s.accuracy);
}

static void append_result(record *r, cnn_net *net, const samples *test)    /* parameters and predictions */
{
    const cnn_data *d = test->data;
    size_t n = (size_t)d->count * d->channels * d->height * d->width, i;
    float *x = malloc(n * sizeof *x), *y = malloc(sizeof *y * (size_t)d->count * CLASSES);
    for (i = 0; i < n; i++) x[i] = (float)d->bytes[i] / 255;
    append_tensors(r, net, "");
    CHECK(cnn_predict(net, y, x, d->count), "%s", said(net));
    append(r, y, sizeof *y * (size_t)d->count * CLASSES);
    free(x);
    free(y);
}

static int same(const record *a, const record *b)
{
    return a->size && a->size == b->size && !memcmp(a->bytes, b->bytes, a->size);
}

static void take_loss(cnn_net *net, const cnn_batch *batch, cnn_loss_kind loss)
{
    if (loss == CNN_MSE) cnn_mse_loss(net, batch);
    else cnn_cross_entropy(net, batch);
}

/* The explicit loop. fit_like: batches and record as of cnn_fit, whose losses of single batches nobody sees. */
static record train(const task *t, const samples *data, const samples *test, int threads, int fit_like)
{
    record r = { NULL, 0 };
    cnn_net *net = new_net(t, threads);
    cnn_loader *loader = cnn_loader_new(data->data, .batch_size = BATCH, .shuffle = 1, .drop_last = fit_like, .seed = 7);
    int epoch;
    for (epoch = 1; epoch <= epochs; epoch++) {
        cnn_batch batch;
        cnn_set_epoch(loader, epoch - 1);
        while (cnn_next(loader, &batch)) {
            float loss;
            cnn_forward(net, &batch);
            take_loss(net, &batch, t->loss);
            loss = cnn_loss(net);
            CHECK(loss > 0 && loss < 100, "%s: a loss of %g", t->name, loss);
            cnn_zero_grad(net);
            cnn_backward(net);
            if (t->clip > 0) cnn_clip_grad_norm(net, t->clip);
            cnn_step(net);
            if (!fit_like) append(&r, &loss, sizeof loss);
        }
        append_score(&r, cnn_evaluate(net, test->data, TEST_BATCH, t->loss));
    }
    if (!fit_like) append_tensors(&r, net, ".grad");
    append_result(&r, net, test);
    CHECK(!cnn_error(net), "%s: %s", t->name, said(net));
    cnn_loader_free(loader);
    cnn_free(net);
    return r;
}

static record fit(const task *t, const samples *data, const samples *test)
{
    record r = { NULL, 0 };
    cnn_net *net = new_net(t, 2);
    int done, i;
    const cnn_epoch *history;
    CHECK(cnn_fit(net, data->data, test->data, .epochs = epochs, .batch_size = BATCH, .test_batch_size = TEST_BATCH, .loss = t->loss,
                  .clip_grad_norm = t->clip), "%s: %s", t->name, said(net));
    history = cnn_history(net, &done);
    for (i = 0; i < done; i++) append_score(&r, history[i].test);
    append_result(&r, net, test);
    cnn_free(net);
    return r;
}

/* ---- 1 and 2 ---- */

static void test_task(const task *t)
{
    static const int threads[] = { 1, 3, 2, 4, 7, 16, 64 };
    samples data = new_samples(t, samples_to_train, 0), test = new_samples(t, samples_to_test, 1);
    record one = train(t, &data, &test, threads[0], 0), other;
    int i;
    for (i = 1; i < runs; i++) {
        other = train(t, &data, &test, threads[i], 0);
        CHECK(same(&one, &other), "%s: %d threads give other bits than 1", t->name, threads[i]);
        free(other.bytes);
    }
    printf("%s: %lu bytes compared for %d numbers of threads\n", t->name, (unsigned long)one.size, runs);
    free(one.bytes);
    one = train(t, &data, &test, 3, 1);
    other = fit(t, &data, &test);
    CHECK(same(&one, &other), "%s: cnn_fit gives other bits than the explicit loop", t->name);
    free(one.bytes);
    free(other.bytes);
    free_samples(&data);
    free_samples(&test);
}

/* ---- 3 ---- */

static void test_accumulation(void)
{
    const task *t = &tasks[0];
    samples data = new_samples(t, BATCH, 0);
    cnn_net *net = new_net(t, 2);
    cnn_loader *loader = cnn_loader_new(data.data, .batch_size = BATCH);
    cnn_batch batch;
    record gradients[2] = { { NULL, 0 }, { NULL, 0 } };
    float *once, *twice, largest = 0;
    size_t n, i;
    int k;
    cnn_next(loader, &batch);
    for (k = 0; k < 2; k++) {
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_backward(net);
        append_tensors(&gradients[k], net, ".grad");
    }
    once = (float *)(void *)gradients[0].bytes;
    twice = (float *)(void *)gradients[1].bytes;
    n = gradients[0].size / sizeof *once;
    for (i = 0; i < n; i++) {
        once[i] *= 2;
        if (fabsf(once[i]) > largest) largest = fabsf(once[i]);
    }
    CHECK(largest > 0 && test_distance(twice, once, n, 1e-6 * largest, 1e-6) <= 1,
          "two backward passes give other than twice the gradient: %g tolerances", test_distance(twice, once, n, 1e-6 * largest, 1e-6));
    CHECK(!cnn_error(net), "%s", said(net));
    free(once);
    free(twice);
    cnn_loader_free(loader);
    cnn_free(net);
    free_samples(&data);
}

/* ---- 4 ---- */

static float *activation(cnn_net *net, int layer, size_t *n)
{
    const char *name = cnn_layer_name(net, layer);
    float *values;
    *n = cnn_get(net, name, NULL, 0);
    values = malloc(*n * sizeof *values);
    CHECK(cnn_get(net, name, values, *n) == *n, "%s: %s", name, said(net));
    return values;
}

static float *parameter(cnn_net *net, const char *key)
{
    size_t n = cnn_get(net, key, NULL, 0);
    float *values = malloc(n * sizeof *values);
    cnn_get(net, key, values, n);
    return values;
}

static void test_fused_activations(void)
{
    enum { IN = 3, SIZE = 11, OUT = 18 };
    const double rounding = 3e-6;           /* 2^-24 (4 + sqrt 27) times 27 products of at most 0.2 */
    const cnn_backend *direct = cnn_find_backend("direct");
    const cnn_conv2d_shape conv = {
        .batch = BATCH, .in_channels = IN, .in_height = SIZE, .in_width = SIZE, .out_channels = OUT, .out_height = SIZE, .out_width = SIZE,
        .kernel_height = 3, .kernel_width = 3, .stride_height = 1, .stride_width = 1, .dilation_height = 1, .dilation_width = 1,
        .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1, .groups = 1
    };
    const cnn_pool2d_shape pool = {
        .batch = BATCH, .channels = OUT, .in_height = SIZE, .in_width = SIZE, .out_height = SIZE / 2 + 1, .out_width = SIZE / 2 + 1,
        .kernel_height = 3, .kernel_width = 3, .stride_height = 2, .stride_width = 2, .pad_height = 1, .pad_width = 1
    };
    const task t = { "fused", NULL, IN, SIZE, CNN_CROSS_ENTROPY, 0 };
    samples data = new_samples(&t, BATCH, 0);
    cnn_net *net = cnn_new(IN, SIZE, SIZE);
    cnn_loader *loader = cnn_loader_new(data.data, .batch_size = BATCH);
    cnn_batch batch;
    size_t n, most = (size_t)BATCH * OUT * SIZE * SIZE, i;
    float *x = malloc(sizeof *x * (size_t)BATCH * IN * SIZE * SIZE), *expected = malloc(sizeof *expected * most);
    float *weight, *bias, *z, *f, *y;
    cnn_conv2d(net, .out_channels = OUT, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 3, .stride = 2, .padding = 1);
    cnn_flatten(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_next(loader, &batch);
    cnn_forward(net, &batch);
    weight = parameter(net, "0.weight");
    bias = parameter(net, "0.bias");
    z = activation(net, 0, &n);
    for (i = 0; i < (size_t)BATCH * IN * SIZE * SIZE; i++) x[i] = (float)data.bytes[i] / 255;
    direct->conv2d_forward(direct->context, &conv, expected, NULL, x, weight, bias, NULL);
    CHECK(n == most && test_distance(z, expected, n, rounding, 0) <= 1, "cnn_get of the convolution");
    f = activation(net, 1, &n);
    direct->activation_forward(direct->context, CNN_RELU, 0, expected, z, most);
    CHECK(n == most && test_distance(f, expected, n, rounding, 0) <= 1, "cnn_get of the ReLU");
    y = activation(net, 2, &n);
    direct->pool2d_forward(direct->context, &pool, expected, f);
    CHECK(n == (size_t)BATCH * OUT * pool.out_height * pool.out_width && test_distance(y, expected, n, rounding, 0) <= 1,
          "cnn_get of the pooling");
    CHECK(!cnn_error(net), "%s", said(net));
    free(x); free(expected); free(weight); free(bias); free(z); free(f); free(y);
    cnn_loader_free(loader);
    cnn_free(net);
    free_samples(&data);
}

/* ---- numbers below 1e-38 make a processor slow: `simd` takes them for 0, in every thread, and leaves the caller's mode alone ---- */

static void test_denormals(int threads)
{
    enum { N = 100000 };                    /* several pieces */
    char sentence[200];
    cnn_backend b = *cnn_find_backend("simd");
    cnn_adam_options o = { .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f };
    cnn_counters c = { .lr = 1e-3 };
    cnn_span span = { .count = N, .trainable = 1 };
    volatile float tiny = 1e-40f;
    float *w = calloc(N, sizeof *w), *m = malloc(N * sizeof *m), *v = malloc(N * sizeof *v), *g = calloc(N, sizeof *g);
    unsigned before;
    int i, flushes, left = 0;
    for (i = 0; i < N; i++) m[i] = v[i] = tiny;
    b.context = b.open(threads, sentence, sizeof sentence);
    b.adam_step(b.context, &c, &o, 0, w, m, v, g, N, &span, 1);
    for (i = 0; i < N; i++) left += m[i] != 0 || v[i] != 0;
    before = cnn__flush_denormals();
    flushes = tiny * 0.5f == 0;             /* valgrind does not */
    cnn__set_float_mode(before);
    CHECK(!left || !flushes, "%d threads: %d of Adam's moments are still denormal", threads, left);
    CHECK(tiny * 0.5f != 0, "%d threads: the caller's denormals are flushed, too", threads);
    b.close(b.context);
    free(w); free(m); free(v); free(g);
}

int main(void)
{
    int i;
    if (getenv("CNN_TEST_SHORT")) {
        samples_to_train = 40; samples_to_test = 20;
        epochs = 1;
        runs = 2;
    }
    for (i = 0; i < TASKS; i++) test_task(&tasks[i]);
    test_accumulation();
    test_fused_activations();
    test_denormals(1);
    test_denormals(3);
    return test_end("test_threads");
}
