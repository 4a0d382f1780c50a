/* test_shapes.c - sizes: PyTorch's for poolings in every rounding (fixtures/shapes.h), one dimension, and options near INT_MAX.
   make builds it with UndefinedBehaviorSanitizer where the compiler has it, so that an overflow ends it.
   test_shapes [cases [seed]]: more of the random ones, for instance  build/test_shapes 20000 7 */
#include <stddef.h>
#include <stdlib.h>
static size_t most_bytes = (size_t)-1;                     /* larger blocks are refused, as if memory had run out */
static void *take(size_t bytes) { return bytes > most_bytes ? NULL : malloc(bytes); }
#define CNN_MALLOC(bytes) take(bytes)
#define CNN_FREE(block) free(block)
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "test.h"
#include "fixtures/shapes.h"

static const char *const backends[] = { "direct", "simd", "cuda", "cuda_naive" };

/* ---- poolings as PyTorch's ---- */

static void output_sizes(void)
{
    const char *expected = shapes_outputs;
    int side, kernel, stride, padding, ceil_mode, dimension;
    for (side = 1; side <= 8; side++)
        for (kernel = 1; kernel <= 6; kernel++)
            for (stride = 1; stride <= 5; stride++)
                for (padding = 0; padding <= kernel / 2; padding++)
                    for (ceil_mode = 0; ceil_mode <= 1; ceil_mode++, expected++)
                        for (dimension = 0; dimension <= 2; dimension++) {     /* width alone, width, height */
                            cnn_net *net = cnn_new(2, dimension == 2 ? side : 1, dimension == 2 ? 1 : side);
                            cnn_pool2d_options o;
                            int got;
                            memset(&o, 0, sizeof o);
                            o.kernel_height = o.kernel_width = o.stride_height = o.stride_width = 1;
                            if (dimension < 2) { o.kernel_width = kernel; o.stride_width = stride; o.padding_width = padding; }
                            else { o.kernel_height = kernel; o.stride_height = stride; o.padding_height = padding; }
                            o.ceil_mode = ceil_mode;
                            if (dimension) cnn_max_pool2d_with(net, o);
                            else cnn_avg_pool1d_with(net, o);
                            got = cnn_error(net) ? 0 : dimension < 2 ? net->layers[0].out.width : net->layers[0].out.height;
                            CHECK(got == *expected - '0', "side %d, kernel %d, stride %d, padding %d, ceil_mode %d: %d where PyTorch has %c",
                                  side, kernel, stride, padding, ceil_mode, got, *expected);
                            cnn_free(net);
                        }
    CHECK(!*expected, "the table is longer than the test");
}

/* by_conv: behind a convolution that changes nothing, with which a max pooling is one operation */
static void pool_case(const struct shapes_case *c, const char *backend, int by_conv)
{
    static float x[6 * 49], y[6 * 49], dx[6 * 49], dy[6 * 49], ones[3] = { 1, 1, 1 };
    cnn_net *net = cnn_new(3, c->height, c->width);
    cnn_pool2d_options o;
    double sum_y = 0, sum_dx = 0;
    int i, in = 6 * c->height * c->width, out = 6 * c->out_height * c->out_width;
    memset(&o, 0, sizeof o);
    o.kernel_height = c->kernel_height; o.kernel_width = c->kernel_width;
    o.stride_height = c->stride_height; o.stride_width = c->stride_width;
    o.padding_height = c->padding_height; o.padding_width = c->padding_width;
    o.ceil_mode = c->ceil_mode; o.exclude_padding = c->exclude_padding;
    for (i = 0; i < in; i++) x[i] = (float)((7 * i * i + 3 * i) % 23 - 11);
    for (i = 0; i < 6 * 49; i++) { dy[i] = (float)(i % 7 + 1); y[i] = dx[i] = HUGE_VALF; }
    cnn_to(net, backend);
    if (by_conv) cnn_conv2d(net, .out_channels = 3, .groups = 3, .kernel_size = 1, .no_bias = 1);
    (c->one_d ? c->average ? cnn_avg_pool1d_with : cnn_max_pool1d_with : c->average ? cnn_avg_pool2d_with : cnn_max_pool2d_with)(net, o);
    if (by_conv) cnn_set(net, "0.weight", ones, 3);
    if (!cnn_error(net) && cnn__reserve(net, 2) && net->op_count == 1 && net->layers[by_conv].out.height == c->out_height
        && net->layers[by_conv].out.width == c->out_width) {
        net->pass.ops->x[0] = x;
        net->pass.ops->y = y;
        net->pass.ops->dx[0] = dx;
        cnn__op_forward(net, net->pass.ops, 2);
        net->pass.ops->dy = dy;
        cnn__op_backward(net, net->pass.ops, 2);
        for (i = 0; i < out; i++) sum_y += (double)y[i] * (i + 1);
        for (i = 0; i < in; i++) sum_dx += (double)dx[i] * (i + 1);
    } else
        sum_y = HUGE_VAL;
    CHECK(fabs(sum_y - c->y) <= 1e-5 * (1 + fabs(c->y)) && fabs(sum_dx - c->dx) <= 1e-5 * (1 + fabs(c->dx)),
          "%s%s: %d x %d, kernel %d x %d, stride %d x %d, padding %d x %d, ceil %d, average %d, exclude %d: %g and %g where PyTorch "
          "has %g and %g: %s", backend, by_conv ? ", fused" : "", c->height, c->width, c->kernel_height, c->kernel_width, c->stride_height,
          c->stride_width, c->padding_height, c->padding_width, c->ceil_mode, c->average, c->exclude_padding, sum_y, sum_dx, c->y, c->dx,
          cnn_error(net) ? cnn_error(net) : "no error");
    cnn_free(net);
}

static void pools(void)
{
    size_t b, i;
    for (b = 0; b < sizeof backends / sizeof *backends; b++)
        for (i = 0; cnn_find_backend(backends[b]) && i < sizeof shapes_cases / sizeof *shapes_cases; i++) {
            pool_case(&shapes_cases[i], backends[b], 0);
            if (!shapes_cases[i].average) pool_case(&shapes_cases[i], backends[b], 1);
        }
}

/* ---- one dimension ---- */

static void one_dimension(void)
{
    static float x[8 * 20], y[8 * 2];
    static int labels[8], order[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    static char text[4096];
    cnn_data *data;
    cnn_batch batch;
    size_t b;
    int i;
    for (i = 0; i < 8 * 20; i++) x[i] = (float)(i * i % 17) / 17 + (float)(i / 20 % 2);
    for (i = 0; i < 8; i++) labels[i] = i % 2;
    data = cnn_data_new(.count = 8, .channels = 1, .height = 1, .width = 20, .classes = 2, .floats = x, .labels = labels);
    batch.data = data; batch.order = order; batch.size = 8;
    for (b = 0; b < sizeof backends / sizeof *backends; b++) {
        cnn_net *net = cnn_new(1, 1, 20);
        cnn_gradcheck_result result;
        FILE *out = tmpfile();
        size_t read;
        if (!cnn_find_backend(backends[b])) { fclose(out); cnn_free(net); continue; }
        cnn_to(net, backends[b]);
        cnn_conv1d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
        cnn_tanh(net);
        cnn_max_pool1d(net, .kernel_size = 3, .stride = 2, .padding = 1);                       /* 4 x 1 x 10 */
        cnn_conv1d(net, .out_channels = 3, .kernel_size = 3);                                   /* 3 x 1 x  8 */
        cnn_avg_pool1d(net, .kernel_size = 3, .ceil_mode = 1);                                  /* 3 x 1 x  3 */
        cnn_global_avg_pool2d(net);
        cnn_flatten(net);
        cnn_linear(net, .out_features = 2);
        cnn_sgd(net, .lr = 0.1f);
        result = cnn_gradcheck(net, &batch, 20, NULL);
        CHECK(result.checked > 20 && !result.failed, "%s: gradcheck: %d of %d wrong", backends[b], result.failed, result.checked);
        cnn_fit(net, data, NULL, .epochs = 60, .batch_size = 4);
        CHECK(cnn_predict(net, y, x, 8) && cnn_evaluate(net, data, 8, CNN_CROSS_ENTROPY).accuracy == 1, "%s: not learned: %s",
              backends[b], cnn_error(net) ? cnn_error(net) : "no error");
        cnn_forward(net, &batch);
        cnn_summary(net, out);
        cnn_explain(net, "2", 1, 0, 9, out);
        cnn_explain(net, "4", 0, 0, 2, out);
        rewind(out);
        read = fread(text, 1, sizeof text - 1, out);
        text[read] = 0;
        CHECK(strstr(text, "max_pool1d") && strstr(text, "avg_pool1d") && strstr(text, "4 x 1 x 10") && strstr(text, "3 x 1 x 3"),
              "%s: summary:\n%s", backends[b], text);
        CHECK(strstr(text, "rows 0 to 0, columns 17 to 19") && strstr(text, "rows 0 to 0, columns 6 to 7") && strstr(text, "sum / 2 ="),
              "%s: explain:\n%s", backends[b], text);
        fclose(out);
        cnn_free(net);
    }
    cnn_data_free(data);
}

static void one_dimension_refused(void)
{
    int average;
    for (average = 0; average <= 1; average++) {
        const char *should = average ? "cnn_avg_pool1d" : "cnn_max_pool1d";
        cnn_net *net = cnn_new(1, 1, 20), *image = cnn_new(1, 8, 8);
        cnn_conv1d(net, .out_channels = 4, .kernel_size = 3);
        if (average) cnn_avg_pool2d(net, .kernel_size = 2); else cnn_max_pool2d(net, .kernel_size = 2);
        CHECK(cnn_error(net) && strstr(cnn_error(net), should), "2 x 2 after conv1d: %s", cnn_error(net) ? cnn_error(net) : "no error");
        if (average) cnn_avg_pool1d(image, .kernel_size = 2); else cnn_max_pool1d(image, .kernel_size = 2);
        CHECK(cnn_error(image) && strstr(cnn_error(image), should + 4 /* avg_pool... */) && strstr(cnn_error(image), "pool2d"),
              "%s on 8 x 8: %s", should, cnn_error(image) ? cnn_error(image) : "no error");
        cnn_free(net);
        cnn_free(image);
    }
}

/* ---- options near INT_MAX: a sentence or the right network, and no overflow ---- */

static uint64_t draws, fuzz_seed;

static int below(int n) { return (int)(cnn__word(fuzz_seed, 77, draws++, 0) % (uint32_t)n); }

static int extreme(void)
{
    static const int far[] = { -1, 0, INT_MAX, INT_MAX - 1, INT_MAX / 2, INT_MAX / 2 + 1, INT_MAX / 4, INT_MAX / 4 + 1, 1 << 30, 1 << 24,
                               65536, 65537, 46341, 46340, 32768, 4096, 1000, -7, INT_MIN };
    return below(4) ? below(6) : far[below((int)(sizeof far / sizeof *far))];
}

static void any_layer(cnn_net *net)
{
    cnn_conv2d_options c;
    cnn_pool2d_options p;
    cnn_linear_options l;
    memset(&c, 0, sizeof c); memset(&p, 0, sizeof p); memset(&l, 0, sizeof l);
    c.out_channels = below(6) ? 1 + below(5) : extreme();
    c.kernel_size = below(3) ? 1 + below(3) : extreme();
    if (!below(3)) c.kernel_width = extreme();
    if (!below(2)) c.stride = extreme();
    if (!below(3)) c.stride_height = extreme();
    if (!below(2)) c.padding = extreme();
    if (!below(3)) c.padding_width = extreme();
    if (!below(3)) c.dilation = extreme();
    if (!below(3)) c.dilation_width = extreme();
    if (!below(4)) c.groups = extreme();
    c.padding_mode = (cnn_padding_mode)(below(3) ? 0 : below(4));
    p.kernel_size = c.kernel_size; p.kernel_width = c.kernel_width;
    p.stride = c.stride; p.stride_height = c.stride_height;
    p.padding = below(2) ? 0 : below(2) ? c.kernel_size / 2 : c.padding;
    p.padding_width = below(2) ? 0 : c.kernel_width / 2;
    p.ceil_mode = below(2); p.exclude_padding = below(2);
    l.out_features = extreme();
    switch (below(12)) {
    case 0: case 1: case 2: case 3: cnn_conv2d_with(net, c); break;
    case 4: cnn_conv1d_with(net, c); break;
    case 5: case 6: cnn_max_pool2d_with(net, p); break;
    case 7: cnn_avg_pool2d_with(net, p); break;
    case 8: (below(2) ? cnn_max_pool1d_with : cnn_avg_pool1d_with)(net, p); break;
    case 9: cnn_global_avg_pool2d(net); break;
    case 10: cnn_relu(net); break;
    default: cnn_flatten(net); cnn_linear_with(net, l); break;
    }
}

/* multiplications of one sample, or what its layers would take at least */
static double cost(const cnn_net *net)
{
    double sum = (double)cnn__size(net->input);
    int i;
    for (i = 0; i < net->layer_count; i++) {
        const cnn__layer *l = &net->layers[i];
        double out = (double)cnn__size(l->out);
        if (l->kind == &cnn__conv2d_kind) out *= (double)l->shapes.conv.kernel_height * l->shapes.conv.kernel_width * l->in.channels;
        if (l->kind == &cnn__conv2d_kind) out += (double)l->in.channels * ((double)l->in.height + l->shapes.conv.pad_top + l->shapes.conv.pad_bottom)
                                           * ((double)l->in.width + l->shapes.conv.pad_left + l->shapes.conv.pad_right);
        if (l->kind == &cnn__pool2d_kind)
            out *= (double)(l->shapes.pool.kernel_height < l->in.height ? l->shapes.pool.kernel_height : l->in.height)
                   * (l->shapes.pool.kernel_width < l->in.width ? l->shapes.pool.kernel_width : l->in.width);
        if (l->kind == &cnn__linear_kind) out *= l->in.channels;
        sum += out;
    }
    return sum;
}

static int trained;

/* The same net on both backends of the CPU: a step of training, and the same outputs. */
static void train_extreme(int layers, uint64_t first, cnn__dims in, FILE *nowhere)
{
    static float x[2 * 4096], y[2][2 * 4096];
    static int order[2] = { 1, 0 };
    cnn_data *data = cnn_data_new(.count = 2, .channels = in.channels, .height = in.height, .width = in.width, .outputs = 1,
                                  .floats = x, .targets = x);
    const cnn_batch batch = { data, order, 2 };
    size_t n = 0;
    int b, i;
    for (i = 0; i < 2 * 4096; i++) x[i] = (float)((7 * i * i + 3 * i) % 23 - 11) / 11;
    for (b = 0; b < 2; b++) {
        cnn_net *net = cnn_new(in.channels, in.height, in.width);
        cnn_to(net, backends[b]);
        for (draws = first, i = 0; i < layers; i++) any_layer(net);
        cnn_flatten(net);
        cnn_linear(net, .out_features = 1);
        cnn_adam(net, .lr = 1e-3f);
        cnn_forward(net, &batch);
        cnn_mse_loss(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
        cnn_summary(net, nowhere);
        cnn_explain(net, cnn_layer_name(net, 0), 0, 0, 0, nowhere);
        n = 2;
        if (cnn_predict(net, y[b], x, 2)) trained++;
        else n = 0;
        CHECK(!cnn_error(net) || strstr(cnn_error(net), "memory"), "%s: %s", backends[b], cnn_error(net));
        cnn_free(net);
        if (!n) break;
    }
    CHECK(!n || test_distance(y[1], y[0], n, 1e-3, 1e-3) <= 1, "seed %u, draw %u: simd has %g and %g, direct %g and %g", (unsigned)fuzz_seed,
          (unsigned)first, y[1][0], y[1][1], y[0][0], y[0][1]);
    cnn_data_free(data);
}

static void extreme_options(int cases, uint64_t seed)
{
    FILE *nowhere = tmpfile();
    int i, k, built = 0;
    fuzz_seed = seed;
    most_bytes = 16 << 20;
    for (i = 0; i < cases; i++) {
        uint64_t first;
        int layers = 1 + below(4);
        cnn__dims in = { 0, 0, 0, 0 };
        cnn_net *net;
        in.channels = below(5) ? 1 + below(4) : extreme();
        in.height = below(4) ? 1 + below(9) : extreme();
        in.width = below(4) ? 1 + below(9) : extreme();
        net = cnn_new(in.channels, in.height, in.width);
        first = draws;
        for (k = 0; k < layers; k++) any_layer(net);
        if (!cnn_error(net)) {
            built++;
            CHECK(net->layer_count > 0, "built without a layer");
            if (cost(net) < 1e5 && cnn__size(in) <= 4096 && net->layers[net->layer_count - 1].out.channels > 0)
                train_extreme(layers, first, in, nowhere);
            else {
                cnn_num_parameters(net);
                cnn_summary(net, nowhere);
            }
        } else
            CHECK(strlen(cnn_error(net)) > 20, "an error without a sentence");
        cnn_free(net);
        rewind(nowhere);
        draws = first + 1000;                              /* however many a layer draws */
    }
    CHECK(built > cases / 10 && trained > cases / 20, "of %d networks %d were built, %d trained", cases, built, trained);
    most_bytes = (size_t)-1;
    fclose(nowhere);
}

static void extreme_calls(int cases, uint64_t seed)
{
    static float x[4 * 9], y[8];
    static int labels[4] = { 0, 1, 0, 1 }, order[4] = { 3, 2, 1, 0 };
    FILE *nowhere = tmpfile();
    int i, k;
    fuzz_seed = seed + 1;
    draws = 0;
    most_bytes = 16 << 20;
    for (i = 0; i < cases; i++) {
        cnn_data *data = cnn_data_new(.count = 4, .channels = 1, .height = 3, .width = 3, .classes = 2, .floats = x, .labels = labels);
        cnn_data *odd = cnn_data_new(.count = extreme(), .channels = extreme(), .height = extreme(), .width = extreme(),
                                     .classes = extreme(), .outputs = extreme(), .floats = x, .targets = x);
        cnn_data *parts[2] = { NULL, NULL };
        cnn_loader *loader = cnn_loader_new(below(4) ? data : odd, .batch_size = extreme(), .shuffle = below(2), .drop_last = below(2));
        cnn_net *net = cnn_new(1, 3, 3);
        cnn_batch batch;
        cnn_to(net, backends[below(2)]);
        cnn_set_num_threads(net, cnn__smaller(extreme(), 3));
        cnn_flatten(net);
        cnn_linear(net, .out_features = 2);
        cnn_adam(net, .lr = 1e-3f);
        switch (below(4)) {
        case 0: cnn_step_lr(net, .step_size = extreme(), .gamma = 0.5f); break;
        case 1: cnn_cosine_lr(net, .t_max = extreme()); break;
        case 2: cnn_one_cycle_lr(net, .max_lr = 0.1f, .total_steps = extreme()); break;
        default: break;
        }
        cnn_set_epoch(loader, extreme());
        cnn_batches(loader);
        for (k = 0; k < 3; k++) if (!cnn_next(loader, &batch) || !batch.size) break;
        cnn_random_split(data, extreme(), 3, &parts[0], &parts[1]);
        cnn_fit(net, data, below(2) ? parts[0] : NULL, .epochs = 1 + below(2), .batch_size = extreme(), .test_batch_size = extreme());
        for (k = 0; k < 3; k++) cnn_scheduler_step(net);
        cnn_clear_error(net);
        cnn_evaluate(net, data, extreme(), CNN_CROSS_ENTROPY);
        cnn_clear_error(net);
        cnn_predict(net, y, x, cnn__smaller(extreme(), 4));
        cnn_clear_error(net);
        batch.data = data; batch.order = order; batch.size = extreme() > 4 ? 4 : extreme() % 5;
        cnn_gradcheck(net, &batch, below(3), NULL);
        cnn_explain(net, "0", extreme(), extreme(), extreme(), nowhere);
        rewind(nowhere);
        CHECK(cnn_error(net) == NULL || strlen(cnn_error(net)) > 20, "an error without a sentence");
        cnn_free(net);
        cnn_loader_free(loader);
        cnn_data_free(parts[0]);
        cnn_data_free(parts[1]);
        cnn_data_free(odd);
        cnn_data_free(data);
    }
    most_bytes = (size_t)-1;
    fclose(nowhere);
}

/* The cases that began it, and their fixes: the single window is the same whatever the stride. */
static void known_overflows(void)
{
    static float x[16];
    static int order[1] = { 0 }, labels[1] = { 0 };
    cnn_data *data;
    cnn_batch batch;
    cnn_net *net = cnn_new(1, 4, 4), *wide = cnn_new(1, 1, INT_MAX), *hung = cnn_new(1, 1 << 12, 1 << 12);
    int i;
    for (i = 0; i < 16; i++) x[i] = (float)i / 16;
    data = cnn_data_new(.count = 1, .channels = 1, .height = 4, .width = 4, .classes = 2, .floats = x, .labels = labels);
    batch.data = data; batch.order = order; batch.size = 1;
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 3, .stride = 1 << 30);
    cnn_max_pool2d(net, .kernel_size = INT_MAX, .kernel_height = 1, .stride = INT_MAX, .ceil_mode = 1);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 2);
    cnn_adam(net, .lr = 1e-3f);
    cnn_forward(net, &batch);
    cnn_cross_entropy(net, &batch);
    cnn_backward(net);
    cnn_step(net);
    CHECK(!cnn_error(net) && cnn_loss(net) > 0, "stride 1 << 30: %s", cnn_error(net) ? cnn_error(net) : "no loss");
    cnn_conv2d(wide, .out_channels = 1, .kernel_size = 1, .padding_width = INT_MAX / 4);
    CHECK(cnn_error(wide) && strstr(cnn_error(wide), "padding"), "%s", cnn_error(wide) ? cnn_error(wide) : "no error");
    cnn_conv2d(hung, .out_channels = 1, .kernel_size = 1, .padding = 1 << 27);
    CHECK(cnn_error(hung) && strstr(cnn_error(hung), "values"), "%s", cnn_error(hung) ? cnn_error(hung) : "no error");
    cnn_free(net);
    cnn_free(wide);
    cnn_free(hung);
    cnn_data_free(data);
}

int main(int count, char **arguments)
{
    int cases = count > 1 ? atoi(arguments[1]) : 800;
    uint64_t seed = count > 2 ? strtoul(arguments[2], NULL, 10) : 1;
    output_sizes();
    pools();
    one_dimension();
    one_dimension_refused();
    known_overflows();
    extreme_options(cases, seed);
    extreme_calls(cases / 4, seed);
    return test_end("test_shapes");
}
