/* Section 6.3.2: features made by hand against learned ones, under the same classifier (figure 6-12).
 *
 *     image -> features, 4 x 7 x 7 -> linear classifier -> 10 classes
 *
 * By hand: the vertical and the horizontal edge kernel of figure 6-5 and their opposites, ReLU, max pooling; only the
 * classifier learns. Learned: first the same kernels, which now learn too; then two layers from random weights.
 *
 *     make features && ./features          or          cc -O2 examples/features.c -lm -o features
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"
#include "show.h"

enum { BY_HAND, LEARNED_ON, LEARNED, WAYS };

static const char *const names[WAYS] = { "edges by hand", "edges, learned on", "two learned layers" };
static const float edges[4 * 9] = {
    -0.3f, 0, 0.3f, -0.3f, 0, 0.3f, -0.3f, 0, 0.3f,         0.3f, 0, -0.3f, 0.3f, 0, -0.3f, 0.3f, 0, -0.3f,
    -0.3f, -0.3f, -0.3f, 0, 0, 0, 0.3f, 0.3f, 0.3f,         0.3f, 0.3f, 0.3f, 0, 0, 0, -0.3f, -0.3f, -0.3f
};

static cnn_net *build(const example *e, int way)
{
    cnn_net *net = cnn_new(1, 28, 28);
    example_begin(e, net);
    if (way == LEARNED) {
        cnn_conv2d(net, .out_channels = 8, .kernel_size = 5, .padding = 2);                 /* 8 x 28 x 28 */
        cnn_relu(net);
        cnn_max_pool2d(net, .kernel_size = 2);                                              /* 8 x 14 x 14 */
        cnn_conv2d(net, .out_channels = 4, .kernel_size = 5, .padding = 2);                 /* 4 x 14 x 14 */
        cnn_relu(net);
        cnn_max_pool2d(net, .kernel_size = 2);                                              /* 4 x  7 x  7 */
    } else {
        cnn_name(net, "edges");
        cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1, .no_bias = 1);   /* 4 x 28 x 28 */
        cnn_relu(net);
        cnn_max_pool2d(net, .kernel_size = 4);                                              /* 4 x  7 x  7 */
    }
    cnn_flatten(net);                                                                       /* 196         */
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = 10);
    cnn_adam(net, .lr = (float)e->lr);
    if (way != LEARNED) cnn_set(net, "edges.weight", edges, 4 * 9);
    return net;
}

static void train_epoch(cnn_net *net, cnn_loader *batches, int way)
{
    cnn_batch batch;
    while (cnn_next(batches, &batch)) {
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
        if (way == BY_HAND) cnn_set(net, "edges.weight", edges, 4 * 9);     /* undoes the step: these do not learn */
    }
}

static void show_kernels(cnn_net *net)
{
    static const char *const titles[4] = { "0", "1", "2", "3" };
    float kernels[4 * 9];
    show_matrix shown[4];
    int k;
    cnn_get(net, "edges.weight", kernels, 4 * 9);
    for (k = 0; k < 4; k++) shown[k] = (show_matrix){ titles[k], kernels + 9 * k, 3, 3, 5, 2, 0, 0, 0 };
    show_matrices(shown, 4);
}

/* Map 0 of the first test sample, from each network with edge kernels. */
static void show_maps(cnn_net **net, const cnn_data *test)
{
    static const int first = 0;
    static float map[4 * 28 * 28];
    static unsigned char rgb[3][3 * 28 * 28];
    cnn_batch batch = { test, &first, 1 };
    float largest;
    int way, p;
    for (p = 0; p < 28 * 28; p++) map[p] = test->bytes[p];
    show_paint(rgb[2], map, 28 * 28, 255, 0);
    for (way = BY_HAND; way <= LEARNED_ON; way++) {
        cnn_forward(net[way], &batch);
        cnn_get(net[way], "edges", map, 4 * 28 * 28);
        for (p = 0, largest = 0; p < 28 * 28; p++) largest = fmaxf(largest, fabsf(map[p]));
        show_paint(rgb[way], map, 28 * 28, largest, 1);
    }
    show_pictures((show_picture[]){ { "the first test sample", rgb[2], 28, 28, 1 },
                                    { "map 0 by hand", rgb[BY_HAND], 28, 28, 1 },
                                    { "map 0 learned on", rgb[LEARNED_ON], 28, 28, 1 } }, 3);
}

int main(int argc, char **argv)
{
    example e = { 0 };
    cnn_net *net[WAYS];
    cnn_loader *batches;
    int way, epoch;

    e.name = "features";
    e.about = "features made by hand against learned ones (section 6.3.2 of the lecture) on MNIST";
    e.data_name = "MNIST"; e.data_folder = "mnist"; e.read = cnn_load_mnist;
    e.epochs = 5; e.batch = 64; e.lr = 3e-3; e.train_limit = 12000; e.kind = EXAMPLE_COMPARES;
    example_options(&e, argc, argv);
    example_load(&e);
    batches = cnn_loader_new(e.train, .batch_size = e.batch, .shuffle = 1, .drop_last = 1, .seed = e.seed);
    if (cnn_loader_error(batches)) example_fail(&e, "%s", cnn_loader_error(batches));

    printf("\nAccuracy on the test samples with the same classifier, 196 features to 10 classes, on\n\n  epoch");
    for (way = 0; way < WAYS; way++) {
        net[way] = build(&e, way);
        printf("   %20s", names[way]);
    }
    for (epoch = 1; epoch <= e.epochs; epoch++) {
        printf("\n  %5d", epoch);
        for (way = 0; way < WAYS; way++) {
            cnn_set_epoch(batches, epoch - 1);              /* each way sees the samples in the same order */
            train_epoch(net[way], batches, way);
            printf("   %18.2f %%", 100 * cnn_evaluate(net[way], e.test, 256, CNN_CROSS_ENTROPY).accuracy);
            fflush(stdout);
            example_check(&e, net[way]);
        }
    }
    printf("\n\nThe kernels by hand, and what learning made of them:\n\n");
    show_kernels(net[BY_HAND]);
    show_kernels(net[LEARNED_ON]);
    show_maps(net, e.test);

    cnn_loader_free(batches);
    cnn_free(net[BY_HAND]);
    cnn_free(net[LEARNED_ON]);
    return example_end(&e, net[LEARNED]);
}
