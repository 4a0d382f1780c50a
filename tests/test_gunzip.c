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
    check_packed();
    folder_remove();
#else
    SKIP("gunzip: stb_image.h is not in the compiler's path");
#endif
    return test_end("gunzip");
}
