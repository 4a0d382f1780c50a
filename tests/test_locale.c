/* Every byte that cnn.h writes, prints and says is the same in every locale. Twice: with a C library made here whose printf
   writes decimal commas (of two bytes, too), so that it is tested where no such locale is installed; and after
   setlocale to a real one, made here by localedef where there is one. */
#define _XOPEN_SOURCE 700
#include <locale.h>
#include <stdarg.h>
#include "folder.h"

static const char *point = ".";                             /* what the C library here writes into its numbers */

/* `text`, whose digit.digit becomes digit, point, digit if the format has a fraction in it. */
static int with_point(char *text, size_t room, const char *format)
{
    char out[8192];
    size_t i, to = 0;
    const char *f = format;
    int fraction = 0;
    while ((f = strchr(f, '%')) != NULL) {
        f += 1 + strspn(f + 1, "-+ #0123456789.*");
        fraction |= *f == 'f' || *f == 'e' || *f == 'g';
        if (*f) f++;
    }
    if (!fraction || !strcmp(point, ".")) return 0;
    for (i = 0; text[i] && to + 4 < sizeof out; i++)
        if (i && text[i] == '.' && text[i - 1] >= '0' && text[i - 1] <= '9' && text[i + 1] >= '0' && text[i + 1] <= '9')
            to += (size_t)sprintf(out + to, "%s", point);
        else out[to++] = text[i];
    out[to] = 0;
    if (room) { strncpy(text, out, room - 1); text[room - 1] = 0; }
    return (int)to;
}

static int comma_vsnprintf(char *text, size_t room, const char *format, va_list arguments)
{
    char whole[8192];
    int count = vsnprintf(whole, sizeof whole, format, arguments), other = with_point(whole, sizeof whole, format);
    if (room) { strncpy(text, whole, room - 1); text[room - 1] = 0; }
    return other ? other : count;
}

static int comma_snprintf(char *text, size_t room, const char *format, ...)
{
    va_list arguments;
    int count;
    va_start(arguments, format);
    count = comma_vsnprintf(text, room, format, arguments);
    va_end(arguments);
    return count;
}

static int comma_vfprintf(FILE *file, const char *format, va_list arguments)
{
    char whole[8192];
    comma_vsnprintf(whole, sizeof whole, format, arguments);
    return fputs(whole, file);
}

static int comma_fprintf(FILE *file, const char *format, ...)
{
    va_list arguments;
    int count;
    va_start(arguments, format);
    count = comma_vfprintf(file, format, arguments);
    va_end(arguments);
    return count;
}

#define snprintf comma_snprintf
#define vsnprintf comma_vsnprintf
#define fprintf comma_fprintf
#define vfprintf comma_vfprintf
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#undef snprintf

enum { SAMPLES = 48, KINDS = 13 };
static const char *const kinds[KINDS] = { "curves.svg", "curves.csv", "report.html", "net.safetensors", "net.pth", "run.ckpt", "summary", "sketch",
    "gradcheck", "explained", "doctor", "said", "net.c" };
static unsigned char first[KINDS][1 << 19], again[1 << 19];
static size_t first_size[KINDS];
static float images[SAMPLES * 64];
static int labels[SAMPLES];

static cnn_net *net;
static cnn_data *data;
static cnn_batch batch;

static void prepare(void)
{
    static int order[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    int i;
    for (i = 0; i < SAMPLES * 64; i++) images[i] = (float)(i * 7919 % 1009) / 1009 + (float)(i / 64 % 3 == i % 3);
    for (i = 0; i < SAMPLES; i++) labels[i] = i % 3;
    data = cnn_data_new(.count = SAMPLES, .channels = 1, .height = 8, .width = 8, .classes = 3, .floats = images, .labels = labels);
    batch.data = data;
    batch.order = order;
    batch.size = 8;
    net = cnn_new(1, 8, 8);
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_avg_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 3);
    cnn_adam(net, .lr = 0.0123f);
    CHECK(cnn_fit(net, data, data, .epochs = 3, .batch_size = 16), "%s", cnn_error(net));
}

static size_t contents(const char *name, unsigned char *at)
{
    FILE *file = fopen(in_folder(name), "rb");
    size_t count = file ? fread(at, 1, sizeof again, file) : 0;
    if (file) fclose(file);
    return count;
}

static void write_all(void)                                 /* into files called kinds[] */
{
    cnn_net *other;
    FILE *file;
    CHECK(cnn_checkpoint_load(net, in_folder("base.ckpt")), "%s", cnn_error(net));       /* each time from the same state */
    CHECK(cnn_save_curves_svg(net, in_folder("curves.svg"), "T") && cnn_save_curves_csv(net, in_folder("curves.csv")), "%s", cnn_error(net));
    CHECK(cnn_report(net, data, in_folder("report.html"), "T"), "%s", cnn_error(net));
    CHECK(cnn_save(net, in_folder("net.safetensors")) && cnn_save(net, in_folder("net.pth")) && cnn_checkpoint_save(net, in_folder("run.ckpt")), "%s", cnn_error(net));
    CHECK(cnn_export_c(net, in_folder("net.c"), NULL), "%s", cnn_error(net));
    file = fopen(in_folder("summary"), "wb"); cnn_summary(net, file); fclose(file);
    file = fopen(in_folder("sketch"), "wb"); cnn_print_curves(net, file); fclose(file);
    file = fopen(in_folder("gradcheck"), "wb"); cnn_gradcheck(net, &batch, 5, file); fclose(file);
    cnn_eval(net);
    cnn_forward(net, &batch);
    file = fopen(in_folder("explained"), "wb");
    CHECK(cnn_explain(net, cnn_layer_name(net, 0), 1, 0, 0, file) && cnn_explain(net, cnn_layer_name(net, 2), 1, 1, 1, file)
          && cnn_explain(net, cnn_layer_name(net, 4), 1, 0, 0, file), "%s", cnn_error(net));
    fclose(file);
    file = fopen(in_folder("doctor"), "wb");                /* a rate at which training is lost */
    other = cnn_new(1, 8, 8);
    cnn_flatten(other);
    cnn_linear(other, .out_features = 3);
    cnn_sgd(other, .lr = 1234.5f);
    cnn_fit(other, data, data, .epochs = 3, .batch_size = 16, .doctor = file);
    fclose(file);
    cnn_free(other);
    file = fopen(in_folder("said"), "wb");
    other = cnn_new(1, 8, 8);
    cnn_dropout(other, .p = 1.25f);
    fputs(cnn_error(other), file);
    CHECK(strstr(cnn_error(other), "1.25") != NULL, "%s", cnn_error(other));
    fclose(file);
    cnn_free(other);
}

static void commas(const char *name, const unsigned char *text, size_t count)
{
    size_t i;
    for (i = 1; i + 1 < count; i++)
        if (text[i] == ',' && text[i - 1] >= '0' && text[i - 1] <= '9' && text[i + 1] >= '0' && text[i + 1] <= '9') {
            CHECK(0, "%s: a decimal comma at byte %d: %.40s", name, (int)i, (const char *)text + (i > 20 ? i - 20 : 0));
            return;
        }
    test_passed++;
}

static void compare(const char *where)
{
    int i;
    size_t k, size;
    cnn_net *loaded;
    write_all();
    for (i = 0; i < KINDS; i++) {
        size = contents(kinds[i], again);
        for (k = 0; k < size && k < first_size[i] && again[k] == first[i][k]; k++) { }
        CHECK(size == first_size[i] && k == size, "%s: %s differs from byte %d: %.30s", where, kinds[i], (int)k, (const char *)again + (k > 10 ? k - 10 : 0));
    }
    {                                                       /* what has seconds in it, and differs from run to run */
        FILE *file = fopen(in_folder("log"), "wb");
        CHECK(cnn_fit(net, data, data, .epochs = 5, .batch_size = 16, .log = file, .progress = file), "%s", cnn_error(net));
        fclose(file);
        size = contents("log", again);
        CHECK(size > 100, "the log is empty");
        commas("the log of cnn_fit", again, size);
        remove(in_folder("log"));
    }
    loaded = cnn_new(1, 8, 8);                              /* numbers that are read */
    cnn_conv2d(loaded, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(loaded);
    cnn_avg_pool2d(loaded, .kernel_size = 2);
    cnn_flatten(loaded);
    cnn_linear(loaded, .out_features = 3);
    cnn_adam(loaded, .lr = 0.5f);
    CHECK(cnn_load(loaded, in_folder("net.safetensors")) && cnn_load(loaded, in_folder("net.pth")) && cnn_checkpoint_load(loaded, in_folder("run.ckpt"))
          && cnn_lr(loaded) == 0.0123f, "%s: %s", where, cnn_error(loaded) ? cnn_error(loaded) : "another rate");
    cnn_free(net);                                          /* the epochs of before, for the next comparison */
    net = loaded;
}

static int real_locale(void)                                /* one with a decimal comma: installed, or made now */
{
    static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE" };
    char command[900];
    size_t i;
    for (i = 0; i < 4; i++) if (setlocale(LC_ALL, names[i]) && *localeconv()->decimal_point == ',') return 1;
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 '%s' >/dev/null 2>&1", in_folder("de_DE.UTF-8"));
    if (system(command) != 0) return 0;
    setenv("LOCPATH", in_folder("."), 1);
    return setlocale(LC_ALL, "de_DE.UTF-8") && *localeconv()->decimal_point == ',';
}

int main(void)
{
    char command[700], text[40];
    int i;
    folder_make();
    prepare();
    CHECK(cnn_checkpoint_save(net, in_folder("base.ckpt")), "%s", cnn_error(net));
    write_all();
    for (i = 0; i < KINDS; i++) {
        first_size[i] = contents(kinds[i], first[i]);
        CHECK(first_size[i] > 20, "%s has %d bytes", kinds[i], (int)first_size[i]);
    }
    point = ",";
    (void)comma_fprintf;                                    /* cnn.h has no use for it */
    comma_snprintf(text, sizeof text, "%.1f", 0.5);
    CHECK(!strcmp(text, "0,5"), "this test's own C library writes %s", text);
    compare("commas");
    point = "\xd9\xab";                                     /* U+066B, two bytes, as in some locales */
    compare("a point of two bytes");
    point = ".";
    if (!real_locale()) SKIP("no locale with a decimal comma is installed, and localedef makes none");
    else {
        sprintf(text, "%.1f", 0.5);
        CHECK(!strcmp(text, "0,5"), "the locale writes %s", text);
        compare("de_DE");
        CHECK(*localeconv()->decimal_point == ',', "the library changed the program's locale");
    }
    cnn_free(net);
    cnn_data_free(data);
    snprintf(command, sizeof command, "rm -rf '%s'", in_folder("de_DE.UTF-8"));
    if (system(command) != 0) puts("the locale is left");
    for (i = 0; i < KINDS; i++) remove(in_folder(kinds[i]));
    remove(in_folder("base.ckpt"));
    folder_remove();
    return test_end("locale");
}
