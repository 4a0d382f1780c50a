/* state_dict_tool.c - the lecture's networks for torch_roundtrip.py: loads or saves a state dict, prints logits.
 *
 *     state_dict_tool NETWORK [load FILE] [save FILE] [KEY VALUE]
 *     state_dict_tool metadata FILE KEY
 *
 * NETWORK: lenet5, mnist_cnn, cifar10, normalised, resnet18. The words after it are done in their order; a KEY and its VALUE
 * become metadata of the files that are saved. The last lines are the outputs for two fixed inputs; or the KEY's value.
 */
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../../examples/networks.h"

static void block_conv_relu(cnn_net *net, const char *name, int out_channels, int kernel_size)
{
    cnn_block(net, name);
    cnn_conv2d(net, .out_channels = out_channels, .kernel_size = kernel_size, .padding = kernel_size / 2);
    cnn_relu(net);
}

static void block_linear_relu(cnn_net *net, const char *name, int out_features)
{
    cnn_block(net, name);
    cnn_linear(net, .out_features = out_features);
    cnn_relu(net);
}

static cnn_net *network(const char *name)
{
    int mnist = !strcmp(name, "mnist_cnn");
    cnn_net *net = !strcmp(name, "resnet18") ? cnn_new(3, 224, 224) : !strcmp(name, "cifar10") ? cnn_new(3, 32, 32)
                                                                                               : cnn_new(1, 28, 28);
    cnn_manual_seed(net, 6);
    if (!strcmp(name, "resnet18")) {
        network_resnet18(net, 64, 10);
        return net;
    }
    if (!strcmp(name, "lenet5")) {
        block_conv_relu(net, "input_layer", 6, 5);
        cnn_max_pool2d(net, .kernel_size = 2);
        block_conv_relu(net, "hidden_layer_1", 16, 5);
        cnn_max_pool2d(net, .kernel_size = 2);
        block_conv_relu(net, "hidden_layer_2", 120, 5);
        cnn_flatten(net);
        block_linear_relu(net, "hidden_layer_3", 84);
    } else if (!strcmp(name, "normalised")) {
        cnn_name(net, "conv1");
        cnn_conv2d(net, .out_channels = 7, .kernel_size = 3, .no_bias = 1);
        cnn_name(net, "bn1");
        cnn_batch_norm2d(net, 0);
        cnn_relu(net);
        cnn_block(net, "layer1");
        cnn_conv2d(net, .out_channels = 5, .kernel_size = 3, .stride = 2);
        cnn_batch_norm2d(net, .eps = 0.01f, .no_affine = 1);
        cnn_relu(net);
        cnn_flatten(net);
        cnn_block(net, "layer2");
        cnn_linear(net, .out_features = 9);
        cnn_batch_norm1d(net, 0);
        cnn_batch_norm1d(net, .no_running_stats = 1);
        cnn_tanh(net);
    } else {
        block_conv_relu(net, "input_layer", 32, 3);
        block_conv_relu(net, "hidden_layer_1", mnist ? 64 : 32, 3);
        cnn_max_pool2d(net, .kernel_size = 2);
        cnn_dropout(net, .p = 0.25f);
        if (!mnist) {
            block_conv_relu(net, "hidden_layer_2", 64, 3);
            cnn_conv2d(net, .out_channels = 64, .kernel_size = 3, .padding = 1);
            cnn_relu(net);
            cnn_max_pool2d(net, .kernel_size = 2);
            cnn_dropout(net, .p = 0.25f);
        }
        cnn_flatten(net);
        block_linear_relu(net, mnist ? "hidden_layer_2" : "hidden_layer_3", mnist ? 128 : 512);
        cnn_dropout(net, .p = 0.5f);
    }
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = 10);
    return net;
}

int main(int argc, char **argv)
{
    enum { SAMPLES = 2, MOST = 3 * 224 * 224 };
    static float x[SAMPLES * MOST], y[SAMPLES * 10];
    cnn_net *net;
    int i, bad;
    if (argc == 4 && !strcmp(argv[1], "metadata")) {
        char value[1000];
        i = cnn_read_metadata(argv[2], argv[3], value, sizeof value);
        printf("%s", value);
        return !i;
    }
    net = network(argc > 1 ? argv[1] : "lenet5");
    for (i = 2; i + 1 < argc; i += 2)
        if (!strcmp(argv[i], "load")) cnn_load(net, argv[i + 1]);
        else if (!strcmp(argv[i], "save")) cnn_save(net, argv[i + 1]);
        else cnn_set_metadata(net, argv[i], argv[i + 1]);
    for (i = 0; i < SAMPLES * MOST; i++) x[i] = (float)((long long)i * 7919 % 1021) / 1024 - 0.5f;
    cnn_predict(net, y, x, SAMPLES);
    if (cnn_error(net)) fprintf(stderr, "%s\n", cnn_error(net));
    else for (i = 0; i < SAMPLES * 10; i++) printf("%.9g\n", y[i]);
    bad = cnn_error(net) != NULL;
    cnn_free(net);
    return bad;
}
