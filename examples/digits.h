/* digits.h - built-in digits, for a machine without MNIST: strokes drawn with random slant, scale, shift,
   thickness, wobble, contrast and noise, 28 x 28. They are not a benchmark, but they can be learned, and a
   linear classifier does clearly worse on them than a convolutional network. */
#ifndef DIGITS_H
#define DIGITS_H

#include <math.h>
#include "../cnn.h"

enum { DIGIT_SIZE = 28, DIGIT_PIXELS = DIGIT_SIZE * DIGIT_SIZE };

/* A stroke: the part from angle a to b (degrees, clockwise from the right) of the ellipse round (x, y) with
   radii w and h; or, with w = h = 0, the line from (x, y) to (a, b). The digit is 1 wide and 1 high. */
typedef struct digit_stroke { float x, y, w, h, a, b; } digit_stroke;

static const digit_stroke digit_strokes[10][5] = {
    { { .50f, .50f, .28f, .40f, 0, 360 } },
    { { .52f, .10f, 0, 0, .52f, .90f }, { .52f, .10f, 0, 0, .34f, .28f } },
    { { .50f, .32f, .25f, .22f, 180, 390 }, { .72f, .43f, 0, 0, .25f, .90f }, { .25f, .90f, 0, 0, .78f, .90f } },
    { { .46f, .30f, .25f, .20f, 200, 450 }, { .46f, .70f, .28f, .20f, 270, 520 } },
    { { .58f, .10f, 0, 0, .20f, .62f }, { .20f, .62f, 0, 0, .82f, .62f }, { .62f, .36f, 0, 0, .62f, .92f } },
    { { .72f, .10f, 0, 0, .32f, .10f }, { .32f, .10f, 0, 0, .29f, .46f }, { .47f, .65f, .27f, .25f, 220, 510 } },
    { { .50f, .68f, .24f, .22f, 0, 360 }, { .78f, .68f, .52f, .58f, 180, 262 } },
    { { .22f, .12f, 0, 0, .78f, .12f }, { .78f, .12f, 0, 0, .42f, .90f } },
    { { .50f, .30f, .20f, .19f, 0, 360 }, { .50f, .70f, .25f, .20f, 0, 360 } },
    { { .50f, .32f, .24f, .22f, 0, 360 }, { .22f, .34f, .52f, .58f, 0, 78 } }
};

static inline float digit_random(int sample, int which)           /* uniform in [-1, 1): a function of both */
{
    uint32_t words[4];
    cnn_random(words, 28, 1, (uint64_t)sample, (uint32_t)which / 4);
    return (float)(words[which % 4] >> 8) / 8388608.0f - 1;
}

/* The distance of the point (px, py) from the segment from (ax, ay) to (bx, by). */
static inline float digit_distance(float px, float py, float ax, float ay, float bx, float by)
{
    float dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy;
    float t = length > 0 ? ((px - ax) * dx + (py - ay) * dy) / length : 0;
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    dx = ax + t * dx - px;
    dy = ay + t * dy - py;
    return sqrtf(dx * dx + dy * dy);
}

static inline void digit_draw(unsigned char *image, int digit, int sample)
{
    float near[DIGIT_PIXELS];
    float slant = 0.35f * digit_random(sample, 0), turn = 0.22f * digit_random(sample, 1);
    float wide = 17 + 5 * digit_random(sample, 2), high = 19 + 4 * digit_random(sample, 3);
    float left = 14 + 3 * digit_random(sample, 4), top = 14 + 3 * digit_random(sample, 5);
    float thick = 1.25f + 0.7f * digit_random(sample, 6), ink = 200 + 55 * digit_random(sample, 7);
    float wobble = 0.05f + 0.04f * digit_random(sample, 8);
    float phase = 3.1416f * digit_random(sample, 9), phase2 = 3.1416f * digit_random(sample, 10);
    int s, k, p, x, y;
    for (p = 0; p < DIGIT_PIXELS; p++) near[p] = 99;
    for (s = 0; s < 5; s++) {
        const digit_stroke *d = &digit_strokes[digit][s];
        int line = d->w == 0, pieces = line ? 4 : 16;
        float ax = 0, ay = 0;
        if (line && d->x == 0) break;
        for (k = 0; k <= pieces; k++) {
            float t = (float)k / pieces, angle = (d->a + (d->b - d->a) * t) * 0.0174533f, u, v, bx, by;
            u = (line ? d->x + (d->a - d->x) * t : d->x + d->w * cosf(angle)) - 0.5f;
            v = (line ? d->y + (d->b - d->y) * t : d->y + d->h * sinf(angle)) - 0.5f;
            u += wobble * sinf(6 * v + phase) - slant * v;
            v += wobble * sinf(7 * u + phase2);
            bx = left + wide * (u * cosf(turn) - v * sinf(turn));
            by = top + high * (u * sinf(turn) + v * cosf(turn));
            for (y = 0; k && y < DIGIT_SIZE; y++) {
                if (y < fminf(ay, by) - 4 || y > fmaxf(ay, by) + 4) continue;
                for (x = 0; x < DIGIT_SIZE; x++) {
                    float far = digit_distance((float)x, (float)y, ax, ay, bx, by);
                    if (far < near[y * DIGIT_SIZE + x]) near[y * DIGIT_SIZE + x] = far;
                }
            }
            ax = bx;
            ay = by;
        }
    }
    for (p = 0; p < DIGIT_PIXELS; p++) {
        float edge = thick + 0.5f - near[p], value = ink * (edge < 0 ? 0 : edge > 1 ? 1 : edge);
        float noise = digit_random(sample, 16 + 2 * p) + digit_random(sample, 17 + 2 * p);
        value += 28 * noise;
        image[p] = (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

/* Digits first .. first + count - 1 of an endless series; freed by digits_free. */
static inline cnn_data *digits_new(int first, int count)
{
    static const char *const names[10] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" };
    unsigned char *images = (unsigned char *)malloc((size_t)count * DIGIT_PIXELS);
    int *labels = (int *)malloc(sizeof *labels * (size_t)count), i;
    cnn_data_options o = { 0 };
    for (i = 0; images && labels && i < count; i++) {
        labels[i] = (int)(4.999f * (1 + digit_random(first + i, 11)));
        digit_draw(images + (size_t)i * DIGIT_PIXELS, labels[i], first + i);
    }
    o.count = count; o.channels = 1; o.height = o.width = DIGIT_SIZE; o.classes = 10;
    o.bytes = images; o.labels = labels; o.class_names = names;
    o.constant = 1;                         /* the arrays are not changed again */
    return cnn_data_new_with(o);
}

static inline void digits_free(cnn_data *digits)
{
    free((void *)digits->bytes);
    free((void *)digits->labels);
    cnn_data_free(digits);
}

#endif
