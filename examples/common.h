/* common.h - what the training examples share: the options, loading the data, training, saving the results.
   The networks are in the examples: each shows one. */
#ifndef COMMON_H
#define COMMON_H

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../cnn.h"
#include "digits.h"
#ifdef _WIN32
#include <direct.h>
#include <io.h>
#include <process.h>
#define WIN32_LEAN_AND_MEAN
#include <windows.h>                        /* last: it makes macros of short words */
#define example_process _getpid
#define example_mkdir(path) _mkdir(path)
#else
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#define example_process getpid
#define example_mkdir(path) mkdir(path, 0777)
#endif

/* A program trains one network, compares several, uses a trained one, or does both with a folder of pictures: that
   decides which options it has. */
enum {
    EXAMPLE_TRAINS = 1, EXAMPLE_COMPARES = 2, EXAMPLE_USES = 4, EXAMPLE_PHOTOS = 8,
    EXAMPLE_LEARNS = EXAMPLE_TRAINS | EXAMPLE_COMPARES | EXAMPLE_PHOTOS, EXAMPLE_SETS = 7, EXAMPLE_ALL = 15
};

typedef struct example {
    /* set by the program */
    const char *name;                       /* "lenet5": for messages and files                          */
    const char *about;                      /* one sentence for --help                                   */
    const char *data_name, *data_folder;    /* "MNIST", "mnist": looked for in $CNN_DATA and in data     */
    cnn_data *(*read)(const char *directory, const char *split);
    int kind;                               /* EXAMPLE_TRAINS (also 0), _COMPARES, _USES or _PHOTOS      */
    int train_limit;                        /* training samples where --limit is not given; 0: all       */
    /* set by the options; the program gives the defaults */
    int epochs, batch;
    double lr;
    cnn_augment_options augment;            /* of the training samples                                   */
    uint64_t seed;
    const char *data, *backend, *precision, *save, *load, *checkpoint, *report, *image;
    int threads, limit, quiet;
    const char *pretrained; int size, alone;                /* EXAMPLE_PHOTOS has these */
    char **pictures; int picture_count;                     /* the words that are no options */
    /* loaded */
    cnn_data *train, *test;
    int drawn;                              /* train and test are the built-in digits                    */
    int stopped;                            /* by Ctrl-C                                                 */
} example;

#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static inline void example_fail(const example *e, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", e->name);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(1);
}

/* ---- options ---- */

typedef enum example_type { EXAMPLE_TEXT, EXAMPLE_WHOLE, EXAMPLE_REAL, EXAMPLE_SEED, EXAMPLE_SWITCH } example_type;

typedef struct example_option {
    const char *name, *value;               /* "--epochs", "N"                                           */
    int whose;                              /* which kinds of program have it                            */
    example_type type;
    size_t at;                              /* the offset of its field in `example`                      */
    double low, high;                       /* limits of a number                                        */
    const char *about;
} example_option;

static const example_option example_list[] = {
    { "--data", "DIR", EXAMPLE_SETS, EXAMPLE_TEXT, offsetof(example, data), 0, 0, "the folder with the data set" },
    { "--data", "FOLDER", EXAMPLE_PHOTOS, EXAMPLE_TEXT, offsetof(example, data), 0, 0,
      "has a folder of pictures for each class (default: photos_digits, which is made, of drawn digits)" },
    { "--size", "N", EXAMPLE_PHOTOS, EXAMPLE_WHOLE, offsetof(example, size), 16, 4096,
      "pictures are resized and cropped to N x N (default 64; with --pretrained 224)" },
    { "--pretrained", "FILE", EXAMPLE_PHOTOS, EXAMPLE_TEXT, offsetof(example, pretrained), 0, 0,
      "a state dict of torchvision's resnet18: begin with its weights and a new last layer" },
    { "--alone", "N", EXAMPLE_PHOTOS, EXAMPLE_WHOLE, offsetof(example, alone), 0, 1000000,
      "with --pretrained: epochs in which the last layer learns alone; then all do, at a tenth of the rate" },
    { "--epochs", "N", EXAMPLE_LEARNS, EXAMPLE_WHOLE, offsetof(example, epochs), 1, 1000000,
      "passes over the training samples" },
    { "--batch", "N", EXAMPLE_LEARNS, EXAMPLE_WHOLE, offsetof(example, batch), 1, 1000000,
      "samples in each step" },
    { "--lr", "X", EXAMPLE_LEARNS, EXAMPLE_REAL, offsetof(example, lr), 1e-9, 1000,
      "learning rate" },
    { "--seed", "N", EXAMPLE_LEARNS, EXAMPLE_SEED, offsetof(example, seed), 0, 0,
      "of weights, shuffles and dropout" },
    { "--backend", "NAME", EXAMPLE_ALL, EXAMPLE_TEXT, offsetof(example, backend), 0, 0,
      "simd (vectors and threads), direct (the textbook), or cuda where it is linked (default simd)" },
    { "--precision", "P", EXAMPLE_ALL, EXAMPLE_TEXT, offsetof(example, precision), 0, 0,
      "float32, or tf32 for convolutions on a backend that has it, such as cuda (default float32)" },
    { "--threads", "N", EXAMPLE_ALL, EXAMPLE_WHOLE, offsetof(example, threads), 1, 1024,
      "changes the speed but no bit of the result (default: all cores)" },
    { "--limit", "N", EXAMPLE_SETS, EXAMPLE_WHOLE, offsetof(example, limit), 1, INT_MAX,
      "use the first N training samples, and the first N test samples" },
    { "--save", "FILE", EXAMPLE_TRAINS, EXAMPLE_TEXT, offsetof(example, save), 0, 0,
      "write the learned parameters, as .pth (PyTorch) or .safetensors" },
    { "--save", "FILE", EXAMPLE_PHOTOS, EXAMPLE_TEXT, offsetof(example, save), 0, 0,
      "write the network, with the names of the classes" },
    { "--load", "FILE", EXAMPLE_PHOTOS, EXAMPLE_TEXT, offsetof(example, load), 0, 0,
      "say what the PICTURES show with the network in such a file, instead of training one" },
    { "--load", "FILE", EXAMPLE_TRAINS | EXAMPLE_USES, EXAMPLE_TEXT, offsetof(example, load), 0, 0,
      "start from the parameters in such a file" },
    { "--checkpoint", "FILE", EXAMPLE_TRAINS, EXAMPLE_TEXT, offsetof(example, checkpoint), 0, 0,
      "save the state of training after each epoch; if FILE exists, continue from it" },
    { "--report", "FILE", EXAMPLE_TRAINS | EXAMPLE_USES | EXAMPLE_PHOTOS, EXAMPLE_TEXT, offsetof(example, report), 0, 0,
      "write an HTML page with curves, confusion matrix, mistakes and feature maps" },
    { "--image", "FILE", EXAMPLE_USES, EXAMPLE_TEXT, offsetof(example, image), 0, 0,
      "say what this picture shows, instead of evaluating the test samples" },
    { "--quiet", NULL, EXAMPLE_TRAINS | EXAMPLE_USES | EXAMPLE_PHOTOS, EXAMPLE_SWITCH, offsetof(example, quiet), 0, 0,
      "print only the results" }
};
enum { EXAMPLE_OPTIONS = sizeof example_list / sizeof *example_list };

static inline int example_has(const example *e, const example_option *o)
{
    return (o->whose & (e->kind ? e->kind : EXAMPLE_TRAINS)) != 0;
}

static inline void example_help(const example *e)
{
    int i;
    printf("%s - %s\n\nusage: ./%s [options]%s\n", e->name, e->about, e->name,
           e->kind == EXAMPLE_PHOTOS ? " [PICTURES]" : "");
    for (i = 0; i < EXAMPLE_OPTIONS; i++) {
        const example_option *o = &example_list[i];
        const void *at = (const char *)e + o->at;
        char name[40];
        if (!example_has(e, o)) continue;
        snprintf(name, sizeof name, "%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
        printf("  %-20s%s", name, o->about);
        if (at == (const void *)&e->data && e->data_folder)
            printf(": %s (default: $CNN_DATA/%s, then data/%s)", e->data_name, e->data_folder, e->data_folder);
        else if (at == (const void *)&e->limit && e->train_limit)
            printf(" (default: %d training samples, all test samples)", e->train_limit);
        else if (o->type == EXAMPLE_SEED)
            printf(", from 0 to 18446744073709551615 (default %llu)", (unsigned long long)e->seed);
        else if (o->type == EXAMPLE_REAL) printf(" (default %g)", *(const double *)at);
        else if (o->type == EXAMPLE_WHOLE && *(const int *)at) printf(" (default %d)", *(const int *)at);
        else if (o->type == EXAMPLE_TEXT && *(const char *const *)at) printf(" (default %s)", *(const char *const *)at);
        printf("\n");
    }
    printf("  %-20s%s", "--help, -h", "print this text\n");
    if (!e->kind || e->kind == EXAMPLE_TRAINS || e->kind == EXAMPLE_PHOTOS)
        printf("\nCtrl-C stops after the current batch and saves the files asked for; again, and it stops at once.\n");
}

/* Reads digits only: strtoull also reads signs, wraps negative numbers, and stops at a point. Returns 0 if it fails. */
static inline int example_whole(const char *text, uint64_t *value)
{
    const char *digit = text;
    for (*value = 0; *digit >= '0' && *digit <= '9'; digit++) {
        unsigned next = (unsigned)(*digit - '0');
        if (*value > (UINT64_MAX - next) / 10) return 0;
        *value = *value * 10 + next;
    }
    return digit > text && !*digit;
}

/* Sets an option, or ends the program with a message that says what is allowed. */
static inline void example_take(example *e, const example_option *o, const char *text)
{
    void *at = (char *)e + o->at;
    char *end;
    uint64_t whole;
    double real;
    switch (o->type) {
    case EXAMPLE_TEXT:
        *(const char **)at = text;
        return;
    case EXAMPLE_SEED:
        if (example_whole(text, (uint64_t *)at)) return;
        example_fail(e, "%s %.60s: must be a whole number from 0 to 18446744073709551615", o->name, text);
        return;
    case EXAMPLE_WHOLE:
        if (example_whole(text, &whole) && (double)whole >= o->low && (double)whole <= o->high) {
            *(int *)at = (int)whole;
            return;
        }
        example_fail(e, "%s %.60s: must be a whole number from %.0f to %.0f", o->name, text, o->low, o->high);
        return;
    default:
        real = strtod(text, &end);
        if (end != text && !*end && real >= o->low && real <= o->high) {
            *(double *)at = real;
            return;
        }
        example_fail(e, "%s %.60s: must be a number from %.10g to %.10g", o->name, text, o->low, o->high);
    }
}

static inline void example_options(example *e, int argc, char **argv)
{
    int i, k;
    e->pictures = argv + 1;
    for (i = 1; i < argc; i++) {
        const example_option *o = NULL;
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            example_help(e);
            exit(0);
        }
        for (k = 0; k < EXAMPLE_OPTIONS && !o; k++)
            if (!strcmp(argv[i], example_list[k].name) && example_has(e, &example_list[k])) o = &example_list[k];
        if (!o && argv[i][0] != '-' && e->kind == EXAMPLE_PHOTOS) argv[++e->picture_count] = argv[i];
        else if (!o) example_fail(e, "there is no option %.60s; --help lists the options", argv[i]);
        else if (o->type == EXAMPLE_SWITCH) *(int *)((char *)e + o->at) = 1;
        else if (i + 1 == argc) example_fail(e, "%s needs a value; --help says which", argv[i]);
        else example_take(e, o, argv[++i]);
    }
    if (e->precision && strcmp(e->precision, "float32") && strcmp(e->precision, "tf32"))
        example_fail(e, "--precision %.60s: must be float32 or tf32", e->precision);
}

/* ---- data ---- */

static inline int example_exists(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file) fclose(file);
    return file != NULL;
}

static inline int example_missing(const cnn_data *data)
{
    return data->error && strstr(data->error, "cannot be opened: No such file");
}

/* Reads both splits from a folder; returns 0 if neither exists. One that exists but is broken keeps its error. */
static inline int example_read(example *e, const char *directory)
{
    e->train = e->read(directory, "train");
    e->test = e->read(directory, "test");
    if (!example_missing(e->train) || !example_missing(e->test)) return 1;
    cnn_data_free(e->train);
    cnn_data_free(e->test);
    return 0;
}

/* Loads the data set. If MNIST is missing, built-in digits replace it; if it is broken, the program ends. */
static inline void example_load(example *e)
{
    char folder[4][900];
    const char *root = getenv("CNN_DATA");
    int tries = 0, i, found = 0, train_limit = e->limit ? e->limit : e->train_limit;
    if (e->data) snprintf(folder[tries++], sizeof *folder, "%.890s", e->data);
    else {
        if (root) snprintf(folder[tries++], sizeof *folder, "%.800s/%s", root, e->data_folder);
        if (root) snprintf(folder[tries++], sizeof *folder, "%.800s", root);
        snprintf(folder[tries++], sizeof *folder, "data/%s", e->data_folder);
        snprintf(folder[tries++], sizeof *folder, "data");
    }
    for (i = 0; i < tries && !found; i++) found = example_read(e, folder[i]);
    if (!found && (e->data || strcmp(e->data_folder, "mnist")))
        example_fail(e, "there is no %s in %.900s; get it with: make %s", e->data_name, folder[e->data ? 0 : tries - 2],
                     e->data_folder);
    if (!found) {
        printf("No MNIST in data/mnist (get it: make mnist): training on built-in digits instead.\n");
        e->drawn = 1;
        e->train = digits_new(0, train_limit && train_limit < 12000 ? train_limit : 12000);
        e->test = digits_new(1000000, e->limit && e->limit < 2000 ? e->limit : 2000);
    }
    if (e->train->error) example_fail(e, "%s", e->train->error);
    if (e->test->error) example_fail(e, "%s", e->test->error);
    if (train_limit && train_limit < e->train->count) e->train->count = train_limit;
    if (e->limit && e->limit < e->test->count) e->test->count = e->limit;
    if (!e->quiet)
        printf("%s: %d training and %d test samples of %d x %d x %d\n", e->drawn ? "built-in digits" : e->data_name,
               e->train->count, e->test->count, e->train->channels, e->train->height, e->train->width);
    fflush(stdout);
}

/* The options that a new network needs before its layers. */
static inline void example_begin(const example *e, cnn_net *net)
{
    if (e->backend) cnn_to(net, e->backend);
    if (e->threads) cnn_set_num_threads(net, e->threads);
    cnn_manual_seed(net, e->seed);
    cnn_allow_tf32(net, e->precision && !strcmp(e->precision, "tf32"));
}

static inline void example_check(const example *e, const cnn_net *net)
{
    if (cnn_error(net)) example_fail(e, "%s", cnn_error(net));
}

/* Names a picture: "mine.jpg: cat 97.3 %, dog 2.7 %", the likeliest of `count` classes, whose probabilities are y. */
static inline void example_name(const char *path, float *y, const char *const *names, int count)
{
    int place, best, k;
    for (place = 0; place < 3 && place < count; place++) {
        for (best = 0, k = 1; k < count; k++) if (y[k] > y[best]) best = k;
        printf("%s%s %s %.1f %%", place ? "" : path, place ? "," : ":", names[best], 100 * y[best]);
        y[best] = -1;
    }
    printf("\n");
}

/* ---- files: a path that cannot be written is reported before the first epoch, not after the last ---- */

static inline int example_open(cnn_net *net, const char *path)
{
    FILE *file = fopen(path, "wb");
    (void)net;
    return file && !fclose(file);
}

/* Tries to write the file: `save`, which will write it later, writes a trial in the same folder, which is then removed.
   That checks the ending, the folder and the room on the disk, and leaves `path` as it is. Ends the program with a
   message if it fails. */
static inline void example_try(const example *e, cnn_net *net, const char *what, const char *path,
                               int (*save)(cnn_net *, const char *))
{
    char trial[1100];
    const char *name = path, *c, *why;
    int good;
#ifndef _WIN32
    struct stat s;
    if (!stat(path, &s) && !S_ISREG(s.st_mode)) {          /* a folder, or a device or pipe, which no trial can test */
        if (!S_ISDIR(s.st_mode) && !access(path, W_OK)) return;
        example_fail(e, "%s %.900s: cannot be written: %s", what, path,
                     S_ISDIR(s.st_mode) ? "it is a folder" : strerror(errno));
    }
#endif
    for (c = path; *c; c++)
        if (*c == '/' || *c == '\\') name = c + 1;
    snprintf(trial, sizeof trial, "%.*strial-%ld-%.200s", (int)(name - path < 800 ? name - path : 800), path,
             (long)example_process(), name);
    errno = 0;
    good = *name && save(net, trial);
    why = !*name ? "it is a folder" : save == example_open ? strerror(errno) : cnn_error(net);
    remove(trial);
    if (good) return;
    if (why && !strncmp(why, trial, strlen(trial))) why += strlen(trial) + 2;      /* skips the trial's name and ": " */
    example_fail(e, "%s %.900s: %s%.600s", what, path, *name && save != example_open ? "" : "cannot be written: ",
                 why ? why : "");
}

/* ---- training ---- */

static volatile sig_atomic_t example_interrupted;

static inline void example_interrupt(int number)
{
    example_interrupted = 1;
    signal(number, SIG_DFL);                                /* a second Ctrl-C ends the program at once */
}

static inline int example_is_interrupted(void *user)
{
    (void)user;
    return example_interrupted != 0;
}

static inline void example_each_epoch(cnn_net *net, const cnn_epoch *epoch, void *user)
{
    const example *e = (const example *)user;
    (void)epoch;
    if (e->checkpoint) cnn_checkpoint_save(net, e->checkpoint);
}

/* The width of the terminal on stderr; 0 if stderr is not a terminal. */
static inline int example_columns(void)
{
#ifdef _WIN32
    CONSOLE_SCREEN_BUFFER_INFO info;
    if (!_isatty(2) || !GetConsoleScreenBufferInfo(GetStdHandle(STD_ERROR_HANDLE), &info)) return 0;
    return info.srWindow.Right - info.srWindow.Left + 1;
#else
    struct winsize size;
    if (!isatty(2)) return 0;
    return !ioctl(2, TIOCGWINSZ, &size) && size.ws_col ? size.ws_col : 80;
#endif
}

/* Prints the layers, tries the files that will be written, and loads what training begins with. */
static inline void example_before(const example *e, cnn_net *net)
{
    char file[256];
    int epochs;
    if (!e->quiet) cnn_summary(net, stdout);
    example_check(e, net);
    if (e->save) example_try(e, net, "--save", e->save, cnn_save);
    if (e->checkpoint) example_try(e, net, "--checkpoint", e->checkpoint, cnn_checkpoint_save);
    if (e->report) example_try(e, net, "--report", e->report, example_open);
    snprintf(file, sizeof file, "%s.svg", e->name);
    example_try(e, net, "the learning curves", file, example_open);
    snprintf(file, sizeof file, "%s.csv", e->name);
    example_try(e, net, "the learning curves", file, example_open);
    if (e->load) cnn_load(net, e->load);
    if (e->checkpoint && example_exists(e->checkpoint)) {
        cnn_checkpoint_load(net, e->checkpoint);
        cnn_history(net, &epochs);
        if (!cnn_error(net)) printf("%s: continuing after epoch %d\n", e->checkpoint, epochs);
    }
    fflush(stdout);
    signal(SIGINT, example_interrupt);
}

/* Trains as the lecture does, up to that epoch, and prints a line for each. */
static inline void example_fit(example *e, cnn_net *net, int epochs)
{
    cnn_fit_options o = { 0 };
    o.progress_width = example_columns();
    o.progress_bar = o.progress_width > 0;
    o.epochs = epochs;
    o.batch_size = e->batch;
    o.test_batch_size = e->kind == EXAMPLE_PHOTOS ? e->batch : 256;        /* photographs are large */
    o.augment = e->augment;
    o.log = stdout;
    o.progress = e->quiet ? NULL : stderr;
    o.doctor = stderr;
    o.each_epoch = example_each_epoch;
    o.interrupted = example_is_interrupted;
    o.user = e;
    cnn_fit_with(net, e->train, e->test, o);
    example_check(e, net);
}

/* Saves the files asked for, and draws the learning curves: on the terminal, in NAME.svg and in NAME.csv. */
static inline void example_after(example *e, cnn_net *net)
{
    char svg[256], csv[256], title[256];
    int epochs;
    snprintf(svg, sizeof svg, "%s.svg", e->name);
    snprintf(csv, sizeof csv, "%s.csv", e->name);
    cnn_history(net, &epochs);
    e->stopped = example_interrupted && epochs < e->epochs;
    if (e->stopped)
        fprintf(stderr, "%s: stopped in epoch %d of %d; saving the files asked for (Ctrl-C again stops at once)\n",
                e->name, epochs + 1, e->epochs);
    /* each epoch's end has saved a checkpoint; one from the middle of an epoch would not continue with the same bits */
    if (e->stopped && e->checkpoint && !epochs) cnn_checkpoint_save(net, e->checkpoint);
    if (!e->quiet && epochs) cnn_print_curves(net, stdout);
    snprintf(title, sizeof title, "%s on %s", e->name, e->drawn ? "built-in digits" : e->data_name);
    if (epochs) cnn_save_curves_svg(net, svg, title);
    if (epochs) cnn_save_curves_csv(net, csv);
    if (e->save) cnn_save(net, e->save);
    if (e->report) cnn_report(net, e->test, e->report, title);
    example_check(e, net);
    if (e->quiet && !e->stopped) return;
    if (epochs) printf("Learning curves: %s, %s\n", svg, csv);
    if (e->save) printf("State dict: %s\n", e->save);
    if (e->report) printf("Report: %s\n", e->report);
    if (e->stopped && e->checkpoint && epochs)
        printf("Checkpoint: %s, from the end of epoch %d\n", e->checkpoint, epochs);
    else if (e->stopped && e->checkpoint)
        printf("Checkpoint: %s, from the middle of epoch 1, which will start again\n", e->checkpoint);
}

static inline void example_train(example *e, cnn_net *net)
{
    example_before(e, net);
    example_fit(e, net, e->epochs);
    example_after(e, net);
}

/* Returns the program's exit status: 130 after Ctrl-C, as shells expect. */
static inline int example_end(example *e, cnn_net *net)
{
    cnn_free(net);
    if (e->drawn) {
        digits_free(e->train);
        digits_free(e->test);
    } else {
        cnn_data_free(e->train);
        cnn_data_free(e->test);
    }
    return e->stopped ? 130 : 0;
}

#endif
