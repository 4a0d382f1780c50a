/* test_augment.c - pictures changed at random while a batch is gathered.

   1. Every pixel against formulas of the test's own: the padded picture cut out as resnet_pytorch.py does it; rotation in
      polar coordinates, and the bilinear mean as a sum over all pixels.
   2. Chance: every place of the crop and both sides come up equally often; angles and sizes fill their ranges.
   3. The same picture for the same (seed, epoch, sample): on every backend, with any batch, order and number of threads, from
      bytes and floats, from samples that stay and samples that are sent.
   4. Only training is augmented.
   5. A loop of one's own, cnn_fit, and a run that went on from a checkpoint end with the same bits.
   6. Mistakes are one sentence. */
#define _POSIX_C_SOURCE 200112L
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

enum { CHANNELS = 2, HEIGHT = 7, WIDTH = 9, PIXELS = HEIGHT * WIDTH, VALUES = CHANNELS * PIXELS, SAMPLES = 23, CLASSES = 3 };
enum { MOST = 6 };

static unsigned char bytes[SAMPLES * VALUES];
static float floats[SAMPLES * VALUES];      /* bytes / 255 */
static int labels[SAMPLES];
static cnn_backend tables[MOST];            /* direct first; cuda and cuda_naive where they are linked */
static int table_count;

static void make_samples(void)
{
    size_t i;
    for (i = 0; i < sizeof bytes; i++) {
        uint32_t r[4];
        cnn_random(r, 8, 0, 0, (uint32_t)i);
        bytes[i] = (unsigned char)(1 + r[0] % 255);        /* 0 is what comes in from outside */
        floats[i] = 1.0f / 255 * (float)bytes[i];
    }
    for (i = 0; i < SAMPLES; i++) labels[i] = (int)(i % CLASSES);
}

static void list_tables(void)
{
    static const char *const names[] = { "direct", "simd", "cuda", "cuda_naive" };
    size_t i;
    for (i = 0; i < 4; i++) if (cnn_find_backend(names[i])) tables[table_count++] = *cnn_find_backend(names[i]);
    for (i = 0; i < 2; i++) {               /* these get each batch of samples sent, packed */
        tables[table_count] = *cnn_find_backend(names[i]);
        tables[table_count].name = i ? "simd, apart" : "direct, apart";
        tables[table_count++].reads_host = 0;
    }
}

static cnn_data *new_data(int as_floats, int constant)
{
    return as_floats ? cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = HEIGHT, .width = WIDTH, .classes = CLASSES,
                                    .floats = floats, .labels = labels, .constant = constant)
                     : cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = HEIGHT, .width = WIDTH, .classes = CLASSES,
                                    .bytes = bytes, .labels = labels, .constant = constant);
}

static cnn_net *eye(const cnn_backend *backend, int channels, int height, int width)   /* puts out what it sees */
{
    cnn_net *net = cnn_new(channels, height, width);
    if (backend) cnn_use_backend(net, backend);
    cnn_flatten(net);
    return net;
}

/* An epoch of the loader as the network sees it: sample i of the data set at x + i * values. 1, or 0 and a message */
static int look(cnn_net *net, cnn_loader *loader, int epoch, float *x, size_t values)
{
    static float batch_of[1 << 16];
    cnn_batch batch;
    int n, seen = 0;
    cnn_set_epoch(loader, epoch);
    while (cnn_next(loader, &batch)) {
        size_t size = (size_t)batch.size * values;
        cnn_forward(net, &batch);
        if (cnn_get(net, "0", batch_of, sizeof batch_of / sizeof *batch_of) != size) break;
        for (n = 0; n < batch.size; n++, seen++) memcpy(x + (size_t)batch.order[n] * values, batch_of + (size_t)n * values, sizeof *x * values);
    }
    CHECK(!cnn_error(net) && seen, "%s", cnn_error(net) ? cnn_error(net) : "nothing was dealt");
    return !cnn_error(net) && seen;
}

/* ---- 1. every pixel ---- */

static void words_of(uint32_t word[4], uint64_t seed, int epoch, int sample)
{
    cnn_random(word, seed, 0x10004, (uint64_t)epoch, (uint32_t)sample);    /* the stream is part of what files of results rely on */
}

static int place(uint32_t word, int padding) { return (int)floor(ldexp(word, -32) * (2 * padding + 1)); }      /* 0 .. 2 padding */
static double symmetric(uint32_t word) { return ldexp(word >> 8, -23) - 1; }                                   /* [-1, 1) */

/* resnet_pytorch.py: pad, mirror the columns, cut out */
static double cropped(const double *z, const cnn_augment_options *a, const uint32_t word[4], int row, int column)
{
    static double padded[(HEIGHT + 12) * (WIDTH + 12)];
    int pad = a->padding, wide = WIDTH + 2 * pad, j, i;
    for (i = 0; i < wide * (HEIGHT + 2 * pad); i++) padded[i] = 0;
    for (j = 0; j < HEIGHT; j++) for (i = 0; i < WIDTH; i++) padded[(j + pad) * wide + i + pad] = z[j * WIDTH + i];
    if (a->flip && word[2] % 2) column = WIDTH - 1 - column;
    return padded[(row + place(word[0], pad)) * wide + column + place(word[1], pad)];
}

static double turned(const double *z, const cnn_augment_options *a, const uint32_t word[4], int row, int column)
{
    double q = row + place(word[0], a->padding) - a->padding - (HEIGHT - 1) / 2.0, sum = 0;
    double p = (a->flip && word[2] % 2 ? WIDTH - 1 - column : column) + place(word[1], a->padding) - a->padding - (WIDTH - 1) / 2.0;
    double angle = atan2(p, q) + a->rotation * symmetric(word[2]) * acos(-1) / 180, far = hypot(p, q) / (1 + a->scale * symmetric(word[3]));
    int j, i;
    q = far * cos(angle) + (HEIGHT - 1) / 2.0;
    p = far * sin(angle) + (WIDTH - 1) / 2.0;
    for (j = 0; j < HEIGHT; j++)
        for (i = 0; i < WIDTH; i++) sum += z[j * WIDTH + i] * fmax(0, 1 - fabs(q - j)) * fmax(0, 1 - fabs(p - i));
    return sum;
}

static void test_pixels(void)
{
    static const cnn_augment_options all[] = {
        { 0, 0, 0, 0 }, { 2, 0, 0, 0 }, { 0, 1, 0, 0 }, { 6, 1, 0, 0 }, { 0, 0, 45, 0 }, { 0, 0, 0, .25f }, { 0, 1, 180, .9f }, { 3, 1, 30, .1f } };
    static const float mean[CHANNELS] = { .4f, .6f }, deviation[CHANNELS] = { .25f, .2f };
    static float x[SAMPLES * VALUES];
    size_t k;
    int t, epoch, sample, c, i;
    for (t = 0; t < table_count; t++)
        for (k = 0; k < sizeof all / sizeof *all; k++) {
            const cnn_augment_options *a = &all[k];
            cnn_data *data = new_data(0, k % 2);
            cnn_loader *loader = cnn_loader_new(data, .batch_size = 5, .shuffle = 1, .augment = *a, .seed = 0x123456789abcdefULL);
            cnn_net *net = eye(&tables[t], CHANNELS, HEIGHT, WIDTH);
            double worst = 0;
            int zeros = 0, foreign = 0;
            cnn_normalize(data, mean, deviation);
            for (epoch = 0; epoch < 3 && look(net, loader, epoch, x, VALUES); epoch++)
                for (sample = 0; sample < SAMPLES; sample++)
                    for (c = 0; c < CHANNELS; c++) {
                        const unsigned char *from = bytes + (sample * CHANNELS + c) * PIXELS;
                        double z[PIXELS];
                        uint32_t word[4];
                        words_of(word, 0x123456789abcdefULL, epoch, sample);
                        for (i = 0; i < PIXELS; i++) z[i] = (from[i] / 255.0 - mean[c]) / deviation[c];
                        for (i = 0; i < PIXELS; i++) {
                            double is = x[(sample * CHANNELS + c) * PIXELS + i], turns = a->rotation > 0 || a->scale > 0;
                            double should = (turns ? turned : cropped)(z, a, word, i / WIDTH, i % WIDTH);
                            if (!(fabs(is - should) <= worst)) worst = fabs(is - should);
                            zeros += should == 0;
                            foreign += should == 0 && is != 0;
                        }
                    }
            CHECK(worst < 1e-6, "%s: padding %d, flip %d, rotation %g, scale %g: a pixel is off by %g", tables[t].name, a->padding, a->flip,
                  a->rotation, a->scale, worst);
            CHECK(!foreign && !zeros == !(a->padding || a->rotation > 0 || a->scale > 0), "%s: case %d: of %d pixels from outside, %d are not 0",
                  tables[t].name, (int)k, zeros, foreign);
            cnn_free(net); cnn_loader_free(loader); cnn_data_free(data);
        }
}

/* ---- 2. chance ---- */

static void test_chance(void)
{
    enum { SIDE = 5, EPOCHS = 40, COUNT = 200, PAD = 2, PLACES = (2 * PAD + 1) * (2 * PAD + 1), DRAWS = EPOCHS * COUNT };
    static unsigned char dots[COUNT * SIDE * SIDE];
    static float x[COUNT * SIDE * SIDE];
    int times[2][PLACES] = { { 0 } }, epoch, n, i, mirrored = 0, unclear = 0, again = 0;
    double chi = 0, expected = DRAWS / (2.0 * PLACES), limits[4] = { 9, -9, 9, -9 }, moments[3] = { 0 };
    cnn_data *data = cnn_data_new(.count = COUNT, .channels = 1, .height = SIDE, .width = SIDE, .bytes = dots, .constant = 1);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = COUNT, .augment = { .padding = PAD, .flip = 1 });
    cnn_net *net = eye(NULL, 1, SIDE, SIDE);
    for (n = 0; n < COUNT; n++) {           /* 60 100 50 in the middle */
        unsigned char *middle = dots + n * SIDE * SIDE + 12;
        middle[-1] = 60; middle[0] = 100; middle[1] = 50;
    }
    for (epoch = 0; epoch < EPOCHS && look(net, loader, epoch, x, SIDE * SIDE); epoch++)
        for (n = 0; n < COUNT; n++) {
            const float *p = x + n * SIDE * SIDE;
            int at = 0, left, right, side;
            while (at < PLACES - 1 && p[at] < .35f) at++;  /* 100 / 255 is .39 */
            left = at % SIDE ? (int)lrintf(255 * p[at - 1]) : 0;
            right = at % SIDE < SIDE - 1 ? (int)lrintf(255 * p[at + 1]) : 0;
            side = left == 50 || right == 60;
            unclear += side == (left == 60 || right == 50);
            times[side][at]++;
            mirrored += side;
        }
    for (i = 0; i < 2 * PLACES; i++) chi += pow(times[i / PLACES][i % PLACES] - expected, 2) / expected;
    CHECK(!unclear, "%d of %d pictures were neither mirrored nor not", unclear, DRAWS);
    CHECK(chi < 95, "chi squared of places and sides is %.1f, but 49 +- 10 is usual", chi);                /* 95: one in 10^4 */
    CHECK(abs(mirrored - DRAWS / 2) < 4 * sqrt(DRAWS / 4.0), "%d of %d are mirrored", mirrored, DRAWS);
    cnn_free(net); cnn_loader_free(loader); cnn_data_free(data);

    for (n = 0; n < DRAWS; n++) {           /* angle and size: uniform, independent of one another and of the flip */
        static const cnn_augment_options o = { 0, 1, 90, .5f };
        cnn_counters k;
        cnn__change d;
        double angle, size;
        memset(&k, 0, sizeof k);
        k.epoch = (uint64_t)(n / COUNT);
        d = cnn__change_of(&k, &o, n % COUNT);
        size = 1 / hypot(d.cos, d.sin); angle = atan2(d.sin, d.cos) / acos(0);
        limits[0] = fmin(limits[0], angle); limits[1] = fmax(limits[1], angle); limits[2] = fmin(limits[2], size); limits[3] = fmax(limits[3], size);
        moments[0] += angle / DRAWS; moments[1] += angle * (size - 1) / DRAWS; moments[2] += angle * (d.mirrored ? 1 : -1) / DRAWS;
        again += d.down != 0 || d.right != 0;
    }
    CHECK(limits[0] < -.99 && limits[0] >= -1 && limits[1] > .99 && limits[1] < 1, "angles go from %g to %g of 90 degrees", limits[0], limits[1]);
    CHECK(limits[2] < .51 && limits[2] >= .5 && limits[3] > 1.49 && limits[3] < 1.5, "sizes go from %g to %g", limits[2], limits[3]);
    CHECK(fabs(moments[0]) < .03 && fabs(moments[1]) < .01 && fabs(moments[2]) < .03 && !again, "the mean angle is %g; with the size %g, with the flip %g",
          moments[0], moments[1], moments[2]);
}

/* ---- 3. the same pictures ---- */

static void test_same(const cnn_augment_options *a, double tolerance)
{
    static float first[SAMPLES * VALUES], x[SAMPLES * VALUES];
    int t, run;
    for (t = 0; t < table_count; t++)
        for (run = 0; run < 8; run++) {
            cnn_data *data = new_data(run % 2, run / 2 % 2);
            cnn_loader *loader = cnn_loader_new(data, .batch_size = 1 + 3 * (run % 4), .shuffle = run > 2, .augment = *a, .seed = 5);
            cnn_net *net = eye(&tables[t], CHANNELS, HEIGHT, WIDTH);
            float *to = !t && !run ? first : x;
            cnn_set_num_threads(net, 1 + run % 3);
            cnn_manual_seed(net, (uint64_t)run);           /* is of the network, not of the loader */
            if (run > 4) look(net, loader, 2, x, VALUES);
            look(net, loader, 7, to, VALUES);
            CHECK(tolerance > 0 ? test_distance(x, first, SAMPLES * VALUES, tolerance, 0) <= 1 || to == first
                                : to == first || !memcmp(x, first, sizeof x),
                  "%s, run %d: not the same pictures as the first of direct", tables[t].name, run);
            if (run == 7) {
                look(net, loader, 8, x, VALUES);
                CHECK(memcmp(x, first, sizeof x), "%s: the next epoch has the same pictures", tables[t].name);
            }
            cnn_free(net); cnn_loader_free(loader); cnn_data_free(data);
        }
}

/* ---- 4. only training ---- */

static void test_only_training(void)
{
    static float x[SAMPLES * VALUES], y[SAMPLES * VALUES];
    static const int order[2] = { 4, 9 };
    int t;
    for (t = 0; t < table_count; t++) {     /* each sample is its own target: the loss is 0 where it is seen as it is */
        cnn_data *data = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = HEIGHT, .width = WIDTH, .outputs = VALUES,
                                      .floats = floats, .targets = floats);
        cnn_loader *loader = cnn_loader_new(data, .batch_size = SAMPLES, .augment = { 3, 1, 20, .2f });
        cnn_net *net = eye(&tables[t], CHANNELS, HEIGHT, WIDTH);
        cnn_batch batch, own = { data, order, 2 };
        float loss;
        cnn_next(loader, &batch);
        cnn_forward(net, &batch); cnn_mse_loss(net, &batch);
        loss = cnn_loss(net);
        CHECK(loss > .01f, "%s: what it trains on differs from the samples by %g only", tables[t].name, loss);
        CHECK(cnn_evaluate(net, data, 7, CNN_MSE).loss == 0, "%s: cnn_evaluate augments", tables[t].name);
        CHECK(cnn_predict(net, y, floats, SAMPLES) && !memcmp(y, floats, sizeof y), "%s: cnn_predict augments", tables[t].name);
        cnn_get(net, "0", x, SAMPLES * VALUES);
        cnn_eval(net);
        cnn_forward(net, &batch); cnn_mse_loss(net, &batch);
        CHECK(cnn_loss(net) == 0, "%s: after cnn_eval the loss is %g", tables[t].name, cnn_loss(net));
        cnn_train(net);
        cnn_forward(net, &own); cnn_mse_loss(net, &own);
        CHECK(cnn_loss(net) == 0, "%s: a batch that no loader dealt: the loss is %g", tables[t].name, cnn_loss(net));
        cnn_forward(net, &batch); cnn_mse_loss(net, &batch);
        cnn_get(net, "0", y, SAMPLES * VALUES);
        CHECK(cnn_loss(net) == loss && !memcmp(x, y, sizeof x), "%s: the same batch once more is another one", tables[t].name);
        CHECK(!cnn_error(net), "%s", cnn_error(net));
        cnn_free(net); cnn_loader_free(loader); cnn_data_free(data);
    }
}

/* ---- 5. the same bits ---- */

enum { EPOCHS = 3, BATCH = 6, WEIGHTS = 1000 };

static cnn_net *learner(const cnn_backend *backend, int threads)
{
    cnn_net *net = cnn_new(CHANNELS, HEIGHT, WIDTH);
    cnn_use_backend(net, backend);
    cnn_set_num_threads(net, threads);
    cnn_manual_seed(net, 77);
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adam(net, .lr = 1e-2f);
    return net;
}

static void own_batches(cnn_net *net, cnn_loader *loader, int from, int to)    /* of the epoch that was set */
{
    cnn_batch batch;
    int i;
    for (i = 0; i < to && cnn_next(loader, &batch); i++) {
        if (i < from) continue;
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
    }
}

static size_t weights_of(cnn_net *net, float *w)
{
    size_t n = 0;
    int i;
    for (i = 0; cnn_key(net, i); i++) n += cnn_get(net, cnn_key(net, i), w + n, WEIGHTS - n);
    CHECK(!cnn_error(net), "%s", cnn_error(net));
    return n;
}

static void test_same_bits(void)
{
    static const cnn_augment_options a = { 2, 1, 10, .1f };
    static float of_direct[WEIGHTS], whole[WEIGHTS], w[WEIGHTS];
    int t, epoch, run;
    for (t = 0; t < table_count; t++) {
        cnn_data *data = new_data(t % 2, t / 2 % 2), *test = new_data(1, 1);
        cnn_loader *loader = cnn_loader_new(data, .batch_size = BATCH, .shuffle = 1, .drop_last = 1, .augment = a, .seed = 77);
        const char *path = in_folder("augmented.ckpt");
        cnn_net *net = learner(&tables[t], 1);
        size_t n;
        cnn_fit(net, data, test, .epochs = EPOCHS, .batch_size = BATCH, .augment = a);
        n = weights_of(net, whole);
        if (!t) memcpy(of_direct, whole, sizeof whole);
        CHECK(test_distance(whole, of_direct, n, 1e-3, 1e-3) <= 1, "%s: the weights are others than by direct", tables[t].name);
        cnn_free(net);

        net = learner(&tables[t], 1);
        cnn_fit(net, data, test, .epochs = EPOCHS, .batch_size = BATCH);
        weights_of(net, w);
        CHECK(test_distance(w, whole, n, 1e-3, 1e-3) > 1, "%s: cnn_fit's .augment changes nothing", tables[t].name);
        cnn_free(net);

        for (run = 0; run < 4; run++) {
            net = learner(&tables[t], 1 + run);
            if (run == 0)                   /* a loop of one's own */
                for (epoch = 0; epoch < EPOCHS; epoch++) {
                    cnn_set_epoch(loader, epoch);
                    own_batches(net, loader, 0, 99);
                    cnn_evaluate(net, test, 4, CNN_CROSS_ENTROPY);
                }
            if (run == 1) cnn_fit(net, data, NULL, .epochs = EPOCHS, .batch_size = BATCH, .augment = a);
            if (run >= 2) {                 /* up to a checkpoint at the end of an epoch, or within one; then another network */
                if (run == 2) cnn_fit(net, data, test, .epochs = 2, .batch_size = BATCH, .augment = a);
                else for (epoch = 0; epoch < 2; epoch++) {
                    cnn_set_epoch(loader, epoch);
                    own_batches(net, loader, 0, epoch ? 2 : 99);
                }
                CHECK(cnn_checkpoint_save(net, path), "%s", cnn_error(net));
                cnn_free(net);
                net = learner(&tables[t], 2);
                cnn_manual_seed(net, 1);    /* the file's is taken */
                CHECK(cnn_checkpoint_load(net, path), "%s", cnn_error(net));
                if (run == 2) cnn_fit(net, data, test, .epochs = EPOCHS, .batch_size = BATCH, .augment = a);
                else for (epoch = 1; epoch < EPOCHS; epoch++) {
                    cnn_set_epoch(loader, epoch);
                    own_batches(net, loader, epoch == 1 ? 2 : 0, 99);
                }
                remove(path);
            }
            weights_of(net, w);
            CHECK(!memcmp(w, whole, sizeof *w * n), "%s: %s: not the bits of cnn_fit", tables[t].name,
                  run == 0 ? "a loop of one's own" : run == 1 ? "more threads" : run == 2 ? "an epoch's checkpoint" : "a checkpoint within an epoch");
            cnn_free(net);
        }
        cnn_loader_free(loader); cnn_data_free(data); cnn_data_free(test);
    }
}

/* ---- 6. mistakes ---- */

static void test_mistakes(void)
{
    static const struct { cnn_augment_options a; const char *words; } wrong[] = {
        { { -1, 0, 0, 0 }, ".augment.padding is -1, but must be from 0 to 6" },
        { { 7, 0, 0, 0 }, ".augment.padding is 7, but must be from 0 to 6, so that a crop of the 7 x 9 samples" },
        { { 0, 0, NAN, 0 }, ".augment.rotation is" }, { { 0, 0, INFINITY, 0 }, ".augment.rotation is inf" },
        { { 0, 0, -3, 0 }, ".augment.rotation is -3, but must be from 0 to 180" }, { { 0, 0, 181, 0 }, ".augment.rotation is 181" },
        { { 0, 0, 0, NAN }, ".augment.scale is" }, { { 0, 0, 0, -.5f }, ".augment.scale is -0.5, but must be" }, { { 0, 0, 0, 1 }, ".augment.scale is 1" } };
    size_t i;
    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cnn_data *data = new_data((int)i % 2, 1);
        cnn_loader *loader = cnn_loader_new(data, .batch_size = 2, .augment = wrong[i].a);
        cnn_net *net = learner(&tables[0], 1);
        const char *said = cnn_loader_error(loader);
        float before[WEIGHTS], after[WEIGHTS];
        size_t n = weights_of(net, before);
        CHECK(said && !strncmp(said, "cnn_loader_new: ", 16) && strstr(said, wrong[i].words), "case %d: cnn_loader_new says %s", (int)i,
              said ? said : "nothing");
        CHECK(!cnn_fit(net, data, NULL, .batch_size = 2, .augment = wrong[i].a), "case %d: cnn_fit takes it", (int)i);
        said = cnn_error(net);
        CHECK(said && !strncmp(said, "cnn_fit: ", 9) && strstr(said, wrong[i].words), "case %d: cnn_fit says %s", (int)i, said ? said : "nothing");
        cnn_clear_error(net);
        CHECK(weights_of(net, after) == n && !memcmp(before, after, sizeof *before * n), "case %d: it trained all the same", (int)i);
        cnn_free(net); cnn_loader_free(loader); cnn_data_free(data);
    }
    {                                       /* CNN_ZERO is none; rows of numbers have no side to pad, but can be mirrored */
        static float x[SAMPLES * VALUES];
        cnn_data *data = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = 1, .width = PIXELS, .floats = floats);
        cnn_loader *loader = cnn_loader_new(data, .batch_size = 4, .augment = { CNN_ZERO, CNN_ZERO, CNN_ZERO, CNN_ZERO });
        cnn_net *net = eye(NULL, CHANNELS, 1, PIXELS);
        look(net, loader, 0, x, VALUES);
        CHECK(!cnn_loader_error(loader) && !memcmp(x, floats, sizeof x), "CNN_ZERO is not nothing");
        cnn_loader_free(loader);
        loader = cnn_loader_new(data, .batch_size = 4, .augment = { .flip = 1 });
        look(net, loader, 0, x, VALUES);
        CHECK(!cnn_loader_error(loader) && memcmp(x, floats, sizeof x), "a row is not mirrored");
        cnn_loader_free(loader);
        loader = cnn_loader_new(data, .batch_size = 4, .augment = { .padding = 1 });
        CHECK(cnn_loader_error(loader) && strstr(cnn_loader_error(loader), "must be from 0 to 0"), "a row is padded");
        cnn_free(net); cnn_loader_free(loader); cnn_data_free(data);
    }
}

int main(void)
{
    static const cnn_augment_options whole = { 3, 1, 0, 0 }, turned_too = { 3, 1, 40, .4f };
    folder_make();
    make_samples();
    list_tables();
    test_pixels();
    test_chance();
    test_same(&whole, 0);
    test_same(&turned_too, 1e-6);
    test_only_training();
    test_same_bits();
    test_mistakes();
    folder_remove();
    return test_end("test_augment");
}
