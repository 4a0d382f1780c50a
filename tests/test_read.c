/* test_read.c - data sets that are functions: samples are read while the network computes the batch before.

   1. All that can be done with a data set gives the same bits as with its samples in memory: splits, cnn_fit, evaluating,
      classifying, loops of one's own, the gradient check, cnn_explain, the report; on every backend, with 1, 2 and 5 threads.
   2. Each sample is asked for once for each time that it is needed.
   3. The next batch is read while this one is computed: each waits here for the other.
   4. A sample that cannot be read is one sentence; no step is taken, and training can go on.
   5. Loaders that are moved about, shared, abandoned; data sets that are freed while they are read; a forked child.
   6. A million samples need no memory. Without memory there is a sentence. */
#define _GNU_SOURCE                                        /* fork, pthread_setattr_default_np */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER
#endif
#endif
#include <pthread.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>

static int memory_left = -1;                               /* allocations of cnn.h that succeed; -1: all */
static size_t memory_largest;                              /* the largest allocation so far */
static void *some_memory(size_t bytes)
{
    if (bytes > memory_largest) memory_largest = bytes;
    return memory_left < 0 || __atomic_fetch_sub(&memory_left, 1, __ATOMIC_SEQ_CST) > 0 ? malloc(bytes) : NULL;
}
#define CNN_MALLOC(bytes) some_memory(bytes)
#define CNN_FREE(pointer) free(pointer)
static int errors_said;
#define CNN_ON_ERROR(sentence) errors_said++
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

enum { CHANNELS = 3, HEIGHT = 6, WIDTH = 7, VALUES = CHANNELS * HEIGHT * WIDTH, SAMPLES = 45, CLASSES = 3, MOST = 6 };

static unsigned char bytes[SAMPLES * VALUES];
static int labels[SAMPLES];
static cnn_backend tables[MOST];            /* direct first; cuda and cuda_naive where they are linked */
static int table_count;

static void make_samples(void)
{
    size_t i;
    for (i = 0; i < sizeof bytes; i++) {
        uint32_t r[4];
        cnn_random(r, 5, 0, 0, (uint32_t)i);
        bytes[i] = (unsigned char)(r[0] % 256);
    }
    for (i = 0; i < SAMPLES; i++) labels[i] = (int)(i * i % CLASSES);
}

static void list_tables(void)
{
    static const char *const names[] = { "direct", "simd", "cuda", "cuda_naive" };
    size_t i;
    for (i = 0; i < 4; i++) if (cnn_find_backend(names[i])) tables[table_count++] = *cnn_find_backend(names[i]);
    tables[table_count] = *cnn_find_backend("simd");       /* this one gets each batch of samples sent */
    tables[table_count].name = "simd, apart";
    tables[table_count++].reads_host = 0;
}

/* ---- the function ---- */

typedef struct reader {
    int asked[SAMPLES];                     /* how often, each */
    int broken;                             /* a sample that cannot be read, or -1 */
    int slow;                               /* 1: takes its time */
    int held;                               /* samples from this one on wait until it is SAMPLES */
    int gone;                               /* 1: nobody may ask any more */
} reader;

static void set(int *field, int value) { __atomic_store_n(field, value, __ATOMIC_SEQ_CST); }

static int read_sample(void *user, int sample, unsigned char *to)
{
    reader *r = (reader *)user;
    struct timespec a_moment = { 0, 300000 };
    if (__atomic_load_n(&r->gone, __ATOMIC_SEQ_CST)) abort();
    if (sample < 0 || sample >= SAMPLES) abort();
    __atomic_fetch_add(&r->asked[sample], 1, __ATOMIC_SEQ_CST);
    if (r->slow) nanosleep(&a_moment, NULL);
    while (sample >= __atomic_load_n(&r->held, __ATOMIC_SEQ_CST)) nanosleep(&a_moment, NULL);
    if (__atomic_load_n(&r->gone, __ATOMIC_SEQ_CST)) abort();              /* nor be asked still */
    if (sample == __atomic_load_n(&r->broken, __ATOMIC_SEQ_CST)) return 0;
    memcpy(to, bytes + sample * VALUES, VALUES);
    return 1;
}

static reader *new_reader(void)
{
    reader *r = (reader *)calloc(1, sizeof *r);
    if (!r) abort();
    r->broken = -1;
    r->held = SAMPLES;
    return r;
}

static cnn_data *by_function(reader *r)
{
    return cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = HEIGHT, .width = WIDTH, .classes = CLASSES, .labels = labels,
                        .read = read_sample, .user = r);
}

static cnn_data *in_memory(void)
{
    return cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = HEIGHT, .width = WIDTH, .classes = CLASSES, .labels = labels,
                        .bytes = bytes, .constant = 1);
}

static cnn_net *new_net(const cnn_backend *backend, int threads)
{
    cnn_net *net = cnn_new(CHANNELS, HEIGHT, WIDTH);
    cnn_use_backend(net, backend);
    cnn_set_num_threads(net, threads);
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_dropout(net, .p = 0.2f);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adam(net, .lr = 1e-2f);
    return net;
}

/* ---- 1. the same bits ---- */

typedef struct everything {                 /* that a program can see */
    float weights[2048], probability[SAMPLES];
    size_t count;
    double train[2], test[2];
    cnn_score score;
    int classes[SAMPLES];
    float losses[40];
    cnn_gradcheck_result check;
    char explained[2048], *report;
} everything;

static size_t all_weights(cnn_net *net, float *to, size_t room)
{
    static const char *const keys[] = { "0.weight", "0.bias", "5.weight", "5.bias" };
    size_t count = 0, i;
    for (i = 0; i < 4; i++) count += cnn_get(net, keys[i], to + count, room - count);
    CHECK(count, "no weights: %s", cnn_error(net) ? cnn_error(net) : "and no error");
    return count;
}

static void step(cnn_net *net, const cnn_batch *batch)
{
    cnn_forward(net, batch);
    cnn_cross_entropy(net, batch);
    cnn_zero_grad(net);
    cnn_backward(net);
    cnn_step(net);
}

static void do_everything(everything *e, const cnn_backend *backend, int threads, cnn_data *data)
{
    static const float mean[CHANNELS] = { 0.4f, 0.5f, 0.6f }, deviation[CHANNELS] = { 0.3f, 0.25f, 0.2f };
    static const int own_order[] = { 3, 3, 8, 0, 11 };
    cnn_net *net = new_net(backend, threads);
    cnn_data *train, *test, *deep, *rest;
    const cnn_epoch *history;
    cnn_loader *loader;
    cnn_batch batch;
    FILE *out = tmpfile();
    int i, n = 0;
    memset(e, 0, sizeof *e);
    cnn_normalize(data, mean, deviation);
    cnn_random_split(data, 12, 7, &train, &test);
    cnn_random_split(train, 9, 8, &deep, &rest);
    cnn_data_free(train);                                  /* what was split from it is read all the same */
    cnn_fit(net, deep, test, .epochs = 2, .batch_size = 5, .test_batch_size = 5, .keep_last = 1, .augment = { .padding = 1, .flip = 1, .rotation = 5 });
    history = cnn_history(net, &i);
    for (i--; i >= 0; i--) { e->train[i] = history[i].train.loss; e->test[i] = history[i].test.loss; }
    cnn_data_free(deep);
    cnn_data_free(test);
    e->score = cnn_evaluate(net, rest, 4, CNN_CROSS_ENTROPY);
    cnn_classify(net, e->classes, e->probability, data, 7);
    loader = cnn_loader_new(data, .batch_size = 7, .shuffle = 1, .seed = 3);
    cnn_train(net);
    for (i = 0; i < 3; i++)
        while (cnn_next(loader, &batch)) {
            step(net, &batch);
            e->losses[n++] = cnn_loss(net);
            if (n == 2) e->check = cnn_gradcheck(net, &batch, 4, NULL);
            if (i == 1 && n % 3 == 0) {                    /* a batch of one's own in between */
                cnn_batch own;
                own.data = n % 2 ? batch.data : data; own.order = own_order; own.size = 5;
                step(net, &own);
                e->losses[n++] = cnn_loss(net);
            }
            if (i == 2 && n % 2) {                         /* a smaller one, and the same one again */
                batch.size--;
                step(net, &batch);
                step(net, &batch);
            }
        }
    CHECK(n >= 21 && n <= 40, "%d steps", n);
    CHECK(cnn_explain(net, "0", 1, 2, 3, out), "%s", cnn_error(net) ? cnn_error(net) : "nothing explained");
    strncpy(e->explained, text_of(out), sizeof e->explained - 1);
    CHECK(cnn_report(net, data, in_folder("report.html"), "the same"), "%s", cnn_error(net) ? cnn_error(net) : "no report");
    out = fopen(in_folder("report.html"), "r");
    e->report = strdup(text_of(out));
    remove(in_folder("report.html"));
    e->count = all_weights(net, e->weights, sizeof e->weights / sizeof *e->weights);
    CHECK(!cnn_error(net), "%s", cnn_error(net));
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_data_free(rest);
    cnn_data_free(data);
}

static void test_same(void)
{
    static everything first, other;
    static const int threads[] = { 1, 2, 5 };
    int t, k;
    for (t = 0; t < table_count; t++) {
        do_everything(&first, &tables[t], 1, in_memory());
        CHECK(strlen(first.report) > 5000 && strlen(first.explained) > 100 && first.check.checked, "%d bytes of report, %d of explanation",
              (int)strlen(first.report), (int)strlen(first.explained));
        for (k = 0; k < 3; k++) {
            reader *r = new_reader();
            do_everything(&other, &tables[t], threads[k], by_function(r));
            set(&r->gone, 1);
#define SAME(what, size) CHECK(!memcmp(first.what, other.what, size), "%s, %d threads: other %s", tables[t].name, threads[k], #what)
            SAME(weights, sizeof first.weights); SAME(probability, sizeof first.probability); SAME(losses, sizeof first.losses);
            SAME(classes, sizeof first.classes); SAME(train, sizeof first.train); SAME(test, sizeof first.test);
            SAME(explained, strlen(first.explained) + 1);
            CHECK(!strcmp(first.report, other.report), "%s, %d threads: another report", tables[t].name, threads[k]);
            CHECK(first.score.loss == other.score.loss && first.score.count == other.score.count, "loss %g", other.score.loss);
            CHECK(first.check.checked == other.check.checked && first.check.worst == other.check.worst, "worst %g", other.check.worst);
            free(other.report);
            free(r);
        }
        free(first.report);
    }
}

/* ---- 2. asked as often as needed ---- */

static void asked(reader *r, const int *order, int count, int times, int line)
{
    int i, want[SAMPLES] = { 0 };
    for (i = 0; i < count; i++) want[order ? order[i] : i] += times;
    for (i = 0; i < SAMPLES; i++) {
        CHECK(r->asked[i] == want[i], "line %d: sample %d was asked for %d times, not %d", line, i, r->asked[i], want[i]);
        r->asked[i] = 0;
    }
}
#define ASKED(r, order, count, times) asked(r, order, count, times, __LINE__)

static void test_counts(int threads)
{
    static const int own_order[] = { 4, 7, 4 };
    reader *r = new_reader();
    cnn_data *data = by_function(r);
    cnn_net *net = new_net(cnn_find_backend("simd"), threads), *second = new_net(cnn_find_backend("direct"), threads);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 4, .shuffle = 1);
    cnn_batch batch, own;
    int n;
    ASKED(r, NULL, 0, 0);
    cnn_fit(net, data, NULL, .epochs = 3, .batch_size = 6, .keep_last = 1);
    ASKED(r, NULL, SAMPLES, 3);
    cnn_fit(net, data, NULL, .epochs = 5, .batch_size = 10, .keep_order = 1);      /* two more; the last five are dropped */
    ASKED(r, NULL, 40, 2);
    cnn_evaluate(net, data, 4, CNN_CROSS_ENTROPY);
    ASKED(r, NULL, SAMPLES, 1);
    while (cnn_next(loader, &batch)) {                     /* two networks, a check and a batch again: read once */
        step(net, &batch);
        step(second, &batch);
        CHECK(cnn_gradcheck(second, &batch, 1, NULL).checked, "%s", cnn_error(second) ? cnn_error(second) : "nothing checked");
        step(net, &batch);
    }
    ASKED(r, NULL, SAMPLES, 1);
    own.data = data; own.order = own_order; own.size = 3;
    for (n = 0; n < 2; n++) step(net, &own);
    ASKED(r, own_order, 3, 2);
    CHECK(!cnn_error(net) && !cnn_error(second), "%s", cnn_error(net) ? cnn_error(net) : "");
    CHECK(data->read(data->user, 3, bytes) == 1 && r->asked[3] == 1, "a program may call the function itself");
    cnn_loader_free(loader);
    cnn_free(net);
    cnn_free(second);
    cnn_data_free(data);
    free(r);
}

/* ---- 3. while the batch before is computed ---- */

#ifndef CNN_NO_THREADS
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int entered, in_step, met, alone;    /* batches whose reading has begun; that are in cnn_step; rendezvous; waits in vain */

/* Waits, for half a minute at most, until *number has reached `least`. */
static void wait_until(int *number, int least)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 30;
    while (*number < least) if (pthread_cond_timedwait(&changed, &lock, &end)) { alone++; break; }
    if (*number >= least) met++;
}

static int meeting_read(void *user, int sample, unsigned char *to)
{
    int batch = sample / 5;
    (void)user;
    pthread_mutex_lock(&lock);
    if (entered < batch + 1) {
        entered = batch + 1;
        pthread_cond_broadcast(&changed);
    }
    if (batch && sample % 5 == 4) wait_until(&in_step, batch);             /* the first one that a worker takes */
    pthread_mutex_unlock(&lock);
    memcpy(to, bytes + sample * VALUES, VALUES);
    return 1;
}

static const cnn_backend *plain;
static void meeting_adam(void *context, cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w, float *m, float *v,
                         const float *g, size_t n, cnn_span *spans, int count)
{
    pthread_mutex_lock(&lock);
    in_step++;
    pthread_cond_broadcast(&changed);
    if (in_step < SAMPLES / 5) wait_until(&entered, in_step + 1);
    pthread_mutex_unlock(&lock);
    plain->adam_step(context, c, o, decoupled, w, m, v, g, n, spans, count);
}

static void test_overlap(const char *name, int threads)
{
    cnn_backend backend = *(plain = cnn_find_backend(name));
    cnn_data *data = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = HEIGHT, .width = WIDTH, .classes = CLASSES, .labels = labels,
                                  .read = meeting_read);
    cnn_net *net;
    backend.adam_step = meeting_adam;
    net = new_net(&backend, threads);
    entered = in_step = met = alone = 0;
    CHECK(cnn_fit(net, data, NULL, .batch_size = 5, .keep_order = 1), "%s", cnn_error(net) ? cnn_error(net) : "");
    CHECK(met == 2 * (SAMPLES / 5 - 1) && !alone, "%s, %d threads: they met %d times", name, threads, met);
    cnn_free(net);
    cnn_data_free(data);
}

#endif

/* ---- 4. a sample that cannot be read ---- */

static void test_broken(const cnn_backend *backend, int threads)
{
    reader *r = new_reader();
    cnn_data *data = by_function(r), *train, *test;
    cnn_net *net = new_net(backend, threads), *same = new_net(backend, threads);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 5);
    cnn_data *memory = in_memory();
    cnn_loader *other = cnn_loader_new(memory, .batch_size = 5);
    cnn_batch batch;
    static float before[2048], after[2048];
    size_t count = 0;
    int n = 0, said;
    while (cnn_next(loader, &batch)) {
        if (n == 0) set(&r->broken, 7);         /* it may be read during this step */
        if (n == 1) count = all_weights(net, before, 2048);
        said = errors_said;
        step(net, &batch);
        if (n == 1) {
            CHECK(cnn_error(net) && !strcmp(cnn_error(net), "your data set: sample 7 cannot be read: its .read returned 0"), "%s",
                  cnn_error(net) ? cnn_error(net) : "no error");
            CHECK(errors_said == said + 1, "%d sentences", errors_said - said);
            cnn_clear_error(net);
            CHECK(all_weights(net, after, 2048) == count && !memcmp(before, after, sizeof *before * count), "a step was taken");
            cnn_cross_entropy(net, &batch);
            CHECK(cnn_error(net) && strstr(cnn_error(net), "call cnn_forward"), "%s", cnn_error(net) ? cnn_error(net) : "a loss of nothing");
            cnn_clear_error(net);
        }
        if (n == 1) set(&r->broken, -1);
        n++;
    }
    while (cnn_next(other, &batch)) if (batch.order[0] != 5) step(same, &batch);
    CHECK(all_weights(net, before, 2048) == all_weights(same, after, 2048) && !memcmp(before, after, sizeof before), "the error left a trace");
    /* mended: the same batch is asked for once more */
    set(&r->broken, 2);
    cnn_next(loader, &batch);
    step(net, &batch);
    CHECK(cnn_error(net) && strstr(cnn_error(net), "sample 2 "), "%s", cnn_error(net) ? cnn_error(net) : "no error");
    set(&r->broken, -1);
    cnn_clear_error(net);
    step(net, &batch);
    CHECK(!cnn_error(net), "%s", cnn_error(net));
    /* in cnn_fit, in a split, in all that looks */
    set(&r->broken, 31);
    CHECK(!cnn_fit(net, data, NULL, .epochs = 3, .batch_size = 5) && cnn_error(net) && strstr(cnn_error(net), "sample 31 "), "%s",
          cnn_error(net) ? cnn_error(net) : "no error");
    cnn_clear_error(net);
    cnn_random_split(data, 10, 1, &train, &test);
    cnn_evaluate(net, train, 5, CNN_CROSS_ENTROPY);
    if (!cnn_error(net)) cnn_evaluate(net, test, 5, CNN_CROSS_ENTROPY);
    CHECK(cnn_error(net) && strstr(cnn_error(net), "sample 31 "), "%s", cnn_error(net) ? cnn_error(net) : "no error");
    cnn_clear_error(net);
    CHECK(!cnn_report(net, data, in_folder("none.html"), NULL) && cnn_error(net) && strstr(cnn_error(net), "sample 31 ")
              && access(in_folder("none.html"), F_OK), "%s", cnn_error(net) ? cnn_error(net) : "no error");
    cnn_clear_error(net);
    set(&r->broken, -1);
    CHECK(cnn_fit(net, data, NULL, .epochs = 1, .batch_size = 5), "%s", cnn_error(net) ? cnn_error(net) : "");
    cnn_loader_free(loader);
    cnn_loader_free(other);
    cnn_data_free(data); cnn_data_free(memory); cnn_data_free(train); cnn_data_free(test);
    cnn_free(net);
    cnn_free(same);
    free(r);
}

static void test_options(void)
{
    reader *r = new_reader();
    cnn_data *data = cnn_data_new(.count = 1, .channels = 1, .height = 1, .width = 1, .read = read_sample, .bytes = bytes);
    cnn_net *net = cnn_new(CHANNELS, HEIGHT, WIDTH);
    cnn_data by_hand;
    cnn_batch batch;
    int one = 0;
    CHECK(data->error && strstr(data->error, "needs either .bytes or .floats, or .read"), "%s", data->error ? data->error : "no error");
    cnn_data_free(data);
    data = cnn_data_new(.count = SAMPLES, .channels = CHANNELS, .height = HEIGHT, .width = WIDTH, .labels = labels, .read = read_sample, .user = r);
    CHECK(data->error && strstr(data->error, ".classes"), "%s", data->error ? data->error : "no error");
    cnn_data_free(data);
    data = by_function(r);
    CHECK(!data->bytes && !data->floats && data->read == read_sample && data->user == r && data->scale[0] == 1.0f / 255, "other fields");
    cnn_flatten(net);
    by_hand = *data;
    by_hand.memory = NULL;
    batch.data = &by_hand; batch.order = &one; batch.size = 1;
    cnn_forward(net, &batch);
    CHECK(cnn_error(net) && strstr(cnn_error(net), "make it with cnn_data_new"), "%s", cnn_error(net) ? cnn_error(net) : "no error");
    cnn_free(net);
    cnn_data_free(data);
    free(r);
}

/* ---- 5. moved about, abandoned, freed, forked ---- */

static void wander(cnn_net *net, cnn_data *data)
{
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 4, .shuffle = 1);
    cnn_batch batch, old;
    int i, n, again[4];
    for (i = 0; i < 40; i++) {
        uint32_t r[4];
        cnn_random(r, 9, 0, 0, (uint32_t)i);
        if (r[0] % 8 == 0) cnn_set_epoch(loader, (int)(r[1] % 3));
        for (n = (int)(r[2] % 3); n >= 0; n--) while (!cnn_next(loader, &batch)) {}
        if (i) step(net, r[3] % 3 ? &batch : &old);
        old = batch;
    }
    for (i = 0; i < 6; i++) {               /* the same place in another order */
        cnn_set_epoch(loader, i);
        for (n = i % 3; n >= 0; n--) { cnn_next(loader, &batch); step(net, &batch); }
    }
    for (i = 0; i < 3; i++) {               /* the loader's data set and an order of one's own, which changes */
        for (n = 0; n < 4; n++) again[n] = 7 * i + 2 * n;
        batch.order = again;
        step(net, &batch);
    }
    cnn_loader_free(loader);
}

static void test_wandering(int threads)
{
    static float a[2048], b[2048];
    reader *r = new_reader();
    cnn_data *memory = in_memory(), *data = by_function(r);
    cnn_net *net = new_net(cnn_find_backend("simd"), threads), *other = new_net(cnn_find_backend("simd"), threads);
    wander(net, memory);
    wander(other, data);
    CHECK(all_weights(net, a, 2048) == all_weights(other, b, 2048) && !memcmp(a, b, sizeof a), "other weights");
    cnn_free(net); cnn_free(other);
    cnn_data_free(data); cnn_data_free(memory);
    free(r);
}

static int stop_now(void *left) { return !(*(int *)left)--; }

/* Everything is freed while the next batch is being read, in every order. */
static void test_freeing(int threads)
{
    static const char orders[][4] = { "dln", "dnl", "ldn", "lnd", "ndl", "nld" };
    size_t k;
    for (k = 0; k < sizeof orders / sizeof *orders; k++) {
        reader *r = new_reader();
        cnn_data *data = by_function(r);
        cnn_net *net = new_net(cnn_find_backend(k % 2 ? "simd" : "direct"), threads);
        cnn_loader *loader = cnn_loader_new(data, .batch_size = 9);
        cnn_batch batch;
        const char *c;
        int left = 2;
        r->slow = 1;
        cnn_fit(net, data, NULL, .batch_size = 4, .interrupted = stop_now, .user = &left);
        cnn_history(net, &left);
        CHECK(!left && !cnn_error(net), "%s", cnn_error(net) ? cnn_error(net) : "not interrupted");
        cnn_next(loader, &batch);
        step(net, &batch);
        for (c = orders[k]; *c; c++) {
            if (*c == 'l') cnn_loader_free(loader);
            if (*c == 'n') cnn_free(net);
            if (*c == 'd') {
                cnn_data_free(data);
                set(&r->gone, 1);
            }
        }
        free(r);                            /* whoever still asks aborts */
    }
}

#ifndef CNN_NO_THREADS
static void test_fork(void)
{
    static float a[2048], b[2048];
    reader *r = new_reader();
    cnn_data *data = by_function(r);
    cnn_net *net = new_net(cnn_find_backend("simd"), 3);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = 9);
    cnn_batch batch;
    struct timespec a_moment = { 0, 300000 };
    int ends[2], status = 1, n;
    pid_t child;
    r->held = 27;
    for (n = 0; n < 3; n++) { cnn_next(loader, &batch); step(net, &batch); }       /* a worker is held in the fourth batch */
    while (!__atomic_load_n(&r->asked[35], __ATOMIC_SEQ_CST)) nanosleep(&a_moment, NULL);
    CHECK(!pipe(ends), "no pipe");
    fflush(stdout);
    child = fork();
    if (!child) {
        alarm(60);
#if defined(__SANITIZE_THREAD__) || defined(THREAD_SANITIZER)
        pthread_attr_t larger;              /* it takes a child's first thread for the parent's if both have the same stack */
        pthread_attr_init(&larger);
        pthread_attr_setstacksize(&larger, 32 << 20);
        pthread_setattr_default_np(&larger);
#endif
    }
    set(&r->held, SAMPLES);
    while (cnn_next(loader, &batch)) step(net, &batch);
    for (n = 0; n < 2; n++) { cnn_next(loader, &batch); step(net, &batch); }
    all_weights(net, a, 2048);
    cnn_data_free(data);
    cnn_loader_free(loader);
    if (!child) {
        n = write(ends[1], a, sizeof a) == sizeof a && !cnn_error(net);
        cnn_free(net);
        _exit(!n);
    }
    CHECK(child > 0 && read(ends[0], b, sizeof b) == sizeof b && waitpid(child, &status, 0) == child && !status, "the child ended with %d", status);
    CHECK(!memcmp(a, b, sizeof a), "the child learned something else");
    close(ends[0]); close(ends[1]);
    cnn_free(net);
    free(r);
}
#endif

/* ---- 6. memory ---- */

static int read_big(void *user, int sample, unsigned char *to)
{
    (void)user;
    memset(to, sample % 256, 3 * 32 * 32);
    return 1;
}

static void test_large(void)
{
    enum { COUNT = 1000000 };
    int *many = (int *)calloc(COUNT, sizeof *many), i;
    cnn_data *data = cnn_data_new(.count = COUNT, .channels = 3, .height = 32, .width = 32, .classes = 2, .labels = many, .read = read_big), *train, *test;
    cnn_net *net = cnn_new(3, 32, 32);
    cnn_loader *loader;
    cnn_batch batch;
    memory_largest = 0;
    cnn_flatten(net);
    cnn_linear(net, .out_features = 2);
    cnn_sgd(net, .lr = 0.1f);
    cnn_random_split(data, COUNT / 10, 1, &train, &test);
    loader = cnn_loader_new(train, .batch_size = 32, .shuffle = 1);
    for (i = 0; i < 5 && cnn_next(loader, &batch); i++) step(net, &batch);
    CHECK(i == 5 && !cnn_error(net) && cnn_loss(net) < 0.5f, "%s, loss %g", cnn_error(net) ? cnn_error(net) : "fine", (double)cnn_loss(net));
    CHECK(memory_largest <= (COUNT + 100) * sizeof(int), "%.1f MB at once", (double)memory_largest / 1e6);
    cnn_data_free(data); cnn_data_free(train); cnn_data_free(test);
    cnn_loader_free(loader);
    cnn_free(net);
    free(many);
}

static void test_no_memory(void)
{
    static float a[2048], b[2048];
    cnn_data *memory = in_memory();
    cnn_net *net = new_net(cnn_find_backend("direct"), 1);
    int i, good = 0;
    CHECK(cnn_fit(net, memory, NULL, .batch_size = 5), "%s", cnn_error(net) ? cnn_error(net) : "");
    all_weights(net, a, 2048);
    cnn_free(net);
    for (i = 0; i < 300 && !good; i++) {
        reader *r = new_reader();
        cnn_data *data, *train, *test;
        memory_left = i;
        data = by_function(r);
        cnn_random_split(data, 5, 0, &train, &test);
        net = new_net(cnn_find_backend("direct"), 1);
        good = cnn_fit(net, data, NULL, .batch_size = 5) && !train->error && !test->error;
        memory_left = -1;
        CHECK(good || train->error || test->error || strstr(cnn_error(net), "out of memory"), "allocation %d: %s", i, cnn_error(net) ? cnn_error(net) : "no error");
        if (good) CHECK(all_weights(net, b, 2048) && !memcmp(a, b, sizeof a), "allocation %d: other weights", i);
        cnn_free(net);
        cnn_data_free(data); cnn_data_free(train); cnn_data_free(test);
        free(r);
    }
    CHECK(good && i > 30, "after %d allocations", i);
    cnn_data_free(memory);
}

int main(void)
{
    static const int threads[] = { 1, 2, 5 };
    int k, t;
    folder_make();
    make_samples();
    list_tables();
    test_options();
    test_same();
    for (k = 0; k < 3; k++) {
        test_counts(threads[k]);
        for (t = 0; t < table_count; t++) test_broken(&tables[t], threads[k]);
        test_wandering(threads[k]);
        test_freeing(threads[k]);
    }
#ifndef CNN_NO_THREADS
    test_overlap("simd", 2);
    test_overlap("direct", 2);
    test_overlap("simd", 3);
    test_fork();
#endif
    test_large();
    test_no_memory();
    folder_remove();
    return test_end("test_read");
}
