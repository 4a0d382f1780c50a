/* Beyond the lecture: your own photographs. Put those of each class into a folder of its own, pets/cat, pets/dog, ...:
 *
 *     ./photos --data pets                                   learns them and writes photos.safetensors
 *     ./photos --load photos.safetensors mine.jpg            mine.jpg: cat 97.3 %, dog 2.7 %
 *     ./photos --data pets --pretrained resnet18.pth         for few photographs: begins with what a million taught
 *
 * The network is ResNet-18, a narrow one unless its weights are given. In Python they are written by
 * torch.save(torchvision.models.resnet18(weights="DEFAULT").state_dict(), "resnet18.pth"). Needs stb_image.
 *
 *     make photos && ./photos          or          cc -O2 $(pkg-config --cflags stb) examples/photos.c -lm -o photos
 */
#include "stb.h"
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "common.h"
#include "networks.h"

enum { DRAWN = 1000, NARROW = 16, WIDE = 64, ROOM = 1 << 16 };
static const float mean[3] = { .485f, .456f, .406f }, std[3] = { .229f, .224f, .225f };     /* of ImageNet */

static void draw_folder(example *e)                         /* so that the program always runs */
{
    cnn_data *digits = digits_new(0, DRAWN);
    char path[100];
    int i;
    if (digits->error) example_fail(e, "%s", digits->error);
    e->data = "photos_digits";
    printf("No --data FOLDER: learning %s, which has drawn digits, instead.\n", e->data);
    example_mkdir(e->data);
    for (i = 0; i < DRAWN; i++) {
        snprintf(path, sizeof path, "%s/%d", e->data, digits->labels[i]);
        example_mkdir(path);
        snprintf(path, sizeof path, "%s/%d/%03d.png", e->data, digits->labels[i], i);
        if (!stbi_write_png(path, DIGIT_SIZE, DIGIT_SIZE, 1, digits->bytes + i * DIGIT_PIXELS, DIGIT_SIZE))
            example_fail(e, "%s cannot be written; give a folder of your own: --data FOLDER", path);
    }
    digits_free(digits);
}

static void read_folder(example *e)                         /* every fifth picture is kept for the test */
{
    cnn_data *all = cnn_load_images(e->data, .height = e->size, .width = e->size, .skip_broken = 1,
                                    .progress = e->quiet ? NULL : stderr);
    e->data_name = e->data;
    cnn_normalize(all, mean, std);
    cnn_random_split(all, (all->count + 4) / 5, e->seed, &e->train, &e->test);
    if (e->train->error) example_fail(e, "%s", e->train->error);
    if (all->skipped) printf("%s: left out %d files that cannot be read\n", e->data, all->skipped);
    if (e->batch > e->train->count) e->batch = e->train->count;
    if (!e->quiet)
        printf("%s: %d classes, %d training and %d test pictures, as 3 x %d x %d\n", e->data, all->classes,
               e->train->count, e->test->count, e->size, e->size);
    cnn_data_free(all);
}

/* What naming a picture takes besides the weights goes into their file. */
static void write_facts(const example *e, cnn_net *net, int width)
{
    static char text[ROOM];
    size_t used = 0;
    int k;
    for (k = 0; k < e->train->classes && used < ROOM; k++)
        used += (size_t)snprintf(text + used, ROOM - used, "%s%s", k ? "\n" : "", e->train->class_names[k]);
    if (used >= ROOM) example_fail(e, "%s: the names of its classes take more than %d bytes", e->data, ROOM);
    cnn_set_metadata(net, "classes", text);
    snprintf(text, ROOM, "%d", e->size);
    cnn_set_metadata(net, "size", text);
    snprintf(text, ROOM, "%d", width);
    cnn_set_metadata(net, "width", text);
    snprintf(text, ROOM, "mean %g %g %g std %g %g %g", mean[0], mean[1], mean[2], std[0], std[1], std[2]);
    cnn_set_metadata(net, "scale", text);
}

/* All layers but the last, which has other classes. */
static void load_pretrained(const example *e, cnn_net *net)
{
    char report[600];
    int loaded, all;
    cnn_load_partly(net, e->pretrained, report, sizeof report);
    example_check(e, net);
    if (sscanf(report, "%d of %d", &loaded, &all) != 2 || loaded < all - 2 || strstr(report, "unexpected"))
        example_fail(e, "%s: does not fit ResNet-18: %s", e->pretrained, report);
    if (!e->quiet) printf("%s: %s\n", e->pretrained, report);
}

static void learn(example *e, cnn_net *net)
{
    int alone = !e->pretrained ? 0 : e->alone < e->epochs ? e->alone : e->epochs;
    example_before(e, net);
    if (alone) {                                            /* its random weights would spoil what the others know */
        if (!e->quiet) printf("Up to epoch %d the last layer learns alone.\n", alone);
        cnn_requires_grad(net, NULL, 0);
        cnn_requires_grad(net, "fc", 1);
        cnn_adamw(net, .lr = (float)e->lr);
        example_fit(e, net, alone);
        cnn_requires_grad(net, NULL, 1);
    }
    if (alone < e->epochs) {
        cnn_adamw(net, .lr = (float)(e->pretrained ? e->lr / 10 : e->lr));
        cnn_cosine_lr(net, .t_max = e->epochs - alone);
        example_fit(e, net, e->epochs);
    }
    example_after(e, net);
}

static const char *fact(const example *e, const char *key)
{
    static char value[ROOM];
    if (!cnn_read_metadata(e->load, key, value, ROOM)) example_fail(e, "%s", value);
    return value;
}

static int name_pictures(const example *e)
{
    static char classes[ROOM];
    static const char *names[ROOM];
    static float y[ROOM];
    float m[3], d[3];
    int size = atoi(fact(e, "size")), width = atoi(fact(e, "width")), count = 0, failed = 0, i;
    char *name;
    cnn_net *net = cnn_new(3, size, size);
    for (name = strtok(strcpy(classes, fact(e, "classes")), "\n"); name; name = strtok(NULL, "\n")) names[count++] = name;
    if (sscanf(fact(e, "scale"), "mean %f %f %f std %f %f %f", m, m + 1, m + 2, d, d + 1, d + 2) != 6)
        example_fail(e, "%s: its scale is no mean and std of three colours: %.60s", e->load, fact(e, "scale"));
    example_begin(e, net);
    network_resnet18(net, width, count);
    cnn_softmax(net);                                       /* its outputs are probabilities */
    cnn_load(net, e->load);
    cnn_set_scale(net, m, d);
    for (i = 0; i < e->picture_count; i++) {
        cnn_data *picture = cnn_load_image(e->pictures[i], .height = size, .width = size);
        example_check(e, net);
        if (picture->error) fprintf(stderr, "photos: %s\n", picture->error), failed = 1;
        else if (cnn_predict_bytes(net, y, picture->bytes, 1)) example_name(e->pictures[i], y, names, count);
        cnn_data_free(picture);
    }
    example_check(e, net);
    cnn_free(net);
    return failed;
}

int main(int argc, char **argv)
{
    example e = { 0 };
    cnn_net *net;
    int width;

    e.name = "photos";
    e.about = "learns to name the photographs in a folder, and names others";
    e.kind = EXAMPLE_PHOTOS;
    e.save = "photos.safetensors";
    e.epochs = 30; e.batch = 32; e.lr = 2e-3; e.alone = 5;
    example_options(&e, argc, argv);
    if (e.load && (e.data || e.pretrained || !e.picture_count))
        example_fail(&e, "--load names pictures and trains nothing: ./photos --load %.200s PICTURES", e.load);
    if (e.load) return name_pictures(&e);
    if (e.picture_count) example_fail(&e, "%.200s: to name pictures, give the network too: --load FILE", e.pictures[0]);

    width = e.pretrained ? WIDE : NARROW;
    if (!e.size) e.size = e.pretrained ? 224 : 64;
    e.augment.padding = e.size / 8; e.augment.rotation = 10; e.augment.scale = .1f;
    e.augment.flip = e.data != NULL;                        /* not of digits */
    if (!e.data) draw_folder(&e);
    read_folder(&e);

    net = cnn_new(3, e.size, e.size);
    example_begin(&e, net);
    network_resnet18(net, width, e.train->classes);
    write_facts(&e, net, width);
    if (e.pretrained) load_pretrained(&e, net);
    learn(&e, net);
    return example_end(&e, net);
}
