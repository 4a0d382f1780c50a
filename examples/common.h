/* common.h - what the training examples share: the options, the data, the run and what follows it.
   The networks themselves are in the examples: each shows one. */
#ifndef COMMON_H
#define COMMON_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <unistd.h>
#endif
#include "../cnn.h"
#include "digits.h"

typedef struct example {
    /* set by the program */
    const char *name;                       /* "lenet5": for messages and files                          */
    const char *about;                      /* one sentence for --help                                   */
    const char *data_name, *data_folder;    /* "MNIST", "mnist": looked for in $CNN_DATA and in data     */
    cnn_data *(*read)(const char *directory, const char *split);
    const char *test_split;                 /* "t10k", "test"                                            */
    int compares;                           /* several networks: no --save, --load, --checkpoint, --report, --quiet */
    /* set by the options; the program gives the defaults */
    int epochs, batch;
    float lr;
    uint64_t seed;
    const char *data, *backend, *precision, *save, *load, *checkpoint, *report;
    int threads, limit, quiet;
    /* loaded */
    cnn_data *train, *test;
    int drawn;                              /* they are the built-in digits                              */
} example;

static inline void example_fail(const example *e, const char *sentence)
{
    fprintf(stderr, "%s: %s\n", e->name, sentence);
    exit(1);
}

static inline void example_help(const example *e)
{
    printf("%s - %s\n\n"
           "usage: ./%s [options]\n"
           "  --data DIR      the folder with %s (default: $CNN_DATA/%s, then data/%s)\n"
           "  --epochs N      passes over the training samples (default %d)\n"
           "  --batch N       samples a step (default %d)\n"
           "  --lr X          learning rate of Adam (default %g)\n"
           "  --seed N        of weights, shuffles and dropout (default %llu)\n"
           "  --backend NAME  direct (the textbook), gemm (fast), or cuda where it is linked (default gemm)\n"
           "  --precision P   float32, or tf32: convolutions may use it where the backend has it, as cuda (default float32)\n"
           "  --threads N     changes the speed, not one bit of the result (default: all cores)\n"
           "  --limit N       use the first N training samples\n",
           e->name, e->about, e->name, e->data_name, e->data_folder, e->data_folder, e->epochs, e->batch, e->lr,
           (unsigned long long)e->seed);
    if (!e->compares)
        printf("  --save FILE     write what was learned, as .pth (PyTorch) or .safetensors%s%s\n"
               "  --load FILE     begin with such a file\n"
               "  --checkpoint FILE  save all after each epoch, and go on from there if FILE exists\n"
               "  --report FILE   write an HTML page with curves, confusion matrix, mistakes and feature maps\n"
               "  --quiet         only one line an epoch\n",
               e->save ? "; default " : "", e->save ? e->save : "");
    printf("  --help          this\n");
}

/* A number within limits, or a sentence that says what is allowed and exit 1. */
static inline double example_number(const example *e, const char *option, const char *text, double low, double high, int whole)
{
    char *end, sentence[300];
    double value = strtod(text, &end);
    if (end != text && !*end && value >= low && value <= high && (!whole || value == (double)(long long)value)) return value;
    snprintf(sentence, sizeof sentence, "%s %.60s: must be a %s from %.10g to %.10g", option, text, whole ? "whole number" : "number", low, high);
    example_fail(e, sentence);
    return 0;
}

/* The options that take a file, folder or name; NULL if `option` is none of them. */
static inline const char **example_text(example *e, const char *option)
{
    if (!strcmp(option, "--data")) return &e->data;
    if (!strcmp(option, "--backend")) return &e->backend;
    if (!strcmp(option, "--precision")) return &e->precision;
    if (e->compares) return NULL;
    return !strcmp(option, "--save") ? &e->save : !strcmp(option, "--load") ? &e->load
         : !strcmp(option, "--checkpoint") ? &e->checkpoint : !strcmp(option, "--report") ? &e->report : NULL;
}

static inline void example_options(example *e, int argc, char **argv)
{
    int i;
    for (i = 1; i < argc; i++) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL, **text = example_text(e, option);
        int number = !strcmp(option, "--epochs") || !strcmp(option, "--batch") || !strcmp(option, "--lr") || !strcmp(option, "--seed")
                     || !strcmp(option, "--threads") || !strcmp(option, "--limit");
        char sentence[300];
        if (!strcmp(option, "--help")) { example_help(e); exit(0); }
        if (!strcmp(option, "--quiet") && !e->compares) { e->quiet = 1; continue; }
        if (!text && !number) snprintf(sentence, sizeof sentence, "there is no option %.60s; --help lists those there are", option);
        else if (!value) snprintf(sentence, sizeof sentence, "%s needs a value; --help says which", option);
        if ((!text && !number) || !value) example_fail(e, sentence);
        i++;
        if (text) *text = value;
        else if (!strcmp(option, "--epochs")) e->epochs = (int)example_number(e, option, value, 1, 1000000, 1);
        else if (!strcmp(option, "--batch")) e->batch = (int)example_number(e, option, value, 1, 1000000, 1);
        else if (!strcmp(option, "--lr")) e->lr = (float)example_number(e, option, value, 1e-9, 1000, 0);
        else if (!strcmp(option, "--seed")) e->seed = (uint64_t)example_number(e, option, value, 0, 9007199254740992.0, 1);
        else if (!strcmp(option, "--threads")) e->threads = (int)example_number(e, option, value, 1, 1024, 1);
        else e->limit = (int)example_number(e, option, value, 1, 1000000000, 1);
    }
    if (e->precision && strcmp(e->precision, "float32") && strcmp(e->precision, "tf32")) {
        char sentence[300];
        snprintf(sentence, sizeof sentence, "--precision %.60s: must be float32 or tf32", e->precision);
        example_fail(e, sentence);
    }
}

static inline int example_exists(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file) fclose(file);
    return file != NULL;
}

static inline int example_has_data(const char *directory)         /* any file of one of the data sets, packed or not */
{
    static const char *const files[] = { "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
                                         "data_batch_1.bin", "test_batch.bin" };
    char path[1024];
    int i, found = 0;
    for (i = 0; i < 12 && !found; i++) {
        snprintf(path, sizeof path, "%s/%s%s", directory, files[i / 2], i % 2 ? ".gz" : "");
        found = example_exists(path);
    }
    return found;
}

/* Loads the data set. Where there is none, digits are drawn in MNIST's place; where it is broken, the program ends. */
static inline void example_load(example *e)
{
    static char folder[900];
    char sentence[1200];
    const char *root = getenv("CNN_DATA"), *directory = e->data;
    if (!directory) {
        snprintf(folder, sizeof folder, "%.800s/%s", root ? root : "data", e->data_folder);
        if (root && !example_has_data(folder)) snprintf(folder, sizeof folder, "data/%s", e->data_folder);
        directory = folder;
    }
    if (!example_has_data(directory) && (e->data || strcmp(e->data_folder, "mnist"))) {
        snprintf(sentence, sizeof sentence, "there is no %s in %.900s; get it with: make %s", e->data_name, directory, e->data_folder);
        example_fail(e, sentence);
    }
    if (example_has_data(directory)) {
        e->train = e->read(directory, "train");
        e->test = e->read(directory, e->test_split);
    } else {
        printf("No MNIST in %s (get it: make mnist): training on built-in digits instead.\n", folder);
        e->drawn = 1;
        e->train = digits_new(0, e->limit && e->limit < 12000 ? e->limit : 12000);
        e->test = digits_new(1000000, 2000);
    }
    if (e->train->error) example_fail(e, e->train->error);
    if (e->test->error) example_fail(e, e->test->error);
    if (e->limit && e->limit < e->train->count) e->train->count = e->limit;
    if (!e->quiet)
        printf("%s: %d training and %d test samples of %d x %d x %d\n", e->drawn ? "built-in digits" : e->data_name, e->train->count, e->test->count,
               e->train->channels, e->train->height, e->train->width);
    fflush(stdout);
}

/* What a new network needs from the options, before its layers. */
static inline void example_begin(const example *e, cnn_net *net)
{
    if (e->backend) cnn_to(net, e->backend);
    if (e->threads) cnn_set_num_threads(net, e->threads);
    cnn_manual_seed(net, e->seed);
    cnn_allow_tf32(net, e->precision && !strcmp(e->precision, "tf32"));
}

static inline void example_check(const example *e, const cnn_net *net)
{
    if (cnn_error(net)) example_fail(e, cnn_error(net));
}

static inline void example_each_epoch(cnn_net *net, const cnn_epoch *epoch, void *user)
{
    const example *e = (const example *)user;
    (void)epoch;
    if (e->checkpoint) cnn_checkpoint_save(net, e->checkpoint);
}

/* Trains as the lecture does, one line an epoch; then the learning curves, as a sketch, NAME.svg and NAME.csv. */
static inline void example_train(example *e, cnn_net *net)
{
    char path[256], title[256];
    cnn_fit_options o = { 0 };
    int already;
#ifndef _WIN32
    o.progress_bar = isatty(2);
#endif
    o.epochs = e->epochs;
    o.batch_size = e->batch;
    o.test_batch_size = 256;
    o.log = stdout;
    o.progress = e->quiet ? NULL : stderr;
    o.doctor = stderr;
    o.each_epoch = example_each_epoch;
    o.user = e;
    if (!e->quiet) cnn_summary(net, stdout);
    if (e->load) cnn_load(net, e->load);
    if (e->checkpoint && example_exists(e->checkpoint)) {
        cnn_checkpoint_load(net, e->checkpoint);
        cnn_history(net, &already);
        if (!cnn_error(net)) printf("%s: going on after epoch %d\n", e->checkpoint, already);
    }
    cnn_fit_with(net, e->train, e->test, o);
    example_check(e, net);
    if (!e->quiet) cnn_print_curves(net, stdout);
    snprintf(title, sizeof title, "%s on %s", e->name, e->drawn ? "built-in digits" : e->data_name);
    snprintf(path, sizeof path, "%s.svg", e->name);
    cnn_save_curves_svg(net, path, title);
    snprintf(path, sizeof path, "%s.csv", e->name);
    cnn_save_curves_csv(net, path);
    if (e->save) cnn_save(net, e->save);
    if (e->report) cnn_report(net, e->test, e->report, title);
    example_check(e, net);
    if (e->quiet) return;
    printf("Learning curves: %s.svg, %s.csv\n", e->name, e->name);
    if (e->save) printf("State dict: %s\n", e->save);
    if (e->report) printf("Report: %s\n", e->report);
}

static inline void example_end(example *e, cnn_net *net)
{
    cnn_free(net);
    if (e->drawn) {
        digits_free(e->train);
        digits_free(e->test);
    } else {
        cnn_data_free(e->train);
        cnn_data_free(e->test);
    }
}

#endif
