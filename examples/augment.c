/* Augmentation: what a network sees of the same eight samples in eight epochs. Each time they are another picture of the
 * same thing, so that it learns what the thing is, and not the pictures by heart.
 *
 * Only what leaves the label true may be changed: a mirrored cat is a cat, but a mirrored 2 is no digit. Needs stb_image
 * (Debian: libstb-dev).
 *
 *     make augment && ./augment          or          cc -O2 $(pkg-config --cflags stb) examples/augment.c -lm -o augment
 */
#include "stb.h"
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "digits.h"
#include "show.h"

enum { SAMPLES = 8, EPOCHS = 8, MOST = 3 * 32 * 32, LARGER = 3, GAP = 6 };     /* LARGER: a value is 3 x 3 pixels */

static void fail(const char *sentence)
{
    fprintf(stderr, "augment: %s\n", sentence);
    exit(1);
}

/* x: (channels, height, width), 0 to 1, into the sheet from (left, top) on */
static void paint(unsigned char *sheet, int sheet_width, int left, int top, const float *x, const cnn_data *d)
{
    int c, v, u;
    for (v = 0; v < LARGER * d->height; v++)
        for (u = 0; u < LARGER * d->width; u++)
            for (c = 0; c < 3; c++) {
                float value = x[(c % d->channels * d->height + v / LARGER) * d->width + u / LARGER];
                sheet[((size_t)(top + v) * sheet_width + left + u) * 3 + c] = (unsigned char)(255 * value + 0.5f);
            }
}

int main(int argc, char **argv)
{
    static float x[SAMPLES * MOST];
    const char *folder = argc > 1 ? argv[1] : "data/cifar-10";
    cnn_data *data;
    cnn_loader *loader;
    cnn_net *net;
    cnn_batch batch;
    unsigned char *sheet;
    int drawn, epoch, n, width, height;

    show_options(argc, argv, 1, "augment", "one sheet of augmented pictures: a row a sample, a column an epoch",
                 " [FOLDER]\n\nFOLDER has the files of CIFAR-10 (default data/cifar-10); built-in digits where there are none.\n"
                 "Written: augment.png.");
    data = cnn_load_cifar10(folder, "train");
    if (data->error && argc > 1) fail(data->error);
    drawn = data->error != NULL;
    if (drawn) {
        printf("No CIFAR-10 in data/cifar-10 (get it: make cifar-10): built-in digits instead.\n");
        cnn_data_free(data);
        data = digits_new(0, SAMPLES);
    }
    if (data->count > SAMPLES) data->count = SAMPLES;       /* the first ones only */

    loader = cnn_loader_new(data, .batch_size = SAMPLES,
                            .augment = { .padding = 4, .flip = !drawn, .rotation = 15, .scale = 0.1f });
    net = cnn_new(data->channels, data->height, data->width);
    cnn_flatten(net);                                       /* puts out what it sees */
    width = EPOCHS * (LARGER * data->width + GAP) - GAP;
    height = SAMPLES * (LARGER * data->height + GAP) - GAP;
    sheet = show_memory((size_t)width * height * 3);
    memset(sheet, 255, (size_t)width * height * 3);
    for (epoch = 0; epoch < EPOCHS; epoch++) {
        cnn_set_epoch(loader, epoch);                       /* (seed, epoch, sample) decide how it looks */
        cnn_next(loader, &batch);
        cnn_forward(net, &batch);
        cnn_get(net, "0", x, SAMPLES * MOST);
        if (cnn_error(net)) fail(cnn_error(net));
        for (n = 0; n < SAMPLES; n++)
            paint(sheet, width, epoch * (LARGER * data->width + GAP), n * (LARGER * data->height + GAP),
                  x + n * data->channels * data->height * data->width, data);
    }
    if (!stbi_write_png("augment.png", width, height, 3, sheet, 3 * width)) fail("augment.png cannot be written");
    printf("%d samples in %d epochs, moved by up to 4 pixels, %sturned by up to 15 degrees, 0.9 to 1.1 times as large.\n\n"
           "Written: augment.png, a row a sample, a column an epoch\n", SAMPLES, EPOCHS, drawn ? "" : "half of them mirrored, ");
    free(sheet);
    cnn_free(net);
    cnn_loader_free(loader);
    if (drawn) digits_free(data);
    else cnn_data_free(data);
    return 0;
}
