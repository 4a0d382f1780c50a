/* test_flow.c - what flows through a network: samples that change, labels, losses with options, and looks that change nothing.

   1. A backend that does not read the host sees refilled arrays: losses and weights bit for bit as by `direct`, and its
      memory does not grow with data sets that are freed.
   2. Whatever looks leaves training bit for bit as it was, at each point of the training loop.
   3. Numbers in public arrays are checked when they are used: one sentence each.
   4. argmax and max pooling with NaN and equal values, as PyTorch.
   5. Data without labels; cross-entropy's options beside numbers from PyTorch; bytes with the scale of training.
   6. What `simd` keeps of the weights between predictions is never out of date. */
#define _POSIX_C_SOURCE 200112L             /* folder.h */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "test.h"
#include "folder.h"

enum { SAMPLES = 12, SIDE = 6, CHANNELS = 2, CLASSES = 3, VALUES = CHANNELS * SIDE * SIDE, BATCH = 4 };

static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

#define SAYS(net, call, ...)                                                                                                   \
    do {                                                                                                                       \
        static const char *const words[] = { __VA_ARGS__ };                                                                    \
        size_t w;                                                                                                              \
        call;                                                                                                                  \
        for (w = 0; w < sizeof words / sizeof *words; w++)                                                                     \
            CHECK(cnn_error(net) && strstr(cnn_error(net), words[w]), "no \"%s\" in: %s", words[w], error_of(net));            \
        cnn_clear_error(net);                                                                                                  \
    } while (0)

static float drawn(uint64_t step, size_t i)                /* within [-1, 1] */
{
    uint32_t r[4];
    cnn_random(r, 5, 77, step, (uint32_t)i);
    return (float)(r[0] >> 8) / 8388608.0f - 1;
}

/* ---- a backend apart: `direct`, whose memory is its own and which refuses to read any other ---- */

enum { BLOCKS = 256 };
static struct { char *at; size_t bytes; } blocks[BLOCKS];
static size_t held;
static int foreign;                         /* arrays that it was told to read and that are not its own */

static void *apart_alloc(void *context, size_t bytes)
{
    int i = 0;
    (void)context;
    while (i < BLOCKS && blocks[i].at) i++;
    if (i == BLOCKS) return NULL;
    blocks[i].at = (char *)calloc(1, bytes);
    blocks[i].bytes = bytes;
    held += bytes;
    return blocks[i].at;
}

static void apart_free(void *context, void *memory)
{
    int i;
    (void)context;
    for (i = 0; i < BLOCKS; i++)
        if (blocks[i].at && blocks[i].at == (char *)memory) {
            held -= blocks[i].bytes;
            blocks[i].at = NULL;
            free(memory);
            return;
        }
    CHECK(0, "it freed memory that it never gave");
}

static void must_own(const void *memory)
{
    int i;
    if (!memory) return;
    for (i = 0; i < BLOCKS; i++)
        if (blocks[i].at && (const char *)memory >= blocks[i].at && (const char *)memory < blocks[i].at + blocks[i].bytes) return;
    foreign++;
}

static void apart_gather(void *context, const cnn_counters *k, const cnn_gather_shape *s, float *x, const unsigned char *bytes,
                         const float *floats, const int *order, const float *scale, const float *shift)
{
    must_own(bytes); must_own(floats); must_own(order); must_own(scale);
    cnn_find_backend("direct")->gather(context, k, s, x, bytes, floats, order, scale, shift);
}

static void apart_gather_rows(void *context, const cnn_counters *k, void *to, const void *from, const int *order, int batch,
                              int width)
{
    must_own(from); must_own(order);
    cnn_find_backend("direct")->gather_rows(context, k, to, from, order, batch, width);
}

static void apart_cross_entropy(void *context, cnn_counters *c, const cnn_cross_entropy_options *o, float *dy, const float *y,
                                const float *target, const int *labels, int batch, int outputs)
{
    must_own(o->weight); must_own(target); must_own(labels);
    cnn_find_backend("direct")->softmax_cross_entropy(context, c, o, dy, y, target, labels, batch, outputs);
}

static cnn_backend apart(void)
{
    cnn_backend b = *cnn_find_backend("direct");
    b.name = "apart";
    b.alloc = apart_alloc;
    b.free = apart_free;
    b.gather = apart_gather;
    b.gather_rows = apart_gather_rows;
    b.softmax_cross_entropy = apart_cross_entropy;
    b.reads_host = 0;
    return b;
}

enum { MOST = 5 };
static cnn_backend tables[MOST];            /* direct first; cuda and cuda_naive where they are linked */
static int table_count;

static void list_tables(void)
{
    static const char *const names[] = { "direct", "simd", "cuda", "cuda_naive" };
    size_t i;
    for (i = 0; i < 4; i++) if (cnn_find_backend(names[i])) tables[table_count++] = *cnn_find_backend(names[i]);
    tables[table_count++] = apart();
}

static cnn_net *new_net(const cnn_backend *backend)
{
    cnn_net *net = cnn_new(CHANNELS, SIDE, SIDE);
    cnn_use_backend(net, backend);
    cnn_manual_seed(net, 3);
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_dropout(net, .p = 0.25f);
    cnn_flatten(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adam(net, .lr = 1e-2f);
    return net;
}

/* ---- 1: samples that change ---- */

typedef struct outcome { float losses[40], weights[200]; int count; } outcome;

static void collect(cnn_net *net, outcome *o)
{
    size_t n = cnn_get(net, "0.weight", o->weights, 72);
    n += cnn_get(net, "0.bias", o->weights + n, 4);
    n += cnn_get(net, "5.weight", o->weights + n, 108);
    CHECK(n == 72 + 4 + 108, "%s", error_of(net));
}

/* One data set of the caller's arrays; samples, labels, targets, scale and order change from step to step. */
static outcome refill(const cnn_backend *backend, int bytes, int fit)
{
    static float floats[SAMPLES * VALUES], targets[SAMPLES * CLASSES];
    static unsigned char pixels[SAMPLES * VALUES];
    static int labels[SAMPLES], order[BATCH];
    outcome o;
    cnn_net *net = new_net(backend);
    cnn_data *data;
    cnn_batch batch;
    int step, i;
    memset(&o, 0, sizeof o);
    memset(labels, 0, sizeof labels);
    data = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = SIDE, .width = SIDE, .classes = CLASSES, .outputs = CLASSES,
                        .floats = bytes ? NULL : floats, .bytes = bytes ? pixels : NULL, .labels = labels, .targets = targets);
    batch.data = data; batch.order = order; batch.size = BATCH;
    for (step = 0; step < 12; step++) {
        for (i = 0; i < SAMPLES * VALUES; i++) {
            floats[i] = drawn((uint64_t)step, (size_t)i);
            pixels[i] = (unsigned char)(127 + 120 * floats[i]);
        }
        for (i = 0; i < SAMPLES; i++) labels[i] = (i + step) % CLASSES;
        for (i = 0; i < SAMPLES * CLASSES; i++) targets[i] = drawn(100 + (uint64_t)step, (size_t)i);
        for (i = 0; i < BATCH; i++) order[i] = (i * 5 + step) % SAMPLES;
        if (step == 6) {
            const float mean[CHANNELS] = { 0.25f, 0.5f }, deviation[CHANNELS] = { 0.5f, 2 };
            cnn_normalize(data, mean, deviation);
        }
        if (step == 9) data->count = BATCH + 5;
        if (fit) {
            cnn_fit(net, data, data, .epochs = step + 1, .batch_size = BATCH, .keep_last = 1, .test_batch_size = 5);
            o.losses[o.count++] = (float)cnn_history(net, &i)[step].test.loss;
            o.losses[o.count++] = (float)cnn_history(net, &i)[step].train.loss;
            continue;
        }
        cnn_forward(net, &batch);
        for (i = 0; i < SAMPLES; i++) labels[i] = (labels[i] + step / 4) % CLASSES;        /* labels are read by the loss */
        if (step % 3 == 2) cnn_mse_loss(net, &batch);
        else cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
        o.losses[o.count++] = cnn_loss(net);
        o.losses[o.count++] = (float)cnn_evaluate(net, data, 5, CNN_CROSS_ENTROPY).loss;
    }
    collect(net, &o);
    CHECK(!cnn_error(net), "%s: %s", backend->name, error_of(net));
    cnn_data_free(data);
    cnn_free(net);
    return o;
}

static void test_refilled(void)
{
    int bytes, fit, b;
    for (bytes = 0; bytes < 2; bytes++)
        for (fit = 0; fit < 2; fit++) {
            outcome direct = refill(&tables[0], bytes, fit);
            for (b = 1; b < table_count; b++) {
                outcome sent = refill(&tables[b], bytes, fit);
                int i = 0;
                while (i < direct.count && fabsf(direct.losses[i] - sent.losses[i]) <= 1e-4f) i++;
                CHECK(i == direct.count, "%s: refilled %s%s: loss %d is %.9g, but by direct %.9g", tables[b].name,
                      bytes ? "bytes" : "floats", fit ? ", cnn_fit" : "", i, (double)sent.losses[i], (double)direct.losses[i]);
                CHECK(test_distance(sent.weights, direct.weights, 184, 1e-3, 1e-3) <= 1, "%s: other weights", tables[b].name);
                if (!strcmp(tables[b].name, "apart")) CHECK(!memcmp(&direct, &sent, sizeof direct), "apart: other bits than direct's");
            }
        }
    CHECK(!foreign, "%d arrays of the host were read", foreign);
    CHECK(!held, "%lu bytes are left", (unsigned long)held);
}

static void test_memory(void)               /* a data set a batch, constant or not: a network holds copies of those that are there */
{
    static float floats[SAMPLES * VALUES];
    static int labels[SAMPLES];
    cnn_backend other = apart();
    cnn_net *net = new_net(&other), *plain = new_net(cnn_find_backend("direct"));
    int order[BATCH] = { 0, 1, 2, 3 }, i, k, constant;
    for (constant = 0; constant < 2; constant++) {
        size_t before = 0;
        for (i = 0; i < 20; i++) {
            cnn_data *data;
            cnn_batch batch;
            cnn_net *both[2];
            float loss[2];
            both[0] = net; both[1] = plain;
            for (k = 0; k < SAMPLES * VALUES; k++) floats[k] = drawn((uint64_t)i, (size_t)k);
            data = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = SIDE, .width = SIDE, .classes = CLASSES,
                                .floats = floats, .labels = labels, .constant = constant);
            batch.data = data; batch.order = order; batch.size = BATCH;
            for (k = 0; k < 2; k++) {
                cnn_forward(both[k], &batch);
                cnn_cross_entropy(both[k], &batch);
                loss[k] = cnn_loss(both[k]);
            }
            CHECK(loss[0] == loss[1], "data set %d: loss %g, but by direct %g; %s", i, (double)loss[0], (double)loss[1], error_of(net));
            cnn_data_free(data);
            if (i == 1) before = held;
        }
        CHECK(held == before, "%s: after 20 data sets it holds %lu bytes, after 2 %lu", constant ? "constant" : "sent",
              (unsigned long)held, (unsigned long)before);
    }
    {                                       /* an array that is said to stay is sent once */
        cnn_data *data = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = SIDE, .width = SIDE, .classes = CLASSES,
                                      .floats = floats, .labels = labels, .constant = 1);
        cnn_batch batch;
        float first;
        batch.data = data; batch.order = order; batch.size = BATCH;
        cnn_eval(net);
        cnn_forward(net, &batch); cnn_cross_entropy(net, &batch);
        first = cnn_loss(net);
        for (k = 0; k < SAMPLES * VALUES; k++) floats[k] = 0;
        cnn_forward(net, &batch); cnn_cross_entropy(net, &batch);
        CHECK(cnn_loss(net) == first, "a constant array was sent again");
        cnn_data_free(data);
    }
    cnn_free(net);
    cnn_free(plain);
    CHECK(!held, "%lu bytes are left", (unsigned long)held);
}

/* ---- 2: looking ---- */

static float sample[SAMPLES * VALUES];
static int sample_label[SAMPLES];

static cnn_data *samples(void)
{
    int i;
    for (i = 0; i < SAMPLES * VALUES; i++) sample[i] = drawn(50, (size_t)i);
    for (i = 0; i < SAMPLES; i++) sample_label[i] = i * 7 % CLASSES;
    return cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = SIDE, .width = SIDE, .classes = CLASSES,
                        .floats = sample, .labels = sample_label);
}

enum { LOOKS = 16, POINTS = 7 };
static const char *const look_names[LOOKS] = { "nothing", "gradcheck", "explain", "evaluate", "predict", "classify", "get", "summary",
                                               "report", "save", "checkpoint_save", "curves", "predict_bytes", "loss, correct",
                                               "shape, key", "evaluate by mse" };

static FILE *nowhere;

static void take_look(cnn_net *net, int look, const cnn_data *data, const cnn_batch *batch, int first)
{
    float y[SAMPLES * CLASSES], values[BATCH * 4 * SIDE * SIDE];
    unsigned char bytes[2 * VALUES] = { 9, 200 };
    int classes[SAMPLES], shape[4], order[3] = { 5, 1, 9 }, i;
    cnn_batch own;
    own.data = data; own.order = order; own.size = 3;
    switch (look) {
    case 1:  i = cnn_gradcheck(net, batch ? batch : &own, 5, nowhere).failed; CHECK(!i, "gradcheck: %d failed", i); break;
    case 2:
        if (first) break;                   /* there has been no forward pass */
        cnn_explain(net, "0", 1, 2, 3, nowhere); cnn_explain(net, "2", 1, 1, 1, nowhere);
        cnn_explain(net, "3", 1, 1, 1, nowhere); cnn_explain(net, "5", 1, 0, 0, nowhere);
        break;
    case 3:  cnn_evaluate(net, data, 5, CNN_CROSS_ENTROPY); break;
    case 4:  cnn_predict(net, y, sample, SAMPLES); break;
    case 5:  cnn_classify(net, classes, y, data, 7); break;
    case 6:
        cnn_get(net, "0.weight.grad", values, 72);
        for (i = 0; !first && i < 6; i++) cnn_get(net, cnn_layer_name(net, i), values, BATCH * 4 * SIDE * SIDE);
        break;
    case 7:  cnn_summary(net, nowhere); break;
    case 8:  cnn_report(net, data, in_folder("page.html"), "page"); break;
    case 9:  cnn_save(net, in_folder("net.safetensors")); cnn_save(net, in_folder("net.pth")); break;
    case 10: cnn_checkpoint_save(net, in_folder("checkpoint")); break;
    case 11:
        cnn_history(net, &i);
        if (!i) break;
        cnn_save_curves_svg(net, in_folder("curves.svg"), "curves"); cnn_save_curves_csv(net, in_folder("curves.csv"));
        cnn_print_curves(net, nowhere);
        break;
    case 12:
        cnn_set_scale(net, NULL, NULL);
        cnn_predict_bytes(net, y, bytes, 2);
        break;
    case 13: cnn_loss(net); cnn_correct(net); cnn_lr(net); break;
    case 14: cnn_shape(net, "0.weight", shape); cnn_shape(net, "0", shape); cnn_key(net, 1); cnn_num_parameters(net); break;
    case 15: cnn_evaluate(net, data, 0, CNN_MSE); break;
    default: break;
    }
    CHECK(!cnn_error(net), "%s: %s", look_names[look], error_of(net));
}

typedef struct trained { float losses[8], seen[4], gradients[8][72], outputs[8][BATCH * 4 * 9], weights[200]; int correct[8]; } trained;

static trained train_looking(const cnn_backend *backend, int look, int point, int accumulated)
{
    trained t;
    outcome o;
    cnn_data *data = samples();
    cnn_net *net = new_net(backend);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = BATCH, .shuffle = 1);
    cnn_batch batch;
    int step = 0, epoch;
    memset(&t, 0, sizeof t);
    memset(&o, 0, sizeof o);
    for (epoch = 0; epoch < 2; epoch++)
        while (cnn_next(loader, &batch)) {
#define POINT(number) if (point == number) take_look(net, look, data, &batch, number == 0 && step == 0)
            POINT(0);
            cnn_forward(net, &batch);
            POINT(1);
            cnn_cross_entropy(net, &batch);
            POINT(2);
            if (!accumulated || step % 2 == 0) cnn_zero_grad(net);
            POINT(3);
            cnn_backward(net);
            POINT(4);
            t.seen[step % 4] = cnn_clip_grad_norm(net, 0.25f);
            POINT(5);
            cnn_step(net);
            POINT(6);
            t.losses[step] = cnn_loss(net);
            t.correct[step] = cnn_correct(net);
            cnn_get(net, "0.weight.grad", t.gradients[step], 72);
            cnn_get(net, "3", t.outputs[step], BATCH * 4 * 9);
            step++;
        }
    collect(net, &o);
    memcpy(t.weights, o.weights, sizeof t.weights);
    CHECK(step == 6 && !cnn_error(net), "%d steps: %s", step, error_of(net));
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_data_free(data);
    return t;
}

static void test_looking(void)
{
    int b, look, point;
    for (b = 0; b < table_count; b++) {
        trained plain = train_looking(&tables[b], 0, 0, 1);
        for (look = 1; look < LOOKS; look++)
            for (point = 0; point < POINTS; point++) {
                trained looked = train_looking(&tables[b], look, point, 1);
                CHECK(!memcmp(&plain, &looked, sizeof plain), "%s: training is another one after %s at point %d", tables[b].name,
                      look_names[look], point);
            }
    }
}

typedef struct watcher { const cnn_data *data; int look; } watcher;

static void watch(cnn_net *net, const cnn_epoch *epoch, void *user)
{
    const watcher *w = (const watcher *)user;
    (void)epoch;
    take_look(net, w->look, w->data, NULL, 0);
}

static void test_looking_in_fit(void)
{
    outcome plain;
    int look;
    memset(&plain, 0, sizeof plain);
    for (look = 0; look < LOOKS; look++) {
        outcome o;
        watcher w;
        cnn_data *data = samples();
        cnn_net *net = new_net(cnn_find_backend("simd"));
        const cnn_epoch *history;
        int i;
        memset(&o, 0, sizeof o);
        w.data = data; w.look = look;
        cnn_fit(net, data, look % 2 ? data : NULL, .epochs = 4, .batch_size = BATCH, .each_epoch = watch, .user = &w);
        history = cnn_history(net, &o.count);
        for (i = 0; i < o.count; i++) o.losses[i] = (float)history[i].train.loss;
        collect(net, &o);
        if (!look) plain = o;
        CHECK(o.count == 4 && !memcmp(&plain, &o, sizeof o), "cnn_fit ends with other bits after %s; %s", look_names[look], error_of(net));
        cnn_free(net);
        cnn_data_free(data);
    }
}

static void test_look_memory(void)          /* who never looks pays nothing; a look's second time takes nothing more */
{
    cnn_backend other = apart();
    cnn_net *net = new_net(&other);
    cnn_data *data = samples();
    cnn_loader *loader = cnn_loader_new(data, .batch_size = BATCH);
    cnn_batch batch;
    size_t before;
    cnn_next(loader, &batch);
    cnn_forward(net, &batch); cnn_cross_entropy(net, &batch); cnn_zero_grad(net); cnn_backward(net); cnn_step(net);
    before = held;
    cnn_forward(net, &batch); cnn_cross_entropy(net, &batch); cnn_zero_grad(net); cnn_backward(net); cnn_step(net);
    cnn_get(net, "3", NULL, 0); cnn_summary(net, nowhere); cnn_loss(net);
    CHECK(held == before, "%lu bytes more though nobody looked", (unsigned long)(held - before));
    cnn_evaluate(net, data, BATCH, CNN_CROSS_ENTROPY);
    CHECK(held > before, "a look took no memory of its own");
    before = held;
    cnn_evaluate(net, data, BATCH, CNN_CROSS_ENTROPY);
    CHECK(held == before, "a second look took memory");
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_data_free(data);
}

static void test_summary(void)
{
    cnn_net *net = cnn_new(1, 4, 4), *whole = cnn_new(1, 4, 4);
    float a[3], b[3], x[16] = { 1, 2, 3 };
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 3); cnn_conv2d(whole, .out_channels = 2, .kernel_size = 3);
    cnn_summary(net, nowhere);
    CHECK(cnn_layer_name(net, 0) && !cnn_layer_name(net, 1), "names");
    cnn_flatten(net); cnn_flatten(whole);
    cnn_summary(net, nowhere);
    cnn_to(net, "direct"); cnn_to(whole, "direct");
    cnn_linear(net, .out_features = 3); cnn_linear(whole, .out_features = 3);
    cnn_predict(net, a, x, 1); cnn_predict(whole, b, x, 1);
    CHECK(!cnn_error(net) && !memcmp(a, b, sizeof a), "after a summary: %s", error_of(net));
    cnn_free(net);
    cnn_free(whole);
}

/* ---- 3: numbers in public arrays ---- */

static void test_numbers(void)
{
    cnn_data *data = samples(), *first, *second;
    cnn_backend other = apart();
    cnn_net *nets[2];
    int order[BATCH] = { 0, 1, 2, 3 }, k;
    nets[0] = new_net(cnn_find_backend("simd")); nets[1] = new_net(&other);
    for (k = 0; k < 2; k++) {
        cnn_net *net = nets[k];
        cnn_batch batch;
        cnn_loader *loader = cnn_loader_new(data, .batch_size = BATCH);
        batch.data = data; batch.order = order; batch.size = BATCH;
        order[3] = SAMPLES;
        SAYS(net, cnn_forward(net, &batch), "order[3]", "is 12", "0 to 11");
        order[3] = INT_MAX;
        SAYS(net, cnn_forward(net, &batch), "order[3]", "2147483647");
        order[3] = -1;
        SAYS(net, cnn_forward(net, &batch), "order[3]", "-1");
        SAYS(net, cnn_gradcheck(net, &batch, 1, NULL), "order[3]", "-1");
        order[3] = 3;
        cnn_forward(net, &batch);
        sample_label[2] = CLASSES;
        SAYS(net, cnn_cross_entropy(net, &batch), "cnn_cross_entropy: label 3 of sample 2", "0 .. 2");
        SAYS(net, cnn_mse_loss(net, &batch), "cnn_mse_loss: label 3 of sample 2", "0 .. 2");
        SAYS(net, cnn_evaluate(net, data, 4, CNN_CROSS_ENTROPY), "label 3 of sample 2");
        SAYS(net, cnn_report(net, data, in_folder("never"), ""), "label 3 of sample 2");
        sample_label[2] = -7;
        SAYS(net, cnn_cross_entropy(net, &batch), "label -7 of sample 2");
        sample_label[2] = 2;
        order[0] = 1000000;                 /* after the forward pass: its samples have been chosen */
        cnn_cross_entropy(net, &batch);
        CHECK(!cnn_error(net), "%s", error_of(net));
        order[0] = 0;
        data->classes = CLASSES + 1;
        SAYS(net, cnn_forward(net, &batch); cnn_cross_entropy(net, &batch), "4 classes", "3 outputs");
        data->classes = 2;
        SAYS(net, cnn_forward(net, &batch); cnn_cross_entropy(net, &batch), "label 2 of sample 2", "0 .. 1");
        data->classes = CLASSES;
        data->count = SAMPLES + 1;
        SAYS(net, cnn_forward(net, &batch), "set to 13", "12 samples");
        SAYS(net, cnn_evaluate(net, data, 4, CNN_CROSS_ENTROPY), "set to 13", "12 samples");
        cnn_random_split(data, 5, 1, &first, &second);
        CHECK(first->error && strstr(first->error, "set to 13"), "cnn_random_split: %s", first->error ? first->error : "nothing");
        cnn_data_free(first); cnn_data_free(second);
        data->count = SAMPLES;
        cnn_next(loader, &batch);
        batch.size = SAMPLES + 3;
        SAYS(net, cnn_forward(net, &batch), "order[12] of the batch of 15", "is -1");
        batch.size = 0;
        SAYS(net, cnn_forward(net, &batch), "empty");
        cnn_loader_free(loader);
        cnn_free(net);
    }
    cnn_data_free(data);
}

/* ---- 4: argmax; torch.argmax gives the expected numbers ---- */

static void test_argmax(void)
{
    const float nan = NAN, big = INFINITY;
    const struct { float y[3]; int best; } rows[] = {
        { { 1, nan, 0 }, 1 }, { { 1, nan, nan }, 1 }, { { 2, 2, 1 }, 0 }, { { nan, 3, nan }, 0 }, { { big, big, nan }, 2 },
        { { -big, -big, -big }, 0 }, { { 0, 1, 1 }, 1 } };
    size_t i;
    int k;
    for (i = 0; i < sizeof rows / sizeof *rows; i++)
        for (k = 0; k < table_count; k++) {
            cnn_net *net = cnn_new(1, 1, 3);
            int label = rows[i].best, order = 0, class_number = -1;
            cnn_data *data = cnn_data_new(.count = 1, .channels = 1, .height = 1, .width = 3, .classes = 3, .floats = rows[i].y,
                                          .labels = &label);
            cnn_batch batch;
            batch.data = data; batch.order = &order; batch.size = 1;
            cnn_use_backend(net, &tables[k]);
            cnn_flatten(net);
            cnn_dropout(net, .p = 0.5f);
            cnn_eval(net);
            cnn_forward(net, &batch);
            cnn_cross_entropy(net, &batch);
            CHECK(cnn_correct(net) == 1, "row %d: the largest is not %d", (int)i, label);
            cnn_forward(net, &batch);
            cnn_mse_loss(net, &batch);
            CHECK(cnn_correct(net) == 1, "row %d, mse: the largest is not %d", (int)i, label);
            cnn_classify(net, &class_number, NULL, data, 1);
            CHECK(class_number == label, "row %d: classified as %d, not %d", (int)i, class_number, label);
            cnn_free(net);
            cnn_data_free(data);
        }
}

/* x = torch.tensor([[[[1,nan,2,3],[nan,0,5,5],[1,1,-1,-2],[0,1,-1,-1]]]], requires_grad=True)
   torch.nn.functional.max_pool2d(x, 2).sum().backward(): [[nan, 5], [1, -1]]; x.grad is 1 at 4, 6, 8, 10: the last NaN */
static void test_pool_nan(void)
{
    static const float expected[16] = { 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0 };
    const float nan = NAN, x[16] = { 1, nan, 2, 3, nan, 0, 5, 5, 1, 1, -1, -2, 0, 1, -1, -1 };
    float y[4], dx[16], dy[4] = { 1, 1, 1, 1 };
    cnn_pool2d_shape s;
    int k;
    memset(&s, 0, sizeof s);
    s.batch = s.channels = 1; s.in_height = s.in_width = 4; s.out_height = s.out_width = 2;
    s.kernel_height = s.kernel_width = s.stride_height = s.stride_width = 2;
    for (k = 0; k < table_count; k++) {
        cnn_backend b = tables[k];
        char sentence[256];
        void *context = b.open ? b.open(1, sentence, sizeof sentence) : NULL;
        float *x_there = (float *)b.alloc(context, sizeof x), *y_there = (float *)b.alloc(context, sizeof y);
        float *dx_there = (float *)b.alloc(context, sizeof dx), *dy_there = (float *)b.alloc(context, sizeof dy);
        b.upload(context, x_there, x, sizeof x);
        b.upload(context, dy_there, dy, sizeof dy);
        b.pool2d_forward(context, &s, y_there, x_there);
        b.pool2d_backward(context, &s, dx_there, dy_there, x_there);
        b.download(context, y, y_there, sizeof y);
        b.download(context, dx, dx_there, sizeof dx);
        b.free(context, x_there); b.free(context, y_there); b.free(context, dx_there); b.free(context, dy_there);
        CHECK(y[0] != y[0] && y[1] == 5 && y[2] == 1 && y[3] == -1, "%s: max pooling gives %g %g %g %g", b.name, (double)y[0],
              (double)y[1], (double)y[2], (double)y[3]);
        CHECK(!memcmp(dx, expected, sizeof dx), "%s: the gradient goes elsewhere", b.name);
        if (b.close) b.close(context);
    }
}

/* ---- 5: data without labels; the cross-entropy's options; bytes ---- */

static void test_no_labels(void)
{
    cnn_data *data = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = SIDE, .width = SIDE, .floats = sample);
    cnn_data *half, *rest;
    cnn_net *net = new_net(cnn_find_backend("simd"));
    int classes[SAMPLES], order[1] = { 2 };
    float y[SAMPLES * CLASSES], out[CLASSES];
    cnn_batch batch;
    CHECK(!data->error && data->classes == 0 && data->outputs == 0, "no labels: %s", data->error ? data->error : "");
    batch.data = data; batch.order = order; batch.size = 1;
    CHECK(cnn_classify(net, classes, y, data, 5) && cnn_predict(net, y, sample, SAMPLES), "%s", error_of(net));
    cnn_eval(net);
    cnn_forward(net, &batch);
    CHECK(cnn_explain(net, "5", 0, 0, 0, nowhere) && cnn_get(net, "5", out, CLASSES) == CLASSES
          && test_distance(out, y + 2 * CLASSES, CLASSES, 1e-6, 1e-6) <= 1, "%s", error_of(net));
    SAYS(net, cnn_cross_entropy(net, &batch), "cnn_cross_entropy: your data set has no labels");
    SAYS(net, cnn_mse_loss(net, &batch), "cnn_mse_loss: your data set has neither targets nor labels");
    SAYS(net, cnn_evaluate(net, data, 4, CNN_CROSS_ENTROPY), "no labels");
    SAYS(net, cnn_fit(net, data, NULL, .batch_size = 4), "no labels");
    SAYS(net, cnn_report(net, data, in_folder("never"), ""), "labelled");
    cnn_random_split(data, 4, 1, &half, &rest);
    CHECK(!half->error && !half->labels && cnn_classify(net, classes, NULL, half, 3), "half of it: %s", error_of(net));
    cnn_data_free(half); cnn_data_free(rest);
    cnn_free(net);
    cnn_data_free(data);
}

/* y0 = torch.tensor([[1, -.5, .25], [2, 2, -1], [-1.5, .5, 3], [0, .75, -.25]]); t = torch.tensor([0, 2, 2, 1])
   w = torch.tensor([.5, 2, 1.25]); p = torch.tensor([[.7, .2, .1], [0, .5, .5], [.1, .1, .8], [1, 0, 0]]), in float64:
   y = y0.clone().requires_grad_(); l = F.cross_entropy(y, t or p, ...); l.backward(); print(l, y.grad) */
static const float class_weight[3] = { 0.5f, 2, 1.25f };
static const struct entropy_case { const char *name; int weighted; float smoothing; int ignored, soft; double loss; float dy[12]; }
entropy_cases[] = {
    { "plain", 0, 0, 0, 0, 1.23617865, { -0.102550584f, 0.0329004118f, 0.0696501723f, 0.121963888f, 0.121963888f, -0.243927776f,
      0.00254049066f, 0.018771828f, -0.0213123187f, 0.0641716589f, -0.114148597f, 0.0499769382f } },
    { "weight", 1, 0, 0, 0, 1.24846718, { -0.0410202336f, 0.0131601647f, 0.0278600689f, 0.121963888f, 0.121963888f, -0.243927776f,
      0.00254049066f, 0.018771828f, -0.0213123187f, 0.102674654f, -0.182637755f, 0.0799631011f } },
    { "label_smoothing", 0, 0.1f, 0, 0, 1.27784532, { -0.0858839174f, 0.0245670785f, 0.061316839f, 0.113630554f, 0.113630554f,
      -0.227261109f, -0.00579284267f, 0.0104384947f, -0.004645652f, 0.0558383256f, -0.0974819304f, 0.0416436049f } },
    { "weight, label_smoothing", 1, 0.1f, 0, 0, 1.28265499, { -0.025506602f, 0.00180085609f, 0.0237057459f, 0.118630554f,
      0.108630554f, -0.227261109f, -0.000792842673f, 0.00543849467f, -0.004645652f, 0.0954910213f, -0.164122173f, 0.0686311515f } },
    { "ignore_index=2", 0, 0, 2, 0, 0.568937499, { -0.205101168f, 0.0658008236f, 0.139300345f, 0, 0, 0, 0, 0, 0, 0.128343318f,
      -0.228297194f, 0.0999538764f } },
    { "ignore_index=0, weight, label_smoothing", 1, 0.2f, CNN_ZERO, 0, 1.32856218, { 0, 0, 0, 0.128108023f, 0.105885801f,
      -0.233993825f, -0.00458464001f, -0.00877204295f, 0.013356683f, 0.0981193205f, -0.1617851f, 0.0636657798f } },
    { "probabilities", 0, 0, 0, 1, 1.31742865, { -0.0275505841f, -0.0170995882f, 0.0446501723f, 0.121963888f, -0.00303611221f,
      -0.118927776f, -0.0224595093f, -0.00622817199f, 0.0286876813f, -0.185828341f, 0.135851403f, 0.0499769382f } },
    { "probabilities, weight", 1, 0, 0, 1, 1.42834472, { 0.0415182389f, -0.0712121397f, 0.0296939008f, 0.198191318f,
      -0.0518086823f, -0.146382635f, -0.00932438667f, -0.026535215f, 0.0358596017f, -0.0929141706f, 0.0679257015f, 0.0249884691f } },
    { "probabilities, weight, label_smoothing", 1, 0.1f, 0, 1, 1.48430341, { 0.0516309254f, -0.0766450409f, 0.0250141156f,
      0.189451005f, -0.0480489948f, -0.14140201f, -0.0122410533f, -0.0382018817f, 0.050442935f, -0.0797679628f, 0.06144789f,
      0.0183200728f } } };

static void test_entropy(const cnn_backend *backend)
{
    static const float y[12] = { 1, -0.5f, 0.25f, 2, 2, -1, -1.5f, 0.5f, 3, 0, 0.75f, -0.25f };
    static const float p[12] = { 0.7f, 0.2f, 0.1f, 0, 0.5f, 0.5f, 0.1f, 0.1f, 0.8f, 1, 0, 0 }, one[9] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 };
    static const int labels[4] = { 0, 2, 2, 1 }, order[4] = { 0, 1, 2, 3 };
    size_t i;
    for (i = 0; i < sizeof entropy_cases / sizeof *entropy_cases; i++) {
        const struct entropy_case *e = &entropy_cases[i];
        cnn_net *net = cnn_new(3, 1, 1);
        cnn_data *data = cnn_data_new(.count = 4, .channels = 3, .height = 1, .width = 1, .classes = 3, .outputs = 3, .floats = y,
                                      .labels = e->soft && i % 2 ? NULL : labels, .targets = p);
        cnn_batch batch;
        float gradient[9], expected[9] = { 0 };
        cnn_score score;
        int n, o, k, counted = 0, ignored = e->ignored == CNN_ZERO ? 0 : e->ignored ? e->ignored : -100;
        batch.data = data; batch.order = order; batch.size = 4;
        cnn_use_backend(net, backend);
        cnn_flatten(net);
        cnn_linear(net, .out_features = 3, .no_bias = 1);
        cnn_set(net, "1.weight", one, 9);                  /* y = x, so dW(o,i) = sum_n dy(n,o) x(n,i) */
        cnn_set_cross_entropy(net, .weight = e->weighted ? class_weight : NULL, .classes = e->weighted ? 3 : 0,
                              .label_smoothing = e->smoothing, .ignore_index = e->ignored, .probabilities = e->soft);
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        for (n = 0; n < 4; n++) counted += labels[n] != ignored;
        for (n = 0; n < 4; n++)
            for (o = 0; o < 3; o++)
                for (k = 0; k < 3; k++) expected[o * 3 + k] += e->dy[n * 3 + o] * y[n * 3 + k];
        cnn_get(net, "1.weight.grad", gradient, 9);
        CHECK(fabs((double)cnn_loss(net) - e->loss) < 2e-6, "%s: %s: loss %.9g, but by PyTorch %.9g; %s", backend->name, e->name,
              (double)cnn_loss(net), e->loss, error_of(net));
        CHECK(test_distance(gradient, expected, 9, 2e-6, 2e-6) <= 1, "%s: %s: another gradient", backend->name, e->name);
        /* an epoch: each sample a batch of its own, and all together, have the same weighted mean */
        score = cnn_evaluate(net, data, 1, CNN_CROSS_ENTROPY);
        CHECK(fabs(score.loss - e->loss) < 2e-6, "%s: %s: evaluated in batches of 1 the loss is %.9g, not %.9g", backend->name,
              e->name, score.loss, e->loss);
        CHECK(score.count == (e->soft && i % 2 ? 4 : counted), "%s: %s: %d samples count, not %d", backend->name, e->name,
              score.count, counted);
        cnn_sgd(net, .lr = 1e-12f);                        /* which moves nothing, so an epoch has the same mean */
        cnn_fit(net, data, data, .epochs = 1, .batch_size = 3, .keep_last = 1, .test_batch_size = 3);
        CHECK(!cnn_error(net) && fabs(cnn_history(net, &n)->train.loss - e->loss) < 2e-6
              && fabs(cnn_history(net, &n)->test.loss - e->loss) < 2e-6,
              "%s: %s: cnn_fit's epoch has %.9g, not %.9g; %s", backend->name, e->name,
              cnn_error(net) ? 0.0 : cnn_history(net, &n)->train.loss, e->loss, error_of(net));
        if (!e->soft || i % 2 == 0)                        /* argmax: 0 0 2 1 */
            CHECK(fabs(score.accuracy - (ignored == 2 ? 1.0 : ignored == 0 ? 2.0 / 3 : 3.0 / 4)) < 1e-9,
                  "%s: %s: accuracy %g", backend->name, e->name, score.accuracy);
        cnn_free(net);
        cnn_data_free(data);
    }
}

static void test_entropy_edges(void)
{
    static const float y[6] = { 1, 2, 3, 0, 0, 1 }, weights[4] = { 1, 2, 3, -1 };
    static const int labels[2] = { -100, -100 }, minus[2] = { -1, 2 }, order[2] = { 0, 1 };
    cnn_net *net = cnn_new(3, 1, 1);
    cnn_data *all = cnn_data_new(.count = 2, .channels = 3, .height = 1, .width = 1, .classes = 3, .floats = y, .labels = labels);
    cnn_data *some = cnn_data_new(.count = 2, .channels = 3, .height = 1, .width = 1, .classes = 3, .floats = y, .labels = minus);
    cnn_batch batch;
    float gradient[9], w[3] = { 1, 1, 1 };
    int i;
    batch.order = order; batch.size = 2; batch.data = all;
    cnn_flatten(net);
    cnn_linear(net, .out_features = 3, .no_bias = 1);
    cnn_forward(net, &batch); cnn_cross_entropy(net, &batch); cnn_zero_grad(net); cnn_backward(net);
    cnn_get(net, "1.weight.grad", gradient, 9);
    for (i = 0; i < 9; i++) CHECK(gradient[i] == 0, "all ignored: a gradient of %g", (double)gradient[i]);
    CHECK(cnn_loss(net) != cnn_loss(net), "all ignored: the loss is %g, but by PyTorch NaN", (double)cnn_loss(net));
    batch.data = some;
    cnn_forward(net, &batch);
    SAYS(net, cnn_cross_entropy(net, &batch), "label -1 of sample 0");
    cnn_set_cross_entropy(net, .ignore_index = -1);
    cnn_cross_entropy(net, &batch);
    CHECK(!cnn_error(net) && cnn_loss(net) > 0, "ignore_index -1: %s", error_of(net));
    SAYS(net, cnn_set_cross_entropy(net, .weight = weights), ".classes");
    SAYS(net, cnn_set_cross_entropy(net, .weight = weights, .classes = 4), "weight 3", "-1");
    SAYS(net, cnn_set_cross_entropy(net, .weight = weights + 3, .classes = 1), "weight 0", "-1");
    SAYS(net, cnn_set_cross_entropy(net, .label_smoothing = 1.5f), "label_smoothing", "1.5");
    cnn_set_cross_entropy(net, .weight = weights, .classes = 2, .ignore_index = -1);
    cnn_forward(net, &batch);
    SAYS(net, cnn_cross_entropy(net, &batch), "2 class weights", "3 outputs");
    cnn_set_cross_entropy(net, .weight = w, .classes = 3, .ignore_index = -1);
    w[2] = 1000;                            /* it has its own copy */
    cnn_cross_entropy(net, &batch);
    CHECK(!cnn_error(net), "%s", error_of(net));
    cnn_set_cross_entropy(net, .probabilities = 1);
    SAYS(net, cnn_cross_entropy(net, &batch), "no targets", ".probabilities");
    cnn_free(net);
    cnn_data_free(all);
    cnn_data_free(some);
}

static void test_bytes(void)
{
    static unsigned char pixels[SAMPLES * VALUES];
    static int labels[SAMPLES];
    static const float mean[CHANNELS] = { 0.25f, 0.5f }, deviation[CHANNELS] = { 0.5f, 2 };
    cnn_data *data;
    int i, k;
    for (i = 0; i < SAMPLES * VALUES; i++) pixels[i] = (unsigned char)(127 + 120 * drawn(9, (size_t)i));
    data = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = SIDE, .width = SIDE, .classes = CLASSES, .bytes = pixels,
                        .labels = labels);
    cnn_normalize(data, mean, deviation);
    for (k = 0; k < table_count; k++) {
        const cnn_backend *backend = &tables[k];
        cnn_net *net = new_net(backend), *resumed = new_net(backend), *plain = new_net(backend);
        float y[SAMPLES * CLASSES], bytes_y[SAMPLES * CLASSES], unscaled[SAMPLES * CLASSES];
        int order[SAMPLES];
        cnn_batch batch;
        for (i = 0; i < SAMPLES; i++) order[i] = i;
        SAYS(net, cnn_predict_bytes(net, y, pixels, 1), "cnn_predict_bytes", "cnn_set_scale");
        cnn_fit(net, data, NULL, .epochs = 2, .batch_size = BATCH);
        CHECK(cnn_predict_bytes(net, bytes_y, pixels, SAMPLES), "%s", error_of(net));
        cnn_checkpoint_save(net, in_folder("bytes"));
        cnn_checkpoint_load(resumed, in_folder("bytes"));
        cnn_eval(net);
        batch.data = data; batch.order = order; batch.size = SAMPLES;
        cnn_forward(net, &batch);
        cnn_get(net, "5", y, SAMPLES * CLASSES);
        CHECK(!memcmp(y, bytes_y, sizeof y), "%s: bytes give %g, but training's data %g", backend->name, (double)bytes_y[0],
              (double)y[0]);
        CHECK(cnn_predict_bytes(resumed, y, pixels, SAMPLES) && !memcmp(y, bytes_y, sizeof y), "%s: after a checkpoint: %s",
              backend->name, error_of(resumed));
        cnn_save(net, in_folder("bytes.safetensors"));
        cnn_load(plain, in_folder("bytes.safetensors"));
        cnn_set_scale(plain, mean, deviation);
        CHECK(cnn_predict_bytes(plain, y, pixels, SAMPLES) && !memcmp(y, bytes_y, sizeof y), "%s: cnn_set_scale: %s",
              backend->name, error_of(plain));
        cnn_set_scale(plain, NULL, NULL);
        cnn_predict_bytes(plain, unscaled, pixels, SAMPLES);
        CHECK(memcmp(unscaled, bytes_y, sizeof y), "%s: a scale that changes nothing", backend->name);
        SAYS(net, cnn_predict_bytes(net, NULL, pixels, 1), "cnn_predict_bytes", "arrays");
        cnn_free(plain);
        plain = new_net(backend);                          /* a checkpoint of a network that never saw bytes has no scale */
        cnn_checkpoint_save(plain, in_folder("bytes"));
        CHECK(cnn_checkpoint_load(resumed, in_folder("bytes")), "%s: %s", backend->name, error_of(resumed));
        SAYS(resumed, cnn_predict_bytes(resumed, y, pixels, 1), "cnn_predict_bytes", "cnn_set_scale");
        SAYS(net, cnn_set_scale(net, mean, NULL), "cnn_set_scale", "both");
        cnn_free(net); cnn_free(resumed); cnn_free(plain);
    }
    cnn_data_free(data);
    CHECK(!foreign && !held, "%d arrays of the host were read, %lu bytes are left", foreign, (unsigned long)held);
}

/* A data set that is freed takes its copies along, at the next forward pass. */
static void test_freed_data(void)
{
    static unsigned char pixels[SAMPLES * VALUES];
    static int labels[SAMPLES];
    cnn_data *data[2];
    cnn_net *net = new_net(&tables[table_count - 1]);
    int i;
    for (i = 0; i < 2; i++) {
        data[i] = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = SIDE, .width = SIDE, .classes = CLASSES,
                               .bytes = pixels, .labels = labels, .constant = 1);
        cnn_fit(net, data[i], NULL, .epochs = 1, .batch_size = BATCH);
        CHECK(net->resident_count == 2, "%d copies: of the samples and of the labels of one data set", net->resident_count);
        cnn_data_free(data[i]);
    }
    cnn_free(net);
    CHECK(!foreign && !held, "%d arrays of the host were read, %lu bytes are left", foreign, (unsigned long)held);
}

/* What stays as it is goes to the backend once: in the second epoch its memory is what it was after the first. */
static void test_constant_data(void)
{
    static unsigned char pixels[SAMPLES * VALUES];
    static int labels[SAMPLES];
    cnn_data *data;
    cnn_net *net = new_net(&tables[table_count - 1]);
    size_t first;
    int i;
    for (i = 0; i < SAMPLES * VALUES; i++) pixels[i] = (unsigned char)(127 + 120 * drawn(9, (size_t)i));
    for (i = 0; i < SAMPLES; i++) labels[i] = i % CLASSES;
    data = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = SIDE, .width = SIDE, .classes = CLASSES, .bytes = pixels,
                        .labels = labels, .constant = 1);
    cnn_fit(net, data, NULL, .epochs = 1, .batch_size = BATCH);
    first = held;
    cnn_fit(net, data, NULL, .epochs = 3, .batch_size = BATCH);
    CHECK(first && held == first, "%lu bytes after one epoch, %lu after three: %s", (unsigned long)first, (unsigned long)held, error_of(net));
    CHECK(net->resident_count == 2, "%d copies: of the samples and of the labels", net->resident_count);
    cnn_checkpoint_save(net, in_folder("bytes"));
    CHECK(held == first && cnn_checkpoint_load(net, in_folder("bytes")) && held == first, "a checkpoint keeps memory: %s", error_of(net));
    cnn_free(net);
    cnn_data_free(data);
    CHECK(!foreign && !held, "%d arrays of the host were read, %lu bytes are left", foreign, (unsigned long)held);
}

/* ---- kept weights ---- */

enum { KEPT_SIDE = 12, KEPT_VALUES = 4 * KEPT_SIDE * KEPT_SIDE, KEPT_SAMPLES = 40 };

static cnn_net *winograd_net(void)          /* two convolutions by Winograd's algorithm; the second with a normalisation folded in */
{
    cnn_net *net = cnn_new(4, KEPT_SIDE, KEPT_SIDE);
    cnn_conv2d(net, .out_channels = 8, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_conv2d(net, .out_channels = 8, .kernel_size = 5, .padding = 2, .groups = 2);
    cnn_batch_norm2d(net, 0);
    cnn_flatten(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adam(net, .lr = .05f);
    return net;
}

/* Predictions have the bits of a new network with the same weights, for few samples and for many, again and again. */
static void check_kept(cnn_net *net, const float *x, const char *when)
{
    static const int counts[] = { 1, KEPT_SAMPLES, 1, 1 };
    static float y[KEPT_SAMPLES * CLASSES], fresh[KEPT_SAMPLES * CLASSES];
    const cnn__simd_context *simd;
    size_t size = cnn_save_memory(net, ".safetensors", NULL, 0), i;
    void *bytes = malloc(size);
    int k;
    CHECK(bytes && cnn_save_memory(net, ".safetensors", bytes, size) == size, "%s: %s", when, error_of(net));
    for (i = 0; i < sizeof counts / sizeof *counts; i++) {
        cnn_net *other = winograd_net();
        cnn_load_memory(other, bytes, size);
        cnn_predict(net, y, x, counts[i]);
        cnn_predict(other, fresh, x, counts[i]);
        CHECK(!memcmp(y, fresh, sizeof *y * (size_t)(counts[i] * CLASSES)), "%s, %d samples: other bits than a new network's",
              when, counts[i]);
        cnn_free(other);
    }
    simd = (const cnn__simd_context *)net->backend.context;
    CHECK(!cnn_error(net), "%s: %s", when, error_of(net));
    CHECK(simd->kept_count == 2, "%s: the weights of %d convolutions are kept", when, simd->kept_count);
    for (k = 0; k < simd->kept_count; k++) CHECK(simd->kept[k].version == net->weight_version, "%s: an old version", when);
    free(bytes);
}

static float first_u(const cnn_net *net)    /* of the first convolution, which has no groups */
{
    const cnn__simd_context *simd = (const cnn__simd_context *)net->backend.context;
    return simd->kept[simd->kept[0].groups == 1 ? 0 : 1].u[1];
}

static void test_kept(void)
{
    static float x[KEPT_SAMPLES * KEPT_VALUES], w[8 * 4 * 9];
    static int labels[KEPT_SAMPLES];
    cnn_net *net = winograd_net();
    cnn_data *data;
    cnn_loader *loader;
    cnn_batch batch;
    float kept_u;
    size_t i;
    int k;
    for (i = 0; i < sizeof x / sizeof *x; i++) x[i] = drawn(3, i);
    for (i = 0; i < sizeof w / sizeof *w; i++) w[i] = drawn(4, i);
    for (k = 0; k < KEPT_SAMPLES; k++) labels[k] = k % CLASSES;
    data = cnn_data_new(.count = KEPT_SAMPLES, .channels = 4, .height = KEPT_SIDE, .width = KEPT_SIDE, .classes = CLASSES,
                        .floats = x, .labels = labels);
    loader = cnn_loader_new(data, .batch_size = 20);
    check_kept(net, x, "at the beginning");
    kept_u = first_u(net);
    check_kept(net, x, "again");
    CHECK(first_u(net) == kept_u, "nothing has changed, and U has");
    cnn_set(net, cnn_key(net, 0), w, sizeof w / sizeof *w);
    check_kept(net, x, "after cnn_set");
    CHECK(first_u(net) != kept_u, "the weights have changed, and U has not");
    cnn_next(loader, &batch);
    cnn_forward(net, &batch);                              /* moves the running statistics, which are folded */
    cnn_cross_entropy(net, &batch);
    check_kept(net, x, "after a forward pass");
    cnn_zero_grad(net);
    cnn_backward(net);
    cnn_step(net);
    check_kept(net, x, "after a step");
    CHECK(cnn_checkpoint_save(net, in_folder("checkpoint")), "%s", error_of(net));
    cnn_fit(net, data, data, .epochs = 3, .batch_size = 20, .keep_best = 1);
    check_kept(net, x, "after cnn_fit");
    CHECK(cnn_checkpoint_load(net, in_folder("checkpoint")), "%s", error_of(net));
    check_kept(net, x, "after a checkpoint");
    cnn_loader_free(loader);
    cnn_data_free(data);
    cnn_free(net);
}

/* One picture and weights so many that their transforms are not kept: each piece makes its own, forward and on the way back
   to the input. */
enum { WIDE_SIDE = 16, WIDE_OUT = 128 };

static cnn_net *wide_net(const char *backend, int threads)
{
    cnn_net *net = cnn_new(4, WIDE_SIDE, WIDE_SIDE + 1);
    cnn_to(net, backend);
    cnn_set_num_threads(net, threads);
    cnn_conv2d(net, .out_channels = 80, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_conv2d(net, .out_channels = WIDE_OUT, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adam(net, .lr = 1e-3f);
    return net;
}

static void test_own_transforms(void)
{
    static const char *const backends[] = { "direct", "simd", "simd" };
    static float x[4 * WIDE_SIDE * (WIDE_SIDE + 1)], y[3][CLASSES], g[3][WIDE_OUT * 80 * 9], first[3][80 * 4 * 9];
    int label = 2, i;
    size_t k, n = 0, m = 0;
    for (k = 0; k < sizeof x / sizeof *x; k++) x[k] = drawn(7, k);
    for (i = 0; i < 3; i++) {
        cnn_net *net = wide_net(backends[i], i == 2 ? 3 : 1);
        cnn_data *data = cnn_data_new(.count = 1, .channels = 4, .height = WIDE_SIDE, .width = WIDE_SIDE + 1, .classes = CLASSES,
                                      .floats = x, .labels = &label);
        cnn_loader *loader = cnn_loader_new(data, .batch_size = 1);
        cnn_batch batch;
        cnn_predict(net, y[i], x, 1);
        cnn_next(loader, &batch);
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        n = cnn_get(net, "2.weight.grad", g[i], sizeof *g / sizeof **g);
        m = cnn_get(net, "0.weight.grad", first[i], sizeof *first / sizeof **first);
        CHECK(!cnn_error(net), "%s", error_of(net));
        if (i) {
            const cnn__isa *isa = cnn__isa_of(net->backend.context);
            cnn_conv2d_shape s = net->pass.ops[1].shapes.conv, back;
            cnn__cut cut;
            s.batch = s.pool.batch = 1;
            cut = cnn__choose_cut(&s, isa);
            CHECK(cnn__plan_cut(&cut, &s, isa, 2).own_u_size > 0, "forward, the pieces make none");
            if (!cnn__few_back(&s, isa, 2, &back)) { CHECK(0, "backward it is no forward pass"); return; }
            cut = cnn__choose_cut(&back, isa);
            CHECK(cnn__plan_cut(&cut, &back, isa, 2).own_u_size > 0, "backward, the pieces make none");
        }
        cnn_loader_free(loader);
        cnn_data_free(data);
        cnn_free(net);
    }
    CHECK(n == sizeof *g / sizeof **g && m == sizeof *first / sizeof **first, "%lu and %lu gradients", (unsigned long)n, (unsigned long)m);
    CHECK(test_distance(y[1], y[0], CLASSES, 1e-5, 1e-4) <= 1, "outputs differ from the textbook's");
    CHECK(test_distance(g[1], g[0], n, 1e-5, 1e-3) <= 1, "gradients of the second convolution differ");
    CHECK(test_distance(first[1], first[0], m, 1e-5, 1e-3) <= 1, "gradients of the first convolution differ");
    CHECK(!memcmp(y[1], y[2], sizeof *y) && !memcmp(g[1], g[2], sizeof *g) && !memcmp(first[1], first[2], sizeof *first), "other bits with 3 threads");
}

int main(void)
{
    static const char *const left[] = { "page.html", "net.safetensors", "net.pth", "checkpoint", "curves.svg", "curves.csv", "bytes",
                                        "bytes.safetensors" };
    size_t i;
    int k;
    list_tables();
    folder_make();
    nowhere = tmpfile();
    if (!nowhere) return 1;
    test_refilled();
    test_memory();
    test_looking();
    test_looking_in_fit();
    test_look_memory();
    test_summary();
    test_numbers();
    test_argmax();
    test_pool_nan();
    test_no_labels();
    for (k = 0; k < table_count; k++) test_entropy(&tables[k]);
    test_entropy_edges();
    test_bytes();
    test_constant_data();
    test_freed_data();
    test_kept();
    test_own_transforms();
    fclose(nowhere);
    for (i = 0; i < sizeof left / sizeof *left; i++) remove(in_folder(left[i]));
    folder_remove();
    return test_end("test_flow");
}
