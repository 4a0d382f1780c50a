/* Figure 6-7: kernels on a colour image. Each kernel is as deep as its input and has a bias; k kernels give k maps.
 *
 *     f(k,j,i) = b(k) + sum over channels c and over y, x of z(c, j+y, i+x) u(k,c,y,x)
 *
 *     make kernels && ./kernels          or          cc -O2 examples/kernels.c -lm -o kernels
 */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "show.h"

enum { W = 24, H = 16, PIXELS = W * H, C = 3, K = 4 };

static const char *const drawing[H] = {     /* blue sky, yellow sun, red roof, white wall, black (k), green grass */
    "bbbbbbbbbbbbbbbbbbbbbbbb",
    "bbbyyybbbbbbbbbbbbbbbbbb",
    "bbyyyyybbbbbbbbrrbbbbbbb",
    "bbyyyyybbbbbbbrrrrbbbbbb",
    "bbyyyyybbbbbbrrrrrrbbbbb",
    "bbbyyybbbbbbrrrrrrrrbbbb",
    "bbbbbbbbbbbrrrrrrrrrrbbb",
    "bbbbbbbbbbrrrrrrrrrrrrbb",
    "bbbbbbbbbbbwwwwwwwwwwbbb",
    "bbbbbbbbbbbwwkkwwwwwwbbb",
    "bbbbbbbbbbbwwkkwwkkkwbbb",
    "bbbbbbbbbbbwwwwwwkkkwbbb",
    "bbbbbbbbbbbwwwwwwkkkwbbb",
    "gggggggggggwwwwwwkkkwggg",
    "gggggggggggggggggggggggg",
    "gggggggggggggggggggggggg"
};
static const struct { char letter; const char *name; float rgb[C]; } colours[6] = {
    { 'b', "blue", { 1, 2, 7 } }, { 'y', "yellow", { 9, 8, 1 } }, { 'r', "red", { 9, 3, 2 } },
    { 'w', "white", { 9, 9, 9 } }, { 'k', "black", { 0, 0, 0 } }, { 'g', "green", { 2, 6, 1 } }
};

static const char *const names[K] = {
    "0: vertical edges", "1: horizontal edges", "2: from blue to red", "3: red, if positive" };
static const float u[K][C][3][3] = {        /* of each kernel a 3 x 3 matrix for red, green and blue */
    { { { -1, 0, 1 }, { -1, 0, 1 }, { -1, 0, 1 } },
      { { -1, 0, 1 }, { -1, 0, 1 }, { -1, 0, 1 } },
      { { -1, 0, 1 }, { -1, 0, 1 }, { -1, 0, 1 } } },
    { { { -1, -1, -1 }, { 0, 0, 0 }, { 1, 1, 1 } },
      { { -1, -1, -1 }, { 0, 0, 0 }, { 1, 1, 1 } },
      { { -1, -1, -1 }, { 0, 0, 0 }, { 1, 1, 1 } } },
    { { { -1, 0, 1 }, { -1, 0, 1 }, { -1, 0, 1 } },
      { { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 } },
      { { 1, 0, -1 }, { 1, 0, -1 }, { 1, 0, -1 } } },
    { { { 0, 0, 0 }, { 0, 2, 0 }, { 0, 0, 0 } },
      { { 0, 0, 0 }, { 0, -1, 0 }, { 0, 0, 0 } },
      { { 0, 0, 0 }, { 0, -1, 0 }, { 0, 0, 0 } } }
};
static const float b[K] = { 0, 0, 0, -10 };

static float z[C][H][W];

static float pixel(int c, int j, int i)                     /* beyond the border: the border's value */
{
    return z[c][j < 0 ? 0 : j < H ? j : H - 1][i < 0 ? 0 : i < W ? i : W - 1];
}

static float slice(int k, int c, int j, int i)              /* one channel's part of the sum */
{
    float sum = 0;
    int y, x;
    for (y = -1; y <= 1; y++)
        for (x = -1; x <= 1; x++) sum += pixel(c, j + y, i + x) * u[k][c][y + 1][x + 1];
    return sum;
}

static float at(int k, int j, int i) { return b[k] + slice(k, 0, j, i) + slice(k, 1, j, i) + slice(k, 2, j, i); }

static void spell(int k, int j, int i)
{
    static const char *const titles[2 * C] = { "red", "u(2,0)", "green", "u(2,1)", "blue", "u(2,2)" };
    float window[C][9];
    show_matrix shown[2 * C];
    int c, n;
    for (c = 0; c < C; c++) {
        for (n = 0; n < 9; n++) window[c][n] = pixel(c, j + n / 3 - 1, i + n % 3 - 1);
        shown[2 * c] = (show_matrix){ titles[2 * c], window[c], 3, 3, 2, 0, 0, 0, 0 };
        shown[2 * c + 1] = (show_matrix){ titles[2 * c + 1], u[k][c][0], 3, 3, 2, 0, 0, 0, 0 };
    }
    show_matrices(shown, 2 * C);
    printf("  f(%d,%d,%d) = red %g + green %g + blue %g + bias %g = %g\n\n", k, j, i,
           slice(k, 0, j, i), slice(k, 1, j, i), slice(k, 2, j, i), b[k], at(k, j, i));
}

int main(int argc, char **argv)
{
    static unsigned char photo[PIXELS * 3], paint[K][PIXELS * 3];
    static float f[K * PIXELS], hand[K * PIXELS], positive[K * PIXELS];
    show_picture shown[K];
    cnn_net *net = cnn_new(C, H, W);
    int k, c, p, n;

    show_options(argc, argv, 0, "kernels", "figure 6-7: kernels on a colour image", "");
    show_title("Figure 6-7: several kernels on a colour image",
               "f(k,j,i) = b(k) + sum over c, y, x of z(c, j+y, i+x) u(k,c,y,x)");
    for (p = 0; p < PIXELS; p++)
        for (n = 0; n < 6; n++)
            for (c = 0; c < C && drawing[p / W][p % W] == colours[n].letter; c++) {
                z[c][p / W][p % W] = colours[n].rgb[c];
                photo[3 * p + c] = (unsigned char)(28 * colours[n].rgb[c]);
            }

    cnn_conv2d(net, .out_channels = K, .kernel_size = 3, .padding = 1, .padding_mode = CNN_REPLICATE);
    cnn_set(net, "0.weight", u[0][0][0], K * C * 9);
    cnn_set(net, "0.bias", b, K);
    show_run(net, f, z[0][0]);

    show_pictures((show_picture[]){ { "image, 3 x 16 x 24", photo, W, H, 0 } }, 1);
    for (k = 0; k < K; k++) {
        for (p = 0; p < PIXELS; p++) positive[k * PIXELS + p] = k < 3 ? f[k * PIXELS + p] : fmaxf(f[k * PIXELS + p], 0);
        show_paint(paint[k], positive + k * PIXELS, PIXELS, k < 3 ? 54.0f : 3.0f, 1);
        shown[k] = (show_picture){ names[k], paint[k], W, H, 1 };
    }
    show_pictures(shown, K);
    printf("%d kernels of 3 x 3 x 3 numbers and a bias each give %d maps of 16 x 24. To be learned: %d numbers.\n\n",
           K, K, (int)cnn_num_parameters(net));

    printf("A kernel is as deep as the image: kernel 2 at row 5, column 12, where roof meets sky:\n\n");
    spell(2, 5, 12);
    printf("The bias is a threshold: kernel 3 is 2 red - green - blue of one pixel, and its bias -10:\n\n");
    for (n = 0; n < 6; n++) {
        const float *rgb = colours[n].rgb;
        float sum = 2 * rgb[0] - rgb[1] - rgb[2];
        printf("  %-6s  2*%g - %g - %g = %3g   with the bias %3g%s\n", colours[n].name, rgb[0], rgb[1], rgb[2],
               sum, sum + b[3], sum + b[3] > 0 ? "   the only positive one" : "");
    }
    printf("\n");
    for (p = 0; p < K * PIXELS; p++) hand[p] = at(p / PIXELS, p % PIXELS / W, p % W);
    show_same("cnn_conv2d", f, hand, K * PIXELS);
    cnn_free(net);
    return 0;
}
