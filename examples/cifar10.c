/* Program 6-4: a deeper network learns to recognise natural pictures (CIFAR-10) in colour: three input channels.
 * At the end it saves the learned parameters, its state dict, for program 6-5 (pretrained).
 *
 *     make cifar10 && ./cifar10          or          cc -O2 examples/cifar10.c -lm -o cifar10
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"
#include "networks.h"

int main(int argc, char **argv)
{
    example e = { 0 };
    cnn_net *net;

    e.name = "cifar10";
    e.about = "trains the CNN of program 6-4 on CIFAR-10 and saves its state dict";
    e.data_name = "CIFAR-10"; e.data_folder = "cifar-10"; e.read = cnn_load_cifar10;
    e.epochs = 30; e.batch = 128; e.lr = 1e-3;
    e.save = "my_cnn_state_dict.pth";
    example_options(&e, argc, argv);
    example_load(&e);

    net = cnn_new(3, 32, 32);
    example_begin(&e, net);
    network_cifar10_cnn(net);
    cnn_adam(net, .lr = (float)e.lr);
    example_train(&e, net);
    return example_end(&e, net);
}
