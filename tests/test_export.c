/* test_export.c - networks written as C by cnn_export_c, compiled with warnings as errors, and run: every layer with every
   option, and random chains. Their outputs are cnn_predict's. The compiler is $CC, or cc. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "folder.h"

enum { SAMPLES = 2, MOST = 110, VALUES = 1 << 15, STREAM = 77 };

static const char *error_of(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "nothing"; }

static uint32_t seed, drawn;

static int draw(int count)                                  /* 0 .. count - 1 */
{
    uint32_t words[4];
    cnn_random(words, seed, STREAM, 0, drawn++);
    return (int)(words[0] % (uint32_t)count);
}

/* ---- networks ---- */

static void conv(cnn_net *net, cnn_conv2d_options o) { cnn_conv2d_with(net, o); }

static cnn_net *lenet(void)
{
    cnn_net *net = cnn_new(1, 28, 28);
    cnn_block(net, "features");
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 5, .padding = 2);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 5);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 84);
    cnn_relu(net);
    cnn_dropout(net, .p = .5f);
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = 10);
    return net;
}

/* Batch normalisation's numbers as training could leave them, with variances near eps among them */
static void trained(cnn_net *net)
{
    static const char *const names[] = { "running_mean", "running_var", "weight", "bias" };
    float values[100];
    int n, i, k;
    for (n = 0; n < net->layer_count; n++) {
        const cnn__layer *l = &net->layers[n];
        for (i = 0; i < l->buffer_count + l->tensor_count && l->buffer_count; i++) {
            char key[40];
            snprintf(key, sizeof key, "%d.%s", n, names[i]);
            for (k = 0; k < l->in.channels; k++) values[k] = (float)(i == 1 ? draw(4) * draw(4) : draw(40) - 20) / 10;
            CHECK(cnn_set(net, key, values, (size_t)l->in.channels), "%s", error_of(net));
        }
    }
}

/* Layer by layer, each option at least once; NULL after the last. */
static cnn_net *fixed(int i)
{
    static const cnn_conv2d_options convolutions[] = {
        { .out_channels = 3, .kernel_size = 3, .padding = CNN_SAME },
        { .out_channels = 4, .kernel_size = 3, .padding = 2, .padding_mode = CNN_REPLICATE },
        { .out_channels = 2, .kernel_height = 5, .kernel_width = 2, .padding = 3, .padding_mode = CNN_REFLECT },
        { .out_channels = 2, .kernel_height = 2, .kernel_width = 4, .padding_height = 1, .padding_width = 4, .padding_mode = CNN_CIRCULAR },
        { .out_channels = 6, .kernel_size = 3, .groups = 2, .padding = 1, .no_bias = 1 },
        { .out_channels = 4, .kernel_size = 2, .groups = 4, .stride_height = 2, .stride_width = 3 },
        { .out_channels = 3, .kernel_size = 3, .dilation_height = 2, .dilation_width = 3, .padding_height = 2, .stride = 2 },
        { .out_channels = 2, .kernel_size = 4, .padding = CNN_SAME, .padding_mode = CNN_CIRCULAR, .dilation_width = 2 },
        { .out_channels = 5, .kernel_size = 1, .stride = 100 }
    };
    static const cnn_pool2d_options pools[] = {
        { .kernel_size = 2 }, { .kernel_size = 3, .stride = 2, .padding = 1 }, { .kernel_size = 3, .stride = 2, .ceil_mode = 1 },
        { .kernel_height = 2, .kernel_width = 3, .stride = 2, .padding_width = 1, .ceil_mode = 1 },
        { .kernel_size = 3, .stride = 2, .padding = 1, .exclude_padding = 1 },
        { .kernel_size = 4, .stride = 3, .padding = 2, .exclude_padding = 1, .ceil_mode = 1 },
        { .kernel_size = 3, .stride = 3, .padding = 1, .ceil_mode = 1 }
    };
    enum { C = sizeof convolutions / sizeof *convolutions, P = sizeof pools / sizeof *pools };
    cnn_net *net;
    if (i < C) {
        net = cnn_new(4, 9, 8);
        conv(net, convolutions[i]);
        return net;
    }
    i -= C;
    if (i < 2 * P) {
        net = cnn_new(2, 10, 8);
        if (i < P) cnn_max_pool2d_with(net, pools[i]);
        else cnn_avg_pool2d_with(net, pools[i - P]);
        return net;
    }
    i -= 2 * P;
    if (i < 12) {                                           /* along the width */
        net = cnn_new(4, 1, 19);
        if (i < 4)
            cnn_conv1d(net, .out_channels = 6, .kernel_size = 4, .stride = 2, .padding = 3, .groups = 2,
                       .padding_mode = (cnn_padding_mode)i, .no_bias = i == 1);
        else if (i == 4) cnn_conv1d(net, .out_channels = 3, .kernel_size = 3, .dilation = 4);
        else if (i < 8)
            cnn_max_pool1d(net, .kernel_size = 4, .stride = 3, .padding = i == 5 ? 2 : CNN_ZERO, .ceil_mode = i == 6);
        else
            cnn_avg_pool1d(net, .kernel_size = 4, .stride = 3, .padding = i % 2 ? 2 : CNN_ZERO, .ceil_mode = i >= 10,
                           .exclude_padding = i == 11);
        return net;
    }
    i -= 12;
    net = cnn_new(3, 5, 4);
    switch (i) {
    case 0: cnn_relu(net); return net;
    case 1: cnn_leaky_relu(net, 0); return net;
    case 2: cnn_leaky_relu(net, .negative_slope = .3f); return net;
    case 3: cnn_sigmoid(net); return net;
    case 4: cnn_tanh(net); cnn_tanh(net); cnn_relu(net); return net;
    case 5: cnn_softmax(net); return net;                   /* over the channels of each pixel */
    case 6: cnn_flatten(net); cnn_softmax(net); cnn_flatten(net); return net;
    case 7: cnn_flatten(net); return net;
    case 8: cnn_dropout(net, .p = .5f); cnn_flatten(net); cnn_linear(net, .out_features = 7, .no_bias = 1); cnn_dropout(net, .p = .1f); return net;
    case 9: cnn_global_avg_pool2d(net); cnn_linear(net, .out_features = 3); return net;
    case 10: cnn_avg_pool2d(net, .kernel_size = 2); cnn_global_avg_pool2d(net); cnn_flatten(net); return net;
    case 11: conv(net, convolutions[0]); cnn_relu(net); return net;
    case 12: cnn_free(net); return lenet();
    case 13: cnn_gelu(net); return net;
    case 14: cnn_prelu(net, .init = .3f); cnn_conv2d(net, .out_channels = 2, .kernel_size = 1); cnn_prelu(net, .num_parameters = 2); return net;
    case 15: cnn_zero_pad2d(net, .padding_left = 1, .padding_right = 2, .padding_top = 3); return net;
    case 16: cnn_adaptive_avg_pool2d(net, .output_size = 3); return net;       /* 5 x 4: windows that share */
    case 17: cnn_adaptive_avg_pool2d(net, .output_height = 5, .output_width = 2); return net;      /* and that do not */
    case 18: cnn_adaptive_avg_pool2d(net, .output_height = 7, .output_width = 6); return net;      /* larger than it was */
    case 19: cnn_batch_norm2d(net, 0); trained(net); return net;
    case 20: cnn_batch_norm2d(net, .no_affine = 1, .eps = .25f); cnn_relu(net); trained(net); return net;
    case 21: cnn_flatten(net); cnn_batch_norm1d(net, .eps = 1e-3f); trained(net); return net;
    case 22: conv(net, convolutions[0]); cnn_batch_norm2d(net, 0); cnn_relu(net); trained(net); return net;
    default: cnn_free(net); return NULL;
    }
}

/* The output here joined with that of a place drawn, if they fit: channels behind channels, or a sum */
static void join(cnn_net *net)
{
    int place = draw(net->layer_count + 1);
    cnn__dims here, there;
    if (cnn_error(net)) return;
    here = cnn__dims_at(net, net->here);
    there = cnn__dims_at(net, place - 1);
    if (!memcmp(&here, &there, sizeof here) && draw(2)) cnn_add(net, place);
    else if (here.height == there.height && here.width == there.width) cnn_concat(net, place);
    else cnn_add(net, cnn_here(net));
}

/* Up to six layers with options drawn, and joins between them; NULL where they do not fit. */
static cnn_net *random_net(void)
{
    cnn_net *net = cnn_new(1 + draw(6), 3 + draw(10), 3 + draw(10));
    int layers = 1 + draw(6), i;
    if (draw(2)) cnn_to(net, "direct");
    for (i = 0; i < layers; i++)
        switch (draw(16)) {
        case 0: case 1: case 2:
            conv(net, (cnn_conv2d_options){ .out_channels = 2 * (1 + draw(4)), .kernel_height = 1 + draw(4), .kernel_width = 1 + draw(4),
                .stride_height = 1 + draw(3), .stride_width = 1 + draw(3), .padding_height = draw(4), .padding_width = draw(4),
                .dilation_height = 1 + draw(2), .dilation_width = 1 + draw(2), .groups = 1 + draw(2),
                .padding_mode = (cnn_padding_mode)draw(4), .no_bias = draw(2) });
            break;
        case 3: case 4: {
            cnn_pool2d_options o = { .kernel_height = 1 + draw(4), .kernel_width = 1 + draw(4), .stride_height = 1 + draw(4),
                .stride_width = 1 + draw(4), .padding_height = draw(3), .padding_width = draw(3), .ceil_mode = draw(2),
                .exclude_padding = draw(2) };
            if (draw(2)) cnn_max_pool2d_with(net, o);
            else cnn_avg_pool2d_with(net, o);
            break;
        }
        case 5: cnn_relu(net); break;
        case 6: cnn_leaky_relu(net, .negative_slope = .1f * (float)(1 + draw(5))); break;
        case 7: if (draw(2)) cnn_sigmoid(net); else cnn_tanh(net); break;
        case 9: if (draw(2)) cnn_gelu(net); else cnn_prelu(net, .num_parameters = draw(2), .init = .1f * (float)(1 + draw(5))); break;
        case 10: cnn_zero_pad2d(net, .padding = draw(3), .padding_left = draw(3), .padding_bottom = draw(3)); break;
        case 11: cnn_adaptive_avg_pool2d(net, .output_height = 1 + draw(6), .output_width = 1 + draw(6)); break;
        case 8: if (draw(2)) cnn_dropout(net, .p = .5f); else cnn_softmax(net); break;
        default: join(net); break;
        }
    if (draw(2)) {
        cnn_flatten(net);
        cnn_linear(net, .out_features = 1 + draw(20), .no_bias = draw(2));
    }
    if (!cnn_error(net)) return net;
    cnn_free(net);
    return NULL;
}

/* ---- compiled, run and compared ---- */

typedef struct compiled { cnn_net *net; size_t x, y, inputs, outputs; } compiled;  /* x, y: where in the arrays */

static compiled nets[MOST];
static int net_count;
static float x[VALUES * 8], y[VALUES * 8], expected[VALUES * 8];
static size_t x_count, y_count;

/* What is in braces stands four columns to the right of them, and the closing one below what opened it. */
static void is_indented(const char *text, int number)
{
    int open[20], depth = 0, after = 0, wrong = 0;
    const char *end;
    for (; (end = strchr(text, '\n')) != NULL; text = end + 1) {
        int indent = (int)strspn(text, " ");
        if (end == text) continue;
        if (text[indent] == '}' && depth) wrong += indent != open[--depth];
        else if (after) wrong += indent != open[depth - 1] + 4;
        after = end[-1] == '{' && depth < 20;
        if (after) open[depth++] = indent;
        if (wrong) break;
    }
    CHECK(!wrong && !depth, "network %d: %.60s", number, text);
}

static void take(cnn_net *net)
{
    compiled *c = &nets[net_count];
    char name[20];
    size_t i;
    CHECK(!cnn_error(net), "network %d: %s", net_count, error_of(net));
    c->net = net;
    c->x = x_count;
    c->y = y_count;
    c->inputs = cnn__size(net->input);
    for (i = 0; i < SAMPLES * c->inputs; i++) x[x_count++] = (float)(draw(2001) - 1000) / 500;
    if (net_count % 7 == 3) x[c->x + c->inputs / 2] = NAN;  /* of one sample */
    c->outputs = cnn__size(net->layers[net->layer_count - 1].out);
    CHECK(x_count < VALUES * 8 && y_count + SAMPLES * c->outputs < VALUES * 8 && c->inputs < VALUES && c->outputs < VALUES, "room");
    cnn_predict(net, expected + y_count, x + c->x, SAMPLES);
    y_count += SAMPLES * c->outputs;
    snprintf(name, sizeof name, "net%d.c", net_count);
    CHECK(cnn_export_c(net, in_folder(name), NULL), "network %d: %s", net_count, error_of(net));
    is_indented(text_of(fopen(in_folder(name), "r")), net_count);
    net_count++;
}

/* The program that runs them all: x from in, y to out. 1, or 0 where there is no compiler. */
static int compile_and_run(void)
{
    const char *cc = getenv("CC");
    char command[2000];
    FILE *file = fopen(in_folder("main.c"), "w");
    int i;
    if (!cc || !*cc) cc = "cc";
    snprintf(command, sizeof command, "%.200s --version >/dev/null 2>&1", cc);
    if (system(command)) {
        SKIP("test_export: there is no compiler %s", cc);
        fclose(file);
        remove(in_folder("main.c"));
        return 0;
    }
    fprintf(file, "#include <stdio.h>\nstatic float x[%d], y[%d];\n", VALUES, VALUES);
    fprintf(file, "static int run(void (*net)(float *, const float *), size_t outputs, size_t inputs)\n{\n    int n;\n"
            "    for (n = 0; n < %d; n++) {\n        if (fread(x, 4, inputs, stdin) != inputs) return 0;\n        net(y, x);\n"
            "        if (fwrite(y, 4, outputs, stdout) != outputs) return 0;\n    }\n    return 1;\n}\n", SAMPLES);
    for (i = 0; i < net_count; i++)
        fprintf(file, "void net%d(float y[%d], const float x[%d]);\n", i, (int)nets[i].outputs, (int)nets[i].inputs);
    fprintf(file, "int main(void)\n{\n    return !(1");
    for (i = 0; i < net_count; i++)
        fprintf(file, "\n        && run(net%d, %d, %d)", i, (int)nets[i].outputs, (int)nets[i].inputs);
    fprintf(file, ");\n}\n");
    fclose(file);
    file = fopen(in_folder("in"), "wb");
    fwrite(x, sizeof *x, x_count, file);
    fclose(file);
    snprintf(command, sizeof command, "cd %s && %.200s -std=c99 -Wall -Wextra -pedantic -Werror -O1 *.c -lm -o run >said 2>&1 && ./run <in >out",
             folder, cc);
    CHECK(!system(command), "they do not compile or run:\n%.3000s", text_of(fopen(in_folder("said"), "r")));
    return 1;
}

/* 1 where a is b but for rounding: relative to the largest output */
static double distance(const float *a, const float *b, size_t count)
{
    double largest = 1e-30, worst = 0, d;
    size_t i;
    for (i = 0; i < count; i++) if (fabs((double)b[i]) > largest) largest = fabs((double)b[i]);
    for (i = 0; i < count; i++) {
        if (a[i] != a[i] && b[i] != b[i]) continue;
        d = fabs((double)a[i] - (double)b[i]) / largest;
        if (!(d <= worst)) worst = d == d ? d : HUGE_VAL;
    }
    return worst;
}


/* ---- a kind from outside: two inputs, a parameter, a buffer.   out = gain in + weight in2 ---- */

static int mix_shape(cnn__layer *l, const cnn__fitter *f) { (void)f; l->out = l->in; return 1; }

static int mix_tensor(cnn__tensor *t, const char *name)
{
    memset(t, 0, sizeof *t);
    t->name = name;
    t->ndim = t->shape[0] = 1;
    t->fan_in = t->fan_out = 1;
    return 1;
}

static int mix_tensors(const cnn__layer *l, cnn__tensor *t) { (void)l; return mix_tensor(t, "gain"); }
static int mix_buffers(const cnn__layer *l, cnn__tensor *t) { (void)l; return mix_tensor(t, "other"); }
static void mix_forward(const cnn__op *c) { memcpy(c->y, c->x[0], sizeof(float) * cnn__values(c)); }

static void mix_export_c(const cnn__layer *l, int number, FILE *file)
{
    cnn__line(file, 1, "int i;");
    cnn__line(file, 1, "for (i = 0; i < %d; i++) out[i] = layer%d_gain[0] * in[i] + layer%d_other[0] * in2[i];", (int)cnn__size(l->out),
              number, number);
}

/* a = 2 x - 1, b = relu(a), c = 3 b + .5, y = 4 c + 5 a: a must outlive the relu, which else takes its place */
static void take_branches(void)
{
    static const cnn__kind mix = { mix_shape, mix_forward, mix_forward, NULL, NULL, mix_export_c, mix_tensors, mix_buffers, NULL, NULL,
        CNN__NO_OPTIONS };
    static const float numbers[6] = { 2, -1, 3, .5f, 4, 5 };
    static const char *const keys[6] = { "0.weight", "0.bias", "2.weight", "2.bias", "3.gain", "3.other" };
    cnn__layer layer = cnn__layer_of(&mix, "mix-it");       /* - stands in no name of C */
    cnn_net *net = cnn_new(1, 5, 5);
    const compiled *c = &nets[net_count];
    size_t i;
    cnn_conv2d(net, .out_channels = 1, .kernel_size = 1);
    cnn_relu(net);
    cnn_conv2d(net, .out_channels = 1, .kernel_size = 1);
    cnn__add(net, &layer);
    net->layers[3].inputs[1] = 0;
    net->layers[3].input_count = 2;
    for (i = 0; i < 6; i++) CHECK(cnn_set(net, keys[i], numbers + i, 1), "%s", error_of(net));
    take(net);
    for (i = 0; i < SAMPLES * c->inputs; i++) {
        float a = 2 * x[c->x + i] - 1, b = a > 0 ? a : 0;
        expected[c->y + i] = a != a ? a : 4 * (3 * b + .5f) + 5 * a;
    }
}

static void agree_with_predict(void)
{
    int count = getenv("CNN_TEST_SHORT") ? 80 : MOST, i;
    cnn_net *net;
    FILE *out;
    for (i = 0; (net = fixed(i)) != NULL; i++) take(net);
    take_branches();
    for (seed = 1; net_count < count; seed++) {
        drawn = 0;
        if ((net = random_net()) != NULL) take(net);
    }
    if (compile_and_run()) {
        out = fopen(in_folder("out"), "rb");
        CHECK(out && fread(y, sizeof *y, y_count + 1, out) == y_count, "%d values are missing", (int)y_count);
        if (out) fclose(out);
        for (i = 0; i < net_count; i++) {
            const compiled *c = &nets[i];
            double d = distance(y + c->y, expected + c->y, SAMPLES * c->outputs);
            CHECK(d < 1e-5, "network %d differs by %g", i, d);
            if (!(d < 1e-5)) cnn_summary(c->net, stdout);
        }
        remove(in_folder("in"));
        remove(in_folder("out"));
        remove(in_folder("said"));
        remove(in_folder("run"));
        remove(in_folder("main.c"));
    }
    for (i = 0; i < net_count; i++) {
        char name[20];
        snprintf(name, sizeof name, "net%d.c", i);
        remove(in_folder(name));
        cnn_free(nets[i].net);
    }
}

/* ---- what the file says ---- */

static const char *exported(cnn_net *net, const char *path, const char *name)      /* its text; "" where it was refused */
{
    const char *text = "";
    if (cnn_export_c(net, path, name)) {
        text = text_of(fopen(path, "r"));
        remove(path);
    }
    return text;
}

static void is_readable(void)
{
    static const float mean[1] = { .25f }, deviation[1] = { .5f };
    static unsigned char bytes[4 * 36];
    static int labels[4] = { 0, 1, 0, 1 };
    cnn_net *net = cnn_new(1, 6, 6);
    cnn_data *data = cnn_data_new(.count = 4, .channels = 1, .height = 6, .width = 6, .bytes = bytes, .labels = labels, .classes = 2);
    const char *text;
    cnn_normalize(data, mean, deviation);
    cnn_block(net, "b");
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_dropout(net, .p = .5f);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 2);
    text = exported(net, in_folder("my net-2.c"), NULL);
    CHECK(strstr(text, "void my_net_2(float y[2], const float x[36]);"), "%.300s", text);
    CHECK(strstr(text, "x: 1 x 6 x 6, one sample (channels, rows, columns), scaled as the network saw them in training\n"), "%.900s", text);
    CHECK(strstr(text, "Its numbers take 456 bytes, its buffers 720 bytes of RAM."), "%.900s", text);
    CHECK(strstr(text, "\n 6  b.5 (linear)                     2         74            72        8\n"), "%.900s", text);
    CHECK(strstr(text, "    static float buffer1[144];\n    static float buffer2[36];\n\n"
                       "    layer1_conv2d(buffer1, x);                       /* 4 x 6 x 6 */\n"
                       "    layer2_relu(buffer1, buffer1);                   /* 4 x 6 x 6 */\n"
                       "    layer4_max_pool2d(buffer2, buffer1);             /* 4 x 3 x 3 */\n"
                       "    layer6_linear(y, buffer2);                       /* 2 */\n}\n"), "%s", strstr(text, "/* ---- the network"));
    CHECK(strstr(text, "                float sum = layer1_bias[k];\n                for (c = 0; c < 1; c++)\n"
                       "                    for (y = 0; y < 3; y++) {\n                        int row = j + y - 1;\n"
                       "                        if (row < 0 || row >= 6) continue;\n"), "%.2500s", text);
    CHECK(strstr(text, "#include <math.h>") && strchr(text, '#') == strrchr(text, '#') && !strstr(text, "alloc"), "what it needs");
    cnn_adam(net, .lr = 1e-3f);
    cnn_fit(net, data, NULL, .epochs = 1, .batch_size = 4);
    text = exported(net, in_folder("net.c"), "seen");
    CHECK(strstr(text, "void seen(float y[2]") && strstr(text, "in training:\n      channel 0: 0.00784313772 byte + -0.5\n"), "%.700s", text);
    cnn_data_free(data);
    cnn_free(net);
}

/* An output lies in the free buffer that grows least, which a new one would, too. Outputs of 16, 96, 112, 96, 3 values: of
   the first three buffers the second is large enough for the fourth. */
static void buffers_are_used_again(void)
{
    cnn_net *net = cnn_new(1, 4, 4);
    const char *text;
    cnn_conv2d(net, .out_channels = 1, .kernel_size = 1);
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 1);
    cnn_concat(net, 1);
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 1);
    cnn_batch_norm2d(net, .eps = .125f);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 3);
    text = exported(net, in_folder("again.c"), NULL);
    /* 2 + 12 + 48 of the convolutions, 4 x 6 of the normalisation, 291 of the linear layer */
    CHECK(strstr(text, "Its numbers take 1,508 bytes, its buffers 896 bytes of RAM."), "%.900s", text);
    CHECK(strstr(text, "    static float buffer1[16];\n    static float buffer2[96];\n    static float buffer3[112];\n\n"), "%s", strstr(text, "/* ---- the network"));
    CHECK(strstr(text, "    for (c = 0; c < 6; c++) {\n"
                       "        const float scale = layer5_weight[c] / sqrtf(layer5_running_var[c] + 0.125f);\n"), "%s", strstr(text, "layer5_batch_norm2d("));
    cnn_free(net);
}

/* From the include to its end, a file is this. */
static void a_whole_file(void)
{
    static const char is[] =
        "#include <math.h>\n\n"
        "void nine(float y[1], const float x[9]);\n\n"
        "/* ---- layer 2 (linear \"last\"): 9 to 1 ---- */\n\n"
        "static const float layer2_weight[1][9];\n"
        "static const float layer2_bias[1];\n\n"
        "static void layer2_linear(float *out, const float *in)\n{\n"
        "    int o, i;\n"
        "    for (o = 0; o < 1; o++) {\n"
        "        float sum = layer2_bias[o];\n"
        "        for (i = 0; i < 9; i++) sum += layer2_weight[o][i] * in[i];\n"
        "        *out++ = sum;\n"
        "    }\n}\n\n"
        "/* ---- layer 4 (sigmoid): 1 to 1 ---- */\n\n"
        "static void layer4_sigmoid(float *out, const float *in)\n{\n"
        "    int i;\n"
        "    for (i = 0; i < 1; i++) out[i] = 1 / (1 + expf(-in[i]));\n}\n\n"
        "/* ---- the network ---- */\n\n"
        "void nine(float y[1], const float x[9])\n{\n"
        "    static float buffer1[1];\n\n"
        "    layer2_linear(buffer1, x);                       /* 1 */\n"
        "    layer4_sigmoid(y, buffer1);                      /* 1 */\n}\n\n"
        "/* ---- what was learned ---- */\n\n"
        "/* last.weight */\n"
        "static const float layer2_weight[1][9] =\n{\n"
        "    { -1.0f, -0.75f, -0.5f, -0.25f, 0.0f, 0.25f, 0.5f,\n"
        "      0.75f, 1.0f }\n};\n\n"
        "/* last.bias */\n"
        "static const float layer2_bias[1] =\n{ 3.0f };\n";
    float weight[9], bias = 3;
    cnn_net *net = cnn_new(1, 3, 3);
    const char *text;
    int i;
    cnn_flatten(net);
    cnn_name(net, "last");
    cnn_linear(net, .out_features = 1);
    cnn_dropout(net, .p = .5f);
    cnn_sigmoid(net);
    for (i = 0; i < 9; i++) weight[i] = (float)(i - 4) / 4;
    cnn_set(net, "last.weight", weight, 9);
    cnn_set(net, "last.bias", &bias, 1);
    text = strstr(exported(net, in_folder("nine.c"), NULL), "#include");
    CHECK(text && !strcmp(text, is), "%s", text ? text : error_of(net));
    cnn_free(net);
}

/* ---- names ---- */

static void names(void)
{
    static const char *const bad[] = { "", "2net", "a-b", "float", "main", "expf", "layer1_relu", "caf\303\251", "_net", "a b",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" };
    static const char *const paths[][2] = { { "a/../float.c", "net_float" }, { "2.c", "net_2" }, { ".c", "net_" }, { "Layer1.c", "Layer1" },
        { "layer1.c", "net_layer1" }, { "caf\303\251.x.c", "caf___x" }, { "none", "none" },
        { "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.c", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" } };
    cnn_net *net = cnn_new(1, 2, 2);
    char expected_name[100];
    size_t i;
    cnn_relu(net);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(!cnn_export_c(net, in_folder("n.c"), bad[i]) && strstr(error_of(net), "cannot be the function's name; give up to 63"), "%s: %s",
              bad[i], error_of(net));
        cnn_clear_error(net);
    }
    CHECK(!mkdir(in_folder("a"), 0700), "a folder");
    for (i = 0; i < sizeof paths / sizeof *paths; i++) {
        const char *text = exported(net, in_folder(paths[i][0]), NULL);
        snprintf(expected_name, sizeof expected_name, "void %s(float y[4], const float x[4]);", paths[i][1]);
        CHECK(strstr(text, expected_name), "%s: %.200s; %s", paths[i][0], text, error_of(net));
    }
    rmdir(in_folder("a"));
    cnn_free(net);
}

/* ---- refused: one sentence, and the file is as it was ---- */

static void refused(cnn_net *net, const char *sentence)
{
    FILE *file = fopen(in_folder("old.c"), "w");
    fputs("old", file);
    fclose(file);
    CHECK(!cnn_export_c(net, in_folder("old.c"), NULL) && !strcmp(error_of(net), sentence), "%s", error_of(net));
    CHECK(!strcmp(text_of(fopen(in_folder("old.c"), "r")), "old"), "the file was written");
    remove(in_folder("old.c"));
    cnn_free(net);
}

static void bad_input(void)
{
    static const float infinite[2] = { 1, HUGE_VALF };
    static const cnn__kind strange = { cnn__layer_softmax_shape, cnn__layer_softmax_forward, cnn__layer_softmax_backward,
        cnn__layer_softmax_at, cnn__layer_softmax_explain, NULL, NULL, NULL, NULL, NULL, CNN__NO_OPTIONS };
    cnn__layer layer = cnn__layer_of(&strange, "strange");
    cnn_net *net = cnn_new(1, 1, 2);
    refused(net, "the network has no layers");
    net = cnn_new(1, 2, 2);
    cnn_linear(net, .out_features = 0);
    CHECK(cnn_error(net) != NULL, "it is in error");
    CHECK(!cnn_export_c(net, in_folder("n.c"), NULL) && strstr(error_of(net), "linear"), "%s", error_of(net));
    cnn_free(net);
    net = cnn_new(1, 2, 2);
    cnn_relu(net);
    cnn_name(net, "odd");
    cnn__add(net, &layer);
    refused(net, "cnn_export_c: layer 2 (strange \"odd\") has no C code: its kind lacks the function export_c");
    net = cnn_new(2, 1, 1);
    cnn_linear(net, .out_features = 1);
    cnn_set(net, "0.weight", infinite, 2);
    refused(net, "cnn_export_c: value 1 of 0.weight is inf, which C has no number for; train again, or load weights that are finite");
    net = cnn_new(2, 1, 1);
    cnn_batch_norm2d(net, .no_running_stats = 1);
    refused(net, "cnn_export_c: layer 1 (batch_norm2d) has no running statistics: what it puts out depends on the other samples of the "
            "batch; train it with them");
    net = cnn_new(2, 1, 1);
    cnn_name(net, "a*/b");
    cnn_relu(net);
    refused(net, "cnn_export_c: layer 1 (relu \"a*/b\"): its name would begin or end a comment of C");
    net = cnn_new(2, 1, 1);
    cnn_relu(net);
    CHECK(!cnn_export_c(net, "/nowhere/net.c", NULL) && !strcmp(error_of(net), "/nowhere/net.c: cannot be written: No such file or directory"),
          "%s", error_of(net));
    cnn_clear_error(net);
    CHECK(!cnn_export_c(net, NULL, NULL) && !strcmp(error_of(net), "cnn_export_c: there is no path"), "%s", error_of(net));
    cnn_free(net);
    CHECK(!cnn_export_c(NULL, "net.c", NULL), "no network");
}

int main(void)
{
    folder_make();
    agree_with_predict();
    is_readable();
    buffers_are_used_again();
    a_whole_file();
    names();
    bad_input();
    folder_remove();
    return test_end("export");
}
