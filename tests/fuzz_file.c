/* fuzz_file.c - any bytes as a .safetensors, a .pth (ZIP or from before 1.6), the data.pkl in a .pth, and a checkpoint.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover tests/fuzz_file.c -lm -o fuzz_file
 *     ./fuzz_file -max_len=4096 -max_total_time=60
 *
 * The first byte chooses which. Each run ends with what was loaded or with one sentence and an unchanged network.
 * (Debian: apt-get install clang libclang-rt-14-dev.) */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include <assert.h>

static cnn_net *net;
static char path[4][100];

static void prepare(void)
{
    static const char *const ending[4] = { "safetensors", "pth", "pth", "ckpt" };
    int i;
    net = cnn_new(2, 1, 1);
    cnn_flatten(net);
    cnn_name(net, "fc");
    cnn_linear(net, .out_features = 3);
    cnn_adam(net, .lr = 1e-3f);
    for (i = 0; i < 4; i++) snprintf(path[i], sizeof path[i], "/dev/shm/cnn_fuzz_%ld_%d.%s", (long)getpid(), i, ending[i]);
}

/* A ZIP, without CRCs, of two storages and the pickle. */
static void put_archive(FILE *file, const uint8_t *pickle, size_t size)
{
    static const float values[9];
    const char *const name[3] = { "n/data/0", "n/data/1", "n/data.pkl" };
    size_t at, count[3] = { 24, 12, 0 };
    cnn__sink out = { 0, 0, 0, 0 };
    cnn__zip zip;
    int i;
    count[2] = size;
    memset(&zip, 0, sizeof zip);
    zip.out = &out;
    out.file = file;
    for (i = 0; i < 3; i++) {
        at = zip.directory.count;
        cnn__add_entry(&zip, name[i], i < 2 ? (const void *)values : pickle, count[i]);
        memset(zip.directory.at + at + 16, 0, 4);
    }
    cnn__end_zip(&zip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    float before[6], after[6];
    int which, loaded;
    FILE *file;
    if (!net) prepare();
    if (!size) return 0;
    which = data[0] % 4;
    file = fopen(path[which], "wb");
    if (which == 2) put_archive(file, data + 1, size - 1);
    else fwrite(data + 1, 1, size - 1, file);
    fclose(file);
    cnn_get(net, "fc.weight", before, 6);
    loaded = which == 3 ? cnn_checkpoint_load(net, path[which]) : cnn_load(net, path[which]);
    cnn_get(net, "fc.weight", after, 6);
    assert(loaded ? !cnn_error(net) : cnn_error(net) != NULL);
    cnn_clear_error(net);
    cnn_get(net, "fc.weight", after, 6);
    assert(loaded || !memcmp(before, after, sizeof before));
    remove(path[which]);
    return 0;
}
