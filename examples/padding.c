/* Padding (section 6.2.2.1): what the kernel finds beyond the border, and how maps shrink without it.
 *
 *     output = input + 2 padding - h + 1          same size:  padding = (h-1)/2
 *
 *     make padding && ./padding          or          cc -O2 examples/padding.c -lm -o padding
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "show.h"

enum { N = 3, P = 2, W = N + 2 * P };

static const float z[N * N] = {
    1, 2, 3,
    4, 5, 6,
    7, 8, 9
};
static const char *const names[4] = { "zeros", "replicate", "reflect", "circular" };

/* f: one map of z under kernel u (h x h). A kernel of the single number 1 gives the padded image itself. */
static void convolve(float *f, const float *u, int h, int padding, cnn_padding_mode mode)
{
    cnn_net *net = cnn_new(1, N, N);
    cnn_conv2d(net, .out_channels = 1, .kernel_size = h, .padding = padding, .padding_mode = mode, .no_bias = 1);
    cnn_set(net, "0.weight", u, (size_t)h * h);
    show_run(net, f, z);
    cnn_free(net);
}

/* The side of a 256 x 256 image after some layers of h x h kernels, as the library computes it. */
static int side(int h, int padding, int layers)
{
    cnn_net *net = cnn_new(1, 256, 256);
    int shape[4] = { 0 }, i;
    for (i = 0; i < layers; i++) cnn_conv2d(net, .out_channels = 1, .kernel_size = h, .padding = padding);
    cnn_shape(net, cnn_layer_name(net, layers - 1), shape);
    cnn_free(net);
    return shape[2];
}

int main(int argc, char **argv)
{
    static const float identity[1] = { 1 }, edge[9] = { -1, 0, 1, -1, 0, 1, -1, 0, 1 };
    static const int kernels[] = { 3, 5, 7, 11 };
    float padded[4][W * W], maps[4][N * N];
    show_matrix shown[4];
    int m, k;

    show_options(argc, argv, 0, "padding", "padding: what the kernel finds beyond the border", "");
    show_title("Padding", "output = input + 2 padding - h + 1          same size: padding = (h-1)/2");
    printf("A 3 x 3 image with 2 pixels of padding (the image in brackets):\n\n");
    for (m = 0; m < 4; m++) {
        convolve(padded[m], identity, 1, P, (cnn_padding_mode)m);
        shown[m] = (show_matrix){ names[m], padded[m], W, W, 2, 0, P, P, N };
    }
    show_matrices(shown, 4);

    printf("Under the vertical-edge kernel, padding 1, zeros look like an edge on either side:\n\n");
    for (m = 0; m < 4; m++) {
        convolve(maps[m], edge, 3, 1, (cnn_padding_mode)m);
        shown[m] = (show_matrix){ names[m], maps[m], N, N, 6, 0, 0, 0, 0 };
    }
    show_matrices(shown, 4);

    printf("256 x 256 without padding, and the padding that keeps it:\n\n");
    printf("  kernel    1 layer      2 layers     10 layers    nothing is left after   padding   with it\n");
    for (k = 0; k < 4; k++) {
        int h = kernels[k], same = (h - 1) / 2;
        int one = side(h, 0, 1), two = side(h, 0, 2), ten = side(h, 0, 10), kept = side(h, same, 1);
        printf("  %2d x %-2d   %3d x %d    %3d x %d    %3d x %d    %3d layers              %d         %d x %d\n", h, h,
               one, one, two, two, ten, ten, 255 / (h - 1) + 1, same, kept, kept);
    }
    printf("\n11 x 11: 256 + 2*0 - 11 + 1 = %d, five pixels lost on each of the four sides.\n", side(11, 0, 1));
    return 0;
}
