/* State dicts (.safetensors, .pth) and checkpoints: what is written is read again bit for bit; what is broken, hostile
   or of another network is refused with one sentence and changes nothing; an interrupted save leaves the old file. */
#define _XOPEN_SOURCE 700                                   /* fork, setrlimit */
#define _DEFAULT_SOURCE                                     /* MAP_ANONYMOUS */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "folder.h"

static long allocations_left = -1;                          /* then one fails; -1: none */
static void *failing_malloc(size_t bytes) { return allocations_left >= 0 && allocations_left-- == 0 ? NULL : malloc(bytes); }

static int no_fsync;                                        /* the flush that fails, counted from 1; 0: none */
static int failing_fsync(int descriptor)
{
    if (no_fsync && !--no_fsync) { errno = EIO; return -1; }
    return fsync(descriptor);
}
#define fsync failing_fsync

#define CNN_MALLOC(bytes) failing_malloc(bytes)
#define CNN_FREE(pointer) free(pointer)
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "fixtures/torch_files.h"

/* ---- files ---- */

typedef struct bytes { unsigned char at[1 << 17]; size_t count; } bytes;

static void add(bytes *b, const void *at, size_t count)
{
    if (count > sizeof b->at - b->count) { puts("the test's buffer is too small"); exit(1); }
    memcpy(b->at + b->count, at, count);
    b->count += count;
}

static void add_text(bytes *b, const char *text) { add(b, text, strlen(text)); }

static void add_number(bytes *b, unsigned long long number, int count)
{
    unsigned char byte;
    for (; count--; number >>= 8) { byte = (unsigned char)number; add(b, &byte, 1); }
}

static void write_bytes(const char *name, const void *at, size_t count)
{
    FILE *file = fopen(in_folder(name), "wb");
    if (!file || fwrite(at, 1, count, file) != count || fclose(file)) { printf("%s cannot be written\n", in_folder(name)); exit(1); }
}

static size_t read_bytes(const char *name, unsigned char *at, size_t room)
{
    FILE *file = fopen(in_folder(name), "rb");
    size_t count = file ? fread(at, 1, room, file) : 0;
    if (file) fclose(file);
    return count;
}

/* A copy after whose last byte (edge 0) or before whose first (edge 1) nothing may be read. */
static const void *at_the_edge(const void *at, size_t count, int edge)
{
    enum { ROOM = 1 << 17 };
    static unsigned char *memory;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (!memory) {
        memory = (unsigned char *)mmap(NULL, ROOM + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory += page, ROOM, PROT_READ | PROT_WRITE)) { puts("no pages"); exit(1); }
    }
    return memcpy(memory + (edge ? 0 : ROOM - count), at, count);
}

static int there(const char *name)
{
    struct stat status;
    return !stat(in_folder(name), &status);
}

static int there_is(const char *path)
{
    struct stat status;
    return !lstat(path, &status);
}

/* ---- networks ---- */

static const char *said(const cnn_net *net) { return cnn_error(net) ? cnn_error(net) : "no error"; }

static cnn_net *small(void)                                 /* fc.weight (3, 2), fc.bias (3) */
{
    cnn_net *net = cnn_new(2, 1, 1);
    cnn_flatten(net);
    cnn_name(net, "fc");
    cnn_linear(net, .out_features = 3);
    return net;
}

static cnn_net *medium(unsigned seed)                       /* features.0.*, features.3.*, 5.*, classifier.* */
{
    cnn_net *net = cnn_new(1, 8, 8);
    cnn_manual_seed(net, seed);
    cnn_set_num_threads(net, 1);                            /* it is too small for more */
    cnn_block(net, "features");
    cnn_conv2d(net, .out_channels = 4, .kernel_size = 3, .padding = 1);
    cnn_relu(net);
    cnn_max_pool2d(net, .kernel_size = 2);
    cnn_conv2d(net, .out_channels = 6, .kernel_size = 3, .groups = 2, .no_bias = 1);
    cnn_tanh(net);
    cnn_dropout(net, .p = 0.25f);
    cnn_flatten(net);
    cnn_name(net, "classifier");
    cnn_linear(net, .out_features = 3);
    return net;
}

enum { MOST = 1000 };

static size_t parameters(cnn_net *net, float values[MOST])  /* all of them, one after another */
{
    size_t count = 0;
    int i;
    for (i = 0; cnn_key(net, i); i++) count += cnn_get(net, cnn_key(net, i), values + count, MOST - count);
    return count;
}

static int same_parameters(cnn_net *a, cnn_net *b)          /* bit for bit */
{
    static float x[MOST], y[MOST];
    size_t n = parameters(a, x);
    return n && parameters(b, y) == n && !memcmp(x, y, n * sizeof *x);
}

static void fill(cnn_net *net, float first)                 /* first, first + 1, ... */
{
    float values[MOST];
    size_t count, k;
    int i;
    for (i = 0; cnn_key(net, i); i++) {
        count = cnn_get(net, cnn_key(net, i), NULL, 0);
        for (k = 0; k < count; k++) values[k] = first++;
        cnn_set(net, cnn_key(net, i), values, count);
    }
}

/* Loads `name` into a small net: 1 if it did what `words` want. NULL: it loads; else the error has these words, and nothing changed. */
static int load_small(const char *name, const char *words)
{
    cnn_net *net = small(), *untouched = small();
    int loaded, good;
    fill(net, 100);
    fill(untouched, 100);
    loaded = cnn_load(net, in_folder(name));
    if (words) good = !loaded && cnn_error(net) && strstr(said(net), words) && strstr(said(net), name);
    else good = loaded && !cnn_error(net);
    if (!good) printf("   %s: %s\n   expected: %s\n", name, said(net), words ? words : "loaded");
    cnn_clear_error(net);
    if (words && !same_parameters(net, untouched)) { printf("   %s changed the network\n", name); good = 0; }
    cnn_free(net);
    cnn_free(untouched);
    return good;
}

/* ---- round trips ---- */

static void test_round_trips(void)
{
    static const char *const names[] = { "a.safetensors", "a.pth", "a.pt" };
    static const float special[6] = { 0.0f, -0.0f, 1e-45f, 3.4028235e38f, -1.17549435e-38f, 1.0f / 3 };
    float back[9];
    int i, k;
    for (i = 0; i < 3; i++) {
        cnn_net *from = medium(1), *to = medium(2);
        float x[3 * 64], y[9], z[9];
        for (k = 0; k < 3 * 64; k++) x[k] = (float)(k % 17) / 17;
        CHECK(!same_parameters(from, to), "two seeds give the same network");
        CHECK(cnn_save(from, in_folder(names[i])) && !there("a.pth.part"), "%s: %s", names[i], said(from));
        CHECK(cnn_load(to, in_folder(names[i])) && same_parameters(from, to), "%s: %s", names[i], said(to));
        cnn_predict(from, y, x, 3);
        cnn_predict(to, z, x, 3);
        CHECK(!memcmp(y, z, sizeof y), "%s: another output after loading", names[i]);
        cnn_free(from);
        cnn_free(to);

        from = small();
        to = small();
        cnn_set(from, "fc.weight", special, 6);
        CHECK(cnn_save(from, in_folder(names[i])) && cnn_load(to, in_folder(names[i])) && cnn_get(to, "fc.weight", back, 6) == 6 && !memcmp(back, special, sizeof special),
              "%s: special values changed", names[i]);
        for (k = 0; k < 6; k++) back[k] = k % 2 ? -HUGE_VALF : NAN;
        cnn_set(from, "fc.weight", back, 6);
        CHECK(cnn_save(from, in_folder(names[i])) && cnn_load(to, in_folder(names[i])) && cnn_get(to, "fc.weight", back, 6) == 6 && back[0] != back[0] && back[1] == -HUGE_VALF,
              "%s: NaN or infinity changed", names[i]);
        cnn_free(from);
        cnn_free(to);
    }
}

static void test_layout(void)                               /* of what is written */
{
    static const char version[] = "PK\3\4\24\0\0\0\0\0\0\0!\0\321\236gU\2\0\0\0\2\0\0\0\13\0\13\0net/versionFB\7\0\0\0\0\0\0\0\0\63\12";   /* the last entry, its place in the directory, and the end */
    static const char end[] = "PK\1\2\24\0\24\0\0\0\0\0\0\0!\0\321\236gU\2\0\0\0\2\0\0\0\13\0\0\0\0\0\0\0\0\0\0\0\0\0\314\2\0\0net/versionPK\5\6\0\0\0\0\5\0\5\0\36\1\0\0\2\3\0\0\0\0";
    static unsigned char file[1 << 16];
    cnn_net *net = small();
    const char *text;
    size_t count, header, i;
    int entries = 0;
    fill(net, 0);
    cnn_save(net, in_folder("a.safetensors"));
    count = read_bytes("a.safetensors", file, sizeof file);
    header = file[0] + 256u * file[1];
    CHECK(header % 8 == 0 && count == 8 + header + 4 * 9 && file[8] == '{' && file[8 + header - 1] <= '}', "a.safetensors: %d bytes, header %d", (int)count, (int)header);
    text = text_of(fopen(in_folder("a.safetensors"), "rb")) + 8;
    CHECK(strstr(text, "\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]}") &&
          strstr(text, "\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[24,36]}"), "a.safetensors: header %s", text);
    cnn_save(net, in_folder("a.pth"));
    count = read_bytes("a.pth", file, sizeof file);
    for (i = 0; i + 30 < count; i++)
        if (!memcmp(file + i, "PK\3\4", 4)) {
            size_t data = i + 30 + file[i + 26] + file[i + 28] + 256u * file[i + 29];
            CHECK(data % 64 == 0, "a.pth: an entry begins at byte %d", (int)data);
            entries++;
        }
    CHECK(entries == 5, "a.pth has %d entries", entries);
    CHECK(count == 1078 && !memcmp(file + 716, version, sizeof version - 1) && !memcmp(file + count - (sizeof end - 1), end, sizeof end - 1), "a.pth ends otherwise");
    cnn_free(net);
}

static void test_names(void)                                /* JSON escapes in, and out again */
{
    static const char *const names[] = { "quote\"back\\slash", "line\nbreak\ttab", "\xc3\xa9t\xc3\xa9 \xf0\x9f\x90\xb1", "a/b" };
    static const char *const files[] = { "n.safetensors", "n.pth" };
    int i, k;
    for (i = 0; i < 4; i++)
        for (k = 0; k < 2; k++) {
            cnn_net *net[2];
            int n;
            for (n = 0; n < 2; n++) {
                net[n] = cnn_new(2, 1, 1);
                cnn_flatten(net[n]);
                cnn_name(net[n], names[i]);
                cnn_linear(net[n], .out_features = 3);
                fill(net[n], (float)(10 * n));
            }
            CHECK(cnn_save(net[0], in_folder(files[k])) && cnn_load(net[1], in_folder(files[k])) && same_parameters(net[0], net[1]), "name %d in %s: %s", i, files[k], said(net[1]));
            cnn_free(net[0]);
            cnn_free(net[1]);
        }
    for (k = 0; k < 2; k++) {
        cnn_net *net = cnn_new(2, 1, 1);
        cnn_flatten(net);
        cnn_name(net, "\xff");
        cnn_linear(net, .out_features = 3);
        CHECK(!cnn_save(net, in_folder(files[k])) && strstr(said(net), "not UTF-8"), "a name that is not UTF-8 was saved");
        cnn_free(net);
    }
}

static void test_paths(void)
{
    static const char *const bad[] = { "a.onnx", "a", "a.", "a.pth.gz", "a.tar", "dir.pth/a" };
    char longest[4600];
    cnn_net *net = small();
    int i;
    for (i = 0; i < 6; i++) {
        CHECK(!cnn_save(net, in_folder(bad[i])) && strstr(said(net), "the ending chooses the format: .safetensors, or .pth"), "save %s: %s", bad[i], said(net));
        cnn_clear_error(net);
    }
    CHECK(!cnn_save(net, NULL) && cnn_error(net), "a path of NULL");
    cnn_clear_error(net);
    CHECK(!cnn_load(net, NULL) && cnn_error(net), "a path of NULL");
    cnn_clear_error(net);
    CHECK(!cnn_load(net, in_folder("none.pth")) && strstr(said(net), "cannot be opened"), "a missing file: %s", said(net));
    cnn_clear_error(net);
    CHECK(!cnn_save(net, in_folder("none/a.pth")) && strstr(said(net), "cannot be written"), "a missing directory: %s", said(net));
    cnn_clear_error(net);
    memset(longest, 'x', sizeof longest);
    strcpy(longest + 4590, ".pth");
    CHECK(!cnn_save(net, longest) && strstr(said(net), "path"), "a long path: %s", said(net));
    cnn_clear_error(net);
    mkdir(in_folder("dir.pth"), 0700);
    CHECK(!cnn_save(net, in_folder("dir.pth")) && strstr(said(net), "cannot be written") && !there("dir.pth.part"), "a directory: %s", said(net));
    cnn_clear_error(net);
    CHECK(!cnn_load(net, in_folder("dir.pth")) && cnn_error(net), "a directory was loaded");
    cnn_clear_error(net);
    rmdir(in_folder("dir.pth"));
    if (geteuid()) {
        mkdir(in_folder("locked"), 0500);
        CHECK(!cnn_save(net, in_folder("locked/a.pth")) && strstr(said(net), "cannot be written"), "a directory without permission: %s", said(net));
        cnn_clear_error(net);
        rmdir(in_folder("locked"));
    }
    CHECK(cnn_save(net, in_folder("a.pth")) && !cnn_error(net), "after an error: %s", said(net));
    cnn_free(net);
    net = cnn_new(2, 1, 1);
    CHECK(!cnn_save(net, in_folder("a.pth")) && strstr(said(net), "no layers"), "no layers: %s", said(net));
    cnn_free(net);
    CHECK(!cnn_save(NULL, in_folder("a.pth")) && !cnn_load(NULL, in_folder("a.pth")), "no network");
}

/* ---- .safetensors: every file that must be refused, beginning with those of the reference implementation's tests ---- */

static int safetensors_says(const char *header, size_t length, const char *data, size_t count, const char *words)
{
    static bytes b;
    b.count = 0;
    add_number(&b, length, 8);
    add(&b, header, length);
    add(&b, data, count);
    write_bytes("s.safetensors", b.at, b.count);
    return load_small("s.safetensors", words);
}

static const char zeros[300];
static int header_says(const char *header, size_t count, const char *words) { return safetensors_says(header, strlen(header), zeros, count, words); }
static int file_says(const char *file, size_t count, const char *words)
{
    write_bytes("s.safetensors", file, count);
    return load_small("s.safetensors", words);
}

#define TEST_22 "{\"test\":{\"dtype\":\"I32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}"
#define ZERO_16 "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define READ "unexpected (test)"                            /* the file was read; only then is it compared with the network */
#define FILE_SAYS(file, words) CHECK(file_says(file, sizeof(file) - 1, words), "%s", words)

static void test_safetensors_reference(void)                /* tests of safetensors/src/tensor.rs, in their order */
{
    FILE_SAYS("\0\xe1\xf5\5\0\0\0\0", "its header has 100000000 bytes, but the file ends after 0");
    FILE_SAYS("\1\xe1\xf5\5\0\0\0\0", "its header would have 100000001 bytes, but 100 million is the limit");
    CHECK(file_says("\10\0\0\0\0\0\0\0{}      ", 16, "2 missing (fc.weight, fc.bias)"), "empty");
    CHECK(header_says("{\"__metadata__\":{\"framework\":\"pt\"}}     ", 0, "2 missing"), "empty, with metadata");
    CHECK(header_says("{\"test\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, READ), "empty shapes allowed");
    FILE_SAYS("<\0\0\0\0\0\0\0" TEST_22 ZERO_16, READ);
    {                                                       /* json attack: ten tensors in the same place */
        char header[800] = "{";
        int i;
        for (i = 0; i < 10; i++)
            snprintf(header + strlen(header), 80, "%s\"weight_%d\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}", i ? "," : "", i);
        strcat(header, "}");
        CHECK(header_says(header, 16, "begins at 0, but the one before it ends at 16"), "json attack");
    }
    CHECK(header_says("{\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]},"
                      "\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[24,36]}}", 24, "do not fill the 24 bytes"), "the last tensor is missing");
    {                                                       /* 101 brackets in each other are read over, and no more */
        int deep;
        for (deep = 100; deep <= 102; deep++) {
            char header[400] = "{\"test\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[0,4],\"more\":";
            size_t at = strlen(header);
            memset(header + at, '[', (size_t)deep);
            memset(header + at + deep, ']', (size_t)deep);
            strcpy(header + at + 2 * deep, "}}");
            CHECK(header_says(header, 4, deep > 101 ? "at most 100 nested brackets" : READ), "%d brackets", deep);
        }
    }
    FILE_SAYS("<\0\0\0\0\0\0\0" TEST_22 ZERO_16 "extra_bogus_data_for_polyglot_file", "do not fill the 50 bytes");
    FILE_SAYS("<\0\0\0\0\0\0\0" TEST_22 "\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "do not fill the 14 bytes");       /* metadata incomplete buffer */
    FILE_SAYS("<\0\0\0\0\377\377\377" TEST_22 ZERO_16, "100 million");                                     /* header too large */
    FILE_SAYS("", "has only 0 bytes");                                                                     /* header too small */
    FILE_SAYS("<\0\0\0\0\0\0\0", "but the file ends after 0");                                             /* invalid header length */
    FILE_SAYS("\1\0\0\0\0\0\0\0\377", "not UTF-8");                                                        /* invalid header: no UTF-8 */
    FILE_SAYS("\1\0\0\0\0\0\0\0{", "expected");                                                            /* invalid header: no JSON */
    FILE_SAYS("\6\0\0\0\0\0\0\0{}\x0D\x20\x09\x0A", "missing");                                            /* trailing white space allowed */
    FILE_SAYS("\6\0\0\0\0\0\0\0\x09\x0A{}\x0D\x20", "missing");                                            /* leading white space accepted */
    FILE_SAYS("<\0\0\0\0\0\0\0{\"test\":{\"dtype\":\"I32\",\"shape\":[2,0],\"data_offsets\":[0, 0]}}", READ);   /* zero-sized tensor */
    FILE_SAYS("<\0\0\0\0\0\0\0{\"test\":{\"dtype\":\"I32\",\"shape\":[2,2],\"data_offsets\":[0, 4]}}", "do not hold");    /* invalid info */
    FILE_SAYS("O\0\0\0\0\0\0\0{\"test\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[18446744073709551608,0]}}  " ZERO_16, "do not hold");
    FILE_SAYS("O\0\0\0\0\0\0\0{\"test\":{\"dtype\":\"I32\",\"shape\":[2,18446744073709551614],\"data_offsets\":[0,16]}}" ZERO_16, "overflows");
    FILE_SAYS("N\0\0\0\0\0\0\0{\"test\":{\"dtype\":\"I32\",\"shape\":[2,9223372036854775807],\"data_offsets\":[0,16]}}" ZERO_16, "overflows");
}

#define ENTRY(more) "{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]" more "}}"

static void test_safetensors(void)
{
    static const char *const dtypes[] = { "BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "I32", "U32", "I64", "U64", "C64" };
    static const int sizes[] = { 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 8 };
    static char big[70000];
    char header[400];
    int i;
    /* what is right */
    CHECK(header_says("{\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[12,36]}}", 36, NULL), "plain");
    CHECK(header_says(" \n{ \"fc.bias\" : { \"data_offsets\":[24 , 36],\t\"shape\": [ 3 ] , \"dtype\":\"F32\" } ,\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]}}\r\n  ", 36, NULL), "spaces, order");
    CHECK(header_says("{\"\\u0066c.b\\u0069as\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},\"fc.weight\":{\"\\u0064type\":\"F\\u00332\",\"shape\":[3,2],\"data_offsets\":[12,36]}}", 36, NULL), "escapes");
    CHECK(header_says("{\"__metadata__\":null,\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[12,36]}}", 36, NULL), "metadata of null");
    CHECK(header_says("{\"__metadata__\":{\"a\":\"\\ud83d\\udc31\",\"b\":\"\"},\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},\"fc.weight\":{\"x\":[1,-2.5e+3,0.1E-2,1e5,-0,{\"y\":[true,false,null,\"z\",[]]},{}],\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[12,36]}}", 36, NULL), "metadata, unknown fields");
    for (i = 0; i < 15; i++) {                              /* other dtypes are stepped over, and named when they are needed */
        snprintf(header, sizeof header, "{\"test\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[0,%d]}}", dtypes[i], sizes[i]);
        CHECK(header_says(header, (size_t)sizes[i], READ), "%s", dtypes[i]);
        snprintf(header, sizeof header, "{\"fc.bias\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]},\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[%d,%d]}}",
                 dtypes[i], 3 * sizes[i], 3 * sizes[i], 3 * sizes[i] + 24);
        CHECK(header_says(header, (size_t)(3 * sizes[i] + 24), dtypes[i]), "%s needed", dtypes[i]);
    }
    CHECK(header_says("{\"test\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1, READ), "F4");
    CHECK(header_says("{\"test\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1, "do not hold"), "half a byte");
    CHECK(header_says("{\"test\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3, READ), "F6_E2M3");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, READ), "ten dimensions");
    CHECK(header_says("{\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1,3],\"data_offsets\":[0,12]},\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[12,36]}}", 36,
                      "1 mis-shaped (fc.bias: 1 x 1 x 1 x 1 x 1 x 1 x 1 x 1"), "ten dimensions needed");
    /* what is wrong: JSON */
    CHECK(header_says("", 0, "expected '{'"), "empty header");
    CHECK(header_says("[]", 0, "expected '{'"), "an array");
    CHECK(header_says("\"a\"", 0, "expected '{'"), "a string");
    CHECK(header_says("{}x", 0, "nothing but spaces"), "something after the object");
    CHECK(header_says("{}{}", 0, "nothing but spaces"), "two objects");
    CHECK(safetensors_says("{}\0", 3, "", 0, "nothing but spaces"), "a zero byte after the object");
    CHECK(safetensors_says("{\"a\0b\":1}", 9, "", 0, "expected"), "a zero byte in a key");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},}", 4, "expected '\"'"), "a comma too many");
    CHECK(header_says("{\"test\" {\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "expected ':'"), "no colon");
    CHECK(header_says("{'test':{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "expected '\"'"), "single quotes");
    CHECK(header_says("{\"te\nst\":{}}", 4, "end of the string"), "a line break in a string");
    CHECK(header_says("{\"te\\xst\":{}}", 4, "expected \\u"), "an escape that there is not");
    CHECK(header_says("{\"te\\u12g4\":{}}", 4, "hexadecimal"), "not hexadecimal");
    CHECK(header_says("{\"te\\u12", 4, "hexadecimal"), "cut in an escape");
    CHECK(header_says("{\"te\\", 4, "hexadecimal"), "cut after a backslash");
    CHECK(header_says("{\"te\\ud83d\":{}}", 4, "expected"), "half a surrogate pair");
    CHECK(header_says("{\"te\\udc31\":{}}", 4, "surrogate"), "the other half");
    CHECK(header_says("{\"te\\ud83d\\ud83d\":{}}", 4, "surrogate"), "two first halves");
    CHECK(header_says("{\"te\\u0000\":{}}", 4, "\\u0000"), "a zero in a key");
    CHECK(header_says("{\"test", 4, "end of the string"), "an endless string");
    CHECK(header_says("{\"test\":", 4, "expected '{'"), "no value");
    CHECK(header_says("{\"test\":null}", 0, "expected '{'"), "null");
    CHECK(header_says("{\"test\":[\"F32\",[1],[0,4]]}", 4, "expected '{'"), "an array for a tensor");
    CHECK(header_says(ENTRY(",\"x\":tru"), 4, "expected"), "a broken word");
    CHECK(header_says(ENTRY(",\"x\":+1"), 4, "expected"), "+1");
    CHECK(header_says(ENTRY(",\"x\":01"), 4, "expected"), "01");
    CHECK(header_says(ENTRY(",\"x\":1."), 4, "expected"), "1.");
    CHECK(header_says(ENTRY(",\"x\":1e"), 4, "expected"), "1e");
    CHECK(header_says(ENTRY(",\"x\":-"), 4, "expected"), "-");
    CHECK(header_says(ENTRY(",\"x\":[1,]"), 4, "expected"), "[1,]");
    CHECK(header_says(ENTRY(",\"x\":[1}"), 4, "expected"), "[1}");
    memset(big, '[', sizeof big - 1);
    memcpy(big, "{\"test\":{\"x\":", 13);
    CHECK(safetensors_says(big, 60000, "", 0, "brackets"), "60,000 brackets");
    /* what is wrong: the tensors */
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "has no data_offsets"), "no offsets");
    CHECK(header_says("{\"test\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "has no dtype"), "no dtype");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "has no shape"), "no shape");
    CHECK(header_says(ENTRY(",\"dtype\":\"F32\""), 4, "has dtype twice"), "two dtypes");
    CHECK(header_says("{\"test\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype F33"), "a dtype that there is not");
    CHECK(header_says("{\"test\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "expected '\"'"), "a number for a dtype");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "1 data_offsets"), "one offset");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "3 data_offsets"), "three offsets");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[]}}", 4, "0 data_offsets"), "no offset");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "expected"), "a fraction");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "expected"), "a negative size");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[01],\"data_offsets\":[0,4]}}", 4, "expected"), "a leading zero");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}", 4, "overflows"), "a size beyond 64 bits");
#define NUMBER(x) "{\"test\":{\"x\":" x ",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"
    CHECK(header_says(NUMBER("1e5"), 4, READ) && header_says(NUMBER("-0.5E-10"), 4, READ), "numbers in fields that nobody knows");
    CHECK(header_says(NUMBER("1e"), 4, "a digit") && header_says(NUMBER("1e+"), 4, "a digit") && header_says(NUMBER("-"), 4, "a digit")
          && header_says(NUMBER("1."), 4, "a digit") && header_says(NUMBER("01"), 4, "broken"), "what is no number");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[18446744073709551617],\"data_offsets\":[0,4]}}", 4, "a number in its header overflows"), "2^64 + 1 is not 1");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "do not hold"), "backwards");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "begins at 4"), "a hole at the start");
    CHECK(header_says("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}", 12, "begins at 8"), "a hole");
    CHECK(header_says("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}", 6, "begins at 2"), "an overlap");
    CHECK(header_says("{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[2,2]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "begins at 2"), "an empty tensor within another");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[18446744073709551612,18446744073709551615]}}", 4, sizeof(size_t) > 4 ? "do not hold" : "overflows"), "offsets near 2^64");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, "do not fill"), "a byte too many");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "do not fill"), "a byte too few");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "\"test\" twice"), "a key twice");
    CHECK(header_says("{\"test\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"te\\u0073t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "\"test\" twice"), "a key twice, once with an escape");
    CHECK(header_says("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "\"a\" twice"), "a metadata key twice");
    CHECK(header_says("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "\"__metadata__\" twice"), "metadata twice");
    CHECK(header_says("{\"__metadata__\":{\"a\":1}}", 0, "expected '\"'"), "metadata that is no string");
    CHECK(header_says("{\"__metadata__\":[]}", 0, "expected '{'"), "metadata that is no object");
    CHECK(header_says("{\"a\x1b[31m\":{}}", 0, "expected"), "a control character");
    CHECK(header_says("{\"a\x7f\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unexpected (a?)"), "a terminal's control character in a message");
    CHECK(header_says("{\"\\u00e9 \\u20AC \\ud83d\\udc31\\/\\u007f\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unexpected (\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xb1/?)"), "UTF-8 from escapes");
    CHECK(header_says("{\"\\u0080\\u07ff\\u0800\\uffff\\ud800\\udc00\\udbff\\udfff\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
                      "unexpected (\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf)"), "the first and the last of each length from escapes");
    CHECK(header_says("{\"te\\/\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unexpected (te/)"), "an escape at the end");
    {
        static const char *const bad[] = { "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xc3", "\x80", "\xf0\x9f\x90", "\xe2\x28\xa1" };
        for (i = 0; i < 9; i++) {
            snprintf(header, sizeof header, "{\"%s\":{}}", bad[i]);
            CHECK(header_says(header, 0, "not UTF-8"), "UTF-8 case %d", i);
        }
    }
    {                                                       /* the first and the last of each length */
        static const char *const good[] = { "\xc2\xa0", "\xdf\xbf", "\xe0\xa0\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf" };
        char says[60];
        for (i = 0; i < 6; i++) {
            snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", good[i]);
            snprintf(says, sizeof says, "unexpected (%s)", good[i]);
            CHECK(header_says(header, 4, says), "UTF-8 case %d that is right", i);
        }
    }
    {                                                       /* exactly 100 million is allowed, one more is not */
        char length[8] = { 0, (char)0xe1, (char)0xf5, 5, 0, 0, 0, 0 };
        CHECK(file_says(length, 8, "ends after 0"), "100,000,000");
        length[0] = 1;
        CHECK(file_says(length, 8, "100 million"), "100,000,001");
    }
}

/* ---- dtypes ---- */

static void typed(const char *dtype, const void *values, size_t size, float back[6])   /* fc.weight from 6 values of that type */
{
    static bytes b;
    char header[300];
    cnn_net *net = small();
    snprintf(header, sizeof header, "{\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},\"fc.weight\":{\"dtype\":\"%s\",\"shape\":[3,2],\"data_offsets\":[12,%d]}}",
             dtype, (int)(6 * size) + 12);
    b.count = 0;
    add_number(&b, strlen(header), 8);
    add_text(&b, header);
    add(&b, zeros, 12);
    add(&b, values, 6 * size);
    write_bytes("d.safetensors", b.at, b.count);
    CHECK(cnn_load(net, in_folder("d.safetensors")) && cnn_get(net, "fc.weight", back, 6) == 6, "%s: %s", dtype, said(net));
    CHECK(cnn_load_memory(net, at_the_edge(b.at, b.count, 0), b.count), "%s: %s", dtype, said(net));
    cnn_free(net);
}

static void test_dtypes(void)
{
    static const unsigned char f16[] = { 0x00, 0x3c, 0x00, 0xc0, 0xff, 0x7b, 0x00, 0x04, 0xff, 0x03, 0x01, 0x80 };
    static const float f16_is[] = { 1, -2, 65504, 6.103515625e-05f, 6.0975551605e-05f, -5.9604644775390625e-08f };
    static const unsigned char f16_special[] = { 0x00, 0x7c, 0x00, 0xfc, 0x01, 0x7c, 0x00, 0x80, 0x00, 0x00, 0x55, 0x35 };
    static const unsigned char bf16[] = { 0x80, 0x3f, 0x00, 0xc0, 0x7f, 0x7f, 0x80, 0x7f, 0xc0, 0x7f, 0x01, 0x00 };
    static const double f64[] = { 1, -0.1, 1e-45, 3.4028234663852886e38, 1e300, 16777217 };
    float y[6];
    int h;
    typed("F16", f16, 2, y);
    CHECK(!memcmp(y, f16_is, sizeof y), "F16: %g %g %g %g %g %g", y[0], y[1], y[2], y[3], y[4], y[5]);
    typed("F16", f16_special, 2, y);
    CHECK(y[0] == HUGE_VALF && y[1] == -HUGE_VALF && y[2] != y[2] && y[3] == 0 && signbit(y[3]) && !signbit(y[4]) && y[5] == 0.333251953125f,
          "F16: %g %g %g %g %g %g", y[0], y[1], y[2], y[3], y[4], y[5]);
    typed("BF16", bf16, 2, y);
    CHECK(y[0] == 1 && y[1] == -2 && y[2] == 3.38953138925e38f && y[3] == HUGE_VALF && y[4] != y[4] && y[5] > 0 && y[5] < 1e-38f,
          "BF16: %g %g %g %g %g %g", y[0], y[1], y[2], y[3], y[4], y[5]);
    typed("F64", f64, 8, y);
    CHECK(y[0] == 1 && y[1] == -0.1f && y[2] == 1e-45f && y[3] == 3.4028235e38f && y[4] == HUGE_VALF && y[5] == 16777216,
          "F64: %g %g %g %g %g %g", y[0], y[1], y[2], y[3], y[4], y[5]);
    for (h = 0; h < 0x10000; h += 6) {                      /* every half is what its definition says */
        unsigned char six[12];
        int i;
        if (getenv("CNN_TEST_SHORT") && h % 600) continue;
        for (i = 0; i < 6; i++) { six[2 * i] = (unsigned char)((h + i) & 255); six[2 * i + 1] = (unsigned char)((h + i) >> 8 & 255); }
        if (h % 60 == 0) typed("F16", six, 2, y);
        for (i = 0; i < 6; i++) {
            int exponent = (h + i) >> 10 & 31, fraction = (h + i) & 1023;
            double is = (exponent ? 1 + fraction / 1024.0 : fraction / 512.0) * pow(2, exponent - 15);
            float got = (float)cnn__value(&cnn__dtypes[CNN__F16], six + 2 * i);
            if (exponent == 31 ? (fraction ? got == got : fabs(got) != HUGE_VAL) : fabs(got) != is) { CHECK(0, "half %04x: %.9g, not %.9g", h + i, got, is); return; }
        }
    }
    test_passed++;
}

/* ---- .pth: archives and pickles made here, byte for byte ---- */

static bytes zip, central, pickle;
static int entry_count;

enum { PLAIN, STREAMED, WITH_ZIP64, COMPRESSED, ENCRYPTED, WRONG_CRC, NO_CRC, WRONG_PLACE, TOO_LONG };

static void begin_zip(void) { zip.count = central.count = 0; entry_count = 0; }

static void add_entry(const char *name, const void *data, size_t count, int how)
{
    size_t place = zip.count, padding = how == WITH_ZIP64 ? 299 : 7;      /* its length has one byte or two */
    unsigned crc = how == NO_CRC ? 0 : cnn__crc32(0, (const unsigned char *)data, count) ^ (how == WRONG_CRC);
    unsigned long flags = (how == STREAMED ? 8 : 0) | (how == ENCRYPTED), method = how == COMPRESSED ? 8 : 0;
    add_text(&zip, "PK\3\4");
    add_number(&zip, 20, 2); add_number(&zip, flags, 2); add_number(&zip, method, 2); add_number(&zip, 0, 4);
    add_number(&zip, how == STREAMED ? 0 : crc, 4);
    add_number(&zip, how == STREAMED ? 0 : count, 4);
    add_number(&zip, how == STREAMED ? 0 : count, 4);
    add_number(&zip, strlen(name), 2);
    add_number(&zip, padding + 4, 2);
    add_text(&zip, name);
    add_text(&zip, "FB"); add_number(&zip, padding, 2); add(&zip, zeros, padding);
    add(&zip, data, count);
    if (how == STREAMED) { add_text(&zip, "PK\7\10"); add_number(&zip, crc, 4); add_number(&zip, count, 4); add_number(&zip, count, 4); }

    if (how == TOO_LONG) count = 1 << 30;
    if (how == WRONG_PLACE) place++;
    add_text(&central, "PK\1\2");
    add_number(&central, 20, 2); add_number(&central, 20, 2); add_number(&central, flags, 2); add_number(&central, method, 2); add_number(&central, 0, 4);
    add_number(&central, crc, 4);
    add_number(&central, how == WITH_ZIP64 ? 0xffffffff : count, 4);
    add_number(&central, how == WITH_ZIP64 ? 0xffffffff : count, 4);
    add_number(&central, strlen(name), 2);
    add_number(&central, how == WITH_ZIP64 ? 332 : 0, 2);
    add_number(&central, 3, 2);                             /* comment */
    add_number(&central, 0, 8);
    add_number(&central, how == WITH_ZIP64 ? 0xffffffff : place, 4);
    add_text(&central, name);
    if (how == WITH_ZIP64) {
        add_number(&central, 0x5455, 2); add_number(&central, 300, 2); add(&central, zeros, 300);      /* another extra field before it */
        add_number(&central, 1, 2); add_number(&central, 24, 2);
        add_number(&central, count, 8); add_number(&central, count, 8); add_number(&central, place, 8);
    }
    add_text(&central, "hey");
    entry_count++;
}

static void end_zip(const char *name, int zip64, const char *comment)
{
    size_t place = zip.count;
    add(&zip, central.at, central.count);
    if (zip64) {
        size_t record = zip.count;
        add_text(&zip, "PK\6\6"); add_number(&zip, 44, 8); add_number(&zip, 45, 2); add_number(&zip, 45, 2); add_number(&zip, 0, 8);
        add_number(&zip, entry_count, 8); add_number(&zip, entry_count, 8); add_number(&zip, central.count, 8); add_number(&zip, place, 8);
        add_text(&zip, "PK\6\7"); add_number(&zip, 0, 4); add_number(&zip, record, 8); add_number(&zip, 1, 4);
    }
    add_text(&zip, "PK\5\6"); add_number(&zip, 0, 4);
    add_number(&zip, entry_count, 2); add_number(&zip, entry_count, 2);
    add_number(&zip, zip64 ? 0xffffffff : central.count, 4); add_number(&zip, zip64 ? 0xffffffff : place, 4);
    add_number(&zip, strlen(comment), 2);
    add_text(&zip, comment);
    if (name) write_bytes(name, zip.at, zip.count);
}

static void p(const char *opcodes) { add_text(&pickle, opcodes); }
static void p_string(const char *text) { p("X"); add_number(&pickle, strlen(text), 4); p(text); }
static void p_number(unsigned long long n) { p("\x8a\5"); add_number(&pickle, n, 5); }

static void p_arguments(const char *storage, const char *entry, int values, int first, const char *sizes, const char *strides)   /* "32": (3, 2) */
{
    p("((");
    p_string("storage");
    p("ctorch\n"); p(storage); p("\n");
    p_string(entry);
    p_string("cuda:0");
    p_number((unsigned long long)values);
    p("tQ");
    p_number((unsigned long long)first);
    for (p("("); *sizes; sizes++) { p("K"); add_number(&pickle, *sizes - '0', 1); }
    for (p("t("); *strides; strides++) { p("K"); add_number(&pickle, *strides - '0', 1); }
    p("t\x89" "ccollections\nOrderedDict\n)Rt");
}

static void p_tensor(const char *key, const char *storage, const char *entry, int values, int first, const char *sizes, const char *strides)
{
    p_string(key);
    p("ctorch._utils\n_rebuild_tensor_v2\n");
    p_arguments(storage, entry, values, first, sizes, strides);
    p("R");
}

static void begin_pickle(void) { pickle.count = 0; p("\x80\2ccollections\nOrderedDict\n)R("); }

static const float weight[6] = { 1, 2, 3, 4, 5, 6 }, bias[3] = { 7, 8, 9 };

static void good_pickle(void)
{
    begin_pickle();
    p_tensor("fc.weight", "FloatStorage", "0", 6, 0, "32", "21");
    p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1");
    p("u}"); p_string("_metadata"); p("ccollections\nOrderedDict\n)R("); p_string(""); p("}"); p_string("version"); p("K\1su"); p("sb.");
}

static void archive(const char *name, int how)              /* of the pickle, and two storages */
{
    begin_zip();
    add_entry("any/data.pkl", pickle.at, pickle.count, how == TOO_LONG || how == WRONG_PLACE ? PLAIN : how);
    add_entry("any/byteorder", "little", 6, STREAMED);
    add_entry("any/data/0", weight, sizeof weight, how);
    add_entry("any/data/1", bias, sizeof bias, STREAMED);
    add_entry("any/version", "3\n", 2, STREAMED);
    end_zip(name, how == WITH_ZIP64, "");
}

static int pickle_says(const char *words) { archive("p.pth", NO_CRC); return load_small("p.pth", words); }

static int weight_is(const char *name, float a, float b, float c, float d, float e, float f)
{
    float is[6], y[6];
    cnn_net *net = small();
    int good;
    is[0] = a; is[1] = b; is[2] = c; is[3] = d; is[4] = e; is[5] = f;
    good = cnn_load(net, in_folder(name)) && cnn_get(net, "fc.weight", y, 6) == 6 && !memcmp(y, is, sizeof y);
    if (!good) printf("   %s: %s; %g %g %g %g %g %g\n", name, said(net), y[0], y[1], y[2], y[3], y[4], y[5]);
    cnn_free(net);
    return good;
}

static void test_archives(void)
{
    static const int good[] = { PLAIN, STREAMED, WITH_ZIP64, NO_CRC };
    int i;
    good_pickle();
    for (i = 0; i < 4; i++) { archive("p.pth", good[i]); CHECK(weight_is("p.pth", 1, 2, 3, 4, 5, 6), "archive %d", good[i]); }
    archive("p.pth", COMPRESSED);  CHECK(load_small("p.pth", "compressed or encrypted"), "compressed");
    archive("p.pth", ENCRYPTED);   CHECK(load_small("p.pth", "compressed or encrypted"), "encrypted");
    archive("p.pth", WRONG_CRC);   CHECK(load_small("p.pth", "data.pkl is damaged"), "wrong CRC");
    archive("p.pth", WRONG_PLACE); CHECK(load_small("p.pth", "not where the ZIP directory says"), "wrong place");
    archive("p.pth", TOO_LONG);    CHECK(load_small("p.pth", "beyond the file"), "too long");
    begin_zip();                                            /* a comment at the end, entries in another order, a folder of another name */
    add_entry("x y/data/1", bias, sizeof bias, PLAIN);
    add_entry("x y/data/0", weight, sizeof weight, PLAIN);
    add_entry("x y/.data/serialization_id", "7", 1, COMPRESSED);
    add_entry("x y/data.pkl", pickle.at, pickle.count, PLAIN);
    end_zip("p.pth", 0, "a comment with PK\5\6 in it, far from its end");
    CHECK(weight_is("p.pth", 1, 2, 3, 4, 5, 6), "a comment");
    begin_zip();
    add_entry("a/data.pkl", pickle.at, pickle.count, PLAIN);
    add_entry("a/data/0", weight, sizeof weight, PLAIN);
    add_entry("b/data/0", weight, sizeof weight, PLAIN);
    add_entry("a/data/1", bias, sizeof bias, PLAIN);
    end_zip("p.pth", 0, "");
    CHECK(load_small("p.pth", "two entries data/0"), "two entries");
    begin_zip();
    add_entry("a/data.pkl", pickle.at, pickle.count, PLAIN);
    add_entry("a/data/0", weight, sizeof weight, PLAIN);
    end_zip("p.pth", 0, "");
    CHECK(load_small("p.pth", "data/1"), "a storage is not there");
    begin_zip();
    add_entry("a/data.pkl", pickle.at, pickle.count, PLAIN);
    add_entry("a/data/0", weight, 20, PLAIN);
    add_entry("a/data/1", bias, sizeof bias, PLAIN);
    end_zip("p.pth", 0, "");
    CHECK(load_small("p.pth", "should have 24 bytes in the entry data/0, which has 20"), "a storage is too short");
    begin_zip();
    add_entry("a/data.pkl", pickle.at, pickle.count, PLAIN);
    add_entry("a/byteorder", "big", 3, PLAIN);
    end_zip("p.pth", 0, "");
    CHECK(load_small("p.pth", "big-endian"), "big-endian");
    begin_zip();
    add_entry("a/data.pkl", pickle.at, pickle.count, PLAIN);
    add_entry("a/constants.pkl", "", 0, PLAIN);
    end_zip("p.pth", 0, "");
    CHECK(load_small("p.pth", "TorchScript"), "TorchScript");
    begin_zip();
    add_entry("a/readme", "hello", 5, PLAIN);
    end_zip("p.pth", 0, "");
    CHECK(load_small("p.pth", "has no data.pkl"), "another ZIP");
    begin_zip();
    end_zip("p.pth", 0, "");
    CHECK(load_small("p.pth", "has no data.pkl"), "an empty ZIP");
    write_bytes("p.pth", "hello", 5);
    CHECK(load_small("p.pth", "not a ZIP archive"), "no ZIP");
    write_bytes("p.pth", "hello, world", 12);
    CHECK(load_small("p.pth", "not a ZIP archive"), "no ZIP, of more than 8 bytes");
    write_bytes("p.pth", "\10\0\0\0\0\0\0\0{}      ", 16);
    CHECK(load_small("p.pth", "2 missing (fc.weight, fc.bias)"), "a .safetensors file of another name");
    write_bytes("p.pth", "", 0);
    CHECK(load_small("p.pth", "not a ZIP archive"), "an empty file");
}

/* From memory whose ends are guarded. NULL: it gives 1, 2, ... 9; "": that, or any sentence; else a sentence with these words. */
static int archive_says(const bytes *b, const char *words)
{
    static cnn_net *net;
    float y[MOST];
    int edge, k, good = 1;
    if (!net) net = small();
    for (edge = 0; edge < 2; edge++) {
        int loaded;
        fill(net, 100);
        loaded = cnn_load_memory(net, at_the_edge(b->at, b->count, edge), b->count);
        if (loaded) good = good && (!words || !words[0]);
        else good = good && words && strstr(said(net), words) && strlen(said(net)) > 20;
        cnn_clear_error(net);
        parameters(net, y);
        for (k = 0; k < 9; k++) good = good && y[k] == (float)((loaded ? 1 : 100) + k);
    }
    return good;
}

static size_t place_of(const char *mark, size_t from)       /* of the archive's next record */
{
    for (; from + 4 < zip.count && memcmp(zip.at + from, mark, 4); from++) { }
    return from;
}

static void set_number(size_t at, int count, unsigned long long number)
{
    for (; count--; number >>= 8) zip.at[at++] = (unsigned char)number;
}

static int number_says(size_t at, int count, unsigned long long number, const char *words)
{
    unsigned char old[8];
    int good;
    memcpy(old, zip.at + at, 8);
    set_number(at, count, number);
    good = archive_says(&zip, words);
    if (!good) printf("   %.0f of %d bytes at %d of %d: not \"%s\"\n", (double)number, count, (int)at, (int)zip.count, words ? words : "loaded");
    memcpy(zip.at + at, old, 8);
    return good;
}

static void test_archive_numbers(void)                      /* whatever they are: a sentence, or the right weights; and nothing outside is read */
{
    int zip64, k;
    for (zip64 = 0; zip64 < 2; zip64++) {
        size_t local, entry, end, i;
        long bad = 0;
        good_pickle();
        archive(NULL, zip64 ? WITH_ZIP64 : PLAIN);
        local = place_of("PK\3\4", 0);
        entry = place_of("PK\1\2", 0);
        end = zip.count - 22;
        CHECK(archive_says(&zip, NULL), "the archive as it is");
        for (i = 0; i < zip.count; i++)
            bad += !number_says(i, 1, 0, "") + !number_says(i, 1, 255, "") + !number_says(i, 1, zip.at[i] + 1u, "");
        CHECK(!bad, "%ld bytes are not refused", bad);
        {
            size_t wide = place_of("PK\6\6", 0), narrow = place_of("PK\6\7", 0), extra = entry + 46 + strlen("any/data.pkl") + 304;
            struct { size_t at; int bytes; } number[13] = { { end + 12, 4 }, { end + 16, 4 }, { end + 20, 2 }, { entry + 28, 2 }, { entry + 30, 2 },
                { entry + 32, 2 }, { entry + 42, 4 }, { local + 26, 2 }, { local + 28, 2 }, { narrow + 8, 8 }, { wide + 40, 8 }, { wide + 48, 8 }, { extra + 20, 8 } };
            for (k = 0; k < (zip64 ? 13 : 9); k++)
                for (i = 0; i < 200; i++) {
                    unsigned long long n = i < 70 ? zip.count + 5 - i : i < 80 ? cnn__little(zip.at + number[k].at, number[k].bytes) + 5 - (i - 70) : (1ull << (i - 80) / 2) - i % 2;
                    bad += !number_says(number[k].at, number[k].bytes, n, "");
                }
            CHECK(!bad, "%ld numbers are not refused", bad);
        }
    }
}

static void test_archive_edges(void)                        /* the last place that is right, and the first that is not */
{
    static char comment[65536];
    size_t size, end, entry, i;
    good_pickle();
    archive("p.pth", PLAIN);
    size = zip.count;
    end = size - 22;
    entry = place_of("PK\1\2", 0);
    CHECK(number_says(end + 12, 4, size - entry, "its ZIP directory is broken"), "a directory up to the end");
    CHECK(number_says(end + 12, 4, size - entry + 1, "its ZIP directory lies outside"), "a byte more");
    CHECK(number_says(end + 12, 4, end - entry + 1, "its ZIP directory is broken"), "a directory and a byte");
    set_number(end + 12, 4, 0);
    CHECK(number_says(end + 16, 4, size, "has no data.pkl"), "an empty directory at the end");
    CHECK(number_says(end + 16, 4, size + 1, "its ZIP directory lies outside"), "behind the end");
    set_number(end + 12, 4, end - entry);
    for (i = 0; i < 3; i++) entry = place_of("PK\1\2", entry + 1);        /* that of data/1 */
    set_number(end + 20, 2, 42);                            /* its bytes are in the comment, the last of the file */
    set_number(entry + 42, 4, size);
    add_text(&zip, "PK\3\4"); add(&zip, zeros, 26); add(&zip, bias, sizeof bias);
    CHECK(archive_says(&zip, NULL), "an entry that ends where the file does");
    CHECK(number_says(size + 26, 2, 1, "its entry data/1 reaches beyond the file"), "a byte further");
    CHECK(number_says(size + 28, 2, 1, "its entry data/1 reaches beyond the file"), "a byte further");
    CHECK(number_says(size + 28, 2, 13, "its entry data/1 reaches beyond the file"), "it begins behind the file");
    zip.count = size + 30;
    set_number(end + 20, 2, 30);
    CHECK(archive_says(&zip, "its entry data/1 reaches beyond the file"), "a header at the end");
    zip.count = size + 29;
    set_number(end + 20, 2, 29);
    CHECK(archive_says(&zip, "its entry data/1 is not where the ZIP directory says"), "a header that is cut");

    archive("p.pth", PLAIN);                                /* the longest comment */
    set_number(zip.count - 2, 2, 65535);
    memset(comment, 'c', 65535);
    add(&zip, comment, 65535);
    CHECK(archive_says(&zip, NULL), "a comment of 65535 characters");
    add(&zip, comment, 1);
    CHECK(archive_says(&zip, "is not a ZIP archive"), "one more");
    begin_zip();                                            /* what has no folder is not sought, wherever it is said to lie */
    add_entry("data.pkl", pickle.at, pickle.count, PLAIN);
    end_zip("p.pth", 0, "");
    CHECK(number_says(place_of("PK\1\2", 0) + 42, 4, 0x2f000000, "has no data.pkl"), "data.pkl without a folder");
    for (i = 0; i < 3; i++) {                               /* an entry without a name, the directory's last, whole or cut */
        begin_zip();
        add_entry("a/data.pkl", pickle.at, pickle.count, PLAIN);
        add_entry("a/data/0", weight, sizeof weight, PLAIN);
        add_entry("a/data/1", bias, sizeof bias, PLAIN);
        add_text(&central, "PK\1\2"); add(&central, zeros, 28); add_number(&central, i == 1, 2); add(&central, zeros, i == 2 ? 11 : 12);
        end_zip("p.pth", 0, "");
        CHECK(archive_says(&zip, i ? "its ZIP directory is broken" : NULL), "an entry without a name, case %d", (int)i);
    }
    for (i = 0; i < 15; i += i ? 1 : 13) {                  /* a ZIP64 record has 56 bytes; the one that points to it, 20, and the end, 22 */
        zip.count = 0;
        add(&zip, "PK............", i);
        add_text(&zip, "PK\6\7"); add(&zip, zeros, 16);
        add_text(&zip, "PK\5\6"); add(&zip, zeros, 8); add_number(&zip, 0xffffffff, 4); add_number(&zip, 0xffffffff, 4); add_number(&zip, 0, 2);
        CHECK(archive_says(&zip, i < 14 ? "its ZIP64 record lies outside the file" : "its ZIP directory lies outside the file"), "a ZIP64 of %d bytes", (int)zip.count);
    }
    CHECK(number_says(14 + 8, 8, 1, "its ZIP64 record lies outside the file"), "a ZIP64 record that ends a byte behind the file");
}

static void test_strides(void)
{
    cnn_net *net = small();
    float y[6];
    begin_pickle();                                         /* stored as (2, 3), and seen transposed */
    p_tensor("fc.weight", "FloatStorage", "0", 6, 0, "32", "13");
    p_tensor("fc.bias", "FloatStorage", "0", 6, 1, "3", "2");   /* every second value of the same storage */
    p("u.");
    archive("p.pth", PLAIN);
    CHECK(weight_is("p.pth", 1, 4, 2, 5, 3, 6), "transposed");
    CHECK(cnn_load(net, in_folder("p.pth")) && cnn_get(net, "fc.bias", y, 6) == 3 && y[0] == 2 && y[1] == 4 && y[2] == 6, "every second value: %g %g %g", y[0], y[1], y[2]);
    cnn_free(net);
    net = cnn_new(1, 1, 3);                                 /* the shortest dimension */
    cnn_flatten(net);
    cnn_name(net, "fc");
    cnn_linear(net, .out_features = 2);
    begin_pickle();
    p_tensor("fc.weight", "FloatStorage", "0", 6, 0, "23", "12");
    p_tensor("fc.bias", "FloatStorage", "0", 6, 0, "2", "1");
    p("u.");
    archive("p.pth", PLAIN);
    CHECK(cnn_load(net, in_folder("p.pth")) && cnn_get(net, "fc.weight", y, 6) == 6 && y[0] == 1 && y[1] == 3 && y[2] == 5 && y[3] == 2
          && y[4] == 4 && y[5] == 6, "transposed, two rows: %s", said(net));
    cnn_free(net);
    begin_pickle();
    p_tensor("fc.weight", "FloatStorage", "1", 3, 2, "32", "00");   /* expanded: one value for all */
    p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1");
    p("u.");
    archive("p.pth", PLAIN);
    CHECK(weight_is("p.pth", 9, 9, 9, 9, 9, 9), "expanded");
    pickle.count = 0;                                       /* a plain dict, a parameter, a value of the memo, one SETITEM each */
    p("\x80\2}q\1");
    p_string("fc.weight"); p("ctorch._utils\n_rebuild_parameter\n(");
    pickle.count--;
    p("("); p("ctorch._utils\n_rebuild_tensor_v2\nq\2((");
    p_string("storage"); p("q\3ctorch\nFloatStorage\nr\4"); add_number(&pickle, 0, 3);
    p_string("0"); p_string("cpu"); p("K\6tQK"); add_number(&pickle, 0, 1); p("K\3K\2\x86K\2K\1\x86\x89" "ccollections\nOrderedDict\n)RtR\x88" "ccollections\nOrderedDict\n)RtRs");
    p_string("fc.bias"); p("h\2((h\3j\4"); add_number(&pickle, 0, 3);
    p_string("1"); p_string("cpu"); p("M\3"); add_number(&pickle, 0, 1); p("tQJ"); add_number(&pickle, 0, 4); p("K\3\x85K\1\x85\x89N}\x87");
    pickle.count -= 3;                                      /* the six arguments in one tuple */
    p("\x89NtRs.");
    archive("p.pth", PLAIN);
    CHECK(weight_is("p.pth", 1, 2, 3, 4, 5, 6), "a plain dict with a parameter and a memo");
    begin_pickle();                                         /* _rebuild_tensor, before PyTorch 0.4: four arguments */
    p_string("fc.weight"); p("ctorch._utils\n_rebuild_tensor\n((");
    p_string("storage"); p("ctorch\nFloatStorage\n"); p_string("0"); p_string("cpu"); p("K\6tQK"); add_number(&pickle, 0, 1); p("K\3K\2\x86K\2K\1\x86tR");
    p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1");
    p("u.");
    archive("p.pth", PLAIN);
    CHECK(weight_is("p.pth", 1, 2, 3, 4, 5, 6), "four arguments");
    begin_pickle();                                         /* a subclass of Tensor; and opcodes that torch.save writes seldom, which leave as much on the stack as Python's */
    p_string("fc.weight"); p("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\nctorch.nn\nBuffer\n");
    p_arguments("FloatStorage", "0", 6, 0, "32", "21"); p("}tR");
    p_string("a frozen set"); p("(K\1K\2\x91");
    p_string("an instance with keywords"); p("cmine\nClass\n)}\x92");
    p_string("twice"); p("2K\1" "0");                          /* key and value are one string */
    p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1");
    p("u.");
    archive("p.pth", PLAIN);
    CHECK(weight_is("p.pth", 1, 2, 3, 4, 5, 6), "a subclass and seldom opcodes");
}

/* Of several dicts the one that fits, wherever it stands; nothing of the others is left. */
static void test_several_dicts(void)
{
    int turn, open_before = dup(0), open_after;
    for (turn = 0; turn < 4; turn++) {
        begin_pickle();
        p_string(turn == 0 ? "a" : "optimizer"); p("ccollections\nOrderedDict\n)R(");
        p_tensor("exp_avg", "FloatStorage", "1", 3, 0, "3", "1");
        if (turn >= 2) p_tensor("fc.bias", "FloatStorage", "0", 6, 0, "3", "1");
        if (turn == 3) p_tensor("fc.weight", "FloatStorage", "1", 3, 2, "32", "00");      /* both fit: then the name decides */
        p("u");
        p_string(turn == 0 ? "b" : "model"); p("ccollections\nOrderedDict\n)R(");
        p_tensor("fc.weight", "FloatStorage", "0", 6, 0, "32", "21");
        p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1");
        p("u");
        p_string("epoch"); p("K\3u.");
        archive("p.pth", PLAIN);
        CHECK(weight_is("p.pth", 1, 2, 3, 4, 5, 6), "turn %d", turn);
    }
    open_after = dup(0);
    CHECK(open_after == open_before + 1 || open_after == open_before, "descriptor %d before, %d after: files stay open", open_before, open_after);
    close(open_before);
    close(open_after);
}

/* Of the prefixes before a key the one that most keys have, in whatever order they stand; up to 99 characters of it. */
static void test_prefixes(void)
{
#define TENSORS(w, b, more) "{\"" w "fc.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]},\"" b "fc.bias\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[24,36]}" more "}"
#define MORE(key, shape, bytes) ",\"" key "\":{\"dtype\":\"F32\",\"shape\":[" shape "],\"data_offsets\":[36," bytes "]}"
#define TEN "nine12345."
#define FIFTY TEN TEN TEN TEN TEN
    CHECK(header_says(TENSORS("a.b.", "a.b.", ""), 36, NULL), "a prefix of two parts");
    CHECK(header_says(TENSORS("b.", "b.", MORE("a.fc.weight", "3,2", "60")), 60, "does not fit the network: 1 unexpected (a.fc.weight)"), "the second prefix");
    CHECK(header_says(TENSORS("a.", "a.", MORE("b.fc.weight", "3,2", "60")), 60, "does not fit the network: 1 unexpected (b.fc.weight)"), "the first prefix");
    CHECK(header_says(TENSORS("b.", "b.", MORE("a.fc.bias", "4", "52")), 52, "does not fit the network: 1 unexpected (a.fc.bias)"), "a key alone is worth less than one with its shape");
#define ONE(key, wrong, right, bytes) "{\"a." key "\":{\"dtype\":\"F32\",\"shape\":[" wrong "],\"data_offsets\":[0,36]},\"b." key "\":{\"dtype\":\"F32\",\"shape\":[" right "],\"data_offsets\":[36," bytes "]}}"
    CHECK(header_says(ONE("fc.weight", "9", "3,2", "60"), 60, "1 missing (fc.bias), 1 unexpected (a.fc.weight)"), "the shape of the first key");
    CHECK(header_says(ONE("fc.bias", "9", "3", "48"), 48, "1 missing (fc.weight), 1 unexpected (a.fc.bias)"), "the shape of the last key");
    CHECK(header_says(TENSORS("", "", MORE("a.fc.bias", "3", "48")), 48, "does not fit the network: 1 unexpected (a.fc.bias)"), "no prefix is the best");
    CHECK(header_says(TENSORS("a", "a", ""), 36, "2 missing (fc.weight, fc.bias), 2 unexpected (afc.bias, afc.weight)"), "a prefix ends with a dot");
    CHECK(header_says(TENSORS(FIFTY TEN TEN TEN TEN "12345678.", FIFTY TEN TEN TEN TEN "12345678.", ""), 36, NULL), "a prefix of 99 characters");
    CHECK(header_says(TENSORS(FIFTY FIFTY, FIFTY FIFTY, ""), 36, "2 missing"), "a prefix of 100 characters");
}

static void test_many_tensors(void)                         /* a .pth has places for 65,535 entries: 65,000 tensors and three others are few enough */
{
    int layers, i;
    for (layers = 13000; layers <= 13001; layers++) {       /* of five each */
        cnn_net *net = cnn_new(1, 1, 1);
        for (i = 0; i < layers; i++) cnn_batch_norm2d(net, 0);
        if (layers == 13000) CHECK(cnn_save_memory(net, ".pth", NULL, 0) > 65000 * 100, "65,000 tensors: %s", said(net));
        else CHECK(!cnn_save_memory(net, ".pth", NULL, 0) && strstr(said(net), "a .pth holds up to 65000 tensors and 4 GB; save it as .safetensors"), "%s", said(net));
        cnn_free(net);
    }
}

static void test_open_files(void)                           /* none is left open, nor the folder's */
{
    static const char *const names[] = { "o.pth", "o.safetensors", "o.ckpt" };
    cnn_net *net = small();
    int before = dup(0), after, i;
    for (i = 0; i < 3; i++) {
        const char *path = in_folder(names[i]);
        CHECK(i < 2 ? cnn_save(net, path) && cnn_load(net, path) : cnn_checkpoint_save(net, path) && cnn_checkpoint_load(net, path), "%s", said(net));
        remove(path);
    }
    after = dup(0);
    CHECK(after <= before + 1, "descriptor %d before, %d after: files stay open", before, after);
    close(before);
    close(after);
    cnn_free(net);
}

/* The numbers of a .safetensors file begin at a multiple of 8, however long its header is. */
static void test_alignment(void)
{
    static unsigned char bytes[4096];
    int length;
    for (length = 1; length <= 17; length++) {
        char name[20] = "";
        cnn_net *net = cnn_new(2, 1, 1);
        size_t size, header;
        memset(name, 'n', (size_t)length);
        cnn_name(net, name);
        cnn_linear(net, .out_features = 3);
        size = cnn_save_memory(net, ".safetensors", bytes, sizeof bytes);
        header = (size_t)cnn__little(bytes, 8);
        CHECK(size == 8 + header + 9 * sizeof(float) && header % 8 == 0, "a name of %d: a header of %d bytes of %d", length, (int)header, (int)size);
        cnn_free(net);
    }
}

/* The net's state dict with other opcodes in front of its end. */
static int with(const char *opcodes, size_t count, const char *words)
{
    begin_pickle();
    p_tensor("fc.weight", "FloatStorage", "0", 6, 0, "32", "21");
    p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1");
    add(&pickle, opcodes, count);
    p("u.");
    return pickle_says(words);
}

#define WITH(opcodes, words) CHECK(with(opcodes, sizeof(opcodes) - 1, words), "%s", words)

static int only(const char *opcodes, size_t count, const char *words)
{
    pickle.count = 0;
    add(&pickle, opcodes, count);
    return pickle_says(words);
}

#define ONLY(opcodes, words) CHECK(only(opcodes, sizeof(opcodes) - 1, words), "%s", words)

static void test_pickles(void)
{
    static const char *const refused[] = {                  /* every other opcode of Python's pickle, with its name */
        "FFLOAT", "IINT", "LLONG", "PPERSID", "SSTRING", "VUNICODE", "dDICT", "gGET", "iINST", "lLIST", "oOBJ", "pPUT", "\202EXT1", "\203EXT2", "\204EXT4",
        "\227NEXT_BUFFER", "\230READONLY_BUFFER" };
    char words[100];
    size_t i, k;
    int opcode;
    for (i = 0; i < sizeof refused / sizeof *refused; i++) {
        snprintf(words, sizeof words, "opcode 0x%02x (%s)", (unsigned char)refused[i][0], refused[i] + 1);
        CHECK(with(refused[i], 1, words), "%s", words);
    }
    for (opcode = 0; opcode < 256; opcode++) {              /* and those that there are not */
        char byte = (char)opcode;
        if (strchr("(.KMJXc})tqrhjQRsubN012BCGTU]ae", opcode) || (opcode >= 0x80 && opcode <= 0x98)) { if (opcode) continue; }
        for (k = 0; k < sizeof refused / sizeof *refused && refused[k][0] != byte; k++) { }
        if (k < sizeof refused / sizeof *refused) continue;
        snprintf(words, sizeof words, "opcode 0x%02x (unknown)", opcode);
        CHECK(with(&byte, 1, words), "%s", words);
    }
    /* the ways to run something */
    ONLY("\x80\2cos\nsystem\nX\4\0\0\0true\x85R.", "but os.system, which has no tensors by name and is not run");
    ONLY("\x80\2cbuiltins\neval\nX\1\0\0\0" "1\x85R.", "but builtins.eval, which");
    ONLY("\x80\2c__builtin__\nexec\nX\1\0\0\0" "1\x85R.", "but __builtin__.exec, which");
    ONLY("\x80\2cposix\nsystem\n.", "but posix.system, which");
    ONLY("\x80\2c__main__\nLeNet5\n)\x81}b.", "but __main__.LeNet5, which");
    ONLY("\x80\2ctorch._utils\n_rebuild_tensor_v3\n.", "but torch._utils._rebuild_tensor_v3, which");
    ONLY("\x80\2ctorch\n\n.", "but torch., which");
    ONLY("\x80\2c\n\n.", "is not a state dict");
    ONLY("\x80\2c\x1b[2J\nx\n.", "but ?[2J.x, which");
    ONLY("\x80\2(S'true'\nios\nsystem\n.", "opcode 0x53 (STRING)");
    ONLY("\x80\2ctorch\nFloatStorage\n)R.", "but torch.FloatStorage, which");
    ONLY("\x80\2K\1)R.", "opcode 0x52 (REDUCE) on something that is not a name");
    ONLY("\x80\2ccollections\nOrderedDict\nK\1R.", "opcode 0x52 (REDUCE) on collections.OrderedDict");
    ONLY("\x80\2ctorch._utils\n_rebuild_tensor_v2\n)R.", "(REDUCE) on torch._utils._rebuild_tensor_v2");
    ONLY("\x80\2ctorch._utils\n_rebuild_tensor_v2\nK\1K\1K\1K\1K\1K\1(tR.", "(REDUCE) on something that is not a name");
    ONLY("\x80\2ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR.", "(REDUCE) on torch._utils._rebuild_tensor_v2");
#define STORAGE "\x80\2ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\6tQ"
    ONLY(STORAGE "K\0(K\3K\2t(K\2K\1t\x89NtR.", "is not a state dict");      /* it is a tensor, but alone */
    ONLY(STORAGE "K\0(K\3K\2tK\1\x89NtR.", "(REDUCE) on torch._utils._rebuild_tensor_v2");
    ONLY(STORAGE "K\0K\3(K\2K\1t\x89NtR.", "(REDUCE) on torch._utils._rebuild_tensor_v2");
    ONLY(STORAGE "K\0)K\1\x89NtR.", "(REDUCE) on torch._utils._rebuild_tensor_v2");
    ONLY(STORAGE "N(K\3K\2t(K\2K\1t\x89NtR.", "(REDUCE) on torch._utils._rebuild_tensor_v2");
    ONLY(STORAGE "K\0(K\3K\2t(K\2Nt\x89NtR.", "(REDUCE) on torch._utils._rebuild_tensor_v2");
    ONLY(STORAGE "K\0(NK\2t(K\2K\1t\x89NtR.", "(REDUCE) on torch._utils._rebuild_tensor_v2");
#undef STORAGE
    ONLY("\x80\2ctorch._utils\n_rebuild_parameter\n(N\x88NtR.", "but torch._utils._rebuild_parameter, which");
    ONLY("\x80\2ctorch._utils\n_rebuild_parameter\n)R.", "but torch._utils._rebuild_parameter, which");
    ONLY("\x80\2(K\1tQ.", "is not a state dict");
    ONLY("\x80\2K\1Q.", "is not a state dict");
    ONLY("\x80\2(X\6\0\0\0moduleNNNNtQ.", "is not a state dict");
    ONLY("\x80\2(X\6\0\0\0modulecmine\nNet\ntQ.", "but mine.Net, which");   /* its source was saved, too */
    ONLY("\x80\2(X\6\0\0\0moduletQ.", "but something else, which");
    ONLY("\x80\2}K\1b.", "2 missing");
    ONLY("\x80\2K\1}b.", "is not a state dict");
    ONLY("\x80\2}b.", "stack is empty");
    /* what is no state dict */
    ONLY("\x80\2K\1.", "is not a state dict");
    ONLY("\x80\2N.", "is not a state dict");
    ONLY("\x80\2}X\5\0\0\0epochK\3s.", "2 missing");
    ONLY("\x80\2}X\5\0\0\0model}s.", "2 missing");
    ONLY("\x80\2}.", "2 missing");
    ONLY("\x80\2}K\1K\2s.", "2 missing");
    ONLY("\x80\2}K\1K\2K\3s.", "something that is not a dict");
    /* what is broken */
    ONLY("", "in the middle of an opcode");
    ONLY("\x80", "in the middle");
    ONLY("\x80\2X\377\377\377\377abc", "in the middle");
    ONLY("\x80\2X\4\0\0\0a\0bc.", "is not a state dict");
    ONLY("\x80\2cabc", "data.pkl is broken 3 bytes before its end: it ends in the middle of an opcode");
    ONLY("\x80\2cabc\ndef", "data.pkl is broken 7 bytes before its end: it ends in the middle");
    ONLY("\x80\2.", "stack is empty");
    ONLY("\x80\2).", "is not a state dict");
    ONLY("\n1", "opcode 0x0a");
    ONLY("\x80\2" "1", "no mark");
    ONLY("\x80\2R.", "stack is empty");
    ONLY("\x80\2\x87.", "stack is empty");
    ONLY("\x80\2s.", "stack is empty");
    ONLY("\x80\2K\1K\2s.", "something that is not a dict");
    ONLY("\x80\2K\1K\2a.", "something that is not a list");
    ONLY("\x80\2K\1a.", "something that is not a list");
    ONLY("\x80\2t.", "no mark");
    ONLY("\x80\2}u.", "no mark");
    ONLY("\x80\2(u.", "something that is not a dict");
    ONLY("\x80\2}(K\1u.", "something that is not a dict");
    ONLY("\x80\2q\1.", "no such place");
    ONLY("\x80\2}q\377.", "no such place");
    ONLY("\x80\2}r\377\377\377\377.", "no such place");
    ONLY("\x80\2}j\377\377\377\177.", "no such place");
    ONLY("\x80\2N\x8a\11\1\1\1\1\1\1\1\1\1.", "is not a state dict");
    ONLY("\x80\2N\x8b\377\377\377\377\1.", "in the middle");
    ONLY("\x80\2N\x8e\377\377\377\377\377\377\377\377\1.", "in the middle");
    ONLY("\x80\2N\x8d\377\377\377\377\377\377\377\377\1.", "in the middle");
    ONLY("\x80\2K\1K\1\x93.", "a name is not a string");
    WITH("X\1\0\0\0x", "something that is not a dict");
    CHECK(with("X\7\0\0\0fc.biasN", 13, NULL), "what is no tensor is none of the state dict");
    WITH("(((((((((((((((((((((((((((((", "something that is not a dict");
    /* tensors that leave their storage, or whose numbers overflow */
#define TENSOR(storage, values, first, sizes, strides, words) \
    begin_pickle(); p_tensor("fc.weight", storage, "0", values, first, sizes, strides); p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1"); p("u."); CHECK(pickle_says(words), "%s", #strides)
    TENSOR("FloatStorage", 6, 1, "32", "21", "reaches beyond its storage of 6 values");
    TENSOR("FloatStorage", 6, 0, "32", "22", "reaches beyond");
    TENSOR("FloatStorage", 6, 9, "32", "00", "reaches beyond");
    TENSOR("FloatStorage", 7, 0, "32", "21", "should have 28 bytes");
    TENSOR("FloatStorage", 5, 0, "32", "21", "should have 20 bytes");
    TENSOR("DoubleStorage", 6, 0, "32", "21", "should have 48 bytes");
    TENSOR("LongStorage", 3, 0, "32", "00", "is of I64");
    TENSOR("BoolStorage", 6, 0, "32", "21", "is of BOOL");
    TENSOR("FloatStorage", 6, 0, "23", "31", "mis-shaped (fc.weight: 2 x 3 instead of 3 x 2)");
    TENSOR("FloatStorage", 6, 0, "321", "211", "mis-shaped (fc.weight: 3 x 2 x 1 instead of 3 x 2)");
    TENSOR("FloatStorage", 6, 0, "", "", "mis-shaped (fc.weight: one value instead of 3 x 2)");
    TENSOR("FloatStorage", 6, 0, "32", "2", "(REDUCE) on torch._utils._rebuild_tensor_v2");
    TENSOR("Float8_e5m2Storage", 6, 0, "32", "21", "is of an unknown type");
    for (i = 0; i < 3; i++) {                               /* a huge number of values, first value, stride */
        begin_pickle();
        p_string("fc.weight"); p("ctorch._utils\n_rebuild_tensor_v2\n(("); p_string("storage"); p("ctorch\nFloatStorage\n"); p_string("0"); p_string("cpu");
        p(i == 0 ? "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f" : "K\6"); p("tQ"); p(i == 1 ? "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f" : "J");
        if (i != 1) add_number(&pickle, 0, 4);
        p("K\3K\2\x86"); p(i == 2 ? "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f" : "K\2"); p("K\1\x86\x89NtR");
        p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1"); p("u.");
        CHECK(pickle_says(i && sizeof(size_t) > 4 ? "reaches beyond" : "(REDUCE)"), "a huge number, case %d", (int)i);
    }
    begin_pickle();                                         /* negative ones are no numbers here */
    p_string("fc.weight"); p("ctorch._utils\n_rebuild_tensor_v2\n(("); p_string("storage"); p("ctorch\nFloatStorage\n"); p_string("0"); p_string("cpu");
    p("K\6tQJ\xff\xff\xff\xff" "K\3K\2\x86K\2K\1\x86\x89NtRu.");
    CHECK(pickle_says("(REDUCE)"), "a negative first value");
    begin_pickle();
    p_tensor("fc.weight", "FloatStorage", "0", 6, 0, "32", "21");
    p_tensor("fc.weight", "FloatStorage", "0", 6, 0, "32", "21");
    p("u.");
    CHECK(pickle_says("\"fc.weight\" twice"), "a key twice");
    begin_pickle();                                         /* an entry's name is only compared with names */
    p_tensor("fc.weight", "FloatStorage", "../../../etc/passwd", 6, 0, "32", "21");
    p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1");
    p("u.");
    CHECK(pickle_says("data/../../../etc/passwd"), "a path for an entry");
    begin_pickle();                                         /* many of everything */
    p_tensor("fc.weight", "FloatStorage", "0", 6, 0, "32", "21");
    p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1");
    p("u");
    for (i = 0; i < 20000; i++) p(i % 2 ? "}" : ")");
    p(".");
    CHECK(pickle_says(NULL), "20,000 things on the stack");
}

/* ---- what people have: files that torch.save wrote (tests/fixtures/torch_files.py) ---- */

static void test_torch_files(void)
{
    size_t i;
    for (i = 0; i < sizeof torch_files / sizeof *torch_files; i++) {
        if (torch_files[i].legacy) write_bytes("p.pth", torch_files[i].bytes, torch_files[i].size);
        else {
            pickle.count = 0;
            add(&pickle, torch_files[i].bytes, torch_files[i].size);
            archive("p.pth", NO_CRC);
        }
        if (torch_files[i].words) CHECK(load_small("p.pth", torch_files[i].words), "%s", torch_files[i].name);
        else CHECK(weight_is("p.pth", 1, 2, 3, 4, 5, 6), "%s", torch_files[i].name);
    }
}

static void test_cut_torch_files(void)                      /* after each byte: there is a sentence, and nothing outside is read */
{
    size_t i, n;
    for (i = 0; i < sizeof torch_files / sizeof *torch_files; i++) {
        long bad = 0;
        for (n = 0; n < torch_files[i].size; n++) {
            begin_zip();
            pickle.count = 0;
            add(&pickle, torch_files[i].bytes, n);
            if (torch_files[i].legacy) add(&zip, torch_files[i].bytes, n);
            else archive(NULL, NO_CRC);
            bad += !archive_says(&zip, " ");
        }
        CHECK(!bad, "%s: %ld of its beginnings are not refused", torch_files[i].name, bad);
    }
}

static void test_contents(void)                             /* they decide, not the ending */
{
    static const char *const endings[] = { "w.pth.tar", "w.bin", "w.ckpt", "w.PTH", "w.Safetensors", "w.pt" };
    static const char *const words[][2] = { { "<!DOCTYPE html><html>404</html>", "web page" }, { "version https://git-lfs.github.com/spec/v1\noid", "Git LFS" },
        { "\211HDF\r\n\032\n01234567", "Keras" }, { "\037\213\010\010aaaaaaaaaa", "gzip -d" } };
    unsigned char first[2];
    size_t i;
    cnn_net *net = small(), *other = small();
    fill(net, 5);
    for (i = 0; i < sizeof endings / sizeof *endings; i++) {
        CHECK(cnn_save(net, in_folder(endings[i])) && read_bytes(endings[i], first, 2) == 2 && (first[0] == 'P') == (i != 4), "%s: %s", endings[i], said(net));
        rename(in_folder(endings[i]), in_folder("w.weights"));
        fill(other, 50);
        CHECK(cnn_load(other, in_folder("w.weights")) && same_parameters(net, other), "%s without its ending: %s", endings[i], said(other));
    }
    for (i = 0; i < sizeof words / sizeof *words; i++) {
        write_bytes("w.weights", words[i][0], strlen(words[i][0]));
        CHECK(load_small("w.weights", words[i][1]), "%s", words[i][1]);
    }
    remove(in_folder("w.weights"));
    cnn_free(net);
    cnn_free(other);
}

static void test_in_memory(void)
{
    static const char *const endings[] = { ".pth", ".safetensors", "net.pt" };
    static unsigned char file[1 << 16], bytes[1 << 16], copy[1 << 16];
    size_t i, size;
    for (i = 0; i < 3; i++) {
        cnn_net *net = medium(1), *other = medium(2);
        char name[40];
        snprintf(name, sizeof name, "w%s", endings[i]);
        CHECK(cnn_save(net, in_folder(name)), "%s", said(net));
        size = read_bytes(name, file, sizeof file);
        memset(bytes, 0x5a, sizeof bytes);
        CHECK(cnn_save_memory(net, endings[i], NULL, 0) == size && cnn_save_memory(net, endings[i], bytes, size - 1) == size && bytes[0] == 0x5a, "%s: counted", endings[i]);
        CHECK(cnn_save_memory(net, endings[i], bytes + 1, sizeof bytes - 1) == size && !memcmp(bytes + 1, file, size) && bytes[size + 1] == 0x5a, "%s: other bytes than in the file", endings[i]);
        memcpy(copy, bytes, sizeof copy);
        CHECK(cnn_load_memory(other, bytes + 1, size) && same_parameters(net, other), "%s: %s", endings[i], said(other));
        CHECK(!memcmp(copy, bytes, sizeof copy), "%s: loading changed the caller's bytes", endings[i]);
        fill(net, 3);
        fill(other, 3);
        CHECK(!cnn_load_memory(other, bytes + 1, size - 30) && strstr(said(other), "the weights in memory: ") && (cnn_clear_error(other), same_parameters(net, other)), "%s: cut", endings[i]);
        CHECK(!cnn_load_memory(other, NULL, 5) && cnn_error(other), "no bytes");
        cnn_clear_error(other);
        CHECK(!cnn_save_memory(net, ".onnx", bytes, sizeof bytes) && strstr(said(net), "the ending chooses"), "%s", said(net));
        remove(in_folder(name));
        cnn_free(net);
        cnn_free(other);
    }
}

static cnn_net *large(unsigned seed)                        /* 1.4 MB: its file is mapped */
{
    cnn_net *net = cnn_new(600, 1, 1);
    cnn_manual_seed(net, seed);
    cnn_flatten(net);
    cnn_linear(net, .out_features = 600);
    return net;
}

static void test_large(void)
{
    static const char *const files[] = { "l.pth", "l.safetensors", "l.ckpt" };
    static float x[360000], y[360000];
    int i, cut;
    for (i = 0; i < 3; i++) {
        cnn_net *net = large(1), *other = large(2);
        CHECK(i == 2 ? cnn_checkpoint_save(net, in_folder(files[i])) : cnn_save(net, in_folder(files[i])), "%s", said(net));
        CHECK(i == 2 ? cnn_checkpoint_load(other, in_folder(files[i])) : cnn_load(other, in_folder(files[i])), "%s", said(other));
        CHECK(cnn_get(net, "1.weight", x, 360000) == 360000 && cnn_get(other, "1.weight", y, 360000) == 360000 && !memcmp(x, y, sizeof x), "%s: other values", files[i]);
        CHECK(cnn_save(other, in_folder(files[i == 2])) && cnn_load(net, in_folder(files[i == 2])), "%s", said(net));
        for (cut = 1; cut < 300000; cut = 7 * cut + 13) {
            struct stat status;
            CHECK(!stat(in_folder(files[i]), &status) && !truncate(in_folder(files[i]), status.st_size - cut), "%s cannot be cut", files[i]);
            CHECK(!(i == 2 ? cnn_checkpoint_load(other, in_folder(files[i])) : cnn_load(other, in_folder(files[i]))) && cnn_error(other), "%s, cut by %d, was loaded", files[i], cut);
            cnn_clear_error(other);
        }
        cnn_free(net);
        cnn_free(other);
    }
    for (i = 0; i < 3; i++) remove(in_folder(files[i]));
}

static void test_crc(void)                                  /* eight bytes at a time are as one at a time */
{
    static unsigned char data[10000];
    size_t i, n;
    for (i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 2654435761u >> 13);
    for (n = 4090; n < sizeof data; n += 97) {
        uint32_t whole = cnn__crc32(0, data + n % 8, n - n % 8), parts = 0;
        for (i = n % 8; i < n; i += 100) parts = cnn__crc32(parts, data + i, n - i < 100 ? n - i : 100);
        CHECK(whole == parts, "CRC of %d bytes: %08x, %08x", (int)n, (unsigned)whole, (unsigned)parts);
    }
    CHECK(cnn__crc32(0, (const unsigned char *)"123456789", 9) == 0xcbf43926u, "the CRC that every description of it gives");
}

static void test_large_numbers(void)                        /* LONG1 of 8 bytes, which 32 bits refused though it is small; Python's larger ones */
{
    begin_pickle();
    p_string("fc.weight"); p("ctorch._utils\n_rebuild_tensor_v2\n(("); p_string("storage"); p("ctorch\nFloatStorage\n"); p_string("0"); p_string("cpu");
    p("\x8a\x08"); add_number(&pickle, 6, 8);
    p("tQ\x8b"); add_number(&pickle, 8, 4); add_number(&pickle, 0, 8);
    p("K\3K\2\x86K\2K\1\x86\x89NtR");
    p_tensor("fc.bias", "FloatStorage", "1", 3, 0, "3", "1");
    p_string("seed"); p("\x8a\x0c"); add_number(&pickle, 1, 8); add_number(&pickle, 1, 4);
    p("u.");
    archive("p.pth", PLAIN);
    CHECK(weight_is("p.pth", 1, 2, 3, 4, 5, 6), "numbers of 8 and 12 bytes");
}

/* ---- damage: every truncation, many flipped bytes ---- */

/* Loads (1), or says why and changes nothing (0), and reads nothing outside; else -1. */
static int survives(const char *name, int checkpoint, const unsigned char *bytes, size_t count, cnn_net *net, cnn_net *untouched)
{
    int loaded, good;
    if (checkpoint) write_bytes(name, bytes, count);
    fill(net, 50);
    loaded = checkpoint ? cnn_checkpoint_load(net, in_folder(name)) : cnn_load_memory(net, at_the_edge(bytes, count, 0), count);
    good = loaded ? !cnn_error(net) : cnn_error(net) && strlen(said(net)) > 20;
    cnn_clear_error(net);
    if (!loaded) good = good && same_parameters(net, untouched);
    return good ? loaded : -1;
}

static void damage(const char *name, int checkpoint, cnn_net *net, cnn_net *untouched, int flips)
{
    static unsigned char whole[1 << 16], part[1 << 16];
    size_t count = read_bytes(name, whole, sizeof whole), i;
    uint32_t random[4];
    int n, k, bad = 0, step = getenv("CNN_TEST_SHORT") ? 13 : 1;
    for (i = 0; i < count; i += (size_t)step) bad += survives(name, checkpoint, whole, i, net, untouched) != 0;
    CHECK(!bad, "%s: %d of its beginnings were not refused", name, bad);
    for (bad = n = 0; n < flips / step; n++) {
        memcpy(part, whole, count);
        cnn_random(random, 7, 0, (uint64_t)n, 0);
        for (k = 0; k <= n % 4; k++) {
            cnn_random(random, 7, 1, (uint64_t)n, (uint32_t)k);
            part[random[0] % count] = n % 3 ? (unsigned char)random[1] : part[random[0] % count] ^ (unsigned char)(1u << random[1] % 8);
        }
        if (survives(name, checkpoint, part, count, net, untouched) < 0) bad++;
    }
    CHECK(!bad, "%s: %d of %d damaged files crashed something", name, bad, flips);
    write_bytes(name, whole, count);
    CHECK(checkpoint ? cnn_checkpoint_load(net, in_folder(name)) : cnn_load(net, in_folder(name)), "%s: %s", name, said(net));
}

static void test_damage(void)
{
    cnn_net *net = small(), *untouched = small();
    fill(net, 50);
    fill(untouched, 50);
    cnn_save(net, in_folder("t.safetensors"));
    damage("t.safetensors", 0, net, untouched, 3000);
    cnn_save(net, in_folder("t.pth"));
    damage("t.pth", 0, net, untouched, 3000);
    good_pickle();                                          /* without CRCs, so that flipped bytes reach the pickle */
    archive("t.pth", NO_CRC);
    damage("t.pth", 0, net, untouched, 6000);
    cnn_adam(net, .lr = 1e-3f);
    cnn_checkpoint_save(net, in_folder("t.ckpt"));
    damage("t.ckpt", 1, net, untouched, 3000);
    cnn_free(net);
    cnn_free(untouched);
}

/* ---- what does not fit ---- */

static void test_misfits(void)
{
    static const char *const files[] = { "m.safetensors", "m.pth" };
    char report[600], tiny[10];
    float y[6];
    int i;
    for (i = 0; i < 2; i++) {
        cnn_net *other = cnn_new(3, 1, 1), *net = small(), *untouched = small(), *wide;
        cnn_flatten(other);
        cnn_name(other, "fc");
        cnn_linear(other, .out_features = 3);
        cnn_relu(other);
        cnn_name(other, "head");
        cnn_linear(other, .out_features = 2, .no_bias = 1);
        fill(other, 1000);
        fill(net, 1);
        fill(untouched, 1);
        CHECK(cnn_save(other, in_folder(files[i])), "%s", said(other));
        CHECK(!cnn_load(net, in_folder(files[i])) && strstr(said(net), "does not fit the network: 1 unexpected (head.weight), 1 mis-shaped (fc.weight: 3 x 3 instead of 3 x 2)"),
              "%s", said(net));
        CHECK(!cnn_load(net, in_folder(files[i])), "a network in error loads");
        cnn_clear_error(net);
        CHECK(same_parameters(net, untouched), "%s changed something", files[i]);
        CHECK(cnn_load_partly(net, in_folder(files[i]), report, sizeof report) && !strcmp(report, "1 of 2 parameters loaded; skipped: 1 unexpected (head.weight), 1 mis-shaped (fc.weight: 3 x 3 instead of 3 x 2)"), "%s", report);
        CHECK(cnn_get(net, "fc.bias", y, 6) == 3 && y[0] == 1009 && cnn_get(net, "fc.weight", y, 6) == 6 && y[0] == 1, "what was loaded: %g", y[0]);
        CHECK(cnn_load_partly(net, in_folder(files[i]), NULL, 0) && cnn_load_partly(net, in_folder(files[i]), tiny, sizeof tiny) && strlen(tiny) < sizeof tiny, "no room for the report");
        CHECK(!cnn_load(other, in_folder("none.pth")) && cnn_error(other), "a missing file");
        cnn_clear_error(other);
        CHECK(cnn_load_partly(other, in_folder(files[i]), report, sizeof report) && !strcmp(report, "3 of 3 parameters loaded"), "%s", report);

        wide = cnn_new(2, 1, 1);                            /* missing, unexpected and mis-shaped in one sentence */
        cnn_flatten(wide);
        cnn_name(wide, "fc");
        cnn_linear(wide, .out_features = 4);
        cnn_name(wide, "classifier");
        cnn_linear(wide, .out_features = 2);
        CHECK(!cnn_load(wide, in_folder(files[i])) && strstr(said(wide), "2 missing (classifier.weight, classifier.bias), 1 unexpected (head.weight), "
              "2 mis-shaped (fc.weight: 3 x 3 instead of 4 x 2, fc.bias: 3 instead of 4)"), "%s", said(wide));
        cnn_clear_error(wide);
        CHECK(!cnn_load_partly(wide, in_folder(files[i]), report, sizeof report) && strstr(said(wide), "nothing in it fits the network: 2 missing") && !report[0], "%s", said(wide));
        cnn_free(wide);

        wide = cnn_new(2, 1, 1);                            /* more than a sentence holds */
        cnn_flatten(wide);
        {
            char name[60];
            int k;
            for (k = 0; k < 40; k++) {
                snprintf(name, sizeof name, "%s_layer_with_a_long_name_%d", k % 2 ? "another" : "one", k);
                cnn_name(wide, name);
                cnn_linear(wide, .out_features = 2);
            }
        }
        CHECK(!cnn_load(wide, in_folder(files[i])) && strstr(said(wide), "80 missing (one_layer_with_a_long_name_0.weight, one_layer_with_a_long_name_0.bias, ...), 3 unexpected (fc.bias, fc.weight, head.weight)"), "%s", said(wide));
        cnn_clear_error(wide);
        cnn_save(wide, in_folder(files[i]));
        CHECK(!cnn_load(net, in_folder(files[i])) && strstr(said(net), "2 missing (fc.weight, fc.bias), 80 unexpected (") && strstr(said(net), ", ...)"), "%s", said(net));
        cnn_free(wide);
        cnn_free(other);
        cnn_free(net);
        cnn_free(untouched);
    }
}

static void test_no_parameters(void)
{
    static const char *const files[] = { "e.safetensors", "e.pth", "e.ckpt" };
    char report[100];
    int i;
    for (i = 0; i < 3; i++) {
        cnn_net *net = cnn_new(2, 1, 1);
        cnn_relu(net);
        CHECK(i == 2 ? cnn_checkpoint_save(net, in_folder(files[i])) : cnn_save(net, in_folder(files[i])), "%s", said(net));
        CHECK(i == 2 ? cnn_checkpoint_load(net, in_folder(files[i])) : cnn_load(net, in_folder(files[i])), "%s", said(net));
        CHECK(i == 2 || (cnn_load_partly(net, in_folder(files[i]), report, sizeof report) && !strcmp(report, "0 of 0 parameters loaded")), "%s", said(net));
        cnn_free(net);
    }
}

/* ---- where a file is written ---- */

static void list_parts(int *count, int delete)              /* temporary files that are left */
{
    DIR *folder = opendir(in_folder("."));
    struct dirent *entry;
    for (*count = 0; folder && (entry = readdir(folder)) != NULL; ) {
        size_t length = strlen(entry->d_name);
        if (length < 5 || strcmp(entry->d_name + length - 5, ".part")) continue;
        ++*count;
        if (delete) remove(in_folder(entry->d_name));
    }
    if (folder) closedir(folder);
}

static int mode_of(const char *name)
{
    struct stat status;
    return stat(in_folder(name), &status) ? -1 : (int)(status.st_mode & 07777);
}

static int is_link(const char *name)
{
    struct stat status;
    return !lstat(in_folder(name), &status) && S_ISLNK(status.st_mode);
}

static void test_places(void)
{
    static unsigned char file[1 << 16], other[1 << 16];
    cnn_net *net = small(), *back = small();
    size_t size;
    int parts, ends[2], status;
    pid_t child;
    mode_t mask = umask(022);
    fill(net, 5);
    CHECK(cnn_save(net, in_folder("k.pth")) && mode_of("k.pth") == 0644, "a new file has mode %o", mode_of("k.pth"));
    size = read_bytes("k.pth", file, sizeof file);
    chmod(in_folder("k.pth"), 0600);
    CHECK(cnn_save(net, in_folder("k.pth")) && mode_of("k.pth") == 0600, "a private file became %o", mode_of("k.pth"));
    chmod(in_folder("k.pth"), 0664);
    CHECK(cnn_save(net, in_folder("k.pth")) && mode_of("k.pth") == 0664, "a shared file became %o", mode_of("k.pth"));
    umask(mask);
    CHECK(!symlink("k.pth", in_folder("link.pth")) && !symlink(in_folder("link.pth"), in_folder("far.pth")), "links cannot be made");
    fill(net, 6);
    CHECK(cnn_save(net, in_folder("far.pth")) && is_link("far.pth") && is_link("link.pth") && !is_link("k.pth"), "a link was replaced: %s", said(net));
    CHECK(cnn_load(back, in_folder("k.pth")) && same_parameters(net, back), "what the link points to is old");
    remove(in_folder("k.pth"));
    CHECK(cnn_save(net, in_folder("far.pth")) && is_link("far.pth") && there("k.pth"), "a link to nothing: %s", said(net));
    remove(in_folder("k.pth")); remove(in_folder("link.pth"));
    CHECK(!symlink("loop.pth", in_folder("loop.pth")) && !cnn_save(net, in_folder("loop.pth")) && cnn_error(net) && is_link("loop.pth"), "a link to itself");
    cnn_clear_error(net);
    remove(in_folder("loop.pth")); remove(in_folder("far.pth"));
    CHECK(!symlink("victim", in_folder("k.pth.part")) && cnn_save(net, in_folder("k.pth")) && !there("victim") && is_link("k.pth.part"), "a link at k.pth.part was followed");
    remove(in_folder("k.pth.part"));

    CHECK(!mkfifo(in_folder("fifo.pth"), 0600), "no FIFO can be made");
    fflush(stdout);
    child = fork();                                         /* reading a FIFO would wait for ever */
    if (!child) {
        alarm(10);
        status = cnn_load(back, in_folder("fifo.pth")) || !strstr(said(back), "not a regular file");
        _exit(status);
    }
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "loading a FIFO");
    fill(net, 5);
    child = fork();                                         /* writing one goes through it */
    if (!child) {
        alarm(10);
        _exit(!cnn_save(net, in_folder("fifo.pth")));
    }
    memset(other, 0, sizeof other);
    CHECK(read_bytes("fifo.pth", other, sizeof other) == size && !memcmp(file, other, size), "what came through the FIFO is another file");
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "saving to a FIFO");
    CHECK(!mkfifo(in_folder("fifo2.pth"), 0600) && !remove(in_folder("fifo.pth")) && !remove(in_folder("fifo2.pth")), "the FIFO was replaced");
    CHECK(cnn_save(net, "/dev/null") == 0 && strstr(said(net), "ending"), "%s", said(net));
    cnn_clear_error(net);
    CHECK(cnn_checkpoint_save(net, "/dev/null") && !access("/dev/null", W_OK), "a device: %s", said(net));
    CHECK(!stat("/dev/null", &(struct stat){ 0 }), "the device is gone");
    if (!access("/dev/full", W_OK)) {
        CHECK(!cnn_checkpoint_save(net, "/dev/full") && strstr(said(net), "No space left"), "a full device: %s", said(net));
        cnn_clear_error(net);
    }

    CHECK(!pipe(ends), "no pipe");                          /* standard output: a pipe, then a file that has something already */
    if (there_is("/proc/self/fd/1")) {                      /* by a link of our own: a broken cnn.h must not replace the machine's /dev/stdout */
        CHECK(!symlink("/proc/self/fd/1", in_folder("stdout")), "no link");
        child = fork();
        if (!child) {
            dup2(ends[1], 1);
            _exit(!cnn_checkpoint_save(net, in_folder("stdout")));
        }
        close(ends[1]);
        waitpid(child, &status, 0);
        CHECK(WIFEXITED(status) && !WEXITSTATUS(status) && read(ends[0], other, 9) == 9 && other[8] == '{' && is_link("stdout"), "standard output as a pipe");
        fflush(stdout);
        child = fork();
        if (!child) {
            if (!freopen(in_folder("out.txt"), "wb", stdout)) _exit(2);
            printf("before ");
            if (!cnn_checkpoint_save(net, in_folder("stdout"))) _exit(1);
            printf(" after");
            fflush(stdout);
            _exit(0);
        }
        waitpid(child, &status, 0);
        size = read_bytes("out.txt", other, sizeof other);
        CHECK(WIFEXITED(status) && !WEXITSTATUS(status) && size > 100 && !memcmp(other, "before ", 7) && other[15] == '{' && !memcmp(other + size - 6, " after", 6), "standard output as a file");
        remove(in_folder("out.txt"));
        remove(in_folder("stdout"));
    }
    close(ends[0]);

    no_fsync = 2;                                           /* the directory's flush fails, where the file's did not */
    CHECK(!cnn_save(net, in_folder("k.pth")) && strstr(said(net), "its directory cannot be flushed") && strstr(said(net), "Input/output error"), "%s", said(net));
    cnn_clear_error(net);
    no_fsync = 1;                                           /* the file's */
    fill(net, 9);
    CHECK(!cnn_save(net, in_folder("k.pth")) && strstr(said(net), "unchanged"), "%s", said(net));
    cnn_clear_error(net);
    fill(back, 5);
    no_fsync = 0;
    CHECK(cnn_load(net, in_folder("k.pth")) && same_parameters(net, back), "a file that could not be flushed took the old one's place: %s", said(net));
    list_parts(&parts, 1);
    CHECK(!parts, "%d temporary files are left", parts);
    remove(in_folder("k.pth"));
    cnn_free(net);
    cnn_free(back);
}

static void test_together(void)                             /* several programs, one path: all save, whoever loads sees a whole file */
{
    enum { WRITERS = 3, SAVES = 100 };
    static const char *const files[] = { "j.pth", "j.safetensors" };
    int i, k, parts, status, bad = 0, loads = 0;
    for (i = 0; i < 2; i++) {
        pid_t children[WRITERS];
        cnn_net *net = medium(1);
        CHECK(cnn_save(net, in_folder(files[i])), "%s", said(net));
        fflush(stdout);
        for (k = 0; k < WRITERS; k++) {
            children[k] = fork();
            if (children[k]) continue;
            for (bad = loads = 0; loads < SAVES; loads++) {
                fill(net, (float)(1000 * k + loads));
                if (!cnn_save(net, in_folder(files[i]))) { printf("%s\n", said(net)); cnn_clear_error(net); bad = 1; }
            }
            fflush(stdout);
            _exit(bad);
        }
        for (k = 0; k < WRITERS; ) {
            float values[MOST];
            size_t count, n;
            if (!cnn_load(net, in_folder(files[i]))) { printf("%s\n", said(net)); cnn_clear_error(net); bad++; }
            count = parameters(net, values);
            for (n = 1; loads && n < count; n++) if (values[n] != values[0] + (float)n && values[0] == floorf(values[0])) { bad++; break; }
            loads++;
            if (waitpid(children[k], &status, WNOHANG) == children[k]) {
                CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "%s: a save beside others failed", files[i]);
                k++;
            }
        }
        CHECK(!bad && loads > 0, "%s: %d of %d loads found no whole file", files[i], bad, loads);
        list_parts(&parts, 1);
        CHECK(!parts, "%d temporary files are left", parts);
        remove(in_folder(files[i]));
        cnn_free(net);
    }
}

/* ---- a save that is interrupted ---- */

static void stop(int number) { (void)number; raise(SIGSTOP); }

static void limit_file_size(void)
{
    struct rlimit limit;
    limit.rlim_cur = limit.rlim_max = 200;
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void test_interrupted(void)
{
    static const char *const files[] = { "i.safetensors", "i.pth", "i.ckpt" };
    static unsigned char before[1 << 16], after[1 << 16];
    int i, status, parts;
    for (i = 0; i < 3; i++) {
        cnn_net *net = medium(1);
        size_t count;
        pid_t child;
        cnn_adam(net, .lr = 1e-3f);
        CHECK(i == 2 ? cnn_checkpoint_save(net, in_folder(files[i])) : cnn_save(net, in_folder(files[i])), "%s", said(net));
        count = read_bytes(files[i], before, sizeof before);
        fill(net, 0);
        fflush(stdout);
        child = fork();                                     /* the disk is full: an error, and the old file is whole */
        if (!child) {
            int saved;
            signal(SIGXFSZ, SIG_IGN);
            limit_file_size();
            saved = i == 2 ? cnn_checkpoint_save(net, in_folder(files[i])) : cnn_save(net, in_folder(files[i]));
            saved = !saved && strstr(said(net), "cannot be written: File too large") && strstr(said(net), "unchanged") ? 7 : 1;
            cnn_free(net);
            _exit(saved);
        }
        waitpid(child, &status, 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%s: a full disk was not reported", files[i]);
        CHECK(read_bytes(files[i], after, sizeof after) == count && !memcmp(before, after, count), "%s: a full disk damaged the old file", files[i]);
        list_parts(&parts, 0);
        CHECK(count > 200 && !parts, "%s: an unfinished file was left", files[i]);
        child = fork();                                     /* the program is killed while it writes */
        if (!child) {
            signal(SIGXFSZ, stop);
            limit_file_size();
            if (i == 2) cnn_checkpoint_save(net, in_folder(files[i]));
            else cnn_save(net, in_folder(files[i]));
            _exit(1);
        }
        waitpid(child, &status, WUNTRACED);
        CHECK(WIFSTOPPED(status), "%s: the child did not stop while it wrote", files[i]);
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: the child was not killed", files[i]);
        list_parts(&parts, 1);                              /* what is killed cannot tidy up */
        CHECK(parts == 1, "%s: %d unfinished files", files[i], parts);
        CHECK(read_bytes(files[i], after, sizeof after) == count && !memcmp(before, after, count), "%s: a killed save damaged the old file", files[i]);
        CHECK(i == 2 ? cnn_checkpoint_save(net, in_folder(files[i])) : cnn_save(net, in_folder(files[i])), "after a killed save: %s", said(net));
        CHECK(read_bytes(files[i], after, sizeof after) == count && memcmp(before, after, count), "%s: the new file is the old one", files[i]);
        cnn_free(net);
    }
}

/* ---- checkpoints: a run that was stopped ends with the same bits as one that was not ---- */

enum { SAMPLES = 72, EPOCHS = 5 };
static float images[SAMPLES * 64];
static int labels[SAMPLES];

static cnn_data *samples(void)
{
    int i;
    for (i = 0; i < SAMPLES * 64; i++) images[i] = (float)(i * 7919 % 1009) / 1009 + (float)(i / 64 % 3 == i % 3);
    for (i = 0; i < SAMPLES; i++) labels[i] = i % 3;
    return cnn_data_new(.count = SAMPLES, .channels = 1, .height = 8, .width = 8, .classes = 3, .floats = images, .labels = labels);
}

static void choose(cnn_net *net, int optimizer, int schedule)
{
    if (optimizer == 0) cnn_sgd(net, .lr = 0.01f);
    if (optimizer == 1) cnn_sgd(net, .lr = 0.01f, .momentum = 0.9f, .nesterov = 1, .weight_decay = 1e-3f);
    if (optimizer == 2) cnn_adam(net, .lr = 0.003f);
    if (optimizer == 3) cnn_adamw(net, .lr = 0.003f);
    if (schedule == 1) cnn_step_lr(net, .step_size = 2);
    if (schedule == 2) cnn_cosine_lr(net, .t_max = EPOCHS);
    if (schedule == 3) cnn_one_cycle_lr(net, .max_lr = 0.02f, .total_steps = EPOCHS * (SAMPLES / 16));
}

static void save_each(cnn_net *net, const cnn_epoch *epoch, void *user)
{
    char name[40];
    (void)user;
    snprintf(name, sizeof name, "epoch%d.ckpt", epoch->epoch);
    CHECK(cnn_checkpoint_save(net, in_folder(name)), "%s", said(net));
}

static int same_history(cnn_net *a, cnn_net *b)
{
    int n, m, i;
    const cnn_epoch *x = cnn_history(a, &n), *y = cnn_history(b, &m);
    if (n != m) return 0;
    for (i = 0; i < n; i++)
        if (x[i].epoch != y[i].epoch || x[i].train.loss != y[i].train.loss || x[i].train.accuracy != y[i].train.accuracy || x[i].train.count != y[i].train.count ||
            x[i].test.loss != y[i].test.loss || x[i].test.accuracy != y[i].test.accuracy || x[i].lr != y[i].lr) return 0;
    return 1;
}

static void test_resume(void)
{
    cnn_data *data = samples();
    int optimizer, schedule, epoch, k;
    for (optimizer = 0; optimizer < 4; optimizer++)
        for (schedule = 0; schedule < 4; schedule++) {
            cnn_net *whole = medium(3), *fresh = medium(3);
            choose(whole, optimizer, schedule);
            choose(fresh, optimizer, schedule);
            CHECK(cnn_checkpoint_save(fresh, in_folder("epoch0.ckpt")), "%s", said(fresh));       /* before the first step */
            CHECK(cnn_fit(whole, data, data, .epochs = EPOCHS, .batch_size = 16, .each_epoch = save_each), "%s", said(whole));
            for (epoch = 0; epoch <= EPOCHS; epoch++) {
                cnn_net *resumed = medium(99);              /* other weights and another seed, which the file replaces */
                char name[40];
                int count;
                snprintf(name, sizeof name, "epoch%d.ckpt", epoch);
                choose(resumed, optimizer, schedule);
                if (epoch % 2) {                            /* into a network that was in use already: its moments go */
                    CHECK(cnn_fit(resumed, data, NULL, .epochs = 1, .batch_size = 24), "%s", said(resumed));
                }
                CHECK(cnn_checkpoint_load(resumed, in_folder(name)), "%s", said(resumed));
                cnn_history(resumed, &count);
                CHECK(count == epoch, "%s: %d epochs", name, count);
                CHECK(cnn_fit(resumed, data, data, .epochs = EPOCHS, .batch_size = 16), "%s", said(resumed));
                CHECK(same_parameters(whole, resumed) && same_history(whole, resumed) && cnn_lr(whole) == cnn_lr(resumed),
                      "optimizer %d, schedule %d: resumed after epoch %d, the run ends with other bits", optimizer, schedule, epoch);
                cnn_free(resumed);
            }
            cnn_free(whole);
            cnn_free(fresh);
        }
    for (k = 0; k <= EPOCHS; k++) { char name[40]; snprintf(name, sizeof name, "epoch%d.ckpt", k); remove(in_folder(name)); }
    cnn_data_free(data);
}

static void test_checkpoint(void)
{
    cnn_data *data = samples();
    cnn_net *net = medium(5), *other, *untouched;
    float lr;
    int optimizer, schedule, count, i;
    cnn_manual_seed(net, 0xfedcba9876543210u);
    choose(net, 2, 1);
    cnn_fit(net, data, NULL, .epochs = 2, .batch_size = 16);
    CHECK(cnn_checkpoint_save(net, in_folder("c.ckpt")), "%s", said(net));
    for (optimizer = -1; optimizer < 4; optimizer++)        /* only the same optimizer and schedule */
        for (schedule = 0; schedule < (optimizer < 0 ? 1 : 4); schedule++) {
            other = medium(6);
            untouched = medium(6);
            choose(other, optimizer, schedule);
            lr = cnn_lr(other);
            if (cnn_checkpoint_load(other, in_folder("c.ckpt"))) CHECK(optimizer == 2 && schedule == 1, "optimizer %d, schedule %d: loaded", optimizer, schedule);
            else {
                CHECK(optimizer != 2 || schedule != 1, "%s", said(other));
                CHECK(strstr(said(other), optimizer != 2 ? "its optimizer is adam, the program's is" : "its schedule is step_lr, the program's is"), "%s", said(other));
                cnn_clear_error(other);
                cnn_history(other, &count);
                CHECK(same_parameters(other, untouched) && !count && cnn_lr(other) == lr, "a refused checkpoint changed something");
            }
            cnn_free(other);
            cnn_free(untouched);
        }
    other = small();                                        /* another network */
    choose(other, 2, 1);
    CHECK(!cnn_checkpoint_load(other, in_folder("c.ckpt")) && strstr(said(other), "does not fit the network: 2 missing (fc.weight, fc.bias), 5 unexpected"), "%s", said(other));
    cnn_free(other);
    other = medium(6);                                      /* the options are the program's; rate, seed and place in the schedule the file's: it goes on from that rate */
    cnn_adam(other, .lr = 0.5f, .beta1 = 0.8f);
    cnn_step_lr(other, .step_size = 2, .gamma = 0.5f);
    CHECK(cnn_checkpoint_load(other, in_folder("c.ckpt")) && other->adam.beta1 == 0.8f && cnn_lr(other) == cnn_lr(net) && other->seed == 0xfedcba9876543210u, "%s", said(other));
    cnn_scheduler_step(other);
    cnn_scheduler_step(other);
    CHECK(fabs(cnn_lr(other) - 0.003 * 0.1 * 0.5) < 1e-9, "the schedule goes on at %g", cnn_lr(other));
    cnn_set_lr(other, 0.125f);
    CHECK(cnn_lr(other) == 0.125f, "cnn_set_lr after a checkpoint");
    cnn_free(other);
    cnn_checkpoint_save(net, in_folder("c.safetensors"));          /* it is a state dict too */
    other = medium(6);
    CHECK(cnn_load(other, in_folder("c.safetensors")) && same_parameters(net, other), "%s", said(other));
    cnn_save(other, in_folder("c.safetensors"));
    CHECK(!cnn_checkpoint_load(other, in_folder("c.safetensors")) && strstr(said(other), "its format is pt, the program's is cnn.h checkpoint"), "%s", said(other));
    cnn_clear_error(other);
    cnn_save(other, in_folder("c.pth"));
    CHECK(!cnn_checkpoint_load(other, in_folder("c.pth")) && cnn_error(other), "a .pth as a checkpoint");
    cnn_clear_error(other);
    CHECK(!cnn_checkpoint_load(other, in_folder("none.ckpt")) && strstr(said(other), "cannot be opened"), "%s", said(other));
    cnn_clear_error(other);
    CHECK(!cnn_checkpoint_save(other, in_folder("none/c.ckpt")) && strstr(said(other), "cannot be written"), "%s", said(other));
    cnn_free(other);
    for (i = 0; i < 8; i++) {                               /* one word of the file changed */
        static const char *const from[] = { "\"2\"}", "moment1/classifier.weight", "moment2/features.0.weight", "cnn.h/training", "cnn.h/history", "\"shape\":[2,9]", "\"shape\":[1,7]", "cnn.h checkpoint" };
        static const char *const to[]   = { "\"3\"}", "moment1/classifier.Weight", "moment2/features.0.Weight", "cnn.h/Training", "cnn.h/History", "\"shape\":[9,2]", "\"shape\":[7,1]", "cnn.h Checkpoint" };
        static const char *const says[] = { "its version is 3", "cnn.h/moment1/1 missing (classifier.weight)", "cnn.h/moment2/1 missing (features.0.weight)", "its cnn.h/training is missing or broken",
                                            "its cnn.h/history is missing or broken", "its cnn.h/history is missing or broken", "its cnn.h/training is missing or broken", "its format is cnn.h Checkpoint" };
        static unsigned char file[1 << 16];
        size_t size = read_bytes("c.ckpt", file, sizeof file), at, length = strlen(from[i]);
        for (at = 0; at + length < size && memcmp(file + at, from[i], length); at++) { }
        memcpy(file + at, to[i], length);
        write_bytes("changed.ckpt", file, size);
        other = medium(6);
        untouched = medium(6);
        choose(other, 2, 1);
        CHECK(!cnn_checkpoint_load(other, in_folder("changed.ckpt")) && strstr(said(other), says[i]), "%s: %s", to[i], said(other));
        cnn_clear_error(other);
        CHECK(same_parameters(other, untouched), "%s changed something", to[i]);
        cnn_free(other);
        cnn_free(untouched);
    }
    for (i = 0; i < 7; i++) {                               /* numbers that cannot be */
        static const double wrong[] = { -1, 0.5, 1e300, NAN, HUGE_VAL, -0.1, -HUGE_VAL };
        static unsigned char file[1 << 16];
        size_t size = read_bytes("c.ckpt", file, sizeof file), k;
        double numbers[7] = { 0, 0, 10, 8, 2, 0.003, 0.003 };
        other = medium(6);
        choose(other, 2, 1);
        for (k = size; k-- > 100; ) {                       /* seed high and low stand first in cnn.h/training */
            memcpy(numbers, file + k, 16);
            if (numbers[0] == 0xfedcba98u && numbers[1] == 0x76543210u) break;
        }
        memcpy(file + k + 8 * (size_t)i, &wrong[i], 8);
        write_bytes("changed.ckpt", file, size);
        CHECK(!cnn_checkpoint_load(other, in_folder("changed.ckpt")) && strstr(said(other), "impossible"), "number %d: %s", i, said(other));
        cnn_free(other);
    }
    other = medium(5);                                      /* a loop of one's own, stopped in the middle of an epoch */
    choose(other, 1, 3);
    untouched = medium(7);
    choose(untouched, 1, 3);
    for (i = 0; i < 2; i++) {
        cnn_net *n = i ? untouched : other;
        cnn_loader *loader = cnn_loader_new(data, .batch_size = 8);
        cnn_batch batch;
        for (count = 0; cnn_next(loader, &batch); count++) {
            if (count == 4 && !i) cnn_checkpoint_save(other, in_folder("middle.ckpt"));
            if (count == 4 && i) CHECK(cnn_checkpoint_load(untouched, in_folder("middle.ckpt")), "%s", said(untouched));
            cnn_forward(n, &batch);
            cnn_cross_entropy(n, &batch);
            cnn_zero_grad(n);
            cnn_backward(n);
            cnn_step(n);
            cnn_scheduler_step(n);
        }
        cnn_loader_free(loader);
    }
    CHECK(same_parameters(other, untouched) && cnn_lr(other) == cnn_lr(untouched), "stopped in the middle of an epoch, the run ends with other bits");
    cnn_free(other);
    cnn_free(untouched);
    cnn_free(net);
    cnn_data_free(data);
}

/* Where number i of a tensor of a checkpoint stands. */
static size_t place_of_number(const unsigned char *file, const char *key, size_t i)
{
    char quoted[60];
    const char *at;
    snprintf(quoted, sizeof quoted, "\"cnn.h/%s\":", key);
    at = strstr((const char *)file + 8, quoted);
    at = at ? strstr(at, "data_offsets\":[") : NULL;
    if (!at) { printf("there is no %s\n", key); exit(1); }
    return 8 + (size_t)cnn__little(file, 8) + (size_t)atol(at + 15) + 8 * i;
}

static void rename_in(unsigned char *file, const char *from, const char *to)
{
    char *at = strstr((char *)file + 8, from);
    if (!at) { printf("there is no %s\n", from); exit(1); }
    memcpy(at, to, strlen(to));
}

/* Every number of a checkpoint goes into the network and comes out again; those that cannot be are refused. */
static void test_checkpoint_numbers(void)
{
    static const struct { const char *key; size_t i; double number; const char *words; } changes[] = {
        { "training", 0, 4294967295.0, NULL }, { "training", 0, 4294967296.0, "cnn.h/training has the impossible number" }, { "training", 1, 0, NULL }, { "training", 1, 0.5, "impossible number 0.5" },
        { "training", 2, 77, NULL }, { "training", 2, -1, "impossible number -1" }, { "training", 3, 78, NULL }, { "training", 3, 4294967296.0, "impossible" }, { "training", 4, 2147483647, NULL },
        { "training", 4, 2147483648.0, "cnn.h/training has the impossible number" }, { "training", 5, 0, NULL }, { "training", 5, 1e-300, NULL }, { "training", 5, 3.4028234663852886e38, NULL },
        { "training", 5, 3.5e38, "cnn.h/training has the impossible number" }, { "training", 5, -1e-9, "impossible" }, { "training", 6, 0, NULL }, { "training", 6, 3.4028234663852886e38, NULL },
        { "training", 6, 3.5e38, "impossible" }, { "training", 6, -1, "impossible" },
        { "history", 0, 0, NULL }, { "history", 9, 2147483647, NULL }, { "history", 9, 2147483648.0, "cnn.h/history has the impossible number" }, { "history", 0, 0.5, "impossible" }, { "history", 1, 0.1, NULL },
        { "history", 2, 0.25, NULL }, { "history", 3, -1.1, NULL }, { "history", 13, 0.3, NULL }, { "history", 5, 2147483647, NULL }, { "history", 14, -1, "impossible" }, { "history", 6, 1e300, NULL },
        { "history", 7, -0.7, NULL }, { "history", 17, 0, NULL }, { "history", 8, 1.5, "impossible" },
        { "steps", 0, 4294967295.0, NULL }, { "steps", 4, 1, NULL }, { "steps", 1, 4294967296.0, "cnn.h/steps has the impossible number" }, { "steps", 2, 1.5, "impossible number 1.5" },
        { "scale", 0, -1.5, NULL }, { "scale", 1, 0.125, NULL },
        { "best_epoch", 0, 1, NULL }, { "best_epoch", 0, 3, NULL }, { "best_epoch", 0, 4, "cnn.h/best_epoch has the impossible number 4" }, { "best_epoch", 0, 0, "cnn.h/best_epoch has the impossible number 0" },
    };
    static const struct { const char *from[2], *to[2], *words; } renamed[] = {
        { { "cnn.h/scale", "cnn.h/steps" }, { "cnn.h/steps", "cnn.h/Steps" }, "its cnn.h/steps is missing or broken" },
        { { "cnn.h/steps", "cnn.h/scale" }, { "cnn.h/scale", "cnn.h/Scale" }, "its cnn.h/scale is missing or broken" },
        { { "\"F64\",\"shape\":[1,7]", "\"" }, { "\"I64\",\"shape\":[1,7]", "\"" }, "its cnn.h/training is missing or broken" },
        { { "cnn.h/best/classifier.bias", "\"" }, { "cnn.h/best/classifier.Bias", "\"" }, "does not fit the network: cnn.h/best/1 missing (classifier.bias)" },
        { { "\"shape\":[3,9]", "\"" }, { "\"shape\":[27] ", "\"" }, "its cnn.h/history is missing or broken" },
    };
    static const double whole[] = { 1, 2 };
    static unsigned char file[1 << 16], changed[1 << 16], back[1 << 16], bytes[SAMPLES * 64];
    cnn_data *data;
    cnn_net *net = medium(5);
    size_t size, i;
    for (i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 7919 % 251);
    for (i = 0; i < SAMPLES; i++) labels[i] = (int)i % 3;
    data = cnn_data_new(.count = SAMPLES, .channels = 1, .height = 8, .width = 8, .classes = 3, .bytes = bytes, .labels = labels);
    cnn_manual_seed(net, 0xfedcba9876543210u);
    choose(net, 2, 1);
    CHECK(cnn_fit(net, data, data, .epochs = 3, .batch_size = 16, .keep_best = 1) && cnn_checkpoint_save(net, in_folder("c.ckpt")), "%s", said(net));
    size = read_bytes("c.ckpt", file, sizeof file);
    for (i = 0; i < 2; i++) memcpy(file + place_of_number(file, "scale", i), &whole[i], 8);        /* so that they could be steps */
    for (i = 0; i < sizeof changes / sizeof *changes + sizeof renamed / sizeof *renamed; i++) {
        size_t r = i - sizeof changes / sizeof *changes;
        const char *words = i < sizeof changes / sizeof *changes ? changes[i].words : renamed[r].words;
        cnn_net *other = medium(6);
        choose(other, 2, 1);
        memcpy(changed, file, size);
        if (i < sizeof changes / sizeof *changes) memcpy(changed + place_of_number(changed, changes[i].key, changes[i].i), &changes[i].number, 8);
        else { rename_in(changed, renamed[r].from[1], renamed[r].to[1]); rename_in(changed, renamed[r].from[0], renamed[r].to[0]); }
        write_bytes("changed.ckpt", changed, size);
        if (!words) CHECK(cnn_checkpoint_load(other, in_folder("changed.ckpt")) && cnn_checkpoint_save(other, in_folder("c.ckpt")) && read_bytes("c.ckpt", back, sizeof back) == size && !memcmp(back, changed, size),
                          "%s[%d] = %g does not come back: %s", changes[i].key, (int)changes[i].i, changes[i].number, said(other));
        else CHECK(!cnn_checkpoint_load(other, in_folder("changed.ckpt")) && strstr(said(other), words), "change %d: %s, not %s", (int)i, said(other), words);
        cnn_free(other);
    }
    cnn_free(net);
    cnn_data_free(data);
}

static void test_many_channels(void)                        /* of whose scale a checkpoint has more numbers than an int has bits */
{
    static unsigned char bytes[4 * 40];
    cnn_net *net[2];
    cnn_data *data;
    float x[MOST], y[MOST];
    size_t i;
    for (i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 7919 % 251);
    for (i = 0; i < 4; i++) labels[i] = (int)i % 2;
    data = cnn_data_new(.count = 4, .channels = 40, .height = 1, .width = 1, .classes = 2, .bytes = bytes, .labels = labels);
    for (i = 0; i < 2; i++) {
        net[i] = cnn_new(40, 1, 1);
        cnn_flatten(net[i]);
        cnn_linear(net[i], .out_features = 2);
        cnn_sgd(net[i], .lr = 0.1f);
    }
    CHECK(cnn_fit(net[0], data, NULL, .epochs = 1, .batch_size = 2) && cnn_checkpoint_save(net[0], in_folder("c.ckpt")), "%s", said(net[0]));
    CHECK(cnn_checkpoint_load(net[1], in_folder("c.ckpt")), "%s", said(net[1]));
    CHECK(cnn_predict_bytes(net[0], x, bytes, 4) && cnn_predict_bytes(net[1], y, bytes, 4) && !memcmp(x, y, 8 * sizeof *x), "another scale: %s", said(net[1]));
    cnn_free(net[0]);
    cnn_free(net[1]);
    cnn_data_free(data);
}

/* ---- a backend's memory is reached through upload and download alone ---- */

static void scrambled_upload(void *context, void *to, const void *host, size_t count)
{
    size_t i;
    (void)context;
    for (i = 0; i < count; i++) ((unsigned char *)to)[i] = ((const unsigned char *)host)[i] ^ 0x5a;
}

static void scrambled_zero(void *context, void *memory, size_t count) { (void)context; memset(memory, 0x5a, count); }

static void test_backend(void)
{
    cnn_backend scrambled = *cnn_find_backend("direct");
    static const char *const files[] = { "b.safetensors", "b.pth", "b.ckpt" };
    int i;
    scrambled.name = "scrambled";
    scrambled.upload = scrambled_upload;
    scrambled.download = scrambled_upload;
    scrambled.zero = scrambled_zero;
    for (i = 0; i < 3; i++) {
        cnn_net *far = medium(8), *near = medium(9), *back = medium(10);
        cnn_use_backend(far, &scrambled);
        cnn_use_backend(back, &scrambled);
        choose(far, 2, 2); choose(near, 2, 2); choose(back, 2, 2);
        CHECK(i == 2 ? cnn_checkpoint_save(far, in_folder(files[i])) : cnn_save(far, in_folder(files[i])), "%s", said(far));
        CHECK(i == 2 ? cnn_checkpoint_load(near, in_folder(files[i])) : cnn_load(near, in_folder(files[i])), "%s", said(near));
        CHECK(same_parameters(far, near), "%s: from another memory", files[i]);
        fill(near, 3);
        if (i == 2) cnn_checkpoint_save(near, in_folder(files[i]));
        else cnn_save(near, in_folder(files[i]));
        CHECK(i == 2 ? cnn_checkpoint_load(back, in_folder(files[i])) : cnn_load(back, in_folder(files[i])), "%s", said(back));
        CHECK(same_parameters(near, back), "%s: into another memory", files[i]);
        cnn_free(far);
        cnn_free(near);
        cnn_free(back);
    }
}

/* ---- no memory: whichever allocation fails, there is a sentence, and nothing has changed ---- */

static void test_memory(void)
{
    static const char *const files[] = { "o.safetensors", "o.pth", "o.ckpt" };
    int i, load;
    cnn_data *data = samples();
    cnn_net *source = medium(11);
    choose(source, 2, 0);
    cnn_fit(source, data, NULL, .epochs = 1, .batch_size = 16);
    for (i = 0; i < 3; i++)
        for (load = 0; load < 2; load++) {
            long n, bad = 0;
            int done = 0;
            if (i == 2) cnn_checkpoint_save(source, in_folder(files[i]));
            else cnn_save(source, in_folder(files[i]));
            for (n = 0; !done && n < 500; n++) {
                cnn_net *net = medium(12), *untouched = medium(12);
                choose(net, 2, 0);
                cnn_key(net, 0);                            /* ready before memory runs out */
                cnn_key(untouched, 0);
                allocations_left = n;
                if (load) done = i == 2 ? cnn_checkpoint_load(net, in_folder(files[i])) : cnn_load(net, in_folder(files[i]));
                else done = i == 2 ? cnn_checkpoint_save(net, in_folder(files[i])) : cnn_save(net, in_folder(files[i]));
                if (!done && (!cnn_error(net) || !strstr(said(net), "memory"))) { printf("   %s\n", said(net)); bad++; }
                if (done && allocations_left < 0) { printf("   a failed allocation was not noticed\n"); bad++; }
                allocations_left = -1;
                cnn_clear_error(net);
                if (!same_parameters(net, done && load ? source : untouched)) bad++;
                cnn_free(net);
                cnn_free(untouched);
            }
            CHECK(done && !bad, "%s, %s: %ld of %ld failed allocations", files[i], load ? "load" : "save", bad, n);
        }
    cnn_free(source);
    cnn_data_free(data);
}

/* ---- metadata ---- */

static int read_says(const char *name, const char *key, const char *words)
{
    char value[600] = "untouched";
    int good = !cnn_read_metadata(in_folder(name), key, value, sizeof value) && strstr(value, words) && !strchr(value, '\n');
    if (!good) printf("   %s, \"%s\": %s\n", name, key, value);
    return good;
}

static void test_metadata(void)
{
    static const char *const values[] = { "cat\ndog", "", "quote\" back\\slash /", "\1\b\t\r\x1f\x7f", "\xea\xb3\xa0\xec\x96\x91\xec\x9d\xb4 \xf0\x9f\x90\xb1", "%s %d" };
    char value[600], key[40], *large;
    unsigned char file[2000];
    cnn_net *net = small(), *other = small();
    size_t i, count, plain;
    long n, bad = 0;
    fill(net, 1);
    plain = cnn_save_memory(net, ".safetensors", NULL, 0);
    for (i = 0; i < 6; i++) {
        sprintf(key, "key %d \"\n", (int)i);
        CHECK(cnn_set_metadata(net, key, "another") && cnn_set_metadata(net, key, values[i]), "metadata %d: %s", (int)i, said(net));
    }
    CHECK(cnn_save(net, in_folder("a.safetensors")), "%s", said(net));
    for (i = 0; i < 6; i++) {
        sprintf(key, "key %d \"\n", (int)i);
        CHECK(cnn_read_metadata(in_folder("a.safetensors"), key, value, sizeof value) == 1 && !strcmp(value, values[i]), "value %d is \"%s\"", (int)i, value);
        count = strlen(values[i]) + 1;
        CHECK(cnn_read_metadata(in_folder("a.safetensors"), key, value, count) == 1 && !strcmp(value, values[i]), "value %d in %d bytes", (int)i, (int)count);
        CHECK(!cnn_read_metadata(in_folder("a.safetensors"), key, value, count - 1), "value %d in %d bytes", (int)i, (int)count - 1);
    }
    CHECK(cnn_read_metadata(in_folder("a.safetensors"), "format", value, sizeof value) && !strcmp(value, "pt"), "format is %s", value);

    /* the weights are what they were, and loading takes no metadata over */
    CHECK(cnn_load(other, in_folder("a.safetensors")) && same_parameters(net, other), "%s", said(other));
    CHECK(cnn_save_memory(other, ".safetensors", NULL, 0) == plain, "cnn_load took metadata over");
    CHECK(cnn_checkpoint_save(net, in_folder("a.safetensors")) && cnn_checkpoint_load(other, in_folder("a.safetensors")), "a checkpoint: %s", said(other));
    CHECK(read_says("a.safetensors", "key 0 \"\n", "it has format, optimizer, schedule, version"), "of a checkpoint");

    /* PyTorch's format has no place for it; taken away, everything is as before */
    cnn_save(other, in_folder("a.pth"));
    CHECK(!cnn_save(net, in_folder("a.pth")) && strstr(said(net), "PyTorch's format has no place for metadata (\"key 0"), "%s", said(net));
    cnn_clear_error(net);
    CHECK(!cnn_save_memory(net, ".pth", NULL, 0) && strstr(said(net), "no place for metadata"), "%s", said(net));
    cnn_clear_error(net);
    CHECK(cnn_load(other, in_folder("a.pth")), "the old .pth: %s", said(other));
    for (i = 6; i-- > 0; ) {
        sprintf(key, "key %d \"\n", (int)i);
        CHECK(cnn_set_metadata(net, key, NULL) && cnn_set_metadata(net, key, NULL), "%s", said(net));
    }
    CHECK(cnn_save_memory(net, ".safetensors", NULL, 0) == plain && cnn_save(net, in_folder("a.pth")), "taken away: %s", said(net));

    /* a value of many kilobytes */
    large = (char *)malloc(50001);
    if (!large) exit(1);
    for (i = 0; i < 50000; i++) large[i] = (char)('a' + i % 26);
    large[50000] = 0;
    cnn_set_metadata(net, "large", large);
    cnn_save(net, in_folder("a.safetensors"));
    memset(large, 0, 50001);
    CHECK(cnn_read_metadata(in_folder("a.safetensors"), "large", large, 50001) && strlen(large) == 50000 && large[49999] == 'a' + 49999 % 26, "%.200s", large);
    free(large);
    CHECK(read_says("a.safetensors", "large", "its \"large\" takes 50001 bytes, but there is room for 600"), "too little room");
    CHECK(!cnn_read_metadata(in_folder("a.safetensors"), "large", NULL, 0), "no room at all");
    CHECK(!cnn_read_metadata(in_folder("a.safetensors"), "large", value, 9) && !strncmp(value, in_folder("a.safetensors"), 8) && !value[8], "the message where there is room for 9: %s", value);

    /* what cannot be set */
    CHECK(!cnn_set_metadata(net, "format", "x") && strstr(said(net), "the key \"format\" cannot be set"), "%s", said(net));
    CHECK(!cnn_set_metadata(net, "a", "b"), "set in a network in error");
    cnn_clear_error(net);
    CHECK(!cnn_set_metadata(net, "", "x") && strstr(said(net), "the key \"\" cannot be set"), "%s", said(net));
    cnn_clear_error(net);
    CHECK(!cnn_set_metadata(net, NULL, "x") && strstr(said(net), "cannot be set"), "%s", said(net));
    cnn_clear_error(net);
    CHECK(!cnn_set_metadata(net, "\xff", "x") && strstr(said(net), "is not UTF-8"), "%s", said(net));
    cnn_clear_error(net);
    CHECK(!cnn_set_metadata(net, "x", "\xed\xa0\x80") && strstr(said(net), "the value of \"x\" is not UTF-8"), "%s", said(net));
    cnn_clear_error(net);
    CHECK(!cnn_set_metadata(NULL, "a", "b"), "no network");
    cnn_save(net, in_folder("a.safetensors"));
    CHECK(read_says("a.safetensors", "x", "has no metadata \"x\"; it has format, large"), "what was refused is not written");

    /* what cannot be read */
    CHECK(read_says("nothing.safetensors", "x", "nothing.safetensors: cannot be opened"), "no file");
    CHECK(!cnn_read_metadata(NULL, "x", value, sizeof value) && strstr(value, "cannot be opened"), "no path: %s", value);
    CHECK(!cnn_read_metadata(in_folder("a.safetensors"), NULL, value, sizeof value) && strstr(value, "has no metadata \"\"; it has"), "no key: %s", value);
    CHECK(read_says("a.pth", "x", "it is of PyTorch's format; only .safetensors files"), "a .pth");
    write_bytes("t.safetensors", "<html><body>not found", 21);
    CHECK(read_says("t.safetensors", "x", "is a web page"), "a web page");
    write_bytes("t.safetensors", "\x89PNG\r\n\x1a\n0123456789", 18);
    CHECK(read_says("t.safetensors", "x", "is it a .safetensors file?"), "a picture");
    write_bytes("t.safetensors", "\2\0\0\0\0\0\0\0{}", 10);
    CHECK(read_says("t.safetensors", "x", "has no metadata \"x\"; it has none"), "no metadata");
    cnn_set_metadata(net, "large", NULL);
    cnn_set_metadata(net, "x", "y");
    count = cnn_save_memory(net, ".safetensors", file, sizeof file);
    write_bytes("t.safetensors", file, count - 1);
    CHECK(read_says("t.safetensors", "x", "do not fill the"), "a cut file");

    /* without memory */
    cnn_free(net);
    net = small();
    cnn_set_metadata(net, "x", "y");
    for (n = 0; n < 50; n++) {
        int done;
        cnn_clear_error(net);
        cnn_set_metadata(net, "k", NULL);
        memset(value, 'v', 500);
        value[500] = 0;
        allocations_left = n;
        done = cnn_set_metadata(net, "k", value);
        allocations_left = -1;
        if (done) break;
        if (!strstr(said(net), "out of memory")) bad++;
        cnn_clear_error(net);
        cnn_save(net, in_folder("t.safetensors"));
        if (!cnn_read_metadata(in_folder("t.safetensors"), "x", value, sizeof value) || strcmp(value, "y")
            || cnn_read_metadata(in_folder("t.safetensors"), "k", value, sizeof value)) bad++;
    }
    CHECK(n > 0 && n < 50 && !bad, "%ld of %ld failed allocations", bad, n);
    cnn_save(net, in_folder("t.safetensors"));
    for (n = 0; n < 50; n++) {
        int done;
        allocations_left = n;
        done = cnn_read_metadata(in_folder("t.safetensors"), "x", value, sizeof value);
        allocations_left = -1;
        if (done) break;
        if (!strstr(value, "out of memory")) bad++;
    }
    CHECK(n > 0 && n < 50 && !bad, "reading: %ld of %ld failed allocations", bad, n);
    cnn_free(net);
    cnn_free(other);
}

int main(void)
{
    static const char *const left[] = { "a.safetensors", "a.pth", "a.pt", "n.safetensors", "n.pth", "s.safetensors", "d.safetensors", "p.pth", "t.safetensors", "t.pth", "t.ckpt",
        "m.safetensors", "m.pth", "i.safetensors", "i.pth", "i.ckpt", "c.ckpt", "c.safetensors", "c.pth", "changed.ckpt", "middle.ckpt", "b.safetensors", "b.pth", "b.ckpt",
        "o.safetensors", "o.pth", "o.ckpt", "e.safetensors", "e.pth", "e.ckpt" };
    size_t i;
    folder_make();
    test_round_trips();
    test_layout();
    test_names();
    test_paths();
    test_safetensors_reference();
    test_safetensors();
    test_dtypes();
    test_archives();
    test_archive_numbers();
    test_archive_edges();
    test_strides();
    test_several_dicts();
    test_prefixes();
    test_many_tensors();
    test_open_files();
    test_alignment();
    test_pickles();
    test_torch_files();
    test_cut_torch_files();
    test_contents();
    test_in_memory();
    test_large();
    test_crc();
    test_large_numbers();
    test_damage();
    test_misfits();
    test_no_parameters();
    test_places();
    test_together();
    test_interrupted();
    test_resume();
    test_checkpoint();
    test_checkpoint_numbers();
    test_many_channels();
    test_backend();
    test_memory();
    test_metadata();
    for (i = 0; i < sizeof left / sizeof *left; i++) remove(in_folder(left[i]));
    folder_remove();
    return test_end("file");
}
