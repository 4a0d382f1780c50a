/* test_library.c - the library as a program uses it: names, data, training, looking, backends. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

/* ---- what the tests share ---- */

enum { MOST = 1 << 17 };

/* What a network says, for messages. */
static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

#define CHECK_FINE(net) CHECK(!cnn_error(net), "%s", error_of(net))

/* Calls it on both backends of every machine, and on the GPU where it is linked. */
static void on_each_backend(void (*test)(const char *backend))
{
    test("direct");
    test("simd");
    if (cnn_find_backend("cuda")) test("cuda");
}

static float noise(int i)                                  /* in [-1, 1) */
{
    uint32_t r[4];
    cnn_random(r, 2026, 0, 0, (uint32_t)i);
    return (float)(r[0] >> 8) / 8388608 - 1;
}

/* A data set of noise; of two at a time, both have the same values and labels. */
static cnn_data *noise_data(int count, int channels, int height, int width, int classes)
{
    static float values[MOST];
    static int labels[1024];
    int i;
    for (i = 0; i < count * channels * height * width; i++) values[i] = noise(i);
    for (i = 0; i < count; i++) labels[i] = i % classes;
    return cnn_data_new(.count = count, .channels = channels, .height = height, .width = width, .classes = classes,
                        .floats = values, .labels = labels);
}

/* All samples of a data set as one batch. */
static cnn_batch whole(const cnn_data *data)
{
    static int order[1024];
    cnn_batch batch;
    int i;
    for (i = 0; i < data->count; i++) order[i] = i;
    batch.data = data;
    batch.order = order;
    batch.size = data->count;
    return batch;
}

static size_t get(cnn_net *net, const char *key, float *values)
{
    size_t count = cnn_get(net, key, values, MOST);
    CHECK(count, "%s", error_of(net));
    return count;
}

static int same(const float *a, const float *b, size_t count) { return !memcmp(a, b, count * sizeof *a); }

/* Do two networks have the same parameters, to the last bit? */
static int same_parameters(cnn_net *a, cnn_net *b)
{
    static float x[MOST], y[MOST];
    const char *key;
    int i;
    for (i = 0; (key = cnn_key(a, i)) != NULL; i++) {
        size_t count = get(a, key, x);
        if (get(b, key, y) != count || !same(x, y, count)) return 0;
    }
    return i > 0 && !cnn_key(b, i);
}

static cnn_net *lenet5(void)
{
    cnn_net *net = cnn_new(1, 28, 28);
    cnn_block(net, "input_layer");
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 5, .padding = 2);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_block(net, "hidden_layer_1");
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 5, .padding = 2);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_block(net, "hidden_layer_2");
    cnn_conv2d(net, .out_channels = 120, .kernel_size = 5, .padding = 2);
    cnn_relu(net);
    cnn_flatten(net);
    cnn_block(net, "hidden_layer_3");
    cnn_linear(net, .out_features = 84);
    cnn_relu(net);
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = 10);
    return net;
}

/* ---- names and shapes ---- */

static void test_names(void)
{
    static const struct { const char *key; int dimensions, shape[4]; } expected[] = {
        { "input_layer.0.weight", 4, { 6, 1, 5, 5 } },       { "input_layer.0.bias", 1, { 6, 0, 0, 0 } },
        { "hidden_layer_1.0.weight", 4, { 16, 6, 5, 5 } },   { "hidden_layer_1.0.bias", 1, { 16, 0, 0, 0 } },
        { "hidden_layer_2.0.weight", 4, { 120, 16, 5, 5 } }, { "hidden_layer_2.0.bias", 1, { 120, 0, 0, 0 } },
        { "hidden_layer_3.0.weight", 2, { 84, 5880, 0, 0 } }, { "hidden_layer_3.0.bias", 1, { 84, 0, 0, 0 } },
        { "classifier.weight", 2, { 10, 84, 0, 0 } },        { "classifier.bias", 1, { 10, 0, 0, 0 } } };
    static const char *const layers[] = {
        "input_layer.0", "input_layer.1", "input_layer.2", "hidden_layer_1.0", "hidden_layer_1.1", "hidden_layer_1.2",
        "hidden_layer_2.0", "hidden_layer_2.1", "hidden_layer_2.2", "hidden_layer_3.0", "hidden_layer_3.1", "classifier" };
    cnn_net *net = lenet5();
    int i, d;
    for (i = 0; i < 10; i++) {
        const char *key = cnn_key(net, i);
        int shape[4];
        size_t count = 1;
        CHECK(key && !strcmp(key, expected[i].key), "key %d is %s", i, key);
        CHECK(cnn_shape(net, key, shape) == expected[i].dimensions, "dimensions of %s", key);
        for (d = 0; d < expected[i].dimensions; d++) {
            CHECK(shape[d] == expected[i].shape[d], "%s: size %d is %d", key, d, shape[d]);
            count *= (size_t)shape[d];
        }
        CHECK(cnn_get(net, key, NULL, 0) == count, "%s has %d values", key, (int)cnn_get(net, key, NULL, 0));
    }
    CHECK(!cnn_key(net, 10) && !cnn_key(net, -1), "keys end");
    for (i = 0; i < 12; i++) CHECK(!strcmp(cnn_layer_name(net, i), layers[i]), "layer %d is %s", i, cnn_layer_name(net, i));
    CHECK(!cnn_layer_name(net, 12) && !cnn_layer_name(net, -1), "layers end");
    CHECK(cnn_num_parameters(net) == 545546, "%d parameters", (int)cnn_num_parameters(net));
    CHECK_FINE(net);
    cnn_free(net);
}

static void test_numbering(void)
{
    static const char *const keys[] = { "0.weight", "0.bias", "named.weight", "4.weight", "4.bias" };
    cnn_net *net = cnn_new(3, 8, 8);
    int shape[4], i;
    cnn_conv2d(net, .out_channels = 4, .kernel_height = 3, .kernel_width = 2, .padding = CNN_SAME);
    cnn_relu(net);
    cnn_name(net, "named");
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 3, .groups = 2, .no_bias = 1, .in_channels = 4);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 5, .in_features = 18);
    for (i = 0; i < 5; i++) CHECK(cnn_key(net, i) && !strcmp(cnn_key(net, i), keys[i]), "key %d is %s", i, cnn_key(net, i));
    CHECK(!cnn_key(net, 5), "keys end");
    CHECK(cnn_shape(net, "named.weight", shape) == 4 && shape[0] == 2 && shape[1] == 2 && shape[2] == 3, "a kernel sees its group");
    CHECK(cnn_shape(net, "0", shape) == 4 && shape[1] == 4 && shape[2] == 8 && shape[3] == 8, "same padding");
    CHECK(cnn_shape(net, "3", shape) == 2 && shape[1] == 18, "flatten gives %d", shape[1]);
    CHECK_FINE(net);
    cnn_free(net);

    net = cnn_new(2, 1, 16);
    cnn_conv1d(net, .out_channels = 3, .kernel_size = 5);
    CHECK(cnn_shape(net, "0.weight", shape) == 3 && shape[0] == 3 && shape[1] == 2 && shape[2] == 5, "a kernel of one dimension");
    cnn_free(net);
}

static void test_summary(void)
{
    static const char *const rows[] = {
        "\n 0  input ", "1 x 28 x 28", "\n 1  input_layer.0 (conv2d) ", "117,600", "\n 3  input_layer.2 (max_pool2d) ", "6 x 14 x 14",
        "\n 7  hidden_layer_2.0 (conv2d) ", "48,120", "2,352,000", "\n 9  hidden_layer_2.2 (flatten) ", "5880",
        "\n12  classifier (linear) ", "\n    total, for one sample ", "545,546", "3,434,760" };
    FILE *file = tmpfile();
    cnn_net *net = lenet5();
    const char *text, *at;
    size_t i;
    cnn_summary(net, file);
    text = at = text_of(file);
    for (i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *found = strstr(at, rows[i]);
        CHECK(found, "\"%s\" is not in its place in:\n%s", rows[i], text);
        if (found) at = found;
    }
    for (i = 0; *text; text++) i += *text == '\n';
    CHECK(i == 1 + 1 + 12 + 1, "%d lines", (int)i);
    cnn_free(net);
}

/* ---- every number by name ---- */

static void test_get_set(const char *backend)
{
    static const float w[6] = { 1, -2, 3, 0.5f, 0, -1 }, b[2] = { 0.25f, -4 };
    float back[6];
    cnn_net *net = cnn_new(3, 1, 1);
    cnn_to(net, backend);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 2);
    CHECK(cnn_set(net, "1.weight", w, 6) && cnn_set(net, "1.bias", b, 2), "%s", error_of(net));
    CHECK(cnn_get(net, "1.weight", back, 6) == 6 && same(back, w, 6), "weights come back");
    CHECK(cnn_get(net, "1.bias", back, 6) == 2 && same(back, b, 2), "biases come back, also into more room");
    CHECK_FINE(net);
    cnn_free(net);
}

/* y = w x + b, loss = mean (y - t)^2:  dw = 2 mean (y - t) x,  db = 2 mean (y - t) */
static void test_gradients(const char *backend)
{
    static const float x[3] = { 1, 2, -1 }, t[3] = { 0, 1, 4 }, w = 2, b = 1;
    cnn_data *data = cnn_data_new(.count = 3, .channels = 1, .height = 1, .width = 1, .outputs = 1, .floats = x, .targets = t);
    cnn_batch batch = whole(data);
    cnn_net *net = cnn_new(1, 1, 1);
    float dw = 0, db = 0, loss = 0, got[2], y[3];
    int i, pass;
    cnn_to(net, backend);
    cnn_flatten(net);
    cnn_name(net, "line");
    cnn_linear(net, .out_features = 1);
    cnn_set(net, "line.weight", &w, 1);
    cnn_set(net, "line.bias", &b, 1);
    for (i = 0; i < 3; i++) {
        float error = w * x[i] + b - t[i];
        loss += error * error / 3;
        dw += 2 * error * x[i] / 3;
        db += 2 * error / 3;
    }
    for (pass = 1; pass <= 2; pass++) {                    /* the second one adds to the first */
        cnn_forward(net, &batch);
        cnn_mse_loss(net, &batch);
        cnn_backward(net);
        get(net, "line.weight.grad", got);
        get(net, "line.bias.grad", got + 1);
        CHECK(fabs(got[0] - pass * dw) < 1e-5 && fabs(got[1] - pass * db) < 1e-5, "gradients %g and %g in pass %d", got[0], got[1], pass);
    }
    CHECK(fabs(cnn_loss(net) - loss) < 1e-5, "loss %g, not %g", cnn_loss(net), loss);
    CHECK(get(net, "line", y) == 3 && fabs(y[1] - (w * x[1] + b)) < 1e-6, "the layer's output");
    cnn_zero_grad(net);
    get(net, "line.weight.grad", got);
    CHECK(got[0] == 0, "zero_grad");
    CHECK_FINE(net);
    cnn_free(net);
    cnn_data_free(data);
}

/* A kernel of 1 x 1 makes every layer's output known, though the first three run as one operation. */
static void test_activations(const char *backend)
{
    enum { SAMPLES = 2, SIDE = 4, IN = SAMPLES * SIDE * SIDE, OUT = IN / 4 };
    static const float u = 2, b = -0.5f;
    static float conv[MOST], relu[MOST], pool[MOST], flat[MOST], y[MOST], p[MOST];
    cnn_data *data = noise_data(SAMPLES, 1, SIDE, SIDE, 3);
    cnn_batch batch = whole(data);
    cnn_net *net = cnn_new(1, SIDE, SIDE);
    int i, n, shape[4];
    cnn_to(net, backend);
    cnn_conv2d(net, .out_channels = 1, .kernel_size = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 3);
    cnn_softmax(net);
    cnn_set(net, "0.weight", &u, 1);
    cnn_set(net, "0.bias", &b, 1);
    cnn_forward(net, &batch);
    CHECK(get(net, "0", conv) == IN && get(net, "1", relu) == IN, "sizes within a fused operation");
    CHECK(get(net, "2", pool) == OUT && get(net, "3", flat) == OUT && get(net, "4", y) == SAMPLES * 3, "sizes after it");
    get(net, "5", p);
    for (i = 0; i < IN; i++) {
        CHECK(fabs(conv[i] - (u * noise(i) + b)) < 1e-6, "conv %d is %g", i, conv[i]);
        CHECK(relu[i] == (conv[i] > 0 ? conv[i] : 0), "relu %d is %g", i, relu[i]);
    }
    for (i = 0; i < OUT; i++) {
        const float *window = relu + i / 2 * 2 * SIDE + i % 2 * 2;
        double most = fmax(fmax(window[0], window[1]), fmax(window[SIDE], window[SIDE + 1]));
        CHECK(pool[i] == most, "pool %d is %g, not %g", i, pool[i], most);
    }
    CHECK(same(flat, pool, OUT), "flatten changes nothing");
    for (n = 0; n < SAMPLES; n++) CHECK(fabs(p[3 * n] + p[3 * n + 1] + p[3 * n + 2] - 1) < 1e-6, "softmax sums to 1");
    CHECK(cnn_shape(net, "0", shape) == 4 && shape[0] == SAMPLES && shape[1] == 1 && shape[2] == SIDE, "shape of an activation");
    CHECK_FINE(net);
    cnn_free(net);
    cnn_data_free(data);
}

/* ---- asking a network ---- */

static cnn_net *small_net(const char *backend)             /* for samples of 2 x 6 x 6 in 4 classes */
{
    cnn_net *net = cnn_new(2, 6, 6);
    cnn_to(net, backend);
    cnn_conv2d(net, .out_channels = 5, .kernel_size = 3);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_dropout(net, .p = 0.5f);
    cnn_linear(net, .out_features = 4);
    return net;
}

static void test_predict(const char *backend)
{
    enum { COUNT = 300, CLASSES = 4 };                     /* more than cnn_predict takes at a time */
    static float y[COUNT * CLASSES], probability[COUNT], masked[MOST];
    static int classes[COUNT];
    cnn_data *data = noise_data(COUNT, 2, 6, 6, CLASSES);
    cnn_batch batch = whole(data);
    cnn_net *net = small_net(backend);
    cnn_score score, again;
    double loss = 0;
    size_t i, count, zeros = 0;
    int n, k, right = 0;
    CHECK(cnn_predict(net, y, data->floats, COUNT), "%s", error_of(net));
    CHECK(cnn_classify(net, classes, probability, data, 64), "%s", error_of(net));
    for (n = 0; n < COUNT; n++) {
        const float *row = y + CLASSES * n;
        double sum = 0;
        int best = 0;
        for (k = 0; k < CLASSES; k++) {
            sum += exp(row[k]);
            if (row[k] > row[best]) best = k;
        }
        CHECK(classes[n] == best, "sample %d: class %d, but the largest output is %d", n, classes[n], best);
        CHECK(fabs(probability[n] - exp(row[best]) / sum) < 1e-6, "sample %d: probability %g", n, probability[n]);
        loss += log(sum) - row[data->labels[n]];
        right += best == data->labels[n];
    }
    score = cnn_evaluate(net, data, 64, CNN_CROSS_ENTROPY);
    CHECK(score.count == COUNT, "%d samples evaluated", score.count);
    CHECK(fabs(score.accuracy - (double)right / COUNT) < 1e-12, "accuracy %g, not %d of %d", score.accuracy, right, COUNT);
    CHECK(fabs(score.loss - loss / COUNT) < 1e-6, "loss %g, not %g", score.loss, loss / COUNT);
    again = cnn_evaluate(net, data, 7, CNN_CROSS_ENTROPY);
    CHECK(again.accuracy == score.accuracy && fabs(again.loss - score.loss) < 1e-6, "the batch size changes the score");
    CHECK(cnn_classify(net, classes, NULL, data, 0), "without probabilities");

    cnn_forward(net, &batch);                              /* still training: dropout is on */
    count = get(net, "4", masked);
    for (i = 0; i < count; i++) zeros += masked[i] == 0;
    CHECK((double)zeros > 0.4 * (double)count, "dropout is off after evaluating");
    cnn_cross_entropy(net, &batch);
    CHECK(cnn_correct(net) >= 0 && cnn_correct(net) <= COUNT && cnn_loss(net) > 0, "loss of one batch");
    cnn_eval(net);
    cnn_forward(net, &batch);
    cnn_cross_entropy(net, &batch);
    CHECK(cnn_correct(net) == right && fabs(cnn_loss(net) - loss / COUNT) < 1e-6, "eval: one large batch gives the same");
    CHECK_FINE(net);
    cnn_free(net);
    cnn_data_free(data);
}

/* ---- data ---- */

/* The samples' numbers as one epoch deals them out; returns how many. */
static int deal(cnn_loader *loader, int *numbers)
{
    cnn_batch batch;
    int count = 0;
    while (cnn_next(loader, &batch)) {
        memcpy(numbers + count, batch.order, sizeof *numbers * (size_t)batch.size);
        count += batch.size;
    }
    return count;
}

static int is_permutation(const int *numbers, int count)
{
    int seen[1024] = { 0 }, i;
    for (i = 0; i < count; i++)
        if (numbers[i] < 0 || numbers[i] >= count || seen[numbers[i]]++) return 0;
    return 1;
}

static void test_loader(void)
{
    enum { COUNT = 103 };
    static int first[COUNT], second[COUNT], other[COUNT];
    cnn_data *data = noise_data(COUNT, 1, 2, 2, 3);
    cnn_loader *plain = cnn_loader_new(data, .batch_size = 10);
    cnn_loader *shuffled = cnn_loader_new(data, .batch_size = 10, .shuffle = 1, .seed = 5);
    cnn_loader *same_seed = cnn_loader_new(data, .batch_size = 8, .shuffle = 1, .seed = 5);
    cnn_loader *other_seed = cnn_loader_new(data, .shuffle = 1, .seed = 6);
    cnn_loader *dropping = cnn_loader_new(data, .batch_size = 10, .drop_last = 1);
    cnn_batch batch;
    int i, size = 0, batches = 0;
    CHECK(cnn_batches(plain) == 11 && cnn_batches(dropping) == 10 && cnn_batches(other_seed) == COUNT, "batches in an epoch");
    while (cnn_next(plain, &batch)) {
        size = batch.size;
        CHECK(batch.data == data && size == (++batches == 11 ? 3 : 10), "batch %d has %d samples", batches, size);
    }
    CHECK(batches == 11, "%d batches", batches);
    CHECK(deal(plain, first) == COUNT, "the next call begins a new epoch");
    for (i = 0; i < COUNT; i++) CHECK(first[i] == i, "without shuffling, sample %d comes at %d", first[i], i);
    CHECK(deal(dropping, first) == 100, "drop_last");

    CHECK(deal(shuffled, first) == COUNT && is_permutation(first, COUNT), "a shuffle is a permutation");
    CHECK(deal(shuffled, second) == COUNT && is_permutation(second, COUNT), "of every epoch");
    CHECK(memcmp(first, second, sizeof first), "each epoch has its own order");
    deal(same_seed, other);
    CHECK(!memcmp(first, other, sizeof first), "the order depends on the batch size");
    deal(other_seed, other);
    CHECK(memcmp(first, other, sizeof first), "each seed has its own order");
    cnn_set_epoch(other_seed, 0);
    cnn_next(other_seed, &batch);                          /* a new epoch may begin in the middle of another */
    cnn_set_epoch(same_seed, 1);
    deal(same_seed, other);
    CHECK(!memcmp(second, other, sizeof second), "cnn_set_epoch(1) is the second epoch");
    cnn_set_epoch(other_seed, 0);
    CHECK(deal(other_seed, other) == COUNT, "cnn_set_epoch starts anew");
    cnn_loader_free(plain); cnn_loader_free(shuffled); cnn_loader_free(same_seed); cnn_loader_free(other_seed); cnn_loader_free(dropping);
    cnn_data_free(data);
}

/* Flatten alone shows what the network sees. */
static void check_seen(const char *backend, cnn_data *data, const float *expected)
{
    cnn_batch batch = whole(data);
    cnn_net *net = cnn_new(data->channels, data->height, data->width);
    float seen[64];
    cnn_to(net, backend);
    cnn_flatten(net);
    cnn_forward(net, &batch);
    CHECK(test_distance(seen, expected, get(net, "0", seen), 1e-6, 1e-6) <= 1, "%s sees %g %g %g ...", backend, seen[0], seen[1], seen[2]);
    CHECK_FINE(net);
    cnn_free(net);
}

static void test_normalize(const char *backend)
{
    static const unsigned char bytes[8] = { 0, 255, 51, 102, 153, 204, 10, 20 };           /* 2 samples, 2 channels, 1 x 2 */
    static const float floats[8] = { 0, 1, -2, 0.5f, 3, 4, 5, 6 }, mean[2] = { 0.5f, 0.25f }, std[2] = { 0.5f, 2 };
    static const int labels[2] = { 0, 1 };
    cnn_data *b = cnn_data_new(.count = 2, .channels = 2, .height = 1, .width = 2, .classes = 2, .bytes = bytes, .labels = labels);
    cnn_data *f = cnn_data_new(.count = 2, .channels = 2, .height = 1, .width = 2, .classes = 2, .floats = floats, .labels = labels);
    float expected[8];
    int i, c;
    for (i = 0; i < 8; i++) expected[i] = (float)bytes[i] / 255;
    check_seen(backend, b, expected);
    check_seen(backend, f, floats);
    cnn_normalize(b, mean, std);
    cnn_normalize(f, mean, std);
    for (i = 0; i < 8; i++) c = i / 2 % 2, expected[i] = ((float)bytes[i] / 255 - mean[c]) / std[c];
    check_seen(backend, b, expected);
    for (i = 0; i < 8; i++) c = i / 2 % 2, expected[i] = (floats[i] - mean[c]) / std[c];
    check_seen(backend, f, expected);
    cnn_data_free(b); cnn_data_free(f);
}

static cnn_net *trained(const char *backend, const cnn_data *data, int steps)
{
    cnn_net *net = small_net(backend);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 8, .shuffle = 1);
    cnn_batch batch;
    cnn_adam(net, .lr = 1e-2f);
    while (steps-- > 0 && cnn_next(loader, &batch)) {
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
    }
    CHECK_FINE(net);
    cnn_loader_free(loader);
    return net;
}

/* Batches of one's own, evaluation in between, have the samples that their order says: more of them than fit in a row. */
static void test_own_batches(const char *backend)
{
    enum { COUNT = 23, BATCHES = 200, MOST = 60 };
    cnn_data *data = noise_data(COUNT, 2, 6, 6, 4);
    cnn_net *one = small_net("direct"), *net = small_net(backend);
    double loss[COUNT];
    int correct[COUNT], order[MOST], i, n;
    cnn_batch batch = { data, order, 1 };
    cnn_eval(one);
    cnn_eval(net);
    for (i = 0; i < COUNT; i++) {
        order[0] = i;
        cnn_forward(one, &batch);
        cnn_cross_entropy(one, &batch);
        loss[i] = cnn_loss(one);
        correct[i] = cnn_correct(one);
    }
    for (i = 0; i < BATCHES; i++) {
        double expected = 0;
        int hits = 0;
        batch.size = 1 + i * 37 % MOST;
        for (n = 0; n < batch.size; n++) {
            order[n] = (i * 5 + n * n) % COUNT;
            expected += loss[order[n]] / batch.size;
            hits += correct[order[n]];
        }
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        CHECK(fabs(cnn_loss(net) - expected) < 1e-5 && cnn_correct(net) == hits,
              "%s: batch %d has loss %g and %d correct in place of %g and %d", backend, i, cnn_loss(net), cnn_correct(net),
              expected, hits);
        if (i % 9 == 4) cnn_evaluate(net, data, 5, CNN_CROSS_ENTROPY);
    }
    CHECK_FINE(net);
    cnn_free(one); cnn_free(net);
    cnn_data_free(data);
}

static void test_bytes_and_floats(const char *backend)
{
    enum { COUNT = 40, VALUES = COUNT * 2 * 6 * 6 };
    static unsigned char bytes[VALUES];
    static float floats[VALUES];
    static int labels[COUNT];
    cnn_data *b = cnn_data_new(.count = COUNT, .channels = 2, .height = 6, .width = 6, .classes = 4, .bytes = bytes, .labels = labels);
    cnn_data *f = cnn_data_new(.count = COUNT, .channels = 2, .height = 6, .width = 6, .classes = 4, .floats = floats, .labels = labels);
    cnn_net *from_bytes, *from_floats;
    int i;
    for (i = 0; i < VALUES; i++) {
        bytes[i] = (unsigned char)(128 + 127 * noise(i));
        floats[i] = 1.0f / 255 * (float)bytes[i];
    }
    for (i = 0; i < COUNT; i++) labels[i] = i % 4;
    from_bytes = trained(backend, b, 5);
    from_floats = trained(backend, f, 5);
    CHECK(same_parameters(from_bytes, from_floats), "%s: bytes and the same floats train differently", backend);
    cnn_free(from_bytes); cnn_free(from_floats);
    cnn_data_free(b); cnn_data_free(f);
}

static void test_random_split(void)
{
    enum { COUNT = 60, TAKEN = 17 };
    static const float mean = 0.5f, std = 0.25f;
    cnn_data *data = noise_data(COUNT, 1, 1, 2, 5), *part[2], *again[2];
    int found[COUNT] = { 0 }, p, i, n;
    cnn_normalize(data, &mean, &std);
    cnn_random_split(data, TAKEN, 3, &part[0], &part[1]);
    cnn_random_split(data, TAKEN, 4, &again[0], &again[1]);
    CHECK(part[0]->count == COUNT - TAKEN && part[1]->count == TAKEN, "sizes %d and %d", part[0]->count, part[1]->count);
    CHECK(memcmp(part[1]->floats, again[1]->floats, sizeof(float) * TAKEN), "each seed has its own split");
    for (p = 0; p < 2; p++) {
        CHECK(part[p]->classes == 5 && part[p]->width == 2 && part[p]->scale[0] == data->scale[0] && part[p]->shift[0] == data->shift[0],
              "a part is like the whole");
        for (i = 0; i < part[p]->count; i++)
            for (n = 0; n < COUNT; n++)
                if (same(part[p]->floats + 2 * i, data->floats + 2 * n, 2)) {
                    found[n]++;
                    CHECK(part[p]->labels[i] == data->labels[n], "sample %d lost its label", n);
                }
    }
    for (n = 0; n < COUNT; n++) CHECK(found[n] == 1, "sample %d is in %d parts", n, found[n]);
    for (p = 0; p < 2; p++) cnn_data_free(part[p]), cnn_data_free(again[p]);
    cnn_data_free(data);
}

static void test_lowered_count(const char *backend)
{
    enum { COUNT = 50, FEWER = 13 };
    static int numbers[COUNT];
    cnn_data *data = noise_data(COUNT, 2, 6, 6, 4), *few = noise_data(FEWER, 2, 6, 6, 4);
    cnn_net *net = small_net(backend);
    cnn_score score, expected = cnn_evaluate(net, few, 8, CNN_CROSS_ENTROPY);
    cnn_loader *loader;
    data->count = FEWER;
    score = cnn_evaluate(net, data, 8, CNN_CROSS_ENTROPY);
    CHECK(score.count == FEWER && score.loss == expected.loss, "%d samples, loss %g, not %g", score.count, score.loss, expected.loss);
    loader = cnn_loader_new(data, .batch_size = 4, .shuffle = 1);
    CHECK(cnn_batches(loader) == 4 && deal(loader, numbers) == FEWER && is_permutation(numbers, FEWER), "the first samples only");
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_data_free(data); cnn_data_free(few);
}

/* ---- random numbers ---- */

/* Known answers of philox4x32-10, from kat_vectors of the Random123 distribution. */
static void test_philox(void)
{
    static const struct { uint32_t counter[4], key[2], out[4]; } known[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff }, { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } } };
    int i;
    for (i = 0; i < 3; i++) {
        const uint32_t *c = known[i].counter, *k = known[i].key;
        uint32_t out[4];
        cnn_random(out, (uint64_t)k[1] << 32 | k[0], c[1], (uint64_t)c[3] << 32 | c[2], c[0]);
        CHECK(!memcmp(out, known[i].out, sizeof out), "vector %d: %08x %08x %08x %08x", i, (unsigned)out[0], (unsigned)out[1],
              (unsigned)out[2], (unsigned)out[3]);
    }
}

/* Variance and kurtosis tell the kinds apart: a uniform distribution has kurtosis 1.8, a normal one 3. */
static void check_weights(const char *name, const float *w, size_t count, double variance, double kurtosis)
{
    double sum = 0, sum2 = 0, sum4 = 0, n = (double)count, largest = 0;
    size_t i;
    for (i = 0; i < count; i++) {
        double square = (double)w[i] * w[i];
        sum += w[i];
        sum2 += square;
        sum4 += square * square;
        largest = fmax(largest, fabs(w[i]));
    }
    CHECK(fabs(sum / n) < 4 * sqrt(variance / n), "%s: mean %g", name, sum / n);
    CHECK(fabs(sum2 / n / variance - 1) < 0.03, "%s: variance %g, not %g", name, sum2 / n, variance);
    CHECK(fabs(sum4 * n / (sum2 * sum2) - kurtosis) < 0.15, "%s: kurtosis %g, not %g", name, sum4 * n / (sum2 * sum2), kurtosis);
    if (kurtosis < 2) CHECK(largest <= 1.000001 * sqrt(3 * variance), "%s: %g is beyond the bound", name, largest);
}

static double variance_of(cnn_init init, double fan_in, double fan_out)
{
    switch (init) {
    case CNN_KAIMING_UNIFORM: case CNN_KAIMING_NORMAL: return 2 / fan_in;
    case CNN_XAVIER_UNIFORM: case CNN_XAVIER_NORMAL:   return 2 / (fan_in + fan_out);
    default:                                           return 1 / (3 * fan_in);
    }
}

static void test_init(void)
{
    static const struct { cnn_init init; const char *name; double kurtosis; } kinds[] = {
        { CNN_INIT_DEFAULT, "default", 1.8 },
        { CNN_KAIMING_UNIFORM, "kaiming uniform", 1.8 }, { CNN_KAIMING_NORMAL, "kaiming normal", 3 },
        { CNN_XAVIER_UNIFORM, "xavier uniform", 1.8 }, { CNN_XAVIER_NORMAL, "xavier normal", 3 } };
    static float w[MOST];
    int k;
    for (k = 0; k < 5; k++) {
        cnn_init init = kinds[k].init;
        cnn_net *net = cnn_new(32, 8, 8);
        cnn_conv2d(net, .out_channels = 64, .kernel_size = 5, .groups = 2, .init = init);      /* each kernel sees 16 x 5 x 5 */
        cnn_conv2d(net, .out_channels = 2000, .kernel_size = 1, .init = init);
        cnn_flatten(net);
        cnn_linear(net, .out_features = 2, .init = init);
        check_weights(kinds[k].name, w, get(net, "0.weight", w), variance_of(init, 16 * 25, 64 * 25), kinds[k].kurtosis);
        check_weights(kinds[k].name, w, get(net, "3.weight", w), variance_of(init, 32000, 2), kinds[k].kurtosis);
        check_weights("a bias", w, get(net, "1.bias", w), 1.0 / (3 * 64), 1.8);                /* whatever the weights are */
        cnn_free(net);
    }
}

static void test_seed(void)
{
    cnn_net *a = small_net("direct"), *b = small_net("simd"), *c = small_net("simd");
    cnn_manual_seed(a, 1u << 31);
    cnn_manual_seed(b, 1u << 31);
    cnn_manual_seed(c, (uint64_t)1 << 40);
    CHECK(same_parameters(a, b), "the first weights depend on the backend");
    CHECK(!same_parameters(a, c), "the first weights do not depend on the seed");
    cnn_free(a); cnn_free(b); cnn_free(c);
}

/* ---- training ---- */

static void check_schedule(cnn_net *net, const char *name, const double *expected, int count)
{
    int i;
    for (i = 0; i < count; i++) {
        CHECK(fabs(cnn_lr(net) - expected[i]) < 1e-6 * expected[i], "%s: lr %d is %.9g, not %.9g", name, i, cnn_lr(net), expected[i]);
        cnn_scheduler_step(net);
    }
    CHECK_FINE(net);
    cnn_free(net);
}

static cnn_net *line(float lr)
{
    cnn_net *net = cnn_new(1, 1, 1);
    cnn_linear(net, .out_features = 1);
    cnn_sgd(net, .lr = lr);
    return net;
}

/* The values are those of PyTorch's schedulers. */
static void test_schedules(void)
{
    static const double step[] = { 0.1, 0.1, 0.05, 0.05, 0.025 };
    static const double cosine[] = { 0.1, 0.0882842712, 0.06, 0.0317157288, 0.02, 0.0317157288 };
    static const double at_once[] = { 0.1, 4e-7 };         /* half of two steps leave no step to climb */
    static const double one_cycle[] = { 0.004, 0.052, 0.1, 0.0950484632, 0.0811745654, 0.0611262022, 0.0388741978, 0.0188258346, 0.0049519368, 4e-07 };
    cnn_net *net = line(0.1f);
    cnn_step_lr(net, .step_size = 2, .gamma = 0.5f);
    check_schedule(net, "step", step, 5);
    net = line(0.1f);
    cnn_cosine_lr(net, .t_max = 4, .eta_min = 0.02f);
    check_schedule(net, "cosine", cosine, 6);
    net = line(0.1f);
    cnn_one_cycle_lr(net, .max_lr = 0.1f, .total_steps = 10);
    check_schedule(net, "one-cycle", one_cycle, 10);
    net = line(0.1f);
    cnn_one_cycle_lr(net, .max_lr = 0.1f, .total_steps = 2, .pct_start = 0.5f);
    check_schedule(net, "one-cycle at once", at_once, 2);
    net = line(0.1f);
    cnn_set_lr(net, 0.25f);
    CHECK(cnn_lr(net) == 0.25f, "cnn_set_lr gives %g", cnn_lr(net));
    cnn_free(net);
}

/* Three classes that a kernel tells apart: a bright row, a bright column, a bright corner; on dim noise. */
enum { SIDE = 8, TRAIN = 150, TEST = 60 };

static cnn_data *bright_data(int count, int seed)
{
    static unsigned char bytes[2][TRAIN * SIDE * SIDE];
    static int labels[2][TRAIN];
    int n, row, column;
    unsigned char *to = bytes[seed];
    for (n = 0; n < count; n++) {
        int place = n / 3 % SIDE;
        labels[seed][n] = n % 3;
        for (row = 0; row < SIDE; row++)
            for (column = 0; column < SIDE; column++, to++) {
                int bright = n % 3 == 0 ? row == place : n % 3 == 1 ? column == place : row < 4 && column < 4;
                *to = (unsigned char)(40 + 30 * noise((seed * TRAIN + n) * SIDE * SIDE + row * SIDE + column) + 150 * bright);
            }
    }
    return cnn_data_new(.count = count, .channels = 1, .height = SIDE, .width = SIDE, .classes = 3, .bytes = bytes[seed], .labels = labels[seed]);
}

static cnn_net *bright_net(const char *backend)
{
    cnn_net *net = cnn_new(1, SIDE, SIDE);
    cnn_to(net, backend);
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 3);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_dropout(net, .p = 0.1f);
    cnn_linear(net, .out_features = 3);
    cnn_adam(net, .lr = 2e-2f);
    return net;
}

static void count_epoch(cnn_net *net, const cnn_epoch *epoch, void *user)
{
    int count, *calls = (int *)user;
    cnn_history(net, &count);
    CHECK(epoch->epoch == ++*calls && count == *calls, "epoch %d in call %d", epoch->epoch, *calls);
}

/* Does the text read as XML: are all tags closed in order, all attributes quoted, and no & left alone? */
static int well_formed(const char *text)
{
    char open[16][32];
    int depth = 0;
    while ((text = strpbrk(text, "<&")) != NULL) {
        const char *end = text + 1, *name = text + 1;
        size_t length = strcspn(name, " />\n;");
        if (*text == '&') {
            if (name[length] != ';') return 0;
            text++;
            continue;
        }
        for (; *end && *end != '>'; end++) {
            if (*end == '<') return 0;
            if (*end == '"' && (end[-1] != '=' || !(end = strchr(end + 1, '"')))) return 0;
        }
        if (*name == '/') {
            if (!depth-- || strncmp(open[depth], name + 1, strlen(open[depth])) || name[1 + strlen(open[depth])] != '>') return 0;
        } else if (end[-1] != '/') {
            if (depth == 16 || length > 31) return 0;
            sprintf(open[depth++], "%.*s", (int)length, name);
        }
        text = end;
    }
    return depth == 0;
}

static int occurrences(const char *text, const char *word)
{
    int count = 0;
    while ((text = strstr(text, word)) != NULL) text++, count++;
    return count;
}

static void check_curves(cnn_net *net, int epochs, int tested)
{
    const char *svg = in_folder("curves.svg"), *csv = in_folder("curves.csv"), *text;
    const cnn_epoch *e = cnn_history(net, &epochs);
    FILE *sketch = tmpfile();
    int i, number;
    CHECK(cnn_save_curves_svg(net, svg, "3 < 4 & \"so on\"") && cnn_save_curves_csv(net, csv), "%s", error_of(net));
    text = text_of(fopen(svg, "rb"));
    CHECK(well_formed(text) && !strncmp(text, "<svg ", 5) && strstr(text, "</svg>"), "not an SVG:\n%s", text);
    CHECK(occurrences(text, "<polyline") == (tested ? 4 : 2), "%d curves", occurrences(text, "<polyline"));
    CHECK(occurrences(text, ">train</text>") == 2 && occurrences(text, ">test</text>") == (tested ? 2 : 0), "the legends");
    CHECK(strstr(text, ">3 &lt; 4 &amp; &quot;so on&quot;</text>"), "the title");
    CHECK(!strstr(text, "nan") && !strstr(text, "inf"), "a coordinate that is no number");

    text = text_of(fopen(csv, "rb"));
    CHECK(!strncmp(text, "epoch,train_loss,train_acc,test_loss,test_acc,lr,seconds\n", 57), "the head of the table");
    for (i = 0; i < epochs; i++, e++) {
        double loss, accuracy, test_loss, test_accuracy;
        text += strcspn(text, "\n");
        if (*text) text++;
        if (tested)
            CHECK(sscanf(text, "%d,%lf,%lf,%lf,%lf,", &number, &loss, &accuracy, &test_loss, &test_accuracy) == 5 && number == i + 1
                  && fabs(loss - e->train.loss) < 1e-8 * loss && fabs(accuracy - e->train.accuracy) < 1e-8
                  && fabs(test_loss - e->test.loss) < 1e-8 * test_loss && fabs(test_accuracy - e->test.accuracy) < 1e-8, "row %d", i);
        else CHECK(sscanf(text, "%d,%lf,%lf,,,", &number, &loss, &accuracy) == 3 && number == i + 1, "row %d", i);
    }
    CHECK(!strcmp(text + strcspn(text, "\n"), "\n"), "the table goes on");

    cnn_print_curves(net, sketch);
    text = text_of(sketch);
    CHECK(strstr(text, "loss") && strstr(text, "accuracy") && occurrences(text, "\n") > 20, "the sketch:\n%s", text);
    for (; *text; text += strcspn(text, "\n") + 1) CHECK(strcspn(text, "\n") <= 72, "a line of %d columns", (int)strcspn(text, "\n"));
    remove(svg); remove(csv);
    CHECK_FINE(net);
}

static void test_fit(const char *backend)
{
    enum { EPOCHS = 10, BATCH = 20 };
    cnn_data *train = bright_data(TRAIN, 0), *test = bright_data(TEST, 1);
    cnn_net *net = bright_net(backend), *by_hand = bright_net(backend);
    cnn_loader *loader;
    cnn_batch batch;
    const cnn_epoch *history;
    const char *text;
    FILE *log = tmpfile();
    int calls = 0, count, e;
    CHECK(cnn_fit(net, train, test, .epochs = 2, .batch_size = BATCH, .log = log, .each_epoch = count_epoch, .user = &calls)
          && cnn_fit(net, train, test, .epochs = EPOCHS, .batch_size = BATCH, .each_epoch = count_epoch, .user = &calls), "%s", error_of(net));
    CHECK(calls == EPOCHS, "%d calls", calls);
    text = text_of(log);
    CHECK(occurrences(text, "\n") == 2 && !strncmp(text, "epoch 1/2 train_loss ", 21) && strstr(text, " test_acc "), "the log:\n%s", text);

    history = cnn_history(net, &count);
    CHECK(count == EPOCHS, "%d epochs", count);
    for (e = 0; e < count; e++)
        CHECK(history[e].epoch == e + 1 && history[e].lr == 2e-2f && history[e].train.count == TRAIN / BATCH * BATCH
              && history[e].test.count == TEST && history[e].seconds >= 0, "epoch %d", e + 1);
    CHECK(history[count - 1].train.loss < 0.3 * history[0].train.loss, "loss %g", history[count - 1].train.loss);
    CHECK(history[count - 1].test.accuracy > 0.97, "accuracy %g", history[count - 1].test.accuracy);
    CHECK(cnn_evaluate(net, test, 0, CNN_CROSS_ENTROPY).accuracy == history[count - 1].test.accuracy, "the history's accuracy");
    check_curves(net, EPOCHS, 1);

    loader = cnn_loader_new(train, .batch_size = BATCH, .shuffle = 1, .drop_last = 1);         /* what cnn_fit does */
    for (e = 0; e < EPOCHS; e++)
        while (cnn_next(loader, &batch)) {
            cnn_forward(by_hand, &batch);
            cnn_cross_entropy(by_hand, &batch);
            cnn_zero_grad(by_hand);
            cnn_backward(by_hand);
            cnn_step(by_hand);
        }
    CHECK(same_parameters(net, by_hand), "%s: cnn_fit and the same loop by hand give different weights", backend);
    cnn_loader_free(loader);
    cnn_free(net); cnn_free(by_hand);
    cnn_data_free(train); cnn_data_free(test);
}

static void test_fit_options(void)
{
    cnn_data *train = bright_data(TRAIN, 0);
    cnn_net *net = bright_net("simd"), *cycle = bright_net("simd"), *threads[2];
    const cnn_epoch *history;
    const char *text;
    FILE *progress = tmpfile();
    int count, i;
    cnn_step_lr(net, .step_size = 1, .gamma = 0.5f);
    CHECK(cnn_fit(net, train, NULL, .epochs = 3, .batch_size = 40, .keep_last = 1, .clip_grad_norm = 1, .progress = progress), "%s", error_of(net));
    history = cnn_history(net, &count);
    CHECK(count == 3 && history[0].train.count == TRAIN && history[0].test.count == 0, "keep_last, no test");
    CHECK(history[0].lr == 2e-2f && history[1].lr == 1e-2f && history[2].lr == 0.5e-2f, "the schedule moves once an epoch");
    text = text_of(progress);
    CHECK(strstr(text, "epoch 1/3") && strstr(text, "samples/s") && !strchr(text, '\r'), "progress without a terminal:\n%s", text);
    check_curves(net, 3, 0);

    cnn_one_cycle_lr(cycle, .max_lr = 1e-2f, .total_steps = 2 * (TRAIN / 50));
    CHECK(cnn_fit(cycle, train, NULL, .epochs = 2, .batch_size = 50), "%s", error_of(cycle));
    CHECK(fabs(cnn_lr(cycle) - 1e-2 / 25 / 1e4) < 1e-9, "one-cycle moves once a step and ends at %g", cnn_lr(cycle));

    for (i = 0; i < 2; i++) {
        threads[i] = bright_net("simd");
        cnn_set_num_threads(threads[i], i ? 3 : 1);
        cnn_fit(threads[i], train, NULL, .loss = CNN_MSE);
    }
    CHECK(same_parameters(threads[0], threads[1]), "the number of threads changes the weights");
    cnn_free(net); cnn_free(cycle); cnn_free(threads[0]); cnn_free(threads[1]);
    cnn_data_free(train);
}

/* A learning rate far too high: the losses leave the range of numbers, the curves must not. */
static void test_diverged_curves(float lr, int epochs)
{
    cnn_data *train = bright_data(TRAIN, 0);
    cnn_net *net = bright_net("simd");
    cnn_sgd(net, .lr = lr);
    CHECK(cnn_fit(net, train, NULL, .epochs = epochs, .loss = CNN_MSE, .batch_size = 50), "%s", error_of(net));
    check_curves(net, epochs, 0);
    cnn_free(net);
    cnn_data_free(train);
}

static void test_mse(const char *backend)
{
    enum { COUNT = 12, OUT = 4 };
    static const char *const keys[] = { "0.weight.grad", "0.bias.grad", "5.weight.grad", "5.bias.grad" };
    static float targets[COUNT * OUT], g[3][MOST];
    cnn_data *kinds[3];                                    /* labels; labels and targets; targets */
    float loss[3];
    int correct[3], i, k;
    kinds[0] = noise_data(COUNT, 2, 6, 6, OUT);
    for (i = 0; i < COUNT; i++) targets[i * OUT + i % OUT] = 1;
    for (i = 1; i < 3; i++)
        kinds[i] = cnn_data_new(.count = COUNT, .channels = 2, .height = 6, .width = 6, .floats = kinds[0]->floats, .classes = OUT,
                                .labels = i == 1 ? kinds[0]->labels : NULL, .targets = targets, .outputs = OUT);
    for (k = 0; k < 4; k++) {
        size_t count = 0;
        for (i = 0; i < 3; i++) {
            cnn_net *net = small_net(backend);
            cnn_batch batch = whole(kinds[i]);
            cnn_forward(net, &batch);
            cnn_mse_loss(net, &batch);
            cnn_backward(net);
            loss[i] = cnn_loss(net);
            correct[i] = cnn_correct(net);
            count = get(net, keys[k], g[i]);
            cnn_free(net);
        }
        CHECK(loss[0] > 0 && loss[0] == loss[1] && loss[0] == loss[2], "losses %g, %g, %g", loss[0], loss[1], loss[2]);
        CHECK(correct[0] == correct[1] && correct[2] == 0, "without labels nothing is correct, but %d", correct[2]);
        CHECK(same(g[0], g[1], count) && same(g[0], g[2], count), "%s differs", keys[k]);
    }
    for (i = 0; i < 3; i++) cnn_data_free(kinds[i]);
}

/* ---- gradient check ---- */

/* Every kind of layer, its name what it is, for samples of 4 x 9 x 8. */
static void add_every_layer(cnn_net *net)
{
    cnn_name(net, "conv_dilated");
    cnn_conv2d(net, .out_channels = 6, .kernel_height = 3, .kernel_width = 2, .padding = 2, .dilation = 2, .groups = 2);
    cnn_name(net, "tanh");
    cnn_tanh(net);
    cnn_name(net, "max");
    cnn_max_pool2d(net, .kernel_size = 3, .stride = 2, .padding = 1);
    cnn_name(net, "conv_reflect");
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .stride_width = 2, .padding = 1, .padding_mode = CNN_REFLECT, .no_bias = 1);
    cnn_leaky_relu(net, .negative_slope = 0.2f);
    cnn_name(net, "avg");
    cnn_avg_pool2d(net, .kernel_size = 2, .stride = 1, .padding = 1, .exclude_padding = 1);
    cnn_name(net, "sigmoid");
    cnn_sigmoid(net);
    cnn_name(net, "conv_circular");
    cnn_conv2d(net, .out_channels = 8, .kernel_size = 2, .padding = CNN_SAME, .padding_mode = CNN_CIRCULAR);
    cnn_relu(net);
    cnn_name(net, "conv_replicate");
    cnn_conv2d(net, .out_channels = 8, .kernel_size = 3, .padding = 2, .padding_mode = CNN_REPLICATE);
    cnn_name(net, "global");
    cnn_global_avg_pool2d(net);
    cnn_flatten(net);
    cnn_name(net, "dropout");
    cnn_dropout(net, .p = 0.3f);
    cnn_name(net, "linear");
    cnn_linear(net, .out_features = 5);
    cnn_name(net, "softmax");
    cnn_softmax(net);
}

static cnn_gradcheck_result check_every_layer(cnn_net *net)
{
    cnn_data *data = noise_data(3, 4, 9, 8, 5);
    cnn_batch batch = whole(data);
    cnn_gradcheck_result result;
    add_every_layer(net);
    result = cnn_gradcheck(net, &batch, 60, NULL);
    CHECK_FINE(net);
    cnn_data_free(data);
    return result;
}

static void test_gradcheck(const char *backend)
{
    FILE *out = tmpfile();
    cnn_net *net = cnn_new(4, 9, 8), *along = cnn_new(2, 1, 20);
    cnn_data *data = noise_data(4, 2, 1, 20, 3);
    cnn_batch batch = whole(data);
    cnn_gradcheck_result result;
    const char *text;
    cnn_to(net, backend);
    cnn_to(along, backend);
    result = check_every_layer(net);
    CHECK(result.failed == 0 && result.checked > 500 && result.worst <= 1, "%s: %d of %d failed, worst at %s", backend, result.failed,
          result.checked, result.where);

    cnn_conv1d(along, .out_channels = 3, .kernel_size = 5, .stride = 2, .dilation = 2, .padding = 3);
    cnn_tanh(along);
    cnn_max_pool2d(along, .kernel_height = 1, .kernel_width = 2);
    cnn_flatten(along);
    cnn_linear(along, .out_features = 3);
    result = cnn_gradcheck(along, &batch, 0, out);
    text = text_of(out);
    CHECK(result.failed == 0 && result.checked > 50, "%s: %d of %d failed, worst at %s", backend, result.failed, result.checked, result.where);
    CHECK(occurrences(text, "\n") == 3 + 1 + 1 + 3 && strstr(text, "weight") && strstr(text, "0 failed"), "the table:\n%s", text);
    CHECK_FINE(along);
    cnn_free(net); cnn_free(along);
    cnn_data_free(data);
}

/* All values are 0: every ReLU sits at its kink, and in every window of the pooling all values win. */
static void test_kinks(const char *backend)
{
    static const float zeros[64];
    static const int label;
    cnn_data *data = cnn_data_new(.count = 1, .channels = 1, .height = 8, .width = 8, .classes = 4, .floats = zeros, .labels = &label);
    cnn_batch batch = whole(data);
    cnn_net *net = cnn_new(1, 8, 8);
    cnn_gradcheck_result result;
    cnn_to(net, backend);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    result = cnn_gradcheck(net, &batch, 64, NULL);
    CHECK(result.failed == 0 && result.checked == 0 && result.kinks == 128, "%d checked, %d kinks, %d failed", result.checked, result.kinks, result.failed);
    cnn_free(net);
    cnn_data_free(data);
}

/* ---- wrong gradients, as they stood in published code: each takes one entry of `direct` over ---- */

static const cnn_backend *direct;
static float changed[MOST];                                /* a changed copy of an argument */

static void mirrored_kernel(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                            const float *y, const unsigned char *index, const float *x, const float *weight, void *work)
{
    int area = s->kernel_height * s->kernel_width, kernels = s->out_channels * s->in_channels / s->groups, k, i;
    for (k = 0; k < kernels; k++)
        for (i = 0; i < area; i++) changed[k * area + i] = weight[k * area + area - 1 - i];
    direct->conv2d_backward(context, s, dx, dweight, dbias, dy, y, index, x, changed, work);
}

static void ignored_dilation(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                             const float *y, const unsigned char *index, const float *x, const float *weight, void *work)
{
    cnn_conv2d_shape plain = *s;
    plain.dilation_height = plain.dilation_width = 1;
    direct->conv2d_backward(context, &plain, dx, dweight, dbias, dy, y, index, x, weight, work);
}

static void forgotten_conv_bias(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                                const float *y, const unsigned char *index, const float *x, const float *weight, void *work)
{
    (void)dbias;
    direct->conv2d_backward(context, s, dx, dweight, NULL, dy, y, index, x, weight, work);
}

static void one_shared_kernel(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                              const float *y, const unsigned char *index, const float *x, const float *weight, void *work)
{
    int area = s->kernel_height * s->kernel_width, depth = s->in_channels / s->groups, k, c;
    direct->conv2d_backward(context, s, dx, dweight, dbias, dy, y, index, x, weight, work);
    for (k = 0; k < s->out_channels; k++)
        for (c = 1; c < depth; c++) memcpy(dweight + (k * depth + c) * area, dweight + k * depth * area, sizeof *dweight * (size_t)area);
}

static void dropped_top_row(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                            const float *y, const unsigned char *index, const float *x, const float *weight, void *work)
{
    int map = s->out_height * s->out_width, maps = s->batch * s->out_channels, m;
    memcpy(changed, dy, sizeof *dy * (size_t)(map * maps));
    for (m = 0; m < maps; m++) memset(changed + m * map, 0, sizeof *changed * (size_t)s->out_width);
    direct->conv2d_backward(context, s, dx, dweight, dbias, changed, y, index, x, weight, work);
}

static void average_as_maximum(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x)
{
    cnn_pool2d_shape other = *s;
    other.average = !s->average;
    direct->pool2d_backward(context, &other, dx, dy, x);
}

static void lost_maximum(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x)
{
    if (s->average) direct->pool2d_backward(context, s, dx, dy, x);
    else direct->zero(context, dx, sizeof *dx * (size_t)s->batch * s->channels * s->in_height * s->in_width);
}

static void counted_padding(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x)
{
    cnn_pool2d_shape other = *s;
    other.exclude_padding = !s->exclude_padding;
    direct->pool2d_backward(context, &other, dx, dy, x);
}

static void forgotten_linear_bias(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                                  const float *y, const float *x, const float *weight, void *work)
{
    (void)dbias;
    direct->linear_backward(context, s, dx, dweight, NULL, dy, y, x, weight, work);
}

static void transposed_weight(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                              const float *y, const float *x, const float *weight, void *work)
{
    int o, i;
    for (o = 0; o < s->out_features; o++)
        for (i = 0; i < s->in_features; i++) changed[i * s->out_features + o] = weight[o * s->in_features + i];
    direct->linear_backward(context, s, dx, dweight, dbias, dy, y, x, changed, work);
}

static void forgotten_derivative(void *context, cnn_activation f, float slope, float *dx, const float *dy, const float *y,
                                 const float *x, size_t n)
{
    direct->activation_backward(context, f == CNN_SIGMOID ? CNN_NO_ACTIVATION : f, slope, dx, dy, y, x, n);
}

static void softmax_without_sum(void *context, const cnn_map_shape *s, float *dx, const float *dy, const float *y)
{
    size_t i, n = (size_t)s->batch * s->channels * s->pixels;
    (void)context;
    for (i = 0; i < n; i++) dx[i] = dy[i] * y[i] * (1 - y[i]);
}

static void dropout_without_mask(void *context, const cnn_counters *c, int layer, float p, float *dx, const float *dy, size_t n)
{
    size_t i;
    (void)context; (void)c; (void)layer;
    for (i = 0; i < n; i++) dx[i] = dy[i] / (1 - p);
}

static void one_nan(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                    const float *y, const unsigned char *index, const float *x, const float *weight, void *work)
{
    direct->conv2d_backward(context, s, dx, dweight, dbias, dy, y, index, x, weight, work);
    dweight[0] = NAN;
}

/* A right backend with the wrong entry is refused by the gradient check, which names the layer. */
#define CHECK_FOUND(entry, wrong, layer)                                                                          \
    do {                                                                                                          \
        cnn_net *net = cnn_new(4, 9, 8);                                                                          \
        cnn_backend backend = *direct;                                                                            \
        cnn_gradcheck_result result;                                                                              \
        backend.entry = wrong;                                                                                    \
        cnn_use_backend(net, &backend);                                                                           \
        result = check_every_layer(net);                                                                          \
        CHECK(result.failed > 0 && result.worst > 1, #wrong " is not found");                                     \
        CHECK(!strncmp(result.where, layer, strlen(layer)), #wrong " is found at %s, not at %s", result.where, layer);            \
        cnn_free(net);                                                                                            \
    } while (0)

static void test_planted_gradients(void)
{
    CHECK_FOUND(conv2d_backward, ignored_dilation, "conv");
    CHECK_FOUND(conv2d_backward, mirrored_kernel, "conv");
    CHECK_FOUND(conv2d_backward, forgotten_conv_bias, "conv");
    CHECK_FOUND(conv2d_backward, one_shared_kernel, "conv");
    CHECK_FOUND(conv2d_backward, dropped_top_row, "conv");
    CHECK_FOUND(pool2d_backward, average_as_maximum, "max");
    CHECK_FOUND(pool2d_backward, counted_padding, "avg");
    CHECK_FOUND(pool2d_backward, lost_maximum, "max");
    CHECK_FOUND(linear_backward, forgotten_linear_bias, "linear");
    CHECK_FOUND(linear_backward, transposed_weight, "linear");
    CHECK_FOUND(activation_backward, forgotten_derivative, "sigmoid");
    CHECK_FOUND(softmax_backward, softmax_without_sum, "softmax");
    CHECK_FOUND(dropout_backward, dropout_without_mask, "dropout");
}

/* Nothing is worse than NaN: what is checked after it leaves `worst` and `where` as they are. */
static void test_planted_nan(void)
{
    cnn_net *net = cnn_new(1, 6, 6);
    cnn_data *data = noise_data(2, 1, 6, 6, 3);
    cnn_batch batch = whole(data);
    cnn_backend backend = *direct;
    cnn_gradcheck_result result;
    backend.conv2d_backward = one_nan;
    cnn_use_backend(net, &backend);
    cnn_name(net, "conv");
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 3);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 3);
    result = cnn_gradcheck(net, &batch, 1000, NULL);
    CHECK(result.failed == 1 && result.worst != result.worst && !strcmp(result.where, "conv"), "%d failed, worst %g at %s",
          result.failed, result.worst, result.where);
    CHECK_FINE(net);
    cnn_free(net);
    cnn_data_free(data);
}

/* ---- the PNG in a report, whose bytes are stored as they are: read back block by block ---- */

static int base64_value(int c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : 0;
}

static void check_picture(int width, int height, int channels)
{
    size_t row = (size_t)width * channels, all = row * height, room = 2 * all + 4096, count = 0, i, k, at, end, length;
    int good;
    unsigned char *pixels = malloc(all), *png = calloc(room, 1), *rows = malloc(all + height);
    char *text = malloc(2 * room);
    uint32_t a = 1, b = 0;
    FILE *file = tmpfile();
    for (i = 0; i < all; i++) pixels[i] = (unsigned char)(i * 7 + i / 251);
    cnn__picture(file, pixels, width, height, channels, 1, "");
    rewind(file);
    text[fread(text, 1, 2 * room - 1, file)] = 0;
    fclose(file);
    for (i = (size_t)(strstr(text, "base64,") - text) + 7; text[i] != '"' && count + 3 < room; i += 4) {
        int bits = 0;
        for (k = 0; k < 4; k++) bits = bits << 6 | base64_value(text[i + k]);
        for (k = 0; k < 3; k++) png[count++] = (unsigned char)(bits >> (16 - 8 * k));
    }
    at = 8 + 25 + 8;                                       /* signature, IHDR, the head of IDAT */
    end = at + cnn__big(png + at - 8, 4);
    good = end + 16 <= count;
    CHECK(good && !memcmp(png + at - 4, "IDAT\170\1", 6) && !memcmp(png + end + 8, "IEND", 4), "%d: chunks", width);
    CHECK(good && cnn__crc32(0, png + at - 4, end - at + 4) == cnn__big(png + end, 4), "%d: the CRC", width);
    for (at += 2, k = 0; good && at + 9 <= end; at += 5 + length) {
        length = png[at + 1] | (size_t)png[at + 2] << 8;
        good = (length ^ 0xffff) == (png[at + 3] | (size_t)png[at + 4] << 8) && at + 5 + length + 4 <= end
               && k + length <= all + height;
        if (good) memcpy(rows + k, png + at + 5, length);
        if (good) k += length;
        good = good && png[at] == (at + 5 + length + 4 == end);            /* the last one says so */
    }
    CHECK(good && at + 4 == end && k == all + height, "%d: the blocks hold %.0f bytes", width, (double)k);
    for (i = 0; i < k; i++) {
        good = good && rows[i] == (i % (row + 1) ? pixels[i - i / (row + 1) - 1] : 0);
        a = (a + rows[i]) % 65521;
        b = (b + a) % 65521;
    }
    CHECK(good && cnn__big(png + end - 4, 4) == (b << 16 | a), "%d: the pixels", width);
    free(pixels); free(png); free(rows); free(text);
}

static void test_picture(void)
{
    check_picture(3, 2, 3);
    check_picture(65534, 2, 1);                            /* with its filter byte a row just fits one block */
    check_picture(65535, 2, 1);
    check_picture(50000, 3, 3);
}

/* ---- backends of one's own ---- */

typedef struct calls { int opened, closed, forward, backward, steps, uploaded; } calls;
static calls called;

static void *counting_open(int threads, char *sentence, size_t room)
{
    (void)sentence; (void)room;
    CHECK(threads >= 1, "%d threads", threads);
    called.opened++;
    return &called;
}

static void counting_close(void *context) { ((calls *)context)->closed++; }

static void counting_forward(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index, const float *x, const float *weight,
                             const float *bias, void *work)
{
    ((calls *)context)->forward++;
    direct->conv2d_forward(context, s, y, index, x, weight, bias, work);
}

static void counting_backward(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                              const float *y, const unsigned char *index, const float *x, const float *weight, void *work)
{
    ((calls *)context)->backward++;
    direct->conv2d_backward(context, s, dx, dweight, dbias, dy, y, index, x, weight, work);
}

static void counting_step(void *context, cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w, float *m, float *v, const float *g, size_t n,
                          cnn_span *spans, int count)
{
    ((calls *)context)->steps++;
    direct->adam_step(context, c, o, decoupled, w, m, v, g, n, spans, count);
}

static void counting_upload(void *context, void *to, const void *host, size_t bytes)
{
    if (bytes >= 40 * 2 * 6 * 6) ((calls *)context)->uploaded++;           /* as large as the data set */
    direct->upload(context, to, host, bytes);
}

static void test_own_backend(void)
{
    cnn_data *noise = noise_data(40, 2, 6, 6, 4);
    cnn_data *data = cnn_data_new(.count = 40, .channels = 2, .height = 6, .width = 6, .classes = 4, .floats = noise->floats,
                                  .labels = noise->labels, .constant = 1);
    cnn_backend own = *direct;
    cnn_net *net, *expected = trained("direct", data, 5);
    own.name = "counting";
    own.open = counting_open;
    own.close = counting_close;
    own.upload = counting_upload;
    own.conv2d_forward = counting_forward;
    own.conv2d_backward = counting_backward;
    own.adam_step = counting_step;
    own.reads_host = 0;
    CHECK(!cnn_find_backend("counting"), "not known yet");
    CHECK(cnn_register_backend(&own) && cnn_find_backend("counting"), "a backend becomes known");
    CHECK(!cnn_register_backend(&own) && !cnn_register_backend(direct), "its name is taken");
    own.name = NULL;
    CHECK(!cnn_register_backend(&own), "a backend without a name");
    own.name = "counting";
    net = trained("counting", data, 5);
    CHECK(called.opened == 1 && called.forward == 5 && called.backward == 5 && called.steps == 5, "calls: %d, %d, %d, %d", called.opened,
          called.forward, called.backward, called.steps);
    CHECK(called.uploaded == 1, "the data set was uploaded %d times", called.uploaded);
    CHECK(same_parameters(net, expected), "and the result is the same");
    cnn_free(net);
    CHECK(called.closed == 1, "closed %d times", called.closed);
    cnn_free(expected);
    cnn_data_free(data);
    cnn_data_free(noise);
}

static void *refusing_open(int threads, char *sentence, size_t room)
{
    (void)threads;
    snprintf(sentence, room, "the machine has no abacus");
    return NULL;
}

static const char *failing_sync(void *context) { (void)context; return "a bead fell off"; }

/* The network says all of these words, and has no parameters. */
static void check_refused(const cnn_backend *backend, const char *word, const char *other)
{
    cnn_net *net = small_net("simd");
    cnn_use_backend(net, backend);
    CHECK(!cnn_key(net, 0) && cnn_error(net) && strstr(cnn_error(net), word) && strstr(cnn_error(net), other), "it says: %s", error_of(net));
    cnn_free(net);
}

/* ---- scratch memory: a backend may need more for a smaller batch ---- */

enum { SIZE_ROOM = 64 };                    /* an allocation's size stands before it */

static void *sized_alloc(void *context, size_t bytes)
{
    char *memory = (char *)malloc(bytes + SIZE_ROOM);
    (void)context;
    memcpy(memory, &bytes, sizeof bytes);
    return memory + SIZE_ROOM;
}

static void sized_free(void *context, void *memory) { (void)context; free((char *)memory - SIZE_ROOM); }

static size_t odd_work(void *context, const cnn_conv2d_shape *s)
{
    return direct->conv2d_work(context, s) + (s->batch == 3 ? 100000 : 8);
}

static void odd_forward(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index, const float *x, const float *weight,
                        const float *bias, void *work)
{
    size_t room;
    memcpy(&room, (char *)work - SIZE_ROOM, sizeof room);
    CHECK(room >= odd_work(context, s), "a batch of %d: %lu bytes of scratch memory, but %lu were asked for", s->batch,
          (unsigned long)room, (unsigned long)odd_work(context, s));
    direct->conv2d_forward(context, s, y, index, x, weight, bias, work);
}

static void test_work(void)
{
    cnn_backend b = *direct;
    cnn_net *net = small_net("simd");
    cnn_data *data = noise_data(8, 2, 6, 6, 4);
    b.name = "odd";
    b.alloc = sized_alloc;
    b.free = sized_free;
    b.conv2d_work = odd_work;
    b.conv2d_forward = odd_forward;
    cnn_use_backend(net, &b);
    cnn_evaluate(net, data, 5, CNN_CROSS_ENTROPY);         /* 5, then 3 */
    CHECK_FINE(net);
    cnn_free(net);
    cnn_data_free(data);
}

static void test_refused_backends(void)
{
    cnn_backend b = *direct;
    cnn_net *net = small_net("simd");
    cnn_data *data = noise_data(4, 2, 6, 6, 4);
    char version[20];
    size_t at;
    b.name = "abacus";
    b.softmax_backward = NULL;
    check_refused(&b, "abacus", "softmax_backward");
    b = *direct;
    b.name = "abacus";
    b.batch_norm_work = NULL;
    check_refused(&b, "abacus", "batch_norm_work");
    b = *direct;
    b.name = "abacus";
    for (at = offsetof(cnn_backend, conv2d_work); at < offsetof(cnn_backend, step_begin); at += sizeof b.conv2d_work) {
        cnn_backend lacking = *direct;                      /* each of the entries that must be there */
        memset((char *)&lacking + at, 0, sizeof b.conv2d_work);
        lacking.name = "abacus";
        check_refused(&lacking, "abacus", "_");
    }
    b.version = CNN_BACKEND_VERSION + 7;
    snprintf(version, sizeof version, "version %d", CNN_BACKEND_VERSION + 7);
    check_refused(&b, "abacus", version);
    b.version = CNN_BACKEND_VERSION;
    b.open = refusing_open;
    check_refused(&b, "abacus", "the machine has no abacus");
    b.open = NULL;
    b.sync = failing_sync;
    cnn_use_backend(net, &b);
    cnn_evaluate(net, data, 4, CNN_CROSS_ENTROPY);
    CHECK(cnn_error(net) && strstr(cnn_error(net), "abacus") && strstr(cnn_error(net), "a bead fell off"), "it says: %s", error_of(net));
    cnn_free(net);
    cnn_data_free(data);
}

int main(void)
{
    direct = cnn_find_backend("direct");
    folder_make();
    test_names();
    test_numbering();
    test_summary();
    on_each_backend(test_get_set);
    on_each_backend(test_gradients);
    on_each_backend(test_activations);
    on_each_backend(test_predict);
    test_loader();
    on_each_backend(test_normalize);
    on_each_backend(test_own_batches);
    on_each_backend(test_bytes_and_floats);
    test_random_split();
    on_each_backend(test_lowered_count);
    test_philox();
    test_init();
    test_seed();
    test_schedules();
    on_each_backend(test_fit);
    test_fit_options();
    on_each_backend(test_mse);
    on_each_backend(test_gradcheck);
    on_each_backend(test_kinks);
    test_planted_gradients();
    test_planted_nan();
    test_picture();
    test_own_backend();
    test_work();
    test_refused_backends();
    test_diverged_curves(1e3f, 4);
    test_diverged_curves(1e3f, 1);
    test_diverged_curves(1e30f, 1);
    folder_remove();
    return test_end("library");
}
