/* Program 6-3: the network of program 6-2 learns to tell clothes apart (Fashion-MNIST). Only the data set differs: what
 * the kernels detect is learned from it.
 *
 *     make fashion_mnist && ./fashion_mnist          or          cc -O2 examples/fashion_mnist.c -lm -o fashion_mnist
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"
#include "networks.h"

int main(int argc, char **argv)
{
    example e = { 0 };
    cnn_net *net;

    e.name = "fashion_mnist";
    e.about = "trains the CNN of program 6-3 on Fashion-MNIST";
    e.data_name = "Fashion-MNIST"; e.data_folder = "fashion-mnist"; e.read = cnn_load_fashion_mnist;
    e.epochs = 12; e.batch = 128; e.lr = 1e-3;
    example_options(&e, argc, argv);
    example_load(&e);

    net = cnn_new(1, 28, 28);
    example_begin(&e, net);
    network_mnist_cnn(net);
    cnn_adam(net, .lr = (float)e.lr);
    example_train(&e, net);
    return example_end(&e, net);
}
