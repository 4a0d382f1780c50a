/* Equation 6.3: a convolution layer applies an activation function to each element of its feature map.
 *
 *     tau(f(j,i)) = tau(z(j,i) (*) u)                                                            (6.3)
 *
 *     relu(f) = max(0, f)          tanh(f) = (e^f - e^-f) / (e^f + e^-f)          sigmoid(f) = 1 / (1 + e^-f)
 *
 *     make activation && ./activation          or          cc -O2 examples/activation.c -lm -o activation
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "show.h"

enum { N = 6, H = 3, M = N - H + 1, CURVE_ROWS = 11, CURVE_COLUMNS = 25 };

static const float z[N * N] = {
    1, 1, 4, 4, 4, 1,
    1, 1, 4, 4, 4, 1,
    1, 4, 4, 4, 1, 1,
    1, 4, 4, 4, 1, 1,
    4, 4, 4, 1, 1, 1,
    4, 4, 4, 1, 1, 1
};
static const float u[H * H] = { -0.25f, 0, 0.25f, -0.25f, 0, 0.25f, -0.25f, 0, 0.25f };

enum { NONE, RELU, TANH, SIGMOID };
static const char *const names[4] = { "f", "relu(f)", "tanh(f)", "sigmoid(f)" };

/* The layer: a convolution by the kernel (h x h), then the activation. */
static void layer(float *y, int which, const float *input, int rows, int columns, const float *kernel, int h)
{
    cnn_net *net = cnn_new(1, rows, columns);
    cnn_conv2d(net, .out_channels = 1, .kernel_size = h, .no_bias = 1);
    if (which == RELU) cnn_relu(net);
    if (which == TANH) cnn_tanh(net);
    if (which == SIGMOID) cnn_sigmoid(net);
    cnn_set(net, "0.weight", kernel, (size_t)h * h);
    show_run(net, y, input);
    cnn_free(net);
}

static float by_hand(int which, float f)
{
    switch (which) {
    case RELU:    return f > 0 ? f : 0;
    case TANH:    return (expf(f) - expf(-f)) / (expf(f) + expf(-f));
    case SIGMOID: return 1 / (1 + expf(-f));
    default:      return f;
    }
}

static void draw_curves(void)
{
    static const float one[1] = { 1 };
    float x[CURVE_COLUMNS], y[4][CURVE_COLUMNS];
    int which, row, i;
    for (i = 0; i < CURVE_COLUMNS; i++) x[i] = (i - CURVE_COLUMNS / 2) * 0.25f;
    for (which = RELU; which <= SIGMOID; which++) {
        layer(y[which], which, x, 1, CURVE_COLUMNS, one, 1);
        printf(which < SIGMOID ? "  %-27s" : "  %s\n", names[which]);
    }
    for (row = 0; row < CURVE_ROWS; row++) {
        for (which = RELU; which <= SIGMOID; which++) {
            printf(which == RELU ? "  " : "    ");
            for (i = 0; i < CURVE_COLUMNS; i++) {
                int at = CURVE_ROWS / 2 - (int)floorf(y[which][i] / 0.25f + 0.5f);
                putchar(row == at ? '*' : row == CURVE_ROWS / 2 ? '-' : i == CURVE_COLUMNS / 2 ? '|' : ' ');
            }
        }
        printf("\n");
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    float y[4][M * M], hand[4][M * M];
    show_matrix shown[4];
    int which, i, digits;

    show_options(argc, argv, 0, "activation",
                 "equation 6.3: the activation, applied to each element of a feature map", "");
    show_title("Equation 6.3: the activation function of a convolution layer", "tau(f(j,i)) = tau(z(j,i) (*) u)");
    show_matrices((show_matrix[]){ { "image z", z, N, N, 2, 0, 0, 0, 0 }, { "kernel u", u, H, H, 5, 2, 0, 0, 0 } }, 2);
    for (which = NONE; which <= SIGMOID; which++) {
        layer(y[which], which, z, N, N, u, H);
        for (i = 0; i < M * M; i++) hand[which][i] = by_hand(which, y[NONE][i]);
        digits = which == NONE || which == TANH ? 5 : 4;    /* 5 with a minus sign */
        shown[which] = (show_matrix){ names[which], y[which], M, M, digits, 2, 0, 0, 0 };
    }
    show_matrices(shown, 4);
    printf("The functions, f from -3 to 3 across, the result from -1.25 to 1.25 upwards:\n\n");
    draw_curves();
    printf("relu sets negative values to 0; tanh maps to -1 .. 1, sigmoid to 0 .. 1.\n");
    show_same("A layer with cnn_relu, cnn_tanh, cnn_sigmoid", y[RELU], hand[RELU], 3 * M * M);
    return 0;
}
