/* bench_threads.c - what threads are worth: on an idle machine, beside busy processes, and with more threads than processors.

       make bench-threads          or          build/bench_threads [--rounds N] [--beside PROGRAM]

   Each figure is a training step: the median over the rounds of the median step of half a second. Contestants run in turn,
   each in a process of its own. PROGRAM is this one, compiled with another cnn.h: the idle machine's rows then have its
   time and the ratio, e.g. to compare with an earlier version. Begin with an idle machine. */
#define _POSIX_C_SOURCE 200809L
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../../examples/digits.h"
#include "../lecture.h"
#include "measure.h"

#include <signal.h>
#include <sys/wait.h>

enum { SAMPLES = 1024, WARM_UP = 20, MOST_BUSY = 64 };

typedef struct network { const char *name; void (*build)(cnn_net *net); int channels, size; } network;
static const network networks[] = { { "LeNet-5", network_lenet5, 1, 28 }, { "MNIST CNN", network_mnist_cnn, 1, 28 },
                                    { "CIFAR-10 CNN", network_cifar10_cnn, 3, 32 } };

static unsigned char bytes[SAMPLES * 3 * 32 * 32];
static int labels[SAMPLES];

static void step(cnn_net *net, cnn_loader *loader)
{
    cnn_batch batch;
    while (!cnn_next(loader, &batch)) continue;            /* a new epoch */
    cnn_forward(net, &batch);
    cnn_cross_entropy(net, &batch);
    cnn_zero_grad(net);
    cnn_backward(net);
    cnn_step(net);
}

/* ms of a training step; threads 0: the default */
static double training_step(const network *n, int batch, int threads)
{
    cnn_data *data;
    cnn_net *net = cnn_new(n->channels, n->size, n->size);
    cnn_loader *loader;
    series ms = { NULL, 0, 0 };
    double begun;
    int i;
    for (i = 0; i < SAMPLES; i++) {
        labels[i] = i % 10;
        if (n->channels == 1) digit_draw(bytes + i * DIGIT_PIXELS, labels[i], i);
    }
    for (i = 0; n->channels > 1 && i < (int)sizeof bytes; i++) bytes[i] = (unsigned char)(i * 2654435761u >> 24);
    data = cnn_data_new(.count = SAMPLES, .channels = n->channels, .height = n->size, .width = n->size, .classes = 10,
                        .bytes = bytes, .labels = labels);
    n->build(net);
    cnn_adam(net, .lr = 1e-3f);
    if (threads) cnn_set_num_threads(net, threads);
    loader = cnn_loader_new(data, .batch_size = batch, .shuffle = 1, .drop_last = 1);
    for (i = 0; i < WARM_UP; i++) step(net, loader);
    for (begun = seconds(); ms.count < 5 || seconds() - begun < .5;) {
        double start = seconds();
        step(net, loader);
        add(&ms, 1e3 * (seconds() - start));
    }
    if (cnn_error(net)) { fprintf(stderr, "bench_threads: %s\n", cnn_error(net)); exit(1); }
    return median(&ms);
}

static void nothing(void *unused, int piece, int thread) { (void)unused; (void)piece; (void)thread; }

/* us from the beginning to the end of a job of as many empty pieces as threads; pause: so many us lie between two jobs */
static double empty_job(int threads, double pause)
{
    char sentence[200];
    cnn_backend b = *cnn_find_backend("simd");
    void *context = b.open(threads, sentence, sizeof sentence);
    series us = { NULL, 0, 0 };
    int i;
    for (i = 0; i < 5000; i++) {
        double start = seconds();
        cnn__parallel(threads, threads, nothing, NULL);
        add(&us, 1e6 * (seconds() - start));
        for (start = seconds(); 1e6 * (seconds() - start) < pause;) continue;
    }
    b.close(context);
    return median(&us);
}

/* ---- contestants in turn ---- */

typedef struct contestant { const char *program; int network, batch, threads; series ms; } contestant;

static void play(contestant *c)
{
    char command[600];
    double ms;
    FILE *pipe;
    snprintf(command, sizeof command, "'%s' --one %d %d %d", c->program, c->network, c->batch, c->threads);
    pipe = popen(command, "r");
    if (!pipe || fscanf(pipe, "%lf", &ms) != 1) { fprintf(stderr, "bench_threads: failed: %s\n", command); exit(1); }
    pclose(pipe);
    add(&c->ms, ms);
}

/* Both in turn beside `busy` processes that do nothing else; prints their medians and the ratio. */
static void compare(const char *what, contestant a, contestant b, int busy, int rounds)
{
    pid_t children[MOST_BUSY];
    double of_a, of_b;
    int i;
    for (i = 0; i < busy; i++)
        if (!(children[i] = fork())) for (;;) {
            volatile int turn = 0;
            turn++;
        }
    for (i = 0; i < rounds; i++) { play(&a); play(&b); }
    for (i = 0; i < busy; i++) { kill(children[i], SIGKILL); waitpid(children[i], NULL, 0); }
    of_a = median(&a.ms);
    of_b = median(&b.ms);
    printf("| %s | %.2f ms | %.2f ms | %.2f |\n", what, of_a, of_b, of_a / of_b);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const struct { int network, batch; } idle[] = { { 0, 128 }, { 1, 128 }, { 2, 128 }, { 0, 8 } };
    static const int crowds[] = { 1, 4, 16 };
    const char *beside = NULL;
    int rounds = 9, threads = processors(), i;
    char what[100];
    if (argc == 5 && !strcmp(argv[1], "--one"))
        return printf("%.4f\n", training_step(&networks[atoi(argv[2])], atoi(argv[3]), atoi(argv[4]))) < 0;
    for (i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--rounds")) rounds = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--beside")) beside = argv[i + 1];
        else break;
    }
    if (i < argc) return fputs("usage: bench_threads [--rounds N] [--beside PROGRAM]\n", stderr), 2;
    printf("%s, %d processors\n\n", processor(), threads);
    printf("empty job: %.1f us one after the other, %.1f us with 1 ms between two\n\n", empty_job(threads, 0), empty_job(threads, 1000));
    printf("| idle machine | %d threads | %s | ratio |\n| --- | --- | --- | --- |\n", threads, beside ? beside : "1 thread");
    for (i = 0; i < (int)(sizeof idle / sizeof *idle); i++) {
        contestant a = { argv[0], idle[i].network, idle[i].batch, threads, { NULL, 0, 0 } }, b = a;
        if (beside) b.program = beside;
        else b.threads = 1;
        snprintf(what, sizeof what, "%s, batch %d", networks[idle[i].network].name, idle[i].batch);
        compare(what, a, b, 0, rounds);
    }
    printf("\n| LeNet-5, batch 128 | by default | 1 thread | ratio |\n| --- | --- | --- | --- |\n");
    for (i = 0; i < 3; i++) {
        contestant a = { argv[0], 0, 128, 0, { NULL, 0, 0 } }, b = a;
        b.threads = 1;
        snprintf(what, sizeof what, "beside %d busy process%s", crowds[i], i ? "es" : "");
        compare(what, a, b, crowds[i], rounds);
    }
    printf("\n| LeNet-5, batch 128 | 16 threads | %d threads | ratio |\n| --- | --- | --- | --- |\n", threads);
    {
        contestant a = { argv[0], 0, 128, 16, { NULL, 0, 0 } }, b = a;
        b.threads = threads;
        compare("idle machine", a, b, 0, rounds);
    }
    return 0;
}
