/* test_pool.c - the pool of threads: every piece is run once, whoever is held up delays one piece, threads and networks
   share the pool, a forked child has one of its own, the last network ends it; and how many threads there are by default.
   make sanitize-threads runs it under ThreadSanitizer. */
#define _GNU_SOURCE
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "test.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER
#endif
#endif
#ifndef _WIN32
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#endif

enum { MOST_PIECES = 3000, RUNNERS = 4 };

static int processors;

/* ---- threads of the test's own ---- */

static int runners_begun;
static void (*runner_job)(int number);

static CNN__ENTRY runner(void *unused)
{
    (void)unused;
    runner_job(cnn__add_atomic(&runners_begun, 1));
    return 0;
}

static void run_side_by_side(void (*job)(int number), int count)
{
    cnn__thread threads[RUNNERS];
    int started = 0, i;
    runners_begun = 0;
    runner_job = job;
    while (started < count && cnn__start(&threads[started], runner)) started++;
    for (i = 0; i < started; i++) cnn__join(threads[i]);
    CHECK(started == count, "only %d of %d threads can be started", started, count);
}

static void pause_ms(int ms)
{
#ifdef _WIN32
    CNN__WINDOWS(void) Sleep(unsigned long);
    Sleep((unsigned long)ms);
#else
    struct timespec t;
    t.tv_sec = ms / 1000;
    t.tv_nsec = (long)(ms % 1000) * 1000000;
    nanosleep(&t, NULL);
#endif
}

/* ---- jobs ---- */

typedef struct job {
    int threads, slow;                      /* slow: ms for which the worker's first piece is held up; piece 0 waits for it to begin */
    int held;
    int times[MOST_PIECES], by[MOST_PIECES];
    int inside[64], clash;                  /* per number of a thread: two at once would share its memory */
} job;

static void run_piece(void *arguments, int piece, int thread)
{
    job *j = (job *)arguments;
    int ms;
    if (thread < 0 || thread >= j->threads || cnn__add_atomic(&j->inside[thread], 1)) cnn__add_atomic(&j->clash, 1);
    j->times[piece]++;
    j->by[piece] = thread;
    if (j->slow && thread && !cnn__add_atomic(&j->held, 1)) pause_ms(j->slow);
    for (ms = 0; j->slow && !piece && !cnn__read_atomic(&j->held) && ms < 2000; ms++) pause_ms(1);
    cnn__add_atomic(&j->inside[thread], -1);
}

static int wrong_pieces(const job *j, int pieces)
{
    int i, wrong = j->clash != 0;
    for (i = 0; i < MOST_PIECES; i++) wrong += j->times[i] != (i < pieces);
    return wrong;
}

static void test_every_piece_once(void)
{
    static const int threads[] = { 1, 2, 3, 7, 64 }, pieces[] = { 0, 1, 2, 3, 8, 63, 64, 65, MOST_PIECES };
    static job j;
    size_t t, p;
    int again;
    cnn__open_pool(64);
    for (t = 0; t < sizeof threads / sizeof *threads; t++)
        for (p = 0; p < sizeof pieces / sizeof *pieces; p++)
            for (again = 0; again < 5; again++) {
                memset(&j, 0, sizeof j);
                j.threads = threads[t];
                cnn__parallel(threads[t], pieces[p], run_piece, &j);
                CHECK(!wrong_pieces(&j, pieces[p]), "%d pieces on %d threads: not each once, or a thread's number twice at once",
                      pieces[p], threads[t]);
            }
    cnn__close_pool();
}

/* A worker that has no processor holds one piece; all others are done meanwhile, and the job waits for it. */
static void test_held_up(void)
{
    static job j;
    int i, of_worker = 0, tries;
    cnn__open_pool(2);
    for (tries = 0; tries < 5 && of_worker != 1; tries++) {         /* others may keep the caller from the rest for so long */
        memset(&j, 0, sizeof j);
        j.threads = 2;
        j.slow = 200;
        pause_ms(5);                                                /* asleep by now: it must be woken */
        cnn__parallel(2, MOST_PIECES, run_piece, &j);
        CHECK(!wrong_pieces(&j, MOST_PIECES), "a worker was held up: not each piece once");
        for (i = of_worker = 0; i < MOST_PIECES; i++) of_worker += j.by[i] == 1;
    }
    CHECK(of_worker == 1, "a worker that was held up for 200 ms had %d of %d pieces", of_worker, MOST_PIECES);
    cnn__close_pool();
}

/* Jobs of several callers at once: none takes another's pieces. */
static void many_jobs(int number)
{
    job *j = (job *)malloc(sizeof *j);
    int i, pieces, wrong = 0;
    for (i = 0; i < 300; i++) {
        pieces = 1 + (i * 37 + number * 11) % 90;
        memset(j, 0, sizeof *j);
        j->threads = 1 + (i + number) % 5;
        cnn__parallel(j->threads, pieces, run_piece, j);
        wrong += wrong_pieces(j, pieces);
    }
    free(j);
    cnn__lock();
    CHECK(!wrong, "caller %d of %d: %d of 300 jobs went wrong", number, RUNNERS, wrong);
    cnn__unlock();
}

/* The pool ends and begins while others want it. */
static void open_and_close(int number)
{
    job *j = (job *)malloc(sizeof *j);
    int i, wrong = 0;
    for (i = 0; i < 60; i++) {
        cnn__open_pool(2 + (i + number) % 3);
        memset(j, 0, sizeof *j);
        j->threads = 3;
        cnn__parallel(3, 20, run_piece, j);
        wrong += wrong_pieces(j, 20);
        cnn__close_pool();
    }
    free(j);
    cnn__lock();
    CHECK(!wrong, "caller %d of %d: %d of 60 jobs in pools of their own went wrong", number, RUNNERS, wrong);
    cnn__unlock();
}

/* ---- networks ---- */

enum { SAMPLES = 60, BATCH = 20, CLASSES = 4, SIZE = 12, STEPS = 9, NUMBERS = 3000 };

static unsigned char pictures[SAMPLES * SIZE * SIZE];
static int labels[SAMPLES];

typedef struct result { float loss[STEPS], values[NUMBERS]; size_t count; } result;

static cnn_net *new_net(int threads, uint64_t seed)
{
    cnn_net *net = cnn_new(1, SIZE, SIZE);
    cnn_set_num_threads(net, threads);
    cnn_manual_seed(net, seed);
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = CLASSES);
    cnn_adam(net, .lr = 1e-2f);
    return net;
}

static cnn_data *new_data(void)
{
    return cnn_data_new(.count = SAMPLES, .channels = 1, .height = SIZE, .width = SIZE, .classes = CLASSES,
                        .bytes = pictures, .labels = labels);
}

static void train(cnn_net *net, result *r)
{
    cnn_data *data = new_data();
    cnn_loader *loader = cnn_loader_new(data, .batch_size = BATCH, .shuffle = 1);
    cnn_batch batch;
    int step;
    for (step = 0; step < STEPS; step++) {
        while (!cnn_next(loader, &batch)) continue;
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
        r->loss[step] = cnn_loss(net);
    }
    r->count = cnn_get(net, "4.weight", r->values, NUMBERS);
    cnn_loader_free(loader);
    cnn_data_free(data);
}

static int same(const result *a, const result *b)
{
    return a->count && a->count == b->count && !memcmp(a->loss, b->loss, sizeof a->loss)
        && !memcmp(a->values, b->values, a->count * sizeof *a->values);
}

static result expected[RUNNERS];

static void train_one(int number)
{
    result *r = (result *)calloc(1, sizeof *r);
    cnn_net *net = new_net(2 + number, (uint64_t)number);
    train(net, r);
    cnn__lock();
    CHECK(!cnn_error(net) && same(r, &expected[number]), "network %d beside others: other bits than alone", number);
    cnn__unlock();
    cnn_free(net);
    free(r);
}

static void expect(void)
{
    int i;
    for (i = 0; i < SAMPLES; i++) labels[i] = i % CLASSES;
    for (i = 0; i < (int)sizeof pictures; i++) pictures[i] = (unsigned char)((i * 2654435761u >> 24) / 8 + 200 * (unsigned)(i / 36 % 4 == i / (SIZE * SIZE) % CLASSES));
    for (i = 0; i < RUNNERS; i++) {
        cnn_net *net = new_net(1, (uint64_t)i);
        train(net, &expected[i]);
        CHECK(!cnn_error(net) && expected[i].loss[STEPS - 1] < expected[i].loss[0], "a network does not learn: %g, then %g",
              (double)expected[i].loss[0], (double)expected[i].loss[STEPS - 1]);
        cnn_free(net);
    }
    CHECK(!same(&expected[0], &expected[1]), "two seeds give the same network");
}

static void test_every_number_of_threads(void)
{
    int threads;
    for (threads = 1; threads <= 64; threads++) {
        static result r;
        cnn_net *net = new_net(threads, 0);
        train(net, &r);
        CHECK(cnn_num_threads(net) == threads, "%d threads asked for, cnn_num_threads says %d", threads, cnn_num_threads(net));
        CHECK(same(&r, &expected[0]), "%d threads give other bits than 1", threads);
        cnn_free(net);
    }
}

static void test_ended(const char *after)
{
    CHECK(!cnn__pool.users && !cnn__pool.workers && !cnn__pool.jobs, "%s: %d users, %d workers left", after, cnn__pool.users,
          cnn__pool.workers);
}

/* ---- a forked child ---- */

#ifdef _WIN32
static void test_fork(void) { SKIP("Windows has no fork"); }
#else

/* ThreadSanitizer takes a child's first thread for one of the parent's if the C library gives it the same stack. */
static void other_stacks(void)
{
#if defined(__SANITIZE_THREAD__) || defined(THREAD_SANITIZER)
    pthread_attr_t larger;
    pthread_attr_init(&larger);
    pthread_attr_setstacksize(&larger, 32 << 20);
    pthread_setattr_default_np(&larger);
#endif
}

/* 0 if the network that the parent began goes on in the child, and a new one learns there, with the same bits */
static int child(cnn_net *net, const result *then)
{
    static result r;
    int wrong = 0;
    cnn_net *another;
    other_stacks();
    another = new_net(3, 1);
    train(another, &r);
    wrong += !same(&r, &expected[1]);
    train(net, &r);
    wrong += 2 * !same(&r, then);
    wrong += 4 * !cnn__pool.workers;
    cnn_free(another);
    cnn_free(net);
    return wrong + 8 * (cnn__pool.workers != 0);
}

static void fork_once(void)
{
    static result then[2], first;
    cnn_net *net = new_net(3, 0);
    int status = -1;
    pid_t pid;
    train(net, &first);
    {
        cnn_net *alone = new_net(1, 0);
        train(alone, &then[0]);
        train(alone, &then[1]);
        cnn_free(alone);
    }
    fflush(stdout);
    pid = fork();
    if (!pid) {
        alarm(60);                          /* a child that hangs is found, too */
        _exit(child(net, &then[1]));
    }
    train(net, &first);
    CHECK(same(&first, &then[1]), "the parent's network after fork: other bits");
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status),
          "a forked child: status %d (1: its own network has other bits, 2: the parent's, 4: no workers, 8: workers left; 14: it hangs)",
          WIFEXITED(status) ? WEXITSTATUS(status) : status);
    cnn_free(net);
}

static void fork_beside(int number)
{
    cnn_net *net = new_net(2, 3);           /* holds the pool open; the child has no use for it */
    result *r = (result *)calloc(1, sizeof *r);
    pid_t pid;
    int status = -1;
    train(net, r);
    fflush(stdout);
    if (number) {
        pid = fork();
        if (!pid) {
            alarm(60);
            other_stacks();
            test_failed = 0;
            train_one(1);
            _exit(test_failed != 0);
        }
        waitpid(pid, &status, 0);
        cnn__lock();
        CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "a child of one of two threads: status %d", status);
        cnn__unlock();
    }
    free(r);
    cnn_free(net);
}

static void test_fork(void)
{
    if (getenv("CNN_TEST_NO_FORK")) { SKIP("qemu aborts in the child of a program that has threads"); return; }
    fork_once();
    test_ended("after a fork");
#if !defined(__SANITIZE_THREAD__) && !defined(THREAD_SANITIZER)        /* whose own locks hang in such a child now and then */
    run_side_by_side(fork_beside, 3);
    test_ended("after forks of threads");
#else
    (void)fork_beside;
#endif
}
#endif

/* ---- how many ---- */

#if defined(__linux__)

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[400];
    FILE *file;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "w");
    if (file) { fputs(text, file); fclose(file); }
    CHECK(file, "%s cannot be written", path);
}

static void test_quota(void)
{
    char root[] = "test_pool_XXXXXX", folder[200], command[200];
    if (!mkdtemp(root)) { SKIP("no temporary folder can be made here"); return; }
    CHECK(cnn__quota(root, "/a/b") == INT_MAX, "no quota anywhere: %d", cnn__quota(root, "/a/b"));
    snprintf(folder, sizeof folder, "%s/a", root);
    mkdir(folder, 0700);
    snprintf(folder, sizeof folder, "%s/a/b", root);
    mkdir(folder, 0700);
    write_file(root, "a/b/cpu.max", "max 100000\n");
    CHECK(cnn__quota(root, "/a/b") == INT_MAX, "max: %d", cnn__quota(root, "/a/b"));
    write_file(root, "a/cpu.max", "350000 100000\n");
    CHECK(cnn__quota(root, "/a/b") == 4, "3.5 processors above: %d", cnn__quota(root, "/a/b"));
    write_file(root, "a/b/cpu.max", "150000 100000\n");
    CHECK(cnn__quota(root, "/a/b") == 2, "1.5 of 3.5 processors: %d", cnn__quota(root, "/a/b"));
    CHECK(cnn__quota(root, "/a") == 4, "3.5 processors: %d", cnn__quota(root, "/a"));
    CHECK(cnn__quota(root, "") == INT_MAX, "the root has none: %d", cnn__quota(root, ""));
    write_file(root, "cpu.max", "20000 100000\n");
    CHECK(cnn__quota(root, "/a/b") == 1 && cnn__quota(root, "") == 1, "0.2 processors: %d", cnn__quota(root, "/a/b"));
    write_file(root, "cpu.max", "300000 100000\n");
    snprintf(folder, sizeof folder, "%s/cpu", root);
    mkdir(folder, 0700);
    write_file(root, "cpu/cpu.cfs_quota_us", "-1\n");
    write_file(root, "cpu/cpu.cfs_period_us", "100000\n");
    CHECK(cnn__quota(root, "") == 3, "version 1 without a limit: %d", cnn__quota(root, ""));
    write_file(root, "cpu/cpu.cfs_quota_us", "200000\n");
    CHECK(cnn__quota(root, "") == 2, "version 1 with 2 processors: %d", cnn__quota(root, ""));
    snprintf(command, sizeof command, "rm -r '%s'", root);
    CHECK(!system(command), "%s", command);
}

static void test_affinity(void)
{
    cpu_set_t before, one;
    int i;
    sched_getaffinity(0, sizeof before, &before);
    CHECK(cnn__affinity() == CPU_COUNT(&before), "%d processors by the mask, %d by the system", cnn__affinity(), CPU_COUNT(&before));
    for (i = 0; !CPU_ISSET(i, &before); i++) continue;
    CPU_ZERO(&one);
    CPU_SET(i, &one);
    sched_setaffinity(0, sizeof one, &one);
    CHECK(cnn_num_threads(NULL) == 1, "one processor is allowed, by default there are %d threads", cnn_num_threads(NULL));
    sched_setaffinity(0, sizeof before, &before);
}
#else
static void test_quota(void) {}
static void test_affinity(void) {}
#endif

static void test_default(void)
{
    cnn_net *net = cnn_new(1, SIZE, SIZE);
    CHECK(processors >= 1 && cnn_num_threads(net) == processors, "by default %d threads, then %d", processors, cnn_num_threads(net));
    cnn_set_num_threads(net, 0);
    CHECK(cnn_error(net) && strstr(cnn_error(net), "at least 1 thread, not 0"), "0 threads: %s",
          cnn_error(net) ? cnn_error(net) : "no error");
    cnn_free(net);
}

/* As on a machine with so many processors: how many workers are awake at once depends on it. */
static void pretend(int count)
{
    cnn__open_pool(1);
    cnn__lock();
    cnn__pool.processors = count;
    cnn__unlock();
    cnn__close_pool();
}

int main(void)
{
    static const int machines[] = { 64, 1, 2 };
    size_t m;
    processors = cnn_num_threads(NULL);
    test_default();
    test_affinity();
    test_quota();
    expect();
    for (m = 0; m < sizeof machines / sizeof *machines; m++) {
        pretend(machines[m]);
        test_every_piece_once();
        test_held_up();
        test_ended("after jobs");
        cnn__open_pool(4);
        run_side_by_side(many_jobs, RUNNERS);
        cnn__close_pool();
        test_ended("after many callers");
        run_side_by_side(open_and_close, RUNNERS);
        test_ended("after pools in turn");
        test_every_number_of_threads();
        test_ended("after networks with 1 to 64 threads");
        run_side_by_side(train_one, RUNNERS);
        test_ended("after networks side by side");
        test_fork();
    }
    return test_end("test_pool");
}
