/* page.c - the calls that lenet5.html makes: cnn.h, compiled to WebAssembly.
 *
 * A browser cannot call cnn.h's functions with structs and names; these take numbers and addresses. What they compute,
 * cnn.h computes. What cnn.h prints (the summary, one value explained, the gradient check), the page reads and draws.
 *
 *     make web
 */
#define CNN_NO_THREADS
#define CNN_NO_FILES
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../digits.h"
#include "../networks.h"
#include "bugs.h"

#define PAGE(name) __attribute__((export_name(#name)))

enum { LESSON, FILTER, LEARNING, NETS };                /* a trained LeNet-5, one kernel, a LeNet-5 that learns */
enum { MOST_PIXELS = 128 * 128 };

typedef struct network {
    cnn_net *net;
    cnn_data *picture;                                  /* one sample: the bytes that the page wrote to `pixels` */
    unsigned char pixels[MOST_PIXELS];
} network;

static network networks[NETS];
static cnn_data *samples, *unseen;                      /* of the network that learns */
static cnn_loader *batches;
static cnn_backend backend;

/* ---- what all three have ---- */

static void begin(network *n, int height, int width)
{
    cnn_data_options o = { 0 };
    cnn_free(n->net);
    cnn_data_free(n->picture);
    n->net = cnn_new(1, height, width);
    o.count = o.channels = 1; o.height = height; o.width = width; o.bytes = n->pixels;
    n->picture = cnn_data_new_with(o);
}

PAGE(room) void *room(size_t bytes) { return malloc(bytes); }
PAGE(release) void release(void *memory) { free(memory); }
PAGE(pixels) unsigned char *pixels(int which) { return networks[which].pixels; }
PAGE(layer_name) const char *layer_name(int which, int i) { return cnn_layer_name(networks[which].net, i); }
PAGE(key) const char *key(int which, int i) { return cnn_key(networks[which].net, i); }
PAGE(shape) int shape(int which, const char *of, int sizes[4]) { return cnn_shape(networks[which].net, of, sizes); }
PAGE(numbers) size_t numbers(int which, const char *of, float *values, size_t most)
{
    return cnn_get(networks[which].net, of, values, most);
}

PAGE(mistake) const char *mistake(int which) { return cnn_error(networks[which].net); }

/* The layers see the picture: every output can be asked for afterwards. */
PAGE(look) void look(int which)
{
    static const int first[1] = { 0 };
    cnn_batch batch = { 0 };
    batch.data = networks[which].picture; batch.order = first; batch.size = 1;
    cnn_eval(networks[which].net);
    cnn_forward(networks[which].net, &batch);
}

PAGE(explain) int explain(int which, const char *layer, int channel, int row, int column)
{
    int good = cnn_explain(networks[which].net, layer, channel, row, column, stdout);
    fflush(stdout);
    return good;
}

PAGE(summary) void summary(int which)
{
    cnn_summary(networks[which].net, stdout);
    fflush(stdout);
}

PAGE(softmax) void softmax(float *probability, const float *logits, int classes)
{
    cnn_map_shape s = { 0 };
    s.batch = s.pixels = 1; s.channels = classes;
    cnn_find_backend("direct")->softmax_forward(NULL, &s, probability, logits);
}

/* ---- the trained LeNet-5 ---- */

/* weights: (size) bytes, a state dict as ./lenet5 --save writes it */
PAGE(open_lesson) int open_lesson(const void *weights, size_t size)
{
    begin(&networks[LESSON], 28, 28);
    network_lenet5(networks[LESSON].net);
    return cnn_load_memory(networks[LESSON].net, weights, size);
}

/* ---- a drawing as the network is to see it ---- */

/* As MNIST's digits were made (LeCun et al. 1998, section III A): the ink's bounding box is brought to 20 x 20, keeping
   its proportions, and its centre of mass to the middle of 28 x 28. ink: (size, size), 0 to 255; each pixel of the
   picture is the mean of what lies under it. */
PAGE(centre) void centre(unsigned char *picture, const unsigned char *ink, int size)
{
    int top = size, left = size, bottom = -1, right = -1, j, i, y, x;
    double sum = 0, mass_y = 0, mass_x = 0, scale;
    memset(picture, 0, DIGIT_PIXELS);
    for (j = 0; j < size; j++)
        for (i = 0; i < size; i++) {
            int value = ink[j * size + i];
            if (value > 24) {                           /* the edges of a stroke are faint */
                if (j < top) top = j;
                if (j > bottom) bottom = j;
                if (i < left) left = i;
                if (i > right) right = i;
            }
            sum += value; mass_y += value * (j + 0.5); mass_x += value * (i + 0.5);
        }
    if (bottom < 0) return;
    scale = fmax(bottom - top + 1, right - left + 1) / 20.0;                    /* ink per pixel of the picture */
    for (y = 0; y < DIGIT_SIZE; y++)
        for (x = 0; x < DIGIT_SIZE; x++) {
            double from_y = mass_y / sum + (y - 14) * scale, from_x = mass_x / sum + (x - 14) * scale;
            double to_y = fmin(from_y + scale, size), to_x = fmin(from_x + scale, size), mean = 0;
            from_y = fmax(from_y, 0); from_x = fmax(from_x, 0);
            for (j = (int)from_y; j < to_y; j++)
                for (i = (int)from_x; i < to_x; i++)
                    mean += ink[j * size + i] * (fmin(j + 1, to_y) - fmax(j, from_y))
                                              * (fmin(i + 1, to_x) - fmax(i, from_x));
            picture[y * DIGIT_SIZE + x] = (unsigned char)(mean / (scale * scale) + 0.5);
        }
}

/* ---- the equation alone: one kernel ---- */

PAGE(open_filter) int open_filter(int height, int width, int size, const float *kernel, int padding, int mode,
                                  int stride, int dilation)
{
    cnn_net *net;
    begin(&networks[FILTER], height, width);
    net = networks[FILTER].net;
    cnn_conv2d(net, .out_channels = 1, .kernel_size = size, .padding = padding, .padding_mode = (cnn_padding_mode)mode,
               .stride = stride, .dilation = dilation, .no_bias = 1);
    return cnn_error(net) ? 0 : cnn_set(net, "0.weight", kernel, (size_t)(size * size));
}

/* ---- learning, with a bug in it or without ---- */

PAGE(open_learning) int open_learning(int batch_size, int adam, float lr, int bug)
{
    cnn_net *net;
    if (!samples) samples = digits_new(0, 400), unseen = digits_new(1000000, 100);
    begin(&networks[LEARNING], 28, 28);
    net = networks[LEARNING].net;
    planted = bug;
    backend = backend_with_bugs();
    cnn_use_backend(net, &backend);
    network_lenet5(net);
    if (adam) cnn_adam(net, .lr = lr);
    else cnn_sgd(net, .lr = lr, .momentum = 0.9f);
    cnn_loader_free(batches);
    batches = cnn_loader_new(samples, .batch_size = batch_size, .shuffle = 1, .drop_last = 1);
    return cnn_error(net) == NULL;
}

PAGE(set_lr) void set_lr(float lr) { cnn_set_lr(networks[LEARNING].net, lr); }
PAGE(set_bug) void set_bug(int bug) { planted = bug; }

/* One step; returns the loss before it. */
PAGE(step) float step(void)
{
    cnn_net *net = networks[LEARNING].net;
    cnn_batch batch;
    if (!cnn_next(batches, &batch) && !cnn_next(batches, &batch)) return NAN;
    cnn_train(net);
    cnn_forward(net, &batch);
    cnn_cross_entropy(net, &batch);
    cnn_zero_grad(net);
    cnn_backward(net);
    cnn_step(net);
    return cnn_loss(net);
}

/* The share of a hundred digits, which it has not learned from, that it reads. */
PAGE(accuracy) double accuracy(void)
{
    return cnn_evaluate(networks[LEARNING].net, unseen, 50, CNN_CROSS_ENTROPY).accuracy;
}

/* Prints a row for each tensor; returns how many values are wrong. */
PAGE(check) int check(void)
{
    static const int first[2] = { 0, 1 };
    cnn_batch batch = { 0 };
    int failed;
    batch.data = samples; batch.order = first; batch.size = 2;
    failed = cnn_gradcheck(networks[LEARNING].net, &batch, 4, stdout).failed;
    failed += check_loss_and_step(&backend, stdout);
    fflush(stdout);
    return failed;
}

/* Digit i of those that it learns from; returns its label. */
PAGE(sample) int sample(int i, unsigned char *picture)
{
    memcpy(picture, samples->bytes + (size_t)i * DIGIT_PIXELS, DIGIT_PIXELS);
    return samples->labels[i];
}
