/* test_graph.c - branches: random graphs of layers, joined and forked, are calculated here once more in double, forward and
   backward, and every output and every gradient of every backend is compared. Then what a graph says, prints and refuses. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

enum { MOST = 24, N = 3, OUTPUTS = 4, ROOM = N * 12 * 8 * 8 };

typedef enum kind { SAMPLES, CONV, ACTIVATION, POOL, ADD, CONCAT, FLATTEN, LINEAR, SOFTMAX, NORM, PRELU, ADAPTIVE, PAD, DROPOUT } kind;

typedef struct node {
    kind kind;
    int a, b;                               /* the nodes it reads */
    int c, h, w;                            /* of its output */
    int size, stride, average;              /* of a kernel; pad: size / 2 for a convolution, 0 for pooling */
    int top, left;                          /* of zero padding */
    int slopes;                             /* of PReLU */
    cnn_activation f;
    int frozen;
    char name[16];
    double y[ROOM], dy[ROOM], weight[12 * 12 * 9 * 8], bias[16], dweight[12 * 12 * 9 * 8], dbias[16];
} node;

static node nodes[MOST];                    /* node i is place i */
static int count;
static double nearest;                      /* how near any value came to a kink of ReLU or max pooling */
static uint64_t seed;
static uint32_t draws;

static int below(int n)
{
    uint32_t r[4];
    cnn_random(r, seed, 77, 0, draws++);
    return (int)(r[0] % (uint32_t)n);
}

static double real(void) { return below(20001) / 10000.0 - 1; }

static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

/* ---- the same graph, in a network and here ---- */

static node *new_node(kind k, int a)
{
    node *n = &nodes[count++];
    memset(n, 0, sizeof *n);
    n->kind = k;
    n->a = a;
    n->c = nodes[a].c; n->h = nodes[a].h; n->w = nodes[a].w;
    snprintf(n->name, sizeof n->name, "n%d", count - 1);
    return n;
}

static int inputs_of(const node *n) { return nodes[n->a].c * (n->kind == LINEAR ? nodes[n->a].h * nodes[n->a].w : n->size * n->size); }

/* How many weights and biases it learns */
static int weights_of(const node *n)
{
    return n->kind == CONV || n->kind == LINEAR ? n->c * inputs_of(n) : n->kind == NORM ? n->c : n->kind == PRELU ? n->slopes : 0;
}

static int biases_of(const node *n) { return n->kind == CONV || n->kind == LINEAR || n->kind == NORM ? n->c : 0; }

static void random_layer(cnn_net *net, int here)
{
    int what = below(15), other = below(count);
    node *n;
    if (what == 0 && count > 2) {                          /* go on from elsewhere */
        cnn_from(net, other);
        here = other;
        CHECK(cnn_here(net) == other, "cnn_from(%d), but cnn_here is %d", other, cnn_here(net));
    }
    if (what <= 3) {
        static const cnn_activation all[] = { CNN_RELU, CNN_LEAKY_RELU, CNN_SIGMOID, CNN_TANH, CNN_GELU };
        cnn_activation f = all[below(5)];
        n = new_node(CONV, here);
        n->size = below(2) ? 3 : 1;
        n->stride = below(4) || n->h < 3 ? 1 : 2;
        n->c = 1 + below(6);
        n->h = (n->h - 1) / n->stride + 1; n->w = (n->w - 1) / n->stride + 1;
        n->frozen = !below(5);
        cnn_name(net, n->name);
        cnn_conv2d(net, .out_channels = n->c, .kernel_size = n->size, .stride = n->stride, .padding = n->size / 2);
        if (count == MOST - 4 || below(3) == 0) return;
        n = new_node(ACTIVATION, count - 1);
        n->f = f;
        cnn_name(net, n->name);
        if (f == CNN_RELU) cnn_relu(net); else if (f == CNN_SIGMOID) cnn_sigmoid(net); else if (f == CNN_TANH) cnn_tanh(net);
        else if (f == CNN_GELU) cnn_gelu(net);
        else cnn_leaky_relu(net, .negative_slope = .25f);
    } else if (what == 4 && nodes[here].h > 1 && nodes[here].w > 1) {
        n = new_node(POOL, here);
        n->average = below(2);
        n->size = n->stride = 2;
        n->h /= 2; n->w /= 2;
        cnn_name(net, n->name);
        if (n->average) cnn_avg_pool2d(net, .kernel_size = 2); else cnn_max_pool2d(net, .kernel_size = 2);
    } else if (what == 5) {
        n = new_node(SOFTMAX, here);
        cnn_name(net, n->name);
        cnn_softmax(net);
    } else if (what == 10) {
        n = new_node(NORM, here);
        cnn_name(net, n->name);
        cnn_batch_norm2d(net, .eps = .5f);
    } else if (what == 11) {
        n = new_node(PRELU, here);
        n->slopes = below(2) ? 1 : n->c;
        cnn_name(net, n->name);
        cnn_prelu(net, .num_parameters = n->slopes);
    } else if (what == 12) {
        n = new_node(ADAPTIVE, here);
        n->h = 1 + below(8); n->w = 1 + below(8);
        cnn_name(net, n->name);
        if (!below(3)) n->h = n->w = 1, cnn_global_avg_pool2d(net);
        else cnn_adaptive_avg_pool2d(net, .output_height = n->h, .output_width = n->w);
    } else if (what == 13 && nodes[here].h <= 5 && nodes[here].w <= 5) {
        n = new_node(PAD, here);
        n->top = below(3); n->left = below(3);
        n->h += n->top + 1; n->w += n->left;
        cnn_name(net, n->name);
        cnn_zero_pad2d(net, .padding_top = n->top, .padding_left = n->left, .padding_bottom = 1);
    } else if (what == 14) {
        n = new_node(DROPOUT, here);
        cnn_name(net, n->name);
        cnn_dropout(net, .p = .25f);
    } else {                                               /* a join with the last place that fits */
        int join = what < 8 ? ADD : CONCAT, b;
        for (b = other; b >= 0; b--) {
            const node *o = &nodes[b];
            if (o->h == nodes[here].h && o->w == nodes[here].w && (join == ADD ? o->c == nodes[here].c : o->c + nodes[here].c <= 12)) break;
        }
        if (b < 0) return;
        n = new_node((kind)join, here);
        n->b = b;
        cnn_name(net, n->name);
        if (join == ADD) cnn_add(net, b);
        else cnn_concat(net, b), n->c += nodes[b].c;
    }
}

static void copy_weights(cnn_net *net)
{
    static float w[12 * 12 * 9 * 8];
    char key[32];
    int i, k;
    for (i = 1; i < count; i++) {
        node *n = &nodes[i];
        if (!weights_of(n)) continue;
        snprintf(key, sizeof key, "%s.weight", n->name);
        for (k = 0; k < 16; k++) w[k] = (float)(real() + .5);              /* those of NORM and PRELU are alike */
        if (n->kind == NORM || n->kind == PRELU) cnn_set(net, key, w, (size_t)weights_of(n));
        cnn_get(net, key, w, sizeof w / sizeof *w);
        for (k = 0; k < weights_of(n); k++) n->weight[k] = (double)w[k];
        if (!biases_of(n)) continue;
        snprintf(key, sizeof key, "%s.bias", n->name);
        for (k = 0; k < 16; k++) w[k] = (float)real();
        if (n->kind == NORM) cnn_set(net, key, w, (size_t)n->c);
        cnn_get(net, key, w, 16);
        for (k = 0; k < n->c; k++) n->bias[k] = (double)w[k];
    }
}

/* ---- in double ---- */

static double value_of(const node *x, int n, int c, int j, int i)
{
    return j < 0 || i < 0 || j >= x->h || i >= x->w ? 0 : x->y[((n * x->c + c) * x->h + j) * x->w + i];
}

static void add_to(node *x, int n, int c, int j, int i, double d)
{
    if (j >= 0 && i >= 0 && j < x->h && i < x->w) x->dy[((n * x->c + c) * x->h + j) * x->w + i] += d;
}

static double *place_of(double *y, const node *o, int n, int c, int j, int i) { return y + ((n * o->c + c) * o->h + j) * o->w + i; }

/* The sum over channel k of x (0), (x - mean)^2 (1), dy (2) or dy (x - mean) (3) */
static double sum_over(const node *o, int k, int what, double mean)
{
    const node *a = &nodes[o->a];
    double sum = 0;
    int n, p;
    for (n = 0; n < N; n++)
        for (p = 0; p < a->h * a->w; p++) {
            double x = a->y[(n * a->c + k) * a->h * a->w + p], dy = o->dy[(n * a->c + k) * a->h * a->w + p];
            sum += what == 0 ? x : what == 1 ? (x - mean) * (x - mean) : what == 2 ? dy : dy * (x - mean);
        }
    return sum;
}

static void one_of_norm(node *o, int n, int k, int j, int i, int back)
{
    node *a = &nodes[o->a];
    double m = N * a->h * a->w, mean = sum_over(o, k, 0, 0) / m, inverse = 1 / sqrt(sum_over(o, k, 1, mean) / m + .5);
    double xh = (value_of(a, n, k, j, i) - mean) * inverse, d = *place_of(o->dy, o, n, k, j, i);
    if (!back) *place_of(o->y, o, n, k, j, i) = o->weight[k] * xh + o->bias[k];
    else {
        o->dbias[k] += d;
        o->dweight[k] += d * xh;
        add_to(a, n, k, j, i, o->weight[k] * inverse * (d - sum_over(o, k, 2, 0) / m - xh * inverse * sum_over(o, k, 3, mean) / m));
    }
}

static void one_of_adaptive(node *o, int n, int k, int j, int i, int back)
{
    node *a = &nodes[o->a];
    double sum = 0, d = *place_of(o->dy, o, n, k, j, i);
    int row, column, count_of = 0, pass;
    for (pass = 0; pass <= back; pass++)                   /* which pixels lie in it: those that overlap [j h / h', (j + 1) h / h') */
        for (row = 0; row < a->h; row++)
            for (column = 0; column < a->w; column++) {
                if ((row + 1) * o->h <= j * a->h || row * o->h >= (j + 1) * a->h) continue;
                if ((column + 1) * o->w <= i * a->w || column * o->w >= (i + 1) * a->w) continue;
                if (pass) add_to(a, n, k, row, column, d / count_of);
                else sum += value_of(a, n, k, row, column), count_of++;
            }
    if (!back) *place_of(o->y, o, n, k, j, i) = sum / count_of;
}

static double activation_slope_of(const node *o, double x, double y)
{
    switch (o->f) {
    case CNN_RELU: return x > 0;
    case CNN_LEAKY_RELU: return x > 0 ? 1 : .25;
    case CNN_SIGMOID: return y * (1 - y);
    case CNN_TANH: return 1 - y * y;
    default: return (1 + erf(x / sqrt(2))) / 2 + x * exp(-x * x / 2) / sqrt(2 * 3.14159265358979324);
    }
}

/* One output value, or what its gradient gives to the inputs and parameters */
static void one(node *o, int n, int k, int j, int i, int back)
{
    node *a = &nodes[o->a], *b = &nodes[o->b];
    double *y = place_of(o->y, o, n, k, j, i), d = *place_of(o->dy, o, n, k, j, i), v, sum, most;
    int c, p, q, pad = o->kind == CONV ? o->size / 2 : 0, at = 0, w = k * (o->kind == CONV || o->kind == LINEAR ? inputs_of(o) : 0);
    int area = a->h * a->w;
    switch (o->kind) {
    case CONV:
        if (back) o->dbias[k] += d; else *y = o->bias[k];
        for (c = 0; c < a->c; c++)
            for (p = 0; p < o->size; p++)
                for (q = 0; q < o->size; q++, w++) {
                    int row = j * o->stride + p - pad, column = i * o->stride + q - pad;
                    if (!back) *y += o->weight[w] * value_of(a, n, c, row, column);
                    else o->dweight[w] += d * value_of(a, n, c, row, column), add_to(a, n, c, row, column, d * o->weight[w]);
                }
        break;
    case LINEAR:
        if (back) o->dbias[k] += d; else *y = o->bias[k];
        for (c = 0; c < a->c * area; c++, w++)
            if (!back) *y += o->weight[w] * a->y[n * a->c * area + c];
            else o->dweight[w] += d * a->y[n * a->c * area + c], a->dy[n * a->c * area + c] += d * o->weight[w];
        break;
    case ACTIVATION:
        v = value_of(a, n, k, j, i);
        if (o->f <= CNN_LEAKY_RELU && fabs(v) < nearest) nearest = fabs(v);
        if (!back) *y = cnn__activation_at(o->f, .25, v);
        else add_to(a, n, k, j, i, d * activation_slope_of(o, v, *y));
        break;
    case POOL:
        for (most = -1e30, sum = 0, p = 0; p < 4; p++) {
            v = value_of(a, n, k, 2 * j + p / 2, 2 * i + p % 2);
            sum += v / 4;
            if (v > most) most = v, at = p;
            if (back && o->average) add_to(a, n, k, 2 * j + p / 2, 2 * i + p % 2, d / 4);
        }
        for (p = 0; p < 4 && !o->average; p++)
            if (p != at && most - value_of(a, n, k, 2 * j + p / 2, 2 * i + p % 2) < nearest && value_of(a, n, k, 2 * j + p / 2, 2 * i + p % 2) != most)
                nearest = most - value_of(a, n, k, 2 * j + p / 2, 2 * i + p % 2);
        if (!back) *y = o->average ? sum : most;
        else if (!o->average) add_to(a, n, k, 2 * j + at / 2, 2 * i + at % 2, d);
        break;
    case SOFTMAX:
        for (sum = 0, c = 0; c < a->c; c++) sum += back ? *place_of(o->dy, o, n, c, j, i) * *place_of(o->y, o, n, c, j, i) : exp(value_of(a, n, c, j, i));
        if (!back) *y = exp(value_of(a, n, k, j, i)) / sum;
        else add_to(a, n, k, j, i, *y * (d - sum));
        break;
    case ADD:
        if (!back) *y = value_of(a, n, k, j, i) + value_of(b, n, k, j, i);
        else add_to(a, n, k, j, i, d), add_to(b, n, k, j, i, d);
        break;
    case CONCAT:
        c = k - a->c;
        if (!back) *y = c < 0 ? value_of(a, n, k, j, i) : value_of(b, n, c, j, i);
        else add_to(c < 0 ? a : b, n, c < 0 ? k : c, j, i, d);
        break;
    case FLATTEN:
        if (!back) *y = a->y[n * o->c + k];
        else a->dy[n * o->c + k] += d;
        break;
    case NORM: one_of_norm(o, n, k, j, i, back); break;
    case ADAPTIVE: one_of_adaptive(o, n, k, j, i, back); break;
    case PRELU:
        v = value_of(a, n, k, j, i);
        if (fabs(v) < nearest && v != 0) nearest = fabs(v);
        w = o->slopes > 1 ? k : 0;
        if (!back) *y = v > 0 ? v : o->weight[w] * v;
        else {
            add_to(a, n, k, j, i, v > 0 ? d : o->weight[w] * d);
            if (v <= 0) o->dweight[w] += v * d;
        }
        break;
    case PAD:
        if (!back) *y = value_of(a, n, k, j - o->top, i - o->left);
        else add_to(a, n, k, j - o->top, i - o->left, d);
        break;
    case DROPOUT:                                           /* the mask of the first pass; layer i is place i + 1 */
        at = ((n * o->c + k) * o->h + j) * o->w + i;
        sum = cnn__unit(cnn__word(seed, (uint32_t)(o - nodes - 1), 1, (size_t)at)) >= .25f ? 1 / .75 : 0;
        if (!back) *y = sum * value_of(a, n, k, j, i);
        else add_to(a, n, k, j, i, sum * d);
        break;
    default: break;
    }
}

static void evaluate(int back)
{
    int m, n, k, j, i;
    for (m = back ? count - 1 : 1; back ? m > 0 : m < count; m += back ? -1 : 1)
        for (n = 0; n < N; n++)
            for (k = 0; k < nodes[m].c; k++)
                for (j = 0; j < nodes[m].h; j++)
                    for (i = 0; i < nodes[m].w; i++) one(&nodes[m], n, k, j, i, back);
}

/* ---- comparing ---- */

static double difference(const float *is, const double *should, int n)
{
    double most = 1e-2, worst = 0;             /* before a normalisation the sum of a bias's gradient is 0, all rounding */
    int i;
    for (i = 0; i < n; i++) if (fabs(should[i]) > most) most = fabs(should[i]);
    for (i = 0; i < n; i++) if (!(fabs((double)is[i] - should[i]) <= worst)) worst = fabs((double)is[i] - should[i]);
    return worst / most;
}

static void compare(cnn_net *net, const char *key, const double *should, int n, const char *backend)
{
    static float is[ROOM + 12 * 12 * 9 * 8];
    size_t got = cnn_get(net, key, is, sizeof is / sizeof *is);
    CHECK(got == (size_t)n && difference(is, should, n) < 2e-5, "seed %d, %s: %s has %d values, not %d, off by %g: %s", (int)seed, backend, key, (int)got, n,
          difference(is, should, n), error_of(net));
}

static cnn_net *random_graph(const char *backend)
{
    cnn_net *net;
    node *n;
    draws = 0;
    count = 1;
    memset(&nodes[0], 0, sizeof nodes[0]);
    nodes[0].c = 1 + below(3); nodes[0].h = 1 + below(8); nodes[0].w = 1 + below(8);
    net = cnn_new(nodes[0].c, nodes[0].h, nodes[0].w);
    cnn_to(net, backend);
    cnn_manual_seed(net, seed);
    while (count < MOST - 4) {
        int before = count;
        random_layer(net, cnn_here(net));
        if (count > before) CHECK(cnn_here(net) == count - 1, "place %d, not %d: %s", cnn_here(net), count - 1, error_of(net));
        if (count > 6 && !below(6)) break;
    }
    n = new_node(FLATTEN, cnn_here(net));
    n->c *= n->h * n->w; n->h = n->w = 1;
    cnn_name(net, n->name);
    cnn_flatten(net);
    n = new_node(LINEAR, count - 1);
    n->c = OUTPUTS;
    cnn_name(net, n->name);
    cnn_linear(net, .out_features = OUTPUTS);
    return net;
}

/* ---- the drawing in the report: its boxes and lines, read back from the SVG ---- */

typedef struct box { int x, y, width, height; } box;
typedef struct line { int x0, y0, lane, x1, y1; } line;    /* lane: where it goes down */

/* The box on whose border (x, y) lies; -1: none */
static int box_at(const box *boxes, int n, int x, int y)
{
    int i;
    for (i = 0; i < n; i++) {
        const box *b = &boxes[i];
        if (x >= b->x && x <= b->x + b->width && y >= b->y && y <= b->y + b->height
            && (x == b->x || x == b->x + b->width || y == b->y || y == b->y + b->height)) return i;
    }
    return -1;
}

/* Reads one line; what follows it, or NULL */
static const char *read_line(const char *at, line *l)
{
    int end = 0;
    if (sscanf(at, "<path d=\"M%d %dV%d\"/>\n%n", &l->x0, &l->y0, &l->y1, &end) == 3 && end) {
        l->lane = l->x1 = l->x0;
        return at + end;
    }
    if (sscanf(at, "<path d=\"M%d %dH%dq6 0 6 6V%dq0 6 -6 6H%dl4 -3m-4 3l4 3\"/>\n%n", &l->x0, &l->y0, &l->lane, &l->y1, &l->x1, &end) != 5 || !end) return NULL;
    l->lane += 6;
    l->y1 += 6;
    return at + end;
}

/* names: as SVG writes them */
static void check_drawing(cnn_net *net, const node *all, int n, const char *const *names)
{
    static box boxes[MOST];
    static line lines[2 * MOST];
    int found[MOST][MOST], width, view, height, end = 0, number, drawn = 0, edges = 0, i, k;
    int name = 5, kind = 0, longest = 0, right = 0, y, number_at, name_at, kind_at, shape_at;
    FILE *file = tmpfile();
    const char *text, *at, *next;
    char expected[300], shape[64];
    memset(found, 0, sizeof found);
    cnn__report_graph(file, net);
    at = text = text_of(file);
    CHECK(sscanf(at, "<svg class=\"graph\" role=\"img\" width=\"%d\" viewBox=\"0 0 %d %d\">\n%n", &width, &view, &height, &end) == 3 && view == width && end, "seed %d: %.200s", (int)seed, at);
    snprintf(expected, sizeof expected, "<title>The network's graph</title><desc>%d layers from top to bottom, and what each reads</desc>\n", n - 1);
    CHECK(!strncmp(at + end, expected, strlen(expected)), "seed %d: %.200s", (int)seed, at + end);
    for (i = 0; i < n; i++) {                               /* the longest of each column */
        int flat = all[i].kind == FLATTEN || all[i].kind == LINEAR;
        int length = snprintf(shape, sizeof shape, flat ? "%d" : "%d x %d x %d", all[i].c, all[i].h, all[i].w);
        if (length > longest) longest = length;
        if (i && (int)strlen(net->layers[i - 1].name) > name) name = (int)strlen(net->layers[i - 1].name);
        if (i && (int)strlen(net->layers[i - 1].type) > kind) kind = (int)strlen(net->layers[i - 1].type);
    }
    for (at += end + (int)strlen(expected), i = 0; i < n; i++) {
        box *b = &boxes[i];
        int flat = all[i].kind == FLATTEN || all[i].kind == LINEAR, learns;
        end = 0;
        CHECK(sscanf(at, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"%n", &b->x, &b->y, &b->width, &b->height, &end) == 4, "seed %d: box %d: %.200s", (int)seed, i, at);
        at += end;
        learns = !strncmp(at, " class=\"learns\"", 15);
        CHECK(learns == (all[i].kind == CONV || all[i].kind == LINEAR || all[i].kind == NORM || all[i].kind == PRELU), "seed %d: box %d: %.200s", (int)seed, i, at);
        at = strstr(at, "/><text ");
        CHECK(at && sscanf(at, "/><text y=\"%d\"><tspan x=\"%d\" text-anchor=\"end\">%d</tspan><tspan x=\"%d\">%n", &y, &number_at, &number, &name_at, &end) == 4 && number == i, "seed %d: box %d: %.200s", (int)seed, i, at);
        at += end;
        snprintf(shape, sizeof shape, flat ? "%d" : "%d x %d x %d", all[i].c, all[i].h, all[i].w);
        snprintf(expected, sizeof expected, "%s</tspan>", i ? names[i] : "input");
        CHECK(!strncmp(at, expected, strlen(expected)), "seed %d: box %d: %.200s, not %s", (int)seed, i, at, expected);
        at = strstr(at, "<tspan");
        CHECK(at && sscanf(at, "<tspan x=\"%d\"", &kind_at) == 1, "seed %d: box %d", (int)seed, i);
        snprintf(expected, sizeof expected, ">%s</tspan><tspan x=", i ? net->layers[i - 1].type : "");
        CHECK(at && !strncmp(strchr(at, '>'), expected, strlen(expected)), "seed %d: box %d: %.200s, not %s", (int)seed, i, at, expected);
        at = strstr(at + 1, "<tspan");
        snprintf(expected, sizeof expected, " text-anchor=\"end\">%s</tspan></text>\n", shape);
        next = at ? strstr(at, expected) : NULL;
        CHECK(next && next == strchr(at + 7, ' '), "seed %d: box %d: %.200s, not %s", (int)seed, i, at, expected);
        if (!next) return;
        sscanf(at, "<tspan x=\"%d\"", &shape_at);         /* a letter takes 7 pixels, and 14 are between the columns */
        CHECK(b->x == 36 && b->y == 22 * i + 5 && b->height == 16 && y == b->y + 12 && number_at == 28 && name_at == 43 && kind_at == name_at + 7 * name + 14
              && shape_at == kind_at + 7 * (kind + longest) + 14 && b->x + b->width == shape_at + 21, "seed %d: box %d: texts at %d, %d, %d, %d, %d", (int)seed, i, y, number_at, name_at, kind_at, shape_at);
        at = next + strlen(expected);
        while (edges < 2 * MOST && (next = read_line(at, &lines[edges])) != NULL) at = next, edges++;
    }
    CHECK(!strcmp(at, "</svg>\n"), "seed %d: after the last box: %.200s", (int)seed, at);

    for (i = 1; i < n; i++) {
        const box *a = &boxes[i - 1], *b = &boxes[i];
        CHECK(a->x == b->x && a->width == b->width && a->y + a->height < b->y, "seed %d: boxes %d and %d", (int)seed, i - 1, i);
    }
    CHECK(boxes[n - 1].y + boxes[n - 1].height < height && boxes[0].y >= 0 && boxes[0].x + boxes[0].width < width, "seed %d: boxes without", (int)seed);
    for (right = boxes[0].x + boxes[0].width, i = 0; i < edges; i++) if (lines[i].lane > right) right = lines[i].lane;
    CHECK(width == right + 10 && height == 22 * n, "seed %d: %d x %d pixels, but the last line is at %d", (int)seed, width, height, right);
    for (i = 0; i < edges; i++) {
        const line *l = &lines[i];
        int from = box_at(boxes, n, l->x0, l->y0), to = box_at(boxes, n, l->x1, l->y1), straight = l->lane == l->x0;
        CHECK(from >= 0 && to > from, "seed %d: line %d from (%d, %d) to (%d, %d) joins boxes %d and %d", (int)seed, i, l->x0, l->y0, l->x1, l->y1, from, to);
        if (from < 0 || to < 0) continue;
        found[from][to]++;
        CHECK(straight ? to == from + 1 && l->y0 == boxes[from].y + boxes[from].height && l->y1 == boxes[to].y
                       : to > from + 1 && l->x0 == boxes[0].x + boxes[0].width && l->x1 == l->x0 && l->lane > l->x0 && l->lane < width
                         && l->y0 == boxes[from].y + 11 && l->y1 == boxes[to].y + 5,
              "seed %d: line %d from box %d to %d goes through boxes", (int)seed, i, from, to);
        for (k = 0; k < i; k++)
            CHECK(lines[k].lane != l->lane || lines[k].y1 < l->y0 || l->y1 < lines[k].y0,
                  "seed %d: lines %d and %d share a lane", (int)seed, k, i);
    }
    for (i = 1; i < n; i++) {
        int two = all[i].kind == ADD || all[i].kind == CONCAT;
        found[all[i].a][i]--;
        if (two) found[all[i].b][i]--;
        drawn += 1 + two;
    }
    for (i = 0; i < n; i++) for (k = 0; k < n; k++) CHECK(!found[i][k], "seed %d: %d lines too many from %d to %d", (int)seed, found[i][k], i, k);
    CHECK(edges == drawn, "seed %d: %d lines, not %d", (int)seed, edges, drawn);
}

static int compare_graph(const char *backend)
{
    static float x[ROOM], target[N * OUTPUTS];
    static const int order[N] = { 2, 0, 1 };
    cnn_net *net = random_graph(backend);
    int size = nodes[0].c * nodes[0].h * nodes[0].w, i, k, usable;
    cnn_data *data;
    cnn_batch batch;
    char key[32];
    for (i = 0; i < N * size; i++) x[i] = (float)real();
    for (i = 0; i < N * OUTPUTS; i++) target[i] = (float)real();
    data = cnn_data_new(.count = N, .channels = nodes[0].c, .height = nodes[0].h, .width = nodes[0].w, .floats = x, .targets = target, .outputs = OUTPUTS);
    batch.data = data; batch.order = order; batch.size = N;
    for (i = 1; i < count; i++) if (nodes[i].frozen) cnn_requires_grad(net, nodes[i].name, 0);
    copy_weights(net);
    for (k = 0; k < N; k++) for (i = 0; i < size; i++) nodes[0].y[k * size + i] = (double)x[order[k] * size + i];
    nearest = 1;
    evaluate(0);
    for (k = 0; k < N; k++)
        for (i = 0; i < OUTPUTS; i++)
            nodes[count - 1].dy[k * OUTPUTS + i] = 2 * (nodes[count - 1].y[k * OUTPUTS + i] - (double)target[order[k] * OUTPUTS + i]) / (N * OUTPUTS);
    evaluate(1);
    cnn_forward(net, &batch);
    cnn_mse_loss(net, &batch);
    cnn_zero_grad(net);
    cnn_backward(net);
    CHECK(!cnn_error(net), "seed %d, %s: %s", (int)seed, backend, error_of(net));
    usable = nearest > 1e-5;                               /* a kink: float and double may fall on different sides of it */
    for (i = 1; i < count; i++) compare(net, nodes[i].name, nodes[i].y, N * nodes[i].c * nodes[i].h * nodes[i].w, backend);
    for (i = 1; i < count && usable; i++) {
        node *n = &nodes[i];
        if (!weights_of(n)) continue;
        if (n->frozen) memset(n->dweight, 0, sizeof n->dweight), memset(n->dbias, 0, sizeof n->dbias);
        snprintf(key, sizeof key, "%s.weight.grad", n->name);
        compare(net, key, n->dweight, weights_of(n), backend);
        if (!biases_of(n)) continue;
        snprintf(key, sizeof key, "%s.bias.grad", n->name);
        compare(net, key, n->dbias, n->c, backend);
    }
    if (!strcmp(backend, "direct")) {
        const char *names[MOST];
        for (i = 0; i < count; i++) names[i] = nodes[i].name;
        check_drawing(net, nodes, count, names);
    }
    if (seed % 10 == 0) {
        cnn_gradcheck_result r = cnn_gradcheck(net, &batch, 4, NULL);
        CHECK(!r.failed && r.checked > 0, "seed %d, %s: gradcheck: %d failed at %s", (int)seed, backend, r.failed, r.where);
    }
    cnn_free(net);
    cnn_data_free(data);
    return usable;
}

/* ---- what is said of a graph ---- */

static cnn_net *residual(void)
{
    cnn_net *net = cnn_new(2, 6, 6);
    int x;
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    x = cnn_here(net);
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_add(net, x);
    cnn_relu(net);
    cnn_concat(net, 0);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 3);
    return net;
}

static void says(cnn_net *net, const char *what)
{
    CHECK(strstr(error_of(net), what), "\"%s\" instead of \"%s\"", error_of(net), what);
    cnn_free(net);
}

static void test_sentences(void)
{
    cnn_net *net = residual();
    cnn_add(net, 12);
    says(net, "cnn_add: there is no place 12; cnn_here gives them, from 0, the samples, to 9, the last layer so far");
    net = residual();
    cnn_from(net, -1);
    says(net, "cnn_from: there is no place -1");
    net = residual();
    cnn_add(net, 1);
    says(net, "layer 10 (add): adds two outputs of one shape, but here are 3 and at place 1 are 4 x 6 x 6");
    net = residual();
    cnn_concat(net, 1);
    says(net, "layer 10 (concat): joins the channels of maps of one size, but here are 3 and at place 1 are 4 x 6 x 6");
    net = cnn_new(1500000000, 1, 1);
    cnn_relu(net);
    cnn_concat(net, 0);
    says(net, "layer 2 (concat): 1500000000 and 1500000000 channels are too many");
    net = residual();
    cnn_from(net, 2);
    cnn_linear(net, .out_features = 3);
    says(net, "layer 10 (linear): needs a flat input, but gets 4 x 6 x 6");
    CHECK(cnn_here(NULL) == 0, "a place in no network");
}

static void test_looks(void)
{
    cnn_net *net = residual();
    static float x[2 * 2 * 36], y[2 * 6 * 36], conv[2 * 4 * 36], first[2 * 4 * 36];
    static int labels[2] = { 0, 2 };
    const int order[2] = { 0, 1 };
    FILE *out = tmpfile();
    const char *text;
    char expected[200];
    cnn_data *data;
    cnn_batch batch;
    int i;
    for (i = 0; i < 144; i++) x[i] = (float)real();
    data = cnn_data_new(.count = 2, .channels = 2, .height = 6, .width = 6, .floats = x, .labels = labels, .classes = 3);
    batch.data = data; batch.order = order; batch.size = 2;
    cnn_summary(net, out);
    text = text_of(out);
    CHECK(strstr(text, "\n 0  input  ") && strstr(text, "\n 4  3 (conv2d)  ") && strstr(text, "\n 5  add5 (add) from 4, 1  ") && strstr(text, "\n 6  4 (relu)  ")
          && strstr(text, "\n 7  concat7 (concat) from 6, 0 "),
          "summary:\n%s", text);
    cnn_forward(net, &batch);
    CHECK(net->op_count == 7, "%d operations: conv; conv + relu; conv; add; relu; concat; linear", net->op_count);
    cnn_get(net, "concat7", y, sizeof y / sizeof *y);
    cnn_get(net, "3", conv, sizeof conv / sizeof *conv);
    cnn_get(net, "0", first, sizeof first / sizeof *first);
    CHECK(y[4 * 36 + 7] == x[7] && y[6 * 36 + 5 * 36 + 3] == x[72 + 36 + 3], "concat: %g, %g", (double)y[4 * 36 + 7], (double)y[6 * 36 + 5 * 36 + 3]);
    out = tmpfile();
    cnn_explain(net, "add5", 1, 2, 3, out);
    text = text_of(out);
    snprintf(expected, sizeof expected, "layer 5 (add \"add5\"): y = a + b, b from place 1\n  %.6f + %.6f = %.6f\n", (double)conv[36 + 2 * 6 + 3],
             (double)first[36 + 2 * 6 + 3], (double)conv[36 + 2 * 6 + 3] + (double)first[36 + 2 * 6 + 3]);
    CHECK(!strcmp(text, expected), "explain: %s, not %s", text, expected);
    out = tmpfile();
    cnn_explain(net, "concat7", 5, 2, 3, out);
    text = text_of(out);
    snprintf(expected, sizeof expected, "layer 7 (concat \"concat7\"): channel 1 of place 0: %.6f\n", (double)x[36 + 2 * 6 + 3]);
    CHECK(!strcmp(text, expected), "explain: %s, not %s", text, expected);
    cnn_cross_entropy(net, &batch);
    cnn_zero_grad(net);
    cnn_backward(net);
    CHECK(net->pass.flow_count == 3, "%d gradients at a time, not 3", net->pass.flow_count);
    CHECK(!cnn_error(net), "%s", error_of(net));
    cnn_free(net);
    net = cnn_new(2, 6, 6);                                 /* a chain takes two, as ever */
    for (i = 0; i < 5; i++) { cnn_conv2d(net, .out_channels = 2, .kernel_size = 1); cnn_tanh(net); }
    cnn_flatten(net);
    cnn_linear(net, .out_features = 3);
    cnn_forward(net, &batch);
    cnn_cross_entropy(net, &batch);
    cnn_backward(net);
    CHECK(net->pass.flow_count == 2, "a chain takes %d", net->pass.flow_count);
    cnn_free(net);
    cnn_data_free(data);
}

/* The table keeps to 80 columns: a name too long for its column has a line of its own, and the numbers stand below those of the others. */
static void test_summary(void)
{
    cnn_net *net = cnn_new(3, 224, 224);
    FILE *out = tmpfile();
    const char *text, *line, *end;
    cnn_name(net, "a.name.longer.than.its.column.that.goes.on.and.on");
    cnn_conv2d(net, .out_channels = 64, .kernel_size = 7, .stride = 2, .padding = 3);
    cnn_name(net, "layer2.0.downsample.0");
    cnn_from(net, 0);
    cnn_conv2d(net, .out_channels = 64, .kernel_size = 1, .stride = 2);
    cnn_add(net, cnn_here(net));
    cnn_summary(net, out);
    text = text_of(out);
    CHECK(strstr(text, "\n 1  a.name.longer.than.its.column.that.goes.on.and.on (conv2d)\n  ")
          && strstr(text, "\n 2  layer2.0.downsample.0 (conv2d) from 0\n  ") && strstr(text, "\n 3  add3 (add) from 2, 2 "), "summary:\n%s", text);
    for (line = text; (end = strchr(line, '\n')) != NULL; line = end + 1)
        CHECK(end - line == (strstr(text, "bytes") + 5 - text) || end[-1] == ')' || end[-1] == '0', "a row of %d columns:\n%s", (int)(end - line), text);
    CHECK(strchr(text, '\n') - text <= 80, "%d columns", (int)(strchr(text, '\n') - text));
    cnn_free(net);
    net = cnn_new(1, 2, 2);                                 /* the first name is the longest, and the column as wide */
    cnn_name(net, "the.longest.of.them");
    cnn_relu(net);
    cnn_flatten(net);
    out = tmpfile();
    cnn_summary(net, out);
    text = text_of(out);
    CHECK(!strcmp(text, "    layer                            output parameters multiply-adds    bytes\n"
                        " 0  input                         1 x 2 x 2                                16\n"
                        " 1  the.longest.of.them (relu)    1 x 2 x 2                                16\n"
                        " 2  0 (flatten)                           4                                16\n"
                        "    total, for one sample                            0             0       48\n"), "summary:\n%s", text);
    cnn_free(net);
}

/* One shortcut within another takes the lane nearer to the boxes, and the next one takes it again; a name is escaped. */
static void test_drawing(void)
{
    static node all[7];
    static const char *const names[7] = { "input", "&lt;a &amp; &quot;b&quot;&gt;", "1", "0", "add4", "add5", "add6" };
    static const int read[7][2] = { { 0, 0 }, { 0, 0 }, { 1, 0 }, { 2, 0 }, { 3, 1 }, { 4, 0 }, { 5, 5 } };
    FILE *file = tmpfile();
    const char *text;
    int right = 0, outer = 0, inner = 0, i;
    cnn_net *net = cnn_new(2, 4, 4);
    for (i = 0; i < 7; i++) {
        all[i].kind = i > 3 ? ADD : i == 3 ? ACTIVATION : i ? CONV : SAMPLES;
        all[i].a = read[i][0]; all[i].b = read[i][1];
        all[i].c = 2; all[i].h = all[i].w = 4;
    }
    cnn_name(net, "<a & \"b\">");
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 1);
    cnn_name(net, "1");
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 1);
    cnn_relu(net);
    cnn_add(net, 1);
    cnn_add(net, 0);
    cnn_add(net, 5);
    CHECK(cnn_num_parameters(net) == 12, "%s", error_of(net));
    check_drawing(net, all, 7, names);
    cnn__report_graph(file, net);
    text = text_of(file);
    text = strstr(text, "H");
    CHECK(text && sscanf(text, "H%dq6 0 6 6V%*dq0 6 -6 6H%d", &inner, &right) == 2 && (text = strstr(text + 1, "l4 3\"/>\n")) != NULL
          && (text = strstr(text, "H")) != NULL && sscanf(text, "H%dq", &outer) == 1 && right < inner && inner < outer, "lanes %d and %d", inner, outer);
    cnn_free(net);
}

static void test_saved(void)
{
    cnn_net *net = residual(), *other = residual();
    float a[6], b[6];
    const char *path = in_folder("graph.pth");
    cnn_manual_seed(other, 5);
    cnn_set(net, "3.bias", (const float[]){ 1, 2, 3, 4 }, 4);
    CHECK(cnn_save(net, path) && cnn_load(other, path) && cnn_get(other, "3.bias", b, 6) == 4 && cnn_get(net, "3.bias", a, 6) == 4 && b[3] == 4 && a[0] == 1,
          "%s, %s", error_of(net), error_of(other));
    remove(path);
    cnn_free(net);
    cnn_free(other);
}

int main(void)
{
    static const char *const backends[] = { "direct", "simd", "cuda", "cuda_naive" };
    int graphs = getenv("CNN_TEST_SHORT") ? 60 : 400, used = 0, k;
    folder_make();
    for (seed = 1; seed <= (uint64_t)graphs; seed++)
        for (k = 0; k < 4; k++)
            if (cnn_find_backend(backends[k])) used += compare_graph(backends[k]) && k == 0;
    CHECK(used > graphs * 8 / 10, "%d of %d graphs were far enough from kinks", used, graphs);
    printf("%d random graphs, forward; %d of them backward\n", graphs, used);
    seed = 1;
    test_sentences();
    test_looks();
    test_summary();
    test_drawing();
    test_saved();
    folder_remove();
    return test_end("graph");
}
