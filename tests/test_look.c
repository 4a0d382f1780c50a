/* test_look.c - what looking prints: curves, sketch, summary, explain, doctor, gradient check. Every number is calculated
   here once more, from a known history or from cnn_get, and compared with what stands in the output. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

enum { MOST = 1 << 14 };

static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

#define CHECK_FINE(net) CHECK(!cnn_error(net), "%s", error_of(net))

/* Where the texts differ is shown; the start of both is not. */
static void check_text(const char *text, const char *expected, const char *what)
{
    size_t same = 0;
    while (text[same] && text[same] == expected[same]) same++;
    CHECK(!strcmp(text, expected), "%s: after %d characters \"%.120s\" instead of \"%.120s\"", what, (int)same, text + same, expected + same);
}

/* The expected text of a test, written piece by piece. */
static char expected[1 << 16];
static size_t expected_length;

static void expect_nothing(void) { expected[expected_length = 0] = 0; }

static void expect(const char *format, ...) CNN__PRINTF(1, 2);
static void expect(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    expected_length += (size_t)vsnprintf(expected + expected_length, sizeof expected - expected_length, format, arguments);
    va_end(arguments);
}

/* ---- known histories ---- */

enum { EPOCHS = 130 };

typedef struct curves {
    const char *name;
    int epochs, tested;                                    /* tested: in so many epochs, the first ones */
    double values[4][EPOCHS];                              /* loss, test loss, accuracy, test accuracy, in % */
    const char *loss_ticks, *accuracy_ticks, *epoch_ticks; /* from low to high */
    const char *loss_labels, *accuracy_labels;             /* of the sketch: high, middle, low */
} curves;

static cnn_net *net_of(const curves *k)
{
    cnn_net *net = cnn_new(1, 1, 2);
    int i;
    cnn_relu(net);
    for (i = 0; i < k->epochs; i++) {
        cnn_epoch e = { 0, { 0, 0, 100 }, { 0, 0, 0 }, 0, 0 };
        e.epoch = i + 1;
        e.train.loss = k->values[0][i]; e.train.accuracy = k->values[2][i] / 100;
        if (i < k->tested) {
            e.test.loss = k->values[1][i]; e.test.accuracy = k->values[3][i] / 100;
            e.test.count = 50;
        }
        e.lr = 0.5f / (float)(i + 1);
        e.seconds = 1.25 * i + 0.0004;
        CHECK(cnn__remember_epoch(net, &e), "%s", error_of(net));
    }
    return net;
}

static int finite_number(double v) { return v - v == 0; }

/* The value of an epoch's curve; no number where there is none. */
static double value_of(const curves *k, int curve, int i)
{
    return curve % 2 && i >= k->tested ? HUGE_VAL : k->values[curve][i];
}

/* ---- an SVG, element by element ---- */

typedef struct element { char tag[20]; const char *attributes, *text; size_t length, text_length; } element;

static element next_element(const char **at)               /* end tags are skipped; the tag "" at the end */
{
    element e;
    const char *end;
    memset(&e, 0, sizeof e);
    do *at = strchr(*at, '<'); while (*at && (*at)[1] == '/' && ++*at);
    if (!*at || !(end = strchr(*at, '>'))) { *at = ""; return e; }
    e.length = strcspn(*at + 1, " >");
    snprintf(e.tag, sizeof e.tag, "%.*s", (int)e.length, *at + 1);
    e.attributes = *at + 1 + e.length;
    e.length = (size_t)(end - e.attributes);
    e.text = end + 1;
    e.text_length = strcspn(e.text, "<");
    *at = end + 1;
    return e;
}

static const char *attribute(const element *e, const char *name)     /* its value, up to a quote; "" if there is none */
{
    char search[40];
    const char *found;
    snprintf(search, sizeof search, " %s=\"", name);
    found = e->attributes ? strstr(e->attributes, search) : NULL;
    return found && found < e->attributes + e->length ? found + strlen(search) : "";
}

static double number(const element *e, const char *name) { const char *v = attribute(e, name); return *v && *v != '"' ? strtod(v, NULL) : 1e300; }

static int is(const element *e, const char *name, const char *value)
{
    const char *v = attribute(e, name);
    return strlen(value) == strcspn(v, "\"") && !strncmp(v, value, strlen(value));
}

static int says(const element *e, const char *text) { return e->text && strlen(text) == e->text_length && !strncmp(e->text, text, strlen(text)); }

static int near(double a, double b) { return fabs(a - b) <= 0.0501; }       /* coordinates have one decimal */

#define CHECK_ELEMENT(e, is_a, condition) \
    CHECK(!strcmp((e).tag, is_a) && (condition), "%s: <%s%.*s>%.*s", k->name, (e).tag, (int)(e).length, (e).attributes ? (e).attributes : "", \
          (int)(e).text_length, (e).text ? (e).text : "")

static double x_of(const curves *k, int i) { return k->epochs == 1 ? 160 : 320.0 * i / (k->epochs - 1); }

static void check_plot(const curves *k, const char **at, int first, double left, const char *title, const char *unit, const char *ticks)
{
    char texts[20][16];
    int count = 0, i, c, length;
    double low, high;
    const char *t = ticks;
    element e = next_element(at);
    for (; count < 20 && sscanf(t, "%15s%n", texts[count], &length) == 1; t += length) count++;
    low = strtod(texts[0], NULL); high = strtod(texts[count - 1], NULL);
    CHECK_ELEMENT(e, "g", sscanf(attribute(&e, "transform"), "translate(%lf 70)", &low) == 1 && low == left);
    low = strtod(texts[0], NULL);
    e = next_element(at);
    CHECK_ELEMENT(e, "text", says(&e, title) && is(&e, "text-anchor", "middle") && is(&e, "x", "160") && is(&e, "y", "-12") && is(&e, "font-size", "15"));
    for (i = 0; i < count; i++) {
        double y = 220.0 - 220.0 * i / (count - 1);
        e = next_element(at);
        CHECK_ELEMENT(e, "line", is(&e, "class", "grid") && is(&e, "x1", "0") && is(&e, "x2", "320") && near(number(&e, "y1"), y) && near(number(&e, "y2"), y));
        e = next_element(at);
        CHECK_ELEMENT(e, "text", says(&e, texts[i]) && is(&e, "x", "-8") && near(number(&e, "y"), y + 4) && is(&e, "text-anchor", "end"));
    }
    for (t = k->epoch_ticks; sscanf(t, "%15s%n", texts[0], &length) == 1; t += length) {
        double x = x_of(k, atoi(texts[0]) - 1);
        e = next_element(at);
        CHECK_ELEMENT(e, "line", is(&e, "class", "grid") && is(&e, "y1", "0") && is(&e, "y2", "220") && near(number(&e, "x1"), x) && near(number(&e, "x2"), x));
        e = next_element(at);
        CHECK_ELEMENT(e, "text", says(&e, texts[0]) && is(&e, "y", "238") && near(number(&e, "x"), x) && is(&e, "text-anchor", "middle"));
    }
    e = next_element(at);
    CHECK_ELEMENT(e, "rect", is(&e, "width", "320") && is(&e, "height", "220") && is(&e, "class", "axis"));
    e = next_element(at);
    CHECK_ELEMENT(e, "text", says(&e, "epoch") && is(&e, "x", "160") && is(&e, "y", "258") && is(&e, "text-anchor", "middle"));
    e = next_element(at);
    CHECK_ELEMENT(e, "text", says(&e, unit) && is(&e, "transform", "translate(-46 110) rotate(-90)") && is(&e, "text-anchor", "middle"));
    for (c = 0; c < (k->tested ? 2 : 1); c++) {
        const char *colour = c ? "#d95f02" : "#1f77b4", *points;
        int at_y = (first ? 190 : 20) + 18 * c, seen = 0, only = 0;
        double x, y, y_only = 0;
        e = next_element(at);
        CHECK_ELEMENT(e, "polyline", is(&e, "fill", "none") && is(&e, "stroke", colour) && is(&e, "stroke-width", "2"));
        points = attribute(&e, "points");
        for (i = 0; i < k->epochs; i++) {
            double v = value_of(k, first + c, i), right;
            if (!finite_number(v)) continue;
            right = 220 * (high - v) / (high - low);
            CHECK(sscanf(points, "%lf,%lf %n", &x, &y, &length) == 2 && near(x, x_of(k, i)) && near(y, right), "%s, curve %d: epoch %d at %.20s", k->name, first + c, i + 1, points);
            points += length;
            seen++; only = i; y_only = right;
        }
        CHECK(*points == '"', "%s: more points: %.20s", k->name, points);
        if (seen == 1) {
            e = next_element(at);
            CHECK_ELEMENT(e, "circle", near(number(&e, "cx"), x_of(k, only)) && near(number(&e, "cy"), y_only) && is(&e, "r", "4") && is(&e, "fill", colour));
        }
        e = next_element(at);
        CHECK_ELEMENT(e, "line", is(&e, "x1", "240") && is(&e, "x2", "264") && number(&e, "y1") == at_y && number(&e, "y2") == at_y
                      && is(&e, "stroke", colour) && is(&e, "stroke-width", "2"));
        e = next_element(at);
        CHECK_ELEMENT(e, "text", is(&e, "x", "272") && number(&e, "y") == at_y + 4 && says(&e, c ? "test" : "train"));
    }
}

static void check_svg(const curves *k, cnn_net *net)
{
    const char *path = in_folder("curves.svg"), *at;
    element e;
    CHECK(cnn_save_curves_svg(net, path, "a < b > c & \"d\""), "%s", error_of(net));
    at = text_of(fopen(path, "rb"));
    e = next_element(&at);
    CHECK_ELEMENT(e, "svg", is(&e, "xmlns", "http://www.w3.org/2000/svg") && is(&e, "viewBox", "0 0 820 350") && is(&e, "font-family", "sans-serif")
                  && is(&e, "font-size", "12"));
    e = next_element(&at);
    CHECK_ELEMENT(e, "style", says(&e, ".grid{stroke:#ddd}.axis{fill:none;stroke:#444}text{fill:#222}"));
    e = next_element(&at);
    CHECK_ELEMENT(e, "rect", is(&e, "width", "820") && is(&e, "height", "350") && is(&e, "fill", "#fff"));
    e = next_element(&at);
    CHECK_ELEMENT(e, "text", is(&e, "x", "410") && is(&e, "y", "26") && is(&e, "text-anchor", "middle") && is(&e, "font-size", "18")
                  && says(&e, "a &lt; b &gt; c &amp; &quot;d&quot;"));
    check_plot(k, &at, 0, 70, "Loss", "mean loss per sample", k->loss_ticks);
    check_plot(k, &at, 2, 480, "Accuracy", "accuracy, %", k->accuracy_ticks);
    e = next_element(&at);
    CHECK(!*e.tag, "%s: <%s> at the end", k->name, e.tag);
    remove(path);
}

/* ---- CSV and sketch ---- */

static void check_csv(const curves *k, cnn_net *net)
{
    const char *path = in_folder("curves.csv");
    int i;
    CHECK(cnn_save_curves_csv(net, path), "%s", error_of(net));
    expect_nothing();
    expect("epoch,train_loss,train_acc,test_loss,test_acc,lr,seconds\n");
    for (i = 0; i < k->epochs; i++) {
        expect("%d,%.9g,%.9g,", i + 1, k->values[0][i], k->values[2][i] / 100);
        if (i < k->tested) expect("%.9g,%.9g,", k->values[1][i], k->values[3][i] / 100);
        else expect(",,");
        expect("%.9g,%d.%03d\n", (double)(0.5f / (float)(i + 1)), (int)(1.25 * i), (int)(1250 * i) % 1000);
    }
    check_text(text_of(fopen(path, "rb")), expected, k->name);
    remove(path);
}

/* Nine rows of sixty columns: `.` train, `o` test, `8` both; one mark an epoch. */
static void expect_sketch(const curves *k, int first, const char *labels, const char *title)
{
    char cells[9][61], three[3][16];
    double low, high;
    int row, column, i, c, length;
    const char *ticks = first ? k->accuracy_ticks : k->loss_ticks, *t = ticks;
    char text[16];
    CHECK(sscanf(labels, "%15s %15s %15s", three[0], three[1], three[2]) == 3, "%s: labels", k->name);
    low = strtod(ticks, NULL);
    for (high = low; sscanf(t, "%15s%n", text, &length) == 1; t += length) high = strtod(text, NULL);
    for (row = 0; row < 9; row++) sprintf(cells[row], "%60s", "");
    for (i = 0; i < k->epochs; i++)
        for (c = 0; c < 2; c++) {
            double v = value_of(k, first + c, i), other = value_of(k, first + 1 - c, i);
            if (!finite_number(v)) continue;
            column = k->epochs == 1 ? 30 : (int)floor(59.0 * i / (k->epochs - 1) + 0.5);
            row = (int)floor(8 * (high - v) / (high - low) + 0.5);
            cells[row][column] = c ? 'o' : '.';
            if (finite_number(other) && (int)floor(8 * (high - other) / (high - low) + 0.5) == row) cells[row][column] = '8';
        }
    expect("%s\n", title);
    for (row = 0; row < 9; row++) expect("%9s |%s\n", row % 4 ? "" : three[row / 4], cells[row]);
    expect("          +");
    for (i = 0; i < 60; i++) expect("-");
    if (k->epochs > 1) expect("\n           epoch 1  %51d\n", k->epochs);
    else expect("\n                                   epoch 1\n");
}

static void check_sketch(const curves *k, cnn_net *net)
{
    FILE *file = tmpfile();
    cnn_print_curves(net, file);
    expect_nothing();
    expect_sketch(k, 0, k->loss_labels, k->tested ? "loss: . train  o test  8 both" : "loss (training)");
    expect_sketch(k, 2, k->accuracy_labels, k->tested ? "accuracy, %: . train  o test  8 both" : "accuracy, % (training)");
    check_text(text_of(file), expected, k->name);
}

static void check_curves(const curves *k)
{
    cnn_net *net = net_of(k);
    check_svg(k, net);
    check_csv(k, net);
    if (k->epochs <= 60) check_sketch(k, net);
    CHECK_FINE(net);
    cnn_free(net);
}

static void test_curves(void)
{
    static curves k[20];
    int n = 0, i, e;
    cnn_net *net;
    static const char *const percent = "100 50 0";
#define HISTORY(text, count, test_count) k[n].name = text; k[n].epochs = count; k[n].tested = test_count
#define TICKS(loss, loss_high_to_low, accuracy, accuracy_high_to_low, numbers) \
    k[n].loss_ticks = loss; k[n].loss_labels = loss_high_to_low; k[n].accuracy_ticks = accuracy; k[n].accuracy_labels = accuracy_high_to_low; \
    k[n].epoch_ticks = numbers; n++
#define EPOCH(i, a, b, c, d) k[n].values[0][i] = a, k[n].values[1][i] = b, k[n].values[2][i] = c, k[n].values[3][i] = d
    HISTORY("one epoch", 1, 1);
    EPOCH(0, 0.5, 0.75, 80, 70);
    TICKS("0.5 0.6 0.7 0.8", "0.80 0.65 0.50", "70 75 80", "80.0 75.0 70.0", "1");
    HISTORY("one epoch, no test set", 1, 0);
    EPOCH(0, 1.5, 0, 50, 0);
    TICKS("1.500 1.501 1.502 1.503", "1.5030 1.5015 1.5000", "50.00 50.02 50.04 50.06", "50.060 50.030 50.000", "1");
    HISTORY("two epochs", 2, 2);
    EPOCH(0, 2.25, 2, 10, 20); EPOCH(1, 0.25, 0.25, 95, 90);
    TICKS("0.0 0.5 1.0 1.5 2.0 2.5", "2.50 1.25 0.00", "0 50 100", percent, "1 2");
    HISTORY("thirty epochs", 30, 30);
    for (i = 0; i < 30; i++) EPOCH(i, 2 / (1 + 0.5 * i), 2 / (1 + 0.5 * i) + 0.3, 50 + 1.5 * i, 45 + i);
    TICKS("0 1 2 3", "3.0 1.5 0.0", "40 60 80 100", "100 70 40", "5 10 15 20 25 30");
    HISTORY("constant loss", 3, 3);
    for (i = 0; i < 3; i++) EPOCH(i, 2.3, 2.3, 10, 10);
    TICKS("2.300 2.301 2.302 2.303 2.304", "2.3040 2.3020 2.3000", "10.000 10.005 10.010 10.015", "10.0150 10.0075 10.0000", "1 2 3");
    HISTORY("NaN in the middle", 4, 4);
    EPOCH(0, 1, 2, 25, 35); EPOCH(1, 3, 4, 25, 35); EPOCH(2, NAN, HUGE_VAL, 30, 30); EPOCH(3, -HUGE_VAL, NAN, 50, 20);
    TICKS("1 2 3 4", "4.0 2.5 1.0", "20 30 40 50", "50 35 20", "1 2 3 4");
    HISTORY("one number of three", 3, 3);
    EPOCH(0, NAN, NAN, 0, 100); EPOCH(1, 4, 8, 50, 50); EPOCH(2, NAN, NAN, 100, 0);
    TICKS("4 5 6 7 8", "8.0 6.0 4.0", "0 50 100", percent, "1 2 3");
    HISTORY("no number at all", 2, 0);
    EPOCH(0, NAN, 0, 100, 0); EPOCH(1, HUGE_VAL, 0, 0, 0);
    TICKS("0.0 0.5 1.0", "1.00 0.50 0.00", "0 50 100", percent, "1 2");
    HISTORY("tiny losses", 3, 0);
    EPOCH(0, 8.5e-6, 0, 99, 0); EPOCH(1, 3e-6, 0, 99.5, 0); EPOCH(2, 1e-6, 0, 99.9, 0);
    TICKS("0.0e+00 2.0e-06 4.0e-06 6.0e-06 8.0e-06 1.0e-05", "1.00e-05 5.00e-06 0.00e+00", "99.0 99.5 100.0", "100.00 99.50 99.00", "1 2 3");
    HISTORY("huge losses", 3, 0);
    EPOCH(0, 1e6, 0, 10, 0); EPOCH(1, 3.5e6, 0, 11, 0); EPOCH(2, 2e6, 0, 12, 0);
    TICKS("1e+06 2e+06 3e+06 4e+06", "4.0e+06 2.5e+06 1.0e+06", "10.0 10.5 11.0 11.5 12.0", "12.00 11.00 10.00", "1 2 3");
    HISTORY("not quite a million", 2, 0);
    EPOCH(0, 999999, 0, 99, 0); EPOCH(1, 0, 0, 0, 0);
    TICKS("0.0e+00 5.0e+05 1.0e+06", "1.00e+06 5.00e+05 0.00e+00", "0 50 100", percent, "1 2");
    HISTORY("five hundred thousand", 2, 0);
    EPOCH(0, 500000, 0, 99, 0); EPOCH(1, 0, 0, 0, 0);
    TICKS("0 200000 400000 600000", "600000 300000 0", "0 50 100", percent, "1 2");
    HISTORY("negative losses", 2, 0);
    EPOCH(0, -2e6, 0, 99, 0); EPOCH(1, -1e6, 0, 0, 0);
    TICKS("-2.0e+06 -1.5e+06 -1.0e+06", "-1.00e+06 -1.50e+06 -2.00e+06", "0 50 100", percent, "1 2");
    HISTORY("a thousandth", 2, 0);
    EPOCH(0, 0.001, 0, 99, 0); EPOCH(1, 0, 0, 0, 0);
    TICKS("0.0000 0.0005 0.0010", "0.00100 0.00050 0.00000", "0 50 100", percent, "1 2");
    HISTORY("below a thousandth", 2, 0);
    EPOCH(0, 0.0009, 0, 99, 0); EPOCH(1, 0, 0, 0, 0);
    TICKS("0.0000 0.0005 0.0010", "0.00100 0.00050 0.00000", "0 50 100", percent, "1 2");
    HISTORY("far apart enough", 2, 0);                     /* 1e-6 (1 + |low|) is the least difference that is drawn as one */
    EPOCH(0, 3, 0, 50, 0); EPOCH(1, 3.0000041, 0, 50.0000511, 0);
    TICKS("3.000000 3.000002 3.000004 3.000006", "3.0000060 3.0000030 3.0000000", "50.00000 50.00002 50.00004 50.00006", "50.000060 50.000030 50.000000", "1 2");
    HISTORY("not far enough", 2, 0);
    EPOCH(0, 3, 0, 50, 0); EPOCH(1, 3.0000039, 0, 50.0000509, 0);
    TICKS("3.000 3.001 3.002 3.003 3.004", "3.0040 3.0020 3.0000", "50.00 50.02 50.04 50.06", "50.060 50.030 50.000", "1 2");
    HISTORY("the first two tested", 4, 2);
    for (i = 0; i < 4; i++) EPOCH(i, 1.9 - 0.25 * i, 1.8 - 0.25 * i, 60 + 5 * i, 55 + 5 * i);
    TICKS("1.0 1.2 1.4 1.6 1.8 2.0", "2.00 1.50 1.00", "55 60 65 70 75", "75.0 65.0 55.0", "1 2 3 4");
#undef EPOCH
    for (i = 0; i < n; i++) check_curves(&k[i]);

    /* the numbers of the epochs: of any count, at most ten, evenly apart */
    for (i = 0; i < 9; i++) {
        static const int counts[] = { 9, 10, 11, 20, 21, 50, 51, 100, 101 };
        static const char *const ticks[] = { "1 2 3 4 5 6 7 8 9", "1 2 3 4 5 6 7 8 9 10", "2 4 6 8 10", "2 4 6 8 10 12 14 16 18 20", "5 10 15 20",
                                             "5 10 15 20 25 30 35 40 45 50", "10 20 30 40 50", "10 20 30 40 50 60 70 80 90 100", "20 40 60 80 100" };
        curves *long_one = &k[3];
        long_one->name = ticks[i];
        long_one->epochs = long_one->tested = counts[i];
        long_one->epoch_ticks = ticks[i];
        for (e = 0; e < counts[i]; e++) {
            long_one->values[0][e] = 1 + (e % 2);
            long_one->values[1][e] = 3 - 0.01 * e;
            long_one->values[2][e] = e % 100;
            long_one->values[3][e] = 100;
        }
        long_one->loss_ticks = "1.0 1.5 2.0 2.5 3.0"; long_one->loss_labels = "3.00 2.00 1.00";
        long_one->accuracy_ticks = "0 50 100"; long_one->accuracy_labels = percent;
        check_curves(long_one);
    }

    {                                                      /* no label is wider than nine characters */
        cnn__text text;
        check_text(cnn__axis_text(1.5e30, 1e30, 2e30, 1e28, &text), "1.50e+30", "eight characters");
        check_text(cnn__axis_text(1.5e30, 1e30, 2e30, 1e27, &text), "1.500e+30", "nine characters");
        check_text(cnn__axis_text(1.5e30, 1e30, 2e30, 1e26, &text), "1.50e+30", "ten characters");
        check_text(cnn__axis_text(123456.5, 0, 123457, 0.01, &text), "123456.50", "nine characters");
        check_text(cnn__axis_text(123456.5, 0, 123457, 0.001, &text), "1.23e+05", "ten characters");
    }
    net = cnn_new(1, 1, 2);                                /* without a history nothing is printed */
    {
        FILE *file = tmpfile();
        cnn_print_curves(net, file);
        cnn_print_curves(NULL, file);
        check_text(text_of(file), "", "no history");
    }
    CHECK_FINE(net);
    cnn_free(net);
}

/* A test set that comes later, and more epochs than columns: the marks of one curve stay its own. */
static void test_late_test_set(void)
{
    cnn_net *net = cnn_new(1, 1, 2);
    FILE *file = tmpfile();
    const char *text;
    int i, dots = 0, rings = 0, both = 0;
    for (i = 0; i < 200; i++) {
        cnn_epoch e = { 0, { 1, 0.25, 10 }, { 2, 0.75, 0 }, 0, 0 };
        e.epoch = i + 1;
        e.test.count = i == 199;
        cnn__remember_epoch(net, &e);
    }
    cnn_print_curves(net, file);
    text = text_of(file);
    CHECK(!strncmp(text, "loss: . train  o test  8 both\n", 30), "the last epoch alone was tested:\n%s", text);
    for (text = strchr(text, '\n'); strncmp(text, "accuracy", 8); text++) dots += *text == '.', rings += *text == 'o', both += *text == '8';
    CHECK(dots == 60 + 3 && rings == 1 + 1 && both == 0, "%d dots (3 of them in numbers), %d rings (one in \"epoch\"), %d both", dots, rings, both);
    cnn_free(net);
}

/* ---- summary: shapes, parameters, products and bytes by hand ---- */

typedef struct row { const char *label, *output, *parameters, *work, *bytes; } row;

static void check_summary(cnn_net *net, const row *rows, int count)
{
    FILE *file = tmpfile();
    int width = 25, i;
    for (i = 0; i < count - 1; i++) if ((int)strlen(rows[i].label) + 4 > width) width = (int)strlen(rows[i].label) + 4;
    expect_nothing();
    expect("%-*s       output parameters multiply-adds    bytes\n", width, "    layer");
    for (i = 0; i < count; i++) {
        char label[100];
        if (i && i < count - 1) snprintf(label, sizeof label, "%2d  %s", i, rows[i].label);
        else snprintf(label, sizeof label, "%s%s", i ? "    " : " 0  ", rows[i].label);
        expect("%-*s %12s %10s %13s %8s\n", width, label, rows[i].output, rows[i].parameters, rows[i].work, rows[i].bytes);
    }
    cnn_summary(net, file);
    check_text(text_of(file), expected, rows[1].label);
    CHECK_FINE(net);
}

static void test_summary(void)
{
    static const row lenet5[] = {
        { "input", "1 x 28 x 28", "", "", "3,136" },
        { "input_layer.0 (conv2d)", "6 x 28 x 28", "156", "117,600", "18,816" },           /* 6 (1 5 5 + 1); 6 28 28 25 */
        { "input_layer.1 (relu)", "6 x 28 x 28", "", "", "18,816" },
        { "input_layer.2 (max_pool2d)", "6 x 14 x 14", "", "", "4,704" },
        { "hidden_layer.0 (conv2d)", "16 x 10 x 10", "2,416", "240,000", "6,400" },        /* 16 (6 5 5 + 1); 16 10 10 150 */
        { "hidden_layer.1 (relu)", "16 x 10 x 10", "", "", "6,400" },
        { "hidden_layer.2 (avg_pool2d)", "16 x 5 x 5", "", "", "1,600" },
        { "hidden_layer.3 (flatten)", "400", "", "", "1,600" },
        { "classifier (linear)", "10", "4,010", "4,000", "40" },
        { "total, for one sample", "", "6,582", "361,600", "61,512" } };
    static const row odd[] = {
        { "input", "4 x 9 x 8", "", "", "1,152" },
        { "0 (conv2d)", "6 x 3 x 7", "54", "1,008", "504" },  /* 6 (2 3 + 1), 3 x 2 kernels: 6 (2 3 2) = 72, no bias; see below */
        { "1 (dropout)", "6 x 3 x 7", "", "", "504" },
        { "2 (global_avg_pool2d)", "6 x 1 x 1", "", "", "24" },
        { "3 (softmax)", "6 x 1 x 1", "", "", "24" },
        { "total, for one sample", "", "54", "1,008", "2,208" } };
    static row grouped[6];
    static const row along[] = {
        { "input", "2 x 1 x 20", "", "", "160" },
        { "0 (conv1d)", "3 x 1 x 9", "33", "270", "108" },     /* 3 (2 5 + 1); (20 + 6 - 2 4 - 1) / 2 + 1 = 9; 3 9 10 */
        { "1 (tanh)", "3 x 1 x 9", "", "", "108" },
        { "2 (flatten)", "27", "", "", "108" },
        { "3 (linear)", "100", "2,700", "2,700", "400" },
        { "4 (linear)", "1000", "101,000", "100,000", "4,000" },
        { "total, for one sample", "", "103,733", "102,970", "4,884" } };
    static const row little[] = {                          /* names shorter than "total, for one sample" */
        { "input", "5 x 1 x 1", "", "", "20" },
        { "0 (relu)", "5 x 1 x 1", "", "", "20" },
        { "total, for one sample", "", "0", "0", "40" } };
    static const row later[] = {
        { "input", "2 x 6 x 5", "", "", "240" },
        { "0 (zero_pad2d)", "2 x 7 x 8", "", "", "448" },
        { "1 (prelu)", "2 x 7 x 8", "2", "", "448" },
        { "2 (adaptive_avg_pool2d)", "2 x 3 x 2", "", "", "48" },
        { "3 (gelu)", "2 x 3 x 2", "", "", "48" },
        { "total, for one sample", "", "2", "0", "1,232" } };
    static const row least[] = {
        { "input", "1 x 1 x 1", "", "", "4" },
        { "0 (conv2d)", "1 x 1 x 1", "1", "1", "4" },
        { "total, for one sample", "", "1", "1", "8" } };
    cnn_net *net = cnn_new(1, 28, 28);
    cnn_block(net, "input_layer");
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 5, .padding = 2);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_block(net, "hidden_layer");
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 5);
    cnn_relu(net);
    cnn_avg_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = 10);
    check_summary(net, lenet5, 10);
    CHECK(cnn_num_parameters(net) == 6582, "%d parameters", (int)cnn_num_parameters(net));
    cnn_free(net);

    net = cnn_new(4, 9, 8);                                /* 2 groups: 6 kernels of 2 x 3 x 2, no bias; rows (9 - 2 2 - 1) / 2 + 1 = 3 */
    cnn_conv2d(net, .out_channels = 6, .kernel_height = 3, .kernel_width = 2, .stride_height = 2, .dilation_height = 2, .groups = 2, .no_bias = 1);
    cnn_dropout(net, .p = 0.25f);
    cnn_global_avg_pool2d(net);
    cnn_softmax(net);
    memcpy(grouped, odd, sizeof odd);
    grouped[1].parameters = grouped[5].parameters = "72";
    grouped[1].work = grouped[5].work = "1,512";           /* 6 3 7 values of 2 3 2 products */
    check_summary(net, grouped, 6);
    cnn_free(net);

    net = cnn_new(2, 1, 20);
    cnn_conv1d(net, .out_channels = 3, .kernel_size = 5, .stride = 2, .dilation = 2, .padding = 3);
    cnn_tanh(net);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 100, .no_bias = 1);
    cnn_linear(net, .out_features = 1000);
    check_summary(net, along, 7);
    cnn_free(net);

    net = cnn_new(2, 6, 5);
    cnn_zero_pad2d(net, .padding_top = 1, .padding_left = 3);
    cnn_prelu(net, .num_parameters = 2);
    cnn_adaptive_avg_pool2d(net, .output_height = 3, .output_width = 2);
    cnn_gelu(net);
    check_summary(net, later, 6);
    cnn_free(net);

    net = cnn_new(5, 1, 1);
    cnn_relu(net);
    check_summary(net, little, 3);
    cnn_free(net);

    net = cnn_new(1, 1, 1);
    cnn_conv2d(net, .out_channels = 1, .kernel_size = 1, .no_bias = 1);
    check_summary(net, least, 3);
    cnn_free(net);
}

/* ---- explain: inputs and weights are quarters and eighths, so every sum is exact ---- */

static int exact_seed;
static float exact(int i)                                  /* k / 4 with k from -12 to 12, never twice the same pattern */
{
    uint32_t r[4];
    cnn_random(r, 7, (uint32_t)exact_seed, 0, (uint32_t)i);
    return ((int)(r[0] % 25) - 12) / 4.0f;
}

static float values[3][MOST];                              /* inputs, weights, biases */

/* Two samples of exact numbers go through the network, whose parameters become exact too. */
static void run_exact(cnn_net *net, int channels, int height, int width)
{
    static int order[2] = { 1, 0 };
    int i, size = channels * height * width;
    const char *key;
    cnn_data *data;
    cnn_batch batch;
    exact_seed++;
    for (i = 0; i < 2 * size; i++) values[0][i] = exact(i);
    for (i = 0; (key = cnn_key(net, i)) != NULL; i++) {
        size_t count = cnn_get(net, key, NULL, 0), j;
        for (j = 0; j < count; j++) values[1][j] = exact(1000 * (i + 1) + (int)j) / 2;
        CHECK(cnn_set(net, key, values[1], count), "%s", error_of(net));
    }
    data = cnn_data_new(.count = 2, .channels = channels, .height = height, .width = width, .floats = values[0], .targets = values[0], .outputs = 1);
    batch.data = data; batch.order = order; batch.size = 2;
    cnn_forward(net, &batch);
    CHECK_FINE(net);
    for (i = 0; i < size; i++) values[0][i] = values[0][size + i];         /* the first of the batch is sample 1 */
    cnn_data_free(data);
}

/* What cnn_explain prints, and the value that it should come to. */
static const char *explained(cnn_net *net, const char *layer, int channel, int y, int x)
{
    FILE *file = tmpfile();
    CHECK(cnn_explain(net, layer, channel, y, x, file), "%s", error_of(net));
    return text_of(file);
}

static double value_at(cnn_net *net, const char *layer, int channel, int y, int x)
{
    static float all[MOST];
    int shape[4] = { 0, 0, 0, 0 };
    CHECK(cnn_get(net, layer, all, MOST) > 0 && cnn_shape(net, layer, shape), "%s", error_of(net));
    return shape[2] ? all[(channel * shape[2] + y) * shape[3] + x] : all[channel];
}

static void expect_layer(cnn_net *net, const char *name, const char *type)
{
    int i = 0;
    while (strcmp(cnn_layer_name(net, i), name)) i++;
    expect_nothing();
    expect("layer %d (%s \"%s\"): ", i + 1, type, name);
}

static int mirrored(int i, int n, cnn_padding_mode mode)   /* the place whose value stands at place i, or -1 */
{
    if (mode == CNN_ZEROS) return i < 0 || i >= n ? -1 : i;
    if (mode == CNN_CIRCULAR) return (i + n) % n;
    if (mode == CNN_REPLICATE) return i < 0 ? 0 : i > n - 1 ? n - 1 : i;
    return i < 0 ? -i : i > n - 1 ? n - 1 - (i - (n - 1)) : i;
}

static void check_conv(cnn_conv2d_options o, int one_d, int channels, int height, int width, int out_height, int out_width, int top, int left)
{
    int kh = one_d ? 1 : o.kernel_height ? o.kernel_height : o.kernel_size, kw = o.kernel_width ? o.kernel_width : o.kernel_size,
        sh = one_d ? 1 : o.stride_height ? o.stride_height : o.stride ? o.stride : 1, sw = o.stride_width ? o.stride_width : o.stride ? o.stride : 1,
        dh = one_d ? 1 : o.dilation_height ? o.dilation_height : o.dilation ? o.dilation : 1,
        dw = o.dilation_width ? o.dilation_width : o.dilation ? o.dilation : 1, groups = o.groups ? o.groups : 1, depth = channels / groups,
        k, row, column, c, y, x, shape[4];
    cnn_net *net = cnn_new(channels, height, width);
    static float weight[MOST], bias[MOST];
    if (kh == 1) dh = 1;                                   /* between the values of one there is nothing */
    if (kw == 1) dw = 1;
    cnn_name(net, "look");
    if (one_d) cnn_conv1d_with(net, o); else cnn_conv2d_with(net, o);
    run_exact(net, channels, height, width);
    cnn_shape(net, "look", shape);
    CHECK(shape[1] == o.out_channels && shape[2] == out_height && shape[3] == out_width, "%d x %d x %d", shape[1], shape[2], shape[3]);
    cnn_get(net, "look.weight", weight, MOST);
    if (!o.no_bias) cnn_get(net, "look.bias", bias, MOST);
    for (k = 0; k < o.out_channels; k++)
        for (row = 0; row < out_height; row++)
            for (column = 0; column < out_width; column++) {
                double sum = 0, b = o.no_bias ? 0 : bias[k], y_of_net;
                int first = k / (o.out_channels / groups) * depth;
                const char *text = explained(net, "look", k, row, column);
                expect_layer(net, "look", one_d ? "conv1d" : "conv2d");
                expect("f(%d, %d, %d) = b(%d) + sum over c, y, x of  z(c, %d + y%s, %d + x%s) u(%d, c, y, x)\n", k, row, column, k,
                       row * sh - top, dh > 1 ? " d" : "", column * sw - left, dw > 1 ? " d" : "", k);
                for (c = 0; c < depth; c++) {
                    double part = 0;
                    expect("  c = %d\n", first + c);
                    for (y = 0; y < kh; y++) {
                        expect("   ");
                        for (x = 0; x < kw; x++) {
                            int j = row * sh - top + y * dh, i = column * sw - left + x * dw,
                                from = mirrored(j, height, o.padding_mode), at = mirrored(i, width, o.padding_mode),
                                inside = j >= 0 && j < height && i >= 0 && i < width;
                            double z = from < 0 || at < 0 ? 0 : values[0][((first + c) * height + from) * width + at],
                                   u = weight[((k * depth + c) * kh + y) * kw + x];
                            expect(inside ? "  %8.4f *%8.4f" : " [%8.4f]*%8.4f", z, u);
                            part += z * u;
                        }
                        expect("\n");
                    }
                    expect("    sum of these products: %.6f\n", part);
                    sum += part;
                }
                expect("  sum %.6f %s bias %.6f = %.6f        ([ ]: beyond the border)\n", sum, b < 0 ? "-" : "+", b < 0 ? -b : b, sum + b);
                check_text(text, expected, "a convolution");
                y_of_net = value_at(net, "look", k, row, column);
                CHECK(sum + b == y_of_net, "%.9g is explained, %.9g put out", sum + b, y_of_net);
            }
    CHECK_FINE(net);
    cnn_free(net);
}

static cnn_conv2d_options conv_options(int channels, int kernel_height, int kernel_width)
{
    cnn_conv2d_options o;
    memset(&o, 0, sizeof o);
    o.out_channels = channels;
    o.kernel_height = kernel_height;
    o.kernel_width = kernel_width;
    return o;
}

static void test_explain_conv(void)
{
    cnn_conv2d_options o = conv_options(2, 3, 3);
    check_conv(o, 0, 1, 4, 5, 2, 3, 0, 0);
    o = conv_options(2, 3, 2);
    o.padding_height = 2; o.padding_width = 1;
    for (o.padding_mode = CNN_ZEROS; o.padding_mode <= CNN_CIRCULAR; o.padding_mode = (cnn_padding_mode)(o.padding_mode + 1))
        check_conv(o, 0, 2, 4, 3, 6, 4, 2, 1);
    o = conv_options(4, 2, 3);                             /* two groups, strides, dilations, no bias */
    o.groups = 2; o.stride_height = 2; o.stride_width = 3; o.dilation_height = 3; o.dilation_width = 2; o.padding_height = 1; o.padding_width = 2;
    o.no_bias = 1;
    check_conv(o, 0, 4, 6, 7, 3, 3, 1, 2);
    o = conv_options(6, 1, 1);                             /* as many groups as channels */
    o.groups = 3; o.dilation_height = 2;
    check_conv(o, 0, 3, 2, 2, 2, 2, 0, 0);
    o = conv_options(1, 2, 4);                             /* PyTorch pads less in front: of 1 and 3 rows 0 and 1 */
    o.padding = CNN_SAME;
    check_conv(o, 0, 1, 3, 4, 3, 4, 0, 1);
    memset(&o, 0, sizeof o);
    o.out_channels = 2; o.kernel_size = 3; o.stride = 2; o.dilation = 2; o.padding = 2; o.padding_mode = CNN_REFLECT;
    check_conv(o, 1, 2, 1, 7, 1, 4, 0, 2);
}

static void check_pool(cnn_pool2d_options o, int average, int height, int width, int out_height, int out_width)
{
    int kh = o.kernel_height ? o.kernel_height : o.kernel_size, kw = o.kernel_width ? o.kernel_width : o.kernel_size,
        sh = o.stride_height ? o.stride_height : o.stride ? o.stride : kh, sw = o.stride_width ? o.stride_width : o.stride ? o.stride : kw,
        ph = o.padding_height ? o.padding_height : o.padding, pw = o.padding_width ? o.padding_width : o.padding, k, row, column, j, i, shape[4];
    cnn_net *net = cnn_new(2, height, width);
    cnn_relu(net);
    cnn_name(net, "look");
    if (average) cnn_avg_pool2d_with(net, o); else cnn_max_pool2d_with(net, o);
    run_exact(net, 2, height, width);
    for (i = 0; i < 2 * height * width; i++) if (values[0][i] < 0) values[0][i] = 0;
    cnn_shape(net, "look", shape);
    CHECK(shape[1] == 2 && shape[2] == out_height && shape[3] == out_width, "%d x %d x %d", shape[1], shape[2], shape[3]);
    for (k = 0; k < 2; k++)
        for (row = 0; row < out_height; row++)
            for (column = 0; column < out_width; column++) {
                int top = row * sh - ph, left = column * sw - pw, bottom = top + kh, right = left + kw, count, win_j = -1, win_i = -1;
                double sum = 0, largest = -1;
                const char *text = explained(net, "look", k, row, column);
                if (bottom > height + ph) bottom = height + ph;            /* the window may end beyond the padding: that part counts never */
                if (right > width + pw) right = width + pw;
                count = (bottom - top) * (right - left);
                if (top < 0) top = 0;
                if (left < 0) left = 0;
                if (bottom > height) bottom = height;
                if (right > width) right = width;
                if (o.exclude_padding) count = (bottom - top) * (right - left);
                for (j = top; j < bottom; j++)
                    for (i = left; i < right; i++) {
                        double v = values[0][(k * height + j) * width + i];
                        sum += v;
                        if (v > largest) { largest = v; win_j = j; win_i = i; }
                    }
                expect_layer(net, "look", average ? "avg_pool2d" : "max_pool2d");
                expect("y(%d, %d, %d) = %s of the window: rows %d to %d, columns %d to %d\n", k, row, column, average ? "mean" : "largest value",
                       top, bottom - 1, left, right - 1);
                for (j = top; j < bottom; j++) {
                    expect("   ");
                    for (i = left; i < right; i++)
                        expect(" %8.4f%s", values[0][(k * height + j) * width + i], !average && j == win_j && i == win_i ? "*" : " ");
                    expect("\n");
                }
                if (average) expect("  sum / %d = %.6f\n", count, sum / count);
                else expect("  largest (*): %.6f\n", largest);
                check_text(text, expected, "pooling");
                CHECK(fabs((average ? sum / count : largest) - value_at(net, "look", k, row, column)) < 1e-6, "%d %d %d", k, row, column);
            }
    CHECK_FINE(net);
    cnn_free(net);
}

static void test_explain_pool(void)
{
    int average;
    for (average = 0; average < 2; average++) {
        cnn_pool2d_options o;
        memset(&o, 0, sizeof o);
        o.kernel_size = 2;
        check_pool(o, average, 5, 4, 2, 2);
        o.kernel_size = 0; o.kernel_height = 3; o.kernel_width = 2; o.stride_height = 1; o.stride_width = 2; o.padding = 1;
        check_pool(o, average, 4, 5, 4, 3);
        memset(&o, 0, sizeof o);
        o.kernel_size = 3; o.stride = 2; o.ceil_mode = 1;
        check_pool(o, average, 6, 4, 3, 2);
        o.padding = 1;
        check_pool(o, average, 6, 4, 4, 3);
        o.exclude_padding = average;
        check_pool(o, average, 6, 4, 4, 3);
    }
}

static int products_of(const float *w, const float *x, int i, int j)       /* is product i to stand before product j? */
{
    double a = fabs((double)w[i] * x[i]), b = fabs((double)w[j] * x[j]);
    return a > b || (a == b && i < j);
}

static void check_linear(int n, int no_bias)
{
    cnn_net *net = cnn_new(n, 1, 1);
    static float weight[MOST], bias[3];
    int o, i, j, rank;
    cnn_flatten(net);
    cnn_name(net, "look");
    cnn_linear(net, .out_features = 3, .no_bias = no_bias);
    run_exact(net, n, 1, 1);
    cnn_get(net, "look.weight", weight, MOST);
    if (!no_bias) cnn_get(net, "look.bias", bias, 3);
    for (o = 0; o < 3; o++) {
        const float *w = weight + o * n;
        double sum = 0, rest = 0, b = no_bias ? 0 : bias[o];
        const char *text = explained(net, "look", o, 0, 0);
        expect_layer(net, "look", "linear");
        expect("y(%d) = b(%d) + sum over i = 0 .. %d of  W(%d, i) x(i)%s\n", o, o, n - 1, o, n > 12 ? "; the largest products:" : "");
        for (rank = 0; rank < n; rank++)
            for (i = 0; i < n; i++) {
                int before = 0;
                for (j = 0; j < n; j++) before += j != i && products_of(w, values[0], j, i);
                if (before != rank) continue;
                if (rank < 12) expect("    i = %-5d %8.4f *%8.4f = %9.6f\n", i, w[i], values[0][i], (double)w[i] * values[0][i]);
                else rest += (double)w[i] * values[0][i];
                sum += (double)w[i] * values[0][i];
            }
        if (n > 12) expect("    the other %d together:       %9.6f\n", n - 12, rest);
        expect("  sum %.6f %s bias %.6f = %.6f\n", sum, b < 0 ? "-" : "+", fabs(b), sum + b);
        check_text(text, expected, "a linear layer");
        CHECK(value_at(net, "look", o, 0, 0) == sum + b, "%g put out", value_at(net, "look", o, 0, 0));
    }
    CHECK_FINE(net);
    cnn_free(net);
}

/* Activation, softmax, dropout, flatten: 3 x 2 x 4 values of quarters. */
static void test_explain_others(void)
{
    static const char *const types[] = { "relu", "leaky_relu", "sigmoid", "tanh", "softmax", "dropout", "flatten", "gelu", "prelu", "prelu" },
                      *const says[] = { "max(0, x)", "x > 0 ? x : slope x", "1 / (1 + exp(-x))", "tanh x", "", "", "",
                                        "x (1 + erf(x / sqrt 2)) / 2" };
    float weight[3];
    int kind, channel, y, x, k, eval;
    for (kind = 0; kind < 10; kind++)
        for (eval = 0; eval < (kind == 5 ? 2 : 1); eval++) {
            cnn_net *net = cnn_new(3, 2, 4);
            double scale = 1;
            int kept = 0;
            cnn_manual_seed(net, 5);
            cnn_name(net, "look");
            switch (kind) {
            case 0: cnn_relu(net); break;
            case 1: cnn_leaky_relu(net, .negative_slope = 0.125f); break;
            case 2: cnn_sigmoid(net); break;
            case 3: cnn_tanh(net); break;
            case 4: cnn_softmax(net); break;
            case 7: cnn_gelu(net); break;
            case 8: cnn_prelu(net, 0); break;
            case 9: cnn_prelu(net, .num_parameters = 3); break;
            case 5: cnn_dropout(net, .p = 0.25f); scale = eval ? 1 : 1 / 0.75; break;
            default: cnn_flatten(net);
            }
            if (eval) cnn_eval(net);
            run_exact(net, 3, 2, 4);
            if (kind >= 8) cnn_get(net, "look.weight", weight, 3);
            for (channel = 0; channel < 3; channel++)
                for (y = 0; y < 2; y++)
                    for (x = 0; x < 4; x++) {
                        int at = (channel * 2 + y) * 4 + x;
                        const char *text = kind == 6 ? explained(net, "look", at, 0, 0) : explained(net, "look", channel, y, x);
                        double z = values[0][at], out = kind == 6 ? value_at(net, "look", at, 0, 0) : value_at(net, "look", channel, y, x);
                        expect_layer(net, "look", types[kind]);
                        if (kind >= 8) {
                            double a = weight[kind == 8 ? 0 : channel], right = z > 0 ? z : a * z;
                            expect("y = x > 0 ? x : a x, a = %.6f, learned for %s\n  x = %.6f, y = %.6f\n", a,
                                   kind == 8 ? "all channels" : "this channel", z, right);
                            CHECK(fabs(right - out) < 1e-6, "prelu: %g put out", out);
                        } else if (kind < 4 || kind == 7) {
                            double right = kind == 0 ? (z > 0 ? z : 0) : kind == 1 ? (z > 0 ? z : z / 8) : kind == 2 ? 1 / (1 + exp(-z))
                                         : kind == 3 ? tanh(z) : z * (1 + erf(z / sqrt(2))) / 2;
                            expect("y = %s\n  x = %.6f, y = %.6f\n", says[kind], z, right);
                            CHECK(fabs(right - out) < 1e-6, "%s: %g put out", types[kind], out);
                        } else if (kind == 4) {
                            double all = 0;
                            for (k = 0; k < 3; k++) all += exp(values[0][(k * 2 + y) * 4 + x]);
                            expect("y_c = exp(x_c) / sum_k exp(x_k)\n");
                            for (k = 0; k < 3; k++) {
                                double xk = values[0][(k * 2 + y) * 4 + x];
                                expect("    k = %-4d x = %9.4f  y = %.6f%s\n", k, xk, exp(xk) / all, k == channel ? "  <" : "");
                            }
                            CHECK(fabs(exp(z) / all - out) < 1e-6, "softmax: %g put out", out);
                        } else if (kind == 5) {
                            if (out != 0 || z == 0) kept++;
                            expect("%s\n  x = %.6f, y = %.6f\n", eval ? "evaluation: y = x" : "training: y = m x / (1 - p), m = 0 with probability p",
                                   z, out != 0 ? z * scale : 0.0);
                            CHECK(out == 0 || fabs(out - z * scale) < 1e-6, "dropout: %g becomes %g", z, out);
                        } else {
                            expect("value %d is x(%d, %d, %d) = %.6f\n", at, channel, y, x, z);
                            CHECK(out == z, "flatten: %g", out);
                        }
                        check_text(text, expected, types[kind]);
                    }
            CHECK(kind != 5 || (eval ? kept == 24 : kept < 24 && kept > 6), "dropout keeps %d of 24", kept);
            CHECK_FINE(net);
            cnn_free(net);
        }
}

/* Zero padding and adaptive pooling of 2 x 3 x 4 values */
static void test_explain_padding(void)
{
    cnn_net *net = cnn_new(2, 3, 4);
    int k, row, column, j, i;
    cnn_name(net, "look");
    cnn_zero_pad2d(net, .padding_left = 2, .padding_top = 1, .padding_right = 1);
    cnn_name(net, "pool");
    cnn_adaptive_avg_pool2d(net, .output_height = 3, .output_width = 2);       /* of 4 x 7: rows 0-1, 1-2, 2-3, columns 0-3, 3-6 */
    run_exact(net, 2, 3, 4);
    for (k = 0; k < 2; k++)
        for (row = 0; row < 4; row++)
            for (column = 0; column < 7; column++) {
                int inside = row >= 1 && column >= 2 && column < 6;
                double x = inside ? (double)values[0][(k * 3 + row - 1) * 4 + column - 2] : 0;
                const char *text = explained(net, "look", k, row, column);
                expect_layer(net, "look", "zero_pad2d");
                if (inside) expect("y(%d, %d, %d) = x(%d, %d, %d) = %.6f\n", k, row, column, k, row - 1, column - 2, x);
                else expect("y(%d, %d, %d) is beyond the border of x: 0\n", k, row, column);
                check_text(text, expected, "zero padding");
                CHECK(value_at(net, "look", k, row, column) == x, "(%d, %d, %d)", k, row, column);
            }
    for (k = 0; k < 2; k++)
        for (row = 0; row < 3; row++)
            for (column = 0; column < 2; column++) {
                const char *text = explained(net, "pool", k, row, column);
                double sum = 0;
                expect_layer(net, "pool", "adaptive_avg_pool2d");
                expect("y(%d, %d, %d) = mean of the window: rows %d to %d, columns %d to %d\n", k, row, column, row, row + 1, 3 * column, 3 * column + 3);
                for (j = row; j < row + 2; j++) {
                    expect("   ");
                    for (i = 3 * column; i < 3 * column + 4; i++) {
                        double v = value_at(net, "look", k, j, i);
                        expect(" %8.4f ", v);
                        sum += v;
                    }
                    expect("\n");
                }
                expect("  sum / 8 = %.6f\n", sum / 8);
                check_text(text, expected, "adaptive pooling");
                CHECK(fabs(sum / 8 - value_at(net, "pool", k, row, column)) < 1e-6, "(%d, %d, %d)", k, row, column);
            }
    CHECK_FINE(net);
    cnn_free(net);
}

static void test_explain_errors(void)
{
    static const int wrong[][3] = { { -1, 0, 0 }, { 0, -1, 0 }, { 0, 0, -1 }, { 2, 0, 0 }, { 0, 3, 0 }, { 0, 0, 4 } };
    cnn_net *net = cnn_new(2, 3, 4);
    FILE *file = tmpfile();
    char sentence[200];
    size_t i;
    cnn_name(net, "look");
    cnn_relu(net);
    CHECK(!cnn_explain(net, "look", 0, 0, 0, file) && !strcmp(error_of(net), "cnn_explain: layer \"look\" has no output yet; call cnn_forward first"), "%s", error_of(net));
    cnn_clear_error(net);
    run_exact(net, 2, 3, 4);
    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(!cnn_explain(net, "look", wrong[i][0], wrong[i][1], wrong[i][2], file), "(%d, %d, %d)", wrong[i][0], wrong[i][1], wrong[i][2]);
        snprintf(sentence, sizeof sentence, "cnn_explain: layer \"look\" puts out 2 x 3 x 4; there is no value (%d, %d, %d)", wrong[i][0], wrong[i][1], wrong[i][2]);
        check_text(error_of(net), sentence, "the error");
        cnn_clear_error(net);
    }
    CHECK(!cnn_explain(net, "books", 0, 0, 0, file) && strstr(error_of(net), "no layer \"books\"; "), "%s", error_of(net));
    cnn_clear_error(net);
    CHECK(!*text_of(file), "something was printed all the same");
    CHECK(*explained(net, "look", 1, 2, 3), "the last value");
    cnn_free(net);
}

/* ---- the doctor: just below and just above each threshold ---- */

static const char *advice_of(cnn__doctor *d)               /* what it said since the last call */
{
    const char *text = text_of(d->out);
    d->out = tmpfile();
    return text;
}

#define CHECK_ADVICE(d, text, what) check_text(advice_of(d), text, what)

static cnn_epoch epoch_of(int number, double loss, double accuracy, double test_accuracy)
{
    cnn_epoch e = { 0, { 0, 0, 1000 }, { 1, 0, 0 }, 1, 0.125f };
    e.epoch = number;
    e.train.loss = loss; e.train.accuracy = accuracy;
    e.test.accuracy = test_accuracy;
    e.test.count = test_accuracy >= 0 ? 100 : 0;
    return e;
}

static const char *epoch_advice(cnn_net *net, cnn_epoch e, int classes, cnn_loss_kind loss, int batches, double best)
{
    static cnn__doctor d;
    d.out = tmpfile(); d.said = 0; d.best_loss = best;
    cnn__doctor_epoch(&d, net, &e, classes, loss, batches);
    return text_of(d.out);
}

static void test_doctor_epochs(void)
{
    cnn_net *net = cnn_new(1, 1, 2);
    static const char stuck[] = "doctor: after epoch 3 the loss is still near ln(10) = 2.303, which is guessing. Look at the labels and at the inputs' "
                                "scale, and try another learning rate than 0.125.\n",
                      rate[] = "doctor: the loss of epoch 3, 3.47, is worse than guessing (2.3): the learning rate 0.125 is likely too high. Try a tenth of it.\n",
                      rose[] = "doctor: the training loss rose from 1 to 1.51: the learning rate 0.125 is likely too high. Try a tenth of it, or a schedule.\n",
                      overfit[] = "doctor: after epoch 3 the network knows the training samples (90.0 %) far better than new ones (79.9 %): it overfits. "
                                  "Use dropout, weight decay, augmentation, more data, or fewer epochs.\n",
                      infinite[] = "doctor: the loss is inf: the numbers have overflowed. Try a learning rate ten times smaller than 0.25, "
                                   "clip_grad_norm = 1, and look for NaN in the inputs.\n";
    double chance = log(10);
    cnn__doctor d;
    cnn_epoch e;
    cnn_relu(net);
    cnn_sgd(net, .lr = 0.25f);
    /* guessing: 50 batches, within 2 % of ln k, accuracy below 1.5 / k */
    check_text(epoch_advice(net, epoch_of(3, chance * 1.019, 0.149, -1), 10, CNN_CROSS_ENTROPY, 50, 0), stuck, "stuck");
    check_text(epoch_advice(net, epoch_of(3, chance * 0.981, 0.149, -1), 10, CNN_CROSS_ENTROPY, 51, 0), stuck, "stuck from below");
    check_text(epoch_advice(net, epoch_of(3, chance * 1.021, 0.149, -1), 10, CNN_CROSS_ENTROPY, 50, 0), "", "a larger loss");
    check_text(epoch_advice(net, epoch_of(3, chance * 0.979, 0.149, -1), 10, CNN_CROSS_ENTROPY, 50, 0), "", "a smaller loss");
    check_text(epoch_advice(net, epoch_of(3, chance, 0.151, -1), 10, CNN_CROSS_ENTROPY, 50, 0), "", "better than guessing");
    check_text(epoch_advice(net, epoch_of(3, chance, 0.149, -1), 10, CNN_CROSS_ENTROPY, 49, 0), "", "few batches");
    check_text(epoch_advice(net, epoch_of(3, chance, 0.149, -1), 10, CNN_MSE, 50, 0), "", "another loss");
    CHECK(strstr(epoch_advice(net, epoch_of(3, log(2), 0.5, -1), 2, CNN_CROSS_ENTROPY, 50, 0), "ln(2) = 0.693"), "two classes");
    check_text(epoch_advice(net, epoch_of(3, log(2), 0.5, -1), 1, CNN_CROSS_ENTROPY, 50, 0), "", "one class");
    /* worse than 1.5 times guessing */
    check_text(epoch_advice(net, epoch_of(3, chance * 1.509, 0.1, -1), 10, CNN_CROSS_ENTROPY, 1, 0), rate, "worse than guessing");
    check_text(epoch_advice(net, epoch_of(3, chance * 1.499, 0.1, -1), 10, CNN_CROSS_ENTROPY, 1, 0), "", "not so bad");
    check_text(epoch_advice(net, epoch_of(3, chance * 2, 0.1, -1), 10, CNN_MSE, 1, 0), "", "another loss");
    /* risen by half of the best, and by 0.1 */
    check_text(epoch_advice(net, epoch_of(3, 1.51, 0.5, -1), 10, CNN_CROSS_ENTROPY, 1, 1), rose, "risen");
    check_text(epoch_advice(net, epoch_of(3, 1.51, 0.5, -1), 10, CNN_MSE, 1, 1), rose, "risen, another loss");
    check_text(epoch_advice(net, epoch_of(3, 1.49, 0.5, -1), 10, CNN_CROSS_ENTROPY, 1, 1), "", "risen a little");
    check_text(epoch_advice(net, epoch_of(3, 0.149, 0.5, -1), 10, CNN_CROSS_ENTROPY, 1, 0.05), "", "risen by less than 0.1");
    CHECK(strstr(epoch_advice(net, epoch_of(3, 0.151, 0.5, -1), 10, CNN_CROSS_ENTROPY, 1, 0.05), "rose from 0.05 to 0.151"), "risen by more than 0.1");
    /* ten points between training and test */
    check_text(epoch_advice(net, epoch_of(3, 1, 0.9, 0.799), 10, CNN_CROSS_ENTROPY, 1, 0), overfit, "overfits");
    check_text(epoch_advice(net, epoch_of(3, 1, 0.9, 0.801), 10, CNN_CROSS_ENTROPY, 1, 0), "", "as good as in training");
    check_text(epoch_advice(net, epoch_of(3, 1, 0.1, 0), 10, CNN_CROSS_ENTROPY, 1, 0), "", "ten points and no more");
    check_text(epoch_advice(net, epoch_of(3, 1, 0.9, -1), 10, CNN_CROSS_ENTROPY, 1, 0), "", "no test set");
    check_text(epoch_advice(net, epoch_of(3, HUGE_VAL, 0.5, -1), 1, CNN_CROSS_ENTROPY, 1, 0), infinite, "overflowed");
    /* the best loss is remembered, and everything is said once */
    d.out = tmpfile(); d.said = 0; d.best_loss = 0;
    e = epoch_of(1, 1.2, 0.5, -1); cnn__doctor_epoch(&d, net, &e, 10, CNN_CROSS_ENTROPY, 1);
    CHECK(d.best_loss == 1.2, "best %g", d.best_loss);
    e = epoch_of(2, 1, 0.5, -1); cnn__doctor_epoch(&d, net, &e, 10, CNN_CROSS_ENTROPY, 1);
    CHECK(d.best_loss == 1, "best %g", d.best_loss);
    e = epoch_of(3, 1.51, 0.5, -1); cnn__doctor_epoch(&d, net, &e, 10, CNN_CROSS_ENTROPY, 1);
    CHECK(d.best_loss == 1, "best %g", d.best_loss);
    e = epoch_of(4, 9, 0.5, -1); cnn__doctor_epoch(&d, net, &e, 10, CNN_CROSS_ENTROPY, 1);
    CHECK_ADVICE(&d, rose, "said once");
    fclose(d.out);
    cnn_free(net);
}

/* Each piece of advice is given once, whatever else was said before. */
static void test_doctor_repeats(void)
{
    static const int all[] = { CNN__SAID_SOFTMAX, CNN__SAID_UNSCALED, CNN__SAID_NAN, CNN__SAID_STUCK, CNN__SAID_DEAD, CNN__SAID_RATE, CNN__SAID_OVERFIT,
                               CNN__SAID_CLASSES };
    int a, b;
    for (a = 0; a < 8; a++)
        for (b = 0; b < 8; b++) {
            cnn__doctor d = { NULL, 0, 0 };
            d.out = tmpfile();
            cnn__advise(&d, all[a], "%d", a);
            cnn__advise(&d, all[b], "%d", b);
            cnn__advise(&d, all[a], "%d", a);
            expect_nothing();
            expect("doctor: %d\n", a);
            if (a != b) expect("doctor: %d\n", b);
            check_text(text_of(d.out), expected, "two pieces of advice");
        }
}

/* ReLUs of the last batch: dead only where no unit of no sample gives anything. */
static void test_doctor_dead(void)
{
    static float x[4 * 3];
    static int labels[4], order[4] = { 0, 1, 2, 3 };
    int i, k;
    for (k = -1; k < 12; k++) {
        cnn_net *net = cnn_new(3, 1, 1);
        cnn_data *data;
        cnn_batch batch;
        cnn__doctor d = { NULL, 0, 0 };
        const char *text;
        for (i = 0; i < 12; i++) x[i] = i == k ? 0.001f : -1;
        data = cnn_data_new(.count = 4, .channels = 3, .height = 1, .width = 1, .classes = 2, .floats = x, .labels = labels);
        batch.data = data; batch.order = order; batch.size = 4;
        cnn_name(net, "tau");
        cnn_relu(net);
        cnn_forward(net, &batch);
        d.out = tmpfile();
        cnn__doctor_dead(&d, net);
        text = text_of(d.out);
        CHECK(!strncmp(text, "doctor: all ReLUs of layer 1 (\"tau\") are dead", 40) == (k < 0), "value %d lives: %s", k, text);
        CHECK_FINE(net);
        cnn_free(net);
        cnn_data_free(data);
    }
}

/* Two inputs to each of two outputs: what the doctor says about a whole fit. */
typedef struct patient { int softmax, relu_first, zero, count, classes, batch_size, epochs; float value, lr, bias; cnn_loss_kind loss; } patient;

static const char *fit_advice(patient p, int outputs)
{
    static float x[4000];
    static int labels[2000];
    cnn_net *net = cnn_new(1, 1, 2);
    cnn_data *data;
    float bias[8];
    FILE *file = tmpfile();
    int i;
    for (i = 0; i < p.count; i++) {
        x[2 * i] = i ? 0.5f : p.value; x[2 * i + 1] = i % 2 ? 0.25f : -0.25f;
        labels[i] = i % 2;
        if (p.zero) x[2 * i] = x[2 * i + 1] = 0;           /* nothing to learn from */
    }
    data = cnn_data_new(.count = p.count, .channels = 1, .height = 1, .width = 2, .floats = x, .classes = p.classes, .labels = labels);
    cnn_flatten(net);
    if (p.relu_first) {
        cnn_name(net, "hidden");
        cnn_linear(net, .out_features = 4);
        cnn_name(net, "tau");
        cnn_relu(net);
    }
    cnn_name(net, "last");
    cnn_linear(net, .out_features = outputs);
    if (p.softmax) cnn_softmax(net);
    for (i = 0; i < 8; i++) bias[i] = p.bias;
    if (p.relu_first) cnn_set(net, "hidden.bias", bias, 4);
    if (p.zero) {
        memset(bias, 0, sizeof bias);
        cnn_set(net, "last.weight", bias, 4);
        cnn_set(net, "last.bias", bias, 2);
    }
    cnn_sgd(net, .lr = p.lr);
    cnn_fit(net, data, NULL, .epochs = p.epochs, .batch_size = p.batch_size, .keep_order = 1, .doctor = file, .loss = p.loss);
    CHECK_FINE(net);
    cnn_free(net);
    cnn_data_free(data);
    return text_of(file);
}

static void test_doctor_in_fit(void)
{
    static const char twice[] = "doctor: the network ends with softmax, and the cross-entropy takes softmax once more; gradients become small. "
                                "Leave the last cnn_softmax out.\n",
                      many[] = "doctor: the network has 3 outputs, but the labels go only from 0 to 1; give the last layer .out_features = 2.\n",
                      unscaled[] = "doctor: the inputs reach 20.25; networks learn from values around 0 to 1. Give bytes as .bytes, which are "
                                   "divided by 255, or call cnn_normalize.\n",
                      dead[] = "doctor: all ReLUs of layer 3 (\"tau\") are dead: they give 0 for every sample, and no gradient comes through. "
                               "Use a smaller learning rate, Kaiming initialisation, or leaky_relu.\n";
    patient well = { 0, 0, 0, 8, 2, 4, 1, 1, 1e-3f, 1, CNN_CROSS_ENTROPY }, p = well;
    const char *text;
    check_text(fit_advice(well, 2), "", "nothing to say");
    p.softmax = 1;
    check_text(fit_advice(p, 2), twice, "softmax twice");
    p.loss = CNN_MSE;
    check_text(fit_advice(p, 2), "", "softmax and the mean squared error");
    CHECK(!strncmp(text = fit_advice(well, 3), many, strlen(many)), "three outputs: %s", text);
    CHECK(strstr(text, "doctor: the loss of epoch 1, "), "after an epoch: %s", text);
    p = well; p.count = 50; p.batch_size = 1; p.lr = 1e-9f; p.zero = 1;
    text = fit_advice(p, 2);
    CHECK(!strncmp(text, "doctor: after epoch 1 the loss is still near ln(2) = 0.693", 57), "fifty batches: %s", text);
    p.count = 49;
    check_text(fit_advice(p, 2), "", "49 batches");
    p.count = 50; p.loss = CNN_MSE;
    check_text(fit_advice(p, 2), "", "fifty batches of the mean squared error");
    p = well; p.value = 20; p.lr = 1e-6f;
    check_text(fit_advice(p, 2), "", "inputs up to 20");
    p.value = 20.25f; p.epochs = 2;
    check_text(strstr(fit_advice(p, 2), "doctor: the inputs") ? fit_advice(p, 2) : "no", unscaled, "inputs beyond 20");
    p.value = -20.25f;
    CHECK(strstr(fit_advice(p, 2), "reach 20.25"), "negative inputs beyond -20");
    p = well; p.relu_first = 1;
    check_text(fit_advice(p, 2), "", "ReLUs that live");
    p.bias = -1000;
    check_text(fit_advice(p, 2), dead, "ReLUs that are dead");
    p = well; p.value = NAN;                               /* not known before the first step */
    text = fit_advice(p, 2);
    CHECK(strstr(text, "doctor: the loss is nan: the numbers have overflowed. Try a learning rate ten times smaller than 0.001,")
          || strstr(text, "doctor: the loss is -nan: the numbers have overflowed. Try a learning rate ten times smaller than 0.001,"), "NaN: %s", text);
}

/* ---- gradient check: errors whose size is known ---- */

static const cnn_backend *direct;
static float factor;                                       /* of the gradient that is wrong */
static int wrong_at;                                       /* which one; -1: all */

static void spoil(float *g, int count)
{
    int i;
    for (i = 0; i < count; i++) if (wrong_at < 0 || wrong_at == i) g[i] *= factor;
}

static void wrong_bias(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                       const float *y, const float *x, const float *weight, void *work)
{
    direct->linear_backward(context, s, dx, dweight, dbias, dy, y, x, weight, work);
    spoil(dbias, s->out_features);
}

static void wrong_weight(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                         const float *y, const float *x, const float *weight, void *work)
{
    direct->linear_backward(context, s, dx, dweight, dbias, dy, y, x, weight, work);
    spoil(dweight, s->out_features * s->in_features);
}

static void wrong_input(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                        const float *y, const float *x, const float *weight, void *work)
{
    direct->linear_backward(context, s, dx, dweight, dbias, dy, y, x, weight, work);
    spoil(dx, s->batch * s->in_features);
}

static void wrong_conv(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias, const float *dy,
                       const float *y, const unsigned char *index, const float *x, const float *weight, void *work)
{
    direct->conv2d_backward(context, s, dx, dweight, dbias, dy, y, index, x, weight, work);
    spoil(dx, s->batch * s->in_channels * s->in_height * s->in_width);
}

static void wrong_pool(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x)
{
    direct->pool2d_backward(context, s, dx, dy, x);
    spoil(dx, s->batch * s->channels * s->in_height * s->in_width);
}

static void wrong_activation(void *context, cnn_activation f, float slope, float *dx, const float *dy, const float *y, const float *x,
                             size_t n)
{
    direct->activation_backward(context, f, slope, dx, dy, y, x, n);
    spoil(dx, (int)n);
}

static void wrong_softmax(void *context, const cnn_map_shape *s, float *dx, const float *dy, const float *y)
{
    direct->softmax_backward(context, s, dx, dy, y);
    spoil(dx, s->batch * s->channels * s->pixels);
}

static void wrong_dropout(void *context, const cnn_counters *c, int layer, float p, float *dx, const float *dy, size_t n)
{
    direct->dropout_backward(context, c, layer, p, dx, dy, n);
    spoil(dx, (int)n);
}

/* relu-like: 1; kinks of pooling do not count in averaging */
enum { CONV, POOL, LINEAR_INPUT, LINEAR_WEIGHT, LINEAR_BIAS, TANH, SOFTMAX, DROPOUT, OPERATIONS };

static cnn_gradcheck_result check_of(int operation, int samples, FILE *out)
{
    cnn_net *net = cnn_new(2, 3, 4);
    cnn_backend b = *direct;
    cnn_data *data;
    cnn_batch batch;
    static int order[3] = { 0, 1, 2 };
    static char layer[40];
    cnn_gradcheck_result result;
    int i;
    switch (operation) {
    case CONV: b.conv2d_backward = wrong_conv; break;
    case POOL: b.pool2d_backward = wrong_pool; break;
    case LINEAR_INPUT: b.linear_backward = wrong_input; break;
    case LINEAR_WEIGHT: b.linear_backward = wrong_weight; break;
    case LINEAR_BIAS: b.linear_backward = wrong_bias; break;
    case TANH: b.activation_backward = wrong_activation; break;
    case SOFTMAX: b.softmax_backward = wrong_softmax; break;
    case DROPOUT: b.dropout_backward = wrong_dropout; break;
    }
    cnn_use_backend(net, &b);
    cnn_name(net, "conv"); cnn_conv2d(net, .out_channels = 2, .kernel_size = 2);
    cnn_name(net, "tanh"); cnn_tanh(net);
    cnn_name(net, "pool"); cnn_avg_pool2d(net, .kernel_size = 2, .stride = 1);
    cnn_name(net, "drop"); cnn_dropout(net, .p = 0.25f);
    cnn_name(net, "flat"); cnn_flatten(net);
    cnn_name(net, "line"); cnn_linear(net, .out_features = 3);
    cnn_name(net, "soft"); cnn_softmax(net);
    for (i = 0; i < 3 * 24; i++) values[0][i] = exact(i) / 4;
    data = cnn_data_new(.count = 3, .channels = 2, .height = 3, .width = 4, .floats = values[0], .targets = values[0], .outputs = 3);
    batch.data = data; batch.order = order; batch.size = 3;
    cnn_allow_tf32(net, 1);
    result = cnn_gradcheck(net, &batch, samples, out);
    CHECK(net->allow_tf32 == 1, "what was allowed stays allowed");
    CHECK_FINE(net);
    snprintf(layer, sizeof layer, "%s", result.where);     /* which is the network's */
    result.where = layer;
    cnn_free(net);
    cnn_data_free(data);
    return result;
}

/* error / (1e-3 |g| + 1e-4 largest |g|): of the largest gradient, wrong by the factor f, it is (f - 1) / 1.1e-3, with the scale's own f */
static double worst_of(double f) { return (f - 1) / (1e-3 + 1e-4 * f); }

static void test_gradcheck(void)
{
    static const char *const where[] = { "conv", "pool", "line", "line", "line", "tanh", "soft", "drop" };
    int i, k, shown, number;
    cnn_gradcheck_result r;
    FILE *out = tmpfile();
    const char *text;
    char sum[200];
    wrong_at = -1; factor = 1;
    r = check_of(CONV, 1000, NULL);
    /* inputs 72, 36 (tanh), 36 (pool), 12 (dropout), 12 (linear), 9 (softmax); weights 16 + 2 of the convolution, 12 + 3 of the linear layer */
    CHECK(r.checked == 72 + 36 + 36 + 12 + 12 + 9 + 16 + 2 + 12 + 3 && !r.failed && !r.kinks && r.worst < 0.5, "%d checked, %d failed, %d kinks, worst %g",
          r.checked, r.failed, r.kinks, r.worst);
    r = check_of(CONV, 5, NULL);
    CHECK(r.checked == 8 * 5 + 2 + 3, "%d checked", r.checked);        /* 6 inputs, 2 weights; biases of 2 and 3 */
    r = check_of(CONV, 1, NULL);
    CHECK(r.checked == 6 + 4, "%d checked, one of each", r.checked);
    r = check_of(CONV, 0, NULL);
    CHECK(r.checked == 7 * 10 + 9 + 2 + 3, "%d checked; 10 is the default", r.checked);
    for (i = 0; i < OPERATIONS; i++) {
        double error;
        factor = 1.0025f;                                  /* twice the tolerance; all are wrong, so all that are not small fail */
        r = check_of(i, 1000, NULL);
        error = worst_of(factor);
        CHECK(r.failed > 0 && !strcmp(r.where, where[i]) && fabs(r.worst - error) < 0.03 * error, "%s: %d failed, worst %g, not %g", r.where, r.failed, r.worst, error);
        factor = 1.001f;                                   /* just within */
        r = check_of(i, 1000, NULL);
        CHECK(r.failed == 0 && !strcmp(r.where, where[i]) && fabs(r.worst - worst_of(factor)) < 0.03, "%s: %d failed, worst %g", r.where, r.failed, r.worst);
        factor = 1.0012f;                                  /* just beyond: of the largest one at least */
        r = check_of(i, 1000, NULL);
        CHECK(r.failed >= 1 && !strcmp(r.where, where[i]), "%s: %d failed, worst %g", r.where, r.failed, r.worst);
    }
    /* one wrong element among all is found, wherever it is, and only one fails */
    factor = 3;
    for (wrong_at = 0; wrong_at < 12; wrong_at++) {
        r = check_of(LINEAR_WEIGHT, 12, NULL);
        CHECK(r.failed == 1 && !strcmp(r.where, "line"), "element %d: %d failed", wrong_at, r.failed);
    }
    /* places by random numbers where there are more elements than samples: stream CHECK, seed 0, the layer's number */
    for (wrong_at = 0; wrong_at < 72; wrong_at++) {
        uint32_t words[4];
        int hits = 0;
        for (k = 0; k < 8; k++) {
            cnn_random(words, 0, CNN__STREAM_CHECK, 0, (uint32_t)(k / 4));
            hits += (int)(words[k % 4] % 72) == wrong_at;
        }
        r = check_of(CONV, 8, NULL);
        CHECK(r.failed == hits, "element %d: %d failed, drawn %d times", wrong_at, r.failed, hits);
    }
    {
        cnn_net *net = cnn_new(1, 1, 1);                   /* what could not be checked counts as one failure */
        cnn_batch none = { NULL, NULL, 0 };
        cnn_relu(net);
        r = cnn_gradcheck(net, &none, 1, NULL);
        CHECK(cnn_error(net) && r.failed == 1 && !r.checked && !r.kinks && r.worst == 0 && !*r.where, "%d failed", r.failed);
        cnn_free(net);
        r = cnn_gradcheck(NULL, &none, 1, NULL);
        CHECK(r.failed == 1, "%d failed", r.failed);
    }
    /* the table: a row a tensor, whose sums are the result's */
    wrong_at = -1; factor = 1.0025f;
    r = check_of(TANH, 1000, out);
    text = text_of(out);
    {
        static const char *const rows[][2] = { { "conv", "input" }, { "conv", "weight" }, { "conv", "bias" }, { "tanh", "input" }, { "pool", "input" },
                                               { "drop", "input" }, { "line", "input" }, { "line", "weight" }, { "line", "bias" }, { "soft", "input" } };
        static const int counts[] = { 72, 16, 2, 36, 36, 12, 12, 12, 3, 9 }, numbers[] = { 1, 1, 1, 2, 3, 4, 6, 6, 6, 7 };
        int failed = 0, all_failed = 0, kinks;
        double worst, largest = 0;
        for (k = 0; k < 10; k++) {
            number = 0;
            CHECK(sscanf(text, "%*d %*s %*s %d checked %d kinks %d failed, worst at %lf of the tolerance%n", &shown, &kinks, &failed, &worst, &number) == 4
                  && shown == counts[k] && !kinks, "%s", text);
            snprintf(sum, sizeof sum, "%2d  %-28s %-7s %4d checked %3d kinks %3d failed, worst at %.3f of the tolerance\n", numbers[k], rows[k][0], rows[k][1], counts[k], 0, failed, worst);
            CHECK(!strncmp(text, sum, strlen(sum)), "%.120s instead of %s", text, sum);
            CHECK(k == 3 ? failed == r.failed : !failed, "row %d: %d failed", k, failed);
            all_failed += failed;
            if (worst > largest) largest = worst;
            text += number + 1;
        }
        CHECK(!*text && all_failed == r.failed && fabs(largest - r.worst) < 6e-4, "%d failed, worst %g", all_failed, largest);
    }
}

/* A ReLU's input within the step h = (1 + |x|) / 1024 of 0 is a kink; so is a maximum that another value comes that near to. */
static void test_kinks(void)
{
    static float x[4];
    static int order[1];
    static const struct { float x[4]; int layer, kinks; } cases[] = {
        { { 1, -1, 0.5f, -0.5f }, 0, 0 }, { { 0.00097f, -0.00097f, 1, 1 }, 0, 2 }, { { 0.00099f, -0.00099f, 1, 0 }, 0, 1 },
        { { 1, 2, 3, 4 }, 1, 0 }, { { 1, 2, 4, 3.9976f }, 1, 0 + 2 }, { { 1, 2, 4, 3.9921f }, 1, 0 }, { { 1, 2, 4, 3.9976f }, 2, 0 },
        { { 0.0005f, -1, 1, -0.0005f }, 3, 2 }, { { 0.0005f, -1, 1, -0.0005f }, 4, 0 } };
    size_t k;
    for (k = 0; k < sizeof cases / sizeof *cases; k++) {
        cnn_net *net = cnn_new(1, 2, 2);
        cnn_data *data = cnn_data_new(.count = 1, .channels = 1, .height = 2, .width = 2, .floats = x, .targets = x, .outputs = 4);
        cnn_gradcheck_result r;
        cnn_batch batch;
        memcpy(x, cases[k].x, sizeof x);
        switch (cases[k].layer) {
        case 0: cnn_relu(net); break;
        case 1: cnn_max_pool2d(net, .kernel_size = 2); break;
        case 2: cnn_avg_pool2d(net, .kernel_size = 2); break;
        case 3: cnn_leaky_relu(net, .negative_slope = 0.5f); break;
        default: cnn_sigmoid(net);
        }
        batch.data = data; batch.order = order; batch.size = 1;
        r = cnn_gradcheck(net, &batch, 4, NULL);
        CHECK(r.kinks == cases[k].kinks && r.checked == 4 - cases[k].kinks && !r.failed, "case %d: %d kinks, %d checked, %d failed, worst %g", (int)k, r.kinks, r.checked, r.failed, r.worst);
        CHECK_FINE(net);
        cnn_free(net);
        cnn_data_free(data);
    }
}

int main(void)
{
    direct = cnn_find_backend("direct");
    folder_make();
    test_curves();
    test_late_test_set();
    test_summary();
    test_explain_conv();
    test_explain_pool();
    check_linear(5, 0);
    check_linear(12, 1);
    check_linear(13, 0);
    check_linear(40, 0);
    test_explain_others();
    test_explain_padding();
    test_explain_errors();
    test_doctor_epochs();
    test_doctor_repeats();
    test_doctor_dead();
    test_doctor_in_fit();
    test_gradcheck();
    test_kinks();
    folder_remove();
    return test_end("look");
}
