/* test_fixtures.c - cnn.h against PyTorch: fixtures.bin has inputs and what PyTorch, in float64, makes of them. fixtures.py
   wrote it and describes it; no Python is needed here. Each case runs on both backends of the CPU, whose memory is the
   host's: that is how single operations, through cnn__ names of the implementation, take and give arrays.
       cc -O2 tests/test_fixtures.c -lm && ./a.out [tests/fixtures/fixtures.bin] */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "test.h"

/* ---- reading a case ---- */

typedef struct array { char name[32]; int ndim, dims[4]; size_t count; float *values; } array;

typedef struct fixture {
    char lines[16][256]; int line_count;    /* the kind and the input's shape; then a call a line             */
    array arrays[32]; int array_count;
} fixture;

static float read_float(FILE *file)         /* little-endian, on any machine */
{
    unsigned char b[4] = { 0xff, 0xff, 0xff, 0xff };       /* NaN if the file ends here, and NaN fails */
    uint32_t bits;
    float value;
    if (fread(b, 1, 4, file) != 4) memset(b, 0xff, 4);
    bits = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    memcpy(&value, &bits, 4);
    return value;
}

static int read_array(FILE *file, const char *line, array *a)
{
    int i;
    size_t at;
    a->values = NULL;
    a->ndim = sscanf(line, "array %31s %d %d %d %d", a->name, &a->dims[0], &a->dims[1], &a->dims[2], &a->dims[3]) - 1;
    a->count = 1;
    for (i = 0; i < a->ndim; i++) {
        if (a->dims[i] < 1 || a->dims[i] > 100000) return 0;
        a->count *= (size_t)a->dims[i];
    }
    if (a->ndim < 1 || a->count > 1000000) return 0;
    a->values = (float *)cnn__alloc(a->count, sizeof(float));      /* aligned, as backend memory is */
    for (at = 0; a->values && at < a->count; at++) a->values[at] = read_float(file);
    return a->values != NULL;
}

static int read_fixture(FILE *file, fixture *f)            /* 1, or 0 if there is no whole one */
{
    char line[256];
    f->line_count = f->array_count = 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strcmp(line, "end")) return f->line_count > 1;
        if (!strncmp(line, "array ", 6)) {
            if (f->array_count == 32 || !read_array(file, line, &f->arrays[f->array_count++])) return 0;
        } else {
            if (f->line_count == 16) return 0;
            strcpy(f->lines[f->line_count++], line);
        }
    }
    return 0;
}

static void free_fixture(fixture *f)
{
    while (f->array_count) cnn__free(f->arrays[--f->array_count].values);
}

static const array *find(const fixture *f, const char *name)
{
    int i;
    for (i = 0; i < f->array_count; i++) if (!strcmp(f->arrays[i].name, name)) return &f->arrays[i];
    return NULL;
}

/* ---- from lines to calls ---- */

static double option(const char *line, const char *name)   /* 0, which is the default, where it is not given */
{
    char pattern[40];
    const char *at;
    snprintf(pattern, sizeof pattern, " %s=", name);
    at = strstr(line, pattern);
    return at ? strtod(at + strlen(pattern), NULL) : 0;
}

static int number(const char *line, const char *name) { return (int)option(line, name); }
static float real(const char *line, const char *name) { return (float)option(line, name); }

static cnn_conv2d_options conv2d_options(const char *line)
{
    cnn_conv2d_options o = { 0 };
    o.out_channels = number(line, "out_channels");
    o.kernel_size = number(line, "kernel_size");
    o.kernel_height = number(line, "kernel_height");
    o.kernel_width = number(line, "kernel_width");
    o.stride = number(line, "stride");
    o.stride_height = number(line, "stride_height");
    o.stride_width = number(line, "stride_width");
    o.padding = strstr(line, " padding=same") ? CNN_SAME : number(line, "padding");
    o.padding_height = number(line, "padding_height");
    o.padding_width = number(line, "padding_width");
    o.dilation = number(line, "dilation");
    o.dilation_height = number(line, "dilation_height");
    o.dilation_width = number(line, "dilation_width");
    o.groups = number(line, "groups");
    o.padding_mode = strstr(line, "=replicate") ? CNN_REPLICATE : strstr(line, "=reflect") ? CNN_REFLECT
                   : strstr(line, "=circular") ? CNN_CIRCULAR : CNN_ZEROS;
    o.no_bias = number(line, "no_bias");
    return o;
}

static cnn_pool2d_options pool2d_options(const char *line)
{
    cnn_pool2d_options o = { 0 };
    o.kernel_size = number(line, "kernel_size");
    o.kernel_height = number(line, "kernel_height");
    o.kernel_width = number(line, "kernel_width");
    o.stride = number(line, "stride");
    o.stride_height = number(line, "stride_height");
    o.stride_width = number(line, "stride_width");
    o.padding = number(line, "padding");
    o.padding_height = number(line, "padding_height");
    o.padding_width = number(line, "padding_width");
    o.ceil_mode = number(line, "ceil_mode");
    o.exclude_padding = number(line, "exclude_padding");
    return o;
}

static cnn_batch_norm_options batch_norm_options(const char *line)
{
    cnn_batch_norm_options o = { 0 };
    o.eps = real(line, "eps");
    o.momentum = strstr(line, " momentum=zero") ? (float)CNN_ZERO : real(line, "momentum");
    o.no_affine = number(line, "no_affine");
    o.no_running_stats = number(line, "no_running_stats");
    return o;
}

static cnn_adam_options adam_options(const char *line)
{
    cnn_adam_options o = { 0 };
    o.lr = real(line, "lr");
    o.beta1 = real(line, "beta1");
    o.beta2 = real(line, "beta2");
    o.eps = real(line, "eps");
    o.weight_decay = real(line, "weight_decay");
    return o;
}

static void call(cnn_net *net, const char *line)
{
    char name[32] = "";
    sscanf(line, "%31s", name);
#define IS(call) (!strcmp(name, call))
    if (IS("conv2d")) cnn_conv2d_with(net, conv2d_options(line));
    else if (IS("conv1d")) cnn_conv1d_with(net, conv2d_options(line));
    else if (IS("max_pool2d")) cnn_max_pool2d_with(net, pool2d_options(line));
    else if (IS("avg_pool2d")) cnn_avg_pool2d_with(net, pool2d_options(line));
    else if (IS("global_avg_pool2d")) cnn_global_avg_pool2d(net);
    else if (IS("adaptive_avg_pool2d"))
        cnn_adaptive_avg_pool2d(net, .output_size = number(line, "output_size"), .output_height = number(line, "output_height"),
                                .output_width = number(line, "output_width"));
    else if (IS("zero_pad2d"))
        cnn_zero_pad2d(net, .padding = number(line, "padding"), .padding_left = number(line, "padding_left"),
                       .padding_right = number(line, "padding_right"), .padding_top = number(line, "padding_top"),
                       .padding_bottom = number(line, "padding_bottom"));
    else if (IS("prelu")) cnn_prelu(net, .num_parameters = number(line, "num_parameters"));
    else if (IS("gelu")) cnn_gelu(net);
    else if (IS("linear")) cnn_linear(net, .out_features = number(line, "out_features"), .no_bias = number(line, "no_bias"));
    else if (IS("batch_norm2d")) cnn_batch_norm2d_with(net, batch_norm_options(line));
    else if (IS("batch_norm1d")) cnn_batch_norm1d_with(net, batch_norm_options(line));
    else if (IS("relu")) cnn_relu(net);
    else if (IS("leaky_relu")) cnn_leaky_relu(net, .negative_slope = real(line, "negative_slope"));
    else if (IS("sigmoid")) cnn_sigmoid(net);
    else if (IS("tanh")) cnn_tanh(net);
    else if (IS("softmax")) cnn_softmax(net);
    else if (IS("flatten")) cnn_flatten(net);
    else if (IS("sgd")) cnn_sgd(net, .lr = real(line, "lr"), .momentum = real(line, "momentum"),
                                .weight_decay = real(line, "weight_decay"), .nesterov = number(line, "nesterov"));
    else if (IS("adam")) cnn_adam_with(net, adam_options(line));
    else if (IS("adamw")) cnn_adamw_with(net, adam_options(line));
    else if (IS("step_lr")) cnn_step_lr(net, .step_size = number(line, "step_size"), .gamma = real(line, "gamma"));
    else if (IS("cosine_lr")) cnn_cosine_lr(net, .t_max = number(line, "t_max"), .eta_min = real(line, "eta_min"));
    else if (IS("one_cycle_lr")) cnn_one_cycle_lr(net, .max_lr = real(line, "max_lr"), .total_steps = number(line, "total_steps"),
                                                  .pct_start = real(line, "pct_start"), .div_factor = real(line, "div_factor"),
                                                  .final_div_factor = real(line, "final_div_factor"));
    else CHECK(0, "%s is no call that this test knows", name);
#undef IS
}

/* ---- one case on one backend ---- */

enum { MOST = 64 };                         /* samples in a batch */

typedef struct kind kind;
typedef struct trial { const fixture *f; kind *k; const char *backend; cnn_net *net; int batch; } trial;

struct kind {
    const char *name;
    double tolerance;                       /* |cnn.h - PyTorch| <= tolerance (1 + |PyTorch|)                 */
    void (*run)(const trial *t);
    int cases; double worst;
};

static void compare(const trial *t, const char *name, const float *got, double absolute, double relative)
{
    const array *a = find(t->f, name);
    double distance = a ? test_distance(got, a->values, a->count, absolute, relative) : HUGE_VAL;
    int i;
    if (distance > t->k->worst) t->k->worst = distance;
    CHECK(distance <= 1, "%s: %s is %.3g times the tolerance away from PyTorch's", t->backend, name, distance);
    for (i = 0; !(distance <= 1) && i < t->f->line_count; i++) printf("    %s\n", t->f->lines[i]);
}

static void check(const trial *t, const char *name, const float *got, double tolerance) { compare(t, name, got, tolerance, tolerance); }

static float *like(const trial *t, const char *name)       /* room for an array's values, all NaN; cnn__free */
{
    const array *a = find(t->f, name);
    float *values = a ? (float *)cnn__alloc(a->count, sizeof(float)) : NULL;
    if (values) memset(values, 0xff, a->count * sizeof(float));
    return values;
}

static const float *given(const trial *t, const char *name) { return find(t->f, name)->values; }

static int same_size(const array *a, int batch, cnn__dims d)
{
    return a->dims[0] == batch && a->dims[1] == d.channels && (a->ndim == 2 || (a->dims[2] == d.height && a->dims[3] == d.width));
}

/* The parameters' gradients. Backward runs twice, the second time without dx, since it must add: they have doubled. */
static void check_backward(const trial *t, cnn__op *op, float *dx, const char *suffix)
{
    const char *key;
    int parameters = cnn_key(t->net, 0) != NULL, pass, i;
    size_t n;
    cnn_zero_grad(t->net);
    for (pass = 1; pass <= 1 + parameters; pass++) {
        op->dx[0] = pass == 1 ? dx : NULL;
        op->dy = (float *)given(t, "dy");
        cnn__op_backward(t->net, op, t->batch);
        for (i = 0; (key = cnn_key(t->net, i)) != NULL; i++) {
            char name[64];
            float *gradient = like(t, key);
            snprintf(name, sizeof name, "%.50s.grad", key);
            cnn_get(t->net, name, gradient, find(t->f, key)->count);
            for (n = 0; n < find(t->f, key)->count; n++) gradient[n] /= (float)pass;
            strcat(name, suffix);
            check(t, name, gradient, 5 * t->k->tolerance);
            cnn__free(gradient);
        }
    }
}

/* What forward and backward of the case's one operation should give: y, dx, and the gradients of its parameters. */
static void run_operation(const trial *t)
{
    float *y = like(t, "y"), *dx = like(t, "dx");
    const float *x = given(t, "x");
    cnn__op *op = cnn__reserve(t->net, t->batch) ? t->net->pass.ops : NULL;
    int fits = op && same_size(find(t->f, "y"), t->batch, t->net->layers[op->last].out);
    CHECK(fits && t->net->op_count == 1, "%s: y has another size than PyTorch's, or takes %d operations: %s", t->backend, t->net->op_count,
          t->f->lines[t->f->line_count - 1]);
    if (fits) {
        op->x[0] = x;
        op->y = y;
        unsigned char *index = op->index;
        op->index = NULL;                                       /* as when only predictions are wanted */
        cnn__op_forward(t->net, op, t->batch);
        check(t, "y", y, t->k->tolerance);
        op->index = index;
        cnn__op_forward(t->net, op, t->batch);
        check(t, "y", y, t->k->tolerance);
        check_backward(t, op, dx, "");
        check(t, "dx", dx, t->k->tolerance);
    }
    cnn__free(y);
    cnn__free(dx);
}

/* Three batches in training. The last one's y, dx and gradients, and the running statistics; then the same in evaluation. */
static void run_batch_norm(const trial *t)
{
    float *y = like(t, "y"), *dx = like(t, "dx");
    size_t values = find(t->f, "y")->count;
    cnn__op *op = cnn__reserve(t->net, t->batch) ? t->net->pass.ops : NULL;
    int pass, i;
    CHECK(op && t->net->op_count == 1, "%s: %d operations, not one", t->backend, t->net->op_count);
    for (pass = 0; op && pass < 4; pass++) {
        const char *suffix = pass == 3 ? "_eval" : "";
        char name[64];
        t->net->pass.evaluating = pass == 3;
        op->x[0] = given(t, "x") + values * (size_t)(pass < 3 ? pass : 2);
        op->y = y;
        cnn__op_forward(t->net, op, t->batch);
        if (pass < 2) continue;
        snprintf(name, sizeof name, "y%s", suffix);
        check(t, name, y, t->k->tolerance);
        check_backward(t, op, dx, suffix);
        snprintf(name, sizeof name, "dx%s", suffix);
        check(t, name, dx, t->k->tolerance);
    }
    CHECK(t->net->buffer_count == 0 || t->net->buffer_count == 3, "%d buffers", t->net->buffer_count);
    for (i = 0; i < t->net->buffer_count; i++) {
        float *buffer = like(t, t->net->buffers[i].key);
        cnn_get(t->net, t->net->buffers[i].key, buffer, t->net->buffers[i].count);
        check(t, t->net->buffers[i].key, buffer, t->k->tolerance);
        cnn__free(buffer);
    }
    cnn__free(y);
    cnn__free(dx);
}

static void run_loss(const trial *t)        /* the network hands its input on: it is the logits */
{
    const array *x = find(t->f, "x"), *labels = find(t->f, "labels"), *targets = find(t->f, "targets");
    int order[MOST], label[MOST], classes = x->dims[1], i;
    float loss, correct;
    cnn_batch batch;
    for (i = 0; i < t->batch; i++) {
        order[i] = i;
        label[i] = labels ? (int)labels->values[i] : 0;
    }
    batch.data = cnn_data_new(.count = t->batch, .channels = classes, .height = 1, .width = 1, .floats = x->values,
                              .labels = labels ? label : NULL, .classes = classes,
                              .targets = targets ? targets->values : NULL, .outputs = classes);
    batch.order = order;
    batch.size = t->batch;
    cnn_forward(t->net, &batch);
    if (!strcmp(t->k->name, "mse")) cnn_mse_loss(t->net, &batch);
    else cnn_cross_entropy(t->net, &batch);
    loss = cnn_loss(t->net);
    correct = (float)cnn_correct(t->net);
    check(t, "loss", &loss, t->k->tolerance);
    check(t, "correct", &correct, t->k->tolerance);
    if (!cnn_error(t->net)) check(t, "dx", t->net->pass.dloss, t->k->tolerance);
    cnn_data_free((cnn_data *)batch.data);
}

/* Each step: the learning rate, clipping, and the parameters afterwards. The network's parameters or gradients, one tensor
   after the other, are a row of the arrays. */
static void copy_row(const trial *t, float *row, float *block, int to_block)
{
    int i;
    for (i = 0; i < t->net->tensor_count; row += t->net->tensors[i++].count) {
        float *tensor = block + t->net->tensors[i].offset;
        memcpy(to_block ? tensor : row, to_block ? row : tensor, sizeof *row * t->net->tensors[i].count);
    }
}

static void run_optimizer(const trial *t)
{
    int steps = find(t->f, "lr")->dims[0], row = find(t->f, "gradients")->dims[1], step;
    float max_norm = real(t->f->lines[0], "max_norm");
    float *lr = like(t, "lr"), *norms = like(t, "norms"), *clipped = like(t, "clipped"), *parameters = like(t, "parameters");
    for (step = 0; step < steps; step++) {
        lr[step] = cnn_lr(t->net);
        copy_row(t, find(t->f, "gradients")->values + step * row, t->net->pass.gradients, 1);
        if (max_norm > 0) {
            norms[step] = cnn_clip_grad_norm(t->net, max_norm);
            copy_row(t, clipped + step * row, t->net->pass.gradients, 0);
        }
        cnn_step(t->net);
        copy_row(t, parameters + step * row, t->net->parameters, 0);
        if (t->net->schedule) cnn_scheduler_step(t->net);
    }
    compare(t, "lr", lr, 1e-12, 5e-7);                     /* relative: it may be small */
    if (max_norm > 0) {
        check(t, "norms", norms, t->k->tolerance);
        check(t, "clipped", clipped, t->k->tolerance);
    }
    check(t, "parameters", parameters, t->k->tolerance);
    cnn__free(lr);
    cnn__free(norms);
    cnn__free(clipped);
    cnn__free(parameters);
}

/* ---- a whole network; fixtures.py has the same formulas ---- */

static uint32_t state;

static uint32_t draw(void)                  /* 24 random bits */
{
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static void draw_parameters(cnn_net *net)   /* within the largest power of two that is at most sqrt(6 / fan_in) */
{
    const char *key;
    int i;
    size_t n, fan_in = 1;
    for (i = 0; (key = cnn_key(net, i)) != NULL; i++) {
        int shape[4], ndim = cnn_shape(net, key, shape);
        size_t count = cnn_get(net, key, NULL, 0);
        float *values = (float *)cnn__alloc(count, sizeof *values), bound = 1;
        if (ndim > 1) fan_in = count / (size_t)shape[0];   /* a bias has its weight's */
        while (bound * bound * (float)fan_in > 6) bound /= 2;
        for (n = 0; n < count; n++) values[n] = ((float)draw() / 8388608 - 1) * bound;
        cnn_set(net, key, values, count);
        cnn__free(values);
    }
}

static void draw_image(unsigned char *pixel, int label)    /* stripes whose direction tells the label, and noise */
{
    int row, column;
    for (row = 0; row < 28; row++)
        for (column = 0; column < 28; column++)
            *pixel++ = (unsigned char)((row * label + column * (9 - label)) / 8 % 2 * 128 + (int)(draw() >> 17));
}

/* of each tensor: its length, and the sums of every eighth value */
static void check_digests(const trial *t, const char *suffix, double tolerance)
{
    int i;
    size_t n;
    for (i = 0; i < t->net->state_count; i++) {
        const char *key = t->net->state[i]->key;           /* the buffers, too: gradients have none */
        size_t count = cnn_get(t->net, key, NULL, 0);
        float *values = (float *)cnn__alloc(count, sizeof *values), digest[9];
        double squares = 0, sums[8] = { 0 };
        char name[64];
        snprintf(name, sizeof name, "%.50s%s", key, suffix);
        if (*suffix && t->net->state[i]->offset >= t->net->parameter_count) { cnn__free(values); continue; }
        cnn_get(t->net, name, values, count);
        for (n = 0; n < count; n++) {
            squares += (double)values[n] * values[n];
            sums[n % 8] += values[n];
        }
        digest[0] = (float)sqrt(squares);
        for (n = 0; n < 8; n++) digest[1 + n] = (float)sums[n];
        check(t, name, digest, tolerance);
        cnn__free(values);
    }
}

static void run_lenet(const trial *t)
{
    enum { STEPS = 20 };
    static unsigned char images[STEPS * MOST * 784];
    static int labels[STEPS * MOST];
    float losses[STEPS] = { 0 };
    int count = STEPS * t->batch, step, i;
    cnn_data *data;
    cnn_loader *loader;
    cnn_batch batch;
    state = 1;
    draw_parameters(t->net);
    for (i = 0; i < count; i++) draw_image(images + 784 * i, labels[i] = i % 10);
    data = cnn_data_new(.count = count, .channels = 1, .height = 28, .width = 28, .bytes = images, .labels = labels, .classes = 10);
    loader = cnn_loader_new(data, .batch_size = t->batch);
    for (step = 0; step < STEPS && cnn_next(loader, &batch); step++) {
        cnn_forward(t->net, &batch);
        cnn_cross_entropy(t->net, &batch);
        losses[step] = cnn_loss(t->net);
        cnn_zero_grad(t->net);
        cnn_backward(t->net);
        if (step == 0) check_digests(t, ".grad", 3 * t->k->tolerance);
        cnn_step(t->net);
    }
    CHECK(step == STEPS, "only %d steps", step);
    check(t, "losses", losses, 100 * t->k->tolerance);
    check_digests(t, "", 500 * t->k->tolerance);
    cnn_loader_free(loader);
    cnn_data_free(data);
}

/* ---- dropout: its masks are not PyTorch's, but they must have the properties of masks ---- */

static int within_6_sigma(double count, double n, double p) { return fabs(count - n * p) <= 6 * sqrt(n * p * (1 - p)); }

static void test_dropout(const char *backend, float p)
{
    enum { BATCH = 3, N = BATCH * 7 * 61 * 47 };
    static float x[N], y[4][N], dx[N];      /* passes 1 and 2 of layer 0, pass 2 of layer 1, evaluation */
    cnn_net *net = cnn_new(7, 61, 47);
    int order[BATCH] = { 0, 1, 2 }, labels[BATCH] = { 0 }, kept = 0, wrong = 0, masks_differ = 0, layers_differ = 0, i;
    cnn_data *data = cnn_data_new(.count = BATCH, .channels = 7, .height = 61, .width = 47, .floats = x, .labels = labels, .classes = 1);
    cnn_batch batch;
    batch.data = data;
    batch.order = order;
    batch.size = BATCH;
    for (i = 0; i < N; i++) x[i] = 1 + (float)(i % 100);
    cnn_to(net, backend);
    cnn_dropout(net, .p = p);
    cnn_dropout(net, .p = p);
    cnn_forward(net, &batch);
    cnn_get(net, "0", y[0], N);
    net->pass.ops[0].dx[0] = dx;
    net->pass.ops[0].dy = x;
    cnn__op_backward(net, &net->pass.ops[0], BATCH);
    cnn_forward(net, &batch);
    cnn_get(net, "0", y[1], N);
    cnn_get(net, "1", y[2], N);
    cnn_eval(net);
    cnn_forward(net, &batch);
    cnn_get(net, "1", y[3], N);
    for (i = 0; i < N; i++) {
        float grown = (float)(x[i] / (1.0 - p));
        kept += y[0][i] != 0;
        wrong += !(y[0][i] == 0 || fabsf(y[0][i] - grown) <= grown * 2e-7f);       /* two roundings */
        masks_differ += (y[0][i] != 0) != (y[1][i] != 0);
        layers_differ += y[1][i] != 0 && y[2][i] == 0;
    }
    CHECK(!cnn_error(net), "%s", cnn_error(net));
    CHECK(wrong == 0, "%s: dropout %g: %d values are neither 0 nor x / (1 - p)", backend, p, wrong);
    CHECK(within_6_sigma(kept, N, 1 - p), "%s: dropout %g keeps %d of %d", backend, p, kept, N);
    CHECK(!memcmp(dx, y[0], sizeof dx), "%s: dropout %g: backward uses another mask", backend, p);
    CHECK(within_6_sigma(masks_differ, N, 2 * p * (1 - p)), "%s: dropout %g: the next pass has a mask that depends on the last", backend, p);
    CHECK(within_6_sigma(layers_differ, N, p * (1 - p)), "%s: dropout %g: the next layer has a mask that depends on this one's", backend, p);
    CHECK(!memcmp(y[3], x, sizeof x), "%s: dropout %g changes values in evaluation", backend, p);
    cnn_free(net);
    cnn_data_free(data);
}

/* ---- all of them ---- */

/* Tolerances: about 10 times the worst seen. A float32 is rounded by up to 6e-8 of its size, once here and once in the file. */
static kind kinds[] = {
    { "convolution",   1e-5, run_operation, 0, 0 },        /* float sums of up to 297 products; gradients, of up to 1680: 5 times as much */
    { "pooling",       2e-6, run_operation, 0, 0 },        /* max is exact; dx: a float sum over up to 20 windows */
    { "prelu",         2e-6, run_operation, 0, 0 },        /* da: a sum in double of up to 185 products */
    { "activation",    2e-6, run_operation, 0, 0 },        /* computed in double; dx begins with the rounded y */
    { "linear",        5e-6, run_operation, 0, 0 },        /* float sums of up to 130 products; gradients as above */
    { "chain",         5e-6, run_operation, 0, 0 },        /* float sums of up to 27 products, and what they grow to after activation */
    { "cross_entropy", 2e-7, run_loss,      0, 0 },        /* computed in double: the last bit of a float */
    { "mse",           2e-7, run_loss,      0, 0 },
    { "optimizer",     3e-6, run_optimizer, 0, 0 },        /* up to 20 steps, each rounded */
    { "batch_norm",    1e-5, run_batch_norm, 0, 0 },       /* float sums of up to 1,640 values; one mean is 15 deviations from 0 */
    { "normalised",    2e-6, run_lenet,     0, 0 },        /* as lenet, with running statistics */
    { "lenet",         2e-6, run_lenet,     0, 0 },        /* The first gradients: 3 times as much, for long sums. Then rounding
                                                              has its say: losses, 100 times (a ReLU that it decides moved them by
                                                              2e-4, from other starts), and parameters, 500 times (Adam goes 1e-4 a
                                                              step even where a gradient is nothing but rounding) */
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void set_parameters(const trial *t)
{
    const char *key;
    int i, d;
    for (i = 0; (key = cnn_key(t->net, i)) != NULL; i++) {
        const array *a = find(t->f, key);
        int shape[4], ndim = cnn_shape(t->net, key, shape), same = a && ndim == a->ndim;
        for (d = 0; same && d < ndim; d++) same = shape[d] == a->dims[d];
        CHECK(same, "%s: %s has another shape than PyTorch's", t->f->lines[1], key);
        if (same) cnn_set(t->net, key, a->values, a->count);
    }
}

static void run(const fixture *f, const char *backend)
{
    const char *shape = f->lines[0];
    char name[32] = "";
    int i;
    trial t;
    sscanf(shape, "case %31s", name);
    for (i = 0; i < KINDS && strcmp(name, kinds[i].name); i++) continue;
    t.batch = number(shape, "batch");
    if (i == KINDS || t.batch < 1 || t.batch > MOST) {
        CHECK(0, "%s: is no kind of case that this test knows, or its batch is too large", shape);
        return;
    }
    t.f = f;
    t.k = &kinds[i];
    t.backend = backend;
    t.net = cnn_new(number(shape, "channels"), number(shape, "height"), number(shape, "width"));
    cnn_to(t.net, backend);
    for (i = 1; i < f->line_count; i++) call(t.net, f->lines[i]);
    if (t.k->run != run_lenet) set_parameters(&t);
    if (!cnn_error(t.net)) t.k->run(&t);
    CHECK(!cnn_error(t.net), "%s: %s: %s", backend, f->lines[1], cnn_error(t.net));
    t.k->cases++;
    cnn_free(t.net);
}

int main(int argc, char **argv)
{
    static fixture f;
    const char *path = argc > 1 ? argv[1] : "tests/fixtures/fixtures.bin";
    FILE *file = fopen(path, "rb");
    char line[64] = "";
    int cases = 0, n = 0, i;
    if (file && fgets(line, sizeof line, file)) sscanf(line, "cases %d", &cases);
    for (; file && n < cases && read_fixture(file, &f); n++) {
        run(&f, "direct");
        run(&f, "simd");
        free_fixture(&f);
    }
    free_fixture(&f);                                      /* what was read of a broken one */
    CHECK(cases > 0 && n == cases && fgetc(file) == EOF, "%s: cannot be read, or not to its end: %d of %d cases", path, n, cases);
    if (file) fclose(file);
    for (i = 0; i < KINDS; i++) {
        CHECK(kinds[i].cases > 0, "no case of %s", kinds[i].name);
        printf("    %-13s  %3d cases, the worst at %.2f of the tolerance\n", kinds[i].name, kinds[i].cases, kinds[i].worst);
    }
    test_dropout("direct", 0.25f);
    test_dropout("direct", 0.5f);
    test_dropout("simd", 0.25f);
    test_dropout("simd", 0.5f);
    return test_end("fixtures");
}
