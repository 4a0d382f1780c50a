/* cuda_shim.h - runs cnn_cuda.cu on a CPU, to test and to step through kernels where there is no GPU.

       g++ -O2 -include tests/cuda/cuda_shim.h -x c++ -c cnn_cuda.cu

   Each CUDA thread is a fiber with a stack of its own. The fibers of one block take turns on the calling thread, from one
   barrier to the next; blocks run one after the other. What goes wrong shows itself like this:

       a missing barrier           in another order of the threads, or under -fsanitize=thread
       a barrier that only some    the scheduler stops with the block, the kernel and the barriers' lines
       threads of a block reach
       out of bounds               -fsanitize=address; device memory is malloc'ed
       read before written         device and shared memory begin as NaN (shared memory: but for -fsanitize=address)
       an argument that is frozen  a recorded stream is replayed with the arguments that its launches had, as on a GPU
       in a recorded graph
       a kernel that runs for      its launch reports an error: a driver may have to load it, and not all can then
       the first time while a
       graph is recorded

   It cannot see races between blocks, missing memory fences, bank conflicts or occupancy, and streams run in the order of
   the calls. Environment variables, read at each launch:

       CUDA_SHIM_ORDER=forward | reversed | shuffled     of the threads in a block; the blocks are reversed, too.
                                                         Shuffled: and half of the warps rest, now these, now those
       CUDA_SHIM_FAIL=kernel                             that kernel's launch reports an error
       CUDA_SHIM_FAULT=kernel                            that kernel breaks down: who waits or copies next is told, for ever
       CUDA_SHIM_NO_DEVICE=1                             there is no device

   A matrix instruction is emulated lane by lane: a warp enters it and leaves it together, as with all that ends in .sync. */
#ifndef CUDA_SHIM_H
#define CUDA_SHIM_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __syncthreads() cuda_shim::wait(cuda_shim::AT_BLOCK_BARRIER, __LINE__)
#define __syncwarp() cuda_shim::wait(cuda_shim::AT_WARP_BARRIER, __LINE__)
#define threadIdx (cuda_shim::running()->index)
#define blockIdx (cuda_shim::block_now()->index)
#define gridDim (cuda_shim::block_now()->grid)

#ifdef __SANITIZE_ADDRESS__                 /* it guards variables, but not those in a section of their own */
#define __shared__ static
#else                                       /* one section, so that all of it can be filled with NaN before each block */
#define __shared__ static __attribute__((section("cuda_shared")))
extern "C" { extern char __start_cuda_shared[] __attribute__((weak)), __stop_cuda_shared[] __attribute__((weak)); }
#endif

#ifdef __SANITIZE_THREAD__                  /* it takes fibers for threads, which only barriers order */
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned);
void __tsan_switch_to_fiber(void *, unsigned);
void __tsan_acquire(void *);
void __tsan_release(void *);
}
#define CUDA_SHIM_TSAN(call) call
#define CUDA_SHIM_OWN static __attribute__((no_sanitize_thread, noinline))     /* not part of what is tested */
#else
#define CUDA_SHIM_TSAN(call) ((void)0)
#define CUDA_SHIM_OWN static inline
#endif

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* Since the program began: graphs launched, kernels launched outside of graphs, waits of the host, copies to the device. For tests. */
extern "C" { inline struct cuda_shim_count { long graphs, kernels, waits, uploads; } cuda_shim_count; }

namespace cuda_shim {

/* ---- fibers: swapping the registers that a function must keep, without a system call ---- */

enum { WARP = 32, STACK = (64 << 10) + 576 };              /* 576: neighbouring stacks in different cache sets */

#ifdef __x86_64__
typedef void *registers;
extern "C" void cuda_shim_switch(registers *from, registers to);
asm(".text\n.weak cuda_shim_switch\n.type cuda_shim_switch,@function\n"
    "cuda_shim_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\nmov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
    ".size cuda_shim_switch,.-cuda_shim_switch\n");

CUDA_SHIM_OWN void begin_at(registers *r, char *stack, void (*entry)())
{
    void **top = (void **)(stack + STACK) - 1;
    *--top = (void *)entry;
    for (int k = 0; k < 6; k++) *--top = NULL;
    *r = top;
}
CUDA_SHIM_OWN void change(registers *from, registers *to) { cuda_shim_switch(from, *to); }
#else
typedef ucontext_t registers;
CUDA_SHIM_OWN void begin_at(registers *r, char *stack, void (*entry)())
{
    getcontext(r);
    r->uc_stack.ss_sp = stack;
    r->uc_stack.ss_size = STACK;
    r->uc_link = NULL;
    makecontext(r, entry, 0);
}
CUDA_SHIM_OWN void change(registers *from, registers *to) { swapcontext(from, to); }
#endif

/* ---- a block and its threads ---- */

enum state { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, FINISHED };

struct fiber {
    dim3 index;
    int number, line;                       /* in the block; of the barrier where it waits */
    enum state state;
    int barriers[2];                        /* so many were passed: block's, warp's */
    registers saved;
    void *tsan;
};

struct tf32_share { float a[4], b[2]; };    /* a lane's, of the factors of a matrix instruction */

struct block {
    const char *kernel;
    dim3 index, grid;
    std::vector<fiber> fibers;
    std::vector<int> order;
    fiber *now;
    const std::function<void()> *body;
    registers scheduler;
    void *tsan;
    char clock[33][2];                      /* addresses for the race detector: one pair a warp, and the block's */
    tf32_share shown[32][2][WARP];          /* what the lanes of a warp show each other */
};

static block *current;
CUDA_SHIM_OWN block *block_now() { return current; }
CUDA_SHIM_OWN fiber *running() { return current->now; }

CUDA_SHIM_OWN void jump(registers *from, registers *to, void *tsan)
{
    (void)tsan;
    CUDA_SHIM_TSAN(__tsan_switch_to_fiber(tsan, 1));       /* 1: the switch itself orders nothing */
    change(from, to);
}

[[noreturn]] CUDA_SHIM_OWN void stop(const char *what, int line, int other)
{
    block *b = current;
    fprintf(stderr, "cuda_shim: %s, block (%u, %u, %u): %s (lines %d, %d)\n", b->kernel, b->index.x, b->index.y, b->index.z,
            what, line, other);
    abort();
}

CUDA_SHIM_OWN void enter()
{
    block *b = current;
    CUDA_SHIM_TSAN(__tsan_acquire(b->clock[32]));
    (*b->body)();
    CUDA_SHIM_TSAN(__tsan_release(b->clock[32]));
    b->now->state = FINISHED;
    jump(&b->now->saved, &b->scheduler, b->tsan);
    abort();
}

/* Two clocks take turns, so that a fiber already at the next barrier is not ordered with those leaving this one. */
CUDA_SHIM_OWN void wait(enum state at, int line)
{
    block *b = current;
    fiber *f = b->now;
    char *clock = &b->clock[at == AT_BLOCK_BARRIER ? 32 : f->number / WARP][f->barriers[at == AT_WARP_BARRIER]++ & 1];
    (void)clock;
    f->state = at;
    f->line = line;
    CUDA_SHIM_TSAN(__tsan_release(clock));
    jump(&f->saved, &b->scheduler, b->tsan);
    CUDA_SHIM_TSAN(__tsan_acquire(clock));
}

CUDA_SHIM_OWN bool release_warps(block *b)                 /* those whose lanes have all arrived */
{
    int n = (int)b->fibers.size();
    bool released = false;
    for (int first = 0; first < n; first += WARP) {
        int last = std::min(first + WARP, n), waiting = 0, line = 0;
        for (int i = first; i < last; i++) {
            fiber *f = &b->fibers[i];
            if (f->state != AT_WARP_BARRIER) continue;
            if (waiting++ && line != f->line) stop("lanes of a warp meet at different places", line, f->line);
            line = f->line;
        }
        if (waiting != last - first) continue;
        for (int i = first; i < last; i++) b->fibers[i].state = READY;
        released = true;
    }
    return released;
}

CUDA_SHIM_OWN bool release_block(block *b, int alive)
{
    int waiting = 0, line = 0;
    for (fiber &f : b->fibers) {
        if (f.state != AT_BLOCK_BARRIER) continue;
        if (waiting++ && line != f.line) stop("divergent __syncthreads", line, f.line);
        line = f.line;
    }
    if (!waiting || waiting != alive) return false;
    for (fiber &f : b->fibers) if (f.state == AT_BLOCK_BARRIER) f.state = READY;
    return true;
}

CUDA_SHIM_OWN void run_block(block *b, char *stacks, bool shuffled)
{
    int n = (int)b->fibers.size(), alive = n;
    unsigned random = 12345u + b->index.x * 7919u + b->index.y * 104729u;
    for (int i = 0; i < n; i++) {
        b->fibers[i].state = READY;
        b->fibers[i].barriers[0] = b->fibers[i].barriers[1] = 0;
        begin_at(&b->fibers[i].saved, stacks + (size_t)i * STACK, enter);
    }
    while (alive) {
        bool moved = false;
        for (int i = n - 1; shuffled && i > 0; i--) {
            random = random * 1664525u + 1013904223u;
            std::swap(b->order[i], b->order[(random >> 8) % (unsigned)(i + 1)]);
        }
        for (int i : b->order) {
            fiber *f = &b->fibers[i];
            if (f->state != READY) continue;
            moved = true;
            if (shuffled && random >> (8 + f->number / WARP % 16) & 1) continue;       /* warps do not go in step */
            b->now = f;
            jump(&b->scheduler, &f->saved, f->tsan);
            alive -= f->state == FINISHED;
        }
        moved |= release_warps(b);
        moved |= release_block(b, alive);
        if (alive && !moved) stop("some threads wait for others that never come", b->now->line, 0);
    }
}

#ifdef __SANITIZE_THREAD__
CUDA_SHIM_OWN void *detector_fiber(int i)                  /* kept from launch to launch: to make one takes long */
{
    static void *fibers[1024];
    if (!fibers[i]) fibers[i] = __tsan_create_fiber(0);
    return fibers[i];
}
#endif

CUDA_SHIM_OWN void run_grid(const char *kernel, dim3 grid, dim3 threads, const std::function<void()> &body)
{
    static char *stacks = (char *)aligned_alloc(64, (size_t)1024 * STACK);
    const char *order = getenv("CUDA_SHIM_ORDER");
    bool backwards = order && strcmp(order, "forward") != 0, shuffled = order && !strcmp(order, "shuffled");
    long n = (long)threads.x * threads.y * threads.z, blocks = (long)grid.x * grid.y * grid.z;
    block *b = new block();
    b->kernel = kernel;
    b->grid = grid;
    b->body = &body;
    b->fibers.resize((size_t)n);
    b->order.resize((size_t)n);
    current = b;
    CUDA_SHIM_TSAN(b->tsan = __tsan_get_current_fiber());
    for (int i = 0; i < (int)n; i++) {
        fiber *f = &b->fibers[i];
        f->number = i;
        f->index = dim3(i % threads.x, i / threads.x % threads.y, i / (threads.x * threads.y));
        b->order[i] = backwards ? (int)n - 1 - i : i;
        CUDA_SHIM_TSAN(f->tsan = detector_fiber(i));
    }
    for (long k = 0; k < blocks; k++) {
        long i = backwards ? blocks - 1 - k : k;
        b->index = dim3((unsigned)(i % grid.x), (unsigned)(i / grid.x % grid.y), (unsigned)(i / ((long)grid.x * grid.y)));
#ifndef __SANITIZE_ADDRESS__
        if (__start_cuda_shared) memset(__start_cuda_shared, 0xFF, (size_t)(__stop_cuda_shared - __start_cuda_shared));
#endif
        CUDA_SHIM_TSAN(__tsan_release(b->clock[32]));
        run_block(b, stacks, shuffled);
        CUDA_SHIM_TSAN(__tsan_acquire(b->clock[32]));
    }
    current = NULL;
    delete b;
}

/* ---- the matrix instruction of TF32, which reads the upper 19 bits of its factors. In which order and with how many bits a
   GPU adds eight products is not written anywhere; here it is one by one, in float32. ---- */

CUDA_SHIM_OWN unsigned to_tf32(float x)     /* cvt.rna: to the nearest, halves away from zero; infinities and NaN stay */
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fffe000u;
    return ((bits & 0x7f800000u) == 0x7f800000u ? bits : bits + 0x1000u) & ~0x1fffu;
}

CUDA_SHIM_OWN float from_tf32(unsigned bits)
{
    float x;
    bits &= ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* mma.m16n8k8: which lane has which value of A(16,8), B(8,8), D(16,8) is in the PTX ISA's figures for this shape. Each lane
   shows the others what it has, and meets them. Two sets of slots take turns, so that nobody writes where others still read. */
CUDA_SHIM_OWN void mma_tf32(float *d, const unsigned *a, const unsigned *b, int line)
{
    const fiber *f = running();
    int lane = f->number % WARP;
    tf32_share *shown = current->shown[f->number / WARP][f->barriers[1] & 1];
    for (int i = 0; i < 4; i++) shown[lane].a[i] = from_tf32(a[i]);
    for (int i = 0; i < 2; i++) shown[lane].b[i] = from_tf32(b[i]);
    wait(AT_WARP_BARRIER, line);
    for (int i = 0; i < 4; i++) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 8; k++)
            d[i] += shown[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2] * shown[column * 4 + k % 4].b[k / 4];
    }
}

/* ---- streams: all are one; while it is recorded, what is submitted goes to the tape ---- */

typedef std::vector<std::function<void()>> tape;
static tape *recording;
static int error;                           /* of the last call that failed, until it is asked for */
static int fault;                           /* of a kernel, while CUDA_SHIM_FAULT names one */

static inline int state_of_device()
{
    if (!getenv("CUDA_SHIM_FAULT")) fault = 0;
    return fault;
}

static inline void submit(std::function<void()> work)
{
    if (recording) recording->push_back(work);
    else work();
}

static inline bool launchable(const char *kernel, dim3 grid, dim3 threads)
{
    const char *fail = getenv("CUDA_SHIM_FAIL");
    size_t n = (size_t)threads.x * threads.y * threads.z;
    static std::set<std::string> loaded;
    const char *breaks = getenv("CUDA_SHIM_FAULT");
    if (fail && !strcmp(fail, kernel)) { error = 9; return false; }
    if (breaks && !strcmp(breaks, kernel)) fault = 700;
    if (recording && !loaded.count(kernel)) { error = 900; return false; }
    loaded.insert(kernel);
    if (n && n <= 1024 && grid.x && grid.y && grid.z && grid.y <= 65535 && grid.z <= 65535) return true;
    error = 9;
    return false;
}

} /* namespace cuda_shim */

#define CUDA_LAUNCH(name, kernel, grid, threads, stream, ...)                     \
    do {                                                                          \
        (void)(stream);                                                           \
        if (!cuda_shim::launchable(name, grid, threads)) break;                   \
        cuda_shim_count.kernels += !cuda_shim::recording;                                                              \
        cuda_shim::submit([=] { cuda_shim::run_grid(name, grid, dim3(threads), [=] { kernel(__VA_ARGS__); }); });      \
    } while (0)

#define CUDA_TO_TF32(to, x) ((to) = cuda_shim::to_tf32(x))
#define CUDA_MMA_TF32(d, a, b) cuda_shim::mma_tf32(d, a, b, __LINE__)

/* ---- those functions of the CUDA runtime that cnn_cuda.cu calls ---- */

typedef int cudaError_t;
typedef struct cuda_shim_stream *cudaStream_t;
typedef cuda_shim::tape *cudaGraph_t;
typedef cuda_shim::tape *cudaGraphExec_t;
enum { cudaSuccess = 0 };
enum { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum { cudaStreamNonBlocking, cudaStreamCaptureModeThreadLocal };

static inline const char *cudaGetErrorString(cudaError_t error)
{
    return error == 9 ? "invalid configuration argument" : error == 100 ? "no CUDA-capable device is detected"
         : error == 2 ? "out of memory" : error == 700 ? "an illegal memory access was encountered" : "operation not permitted when stream is capturing";
}

static inline cudaError_t cudaGetLastError()
{
    int error = cuda_shim::error;
    cuda_shim::error = 0;
    return error;
}

static inline cudaError_t cudaGetDeviceCount(int *count)
{
    *count = getenv("CUDA_SHIM_NO_DEVICE") ? 0 : 1;
    return *count ? cudaSuccess : 100;
}

static inline cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    *memory = bytes > (size_t)1 << 40 ? NULL : aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (!*memory) return cuda_shim::error = 2;
    memset(*memory, 0xFF, bytes);
#ifdef __SANITIZE_ADDRESS__                 /* so that its red zone begins where the asked-for bytes end */
    free(*memory);
    *memory = malloc(bytes);
    memset(*memory, 0xFF, bytes);
#endif
    return cudaSuccess;
}

static inline cudaError_t cudaFree(void *memory)
{
    free(memory);
    return cudaSuccess;
}

static inline cudaError_t cudaMallocHost(void **memory, size_t bytes) { return cudaMalloc(memory, bytes); }
static inline cudaError_t cudaFreeHost(void *memory) { return cudaFree(memory); }

static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cudaStream_t)
{
    cuda_shim_count.uploads += kind == cudaMemcpyHostToDevice;
    cuda_shim::submit([=] { memcpy(to, from, bytes); });
    return cuda_shim::state_of_device();
}

static inline cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t)
{
    cuda_shim::submit([=] { memset(memory, value, bytes); });
    return cudaSuccess;
}

static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, int)
{
    *stream = (cudaStream_t)malloc(1);
    return cudaSuccess;
}

static inline cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    free(stream);
    return cudaSuccess;
}

static inline cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    cuda_shim_count.waits++;
    return cuda_shim::recording ? 900 : cuda_shim::state_of_device();
}

static inline cudaError_t cudaStreamBeginCapture(cudaStream_t, int)
{
    cuda_shim::recording = new cuda_shim::tape;
    return cudaSuccess;
}

static inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph)
{
    *graph = cuda_shim::recording;
    cuda_shim::recording = NULL;
    return cudaSuccess;
}

static inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *run, cudaGraph_t graph, unsigned long long)
{
    *run = new cuda_shim::tape(*graph);
    return cudaSuccess;
}

static inline cudaError_t cudaGraphLaunch(cudaGraphExec_t run, cudaStream_t)
{
    cuda_shim_count.graphs++;
    for (auto &work : *run) work();
    return cudaSuccess;
}

static inline cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

static inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t run)
{
    delete run;
    return cudaSuccess;
}

/* ---- device functions ---- */

static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline void sincospi(double x, double *sine, double *cosine) { *sine = std::sin(M_PI * x); *cosine = std::cos(M_PI * x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }

#endif
