/* Section 6.3.1: a loss measures the errors of a network. Three losses train one network from the same initial weights.
 *
 *     cross-entropy     L = -1/N sum log softmax(y)[label]             outputs y: any numbers
 *     mean squared      L = 1/(N K) sum (y - t)^2                      y = softmax: t = 1 for the label, else 0
 *                                                                      y = tanh:    t = 1 for the label, else -1
 *
 *     make losses && ./losses          or          cc -O2 examples/losses.c -lm -o losses
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"
#include "show.h"

enum { CROSS_ENTROPY, SQUARED_SOFTMAX, SQUARED_TANH, LOSSES, CLASSES = 10 };

static const char *const names[LOSSES] = { "cross-entropy", "MSE of softmax", "MSE of tanh" };

static void put_outputs(cnn_net *net, int loss)             /* cross-entropy includes a softmax */
{
    cnn_name(net, "scores");
    cnn_linear(net, .out_features = CLASSES);
    if (loss == SQUARED_SOFTMAX) cnn_softmax(net);
    if (loss == SQUARED_TANH) cnn_tanh(net);
}

static void take_loss(cnn_net *net, const cnn_batch *batch, int loss)
{
    if (loss == CROSS_ENTROPY) cnn_cross_entropy(net, batch);
    else cnn_mse_loss(net, batch);
}

/* The same samples; for tanh they get targets, 1 for the label and -1 for the others. */
static cnn_data *with_targets(const cnn_data *data, int loss, float *targets)
{
    int n, k;
    for (n = 0; n < data->count; n++)
        for (k = 0; k < CLASSES; k++) targets[n * CLASSES + k] = k == data->labels[n] ? 1.0f : -1.0f;
    return cnn_data_new(.count = data->count, .channels = data->channels, .height = data->height, .width = data->width,
                        .classes = CLASSES, .outputs = CLASSES, .bytes = data->bytes, .labels = data->labels,
                        .targets = loss == SQUARED_TANH ? targets : NULL, .constant = 1);
}

/* One sample whose right class has the score z, the others 0: prints its loss L and -dL/dz. */
static void show_loss(float z, int loss)
{
    static const unsigned char pixel = 0;
    static const int label = 0;
    float targets[CLASSES], bias[CLASSES] = { z };
    cnn_data one = { .count = 1, .channels = 1, .height = 1, .width = 1, .bytes = &pixel, .labels = &label };
    cnn_data *data = with_targets(&one, loss, targets);
    cnn_batch batch = { data, &label, 1 };                  /* sample 0: &label serves as the order, as it is 0 */
    cnn_net *net = cnn_new(1, 1, 1);
    cnn_flatten(net);
    put_outputs(net, loss);
    cnn_set(net, "scores.bias", bias, CLASSES);
    cnn_forward(net, &batch);
    take_loss(net, &batch, loss);
    cnn_backward(net);                                      /* the gradients of a new network are 0 */
    cnn_get(net, "scores.bias.grad", bias, CLASSES);
    printf("%16.3f %8.4f", cnn_loss(net), -bias[0]);
    cnn_free(net);
    cnn_data_free(data);
}

static void show_one_sample(void)
{
    int z, loss;
    printf("One sample: z is the score of its right class, the scores of the other nine are 0\n\n"
           "     %25s%25s%25s\n    z", names[0], names[1], names[2]);
    for (loss = 0; loss < LOSSES; loss++) printf("%16s %8s", "loss", "pull");
    for (z = 4; z >= -4; z -= 2) {
        printf("\n%5d", z);
        for (loss = 0; loss < LOSSES; loss++) show_loss((float)z, loss);
    }
    printf("\n\nThe pull on z is -dL/dz. Cross-entropy pulls the harder, the more wrong z is. A squared error hardly\n"
           "pulls where z is most wrong, because softmax and tanh are flat there.\n\n");
}

static cnn_net *build(const example *e, int loss)
{
    cnn_net *net = cnn_new(1, 28, 28);
    example_begin(e, net);
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 5, .padding = 2);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_conv2d(net, .out_channels = 12, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_flatten(net);
    put_outputs(net, loss);
    cnn_adam(net, .lr = (float)e->lr);
    return net;
}

static void train_epoch(cnn_net *net, cnn_loader *batches, int loss)
{
    cnn_batch batch;
    while (cnn_next(batches, &batch)) {
        cnn_forward(net, &batch);
        take_loss(net, &batch, loss);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
    }
}

int main(int argc, char **argv)
{
    example e = { 0 };
    cnn_net *net[LOSSES];
    cnn_data *data[LOSSES];
    cnn_loader *batches[LOSSES];
    float *targets;
    int loss, epoch;

    e.name = "losses";
    e.about = "three loss functions on one network (section 6.3.1 of the lecture) on MNIST";
    e.data_name = "MNIST"; e.data_folder = "mnist"; e.read = cnn_load_mnist;
    e.epochs = 5; e.batch = 64; e.lr = 1e-3; e.train_limit = 6000; e.kind = EXAMPLE_COMPARES;
    example_options(&e, argc, argv);
    show_one_sample();
    example_load(&e);
    printf("\nAccuracy on the test samples, the same network trained with\n\n  epoch");
    targets = show_memory(sizeof *targets * CLASSES * e.train->count);
    for (loss = 0; loss < LOSSES; loss++) {
        printf("   %16s", names[loss]);
        net[loss] = build(&e, loss);
        data[loss] = with_targets(e.train, loss, targets);
        batches[loss] = cnn_loader_new(data[loss], .batch_size = e.batch, .shuffle = 1, .drop_last = 1, .seed = e.seed);
        if (cnn_loader_error(batches[loss])) example_fail(&e, "%s", cnn_loader_error(batches[loss]));
    }
    for (epoch = 1; epoch <= e.epochs; epoch++) {
        printf("\n  %5d", epoch);
        for (loss = 0; loss < LOSSES; loss++) {
            train_epoch(net[loss], batches[loss], loss);
            printf("   %14.2f %%", 100 * cnn_evaluate(net[loss], e.test, 256, CNN_CROSS_ENTROPY).accuracy);
            fflush(stdout);
            example_check(&e, net[loss]);
        }
    }
    printf("\n");
    for (loss = 0; loss < LOSSES; loss++) {
        cnn_loader_free(batches[loss]);
        cnn_data_free(data[loss]);
        if (loss) cnn_free(net[loss]);
    }
    free(targets);
    return example_end(&e, net[0]);
}
