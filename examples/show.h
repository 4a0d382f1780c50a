/* show.h - what the walkthrough programs share: running one sample through a network, printing numbers in
   columns, and pictures of half-block characters, each of two pixels. */
#ifndef SHOW_H
#define SHOW_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <unistd.h>
#endif
#include "../cnn.h"

static inline void show_title(const char *title, const char *equation)
{
    size_t i;
    printf("%s\n", title);
    for (i = 0; i < strlen(title); i++) putchar('=');
    printf("\n%s\n\n", equation);
}

/* --help, -h: prints what the program shows and its arguments. Other options, and more than `most` arguments, are
   errors. */
static inline void show_options(int argc, char **argv, int most, const char *name, const char *about,
                                const char *arguments)
{
    int i;
    for (i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            printf("%s - %s\n\nusage: ./%s%s\n", name, about, name, arguments);
            exit(0);
        }
    for (i = 1; i < argc; i++)
        if (i > most || argv[i][0] == '-') {
            fprintf(stderr, "%s: %.100s: there is no such %s; --help says what there is\n", name, argv[i],
                    argv[i][0] == '-' ? "option" : "argument");
            exit(1);
        }
}

static inline void *show_memory(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    if (memory) return memory;
    fprintf(stderr, "not enough memory for %.0f bytes\n", (double)bytes);
    exit(1);
}

/* A whole number with commas, in `text`. */
static inline const char *show_count(char text[32], double n)
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%.0f", n), i, k = 0;
    for (i = 0; i < length && k < 30; i++) {
        if (i && (length - i) % 3 == 0) text[k++] = ',';
        text[k++] = digits[i];
    }
    text[k] = 0;
    return text;
}

/* One sample x through the network to y; a mistake ends the program with the library's sentence. */
static inline void show_run(cnn_net *net, float *y, const float *x)
{
    cnn_predict(net, y, x, 1);
    if (!cnn_error(net)) return;
    fprintf(stderr, "%s\n", cnn_error(net));
    exit(1);
}

/* Ends the program unless the library's numbers are those that the program computed itself. */
static inline void show_same(const char *call, const float *library, const float *own, int count)
{
    int i;
    for (i = 0; i < count; i++) {
        if (fabsf(library[i] - own[i]) <= 1e-5f) continue;
        printf("%s: number %d is %g, but by hand it is %g\n", call, i, library[i], own[i]);
        exit(1);
    }
    printf("%s gives the same %d numbers.\n", call, count);
}

/* ---- numbers in columns, several matrices side by side ---- */

typedef struct show_matrix {
    const char *title;
    const float *values;                    /* (rows, columns); a NaN is shown as a dot                  */
    int rows, columns, digits, decimals;    /* digits: characters of one number                          */
    int top, left, size;                    /* a square in brackets, if size > 0                         */
} show_matrix;

static inline int show_matrix_width(const show_matrix *m)
{
    int numbers = m->columns * (m->digits + 1), title = (int)strlen(m->title);
    return numbers > title ? numbers : title;
}

static inline void show_matrix_row(const show_matrix *m, int j)
{
    int i, marked = m->size && j >= m->top && j < m->top + m->size;
    for (i = 0; i < m->columns; i++) {
        float value = m->values[j * m->columns + i];
        putchar(marked && i == m->left ? '[' : marked && i == m->left + m->size ? ']' : ' ');
        if (value != value) printf("%*s", m->digits, ".");
        else printf("%*.*f", m->digits, m->decimals, value);
    }
    if (marked && m->left + m->size == m->columns) putchar(']');
}

static inline void show_matrices(const show_matrix *m, int count)
{
    int k, j, rows = 0, skip = 2;
    for (k = 0; k < count; k++) {
        printf("%*s%s", skip, "", m[k].title);
        skip = 3 + show_matrix_width(&m[k]) - (int)strlen(m[k].title);
        if (m[k].rows > rows) rows = m[k].rows;
    }
    putchar('\n');
    for (j = 0; j < rows; j++) {
        for (k = 0, skip = 1; k < count; k++) {
            if (j < m[k].rows) {
                printf("%*s", skip, "");
                show_matrix_row(&m[k], j);
                skip = 3 + show_matrix_width(&m[k]) - m[k].columns * (m[k].digits + 1);
            } else skip += 3 + show_matrix_width(&m[k]);
        }
        putchar('\n');
    }
    putchar('\n');
}

/* ---- pictures: in colour on a terminal, dotted black and white in a file ---- */

typedef struct show_picture {
    const char *title;
    const unsigned char *rgb;               /* (height, width, 3)                                        */
    int width, height;
    int sharp;                              /* without colour: black or white instead of dots            */
} show_picture;

static inline int show_colours(void)        /* 0: none, 256, or 24 for 24 bits */
{
    const char *kind = getenv("COLORTERM");
    int terminal = 0;
#ifndef _WIN32
    terminal = isatty(1);
#endif
    if (!terminal || getenv("NO_COLOR")) return 0;
    return kind && (!strcmp(kind, "truecolor") || !strcmp(kind, "24bit")) ? 24 : 256;
}

/* Which of the six levels of a terminal's 6 x 6 x 6 colours is nearest to v. */
static inline int show_level(int v) { return v < 48 ? 0 : v < 115 ? 1 : (v - 35) / 40; }

static inline void show_colour(int colours, int ground, const unsigned char *c)      /* ground: 38 front, 48 back */
{
    if (colours == 24) printf("\033[%d;2;%d;%d;%dm", ground, c[0], c[1], c[2]);
    else if (c[0] == c[1] && c[1] == c[2])
        printf("\033[%d;5;%dm", ground, c[0] < 8 ? 16 : c[0] > 243 ? 231 : 232 + (c[0] - 8) / 10);
    else printf("\033[%d;5;%dm", ground, 16 + 36 * show_level(c[0]) + 6 * show_level(c[1]) + show_level(c[2]));
}

static inline int show_is_light(const show_picture *p, int x, int y)                 /* ordered dither (Bayer 1973) */
{
    static const unsigned char bayer[4][4] = { { 0, 8, 2, 10 }, { 12, 4, 14, 6 }, { 3, 11, 1, 9 }, { 15, 7, 13, 5 } };
    const unsigned char *c = p->rgb + 3 * (y * p->width + x);
    int threshold = p->sharp ? 40 : 16 * bayer[y % 4][x % 4] + 8;
    return y < p->height && 299 * c[0] + 587 * c[1] + 114 * c[2] > 1000 * threshold;
}

static inline void show_picture_line(const show_picture *p, int line, int colours)
{
    static const unsigned char black[3] = { 0, 0, 0 };
    static const char *const halves[4] = {                  /* neither half, the upper, the lower, both */
        " ", "\xE2\x96\x80", "\xE2\x96\x84", "\xE2\x96\x88" };
    int x, y = 2 * line;
    for (x = 0; x < p->width; x++) {
        if (y >= p->height) putchar(' ');
        else if (colours) {
            show_colour(colours, 38, p->rgb + 3 * (y * p->width + x));
            show_colour(colours, 48, y + 1 < p->height ? p->rgb + 3 * ((y + 1) * p->width + x) : black);
            printf("%s", halves[1]);
        } else printf("%s", halves[show_is_light(p, x, y) + 2 * (y + 1 < p->height && show_is_light(p, x, y + 1))]);
    }
    if (colours) printf("\033[0m");
}

static inline void show_pictures(const show_picture *p, int count)
{
    int k, line, height = 0, colours = show_colours(), skip = 1;
    for (k = 0; k < count; k++) {
        printf("%*s%s", skip, "", p[k].title);
        skip = 1 + (p[k].width > (int)strlen(p[k].title) ? p[k].width - (int)strlen(p[k].title) : 0);
        if (p[k].height > height) height = p[k].height;
    }
    putchar('\n');
    for (line = 0; 2 * line < height; line++) {
        for (k = 0, skip = 1; k < count; k++) {
            printf("%*s", skip, "");
            show_picture_line(&p[k], line, colours);
            skip = 1 + (p[k].width < (int)strlen(p[k].title) ? (int)strlen(p[k].title) - p[k].width : 0);
        }
        putchar('\n');
    }
    putchar('\n');
}

/* Colours for values from -scale to scale: 0 black, positive orange, negative blue. Without has_sign: 0 black, scale
   white. */
static inline void show_paint(unsigned char *rgb, const float *values, int count, float scale, int has_sign)
{
    int i;
    for (i = 0; i < count; i++) {
        float share = fminf(fabsf(values[i]) / scale, 1);
        int v = (int)(255 * share);
        rgb[3 * i] = (unsigned char)(!has_sign ? v : values[i] > 0 ? v : v / 4);
        rgb[3 * i + 1] = (unsigned char)(!has_sign ? v : 5 * v / 8);
        rgb[3 * i + 2] = (unsigned char)(!has_sign ? v : values[i] > 0 ? v / 8 : v);
    }
}

#endif
