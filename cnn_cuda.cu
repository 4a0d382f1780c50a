/* cnn_cuda.cu - the backend `cuda` of cnn.h: the same table, filled with CUDA kernels.

   Do this:
       nvcc -O3 -arch=native -c cnn_cuda.cu          then link cnn_cuda.o with the program: make CUDA=1 lenet5
       cnn_to(net, "cuda");                          or, for any example: ./lenet5 --backend cuda

   Only nvcc is needed: no cuBLAS, cuDNN, cuRAND or Thrust. Linking this file is enough, because it registers its tables
   with cnn.h before main() begins. There are two:

       cuda_naive   one thread for each value, written as the card in cnn.h: read this first
       cuda         the same, but kernels with tiles in shared memory where most of the time is spent

   The cards are those of cnn.h, section >>textbook, in the same order and with the same names. Each is followed by its
   naive kernel, marked "naive", then by what `cuda` uses. No kernel adds floats with atomics, and no order of sums
   depends on the device: two runs give the same bits. (With TF32 allowed, Turing, which lacks it, gives others.)

   CONTENTS (search for the tag)

       >>launch     contexts, errors, launches, and recorded steps: one graph for each training step
       >>random     Philox4x32-10, the same bits as in cnn.h
       >>product    the matrix product that linear layers and most kinds of convolution share
       >>cards      padding, convolution, activation, pooling, linear, batch normalisation, softmax,
                    dropout, losses, optimizers, gathering
       >>table      the two tables

   All sums are in float32, those of losses and batch normalisation in double. Where cnn_allow_tf32 permits it, `cuda`
   rounds the factors of large convolutions to TF32 and multiplies them on tensor cores. Nothing else uses TF32.

   The same file compiles as C++ for a CPU: g++ -include tests/cuda/cuda_shim.h -x c++ cnn_cuda.cu. So it is tested on
   machines without a GPU, and a debugger can step through it: make cuda-on-cpu lenet5. */
#include "cnn.h"

#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <vector>

#ifndef CUDA_LAUNCH                         /* the only construct that is not C++; tests/cuda/cuda_shim.h has its own */
#define CUDA_LAUNCH(name, kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)
#endif

enum { THREADS = 256 };                     /* in every block */

/* ============================================================================================
   >>launch   Every operation launches kernels on one stream; only download and sync wait for them. The first error is
              kept as one message with the kernel's name, which sync returns. With CNN_CUDA_CHECK=1 in the environment
              every launch is waited for, so that the name is certainly the right one.

              Between step_begin and step_end launches are not run but listed, as bytes. At the end of the list it is
              compared, arguments included, with the lists that were recorded before: if it is equal to one, that
              list's graph replays all launches at once, else a new graph is recorded. So a graph never runs with stale
              arguments. Lists repeat because what changes from step to step, the counters, is in device memory. A list
              ends with its step, or at a copy to or from the device: such a step is two graphs.
   ============================================================================================ */
typedef std::vector<unsigned char> call_list;            /* cuda_call, arguments, cuda_call, arguments, ... */

struct cuda_graph {
    call_list list;
    cudaGraphExec_t run;
};

struct cuda_context {
    cudaStream_t stream;
    char sentence[256];                     /* the first thing that went wrong */
    const char *last;                       /* the kernel launched last */
    bool check;                             /* wait after each kernel */
    bool knows_tf32;                        /* both the device and the compiled code have TF32 */
    double *scratch;                        /* SCRATCH numbers, for operations that get no `work` */
    unsigned char *staging;                 /* uploads are copied here, so that they need not wait for the stream */
    size_t staged;
    bool listing;                           /* between step_begin and step_end */
    call_list list;                         /* launches to come */
    std::vector<cuda_graph> graphs;         /* at most GRAPHS, the oldest first */
};

struct cuda_call {                          /* the bytes of its arguments follow, without gaps */
    const char *name;
    void (*run)(cudaStream_t stream, const char *name, const unsigned char *arguments);
    size_t size;                            /* of the arguments */
};

enum { SCRATCH = 1024, STAGING = 1 << 20, GRAPHS = 8 };

static cuda_context *of(void *context) { return (cuda_context *)context; }

static void note(cuda_context *c, const char *name, cudaError_t error, const char *or_before = "")
{
    if (error == cudaSuccess || c->sentence[0]) return;
    snprintf(c->sentence, sizeof c->sentence, "%s%s: %s", name, or_before, cudaGetErrorString(error));
}

template <class T> static void put(call_list *list, const T &value)
{
    const unsigned char *from = (const unsigned char *)&value;
    list->insert(list->end(), from, from + sizeof value);
}

template <class T> static T take(const unsigned char **from)
{
    T value;
    memcpy((void *)&value, *from, sizeof value);
    *from += sizeof value;
    return value;
}

static void run_calls(cuda_context *c, bool recording)
{
    const unsigned char *at = c->list.data(), *end = at + c->list.size();
    while (at != end && !c->sentence[0]) {
        cuda_call call = take<cuda_call>(&at);
        call.run(c->stream, call.name, at);
        at += call.size;
        c->last = call.name;
        if (c->check) note(c, call.name, cudaStreamSynchronize(c->stream));
        note(c, call.name, cudaGetLastError(), recording ? "" : " or a kernel before it");
    }
}

static void run_or_list(cuda_context *c)    /* for the call at the end of the list */
{
    if (c->listing) return;
    run_calls(c, false);
    c->list.clear();
}

template <class... Parameters>
static void run_kernel(cudaStream_t stream, const char *name, const unsigned char *at)
{
    typedef void (*kernel_of)(Parameters...);
    kernel_of kernel = take<kernel_of>(&at);
    dim3 grid = take<dim3>(&at);
    std::tuple<Parameters...> arguments{ take<Parameters>(&at)... };       /* braces: evaluated from first to last */
    std::apply([=](const Parameters &...each) { CUDA_LAUNCH(name, kernel, grid, THREADS, stream, each...); },
               arguments);
}

/* LAUNCH(context, kernel, grid, arguments...) runs kernel in blocks of THREADS threads */
#define LAUNCH(c, kernel, grid, ...) launch(c, #kernel, kernel, grid, __VA_ARGS__)

template <class... Parameters, class... Arguments>
static void launch(cuda_context *c, const char *name, void (*kernel)(Parameters...), dim3 grid,
                   const Arguments &...arguments)
{
    cuda_call call = { name, run_kernel<Parameters...>, ((sizeof kernel + sizeof grid) + ... + sizeof(Parameters)) };
    put(&c->list, call);
    put(&c->list, kernel);
    put(&c->list, grid);
    (put<Parameters>(&c->list, arguments), ...);
    run_or_list(c);
}

static dim3 threads_for(size_t n) { return dim3((unsigned)((n + THREADS - 1) / THREADS)); }

static __device__ size_t thread_index() { return (size_t)blockIdx.x * THREADS + threadIdx.x; }

static void forget_oldest_graph(cuda_context *c)
{
    cudaStreamSynchronize(c->stream);
    cudaGraphExecDestroy(c->graphs[0].run);
    c->graphs.erase(c->graphs.begin());
}

static void record(cuda_context *c)         /* the list becomes the newest graph */
{
    cudaGraph_t graph;
    cudaGraphExec_t run = NULL;
    cudaError_t error = cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal);
    if (error == cudaSuccess) {
        run_calls(c, true);
        error = cudaStreamEndCapture(c->stream, &graph);
    }
    if (error == cudaSuccess) {
        if (!c->sentence[0]) error = cudaGraphInstantiate(&run, graph, 0);
        cudaGraphDestroy(graph);
    }
    note(c, "recording a step", error);
    if (c->sentence[0]) return;
    if (c->graphs.size() == GRAPHS) forget_oldest_graph(c);
    c->graphs.push_back(cuda_graph{ c->list, run });
}

static void run_list(cuda_context *c)
{
    size_t i = 0;
    if (c->list.empty()) return;
    while (i < c->graphs.size() && c->graphs[i].list != c->list) i++;
    if (i == c->graphs.size() && !c->sentence[0]) {
        record(c);
        i = c->graphs.size() - 1;
    }
    c->list.clear();
    if (c->sentence[0]) return;             /* the results are lost already, and the first error is the cause */
    c->last = "a recorded step";
    note(c, c->last, cudaGraphLaunch(c->graphs[i].run, c->stream));
}

static void cuda_step_begin(void *context)
{
    run_list(of(context));                  /* if the last step did not end */
    of(context)->listing = !of(context)->check;
}

static void cuda_step_end(void *context)
{
    run_list(of(context));
    of(context)->listing = false;
}

static const char *cuda_sync(void *context)
{
    cuda_context *c = of(context);
    run_list(c);
    note(c, c->last, cudaStreamSynchronize(c->stream), " or a kernel before it");
    return c->sentence[0] ? c->sentence : NULL;
}

/* ---- memory ---- */

static void *cuda_alloc(void *, size_t bytes)
{
    void *memory = NULL;
    if (cudaMalloc(&memory, bytes) == cudaSuccess) return memory;
    cudaGetLastError();                     /* clears the error: the caller reports it, it is not a kernel's */
    return NULL;
}

static void cuda_free(void *context, void *memory)
{
    run_list(of(context));
    cudaStreamSynchronize(of(context)->stream);
    cudaFree(memory);
}

static void cuda_upload(void *context, void *to, const void *host, size_t bytes)
{
    cuda_context *c = of(context);
    run_list(c);
    if (bytes > STAGING) {
        note(c, "upload", cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, c->stream));
        note(c, "upload", cudaStreamSynchronize(c->stream));
        return;
    }
    if (c->staged + bytes > STAGING) {      /* full: waits until all has been copied, then starts from the front */
        note(c, "upload", cudaStreamSynchronize(c->stream));
        c->staged = 0;
    }
    memcpy(c->staging + c->staged, host, bytes);
    note(c, "upload", cudaMemcpyAsync(to, c->staging + c->staged, bytes, cudaMemcpyHostToDevice, c->stream));
    c->staged += bytes;
}

static void cuda_download(void *context, void *host, const void *from, size_t bytes)
{
    cuda_context *c = of(context);
    run_list(c);
    note(c, "download", cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, c->stream));
    note(c, c->last, cudaStreamSynchronize(c->stream), " or a kernel before it");
    if (c->sentence[0]) memset(host, 0, bytes);            /* not uninitialised memory */
}

static void run_zero(cudaStream_t stream, const char *, const unsigned char *at)
{
    void *memory = take<void *>(&at);
    cudaMemsetAsync(memory, 0, take<size_t>(&at), stream);
}

static void cuda_zero(void *context, void *memory, size_t bytes)
{
    cuda_context *c = of(context);
    cuda_call call = { "zero", run_zero, sizeof memory + sizeof bytes };
    put(&c->list, call);
    put(&c->list, memory);
    put(&c->list, bytes);
    run_or_list(c);
}

static void cuda_close(void *context)
{
    cuda_context *c = of(context);
    while (!c->graphs.empty()) forget_oldest_graph(c);
    cudaStreamSynchronize(c->stream);
    cudaFree(c->scratch);
    cudaFreeHost(c->staging);
    cudaStreamDestroy(c->stream);
    delete c;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
enum { KNOWS_TF32 = 0 };                    /* Turing: it computes in float32 */
#else
enum { KNOWS_TF32 = 1 };
#endif

static __global__ void try_a_kernel(double *scratch) { scratch[0] = KNOWS_TF32; }

static void *cuda_open(int, char *sentence, size_t room)
{
    cuda_context *c = new cuda_context();
    int devices = 0;
    cudaError_t error = cudaGetDeviceCount(&devices);
    const char *what = "there is no NVIDIA driver or device";
    if (error == cudaSuccess) {
        what = "the device does not start";
        error = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    }
    if (error == cudaSuccess) error = cudaMalloc((void **)&c->scratch, SCRATCH * sizeof(double));
    if (error == cudaSuccess) error = cudaMallocHost((void **)&c->staging, STAGING);
    if (error == cudaSuccess) {
        what = "the device runs no kernel of this program (built for another one? make CUDA=1 CUDA_ARCH=native)";
        c->check = getenv("CNN_CUDA_CHECK") != NULL;
        double answer = 0;
        LAUNCH(c, try_a_kernel, 1, c->scratch);
        cudaMemcpyAsync(&answer, c->scratch, sizeof answer, cudaMemcpyDeviceToHost, c->stream);
        error = cudaStreamSynchronize(c->stream);
        c->knows_tf32 = answer != 0;
    }
    if (error == cudaSuccess && !c->sentence[0]) return c;
    snprintf(sentence, room, "%s; CUDA says: %s", what, c->sentence[0] ? c->sentence : cudaGetErrorString(error));
    if (c->stream) cuda_close(c);
    else delete c;
    return NULL;
}

/* ============================================================================================
   >>random   Philox4x32-10, as in cnn.h: a pure function that returns four random words.
   ============================================================================================ */
static __device__ void random_words(unsigned out[4], uint64_t seed, unsigned stream, uint64_t step, unsigned index)
{
    unsigned c0 = index, c1 = stream, c2 = (unsigned)step, c3 = (unsigned)(step >> 32);
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (unsigned)(p1 >> 32) ^ c1 ^ k0;
        c2 = (unsigned)(p0 >> 32) ^ c3 ^ k1;
        c1 = (unsigned)p1;
        c3 = (unsigned)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}

enum { STREAM_AUGMENT = 0x10004 };          /* cnn.h's CNN__STREAM_AUGMENT; dropout's streams are the layers' numbers */

static __device__ float unit(unsigned word) { return (float)(word >> 8) * (1.0f / 16777216.0f); }      /* [0, 1) */

/* ============================================================================================
   >>product   C(m,n) = sum_k A(m,k) B(k,n), where a `job` defines A, B and C: a matrix in memory, or an image seen as
               the matrix of its windows (an implicit product: that matrix is never written). Linear layers are jobs,
               and so are convolutions of any kernel, stride, dilation and groups; the most common convolutions have
               their own kernels, "square by square" among the cards.

               1. A block of threads computes a tile of M x N results. For TILE_K values of k at a time it copies the
                  values of A and B that it needs into shared memory, where many threads read each of them.
               2. Each thread computes TM x 4 results in registers: it reads TM + 4 values for TM * 4 products.
               3. While a tile is multiplied, the values of the next one are loaded into registers. The parts of their
                  addresses that depend only on the column, or only on the step of TILE_K, are computed once.
               4. Where k is long and the tiles are few, a sum is split among blocks; sum_parts adds the parts in order.
               5. Convolutions with many channels, if TF32 is allowed: the same tiles on tensor cores.
   ============================================================================================ */
enum { TILE_K = 16, ENOUGH_BLOCKS = 256, SHORTEST_SPLIT = 256 };

/* a(m, step, k) and b(column, step, k) are the values of A and B. Finding one in an image takes divisions and checks,
   so what many values share is computed before: `column`, for the columns of B that a thread copies during the whole
   sum (one where its values go along k), and `step`, for TILE_K values of k. step_of(group, column, own): `own` is the
   k of a thread whose values go along k. */
struct product_job {
    int m, n, k;                            /* of one group */
    int groups, splits, share;              /* each split sums `share` values of k */
    bool narrow;                            /* tiles of 32 x 32, as there are at most 32 columns */

    typedef int column;                     /* of a matrix in memory: nothing to compute */
    struct step {};
    __device__ column column_of(int, int n_) const { return n_; }
    __device__ step step_of(int, const column &, int) const { return step(); }
};

/* n / d for 0 <= n < 2^31 by one multiplication (Granlund, Montgomery 1994): GPUs have no instruction for division */
struct divider { unsigned d, factor, shift; };

static divider divide_by(int d)
{
    divider by = { (unsigned)d, 0, 0 };
    while ((uint64_t)1 << by.shift < (uint64_t)d) by.shift++;
    by.factor = (unsigned)((((uint64_t)1 << 32) * (((uint64_t)1 << by.shift) - (uint64_t)d)) / (uint64_t)d + 1);
    return by;
}

static __device__ int divided(int n, divider by, int *rest)
{
    unsigned q = (__umulhi((unsigned)n, by.factor) + (unsigned)n) >> by.shift;
    *rest = n - (int)(q * by.d);
    return (int)q;
}

/* Which value of a tile of `size` x TILE_K a thread copies in its i-th turn: neighbouring threads copy neighbours in
   memory */
template <int size, bool along_k> static __device__ __forceinline__ void place(int i, int *at, int *k)
{
    int t = (int)threadIdx.x;
    *at = along_k ? t / TILE_K + i * (THREADS / TILE_K) : t % size;
    *k = along_k ? t % TILE_K : t / size + i * (THREADS / size);
}

/* Stores four neighbouring results of a row; a job may have its own */
template <class Job>
static __device__ __forceinline__ void store_four(const Job &job, int group, int split, int m, int n, const float *sum)
{
#pragma unroll
    for (int i = 0; i < 4; i++) if (n + i < job.n) job.store(group, split, m, n + i, sum[i]);
}

template <int N, class Job>
static __device__ __forceinline__ void find_columns(const Job &job, int group, int left, typename Job::column *columns)
{
    int at, k;
#pragma unroll
    for (int i = 0; i < (Job::b_along_k ? N * TILE_K / THREADS : 1); i++) {
        place<N, Job::b_along_k>(i, &at, &k);
        columns[i] = job.column_of(group, left + at);
    }
}

/* Loads the thread's values of the next tile, zeros beyond the matrices' end */
template <int M, int N, class Job>
static __device__ __forceinline__ void fetch(const Job &job, int group, const typename Job::column *columns, int top,
                                             int left, int from, int end, float *a, float *b)
{
    int at, k;
    const typename Job::step step = job.step_of(group, columns[0], from + (int)threadIdx.x % TILE_K);
#pragma unroll
    for (int i = 0; i < M * TILE_K / THREADS; i++) {
        place<M, Job::a_along_k>(i, &at, &k);
        a[i] = top + at < job.m && from + k < end ? job.a(top + at, step, from + k) : 0;
    }
#pragma unroll
    for (int i = 0; i < N * TILE_K / THREADS; i++) {
        place<N, Job::b_along_k>(i, &at, &k);
        b[i] = left + at < job.n && from + k < end ? job.b(columns[Job::b_along_k ? i : 0], step, from + k) : 0;
    }
}

template <int M, int N, int TM, class Job>
static __device__ __forceinline__ void product(const Job &job, float (*a)[M + 4], float (*b)[N + 4])
{
    int group = (int)blockIdx.z / job.splits, split = (int)blockIdx.z % job.splits;
    int top = (int)blockIdx.y * M, left = (int)blockIdx.x * N;
    int row = (int)threadIdx.x / (N / 4) * TM, column = (int)threadIdx.x % (N / 4) * 4;
    int begin = split * job.share, end = min(begin + job.share, job.k), at, k;
    float sum[TM][4] = {}, next_a[M * TILE_K / THREADS], next_b[N * TILE_K / THREADS];
    typename Job::column columns[N * TILE_K / THREADS];
    find_columns<N>(job, group, left, columns);
    fetch<M, N>(job, group, columns, top, left, begin, end, next_a, next_b);
    for (int from = begin; from < end; from += TILE_K) {
#pragma unroll
        for (int i = 0; i < M * TILE_K / THREADS; i++) { place<M, Job::a_along_k>(i, &at, &k); a[k][at] = next_a[i]; }
#pragma unroll
        for (int i = 0; i < N * TILE_K / THREADS; i++) { place<N, Job::b_along_k>(i, &at, &k); b[k][at] = next_b[i]; }
        __syncthreads();                    /* the tile is there */
        if (from + TILE_K < end) fetch<M, N>(job, group, columns, top, left, from + TILE_K, end, next_a, next_b);
#pragma unroll
        for (k = 0; k < TILE_K; k++) {
            float u[TM], v[4];
            for (int i = 0; i < TM; i++) u[i] = a[k][row + i];
            for (int j = 0; j < 4; j++) v[j] = b[k][column + j];
            for (int i = 0; i < TM; i++)
                for (int j = 0; j < 4; j++) sum[i][j] += u[i] * v[j];
        }
        __syncthreads();                    /* nobody reads it any more */
    }
#pragma unroll
    for (int i = 0; i < TM; i++)
        if (top + row + i < job.m) store_four(job, group, split, top + row + i, left + column, sum[i]);
}

/* ---- the same in TF32, on tensor cores ----

   TF32 is float32 with 10 bits of mantissa in place of 23: each factor has a relative error of up to 2^-11. Products
   and sums stay float32. A warp multiplies 16 x 8 by 8 x 8 values with one instruction; each lane holds some values of
   the three matrices. */

#ifndef CUDA_MMA_TF32                       /* PTX is not C++; tests/cuda/cuda_shim.h has its own, lane by lane */
#define CUDA_TO_TF32(to, x) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(to) : "f"(x))
#define CUDA_MMA_TF32(d, a, b)                                                                                   \
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "                                           \
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                         \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#endif

static __device__ __forceinline__ unsigned to_tf32(float x)            /* to the nearest, halves away from zero */
{
    unsigned bits;
    CUDA_TO_TF32(bits, x);
    return bits;
}

static __device__ __forceinline__ float float_of(unsigned bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
static __device__ __forceinline__ unsigned bits_of(float x) { unsigned bits; memcpy(&bits, &x, sizeof x); return bits; }

template <bool tf32>
static __device__ __forceinline__ float as_factor(float x) { return tf32 ? float_of(to_tf32(x)) : x; }

/* D(16,8) += A(16,8) B(8,8), by a whole warp. Of the PTX ISA, with lane = 4 g + t:
       a[i] = A(g + 8 (i % 2), t + 4 (i / 2))      b[i] = B(t + 4 i, g)      d[i] = D(g + 8 (i / 2), 2 t + i % 2) */
static __device__ __forceinline__ void mma_tf32(float d[4], const unsigned a[4], const unsigned b[2])
{
    CUDA_MMA_TF32(d, a, b);
}

/* Where in shared memory a tile has its value (at, k). A warp reads 8 of `at` times 4 of k at once, and as 20 at + k or
   8 k + at they lie in 32 different banks. */
template <int size, bool along_k> static __device__ __forceinline__ int spot(int at, int k)
{
    return along_k ? at * (TILE_K + 4) + k : k * (size + 8) + at;
}

static __device__ constexpr int spots(int size, bool along_k)
{
    return along_k ? size * (TILE_K + 4) : TILE_K * (size + 8);
}

/* A lane has columns 2 t and 2 t + 1 of each D, but a job needs four in a row (a window of pooling). So of 16 columns,
   those two of D 0 and those two of D 1 are the columns 4 t ... 4 t + 3: column 4 t + 2 j + e of the tile is column
   2 t + e of D j. */
static __device__ __forceinline__ int column_of_d(int column)
{
    return column / 16 * 16 + column % 4 / 2 * 8 + column % 16 / 4 * 2 + column % 2;
}

/* The 8 warps lie side by side, each with 16 columns of up to 32 rows. */
template <int M, int N, class Job>
static __device__ __forceinline__ void product_tf32(const Job &job, unsigned *a, unsigned *b)
{
    enum { ROWS = M < 32 ? 1 : 2, ACROSS = N / 16 };       /* of D in a warp; warps next to each other */
    int group = (int)blockIdx.z / job.splits, split = (int)blockIdx.z % job.splits;
    int top = (int)blockIdx.y * M, left = (int)blockIdx.x * N;
    int warp = (int)threadIdx.x / 32, g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    int row = warp / ACROSS * 16 * ROWS + g, column = warp % ACROSS * 16;
    int begin = split * job.share, end = min(begin + job.share, job.k), at, k;
    float sum[ROWS][2][4] = {}, next_a[M * TILE_K / THREADS], next_b[N * TILE_K / THREADS];
    typename Job::column columns[N * TILE_K / THREADS];
    find_columns<N>(job, group, left, columns);
    fetch<M, N>(job, group, columns, top, left, begin, end, next_a, next_b);
    for (int from = begin; from < end; from += TILE_K) {
#pragma unroll
        for (int i = 0; i < M * TILE_K / THREADS; i++) {
            place<M, Job::a_along_k>(i, &at, &k);
            a[spot<M, Job::a_along_k>(at, k)] = to_tf32(next_a[i]);
        }
#pragma unroll
        for (int i = 0; i < N * TILE_K / THREADS; i++) {
            place<N, Job::b_along_k>(i, &at, &k);
            b[spot<N, Job::b_along_k>(column_of_d(at), k)] = to_tf32(next_b[i]);
        }
        __syncthreads();                    /* the tile is there, rounded */
        if (from + TILE_K < end) fetch<M, N>(job, group, columns, top, left, from + TILE_K, end, next_a, next_b);
#pragma unroll
        for (k = 0; k < TILE_K; k += 8) {
            unsigned u[ROWS][4], v[2][2];
            for (int i = 0; i < ROWS; i++)
                for (int r = 0; r < 4; r++)
                    u[i][r] = a[spot<M, Job::a_along_k>(row + 16 * i + 8 * (r % 2), k + t + 4 * (r / 2))];
            for (int j = 0; j < 2; j++)
                for (int r = 0; r < 2; r++) v[j][r] = b[spot<N, Job::b_along_k>(column + 8 * j + g, k + t + 4 * r)];
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < 2; j++) mma_tf32(sum[i][j], u[i], v[j]);
        }
        __syncthreads();                    /* no warp reads it any more */
    }
#pragma unroll
    for (int i = 0; i < 2 * ROWS; i++) {    /* rows g and g + 8 of each D */
        int m = top + row + 8 * i, d = i % 2 * 2;
        const float four[4] = { sum[i / 2][0][d], sum[i / 2][0][d + 1], sum[i / 2][1][d], sum[i / 2][1][d + 1] };
        if (m < job.m) store_four(job, group, split, m, left + column + 4 * t, four);
    }
}

#define PRODUCT_KERNEL(name, Job, M, N, TM)                                       \
    static __global__ void __launch_bounds__(THREADS, 2) name(Job job)            \
    {                                                                             \
        __shared__ float a[TILE_K][M + 4], b[TILE_K][N + 4];                      \
        product<M, N, TM>(job, a, b);                                             \
    }

#define PRODUCT_KERNEL_TF32(name, Job, M, N)                                      \
    static __global__ void __launch_bounds__(THREADS, 2) name(Job job)            \
    {                                                                             \
        __shared__ unsigned a[spots(M, Job::a_along_k)], b[spots(N, Job::b_along_k)];      \
        if (KNOWS_TF32) product_tf32<M, N>(job, a, b);                            \
    }

/* Three shapes of tile, for products with up to 16, up to 32, and more rows */
#define PRODUCT_KERNELS(name, Job)                                                \
    PRODUCT_KERNEL(name##_16x128, Job, 16, 128, 2)                                \
    PRODUCT_KERNEL(name##_32x128, Job, 32, 128, 4)                                \
    PRODUCT_KERNEL(name##_64x64, Job, 64, 64, 4)

#define PRODUCT_KERNELS_TF32(name, Job)                                           \
    PRODUCT_KERNEL_TF32(name##_16x128, Job, 16, 128)                              \
    PRODUCT_KERNEL_TF32(name##_32x128, Job, 32, 128)                              \
    PRODUCT_KERNEL_TF32(name##_64x64, Job, 64, 64)

#define LAUNCH_PRODUCT(c, name, job)                                              \
    do {                                                                          \
        if ((job).m <= 16) LAUNCH(c, name##_16x128, tiles(job), job);             \
        else if ((job).m <= 32) LAUNCH(c, name##_32x128, tiles(job), job);        \
        else LAUNCH(c, name##_64x64, tiles(job), job);                            \
    } while (0)

static dim3 tiles(const product_job &job)
{
    int tile_m = job.narrow ? 32 : job.m <= 16 ? 16 : job.m <= 32 ? 32 : 64;
    int tile_n = job.narrow ? 32 : job.m <= 32 ? 128 : 64;
    return dim3((unsigned)((job.n + tile_n - 1) / tile_n), (unsigned)((job.m + tile_m - 1) / tile_m),
                (unsigned)(job.groups * job.splits));
}

/* The sizes alone decide, not the device, so that the order of a sum, and every bit of it, is the same everywhere. */
static void split(product_job *job)
{
    dim3 grid;
    job->splits = 1;
    job->share = job->k;
    grid = tiles(*job);
    size_t blocks = (size_t)grid.x * grid.y * grid.z;
    int most = (job->k + SHORTEST_SPLIT - 1) / SHORTEST_SPLIT;
    if (blocks >= ENOUGH_BLOCKS || most < 2) return;
    job->splits = (int)((ENOUGH_BLOCKS + blocks - 1) / blocks);
    if (job->splits > most) job->splits = most;
    job->share = (job->k + job->splits - 1) / job->splits;
    job->splits = (job->k + job->share - 1) / job->share;
}

static size_t product_parts(const product_job &job) { return (size_t)job.splits * job.groups * job.m * job.n; }

/* One thread for each value: adds its parts, in order of k */
static __device__ float sum_parts(const float *parts, size_t i, size_t count, int splits)
{
    float sum = 0;
    for (int split = 0; split < splits; split++) sum += parts[split * count + i];
    return sum;
}

static __global__ void add_parts(float *y, const float *parts, size_t count, int splits)
{
    size_t at = thread_index();
    if (at < count) y[at] = sum_parts(parts, at, count, splits);
}

/* The sum of a block's values, for all its threads: halves are added until one is left, always in the same order */
static __device__ double block_sum(double value, double *shared)
{
    shared[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    value = shared[0];
    __syncthreads();                        /* before shared is used again */
    return value;
}

/* value `at` of channel c, counted through all samples; s: a shape with channels and pixels */
template <class Shape> static __device__ size_t channel_place(const Shape &s, int c, size_t at)
{
    return (at / s.pixels * s.channels + c) * s.pixels + at % s.pixels;
}

/* ============================================================================================
   >>cards   In the order of cnn.h, which has the equations and the shapes.
   ============================================================================================ */

/* --------------------------------------------------------------------------------------------
   Padding: which value of z(0) ... z(n-1) is at place i, or -1 for a zero.
   -------------------------------------------------------------------------------------------- */
static __device__ int border(int i, int n, cnn_padding_mode mode)
{
    if ((unsigned)i < (unsigned)n) return i;
    switch (mode) {
    case CNN_REPLICATE: return i < 0 ? 0 : n - 1;
    case CNN_REFLECT:   return i < 0 ? -i : 2 * (n - 1) - i;
    case CNN_CIRCULAR:  return i < 0 ? i + n : i - n;
    default:            return -1;
    }
}

/* --------------------------------------------------------------------------------------------
   Activation (6.3): y = tau(x), and tau' written with y. GELU, whose slope needs x, is never fused.
   -------------------------------------------------------------------------------------------- */
static __device__ float activation_at(cnn_activation tau, float slope, float x)
{
    switch (tau) {
    case CNN_RELU:       return x <= 0 ? 0 : x;            /* NaN stays NaN */
    case CNN_LEAKY_RELU: return x <= 0 ? slope * x : x;
    case CNN_SIGMOID:    return 1 / (1 + expf(-x));
    case CNN_TANH:       return tanhf(x);
    default:             return x;
    }
}

static __device__ float activation_slope(cnn_activation tau, float slope, float y)
{
    switch (tau) {
    case CNN_RELU:       return y > 0 ? 1.0f : 0.0f;
    case CNN_LEAKY_RELU: return y > 0 ? 1.0f : slope;
    case CNN_SIGMOID:    return y * (1 - y);
    case CNN_TANH:       return 1 - y * y;
    default:             return 1;
    }
}

static __global__ void activation_forward(cnn_activation tau, float slope, float *y, const float *x, size_t n)
{
    size_t i = thread_index();
    if (i < n) y[i] = activation_at(tau, slope, x[i]);
}

static __global__ void activation_backward(cnn_activation tau, float slope, float *dx, const float *dy, const float *y,
                                           size_t n)
{
    size_t i = thread_index();
    if (i < n) dx[i] = dy[i] * activation_slope(tau, slope, y[i]);
}

static __device__ float normal(float x) { return erfcf(-x * 0.70710678f) / 2; }    /* (1 + erf(x / sqrt 2)) / 2 */

static __global__ void gelu_forward(float *y, const float *x, size_t n)
{
    size_t i = thread_index();
    if (i < n) y[i] = x[i] * normal(x[i]);
}

static __global__ void gelu_backward(float *dx, const float *dy, const float *x, size_t n)
{
    size_t i = thread_index();
    if (i < n) dx[i] = dy[i] * (normal(x[i]) + x[i] * expf(-x[i] * x[i] / 2) * 0.39894228f);
}

/* --------------------------------------------------------------------------------------------
   PReLU: y = x > 0 ? x : a(c) x; da(c) += sum x dy where x <= 0, one block a channel.
   -------------------------------------------------------------------------------------------- */
static __global__ void prelu_forward(cnn_map_shape s, float *y, const float *x, const float *a)
{
    size_t i = thread_index();
    if (i < (size_t)s.batch * s.channels * s.pixels) y[i] = x[i] > 0 ? x[i] : a[i / s.pixels % s.channels] * x[i];
}

static __global__ void prelu_dx(cnn_map_shape s, float *dx, const float *dy, const float *x, const float *a)
{
    size_t i = thread_index();
    if (i < (size_t)s.batch * s.channels * s.pixels) dx[i] = x[i] > 0 ? dy[i] : a[i / s.pixels % s.channels] * dy[i];
}

static __global__ void prelu_da(cnn_map_shape s, float *da, const float *dy, const float *x)
{
    __shared__ double shared[THREADS];
    size_t m = (size_t)s.batch * s.pixels;
    double sum = 0;
    for (size_t i = threadIdx.x; i < m; i += THREADS) {
        size_t at = channel_place(s, (int)blockIdx.x, i);
        if (!(x[at] > 0)) sum += (double)x[at] * dy[at];
    }
    sum = block_sum(sum, shared);
    if (!threadIdx.x) da[blockIdx.x] += (float)sum;
}

/* --------------------------------------------------------------------------------------------
   Joins: one thread a value.
   -------------------------------------------------------------------------------------------- */
static __global__ void sum_of(float *y, const float *a, const float *b, size_t n)
{
    size_t i = thread_index();
    if (i < n) y[i] = a[i] + b[i];
}

static __global__ void copy_channels(cnn_copy_shape s, float *to, const float *from)
{
    size_t i = thread_index(), part = (size_t)s.channels * s.pixels, n = i / part, at = i % part;
    if (n >= (size_t)s.batch) return;
    to[(n * s.to_channels + s.to_first) * s.pixels + at] = from[(n * s.from_channels + s.from_first) * s.pixels + at];
}

/* --------------------------------------------------------------------------------------------
   Zero padding: one thread for each value that is written.
   -------------------------------------------------------------------------------------------- */
static __global__ void pad2d(cnn_pad2d_shape s, float *to, const float *from)
{
    size_t at = thread_index(), pixels = (size_t)s.out_height * s.out_width;
    if (at >= (size_t)s.batch * s.channels * pixels) return;
    int j = (int)(at % pixels) / s.out_width - s.top, i = (int)(at % pixels) % s.out_width - s.left;
    bool inside = j >= 0 && j < s.in_height && i >= 0 && i < s.in_width;
    to[at] = inside ? from[(at / pixels * s.in_height + j) * s.in_width + i] : 0;
}

/* --------------------------------------------------------------------------------------------
   Pooling (figure 6-8): forward, one thread for each window.
   -------------------------------------------------------------------------------------------- */
struct window { int top, bottom, left, right, count; };    /* rows top .. bottom-1 */

static __device__ window pool2d_window(const cnn_pool2d_shape &s, int j, int i)
{
    window w;
    if (s.adaptive) {
        w.top = (int)((int64_t)j * s.in_height / s.out_height);
        w.left = (int)((int64_t)i * s.in_width / s.out_width);
        w.bottom = (int)((((int64_t)j + 1) * s.in_height + s.out_height - 1) / s.out_height);
        w.right = (int)((((int64_t)i + 1) * s.in_width + s.out_width - 1) / s.out_width);
        w.count = (w.bottom - w.top) * (w.right - w.left);
        return w;
    }
    w.top = j * s.stride_height - s.pad_height;
    w.left = i * s.stride_width - s.pad_width;
    w.bottom = w.top + min(s.kernel_height, s.in_height + s.pad_height - w.top);
    w.right = w.left + min(s.kernel_width, s.in_width + s.pad_width - w.left);
    w.count = (w.bottom - w.top) * (w.right - w.left);
    w.top = max(w.top, 0);
    w.left = max(w.left, 0);
    w.bottom = min(w.bottom, s.in_height);
    w.right = min(w.right, s.in_width);
    if (s.exclude_padding) w.count = (w.bottom - w.top) * (w.right - w.left);
    return w;
}

static __device__ int pool2d_winner(const cnn_pool2d_shape &s, const float *map, window w)
{
    int winner = w.top * s.in_width + w.left;
    for (int row = w.top; row < w.bottom; row++)
        for (int column = w.left; column < w.right; column++) {
            int at = row * s.in_width + column;
            if (map[at] > map[winner] || map[at] != map[at]) winner = at;      /* a NaN wins */
        }
    return winner;
}

/* index NULL: not wanted */
static __global__ void pool2d_forward(cnn_pool2d_shape s, float *y, unsigned char *index, const float *x)
{
    size_t at = thread_index(), windows = (size_t)s.out_height * s.out_width;
    if (at >= (size_t)s.batch * s.channels * windows) return;
    int j = (int)(at % windows) / s.out_width, i = (int)(at % windows) % s.out_width;
    const float *map = x + at / windows * s.in_height * s.in_width;
    window w = pool2d_window(s, j, i);
    if (s.average) {
        float sum = 0;
        for (int row = w.top; row < w.bottom; row++)
            for (int column = w.left; column < w.right; column++) sum += map[row * s.in_width + column];
        y[at] = sum / (float)w.count;
        return;
    }
    int winner = pool2d_winner(s, map, w);
    y[at] = map[winner];
    if (!index) return;
    int row = winner / s.in_width - (j * s.stride_height - s.pad_height);
    int column = winner % s.in_width - (i * s.stride_width - s.pad_width);
    index[at] = (unsigned char)(row * s.kernel_width + column);
}

static __device__ void pool2d_backward_window(const cnn_pool2d_shape &s, float *dx, float dy, const float *map, int j,
                                              int i)
{
    window w = pool2d_window(s, j, i);
    if (!s.average) { dx[pool2d_winner(s, map, w)] += dy; return; }
    for (int row = w.top; row < w.bottom; row++)
        for (int column = w.left; column < w.right; column++) dx[row * s.in_width + column] += dy / (float)w.count;
}

/* naive: one thread for each map, as windows may overlap */
static __global__ void pool2d_backward_naive(cnn_pool2d_shape s, float *dx, const float *dy, const float *x)
{
    size_t map = thread_index(), pixels = (size_t)s.in_height * s.in_width;
    if (map >= (size_t)s.batch * s.channels) return;
    dx += map * pixels;
    x += map * pixels;
    dy += map * s.out_height * s.out_width;
    for (size_t i = 0; i < pixels; i++) dx[i] = 0;
    for (int j = 0; j < s.out_height; j++)
        for (int i = 0; i < s.out_width; i++) pool2d_backward_window(s, dx, *dy++, x, j, i);
}

/* One block for each map. Windows that are `apart` windows from each other share no pixel: their gradients are added at
   the same time, one thread for each. */
static __global__ void __launch_bounds__(THREADS)
pool2d_backward(cnn_pool2d_shape s, float *dx, const float *dy, const float *x)
{
    size_t pixels = (size_t)s.in_height * s.in_width;
    int apart_down = min((s.kernel_height - 1) / s.stride_height + 1, s.out_height);
    int apart_right = min((s.kernel_width - 1) / s.stride_width + 1, s.out_width);
    dx += blockIdx.x * pixels;
    x += blockIdx.x * pixels;
    dy += (size_t)blockIdx.x * s.out_height * s.out_width;
    for (size_t i = threadIdx.x; i < pixels; i += THREADS) dx[i] = 0;
    for (int down = 0; down < apart_down; down++)
        for (int right = 0; right < apart_right; right++) {
            int rows = (s.out_height - down + apart_down - 1) / apart_down;
            int columns = (s.out_width - right + apart_right - 1) / apart_right;
            __syncthreads();
            for (int t = (int)threadIdx.x; t < rows * columns; t += THREADS) {
                int j = down + t / columns * apart_down, i = right + t % columns * apart_right;
                pool2d_backward_window(s, dx, dy[j * s.out_width + i], x, j, i);
            }
        }
}

/* --------------------------------------------------------------------------------------------
   Convolution (6.1), (6.2):
       f(n,k,j,i)   = b(k) + sum_c sum_y sum_x z(n, c, s j + d y - p, s i + d x - p) u(k,c,y,x)
       db(k)       += sum_n sum_j sum_i df(n,k,j,i)
       du(k,c,y,x) += sum_n sum_j sum_i df(n,k,j,i) z(n, c, s j + d y - p, s i + d x - p)
       dz(n, c, s j + d y - p, s i + d x - p) += df(n,k,j,i) u(k,c,y,x)    for all n,k,j,i,c,y,x
   -------------------------------------------------------------------------------------------- */

/* naive: one thread for each value of f, the maps before pooling */
static __global__ void conv2d_forward_naive(cnn_conv2d_shape s, float *f, const float *z, const float *u,
                                            const float *b)
{
    size_t at = thread_index(), pixels = (size_t)s.out_height * s.out_width;
    if (at >= (size_t)s.batch * s.out_channels * pixels) return;
    int i = (int)(at % pixels) % s.out_width, j = (int)(at % pixels) / s.out_width;
    int k = (int)(at / pixels % s.out_channels), n = (int)(at / pixels / s.out_channels);
    int depth = s.in_channels / s.groups, first = k / (s.out_channels / s.groups) * depth;
    float sum = b ? b[k] : 0;
    for (int c = 0; c < depth; c++)
        for (int y = 0; y < s.kernel_height; y++)
            for (int x = 0; x < s.kernel_width; x++) {
                int row = border(j * s.stride_height + y * s.dilation_height - s.pad_top, s.in_height, s.padding_mode);
                int column = border(i * s.stride_width + x * s.dilation_width - s.pad_left, s.in_width, s.padding_mode);
                if (row < 0 || column < 0) continue;
                sum += z[(((size_t)n * s.in_channels + first + c) * s.in_height + row) * s.in_width + column]
                     * u[(((size_t)k * depth + c) * s.kernel_height + y) * s.kernel_width + x];
            }
    f[at] = sum;
}

/* What the jobs of forward and dz have in common: k is (channel, tap) */
struct conv2d_job : product_job {
    cnn_conv2d_shape s;
    int channels;                           /* summed in each group */
    divider taps, kernel_width;
    size_t plane;                           /* values of a channel of the image */

    struct column { const float *image; int j, i; };       /* the place of tap (0, 0); NULL: only zeros */
    struct step { const float *weights; };                 /* those of the thread's k */

    static const bool a_along_k = true, b_along_k = false;
};

template <class Job>
static __device__ __forceinline__ float conv2d_b(const Job &job, const conv2d_job::column &column, int k)
{
    int tap, c = divided(k, job.taps, &tap);
    const float *first = job.under(column, tap);
    return first ? first[c * job.plane] : 0;
}

static void count_k(conv2d_job *job, int channels)
{
    job->k = channels * job->s.kernel_height * job->s.kernel_width;
    job->channels = channels;
    job->taps = divide_by(job->s.kernel_height * job->s.kernel_width);
    job->kernel_width = divide_by(job->s.kernel_width);
    job->splits = 1;
    job->share = job->k;
}

/* As a product, for each group:  rows m: its maps k;  columns n: all pixels of the batch;  k: (c, y, x).
   If `pooled`, four columns in a row are the four pixels of one 2 x 2 window, so that one thread has them all. */
struct conv2d_forward_job : conv2d_job {
    bool pooled;
    divider pixels, width;                  /* of the map that is written */
    float *y;
    unsigned char *index;
    const float *z, *u, *bias;

    __device__ int image(int n, int *j, int *i) const      /* -1 where a window reaches beyond the map */
    {
        int rest, place = n % 4, image = divided(pooled ? n / 4 : n, pixels, &rest);
        *j = divided(rest, width, i);
        if (!pooled) return image;
        *j = 2 * *j - s.pool.pad_height + place / 2;
        *i = 2 * *i - s.pool.pad_width + place % 2;
        return *j >= 0 && *j < s.out_height && *i >= 0 && *i < s.out_width ? image : -1;
    }

    __device__ column column_of(int group, int n_) const               /* a pixel: the corner of its window */
    {
        int j, i, img = image(n_, &j, &i);
        const float *first = img < 0 ? NULL : z + ((size_t)img * s.in_channels + group * channels) * plane;
        return { first, j * s.stride_height - s.pad_top, i * s.stride_width - s.pad_left };
    }

    __device__ const float *under(const column &pixel, int tap) const
    {
        int x, y_ = divided(tap, kernel_width, &x);
        int row = border(pixel.j + y_ * s.dilation_height, s.in_height, s.padding_mode);
        int column = border(pixel.i + x * s.dilation_width, s.in_width, s.padding_mode);
        return pixel.image && row >= 0 && column >= 0 ? pixel.image + (size_t)row * s.in_width + column : NULL;
    }

    __device__ step step_of(int group, const column &, int own) const { return { u + (size_t)group * m * k + own }; }
    __device__ float a(int m_, const step &at, int) const { return at.weights[(size_t)m_ * k]; }
    __device__ float b(const column &pixel, const step &, int k_) const { return conv2d_b(*this, pixel, k_); }

    __device__ void store(int group, int, int m_, int n_, float sum) const
    {
        int map = group * m + m_, rest, img = divided(n_, pixels, &rest);
        size_t at = ((size_t)img * s.out_channels + map) * pixels.d + rest;
        y[at] = activation_at(s.activation, s.slope, sum + (bias ? bias[map] : 0));
    }

    __device__ void store_window(int group, int m_, int n_, const float *sum) const
    {
        int map = group * m + m_, rest, j, i, winner = -1, img = divided(n_ / 4, pixels, &rest);
        size_t at = ((size_t)img * s.out_channels + map) * pixels.d + rest;
        float largest = 0;
#pragma unroll
        for (int place = 0; place < 4; place++) {
            float f = activation_at(s.activation, s.slope, sum[place] + (bias ? bias[map] : 0));
            if (image(n_ + place, &j, &i) < 0 || (winner >= 0 && !(f > largest || f != f))) continue;
            winner = place;
            largest = f;
        }
        y[at] = largest;
        if (index) index[at] = (unsigned char)winner;
    }

    /* Without groups: 2 x 2 pixels from (j, i) on, one window if pooled */
    __device__ void store_patch(int img, int map, int j, int i, const float *sum) const
    {
        if (pooled) {
            int row = (j + s.pool.pad_height) / 2, column = (i + s.pool.pad_width) / 2;
            if (row < s.pool.out_height && column < s.pool.out_width)
                store_window(0, map, 4 * ((img * s.pool.out_height + row) * s.pool.out_width + column), sum);
            return;
        }
#pragma unroll
        for (int pixel = 0; pixel < 4; pixel++) {
            int row = j + pixel / 2, column = i + pixel % 2;
            if (row < s.out_height && column < s.out_width)
                store(0, 0, map, (img * s.out_height + row) * s.out_width + column, sum[pixel]);
        }
    }
};

static __device__ __forceinline__ void store_four(const conv2d_forward_job &job, int group, int split, int m, int n,
                                                  const float *sum)
{
    if (job.pooled) { if (n < job.n) job.store_window(group, m, n, sum); return; }
#pragma unroll
    for (int i = 0; i < 4; i++) if (n + i < job.n) job.store(group, split, m, n + i, sum[i]);
}

PRODUCT_KERNELS(conv2d_forward, conv2d_forward_job)
PRODUCT_KERNELS_TF32(conv2d_forward_tf32, conv2d_forward_job)

/* With 1 to 3 input channels the sum is short, and a product would spend its time on divisions that find values. So a
   block copies a part of one image, with its border, and the kernels of 8 maps into shared memory; a thread computes
   2 x 2 pixels (a window of pooling) of these maps. From 2 (K + 1) values of z and 8 K of u it has 32 K products. */
enum { PATCHES = 16, DIRECT_MAPS = 8, DIRECT_CHANNELS = 3 };           /* 16 x 16 threads */

/* Patches of 2 x 2 pixels in a row or a column of a map */
static __host__ __device__ int direct_patches(const conv2d_forward_job &job, int pooled, int out)
{
    return job.pooled ? pooled : (out + 1) / 2;
}

template <int K> struct direct_shared {
    enum { SIDE = 2 * PATCHES + K - 1 };
    float z[DIRECT_CHANNELS][SIDE][SIDE], u[DIRECT_CHANNELS * K * K][DIRECT_MAPS];
};

template <int K>
static __device__ __forceinline__ void conv2d_direct(const conv2d_forward_job &job, direct_shared<K> *shared)
{
    const cnn_conv2d_shape &s = job.s;
    const int side = direct_shared<K>::SIDE, taps = s.in_channels * K * K;
    int rows = direct_patches(job, s.pool.out_height, s.out_height);
    int columns = direct_patches(job, s.pool.out_width, s.out_width);
    int across = (columns + PATCHES - 1) / PATCHES, down = (rows + PATCHES - 1) / PATCHES, block = (int)blockIdx.x;
    int img = block / (across * down), first = (int)blockIdx.y * DIRECT_MAPS;
    int j = block / across % down * PATCHES, i = block % across * PATCHES;          /* of the block's first patch */
    int top = 2 * j - (job.pooled ? s.pool.pad_height : 0), left = 2 * i - (job.pooled ? s.pool.pad_width : 0);
    for (int t = (int)threadIdx.x; t < s.in_channels * side * side; t += THREADS) {
        int c = t / (side * side), y = t / side % side, x = t % side;
        int row = top - s.pad_top + y, column = left - s.pad_left + x;
        bool inside = row >= 0 && row < s.in_height && column >= 0 && column < s.in_width;
        size_t at = (((size_t)img * s.in_channels + c) * s.in_height + row) * s.in_width + column;
        shared->z[c][y][x] = inside ? job.z[at] : 0;
    }
    for (int t = (int)threadIdx.x; t < taps * DIRECT_MAPS; t += THREADS) {
        int k = first + t / taps;
        shared->u[t % taps][t / taps] = k < s.out_channels ? job.u[(size_t)k * taps + t % taps] : 0;
    }
    __syncthreads();                        /* image and kernels are there */
    int y0 = (int)threadIdx.x / PATCHES, x0 = (int)threadIdx.x % PATCHES;
    float sum[DIRECT_MAPS][4] = {};
    for (int c = 0; c < s.in_channels; c++)
#pragma unroll
        for (int y = 0; y < K; y++) {
            float v[2][K + 1];
            for (int r = 0; r < 2; r++)
                for (int x = 0; x <= K; x++) v[r][x] = shared->z[c][2 * y0 + y + r][2 * x0 + x];
            for (int x = 0; x < K; x++)
                for (int k = 0; k < DIRECT_MAPS; k++)
                    for (int pixel = 0; pixel < 4; pixel++)
                        sum[k][pixel] += v[pixel / 2][pixel % 2 + x] * shared->u[(c * K + y) * K + x][k];
        }
#pragma unroll
    for (int k = 0; k < DIRECT_MAPS; k++)
        if (first + k < job.m) job.store_patch(img, first + k, top + 2 * y0, left + 2 * x0, sum[k]);
}

#define DIRECT_KERNEL(name, K)                                                    \
    static __global__ void __launch_bounds__(THREADS, 2) name(conv2d_forward_job job)      \
    {                                                                             \
        __shared__ direct_shared<K> shared;                                       \
        conv2d_direct<K>(job, &shared);                                           \
    }

DIRECT_KERNEL(conv2d_direct_3x3, 3)
DIRECT_KERNEL(conv2d_direct_5x5, 5)

/* Pooling, if any, by windows of 2 x 2 with stride 2, the most common: each pixel is in at most one of them */
static __host__ __device__ bool pools(const cnn_conv2d_shape &s) { return s.pool.kernel_height > 0; }

static __host__ __device__ bool pools_in_a_thread(const cnn_conv2d_shape &s)
{
    return s.pool.kernel_height == 2 && s.pool.kernel_width == 2
        && s.pool.stride_height == 2 && s.pool.stride_width == 2;
}

/* df: the gradient at the convolution's sum, back through pooling and activation. index NULL: no pooling. */
struct conv2d_dy { const float *dy, *y; const unsigned char *index; };

/* Where a pixel of df comes from, in map 0, with pools_in_a_thread or without pooling. winner: what the index must
   be */
struct conv2d_df_place { size_t at; int winner; };         /* winner NOWHERE: df is 0; ALWAYS: there is no index */
enum { NOWHERE = -1, ALWAYS = -2 };

static __device__ __forceinline__ conv2d_df_place conv2d_df_place_of(const cnn_conv2d_shape &s, int img, int j, int i)
{
    const cnn_pool2d_shape &p = s.pool;
    size_t first = (size_t)img * s.out_channels;
    if (img >= s.batch || j < 0 || j >= s.out_height || i < 0 || i >= s.out_width) return { 0, NOWHERE };
    if (!pools(s)) return { (first * s.out_height + j) * s.out_width + i, ALWAYS };
    j += p.pad_height;
    i += p.pad_width;
    if (j / 2 >= p.out_height || i / 2 >= p.out_width) return { 0, NOWHERE };
    return { (first * p.out_height + j / 2) * p.out_width + i / 2, j % 2 * 2 + i % 2 };
}

/* N maps from `map` on, zeros beyond the last. All values are read, needed or not, and no branch depends on one, so
   that the reads do not wait for one another. */
template <int N>
static __device__ __forceinline__ void conv2d_df_at(const cnn_conv2d_shape &s, const conv2d_dy &g, conv2d_df_place of,
                                                    int map, float *df)
{
    unsigned plane = (unsigned)(pools(s) ? s.pool.out_height * s.pool.out_width : s.out_height * s.out_width);
    const float *dy = g.dy + of.at, *y = g.y + of.at;
    unsigned at[N];
    float slope[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
        at[i] = (unsigned)min(map + i, s.out_channels - 1) * plane;
        df[i] = dy[at[i]];
        slope[i] = y[at[i]];
    }
    if (pools(s)) {
        const unsigned char *index = g.index + of.at;
        unsigned char winner[N];
#pragma unroll
        for (int i = 0; i < N; i++) winner[i] = index[at[i]];
#pragma unroll
        for (int i = 0; i < N; i++) df[i] = winner[i] == of.winner ? df[i] : 0;
    }
    if (s.activation == CNN_RELU)           /* tested once, not for each value */
#pragma unroll
        for (int i = 0; i < N; i++) df[i] *= activation_slope(CNN_RELU, 0, slope[i]);
    else
#pragma unroll
        for (int i = 0; i < N; i++) df[i] *= activation_slope(s.activation, s.slope, slope[i]);
#pragma unroll
    for (int i = 0; i < N; i++) df[i] = of.winner != NOWHERE && map + i < s.out_channels ? df[i] : 0;
}

static __device__ __forceinline__ float conv2d_df_at(const cnn_conv2d_shape &s, const conv2d_dy &g, conv2d_df_place of,
                                                     int map)
{
    float df;
    conv2d_df_at<1>(s, g, of, map, &df);
    return df;
}

/* Any windows, which may overlap: adds the gradients of all windows in which the pixel is the winner */
static __device__ float conv2d_df_overlapping(const cnn_conv2d_shape &s, const conv2d_dy &g, size_t map, int j, int i)
{
    const cnn_pool2d_shape &p = s.pool;
    j += p.pad_height;
    i += p.pad_width;
    int first_row = max(0, (j - p.kernel_height) / p.stride_height);
    int first_column = max(0, (i - p.kernel_width) / p.stride_width);
    int last_row = min(j / p.stride_height, p.out_height - 1), last_column = min(i / p.stride_width, p.out_width - 1);
    float sum = 0;
    for (int row = first_row; row <= last_row; row++)
        for (int column = first_column; column <= last_column; column++) {
            size_t at = (map * p.out_height + row) * p.out_width + column;
            int down = j - row * p.stride_height, right = i - column * p.stride_width;
            if (down >= p.kernel_height || right >= p.kernel_width || g.index[at] != down * p.kernel_width + right)
                continue;
            sum += g.dy[at] * activation_slope(s.activation, s.slope, g.y[at]);
        }
    return sum;
}

/* One thread for each value */
static __global__ void conv2d_df(cnn_conv2d_shape s, float *df, conv2d_dy g)
{
    size_t at = thread_index(), pixels = (size_t)s.out_height * s.out_width, map = at / pixels;
    int j = (int)(at % pixels) / s.out_width, i = (int)(at % pixels) % s.out_width, img = (int)(map / s.out_channels);
    if (img >= s.batch) return;
    df[at] = pools(s) && !pools_in_a_thread(s)
               ? conv2d_df_overlapping(s, g, map, j, i)
               : conv2d_df_at(s, g, conv2d_df_place_of(s, img, j, i), (int)(map % s.out_channels));
}

/* dz, on a grid of rows x columns. With zero padding the grid is the image. Other paddings are copies of its values,
   and each copy has a gradient: then the grid is the padded image, and conv2d_fold adds the copies' gradients. Place
   (r, c) of the grid is (r + top, c + left) in the windows of f. */
struct conv2d_grid { int rows, columns, top, left; };

static conv2d_grid grid_of(const cnn_conv2d_shape &s)
{
    conv2d_grid image = { s.in_height, s.in_width, s.pad_top, s.pad_left };
    conv2d_grid padded = { s.in_height + s.pad_top + s.pad_bottom, s.in_width + s.pad_left + s.pad_right, 0, 0 };
    return s.padding_mode == CNN_ZEROS ? image : padded;
}

static size_t grid_values(const cnn_conv2d_shape &s)
{
    conv2d_grid grid = grid_of(s);
    return (size_t)s.batch * s.in_channels * grid.rows * grid.columns;
}

/* The output whose window has tap d at place r, or -1 */
static __device__ int conv2d_output(int r, int d, int stride, int outputs)
{
    int j = (r - d) / stride;
    return r >= d && j * stride == r - d && j < outputs ? j : -1;
}

/* naive: one thread for each value of dz */
static __global__ void conv2d_dz_naive(cnn_conv2d_shape s, conv2d_grid grid, float *dz, const float *df, const float *u)
{
    size_t at = thread_index(), pixels = (size_t)grid.rows * grid.columns;
    if (at >= (size_t)s.batch * s.in_channels * pixels) return;
    int row = (int)(at % pixels) / grid.columns + grid.top, column = (int)(at % pixels) % grid.columns + grid.left;
    int channel = (int)(at / pixels % s.in_channels), n = (int)(at / pixels / s.in_channels);
    int depth = s.in_channels / s.groups, maps = s.out_channels / s.groups;
    int first = channel / depth * maps, c = channel % depth;
    float sum = 0;
    for (int k = first; k < first + maps; k++)
        for (int y = 0; y < s.kernel_height; y++)
            for (int x = 0; x < s.kernel_width; x++) {
                int j = conv2d_output(row, y * s.dilation_height, s.stride_height, s.out_height);
                int i = conv2d_output(column, x * s.dilation_width, s.stride_width, s.out_width);
                if (j < 0 || i < 0) continue;
                sum += df[(((size_t)n * s.out_channels + k) * s.out_height + j) * s.out_width + i]
                     * u[(((size_t)k * depth + c) * s.kernel_height + y) * s.kernel_width + x];
            }
    dz[at] = sum;
}

/* As a product, for each group:  rows m: its input channels c;  columns n: all places of the grid;  k: (k, y, x). */
struct conv2d_dz_job : conv2d_job {
    conv2d_grid grid;
    divider pixels, width;                  /* of the grid */
    divider stride_height, stride_width;
    float *dz;
    const float *df, *u;

    __device__ column column_of(int group, int n_) const               /* a place of the grid */
    {
        int rest, i, img = divided(n_, pixels, &rest), j = divided(rest, width, &i);
        return { df + ((size_t)img * s.out_channels + group * channels) * plane, j + grid.top, i + grid.left };
    }

    __device__ const float *under(const column &place, int tap) const
    {
        int x, y = divided(tap, kernel_width, &x), rest_down, rest_right;
        int down = place.j - y * s.dilation_height, right = place.i - x * s.dilation_width;
        if (down < 0 || right < 0) return NULL;
        int j = divided(down, stride_height, &rest_down), i = divided(right, stride_width, &rest_right);
        if (rest_down || rest_right || j >= s.out_height || i >= s.out_width) return NULL;
        return place.image + (size_t)j * s.out_width + i;
    }

    __device__ step step_of(int group, const column &, int own) const
    {
        int tap, k_ = divided(own, taps, &tap);
        return { u + (size_t)(group * channels + k_) * m * taps.d + tap };
    }

    __device__ float a(int c, const step &at, int) const { return at.weights[(size_t)(unsigned)c * taps.d]; }
    __device__ float b(const column &place, const step &, int k_) const { return conv2d_b(*this, place, k_); }

    __device__ void store(int group, int, int c, int n_, float sum) const
    {
        int rest, img = divided(n_, pixels, &rest);
        dz[((size_t)img * s.in_channels + group * m + c) * pixels.d + rest] = sum;
    }
};

PRODUCT_KERNELS(conv2d_dz, conv2d_dz_job)
PRODUCT_KERNELS_TF32(conv2d_dz_tf32, conv2d_dz_job)

/* ---- square by square ----

   A product computes the address of each value of the image once for each tap, 9 or 25 times. For kernels of 3 x 3 and
   5 x 5 with stride 1 and zero padding, the most common, once is enough: a block copies SQUARES squares of 8 x 8
   pixels, with the pixels around them that their windows reach, and the kernels of M maps, DEPTH channels at a time,
   into shared memory, and all taps read from there. Forward and dz are the same sum,

       r(m,j,i) = sum over c, y, x of  v(c, j + y - top, i + x - left) w(m,c,y,x),

   with v = z and w = u; or with v = df, un-pooled while it is copied, and w = u rotated by 180 degrees. */
enum { SQUARE = 8 };

struct square { int img, j, i; };           /* its first pixel; beyond the last one, img is too large */

struct square_grid {
    int count, top, left;                   /* squares in the batch; the first pixel of an image's first square */
    divider image, across;                  /* squares of an image, and in a row */

    __device__ square at(int n) const
    {
        int rest, i, img = divided(n, image, &rest), j = divided(rest, across, &i);
        return { img, j * SQUARE + top, i * SQUARE + left };
    }
};

static square_grid squares_over(int batch, int rows, int columns, int top, int left)
{
    int down = (rows + SQUARE - 1) / SQUARE, across = (columns + SQUARE - 1) / SQUARE;
    return { batch * down * across, top, left, divide_by(down * across), divide_by(across) };
}

/* z at tap (y, x) of a square's first pixel, in channel 0. Not inside: the value is 0, and `first` is any valid
   address */
struct conv2d_z_place { const float *first; bool inside; };

static __device__ __forceinline__ conv2d_z_place conv2d_z_place_of(const cnn_conv2d_shape &s, const float *z,
                                                                   const square &q, int y, int x)
{
    int row = q.j + y - s.pad_top, column = q.i + x - s.pad_left;
    bool inside = q.img < s.batch && row >= 0 && row < s.in_height && column >= 0 && column < s.in_width;
    return { inside ? z + ((size_t)q.img * s.in_channels * s.in_height + row) * s.in_width + column : z, inside };
}

struct conv2d_forward_squares : conv2d_forward_job {
    square_grid grid;

    typedef conv2d_z_place place;

    __device__ place place_of(const square &q, int y, int x) const { return conv2d_z_place_of(s, z, q, y, x); }

    /* N channels, zeros beyond the last */
    template <int N> __device__ __forceinline__ void v(place of, int c, float *v) const
    {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = of.first[(unsigned)min(c + i, channels - 1) * (unsigned)plane];
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = of.inside && c + i < channels ? v[i] : 0;
    }

    __device__ const float *w(int m_, int c, int tap) const { return u + ((size_t)m_ * channels + c) * taps.d + tap; }
    __device__ size_t next_w() const { return (size_t)channels * taps.d; }             /* from one m to the next */

    __device__ void store_square(const square &q, int m_, int j, int i, const float *sum) const
    {
        if (q.img < s.batch) store_patch(q.img, m_, q.j + j, q.i + i, sum);
    }
};

struct conv2d_dz_squares {
    cnn_conv2d_shape s;
    square_grid grid;
    int m, channels, taps;                  /* in_channels, out_channels */
    int splits, share;                      /* where blocks are few: each sums over `share` of the channels */
    float *dz;                              /* or the parts, if split */
    const float *u;
    conv2d_dy g;

    typedef conv2d_df_place place;

    __device__ place place_of(const square &q, int y, int x) const
    {
        int top = s.kernel_height - 1 - s.pad_top, left = s.kernel_width - 1 - s.pad_left;
        return conv2d_df_place_of(s, q.img, q.j + y - top, q.i + x - left);
    }

    template <int N>
    __device__ __forceinline__ void v(place of, int k, float *v) const { conv2d_df_at<N>(s, g, of, k, v); }

    __device__ const float *w(int c, int k, int tap) const { return u + ((size_t)k * m + c) * taps + taps - 1 - tap; }
    __device__ size_t next_w() const { return (size_t)taps; }

    __device__ void store_square(const square &q, int c, int j, int i, const float *sum) const
    {
        if (q.img >= s.batch) return;
#pragma unroll
        for (int pixel = 0; pixel < 4; pixel++) {
            int row = q.j + j + pixel / 2, column = q.i + i + pixel % 2;
            if (row < s.in_height && column < s.in_width)
                dz[((((size_t)blockIdx.z * s.batch + q.img) * m + c) * s.in_height + row) * s.in_width + column]
                    = sum[pixel];
        }
    }
};

/* A block's shared memory. For tensor cores a warp reads 8 pixels or maps of 4 channels at once, from 32 different
   banks: channels of v are 8 or 24 banks apart, maps of w 12, with their taps in a row. In float32 maps are
   neighbours. */
template <int K_, int M_, int SQUARES_, bool tf32_> struct conv2d_tile {
    enum {
        K = K_, M = M_, SQUARES = SQUARES_, TAPS = K * K, SIDE = SQUARE + K - 1, POINTS = SIDE * SIDE,
        DEPTH = K == 5 && !tf32_ ? 4 : 8, AREA = (POINTS + 7) / 16 * 16 + 8, WEIGHTS = DEPTH * TAPS,
        ROW = tf32_ ? WEIGHTS + 4 : M + 4, ROWS = tf32_ ? M : WEIGHTS
    };
    static const bool tf32 = tf32_;
    float v[SQUARES * DEPTH * AREA], w[ROWS * ROW];

    static __device__ int spot(int m, int of_m) { return tf32 ? m * ROW + of_m : of_m * ROW + m; } /* of_m: (c, tap) */
};

/* A thread copies one channel and tap of every AT_ONCE-th map */
template <class Tile, class Job>
static __device__ __forceinline__ void copy_weights(Tile *tile, const Job &job, int top, int c)
{
    enum { AT_ONCE = THREADS / Tile::WEIGHTS };
    int of_m = (int)threadIdx.x % Tile::WEIGHTS, first = (int)threadIdx.x / Tile::WEIGHTS;
    int channel = c + of_m / Tile::TAPS, left = channel < job.channels ? job.m - top : 0;
    const float *w = job.w(top + first, channel, of_m % Tile::TAPS);
    if (first >= AT_ONCE) return;
#pragma unroll 8
    for (int m = first; m < Tile::M; m += AT_ONCE, w += AT_ONCE * job.next_w())
        tile->w[Tile::spot(m, of_m)] = as_factor<Tile::tf32>(m < left ? *w : 0);
}

/* A thread computes 2 x 2 pixels of MAPS maps: from 2 (K + 1) values of v and K MAPS of w it has 4 K MAPS products */
template <class Tile> struct patches_float32 {
    enum { ALL = Tile::SQUARES * SQUARE * SQUARE / 4, MAPS = Tile::M * ALL / THREADS };
    float sum[MAPS][4];
    int square, j, i, map;                  /* the thread's own */

    __device__ __forceinline__ void begin()
    {
        int patch = (int)threadIdx.x % ALL;
        square = patch / 16;
        j = patch / 4 % 4 * 2;
        i = patch % 4 * 2;
        map = (int)threadIdx.x / ALL * MAPS;
        for (int k = 0; k < MAPS; k++) for (int pixel = 0; pixel < 4; pixel++) sum[k][pixel] = 0;
    }

    __device__ __forceinline__ void add(const Tile *tile, int depth)
    {
        for (int c = 0; c < depth; c++) {
            const float *v = tile->v + (square * Tile::DEPTH + c) * Tile::AREA + j * Tile::SIDE + i;
#pragma unroll
            for (int y = 0; y < Tile::K; y++) {
                float two[2][Tile::K + 1];
                for (int r = 0; r < 2; r++) for (int x = 0; x <= Tile::K; x++) two[r][x] = v[(y + r) * Tile::SIDE + x];
                for (int x = 0; x < Tile::K; x++)
                    for (int k = 0; k < MAPS; k++)
                        for (int pixel = 0; pixel < 4; pixel++)
                            sum[k][pixel] += two[pixel / 2][pixel % 2 + x]
                                           * tile->w[Tile::spot(map + k, c * Tile::TAPS + y * Tile::K + x)];
            }
        }
    }

    template <class Job> __device__ __forceinline__ void store(const Job &job, int first, int top) const
    {
        auto q = job.grid.at(first + square);
#pragma unroll
        for (int k = 0; k < MAPS; k++) if (top + map + k < job.m) job.store_square(q, top + map + k, j, i, sum[k]);
    }
};

/* A warp computes 4 x 8 pixels, half a square, of 16 ROWS maps: row j of the pixels are the columns of D(.,j), channels
   are k. So a lane has the two rows of a 2 x 2 patch in two neighbouring D. */
template <class Tile> struct patches_tf32 {
    enum { ACROSS = 2 * Tile::SQUARES, ROWS = Tile::M * ACROSS / (THREADS / 32) / 16 };
    float sum[ROWS][4][4];
    int square, j, map, g, t;               /* the lane's own */

    __device__ __forceinline__ void begin()
    {
        int warp = (int)threadIdx.x / 32;
        g = (int)threadIdx.x % 32 / 4;
        t = (int)threadIdx.x % 4;
        square = warp % ACROSS / 2;
        j = warp % 2 * 4;
        map = warp / ACROSS * 16 * ROWS + g;
        for (int i = 0; i < ROWS * 16; i++) sum[i / 16][i / 4 % 4][i % 4] = 0;
    }

    __device__ __forceinline__ void add(const Tile *tile, int)
    {
        const float *v = tile->v + (square * Tile::DEPTH + t) * Tile::AREA + j * Tile::SIDE + g;
#pragma unroll
        for (int x = 0; x < Tile::K; x++) {
            unsigned b[Tile::K + 3][2];     /* the rows that the windows of four rows of pixels have at tap x */
            for (int row = 0; row < Tile::K + 3; row++)
                for (int r = 0; r < 2; r++) b[row][r] = bits_of(v[4 * r * Tile::AREA + row * Tile::SIDE + x]);
            for (int y = 0; y < Tile::K; y++)
                for (int i = 0; i < ROWS; i++) {
                    unsigned a[4];
                    for (int r = 0; r < 4; r++)
                        a[r] = bits_of(tile->w[Tile::spot(map + 16 * i + 8 * (r % 2),
                                                          (t + 4 * (r / 2)) * Tile::TAPS + y * Tile::K + x)]);
                    for (int row = 0; row < 4; row++) mma_tf32(sum[i][row], a, b[row + y]);
                }
        }
    }

    template <class Job> __device__ __forceinline__ void store(const Job &job, int first, int top) const
    {
        auto q = job.grid.at(first + square);
#pragma unroll
        for (int e = 0; e < ROWS * 4; e++) {               /* rows g and g + 8 of D, upper and lower pixels */
            int i = e / 4, d = e % 2 * 2, row = e / 2 % 2 * 2, m = top + map + 16 * i + e % 2 * 8;
            const float four[4] = { sum[i][row][d], sum[i][row][d + 1], sum[i][row + 1][d], sum[i][row + 1][d + 1] };
            if (m < job.m) job.store_square(q, m, j + row, 2 * t, four);
        }
    }
};

template <class Tile, class Job>
static __device__ __forceinline__ void conv2d_squares(const Job &job, Tile *tile)
{
    enum { TURNS = (Tile::SQUARES * Tile::POINTS + THREADS - 1) / THREADS, DEPTH = Tile::DEPTH };
    int first = (int)blockIdx.x * Tile::SQUARES, top = (int)blockIdx.y * Tile::M;
    typename Job::place places[TURNS];      /* the points that this thread copies, the same in all channels */
    typename std::conditional<Tile::tf32, patches_tf32<Tile>, patches_float32<Tile>>::type patches;
    patches.begin();
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++) {
        int e = (int)threadIdx.x + turn * THREADS, point = e % Tile::POINTS;
        places[turn] = job.place_of(job.grid.at(first + e / Tile::POINTS), point / Tile::SIDE, point % Tile::SIDE);
    }
    int begin = (int)blockIdx.z * job.share, end = min(begin + job.share, job.channels);
    for (int c = begin; c < end; c += DEPTH) {
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) {
            int e = (int)threadIdx.x + turn * THREADS;
            float next[DEPTH];
            if (e >= Tile::SQUARES * Tile::POINTS) break;
            float *to = tile->v + e / Tile::POINTS * DEPTH * Tile::AREA + e % Tile::POINTS;
            job.template v<DEPTH>(places[turn], c, next);
            for (int i = 0; i < DEPTH; i++) to[i * Tile::AREA] = as_factor<Tile::tf32>(next[i]);
        }
        copy_weights(tile, job, top, c);
        __syncthreads();                    /* squares and kernels are there */
        patches.add(tile, min(DEPTH, end - c));
        __syncthreads();                    /* all have read them */
    }
    patches.store(job, first, top);
}

#define SQUARES_KERNEL(name, Job, K, M, SQUARES)                                  \
    static __global__ void __launch_bounds__(THREADS, 2) name(Job job)            \
    {                                                                             \
        __shared__ conv2d_tile<K, M, SQUARES, false> tile;                        \
        conv2d_squares(job, &tile);                                               \
    }                                                                             \
    static __global__ void __launch_bounds__(THREADS, 2) name##_tf32(Job job)     \
    {                                                                             \
        __shared__ conv2d_tile<K, M, SQUARES, true> tile;                         \
        if (KNOWS_TF32) conv2d_squares(job, &tile);                               \
    }

#define SQUARES_KERNELS(name, Job)                                                \
    SQUARES_KERNEL(name##_3x3_16, Job, 3, 16, 4)                                  \
    SQUARES_KERNEL(name##_3x3_32, Job, 3, 32, 4)                                  \
    SQUARES_KERNEL(name##_3x3_64, Job, 3, 64, 2)                                  \
    SQUARES_KERNEL(name##_5x5_16, Job, 5, 16, 4)                                  \
    SQUARES_KERNEL(name##_5x5_32, Job, 5, 32, 4)

SQUARES_KERNELS(conv2d_forward_squares, conv2d_forward_squares)
SQUARES_KERNELS(conv2d_dz_squares, conv2d_dz_squares)

/* The tiles: more squares where maps are few, so that all threads have work */
struct squares_tile { int maps, squares; };

static squares_tile squares_tile_of(int kernel, int maps)
{
    return maps <= 16                ? squares_tile{ 16, 4 }
         : maps <= 32 || kernel == 5 ? squares_tile{ 32, 4 } : squares_tile{ 64, 2 };
}

template <class Job> static dim3 squares_blocks(const Job &job)
{
    squares_tile tile = squares_tile_of(job.s.kernel_width, job.m);
    return dim3((unsigned)((job.grid.count + tile.squares - 1) / tile.squares),
                (unsigned)((job.m + tile.maps - 1) / tile.maps), (unsigned)job.splits);
}

#define LAUNCH_SQUARES(c, name, job, tf32)                                        \
    do {                                                                          \
        dim3 blocks = squares_blocks(job);                                        \
        int maps = squares_tile_of((job).s.kernel_width, (job).m).maps;           \
        bool three = (job).s.kernel_width == 3;                                   \
        if (three && maps == 16) LAUNCH_EITHER(c, name##_3x3_16, blocks, job, tf32); \
        else if (three && maps == 32) LAUNCH_EITHER(c, name##_3x3_32, blocks, job, tf32); \
        else if (three) LAUNCH_EITHER(c, name##_3x3_64, blocks, job, tf32);       \
        else if (maps == 16) LAUNCH_EITHER(c, name##_5x5_16, blocks, job, tf32);  \
        else LAUNCH_EITHER(c, name##_5x5_32, blocks, job, tf32);                  \
    } while (0)

#define LAUNCH_EITHER(c, kernel, blocks, job, tf32)                               \
    do {                                                                          \
        if (tf32) LAUNCH(c, kernel##_tf32, blocks, job);                          \
        else LAUNCH(c, kernel, blocks, job);                                      \
    } while (0)

/* The i-th place in the padded row that value `at` of the image's row may have: its own, or a copy in the padding */
static __device__ int padded_place(int i, int at, int n, int before)
{
    return i < before ? i : i == before ? at + before : n + i - 1;
}

/* One thread for each value of dz: the sum over its copies in the padded image */
static __global__ void conv2d_fold(cnn_conv2d_shape s, float *dz, const float *padded)
{
    size_t at = thread_index(), pixels = (size_t)s.in_height * s.in_width;
    if (at >= (size_t)s.batch * s.in_channels * pixels) return;
    int row = (int)(at % pixels) / s.in_width, column = (int)(at % pixels) % s.in_width;
    int rows = s.in_height + s.pad_top + s.pad_bottom, columns = s.in_width + s.pad_left + s.pad_right;
    const float *map = padded + at / pixels * rows * columns;
    float sum = 0;
    for (int j = 0; j <= s.pad_top + s.pad_bottom; j++) {
        int r = padded_place(j, row, s.in_height, s.pad_top);
        if (border(r - s.pad_top, s.in_height, s.padding_mode) != row) continue;
        for (int i = 0; i <= s.pad_left + s.pad_right; i++) {
            int c = padded_place(i, column, s.in_width, s.pad_left);
            if (border(c - s.pad_left, s.in_width, s.padding_mode) == column) sum += map[(size_t)r * columns + c];
        }
    }
    dz[at] = sum;
}

/* naive: one thread a weight */
static __global__ void conv2d_du_naive(cnn_conv2d_shape s, float *du, const float *df, const float *z)
{
    int depth = s.in_channels / s.groups, taps = s.kernel_height * s.kernel_width;
    size_t at = thread_index(), out_map = (size_t)s.out_height * s.out_width;
    if (at >= (size_t)s.out_channels * depth * taps) return;
    int x = (int)(at % taps) % s.kernel_width, y = (int)(at % taps) / s.kernel_width;
    int c = (int)(at / taps % depth), k = (int)(at / taps / depth);
    int channel = k / (s.out_channels / s.groups) * depth + c;
    float sum = 0;
    for (int n = 0; n < s.batch; n++) {
        const float *g = df + ((size_t)n * s.out_channels + k) * out_map;
        for (int j = 0; j < s.out_height; j++)
            for (int i = 0; i < s.out_width; i++) {
                int row = border(j * s.stride_height + y * s.dilation_height - s.pad_top, s.in_height, s.padding_mode);
                int column = border(i * s.stride_width + x * s.dilation_width - s.pad_left, s.in_width, s.padding_mode);
                if (row < 0 || column < 0) continue;
                sum += g[(size_t)j * s.out_width + i]
                     * z[(((size_t)n * s.in_channels + channel) * s.in_height + row) * s.in_width + column];
            }
    }
    du[at] += sum;
}

/* naive: one thread for each map */
static __global__ void conv2d_db_naive(cnn_conv2d_shape s, float *db, const float *df)
{
    size_t k = thread_index(), out_map = (size_t)s.out_height * s.out_width;
    if (k >= (size_t)s.out_channels) return;
    float sum = 0;
    for (int n = 0; n < s.batch; n++)
        for (size_t i = 0; i < out_map; i++) sum += df[((size_t)n * s.out_channels + k) * out_map + i];
    db[k] += sum;
}

/* As a product, for each group:  rows m: its maps k;  columns n: (c, y, x), and a last column of ones for the bias;
   k: all pixels of the batch. The sums are long and few, so they are split. In TF32 the bias sums rounded df, too. */
struct conv2d_du_job : product_job {
    cnn_conv2d_shape s;
    divider pixels, width;                  /* of f */
    divider taps, kernel_width;
    int depth;
    float *parts;
    const float *z;
    conv2d_dy g;

    static const bool a_along_k = true, b_along_k = true;

    struct column { const float *z; int j, i; };           /* a channel and a tap; NULL: the bias */
    struct step { conv2d_df_place of; size_t image; int map, j, i; };  /* a pixel of df, its image, the first map */

    __device__ column column_of(int group, int n_) const
    {
        int tap, x, c = divided(n_, taps, &tap), y = divided(tap, kernel_width, &x);
        const float *first = z + ((size_t)group * depth + c) * s.in_height * s.in_width;
        return { c < depth ? first : NULL, y * s.dilation_height - s.pad_top, x * s.dilation_width - s.pad_left };
    }

    __device__ step step_of(int group, const column &, int own) const
    {
        int rest, i, img = divided(own, pixels, &rest), j = divided(rest, width, &i);
        size_t image = (size_t)img * s.in_channels * s.in_height * s.in_width;
        return { conv2d_df_place_of(s, img, j, i), image, group * m, j, i };
    }

    __device__ float a(int m_, const step &at, int) const { return conv2d_df_at(s, g, at.of, at.map + m_); }

    __device__ float b(const column &of, const step &at, int) const
    {
        if (!of.z) return 1;
        int row = border(at.j * s.stride_height + of.j, s.in_height, s.padding_mode);
        int column = border(at.i * s.stride_width + of.i, s.in_width, s.padding_mode);
        return row < 0 || column < 0 ? 0 : of.z[at.image + (size_t)row * s.in_width + column];
    }

    __device__ void store(int group, int split, int m_, int n_, float sum) const
    {
        parts[(((size_t)split * groups + group) * m + m_) * n + n_] = sum;
    }
};

PRODUCT_KERNELS(conv2d_du, conv2d_du_job)
PRODUCT_KERNEL(conv2d_du_32x32, conv2d_du_job, 32, 32, 1)
PRODUCT_KERNELS_TF32(conv2d_du_tf32, conv2d_du_job)

/* The second pass of a split sum of gradients: a block has 32 values, each with 8 threads that add every 8th part; then
   the first 32 threads add those sums, in order. */
enum { VALUES_A_BLOCK = 32 };

static dim3 blocks_for_parts(size_t values) { return dim3((unsigned)((values + VALUES_A_BLOCK - 1) / VALUES_A_BLOCK)); }

static __device__ size_t part_index() { return (size_t)blockIdx.x * VALUES_A_BLOCK + threadIdx.x % VALUES_A_BLOCK; }

static __device__ float sum_parts_by_block(const float *parts, size_t at, size_t count, int splits)
{
    __shared__ float sums[THREADS];
    float sum = 0;
    for (int split = (int)threadIdx.x / VALUES_A_BLOCK; at < count && split < splits; split += THREADS / VALUES_A_BLOCK)
        sum += parts[split * count + at];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < VALUES_A_BLOCK)
        for (int i = (int)threadIdx.x + VALUES_A_BLOCK; i < THREADS; i += VALUES_A_BLOCK) sum += sums[i];
    return sum;
}

/* dW and db of a product: rows of `inputs` weights, each followed by its bias if db is not NULL */
static __global__ void add_gradients(float *dw, float *db, const float *parts, int rows, int inputs, int splits)
{
    size_t at = part_index(), columns = (size_t)inputs + (db ? 1 : 0), count = rows * columns;
    float sum = sum_parts_by_block(parts, at, count, splits);
    if (at >= count || threadIdx.x >= VALUES_A_BLOCK) return;
    size_t row = at / columns, column = at % columns;
    if (column >= (size_t)inputs) db[row] += sum;
    else if (dw) dw[row * inputs + column] += sum;
}

/* ---- du, square by square ----

   A block goes through its share of the squares. It un-pools df of M maps, copies z of C channels to shared memory and
   adds df(k,j,i) z(c, j + y - top, i + x - left) for all taps (y, x). Sums stay in registers until the end. */
struct conv2d_du_squares {
    cnn_conv2d_shape s;
    square_grid grid;
    int m, channels, splits, share;         /* splits: blocks of a sum; share: squares of each */
    float *parts, *bias_parts;              /* (part, tap, k, c): threads write neighbours; (part, k), or NULL */
    const float *z;
    conv2d_dy g;

    __device__ float *part(int n, int tap, int k, int c) const
    {
        return parts + (((size_t)n * s.kernel_height * s.kernel_width + tap) * m + k) * channels + c;
    }
};

template <int K_, int M_, int C_, bool tf32_> struct conv2d_du_tile {
    enum {
        K = K_, M = M_, C = C_, TAPS = K * K, SIDE = SQUARE + K - 1, POINTS = SIDE * SIDE, PIXELS = SQUARE * SQUARE,
        AREA = (POINTS + 3) / 8 * 8 + 4, ROW = PIXELS + 4, /* channels, and maps, are 4 or 20 banks apart */
        BIAS_PARTS = THREADS / M,
        DEEP = tf32_ ? 3 : K, DEEP_BLOCKS = (K + DEEP - 1) / DEEP      /* rows of taps in a block: registers limit it */
    };
    static const bool tf32 = tf32_;
    float v[C * AREA], df[M * ROW];
};

/* A thread has MAPS maps of one channel, and some rows of the pixels: with a row of z and one of df in registers, it
   has K products for each value */
template <class Tile> struct taps_float32 {
    enum { MAPS = Tile::K == 3 ? 4 : 2, GROUPS = Tile::M / MAPS, PARTS = THREADS / (Tile::C * GROUPS) };
    float sum[MAPS][Tile::TAPS];
    int c, group, part;                     /* the thread's own; maps are `group`, and every GROUPS-th after it */

    __device__ __forceinline__ void begin(int)
    {
        c = (int)threadIdx.x % Tile::C;
        group = (int)threadIdx.x / Tile::C % GROUPS;
        part = (int)threadIdx.x / (Tile::C * GROUPS);
        for (int i = 0; i < MAPS * Tile::TAPS; i++) sum[i / Tile::TAPS][i % Tile::TAPS] = 0;
    }

    __device__ __forceinline__ void add(const Tile *tile)
    {
        for (int j = part * (SQUARE / PARTS); j < (part + 1) * (SQUARE / PARTS); j++) {
            float df[MAPS][SQUARE], z[Tile::SIDE];
            for (int k = 0; k < MAPS; k++)
                for (int i = 0; i < SQUARE; i++) df[k][i] = tile->df[(group + k * GROUPS) * Tile::ROW + j * SQUARE + i];
#pragma unroll
            for (int y = 0; y < Tile::K; y++) {
                for (int i = 0; i < Tile::SIDE; i++) z[i] = tile->v[c * Tile::AREA + (j + y) * Tile::SIDE + i];
                for (int k = 0; k < MAPS; k++)
                    for (int x = 0; x < Tile::K; x++)
                        for (int i = 0; i < SQUARE; i++) sum[k][y * Tile::K + x] += df[k][i] * z[i + x];
            }
        }
    }

    __device__ __forceinline__ void store(const conv2d_du_squares &job, int split, int top, int left) const
    {
        if (left + c >= job.channels) return;
#pragma unroll
        for (int k = 0; k < MAPS; k++)
            for (int tap = 0; tap < Tile::TAPS; tap++)
                if (top + group + k * GROUPS < job.m)
                    *job.part(split * PARTS + part, tap, top + group + k * GROUPS, left + c) = sum[k][tap];
    }
};

/* A warp has 16 ROWS maps of 8 channels, and some rows of the pixels: one instruction sums a row of 8 pixels. A block
   has DEEP rows of taps, from `deep` on. */
template <class Tile> struct taps_tf32 {
    enum {
        ROWS = Tile::K == 3 ? 2 : 1, DOWN = Tile::M / (16 * ROWS), ACROSS = Tile::C / 8,
        PARTS = THREADS / 32 / (DOWN * ACROSS)
    };
    float sum[ROWS][Tile::DEEP * Tile::K][4];
    int deep, map, c, part, g, t;

    __device__ __forceinline__ void begin(int first_tap_row)
    {
        deep = first_tap_row;
        int warp = (int)threadIdx.x / 32;
        g = (int)threadIdx.x % 32 / 4;
        t = (int)threadIdx.x % 4;
        map = warp % DOWN * 16 * ROWS + g;
        c = warp / DOWN % ACROSS * 8;
        part = warp / (DOWN * ACROSS);
        for (int i = 0; i < ROWS * Tile::DEEP * Tile::K * 4; i++) (&sum[0][0][0])[i] = 0;
    }

    __device__ __forceinline__ void add(const Tile *tile)
    {
        for (int j = part * (SQUARE / PARTS); j < (part + 1) * (SQUARE / PARTS); j++) {
            unsigned a[ROWS][4], b[2];
            for (int i = 0; i < ROWS; i++)
                for (int r = 0; r < 4; r++)
                    a[i][r] = bits_of(tile->df[(map + 16 * i + 8 * (r % 2)) * Tile::ROW + j * SQUARE + t
                                               + 4 * (r / 2)]);
#pragma unroll
            for (int tap = 0; tap < Tile::DEEP * Tile::K; tap++) {
                if (deep + tap / Tile::K >= Tile::K) break;
                int at = (c + g) * Tile::AREA + (j + deep + tap / Tile::K) * Tile::SIDE + tap % Tile::K + t;
                for (int r = 0; r < 2; r++) b[r] = bits_of(tile->v[at + 4 * r]);
                for (int i = 0; i < ROWS; i++) mma_tf32(sum[i][tap], a[i], b);
            }
        }
    }

    __device__ __forceinline__ void store(const conv2d_du_squares &job, int split, int top, int left) const
    {
#pragma unroll
        for (int tap = 0; tap < Tile::DEEP * Tile::K; tap++)
            for (int e = 0; e < ROWS * 4; e++) {
                int k = top + map + e / 2 * 8, channel = left + c + 2 * t + e % 2;
                if (k < job.m && channel < job.channels && deep + tap / Tile::K < Tile::K)
                    *job.part(split * PARTS + part, deep * Tile::K + tap, k, channel) = sum[e / 4][tap][e % 4];
            }
    }
};

template <class Tile> using taps_of = typename std::conditional<Tile::tf32, taps_tf32<Tile>, taps_float32<Tile>>::type;

template <class Tile>
static __device__ __forceinline__ void copy_z(Tile *tile, const conv2d_du_squares &job, const square &q, int left)
{
    enum { LANES = Tile::POINTS <= THREADS / 2 ? THREADS / 2 : THREADS, AT_ONCE = THREADS / LANES };
    const cnn_conv2d_shape &s = job.s;
    int point = (int)threadIdx.x % LANES, first = (int)threadIdx.x / LANES;
    conv2d_z_place z = conv2d_z_place_of(s, job.z, q, point / Tile::SIDE, point % Tile::SIDE);
    unsigned plane = (unsigned)(s.in_height * s.in_width);
    if (point >= Tile::POINTS) return;
#pragma unroll 4
    for (int c = first; c < Tile::C; c += AT_ONCE) {
        float x = z.first[(unsigned)min(left + c, job.channels - 1) * plane];
        tile->v[c * Tile::AREA + point] = as_factor<Tile::tf32>(z.inside && left + c < job.channels ? x : 0);
    }
}

template <class Tile>
static __device__ __forceinline__ void copy_df(Tile *tile, const conv2d_du_squares &job, const square &q, int top)
{
    enum { AT_ONCE = THREADS / Tile::PIXELS, TURNS = Tile::M / AT_ONCE, N = 4 };
    int pixel = (int)threadIdx.x % Tile::PIXELS, first = (int)threadIdx.x / Tile::PIXELS * TURNS;
    conv2d_df_place of = conv2d_df_place_of(job.s, q.img, q.j + pixel / SQUARE, q.i + pixel % SQUARE);
#pragma unroll 1
    for (int k = first; k < first + TURNS; k += N) {
        float df[N];
        conv2d_df_at<N>(job.s, job.g, of, top + k, df);
        for (int i = 0; i < N; i++) tile->df[(k + i) * Tile::ROW + pixel] = as_factor<Tile::tf32>(df[i]);
    }
}

template <class Tile>
static __device__ __forceinline__ void conv2d_du_by_squares(const conv2d_du_squares &job, Tile *tile)
{
    enum { PIXELS = Tile::PIXELS / Tile::BIAS_PARTS };     /* of a thread that sums the bias */
    int split = (int)blockIdx.x, top = (int)blockIdx.y * Tile::M;
    int left = (int)blockIdx.z / Tile::DEEP_BLOCKS * Tile::C, deep = (int)blockIdx.z % Tile::DEEP_BLOCKS * Tile::DEEP;
    bool sums_bias = job.bias_parts && blockIdx.z == 0;
    int map = (int)threadIdx.x % Tile::M, part = (int)threadIdx.x / Tile::M;
    float bias = 0;
    taps_of<Tile> taps;
    taps.begin(deep);
    for (int n = split * job.share; n < min((split + 1) * job.share, job.grid.count); n++) {
        square q = job.grid.at(n);
        copy_z(tile, job, q, left);
        copy_df(tile, job, q, top);
        __syncthreads();                    /* a square of df and of z is there */
        taps.add(tile);
        for (int i = 0; sums_bias && i < PIXELS; i++)      /* maps in the same bank: each reads another pixel */
            bias += tile->df[map * Tile::ROW + part * PIXELS + (i + map / 8) % PIXELS];
        __syncthreads();                    /* all have read it */
    }
    taps.store(job, split, top, left);
    if (sums_bias && top + map < job.m)
        job.bias_parts[(size_t)(split * Tile::BIAS_PARTS + part) * job.m + top + map] = bias;
}

#define DU_SQUARES_KERNEL(name, K, M, C, tf32)                                    \
    static __global__ void __launch_bounds__(THREADS, 2) name(conv2d_du_squares job)       \
    {                                                                             \
        __shared__ conv2d_du_tile<K, M, C, tf32> tile;                            \
        if (KNOWS_TF32 || !tf32) conv2d_du_by_squares(job, &tile);                \
    }

#define DU_SQUARES(F)                                                             \
    F(conv2d_du_squares_3x3_16, 3, 16, 8, false)                                  \
    F(conv2d_du_squares_3x3_64, 3, 64, 8, false)                                  \
    F(conv2d_du_squares_5x5_16, 5, 16, 8, false)                                  \
    F(conv2d_du_squares_5x5_64, 5, 64, 8, false)                                  \
    F(conv2d_du_squares_3x3_32_tf32, 3, 32, 32, true)                             \
    F(conv2d_du_squares_3x3_64_tf32, 3, 64, 32, true)                             \
    F(conv2d_du_squares_5x5_64_tf32, 5, 64, 16, true)

DU_SQUARES(DU_SQUARES_KERNEL)

struct du_kernel {
    const char *name;
    void (*run)(conv2d_du_squares);
    int kernel_size, maps, channels, deep_blocks, parts, bias_parts;   /* of a block; parts: of each sum */
    bool tf32;
};

template <class Tile> static du_kernel describe_du(const char *name, void (*run)(conv2d_du_squares))
{
    return { name, run, Tile::K, Tile::M, Tile::C, Tile::DEEP_BLOCKS, taps_of<Tile>::PARTS, Tile::BIAS_PARTS,
             Tile::tf32 };
}

#define DU_KERNEL(name, K, M, C, tf32) describe_du<conv2d_du_tile<K, M, C, tf32>>(#name, name),

/* The first with room for all maps, or the last */
static const du_kernel &du_kernel_for(const cnn_conv2d_shape &s, bool tf32)
{
    static const du_kernel all[] = { DU_SQUARES(DU_KERNEL) };
    const du_kernel *best = NULL;
    for (const du_kernel &each : all)
        if (each.kernel_size == s.kernel_width && each.tf32 == tf32 && !(best && best->maps >= s.out_channels))
            best = &each;
    return *best;
}

/* Parts are in another order than weights: the threads go through the parts */
static __global__ void add_du(conv2d_du_squares job, float *du, float *db, int parts, int bias_parts)
{
    size_t at = part_index(), taps = (size_t)job.s.kernel_height * job.s.kernel_width;
    size_t weights = taps * job.m * job.channels;
    bool bias = at >= weights;
    float sum = sum_parts_by_block(bias ? job.bias_parts : job.parts, bias ? at - weights : at,
                                   bias ? db ? job.m : 0 : weights, bias ? bias_parts : parts);
    if (threadIdx.x >= VALUES_A_BLOCK || at >= weights + (db ? job.m : 0)) return;
    if (bias) db[at - weights] += sum;
    else if (du) du[at % (weights / taps) * taps + at / (weights / taps)] += sum;
}

/* --------------------------------------------------------------------------------------------
   Linear:  y(n,o) = b(o) + sum_i W(o,i) x(n,i)
       dW(o,i) += sum_n dy(n,o) x(n,i)      db(o) += sum_n dy(n,o)      dx(n,i) = sum_o dy(n,o) W(o,i)
   with dy tau'(y) in place of dy, if there is an activation.
   -------------------------------------------------------------------------------------------- */

/* naive: one thread an output */
static __global__ void linear_forward_naive(cnn_linear_shape s, float *y, const float *x, const float *w,
                                            const float *b)
{
    size_t at = thread_index();
    if (at >= (size_t)s.batch * s.out_features) return;
    size_t n = at / s.out_features, o = at % s.out_features;
    float sum = b ? b[o] : 0;
    for (int i = 0; i < s.in_features; i++) sum += w[o * s.in_features + i] * x[n * s.in_features + i];
    y[at] = activation_at(s.activation, s.slope, sum);
}

/* rows m: samples n;  columns n: outputs o;  k: inputs i, split where there are many */
struct linear_forward_job : product_job {
    cnn_linear_shape s;
    float *y, *parts;                       /* parts: where the sum is split */
    const float *x, *w, *bias;

    static const bool a_along_k = true, b_along_k = true;

    __device__ float a(int n_, step, int i) const { return x[(size_t)n_ * k + i]; }
    __device__ float b(int o, step, int i) const { return w[(size_t)o * k + i]; }

    __device__ void store(int, int split, int n_, int o, float sum) const
    {
        size_t at = (size_t)n_ * n + o;
        if (splits > 1) parts[(size_t)split * m * n + at] = sum;
        else y[at] = activation_at(s.activation, s.slope, sum + (bias ? bias[o] : 0));
    }
};

PRODUCT_KERNELS(linear_forward, linear_forward_job)

static __global__ void linear_forward_sum(cnn_linear_shape s, float *y, const float *parts, const float *b, int splits)
{
    size_t at = thread_index(), count = (size_t)s.batch * s.out_features;
    if (at >= count) return;
    float sum = sum_parts(parts, at, count, splits);
    y[at] = activation_at(s.activation, s.slope, sum + (b ? b[at % s.out_features] : 0));
}

/* naive: one thread for each input's gradient */
static __global__ void linear_dx_naive(cnn_linear_shape s, float *dx, const float *dy, const float *y, const float *w)
{
    size_t at = thread_index();
    if (at >= (size_t)s.batch * s.in_features) return;
    size_t n = at / s.in_features, i = at % s.in_features;
    float sum = 0;
    for (int o = 0; o < s.out_features; o++) {
        size_t out = n * s.out_features + o;
        sum += dy[out] * activation_slope(s.activation, s.slope, y[out]) * w[(size_t)o * s.in_features + i];
    }
    dx[at] = sum;
}

/* rows m: samples n;  columns n: inputs i;  k: outputs o */
struct linear_dx_job : product_job {
    cnn_linear_shape s;
    float *dx, *parts;
    const float *dy, *y, *w;

    static const bool a_along_k = true, b_along_k = false;

    __device__ float a(int n_, step, int o) const
    {
        size_t out = (size_t)n_ * k + o;
        return dy[out] * activation_slope(s.activation, s.slope, y[out]);
    }

    __device__ float b(int i, step, int o) const { return w[(size_t)o * n + i]; }

    __device__ void store(int, int split, int n_, int i, float sum) const
    {
        (splits > 1 ? parts + (size_t)split * m * n : dx)[(size_t)n_ * n + i] = sum;
    }
};

PRODUCT_KERNELS(linear_dx, linear_dx_job)

/* naive: one thread a weight */
static __global__ void linear_dw_naive(cnn_linear_shape s, float *dw, const float *dy, const float *y, const float *x)
{
    size_t at = thread_index();
    if (at >= (size_t)s.out_features * s.in_features) return;
    size_t o = at / s.in_features, i = at % s.in_features;
    float sum = 0;
    for (int n = 0; n < s.batch; n++) {
        size_t out = (size_t)n * s.out_features + o;
        sum += dy[out] * activation_slope(s.activation, s.slope, y[out]) * x[(size_t)n * s.in_features + i];
    }
    dw[at] += sum;
}

/* naive: one thread an output */
static __global__ void linear_db_naive(cnn_linear_shape s, float *db, const float *dy, const float *y)
{
    size_t o = thread_index();
    if (o >= (size_t)s.out_features) return;
    float sum = 0;
    for (int n = 0; n < s.batch; n++) {
        size_t out = (size_t)n * s.out_features + o;
        sum += dy[out] * activation_slope(s.activation, s.slope, y[out]);
    }
    db[o] += sum;
}

/* rows m: outputs o;  columns n: inputs i, and a last column of ones for the bias;  k: samples n */
struct linear_dw_job : product_job {
    cnn_linear_shape s;
    float *dw, *db, *parts;
    const float *dy, *y, *x;

    static const bool a_along_k = false, b_along_k = false;

    __device__ float a(int o, step, int n_) const
    {
        size_t out = (size_t)n_ * m + o;
        return dy[out] * activation_slope(s.activation, s.slope, y[out]);
    }

    __device__ float b(int i, step, int n_) const { return i < s.in_features ? x[(size_t)n_ * s.in_features + i] : 1; }

    __device__ void store(int, int split, int o, int i, float sum) const
    {
        if (splits > 1) parts[((size_t)split * m + o) * n + i] = sum;
        else if (i >= s.in_features) db[o] += sum;
        else if (dw) dw[(size_t)o * s.in_features + i] += sum;
    }
};

PRODUCT_KERNELS(linear_dw, linear_dw_job)

/* --------------------------------------------------------------------------------------------
   Batch normalisation:  y = weight (x - mean) / sqrt(var + eps) + bias, mean and var over the m = batch pixels values of a
   channel, or the running ones;  xh = (x - mean) / sqrt(var + eps)
       dbias += sum dy      dweight += sum dy xh
       dx = weight / sqrt(var + eps) (dy - 1/m sum dy - xh 1/m sum dy xh), or without the sums in evaluation
   One block a channel; x, y  (n, channels, pixels).
   -------------------------------------------------------------------------------------------- */
static __global__ void batch_norm_forward(cnn_batch_norm_shape s, float *y, float *saved, float *running_mean, float *running_var,
                                          int64_t *batches, const float *x, const float *weight, const float *bias)
{
    __shared__ double shared[THREADS];
    size_t m = (size_t)s.batch * s.pixels;
    int c = (int)blockIdx.x;
    double mean = 0, var = 0, share = s.momentum;
    if (s.training) {
        for (size_t i = threadIdx.x; i < m; i += THREADS) mean += x[channel_place(s, c, i)];
        mean = block_sum(mean, shared) / m;
        for (size_t i = threadIdx.x; i < m; i += THREADS) {
            double d = x[channel_place(s, c, i)] - mean;
            var += d * d;
        }
        var = block_sum(var, shared) / m;
    } else {
        mean = running_mean[c];
        var = running_var[c];
    }
    float centre = (float)mean, inverse = (float)(1 / sqrt(var + s.eps));
    float scale = weight ? weight[c] * inverse : inverse, shift = bias ? bias[c] : 0;
    for (size_t i = threadIdx.x; i < m; i += THREADS) {
        size_t at = channel_place(s, c, i);
        y[at] = activation_at(s.activation, s.slope, (x[at] - centre) * scale + shift);
    }
    if (threadIdx.x) return;
    if (saved) saved[c] = centre, saved[s.channels + c] = inverse;
    if (!s.training || !running_mean) return;
    running_mean[c] = (float)((1 - share) * running_mean[c] + share * mean);
    running_var[c] = (float)((1 - share) * running_var[c] + share * var * m / (m - 1.0));
    if (c == 0) ++*batches;
}

static __global__ void batch_norm_backward(cnn_batch_norm_shape s, float *dx, float *dweight, float *dbias, const float *dy,
                                           const float *y, const float *saved, const float *x, const float *weight)
{
    __shared__ double shared[THREADS];
    size_t m = (size_t)s.batch * s.pixels;
    int c = (int)blockIdx.x;
    float mean = saved[c], inverse = saved[s.channels + c];
    double sum = 0, sum_xh = 0;
    for (size_t i = threadIdx.x; i < m; i += THREADS) {
        size_t at = channel_place(s, c, i);
        double df = dy[at] * activation_slope(s.activation, s.slope, y[at]);
        sum += df;
        sum_xh += df * (x[at] - mean) * inverse;
    }
    sum = block_sum(sum, shared);
    sum_xh = block_sum(sum_xh, shared);
    float scale = weight ? weight[c] * inverse : inverse;
    float shift = s.training ? (float)(sum / m) : 0, slope = s.training ? (float)(sum_xh * inverse / m) : 0;
    for (size_t i = threadIdx.x; dx && i < m; i += THREADS) {
        size_t at = channel_place(s, c, i);
        dx[at] = scale * (dy[at] * activation_slope(s.activation, s.slope, y[at]) - shift - (x[at] - mean) * slope);
    }
    if (threadIdx.x) return;
    if (dbias) dbias[c] += (float)sum;
    if (dweight) dweight[c] += (float)sum_xh;
}

/* --------------------------------------------------------------------------------------------
   Softmax over the channels c of each pixel:  y_c = exp(x_c - max x) / sum_k exp(x_k - max x)
       dx_c = y_c (dy_c - sum_k dy_k y_k)
   One thread for each pixel; x, y  (n, channels, pixels).
   -------------------------------------------------------------------------------------------- */
static __global__ void softmax_forward(cnn_map_shape s, float *y, const float *x)
{
    size_t at = thread_index();
    if (at >= (size_t)s.batch * s.pixels) return;
    size_t first = at / s.pixels * s.channels * s.pixels + at % s.pixels;
    float largest = -INFINITY, sum = 0;
    for (int c = 0; c < s.channels; c++) largest = fmaxf(largest, x[first + (size_t)c * s.pixels]);
    for (int c = 0; c < s.channels; c++) sum += expf(x[first + (size_t)c * s.pixels] - largest);
    for (int c = 0; c < s.channels; c++) {
        size_t i = first + (size_t)c * s.pixels;
        y[i] = expf(x[i] - largest) / sum;
    }
}

static __global__ void softmax_backward(cnn_map_shape s, float *dx, const float *dy, const float *y)
{
    size_t at = thread_index();
    if (at >= (size_t)s.batch * s.pixels) return;
    size_t first = at / s.pixels * s.channels * s.pixels + at % s.pixels;
    float sum = 0;
    for (int c = 0; c < s.channels; c++) sum += dy[first + (size_t)c * s.pixels] * y[first + (size_t)c * s.pixels];
    for (int c = 0; c < s.channels; c++) {
        size_t i = first + (size_t)c * s.pixels;
        dx[i] = y[i] * (dy[i] - sum);
    }
}

/* --------------------------------------------------------------------------------------------
   Dropout:  y = m x / (1 - p)     m = 0 with probability p, else 1;  backward is the same with dy for x.
   -------------------------------------------------------------------------------------------- */

/* naive: one thread for each value */
static __global__ void dropout_naive(const cnn_counters *c, int layer, float p, float grown, float *y, const float *x,
                                     size_t n)
{
    unsigned words[4];
    size_t i = thread_index();
    if (i >= n) return;
    random_words(words, c->seed, (unsigned)layer, c->pass, (unsigned)(i / 4));
    y[i] = unit(words[i % 4]) >= p ? x[i] * grown : 0;
}

/* one thread for four values, as many words as Philox gives at once */
static __global__ void dropout(const cnn_counters *c, int layer, float p, float grown, float *y, const float *x,
                               size_t n)
{
    unsigned words[4];
    size_t four = thread_index();
    if (4 * four >= n) return;
    random_words(words, c->seed, (unsigned)layer, c->pass, (unsigned)four);
    for (size_t i = 4 * four; i < 4 * four + 4 && i < n; i++) y[i] = unit(words[i % 4]) >= p ? x[i] * grown : 0;
}

/* --------------------------------------------------------------------------------------------
   Cross-entropy of the softmax:
       loss = -1/N sum_n log softmax(y_n)[t_n]                  dy(n,o) = (softmax(y_n)[o] - [o = t_n]) / N
   Mean squared error:
       loss = 1/(N K) sum_n sum_o (y(n,o) - target(n,o))^2      dy = 2 (y - target) / (N K)
   -------------------------------------------------------------------------------------------- */

static __device__ int argmax(const float *y, int count)
{
    int best = 0;
    for (int o = 1; o < count; o++)
        if (y[o] > y[best] || (y[o] != y[o] && y[best] == y[best])) best = o;      /* NaN wins */
    return best;
}

static __device__ void count_loss(cnn_counters *c, double loss, double weight, int correct, int counted)
{
    c->loss = loss / weight;
    c->correct = correct;
    c->loss_sum += loss;
    c->weight_sum += weight;
    c->correct_sum += correct;
    c->seen += counted;
}

static __device__ float class_weight(const cnn_cross_entropy_options &o, int k)
{
    return o.weight ? o.weight[k] : 1.0f;
}

/* q(n,k) of the card; p: the sample's probabilities, or NULL: only its label t is given */
static __device__ float cross_entropy_q(const cnn_cross_entropy_options &o, const float *p, int t, int k, int outputs)
{
    float e = o.label_smoothing;
    return class_weight(o, k) * ((1 - e) * (p ? p[k] : k == t ? 1.0f : 0.0f) + e / (float)outputs);
}

/* One block, so that there is one sum; one thread for each sample. First the weights are summed: gradients are divided
   by that sum. */
static __global__ void __launch_bounds__(THREADS, 2)
softmax_cross_entropy(cnn_counters *c, cnn_cross_entropy_options o, float *dy, const float *y, const float *target,
                      const int *labels, int batch, int outputs)
{
    __shared__ double shared[THREADS];
    __shared__ float divisor;
    double loss = 0, correct = 0, counted = 0, weight = 0;
    for (int n = (int)threadIdx.x; n < batch; n += THREADS)
        if (target || labels[n] != o.ignore_index) weight += target ? 1.0f : class_weight(o, labels[n]);
    weight = block_sum(weight, shared);
    if (threadIdx.x == 0) divisor = (float)weight;
    __syncthreads();
    for (int n = (int)threadIdx.x; n < batch; n += THREADS) {
        const float *row = y + (size_t)n * outputs, *p = target ? target + (size_t)n * outputs : NULL;
        float *drow = dy ? dy + (size_t)n * outputs : NULL;
        int best = argmax(row, outputs), t = labels ? labels[n] : argmax(p, outputs);
        float largest = row[best], sum = 0, all = 0, part = 0;
        if (!labels || t != o.ignore_index) {
            correct += best == t;
            counted += 1;
        }
        if (!p && t == o.ignore_index) {
            for (int k = 0; drow && k < outputs; k++) drow[k] = 0;
            continue;
        }
        for (int k = 0; k < outputs; k++) sum += expf(row[k] - largest);
        for (int k = 0; k < outputs; k++) {
            float q = cross_entropy_q(o, p, t, k, outputs);
            all += q;
            if (p || k == t || o.label_smoothing > 0) part += q * (logf(sum) - (row[k] - largest));
        }
        loss += part;
        for (int k = 0; drow && k < outputs; k++)
            drow[k] = (expf(row[k] - largest) / sum * all - cross_entropy_q(o, p, t, k, outputs)) / divisor;
    }
    loss = block_sum(loss, shared);
    correct = block_sum(correct, shared);
    counted = block_sum(counted, shared);
    if (threadIdx.x == 0) count_loss(c, loss, weight, (int)correct, (int)counted);
}

static __device__ float mse_error(const float *y, const float *target, const int *labels, size_t at, int outputs)
{
    return y[at] - (target ? target[at] : (int)(at % outputs) == labels[at / outputs] ? 1.0f : 0.0f);
}

static __global__ void mse_gradient(float *dy, const float *y, const float *target, const int *labels, size_t count,
                                    int outputs)
{
    size_t at = thread_index();
    if (at < count) dy[at] = 2 * mse_error(y, target, labels, at, outputs) / (float)count;
}

/* One block; a thread adds every THREADS-th square, then classifies every THREADS-th sample. */
static __global__ void __launch_bounds__(THREADS) mse_loss(cnn_counters *c, const float *y, const float *target,
                                                           const int *labels, int batch, int outputs)
{
    __shared__ double shared[THREADS];
    double loss = 0, correct = 0;
    size_t count = (size_t)batch * outputs;
    for (size_t at = threadIdx.x; at < count; at += THREADS) {
        double error = mse_error(y, target, labels, at, outputs);
        loss += error * error;
    }
    for (int n = (int)threadIdx.x; labels && n < batch; n += THREADS)
        correct += argmax(y + (size_t)n * outputs, outputs) == labels[n];
    loss = block_sum(loss, shared);
    correct = block_sum(correct, shared);
    if (threadIdx.x == 0) count_loss(c, loss / outputs, batch, (int)correct, batch);
}

/* --------------------------------------------------------------------------------------------
   Optimizers: one thread for each parameter. What is the same for a whole span is computed once, by one thread, in
   double. Steps are counted in a separate launch, so that no counter changes while others read it.
   -------------------------------------------------------------------------------------------- */
static __global__ void next_batch(cnn_counters *c, int size, int training)
{
    if (threadIdx.x > 0) return;
    c->batch_offset = c->next_offset;
    c->next_offset += (uint64_t)size;
    c->pass += (uint64_t)training;
}

/* The trainable span that has float i, or NULL */
static __device__ const cnn_span *span_at(const cnn_span *spans, int count, size_t i)
{
    int low = 0, high = count;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (spans[middle].offset <= i) low = middle;
        else high = middle;
    }
    const cnn_span *s = &spans[low];
    return count && s->trainable && i >= s->offset && i - s->offset < s->count ? s : NULL;
}

/* One thread for each span; the first counts the optimizer's step, too. */
static __global__ void count_step(cnn_counters *c, cnn_span *spans, int count)
{
    size_t k = thread_index();
    if (k == 0) c->step++;
    if (k < (size_t)count) spans[k].step += spans[k].trainable != 0;
}

static __global__ void sgd_step(const cnn_counters *c, cnn_sgd_options o, float *w, float *v, const float *g, size_t n,
                                const cnn_span *spans, int count)
{
    size_t i = thread_index();
    const cnn_span *s = i < n ? span_at(spans, count, i) : NULL;
    if (!s) return;
    float d = g[i] + s->weight_decay * w[i];
    if (v) {
        v[i] = o.momentum * v[i] + d;
        d = o.nesterov ? d + o.momentum * v[i] : v[i];
    }
    w[i] -= (float)c->lr * d;
}

enum { SHRINK, DECAY, RATE, ROOT };         /* the numbers in cnn_span.same during Adam's step */

/* After count_step: the span's step is t. */
static __global__ void adam_at_step(const cnn_counters *c, cnn_adam_options o, int decoupled, cnn_span *spans,
                                    int count)
{
    size_t k = thread_index();
    if (k >= (size_t)count) return;
    cnn_span *s = &spans[k];
    double t = (double)s->step;
    s->same[SHRINK] = decoupled ? (float)(1 - c->lr * s->weight_decay) : 1;
    s->same[DECAY] = decoupled ? 0 : s->weight_decay;
    s->same[RATE] = (float)(c->lr / (1 - pow((double)o.beta1, t)));
    s->same[ROOT] = (float)(1 / sqrt(1 - pow((double)o.beta2, t)));
}

static __global__ void adam_step(cnn_adam_options o, float *w, float *m, float *v, const float *g, size_t n,
                                 const cnn_span *spans, int count)
{
    size_t i = thread_index();
    const cnn_span *s = i < n ? span_at(spans, count, i) : NULL;
    if (!s) return;
    float d = g[i] + s->same[DECAY] * w[i];
    m[i] = o.beta1 * m[i] + (1 - o.beta1) * d;
    v[i] = o.beta2 * v[i] + (1 - o.beta2) * d * d;
    w[i] = w[i] * s->same[SHRINK] - s->same[RATE] * m[i] / (sqrtf(v[i]) * s->same[ROOT] + o.eps);
}

/* Clipping, in three launches: THREADS blocks sum squares, one block sums their sums, and all scale. */
static __global__ void __launch_bounds__(THREADS) clip_squares(double *sums, const float *g, size_t n,
                                                               const cnn_span *spans, int count)
{
    __shared__ double shared[THREADS];
    double sum = 0;
    for (size_t i = thread_index(); i < n; i += (size_t)THREADS * THREADS)
        if (span_at(spans, count, i)) sum += (double)g[i] * g[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(THREADS)
clip_norm(cnn_counters *c, double *factor, const double *sums, float max_norm)
{
    __shared__ double shared[THREADS];
    double sum = block_sum(sums[threadIdx.x], shared);
    if (threadIdx.x) return;
    c->grad_norm = sqrt(sum);
    *factor = max_norm / (c->grad_norm + 1e-6);
}

static __global__ void clip_scale(float *g, const double *factor, size_t n, const cnn_span *spans, int count)
{
    size_t i = thread_index();
    if (i < n && !(*factor >= 1) && span_at(spans, count, i)) g[i] *= (float)*factor;      /* NaN: all, as in PyTorch */
}

/* --------------------------------------------------------------------------------------------
   Gathering a batch:  x(n,c,p) = scale(c) sample(order(n),c,p) + shift(c).  One thread for each value. The batch's part
   of the order begins at batch_offset, in device memory: a recorded step would repeat an argument.
   -------------------------------------------------------------------------------------------- */
static __global__ void gather(const cnn_counters *k, cnn_gather_shape s, float *x, const unsigned char *bytes,
                              const float *floats, const int *order, const float *scale, const float *shift)
{
    size_t at = thread_index(), pixels = (size_t)s.height * s.width, sample = s.channels * pixels;
    if (at >= s.batch * sample) return;
    size_t from = (s.packed ? at / sample : order[k->batch_offset + at / sample]) * sample + at % sample;
    int c = (int)(at % sample / pixels);
    x[at] = scale[c] * (bytes ? (float)bytes[from] : floats[from]) + shift[c];
}

struct plane { const unsigned char *bytes; const float *floats; float scale, shift; };        /* one channel of one sample */

static __device__ float plane_at(const cnn_gather_shape &s, const plane &z, int row, int column)
{
    size_t at = (size_t)row * s.width + column;
    if (row < 0 || row >= s.height || column < 0 || column >= s.width) return 0;
    return z.scale * (z.bytes ? (float)z.bytes[at] : z.floats[at]) + z.shift;
}

/* the same, augmented; each thread draws its sample's change anew */
static __global__ void gather_augmented(const cnn_counters *k, cnn_gather_shape s, float *x, const unsigned char *bytes,
                                        const float *floats, const int *order, const float *scale, const float *shift)
{
    size_t at = thread_index(), pixels = (size_t)s.height * s.width, sample = s.channels * pixels;
    if (at >= s.batch * sample) return;
    int number = order[k->batch_offset + at / sample], c = (int)(at % sample / pixels), padding = s.augment.padding;
    size_t first = ((s.packed ? at / sample : number) * (size_t)s.channels + c) * pixels;
    plane z = { bytes ? bytes + first : NULL, bytes ? NULL : floats + first, scale[c], shift[c] };
    unsigned word[4];
    random_words(word, k->data_seed, STREAM_AUGMENT, k->epoch, (unsigned)number);
    uint64_t places = 2 * (uint64_t)padding + 1;
    int j = (int)(at % pixels / s.width), i = (int)(at % s.width);
    int q = j + (int)(word[0] * places >> 32) - padding;
    int p = (s.augment.flip && word[2] & 1 ? s.width - 1 - i : i) + (int)(word[1] * places >> 32) - padding;
    if (s.augment.rotation == 0 && s.augment.scale == 0) {
        x[at] = plane_at(s, z, q, p);
        return;
    }
    double size = 1 + (double)s.augment.scale * (2 * (double)unit(word[3]) - 1), sine, cosine;
    sincospi((double)s.augment.rotation * (2 * (double)unit(word[2]) - 1) / 180, &sine, &cosine);
    double j0 = 0.5 * (s.height - 1), i0 = 0.5 * (s.width - 1);
    double row = j0 + (cosine * (q - j0) - sine * (p - i0)) / size;
    double column = i0 + (sine * (q - j0) + cosine * (p - i0)) / size;
    x[at] = 0;
    if (!(row > -1 && row < s.height && column > -1 && column < s.width)) return;
    j = (int)(row + 1) - 1;                 /* floor: both are above -1 */
    i = (int)(column + 1) - 1;
    double v = row - j, u = column - i;
    x[at] = (float)((1 - v) * ((1 - u) * plane_at(s, z, j, i) + u * plane_at(s, z, j, i + 1))
                    + v * ((1 - u) * plane_at(s, z, j + 1, i) + u * plane_at(s, z, j + 1, i + 1)));
}

static __global__ void gather_rows(const cnn_counters *k, unsigned *to, const unsigned *from, const int *order,
                                   int batch, int width)
{
    size_t at = thread_index();
    if (at < (size_t)batch * width) to[at] = from[(size_t)order[k->batch_offset + at / width] * width + at % width];
}

/* ============================================================================================
   >>table   The entries of the tables: which kernels an operation launches, and how it divides its scratch memory.
   ============================================================================================ */

/* Columns of a product are counted in an int: larger batches are an error. */
static bool fits(cuda_context *c, const char *name, double columns)
{
    if (columns <= INT_MAX) return true;
    if (!c->sentence[0])
        snprintf(c->sentence, sizeof c->sentence, "%s: %.0f values are too many; use a smaller batch", name, columns);
    return false;
}

/* ---- convolution ---- */

static size_t conv2d_outputs(const cnn_conv2d_shape &s)
{
    return (size_t)s.batch * s.out_channels * s.out_height * s.out_width;
}

static size_t conv2d_inputs(const cnn_conv2d_shape &s)
{
    return (size_t)s.batch * s.in_channels * s.in_height * s.in_width;
}

static size_t pool2d_outputs(const cnn_pool2d_shape &s)
{
    return (size_t)s.batch * s.channels * s.out_height * s.out_width;
}

/* A kernel of 3 x 3 or 5 x 5 with stride 1 and zero padding */
static bool is_common(const cnn_conv2d_shape &s)
{
    return s.groups == 1 && s.padding_mode == CNN_ZEROS && s.kernel_height == s.kernel_width
        && (s.kernel_width == 3 || s.kernel_width == 5) && s.stride_height == 1 && s.stride_width == 1
        && s.dilation_height == 1 && s.dilation_width == 1;
}

static bool is_direct(const cnn_conv2d_shape &s) { return is_common(s) && s.in_channels <= DIRECT_CHANNELS; }

static bool in_squares(const cnn_conv2d_shape &s)          /* not of small maps: squares would be half empty */
{
    int squares = squares_over(1, s.out_height, s.out_width, 0, 0).count;
    return is_common(s) && 2 * s.out_height * s.out_width >= squares * SQUARE * SQUARE;
}

static dim3 direct_blocks(const conv2d_forward_job &job)
{
    int down = (direct_patches(job, job.s.pool.out_height, job.s.out_height) + PATCHES - 1) / PATCHES;
    int across = (direct_patches(job, job.s.pool.out_width, job.s.out_width) + PATCHES - 1) / PATCHES;
    return dim3((unsigned)(job.s.batch * down * across), (unsigned)((job.m + DIRECT_MAPS - 1) / DIRECT_MAPS));
}

/* With fewer channels, loading the values takes longer than multiplying them; with fewer rows, the instruction's 16 are
   not all used. The rows are maps in the forward pass and for du, and input channels for dz. */
static bool in_tf32(const cuda_context *c, const cnn_conv2d_shape &s, int rows)
{
    return c->knows_tf32 && s.allow_tf32 && s.in_channels / s.groups >= 16 && rows >= 16;
}

#define LAUNCH_CONV2D(c, name, job)                                               \
    do {                                                                          \
        if (in_tf32(c, (job).s, (job).m)) LAUNCH_PRODUCT(c, name##_tf32, job);    \
        else LAUNCH_PRODUCT(c, name, job);                                        \
    } while (0)

static conv2d_du_job conv2d_du_sizes(const cnn_conv2d_shape &s, bool bias)
{
    conv2d_du_job job;
    memset((void *)&job, 0, sizeof job);    /* with its padding: arguments are compared byte by byte */
    job.s = s;
    job.groups = s.groups;
    job.depth = s.in_channels / s.groups;
    job.m = s.out_channels / s.groups;
    job.n = job.depth * s.kernel_height * s.kernel_width + bias;
    job.narrow = job.n <= 32 && job.depth <= DIRECT_CHANNELS;
    job.k = s.batch * s.out_height * s.out_width;
    job.pixels = divide_by(s.out_height * s.out_width);
    job.width = divide_by(s.out_width);
    job.taps = divide_by(s.kernel_height * s.kernel_width);
    job.kernel_width = divide_by(s.kernel_width);
    split(&job);
    return job;
}

static conv2d_dz_squares conv2d_dz_squares_sizes(const cnn_conv2d_shape &s)
{
    enum { FEWEST = 16 };                   /* channels of a block, in whole steps */
    conv2d_dz_squares job;
    memset((void *)&job, 0, sizeof job);
    job.s = s;
    job.grid = squares_over(s.batch, s.in_height, s.in_width, 0, 0);
    job.m = s.in_channels;
    job.channels = s.out_channels;
    job.taps = s.kernel_height * s.kernel_width;
    job.splits = 1;
    dim3 blocks = squares_blocks(job);
    int most = job.channels / FEWEST, wanted = (int)(ENOUGH_BLOCKS / (blocks.x * blocks.y));
    if (wanted > most) wanted = most;
    if (wanted < 1) wanted = 1;
    job.share = ((job.channels + wanted - 1) / wanted + 7) / 8 * 8;
    job.splits = (job.channels + job.share - 1) / job.share;
    return job;
}

static dim3 du_blocks(const conv2d_du_squares &job, const du_kernel &kernel)
{
    return dim3((unsigned)job.splits, (unsigned)((job.m + kernel.maps - 1) / kernel.maps),
                (unsigned)((job.channels + kernel.channels - 1) / kernel.channels * kernel.deep_blocks));
}

static conv2d_du_squares conv2d_du_squares_sizes(const cnn_conv2d_shape &s, const du_kernel &kernel)
{
    enum { SHORTEST_SHARE = 4 };            /* with fewer squares, a block would spend its time on writing its sums */
    conv2d_du_squares job;
    memset((void *)&job, 0, sizeof job);
    job.s = s;
    job.grid = squares_over(s.batch, s.out_height, s.out_width, 0, 0);
    job.m = s.out_channels;
    job.channels = s.in_channels;
    dim3 blocks = du_blocks(job, kernel);
    int splits = (int)((ENOUGH_BLOCKS + blocks.y * blocks.z - 1) / (blocks.y * blocks.z));
    job.share = (job.grid.count + splits - 1) / splits;
    if (job.share < SHORTEST_SHARE) job.share = SHORTEST_SHARE;
    job.splits = (job.grid.count + job.share - 1) / job.share;
    return job;
}

static size_t du_squares_weights(const conv2d_du_squares &job)
{
    return (size_t)job.m * job.channels * job.s.kernel_height * job.s.kernel_width;
}

static size_t du_squares_parts(const cnn_conv2d_shape &s, bool tf32)
{
    const du_kernel &kernel = du_kernel_for(s, tf32);
    conv2d_du_squares job = conv2d_du_squares_sizes(s, kernel);
    return job.splits * (kernel.parts * du_squares_weights(job) + (size_t)kernel.bias_parts * job.m);
}

/* work: f, or df; then the padded dz; then the parts of dW and db */
static float *conv2d_padded(const cnn_conv2d_shape &s, void *work) { return (float *)work + conv2d_outputs(s); }

static size_t conv2d_before_parts(const cnn_conv2d_shape &s)
{
    return conv2d_outputs(s) + (s.padding_mode == CNN_ZEROS ? 0 : grid_values(s));
}

static size_t cuda_conv2d_work(void *, const cnn_conv2d_shape *s)
{
    if (4.0 * s->batch * s->out_height * s->out_width > INT_MAX || (double)grid_values(*s) / s->in_channels > INT_MAX)
        return 1;                           /* too many: the passes will report it, see fits */
    size_t parts = product_parts(conv2d_du_sizes(*s, true)), other = product_parts(conv2d_du_sizes(*s, false));
    if (other > parts) parts = other;       /* with fewer columns there may be more splits */
    if (in_squares(*s)) {
        if ((other = du_squares_parts(*s, false)) > parts) parts = other;
        if ((other = du_squares_parts(*s, true)) > parts) parts = other;
        if ((other = conv2d_dz_squares_sizes(*s).splits * conv2d_inputs(*s)) > parts) parts = other;
    }
    return sizeof(float) * (conv2d_before_parts(*s) + parts);
}

static void cuda_naive_conv2d_forward(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index,
                                      const float *x, const float *weight, const float *bias, void *work)
{
    cuda_context *c = of(context);
    float *f = pools(*s) ? (float *)work : y;
    size_t n = conv2d_outputs(*s);
    LAUNCH(c, conv2d_forward_naive, threads_for(n), *s, f, x, weight, bias);
    LAUNCH(c, activation_forward, threads_for(n), s->activation, s->slope, f, f, n);
    if (pools(*s))
        LAUNCH(c, pool2d_forward, threads_for(pool2d_outputs(s->pool)), s->pool, y, index, f);
}

static void run_forward_squares(cuda_context *c, const conv2d_forward_job &job)
{
    const cnn_conv2d_shape &s = job.s;
    const cnn_pool2d_shape &p = s.pool;
    conv2d_forward_squares squares;
    memset((void *)&squares, 0, sizeof squares);
    (conv2d_forward_job &)squares = job;
    squares.grid = job.pooled ? squares_over(s.batch, 2 * p.out_height, 2 * p.out_width, -p.pad_height, -p.pad_width)
                              : squares_over(s.batch, s.out_height, s.out_width, 0, 0);
    LAUNCH_SQUARES(c, conv2d_forward_squares, squares, in_tf32(c, s, job.m));
}

static void cuda_conv2d_forward(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index,
                                const float *x, const float *weight, const float *bias, void *work)
{
    cuda_context *c = of(context);
    conv2d_forward_job job;
    memset((void *)&job, 0, sizeof job);
    job.s = *s;
    job.pooled = pools_in_a_thread(*s);
    int height = job.pooled ? s->pool.out_height : s->out_height, width = job.pooled ? s->pool.out_width : s->out_width;
    job.groups = s->groups;
    job.m = s->out_channels / s->groups;
    if (!fits(c, "conv2d_forward", 4.0 * s->batch * height * width)) return;
    job.n = s->batch * height * width * (job.pooled ? 4 : 1);
    count_k(&job, s->in_channels / s->groups);
    job.plane = (size_t)s->in_height * s->in_width;
    job.pixels = divide_by(height * width);
    job.width = divide_by(width);
    job.y = pools(*s) && !job.pooled ? (float *)work : y;
    job.index = job.pooled ? index : NULL;
    job.z = x; job.u = weight; job.bias = bias;
    if (is_direct(*s) && s->kernel_width == 3) LAUNCH(c, conv2d_direct_3x3, direct_blocks(job), job);
    else if (is_direct(*s)) LAUNCH(c, conv2d_direct_5x5, direct_blocks(job), job);
    else if (in_squares(*s)) run_forward_squares(c, job);
    else LAUNCH_CONV2D(c, conv2d_forward, job);
    if (pools(*s) && !job.pooled)
        LAUNCH(c, pool2d_forward, threads_for(pool2d_outputs(s->pool)), s->pool, y, index, job.y);
}

/* df in memory: dy itself if there is no pooling and no activation */
static const float *run_conv2d_df(cuda_context *c, const cnn_conv2d_shape *s, const conv2d_dy &g, void *work)
{
    if (!pools(*s) && s->activation == CNN_NO_ACTIVATION) return g.dy;
    LAUNCH(c, conv2d_df, threads_for(conv2d_outputs(*s)), *s, (float *)work, g);
    return (const float *)work;
}

static void run_conv2d_fold(cuda_context *c, const cnn_conv2d_shape *s, float *dx, const float *padded)
{
    if (s->padding_mode != CNN_ZEROS) LAUNCH(c, conv2d_fold, threads_for(conv2d_inputs(*s)), *s, dx, padded);
}

static void cuda_naive_conv2d_backward(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight,
                                       float *dbias, const float *dy, const float *y, const unsigned char *index,
                                       const float *x, const float *weight, void *work)
{
    cuda_context *c = of(context);
    size_t weights = (size_t)s->out_channels * (s->in_channels / s->groups) * s->kernel_height * s->kernel_width;
    const float *df = run_conv2d_df(c, s, conv2d_dy{ dy, y, index }, work);
    float *dz = s->padding_mode == CNN_ZEROS ? dx : conv2d_padded(*s, work);
    if (dweight) LAUNCH(c, conv2d_du_naive, threads_for(weights), *s, dweight, df, x);
    if (dbias) LAUNCH(c, conv2d_db_naive, threads_for((size_t)s->out_channels), *s, dbias, df);
    if (!dx) return;
    LAUNCH(c, conv2d_dz_naive, threads_for(grid_values(*s)), *s, grid_of(*s), dz, df, weight);
    run_conv2d_fold(c, s, dx, dz);
}

static void run_du_product(cuda_context *c, const cnn_conv2d_shape &s, float *dweight, float *dbias, const float *x,
                           const conv2d_dy &g, float *parts)
{
    conv2d_du_job du = conv2d_du_sizes(s, dbias != NULL);
    du.parts = parts; du.z = x; du.g = g;
    if (du.narrow) LAUNCH(c, conv2d_du_32x32, tiles(du), du);
    else LAUNCH_CONV2D(c, conv2d_du, du);
    LAUNCH(c, add_gradients, blocks_for_parts((size_t)s.out_channels * du.n), dweight, dbias, parts, s.out_channels,
           du.n - (dbias ? 1 : 0), du.splits);
}

static void run_du_squares(cuda_context *c, const cnn_conv2d_shape &s, float *dweight, float *dbias, const float *x,
                           const conv2d_dy &g, float *parts)
{
    const du_kernel &kernel = du_kernel_for(s, in_tf32(c, s, s.out_channels));
    conv2d_du_squares du = conv2d_du_squares_sizes(s, kernel);
    size_t weights = du_squares_weights(du);
    int splits = du.splits * kernel.parts;
    du.parts = parts; du.z = x; du.g = g;
    du.bias_parts = dbias ? parts + splits * weights : NULL;
    launch(c, kernel.name, kernel.run, du_blocks(du, kernel), du);
    LAUNCH(c, add_du, blocks_for_parts(weights + du.m), du, dweight, dbias, splits, du.splits * kernel.bias_parts);
}

static void cuda_conv2d_backward(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias,
                                 const float *dy, const float *y, const unsigned char *index, const float *x,
                                 const float *weight, void *work)
{
    cuda_context *c = of(context);
    if (!fits(c, "conv2d_backward", (double)grid_values(*s) / s->in_channels)
        || !fits(c, "conv2d_backward", (double)conv2d_outputs(*s) / s->out_channels))
        return;
    /* Squares un-pool df while they copy it: they read 9 bytes for four of its values, and df is never written. So does
       du of the first layer, which has no dz. But a product for dz reads each value once for each tap, so df is written
       first. */
    conv2d_dy g = { dy, y, index };
    cnn_conv2d_shape from = *s;             /* the shape that fits g */
    bool squares = in_squares(*s);
    if ((dx && !squares) || (pools(*s) && !pools_in_a_thread(*s))) {
        g.dy = g.y = run_conv2d_df(c, s, g, work);
        from.activation = CNN_NO_ACTIVATION;
        memset(&from.pool, 0, sizeof from.pool);
    }
    float *parts = (float *)work + conv2d_before_parts(*s);
    bool learns = dweight || dbias;
    if (learns && squares && !is_direct(*s)) run_du_squares(c, from, dweight, dbias, x, g, parts);
    else if (learns) run_du_product(c, from, dweight, dbias, x, g, parts);
    if (!dx) return;
    if (squares) {
        conv2d_dz_squares job = conv2d_dz_squares_sizes(from);
        job.dz = job.splits > 1 ? parts : dx;              /* du no longer needs the parts */
        job.u = weight; job.g = g;
        LAUNCH_SQUARES(c, conv2d_dz_squares, job, in_tf32(c, *s, job.m));
        if (job.splits > 1)
            LAUNCH(c, add_parts, threads_for(conv2d_inputs(*s)), dx, parts, conv2d_inputs(*s), job.splits);
        return;
    }
    conv2d_dz_job dz;
    memset((void *)&dz, 0, sizeof dz);
    dz.s = *s;
    dz.grid = grid_of(*s);
    dz.groups = s->groups;
    dz.m = s->in_channels / s->groups;
    dz.n = s->batch * dz.grid.rows * dz.grid.columns;
    count_k(&dz, s->out_channels / s->groups);
    dz.plane = (size_t)s->out_height * s->out_width;
    dz.pixels = divide_by(dz.grid.rows * dz.grid.columns);
    dz.width = divide_by(dz.grid.columns);
    dz.stride_height = divide_by(s->stride_height);
    dz.stride_width = divide_by(s->stride_width);
    dz.dz = s->padding_mode == CNN_ZEROS ? dx : conv2d_padded(*s, work);
    dz.df = g.dy; dz.u = weight;
    LAUNCH_CONV2D(c, conv2d_dz, dz);
    run_conv2d_fold(c, s, dx, dz.dz);
}

/* ---- pooling ---- */

static void cuda_pool2d_forward(void *context, const cnn_pool2d_shape *s, float *y, const float *x)
{
    LAUNCH(of(context), pool2d_forward, threads_for(pool2d_outputs(*s)), *s, y, (unsigned char *)NULL, x);
}

static void cuda_naive_pool2d_backward(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy,
                                       const float *x)
{
    LAUNCH(of(context), pool2d_backward_naive, threads_for((size_t)s->batch * s->channels), *s, dx, dy, x);
}

static void cuda_pool2d_backward(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x)
{
    if (s->adaptive) {                      /* its windows may share pixels with any neighbour */
        cuda_naive_pool2d_backward(context, s, dx, dy, x);
        return;
    }
    LAUNCH(of(context), pool2d_backward, dim3((unsigned)s->batch * (unsigned)s->channels), *s, dx, dy, x);
}

/* ---- linear ---- */

static linear_forward_job linear_forward_sizes(const cnn_linear_shape &s)
{
    linear_forward_job job;
    memset((void *)&job, 0, sizeof job);
    job.s = s;
    job.groups = 1;
    job.m = s.batch; job.n = s.out_features; job.k = s.in_features;
    split(&job);
    return job;
}

static linear_dx_job linear_dx_sizes(const cnn_linear_shape &s)
{
    linear_dx_job job;
    memset((void *)&job, 0, sizeof job);
    job.s = s;
    job.groups = 1;
    job.m = s.batch; job.n = s.in_features; job.k = s.out_features;
    split(&job);
    return job;
}

static linear_dw_job linear_dw_sizes(const cnn_linear_shape &s, bool bias)
{
    linear_dw_job job;
    memset((void *)&job, 0, sizeof job);
    job.s = s;
    job.groups = 1;
    job.m = s.out_features; job.n = s.in_features + bias; job.k = s.batch;
    split(&job);
    return job;
}

static size_t cuda_linear_work(void *, const cnn_linear_shape *s)      /* the parts of one product at a time */
{
    size_t parts[4], most = 0;
    parts[0] = product_parts(linear_forward_sizes(*s));
    parts[1] = product_parts(linear_dx_sizes(*s));
    parts[2] = product_parts(linear_dw_sizes(*s, true));
    parts[3] = product_parts(linear_dw_sizes(*s, false));
    for (int i = 0; i < 4; i++) if (parts[i] > most) most = parts[i];
    return sizeof(float) * most;
}

static void cuda_naive_linear_forward(void *context, const cnn_linear_shape *s, float *y, const float *x,
                                      const float *weight, const float *bias, void *)
{
    LAUNCH(of(context), linear_forward_naive, threads_for((size_t)s->batch * s->out_features), *s, y, x, weight, bias);
}

static void cuda_linear_forward(void *context, const cnn_linear_shape *s, float *y, const float *x, const float *weight,
                                const float *bias, void *work)
{
    cuda_context *c = of(context);
    linear_forward_job job = linear_forward_sizes(*s);
    job.y = y; job.parts = (float *)work; job.x = x; job.w = weight; job.bias = bias;
    LAUNCH_PRODUCT(c, linear_forward, job);
    if (job.splits > 1)
        LAUNCH(c, linear_forward_sum, threads_for((size_t)s->batch * s->out_features), *s, y, job.parts, bias,
               job.splits);
}

static void cuda_naive_linear_backward(void *context, const cnn_linear_shape *s, float *dx, float *dweight,
                                       float *dbias, const float *dy, const float *y, const float *x,
                                       const float *weight, void *)
{
    cuda_context *c = of(context);
    size_t weights = (size_t)s->out_features * s->in_features;
    if (dweight) LAUNCH(c, linear_dw_naive, threads_for(weights), *s, dweight, dy, y, x);
    if (dbias) LAUNCH(c, linear_db_naive, threads_for((size_t)s->out_features), *s, dbias, dy, y);
    if (dx) LAUNCH(c, linear_dx_naive, threads_for((size_t)s->batch * s->in_features), *s, dx, dy, y, weight);
}

static void cuda_linear_backward(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias,
                                 const float *dy, const float *y, const float *x, const float *weight, void *work)
{
    cuda_context *c = of(context);
    bool learns = dweight || dbias;
    linear_dw_job dw = linear_dw_sizes(*s, dbias != NULL);
    dw.dw = dweight; dw.db = dbias; dw.parts = (float *)work; dw.dy = dy; dw.y = y; dw.x = x;
    if (learns) LAUNCH_PRODUCT(c, linear_dw, dw);
    if (learns && dw.splits > 1)
        LAUNCH(c, add_gradients, blocks_for_parts((size_t)dw.m * dw.n), dweight, dbias, dw.parts, s->out_features,
               s->in_features, dw.splits);
    if (!dx) return;
    linear_dx_job job = linear_dx_sizes(*s);
    job.dx = dx; job.parts = (float *)work; job.dy = dy; job.y = y; job.w = weight;
    LAUNCH_PRODUCT(c, linear_dx, job);
    if (job.splits > 1)
        LAUNCH(c, add_parts, threads_for((size_t)job.m * job.n), dx, job.parts, (size_t)job.m * job.n, job.splits);
}

/* ---- batch normalisation ---- */

static size_t cuda_batch_norm_work(void *, const cnn_batch_norm_shape *) { return 0; }

static void cuda_batch_norm_forward(void *context, const cnn_batch_norm_shape *s, float *y, float *saved, float *mean, float *var,
                                    int64_t *batches, const float *x, const float *weight, const float *bias)
{
    LAUNCH(of(context), batch_norm_forward, dim3((unsigned)s->channels), *s, y, saved, mean, var, batches, x, weight, bias);
}

static void cuda_batch_norm_backward(void *context, const cnn_batch_norm_shape *s, float *dx, float *dweight, float *dbias,
                                     const float *dy, const float *y, const float *saved, const float *x, const float *weight,
                                     void *)
{
    LAUNCH(of(context), batch_norm_backward, dim3((unsigned)s->channels), *s, dx, dweight, dbias, dy, y, saved, x, weight);
}

/* ---- value by value ---- */

static void cuda_activation_forward(void *context, cnn_activation f, float slope, float *y, const float *x, size_t n)
{
    if (f == CNN_GELU) LAUNCH(of(context), gelu_forward, threads_for(n), y, x, n);
    else LAUNCH(of(context), activation_forward, threads_for(n), f, slope, y, x, n);
}

static void cuda_activation_backward(void *context, cnn_activation f, float slope, float *dx, const float *dy,
                                     const float *y, const float *x, size_t n)
{
    if (f == CNN_GELU) LAUNCH(of(context), gelu_backward, threads_for(n), dx, dy, x, n);
    else LAUNCH(of(context), activation_backward, threads_for(n), f, slope, dx, dy, y, n);
}

static void cuda_prelu_forward(void *context, const cnn_map_shape *s, float *y, const float *x, const float *weight)
{
    LAUNCH(of(context), prelu_forward, threads_for((size_t)s->batch * s->channels * s->pixels), *s, y, x, weight);
}

static void cuda_prelu_backward(void *context, const cnn_map_shape *s, float *dx, float *dweight, const float *dy,
                                const float *x, const float *weight, float *)
{
    if (dweight) LAUNCH(of(context), prelu_da, dim3((unsigned)s->channels), *s, dweight, dy, x);
    if (dx) LAUNCH(of(context), prelu_dx, threads_for((size_t)s->batch * s->channels * s->pixels), *s, dx, dy, x, weight);
}

static void cuda_add(void *context, float *y, const float *a, const float *b, size_t n)
{
    LAUNCH(of(context), sum_of, threads_for(n), y, a, b, n);
}

static void cuda_copy_channels(void *context, const cnn_copy_shape *s, float *to, const float *from)
{
    LAUNCH(of(context), copy_channels, threads_for((size_t)s->batch * s->channels * s->pixels), *s, to, from);
}

static void cuda_pad2d(void *context, const cnn_pad2d_shape *s, float *to, const float *from)
{
    LAUNCH(of(context), pad2d, threads_for((size_t)s->batch * s->channels * s->out_height * s->out_width), *s, to, from);
}

static void cuda_softmax_forward(void *context, const cnn_map_shape *s, float *y, const float *x)
{
    LAUNCH(of(context), softmax_forward, threads_for((size_t)s->batch * s->pixels), *s, y, x);
}

static void cuda_softmax_backward(void *context, const cnn_map_shape *s, float *dx, const float *dy, const float *y)
{
    LAUNCH(of(context), softmax_backward, threads_for((size_t)s->batch * s->pixels), *s, dx, dy, y);
}

static float grown(float p) { return p < 1 ? (float)(1.0 / (1.0 - p)) : 0; }   /* the factor of values that are kept */

static void cuda_naive_dropout(void *context, const cnn_counters *c, int layer, float p, float *y, const float *x,
                               size_t n)
{
    LAUNCH(of(context), dropout_naive, threads_for(n), c, layer, p, grown(p), y, x, n);
}

static void cuda_dropout(void *context, const cnn_counters *c, int layer, float p, float *y, const float *x, size_t n)
{
    LAUNCH(of(context), dropout, threads_for((n + 3) / 4), c, layer, p, grown(p), y, x, n);
}

/* ---- losses, gathering, counting, optimizers ---- */

static void cuda_softmax_cross_entropy(void *context, cnn_counters *c, const cnn_cross_entropy_options *o, float *dy,
                                       const float *y, const float *target, const int *labels, int batch, int outputs)
{
    LAUNCH(of(context), softmax_cross_entropy, 1, c, *o, dy, y, target, labels, batch, outputs);
}

static void cuda_mse(void *context, cnn_counters *c, float *dy, const float *y, const float *target, const int *labels,
                     int batch, int outputs)
{
    size_t count = (size_t)batch * outputs;
    if (dy) LAUNCH(of(context), mse_gradient, threads_for(count), dy, y, target, labels, count, outputs);
    LAUNCH(of(context), mse_loss, 1, c, y, target, labels, batch, outputs);
}

static void cuda_gather(void *context, const cnn_counters *k, const cnn_gather_shape *s, float *x,
                        const unsigned char *bytes, const float *floats, const int *order, const float *scale,
                        const float *shift)
{
    size_t n = (size_t)s->batch * s->channels * s->height * s->width;
    const cnn_augment_options &a = s->augment;
    if (a.padding || a.flip || a.rotation > 0 || a.scale > 0)
        LAUNCH(of(context), gather_augmented, threads_for(n), k, *s, x, bytes, floats, order, scale, shift);
    else LAUNCH(of(context), gather, threads_for(n), k, *s, x, bytes, floats, order, scale, shift);
}

static void cuda_gather_rows(void *context, const cnn_counters *k, void *to, const void *from, const int *order,
                             int batch, int width)
{
    LAUNCH(of(context), gather_rows, threads_for((size_t)batch * width), k, (unsigned *)to, (const unsigned *)from,
           order, batch, width);
}

static void cuda_next_batch(void *context, cnn_counters *c, int size, int training)
{
    LAUNCH(of(context), next_batch, 1, c, size, training);
}

static void cuda_clip_grad_norm(void *context, cnn_counters *c, float *g, size_t n, const cnn_span *spans, int count,
                                float max_norm)
{
    double *sums = of(context)->scratch, *factor = sums + THREADS;
    LAUNCH(of(context), clip_squares, THREADS, sums, g, n, spans, count);
    LAUNCH(of(context), clip_norm, 1, c, factor, sums, max_norm);
    LAUNCH(of(context), clip_scale, threads_for(n), g, factor, n, spans, count);
}

static dim3 threads_for_spans(int count) { return threads_for((size_t)(count > 0 ? count : 1)); }

static void cuda_sgd_step(void *context, cnn_counters *c, const cnn_sgd_options *o, float *w, float *v, const float *g,
                          size_t n, cnn_span *spans, int count)
{
    LAUNCH(of(context), sgd_step, threads_for(n), c, *o, w, v, g, n, spans, count);
    LAUNCH(of(context), count_step, threads_for_spans(count), c, spans, count);
}

static void cuda_adam_step(void *context, cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w, float *m,
                           float *v, const float *g, size_t n, cnn_span *spans, int count)
{
    LAUNCH(of(context), count_step, threads_for_spans(count), c, spans, count);
    LAUNCH(of(context), adam_at_step, threads_for_spans(count), c, *o, decoupled, spans, count);
    LAUNCH(of(context), adam_step, threads_for(n), *o, w, m, v, g, n, spans, count);
}

/* ---- the tables ---- */

static cnn_backend cuda_backend()
{
    cnn_backend b;
    memset(&b, 0, sizeof b);
    b.version = CNN_BACKEND_VERSION;
    b.name = "cuda";
    b.open = cuda_open;
    b.close = cuda_close;
    b.alloc = cuda_alloc;
    b.free = cuda_free;
    b.upload = cuda_upload;
    b.download = cuda_download;
    b.zero = cuda_zero;
    b.sync = cuda_sync;
    b.conv2d_work = cuda_conv2d_work;
    b.conv2d_forward = cuda_conv2d_forward;
    b.conv2d_backward = cuda_conv2d_backward;
    b.pool2d_forward = cuda_pool2d_forward;
    b.pool2d_backward = cuda_pool2d_backward;
    b.linear_work = cuda_linear_work;
    b.linear_forward = cuda_linear_forward;
    b.linear_backward = cuda_linear_backward;
    b.batch_norm_work = cuda_batch_norm_work;
    b.batch_norm_forward = cuda_batch_norm_forward;
    b.batch_norm_backward = cuda_batch_norm_backward;
    b.activation_forward = cuda_activation_forward;
    b.activation_backward = cuda_activation_backward;
    b.prelu_forward = cuda_prelu_forward;
    b.prelu_backward = cuda_prelu_backward;
    b.add = cuda_add;
    b.copy_channels = cuda_copy_channels;
    b.pad2d = cuda_pad2d;
    b.softmax_forward = cuda_softmax_forward;
    b.softmax_backward = cuda_softmax_backward;
    b.dropout_forward = b.dropout_backward = cuda_dropout;
    b.softmax_cross_entropy = cuda_softmax_cross_entropy;
    b.mse = cuda_mse;
    b.gather = cuda_gather;
    b.gather_rows = cuda_gather_rows;
    b.next_batch = cuda_next_batch;
    b.clip_grad_norm = cuda_clip_grad_norm;
    b.sgd_step = cuda_sgd_step;
    b.adam_step = cuda_adam_step;
    b.step_begin = cuda_step_begin;
    b.step_end = cuda_step_end;
    return b;
}

static cnn_backend cuda_naive_backend()
{
    cnn_backend b = cuda_backend();
    b.name = "cuda_naive";
    b.conv2d_forward = cuda_naive_conv2d_forward;
    b.conv2d_backward = cuda_naive_conv2d_backward;
    b.pool2d_backward = cuda_naive_pool2d_backward;
    b.linear_forward = cuda_naive_linear_forward;
    b.linear_backward = cuda_naive_linear_backward;
    b.dropout_forward = b.dropout_backward = cuda_naive_dropout;
    return b;
}

static struct registration {
    registration()
    {
        cnn_backend cuda = cuda_backend(), naive = cuda_naive_backend();
        cnn_register_backend(&cuda);
        cnn_register_backend(&naive);
    }
} before_main;
