/* test_norm.c - batch normalisation in a network: what moves its running statistics and what does not, gradients, state
   dicts, checkpoints, the best epoch, threads, what is refused. Its arithmetic is proved by test_fixtures.c and test_backends.c. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

enum { N = 24, BATCH = 8, C = 2, SIDE = 6, CLASSES = 3, STATE = 1000 };

static float x[N * C * SIDE * SIDE];
static int labels[N], others[N], order[N];
static cnn_data *data, *held_out;            /* held_out: other labels, so that learning makes it worse */
static cnn_batch batch;
static const char *backend = "simd";

static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

static cnn_net *build(void)
{
    cnn_net *net = cnn_new(C, SIDE, SIDE);
    cnn_to(net, backend);
    cnn_conv2d(net, .out_channels = 5, .kernel_size = 3, .padding = 1);
    cnn_name(net, "bn1");
    cnn_batch_norm2d(net, 0);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 7);
    cnn_name(net, "bn2");
    cnn_batch_norm1d(net, .momentum = .5f);
    cnn_tanh(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adam(net, .lr = .01f);
    return net;
}

static float number(cnn_net *net, const char *key, int i)
{
    float values[STATE] = { 0 };
    size_t count = cnn_get(net, key, values, STATE);
    CHECK(count > (size_t)i, "%s: %s", key, error_of(net));
    return values[i];
}

static void train(cnn_net *net, int epochs) { cnn_fit(net, data, NULL, .epochs = epochs, .batch_size = BATCH); }

/* All parameters and buffers, as bits: 1 if they are the same. */
static int same_state(cnn_net *a, cnn_net *b)
{
    int i;
    for (i = 0; i < a->state_count; i++) {
        float left[STATE], right[STATE];
        size_t n = cnn_get(a, a->state[i]->key, left, STATE);
        if (n != cnn_get(b, a->state[i]->key, right, STATE) || memcmp(left, right, n * sizeof *left)) return 0;
    }
    return a->state_count == 16 && !cnn_error(a) && !cnn_error(b);
}

static void begins_as_pytorch(void)
{
    cnn_net *net = build();
    CHECK(number(net, "bn1.weight", 4) == 1 && number(net, "bn1.bias", 0) == 0 && number(net, "bn1.running_mean", 4) == 0
          && number(net, "bn1.running_var", 4) == 1 && number(net, "bn1.num_batches_tracked", 0) == 0, "first values: %s", error_of(net));
    CHECK(cnn_num_parameters(net) == 5 * 18 + 5 + 10 + 45 * 7 + 7 + 14 + 24, "%d parameters", (int)cnn_num_parameters(net));
    CHECK(net->op_count == 6, "%d operations: activations are fused into the normalisation", net->op_count);
    cnn_free(net);
}

/* Training moves them, also where weight and bias are frozen; nothing else does. */
static void moves_only_in_training(void)
{
    cnn_net *net = build(), *before = build();
    static float y[N * CLASSES], map[BATCH * 5 * SIDE * SIDE], own[BATCH * 5 * SIDE * SIDE];
    float frozen;
    cnn_gradcheck_result result;
    FILE *out = tmpfile();
    int i;
    cnn_requires_grad(net, "bn1", 0);
    train(net, 2);
    CHECK(number(net, "bn1.weight", 0) == 1 && number(net, "bn1.bias", 0) == 0 && number(net, "bn2.weight", 0) != 1, "frozen, but moved");
    CHECK(number(net, "bn1.running_mean", 0) != 0 && number(net, "bn1.running_var", 0) != 1, "not moved");
    CHECK(number(net, "bn1.num_batches_tracked", 0) == 6 && number(net, "bn2.num_batches_tracked", 0) == 6, "counted %g",
          (double)number(net, "bn1.num_batches_tracked", 0));
    frozen = number(net, "bn1.running_var", 1);
    CHECK(cnn_save(net, in_folder("a.safetensors")) && cnn_load(before, in_folder("a.safetensors")), "%s", error_of(net));
    cnn_forward(net, &batch);                              /* a training pass: it moves them once more */
    CHECK(number(net, "bn1.num_batches_tracked", 0) == 7 && number(net, "bn1.running_var", 1) != frozen, "not moved");
    cnn_forward(before, &batch);
    CHECK(same_state(net, before), "the loaded network went on otherwise");

    result = cnn_gradcheck(net, &batch, 30, NULL);
    CHECK(result.failed == 0 && result.checked > 200, "%d of %d failed at %s", result.failed, result.checked, result.where);
    cnn_evaluate(net, data, BATCH, CNN_CROSS_ENTROPY);
    cnn_predict(net, y, x, N);
    cnn_report(net, data, in_folder("report.html"), "a report");
    remove(in_folder("report.html"));
    for (i = 0; i < 2; i++) CHECK(cnn_explain(net, i ? "bn1" : "bn2", 1, 0, 0, out), "%s", error_of(net));
    CHECK(cnn_get(net, "bn1", map, sizeof map / sizeof *map) == sizeof map / sizeof *map, "inside of an operation: %s", error_of(net));
    cnn_eval(net);
    cnn_forward(net, &batch);
    cnn_get(net, "bn1", own, sizeof own / sizeof *own);
    CHECK(memcmp(map, own, sizeof map), "evaluation uses the batch's statistics");
    result = cnn_gradcheck(net, &batch, 30, NULL);
    CHECK(result.failed == 0 && result.checked > 200, "in evaluation %d of %d failed at %s", result.failed, result.checked, result.where);
    CHECK(same_state(net, before), "looking moved something");
    fclose(out);
    remove(in_folder("a.safetensors"));
    cnn_free(net);
    cnn_free(before);
}

static void planted(void *context, const cnn_batch_norm_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                    const float *y, const float *saved, const float *in, const float *weight, void *work)
{
    cnn_batch_norm_shape wrong = *s;
    wrong.training = 0;                                    /* as if mean and variance did not depend on x */
    cnn_find_backend("direct")->batch_norm_backward(context, &wrong, dx, dweight, dbias, dy, y, saved, in, weight, work);
}

static void a_wrong_gradient_is_found(void)
{
    cnn_net *net = build();
    cnn_backend b = *cnn_find_backend("direct");
    cnn_gradcheck_result result;
    b.name = "planted";
    b.batch_norm_backward = planted;
    cnn_use_backend(net, &b);
    result = cnn_gradcheck(net, &batch, 20, NULL);
    CHECK(result.failed > 10 && !strncmp(result.where, "bn", 2), "%d failed, at %s", result.failed, result.where);
    cnn_free(net);
}

/* Its numbers are those of the equation, for every channel, in training and in evaluation. */
static void is_explained(int no_affine)
{
    static const float weight[C] = { 2, -3 }, bias[C] = { .5f, -4 }, mean[C] = { .25f, -1 }, var[C] = { 4, .01f };
    cnn_net *net = cnn_new(C, SIDE, SIDE);
    float got[BATCH * C * SIDE * SIDE];
    int evaluating, k;
    cnn_to(net, backend);
    cnn_name(net, "bn1");
    cnn_batch_norm2d(net, .no_affine = no_affine, .eps = .125f);
    if (!no_affine) CHECK(cnn_set(net, "bn1.weight", weight, C) && cnn_set(net, "bn1.bias", bias, C), "%s", error_of(net));
    for (evaluating = 0; evaluating < 2; evaluating++) {
        if (evaluating) cnn_eval(net);
        CHECK(cnn_set(net, "bn1.running_mean", mean, C) && cnn_set(net, "bn1.running_var", var, C), "%s", error_of(net));
        cnn_forward(net, &batch);
        cnn_get(net, "bn1", got, sizeof got / sizeof *got);
        for (k = 0; k < C; k++) {
            double in = 0, m = 0, v = 0, w = 0, b = 0, y = 0, is = (double)got[(k * SIDE + 1) * SIDE + 3];
            FILE *out = tmpfile();
            const char *page, *line;
            float eps = 0;
            cnn_explain(net, "bn1", k, 1, 3, out);
            page = text_of(out);
            CHECK(strstr(page, "layer 1 (batch_norm2d \"bn1\"): y = w (x - mean) / sqrt(var + eps) + b, mean and var ")
                  && strstr(page, evaluating ? "the running ones\n" : "of this batch\n"), "%s", page);
            line = strchr(page, '\n');
            CHECK(line && sscanf(line, " %lf * (%lf - %lf) / sqrt(%lf + %f) + %lf = %lf", &w, &in, &m, &v, &eps, &b, &y) == 7
                  && fabs(w * (in - m) / sqrt(v + (double)eps) + b - y) < 1e-4 && fabs(y - is) < 2e-6, "%s, not %g", page, is);
            CHECK(fabs(w - (no_affine ? 1 : (double)weight[k])) < 1e-6 && fabs(b - (no_affine ? 0 : (double)bias[k])) < 1e-6
                  && fabs((double)eps - .125) < 1e-6 && fabs(in - (double)x[(k * SIDE + 1) * SIDE + 3]) < 1e-6, "%s", page);
            if (evaluating) CHECK(fabs(m - (double)mean[k]) < 1e-6 && fabs(v - (double)var[k]) < 1e-6, "%s", page);
        }
    }
    cnn_free(net);
}

static void is_saved(const char *name)
{
    cnn_net *net = build(), *other = build();
    const char *path = in_folder(name);
    static const float many = 16777216;
    char report[300];
    train(net, 1);
    cnn_set(net, "bn1.num_batches_tracked", &many, 1);
    cnn_forward(net, &batch);                              /* as a float it would stay */
    CHECK(cnn_save(net, path) && cnn_load(other, path) && same_state(net, other), "%s: %s, %s", name, error_of(net), error_of(other));
    cnn_forward(net, &batch);
    cnn_forward(other, &batch);
    CHECK(number(other, "bn1.num_batches_tracked", 0) == many + 2, "%s: it went on at %.9g", name,
          (double)number(other, "bn1.num_batches_tracked", 0));
    cnn_free(other);
    other = cnn_new(C, SIDE, SIDE);
    cnn_conv2d(other, .out_channels = 5, .kernel_size = 3, .padding = 1);
    cnn_name(other, "bn1");
    cnn_batch_norm2d(other, 0);
    CHECK(cnn_load_partly(other, path, report, sizeof report) && !strncmp(report, "4 of 4 parameters loaded; skipped: ", 35)
          && number(other, "bn1.running_mean", 3) != 0, "%s: %s", report, error_of(other));
    cnn_free(other);
    other = cnn_new(C, SIDE, SIDE);
    cnn_conv2d(other, .out_channels = 5, .kernel_size = 3, .padding = 1);
    CHECK(!cnn_load(other, path) && strstr(error_of(other), "bn1 is a BatchNorm, which the network lacks"), "%s", error_of(other));
    remove(path);
    cnn_free(net);
    cnn_free(other);
}

/* Stopped after two epochs and resumed, and the weights of the best epoch: the bits of a run that was never stopped. */
static void is_resumed(void)
{
    cnn_net *whole = build(), *half = build(), *rest = build(), *short_run = build();
    const char *path = in_folder("c.safetensors");
    int epoch;
    cnn_fit(whole, data, held_out, .epochs = 4, .batch_size = BATCH, .keep_best = 1);
    cnn_fit(half, data, held_out, .epochs = 2, .batch_size = BATCH, .keep_best = 1);
    CHECK(cnn_checkpoint_save(half, path) && cnn_checkpoint_load(rest, path) && same_state(half, rest), "%s", error_of(half));
    cnn_fit(rest, data, held_out, .epochs = 4, .batch_size = BATCH, .keep_best = 1);
    CHECK(same_state(whole, rest), "resumed: %s", error_of(rest));
    epoch = cnn_best_epoch(whole);
    cnn_fit(short_run, data, data, .epochs = epoch, .batch_size = BATCH);
    CHECK(epoch < 4 && same_state(whole, short_run), "epoch %d is the best, but the statistics are not its", epoch);
    CHECK(number(whole, "bn2.num_batches_tracked", 0) == (float)(epoch * N / BATCH), "%g batches", (double)number(whole, "bn2.num_batches_tracked", 0));
    remove(path);
    cnn_free(whole);
    cnn_free(half);
    cnn_free(rest);
    cnn_free(short_run);
}

static void threads_change_no_bit(void)
{
    cnn_net *one = build(), *three = build();
    cnn_set_num_threads(one, 1);
    cnn_set_num_threads(three, 3);
    train(one, 2);
    train(three, 2);
    CHECK(same_state(one, three), "other bits: %s %s", error_of(one), error_of(three));
    cnn_free(one);
    cnn_free(three);
}

/* What cnn_predict gives, with the normalisations folded, and what the layers give one after the other */
static double folded_apart(cnn_net *net)
{
    static float folded[N * CLASSES], plain[N * CLASSES];
    cnn_batch all = batch;
    all.size = N;
    cnn_eval(net);
    cnn_forward(net, &all);
    cnn_get(net, cnn_layer_name(net, net->layer_count - 1), plain, N * CLASSES);
    cnn_train(net);
    cnn_predict(net, folded, x, N);
    CHECK(memcmp(folded, plain, sizeof plain), "the same bits: nothing was folded");
    return test_distance(folded, plain, N * CLASSES, 1e-5, 1e-5);
}

static void is_folded(void)
{
    static const float wide[5] = { 3, 2, 1, 3, 2 }, near[7] = { .1f, -.2f, .3f, 0, .5f, 0, -.4f };
    cnn_net *net = build(), *other = build();
    const char *path = in_folder("d.safetensors");
    int step;
    CHECK(cnn_key(net, 0) && net->folds[0].op.last == 3 && net->folds[1].op.last < 0, "convolution, normalisation, relu, pooling: %d",
          net->folds[0].op.last);
    CHECK(net->folds[3].op.last == 7, "linear, normalisation, tanh: %d", net->folds[3].op.last);
    CHECK(folded_apart(net) <= 1, "at the beginning");
    for (step = 0; step < 3; step++) {                     /* each of these changes what is folded */
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        CHECK(folded_apart(net) <= 1, "after a pass");
        cnn_step(net);
        CHECK(folded_apart(net) <= 1, "after a step");
    }
    cnn_set(net, "bn1.running_var", wide, 5);
    CHECK(folded_apart(net) <= 1, "after cnn_set of a variance");
    cnn_set(net, "bn2.running_mean", near, 7);
    CHECK(folded_apart(net) <= 1, "after cnn_set of a mean");
    CHECK(folded_apart(other) <= 1 && cnn_save(net, path) && cnn_load(other, path) && folded_apart(other) <= 1, "after loading");
    cnn_fit(other, data, held_out, .epochs = 3, .batch_size = BATCH, .keep_best = 1);
    CHECK(folded_apart(other) <= 1, "after the best epoch's weights came back");
    CHECK(!cnn_error(net) && !cnn_error(other), "%s, %s", error_of(net), error_of(other));
    remove(path);
    cnn_free(net);
    cnn_free(other);
    net = cnn_new(C, SIDE, SIDE);                          /* groups; no weight and bias; no pooling; what stands between */
    cnn_to(net, backend);
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .groups = 2, .no_bias = 1);
    cnn_batch_norm2d(net, .no_affine = 1, .eps = .1f);
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 4);
    cnn_flatten(net);
    cnn_batch_norm1d(net, 0);
    cnn_linear(net, .out_features = 8);
    cnn_relu(net);
    cnn_batch_norm1d(net, 0);
    cnn_linear(net, .out_features = CLASSES);
    cnn_batch_norm1d(net, .no_running_stats = 1);
    cnn_sgd(net, .lr = .1f);
    train(net, 2);
    CHECK(net->folds[0].op.last == 1 && net->folds[2].op.last < 0 && net->folds[4].op.last < 0 && net->folds[6].op.last < 0
          && folded_apart(net) <= 1, "folded to %d, and %d, %d, %d", net->folds[0].op.last, net->folds[2].op.last, net->folds[4].op.last,
          net->folds[6].op.last);
    cnn_free(net);
}

/* The batch's statistics in evaluation, too; nothing to keep. */
static void without_running_statistics(void)
{
    cnn_net *net = cnn_new(C, SIDE, SIDE);
    float y[BATCH * C * SIDE * SIDE], *one;
    double sum = 0;
    int i;
    cnn_batch_norm2d(net, .no_running_stats = 1, .no_affine = 1);
    cnn_eval(net);
    cnn_forward(net, &batch);
    cnn_get(net, "0", y, sizeof y / sizeof *y);
    for (i = 0; i < BATCH * SIDE * SIDE; i++) {
        one = y + i / (SIDE * SIDE) * C * SIDE * SIDE + i % (SIDE * SIDE);
        sum += (double)*one * *one;
    }
    CHECK(fabs(sum / (BATCH * SIDE * SIDE) - 1) < 1e-3 && net->state_count == 0, "variance %g", sum / (BATCH * SIDE * SIDE));
    cnn_free(net);
}

static void refused(cnn_net *net, const char *sentence)
{
    CHECK(!strcmp(error_of(net), sentence), "%s", error_of(net));
    cnn_free(net);
}

static void is_refused(void)
{
    static const float half = .5f;
    cnn_batch lonely = batch;
    cnn_net *net = build();
    lonely.size = 1;
    cnn_forward(net, &lonely);
    CHECK(!net->pass.batch && net->pass.counters->pass == 0, "half done");
    refused(net, "layer 7 (batch_norm1d \"bn2\"): expected more than 1 value per channel when training, but the batch is 1 sample of 1 "
                 "pixel; use larger batches (.drop_last = 1 leaves out a last one that is smaller), or call cnn_eval first");
    net = build();
    cnn_eval(net);
    cnn_forward(net, &lonely);
    CHECK(!cnn_error(net), "one sample in evaluation: %s", error_of(net));
    CHECK(!cnn_set(net, "bn1.num_batches_tracked", &half, 1), "half a batch");
    refused(net, "cnn_set: \"bn1.num_batches_tracked\" is a whole number of at least 0, not 0.5");
    net = cnn_new(C, SIDE, SIDE);
    cnn_batch_norm1d(net, 0);
    refused(net, "layer 1 (batch_norm1d): needs an input of height 1, but gets 2 x 6 x 6; use batch_norm2d for images");
    net = cnn_new(C, SIDE, SIDE);
    cnn_flatten(net);
    cnn_batch_norm2d(net, 0);
    refused(net, "layer 2 (batch_norm2d): needs channels x height x width, but its input is flat, a vector of 72 values; use "
                 "batch_norm1d after a linear layer");
    net = cnn_new(C, SIDE, SIDE);
    cnn_batch_norm2d(net, .eps = -1);
    refused(net, "layer 1 (batch_norm2d): eps must be at least 0, but is -1");
    net = cnn_new(C, SIDE, SIDE);
    cnn_batch_norm2d(net, .momentum = 1.5f);
    refused(net, "layer 1 (batch_norm2d): momentum must be between 0 and 1, but is 1.5");
}

int main(void)
{
    int i;
    for (i = 0; i < N * C * SIDE * SIDE; i++) x[i] = (float)((7 * i * i + 3 * i) % 23 - 11) / 8 + (float)(i / (C * SIDE * SIDE) % CLASSES);
    for (i = 0; i < N; i++) labels[i] = i % CLASSES, others[i] = (i + 1) % CLASSES, order[i] = i;
    folder_make();
    data = cnn_data_new(.count = N, .channels = C, .height = SIDE, .width = SIDE, .floats = x, .labels = labels, .classes = CLASSES);
    held_out = cnn_data_new(.count = N, .channels = C, .height = SIDE, .width = SIDE, .floats = x, .labels = others, .classes = CLASSES);
    batch.data = data;
    batch.order = order;
    batch.size = BATCH;
    for (i = 0; i < 3; i++) {
        static const char *const names[] = { "simd", "direct", "cuda" };
        backend = names[i];
        if (!cnn_find_backend(backend)) continue;          /* cuda is there where it is linked */
        begins_as_pytorch();
        moves_only_in_training();
        is_explained(0);
        is_explained(1);
        is_saved("b.safetensors");
        is_saved("b.pth");
        is_resumed();
        is_folded();
    }
    backend = "simd";
    a_wrong_gradient_is_found();
    threads_change_no_bit();
    without_running_statistics();
    is_refused();
    cnn_data_free(data);
    cnn_data_free(held_out);
    folder_remove();
    return test_end("norm");
}
