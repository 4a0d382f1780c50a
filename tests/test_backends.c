/* test_backends.c - every operation of every backend gives what `direct` gives, on random shapes.

       test_backends [backend [shapes]]            all backends; 300 shapes an operation, or 20 with CNN_TEST_SHORT

   Each operation runs three times on the same arrays: on `direct`, on the backend under test, and on `direct`
   with absolute values in place of values. The third run gives for each output M, the sum of the |terms| that
   it is the sum of. Each addition in float32 is off by at most 2^-24 M, and K of them in any order by about
   sqrt(K) times that, because roundings go either way. So the tolerance is

       2^-24 (4 + sqrt K) (M + |output|)

   where 4 is for what else is rounded: the product, the activation, the added gradient, the result of `direct`.
   Winograd's transforms (3 x 3 and 5 x 5 kernels, stride 1) mix the outputs of a tile and lose 4 to 7 times as much:
   there M is the largest of the whole map, and the tolerance WINOGRAD_3 or WINOGRAD_5 times as large.
   Every fourth shape of convolutions and linear layers holds small whole numbers instead, some with a NaN
   among them: their sums are exact, so results must be equal, and so must the winners of ties in pooling.

   Convolutions come a second time with the few channels of an image, and a third time with 16 channels and more and with TF32
   allowed. It rounds each factor to 11 bits, by up to 2^-11 of itself, so the sum may be off by 2^-10 M more. For every other
   shape `direct` gets rounded factors: a backend that rounds them itself must be as near to it as in float32. Whole numbers
   are exact in both.

   Arrays are reached through the table alone. They lie between guards, which no operation may change, nor its
   inputs; outputs and scratch memory begin as NaN. Where a shape fails it is printed in full, and being a pure
   function of (operation, number) it fails again. */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "lecture.h"
#include "test.h"

#include <float.h>

#ifdef __SANITIZE_ADDRESS__
#define SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif
#ifdef SANITIZED                            /* then even reading a guard is reported */
#include <sanitizer/asan_interface.h>
#define FORBID(from, bytes) ASAN_POISON_MEMORY_REGION(from, bytes)
#define PERMIT(from, bytes) ASAN_UNPOISON_MEMORY_REGION(from, bytes)
#else
#define FORBID(from, bytes) ((void)(from))
#define PERMIT(from, bytes) ((void)(from))
#endif

enum { THREADS = 3, WINOGRAD_3 = 4, WINOGRAD_5 = 7 };

/* ---- random numbers: a function of the operation, the shape's number, and how many were drawn for it ---- */

static uint32_t operation, number, drawn;

static uint32_t draw(void)
{
    uint32_t r[4];
    cnn_random(r, 1, operation, number, drawn++);
    return r[0];
}

static int below(int n) { return (int)(((uint64_t)draw() * (uint64_t)n) >> 32); }
static int between(int a, int b) { return a + below(b - a + 1); }
static int often(int usual, int low, int high) { return below(3) ? usual : between(low, high); }
static double real(double low, double high) { return low + (high - low) * (draw() >> 8) / 16777216.0; }

static int size_up_to(int most)             /* around the sizes of vectors and tiles */
{
    static const int sizes[] = { 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65,
                                 100, 127, 129, 255, 257, 1023, 1025, 2100 };
    int size;
    do size = sizes[below((int)(sizeof sizes / sizeof *sizes))]; while (size > most);
    return size;
}

static size_t length(void)                  /* of what works value by value */
{
    static const int lengths[] = { 16383, 16384, 16385, 40000 };
    return (size_t)(below(8) ? size_up_to(2100) : lengths[below(4)]);
}

/* ---- arrays: the same on three sides ---- */

enum { DIRECT, TESTED, BOUND, SIDES };      /* BOUND: `direct` on absolute values */
enum { GUARD = 512 };                       /* bytes before and after each array */

typedef enum role { INPUT, OUTPUT, SUM, SCRATCH } role;        /* SUM: what is there takes part in the result */

typedef struct array {
    const char *name;
    role role;
    size_t bytes[SIDES];
    unsigned char *before[SIDES], *after[SIDES];           /* on the host, guards included */
    unsigned char *block[SIDES];                           /* on the backend; not to be looked at */
} array;

static cnn_backend side[SIDES];
static array arrays[16];
static int array_count;
static char shape_text[700];                /* the shape under test, for messages */
static int whole;                           /* small whole numbers: results must be exact */
static double worst;                        /* largest distance of this operation, in tolerances */
static double loss = 1;                     /* WINOGRAD_3 or WINOGRAD_5 where its transforms may be used, else 1 */
static int has_nan;                         /* a NaN is among the inputs */
static int common;                          /* convolutions as networks have them: 3 x 3 or 5 x 5, stride 1, some of 1 to 3 channels */
static int has_tf32;                        /* the backend under test rounds factors where it may */
static int tf32, rounded;                   /* convolutions may calculate in TF32; their factors are rounded in advance, */
static int rounds_itself;                   /* but not for the backend under test, as it will do so */

static const char *case_text(void)
{
    static char text[800];
    snprintf(text, sizeof text, "%s, shape %u: %s", side[TESTED].name, (unsigned)number, shape_text);
    return text;
}

static array *add(const char *name, role role, size_t bytes)
{
    array *a = &arrays[array_count++];
    int i;
    memset(a, 0, sizeof *a);
    a->name = name;
    a->role = role;
    for (i = 0; i < SIDES; i++) {
        a->bytes[i] = bytes;
        a->before[i] = malloc(bytes + 2 * GUARD);
        a->after[i] = malloc(bytes + 2 * GUARD);
        memset(a->before[i], 0xFF, bytes + 2 * GUARD);     /* NaN, and an index outside of everything */
    }
    return a;
}

static float *begun(const array *a, int i) { return (float *)(void *)(a->before[i] + GUARD); }
static float *result(const array *a, int i) { return (float *)(void *)(a->after[i] + GUARD); }
static size_t count(const array *a) { return a->bytes[DIRECT] / sizeof(float); }

static array *content(const char *name, role role, const void *data, size_t bytes)     /* the same on all sides */
{
    array *a = add(name, role, bytes);
    int i;
    for (i = 0; i < SIDES; i++) memcpy(begun(a, i), data, bytes);
    return a;
}

static float to_tf32(float x)               /* to 11 bits, halves away from zero */
{
    int exponent;
    double digits = ldexp(frexp(x, &exponent), 11);
    return (float)ldexp(digits < 0 ? ceil(digits - 0.5) : floor(digits + 0.5), exponent - 11);
}

static array *values_within(const char *name, role role, size_t n, double low, double high)
{
    array *a = add(name, role, n * sizeof(float));
    size_t i;
    for (i = 0; i < n; i++) {
        float value = (float)(whole ? between(-2, 2) : real(low, high));
        begun(a, DIRECT)[i] = begun(a, TESTED)[i] = value;
        begun(a, BOUND)[i] = fabsf(value);
    }
    return a;
}

static array *values(const char *name, role role, size_t n) { return values_within(name, role, n, -1, 1); }
static array *factors(const char *name, size_t n)
{
    array *a = values(name, INPUT, n);
    size_t i;
    int k;
    for (k = 0; k < SIDES; k++)
        for (i = 0; i < n && rounded && !(k == TESTED && rounds_itself); i++) begun(a, k)[i] = to_tf32(begun(a, k)[i]);
    return a;
}

static array *output(const char *name, size_t n) { return add(name, OUTPUT, n * sizeof(float)); }

static array *signs(array *a)               /* values on the third side as well */
{
    memcpy(begun(a, BOUND), begun(a, DIRECT), a->bytes[BOUND]);
    return a;
}

static void add_nan(array *a)
{
    size_t at = (size_t)below((int)count(a));
    begun(a, DIRECT)[at] = begun(a, TESTED)[at] = begun(a, BOUND)[at] = (float)NAN;
    strcat(shape_text, ", a NaN in x");
}

static array *scratch(size_t direct_bytes, size_t tested_bytes)
{
    array *a = add("work", SCRATCH, direct_bytes > tested_bytes ? direct_bytes : tested_bytes);
    a->bytes[DIRECT] = a->bytes[BOUND] = direct_bytes;
    a->bytes[TESTED] = tested_bytes;
    return a;
}

static void put(array *a, int i)
{
    if (side[i].reads_host) PERMIT(a->block[i], a->bytes[i] + 2 * GUARD);
    side[i].upload(side[i].context, a->block[i], a->before[i], a->bytes[i] + 2 * GUARD);
    if (!side[i].reads_host) return;
    FORBID(a->block[i], GUARD);
    FORBID(a->block[i] + GUARD + a->bytes[i], GUARD);
}

static void take(array *a, int i)
{
    if (side[i].reads_host) PERMIT(a->block[i], a->bytes[i] + 2 * GUARD);
    side[i].download(side[i].context, a->after[i], a->block[i], a->bytes[i] + 2 * GUARD);
}

static void upload(void)                    /* those that are not there yet */
{
    int k, i;
    for (k = 0; k < array_count; k++)
        for (i = 0; i < SIDES; i++) {
            array *a = &arrays[k];
            if (a->block[i]) continue;
            a->block[i] = side[i].alloc(side[i].context, a->bytes[i] + 2 * GUARD);
            put(a, i);
        }
}

static void *at(const array *a, int i) { return a ? a->block[i] + GUARD : NULL; }

static int same_bytes(const array *a, int i, size_t from, size_t bytes)
{
    return !memcmp(a->before[i] + from, a->after[i] + from, bytes);
}

static void download(void)                  /* all, and what must not have changed is as it was */
{
    const char *fault = NULL, *where = "";
    int k, i;
    for (i = 0; i < SIDES && !fault; i++) fault = side[i].sync ? side[i].sync(side[i].context) : NULL;
    for (k = 0; k < array_count; k++)
        for (i = 0; i < SIDES; i++) {
            array *a = &arrays[k];
            take(a, i);
            if (fault) continue;
            if (a->role == INPUT && !same_bytes(a, i, GUARD, a->bytes[i])) fault = "it changed its input ";
            if (!same_bytes(a, i, 0, GUARD)) fault = "it wrote before ";
            if (!same_bytes(a, i, GUARD + a->bytes[i], GUARD)) fault = "it wrote past the end of ";
            if (fault) where = a->name;
        }
    CHECK(!fault, "%s: %s%s", case_text(), fault, where);
}

static void share(array *a)                 /* what `direct` put out becomes everyone's input; all guards stand again */
{
    int i, k;
    for (i = 0; i < SIDES; i++) memcpy(begun(a, i), result(a, DIRECT), a->bytes[DIRECT]);
    for (k = 0; k < array_count; k++)
        for (i = 0; i < SIDES; i++) put(&arrays[k], i);
    a->role = INPUT;
}

static void free_arrays(void)
{
    int i;
    while (array_count--)
        for (i = 0; i < SIDES; i++) {
            if (arrays[array_count].block[i]) side[i].free(side[i].context, arrays[array_count].block[i]);
            free(arrays[array_count].before[i]);
            free(arrays[array_count].after[i]);
        }
    array_count = 0;
}

/* ---- comparing ---- */

static double tolerance(double terms, double magnitude) { return ldexp(4 + sqrt(terms), -24) * magnitude + FLT_MIN; }

/* of an output whose M is known; terms 0: exact */
static double allowed_at(double terms, double m, double output)
{
    if (terms <= 0) return 0;
    return loss * tolerance(terms, m + fabs(output)) + (tf32 && !rounded ? ldexp(m, -10) : 0);
}

static double share_of(double tested, double direct, double allowed)
{
    double apart = fabs(tested - direct);
    if (tested == direct || (tested != tested && direct != direct)) return 0;
    return apart <= allowed ? apart / allowed : HUGE_VAL;
}

static void spread(const array *a, size_t map)         /* each M becomes the largest of its map */
{
    size_t i, k;
    for (i = 0; i < count(a); i += map) {
        float largest = 0;
        for (k = i; k < i + map; k++) if (result(a, BOUND)[k] > largest) largest = result(a, BOUND)[k];
        for (k = i; k < i + map; k++) result(a, BOUND)[k] = largest;
    }
}

static void compare(const array *a, double terms)
{
    size_t i, bad = 0;
    double most = 0;
    if (!a) return;
    for (i = 0; i < count(a); i++) {
        double direct = result(a, DIRECT)[i], tested = result(a, TESTED)[i];
        double far = share_of(tested, direct, allowed_at(terms, result(a, BOUND)[i], direct));
        if (loss > 1 && tested != tested && has_nan) continue;             /* it reaches the whole tile */
        if (far > most) { most = far; bad = i; }
    }
    if (most > worst) worst = most;
    CHECK(most <= 1, "%s: %s[%lu] is %.9g, but by direct %.9g, and the sum of |terms| %.9g", case_text(), a->name,
          (unsigned long)bad, result(a, TESTED)[bad], result(a, DIRECT)[bad], result(a, BOUND)[bad]);
}

static void compare_bytes(const array *a)
{
    CHECK(!memcmp(result(a, DIRECT), result(a, TESTED), a->bytes[DIRECT]), "%s: %s is not the same", case_text(), a->name);
}

static void compare_double(const char *name, double tested, double direct, double terms, double magnitude)
{
    double far = share_of(tested, direct, tolerance(terms, magnitude + fabs(direct)));
    if (far > worst) worst = far;
    CHECK(far <= 1, "%s: %s is %.12g, but by direct %.12g", case_text(), name, tested, direct);
}

/* ---- the counters, and those operations that only count ---- */

enum { OFFSETS = 30 };                      /* batches may begin that far into the order */

static array *random_counters(role role)
{
    cnn_counters c;
    memset(&c, 0, sizeof c);
    c.seed = draw();
    c.seed = c.seed << 32 | draw();
    c.pass = draw();
    c.pass <<= below(32);
    c.data_seed = draw();
    c.data_seed = c.data_seed << 32 | draw();
    c.epoch = draw();
    c.step = (uint64_t)(below(4) ? between(1, 3000) : 0);
    c.batch_offset = (uint64_t)below(OFFSETS);
    c.next_offset = (uint64_t)below(OFFSETS);
    c.lr = real(1e-4, 1e-1);
    c.loss = real(0, 1); c.loss_sum = real(0, 100); c.grad_norm = real(0, 1);
    c.correct = between(0, 9); c.correct_sum = between(0, 99); c.seen = between(100, 200);
    return content("counters", role, &c, sizeof c);
}

static cnn_counters counters_of(const array *a, int i)
{
    cnn_counters c;
    memcpy(&c, result(a, i), sizeof c);
    return c;
}

static void compare_counters(const array *a, double terms, double loss_magnitude, int batch, double norm)
{
    cnn_counters d = counters_of(a, DIRECT), t = counters_of(a, TESTED);
    compare_double("the loss", t.loss, d.loss, terms, loss_magnitude);
    compare_double("the sum of losses", t.loss_sum, d.loss_sum, terms, batch * loss_magnitude);
    compare_double("the gradient's norm", t.grad_norm, d.grad_norm, terms, norm);
    CHECK(t.seed == d.seed && t.pass == d.pass && t.data_seed == d.data_seed && t.epoch == d.epoch && t.step == d.step && t.lr == d.lr && t.batch_offset == d.batch_offset
          && t.next_offset == d.next_offset,
          "%s: the counters' seed, pass, step, offsets, rate are not the same", case_text());
    CHECK(t.correct == d.correct && t.correct_sum == d.correct_sum && t.seen == d.seen,
          "%s: %d correct of %d, but by direct %d of %d", case_text(), t.correct, t.seen, d.correct, d.seen);
}

static void next_batch(void)
{
    array *c = random_counters(SUM);
    int batch = between(1, 300), training = below(2), i;
    snprintf(shape_text, sizeof shape_text, "counters, a batch of %d%s", batch, training ? " to train with" : "");
    upload();
    for (i = 0; i < SIDES; i++) side[i].next_batch(side[i].context, at(c, i), batch, training);
    download();
    compare_bytes(c);
}

/* ---- shapes ---- */

static size_t product(int a, int b, int c, int d) { return (size_t)a * b * c * d; }

static size_t conv2d_inputs(const cnn_conv2d_shape *s) { return product(s->batch, s->in_channels, s->in_height, s->in_width); }
static size_t pool_inputs(const cnn_pool2d_shape *s) { return product(s->batch, s->channels, s->in_height, s->in_width); }
static size_t pool_outputs(const cnn_pool2d_shape *s) { return product(s->batch, s->channels, s->out_height, s->out_width); }

static size_t conv2d_outputs(const cnn_conv2d_shape *s)
{
    return s->pool.kernel_height ? pool_outputs(&s->pool) : product(s->batch, s->out_channels, s->out_height, s->out_width);
}

static size_t conv2d_weights(const cnn_conv2d_shape *s)
{
    return product(s->out_channels, s->in_channels / s->groups, s->kernel_height, s->kernel_width);
}

static int out_size(int in, int before, int after, int dilation, int kernel, int stride, int ceil_mode)
{
    int span = in + before + after - dilation * (kernel - 1) - 1, out = span / stride + 1;
    if (span < 0) return 0;
    return out + (ceil_mode && span % stride && out * stride < in + before);
}

static cnn_pool2d_shape random_pool(int batch, int channels, int height, int width, int average)
{
    cnn_pool2d_shape s;
    do {
        int ceil_mode = below(2), most = below(6) ? 4 : 16;
        memset(&s, 0, sizeof s);
        s.batch = batch; s.channels = channels; s.in_height = height; s.in_width = width;
        s.kernel_height = s.kernel_width = s.stride_height = s.stride_width = 2;
        if (below(2)) {
            s.kernel_height = between(1, most); s.kernel_width = between(1, most);
            s.stride_height = between(1, most); s.stride_width = between(1, most);
        }
        if (!below(3)) {
            s.pad_height = between(0, s.kernel_height / 2); s.pad_width = between(0, s.kernel_width / 2);
        }
        s.average = average;
        s.exclude_padding = average && below(2);
        s.out_height = out_size(height, s.pad_height, s.pad_height, 1, s.kernel_height, s.stride_height, ceil_mode);
        s.out_width = out_size(width, s.pad_width, s.pad_width, 1, s.kernel_width, s.stride_width, ceil_mode);
    } while (s.out_height < 1 || s.out_width < 1);
    return s;
}

static void random_activation(cnn_activation *activation, float *slope)
{
    *activation = (cnn_activation)between(CNN_NO_ACTIVATION, whole ? CNN_LEAKY_RELU : CNN_TANH);
    *slope = whole ? 0.25f : (float)real(0, 1);
}

/* Of the lecture: LeNet-5, the network of programs 6-2 and 6-3, the network of programs 6-4 and 6-5. */
static const layer convolutions[] = {
    { 1, 28, 6, 5, 1 }, { 6, 14, 16, 5, 1 }, { 16, 7, 120, 5, 0 }, { 1, 28, 32, 3, 0 }, { 32, 28, 64, 3, 1 },
    { 3, 32, 32, 3, 0 }, { 32, 32, 32, 3, 1 }, { 32, 16, 64, 3, 0 }, { 64, 16, 64, 3, 1 }
};
static const layer linears[] = {
    { 5880, 1, 84, 1, 0 }, { 84, 1, 10, 1, 0 }, { 12544, 1, 128, 1, 0 }, { 128, 1, 10, 1, 0 }, { 4096, 1, 512, 1, 0 }, { 512, 1, 10, 1, 0 }
};

static int pads_fit(cnn_padding_mode mode, int size, int before, int after)
{
    int most = mode == CNN_REFLECT ? size - 1 : mode == CNN_CIRCULAR ? size : INT_MAX;
    return before <= most && after <= most;
}

/* cuda has tensor cores for 3 x 3 and 5 x 5 with stride 1 and zero padding, on maps that fill half of its squares of 8 x 8 */
static int may_round(const cnn_conv2d_shape *s)
{
    int squares = (s->out_height + 7) / 8 * ((s->out_width + 7) / 8);
    return has_tf32 && s->in_channels >= 16 && s->out_channels >= 16 && s->groups == 1 && s->padding_mode == CNN_ZEROS
        && s->kernel_height == s->kernel_width && (s->kernel_width == 3 || s->kernel_width == 5)
        && s->stride_height == 1 && s->stride_width == 1 && s->dilation_height == 1 && s->dilation_width == 1
        && 2 * s->out_height * s->out_width >= 64 * squares;
}

static cnn_conv2d_shape of_the_lecture(void)
{
    cnn_conv2d_shape s = lecture_conv2d(convolutions[number], between(1, 2));
    s.allow_tf32 = tf32;
    rounds_itself = may_round(&s);
    return s;
}

static void make_common(cnn_conv2d_shape *s)
{
    int first = !tf32 && below(2), most = first ? 100 : 33;
    s->groups = 1; s->in_channels = first ? between(1, 3) : size_up_to(129);
    s->in_height = size_up_to(most); s->in_width = size_up_to(most);
    s->kernel_height = s->kernel_width = 3 + 2 * below(2);
    s->stride_height = s->stride_width = s->dilation_height = s->dilation_width = 1;
}

static void make_bundles(cnn_conv2d_shape *s)              /* groups that do not fit into a cache together */
{
    int many = below(2), least = many ? 24 : 40, most = many ? 40 : 64;
    s->groups = many ? between(30, 64) : between(2, 4);
    s->in_channels = s->groups * (many ? 1 : between(1, 4));
    s->out_channels = s->groups * (many ? between(1, 2) : between(1, 5));
    s->in_height = between(least, most); s->in_width = between(least, most);
    if (many || below(2)) return;
    s->in_channels = s->groups * between(4, 6); s->out_channels = s->groups * between(4, 6);           /* Winograd */
    s->kernel_height = s->kernel_width = 3;
    s->stride_height = s->stride_width = s->dilation_height = s->dilation_width = 1;
}

static cnn_conv2d_shape random_conv2d(void)
{
    cnn_conv2d_shape s;
    int bundles = number % 4 == 1 && !tf32 && !common, large = number % 16 == 0;
    double products, most = large || bundles ? 8e6 : 1e6, least = large ? 2e6 : 0;
    int tall, wide, fewest = tf32 ? 15 + below(2) : 1;     /* padding at most; channels of a group */
    if (number < sizeof convolutions / sizeof *convolutions && !common) return of_the_lecture();
    do {
        memset(&s, 0, sizeof s);
        s.batch = between(1, 20);
        s.groups = below(8) ? often(1, 2, 4) : size_up_to(65);
        s.in_channels = s.groups * size_up_to(129); s.out_channels = s.groups * size_up_to(129);
        s.allow_tf32 = tf32;
        s.in_height = size_up_to(33); s.in_width = size_up_to(33);
        s.kernel_height = between(1, 5); s.kernel_width = between(1, 5);
        s.stride_height = often(1, 2, 3); s.stride_width = often(s.stride_height, 1, 3);
        s.dilation_height = often(1, 2, 3); s.dilation_width = often(s.dilation_height, 1, 3);
        if (common || (tf32 && below(2))) make_common(&s);
        if (bundles) make_bundles(&s);
        s.padding_mode = (cnn_padding_mode)often(CNN_ZEROS, CNN_ZEROS, CNN_CIRCULAR);
        tall = often(s.dilation_height * (s.kernel_height - 1), 4, 4);
        wide = often(s.dilation_width * (s.kernel_width - 1), 4, 4);
        s.pad_top = between(0, tall); s.pad_bottom = between(0, tall);
        s.pad_left = between(0, wide); s.pad_right = between(0, wide);
        s.out_height = out_size(s.in_height, s.pad_top, s.pad_bottom, s.dilation_height, s.kernel_height, s.stride_height, 0);
        s.out_width = out_size(s.in_width, s.pad_left, s.pad_right, s.dilation_width, s.kernel_width, s.stride_width, 0);
        products = (double)s.batch * s.out_height * s.out_width * (double)conv2d_weights(&s);
    } while (s.out_height < 1 || s.out_width < 1 || products > most || products < least
             || s.in_channels / s.groups < fewest || s.out_channels / s.groups < fewest
             || !pads_fit(s.padding_mode, s.in_height, s.pad_top, s.pad_bottom)
             || !pads_fit(s.padding_mode, s.in_width, s.pad_left, s.pad_right));
    rounds_itself = may_round(&s);
    random_activation(&s.activation, &s.slope);
    if (below(2)) s.pool = random_pool(s.batch, s.out_channels, s.out_height, s.out_width, 0);
    return s;
}

static int describe_pool(char *to, size_t room, const cnn_pool2d_shape *s)
{
    return snprintf(to, room, "%s%s pool of %d x %d x %d x %d to %d x %d, kernel %d x %d, stride %d x %d, padding %d x %d%s",
                    s->adaptive ? "adaptive " : "", s->average ? "average" : "max", s->batch, s->channels, s->in_height, s->in_width, s->out_height, s->out_width,
                    s->kernel_height, s->kernel_width, s->stride_height, s->stride_width, s->pad_height, s->pad_width,
                    s->exclude_padding ? " excluded" : "");
}

static void describe_conv2d(const cnn_conv2d_shape *s, int bias)
{
    int n = snprintf(shape_text, sizeof shape_text,
                     "%d x %d x %d x %d to %d x %d x %d, kernel %d x %d, stride %d x %d, dilation %d x %d, "
                     "padding (top, left, bottom, right) %d %d %d %d mode %d, groups %d, activation %d slope %g%s%s%s%s ",
                     s->batch, s->in_channels, s->in_height, s->in_width, s->out_channels, s->out_height, s->out_width,
                     s->kernel_height, s->kernel_width, s->stride_height, s->stride_width, s->dilation_height, s->dilation_width,
                     s->pad_top, s->pad_left, s->pad_bottom, s->pad_right, (int)s->padding_mode, s->groups, (int)s->activation, s->slope,
                     bias ? ", bias" : "", whole ? ", whole numbers" : "", s->allow_tf32 ? ", TF32" : "",
                     rounded ? ", rounded" : "");
    if (s->pool.kernel_height) describe_pool(shape_text + n, sizeof shape_text - (size_t)n, &s->pool);
}

/* ---- convolution ---- */

static cnn_conv2d_shape without_activation(const cnn_conv2d_shape *s)  /* none grows faster than its input: M is enough */
{
    cnn_conv2d_shape plain = *s;
    plain.activation = CNN_NO_ACTIVATION;
    return plain;
}

static array *conv2d_work(const cnn_conv2d_shape *s)
{
    return scratch(side[DIRECT].conv2d_work(side[DIRECT].context, s), side[TESTED].conv2d_work(side[TESTED].context, s));
}

static void run_conv2d_forward(int i, const cnn_conv2d_shape *s, const array *y, const array *index, const array *x,
                               const array *weight, const array *bias, const array *work)
{
    side[i].conv2d_forward(side[i].context, s, at(y, i), at(index, i), at(x, i), at(weight, i), at(bias, i), at(work, i));
}

/* Winners may differ where their values do not; maps: the values before pooling. */
static void compare_winners(const cnn_pool2d_shape *p, const array *index, const array *maps, const array *y, double terms)
{
    const unsigned char *direct = index->after[DIRECT] + GUARD, *tested = index->after[TESTED] + GUARD;
    size_t i, bad = 0, differ = 0;
    for (i = 0; i < count(y); i++) {
        int pixel = (int)(i % product(1, 1, p->out_height, p->out_width)), map = (int)(i / product(1, 1, p->out_height, p->out_width));
        int row = pixel / p->out_width * p->stride_height - p->pad_height + tested[i] / p->kernel_width;
        int column = pixel % p->out_width * p->stride_width - p->pad_width + tested[i] % p->kernel_width;
        int inside = tested[i] < p->kernel_height * p->kernel_width && row >= 0 && row < p->in_height && column >= 0 && column < p->in_width;
        double largest = result(y, DIRECT)[i], allowed = allowed_at(terms, result(y, BOUND)[i], largest);
        if (tested[i] == direct[i] || (has_nan && loss > 1)) continue;
        if (terms > 0 && inside && share_of(result(maps, DIRECT)[((size_t)map * p->in_height + row) * p->in_width + column], largest, allowed) <= 1)
            continue;
        bad = i;
        differ++;
    }
    CHECK(!differ, "%s: %lu winners differ; index[%lu] is %d, but by direct %d", case_text(), (unsigned long)differ, (unsigned long)bad,
          tested[bad], direct[bad]);
}

/* May a backend use it? On the way back a stride is a matter of zeros between the gradients. */
static int by_winograd(const cnn_conv2d_shape *s, int back)
{
    return s->kernel_height == s->kernel_width && (s->kernel_height == 3 || s->kernel_height == 5)
        && (back || (s->stride_height == 1 && s->stride_width == 1)) && s->dilation_height == 1 && s->dilation_width == 1;
}

static void conv2d_forward(void)
{
    cnn_conv2d_shape s = random_conv2d(), plain = without_activation(&s), unpooled = s;
    double terms = whole && !by_winograd(&s, 0) ? 0 : (double)(conv2d_weights(&s) / s.out_channels) + 1;
    array *x = factors("x", conv2d_inputs(&s)), *weight = factors("weight", conv2d_weights(&s));
    array *bias = below(4) ? values("bias", INPUT, (size_t)s.out_channels) : NULL;
    array *y = output("y", conv2d_outputs(&s)), *index = NULL, *maps = NULL;
    array *work = conv2d_work(&s);
    int i;
    describe_conv2d(&s, bias != NULL);
    has_nan = whole && below(2);
    if (has_nan) add_nan(x);
    loss = by_winograd(&s, 0) ? s.kernel_width == 5 ? WINOGRAD_5 : WINOGRAD_3 : 1;
    if (s.pool.kernel_height && below(4)) {
        index = add("index", OUTPUT, conv2d_outputs(&s));
        unpooled.pool.kernel_height = 0;
        maps = output("maps", conv2d_outputs(&unpooled));
    }
    upload();
    for (i = 0; i < SIDES; i++) run_conv2d_forward(i, i == BOUND ? &plain : &s, y, index, x, weight, bias, work);
    if (maps) run_conv2d_forward(DIRECT, &unpooled, maps, NULL, x, weight, bias, work);
    download();
    if (loss > 1) spread(y, conv2d_outputs(&s) / product(s.batch, s.out_channels, 1, 1));
    compare(y, terms);
    if (index) compare_winners(&s.pool, index, maps, y, terms);
    loss = 1; has_nan = 0;
}

static int copies(cnn_padding_mode mode, int before, int after)        /* of one value in the padded row, at most */
{
    return mode == CNN_ZEROS ? 1 : mode == CNN_REPLICATE ? 1 + before + after : 3;
}

/* df is a factor as well: it keeps its 11 bits where it is one dy or zero. */
static cnn_conv2d_shape for_backward(cnn_conv2d_shape s)
{
    rounds_itself = rounds_itself && s.kernel_width == 3;      /* gradients of 5 x 5 weights stay float32 */
    if (!rounded) return s;
    if (s.activation > CNN_RELU) s.activation = CNN_RELU;
    if (s.pool.stride_height < s.pool.kernel_height || s.pool.stride_width < s.pool.kernel_width) s.pool.kernel_height = 0;
    return s;
}

static void conv2d_backward(void)
{
    cnn_conv2d_shape s = for_backward(random_conv2d()), plain = without_activation(&s);
    double outputs = (double)s.batch * s.out_height * s.out_width;
    double copied = (double)copies(s.padding_mode, s.pad_top, s.pad_bottom) * copies(s.padding_mode, s.pad_left, s.pad_right);
    double products = (double)s.out_channels / s.groups * s.kernel_height * s.kernel_width * copied;       /* of one dx */
    array *x = factors("x", conv2d_inputs(&s)), *weight = factors("weight", conv2d_weights(&s));
    array *bias = below(4) ? values("bias", INPUT, (size_t)s.out_channels) : NULL, *y = output("y", conv2d_outputs(&s));
    array *index = s.pool.kernel_height ? add("index", OUTPUT, conv2d_outputs(&s)) : NULL;
    array *work = conv2d_work(&s);
    array *dy = factors("dy", conv2d_outputs(&s)), *dx = below(4) ? output("dx", conv2d_inputs(&s)) : NULL;
    array *dweight = values("dweight", SUM, conv2d_weights(&s)), *dbias = bias ? values("dbias", SUM, count(bias)) : NULL;
    int i;
    if (!below(5)) dweight = NULL;          /* a frozen weight; the bias may learn */
    if (!below(5)) dbias = NULL;
    describe_conv2d(&s, bias != NULL);
    sprintf(shape_text + strlen(shape_text), "%s%s", dweight ? "" : ", no dweight", dbias ? "" : ", no dbias");
    upload();
    run_conv2d_forward(DIRECT, &s, y, index, x, weight, bias, work);
    download();
    share(y);
    if (index) share(index);
    for (i = 0; i < SIDES; i++)
        side[i].conv2d_backward(side[i].context, i == BOUND ? &plain : &s, at(dx, i), at(dweight, i), at(dbias, i), at(dy, i), at(y, i),
                                at(index, i), at(x, i), at(weight, i), at(work, i));
    download();
    loss = by_winograd(&s, 1) ? s.kernel_width == 5 ? WINOGRAD_5 : WINOGRAD_3 : 1;
    if (dx && loss > 1) spread(dx, product(s.in_height, s.in_width, 1, 1));
    compare(dx, whole && loss == 1 ? 0 : 4 * products);    /* `direct` adds these up in float32, too: twice the error */
    loss = 1;
    compare(dweight, whole ? 0 : outputs + 1);
    compare(dbias, whole ? 0 : outputs + 1);
}

static void in_tf32(void (*operation_itself)(void))
{
    tf32 = 1;
    rounded = !whole && number % 2 == 0;
    operation_itself();
    tf32 = rounded = 0;
}

static void in_common(void (*operation_itself)(void))
{
    common = 1;
    operation_itself();
    common = 0;
}

static void conv2d_forward_common(void) { in_common(conv2d_forward); }
static void conv2d_backward_common(void) { in_common(conv2d_backward); }
static void conv2d_forward_tf32(void) { in_tf32(conv2d_forward); }
static void conv2d_backward_tf32(void) { in_tf32(conv2d_backward); }

/* ---- pooling ---- */

static cnn_pool2d_shape random_pool2d(void)
{
    int batch = between(1, 20), channels = size_up_to(49), height = size_up_to(33), width = size_up_to(33);
    int average = below(2);
    cnn_pool2d_shape s;
    if (!below(12)) height = between(1, 3), width = between(900, 1200);    /* vectors pool maps up to a width */
    s = random_pool(batch, channels, height, width, average);
    if (average && below(3) == 0) {
        s.adaptive = 1;
        s.kernel_height = s.kernel_width = s.stride_height = s.stride_width = 0;       /* not read */
        s.pad_height = s.pad_width = s.exclude_padding = 0;
        s.out_height = between(1, 9);
        s.out_width = between(1, width < 900 ? 9 : 1200);
    }
    while (pool_inputs(&s) > 100000) s.batch = (s.batch + 1) / 2, s.channels = (s.channels + 1) / 2;
    describe_pool(shape_text, sizeof shape_text, &s);
    if (whole) strcat(shape_text, ", whole numbers");
    return s;
}

/* The most windows that share a value, and the most values of a window */
static double windows_of(const cnn_pool2d_shape *s)
{
    if (s->adaptive) return (s->out_height / s->in_height + 2.0) * (s->out_width / s->in_width + 2.0);
    return (s->kernel_height / s->stride_height + 1.0) * (s->kernel_width / s->stride_width + 1.0);
}

static double values_of(const cnn_pool2d_shape *s)
{
    if (s->adaptive) return (s->in_height / s->out_height + 2.0) * (s->in_width / s->out_width + 2.0);
    return (double)s->kernel_height * s->kernel_width;
}

static void pool2d_forward(void)
{
    cnn_pool2d_shape s = random_pool2d();
    array *x = values("x", INPUT, pool_inputs(&s)), *y = output("y", pool_outputs(&s));
    int i;
    if (!below(4)) add_nan(x);
    upload();
    for (i = 0; i < SIDES; i++) side[i].pool2d_forward(side[i].context, &s, at(y, i), at(x, i));
    download();
    compare(y, s.average ? values_of(&s) : 0);
}

static void pool2d_backward(void)
{
    cnn_pool2d_shape s = random_pool2d();
    array *x = signs(values("x", INPUT, pool_inputs(&s))), *dx = output("dx", count(x));
    array *dy = values("dy", INPUT, pool_outputs(&s));
    int i;
    upload();
    for (i = 0; i < SIDES; i++) side[i].pool2d_backward(side[i].context, &s, at(dx, i), at(dy, i), at(x, i));
    download();
    compare(dx, whole && !s.average ? 0 : 4 * windows_of(&s));
}

/* ---- the linear layer ---- */

static cnn_linear_shape random_linear(void)
{
    cnn_linear_shape s;
    double most = number % 16 ? 2e5 : 1e6;
    memset(&s, 0, sizeof s);
    s.activation = CNN_RELU;
    if (number < sizeof linears / sizeof *linears) {
        s.batch = between(1, 3); s.in_features = linears[number].in; s.out_features = linears[number].out;
        return s;
    }
    do {
        s.batch = below(4) ? between(1, 20) : size_up_to(129);
        s.in_features = size_up_to(2100); s.out_features = size_up_to(2100);
    } while ((double)s.batch * s.in_features * s.out_features > most);
    random_activation(&s.activation, &s.slope);
    return s;
}

static void describe_linear(const cnn_linear_shape *s, int bias)
{
    snprintf(shape_text, sizeof shape_text, "%d x %d to %d, activation %d slope %g%s%s", s->batch, s->in_features, s->out_features,
             (int)s->activation, s->slope, bias ? ", bias" : "", whole ? ", whole numbers" : "");
}

static array *linear_work(const cnn_linear_shape *s)
{
    return scratch(side[DIRECT].linear_work(side[DIRECT].context, s), side[TESTED].linear_work(side[TESTED].context, s));
}

static void run_linear_forward(int i, const cnn_linear_shape *s, const array *y, const array *x, const array *weight, const array *bias,
                               const array *work)
{
    side[i].linear_forward(side[i].context, s, at(y, i), at(x, i), at(weight, i), at(bias, i), at(work, i));
}

static void linear_forward(void)
{
    cnn_linear_shape s = random_linear(), plain = s;
    array *x = values("x", INPUT, product(s.batch, s.in_features, 1, 1)), *y = output("y", product(s.batch, s.out_features, 1, 1));
    array *weight = values("weight", INPUT, product(s.out_features, s.in_features, 1, 1));
    array *bias = below(4) ? values("bias", INPUT, (size_t)s.out_features) : NULL, *work = linear_work(&s);
    int i;
    describe_linear(&s, bias != NULL);
    if (whole && below(2)) add_nan(x);
    plain.activation = CNN_NO_ACTIVATION;
    upload();
    for (i = 0; i < SIDES; i++) run_linear_forward(i, i == BOUND ? &plain : &s, y, x, weight, bias, work);
    download();
    compare(y, whole ? 0 : s.in_features + 1);
}

static void linear_backward(void)
{
    cnn_linear_shape s = random_linear(), plain = s;
    array *x = values("x", INPUT, product(s.batch, s.in_features, 1, 1)), *y = output("y", product(s.batch, s.out_features, 1, 1));
    array *weight = values("weight", INPUT, product(s.out_features, s.in_features, 1, 1));
    array *bias = below(4) ? values("bias", INPUT, (size_t)s.out_features) : NULL, *work = linear_work(&s);
    array *dy = values("dy", INPUT, count(y)), *dx = below(4) ? output("dx", count(x)) : NULL;
    array *dweight = values("dweight", SUM, count(weight)), *dbias = bias ? values("dbias", SUM, count(bias)) : NULL;
    int i;
    if (!below(5)) dweight = NULL;
    if (!below(5)) dbias = NULL;
    describe_linear(&s, bias != NULL);
    sprintf(shape_text + strlen(shape_text), "%s%s", dweight ? "" : ", no dweight", dbias ? "" : ", no dbias");
    plain.activation = CNN_NO_ACTIVATION;
    upload();
    run_linear_forward(DIRECT, &s, y, x, weight, bias, work);
    download();
    share(y);
    for (i = 0; i < SIDES; i++)
        side[i].linear_backward(side[i].context, i == BOUND ? &plain : &s, at(dx, i), at(dweight, i), at(dbias, i), at(dy, i), at(y, i),
                                at(x, i), at(weight, i), at(work, i));
    download();
    compare(dx, whole ? 0 : s.out_features);
    compare(dweight, whole ? 0 : s.batch + 1);
    compare(dbias, whole ? 0 : s.batch + 1);
}

/* ---- value by value ---- */

static void activation_forward(void)
{
    size_t n = length();
    double most = below(2) ? 1 : below(2) ? 10 : 120;
    cnn_activation f;
    float slope;
    array *x, *y;
    int i, in_place = below(2);
    random_activation(&f, &slope);
    if (!below(6)) f = CNN_GELU;
    snprintf(shape_text, sizeof shape_text, "%lu values within %g, activation %d slope %g%s", (unsigned long)n, most, (int)f, slope,
             in_place ? ", in place" : "");
    x = signs(values_within("x", in_place ? SUM : INPUT, n, -most, most));
    y = in_place ? x : output("y", n);
    if (!below(4)) add_nan(x);
    upload();
    for (i = 0; i < SIDES; i++) side[i].activation_forward(side[i].context, f, slope, at(y, i), at(x, i), n);
    download();
    for (i = 0; i < (int)n; i++) result(y, BOUND)[i] = fabsf(f == CNN_GELU ? begun(x, DIRECT)[i] : result(y, DIRECT)[i]);
    compare(y, f == CNN_NO_ACTIVATION || f == CNN_RELU ? 0 : 1);
}

static void addition(void)                                  /* of two outputs, or of gradients, in place */
{
    size_t n = length();
    int in_place = between(0, 2), i;
    array *a, *b, *y;
    snprintf(shape_text, sizeof shape_text, "%lu values%s", (unsigned long)n, in_place ? ", in place" : "");
    a = values_within("a", in_place == 1 ? SUM : INPUT, n, -3, 3);
    b = values_within("b", in_place == 2 ? SUM : INPUT, n, -3, 3);
    y = in_place == 1 ? a : in_place == 2 ? b : output("y", n);
    upload();
    for (i = 0; i < SIDES; i++) side[i].add(side[i].context, at(y, i), at(a, i), at(b, i), n);
    download();
    for (i = 0; i < (int)n; i++) result(y, BOUND)[i] = fabsf(result(y, DIRECT)[i]);
    compare(y, 0);
}

static void copy_channels(void)                             /* the channels that are not copied stay as they are */
{
    cnn_copy_shape s;
    array *to, *from;
    size_t n;
    int i;
    s.batch = between(1, 5); s.channels = between(1, 7); s.pixels = between(1, 90);
    s.to_first = between(0, 3); s.from_first = between(0, 3);
    s.to_channels = s.to_first + s.channels + between(0, 3);
    s.from_channels = s.from_first + s.channels + between(0, 3);
    n = (size_t)s.batch * (size_t)s.to_channels * (size_t)s.pixels;
    snprintf(shape_text, sizeof shape_text, "%d x %d of %d from %d to %d of %d from %d, %d pixels", s.batch, s.channels, s.from_channels, s.from_first,
             s.to_channels, s.to_channels, s.to_first, s.pixels);
    to = values_within("to", SUM, n, -3, 3);
    from = values_within("from", INPUT, (size_t)s.batch * (size_t)s.from_channels * (size_t)s.pixels, -3, 3);
    upload();
    for (i = 0; i < SIDES; i++) side[i].copy_channels(side[i].context, &s, at(to, i), at(from, i));
    download();
    for (i = 0; i < (int)n; i++) result(to, BOUND)[i] = fabsf(result(to, DIRECT)[i]);
    compare(to, 0);
}

static void pad2d(void)                                     /* padding, and cutting: the way back */
{
    cnn_pad2d_shape s;
    array *to, *from;
    size_t n;
    int i;
    s.batch = between(1, 20); s.channels = between(1, 7);
    s.in_height = between(1, 20); s.in_width = between(1, 20);
    s.top = between(-s.in_height, 5); s.left = between(-s.in_width, 5);
    s.out_height = between(1, s.in_height + 10); s.out_width = between(1, s.in_width + 10);
    n = product(s.batch, s.channels, s.out_height, s.out_width);
    snprintf(shape_text, sizeof shape_text, "%d x %d x %d x %d to %d x %d, top %d, left %d", s.batch, s.channels, s.in_height, s.in_width,
             s.out_height, s.out_width, s.top, s.left);
    to = output("to", n);
    from = values_within("from", INPUT, product(s.batch, s.channels, s.in_height, s.in_width), -3, 3);
    upload();
    for (i = 0; i < SIDES; i++) side[i].pad2d(side[i].context, &s, at(to, i), at(from, i));
    download();
    for (i = 0; i < (int)n; i++) result(to, BOUND)[i] = fabsf(result(to, DIRECT)[i]);
    compare(to, 0);
}

static void activation_backward(void)
{
    size_t n = length();
    cnn_activation f;
    float slope;
    array *y, *dy, *dx;
    int i, in_place = below(2);
    random_activation(&f, &slope);
    if (!below(6)) f = CNN_GELU;                            /* then y is x */
    snprintf(shape_text, sizeof shape_text, "%lu values, activation %d slope %g%s", (unsigned long)n, (int)f, slope,
             in_place ? ", in place" : "");
    y = f == CNN_SIGMOID ? values_within("y", INPUT, n, 0, 1) : values("y", INPUT, n);
    dy = values("dy", in_place ? SUM : INPUT, n);
    dx = in_place ? dy : output("dx", n);
    upload();
    for (i = 0; i < SIDES; i++)
        side[i].activation_backward(side[i].context, i == BOUND ? CNN_NO_ACTIVATION : f, slope, at(dx, i), at(dy, i),
                                    f == CNN_GELU ? NULL : at(y, i), f == CNN_GELU ? at(y, i) : NULL, n);
    download();
    compare(dx, f == CNN_NO_ACTIVATION || f == CNN_RELU ? 0 : 1);
}

static cnn_map_shape random_map(int channels, int pixels)
{
    cnn_map_shape s;
    s.batch = between(1, 20);
    do {
        s.channels = size_up_to(channels);
        s.pixels = size_up_to(pixels);
    } while (s.channels * s.pixels > 4000);
    snprintf(shape_text, sizeof shape_text, "%d x %d x %d", s.batch, s.channels, s.pixels);
    return s;
}

static size_t map_values(const cnn_map_shape *s) { return (size_t)s->batch * s->channels * s->pixels; }

static void prelu_forward(void)
{
    cnn_map_shape s = random_map(33, 257);
    size_t n = map_values(&s), i;
    array *x = signs(values("x", INPUT, n)), *a = values("weight", INPUT, (size_t)s.channels), *y = output("y", n);
    int k;
    if (!below(4)) add_nan(x);
    upload();
    for (k = 0; k < SIDES; k++) side[k].prelu_forward(side[k].context, &s, at(y, k), at(x, k), at(a, k));
    download();
    for (i = 0; i < n; i++) result(y, BOUND)[i] = fabsf(result(y, DIRECT)[i]);
    compare(y, 1);
}

static void prelu_backward(void)
{
    cnn_map_shape s = random_map(33, 257);
    size_t n = map_values(&s), sums = (size_t)s.batch * (size_t)s.channels, i;
    array *x = values("x", INPUT, n), *a = values("weight", INPUT, (size_t)s.channels), *dy = values("dy", INPUT, n);
    array *dx = below(4) ? output("dx", n) : NULL, *da = below(4) ? values("dweight", SUM, (size_t)s.channels) : NULL;
    array *work = scratch(sizeof(float) * sums, sizeof(float) * sums);
    int k;
    for (i = 0; i < n; i++) begun(x, BOUND)[i] *= -1, begun(dy, BOUND)[i] *= -1;           /* so all count for da */
    upload();
    for (k = 0; k < SIDES; k++)
        side[k].prelu_backward(side[k].context, &s, at(dx, k), at(da, k), at(dy, k), at(x, k), at(a, k), (float *)at(work, k));
    download();
    for (i = 0; dx && i < n; i++) result(dx, BOUND)[i] = fabsf(result(dx, DIRECT)[i]);
    compare(dx, 1);
    compare(da, (double)s.batch * s.pixels + 1);
}

/* exp(x - max x) is off by |x - max x| roundings of x alone: M is as many times y. */
static void softmax_forward(void)
{
    cnn_map_shape s = random_map(129, 257);
    size_t n = map_values(&s), i;
    double most = below(2) ? 1 : 20;
    array *x = signs(values_within("x", INPUT, n, -most, most)), *y = output("y", n);
    int k;
    upload();
    for (k = 0; k < SIDES; k++) side[k].softmax_forward(side[k].context, &s, at(y, k), at(x, k));
    download();
    for (i = 0; i < n; i++) result(y, BOUND)[i] = (float)(2 * most * result(y, DIRECT)[i]);
    compare(y, s.channels);
}

static void softmax_backward(void)
{
    cnn_map_shape s = random_map(129, 257);
    size_t n = map_values(&s), i;
    array *y = values_within("y", INPUT, n, 0, 1), *dy = signs(values("dy", INPUT, n)), *dx = output("dx", n);
    int k;
    for (i = 0; i < n; i++) begun(y, DIRECT)[i] = begun(y, TESTED)[i] = begun(y, BOUND)[i] /= (float)s.channels;
    upload();
    for (k = 0; k < SIDES; k++) side[k].softmax_backward(side[k].context, &s, at(dx, k), at(dy, k), at(y, k));
    download();
    for (i = 0; i < n; i++) {               /* y (|dy| + sum |dy| y) */
        size_t pixels = (size_t)s.pixels, sample = (size_t)s.channels * pixels, at = i / sample * sample + i % pixels;
        double sum = 0;
        int c;
        for (c = 0; c < s.channels; c++, at += pixels) sum += fabs(begun(dy, DIRECT)[at]) * begun(y, DIRECT)[at];
        result(dx, BOUND)[i] = (float)(begun(y, DIRECT)[i] * (fabs(begun(dy, DIRECT)[i]) + sum));
    }
    compare(dx, s.channels);
}

static cnn_batch_norm_shape random_batch_norm(void)
{
    cnn_map_shape map = random_map(129, 2100);
    cnn_batch_norm_shape s;
    memset(&s, 0, sizeof s);
    s.batch = map.batch; s.channels = map.channels; s.pixels = map.pixels;
    if (s.batch * s.pixels == 1) s.batch = 2;
    s.training = below(4) != 0;
    s.eps = below(2) ? 1e-5f : 1e-2f;
    s.momentum = (float)real(0, 1);
    random_activation(&s.activation, &s.slope);
    snprintf(shape_text, sizeof shape_text, "%d x %d x %d, eps %g, momentum %g, training %d, activation %d slope %g", s.batch,
             s.channels, s.pixels, s.eps, s.momentum, s.training, (int)s.activation, s.slope);
    return s;
}

static size_t channel_of(const cnn_batch_norm_shape *s, size_t i) { return i / (size_t)s->pixels % (size_t)s->channels; }

/* x - mean is off by a rounding of x and of mean, and 1 / sqrt(var + eps) by that, too, for as many deviations as x is large. */
static void batch_norm_forward(void)
{
    cnn_batch_norm_shape s = random_batch_norm();
    size_t n = (size_t)s.batch * s.channels * s.pixels, channels = (size_t)s.channels, i;
    int affine = below(3), running = !s.training || below(3), save = below(4), k;
    double far = below(2) ? 1 : 9, m = (double)s.batch * s.pixels;
    int64_t passes = between(0, 1000000);
    array *x = signs(values_within("x", INPUT, n, far - 2, far)), *y = output("y", n), *saved = save ? output("saved", 2 * channels) : NULL;
    array *weight = affine ? signs(values("weight", INPUT, channels)) : NULL, *bias = affine ? signs(values("bias", INPUT, channels)) : NULL;
    array *mean = running ? signs(values("mean", s.training ? SUM : INPUT, channels)) : NULL;
    array *var = running ? signs(values_within("var", s.training ? SUM : INPUT, channels, 0.1, 2)) : NULL;
    array *batches = running ? content("batches", s.training ? SUM : INPUT, &passes, sizeof passes) : NULL;
    upload();
    for (k = 0; k < SIDES; k++)
        side[k].batch_norm_forward(side[k].context, &s, at(y, k), at(saved, k), at(mean, k), at(var, k), at(batches, k), at(x, k),
                                   at(weight, k), at(bias, k));
    download();
    for (i = 0; i < channels; i++) {
        cnn__moments of = cnn__batch_norm_moments(&s, begun(x, DIRECT), (int)i);
        double inverse, w = affine ? fabs(begun(weight, DIRECT)[i]) : 1, b = affine ? fabs(begun(bias, DIRECT)[i]) : 0;
        size_t p, v;
        if (!s.training) of.mean = begun(mean, DIRECT)[i], of.var = begun(var, DIRECT)[i];
        inverse = 1 / sqrt(of.var + s.eps);
        for (v = 0; v < (size_t)s.batch; v++)
            for (p = 0; p < (size_t)s.pixels; p++)
                result(y, BOUND)[(v * channels + i) * s.pixels + p] = (float)(4 * (far + 2) * inverse * w + b);
        if (saved) result(saved, BOUND)[i] = (float)(far + 2);
        if (saved) result(saved, BOUND)[channels + i] = (float)(inverse * (1 + (far + 2) * inverse));
        if (running) result(mean, BOUND)[i] = (float)(far + 2);
        if (running) result(var, BOUND)[i] = (float)(2 + of.var * m / (m > 1 ? m - 1 : 1) * (1 + (far + 2) * inverse));
    }
    compare(y, m);
    compare(saved, m);
    compare(mean, m);
    compare(var, m);
    if (batches) compare_bytes(batches);
}

static void batch_norm_backward(void)
{
    cnn_batch_norm_shape s = random_batch_norm();
    size_t n = (size_t)s.batch * s.channels * s.pixels, channels = (size_t)s.channels, i;
    int affine = below(4), learns = affine && below(3), k;
    double m = (double)s.batch * s.pixels;
    array *x = values("x", INPUT, n), *dy = values("dy", INPUT, n), *dx = !learns || below(3) ? output("dx", n) : NULL;
    array *y = s.activation == CNN_SIGMOID ? values_within("y", INPUT, n, 0, 1) : values("y", INPUT, n);
    array *saved = values_within("saved", INPUT, 2 * channels, 0.1, 2), *weight = affine ? values("weight", INPUT, channels) : NULL;
    array *dweight = learns && below(4) ? values("dweight", SUM, channels) : NULL, *dbias = learns && below(4) ? values("dbias", SUM, channels) : NULL;
    array *work = scratch(side[DIRECT].batch_norm_work(NULL, &s), side[TESTED].batch_norm_work(side[TESTED].context, &s));
    double *sums = calloc(2 * channels, sizeof *sums);
    upload();
    for (k = 0; k < SIDES; k++)
        side[k].batch_norm_backward(side[k].context, &s, at(dx, k), at(dweight, k), at(dbias, k), at(dy, k), at(y, k), at(saved, k),
                                    at(x, k), at(weight, k), at(work, k));
    download();
    for (i = 0; i < n; i++) {               /* the sums of |terms| */
        size_t c = channel_of(&s, i);
        double far = (begun(x, BOUND)[i] + begun(saved, BOUND)[c]) * begun(saved, BOUND)[channels + c];
        sums[c] += begun(dy, BOUND)[i];
        sums[channels + c] += begun(dy, BOUND)[i] * far;
    }
    for (i = 0; i < channels; i++) {
        if (dbias) result(dbias, BOUND)[i] = (float)(begun(dbias, BOUND)[i] + sums[i]);
        if (dweight) result(dweight, BOUND)[i] = (float)(begun(dweight, BOUND)[i] + sums[channels + i]);
    }
    for (i = 0; dx && i < n; i++) {
        size_t c = channel_of(&s, i);
        double inverse = begun(saved, BOUND)[channels + c], far = (begun(x, BOUND)[i] + begun(saved, BOUND)[c]) * inverse;
        result(dx, BOUND)[i] = (float)(inverse * (affine ? begun(weight, BOUND)[c] : 1)
                                       * (begun(dy, BOUND)[i] + (s.training ? sums[c] / m + far * sums[channels + c] / m : 0)));
    }
    compare(dx, m);
    compare(dweight, m);
    compare(dbias, m);
    free(sums);
}

static float random_p(void) { return below(8) ? (float)real(0, 1) : (float)below(2); }

static void dropout(int backward)
{
    size_t n = length(), i, differ = 0;
    float p = random_p();
    int layer = between(0, 40), k;
    array *c = random_counters(INPUT), *x = values_within("x", INPUT, n, 0.5, 1), *y = output("y", n);
    snprintf(shape_text, sizeof shape_text, "%lu values, layer %d, p %.9g", (unsigned long)n, layer, p);
    upload();
    for (k = 0; k < SIDES; k++)
        (backward ? side[k].dropout_backward : side[k].dropout_forward)(side[k].context, at(c, k), layer, p, at(y, k), at(x, k), n);
    download();
    for (i = 0; i < n; i++) differ += (result(y, DIRECT)[i] == 0) != (result(y, TESTED)[i] == 0);
    CHECK(!differ, "%s: %lu values of the mask are not the same", case_text(), (unsigned long)differ);
    compare(y, 1);
}

static void dropout_forward(void) { dropout(0); }
static void dropout_backward(void) { dropout(1); }

/* ---- losses ---- */

static array *random_labels(const char *name, int n, int classes)
{
    array *a = add(name, INPUT, sizeof(int) * (size_t)n);
    int i, k;
    for (i = 0; i < n; i++) {
        int label = below(classes);
        for (k = 0; k < SIDES; k++) memcpy(begun(a, k) + i, &label, sizeof label);
    }
    return a;
}

static void softmax_cross_entropy(void)
{
    int batch = between(1, 150), outputs = between(1, 40), weighted = below(2), soft = !below(3), k, r;
    double most = below(2) ? 1 : 20, largest = 0, divisor = 0;
    size_t n = (size_t)batch * (size_t)outputs, i;
    array *c = random_counters(SUM), *y = signs(values_within("y", INPUT, n, -most, most));
    array *labels = random_labels("labels", batch, outputs), *dy = below(4) ? output("dy", n) : NULL;
    array *weight = weighted ? values_within("weight", INPUT, (size_t)outputs, 0.1, 1) : NULL;
    array *target = soft ? values_within("target", INPUT, n, 0, 1.0 / outputs) : NULL;
    cnn_cross_entropy_options o;
    for (i = 0; weight && i < (size_t)outputs; i++)        /* as if they were whole: the sum must not be near 0 */
        begun(weight, DIRECT)[i] = begun(weight, TESTED)[i] = 0.5f + fabsf(begun(weight, DIRECT)[i]);
    memset(&o, 0, sizeof o);
    o.label_smoothing = below(2) ? 0.1f : 0;
    o.ignore_index = below(outputs + 1) - 1;               /* -1: none is ignored */
    if (batch == 1 || outputs == 1) o.ignore_index = -1;
    for (i = 1; i < (size_t)batch && begun(labels, DIRECT)[i] == begun(labels, DIRECT)[0]; i++) {}
    if (i == (size_t)batch) o.ignore_index = -1;           /* 0 / 0 is for tests/test_flow.c */
    if (soft && below(2)) labels = NULL;
    snprintf(shape_text, sizeof shape_text, "%d x %d within %g%s%s%s%s, smoothing %g, ignored %d", batch, outputs, most,
             dy ? "" : ", dy NULL", weighted ? ", weights" : "", soft ? ", probabilities" : "", labels ? "" : ", no labels",
             (double)o.label_smoothing, o.ignore_index);
    upload();
    for (k = 0; k < SIDES; k++) {
        o.weight = (const float *)at(weight, k);
        side[k].softmax_cross_entropy(side[k].context, at(c, k), &o, at(dy, k), at(y, k), at(target, k), at(labels, k), batch,
                                      outputs);
    }
    download();
    o.weight = weight ? begun(weight, DIRECT) : NULL;
    for (r = 0; r < batch; r++) {
        const float *p = target ? begun(target, DIRECT) + (size_t)r * (size_t)outputs : NULL;
        int label = 0;
        double all = 0;
        if (labels) memcpy(&label, begun(labels, DIRECT) + r, sizeof label);
        if (!p && label == o.ignore_index) continue;
        divisor += p ? 1 : cnn__class_weight(&o, label);
        for (k = 0; k < outputs; k++) all += fabs(cnn__cross_entropy_q(&o, p, label, k, outputs));
        if (all > largest) largest = all;
    }
    for (i = 0; dy && i < n; i++) result(dy, BOUND)[i] = (float)(2 * most * largest / divisor);    /* as for softmax, with y at most 1 */
    compare(dy, outputs);
    compare_counters(c, batch + outputs, (2 * most + log(outputs)) * largest * batch / divisor, batch, 0);
    compare_double("the sum of weights", counters_of(c, TESTED).weight_sum, counters_of(c, DIRECT).weight_sum, batch, divisor);
}

static void mse(void)
{
    int batch = between(1, 150), outputs = between(1, 40), k;
    size_t n = (size_t)batch * outputs, i;
    array *c = random_counters(SUM), *y = signs(values("y", INPUT, n));
    array *target = below(2) ? signs(values("target", INPUT, n)) : NULL;
    array *labels = target && below(2) ? NULL : random_labels("labels", batch, outputs);
    array *dy = below(4) ? output("dy", n) : NULL;
    snprintf(shape_text, sizeof shape_text, "%d x %d%s%s%s", batch, outputs, target ? ", targets" : "", labels ? ", labels" : "",
             dy ? "" : ", dy NULL");
    upload();
    for (k = 0; k < SIDES; k++)
        side[k].mse(side[k].context, at(c, k), at(dy, k), at(y, k), at(target, k), at(labels, k), batch, outputs);
    download();
    for (i = 0; dy && i < n; i++) result(dy, BOUND)[i] = (float)(2 * (fabs(begun(y, DIRECT)[i]) + 1) / (double)n);
    compare(dy, 1);
    compare_counters(c, (double)n, 4, batch, 0);           /* an error is at most 1 - (-1) */
}

/* ---- gathering a batch ---- */

static void gather(void)
{
    cnn_gather_shape s;
    int samples = between(1, 40), bytes = below(2), k;
    size_t sample, n, i;
    memset(&s, 0, sizeof s);
    s.batch = between(1, 40); s.channels = between(1, 5);
    s.height = below(4) ? between(1, 33) : 1; s.width = size_up_to(s.height > 1 ? 33 : 1025);
    s.packed = below(4) == 0;
    if (below(3)) {
        int side = s.height < s.width ? s.height : s.width;
        s.augment.padding = below(side < 9 ? side : 9);
        s.augment.flip = below(2);
        s.augment.rotation = below(2) ? (float)real(0, below(4) ? 20 : 180) : 0;
        s.augment.scale = below(2) ? (float)real(0, below(4) ? 0.3 : 0.99) : 0;
    }
    sample = (size_t)s.channels * (size_t)s.height * (size_t)s.width;
    n = (size_t)(s.packed && s.batch > samples ? s.batch : samples) * sample;
    array *from = bytes ? add("bytes", INPUT, n) : values("floats", INPUT, n);
    array *c = random_counters(INPUT), *order = random_labels("order", OFFSETS + s.batch, samples);
    array *x = output("x", (size_t)s.batch * sample);
    array *scale = values("scale", INPUT, (size_t)s.channels), *shift = values("shift", INPUT, (size_t)s.channels);
    for (i = 0; bytes && i < n; i++) {
        unsigned char byte = (unsigned char)draw();
        for (k = 0; k < SIDES; k++) from->before[k][GUARD + i] = byte;
    }
    snprintf(shape_text, sizeof shape_text, "%d of %d %s of %d x %d x %d%s, padding %d, flip %d, rotation %.9g, scale %.9g", s.batch,
             samples, bytes ? "bytes" : "floats", s.channels, s.height, s.width, s.packed ? ", packed" : "", s.augment.padding,
             s.augment.flip, s.augment.rotation, s.augment.scale);
    upload();
    for (k = 0; k < SIDES; k++)
        side[k].gather(side[k].context, at(c, k), &s, at(x, k), bytes ? at(from, k) : NULL, bytes ? NULL : at(from, k),
                       at(order, k), at(scale, k), at(shift, k));
    download();
    compare(x, 1);
}

static void gather_rows(void)
{
    int batch = between(1, 150), width = between(1, 12), rows = between(1, 200), k;
    array *from = random_labels("from", rows * width, INT_MAX), *order = random_labels("order", OFFSETS + batch, rows);
    array *c = random_counters(INPUT), *to = output("to", (size_t)batch * width);
    snprintf(shape_text, sizeof shape_text, "%d rows of %d from %d", batch, width, rows);
    upload();
    for (k = 0; k < SIDES; k++)
        side[k].gather_rows(side[k].context, at(c, k), at(to, k), at(from, k), at(order, k), batch, width);
    download();
    compare_bytes(to);
}

/* ---- optimizers ---- */

enum { SPANS = 12 };

/* Some parameters of a block of n floats, gaps between them, some frozen */
static array *random_spans(role role, cnn_span *spans, int *spans_count, size_t n)
{
    size_t at = (size_t)below(3);
    memset(spans, 0, SPANS * sizeof *spans);
    for (*spans_count = 0; *spans_count < SPANS && at < n; at += (size_t)below(17)) {
        cnn_span *span = &spans[(*spans_count)++];
        size_t left = n - at;
        span->offset = at;
        span->count = below(3) ? 1 + (size_t)below((int)(left < 50 ? left : 50)) : 1 + (size_t)below((int)left);
        span->step = (uint64_t)below(1000);
        span->weight_decay = below(2) ? (float)real(0, 0.1) : 0;
        span->trainable = below(4) > 0;
        at += span->count;
    }
    return content("spans", role, spans, SPANS * sizeof *spans);
}

static const cnn_span *span_of(const cnn_span *spans, int spans_count, size_t i)
{
    int k;
    for (k = 0; k < spans_count; k++)
        if (spans[k].trainable && i >= spans[k].offset && i - spans[k].offset < spans[k].count) return &spans[k];
    return NULL;
}

static void compare_untouched(const array *a, const cnn_span *spans, int spans_count)
{
    size_t i = 0;
    while (a && i < count(a) && (span_of(spans, spans_count, i) || result(a, TESTED)[i] == begun(a, TESTED)[i])) i++;
    CHECK(!a || i == count(a), "%s: %s[%lu] is frozen or nobody's, but was changed", case_text(), a->name, (unsigned long)i);
}

static void compare_steps(const array *a, const cnn_span *spans, int spans_count)
{
    int k;
    for (k = 0; k < spans_count; k++) {
        cnn_span after;
        memcpy(&after, (char *)result(a, TESTED) + (size_t)k * sizeof after, sizeof after);
        CHECK(after.step == spans[k].step + (spans[k].trainable != 0) && after.offset == spans[k].offset
                  && after.count == spans[k].count && after.trainable == spans[k].trainable
                  && after.weight_decay == spans[k].weight_decay, "%s: span %d is at step %d after %d, trainable %d", case_text(), k,
              (int)after.step, (int)spans[k].step, spans[k].trainable);
    }
}

static void clip_grad_norm(void)
{
    size_t n = length(), i;
    array *c = random_counters(SUM), *g = values("g", SUM, n), *spans_there;
    double norm = 0;
    float max_norm;
    cnn_span spans[SPANS];
    int k, clipped = below(2), spans_count;
    spans_there = random_spans(INPUT, spans, &spans_count, n);
    for (i = 0; i < n; i++)
        if (span_of(spans, spans_count, i)) norm += (double)begun(g, DIRECT)[i] * begun(g, DIRECT)[i];
    norm = sqrt(norm);
    max_norm = (float)((norm + 1e-3) * (clipped ? real(0.1, 0.9) : real(1.1, 9)));
    snprintf(shape_text, sizeof shape_text, "%lu values in %d spans of norm %g to %g", (unsigned long)n, spans_count, norm, max_norm);
    upload();
    for (k = 0; k < SIDES; k++)
        side[k].clip_grad_norm(side[k].context, at(c, k), at(g, k), n, at(spans_there, k), spans_count, max_norm);
    download();
    compare(g, clipped ? (double)n : 0);
    compare_untouched(g, spans, spans_count);
    compare_counters(c, (double)n, 0, 0, norm);
}

static void sgd_step(void)
{
    size_t n = length();
    cnn_sgd_options o;
    cnn_counters uphill;
    array *c = random_counters(SUM), *w = values("w", SUM, n), *g = values("g", INPUT, n);
    array *v = below(3) ? values("v", SUM, n) : NULL, *spans_there;
    cnn_span spans[SPANS];
    int k, spans_count;
    memset(&o, 0, sizeof o);
    o.momentum = v ? (float)real(0, 1) : 0;
    o.nesterov = v && below(2);
    o.weight_decay = 9;                     /* the spans' own is the one that counts */
    spans_there = random_spans(SUM, spans, &spans_count, n);
    snprintf(shape_text, sizeof shape_text, "%lu values in %d spans, momentum %g, nesterov %d", (unsigned long)n, spans_count,
             o.momentum, o.nesterov);
    memcpy(&uphill, begun(c, BOUND), sizeof uphill);
    uphill.lr = -uphill.lr;                 /* the third side adds the step: |w| + lr |v| */
    memcpy(begun(c, BOUND), &uphill, sizeof uphill);
    upload();
    for (k = 0; k < SIDES; k++)
        side[k].sgd_step(side[k].context, at(c, k), &o, at(w, k), at(v, k), at(g, k), n, at(spans_there, k), spans_count);
    download();
    compare(w, 4);
    compare(v, 4);
    compare_untouched(w, spans, spans_count);
    compare_untouched(v, spans, spans_count);
    compare_steps(spans_there, spans, spans_count);
    compare_counters(c, 0, 0, 0, 0);
}

static void adam_step(void)
{
    size_t n = length(), i;
    cnn_adam_options o;
    cnn_counters before;
    array *c = random_counters(SUM), *w = values("w", SUM, n), *g = values("g", INPUT, n);
    array *m = values("m", SUM, n), *v = values_within("v", SUM, n, 0.01, 1), *spans_there;
    cnn_span spans[SPANS];
    int decoupled = below(2), k, spans_count;
    o.lr = 0;                               /* the rate is among the counters */
    o.beta1 = (float)real(0.5, 0.95); o.beta2 = (float)real(0.9, 0.9999);
    o.eps = below(2) ? 1e-8f : 1e-3f;
    o.weight_decay = 9;                     /* the spans' own is the one that counts */
    spans_there = random_spans(SUM, spans, &spans_count, n);
    memcpy(&before, begun(c, DIRECT), sizeof before);
    snprintf(shape_text, sizeof shape_text, "%lu values in %d spans, beta %.9g %.9g, eps %g%s", (unsigned long)n, spans_count,
             o.beta1, o.beta2, o.eps, decoupled ? ", decoupled" : "");
    upload();
    for (k = 0; k < SIDES; k++)
        side[k].adam_step(side[k].context, at(c, k), &o, decoupled, at(w, k), at(m, k), at(v, k), at(g, k), n, at(spans_there, k),
                          spans_count);
    download();
    for (i = 0; i < n; i++) {               /* an error of m or v moves w by as much of a step */
        const cnn_span *s = span_of(spans, spans_count, i);
        double t = s ? (double)s->step + 1 : 1;
        double d = fabs(begun(g, DIRECT)[i]) + (s ? s->weight_decay : 0) * fabs(begun(w, DIRECT)[i]);
        double m_sum = o.beta1 * fabs(begun(m, DIRECT)[i]) + (1 - o.beta1) * d;
        double v_sum = o.beta2 * begun(v, DIRECT)[i] + (1 - o.beta2) * d * d, v_new = result(v, DIRECT)[i];
        double step = before.lr / (1 - pow(o.beta1, t)) * m_sum / (sqrt(v_new / (1 - pow(o.beta2, t))) + o.eps);
        result(m, BOUND)[i] = (float)m_sum;
        result(v, BOUND)[i] = (float)v_sum;
        result(w, BOUND)[i] = (float)(fabs(begun(w, DIRECT)[i]) + step * (1 + v_sum / v_new));
    }
    compare(w, 4);
    compare(m, 4);
    compare(v, 4);
    compare_untouched(w, spans, spans_count);
    compare_untouched(m, spans, spans_count);
    compare_untouched(v, spans, spans_count);
    compare_steps(spans_there, spans, spans_count);
    compare_counters(c, 0, 0, 0, 0);
}

/* ---- all of them ---- */

static const struct { const char *name; void (*run)(void); int exact; } operations[] = {   /* exact: some with whole numbers */
    { "conv2d_forward", conv2d_forward, 1 }, { "conv2d_backward", conv2d_backward, 1 },
    { "pool2d_forward", pool2d_forward, 1 }, { "pool2d_backward", pool2d_backward, 1 },
    { "linear_forward", linear_forward, 1 }, { "linear_backward", linear_backward, 1 },
    { "add", addition, 0 }, { "copy_channels", copy_channels, 0 }, { "pad2d", pad2d, 0 },
    { "prelu_forward", prelu_forward, 0 }, { "prelu_backward", prelu_backward, 0 },
    { "activation_forward", activation_forward, 0 }, { "activation_backward", activation_backward, 0 },
    { "batch_norm_forward", batch_norm_forward, 0 }, { "batch_norm_backward", batch_norm_backward, 0 },
    { "softmax_forward", softmax_forward, 0 }, { "softmax_backward", softmax_backward, 0 },
    { "dropout_forward", dropout_forward, 0 }, { "dropout_backward", dropout_backward, 0 },
    { "softmax_cross_entropy", softmax_cross_entropy, 0 }, { "mse", mse, 0 },
    { "gather", gather, 0 }, { "gather_rows", gather_rows, 0 }, { "next_batch", next_batch, 0 },
    { "clip_grad_norm", clip_grad_norm, 0 }, { "sgd_step", sgd_step, 0 }, { "adam_step", adam_step, 0 },
    { "conv2d_forward_common", conv2d_forward_common, 1 }, { "conv2d_backward_common", conv2d_backward_common, 1 },
    { "conv2d_forward_tf32", conv2d_forward_tf32, 1 }, { "conv2d_backward_tf32", conv2d_backward_tf32, 1 }
};

/* Is 1 + 2^-12, 16 * 9 times, 16 * 9? Then it has TF32. */
static int asked_for_tf32(void)
{
    enum { PIXELS = 8 * 8, INSIDE = 9 };    /* there all 9 taps lie in the map */
    static const layer one_square = { 16, 8, 16, 3, 0 };
    cnn_conv2d_shape s = lecture_conv2d(one_square, 1);
    array *x = values("x", INPUT, 16 * PIXELS), *weight = values("weight", INPUT, 16 * 16 * 9);
    array *y = output("y", 16 * PIXELS), *work = conv2d_work(&s);
    int i, answer;
    for (i = 0; i < 16 * 16 * 9; i++) begun(weight, TESTED)[i] = 1;
    for (i = 0; i < 16 * PIXELS; i++) begun(x, TESTED)[i] = 1 + (float)ldexp(1, -12);
    s.allow_tf32 = 1;
    upload();
    run_conv2d_forward(TESTED, &s, y, NULL, x, weight, NULL, work);
    download();
    answer = result(y, TESTED)[INSIDE] == 16 * 9;
    free_arrays();
    return answer;
}

static void test_backend(const cnn_backend *backend, uint32_t shapes, int asked_for)
{
    char sentence[256] = "";
    side[TESTED] = *backend;
    if (backend->open) side[TESTED].context = backend->open(THREADS, sentence, sizeof sentence);
    if (backend->open && !side[TESTED].context) {
        if (asked_for) CHECK(0, "%s cannot start: %s", backend->name, sentence);
        else SKIP("%s cannot start: %s", backend->name, sentence);
        return;
    }
    has_tf32 = asked_for_tf32();
    for (operation = 0; operation < sizeof operations / sizeof *operations; operation++) {
        worst = 0;
        for (number = 0; number < shapes; number++) {
            drawn = 0;
            whole = operations[operation].exact && number % 4 == 3;
            operations[operation].run();
            free_arrays();
        }
        printf("%s %-21s  %u shapes, at most %.2f of the tolerance\n", backend->name, operations[operation].name, (unsigned)shapes,
               worst);
        fflush(stdout);
    }
    if (backend->close) backend->close(side[TESTED].context);
}

int main(int argc, char **argv)
{
    int i, shapes = argc > 2 ? atoi(argv[2]) : getenv("CNN_TEST_SHORT") ? 20 : 300;
    const cnn_backend *list = cnn_find_backend("direct");  /* the first of all that are linked in */
    side[DIRECT] = side[BOUND] = *cnn_find_backend("direct");
    for (i = 0; i < cnn__backend_count; i++)
        if (argc > 1 ? !strcmp(argv[1], list[i].name) : strcmp("direct", list[i].name) != 0)
            test_backend(&list[i], (uint32_t)shapes, argc > 1);
    return test_end("test_backends");
}
