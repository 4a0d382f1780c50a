/* test_layers.c - a layer that cnn.h has never heard of: one kind here, and no line elsewhere. It is built, run, trained,
   frozen, summed up, checked, explained, saved and refused like the others, so nothing in cnn.h asks a layer for its name.

       y(n,c,p) = w(c) x(n,c,p)      dx = w(c) dy      dw(c) += sum over n, p of dy x      a buffer counts training passes */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

enum { N = 6, C = 3, SIDE = 4, PIXELS = SIDE * SIDE, CLASSES = 2 };

static int break_backward;                  /* plant a bug: what finds it in other layers finds it here */

static int gain_shape(cnn__layer *l, const cnn__fitter *f)
{
    if (!cnn__has_maps(l, f)) return 0;
    l->out = l->in;
    l->multiply_adds = 1;
    return 1;
}

static int gain_tensors(const cnn__layer *l, cnn__tensor *t)
{
    memset(t, 0, sizeof *t);
    t->name = "gain";
    t->ndim = 1;
    t->shape[0] = l->in.channels;
    t->fan_in = t->fan_out = 1;
    return 1;
}

static int gain_buffers(const cnn__layer *l, cnn__tensor *t)
{
    (void)l;
    memset(t, 0, sizeof *t);
    t->name = "passes";
    t->ndim = t->shape[0] = 1;
    return 1;
}

static void gain_forward(const cnn__op *c)
{
    int pixels = c->layer->in.height * c->layer->in.width, n, k, p, i = 0;
    for (n = 0; n < c->batch; n++)
        for (k = 0; k < c->layer->in.channels; k++)
            for (p = 0; p < pixels; p++, i++) c->y[i] = c->tensors[0][k] * c->x[0][i];
    if (c->training && c->buffers[0]) c->buffers[0][0]++;
}

static void gain_backward(const cnn__op *c)
{
    int pixels = c->layer->in.height * c->layer->in.width, n, k, p, i = 0;
    for (n = 0; n < c->batch; n++)
        for (k = 0; k < c->layer->in.channels; k++)
            for (p = 0; p < pixels; p++, i++) {
                if (c->dx[0]) c->dx[0][i] = c->tensors[0][k] * c->dy[i];
                if (c->gradients[0]) c->gradients[0][k] += c->dy[i] * c->x[0][break_backward ? 0 : i];
            }
}

static double gain_at(const cnn__op *c, int n, int k, int row, int column)
{
    return (double)c->tensors[0][k] * (double)c->x[0][cnn__place(c->layer, n, k, row, column)];
}

static void gain_explain(const cnn__op *c, FILE *out, int k, int row, int column)
{
    cnn__fprintf(out, "w(%d) x = %.6f\n", k, gain_at(c, 0, k, row, column));
}

static const cnn__kind gain_kind = {
    gain_shape, gain_forward, gain_backward, gain_at, gain_explain, NULL, gain_tensors, gain_buffers, NULL, NULL, CNN__NO_OPTIONS
};

static void add_gain(cnn_net *net)
{
    cnn__layer layer = cnn__layer_of(&gain_kind, "gain");
    cnn__add(net, &layer);
}

static float x[N * C * PIXELS];
static int labels[N], order[N] = { 0, 1, 2, 3, 4, 5 };
static const float gains[C] = { .5f, -2, 3 };
static cnn_data *data;
static cnn_batch batch;

static cnn_net *build(void)
{
    cnn_net *net = cnn_new(C, SIDE, SIDE);
    cnn_name(net, "loud");
    add_gain(net);
    cnn_relu(net);
    cnn_flatten(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adam(net, .lr = .01f);
    cnn_set(net, "loud.gain", gains, C);
    return net;
}

static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

static float number(cnn_net *net, const char *key, int i)
{
    float values[64] = { 0 };
    cnn_get(net, key, values, 64);
    return values[i];
}

static void runs_and_learns(void)
{
    cnn_net *net = build();
    static float y[N * C * PIXELS];
    double sum[C] = { 0 };
    float before = number(net, "loud.gain", 1);
    int i;
    cnn_forward(net, &batch);
    CHECK(cnn_get(net, "loud", y, N * C * PIXELS) == N * C * PIXELS, "%s", error_of(net));
    for (i = 0; i < N * C * PIXELS; i++)
        CHECK(y[i] == gains[i / PIXELS % C] * x[i], "y %d is %g of %g", i, (double)y[i], (double)x[i]);
    CHECK(net->op_count == 3 && net->pass.ops[0].last == 0, "%d operations: nothing is fused into it", net->op_count);
    CHECK(cnn_num_parameters(net) == C + CLASSES * C * PIXELS + CLASSES, "%d parameters", (int)cnn_num_parameters(net));
    cnn_cross_entropy(net, &batch);
    cnn_zero_grad(net);
    cnn_backward(net);
    for (i = 0; i < C; i++) sum[i] = number(net, "loud.gain.grad", i);
    CHECK(sum[0] != 0 && sum[1] != 0 && sum[2] != 0, "gradients %g %g %g", sum[0], sum[1], sum[2]);
    cnn_step(net);
    CHECK(fabsf(number(net, "loud.gain", 1) - before) > .009f, "Adam moved it from %g to %g", (double)before,
          (double)number(net, "loud.gain", 1));
    CHECK(number(net, "loud.passes", 0) == 1, "%g passes", (double)number(net, "loud.passes", 0));
    cnn_evaluate(net, data, N, CNN_CROSS_ENTROPY);
    CHECK(number(net, "loud.passes", 0) == 1, "evaluation counted: %g", (double)number(net, "loud.passes", 0));
    cnn_set(net, "loud.passes", gains + 2, 1);
    CHECK(number(net, "loud.passes", 0) == 3 && number(net, "loud.gain", 0) != 3, "set to %g", (double)number(net, "loud.passes", 0));
    CHECK(!cnn_error(net), "%s", error_of(net));
    CHECK(!cnn_get(net, "loud.passes.grad", y, 1) && strstr(error_of(net), "there is no parameter, gradient or layer"),
          "a buffer has no gradient: %s", error_of(net));
    cnn_free(net);
}

static void is_frozen(void)
{
    cnn_net *net = build();
    cnn_requires_grad(net, "loud", 0);
    cnn_fit(net, data, NULL, .epochs = 2, .batch_size = N);
    CHECK(number(net, "loud.gain", 0) == gains[0] && number(net, "loud.gain", 2) == gains[2], "frozen, but %g and %g",
          (double)number(net, "loud.gain", 0), (double)number(net, "loud.gain", 2));
    CHECK(!cnn_error(net), "%s", error_of(net));
    cnn_free(net);
}

static void is_looked_at(void)
{
    cnn_net *net = build();
    cnn_gradcheck_result good, bad;
    FILE *out = tmpfile();
    const char *page;
    char expected[100];
    cnn_summary(net, out);
    page = text_of(out);
    CHECK(strstr(page, " 1  loud (gain)              3 x 4 x 4          3            48      192\n"), "summary:\n%s", page);
    CHECK(strstr(page, "total, for one sample                     101           144      776\n"), "summary:\n%s", page);
    good = cnn_gradcheck(net, &batch, 50, NULL);
    break_backward = 1;
    bad = cnn_gradcheck(net, &batch, 50, NULL);
    break_backward = 0;
    CHECK(good.failed == 0 && good.checked >= 50 + C, "%d of %d failed, at %s", good.failed, good.checked, good.where);
    CHECK(bad.failed == C && !strcmp(bad.where, "loud"), "planted: %d failed, at %s", bad.failed, bad.where);
    cnn_forward(net, &batch);
    out = tmpfile();
    cnn_explain(net, "loud", 1, 2, 3, out);
    page = text_of(out);
    snprintf(expected, sizeof expected, "layer 1 (gain \"loud\"): w(1) x = %.6f\n", -2 * (double)x[PIXELS + 2 * SIDE + 3]);
    CHECK(!strcmp(page, expected), "explain: %s", page);
    CHECK(!cnn_error(net), "%s", error_of(net));
    cnn_free(net);
}

static void is_saved(void)
{
    cnn_net *net = build(), *other = build();
    const char *path = in_folder("gain.safetensors");
    cnn_fit(net, data, NULL, .epochs = 1, .batch_size = N);
    CHECK(cnn_save(net, path) && cnn_load(other, path), "%s, %s", error_of(net), error_of(other));
    CHECK(number(other, "loud.gain", 2) == number(net, "loud.gain", 2) && number(net, "loud.gain", 2) != gains[2], "loaded %g, not %g",
          (double)number(other, "loud.gain", 2), (double)number(net, "loud.gain", 2));
    remove(path);
    cnn_free(net);
    cnn_free(other);
}

static void is_refused(void)
{
    cnn_net *net = cnn_new(C, SIDE, SIDE);
    cnn_flatten(net);
    add_gain(net);
    CHECK(!strcmp(error_of(net), "layer 2 (gain): needs channels x height x width, but its input is flat, a vector of 48 values; "
                                 "put it before cnn_flatten"), "%s", error_of(net));
    cnn_free(net);
}

int main(void)
{
    int i;
    for (i = 0; i < N * C * PIXELS; i++) x[i] = (float)((7 * i * i + 3 * i) % 23 - 11) / 8;
    for (i = 0; i < N; i++) labels[i] = i % CLASSES;
    folder_make();
    data = cnn_data_new(.count = N, .channels = C, .height = SIDE, .width = SIDE, .floats = x, .labels = labels, .classes = CLASSES);
    batch.data = data;
    batch.order = order;
    batch.size = N;
    runs_and_learns();
    is_frozen();
    is_looked_at();
    is_saved();
    is_refused();
    cnn_data_free(data);
    folder_remove();
    return test_end("layers");
}
