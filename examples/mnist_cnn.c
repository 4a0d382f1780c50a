/* Program 6-2: another convolutional network on MNIST. The structure is free: two convolutions before the only
 * pooling, more and smaller kernels, and dropout against overfitting.
 *
 *     make mnist_cnn && ./mnist_cnn          or          cc -O2 examples/mnist_cnn.c -lm -o mnist_cnn
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"
#include "networks.h"

int main(int argc, char **argv)
{
    example e = { 0 };
    cnn_net *net;

    e.name = "mnist_cnn";
    e.about = "trains the CNN of program 6-2 on MNIST";
    e.data_name = "MNIST"; e.data_folder = "mnist"; e.read = cnn_load_mnist;
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
