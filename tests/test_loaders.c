/* The files that people have: IDX under its mirrors' names, in torchvision's folders, of every type of numbers, in colour;
   CIFAR-10 and CIFAR-100; and what stands in their place, answered by what it is. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "test.h"
#include "folder.h"

static void write_file(const char *name, const void *bytes, size_t count)
{
    FILE *file = fopen(in_folder(name), "wb");
    CHECK(file && fwrite(bytes, 1, count, file) == count, "%s cannot be written", name);
    if (file) fclose(file);
}

/* An IDX file: its type, sizes, and numbers in the type's own bytes, highest first. */
static void write_idx(const char *name, int type, int dimensions, const int *sizes, const double *numbers, size_t count)
{
    static unsigned char file[4096];
    size_t at = 0, i, k, bytes = type == 8 || type == 9 ? 1 : type == 0xb ? 2 : type == 0xe ? 8 : 4;
    file[0] = file[1] = 0;
    file[2] = (unsigned char)type;
    file[3] = (unsigned char)dimensions;
    for (at = 4, i = 0; i < (size_t)dimensions; i++)
        for (k = 4; k-- > 0;) file[at++] = (unsigned char)(sizes[i] >> 8 * k);
    for (i = 0; i < count; i++) {
        uint64_t word;
        float single = (float)numbers[i];
        uint32_t low;
        memcpy(&low, &single, sizeof low);
        memcpy(&word, &numbers[i], sizeof word);
        if (type == 0xd) word = low;
        else if (type != 0xe) word = (uint64_t)(int64_t)numbers[i];
        for (k = bytes; k-- > 0;) file[at++] = (unsigned char)(word >> 8 * k);
    }
    write_file(name, file, at);
}

/* The data set cannot be read, and its sentence has each of the texts. Frees it. */
static void refused(cnn_data *data, int line, const char *a, const char *b)
{
    CHECK(data->error && strstr(data->error, a) && strstr(data->error, b) && !data->count, "line %d: expected \"%s\" and \"%s\": %s", line,
          a, b, data->error ? data->error : "(no error)");
    cnn_data_free(data);
}
#define REFUSED(data, a, b) refused(data, __LINE__, a, b)

static void make(const char *name) { CHECK(!mkdir(in_folder(name), 0700), "%s cannot be made", name); }
static void take_away(const char *name) { CHECK(!rmdir(in_folder(name)), "%s: something was left in it", name); }

/* ---- names and folders ---- */

static void put_mnist(const char *directory, const char *stem, char dot, int count)
{
    int images[3] = { 0, 2, 2 };
    double pixels[40] = { 0 }, labels[10] = { 0 };
    char name[100];
    images[0] = count;
    labels[count - 1] = 7;
    snprintf(name, sizeof name, "%s%s-images%cidx3-ubyte", directory, stem, dot);
    write_idx(name, 8, 3, images, pixels, 4 * (size_t)count);
    snprintf(name, sizeof name, "%s%s-labels%cidx1-ubyte", directory, stem, dot);
    write_idx(name, 8, 1, images, labels, (size_t)count);
}

static void remove_mnist(const char *directory, const char *stem, char dot)
{
    char name[100];
    snprintf(name, sizeof name, "%s%s-images%cidx3-ubyte", directory, stem, dot);
    remove(in_folder(name));
    snprintf(name, sizeof name, "%s%s-labels%cidx1-ubyte", directory, stem, dot);
    remove(in_folder(name));
}

static void has_mnist(const char *split, int count, int line)
{
    cnn_data *data = cnn_load_mnist(folder, split);
    CHECK(!data->error && data->count == count && data->labels[count - 1] == 7, "line %d: %s", line, data->error ? data->error : "other samples");
    cnn_data_free(data);
}

static void check_names(void)
{
    static const char *const folders[4] = { "", "raw/", "MNIST/raw/", "mnist/" };
    static const char *const stems[3] = { "train", "t10k", "test" };
    int f, stem, dot;
    cnn_data *data;
    make("raw"); make("MNIST"); make("MNIST/raw"); make("mnist");
    for (f = 0; f < 4; f++)
        for (stem = 0; stem < 3; stem++)
            for (dot = 0; dot < 2; dot++) {
                put_mnist(folders[f], stems[stem], dot ? '.' : '-', 3);
                if (stem) {                                 /* every loader takes both words for the test samples */
                    has_mnist("t10k", 3, __LINE__);
                    has_mnist("test", 3, __LINE__);
                } else has_mnist("train", 3, __LINE__);
                REFUSED(cnn_load_mnist(folder, stem ? "train" : "test"), "cannot be opened", stem ? "/train-images-idx3-ubyte" : "/t10k-images-idx3-ubyte");
                remove_mnist(folders[f], stems[stem], dot ? '.' : '-');
            }
    put_mnist("", "train", '-', 3);                         /* the folder itself before one below it */
    put_mnist("raw/", "train", '-', 4);
    has_mnist("train", 3, __LINE__);
    write_file("train-images-idx3-ubyte.gz", "\37\213\10", 3);              /* and the unpacked file before the packed one */
    has_mnist("train", 3, __LINE__);
    remove_mnist("", "train", '-');
    remove(in_folder("train-images-idx3-ubyte.gz"));
    make("train-images-idx3-ubyte");                        /* a folder of that name, as some zip programs make it, is no file */
    has_mnist("train", 4, __LINE__);
    take_away("train-images-idx3-ubyte");
    remove_mnist("raw/", "train", '-');
    write_file("train-images.idx3-ubyte.gz", "\37\213\10", 3);
    REFUSED(cnn_load_mnist(folder, "train"), "train-images.idx3-ubyte.gz is packed", "gzip -dk");
    remove(in_folder("train-images.idx3-ubyte.gz"));
    make("FashionMNIST"); make("FashionMNIST/raw");
    put_mnist("FashionMNIST/raw/", "t10k", '-', 3);
    REFUSED(cnn_load_fashion_mnist(folder, "test"), "FashionMNIST/raw/t10k-images-idx3-ubyte", "holds MNIST's digits");
    REFUSED(cnn_load_mnist(folder, "test"), "t10k-images-idx3-ubyte", "cannot be opened");
    remove_mnist("FashionMNIST/raw/", "t10k", '-');
    REFUSED(cnn_load_mnist(folder, "val"), "cnn_load_mnist: the split is \"train\" or \"test\"", "\"val\"");
    REFUSED(cnn_load_fashion_mnist(folder, NULL), "cnn_load_fashion_mnist: the split is \"train\" or \"test\"", "\"\"");
    REFUSED(cnn_load_mnist(NULL, "train"), "(no folder)", "cannot be opened");
    take_away("FashionMNIST/raw"); take_away("FashionMNIST");
    take_away("mnist"); take_away("MNIST/raw"); take_away("MNIST"); take_away("raw");
    data = cnn_load_idx(NULL, NULL, 3);
    REFUSED(data, "cannot be opened", "");
    REFUSED(cnn_load_images(folder, .height = 2, .width = 2), "must include stb_image.h", "before cnn.h: #define STB_IMAGE_IMPLEMENTATION, #include <stb_image.h>");
    REFUSED(cnn_load_image("picture.png", .height = 2, .width = 2), "cnn_load_image: the program must include stb_image.h", "");
}

/* ---- types of numbers, and colour ---- */

static cnn_data *load(int classes) { return cnn_load_idx(in_folder("images"), in_folder("labels"), classes); }

static void check_types(void)
{
    static const int types[6] = { 8, 9, 0xb, 0xc, 0xd, 0xe }, shape[3] = { 2, 1, 3 };
    static const double numbers[6][6] = { { 0, 1, 127, 128, 254, 255 }, { 0, 1, 127, -128, -1, -2 }, { 0, 1, 255, 256, -32768, -1 },
                                          { 0, 70000, -70000, 16777216, -1, 255 }, { 0, .5, -.25, 1e-3, 3e38, -7 }, { 0, .5, -.25, 1e-3, 3e38, -7 } };
    static const double labels[2] = { 3, 1 };
    int t, l, i;
    for (t = 0; t < 6; t++)
        for (l = 0; l < 6; l++) {
            cnn_data *data;
            write_idx("images", types[t], 3, shape, numbers[t], 6);
            write_idx("labels", types[l], 1, shape, labels, 2);
            data = load(4);
            CHECK(!data->error && data->count == 2 && data->channels == 1 && data->height == 1 && data->width == 3 && !data->bytes == (t > 0)
                  && !data->floats == !t && data->labels[0] == 3 && data->labels[1] == 1, "types %02x and %02x: %s", types[t], types[l], data->error);
            for (i = 0; !data->error && i < 6; i++) {
                float x = data->bytes ? (float)data->bytes[i] : data->floats[i];
                CHECK(x == (float)numbers[t][i], "type %02x: %g became %g", types[t], numbers[t][i], x);
            }
            CHECK(!data->error && data->scale[0] == (t ? 1 : 1.0f / 255), "floats stay, bytes are divided by 255");
            cnn_data_free(data);
        }
}

static void check_shapes(void)
{
    static const int first[4] = { 2, 3, 5, 6 }, last[4] = { 2, 5, 6, 3 }, both[4] = { 2, 1, 2, 3 }, rows[2] = { 4, 9 }, five[5] = { 1, 1, 1, 1, 1 };
    static const double labels[4] = { 0, 1, 2, 3 };
    double planes[180], pixels[180];
    int type, n, c, p, i;
    for (n = 0; n < 2; n++)
        for (c = 0; c < 3; c++)
            for (p = 0; p < 30; p++) planes[n * 90 + c * 30 + p] = pixels[n * 90 + p * 3 + c] = n * 90 + c * 30 + p;
    for (type = 8; type < 0xe; type += 5) {                 /* bytes and floats */
        for (i = 0; i < 2; i++) {
            cnn_data *data;
            write_idx("images", type, 4, i ? last : first, i ? pixels : planes, 180);
            write_idx("labels", 8, 1, first, labels, 2);
            data = load(4);
            CHECK(!data->error && data->count == 2 && data->channels == 3 && data->height == 5 && data->width == 6, "colour %d: %s", i, data->error);
            for (p = 0; !data->error && p < 180; p++) {
                double x = data->bytes ? data->bytes[p] : (double)data->floats[p];
                CHECK(x == p, "colour, channels %s: value %d is %g", i ? "last" : "first", p, x);
            }
            cnn_data_free(data);
        }
    }
    for (i = 0; i < 3; i++) {                               /* up to 4 channels may stand last, if what stands first is more than 4 */
        static const int shapes[3][4] = { { 2, 5, 3, 4 }, { 2, 4, 3, 4 }, { 2, 5, 3, 5 } }, channels[3] = { 4, 4, 5 }, heights[3] = { 5, 3, 3 };
        cnn_data *data;
        write_idx("images", 8, 4, shapes[i], pixels, 2 * shapes[i][1] * shapes[i][2] * shapes[i][3]);
        write_idx("labels", 8, 1, first, labels, 2);
        data = load(4);
        CHECK(!data->error && data->channels == channels[i] && data->height == heights[i], "shape %d: %s, %d channels", i,
              data->error ? data->error : "fine", data->channels);
        cnn_data_free(data);
    }
    {
        cnn_data *data;
        write_idx("images", 8, 4, both, planes, 12);        /* one channel of 2 x 3, not three of 1 x 2 */
        data = load(4);
        CHECK(!data->error && data->channels == 1 && data->height == 2 && data->width == 3, "an order that both would fit: %s", data->error);
        cnn_data_free(data);
        write_idx("images", 0xd, 2, rows, planes, 36);      /* (samples, values) */
        write_idx("labels", 8, 1, rows, labels, 4);
        data = load(4);
        CHECK(!data->error && data->count == 4 && data->channels == 1 && data->height == 1 && data->width == 9 && data->floats[9] == 9,
              "rows of values: %s", data->error);
        cnn_data_free(data);
    }
    write_idx("images", 8, 5, five, planes, 1);
    REFUSED(load(4), "begins with 00 00 08 05, but an IDX file of images begins with 00 00 08 03", "too many dimensions");
    write_idx("images", 8, 1, rows, planes, 4);
    REFUSED(load(4), "images: begins with 00 00 08 01", "it has one dimension, as labels have: are the two paths swapped?");
    write_idx("images", 8, 2, rows, planes, 36);
    write_idx("labels", 0xc, 2, rows, planes, 36);
    REFUSED(load(4), "labels: begins with 00 00 0c 02", "Labels have one dimension");
    write_idx("labels", 0xa, 1, rows, labels, 4);
    REFUSED(load(4), "labels: begins with 00 00 0a 01, but an IDX file of labels begins with 00 00 08 01", "");
}

static void check_labels(void)
{
    static const int shape[2] = { 4, 1 };
    static const double pixels[4] = { 0 }, letters[4] = { 1, 12, 26, 3 }, below[4] = { 1, -1, 0, 0 }, half[4] = { 1, 2, 2.5, 1 }, nan[4] = { 1, NAN, 0, 0 },
                        large[4] = { 0, 2147483648.0, 0, 0 }, most[4] = { 0, 2147483646.0, 0, 0 }, least[4] = { 0, -2147483647.0, 0, 0 };
    cnn_data *data;
    int labels[3] = { 0, 5, 2 };
    unsigned char bytes[3] = { 0 };
    write_idx("images", 8, 2, shape, pixels, 4);
    write_idx("labels", 8, 1, shape, letters, 4);
    REFUSED(load(10), "images: label 12 of sample 1 is outside 0 .. 9; the largest is 26", "give 27 classes");
    REFUSED(load(26), "label 26 of sample 2 is outside 0 .. 25", "give 27 classes");
    data = load(27);
    CHECK(!data->error && data->classes == 27 && data->labels[2] == 26, "27 classes: %s", data->error);
    cnn_data_free(data);
    write_idx("labels", 0xc, 1, shape, below, 4);
    REFUSED(load(10), "label -1 of sample 1 is outside 0 .. 9", "labels go from -1 to 1");
    write_idx("labels", 0xe, 1, shape, half, 4);
    REFUSED(load(10), "labels: label 2.5 of sample 2 is not a whole number", "");
    write_idx("labels", 0xd, 1, shape, nan, 4);
    REFUSED(load(10), "labels: label nan of sample 1 is not a whole number", "");
    write_idx("labels", 0xe, 1, shape, large, 4);
    REFUSED(load(10), "label 2.14748e+09 of sample 1 is not a whole number", "");
    write_idx("labels", 0xc, 1, shape, most, 4);
    REFUSED(load(10), "label 2147483646 of sample 1 is outside 0 .. 9; the largest is 2147483646", "give 2147483647 classes");
    write_idx("labels", 0xc, 1, shape, least, 4);
    REFUSED(load(10), "label -2147483647 of sample 1 is outside 0 .. 9", "labels go from -2147483647 to 0");
    put_mnist("", "train", '-', 3);
    write_idx("train-labels-idx1-ubyte", 8, 1, (const int[]){ 3 }, letters, 3);
    REFUSED(cnn_load_mnist(folder, "train"), "label 12 of sample 1", "give 27 classes to cnn_load_idx, as it is another data set");
    remove_mnist("", "train", '-');
    data = cnn_data_new(.count = 3, .channels = 1, .height = 1, .width = 1, .bytes = bytes, .labels = labels, .classes = 3);
    REFUSED(data, "your data set: label 5 of sample 1 is outside 0 .. 2; the largest is 5", "give 6 classes");
}

/* MNIST itself as floats: the share of zeros is looked for there too. */
static void check_float_mnist(void)
{
    static const int shape[3] = { 2, 2, 2 };
    static const double clothes[8] = { 0, .5, 0, 1, 0, .5, 0, 1 }, digits[8] = { 0, 0, 0, 1, 0, 0, 0, 1 }, labels[2] = { 1, 7 };
    cnn_data *data;
    write_idx("t10k-images-idx3-ubyte", 0xd, 3, shape, clothes, 8);
    write_idx("t10k-labels-idx1-ubyte", 8, 1, shape, labels, 2);
    REFUSED(cnn_load_mnist(folder, "test"), "holds Fashion-MNIST's clothes", "");
    data = cnn_load_fashion_mnist(folder, "test");
    CHECK(!data->error && data->floats && data->floats[1] == 0.5f && data->labels[1] == 7 && !strcmp(data->class_names[7], "Sneaker"), "%s", data->error);
    cnn_data_free(data);
    write_idx("t10k-images-idx3-ubyte", 0xd, 3, shape, digits, 8);
    REFUSED(cnn_load_fashion_mnist(folder, "test"), "holds MNIST's digits", "");
    remove_mnist("", "t10k", '-');
}

/* ---- something else in the file's place ---- */

static void check_others(void)
{
    static const struct { const char *bytes; size_t count; const char *is; } others[] = {
        { "<!DOCTYPE html>\n<html>", 22, "is a web page, not an IDX file of images: the download failed, or got the page about the file; get it again" },
        { "<!doctype HTML>", 15, "is a web page" }, { "\n \t<HTML lang=en>", 17, "is a web page" },
        { "\357\273\277<html>", 9, "is a web page" }, { "<?xml version=\"1.0\"?><Error>", 28, "is a web page" }, { "<htm", 4, "only 4 bytes" },
        { "\3757zXZ\0\0\4", 8, "is xz-compressed, not an IDX file of images; unpack it" }, { "BZh91AY&", 8, "is bzip2-compressed" },
        { "\050\265\057\375....", 8, "is zstd-compressed" }, { "PK\3\4\24\0\0\0", 8, "is a zip archive, not an IDX file of images; unpack it: unzip" },
        { "7z\274\257\47\34..", 8, "is a 7-Zip archive" }, { "\223NUMPY\1\0", 8, "is a NumPy array" }, { "\211PNG\r\n\32\n", 8, "is a PNG picture" },
        { "\377\330\377\340\0\20JFIF", 10, "is a JPEG picture" }, { "version https://git-lfs.github.com/spec/v1\n", 43, "is a placeholder of Git LFS" } };
    char tar[512] = "train-images-idx3-ubyte";
    size_t i;
    for (i = 0; i < sizeof others / sizeof *others; i++) {
        write_file("images", others[i].bytes, others[i].count);
        REFUSED(load(10), "/images: ", others[i].is);
    }
    memcpy(tar + 257, "ustar", 5);
    write_file("images", tar, sizeof tar);
    REFUSED(load(10), "is a tar archive, not an IDX file of images", "tar xf");
    write_idx("images", 8, 1, (const int[]){ 4 }, (const double[]){ 0, 0, 0, 0 }, 4);
    write_idx("images", 8, 2, (const int[]){ 4, 1 }, (const double[]){ 0, 0, 0, 0 }, 4);
    write_file("labels", "<html></html>", 13);
    REFUSED(load(10), "/labels: is a web page, not an IDX file of labels", "the download failed");
    remove(in_folder("images"));
    remove(in_folder("labels"));
}

/* ---- CIFAR ---- */

/* Sample n of a file: its label bytes, then n + p * 7 for value p. */
static void write_cifar(const char *name, int rows, int labels, int classes, unsigned first)
{
    unsigned char *file = (unsigned char *)malloc((size_t)rows * (size_t)(labels + 3072)), *to = file;
    int n, p;
    for (n = 0; n < rows; n++) {
        if (labels == 2) *to++ = (unsigned char)(n % 20);
        *to++ = (unsigned char)((unsigned)n % (unsigned)classes);
        for (p = 0; p < 3072; p++) *to++ = (unsigned char)(first + (unsigned)n + 7u * (unsigned)p);
    }
    write_file(name, file, (size_t)(to - file));
    free(file);
}

static void is_cifar(cnn_data *data, int count, int classes, int label, int sample, int byte, const char *name, int line)
{
    CHECK(!data->error && data->count == count && data->channels == 3 && data->height == 32 && data->width == 32 && data->classes == classes, "line %d: %s",
          line, data->error ? data->error : "another shape");
    if (!data->error)
        CHECK(data->labels[sample] == label && data->bytes[(size_t)sample * 3072 + 1024] == byte && !strcmp(data->class_names[label], name),
              "line %d: sample %d has label %d (%s) and first green byte %d", line, sample, data->labels[sample], data->class_names[data->labels[sample]],
              data->bytes[(size_t)sample * 3072 + 1024]);
    cnn_data_free(data);
}

static void check_cifar10(void)
{
    static const char *const folders[3] = { "", "cifar-10-batches-bin/", "cifar-10/" };
    char name[100];
    int f, i;
    make("cifar-10-batches-bin"); make("cifar-10");
    for (f = 0; f < 3; f++) {
        snprintf(name, sizeof name, "%stest_batch.bin", folders[f]);
        write_cifar(name, 10000, 1, 10, 3);
        is_cifar(cnn_load_cifar10(folder, "test"), 10000, 10, 8, 18, (3 + 18 + 7 * 1024) & 255, "ship", __LINE__);
        is_cifar(cnn_load_cifar10(folder, "t10k"), 10000, 10, 9, 9999, (3 + 9999 + 7 * 1024) & 255, "truck", __LINE__);
        REFUSED(cnn_load_cifar10(folder, "train"), "data_batch_1.bin", "cannot be opened");
        remove(in_folder(name));
    }
    for (i = 1; i <= 5; i++) {
        snprintf(name, sizeof name, "cifar-10-batches-bin/data_batch_%d.bin", i);
        write_cifar(name, 10000, 1, 10, (unsigned)i * 50);
    }
    is_cifar(cnn_load_cifar10(folder, "train"), 50000, 10, 7, 20017, (150 + 17 + 7 * 1024) & 255, "horse", __LINE__);
    write_file("cifar-10-batches-bin/data_batch_4.bin", "<html>", 6);
    REFUSED(cnn_load_cifar10(folder, "train"), "data_batch_4.bin: is a web page", "get it again");
    for (i = 1; i <= 5; i++) {
        snprintf(name, sizeof name, "cifar-10-batches-bin/data_batch_%d.bin", i);
        remove(in_folder(name));
    }
    write_cifar("test_batch.bin", 10000, 1, 11, 0);
    REFUSED(cnn_load_cifar10(folder, "test"), "label 10 of sample 10 is outside 0 .. 9", "the file is damaged, or of another data set");
    remove(in_folder("test_batch.bin"));
    take_away("cifar-10-batches-bin"); take_away("cifar-10");
}

static void check_cifar100(void)
{
    int i;
    make("cifar-100-binary");
    write_cifar("cifar-100-binary/test.bin", 10000, 2, 100, 3);
    is_cifar(cnn_load_cifar100(folder, "test", CNN_FINE), 10000, 100, 57, 157, (3 + 157 + 7 * 1024) & 255, "pear", __LINE__);
    is_cifar(cnn_load_cifar100(folder, "t10k", CNN_COARSE), 10000, 20, 17, 157, (3 + 157 + 7 * 1024) & 255, "trees", __LINE__);
    is_cifar(cnn_load_cifar100(in_folder("cifar-100-binary"), "test", CNN_FINE), 10000, 100, 99, 9999, (3 + 9999 + 7 * 1024) & 255, "worm", __LINE__);
    REFUSED(cnn_load_cifar100(folder, "train", CNN_FINE), "train.bin", "cannot be opened");
    REFUSED(cnn_load_cifar100(folder, "valid", CNN_FINE), "cnn_load_cifar100: the split is \"train\" or \"test\"", "\"valid\"");
    REFUSED(cnn_load_cifar100(folder, "test", (cnn_cifar100_labels)2), "neither CNN_FINE nor CNN_COARSE", "2");
    write_cifar("cifar-100-binary/test.bin", 10000, 1, 100, 3);
    REFUSED(cnn_load_cifar100(folder, "test", CNN_FINE), "has 30730000 bytes, but a CIFAR-100 batch has 30740000", "");
    remove(in_folder("cifar-100-binary/test.bin"));
    write_file("cifar-100-binary/train.bin", "short", 5);
    REFUSED(cnn_load_cifar100(folder, "train", CNN_COARSE), "train.bin: has 5 bytes", "a CIFAR-100 batch has 153700000");
    remove(in_folder("cifar-100-binary/train.bin"));
    take_away("cifar-100-binary");
    for (i = 1; i < 100; i++)                               /* the names are in the alphabet's order, as the labels are */
        CHECK(strcmp(cnn__cifar100_fine[i - 1], cnn__cifar100_fine[i]) < 0, "%s is out of order", cnn__cifar100_fine[i]);
    for (i = 1; i < 20; i++) CHECK(strcmp(cnn__cifar100_coarse[i - 1], cnn__cifar100_coarse[i]) < 0, "%s is out of order", cnn__cifar100_coarse[i]);
}

static void check_other_cifar(void)
{
    write_file("cifar.tar.gz", "\37\213\10", 3);
    REFUSED(cnn_load_cifar10(in_folder("cifar.tar.gz"), "test"), "cifar.tar.gz is a file; unpack it (tar xf", "give the folder that comes out");
    remove(in_folder("cifar.tar.gz"));
    write_file("cifar-10-binary.tar.gz", "\37\213\10", 3);
    REFUSED(cnn_load_cifar10(folder, "train"), "cifar-10-binary.tar.gz is packed; unpack it: tar xf ", folder);
    remove(in_folder("cifar-10-binary.tar.gz"));
    write_file("cifar-10-python.tar.gz", "\37\213\10", 3);
    REFUSED(cnn_load_cifar10(folder, "train"), "cifar-10-python.tar.gz is of the Python version of CIFAR-10", "binary version, cifar-10-binary.tar.gz");
    remove(in_folder("cifar-10-python.tar.gz"));
    write_file("data_batch_1", "\200\2}", 3);
    REFUSED(cnn_load_cifar10(folder, "train"), "data_batch_1 is of the Python version of CIFAR-10", "https://www.cs.toronto.edu/~kriz/cifar.html");
    remove(in_folder("data_batch_1"));
    make("cifar-100-python");
    write_file("cifar-100-python/test", "\200\2}", 3);
    REFUSED(cnn_load_cifar100(folder, "test", CNN_FINE), "cifar-100-python/test is of the Python version of CIFAR-100", "cifar-100-binary.tar.gz");
    remove(in_folder("cifar-100-python/test"));
    take_away("cifar-100-python");
}

int main(void)
{
    folder_make();
    check_names();
    check_types();
    check_shapes();
    check_labels();
    check_float_mnist();
    check_others();
    check_cifar10();
    check_cifar100();
    check_other_cifar();
    folder_remove();
    return test_end("loaders");
}
