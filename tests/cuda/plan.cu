/* plan.cu - what a training step launches on a GPU, and an estimate of what each launch takes: make cuda-plan

   cnn_cuda.cu is compiled here with a CUDA_LAUNCH that writes down the kernel, its grid and its arguments and runs nothing.
   So grids, tiles and shared sums are those that the library launches. Only what a kernel does with its arguments is
   described here: products, bytes, the longest chain of loads of which each waits for the one before it.

       estimate = max(products that are issued / rate of the multiprocessors that have a block,
                      bytes / bandwidth,  loads in a chain * latency)  +  the gap between launches

   Products are issued for whole tiles, so those of zeros count; and blocks run in rounds of one a multiprocessor, so a last
   round that is not full counts as full. Bytes are counted once an array: what blocks read twice is taken to lie in the L2
   cache. The constants are an H100's data sheet and, for latency and gap, common measurements of others. Nothing here was
   measured: it is a plan, to be held against a profiler. */
#undef CUDA_LAUNCH
#define CUDA_LAUNCH(name, kernel, grid, block, stream, ...) ((void)(stream), plan_launch(name, grid, __VA_ARGS__))
#define cudaMemsetAsync(memory, value, bytes, stream) ((void)(stream), plan_zero(bytes))
static void plan_zero(size_t bytes);
#include "../../cnn_cuda.cu"
#include "plan.h"

static const double PROCESSORS = 132, PRODUCTS = 128 * 1.98e9, BANDWIDTH = 3.3e12, LATENCY = 0.16e-6, GAP = 1.3e-6;

struct cost { double products, issued, bytes, chain; };   /* issued: by one block */

struct launched { std::string name; dim3 grid; cost of; };

static std::vector<launched> launches;
static bool described = true;

static double ceiling(double a, double b) { return std::ceil(a / b); }

/* ---- kernels that multiply ---- */

template <class Job> static cost product_cost(const Job &job, int rows, int columns, double bytes)
{
    double share = job.share;
    return { (double)job.values() * job.k, (double)rows * columns * ceiling(share, TILE_K) * TILE_K,
             4 * (bytes + (job.splits > 1 ? job.splits : 1) * (double)job.values()), 2 + ceiling(share, TILE_K) };
}

static double matrices(const product_job &job) { return job.groups * ((double)job.m * job.k + (double)job.k * job.n); }

template <class Job> static cost sum_cost(const Job &job, double result)       /* of add_parts; result: 2 if it is added to */
{
    return { 0, 0, 4 * (job.splits + result) * job.values(), result + ceiling(job.splits, THREADS / VALUES_A_BLOCK * PARTS_AT_ONCE) };
}

static bool adds(const char *name) { return !strcmp(name, "add_parts"); }

static cost cost_of(const char *, dim3, const linear_dw_job &job) { return sum_cost(job, 2); }
static cost cost_of(const char *, dim3, const linear_dx_job &job) { return sum_cost(job, 1); }

static cost cost_of(const char *name, dim3, const linear_forward_job &job)
{
    if (adds(name)) return sum_cost(job, 1);
    return product_cost(job, product_for(job).rows, product_for(job).columns, matrices(job));
}

static cost cost_of(const char *, dim3 grid, const linear_dw_job &dw, const linear_dx_job &dx)
{
    cost a = product_cost(dw, 64, 64, matrices(dw) + (double)dw.m * dw.k + dw.values());    /* y; dw is read, too */
    cost b = product_cost(dx, 64, 64, matrices(dx) + (double)dx.m * dx.k);
    if (!dw.splits) return b;
    if (!dx.splits) return a;
    double blocks_a = (double)tiles_of(dw.m, 64) * tiles_of(dw.n, 64) * dw.splits;
    double blocks_b = (double)tiles_of(dx.m, 64) * tiles_of(dx.n, 64) * dx.splits;
    double issued = (a.issued * blocks_a + b.issued * blocks_b) / ((double)grid.x * grid.y * grid.z);
    return { a.products + b.products, issued, a.bytes + b.bytes, std::max(a.chain, b.chain) };
}

template <class Job> static cost image_product_cost(const Job &job, double image, double result)
{
    cost c = product_cost(job, product_for(job).rows, product_for(job).columns, image + (double)job.groups * job.m * job.k);
    c.bytes += 4 * (result - job.values());
    return c;
}

static double inputs(const cnn_conv2d_shape &s) { return (double)conv2d_inputs(s); }
static double outputs(const cnn_conv2d_shape &s) { return (double)(pools(s) ? pool2d_outputs(s.pool) : conv2d_outputs(s)); }
static double per_output(const cnn_conv2d_shape &s) { return pools(s) ? 1.25 : 1; }        /* with its byte of index */
static double taps(const cnn_conv2d_shape &s) { return s.kernel_height * s.kernel_width; }
static double weights(const cnn_conv2d_shape &s) { return taps(s) * s.in_channels / s.groups * s.out_channels; }
static double multiplied(const cnn_conv2d_shape &s) { return weights(s) * s.batch * s.out_height * s.out_width; }

static cost cost_of(const char *, dim3, const conv2d_forward_job &job)
{
    return image_product_cost(job, inputs(job.s), outputs(job.s));
}

static cost cost_of(const char *name, dim3, const conv2d_du_job &job)
{
    if (adds(name)) return sum_cost(job, 2);
    return image_product_cost(job, inputs(job.s), (double)job.splits * job.values());
}

static cost cost_of(const char *, dim3, const conv2d_dz_job &job)
{
    return image_product_cost(job, outputs(job.s), (double)job.values());
}

template <class Job> static cost squares_cost(const Job &job, double bytes, int depth)
{
    const choice<Job> &kernel = squares_for(job, false);
    return { multiplied(job.s), (double)kernel.rows * kernel.squares * SQUARE * SQUARE * taps(job.s) * job.share, 4 * bytes,
             2 + ceiling(job.share, depth) };
}

static cost cost_of(const char *, dim3, const conv2d_forward_squares &job)
{
    return squares_cost(job, inputs(job.s) + weights(job.s) + per_output(job.s) * outputs(job.s), 4);
}

static cost cost_of(const char *name, dim3, const conv2d_dz_squares &job)
{
    if (adds(name)) return sum_cost(job, 1);
    return squares_cost(job, inputs(job.s) * job.splits + weights(job.s) + (1 + per_output(job.s)) * outputs(job.s), 4);
}

static cost cost_of(const char *name, dim3, const conv2d_du_squares &job)
{
    if (adds(name)) return sum_cost(job, 2);
    const choice<conv2d_du_squares> &kernel = du_for(job.s, false);
    return { multiplied(job.s), (double)kernel.rows * kernel.columns * taps(job.s) * job.share * SQUARE * SQUARE,
             4 * (inputs(job.s) + (1 + per_output(job.s)) * outputs(job.s) + (double)job.splits * job.values()),
             1 + ceiling(job.share, kernel.squares) * (kernel.rows >= 64 && kernel.squares == 1 ? 4 : 2) };
}

/* ---- the others: bytes a thread, and loads in a chain ---- */

static const struct { const char *name; double bytes, chain; } simple[] = {
    { "try_a_kernel", 0, 0 }, { "next_batch", 0, 1 }, { "gather", 5, 4 }, { "gather_rows", 12, 4 }, { "dropout", 32, 2 },
    { "softmax_cross_entropy", 80, 12 }, { "adam_begin", 24, 3 }, { "adam_step", 28, 7 }, { "pool2d_forward", 20, 2 },
    { "conv2d_df", 12, 2 }, { "activation_forward", 8, 1 }, { "activation_backward", 12, 1 }, { "sum_of", 12, 1 }
};

template <class... Arguments> static cost cost_of(const char *name, dim3 grid, const Arguments &...)
{
    for (const auto &each : simple)
        if (!strcmp(each.name, name)) return { 0, 0, each.bytes * grid.x * THREADS, each.chain };
    printf("plan.cu does not know the kernel %s\n", name);
    described = false;
    return { 0, 0, 0, 0 };
}

template <class... Arguments> static void plan_launch(const char *name, dim3 grid, const Arguments &...arguments)
{
    launches.push_back({ name, grid, cost_of(name, grid, arguments...) });
}

static void plan_zero(size_t bytes) { launches.push_back({ "zero", dim3(1), { 0, 0, (double)bytes, 0 } }); }

extern "C" void plan_begin(void) { launches.clear(); }

extern "C" int plan_end(const char *network, int most, double target)
{
    double sum = 0, products = 0;
    printf("\n%s: one training step of 128, estimated, not measured\n", network);
    printf("%-24s%16s%10s%12s%8s%8s%8s%8s\n", "launch", "grid", "MB", "Mproducts", "useful", "chain", "us", "by");
    for (const launched &each : launches) {
        double blocks = (double)each.grid.x * each.grid.y * each.grid.z, rounds = ceiling(blocks, PROCESSORS);
        double by[3] = { rounds * each.of.issued / PRODUCTS, each.of.bytes / BANDWIDTH, each.of.chain * LATENCY };
        int most_of = by[0] >= by[1] && by[0] >= by[2] ? 0 : by[1] >= by[2] ? 1 : 2;
        double useful = each.of.products / (rounds * PROCESSORS * (each.of.issued > 0 ? each.of.issued : 1));
        char grid[40], share[20] = "";
        snprintf(grid, sizeof grid, "%u x %u x %u", each.grid.x, each.grid.y, each.grid.z);
        if (each.of.products > 0) snprintf(share, sizeof share, "%.0f %%", 100 * useful);
        printf("%-24s%16s%10.2f%12.1f%8s%8.0f%8.1f  %s\n", each.name.c_str(), grid, each.of.bytes / 1e6,
               each.of.products / 1e6, share, each.of.chain, 1e6 * (by[most_of] + GAP),
               most_of == 0 ? "products" : most_of == 1 ? "bytes" : "chain");
        sum += 1e6 * (by[most_of] + GAP);
        products += each.of.products;
    }
    printf("%d launches, %.0f us; ", (int)launches.size(), sum);
    if (most) printf("the target is %d launches and %.0f us; ", most, target);
    else printf("the target is %.0f us; ", target);
    printf("all products at the full rate: %.0f us\n", 1e6 * products / PRODUCTS / PROCESSORS);
    return described;
}
