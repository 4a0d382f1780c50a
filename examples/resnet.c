/* Beyond the lecture: ResNet-20 (He et al. 2015, section 4.2) on CIFAR-10, with batch normalisation, shortcuts and
 * augmented pictures. A block's shortcut carries its input past two convolutions; where the shape changes, through a
 * convolution of 1 x 1: residual_block in networks.h. The names are torchvision's, so state dicts go to PyTorch and back.
 *
 *     make resnet && ./resnet          or          cc -O2 examples/resnet.c -lm -o resnet
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"
#include "networks.h"

static void resnet20(cnn_net *net)                          /* 3 x 32 x 32 -> 10 */
{
    char block[20];
    int stage, i;
    conv_norm(net, "", "conv1", "bn1", 16, 3, 1);
    cnn_relu(net);
    for (stage = 1; stage <= 3; stage++)                    /* 16 x 32 x 32, 32 x 16 x 16, 64 x 8 x 8 */
        for (i = 0; i < 3; i++) {
            snprintf(block, sizeof block, "layer%d.%d.", stage, i);
            residual_block(net, block, 8 << stage, stage > 1 && i == 0 ? 2 : 1);
        }
    cnn_global_avg_pool2d(net);
    cnn_name(net, "fc");
    cnn_linear(net, .out_features = 10);
}

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
    resnet20(net);
    cnn_sgd(net, .lr = .1f, .momentum = .9f, .nesterov = 1, .weight_decay = 5e-4f);
    cnn_one_cycle_lr(net, .max_lr = (float)e.lr, .total_steps = e.epochs * (e.train->count / e.batch));
    example_train(&e, net);
    return example_end(&e, net);
}
