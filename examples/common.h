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
    cnn_data *(*load)(const char *directory, const char *split);
    const char *test_split;                 /* "t10k", "test"                                            */
    /* set by the options; the program gives the defaults */
    int epochs, batch;
    float lr;
    uint64_t seed;
    const char *data, *backend;
    int threads, limit, quiet;
    /* loaded */
    cnn_data *train, *test;
    int drawn;                              /* they are the built-in digits                              */
} example;

static void example_fail(const example *e, const char *sentence)
{
    fprintf(stderr, "%s: %s\n", e->name, sentence);
    exit(1);
}

static void example_help(const example *e)
{
    printf("%s - %s\n\n"
           "usage: ./%s [options]\n"
           "  --data DIR      the folder with %s (default: $CNN_DATA/%s, then data/%s)\n"
           "  --epochs N      passes over the training samples (default %d)\n"
           "  --batch N       samples a step (default %d)\n"
           "  --lr X          learning rate of Adam (default %g)\n"
           "  --seed N        of weights, shuffles and dropout (default %llu)\n"
           "  --backend NAME  direct (the textbook), gemm (fast), or cuda where it is linked (default gemm)\n"
           "  --threads N     changes the speed, not one bit of the result (default: all cores)\n"
           "  --limit N       use the first N training samples\n"
           "  --quiet         only one line an epoch\n"
           "  --help          this\n",
           e->name, e->about, e->name, e->data_name, e->data_folder, e->data_folder, e->epochs, e->batch, e->lr, (unsigned long long)e->seed);
}

/* A number within limits, or a sentence that says what is allowed and exit 1. */
static double example_number(const example *e, const char *option, const char *text, double low, double high, int whole)
{
    char *end, sentence[300];
    double value = strtod(text, &end);
    if (end != text && !*end && value >= low && value <= high && (!whole || value == (double)(long long)value)) return value;
    snprintf(sentence, sizeof sentence, "%s %.60s: must be a %s from %.10g to %.10g", option, text, whole ? "whole number" : "number", low, high);
    example_fail(e, sentence);
    return 0;
}

static void example_options(example *e, int argc, char **argv)
{
    int i;
    for (i = 1; i < argc; i++) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        char sentence[300];
        if (!strcmp(option, "--help")) { example_help(e); exit(0); }
        if (!strcmp(option, "--quiet")) { e->quiet = 1; continue; }
        if (strcmp(option, "--data") && strcmp(option, "--epochs") && strcmp(option, "--batch") && strcmp(option, "--lr") && strcmp(option, "--seed")
            && strcmp(option, "--backend") && strcmp(option, "--threads") && strcmp(option, "--limit")) {
            snprintf(sentence, sizeof sentence, "there is no option %.60s; --help lists those there are", option);
            example_fail(e, sentence);
        }
        if (!value) {
            snprintf(sentence, sizeof sentence, "%s needs a value; --help says which", option);
            example_fail(e, sentence);
        }
        i++;
        if (!strcmp(option, "--data")) e->data = value;
        else if (!strcmp(option, "--backend")) e->backend = value;
        else if (!strcmp(option, "--epochs")) e->epochs = (int)example_number(e, option, value, 1, 1000000, 1);
        else if (!strcmp(option, "--batch")) e->batch = (int)example_number(e, option, value, 1, 1000000, 1);
        else if (!strcmp(option, "--lr")) e->lr = (float)example_number(e, option, value, 1e-9, 1000, 0);
        else if (!strcmp(option, "--seed")) e->seed = (uint64_t)example_number(e, option, value, 0, 9007199254740992.0, 1);
        else if (!strcmp(option, "--threads")) e->threads = (int)example_number(e, option, value, 1, 1024, 1);
        else e->limit = (int)example_number(e, option, value, 1, 1000000000, 1);
    }
}

static int example_has_data(const example *e, const char *directory)       /* any of the data set's files, packed or not */
{
    static const char *const files[] = { "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte" };
    char path[1024];
    int i, found = 0;
    (void)e;
    for (i = 0; i < 8 && !found; i++) {
        FILE *file;
        snprintf(path, sizeof path, "%s/%s%s", directory, files[i / 2], i % 2 ? ".gz" : "");
        file = fopen(path, "rb");
        if (file) fclose(file);
        found = file != NULL;
    }
    return found;
}

/* Loads the data set, or draws digits where there is none. Exits with a sentence where it is there but broken. */
static void example_load(example *e)
{
    static char folder[900];
    const char *root = getenv("CNN_DATA"), *directory = e->data;
    if (!directory) {
        snprintf(folder, sizeof folder, "%.800s/%s", root ? root : "data", e->data_folder);
        if (root && !example_has_data(e, folder)) snprintf(folder, sizeof folder, "data/%s", e->data_folder);
        if (example_has_data(e, folder)) directory = folder;
    }
    if (directory) {
        e->train = e->load(directory, "train");
        e->test = e->load(directory, e->test_split);
        if (e->train->error) example_fail(e, e->train->error);
        if (e->test->error) example_fail(e, e->test->error);
    } else {
        printf("No %s in %s (get it: make %s): training on built-in digits instead.\n", e->data_name, folder, e->data_folder);
        e->drawn = 1;
        e->train = digits_new(0, e->limit && e->limit < 12000 ? e->limit : 12000);
        e->test = digits_new(1000000, 2000);
        if (e->train->error) example_fail(e, e->train->error);
        if (e->test->error) example_fail(e, e->test->error);
    }
    if (e->limit && e->limit < e->train->count) e->train->count = e->limit;
    if (!e->quiet)
        printf("%s: %d training and %d test samples of %d x %d x %d\n", e->drawn ? "built-in digits" : e->data_name, e->train->count, e->test->count,
               e->train->channels, e->train->height, e->train->width);
    fflush(stdout);
}

/* What a new network needs from the options, before its layers. */
static void example_begin(const example *e, cnn_net *net)
{
    if (e->backend) cnn_to(net, e->backend);
    if (e->threads) cnn_set_num_threads(net, e->threads);
    cnn_manual_seed(net, e->seed);
}

/* Trains as the lecture does, one line an epoch; then the learning curves, as a sketch, NAME.svg and NAME.csv. */
static void example_train(example *e, cnn_net *net)
{
    char path[256], title[256];
    cnn_fit_options o = { 0 };
    int terminal = 0;
#ifndef _WIN32
    terminal = isatty(2);
#endif
    if (!e->quiet) cnn_summary(net, stdout);
    o.epochs = e->epochs;
    o.batch_size = e->batch;
    o.test_batch_size = 256;
    o.log = stdout;
    o.progress = e->quiet ? NULL : stderr;
    o.progress_bar = terminal;
    cnn_fit_with(net, e->train, e->test, o);
    if (!e->quiet) cnn_print_curves(net, stdout);
    snprintf(title, sizeof title, "%s on %s", e->name, e->drawn ? "built-in digits" : e->data_name);
    snprintf(path, sizeof path, "%s.svg", e->name);
    cnn_save_curves_svg(net, path, title);
    snprintf(path, sizeof path, "%s.csv", e->name);
    cnn_save_curves_csv(net, path);
    if (cnn_error(net)) example_fail(e, cnn_error(net));
    if (!e->quiet) printf("Learning curves: %s.svg, %s.csv\n", e->name, e->name);
}

static void example_end(example *e, cnn_net *net)
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
