/* bugs.h - five bugs that teaching code has had, planted into a backend: a copy of `simd` whose entries do their work by
   simd's, and spoil it. Each network that has one learned all the same. Chosen at run time: planted = LOST_ROW. */
#ifndef BUGS_H
#define BUGS_H

#include <math.h>
#include <string.h>
#include "../../cnn.h"

enum { NO_BUG, NO_BIAS_GRADIENT, TRANSPOSED_KERNEL, NO_MEAN, LOST_ROW, ADAM_UPSIDE_DOWN };
enum { MOST_WEIGHTS = 1 << 16 };                        /* of a convolution: LeNet-5's largest has 48,000 */
static int planted;
static const cnn_backend *sound;                        /* simd: what is right */

/* The convolution's gradients, with what the bug has made of the kernels for dx */
static void spoilt_conv2d_backward(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias,
                                   const float *dy, const float *y, const unsigned char *index, const float *x,
                                   const float *weight, void *work)
{
    static float kernels[MOST_WEIGHTS], before[MOST_WEIGHTS];
    int high = s->kernel_height, wide = s->kernel_width, row, column;
    size_t area = (size_t)(high * wide), count = area * (size_t)(s->out_channels * s->in_channels / s->groups), k;
    if (planted == NO_BIAS_GRADIENT) dbias = NULL;
    if (count > MOST_WEIGHTS || high != wide || (planted != TRANSPOSED_KERNEL && planted != LOST_ROW)) {
        sound->conv2d_backward(context, s, dx, dweight, dbias, dy, y, index, x, weight, work);
        return;
    }
    for (k = 0; k < count; k += area)
        for (row = 0; row < high; row++)
            for (column = 0; column < wide; column++)
                kernels[k + (size_t)(row * wide + column)] = planted == TRANSPOSED_KERNEL
                    ? weight[k + (size_t)(column * wide + row)]                     /* u(x, y) for u(y, x) */
                    : row == 0 ? 0 : weight[k + (size_t)(row * wide + column)];     /* for (y = 1; ...) */
    if (dweight) memcpy(before, dweight, count * sizeof *before);
    sound->conv2d_backward(context, s, NULL, dweight, dbias, dy, y, index, x, weight, work);
    for (k = 0; k < count && dweight && planted == LOST_ROW; k += area)
        memcpy(dweight + k, before + k, (size_t)wide * sizeof *before);
    if (dx) sound->conv2d_backward(context, s, dx, NULL, NULL, dy, y, index, x, kernels, work);
}

static void spoilt_linear_backward(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias,
                                   const float *dy, const float *y, const float *x, const float *weight, void *work)
{
    if (planted == NO_BIAS_GRADIENT) dbias = NULL;
    sound->linear_backward(context, s, dx, dweight, dbias, dy, y, x, weight, work);
}

static void spoilt_cross_entropy(void *context, cnn_counters *c, const cnn_cross_entropy_options *o, float *dy,
                                 const float *y, const float *target, const int *labels, int batch, int outputs)
{
    int i;
    sound->softmax_cross_entropy(context, c, o, dy, y, target, labels, batch, outputs);
    for (i = 0; i < batch * outputs && dy && planted == NO_MEAN; i++) dy[i] *= (float)batch;      /* the sum's */
}

/* Adam's moments are too small at first and are to be divided by 1 - beta^t; here they are multiplied by it. */
static void spoilt_adam_step(void *context, cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w,
                             float *m, float *v, const float *g, size_t n, cnn_span *spans, int count)
{
    cnn_span *s;
    size_t i;
    if (planted != ADAM_UPSIDE_DOWN) {
        sound->adam_step(context, c, o, decoupled, w, m, v, g, n, spans, count);
        return;
    }
    for (s = spans; s < spans + count; s++) {
        float t = (float)++s->step, first = 1 - powf(o->beta1, t), second = 1 - powf(o->beta2, t);
        for (i = s->offset; i < s->offset + s->count; i++) {
            m[i] = o->beta1 * m[i] + (1 - o->beta1) * g[i];
            v[i] = o->beta2 * v[i] + (1 - o->beta2) * g[i] * g[i];
            w[i] -= (float)c->lr * m[i] * first / (sqrtf(v[i] * second) + o->eps);
        }
    }
    c->step++;
}

static cnn_backend backend_with_bugs(void)
{
    cnn_backend b;
    sound = cnn_find_backend("simd");
    b = *sound;
    b.name = "simd, with bugs";
    b.conv2d_backward = spoilt_conv2d_backward;
    b.linear_backward = spoilt_linear_backward;
    b.softmax_cross_entropy = spoilt_cross_entropy;
    b.adam_step = spoilt_adam_step;
    return b;
}

/* ---- what cnn_gradcheck does not see, because it looks at layers: the loss and the optimizer, beside `direct` ---- */

/* One row, as cnn_gradcheck prints them; returns how many values are wrong. */
static int compare(const char *name, const char *what, const float *is, const float *should, int count, FILE *out)
{
    int i, failed = 0;
    double scale = 0, worst = 0;
    for (i = 0; i < count; i++) scale = fmax(scale, fabs((double)should[i]));
    for (i = 0; i < count; i++) {
        double error = fabs((double)is[i] - (double)should[i])
                     / (1e-3 * fabs((double)should[i]) + 1e-4 * scale + 1e-12);
        if (!(error <= 1)) failed++;
        if (!(error <= worst)) worst = error;
    }
    fprintf(out, " 0  %-28s %-7s %4d checked %3d kinks %3d failed, worst at %.3f of the tolerance\n", name, what,
            count, 0, failed, worst);
    return failed;
}

static int check_loss_and_step(const cnn_backend *b, FILE *out)
{
    enum { BATCH = 8, CLASSES = 10, COUNT = BATCH * CLASSES };
    const cnn_backend *direct = cnn_find_backend("direct"), *table[2] = { NULL, NULL };
    static float y[COUNT], dy[2][COUNT], w[2][COUNT], m[2][COUNT], v[2][COUNT];
    cnn_cross_entropy_options loss = { 0 };
    cnn_adam_options adam = { 0 };
    int labels[BATCH], i, k;
    uint32_t words[4];
    table[0] = b; table[1] = direct;
    loss.ignore_index = -100;
    adam.beta1 = 0.9f; adam.beta2 = 0.999f; adam.eps = 1e-8f;
    for (i = 0; i < COUNT; i++) {
        cnn_random(words, 6, 1, 0, (uint32_t)i);
        y[i] = (float)(words[0] >> 8) / 8388608.0f - 1;
        labels[i / CLASSES] = (int)(words[1] % CLASSES);
    }
    for (k = 0; k < 2; k++) {
        char message[200];
        void *context = table[k]->open ? table[k]->open(1, message, sizeof message) : table[k]->context;
        cnn_counters c;
        cnn_span span = { 0 };
        memset(&c, 0, sizeof c);
        c.lr = 1e-3;
        span.count = COUNT; span.trainable = 1;
        table[k]->softmax_cross_entropy(context, &c, &loss, dy[k], y, NULL, labels, BATCH, CLASSES);
        for (i = 0; i < COUNT; i++) w[k][i] = m[k][i] = v[k][i] = 0;
        table[k]->adam_step(context, &c, &adam, 0, w[k], m[k], v[k], y, COUNT, &span, 1);
        if (table[k]->close) table[k]->close(context);
    }
    return compare("cross_entropy", "dy", dy[0], dy[1], COUNT, out) + compare("adam", "step", w[0], w[1], COUNT, out);
}

#endif
