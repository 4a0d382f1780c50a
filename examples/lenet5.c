/* Program 6-1: LeNet-5 learns to read handwritten digits (MNIST).
 *
 * The network of figure 6-11, as the lecture trains it: three convolution layers extract features, two linear
 * layers classify, and all parameters, kernels and weights alike, are learned end to end.
 *
 *     make lenet5 && ./lenet5          or          cc -O2 examples/lenet5.c -lm -o lenet5
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"

int main(int argc, char **argv)
{
    example e = { 0 };
    cnn_net *net;

    e.name = "lenet5";
    e.about = "trains LeNet-5 (program 6-1 of the lecture) on MNIST";
    e.data_name = "MNIST"; e.data_folder = "mnist"; e.read = cnn_load_mnist;
    e.epochs = 30; e.batch = 128; e.lr = 1e-3;
    example_options(&e, argc, argv);
    example_load(&e);

    net = cnn_new(1, 28, 28);
    example_begin(&e, net);

    cnn_block(net, "input_layer");
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 5, .padding = 2);         /*   6 x 28 x 28 */
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);                                      /*   6 x 14 x 14 */
    cnn_block(net, "hidden_layer_1");
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 5, .padding = 2);        /*  16 x 14 x 14 */
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);                                      /*  16 x  7 x  7 */
    cnn_block(net, "hidden_layer_2");
    cnn_conv2d(net, .out_channels = 120, .kernel_size = 5, .padding = 2);       /* 120 x  7 x  7 */
    cnn_relu(net);
    cnn_flatten(net);                                                           /* 5880          */
    cnn_block(net, "hidden_layer_3");
    cnn_linear(net, .out_features = 84);
    cnn_relu(net);
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = 10);

    cnn_adam(net, .lr = (float)e.lr);
    example_train(&e, net);
    return example_end(&e, net);
}
