/* test_learning.c - what is asked of training: options, optimizers that begin anew, schedules, freezing, early stopping.

   1. Every field of every options struct: 0 is the default, CNN_ZERO is zero, a float is finite.
   2. Calls that come a second time begin anew, or change nothing.
   3. Schedules go on from the rate that is set; numbers from PyTorch 2.
   4. Freezing, on every backend that there is; Adam's steps a parameter, numbers from PyTorch 2.
   5. Early stopping, and going on with it from a checkpoint. */
#define _POSIX_C_SOURCE 200112L
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

enum { SAMPLES = 24, CLASSES = 3, WIDTH = 6, MOST = 2000 };

static const char *said(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }
static int says(cnn_net *net, const char *words)           /* and is in order again */
{
    int found = cnn_error(net) && strstr(cnn_error(net), words);
    if (!found) printf("it says: %s\n", said(net));
    cnn_clear_error(net);
    return found;
}

/* ---- 1. options ---- */

typedef struct options {
    const char *name;
    const cnn__field *fields;
    size_t count, size, pointers;
    size_t pointer_at[8];
} options;

#define LIST(name, struct_name, fields) { name, fields, sizeof fields / sizeof *fields, sizeof(struct_name), 0, { 0 } }
static const options all_options[] = {
    LIST("conv2d", cnn_conv2d_options, cnn__conv2d_fields),
    LIST("pool2d", cnn_pool2d_options, cnn__pool2d_fields),
    LIST("adaptive_pool2d", cnn_adaptive_pool2d_options, cnn__adaptive_pool2d_fields),
    LIST("zero_pad2d", cnn_zero_pad2d_options, cnn__zero_pad2d_fields),
    LIST("prelu", cnn_prelu_options, cnn__prelu_fields),
    LIST("linear", cnn_linear_options, cnn__linear_fields),
    LIST("leaky_relu", cnn_leaky_relu_options, cnn__leaky_relu_fields),
    LIST("dropout", cnn_dropout_options, cnn__dropout_fields),
    LIST("loader", cnn_loader_options, cnn__loader_fields),
    LIST("sgd", cnn_sgd_options, cnn__sgd_fields),
    LIST("adam", cnn_adam_options, cnn__adam_fields),
    LIST("adamw", cnn_adam_options, cnn__adamw_fields),
    LIST("step_lr", cnn_step_lr_options, cnn__step_lr_fields),
    LIST("cosine_lr", cnn_cosine_lr_options, cnn__cosine_lr_fields),
    LIST("one_cycle_lr", cnn_one_cycle_lr_options, cnn__one_cycle_lr_fields),
    { "data", cnn__data_fields, sizeof cnn__data_fields / sizeof *cnn__data_fields, sizeof(cnn_data_options), 5,
      { offsetof(cnn_data_options, bytes), offsetof(cnn_data_options, floats), offsetof(cnn_data_options, labels),
        offsetof(cnn_data_options, targets), offsetof(cnn_data_options, class_names) } },
    { "images", cnn__image_fields, sizeof cnn__image_fields / sizeof *cnn__image_fields, sizeof(cnn_image_options), 1,
      { offsetof(cnn_image_options, progress) } },
    { "fit", cnn__fit_fields, sizeof cnn__fit_fields / sizeof *cnn__fit_fields, sizeof(cnn_fit_options), 6,
      { offsetof(cnn_fit_options, log), offsetof(cnn_fit_options, progress), offsetof(cnn_fit_options, doctor),
        offsetof(cnn_fit_options, each_epoch), offsetof(cnn_fit_options, interrupted), offsetof(cnn_fit_options, user) } },
    { "cross_entropy", cnn__cross_entropy_fields, sizeof cnn__cross_entropy_fields / sizeof *cnn__cross_entropy_fields,
      sizeof(cnn_cross_entropy_options), 1, { offsetof(cnn_cross_entropy_options, weight) } },
};

static size_t field_size(const cnn__field *f) { return f->type == 'i' ? sizeof(int) : f->type == 'f' ? sizeof(float) : sizeof(uint64_t); }

/* No field is forgotten: every byte belongs to one, or to a pointer, or lines one of those up. */
static void test_no_field_is_forgotten(const options *o)
{
    unsigned char owned[sizeof(cnn_fit_options) + 64] = { 0 };
    size_t k, i;
    for (k = 0; k < o->count; k++) memset(owned + o->fields[k].at, 1, field_size(&o->fields[k]));
    for (k = 0; k < o->pointers; k++) memset(owned + o->pointer_at[k], 1, sizeof(void *));
    for (i = 0; i < o->size; i++) {
        size_t end = i;
        while (end < o->size && !owned[end]) end++;
        if (end == i) continue;
        CHECK(end - i < sizeof(void *) && end % sizeof(void *) == 0 && (o->pointers || end == o->size || end == offsetof(cnn_loader_options, seed))
                  && i % sizeof(void *),
              "%s: bytes %d to %d belong to no field in the list", o->name, (int)i, (int)end);
        i = end;
    }
}

static void test_field(const options *o, const cnn__field *f)
{
    unsigned char bytes[sizeof(cnn_fit_options) + 64] = { 0 };
    cnn__text error;
    int k;
    error.s[0] = 0;
    if (f->type == 'i') {
        int *value = (int *)(void *)(bytes + f->at), *like = f->like >= 0 ? (int *)(void *)(bytes + f->like) : NULL;
        CHECK(cnn__options(bytes, o->fields, o->count, "here", &error), "%s", error.s);
        CHECK(*value == (like ? *like : (int)f->otherwise), "%s.%s: the default is %d", o->name, f->name, *value);
        memset(bytes, 0, sizeof bytes);
        if (like) {
            *like = 5;
            CHECK(cnn__options(bytes, o->fields, o->count, "here", &error) && *value == 5, "%s.%s is %d", o->name, f->name, *value);
        }
        *value = CNN_ZERO;
        CHECK(cnn__options(bytes, o->fields, o->count, "here", &error) && *value == 0, "%s.%s = CNN_ZERO is %d", o->name, f->name, *value);
        memset(bytes, 0, sizeof bytes);
        *value = 7;
        CHECK(cnn__options(bytes, o->fields, o->count, "here", &error) && *value == 7, "%s.%s = 7 is %d", o->name, f->name, *value);
    } else if (f->type == 'f') {
        static const float wrong[] = { NAN, INFINITY, -INFINITY };
        float *value = (float *)(void *)(bytes + f->at);
        CHECK(cnn__options(bytes, o->fields, o->count, "here", &error) && *value == (float)f->otherwise, "%s.%s: the default is %g",
              o->name, f->name, *value);
        *value = CNN_ZERO;
        CHECK(cnn__options(bytes, o->fields, o->count, "here", &error) && *value == 0, "%s.%s = CNN_ZERO is %g", o->name, f->name, *value);
        *value = 0.375f;
        CHECK(cnn__options(bytes, o->fields, o->count, "here", &error) && *value == 0.375f, "%s.%s = 0.375 is %g", o->name, f->name, *value);
        for (k = 0; k < 3; k++) {
            *value = wrong[k];
            error.s[0] = 0;
            CHECK(!cnn__options(bytes, o->fields, o->count, "here", &error) && strstr(error.s, f->name) && strstr(error.s, "here"),
                  "%s.%s = %g: \"%s\"", o->name, f->name, wrong[k], error.s);
        }
    } else {
        uint64_t *value = (uint64_t *)(void *)(bytes + f->at);
        *value = (uint64_t)(int64_t)CNN_ZERO;
        CHECK(cnn__options(bytes, o->fields, o->count, "here", &error) && *value == 0, "%s.%s = CNN_ZERO", o->name, f->name);
        *value = (uint64_t)-2;
        CHECK(cnn__options(bytes, o->fields, o->count, "here", &error) && *value == (uint64_t)-2, "%s.%s = 2^64 - 2", o->name, f->name);
    }
}

static cnn_net *flat_net(void)              /* 2 -> 1 -> 1, two parameters: 0.weight of two values, 1.weight of one */
{
    cnn_net *net = cnn_new(1, 1, 2);
    cnn_flatten(net);
    cnn_name(net, "a"); cnn_linear(net, .out_features = 1, .no_bias = 1);
    cnn_name(net, "b"); cnn_linear(net, .out_features = 1, .no_bias = 1);
    return net;
}

static void test_options(void)
{
    cnn_net *net = cnn_new(2, 8, 8);
    size_t i, k;
    int shape[4];
    CHECK((float)CNN_ZERO == -2147483648.0f && (int)(float)CNN_ZERO == CNN_ZERO, "CNN_ZERO is exact");
    for (i = 0; i < sizeof all_options / sizeof *all_options; i++) {
        test_no_field_is_forgotten(&all_options[i]);
        for (k = 0; k < all_options[i].count; k++) test_field(&all_options[i], &all_options[i].fields[k]);
    }
    /* and the calls use them */
    cnn_conv2d(net, .out_channels = 3, .kernel_size = 3, .padding = 1, .padding_height = CNN_ZERO);
    cnn_leaky_relu(net, .negative_slope = CNN_ZERO);
    cnn_leaky_relu(net, 0);
    cnn_dropout(net, .p = CNN_ZERO);
    cnn_max_pool2d(net, .kernel_size = 2, .kernel_width = 4);
    cnn_avg_pool2d(net, .kernel_size = 2, .stride = 1, .padding = CNN_ZERO);
    cnn_global_avg_pool2d(net);
    CHECK(cnn_shape(net, "0", shape) == 4 && shape[2] == 6 && shape[3] == 8, "%s: 3 x 3 with padding 0 x 1 gives %d x %d", said(net),
          shape[2], shape[3]);
    CHECK(net->layers[1].slope == 0 && net->layers[2].slope == 0.01f, "slopes %g %g", net->layers[1].slope, net->layers[2].slope);
    CHECK(net->layers[3].p == 0, "dropout %g", net->layers[3].p);
    CHECK(cnn_shape(net, "4", shape) == 4 && shape[2] == 3 && shape[3] == 2, "pooling: %d x %d", shape[2], shape[3]);
    CHECK(cnn_shape(net, "5", shape) == 4 && shape[2] == 2 && shape[3] == 1, "pooling: %d x %d", shape[2], shape[3]);
    CHECK(!cnn_error(net), "%s", said(net));
    cnn_free(net);
    net = cnn_new(2, 8, 8);
    cnn_dropout(net, .p = 0);
    CHECK(cnn_error(net) && strstr(cnn_error(net), "CNN_ZERO") && strstr(cnn_error(net), ".p"), "%s", said(net));
    cnn_free(net);
    net = cnn_new(2, 8, 8);
    cnn_max_pool2d(net, .kernel_size = 2, .stride = CNN_ZERO);
    CHECK(cnn_error(net) && strstr(cnn_error(net), "stride"), "a stride of 0: %s", said(net));
    cnn_free(net);
    net = cnn_new(2, 8, 8);
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 2, .stride = CNN_ZERO);
    CHECK(cnn_error(net) && strstr(cnn_error(net), "stride"), "a stride of 0: %s", said(net));
    cnn_free(net);
    net = flat_net();
    cnn_adamw(net, .lr = CNN_ZERO, .beta1 = CNN_ZERO, .weight_decay = CNN_ZERO);
    CHECK(cnn_lr(net) == 0 && net->adam.beta1 == 0 && net->adam.beta2 == 0.999f && net->adam.weight_decay == 0, "%s", said(net));
    cnn_adamw(net, 0);
    CHECK(cnn_lr(net) == 1e-3f && net->adam.beta1 == 0.9f && net->adam.weight_decay == 0.01f, "%s", said(net));
    cnn_step_lr(net, .step_size = 1, .gamma = CNN_ZERO);
    cnn_scheduler_step(net);
    CHECK(cnn_lr(net) == 0, "gamma 0 gives %g", cnn_lr(net));
    cnn_sgd(net, .lr = INFINITY);
    CHECK(says(net, "cnn_sgd: .lr is inf"), "an infinite rate");
    cnn_set_lr(net, INFINITY);
    CHECK(says(net, "cnn_set_lr: the learning rate must be a finite number"), "an infinite rate");
    cnn_one_cycle_lr(net, .max_lr = 1, .total_steps = 4, .div_factor = CNN_ZERO);
    CHECK(says(net, ".div_factor"), "a division by 0");
    CHECK(cnn_lr(net) == 0 && net->optimizer == CNN__ADAMW, "what was refused changed something");
    cnn_free(net);
}

/* ---- data ---- */

static cnn_data *noise(uint32_t seed)       /* labels have nothing to do with samples */
{
    static float floats[2][SAMPLES * WIDTH * WIDTH];
    static int labels[2][SAMPLES];
    cnn_data_options o;
    uint32_t r[4];
    int i;
    for (i = 0; i < SAMPLES * WIDTH * WIDTH; i++) {
        cnn_random(r, seed, 7, 0, (uint32_t)i);
        floats[seed % 2][i] = (float)(r[0] >> 8) / 8388608.0f - 1;
        if (i < SAMPLES) labels[seed % 2][i] = (int)(r[1] % CLASSES);
    }
    memset(&o, 0, sizeof o);
    o.count = SAMPLES; o.channels = 1; o.height = o.width = WIDTH; o.classes = CLASSES;
    o.floats = floats[seed % 2]; o.labels = labels[seed % 2];
    return cnn_data_new_with(o);
}

static cnn_net *conv_net(const char *backend)
{
    cnn_net *net = cnn_new(1, WIDTH, WIDTH);
    cnn_to(net, backend);
    cnn_manual_seed(net, 5);
    cnn_block(net, "features");
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_conv2d(net, .out_channels = 5, .kernel_size = 3);
    cnn_tanh(net);
    cnn_flatten(net);
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = CLASSES);
    return net;
}

static size_t all_values(cnn_net *net, float *to, const char *beginning)   /* of parameters whose keys begin so */
{
    size_t n = 0;
    const char *key;
    int i;
    for (i = 0; (key = cnn_key(net, i)) != NULL; i++)
        if (!strncmp(key, beginning, strlen(beginning))) n += cnn_get(net, key, to + n, MOST - n);
    return n;
}

static int same_values(cnn_net *a, cnn_net *b, const char *beginning)
{
    static float x[MOST], y[MOST];
    size_t n = all_values(a, x, beginning), m = all_values(b, y, beginning);
    return n && n == m && !memcmp(x, y, n * sizeof *x);
}

static void backward(cnn_net *net, const cnn_batch *batch)
{
    cnn_forward(net, batch);
    cnn_cross_entropy(net, batch);
    cnn_zero_grad(net);
    cnn_backward(net);
}

static void one_step(cnn_net *net, const cnn_batch *batch)
{
    backward(net, batch);
    cnn_step(net);
}

/* ---- 2. a second time ---- */

static void give_gradients(cnn_net *net, double value)     /* the same for every number */
{
    float *g = calloc(net->parameter_count, sizeof *g);
    size_t i;
    for (i = 0; i < net->parameter_count; i++) g[i] = (float)value;
    net->backend.upload(net->backend.context, net->pass.gradients, g, net->parameter_count * sizeof *g);
    free(g);
}

static void test_second_optimizer(const char *backend)
{
    int kind, i;
    for (kind = 0; kind < 3; kind++) {
        cnn_net *net = flat_net(), *fresh = flat_net();
        float w[2] = { 1, -2 }, a[3], b[3], before;
        cnn_to(net, backend);
        cnn_to(fresh, backend);
        for (i = 0; i < 2; i++) {           /* the second time round it is the same as the first time on a new network */
            int t;
            if (kind == 0) cnn_sgd(net, .lr = 0.01f, .momentum = 0.9f);
            if (kind == 1) cnn_adam(net, .lr = 0.01f);
            if (kind == 2) cnn_adamw(net, .lr = 0.01f, .weight_decay = CNN_ZERO);
            if (i) break;
            cnn_set(net, "a.weight", w, 2);
            for (t = 0; t < 1000; t++) { give_gradients(net, 0.25 * (t % 7 + 1)); cnn_step(net); }
            cnn_cosine_lr(net, .t_max = 3);
            cnn_scheduler_step(net);
        }
        if (kind == 0) cnn_sgd(fresh, .lr = 0.01f, .momentum = 0.9f);
        else cnn_adam(fresh, .lr = 0.01f);
        CHECK(cnn_lr(net) == 0.01f, "%s: the rate is %g", backend, cnn_lr(net));
        CHECK(net->schedule == CNN__CONSTANT && !cnn_error(net), "%s: %s", backend, said(net));
        cnn_get(net, "a.weight", w, 2);
        cnn_set(fresh, "a.weight", w, 2);
        cnn_get(net, "b.weight", a, 1);
        cnn_set(fresh, "b.weight", a, 1);
        before = w[0];
        for (i = 0; i < 5; i++) {
            give_gradients(net, 0.25); give_gradients(fresh, 0.25);
            cnn_step(net); cnn_step(fresh);
        }
        all_values(net, a, "");
        all_values(fresh, b, "");
        CHECK(!memcmp(a, b, sizeof a), "%s, kind %d: %.9g %.9g %.9g, but a new network %.9g %.9g %.9g", backend, kind, a[0], a[1], a[2],
              b[0], b[1], b[2]);
        if (kind)                           /* PyTorch: -0.04999999688 */
            CHECK(fabs(a[0] - before + 0.05) < 1e-5, "%s: five steps move the weight by %g", backend, a[0] - before);
        CHECK(cnn__read_counters(net).step == 5, "%s: it counts %d steps", backend, (int)cnn__read_counters(net).step);
        cnn_free(net); cnn_free(fresh);
    }
}

static void test_second_calls(void)
{
    cnn_data *data = noise(0);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 5, .shuffle = 1);
    cnn_net *a = conv_net("direct"), *b = conv_net("simd");
    int first[5], i;
    float mean = 3, std = 2, scale, shift;
    cnn_batch batch;
    cnn_manual_seed(a, 8); cnn_manual_seed(a, 5);
    cnn_to(a, "simd"); cnn_to(a, "direct"); cnn_to(a, "simd");
    cnn_set_num_threads(a, 3); cnn_set_num_threads(a, 1);
    cnn_adam(a, .lr = 1); cnn_sgd(a, .lr = 0.25f, .momentum = 0.5f); cnn_adam(a, .lr = 0.01f);
    cnn_eval(a); cnn_train(a); cnn_train(a);
    cnn_adam(b, .lr = 0.01f);
    for (i = 0; i < 3; i++) { cnn_next(loader, &batch); one_step(a, &batch); one_step(b, &batch); }
    CHECK(!cnn_error(a) && same_values(a, b, ""), "%s: the last call counts", said(a));
    cnn_manual_seed(a, 9);
    CHECK(says(a, "already in use"), "a seed when the weights are there");
    /* set_epoch in the middle of an epoch begins it anew */
    cnn_set_epoch(loader, 4); cnn_next(loader, &batch);
    memcpy(first, batch.order, sizeof first);
    cnn_next(loader, &batch);
    cnn_set_epoch(loader, 4); cnn_next(loader, &batch);
    CHECK(!memcmp(first, batch.order, sizeof first), "an epoch that begins again has the same order");
    /* normalize replaces, it does not compose */
    cnn_normalize(data, &mean, &std);
    scale = data->scale[0]; shift = data->shift[0];
    cnn_normalize(data, &mean, &std);
    CHECK(data->scale[0] == scale && data->shift[0] == shift && scale == 0.5f && shift == -1.5f, "scale %g shift %g", data->scale[0],
          data->shift[0]);
    cnn_loader_free(loader); cnn_free(a); cnn_free(b); cnn_data_free(data);
}

/* ---- 3. schedules ----

   import torch; L = torch.optim.lr_scheduler; f = lambda x: torch.tensor(x, dtype=torch.float32).item()
   def run(make, n, sets):
       o = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=f(.1)); s = make(o)
       for t in range(n):
           if t in sets: o.param_groups[0]["lr"] = f(sets[t])
           print("%.17g" % o.param_groups[0]["lr"]); o.step(); s.step()
   run(lambda o: L.StepLR(o, 3, .5), 10, {4: .02})
   run(lambda o: L.CosineAnnealingLR(o, 4, f(.01)), 14, {2: .03, 9: .05})
   run(lambda o: L.CosineAnnealingLR(o, 1), 6, {2: .03})
   run(lambda o: L.OneCycleLR(o, f(.1), 10, pct_start=f(.3), cycle_momentum=False), 10, {4: .5})
   run(lambda o: L.OneCycleLR(o, f(.1), 5, pct_start=0.0, cycle_momentum=False), 5, {})                    */
typedef struct schedule { const char *name; int kind, count, at[2]; float set[2]; double lr[14]; } schedule;
enum { STEP, COSINE, COSINE_1, CYCLE, CYCLE_0 };
static const schedule schedules[] = {
    { "step", STEP, 10, { 4, -1 }, { 0.02f, 0 },
      { 0.10000000149011612, 0.10000000149011612, 0.10000000149011612, 0.05000000074505806, 0.019999999552965164,
        0.019999999552965164, 0.0099999997764825821, 0.0099999997764825821, 0.0099999997764825821, 0.004999999888241291 } },
    { "cosine", COSINE, 14, { 2, 9 }, { 0.03f, 0.05f },
      { 0.10000000149011612, 0.086819806392554932, 0.029999999329447746, 0.015857864021818161, 0.0099999997764825821,
        0.023180194874043762, 0.055000000633299358, 0.08681980639255496, 0.10000000149011615, 0.05000000074505806,
        0.033431457848937168, 0.016862914952816277, 0.0099999997764825821, 0.023180194874043762 } },
    { "cosine of 1", COSINE_1, 6, { 2, -1 }, { 0.03f, 0 },
      { 0.10000000149011612, 0, 0.029999999329447746, 0, 0.10000000149011612, 0 } },
    { "one-cycle", CYCLE, 10, { 4, -1 }, { 0.5f, 0 },
      { 0.0040000000596046442, 0.051999996280776242, 0.10000000149011527, 0.095048465612527944, 0.5, 0.061126204594749309,
        0.038874199503343511, 0.018825835483101974, 0.0049519370382502545, 4.0000000596046453e-07 } },
    { "one-cycle from the top", CYCLE_0, 5, { -1, -1 }, { 0, 0 },
      { 0.09045088926317175, 0.06545098889064423, 0.034549412599477865, 0.009549512226950326, 4.0000000596046453e-07 } }
};

static void set_schedule(cnn_net *net, int kind)
{
    cnn_sgd(net, .lr = 0.1f);
    if (kind == STEP) cnn_step_lr(net, .step_size = 3, .gamma = 0.5f);
    if (kind == COSINE) cnn_cosine_lr(net, .t_max = 4, .eta_min = 0.01f);
    if (kind == COSINE_1) cnn_cosine_lr(net, .t_max = 1);
    if (kind == CYCLE) cnn_one_cycle_lr(net, .max_lr = 0.1f, .total_steps = 10);
    if (kind == CYCLE_0) cnn_one_cycle_lr(net, .max_lr = 0.1f, .total_steps = 5, .pct_start = CNN_ZERO);
}

static void check_rate(const cnn_net *net, const schedule *s, int t, double lr, const char *where)
{
    CHECK(fabs(lr - s->lr[t]) <= 1e-14 + 1e-12 * s->lr[t] && cnn_lr(net) == (float)lr, "%s, %s, step %d: %.17g instead of %.17g", s->name,
          where, t, lr, s->lr[t]);
}

static void set_when_due(cnn_net *net, const schedule *s, int t)
{
    int k;
    for (k = 0; k < 2; k++) if (t == s->at[k]) cnn_set_lr(net, s->set[k]);
}

typedef struct fitted { const schedule *s; int fixed; } fitted;

static void fit_rate(cnn_net *net, const cnn_epoch *epoch, void *user)
{
    fitted *f = user;
    CHECK(fabs(epoch->lr - f->s->lr[epoch->epoch - 1]) < 1e-8, "%s, cnn_fit, epoch %d: %.9g", f->s->name, epoch->epoch, epoch->lr);
    set_when_due(net, f->s, epoch->epoch);  /* the next epoch's */
}

static void test_schedule(const schedule *s)
{
    int used, t;
    cnn_data *data = noise(1);
    for (used = 0; used < 2; used++) {      /* before and after the first look at the network */
        cnn_net *net = flat_net();
        if (used) cnn_key(net, 0);
        set_schedule(net, s->kind);
        for (t = 0; t < s->count; t++) {
            set_when_due(net, s, t);
            check_rate(net, s, t, net->lr, used ? "in use" : "fresh");
            cnn_scheduler_step(net);
        }
        CHECK(!cnn_error(net), "%s", said(net));
        cnn_free(net);
    }
    for (used = 1; used < s->count; used++) {              /* from a checkpoint after each step, then with another rate */
        cnn_net *net = flat_net(), *next = flat_net();
        const char *path = in_folder("schedule.checkpoint");
        set_schedule(net, s->kind);
        for (t = 0; t < used; t++) { set_when_due(net, s, t); cnn_scheduler_step(net); }
        CHECK(cnn_checkpoint_save(net, path), "%s", said(net));
        set_schedule(next, s->kind);
        CHECK(cnn_checkpoint_load(next, path), "%s", said(next));
        for (; t < s->count; t++) {
            set_when_due(next, s, t);
            check_rate(next, s, t, next->lr, "from a checkpoint");
            cnn_scheduler_step(next);
        }
        remove(path);
        cnn_free(net); cnn_free(next);
    }
    if (s->kind != CYCLE && s->kind != CYCLE_0) {
        cnn_net *net = conv_net("simd");
        fitted f = { NULL, 0 };
        f.s = s;
        set_schedule(net, s->kind);
        cnn_fit(net, data, NULL, .epochs = s->count, .batch_size = 8, .each_epoch = fit_rate, .user = &f);
        CHECK(!cnn_error(net), "%s", said(net));
        cnn_free(net);
    }
    cnn_data_free(data);
}

/* StepLR(o, 2, .5) for 4 steps, then CosineAnnealingLR(o, 3) on the same optimizer: from .025, but PyTorch's initial_lr stays .1 */
static void test_second_schedule(void)
{
    static const double lr[] = { 0.02500000037252903, 0.018750000279396772, 0.0062500000931322601, 0, 0.025000000372529023,
                                 0.075000001117587131, 0.10000000149011617, 0.075000001117587159 };
    cnn_net *net = flat_net();
    int t;
    cnn_sgd(net, .lr = 0.1f);
    cnn_step_lr(net, .step_size = 2, .gamma = 0.5f);
    for (t = 0; t < 4; t++) cnn_scheduler_step(net);
    cnn_cosine_lr(net, .t_max = 3);
    for (t = 0; t < 8; t++) {
        CHECK(fabs(net->lr - lr[t]) < 1e-15, "the second schedule, step %d: %.17g instead of %.17g", t, net->lr, lr[t]);
        cnn_scheduler_step(net);
    }
    cnn_linear(net, .out_features = 2);
    CHECK(!cnn_error(net) && cnn_layer_name(net, 3), "a schedule does not end building: %s", said(net));
    cnn_free(net);
}

/* ---- 4. freezing ---- */

/* p = [torch.tensor([1., -2.]), torch.tensor([.5])]; o = cls(p, lr=f(.01), weight_decay=f(.1), betas=(f(.9), f(.999)))
   for t in range(10): gradients .25 (t + 1), but None for p[0] while 2 <= t < 7; o.step()                        */
static void test_adam_counts_a_parameter(const char *backend)
{
    static const double expected[2][3] = { { 0.953451846, -2.0431113, 0.400991711 }, { 0.949275219, -2.03575475, 0.397001363 } };
    int decoupled, t, k;
    for (decoupled = 0; decoupled < 2; decoupled++) {
        cnn_net *net = flat_net(), *next = NULL;
        float w[3] = { 1, -2, 0.5f };
        const char *path = in_folder("adam.checkpoint");
        cnn_span *spans;
        cnn_to(net, backend);
        if (decoupled) cnn_adamw(net, .lr = 0.01f, .weight_decay = 0.1f);
        else cnn_adam(net, .lr = 0.01f, .weight_decay = 0.1f);
        cnn_set(net, "a.weight", w, 2);
        cnn_set(net, "b.weight", w + 2, 1);
        for (t = 0; t < 10; t++) {
            if (t == 2) cnn_requires_grad(net, "a.weight", 0);
            if (t == 7) cnn_requires_grad(net, "a", 1);
            if (t == 8) {                   /* a checkpoint has the steps of each */
                next = flat_net();
                cnn_to(next, backend);
                if (decoupled) cnn_adamw(next, .lr = 0.01f, .weight_decay = 0.1f);
                else cnn_adam(next, .lr = 0.01f, .weight_decay = 0.1f);
                CHECK(cnn_checkpoint_save(net, path) && cnn_checkpoint_load(next, path), "%s %s", said(net), said(next));
                cnn_free(net);
                net = next;
                remove(path);
            }
            give_gradients(net, 0.25 * (t + 1));
            cnn_step(net);
        }
        spans = cnn__read_spans(net);
        CHECK(spans[0].step == 5 && spans[1].step == 10, "%s: steps %d and %d", backend, (int)spans[0].step, (int)spans[1].step);
        all_values(net, w, "");
        for (k = 0; k < 3; k++)
            CHECK(fabs(w[k] - expected[decoupled][k]) < 1e-6, "%s, %s: value %d is %.9g, PyTorch %.9g", backend,
                  decoupled ? "adamw" : "adam", k, w[k], expected[decoupled][k]);
        CHECK(!cnn_error(net), "%s", said(net));
        cnn__free(spans);
        cnn_free(net);
    }
}

static void optimizer_of(cnn_net *net, int kind)
{
    if (kind == 0) cnn_sgd(net, .lr = 0.05f, .momentum = 0.9f, .weight_decay = 0.1f);
    if (kind == 1) cnn_adam(net, .lr = 0.01f, .weight_decay = 0.1f);
    if (kind == 2) cnn_adamw(net, .lr = 0.01f, .weight_decay = 0.1f);
}

/* The last layer alone: the others stay bit for bit, and it learns as if they were put back after each step. */
static void test_fine_tuning(const char *backend, int kind, int begun)
{
    cnn_data *data = noise(1);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 7);            /* 24 = 3 * 7 + 3: batches of two sizes */
    cnn_net *net = conv_net(backend), *other = conv_net(backend), *first = conv_net(backend);
    static float values[MOST], kept[8][MOST];
    double norm = 0;
    cnn_batch batch;
    size_t n, i;
    int t, k, tensors = 0;
    optimizer_of(net, kind);
    optimizer_of(other, kind);
    if (begun) {                            /* freeze in the middle of training: moments are there */
        for (t = 0; t < 2; t++) { cnn_next(loader, &batch); one_step(net, &batch); one_step(other, &batch); }
        for (k = 0; cnn_key(net, k); k++) { n = cnn_get(net, cnn_key(net, k), values, MOST); cnn_set(first, cnn_key(net, k), values, n); }
    }
    cnn_requires_grad(net, "features", 0);
    for (; cnn_key(other, tensors); tensors++) cnn_get(other, cnn_key(other, tensors), kept[tensors], MOST);
    for (t = 0; t < 9; t++) {
        if (!cnn_next(loader, &batch)) cnn_next(loader, &batch);
        backward(net, &batch);
        cnn_step(net);
        one_step(other, &batch);
        for (k = 0; k < tensors; k++) {
            const char *key = cnn_key(other, k);
            n = cnn_get(other, key, NULL, 0);
            if (strncmp(key, "classifier", 10)) cnn_set(other, key, kept[k], n);
        }
    }
    CHECK(!cnn_error(net) && !cnn_error(other), "%s: %s; %s", backend, said(net), said(other));
    CHECK(same_values(net, first, "features"), "%s, optimizer %d: a frozen layer has changed", backend, kind);
    CHECK(!same_values(net, first, "classifier") && same_values(net, other, "classifier"),
          "%s, optimizer %d: the last layer learned something else", backend, kind);
    n = cnn_get(net, "features.3.weight.grad", values, MOST);
    for (i = 0; i < n && values[i] == 0; i++) { }
    CHECK(n && i == n, "%s: a frozen weight has a gradient", backend);
    n = cnn_get(net, "classifier.weight.grad", values, MOST);
    for (i = 0; i < n; i++) norm += (double)values[i] * values[i];
    n = cnn_get(net, "classifier.bias.grad", values, MOST);
    for (i = 0; i < n; i++) norm += (double)values[i] * values[i];
    norm = sqrt(norm);
    CHECK(fabs(cnn_clip_grad_norm(net, 1e9f) - norm) < 1e-5 * norm, "%s: the norm is %g, not %g", backend, cnn_clip_grad_norm(net, 1e9f), norm);
    /* unfrozen, it learns again, from the gradients of all */
    cnn_requires_grad(net, "features.0", 1);
    backward(net, &batch);
    backward(other, &batch);
    n = cnn_get(net, "features.0.weight.grad", values, MOST);
    cnn_get(other, "features.0.weight.grad", kept[0], MOST);
    CHECK(n && !memcmp(values, kept[0], n * sizeof(float)), "%s: through a frozen layer comes another gradient", backend);
    n = cnn_get(net, "features.3.bias.grad", values, MOST);
    for (i = 0; i < n && values[i] == 0; i++) { }
    CHECK(i == n, "%s: features.3 is still frozen, but has a gradient", backend);
    cnn_step(net);
    CHECK(!same_values(net, first, "features.0") && same_values(net, first, "features.3"), "%s: unfrozen", backend);
    cnn_free(net); cnn_free(other); cnn_free(first); cnn_loader_free(loader); cnn_data_free(data);
}

/* A weight alone, and a bias alone: the other's gradient is the same bits as without freezing. */
static void test_one_of_two(const char *backend)
{
    static const char *const keys[] = { "features.0.weight", "features.0.bias", "features.3.weight", "features.3.bias",
                                        "classifier.weight", "classifier.bias" };
    cnn_data *data = noise(0);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 9);
    cnn_batch batch;
    int frozen, k;
    cnn_next(loader, &batch);
    for (frozen = 0; frozen < 6; frozen++) {
        cnn_net *net = conv_net(backend), *all = conv_net(backend);
        cnn_requires_grad(net, keys[frozen], 0);
        backward(net, &batch);
        backward(all, &batch);
        for (k = 0; k < 6; k++) {
            char key[64];
            float a[MOST], b[MOST], zero = 0;
            size_t n, i;
            snprintf(key, sizeof key, "%s.grad", keys[k]);
            n = cnn_get(net, key, a, MOST);
            cnn_get(all, key, b, MOST);
            for (i = 0; i < n; i++) if (k == frozen) zero += a[i] != 0;
            CHECK(n && (k == frozen ? zero == 0 : !memcmp(a, b, n * sizeof *a)), "%s: with %s frozen, the gradient of %s", backend,
                  keys[frozen], keys[k]);
        }
        CHECK(!cnn_error(net), "%s", said(net));
        cnn_free(net); cnn_free(all);
    }
    cnn_loader_free(loader); cnn_data_free(data);
}

static struct { int conv, conv_dx, conv_dw, linear_dx, others; } calls;

static void counting_conv(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                          const float *y, const unsigned char *index, const float *x, const float *weight, void *work)
{
    calls.conv++;
    calls.conv_dx += dx != NULL;
    calls.conv_dw += dweight || dbias;
    cnn__direct_conv2d_backward(context, s, dx, dweight, dbias, dy, y, index, x, weight, work);
}

static void counting_linear(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                            const float *y, const float *x, const float *weight, void *work)
{
    calls.linear_dx += dx != NULL;
    cnn__direct_linear_backward(context, s, dx, dweight, dbias, dy, y, x, weight, work);
}

static void test_where_backward_ends(void)
{
    cnn_backend counting = *cnn_find_backend("direct");
    cnn_data *data = noise(0);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 4);
    cnn_net *net = conv_net("direct");
    cnn_batch batch;
    cnn_next(loader, &batch);
    counting.conv2d_backward = counting_conv;
    counting.linear_backward = counting_linear;
    cnn_use_backend(net, &counting);
    backward(net, &batch);
    CHECK(calls.conv == 2 && calls.conv_dx == 1 && calls.conv_dw == 2 && calls.linear_dx == 1, "nothing frozen: %d %d %d %d", calls.conv,
          calls.conv_dx, calls.conv_dw, calls.linear_dx);
    memset(&calls, 0, sizeof calls);
    cnn_requires_grad(net, "features", 0);
    backward(net, &batch);
    CHECK(calls.conv == 0 && calls.linear_dx == 0, "backward goes on behind the last that learns: %d, %d", calls.conv, calls.linear_dx);
    memset(&calls, 0, sizeof calls);
    cnn_requires_grad(net, "features.0.bias", 1);
    backward(net, &batch);
    CHECK(calls.conv == 2 && calls.conv_dx == 1 && calls.conv_dw == 1 && calls.linear_dx == 1, "through a frozen layer: %d %d %d %d",
          calls.conv, calls.conv_dx, calls.conv_dw, calls.linear_dx);
    CHECK(!cnn_error(net), "%s", said(net));
    cnn_requires_grad(net, NULL, 0);
    backward(net, &batch);
    CHECK(says(net, "all 6 parameters are frozen"), "all frozen");
    cnn_requires_grad(net, NULL, 1);
    cnn_requires_grad(net, "feature", 0);
    CHECK(says(net, "cnn_requires_grad: there is no parameter, layer or block \"feature\""), "half a name");
    cnn_requires_grad(net, "", 0);
    CHECK(says(net, "there is no parameter, layer or block"), "no name");
    cnn_requires_grad(net, "features.1", 0);
    CHECK(says(net, "layer \"features.1\" has no parameters"), "a layer that learns nothing");
    backward(net, &batch);
    CHECK(!cnn_error(net), "what was refused froze something: %s", said(net));
    cnn_free(net);
    net = cnn_new(1, WIDTH, WIDTH);         /* while building: layers may follow */
    cnn_name(net, "first");
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 3, .no_bias = 1);
    cnn_requires_grad(net, "first", 0);
    cnn_requires_grad(net, "first.bias", 0);
    CHECK(says(net, "first.bias") && !net->broken, "a bias that is not there");
    cnn_flatten(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_sgd(net, .lr = 1);
    memset(&calls, 0, sizeof calls);
    cnn_use_backend(net, &counting);
    one_step(net, &batch);
    CHECK(!cnn_error(net) && calls.conv == 0 && calls.linear_dx == 0, "frozen before it was ready: %s", said(net));
    {
        cnn_gradcheck_result r = cnn_gradcheck(net, &batch, 10, NULL);
        CHECK(r.failed == 0 && r.checked > 0, "a gradient check with something frozen: %d failed, %s", r.failed, said(net));
    }
    cnn_free(net); cnn_loader_free(loader); cnn_data_free(data);
}

/* ---- 5. early stopping ---- */

typedef struct watched { float weights[20][MOST]; size_t n; const char *save_at[20]; int epochs; } watched;

static void watch(cnn_net *net, const cnn_epoch *epoch, void *user)
{
    watched *w = user;
    w->n = all_values(net, w->weights[epoch->epoch - 1], "");
    w->epochs = epoch->epoch;
    if (w->save_at[epoch->epoch - 1]) CHECK(cnn_checkpoint_save(net, w->save_at[epoch->epoch - 1]), "%s", said(net));
}

static int best_of(const cnn_net *net, int by_accuracy)    /* from 1, as the rule has it, in other words */
{
    int count, best = 0, i;
    const cnn_epoch *e = cnn_history(net, &count);
    for (i = 1; i < count; i++)
        if (by_accuracy ? e[i].test.accuracy > e[best].test.accuracy : e[i].test.loss < e[best].test.loss) best = i;
    return best + 1;
}

static cnn_net *overfitting(const char *backend)
{
    cnn_net *net = conv_net(backend);
    cnn_adam(net, .lr = 0.01f);
    return net;
}

static void test_early_stopping(const char *backend)
{
    enum { PATIENCE = 3, EPOCHS = 20 };
    static watched w, v;
    cnn_data *train = noise(0), *test = noise(1);
    cnn_net *net, *next;
    const char *path = in_folder("stop.checkpoint"), *text;
    FILE *log;
    float values[MOST];
    int count, best, by_accuracy, at;
    for (by_accuracy = 0; by_accuracy < 2; by_accuracy++) {
        memset(&w, 0, sizeof w);
        net = overfitting(backend);
        log = tmpfile();
        CHECK(cnn_fit(net, train, test, .epochs = EPOCHS, .batch_size = 8, .patience = PATIENCE, .keep_best = 1, .by_accuracy = by_accuracy,
                      .each_epoch = watch, .user = &w, .log = log), "%s", said(net));
        cnn_history(net, &count);
        best = best_of(net, by_accuracy);
        CHECK(count == best + PATIENCE && count < EPOCHS && count == w.epochs, "%s: %d epochs, the best was %d", backend, count, best);
        CHECK(cnn_best_epoch(net) == best, "%s: epoch %d is the best, not %d", backend, best, cnn_best_epoch(net));
        all_values(net, values, "");
        CHECK(w.n && !memcmp(values, w.weights[best - 1], w.n * sizeof *values), "%s: the weights are not those of epoch %d", backend, best);
        CHECK(memcmp(values, w.weights[count - 1], w.n * sizeof *values), "%s: the last epoch's are others", backend);
        text = text_of(log);
        {
            char line[200];
            snprintf(line, sizeof line, "stopped after epoch %d: none of the last %d had a better test %s than epoch %d\n"
                                        "the weights are those of epoch %d\n", count, PATIENCE, by_accuracy ? "accuracy" : "loss", best, best);
            CHECK(strstr(text, line), "%s", text);
        }
        /* once more: nothing to do; with more patience it goes on */
        CHECK(cnn_fit(net, train, test, .epochs = EPOCHS, .batch_size = 8, .patience = PATIENCE, .keep_best = 1, .by_accuracy = by_accuracy),
              "%s", said(net));
        cnn_history(net, &at);
        CHECK(at == count, "%s: patience was at its end, but %d epochs were added", backend, at - count);
        CHECK(cnn_fit(net, train, test, .epochs = count + 1, .batch_size = 8, .patience = PATIENCE + 1, .by_accuracy = by_accuracy), "%s", said(net));
        cnn_history(net, &at);
        CHECK(at == count + 1, "%s: it did not go on", backend);
        cnn_free(net);
        /* cut off after any epoch and taken up again: the same epochs, the same bits */
        for (at = 1; at < count; at += 2) {
            int again;
            memset(&v, 0, sizeof v);
            v.save_at[at - 1] = path;
            net = overfitting(backend);
            cnn_fit(net, train, test, .epochs = at, .batch_size = 8, .patience = PATIENCE, .keep_best = 1, .by_accuracy = by_accuracy,
                    .each_epoch = watch, .user = &v);
            next = overfitting(backend);
            CHECK(cnn_checkpoint_load(next, path), "%s", said(next));
            CHECK(cnn_fit(next, train, test, .epochs = EPOCHS, .batch_size = 8, .patience = PATIENCE, .keep_best = 1,
                          .by_accuracy = by_accuracy), "%s", said(next));
            cnn_history(next, &again);
            CHECK(again == count && cnn_best_epoch(next) == best, "%s: from epoch %d: %d epochs, best %d", backend, at, again,
                  cnn_best_epoch(next));
            all_values(next, values, "");
            CHECK(!memcmp(values, w.weights[best - 1], w.n * sizeof *values), "%s: from epoch %d it has other weights", backend, at);
            remove(path);
            cnn_free(net); cnn_free(next);
        }
    }
    net = overfitting(backend);
    CHECK(!cnn_fit(net, train, NULL, .epochs = 3, .patience = 1) && says(net, "there is none; hold some samples back"), "no test data");
    CHECK(!cnn_fit(net, train, NULL, .epochs = 3, .keep_best = 1) && says(net, "there is none; hold some samples back"), "no test data");
    CHECK(!cnn_fit(net, train, test, .epochs = 3, .patience = -1) && says(net, "patience must be at least 1"), "patience");
    CHECK(!cnn_fit(net, train, test, .clip_grad_norm = -1) && says(net, "clip_grad_norm must be above 0"), "clipping");
    CHECK(cnn_fit(net, train, test, .epochs = CNN_ZERO, .batch_size = 8), "no epochs: %s", said(net));
    cnn_history(net, &count);
    CHECK(count == 0, "no epochs, but %d", count);
    CHECK(!cnn_fit(net, train, test, .batch_size = CNN_ZERO) && says(net, "batch_size must be at least 1"), "batches of 0");
    CHECK(!cnn_fit(net, train, test, .batch_size = 8, .test_batch_size = CNN_ZERO) && says(net, "test_batch_size must be at least 1"), "batches of 0");
    cnn_free(net);
    /* a loss that is NaN from the first epoch on is never the best */
    net = conv_net(backend);
    cnn_sgd(net, .lr = 0.1f);
    for (at = 0; at < MOST; at++) values[at] = NAN;
    CHECK(cnn_set(net, "classifier.bias", values, CLASSES), "%s", said(net));
    CHECK(cnn_fit(net, train, test, .epochs = EPOCHS, .batch_size = 8, .patience = PATIENCE, .keep_best = 1), "%s", said(net));
    cnn_history(net, &count);
    CHECK(count == PATIENCE && !cnn_best_epoch(net), "%s: NaN for %d epochs, the best is %d", backend, count, cnn_best_epoch(net));
    cnn_free(net); cnn_data_free(train); cnn_data_free(test);
}

/* A checkpoint of version 1 has no steps of each parameter: all took part in all. */
static void test_version_1(void)
{
    cnn_data *data = noise(0);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 4);
    cnn_net *net = overfitting("simd"), *next = overfitting("simd");
    const char *path = in_folder("old.checkpoint");
    char *bytes, *found;
    size_t size = 0;
    cnn__text error;
    cnn_batch batch;
    FILE *file;
    int t;
    for (t = 0; t < 3; t++) { cnn_next(loader, &batch); one_step(net, &batch); }
    CHECK(cnn_checkpoint_save(net, path), "%s", said(net));
    error.s[0] = 0;
    bytes = (char *)cnn__read_file(path, &size, &error);
    for (found = bytes; found < bytes + size - 14; found++) {
        if (!memcmp(found, "\"version\":\"2\"", 13)) found[11] = '1', t = 10;
        if (!memcmp(found, "cnn.h/steps", 11)) found[10] = 'z', t += t >= 10;
    }
    CHECK(t == 10 || t == 11, "the file has another form");
    file = fopen(path, "wb");
    fwrite(bytes, 1, size, file);
    fclose(file);
    CHECK(cnn_checkpoint_load(next, path), "%s", said(next));
    for (t = 0; t < 3; t++) { cnn_next(loader, &batch); one_step(net, &batch); one_step(next, &batch); }
    CHECK(same_values(net, next, ""), "a checkpoint of version 1 goes on in another way");
    remove(path);
    cnn__free(bytes);
    cnn_free(net); cnn_free(next); cnn_loader_free(loader); cnn_data_free(data);
}

int main(void)
{
    int i;
    size_t k;
    const cnn_backend *list = cnn_find_backend("direct");  /* the first of all that are linked in */
    folder_make();
    test_options();
    test_second_calls();
    for (k = 0; k < sizeof schedules / sizeof *schedules; k++) test_schedule(&schedules[k]);
    test_second_schedule();
    for (i = 0; i < cnn__backend_count; i++) {
        int kind;
        test_second_optimizer(list[i].name);
        test_adam_counts_a_parameter(list[i].name);
        for (kind = 0; kind < 3; kind++) { test_fine_tuning(list[i].name, kind, 0); test_fine_tuning(list[i].name, kind, 1); }
        test_one_of_two(list[i].name);
        test_early_stopping(list[i].name);
    }
    test_where_backward_ends();
    test_version_1();
    folder_remove();
    return test_end("test_learning");
}
