/* Figure 6-5: the vertical and the horizontal edges of a photograph, by equation 6.2 with two kernels.
 *
 *     f(j,i) = sum over x, y of z(j+y, i+x) u(y,x)          vertical:  -1  0  1          horizontal:  -1 -1 -1
 *                                                                      -1  0  1                        0  0  0
 *                                                                      -1  0  1                        1  1  1
 * Each map is a picture as large as the input. Needs stb_image (Debian: libstb-dev).
 *
 *     make edges && ./edges photo.jpg
 *     cc -O2 $(pkg-config --cflags stb) examples/edges.c -lm -o edges
 */
#include "stb.h"
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "show.h"

static const float kernels[2 * 9] = {
    -1, 0, 1,   -1, 0, 1,   -1, 0, 1,
    -1, -1, -1,   0, 0, 0,   1, 1, 1
};

typedef struct image {
    int width, height;
    float *z;                               /* (height, width): grey, 0 to 255                           */
    float *maps;                            /* (2, height, width)                                        */
} image;

static image image_new(int width, int height)
{
    size_t n = (size_t)width * height;
    image p = { width, height, show_memory(sizeof *p.z * n), show_memory(sizeof *p.maps * 2 * n) };
    return p;
}

static void image_free(image *p)
{
    free(p->z);
    free(p->maps);
}

static image load(const char *path)
{
    int width, height, channels, i;
    unsigned char *bytes = stbi_load(path, &width, &height, &channels, 1);
    image p;
    if (!bytes) {
        fprintf(stderr, "edges: %s: %s\n", path, stbi_failure_reason());
        exit(1);
    }
    p = image_new(width, height);
    for (i = 0; i < width * height; i++) p.z[i] = bytes[i];
    stbi_image_free(bytes);
    return p;
}

static image draw(void)                                     /* a house under the moon */
{
    image p = image_new(240, 160);
    int x, y;
    for (y = 0; y < p.height; y++)
        for (x = 0; x < p.width; x++) {
            int moon = (x - 45) * (x - 45) + (y - 40) * (y - 40) < 25 * 25;
            int roof = y >= 20 && y < 70 && abs(x - 155) < y - 10;
            int wall = x >= 105 && x < 205 && y >= 70 && y < 130;
            int window = x >= 120 && x < 150 && y >= 85 && y < 110 && (x - 120) % 15 < 10;
            int door = x >= 170 && x < 190 && y >= 90;
            p.z[y * p.width + x] = wall ? (window || door ? 0 : 250) : roof ? 128 : moon ? 250 : y >= 130 ? 64 : 0;
        }
    return p;
}

static image shrink(const image *p, int width, int height)  /* each pixel is the mean of those that it replaces */
{
    float times = fmaxf(1, fmaxf((float)p->width / width, (float)p->height / height));
    image small = image_new((int)fmaxf(1, p->width / times), (int)fmaxf(1, p->height / times));
    int x, y, i, j;
    for (y = 0; y < small.height; y++)
        for (x = 0; x < small.width; x++) {
            int top = y * p->height / small.height, bottom = (y + 1) * p->height / small.height;
            int left = x * p->width / small.width, right = (x + 1) * p->width / small.width;
            double sum = 0;
            for (j = top; j < bottom; j++)
                for (i = left; i < right; i++) sum += p->z[(size_t)j * p->width + i];
            small.z[y * small.width + x] = (float)floor(sum / ((bottom - top) * (right - left)) + 0.5);
        }
    return small;
}

static void find_edges(image *p)                            /* padding by the border's values adds no edges there */
{
    cnn_net *net = cnn_new(1, p->height, p->width);
    cnn_conv2d(net, .out_channels = 2, .kernel_size = 3, .padding = 1, .padding_mode = CNN_REPLICATE, .no_bias = 1);
    cnn_set(net, "0.weight", kernels, 18);
    show_run(net, p->maps, p->z);
    cnn_free(net);
}

/* Three pictures in colour: z, vertical edges, horizontal edges. The strongest 2 % of the edges are fully bright. */
static void paint(const image *p, unsigned char *rgb[3])
{
    int n = p->width * p->height, count[766] = { 0 }, i, scale = 765, above = 0;
    for (i = 0; i < 2 * n; i++) count[(int)fabsf(p->maps[i])]++;
    while (scale > 1 && (above += count[scale]) < 2 * n / 50) scale--;
    for (i = 0; i < 3; i++) {
        rgb[i] = show_memory((size_t)n * 3);
        show_paint(rgb[i], i ? p->maps + (size_t)(i - 1) * n : p->z, n, i ? (float)scale : 255, i > 0);
    }
}

int main(int argc, char **argv)
{
    static const char *const titles[3] = { "input", "vertical edges", "horizontal edges" };
    static const char *const files[3] = { "edges_input.png", "edges_vertical.png", "edges_horizontal.png" };
    image whole, p, small;
    unsigned char *rgb[3];
    show_picture shown[3];
    int k, i, n;

    show_options(argc, argv, 1, "edges", "figure 6-5: the vertical and the horizontal edges of a picture",
                 " [PICTURE]\n\nPICTURE is a file that stb_image reads (.png, .jpg, ...); "
                 "without one, a house under the moon is drawn.\n"
                 "Written in full size: edges_input.png, edges_vertical.png, edges_horizontal.png.");
    whole = argc > 1 ? load(argv[1]) : draw();
    p = shrink(&whole, 1200, 1200);
    small = shrink(&whole, 48, 40);
    n = p.width * p.height;
    show_title("Figure 6-5: edges", "f(j,i) = sum over x, y of z(j+y, i+x) u(y,x)");
    find_edges(&small);
    paint(&small, rgb);
    for (k = 0; k < 3; k++) shown[k] = (show_picture){ titles[k], rgb[k], small.width, small.height, k > 0 };
    show_pictures(shown, 1);
    show_pictures(shown + 1, 2);
    printf("In colour: orange where it gets brighter to the right (downwards), blue where it gets darker.\n\n");
    for (k = 0; k < 3; k++) free(rgb[k]);

    find_edges(&p);
    paint(&p, rgb);
    for (k = 0; k < 2; k++) {
        float low = 0, high = 0;
        int flat = 0;
        for (i = 0; i < n; i++) {
            low = fminf(low, p.maps[k * n + i]);
            high = fmaxf(high, p.maps[k * n + i]);
            flat += p.maps[k * n + i] == 0;
        }
        printf("%-17s %d x %d values from %g to %g, %d of them zero\n", titles[k + 1], p.width, p.height, low, high,
               flat);
    }
    for (k = 0; k < 3; k++) {
        if (!stbi_write_png(files[k], p.width, p.height, 3, rgb[k], 3 * p.width)) {
            fprintf(stderr, "edges: %s cannot be written\n", files[k]);
            return 1;
        }
        free(rgb[k]);
    }
    printf("\nWritten: %s, %s, %s\n", files[0], files[1], files[2]);
    image_free(&whole);
    image_free(&p);
    image_free(&small);
    return 0;
}
