/* Equation 6.1: convolution in one dimension, every product written out.
 *
 *     f(i) = sum over x from -(h-1)/2 to (h-1)/2 of z(i+x) u(x)                                  (6.1)
 *
 * z is the signal, u the kernel, h its size (odd, so that it has a middle), f the feature map.
 *
 *     make conv1d && ./conv1d          or          cc -O2 examples/conv1d.c -lm -o conv1d
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "show.h"

enum { N = 8, H = 3, R = (H - 1) / 2 };

static const float z[N] = { 6, 6, 2, 2, 2, 9, 9, 9 };
static const float u[H] = { -1, 0, 1 };

/* Prints one row of the table and returns f(i). */
static float at(int i)
{
    float f = 0;
    int x;
    for (x = -R; x <= R; x++) printf("%4g", z[i + x]);
    printf("    ");
    for (x = -R; x <= R; x++) printf(u[x + R] < 0 ? "%s%g*(%g)" : "%s%g*%g", x > -R ? " + " : "", z[i + x], u[x + R]);
    for (x = -R; x <= R; x++) {
        printf("%s%3g", x > -R ? " +" : " =", z[i + x] * u[x + R]);
        f += z[i + x] * u[x + R];
    }
    printf(" = %3g   %s\n", f, f > 0 ? "the signal rises" : f < 0 ? "the signal falls" : "flat");
    return f;
}

/* The same by the library. */
static void convolve(float *f, int padding)
{
    cnn_net *net = cnn_new(1, 1, N);
    cnn_conv1d(net, .out_channels = 1, .kernel_size = H, .padding = padding, .no_bias = 1);
    cnn_set(net, "0.weight", u, H);
    show_run(net, f, z);
    cnn_free(net);
}

int main(int argc, char **argv)
{
    float hand[N - 2 * R], library[N];
    int i;

    show_options(argc, argv, 0, "conv1d", "equation 6.1: convolution in one dimension, every product written out", "");
    show_title("Equation 6.1: convolution in one dimension",
               "f(i) = sum over x from -(h-1)/2 to (h-1)/2 of z(i+x) u(x)");
    printf("u = (-1, 0, 1), h = %d, so x = -1, 0, 1\n\n", H);
    printf("  i  z(i)                   window  products                             f(i)\n");
    for (i = 0; i < N; i++) {
        printf("  %d %5g  %-9.*s", i, z[i], (int)z[i], "#########");
        if (i >= R && i < N - R) hand[i - R] = at(i);
        else printf("  needs z(%d), which does not exist: no value without padding\n", i < R ? i - R : i + R);
    }

    printf("\n");
    convolve(library, 0);
    show_same("cnn_conv1d", library, hand, N - 2 * R);
    convolve(library, R);
    printf("With .padding = %d, a zero on either side, there are %d:", R, N);
    for (i = 0; i < N; i++) printf(" %g", library[i]);
    printf("\n");
    return 0;
}
