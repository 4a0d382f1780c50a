/* test_images.c - pictures from folders: which files in which order, decoded, upright, resized as torchvision does; and every
   way in which a folder or a picture can be wrong. Needs stb_image and stb_image_write. */
#define _XOPEN_SOURCE 700                                  /* symlink, seteuid */
#ifdef __has_include
#if __has_include(<stb_image.h>) && __has_include(<stb_image_write.h>)
#include "../examples/stb.h"
#endif
#endif
#include <stdlib.h>
#ifdef STBI_INCLUDE_STB_IMAGE_H
static int memory_left = -1;                               /* allocations of cnn.h that succeed; -1: all */
static int memory_fails = -1;                              /* this one fails, and those after it do not */
static void *some_memory(size_t bytes)
{
    if (memory_fails >= 0 && __atomic_fetch_sub(&memory_fails, 1, __ATOMIC_SEQ_CST) == 0) return NULL;
    return memory_left < 0 || __atomic_fetch_sub(&memory_left, 1, __ATOMIC_SEQ_CST) > 0 ? malloc(bytes) : NULL;
}
#define CNN_MALLOC(bytes) some_memory(bytes)
#define CNN_FREE(pointer) free(pointer)
static int errors_said;
#define CNN_ON_ERROR(sentence) errors_said++
#endif
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "test.h"

#ifdef STBI_INCLUDE_STB_IMAGE_H
#include "folder.h"

static void refused(cnn_data *data, int line, const char *a, const char *b)
{
    CHECK(data->error && strstr(data->error, a) && strstr(data->error, b) && !data->count, "line %d: expected \"%s\" and \"%s\": %s", line,
          a, b, data->error ? data->error : "(no error)");
    cnn_data_free(data);
}
#define REFUSED(data, a, b) refused(data, __LINE__, a, b)

static void make(const char *name) { CHECK(!mkdir(in_folder(name), 0755), "%s cannot be made", name); }

static void write_file(const char *name, const void *bytes, size_t count)
{
    FILE *file = fopen(in_folder(name), "wb");
    CHECK(file && fwrite(bytes, 1, count, file) == count, "%s cannot be written", name);
    if (file) fclose(file);
}

static size_t read_file(const char *name, unsigned char *bytes, size_t room)
{
    FILE *file = fopen(in_folder(name), "rb");
    size_t count = file ? fread(bytes, 1, room, file) : 0;
    if (file) fclose(file);
    return count;
}

/* Removes all that lies below a folder of the test's. */
static void clear(const char *name)
{
    char command[400];
    snprintf(command, sizeof command, "rm -rf '%s'", in_folder(name));
    CHECK(!system(command), "%s cannot be removed", name);
}

/* A file of one colour. */
static void put_colour(const char *name, int red, int green, int blue)
{
    unsigned char rgb[2 * 3 * 3];
    int i;
    for (i = 0; i < 6; i++) { rgb[3 * i] = (unsigned char)red; rgb[3 * i + 1] = (unsigned char)green; rgb[3 * i + 2] = (unsigned char)blue; }
    CHECK(stbi_write_png(in_folder(name), 3, 2, 3, rgb, 0), "%s cannot be written", name);
}

/* ---- classes and files ---- */

static void test_order(void)
{
    /* as torchvision.datasets.ImageFolder orders them; the red of each is its place here */
    static const char *const files[] = { "set/Zebra/1.PNG", "set/Zebra/10.png", "set/Zebra/2.png", "set/Zebra/sub/a.png", "set/Zebra/sub-a/x.png",
                                         "set/Zebra/sub/deep/a.png", "set/ant/b.jpeg", "set/ant/a/a.png", "set/\303\266l/z.bmp" };
    static const int labels[] = { 0, 0, 0, 0, 0, 0, 1, 1, 2 }, order[] = { 5, 1, 8, 3, 0, 7, 2, 6, 4 };
    cnn_data *data, *train, *test;
    int i;
    make("set"); make("set/Zebra"); make("set/Zebra/sub"); make("set/Zebra/sub-a"); make("set/Zebra/sub/deep"); make("set/ant"); make("set/ant/a");
    make("set/\303\266l"); make("set/.git"); make("set/ant/.thumbs");
    for (i = 0; i < 9; i++) put_colour(files[order[i]], 20 * order[i], 100, 200);
    put_colour("set/ant/._b.png", 1, 1, 1);                 /* hidden, or no picture by their name, or in no class */
    put_colour("set/ant/.thumbs/b.png", 1, 1, 1);
    put_colour("set/.git/b.png", 1, 1, 1);
    put_colour("set/top.png", 1, 1, 1);
    put_colour("set/ant/b.png.txt", 1, 1, 1);
    put_colour("set/ant/png", 1, 1, 1);
    data = cnn_load_images(in_folder("set"), .height = 2, .width = 3);
    CHECK(!data->error && data->count == 9 && data->channels == 3 && data->height == 2 && data->width == 3 && data->classes == 3,
          "%s: %d samples, %d classes", data->error ? data->error : "fine", data->count, data->classes);
    for (i = 0; i < data->count; i++)
        CHECK(data->labels[i] == labels[i] && data->bytes[18 * i] == 20 * i && data->bytes[18 * i + 5] == 20 * i && data->bytes[18 * i + 6] == 100
                  && data->bytes[18 * i + 17] == 200, "sample %d is class %d, red %d", i, data->labels[i], data->bytes[18 * i]);
    CHECK(!strcmp(data->class_names[0], "Zebra") && !strcmp(data->class_names[1], "ant") && !strcmp(data->class_names[2], "\303\266l"), "%s %s %s",
          data->class_names[0], data->class_names[1], data->class_names[2]);
    CHECK(data->scale[0] == 1.0f / 255 && data->skipped == 0, "scale %g, %d skipped", data->scale[0], data->skipped);
    cnn_random_split(data, 3, 0, &train, &test);
    cnn_data_free(data);                                    /* the names of the two stay */
    CHECK(!train->error && train->count == 6 && test->count == 3 && !strcmp(train->class_names[2], "\303\266l") && !strcmp(test->class_names[0], "Zebra"),
          "%s", train->error ? train->error : "other names");
    cnn_data_free(train);
    cnn_data_free(test);
    data = cnn_load_images(in_folder("set/"), .height = 1, .width = 1, .channels = 1);       /* a slash at the end */
    CHECK(!data->error && data->count == 9 && !strcmp(data->class_names[0], "Zebra") && data->bytes[3] == (60 * 19595 + 100 * 38470 + 200 * 7471 + 32768) >> 16,
          "%s", data->error ? data->error : "other bytes");
    cnn_data_free(data);
    clear("set");
}

/* ---- resizing: torchvision's numbers ---- */

static unsigned char fixture[1 << 16];
static size_t fixture_size, fixture_at;

static void open_fixture(void)
{
    static const char path[] = "tests/fixtures/images.bin";
    FILE *file = fopen(path, "rb");
    fixture_size = file ? fread(fixture, 1, sizeof fixture, file) : 0;
    if (file) fclose(file);
    CHECK(fixture_size > 10 && fixture_size < sizeof fixture, "%s: %d bytes", path, (int)fixture_size);
}

/* The next picture of the fixture becomes a file. */
static void put_jpeg(const char *name)
{
    size_t size = (size_t)(fixture[fixture_at] | fixture[fixture_at + 1] << 8);
    write_file(name, fixture + fixture_at + 2, size);
    fixture_at += 2 + size;
}

static void test_cmyk(void)                                 /* one colour, and PIL's red, green, blue of it */
{
    cnn_data *data;
    int k;
    put_jpeg("cmyk.jpg");
    data = cnn_load_image(in_folder("cmyk.jpg"), .height = 1, .width = 1);
    for (k = 0; k < 3; k++, fixture_at++)
        CHECK(!data->error && abs(data->bytes[k] - fixture[fixture_at]) <= 2, "CMYK: %s, channel %d is not %d", data->error ? data->error : "fine", k,
              fixture[fixture_at]);
    cnn_data_free(data);
    remove(in_folder("cmyk.jpg"));
}

/* To the bit, but for pictures more than twice as high as wide: Pillow 13 begins with their columns, the versions before it,
   and cnn.h, with the rows. */
static void test_resize(void)
{
    static unsigned char picture[3 * 480 * 641 + 100];
    size_t size = fixture_size, at = fixture_at, cases = 0;
    while (at + 10 <= size) {
        int shape[5], i, length, worst = 0, off = 0, values;
        cnn_data *data;
        for (i = 0; i < 5; i++, at += 2) shape[i] = fixture[at] | fixture[at + 1] << 8;
        length = sprintf((char *)picture, "P6\n# noise\n%d %d\n255\n", shape[1], shape[0]);
        for (i = 0; i < 3 * shape[0] * shape[1]; i++)
            picture[length + i] = (unsigned char)(((int64_t)i * i + 7 * (int64_t)i) % 65521 % 251 + 4 * (i % 2));
        write_file("noise.ppm", picture, (size_t)(length + i));
        data = cnn_load_image(in_folder("noise.ppm"), .height = shape[2], .width = shape[3], .channels = shape[4]);
        values = shape[2] * shape[3] * shape[4];
        CHECK(!data->error && data->count == 1 && !data->labels && data->channels == shape[4], "%s", data->error ? data->error : "wrong shape");
        for (i = 0; !data->error && i < values; i++) {
            int d = abs(data->bytes[i] - fixture[at + (size_t)i]);
            off += d > 0;
            if (d > worst) worst = d;
        }
        CHECK(worst <= (shape[0] > 2 * shape[1]), "%d x %d to %d x %d x %d: %d of %d bytes differ, by up to %d", shape[0], shape[1], shape[4], shape[2], shape[3], off, values, worst);
        cnn_data_free(data);
        at += (size_t)values;
        cases++;
    }
    CHECK(cases == 46 && at == size, "%d cases", (int)cases);
    remove(in_folder("noise.ppm"));
}

/* ---- Exif's orientation ---- */

enum { BLOCK = 16, ROWS = 2, COLUMNS = 3 };

enum { WHOLE, CUT, FAR, NO_ROOM, NAMELESS, EXIFS };        /* a directory that is right, and four that are not */

/* Writes photo.jpg with an APP1 segment of this orientation. motorola: the highest byte first */
static void put_exif(int orientation, int motorola, int how)
{
    static unsigned char jpeg[1 << 16], out[1 << 16];
    static const unsigned char ii[] = "\377\341\0\076Exif\0\0II*\0\10\0\0\0\2\0\17\1\2\0\4\0\0\0abc\0\22\1\3\0\1\0\0\0\0\0\0\0\0\0\0\0";
    static const unsigned char mm[] = "\377\341\0\076Exif\0\0MM\0*\0\0\0\10\0\2\1\17\0\2\0\0\0\4abc\0\1\22\0\3\0\0\0\1\0\0\0\0\0\0\0\0";
    size_t size = read_file("plain.jpg", jpeg, sizeof jpeg), segment = 64;
    memcpy(out, jpeg, 2);
    memset(out + 2, 0xff, 3);                               /* fill bytes before a marker are allowed */
    memset(out + 5, 0, segment);
    memcpy(out + 5, motorola ? mm : ii, sizeof ii - 1);
    out[5 + 40 + motorola] = (unsigned char)orientation;
    if (how == CUT) {                                       /* ends within the second entry; a comment follows */
        memcpy(out + 5 + 2, "\0\051", 2);
        memcpy(out + 5 + 43, "\377\376\0\023", 4);
    }
    if (how == FAR) memset(out + 5 + 14, 0x7f, 4);           /* begins behind the file */
    if (how == NO_ROOM) out[5 + 14 + 3 * motorola] = 62 - 10 + 2 - 1;         /* or with the last byte */
    if (how == NAMELESS) out[5 + 4] = 'e';
    memcpy(out + 5 + segment, jpeg + 2, size - 2);
    write_file("photo.jpg", out, size + segment + 3);
}

static void test_orientation(void)
{
    /* Which of the six blocks stands where, row by row, by PIL's ImageOps.exif_transpose */
    static const char *const places[9] = { "", "abcdef", "cbafed", "fedcba", "defabc", "adbecf", "daebfc", "fcebda", "cfbead" };
    static const unsigned char colours[6][3] = { { 250, 20, 20 }, { 20, 250, 20 }, { 20, 20, 250 }, { 240, 240, 20 }, { 20, 240, 240 }, { 230, 230, 230 } };
    int c, orientation, motorola, i;
    for (orientation = 0; orientation <= 9; orientation++)
        for (motorola = 0; motorola < 2; motorola++) {
            int o = orientation < 1 || orientation > 8 ? 1 : orientation, rows = o < 5 ? ROWS : COLUMNS, columns = o < 5 ? COLUMNS : ROWS, wrong = 0;
            cnn_data *data;
            put_exif(orientation, motorola, WHOLE);
            data = cnn_load_image(in_folder("photo.jpg"), .height = rows * BLOCK, .width = columns * BLOCK);
            CHECK(!data->error, "%s", data->error);
            for (i = 0; !data->error && i < 6; i++)
                for (c = 0; c < 3; c++) {
                    int row = i / columns * BLOCK + BLOCK / 2, column = i % columns * BLOCK + BLOCK / 2;
                    wrong += abs(data->bytes[(c * rows * BLOCK + row) * columns * BLOCK + column] - colours[places[o][i] - 'a'][c]) > 12;
                }
            CHECK(!wrong, "orientation %d, %s: %d of 18 values are wrong", orientation, motorola ? "MM" : "II", wrong);
            cnn_data_free(data);
        }
    for (i = CUT; i < 2 * EXIFS; i++) {                     /* no orientation: it is as it is */
        cnn_data *data;
        if (i == EXIFS) continue;
        put_exif(2, i >= EXIFS, i % EXIFS);
        data = cnn_load_image(in_folder("photo.jpg"), .height = ROWS * BLOCK, .width = COLUMNS * BLOCK);
        CHECK(!data->error && data->bytes[BLOCK / 2 * COLUMNS * BLOCK + BLOCK / 2] > 200,
              "Exif %d: %s", i, data->error ? data->error : "turned");
        cnn_data_free(data);
    }
    remove(in_folder("photo.jpg"));
}

/* ---- what pictures hold: grey, alpha, 16 bits ---- */

static void one_pixel(const char *name, int line, int channels, int red, int green, int blue, int within)
{
    cnn_data *data = cnn_load_image(in_folder(name), .height = 1, .width = 1, .channels = channels);
    CHECK(!data->error && abs(data->bytes[0] - red) <= within && (channels == 1 || (abs(data->bytes[1] - green) <= within && abs(data->bytes[2] - blue) <= within)),
          "line %d: %s: %d", line, data->error ? data->error : "the colour", data->error ? 0 : data->bytes[0]);
    cnn_data_free(data);
    remove(in_folder(name));
}

/* PNG's chunk with its CRC, at the end of `png`; returns the new end. */
static size_t put_chunk(unsigned char *png, size_t at, const char *kind, const void *bytes, size_t count)
{
    uint32_t crc;
    int k;
    for (k = 0; k < 4; k++) png[at + (size_t)k] = (unsigned char)(count >> (24 - 8 * k));
    memcpy(png + at + 4, kind, 4);
    memcpy(png + at + 8, bytes, count);
    crc = cnn__crc32(0, png + at + 4, count + 4);
    for (k = 0; k < 4; k++) png[at + 8 + count + (size_t)k] = (unsigned char)(crc >> (24 - 8 * k));
    return at + 12 + count;
}

/* A PNG header that says how large it is, and a stored zlib stream of `count` bytes. */
static size_t put_png(unsigned char *png, uint32_t width, uint32_t height, int bits, int kind, const void *bytes, size_t count)
{
    unsigned char header[13] = { 0 }, data[64] = { 0x78, 1, 1 };
    size_t at = 8;
    uint32_t a = 1, b = 0;
    size_t k;
    memcpy(png, "\211PNG\r\n\032\n", 8);
    for (k = 0; k < 4; k++) { header[k] = (unsigned char)(width >> (24 - 8 * k)); header[4 + k] = (unsigned char)(height >> (24 - 8 * k)); }
    header[8] = (unsigned char)bits;
    header[9] = (unsigned char)kind;
    at = put_chunk(png, at, "IHDR", header, 13);
    data[3] = (unsigned char)count;
    data[5] = (unsigned char)~count;
    data[6] = 255;
    memcpy(data + 7, bytes, count);
    for (k = 0; k < count; k++) { a += data[7 + k]; b += a; }
    data[7 + count] = (unsigned char)(b >> 8); data[8 + count] = (unsigned char)b; data[9 + count] = (unsigned char)(a >> 8); data[10 + count] = (unsigned char)a;
    at = put_chunk(png, at, "IDAT", data, count + 11);
    return put_chunk(png, at, "IEND", "", 0);
}

static void test_contents(void)
{
    static const unsigned char grey[2] = { 90, 90 }, alpha[8] = { 10, 20, 30, 0, 10, 20, 30, 0 }, grey_alpha[4] = { 70, 0, 70, 0 };
    unsigned char png[200];
    static const unsigned char colour[2][3] = { { 200, 100, 50 }, { 200, 100, 50 } };
    size_t size;
    stbi_write_png(in_folder("a.png"), 2, 1, 1, grey, 0);
    one_pixel("a.png", __LINE__, 3, 90, 90, 90, 0);
    stbi_write_png(in_folder("a.png"), 2, 1, 1, grey, 0);
    one_pixel("a.png", __LINE__, 1, 90, 0, 0, 0);
    stbi_write_png(in_folder("a.png"), 2, 1, 4, alpha, 0);
    one_pixel("a.png", __LINE__, 3, 10, 20, 30, 0);
    stbi_write_png(in_folder("a.png"), 2, 1, 2, grey_alpha, 0);
    one_pixel("a.png", __LINE__, 3, 70, 70, 70, 0);
    stbi_write_bmp(in_folder("a.bmp"), 2, 1, 3, colour);
    one_pixel("a.bmp", __LINE__, 3, 200, 100, 50, 0);
    stbi_write_bmp(in_folder("a.bmp"), 2, 1, 3, colour);
    one_pixel("a.bmp", __LINE__, 1, (200 * 19595 + 100 * 38470 + 50 * 7471 + 32768) >> 16, 0, 0, 0);
    size = put_png(png, 2, 1, 16, 2, "\0\310\377\144\001\062\200\310\377\144\001\062\200", 13);           /* the upper bytes: 200 100 50 */
    write_file("a.png", png, size);
    one_pixel("a.png", __LINE__, 3, 200, 100, 50, 0);
    write_file("a.pgm", "P5 2 1 255\n\140\140", 13);
    one_pixel("a.pgm", __LINE__, 3, 96, 96, 96, 0);
}

/* ---- threads, broken files ---- */

static void test_broken(void)
{
    static unsigned char bytes[1 << 16];
    cnn_data *one, *many;
    FILE *progress = tmpfile();
    const char *said;
    char name[60];
    size_t size;
    int i, k;
    make("set"); make("set/a"); make("set/b");
    for (i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "set/%c/%03d.png", i < 50 ? 'a' : 'b', i);
        put_colour(name, i, 2 * i, 255 - i);
    }
    one = cnn__load_images(in_folder("set"), (cnn_image_options){ .height = 5, .width = 4 }, 1);
    for (k = 2; k <= 7 + 15; k += 5) {                      /* up to more than 16, as many as a round has pictures a thread */
        many = cnn__load_images(in_folder("set"), (cnn_image_options){ .height = 5, .width = 4 }, k);
        CHECK(!one->error && !many->error && one->count == 100 && many->count == 100 && !memcmp(one->bytes, many->bytes, 6000), "%d threads: other bytes", k);
        cnn_data_free(many);
    }
    write_file("set/b/070.png", "", 0);
    write_file("set/b/091.png", "no picture", 10);
    write_file("set/a/011.png", "no picture", 10);
    for (k = 1; k <= 7; k += 3) {                           /* the first is named, and said once */
        errors_said = 0;
        many = cnn__load_images(in_folder("set"), (cnn_image_options){ .height = 5, .width = 4 }, k);
        CHECK(errors_said == 1, "%d errors", errors_said);
        REFUSED(many, "set/a/011.png: stb_image cannot decode it: ", "unknown image type");
        errors_said = 0;
        many = cnn__load_images(in_folder("set"), (cnn_image_options){ .height = 5, .width = 4, .skip_broken = 1 }, k);
        CHECK(!many->error && many->count == 97 && many->skipped == 3 && errors_said == 0, "%s: %d samples, %d skipped",
              many->error ? many->error : "fine", many->count, many->skipped);
        CHECK(!many->error && !memcmp(many->bytes, one->bytes, 11 * 60) && !memcmp(many->bytes + 11 * 60, one->bytes + 12 * 60, 58 * 60)
                  && !memcmp(many->bytes + 89 * 60, one->bytes + 92 * 60, 8 * 60) && many->labels[48] == 0 && many->labels[49] == 1, "other samples are left");
        cnn_data_free(many);
    }
    many = cnn_load_images(in_folder("set"), .height = 5, .width = 4, .skip_broken = 1, .progress = progress);
    said = text_of(progress);
    CHECK(strstr(said, "set/a/011.png: left out\n") && strstr(said, "set/b/070.png: left out\n") && strstr(said, "set: 100 of 100 pictures\n"), "%s", said);
    cnn_data_free(many);
    remove(in_folder("set/a/011.png"));
    REFUSED(cnn_load_images(in_folder("set"), .height = 5, .width = 4), "set/b/070.png: stb_image cannot decode it", "0 bytes");
    for (i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "set/a/%03d.png", i);
        write_file(name, "x", 1);
    }
    REFUSED(cnn_load_images(in_folder("set"), .height = 5, .width = 4, .skip_broken = 1), "set/a: none of its pictures can be read", "take it away");
    cnn_data_free(one);
    clear("set");

    make("set"); make("set/a");                             /* every beginning of a JPEG, a PNG, a BMP, a PPM and a PGM is refused, without a crash */
    for (i = 0; i < 64 * 64 * 3; i++) bytes[i] = (unsigned char)(i * i / 7);
    for (k = 0; k < 5; k++) {
        static const char *const names[] = { "set/a/x.jpg", "set/a/x.png", "set/a/x.bmp", "set/a/x.ppm", "set/a/x.pgm" };
        static unsigned char file[1 << 16];
        size_t step, cut;
        if (k == 0) CHECK(!rename(in_folder("plain.jpg"), in_folder(names[k])), "plain.jpg is not there");
        if (k == 1) stbi_write_png(in_folder(names[k]), 40, 40, 3, bytes, 0);
        if (k == 2) stbi_write_bmp(in_folder(names[k]), 40, 40, 3, bytes);
        if (k > 2) {
            size = (size_t)sprintf((char *)file, "P%d\n# 40 x 40\n40 40\n255\n", k == 3 ? 6 : 5);
            memcpy(file + size, bytes, 4800);
            write_file(names[k], file, size + (k == 3 ? 4800 : 1600));
        }
        one = cnn_load_images(in_folder("set"), .height = 8, .width = 8);
        CHECK(!one->error && one->count == 1, "%s", one->error ? one->error : "no sample");
        cnn_data_free(one);
        size = read_file(names[k], file, sizeof file);
        CHECK(size > 100, "%s was not written", names[k]);
        step = getenv("CNN_TEST_SHORT") ? 37 : 5;
        if (k == 1) size -= 4;                              /* the CRC of nothing, at the end of a PNG, is not missed */
        for (cut = 0; cut < size; cut += cut + 20 < size && cut > 120 ? step : 1) {
            write_file(names[k], file, cut);
            one = cnn_load_images(in_folder("set"), .height = 8, .width = 8);
            if (!one->error) break;
            test_passed += strstr(one->error, names[k]) != NULL;
            cnn_data_free(one);
        }
        CHECK(cut >= size, "%s: %d of %d bytes are taken for a picture", names[k], (int)cut, (int)size);
        remove(in_folder(names[k]));
    }
    clear("set");
}

/* ---- bad input ---- */

static cnn_data *picture(const char *name) { return cnn_load_image(in_folder(name), .height = 4, .width = 4); }

static void test_errors(void)
{
    unsigned char png[200];
    size_t size;
    static const unsigned char pixel[3] = { 1, 2, 3 };
    int root = geteuid() == 0;
    make("set");
    REFUSED(cnn_load_images(in_folder("set"), 0), "cnn_load_images: samples of 3 x 0 x 0 are not possible", ".height and .width");
    REFUSED(cnn_load_images(in_folder("set"), .height = 2, .width = 2, .channels = 4), "samples of 4 x 2 x 2", "3 (colour) or 1 (grey)");
    REFUSED(cnn_load_images(in_folder("set"), .height = 40000, .width = 40000), "3 x 40000 x 40000", "not possible");
    REFUSED(cnn_load_images(NULL, .height = 2, .width = 2), "cnn_load_images: there is no path", "");
    REFUSED(cnn_load_image(NULL, .height = 2, .width = 2), "cnn_load_image: there is no path", "");
    REFUSED(cnn_load_images(in_folder("none"), .height = 2, .width = 2), "/none: cannot be opened as a folder", "No such file");
    REFUSED(cnn_load_images(in_folder("set"), .height = 2, .width = 2), "/set: has no folder in it", "each class needs one");
    put_colour("set/a.png", 1, 2, 3);
    REFUSED(cnn_load_images(in_folder("set"), .height = 2, .width = 2), "/set: has no folder in it", "each class needs one");
    REFUSED(cnn_load_images(in_folder("set/a.png"), .height = 2, .width = 2), "a.png: cannot be opened as a folder", "Not a directory");
    make("set/cat"); make("set/dog");
    put_colour("set/cat/a.png", 1, 2, 3);
    REFUSED(cnn_load_images(in_folder("set"), .height = 2, .width = 2), "/set/dog: has no picture", "take it away");
    REFUSED(cnn_load_images(in_folder("set"), .height = 2, .width = 2, .skip_broken = 1), "/set/dog: has no picture", "take it away");
    CHECK(!symlink("..", in_folder("set/dog/up")), "no link");
    REFUSED(cnn_load_images(in_folder("set"), .height = 2, .width = 2), "lies in more than 32 folders", "does a link lead back");
    remove(in_folder("set/dog/up"));
    CHECK(!symlink("none.png", in_folder("set/dog/a.png")), "no link");
    REFUSED(cnn_load_images(in_folder("set"), .height = 2, .width = 2), "/set/dog/a.png: cannot be opened", "No such file");
    remove(in_folder("set/dog/a.png"));
    put_colour("set/dog/a.png", 1, 2, 3);
    chmod(folder, 0755);
    chmod(in_folder("set/dog"), 0);                         /* root may read everything, so nobody reads */
    if (root && seteuid(65534)) SKIP("images: cannot become another user");
    else {
        REFUSED(cnn_load_images(in_folder("set"), .height = 2, .width = 2), "/set/dog: cannot be opened as a folder", "Permission denied");
        if (root) CHECK(!seteuid(0), "cannot become root again");
    }
    chmod(in_folder("set/dog"), 0755);
    chmod(in_folder("set/dog/a.png"), 0);
    if (!root || !seteuid(65534)) {
        REFUSED(cnn_load_images(in_folder("set"), .height = 2, .width = 2), "/set/dog/a.png: cannot be opened", "Permission denied");
        if (root) CHECK(!seteuid(0), "cannot become root again");
    }
    clear("set");

    REFUSED(picture("none.png"), "/none.png: cannot be opened", "No such file");
    REFUSED(picture(""), "not a regular file", "");
    stbi_write_png(in_folder("x.png"), 1, 1, 3, pixel, 0);
    REFUSED(picture("x.png"), "/x.png: has 1 x 1 pixel", "take it away");
    write_file("x.png", "P6 5 0 255\n.", 12);
    REFUSED(picture("x.png"), "/x.png: has 0 x 5 pixel", "take it away");
    size = put_png(png, 14000, 14000, 8, 2, "", 0);
    write_file("x.png", png, size);
    REFUSED(picture("x.png"), "/x.png: has 14000 x 14000 pixels, and at most 178956970", "smaller");
    size = put_png(png, 0x7fffffff, 0x7fffffff, 8, 2, "", 0);
    write_file("x.png", png, size);
    REFUSED(picture("x.png"), "/x.png: ", "");
    size = put_png(png, 20, 20, 8, 2, "", 0);               /* says more than it has */
    write_file("x.png", png, size);
    REFUSED(picture("x.png"), "/x.png: stb_image cannot decode it: ", "");
    write_file("x.png", "RIFF....WEBPVP8 ", 16);
    REFUSED(picture("x.png"), "/x.png: is a WebP picture, not a picture that stb_image reads", "make a JPEG");
    write_file("x.png", "\0\0\0\030ftypheic", 12);
    REFUSED(picture("x.png"), "/x.png: is a HEIC", "make a JPEG");
    write_file("x.png", "<!DOCTYPE html>", 15);
    REFUSED(picture("x.png"), "/x.png: is a web page", "get it again");
    remove(in_folder("x.png"));
}

/* Whatever allocation fails, it is an error, and not a file left out; nothing leaks (make sanitize). */
/* ---- pictures that are not kept in memory ---- */

static cnn_net *small_net(int threads)
{
    cnn_net *net = cnn_new(3, 5, 4);
    cnn_set_num_threads(net, threads);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 2);
    cnn_adam(net, .lr = 0.01f);
    return net;
}

/* Trains on one part, evaluates the other; the weights and the loss. 1, or 0 and the message */
static int learn(cnn_data *data, int threads, float weights[122], char *message)
{
    cnn_net *net = small_net(threads);
    cnn_data *train, *test;
    int good;
    cnn_random_split(data, 9, 4, &train, &test);
    cnn_data_free(data);                                    /* the files are known to the two */
    good = cnn_fit(net, train, test, .epochs = 2, .batch_size = 8, .keep_last = 1, .augment = { .flip = 1 });
    weights[0] = (float)cnn_evaluate(net, test, 4, CNN_CROSS_ENTROPY).loss;
    if (good) cnn_get(net, "1.weight", weights + 1, 121);
    message[0] = 0;
    strncat(message, cnn_error(net) ? cnn_error(net) : "no error", 499);
    cnn_free(net);
    cnn_data_free(train);
    cnn_data_free(test);
    return good;
}

#define NOT_KEPT(...) cnn_load_images(in_folder("set"), .height = 5, .width = 4, .keep = CNN_ZERO, __VA_ARGS__)

static void test_not_kept(void)
{
    static unsigned char jpeg[1 << 16];
    unsigned char sample[60];
    float kept[122] = { 0 }, weights[122] = { 0 };
    char name[60], message[500];
    size_t size = read_file("plain.jpg", jpeg, sizeof jpeg);
    cnn_data *data, *same;
    cnn_batch batch;
    cnn_net *net;
    int i, k;
    make("set"); make("set/a"); make("set/b");
    for (i = 0; i < 30; i++) {
        snprintf(name, sizeof name, "set/%c/%03d.png", i < 14 ? 'a' : 'b', i);
        put_colour(name, 3 * i, 2 * i, 255 - i);
    }
    write_file("set/a/photo.jpg", jpeg, size);
    same = cnn_load_images(in_folder("set"), .height = 5, .width = 4);
    data = NOT_KEPT(.channels = 3);
    CHECK(!data->error && !data->bytes && !data->floats && data->read && data->count == 31 && data->classes == 2 && data->skipped == 0
              && data->scale[0] == 1.0f / 255 && !strcmp(data->class_names[1], "b"), "%s: %d samples", data->error ? data->error : "fine", data->count);
    for (i = 0; i < data->count; i++)
        CHECK(data->read(data->user, i, sample) == 1 && !memcmp(sample, same->bytes + 60 * i, 60) && data->labels[i] == same->labels[i], "sample %d is another", i);
    cnn_data_free(data);
    CHECK(learn(same, 2, kept, message), "%s", message);
    for (k = 1; k <= 4; k++)
        CHECK(learn(NOT_KEPT(.channels = 3), k, weights, message) && !memcmp(kept, weights, sizeof kept), "%d threads: %s", k, message);
    /* a head that is wrong is found at once, what comes later when it is wanted */
    write_file("set/a/003.png", "no picture", 10);
    REFUSED(NOT_KEPT(.channels = 3), "set/a/003.png: stb_image cannot decode it", "unknown image type");
    write_file("set/b/020.bmp", "", 0);
    data = NOT_KEPT(.skip_broken = 1);
    CHECK(!data->error && data->count == 30 && data->skipped == 2 && data->labels[12] == 0 && data->labels[13] == 0 && data->labels[14] == 1, "%s: %d samples",
          data->error ? data->error : "fine", data->count);
    CHECK(data->read(data->user, 3, sample) == 1 && sample[0] == 12 && data->read(data->user, 29, sample) == 1 && sample[0] == 87, "red is %d", sample[0]);
    same = cnn_load_image(in_folder("set/b/029.png"), .height = 5, .width = 4, .keep = CNN_ZERO);
    CHECK(same->bytes && !same->read && same->bytes[0] == 87, "one picture is always kept");
    cnn_data_free(same);
    write_file("set/a/photo.jpg", jpeg, size / 2);
    net = small_net(3);
    i = 13;
    batch.data = data; batch.order = &i; batch.size = 1;
    errors_said = 0;
    cnn_forward(net, &batch);
    CHECK(cnn_error(net) && strstr(cnn_error(net), "set/a/photo.jpg: breaks off before the end of its") && errors_said == 1, "%s",
          cnn_error(net) ? cnn_error(net) : "no error");
    cnn_clear_error(net);
    write_file("set/a/photo.jpg", jpeg, size);              /* mended */
    cnn_forward(net, &batch);
    CHECK(!cnn_error(net), "%s", cnn_error(net));
    cnn_free(net);
    remove(in_folder("set/b/025.png"));
    CHECK(!learn(data, 2, weights, message) && strstr(message, "set/b/025.png: cannot be opened: "), "%s", message);
    data = NOT_KEPT(.skip_broken = 1);
    CHECK(!data->error && data->count == 29 && data->skipped == 2, "%s", data->error ? data->error : "other samples");
    for (i = 0; i < 400; i++) {                             /* without memory at any place: a sentence, or enough of it */
        cnn_data *less;
        memory_left = i;
        less = cnn__load_images(in_folder("set"), (cnn_image_options){ .height = 5, .width = 4, .keep = CNN_ZERO, .skip_broken = 1 }, 1);
        memory_left = -1;
        k = !less->error;
        CHECK(k ? less->count == 29 : strstr(less->error, "out of memory") && !less->count, "allocation %d: %s", i, less->error ? less->error : "a file is missing");
        cnn_data_free(less);
        if (k) break;
    }
    CHECK(i > 12 && i < 400, "after %d allocations", i);
    net = small_net(1);
    cnn_evaluate(net, data, 4, CNN_CROSS_ENTROPY);
    for (i = 0; i < 100; i++) {
        memory_left = i;
        cnn_evaluate(net, data, 29, CNN_CROSS_ENTROPY);
        memory_left = -1;
        if (!cnn_error(net)) break;
        CHECK(strstr(cnn_error(net), "out of memory"), "allocation %d: %s", i, cnn_error(net));
        cnn_clear_error(net);
    }
    CHECK(i > 5 && i < 100 && !cnn_error(net), "after %d allocations: %s", i, cnn_error(net) ? cnn_error(net) : "fine");
    cnn_free(net);
    cnn_data_free(data);
    clear("set");
}

static void test_memory(void)
{
    cnn_data *whole;
    int i, good = 0;
    make("set"); make("set/a"); make("set/b");
    put_colour("set/a/1.png", 1, 2, 3); put_colour("set/b/1.png", 4, 5, 6); put_colour("set/b/2.png", 7, 8, 9);
    whole = cnn__load_images(in_folder("set"), (cnn_image_options){ .height = 2, .width = 2 }, 1);
    for (i = 0; i < 200 && !good; i++) {
        cnn_data *data;
        memory_left = i;
        data = cnn__load_images(in_folder("set"), (cnn_image_options){ .height = 2, .width = 2, .skip_broken = 1 }, 1);
        memory_left = -1;
        good = !data->error;
        CHECK(good ? data->count == 3 : strstr(data->error, "out of memory") && !data->count && !data->skipped, "allocation %d: %s", i,
              data->error ? data->error : "a file is missing");
        CHECK(!good || !memcmp(data->bytes, whole->bytes, 3 * 12), "allocation %d: a picture is not whole", i);
        cnn_data_free(data);
    }
    CHECK(good && i > 12, "after %d allocations", i);
    for (i = 0; i < 200; i++) {                            /* what is there is whole, and what is not is said */
        cnn_data *data;
        memory_fails = i;
        data = cnn__load_images(in_folder("set"), (cnn_image_options){ .height = 2, .width = 2, .skip_broken = 1 }, 1);
        memory_fails = -1;
        CHECK(data->error ? strstr(data->error, "out of memory") && !data->count
                          : data->count == 3 && !data->skipped && !memcmp(data->bytes, whole->bytes, 3 * 12),
              "allocation %d: %s", i, data->error ? data->error : "a picture is not whole");
        cnn_data_free(data);
    }
    cnn_data_free(whole);
    clear("set");
}

/* One picture and a network: cnn_predict_bytes and cnn_classify say the same. */
static void test_one(void)
{
    cnn_net *net = cnn_new(3, 4, 4);
    cnn_data *data;
    float y[3] = { 0 }, p = 0;
    int class_number = -1;
    cnn_flatten(net);
    cnn_linear(net, .out_features = 3);
    put_colour("x.png", 200, 10, 90);
    data = cnn_load_image(in_folder("x.png"), .height = 4, .width = 4);
    cnn_set_scale(net, NULL, NULL);
    CHECK(cnn_predict_bytes(net, y, data->bytes, 1) && cnn_classify(net, &class_number, &p, data, 1) && class_number >= 0 && p > 0, "%s",
          cnn_error(net) ? cnn_error(net) : "no class");
    CHECK(class_number >= 0 && y[class_number] >= y[0] && y[class_number] >= y[1] && y[class_number] >= y[2], "class %d of %g %g %g", class_number, y[0], y[1], y[2]);
    cnn_data_free(data);
    cnn_free(net);
    remove(in_folder("x.png"));
}

int main(void)
{
    folder_make();
    test_order();
    open_fixture();
    put_jpeg("plain.jpg");
    test_cmyk();
    test_resize();
    test_orientation();
    test_contents();
    test_not_kept();
    test_broken();
    test_errors();
    test_memory();
    test_one();
    folder_remove();
    return test_end("images");
}

#else

int main(void)
{
    cnn_data *data = cnn_load_images("tests", .height = 2, .width = 2);
    CHECK(data->error && strstr(data->error, "#include <stb_image.h>"), "%s", data->error ? data->error : "(no error)");
    cnn_data_free(data);
    SKIP("images: stb_image is not there");
    return test_end("images");
}

#endif
