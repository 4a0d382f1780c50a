/* photos_tool.c - what programs.sh needs to look into the files of examples/photos.c:
 *
 *     photos_tool pretrained FILE            writes ResNet-18 with 7 classes, as PyTorch would
 *     photos_tool changed A B                ResNet-18s: prints the parameters that are not the same in both
 *     photos_tool fact FILE KEY              prints a metadata string
 *     photos_tool forge FILE KEY VALUE       a narrow ResNet-18 with one class, and one changed metadata string
 *     photos_tool name FILE PICTURE ...      a line a picture: its class and probability, by cnn_classify
 */
#include "../../examples/stb.h"
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../../examples/networks.h"

static const float mean[3] = { .485f, .456f, .406f }, deviation[3] = { .229f, .224f, .225f };

static char text[1 << 16];

static const char *fact(const char *file, const char *key)
{
    if (cnn_read_metadata(file, key, text, sizeof text)) return text;
    fprintf(stderr, "%s\n", text);
    exit(1);
}

static int classes_of(const char *file)                     /* 7: a file of `pretrained` */
{
    int count = 1, i;
    if (!cnn_read_metadata(file, "classes", text, sizeof text)) return 7;
    for (i = 0; text[i]; i++) count += text[i] == '\n';
    return count;
}

static cnn_net *resnet(int size, int width, int classes, const char *file)
{
    cnn_net *net = cnn_new(3, size, size);
    cnn_manual_seed(net, 18);
    network_resnet18(net, width, classes);
    if (file) cnn_load(net, file);
    return net;
}

static int end(cnn_net *net)
{
    int bad = cnn_error(net) != NULL;
    if (bad) fprintf(stderr, "%s\n", cnn_error(net));
    cnn_free(net);
    return bad;
}

static int changed(const char *a, const char *b)
{
    cnn_net *one = resnet(32, 64, classes_of(a), a), *other = resnet(32, 64, classes_of(b), b);
    const char *key;
    int i;
    for (i = 0; (key = cnn_key(one, i)) != NULL; i++) {
        size_t count = cnn_get(one, key, NULL, 0), same = count == cnn_get(other, key, NULL, 0);
        float *x = (float *)malloc(count * sizeof *x), *y = (float *)malloc(count * sizeof *y);
        if (!x || !y) exit(1);
        if (!same || !cnn_get(one, key, x, count) || !cnn_get(other, key, y, count) || memcmp(x, y, count * sizeof *x)) puts(key);
        free(x);
        free(y);
    }
    i = end(one);
    return end(other) || i;
}

static int name(const char *file, int count, char **pictures)
{
    int size = atoi(fact(file, "size")), width = atoi(fact(file, "width")), classes = classes_of(file), i, k;
    cnn_net *net = resnet(size, width, classes, file);
    for (i = 0; i < count; i++) {
        cnn_data *picture = cnn_load_image(pictures[i], .height = size, .width = size);
        float probability;
        const char *line = fact(file, "classes");
        int class_;
        cnn_normalize(picture, mean, deviation);
        if (!cnn_classify(net, &class_, &probability, picture, 0)) break;
        for (k = 0; k < class_; k++) line = strchr(line, '\n') + 1;
        printf("%s: %.*s %.1f %%\n", pictures[i], (int)strcspn(line, "\n"), line, 100 * (double)probability);
        cnn_data_free(picture);
    }
    return end(net);
}

int main(int argc, char **argv)
{
    cnn_net *net;
    if (argc < 3) return 2;
    if (!strcmp(argv[1], "changed")) return changed(argv[2], argv[3]);
    if (!strcmp(argv[1], "name")) return name(argv[2], argc - 3, argv + 3);
    if (!strcmp(argv[1], "fact")) {
        puts(fact(argv[2], argv[3]));
        return 0;
    }
    net = !strcmp(argv[1], "forge") ? resnet(32, 16, 1, NULL) : resnet(32, 64, 7, NULL);
    if (!strcmp(argv[1], "forge")) {
        cnn_set_metadata(net, "classes", "one");
        cnn_set_metadata(net, "size", "32");
        cnn_set_metadata(net, "width", "16");
        cnn_set_metadata(net, "scale", "mean 0 0 0 std 1 1 1");
        cnn_set_metadata(net, argv[3], argv[4]);
    }
    cnn_save(net, argv[2]);
    return end(net);
}
