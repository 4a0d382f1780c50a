/* Figure 6-11: LeNet-5 of 1998, C-P-C-P-C-FC-FC: its tensors and its parameters, counted in two ways.
 *
 *     one channel deep   (h h + 1) k'         as the slide counts every kernel
 *     full depth         (h h k + 1) k'       a kernel is as deep as its input, k channels
 *
 * Then global average pooling (GAP) in place of the full connections: one map a class, its mean the class's score.
 *
 *     make lenet1998 && ./lenet1998          or          cc -O2 examples/lenet1998.c -lm -o lenet1998
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "show.h"

/* The two ends: full connections as in 1998, or a map for each class and the mean of each map. */
enum { FULL, GAP };

static cnn_net *lenet(int side, int end)
{
    cnn_net *net = cnn_new(1, side, side);
    cnn_name(net, "C1");
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 5);
    cnn_tanh(net);
    cnn_name(net, "P2");
    cnn_avg_pool2d(net, .kernel_size = 2);
    cnn_name(net, "C3");
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 5);
    cnn_tanh(net);
    cnn_name(net, "P4");
    cnn_avg_pool2d(net, .kernel_size = 2);
    cnn_name(net, "C5");
    cnn_conv2d(net, .out_channels = 120, .kernel_size = 5);
    cnn_tanh(net);
    if (end == FULL) {
        cnn_flatten(net);
        cnn_name(net, "FC6");
        cnn_linear(net, .out_features = 84);
        cnn_tanh(net);
        cnn_name(net, "FC7");
        cnn_linear(net, .out_features = 10);
    } else {
        cnn_name(net, "C6");
        cnn_conv2d(net, .out_channels = 10, .kernel_size = 1);
        cnn_name(net, "GAP");
        cnn_global_avg_pool2d(net);
    }
    return net;
}

/* Prints a layer's row; adds its parameters, counted one channel deep and with full depth, to sum. */
static void show_layer(cnn_net *net, const char *layer, const char *what, double sum[2])
{
    char key[20], text[3][40], count[2][32];
    int out[4], w[4], linear, shallow, deep;
    linear = cnn_shape(net, layer, out) == 2;
    snprintf(text[0], sizeof text[0], linear ? "%d" : "%d x %d x %d", out[1], out[2], out[3]);
    printf("  %-5s %-18s %-*s", layer, what, layer[0] == 'P' ? 0 : 13, text[0]);
    if (layer[0] == 'P') {
        printf("\n");
        return;
    }
    snprintf(key, sizeof key, "%s.weight", layer);
    cnn_shape(net, key, w);                                 /* (k', k, h, h); of a full connection (outputs, inputs) */
    shallow = ((linear ? w[1] : w[2] * w[3]) + 1) * w[0];
    deep = ((linear ? w[1] : w[2] * w[3] * w[1]) + 1) * w[0];
    sum[0] += shallow;
    sum[1] += deep;
    if (linear) snprintf(text[1], sizeof text[1], "(%d+1)*%d", w[1], w[0]);
    else snprintf(text[1], sizeof text[1], "(%d*%d+1)*%d", w[2], w[3], w[0]);
    if (linear) snprintf(text[2], sizeof text[2], "(%d+1)*%d", w[1], w[0]);
    else snprintf(text[2], sizeof text[2], "(%d*%d*%d+1)*%d", w[2], w[3], w[1], w[0]);
    printf("  %-13s =%7s    %-16s =%7s\n", text[1], show_count(count[0], shallow), text[2], show_count(count[1], deep));
}

static void show_sum(const char *what, double shallow, double deep)
{
    char count[2][32];
    printf("  %-38s%24s%29s\n", what, show_count(count[0], shallow), show_count(count[1], deep));
}

/* The parameters behind the third convolution: all but those of C1, C3 and C5. */
static double behind_c5(int side, int end, int c5[4])
{
    cnn_net *net = lenet(side, end);
    double parameters = (double)cnn_num_parameters(net);
    const char *key;
    int i;
    for (i = 0; i < 6 && (key = cnn_key(net, i)); i++) parameters -= (double)cnn_get(net, key, NULL, 0);
    cnn_shape(net, "C5", c5);
    cnn_free(net);
    return parameters;
}

int main(int argc, char **argv)
{
    cnn_net *net = lenet(32, FULL);
    double conv[2] = { 0, 0 }, full[2] = { 0, 0 };
    char count[3][32];
    int side;

    show_options(argc, argv, 0, "lenet1998", "figure 6-11: LeNet-5 of 1998, its tensors and its parameters", "");
    show_title("Figure 6-11: LeNet-5 of 1998", "C-P-C-P-C-FC-FC without padding, on 1 x 32 x 32");
    printf("  layer                    output         one channel deep           with full depth\n");
    show_layer(net, "C1", "5 x 5, 6 kernels", conv);
    show_layer(net, "P2", "2 x 2, stride 2", conv);
    show_layer(net, "C3", "5 x 5, 16 kernels", conv);
    show_layer(net, "P4", "2 x 2, stride 2", conv);
    show_layer(net, "C5", "5 x 5, 120 kernels", conv);
    show_layer(net, "FC6", "", full);
    show_layer(net, "FC7", "", full);
    printf("\n");
    show_sum("convolutions", conv[0], conv[1]);
    show_sum("full connections", full[0], full[1]);
    show_sum("both", conv[0] + full[0], conv[1] + full[1]);
    printf("\nThe library counts %s. A kernel is as deep as its input: one of C3 sees all 6 maps of P2,\n"
           "one of C5 all 16 of P4. One channel deep leaves out 5*5*(6-1)*16 + 5*5*(16-1)*120 = %s.\n\n",
           show_count(count[0], (double)cnn_num_parameters(net)),
           show_count(count[1], 5 * 5 * (6 - 1) * 16 + 5 * 5 * (16 - 1) * 120));
    cnn_free(net);

    printf("Global average pooling (GAP): a 1 x 1 convolution makes one map for each class; a map's mean is\n"
           "its class's score. Parameters behind C5:\n\n"
           "  input     output of C5    full connections    1 x 1 convolution, GAP      saved\n");
    for (side = 32; side <= 64; side += 32) {
        int c5[4];
        double fc = behind_c5(side, FULL, c5), gap = behind_c5(side, GAP, c5);
        printf("  %d x %d   %d x %d x %d    %18s  %24s  %9s\n", side, side, c5[1], c5[2], c5[3],
               show_count(count[0], fc), show_count(count[1], gap), show_count(count[2], fc - gap));
    }
    return 0;
}
