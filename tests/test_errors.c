/* test_errors.c - every mistake gets one clear sentence, and nothing crashes: wrong calls, broken files, no memory. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An allocator that counts, fails where a test says, and never gives more than 64 MB. */
static long allocations, blocks, fail_first, fail_last;    /* blocks: those not yet freed */

static void *counted_malloc(size_t bytes)
{
    void *block = NULL;
    allocations++;
    if (bytes <= (size_t)1 << 26 && !(allocations >= fail_first && allocations <= fail_last)) block = malloc(bytes);
    blocks += block != NULL;
    return block;
}

static void counted_free(void *block)
{
    blocks -= block != NULL;
    free(block);
}

static int heard;                                          /* sentences that went to CNN_ON_ERROR */
static char last_heard[512];

static void hear(const char *sentence)
{
    heard++;
    snprintf(last_heard, sizeof last_heard, "%s", sentence);
}

#define CNN_MALLOC(bytes) counted_malloc(bytes)
#define CNN_FREE(block) counted_free(block)
#define CNN_ON_ERROR(sentence) hear(sentence)
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

/* ---- what the tests share ---- */

/* SAYS(sentence, "part", ...): it is one whole sentence that holds all the parts, one after the other. */
static void says(int line, const char *sentence, ...)
{
    const char *at = sentence ? sentence : "", *part = "";
    int good = *at && strlen(at) < 500 && !strchr(at, '\n') && !strstr(at, "(null)");
    va_list parts;
    va_start(parts, sentence);
    while (good && (part = va_arg(parts, const char *)) != NULL) {
        at = strstr(at, part);
        good = at != NULL;
    }
    va_end(parts);
    CHECK(good, "line %d: no \"%s\" in its place, or no whole sentence: \"%s\"", line, part, sentence ? sentence : "");
}

#define SAYS(sentence, ...) says(__LINE__, sentence, __VA_ARGS__, (const char *)NULL)

/* What a network says, for messages. */
static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

/* MISTAKE(net, call, "part", ...): the call puts the net in error; then it is cleared for the next one. */
#define MISTAKE(net, call, ...)                                                                     \
    do {                                                                                            \
        call;                                                                                       \
        SAYS(cnn_error(net), __VA_ARGS__);                                                          \
        cnn_clear_error(net);                                                                       \
        CHECK(!cnn_error(net), "an error that stays: %s", error_of(net));                           \
    } while (0)

/* Samples of 4 x 9 x 8 that are all 0; labels 0, 1, 2, 0, 1, 2, ... */
enum { COUNT = 20 };

static cnn_data *zeros(void)
{
    static const float values[COUNT * 4 * 9 * 8];
    static int labels[COUNT];
    int i;
    for (i = 0; i < COUNT; i++) labels[i] = i % 3;
    return cnn_data_new(.count = COUNT, .channels = 4, .height = 9, .width = 8, .classes = 3, .floats = values, .labels = labels);
}

static cnn_net *small_net(void)                            /* for zeros() */
{
    cnn_net *net = cnn_new(4, 9, 8);
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 3);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_dropout(net, .p = 0.5f);
    cnn_name(net, "last");
    cnn_linear(net, .out_features = 3);
    return net;
}

/* ---- building ---- */

/* A layer that cannot be on an input of c x h x w: the error stays, and no call changes anything. */
#define IMPOSSIBLE_ON(c, h, w, layer, ...)                                                          \
    do {                                                                                            \
        cnn_net *net = cnn_new(c, h, w);                                                            \
        char sentence[512];                                                                         \
        layer;                                                                                      \
        SAYS(cnn_error(net), __VA_ARGS__);                                                          \
        snprintf(sentence, sizeof sentence, "%s", error_of(net));                                   \
        use_in_vain(net);                                                                           \
        CHECK(!strcmp(error_of(net), sentence), "a later call says: %s", error_of(net));            \
        cnn_free(net);                                                                              \
    } while (0)

#define IMPOSSIBLE(layer, ...) IMPOSSIBLE_ON(4, 9, 8, layer, __VA_ARGS__)

/* Calls everything on a network that is in error, or is NULL. */
static void use_in_vain(cnn_net *net)
{
    cnn_data *data = zeros();
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 5);
    cnn_batch batch;
    cnn_score score;
    float values[64] = { 0 };
    int shape[4], classes[COUNT], count;
    cnn_clear_error(net);
    cnn_conv2d(net, .out_channels = 1, .kernel_size = 1);
    cnn_conv1d(net, .out_channels = 1, .kernel_size = 1);
    cnn_max_pool2d(net, .kernel_size = 1);
    cnn_avg_pool2d(net, .kernel_size = 1);
    cnn_global_avg_pool2d(net);
    cnn_linear(net, .out_features = 1);
    cnn_relu(net); cnn_leaky_relu(net, .negative_slope = 1); cnn_sigmoid(net); cnn_tanh(net); cnn_softmax(net); cnn_flatten(net);
    cnn_dropout(net, .p = 0.1f);
    cnn_block(net, "block"); cnn_name(net, "name");
    cnn_to(net, "direct"); cnn_use_backend(net, cnn_find_backend("direct")); cnn_set_num_threads(net, 1); cnn_manual_seed(net, 1); cnn_allow_tf32(net, 1);
    cnn_sgd(net, .lr = 1); cnn_adam(net, .lr = 1); cnn_adamw(net, .lr = 1);
    cnn_step_lr(net, .step_size = 1); cnn_cosine_lr(net, .t_max = 1); cnn_one_cycle_lr(net, .max_lr = 1, .total_steps = 5);
    cnn_scheduler_step(net); cnn_set_lr(net, 1); cnn_train(net); cnn_eval(net);
    while (cnn_next(loader, &batch)) {
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch); cnn_mse_loss(net, &batch);
        cnn_zero_grad(net); cnn_backward(net); cnn_step(net);
    }
    CHECK(cnn_lr(net) == 0 && cnn_loss(net) == 0 && cnn_correct(net) == 0 && cnn_clip_grad_norm(net, 1) == 0, "numbers out of nothing");
    CHECK(!cnn_fit(net, data, data, .epochs = 2), "cnn_fit succeeds");
    CHECK(!cnn_history(net, &count) && count == 0, "a history");
    score = cnn_evaluate(net, data, 4, CNN_CROSS_ENTROPY);
    CHECK(score.count == 0 && score.loss == 0 && score.accuracy == 0, "a score");
    CHECK(!cnn_predict(net, values, values, 1) && !cnn_classify(net, classes, values, data, 4), "a prediction");
    CHECK(!cnn_get(net, "0.weight", values, 64) && !cnn_set(net, "0.weight", values, 1) && !cnn_shape(net, "0.weight", shape), "a parameter");
    CHECK(!cnn_key(net, 0) && cnn_num_parameters(net) == 0, "parameters");
    CHECK(cnn_gradcheck(net, &batch, 2, stderr).failed > 0, "a gradient");
    CHECK(!cnn_save_curves_svg(net, in_folder("never"), "") && !cnn_save_curves_csv(net, in_folder("never")), "curves");
    CHECK(!cnn_explain(net, "0", 0, 0, 0, stderr) && !cnn_report(net, data, in_folder("never"), ""), "a report");
    CHECK(!cnn_save(net, in_folder("never.pth")) && !cnn_load(net, in_folder("never.pth")), "a state dict");
    CHECK(!cnn_load_partly(net, in_folder("never.pth"), NULL, 0), "a part of one");
    CHECK(!cnn_checkpoint_save(net, in_folder("never")) && !cnn_checkpoint_load(net, in_folder("never")), "a checkpoint");
    cnn_summary(net, stderr);
    cnn_print_curves(net, stderr);
    cnn_loader_free(loader);
    cnn_data_free(data);
}

static void test_null(void)
{
    cnn_batch batch;
    SAYS(cnn_error(NULL), "out of memory");
    SAYS(cnn_loader_error(NULL), "out of memory");
    use_in_vain(NULL);
    CHECK(!cnn_next(NULL, &batch) && batch.size == 0 && cnn_batches(NULL) == 0, "batches out of nothing");
    cnn_set_epoch(NULL, 1);
    cnn_loader_free(NULL);
    cnn_data_free(NULL);
    cnn_free(NULL);
}

static void test_sizes(void)
{
    const char *conv = "layer 1 (conv2d): ", *pool = "layer 1 (max_pool2d): ";
    IMPOSSIBLE_ON(0, 28, 28, (void)0, "0 x 28 x 28");
    IMPOSSIBLE_ON(1, -5, 28, (void)0, "1 x -5 x 28");
    IMPOSSIBLE_ON(INT_MAX, INT_MAX, INT_MAX, (void)0, "2147483647 x 2147483647 x 2147483647");

    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 8, .kernel_size = 10), conv,
               "output height = floor((in + padding - dilation * (kernel - 1) - 1) / stride) + 1 = floor((9 + 0 - 1 * (10 - 1) - 1) / 1) + 1 < 1");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 8, .kernel_size = 3, .kernel_width = 8, .padding = 1, .dilation = 2, .stride = 3), conv,
               "output width", "= floor((8 + 2 - 2 * (8 - 1) - 1) / 3) + 1 < 1");
    IMPOSSIBLE(cnn_conv2d(net, .kernel_size = 3), conv, ".out_channels", "0", "3 x 3");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = -2, .kernel_size = 3), conv, "out_channels -2");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 8), conv, ".kernel_size", "0 x 0");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 8, .kernel_height = 3), conv, "3 x 0");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 8, .kernel_size = -3), conv, "-3 x -3");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 8, .kernel_size = 3, .stride = -1), conv, "stride", "-1 x -1");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 8, .kernel_size = 3, .dilation_width = -4), conv, "dilation", "1 x -4");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 8, .kernel_size = 3, .padding = -2), conv, "padding", "-2 x -2");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .groups = 3), conv, "3 groups", "4 input", "6 output");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .groups = 4), conv, "4 groups", "6 output");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .groups = -2), conv, "groups must be at least 1", "-2");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .in_channels = 3), conv, "expects 3 input channels", "gets 4");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .padding_mode = (cnn_padding_mode)9), conv, "padding_mode 9", "CNN_ZEROS");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .init = (cnn_init)5), conv, "init 5", "CNN_INIT_DEFAULT",
               "CNN_XAVIER_NORMAL");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .padding = 8, .padding_mode = CNN_REFLECT), conv, "reflect", "8 x 8", "9 x 8");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .padding = 9, .padding_mode = CNN_CIRCULAR), conv, "circular", "9 x 9", "9 x 8");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .padding_width = 536870912), conv, "no more than the input could need", "0 x 536870912");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .padding_height = 536870912), conv, "no more than the input could need", "536870912 x 0");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .padding_height = 9, .padding_width = 1, .padding_mode = CNN_REFLECT), conv, "reflect", "9 x 1");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .padding_height = 10, .padding_width = 1, .padding_mode = CNN_CIRCULAR), conv, "circular", "10 x 1");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .padding = CNN_SAME, .stride = 2), conv, "CNN_SAME", "stride", "2 x 2");
    IMPOSSIBLE(cnn_flatten(net); cnn_conv2d(net, .out_channels = 6, .kernel_size = 3), "layer 2 (conv2d): ", "flat", "288", "cnn_flatten");
    IMPOSSIBLE(cnn_conv1d(net, .out_channels = 6, .kernel_size = 3), "layer 1 (conv1d): ", "height 1", "4 x 9 x 8", "conv2d");
    IMPOSSIBLE_ON(4, 1, 8, cnn_conv1d(net, .out_channels = 6, .kernel_size = 9), "layer 1 (conv1d): ", "output width", "(8 + 0 - 1 * (9 - 1) - 1)");
    IMPOSSIBLE(cnn_block(net, "first"); cnn_relu(net); cnn_conv2d(net, .out_channels = 1, .kernel_size = 99), "layer 2 (conv2d \"first.1\"): ");

    IMPOSSIBLE(cnn_max_pool2d(net, .stride = 2), pool, ".kernel_size", "0 x 0");
    IMPOSSIBLE(cnn_max_pool2d(net, .kernel_size = -2), pool, "-2 x -2");
    IMPOSSIBLE(cnn_max_pool2d(net, .kernel_size = 2, .stride_height = -2), pool, "stride", "-2 x 2");
    IMPOSSIBLE(cnn_max_pool2d(net, .kernel_size = 3, .padding = 2), pool, "padding", "half", "2 x 2", "3 x 3");
    IMPOSSIBLE(cnn_max_pool2d(net, .kernel_size = 3, .padding = -1), pool, "padding", "-1 x -1");
    IMPOSSIBLE(cnn_avg_pool2d(net, .kernel_size = 10), "layer 1 (avg_pool2d): ", "output height", "(9 + 0 - 1 * (10 - 1) - 1) / 10");
    IMPOSSIBLE(cnn_avg_pool2d(net, .kernel_size = 12, .stride = 1, .padding = 1, .ceil_mode = 1), "layer 1 (avg_pool2d): ", "output height = ceil(",
               "(9 + 2 - ");
    IMPOSSIBLE(cnn_flatten(net); cnn_max_pool2d(net, .kernel_size = 2), "layer 2 (max_pool2d): ", "flat", "288");
    IMPOSSIBLE(cnn_flatten(net); cnn_global_avg_pool2d(net), "layer 2 (global_avg_pool2d): ", "flat");

    IMPOSSIBLE(cnn_linear(net, .out_features = 3), "layer 1 (linear): ", "4 x 9 x 8", "cnn_flatten");
    IMPOSSIBLE(cnn_flatten(net); cnn_linear(net, .in_features = 288), "layer 2 (linear): ", ".out_features", "0");
    IMPOSSIBLE(cnn_flatten(net); cnn_linear(net, .out_features = -1), "layer 2 (linear): ", "-1");
    IMPOSSIBLE(cnn_flatten(net); cnn_linear(net, .out_features = 1, .init = (cnn_init)-1), "layer 2 (linear): ", "init -1");
    IMPOSSIBLE(cnn_adaptive_avg_pool2d(net, .output_height = 3), "layer 1 (adaptive_avg_pool2d): needs .output_size of at least 1, but has 3 x 0");
    IMPOSSIBLE(cnn_adaptive_avg_pool2d(net, .output_size = -2), "layer 1 (adaptive_avg_pool2d): ", "-2 x -2");
    IMPOSSIBLE(cnn_flatten(net); cnn_adaptive_avg_pool2d(net, .output_size = 1), "layer 2 (adaptive_avg_pool2d): ", "flat", "288");
    IMPOSSIBLE(cnn_adaptive_avg_pool2d(net, .output_size = 2000000000), "layer 1 (adaptive_avg_pool2d): ", "4 x 2000000000 x 2000000000");
    IMPOSSIBLE(cnn_zero_pad2d(net, .padding = 2, .padding_top = -1), "layer 1 (zero_pad2d): ", "at least 0", "left 2, right 2, top -1, bottom 2");
    IMPOSSIBLE(cnn_zero_pad2d(net, .padding = 2147483647), "layer 1 (zero_pad2d): ", "4294967303 x 4294967302", "536870911");
    IMPOSSIBLE(cnn_flatten(net); cnn_zero_pad2d(net, .padding = 1), "layer 2 (zero_pad2d): ", "flat", "288");
    IMPOSSIBLE(cnn_prelu(net, .num_parameters = 3), "layer 1 (prelu): has .num_parameters = 3, but its input has 4 channels; give 4,", "or 1 for all");
    IMPOSSIBLE(cnn_prelu(net, .num_parameters = -4), "layer 1 (prelu): ", "-4");
    IMPOSSIBLE(cnn_prelu(net, .init = INFINITY), "layer 1 (prelu): ", "init", "inf");
    IMPOSSIBLE(cnn_leaky_relu(net, .negative_slope = -0.5f), "layer 1 (leaky_relu): ", "negative_slope", "-0.5");
    IMPOSSIBLE(cnn_leaky_relu(net, .negative_slope = NAN), "layer 1 (leaky_relu): ", "nan");
    IMPOSSIBLE(cnn_dropout(net, .p = 1.5f), "layer 1 (dropout): ", "p ", "1.5");
    IMPOSSIBLE(cnn_dropout(net, .p = -0.25f), "layer 1 (dropout): ", "-0.25");
    IMPOSSIBLE(cnn_dropout(net, .p = NAN), "layer 1 (dropout): ", "nan");
}

/* LeNet-5 as it was drawn in 1998, for 32 x 32 pixels: MNIST has 28 x 28. */
static void drawn_for_32(cnn_net *net)
{
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 5);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 5);
    cnn_tanh(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_name(net, "classifier");
    cnn_linear(net, .in_features = 400, .out_features = 10);
}

static void test_features(void)
{
    cnn_net *net = cnn_new(1, 28, 28);
    drawn_for_32(net);
    SAYS(cnn_error(net), "layer 7 (linear \"classifier\"): expects 400 inputs, but layer 6 (flatten) gives 16 x 4 x 4 = 256. "
                         "The input is 28 x 28; this network was drawn for 32 x 32?");
    cnn_free(net);
    net = cnn_new(1, 32, 32);
    drawn_for_32(net);
    CHECK(!cnn_error(net), "%s", error_of(net));
    cnn_free(net);
    IMPOSSIBLE_ON(4, 1, 1, cnn_linear(net, .in_features = 3, .out_features = 2), "layer 1 (linear): expects 3 inputs, but the input gives 4");
    IMPOSSIBLE_ON(1, 28, 28, (cnn_flatten(net), cnn_linear(net, .in_features = 512 * 512, .out_features = 2)), "this network was drawn for 512 x 512?");
    IMPOSSIBLE(cnn_flatten(net); cnn_linear(net, .out_features = 5); cnn_linear(net, .in_features = 6, .out_features = 2),
               "layer 3 (linear): expects 6 inputs, but layer 2 (linear) gives 5");
}

static void test_names(void)
{
    char name[80];
    memset(name, 'a', sizeof name);
    name[60] = 0;
    IMPOSSIBLE(cnn_name(net, ""), "cnn_name", "59 characters");
    IMPOSSIBLE(cnn_name(net, NULL), "cnn_name", "59 characters");
    IMPOSSIBLE(cnn_block(net, name), "cnn_block", "59 characters");
    IMPOSSIBLE(cnn_block(net, "a"); cnn_relu(net); cnn_block(net, "a"); cnn_tanh(net), "layer 2 (tanh \"a.0\"): ", "layer 1");
    IMPOSSIBLE(cnn_relu(net); cnn_name(net, "0"); cnn_tanh(net), "layer 2 (tanh \"0\"): ", "layer 1");
}

static void test_too_late(void)
{
    cnn_net *net = small_net();
    CHECK(cnn_num_parameters(net) > 0, "in use");
    MISTAKE(net, cnn_to(net, "direct"), "cnn_to", "already in use");
    MISTAKE(net, cnn_use_backend(net, cnn_find_backend("direct")), "cnn_use_backend", "already in use");
    MISTAKE(net, cnn_manual_seed(net, 1), "cnn_manual_seed", "already in use");
    MISTAKE(net, cnn_set_num_threads(net, 2), "cnn_set_num_threads", "already in use");
    cnn_relu(net);
    SAYS(cnn_error(net), "layer 7 (relu): ", "already in use");
    cnn_free(net);
}

static void test_backend_names(void)
{
    cnn_net *net = small_net();
    MISTAKE(net, cnn_to(net, "abacus"), "cnn_to", "\"abacus\"", "direct", "simd");
    MISTAKE(net, cnn_to(net, "cuda"), "cnn_to", "\"cuda\"", "cnn_cuda.o");
    MISTAKE(net, cnn_to(net, NULL), "cnn_to", "direct", "simd");
    MISTAKE(net, cnn_use_backend(net, cnn_find_backend("abacus")), "cnn_use_backend", "no backend");
    MISTAKE(net, cnn_set_num_threads(net, 0), "cnn_set_num_threads", "at least 1", "0");
    CHECK(!cnn_find_backend(NULL) && !cnn_register_backend(NULL), "a backend called NULL");
    CHECK(!cnn_register_backend(cnn_find_backend("direct")), "a second backend called direct");
    cnn_free(net);
}

static void test_no_layers(void)
{
    cnn_net *net = cnn_new(4, 9, 8);
    cnn_data *data = zeros();
    float y[1], x[4 * 9 * 8] = { 0 };
    MISTAKE(net, cnn_summary(net, stderr), "no layers");
    MISTAKE(net, cnn_predict(net, y, x, 1), "no layers");
    MISTAKE(net, cnn_evaluate(net, data, 4, CNN_MSE), "no layers");
    MISTAKE(net, cnn_report(net, data, in_folder("never"), ""), "no layers");
    cnn_free(net);
    cnn_data_free(data);
}

/* A backend is refused; with another one the same network works. */
static void test_second_backend(void)
{
    cnn_net *net = small_net();
    cnn_backend b = *cnn_find_backend("direct");
    b.mse = NULL;
    cnn_use_backend(net, &b);
    MISTAKE(net, cnn_key(net, 0), "\"direct\"", "mse");
    cnn_use_backend(net, cnn_find_backend("direct"));
    CHECK(cnn_key(net, 0), "%s", error_of(net));
    cnn_free(net);
}

/* ---- using ---- */

static void test_keys(void)
{
    cnn_net *net = small_net(), *bare = cnn_new(4, 9, 8), *long_one = cnn_new(1, 1, 1);
    float values[200] = { 0 };
    int shape[4], i;
    MISTAKE(net, cnn_get(net, "0.wieght", values, 200), "cnn_get", "\"0.wieght\"", "0.weight, 0.bias, last.weight, last.bias");
    CHECK(!cnn_get(net, "0.wieght", values, 200) && !strstr(error_of(net), "..."), "all are named: %s", error_of(net));
    cnn_clear_error(net);
    for (i = 0; i < 60; i++) cnn_batch_norm2d(long_one, 0);
    MISTAKE(long_one, cnn_get(long_one, "59.wieght", values, 200), "\"59.wieght\"", "0.weight, 0.bias, 1.weight", ", ...");
    cnn_free(long_one);
    MISTAKE(net, cnn_set(net, "conv", values, 1), "cnn_set: there is no parameter \"conv\"", "0.weight");
    MISTAKE(net, cnn_shape(net, "conv", shape), "cnn_shape", "\"conv\"", "0.weight");
    MISTAKE(net, cnn_set(net, "0.bias.grad", values, 2), "cnn_set: \"0.bias.grad\" is a gradient", "set \"0.bias\"");
    MISTAKE(net, cnn_get(net, "0.weight", values, 71), "cnn_get", "\"0.weight\"", "72", "71");
    MISTAKE(net, cnn_set(net, "0.weight", values, 73), "cnn_set", "\"0.weight\"", "72", "73");
    MISTAKE(net, cnn_get(net, "last", values, 200), "cnn_get", "\"last\"", "cnn_forward");
    MISTAKE(net, cnn_get(net, cnn_key(net, 99), values, 200), "cnn_get");
    MISTAKE(net, cnn_explain(net, "conv", 0, 0, 0, stderr), "cnn_explain", "no layer \"conv\"", "are 0, 1, 2, 3, 4, last");
    MISTAKE(net, cnn_explain(net, NULL, 0, 0, 0, stderr), "cnn_explain");
    MISTAKE(net, cnn_explain(net, "0", 0, 0, 0, stderr), "cnn_explain", "\"0\"", "cnn_forward");
    cnn_relu(bare);
    cnn_name(bare, "flat");
    cnn_flatten(bare);
    MISTAKE(bare, cnn_get(bare, "0.weight", values, 1), "\"0.weight\"; the network has no parameters", "layers are 0, flat");
    MISTAKE(bare, cnn_set(bare, "0", values, 1), "no parameter \"0\"; the network has no parameters");
    cnn_free(net); cnn_free(bare);
}

static int no_sample(void *user, int sample, unsigned char *bytes) { (void)user; (void)sample; (void)bytes; return 0; }

static void test_lacking(void)                              /* a batch and its data set are public: each thing that they may lack, alone */
{
    cnn_data *data = zeros();
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 4);
    cnn_net *net = small_net();
    cnn_batch batch;
    int i;
    cnn_next(loader, &batch);
    for (i = 0; i < 11; i++) {
        cnn_data lacking = *data;
        cnn_batch other = batch;
        other.data = &lacking;
        if (i == 0) other.order = NULL;
        if (i == 1) other.size = 0;
        if (i == 2) lacking.channels = 3;
        if (i == 3) lacking.height = 8;
        if (i == 4) lacking.width = 9;
        if (i == 5) lacking.scale = NULL;
        if (i == 6) lacking.shift = NULL;
        if (i == 7) lacking.floats = NULL;
        if (i == 8) lacking.bytes = (const unsigned char *)"";
        if (i == 9) lacking.read = no_sample;
        if (i == 10) { lacking.floats = NULL; lacking.read = no_sample; lacking.memory = NULL; }
        MISTAKE(net, cnn_forward(net, &other), "cnn_forward: the ", i < 2 ? "batch is empty" : i < 5 ? "but the network's input is 4 x 9 x 8" : "has no samples or no scale");
    }
    cnn_forward(net, &batch);
    CHECK(!cnn_error(net), "the batch as it was: %s", error_of(net));
    cnn_free(net);
    cnn_loader_free(loader);
    cnn_data_free(data);
}

static void test_order_of_calls(void)
{
    static const float targets[COUNT * 2];
    static const int labels[COUNT] = { 0 };
    cnn_data *data = zeros(), *only_targets, *many, *flat;
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 4);
    cnn_net *net = small_net();
    cnn_batch batch, larger, other, empty = { NULL, NULL, 0 };
    float y[COUNT * 3];
    int classes[COUNT];
    only_targets = cnn_data_new(.count = COUNT, .channels = 4, .height = 9, .width = 8, .outputs = 2, .floats = data->floats, .targets = targets);
    many = cnn_data_new(.count = COUNT, .channels = 4, .height = 9, .width = 8, .classes = 7, .floats = data->floats, .labels = labels);
    flat = cnn_data_new(.count = COUNT, .channels = 1, .height = 9, .width = 32, .classes = 3, .floats = data->floats, .labels = labels);
    cnn_next(loader, &batch);
    larger = batch;
    larger.size = 5;

    MISTAKE(net, cnn_backward(net), "cnn_backward", "no loss");
    MISTAKE(net, cnn_step(net), "cnn_step", "no optimizer", "cnn_adam");
    MISTAKE(net, cnn_fit(net, data, NULL, .epochs = 1), "cnn_fit", "no optimizer");
    cnn_sgd(net, .lr = 0.1f);
    MISTAKE(net, cnn_fit(net, data, NULL, .epochs = -1), "cnn_fit", "epochs", "-1");
    MISTAKE(net, cnn_fit(net, data, NULL, .batch_size = -1), "cnn_fit: batch_size", "-1");
    MISTAKE(net, cnn_fit(net, data, data, .test_batch_size = -1), "cnn_fit: test_batch_size", "-1");
    MISTAKE(net, cnn_fit(net, data, NULL, .batch_size = 21), "cnn_fit: 20 samples", "21", "batch_size");
    MISTAKE(net, cnn_fit(net, data, NULL, .loss = (cnn_loss_kind)2), "cnn_fit: loss 2", "CNN_CROSS_ENTROPY", "CNN_MSE");
    MISTAKE(net, cnn_fit(net, NULL, NULL, .epochs = 1), "cnn_fit: there is no data set");
    MISTAKE(net, cnn_evaluate(net, NULL, 4, CNN_MSE), "cnn_evaluate: there is no data set");
    MISTAKE(net, cnn_evaluate(net, data, -4, CNN_MSE), "cnn_evaluate: batch_size", "-4");
    MISTAKE(net, cnn_evaluate(net, data, 4, (cnn_loss_kind)-3), "cnn_evaluate: loss -3", "CNN_MSE");
    MISTAKE(net, cnn_classify(net, classes, NULL, NULL, 4), "cnn_classify: there is no data set");
    MISTAKE(net, cnn_cross_entropy(net, &batch), "cnn_cross_entropy", "cnn_forward");
    MISTAKE(net, cnn_forward(net, NULL), "cnn_forward", "empty");
    MISTAKE(net, cnn_forward(net, &empty), "cnn_forward", "empty", "cnn_next");
    cnn_forward(net, &batch);
    MISTAKE(net, cnn_backward(net), "cnn_backward", "cnn_cross_entropy");
    MISTAKE(net, cnn_mse_loss(net, &larger), "cnn_mse_loss", "same batch");
    MISTAKE(net, cnn_mse_loss(net, NULL), "cnn_mse_loss", "same batch");
    cnn_cross_entropy(net, &batch);
    cnn_backward(net);
    MISTAKE(net, cnn_backward(net), "cnn_backward", "no loss");
    cnn_forward(net, &batch);
    cnn_evaluate(net, data, 4, CNN_CROSS_ENTROPY);         /* its batches are not for training */
    MISTAKE(net, cnn_backward(net), "cnn_backward", "no loss");
    cnn_cross_entropy(net, &batch);                        /* training's batch is still there */
    CHECK(!cnn_error(net), "%s", error_of(net));

    other = batch;
    other.data = flat;
    MISTAKE(net, cnn_forward(net, &other), "cnn_forward", "1 x 9 x 32", "4 x 9 x 8");
    cnn_forward(net, &batch);
    MISTAKE(net, cnn_fit(net, flat, NULL, .batch_size = 4), "1 x 9 x 32", "4 x 9 x 8");
    MISTAKE(net, cnn_cross_entropy(net, &batch), "cnn_cross_entropy", "same batch");       /* its order may be gone */
    cnn_forward(net, &batch);
    cnn_cross_entropy(net, &batch);
    MISTAKE(net, cnn_fit(net, flat, NULL, .batch_size = 4), "1 x 9 x 32", "4 x 9 x 8");
    MISTAKE(net, cnn_backward(net), "cnn_backward", "no loss");
    other.data = only_targets;
    cnn_forward(net, &other);
    MISTAKE(net, cnn_cross_entropy(net, &other), "cnn_cross_entropy: a target of your data set has 2 values", "3 outputs");
    MISTAKE(net, cnn_mse_loss(net, &other), "cnn_mse_loss: a target of your data set has 2 values", "3 outputs");
    other.data = many;
    cnn_forward(net, &other);
    MISTAKE(net, cnn_cross_entropy(net, &other), "cnn_cross_entropy", "7 classes", "3 outputs");
    MISTAKE(net, cnn_mse_loss(net, &other), "cnn_mse_loss: your data set has 7 classes", "3 outputs");
    MISTAKE(net, cnn_fit(net, many, NULL, .batch_size = 5), "7 classes");
    cnn_forward(net, &other);
    MISTAKE(net, cnn_cross_entropy(net, &batch), "cnn_cross_entropy", "same batch");

    MISTAKE(net, cnn_predict(net, y, data->floats, 0), "cnn_predict", "at least 1", "0");
    MISTAKE(net, cnn_predict(net, y, NULL, 1), "cnn_predict", "arrays");
    MISTAKE(net, cnn_predict(net, NULL, data->floats, 1), "cnn_predict", "arrays");
    cnn_forward(net, &batch);
    MISTAKE(net, cnn_explain(net, "0", 2, 0, 0, stderr), "cnn_explain", "2 x 7 x 6", "(2, 0, 0)");
    MISTAKE(net, cnn_explain(net, "0", 0, 7, -1, stderr), "cnn_explain", "2 x 7 x 6", "(0, 7, -1)");
    MISTAKE(net, cnn_report(net, only_targets, in_folder("never"), ""), "cnn_report", "labelled");
    MISTAKE(net, cnn_report(net, many, in_folder("never"), ""), "cnn_report", "classes");
    MISTAKE(net, cnn_report(net, NULL, in_folder("never"), ""), "cnn_report", "data set");
    MISTAKE(net, cnn_gradcheck(net, &empty, 3, NULL), "cnn_forward", "empty");
    CHECK(cnn_gradcheck(net, &empty, 3, NULL).failed > 0, "a check that could not be done has not passed");
    cnn_free(net);
    cnn_loader_free(loader);
    cnn_data_free(data); cnn_data_free(only_targets); cnn_data_free(many); cnn_data_free(flat);
}

static void test_optimizers(void)
{
    cnn_net *net = small_net();
    MISTAKE(net, cnn_step_lr(net, .step_size = 2), "optimizer", "cnn_adam");
    MISTAKE(net, cnn_scheduler_step(net), "cnn_scheduler_step", "no schedule", "cnn_step_lr");
    MISTAKE(net, cnn_sgd(net, .lr = -1), "learning rate and a weight decay of at least 0", "-1");
    MISTAKE(net, cnn_sgd(net, .lr = NAN), "cnn_sgd: .lr is nan");
    MISTAKE(net, cnn_sgd(net, .lr = 1, .momentum = -0.5f), "momentum", "-0.5");
    MISTAKE(net, cnn_sgd(net, .lr = 1, .momentum = NAN), "momentum", "nan");
    MISTAKE(net, cnn_sgd(net, .lr = 1, .nesterov = 1), "momentum", "Nesterov", "0");
    MISTAKE(net, cnn_sgd(net, .lr = 1, .weight_decay = -2), "weight decay", "-2");
    MISTAKE(net, cnn_adam(net, .lr = -1), "cnn_adam", "learning rate", "-1");
    MISTAKE(net, cnn_adam(net, .beta1 = 1), "beta1", "1, ");
    MISTAKE(net, cnn_adam(net, .beta2 = -0.25f), "beta2", "-0.25");
    MISTAKE(net, cnn_adam(net, .beta2 = NAN), "beta2", "nan");
    MISTAKE(net, cnn_adam(net, .eps = -1), "eps", "-1");
    MISTAKE(net, cnn_adamw(net, .weight_decay = -1), "weight decay", "-1");
    MISTAKE(net, cnn_adamw(net, .beta1 = 2), "cnn_adamw", "beta1", "2, ");
    MISTAKE(net, cnn_set_lr(net, -1), "cnn_set_lr", "-1");
    MISTAKE(net, cnn_set_lr(net, NAN), "cnn_set_lr", "nan");
    MISTAKE(net, cnn_clip_grad_norm(net, 0), "cnn_clip_grad_norm", "max_norm", "0");
    MISTAKE(net, cnn_clip_grad_norm(net, NAN), "cnn_clip_grad_norm", "nan");
    cnn_sgd(net, .lr = 1);
    MISTAKE(net, cnn_step_lr(net, .gamma = 0.5f), "cnn_step_lr", ".step_size");
    MISTAKE(net, cnn_cosine_lr(net, .t_max = -3), "cnn_cosine_lr", ".t_max");
    MISTAKE(net, cnn_cosine_lr(net, .t_max = 3, .eta_min = -1), "cnn_cosine_lr", ".eta_min");
    MISTAKE(net, cnn_one_cycle_lr(net, .total_steps = 10), "cnn_one_cycle_lr", ".max_lr");
    MISTAKE(net, cnn_one_cycle_lr(net, .max_lr = 1, .total_steps = 1), "cnn_one_cycle_lr", ".total_steps");
    MISTAKE(net, cnn_one_cycle_lr(net, .max_lr = 1, .total_steps = 10, .pct_start = 1), "cnn_one_cycle_lr", ".pct_start");
    MISTAKE(net, cnn_save_curves_svg(net, in_folder("a.svg"), ""), "cnn_save_curves_svg", "no epochs", "cnn_fit");
    MISTAKE(net, cnn_save_curves_csv(net, in_folder("a.csv")), "cnn_save_curves_csv", "no epochs", "cnn_fit");
    cnn_free(net);
}

static void test_unwritable(void)
{
    char path[4200];
    cnn_data *data = zeros();
    cnn_net *net = small_net();
    cnn_sgd(net, .lr = 0.1f);
    CHECK(cnn_fit(net, data, NULL, .batch_size = 10), "%s", error_of(net));
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = 0;
    MISTAKE(net, cnn_save_curves_csv(net, in_folder("no/such/directory.csv")), "no/such/directory.csv", "cannot be written");
    MISTAKE(net, cnn_save_curves_svg(net, folder, ""), folder, "cannot be written");               /* a directory */
    MISTAKE(net, cnn_save_curves_csv(net, path), "path", "4063 characters");
    MISTAKE(net, cnn_save_curves_csv(net, NULL), "path");
    MISTAKE(net, cnn_report(net, data, NULL, ""), "path");
    MISTAKE(net, cnn_report(net, data, in_folder("no/such/page.html"), ""), "no/such/page.html", "cannot be written");
    CHECK(cnn_save_curves_svg(net, in_folder("a.svg"), NULL) && cnn_report(net, data, in_folder("a.html"), NULL), "without a title: %s", error_of(net));
    remove(in_folder("a.svg"));
    remove(in_folder("a.html"));
    cnn_free(net);
    cnn_data_free(data);
}

/* A network with more outputs than classes says classes that have no name. */
static void test_nameless_class(void)
{
    static const char *const names[1] = { "only" };
    static const float values[4], bias[3] = { 0, 0, 1 };
    static const int none[4];
    cnn_data *data = cnn_data_new(.count = 4, .channels = 1, .height = 1, .width = 1, .classes = 1, .class_names = names, .floats = values, .labels = none);
    cnn_net *net = cnn_new(1, 1, 1);
    cnn_linear(net, .out_features = 3);
    cnn_set(net, "0.bias", bias, 3);
    CHECK(cnn_report(net, data, in_folder("a.html"), "title"), "%s", error_of(net));
    CHECK(strstr(text_of(fopen(in_folder("a.html"), "rb")), "said <b>2</b>"), "the third class is not called 2");
    remove(in_folder("a.html"));
    cnn_free(net);
    cnn_data_free(data);
}

/* ---- data ---- */

/* The sentence goes from the data set to the loader and to the network. */
#define WRONG_DATA(create, ...)                                                                     \
    do {                                                                                            \
        cnn_data *data = (heard = 0, create);                                                       \
        SAYS(data->error, __VA_ARGS__);                                                             \
        if (data->error) check_handed_on(data);                                                     \
        cnn_data_free(data);                                                                        \
    } while (0)

static void check_handed_on(cnn_data *data)
{
    static const float mean[1], std[1] = { 1 };
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 4);
    cnn_net *net = small_net();
    cnn_data *first, *second;
    cnn_batch batch;
    int batches = 0;
    CHECK(data->count == 0, "%d samples", data->count);
    CHECK(cnn_loader_error(loader) && !strcmp(cnn_loader_error(loader), data->error), "the loader says: %s", cnn_loader_error(loader));
    while (cnn_next(loader, &batch) && ++batches < 9) {     /* a training loop hears of it */
        CHECK(batch.size == 0 && !batch.order, "a batch of %d", batch.size);
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
    }
    CHECK(batches == 1 && cnn_batches(loader) == 0, "%d batches", batches);
    CHECK(!strcmp(error_of(net), data->error), "after the loop the network says: %s", error_of(net));
    cnn_clear_error(net);
    CHECK(cnn_next(loader, &batch) && !cnn_next(loader, &batch), "once again in the next epoch");
    cnn_report(net, data, in_folder("never"), "");
    CHECK(!strcmp(error_of(net), data->error), "the report says: %s", error_of(net));
    cnn_clear_error(net);
    cnn_evaluate(net, data, 4, CNN_CROSS_ENTROPY);
    CHECK(!strcmp(error_of(net), data->error), "the network says: %s", error_of(net));
    cnn_random_split(data, 1, 0, &first, &second);
    CHECK(first->error && !strcmp(first->error, data->error) && second->error, "a part says: %s", first->error);
    CHECK(heard == 1 && !strcmp(last_heard, data->error), "heard %d times, last: %s", heard, last_heard);
    cnn_normalize(data, mean, std);
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_data_free(first); cnn_data_free(second);
}

static cnn_data *normalized(float std)
{
    cnn_data *data = zeros();
    float mean[4] = { 0 }, stds[4] = { 1, 1, 1, 1 };
    stds[2] = std;
    cnn_normalize(data, mean, stds);
    return data;
}

static void test_own_data(void)
{
    static const float x[8];
    static const unsigned char bytes[8];
    static const int labels[4] = { 0, 1, 5, 2 }, only[2] = { 0, 0 };
    static const unsigned char many[16];
    static const float targets[2];
    cnn_data *data = zeros(), *sized, *first, *second;
    cnn_loader *loader;
    cnn_batch batch;
    int i;
    WRONG_DATA(cnn_data_new(.count = 0, .channels = 1, .height = 1, .width = 2, .classes = 9, .floats = x, .labels = labels), "cnn_data_new", "0 samples");
    WRONG_DATA(cnn_data_new(.count = 4, .channels = 1, .height = -1, .width = 2, .classes = 9, .floats = x, .labels = labels), "1 x -1 x 2");
    WRONG_DATA(cnn_data_new(.count = 4, .channels = 1, .height = 1, .width = 2, .classes = 9, .labels = labels), ".bytes", ".floats");
    WRONG_DATA(cnn_data_new(.count = 4, .channels = 1, .height = 1, .width = 2, .classes = 9, .floats = x, .bytes = bytes, .labels = labels), ".bytes");
    WRONG_DATA(cnn_data_new(.count = 4, .channels = 1, .height = 1, .width = 2, .floats = x, .labels = labels), ".classes");
    WRONG_DATA(cnn_data_new(.count = 4, .channels = 1, .height = 1, .width = 2, .floats = x, .targets = x), ".outputs");
    WRONG_DATA(cnn_data_new(.count = 4, .channels = 1, .height = 1, .width = 2, .classes = 3, .floats = x, .labels = labels), "label 5", "sample 2", "0 .. 2");
    for (i = 0; i < 12; i++) {                              /* each size of 1, 0 and -1; labels of one class */
        int size[4] = { 2, 2, 2, 2 };
        size[i / 3] = 1 - i % 3;
        sized = cnn_data_new(.count = size[0], .channels = size[1], .height = size[2], .width = size[3], .classes = 1, .outputs = 1, .bytes = many, .labels = only, .targets = targets);
        if (i % 3) SAYS(sized->error, "cnn_data_new", "are not possible; all must be at least 1");
        else CHECK(!sized->error, "%d: %s", i, sized->error);
        cnn_data_free(sized);
    }
    sized = cnn_data_new(.count = 1, .channels = 1, .height = 1, .width = INT_MAX, .bytes = bytes);
    CHECK(!sized->error, "the largest sample: %s", sized->error);
    cnn_data_free(sized);
    WRONG_DATA(cnn_data_new(.count = 1, .channels = 1, .height = 2, .width = 1 << 30, .bytes = bytes), "1 samples of 1 x 2 x 1073741824 are not possible");
    WRONG_DATA(normalized(0), "cnn_normalize", "channel 2", "0");
    WRONG_DATA(normalized(-1), "cnn_normalize", "channel 2", "-1");
    WRONG_DATA(normalized(NAN), "cnn_normalize", "channel 2", "nan");

    for (i = -1; i <= COUNT; i += 7) {                     /* -1, 6, 13, 20 */
        cnn_random_split(data, i, 0, &first, &second);
        if (i == 6 || i == 13) CHECK(!first->error && !second->error, "%s", first->error);
        else SAYS(first->error, "cnn_random_split", "of 20 samples");
        cnn_data_free(first); cnn_data_free(second);
    }
    heard = 0;
    cnn_random_split(data, COUNT, 0, &first, &second);
    loader = cnn_loader_new(second, .batch_size = 1);
    CHECK(heard == 1, "one mistake is heard %d times", heard);
    cnn_loader_free(loader);
    cnn_data_free(first); cnn_data_free(second);
    loader = cnn_loader_new(data, .batch_size = -2);
    SAYS(cnn_loader_error(loader), "batch_size", "-2");
    cnn_next(loader, &batch);
    CHECK(batch.data && batch.data->error == cnn_loader_error(loader), "the batch has no sentence");
    cnn_loader_free(loader);
    loader = cnn_loader_new(data, .batch_size = 21, .drop_last = 1);
    SAYS(cnn_loader_error(loader), "20 samples", "21", "batch_size");
    cnn_loader_free(loader);
    data->count = COUNT + 1;                               /* it may be lowered, not raised */
    loader = cnn_loader_new(data, .batch_size = 4);
    SAYS(cnn_loader_error(loader), "21", "20 samples");
    cnn_loader_free(loader);
    loader = cnn_loader_new(NULL, .batch_size = 1);
    SAYS(cnn_loader_error(loader), "no data set");
    cnn_loader_free(loader);

    data->count = 7;
    loader = cnn_loader_new(data, .batch_size = 4);
    data->count = COUNT;                                   /* while a loader is at work */
    for (i = 0; cnn_next(loader, &batch); i += batch.size) ;
    CHECK(i == 7, "the loader deals out %d of its 7 samples", i);
    cnn_loader_free(loader);
    data->count = 0;
    loader = cnn_loader_new(data, .batch_size = 4);
    SAYS(cnn_loader_error(loader), "set to 0", "20 samples");
    cnn_loader_free(loader);
    cnn_data_free(data);
}

/* Writes a file in the folder: `size` bytes, the rest of them 0. */
static void write_file(const char *name, const void *bytes, size_t given, size_t size)
{
    FILE *file = fopen(in_folder(name), "wb");
    CHECK(file, "%s cannot be written", name);
    if (!file) return;
    fwrite(bytes, 1, given, file);
    if (size > given) fseek(file, (long)size - 1, SEEK_SET), fputc(0, file);
    fclose(file);
}

#define IMAGES "train-images-idx3-ubyte"
#define LABELS "train-labels-idx1-ubyte"

static const unsigned char images[16] = { 0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 3 };     /* five of 4 x 3 */
static const unsigned char labels[13] = { 0, 0, 8, 1, 0, 0, 0, 5, 0, 9, 1, 8, 2 };

static void write_mnist(void)
{
    write_file(IMAGES, images, 16, 16 + 5 * 4 * 3);
    write_file(LABELS, labels, 13, 13);
}

/* The image file holds these bytes and has this size. */
#define WRONG_IMAGES(size, bytes, ...)                                                              \
    do {                                                                                            \
        write_file(IMAGES, bytes, sizeof bytes - 1 < (size) ? sizeof bytes - 1 : (size), size);     \
        WRONG_DATA(cnn_load_mnist(folder, "train"), IMAGES, __VA_ARGS__);                           \
    } while (0)

static void test_idx(void)
{
    static const unsigned char many[13] = { 0, 0, 8, 1, 0, 0, 0, 6 }, eleven[13] = { 0, 0, 8, 1, 0, 0, 0, 5, 0, 11 };
    unsigned char half[76] = { 0 };
    char path[700];
    cnn_data *data;
    WRONG_DATA(cnn_load_mnist(folder, "train"), folder, IMAGES, "cannot be opened");
    WRONG_IMAGES(7, "\0\0\10\3\0\0\0", "has only 7 bytes", "broken download");
    WRONG_IMAGES(15, "\0\0\10\3\0\0\0\5\0\0\0\4\0\0\0", "has only 15 bytes", "broken download");
    remove(in_folder(IMAGES));
    write_file(IMAGES ".gz", "\37\213\10", 3, 76);
    WRONG_DATA(cnn_load_mnist(folder, "train"), IMAGES ".gz", "is packed", "gzip -dk", IMAGES ".gz");
    remove(in_folder(IMAGES ".gz"));

    write_mnist();
    data = cnn_load_mnist(folder, "train");
    CHECK(!data->error && data->count == 5 && data->height == 4 && data->width == 3 && data->labels[1] == 9, "%s", data->error);
    cnn_data_free(data);
    WRONG_DATA(cnn_load_mnist(folder, "test"), "t10k-images-idx3-ubyte", "cannot be opened");
    WRONG_DATA(cnn_load_fashion_mnist(folder, "train"), IMAGES " holds MNIST's digits, not Fashion-MNIST's", "cnn_load_idx");
    memcpy(half, images, 16);
    memset(half + 16, 7, 30);
    write_file(IMAGES, half, 76, 76);
    WRONG_DATA(cnn_load_mnist(folder, "train"), IMAGES " holds Fashion-MNIST's clothes, not MNIST's", "cnn_load_idx");
    data = cnn_load_fashion_mnist(folder, "train");
    CHECK(!data->error && data->count == 5, "%s", data->error);
    cnn_data_free(data);
    write_mnist();
    WRONG_DATA(cnn_load_idx(in_folder(IMAGES), in_folder(LABELS), 9), "label 9", "sample 1", "0 .. 8");
    WRONG_DATA(cnn_load_idx(in_folder(LABELS), in_folder(LABELS), 10), LABELS, "one dimension", "swapped");
    WRONG_DATA(cnn_load_idx(in_folder(IMAGES), in_folder(IMAGES), 10), "begins with 00 00 08 03", "labels", "00 00 08 01");
    WRONG_DATA(cnn_load_idx(in_folder(IMAGES), folder, 10), folder);                           /* a directory */
    WRONG_DATA(cnn_load_idx(folder, in_folder(LABELS), 10), folder);
    WRONG_DATA(cnn_load_idx(NULL, in_folder(LABELS), 10), "cannot be opened");
    WRONG_DATA(cnn_load_idx(in_folder(IMAGES), in_folder(LABELS), 0), "cnn_load_idx: classes must be at least 1", "0");
    WRONG_DATA(cnn_load_mnist(NULL, "train"), "cannot be opened");
    write_file(LABELS, many, 13, 14);
    WRONG_DATA(cnn_load_mnist(folder, "train"), "6 labels", "5 images");
    write_file(LABELS, eleven, 13, 13);
    WRONG_DATA(cnn_load_mnist(folder, "train"), "label 11", "sample 1", "0 .. 9");
    remove(in_folder(LABELS));
    WRONG_DATA(cnn_load_mnist(folder, "train"), LABELS, "cannot be opened");

    WRONG_IMAGES((size_t)0, "", "0 bytes");
    WRONG_IMAGES((size_t)10, "\0\0\10\3\0\0\0\5\0\0", "10 bytes", "too few");
    WRONG_IMAGES((size_t)70, "\0\0\10\3\0\0\0\5\0\0\0\4\0\0\0\3", "promises 76 bytes", "has 70");
    WRONG_IMAGES((size_t)80, "\0\0\10\3\0\0\0\5\0\0\0\4\0\0\0\3", "promises 76 bytes", "has 80");
    WRONG_IMAGES((size_t)76, "\37\213\10", "gzip");
    WRONG_IMAGES((size_t)76, "<!DOCTYPE html>", "is a web page", "IDX file of images", "get it again");
    WRONG_IMAGES((size_t)76, "rubbish", "begins with 72 75 62 62", "images", "00 00 08 03");
    WRONG_IMAGES((size_t)76, "\0\0\15\3\0\0\0\5\0\0\0\4\0\0\0\3", "promises 256 bytes", "has 76");
    WRONG_IMAGES((size_t)16, "\0\0\10\3\0\0\0\5\0\0\0\0\0\0\0\3", "size of 0");
    WRONG_IMAGES((size_t)16, "\0\0\10\3\377\377\377\377\377\377\377\377\377\377\377\377", "4294967295");
    WRONG_IMAGES((size_t)16, "\0\0\10\3\0\1\0\0\0\1\0\0\0\1\0\0", "promises 281474976710672 bytes", "has 16");
    WRONG_IMAGES((size_t)16, "\0\0\10\3\177\377\377\377\177\377\377\377\177\377\377\377", "promises", "has 16");
    remove(in_folder(IMAGES));

    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = 0;
    WRONG_DATA(cnn_load_mnist(path, "train"), "aaaa", "cannot be opened");
    WRONG_DATA(cnn_load_idx(path, path, 10), "aaaa", "cannot be opened");
    WRONG_DATA(cnn_load_cifar10(path, "test"), "aaaa", "cannot be opened");
}

static void test_cifar10(void)
{
    WRONG_DATA(cnn_load_cifar10(folder, "test"), "test_batch.bin", "cannot be opened");
    WRONG_DATA(cnn_load_cifar10(folder, "val"), "\"train\" or \"test\"", "\"t10k\"", "\"val\"");
    WRONG_DATA(cnn_load_cifar10(folder, NULL), "\"train\" or \"test\"");
    write_file("test_batch.bin", "", 0, 3073);
    WRONG_DATA(cnn_load_cifar10(folder, "test"), "test_batch.bin", "3073 bytes", "30730000");
    write_file("test_batch.bin", "\12", 1, 30730000);
    WRONG_DATA(cnn_load_cifar10(folder, "test"), "label 10", "sample 0", "0 .. 9");
    remove(in_folder("test_batch.bin"));
}

/* ---- sizes beyond all memory ---- */

#define TOO_LARGE(layers)                                                                           \
    do {                                                                                            \
        cnn_net *net = cnn_new(4, 9, 8);                                                            \
        layers;                                                                                     \
        CHECK(!cnn_num_parameters(net), "so many parameters");                                      \
        SAYS(cnn_error(net), "out of memory", "parameters");                                        \
        cnn_free(net);                                                                              \
    } while (0)

static void test_huge(void)
{
    static const int huge = INT_MAX, order[1] = { 0 };
    cnn_data *data = zeros();
    cnn_batch batch;
    cnn_net *net;
    float y[3] = { 0 };
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = huge, .kernel_size = 1), "layer 1 (conv2d)", "2147483647 x 9 x 8");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = huge, .kernel_size = huge), "layer 1 (conv2d)", "2147483647");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 1, .kernel_size = 2, .dilation = huge), "layer 1 (conv2d)", "2147483647");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 1, .kernel_size = huge, .padding = CNN_SAME), "layer 1 (conv2d)", "2147483647");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 1, .kernel_size = 1, .padding = huge), "layer 1 (conv2d)", "2147483647");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 1, .kernel_size = 1, .padding = huge / 4), "layer 1 (conv2d)", "height", "less padding");
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 1, .kernel_size = huge / 4, .padding = huge / 4, .dilation = huge), "layer 1 (conv2d)");
    IMPOSSIBLE(cnn_max_pool2d(net, .kernel_size = huge), "layer 1 (max_pool2d)", "2147483647");
    IMPOSSIBLE(cnn_avg_pool2d(net, .kernel_size = huge, .padding = huge / 2), "layer 1 (avg_pool2d)", "2147483647");
    TOO_LARGE(cnn_flatten(net); cnn_linear(net, .out_features = huge));
    TOO_LARGE(cnn_flatten(net); cnn_linear(net, .out_features = huge); cnn_linear(net, .out_features = huge));
    IMPOSSIBLE(cnn_conv2d(net, .out_channels = 4096, .kernel_size = 40000, .padding = 20000), "layer 1 (conv2d)", "4 x 40009 x 40008");
    TOO_LARGE(cnn_conv2d(net, .out_channels = 4096, .kernel_size = 20000, .padding = 10000));

    IMPOSSIBLE_ON(1, 1, huge, cnn_conv1d(net, .out_channels = 1, .kernel_size = 1, .stride = huge), "layer 1 (conv1d)", "width", "536870911");
    net = cnn_new(1, 1, huge);
    cnn_relu(net);
    MISTAKE(net, cnn_predict(net, y, y, 1), "out of memory", "8589.9 MB", "\"simd\"");
    cnn_free(net);

    net = small_net();
    batch.data = data;
    batch.order = order;
    batch.size = 1;
    cnn_forward(net, &batch);
    cnn_cross_entropy(net, &batch);
    batch.size = huge;
    MISTAKE(net, cnn_forward(net, &batch), "out of memory", "smaller batch");
    MISTAKE(net, cnn_backward(net), "no loss");            /* the pass before is gone, too */
    MISTAKE(net, cnn_get(net, "last", y, 3), "cnn_forward");
    batch.size = 1;
    cnn_forward(net, &batch);
    CHECK(cnn_get(net, "last", y, 3) == 3, "the network does not recover: %s", error_of(net));
    cnn_free(net);
    cnn_data_free(data);
}

/* ---- CNN_ON_ERROR ---- */

static void test_on_error(void)
{
    cnn_net *net = small_net();
    cnn_data *data = zeros();
    heard = 0;
    cnn_to(net, "abacus");
    CHECK(heard == 1 && !strcmp(last_heard, error_of(net)), "heard %d times: %s", heard, last_heard);
    cnn_to(net, "slide rule");
    cnn_backward(net);
    CHECK(heard == 1, "only the first mistake is heard, not %d", heard);
    cnn_clear_error(net);
    cnn_backward(net);
    CHECK(heard == 2 && !strcmp(last_heard, error_of(net)), "after clearing, the next one: %s", last_heard);
    cnn_clear_error(net);
    cnn_data_free(cnn_load_cifar10(folder, "neither"));
    CHECK(heard == 3 && strstr(last_heard, "\"neither\""), "a data set's: %s", last_heard);
    cnn_sgd(net, .lr = 0.1f);
    cnn_fit(net, data, NULL, .batch_size = 21);
    CHECK(heard == 4 && !strcmp(last_heard, error_of(net)), "a loader's, in cnn_fit, %d: %s", heard, last_heard);
    cnn_free(net);
    cnn_data_free(data);
    allocations = 0;
    fail_first = 1;
    fail_last = LONG_MAX;
    CHECK(!cnn_new(1, 1, 1) && heard == 5 && !strcmp(last_heard, cnn_error(NULL)), "no network: %s", last_heard);
    data = cnn_load_cifar10(folder, "test");
    CHECK(heard == 6 && !strcmp(last_heard, data->error), "no data set: %s", last_heard);
    CHECK(!cnn_loader_new(data, .batch_size = 1) && heard == 7, "no loader: %s", last_heard);
    fail_first = fail_last = 0;
}

/* ---- out of memory ---- */

static const char *backend_name;                           /* of the runs below */
static FILE *sink;                                         /* for what they print */

/* What they write: the file's last characters, if it is a text, and whether the call said that it was written. */
enum { REPORT, SVG, CSV, C_FILE, SAFETENSORS, PTH, CHECKPOINT, FILES };
static struct { const char *name, *end; int written; } files[FILES] = {
    { "a.html", "</html>\n", 0 }, { "a.svg", "</svg>\n", 0 }, { "a.csv", "\n", 0 }, { "a.c", "};\n", 0 }, { "a.safetensors", "", 0 }, { "a.pth", "", 0 }, { "a.ckpt", "", 0 } };

static const char *path_of(int file) { return in_folder(files[file].name); }

/* A whole program. Returns its first error, or NULL. A stubborn one clears each error and goes on. */
static const char *whole_run(int stubborn)
{
    static char sentence[512];
    cnn_data *all = cnn_load_mnist(folder, "train"), *train, *test;
    cnn_net *net = cnn_new(1, 4, 3);
    cnn_loader *loader;
    cnn_batch batch;
    static const float image[4 * 3];
    float y[10], activations[2 * 2 * 4 * 3];
    int classes[5];
#define STEP(call)                                                                                  \
    do {                                                                                            \
        call;                                                                                       \
        if (cnn_error(net) && !*sentence) snprintf(sentence, sizeof sentence, "%s", cnn_error(net)); \
        if (stubborn) cnn_clear_error(net);                                                         \
    } while (0)
    *sentence = 0;
    cnn_random_split(all, 2, 0, &train, &test);
    loader = cnn_loader_new(train, .batch_size = 2, .shuffle = 1);
    if (cnn_loader_error(loader)) snprintf(sentence, sizeof sentence, "%s", cnn_loader_error(loader));
    STEP(cnn_to(net, backend_name));
    STEP(cnn_set_num_threads(net, 1));
    STEP(cnn_conv2d(net, .out_channels = 2, .kernel_size = 3, .padding = 1));
    STEP(cnn_relu(net));
    STEP(cnn_max_pool2d(net, .kernel_size = 2));
    STEP(cnn_conv2d(net, .out_channels = 2, .kernel_size = 1));
    STEP(cnn_flatten(net));
    STEP(cnn_dropout(net, .p = 0.5f));
    STEP(cnn_linear(net, .out_features = 10));
    STEP(cnn_adam(net, .lr = 0.1f));
    STEP(cnn_cosine_lr(net, .t_max = 2));
    STEP(cnn_fit(net, train, test, .epochs = 2, .batch_size = 2));
    while (cnn_next(loader, &batch)) {
        STEP(cnn_forward(net, &batch));
        STEP(cnn_get(net, "0", activations, sizeof activations / sizeof *activations));
        STEP(cnn_explain(net, "0", 0, 0, 0, sink));
        STEP(cnn_cross_entropy(net, &batch));
        STEP(cnn_backward(net));
        STEP(cnn_clip_grad_norm(net, 1));
        STEP(cnn_step(net));
        STEP(cnn_gradcheck(net, &batch, 2, NULL));
    }
    STEP(cnn_evaluate(net, test, 1, CNN_MSE));
    STEP(cnn_classify(net, classes, y, train, 3));
    STEP(cnn_predict(net, y, image, 1));
    if (!stubborn) {
        STEP(files[REPORT].written = cnn_report(net, test, path_of(REPORT), "title"));
        STEP(files[SAFETENSORS].written = cnn_save(net, path_of(SAFETENSORS)));
        STEP(cnn_load(net, path_of(SAFETENSORS)));
        STEP(files[PTH].written = cnn_save(net, path_of(PTH)));
        STEP(cnn_load_partly(net, path_of(PTH), NULL, 0));
        STEP(files[CHECKPOINT].written = cnn_checkpoint_save(net, path_of(CHECKPOINT)));
        STEP(cnn_checkpoint_load(net, path_of(CHECKPOINT)));
        STEP(files[SVG].written = cnn_save_curves_svg(net, path_of(SVG), "title"));
        STEP(files[CSV].written = cnn_save_curves_csv(net, path_of(CSV)));
        STEP(files[C_FILE].written = cnn_export_c(net, path_of(C_FILE), NULL));
    }
#undef STEP
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_data_free(all); cnn_data_free(train); cnn_data_free(test);
    return *sentence ? sentence : NULL;
}

/* Removes what a run has written. Was each file whole, and there only if the call said so? */
static int all_or_nothing(void)
{
    int good = 1, i;
    for (i = 0; i < FILES; i++) {
        const char *text = text_of(fopen(path_of(i), "rb")), *end = files[i].end;
        size_t length = strlen(text), tail = strlen(end);
        int there = !remove(path_of(i));
        good = good && there == files[i].written && (!there || (length >= tail && !strcmp(text + length - tail, end)));
        files[i].written = 0;
    }
    return good;
}

/* The n-th allocation fails, or it and all after it, for every n. */
static void test_out_of_memory(const char *name, int all_after, int stubborn)
{
    const char *error = "";
    long n, before = blocks;
    backend_name = name;
    for (n = 1; error && n < 10000; n++) {
        allocations = 0;
        fail_first = n;
        fail_last = all_after ? LONG_MAX : n;
        error = whole_run(stubborn);
        CHECK(error ? strstr(error, "out of memory") != NULL : allocations < n, "%s: when allocation %ld fails, it says: %s", name, n, error ? error : "nothing");
        CHECK(blocks == before, "%s: after allocation %ld failed, %ld blocks are left", name, n, blocks - before);
        CHECK(all_or_nothing(), "%s: after allocation %ld failed, half a file is left", name, n);
    }
    fail_first = fail_last = 0;
    CHECK(n > 30 && n < 10000, "%s: %ld allocations", name, n);
}

/* How much memory a file needs that does not fit. */
static void test_large_file(void)
{
    cnn_net *net = cnn_new(1, 1, 1);
    float x = 0, y;
    int n, told = 0;
    cnn_linear(net, .out_features = 1);
    cnn_predict(net, &y, &x, 1);                           /* it has all the memory of its own */
    write_file("large.safetensors", "", 0, 123456);
    for (n = 1; n < 30; n++) {
        allocations = 0;
        fail_first = fail_last = n;
        told += !cnn_load(net, in_folder("large.safetensors")) && strstr(cnn_error(net), "out of memory: the file has 0.1 MB");
        fail_first = fail_last = 0;
        cnn_clear_error(net);
    }
    CHECK(told == 1, "%d sentences say how large the file is", told);
    remove(in_folder("large.safetensors"));
    cnn_free(net);
}

/* How much memory a part of a data set that is read needs: a number for each of its samples. */
static void test_large_split(void)
{
    cnn_data *data = cnn_data_new(.count = 60000, .channels = 1, .height = 1, .width = 1, .read = no_sample), *first, *second;
    int n, told = 0;
    for (n = 1; n < 30; n++) {
        allocations = 0;
        fail_first = fail_last = n;
        cnn_random_split(data, 30000, 0, &first, &second);
        fail_first = fail_last = 0;
        told += first->error && strstr(first->error, "out of memory: its samples need 0.1 MB");
        told += second->error && strstr(second->error, "out of memory: its samples need 0.1 MB");
        cnn_data_free(first); cnn_data_free(second);
    }
    CHECK(told >= 2, "%d sentences say how much memory is lacking", told);
    cnn_data_free(data);
}

/* `direct`, but a convolution alone needs more scratch memory than a fused one, and each writes to all of it. */
static size_t more_alone(void *context, const cnn_conv2d_shape *s)
{
    return cnn_find_backend("direct")->conv2d_work(context, s) + (s->pool.kernel_height ? 64 : 65536);
}

static void scribbling_forward(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index, const float *x,
                               const float *weight, const float *bias, void *work)
{
    memset(work, 1, more_alone(context, s));
    cnn_find_backend("direct")->conv2d_forward(context, s, y, index, x, weight, bias, work);
}

/* Looking into a fused operation fails for want of memory; what is there stays good for the next pass. */
static void test_scratch_memory(void)
{
    cnn_data *data = zeros();
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 4);
    cnn_net *net = small_net();
    cnn_backend b = *cnn_find_backend("direct");
    cnn_batch batch;
    float values[4 * 2 * 7 * 6];
    int n, got = 0;
    b.conv2d_work = more_alone;
    b.conv2d_forward = scribbling_forward;
    cnn_use_backend(net, &b);
    cnn_next(loader, &batch);
    cnn_forward(net, &batch);
    for (n = 1; !got && n < 10; n++) {
        allocations = 0;
        fail_first = fail_last = n;
        got = cnn_get(net, "0", values, 4 * 2 * 7 * 6) > 0;
        fail_first = fail_last = 0;
        if (!got) SAYS(cnn_error(net), "out of memory");
        cnn_clear_error(net);
        cnn_forward(net, &batch);
        CHECK(!cnn_error(net), "after allocation %d failed: %s", n, error_of(net));
    }
    CHECK(n > 3 && got, "%d allocations", n);
    cnn_free(net);
    cnn_loader_free(loader);
    cnn_data_free(data);
    CHECK(blocks == 0, "%ld blocks are left", blocks);
}

/* `direct`, but the samples of a data set are copied. */
static void register_apart(void)
{
    cnn_backend b = *cnn_find_backend("direct");
    b.name = "apart";
    b.reads_host = 0;
    CHECK(cnn_register_backend(&b), "a new backend");
}

int main(void)
{
    static const char *const backends[] = { "direct", "simd", "apart" };
    int i;
    folder_make();
    test_null();
    test_sizes();
    test_features();
    test_names();
    test_too_late();
    test_backend_names();
    test_no_layers();
    test_second_backend();
    test_keys();
    test_lacking();
    test_order_of_calls();
    test_optimizers();
    test_unwritable();
    test_nameless_class();
    test_own_data();
    test_idx();
    test_cifar10();
    test_huge();
    test_on_error();
    CHECK(blocks == 0, "%ld blocks are left", blocks);
    test_large_file();
    test_large_split();
    test_scratch_memory();
    register_apart();
    write_mnist();
    sink = tmpfile();
    for (i = 0; i < 3; i++) {
        test_out_of_memory(backends[i], 0, 0);
        test_out_of_memory(backends[i], 1, 0);
        test_out_of_memory(backends[i], 0, 1);
        test_out_of_memory(backends[i], 1, 1);
    }
    fclose(sink);
    remove(in_folder(IMAGES));
    remove(in_folder(LABELS));
    folder_remove();
    return test_end("errors");
}
