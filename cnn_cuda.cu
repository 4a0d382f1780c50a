/* cnn_cuda.cu - the backend `cuda` of cnn.h: the same table, filled with CUDA kernels.

   Do this:
       nvcc -O3 -std=c++17 -arch=native -c cnn_cuda.cu       then link cnn_cuda.o with the program: make CUDA=1 lenet5
       cnn_to(net, "cuda");                                  or, for any example: ./lenet5 --backend cuda

   Only nvcc is needed, of CUDA 11.6 or newer: no cuBLAS, cuDNN, cuRAND or Thrust. Linking this file is enough: it
   registers its tables with cnn.h before main() begins. There are two:

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
   rounds the factors of convolutions of 3 x 3 and 5 x 5 with many channels to TF32 and multiplies them on tensor cores.
   Nothing else uses TF32.

   The same file compiles as C++ for a CPU: g++ -include tests/cuda/cuda_shim.h -x c++ cnn_cuda.cu. So it is tested on
   machines without a GPU, and a debugger can step through it: make cuda-on-cpu lenet5. */
#include "cnn.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#ifndef CUDA_LAUNCH                         /* the only construct that is not C++; tests/cuda/cuda_shim.h has its own */
#define CUDA_LAUNCH(name, kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)
#endif

enum { THREADS = 256 };                     /* in every block */

/* ============================================================================================
   >>launch   Every operation launches kernels on one stream; only download and sync wait for them. The first error is
              kept as one message with the kernel's name, which sync returns. With CNN_CUDA_CHECK=1 in the environment
              every launch is waited for, so that the name is certainly the right one.

              Between step_begin and step_end launches are not run but listed. At the end of the list it is compared,
              arguments included, with the lists that came before. The first time a list runs launch by launch, because
              CUDA may load a kernel only when it first runs, and not while a graph is recorded. The second time it is
              recorded as a graph, which from then on replays all launches at once. So a graph never runs with stale
              arguments. Lists repeat because what changes from step to step, the counters, is in device memory. A list
              ends with its step, or at a copy to or from the device: such a step is two graphs.
   ============================================================================================ */
struct cuda_call {
    const char *name;
    std::string same;                       /* kernel, grid and arguments as bytes: equal where the call is the same */
    std::function<void(cudaStream_t)> run;
};

typedef std::vector<cuda_call> call_list;

struct cuda_graph {
    call_list list;
    cudaGraphExec_t run;                    /* NULL: the list came once */
};

struct cuda_context {
    cudaStream_t stream;
    char sentence[256];                     /* the first thing that went wrong */
    char refusal[256], told[256];           /* what is too large for a kernel: told once, and then forgotten */
    const char *last;                       /* the kernel launched last */
    bool check;                             /* wait after each kernel */
    bool knows_tf32;                        /* both the device and the compiled code have TF32 */
    double *scratch;                        /* SCRATCH numbers, for operations that get no `work` */
    unsigned char *staging;                 /* uploads are copied here, so that they need not wait for the stream */
    size_t staged;
    bool listing;                           /* between step_begin and step_end */
    call_list list;                         /* launches to come */
    std::vector<cuda_graph> graphs;         /* at most GRAPHS; the one used last is at the end */
};

enum { SCRATCH = 1024, STAGING = 1 << 20, GRAPHS = 8 };

static cuda_context *of(void *context) { return (cuda_context *)context; }

static void note(cuda_context *c, const char *name, cudaError_t error, const char *or_before = "")
{
    if (error == cudaSuccess || c->sentence[0]) return;
    snprintf(c->sentence, sizeof c->sentence, "%s%s: %s", name, or_before, cudaGetErrorString(error));
}

static void wait(cuda_context *c)           /* what went wrong in a kernel shows itself when somebody waits for it */
{
    note(c, c->last, cudaStreamSynchronize(c->stream), " or a kernel before it");
}

static void run_calls(cuda_context *c)
{
    for (const cuda_call &call : c->list) {
        if (c->sentence[0]) return;
        call.run(c->stream);
        c->last = call.name;
        note(c, call.name, cudaGetLastError(), c->check ? "" : " or a kernel before it");
        if (c->check) note(c, call.name, cudaStreamSynchronize(c->stream));
    }
}

template <class T> static void add_bytes(std::string *to, const T &value)
{
    to->append((const char *)&value, sizeof value);
}

static void run_or_list(cuda_context *c, const cuda_call &call)
{
    c->list.push_back(call);
    if (c->listing) return;
    run_calls(c);
    c->list.clear();
}

/* LAUNCH(context, kernel, grid, arguments...) runs kernel in blocks of THREADS threads */
#define LAUNCH(c, kernel, grid, ...) launch(c, #kernel, kernel, grid, __VA_ARGS__)

template <class... Parameters, class... Arguments>
static void launch(cuda_context *c, const char *name, void (*kernel)(Parameters...), dim3 grid,
                   const Arguments &...arguments)
{
    cuda_call call = { name, "", [=](cudaStream_t stream) {
                           CUDA_LAUNCH(name, kernel, grid, THREADS, stream, arguments...);
                       } };
    add_bytes(&call.same, kernel);
    add_bytes(&call.same, grid);
    (add_bytes<Parameters>(&call.same, arguments), ...);
    run_or_list(c, call);
}

static dim3 threads_for(size_t n) { return dim3((unsigned)((n + THREADS - 1) / THREADS)); }

static __device__ size_t thread_index() { return (size_t)blockIdx.x * THREADS + threadIdx.x; }

static void forget(cuda_context *c, cuda_graph *graph)
{
    cudaStreamSynchronize(c->stream);
    if (graph->run) cudaGraphExecDestroy(graph->run);
}

static cudaGraphExec_t record(cuda_context *c)             /* the list as a graph */
{
    cudaGraph_t graph;
    cudaGraphExec_t run = NULL;
    cudaError_t error = cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal);
    if (error == cudaSuccess) {
        run_calls(c);
        error = cudaStreamEndCapture(c->stream, &graph);
    }
    if (error == cudaSuccess) {
        if (!c->sentence[0]) error = cudaGraphInstantiateWithFlags(&run, graph, 0);
        cudaGraphDestroy(graph);
    }
    note(c, "recording a step", error);
    return run;
}

static bool operator==(const cuda_call &a, const cuda_call &b) { return a.same == b.same; }

static void run_list(cuda_context *c)
{
    size_t i = 0;
    if (c->list.empty()) return;
    if (c->sentence[0]) { c->list.clear(); return; }       /* the results are lost, and the first error is the cause */
    while (i < c->graphs.size() && !(c->graphs[i].list == c->list)) i++;
    bool known = i < c->graphs.size();
    if (known) std::rotate(c->graphs.begin() + (long)i, c->graphs.begin() + (long)i + 1, c->graphs.end());
    else {
        if (c->graphs.size() == GRAPHS) {
            forget(c, &c->graphs[0]);
            c->graphs.erase(c->graphs.begin());
        }
        c->graphs.push_back(cuda_graph{ c->list, NULL });
    }
    cuda_graph *graph = &c->graphs.back();
    if (!known) run_calls(c);
    else if (!graph->run) graph->run = record(c);
    c->list.clear();
    if (!graph->run) return;
    c->last = "a recorded step";
    note(c, c->last, cudaGraphLaunch(graph->run, c->stream));
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
    wait(c);
    if (c->sentence[0]) return c->sentence;
    memcpy(c->told, c->refusal, sizeof c->told);
    c->refusal[0] = 0;
    return c->told[0] ? c->told : NULL;
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
    bool large = bytes > STAGING;
    run_list(c);
    if (large || c->staged + bytes > STAGING) {            /* full: goes on at the front when all has been copied */
        wait(c);
        c->staged = 0;
    }
    if (!large) host = memcpy(c->staging + c->staged, host, bytes);
    note(c, "upload", cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, c->stream));
    if (large) note(c, "upload", cudaStreamSynchronize(c->stream));
    else c->staged += bytes;
}

static void cuda_download(void *context, void *host, const void *from, size_t bytes)
{
    cuda_context *c = of(context);
    run_list(c);
    wait(c);                                /* first, so that a kernel's error is not called the copy's */
    note(c, "download", cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, c->stream));
    note(c, "download", cudaStreamSynchronize(c->stream));
    if (c->sentence[0]) memset(host, 0, bytes);            /* not uninitialised memory */
}

static void cuda_zero(void *context, void *memory, size_t bytes)
{
    cuda_call call = { "zero", "", [=](cudaStream_t stream) { cudaMemsetAsync(memory, 0, bytes, stream); } };
    add_bytes(&call.same, memory);
    add_bytes(&call.same, bytes);
    run_or_list(of(context), call);
}

static void cuda_close(void *context)
{
    cuda_context *c = of(context);
    for (cuda_graph &graph : c->graphs) forget(c, &graph);
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
    c->last = "the start";
    cudaGetLastError();                     /* an earlier one is not this context's */
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
    cudaGetLastError();
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
               3. While a tile is multiplied, the values of the next one are on their way into registers: they are first
                  used when they are stored. The parts of their addresses that depend only on the column, or only on the
                  step of TILE_K, are computed once.
               4. Where k is long and the tiles are few, blocks share a sum; add_parts adds their parts in order.
   ============================================================================================ */
enum { TILE_K = 16, ENOUGH_BLOCKS = 256 };

/* a(m, step, k) and b(column, step, k) are the values of A and B. Finding one in an image takes divisions and checks,
   so what many values share is computed before: `column`, for the columns of B that a thread copies during the whole
   sum (one where its values go along k), and `step`, for TILE_K values of k. step_of(group, column, own): `own` is the
   k of a thread whose values go along k. */
struct product_job {
    static const int at_once = 2;           /* blocks on a multiprocessor: each thread may have 128 registers */
    int m, n, k;                            /* of one group */
    int groups, splits, share;              /* each split sums `share` values of k */
    float *parts;                           /* (split, group, m, n): where the sum is split */

    typedef int column;                     /* of a matrix in memory: nothing to compute */
    struct step {};
    typedef float raw;                      /* a value of A as it is loaded, and as it is multiplied */
    __device__ column column_of(int, int n_) const { return n_; }
    __device__ step step_of(int, const column &, int) const { return step(); }
    __device__ float finished(raw a) const { return a; }
    __host__ __device__ size_t values() const { return (size_t)groups * m * n; }
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
                                             int left, int from, int end, typename Job::raw *a, float *b)
{
    int at, k;
    const typename Job::step step = job.step_of(group, columns[0], from + (int)threadIdx.x % TILE_K);
#pragma unroll
    for (int i = 0; i < M * TILE_K / THREADS; i++) {
        place<M, Job::a_along_k>(i, &at, &k);
        a[i] = top + at < job.m && from + k < end ? job.a(top + at, step, from + k) : typename Job::raw();
    }
#pragma unroll
    for (int i = 0; i < N * TILE_K / THREADS; i++) {
        place<N, Job::b_along_k>(i, &at, &k);
        b[i] = left + at < job.n && from + k < end ? job.b(columns[Job::b_along_k ? i : 0], step, from + k) : 0;
    }
}

template <int M, int N, int TM, class Job>
static __device__ __forceinline__ void product(const Job &job, int z, float (*a)[M + 4], float (*b)[N + 4])
{
    int group = z / job.splits, split = z % job.splits;
    int top = (int)blockIdx.y * M, left = (int)blockIdx.x * N;
    int row = (int)threadIdx.x / (N / 4) * TM, column = (int)threadIdx.x % (N / 4) * 4;
    int begin = split * job.share, end = min(begin + job.share, job.k), at, k;
    float sum[TM][4] = {}, next_b[N * TILE_K / THREADS];
    if (top >= job.m || left >= job.n) return;             /* a launch of two products has the larger one's grid */
    typename Job::raw next_a[M * TILE_K / THREADS];
    typename Job::column columns[N * TILE_K / THREADS];
    find_columns<N>(job, group, left, columns);
    fetch<M, N>(job, group, columns, top, left, begin, end, next_a, next_b);
    for (int from = begin; from < end; from += TILE_K) {
#pragma unroll
        for (int i = 0; i < M * TILE_K / THREADS; i++) {
            place<M, Job::a_along_k>(i, &at, &k);
            a[k][at] = job.finished(next_a[i]);
        }
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
    for (int i = 0; i < TM; i++) {
        int m = top + row + i;
        float *part = job.parts + (((size_t)split * job.groups + group) * job.m + m) * job.n;
        if (m >= job.m) break;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int n = left + column + j;
            if (n >= job.n) break;
            if (job.splits > 1) part[n] = sum[i][j];
            else job.store(group, m, n, sum[i][j]);
        }
    }
}

/* ---- long sums ---- */

struct shares { int count, each; };

/* Where a sum is long and the tiles are only `blocks`, it is shared among more of them: in whole steps, and no share
   shorter than `shortest`. The sizes alone decide, not the device, so that the order of a sum, and every bit of it, is
   the same everywhere. */
static shares share_sum(size_t blocks, int length, int shortest, int step)
{
    int wanted = std::min((int)((ENOUGH_BLOCKS + blocks - 1) / blocks), length / shortest);
    if (wanted < 2) return { 1, length };
    int each = std::max(length / wanted / step * step, shortest);
    return { (length + each - 1) / each, each };
}

enum { VALUES_A_BLOCK = 32, PARTS_AT_ONCE = 8 };

template <class Job> static __device__ void store_value(const Job &job, size_t at, float sum)
{
    job.store((int)(at / job.n / job.m), (int)(at / job.n % job.m), (int)(at % job.n), sum);
}

/* The second launch of a shared sum: a block has 32 values, each with 8 threads that add every 8th part. They load
   eight parts before they add the first, so that no load waits for another. Then 32 threads add the 8 sums. */
template <class Job> static __global__ void __launch_bounds__(THREADS) add_parts(Job job)
{
    enum { SHARERS = THREADS / VALUES_A_BLOCK };
    __shared__ float sums[THREADS];
    size_t count = job.values(), at = (size_t)blockIdx.x * VALUES_A_BLOCK + threadIdx.x % VALUES_A_BLOCK;
    float sum = 0, part[PARTS_AT_ONCE];
    int first = at < count ? (int)threadIdx.x / VALUES_A_BLOCK : job.splits;
    for (; first < job.splits; first += SHARERS * PARTS_AT_ONCE) {
#pragma unroll
        for (int i = 0; i < PARTS_AT_ONCE; i++) {
            int split = first + i * SHARERS;
            part[i] = split < job.splits ? job.parts[split * count + at] : 0;
        }
#pragma unroll
        for (int i = 0; i < PARTS_AT_ONCE; i++) sum += part[i];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();                        /* all have added their share */
    if (threadIdx.x >= VALUES_A_BLOCK || at >= count) return;
    for (int i = (int)threadIdx.x + VALUES_A_BLOCK; i < THREADS; i += VALUES_A_BLOCK) sum += sums[i];
    store_value(job, at, sum);
}

template <class Job> static void launch_add_parts(cuda_context *c, const Job &job)
{
    launch(c, "add_parts", add_parts<Job>, dim3((unsigned)((job.values() + VALUES_A_BLOCK - 1) / VALUES_A_BLOCK)), job);
}

/* The same within a block: PARTS groups of threads have N sums each. Halves are added until the first group has all,
   always in the same order. `room` is shared memory that nobody reads any more. */
template <int PARTS, int N, int ROOM> static __device__ __forceinline__ void add_groups(float *sum, float *room)
{
    enum { MEMBERS = THREADS / PARTS, AT_ONCE = ROOM / THREADS };
    int t = (int)threadIdx.x;
#pragma unroll 1
    for (int half = THREADS / 2; half >= MEMBERS; half /= 2) {
#pragma unroll
        for (int first = 0; first < N; first += AT_ONCE) {
            for (int i = first; i < N && i < first + AT_ONCE; i++) room[(i - first) * THREADS + t] = sum[i];
            __syncthreads();                /* all have written */
            for (int i = first; t < half && i < N && i < first + AT_ONCE; i++)
                sum[i] += room[(i - first) * THREADS + t + half];
            __syncthreads();                /* before room is used again */
        }
    }
}

/* ---- kernels by the size of their tiles ----

   Each family of kernels has a table, one line a tile. Of those for a size of convolution kernel, the one is taken that
   reads shared memory least often, zeros at the edge of the tiles included. */
template <class Job> struct choice {
    void (*run)(Job);
    int kernel_size, rows, columns;         /* 0: any; of the tile */
    int squares;                            /* of 8 x 8 pixels, see there */
    float reads;                            /* for one product */
    bool tf32;
};

static int tiles_of(int n, int size) { return (n + size - 1) / size; }

template <class Job, size_t N>
static const choice<Job> &choose(const choice<Job> (&all)[N], int kernel_size, int rows, int columns, bool tf32)
{
    const choice<Job> *best = NULL;
    double least = 0;
    for (const choice<Job> &each : all) {
        double reads = (double)tiles_of(rows, each.rows) * each.rows * tiles_of(columns, each.columns) * each.columns
                     * each.reads;
        if (each.kernel_size != kernel_size || each.tf32 != tf32 || (best && reads > least)) continue;
        best = &each;
        least = reads;
    }
    return *best;
}

template <int M, int N, int TM, class Job>
static __global__ void __launch_bounds__(THREADS, Job::at_once) product_kernel(Job job)
{
    __shared__ float a[TILE_K][M + 4], b[TILE_K][N + 4];
    product<M, N, TM>(job, (int)blockIdx.z, a, b);
}

template <class Job> static const choice<Job> &product_for(const Job &job)
{
    static const choice<Job> all[] = { { product_kernel<16, 128, 2, Job>, 0, 16, 128, 0, 0.75f, false },
                                       { product_kernel<64, 64, 4, Job>, 0, 64, 64, 0, 0.5f, false } };
    return choose(all, 0, job.m, job.n, false);
}

static dim3 blocks_of(const product_job &job, int rows, int columns)
{
    return dim3((unsigned)tiles_of(job.n, columns), (unsigned)tiles_of(job.m, rows),
                (unsigned)(job.groups * job.splits));
}

static void split(product_job *job, int rows, int columns)             /* between tiles of this size, if they are few */
{
    job->splits = 1;
    dim3 grid = blocks_of(*job, rows, columns);
    shares of = share_sum((size_t)grid.x * grid.y * grid.z, job->k, 256, TILE_K);
    job->splits = of.count;
    job->share = of.each;
}

template <class Job> static void split(Job *job) { split(job, product_for(*job).rows, product_for(*job).columns); }

static size_t parts_of(const product_job &job) { return job.splits > 1 ? job.splits * job.values() : 0; }

template <class Job> static void launch_product(cuda_context *c, const char *name, const Job &job)
{
    const choice<Job> &kernel = product_for(job);
    launch(c, name, kernel.run, blocks_of(job, kernel.rows, kernel.columns), job);
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

/* z(row, column) of a map, or NULL for a zero */
static __device__ __forceinline__ const float *z_at(const cnn_conv2d_shape &s, const float *map, int row, int column)
{
    row = border(row, s.in_height, s.padding_mode);
    column = border(column, s.in_width, s.padding_mode);
    return row < 0 || column < 0 ? NULL : map + (size_t)row * s.in_width + column;
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

/* The same for N values: the choice comes once */
template <int N> static __device__ __forceinline__ void activate(cnn_activation tau, float slope, float *x)
{
    if (tau == CNN_RELU)
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = activation_at(CNN_RELU, 0, x[i]);
    else
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = activation_at(tau, slope, x[i]);
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
    for (int c = 0; c < depth; c++) {
        const float *map = z + ((size_t)n * s.in_channels + first + c) * s.in_height * s.in_width;
        for (int y = 0; y < s.kernel_height; y++)
            for (int x = 0; x < s.kernel_width; x++) {
                const float *v = z_at(s, map, j * s.stride_height + y * s.dilation_height - s.pad_top,
                                      i * s.stride_width + x * s.dilation_width - s.pad_left);
                if (v) sum += *v * u[(((size_t)k * depth + c) * s.kernel_height + y) * s.kernel_width + x];
            }
    }
    f[at] = sum;
}

/* What the jobs of forward and dz have in common: k is (channel, tap) */
struct conv2d_job : product_job {
    cnn_conv2d_shape s;
    int channels;                           /* summed in each group */
    divider taps, kernel_width;
    size_t plane;                           /* values of a channel of the image */

    struct column { const float *image; int j, i; };       /* the place of tap (0, 0) */
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

/* As a product, for each group:  rows m: its maps k;  columns n: all pixels of the batch;  k: (c, y, x). */
struct conv2d_forward_job : conv2d_job {
    divider pixels, width;                  /* of f */
    float *f;
    const float *z, *u, *bias;

    __device__ column column_of(int group, int n_) const               /* a pixel: the corner of its window */
    {
        int rest, i, img = divided(n_, pixels, &rest), j = divided(rest, width, &i);
        return { z + ((size_t)img * s.in_channels + group * channels) * plane, j * s.stride_height - s.pad_top,
                 i * s.stride_width - s.pad_left };
    }

    __device__ const float *under(const column &pixel, int tap) const
    {
        int x, y = divided(tap, kernel_width, &x);
        return z_at(s, pixel.image, pixel.j + y * s.dilation_height, pixel.i + x * s.dilation_width);
    }

    __device__ step step_of(int group, const column &, int own) const { return { u + (size_t)group * m * k + own }; }
    __device__ float a(int m_, const step &at, int) const { return at.weights[(size_t)m_ * k]; }
    __device__ float b(const column &pixel, const step &, int k_) const { return conv2d_b(*this, pixel, k_); }

    __device__ void store(int group, int m_, int n_, float sum) const
    {
        int map = group * m + m_, rest, img = divided(n_, pixels, &rest);
        f[((size_t)img * s.out_channels + map) * pixels.d + rest]
            = activation_at(s.activation, s.slope, sum + (bias ? bias[map] : 0));
    }
};

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

/* What df of N maps is made from. All values are read, needed or not, and no branch depends on one, so that the reads
   do not wait for one another, nor for what is done between `load` and `finish`. */
template <int N> struct raw_df {
    float dy[N], y[N];
    unsigned char index[N];

    __device__ __forceinline__ void load(const cnn_conv2d_shape &s, const conv2d_dy &g, conv2d_df_place of, int map)
    {
        unsigned plane = (unsigned)(pools(s) ? s.pool.out_height * s.pool.out_width : s.out_height * s.out_width);
#pragma unroll
        for (int i = 0; i < N; i++) {
            size_t at = of.at + (unsigned)min(map + i, s.out_channels - 1) * plane;
            dy[i] = g.dy[at];
            y[i] = g.y[at];
            index[i] = pools(s) ? g.index[at] : (unsigned char)0;
        }
    }

    /* df of the maps from `map` on, zeros beyond the last */
    __device__ __forceinline__ void finish(const cnn_conv2d_shape &s, conv2d_df_place of, int map, float *df) const
    {
        if (s.activation == CNN_RELU)       /* tested once, not for each value */
#pragma unroll
            for (int i = 0; i < N; i++) df[i] = dy[i] * activation_slope(CNN_RELU, 0, y[i]);
        else
#pragma unroll
            for (int i = 0; i < N; i++) df[i] = dy[i] * activation_slope(s.activation, s.slope, y[i]);
#pragma unroll
        for (int i = 0; i < N; i++) {
            bool won = of.winner == ALWAYS || (of.winner != NOWHERE && index[i] == of.winner);
            df[i] = won && map + i < s.out_channels ? df[i] : 0;
        }
    }
};

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
    if (pools(s) && !pools_in_a_thread(s)) {
        df[at] = conv2d_df_overlapping(s, g, map, j, i);
        return;
    }
    conv2d_df_place of = conv2d_df_place_of(s, img, j, i);
    raw_df<1> raw;
    raw.load(s, g, of, (int)(map % s.out_channels));
    raw.finish(s, of, (int)(map % s.out_channels), df + at);
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

    __device__ void store(int group, int c, int n_, float sum) const
    {
        int rest, img = divided(n_, pixels, &rest);
        dz[((size_t)img * s.in_channels + group * m + c) * pixels.d + rest] = sum;
    }
};

/* ---- TF32, on tensor cores ----

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

/* A lane's values of A and B. at: its first one, A(g, t) or B(t, g); from there it is `down` to A(g + 8, t) and `deep`
   to A(g, t + 4) or B(t + 4, g). */
static __device__ __forceinline__ void lane_a(unsigned a[4], const float *at, int down, int deep)
{
    for (int i = 0; i < 4; i++) a[i] = bits_of(at[i % 2 * down + i / 2 * deep]);
}

static __device__ __forceinline__ void lane_b(unsigned b[2], const float *at, int deep)
{
    for (int i = 0; i < 2; i++) b[i] = bits_of(at[i * deep]);
}

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

/* z at tap (y, x) of a square's first pixel, in channel 0; NULL: zeros */
static __device__ __forceinline__ const float *z_of_square(const cnn_conv2d_shape &s, const float *z, const square &q,
                                                           int y, int x)
{
    if (q.img >= s.batch) return NULL;
    return z_at(s, z + (size_t)q.img * s.in_channels * s.in_height * s.in_width, q.j + y - s.pad_top,
                q.i + x - s.pad_left);
}

/* A job loads N channels of a point at once, and finishes them when they are stored. */
struct conv2d_forward_squares {
    cnn_conv2d_shape s;
    square_grid grid;
    int m, channels, taps;
    int splits, share;                      /* one: all channels */
    bool pooled;                            /* each 2 x 2 pixels are a window */
    float *y;
    unsigned char *index;
    const float *z, *u, *bias;

    typedef const float *point;

    template <int N> struct loaded {
        float v[N];

        __device__ __forceinline__ void load(const conv2d_forward_squares &job, point at, int c)
        {
#pragma unroll
            for (int i = 0; i < N; i++)
                v[i] = at && c + i < job.channels ? at[(unsigned)(c + i) * job.plane()] : 0;
        }
        __device__ __forceinline__ void finish(const conv2d_forward_squares &, point, int, float *to) const
        {
#pragma unroll
            for (int i = 0; i < N; i++) to[i] = v[i];
        }
    };

    __device__ point point_of(const square &q, int y, int x) const { return z_of_square(s, z, q, y, x); }
    __device__ unsigned plane() const { return (unsigned)(s.in_height * s.in_width); }
    __device__ const float *w(int m_, int c, int tap) const { return u + ((size_t)m_ * channels + c) * taps + tap; }
    __device__ size_t next_w() const { return (size_t)channels * taps; }               /* from one m to the next */

    /* 2 x 2 sums: with bias and activation all are written, or the largest of the window, and which it was */
    __device__ void store_square(const square &q, int k, int j, int i, float *f) const
    {
        const cnn_pool2d_shape &p = s.pool;
        float largest = 0, b = bias ? bias[k] : 0;
        int winner = -1;
        if (q.img >= s.batch) return;
        size_t map = (size_t)q.img * s.out_channels + k;
        j += q.j;
        i += q.i;
#pragma unroll
        for (int pixel = 0; pixel < 4; pixel++) f[pixel] += b;
        activate<4>(s.activation, s.slope, f);
#pragma unroll
        for (int pixel = 0; pixel < 4; pixel++) {
            int row = j + pixel / 2, column = i + pixel % 2;
            if (row < 0 || row >= s.out_height || column < 0 || column >= s.out_width) continue;
            if (!pooled) y[(map * s.out_height + row) * s.out_width + column] = f[pixel];
            if (winner >= 0 && !(f[pixel] > largest || f[pixel] != f[pixel])) continue;
            winner = pixel;
            largest = f[pixel];
        }
        int row = (j + p.pad_height) / 2, column = (i + p.pad_width) / 2;
        if (!pooled || row >= p.out_height || column >= p.out_width) return;
        size_t at = (map * p.out_height + row) * p.out_width + column;
        y[at] = largest;
        if (index) index[at] = (unsigned char)winner;
    }
};

struct conv2d_dz_squares {
    cnn_conv2d_shape s;
    square_grid grid;
    int m, channels, taps;                  /* in_channels, out_channels */
    int splits, share;                      /* where blocks are few: each sums over `share` of the channels */
    float *dz, *parts;
    const float *u;
    conv2d_dy g;

    typedef conv2d_df_place point;

    template <int N> struct loaded {
        raw_df<N> raw;

        __device__ __forceinline__ void load(const conv2d_dz_squares &job, point at, int k)
        {
            raw.load(job.s, job.g, at, k);
        }
        __device__ __forceinline__ void finish(const conv2d_dz_squares &job, point at, int k, float *to) const
        {
            raw.finish(job.s, at, k, to);
        }
    };

    __host__ __device__ size_t values() const { return (size_t)s.batch * m * s.in_height * s.in_width; }

    __device__ point point_of(const square &q, int y, int x) const
    {
        int top = s.kernel_height - 1 - s.pad_top, left = s.kernel_width - 1 - s.pad_left;
        return conv2d_df_place_of(s, q.img, q.j + y - top, q.i + x - left);
    }

    __device__ const float *w(int c, int k, int tap) const { return u + ((size_t)k * m + c) * taps + taps - 1 - tap; }
    __device__ size_t next_w() const { return (size_t)taps; }

    __device__ void store_square(const square &q, int c, int j, int i, float *sum) const
    {
        float *to = (splits > 1 ? parts + blockIdx.z * values() : dz)
                  + ((size_t)q.img * m + c) * s.in_height * s.in_width;
        if (q.img >= s.batch) return;
#pragma unroll
        for (int pixel = 0; pixel < 4; pixel++) {
            int row = q.j + j + pixel / 2, column = q.i + i + pixel % 2;
            if (row < s.in_height && column < s.in_width) to[row * s.in_width + column] = sum[pixel];
        }
    }
};

static __device__ void store_value(const conv2d_dz_squares &job, size_t at, float sum) { job.dz[at] = sum; }

/* A block's shared memory. For tensor cores a warp reads 8 pixels or maps of 4 channels at once, from 32 different
   banks: channels of v are 8 or 24 banks apart, maps of w 12, with their taps in a row. In float32 maps are
   neighbours. */
template <int K_, int M_, int SQUARES_, bool tf32_> struct conv2d_tile {
    enum {
        K = K_, M = M_, SQUARES = SQUARES_, TAPS = K * K, SIDE = SQUARE + K - 1, POINTS = SIDE * SIDE,
        DEPTH = tf32_ ? 8 : 4, AREA = (POINTS + 7) / 16 * 16 + 8, WEIGHTS = DEPTH * TAPS,
        ROW = tf32_ ? WEIGHTS + 4 : M + 4, ROWS = tf32_ ? M : WEIGHTS
    };
    static const bool tf32 = tf32_;
    float v[SQUARES * DEPTH * AREA], w[ROWS * ROW];

    static __device__ int spot(int m, int of_m) { return tf32 ? m * ROW + of_m : of_m * ROW + m; } /* of_m: (c, tap) */
};

/* A thread has one channel and tap of every AT_ONCE-th map */
template <class Tile> struct weights_of {
    enum { AT_ONCE = THREADS / Tile::WEIGHTS, TURNS = (Tile::M + AT_ONCE - 1) / AT_ONCE };
    float next[TURNS];

    template <class Job> __device__ __forceinline__ void load(const Job &job, int top, int c)
    {
        int of_m = (int)threadIdx.x % Tile::WEIGHTS, first = (int)threadIdx.x / Tile::WEIGHTS;
        int channel = c + of_m / Tile::TAPS, left = channel < job.channels ? job.m - top : 0;
        const float *w = job.w(top + first, channel, of_m % Tile::TAPS);
#pragma unroll
        for (int i = 0; i < TURNS; i++) next[i] = first + i * AT_ONCE < left ? w[i * AT_ONCE * job.next_w()] : 0;
    }

    __device__ __forceinline__ void store(Tile *tile) const
    {
        int of_m = (int)threadIdx.x % Tile::WEIGHTS, first = (int)threadIdx.x / Tile::WEIGHTS;
        if (first >= AT_ONCE) return;
#pragma unroll
        for (int i = 0; i < TURNS; i++)
            if (first + i * AT_ONCE < Tile::M)
                tile->w[Tile::spot(first + i * AT_ONCE, of_m)] = as_factor<Tile::tf32>(next[i]);
    }
};

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

    template <class Job> __device__ __forceinline__ void store(const Job &job, int first, int top)
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
        const float *w = tile->w + Tile::spot(map, t * Tile::TAPS);
        const int down = Tile::spot(8, 0), deep = Tile::spot(0, 4 * Tile::TAPS);
#pragma unroll
        for (int x = 0; x < Tile::K; x++) {
            unsigned a[4], b[Tile::K + 3][2];              /* the rows that the windows of four rows of pixels have */
            for (int row = 0; row < Tile::K + 3; row++) lane_b(b[row], v + row * Tile::SIDE + x, 4 * Tile::AREA);
            for (int y = 0; y < Tile::K; y++)
                for (int i = 0; i < ROWS; i++) {
                    lane_a(a, w + Tile::spot(16 * i, y * Tile::K + x), down, deep);
                    for (int row = 0; row < 4; row++) mma_tf32(sum[i][row], a, b[row + y]);
                }
        }
    }

    template <class Job> __device__ __forceinline__ void store(const Job &job, int first, int top)
    {
        auto q = job.grid.at(first + square);
#pragma unroll
        for (int e = 0; e < ROWS * 4; e++) {               /* rows g and g + 8 of D, upper and lower pixels */
            int i = e / 4, d = e % 2 * 2, row = e / 2 % 2 * 2, m = top + map + 16 * i + e % 2 * 8;
            float four[4] = { sum[i][row][d], sum[i][row][d + 1], sum[i][row + 1][d], sum[i][row + 1][d + 1] };
            if (m < job.m) job.store_square(q, m, j + row, 2 * t, four);
        }
    }
};

/* The values of the next channels are loaded while those that lie in shared memory are multiplied, as far as there are
   registers for them: not in TF32, whose steps are twice as deep, nor for 8 squares; nor the weights of 5 x 5. */
template <int K, int M, int SQUARES, bool tf32, class Job>
static __global__ void __launch_bounds__(THREADS, 2) conv2d_squares(Job job)
{
    typedef conv2d_tile<K, M, SQUARES, tf32> Tile;
    __shared__ Tile tile;
    if (tf32 && !KNOWS_TF32) return;
    enum { TURNS = (SQUARES * Tile::POINTS + THREADS - 1) / THREADS, DEPTH = Tile::DEPTH };
    const bool ahead = !tf32 && SQUARES <= 4, weights_ahead = ahead && K == 3;
    int first = (int)blockIdx.x * SQUARES, top = (int)blockIdx.y * M;
    int begin = (int)blockIdx.z * job.share, end = min(begin + job.share, job.channels);
    typename Job::point points[TURNS];      /* those that this thread copies, the same in all channels */
    typename Job::template loaded<DEPTH> next[TURNS];
    weights_of<Tile> weights;
    typename std::conditional<tf32, patches_tf32<Tile>, patches_float32<Tile>>::type patches;
    patches.begin();
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++) {
        int e = (int)threadIdx.x + turn * THREADS, point = e % Tile::POINTS;
        points[turn] = job.point_of(job.grid.at(first + e / Tile::POINTS), point / Tile::SIDE, point % Tile::SIDE);
        if (ahead) next[turn].load(job, points[turn], begin);
    }
    if (weights_ahead) weights.load(job, top, begin);
    for (int c = begin; c < end; c += DEPTH) {
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) {
            int e = (int)threadIdx.x + turn * THREADS;
            float v[DEPTH], *to = tile.v + e / Tile::POINTS * DEPTH * Tile::AREA + e % Tile::POINTS;
            if (e >= SQUARES * Tile::POINTS) break;
            if (!ahead) next[turn].load(job, points[turn], c);
            next[turn].finish(job, points[turn], c, v);
            for (int i = 0; i < DEPTH; i++) to[i * Tile::AREA] = as_factor<tf32>(v[i]);
        }
        if (!weights_ahead) weights.load(job, top, c);
        weights.store(&tile);
        __syncthreads();                    /* squares and kernels are there */
#pragma unroll
        for (int turn = 0; turn < TURNS && ahead && c + DEPTH < end; turn++)
            next[turn].load(job, points[turn], c + DEPTH);
        if (weights_ahead && c + DEPTH < end) weights.load(job, top, c + DEPTH);
        patches.add(&tile, min(DEPTH, end - c));
        __syncthreads();                    /* all have read them */
    }
    patches.store(job, first, top);
}

/* More squares where maps are few, so that all threads have work */
template <int K, int M, int SQUARES, bool tf32, class Job> static choice<Job> squares_choice()
{
    typedef patches_float32<conv2d_tile<K, M, SQUARES, tf32>> patches;
    float reads = (2.0f * (K + 1) + K * patches::MAPS) / (4 * K * patches::MAPS);
    return { conv2d_squares<K, M, SQUARES, tf32, Job>, K, M, 1, SQUARES, reads, tf32 };
}

template <class Job> static const choice<Job> &squares_for(const Job &job, bool tf32)
{
    static const choice<Job> all[] = {
        squares_choice<3, 16, 4, false, Job>(), squares_choice<3, 32, 4, false, Job>(),
        squares_choice<3, 64, 2, false, Job>(), squares_choice<5, 8, 8, false, Job>(),
        squares_choice<5, 16, 4, false, Job>(), squares_choice<5, 32, 4, false, Job>(),
        squares_choice<3, 16, 4, true, Job>(),  squares_choice<3, 32, 4, true, Job>(),
        squares_choice<3, 64, 2, true, Job>(),  squares_choice<5, 16, 4, true, Job>(),
        squares_choice<5, 32, 4, true, Job>()
    };
    return choose(all, job.s.kernel_width, job.m, 1, tf32);
}

template <class Job> static dim3 squares_blocks(const Job &job, const choice<Job> &kernel)
{
    return dim3((unsigned)tiles_of(job.grid.count, kernel.squares), (unsigned)tiles_of(job.m, kernel.rows),
                (unsigned)job.splits);
}

template <class Job> static void launch_squares(cuda_context *c, const char *name, const Job &job, bool tf32)
{
    const choice<Job> &kernel = squares_for(job, tf32);
    launch(c, name, kernel.run, squares_blocks(job, kernel), job);
}

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
        const float *map = z + ((size_t)n * s.in_channels + channel) * s.in_height * s.in_width;
        for (int j = 0; j < s.out_height; j++)
            for (int i = 0; i < s.out_width; i++) {
                const float *v = z_at(s, map, j * s.stride_height + y * s.dilation_height - s.pad_top,
                                      i * s.stride_width + x * s.dilation_width - s.pad_left);
                if (v) sum += g[(size_t)j * s.out_width + i] * *v;
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
   k: all pixels of the batch. The sums are long and few, so they are split. */
struct conv2d_du_job : product_job {
    cnn_conv2d_shape s;
    divider pixels, width;                  /* of f */
    divider taps, kernel_width;
    int depth;
    float *du, *db;
    const float *df, *z;

    static const bool a_along_k = true, b_along_k = true;
    static const int at_once = 1;           /* at two, the compiler is four registers short on sm_120 */

    struct column { int channel, j, i; };  /* where its values begin in an image, and a tap; -1: the bias */
    struct step { const float *df; size_t image; int j, i; };          /* a pixel of the first map, its image */

    __device__ column column_of(int group, int n_) const
    {
        int tap, x, c = divided(n_, taps, &tap), y = divided(tap, kernel_width, &x);
        int first = (group * depth + c) * s.in_height * s.in_width;
        return { c < depth ? first : -1, y * s.dilation_height - s.pad_top, x * s.dilation_width - s.pad_left };
    }

    __device__ step step_of(int group, const column &, int own) const
    {
        int rest, i, img = divided(own, pixels, &rest), j = divided(rest, width, &i);
        size_t image = (size_t)img * s.in_channels * s.in_height * s.in_width;
        return { df + ((size_t)img * s.out_channels + group * m) * pixels.d + rest, image,
                 j * s.stride_height, i * s.stride_width };
    }

    __device__ float a(int m_, const step &at, int) const { return at.df[(size_t)m_ * pixels.d]; }

    __device__ float b(const column &of, const step &at, int) const
    {
        if (of.channel < 0) return 1;
        const float *v = z_at(s, z + at.image + of.channel, at.j + of.j, at.i + of.i);
        return v ? *v : 0;
    }

    __device__ void store(int group, int m_, int n_, float sum) const
    {
        int map = group * m + m_, weights = depth * (int)taps.d;
        if (n_ == weights) db[map] += sum;
        else if (du) du[(size_t)map * weights + n_] += sum;
    }
};

/* ---- du, square by square ----

   A block goes through its share of the squares. It un-pools df of M maps, copies z of C channels to shared memory and
   adds df(k,j,i) z(c, j + y - top, i + x - left) for all taps (y, x). Sums stay in registers until the end. */
struct conv2d_du_squares {
    cnn_conv2d_shape s;
    square_grid grid;
    int m, channels, taps;
    int splits, share;                      /* blocks of a sum; squares of each */
    float *parts;                           /* a split's: (tap, k, c), for neighbours to write neighbours; (k) of db */
    float *du, *db;
    const float *z;
    conv2d_dy g;

    __host__ __device__ size_t weights() const { return (size_t)m * channels * taps; }
    __host__ __device__ size_t values() const { return weights() + (db ? m : 0); }
};

static __device__ void store_value(const conv2d_du_squares &job, size_t at, float sum)
{
    size_t maps = job.weights() / job.taps;
    if (at >= job.weights()) job.db[at - job.weights()] += sum;
    else if (job.du) job.du[at % maps * job.taps + at / maps] += sum;
}

template <int K_, int M_, int C_, int SQUARES_, bool tf32_> struct conv2d_du_tile {
    enum {
        K = K_, M = M_, C = C_, SQUARES = SQUARES_, TAPS = K * K, SIDE = SQUARE + K - 1, POINTS = SIDE * SIDE,
        PIXELS = SQUARE * SQUARE, AREA = (POINTS + 3) / 8 * 8 + 4,
        ROW = PIXELS + 4                    /* channels, and maps, are 4 or 20 banks apart */
    };
    static const bool tf32 = tf32_;
    float v[SQUARES * C * AREA], df[SQUARES * M * ROW];
};

/* A thread has MAPS maps of one channel, and some rows of the pixels: with a row of z and one of df in registers, it
   has K products for each value */
template <class Tile> struct taps_float32 {
    enum {
        MAPS = Tile::K == 3 ? 4 : 2, N = MAPS * Tile::TAPS, GROUPS = Tile::M / MAPS,
        PARTS = THREADS / (Tile::C * GROUPS), ROWS = Tile::SQUARES * SQUARE / PARTS
    };
    float sum[N];                           /* (map, tap) */
    int c, group, part;                     /* the thread's own; maps are `group`, and every GROUPS-th after it */

    __device__ __forceinline__ void begin()
    {
        c = (int)threadIdx.x % Tile::C;
        group = (int)threadIdx.x / Tile::C % GROUPS;
        part = (int)threadIdx.x / (Tile::C * GROUPS);
        for (int i = 0; i < N; i++) sum[i] = 0;
    }

    __device__ __forceinline__ void add(const Tile *tile)
    {
        for (int row = part * ROWS; row < (part + 1) * ROWS; row++) {
            int square = row / SQUARE, j = row % SQUARE;
            float df[MAPS][SQUARE], z[Tile::SIDE];
            for (int k = 0; k < MAPS; k++)
                for (int i = 0; i < SQUARE; i++)
                    df[k][i] = tile->df[(square * Tile::M + group + k * GROUPS) * Tile::ROW + j * SQUARE + i];
#pragma unroll
            for (int y = 0; y < Tile::K; y++) {
                for (int i = 0; i < Tile::SIDE; i++)
                    z[i] = tile->v[(square * Tile::C + c) * Tile::AREA + (j + y) * Tile::SIDE + i];
                for (int k = 0; k < MAPS; k++)
                    for (int x = 0; x < Tile::K; x++)
                        for (int i = 0; i < SQUARE; i++) sum[k * Tile::TAPS + y * Tile::K + x] += df[k][i] * z[i + x];
            }
        }
    }

    __device__ __forceinline__ void place_of(int i, int *k, int *channel, int *tap) const
    {
        *k = group + i / Tile::TAPS * GROUPS;
        *channel = c;
        *tap = i % Tile::TAPS;
    }
};

/* A warp has 16 ROWS maps of 8 channels, and some rows of the pixels: one instruction sums a row of 8 pixels. */
template <class Tile> struct taps_tf32 {
    enum {
        ROWS = 2, N = ROWS * Tile::TAPS * 4, DOWN = Tile::M / (16 * ROWS), ACROSS = Tile::C / 8,
        PARTS = THREADS / 32 / (DOWN * ACROSS)
    };
    float sum[N];                           /* (16 maps, tap, D of a lane) */
    int map, c, part, g, t;

    __device__ __forceinline__ void begin()
    {
        int warp = (int)threadIdx.x / 32;
        g = (int)threadIdx.x % 32 / 4;
        t = (int)threadIdx.x % 4;
        map = warp % DOWN * 16 * ROWS + g;
        c = warp / DOWN % ACROSS * 8;
        part = warp / (DOWN * ACROSS);
        for (int i = 0; i < N; i++) sum[i] = 0;
    }

    __device__ __forceinline__ void add(const Tile *tile)
    {
        for (int j = part * (SQUARE / PARTS); j < (part + 1) * (SQUARE / PARTS); j++) {
            unsigned a[ROWS][4], b[2];
            const float *df = tile->df + map * Tile::ROW + j * SQUARE + t;
            const float *v = tile->v + (c + g) * Tile::AREA + j * Tile::SIDE + t;
            for (int i = 0; i < ROWS; i++) lane_a(a[i], df + 16 * i * Tile::ROW, 8 * Tile::ROW, 4);
#pragma unroll
            for (int tap = 0; tap < Tile::TAPS; tap++) {
                lane_b(b, v + tap / Tile::K * Tile::SIDE + tap % Tile::K, 4);
                for (int i = 0; i < ROWS; i++) mma_tf32(sum + (i * Tile::TAPS + tap) * 4, a[i], b);
            }
        }
    }

    __device__ __forceinline__ void place_of(int i, int *k, int *channel, int *tap) const
    {
        *k = map + 16 * (i / 4 / Tile::TAPS) + i % 4 / 2 * 8;
        *channel = c + 2 * t + i % 2;
        *tap = i / 4 % Tile::TAPS;
    }
};

template <class Tile>
static __device__ __forceinline__ void copy_z(Tile *tile, const conv2d_du_squares &job, int n, int left)
{
    enum { ALL = Tile::SQUARES * Tile::POINTS, AT_ONCE = 2 * ALL <= THREADS ? 2 : 1, LANES = THREADS / AT_ONCE };
    unsigned plane = (unsigned)(job.s.in_height * job.s.in_width);
    for (int e = (int)threadIdx.x % LANES; e < ALL; e += LANES) {
        int square = e / Tile::POINTS, point = e % Tile::POINTS;
        const float *z = z_of_square(job.s, job.z, job.grid.at(n + square), point / Tile::SIDE, point % Tile::SIDE);
#pragma unroll 4
        for (int c = (int)threadIdx.x / LANES; c < Tile::C; c += AT_ONCE)
            tile->v[(square * Tile::C + c) * Tile::AREA + point]
                = as_factor<Tile::tf32>(z && left + c < job.channels ? z[(unsigned)(left + c) * plane] : 0);
    }
}

template <class Tile>
static __device__ __forceinline__ void copy_df(Tile *tile, const conv2d_du_squares &job, int n, int top)
{
    enum { ALL = Tile::SQUARES * Tile::PIXELS, SHARERS = ALL < THREADS ? THREADS / ALL : 1, LANES = THREADS / SHARERS };
    enum { MAPS = Tile::M / SHARERS, AT_ONCE = MAPS < 4 ? (int)MAPS : 4 };
    for (int e = (int)threadIdx.x % LANES; e < ALL; e += LANES) {
        int at = e / Tile::PIXELS, pixel = e % Tile::PIXELS, first = (int)threadIdx.x / LANES * MAPS;
        square q = job.grid.at(n + at);
        conv2d_df_place of = conv2d_df_place_of(job.s, q.img, q.j + pixel / SQUARE, q.i + pixel % SQUARE);
#pragma unroll 1
        for (int k = first; k < first + MAPS; k += AT_ONCE) {
            raw_df<AT_ONCE> raw;
            float df[AT_ONCE];
            raw.load(job.s, job.g, of, top + k);
            raw.finish(job.s, of, top + k, df);
            for (int i = 0; i < AT_ONCE; i++)
                tile->df[(at * Tile::M + k + i) * Tile::ROW + pixel] = as_factor<Tile::tf32>(df[i]);
        }
    }
}

template <int K, int M, int C, int SQUARES, bool tf32>
static __global__ void __launch_bounds__(THREADS, 2) conv2d_du_by_squares(conv2d_du_squares job)
{
    typedef conv2d_du_tile<K, M, C, SQUARES, tf32> Tile;
    typedef typename std::conditional<tf32, taps_tf32<Tile>, taps_float32<Tile>>::type Taps;
    enum { BIAS_PARTS = THREADS / M, PIXELS = SQUARES * Tile::PIXELS / BIAS_PARTS };   /* of a thread, for the bias */
    __shared__ Tile tile;
    if (tf32 && !KNOWS_TF32) return;
    int split = (int)blockIdx.x, top = (int)blockIdx.y * M, left = (int)blockIdx.z * C;
    int map = (int)threadIdx.x % M, first = (int)threadIdx.x / M * PIXELS;
    float bias = 0, *parts = job.parts + split * job.values();
    Taps taps;
    taps.begin();
    for (int n = split * job.share; n < min((split + 1) * job.share, job.grid.count); n += SQUARES) {
        copy_z(&tile, job, n, left);
        copy_df(&tile, job, n, top);
        __syncthreads();                    /* squares of df and of z are there */
        taps.add(&tile);
        const float *df = tile.df + (first / Tile::PIXELS * M + map) * Tile::ROW + first % Tile::PIXELS;
        for (int i = 0; job.db && i < PIXELS; i++)         /* maps in the same bank: each reads another pixel */
            bias += df[(i + map / 8) % PIXELS];
        __syncthreads();                    /* all have read it */
    }
    add_groups<Taps::PARTS, Taps::N, sizeof tile / sizeof(float)>(taps.sum, tile.v);
    if (taps.part == 0)
#pragma unroll
        for (int i = 0; i < Taps::N; i++) {
            int k, c, tap;
            taps.place_of(i, &k, &c, &tap);
            if (top + k < job.m && left + c < job.channels)
                parts[((size_t)tap * job.m + top + k) * job.channels + left + c] = taps.sum[i];
        }
    if (!job.db || blockIdx.z) return;
    add_groups<BIAS_PARTS, 1, THREADS>(&bias, tile.v);
    if ((int)threadIdx.x < M && top + map < job.m) parts[job.weights() + top + map] = bias;
}

/* Many squares at once where channels are few, as those of a picture: so all threads have work. A value that is copied
   takes the time of about four reads. */
template <int K, int M, int C, int SQUARES, bool tf32> static choice<conv2d_du_squares> du_choice()
{
    float reads = 0.3f + (4.0f / C + 4.0f / M) / (K * K);
    return { conv2d_du_by_squares<K, M, C, SQUARES, tf32>, K, M, C, SQUARES, reads, tf32 };
}

static const choice<conv2d_du_squares> &du_for(const cnn_conv2d_shape &s, bool tf32)
{
    static const choice<conv2d_du_squares> all[] = {
        du_choice<3, 32, 1, 4, false>(), du_choice<3, 32, 4, 2, false>(), du_choice<3, 16, 8, 1, false>(),
        du_choice<3, 32, 8, 1, false>(), du_choice<3, 64, 8, 1, false>(), du_choice<5, 8, 1, 8, false>(),
        du_choice<5, 8, 4, 2, false>(),  du_choice<5, 16, 8, 1, false>(), du_choice<5, 64, 8, 1, false>(),
        du_choice<3, 32, 32, 1, true>(), du_choice<3, 64, 32, 1, true>()
    };
    return choose(all, s.kernel_width, s.out_channels, s.in_channels, tf32);
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
    float *y;
    const float *x, *w, *bias;

    static const bool a_along_k = true, b_along_k = true;

    __device__ float a(int n_, step, int i) const { return x[(size_t)n_ * k + i]; }
    __device__ float b(int o, step, int i) const { return w[(size_t)o * k + i]; }

    __device__ void store(int, int n_, int o, float sum) const
    {
        y[(size_t)n_ * n + o] = activation_at(s.activation, s.slope, sum + (bias ? bias[o] : 0));
    }
};

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

/* What dW and dx have in common: dy tau'(y), of which both factors are on their way while a tile is multiplied */
struct linear_backward_job : product_job {
    cnn_linear_shape s;
    const float *dy, *y;

    struct raw { float dy, y; };
    __device__ raw raw_at(size_t out) const { return { dy[out], y[out] }; }
    __device__ float finished(raw at) const { return at.dy * activation_slope(s.activation, s.slope, at.y); }
};

/* rows m: samples n;  columns n: inputs i;  k: outputs o */
struct linear_dx_job : linear_backward_job {
    float *dx;
    const float *w;

    static const bool a_along_k = true, b_along_k = false;

    __device__ raw a(int n_, step, int o) const { return raw_at((size_t)n_ * k + o); }
    __device__ float b(int i, step, int o) const { return w[(size_t)o * n + i]; }
    __device__ void store(int, int n_, int i, float sum) const { dx[(size_t)n_ * n + i] = sum; }
};

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
struct linear_dw_job : linear_backward_job {
    float *dw, *db;
    const float *x;

    static const bool a_along_k = false, b_along_k = false;

    __device__ raw a(int o, step, int n_) const { return raw_at((size_t)n_ * m + o); }
    __device__ float b(int i, step, int n_) const { return i < s.in_features ? x[(size_t)n_ * s.in_features + i] : 1; }

    __device__ void store(int, int o, int i, float sum) const
    {
        if (i >= s.in_features) db[o] += sum;
        else if (dw) dw[(size_t)o * s.in_features + i] += sum;
    }
};

/* Both products side by side in one launch: alone, neither fills the device. One that is not wanted has no splits. */
static __global__ void __launch_bounds__(THREADS, 2) linear_backward(linear_dw_job dw, linear_dx_job dx)
{
    __shared__ float a[TILE_K][64 + 4], b[TILE_K][64 + 4];
    int z = (int)blockIdx.z;
    if (z < dw.splits) product<64, 64, 4>(dw, z, a, b);
    else product<64, 64, 4>(dx, z - dw.splits, a, b);
}

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

/* One thread draws for four values, as many words as Philox gives at once. The words change hands in shared memory, so
   that neighbouring threads read and write neighbours. */
static __global__ void __launch_bounds__(THREADS) dropout(const cnn_counters *c, int layer, float p, float grown,
                                                          float *y, const float *x, size_t n)
{
    __shared__ unsigned words[4 * THREADS];
    size_t first = (size_t)blockIdx.x * 4 * THREADS;
    random_words(words + 4 * threadIdx.x, c->seed, (unsigned)layer, c->pass, (unsigned)thread_index());
    __syncthreads();                        /* all have drawn */
    for (unsigned i = threadIdx.x; i < 4 * THREADS && first + i < n; i += THREADS)
        y[first + i] = unit(words[i]) >= p ? x[first + i] * grown : 0;
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

/* Up to THREADS blocks: each sums its share of the squares. dy NULL: not wanted. */
static __global__ void __launch_bounds__(THREADS) mse(double *sums, float *dy, const float *y, const float *target,
                                                      const int *labels, size_t count, int outputs)
{
    __shared__ double shared[THREADS];
    double sum = 0;
    for (size_t at = thread_index(); at < count; at += (size_t)gridDim.x * THREADS) {
        float error = mse_error(y, target, labels, at, outputs);
        if (dy) dy[at] = 2 * error / (float)count;
        sum += (double)error * error;
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/* One block adds the sums; a thread classifies every THREADS-th sample. */
static __global__ void __launch_bounds__(THREADS) mse_loss(cnn_counters *c, const double *sums, int blocks,
                                                           const float *y, const int *labels, int batch, int outputs)
{
    __shared__ double shared[THREADS];
    double correct = 0, loss = block_sum((int)threadIdx.x < blocks ? sums[threadIdx.x] : 0, shared);
    for (int n = (int)threadIdx.x; labels && n < batch; n += THREADS)
        correct += argmax(y + (size_t)n * outputs, outputs) == labels[n];
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
    if (i >= n) return;
    float weight = w[i], velocity = v ? v[i] : 0, gradient = g[i];
    const cnn_span *s = span_at(spans, count, i);
    if (!s) return;
    float d = gradient + s->weight_decay * weight;
    if (v) {
        v[i] = velocity = o.momentum * velocity + d;
        d = o.nesterov ? d + o.momentum * velocity : velocity;
    }
    w[i] = weight - (float)c->lr * d;
}

enum { SHRINK, DECAY, RATE, ROOT };         /* the numbers in cnn_span.same during Adam's step */

/* Counts as count_step does: the span's step becomes t. */
static __global__ void adam_begin(cnn_counters *c, cnn_adam_options o, int decoupled, cnn_span *spans, int count)
{
    size_t k = thread_index();
    if (k == 0) c->step++;
    if (k >= (size_t)count) return;
    cnn_span *s = &spans[k];
    double lr = c->lr, t = (double)(s->step += s->trainable != 0);
    s->same[SHRINK] = decoupled ? (float)(1 - lr * s->weight_decay) : 1;
    s->same[DECAY] = decoupled ? 0 : s->weight_decay;
    s->same[RATE] = (float)(lr / (1 - pow((double)o.beta1, t)));
    s->same[ROOT] = (float)(1 / sqrt(1 - pow((double)o.beta2, t)));
}

/* All loads come before the first store: so none waits for another. */
static __global__ void adam_step(cnn_adam_options o, float *w, float *m, float *v, const float *g, size_t n,
                                 const cnn_span *spans, int count)
{
    size_t i = thread_index();
    if (i >= n) return;
    float weight = w[i], mean = m[i], square = v[i], gradient = g[i];
    const cnn_span *s = span_at(spans, count, i);
    if (!s) return;
    float d = gradient + s->same[DECAY] * weight;
    mean = o.beta1 * mean + (1 - o.beta1) * d;
    square = o.beta2 * square + (1 - o.beta2) * d * d;
    m[i] = mean;
    v[i] = square;
    w[i] = weight * s->same[SHRINK] - s->same[RATE] * mean / (sqrtf(square) * s->same[ROOT] + o.eps);
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
    if (!c->refusal[0])
        snprintf(c->refusal, sizeof c->refusal, "%s: %.0f values are too many; use a smaller batch", name, columns);
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

static bool in_squares(const cnn_conv2d_shape &s)          /* not of small maps: squares would be half empty */
{
    int squares = squares_over(1, s.out_height, s.out_width, 0, 0).count;
    return is_common(s) && 2 * s.out_height * s.out_width >= squares * SQUARE * SQUARE;
}

/* With fewer channels, loading the values takes longer than multiplying them; with fewer rows, the instruction's 16 are
   not all used. The rows are maps in the forward pass and for du, and input channels for dz. */
static bool in_tf32(const cuda_context *c, const cnn_conv2d_shape &s, int rows)
{
    return c->knows_tf32 && s.allow_tf32 && s.in_channels >= 16 && rows >= 16;
}

static conv2d_du_job conv2d_du_sizes(const cnn_conv2d_shape &s, bool bias)
{
    conv2d_du_job job;
    memset((void *)&job, 0, sizeof job);    /* with its padding: arguments are compared byte by byte */
    job.s = s;
    job.groups = s.groups;
    job.depth = s.in_channels / s.groups;
    job.m = s.out_channels / s.groups;
    job.n = job.depth * s.kernel_height * s.kernel_width + bias;
    job.k = s.batch * s.out_height * s.out_width;
    job.pixels = divide_by(s.out_height * s.out_width);
    job.width = divide_by(s.out_width);
    job.taps = divide_by(s.kernel_height * s.kernel_width);
    job.kernel_width = divide_by(s.kernel_width);
    split(&job);
    return job;
}

static conv2d_dz_squares conv2d_dz_squares_sizes(const cnn_conv2d_shape &s, bool tf32)
{
    conv2d_dz_squares job;
    memset((void *)&job, 0, sizeof job);
    job.s = s;
    job.grid = squares_over(s.batch, s.in_height, s.in_width, 0, 0);
    job.m = s.in_channels;
    job.channels = s.out_channels;
    job.taps = s.kernel_height * s.kernel_width;
    job.splits = 1;
    dim3 blocks = squares_blocks(job, squares_for(job, tf32));
    shares of = share_sum((size_t)blocks.x * blocks.y, job.channels, 16, 8);
    job.splits = of.count;
    job.share = of.each;
    return job;
}

static conv2d_du_squares conv2d_du_squares_sizes(const cnn_conv2d_shape &s, const choice<conv2d_du_squares> &kernel,
                                                 float *db)
{
    conv2d_du_squares job;
    memset((void *)&job, 0, sizeof job);
    job.s = s;
    job.grid = squares_over(s.batch, s.out_height, s.out_width, 0, 0);
    job.m = s.out_channels;
    job.channels = s.in_channels;
    job.taps = s.kernel_height * s.kernel_width;
    job.db = db;
    shares of = share_sum((size_t)tiles_of(job.m, kernel.rows) * tiles_of(job.channels, kernel.columns), job.grid.count,
                          std::max(4, 2 * kernel.squares), kernel.squares);
    job.splits = of.count;
    job.share = of.each;
    return job;
}

static size_t squares_parts(const cnn_conv2d_shape &s, bool tf32)      /* of du, then of dz */
{
    float db = 0;
    conv2d_du_squares du = conv2d_du_squares_sizes(s, du_for(s, tf32 && s.kernel_width == 3), &db);
    conv2d_dz_squares dz = conv2d_dz_squares_sizes(s, tf32);
    return std::max(du.splits * du.values(), dz.splits > 1 ? dz.splits * dz.values() : 0);
}

/* work: f, or df; then the padded dz; then the parts of dW and db */
static float *conv2d_padded(const cnn_conv2d_shape &s, void *work) { return (float *)work + conv2d_outputs(s); }

static size_t conv2d_before_parts(const cnn_conv2d_shape &s)
{
    return conv2d_outputs(s) + (s.padding_mode == CNN_ZEROS ? 0 : grid_values(s));
}

static size_t cuda_conv2d_work(void *, const cnn_conv2d_shape *s)
{
    if ((double)s->batch * s->out_height * s->out_width > INT_MAX || (double)grid_values(*s) / s->in_channels > INT_MAX)
        return 1;                           /* too many: the passes will report it, see fits */
    /* with fewer columns there may be more splits */
    size_t parts = std::max(parts_of(conv2d_du_sizes(*s, true)), parts_of(conv2d_du_sizes(*s, false)));
    if (in_squares(*s)) parts = std::max(squares_parts(*s, false), squares_parts(*s, true));
    return sizeof(float) * (conv2d_before_parts(*s) + parts);
}

/* Nothing is kept of the weights. Without their version a launch is the same when they change: it can be recorded. */
static cnn_conv2d_shape without_version(const cnn_conv2d_shape *shape)
{
    cnn_conv2d_shape s = *shape;
    s.weight_version = 0;
    return s;
}

static void cuda_naive_conv2d_forward(void *context, const cnn_conv2d_shape *shape, float *y, unsigned char *index,
                                      const float *x, const float *weight, const float *bias, void *work)
{
    cuda_context *c = of(context);
    const cnn_conv2d_shape own = without_version(shape), *s = &own;
    float *f = pools(*s) ? (float *)work : y;
    size_t n = conv2d_outputs(*s);
    LAUNCH(c, conv2d_forward_naive, threads_for(n), *s, f, x, weight, bias);
    LAUNCH(c, activation_forward, threads_for(n), s->activation, s->slope, f, f, n);
    if (pools(*s))
        LAUNCH(c, pool2d_forward, threads_for(pool2d_outputs(s->pool)), s->pool, y, index, f);
}

static void run_forward_squares(cuda_context *c, const cnn_conv2d_shape &s, float *y, unsigned char *index,
                                const float *x, const float *weight, const float *bias)
{
    const cnn_pool2d_shape &p = s.pool;
    conv2d_forward_squares job;
    memset((void *)&job, 0, sizeof job);
    job.s = s;
    job.pooled = pools_in_a_thread(s);
    job.grid = job.pooled ? squares_over(s.batch, 2 * p.out_height, 2 * p.out_width, -p.pad_height, -p.pad_width)
                          : squares_over(s.batch, s.out_height, s.out_width, 0, 0);
    job.m = s.out_channels;
    job.channels = job.share = s.in_channels;
    job.taps = s.kernel_height * s.kernel_width;
    job.splits = 1;
    job.y = y; job.index = index; job.z = x; job.u = weight; job.bias = bias;
    launch_squares(c, "conv2d_forward_squares", job, in_tf32(c, s, job.m));
}

static void run_forward_product(cuda_context *c, const cnn_conv2d_shape &s, float *f, const float *x,
                                const float *weight, const float *bias)
{
    conv2d_forward_job job;
    memset((void *)&job, 0, sizeof job);
    job.s = s;
    job.groups = s.groups;
    job.m = s.out_channels / s.groups;
    job.n = s.batch * s.out_height * s.out_width;
    count_k(&job, s.in_channels / s.groups);
    job.plane = (size_t)s.in_height * s.in_width;
    job.pixels = divide_by(s.out_height * s.out_width);
    job.width = divide_by(s.out_width);
    job.f = f; job.z = x; job.u = weight; job.bias = bias;
    launch_product(c, "conv2d_forward", job);
}

static void cuda_conv2d_forward(void *context, const cnn_conv2d_shape *shape, float *y, unsigned char *index,
                                const float *x, const float *weight, const float *bias, void *work)
{
    cuda_context *c = of(context);
    const cnn_conv2d_shape own = without_version(shape), *s = &own;
    bool squares = in_squares(*s), pools_apart = pools(*s) && !(squares && pools_in_a_thread(*s));
    float *f = pools_apart ? (float *)work : y;
    if (!fits(c, "conv2d_forward", (double)s->batch * s->out_height * s->out_width)) return;
    if (squares) run_forward_squares(c, *s, f, index, x, weight, bias);
    else run_forward_product(c, *s, f, x, weight, bias);
    if (pools_apart) LAUNCH(c, pool2d_forward, threads_for(pool2d_outputs(s->pool)), s->pool, y, index, f);
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
                           const float *df, float *parts)
{
    conv2d_du_job du = conv2d_du_sizes(s, dbias != NULL);
    du.parts = parts; du.du = dweight; du.db = dbias; du.z = x; du.df = df;
    launch_product(c, "conv2d_du", du);
    if (du.splits > 1) launch_add_parts(c, du);
}

static void run_du_squares(cuda_context *c, const cnn_conv2d_shape &s, float *dweight, float *dbias, const float *x,
                           const conv2d_dy &g, float *parts)
{
    const choice<conv2d_du_squares> &kernel = du_for(s, in_tf32(c, s, s.out_channels) && s.kernel_width == 3);
    conv2d_du_squares du = conv2d_du_squares_sizes(s, kernel, dbias);
    du.parts = parts; du.du = dweight; du.z = x; du.g = g;
    launch(c, "conv2d_du_squares", kernel.run, dim3((unsigned)du.splits, (unsigned)tiles_of(du.m, kernel.rows),
                                                    (unsigned)tiles_of(du.channels, kernel.columns)), du);
    launch_add_parts(c, du);
}

static void cuda_conv2d_backward(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias,
                                 const float *dy, const float *y, const unsigned char *index, const float *x,
                                 const float *weight, void *work)
{
    cuda_context *c = of(context);
    if (!fits(c, "conv2d_backward", (double)grid_values(*s) / s->in_channels)
        || !fits(c, "conv2d_backward", (double)conv2d_outputs(*s) / s->out_channels))
        return;
    /* Squares un-pool df while they copy it: they read 9 bytes for four of its values, and df is never written. But a
       product reads each value once for each tap, so df is written first. */
    conv2d_dy g = { dy, y, index };
    cnn_conv2d_shape from = *s;             /* the shape that fits g */
    bool squares = in_squares(*s);
    if (!squares || (pools(*s) && !pools_in_a_thread(*s))) {
        g.dy = g.y = run_conv2d_df(c, s, g, work);
        from.activation = CNN_NO_ACTIVATION;
        memset(&from.pool, 0, sizeof from.pool);
    }
    float *parts = (float *)work + conv2d_before_parts(*s);
    bool learns = dweight || dbias;
    if (learns && squares) run_du_squares(c, from, dweight, dbias, x, g, parts);
    else if (learns) run_du_product(c, from, dweight, dbias, x, g.dy, parts);
    if (!dx) return;
    if (squares) {
        bool tf32 = in_tf32(c, *s, s->in_channels);
        conv2d_dz_squares job = conv2d_dz_squares_sizes(from, tf32);
        job.dz = dx; job.u = weight; job.g = g;
        job.parts = parts;                  /* du no longer needs them */
        launch_squares(c, "conv2d_dz_squares", job, tf32);
        if (job.splits > 1) launch_add_parts(c, job);
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
    launch_product(c, "conv2d_dz", dz);
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

template <class Job> static Job linear_job(const cnn_linear_shape &s, int m, int n, int k)
{
    Job job;
    memset((void *)&job, 0, sizeof job);
    job.s = s;
    job.groups = 1;
    job.m = m; job.n = n; job.k = k;
    return job;
}

static linear_forward_job linear_forward_sizes(const cnn_linear_shape &s)
{
    linear_forward_job job = linear_job<linear_forward_job>(s, s.batch, s.out_features, s.in_features);
    split(&job);
    return job;
}

static linear_dx_job linear_dx_sizes(const cnn_linear_shape &s)
{
    linear_dx_job job = linear_job<linear_dx_job>(s, s.batch, s.in_features, s.out_features);
    split(&job, 64, 64);
    return job;
}

static linear_dw_job linear_dw_sizes(const cnn_linear_shape &s, bool bias)
{
    linear_dw_job job = linear_job<linear_dw_job>(s, s.out_features, s.in_features + bias, s.batch);
    split(&job, 64, 64);
    return job;
}

static size_t cuda_linear_work(void *, const cnn_linear_shape *s)
{
    size_t forward = parts_of(linear_forward_sizes(*s)), dx = parts_of(linear_dx_sizes(*s));
    size_t dw = std::max(parts_of(linear_dw_sizes(*s, true)), parts_of(linear_dw_sizes(*s, false)));
    return sizeof(float) * std::max(forward, dw + dx);
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
    launch_product(c, "linear_forward", job);
    if (job.splits > 1) launch_add_parts(c, job);
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
    linear_dw_job dw = linear_dw_sizes(*s, dbias != NULL);
    linear_dx_job job = linear_dx_sizes(*s);
    dw.dw = dweight; dw.db = dbias; dw.parts = (float *)work; dw.dy = dy; dw.y = y; dw.x = x;
    job.dx = dx; job.parts = (float *)work + parts_of(dw); job.dy = dy; job.y = y; job.w = weight;
    if (!dweight && !dbias) dw.splits = 0;
    if (!dx) job.splits = 0;
    dim3 of_dw = blocks_of(dw, 64, 64), of_dx = blocks_of(job, 64, 64), grid;
    grid = dim3(std::max(of_dw.x, of_dx.x), std::max(of_dw.y, of_dx.y), of_dw.z + of_dx.z);
    if (grid.z) LAUNCH(c, linear_backward, grid, dw, job);
    if (dw.splits > 1) launch_add_parts(c, dw);
    if (job.splits > 1) launch_add_parts(c, job);
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
    dim3 blocks = threads_for(count);
    double *sums = of(context)->scratch;
    blocks.x = std::min(blocks.x, (unsigned)THREADS);
    LAUNCH(of(context), mse, blocks, sums, dy, y, target, labels, count, outputs);
    LAUNCH(of(context), mse_loss, 1, c, sums, (int)blocks.x, y, labels, batch, outputs);
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
    LAUNCH(of(context), adam_begin, threads_for_spans(count), c, *o, decoupled, spans, count);
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
