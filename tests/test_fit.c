/* test_fit.c - cnn_fit beside the same loop written by hand: equal bit for bit in every option, and what it reports on the way. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

enum { TRAIN = 53, TEST = 21, MOST = 4096 };

static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

#define CHECK_FINE(net) CHECK(!cnn_error(net), "%s", error_of(net))

static cnn_data *data_of(int count, uint64_t seed)         /* 1 x 4 x 4, three classes, which the brightest corner tells */
{
    static float values[4][MOST];
    static int labels[4][TRAIN];
    static int turn;
    uint32_t r[4];
    int i;
    turn = (turn + 1) % 4;
    for (i = 0; i < count * 16; i++) {
        cnn_random(r, seed, 1, 0, (uint32_t)i);
        values[turn][i] = (float)(r[0] >> 8) / 16777216;
    }
    for (i = 0; i < count; i++) {
        labels[turn][i] = (int)(seed + (uint64_t)(7 * i + i / 5)) % 3;
        values[turn][16 * i + 5 * labels[turn][i]] += 1.5f;
    }
    return cnn_data_new(.count = count, .channels = 1, .height = 4, .width = 4, .classes = 3, .floats = values[turn], .labels = labels[turn]);
}

typedef enum schedule { NONE, STEP, COSINE, ONE_CYCLE } schedule;

static cnn_net *net_of(const char *backend, schedule s, int batches)
{
    cnn_net *net = cnn_new(1, 4, 4);
    cnn_to(net, backend);
    cnn_manual_seed(net, 11);
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_dropout(net, .p = 0.25f);
    cnn_linear(net, .out_features = 3);
    cnn_adam(net, .lr = 0.02f);
    if (s == STEP) cnn_step_lr(net, .step_size = 2, .gamma = 0.5f);
    if (s == COSINE) cnn_cosine_lr(net, .t_max = 5);
    if (s == ONE_CYCLE) cnn_one_cycle_lr(net, .max_lr = 0.05f, .total_steps = batches * 4);
    return net;
}

/* ---- the loop by hand ---- */

typedef struct by_hand {
    int epochs, batch_size, test_batch_size, keep_order, keep_last;
    cnn_loss_kind loss;
    float clip;
    schedule schedule;
    cnn_epoch history[8];                                  /* what it found; the seconds stay 0 */
} by_hand;

static void take_loss(cnn_net *net, const cnn_batch *batch, cnn_loss_kind loss)
{
    if (loss == CNN_MSE) cnn_mse_loss(net, batch);
    else cnn_cross_entropy(net, batch);
}

static void loop(cnn_net *net, const cnn_data *train, const cnn_data *test, by_hand *o, int first_epoch)
{
    cnn_loader *loader = cnn_loader_new(train, .batch_size = o->batch_size, .shuffle = !o->keep_order, .drop_last = !o->keep_last, .seed = 11);
    cnn_batch batch;
    int e;
    for (e = first_epoch; e < o->epochs; e++) {
        cnn_epoch *h = &o->history[e];
        memset(h, 0, sizeof *h);
        h->epoch = e + 1;
        h->lr = cnn_lr(net);
        cnn_set_epoch(loader, e);
        cnn_train(net);
        while (cnn_next(loader, &batch)) {
            cnn_forward(net, &batch);
            take_loss(net, &batch, o->loss);
            h->train.loss += (double)cnn_loss(net) * batch.size;
            h->train.accuracy += cnn_correct(net);
            h->train.count += batch.size;
            cnn_zero_grad(net);
            cnn_backward(net);
            if (o->clip > 0) cnn_clip_grad_norm(net, o->clip);
            cnn_step(net);
            if (o->schedule == ONE_CYCLE) cnn_scheduler_step(net);
        }
        h->train.loss /= h->train.count;
        h->train.accuracy /= h->train.count;
        if (test) h->test = cnn_evaluate(net, test, o->test_batch_size, o->loss);
        if (o->schedule == STEP || o->schedule == COSINE) cnn_scheduler_step(net);
    }
    cnn_loader_free(loader);
    CHECK_FINE(net);
}

static int same_weights(cnn_net *a, cnn_net *b)
{
    static float w[2][MOST];
    const char *key;
    int i;
    for (i = 0; (key = cnn_key(a, i)) != NULL; i++) {
        size_t count = cnn_get(a, key, w[0], MOST);
        if (!count || cnn_get(b, key, w[1], MOST) != count || memcmp(w[0], w[1], sizeof(float) * count)) return 0;
    }
    return i > 0;
}

static void check_history(cnn_net *net, const by_hand *o, int tested, const char *what)
{
    int count, e;
    const cnn_epoch *h = cnn_history(net, &count);
    CHECK(count == o->epochs, "%s: %d epochs", what, count);
    for (e = 0; e < count; e++) {
        const cnn_epoch *r = &o->history[e];
        CHECK(h[e].epoch == e + 1 && h[e].lr == r->lr, "%s: epoch %d: number %d, rate %g, not %g", what, e + 1, h[e].epoch, (double)h[e].lr, (double)r->lr);
        CHECK(h[e].train.count == r->train.count && fabs(h[e].train.loss - r->train.loss) < 1e-6 && fabs(h[e].train.accuracy - r->train.accuracy) < 1e-12,
              "%s: epoch %d: training %d %g %g, not %d %g %g", what, e + 1, h[e].train.count, h[e].train.loss, h[e].train.accuracy, r->train.count,
              r->train.loss, r->train.accuracy);
        CHECK(h[e].test.count == (tested ? TEST : 0) && h[e].test.loss == r->test.loss && h[e].test.accuracy == r->test.accuracy, "%s: epoch %d: test", what, e + 1);
        CHECK(h[e].seconds > 0 && h[e].seconds < 10, "%s: %g seconds", what, h[e].seconds);
    }
}

static void check_fit(const char *backend, by_hand o, int tested, const char *what)
{
    cnn_data *train = data_of(TRAIN, 1), *test = tested ? data_of(TEST, 2) : NULL;
    int batch_size = o.batch_size ? o.batch_size : 128, batches = o.keep_last ? (TRAIN + batch_size - 1) / batch_size : TRAIN / batch_size;
    cnn_net *net = net_of(backend, o.schedule, batches), *hand = net_of(backend, o.schedule, batches);
    cnn_eval(net);                                         /* cnn_fit turns dropout on by itself */
    CHECK(cnn_fit(net, train, test, .epochs = o.epochs, .batch_size = o.batch_size, .test_batch_size = o.test_batch_size, .loss = o.loss,
                  .clip_grad_norm = o.clip, .keep_order = o.keep_order, .keep_last = o.keep_last), "%s: %s", what, error_of(net));
    if (!o.epochs) o.epochs = 1;
    o.batch_size = batch_size;
    loop(hand, train, test, &o, 0);
    CHECK(same_weights(net, hand), "%s, %s: other weights than the loop's", backend, what);
    CHECK(cnn_lr(net) == cnn_lr(hand), "%s: rate %g", what, (double)cnn_lr(net));
    CHECK(!net->pass.evaluating, "%s: the mode", what);
    check_history(net, &o, tested, what);
    cnn_free(net); cnn_free(hand);
    cnn_data_free(train); cnn_data_free(test);
}

static void test_options(const char *backend)
{
    by_hand o = { 3, 10, 0, 0, 0, CNN_CROSS_ENTROPY, 0, NONE, { { 0, { 0, 0, 0 }, { 0, 0, 0 }, 0, 0 } } }, plain = o;
    check_fit(backend, o, 1, "plain");
    o.keep_order = 1; check_fit(backend, o, 0, "keep_order"); o = plain;
    o.keep_last = 1; check_fit(backend, o, 1, "keep_last"); o.test_batch_size = 4; check_fit(backend, o, 1, "test_batch_size"); o = plain;
    o.clip = 0.05f; check_fit(backend, o, 0, "clip"); o = plain;
    o.loss = CNN_MSE; check_fit(backend, o, 1, "mse"); o = plain;
    o.schedule = STEP; o.epochs = 5; check_fit(backend, o, 0, "step");
    o.schedule = COSINE; check_fit(backend, o, 1, "cosine");
    o.schedule = ONE_CYCLE; o.epochs = 4; check_fit(backend, o, 0, "one-cycle"); o = plain;
    o.epochs = 0; o.batch_size = 0; o.keep_last = 1; check_fit(backend, o, 1, "the defaults"); o = plain;
    o.epochs = 6; o.batch_size = 1; o.keep_order = o.keep_last = 1; o.schedule = STEP; o.clip = 0.5f; o.loss = CNN_MSE; check_fit(backend, o, 1, "all at once");
}

/* 128 is the default: of 130 samples two are left out, of 256 none. */
static void test_default_batch(void)
{
    static float values[260];
    static int labels[260];
    static const int counts[] = { 127, 128, 130, 256 };
    int i, k;
    for (i = 0; i < 260; i++) labels[i] = i % 2, values[i] = (float)(i % 7) - 3;
    for (k = 0; k < 4; k++) {
        cnn_data *data = cnn_data_new(.count = counts[k], .channels = 1, .height = 1, .width = 1, .classes = 2, .floats = values, .labels = labels);
        cnn_net *net = cnn_new(1, 1, 1);
        int count = 0;
        cnn_flatten(net);
        cnn_linear(net, .out_features = 2);
        cnn_sgd(net, .lr = 0.1f);
        cnn_fit(net, data, NULL, .keep_order = 1);
        if (k) CHECK(cnn_history(net, &count)->train.count == (counts[k] < 256 ? 128 : 256) && count == 1, "of %d", counts[k]);
        else CHECK(cnn_error(net), "no batch of 128 in 127 samples");
        cnn_free(net);
        cnn_data_free(data);
    }
}

/* Two calls go on where the first one stopped, also through a checkpoint; a third call has nothing to do. */
static void test_resume(void)
{
    by_hand o = { 5, 10, 0, 0, 0, CNN_CROSS_ENTROPY, 0, STEP, { { 0, { 0, 0, 0 }, { 0, 0, 0 }, 0, 0 } } };
    cnn_data *train = data_of(TRAIN, 1), *test = data_of(TEST, 2);
    cnn_net *net = net_of("simd", STEP, 5), *other = net_of("simd", STEP, 5), *hand = net_of("simd", STEP, 5);
    const char *path = in_folder("net.checkpoint");
    int count;
    double seconds;
    CHECK(cnn_fit(net, train, test, .epochs = 2, .batch_size = 10) && cnn_checkpoint_save(net, path), "%s", error_of(net));
    CHECK(cnn_checkpoint_load(other, path) && cnn_fit(other, train, test, .epochs = 5, .batch_size = 10), "%s", error_of(other));
    CHECK(cnn_fit(net, train, test, .epochs = 5, .batch_size = 10), "%s", error_of(net));
    loop(hand, train, test, &o, 0);
    CHECK(same_weights(net, hand) && same_weights(other, hand), "stopped and gone on");
    check_history(net, &o, 1, "gone on");
    check_history(other, &o, 1, "from a checkpoint");
    seconds = cnn_history(net, &count)[4].seconds;
    CHECK(cnn_fit(net, train, test, .epochs = 5, .batch_size = 10) && cnn_fit(net, train, test, .epochs = 3, .batch_size = 10), "%s", error_of(net));
    CHECK(cnn_history(net, &count)[4].seconds == seconds && count == 5 && same_weights(net, hand), "an epoch too many");
    remove(path);
    cnn_free(net); cnn_free(other); cnn_free(hand);
    cnn_data_free(train); cnn_data_free(test);
}

/* ---- what it reports ---- */

typedef struct seen { int calls; FILE *log; long at[4]; cnn_epoch epochs[4]; } seen;

static void look(cnn_net *net, const cnn_epoch *epoch, void *user)
{
    seen *s = (seen *)user;
    int count;
    cnn_history(net, &count);
    CHECK(count == s->calls + 1, "called after %d epochs", count);
    fflush(s->log);
    s->at[s->calls] = ftell(s->log);                       /* its line is already in the log */
    s->epochs[s->calls++] = *epoch;
}

static void test_log(int tested)
{
    cnn_data *train = data_of(TRAIN, 1), *test = tested ? data_of(TEST, 2) : NULL;
    cnn_net *net = net_of("simd", NONE, 0);
    const cnn_epoch *h;
    const char *text;
    char line[300];
    seen s = { 0, NULL, { 0, 0, 0, 0 }, { { 0, { 0, 0, 0 }, { 0, 0, 0 }, 0, 0 } } };
    int count, e;
    s.log = tmpfile();
    CHECK(cnn_fit(net, train, test, .epochs = 3, .batch_size = 10, .log = s.log, .each_epoch = look, .user = &s), "%s", error_of(net));
    h = cnn_history(net, &count);
    CHECK(s.calls == 3, "%d calls", s.calls);
    text = text_of(s.log);
    for (e = 0; e < 3; e++) {
        int length = sprintf(line, "epoch %d/3 train_loss %.4f train_acc %.2f%%", e + 1, h[e].train.loss, 100 * h[e].train.accuracy);
        if (tested) length += sprintf(line + length, " test_loss %.4f test_acc %.2f%%", h[e].test.loss, 100 * h[e].test.accuracy);
        length += sprintf(line + length, " seconds %.1f\n", h[e].seconds);
        CHECK(!strncmp(text, line, (size_t)length), "%.100s instead of %s", text, line);
        text += length;
        CHECK(!memcmp(&s.epochs[e].train, &h[e].train, sizeof h[e].train) && s.epochs[e].epoch == e + 1 && s.epochs[e].lr == h[e].lr, "epoch %d as each_epoch sees it", e + 1);
        CHECK(s.at[e] >= (e + 1) * 40L, "the line of epoch %d comes first", e + 1);
    }
    CHECK(!*text, "the log goes on: %s", text);
    cnn_free(net);
    cnn_data_free(train); cnn_data_free(test);
}

/* Without a terminal: four lines an epoch, at each quarter, with the scores so far. */
static void test_progress_lines(void)
{
    cnn_data *train = data_of(TRAIN, 1);
    cnn_net *net = net_of("simd", NONE, 0), *hand = net_of("simd", NONE, 0);
    FILE *progress = tmpfile();
    cnn_loader *loader = cnn_loader_new(train, .batch_size = 5, .shuffle = 1, .drop_last = 1, .seed = 11);
    cnn_batch batch;
    const char *text;
    int e, done, samples, minutes, seconds, length;
    double speed;
    CHECK(cnn_fit(net, train, NULL, .epochs = 2, .batch_size = 5, .progress = progress), "%s", error_of(net));
    text = text_of(progress);
    for (e = 0; e < 2; e++) {
        double sum = 0, correct = 0;
        done = samples = 0;
        cnn_train(hand);
        while (cnn_next(loader, &batch)) {
            cnn_forward(hand, &batch);
            cnn_cross_entropy(hand, &batch);
            sum += (double)cnn_loss(hand) * batch.size;
            correct += cnn_correct(hand);
            samples += batch.size;
            cnn_zero_grad(hand);
            cnn_backward(hand);
            cnn_step(hand);
            done++;
            if (4 * done / 10 != 4 * (done - 1) / 10) {    /* of ten batches: after the 3rd, 5th, 8th, 10th */
                char head[40], tail[80];
                sprintf(head, "epoch %d/2 %3d%% ", e + 1, 10 * done);
                sprintf(tail, " left loss %.4f acc %.2f%%\n", sum / samples, 100 * correct / samples);
                CHECK(!strncmp(text, head, strlen(head)), "%.100s instead of %s", text, head);
                text += strlen(head);
                length = 0;
                CHECK(sscanf(text, "%lf samples/s %d:%2d%n", &speed, &minutes, &seconds, &length) == 3 && speed > 100 && minutes == 0 && seconds < 10, "%.100s", text);
                text += length;
                CHECK(!strncmp(text, tail, strlen(tail)), "%.100s instead of %s", text, tail);
                text += strcspn(text, "\n") + 1;
            }
        }
    }
    CHECK(!*text, "more lines: %s", text);
    cnn_loader_free(loader);
    cnn_free(net); cnn_free(hand);
    cnn_data_free(train);
}

/* Speed and time left from a clock that is known: 30 of 40 batches of 8 in 90 seconds. */
/* Where columns are few, the rate goes first, then the time that is left, then the bar; the line never fills the last column. */
static void test_progress_width(void)
{
    static const struct { int columns, bar; const char *tail; } cases[] = {
        { 90, 23, " 50% 9000 samples/s 0:12 left loss 0.1234 acc 97.12%" }, { 72, 5, " 50% 9000 samples/s 0:12 left loss 0.1234 acc 97.12%" },
        { 71, 19, " 50% 0:12 left loss 0.1234 acc 97.12%" }, { 57, 5, " 50% 0:12 left loss 0.1234 acc 97.12%" },
        { 56, 14, " 50% loss 0.1234 acc 97.12%" }, { 47, 5, " 50% loss 0.1234 acc 97.12%" }, { 46, 0, " 50% loss 0.1234 acc 97.12%" },
        { 30, 0, " 50% loss 0.1234 acc 97.12%" }, { 200, 24, " 50% 9000 samples/s 0:12 left loss 0.1234 acc 97.12%" } };
    size_t k;
    for (k = 0; k < sizeof cases / sizeof *cases; k++) {
        char line[400], wanted[400] = "epoch 1/30 ";
        int bar = cases[k].bar, i, length = cnn__progress_line(line, cases[k].columns, wanted, 0.5, "9000 samples/s ", "0:12 left ", "loss 0.1234 acc 97.12%");
        if (bar) {
            strcat(wanted, "[");
            for (i = 0; i < bar; i++) strcat(wanted, i < bar / 2 ? "=" : i == bar / 2 ? ">" : " ");
            strcat(wanted, "] ");
        }
        strcat(wanted, cases[k].tail);
        wanted[cases[k].columns - 1] = 0;
        CHECK(!strcmp(line, wanted) && length == (int)strlen(line), "%d columns: \"%s\", not \"%s\"", cases[k].columns, line, wanted);
    }
}

static void test_progress_time(void)
{
    static const struct { int done, bar; double ago, shown; int minutes, seconds, printed; } cases[] = {
        { 30, 0, 90, 0, 0, 30, 1 }, { 10, 0, 60, 0, 3, 0, 1 }, { 11, 0, 66, 0, 0, 0, 0 }, { 10, 1, 60, 1, 3, 0, 1 }, { 13, 1, 60, 0.01, 0, 0, 0 },
        { 15, 1, 90, 0.11, 2, 30, 1 }, { 40, 1, 60, 0.01, 0, 0, 1 }, { 40, 0, 60, 0, 0, 0, 1 }, { 1, 1, 3, 1, 1, 57, 1 },
        { 39, 1, 39, 1, 0, 1, 1 } };
    cnn_net *net = net_of("simd", NONE, 0);
    size_t k;
    CHECK(cnn_num_parameters(net), "%s", error_of(net));
    for (k = 0; k < sizeof cases / sizeof *cases; k++) {
        cnn_fit_options o;
        cnn__progress p;
        const char *text, *at;
        int done, minutes, seconds, percent;
        double speed, now = cnn__seconds();
        memset(&o, 0, sizeof o);
        o.epochs = 3; o.progress = tmpfile(); o.progress_bar = cases[k].bar;
        done = cases[k].done;
        p.begun = now - cases[k].ago;
        p.shown = now - cases[k].shown;
        p.quarter = done == 11 ? 1 : 0;
        p.length = 79;                                     /* as long as the line before, which must be covered */
        cnn__show_progress(net, &o, &p, 2, done, 40, 8);
        text = text_of(o.progress);
        CHECK(!*text == !cases[k].printed, "case %d: %s", (int)k, text);
        if (!cases[k].printed) continue;
        CHECK(p.quarter == done / 10 && p.shown >= now && p.shown < now + 5, "case %d: quarter %d", (int)k, p.quarter);
        at = strstr(text, "epoch 2/3 ");
        CHECK(at && (cases[k].bar ? at == text + 1 && *text == '\r' : at == text), "case %d: %s", (int)k, text);
        if (!at) continue;
        if (cases[k].bar) {                                /* a bar of = with > at its end: the share of its width is done's */
            const char *open = strchr(at, '['), *close = strchr(at, ']');
            int width = open && close ? (int)(close - open) - 1 : 0, i;
            CHECK(width >= 8, "case %d: the bar: %s", (int)k, text);
            for (i = 0; i < width; i++) CHECK(open[1 + i] == (i < width * done / 40 ? '=' : i == width * done / 40 ? '>' : ' '), "case %d: place %d of the bar: %s", (int)k, i, text);
            at = close ? close + 1 : at;
            CHECK(strcspn(text + 1, "\r") == 79, "case %d: %d columns of the line before are covered", (int)k, (int)strcspn(text + 1, "\r"));
            CHECK((text[strlen(text) - 1] == '\r') == (done == 40) && (done < 40 || strspn(strchr(text + 1, '\r') + 1, " ") == (size_t)p.length),
                  "case %d: the bar goes when the epoch ends", (int)k);
        } else {
            at += 10;
            CHECK(text[strlen(text) - 1] == '\n', "a line");
        }
        CHECK(sscanf(at, "%d%% %lf samples/s %d:%d left loss", &percent, &speed, &minutes, &seconds) == 4 && abs(percent * 2 - 5 * done) <= 1
              && fabs(speed - done * 8 / cases[k].ago) < 0.6 && abs(minutes * 60 + seconds - cases[k].minutes * 60 - cases[k].seconds) <= 1,
              "case %d: %s", (int)k, text);
    }
    cnn_free(net);
}

/* At the batches the doctor looks at the loss of the first and of every 50th: a NaN of batch 50, counted from 0, is seen there. */
static void test_doctor(void)
{
    static const struct { int batches, spoiled, said; } cases[] = { { 51, -1, 0 }, { 51, 50, 1 }, { 1, 0, 1 }, { 50, 49, 0 }, { 50, 1, 0 }, { 100, 51, 0 },
                                                                    { 101, 51, 1 } };
    static float x[120];
    static int labels[120];
    size_t k;
    int i;
    for (i = 0; i < 120; i++) labels[i] = i % 2;
    for (k = 0; k < sizeof cases / sizeof *cases; k++) {
        cnn_net *net = cnn_new(1, 1, 1);
        cnn__doctor doctor = { NULL, 0, 0 };
        cnn_fit_options o;
        cnn_data *data;
        cnn_loader *loader;
        const char *text;
        memset(&o, 0, sizeof o);
        for (i = 0; i < 120; i++) x[i] = i == cases[k].spoiled ? NAN : (float)(i % 5) / 4;
        data = cnn_data_new(.count = cases[k].batches, .channels = 1, .height = 1, .width = 1, .classes = 2, .floats = x, .labels = labels);
        cnn_flatten(net);
        cnn_linear(net, .out_features = 2);
        cnn_sgd(net, .lr = 0.125f);
        CHECK(cnn_num_parameters(net) == 4, "%s", error_of(net));
        loader = cnn_loader_new(data, .batch_size = 1);
        doctor.out = tmpfile();
        cnn__train_epoch(net, loader, &o, 2, &doctor);     /* no epoch's end: only what is seen at batches */
        text = text_of(doctor.out);
        CHECK(cases[k].said ? strstr(text, "nan: the numbers have overflowed") && strstr(text, "smaller than 0.125,") : !*text, "%d of %d: %s",
              cases[k].spoiled, cases[k].batches, text);
        CHECK(doctor.said == (cases[k].said ? CNN__SAID_NAN : 0), "said %d", doctor.said);
        CHECK_FINE(net);
        cnn_loader_free(loader);
        cnn_free(net);
        cnn_data_free(data);
    }
}

/* The doctor looks at the inputs of the first batch of all, and at no other's. */
static void test_first_batch(void)
{
    static float pixels[2][32];
    static const int labels[2] = { 0, 1 };
    int large, i;
    for (large = 0; large < 2; large++) {
        cnn_net *net = cnn_new(1, 4, 8);
        cnn_data *data;
        FILE *doctor = tmpfile();
        const char *text;
        for (i = 0; i < 32; i++) {                         /* one of the two samples is not scaled */
            pixels[large][i] = (float)(i + 1);
            pixels[!large][i] = (float)i / 32;
        }
        cnn_flatten(net);
        cnn_linear(net, .out_features = 2);
        cnn_sgd(net, .lr = 1e-6f);
        data = cnn_data_new(.count = 2, .channels = 1, .height = 4, .width = 8, .classes = 2, .floats = pixels[0], .labels = labels);
        CHECK(cnn_fit(net, data, NULL, .epochs = 2, .batch_size = 1, .keep_order = 1, .doctor = doctor), "%s", error_of(net));
        text = text_of(doctor);
        CHECK((strstr(text, "the inputs reach 32;") != NULL) == !large, "sample %d is large, and the first batch is sample 0: %s", large, text);
        cnn_free(net);
        cnn_data_free(data);
    }
}

static void test_errors(void)
{
    cnn_data *train = data_of(TRAIN, 1), *missing = cnn_load_idx("no", "such", 3);
    cnn_net *net = net_of("simd", NONE, 0), *without = cnn_new(1, 4, 4);
    int count;
    CHECK(!cnn_fit(net, train, NULL, .epochs = -1) && strstr(error_of(net), "epochs must be at least 0, not -1"), "%s", error_of(net));
    cnn_clear_error(net);
    CHECK(!cnn_fit(net, train, NULL, .test_batch_size = -1) && strstr(error_of(net), "test_batch_size must be at least 1, not -1"), "%s", error_of(net));
    cnn_clear_error(net);
    CHECK(!cnn_fit(net, train, NULL, .loss = (cnn_loss_kind)2) && strstr(error_of(net), "loss 2 is neither"), "%s", error_of(net));
    cnn_clear_error(net);
    CHECK(!cnn_fit(net, train, missing, .epochs = 1) && !strcmp(error_of(net), missing->error), "%s", error_of(net));
    cnn_clear_error(net);
    CHECK(!cnn_fit(net, missing, NULL, .epochs = 1) && !strcmp(error_of(net), missing->error), "%s", error_of(net));
    cnn_clear_error(net);
    cnn_history(net, &count);
    CHECK(count == 0 && !cnn_history(NULL, &count) && count == 0 && cnn_fit(net, train, NULL, .batch_size = TRAIN), "none of it was trained: %s", error_of(net));
    cnn_flatten(without);
    cnn_linear(without, .out_features = 3);
    CHECK(!cnn_fit(without, train, NULL, .epochs = 1) && strstr(error_of(without), "no optimizer"), "%s", error_of(without));
    cnn_free(net); cnn_free(without);
    cnn_data_free(train); cnn_data_free(missing);
}

int main(void)
{
    folder_make();
    test_options("direct");
    test_options("simd");
    if (cnn_find_backend("cuda")) test_options("cuda");
    test_default_batch();
    test_resume();
    test_log(0);
    test_log(1);
    test_progress_lines();
    test_progress_width();
    test_progress_time();
    test_doctor();
    test_first_batch();
    test_errors();
    folder_remove();
    return test_end("fit");
}
