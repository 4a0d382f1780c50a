/* Program 6-5: a trained network is used. Builds the network of program 6-4, loads the state dict that it saved,
 * and reaches the same accuracy without training. With --image it says what a picture of your own shows.
 *
 *     make pretrained && ./pretrained --load my_cnn_state_dict.pth [--image cat.jpg]
 *     cc -O2 $(pkg-config --cflags stb) examples/pretrained.c -lm -o pretrained
 */
#include "stb.h"
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"
#include "networks.h"

enum { SIZE = 32, PIXELS = SIZE * SIZE };

/* x: (3, 32, 32), red, green, blue from 0 to 1: the middle square of the picture, scaled by taking means of pixels. */
static void read_picture(const example *e, float *x, const char *path)
{
    int width, height, channels, c, j, i, u, v;
    unsigned char *pixels = stbi_load(path, &width, &height, &channels, 3);
    int side = width < height ? width : height, left = (width - side) / 2, top = (height - side) / 2;
    if (!pixels) example_fail(e, "%.300s: cannot be read as a picture: %s", path, stbi_failure_reason());
    for (c = 0; c < 3; c++)
        for (j = 0; j < SIZE; j++)
            for (i = 0; i < SIZE; i++) {
                int y0 = top + j * side / SIZE, y1 = top + (j + 1) * side / SIZE;
                int x0 = left + i * side / SIZE, x1 = left + (i + 1) * side / SIZE;
                double sum = 0;
                if (y1 == y0) y1++;
                if (x1 == x0) x1++;
                for (v = y0; v < y1; v++)
                    for (u = x0; u < x1; u++) sum += pixels[((size_t)v * width + u) * 3 + c];
                x[c * PIXELS + j * SIZE + i] = (float)(sum / ((y1 - y0) * (x1 - x0)) / 255);
            }
    stbi_image_free(pixels);
}

static void classify_picture(const example *e, cnn_net *net, const char *path)
{
    static const char *const names[10] = {
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck" };
    float x[3 * PIXELS], y[10], largest, sum = 0;
    int k, place;
    read_picture(e, x, path);
    cnn_predict(net, y, x, 1);
    example_check(e, net);
    for (largest = y[0], k = 1; k < 10; k++) if (y[k] > largest) largest = y[k];
    for (k = 0; k < 10; k++) sum += y[k] = expf(y[k] - largest);
    printf("%s:\n", path);
    for (place = 0; place < 5; place++) {
        int best = 0;
        for (k = 1; k < 10; k++) if (y[k] > y[best]) best = k;
        printf("  %5.1f %%  %s\n", 100 * y[best] / sum, names[best]);
        y[best] = -1;
    }
}

int main(int argc, char **argv)
{
    example e = { 0 };
    cnn_net *net;
    cnn_score score;

    e.name = "pretrained";
    e.about = "loads what cifar10 saved (program 6-5), evaluates it, and with --image FILE says what a picture shows";
    e.data_name = "CIFAR-10"; e.data_folder = "cifar-10"; e.read = cnn_load_cifar10;
    e.kind = EXAMPLE_USES;
    e.load = "my_cnn_state_dict.pth";
    example_options(&e, argc, argv);
    if (e.image && (e.data || e.report || e.limit))
        example_fail(&e, "with --image no test samples are read: leave --data, --limit and --report out");

    net = cnn_new(3, 32, 32);
    example_begin(&e, net);
    network_cifar10_cnn(net);
    cnn_load(net, e.load);
    example_check(&e, net);
    if (e.image)
        classify_picture(&e, net, e.image);
    else {
        if (e.report) example_try(&e, net, "--report", e.report, example_open);
        example_load(&e);
        score = cnn_evaluate(net, e.test, 256, CNN_CROSS_ENTROPY);
        example_check(&e, net);
        printf("test_loss %.4f test_acc %.2f%%\n", score.loss, 100 * score.accuracy);
        if (e.report) cnn_report(net, e.test, e.report, "pretrained on CIFAR-10");
        example_check(&e, net);
    }
    return example_end(&e, net);
}
