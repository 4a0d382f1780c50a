/* Equation 6.2: convolution in two dimensions, and what the sign of the result says.
 *
 *     f(j,i) = sum over x, y from -(h-1)/2 to (h-1)/2 of z(j+y, i+x) u(y,x)                      (6.2)
 *
 * This kernel takes the left column of its window from the right one: it finds vertical edges.
 *
 *     make conv2d && ./conv2d          or          cc -O2 examples/conv2d.c -lm -o conv2d
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "show.h"

enum { N = 8, H = 3, R = (H - 1) / 2, M = N - 2 * R };

static const float z[N * N] = {
    2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 9, 9, 9, 2, 2,
    2, 2, 2, 9, 9, 9, 2, 2,
    2, 2, 2, 9, 9, 9, 2, 2,
    2, 2, 2, 9, 9, 9, 2, 2,
    2, 2, 2, 9, 9, 9, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2
};
static const float u[H * H] = {
    -1, 0, 1,
    -1, 0, 1,
    -1, 0, 1
};

static float at(int j, int i)
{
    float f = 0;
    int y, x;
    for (y = -R; y <= R; y++)
        for (x = -R; x <= R; x++) f += z[(j + y) * N + i + x] * u[(y + R) * H + x + R];
    return f;
}

static float column(int j, int i)                           /* the sum of three rows */
{
    return z[(j - 1) * N + i] + z[j * N + i] + z[(j + 1) * N + i];
}

static void explain(int j, int i, const char *why)
{
    printf("  [%d,%d]   right %2g - left %2g = %3g   %s\n", j, i, column(j, i + 1), column(j, i - 1), at(j, i), why);
}

int main(int argc, char **argv)
{
    float map[N * N], hand[M * M], library[M * M];
    cnn_net *net;
    int j, i, y, x;

    show_options(argc, argv, 0, "conv2d",
                 "equation 6.2: convolution in two dimensions, and what the sign of the result says", "");
    show_title("Equation 6.2: convolution in two dimensions",
               "f(j,i) = sum over x, y from -(h-1)/2 to (h-1)/2 of z(j+y, i+x) u(y,x)");
    for (j = 0; j < N; j++)
        for (i = 0; i < N; i++) map[j * N + i] = j < R || i < R || j >= N - R || i >= N - R ? NAN : at(j, i);
    show_matrices((show_matrix[]){
        { "image z", z, N, N, 2, 0, 5 - R, 2 - R, H },
        { "kernel u", u, H, H, 2, 0, 0, 0, 0 },
        { "feature map f", map, N, N, 3, 0, 5, 2, 1 } }, 3);

    printf("The window at [5,2], row 5 and column 2 counted from 0, and its nine products:\n\n");
    for (y = -R; y <= R; y++) {
        for (x = -R; x <= R; x++) {
            float pixel = z[(5 + y) * N + 2 + x], weight = u[(y + R) * H + x + R];
            printf(weight < 0 ? "    %g*(%g) = %2g" : "    %g*%g = %2g", pixel, weight, pixel * weight);
        }
        printf("\n");
    }
    printf("\n  f(5,2) = %g\n\n", at(5, 2));

    printf("Where the map is positive, negative, zero, and why:\n\n");
    explain(5, 2, "positive: bright on the right, dark on the left");
    explain(5, 5, "negative: dark on the right, bright on the left");
    explain(5, 4, "zero: equally bright on both sides");
    explain(1, 4, "zero: a horizontal edge looks the same on both sides");
    explain(1, 2, "a corner: only one row of the window crosses the edge");

    net = cnn_new(1, N, N);
    cnn_conv2d(net, .out_channels = 1, .kernel_size = H, .no_bias = 1);
    cnn_set(net, "0.weight", u, H * H);
    show_run(net, library, z);
    cnn_free(net);
    for (j = 0; j < M; j++)
        for (i = 0; i < M; i++) hand[j * M + i] = at(j + R, i + R);
    printf("\n");
    show_same("cnn_conv2d", library, hand, M * M);
    return 0;
}
