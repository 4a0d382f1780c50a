/* test_mma.cu - mma_tf32 and to_tf32 of cnn_cuda.cu, alone: which lane has which values, and how values are rounded.

   Compiled by nvcc it asks a GPU. Compiled through cuda_shim.h it asks the emulation that the other tests rely on. */
#include "../../cnn_cuda.cu"
#include "../test.h"

extern "C" int cnn_register_backend(const cnn_backend *) { return 1; }         /* cnn.h's functions are not needed */

enum { WARPS = THREADS / 32, ROUNDED = 19 };

/* Each warp multiplies its own matrices: d (16,8) += a (16,8) b (8,8). The PTX ISA's words: groupID = lane >> 2,
   threadID_in_group = lane % 4; then row and column of each register as it lists them for this shape. */
static __global__ void multiply(float *d, const float *a, const float *b, int *there)
{
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, group = lane >> 2, in_group = lane % 4;
    unsigned u[4], v[2];
    float sum[4];
    if (threadIdx.x == 0) *there = KNOWS_TF32;
    if (!KNOWS_TF32) return;
    a += warp * 16 * 8;
    b += warp * 8 * 8;
    d += warp * 16 * 8;
    for (int i = 0; i < 4; i++) {
        int row = i == 0 || i == 2 ? group : group + 8, column = i < 2 ? in_group : in_group + 4;
        u[i] = to_tf32(a[row * 8 + column]);
    }
    for (int i = 0; i < 2; i++) v[i] = to_tf32(b[(i == 0 ? in_group : in_group + 4) * 8 + group]);
    for (int i = 0; i < 4; i++) sum[i] = d[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)];
    mma_tf32(sum, u, v);
    for (int i = 0; i < 4; i++) d[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = sum[i];
}

static __global__ void round_all(unsigned *to, const float *x)
{
    if (KNOWS_TF32 && threadIdx.x < ROUNDED) to[threadIdx.x] = to_tf32(x[threadIdx.x]);
}

static void *on_device(cuda_context *c, const void *host, size_t bytes)
{
    void *memory = cuda_alloc(c, bytes);
    cuda_upload(c, memory, host, bytes);
    return memory;
}

static unsigned random_state = 1;

static float whole_number(int most)         /* within most: 11 bits are enough */
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)((int)(random_state >> 8) % (2 * most + 1) - most);
}

/* 0: this card has no such instruction */
static int test_product(cuda_context *c)
{
    static float a[WARPS][16][8], b[WARPS][8][8], before[WARPS][16][8], d[WARPS][16][8];
    int there = -1, bad = 0;
    for (int i = 0; i < WARPS * 16 * 8; i++) (&a[0][0][0])[i] = whole_number(1000);
    for (int i = 0; i < WARPS * 8 * 8; i++) (&b[0][0][0])[i] = whole_number(1000);
    for (int i = 0; i < WARPS * 16 * 8; i++) (&before[0][0][0])[i] = whole_number(1000000);
    float *d_a = (float *)on_device(c, a, sizeof a), *d_b = (float *)on_device(c, b, sizeof b);
    float *d_d = (float *)on_device(c, before, sizeof before);
    int *d_there = (int *)on_device(c, &there, sizeof there);
    LAUNCH(c, multiply, 1, d_d, d_a, d_b, d_there);
    cuda_download(c, d, d_d, sizeof d);
    cuda_download(c, &there, d_there, sizeof there);
    for (int warp = 0; warp < WARPS; warp++)
        for (int row = 0; row < 16; row++)
            for (int column = 0; column < 8; column++) {
                double sum = before[warp][row][column];
                for (int k = 0; k < 8; k++) sum += (double)a[warp][row][k] * b[warp][k][column];
                bad += d[warp][row][column] != sum;
            }
    if (there) CHECK(!bad, "%d of %d values of the products are wrong", bad, WARPS * 16 * 8);
    cuda_free(c, d_a); cuda_free(c, d_b); cuda_free(c, d_d); cuda_free(c, d_there);
    return there;
}

static void test_rounding(cuda_context *c)
{
    static const unsigned cases[ROUNDED][2] = {            /* the last 13 bits go */
        { 0x00000000, 0x00000000 }, { 0x80000000, 0x80000000 }, { 0x3f800000, 0x3f800000 }, { 0x3f802000, 0x3f802000 },
        { 0x3f800fff, 0x3f800000 }, { 0x3f801000, 0x3f802000 }, { 0x3f801001, 0x3f802000 }, { 0x3f803000, 0x3f804000 },
        { 0xbf800fff, 0xbf800000 }, { 0xbf801000, 0xbf802000 }, { 0xbf803000, 0xbf804000 },        /* halves: away from zero */
        { 0x3fffffff, 0x40000000 }, { 0x00800fff, 0x00800000 },
        { 0x7f7fefff, 0x7f7fe000 }, { 0xff7fefff, 0xff7fe000 }, { 0x7f800000, 0x7f800000 }, { 0xff800000, 0xff800000 },
        { 0x7fc00000, 0x7fc00000 }, { 0x7f800001, 0x7fc00000 }                                     /* NaN: any will do */
    };
    unsigned from[ROUNDED], to[ROUNDED];
    for (int i = 0; i < ROUNDED; i++) from[i] = cases[i][0];
    float *d_from = (float *)on_device(c, from, sizeof from);
    unsigned *d_to = (unsigned *)on_device(c, to, sizeof to);
    LAUNCH(c, round_all, 1, d_to, d_from);
    cuda_download(c, to, d_to, sizeof to);
    for (int i = 0; i < ROUNDED; i++) {
        bool is_nan = (to[i] & 0x7fffffffu) > 0x7f800000u;
        CHECK((cases[i][1] & 0x7fffffffu) > 0x7f800000u ? is_nan : to[i] == cases[i][1], "%08x becomes %08x, not %08x", from[i],
              to[i], cases[i][1]);
    }
    cuda_free(c, d_from); cuda_free(c, d_to);
}

int main()
{
    char sentence[256] = "";
    cuda_context *c = (cuda_context *)cuda_open(1, sentence, sizeof sentence);
    CHECK(c, "it does not start: %s", sentence);
    if (c) {
        if (test_product(c)) test_rounding(c);
        else SKIP("this card has no TF32");
        CHECK(!cuda_sync(c), "%s", cuda_sync(c));
        cuda_close(c);
    }
    return test_end("test_mma");
}
