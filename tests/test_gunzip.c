/* A program that includes stb_image before cnn.h reads packed IDX files in place; a damaged one is refused. */
#if defined(__has_include)
#if __has_include(<stb_image.h>)
#define HAVE_STB
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>
#endif
#endif
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "test.h"

#ifdef HAVE_STB
#include "folder.h"

enum { COUNT = 50, PIXELS = 28 * 28 };

static void write_file(const char *path, const unsigned char *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(bytes, 1, count, file) == count, "%s cannot be written", path);
    if (file) fclose(file);
}

static int is_refused(void)
{
    cnn_data *data = cnn_load_idx(in_folder("images"), in_folder("labels"), 10);
    int refused = data->error && strstr(data->error, "images.gz: cannot be unpacked: it is cut off or damaged; get it again");
    cnn_data_free(data);
    return refused;
}

/* ---- files made by hand: each optional field of the header (RFC 1952), alone and with the others ---- */

enum { TEXT = 1, HEADER_CRC = 2, EXTRA = 4, NAME = 8, COMMENT = 16 };

static size_t put_number(unsigned char *to, uint32_t number, int bytes)        /* lowest byte first */
{
    int i;
    for (i = 0; i < bytes; i++) to[i] = (unsigned char)(number >> 8 * i);
    return (size_t)bytes;
}

/* One member whose stream is stored blocks; `extra` bytes in the extra field. Returns its size. */
static size_t make_member(unsigned char *to, int flags, size_t extra, const unsigned char *plain, size_t count)
{
    size_t at = 0, done, i;
    at += put_number(to, 0x00088b1f | (uint32_t)flags << 24, 4);
    at += put_number(to + at, 0x12345678, 4);              /* when it was packed */
    at += put_number(to + at, 0x0302, 2);                  /* how well, and on what */
    if (flags & EXTRA) {
        at += put_number(to + at, (uint32_t)extra, 2);
        for (i = 0; i < extra; i++) to[at++] = (unsigned char)(i % 3 ? 7 * i : 0);
    }
    if (flags & NAME) { memcpy(to + at, "train images", 13); at += 13; }
    if (flags & COMMENT) { memcpy(to + at, "as they came", 13); at += 13; }
    if (flags & HEADER_CRC) at += put_number(to + at, cnn__crc32(0, to, at) & 0xffff, 2);
    for (done = 0; done < count; done += i) {
        i = count - done > 60000 ? 60000 : count - done;
        to[at++] = done + i == count;
        at += put_number(to + at, (uint32_t)i, 2);
        at += put_number(to + at, ~(uint32_t)i, 2);
        memcpy(to + at, plain + done, i);
        at += i;
    }
    at += put_number(to + at, cnn__crc32(0, plain, count), 4);
    return at + put_number(to + at, (uint32_t)count, 4);
}

static unsigned char plain_images[16 + COUNT * PIXELS], plain_labels[8 + COUNT], made[3 * (16 + COUNT * PIXELS) + 70000];

static void check_read(const char *what, int flags, size_t extra)
{
    size_t size = make_member(made, flags, extra, plain_images, sizeof plain_images);
    cnn_data *data;
    int i, right = 1;
    write_file(in_folder("images"), made, size);
    size = make_member(made, flags, extra, plain_labels, sizeof plain_labels);
    write_file(in_folder("labels"), made, size);
    data = cnn_load_idx(in_folder("images"), in_folder("labels"), 10);
    CHECK(!data->error, "%s, flags %d: %s", what, flags, data->error ? data->error : "");
    for (i = 0; !data->error && i < COUNT; i++) right = right && data->labels[i] == plain_labels[8 + i];
    CHECK(data->error || (right && data->count == COUNT && !memcmp(data->bytes, plain_images + 16, COUNT * PIXELS)),
          "%s, flags %d: other contents", what, flags);
    cnn_data_free(data);
    remove(in_folder("images")); remove(in_folder("labels"));
}

static void refuses(const char *what, size_t size)         /* made[0 .. size-1] as images */
{
    cnn_data *data;
    write_file(in_folder("images"), made, size);
    write_file(in_folder("labels"), plain_labels, sizeof plain_labels);
    data = cnn_load_idx(in_folder("images"), in_folder("labels"), 10);
    CHECK(data->error && strstr(data->error, "images") && data->count == 0, "%s: accepted: %s", what, data->error ? data->error : "");
    cnn_data_free(data);
    remove(in_folder("images")); remove(in_folder("labels"));
}

static void check_headers(void)
{
    static const unsigned char start[20] = { 0, 0, 8, 3, 0, 0, 0, COUNT, 0, 0, 0, 28, 0, 0, 0, 28 };
    size_t size, i;
    int flags;
    memcpy(plain_images, start, 16);
    memcpy(plain_labels, start, 8);
    plain_labels[3] = 1;
    for (i = 16; i < sizeof plain_images; i++) plain_images[i] = (unsigned char)(i * 7 + i * i / 251);
    for (i = 8; i < sizeof plain_labels; i++) plain_labels[i] = (unsigned char)(i * i % 10);
    for (flags = 0; flags < 32; flags++) check_read("a header", flags, 11);
    check_read("an empty extra field", EXTRA, 0);
    check_read("an extra field of 300 bytes", EXTRA | NAME, 300);
    check_read("an extra field of 65535 bytes", EXTRA | HEADER_CRC, 65535);

    size = make_member(made, NAME, 0, plain_images, sizeof plain_images);
    memset(made + 10, 'n', size - 10);                     /* a name without an end */
    refuses("a name that does not end", size);
    size = make_member(made, COMMENT, 0, plain_images, sizeof plain_images);
    memset(made + 10, 'c', size - 10);
    refuses("a comment that does not end", size);
    size = make_member(made, EXTRA, 9, plain_images, sizeof plain_images);
    put_number(made + 10, 65535, 2);
    refuses("an extra field beyond the end", 60 < size ? 60 : size);
    size = make_member(made, 0, 0, plain_images, sizeof plain_images);
    put_number(made + size - 4, (uint32_t)sizeof plain_images + 1, 4);
    refuses("a length of one more", size);
    put_number(made + size - 4, (uint32_t)sizeof plain_images - 1, 4);
    refuses("a length of one less", size);
    put_number(made + size - 4, 0xffffffffu, 4);
    refuses("a length of 4 GB", size);
    size = make_member(made, 0, 0, plain_images, 1000);    /* two members: not read, but not taken for one either */
    size += make_member(made + size, 0, 0, plain_images + 1000, sizeof plain_images - 1000);
    refuses("two members", size);
}

static void check_packed(void)
{
    static unsigned char images[16 + COUNT * PIXELS] = { 0, 0, 8, 3, 0, 0, 0, COUNT, 0, 0, 0, 28, 0, 0, 0, 28 };
    static unsigned char labels[8 + COUNT] = { 0, 0, 8, 1, 0, 0, 0, COUNT };
    char command[700];
    unsigned char *packed;
    size_t size, i;
    cnn__text error = { "" };
    cnn_data *data;
    for (i = 16; i < sizeof images; i++) images[i] = (unsigned char)(i * i >> 5 & (i % 3 ? 255 : 0));
    for (i = 8; i < sizeof labels; i++) labels[i] = (unsigned char)(i % 10);
    write_file(in_folder("images"), images, sizeof images);
    write_file(in_folder("labels"), labels, sizeof labels);
    snprintf(command, sizeof command, "gzip '%s' '%s'", in_folder("images"), in_folder("labels"));
    if (system(command)) {
        SKIP("gunzip: there is no gzip");
        remove(in_folder("images"));
        remove(in_folder("labels"));
        return;
    }
    data = cnn_load_idx(in_folder("images"), in_folder("labels"), 10);
    CHECK(!data->error, "packed files: %s", data->error ? data->error : "");
    CHECK(!data->error && data->count == COUNT && !memcmp(data->bytes, images + 16, COUNT * PIXELS) && data->labels[13] == 1,
          "packed files have other contents");
    cnn_data_free(data);
    packed = cnn__read_file(in_folder("images.gz"), &size, &error);
    for (i = 0; packed && i < size; i += i < 40 || i + 40 > size ? 1 : size / 50) {        /* cut off after i bytes */
        write_file(in_folder("images.gz"), packed, i);
        if (i > 2) CHECK(is_refused(), "cut off after %d of %d bytes: accepted", (int)i, (int)size);
    }
    for (i = size - 8; packed && i < size; i++) {                          /* a wrong CRC, a wrong length */
        packed[i] ^= 1;
        write_file(in_folder("images.gz"), packed, size);
        CHECK(is_refused(), "with byte %d changed: accepted", (int)i);
        packed[i] ^= 1;
    }
    cnn__free(packed);
    remove(in_folder("images.gz"));
    remove(in_folder("labels.gz"));
}
#endif

int main(void)
{
#ifdef HAVE_STB
    folder_make();
    check_headers();
    check_packed();
    folder_remove();
#else
    SKIP("gunzip: stb_image.h is not in the compiler's path");
#endif
    return test_end("gunzip");
}
