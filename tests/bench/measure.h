/* measure.h - what bench and ladder share: a clock, medians, the machine's name, and its limit: how many
   multiply-adds a second its vector registers do when nothing has to be fetched from memory. */
#ifndef MEASURE_H
#define MEASURE_H

#ifndef __GNUC__
#error "measure.h: the limit is measured with the vector extensions of GCC and Clang"
#endif

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static clockid_t measure_clock = CLOCK_MONOTONIC;           /* CLOCK_PROCESS_CPUTIME_ID where others use the machine too */

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(measure_clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- repeats of one measurement ---- */

typedef struct series { double *values; int count, room; } series;

static inline void add(series *s, double value)
{
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 64;
        s->values = (double *)realloc(s->values, sizeof *s->values * (size_t)s->room);
        if (!s->values) { fputs("out of memory\n", stderr); exit(1); }
    }
    s->values[s->count++] = value;
}

static inline int measure_order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(series *s)
{
    if (!s->count) return 0;
    qsort(s->values, (size_t)s->count, sizeof *s->values, measure_order);
    return (s->values[s->count / 2] + s->values[(s->count - 1) / 2]) / 2;
}

/* ---- the machine ---- */

static inline const char *processor(void)
{
    static char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        char *name = strncmp(line, "model name", 10) ? NULL : strchr(line, ':');
        if (!name) continue;
        name[strcspn(name, "\n")] = 0;
        fclose(file);
        return name + 2;
    }
    if (file) fclose(file);
    return "unknown processor";
}

static inline int processors(void) { return cnn_num_threads(NULL); }       /* that this process may use */

static inline const char *compiler(void)
{
#if defined(__clang__)
    return __VERSION__;
#else
    return "GCC " __VERSION__;
#endif
}

/* ---- its limit ---- */

enum { CHAINS = 12 };       /* sums that do not wait for each other: more than latency x units, fewer than registers */

#if defined(__clang__)
#define MEASURE_UNROLL _Pragma("unroll")
#else
#define MEASURE_UNROLL _Pragma("GCC unroll 12")
#pragma GCC push_options
#pragma GCC optimize("O3", "fp-contract=fast")             /* sum * factor + term as one instruction */
#endif

#define MEASURE_LIMIT(isa, target_of, bytes)                                                                     \
    typedef float registers_##isa __attribute__((vector_size(bytes)));                                           \
    target_of static float chains_##isa(long rounds, float shrink, float grow)                                   \
    {                                                                                                            \
        registers_##isa sum[CHAINS], factor = { 0 }, term = { 0 };                                               \
        long n;                                                                                                  \
        int i;                                                                                                   \
        factor += shrink;                                                                                        \
        term += grow;                                                                                            \
        MEASURE_UNROLL for (i = 0; i < CHAINS; i++) sum[i] = term * (float)i;                                    \
        for (n = 0; n < rounds; n++)                                                                             \
            MEASURE_UNROLL for (i = 0; i < CHAINS; i++) sum[i] = sum[i] * factor + term;                         \
        MEASURE_UNROLL for (i = 1; i < CHAINS; i++) sum[0] += sum[i];                                            \
        return sum[0][0];                                                                                        \
    }

MEASURE_LIMIT(baseline, , 16)
#ifdef __x86_64__
MEASURE_LIMIT(avx2, __attribute__((target("avx2,fma"))), 32)
MEASURE_LIMIT(avx512, __attribute__((target("avx512f"))), 64)
#endif

#if !defined(__clang__)
#pragma GCC pop_options
#endif

typedef struct instruction_set { const char *name; int lanes; float (*chains)(long, float, float); } instruction_set;

/* The best that the machine has, or the one that CNN_ISA asks for, as the library chooses. */
static inline instruction_set best_instruction_set(void)
{
    instruction_set best = { "baseline", 4, chains_baseline };
#ifdef __x86_64__
    const char *asked = getenv("CNN_ISA");
    if (!asked || !*asked) asked = "avx512";
    __builtin_cpu_init();
    if (strcmp(asked, "baseline") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        best.name = "avx2"; best.lanes = 8; best.chains = chains_avx2;
    }
    if (!strcmp(asked, "avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        best.name = "avx512"; best.lanes = 16; best.chains = chains_avx512;
    }
#endif
    return best;
}

typedef struct chains_of_one_thread { const instruction_set *set; pthread_t thread; float sum; } chains_of_one_thread;
enum { CHAIN_ROUNDS = 1000000, MOST_CHAIN_THREADS = 256 };

static inline void *run_chains(void *argument)
{
    chains_of_one_thread *c = (chains_of_one_thread *)argument;
    volatile float shrink = 0.999f;
    c->sum = c->set->chains(CHAIN_ROUNDS, shrink, 0.001f);
    return NULL;
}

/* GFLOP/s in registers, all threads together, once for some milliseconds; a multiply-add counts as two. */
static inline double limit(const instruction_set *set, int threads)
{
    static chains_of_one_thread chains[MOST_CHAIN_THREADS];
    double begun = seconds(), spent;
    int t, started = 0;
    if (threads > MOST_CHAIN_THREADS) threads = MOST_CHAIN_THREADS;
    for (t = 0; t < threads; t++) chains[t].set = set;
    for (t = 1; t < threads; t++) started += !pthread_create(&chains[t].thread, NULL, run_chains, &chains[t]);
    if (started < threads - 1) { fprintf(stderr, "the system gives only %d threads\n", started + 1); exit(1); }
    run_chains(&chains[0]);
    for (t = 1; t < threads; t++) pthread_join(chains[t].thread, NULL);
    spent = seconds() - begun;
    return 2.0 * CHAIN_ROUNDS * CHAINS * set->lanes * threads / spent / 1e9;
}

#endif
