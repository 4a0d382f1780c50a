/* Figure 6-9: partial connectivity and weight sharing. A convolution is a full connection with most edges cut and
 * the same h weights at every node.
 *
 *     full       n1 x n2 edges, as many weights to learn
 *     local      h x n2 edges, as many weights to learn
 *     shared     h x n2 edges, h weights to learn
 *
 *     make sharing && ./sharing          or          cc -O2 examples/sharing.c -lm -o sharing
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "show.h"

enum { N1 = 8, H = 3, N2 = N1 - H + 1 };

static const float z[N1] = { 6, 6, 2, 2, 2, 9, 9, 9 };
static const float u[H] = { -1, 0, 1 };

/* Output node j sees the h input nodes j .. j + h - 1. */
static int connected(int j, int i) { return i >= j && i < j + H; }

/* The weight of each edge: a row for each output node, a column for each input node. */
static void draw(void)
{
    int j, i, n = 1;
    printf("  full: %d edges, %d weights         local: %d edges, %d weights        shared: %d edges, %d weights\n",
           N1 * N2, N1 * N2, H * N2, H * N2, H * N2, H);
    for (j = 0; j < N2; j++) {
        for (i = 0; i < N1; i++) printf("%4d", j * N1 + i + 1);
        printf("   ");
        for (i = 0; i < N1; i++) {
            if (connected(j, i)) printf("%4d", n++);
            else printf("   .");
        }
        printf("   ");
        for (i = 0; i < N1; i++) printf("%3c", connected(j, i) ? "abc"[i - j] : '.');
        printf("\n");
    }
    printf("\n");
}

/* The same numbers from a full connection with the weights of the third drawing and from a convolution. */
static void compare(void)
{
    float w[N2 * N1], full[N2], conv[N2];
    cnn_net *a = cnn_new(1, 1, N1), *b = cnn_new(1, 1, N1);
    int i;
    for (i = 0; i < N2 * N1; i++) w[i] = connected(i / N1, i % N1) ? u[i % N1 - i / N1] : 0;
    cnn_flatten(a);
    cnn_linear(a, .out_features = N2, .no_bias = 1);
    cnn_set(a, "1.weight", w, N2 * N1);
    show_run(a, full, z);
    cnn_conv1d(b, .out_channels = 1, .kernel_size = H, .no_bias = 1);
    cnn_set(b, "0.weight", u, H);
    show_run(b, conv, z);
    printf("With a, b, c = -1, 0, 1 and the signal of equation 6.1:\n\n"
           "  cnn_linear, %2d weights, those without an edge 0:", (int)cnn_num_parameters(a));
    for (i = 0; i < N2; i++) printf("%4g", full[i]);
    printf("\n  cnn_conv1d, %2d weights:                         ", (int)cnn_num_parameters(b));
    for (i = 0; i < N2; i++) printf("%4g", conv[i]);
    printf("\n\n");
    show_same("cnn_conv1d", conv, full, N2);
    cnn_free(a);
    cnn_free(b);
}

static void count(const char *name, int channels, int side, int maps, int h)
{
    cnn_net *net = cnn_new(channels, side, side);
    double n1 = (double)channels * side * side, n2 = (double)maps * (side - h + 1) * (side - h + 1);
    char text[5][32];
    cnn_conv2d(net, .out_channels = maps, .kernel_size = h, .no_bias = 1);
    printf("  %-32s %8s %10s %16s %12s %8s\n", name, show_count(text[0], n1), show_count(text[1], n2),
           show_count(text[2], n1 * n2), show_count(text[3], (double)channels * h * h * n2),
           show_count(text[4], (double)cnn_num_parameters(net)));
    cnn_free(net);
}

int main(int argc, char **argv)
{
    show_options(argc, argv, 0, "sharing", "figure 6-9: partial connectivity and weight sharing", "");
    show_title("Figure 6-9: partial connectivity and weight sharing",
               "weights to learn:   full n1 x n2      local h x n2      shared h");
    draw();
    compare();
    printf("\nReal sizes; k' kernels of h x h on k channels have k' x h x h x k weights (biases not counted):\n\n");
    printf("  %-32s %8s %10s %16s %12s %8s\n", "", "", "", "full: edges", "local: edges", "shared:");
    printf("  %-32s %8s %10s %16s %12s %8s\n", "layer", "n1", "n2", "= weights", "= weights", "weights");
    count("28 x 28, 1 kernel 5 x 5", 1, 28, 1, 5);
    count("LeNet-5: 32 x 32, 6 of 5 x 5", 1, 32, 6, 5);
    count("28 x 28, 32 of 3 x 3", 1, 28, 32, 3);
    count("3 x 32 x 32, 32 of 3 x 3 x 3", 3, 32, 32, 3);
    count("3 x 224 x 224, 64 of 3 x 3 x 3", 3, 224, 64, 3);
    return 0;
}
