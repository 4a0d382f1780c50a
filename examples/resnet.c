/* Beyond the lecture: ResNet-20 (He et al. 2015, section 4.2) on CIFAR-10, with batch normalisation, shortcuts and
 * augmented pictures. A block's shortcut carries its input past two convolutions; where the shape changes, through a
 * convolution of 1 x 1: network_resnet20 and residual_block in networks.h. The names are torchvision's, so state dicts go to
 * PyTorch and back.
 *
 *     make resnet && ./resnet          or          cc -O2 examples/resnet.c -lm -o resnet
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"
#include "networks.h"

int main(int argc, char **argv)
{
    static const float mean[3] = { .4914f, .4822f, .4465f }, deviation[3] = { .2470f, .2435f, .2616f };
    example e = { 0 };
    cnn_net *net;

    e.name = "resnet";
    e.about = "trains ResNet-20 on CIFAR-10, with augmentation and a one-cycle schedule up to the learning rate";
    e.data_name = "CIFAR-10"; e.data_folder = "cifar-10"; e.read = cnn_load_cifar10;
    e.epochs = 30; e.batch = 128; e.lr = .2;
    e.augment.padding = 4; e.augment.flip = 1;
    example_options(&e, argc, argv);
    example_load(&e);
    cnn_normalize(e.train, mean, deviation);
    cnn_normalize(e.test, mean, deviation);

    net = cnn_new(3, 32, 32);
    example_begin(&e, net);
    network_resnet20(net);
    cnn_sgd(net, .lr = .1f, .momentum = .9f, .nesterov = 1, .weight_decay = 5e-4f);
    cnn_one_cycle_lr(net, .max_lr = (float)e.lr, .total_steps = e.epochs * (e.train->count / e.batch));
    example_train(&e, net);
    return example_end(&e, net);
}
