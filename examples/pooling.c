/* Figure 6-8: pooling reduces each window to one number, its largest or its mean.
 *
 *     max       f(j,i) = max over y, x of z(sj+y, si+x)
 *     average   f(j,i) = 1/h^2 sum over y, x of z(sj+y, si+x)          here h = 2 and the stride s = 2
 *
 *     make pooling && ./pooling          or          cc -O2 examples/pooling.c -lm -o pooling
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "show.h"

enum { N = 4, HALF = N / 2, SIDE = 24, LEVELS = 3 };

static const float z[N * N] = {
    1, 3, 2, 0,
    5, 2, 1, 1,
    0, 4, 9, 6,
    2, 2, 7, 3
};
static const char *const drawing[SIDE] = {                  /* a thin 5, as a detector of strokes may see it */
    "........................",
    "........................",
    "........................",
    "........................",
    "........#########.......",
    "........#...............",
    "........#...............",
    ".......#................",
    ".......#................",
    ".......#.####...........",
    ".......##....##.........",
    "...............#........",
    "................#.......",
    "................#.......",
    "................#.......",
    "................#.......",
    "...............#........",
    "......#.......##........",
    ".......##...##..........",
    ".........###............",
    "........................",
    "........................",
    "........................",
    "........................"
};

/* A side x side picture through `times` poolings of 2 x 2. */
static void pool(float *y, const float *x, int side, int average, int times)
{
    cnn_net *net = cnn_new(1, side, side);
    while (times--) {
        if (average) cnn_avg_pool2d(net, .kernel_size = 2);
        else cnn_max_pool2d(net, .kernel_size = 2);
    }
    show_run(net, y, x);
    cnn_free(net);
}

static void pool_by_hand(float *largest, float *mean)
{
    int j, i;
    printf("  window              max   average\n");
    for (j = 0; j < HALF; j++)
        for (i = 0; i < HALF; i++) {
            const float *w = z + 2 * j * N + 2 * i;
            largest[j * HALF + i] = fmaxf(fmaxf(w[0], w[1]), fmaxf(w[N], w[N + 1]));
            mean[j * HALF + i] = (w[0] + w[1] + w[N] + w[N + 1]) / 4;
            printf("  %g %g / %g %g           %g     (%g + %g + %g + %g) / 4 = %.2f\n", w[0], w[1], w[N], w[N + 1],
                   largest[j * HALF + i], w[0], w[1], w[N], w[N + 1], mean[j * HALF + i]);
        }
    printf("\n");
}

/* The digit, moved by (down, right) pixels and pooled 0 to LEVELS - 1 times. */
static void pyramid(float x[LEVELS][SIDE * SIDE], int down, int right)
{
    int p, times;
    for (p = 0; p < SIDE * SIDE; p++)
        x[0][p] = drawing[(p / SIDE - down + SIDE) % SIDE][(p % SIDE - right + SIDE) % SIDE] == '#';
    for (times = 1; times < LEVELS; times++) pool(x[times], x[0], SIDE, 0, times);
}

/* How many of the values that are set in a are set in b, too, in percent. */
static int kept(const float *a, const float *b, int count)
{
    int i, both = 0, set = 0;
    for (i = 0; i < count; i++) {
        both += a[i] * b[i] != 0;
        set += a[i] != 0;
    }
    return (100 * both + set / 2) / set;
}

static void show_levels(float a[LEVELS][SIDE * SIDE], float minus[LEVELS][SIDE * SIDE])     /* all in the same size */
{
    static const char *const titles[LEVELS] = { "24 x 24", "pooled: 12 x 12", "twice: 6 x 6" };
    static unsigned char rgb[LEVELS][3 * SIDE * SIDE];
    float large[SIDE * SIDE];
    show_picture shown[LEVELS];
    int t, p;
    for (t = 0; t < LEVELS; t++) {
        for (p = 0; p < SIDE * SIDE; p++) {
            int small = (p / SIDE >> t) * (SIDE >> t) + (p % SIDE >> t);
            large[p] = a[t][small] - (minus ? minus[t][small] : 0);
        }
        show_paint(rgb[t], large, SIDE * SIDE, 1, minus != NULL);
        shown[t] = (show_picture){ titles[t], rgb[t], SIDE, SIDE, 1 };
    }
    show_pictures(shown, LEVELS);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int down, right; } moves[4] = {
        { "right", 0, 1 }, { "left", 0, -1 }, { "down", 1, 0 }, { "up", -1, 0 } };
    static float digit[LEVELS][SIDE * SIDE], moved[LEVELS][SIDE * SIDE];
    float largest[HALF * HALF], mean[HALF * HALF], f[2][HALF * HALF];
    int t, m, percent, sum[LEVELS] = { 0 };

    show_options(argc, argv, 0, "pooling", "figure 6-8: pooling reduces each window to one number", "");
    show_title("Figure 6-8: pooling, 2 x 2 with stride 2",
               "max: the largest of each window          average: its mean");
    pool(f[0], z, N, 0, 1);
    pool(f[1], z, N, 1, 1);
    show_matrices((show_matrix[]){
        { "input z", z, N, N, 2, 0, 0, 0, 2 },
        { "max", f[0], HALF, HALF, 2, 0, 0, 0, 1 },
        { "average", f[1], HALF, HALF, 5, 2, 0, 0, 1 } }, 3);
    pool_by_hand(largest, mean);
    show_same("cnn_max_pool2d", f[0], largest, HALF * HALF);
    show_same("cnn_avg_pool2d", f[1], mean, HALF * HALF);

    printf("\nA digit under max pooling:\n\n");
    pyramid(digit, 0, 0);
    show_levels(digit, NULL);
    printf("What changes when it moves right by one pixel (in colour: orange set now, blue set before):\n\n");
    pyramid(moved, 0, 1);
    show_levels(moved, digit);
    printf("How many of the values that the digit sets are still set after the move:\n\n"
           "  moved by 1    24 x 24    12 x 12      6 x 6\n");
    for (m = 0; m < 4; m++) {
        pyramid(moved, moves[m].down, moves[m].right);
        printf("  %-10s", moves[m].name);
        for (t = 0; t < LEVELS; t++) {
            percent = kept(digit[t], moved[t], (SIDE >> t) * (SIDE >> t));
            sum[t] += percent;
            printf("%9d %%", percent);
        }
        printf("\n");
    }
    printf("  %-10s", "mean");
    for (t = 0; t < LEVELS; t++) printf("%9d %%", (sum[t] + 2) / 4);
    printf("\n");
    return 0;
}
