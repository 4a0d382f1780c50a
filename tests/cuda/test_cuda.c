/* test_cuda.c - what the backend `cuda` does beyond single operations (those are in test_backends): recorded steps, errors.
   Linked with cnn_cuda.o for a GPU, or with cnn_cuda.cu compiled through cuda_shim.h.

   1. A replayed step sees what has changed: counters, labels, rate.
   2. A network trained by recorded steps has the same bits as one trained kernel by kernel, and as a second run; it stays
      close to `direct`. Rate, batch size and clipping change on the way, and evaluation comes in between. So does one that
      the naive kernels train.
   3. Nothing is launched outside of recorded steps, and the host waits and sends a few times an epoch, whatever cnn_fit is
      asked for: a step of the graph is all that a step costs.
   4. TF32 is calculated in where it is allowed and nowhere else, also where that changes from step to step.
   5. Errors: no device, a kernel that does not start or breaks down, no memory, too large a batch. Each is one sentence that
      names the right kernel, and nothing exits; after the last two a program can go on. */
#define _POSIX_C_SOURCE 200112L             /* setenv */
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../test.h"

typedef enum tf32 { NEVER, ALWAYS, BY_TURNS } tf32;        /* cnn_allow_tf32 */
enum { SAMPLES = 44, BATCH = 8, CLASSES = 5, WIDTH = 12 };     /* 44 = 5 * 8 + 4: the last batch is smaller */

static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

/* In the environment of the kernels: CNN_CUDA_CHECK, and what the shim knows. NULL takes it away. */
static void set(const char *name, const char *value)
{
#ifdef _WIN32
    _putenv_s(name, value ? value : "");
#else
    if (value) setenv(name, value, 1);
    else unsetenv(name);
#endif
}

/* Three steps of softmax and SGD on two rows, by the table alone; from the second on they are replayed. */
static void test_replay(void)
{
    enum { N = 2, K = 3 };
    const cnn_backend *table[2] = { cnn_find_backend("direct"), cnn_find_backend("cuda") };
    static const int labels[3][N] = { { 0, 2 }, { 1, 1 }, { 2, 0 } };
    float w[2][N * K];
    cnn_counters end[2];
    int side, step;
    for (side = 0; side < 2; side++) {
        cnn_backend b = *table[side];
        char sentence[256] = "";
        void *context = b.open ? b.open(1, sentence, sizeof sentence) : NULL;
        cnn_span *spans = (cnn_span *)b.alloc(context, sizeof(cnn_span)), span;
        float *weight = (float *)b.alloc(context, sizeof w[0]), *gradient = (float *)b.alloc(context, sizeof w[0]);
        float *dropped = (float *)b.alloc(context, sizeof w[0]);
        int *label = (int *)b.alloc(context, sizeof labels[0]);
        cnn_counters *counters = (cnn_counters *)b.alloc(context, sizeof *counters), c;
        cnn_sgd_options sgd;
        cnn_cross_entropy_options plain;
        memset(&plain, 0, sizeof plain);
        plain.ignore_index = -100;
        memset(&sgd, 0, sizeof sgd);
        memset(&c, 0, sizeof c);
        c.seed = 9;
        b.zero(context, weight, sizeof w[0]);
        b.upload(context, counters, &c, sizeof c);
        memset(&span, 0, sizeof span);
        span.count = N * K;
        span.trainable = 1;
        b.upload(context, spans, &span, sizeof span);
        for (step = 0; step < 3; step++) {
            b.download(context, &c, counters, sizeof c);
            c.lr = 1.0 + step;
            b.upload(context, counters, &c, sizeof c);
            if (b.step_begin) b.step_begin(context);
            b.upload(context, label, labels[step], sizeof labels[step]);
            b.next_batch(context, counters, N, 1);
            b.softmax_cross_entropy(context, counters, &plain, gradient, weight, NULL, label, N, K);
            b.dropout_forward(context, counters, 4, 0.5f, dropped, gradient, N * K);
            b.sgd_step(context, counters, &sgd, weight, NULL, dropped, N * K, spans, 1);
            if (b.step_end) b.step_end(context);
        }
        b.download(context, w[side], weight, sizeof w[side]);
        b.download(context, &end[side], counters, sizeof end[side]);
        CHECK(!b.sync || !b.sync(context), "%s: %s", b.name, b.sync(context));
        b.free(context, weight); b.free(context, gradient); b.free(context, dropped); b.free(context, label);
        b.download(context, &span, spans, sizeof span);
        CHECK(span.step == 3, "%s: replayed steps: the parameter counts %d", b.name, (int)span.step);
        b.free(context, counters); b.free(context, spans);
        if (b.close) b.close(context);
    }
    CHECK(test_distance(w[1], w[0], N * K, 1e-6, 1e-6) <= 1, "replayed steps: w[0] is %g, but by direct %g", w[1][0], w[0][0]);
    CHECK(end[1].step == 3 && end[1].pass == 3 && end[1].lr == 3 && end[1].seen == 3 * N,
          "replayed steps: the counters stand at step %d, pass %d, rate %g, %d seen", (int)end[1].step, (int)end[1].pass,
          end[1].lr, end[1].seen);
    CHECK(fabs(end[1].loss_sum - end[0].loss_sum) < 1e-5, "replayed steps: the losses' sum is %g, but by direct %g",
          end[1].loss_sum, end[0].loss_sum);
}

static cnn_data *stripes(void)              /* bytes: class c has a bright row c, and noise */
{
    static unsigned char bytes[SAMPLES * 2 * WIDTH * WIDTH];
    static int labels[SAMPLES];
    cnn_data_options o;
    size_t i;
    memset(&o, 0, sizeof o);
    for (i = 0; i < SAMPLES; i++) labels[i] = (int)(i * 7 % CLASSES);
    for (i = 0; i < sizeof bytes; i++) {
        uint32_t r[4];
        cnn_random(r, 3, 0, 0, (uint32_t)i);
        bytes[i] = (unsigned char)(r[0] % 120 + (i / WIDTH % WIDTH == (size_t)labels[i / (2 * WIDTH * WIDTH)] ? 120 : 0));
    }
    o.count = SAMPLES; o.channels = 2; o.height = o.width = WIDTH; o.classes = CLASSES; o.bytes = bytes; o.labels = labels;
    o.constant = 1;
    return cnn_data_new_with(o);
}

static cnn_net *new_net(const char *backend)
{
    cnn_net *net = cnn_new(2, WIDTH, WIDTH);
    cnn_to(net, backend);
    cnn_manual_seed(net, 11);
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_dropout(net, .p = 0.2f);
    cnn_conv2d(net, .out_channels = 18, .kernel_size = 3, .padding = 1);        /* the one that TF32 is for */
    cnn_relu(net);
    cnn_conv2d(net, .out_channels = 8, .kernel_size = 3, .padding = 1, .padding_mode = CNN_REFLECT);
    cnn_tanh(net);
    cnn_flatten(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adam(net, .lr = 3e-3f);
    return net;
}

typedef struct outcome { float parameters[8000]; int count; float losses[3]; double test_loss; } outcome;

static outcome train(const char *backend, const cnn_data *data, tf32 when)
{
    static const char *const keys[8] = { "0.weight", "0.bias", "4.weight", "4.bias", "6.weight", "6.bias", "9.weight",
                                         "9.bias" };
    cnn_net *net = new_net(backend);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = BATCH, .shuffle = 1);
    outcome result;
    cnn_batch batch;
    int epoch, i, steps = 0;
    memset(&result, 0, sizeof result);
    for (epoch = 0; epoch < 3; epoch++) {
        while (cnn_next(loader, &batch)) {
            cnn_allow_tf32(net, when == ALWAYS || (when == BY_TURNS && steps % 2));
            cnn_forward(net, &batch);
            cnn_cross_entropy(net, &batch);
            cnn_zero_grad(net);
            cnn_backward(net);
            if (epoch == 2 && steps % 2) cnn_clip_grad_norm(net, 0.5f);
            cnn_step(net);
            steps++;
        }
        result.losses[epoch] = cnn_loss(net);
        result.test_loss = cnn_evaluate(net, data, 20, CNN_CROSS_ENTROPY).loss;
        cnn_set_lr(net, 1e-3f);
    }
    for (i = 0; i < 8; i++)
        result.count += (int)cnn_get(net, keys[i], result.parameters + result.count, 8000 - (size_t)result.count);
    CHECK(!cnn_error(net), "%s: %s", backend, error_of(net));
    CHECK(result.count > 2000, "%s: only %d parameters", backend, result.count);
    cnn_loader_free(loader);
    cnn_free(net);
    return result;
}

static outcome train_one_by_one(const cnn_data *data, tf32 when)       /* by cuda, kernel by kernel: nothing is recorded */
{
    outcome result;
    set("CNN_CUDA_CHECK", "1");
    result = train("cuda", data, when);
    set("CNN_CUDA_CHECK", NULL);
    return result;
}

static void check_close(const char *what, const outcome *a, const outcome *direct)
{
    double far = test_distance(a->parameters, direct->parameters, (size_t)direct->count, 2e-5, 1e-4);
    CHECK(far <= 1, "%s: after 18 steps the parameters are %g tolerances from those by direct", what, far);
    far = test_distance(a->losses, direct->losses, 3, 1e-5, 1e-5);
    CHECK(far <= 1 && fabs(a->test_loss - direct->test_loss) <= 1e-5,
          "%s: the losses are %g tolerances from those by direct", what, far);
}

static void test_training(void)
{
    cnn_data *data = stripes();
    static outcome direct, recorded, again, checked, naive;
    direct = train("direct", data, NEVER);
    recorded = train("cuda", data, NEVER);
    again = train("cuda", data, NEVER);
    checked = train_one_by_one(data, NEVER);
    naive = train("cuda_naive", data, NEVER);
    check_close("recorded steps", &recorded, &direct);
    check_close("naive kernels", &naive, &direct);
    CHECK(!memcmp(&recorded, &again, sizeof recorded), "two runs end with other bits");
    CHECK(!memcmp(&recorded, &checked, sizeof recorded), "recorded steps end with other bits than launches one by one");
    cnn_data_free(data);
}

static void test_tf32(void)
{
    cnn_data *data = stripes();
    static outcome direct, float32, always, by_turns, checked;
    cnn_net *net = new_net("cuda");
    cnn_loader *loader = cnn_loader_new(data, .batch_size = BATCH);
    cnn_gradcheck_result check;
    cnn_batch batch;
    int i;
    direct = train("direct", data, NEVER);
    float32 = train("cuda", data, NEVER);
    always = train("cuda", data, ALWAYS);
    by_turns = train("cuda", data, BY_TURNS);
    checked = train_one_by_one(data, BY_TURNS);
    for (i = 0; i < 3; i++)
        CHECK(fabsf(always.losses[i] / direct.losses[i] - 1) <= 0.02f, "TF32: the loss is %g, but by direct %g",
              always.losses[i], direct.losses[i]);
    CHECK(memcmp(&always, &float32, sizeof always) && memcmp(&always, &by_turns, sizeof always)
          && memcmp(&float32, &by_turns, sizeof always), "TF32 never, always and by turns: two of them have the same bits");
    CHECK(!memcmp(&by_turns, &checked, sizeof by_turns),
          "TF32 by turns: recorded steps end with other bits than launches one by one");
    always = train("direct", data, ALWAYS);
    CHECK(!memcmp(&always, &direct, sizeof always), "TF32 allowed: direct, which has none, ends with other bits");
    cnn_allow_tf32(net, 1);
    cnn_next(loader, &batch);
    check = cnn_gradcheck(net, &batch, 20, NULL);
    CHECK(check.checked > 100 && !check.failed, "TF32 allowed: %d of %d gradients fail the check, the worst of %s",
          check.failed, check.checked, check.where);
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_data_free(data);
}

static void test_no_memory(void)
{
    const cnn_backend *b = cnn_find_backend("cuda");
    char sentence[256] = "";
    void *context = b->open(1, sentence, sizeof sentence);
    CHECK(!b->alloc(context, (size_t)1 << 50), "it has a petabyte");
    CHECK(!b->sync(context), "no memory counts as a kernel's fault: %s", b->sync(context));
    b->close(context);
}

static void test_too_large(void)            /* a batch with more columns than a kernel can count: said once, then smaller */
{
    const cnn_backend *b = cnn_find_backend("cuda");
    char sentence[256] = "";
    void *context = b->open(1, sentence, sizeof sentence);
    float *memory = (float *)b->alloc(context, 16 * sizeof(float)), y = 0;
    const float ones[16] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    cnn_conv2d_shape s;
    const char *said;
    memset(&s, 0, sizeof s);
    s.batch = 1 << 30; s.in_channels = s.out_channels = s.groups = 1;
    s.in_height = s.out_height = 4;
    s.in_width = s.out_width = s.kernel_height = s.kernel_width = 1;
    s.stride_height = s.stride_width = s.dilation_height = s.dilation_width = 1;
    b->upload(context, memory, ones, sizeof ones);
    b->conv2d_forward(context, &s, memory, NULL, memory + 4, memory + 8, NULL, memory + 12);
    said = b->sync(context);
    CHECK(said && strstr(said, "conv2d_forward: 4294967296 values are too many; use a smaller batch"),
          "2^30 images: %s", said ? said : "nothing");
    CHECK(!b->sync(context), "what was too large is told again: %s", b->sync(context));
    s.batch = 1;
    b->conv2d_forward(context, &s, memory, NULL, memory + 4, memory + 8, NULL, memory + 12);
    b->download(context, &y, memory, sizeof y);
    CHECK(!b->sync(context) && y == 1, "one image after too many: %g, %s", y, b->sync(context));
    b->free(context, memory);
    b->close(context);
}

#ifdef CUDA_ON_CPU
extern struct { long graphs, kernels, waits, uploads; } cuda_shim_count;

static void check_counts(cnn_net *net, const cnn_epoch *epoch, void *user)
{
    enum { STEPS = 15, TESTS = 3, MOST_WAITS = 10, UPLOADS = 4 };       /* 44 = 14 * 3 + 2 = 2 * 20 + 4 */
    long graphs = cuda_shim_count.graphs, kernels = cuda_shim_count.kernels, waits = cuda_shim_count.waits;
    long uploads = cuda_shim_count.uploads, rates = *(int *)user;          /* those that a schedule sends */
    if (epoch->epoch > 2)                   /* a list is recorded when it comes for the second time */
        CHECK(graphs == STEPS + TESTS && !kernels && waits <= MOST_WAITS,
              "epoch %d: %ld recorded steps in place of %d, %ld kernels outside of them, %ld waits; error: %s", epoch->epoch,
              graphs, STEPS + TESTS, kernels, waits, error_of(net));
    CHECK(epoch->epoch == 1 || uploads - rates == UPLOADS, "epoch %d: %ld uploads, %ld of them rates, in place of %d",
          epoch->epoch, uploads, rates, UPLOADS);          /* an order, and scores set to 0: for each data set */
    memset(&cuda_shim_count, 0, sizeof cuda_shim_count);
}

static void test_all_is_recorded(void)
{
    cnn_data *data = stripes();
    cnn_net *net = new_net("cuda");
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 4, .shuffle = 1);
    cnn_batch batch;
    int epoch, rates = 0;
    cnn_fit(net, data, data, .epochs = 3, .batch_size = 3, .test_batch_size = 20, .keep_last = 1, .each_epoch = check_counts,
            .user = &rates);
    CHECK(!cnn_error(net), "cnn_fit: %s", error_of(net));
    cnn_free(net);
    net = new_net("cuda");
    rates = 15;
    cnn_one_cycle_lr(net, .max_lr = 3e-3f, .total_steps = 60);
    cnn_fit(net, data, data, .epochs = 4, .batch_size = 3, .test_batch_size = 20, .clip_grad_norm = 0.5f, .keep_last = 1,
            .each_epoch = check_counts, .user = &rates);
    CHECK(!cnn_error(net), "cnn_fit: %s", error_of(net));
    for (epoch = 0; epoch < 2; epoch++) {
        memset(&cuda_shim_count, 0, sizeof cuda_shim_count);
        while (cnn_next(loader, &batch)) {
            cnn_forward(net, &batch);
            cnn_cross_entropy(net, &batch);
            cnn_zero_grad(net);
            cnn_backward(net);
            cnn_clip_grad_norm(net, 0.5f);                 /* has a result, for which the host waits */
            cnn_step(net);
        }
    }
    CHECK(cuda_shim_count.graphs == 2 * 11 && !cuda_shim_count.kernels,
          "11 steps whose gradients are clipped by hand: %ld graphs, not two a step, and %ld kernels outside of them",
          cuda_shim_count.graphs, cuda_shim_count.kernels);
    CHECK(cuda_shim_count.uploads <= 11 + 1, "11 steps by hand: %ld uploads, not one a step", cuda_shim_count.uploads);
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_data_free(data);
}

static void check_sentence(const char *variable, const char *value, const char *expected)
{
    cnn_data *data = stripes();
    cnn_net *net = new_net("cuda");
    set(variable, value);
    cnn_fit(net, data, NULL, .epochs = 1, .batch_size = BATCH);
    set(variable, NULL);
    CHECK(cnn_error(net) && strstr(cnn_error(net), expected), "%s: the network says: %s", variable, error_of(net));
    cnn_free(net);
    cnn_data_free(data);
}

static void test_errors(void)
{
    check_sentence("CUDA_SHIM_NO_DEVICE", "1",
                   "backend \"cuda\" cannot start: there is no NVIDIA driver or device; "
                   "CUDA says: no CUDA-capable device is detected");
    check_sentence("CUDA_SHIM_FAIL", "try_a_kernel", "the device runs no kernel of this program");
    check_sentence("CUDA_SHIM_FAIL", "conv2d_dz", "backend \"cuda\": conv2d_dz");
    check_sentence("CUDA_SHIM_FAIL", "adam_step", "backend \"cuda\": adam_step");
    check_sentence("CUDA_SHIM_FAULT", "adam_step", "backend \"cuda\": a recorded step or a kernel before it: an illegal");
    set("CNN_CUDA_CHECK", "1");
    check_sentence("CUDA_SHIM_FAULT", "conv2d_dz", "backend \"cuda\": conv2d_dz: an illegal memory access");
    check_sentence("CUDA_SHIM_FAIL", "adam_begin", "backend \"cuda\": adam_begin: invalid configuration");
    set("CNN_CUDA_CHECK", NULL);
}
#endif

int main(void)
{
    char sentence[256] = "";
    const cnn_backend *cuda = cnn_find_backend("cuda");
    void *context = cuda ? cuda->open(1, sentence, sizeof sentence) : NULL;
    setvbuf(stdout, NULL, _IONBF, 0);       /* so that nothing said is lost where a broken kernel ends the program */
    CHECK(cuda && cnn_find_backend("cuda_naive"), "linking cnn_cuda.o has not registered its tables");
    CHECK(context, "it does not start: %s", sentence);
    if (context) {
        cuda->close(context);
        test_replay();
        test_training();
        test_tf32();
        test_no_memory();
        test_too_large();
#ifdef CUDA_ON_CPU
        test_all_is_recorded();
        test_errors();
#endif
    }
    return test_end("test_cuda");
}
