/* networks.h - what more than one program builds: three networks of the lecture, residual blocks, ResNet-18. */
#ifndef NETWORKS_H
#define NETWORKS_H

#include <stdio.h>
#include "../cnn.h"

/* Program 6-1: LeNet-5, as lenet5.c writes it out. 1 x 28 x 28 -> 10 */
static inline void network_lenet5(cnn_net *net)
{
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
}

/* Programs 6-2 and 6-3: two convolutions before the only pooling, and dropout. 1 x 28 x 28 -> 10 */
static inline void network_mnist_cnn(cnn_net *net)
{
    cnn_block(net, "input_layer");
    cnn_conv2d(net, .out_channels = 32, .kernel_size = 3, .padding = 1);        /* 32 x 28 x 28 */
    cnn_relu(net);
    cnn_block(net, "hidden_layer_1");
    cnn_conv2d(net, .out_channels = 64, .kernel_size = 3, .padding = 1);        /* 64 x 28 x 28 */
    cnn_relu(net);
    cnn_name(net, "maxpool");
    cnn_max_pool2d(net, .kernel_size = 2);                                      /* 64 x 14 x 14 */
    cnn_name(net, "dropout_1");
    cnn_dropout(net, .p = 0.25f);
    cnn_name(net, "flatten");
    cnn_flatten(net);                                                           /* 12544        */
    cnn_block(net, "hidden_layer_2");
    cnn_linear(net, .out_features = 128);
    cnn_relu(net);
    cnn_name(net, "dropout_2");
    cnn_dropout(net, .p = 0.5f);
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = 10);
}

/* Programs 6-4 and 6-5: deeper, for colour pictures. 3 x 32 x 32 -> 10 */
static inline void network_cifar10_cnn(cnn_net *net)
{
    cnn_block(net, "input_layer");
    cnn_conv2d(net, .out_channels = 32, .kernel_size = 3, .padding = 1);        /* 32 x 32 x 32 */
    cnn_relu(net);
    cnn_block(net, "hidden_layer_1");
    cnn_conv2d(net, .out_channels = 32, .kernel_size = 3, .padding = 1);        /* 32 x 32 x 32 */
    cnn_relu(net);
    cnn_name(net, "maxpool_1");
    cnn_max_pool2d(net, .kernel_size = 2);                                      /* 32 x 16 x 16 */
    cnn_name(net, "dropout_1");
    cnn_dropout(net, .p = 0.25f);
    cnn_block(net, "hidden_layer_2");
    cnn_conv2d(net, .out_channels = 64, .kernel_size = 3, .padding = 1);        /* 64 x 16 x 16 */
    cnn_relu(net);
    cnn_conv2d(net, .out_channels = 64, .kernel_size = 3, .padding = 1);        /* 64 x 16 x 16 */
    cnn_relu(net);
    cnn_name(net, "maxpool_2");
    cnn_max_pool2d(net, .kernel_size = 2);                                      /* 64 x  8 x  8 */
    cnn_name(net, "dropout_2");
    cnn_dropout(net, .p = 0.25f);
    cnn_name(net, "flatten");
    cnn_flatten(net);                                                           /* 4096         */
    cnn_block(net, "hidden_layer_3");
    cnn_linear(net, .out_features = 512);
    cnn_relu(net);
    cnn_name(net, "dropout_3");
    cnn_dropout(net, .p = 0.5f);
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = 10);
}

/* A convolution and its batch normalisation, as block.conv and block.norm. */
static inline void conv_norm(cnn_net *net, const char *block, const char *conv, const char *norm, int channels,
                             int kernel, int stride)
{
    char name[60];
    snprintf(name, sizeof name, "%s%s", block, conv);
    cnn_name(net, name);
    cnn_conv2d(net, .out_channels = channels, .kernel_size = kernel, .stride = stride, .padding = kernel / 2,
               .no_bias = 1);
    snprintf(name, sizeof name, "%s%s", block, norm);
    cnn_name(net, name);
    cnn_batch_norm2d(net, 0);
}

/* He et al. 2015, figure 2: two convolutions, and a shortcut past them; where the shape changes, it is a convolution of
   1 x 1. The names are torchvision's. */
static inline void residual_block(cnn_net *net, const char *block, int channels, int stride)
{
    int x = cnn_here(net), y;
    conv_norm(net, block, "conv1", "bn1", channels, 3, stride);
    cnn_relu(net);
    conv_norm(net, block, "conv2", "bn2", channels, 3, 1);
    y = cnn_here(net);
    if (stride > 1) {
        cnn_from(net, x);
        conv_norm(net, block, "downsample.0", "downsample.1", channels, 1, stride);
        cnn_add(net, y);
    } else
        cnn_add(net, x);
    cnn_relu(net);
}

/* He et al. 2015, section 4.2.  3 x 32 x 32 -> 10 */
static inline void network_resnet20(cnn_net *net)
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

/* He et al. 2015, table 1, with torchvision's names. Its width is 64; a narrower one learns faster from less.
   3 x height x width -> classes */
static inline void network_resnet18(cnn_net *net, int width, int classes)
{
    char block[20];
    int stage, i;
    conv_norm(net, "", "conv1", "bn1", width, 7, 2);                            /* at 3 x 224 x 224, width 64: */
    cnn_relu(net);                                                              /*  64 x 112 x 112             */
    cnn_max_pool2d(net, .kernel_size = 3, .stride = 2, .padding = 1);           /*  64 x  56 x  56             */
    for (stage = 0; stage < 4; stage++)                                         /* 512 x   7 x   7             */
        for (i = 0; i < 2; i++) {
            snprintf(block, sizeof block, "layer%d.%d.", stage + 1, i);
            residual_block(net, block, width << stage, stage > 0 && i == 0 ? 2 : 1);
        }
    cnn_global_avg_pool2d(net);                                                 /* 512                         */
    cnn_name(net, "fc");
    cnn_linear(net, .out_features = classes);
}

#endif
