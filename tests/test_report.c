/* test_report.c - the page that cnn_report writes: its text is expected word for word, its pictures are decoded and compared
   pixel by pixel with samples, kernels and feature maps from cnn_get. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

enum { MOST = 1 << 15, PICTURES = 400 };

static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

#define CHECK_FINE(net) CHECK(!cnn_error(net), "%s", error_of(net))

static char expected[1 << 17];
static size_t expected_length;

static void expect(const char *format, ...) CNN__PRINTF(1, 2);
static void expect(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    expected_length += (size_t)vsnprintf(expected + expected_length, sizeof expected - expected_length, format, arguments);
    va_end(arguments);
}

/* ---- pictures ---- */

typedef struct picture { int width, height, channels, exact; unsigned char *pixels; } picture;

static picture expected_pictures[PICTURES], found_pictures[PICTURES];
static int expected_count, found_count;

static uint32_t big_endian(const unsigned char *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

static uint32_t crc_of(const unsigned char *p, size_t count)           /* bit by bit, as in RFC 2083 */
{
    uint32_t crc = 0xffffffffu;
    int bit;
    while (count--) for (crc ^= *p++, bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    return ~crc;
}

/* A PNG of 8 bits whose deflate blocks are stored; 1, or 0 where anything in it is wrong. */
static int decode(picture *p, const unsigned char *png, size_t size)
{
    static const unsigned char signature[8] = { 137, 80, 78, 71, 13, 10, 26, 10 };
    const unsigned char *at = png + 8, *z, *end;
    size_t row, all, got = 0, i;
    unsigned char *rows;
    uint32_t length, a = 1, b = 0;
    int last = 0;
    if (size < 57 || memcmp(png, signature, 8)) return 0;
    if (big_endian(at) != 13 || memcmp(at + 4, "IHDR", 4) || crc_of(at + 4, 17) != big_endian(at + 21)) return 0;
    p->width = (int)big_endian(at + 8); p->height = (int)big_endian(at + 12);
    if (at[16] != 8 || (at[17] != 0 && at[17] != 2) || at[18] || at[19] || at[20]) return 0;
    p->channels = at[17] == 2 ? 3 : 1;
    at += 25;
    length = big_endian(at);
    if (memcmp(at + 4, "IDAT", 4) || at + 12 + length + 12 != png + size || crc_of(at + 4, length + 4) != big_endian(at + 8 + length)) return 0;
    z = at + 8; end = z + length;
    at = end + 4;
    if (big_endian(at) || memcmp(at + 4, "IEND", 4) || crc_of(at + 4, 4) != big_endian(at + 8)) return 0;
    if ((z[0] & 15) != 8 || (z[0] * 256 + z[1]) % 31 || z[1] & 32) return 0;
    row = (size_t)(p->width * p->channels);
    all = (row + 1) * (size_t)p->height;
    rows = malloc(all);
    for (z += 2; !last; got += length, z += length) {
        if (end - z < 5) return 0;
        last = z[0] & 1;
        length = z[1] | (uint32_t)z[2] << 8;
        if (z[0] > 1 || (length ^ 0xffff) != (z[3] | (uint32_t)z[4] << 8) || got + length > all) return 0;
        z += 5;
        memcpy(rows + got, z, length);
    }
    if (got != all || end - z != 4) return 0;
    for (i = 0; i < all; i++) { a = (a + rows[i]) % 65521; b = (b + a) % 65521; }
    if (big_endian(z) != (b << 16 | a)) return 0;
    p->pixels = malloc(row * (size_t)p->height);
    for (i = 0; i < (size_t)p->height; i++) {
        if (rows[i * (row + 1)]) return 0;
        memcpy(p->pixels + i * row, rows + i * (row + 1) + 1, row);
    }
    free(rows);
    return 1;
}

/* Base64 up to a quote; the number of bytes, or 0 where it is wrong. */
static size_t from_base64(unsigned char *to, const char *text)
{
    size_t count = 0;
    int i, k, digits[4];
    for (; *text != '"'; text += 4) {
        for (k = 0; k < 4; k++) {
            int c = text[k];
            digits[k] = c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62
                        : c == '/' ? 63 : c == '=' && k > 1 && (text[4] == '"') ? 0 : -1;
            if (digits[k] < 0 || !c) return 0;
        }
        i = digits[0] << 18 | digits[1] << 12 | digits[2] << 6 | digits[3];
        to[count++] = (unsigned char)(i >> 16);
        if (text[2] != '=') to[count++] = (unsigned char)(i >> 8);
        if (text[3] != '=') to[count++] = (unsigned char)i;
    }
    return count;
}

/* The page without its pictures, which go to found_pictures; in their place stands #. */
static char page[1 << 17];

static int read_page(const char *path)
{
    static char text[1 << 20];
    static unsigned char png[1 << 16];
    static const char start[] = "src=\"data:image/png;base64,";
    FILE *file = fopen(path, "rb");
    char *at = text, *picture_at, *to = page;
    size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file) fclose(file);
    text[length] = 0;
    found_count = 0;
    while ((picture_at = strstr(at, start)) != NULL) {
        size_t size;
        picture_at += strlen(start);
        to += sprintf(to, "%.*s#", (int)(picture_at - at), at);
        at = strchr(picture_at, '"');
        if (!at || (size_t)(at - picture_at) > sizeof png || found_count == PICTURES) return 0;
        size = from_base64(png, picture_at);
        memset(&found_pictures[found_count], 0, sizeof *found_pictures);
        CHECK(size && decode(&found_pictures[found_count], png, size), "picture %d is no PNG", found_count);
        found_count++;
    }
    sprintf(to, "%s", at);
    return length > 0;
}

/* The <img> of these values, (channels, height, width), from black at `low` to white at `high`. */
static void expect_picture(const float *values, int width, int height, int channels, float low, float high, int side, const char *alt)
{
    int larger = width > height ? width : height, zoom = larger >= side ? 1 : side / larger, shown_width = width * zoom, shown_height = height * zoom, i, c;
    picture *p = &expected_pictures[expected_count++];
    p->width = width; p->height = height; p->channels = channels;
    p->pixels = malloc((size_t)(width * height * channels));
    for (c = 0; c < channels; c++)
        for (i = 0; i < width * height; i++) {
            float share = high > low ? (values[c * width * height + i] - low) / (high - low) : 0;
            p->pixels[i * channels + c] = (unsigned char)(share > 0 ? 255 * share : 0);
        }
    expect("<img width=\"%d\" height=\"%d\" alt=\"%s\" src=\"data:image/png;base64,#\">\n", shown_width < 16 ? 16 : shown_width,
           shown_height < 16 ? 16 : shown_height, alt);
}

static void range_of(const float *values, int count, float *low, float *high)
{
    int i;
    *low = *high = values[0];
    for (i = 1; i < count; i++) {
        if (values[i] < *low) *low = values[i];
        if (values[i] > *high) *high = values[i];
    }
}

static void check_pictures(const char *what)
{
    int k, i, c;
    CHECK(found_count == expected_count, "%s: %d pictures, not %d", what, found_count, expected_count);
    for (k = 0; k < expected_count && k < found_count; k++) {
        const picture *e = &expected_pictures[k], *f = &found_pictures[k];
        int same = e->width == f->width && e->height == f->height && e->channels == f->channels && f->pixels, worst = 0;
        CHECK(same, "%s: picture %d is %d x %d x %d, not %d x %d x %d", what, k, f->channels, f->height, f->width, e->channels, e->height, e->width);
        for (i = 0; same && i < e->width * e->height * e->channels; i++) {
            c = abs(e->pixels[i] - f->pixels[i]);          /* another rounding of a share may cut to one less, but black and white are exact */
            if (c > 1 || (c == 1 && (e->pixels[i] == 255 || !e->pixels[i]))) worst = i + 1;
        }
        CHECK(!worst, "%s: picture %d: pixel %d is %d, not %d", what, k, worst - 1, f->pixels[worst - 1], e->pixels[worst - 1]);
    }
    for (k = 0; k < expected_count; k++) free(expected_pictures[k].pixels);
    for (k = 0; k < found_count; k++) free(found_pictures[k].pixels);
    expected_count = found_count = 0;
}

/* ---- the page ---- */

typedef struct row { const char *name, *type, *output, *parameters, *work; } row;

typedef struct report_case {
    const char *what, *title, *title_escaped;
    const char *const *names_escaped;                      /* of classes, or NULL: their numbers */
    const row *rows; int row_count;                        /* of the table of layers, with input first and total last */
    const char *parameters;                                /* in all */
    const char *kernels;                                   /* what is said of them, or NULL: no convolution in front */
    int kernel_count, kernel_height, kernel_width, kernel_channels;        /* as they are drawn */
} report_case;

static const char *name_of(const report_case *c, const cnn_data *data, int k)
{
    static char text[4][20];
    static int turn;
    if (c->names_escaped && k < data->classes) return c->names_escaped[k];
    turn = (turn + 1) % 4;
    sprintf(text[turn], "%d", k);
    return text[turn];
}

/* A sample as the page shows it: the first channel, or three of them as colours. */
static void expect_sample(const cnn_data *data, int n, const char *alt)
{
    static float values[MOST];
    int map = data->height * data->width, channels = data->channels == 3 ? 3 : 1, i;
    float low = 0, high = 255;
    for (i = 0; i < map * channels; i++)
        values[i] = data->bytes ? data->bytes[n * data->channels * map + i] : data->floats[n * data->channels * map + i];
    if (data->floats) range_of(values, map * channels, &low, &high);
    expect_picture(values, data->width, data->height, channels, low, high, 84, alt);
}

static void check_report(cnn_net *net, const cnn_data *data, const report_case *c)
{
    static float outputs[MOST], probability[600], maps[1 << 16];
    static int guess[600], matrix[12][12], order[600], chosen[3];
    const char *path = in_folder("report.html"), *svg_path, *body;
    FILE *graph = tmpfile();
    int outs, n, k, g, columns, correct = 0, wrong = 0, most = 1, count, i, j;
    double loss = 0;
    cnn_batch batch;
    for (n = 0; n < data->count; n++) order[n] = n;
    batch.data = data; batch.order = order; batch.size = data->count;
    cnn_eval(net);
    cnn_forward(net, &batch);
    outs = (int)(cnn_get(net, cnn_layer_name(net, c->row_count - 3), outputs, MOST)) / data->count;
    CHECK(outs >= data->classes, "%s: %d outputs; %s", c->what, outs, error_of(net));
    columns = outs > data->classes ? data->classes + 1 : data->classes;
    memset(matrix, 0, sizeof matrix);
    for (n = 0; n < data->count; n++) {
        const float *y = outputs + n * outs;
        double sum = 0;
        guess[n] = 0;
        for (k = 1; k < outs; k++) if (y[k] > y[guess[n]]) guess[n] = k;
        for (k = 0; k < outs; k++) sum += exp((double)y[k] - y[guess[n]]);
        probability[n] = (float)(1 / sum);
        loss += log(sum) + y[guess[n]] - y[data->labels[n]];
        correct += guess[n] == data->labels[n];
        matrix[data->labels[n]][guess[n] < data->classes ? guess[n] : data->classes]++;
    }
    wrong = data->count - correct;
    for (k = 0; k < data->classes; k++) for (g = 0; g < columns; g++) if (k != g && matrix[k][g] > most) most = matrix[k][g];

    cnn_train(net);
    CHECK(cnn_report(net, data, path, c->title), "%s", error_of(net));
    CHECK(!net->pass.evaluating, "the mode");
    CHECK(read_page(path), "%s: the page", c->what);
    remove(path);
    cnn_history(net, &count);

    expected_length = 0;
    expect("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
           "<title>%s</title>\n<style>", c->title_escaped);
    CHECK(!strncmp(page, expected, expected_length), "%s: the head: %.300s", c->what, page);
    body = strstr(page, "</style></head>\n");
    CHECK(body, "%s: no end of the head", c->what);
    if (!body) return;
    for (i = j = 0; page + i < body; i++) j += page[i] == '{', j -= page[i] == '}';
    CHECK(j == 0, "%s: %d braces of the style are open", c->what, j);
    body += 16;

    expected_length = 0;
    expect("<body>\n<h1>%s</h1>\n<div class=\"numbers\"><div>accuracy<b>%.2f %%</b></div><div>loss<b>%.4f</b></div><div>samples<b>%d</b></div>"
           "<div>parameters<b>%s</b></div><div>epochs<b>%d</b></div></div>\n",
           c->title_escaped, 100.0 * correct / data->count, loss / data->count, data->count, c->parameters, count);
    if (count) {
        svg_path = in_folder("curves.svg");
        CHECK(cnn_save_curves_svg(net, svg_path, c->title), "%s", error_of(net));
        expect("<h2>Learning curves</h2>\n%s", text_of(fopen(svg_path, "rb")));
        remove(svg_path);
    }
    expect("<h2>Confusion matrix</h2>\n<p>Each row is a true class, each column what the network said.</p>\n"
           "<div class=\"scroll\"><table class=\"confusion\"><tr><th>");
    for (k = 0; k < data->classes; k++) expect("<th>%s", name_of(c, data, k));
    if (columns > data->classes) expect("<th>other");
    expect("</tr>\n");
    for (k = 0; k < data->classes; k++) {
        expect("<tr><th>%s", name_of(c, data, k));
        for (g = 0; g < columns; g++)
            if (k == g) expect("<td class=\"right\">%d", matrix[k][g]);
            else if (!matrix[k][g]) expect("<td class=\"none\">0");
            else expect("<td style=\"background:rgba(217,95,2,%.2f)\">%d", 0.12 + 0.7 * matrix[k][g] / most, matrix[k][g]);
        expect("</tr>\n");
    }
    expect("</table></div>\n<h2>Class by class</h2>\n<p>Precision: of those called so, the share that are. Recall: of those that are, the share called so."
           "</p>\n<div class=\"scroll\"><table><tr><th>class<th>precision<th>recall<th>samples</tr>\n");
    for (k = 0; k < data->classes; k++) {
        int called = 0, are = 0, hit = 0;
        for (n = 0; n < data->count; n++) {
            called += guess[n] == k;
            are += data->labels[n] == k;
            hit += guess[n] == k && data->labels[n] == k;
        }
        expect("<tr><td>%s<td>", name_of(c, data, k));
        if (called) expect("%.2f %%<td>", 100.0 * hit / called); else expect("-<td>");
        if (are) expect("%.2f %%", 100.0 * hit / are); else expect("-");
        expect("<td>%d</tr>\n", are);
    }
    expect("</table></div>\n<h2>The most confident mistakes</h2>\n<p>");
    if (!wrong) expect("No mistakes: all %d samples are right.</p>\n", data->count);
    else {
        if (wrong == 1) expect("1 of %d samples is wrong.", data->count);
        else if (wrong <= 24) expect("%d of %d samples are wrong; those it was surest of come first.", wrong, data->count);
        else expect("%d of %d samples are wrong; these 24 it was surest of.", wrong, data->count);
        expect("</p>\n<div class=\"cards\">\n");
        for (i = 0; i < wrong && i < 24; i++)              /* the i-th: so many mistakes come before it, by probability, then by number */
            for (n = 0; n < data->count; n++) {
                int before = 0;
                if (guess[n] == data->labels[n]) continue;
                for (j = 0; j < data->count; j++)
                    before += guess[j] != data->labels[j] && (probability[j] > probability[n] || (probability[j] == probability[n] && j < n));
                if (before != i) continue;
                expect("<figure>");
                expect_sample(data, n, "sample");
                expect("<figcaption>said <b>%s</b> (%.1f&nbsp;%%)<br>is <b>%s</b><br>sample %d</figcaption></figure>\n", name_of(c, data, guess[n]),
                       (double)(100 * probability[n]), name_of(c, data, data->labels[n]), n);
            }
        expect("</div>\n");
    }
    cnn__report_graph(graph, net);                         /* test_graph.c reads it */
    expect("<h2>The network</h2>\n<p>A line brings a layer what it reads, from the one above or from further up. Layers with parameters are tinted.</p>\n%s",
           text_of(graph));
    expect("<div class=\"scroll\"><table class=\"network\"><tr><th>layer<th>kind<th>output<th>parameters<th>multiply-adds</tr>\n");
    for (i = 0; i < c->row_count; i++) {
        char number[16] = "";
        if (i && i < c->row_count - 1) snprintf(number, sizeof number, "%d. ", i);
        expect("<tr%s><td>%s%s<td>%s<td>%s<td>%s<td>%s</tr>%s", i == c->row_count - 1 ? " class=\"sum\"" : "", number, c->rows[i].name, c->rows[i].type,
               c->rows[i].output, c->rows[i].parameters, c->rows[i].work, i == c->row_count - 1 ? "</table></div>\n" : "\n");
    }
    if (c->kernels) {
        char key[100];
        int size = c->kernel_channels * c->kernel_height * c->kernel_width;
        expect("<h2>The first layer's kernels</h2>\n<p>%s.</p>\n<div class=\"maps\">\n", c->kernels);
        sprintf(key, "%s.weight", cnn_layer_name(net, 0));
        CHECK((int)cnn_get(net, key, maps, MOST) == c->kernel_count * size, "%s: kernels", c->what);
        for (k = 0; k < c->kernel_count; k++) {
            float low, high;
            range_of(maps + k * size, size, &low, &high);
            if (-low > high) high = -low;
            expect_picture(maps + k * size, c->kernel_width, c->kernel_height, c->kernel_channels, -high, high, 56, "kernel");
        }
        expect("</div>\n");
    }
    for (n = count = 0; n < data->count && count < 3; n++) {
        for (i = j = 0; i < count; i++) j += data->labels[chosen[i]] == data->labels[n];
        if (!j) chosen[count++] = n;
    }
    batch.order = chosen; batch.size = count;
    cnn_eval(net);
    cnn_forward(net, &batch);
    expect("<h2>What each layer sees</h2>\n<p>The maps of every layer for a few samples, each map from its smallest value (black) to its largest (white); "
           "of more than 32 maps the first.</p>\n");
    for (n = 0; n < count; n++) {
        expect("<details%s><summary>sample %d: %s</summary>\n", n ? "" : " open", chosen[n], name_of(c, data, data->labels[chosen[n]]));
        expect_sample(data, chosen[n], "input");
        for (i = 0; i < c->row_count - 2; i++) {
            int shape[4], size;
            const char *name = cnn_layer_name(net, i);
            const row *r = &c->rows[i + 1];
            if (cnn_shape(net, name, shape) != 4 || !strcmp(r->type, "dropout")) continue;
            CHECK(cnn_get(net, name, maps, sizeof maps / sizeof *maps), "%s", error_of(net));
            expect("<h3>%s (%s), %s</h3>\n<div class=\"maps\">\n", r->name, r->type, r->output);
            size = shape[2] * shape[3];
            for (k = 0; k < shape[1] && k < 32; k++) {
                const float *map = maps + (n * shape[1] + k) * size;
                float low, high;
                range_of(map, size, &low, &high);
                expect_picture(map, shape[3], shape[2], 1, low, high, 56, "map");
            }
            expect("</div>\n");
        }
        expect("</details>\n");
    }
    expect("</body></html>\n");
    for (i = 0; body[i] && body[i] == expected[i]; i++) {}
    CHECK(!strcmp(body, expected), "%s: after %d characters \"%.200s\" instead of \"%.200s\"", c->what, i, body + i, expected + i);
    check_pictures(c->what);
    CHECK_FINE(net);
}

static float noise(int i)
{
    uint32_t r[4];
    cnn_random(r, 99, 0, 0, (uint32_t)i);
    return (float)(r[0] >> 8) / 8388608 - 1;
}

/* Colours in bytes, names to be escaped, an epoch's history; the third class never comes, in the labels. */
static void test_colours(void)
{
    static const char *const names[] = { "<b>", "A & B", "\"quoted\"", "plain" },
                      *const escaped[] = { "&lt;b&gt;", "A &amp; B", "&quot;quoted&quot;", "plain" };
    static const row rows[] = {
        { "input", "", "3 x 8 x 6", "", "" }, { "eyes &amp; ears.0", "conv2d", "4 x 8 x 6", "112", "5,184" }, { "eyes &amp; ears.1", "relu", "4 x 8 x 6", "", "" },
        { "eyes &amp; ears.2", "dropout", "4 x 8 x 6", "", "" }, { "eyes &amp; ears.3", "max_pool2d", "4 x 4 x 3", "", "" },
        { "eyes &amp; ears.4", "global_avg_pool2d", "4 x 1 x 1", "", "" }, { "eyes &amp; ears.5", "flatten", "4", "", "" },
        { "classifier", "linear", "4", "20", "16" }, { "total", "", "", "132", "5,200" } };
    static const report_case c = { "colours", "Title <1> & \"2\"", "Title &lt;1&gt; &amp; &quot;2&quot;", escaped, rows, 9, "132",
                                   "4 kernels of 3 x 3 x 3, red, green and blue together; grey is 0", 4, 3, 3, 3 };
    static unsigned char bytes[40 * 144];
    static int labels[40];
    int i, classes[] = { 0, 1, 3, 3, 1 };
    cnn_net *net = cnn_new(3, 8, 6);
    cnn_data *data;
    for (i = 0; i < 40 * 144; i++) bytes[i] = (unsigned char)(127.5f * (1 + noise(i)));
    bytes[0] = 255; bytes[1] = 0;
    for (i = 0; i < 40; i++) labels[i] = classes[i % 5];
    data = cnn_data_new(.count = 40, .channels = 3, .height = 8, .width = 6, .classes = 4, .bytes = bytes, .labels = labels, .class_names = names);
    cnn_block(net, "eyes & ears");
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_dropout(net, .p = 0.5f);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_global_avg_pool2d(net);
    cnn_flatten(net);
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = 4);
    cnn_adam(net, .lr = 0.03f);
    CHECK(cnn_fit(net, data, data, .epochs = 2, .batch_size = 8), "%s", error_of(net));
    check_report(net, data, &c);
    cnn_free(net);
    cnn_data_free(data);
}

/* Floats of two channels, of which the first is shown; two groups; more outputs than classes, more mistakes than are shown. */
static void test_floats(void)
{
    static const row rows[] = {
        { "input", "", "2 x 7 x 7", "", "" }, { "0", "conv2d", "40 x 3 x 3", "400", "3,240" }, { "1", "tanh", "40 x 3 x 3", "", "" },
        { "2", "flatten", "360", "", "" }, { "3", "linear", "5", "1,805", "1,800" }, { "total", "", "", "2,205", "5,040" } };
    static const report_case c = { "floats", NULL, "", NULL, rows, 6, "2,205", "40 kernels of 1 x 3 x 3, dark is negative, grey 0, bright positive", 40, 3, 3, 1 };
    static float values[100 * 98];
    static int labels[100];
    int i;
    cnn_net *net = cnn_new(2, 7, 7);
    cnn_data *data;
    for (i = 0; i < 100 * 98; i++) values[i] = 3 * noise(i) + 1;
    for (i = 0; i < 98; i++) values[3 * 98 + i] = 0.5f;    /* a sample of one value is black */
    for (i = 0; i < 100; i++) labels[i] = i / 2 % 4;
    data = cnn_data_new(.count = 100, .channels = 2, .height = 7, .width = 7, .classes = 4, .floats = values, .labels = labels);
    cnn_conv2d(net, .out_channels = 40, .kernel_size = 3, .stride = 2, .groups = 2);
    cnn_tanh(net);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 5);
    check_report(net, data, &c);
    cnn_free(net);
    cnn_data_free(data);
}

/* A normalisation that is folded into its convolution where outputs alone are asked for: its maps are shown all the same. */
static void test_folded(void)
{
    static const row rows[] = {
        { "input", "", "1 x 6 x 6", "", "" }, { "0", "conv2d", "2 x 6 x 6", "20", "648" }, { "1", "batch_norm2d", "2 x 6 x 6", "4", "72" }, { "2", "relu", "2 x 6 x 6", "", "" },
        { "3", "max_pool2d", "2 x 3 x 3", "", "" }, { "4", "flatten", "18", "", "" }, { "5", "linear", "3", "57", "54" }, { "total", "", "", "81", "774" } };
    static const report_case c = { "folded", "", "", NULL, rows, 8, "81", "2 kernels of 1 x 3 x 3, dark is negative, grey 0, bright positive", 2, 3, 3, 1 };
    static float values[12 * 36];
    static int labels[12];
    int i;
    cnn_net *net = cnn_new(1, 6, 6);
    cnn_data *data;
    for (i = 0; i < 12 * 36; i++) values[i] = noise(i);
    for (i = 0; i < 12; i++) labels[i] = i % 3;
    data = cnn_data_new(.count = 12, .channels = 1, .height = 6, .width = 6, .classes = 3, .floats = values, .labels = labels);
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 3, .padding = 1);
    cnn_batch_norm2d(net, 0);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 3);
    cnn_adam(net, .lr = 0.01f);
    CHECK(cnn_fit(net, data, data, .epochs = 2, .batch_size = 4), "%s", error_of(net));
    check_report(net, data, &c);
    cnn_free(net);
    cnn_data_free(data);
}

/* Colours in floats, all called 0: the most mistakes are in the matrix's first column. */
static void test_one_column(void)
{
    static const row rows[] = { { "input", "", "3 x 2 x 3", "", "" }, { "0", "flatten", "18", "", "" }, { "1", "linear", "3", "57", "54" }, { "total", "", "", "57", "54" } };
    static const report_case c = { "one column", "", "", NULL, rows, 4, "57", NULL, 0, 0, 0, 0 };
    static float values[10 * 18], weight[54], bias[3] = { 1, 0, 0.5f };
    static int labels[10] = { 0, 1, 1, 1, 1, 1, 2, 2, 2, 0 };
    int i;
    cnn_net *net = cnn_new(3, 2, 3);
    cnn_data *data;
    for (i = 0; i < 10 * 18; i++) values[i] = noise(i);
    data = cnn_data_new(.count = 10, .channels = 3, .height = 2, .width = 3, .classes = 3, .floats = values, .labels = labels);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 3);
    weight[18] = 1; weight[36] = 4;                         /* a few are called 2 */
    CHECK(cnn_set(net, "1.weight", weight, 54) && cnn_set(net, "1.bias", bias, 3), "%s", error_of(net));
    check_report(net, data, &c);
    cnn_free(net);
    cnn_data_free(data);
}

/* Signals: pictures of one row are stretched. With a weight that copies the input no sample is wrong; with one label changed, one. */
static void test_signals(void)
{
    static const row rows[] = { { "input", "", "1 x 1 x 90", "", "" }, { "0", "conv1d", "1 x 1 x 45", "6", "225" }, { "1", "max_pool2d", "1 x 1 x 3", "", "" },
                                { "2", "flatten", "3", "", "" }, { "total", "", "", "6", "225" } };
    static report_case c = { "signals", "1-D", "1-D", NULL, rows, 5, "6", "1 kernel of 1 x 1 x 5, dark is negative, grey 0, bright positive", 1, 1, 5, 1 };
    static float values[9 * 90], kernel[5] = { 0, 0, 1, 0, 0 }, bias[1] = { 0 };
    static int labels[9];
    int i, wrong;
    cnn_net *net = cnn_new(1, 1, 90);
    cnn_data *data;
    for (i = 0; i < 9; i++) {
        labels[i] = i % 3;
        values[90 * i + 30 * labels[i] + 14] = 2 + 0.125f * (float)i;      /* the largest of a third */
    }
    data = cnn_data_new(.count = 9, .channels = 1, .height = 1, .width = 90, .classes = 3, .floats = values, .labels = labels);
    cnn_conv1d(net, .out_channels = 1, .kernel_size = 5, .stride = 2, .padding = 2);
    cnn_max_pool2d(net, .kernel_height = 1, .kernel_width = 15);
    cnn_flatten(net);
    CHECK(cnn_set(net, "0.weight", kernel, 5) && cnn_set(net, "0.bias", bias, 1), "%s", error_of(net));
    for (wrong = 0; wrong < 4; wrong++) {
        if (wrong) labels[2 * wrong] = (labels[2 * wrong] + 1) % 3;
        check_report(net, data, &c);
    }
    cnn_free(net);
    cnn_data_free(data);
}

/* No convolution in front, one class too few in the labels for three different samples, tall pictures, equal probabilities. */
static void test_flat(void)
{
    static const row rows[] = { { "input", "", "1 x 17 x 2", "", "" }, { "0", "avg_pool2d", "1 x 1 x 1", "", "" }, { "1", "conv2d", "1 x 1 x 1", "1", "1" },
                                { "2", "flatten", "1", "", "" }, { "3", "linear", "2", "2", "2" }, { "total", "", "", "3", "3" } };
    static const report_case c = { "flat", "flat", "flat", NULL, rows, 6, "3", NULL, 0, 0, 0, 0 };
    static float values[60 * 34], weight[2] = { 1, -1 };
    static int labels[60];
    int i;
    cnn_net *net = cnn_new(1, 17, 2);
    cnn_data *data;
    for (i = 0; i < 60 * 34; i++) values[i] = (float)(i / 34 % 4) - 1.25f;
    for (i = 0; i < 60 * 34; i += 34) values[i] = -values[i + 1] + 2;
    for (i = 0; i < 60; i++) labels[i] = i / 3 % 2;
    data = cnn_data_new(.count = 60, .channels = 1, .height = 17, .width = 2, .classes = 2, .floats = values, .labels = labels);
    cnn_avg_pool2d(net, .kernel_height = 17, .kernel_width = 2);
    cnn_conv2d(net, .out_channels = 1, .kernel_size = 1, .no_bias = 1);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 2, .no_bias = 1);
    CHECK(cnn_set(net, "1.weight", weight, 1) && cnn_set(net, "3.weight", weight, 2), "%s", error_of(net));
    check_report(net, data, &c);
    cnn_free(net);
    cnn_data_free(data);
}

/* A NaN in a map leaves the other values their greys. */
static void test_nan(void)
{
    static const float values[4] = { NAN, 1, 2, 3 };
    static const int label[1] = { 0 };
    cnn_net *net = cnn_new(1, 2, 2);
    cnn_data *data = cnn_data_new(.count = 1, .channels = 1, .height = 2, .width = 2, .classes = 1, .floats = values, .labels = label);
    const char *path = in_folder("nan.html");
    int k;
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 1);
    cnn_flatten(net);
    CHECK(cnn_report(net, data, path, "NaN") && read_page(path), "%s", error_of(net));
    for (k = 0; k < found_count; k++) {
        const unsigned char *p = found_pictures[k].pixels;
        CHECK(p && p[0] == 0 && p[3] == 255 && (p[2] == 127 || p[2] == 170), "picture %d: %d %d %d %d", k, p[0], p[1], p[2], p[3]);
        free(found_pictures[k].pixels);
    }
    CHECK(found_count >= 2, "%d pictures", found_count);
    remove(path);
    cnn_free(net);
    cnn_data_free(data);
}

/* A row of more than 65,535 bytes takes several blocks. */
static void test_long_rows(void)
{
    static const int widths[][3] = { { 65534, 2, 1 }, { 65535, 2, 1 }, { 65536, 1, 1 }, { 50000, 2, 3 }, { 3, 2, 3 } };
    static char text[1 << 20];
    static unsigned char png[1 << 19];
    size_t k;
    for (k = 0; k < sizeof widths / sizeof *widths; k++) {
        int width = widths[k][0], height = widths[k][1], channels = widths[k][2], all = width * height * channels, i;
        unsigned char *pixels = malloc((size_t)all);
        FILE *file = tmpfile();
        picture p;
        char *at;
        for (i = 0; i < all; i++) pixels[i] = (unsigned char)(i * 7 + i / 251);
        cnn__picture(file, pixels, width, height, channels, 8, "long");
        rewind(file);
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        at = strstr(text, "base64,");
        memset(&p, 0, sizeof p);
        CHECK(at && decode(&p, png, from_base64(png, at + 7)) && p.width == width && p.height == height && p.channels == channels
              && !memcmp(p.pixels, pixels, (size_t)all), "a row of %d x %d", width, channels);
        free(p.pixels);
        free(pixels);
    }
}

int main(void)
{
    folder_make();
    test_colours();
    test_floats();
    test_folded();
    test_one_column();
    test_signals();
    test_flat();
    test_nan();
    test_long_rows();
    folder_remove();
    return test_end("report");
}
