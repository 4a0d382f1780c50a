/* pack.c - puts lenet5.html together: the page, its scripts, the module, the weights, some test digits.
 *
 *     pack WEIGHTS BUILD [MNIST] >lenet5.html
 *
 * WEIGHTS is a state dict of ./lenet5 --save; BUILD has page.wasm and gets lenet5.safetensors, which is WEIGHTS as
 * float16; MNIST is the folder of its files: without it, the test digits are the built-in ones.
 */
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../digits.h"
#include "../networks.h"

enum { SHOWN = 48 };                                    /* test digits in the page */
static char folder[300];

static void fail(const char *sentence)
{
    fprintf(stderr, "pack: %s\n", sentence);
    exit(1);
}

static FILE *open_in(const char *where, const char *name, const char *mode)
{
    char path[800];
    FILE *file;
    snprintf(path, sizeof path, "%s/%s", where, name);
    file = fopen(path, mode);
    if (!file) fprintf(stderr, "pack: %s: cannot be opened: %s\n", path, strerror(errno)), exit(1);
    return file;
}

/* ---- float16: half the bytes, and three decimal digits ---- */

static unsigned half(float value)                       /* the nearest; of two, the even one */
{
    uint32_t word, sign, rest;
    int exponent;
    memcpy(&word, &value, sizeof word);
    sign = word >> 16 & 0x8000;
    exponent = (int)(word >> 23 & 255) - 127;
    rest = (word & 0x7fffff) | 0x800000;
    if (exponent > 15) return sign | 0x7c00;            /* too large: infinite */
    if (exponent < -25) return sign;
    if (exponent < -14) {                               /* denormal: its unit is 2^-24 */
        int shift = -1 - exponent;
        uint32_t kept = rest >> shift, lost = rest & ((1u << shift) - 1), middle = 1u << (shift - 1);
        return sign | (kept + (lost > middle || (lost == middle && (kept & 1))));
    } else {
        uint32_t kept = rest >> 13 & 1023, lost = rest & 8191;
        return sign | (((uint32_t)(exponent + 15) << 10 | kept) + (lost > 4096 || (lost == 4096 && (kept & 1))));
    }
}

/* A .safetensors file: eight bytes for the header's length, the header as JSON, the numbers. */
static void write_halves(cnn_net *net)
{
    FILE *file = open_in(folder, "lenet5.safetensors", "wb");
    static char header[4000];
    size_t at = 0, length = 0, i, k;
    const char *key;
    int n, d;
    for (n = 0; (key = cnn_key(net, n)); n++) {
        size_t count = cnn_get(net, key, NULL, 0);
        int shape[4], dimensions = cnn_shape(net, key, shape);
        length += (size_t)snprintf(header + length, sizeof header - length, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[",
                                   n ? "," : "{", key);
        for (d = 0; d < dimensions; d++)
            length += (size_t)snprintf(header + length, sizeof header - length, "%s%d", d ? "," : "", shape[d]);
        length += (size_t)snprintf(header + length, sizeof header - length, "],\"data_offsets\":[%lu,%lu]}",
                                   (unsigned long)at, (unsigned long)(at + 2 * count));
        at += 2 * count;
    }
    header[length++] = '}';
    while (length % 8) header[length++] = ' ';
    for (k = 0; k < 8; k++) putc((int)(length >> 8 * k & 255), file);
    fwrite(header, 1, length, file);
    for (n = 0; (key = cnn_key(net, n)); n++) {
        size_t count = cnn_get(net, key, NULL, 0);
        float *values = (float *)malloc(count * sizeof *values);
        if (!values) fail("out of memory");
        cnn_get(net, key, values, count);
        for (i = 0; i < count; i++) putc((int)(half(values[i]) & 255), file), putc((int)(half(values[i]) >> 8), file);
        free(values);
    }
    if (fclose(file)) fail("lenet5.safetensors cannot be written");
}

/* ---- the network, to convert and to judge it ---- */

static cnn_net *lenet5(const char *path)
{
    cnn_net *net = cnn_new(1, 28, 28);
    network_lenet5(net);
    if (!cnn_load(net, path)) fail(cnn_error(net));
    return net;
}

/* How well the halves read the test digits, and the first of these */
static void write_about(const char *weights, const char *mnist)
{
    FILE *about = open_in(folder, "about.json", "w"), *digits = open_in(folder, "digits", "wb");
    cnn_data *data = mnist ? cnn_load_mnist(mnist, "test") : digits_new(1000000, 2000);
    char path[800];
    const char *name = strrchr(weights, '/') ? strrchr(weights, '/') + 1 : weights, *c;
    cnn_net *net;
    cnn_score score;
    int i;
    if (data->error) fail(data->error);
    snprintf(path, sizeof path, "%s/lenet5.safetensors", folder);
    net = lenet5(path);
    score = cnn_evaluate(net, data, 256, CNN_CROSS_ENTROPY);
    if (cnn_error(net)) fail(cnn_error(net));
    fprintf(about, "{\"file\":\"");
    for (c = name; *c; c++) putc(*c == '"' || *c == '\\' || *c == '<' || (unsigned char)*c < ' ' ? '_' : *c, about);
    fprintf(about, "\",\"data\":\"%s\",\"count\":%d,\"right\":\"%.2f\"}", mnist ? "mnist" : "builtIn", score.count,
            100 * score.accuracy);
    for (i = 0; i < SHOWN && i < data->count; i++) {
        putc(data->labels[i], digits);
        fwrite(data->bytes + (size_t)i * DIGIT_PIXELS, 1, DIGIT_PIXELS, digits);
    }
    if (fclose(about) || fclose(digits)) fail("the build folder cannot be written to");
    cnn_free(net);
}

/* ---- the page: `<!-- include FILE -->` becomes that file, `<!-- base64 FILE -->` its bytes as text, and
   `<!-- gzip FILE -->` its bytes, compressed, as text ---- */

static void put_base64(FILE *file)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char b[3];
    size_t n, k;
    while ((n = fread(b, 1, 3, file))) {
        unsigned long bits = (unsigned long)b[0] << 16 | (n > 1 ? (unsigned long)b[1] << 8 : 0) | (n > 2 ? b[2] : 0);
        for (k = 0; k < 4; k++) putchar(k <= n ? digit[bits >> (18 - 6 * k) & 63] : '=');
    }
}

int main(int argc, char **argv)
{
    static char line[4000];
    FILE *page;
    if (argc < 3 || argc > 4) fail("usage: pack WEIGHTS BUILD [MNIST] >lenet5.html");
    snprintf(folder, sizeof folder, "%s", argv[2]);
    write_halves(lenet5(argv[1]));
    write_about(argv[1], argc > 3 ? argv[3] : NULL);
    page = open_in("examples/web", "page.html", "r");
    while (fgets(line, sizeof line, page)) {
        char *mark = strstr(line, "<!-- "), how[10], name[100];
        FILE *file;
        int ch, end = 0, gzip, built;
        if (!mark || sscanf(mark, "<!-- %9s %99s -->%n", how, name, &end) < 2 || !end) {
            fputs(line, stdout);
            continue;
        }
        printf("%.*s", (int)(mark - line), line);
        gzip = !strcmp(how, "gzip");
        if (gzip) {
            char command[1000];
            snprintf(command, sizeof command, "gzip -9 -n -c '%s/%s' >'%s/packed.gz'", folder, name, folder);
            fflush(stdout);
            if (system(command)) fail("gzip failed; is it there?");
        }
        built = gzip || !strcmp(how, "base64") || strstr(name, ".json");
        file = open_in(built ? folder : "examples/web", gzip ? "packed.gz" : name, "rb");
        if (gzip || !strcmp(how, "base64")) put_base64(file);
        else while ((ch = getc(file)) != EOF) putchar(ch);
        fclose(file);
        fputs(mark + end, stdout);
    }
    fclose(page);
    return fflush(stdout) || ferror(stdout);
}
