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

/* The middle square of a picture, at the size of CIFAR-10's. */
static void name_picture(const example *e, cnn_net *net)
{
    static const char *const names[10] = {
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck" };
    cnn_data *picture = cnn_load_image(e->image, .height = 32, .width = 32);
    float y[10];
    if (picture->error) example_fail(e, "%s", picture->error);
    cnn_set_scale(net, NULL, NULL);                         /* from 0 to 1, as it was trained */
    cnn_predict_bytes(net, y, picture->bytes, 1);
    example_check(e, net);
    example_name(e->image, y, names, 10);
    cnn_data_free(picture);
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
    if (e.image) cnn_softmax(net);                          /* probabilities */
    cnn_load(net, e.load);
    example_check(&e, net);
    if (e.image) name_picture(&e, net);
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
