/* networks.h - the two networks that more than one program of the lecture trains. */
#ifndef NETWORKS_H
#define NETWORKS_H

#include "../cnn.h"

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

#endif
