/* microcontroller.c - LeNet-5 as one C file, on a Cortex-M3 without operating system, files or threads. Two programs:
 *
 *     on this machine       (EXPORT) trains it for a moment on the built-in digits and writes lenet5_weights.c, and digits.h
 *                           with some digits and what cnn.h says about them
 *     on the controller     reads the digits with lenet5_weights.c; printf goes through newlib and semihosting
 *
 * microcontroller.sh builds and runs both.
 */
#include <math.h>
#include <stdio.h>

#ifdef EXPORT
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../../examples/digits.h"
#include "../../examples/networks.h"

enum { SHOWN = 5 };

int main(void)
{
    cnn_data *train = digits_new(0, 6000), *test = digits_new(1000000, 200);
    cnn_net *net = cnn_new(1, 28, 28);
    FILE *file = fopen("digits.h", "w");
    float y[10];
    int i, k;
    network_lenet5(net);
    cnn_adam(net, .lr = 2e-3f);
    cnn_fit(net, train, test, .epochs = 4, .batch_size = 64, .log = stdout);
    cnn_export_c(net, "lenet5_weights.c", "lenet5");
    if (!file) return 1;
    fprintf(file, "static const struct { int label; float logits[10]; unsigned char pixels[784]; } digits[] = {\n");
    for (i = 0; i < SHOWN; i++) {
        cnn_predict_bytes(net, y, test->bytes + (size_t)i * DIGIT_PIXELS, 1);
        fprintf(file, "{ %d, {", test->labels[i]);
        for (k = 0; k < 10; k++) fprintf(file, " %.9ef,", (double)y[k]);
        fprintf(file, " }, {");
        for (k = 0; k < DIGIT_PIXELS; k++) fprintf(file, "%d,", test->bytes[i * DIGIT_PIXELS + k]);
        fprintf(file, "} },\n");
    }
    fprintf(file, "};\n");
    if (cnn_error(net)) puts(cnn_error(net));
    return fclose(file) || cnn_error(net);
}

#else
#include "digits.h"

void lenet5(float y[10], const float x[784]);
void _start(void);                                      /* newlib's: sets up memory and calls main */
void stack_end(void);                                   /* microcontroller.ld: no function, but an address */

/* Where a Cortex-M begins: its stack, and the first function. An exception stops it for good. */
static void stop(void) { for (;;) {} }
__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    stack_end, _start, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop
};

static int largest(const float y[10])
{
    int k, best = 0;
    for (k = 1; k < 10; k++) if (y[k] > y[best]) best = k;
    return best;
}

int main(void)
{
    static float x[784];
    float y[10], worst = 0;
    int count = (int)(sizeof digits / sizeof *digits), same = 0, right = 0, i, k;
    for (i = 0; i < count; i++) {
        for (k = 0; k < 784; k++) x[k] = (float)digits[i].pixels[k] / 255;
        lenet5(y, x);
        for (k = 0; k < 10; k++) worst = fmaxf(worst, fabsf(y[k] - digits[i].logits[k]));
        same += largest(y) == largest(digits[i].logits);
        right += largest(y) == digits[i].label;
        printf("a %d is read as %d, by cnn.h as %d\n", digits[i].label, largest(y), largest(digits[i].logits));
    }
    printf("%d of %d are right; the logits differ from cnn.h's by %.1e at most\n", right, count, (double)worst);
    return !(same == count && 2 * right > count && worst < 1e-4f);
}
#endif
