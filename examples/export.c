/* This is all that a trained network is: LeNet-5 as one C file, plain loops and the numbers that it learned.
 *
 * The network has the sizes of LeCun et al. 1998, figure 2. It is trained, written as lenet5_weights.c, and reads ten
 * digits twice: with cnn.h, and in lenet5_read, a program without any library.
 *
 *     make export && ./export          or          cc -O2 examples/export.c -lm -o export
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"

enum { DIGITS = 10, PIXELS = 28 * 28 };

static const char reader[] =                                /* lenet5_read.c: pixels come in, digits go out */
    "#include <stdio.h>\n"
    "\n"
    "void lenet5(float y[10], const float x[784]);\n"
    "\n"
    "int main(void)\n"
    "{\n"
    "    unsigned char bytes[784];\n"
    "    float x[784], y[10];\n"
    "    int i, best;\n"
    "    while (fread(bytes, 1, 784, stdin) == 784) {\n"
    "        for (i = 0; i < 784; i++) x[i] = (float)bytes[i] / 255;\n"
    "        lenet5(y, x);\n"
    "        for (best = 0, i = 1; i < 10; i++) if (y[i] > y[best]) best = i;\n"
    "        printf(\" %d\", best);\n"
    "    }\n"
    "    printf(\"\\n\");\n"
    "    return 0;\n"
    "}\n";

static long write_file(const example *e, const char *path, const void *bytes, size_t count)   /* count 0: its size */
{
    FILE *file = fopen(path, count ? "wb" : "rb");
    char sentence[300];
    long size = -1;
    if (file && (!count || fwrite(bytes, 1, count, file) == count) && !fseek(file, 0, SEEK_END)) size = ftell(file);
    if (file && fclose(file)) size = -1;
    snprintf(sentence, sizeof sentence, "%s: cannot be written: %s", path, strerror(errno));
    if (size < 0) example_fail(e, sentence);
    return size;
}

int main(int argc, char **argv)
{
    example e = { 0 };
    char command[600];
    const char *cc = getenv("CC");
    int classes[DIGITS], i;
    cnn_net *net;

    e.name = "export";
    e.about = "trains LeNet-5 and writes it as one C file, lenet5_weights.c, that needs no library";
    e.data_name = "MNIST"; e.data_folder = "mnist"; e.read = cnn_load_mnist;
    e.kind = EXAMPLE_COMPARES; e.epochs = 2; e.batch = 128; e.lr = 2e-3;
    example_options(&e, argc, argv);
    example_load(&e);

    net = cnn_new(1, 28, 28);
    example_begin(&e, net);
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 5, .padding = 2);         /*  6 x 28 x 28 */
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);                                      /*  6 x 14 x 14 */
    cnn_conv2d(net, .out_channels = 16, .kernel_size = 5);                      /* 16 x 10 x 10 */
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);                                      /* 16 x  5 x  5 */
    cnn_conv2d(net, .out_channels = 120, .kernel_size = 5);                     /* 120 x 1 x  1 */
    cnn_relu(net);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 84);
    cnn_relu(net);
    cnn_linear(net, .out_features = 10);
    cnn_adam(net, .lr = (float)e.lr);
    example_try(&e, net, "the network as C", "lenet5_weights.c", example_open);
    cnn_fit(net, e.train, e.test, .epochs = e.epochs, .batch_size = e.batch, .log = stdout);
    cnn_export_c(net, "lenet5_weights.c", "lenet5");
    example_check(&e, net);

    printf("\nlenet5_weights.c: %ld bytes of text, %d numbers; compile it with: cc -O2 -c lenet5_weights.c\n",
           write_file(&e, "lenet5_weights.c", NULL, 0), (int)cnn_num_parameters(net));
    printf("It begins with what it is and ends with its numbers. lenet5_read.c is a program that uses it.\n\n");
    e.test->count = e.test->count < DIGITS ? e.test->count : DIGITS;
    write_file(&e, "lenet5_read.c", reader, sizeof reader - 1);
    write_file(&e, "lenet5_digits", e.test->bytes, (size_t)e.test->count * PIXELS);
    cnn_classify(net, classes, NULL, e.test, DIGITS);
    example_check(&e, net);
    printf("the labels:  ");
    for (i = 0; i < e.test->count; i++) printf(" %d", e.test->labels[i]);
    printf("\nwith cnn.h:  ");
    for (i = 0; i < e.test->count; i++) printf(" %d", classes[i]);
    printf("\nlenet5_read: ");
    fflush(stdout);
    snprintf(command, sizeof command, "%.200s -O2 lenet5_read.c lenet5_weights.c -lm -o lenet5_read", cc && *cc ? cc : "cc");
    strcat(command, " && ./lenet5_read <lenet5_digits");
    if (system(command)) printf("\n             (not compiled; here the command is: %s)\n", command);
    return example_end(&e, net);
}
