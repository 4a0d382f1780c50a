/* native.c - what cnn.h says on this machine, for the page to be compared with: the logits, or cnn_explain.
 *     native WEIGHTS logits <pictures                        28 x 28 bytes each; ten numbers a line
 *     native WEIGHTS explain LAYER CHANNEL ROW COLUMN <picture
 */
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../../examples/networks.h"

int main(int argc, char **argv)
{
    static unsigned char picture[28 * 28];
    static const int first[1] = { 0 };
    cnn_net *net = cnn_new(1, 28, 28);
    cnn_data *data = cnn_data_new(.count = 1, .channels = 1, .height = 28, .width = 28, .bytes = picture);
    cnn_batch batch = { 0 };
    float y[10];
    int i;
    network_lenet5(net);
    cnn_load(net, argc > 1 ? argv[1] : NULL);
    cnn_eval(net);
    batch.data = data; batch.order = first; batch.size = 1;
    while (!cnn_error(net) && fread(picture, 1, sizeof picture, stdin) == sizeof picture) {
        cnn_forward(net, &batch);
        if (argc == 7) cnn_explain(net, argv[3], atoi(argv[4]), atoi(argv[5]), atoi(argv[6]), stdout);
        else if (cnn_get(net, "classifier", y, 10))
            for (i = 0; i < 10; i++) printf("%.9g%c", (double)y[i], i < 9 ? ' ' : '\n');
    }
    if (cnn_error(net)) fprintf(stderr, "%s\n", cnn_error(net));
    return cnn_error(net) != NULL;
}
