/* Stride (section 6.2.2.1): the kernel moves by s pixels, so the map is s times smaller.
 *
 *     output = floor((input + 2 padding - h) / s) + 1
 *
 *     make stride && ./stride          or          cc -O2 examples/stride.c -lm -o stride
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "show.h"

enum { N = 8, H = 3, P = 1 };

static const float z[N * N] = {
    1, 1, 1, 1, 1, 1, 1, 1,
    1, 5, 5, 5, 5, 5, 1, 1,
    1, 5, 1, 1, 1, 1, 1, 1,
    1, 5, 5, 5, 5, 1, 1, 1,
    1, 1, 1, 1, 1, 5, 1, 1,
    1, 1, 1, 1, 1, 5, 1, 1,
    1, 5, 5, 5, 5, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1
};
static const float u[H * H] = { -1, 0, 1, -1, 0, 1, -1, 0, 1 };

/* Computes the map f of a side x side image with stride s (f NULL: does not) and returns its side. */
static int convolve(float *f, int side, int s)
{
    cnn_net *net = cnn_new(1, side, side);
    int shape[4] = { 0 };
    cnn_conv2d(net, .out_channels = 1, .kernel_size = H, .padding = P, .padding_mode = CNN_REPLICATE, .stride = s,
               .no_bias = 1);
    cnn_set(net, "0.weight", u, H * H);
    if (f) show_run(net, f, z);
    cnn_shape(net, "0", shape);
    cnn_free(net);
    return shape[2];
}

int main(int argc, char **argv)
{
    float f[4][N * N], kept[N * N];
    int side[4], s, j, i;

    show_options(argc, argv, 0, "stride", "stride: the kernel moves by s pixels", "");
    show_title("Stride", "output = floor((input + 2 padding - h) / s) + 1");
    for (s = 1; s <= 3; s++) side[s] = convolve(f[s], N, s);
    show_matrices((show_matrix[]){
        { "image", z, N, N, 1, 0, 0, 0, 0 },
        { "stride 1", f[1], side[1], side[1], 3, 0, 0, 0, 0 },
        { "stride 2", f[2], side[2], side[2], 3, 0, 0, 0, 0 },
        { "stride 3", f[3], side[3], side[3], 3, 0, 0, 0, 0 } }, 4);

    printf("  s   output size                                          products   a 256 x 256 image becomes\n");
    for (s = 1; s <= 3; s++) {
        int large = convolve(NULL, 256, s);
        printf("  %d   floor((%d + 2*%d - %d) / %d) + 1 = floor(%.2f) + 1 = %d   %8d   %d x %d\n", s, N, P, H, s,
               (double)(N + 2 * P - H) / s, side[s], side[s] * side[s] * H * H, large, large);
    }

    printf("\nA stride skips values and computes no new ones: every s-th value of every s-th row of stride 1.\n\n");
    for (s = 2; s <= 3; s++) {
        for (j = 0; j < side[s]; j++)
            for (i = 0; i < side[s]; i++) kept[j * side[s] + i] = f[1][s * j * N + s * i];
        printf("  s = %d: ", s);
        show_same("cnn_conv2d", f[s], kept, side[s] * side[s]);
    }
    return 0;
}
