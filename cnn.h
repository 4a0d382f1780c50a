/* cnn.h - convolutional neural networks in one C header.

   Do this:
       #define CNN_IMPLEMENTATION
   before you include this file in *one* C or C++ file to create the implementation:
       cc -O2 program.c -lm             (add -pthread where the C library is older than glibc 2.34)
   All other files include it without that line.

   A whole program:

       #define CNN_IMPLEMENTATION
       #include "cnn.h"

       int main(void)
       {
           cnn_data *train = cnn_load_mnist("data/mnist", "train");
           cnn_data *test  = cnn_load_mnist("data/mnist", "t10k");
           cnn_net  *net   = cnn_new(1, 28, 28);
           cnn_conv2d(net, .out_channels = 6, .kernel_size = 5, .padding = 2);
           cnn_relu(net);
           cnn_max_pool2d(net, .kernel_size = 2);
           cnn_flatten(net);
           cnn_linear(net, .out_features = 10);
           cnn_adam(net, .lr = 1e-3f);
           cnn_fit(net, train, test, .epochs = 3, .batch_size = 128, .log = stdout);
           if (cnn_error(net)) puts(cnn_error(net));
           cnn_free(net); cnn_data_free(train); cnn_data_free(test);
           return 0;
       }

   CONTENTS (search for the tag)

       >>api        all types and functions, and the backend table; the rest is how they work
       >>error      the first mistake, kept as one message
       >>memory     allocation whose sizes cannot overflow
       >>random     Philox4x32-10: random numbers as a pure function
       >>threads    a small pool of threads; how many processors there are
       >>textbook   one card a layer: equation, shapes, one value, forward, backward as plain loops
       >>direct     `direct`: the cards as a table of operations
       >>simd       `simd`: the same operations on vectors (an image in each lane) and threads
       >>layers     every kind of layer: options, shape, parameters, calls, explanation
       >>net        building a network, running it forward and backward
       >>train      optimizers, schedules, the training loop, the doctor, evaluating, predicting
       >>data       IDX, CIFAR, folders of pictures, your own arrays, the loader
       >>file       state dicts (.safetensors, .pth), checkpoints, the network as one C file
       >>look       summary, gradient check, explain, curves, report

   WHERE TO FIND

       convolution (6.1), (6.2)    cnn__conv2d_at
       its gradients               cnn__conv2d_du_at (of the kernel), cnn__conv2d_backward (all
                                   three)
       activation (6.3)            cnn__activation_at
       the gradient of pooling     cnn__pool2d_backward
       dropout's mask              cnn__dropout_at
       Adam                        cnn__adam_step (the equation), CNN__FOR(cnn__adam) in >>simd (as
                                   it runs)
       the training loop           cnn__train_epoch (one epoch), cnn_fit_with
       what a network holds        struct cnn_net {
       from a call to a card       the head of >>net
       the fast convolution        cnn__choose_convolution
       one picture at a time       cnn__choose_cut
       how a layer is added        the head of >>layers
       a .pth, read safely         cnn__read_pth, cnn__run_pickle

   CONFIGURATION: macros, defined before the #include that has CNN_IMPLEMENTATION

       CNN_MALLOC(bytes), CNN_FREE(pointer)
           the allocator; define both or neither
       CNN_ON_ERROR(message)
           runs once for each mistake, e.g. (puts(message), exit(1)); not again where a loader or a
           network copies the message of its data. By default the library never prints or exits.
       CNN_NO_THREADS, CNN_NO_FILES
           for machines without threads, or without a file system (a web page, a microcontroller):
           weights then come by cnn_load_memory, and a call that is given a path is in error
       CNN_FILE_NAME
           the name of this file, e.g. "convnet.h", if it was renamed and the compiler has no
           __FILE_NAME__ (GCC before 12 and MSVC have none)

   CONVENTIONS

       Numbers are float32. Tensors are row-major (batch, channels, height, width), "NCHW"; a kernel
       tensor is (out_channels, in_channels / groups, kernel_height, kernel_width). These are
       PyTorch's shapes, and names and defaults are PyTorch's too, so weights need no conversion.
       "Convolution" is the textbook's  f(j,i) = sum_y sum_x z(j+y, i+x) u(y,x)  (6.2): the kernel
       is not mirrored. Signal processing calls this cross-correlation; deep learning never mirrors.
       dx is the gradient of the loss with respect to x. Outputs come before inputs in every call.
       Messages and tables count layers from 1. Names and keys count from 0, as PyTorch's do: the
       first layer of a block is "block.0". Indices in C count from 0.
       Random numbers are a pure function of (seed, stream, step, index): the same weights, shuffles
       and dropout masks on every backend and for any number of threads.
       A result has the same bits for any number of threads, but not for any batch size: that
       decides in which order numbers are added up.
       Two threads may use two networks at the same time, also with the same data set; one network,
       loader or file belongs to one thread at a time.

   WHAT IT DOES NOT DO

       No recurrence, no transposed convolution. No float16 or int8 arithmetic. No distributed
       training.
       -ffast-math is refused: it lets the compiler ignore NaN and infinity and reorder sums, and it
       is not needed for speed.
*/
#ifndef CNN_H
#define CNN_H

/* The first number changes when programs may have to be changed, the second when something is
   added, the third when a fault is corrected. The backend table has a version of its own. */
#define CNN_VERSION "2.2.0"
#define CNN_VERSION_MAJOR 2
#define CNN_VERSION_MINOR 2
#define CNN_VERSION_PATCH 0

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __FAST_MATH__
#error "cnn.h: compile without -ffast-math; it breaks NaN checks and reproducible sums"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ============================================================================================
   >>api   Everything a program calls. Options are structs in which zero means PyTorch's default.
           Macros let C write them like keyword arguments: cnn_linear(net, .out_features = 10).
           Without options, write 0: cnn_adam(net, 0). C99 needs at least one argument there.
           A field that is 0 cannot be told from one that was left out, so 0 asks for the default,
           and CNN_ZERO is the number zero: cnn_adamw(net, .weight_decay = CNN_ZERO).
           C++ calls the functions that end in _with: cnn_linear_with(net, { .out_features = 10 })
           in C++20; before that, with a struct that is filled field by field.
   ============================================================================================ */

#ifdef __cplusplus
#define CNN__0 = {}                     /* C++: a field left out becomes 0, without a warning */
#else
#define CNN__0                          /* C: the macros below leave it zero */
#endif

typedef struct cnn_net cnn_net;         /* layers, parameters, optimizer: one model */
typedef struct cnn_loader cnn_loader;   /* deals a data set out in batches */
typedef struct cnn_backend cnn_backend; /* the table of operations, at the end of >>api */

/* ---- building a network: a list of layers, each fitted to the shape that arrives ---- */

typedef enum cnn_padding_mode {
    CNN_ZEROS, CNN_REPLICATE, CNN_REFLECT, CNN_CIRCULAR
} cnn_padding_mode;
typedef enum cnn_activation {
    CNN_NO_ACTIVATION, CNN_RELU, CNN_LEAKY_RELU, CNN_SIGMOID, CNN_TANH,
    CNN_GELU                    /* never fused: its slope is no function of y */
} cnn_activation;
typedef enum cnn_init {         /* how weights begin; fan_in = inputs of one output value */
    CNN_INIT_DEFAULT,           /* PyTorch's: uniform within 1 / sqrt(fan_in), biases too */
    CNN_KAIMING_UNIFORM,        /* He et al. 2015: variance 2 / fan_in, for ReLU */
    CNN_KAIMING_NORMAL,
    CNN_XAVIER_UNIFORM,         /* Glorot, Bengio 2010: variance 2 / (fan_in + fan_out) */
    CNN_XAVIER_NORMAL
} cnn_init;

enum { CNN_SAME = -1 };                 /* .padding = CNN_SAME: output as large as the input */
enum { CNN_ZERO = -2147483647 - 1 };    /* 0 in an option, int or float; exact as both: -2^31 */

typedef struct cnn_conv2d_options {
    int out_channels CNN__0;                                            /* kernels = feature maps */
    int kernel_size CNN__0, kernel_height CNN__0, kernel_width CNN__0;  /* one for both, or each */
    int stride CNN__0, stride_height CNN__0, stride_width CNN__0;       /* default 1 */
    int padding CNN__0, padding_height CNN__0, padding_width CNN__0;    /* default 0; CNN_SAME */
    int dilation CNN__0, dilation_height CNN__0, dilation_width CNN__0; /* default 1 */
    int groups CNN__0;                                                  /* default 1 */
    cnn_padding_mode padding_mode CNN__0;                               /* default CNN_ZEROS */
    int no_bias CNN__0;
    cnn_init init CNN__0;
    int in_channels CNN__0;                                             /* only checked */
} cnn_conv2d_options;

typedef struct cnn_pool2d_options {
    int kernel_size CNN__0, kernel_height CNN__0, kernel_width CNN__0;
    int stride CNN__0, stride_height CNN__0, stride_width CNN__0;       /* default: kernel size */
    int padding CNN__0, padding_height CNN__0, padding_width CNN__0;    /* at most kernel / 2 */
    int ceil_mode CNN__0;                                               /* round output size up */
    int exclude_padding CNN__0;         /* average pooling: count_include_pad = False */
} cnn_pool2d_options;

typedef struct cnn_adaptive_pool2d_options {
    int output_size CNN__0, output_height CNN__0, output_width CNN__0;  /* one for both, or each */
} cnn_adaptive_pool2d_options;

typedef struct cnn_zero_pad2d_options {
    int padding CNN__0;                 /* on all sides, or each; default 0 */
    int padding_left CNN__0, padding_right CNN__0, padding_top CNN__0, padding_bottom CNN__0;
} cnn_zero_pad2d_options;

typedef struct cnn_linear_options {
    int out_features CNN__0;
    int no_bias CNN__0;
    cnn_init init CNN__0;
    int in_features CNN__0;             /* only checked */
} cnn_linear_options;

typedef struct cnn_batch_norm_options {
    float eps CNN__0;                   /* added to the variance; default 1e-5 */
    float momentum CNN__0;              /* share of a batch in the running values; default 0.1 */
    int no_affine CNN__0;               /* affine = False: no weight, no bias */
    int no_running_stats CNN__0;        /* track_running_stats = False: always the batch's own */
} cnn_batch_norm_options;

typedef struct cnn_leaky_relu_options {
    float negative_slope CNN__0;        /* default 0.01 */
} cnn_leaky_relu_options;
typedef struct cnn_prelu_options {
    int num_parameters CNN__0;          /* 1, the default: one slope; or one for each channel */
    float init CNN__0;                  /* of the slopes; default 0.25 */
} cnn_prelu_options;
typedef struct cnn_dropout_options {
    float p CNN__0;                     /* share of values set to 0; no default; CNN_ZERO: none */
} cnn_dropout_options;

/* The shape of one sample. NULL only if there is no memory. */
cnn_net *cnn_new(int channels, int height, int width);
void cnn_free(cnn_net *net);

/* output size per side:  out = floor((in + 2 padding - dilation (kernel - 1) - 1) / stride) + 1 */
void cnn_conv2d_with(cnn_net *net, cnn_conv2d_options o);      /* y = b + sum_c,y,x z u    (6.2) */
void cnn_conv1d_with(cnn_net *net, cnn_conv2d_options o);      /* along width only         (6.1) */
void cnn_max_pool2d_with(cnn_net *net, cnn_pool2d_options o);  /* y = max of window  (figure 6-8) */
void cnn_avg_pool2d_with(cnn_net *net, cnn_pool2d_options o);  /* y = mean of window */
void cnn_max_pool1d_with(cnn_net *net, cnn_pool2d_options o);  /* along width only, after conv1d; */
void cnn_avg_pool1d_with(cnn_net *net, cnn_pool2d_options o);  /* options for height are not read */
void cnn_adaptive_avg_pool2d_with(cnn_net *net, cnn_adaptive_pool2d_options o);  /* to a size */
void cnn_global_avg_pool2d(cnn_net *net);                      /* (c, h, w) -> (c, 1, 1): means */
void cnn_zero_pad2d_with(cnn_net *net, cnn_zero_pad2d_options o);  /* zeros around each map */
void cnn_linear_with(cnn_net *net, cnn_linear_options o);      /* y = W x + b */
/* y = w (x - mean) / sqrt(var + eps) + b, for each channel; 1d: after cnn_linear or cnn_conv1d */
void cnn_batch_norm2d_with(cnn_net *net, cnn_batch_norm_options o);
void cnn_batch_norm1d_with(cnn_net *net, cnn_batch_norm_options o);
void cnn_relu(cnn_net *net);                                   /* y = max(0, x)            (6.3) */
void cnn_leaky_relu_with(cnn_net *net, cnn_leaky_relu_options o);  /* y = x > 0 ? x : slope x */
void cnn_prelu_with(cnn_net *net, cnn_prelu_options o);        /* y = x > 0 ? x : a x, a learned */
void cnn_gelu(cnn_net *net);                                   /* y = x (1 + erf(x / sqrt 2)) / 2 */
void cnn_sigmoid(cnn_net *net);                                /* y = 1 / (1 + exp(-x)) */
void cnn_tanh(cnn_net *net);                                   /* y = tanh x */
void cnn_softmax(cnn_net *net);                                /* y_c = exp(x_c) / sum_k exp(x_k) */
void cnn_flatten(cnn_net *net);                                /* (c, h, w) -> (c h w) */

/* Branches. A layer reads the one before it, unless cnn_from has named another place; cnn_here
   names the place where the list stands, so that a residual block (He et al. 2016, figure 2) reads

       int x = cnn_here(net);
       cnn_conv2d(net, ...);  cnn_relu(net);  cnn_conv2d(net, ...);
       cnn_add(net, x);       cnn_relu(net);

   A place is a number, 0 for the samples; it stays the same. The last layer gives the output. */
int cnn_here(const cnn_net *net);
void cnn_from(cnn_net *net, int place);     /* the next layer reads this place's output */
void cnn_add(cnn_net *net, int place);      /* y = a + b: the output here + that, of one shape */
void cnn_concat(cnn_net *net, int place);   /* torch.cat: channels here, then the other's */

/* In training y = x m / (1 - p), m = 0 with probability p, else 1; otherwise y = x */
void cnn_dropout_with(cnn_net *net, cnn_dropout_options o);

/* A building block (section 6.2.3.1): the layers that follow are name.0, name.1, ... as in
   nn.Sequential. */
void cnn_block(cnn_net *net, const char *name);
void cnn_name(cnn_net *net, const char *name);                 /* names the next layer alone */

#ifndef __cplusplus
#define cnn_conv2d(net, ...)     cnn_conv2d_with(net, (cnn_conv2d_options){ __VA_ARGS__ })
#define cnn_conv1d(net, ...)     cnn_conv1d_with(net, (cnn_conv2d_options){ __VA_ARGS__ })
#define cnn_max_pool2d(net, ...) cnn_max_pool2d_with(net, (cnn_pool2d_options){ __VA_ARGS__ })
#define cnn_avg_pool2d(net, ...) cnn_avg_pool2d_with(net, (cnn_pool2d_options){ __VA_ARGS__ })
#define cnn_max_pool1d(net, ...) cnn_max_pool1d_with(net, (cnn_pool2d_options){ __VA_ARGS__ })
#define cnn_avg_pool1d(net, ...) cnn_avg_pool1d_with(net, (cnn_pool2d_options){ __VA_ARGS__ })
#define cnn_adaptive_avg_pool2d(net, ...) \
    cnn_adaptive_avg_pool2d_with(net, (cnn_adaptive_pool2d_options){ __VA_ARGS__ })
#define cnn_zero_pad2d(net, ...) cnn_zero_pad2d_with(net, (cnn_zero_pad2d_options){ __VA_ARGS__ })
#define cnn_linear(net, ...)     cnn_linear_with(net, (cnn_linear_options){ __VA_ARGS__ })
#define cnn_batch_norm2d(net, ...) \
    cnn_batch_norm2d_with(net, (cnn_batch_norm_options){ __VA_ARGS__ })
#define cnn_batch_norm1d(net, ...) \
    cnn_batch_norm1d_with(net, (cnn_batch_norm_options){ __VA_ARGS__ })
#define cnn_leaky_relu(net, ...) cnn_leaky_relu_with(net, (cnn_leaky_relu_options){ __VA_ARGS__ })
#define cnn_prelu(net, ...)      cnn_prelu_with(net, (cnn_prelu_options){ __VA_ARGS__ })
#define cnn_dropout(net, ...)    cnn_dropout_with(net, (cnn_dropout_options){ __VA_ARGS__ })
#define cnn_sgd(net, ...)        cnn_sgd_with(net, (cnn_sgd_options){ __VA_ARGS__ })
#define cnn_adam(net, ...)       cnn_adam_with(net, (cnn_adam_options){ __VA_ARGS__ })
#define cnn_adamw(net, ...)      cnn_adamw_with(net, (cnn_adam_options){ __VA_ARGS__ })
#define cnn_step_lr(net, ...)    cnn_step_lr_with(net, (cnn_step_lr_options){ __VA_ARGS__ })
#define cnn_cosine_lr(net, ...)  cnn_cosine_lr_with(net, (cnn_cosine_lr_options){ __VA_ARGS__ })
#define cnn_one_cycle_lr(net, ...) \
    cnn_one_cycle_lr_with(net, (cnn_one_cycle_lr_options){ __VA_ARGS__ })
#define cnn_loader_new(data, ...) cnn_loader_new_with(data, (cnn_loader_options){ __VA_ARGS__ })
#define cnn_data_new(...)        cnn_data_new_with((cnn_data_options){ __VA_ARGS__ })
#define cnn_load_images(folder, ...) \
    cnn_load_images_with(folder, (cnn_image_options){ __VA_ARGS__ })
#define cnn_load_image(path, ...) cnn_load_image_with(path, (cnn_image_options){ __VA_ARGS__ })
#define cnn_set_cross_entropy(net, ...) \
    cnn_set_cross_entropy_with(net, (cnn_cross_entropy_options){ __VA_ARGS__ })
#define cnn_fit(net, train, test, ...) \
    cnn_fit_with(net, train, test, (cnn_fit_options){ __VA_ARGS__ })
#endif

/* ---- errors: the first mistake is kept as one message, and later calls do nothing ---- */

const char *cnn_error(const cnn_net *net);  /* the message; NULL: no error */
void cnn_clear_error(cnn_net *net);         /* after a failed load, save or .read; a network whose
                                               building failed stays in error */

/* ---- where and how it computes; all but cnn_allow_tf32 before the first forward pass ---- */

/* "simd" (default), "direct", "cuda" if cnn_cuda.cu is linked */
void cnn_to(cnn_net *net, const char *backend);
void cnn_use_backend(cnn_net *net, const cnn_backend *backend);        /* one of your own */
const cnn_backend *cnn_find_backend(const char *name);                 /* NULL if there is none */
void cnn_set_num_threads(cnn_net *net, int threads);  /* changes no bit of any result */
int cnn_num_threads(const cnn_net *net);              /* default, and for NULL: the processors that
                                                         affinity and the container's quota allow */
void cnn_manual_seed(cnn_net *net, uint64_t seed);    /* weights and dropout; default 0 */
/* torch.backends.cudnn.allow_tf32, but off by default: from the next pass on, convolutions may
   round their factors to 10 bits of mantissa, which tensor cores multiply faster. A backend
   without TF32 goes on in float32. */
void cnn_allow_tf32(cnn_net *net, int allow);

/* ---- data ---- */

typedef struct cnn_data {               /* samples; read it freely */
    int count, channels, height, width; /* count may be lowered, to use the first samples only */
    int classes;                        /* labels are 0 .. classes-1; 0: no labels */
    int outputs;                        /* length of one target; 0: no targets */
    const unsigned char *bytes;         /* (count, channels, height, width) as bytes, or */
    const float *floats;                /* the same as floats, or, where both are NULL, */
    int (*read)(void *user, int sample, unsigned char *bytes);      /* gives a sample's bytes */
    void *user;                         /* for read */
    const int *labels;                  /* (count) */
    const float *targets;               /* (count, outputs), for the mean squared error */
    const char *const *class_names;     /* (classes), or NULL */
    const float *scale, *shift;         /* (channels): the network sees  scale x + shift */
    const char *name;                   /* where it came from, for messages */
    const char *error;                  /* the message if it could not be read, else NULL */
    int skipped;                        /* files that cnn_load_images left out */
    struct cnn__data_memory *memory;    /* what cnn_data_free releases */
    cnn_loader *dealt_by;               /* of a batch: who changes or reads its samples; or NULL */
} cnn_data;

/* Your own arrays, used in place: keep them while the data set is in use; you may refill them.
   Samples that memory has no room for: read writes one, (channels, height, width), and returns 1,
   or 0 if it cannot; then the network that wanted it is in error. Several threads call it at once,
   while the network computes the batch before; for one sample it must always give the same. Keep
   user until this data set, and those that cnn_random_split made of it, are freed. */
typedef struct cnn_data_options {
    int count CNN__0, channels CNN__0, height CNN__0, width CNN__0, classes CNN__0, outputs CNN__0;
    const unsigned char *bytes CNN__0;  /* one of these three */
    const float *floats CNN__0;
    int (*read)(void *user, int sample, unsigned char *bytes) CNN__0;
    void *user CNN__0;                  /* for read */
    const int *labels CNN__0;           /* either, both or none; below 0: for .ignore_index */
    const float *targets CNN__0;
    const char *const *class_names CNN__0;
    int constant CNN__0;                /* 1: nobody writes to the arrays any more, so a GPU may
                                           keep a copy. 0: each batch is sent when it is used */
} cnn_data_options;

/* CIFAR-100's labels: one of 100 classes (fine), or one of 20 (coarse) */
typedef enum cnn_cifar100_labels { CNN_FINE, CNN_COARSE } cnn_cifar100_labels;

/* These functions never return NULL. A failure is a message in data->error, which is copied to a
   loader or network that is given such data.
   The split is "train" or "test" ("t10k" is the same). The folder is the one with the files, or the
   one above it as torchvision and the archives make it (MNIST/raw, cifar-10-batches-bin, ...).
   MNIST and Fashion-MNIST: each refuses the other's files. CIFAR: the binary version. */
cnn_data *cnn_load_mnist(const char *directory, const char *split);
cnn_data *cnn_load_fashion_mnist(const char *directory, const char *split);
cnn_data *cnn_load_cifar10(const char *directory, const char *split);
cnn_data *cnn_load_cifar100(const char *directory, const char *split, cnn_cifar100_labels labels);
/* IDX files by path. Images: (n, h, w), colour (n, c, h, w) or (n, h, w, c), or (n, values); bytes
   stay bytes, other numbers become floats. Labels: (n), whole numbers from 0 to classes - 1. */
cnn_data *cnn_load_idx(const char *images, const char *labels, int classes);
cnn_data *cnn_data_new_with(cnn_data_options o);
void cnn_data_free(cnn_data *data);

typedef struct cnn_image_options {
    int height CNN__0, width CNN__0;    /* of every sample: to be given */
    int channels CNN__0;                /* 3, the default: red, green, blue; 1: grey, PIL's "L" */
    int skip_broken CNN__0;             /* 1: leave out files that cannot be read: data->skipped */
    int keep CNN__0;                    /* default 1: in memory. CNN_ZERO: read with each batch */
    FILE *progress CNN__0;              /* e.g. stderr: ten lines, and one for each file left out */
} cnn_image_options;

/* Pictures; the program includes stb_image.h, which decodes them, before this file. One folder a
   class, as torchvision's ImageFolder: FOLDER/cat/1.jpg, FOLDER/dog/summer/2.png. Classes are
   numbered in the order of their names' bytes; files (.jpg .jpeg .png .ppm .bmp .pgm) come in the
   order of their paths; names that begin with a dot are not read. A picture is turned upright
   (Exif), loses its alpha, is resized to cover height x width and cut to its middle: torchvision's
   Resize, with antialiasing, and CenterCrop.
   With .keep = CNN_ZERO only the heads of the files are looked at here. A file that turns out to be
   broken when its batch is wanted puts the network in error, with .skip_broken too. */
cnn_data *cnn_load_images_with(const char *folder, cnn_image_options o);
/* One picture: a sample without a label, for cnn_classify, or its ->bytes for cnn_predict_bytes. */
cnn_data *cnn_load_image_with(const char *path, cnn_image_options o);

/* bytes become (x / 255 - mean[c]) / std[c], floats (x - mean[c]) / std[c]; without this call bytes
   become x / 255 (torchvision's ToTensor) and floats stay. mean, std: (channels). */
void cnn_normalize(cnn_data *data, const float *mean, const float *std);

/* Two new data sets: *second has `count` samples drawn by seed, *first the others (training and
   validation). */
void cnn_random_split(const cnn_data *data, int count, uint64_t seed, cnn_data **first,
                      cnn_data **second);

typedef struct cnn_batch {              /* some samples of a data set */
    const cnn_data *data;
    const int *order;                   /* (size): which ones */
    int size;
} cnn_batch;

/* Pictures are changed at random while a batch is gathered to train on, and never where the network
   evaluates or is looked at. (seed, epoch, number of the sample) decide how. What lies beyond the
   border is 0, as the network sees it: after cnn_normalize. */
typedef struct cnn_augment_options {
    int padding CNN__0;                 /* moves by up to so many pixels: a padded crop */
    int flip CNN__0;                    /* mirrors half of them, left to right */
    float rotation CNN__0;              /* turns by up to so many degrees, either way */
    float scale CNN__0;                 /* .1 makes it 0.9 to 1.1 times as large */
} cnn_augment_options;

typedef struct cnn_loader_options {
    int batch_size CNN__0;              /* default 1 */
    int shuffle CNN__0;                 /* a new order each epoch */
    int drop_last CNN__0;               /* leave an incomplete last batch out */
    cnn_augment_options augment CNN__0; /* e.g. { .padding = 4, .flip = 1 }; default: none */
    uint64_t seed CNN__0;               /* of the shuffle and the augmentation */
} cnn_loader_options;

cnn_loader *cnn_loader_new_with(const cnn_data *data, cnn_loader_options o);
/* Returns 1 and a batch; 0 at the end of the epoch, after which the next call begins a new one. A
   loader in error gives one empty batch, from which cnn_forward copies the message. */
int cnn_next(cnn_loader *loader, cnn_batch *batch);
void cnn_set_epoch(cnn_loader *loader, int epoch);        /* (seed, epoch): order and changes */
int cnn_batches(const cnn_loader *loader);                /* batches in an epoch */
const char *cnn_loader_error(const cnn_loader *loader);   /* the message; NULL: no error */
void cnn_loader_free(cnn_loader *loader);

/* ---- training, step by step: forward, loss, zero_grad, backward, step ---- */

/* PyTorch's requires_grad: 1 to learn, as everything does at first, or 0 to freeze. key: a
   parameter ("classifier.weight"), a layer ("classifier"), a block ("hidden_layer_1"), or NULL for
   all; at any time after the layer was added. A frozen parameter gets no gradient (its .grad is all
   0; PyTorch's is None), no step and no weight decay, and clipping leaves it out; Adam's moments
   and steps stand still meanwhile. Backward ends where nothing before it learns. Files do not hold
   this setting: cnn_load and cnn_checkpoint_load leave it as it is. */
void cnn_requires_grad(cnn_net *net, const char *key, int requires_grad);

typedef struct cnn_sgd_options {
    float lr CNN__0 /* 1e-3 */, momentum CNN__0, weight_decay CNN__0; int nesterov CNN__0;
} cnn_sgd_options;
typedef struct cnn_adam_options {
    float lr CNN__0 /* 1e-3 */, beta1 CNN__0 /* 0.9 */, beta2 CNN__0 /* 0.999 */;
    float eps CNN__0 /* 1e-8 */, weight_decay CNN__0 /* adam 0, adamw 0.01 */;
} cnn_adam_options;

/* sgd    v = momentum v + g;  w = w - lr v        (Sutskever 2013)
   adam   w = w - lr m' / (sqrt(v') + eps)         (Kingma, Ba 2015)
   adamw  w = (1 - lr decay) w first, then adam    (Loshchilov, Hutter 2019)
   A second call makes a new optimizer, as in PyTorch: old moments, steps and schedule are gone. */
void cnn_sgd_with(cnn_net *net, cnn_sgd_options o);
void cnn_adam_with(cnn_net *net, cnn_adam_options o);
void cnn_adamw_with(cnn_net *net, cnn_adam_options o);

/* Learning-rate schedules:
       step       lr *= gamma each step_size steps
       cosine     lr = eta_min + (lr - eta_min) (1 + cos(pi t / t_max)) / 2
       one-cycle  up to max_lr, then down to almost 0    (Smith 2018)
   Each cnn_scheduler_step() moves on by one. cnn_fit calls it itself, once an epoch for step and
   cosine, once a step for one-cycle. One-cycle is PyTorch's with cycle_momentum=False. Step and
   cosine start from the current rate, also one given by cnn_set_lr; one-cycle overwrites it. A
   second schedule replaces the first and starts from the current rate. */
typedef struct cnn_step_lr_options {
    int step_size CNN__0; float gamma CNN__0 /* 0.1 */;
} cnn_step_lr_options;
typedef struct cnn_cosine_lr_options {
    int t_max CNN__0; float eta_min CNN__0;
} cnn_cosine_lr_options;
typedef struct cnn_one_cycle_lr_options {
    float max_lr CNN__0; int total_steps CNN__0;
    float pct_start CNN__0 /* 0.3 */, div_factor CNN__0 /* 25 */, final_div_factor CNN__0 /* 1e4 */;
} cnn_one_cycle_lr_options;
void cnn_step_lr_with(cnn_net *net, cnn_step_lr_options o);
void cnn_cosine_lr_with(cnn_net *net, cnn_cosine_lr_options o);
void cnn_one_cycle_lr_with(cnn_net *net, cnn_one_cycle_lr_options o);
void cnn_scheduler_step(cnn_net *net);
void cnn_set_lr(cnn_net *net, float lr);
float cnn_lr(const cnn_net *net);

void cnn_train(cnn_net *net);           /* dropout on: the mode of a new network */
void cnn_eval(cnn_net *net);            /* dropout off */
void cnn_forward(cnn_net *net, const cnn_batch *batch);  /* pred = model(x) */
/* -1/N sum_n log softmax(pred_n)[label_n]; without labels, targets are probabilities */
void cnn_cross_entropy(cnn_net *net, const cnn_batch *batch);
/* 1/(N K) sum (pred - target)^2; without targets, labels become one-hot vectors */
void cnn_mse_loss(cnn_net *net, const cnn_batch *batch);
void cnn_zero_grad(cnn_net *net);
void cnn_backward(cnn_net *net);        /* adds to the gradients, as PyTorch does */
/* g *= min(1, max_norm / |g|); returns |g| */
float cnn_clip_grad_norm(cnn_net *net, float max_norm);
void cnn_step(cnn_net *net);
float cnn_loss(cnn_net *net);           /* of the last batch, mean per sample */
/* Of the last batch: how often the largest output is the label's. As torch.argmax: NaN counts as
   the largest; among equal outputs the first is taken. */
int cnn_correct(cnn_net *net);

/* torch.nn.CrossEntropyLoss, for cnn_cross_entropy, cnn_fit and cnn_evaluate; a second call sets
   everything anew. Weighted losses are divided by the sum of the labels' weights, an epoch's too;
   with probabilities by the number of samples. */
typedef struct cnn_cross_entropy_options {
    const float *weight CNN__0;         /* (classes): of each class, copied; default 1 */
    int classes CNN__0;                 /* how many weights there are: one for each output */
    float label_smoothing CNN__0;       /* e: 1 - e at the label, and e / K more everywhere */
    int ignore_index CNN__0;            /* a label that does not count; default -100; class 0:
                                           CNN_ZERO */
    int probabilities CNN__0;           /* 1: use targets even where there are labels; labels then
                                           say only which answers are right */
} cnn_cross_entropy_options;
void cnn_set_cross_entropy_with(cnn_net *net, cnn_cross_entropy_options o);

/* ---- training, all at once ---- */

typedef enum cnn_loss_kind { CNN_CROSS_ENTROPY, CNN_MSE } cnn_loss_kind;
typedef struct cnn_score { double loss, accuracy; int count; } cnn_score;  /* means over samples */
typedef struct cnn_epoch {              /* one line of the history */
    int epoch; cnn_score train, test; double seconds; float lr;  /* seconds in training alone */
} cnn_epoch;

typedef struct cnn_fit_options {
    int epochs CNN__0;                  /* default 1 */
    int batch_size CNN__0;              /* default 128 */
    int test_batch_size CNN__0;         /* default 256 */
    cnn_loss_kind loss CNN__0;
    float clip_grad_norm CNN__0;        /* 0: no clipping */
    int keep_order CNN__0;              /* default: shuffled */
    int keep_last CNN__0;               /* default: an incomplete last batch is left out */
    cnn_augment_options augment CNN__0; /* of the training samples; as in cnn_loader_options */
    FILE *log CNN__0;                   /* one line an epoch, e.g. stdout */
    FILE *progress CNN__0;              /* e.g. stderr */
    int progress_bar CNN__0;            /* redraw one line (a terminal), else write several */
    int progress_width CNN__0;          /* columns of the terminal, default 80; a line has fewer */
    FILE *doctor CNN__0;                /* advice when training goes wrong, e.g. stderr */
    int patience CNN__0;                /* stop after so many epochs without a better; 0: never */
    int keep_best CNN__0;               /* end with the best epoch's weights: cnn_best_epoch */
    int by_accuracy CNN__0;             /* better: a higher test accuracy, not a lower test loss */
    void (*each_epoch)(cnn_net *net, const cnn_epoch *epoch, void *user) CNN__0;
    /* Called before each batch; if it does not return 0, cnn_fit ends there, without an error. The
       epoch that is cut off is not in the history, and each_epoch is not called for it; the weights
       and the optimizer keep what its batches changed. A checkpoint saved then holds these changes
       too, and cnn_fit begins the epoch again: the bits differ from those of an uncut run. */
    int (*interrupted)(void *user) CNN__0;
    void *user CNN__0;                  /* given to each_epoch and interrupted */
} cnn_fit_options;

/* test may be NULL, but not with .patience and .keep_best, which judge an epoch by it: then give
   samples that are not used for the final score (cnn_random_split). Returns 1, or 0 with the net
   in error. Training goes on from the net's last epoch up to `epochs`. Patience counts from the
   history, also after cnn_checkpoint_load. A checkpoint keeps the best weights as well. */
int cnn_fit_with(cnn_net *net, const cnn_data *train, const cnn_data *test, cnn_fit_options o);
const cnn_epoch *cnn_history(const cnn_net *net, int *count);   /* every epoch of cnn_fit so far */
int cnn_best_epoch(const cnn_net *net);     /* from 1: whose weights .keep_best keeps; 0: none */
cnn_score cnn_evaluate(cnn_net *net, const cnn_data *data, int batch_size, cnn_loss_kind loss);
/* y: (count, outputs); x: (count, channels, height, width), already scaled as in training */
int cnn_predict(cnn_net *net, float *y, const float *x, int count);
/* The same with x as bytes, scaled as the bytes that the network was last trained on; a checkpoint
   keeps that scale. If it was not trained on bytes, cnn_set_scale gives the scale: cnn_normalize's
   mean and std; both NULL: x / 255. */
int cnn_predict_bytes(cnn_net *net, float *y, const unsigned char *x, int count);
void cnn_set_scale(cnn_net *net, const float *mean, const float *std);
/* classes: (data->count), probability: (data->count) of that class by softmax, or NULL */
int cnn_classify(cnn_net *net, int *classes, float *probability, const cnn_data *data,
                 int batch_size);

/* ---- every number by name ---- */

/* Keys: "input_layer.0.weight", "input_layer.0.weight.grad", "bn1.running_mean"; "input_layer.0"
   for that layer's output in the last forward pass (inside a fused operation it is computed again,
   with the current weights). Returns the number of floats; copies them if `values` has room for all
   (NULL: only count). 0 and an error if there is no such thing. */
size_t cnn_get(cnn_net *net, const char *key, float *values, size_t room);
/* Sets a parameter or buffer; 1, or 0 and an error */
int cnn_set(cnn_net *net, const char *key, const float *values, size_t count);
/* Returns the number of dimensions, or 0 and an error; num_batches_tracked has 0 */
int cnn_shape(cnn_net *net, const char *key, int shape[4]);
const char *cnn_key(cnn_net *net, int i);               /* parameter i from 0; NULL past the last */
size_t cnn_num_parameters(cnn_net *net);                /* numbers to be learned */
const char *cnn_layer_name(const cnn_net *net, int i);  /* layer i from 0; NULL past the last */

/* ---- looking: it leaves training as it was, bit for bit, wherever in the loop it is called ----

   cnn_evaluate, cnn_predict, cnn_classify, cnn_gradcheck and cnn_report have outputs and counters
   of their own, allocated by the first call. cnn_loss, cnn_get and cnn_explain tell about the last
   cnn_forward. After a call that asks for parameters (cnn_key, cnn_shape, ...) no layer can be
   added; after cnn_summary it can. */

/* A row a layer: name, output, parameters, multiply-adds, bytes; `from 8, 3`: the rows it reads,
   where that is not the one above alone. Eighty columns; a longer name has a line of its own. */
void cnn_summary(cnn_net *net, FILE *out);

/* Compares the backend's gradients with central differences of the textbook's forward pass in
   double precision, layer by layer, at `samples` random places of each tensor, on the given
   batch. An element at a kink of ReLU or max pooling has no gradient and is counted apart. */
typedef struct cnn_gradcheck_result {
    int checked, failed, kinks; double worst; const char *where;
} cnn_gradcheck_result;
cnn_gradcheck_result cnn_gradcheck(cnn_net *net, const cnn_batch *batch, int samples,
                                   FILE *out /* or NULL */);

/* Learning curves of cnn_history; 1, or 0 and an error. A file is written whole or not at all. */
int cnn_save_curves_svg(cnn_net *net, const char *path, const char *title);
int cnn_save_curves_csv(cnn_net *net, const char *path);
void cnn_print_curves(const cnn_net *net, FILE *out);   /* drawn with characters, 72 columns wide */

/* Prints, for one output value of a layer and the first sample of the last batch, the equation with
   its numbers: the window, what of it lies beyond the border, each product, the sum, the bias, the
   result. */
int cnn_explain(cnn_net *net, const char *layer, int channel, int row, int column, FILE *out);

/* Writes one self-contained HTML page: scores on data, learning curves, confusion matrix, precision
   and recall, the most confident mistakes, the graph of layers, first kernels, every layer's
   feature maps. */
int cnn_report(cnn_net *net, const cnn_data *data, const char *path, const char *title);

/* ---- files: state dicts that PyTorch reads and writes too, and checkpoints ---- */

/* The ending chooses the format in which a file is written: .safetensors, or .pth, .pt, .pth.tar,
   .bin and .ckpt as torch.save(model.state_dict(), path) writes them; keys and shapes are
   PyTorch's. In Python:
       model.load_state_dict(torch.load("net.pth", weights_only=True))
       model.load_state_dict(safetensors.torch.load_file("net.safetensors"))
   A file is read by its contents, whatever its ending. A state dict may be an entry of another dict
   ({"state_dict": ..., "epoch": ...}); if several entries fit equally well, it is the one called
   state_dict, model_state_dict or model, else the first. A prefix of all keys is dropped
   ("module.", "_orig_mod.", "model."). F32 is written; F32, F64, F16 and BF16 are read. Reading a
   .pth runs none of the code in it. Each function returns 1, or 0 and an error; then network and
   file are as before. A file is replaced whole or not at all, also if several programs save to one
   path; a link stays a link, and a pipe or device is written to. A program that is killed while it
   saves leaves a file PATH.*.part behind. */
int cnn_save(cnn_net *net, const char *path);
int cnn_load(cnn_net *net, const char *path);   /* every key must be there and fit, and no other */
/* Loads the keys that fit and skips the others; an error only if none fits. report (or NULL) gets
   one sentence: how many were loaded, and which are missing, unexpected or of another shape. */
int cnn_load_partly(cnn_net *net, const char *path, char *report, size_t room);
/* The same from memory and to memory. bytes: (size), the contents of any such file, e.g. linked
   into the program; not kept. cnn_save_memory returns how many bytes the file of that ending
   (".pth") would have, and copies them if `bytes` has room for all (NULL: only count); 0 and an
   error if it cannot. */
int cnn_load_memory(cnn_net *net, const void *bytes, size_t size);
size_t cnn_save_memory(cnn_net *net, const char *ending, void *bytes, size_t room);

/* Strings that cnn_save writes beside the weights, in the "__metadata__" of a .safetensors file:
   what a program must know to use the network, such as its classes. UTF-8, of any length; value
   NULL takes the key away; "format" is the file's own. PyTorch's format has no place for them, so
   cnn_save refuses to write a .pth while there are any. cnn_load neither needs nor takes them. */
int cnn_set_metadata(cnn_net *net, const char *key, const char *value);
/* Reads one of them, before there is a network. value: (room). Returns 1; or 0, and `value` has one
   sentence: what is wrong with the file, or which keys it has, or how much room it takes. */
int cnn_read_metadata(const char *path, const char *key, char *value, size_t room);

/* Everything that training needs to go on: parameters, the optimizer's moments, steps, learning
   rate, place in the schedule, seed and history. Call cnn_checkpoint_load after the same building
   calls, cnn_adam (or another) and schedule as in the program that saved it; cnn_fit then goes on
   after the last epoch and ends with the same bits as a run that was never stopped. Learning rate
   and seed come from the file (to change the rate: cnn_set_lr afterwards); the other options of the
   optimizer and the schedule come from the program and may be changed. Another network, optimizer
   or schedule is refused. The file is a .safetensors file, whatever its ending. */
int cnn_checkpoint_save(cnn_net *net, const char *path);
int cnn_checkpoint_load(cnn_net *net, const char *path);

/* Writes the network as one readable C99 file: a function a layer in plain loops, the parameters as
   arrays. It evaluates one sample (no dropout), needs math.h alone and allocates nothing:
       void NAME(float y[outputs], const float x[channels * height * width]);    as cnn_predict
   name: the function's, or NULL for the file's: lenet_5 for "nets/lenet-5.c". Returns 1; or 0, an
   error, and the file as it was. */
int cnn_export_c(cnn_net *net, const char *path, const char *name);

/* ---- the backend table: every operation, filled by `direct`, `simd`, `cuda` or by you ---- */

/* One operation may fuse several layers: a convolution with its activation and its max pooling, a
   linear layer with its activation. */

typedef struct cnn_pool2d_shape {
    int batch, channels, in_height, in_width, out_height, out_width;
    int kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
    int average, exclude_padding;       /* average: 0 for max pooling */
    int adaptive;                       /* 1: the windows are even shares of the input; an average,
                                           and kernel, stride and pad are not read */
} cnn_pool2d_shape;

typedef struct cnn_conv2d_shape {
    int batch, in_channels, in_height, in_width;
    int out_channels, out_height, out_width;         /* of the convolution, before any pooling */
    int kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int pad_top, pad_left, pad_bottom, pad_right, groups;
    cnn_padding_mode padding_mode;
    cnn_activation activation; float slope;          /* applied to the sum */
    cnn_pool2d_shape pool;                           /* then max pooling; kernel_height 0: none */
    int allow_tf32;                                  /* conv2d_work must not depend on it */
    uint64_t weight_version;                         /* changes when the weights do: a backend may
                                                        keep what it made of them; 0: it may not */
} cnn_conv2d_shape;

typedef struct cnn_linear_shape {
    int batch, in_features, out_features;
    cnn_activation activation; float slope;
} cnn_linear_shape;

/* training 1: mean and variance of this batch; 0: the running ones */
typedef struct cnn_batch_norm_shape {
    int batch, channels, pixels;
    float eps, momentum;
    int training;
    cnn_activation activation; float slope;
} cnn_batch_norm_shape;

/* Some channels of one tensor, and where they go in another */
typedef struct cnn_copy_shape {
    int batch, channels, pixels;
    int to_channels, to_first, from_channels, from_first;
} cnn_copy_shape;
/* Row j, column i go to j + top, i + left; negative: what lies outside is cut off */
typedef struct cnn_pad2d_shape {
    int batch, channels, in_height, in_width, out_height, out_width, top, left;
} cnn_pad2d_shape;

/* Softmax, PReLU and gathering know pixels, not rows and columns. PReLU with one slope for all
   channels sees one channel. */
typedef struct cnn_map_shape { int batch, channels, pixels; } cnn_map_shape;

/* Gathering: packed 1: sample n of the batch lies at n, else at order[n]; augment all 0: none */
typedef struct cnn_gather_shape {
    int batch, channels, height, width, packed;
    cnn_augment_options augment;
} cnn_gather_shape;

/* What changes from step to step. It lives in backend memory and goes to operations by pointer, so
   that a recorded step can be replayed. */
typedef struct cnn_counters {
    uint64_t seed;
    uint64_t pass;                      /* training passes so far: select the dropout masks */
    uint64_t data_seed, epoch;          /* of the loader: they decide the augmentation */
    uint64_t step;                      /* steps of this optimizer so far */
    uint64_t batch_offset, next_offset; /* where in `order` the batch begins, and the next one */
    double lr;
    double loss;                        /* mean of the last batch */
    double loss_sum, weight_sum;        /* since the last reset: mean = loss_sum / weight_sum */
    double grad_norm;                   /* of the last clipping */
    int correct;                        /* of the last batch */
    int correct_sum, seen;              /* since the last reset; seen: samples not ignored */
} cnn_counters;

/* One parameter's place in the blocks of all parameters, of their gradients and of each moment.
   Spans are sorted by offset; what lies between two of them is unused. They live in backend memory,
   too. */
typedef struct cnn_span {
    size_t offset, count;               /* floats */
    uint64_t step;                      /* Adam's t: the steps that moved this parameter */
    float weight_decay;
    int trainable;                      /* 0: frozen: not changed, and its gradient is not read */
    float same[4];                      /* for the operation's own use: what is the same for all
                                           numbers of the parameter */
} cnn_span;

enum { CNN_BACKEND_VERSION = 7 };

/* Rules. Outputs come first. Sizes are in one struct. No operation allocates: scratch comes as
   `work`, of the bytes that *_work asked for. Pointers are the backend's memory; nobody else reads
   or writes there. Every entry overwrites its outputs, but adds to dweight and dbias. Where a layer
   has parameters, dx, dweight and dbias may each be NULL: not wanted. To make a
   backend, copy cnn_find_backend("direct") and replace entries, or fill all. Entries marked
   (optional) may be NULL; if another one is missing, a network refuses the backend and names the
   entry. */
struct cnn_backend {
    int version;                        /* CNN_BACKEND_VERSION, or the table is refused */
    const char *name;
    void *context;                      /* yours, or what `open` returned; given to every entry */
    /* (optional) open may fail: then it returns NULL and has written a message */
    void *(*open)(int threads, char *message, size_t room);
    void (*close)(void *context);       /* (optional) */
    /* memory: alloc returns 64-byte aligned bytes or NULL */
    void *(*alloc)(void *context, size_t bytes);
    void (*free)(void *context, void *memory);
    void (*upload)(void *context, void *to, const void *host, size_t bytes);
    void (*download)(void *context, void *host, const void *from, size_t bytes);
    void (*zero)(void *context, void *memory, size_t bytes);
    const char *(*sync)(void *context); /* (optional) waits; NULL, or what went wrong */
    int reads_host;                     /* 1: operations read data sets directly, without upload */

    /* y: (n, k, h', w') after activation and pooling; index: (n, k, h', w'), the winner's place in
       its window, row * kernel_width + column (NULL: not wanted, or no pooling);
       x: (n, c, h, w); weight: (k, c / groups, kh, kw); bias: (k) or NULL */
    size_t (*conv2d_work)(void *context, const cnn_conv2d_shape *s);
    void (*conv2d_forward)(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index,
                           const float *x, const float *weight, const float *bias, void *work);
    void (*conv2d_backward)(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight,
                            float *dbias, const float *dy, const float *y,
                            const unsigned char *index, const float *x, const float *weight,
                            void *work);
    /* y: (n, c, h', w'); x: (n, c, h, w) */
    void (*pool2d_forward)(void *context, const cnn_pool2d_shape *s, float *y, const float *x);
    void (*pool2d_backward)(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy,
                            const float *x);
    /* y: (n, out); x: (n, in); weight: (out, in); bias: (out) or NULL */
    size_t (*linear_work)(void *context, const cnn_linear_shape *s);
    void (*linear_forward)(void *context, const cnn_linear_shape *s, float *y, const float *x,
                           const float *weight, const float *bias, void *work);
    void (*linear_backward)(void *context, const cnn_linear_shape *s, float *dx, float *dweight,
                            float *dbias, const float *dy, const float *y, const float *x,
                            const float *weight, void *work);
    /* y, x: (batch, channels, pixels); saved: (2, channels), mean and 1 / sqrt(var + eps), which
       backward reads (NULL: not wanted); weight, bias: (channels), or both NULL: 1 and 0. The
       running mean and var: (channels). With s->training they are updated, and *batches counts;
       all three may be NULL then. Otherwise they are read. The work is for backward. */
    size_t (*batch_norm_work)(void *context, const cnn_batch_norm_shape *s);
    void (*batch_norm_forward)(void *context, const cnn_batch_norm_shape *s, float *y,
                               float *saved, float *mean, float *var, int64_t *batches,
                               const float *x, const float *weight, const float *bias);
    void (*batch_norm_backward)(void *context, const cnn_batch_norm_shape *s, float *dx,
                                float *dweight, float *dbias, const float *dy, const float *y,
                                const float *saved, const float *x, const float *weight,
                                void *work);
    /* x, y: (n); x and y, dx and dy may be the same memory. Backward reads y alone, and of
       CNN_GELU x alone; the other may be NULL. */
    void (*activation_forward)(void *context, cnn_activation f, float slope, float *y,
                               const float *x, size_t n);
    void (*activation_backward)(void *context, cnn_activation f, float slope, float *dx,
                                const float *dy, const float *y, const float *x, size_t n);
    /* x, y: (batch, channels, pixels); weight: (channels); work: (batch, channels) floats */
    void (*prelu_forward)(void *context, const cnn_map_shape *s, float *y, const float *x,
                          const float *weight);
    void (*prelu_backward)(void *context, const cnn_map_shape *s, float *dx, float *dweight,
                           const float *dy, const float *x, const float *weight, float *work);
    /* y = a + b: (n); y may be a or b */
    void (*add)(void *context, float *y, const float *a, const float *b, size_t n);
    /* to: (batch, to_channels, pixels), whose other channels stay as they are;
       from: (batch, from_channels, pixels) */
    void (*copy_channels)(void *context, const cnn_copy_shape *s, float *to, const float *from);
    /* to: (batch, channels, out_height, out_width); from: (.., in_height, in_width) */
    void (*pad2d)(void *context, const cnn_pad2d_shape *s, float *to, const float *from);
    /* x, y: (batch, channels, pixels), over the channels of each pixel */
    void (*softmax_forward)(void *context, const cnn_map_shape *s, float *y, const float *x);
    void (*softmax_backward)(void *context, const cnn_map_shape *s, float *dx, const float *dy,
                             const float *y);
    /* x, y: (n). The mask is a function of (c->seed, layer, c->pass, element), so backward computes
       it again. */
    void (*dropout_forward)(void *context, const cnn_counters *c, int layer, float p, float *y,
                            const float *x, size_t n);
    void (*dropout_backward)(void *context, const cnn_counters *c, int layer, float p, float *dx,
                             const float *dy, size_t n);
    /* the loss and its gradient: dy, y: (batch, outputs); adds to c's sums. dy NULL: not wanted.
       target: (batch, outputs), probabilities, or NULL: labels; labels: (batch) or NULL;
       o->weight: (outputs) or NULL */
    void (*softmax_cross_entropy)(void *context, cnn_counters *c,
                                  const cnn_cross_entropy_options *o, float *dy, const float *y,
                                  const float *target, const int *labels, int batch, int outputs);
    /* target: (batch, outputs), or NULL: one-hot vectors of labels; labels: (batch) or NULL */
    void (*mse)(void *context, cnn_counters *c, float *dy, const float *y, const float *target,
                const int *labels, int batch, int outputs);
    /* a new batch: c->batch_offset = c->next_offset, c->next_offset += size; training (1 or 0):
       c->pass += 1, so new masks */
    void (*next_batch)(void *context, cnn_counters *c, int size, int training);
    /* x: (batch, channels, height, width) = scale[c] * sample[o[n]] + shift[c], where o = order +
       k->batch_offset; augmented by (k->data_seed, k->epoch, o[n]); bytes or floats are NULL */
    void (*gather)(void *context, const cnn_counters *k, const cnn_gather_shape *s, float *x,
                   const unsigned char *bytes, const float *floats, const int *order,
                   const float *scale, const float *shift);
    /* to: (batch, width) = from[o[n]]: labels and targets, 4 bytes a value */
    void (*gather_rows)(void *context, const cnn_counters *k, void *to, const void *from,
                        const int *order, int batch, int width);
    /* One call for all parameters. w, g, v, m: blocks of n floats; spans: (count). Weight decay is
       in the spans, the learning rate in c. A step adds 1 to c->step and to the step of each
       trainable span. sgd_step's v: NULL without momentum */
    void (*clip_grad_norm)(void *context, cnn_counters *c, float *g, size_t n,
                           const cnn_span *spans, int count, float max_norm);
    void (*sgd_step)(void *context, cnn_counters *c, const cnn_sgd_options *o, float *w, float *v,
                     const float *g, size_t n, cnn_span *spans, int count);
    void (*adam_step)(void *context, cnn_counters *c, const cnn_adam_options *o, int decoupled,
                      float *w, float *m, float *v, const float *g, size_t n, cnn_span *spans,
                      int count);
    /* (optional) a step of training or evaluation begins (cnn_forward) and ends (cnn_step, or a
       batch of cnn_evaluate). A step may begin and never end. */
    void (*step_begin)(void *context);
    void (*step_end)(void *context);
};

/* Makes a backend known to cnn_to() by its name. Returns 1; or 0 if it has no name, its name is
   taken, or 8 are known already. cnn_cuda.cu calls it before main() begins. */
int cnn_register_backend(const cnn_backend *backend);

/* The random numbers (Philox4x32-10, Salmon et al. 2011): four words of a pure function */
void cnn_random(uint32_t out[4], uint64_t seed, uint32_t stream, uint64_t step, uint32_t index);

#ifdef __cplusplus
}
#endif
#endif /* CNN_H */

/* ==================== stop here if you only want to use it ==================================== */

#if defined(CNN_IMPLEMENTATION) && !defined(CNN__IMPLEMENTED) && !defined(CNN__ISA)

#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifndef CNN_NO_FILES
#include <fcntl.h>
#include <sys/stat.h>
#endif
#ifdef _WIN32
#include <io.h>
#include <process.h>
#else
#ifndef CNN_NO_FILES
#include <dirent.h>
#include <sys/mman.h>
#endif
#ifndef CNN_NO_THREADS
#include <pthread.h>
#endif
#include <sys/time.h>
#include <unistd.h>
#endif
#include <sys/types.h>

#if defined(CNN_MALLOC) != defined(CNN_FREE)
#error "cnn.h: define both CNN_MALLOC and CNN_FREE, or neither"
#endif
#ifndef CNN_MALLOC
#define CNN_MALLOC(bytes) malloc(bytes)
#define CNN_FREE(pointer) free(pointer)
#endif
#ifndef CNN_ON_ERROR
#define CNN_ON_ERROR(message) ((void)0)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Declared here, because the macros of <windows.h> would change the program that includes cnn.h */
#ifdef _WIN32
#ifdef _WIN64
typedef unsigned __int64 cnn__word_size;
#else
typedef unsigned long cnn__word_size;
#endif
#define CNN__WINDOWS(result) __declspec(dllimport) result __stdcall
struct _RTL_SRWLOCK; struct _RTL_CONDITION_VARIABLE;
CNN__WINDOWS(int) MoveFileExW(const wchar_t *from, const wchar_t *to, unsigned long flags);
CNN__WINDOWS(int) MultiByteToWideChar(unsigned page, unsigned long flags, const char *text,
                                      int count, wchar_t *wide, int room);
CNN__WINDOWS(int) WideCharToMultiByte(unsigned page, unsigned long flags, const wchar_t *wide,
                                      int count, char *text, int room, const char *otherwise,
                                      int *used);
CNN__WINDOWS(unsigned long) FormatMessageA(unsigned long flags, const void *source,
                                           unsigned long code, unsigned long language, char *text,
                                           unsigned long room, va_list *arguments);
CNN__WINDOWS(unsigned long) GetLastError(void);
CNN__WINDOWS(void) Sleep(unsigned long milliseconds);
CNN__WINDOWS(void) AcquireSRWLockExclusive(struct _RTL_SRWLOCK *lock);
CNN__WINDOWS(void) ReleaseSRWLockExclusive(struct _RTL_SRWLOCK *lock);
CNN__WINDOWS(int) SleepConditionVariableSRW(struct _RTL_CONDITION_VARIABLE *condition,
                                            struct _RTL_SRWLOCK *lock, unsigned long milliseconds,
                                            unsigned long flags);
CNN__WINDOWS(void) WakeConditionVariable(struct _RTL_CONDITION_VARIABLE *condition);
CNN__WINDOWS(void) WakeAllConditionVariable(struct _RTL_CONDITION_VARIABLE *condition);
CNN__WINDOWS(unsigned long) WaitForSingleObject(void *handle, unsigned long milliseconds);
CNN__WINDOWS(int) CloseHandle(void *handle);
CNN__WINDOWS(void *) GetCurrentProcess(void);
CNN__WINDOWS(int) GetProcessAffinityMask(void *process, cnn__word_size *of_process,
                                         cnn__word_size *of_system);
#elif !defined(CNN_NO_FILES) && !defined(__cplusplus) && defined(__STRICT_ANSI__)
/* POSIX, which strict C99 hides */
FILE *fdopen(int descriptor, const char *mode);
int fileno(FILE *file);
int fsync(int descriptor);
int fchmod(int descriptor, mode_t mode);
ssize_t readlink(const char *path, char *target, size_t room);
#endif

/* ============================================================================================
   >>error   An error is one message, kept in the network, data set or loader where it happened.
             Only the first is kept, since it is the cause; from then on calls on that object do
             nothing. There is no global state.
   ============================================================================================ */

typedef struct cnn__text { char s[512]; } cnn__text;

#if defined(__GNUC__)
#define CNN__PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define CNN__PRINTF(text, first)
#endif

/* ---- printf that does not depend on the locale ----

   The C library's printf writes the decimal separator that setlocale chose: under "de_DE.UTF-8" an .svg file had
   points="0,0,2,5". cnn__print_to always writes a point; all messages, all output and all files go through it. */

typedef struct cnn__sink { FILE *file; char *to; size_t room, count; } cnn__sink;      /* a file, or memory */

static void cnn__emit(cnn__sink *sink, const void *bytes, size_t count)
{
    size_t left = sink->room - (sink->count < sink->room ? sink->count : sink->room);
    if (!count) return;                                    /* bytes may be NULL then */
    if (sink->file) fwrite(bytes, 1, count, sink->file);
    else if (left) memcpy(sink->to + sink->count, bytes, count < left ? count : left);
    sink->count += count;
}

/* A number as snprintf writes it, with a point in place of whatever is neither digit, sign, letter nor space. */
static size_t cnn__digits(char *number, size_t room, const char *format, int width, int precision, double value)
{
    int length = snprintf(number, room, format, width, precision, value);
    char *to = number, *from;
    for (from = number; length > 0 && *from; from++)
        if (memchr("0123456789+- einfaEINFA", *from, 23)) *to++ = *from;
        else if (to == number || to[-1] != '.') *to++ = '.';               /* a separator may have several bytes */
    *to = 0;
    return (size_t)(to - number);
}

/* printf's %d %u %x %c %s %e %f %g with flags, width, precision, l; * for width and precision. */
static void cnn__print_to(cnn__sink *sink, const char *format, va_list arguments)
{
    while (*format) {
        char spec[16] = "%", number[400], *end = spec + 1, kind;
        const char *text = number;
        size_t count = strcspn(format, "%"), room = sizeof number;
        int width = 0, precision = -1, is_long, left;
        cnn__emit(sink, format, count);
        format += count;
        if (!*format) return;
        for (format++; *format && strchr("-+ #0", *format) && end < spec + 6; ) *end++ = *format++;
        if (*format == '*') width = va_arg(arguments, int), format++;
        else width = (int)strtol(format, (char **)&format, 10);
        if (*format == '.' && format[1] == '*') precision = va_arg(arguments, int), format += 2;
        else if (*format == '.') precision = (int)strtol(format + 1, (char **)&format, 10);
        is_long = *format == 'l';
        format += is_long;
        kind = *format;
        format += kind != 0;
        left = width < 0 || memchr(spec, '-', (size_t)(end - spec));
        snprintf(end, 8, "*.*%s%c", strchr("dux", kind) ? "l" : "", kind); /* it gets every whole number as a long */
        if (strchr("efg", kind)) count = cnn__digits(number, room, spec, width, precision, va_arg(arguments, double));
        else if (strchr("dux", kind)) {
            long whole = is_long ? va_arg(arguments, long) : kind == 'd' ? va_arg(arguments, int)
                                                                         : (long)va_arg(arguments, unsigned);
            count = (size_t)snprintf(number, room, spec, width, precision, whole);
        } else if (kind == 's') {
            text = va_arg(arguments, const char *);
            if (!text) text = "(null)";
            for (count = 0; (precision < 0 || count < (size_t)precision) && text[count]; ) count++;
        } else {
            number[0] = kind == 'c' ? (char)va_arg(arguments, int) : '%';
            count = 1;
        }
        if (text == number && count >= room) count = room - 1;
        if (width < 0) width = -width;
        for (; !left && (size_t)width > count; width--) cnn__emit(sink, " ", 1);
        cnn__emit(sink, text, count);
        for (; (size_t)width > count; width--) cnn__emit(sink, " ", 1);
    }
}

static int cnn__vsnprintf(char *text, size_t room, const char *format, va_list arguments)
{
    cnn__sink sink = { NULL, text, room ? room - 1 : 0, 0 };
    cnn__print_to(&sink, format, arguments);
    if (room) text[sink.count < sink.room ? sink.count : sink.room] = 0;
    return (int)sink.count;
}

CNN__PRINTF(3, 4)
static int cnn__snprintf(char *text, size_t room, const char *format, ...)
{
    va_list arguments;
    int count;
    va_start(arguments, format);
    count = cnn__vsnprintf(text, room, format, arguments);
    va_end(arguments);
    return count;
}

static void cnn__vfprintf(FILE *file, const char *format, va_list arguments)
{
    cnn__sink sink = { file, NULL, 0, 0 };
    cnn__print_to(&sink, format, arguments);
}

CNN__PRINTF(2, 3)
static void cnn__fprintf(FILE *file, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    cnn__vfprintf(file, format, arguments);
    va_end(arguments);
}

/* ---- the message ---- */

static int cnn__vsay(cnn__text *error, const char *format, va_list arguments)      /* returns 0, always */
{
    if (!error || error->s[0]) return 0;                   /* the first message is the cause */
    cnn__vsnprintf(error->s, sizeof error->s, format, arguments);
    CNN_ON_ERROR(error->s);
    return 0;
}

CNN__PRINTF(2, 3)
static int cnn__say(cnn__text *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    cnn__vsay(error, format, arguments);
    va_end(arguments);
    return 0;
}

/* Copies the message of another object (NULL: it has none). CNN_ON_ERROR has already been called for it. */
static int cnn__take_over(cnn__text *error, const char *message)           /* returns 0, always */
{
    if (message && !error->s[0]) cnn__snprintf(error->s, sizeof error->s, "%s", message);
    return 0;
}

/* ============================================================================================
   >>memory   Sizes are products of numbers from a caller or a file: each product is checked for
              overflow before it is allocated. Blocks are zeroed and aligned to 64 bytes, a cache line.
   ============================================================================================ */

static int cnn__mul(size_t *product, size_t a, size_t b)   /* 1, or 0 if a * b overflows */
{
    if (b && a > (size_t)-1 / b) return 0;
    *product = a * b;
    return 1;
}

static void *cnn__alloc_raw(size_t bytes)                  /* not zeroed: for a block that is overwritten entirely */
{
    unsigned char *block, *aligned;
    if (bytes > (size_t)-1 / 2) return NULL;
    block = (unsigned char *)CNN_MALLOC(bytes + 64 + sizeof(void *));
    if (!block) return NULL;
    aligned = (unsigned char *)(((uintptr_t)block + sizeof(void *) + 63) & ~(uintptr_t)63);
    memcpy(aligned - sizeof(void *), &block, sizeof(void *));      /* for cnn__free: the pointer CNN_MALLOC returned */
    return aligned;
}

static void *cnn__alloc(size_t count, size_t size)
{
    size_t bytes;
    void *block = cnn__mul(&bytes, count, size) ? cnn__alloc_raw(bytes) : NULL;
    if (block) memset(block, 0, bytes);
    return block;
}

static void cnn__free(void *memory)
{
    void *block;
    if (!memory) return;
    memcpy(&block, (unsigned char *)memory - sizeof(void *), sizeof(void *));
    CNN_FREE(block);
}

/* ---- an array that grows ---- */

typedef struct cnn__bytes { unsigned char *at; size_t count, room; int failed; } cnn__bytes;

static void cnn__put(cnn__bytes *b, const void *bytes, size_t count)
{
    if (count > b->room - b->count && !b->failed) {
        size_t room = 2 * b->room + count + 64;
        unsigned char *larger = (unsigned char *)cnn__alloc(room, 1);
        b->failed = !larger;
        if (larger && b->count) memcpy(larger, b->at, b->count);
        if (larger) { cnn__free(b->at); b->at = larger; b->room = room; }
    }
    if (b->failed || !count) return;
    memcpy(b->at + b->count, bytes, count);
    b->count += count;
}

/* The array with room for one more of its items, of `size` bytes; without memory as it was, count still *room */
static void *cnn__grow(void *array, int count, int *room, size_t size)
{
    int more = *room ? 2 * *room : 16;
    void *larger = count < *room ? NULL : cnn__alloc((size_t)more, size);
    if (!larger) return array;
    if (count) memcpy(larger, array, size * (size_t)count);
    cnn__free(array);
    *room = more;
    return larger;
}

/* ============================================================================================
   >>random   Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3;
              2011): ten rounds of multiplying and swapping turn a counter into four random words.
              There is no state: (seed, stream, step, index) alone determine a number, so that it is
              the same on every backend and in every thread.
   ============================================================================================ */

enum {                                                     /* streams 0 .. 2^16 - 1: dropout, by layer */
    CNN__STREAM_INIT = 0x10000, CNN__STREAM_SHUFFLE, CNN__STREAM_SPLIT, CNN__STREAM_CHECK,
    CNN__STREAM_AUGMENT
};

void cnn_random(uint32_t out[4], uint64_t seed, uint32_t stream, uint64_t step, uint32_t index)
{
    uint32_t c0 = index, c1 = stream, c2 = (uint32_t)step, c3 = (uint32_t)(step >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    int round;
    for (round = 0; round < 10; round++) {                 /* the four constants are the paper's */
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}

/* In [0, 1): the upper 24 bits, as many as a float holds, times 2^-24. */
static float cnn__unit(uint32_t word) { return (float)(word >> 8) * (1.0f / 16777216.0f); }

/* Word i of a stream. */
static uint32_t cnn__word(uint64_t seed, uint32_t stream, uint64_t step, size_t i)
{
    uint32_t out[4];
    cnn_random(out, seed, stream, step, (uint32_t)(i / 4));
    return out[i % 4];
}

static void cnn__shuffle(int *order, int count, uint64_t seed, uint32_t stream, uint64_t step)  /* Fisher and Yates */
{
    int i;
    for (i = count - 1; i > 0; i--) {
        int j = (int)(((uint64_t)cnn__word(seed, stream, step, (size_t)i) * (uint64_t)(i + 1)) >> 32);
        int swap = order[i]; order[i] = order[j]; order[j] = swap;
    }
}

/* ============================================================================================
   >>threads   One pool of threads for all networks of this copy of the library. A job is cut into
               pieces, and threads claim them one by one, so a thread that the system interrupts
               delays only the piece that it holds. Which thread takes which piece changes no result.

               Read cnn__parallel first, at the end of this section: it is all that the backends call.
               Its halves, cnn__begin_job and cnn__end_job, are for reading ahead.
   ============================================================================================ */

/* ---- what only the processor knows: how to wait in a loop, and its mode of calculating with floats ---- */

#if defined(__GNUC__) && defined(__x86_64__)
#define CNN__PAUSE() __builtin_ia32_pause()
#define CNN__DENORMALS_ARE_0 0x8040u
static unsigned cnn__float_mode(void) { return __builtin_ia32_stmxcsr(); }
static void cnn__set_float_mode(unsigned mode) { __builtin_ia32_ldmxcsr(mode); }
#elif defined(__GNUC__) && defined(__aarch64__)
#define CNN__PAUSE() __asm__ volatile("yield")
#define CNN__DENORMALS_ARE_0 (1u << 24)
static unsigned cnn__float_mode(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return (unsigned)mode;
}
static void cnn__set_float_mode(unsigned mode) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)mode)); }
#else
#define CNN__PAUSE() ((void)0)
#define CNN__DENORMALS_ARE_0 0
static unsigned cnn__float_mode(void) { return 0; }
static void cnn__set_float_mode(unsigned mode) { (void)mode; }
#endif

/* Denormals (numbers below 1e-38) count as 0 in the pieces: Adam's moments of a dead unit become denormals, and a
   processor is several times slower with them. Returns the previous mode. */
static unsigned cnn__flush_denormals(void)
{
    unsigned before = cnn__float_mode();
    cnn__set_float_mode(before | CNN__DENORMALS_ARE_0);
    return before;
}

/* ---- how many processors there are for this process ---- */

#if defined(__linux__) && !defined(CNN_NO_THREADS)

/* The first line of a file that begins so, without its beginning; "" if there is none */
static char *cnn__line_of(const char *path, const char *beginning, char line[1024])
{
    FILE *file = fopen(path, "r");
    size_t length = strlen(beginning);
    int found = 0;
    while (file && !found && fgets(line, 1024, file)) found = !strncmp(line, beginning, length);
    if (file) fclose(file);
    line[found ? strcspn(line, "\n") : length] = 0;
    return line + length;
}

/* Processors that the calling thread may run on (taskset), or 0. */
static int cnn__affinity(void)
{
    char line[1024], *c = cnn__line_of("/proc/thread-self/status", "Cpus_allowed:", line);
    int processors = 0;
    unsigned long mask;                                    /* in hexadecimal: "ff,ffffffff" */
    for (; *c; c += *c != 0)
        for (mask = strtoul(c, &c, 16); mask; mask &= mask - 1) processors++;
    return processors;
}

/* How many processors' time a container may use, rounded up; INT_MAX without a limit. The smallest limit counts: of the
   process's own control group and of those above it. A file says "max" where there is none. root: /sys/fs/cgroup;
   group: its own, such as "/a/b". */
static int cnn__quota(const char *root, const char *group)
{
    char path[1200], line[1024];
    double least = INT_MAX, time, period;
    int length;
    for (length = (int)strlen(group); length >= 0; length--) {
        if (group[length] && group[length] != '/') continue;
        cnn__snprintf(path, sizeof path, "%s%.*s/cpu.max", root, length, group);                     /* cgroup v2 */
        if (sscanf(cnn__line_of(path, "", line), "%lf %lf", &time, &period) == 2 && period > 0)
            least = fmin(least, time / period);
    }
    cnn__snprintf(path, sizeof path, "%s/cpu/cpu.cfs_quota_us", root);                               /* cgroup v1 */
    if (sscanf(cnn__line_of(path, "", line), "%lf", &time) == 1 && time > 0) {
        cnn__snprintf(path, sizeof path, "%s/cpu/cpu.cfs_period_us", root);
        if (sscanf(cnn__line_of(path, "", line), "%lf", &period) == 1 && period > 0) least = fmin(least, time / period);
    }
    return least <= 1 ? 1 : least >= INT_MAX ? INT_MAX : (int)ceil(least);
}
#endif

static int cnn__processors(void)
{
    int n = 0;
#ifndef CNN_NO_THREADS
#if defined(__linux__)
    char line[1024];
    int quota = cnn__quota("/sys/fs/cgroup", cnn__line_of("/proc/self/cgroup", "0::", line));
    n = cnn__affinity();
    if (n > quota) n = quota;
#elif defined(_WIN32)
    cnn__word_size mask = 0, system;
    if (GetProcessAffinityMask(GetCurrentProcess(), &mask, &system)) for (; mask; mask &= mask - 1) n++;
#endif
#ifdef _SC_NPROCESSORS_ONLN
    if (n < 1) n = (int)sysconf(_SC_NPROCESSORS_ONLN);
#endif
#endif
    return n < 1 ? 1 : n;
}

/* ---- the pool ---- */

#if defined(CNN_NO_THREADS)

static void cnn__lock(void) {}
static void cnn__unlock(void) {}
static int cnn__add_atomic(int *count, int n) { return (*count += n) - n; }
static int cnn__read_atomic(int *count) { return *count; }

#else                                                      /* one name for each platform's mutex, condition, thread */

#ifdef _WIN32
typedef void *cnn__mutex, *cnn__condition, *cnn__thread;   /* SRWLOCK and CONDITION_VARIABLE are one pointer each */
#define CNN__MUTEX NULL
#define CNN__CONDITION NULL
#define CNN__ENTRY unsigned __stdcall
static void cnn__mutex_lock(cnn__mutex *m) { AcquireSRWLockExclusive((struct _RTL_SRWLOCK *)m); }
static void cnn__mutex_unlock(cnn__mutex *m) { ReleaseSRWLockExclusive((struct _RTL_SRWLOCK *)m); }
static void cnn__wait(cnn__condition *c, cnn__mutex *m)
{
    SleepConditionVariableSRW((struct _RTL_CONDITION_VARIABLE *)c, (struct _RTL_SRWLOCK *)m, 0xffffffffu, 0);
}
static void cnn__wake_one(cnn__condition *c) { WakeConditionVariable((struct _RTL_CONDITION_VARIABLE *)c); }
static void cnn__wake_all(cnn__condition *c) { WakeAllConditionVariable((struct _RTL_CONDITION_VARIABLE *)c); }
static int cnn__start(cnn__thread *thread, CNN__ENTRY entry(void *))
{
    return (*thread = (void *)_beginthreadex(NULL, 0, entry, NULL, 0, NULL)) != NULL;
}
static void cnn__join(cnn__thread thread)
{
    WaitForSingleObject(thread, 0xffffffffu);
    CloseHandle(thread);
}
#else
typedef pthread_mutex_t cnn__mutex;
typedef pthread_cond_t cnn__condition;
typedef pthread_t cnn__thread;
#define CNN__MUTEX PTHREAD_MUTEX_INITIALIZER
#define CNN__CONDITION PTHREAD_COND_INITIALIZER
#define CNN__ENTRY void *
static void cnn__mutex_lock(cnn__mutex *m) { pthread_mutex_lock(m); }
static void cnn__mutex_unlock(cnn__mutex *m) { pthread_mutex_unlock(m); }
static void cnn__wait(cnn__condition *c, cnn__mutex *m) { pthread_cond_wait(c, m); }
static void cnn__wake_one(cnn__condition *c) { pthread_cond_signal(c); }
static void cnn__wake_all(cnn__condition *c) { pthread_cond_broadcast(c); }
static int cnn__start(cnn__thread *thread, CNN__ENTRY entry(void *))
{
    return !pthread_create(thread, NULL, entry, NULL);
}
static void cnn__join(cnn__thread thread) { pthread_join(thread, NULL); }
#endif

/* Guards the pool and the few other statics of the library. */
static cnn__mutex cnn__the_lock = CNN__MUTEX;
static void cnn__lock(void) { cnn__mutex_lock(&cnn__the_lock); }
static void cnn__unlock(void) { cnn__mutex_unlock(&cnn__the_lock); }

/* Adds n to *count, returns its previous value. C99 has no atomic operations: these are the compiler's, or a lock. */
#if defined(__GNUC__)
static int cnn__add_atomic(int *count, int n) { return __atomic_fetch_add(count, n, __ATOMIC_SEQ_CST); }
static int cnn__read_atomic(int *count) { return __atomic_load_n(count, __ATOMIC_SEQ_CST); }
#else
static int cnn__add_atomic(int *count, int n)
{
    static cnn__mutex lock = CNN__MUTEX;
    int before;
    cnn__mutex_lock(&lock);
    before = *count;
    *count += n;
    cnn__mutex_unlock(&lock);
    return before;
}
static int cnn__read_atomic(int *count) { return cnn__add_atomic(count, 0); }
#endif

#endif

typedef struct cnn__job {                                  /* stays where it is from cnn__begin_job to its end */
    void (*run)(void *arguments, int piece, int thread);
    void *arguments;
    const void *of;                                        /* whose memory it reads: see cnn__halt_jobs */
    int pieces, threads;
    int claimed, front, back;                              /* pieces claimed: in all, at the front, at the back */
    int joined;                                            /* threads so far: the caller is 0, workers 1, 2, ... */
    int holding;                                           /* workers that hold a piece now */
    int number;                                            /* 1 for the first job of the pool, and so on */
    struct cnn__job *following;
} cnn__job;

/* The next piece, or -1. The caller takes pieces from the front and workers from the back, so that each thread works on
   much the same memory in every job. */
static int cnn__claim(cnn__job *job, int thread)
{
    if (cnn__add_atomic(&job->claimed, 1) >= job->pieces) return -1;
    return thread ? job->pieces - 1 - cnn__add_atomic(&job->back, 1) : job->front++;
}

#ifndef CNN_NO_THREADS

enum {
    CNN__MOST_WORKERS = 255,
    CNN__SPINS = 8000                                      /* about 100 us awake before a thread sleeps: waking takes
                                                              20 us, and a training step has many jobs */
};

static struct {
    cnn__thread thread[CNN__MOST_WORKERS];
    int processors;
    int wanted, workers;                                   /* how many the next job needs; how many are running */
    int users;                                             /* open backends: the last one to close ends the workers */
    int ending;
    cnn__job *jobs;                                        /* in the order in which they were posted */
    int numbered, posted;                                  /* jobs so far; an idle worker watches `posted` */
    int spinning, sleeping;                                /* idle workers: awake; asleep */
    int waiting;                                           /* callers asleep until their last pieces are done */
} cnn__pool;
static cnn__condition cnn__job_posted = CNN__CONDITION, cnn__pieces_done = CNN__CONDITION;

static int cnn__open_job(cnn__job *job)                    /* 1 if one more thread may join and finds a piece */
{
    return job->joined < job->threads && cnn__read_atomic(&job->claimed) < job->pieces;
}

/* Call it under the lock. How many workers a thread that begins a job should wake after it has released the lock, which
   they take first. Two at most: each of them wakes two more. No more are awake than there are processors: they would
   only take turns. */
static int cnn__to_wake(cnn__job *job)
{
    int most = cnn__pool.processors > 2 ? cnn__pool.processors - 1 : 1;
    int wake = most - (cnn__pool.workers - cnn__pool.sleeping);
    int open = cnn__open_job(job) ? job->threads - job->joined - cnn__read_atomic(&cnn__pool.spinning) : 0;
    if (wake > open) wake = open;
    if (wake > cnn__pool.sleeping) wake = cnn__pool.sleeping;
    return wake < 2 ? wake : 2;
}

static void cnn__wake(int workers) { while (workers-- > 0) cnn__wake_one(&cnn__job_posted); }

/* Call it under the lock. Joins the first open job and claims a piece of it; NULL if there is none. */
static cnn__job *cnn__join_job(int *piece, int *thread)
{
    cnn__job *job = cnn__pool.jobs;
    for (; job; job = job->following) {
        if (!cnn__open_job(job) || (*piece = cnn__claim(job, 1)) < 0) continue;
        *thread = job->joined++;
        cnn__add_atomic(&job->holding, 1);
        return job;
    }
    return NULL;
}

/* The next job mostly comes at once, so a worker watches for one after `number` before it sleeps. */
static void cnn__watch(int number)
{
    int spins = CNN__SPINS;
    cnn__add_atomic(&cnn__pool.spinning, 1);
    while (spins-- > 0 && (int)((unsigned)cnn__read_atomic(&cnn__pool.posted) - (unsigned)number) <= 0) CNN__PAUSE();
    cnn__add_atomic(&cnn__pool.spinning, -1);
}

static CNN__ENTRY cnn__worker(void *unused)
{
    cnn__job *job;
    int piece, thread, wake, number;
    (void)unused;
    cnn__flush_denormals();
    cnn__lock();
    while (!cnn__pool.ending) {
        if (!(job = cnn__join_job(&piece, &thread))) {
            cnn__pool.sleeping++;
            cnn__wait(&cnn__job_posted, &cnn__the_lock);
            cnn__pool.sleeping--;
            continue;
        }
        number = job->number;
        wake = cnn__to_wake(job);
        cnn__unlock();
        cnn__wake(wake);
        do job->run(job->arguments, piece, thread);
        while ((piece = cnn__claim(job, thread)) >= 0);
        if (cnn__add_atomic(&job->holding, -1) == 1 && cnn__read_atomic(&cnn__pool.waiting)) {
            cnn__lock();                                   /* *job may no longer exist: its caller has returned */
            cnn__wake_all(&cnn__pieces_done);
            cnn__unlock();
        }
        cnn__watch(number);
        cnn__lock();
    }
    cnn__unlock();
    return 0;
}

static void cnn__post(cnn__job *job)
{
    cnn__job **last = &cnn__pool.jobs;
    int wake;
    cnn__lock();
    while (cnn__pool.workers < cnn__pool.wanted && cnn__start(&cnn__pool.thread[cnn__pool.workers], cnn__worker))
        cnn__pool.workers++;
    cnn__pool.wanted = cnn__pool.workers;                  /* if the system refuses a thread, fewer do the work */
    while (*last) last = &(*last)->following;
    *last = job;
    job->number = ++cnn__pool.numbered;
    wake = cnn__to_wake(job);
    cnn__unlock();
    cnn__add_atomic(&cnn__pool.posted, 1);                 /* after the unlock: a watching worker takes the lock next */
    cnn__wake(wake);
}

static void cnn__wait_for(cnn__job *job)                   /* call it under the lock; all pieces are claimed */
{
    cnn__add_atomic(&cnn__pool.waiting, 1);
    while (cnn__read_atomic(&job->holding)) cnn__wait(&cnn__pieces_done, &cnn__the_lock);
    cnn__add_atomic(&cnn__pool.waiting, -1);
}

/* All pieces are claimed; waits until the workers have finished theirs. 0: this process was forked from the one that
   posted the job, and the workers that held pieces stayed there. */
static int cnn__finish(cnn__job *job)
{
    cnn__job **at = &cnn__pool.jobs;
    int spins = CNN__SPINS, posted;
    cnn__lock();
    while (*at && *at != job) at = &(*at)->following;
    posted = *at != NULL;
    if (posted) *at = job->following;
    cnn__unlock();
    if (!posted) return 0;
    while (spins-- > 0 && cnn__read_atomic(&job->holding)) CNN__PAUSE();
    if (!cnn__read_atomic(&job->holding)) return 1;
    cnn__lock();
    cnn__wait_for(job);
    cnn__unlock();
    return 1;
}

#ifndef _WIN32
/* After a fork the child has only the thread that forked: it gets new locks, and new workers at its first job. */
static void cnn__forked(void)
{
    static const cnn__mutex lock = CNN__MUTEX;
    static const cnn__condition condition = CNN__CONDITION;
    if (cnn__pool.wanted < cnn__pool.workers) cnn__pool.wanted = cnn__pool.workers;
    cnn__pool.workers = cnn__pool.ending = cnn__pool.numbered = cnn__pool.posted = 0;
    cnn__pool.spinning = cnn__pool.sleeping = cnn__pool.waiting = 0;
    cnn__pool.jobs = NULL;
    cnn__the_lock = lock;
    cnn__job_posted = cnn__pieces_done = condition;
}
#endif

/* Whoever runs jobs opens the pool before and closes it after: a network, the backend simd, cnn__read_images. */
static void cnn__open_pool(int threads)
{
    cnn__lock();
    if (!cnn__pool.processors) {                           /* the first time */
        cnn__pool.processors = cnn__processors();
#ifndef _WIN32
        pthread_atfork(NULL, NULL, cnn__forked);
#endif
    }
    while (cnn__pool.ending) cnn__wait(&cnn__pieces_done, &cnn__the_lock);
    cnn__pool.users++;
    if (threads > CNN__MOST_WORKERS) threads = CNN__MOST_WORKERS + 1;
    if (cnn__pool.wanted < threads - 1) cnn__pool.wanted = threads - 1;
    cnn__unlock();
}

static void cnn__close_pool(void)
{
    cnn__lock();
    if (!--cnn__pool.users) {
        cnn__pool.ending = 1;
        cnn__add_atomic(&cnn__pool.posted, 1);
        cnn__wake_all(&cnn__job_posted);
        cnn__unlock();                                     /* nobody else changes the pool until it has ended */
        while (cnn__pool.workers) cnn__join(cnn__pool.thread[--cnn__pool.workers]);
        cnn__lock();
        cnn__pool.wanted = cnn__pool.ending = 0;
        cnn__wake_all(&cnn__pieces_done);
    }
    cnn__unlock();
}

/* When it returns, no worker is busy with a job that was begun with this `of`, nor will be. */
static void cnn__halt_jobs(const void *of)
{
    cnn__job *job;
    cnn__lock();
    for (job = cnn__pool.jobs; job; ) {
        if (job->of == of) cnn__add_atomic(&job->claimed, job->pieces);
        if (job->of == of && cnn__read_atomic(&job->holding)) {
            cnn__wait_for(job);
            job = cnn__pool.jobs;                          /* the list may have changed meanwhile */
        } else job = job->following;
    }
    cnn__unlock();
}

#else                                                      /* the caller does it all */
static void cnn__open_pool(int threads) { (void)threads; }
static void cnn__close_pool(void) {}
static void cnn__post(cnn__job *job) { job->threads = 1; }
static int cnn__finish(const cnn__job *job) { return job->threads == 1; }
static void cnn__halt_jobs(const void *of) { (void)of; }
#endif

/* The first half of cnn__parallel: workers begin, and the caller goes on, until cnn__end_job or cnn__drop_job. */
static void cnn__begin_job(cnn__job *job, int threads, int pieces, void (*run)(void *arguments, int piece, int thread),
                           void *arguments, const void *of)
{
    memset(job, 0, sizeof *job);
    job->run = run; job->arguments = arguments; job->of = of;
    job->pieces = pieces;
    job->threads = threads < pieces ? threads : pieces;
    job->joined = 1;
    if (job->threads > 1) cnn__post(job);
}

/* The second half: the caller takes pieces too; when it returns, all are done. */
static void cnn__end_job(cnn__job *job)
{
    int piece;
    unsigned before = cnn__flush_denormals();
    while ((piece = cnn__claim(job, 0)) >= 0) job->run(job->arguments, piece, 0);
    if (job->threads > 1 && !cnn__finish(job))
        for (piece = 0; piece < job->pieces; piece++) job->run(job->arguments, piece, 0);
    cnn__set_float_mode(before);
}

static void cnn__drop_job(cnn__job *job)                   /* instead: pieces that nobody holds yet are not done */
{
    cnn__add_atomic(&job->claimed, job->pieces);
    if (job->threads > 1) cnn__finish(job);
}

/* Runs run(arguments, piece, thread) for every piece, on the caller's thread (0) and up to threads - 1 workers. */
static void cnn__parallel(int threads, int pieces, void (*run)(void *arguments, int piece, int thread), void *arguments)
{
    cnn__job job;
    cnn__begin_job(&job, threads, pieces, run, arguments, NULL);
    cnn__end_job(&job);
}

/* ============================================================================================
   >>textbook   The specification of every operation, one card a layer: its equation, its shapes,
                one value as the equation gives it (in double; the name ends in _at), then forward
                and backward as plain loops. No threads, no vectors, no tricks. Every backend is
                tested against these functions, and the backend `direct` runs them.

       lecture   PyTorch                          index   counts
       z         input                            n       samples of the batch
       u         weight                           c, k    input channels, output channels
       b         bias                             y, x    rows, columns of the kernel
       f         output                           j, i    rows, columns of the output
       tau       activation
       s, d, p   stride, dilation, padding

   In a shape, as in z (n, c, h, w), the same letter is how many there are. h, w: height and width
   of the input; h', w': of the output; kh, kw: of the kernel; g: groups. In the code, s is the
   struct with all sizes.

   The other cards call a layer's input x and its output y. dz, du, db are the gradients of the loss
   with respect to z, u, b. Backward adds to the gradients of parameters and overwrites the others.

   Cards: padding; convolution (6.1), (6.2); activation (6.3); PReLU; pooling; linear; batch
   normalisation; softmax; joins; zero padding; dropout; cross-entropy; mean squared error;
   optimizers; a batch of samples.
   ============================================================================================ */

/* --------------------------------------------------------------------------------------------
   Padding: what lies beyond the border of a row  z(0) ... z(n-1)
       zeros        0 0 | a b c d | 0 0          reflect      c b | a b c d | c b
       replicate    a a | a b c d | d d          circular     c d | a b c d | a b
   Returns which value stands at place i, or -1 for a zero.
   -------------------------------------------------------------------------------------------- */
static int cnn__border(int i, int n, cnn_padding_mode mode)
{
    if (i >= 0 && i < n) return i;
    switch (mode) {
    case CNN_REPLICATE: return i < 0 ? 0 : n - 1;
    case CNN_REFLECT:   return i < 0 ? -i : 2 * (n - 1) - i;
    case CNN_CIRCULAR:  return i < 0 ? i + n : i - n;
    default:            return -1;
    }
}

/* --------------------------------------------------------------------------------------------
   Convolution (6.1), (6.2): slide a kernel u over the input z; each output is a linear combination.

       1D    f(i)       =       sum_x z(i+x)      u(x)                                     (6.1)
       2D    f(j,i)     = sum_y sum_x z(j+y, i+x) u(y,x)                                   (6.2)
       here  f(n,k,j,i) = b(k) + sum_c sum_y sum_x z(n, c, j s + y d - p, i s + x d - p) u(k,c,y,x)

   with stride s, dilation d and padding p. The lecture counts y and x from the kernel's centre,
   this code from its corner; the padding p makes up the difference. k kernels, each as deep as the
   input, give k feature maps (figure 6-7). With g groups, a kernel sees only the c / g input
   channels of its group.

       f  (n, k, h', w')   z  (n, c, h, w)   u  (k, c/g, kh, kw)   b  (k)
       h' = floor((h + p_top + p_bottom - d (kh - 1) - 1) / s) + 1

   A product z u changes by z when u changes by 1, and by u when z does. A weight takes part in many
   outputs; its gradient is the sum over all of them (chain rule):

       db(k)       += sum_n sum_j sum_i df(n,k,j,i)
       du(k,c,y,x) += sum_n sum_j sum_i df(n,k,j,i) z(n, c, j s + y d - p, i s + x d - p)
       dz = 0, then for all n,k,j,i,c,y,x
       dz(n, c, j s + y d - p, i s + x d - p) += df(n,k,j,i) u(k,c,y,x)

   Terms whose z lies in the zero padding are left out.
   -------------------------------------------------------------------------------------------- */

/* Where in z the row j s + y d - p of map (n,c) begins, which row y of the kernel meets at output
   row j; -1: a row of zeros. c counts the input channels of kernel k's group. */
static ptrdiff_t cnn__conv2d_row(const cnn_conv2d_shape *s, int n, int k, int c, int j, int y)
{
    int first = k / (s->out_channels / s->groups) * (s->in_channels / s->groups);
    int row = cnn__border(j * s->stride_height + y * s->dilation_height - s->pad_top,
                          s->in_height, s->padding_mode);
    ptrdiff_t map = (ptrdiff_t)n * s->in_channels + first + c;
    return row < 0 ? -1 : (map * s->in_height + row) * s->in_width;
}

/* The column i s + x d - p in it; -1: a zero */
static int cnn__conv2d_column(const cnn_conv2d_shape *s, int i, int x)
{
    return cnn__border(i * s->stride_width + x * s->dilation_width - s->pad_left, s->in_width,
                       s->padding_mode);
}

/* Where in u the row y of the kernel u(k,c) begins */
static ptrdiff_t cnn__conv2d_u(const cnn_conv2d_shape *s, int k, int c, int y)
{
    int depth = s->in_channels / s->groups;
    return (((ptrdiff_t)k * depth + c) * s->kernel_height + y) * s->kernel_width;
}

static double cnn__conv2d_at(const cnn_conv2d_shape *s, const float *z, const float *u,
                             const float *b, int n, int k, int j, int i)
{
    double f = b ? (double)b[k] : 0;
    int c, y, x, column;
    for (c = 0; c < s->in_channels / s->groups; c++)
        for (y = 0; y < s->kernel_height; y++) {
            const float *kernel = u + cnn__conv2d_u(s, k, c, y);
            ptrdiff_t row = cnn__conv2d_row(s, n, k, c, j, y);
            for (x = 0; row >= 0 && x < s->kernel_width; x++)
                if ((column = cnn__conv2d_column(s, i, x)) >= 0)
                    f += (double)z[row + column] * (double)kernel[x];
        }
    return f;
}

static void cnn__conv2d_forward(const cnn_conv2d_shape *s, float *f, const float *z, const float *u,
                                const float *b)
{
    int n, k, j, i;
    for (n = 0; n < s->batch; n++)
        for (k = 0; k < s->out_channels; k++)
            for (j = 0; j < s->out_height; j++)
                for (i = 0; i < s->out_width; i++)
                    *f++ = (float)cnn__conv2d_at(s, z, u, b, n, k, j, i);
}

static double cnn__conv2d_du_at(const cnn_conv2d_shape *s, const float *df, const float *z,
                                int k, int c, int y, int x)
{
    double du = 0;
    int n, j, i, column;
    for (n = 0; n < s->batch; n++)
        for (j = 0; j < s->out_height; j++) {
            ptrdiff_t row_of_f = ((ptrdiff_t)n * s->out_channels + k) * s->out_height + j;
            const float *d = df + row_of_f * s->out_width;
            ptrdiff_t row = cnn__conv2d_row(s, n, k, c, j, y);
            for (i = 0; row >= 0 && i < s->out_width; i++)
                if ((column = cnn__conv2d_column(s, i, x)) >= 0)
                    du += (double)d[i] * (double)z[row + column];
        }
    return du;
}

/* dz += df u, for the output (n,k,j,i) */
static void cnn__conv2d_add_dz(const cnn_conv2d_shape *s, float *dz, float df, const float *u,
                               int n, int k, int j, int i)
{
    int c, y, x, column;
    for (c = 0; c < s->in_channels / s->groups; c++)
        for (y = 0; y < s->kernel_height; y++) {
            const float *kernel = u + cnn__conv2d_u(s, k, c, y);
            ptrdiff_t row = cnn__conv2d_row(s, n, k, c, j, y);
            for (x = 0; row >= 0 && x < s->kernel_width; x++)
                if ((column = cnn__conv2d_column(s, i, x)) >= 0)
                    dz[row + column] += df * kernel[x];
        }
}

/* All three gradients; du, db and dz may each be NULL: not wanted. du and db are added to. */
static void cnn__conv2d_backward(const cnn_conv2d_shape *s, float *dz, float *du, float *db,
                                 const float *df, const float *z, const float *u)
{
    ptrdiff_t map = (ptrdiff_t)s->out_height * s->out_width, p;
    size_t inputs = (size_t)(s->batch * ((ptrdiff_t)s->in_channels * s->in_height * s->in_width));
    int n, k, c, y, x, j, i;
    for (k = 0; db && k < s->out_channels; k++) {
        double sum = 0;
        for (n = 0; n < s->batch; n++)
            for (p = 0; p < map; p++)
                sum += (double)df[((ptrdiff_t)n * s->out_channels + k) * map + p];
        db[k] += (float)sum;
    }
    for (k = 0; du && k < s->out_channels; k++)
        for (c = 0; c < s->in_channels / s->groups; c++)
            for (y = 0; y < s->kernel_height; y++)
                for (x = 0; x < s->kernel_width; x++)
                    *du++ += (float)cnn__conv2d_du_at(s, df, z, k, c, y, x);
    if (!dz) return;
    memset(dz, 0, sizeof *dz * inputs);
    for (n = 0; n < s->batch; n++)
        for (k = 0; k < s->out_channels; k++)
            for (j = 0; j < s->out_height; j++)
                for (i = 0; i < s->out_width; i++)
                    cnn__conv2d_add_dz(s, dz, *df++, u, n, k, j, i);
}

/* --------------------------------------------------------------------------------------------
   Activation (6.3): each element of the feature map on its own, y = tau(x).

       relu        max(0, x)             tau' = y > 0 ? 1 : 0
       leaky relu  x > 0 ? x : a x       tau' = y > 0 ? 1 : a          (a >= 0)
       sigmoid     1 / (1 + exp(-x))     tau' = y (1 - y)
       tanh        tanh x                tau' = 1 - y^2
       gelu        x P(x)                tau' = P(x) + x exp(-x^2 / 2) / sqrt(2 pi)
                                         P(x) = (1 + erf(x / sqrt 2)) / 2, the normal distribution
                                                (Hendrycks, Gimpel 2016)

   Backward:  dx = dy tau'.  All derivatives but GELU's are written with y, so that x need not be
   kept.
   -------------------------------------------------------------------------------------------- */
static double cnn__normal(double x) { return (1 + erf(x * sqrt(.5))) / 2; }

static double cnn__activation_at(cnn_activation tau, double slope, double x)
{
    switch (tau) {
    case CNN_RELU:       return x <= 0 ? 0 : x;                    /* NaN stays NaN */
    case CNN_LEAKY_RELU: return x <= 0 ? slope * x : x;
    case CNN_SIGMOID:    return 1 / (1 + exp(-x));
    case CNN_TANH:       return tanh(x);
    case CNN_GELU:       return x * cnn__normal(x);
    default:             return x;
    }
}

/* All but GELU read y alone. */
static double cnn__activation_slope(cnn_activation tau, double slope, double y, double x)
{
    switch (tau) {
    case CNN_RELU:       return y > 0 ? 1 : 0;
    case CNN_LEAKY_RELU: return y > 0 ? 1 : slope;
    case CNN_SIGMOID:    return y * (1 - y);
    case CNN_TANH:       return 1 - y * y;
    case CNN_GELU:       return cnn__normal(x) + x * exp(-x * x / 2) * .3989422804014327;
    default:             return 1;
    }
}

static void cnn__activation_forward(cnn_activation tau, float slope, float *y, const float *x,
                                    size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = (float)cnn__activation_at(tau, (double)slope, (double)x[i]);
}

static void cnn__activation_backward(cnn_activation tau, float slope, float *dx, const float *dy,
                                     const float *y, const float *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        dx[i] = (float)((double)dy[i] * cnn__activation_slope(tau, (double)slope,
                                                              y ? (double)y[i] : 0,
                                                              x ? (double)x[i] : 0));
}

/* --------------------------------------------------------------------------------------------
   PReLU (He et al. 2015): a leaky ReLU whose slopes a are learned, one a channel.

       y(n,c,p) = x > 0 ? x : a(c) x               x = x(n,c,p)
       dx = x > 0 ? dy : a(c) dy
       da(c) += sum_n sum_p (x > 0 ? 0 : x dy)

       x, y  (n, channels, pixels)   a  (channels)
   -------------------------------------------------------------------------------------------- */
static double cnn__prelu_at(double x, double a) { return x > 0 ? x : a * x; }

static void cnn__prelu_forward(const cnn_map_shape *s, float *y, const float *x, const float *a)
{
    int n, c, p;
    for (n = 0; n < s->batch; n++)
        for (c = 0; c < s->channels; c++)
            for (p = 0; p < s->pixels; p++) *y++ = (float)cnn__prelu_at((double)*x++, (double)a[c]);
}

static void cnn__prelu_backward(const cnn_map_shape *s, float *dx, float *da, const float *dy,
                                const float *x, const float *a)
{
    int n, c, p;
    for (c = 0; c < s->channels; c++) {
        double sum = 0;
        for (n = 0; n < s->batch; n++) {
            ptrdiff_t i = ((ptrdiff_t)n * s->channels + c) * s->pixels;
            for (p = 0; p < s->pixels; p++, i++) {
                if (!(x[i] > 0)) sum += (double)x[i] * (double)dy[i];
                if (dx) dx[i] = x[i] > 0 ? dy[i] : a[c] * dy[i];
            }
        }
        if (da) da[c] += (float)sum;
    }
}

/* --------------------------------------------------------------------------------------------
   Pooling (figure 6-8): a summary of each window, its largest value or its mean.

       max       y(j,i) = x(winner),  the first largest value of the window
                 dx(winner) += dy(j,i)
       average   y(j,i) = 1/m sum x   over the window
                 dx += dy(j,i) / m    over the window

       y  (n, c, h', w')   x  (n, c, h, w)     h' = floor or ceil((h + 2p - kh) / s) + 1

   Padding never wins; in the average it counts as zeros (m = kh kw) unless it is to be excluded.
   With ceil_mode the last windows may reach beyond the padding; what lies there is not counted in
   m. A window that would begin after the input's last row or column is left out.

   Adaptive pooling gets h' and w' and cuts the input into as many windows, which may share a row:
   rows floor(j h / h') .. ceil((j + 1) h / h') - 1, and columns likewise.

   The index holds a byte for each y: the winner's place in its window, row * kw + column. Backward
   finds the winner there, or, without an index, in x.
   -------------------------------------------------------------------------------------------- */

/* The rows top .. bottom-1 and columns left .. right-1 of x; count: m */
typedef struct cnn__window { int top, bottom, left, right, count; } cnn__window;

/* One side of a window, its rows or its columns: begin .. end-1; count: how many count in m */
typedef struct cnn__side { int begin, end, count; } cnn__side;

/* size cut into n shares: where share j begins, and where it ends */
static int cnn__begin_of(int j, int n, int size) { return (int)((int64_t)j * size / n); }
static int cnn__end_of(int j, int n, int size)
{ return (int)((((int64_t)j + 1) * size + n - 1) / n); }

static inline cnn__side cnn__pool2d_side(const cnn_pool2d_shape *s, int j, int out, int in,
                                         int kernel, int stride, int pad)
{
    cnn__side w;
    if (s->adaptive) {
        w.begin = cnn__begin_of(j, out, in);
        w.end = cnn__end_of(j, out, in);
    } else {
        w.begin = j * stride - pad;
        w.end = in + pad;                                       /* where the padding ends */
        if (w.end - w.begin > kernel) w.end = w.begin + kernel;
    }
    w.count = w.end - w.begin;
    if (w.begin < 0) w.begin = 0;                               /* cut at the input */
    if (w.end > in) w.end = in;
    if (s->exclude_padding) w.count = w.end - w.begin;
    return w;
}

static inline cnn__side cnn__pool2d_rows(const cnn_pool2d_shape *s, int j)
{
    return cnn__pool2d_side(s, j, s->out_height, s->in_height, s->kernel_height, s->stride_height,
                            s->pad_height);
}

static inline cnn__side cnn__pool2d_columns(const cnn_pool2d_shape *s, int i)
{
    return cnn__pool2d_side(s, i, s->out_width, s->in_width, s->kernel_width, s->stride_width,
                            s->pad_width);
}

static inline cnn__window cnn__pool2d_window(const cnn_pool2d_shape *s, int j, int i)
{
    cnn__side rows = cnn__pool2d_rows(s, j), columns = cnn__pool2d_columns(s, i);
    cnn__window w = { rows.begin, rows.end, columns.begin, columns.end, rows.count * columns.count };
    return w;
}

/* The winner's place in the map */
static ptrdiff_t cnn__pool2d_winner(const cnn_pool2d_shape *s, const float *map, cnn__window w)
{
    ptrdiff_t winner = (ptrdiff_t)w.top * s->in_width + w.left;
    int row, column;
    for (row = w.top; row < w.bottom; row++)
        for (column = w.left; column < w.right; column++) {
            ptrdiff_t at = (ptrdiff_t)row * s->in_width + column;
            if (map[at] > map[winner] || map[at] != map[at]) winner = at;     /* NaN wins */
        }
    return winner;
}

static double cnn__pool2d_at(const cnn_pool2d_shape *s, const float *map, int j, int i)
{
    cnn__window w = cnn__pool2d_window(s, j, i);
    double sum = 0;
    int row, column;
    if (!s->average) return (double)map[cnn__pool2d_winner(s, map, w)];
    for (row = w.top; row < w.bottom; row++)
        for (column = w.left; column < w.right; column++)
            sum += (double)map[(ptrdiff_t)row * s->in_width + column];
    return sum / w.count;
}

/* The winner's place in its window */
static unsigned char cnn__pool2d_index(const cnn_pool2d_shape *s, const float *map, int j, int i)
{
    ptrdiff_t winner = cnn__pool2d_winner(s, map, cnn__pool2d_window(s, j, i));
    int row = (int)(winner / s->in_width) - (j * s->stride_height - s->pad_height);
    int column = (int)(winner % s->in_width) - (i * s->stride_width - s->pad_width);
    return (unsigned char)(row * s->kernel_width + column);
}

/* The inverse: where in the map the winner with this index lies */
static ptrdiff_t cnn__pool2d_indexed(const cnn_pool2d_shape *s, unsigned char index, int j, int i)
{
    int row = j * s->stride_height - s->pad_height + index / s->kernel_width;
    int column = i * s->stride_width - s->pad_width + index % s->kernel_width;
    return (ptrdiff_t)row * s->in_width + column;
}

static void cnn__pool2d_forward(const cnn_pool2d_shape *s, float *y, unsigned char *index,
                                const float *x)
{
    ptrdiff_t maps = (ptrdiff_t)s->batch * s->channels, m;
    int j, i;
    for (m = 0; m < maps; m++, x += (ptrdiff_t)s->in_height * s->in_width)
        for (j = 0; j < s->out_height; j++)
            for (i = 0; i < s->out_width; i++) {
                *y++ = (float)cnn__pool2d_at(s, x, j, i);
                if (index) *index++ = cnn__pool2d_index(s, x, j, i);
            }
}

static void cnn__pool2d_spread(const cnn_pool2d_shape *s, float *dx, float dy, cnn__window w)
{
    float share = dy / (float)w.count;
    int row, column;
    for (row = w.top; row < w.bottom; row++)
        for (column = w.left; column < w.right; column++)
            dx[(ptrdiff_t)row * s->in_width + column] += share;
}

static void cnn__pool2d_backward(const cnn_pool2d_shape *s, float *dx, const float *dy,
                                 const float *x, const unsigned char *index)
{
    ptrdiff_t map = (ptrdiff_t)s->in_height * s->in_width;
    ptrdiff_t maps = (ptrdiff_t)s->batch * s->channels, m;
    int j, i;
    memset(dx, 0, sizeof *dx * (size_t)(maps * map));
    for (m = 0; m < maps; m++, dx += map)
        for (j = 0; j < s->out_height; j++)
            for (i = 0; i < s->out_width; i++, dy++) {
                cnn__window w = cnn__pool2d_window(s, j, i);
                if (s->average) cnn__pool2d_spread(s, dx, *dy, w);
                else if (index) dx[cnn__pool2d_indexed(s, *index++, j, i)] += *dy;
                else dx[cnn__pool2d_winner(s, x + m * map, w)] += *dy;
            }
}

/* --------------------------------------------------------------------------------------------
   Linear, "fully connected": every output sees every input.

       y(n,o)   = b(o) + sum_i W(o,i) x(n,i)
       db(o)   += sum_n dy(n,o)
       dW(o,i) += sum_n dy(n,o) x(n,i)
       dx(n,i)  = sum_o dy(n,o) W(o,i)

       y  (n, out)   x  (n, in)   W  (out, in)   b  (out)
   -------------------------------------------------------------------------------------------- */

static double cnn__linear_at(const cnn_linear_shape *s, const float *x, const float *w,
                             const float *b, int n, int o)
{
    double y = b ? (double)b[o] : 0;
    int i;
    x += (ptrdiff_t)n * s->in_features;
    w += (ptrdiff_t)o * s->in_features;
    for (i = 0; i < s->in_features; i++) y += (double)w[i] * (double)x[i];
    return y;
}

static void cnn__linear_forward(const cnn_linear_shape *s, float *y, const float *x, const float *w,
                                const float *b)
{
    int n, o;
    for (n = 0; n < s->batch; n++)
        for (o = 0; o < s->out_features; o++) *y++ = (float)cnn__linear_at(s, x, w, b, n, o);
}

static void cnn__linear_backward(const cnn_linear_shape *s, float *dx, float *dw, float *db,
                                 const float *dy, const float *x, const float *w)
{
    ptrdiff_t in = s->in_features, out = s->out_features, n, o, i;
    double sum;
    for (o = 0; db && o < out; o++) {
        for (sum = 0, n = 0; n < s->batch; n++) sum += (double)dy[n * out + o];
        db[o] += (float)sum;
    }
    for (o = 0; dw && o < out; o++)
        for (i = 0; i < in; i++) {
            for (sum = 0, n = 0; n < s->batch; n++)
                sum += (double)dy[n * out + o] * (double)x[n * in + i];
            *dw++ += (float)sum;
        }
    for (n = 0; dx && n < s->batch; n++)
        for (i = 0; i < in; i++) {
            for (sum = 0, o = 0; o < out; o++)
                sum += (double)dy[n * out + o] * (double)w[o * in + i];
            *dx++ = (float)sum;
        }
}

/* --------------------------------------------------------------------------------------------
   Batch normalisation (Ioffe, Szegedy 2015): each channel c gets mean 0 and variance 1 over the
   m = batch pixels values that it has in the batch; then a weight and a bias may change both.

       mean = 1/m sum x      var = 1/m sum (x - mean)^2      sums over n and p, for each c
       xh(n,c,p) = (x(n,c,p) - mean(c)) / sqrt(var(c) + eps)
       y(n,c,p) = weight(c) xh(n,c,p) + bias(c)

   In evaluation, mean and var are running ones: a sample's output depends on no other sample. While
   training, each batch moves them. Their variance is the unbiased one, with m - 1 in place of m:

       running = (1 - momentum) running + momentum (mean, or var m / (m - 1))

       dbias += sum dy      dweight += sum dy xh
       dx = weight / sqrt(var + eps) (dy - 1/m sum dy - xh 1/m sum dy xh)      while training:
                                                         mean and var depend on every x, too
       dx = weight / sqrt(var + eps) dy                  in evaluation: they do not

       x, y  (n, channels, pixels)    weight, bias, mean, var  (channels); without weight: 1 and 0
       saved  (2, channels): mean and 1 / sqrt(var + eps), from forward to backward
   -------------------------------------------------------------------------------------------- */
typedef struct cnn__moments { double mean, var; } cnn__moments;

static ptrdiff_t cnn__batch_norm_map(const cnn_batch_norm_shape *s, int n, int c)
{ return ((ptrdiff_t)n * s->channels + c) * s->pixels; }

static cnn__moments cnn__batch_norm_moments(const cnn_batch_norm_shape *s, const float *x, int c)
{
    double m = (double)s->batch * s->pixels, d;
    cnn__moments of = { 0, 0 };
    int n, p;
    for (n = 0; n < s->batch; n++)
        for (p = 0; p < s->pixels; p++) of.mean += (double)x[cnn__batch_norm_map(s, n, c) + p] / m;
    for (n = 0; n < s->batch; n++)
        for (p = 0; p < s->pixels; p++) {
            d = (double)x[cnn__batch_norm_map(s, n, c) + p] - of.mean;
            of.var += d * d / m;
        }
    return of;
}

static double cnn__batch_norm_at(const cnn_batch_norm_shape *s, cnn__moments of, double x,
                                 const float *weight, const float *bias, int c)
{
    double xh = (x - of.mean) / sqrt(of.var + (double)s->eps);
    return weight ? (double)weight[c] * xh + (double)bias[c] : xh;
}

static void cnn__batch_norm_move(const cnn_batch_norm_shape *s, float *mean, float *var,
                                 cnn__moments of)
{
    double m = (double)s->batch * s->pixels, share = (double)s->momentum;
    *mean = (float)((1 - share) * (double)*mean + share * of.mean);
    *var = (float)((1 - share) * (double)*var + share * of.var * m / (m - 1));
}

static void cnn__batch_norm_forward(const cnn_batch_norm_shape *s, float *y, float *saved,
                                    float *mean, float *var, int64_t *batches, const float *x,
                                    const float *weight, const float *bias)
{
    int n, c, p;
    for (c = 0; c < s->channels; c++) {
        cnn__moments of;
        if (s->training) of = cnn__batch_norm_moments(s, x, c);
        else of.mean = (double)mean[c], of.var = (double)var[c];
        if (s->training && mean) cnn__batch_norm_move(s, mean + c, var + c, of);
        if (saved) saved[c] = (float)of.mean;
        if (saved) saved[s->channels + c] = (float)(1 / sqrt(of.var + (double)s->eps));
        for (n = 0; n < s->batch; n++)
            for (p = 0; p < s->pixels; p++) {
                ptrdiff_t i = cnn__batch_norm_map(s, n, c) + p;
                y[i] = (float)cnn__batch_norm_at(s, of, (double)x[i], weight, bias, c);
            }
    }
    if (s->training && batches) ++*batches;
}

static void cnn__batch_norm_backward(const cnn_batch_norm_shape *s, float *dx, float *dweight,
                                     float *dbias, const float *dy, const float *saved,
                                     const float *x, const float *weight)
{
    double m = (double)s->batch * s->pixels;
    int n, c, p;
    for (c = 0; c < s->channels; c++) {
        double mean = (double)saved[c], scale = (double)saved[s->channels + c];
        double w = weight ? (double)weight[c] : 1, sum = 0, sum_xh = 0, d;
        for (n = 0; n < s->batch; n++)
            for (p = 0; p < s->pixels; p++) {
                ptrdiff_t i = cnn__batch_norm_map(s, n, c) + p;
                sum += (double)dy[i];
                sum_xh += (double)dy[i] * ((double)x[i] - mean) * scale;
            }
        if (dbias) dbias[c] += (float)sum;
        if (dweight) dweight[c] += (float)sum_xh;
        if (!s->training) sum = sum_xh = 0;
        for (n = 0; dx && n < s->batch; n++)
            for (p = 0; p < s->pixels; p++) {
                ptrdiff_t i = cnn__batch_norm_map(s, n, c) + p;
                d = (double)dy[i] - sum / m - ((double)x[i] - mean) * scale * sum_xh / m;
                dx[i] = (float)(w * scale * d);
            }
    }
}

/* --------------------------------------------------------------------------------------------
   Softmax over the channels c of each pixel: the y are positive and their sum is 1.

       y_c  = exp(x_c - max x) / sum_k exp(x_k - max x)
       dx_c = y_c (dy_c - sum_k dy_k y_k)

       y, x  (n, channels, pixels)

   Subtracting the largest x changes no quotient, and keeps exp from overflowing.
   -------------------------------------------------------------------------------------------- */
static double cnn__softmax_at(const cnn_map_shape *s, const float *x, int n, int c, int pixel)
{
    double largest = -HUGE_VAL, sum = 0;
    int k;
    x += (ptrdiff_t)n * s->channels * s->pixels + pixel;
    for (k = 0; k < s->channels; k++) largest = fmax(largest, (double)x[(ptrdiff_t)k * s->pixels]);
    for (k = 0; k < s->channels; k++) sum += exp((double)x[(ptrdiff_t)k * s->pixels] - largest);
    return exp((double)x[(ptrdiff_t)c * s->pixels] - largest) / sum;
}

static void cnn__softmax_forward(const cnn_map_shape *s, float *y, const float *x)
{
    int n, c, p;
    for (n = 0; n < s->batch; n++)
        for (c = 0; c < s->channels; c++)
            for (p = 0; p < s->pixels; p++) *y++ = (float)cnn__softmax_at(s, x, n, c, p);
}

static void cnn__softmax_backward(const cnn_map_shape *s, float *dx, const float *dy,
                                  const float *y)
{
    ptrdiff_t at;
    int n, c, p;
    for (n = 0; n < s->batch; n++)
        for (p = 0; p < s->pixels; p++) {
            ptrdiff_t first = (ptrdiff_t)n * s->channels * s->pixels + p;
            double sum = 0;
            for (c = 0, at = first; c < s->channels; c++, at += s->pixels)
                sum += (double)dy[at] * (double)y[at];
            for (c = 0, at = first; c < s->channels; c++, at += s->pixels)
                dx[at] = (float)((double)y[at] * ((double)dy[at] - sum));
        }
}

/* --------------------------------------------------------------------------------------------
   Joins of two branches. The shortcut (He et al. 2015) adds them; a concatenation (Szegedy et al.
   2014) puts the channels of one behind the other's.

       y = a + b                                              da = dy,  db = dy
       y(n,c) = c < ca ? a(n,c) : b(n,c-ca)                   da, db: their channels of dy

       y  (n, c, pixels)    a  (n, ca, pixels)    b  (n, c - ca, pixels)

   Where several layers read one output, its gradient is the sum of theirs: the same sum.
   -------------------------------------------------------------------------------------------- */
static void cnn__sum_of(float *y, const float *a, const float *b, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void cnn__copy_channels(const cnn_copy_shape *s, float *to, const float *from)
{
    size_t bytes = sizeof *to * (size_t)((ptrdiff_t)s->channels * s->pixels);
    int n;
    to += (ptrdiff_t)s->to_first * s->pixels;
    from += (ptrdiff_t)s->from_first * s->pixels;
    for (n = 0; n < s->batch; n++) {
        memcpy(to, from, bytes);
        to += (ptrdiff_t)s->to_channels * s->pixels;
        from += (ptrdiff_t)s->from_channels * s->pixels;
    }
}

/* --------------------------------------------------------------------------------------------
   Zero padding: each map in a larger one.

       y(j,i) = x(j - top, i - left), and 0 beyond x's border      dx(j,i) = dy(j + top, i + left)

       y  (n, c, h', w')    x  (n, c, h, w)

   The gradient is the same with x and y changed, and with -top and -left: it cuts.
   -------------------------------------------------------------------------------------------- */
static void cnn__pad2d(const cnn_pad2d_shape *s, float *to, const float *from)
{
    ptrdiff_t maps = (ptrdiff_t)s->batch * s->channels, m;
    int j, i;
    for (m = 0; m < maps; m++, from += (ptrdiff_t)s->in_height * s->in_width)
        for (j = -s->top; j < s->out_height - s->top; j++)
            for (i = -s->left; i < s->out_width - s->left; i++) {
                int inside = j >= 0 && j < s->in_height && i >= 0 && i < s->in_width;
                *to++ = inside ? from[(ptrdiff_t)j * s->in_width + i] : 0;
            }
}

/* --------------------------------------------------------------------------------------------
   Dropout (Srivastava et al. 2014), in training only: each value is set to 0 with probability p.
   The others are divided by 1 - p, so that the expected sum stays the same.

       y(i)  = m(i) x(i) / (1 - p)        m(i) = 0 with probability p, else 1
       dx(i) = m(i) dy(i) / (1 - p)

   The mask m is cnn_random's (seed, stream = layer, step = c->pass, word i). c->pass counts
   training passes; only the next forward pass raises it (cnn__direct_next_batch), so backward finds
   the same mask, and nothing is stored.
   -------------------------------------------------------------------------------------------- */
static double cnn__dropout_at(const cnn_counters *c, int layer, float p, float x, size_t i)
{
    int keep = cnn__unit(cnn__word(c->seed, (uint32_t)layer, c->pass, i)) >= p;
    return keep ? (double)x / (1.0 - (double)p) : 0;
}

/* Backward is the same: from dy to dx */
static void cnn__dropout_forward(const cnn_counters *c, int layer, float p, float *y,
                                 const float *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = (float)cnn__dropout_at(c, layer, p, x[i], i);
}

/* --------------------------------------------------------------------------------------------
   Cross-entropy of the softmax: how surprised the network is by the true label t.
   [k = t] is 1 if k is the label, else 0.

       loss    = -1/N sum_n log softmax(y_n)[t_n]
       dy(n,k) = (softmax(y_n)[k] - [k = t_n]) / N

   PyTorch's options: class weights w, label smoothing e, probabilities p_n in place of labels t_n.
   Each class k then counts with q(n,k), and the sum is divided by D:

       q(n,k)  = w(k) ((1 - e) [k = t_n] + e / K)      D = sum_n w(t_n)     from labels
       q(n,k)  = w(k) ((1 - e) p_n(k) + e / K)         D = N                from probabilities

       loss    = -1/D sum_n sum_k q(n,k) log softmax(y_n)[k]
       dy(n,k) = (softmax(y_n)[k] sum_o q(n,o) - q(n,k)) / D

       y, dy, p  (N, K)    t  (N)    w  (K)

   A sample with the ignored label is left out of both sums, and its dy is 0. With probabilities,
   labels say only which answers are right. An epoch's loss divides the sum of all batches by the
   sum of all D.
   -------------------------------------------------------------------------------------------- */

/* As torch.argmax: NaN counts as the largest; among equal values the first is taken. */
static int cnn__argmax(const float *y, int count)
{
    int best = 0, o;
    for (o = 1; o < count; o++)
        if (y[o] > y[best] || (y[o] != y[o] && y[best] == y[best])) best = o;
    return best;
}

/* Adds a batch to the counters. loss is a sum; the batch's mean is loss / weight. */
static void cnn__count_loss(cnn_counters *c, double loss, double weight, int correct, int counted)
{
    c->loss = loss / weight;
    c->correct = correct;
    c->loss_sum += loss;
    c->weight_sum += weight;
    c->correct_sum += correct;
    c->seen += counted;
}

static double cnn__class_weight(const cnn_cross_entropy_options *o, int k)
{ return o->weight ? (double)o->weight[k] : 1; }

/* q(n,k); p: the probabilities of sample n, or NULL: from its label t */
static double cnn__cross_entropy_q(const cnn_cross_entropy_options *o, const float *p, int t, int k,
                                   int outputs)
{
    double e = (double)o->label_smoothing, wanted = p ? (double)p[k] : (double)(k == t);
    return cnn__class_weight(o, k) * ((1 - e) * wanted + e / outputs);
}

/* One sample: subtracts sum_k q log softmax(y)[k] from *loss; writes its dy, if that is not NULL */
static void cnn__cross_entropy_sample(const cnn_cross_entropy_options *o, double *loss, float *dy,
                                      const float *y, const float *p, int t, int outputs, double d)
{
    double largest = (double)y[cnn__argmax(y, outputs)], sum = 0, sum_of_q = 0;
    int k;
    for (k = 0; k < outputs; k++) sum += exp((double)y[k] - largest);
    for (k = 0; k < outputs; k++) {
        double q = cnn__cross_entropy_q(o, p, t, k, outputs);
        double log_softmax = (double)y[k] - largest - log(sum);
        if (p || k == t || o->label_smoothing > 0)     /* else q = 0, and the log may be infinite */
            *loss -= q * log_softmax;
        sum_of_q += q;
    }
    for (k = 0; dy && k < outputs; k++) {
        double softmax = exp((double)y[k] - largest) / sum;
        dy[k] = (float)((softmax * sum_of_q - cnn__cross_entropy_q(o, p, t, k, outputs)) / d);
    }
}

static void cnn__softmax_cross_entropy(cnn_counters *c, const cnn_cross_entropy_options *o,
                                       float *dy, const float *y, const float *target,
                                       const int *labels, int batch, int outputs)
{
    double loss = 0, d = 0;
    int correct = 0, counted = 0, n;
    for (n = 0; n < batch; n++)
        d += target ? 1 : labels[n] == o->ignore_index ? 0 : cnn__class_weight(o, labels[n]);
    for (n = 0; n < batch; n++, y += outputs) {
        const float *p = target ? target + (ptrdiff_t)n * outputs : NULL;
        float *dy_n = dy ? dy + (ptrdiff_t)n * outputs : NULL;
        int t = labels ? labels[n] : cnn__argmax(p, outputs);
        int ignored = labels && t == o->ignore_index;
        counted += !ignored;
        correct += !ignored && cnn__argmax(y, outputs) == t;
        if (p || !ignored) cnn__cross_entropy_sample(o, &loss, dy_n, y, p, t, outputs, d);
        else if (dy) memset(dy_n, 0, sizeof *dy * (size_t)outputs);
    }
    cnn__count_loss(c, loss, d, correct, counted);
}

/* --------------------------------------------------------------------------------------------
   Mean squared error:

       loss    = 1/(N K) sum_n sum_k (y(n,k) - target(n,k))^2
       dy(n,k) = 2 (y(n,k) - target(n,k)) / (N K)

       y, dy, target  (N, K)    labels  (N)

   Without targets, the targets are the one-hot vectors of the labels.
   -------------------------------------------------------------------------------------------- */
static void cnn__mse(cnn_counters *c, float *dy, const float *y, const float *target,
                     const int *labels, int batch, int outputs)
{
    double loss = 0, count = (double)batch * outputs, wanted, error;
    int correct = 0, n, k;
    for (n = 0; n < batch; n++, y += outputs) {
        correct += labels && cnn__argmax(y, outputs) == labels[n];
        for (k = 0; k < outputs; k++) {
            wanted = target ? (double)*target++ : (double)(k == labels[n]);
            error = (double)y[k] - wanted;
            loss += error * error;
            if (dy) *dy++ = (float)(2 * error / count);
        }
    }
    cnn__count_loss(c, loss / outputs, batch, correct, batch);
}

/* --------------------------------------------------------------------------------------------
   Optimizers: one step on the parameters w with gradients g. Each parameter counts its own steps
   t = 1, 2, 3, ...; it counts none while it is frozen.

       SGD     g = g + decay w;   v = momentum v + g;   w = w - lr v
               (Nesterov: w = w - lr (g + momentum v))
       Adam    g = g + decay w;   m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
               w = w - lr m' / (sqrt(v') + eps),  m' = m / (1 - b1^t),  v' = v / (1 - b2^t)
       AdamW   the same without g + decay w, but first  w = w - lr decay w

   Clipping: g = g min(1, max_norm / (|g| + 1e-6));  |g|: the length of all gradients as one vector.
   A frozen parameter, its gradient and its moments stay as they are, and |g| leaves it out.
   -------------------------------------------------------------------------------------------- */
static void cnn__sgd_step(cnn_counters *c, const cnn_sgd_options *o, float *w, float *v,
                          const float *g, cnn_span *spans, int count)
{
    float lr = (float)c->lr;
    cnn_span *s;
    size_t i;
    for (s = spans; s < spans + count; s++) {
        if (!s->trainable) continue;
        for (i = s->offset; i < s->offset + s->count; i++) {
            float d = g[i] + s->weight_decay * w[i];
            if (v) {
                v[i] = o->momentum * v[i] + d;
                d = o->nesterov ? d + o->momentum * v[i] : v[i];
            }
            w[i] -= lr * d;
        }
        s->step++;
    }
    c->step++;
}

/* What is the same for every number of a parameter */
typedef struct cnn__adam_factors { float shrink, decay, lr, root; } cnn__adam_factors;

static cnn__adam_factors cnn__adam_at_step(const cnn_counters *c, const cnn_span *s,
                                           const cnn_adam_options *o, int decoupled)
{
    cnn__adam_factors f;
    double t = (double)(s->step + 1);
    f.shrink = decoupled ? (float)(1 - c->lr * (double)s->weight_decay) : 1;
    f.decay = decoupled ? 0 : s->weight_decay;
    f.lr = (float)(c->lr / (1 - pow((double)o->beta1, t)));        /* lr and the correction of m */
    f.root = (float)(1 / sqrt(1 - pow((double)o->beta2, t)));      /* the correction of sqrt(v) */
    return f;
}

static void cnn__adam_step(cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w,
                           float *m, float *v, const float *g, cnn_span *spans, int count)
{
    cnn_span *s;
    size_t i;
    for (s = spans; s < spans + count; s++) {
        cnn__adam_factors f = cnn__adam_at_step(c, s, o, decoupled);
        if (!s->trainable) continue;
        for (i = s->offset; i < s->offset + s->count; i++) {
            float d = g[i] + f.decay * w[i];
            m[i] = o->beta1 * m[i] + (1 - o->beta1) * d;
            v[i] = o->beta2 * v[i] + (1 - o->beta2) * d * d;
            w[i] = w[i] * f.shrink - f.lr * m[i] / (sqrtf(v[i]) * f.root + o->eps);
        }
        s->step++;
    }
    c->step++;
}

static void cnn__clip_grad_norm(cnn_counters *c, float *g, const cnn_span *spans, int count,
                                float max_norm)
{
    const cnn_span *s;
    double sum = 0, factor;
    size_t i;
    for (s = spans; s < spans + count; s++)
        for (i = s->offset; s->trainable && i < s->offset + s->count; i++)
            sum += (double)g[i] * (double)g[i];
    c->grad_norm = sqrt(sum);
    factor = (double)max_norm / (c->grad_norm + 1e-6);
    if (factor >= 1) return;                /* false for NaN: then all become NaN, as in PyTorch */
    for (s = spans; s < spans + count; s++)
        for (i = s->offset; s->trainable && i < s->offset + s->count; i++) g[i] *= (float)factor;
}

/* --------------------------------------------------------------------------------------------
   Gathering a batch: the chosen samples, scaled to what the network sees, and augmented.
   For sample m = order(n) of H rows and W columns, with z = 0 beyond its border:
       z(c,j,i)   = scale(c) sample(m,c,j,i) + shift(c)
       x(n,c,j,i) = z(c,q,p)

   Crop and flip move whole pixels:

       q = j + down           p = right + (i, or W-1-i if mirrored)

   Rotation by a and scaling by s around the centre (j0,i0) = ((H-1)/2, (W-1)/2) turn this into

       q' = j0 + (cos a (q - j0) - sin a (p - i0)) / s
       p' = i0 + (sin a (q - j0) + cos a (p - i0)) / s
   and z between four pixels is bilinear.
   The words of cnn_random(data_seed, CNN__STREAM_AUGMENT, epoch, m) decide: word 0 down, word 1
   right, each within +-padding; word 2 by its lowest bit whether it is mirrored, and by the upper
   24 a within +-rotation; word 3 s within 1 +- scale.
   -------------------------------------------------------------------------------------------- */
static int cnn__augments(const cnn_augment_options *o)
{ return o->padding || o->flip || o->rotation > 0 || o->scale > 0; }

typedef struct cnn__change { int down, right, mirrored; double cos, sin; } cnn__change;

static cnn__change cnn__change_of(const cnn_counters *k, const cnn_augment_options *o, int sample)
{
    uint64_t places = 2 * (uint64_t)o->padding + 1;
    uint32_t word[4];
    double a, s;
    cnn__change d;
    cnn_random(word, k->data_seed, CNN__STREAM_AUGMENT, k->epoch, (uint32_t)sample);
    d.down = (int)(word[0] * places >> 32) - o->padding;
    d.right = (int)(word[1] * places >> 32) - o->padding;
    d.mirrored = o->flip && word[2] & 1;
    a = 3.14159265358979324 / 180 * (double)o->rotation * (2 * (double)cnn__unit(word[2]) - 1);
    s = 1 + (double)o->scale * (2 * (double)cnn__unit(word[3]) - 1);
    d.cos = cos(a) / s;
    d.sin = sin(a) / s;
    return d;
}

/* One channel of one sample */
typedef struct cnn__plane {
    int height, width;
    const unsigned char *bytes; const float *floats;
    float scale, shift;
} cnn__plane;

static float cnn__plane_at(const cnn__plane *z, int row, int column)
{
    ptrdiff_t at = (ptrdiff_t)row * z->width + column;
    if (row < 0 || row >= z->height || column < 0 || column >= z->width) return 0;
    return z->scale * (z->bytes ? (float)z->bytes[at] : z->floats[at]) + z->shift;
}

static double cnn__plane_between(const cnn__plane *z, double row, double column)
{
    int j, i, b, a;
    double v, u, sum = 0;
    if (!(row > -1 && row < z->height && column > -1 && column < z->width)) return 0;
    j = (int)(row + 1) - 1; i = (int)(column + 1) - 1;     /* floor: both are above -1 */
    v = row - j; u = column - i;
    for (b = 0; b < 2; b++)
        for (a = 0; a < 2; a++)
            sum += (b ? v : 1 - v) * (a ? u : 1 - u) * (double)cnn__plane_at(z, j + b, i + a);
    return sum;
}

/* sample n of the batch */
static void cnn__gather(const cnn_counters *k, const cnn_gather_shape *s, int n, float *x,
                        const unsigned char *bytes, const float *floats, const int *order,
                        const float *scale, const float *shift)
{
    int sample = order[k->batch_offset + (uint64_t)n], c, j, i;
    cnn__change d = cnn__change_of(k, &s->augment, sample);
    double j0 = 0.5 * (s->height - 1), i0 = 0.5 * (s->width - 1);
    ptrdiff_t pixels = (ptrdiff_t)s->height * s->width;
    x += (ptrdiff_t)n * s->channels * pixels;
    for (c = 0; c < s->channels; c++) {
        ptrdiff_t first = ((ptrdiff_t)(s->packed ? n : sample) * s->channels + c) * pixels;
        cnn__plane z;
        z.height = s->height; z.width = s->width;
        z.bytes = bytes ? bytes + first : NULL; z.floats = bytes ? NULL : floats + first;
        z.scale = scale[c]; z.shift = shift[c];
        for (j = 0; j < s->height; j++)
            for (i = 0; i < s->width; i++) {
                int q = j + d.down, p = d.right + (d.mirrored ? s->width - 1 - i : i);
                if (s->augment.rotation == 0 && s->augment.scale == 0)
                    *x++ = cnn__plane_at(&z, q, p);
                else *x++ = (float)cnn__plane_between(&z,
                                j0 + d.cos * (q - j0) - d.sin * (p - i0),
                                i0 + d.sin * (q - j0) + d.cos * (p - i0));
            }
    }
}

/* ============================================================================================
   >>direct   The backend `direct`: the table of operations, filled with the cards. A fused entry
              calls its cards one after the other: convolution, activation, pooling.
   ============================================================================================ */

static size_t cnn__conv2d_outputs(const cnn_conv2d_shape *s)       /* before pooling */
{ return (size_t)((ptrdiff_t)s->batch * s->out_channels * s->out_height * s->out_width); }

static size_t cnn__pool2d_outputs(const cnn_pool2d_shape *s)
{ return (size_t)((ptrdiff_t)s->batch * s->channels * s->out_height * s->out_width); }

static size_t cnn__direct_conv2d_work(void *context, const cnn_conv2d_shape *s)
{ (void)context; return sizeof(float) * (cnn__conv2d_outputs(s) + cnn__pool2d_outputs(&s->pool)); }

static void cnn__direct_conv2d_forward(void *context, const cnn_conv2d_shape *s, float *y,
                                       unsigned char *index, const float *x, const float *weight,
                                       const float *bias, void *work)
{
    float *f = s->pool.kernel_height ? (float *)work : y;
    (void)context;
    cnn__conv2d_forward(s, f, x, weight, bias);
    cnn__activation_forward(s->activation, s->slope, f, f, cnn__conv2d_outputs(s));
    if (s->pool.kernel_height) cnn__pool2d_forward(&s->pool, y, index, f);
}

static void cnn__direct_conv2d_backward(void *context, const cnn_conv2d_shape *s, float *dx,
                                        float *dweight, float *dbias, const float *dy,
                                        const float *y, const unsigned char *index, const float *x,
                                        const float *weight, void *work)
{
    int pooled = s->pool.kernel_height;
    size_t outputs = pooled ? cnn__pool2d_outputs(&s->pool) : cnn__conv2d_outputs(s);
    float *df = (float *)work, *before_pooling = pooled ? df + cnn__conv2d_outputs(s) : df;
    (void)context;
    cnn__activation_backward(s->activation, s->slope, before_pooling, dy, y, NULL, outputs);
    if (pooled) cnn__pool2d_backward(&s->pool, df, before_pooling, NULL, index);
    cnn__conv2d_backward(s, dx, dweight, dbias, df, x, weight);
}

static size_t cnn__linear_outputs(const cnn_linear_shape *s)
{ return (size_t)s->batch * (size_t)s->out_features; }

static size_t cnn__direct_linear_work(void *context, const cnn_linear_shape *s)
{ (void)context; return sizeof(float) * cnn__linear_outputs(s); }

static void cnn__direct_linear_forward(void *context, const cnn_linear_shape *s, float *y,
                                       const float *x, const float *weight, const float *bias,
                                       void *work)
{
    (void)context; (void)work;
    cnn__linear_forward(s, y, x, weight, bias);
    cnn__activation_forward(s->activation, s->slope, y, y, cnn__linear_outputs(s));
}

static void cnn__direct_linear_backward(void *context, const cnn_linear_shape *s, float *dx,
                                        float *dweight, float *dbias, const float *dy,
                                        const float *y, const float *x, const float *weight,
                                        void *work)
{
    float *df = (float *)work;
    (void)context;
    cnn__activation_backward(s->activation, s->slope, df, dy, y, NULL, cnn__linear_outputs(s));
    cnn__linear_backward(s, dx, dweight, dbias, df, x, weight);
}

static size_t cnn__batch_norm_values(const cnn_batch_norm_shape *s)
{ return (size_t)((ptrdiff_t)s->batch * s->channels * s->pixels); }

static size_t cnn__direct_batch_norm_work(void *context, const cnn_batch_norm_shape *s)
{ (void)context; return sizeof(float) * cnn__batch_norm_values(s); }

static void cnn__direct_batch_norm_forward(void *context, const cnn_batch_norm_shape *s, float *y,
                                           float *saved, float *mean, float *var, int64_t *batches,
                                           const float *x, const float *weight, const float *bias)
{
    (void)context;
    cnn__batch_norm_forward(s, y, saved, mean, var, batches, x, weight, bias);
    cnn__activation_forward(s->activation, s->slope, y, y, cnn__batch_norm_values(s));
}

static void cnn__direct_batch_norm_backward(void *context, const cnn_batch_norm_shape *s, float *dx,
                                            float *dweight, float *dbias, const float *dy,
                                            const float *y, const float *saved, const float *x,
                                            const float *weight, void *work)
{
    float *df = (float *)work;
    (void)context;
    cnn__activation_backward(s->activation, s->slope, df, dy, y, NULL, cnn__batch_norm_values(s));
    cnn__batch_norm_backward(s, dx, dweight, dbias, df, saved, x, weight);
}

static void cnn__direct_next_batch(void *context, cnn_counters *c, int size, int training)
{
    (void)context;
    c->batch_offset = c->next_offset;
    c->next_offset += (uint64_t)size;
    c->pass += (uint64_t)training;
}

static void cnn__direct_gather(void *context, const cnn_counters *k, const cnn_gather_shape *s,
                               float *x, const unsigned char *bytes, const float *floats,
                               const int *order, const float *scale, const float *shift)
{
    int n;
    (void)context;
    for (n = 0; n < s->batch; n++) cnn__gather(k, s, n, x, bytes, floats, order, scale, shift);
}

static void cnn__direct_gather_rows(void *context, const cnn_counters *k, void *to,
                                    const void *from, const int *order, int batch, int width)
{
    int n;
    (void)context;
    order += k->batch_offset;
    for (n = 0; n < batch; n++)
        memcpy((char *)to + (ptrdiff_t)n * width * 4, (const char *)from
               + (ptrdiff_t)order[n] * width * 4, (size_t)width * 4);
}

/* Each of the other entries calls one card. In each line: the entry, its card, its parameters. */
#define CNN__CALLS(entry, card, ...) \
    static void cnn__direct_##entry(void *context, __VA_ARGS__) { (void)context; card; }

CNN__CALLS(pool2d_forward, cnn__pool2d_forward(s, y, NULL, x),
           const cnn_pool2d_shape *s, float *y, const float *x)
CNN__CALLS(pool2d_backward, cnn__pool2d_backward(s, dx, dy, x, NULL),
           const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x)
CNN__CALLS(activation_forward, cnn__activation_forward(f, slope, y, x, n),
           cnn_activation f, float slope, float *y, const float *x, size_t n)
CNN__CALLS(activation_backward, cnn__activation_backward(f, slope, dx, dy, y, x, n),
           cnn_activation f, float slope, float *dx, const float *dy, const float *y,
           const float *x, size_t n)
CNN__CALLS(prelu_forward, cnn__prelu_forward(s, y, x, a),
           const cnn_map_shape *s, float *y, const float *x, const float *a)
CNN__CALLS(prelu_backward, (void)work; cnn__prelu_backward(s, dx, da, dy, x, a),
           const cnn_map_shape *s, float *dx, float *da, const float *dy, const float *x,
           const float *a, float *work)
CNN__CALLS(add, cnn__sum_of(y, a, b, n), float *y, const float *a, const float *b, size_t n)
CNN__CALLS(copy_channels, cnn__copy_channels(s, to, from),
           const cnn_copy_shape *s, float *to, const float *from)
CNN__CALLS(pad2d, cnn__pad2d(s, to, from), const cnn_pad2d_shape *s, float *to, const float *from)
CNN__CALLS(softmax_forward, cnn__softmax_forward(s, y, x),
           const cnn_map_shape *s, float *y, const float *x)
CNN__CALLS(softmax_backward, cnn__softmax_backward(s, dx, dy, y),
           const cnn_map_shape *s, float *dx, const float *dy, const float *y)
CNN__CALLS(dropout_forward, cnn__dropout_forward(c, layer, p, y, x, n),
           const cnn_counters *c, int layer, float p, float *y, const float *x, size_t n)
CNN__CALLS(dropout_backward, cnn__dropout_forward(c, layer, p, dx, dy, n),
           const cnn_counters *c, int layer, float p, float *dx, const float *dy, size_t n)
CNN__CALLS(softmax_cross_entropy,
           cnn__softmax_cross_entropy(c, o, dy, y, target, labels, batch, outputs),
           cnn_counters *c, const cnn_cross_entropy_options *o, float *dy, const float *y,
           const float *target, const int *labels, int batch, int outputs)
CNN__CALLS(mse, cnn__mse(c, dy, y, target, labels, batch, outputs),
           cnn_counters *c, float *dy, const float *y, const float *target, const int *labels,
           int batch, int outputs)
CNN__CALLS(clip_grad_norm, (void)n; cnn__clip_grad_norm(c, g, spans, count, max_norm),
           cnn_counters *c, float *g, size_t n, const cnn_span *spans, int count, float max_norm)
CNN__CALLS(sgd_step, (void)n; cnn__sgd_step(c, o, w, v, g, spans, count),
           cnn_counters *c, const cnn_sgd_options *o, float *w, float *v, const float *g, size_t n,
           cnn_span *spans, int count)
CNN__CALLS(adam_step, (void)n; cnn__adam_step(c, o, decoupled, w, m, v, g, spans, count),
           cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w, float *m, float *v,
           const float *g, size_t n, cnn_span *spans, int count)

static void *cnn__host_alloc(void *context, size_t bytes)
{ (void)context; return cnn__alloc(bytes, 1); }

static void cnn__host_free(void *context, void *memory)
{ (void)context; cnn__free(memory); }

static void cnn__host_copy(void *context, void *to, const void *from, size_t bytes)
{ (void)context; memcpy(to, from, bytes); }

static void cnn__host_zero(void *context, void *memory, size_t bytes)
{ (void)context; memset(memory, 0, bytes); }

/* All operations: `each` is done with the entry of each of them. */
#define CNN__OPERATIONS(each) \
    each(conv2d_work) each(conv2d_forward) each(conv2d_backward) \
    each(pool2d_forward) each(pool2d_backward) \
    each(linear_work) each(linear_forward) each(linear_backward) \
    each(batch_norm_work) each(batch_norm_forward) each(batch_norm_backward) \
    each(activation_forward) each(activation_backward) \
    each(prelu_forward) each(prelu_backward) \
    each(add) each(copy_channels) each(pad2d) \
    each(softmax_forward) each(softmax_backward) \
    each(dropout_forward) each(dropout_backward) \
    each(softmax_cross_entropy) each(mse) \
    each(next_batch) each(gather) each(gather_rows) \
    each(clip_grad_norm) each(sgd_step) each(adam_step)

static cnn_backend cnn__direct(void)
{
    cnn_backend b;
    memset(&b, 0, sizeof b);
    b.version = CNN_BACKEND_VERSION;
    b.name = "direct";
    b.alloc = cnn__host_alloc;
    b.free = cnn__host_free;
    b.upload = b.download = cnn__host_copy;
    b.zero = cnn__host_zero;
    b.reads_host = 1;
#define CNN__FILL(entry) b.entry = cnn__direct_##entry;
    CNN__OPERATIONS(CNN__FILL)
#undef CNN__FILL
    return b;
}

/* ============================================================================================
   >>simd   The backend `simd`: the operations of the cards on vectors and threads. The cards say what is computed; this
            section changes how: the order of the sums, where values lie and, with Winograd's algorithm, which products
            are taken. A vector is 4, 8 or 16 floats in one register, which one instruction adds or multiplies at once;
            a lane is one of its places.

            Lanes      One image lies in each lane of a vector. The loops are then the card's, with
                       vectors in place of numbers, and maps of any size fill the vectors:

                           image 0   a0 b0 c0 ...                   pixel a   a0 a1 a2 a3
                           image 1   a1 b1 c1 ...      becomes      pixel b   b0 b1 b2 b3
                           ...                                      ...       lanes 0 to 3

                       Few images would leave lanes empty. Then each image is cut into parts, and
                       a part lies in each lane (cnn__choose_cut); in the linear layer the inputs
                       of one sample do (cnn__linear_rows_piece).
            Winograd   Kernels of 3 x 3 and 5 x 5 take fewer multiplications, forward and on the way
                       back to the input: cnn__choose_convolution says when, and why.
            Zeros      Backward, most of df is zero after ReLU, max pooling or dropout. The gradients
                       of the weights, and the linear layer's dx, leave these zeros out. Where no
                       pool follows, and no ReLU either (e.g. before BatchNorm) or a window is
                       small, the gradients of a convolution's weights are plain products.
            Threads    In which order numbers are added up does not depend on the number of threads,
                       so the results do not either. With few blocks, or fewer than threads, a piece
                       is a share of the output channels; what all shares read, X or V, is laid out once.
            Kept       From prediction to prediction Winograd's kernels stay as they are, until the
                       network says that the weights have changed (cnn__transform_kernels). Large
                       ones are not kept: for one block, a piece computes those of its share.

   The order: what all instruction sets share; the vector functions, which are the innermost loops;
   the instruction sets; convolution; the linear layer; what works value by value; the table.

   The vector functions are compiled once for each instruction set: cnn.h then includes itself with
   CNN__ISA defined, and only the part under #ifdef CNN__ISA is read. There CNN__FOR(cnn__total)
   is, for example, cnn__total_avx2.

   THE WORDS of this section:
       lane     one number of a vector; lane l belongs to image (or part) l of a block
       part     a piece of an image, cut out with the inputs that its outputs see
       block    as many images (or parts of images; in the linear layer: samples) as a vector has lanes
       share    some of the output channels; with few blocks, a piece computes one
       bundle   some of the groups, with channels of their own; a piece computes one
       map      one channel of one image
       tap      one weight of a kernel, and the input value that it is multiplied by
       window   the input values that one output value sees
       tile     4 x 4 neighbouring output values, which Winograd's algorithm computes together
       point    Winograd's algorithm multiplies at 6 x 6 or 8 x 8 points; `points` is 6 or 8
       piece    a part of a job that one thread does
       offset   floats from the beginning of an array to a place in it
       stride   floats from one row (row_stride), map, point, ... to the next in memory; only
                stride_height and stride_width are the convolution's
       df       the gradient with respect to f, the sum before the activation
       isa      an instruction set: its vectors, and the vector functions compiled for it
   ============================================================================================ */

static int cnn__smaller(int a, int b) { return a < b ? a : b; }
static ptrdiff_t cnn__larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
static int cnn__divide_up(int n, int by) { return (n + by - 1) / by; }
static int cnn__round_up(int n, int to) { return cnn__divide_up(n, to) * to; }

/* How many of the `left` go next, at most `most`, so that the last ones are about equal: 7 by at most 3 are 3 + 2 + 2.
   Without a division, which would take as long as a small product. */
static int cnn__share(int left, int most) { return left <= most ? left : left < 2 * most ? (left + 1) / 2 : most; }

/* Whether so many images or samples, one in each lane, fill three lanes of four. If not, lanes hold something else. */
static int cnn__fills_lanes(int samples, int lanes)
{
    return 4 * (double)samples >= 3.0 * lanes * cnn__divide_up(samples, lanes);
}

/* ---- the operands of the vector functions ---- */

enum { CNN__MOST_ROWS = 8, CNN__MOST_LANES = 48 };         /* of a product of several rows: rows; vectors x lanes */
enum { CNN__POOL_WIDTH = 1024 };                           /* of a map that is pooled on its own, before and after */

/* C = init + A B, a product of matrices so small that C stays in registers. In B and C an element is a vector. */
typedef struct cnn__product {
    const float *a[CNN__MOST_ROWS];                        /* its rows; from `rows` on, the last one again */
    const float *b; const ptrdiff_t *b_offsets;            /* where each row begins */
    ptrdiff_t b_stride;                                    /* from vector to vector of a row */
    float *c; ptrdiff_t c_stride;                          /* from row to row; the vectors of a row are contiguous */
    int rows, depth, vectors;                              /* rows of C; rows of B; vectors in a row of C */
    float init[CNN__MOST_ROWS];                            /* of each row: its bias, or 0 */
    int accumulate, relu;                                  /* add what C holds; then apply ReLU */
} cnn__product;

/* to(r, i) += sum over n of values[n] x[offsets[n] + r row_stride + i]: windows of x, weighted and added up. */
typedef struct cnn__window_sum {
    float *to;                                             /* (rows, vectors), contiguous */
    int rows, vectors;                                     /* of a window */
    const float *x; ptrdiff_t row_stride;
    const float *values; const int32_t *offsets; ptrdiff_t count;
} cnn__window_sum;

/* A convolution whose input is padded already: the forward pass is one, and so is the way back from df to dx.
       out(k, j, i) = [relu] (bias(k) + sum over taps of  weight(k, c, y, x) in(c, j s + y d, i s + x d)) */
typedef struct cnn__conv {
    int groups, in_channels, out_channels;                 /* channels of one group, unlike cnn_conv2d_shape's */
    int kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int height, width;                                     /* of a map of the padded input */
    int out_height, out_width;
    int points;                                            /* Winograd's points a side, 6 or 8; 0: direct */
} cnn__conv;

static int cnn__tiles(int n) { return cnn__divide_up(n, 4); }

/* Strides of Winograd's arrays: U (point, out_channels, in_channels); V and M (point, channels, tiles) of blocks. A
   little is added between points: at distances of a power of two they would evict each other from the cache. */
static ptrdiff_t cnn__u_row_stride(const cnn__conv *conv, int lanes) { return cnn__round_up(conv->in_channels, lanes); }
static ptrdiff_t cnn__u_point_stride(const cnn__conv *conv, int lanes)
{
    return conv->out_channels * cnn__u_row_stride(conv, lanes) + 16;
}
static ptrdiff_t cnn__u_size(const cnn__conv *conv, int lanes)             /* of one group; 0 without Winograd */
{
    return conv->points * conv->points * cnn__u_point_stride(conv, lanes);
}
static ptrdiff_t cnn__point_stride(int channels, int tiles, int lanes)     /* of V and M */
{
    return ((ptrdiff_t)channels * tiles + 1) * lanes;
}

typedef struct cnn__part_at { ptrdiff_t start; int high, wide; } cnn__part_at;   /* of a part: rows, columns */

/* ---- an instruction set ---- */

typedef struct cnn__isa {                                  /* entry NAME is CNN__FOR(cnn__NAME), explained below */
    const char *name;
    int lanes;
    int rows, vectors;                                     /* of a product, at most; a single row may have more */
    void (*multiply)(const cnn__product *p);
    void (*multiply_rows)(const cnn__product *p);
    void (*add_windows)(const cnn__window_sum *w);
    ptrdiff_t (*list_nonzeros)(float *values, int32_t *offsets, const float *df, const int32_t *corners,
                               const unsigned char *index, const int32_t *taps, int32_t begin, ptrdiff_t n);
    void (*to_lanes)(float *to, ptrdiff_t row_stride, ptrdiff_t pixel_stride, const float *from, ptrdiff_t image_stride,
                     int images, int height, int width);
    void (*parts_to_lanes)(float *to, const float *from, ptrdiff_t row_stride, const ptrdiff_t *starts, int height,
                           int width);
    void (*from_lanes)(float *floats, unsigned char *bytes, ptrdiff_t row_stride, const cnn__part_at *parts, int count,
                       const float *from, ptrdiff_t pixel_stride, int rows, int columns);
    void (*max_pool)(const cnn_pool2d_shape *s, float *y, float *index, const float *z);
    void (*max_unpool)(const cnn_pool2d_shape *s, float *d, ptrdiff_t map_stride, ptrdiff_t row_stride,
                       ptrdiff_t pixel_stride, const float *dy, const float *index);
    void (*pool_image)(const cnn_pool2d_shape *s, float *y, const float *x);
    void (*average_back)(const cnn_pool2d_shape *s, float *dx, const float *dy);
    void (*winograd_u)(const cnn__conv *conv, float *u, const float *weight);
    void (*winograd_v)(const cnn__conv *conv, float *v, const float *in, int channels, int first, int count);
    void (*winograd_f)(const cnn__conv *conv, float *out, const float *m, const float *bias, int relu, int channels,
                       int first, int count);
    float (*total)(const float *x, float x0, ptrdiff_t n);
    void (*relu_forward)(float *y, const float *x, ptrdiff_t n);
    void (*relu_backward)(float *dx, const float *dy, const float *y, ptrdiff_t n);
    void (*leaky_forward)(float *y, const float *x, float slope, ptrdiff_t n);
    void (*leaky_backward)(float *dx, const float *dy, const float *x, float slope, ptrdiff_t n);
    void (*sum_into)(float *to, const float *from, ptrdiff_t n);
    float (*sum_products)(const float *a, float a0, const float *b, float b0, ptrdiff_t n);
    void (*normalize)(float *y, const float *x, float mean, float scale, float shift, ptrdiff_t n);
    void (*normalize_back)(float *dx, const float *df, const float *x, float mean, float scale, float shift,
                           float slope, ptrdiff_t n);
    void (*scale_bytes)(float *to, const unsigned char *from, float scale, float shift, ptrdiff_t n);
    void (*adam)(const cnn__adam_factors *f, const cnn_adam_options *o, float *w, float *m, float *v, const float *g,
                 ptrdiff_t n);
    void (*dropout_values)(float *y, const float *x, ptrdiff_t n, uint64_t seed, uint32_t stream, uint64_t step,
                    uint32_t index, uint32_t limit, float grow);                           /* CNN__FOR(cnn__dropout) */
} cnn__isa;

/* ---- Winograd's matrices for 4 x 4 outputs (Lavin, Gray 2016) ----
   Of a kernel u (r x r) and a window z ((r + 3) x (r + 3)), with . for products point by point:
       U = G u GT,   V = BT z B,   M = sum over c of U . V,   f = AT M A   (4 x 4 outputs)          T: transposed
   U depends on the kernel alone, V on the input alone: each is computed once and used often.

   A row of a kernel u and a row of a window z are polynomials. Their product is found from its values at the points
   0, 1, -1, 1/2, -2 and infinity (r = 3) or 0, 1, -1, 2, -2, 1/2, -1/2 and infinity (r = 5). Row i of G holds the
   powers of point i (over a constant), and so does column i of AT. These points lose the fewest digits: the error
   is 4 to 7 times that of the plain sum.                                                                           */
static const float cnn__AT6[4 * 6] = {
    1, 1,  1, 1,       1, 0,
    0, 1, -1, 0.5f,   -2, 0,
    0, 1,  1, 0.25f,   4, 0,
    0, 1, -1, 0.125f, -8, 1
};
static const float cnn__G6[6 * 3] = {
          1,            0,          0,
     1 / 3.0f,     1 / 3.0f,   1 / 3.0f,
    -1 / 3.0f,     1 / 3.0f,  -1 / 3.0f,
    -16 / 15.0f,  -8 / 15.0f, -4 / 15.0f,
     1 / 15.0f,   -2 / 15.0f,  4 / 15.0f,
          0,            0,          1
};
static const float cnn__BT6[6 * 6] = {
    1, -1.5f, -2,     1.5f, 1,    0,
    0, -1,     0.5f,  2.5f, 1,    0,
    0,  1,    -2.5f,  0.5f, 1,    0,
    0, -2,    -1,     2,    1,    0,
    0,  0.5f, -1,    -0.5f, 1,    0,
    0,  1,    -1.5f, -2,    1.5f, 1
};
static const float cnn__AT8[4 * 8] = {
    1, 1,  1, 1,  1, 1,       1,      0,
    0, 1, -1, 2, -2, 0.5f,   -0.5f,   0,
    0, 1,  1, 4,  4, 0.25f,   0.25f,  0,
    0, 1, -1, 8, -8, 0.125f, -0.125f, 1
};
static const float cnn__G8[8 * 5] = {
    -1,           0,           0,          0,          0,
    -2 / 9.0f,   -2 / 9.0f,   -2 / 9.0f,  -2 / 9.0f,  -2 / 9.0f,
    -2 / 9.0f,    2 / 9.0f,   -2 / 9.0f,   2 / 9.0f,  -2 / 9.0f,
     1 / 90.0f,   1 / 45.0f,   2 / 45.0f,  4 / 45.0f,  8 / 45.0f,
     1 / 90.0f,  -1 / 45.0f,   2 / 45.0f, -4 / 45.0f,  8 / 45.0f,
    32 / 45.0f,  16 / 45.0f,   8 / 45.0f,  4 / 45.0f,  2 / 45.0f,
    32 / 45.0f, -16 / 45.0f,   8 / 45.0f, -4 / 45.0f,  2 / 45.0f,
     0,           0,           0,          0,          1
};
static const float cnn__BT8[8 * 8] = {
    -1,  0,     5.25f,  0,    -5.25f,  0,    1, 0,
     0,  1,     1,     -4.25f, -4.25f, 1,    1, 0,
     0, -1,     1,      4.25f, -4.25f, -1,   1, 0,
     0,  0.5f,  0.25f, -2.5f, -1.25f,  2,    1, 0,
     0, -0.5f,  0.25f,  2.5f, -1.25f, -2,    1, 0,
     0,  2,     4,     -2.5f, -5,      0.5f, 1, 0,
     0, -2,     4,      2.5f, -5,     -0.5f, 1, 0,
     0, -1,     0,      5.25f, 0,     -5.25f, 0, 1
};

/* ---- macros of the vector functions; CNN__FOR(name) is the name with the instruction set's behind it ---- */

#define CNN__JOIN_(name, isa) name##_##isa
#define CNN__JOIN(name, isa) CNN__JOIN_(name, isa)
#define CNN__TEXT_(isa) #isa
#define CNN__TEXT(isa) CNN__TEXT_(isa)

#if defined(__GNUC__)
#define CNN__INLINE inline __attribute__((always_inline))
#else
#define CNN__INLINE
#endif
#if defined(__clang__)
#define CNN__UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define CNN__UNROLL _Pragma("GCC unroll 32")
#else
#define CNN__UNROLL
#endif

#define CNN__FOR(name) CNN__JOIN(name, CNN__ISA)
#define CNN__VECTOR CNN__FOR(cnn__vector)
#define CNN__LOAD(from) (*(const CNN__FOR(cnn__unaligned) *)(from))        /* the vector at any address */
#define CNN__AT(to) (*(CNN__FOR(cnn__unaligned) *)(to))                    /* the same, to be written */
#define CNN__WINS(b, a) (((b) > (a)) | ((b) != (b)))       /* b > a, which came earlier, or b is NaN: as in the card */

/* Where floats are calculated in a longer type (FLT_EVAL_METHOD: the i386's own, strict C on s390), GCC refuses a
   vector and a number in one expression. There, and without GCC's vectors, a float is a vector of one lane. */
#if defined(__GNUC__) && !(defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2))
#define CNN__VECTORISED
#define CNN__BITS(a) ((CNN__FOR(cnn__integers))(a))
#define CNN__SELECT(mask, a, b) ((CNN__VECTOR)((CNN__BITS(mask) & CNN__BITS(a)) | (~CNN__BITS(mask) & CNN__BITS(b))))
#define CNN__RELU(y) ((CNN__VECTOR)(CNN__BITS(y) & ~CNN__BITS((y) <= 0)))  /* NaN stays NaN, as in the card */
#if defined(__clang__) || __GNUC__ >= 12
#define CNN__SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define CNN__SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (CNN__FOR(cnn__integers)){ __VA_ARGS__ })
#endif
#else
#define CNN__SELECT(mask, a, b) ((mask) ? (a) : (b))
#define CNN__RELU(y) ((y) <= 0 ? 0 : (y))
#endif

#endif /* CNN_IMPLEMENTATION, first part */

#ifdef CNN__ISA

/* ---- the vector functions: the innermost loops. For each instruction set, further down, there are defined:
   CNN__ISA                  its name
   CNN__LANES                the lanes of a vector; 1 where the compiler has no vectors
   CNN__LOW, CNN__HIGH       the indices that interleave the lower halves of each block of 4 values of two vectors, and
                             the upper halves; CNN__LOW_BLOCKS, CNN__HIGH_BLOCKS: likewise the blocks of two vectors
   CNN__ROWS, CNN__VECTORS   rows and vectors of a product whose sums fit in the registers
   CNN__SUMS                 sums of add_windows that fit in the registers                                 ---- */

#ifdef CNN__VECTORISED
typedef float CNN__VECTOR __attribute__((vector_size(4 * CNN__LANES)));
typedef float CNN__FOR(cnn__unaligned) __attribute__((vector_size(4 * CNN__LANES), aligned(4), may_alias));
typedef int32_t CNN__FOR(cnn__integers) __attribute__((vector_size(4 * CNN__LANES)));
#else
typedef float CNN__VECTOR, CNN__FOR(cnn__unaligned);
#endif

/* Transposes LANES x LANES values, seen as blocks of 4 x 4: first whole blocks change places, then the values of each
   block. Each round interleaves the first half of the rows with the second. */
static CNN__INLINE void CNN__FOR(cnn__transpose)(CNN__VECTOR *r)
{
#ifdef CNN__VECTORISED
    CNN__VECTOR t[CNN__LANES];
    int i, n, round;
#if CNN__LANES > 4
    CNN__UNROLL for (round = CNN__LANES / 4; round > 1; round /= 2) {
        CNN__UNROLL for (i = 0; i < CNN__LANES / 2; i++) {
            n = i + i / 4 * 4;                             /* 0 to 3, 8 to 11 */
            t[n] = CNN__SHUFFLE(r[i], r[i + CNN__LANES / 2], CNN__LOW_BLOCKS);
            t[n + 4] = CNN__SHUFFLE(r[i], r[i + CNN__LANES / 2], CNN__HIGH_BLOCKS);
        }
        CNN__UNROLL for (i = 0; i < CNN__LANES; i++) r[i] = t[i];
    }
#endif
    CNN__UNROLL for (round = 4; round > 1; round /= 2) {
        CNN__UNROLL for (i = 0; i < CNN__LANES / 2; i++) {
            n = i + i / 2 * 2;                             /* 0, 1, 4, 5, ... */
            t[2 * i] = CNN__SHUFFLE(r[n], r[n + 2], CNN__LOW);
            t[2 * i + 1] = CNN__SHUFFLE(r[n], r[n + 2], CNN__HIGH);
        }
        CNN__UNROLL for (i = 0; i < CNN__LANES; i++) r[i] = t[i];
    }
#else
    (void)r;
#endif
}

/* cnn__product by outer products: each step loads a row of B and one value of each row of A, for most * vectors
   multiply-adds. `most` rows and `vectors` are constants wherever this is called, so that the sums are registers. */
static CNN__INLINE void CNN__FOR(cnn__multiply_of)(const cnn__product *p, int most, int vectors)
{
    CNN__VECTOR sum[CNN__ROWS * CNN__VECTORS], row[CNN__ROWS * CNN__VECTORS], zero = { 0 };
    float *c = p->c;
    ptrdiff_t c_stride = p->c_stride;
    int rows = p->rows, accumulate = p->accumulate, relu = p->relu, t, r, v;
    CNN__UNROLL for (r = 0; r < most; r++)
        CNN__UNROLL for (v = 0; v < vectors; v++) sum[r * vectors + v] = zero + p->init[r];
    for (t = 0; t < p->depth; t++) {
        CNN__UNROLL for (v = 0; v < vectors; v++) row[v] = CNN__LOAD(p->b + p->b_offsets[t] + v * p->b_stride);
        CNN__UNROLL for (r = 0; r < most; r++) {
            float value = p->a[r][t];
            CNN__UNROLL for (v = 0; v < vectors; v++) sum[r * vectors + v] += row[v] * value;
        }
    }
    CNN__UNROLL for (r = 0; r < most; r++)
        CNN__UNROLL for (v = 0; v < vectors; v++) {
            float *to = c + r * c_stride + v * CNN__LANES;
            CNN__VECTOR f = sum[r * vectors + v];
            if (r >= rows) break;
            if (accumulate) f += CNN__LOAD(to);
            CNN__AT(to) = relu ? CNN__RELU(f) : f;
        }
}

/* A single row, as in a depthwise convolution, may have any number of vectors: with few sums, each would wait for its
   own last one. */
static void CNN__FOR(cnn__multiply_row)(cnn__product p)
{
    int left = p.vectors, n;
    for (; left; left -= n, p.b += n * p.b_stride, p.c += n * CNN__LANES) {
        n = left >= 8 ? 8 : left >= 4 ? 4 : left;
        if (n == 8) CNN__FOR(cnn__multiply_of)(&p, 1, 8);
        else if (n == 4) CNN__FOR(cnn__multiply_of)(&p, 1, 4);
        else if (n == 3) CNN__FOR(cnn__multiply_of)(&p, 1, 3);
        else if (n == 2) CNN__FOR(cnn__multiply_of)(&p, 1, 2);
        else CNN__FOR(cnn__multiply_of)(&p, 1, 1);
    }
}

static void CNN__FOR(cnn__multiply)(const cnn__product *p)
{
    if (p->rows == 1) CNN__FOR(cnn__multiply_row)(*p);
    else if (p->vectors == 1) CNN__FOR(cnn__multiply_of)(p, CNN__ROWS, 1);
    else if (p->vectors == 2) CNN__FOR(cnn__multiply_of)(p, CNN__ROWS, 2);
    else CNN__FOR(cnn__multiply_of)(p, CNN__ROWS, CNN__VECTORS);
}

/* C = init + A B^T, for rows of B that are as contiguous as those of A: the lanes lie along the depth, and are added up
   at the end. A column of C is a row of B; c(r, v) lies at c[v c_stride + r]. */
static CNN__INLINE void CNN__FOR(cnn__multiply_rows_of)(const cnn__product *p, int vectors)
{
    CNN__VECTOR sum[CNN__ROWS][CNN__VECTORS], row[CNN__VECTORS], zero = { 0 };
    int r, v, t, l;
    CNN__UNROLL for (r = 0; r < CNN__ROWS; r++)
        CNN__UNROLL for (v = 0; v < vectors; v++) sum[r][v] = zero;
    for (t = 0; t + CNN__LANES <= p->depth; t += CNN__LANES) {
        CNN__UNROLL for (v = 0; v < vectors; v++) row[v] = CNN__LOAD(p->b + v * p->b_stride + t);
        CNN__UNROLL for (r = 0; r < CNN__ROWS; r++) {
            CNN__VECTOR value = CNN__LOAD(p->a[r] + t);
            CNN__UNROLL for (v = 0; v < vectors; v++) sum[r][v] += row[v] * value;
        }
    }
    for (r = 0; r < p->rows; r++)
        for (v = 0; v < vectors; v++) {
            float total = p->init[r];
            for (l = 0; l < CNN__LANES; l++) total += ((const float *)&sum[r][v])[l];
            for (l = t; l < p->depth; l++) total += p->a[r][l] * p->b[v * p->b_stride + l];
            p->c[v * p->c_stride + r] = p->relu && total <= 0 ? 0 : total;
        }
}

static void CNN__FOR(cnn__multiply_rows)(const cnn__product *p)
{
    if (p->vectors == 1) CNN__FOR(cnn__multiply_rows_of)(p, 1);
    else if (p->vectors == 2) CNN__FOR(cnn__multiply_rows_of)(p, 2);
    else CNN__FOR(cnn__multiply_rows_of)(p, CNN__VECTORS);
}

/* cnn__window_sum for rows x vectors of its windows, from `x` on: one load for each multiply-add. Too few sums stall on
   latency: then there are two sets (ways = 2), one for the windows with even n and one for those with odd n. */
static CNN__INLINE void CNN__FOR(cnn__add_windows_of)(const cnn__window_sum *w, int rows, int vectors, ptrdiff_t ways,
                                                      float *to, const float *x)
{
    CNN__VECTOR sum[2][CNN__SUMS], zero = { 0 };
    ptrdiff_t to_stride = (ptrdiff_t)w->vectors * CNN__LANES, n, way;
    int r, v;
    CNN__UNROLL for (way = 0; way < ways; way++)
        CNN__UNROLL for (r = 0; r < rows * vectors; r++) sum[way][r] = zero;
    for (n = 0; n < w->count; n += ways)
        CNN__UNROLL for (way = 0; way < ways; way++) {
            const float *at;
            float value;
            if (n + way >= w->count) break;
            at = x + w->offsets[n + way];
            value = w->values[n + way];
            CNN__UNROLL for (r = 0; r < rows; r++, at += w->row_stride)
                CNN__UNROLL for (v = 0; v < vectors; v++)
                    sum[way][r * vectors + v] += CNN__LOAD(at + v * CNN__LANES) * value;
        }
    CNN__UNROLL for (r = 0; r < rows; r++, to += to_stride)
        CNN__UNROLL for (v = 0; v < vectors; v++) {
            if (ways == 2) sum[0][r * vectors + v] += sum[1][r * vectors + v];
            CNN__AT(to + v * CNN__LANES) += sum[0][r * vectors + v];
        }
}

/* The windows in parts, each as large as the registers allow. */
static void CNN__FOR(cnn__add_windows)(const cnn__window_sum *w)
{
    int row, rows, v;
    for (row = 0; row < w->rows; row += rows) {
        rows = w->rows - row >= 5 ? 5 : w->rows - row >= 3 ? 3 : 1;
        for (v = 0; v < w->vectors;) {
            float *to = w->to + ((ptrdiff_t)row * w->vectors + v) * CNN__LANES;
            const float *x = w->x + row * w->row_stride + v * CNN__LANES;
#define CNN__PART(high, wide)                                                                                      \
            if (rows == high && w->vectors - v >= wide && high * wide <= CNN__SUMS) {                              \
                CNN__FOR(cnn__add_windows_of)(w, high, wide, high * wide <= CNN__SUMS / 2 ? 2 : 1, to, x);         \
                v += wide;                                                                                         \
                continue;                                                                                          \
            }
            CNN__PART(5, 5) CNN__PART(5, 2) CNN__PART(5, 1)
            CNN__PART(3, 8) CNN__PART(3, 4) CNN__PART(3, 2) CNN__PART(3, 1)
            CNN__PART(1, 4) CNN__PART(1, 2) CNN__PART(1, 1)
#undef CNN__PART
        }
    }
}

/* Lists those of n values of df that are not 0, and the offsets of their windows: begin + corner, and if df was
   pooled, + the tap that won. Returns how many. */
static CNN__INLINE ptrdiff_t CNN__FOR(cnn__list_nonzeros_of)(float *values, int32_t *offsets, const float *df,
                                                             const int32_t *corners, const unsigned char *index,
                                                             const int32_t *taps, int32_t begin, ptrdiff_t n)
{
    ptrdiff_t count = 0, i;
    for (i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, df + i, sizeof bits);
        memcpy(values + count, &bits, sizeof bits);
        offsets[count] = (int32_t)((uint32_t)begin + (uint32_t)corners[i] + (index ? (uint32_t)taps[index[i]] : 0));
        count += bits << 1 != 0;                           /* no branch: it would be mispredicted half the time */
    }
    return count;
}

static ptrdiff_t CNN__FOR(cnn__list_nonzeros)(float *values, int32_t *offsets, const float *df, const int32_t *corners,
                                              const unsigned char *index, const int32_t *taps, int32_t begin,
                                              ptrdiff_t n)
{
    if (index) return CNN__FOR(cnn__list_nonzeros_of)(values, offsets, df, corners, index, taps, begin, n);
    return CNN__FOR(cnn__list_nonzeros_of)(values, offsets, df, corners, NULL, taps, begin, n);
}

/* Pixel p of each image becomes one vector, image l in lane l; lanes after the last image repeat it. Pixel (j, i)
   goes to to[j row_stride + i pixel_stride]. */
static void CNN__FOR(cnn__to_lanes)(float *to, ptrdiff_t row_stride, ptrdiff_t pixel_stride, const float *from,
                                    ptrdiff_t image_stride, int images, int height, int width)
{
    ptrdiff_t count = (ptrdiff_t)height * width, first = 0, starts[CNN__LANES];
    CNN__VECTOR r[CNN__LANES];
    int l, p;
    for (l = 0; l < CNN__LANES; l++) starts[l] = image_stride * (l < images ? l : images - 1);
    while (first < count) {
        ptrdiff_t row, column;
        int pixels = CNN__LANES;                           /* at once */
        if (count < CNN__LANES) {
            pixels = (int)count;
            for (p = 0; p < pixels; p++)
                for (l = 0; l < CNN__LANES; l++) ((float *)&r[p])[l] = from[starts[l] + p];
        } else {
            if (first + CNN__LANES > count) first = count - CNN__LANES;    /* the last pixels overlap those before */
            CNN__UNROLL for (l = 0; l < CNN__LANES; l++) r[l] = CNN__LOAD(from + starts[l] + first);
            CNN__FOR(cnn__transpose)(r);
        }
        row = first / width; column = first % width;
        if (column + CNN__LANES <= width) {                /* in one row: r stays in registers */
            CNN__UNROLL for (p = 0; p < CNN__LANES; p++)
                CNN__AT(to + row * row_stride + (column + p) * pixel_stride) = r[p];
        } else
            for (p = 0; p < pixels; p++) {
                CNN__AT(to + row * row_stride + column * pixel_stride) = r[p];
                if (++column == width) { column = 0; row++; }
            }
        first += pixels;
    }
}

/* The same of parts of a map, whose rows are row_stride apart: part l begins at starts[l]. to: (height, width). Up to
   LANES - 1 floats behind a row are read, too. */
static void CNN__FOR(cnn__parts_to_lanes)(float *to, const float *from, ptrdiff_t row_stride, const ptrdiff_t *starts,
                                          int height, int width)
{
    CNN__VECTOR r[CNN__LANES];
    int j, i, l, p;
    for (j = 0; j < height; j++, from += row_stride)
        for (i = 0; i < width; i += CNN__LANES) {
            for (l = 0; l < CNN__LANES; l++) r[l] = CNN__LOAD(from + starts[l] + i);
            CNN__FOR(cnn__transpose)(r);
            for (p = 0; p < CNN__LANES && i + p < width; p++, to += CNN__LANES) CNN__AT(to) = r[p];
        }
}

/* The way back, to floats or to bytes (the other is NULL). from: (rows, columns), of which part l has no more than
   `high` and `wide`. */
static void CNN__FOR(cnn__from_lanes)(float *floats, unsigned char *bytes, ptrdiff_t row_stride,
                                      const cnn__part_at *parts, int count, const float *from, ptrdiff_t pixel_stride,
                                      int rows, int columns)
{
    CNN__VECTOR r[CNN__LANES];
    int j, i, l, p, high = rows, wide = columns;           /* that all parts have */
    for (l = 0; l < count; l++) high = cnn__smaller(high, parts[l].high), wide = cnn__smaller(wide, parts[l].wide);
    for (j = 0; j < rows; j++, from += columns * pixel_stride)
        for (i = 0; i < columns; i += CNN__LANES) {
            if (i + CNN__LANES > columns && columns > CNN__LANES) i = columns - CNN__LANES;        /* overlap */
            CNN__UNROLL for (p = 0; p < CNN__LANES; p++)
                r[p] = CNN__LOAD(from + cnn__smaller(i + p, columns - 1) * pixel_stride);
            CNN__FOR(cnn__transpose)(r);
            if (floats && j < high && i + CNN__LANES <= wide) {            /* r stays in registers */
                CNN__UNROLL for (l = 0; l < CNN__LANES; l++)
                    if (l < count) CNN__AT(floats + parts[l].start + j * row_stride + i) = r[l];
                continue;
            }
            for (l = 0; l < count; l++) {
                ptrdiff_t to = parts[l].start + j * row_stride + i;
                const float *part = (const float *)&r[l];
                int width = j < parts[l].high ? cnn__smaller(CNN__LANES, parts[l].wide - i) : 0;
                if (!floats) for (p = 0; p < width; p++) bytes[to + p] = (unsigned char)part[p];
                else if (width == CNN__LANES) CNN__AT(floats + to) = r[l];
                else for (p = 0; p < width; p++) floats[to + p] = part[p];
            }
        }
}

/* The card of max pooling for a block. index (NULL: not wanted) is the winner's number in its window. */
static void CNN__FOR(cnn__max_pool)(const cnn_pool2d_shape *s, float *y, float *index, const float *z)
{
    ptrdiff_t map_stride = (ptrdiff_t)s->in_height * s->in_width * CNN__LANES;
    int c, j, i, row, column;
    for (c = 0; c < s->channels; c++, z += map_stride)
        for (j = 0; j < s->out_height; j++)
            for (i = 0; i < s->out_width; i++, y += CNN__LANES) {
                cnn__window w = cnn__pool2d_window(s, j, i);
                int top = j * s->stride_height - s->pad_height, left = i * s->stride_width - s->pad_width;
                int first = (w.top - top) * s->kernel_width + w.left - left;
                CNN__VECTOR zero = { 0 };
                CNN__VECTOR best = CNN__LOAD(z + ((ptrdiff_t)w.top * s->in_width + w.left) * CNN__LANES);
                CNN__VECTOR winner = zero + (float)first;
                for (row = w.top; row < w.bottom; row++)
                    for (column = w.left; column < w.right; column++) {
                        CNN__VECTOR next = CNN__LOAD(z + ((ptrdiff_t)row * s->in_width + column) * CNN__LANES);
                        CNN__VECTOR number = zero + (float)((row - top) * s->kernel_width + column - left);
                        winner = CNN__SELECT(CNN__WINS(next, best), number, winner);
                        best = CNN__SELECT(CNN__WINS(next, best), next, best);
                    }
                CNN__AT(y) = best;
                if (index) { CNN__AT(index) = winner; index += CNN__LANES; }
            }
}

/* The way back: each dy is added to d at its window's winner. */
static void CNN__FOR(cnn__max_unpool)(const cnn_pool2d_shape *s, float *d, ptrdiff_t map_stride, ptrdiff_t row_stride,
                                      ptrdiff_t pixel_stride, const float *dy, const float *index)
{
    int c, j, i, row, column;
    for (c = 0; c < s->channels; c++, d += map_stride)
        for (j = 0; j < s->out_height; j++)
            for (i = 0; i < s->out_width; i++, dy += CNN__LANES, index += CNN__LANES) {
                cnn__window w = cnn__pool2d_window(s, j, i);
                int top = j * s->stride_height - s->pad_height, left = i * s->stride_width - s->pad_width;
                CNN__VECTOR gradient = CNN__LOAD(dy), winner = CNN__LOAD(index), zero = { 0 };
                for (row = w.top; row < w.bottom; row++)
                    for (column = w.left; column < w.right; column++) {
                        float number = (float)((row - top) * s->kernel_width + column - left);
                        CNN__AT(d + row * row_stride + column * pixel_stride)
                            += CNN__SELECT(winner == zero + number, gradient, zero);
                    }
            }
}

/* ---- Winograd's transforms of a block ---- */

/* out = matrix in, in one dimension. The matrix is known when this is compiled: each row becomes a few
   multiplications and additions. */
static CNN__INLINE void CNN__FOR(cnn__transform_row)(const float *matrix, int rows, int columns, CNN__VECTOR *out,
                                                     const CNN__VECTOR *in)
{
    int j, i;
    CNN__UNROLL for (j = 0; j < rows; j++) {
        int begun = 0;
        CNN__UNROLL for (i = 0; i < columns; i++)
            if (matrix[j * columns + i] != 0) {
                out[j] = begun ? out[j] + in[i] * matrix[j * columns + i] : in[i] * matrix[j * columns + i];
                begun = 1;
            }
    }
}

/* to = T from TT, in two dimensions, T being the matrix: columns x columns values become rows x rows. */
static CNN__INLINE void CNN__FOR(cnn__transform)(const float *matrix, int rows, int columns, float *to,
                                                 ptrdiff_t to_stride, const float *from, ptrdiff_t row_stride,
                                                 ptrdiff_t stride)
{
    CNN__VECTOR half[8][8], in[8], out[8];
    int j, i;
    for (i = 0; i < columns; i++) {
        CNN__UNROLL for (j = 0; j < columns; j++) in[j] = CNN__LOAD(from + j * row_stride + i * stride);
        CNN__FOR(cnn__transform_row)(matrix, rows, columns, out, in);
        CNN__UNROLL for (j = 0; j < rows; j++) half[j][i] = out[j];
    }
    for (j = 0; j < rows; j++) {
        CNN__FOR(cnn__transform_row)(matrix, rows, columns, out, half[j]);
        CNN__UNROLL for (i = 0; i < rows; i++) CNN__AT(to + (j * rows + i) * to_stride) = out[i];
    }
}

/* U = G u GT of each kernel of a group, LANES of its channels at a time. u: (point, out_channels, in_channels) */
static void CNN__FOR(cnn__winograd_u)(const cnn__conv *conv, float *u, const float *weight)
{
    int r = conv->points - 3, k, c;
    ptrdiff_t row_stride = cnn__u_row_stride(conv, CNN__LANES), point_stride = cnn__u_point_stride(conv, CNN__LANES);
    float taps[25 * CNN__LANES];
    for (k = 0; k < conv->out_channels; k++, u += row_stride)
        for (c = 0; c < conv->in_channels; c += CNN__LANES) {
            int channels = cnn__smaller(CNN__LANES, conv->in_channels - c);
            CNN__FOR(cnn__to_lanes)(taps, 0, CNN__LANES, weight, r * r, channels, 1, r * r);
            if (r == 3) CNN__FOR(cnn__transform)(cnn__G6, 6, 3, u + c, point_stride, taps, 3 * CNN__LANES, CNN__LANES);
            else CNN__FOR(cnn__transform)(cnn__G8, 8, 5, u + c, point_stride, taps, 5 * CNN__LANES, CNN__LANES);
            weight += r * r * channels;
        }
}

/* V = BT z B of the windows of `count` tiles, from tile `first` on, of each channel. v: (point, channel, tile) */
static void CNN__FOR(cnn__winograd_v)(const cnn__conv *conv, float *v, const float *in, int channels, int first,
                                      int count)
{
    ptrdiff_t row_stride = (ptrdiff_t)conv->width * CNN__LANES, map_stride = conv->height * row_stride;
    ptrdiff_t point_stride = cnn__point_stride(conv->in_channels, count, CNN__LANES);
    int across = cnn__tiles(conv->out_width), c, t;
    for (c = 0; c < channels; c++, in += map_stride)
        for (t = first; t < first + count; t++, v += CNN__LANES) {
            const float *z = in + t / across * 4 * row_stride + t % across * 4 * CNN__LANES;
            if (conv->points == 6) CNN__FOR(cnn__transform)(cnn__BT6, 6, 6, v, point_stride, z, row_stride, CNN__LANES);
            else CNN__FOR(cnn__transform)(cnn__BT8, 8, 8, v, point_stride, z, row_stride, CNN__LANES);
        }
}

/* f = [relu] (bias + AT M A): the 4 x 4 outputs of each tile, cut off at the edges of the map. m: (point, channel,
   tile) */
static void CNN__FOR(cnn__winograd_f)(const cnn__conv *conv, float *out, const float *m, const float *bias, int relu,
                                      int channels, int first, int count)
{
    int height = conv->out_height, width = conv->out_width, across = cnn__tiles(width), c, t, i, j;
    ptrdiff_t map_stride = (ptrdiff_t)height * width * CNN__LANES;
    ptrdiff_t point_stride = cnn__point_stride(channels, count, CNN__LANES);
    float tile[16 * CNN__LANES];
    for (c = 0; c < channels; c++, out += map_stride)
        for (t = first; t < first + count; t++, m += CNN__LANES) {
            int top = t / across * 4, left = t % across * 4;
            if (conv->points == 6)
                CNN__FOR(cnn__transform)(cnn__AT6, 4, 6, tile, CNN__LANES, m, 6 * point_stride, point_stride);
            else CNN__FOR(cnn__transform)(cnn__AT8, 4, 8, tile, CNN__LANES, m, 8 * point_stride, point_stride);
            for (j = 0; j < 4 && top + j < height; j++)
                for (i = 0; i < 4 && left + i < width; i++) {
                    CNN__VECTOR sum = CNN__LOAD(tile + (4 * j + i) * CNN__LANES) + (bias ? bias[c] : 0);
                    CNN__AT(out + ((ptrdiff_t)(top + j) * width + left + i) * CNN__LANES) = relu ? CNN__RELU(sum) : sum;
                }
        }
}

/* ---- value by value ---- */

/* The sum of x - x0 */
static float CNN__FOR(cnn__total)(const float *x, float x0, ptrdiff_t n)
{
    CNN__VECTOR sum[4], zero = { 0 };
    float total = 0;
    ptrdiff_t i;
    int v, l;
    for (v = 0; v < 4; v++) sum[v] = zero;
    for (i = 0; i + 4 * CNN__LANES <= n; i += 4 * CNN__LANES)
        CNN__UNROLL for (v = 0; v < 4; v++) sum[v] += CNN__LOAD(x + i + v * CNN__LANES) - x0;
    for (; i + CNN__LANES <= n; i += CNN__LANES) sum[0] += CNN__LOAD(x + i) - x0;
    sum[0] += sum[1] + (sum[2] + sum[3]);
    for (l = 0; l < CNN__LANES; l++) total += ((const float *)&sum[0])[l];
    for (; i < n; i++) total += x[i] - x0;
    return total;
}

/* The compiler vectorises the loops without CNN__LOAD itself. */

static void CNN__FOR(cnn__relu_forward)(float *y, const float *x, ptrdiff_t n)
{
    ptrdiff_t i;
    for (i = 0; i < n; i++) y[i] = x[i] <= 0 ? 0 : x[i];
}

static void CNN__FOR(cnn__relu_backward)(float *dx, const float *dy, const float *y, ptrdiff_t n)
{
    ptrdiff_t i;
    for (i = 0; i < n; i++) {
        float d = dy[i];                                   /* read in any case, so that no branch is needed */
        dx[i] = y[i] > 0 ? d : 0;
    }
}

/* Leaky ReLU, and PReLU, whose slope is learned */
static void CNN__FOR(cnn__leaky_forward)(float *y, const float *x, float slope, ptrdiff_t n)
{
    ptrdiff_t i;
    for (i = 0; i < n; i++) y[i] = x[i] * (x[i] > 0 ? 1 : slope);
}

static void CNN__FOR(cnn__leaky_backward)(float *dx, const float *dy, const float *x, float slope, ptrdiff_t n)
{
    ptrdiff_t i;
    for (i = 0; i < n; i++) dx[i] = dy[i] * (x[i] > 0 ? 1 : slope);
}

static void CNN__FOR(cnn__sum_into)(float *to, const float *from, ptrdiff_t n)
{
    ptrdiff_t i;
    for (i = 0; i < n; i++) to[i] += from[i];
}

/* The sum of (a - a0) (b - b0) */
static float CNN__FOR(cnn__sum_products)(const float *a, float a0, const float *b, float b0, ptrdiff_t n)
{
    CNN__VECTOR sum[4], zero = { 0 };
    float total = 0;
    ptrdiff_t i;
    int v, l;
    for (v = 0; v < 4; v++) sum[v] = zero;
    for (i = 0; i + 4 * CNN__LANES <= n; i += 4 * CNN__LANES)
        CNN__UNROLL for (v = 0; v < 4; v++)
            sum[v] += (CNN__LOAD(a + i + v * CNN__LANES) - a0) * (CNN__LOAD(b + i + v * CNN__LANES) - b0);
    for (; i + CNN__LANES <= n; i += CNN__LANES) sum[0] += (CNN__LOAD(a + i) - a0) * (CNN__LOAD(b + i) - b0);
    sum[0] += sum[1] + (sum[2] + sum[3]);
    for (l = 0; l < CNN__LANES; l++) total += ((const float *)&sum[0])[l];
    for (; i < n; i++) total += (a[i] - a0) * (b[i] - b0);
    return total;
}

static void CNN__FOR(cnn__normalize)(float *y, const float *x, float mean, float scale, float shift, ptrdiff_t n)
{
    ptrdiff_t i;
    for (i = 0; i < n; i++) y[i] = (x[i] - mean) * scale + shift;
}

static void CNN__FOR(cnn__normalize_back)(float *dx, const float *df, const float *x, float mean, float scale,
                                          float shift, float slope, ptrdiff_t n)
{
    ptrdiff_t i;
    for (i = 0; i < n; i++) dx[i] = scale * (df[i] - shift - (x[i] - mean) * slope);
}

static void CNN__FOR(cnn__scale_bytes)(float *to, const unsigned char *from, float scale, float shift, ptrdiff_t n)
{
    ptrdiff_t i;
    for (i = 0; i < n; i++) to[i] = scale * (float)from[i] + shift;
}

/* Square roots of numbers >= 0. No compiler vectorises sqrtf(), because it may set errno. The bits of x give a first
   guess of 1 / sqrt x (its exponent is half of x's, negated), and Newton's steps improve it. */
static CNN__INLINE CNN__VECTOR CNN__FOR(cnn__sqrt)(CNN__VECTOR x)
{
#ifdef CNN__VECTORISED
    CNN__VECTOR r = (CNN__VECTOR)(0x5f375a86 - (CNN__BITS(x) >> 1)), root;
    int n;
    CNN__UNROLL for (n = 0; n < 3; n++) r = r * (1.5f - 0.5f * x * r * r);
    root = x * r;
    root += 0.5f * r * (x - root * root);
    return CNN__SELECT(x <= 3e38f, root, x);               /* infinity and NaN are their own roots */
#else
    return sqrtf(x);
#endif
}

static CNN__INLINE void CNN__FOR(cnn__adam_vector)(const cnn__adam_factors *f, const cnn_adam_options *o, float *w,
                                                   float *m, float *v, const float *g)
{
    CNN__VECTOR weight = CNN__LOAD(w), d = CNN__LOAD(g) + f->decay * weight;
    CNN__VECTOR mean = o->beta1 * CNN__LOAD(m) + (1 - o->beta1) * d;
    CNN__VECTOR square = o->beta2 * CNN__LOAD(v) + (1 - o->beta2) * d * d;
    CNN__AT(m) = mean;
    CNN__AT(v) = square;
    CNN__AT(w) = weight * f->shrink - f->lr * mean / (CNN__FOR(cnn__sqrt)(square) * f->root + o->eps);
}

/* The card of Adam. What does not fill a vector is copied to one. */
static void CNN__FOR(cnn__adam)(const cnn__adam_factors *f, const cnn_adam_options *o, float *w, float *m, float *v,
                                const float *g, ptrdiff_t n)
{
    cnn__adam_factors factors = *f;
    cnn_adam_options options = *o;
    float rest[4][CNN__LANES] = { { 0 } };
    ptrdiff_t i, left = n % CNN__LANES;
    size_t bytes = (size_t)left * sizeof *w;
    for (i = 0; i < n - left; i += CNN__LANES)
        CNN__FOR(cnn__adam_vector)(&factors, &options, w + i, m + i, v + i, g + i);
    memcpy(rest[0], w + i, bytes); memcpy(rest[1], m + i, bytes);
    memcpy(rest[2], v + i, bytes); memcpy(rest[3], g + i, bytes);
    CNN__FOR(cnn__adam_vector)(&factors, &options, rest[0], rest[1], rest[2], rest[3]);
    memcpy(w + i, rest[0], bytes); memcpy(m + i, rest[1], bytes); memcpy(v + i, rest[2], bytes);
}

/* y = grow x where a random word is at least `limit`, else 0. Value i takes word i % 4 of cnn_random's index + i / 4.
   So many words stand side by side that no multiplication waits for another. */
static void CNN__FOR(cnn__dropout)(float *y, const float *x, ptrdiff_t n, uint64_t seed, uint32_t stream, uint64_t step,
                                   uint32_t index, uint32_t limit, float grow)
{
    enum { side_by_side = 4 * CNN__LANES };
    uint32_t c0[side_by_side], c1[side_by_side], c2[side_by_side], c3[side_by_side], words[4 * side_by_side];
    ptrdiff_t at, i, left;
    int l, round;
    for (at = 0; at < n; at += left, index += side_by_side) {
        uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
        left = n - at < 4 * side_by_side ? n - at : 4 * side_by_side;
        for (l = 0; l < side_by_side; l++) {
            c0[l] = index + (uint32_t)l;
            c1[l] = stream;
            c2[l] = (uint32_t)step;
            c3[l] = (uint32_t)(step >> 32);
        }
        for (round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
            for (l = 0; l < side_by_side; l++) {           /* the halves of a product apart: each fits a lane */
                uint32_t high0 = (uint32_t)((uint64_t)0xD2511F53u * c0[l] >> 32), low0 = 0xD2511F53u * c0[l];
                uint32_t high2 = (uint32_t)((uint64_t)0xCD9E8D57u * c2[l] >> 32), low2 = 0xCD9E8D57u * c2[l];
                c0[l] = high2 ^ c1[l] ^ k0;
                c1[l] = low2;
                c2[l] = high0 ^ c3[l] ^ k1;
                c3[l] = low0;
            }
        for (l = 0; l < side_by_side; l++) {
            words[4 * l] = c0[l]; words[4 * l + 1] = c1[l]; words[4 * l + 2] = c2[l]; words[4 * l + 3] = c3[l];
        }
        for (i = 0; i < left; i++) y[at + i] = words[i] >> 8 >= limit ? x[at + i] * grow : 0;
    }
}

/* The card of pooling for the maps of an image. It is separable: the rows of a window are joined for the whole width of
   a map, then its columns. A window as wide as its map, as in global pooling, is one run of values. Maps wider than
   POOL_WIDTH, before or after, are left to the card. */
static void CNN__FOR(cnn__pool_image)(const cnn_pool2d_shape *s, float *y, const float *x)
{
    float line[CNN__POOL_WIDTH];
    cnn__side rows, columns[CNN__POOL_WIDTH];
    int all = s->average && s->out_width == 1 && cnn__pool2d_columns(s, 0).end == s->in_width;
    int width = s->in_width, c, j, i, n;
    if (!all && (width > CNN__POOL_WIDTH || s->out_width > CNN__POOL_WIDTH)) {
        cnn__pool2d_forward(s, y, NULL, x);
        return;
    }
    for (i = 0; i < s->out_width; i++) columns[i] = cnn__pool2d_columns(s, i);
    for (c = 0; c < s->channels; c++, x += (ptrdiff_t)s->in_height * width)
        for (j = 0; j < s->out_height; j++) {
            const float *top;
            rows = cnn__pool2d_rows(s, j);
            top = x + (ptrdiff_t)rows.begin * width;
            if (all) {
                float sum = CNN__FOR(cnn__total)(top, 0, (ptrdiff_t)(rows.end - rows.begin) * width);
                *y++ = sum / (float)(rows.count * columns[0].count);
                continue;
            }
            memcpy(line, top, sizeof *line * (size_t)width);
            for (n = rows.begin + 1; n < rows.end; n++) {
                const float *row = x + (ptrdiff_t)n * width;
                if (s->average) for (i = 0; i < width; i++) line[i] += row[i];
                else for (i = 0; i < width; i++) line[i] = CNN__WINS(row[i], line[i]) ? row[i] : line[i];
            }
            for (i = 0; i < s->out_width; i++) {
                float value = line[columns[i].begin];
                for (n = columns[i].begin + 1; n < columns[i].end; n++)
                    if (s->average) value += line[n];
                    else if (CNN__WINS(line[n], value)) value = line[n];
                *y++ = s->average ? value / (float)(rows.count * columns[i].count) : value;
            }
        }
}

/* The way back of an average: what the windows of a row give to each column is added to all their rows. */
static void CNN__FOR(cnn__average_back)(const cnn_pool2d_shape *s, float *dx, const float *dy)
{
    float line[CNN__POOL_WIDTH];
    cnn__side rows, columns[CNN__POOL_WIDTH];
    ptrdiff_t map = (ptrdiff_t)s->in_height * s->in_width, at;
    int width = s->in_width, c, j, i, n;
    if (width > CNN__POOL_WIDTH || s->out_width > CNN__POOL_WIDTH) {
        cnn__pool2d_backward(s, dx, dy, NULL, NULL);
        return;
    }
    for (i = 0; i < s->out_width; i++) columns[i] = cnn__pool2d_columns(s, i);
    for (c = 0; c < s->channels; c++, dx += map) {
        for (at = 0; at < map; at++) dx[at] = 0;
        for (j = 0; j < s->out_height; j++) {
            rows = cnn__pool2d_rows(s, j);
            for (i = 0; i < width; i++) line[i] = 0;
            for (i = 0; i < s->out_width; i++) {
                float share = *dy++ / (float)(rows.count * columns[i].count);
                for (n = columns[i].begin; n < columns[i].end; n++) line[n] += share;
            }
            for (n = rows.begin; n < rows.end; n++) CNN__FOR(cnn__sum_into)(dx + (ptrdiff_t)n * width, line, width);
        }
    }
}

static const cnn__isa CNN__FOR(cnn__isa) = {
    CNN__TEXT(CNN__ISA), CNN__LANES, CNN__ROWS, CNN__VECTORS,
    CNN__FOR(cnn__multiply), CNN__FOR(cnn__multiply_rows), CNN__FOR(cnn__add_windows),
    CNN__FOR(cnn__list_nonzeros),
    CNN__FOR(cnn__to_lanes), CNN__FOR(cnn__parts_to_lanes), CNN__FOR(cnn__from_lanes),
    CNN__FOR(cnn__max_pool), CNN__FOR(cnn__max_unpool),
    CNN__FOR(cnn__pool_image), CNN__FOR(cnn__average_back),
    CNN__FOR(cnn__winograd_u), CNN__FOR(cnn__winograd_v), CNN__FOR(cnn__winograd_f),
    CNN__FOR(cnn__total), CNN__FOR(cnn__relu_forward), CNN__FOR(cnn__relu_backward), CNN__FOR(cnn__leaky_forward),
    CNN__FOR(cnn__leaky_backward), CNN__FOR(cnn__sum_into),
    CNN__FOR(cnn__sum_products), CNN__FOR(cnn__normalize), CNN__FOR(cnn__normalize_back),
    CNN__FOR(cnn__scale_bytes), CNN__FOR(cnn__adam), CNN__FOR(cnn__dropout)
};

#undef CNN__LOW
#undef CNN__HIGH
#undef CNN__LOW_BLOCKS
#undef CNN__HIGH_BLOCKS
#undef CNN__ISA
#undef CNN__LANES
#undef CNN__ROWS
#undef CNN__VECTORS
#undef CNN__SUMS
#elif defined(CNN_IMPLEMENTATION) && !defined(CNN__IMPLEMENTED)            /* second part */
#define CNN__IMPLEMENTED

/* ---- the instruction sets: cnn.h includes itself for each ---- */

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("O2", "tree-vectorize", "vect-cost-model=dynamic", "fp-contract=fast")
#pragma GCC optimize("no-math-errno", "no-trapping-math")
#endif

#ifdef __FILE_NAME__                        /* this file, whatever its name is */
#define CNN__SELF __FILE_NAME__
#elif defined(CNN_FILE_NAME)
#define CNN__SELF CNN_FILE_NAME
#else
#define CNN__SELF "cnn.h"
#endif

#ifdef CNN__VECTORISED
#define CNN__ISA baseline                   /* SSE2, NEON: what every machine of this kind has */
#define CNN__LANES 4
#define CNN__LOW 0, 4, 1, 5
#define CNN__HIGH 2, 6, 3, 7
#if defined(__aarch64__)                    /* 32 registers */
#define CNN__ROWS 8
#define CNN__VECTORS 3
#define CNN__SUMS 25
#else                                       /* 16 registers */
#define CNN__ROWS 4
#define CNN__VECTORS 2
#define CNN__SUMS 12
#endif
#else
#define CNN__ISA baseline
#define CNN__LANES 1
#define CNN__ROWS 4
#define CNN__VECTORS 2
#define CNN__SUMS 12
#endif
#include CNN__SELF

#if defined(__GNUC__) && defined(__x86_64__)
#define CNN__X86

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,tune=generic")    /* tuned for Zen 4, as by -march=native, products are a tenth slower */
#endif
#define CNN__ISA avx2                       /* 16 registers */
#define CNN__LANES 8
#define CNN__LOW 0, 8, 1, 9, 4, 12, 5, 13
#define CNN__HIGH 2, 10, 3, 11, 6, 14, 7, 15
#define CNN__LOW_BLOCKS 0, 1, 2, 3, 8, 9, 10, 11
#define CNN__HIGH_BLOCKS 4, 5, 6, 7, 12, 13, 14, 15
#define CNN__ROWS 4
#define CNN__VECTORS 3
#define CNN__SUMS 12
#include CNN__SELF
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512,tune=generic")
#endif
#define CNN__ISA avx512                     /* 32 registers */
#define CNN__LANES 16
#define CNN__LOW 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define CNN__HIGH 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define CNN__LOW_BLOCKS 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23
#define CNN__HIGH_BLOCKS 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31
#define CNN__ROWS 8
#define CNN__VECTORS 3
#define CNN__SUMS 25
#include CNN__SELF
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

#if defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__)
#pragma GCC push_options
#pragma GCC optimize("O1")                  /* nothing below is an innermost loop: half a second less to compile */
#endif

/* The best one that this machine has; CNN_ISA=baseline, avx2 or avx512 in the environment asks for a lesser one. */
static const cnn__isa *cnn__choose_isa(char *sentence, size_t room)
{
    const cnn__isa *list[3];
    const char *asked = getenv("CNN_ISA");
    int count = 0, i;
    list[count++] = &cnn__isa_baseline;
#ifdef CNN__X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list[count++] = &cnn__isa_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl"))
        list[count++] = &cnn__isa_avx512;
#endif
    if (!asked || !*asked) return list[count - 1];
    for (i = 0; i < count; i++) if (!strcmp(asked, list[i]->name)) return list[i];
    cnn__snprintf(sentence, room, "CNN_ISA=%.40s is not an instruction set of this machine; it has baseline%s%s%s%s",
                  asked, count > 1 ? ", " : "", count > 1 ? list[1]->name : "",
                  count > 2 ? ", " : "", count > 2 ? list[2]->name : "");
    return NULL;
}

/* For windows of so few floats that AVX2's vectors hold them: AVX2 in place of AVX-512. The baseline's are shorter, but
   do not multiply and add at once. */
static const cnn__isa *cnn__narrow_isa(const cnn__isa *isa, int floats)
{
#ifdef CNN__X86
    if (floats <= cnn__isa_avx2.lanes && isa->lanes > cnn__isa_avx2.lanes) return &cnn__isa_avx2;
#endif
    (void)floats;
    return isa;
}

/* Transformed weights that are kept from call to call, until the network says that they have changed */
typedef struct cnn__kept {
    const float *weight; uint64_t version;
    int points, out_channels, groups;                      /* what they were made for */
    float *u; ptrdiff_t size;
} cnn__kept;

/* The backend's context */
typedef struct cnn__simd_context {
    int threads; const cnn__isa *isa;
    cnn__kept *kept; int kept_count;
    struct cnn__chosen *chosen; int chosen_next;           /* how images were cut lately */
} cnn__simd_context;

static const cnn__isa *cnn__isa_of(void *context) { return ((const cnn__simd_context *)context)->isa; }
static int cnn__threads_of(void *context) { return ((const cnn__simd_context *)context)->threads; }

enum { CNN__OFFSET_FLOATS = sizeof(ptrdiff_t) / sizeof(float) };   /* an offset takes the memory of so many floats */

static void cnn__zero_floats(float *to, ptrdiff_t n) { memset(to, 0, sizeof *to * (size_t)n); }
static void cnn__copy_floats(float *to, const float *from, ptrdiff_t n) { memcpy(to, from, sizeof *to * (size_t)n); }
static ptrdiff_t cnn__align(ptrdiff_t floats) { return (floats + 15) / 16 * 16; }  /* whole cache lines of 64 bytes */

/* The card of activation. x and y may be the same; backward, x may be NULL for all but GELU. */
static void cnn__activate(const cnn__isa *isa, cnn_activation f, float slope, float *y, const float *x, ptrdiff_t n)
{
    if (f == CNN_RELU) isa->relu_forward(y, x, n);
    else if (f == CNN_LEAKY_RELU) isa->leaky_forward(y, x, slope, n);
    else cnn__activation_forward(f, slope, y, x, (size_t)n);
}

static void cnn__activate_back(const cnn__isa *isa, cnn_activation f, float slope, float *dx, const float *dy,
                               const float *y, const float *x, ptrdiff_t n)
{
    if (!f) cnn__copy_floats(dx, dy, n);
    else if (f == CNN_RELU) isa->relu_backward(dx, dy, y, n);
    else if (f == CNN_LEAKY_RELU) isa->leaky_backward(dx, dy, y, slope, n);
    else cnn__activation_backward(f, slope, dx, dy, y, x, (size_t)n);
}

/* The next rows of A in a product: of a matrix, from row `first` on, up to its end or as many as fit. */
static void cnn__take_rows(cnn__product *p, const cnn__isa *isa, const float *matrix, ptrdiff_t stride,
                           const float *bias, int first, int end)
{
    int r;
    p->rows = cnn__smaller(isa->rows, end - first);
    matrix += stride * first;
    for (r = 0; r < isa->rows; r++) {
        p->a[r] = matrix;
        p->init[r] = bias ? bias[first] : 0;
        if (r + 1 < p->rows) matrix += stride, first++;
    }
}

/* `count` values of each image of a block, from the lanes: to floats or to bytes */
static void cnn__images_from_lanes(const cnn__isa *isa, float *floats, unsigned char *bytes, ptrdiff_t image_stride,
                                   int images, const float *from, ptrdiff_t pixel_stride, ptrdiff_t count)
{
    cnn__part_at places[CNN__MOST_LANES];
    int l;
    for (l = 0; l < images; l++) places[l].start = l * image_stride, places[l].high = 1, places[l].wide = (int)count;
    isa->from_lanes(floats, bytes, 0, places, images, from, pixel_stride, 1, (int)count);
}

/* ---- convolution: what is computed how ---- */

static ptrdiff_t cnn__taps(const cnn__conv *conv)
{
    return (ptrdiff_t)conv->in_channels * conv->kernel_height * conv->kernel_width;
}

static ptrdiff_t cnn__in_group(const cnn__conv *conv)      /* values of a group of the padded input's channels */
{
    return (ptrdiff_t)conv->in_channels * conv->height * conv->width;
}

static ptrdiff_t cnn__out_map(const cnn__conv *conv) { return (ptrdiff_t)conv->out_height * conv->out_width; }

/* WHERE THE FAST CONVOLUTION IS CHOSEN. Returns Winograd's points a side, or 0: then cnn__convolve_direct is taken.
   For 4 x 4 outputs of an r x r kernel, Winograd multiplies (r + 3)^2 times in place of 16 r^2: 36 in place of 144 for
   3 x 3, 64 in place of 400 for 5 x 5. Why it is not always taken:
     - There are matrices for these two kernels only, without stride or dilation.
     - The transforms take time. A transformed input serves all output channels, a transformed output adds up all input
       channels: with fewer than 4 of either, the transforms do not pay.
     - Tiles are computed whole. On a small map the last tiles reach beyond it, and that work is lost. It is counted:
       Winograd is taken only with fewer than 2/3 of the direct multiplications.
     - A kernel's transform takes as long as some 40 multiplications. With one block of images that counts, too.
   The gradient of the weights is always summed up directly. Winograd's rounding is larger, and Adam, which divides by
   the gradient's size, would turn the rounding of a small gradient into whole steps. */
static int cnn__choose_convolution(const cnn__conv *conv, int blocks)
{
    int r = conv->kernel_height, points = r + 3;
    double winograd, direct;
    if (r != conv->kernel_width || (r != 3 && r != 5)) return 0;
    if (conv->stride_height != 1 || conv->stride_width != 1) return 0;
    if (conv->dilation_height != 1 || conv->dilation_width != 1) return 0;
    if (conv->in_channels < 4 || conv->out_channels < 4) return 0;
    winograd = (double)points * points * cnn__tiles(conv->out_height) * cnn__tiles(conv->out_width) + 40.0 / blocks;
    direct = (double)r * r * conv->out_height * conv->out_width;
    return 1.5 * winograd < direct ? points : 0;
}

enum {
    CNN__FEW_BLOCKS = 4,                    /* what a few images are cut into, at most; fewer always have shares */
    CNN__PIECES = 16,                       /* of a forward pass with shares, at least, where there are channels enough;
                                               backward: runs of blocks, each with its own sums of dweight, at most */
    CNN__CHOSEN = 32,                       /* shapes whose cut is remembered */
    CNN__L2_FLOATS = 1 << 15,               /* of what is read again soon, at most (a bundle's X, the columns that all
                                               kernels read): a quarter of a second-level cache of 512 KB */
    CNN__TILES = 6,                         /* at once, at most; with many channels CNN__V_BYTES allows for fewer */
    CNN__V_BYTES = 600 * 1024,              /* of V, at most: it is read for each output channel, and stays in a
                                               second-level cache of 1 MB, beside the kernels */
    CNN__M_CHANNELS = 16,                   /* output channels in M at once: few, so that M stays in the cache too */
    CNN__KEPT_FLOATS = 1 << 18,             /* of U, at most, to be kept for the next call: larger ones would come back
                                               from memory, which takes as long as computing them */
    CNN__SUMMED = 1 << 15,                  /* sums that a piece adds up, about */
    CNN__MIRRORED = 8,                      /* input channels of a piece: so many kernels lie side by side in memory */
    CNN__X_FLOATS = 4096,                   /* of X for dweight: half a first-level cache of 32 KB */
    CNN__SMALL_WINDOW = 128,                /* floats of a window, at most, for which a product with all df is no slower
                                               than one without the zeros, if half of them are 0 */
    CNN__POOL_TAPS = 256                    /* of a fused pool, at most: its index is a byte */
};

static int cnn__tiles_at_once(const cnn__conv *conv, int lanes)
{
    ptrdiff_t tile = (ptrdiff_t)sizeof(float) * conv->points * conv->points * conv->in_channels * lanes;
    int tiles = cnn__tiles(conv->out_height) * cnn__tiles(conv->out_width), most = CNN__TILES;
    while (most > 2 && most * tile > CNN__V_BYTES) most--;
    return cnn__divide_up(tiles, cnn__divide_up(tiles, most));             /* equal shares */
}

/* The arrays of one thread. X, D, Z, V and M are of one block, with an image in each lane.
       X  (c, height, width)           the padded input
       Z  (k, out_height, out_width)   f, or on the way back dx, perhaps with its padding
       D  (k, height, width)           df before pooling, with zeros around it and, with a stride, between its values
       V  (point, c, tile)             Winograd's transformed input
       M  (point, k, tile)             Winograd's products
   dweight is the sum of the windows of x, each times its df. Many df may be zero, in each image at other pixels, so it
   is summed up image by image, without the zeros, unless it is `dense`. For dweight, X is (image, group, height, width,
   c): the taps of a kernel row are contiguous, and fill vectors.                                                   */
typedef struct cnn__conv_arrays {
    float *x, *d, *z, *v, *m;
    const float *v_laid;                    /* V of all tiles of the block, where several pieces share it */
    float *padded;                          /* a map with its padding, to be cut into parts */
    float *u;                               /* U of a share, where its piece computes it; else NULL */
    float *pooled;                          /* forward: Z after pooling, index; backward: df, df in lanes, index */
    ptrdiff_t *offsets;                     /* of the rows of B in a product */
    float *values; int32_t *windows;        /* the df of a channel that are not 0, and the offsets of their windows */
    int32_t *corners, *taps;                /* offsets: of df's windows in an image; of the taps of a pool */
} cnn__conv_arrays;

/* How add_windows, or a dense product, goes over a window for dweight: once, with a kernel row in each row of the
   window; but with a dilation of the width once for each kernel row, with a tap in each row of the window. */
typedef struct cnn__weight_window {
    const cnn__isa *isa;                    /* cnn__narrow_isa's */
    int calls, rows, vectors;
    ptrdiff_t row_stride, call_stride;      /* in X */
    ptrdiff_t down, right, size;            /* of the sums: strides from tap to tap, and floats of a channel of df */
} cnn__weight_window;

typedef struct cnn__conv_plan {
    cnn__conv forward, backward;            /* from X to Z; from D to dx */
    int lanes, blocks, pieces;
    int shares;                             /* of the output channels: with few blocks a piece computes one */
    int df_top, df_left;                    /* where df(0, 0) lies in D */
    int top, left;                          /* where the backward convolution begins in D */
    int fold;                               /* dx is computed with its padding, which is then added to the inside */
    int phases;                             /* with a stride: dx is computed in phases, from a D without gaps */
    ptrdiff_t map, image;                   /* values of a map and of an image of y, which is after pooling */
    ptrdiff_t share_size;                   /* forward: values of a share of an image of y */
    int padded_height, padded_width;        /* of a whole image, where it is cut into parts */
    cnn__weight_window window;
    int dense;                              /* dweight is a product: nothing is pooled, and few df are 0 or the
                                               windows are small */
    int images;                             /* in X at once, for dweight */
    ptrdiff_t u_size, sums_size;            /* floats: of U; of a piece's sums of dweight and dbias */
    ptrdiff_t laid_size;                    /* forward, where pieces share them: of X, or with Winograd V, of a block */
    ptrdiff_t own_u_size;                   /* of U of a share, where its piece computes it */
    ptrdiff_t x_size, d_size, z_size, pooled_size, v_size, m_size, offsets_size, list_size, corners_size, padded_size;
    ptrdiff_t per_thread;                   /* of the arrays above, together */
} cnn__conv_plan;

static ptrdiff_t cnn__v_size(const cnn__conv *conv, int tiles, int lanes)
{
    return cnn__align((ptrdiff_t)conv->points * conv->points * cnn__point_stride(conv->in_channels, tiles, lanes));
}

static ptrdiff_t cnn__all_v_size(const cnn__conv *conv, int lanes)         /* of all tiles, at_once after at_once */
{
    int tiles = cnn__tiles(conv->out_height) * cnn__tiles(conv->out_width), at_once = cnn__tiles_at_once(conv, lanes);
    int rest = tiles % at_once;
    return tiles / at_once * cnn__v_size(conv, at_once, lanes) + (rest ? cnn__v_size(conv, rest, lanes) : 0);
}

static void cnn__plan_winograd(cnn__conv_plan *p, const cnn__conv *conv, int groups)
{
    ptrdiff_t values = (ptrdiff_t)conv->points * conv->points;
    if (!conv->points) return;
    p->u_size = cnn__align(groups * cnn__u_size(conv, p->lanes));
    p->v_size = cnn__v_size(conv, cnn__tiles_at_once(conv, p->lanes), p->lanes);
    p->m_size = cnn__align(values * cnn__point_stride(CNN__M_CHANNELS, cnn__tiles_at_once(conv, p->lanes), p->lanes));
}

/* Fewer blocks than these would leave threads without work: then a piece is a share of the channels. No bit depends on
   the shares. */
static int cnn__few(int threads) { return threads > CNN__FEW_BLOCKS ? threads : (int)CNN__FEW_BLOCKS; }

/* Equal shares of a convolution's output channels, each in whole products of any instruction set: at most `most` */
static int cnn__equal_shares(const cnn__conv *conv, int most)
{
    while (most > 1 && (conv->groups > 1 || conv->out_channels % (most * CNN__MOST_ROWS))) most--;
    return most;
}

static void cnn__plan_forward(cnn__conv_plan *p, const cnn_conv2d_shape *s, int threads)
{
    cnn__conv *conv = &p->forward;
    conv->points = cnn__choose_convolution(conv, p->blocks);
    if (p->blocks < cnn__few(threads))
        p->shares = cnn__equal_shares(conv, cnn__divide_up((int)cnn__larger(CNN__PIECES, threads), p->blocks));
    conv->out_channels /= p->shares;
    p->share_size = p->image / p->shares;
    if (conv->points) {                                    /* the last tiles reach beyond the padding */
        conv->height = 4 * cnn__tiles(s->out_height) + s->kernel_height - 1;
        conv->width = 4 * cnn__tiles(s->out_width) + s->kernel_width - 1;
    }
    p->x_size = cnn__align(s->groups * cnn__in_group(conv) * p->lanes);
    p->z_size = cnn__align(conv->groups * conv->out_channels * cnn__out_map(conv) * p->lanes);
    p->pooled_size = s->pool.kernel_height ? 2 * cnn__align(p->share_size * p->lanes) : 0;
    cnn__plan_winograd(p, conv, s->groups * p->shares);
}

/* With empty lanes or fewer blocks than threads the way back to dx is a forward convolution, which knows how to cut
   images and to share blocks. Returns 0 where it is none: with a stride there are zeros between the df, and other
   padding than zeros has to be folded. */
static int cnn__few_back(const cnn_conv2d_shape *s, const cnn__isa *isa, int threads, cnn_conv2d_shape *back)
{
    int enough = cnn__fills_lanes(s->batch, isa->lanes) && cnn__divide_up(s->batch, isa->lanes) >= threads;
    int rows = s->dilation_height * (s->kernel_height - 1), columns = s->dilation_width * (s->kernel_width - 1);
    if (enough || s->padding_mode != CNN_ZEROS || s->stride_height > 1
        || s->stride_width > 1 || s->pad_top > rows || s->pad_bottom > rows || s->pad_left > columns
        || s->pad_right > columns)
        return 0;
    *back = *s;
    back->in_channels = s->out_channels; back->in_height = s->out_height; back->in_width = s->out_width;
    back->out_channels = s->in_channels; back->out_height = s->in_height; back->out_width = s->in_width;
    back->pad_top = rows - s->pad_top; back->pad_left = columns - s->pad_left;
    back->pad_bottom = rows - s->pad_bottom; back->pad_right = columns - s->pad_right;
    back->activation = CNN_NO_ACTIVATION;
    back->weight_version = 0;
    memset(&back->pool, 0, sizeof back->pool);
    return 1;
}

/* The way back to dx: D convolved with the mirrored kernels. Around df there are as many zeros as a kernel reaches. */
static void cnn__plan_dx(cnn__conv_plan *p, const cnn_conv2d_shape *s)
{
    int rows = s->dilation_height * (s->kernel_height - 1), columns = s->dilation_width * (s->kernel_width - 1);
    int top, left;
    cnn__conv *conv = &p->backward;
    p->fold = s->padding_mode != CNN_ZEROS;
    top = p->fold ? 0 : s->pad_top;                        /* where dx(0, 0) lies in the padded dx */
    left = p->fold ? 0 : s->pad_left;
    p->phases = !p->fold && s->stride_height * s->stride_width > 1 && s->dilation_height * s->dilation_width == 1;
    p->df_top = p->phases ? cnn__divide_up(s->kernel_height, s->stride_height) - 1 : rows > top ? rows - top : 0;
    p->df_left = p->phases ? cnn__divide_up(s->kernel_width, s->stride_width) - 1 : columns > left ? columns - left : 0;
    p->top = p->df_top + top - rows;
    p->left = p->df_left + left - columns;
    *conv = p->forward;
    conv->in_channels = p->forward.out_channels; conv->out_channels = p->forward.in_channels;
    conv->stride_height = conv->stride_width = 1;
    conv->out_height = s->in_height + (p->fold ? s->pad_top + s->pad_bottom : 0);
    conv->out_width = s->in_width + (p->fold ? s->pad_left + s->pad_right : 0);
    conv->points = p->phases ? 0 : cnn__choose_convolution(conv, p->blocks);
    conv->height = p->top + rows + (conv->points ? 4 * cnn__tiles(conv->out_height) : conv->out_height);
    conv->width = p->left + columns + (conv->points ? 4 * cnn__tiles(conv->out_width) : conv->out_width);
    conv->height = (int)cnn__larger(conv->height, p->df_top + (s->out_height - 1) * s->stride_height + 1);
    conv->width = (int)cnn__larger(conv->width, p->df_left + (s->out_width - 1) * s->stride_width + 1);
    if (p->phases) {
        int below = (s->in_height - 1 + s->pad_top) / s->stride_height + 1;
        int beyond = (s->in_width - 1 + s->pad_left) / s->stride_width + 1;
        conv->height = p->df_top + (int)cnn__larger(s->out_height, below);
        conv->width = p->df_left + (int)cnn__larger(s->out_width, beyond);
    }
    p->d_size = cnn__align(s->groups * cnn__in_group(conv) * p->lanes);
    p->z_size = cnn__align(s->in_channels * cnn__out_map(conv) * p->lanes);
    p->pooled_size = 3 * cnn__align(p->image * p->lanes);
    cnn__plan_winograd(p, conv, s->groups);
}

static void cnn__plan_dweight(cnn__conv_plan *p, const cnn_conv2d_shape *s, const cnn__isa *isa)
{
    const cnn__conv *conv = &p->forward;
    cnn__weight_window *w = &p->window;
    ptrdiff_t image = s->groups * cnn__in_group(conv), row;
    int depth = conv->in_channels, dilated = conv->dilation_width > 1;
    int floats = depth * (dilated ? 1 : conv->kernel_width);
    w->isa = cnn__narrow_isa(isa, floats);
    w->calls = dilated ? conv->kernel_height : 1;
    w->rows = dilated ? conv->kernel_width : conv->kernel_height;
    w->vectors = cnn__divide_up(floats, w->isa->lanes);
    w->call_stride = (ptrdiff_t)conv->dilation_height * conv->width * depth;
    w->row_stride = dilated ? (ptrdiff_t)conv->dilation_width * depth : w->call_stride;
    row = (ptrdiff_t)w->vectors * w->isa->lanes;
    w->right = dilated ? row : (ptrdiff_t)depth;
    w->down = dilated ? conv->kernel_width * row : row;
    w->size = w->calls * w->rows * row;
    p->dense = !s->pool.kernel_height && p->forward.out_channels >= w->isa->rows
            && (s->activation != CNN_RELU || w->size <= CNN__SMALL_WINDOW);
    p->images = cnn__smaller(p->lanes, (int)cnn__larger(1, CNN__X_FLOATS / image));
    p->x_size = cnn__align(p->images * image + p->lanes);  /* the last vector may reach beyond */
    if (p->fold || p->phases)
        p->x_size = cnn__larger(p->x_size, (ptrdiff_t)s->in_channels * s->in_height * s->in_width * p->lanes);
    p->list_size = cnn__align(p->images * p->map);
    p->corners_size = cnn__align(p->map) + CNN__POOL_TAPS;
    p->sums_size = cnn__align(s->out_channels * (w->size + 1));
}

/* Groups are convolutions of their own, on other channels of the same images. A bundle of as many as fit into a cache
   is planned and computed as one convolution. Without groups: the whole. */
static cnn_conv2d_shape cnn__bundle_of(const cnn_conv2d_shape *s, const cnn__isa *isa)
{
    cnn_conv2d_shape bundle = *s;
    double group = (double)(s->in_channels / s->groups) * (s->in_height + s->pad_top + s->pad_bottom)
                 * (s->in_width + s->pad_left + s->pad_right) * cnn__smaller(s->batch, isa->lanes);
    int most = (int)fmax(1, fmin(s->groups, (double)CNN__L2_FLOATS / group));
    for (bundle.groups = most; s->groups % bundle.groups; bundle.groups--) { }
    bundle.in_channels = s->in_channels / s->groups * bundle.groups;
    bundle.out_channels = s->out_channels / s->groups * bundle.groups;
    bundle.pool.channels = bundle.out_channels;
    return bundle;
}

static cnn__conv_plan cnn__plan_conv(const cnn_conv2d_shape *s, const cnn__isa *isa, int threads, int backward)
{
    cnn__conv conv = {
        s->groups, s->in_channels / s->groups, s->out_channels / s->groups, s->kernel_height, s->kernel_width,
        s->stride_height, s->stride_width, s->dilation_height, s->dilation_width,
        s->in_height + s->pad_top + s->pad_bottom, s->in_width + s->pad_left + s->pad_right,
        s->out_height, s->out_width, 0
    };
    cnn__conv_plan p;
    cnn_conv2d_shape few;
    memset(&p, 0, sizeof p);
    p.forward = conv;
    p.lanes = isa->lanes;
    p.blocks = cnn__divide_up(s->batch, p.lanes);
    p.pieces = cnn__smaller(p.blocks, CNN__PIECES);
    p.shares = backward ? cnn__divide_up(cnn__few(threads), p.pieces) : 1;
    p.map = s->pool.kernel_height ? (ptrdiff_t)s->pool.out_height * s->pool.out_width : cnn__out_map(&conv);
    p.image = s->out_channels * p.map;
    if (!backward) cnn__plan_forward(&p, s, threads);
    else {
        if (!cnn__few_back(s, isa, threads, &few)) cnn__plan_dx(&p, s);
        else p.pooled_size = cnn__align(p.image * cnn__smaller(p.lanes, s->batch));        /* df, for dweight */
        cnn__plan_dweight(&p, s, isa);
    }
    p.offsets_size = cnn__larger(cnn__larger(cnn__taps(&conv), cnn__taps(&p.backward)), p.dense ? p.map : 0);
    p.offsets_size = cnn__align(p.offsets_size * CNN__OFFSET_FLOATS);
    p.per_thread = p.x_size + p.d_size + p.z_size + p.pooled_size + p.v_size + p.m_size + p.offsets_size
                 + 2 * p.list_size + p.corners_size;
    return p;
}

/* ---- convolution: forward and backward ---- */

typedef struct cnn__conv_job {
    const cnn__isa *isa;
    const cnn_conv2d_shape *s;                             /* of a bundle; forward in parts: of a part of it */
    cnn__conv_plan plan;
    int bundles;                                           /* of an image */
    ptrdiff_t x_image, y_image;                            /* from image to image: floats of x and dx; of y and dy */
    ptrdiff_t u_bundle;                                    /* from bundle to bundle: floats of u */
    float *out; unsigned char *out_index;                  /* forward: y and index */
    const float *bias;
    float *dx; const float *dy, *y; const unsigned char *index;            /* backward */
    int learns; float *dweight, *dbias, *sums;             /* dweight or dbias is wanted; their sums, run by run */
    const float *x, *weight, *u;                           /* backward: weight is mirrored; u: its transforms */
    float *scratch;
    const struct cnn__cut *cut;                            /* forward in parts; else NULL */
    const cnn_conv2d_shape *whole;                         /* forward: the bundle, not cut; backward: all groups */
    float *laid;                                           /* forward with few blocks: X or V of each */
    float *df, *df_pooled;                                 /* backward for few images: df before and after pooling */
} cnn__conv_job;

/* The job of a piece's bundle: the first bundle's, with all that lies in a bundle moved on. *piece becomes the number
   among the pieces of that bundle. */
static cnn__conv_job cnn__job_of(const void *arguments, int *piece)
{
    cnn__conv_job job = *(const cnn__conv_job *)arguments;
    const cnn__conv_plan *p = &job.plan;
    int bundle = *piece % job.bundles;
    ptrdiff_t x = bundle * (job.x_image / job.bundles), y = bundle * (job.y_image / job.bundles);
    ptrdiff_t channel = (ptrdiff_t)bundle * job.s->out_channels, weight = channel * cnn__taps(&p->forward);
    *piece /= job.bundles;
    if (!bundle) return job;
    job.x += x; job.weight += weight;
    if (job.u) job.u += bundle * job.u_bundle;
    if (job.out) job.out += y;                             /* forward */
    if (job.out_index) job.out_index += y;
    if (job.bias) job.bias += channel;
    if (job.laid) job.laid += bundle * p->blocks * p->laid_size;
    if (job.dx) job.dx += x;                               /* backward */
    if (job.dy) job.dy += y, job.y += y;
    if (job.index) job.index += y;
    if (job.dweight) job.dweight += weight;
    if (job.dbias) job.dbias += channel;
    if (job.sums) job.sums += bundle * p->pieces * p->sums_size;
    return job;
}

/* Into how many pieces adding up the sums of a bundle is cut */
static int cnn__sums_pieces(const cnn__conv_plan *p, int out_channels)
{
    return cnn__smaller(out_channels, (int)(p->sums_size * p->pieces / CNN__SUMMED) + 1);
}

/* Backward, the output channels of a share begin here. */
static int cnn__share_begin(const cnn__conv_plan *p, const cnn_conv2d_shape *s, int share)
{
    return cnn__begin_of(share, p->shares, s->out_channels);
}

static cnn__conv_arrays cnn__arrays_of(const cnn__conv_job *job, int thread)
{
    const cnn__conv_plan *p = &job->plan;
    cnn__conv_arrays a;
    a.x = job->scratch + p->per_thread * thread;
    a.d = a.x + p->x_size; a.z = a.d + p->d_size; a.pooled = a.z + p->z_size;
    a.v = a.pooled + p->pooled_size; a.m = a.v + p->v_size;
    a.offsets = (ptrdiff_t *)(void *)(a.m + p->m_size);
    a.values = a.m + p->m_size + p->offsets_size;
    a.windows = (int32_t *)(void *)(a.values + p->list_size);
    a.taps = a.windows + p->list_size; a.corners = a.taps + CNN__POOL_TAPS;
    a.padded = (float *)(void *)(a.taps + p->corners_size);
    a.u = p->own_u_size ? a.padded + p->padded_size : NULL;
    a.v_laid = NULL;
    return a;
}

/* The borders of a map of X, as the card's cnn__border says; zeros beyond them, which only the last tiles reach. A
   pixel is `size` floats. The inside of the map is there already. */
static void cnn__fill_borders(const cnn_conv2d_shape *s, const cnn__conv *conv, float *map, int size)
{
    ptrdiff_t row_stride = (ptrdiff_t)conv->width * size;
    const float *inside = map + s->pad_top * row_stride + (ptrdiff_t)s->pad_left * size;
    int j, i;
    for (j = 0; j < conv->height; j++, map += row_stride) {
        int below = j >= s->pad_top + s->in_height + s->pad_bottom;
        int row = below ? -1 : cnn__border(j - s->pad_top, s->in_height, s->padding_mode);
        if (row < 0) { cnn__zero_floats(map, row_stride); continue; }
        for (i = 0; i < conv->width; i++) {
            int beyond, column;
            if (i == s->pad_left && j == s->pad_top + row) i += s->in_width;
            if (i >= conv->width) break;
            beyond = i >= s->pad_left + s->in_width + s->pad_right;
            column = beyond ? -1 : cnn__border(i - s->pad_left, s->in_width, s->padding_mode);
            if (column < 0) cnn__zero_floats(map + (ptrdiff_t)i * size, size);
            else
                cnn__copy_floats(map + (ptrdiff_t)i * size, inside + row * row_stride + (ptrdiff_t)column * size, size);
        }
    }
}

/* Map c of X forward, for a block of images; to: where it begins */
static void cnn__pad_map(const cnn__conv_job *job, int first, int images, int c, float *to)
{
    const cnn_conv2d_shape *s = job->s;
    const cnn__conv *conv = &job->plan.forward;
    int lanes = job->plan.lanes;
    ptrdiff_t pixels = (ptrdiff_t)s->in_height * s->in_width, row_stride = (ptrdiff_t)conv->width * lanes;
    job->isa->to_lanes(to + s->pad_top * row_stride + (ptrdiff_t)s->pad_left * lanes, row_stride, lanes,
                       job->x + first * job->x_image + c * pixels, job->x_image, images, s->in_height, s->in_width);
    cnn__fill_borders(s, conv, to, lanes);
}

/* X for dweight: one image, its channels in the lanes. The last channels go first, because they write beyond the
   pixel. A single channel stays as it is. */
static void cnn__pad_channels(const cnn_conv2d_shape *s, const cnn__conv *conv, const cnn__isa *isa, float *to,
                              const float *x)
{
    int group, c, j, depth = conv->in_channels;
    ptrdiff_t pixels = (ptrdiff_t)s->in_height * s->in_width, row_stride = (ptrdiff_t)conv->width * depth;
    for (group = 0; group < conv->groups; group++, x += depth * pixels, to += conv->height * row_stride) {
        float *inside = to + s->pad_top * row_stride + (ptrdiff_t)s->pad_left * depth;
        if (depth == 1)
            for (j = 0; j < s->in_height; j++)
                cnn__copy_floats(inside + j * row_stride, x + (ptrdiff_t)j * s->in_width, s->in_width);
        else
            for (c = (depth - 1) / isa->lanes * isa->lanes; c >= 0; c -= isa->lanes)
                isa->to_lanes(inside + c, row_stride, depth, x + c * pixels, pixels,
                              cnn__smaller(isa->lanes, depth - c), s->in_height, s->in_width);
        cnn__fill_borders(s, conv, to, depth);
    }
}

/* The reverse: the gradient of a border value is added to that of the value which it is a copy of. to: (c, h, w) of
   a block */
static void cnn__fold_borders(const cnn_conv2d_shape *s, const cnn__conv_plan *p, const cnn__isa *isa, float *to,
                              const float *from)
{
    int c, j, i, lanes = p->lanes;
    ptrdiff_t map_stride = (ptrdiff_t)s->in_height * s->in_width * lanes;
    cnn__zero_floats(to, s->in_channels * map_stride);
    for (c = 0; c < s->in_channels; c++, to += map_stride)
        for (j = 0; j < p->backward.out_height; j++)
            for (i = 0; i < p->backward.out_width; i++, from += lanes) {
                int row = cnn__border(j - s->pad_top, s->in_height, s->padding_mode);
                int column = cnn__border(i - s->pad_left, s->in_width, s->padding_mode);
                isa->sum_into(to + ((ptrdiff_t)row * s->in_width + column) * lanes, from, lanes);
            }
}

/* The card's loops: a row of A is a kernel, a column of C an output pixel, and a row of B what a tap sees. */
static void cnn__convolve_direct(const cnn__isa *isa, const cnn__conv *conv, float *out, const float *in,
                                 const float *weight, const float *bias, int relu, ptrdiff_t *offsets)
{
    cnn__product p;
    int lanes = isa->lanes, c, y, x, k, j, i, first, wide;
    ptrdiff_t row_stride = (ptrdiff_t)conv->width * lanes;
    ptrdiff_t column = cnn__larger(1, (ptrdiff_t)conv->in_channels * conv->kernel_height * conv->stride_width) * lanes;
    int most = isa->vectors * (int)cnn__larger(4, CNN__L2_FLOATS / column / isa->vectors);     /* columns at once */
    p.depth = 0;
    for (c = 0; c < conv->in_channels; c++)
        for (y = 0; y < conv->kernel_height; y++)
            for (x = 0; x < conv->kernel_width; x++)
                offsets[p.depth++] = ((ptrdiff_t)c * conv->height + (ptrdiff_t)y * conv->dilation_height) * row_stride
                                   + (ptrdiff_t)x * conv->dilation_width * lanes;
    p.b_offsets = offsets;
    p.b_stride = (ptrdiff_t)conv->stride_width * lanes;
    p.c_stride = cnn__out_map(conv) * lanes;
    p.accumulate = 0;
    p.relu = relu;
    for (j = 0; j < conv->out_height; j++)
        for (first = 0; first < conv->out_width; first += wide) {
            wide = cnn__share(conv->out_width - first, most);
            for (k = 0; k < conv->out_channels; k += isa->rows) {
                cnn__take_rows(&p, isa, weight, p.depth, bias, k, conv->out_channels);
                for (i = first; i < first + wide; i += p.vectors) {
                    p.vectors = cnn__share(first + wide - i, p.rows > 1 ? isa->vectors : wide);
                    p.b = in + (ptrdiff_t)j * conv->stride_height * row_stride + i * p.b_stride;
                    p.c = out + k * p.c_stride + ((ptrdiff_t)j * conv->out_width + i) * lanes;
                    isa->multiply(&p);
                }
            }
        }
}

/* M = U V, a product of matrices for each point: a row of A is an output channel, a column of C a tile. */
static void cnn__multiply_points(const cnn__isa *isa, const cnn__conv *conv, const float *u, const float *v,
                                 int channels, int tiles, const cnn__conv_arrays *a)
{
    cnn__product p;
    int point, c, k, t;
    ptrdiff_t v_stride = cnn__point_stride(conv->in_channels, tiles, isa->lanes);
    ptrdiff_t m_stride = cnn__point_stride(channels, tiles, isa->lanes);
    p.depth = conv->in_channels;
    p.b_offsets = a->offsets;
    p.b_stride = isa->lanes;
    p.c_stride = (ptrdiff_t)tiles * isa->lanes;
    p.accumulate = p.relu = 0;
    for (c = 0; c < p.depth; c++) a->offsets[c] = c * p.c_stride;
    for (point = 0; point < conv->points * conv->points; point++, u += cnn__u_point_stride(conv, isa->lanes))
        for (k = 0; k < channels; k += isa->rows) {
            cnn__take_rows(&p, isa, u, cnn__u_row_stride(conv, isa->lanes), NULL, k, channels);
            for (t = 0; t < tiles; t += p.vectors) {
                p.vectors = cnn__share(tiles - t, isa->vectors);
                p.b = v + point * v_stride + t * p.b_stride;
                p.c = a->m + point * m_stride + k * p.c_stride + t * p.b_stride;
                isa->multiply(&p);
            }
        }
}

/* laid: V of all tiles, or NULL: it is computed here. Returns where the next group's is laid. */
static const float *cnn__convolve_winograd(const cnn__isa *isa, const cnn__conv *conv, float *out, const float *in,
                                           const float *u, const float *bias, int relu, const cnn__conv_arrays *a,
                                           const float *laid)
{
    int all = cnn__tiles(conv->out_height) * cnn__tiles(conv->out_width), first, tiles, k, channels;
    for (first = 0; first < all; first += tiles) {
        tiles = cnn__smaller(cnn__tiles_at_once(conv, isa->lanes), all - first);
        if (!laid) isa->winograd_v(conv, a->v, in, conv->in_channels, first, tiles);
        for (k = 0; k < conv->out_channels; k += channels) {
            channels = cnn__smaller(CNN__M_CHANNELS, conv->out_channels - k);
            cnn__multiply_points(isa, conv, u + k * cnn__u_row_stride(conv, isa->lanes), laid ? laid : a->v, channels,
                                 tiles, a);
            isa->winograd_f(conv, out + k * cnn__out_map(conv) * isa->lanes, a->m, bias ? bias + k : NULL, relu,
                            channels, first, tiles);
        }
        if (laid) laid += cnn__v_size(conv, tiles, isa->lanes);
    }
    return laid;
}

/* Group by group, in the way that was chosen. out: (groups * out_channels, out_height, out_width) of a block. share: of
   the output channels, as if there were as many groups before it */
static void cnn__convolve(const cnn__conv_job *job, const cnn__conv *conv, int share, float *out, const float *in,
                          const float *bias, int relu, const cnn__conv_arrays *a)
{
    const cnn__isa *isa = job->isa;
    const float *weight = job->weight + share * conv->out_channels * cnn__taps(conv);
    const float *u = a->u ? a->u : job->u + share * cnn__u_size(conv, isa->lanes), *laid = a->v_laid;
    int group;
    if (a->u) isa->winograd_u(conv, a->u, weight);
    if (bias) bias += share * conv->out_channels;
    for (group = 0; group < conv->groups; group++) {
        if (conv->points) laid = cnn__convolve_winograd(isa, conv, out, in, u, bias, relu, a, laid);
        else cnn__convolve_direct(isa, conv, out, in, weight, bias, relu, a->offsets);
        out += conv->out_channels * cnn__out_map(conv) * isa->lanes;
        in += cnn__in_group(conv) * isa->lanes;
        weight += conv->out_channels * cnn__taps(conv);
        u += cnn__u_size(conv, isa->lanes);
        if (bias) bias += conv->out_channels;
    }
}

/* ---- a few images: each is cut into parts, and a part lies in each lane ----

       0  1  2  3         A part has its own outputs, and all inputs that these see: neighbours share
       4  5  6  7         inputs as far as a kernel reaches. So it is an image of a convolution
       8  9 10 11         without padding, which all that is above computes. X is laid out once, and
      12 13 14 15         the results go back to their places in the maps.

   One image fills 16 lanes, e.g. with 4 x 4 parts. */

typedef struct cnn__cut {
    cnn_conv2d_shape part;                  /* its batch: all parts of all images */
    int down, right;                        /* parts of an image; 1 x 1: it is not cut */
    int pool_later;                         /* the parts are not pooled: the whole maps are */
    int height, width, rows, columns;       /* of the map that is cut, after pooling unless that is later; of a part */
} cnn__cut;

static void cnn__cut_into(const cnn_conv2d_shape *s, int down, int right, int pool_later, cnn__cut *cut)
{
    cnn_conv2d_shape *part = &cut->part;
    cnn_pool2d_shape *pool = &part->pool;
    int pooled = s->pool.kernel_height > 0 && !pool_later;
    *part = *s;
    cut->down = down;
    cut->right = right;
    cut->pool_later = pool_later;
    cut->height = pooled ? pool->out_height : s->out_height;
    cut->width = pooled ? pool->out_width : s->out_width;
    cut->rows = cnn__divide_up(cut->height, down);
    cut->columns = cnn__divide_up(cut->width, right);
    if (pool_later) memset(pool, 0, sizeof *pool);
    if (down * right == 1) return;
    part->batch = s->batch * down * right;
    part->out_height = pooled ? cut->rows * pool->stride_height : cut->rows;
    part->out_width = pooled ? cut->columns * pool->stride_width : cut->columns;
    part->in_height = (part->out_height - 1) * s->stride_height + (s->kernel_height - 1) * s->dilation_height + 1;
    part->in_width = (part->out_width - 1) * s->stride_width + (s->kernel_width - 1) * s->dilation_width + 1;
    part->pad_top = part->pad_left = part->pad_bottom = part->pad_right = 0;
    part->padding_mode = CNN_ZEROS;
    pool->batch = part->batch;
    pool->in_height = part->out_height; pool->in_width = part->out_width;
    pool->out_height = cut->rows; pool->out_width = cut->columns;
}

/* Steps of a product that makes `columns` vectors of a row: with fewer than 8 sums, each waits for its own last one. */
static double cnn__steps(const cnn__isa *isa, int columns)
{
    int whole = cnn__divide_up(columns, isa->vectors), least = cnn__divide_up(8, isa->rows);
    return (double)cnn__larger(columns, (ptrdiff_t)whole * least);
}

/* What copying a map costs, from lanes or to them: LANES columns are transposed at once, the rest goes one by one. */
static double cnn__copies(const cnn__isa *isa, int rows, int columns)
{
    return (double)rows * isa->lanes * (8 * cnn__divide_up(columns, isa->lanes) + 3 * (columns % isa->lanes));
}

/* What a cut costs, about: a vector that is multiplied, or loaded from an outer cache, is 1 */
static double cnn__cost_of(const cnn__cut *cut, const cnn__isa *isa)
{
    const cnn_conv2d_shape *part = &cut->part;
    cnn__conv_plan p = cnn__plan_conv(part, isa, 1, 0);
    const cnn__conv *conv = &p.forward;
    double channels = (double)part->out_channels * conv->in_channels, products, weights, copies;
    int tiles = cnn__tiles(conv->out_height) * cnn__tiles(conv->out_width);
    if (conv->points) {
        weights = conv->points * conv->points;
        products = weights * cnn__steps(isa, tiles);
    } else {
        weights = conv->kernel_height * conv->kernel_width;
        products = weights * conv->out_height * cnn__steps(isa, conv->out_width);
    }
    copies = part->in_channels * cnn__copies(isa, part->in_height, cnn__round_up(part->in_width, isa->lanes))
           + part->out_channels * cnn__copies(isa, cut->rows, cut->columns);
    return p.blocks * (channels * (products + 8 * weights / isa->lanes) + copies) + (conv->points ? 40 * channels : 0);
}

/* Whether each window of the pool lies in one part, wherever the maps are cut */
static int cnn__pools_apart(const cnn_pool2d_shape *p)
{
    return p->kernel_height == p->stride_height && p->kernel_width == p->stride_width && !p->pad_height && !p->pad_width
        && p->out_height * p->kernel_height <= p->in_height && p->out_width * p->kernel_width <= p->in_width;
}

/* n parts of a side are no smaller than n - 1 are: one more would be empty. */
static int cnn__parts_stay(int side, int n) { return n > 1 && cnn__divide_up(side, n) == cnn__divide_up(side, n - 1); }

/* HOW AN IMAGE IS CUT. Not at all if the images fill the lanes. Else into the parts that cost least; among those within
   a tenth of it, into most, up to FEW_BLOCKS: then as many threads share them. They are pooled at once where that is
   possible; if the pooled map is too small to fill the lanes, or windows overlap, later. */
static cnn__cut cnn__choose_cut(const cnn_conv2d_shape *s, const cnn__isa *isa)
{
    int pooled = s->pool.kernel_height > 0, later, down, right, more, most = CNN__FEW_BLOCKS * isa->lanes;
    double least, best;
    cnn__cut cut, tried;
    cnn__cut_into(s, 1, 1, 0, &cut);
    if (cnn__fills_lanes(s->batch, isa->lanes)) return cut;
    least = best = cnn__cost_of(&cut, isa);
    for (later = pooled && !cnn__pools_apart(&s->pool); later <= pooled; later++) {
        int height, width;
        cnn__cut_into(s, 1, 1, later, &tried);
        height = tried.height;
        width = tried.width;
        for (down = 1; down <= height && down * s->batch <= most; down++)
            for (right = 1; right <= width && down * right * s->batch <= most; right++) {
                double cost;
                if (cnn__parts_stay(height, down) || cnn__parts_stay(width, right)) continue;
                cnn__cut_into(s, down, right, later, &tried);
                cost = cnn__cost_of(&tried, isa);
                more = tried.part.batch > cut.part.batch && later == cut.pool_later;
                if (later) cost += 2.0 * (double)cnn__conv2d_outputs(s);      /* an index is found value by value */
                if (cost >= (more ? 1.1 * least : best)) continue;
                if (cost < least) least = cost;
                best = cost;
                cut = tried;
            }
    }
    return cut;
}

/* The choice for a shape stays with it: for one small image, choosing takes as long as a layer. */
typedef struct cnn__chosen { cnn_conv2d_shape s; cnn__cut cut; } cnn__chosen;

static cnn__cut cnn__cut_of(void *context, const cnn_conv2d_shape *s)
{
    cnn__simd_context *simd = (cnn__simd_context *)context;
    cnn__chosen *chosen = simd->chosen;
    int i;
    for (i = 0; i < CNN__CHOSEN; i++)                      /* the members before this one decide */
        if (!memcmp(&chosen[i].s, s, offsetof(cnn_conv2d_shape, allow_tf32))) return chosen[i].cut;
    chosen += simd->chosen_next;
    simd->chosen_next = (simd->chosen_next + 1) % CNN__CHOSEN;
    chosen->s = *s;
    chosen->cut = cnn__choose_cut(s, simd->isa);
    return chosen->cut;
}

/* The plan of a forward pass in parts */
static cnn__conv_plan cnn__plan_cut(const cnn__cut *cut, const cnn_conv2d_shape *s, const cnn__isa *isa, int threads)
{
    const cnn_conv2d_shape *part = &cut->part;
    cnn__conv_plan p = cnn__plan_conv(part, isa, threads, 0);
    const cnn__conv *conv = &p.forward;
    int number = cut->down * cut->right, images = cnn__smaller(s->batch, p.lanes / number + 2);
    ptrdiff_t *of_a_thread = conv->points ? &p.v_size : &p.x_size;         /* not needed where it is laid for all */
    if (number > 1) {
        p.padded_height = (cut->down - 1) * part->out_height * s->stride_height + conv->height;
        p.padded_width = (cut->right - 1) * part->out_width * s->stride_width + conv->width;
        p.padded_height = (int)cnn__larger(p.padded_height, s->in_height + s->pad_top + s->pad_bottom);
        p.padded_width = (int)cnn__larger(p.padded_width, s->in_width + s->pad_left + s->pad_right);
        p.padded_size = cnn__align((ptrdiff_t)images * p.padded_height * p.padded_width + p.lanes);
        p.per_thread += p.padded_size;
    }
    if (p.blocks == 1 && p.shares > 1 && p.u_size > CNN__KEPT_FLOATS) {    /* not kept; of a share one piece reads it */
        p.own_u_size = cnn__align(cnn__u_size(conv, p.lanes));
        p.per_thread += p.own_u_size;
        p.u_size = 0;
    }
    if (number == 1 && p.shares == 1) return p;
    p.laid_size = conv->points ? s->groups * cnn__all_v_size(conv, p.lanes) : p.x_size;
    p.per_thread -= *of_a_thread;
    *of_a_thread = 0;
    return p;
}

/* Where part `number` begins: its first output, after pooling, and in the padded input */
typedef struct cnn__part_of { int image, row, column, in_row, in_column; } cnn__part_of;

static cnn__part_of cnn__find_part(const cnn__conv_job *job, int number)
{
    const cnn_conv2d_shape *part = &job->cut->part, *s = job->whole;
    int right = job->cut->right, j, i;
    cnn__part_of at;
    at.image = number / (job->cut->down * right);
    j = number / right % job->cut->down;
    i = number % right;
    at.row = j * job->cut->rows;
    at.column = i * job->cut->columns;
    at.in_row = j * part->out_height * s->stride_height;
    at.in_column = i * part->out_width * s->stride_width;
    return at;
}

/* Map c of X: a part in each lane. Each image of the block is padded once; what lies beyond its padding belongs to
   outputs that nobody wants, and so do lanes after the last part, which repeat it. */
static void cnn__cut_out(const cnn__conv_job *job, int first, int parts, int c, float *padded, float *to)
{
    const cnn_conv2d_shape *s = job->whole;
    const cnn__conv_plan *p = &job->plan;
    cnn__conv whole = p->forward;
    float *map = padded;
    ptrdiff_t starts[CNN__MOST_LANES];
    int image = -1, l, j;
    whole.height = p->padded_height;
    whole.width = p->padded_width;
    for (l = 0; l < p->lanes; l++) {
        cnn__part_of at = cnn__find_part(job, first + cnn__smaller(l, parts - 1));
        if (at.image != image) {
            const float *from = job->x + at.image * job->x_image + (ptrdiff_t)c * s->in_height * s->in_width;
            if (l) map += (ptrdiff_t)whole.height * whole.width;
            for (j = 0; j < s->in_height; j++, from += s->in_width)
                cnn__copy_floats(map + (ptrdiff_t)(s->pad_top + j) * whole.width + s->pad_left, from, s->in_width);
            cnn__fill_borders(s, &whole, map, 1);
            image = at.image;
        }
        starts[l] = map - padded + (ptrdiff_t)at.in_row * whole.width + at.in_column;
    }
    job->isa->parts_to_lanes(to, padded, whole.width, starts, p->forward.height, p->forward.width);
}

/* `channels` maps of y and index, from the lanes to their places */
static void cnn__paste(const cnn__conv_job *job, int first, int parts, int channel, int channels, const float *y,
                       const float *index)
{
    const cnn__cut *cut = job->cut;
    const cnn__isa *isa = job->isa;
    ptrdiff_t map = (ptrdiff_t)cut->height * cut->width, size = (ptrdiff_t)cut->rows * cut->columns * isa->lanes;
    cnn__part_at places[CNN__MOST_LANES];
    int l, k;
    for (l = 0; l < parts; l++) {
        cnn__part_of at = cnn__find_part(job, first + l);
        places[l].start = at.image * job->y_image + channel * map;
        places[l].start += (ptrdiff_t)at.row * cut->width + at.column;
        places[l].high = cnn__smaller(cut->rows, cut->height - at.row);
        places[l].wide = cnn__smaller(cut->columns, cut->width - at.column);
    }
    for (k = 0; k < channels; k++, y += size) {
        isa->from_lanes(job->out + k * map, NULL, cut->width, places, parts, y, isa->lanes, cut->rows, cut->columns);
        if (!index) continue;
        isa->from_lanes(NULL, job->out_index + k * map, cut->width, places, parts, index, isa->lanes, cut->rows,
                        cut->columns);
        index += size;
    }
}

/* The card of convolution for a piece, a share of the output channels of a block of images. X is padded here or, with
   few blocks, is there already, because several pieces read it. */
static void cnn__conv_forward_piece(void *arguments, int piece, int thread)
{
    const cnn__conv_job of_bundle = cnn__job_of(arguments, &piece), *job = &of_bundle;
    const cnn_conv2d_shape *s = job->s;
    const cnn__conv_plan *p = &job->plan;
    const cnn__isa *isa = job->isa;
    cnn__conv_arrays a = cnn__arrays_of(job, thread);
    int block = piece / p->shares, share = piece % p->shares, channels = s->out_channels / p->shares;
    int lanes = p->lanes, first = block * lanes, images = cnn__smaller(lanes, s->batch - first), c;
    cnn_pool2d_shape pool = s->pool;
    float *y = pool.kernel_height ? a.pooled : a.z, *index = job->out_index ? a.pooled + p->pooled_size / 2 : NULL;
    ptrdiff_t to = first * job->y_image + share * p->share_size;
    ptrdiff_t map = (ptrdiff_t)p->forward.height * p->forward.width * lanes;
    if (job->laid && p->forward.points) a.v_laid = job->laid + block * p->laid_size;
    else if (job->laid) a.x = job->laid + block * p->laid_size;
    else
        for (c = 0; c < s->in_channels; c++) cnn__pad_map(job, first, images, c, a.x + c * map);
    cnn__convolve(job, &p->forward, share, a.z, a.x, job->bias, s->activation == CNN_RELU, &a);
    if (s->activation && s->activation != CNN_RELU)
        cnn__activate(isa, s->activation, s->slope, a.z, a.z, channels * cnn__out_map(&p->forward) * lanes);
    pool.channels = channels;
    if (pool.kernel_height) isa->max_pool(&pool, y, index, a.z);
    if (job->cut) cnn__paste(job, first, images, share * channels, channels, y, index);
    else {
        cnn__images_from_lanes(isa, job->out + to, NULL, job->y_image, images, y, lanes, p->share_size);
        if (index)
            cnn__images_from_lanes(isa, NULL, job->out_index + to, job->y_image, images, index, lanes, p->share_size);
    }
}

/* For few blocks, whose pieces share them: map c of a block's X or, with Winograd, V */
static void cnn__lay_piece(void *arguments, int piece, int thread)
{
    const cnn__conv_job of_bundle = cnn__job_of(arguments, &piece), *job = &of_bundle;
    const cnn_conv2d_shape *s = job->s;
    const cnn__conv_plan *p = &job->plan;
    const cnn__conv *conv = &p->forward;
    cnn__conv_arrays a = cnn__arrays_of(job, thread);
    int block = piece / s->in_channels, c = piece % s->in_channels, first = block * p->lanes;
    int images = cnn__smaller(p->lanes, s->batch - first);
    int all = cnn__tiles(conv->out_height) * cnn__tiles(conv->out_width), at_once, tile, tiles;
    float *laid = job->laid + block * p->laid_size, *to = a.x;
    if (!conv->points) to = laid + (ptrdiff_t)c * conv->height * conv->width * p->lanes;
    if (job->cut) cnn__cut_out(job, first, images, c, a.padded, to);
    else cnn__pad_map(job, first, images, c, to);
    if (!conv->points) return;
    at_once = cnn__tiles_at_once(conv, p->lanes);
    laid += c / conv->in_channels * cnn__all_v_size(conv, p->lanes);
    for (tile = 0; tile < all; tile += tiles, laid += cnn__v_size(conv, tiles, p->lanes)) {
        tiles = cnn__smaller(at_once, all - tile);
        job->isa->winograd_v(conv, laid + (ptrdiff_t)(c % conv->in_channels) * tiles * p->lanes, to, 1, tile, tiles);
    }
}

/* df of some images, one after the other: before the activation, after the pool */
static void cnn__conv_df(const cnn__conv_job *job, float *df, int first, int images)
{
    const cnn_conv2d_shape *s = job->s;
    ptrdiff_t image = job->plan.image, at = first * job->y_image;
    for (; images; images--, at += job->y_image, df += image)
        cnn__activate_back(job->isa, s->activation, s->slope, df, job->dy + at, job->y + at, NULL, image);
}

/* df of image n before pooling, for few images */
static void cnn__conv_df_image(void *arguments, int n, int thread)
{
    const cnn__conv_job *job = (const cnn__conv_job *)arguments;
    const cnn_conv2d_shape *s = job->whole;
    cnn_pool2d_shape pool = s->pool;
    float *df = job->df + (ptrdiff_t)n * s->out_channels * s->out_height * s->out_width;
    ptrdiff_t at = n * job->y_image;
    float *pooled = pool.kernel_height ? job->df_pooled + at : df;
    (void)thread;
    cnn__activate_back(job->isa, s->activation, s->slope, pooled, job->dy + at, job->y + at, NULL, job->y_image);
    pool.batch = 1;
    if (pool.kernel_height) cnn__pool2d_backward(&pool, df, pooled, NULL, job->index + at);
}

/* ---- the way back with a stride ----

   dx(r) = sum over y of df((r + p - y) / s) u(y), for those y where s divides. They are y = a, a + s, a + 2 s, ... with
   a = (r + p) mod s. So the rows r of one a, a phase, are a convolution without a stride, with every s-th row of the
   kernel; columns likewise. Without phases, D would hold s s - 1 zeros for each df. */

typedef struct cnn__phase { int taps, first, count, in; } cnn__phase;  /* kernel rows; first r, how many; in D for it */

/* Phase a of a side: kernel, stride and padding of the forward pass, df's place in D, size of dx */
static cnn__phase cnn__phase_of(int a, int kernel, int stride, int pad, int df, int size)
{
    cnn__phase f;
    f.taps = a < kernel ? cnn__divide_up(kernel - a, stride) : 0;
    f.first = (a - pad % stride + stride) % stride;
    f.count = f.first < size ? (size - 1 - f.first) / stride + 1 : 0;
    f.in = f.taps ? df + (f.first + pad - a) / stride - (f.taps - 1) : 0;
    return f;
}

/* dx of a block from D, phase by phase: each in Z, then in its places of a.x */
static void cnn__convolve_phases(const cnn__conv_job *job, const cnn__conv_arrays *array)
{
    const cnn_conv2d_shape *s = job->s;
    const cnn__conv_plan *p = &job->plan;
    cnn__conv_job phase_job = *job;
    int lanes = p->lanes, a, b, c, j, i;
    for (a = 0; a < s->stride_height; a++)
        for (b = 0; b < s->stride_width; b++) {
            cnn__phase down = cnn__phase_of(a, s->kernel_height, s->stride_height, s->pad_top, p->df_top, s->in_height);
            cnn__phase right = cnn__phase_of(b, s->kernel_width, s->stride_width, s->pad_left, p->df_left, s->in_width);
            cnn__conv conv = p->backward;
            const float *z = array->z;
            conv.kernel_height = down.taps; conv.kernel_width = right.taps;
            if (!down.taps || !right.taps) conv.kernel_height = conv.kernel_width = 0;
            conv.out_height = down.count; conv.out_width = right.count;
            cnn__convolve(&phase_job, &conv, 0, array->z, array->d
                          + ((ptrdiff_t)down.in * conv.width + right.in) * lanes, NULL, 0, array);
            phase_job.weight += (ptrdiff_t)conv.groups * conv.out_channels * cnn__taps(&conv);
            for (c = 0; c < s->in_channels; c++)
                for (j = 0; j < down.count; j++)
                    for (i = 0; i < right.count; i++, z += lanes)
                        cnn__copy_floats(array->x + (((ptrdiff_t)c * s->in_height + down.first + j * s->stride_height)
                                         * s->in_width + right.first + i * s->stride_width) * lanes, z, lanes);
        }
}

/* D: df before pooling, with an image in each lane. Its zeros are written when the piece begins (fresh), and stay. A
   pool's df is not needed afterwards: the index takes its place before it goes into lanes, too. */
static void cnn__conv_d(const cnn__conv_job *job, const cnn__conv_arrays *a, int first, int images, int fresh)
{
    const cnn_conv2d_shape *s = job->s;
    const cnn__conv_plan *p = &job->plan;
    const cnn__isa *isa = job->isa;
    int lanes = p->lanes, pooled = s->pool.kernel_height > 0, c, n;
    ptrdiff_t width = (ptrdiff_t)p->backward.width * lanes, map_stride = p->backward.height * width;
    ptrdiff_t row_stride = (p->phases ? 1 : s->stride_height) * width;
    ptrdiff_t pixel_stride = (ptrdiff_t)(p->phases ? 1 : s->stride_width) * lanes;
    ptrdiff_t image = p->image;
    float *df = a->pooled, *df_lanes = df + p->pooled_size / 3, *index = df_lanes + p->pooled_size / 3;
    float *to = a->d + p->df_top * width + (ptrdiff_t)p->df_left * lanes;
    if (pooled || fresh) cnn__zero_floats(a->d, p->d_size);
    if (pooled) {
        isa->to_lanes(df_lanes, 0, lanes, df, image, lanes, 1, (int)image);
        for (n = 0; n < images; n++)
            isa->scale_bytes(df + n * image, job->index + (first + n) * job->y_image, 1, 0, image);
        isa->to_lanes(index, 0, lanes, df, image, lanes, 1, (int)image);
        isa->max_unpool(&s->pool, to, map_stride, row_stride, pixel_stride, df_lanes, index);
    } else
        for (c = 0; c < s->out_channels; c++)
            isa->to_lanes(to + c * map_stride, row_stride, pixel_stride, df + c * p->map, image, lanes, s->out_height,
                          s->out_width);
}

/* The offset in X of each df's window: its corner, and if it was pooled, + the tap that won. The sum of the two fits
   in an int; a corner in the padding of the pool may not, and wraps around. */
static void cnn__conv_offsets(const cnn_conv2d_shape *s, const cnn__conv *conv, int32_t *corners, int32_t *taps)
{
    const cnn_pool2d_shape *p = &s->pool;
    int pooled = p->kernel_height > 0, j, i;
    int height = pooled ? p->out_height : s->out_height, width = pooled ? p->out_width : s->out_width;
    int64_t right = (int64_t)s->stride_width * conv->in_channels;
    int64_t down = (int64_t)s->stride_height * conv->width * conv->in_channels;
    for (j = 0; j < height; j++)
        for (i = 0; i < width; i++)
            *corners++ = (int32_t)((pooled ? j * p->stride_height - p->pad_height : j) * down
                                 + (pooled ? i * p->stride_width - p->pad_width : i) * right);
    for (j = 0; j < p->kernel_height; j++)
        for (i = 0; i < p->kernel_width; i++) *taps++ = (int32_t)(j * down + i * right);
}

/* sums(k, tap) += sum over the pixels of an image of df(k) x(tap), for output channels of one group: a product. A row
   of A is a df map, a row of B what a kernel row sees of a pixel's window. */
static void cnn__dense_dweight(const cnn__conv_plan *p, const cnn__conv_arrays *a, float *sums, const float *df,
                               const float *x, int k, int end)
{
    const cnn__weight_window *w = &p->window;
    cnn__product product;
    int call, row, v;
    product.b_offsets = a->offsets;
    product.depth = (int)p->map;
    product.b_stride = w->isa->lanes;
    product.c_stride = w->size;
    product.accumulate = 1;
    product.relu = 0;
    for (; k < end; k += w->isa->rows) {
        cnn__take_rows(&product, w->isa, df, p->map, NULL, k, end);
        for (call = 0; call < w->calls; call++)
            for (row = 0; row < w->rows; row++)
                for (v = 0; v < w->vectors; v += product.vectors) {
                    product.vectors = cnn__share(w->vectors - v, w->isa->vectors);
                    product.b = x + call * w->call_stride + row * w->row_stride + v * product.b_stride;
                    product.c = sums + k * w->size + call * w->down + (row * w->vectors + v) * product.b_stride;
                    w->isa->multiply(&product);
                }
    }
}

/* sums(k, tap) += sum over images and pixels of df(k) x(tap), for the images of a block, and the output channels of a
   share. Unless it is dense, only the df that are not 0 are listed. */
static void cnn__conv_dweight(const cnn__conv_job *job, const cnn__conv_arrays *a, int share, float *sums,
                              const float *df, int first, int images)
{
    const cnn_conv2d_shape *s = job->s;
    const cnn__conv_plan *p = &job->plan;
    const cnn__conv *conv = &p->forward;
    const cnn__weight_window *w = &p->window;
    const cnn__isa *isa = job->isa;
    cnn__window_sum sum = { NULL, w->rows, w->vectors, NULL, w->row_stride, a->values, a->windows, 0 };
    ptrdiff_t x_group = cnn__in_group(conv), x_image = s->groups * x_group, i;
    int n, b, k, end, call, count, pooled = s->pool.kernel_height > 0;
    int k_first = cnn__share_begin(p, s, share), k_end = cnn__share_begin(p, s, share + 1);
    for (i = 0; p->dense && i < p->map; i++) a->offsets[i] = a->corners[i];
    for (n = 0; n < images; n += count) {
        float *to = sums + k_first * w->size, *dbias = sums + s->out_channels * w->size;
        count = cnn__smaller(p->images, images - n);
        for (b = 0; b < count; b++)
            cnn__pad_channels(s, conv, isa, a->x + b * x_image, job->x + (first + n + b) * job->x_image);
        for (b = 0; job->dbias && b < count; b++)
            for (k = k_first; k < k_end; k++) dbias[k] += isa->total(df + (n + b) * p->image + k * p->map, 0, p->map);
        for (b = 0; p->dense && b < count; b++)
            for (k = k_first; k < k_end; k = end) {
                int group = k / conv->out_channels;
                end = cnn__smaller(k_end, (group + 1) * conv->out_channels);
                cnn__dense_dweight(p, a, sums, df + (n + b) * p->image, a->x + b * x_image + group * x_group, k, end);
            }
        if (p->dense) continue;
        for (k = k_first; k < k_end; k++, to += w->size) {
            const float *x = a->x + k / conv->out_channels * x_group;
            sum.count = 0;
            for (b = 0; b < count; b++) {
                const float *d = df + (n + b) * p->image + k * p->map;
                const unsigned char *index = pooled ? job->index + (first + n + b) * job->y_image + k * p->map : NULL;
                sum.count += isa->list_nonzeros(a->values + sum.count, a->windows + sum.count, d, a->corners, index,
                                                a->taps, (int32_t)(b * x_image), p->map);
            }
            for (call = 0; call < w->calls; call++) {
                sum.to = to + call * w->down;
                sum.x = x + call * w->call_stride;
                w->isa->add_windows(&sum);
            }
        }
    }
}

/* dweight(k, c, y, x) += what cnn__conv_dweight has summed up, (k, y, x, c), and dbias(k) likewise. Of some k: the sums
   of all runs of blocks, in order. */
static void cnn__conv_sums_piece(void *arguments, int piece, int thread)
{
    const cnn__conv_job of_bundle = cnn__job_of(arguments, &piece), *job = &of_bundle;
    const cnn__conv_plan *p = &job->plan;
    const cnn__conv *conv = &p->forward;
    const cnn__weight_window *w = &p->window;
    int all = job->s->out_channels, pieces = cnn__sums_pieces(p, all), run, k, c, y, x;
    int begin = cnn__begin_of(piece, pieces, all), end = cnn__begin_of(piece + 1, pieces, all);
    float *sums = job->sums + begin * w->size, *biases = job->sums + all * w->size;
    int size = conv->kernel_height * conv->kernel_width;
    float *dweight = job->dweight ? job->dweight + begin * cnn__taps(conv) : NULL;
    (void)thread;
    for (run = 1; run < p->pieces; run++) {
        job->isa->sum_into(sums, sums + p->sums_size * run, (end - begin) * w->size);
        job->isa->sum_into(biases + begin, biases + begin + p->sums_size * run, end - begin);
    }
    for (k = begin; dweight && k < end; k++, sums += w->size, dweight += cnn__taps(conv))
        for (y = 0; y < conv->kernel_height; y++)
            for (x = 0; x < conv->kernel_width; x++)
                for (c = 0; c < conv->in_channels; c++)
                    dweight[c * size + y * conv->kernel_width + x] += sums[y * w->down + x * w->right + c];
    for (k = begin; job->dbias && k < end; k++) job->dbias[k] += biases[k];
}

/* The card's backward for some blocks, and a share of the output channels. The blocks have sums of dweight and dbias of
   their own, which are added up in order at the end. */
static void cnn__conv_backward_piece(void *arguments, int piece, int thread)
{
    const cnn__conv_job of_bundle = cnn__job_of(arguments, &piece), *job = &of_bundle;
    const cnn_conv2d_shape *s = job->s;
    const cnn__conv_plan *p = &job->plan;
    const cnn__isa *isa = job->isa;
    cnn__conv_arrays a = cnn__arrays_of(job, thread);
    int share = piece % p->shares, run = piece / p->shares, lanes = p->lanes, block;
    int begin = cnn__begin_of(run, p->pieces, p->blocks), end = cnn__begin_of(run + 1, p->pieces, p->blocks);
    int k = cnn__share_begin(p, s, share), channels = cnn__share_begin(p, s, share + 1) - k;
    ptrdiff_t in = (ptrdiff_t)s->in_channels * s->in_height * s->in_width;
    float *sums = job->sums + p->sums_size * run;
    cnn__zero_floats(sums + k * p->window.size, channels * p->window.size);
    cnn__zero_floats(sums + s->out_channels * p->window.size + k, channels);
    cnn__conv_offsets(s, &p->forward, a.corners, a.taps);
    for (block = begin; block < end; block++) {
        int first = block * lanes, images = cnn__smaller(lanes, s->batch - first);
        cnn__conv_df(job, a.pooled, first, images);
        if (job->learns) cnn__conv_dweight(job, &a, share, sums, a.pooled, first, images);
        if (!job->dx || share) continue;
        cnn__zero_floats(a.pooled + p->image * images, (lanes - images) * p->image);       /* lanes without an image */
        cnn__conv_d(job, &a, first, images, block == begin);
        if (p->phases) cnn__convolve_phases(job, &a);
        else
            cnn__convolve(job, &p->backward, 0, a.z, a.d + ((ptrdiff_t)p->top * p->backward.width + p->left) * lanes,
                          NULL, 0, &a);
        if (p->fold) cnn__fold_borders(s, p, isa, a.x, a.z);
        cnn__images_from_lanes(isa, job->dx + first * job->x_image, NULL, job->x_image, images,
                               p->fold || p->phases ? a.x : a.z, lanes, in);
    }
}

/* to: (groups, c, k, rows, columns): of each kernel every down-th row up to last_y and every right-th column up to
   last_x, mirrored, and k and c exchanged: the kernels of the way back from df to dx. A bundle's follow each other. */
typedef struct cnn__mirror_job {
    const cnn__conv *conv;
    float *to; const float *weight;
    int last_y, down, last_x, right;
    ptrdiff_t taps, bundle;                                /* rows * columns; all weights of a bundle */
} cnn__mirror_job;

static void cnn__mirror_piece(void *arguments, int piece, int thread)      /* MIRRORED channels c of a group */
{
    const cnn__mirror_job *job = (const cnn__mirror_job *)arguments;
    const cnn__conv *conv = job->conv;
    int width = conv->kernel_width, size = conv->kernel_height * width, k, c, y, x;
    int runs = cnn__divide_up(conv->in_channels, CNN__MIRRORED), group = piece / runs;
    int begin = piece % runs * CNN__MIRRORED, end = cnn__smaller(begin + CNN__MIRRORED, conv->in_channels);
    int last_y = job->last_y, down = job->down, last_x = job->last_x, right = job->right;
    float *bundle = job->to + group / conv->groups * job->bundle
                  + (ptrdiff_t)(group % conv->groups) * conv->in_channels * conv->out_channels * job->taps;
    (void)thread;
    for (k = 0; k < conv->out_channels; k++) {
        const float *kernel = job->weight + begin * size
                            + ((ptrdiff_t)group * conv->out_channels + k) * cnn__taps(conv);
        for (c = begin; c < end; c++, kernel += size) {
            float *to = bundle + ((ptrdiff_t)c * conv->out_channels + k) * job->taps;
            for (y = last_y; y >= 0; y -= down)
                for (x = last_x; x >= 0; x -= right) *to++ = kernel[y * width + x];
        }
    }
}

/* The kernels' rows a, a + down, ... and columns b, b + right, ...; returns where the next ones go. */
static float *cnn__mirror(void *context, const cnn__conv *conv, int bundles, float *to, const float *weight, int a,
                          int down, int b, int right)
{
    int rows = a < conv->kernel_height ? (conv->kernel_height - 1 - a) / down + 1 : 0;
    int columns = b < conv->kernel_width ? (conv->kernel_width - 1 - b) / right + 1 : 0;
    cnn__mirror_job job = { conv, to, weight, a + (rows - 1) * down, down, b + (columns - 1) * right, right,
                            (ptrdiff_t)rows * columns, conv->groups * conv->out_channels * cnn__taps(conv) };
    int runs = cnn__divide_up(conv->in_channels, CNN__MIRRORED);
    if (job.taps) cnn__parallel(cnn__threads_of(context), bundles * conv->groups * runs, cnn__mirror_piece, &job);
    return to + (ptrdiff_t)conv->groups * conv->in_channels * conv->out_channels * job.taps;
}

typedef struct cnn__kernels_job {
    const cnn__isa *isa;
    const cnn__conv *conv;
    float *u; const float *weight;
} cnn__kernels_job;

static void cnn__transform_piece(void *arguments, int piece, int thread)
{
    const cnn__kernels_job *job = (const cnn__kernels_job *)arguments;
    (void)thread;
    job->isa->winograd_u(job->conv, job->u + piece * cnn__u_size(job->conv, job->isa->lanes),
                         job->weight + piece * job->conv->out_channels * cnn__taps(job->conv));
}

/* Where U of these weights is kept, with room for it; NULL: no memory */
static cnn__kept *cnn__find_kept(cnn__simd_context *simd, const float *weight, ptrdiff_t size)
{
    cnn__kept *k, *more;
    int i = 0;
    while (i < simd->kept_count && simd->kept[i].weight != weight) i++;
    if (i == simd->kept_count) {
        more = (cnn__kept *)cnn__alloc((size_t)i + 1, sizeof *more);
        if (!more) return NULL;
        if (i) memcpy(more, simd->kept, sizeof *more * (size_t)i);
        cnn__free(simd->kept);
        simd->kept = more;
        more[i].weight = weight;
        simd->kept_count++;
    }
    k = simd->kept + i;
    if (k->size == size) return k;
    cnn__free(k->u);
    k->version = 0;
    k->u = (float *)cnn__alloc((size_t)size, sizeof *k->u);
    k->size = k->u ? size : 0;
    return k->u ? k : NULL;
}

/* Winograd's U, group by group (or share by share): what was kept, or computed here, into what is kept or `work` */
static const float *cnn__transform_kernels(void *context, const cnn__conv *conv, int groups, uint64_t version,
                                           const float *weight, float *work)
{
    cnn__kernels_job job = { cnn__isa_of(context), conv, work, weight };
    ptrdiff_t size = groups * cnn__u_size(conv, job.isa->lanes);
    cnn__kept *k = NULL;
    if (!conv->points) return work;
    if (version && size <= CNN__KEPT_FLOATS) k = cnn__find_kept((cnn__simd_context *)context, weight, size);
    if (k) {
        int same = k->points == conv->points && k->out_channels == conv->out_channels && k->groups == groups;
        job.u = k->u;
        if (same && k->version == version) return k->u;
        k->version = version;
        k->points = conv->points; k->out_channels = conv->out_channels; k->groups = groups;
    }
    cnn__parallel(cnn__threads_of(context), groups, cnn__transform_piece, &job);
    return job.u;
}

typedef struct cnn__pool_job {
    const cnn__isa *isa;
    const cnn_pool2d_shape *s;
    float *out; unsigned char *index; const float *dy, *x; /* y, index, NULL and x; or dx, NULL, dy and x */
} cnn__pool_job;

static void cnn__pool_sample(void *arguments, int n, int thread)
{
    const cnn__pool_job *job = (const cnn__pool_job *)arguments;
    cnn_pool2d_shape one = *job->s;
    ptrdiff_t in = (ptrdiff_t)n * one.channels * one.in_height * one.in_width, out;
    (void)thread;
    one.batch = 1;
    out = n * (ptrdiff_t)cnn__pool2d_outputs(&one);
    if (job->dy && one.average) job->isa->average_back(&one, job->out + in, job->dy + out);
    else if (job->dy) cnn__pool2d_backward(&one, job->out + in, job->dy + out, job->x + in, NULL);
    else if (!job->index) job->isa->pool_image(&one, job->out + out, job->x + in);
    else cnn__pool2d_forward(&one, job->out + out, job->index + out, job->x + in);
}

/* Floats of U, of the threads' arrays and of what pieces share */
static ptrdiff_t cnn__forward_floats(const cnn__conv_plan *p, int bundles, int threads)
{
    return p->per_thread * threads + bundles * (p->u_size + p->blocks * p->laid_size);
}

/* The same, with the maps that are pooled later */
static ptrdiff_t cnn__forward_work(void *context, const cnn_conv2d_shape *s)
{
    cnn_conv2d_shape bundle = cnn__bundle_of(s, cnn__isa_of(context));
    cnn__cut cut = cnn__cut_of(context, &bundle);
    cnn__conv_plan p = cnn__plan_cut(&cut, &bundle, cnn__isa_of(context), cnn__threads_of(context));
    return cnn__forward_floats(&p, s->groups / bundle.groups, cnn__threads_of(context))
         + (cut.pool_later ? (ptrdiff_t)cnn__conv2d_outputs(s) : 0);
}

/* Of df before pooling, and of df after it, which padding may have made larger */
static ptrdiff_t cnn__df_floats(const cnn_conv2d_shape *s)
{
    return cnn__align(cnn__larger((ptrdiff_t)cnn__conv2d_outputs(s), (ptrdiff_t)cnn__pool2d_outputs(&s->pool)));
}

/* Floats behind the mirrored kernels for that: df before and after pooling, and forward's own */
static ptrdiff_t cnn__few_back_work(void *context, const cnn_conv2d_shape *s)
{
    cnn_conv2d_shape back;
    if (!cnn__few_back(s, cnn__isa_of(context), cnn__threads_of(context), &back)) return 0;
    return 2 * cnn__df_floats(s) + cnn__forward_work(context, &back);
}

static size_t cnn__simd_conv2d_work(void *context, const cnn_conv2d_shape *s)
{
    cnn_conv2d_shape bundle = cnn__bundle_of(s, cnn__isa_of(context));
    cnn__conv_plan p = cnn__plan_conv(&bundle, cnn__isa_of(context), cnn__threads_of(context), 1);
    ptrdiff_t mirrored = cnn__align(s->out_channels * cnn__taps(&p.forward)), bundles = s->groups / bundle.groups;
    ptrdiff_t backward = bundles * (p.u_size + p.sums_size * p.pieces) + p.per_thread * cnn__threads_of(context);
    backward = mirrored + cnn__larger(backward, cnn__few_back_work(context, s));
    return sizeof(float) * (size_t)cnn__larger(cnn__forward_work(context, s), backward);
}

static void cnn__simd_conv2d_forward(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index,
                                     const float *x, const float *weight, const float *bias, void *work)
{
    cnn__conv_job job;
    const cnn__conv_plan *p = &job.plan;
    cnn_conv2d_shape bundle = cnn__bundle_of(s, cnn__isa_of(context));
    cnn__cut cut = cnn__cut_of(context, &bundle);
    float *u = (float *)work;
    int threads = cnn__threads_of(context), bundles = s->groups / bundle.groups, groups;
    memset(&job, 0, sizeof job);
    job.isa = cnn__isa_of(context);
    job.s = &cut.part; job.whole = &bundle; job.bundles = bundles;
    job.plan = cnn__plan_cut(&cut, &bundle, job.isa, threads);
    if (cut.down * cut.right > 1) job.cut = &cut;
    job.out = y; job.out_index = index; job.x = x; job.weight = weight; job.bias = bias;
    job.x_image = (ptrdiff_t)s->in_channels * s->in_height * s->in_width;
    job.y_image = (ptrdiff_t)s->out_channels * cut.height * cut.width;
    job.scratch = u + bundles * p->u_size;
    if (p->laid_size) job.laid = job.scratch + p->per_thread * threads;
    if (cut.pool_later) job.out = u + cnn__forward_floats(p, bundles, threads), job.out_index = NULL;
    groups = bundle.groups * p->shares;
    job.u_bundle = groups * cnn__u_size(&p->forward, p->lanes);
    if (!p->own_u_size)
        job.u = cnn__transform_kernels(context, &p->forward, bundles * groups, s->weight_version, weight, u);
    if (job.laid) cnn__parallel(threads, bundles * p->blocks * bundle.in_channels, cnn__lay_piece, &job);
    cnn__parallel(threads, bundles * p->blocks * p->shares, cnn__conv_forward_piece, &job);
    if (cut.pool_later) {
        cnn__pool_job pool = { job.isa, &s->pool, y, index, NULL, job.out };
        cnn__parallel(threads, s->batch, cnn__pool_sample, &pool);
    }
}

static void cnn__simd_conv2d_backward(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias,
                                      const float *dy, const float *y, const unsigned char *index,
                                      const float *x, const float *weight, void *work)
{
    cnn__conv_job job;
    cnn_conv2d_shape bundle = cnn__bundle_of(s, cnn__isa_of(context)), back;
    const cnn__conv_plan *p = &job.plan;
    float *mirrored = (float *)work, *next = mirrored, *u;
    int threads = cnn__threads_of(context), bundles = s->groups / bundle.groups, a, b, down, right;
    memset(&job, 0, sizeof job);
    job.isa = cnn__isa_of(context);
    job.s = &bundle; job.whole = s; job.bundles = bundles;
    job.plan = cnn__plan_conv(&bundle, job.isa, threads, 1);
    job.dx = dx; job.dy = dy; job.y = y; job.index = index; job.x = x;
    job.learns = dweight || dbias; job.dweight = dweight; job.dbias = dbias;
    job.x_image = (ptrdiff_t)s->in_channels * s->in_height * s->in_width;
    job.y_image = bundles * p->image;
    u = mirrored + cnn__align(s->out_channels * cnn__taps(&p->forward));
    down = p->phases ? s->stride_height : 1;               /* without phases, one: all rows and columns */
    right = p->phases ? s->stride_width : 1;
    for (a = 0; dx && a < down; a++)
        for (b = 0; b < right; b++) next = cnn__mirror(context, &p->forward, bundles, next, weight, a, down, b, right);
    if (dx && cnn__few_back(s, job.isa, threads, &back)) {
        int as_it_is = !s->activation && !s->pool.kernel_height;           /* df is dy */
        job.df = u; job.df_pooled = u + cnn__df_floats(s);
        if (!as_it_is) cnn__parallel(threads, s->batch, cnn__conv_df_image, &job);
        cnn__simd_conv2d_forward(context, &back, dx, NULL, as_it_is ? dy : job.df, mirrored, NULL,
                                 job.df_pooled + cnn__df_floats(s));
        job.dx = NULL;
    }
    if (!job.dx && !job.learns) return;
    job.weight = mirrored;
    job.sums = u + bundles * p->u_size;
    job.scratch = job.sums + bundles * p->sums_size * p->pieces;
    job.u_bundle = bundle.groups * cnn__u_size(&p->backward, p->lanes);
    if (job.dx) job.u = cnn__transform_kernels(context, &p->backward, s->groups, 0, mirrored, u);
    cnn__parallel(threads, bundles * p->pieces * p->shares, cnn__conv_backward_piece, &job);
    if (job.learns)
        cnn__parallel(threads, bundles * cnn__sums_pieces(p, bundle.out_channels), cnn__conv_sums_piece, &job);
}

/* ---- the linear layer ---- */

enum {
    CNN__LINEAR_ROWS = 16,                  /* of a piece, forward with few samples and backward: outputs; a multiple of
                                               the rows, too */
    CNN__LINEAR_OUTPUTS = 48,               /* forward: of a piece; a multiple of the rows of every product */
    CNN__LINEAR_DEPTH = 1024,               /* forward: inputs at once; those of CNN__MOST_LANES samples take 192 KB,
                                               and stay in a second-level cache */
    CNN__LINEAR_VECTORS = 4                 /* backward: of inputs in a piece, so few that `packed` stays in a cache */
};

/* The matrix `from` without its zeros: values(r, 0 .. counts(r) - 1) are those of row r; offsets says where in `packed`
   the row is that each is multiplied by: of column i, corners(i). */
typedef struct cnn__sparse {
    int rows, depth;
    float *from; ptrdiff_t stride;
    float *values; int32_t *offsets, *corners; ptrdiff_t *counts;
} cnn__sparse;

typedef struct cnn__linear_job {
    const cnn__isa *isa;
    const cnn_linear_shape *s;
    float *y, *dx, *dweight, *scratch;
    float *x_lanes; ptrdiff_t *offsets;                    /* forward: x, a sample in each lane; where its rows begin */
    cnn__sparse df, transposed;                            /* backward: for dx; for dweight */
    float *dbias;
    const float *x, *weight, *bias, *dy, *result;          /* result: y, backward */
} cnn__linear_job;

static void cnn__linear_lanes_piece(void *arguments, int block, int thread)
{
    const cnn__linear_job *job = (const cnn__linear_job *)arguments;
    int lanes = job->isa->lanes, first = block * lanes;
    ptrdiff_t in = job->s->in_features;
    (void)thread;
    job->isa->to_lanes(job->x_lanes + first * in, 0, lanes, job->x + first * in, in,
                             cnn__smaller(lanes, job->s->batch - first), 1, (int)in);
}

/* The card of the linear layer for a few blocks of samples and LINEAR_OUTPUTS outputs: a row of A is a row of
   weights, a column of C a block. */
static void cnn__linear_forward_piece(void *arguments, int piece, int thread)
{
    const cnn__linear_job *job = (const cnn__linear_job *)arguments;
    const cnn_linear_shape *s = job->s;
    const cnn__isa *isa = job->isa;
    int lanes = isa->lanes, blocks = cnn__divide_up(s->batch, lanes), parts = cnn__divide_up(blocks, isa->vectors);
    int part = piece % parts, block = part * blocks / parts, first = piece / parts * CNN__LINEAR_OUTPUTS, v, i, o;
    int outputs = cnn__smaller(CNN__LINEAR_OUTPUTS, s->out_features - first), relu = s->activation == CNN_RELU;
    ptrdiff_t in = s->in_features;
    float *result = job->scratch + (ptrdiff_t)thread * CNN__LINEAR_OUTPUTS * CNN__MOST_LANES;
    cnn__product p;
    p.vectors = (part + 1) * blocks / parts - block;
    p.b_offsets = job->offsets;
    p.b_stride = in * lanes;
    p.c_stride = (ptrdiff_t)p.vectors * lanes;
    for (i = 0; i < s->in_features; i += p.depth) {
        p.depth = cnn__smaller(CNN__LINEAR_DEPTH, s->in_features - i);
        p.b = job->x_lanes + (block * in + i) * lanes;
        p.accumulate = i > 0;
        p.relu = relu && i + p.depth == s->in_features;
        for (o = 0; o < outputs; o += isa->rows) {
            cnn__take_rows(&p, isa, job->weight + i, in, i ? NULL : job->bias, first + o, first + outputs);
            p.c = result + o * p.c_stride;
            isa->multiply(&p);
        }
    }
    if (s->activation && !relu)
        cnn__activate(isa, s->activation, s->slope, result, result, outputs * p.c_stride);
    for (v = 0; v < p.vectors; v++, block++)
        cnn__images_from_lanes(isa, job->y + (ptrdiff_t)block * lanes * s->out_features + first, NULL, s->out_features,
                               cnn__smaller(lanes, s->batch - block * lanes), result + v * lanes, p.c_stride, outputs);
}

/* The same for so few samples that their lanes would stay empty: the lanes lie along the inputs. */
static void cnn__linear_rows_piece(void *arguments, int piece, int thread)
{
    const cnn__linear_job *job = (const cnn__linear_job *)arguments;
    const cnn_linear_shape *s = job->s;
    const cnn__isa *isa = job->isa;
    int first = piece * CNN__LINEAR_ROWS, end = cnn__smaller(first + CNN__LINEAR_ROWS, s->out_features), n, o;
    cnn__product p;
    (void)thread;
    p.depth = s->in_features;
    p.b_stride = s->in_features;
    p.c_stride = s->out_features;
    p.relu = s->activation == CNN_RELU;
    for (o = first; o < end; o += isa->rows) {
        cnn__take_rows(&p, isa, job->weight, s->in_features, job->bias, o, end);
        for (n = 0; n < s->batch; n += p.vectors) {
            p.vectors = cnn__share(s->batch - n, isa->vectors);
            p.b = job->x + (ptrdiff_t)n * s->in_features;
            p.c = job->y + (ptrdiff_t)n * s->out_features + o;
            isa->multiply_rows(&p);
        }
    }
    for (n = 0; n < s->batch && s->activation && !p.relu; n++) {
        float *y = job->y + (ptrdiff_t)n * s->out_features + first;
        cnn__activate(isa, s->activation, s->slope, y, y, end - first);
    }
}

/* Floats of `packed`: `longest` rows of a panel, which is the inputs of a whole piece, and one row of `result` */
static ptrdiff_t cnn__packed_size(int panel, int longest)
{
    return cnn__align((ptrdiff_t)panel * ((ptrdiff_t)longest + 1));
}

/* to = df from, or to += df from, in `width` columns of matrices whose rows are `stride` apart. These columns of
   `from` are copied to `packed` once, and used by all rows of df. Only whole vectors are written: where the width is
   not a multiple of them, a row goes by way of `result`. */
static void cnn__multiply_sparse(const cnn__isa *isa, const cnn__sparse *df, float *to, const float *from,
                                 ptrdiff_t stride, int width, int overwrite, float *packed)
{
    int panel = isa->lanes * CNN__LINEAR_VECTORS, cut = width % isa->lanes, r;
    float *result = packed + (ptrdiff_t)panel * df->depth;
    cnn__window_sum sum = { NULL, 1, 0, packed, 0, df->values, df->offsets, 0 };
    sum.vectors = cnn__divide_up(width, isa->lanes);
    for (r = 0; r < df->depth; r++, from += stride) {
        cnn__copy_floats(packed + (ptrdiff_t)r * panel, from, width);
        if (cut) cnn__zero_floats(packed + (ptrdiff_t)r * panel + width, panel - width);
    }
    for (r = 0; r < df->rows; r++, to += stride, sum.values += df->depth, sum.offsets += df->depth) {
        sum.to = cut ? result : to;
        sum.count = df->counts[r];
        if (cut || overwrite) cnn__zero_floats(sum.to, (ptrdiff_t)sum.vectors * isa->lanes);
        isa->add_windows(&sum);
        if (cut && overwrite) cnn__copy_floats(to, result, width);
        else if (cut) isa->sum_into(to, result, width);
    }
}

/* The card's backward for the inputs of one piece:  dW += df^T x,  dx = df W,  without the zeros of df. */
static void cnn__linear_backward_piece(void *arguments, int piece, int thread)
{
    const cnn__linear_job *job = (const cnn__linear_job *)arguments;
    const cnn_linear_shape *s = job->s;
    const cnn__isa *isa = job->isa;
    int panel = isa->lanes * CNN__LINEAR_VECTORS, first = piece * panel;
    int width = cnn__smaller(panel, s->in_features - first);
    float *packed = job->scratch + thread * cnn__packed_size(panel, (int)cnn__larger(s->batch, s->out_features));
    if (job->dweight)
        cnn__multiply_sparse(isa, &job->transposed, job->dweight + first, job->x + first, s->in_features, width, 0,
                             packed);
    if (job->dx)
        cnn__multiply_sparse(isa, &job->df, job->dx + first, job->weight + first, s->in_features, width, 1, packed);
}

static float *cnn__next(float **work, ptrdiff_t floats)    /* takes so many floats of `work`: whole cache lines */
{
    float *here = *work;
    *work += cnn__align(floats);
    return here;
}

static cnn__sparse cnn__make_sparse(const cnn__isa *isa, int rows, int depth, int stride, float **work)
{
    cnn__sparse m = { rows, depth, NULL, stride, NULL, NULL, NULL, NULL };
    ptrdiff_t i;
    m.from = cnn__next(work, (ptrdiff_t)rows * stride);
    m.values = cnn__next(work, (ptrdiff_t)rows * depth);
    m.offsets = (int32_t *)(void *)cnn__next(work, (ptrdiff_t)rows * depth);
    m.counts = (ptrdiff_t *)(void *)cnn__next(work, rows * CNN__OFFSET_FLOATS);
    m.corners = (int32_t *)(void *)cnn__next(work, depth);
    for (i = 0; i < depth; i++) m.corners[i] = (int32_t)i * isa->lanes * CNN__LINEAR_VECTORS;
    return m;
}

static void cnn__list_row(const cnn__isa *isa, const cnn__sparse *m, ptrdiff_t r)
{
    m->counts[r] = isa->list_nonzeros(m->values + r * m->depth, m->offsets + r * m->depth, m->from + r * m->stride,
                                      m->corners, NULL, NULL, 0, m->depth);
}

/* df of a block of samples, also transposed */
static void cnn__linear_df_piece(void *arguments, int block, int thread)
{
    const cnn__linear_job *job = (const cnn__linear_job *)arguments;
    const cnn_linear_shape *s = job->s;
    int first = block * job->isa->lanes, end = cnn__smaller(first + job->isa->lanes, s->batch), n;
    ptrdiff_t out = s->out_features, at = first * out;
    (void)thread;
    cnn__activate_back(job->isa, s->activation, s->slope, job->df.from + at, job->dy + at, job->result + at, NULL,
                       (end - first) * out);
    job->isa->to_lanes(job->transposed.from + first, 0, job->transposed.stride, job->df.from + at, out, end - first, 1,
                       (int)out);
    for (n = first; job->dx && n < end; n++) cnn__list_row(job->isa, &job->df, n);
}

/* For some outputs dbias, and the df that are not 0 */
static void cnn__linear_list_piece(void *arguments, int piece, int thread)
{
    const cnn__linear_job *job = (const cnn__linear_job *)arguments;
    const cnn__sparse *m = &job->transposed;
    int o = piece * CNN__LINEAR_ROWS, end = cnn__smaller(o + CNN__LINEAR_ROWS, m->rows);
    (void)thread;
    for (; o < end; o++) {
        if (job->dbias) job->dbias[o] += job->isa->total(m->from + o * m->stride, 0, m->depth);
        if (job->dweight) cnn__list_row(job->isa, m, o);
    }
}

static size_t cnn__simd_linear_work(void *context, const cnn_linear_shape *s)
{
    int threads = cnn__threads_of(context), lanes = cnn__isa_of(context)->lanes;
    int longest = (int)cnn__larger(s->batch, s->out_features);
    ptrdiff_t forward = cnn__align((ptrdiff_t)cnn__round_up(s->batch, lanes) * s->in_features)
                      + CNN__LINEAR_DEPTH * (int)CNN__OFFSET_FLOATS
                      + (ptrdiff_t)threads * CNN__LINEAR_OUTPUTS * CNN__MOST_LANES;
    ptrdiff_t backward = 5 * cnn__align((ptrdiff_t)s->batch * s->out_features)
                       + cnn__align((ptrdiff_t)cnn__round_up(s->batch, lanes) * s->out_features)
                       + 4 * cnn__align(s->batch + s->out_features)
                       + threads * cnn__packed_size(lanes * CNN__LINEAR_VECTORS, longest);
    return sizeof(float) * (size_t)cnn__larger(forward, backward);
}

static void cnn__simd_linear_forward(void *context, const cnn_linear_shape *s, float *y, const float *x,
                                     const float *weight, const float *bias, void *work)
{
    cnn__linear_job job;
    int lanes, blocks, i;
    memset(&job, 0, sizeof job);
    job.isa = cnn__isa_of(context);
    job.s = s; job.y = y; job.x = x; job.weight = weight; job.bias = bias;
    lanes = job.isa->lanes;
    if (!cnn__fills_lanes(s->batch, lanes)) {
        cnn__parallel(cnn__threads_of(context), cnn__divide_up(s->out_features, CNN__LINEAR_ROWS),
                      cnn__linear_rows_piece, &job);
        return;
    }
    blocks = cnn__divide_up(s->batch, lanes);
    job.offsets = (ptrdiff_t *)work;
    job.x_lanes = (float *)work + CNN__LINEAR_DEPTH * (int)CNN__OFFSET_FLOATS;
    job.scratch = job.x_lanes + cnn__align((ptrdiff_t)blocks * lanes * s->in_features);
    for (i = 0; i < CNN__LINEAR_DEPTH; i++) job.offsets[i] = (ptrdiff_t)i * lanes;
    cnn__parallel(cnn__threads_of(context), blocks, cnn__linear_lanes_piece, &job);
    cnn__parallel(cnn__threads_of(context),
                  cnn__divide_up(blocks, job.isa->vectors) * cnn__divide_up(s->out_features, CNN__LINEAR_OUTPUTS),
                  cnn__linear_forward_piece, &job);
}

static void cnn__simd_linear_backward(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias,
                                      const float *dy, const float *y, const float *x, const float *weight, void *work)
{
    cnn__linear_job job;
    float *next = (float *)work;
    int threads = cnn__threads_of(context), lanes;
    memset(&job, 0, sizeof job);
    job.isa = cnn__isa_of(context);
    lanes = job.isa->lanes;
    job.s = s; job.dx = dx; job.dweight = dweight; job.dbias = dbias; job.dy = dy; job.result = y; job.x = x;
    job.weight = weight;
    job.df = cnn__make_sparse(job.isa, s->batch, s->out_features, s->out_features, &next);
    job.transposed = cnn__make_sparse(job.isa, s->out_features, s->batch, cnn__round_up(s->batch, lanes), &next);
    job.scratch = next;
    cnn__parallel(threads, cnn__divide_up(s->batch, lanes), cnn__linear_df_piece, &job);
    cnn__parallel(threads, cnn__divide_up(s->out_features, CNN__LINEAR_ROWS), cnn__linear_list_piece, &job);
    cnn__parallel(threads, cnn__divide_up(s->in_features, lanes * CNN__LINEAR_VECTORS), cnn__linear_backward_piece,
                  &job);
}

/* ---- value by value: each operation has a job, and a function for a piece of its values ---- */

enum { CNN__VALUES = 1 << 14 };             /* of a piece: microseconds of work, much more than claiming it takes */

static void cnn__each(void *context, size_t n, void (*run)(void *job, int piece, int thread), void *job)
{
    cnn__parallel(cnn__threads_of(context), (int)((n + CNN__VALUES - 1) / CNN__VALUES), run, job);
}

/* How many values piece `piece` of n has; it begins at *first. */
static ptrdiff_t cnn__piece_of(size_t n, int piece, ptrdiff_t *first)
{
    ptrdiff_t left;
    *first = (ptrdiff_t)piece * CNN__VALUES;
    left = (ptrdiff_t)n - *first;
    return left < CNN__VALUES ? left : (ptrdiff_t)CNN__VALUES;
}

typedef struct cnn__activation_job {
    const cnn__isa *isa;
    cnn_activation f; float slope;
    float *out;                                            /* y, or dx */
    const float *dy, *y, *x;                               /* forward: NULL, NULL and x */
    size_t n;
} cnn__activation_job;

static const float *cnn__from(const float *values, ptrdiff_t first) { return values ? values + first : NULL; }

static void cnn__activation_piece(void *arguments, int piece, int thread)
{
    const cnn__activation_job *job = (const cnn__activation_job *)arguments;
    ptrdiff_t first, n = cnn__piece_of(job->n, piece, &first);
    float *out = job->out + first;
    const float *dy = cnn__from(job->dy, first), *y = cnn__from(job->y, first), *x = cnn__from(job->x, first);
    (void)thread;
    if (dy) cnn__activate_back(job->isa, job->f, job->slope, out, dy, y, x, n);
    else cnn__activate(job->isa, job->f, job->slope, out, x, n);
}

typedef struct cnn__add_job { float *y; const float *a, *b; size_t n; } cnn__add_job;

static void cnn__add_piece(void *arguments, int piece, int thread)
{
    const cnn__add_job *job = (const cnn__add_job *)arguments;
    ptrdiff_t first, n = cnn__piece_of(job->n, piece, &first);
    (void)thread;
    cnn__sum_of(job->y + first, job->a + first, job->b + first, (size_t)n);
}

static void cnn__simd_add(void *context, float *y, const float *a, const float *b, size_t n)
{
    cnn__add_job job = { y, a, b, n };
    cnn__each(context, n, cnn__add_piece, &job);
}

static void cnn__simd_activation_forward(void *context, cnn_activation f, float slope, float *y, const float *x,
                                         size_t n)
{
    cnn__activation_job job = { cnn__isa_of(context), f, slope, y, NULL, NULL, x, n };
    cnn__each(context, n, cnn__activation_piece, &job);
}

static void cnn__simd_activation_backward(void *context, cnn_activation f, float slope, float *dx, const float *dy,
                                          const float *y, const float *x, size_t n)
{
    cnn__activation_job job = { cnn__isa_of(context), f, slope, dx, dy, y, x, n };
    cnn__each(context, n, cnn__activation_piece, &job);
}

typedef struct cnn__dropout_job {
    const cnn__isa *isa;
    const cnn_counters *c;
    int layer; float p;
    float *y; const float *x;
    size_t n;
} cnn__dropout_job;

static void cnn__dropout_piece(void *arguments, int piece, int thread)
{
    const cnn__dropout_job *job = (const cnn__dropout_job *)arguments;
    ptrdiff_t first, n = cnn__piece_of(job->n, piece, &first);
    (void)thread;
    job->isa->dropout_values(job->y + first, job->x + first, n, job->c->seed, (uint32_t)job->layer, job->c->pass,
                            (uint32_t)(first / 4), (uint32_t)ceil((double)job->p * 16777216.0),
                            (float)(1 / (1.0 - (double)job->p)));
}

/* Forward, and backward with dx and dy: the mask and the factor are the same. */
static void cnn__simd_dropout(void *context, const cnn_counters *c, int layer, float p, float *y, const float *x,
                              size_t n)
{
    cnn__dropout_job job = { cnn__isa_of(context), c, layer, p, y, x, n };
    cnn__each(context, n, cnn__dropout_piece, &job);
}

typedef struct cnn__adam_job {
    const cnn__isa *isa;
    const cnn_counters *c;
    const cnn_adam_options *o; int decoupled;
    float *w, *m, *v; const float *g;
    size_t n;
    const cnn_span *spans; int count;
} cnn__adam_job;

/* A piece of the blocks of all parameters: what of each span lies in it */
static void cnn__adam_piece(void *arguments, int piece, int thread)
{
    const cnn__adam_job *job = (const cnn__adam_job *)arguments;
    ptrdiff_t first, last = cnn__piece_of(job->n, piece, &first) + first;
    const cnn_span *s;
    (void)thread;
    for (s = job->spans; s < job->spans + job->count; s++) {
        ptrdiff_t from = (ptrdiff_t)s->offset, end = from + (ptrdiff_t)s->count;
        cnn__adam_factors f;
        if (from < first) from = first;
        if (end > last) end = last;
        if (!s->trainable || from >= end) continue;
        f = cnn__adam_at_step(job->c, s, job->o, job->decoupled);
        job->isa->adam(&f, job->o, job->w + from, job->m + from, job->v + from, job->g + from, end - from);
    }
}

static void cnn__simd_adam_step(void *context, cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w,
                                float *m, float *v, const float *g, size_t n, cnn_span *spans, int count)
{
    cnn__adam_job job = { cnn__isa_of(context), c, o, decoupled, w, m, v, g, n, spans, count };
    cnn_span *s;
    cnn__each(context, n, cnn__adam_piece, &job);
    for (s = spans; s < spans + count; s++) s->step += s->trainable != 0;
    c->step++;
}

/* ---- sample by sample ---- */

typedef struct cnn__gather_job {
    const cnn__isa *isa;
    const cnn_counters *k; const cnn_gather_shape *s;
    float *x; const unsigned char *bytes; const float *floats;
    const int *order; const float *scale, *shift;
} cnn__gather_job;

static void cnn__gather_augmented(void *arguments, int n, int thread)
{
    const cnn__gather_job *job = (const cnn__gather_job *)arguments;
    (void)thread;
    cnn__gather(job->k, job->s, n, job->x, job->bytes, job->floats, job->order, job->scale, job->shift);
}

static void cnn__gather_sample(void *arguments, int n, int thread)
{
    const cnn__gather_job *job = (const cnn__gather_job *)arguments;
    const cnn_gather_shape *s = job->s;
    int sample = s->packed ? n : job->order[job->k->batch_offset + (uint64_t)n], pixels = s->height * s->width, c, p;
    (void)thread;
    for (c = 0; c < s->channels; c++) {
        ptrdiff_t from = ((ptrdiff_t)sample * s->channels + c) * pixels;
        float *to = job->x + ((ptrdiff_t)n * s->channels + c) * pixels;
        if (job->bytes) job->isa->scale_bytes(to, job->bytes + from, job->scale[c], job->shift[c], pixels);
        else for (p = 0; p < pixels; p++) to[p] = job->scale[c] * job->floats[from + p] + job->shift[c];
    }
}

static void cnn__simd_gather(void *context, const cnn_counters *k, const cnn_gather_shape *s, float *x,
                             const unsigned char *bytes, const float *floats, const int *order, const float *scale,
                             const float *shift)
{
    cnn__gather_job job = { cnn__isa_of(context), k, s, x, bytes, floats, order, scale, shift };
    cnn__parallel(cnn__threads_of(context), s->batch,
                  cnn__augments(&s->augment) ? cnn__gather_augmented : cnn__gather_sample, &job);
}

static void cnn__simd_pool2d_forward(void *context, const cnn_pool2d_shape *s, float *y, const float *x)
{
    cnn__pool_job job = { cnn__isa_of(context), s, y, NULL, NULL, x };
    cnn__parallel(cnn__threads_of(context), s->batch, cnn__pool_sample, &job);
}

static void cnn__simd_pool2d_backward(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy,
                                      const float *x)
{
    cnn__pool_job job = { cnn__isa_of(context), s, dx, NULL, dy, x };
    cnn__parallel(cnn__threads_of(context), s->batch, cnn__pool_sample, &job);
}

typedef struct cnn__pad_job { const cnn_pad2d_shape *s; float *to; const float *from; } cnn__pad_job;

static void cnn__pad_sample(void *arguments, int n, int thread)
{
    const cnn__pad_job *job = (const cnn__pad_job *)arguments;
    cnn_pad2d_shape one = *job->s;
    (void)thread;
    one.batch = 1;
    cnn__pad2d(&one, job->to + (ptrdiff_t)n * one.channels * one.out_height * one.out_width,
               job->from + (ptrdiff_t)n * one.channels * one.in_height * one.in_width);
}

static void cnn__simd_pad2d(void *context, const cnn_pad2d_shape *s, float *to, const float *from)
{
    cnn__pad_job job = { s, to, from };
    cnn__parallel(cnn__threads_of(context), s->batch, cnn__pad_sample, &job);
}

typedef struct cnn__prelu_job {
    const cnn__isa *isa;
    const cnn_map_shape *s;
    float *out; const float *dy, *x, *weight;              /* y, NULL and x; or dx, dy and x */
    float *sums;                                           /* (batch, channels): da of each sample, or NULL */
} cnn__prelu_job;

static void cnn__prelu_sample(void *arguments, int sample, int thread)
{
    const cnn__prelu_job *job = (const cnn__prelu_job *)arguments;
    ptrdiff_t n = job->s->pixels, at = sample * n * job->s->channels, i;
    int c;
    (void)thread;
    for (c = 0; c < job->s->channels; c++, at += n) {
        const float *x = job->x + at;
        double sum = 0;
        if (!job->dy) job->isa->leaky_forward(job->out + at, x, job->weight[c], n);
        else if (job->out) job->isa->leaky_backward(job->out + at, job->dy + at, x, job->weight[c], n);
        for (i = 0; job->sums && i < n; i++) sum += x[i] > 0 ? 0 : (double)x[i] * (double)job->dy[at + i];
        if (job->sums) job->sums[(ptrdiff_t)sample * job->s->channels + c] = (float)sum;
    }
}

static void cnn__simd_prelu_forward(void *context, const cnn_map_shape *s, float *y, const float *x,
                                    const float *weight)
{
    cnn__prelu_job job = { cnn__isa_of(context), s, y, NULL, x, weight, NULL };
    cnn__parallel(cnn__threads_of(context), s->batch, cnn__prelu_sample, &job);
}

static void cnn__simd_prelu_backward(void *context, const cnn_map_shape *s, float *dx, float *dweight,
                                     const float *dy, const float *x, const float *weight, float *work)
{
    cnn__prelu_job job = { cnn__isa_of(context), s, dx, dy, x, weight, dweight ? work : NULL };
    int n, c;
    cnn__parallel(cnn__threads_of(context), s->batch, cnn__prelu_sample, &job);
    for (c = 0; dweight && c < s->channels; c++) {
        double sum = 0;
        for (n = 0; n < s->batch; n++) sum += (double)work[(ptrdiff_t)n * s->channels + c];
        dweight[c] += (float)sum;
    }
}

/* ---- batch normalisation: channel by channel ----

   A channel's values lie in one map of each image. They are taken in runs: so many of a map that what is needed twice
   of a run is in the cache by then. Forward reads x from memory twice, backward x, y and dy. */

enum {
    CNN__RUN = 1024,                        /* values of a run, at most */
    CNN__SMALL_MAP = 8                      /* smaller maps are left to the card: a run has to be worth a call */
};

typedef struct cnn__batch_norm_job {
    const cnn__isa *isa;
    const cnn_batch_norm_shape *s;
    int channels;                                          /* of a piece */
    float *y, *to_save, *mean, *var;                       /* forward */
    float *dx, *dweight, *dbias; const float *dy, *result, *saved;         /* backward; result: y */
    const float *x, *weight, *bias;
} cnn__batch_norm_job;

/* Where value `at` of channel c is; *n: how many values the run has that begins there */
static ptrdiff_t cnn__run_at(const cnn_batch_norm_shape *s, int c, ptrdiff_t at, int *n)
{
    int p = (int)(at % s->pixels);
    *n = cnn__smaller(CNN__RUN, s->pixels - p);
    return cnn__batch_norm_map(s, (int)(at / s->pixels), c) + p;
}

/* Mean and squares of each run are joined to those before it (Chan, Golub, LeVeque 1983). A run is summed as
   differences from its first value, so that a constant channel is its mean exactly. */
static cnn__moments cnn__simd_moments(const cnn__batch_norm_job *job, int c)
{
    cnn__moments of = { 0, 0 };                            /* var: m times the variance, until the end */
    ptrdiff_t m = (ptrdiff_t)job->s->batch * job->s->pixels, first;
    int n;
    for (first = 0; first < m; first += n) {
        const float *x = job->x + cnn__run_at(job->s, c, first, &n);
        double mean = (double)x[0] + (double)job->isa->total(x, x[0], n) / n, delta = mean - of.mean;
        double all = (double)(first + n);
        of.mean += delta * n / all;
        of.var += (double)job->isa->sum_products(x, (float)mean, x, (float)mean, n);
        of.var += delta * delta * (double)first * n / all;
    }
    of.var /= (double)m;
    return of;
}

static void cnn__batch_norm_forward_channel(const cnn__batch_norm_job *job, int c)
{
    const cnn_batch_norm_shape *s = job->s;
    cnn__moments of;
    float mean, inverse, scale, shift = job->weight ? job->bias[c] : 0;
    ptrdiff_t m = (ptrdiff_t)s->batch * s->pixels, first;
    int n;
    if (s->training) of = cnn__simd_moments(job, c);
    else of.mean = (double)job->mean[c], of.var = (double)job->var[c];
    if (s->training && job->mean) cnn__batch_norm_move(s, job->mean + c, job->var + c, of);
    mean = (float)of.mean;
    inverse = (float)(1 / sqrt(of.var + (double)s->eps));
    if (job->to_save) job->to_save[c] = mean, job->to_save[s->channels + c] = inverse;
    scale = job->weight ? job->weight[c] * inverse : inverse;
    for (first = 0; first < m; first += n) {
        ptrdiff_t at = cnn__run_at(s, c, first, &n);
        job->isa->normalize(job->y + at, job->x + at, mean, scale, shift, n);
        if (s->activation) cnn__activate(job->isa, s->activation, s->slope, job->y + at, job->y + at, n);
    }
}

/* dy times the activation's slope, from value `at` on: where it is, or in df */
static const float *cnn__run_df(const cnn__batch_norm_job *job, ptrdiff_t at, int n, float *df)
{
    const cnn_batch_norm_shape *s = job->s;
    if (!s->activation) return job->dy + at;
    cnn__activate_back(job->isa, s->activation, s->slope, df, job->dy + at, job->result + at, NULL, n);
    return df;
}

static void cnn__batch_norm_backward_channel(const cnn__batch_norm_job *job, int c)
{
    const cnn_batch_norm_shape *s = job->s;
    float own[CNN__RUN], mean = job->saved[c], inverse = job->saved[s->channels + c], scale, shift, slope;
    double sum = 0, sum_xh = 0;
    ptrdiff_t m = (ptrdiff_t)s->batch * s->pixels, first, at;
    int n;
    for (first = 0; first < m; first += n) {
        const float *df;
        at = cnn__run_at(s, c, first, &n);
        df = cnn__run_df(job, at, n, own);
        sum += (double)job->isa->total(df, 0, n);
        sum_xh += (double)(job->isa->sum_products(df, 0, job->x + at, mean, n) * inverse);
    }
    if (job->dbias) job->dbias[c] += (float)sum;
    if (job->dweight) job->dweight[c] += (float)sum_xh;
    if (!s->training) sum = sum_xh = 0;
    scale = job->weight ? job->weight[c] * inverse : inverse;
    shift = (float)(sum / (double)m);
    slope = (float)(sum_xh * (double)inverse / (double)m);
    for (first = 0; job->dx && first < m; first += n) {
        at = cnn__run_at(s, c, first, &n);
        job->isa->normalize_back(job->dx + at, cnn__run_df(job, at, n, own), job->x + at, mean, scale, shift, slope, n);
    }
}

static void cnn__batch_norm_piece(void *arguments, int piece, int thread)
{
    const cnn__batch_norm_job *job = (const cnn__batch_norm_job *)arguments;
    int c = piece * job->channels, end = cnn__smaller(c + job->channels, job->s->channels);
    (void)thread;
    for (; c < end; c++)
        if (job->dy) cnn__batch_norm_backward_channel(job, c);
        else cnn__batch_norm_forward_channel(job, c);
}

static void cnn__batch_norm_run(void *context, const cnn_batch_norm_shape *s, cnn__batch_norm_job *job)
{
    job->isa = cnn__isa_of(context);
    job->s = s;
    job->channels = cnn__divide_up(16, s->pixels);         /* threads that write to one cache line would wait for it */
    cnn__parallel(cnn__threads_of(context), cnn__divide_up(s->channels, job->channels), cnn__batch_norm_piece, job);
}

static size_t cnn__simd_batch_norm_work(void *context, const cnn_batch_norm_shape *s)
{
    return s->pixels < CNN__SMALL_MAP ? cnn__direct_batch_norm_work(context, s) : 0;
}

static void cnn__simd_batch_norm_forward(void *context, const cnn_batch_norm_shape *s, float *y, float *saved,
                                         float *mean, float *var, int64_t *batches, const float *x,
                                         const float *weight, const float *bias)
{
    cnn__batch_norm_job job;
    if (s->pixels < CNN__SMALL_MAP) {
        cnn__direct_batch_norm_forward(context, s, y, saved, mean, var, batches, x, weight, bias);
        return;
    }
    memset(&job, 0, sizeof job);
    job.y = y; job.to_save = saved; job.mean = mean; job.var = var; job.x = x; job.weight = weight; job.bias = bias;
    cnn__batch_norm_run(context, s, &job);
    if (s->training && batches) ++*batches;
}

static void cnn__simd_batch_norm_backward(void *context, const cnn_batch_norm_shape *s, float *dx, float *dweight,
                                          float *dbias, const float *dy, const float *y, const float *saved,
                                          const float *x, const float *weight, void *work)
{
    cnn__batch_norm_job job;
    if (s->pixels < CNN__SMALL_MAP) {
        cnn__direct_batch_norm_backward(context, s, dx, dweight, dbias, dy, y, saved, x, weight, work);
        return;
    }
    memset(&job, 0, sizeof job);
    job.dx = dx; job.dweight = dweight; job.dbias = dbias; job.dy = dy; job.result = y; job.x = x; job.weight = weight;
    job.saved = saved;
    cnn__batch_norm_run(context, s, &job);
}

/* ---- the table `simd`: `direct`, with what is faster in its place ---- */

static void *cnn__simd_open(int threads, char *sentence, size_t room)
{
    const cnn__isa *isa = cnn__choose_isa(sentence, room);
    cnn__simd_context *simd = isa ? (cnn__simd_context *)cnn__alloc(1, sizeof *simd) : NULL;
    if (simd) simd->chosen = (cnn__chosen *)cnn__alloc(CNN__CHOSEN, sizeof *simd->chosen);
    if (isa && (!simd || !simd->chosen)) {
        cnn__free(simd);
        cnn__snprintf(sentence, room, "out of memory");
        return NULL;
    }
    if (!simd) return NULL;
    simd->threads = threads;
    simd->isa = isa;
    cnn__open_pool(threads);
    return simd;
}

static void cnn__simd_close(void *context)
{
    cnn__simd_context *simd = (cnn__simd_context *)context;
    cnn__close_pool();
    while (simd->kept_count) cnn__free(simd->kept[--simd->kept_count].u);
    cnn__free(simd->chosen);
    cnn__free(simd->kept);
    cnn__free(simd);
}

static cnn_backend cnn__simd(void)
{
    cnn_backend b = cnn__direct();
    b.name = "simd";
    b.open = cnn__simd_open;
    b.close = cnn__simd_close;
    b.conv2d_work = cnn__simd_conv2d_work;
    b.conv2d_forward = cnn__simd_conv2d_forward;
    b.conv2d_backward = cnn__simd_conv2d_backward;
    b.pool2d_forward = cnn__simd_pool2d_forward;
    b.pool2d_backward = cnn__simd_pool2d_backward;
    b.linear_work = cnn__simd_linear_work;
    b.linear_forward = cnn__simd_linear_forward;
    b.linear_backward = cnn__simd_linear_backward;
    b.add = cnn__simd_add;
    b.batch_norm_work = cnn__simd_batch_norm_work;
    b.batch_norm_forward = cnn__simd_batch_norm_forward;
    b.batch_norm_backward = cnn__simd_batch_norm_backward;
    b.activation_forward = cnn__simd_activation_forward;
    b.activation_backward = cnn__simd_activation_backward;
    b.prelu_forward = cnn__simd_prelu_forward;
    b.prelu_backward = cnn__simd_prelu_backward;
    b.pad2d = cnn__simd_pad2d;
    b.dropout_forward = cnn__simd_dropout;
    b.dropout_backward = cnn__simd_dropout;
    b.gather = cnn__simd_gather;
    b.adam_step = cnn__simd_adam_step;
    return b;
}

/* ============================================================================================
   >>layers   Every kind of layer: everything about it but the arithmetic, which is on its card. A
              kind is a table of functions, cnn__kind; the rest of the library calls these and
              names no kind.

   To add a layer:
       >>textbook   write its card: equation, shapes, _at, forward, backward
       >>api        declare cnn_NAME(), and an entry of the backend table for each direction; raise
                    CNN_BACKEND_VERSION
       >>direct     fill the entries with the card, and list them in CNN__OPERATIONS; >>simd and
                    cnn_cuda.cu, where they can be faster
       here         its shape in cnn__shapes, its options in cnn__layer, the functions of cnn__kind
                    that it needs, their list, and cnn_NAME(), which calls cnn__add_with
       tests        fixtures.py: PyTorch's numbers for every option; test_backends.c: random shapes
   Examples: softmax, the shortest with a card; tests/test_layers.c, a layer outside of this file.
   Building, memory, running, state dicts, summary, gradient check, explain and report then have it.
   ============================================================================================ */

/* ---- what a kind is made of ---- */

typedef struct cnn__kind cnn__kind;
struct cnn__op;

/* flat: (c, 1, 1), a vector */
typedef struct cnn__dims { int channels, height, width, flat; } cnn__dims;

enum { CNN__INPUTS = 2, CNN__TENSORS = 3 };  /* the most that a layer reads, and has of each */

/* The sizes that cards and backends take. A layer's are filled in by its kind's `shape`, all but
   the batch, which cnn__set_batch sets for each operation. */
typedef struct cnn__shapes {
    cnn_conv2d_shape conv;
    cnn_pool2d_shape pool;
    cnn_linear_shape linear;
    cnn_batch_norm_shape norm;
    cnn_map_shape map;
    cnn_pad2d_shape pad;
} cnn__shapes;

typedef struct cnn__layer {
    const cnn__kind *kind;
    const char *type;  /* "conv2d", "max_pool2d", ... for messages and tables */
    char name[96];
    int named;                              /* by the caller, so that messages repeat it */
    int inputs[CNN__INPUTS], input_count;   /* the layers whose outputs it reads; -1: the samples */
    int readers;                            /* how many layers read its output */
    cnn__dims in, other, out;               /* in: the first input's; other: the second's */
    int first_tensor, tensor_count;         /* its parameters, in net->tensors */
    int first_buffer, buffer_count;         /* what it keeps but does not learn, in net->buffers */
    int frozen[CNN__TENSORS];               /* cnn_requires_grad(.., 0), for each parameter */
    int op;  /* which operation computes its output; -1: none, it is the samples */
    /* what others ask about it */
    int has_kinks;                          /* its slope jumps somewhere: for the gradient check */
    int training_only;                      /* in evaluation, its output is its input */
    int value_by_value;                     /* y(i) needs x(i) alone, and may take its place */
    int sums_to_one;                        /* its outputs are probabilities */
    int mixes_samples;  /* while training, or without buffers, an output depends on all the batch */
    size_t kept;  /* bytes that forward leaves for backward, for the whole batch */
    double multiply_adds;                   /* for one value of its output, forward */
    int takes_scale;  /* its parameters: a weight with a row for each output channel, and a bias */
    /* in evaluation its output is (returned) scale(k) x + shift(k), for each channel k; or NULL */
    double (*scale)(const struct cnn__op *op, int k, double *shift);
    /* for the kinds' own functions */
    cnn__shapes shapes;
    cnn_conv2d_options conv_options;
    cnn_pool2d_options pool_options;
    cnn_adaptive_pool2d_options adaptive_options;
    cnn_zero_pad2d_options pad_options;
    cnn_prelu_options prelu_options;
    cnn_linear_options linear_options;
    cnn_batch_norm_options norm_options;
    int along_width, average;               /* conv1d, pool1d, batch_norm1d; avg_pool */
    cnn_activation activation;
    float slope, p;                         /* of leaky_relu; of dropout */
} cnn__layer;

typedef struct cnn__tensor {                /* one parameter or buffer */
    const char *name;                       /* "weight" */
    char key[112];                          /* "features.0.weight" */
    int layer, place;                       /* its place in the layer's list */
    int ndim, shape[4];
    size_t offset, count;  /* floats, in the block of all parameters and, behind them, buffers */
    size_t fan_in, fan_out;                 /* of the first values; 0: all are `first` */
    cnn_init init;
    float first;
    int integer;                            /* one int64_t, in the place of two floats */
} cnn__tensor;

/* The layers first .. last, run as one operation: what goes in and what comes out. `forward` and
   `backward` find backend memory in it; `at` and `explain` find copies on the host. */
typedef struct cnn__op {
    const cnn_backend *b;
    const cnn__layer *layer;                /* the first */
    int first, last;                        /* places in the network */
    cnn__shapes shapes;                     /* the first layer's, with what is fused into it */
    int batch, training;
    const cnn_counters *counters;
    float *tensors[CNN__TENSORS], *gradients[CNN__TENSORS];    /* a gradient is NULL where frozen */
    float *buffers[CNN__TENSORS];  /* NULL in a look at how it trains: nothing may move then */
    size_t index_size, kept;  /* bytes that forward leaves for backward: a sample's, and others */
    unsigned char *index;                   /* (batch, index_size), or (kept); NULL: not wanted */
    float *output;                          /* (batch, out), its own memory */
    const float *x[CNN__INPUTS];            /* of the last forward pass: what came in */
    float *y;                               /* what went out: output, or x where it did nothing */
    int wants_gradient;                     /* it learns, or something before it does */
    float *dy;                              /* on the way back: its output's gradient, so far */
    float *dx[CNN__INPUTS];  /* where backward puts the gradients; NULL: not wanted */
    void *work;
    /* (channels), for `at` while x stays: var is -1 until it is known; or NULL */
    cnn__moments *moments;
} cnn__op;

/* Where a layer is being built: its network, its label in messages, and where an error is written
   (NULL: nowhere) */
typedef struct cnn__fitter {
    const cnn_net *net;
    const char *label;
    cnn__text *error;
} cnn__fitter;

/* What a kind of layer can do. `shape` and `explain` must be there, and `at` where `forward` is;
   any other entry may be NULL. */
struct cnn__kind {
    /* From l->in and the options: fills l->shapes, l->out and what others ask about the layer.
       Returns 1, or 0 and an error. */
    int (*shape)(cnn__layer *l, const cnn__fitter *f);
    /* Both NULL: nothing is computed; the output is the input in another shape. backward adds to
       the parameters' gradients and overwrites dx. */
    void (*forward)(const cnn__op *op);
    void (*backward)(const cnn__op *op);
    /* The card's _at: output (n, k, row, column), in double, for the gradient check. */
    double (*at)(const cnn__op *op, int n, int k, int row, int column);
    /* Prints how output (k, row, column) of sample 0 comes about. */
    void (*explain)(const cnn__op *op, FILE *out, int k, int row, int column);
    /* Writes the body of a C function for cnn_export_c. It evaluates one sample, `out` from `in`
       (and in2), with the layer's tensors in arrays of their shapes, layer<number>_weight, ... */
    void (*export_c)(const cnn__layer *l, int number, FILE *file);
    /* Fill t with the parameters, or the buffers (kept, but not learned): name, ndim, shape, fans,
       init. Return how many there are. */
    int (*tensors)(const cnn__layer *l, cnn__tensor *t);
    int (*buffers)(const cnn__layer *l, cnn__tensor *t);
    /* Returns 1 if op now does the work of `next`, too. */
    int (*fuse)(cnn__op *op, const cnn__layer *next);
    /* Returns the bytes of scratch memory that both directions need. */
    size_t (*work)(const cnn__op *op);
    /* What cnn_NAME() is given (CNN__TAKES): where it is in the layer, and its fields */
    size_t options_at, options_size;
    const struct cnn__field *fields;
    size_t field_count;
};

static void cnn__add(cnn_net *net, cnn__layer *layer);  /* >>net: names it, fits it, appends it */
/* >>net: .in_features of a linear layer is another number; always 0, and an error */
static int cnn__features_differ(const cnn__layer *l, const cnn__fitter *f);

static int cnn__misfit(const cnn__fitter *f, const char *format, ...) CNN__PRINTF(2, 3);
/* `layer 3 (linear): ...`; always 0 */
static int cnn__misfit(const cnn__fitter *f, const char *format, ...)
{
    cnn__text text;
    va_list arguments;
    va_start(arguments, format);
    cnn__vsnprintf(text.s, sizeof text.s, format, arguments);
    va_end(arguments);
    return cnn__say(f->error, "%s: %s", f->label, text.s);
}

static size_t cnn__size(cnn__dims d)
{ return (size_t)((ptrdiff_t)d.channels * d.height * d.width); }

static cnn__dims cnn__maps(int channels, int height, int width)
{
    cnn__dims d = { channels, height, width, 0 };
    return d;
}

static cnn__dims cnn__flat(int features)
{
    cnn__dims d = { features, 1, 1, 1 };
    return d;
}

static const char *cnn__dims_text(cnn__dims d, cnn__text *text)
{
    if (d.flat) cnn__snprintf(text->s, sizeof text->s, "%d", d.channels);
    else cnn__snprintf(text->s, sizeof text->s, "%d x %d x %d", d.channels, d.height, d.width);
    return text->s;
}

static cnn__layer cnn__layer_of(const cnn__kind *kind, const char *type)
{
    cnn__layer layer;
    memset((void *)&layer, 0, sizeof layer);
    layer.kind = kind;
    layer.type = type;
    layer.input_count = 1;
    return layer;
}

static size_t cnn__values(const cnn__op *op)
{ return cnn__size(op->layer->out) * (size_t)op->batch; }

/* in an output (n, k, h', w') */
static size_t cnn__place(const cnn__layer *l, int n, int k, int row, int column)
{
    return (size_t)((((ptrdiff_t)n * l->out.channels + k) * l->out.height + row) * l->out.width
                    + column);
}

/* Where the output has the input's shape: the input value in the same place */
static double cnn__x_at(const cnn__op *op, int n, int k, int row, int column)
{ return (double)op->x[0][cnn__place(op->layer, n, k, row, column)]; }

static void cnn__explain_value(const cnn__op *op, FILE *out, int k, int row, int column)
{
    cnn__fprintf(out, "  x = %.6f, y = %.6f\n", cnn__x_at(op, 0, k, row, column),
                 (op->layer->kind->at)(op, 0, k, row, column));      /* `at` may be a macro */
}

/* ---- C code, for cnn_export_c ---- */

static void cnn__line(FILE *file, int depth, const char *format, ...) CNN__PRINTF(3, 4);
static void cnn__line(FILE *file, int depth, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    cnn__fprintf(file, "%*s", 4 * depth, "");
    cnn__vfprintf(file, format, arguments);
    cnn__fprintf(file, "\n");
    va_end(arguments);
}

/* 0.1f: nine digits tell every float from its neighbours */
static const char *cnn__c_number(float value, cnn__text *text)
{
    cnn__snprintf(text->s, sizeof text->s - 3, "%.9g", (double)value);
    strcat(text->s, strpbrk(text->s, ".e") ? "f" : ".0f");
    return text->s;
}

/* One side of an input and the window that slides along it. The names are the code's variables. */
typedef struct cnn__slide {
    const char *place, *output, *kernel;    /* "row", "j", "y" */
    int in, out, size, stride, dilation, pad;
} cnn__slide;

/* `if (row < 0 || row >= 28) continue;`, where a window can reach beyond the border */
static void cnn__line_border(FILE *file, int depth, const cnn__slide *s, cnn_padding_mode mode)
{
    const char *p = s->place;
    int n = s->in, before = s->pad > 0;
    int after = (s->out - 1) * s->stride + (s->size - 1) * s->dilation - s->pad >= n;
    switch (mode) {
    case CNN_REPLICATE:
        if (before) cnn__line(file, depth, "if (%s < 0) %s = 0;", p, p);
        if (after) cnn__line(file, depth, "if (%s >= %d) %s = %d;", p, n, p, n - 1);
        break;
    case CNN_REFLECT:
        if (before) cnn__line(file, depth, "if (%s < 0) %s = -%s;", p, p, p);
        if (after) cnn__line(file, depth, "if (%s >= %d) %s = %d - %s;", p, n, p, 2 * (n - 1), p);
        break;
    case CNN_CIRCULAR:
        if (before) cnn__line(file, depth, "if (%s < 0) %s += %d;", p, p, n);
        if (after) cnn__line(file, depth, "if (%s >= %d) %s -= %d;", p, n, p, n);
        break;
    default:
        if (before && after)
            cnn__line(file, depth, "if (%s < 0 || %s >= %d) continue;", p, p, n);
        else if (before) cnn__line(file, depth, "if (%s < 0) continue;", p);
        else if (after) cnn__line(file, depth, "if (%s >= %d) continue;", p, n);
    }
}

/* Opens the loop over the window's places. */
static void cnn__line_slide(FILE *file, int depth, const cnn__slide *s, cnn_padding_mode mode)
{
    cnn__text stride = { "" }, dilation = { "" }, pad = { "" };
    if (s->stride > 1) cnn__snprintf(stride.s, sizeof stride.s, "%d * ", s->stride);
    if (s->dilation > 1) cnn__snprintf(dilation.s, sizeof dilation.s, "%d * ", s->dilation);
    if (s->pad) cnn__snprintf(pad.s, sizeof pad.s, " - %d", s->pad);
    cnn__line(file, depth, "for (%s = 0; %s < %d; %s++) {", s->kernel, s->kernel, s->size,
              s->kernel);
    cnn__line(file, depth + 1, "int %s = %s%s + %s%s%s;", s->place, stride.s, s->output, dilation.s,
              s->kernel, pad.s);
    cnn__line_border(file, depth + 1, s, mode);
}

/* ---- options: what 0 and CNN_ZERO mean ----

   0 is what C99 makes of a field that was not given: it asks for the default. CNN_ZERO asks for
   zero. All fields of all options but the pointers stand in lists, before the function that takes
   them, and go through cnn__options: else one could be -2^31. */

typedef struct cnn__field {
    const char *name;
    size_t at;                              /* where in the struct */
    char type;                              /* 'i' int or enum, 'f' float, 'u' uint64_t */
    double otherwise;                       /* the default */
    int like;                               /* or the default is that earlier field's value; -1 */
} cnn__field;

#define CNN__INT(o, field, otherwise) { #field, offsetof(o, field), 'i', otherwise, -1 }
#define CNN__FLOAT(o, field, otherwise) { #field, offsetof(o, field), 'f', otherwise, -1 }
#define CNN__LIKE(o, field, other) { #field, offsetof(o, field), 'i', 0, (int)offsetof(o, other) }
/* one for both, or each: .kernel_size, .kernel_height, .kernel_width */
#define CNN__SIDES(o, both, each, otherwise) \
    CNN__INT(o, both, otherwise), \
    CNN__LIKE(o, each##_height, both), CNN__LIKE(o, each##_width, both)

#define CNN__AUGMENT(o) \
    CNN__INT(o, augment.padding, 0), CNN__INT(o, augment.flip, 0), \
    CNN__FLOAT(o, augment.rotation, 0), CNN__FLOAT(o, augment.scale, 0)

/* of a kind: its place in cnn__layer and its list; or none */
#define CNN__TAKES(place, fields) offsetof(cnn__layer, place), \
    sizeof ((cnn__layer *)0)->place, fields, sizeof fields / sizeof *fields
#define CNN__NO_OPTIONS 0, 0, NULL, 0

/* cnn__options for a struct and its list */
#define CNN__OPTIONS(o, fields, call, error) \
    cnn__options(o, fields, sizeof fields / sizeof *fields, call, error)

/* Puts into each field what it means. 0 and an error where a float is NaN or infinite: no option
   takes that. */
static int cnn__options(void *options, const cnn__field *f, size_t count, const char *call,
                        cnn__text *error)
{
    for (; count--; f++) {
        char *here = (char *)options + f->at;
        int i, otherwise;
        float x;
        uint64_t u;
        memcpy(&i, here, sizeof i);
        memcpy(&x, here, sizeof x);
        if (f->type == 'i') {
            if (f->like < 0) otherwise = (int)f->otherwise;
            else memcpy(&otherwise, (char *)options + f->like, sizeof otherwise);
            i = i == CNN_ZERO ? 0 : i ? i : otherwise;
            memcpy(here, &i, sizeof i);
        } else if (f->type == 'f') {
            if (!(x - x == 0))
                return cnn__say(error, "%s: .%s is %g, but must be a finite number", call, f->name,
                                (double)x);
            x = x == (float)CNN_ZERO ? 0 : x != 0 ? x : (float)f->otherwise;
            memcpy(here, &x, sizeof x);
        } else {
            memcpy(&u, here, sizeof u);
            if (u == (uint64_t)(int64_t)CNN_ZERO) memset(here, 0, sizeof u);
        }
    }
    return 1;
}

/* A layer of this kind, with the options that cnn_NAME() was given. along_width: 1 for conv1d,
   pool1d and batch_norm1d; average: 1 for avg_pool */
static void cnn__add_with(cnn_net *net, const cnn__kind *kind, const char *type,
                          const void *options, int along_width, int average)
{
    cnn__layer layer = cnn__layer_of(kind, type);
    if (options) memcpy((char *)&layer + kind->options_at, options, kind->options_size);
    layer.along_width = along_width;
    layer.average = average;
    cnn__add(net, &layer);
}

/* ---- shapes ---- */

enum { CNN__LONGEST_SIDE = INT_MAX / 4 };   /* so that what is calculated with it fits an int */

/* The size of one side after a convolution or pooling; 0 and an error if the window does not fit.
   With ceil_mode rounded up, as in PyTorch: the last window may hang over, but begins in the input
   or the padding before it. A stride longer than the padded side, which gives one window either
   way, is shortened to it. */
static int cnn__output_size(const char *side, int in, int before, int after, int kernel,
                            int dilation, int *stride, int ceil_mode, const cnn__fitter *f)
{
    int64_t padded = (int64_t)in + before + after, out;
    int64_t span = padded - (int64_t)dilation * (kernel - 1) - 1;
    const char *rounded = ceil_mode ? "ceil" : "floor";
    int given = *stride;
    if (padded > CNN__LONGEST_SIDE)
        return cnn__misfit(f, "its input's %s with the padding is %d + %.0f, more than the %d it "
                           "can have; give less padding, or cut the input", side, in,
                           (double)before + after, (int)CNN__LONGEST_SIDE);
    if (ceil_mode) span += given - 1;
    out = span < 0 ? 0 : span / given + 1;
    if (ceil_mode && (out - 1) * given >= (int64_t)in + before) out--;
    if (given > padded) *stride = (int)padded;
    if (out < 1)
        cnn__misfit(f, "its window does not fit: output %s = %s((in + padding - dilation * (kernel "
                    "- 1) - 1) / stride) + 1 = %s((%d + %d - %d * (%d - 1) - 1) / %d) + 1 < 1; "
                    "give more padding, a smaller kernel, or a larger input", side, rounded,
                    rounded, in, before + after, dilation, kernel, given);
    return (int)out;
}

static int cnn__has_maps(const cnn__layer *l, const cnn__fitter *f)
{
    if (!l->in.flat) return 1;
    return cnn__misfit(f, "needs channels x height x width, but its input is flat, a vector of %d "
                       "values; put it before cnn_flatten", l->in.channels);
}

/* conv1d and pool1d; instead: what is meant for images */
static int cnn__has_one_row(const cnn__layer *l, const char *instead, const cnn__fitter *f)
{
    if (!l->along_width || l->in.height == 1) return 1;
    return cnn__misfit(f, "needs an input of height 1, but gets %d x %d x %d; use %s for images",
                       l->in.channels, l->in.height, l->in.width, instead);
}

static int cnn__usable_init(cnn_init init, const cnn__fitter *f)
{
    if ((unsigned)init <= CNN_XAVIER_NORMAL) return 1;
    return cnn__misfit(f, "init %d is none of CNN_INIT_DEFAULT, CNN_KAIMING_UNIFORM, "
                       "CNN_KAIMING_NORMAL, CNN_XAVIER_UNIFORM, CNN_XAVIER_NORMAL", (int)init);
}

/* One tensor of the channels, or, without them, one number */
static void cnn__channel_tensor(cnn__tensor *t, const char *name, int channels, float first)
{
    memset(t, 0, sizeof *t);
    t->name = name;
    t->ndim = channels > 0;
    t->shape[0] = channels;
    t->first = first;
}

/* The parameters of a convolution or linear layer: each of shape[0] outputs sees fan_in values. */
static int cnn__weight_and_bias(cnn__tensor *t, int ndim, const int shape[4], cnn_init init,
                                int no_bias)
{
    size_t kernel = 1;
    int i;
    for (i = 2; i < ndim; i++) kernel *= (size_t)shape[i];
    cnn__channel_tensor(&t[0], "weight", shape[0], 0);
    t[0].ndim = ndim;
    memcpy(t[0].shape, shape, sizeof t[0].shape);
    t[0].fan_in = (size_t)shape[1] * kernel;
    t[0].fan_out = (size_t)shape[0] * kernel;
    t[0].init = init;
    if (no_bias) return 1;
    cnn__channel_tensor(&t[1], "bias", shape[0], 0);
    t[1].fan_in = t[0].fan_in;
    return 2;
}

/* f, slope: an operation's, which takes one activation */
static int cnn__fuse_activation(cnn_activation *f, float *slope, const cnn__layer *next)
{
    if (!next->activation || next->activation == CNN_GELU || *f) return 0;
    *f = next->activation;
    *slope = next->slope;
    return 1;
}

/* ---- convolution ---- */

static const cnn__field cnn__conv2d_fields[] = {
    CNN__INT(cnn_conv2d_options, out_channels, 0),
    CNN__SIDES(cnn_conv2d_options, kernel_size, kernel, 0),
    CNN__SIDES(cnn_conv2d_options, stride, stride, 1),
    CNN__SIDES(cnn_conv2d_options, padding, padding, 0),
    CNN__SIDES(cnn_conv2d_options, dilation, dilation, 1),
    CNN__INT(cnn_conv2d_options, groups, 1), CNN__INT(cnn_conv2d_options, padding_mode, CNN_ZEROS),
    CNN__INT(cnn_conv2d_options, no_bias, 0), CNN__INT(cnn_conv2d_options, in_channels, 0),
    CNN__INT(cnn_conv2d_options, init, CNN_INIT_DEFAULT)
};

static int cnn__check_conv2d(const cnn__layer *l, const cnn__fitter *f)
{
    const cnn_conv2d_options *o = &l->conv_options;
    int c = l->in.channels;
    if (!cnn__has_maps(l, f) || !cnn__has_one_row(l, "conv2d", f)) return 0;
    if (o->out_channels < 1 || o->kernel_height < 1 || o->kernel_width < 1)
        return cnn__misfit(f, "needs .out_channels and .kernel_size of at least 1, but has "
                           "out_channels %d and a kernel of %d x %d", o->out_channels,
                           o->kernel_height, o->kernel_width);
    if (o->stride_height < 1 || o->stride_width < 1 || o->dilation_height < 1
        || o->dilation_width < 1)
        return cnn__misfit(f, "stride and dilation must be at least 1, but are %d x %d and %d x %d",
                           o->stride_height, o->stride_width, o->dilation_height,
                           o->dilation_width);
    if (o->in_channels && o->in_channels != c)
        return cnn__misfit(f, "expects %d input channels, but gets %d", o->in_channels, c);
    if (o->groups < 1) return cnn__misfit(f, "groups must be at least 1, but is %d", o->groups);
    if (c % o->groups || o->out_channels % o->groups)
        return cnn__misfit(f, "%d groups do not divide %d input and %d output channels", o->groups,
                           c, o->out_channels);
    if ((unsigned)o->padding_mode > CNN_CIRCULAR)
        return cnn__misfit(f, "padding_mode %d is none of CNN_ZEROS, CNN_REPLICATE, CNN_REFLECT, "
                           "CNN_CIRCULAR", (int)o->padding_mode);
    return cnn__usable_init(o->init, f);
}

/* CNN_SAME: the output is as large as the input; the larger half of an odd padding comes after it,
   as in PyTorch. */
static int cnn__pad_conv2d(cnn_conv2d_shape *s, const cnn_conv2d_options *o, const cnn__fitter *f)
{
    int same = o->padding == CNN_SAME, most = CNN__LONGEST_SIDE;
    int height = s->in_height, width = s->in_width;
    double down = same ? s->dilation_height * (s->kernel_height - 1.0) : 2.0 * o->padding_height;
    double across = same ? s->dilation_width * (s->kernel_width - 1.0) : 2.0 * o->padding_width;
    if (same && (s->stride_height != 1 || s->stride_width != 1))
        return cnn__misfit(f, "padding CNN_SAME needs stride 1, but the stride is %d x %d",
                           s->stride_height, s->stride_width);
    if (same && (down > most || across > most))
        return cnn__misfit(f, "the kernel spans %.0f x %.0f values, too many", down + 1,
                           across + 1);
    if (down < 0 || across < 0 || down > 2.0 * most || across > 2.0 * most)
        return cnn__misfit(f, "padding must be at least 0 or CNN_SAME, and no more than the input "
                           "could need, but is %d x %d", o->padding_height, o->padding_width);
    s->pad_top = (int)down / 2; s->pad_bottom = (int)down - s->pad_top;
    s->pad_left = (int)across / 2; s->pad_right = (int)across - s->pad_left;
    if (s->padding_mode == CNN_ZEROS || s->padding_mode == CNN_REPLICATE) return 1;
    /* circular goes around once; reflect leaves the border value out */
    if (s->padding_mode == CNN_REFLECT) height--, width--;
    if (s->pad_bottom <= height && s->pad_right <= width) return 1;
    return cnn__misfit(f, "%s padding of %d x %d needs a larger input than %d x %d",
                       s->padding_mode == CNN_REFLECT ? "reflect" : "circular", s->pad_bottom,
                       s->pad_right, s->in_height, s->in_width);
}

static int cnn__layer_conv2d_shape(cnn__layer *l, const cnn__fitter *f)
{
    cnn_conv2d_options *o = &l->conv_options;
    cnn_conv2d_shape *s = &l->shapes.conv;
    double high, wide;
    if (l->along_width) {
        o->kernel_height = o->stride_height = o->dilation_height = 1;
        o->padding_height = 0;
    }
    if (!cnn__check_conv2d(l, f)) return 0;
    s->in_channels = l->in.channels; s->in_height = l->in.height; s->in_width = l->in.width;
    s->out_channels = o->out_channels;
    s->groups = o->groups;
    s->padding_mode = o->padding_mode;
    s->kernel_height = o->kernel_height; s->kernel_width = o->kernel_width;
    s->stride_height = o->stride_height; s->stride_width = o->stride_width;
    /* one value is not dilated */
    s->dilation_height = s->kernel_height > 1 ? o->dilation_height : 1;
    s->dilation_width = s->kernel_width > 1 ? o->dilation_width : 1;
    if (!cnn__pad_conv2d(s, o, f)) return 0;
    s->out_height = cnn__output_size("height", s->in_height, s->pad_top, s->pad_bottom,
                                     s->kernel_height, s->dilation_height, &s->stride_height, 0, f);
    s->out_width = cnn__output_size("width", s->in_width, s->pad_left, s->pad_right,
                                    s->kernel_width, s->dilation_width, &s->stride_width, 0, f);
    if (!s->out_height || !s->out_width) return 0;
    /* values are counted in ints; a kernel, which fits in the padded sample, has no more */
    high = (double)s->in_height + s->pad_top + s->pad_bottom;
    wide = (double)s->in_width + s->pad_left + s->pad_right;
    if (s->in_channels * high * wide > INT_MAX)
        return cnn__misfit(f, "its input with the padding, %d x %.0f x %.0f, has more than %d "
                           "values", s->in_channels, high, wide, INT_MAX);
    l->out = cnn__maps(s->out_channels, s->out_height, s->out_width);
    l->multiply_adds = (double)(s->in_channels / s->groups) * s->kernel_height * s->kernel_width;
    l->takes_scale = 1;
    return 1;
}

static int cnn__layer_conv2d_tensors(const cnn__layer *l, cnn__tensor *t)
{
    const cnn_conv2d_shape *s = &l->shapes.conv;
    int depth = s->in_channels / s->groups;
    int shape[4] = { s->out_channels, depth, s->kernel_height, s->kernel_width };
    if (l->along_width) shape[2] = s->kernel_width;
    return cnn__weight_and_bias(t, l->along_width ? 3 : 4, shape, l->conv_options.init,
                                l->conv_options.no_bias);
}

/* conv + activation + max pooling are one operation: the maps are pooled while they are at hand.
   The place of a window's largest value must fit a byte. */
static int cnn__layer_conv2d_fuse(cnn__op *op, const cnn__layer *next)
{
    const cnn_pool2d_shape *pool = &next->shapes.pool;
    if (op->shapes.conv.pool.kernel_height) return 0;      /* pooling is the last */
    if (cnn__fuse_activation(&op->shapes.conv.activation, &op->shapes.conv.slope, next)) return 1;
    if (!pool->kernel_height || pool->average
        || (double)pool->kernel_height * pool->kernel_width > 256)
        return 0;
    op->shapes.conv.pool = *pool;
    op->index_size = cnn__size(next->out);
    return 1;
}

static size_t cnn__layer_conv2d_work(const cnn__op *op)
{ return op->b->conv2d_work(op->b->context, &op->shapes.conv); }

static void cnn__layer_conv2d_forward(const cnn__op *op)
{
    op->b->conv2d_forward(op->b->context, &op->shapes.conv, op->y, op->index, op->x[0],
                          op->tensors[0], op->tensors[1], op->work);
}

static void cnn__layer_conv2d_backward(const cnn__op *op)
{
    op->b->conv2d_backward(op->b->context, &op->shapes.conv, op->dx[0], op->gradients[0],
                           op->gradients[1], op->dy, op->y, op->index, op->x[0], op->tensors[0],
                           op->work);
}

static double cnn__layer_conv2d_at(const cnn__op *op, int n, int k, int row, int column)
{
    return cnn__conv2d_at(&op->shapes.conv, op->x[0], op->tensors[0], op->tensors[1], n, k, row,
                          column);
}

/* Prints the products of channel c, counted in the group that kernel k sees. Returns their sum. */
static double cnn__explain_channel(const cnn__op *op, FILE *out, int k, int row, int column,
                                   int c)
{
    const cnn_conv2d_shape *s = &op->shapes.conv;
    int depth = s->in_channels / s->groups, first = k / (s->out_channels / s->groups) * depth, y, x;
    const float *map = op->x[0] + (ptrdiff_t)(first + c) * s->in_height * s->in_width;
    const float *kernel = op->tensors[0]
                        + ((ptrdiff_t)k * depth + c) * s->kernel_height * s->kernel_width;
    double sum = 0;
    cnn__fprintf(out, "  c = %d\n", first + c);
    for (y = 0; y < s->kernel_height; y++) {
        int j = row * s->stride_height + y * s->dilation_height - s->pad_top;
        int from = cnn__border(j, s->in_height, s->padding_mode);
        cnn__fprintf(out, "   ");
        for (x = 0; x < s->kernel_width; x++) {
            int i = column * s->stride_width + x * s->dilation_width - s->pad_left;
            int at = cnn__border(i, s->in_width, s->padding_mode);
            double z = from < 0 || at < 0 ? 0 : (double)map[(ptrdiff_t)from * s->in_width + at];
            double u = (double)kernel[y * s->kernel_width + x];
            int padded = j < 0 || i < 0 || j >= s->in_height || i >= s->in_width;
            cnn__fprintf(out, " %s%8.4f%s*%8.4f", padded ? "[" : " ", z, padded ? "]" : " ", u);
            sum += z * u;
        }
        cnn__fprintf(out, "\n");
    }
    cnn__fprintf(out, "    sum of these products: %.6f\n", sum);
    return sum;
}

/* `sum 0.74 + bias 0.16 = 0.90` */
static void cnn__explain_sum(FILE *out, double sum, const float *bias, const char *end)
{
    double b = bias ? (double)*bias : 0;
    cnn__fprintf(out, "  sum %.6f %c bias %.6f = %.6f%s\n", sum, b < 0 ? '-' : '+', fabs(b),
                 sum + b, end);
}

static void cnn__layer_conv2d_explain(const cnn__op *op, FILE *out, int k, int row, int column)
{
    const cnn_conv2d_shape *s = &op->shapes.conv;
    double sum = 0;
    int c;
    cnn__fprintf(out, "f(%d, %d, %d) = b(%d) + sum over c, y, x of  z(c, %d + y%s, %d + x%s) u(%d, "
                 "c, y, x)\n", k, row, column, k, row * s->stride_height - s->pad_top,
                 s->dilation_height > 1 ? " d" : "", column * s->stride_width - s->pad_left,
                 s->dilation_width > 1 ? " d" : "", k);
    for (c = 0; c < s->in_channels / s->groups; c++)
        sum += cnn__explain_channel(op, out, k, row, column, c);
    cnn__explain_sum(out, sum, op->tensors[1] ? op->tensors[1] + k : NULL,
                     "        ([ ]: beyond the border)");
}

/* (6.2), as on the card: *out is f, in is z, the weight u */
static void cnn__layer_conv2d_export_c(const cnn__layer *l, int number, FILE *file)
{
    const cnn_conv2d_shape *s = &l->shapes.conv;
    cnn__slide rows = { "row", "j", "y", s->in_height, s->out_height, s->kernel_height,
                        s->stride_height, s->dilation_height, s->pad_top };
    cnn__slide columns = { "column", "i", "x", s->in_width, s->out_width, s->kernel_width,
                           s->stride_width, s->dilation_width, s->pad_left };
    int depth = s->in_channels / s->groups, two = !l->along_width;  /* two: rows, a level more */
    cnn__text channel = { "c" }, bias = { "0" }, row = { "" };
    if (s->groups > 1)                      /* the channels of kernel k's group */
        cnn__snprintf(channel.s, sizeof channel.s, "(k / %d * %d + c)", s->out_channels / s->groups,
                      depth);
    if (l->tensor_count > 1) cnn__snprintf(bias.s, sizeof bias.s, "layer%d_bias[k]", number);
    if (two) cnn__snprintf(row.s, sizeof row.s, " * %d + row)", s->in_height);
    cnn__line(file, 1, "int k, %si, c, %sx;", two ? "j, " : "", two ? "y, " : "");
    cnn__line(file, 1, "for (k = 0; k < %d; k++)", s->out_channels);
    if (two) cnn__line(file, 2, "for (j = 0; j < %d; j++)", s->out_height);
    cnn__line(file, 2 + two, "for (i = 0; i < %d; i++) {", s->out_width);
    cnn__line(file, 3 + two, "float sum = %s;", bias.s);
    cnn__line(file, 3 + two, "for (c = 0; c < %d; c++)", depth);
    if (two) cnn__line_slide(file, 5, &rows, s->padding_mode);
    cnn__line_slide(file, 4 + 2 * two, &columns, s->padding_mode);
    cnn__line(file, 5 + 2 * two, "sum += layer%d_weight[k][c]%s[x] * in[%s%s%s * %d + column];",
              number, two ? "[y]" : "", two ? "(" : "", channel.s, row.s, s->in_width);
    cnn__line(file, 4 + 2 * two, "}");
    if (two) cnn__line(file, 5, "}");
    cnn__line(file, 3 + two, "*out++ = sum;");
    cnn__line(file, 2 + two, "}");
}

static const cnn__kind cnn__conv2d_kind = {
    cnn__layer_conv2d_shape, cnn__layer_conv2d_forward, cnn__layer_conv2d_backward,
    cnn__layer_conv2d_at, cnn__layer_conv2d_explain, cnn__layer_conv2d_export_c,
    cnn__layer_conv2d_tensors, NULL, cnn__layer_conv2d_fuse, cnn__layer_conv2d_work,
    CNN__TAKES(conv_options, cnn__conv2d_fields)
};

void cnn_conv2d_with(cnn_net *net, cnn_conv2d_options o)
{ cnn__add_with(net, &cnn__conv2d_kind, "conv2d", &o, 0, 0); }

void cnn_conv1d_with(cnn_net *net, cnn_conv2d_options o)
{ cnn__add_with(net, &cnn__conv2d_kind, "conv1d", &o, 1, 0); }

/* ---- activation ---- */

static const cnn__field cnn__leaky_relu_fields[] = {
    CNN__FLOAT(cnn_leaky_relu_options, negative_slope, 0.01)
};

static int cnn__layer_activation_shape(cnn__layer *l, const cnn__fitter *f)
{
    l->out = l->in;
    l->has_kinks = l->activation == CNN_RELU || l->activation == CNN_LEAKY_RELU;
    l->value_by_value = 1;
    if (l->slope >= 0) return 1;
    return cnn__misfit(f, "negative_slope must be at least 0, but is %g", (double)l->slope);
}

static void cnn__layer_activation_forward(const cnn__op *op)
{
    const cnn__layer *l = op->layer;
    op->b->activation_forward(op->b->context, l->activation, l->slope, op->y, op->x[0],
                              cnn__values(op));
}

static void cnn__layer_activation_backward(const cnn__op *op)
{
    const cnn__layer *l = op->layer;
    op->b->activation_backward(op->b->context, l->activation, l->slope, op->dx[0], op->dy, op->y,
                               op->x[0], cnn__values(op));
}

static double cnn__layer_activation_at(const cnn__op *op, int n, int k, int row, int column)
{
    return cnn__activation_at(op->layer->activation, (double)op->layer->slope,
                              cnn__x_at(op, n, k, row, column));
}

static void cnn__layer_activation_explain(const cnn__op *op, FILE *out, int k, int row, int column)
{
    static const char *const tau[] = {
        "", "max(0, x)", "x > 0 ? x : slope x", "1 / (1 + exp(-x))", "tanh x",
        "x (1 + erf(x / sqrt 2)) / 2"
    };
    cnn__fprintf(out, "y = %s\n", tau[op->layer->activation]);
    cnn__explain_value(op, out, k, row, column);
}

static void cnn__layer_activation_export_c(const cnn__layer *l, int number, FILE *file)
{
    static const char *const tau[] = {
        "", "in[i] <= 0 ? 0 : in[i]", "in[i] <= 0 ? slope * in[i] : in[i]",
        "1 / (1 + expf(-in[i]))", "tanhf(in[i])", "in[i] * (1 + erff(in[i] * 0.70710678f)) / 2"
    };
    cnn__text slope;
    (void)number;
    if (l->activation == CNN_LEAKY_RELU)
        cnn__line(file, 1, "const float slope = %s;", cnn__c_number(l->slope, &slope));
    cnn__line(file, 1, "int i;");
    cnn__line(file, 1, "for (i = 0; i < %d; i++) out[i] = %s;", (int)cnn__size(l->out),
              tau[l->activation]);
}

static const cnn__kind cnn__activation_kind = {
    cnn__layer_activation_shape, cnn__layer_activation_forward, cnn__layer_activation_backward,
    cnn__layer_activation_at, cnn__layer_activation_explain, cnn__layer_activation_export_c,
    NULL, NULL, NULL, NULL, CNN__TAKES(slope, cnn__leaky_relu_fields)
};

static void cnn__add_activation(cnn_net *net, cnn_activation activation, const char *type,
                                float slope)
{
    cnn__layer layer = cnn__layer_of(&cnn__activation_kind, type);
    layer.activation = activation;
    layer.slope = slope;
    cnn__add(net, &layer);
}

void cnn_relu(cnn_net *net) { cnn__add_activation(net, CNN_RELU, "relu", CNN_ZERO); }
void cnn_sigmoid(cnn_net *net) { cnn__add_activation(net, CNN_SIGMOID, "sigmoid", CNN_ZERO); }
void cnn_tanh(cnn_net *net) { cnn__add_activation(net, CNN_TANH, "tanh", CNN_ZERO); }
void cnn_gelu(cnn_net *net) { cnn__add_activation(net, CNN_GELU, "gelu", CNN_ZERO); }

void cnn_leaky_relu_with(cnn_net *net, cnn_leaky_relu_options o)
{ cnn__add_activation(net, CNN_LEAKY_RELU, "leaky_relu", o.negative_slope); }

/* ---- PReLU ---- */

static const cnn__field cnn__prelu_fields[] = {
    CNN__INT(cnn_prelu_options, num_parameters, 1), CNN__FLOAT(cnn_prelu_options, init, 0.25)
};

static int cnn__layer_prelu_shape(cnn__layer *l, const cnn__fitter *f)
{
    int slopes = l->prelu_options.num_parameters;
    if (slopes != 1 && slopes != l->in.channels)
        return cnn__misfit(f, "has .num_parameters = %d, but its input has %d channels; give %d, a "
                           "slope for each, or 1 for all", slopes, l->in.channels, l->in.channels);
    l->shapes.map.channels = slopes;
    l->shapes.map.pixels = (int)cnn__size(l->in) / slopes;
    l->out = l->in;
    l->has_kinks = l->value_by_value = 1;
    return 1;
}

static int cnn__layer_prelu_tensors(const cnn__layer *l, cnn__tensor *t)
{
    cnn__channel_tensor(t, "weight", l->prelu_options.num_parameters, l->prelu_options.init);
    return 1;
}

static size_t cnn__layer_prelu_work(const cnn__op *op)
{ return sizeof(float) * (size_t)op->batch * (size_t)op->shapes.map.channels; }

static void cnn__layer_prelu_forward(const cnn__op *op)
{ op->b->prelu_forward(op->b->context, &op->shapes.map, op->y, op->x[0], op->tensors[0]); }

static void cnn__layer_prelu_backward(const cnn__op *op)
{
    op->b->prelu_backward(op->b->context, &op->shapes.map, op->dx[0], op->gradients[0], op->dy,
                          op->x[0], op->tensors[0], (float *)op->work);
}

static double cnn__prelu_slope(const cnn__op *op, int k)
{ return (double)op->tensors[0][op->shapes.map.channels > 1 ? k : 0]; }

static double cnn__layer_prelu_at(const cnn__op *op, int n, int k, int row, int column)
{ return cnn__prelu_at(cnn__x_at(op, n, k, row, column), cnn__prelu_slope(op, k)); }

static void cnn__layer_prelu_explain(const cnn__op *op, FILE *out, int k, int row, int column)
{
    cnn__fprintf(out, "y = x > 0 ? x : a x, a = %.6f, learned for %s\n", cnn__prelu_slope(op, k),
                 op->shapes.map.channels > 1 ? "this channel" : "all channels");
    cnn__explain_value(op, out, k, row, column);
}

static void cnn__layer_prelu_export_c(const cnn__layer *l, int number, FILE *file)
{
    const cnn_map_shape *s = &l->shapes.map;
    cnn__line(file, 1, "int c, i;");
    cnn__line(file, 1, "for (c = 0; c < %d; c++)", s->channels);
    cnn__line(file, 2, "for (i = c * %d; i < (c + 1) * %d; i++)", s->pixels, s->pixels);
    cnn__line(file, 3, "out[i] = in[i] > 0 ? in[i] : layer%d_weight[c] * in[i];", number);
}

static const cnn__kind cnn__prelu_kind = {
    cnn__layer_prelu_shape, cnn__layer_prelu_forward, cnn__layer_prelu_backward,
    cnn__layer_prelu_at, cnn__layer_prelu_explain, cnn__layer_prelu_export_c,
    cnn__layer_prelu_tensors, NULL, NULL, cnn__layer_prelu_work,
    CNN__TAKES(prelu_options, cnn__prelu_fields)
};

void cnn_prelu_with(cnn_net *net, cnn_prelu_options o)
{ cnn__add_with(net, &cnn__prelu_kind, "prelu", &o, 0, 0); }

/* ---- pooling ---- */

static const cnn__field cnn__pool2d_fields[] = {           /* the stride's default is the kernel */
    CNN__SIDES(cnn_pool2d_options, kernel_size, kernel, 0),
    CNN__SIDES(cnn_pool2d_options, stride, stride, 0),
    CNN__SIDES(cnn_pool2d_options, padding, padding, 0),
    CNN__INT(cnn_pool2d_options, ceil_mode, 0), CNN__INT(cnn_pool2d_options, exclude_padding, 0)
};

static int cnn__check_pool2d(const cnn__layer *l, const cnn__fitter *f)
{
    const cnn_pool2d_shape *s = &l->shapes.pool;
    const char *of_images = l->average ? "avg_pool2d" : "max_pool2d";
    if (!cnn__has_maps(l, f) || !cnn__has_one_row(l, of_images, f)) return 0;
    if (s->kernel_height < 1 || s->kernel_width < 1 || s->stride_height < 1 || s->stride_width < 1)
        return cnn__misfit(f, "needs .kernel_size and stride of at least 1, but has %d x %d and "
                           "%d x %d", s->kernel_height, s->kernel_width, s->stride_height,
                           s->stride_width);
    if ((double)s->kernel_height * s->kernel_width > INT_MAX)
        return cnn__misfit(f, "a window of %d x %d has too many values", s->kernel_height,
                           s->kernel_width);
    if (s->pad_height < 0 || s->pad_width < 0 || s->pad_height > s->kernel_height / 2
        || s->pad_width > s->kernel_width / 2)
        return cnn__misfit(f, "padding must be between 0 and half the kernel, but is %d x %d for a "
                           "kernel of %d x %d", s->pad_height, s->pad_width, s->kernel_height,
                           s->kernel_width);
    if (s->in_height == 1 && s->in_width > 1 && s->kernel_height > 1 + 2 * s->pad_height
        && !l->pool_options.ceil_mode)
        return cnn__misfit(f, "its window is %d high, but its input %d x 1 x %d has one row, as "
                           "cnn_conv1d gives; use cnn_%.3s_pool1d, which pools along the width",
                           s->kernel_height, s->channels, s->in_width, of_images);
    return 1;
}

static int cnn__layer_pool2d_shape(cnn__layer *l, const cnn__fitter *f)
{
    cnn_pool2d_options *o = &l->pool_options;
    cnn_pool2d_shape *s = &l->shapes.pool;
    if (l->along_width) o->kernel_height = o->stride_height = 1, o->padding_height = 0;
    s->channels = l->in.channels; s->in_height = l->in.height; s->in_width = l->in.width;
    s->kernel_height = o->kernel_height; s->kernel_width = o->kernel_width;
    s->stride_height = o->stride_height; s->stride_width = o->stride_width;
    s->pad_height = o->padding_height; s->pad_width = o->padding_width;
    s->average = l->average;
    s->exclude_padding = o->exclude_padding;
    l->has_kinks = !l->average;
    if (!cnn__check_pool2d(l, f)) return 0;
    s->out_height = cnn__output_size("height", s->in_height, s->pad_height, s->pad_height,
                                     s->kernel_height, 1, &s->stride_height, o->ceil_mode, f);
    s->out_width = cnn__output_size("width", s->in_width, s->pad_width, s->pad_width,
                                    s->kernel_width, 1, &s->stride_width, o->ceil_mode, f);
    l->out = cnn__maps(s->channels, s->out_height, s->out_width);
    return s->out_height && s->out_width;
}

static void cnn__layer_pool2d_forward(const cnn__op *op)
{ op->b->pool2d_forward(op->b->context, &op->shapes.pool, op->y, op->x[0]); }

static void cnn__layer_pool2d_backward(const cnn__op *op)
{ op->b->pool2d_backward(op->b->context, &op->shapes.pool, op->dx[0], op->dy, op->x[0]); }

static double cnn__layer_pool2d_at(const cnn__op *op, int n, int k, int row, int column)
{
    const cnn_pool2d_shape *s = &op->shapes.pool;
    const float *map = op->x[0] + ((ptrdiff_t)n * s->channels + k) * s->in_height * s->in_width;
    return cnn__pool2d_at(s, map, row, column);
}

static void cnn__layer_pool2d_explain(const cnn__op *op, FILE *out, int k, int row, int column)
{
    const cnn_pool2d_shape *s = &op->shapes.pool;
    cnn__window w = cnn__pool2d_window(s, row, column);
    const float *map = op->x[0] + (ptrdiff_t)k * s->in_height * s->in_width;
    ptrdiff_t winner = cnn__pool2d_winner(s, map, w), at;
    int j, i;
    cnn__fprintf(out, "y(%d, %d, %d) = %s of the window: rows %d to %d, columns %d to %d\n", k, row,
                 column, s->average ? "mean" : "largest value", w.top, w.bottom - 1, w.left,
                 w.right - 1);
    for (j = w.top; j < w.bottom; j++) {
        cnn__fprintf(out, "   ");
        for (i = w.left; i < w.right; i++) {
            at = (ptrdiff_t)j * s->in_width + i;
            cnn__fprintf(out, " %8.4f%c", (double)map[at], !s->average && at == winner ? '*' : ' ');
        }
        cnn__fprintf(out, "\n");
    }
    if (s->average)
        cnn__fprintf(out, "  sum / %d = %.6f\n", w.count, cnn__pool2d_at(s, map, row, column));
    else
        cnn__fprintf(out, "  largest (*): %.6f\n", (double)map[winner]);
}

/* What a mean divides by. A window may hang over the padding; what hangs over is not counted. */
static void cnn__line_mean(const cnn__layer *l, FILE *file, int depth)
{
    const cnn_pool2d_shape *s = &l->shapes.pool;
    int high = s->in_height + 2 * s->pad_height, wide = s->in_width + 2 * s->pad_width;
    if (s->exclude_padding)
        cnn__line(file, depth, "*out++ = sum / (float)count;");
    else if ((s->out_height - 1) * s->stride_height + s->kernel_height <= high
             && (s->out_width - 1) * s->stride_width + s->kernel_width <= wide)
        cnn__line(file, depth, "*out++ = sum / %d;", s->kernel_height * s->kernel_width);
    else {
        if (l->along_width) cnn__line(file, depth, "int high = 1;");
        else cnn__line(file, depth, "int high = %d - %d * j;    /* to the end of the padding */",
                       high, s->stride_height);
        cnn__line(file, depth, "int wide = %d - %d * i;", wide, s->stride_width);
        cnn__line(file, depth, "if (high > %d) high = %d;", s->kernel_height, s->kernel_height);
        cnn__line(file, depth, "if (wide > %d) wide = %d;", s->kernel_width, s->kernel_width);
        cnn__line(file, depth, "*out++ = sum / (float)(high * wide);");
    }
}

static void cnn__layer_pool2d_export_c(const cnn__layer *l, int number, FILE *file)
{
    const cnn_pool2d_shape *s = &l->shapes.pool;
    cnn__slide rows = { "row", "j", "y", s->in_height, s->out_height, s->kernel_height,
                        s->stride_height, 1, s->pad_height };
    cnn__slide columns = { "column", "i", "x", s->in_width, s->out_width, s->kernel_width,
                           s->stride_width, 1, s->pad_width };
    int two = !l->along_width;              /* two: rows, a level more */
    cnn__text value;
    (void)number;
    cnn__snprintf(value.s, sizeof value.s, "in[k * %d + column]", s->in_width);
    if (two)
        cnn__snprintf(value.s, sizeof value.s, "in[(k * %d + row) * %d + column]", s->in_height,
                      s->in_width);
    cnn__line(file, 1, "int k, %si, %sx;", two ? "j, " : "", two ? "y, " : "");
    cnn__line(file, 1, "for (k = 0; k < %d; k++)", s->channels);
    if (two) cnn__line(file, 2, "for (j = 0; j < %d; j++)", s->out_height);
    cnn__line(file, 2 + two, "for (i = 0; i < %d; i++) {", s->out_width);
    cnn__line(file, 3 + two, s->average ? "float sum = 0;" : "float largest = -INFINITY;");
    if (s->average && s->exclude_padding) cnn__line(file, 3 + two, "int count = 0;");
    if (two) cnn__line_slide(file, 4, &rows, CNN_ZEROS);
    cnn__line_slide(file, 3 + 2 * two, &columns, CNN_ZEROS);
    if (s->average) cnn__line(file, 4 + 2 * two, "sum += %s;", value.s);
    if (s->average && s->exclude_padding) cnn__line(file, 4 + 2 * two, "count++;");
    if (!s->average) {                      /* NaN wins */
        cnn__line(file, 4 + 2 * two, "float value = %s;", value.s);
        cnn__line(file, 4 + 2 * two, "if (value > largest || value != value) largest = value;");
    }
    cnn__line(file, 3 + 2 * two, "}");
    if (two) cnn__line(file, 4, "}");
    if (s->average) cnn__line_mean(l, file, 3 + two);
    else cnn__line(file, 3 + two, "*out++ = largest;");
    cnn__line(file, 2 + two, "}");
}

static const cnn__kind cnn__pool2d_kind = {
    cnn__layer_pool2d_shape, cnn__layer_pool2d_forward, cnn__layer_pool2d_backward,
    cnn__layer_pool2d_at, cnn__layer_pool2d_explain, cnn__layer_pool2d_export_c,
    NULL, NULL, NULL, NULL, CNN__TAKES(pool_options, cnn__pool2d_fields)
};

static void cnn__add_pool(cnn_net *net, cnn_pool2d_options o, const char *type, int along_width,
                          int average)
{
    if (!o.stride && !o.stride_height)
        o.stride_height = o.kernel_height ? o.kernel_height : o.kernel_size;
    if (!o.stride && !o.stride_width)
        o.stride_width = o.kernel_width ? o.kernel_width : o.kernel_size;
    cnn__add_with(net, &cnn__pool2d_kind, type, &o, along_width, average);
}

void cnn_max_pool2d_with(cnn_net *net, cnn_pool2d_options o)
{ cnn__add_pool(net, o, "max_pool2d", 0, 0); }

void cnn_avg_pool2d_with(cnn_net *net, cnn_pool2d_options o)
{ cnn__add_pool(net, o, "avg_pool2d", 0, 1); }

void cnn_max_pool1d_with(cnn_net *net, cnn_pool2d_options o)
{ cnn__add_pool(net, o, "max_pool1d", 1, 0); }

void cnn_avg_pool1d_with(cnn_net *net, cnn_pool2d_options o)
{ cnn__add_pool(net, o, "avg_pool1d", 1, 1); }

/* Adaptive pooling: where the windows share no row and no column, they are ordinary ones. */

static const cnn__field cnn__adaptive_pool2d_fields[] = {
    CNN__SIDES(cnn_adaptive_pool2d_options, output_size, output, 0)
};

static int cnn__layer_adaptive_shape(cnn__layer *l, const cnn__fitter *f)
{
    cnn_pool2d_shape *s = &l->shapes.pool;
    s->channels = l->in.channels; s->in_height = l->in.height; s->in_width = l->in.width;
    s->out_height = l->adaptive_options.output_height;
    s->out_width = l->adaptive_options.output_width;
    s->average = 1;
    if (!cnn__has_maps(l, f)) return 0;
    if (s->out_height < 1 || s->out_width < 1)
        return cnn__misfit(f, "needs .output_size of at least 1, but has %d x %d", s->out_height,
                           s->out_width);
    s->kernel_height = s->stride_height = s->in_height / s->out_height;
    s->kernel_width = s->stride_width = s->in_width / s->out_width;
    s->adaptive = s->in_height % s->out_height || s->in_width % s->out_width;
    l->out = cnn__maps(s->channels, s->out_height, s->out_width);
    return 1;
}

static void cnn__layer_adaptive_export_c(const cnn__layer *l, int number, FILE *file)
{
    const cnn_pool2d_shape *s = &l->shapes.pool;
    int h = s->in_height, w = s->in_width, rows = s->out_height, columns = s->out_width;
    const char *down = (h + 1.0) * (rows + 1.0) > INT_MAX ? "LL" : "";      /* a long side */
    const char *across = (w + 1.0) * (columns + 1.0) > INT_MAX ? "LL" : "";
    if (!s->adaptive) {
        cnn__layer_pool2d_export_c(l, number, file);
        return;
    }
    cnn__line(file, 1, "int k, j, i, y, x;");
    cnn__line(file, 1, "for (k = 0; k < %d; k++)", s->channels);
    cnn__line(file, 2, "for (j = 0; j < %d; j++)", rows);
    cnn__line(file, 3, "for (i = 0; i < %d; i++) {", columns);
    cnn__line(file, 4, "int top = j * %d%s / %d, bottom = ((j + 1) * %d%s + %d) / %d;", h, down,
              rows, h, down, rows - 1, rows);
    cnn__line(file, 4, "int left = i * %d%s / %d, right = ((i + 1) * %d%s + %d) / %d;", w, across,
              columns, w, across, columns - 1, columns);
    cnn__line(file, 4, "float sum = 0;");
    cnn__line(file, 4, "for (y = top; y < bottom; y++)");
    cnn__line(file, 5, "for (x = left; x < right; x++) sum += in[(k * %d + y) * %d + x];", h, w);
    cnn__line(file, 4, "*out++ = sum / (float)((bottom - top) * (right - left));");
    cnn__line(file, 3, "}");
}

static const cnn__kind cnn__adaptive_pool2d_kind = {
    cnn__layer_adaptive_shape, cnn__layer_pool2d_forward, cnn__layer_pool2d_backward,
    cnn__layer_pool2d_at, cnn__layer_pool2d_explain, cnn__layer_adaptive_export_c,
    NULL, NULL, NULL, NULL, CNN__TAKES(adaptive_options, cnn__adaptive_pool2d_fields)
};

void cnn_adaptive_avg_pool2d_with(cnn_net *net, cnn_adaptive_pool2d_options o)
{ cnn__add_with(net, &cnn__adaptive_pool2d_kind, "adaptive_avg_pool2d", &o, 0, 1); }

void cnn_global_avg_pool2d(cnn_net *net)
{
    cnn_adaptive_pool2d_options o;
    memset((void *)&o, 0, sizeof o);
    o.output_size = 1;
    cnn__add_with(net, &cnn__adaptive_pool2d_kind, "global_avg_pool2d", &o, 0, 1);
}

/* ---- zero padding ---- */

static const cnn__field cnn__zero_pad2d_fields[] = {
    CNN__INT(cnn_zero_pad2d_options, padding, 0),
    CNN__LIKE(cnn_zero_pad2d_options, padding_left, padding),
    CNN__LIKE(cnn_zero_pad2d_options, padding_right, padding),
    CNN__LIKE(cnn_zero_pad2d_options, padding_top, padding),
    CNN__LIKE(cnn_zero_pad2d_options, padding_bottom, padding)
};

static int cnn__layer_zero_pad2d_shape(cnn__layer *l, const cnn__fitter *f)
{
    const cnn_zero_pad2d_options *o = &l->pad_options;
    cnn_pad2d_shape *s = &l->shapes.pad;
    double height = (double)l->in.height + o->padding_top + o->padding_bottom;
    double width = (double)l->in.width + o->padding_left + o->padding_right;
    if (!cnn__has_maps(l, f)) return 0;
    if (o->padding_left < 0 || o->padding_right < 0 || o->padding_top < 0 || o->padding_bottom < 0)
        return cnn__misfit(f, "padding must be at least 0 on each side, but is left %d, right %d, "
                           "top %d, bottom %d", o->padding_left, o->padding_right, o->padding_top,
                           o->padding_bottom);
    if (height > (int)CNN__LONGEST_SIDE || width > (int)CNN__LONGEST_SIDE)
        return cnn__misfit(f, "its output would be %.0f x %.0f, and a side can have %d; give less "
                           "padding", height, width, (int)CNN__LONGEST_SIDE);
    s->channels = l->in.channels; s->in_height = l->in.height; s->in_width = l->in.width;
    s->out_height = (int)height;
    s->out_width = (int)width;
    s->top = o->padding_top;
    s->left = o->padding_left;
    l->out = cnn__maps(s->channels, s->out_height, s->out_width);
    return 1;
}

static void cnn__layer_zero_pad2d_forward(const cnn__op *op)
{ op->b->pad2d(op->b->context, &op->shapes.pad, op->y, op->x[0]); }

static void cnn__layer_zero_pad2d_backward(const cnn__op *op)
{
    const cnn_pad2d_shape *s = &op->shapes.pad;
    cnn_pad2d_shape cut = { s->batch, s->channels, s->out_height, s->out_width, s->in_height,
                            s->in_width, -s->top, -s->left };
    op->b->pad2d(op->b->context, &cut, op->dx[0], op->dy);
}

/* The place in x of output (n, k, row, column), or -1: a zero */
static ptrdiff_t cnn__zero_pad2d_place(const cnn__layer *l, int n, int k, int row, int column)
{
    int j = row - l->shapes.pad.top, i = column - l->shapes.pad.left;
    if (j < 0 || j >= l->in.height || i < 0 || i >= l->in.width) return -1;
    return (((ptrdiff_t)n * l->in.channels + k) * l->in.height + j) * l->in.width + i;
}

static double cnn__layer_zero_pad2d_at(const cnn__op *op, int n, int k, int row, int column)
{
    ptrdiff_t at = cnn__zero_pad2d_place(op->layer, n, k, row, column);
    return at < 0 ? 0 : (double)op->x[0][at];
}

static void cnn__layer_zero_pad2d_explain(const cnn__op *op, FILE *out, int k, int row, int column)
{
    const cnn_pad2d_shape *s = &op->shapes.pad;
    ptrdiff_t at = cnn__zero_pad2d_place(op->layer, 0, k, row, column);
    if (at < 0) cnn__fprintf(out, "y(%d, %d, %d) is beyond the border of x: 0\n", k, row, column);
    else cnn__fprintf(out, "y(%d, %d, %d) = x(%d, %d, %d) = %.6f\n", k, row, column, k,
                      row - s->top, column - s->left, (double)op->x[0][at]);
}

static void cnn__layer_zero_pad2d_export_c(const cnn__layer *l, int number, FILE *file)
{
    const cnn_pad2d_shape *s = &l->shapes.pad;
    (void)number;
    cnn__line(file, 1, "int k, j, i;");
    cnn__line(file, 1, "for (i = 0; i < %d; i++) out[i] = 0;", (int)cnn__size(l->out));
    cnn__line(file, 1, "for (k = 0; k < %d; k++)", s->channels);
    cnn__line(file, 2, "for (j = 0; j < %d; j++)", s->in_height);
    cnn__line(file, 3, "for (i = 0; i < %d; i++)", s->in_width);
    cnn__line(file, 4, "out[(k * %d + j + %d) * %d + i + %d] = *in++;", s->out_height, s->top,
              s->out_width, s->left);
}

static const cnn__kind cnn__zero_pad2d_kind = {
    cnn__layer_zero_pad2d_shape, cnn__layer_zero_pad2d_forward, cnn__layer_zero_pad2d_backward,
    cnn__layer_zero_pad2d_at, cnn__layer_zero_pad2d_explain, cnn__layer_zero_pad2d_export_c,
    NULL, NULL, NULL, NULL, CNN__TAKES(pad_options, cnn__zero_pad2d_fields)
};

void cnn_zero_pad2d_with(cnn_net *net, cnn_zero_pad2d_options o)
{ cnn__add_with(net, &cnn__zero_pad2d_kind, "zero_pad2d", &o, 0, 0); }

/* ---- linear ---- */

static const cnn__field cnn__linear_fields[] = {
    CNN__INT(cnn_linear_options, out_features, 0), CNN__INT(cnn_linear_options, no_bias, 0),
    CNN__INT(cnn_linear_options, init, CNN_INIT_DEFAULT),
    CNN__INT(cnn_linear_options, in_features, 0)
};

static int cnn__layer_linear_shape(cnn__layer *l, const cnn__fitter *f)
{
    const cnn_linear_options *o = &l->linear_options;
    cnn__text dims;
    if (!l->in.flat && (l->in.height != 1 || l->in.width != 1))
        return cnn__misfit(f, "needs a flat input, but gets %s; call cnn_flatten before it",
                           cnn__dims_text(l->in, &dims));
    if (o->out_features < 1)
        return cnn__misfit(f, "needs .out_features of at least 1, but has %d", o->out_features);
    if (!cnn__usable_init(o->init, f)) return 0;
    if (o->in_features && o->in_features != l->in.channels) return cnn__features_differ(l, f);
    l->shapes.linear.in_features = l->in.channels;
    l->shapes.linear.out_features = o->out_features;
    l->out = cnn__flat(o->out_features);
    l->multiply_adds = l->in.channels;
    l->takes_scale = 1;
    return 1;
}

static int cnn__layer_linear_tensors(const cnn__layer *l, cnn__tensor *t)
{
    int shape[4] = { l->shapes.linear.out_features, l->shapes.linear.in_features, 0, 0 };
    return cnn__weight_and_bias(t, 2, shape, l->linear_options.init, l->linear_options.no_bias);
}

static int cnn__layer_linear_fuse(cnn__op *op, const cnn__layer *next)
{ return cnn__fuse_activation(&op->shapes.linear.activation, &op->shapes.linear.slope, next); }

static size_t cnn__layer_linear_work(const cnn__op *op)
{ return op->b->linear_work(op->b->context, &op->shapes.linear); }

static void cnn__layer_linear_forward(const cnn__op *op)
{
    op->b->linear_forward(op->b->context, &op->shapes.linear, op->y, op->x[0], op->tensors[0],
                          op->tensors[1], op->work);
}

static void cnn__layer_linear_backward(const cnn__op *op)
{
    op->b->linear_backward(op->b->context, &op->shapes.linear, op->dx[0], op->gradients[0],
                           op->gradients[1], op->dy, op->y, op->x[0], op->tensors[0], op->work);
}

static double cnn__layer_linear_at(const cnn__op *op, int n, int k, int row, int column)
{
    (void)row; (void)column;
    return cnn__linear_at(&op->shapes.linear, op->x[0], op->tensors[0], op->tensors[1], n, k);
}

/* Puts i into the list of those with the largest values so far, which has `count` and at most
   `most`, the largest first. Returns how many it has then. */
static int cnn__rank(int *list, double *values, int count, int most, int i, double value)
{
    int k;
    for (k = count; k > 0 && value > values[k - 1]; k--)
        if (k < most) list[k] = list[k - 1], values[k] = values[k - 1];
    if (k == most) return count;
    list[k] = i;
    values[k] = value;
    return count < most ? count + 1 : count;
}

/* There may be thousands of products: the largest are written out, the others summed. */
static void cnn__layer_linear_explain(const cnn__op *op, FILE *out, int o, int row, int column)
{
    enum { most = 12 };
    int n = op->shapes.linear.in_features, shown[most], count = 0, i, k;
    const float *x = op->x[0], *w = op->tensors[0] + (ptrdiff_t)o * n;
    double sizes[most], sum = 0, rest;
    (void)row; (void)column;
    for (i = 0; i < n; i++) {
        double product = (double)x[i] * (double)w[i];
        count = cnn__rank(shown, sizes, count, most, i, fabs(product));
        sum += product;
    }
    rest = sum;
    cnn__fprintf(out, "y(%d) = b(%d) + sum over i = 0 .. %d of  W(%d, i) x(i)%s\n", o, o, n - 1, o,
                 n > most ? "; the largest products:" : "");
    for (k = 0; k < count; k++) {
        double product = (double)x[shown[k]] * (double)w[shown[k]];
        cnn__fprintf(out, "    i = %-5d %8.4f *%8.4f = %9.6f\n", shown[k], (double)w[shown[k]],
                     (double)x[shown[k]], product);
        rest -= product;
    }
    if (n > most) cnn__fprintf(out, "    the other %d together:       %9.6f\n", n - most, rest);
    cnn__explain_sum(out, sum, op->tensors[1] ? op->tensors[1] + o : NULL, "");
}

static void cnn__layer_linear_export_c(const cnn__layer *l, int number, FILE *file)
{
    const cnn_linear_shape *s = &l->shapes.linear;
    cnn__text bias = { "0" };
    if (l->tensor_count > 1) cnn__snprintf(bias.s, sizeof bias.s, "layer%d_bias[o]", number);
    cnn__line(file, 1, "int o, i;");
    cnn__line(file, 1, "for (o = 0; o < %d; o++) {", s->out_features);
    cnn__line(file, 2, "float sum = %s;", bias.s);
    cnn__line(file, 2, "for (i = 0; i < %d; i++) sum += layer%d_weight[o][i] * in[i];",
              s->in_features, number);
    cnn__line(file, 2, "*out++ = sum;");
    cnn__line(file, 1, "}");
}

static const cnn__kind cnn__linear_kind = {
    cnn__layer_linear_shape, cnn__layer_linear_forward, cnn__layer_linear_backward,
    cnn__layer_linear_at, cnn__layer_linear_explain, cnn__layer_linear_export_c,
    cnn__layer_linear_tensors, NULL, cnn__layer_linear_fuse, cnn__layer_linear_work,
    CNN__TAKES(linear_options, cnn__linear_fields)
};

void cnn_linear_with(cnn_net *net, cnn_linear_options o)
{ cnn__add_with(net, &cnn__linear_kind, "linear", &o, 0, 0); }

/* ---- batch normalisation ---- */

static const cnn__field cnn__batch_norm_fields[] = {
    CNN__FLOAT(cnn_batch_norm_options, eps, 1e-5),
    CNN__FLOAT(cnn_batch_norm_options, momentum, 0.1),
    CNN__INT(cnn_batch_norm_options, no_affine, 0),
    CNN__INT(cnn_batch_norm_options, no_running_stats, 0)
};

static double cnn__layer_batch_norm_scale(const cnn__op *op, int k, double *shift)
{
    double scale = (op->tensors[0] ? (double)op->tensors[0][k] : 1)
                 / sqrt((double)op->buffers[1][k] + (double)op->layer->norm_options.eps);
    *shift = (op->tensors[1] ? (double)op->tensors[1][k] : 0) - scale * (double)op->buffers[0][k];
    return scale;
}

static int cnn__layer_batch_norm_shape(cnn__layer *l, const cnn__fitter *f)
{
    const cnn_batch_norm_options *o = &l->norm_options;
    cnn_batch_norm_shape *s = &l->shapes.norm;
    if (o->eps < 0) return cnn__misfit(f, "eps must be at least 0, but is %g", (double)o->eps);
    if (!(o->momentum >= 0 && o->momentum <= 1))
        return cnn__misfit(f, "momentum must be between 0 and 1, but is %g", (double)o->momentum);
    if (l->in.flat && !l->along_width)
        return cnn__misfit(f, "needs channels x height x width, but its input is flat, a vector of "
                           "%d values; use batch_norm1d after a linear layer", l->in.channels);
    if (!cnn__has_one_row(l, "batch_norm2d", f)) return 0;
    s->channels = l->in.channels;
    s->pixels = l->in.height * l->in.width;
    s->eps = o->eps;
    s->momentum = o->momentum;
    l->kept = 2 * sizeof(float) * (size_t)s->channels;
    l->mixes_samples = 1;
    l->scale = o->no_running_stats ? NULL : cnn__layer_batch_norm_scale;
    l->multiply_adds = 1;
    l->out = l->in;
    return 1;
}

static int cnn__layer_batch_norm_tensors(const cnn__layer *l, cnn__tensor *t)
{
    if (l->norm_options.no_affine) return 0;
    cnn__channel_tensor(t, "weight", l->in.channels, 1);
    cnn__channel_tensor(t + 1, "bias", l->in.channels, 0);
    return 2;
}

static int cnn__layer_batch_norm_buffers(const cnn__layer *l, cnn__tensor *t)
{
    if (l->norm_options.no_running_stats) return 0;
    cnn__channel_tensor(t, "running_mean", l->in.channels, 0);
    cnn__channel_tensor(t + 1, "running_var", l->in.channels, 1);
    cnn__channel_tensor(t + 2, "num_batches_tracked", 0, 0);
    t[2].integer = 1;
    return 3;
}

static int cnn__layer_batch_norm_fuse(cnn__op *op, const cnn__layer *next)
{ return cnn__fuse_activation(&op->shapes.norm.activation, &op->shapes.norm.slope, next); }

static size_t cnn__layer_batch_norm_work(const cnn__op *op)
{ return op->b->batch_norm_work(op->b->context, &op->shapes.norm); }

static void cnn__layer_batch_norm_forward(const cnn__op *op)
{
    op->b->batch_norm_forward(op->b->context, &op->shapes.norm, op->y, (float *)(void *)op->index,
                              op->buffers[0], op->buffers[1], (int64_t *)(void *)op->buffers[2],
                              op->x[0], op->tensors[0], op->tensors[1]);
}

static void cnn__layer_batch_norm_backward(const cnn__op *op)
{
    op->b->batch_norm_backward(op->b->context, &op->shapes.norm, op->dx[0], op->gradients[0],
                               op->gradients[1], op->dy, op->y, (const float *)(void *)op->index,
                               op->x[0], op->tensors[0], op->work);
}

static cnn__moments cnn__moments_of(const cnn__op *op, int k)
{
    const cnn_batch_norm_shape *s = &op->shapes.norm;
    cnn__moments of;
    if (op->moments && op->moments[k].var >= 0) return op->moments[k];
    if (s->training) of = cnn__batch_norm_moments(s, op->x[0], k);
    else of.mean = (double)op->buffers[0][k], of.var = (double)op->buffers[1][k];
    if (op->moments) op->moments[k] = of;
    return of;
}

static double cnn__layer_batch_norm_at(const cnn__op *op, int n, int k, int row, int column)
{
    return cnn__batch_norm_at(&op->shapes.norm, cnn__moments_of(op, k),
                              cnn__x_at(op, n, k, row, column), op->tensors[0], op->tensors[1], k);
}

static void cnn__layer_batch_norm_explain(const cnn__op *op, FILE *out, int k, int row, int column)
{
    cnn__moments of = cnn__moments_of(op, k);
    double w = op->tensors[0] ? (double)op->tensors[0][k] : 1;
    double b = op->tensors[1] ? (double)op->tensors[1][k] : 0;
    cnn__fprintf(out, "y = w (x - mean) / sqrt(var + eps) + b, mean and var %s\n",
                 op->shapes.norm.training ? "of this batch" : "the running ones");
    cnn__fprintf(out, "  %.6f * (%.6f - %.6f) / sqrt(%.6f + %g) + %.6f = %.6f\n", w,
                 cnn__x_at(op, 0, k, row, column), of.mean, of.var, (double)op->shapes.norm.eps, b,
                 cnn__layer_batch_norm_at(op, 0, k, row, column));
}

static void cnn__layer_batch_norm_export_c(const cnn__layer *l, int number, FILE *file)
{
    int affine = !l->norm_options.no_affine, pixels = l->in.height * l->in.width;
    cnn__text eps, weight = { "1" }, bias = { "" };
    if (affine) cnn__snprintf(weight.s, sizeof weight.s, "layer%d_weight[c]", number);
    if (affine) cnn__snprintf(bias.s, sizeof bias.s, " + layer%d_bias[c]", number);
    cnn__line(file, 1, "int c, i;");
    cnn__line(file, 1, "for (c = 0; c < %d; c++) {", l->in.channels);
    cnn__line(file, 2, "const float scale = %s / sqrtf(layer%d_running_var[c] + %s);", weight.s,
              number, cnn__c_number(l->norm_options.eps, &eps));
    cnn__line(file, 2, "for (i = c * %d; i < (c + 1) * %d; i++)", pixels, pixels);
    cnn__line(file, 3, "out[i] = (in[i] - layer%d_running_mean[c]) * scale%s;", number, bias.s);
    cnn__line(file, 1, "}");
}

static const cnn__kind cnn__batch_norm_kind = {
    cnn__layer_batch_norm_shape, cnn__layer_batch_norm_forward, cnn__layer_batch_norm_backward,
    cnn__layer_batch_norm_at, cnn__layer_batch_norm_explain, cnn__layer_batch_norm_export_c,
    cnn__layer_batch_norm_tensors, cnn__layer_batch_norm_buffers, cnn__layer_batch_norm_fuse,
    cnn__layer_batch_norm_work, CNN__TAKES(norm_options, cnn__batch_norm_fields)
};

void cnn_batch_norm2d_with(cnn_net *net, cnn_batch_norm_options o)
{ cnn__add_with(net, &cnn__batch_norm_kind, "batch_norm2d", &o, 0, 0); }

void cnn_batch_norm1d_with(cnn_net *net, cnn_batch_norm_options o)
{ cnn__add_with(net, &cnn__batch_norm_kind, "batch_norm1d", &o, 1, 0); }

/* ---- softmax ---- */

static int cnn__layer_softmax_shape(cnn__layer *l, const cnn__fitter *f)
{
    (void)f;
    l->shapes.map.channels = l->in.channels;
    l->shapes.map.pixels = l->in.height * l->in.width;
    l->sums_to_one = 1;
    l->out = l->in;
    return 1;
}

static void cnn__layer_softmax_forward(const cnn__op *op)
{ op->b->softmax_forward(op->b->context, &op->shapes.map, op->y, op->x[0]); }

static void cnn__layer_softmax_backward(const cnn__op *op)
{ op->b->softmax_backward(op->b->context, &op->shapes.map, op->dx[0], op->dy, op->y); }

static double cnn__layer_softmax_at(const cnn__op *op, int n, int k, int row, int column)
{ return cnn__softmax_at(&op->shapes.map, op->x[0], n, k, row * op->layer->in.width + column); }

static void cnn__layer_softmax_explain(const cnn__op *op, FILE *out, int channel, int row,
                                       int column)
{
    int k;
    cnn__fprintf(out, "y_c = exp(x_c) / sum_k exp(x_k)\n");
    for (k = 0; k < op->layer->in.channels; k++)
        cnn__fprintf(out, "    k = %-4d x = %9.4f  y = %.6f%s\n", k,
                     cnn__x_at(op, 0, k, row, column), cnn__layer_softmax_at(op, 0, k, row, column),
                     k == channel ? "  <" : "");
}

static void cnn__layer_softmax_export_c(const cnn__layer *l, int number, FILE *file)
{
    int channels = l->shapes.map.channels, pixels = l->shapes.map.pixels, d = pixels > 1 ? 2 : 1;
    cnn__text at = { "k" };
    const char *a = at.s;
    (void)number;
    cnn__line(file, 1, pixels > 1 ? "int k, p;" : "int k;");
    if (pixels > 1) {
        cnn__snprintf(at.s, sizeof at.s, "k * %d", pixels);
        cnn__line(file, 1, "for (p = 0; p < %d; p++, in++, out++) {", pixels);
    }
    cnn__line(file, d, "float largest = in[0], sum = 0;");
    cnn__line(file, d, "for (k = 1; k < %d; k++) largest = fmaxf(largest, in[%s]);", channels, a);
    cnn__line(file, d, "for (k = 0; k < %d; k++) sum += out[%s] = expf(in[%s] - largest);",
              channels, a, a);
    cnn__line(file, d, "for (k = 0; k < %d; k++) out[%s] /= sum;", channels, a);
    if (pixels > 1) cnn__line(file, 1, "}");
}

static const cnn__kind cnn__softmax_kind = {
    cnn__layer_softmax_shape, cnn__layer_softmax_forward, cnn__layer_softmax_backward,
    cnn__layer_softmax_at, cnn__layer_softmax_explain, cnn__layer_softmax_export_c,
    NULL, NULL, NULL, NULL, CNN__NO_OPTIONS
};

void cnn_softmax(cnn_net *net)
{ cnn__add_with(net, &cnn__softmax_kind, "softmax", NULL, 0, 0); }

/* ---- flatten: the same values, seen as a vector ---- */

static int cnn__layer_flatten_shape(cnn__layer *l, const cnn__fitter *f)
{
    (void)f;
    l->out = cnn__flat((int)cnn__size(l->in));
    return 1;
}

static void cnn__layer_flatten_explain(const cnn__op *op, FILE *out, int i, int row, int column)
{
    cnn__dims in = op->layer->in;
    (void)row; (void)column;
    cnn__fprintf(out, "value %d is x(%d, %d, %d) = %.6f\n", i, i / (in.height * in.width),
                 i / in.width % in.height, i % in.width, (double)op->x[0][i]);
}

static const cnn__kind cnn__flatten_kind = {
    cnn__layer_flatten_shape, NULL, NULL, NULL, cnn__layer_flatten_explain, NULL,
    NULL, NULL, NULL, NULL, CNN__NO_OPTIONS
};

void cnn_flatten(cnn_net *net)
{ cnn__add_with(net, &cnn__flatten_kind, "flatten", NULL, 0, 0); }

/* ---- dropout ---- */

static const cnn__field cnn__dropout_fields[] = {          /* no default: infinity is refused */
    CNN__FLOAT(cnn_dropout_options, p, HUGE_VAL)
};

static int cnn__layer_dropout_shape(cnn__layer *l, const cnn__fitter *f)
{
    l->out = l->in;
    l->training_only = 1;
    if (l->p > FLT_MAX)                     /* a sweep's first value, or forgotten: neither is .5 */
        return cnn__misfit(f, "needs .p, the share of values that are set to 0, e.g. .p = 0.5f; "
                           ".p = CNN_ZERO for none");
    if (l->p >= 0 && l->p <= 1) return 1;
    return cnn__misfit(f, "p must be between 0 and 1, but is %g", (double)l->p);
}

static void cnn__layer_dropout_forward(const cnn__op *op)
{
    op->b->dropout_forward(op->b->context, op->counters, op->first, op->layer->p, op->y, op->x[0],
                           cnn__values(op));
}

static void cnn__layer_dropout_backward(const cnn__op *op)
{
    op->b->dropout_backward(op->b->context, op->counters, op->first, op->layer->p, op->dx[0],
                            op->dy, cnn__values(op));
}

static double cnn__layer_dropout_at(const cnn__op *op, int n, int k, int row, int column)
{
    size_t i = cnn__place(op->layer, n, k, row, column);
    float x = op->x[0][i];
    return op->training ? cnn__dropout_at(op->counters, op->first, op->layer->p, x, i) : (double)x;
}

static void cnn__layer_dropout_explain(const cnn__op *op, FILE *out, int k, int row, int column)
{
    cnn__fprintf(out, "%s\n", op->training
                 ? "training: y = m x / (1 - p), m = 0 with probability p" : "evaluation: y = x");
    cnn__explain_value(op, out, k, row, column);
}

static const cnn__kind cnn__dropout_kind = {
    cnn__layer_dropout_shape, cnn__layer_dropout_forward, cnn__layer_dropout_backward,
    cnn__layer_dropout_at, cnn__layer_dropout_explain, NULL,
    NULL, NULL, NULL, NULL, CNN__TAKES(p, cnn__dropout_fields)
};

void cnn_dropout_with(cnn_net *net, cnn_dropout_options o)
{ cnn__add_with(net, &cnn__dropout_kind, "dropout", &o, 0, 0); }

/* ---- joins: the list's output here, and another place's ---- */

static int cnn__layer_add_shape(cnn__layer *l, const cnn__fitter *f)
{
    cnn__text here, there;
    l->out = l->in;
    if (!memcmp(&l->in, &l->other, sizeof l->in)) return 1;
    return cnn__misfit(f, "adds two outputs of one shape, but here are %.60s and at place %d are "
                       "%.60s; bring one to the other's shape, e.g. by a convolution of 1 x 1",
                       cnn__dims_text(l->in, &here), l->inputs[1] + 1,
                       cnn__dims_text(l->other, &there));
}

static void cnn__layer_add_forward(const cnn__op *op)
{ op->b->add(op->b->context, op->y, op->x[0], op->x[1], cnn__values(op)); }

/* `channels` channels, from `from_first` on of a tensor that has from_channels, to one that has
   to_channels. to NULL: not wanted */
static void cnn__copy(const cnn__op *op, int channels, float *to, int to_channels, int to_first,
                      const float *from, int from_channels, int from_first)
{
    cnn_copy_shape s = { op->batch, channels, op->layer->out.height * op->layer->out.width,
                         to_channels, to_first, from_channels, from_first };
    if (to) op->b->copy_channels(op->b->context, &s, to, from);
}

static void cnn__layer_add_backward(const cnn__op *op)
{
    int all = op->layer->out.channels;
    cnn__copy(op, all, op->dx[0], all, 0, op->dy, all, 0);
    cnn__copy(op, all, op->dx[1], all, 0, op->dy, all, 0);
}

static double cnn__layer_add_at(const cnn__op *op, int n, int k, int row, int column)
{
    size_t i = cnn__place(op->layer, n, k, row, column);
    return (double)op->x[0][i] + (double)op->x[1][i];
}

static void cnn__layer_add_explain(const cnn__op *op, FILE *out, int k, int row, int column)
{
    size_t i = cnn__place(op->layer, 0, k, row, column);
    cnn__fprintf(out, "y = a + b, b from place %d\n  %.6f + %.6f = %.6f\n",
                 op->layer->inputs[1] + 1, (double)op->x[0][i], (double)op->x[1][i],
                 cnn__layer_add_at(op, 0, k, row, column));
}

static void cnn__layer_add_export_c(const cnn__layer *l, int number, FILE *file)
{
    (void)number;
    cnn__line(file, 1, "int i;");
    cnn__line(file, 1, "for (i = 0; i < %d; i++) out[i] = in[i] + in2[i];", (int)cnn__size(l->out));
}

static const cnn__kind cnn__add_kind = {
    cnn__layer_add_shape, cnn__layer_add_forward, cnn__layer_add_backward, cnn__layer_add_at,
    cnn__layer_add_explain, cnn__layer_add_export_c,
    NULL, NULL, NULL, NULL, CNN__NO_OPTIONS
};

static int cnn__layer_concat_shape(cnn__layer *l, const cnn__fitter *f)
{
    cnn__text here, there;
    l->out = l->in;
    if (l->in.height != l->other.height || l->in.width != l->other.width
        || l->in.flat != l->other.flat)
        return cnn__misfit(f, "joins the channels of maps of one size, but here are %.60s and at "
                           "place %d are %.60s", cnn__dims_text(l->in, &here), l->inputs[1] + 1,
                           cnn__dims_text(l->other, &there));
    if ((double)l->in.channels + l->other.channels > INT_MAX)
        return cnn__misfit(f, "%d and %d channels are too many", l->in.channels, l->other.channels);
    l->out.channels += l->other.channels;
    return 1;
}

static void cnn__layer_concat_forward(const cnn__op *op)
{
    int a = op->layer->in.channels, b = op->layer->other.channels;
    cnn__copy(op, a, op->y, a + b, 0, op->x[0], a, 0);
    cnn__copy(op, b, op->y, a + b, a, op->x[1], b, 0);
}

static void cnn__layer_concat_backward(const cnn__op *op)
{
    int a = op->layer->in.channels, b = op->layer->other.channels;
    cnn__copy(op, a, op->dx[0], a, 0, op->dy, a + b, 0);
    cnn__copy(op, b, op->dx[1], b, 0, op->dy, a + b, a);
}

static double cnn__layer_concat_at(const cnn__op *op, int n, int k, int row, int column)
{
    const cnn__layer *l = op->layer;
    int second = k >= l->in.channels, channels = second ? l->other.channels : l->in.channels;
    ptrdiff_t map = (ptrdiff_t)n * channels + (second ? k - l->in.channels : k);
    return (double)op->x[second][(map * l->out.height + row) * l->out.width + column];
}

static void cnn__layer_concat_explain(const cnn__op *op, FILE *out, int k, int row, int column)
{
    const cnn__layer *l = op->layer;
    int second = k >= l->in.channels;
    cnn__fprintf(out, "channel %d of place %d: %.6f\n", second ? k - l->in.channels : k,
                 l->inputs[second] + 1, cnn__layer_concat_at(op, 0, k, row, column));
}

static void cnn__layer_concat_export_c(const cnn__layer *l, int number, FILE *file)
{
    int a = (int)cnn__size(l->in), b = (int)cnn__size(l->other);
    (void)number;
    cnn__line(file, 1, "int i;");
    cnn__line(file, 1, "for (i = 0; i < %d; i++) out[i] = in[i];", a);
    cnn__line(file, 1, "for (i = 0; i < %d; i++) out[%d + i] = in2[i];", b, a);
}

static const cnn__kind cnn__concat_kind = {
    cnn__layer_concat_shape, cnn__layer_concat_forward, cnn__layer_concat_backward,
    cnn__layer_concat_at, cnn__layer_concat_explain, cnn__layer_concat_export_c,
    NULL, NULL, NULL, NULL, CNN__NO_OPTIONS
};

static int cnn__is_place(cnn_net *net, const char *call, int place);

static void cnn__add_join(cnn_net *net, const cnn__kind *kind, const char *type,
                          const char *call, int place)
{
    cnn__layer layer = cnn__layer_of(kind, type);
    if (!cnn__is_place(net, call, place)) return;
    layer.inputs[1] = place - 1;
    layer.input_count = 2;
    cnn__add(net, &layer);
}

void cnn_add(cnn_net *net, int place)
{ cnn__add_join(net, &cnn__add_kind, "add", "cnn_add", place); }

void cnn_concat(cnn_net *net, int place)
{ cnn__add_join(net, &cnn__concat_kind, "concat", "cnn_concat", place); }

/* ============================================================================================
   >>net   Building a list of layers and running it forward and backward. The net owns everything:
           one block of parameters, one of gradients, the outputs of each operation.

           In this section: the network; building; its backend; its parameters, and layers fused into
           operations; memory for batches; looking; forward; losses; backward; every number by name.

   From a program to a card; backward takes the same way, last operation first:
       cnn_forward         checks the batch, gathers its samples into net->pass.x
       cnn__run            one operation (cnn__op) after the other: a layer, or several fused
       cnn__op_forward     puts the arguments together: cnn__prepare
       kind->forward       the layer's kind, e.g. cnn__layer_conv2d_forward
       backend entry       e.g. cnn__simd_conv2d_forward; `direct`: cnn__direct_conv2d_forward, which calls the card,
                           cnn__conv2d_forward
   ============================================================================================ */

/* at >>data: samples in its arrays, whatever `count` was set to */
static size_t cnn__data_count(const cnn_data *data);
static int cnn__data_stays(const cnn_data *data);          /* 1: its arrays do not change, so a copy stays right */
typedef struct cnn__data_memory cnn__data_memory;
static cnn__data_memory *cnn__data_keep(const cnn_data *data);      /* to know it again, also when it has been freed */
static void cnn__data_forget(cnn__data_memory *memory);
static int cnn__data_freed(cnn__data_memory *memory);
/* cnn_loader_new for `call` */
static cnn_loader *cnn__deal(const char *call, const cnn_data *data, cnn_loader_options o);
/* its samples, one after the other, of a data set that reads them; NULL and an error */
static const unsigned char *cnn__read_samples(cnn_net *net, const cnn_batch *batch);
static int cnn__forward_next(cnn_net *net, cnn_loader *loader, cnn_batch *batch);
/* its augmentation, and the keys of that */
static cnn_augment_options cnn__augmentation(const cnn_loader *loader, uint64_t *seed, uint64_t *epoch);

/* An array of a data set that does not change (.constant), copied to the backend once. of: tells the data set from
   others even after it was freed. */
typedef struct cnn__resident { cnn__data_memory *of; const void *host; void *memory; } cnn__resident;

/* The samples of a batch, one after the other, as the data set's function writes them on the pool's threads */
typedef struct cnn__reading {
    cnn__job job; int done;
    int (*read)(void *user, int sample, unsigned char *bytes); void *user;
    const int *order; int size;             /* as in cnn_batch; size 0: no batch                         */
    unsigned char *bytes; size_t values, room;             /* (size, values), then (size): what read returned */
} cnn__reading;

typedef struct cnn__flow { float *memory; int used; } cnn__flow;     /* room for the gradient of any output */

/* The state of forward and backward passes. A network has two: one for training, one for looking (evaluating,
   predicting, checking; see "looking" below), so that a look changes nothing in training. */
typedef struct cnn__pass {
    int evaluating;                         /* dropout off                                               */
    int batch, has_loss;                    /* samples of the last forward pass; its loss was taken      */
    cnn_batch last;                         /* what cnn_forward was given for it                         */
    int *dealt;                             /* its order then, checked: (capacity), on the host          */
    cnn__op *ops;
    uint64_t data_seed, epoch;              /* the counters'                                             */
    cnn_counters *counters;                 /* in backend memory, as are all below                       */
    float *gradients;                       /* the block of all parameters' gradients                    */
    /* for batches of up to `capacity` samples */
    int capacity;
    float *x, *dloss, *targets;
    cnn__flow *flows; int flow_count;       /* gradients on their way back: a chain needs two, a place that several
                                               layers read one more; each is taken when it is first needed */
    int *labels;
    int *order, order_room, order_next;     /* the numbers of samples; order_next: the counters' next_offset */
} cnn__pass;

/* Operations that run as one while the network is evaluated: see cnn__find_folds. op.last < 0: none */
typedef struct cnn__fold { cnn__op op; size_t weight, bias; } cnn__fold;   /* weight, bias: places in net->folded */

typedef enum cnn__optimizer { CNN__NO_OPTIMIZER, CNN__SGD, CNN__ADAM, CNN__ADAMW } cnn__optimizer;
typedef enum cnn__schedule { CNN__CONSTANT, CNN__STEP_LR, CNN__COSINE_LR, CNN__ONE_CYCLE_LR } cnn__schedule;

struct cnn_net {
    cnn__text error;
    int broken;                             /* building failed: the error stays                          */
    /* layers */
    cnn__dims input;
    cnn__layer *layers; int layer_count, layer_room;
    int here;                               /* the layer whose output the next one reads; -1: the samples */
    char block[64], next_name[96]; int block_layers;
    /* backend */
    cnn_backend backend; int opened, threads;
    uint64_t seed;
    /* parameters: there once `ready` */
    int ready;
    cnn__tensor *tensors, *buffers; int tensor_count, buffer_count;        /* tensors: parameters only */
    const cnn__tensor **state; int state_count;            /* both, as PyTorch's state dict lists them    */
    size_t parameter_count, state_size;     /* floats, gaps between tensors included: of parameters; with buffers */
    float *parameters, *moment1, *moment2;  /* behind the parameters are the buffers, which no optimizer sees    */
    cnn_span *spans;                        /* (tensor_count), in backend memory                         */
    int op_count;                           /* of each pass                                              */
    cnn__fold *folds;                       /* (op_count): what begins with that operation               */
    float *folded; size_t folded_size; int folded_now;     /* their weights; 0: the parameters have changed since */
    uint64_t weight_version;                /* counts their changes */
    /* passes */
    cnn__pass pass, look;                   /* pass: in use; look: the one that waits                    */
    int looking, allow_tf32;                /* looking: 1 between cnn__begin_look and cnn__end_look      */
    float *scale, *scaled;                  /* the inputs' scale, and behind it their shift; scaled: on the host */
    float *trained_scale;                   /* the same for the bytes that it last trained on, or NULL   */
    /* for data that may change: `staging`, a batch put together on the host; `staged`, its copy in backend memory */
    void *staged, *staging; size_t staged_size, staging_size;
    cnn__reading reading;                   /* for a batch that is not the one its loader dealt last     */
    cnn_cross_entropy_options cross_entropy;               /* its weights: a copy of the network's own */
    float *class_weight_sent;                              /* the same in backend memory */
    void *work; size_t work_size; int work_batch;          /* work_batch: it is large enough for this one     */
    cnn__resident *resident; int resident_count, resident_room;
    /* training */
    cnn__optimizer optimizer; cnn_sgd_options sgd; cnn_adam_options adam;
    double lr, initial_lr;                  /* the rate; where the first schedule began, or -1 without one */
    cnn__schedule schedule; long schedule_steps;
    cnn_step_lr_options step_lr; cnn_cosine_lr_options cosine_lr; cnn_one_cycle_lr_options one_cycle_lr;
    cnn_epoch *history; int history_count, history_room;
    float *best; int best_epoch;            /* on the host: the weights after that epoch; 0: none        */
    cnn__bytes metadata;                    /* key, value, key, value ..., each ended by 0               */
};

enum { CNN__IGNORED = -100 };                              /* PyTorch's default of ignore_index */

const char *cnn_error(const cnn_net *net)
{
    if (!net) return "out of memory for the network";
    return net->error.s[0] ? net->error.s : NULL;
}

void cnn_clear_error(cnn_net *net) { if (net && !net->broken) net->error.s[0] = 0; }

static int cnn__stopped(const cnn_net *net) { return !net || net->error.s[0]; }

static int cnn__fail(cnn_net *net, const char *format, ...) CNN__PRINTF(2, 3);
static int cnn__fail(cnn_net *net, const char *format, ...)                /* an error of the network's; always 0 */
{
    va_list arguments;
    va_start(arguments, format);
    cnn__vsay(&net->error, format, arguments);
    va_end(arguments);
    return 0;
}

cnn_net *cnn_new(int channels, int height, int width)
{
    cnn_net *net = (cnn_net *)cnn__alloc(1, sizeof *net);
    if (!net) {
        CNN_ON_ERROR(cnn_error(NULL));
        return NULL;
    }
    net->input = cnn__maps(channels, height, width);
    net->backend = *cnn_find_backend("simd");
    net->cross_entropy.ignore_index = CNN__IGNORED;
    net->initial_lr = -1;
    net->weight_version = 1;
    net->here = -1;
    if (channels < 1 || height < 1 || width < 1 || (double)channels * height * width > INT_MAX) {
        net->broken = 1;
        cnn__fail(net, "cnn_new: a sample of %d x %d x %d is not possible; channels, height and width must be at least "
                  "1 and their product at most %d", channels, height, width, INT_MAX);
    }
    return net;
}

/* ---- building: each layer is fitted to the shape that arrives ---- */

/* `layer 7 (linear "classifier")` */
static const char *cnn__label(const cnn__layer *layer, int number, cnn__text *text)
{
    cnn__snprintf(text->s, sizeof text->s, layer->named ? "layer %d (%s \"%s\")" : "layer %d (%s)", number, layer->type,
             layer->name);
    return text->s;
}

/* The square input size with which the last layer would get `features` values; 0 if none. */
static int cnn__size_that_fits(const cnn_net *net, int features)
{
    cnn__fitter quiet = { net, "", NULL };
    int size, i;
    for (size = 1; size <= 512; size++) {
        cnn__dims d = cnn__maps(net->input.channels, size, size);
        for (i = 0; i < net->layer_count; i++) {
            cnn__layer layer = net->layers[i];
            if (layer.input_count > 1 || layer.inputs[0] != i - 1) return 0;       /* only in a chain */
            layer.in = d;
            if (!layer.kind->shape(&layer, &quiet)) break;
            d = layer.out;
        }
        if (i == net->layer_count && d.channels == features) return size;
    }
    return 0;
}

/* .in_features says what the network was drawn for: often the image has another size. */
static int cnn__features_differ(const cnn__layer *l, const cnn__fitter *f)
{
    const cnn_net *net = f->net;
    const cnn__layer *last = net->here < 0 ? NULL : &net->layers[net->here];
    cnn__text label = { "the input" }, dims = { "" }, guess = { "" };
    int size = f->error ? cnn__size_that_fits(net, l->linear_options.in_features) : 0;
    if (last) cnn__label(last, net->here + 1, &label);
    if (last && last->out.flat && !last->in.flat && !last->kind->forward)  /* `16 x 7 x 7 = 784` */
        strcat(strcpy(dims.s, cnn__dims_text(last->in, &guess)), " = ");
    guess.s[0] = 0;
    if (size)
        cnn__snprintf(guess.s, sizeof guess.s, ". The input is %d x %d; this network was drawn for %d x %d?",
                      net->input.height, net->input.width, size, size);
    return cnn__misfit(f, "expects %d inputs, but %.80s gives %s%d%s", l->linear_options.in_features, label.s, dims.s,
                       l->in.channels, guess.s);
}

static void cnn__name_layer(cnn_net *net, cnn__layer *layer)
{
    if (net->next_name[0]) {
        cnn__snprintf(layer->name, sizeof layer->name, "%s", net->next_name);
        layer->named = 1;
        net->next_name[0] = 0;
    } else if (layer->input_count > 1)                     /* no module in PyTorch: it takes no number */
        cnn__snprintf(layer->name, sizeof layer->name, "%s%d", layer->type, net->layer_count + 1);
    else if (net->block[0]) {
        cnn__snprintf(layer->name, sizeof layer->name, "%s.%d", net->block, net->block_layers++);
        layer->named = 1;
    } else
        cnn__snprintf(layer->name, sizeof layer->name, "%d", net->block_layers++);
}

static cnn__dims cnn__dims_at(const cnn_net *net, int layer) { return layer < 0 ? net->input : net->layers[layer].out; }

/* Fills in a new layer, checks it and appends it. Returns 1, or 0 and an error. */
static int cnn__fit_layer(cnn_net *net, cnn__layer *layer, const char *label)
{
    cnn__fitter f = { net, label, &net->error };
    const cnn__kind *kind = layer->kind;
    int i;
    if (net->ready)
        return cnn__misfit(&f, "the network is already in use; add all layers before the first forward pass or look at "
                           "its parameters");
    for (i = 0; i < net->layer_count; i++)
        if (!strcmp(net->layers[i].name, layer->name))
            return cnn__misfit(&f, "there is a layer of that name already, layer %d", i + 1);
    layer->inputs[0] = net->here;
    layer->in = cnn__dims_at(net, layer->inputs[0]);
    if (layer->input_count > 1) layer->other = cnn__dims_at(net, layer->inputs[1]);
    if (!cnn__options((char *)layer + kind->options_at, kind->fields, kind->field_count, label, &net->error)
        || !kind->shape(layer, &f))
        return 0;
    if ((double)layer->out.channels * layer->out.height * layer->out.width > INT_MAX)
        return cnn__misfit(&f, "its output of %d x %d x %d is larger than %d values a sample", layer->out.channels,
                           layer->out.height, layer->out.width, INT_MAX);
    net->layers = (cnn__layer *)cnn__grow(net->layers, net->layer_count, &net->layer_room, sizeof *layer);
    if (net->layer_count == net->layer_room) return cnn__misfit(&f, "out of memory");
    for (i = 0; i < layer->input_count; i++) if (layer->inputs[i] >= 0) net->layers[layer->inputs[i]].readers++;
    net->here = net->layer_count;
    net->layers[net->layer_count++] = *layer;
    return 1;
}

static void cnn__add(cnn_net *net, cnn__layer *layer)
{
    cnn__text label;
    if (cnn__stopped(net)) return;
    cnn__name_layer(net, layer);
    net->broken = !cnn__fit_layer(net, layer, cnn__label(layer, net->layer_count + 1, &label));
}

static int cnn__is_place(cnn_net *net, const char *call, int place)
{
    if (cnn__stopped(net)) return 0;
    if (place >= 0 && place <= net->layer_count) return 1;
    net->broken = 1;
    return cnn__fail(net, "%s: there is no place %d; cnn_here gives them, from 0, the samples, to %d, the last layer "
                     "so far", call, place, net->layer_count);
}

int cnn_here(const cnn_net *net) { return net ? net->here + 1 : 0; }

void cnn_from(cnn_net *net, int place) { if (cnn__is_place(net, "cnn_from", place)) net->here = place - 1; }

static int cnn__usable_name(cnn_net *net, const char *call, const char *name)
{
    if (cnn__stopped(net)) return 0;
    if (name && name[0] && strlen(name) < 60) return 1;
    net->broken = 1;
    return cnn__fail(net, "%s: a name has between 1 and 59 characters", call);
}

void cnn_block(cnn_net *net, const char *name)
{
    if (!cnn__usable_name(net, "cnn_block", name)) return;
    strcpy(net->block, name);
    net->block_layers = 0;
}

void cnn_name(cnn_net *net, const char *name)
{
    if (cnn__usable_name(net, "cnn_name", name)) strcpy(net->next_name, name);
}

/* ---- its backend ---- */

enum { CNN__BACKENDS = 8 };

static cnn_backend cnn__backend_list[CNN__BACKENDS];
static int cnn__backend_count;

/* Under the lock. Entries stay where they are once they are filled. */
static const cnn_backend *cnn__backend_named(const char *name)
{
    int i;
    if (!cnn__backend_count) {
        cnn__backend_list[0] = cnn__direct();
        cnn__backend_list[1] = cnn__simd();
        cnn__backend_count = 2;
    }
    for (i = 0; name && i < cnn__backend_count; i++)
        if (!strcmp(cnn__backend_list[i].name, name)) return &cnn__backend_list[i];
    return NULL;
}

int cnn_register_backend(const cnn_backend *backend)
{
    int taken = 0;
    if (!backend || !backend->name) return 0;
    cnn__lock();
    if (!cnn__backend_named(backend->name) && cnn__backend_count < CNN__BACKENDS) {
        cnn__backend_list[cnn__backend_count++] = *backend;
        taken = 1;
    }
    cnn__unlock();
    return taken;
}

const cnn_backend *cnn_find_backend(const char *name)
{
    const cnn_backend *backend;
    cnn__lock();
    backend = cnn__backend_named(name);
    cnn__unlock();
    return backend;
}

static int cnn__still_open(cnn_net *net, const char *call)
{
    if (cnn__stopped(net)) return 0;
    if (net->ready)
        cnn__fail(net, "%s: the network is already in use; call it before the first forward pass or look at its "
                  "parameters", call);
    return !net->ready;
}

void cnn_to(cnn_net *net, const char *name)
{
    const cnn_backend *backend = cnn_find_backend(name);
    cnn__text known = { "" };
    int i;
    if (!cnn__still_open(net, "cnn_to")) return;
    if (backend) { net->backend = *backend; return; }
    cnn__lock();
    for (i = 0; i < cnn__backend_count; i++)
        cnn__snprintf(known.s + strlen(known.s), sizeof known.s - strlen(known.s), "%s%.40s", i ? ", " : "",
                 cnn__backend_list[i].name);
    cnn__unlock();
    cnn__fail(net, "cnn_to: there is no backend \"%.60s\"; this program has %.300s%s", name ? name : "", known.s, name
              && !strcmp(name, "cuda") ? " (link cnn_cuda.o: make CUDA=1)" : "");
}

void cnn_use_backend(cnn_net *net, const cnn_backend *backend)
{
    if (!cnn__still_open(net, "cnn_use_backend")) return;
    if (backend) net->backend = *backend;
    else cnn__fail(net, "cnn_use_backend: there is no backend");
}

void cnn_set_num_threads(cnn_net *net, int threads)
{
    if (!cnn__still_open(net, "cnn_set_num_threads")) return;
    if (threads < 1) cnn__fail(net, "cnn_set_num_threads: needs at least 1 thread, not %d", threads);
    else net->threads = threads;
}

int cnn_num_threads(const cnn_net *net) { return net && net->threads ? net->threads : cnn__processors(); }

void cnn_manual_seed(cnn_net *net, uint64_t seed) { if (cnn__still_open(net, "cnn_manual_seed")) net->seed = seed; }

void cnn_allow_tf32(cnn_net *net, int allow) { if (!cnn__stopped(net)) net->allow_tf32 = allow != 0; }

static int cnn__open_backend(cnn_net *net)
{
    cnn_backend *b = &net->backend;
    const char *missing = NULL;
    char sentence[256] = "";
    if (b->version != CNN_BACKEND_VERSION)
        return cnn__fail(net, "backend \"%s\": its table has version %d, but this cnn.h has version %d; build both "
                         "from the same sources", b->name, b->version, CNN_BACKEND_VERSION);
#define CNN__NEEDS(entry) if (!missing && !b->entry) missing = #entry;
    CNN__NEEDS(alloc) CNN__NEEDS(free) CNN__NEEDS(upload) CNN__NEEDS(download) CNN__NEEDS(zero)
    CNN__OPERATIONS(CNN__NEEDS)
#undef CNN__NEEDS
    if (missing)
        return cnn__fail(net, "backend \"%s\": its table has no %s; copy cnn_find_backend(\"direct\") and replace "
                         "entries", b->name, missing);
    if (b->open) {
        b->context = b->open(cnn_num_threads(net), sentence, sizeof sentence);
        if (!b->context) return cnn__fail(net, "backend \"%s\" cannot start: %s", b->name, sentence);
    }
    cnn__open_pool(cnn_num_threads(net));                  /* for data sets that read their samples */
    net->opened = 1;
    return 1;
}

static int cnn__sync(cnn_net *net)
{
    const char *wrong = net->backend.sync ? net->backend.sync(net->backend.context) : NULL;
    if (wrong) cnn__fail(net, "backend \"%s\": %s", net->backend.name, wrong);
    return !wrong;
}

static void *cnn__backend_alloc(cnn_net *net, size_t count, size_t size, const char *what)
{
    size_t bytes;
    void *memory = cnn__mul(&bytes, count, size) && bytes <= (size_t)-1 / 2
                     ? net->backend.alloc(net->backend.context, bytes ? bytes : 1)
                     : NULL;
    if (!memory)
        cnn__fail(net, "out of memory: %s of the network need %.1f MB on backend \"%s\"; use smaller layers or a "
                  "smaller batch", what, (double)count * (double)size / 1e6, net->backend.name);
    return memory;
}

static float *cnn__alloc_floats(cnn_net *net, size_t count, const char *what)
{ return (float *)cnn__backend_alloc(net, count, sizeof(float), what); }

static void cnn__backend_free(cnn_net *net, void *pointer_to_pointer)
{
    void *memory;
    memcpy(&memory, pointer_to_pointer, sizeof memory);
    if (memory) (net->backend.free)(net->backend.context, memory);     /* `free` may be a macro of the program's */
    memset(pointer_to_pointer, 0, sizeof memory);
}

static void cnn__upload(cnn_net *net, void *to, const void *host, size_t bytes)
{ net->backend.upload(net->backend.context, to, host, bytes); }

static void cnn__fetch(cnn_net *net, void *host, const void *from, size_t bytes)
{ net->backend.download(net->backend.context, host, from, bytes); }

static void cnn__zero(cnn_net *net, void *memory, size_t bytes)
{ net->backend.zero(net->backend.context, memory, bytes); }

static float *cnn__download(cnn_net *net, const float *from, size_t count)  /* a host copy, freed by cnn__free */
{
    size_t bytes;
    float *copy = cnn__mul(&bytes, count, sizeof *copy) ? (float *)cnn__alloc_raw(bytes) : NULL;
    if (copy) cnn__fetch(net, copy, from, sizeof *copy * count);
    else cnn__fail(net, "out of memory");
    return copy;
}

static cnn_counters cnn__read_counters(cnn_net *net)
{
    cnn_counters c;
    cnn__fetch(net, &c, net->pass.counters, sizeof c);
    return c;
}

static void cnn__write_counters(cnn_net *net, const cnn_counters *c)
{ cnn__upload(net, net->pass.counters, c, sizeof *c); }

/* ---- its parameters, in one block; layers fused into operations ---- */

/* Gives a layer's parameters or buffers their keys and their places in the block, whose size is *size. */
static void cnn__place_tensors(const cnn_net *net, int layer, cnn__tensor *t, int count, size_t *size)
{
    const size_t most = (size_t)-1 / 64;                   /* more than can be had, and no sum wraps around */
    int k, i;
    for (k = 0; k < count; k++, t++) {
        cnn__snprintf(t->key, sizeof t->key, "%s.%s", net->layers[layer].name, t->name);
        t->layer = layer;
        t->place = k;
        for (t->count = 1, i = 0; i < t->ndim; i++)
            if (!cnn__mul(&t->count, t->count, (size_t)t->shape[i])) t->count = most;
        t->offset = *size;
        *size += (t->count + (size_t)t->integer + 15) / 16 * 16;           /* each begins at a cache line */
        if (*size > most) *size = most;
    }
}

static int cnn__list_tensors(cnn_net *net)
{
    size_t room = (size_t)net->layer_count * CNN__TENSORS;
    int i, k;
    net->tensors = (cnn__tensor *)cnn__alloc(room, sizeof *net->tensors);
    net->buffers = (cnn__tensor *)cnn__alloc(room, sizeof *net->buffers);
    net->state = (const cnn__tensor **)cnn__alloc(2 * room, sizeof *net->state);
    if (!net->tensors || !net->buffers || !net->state) return cnn__fail(net, "out of memory for the network's layers");
    for (i = 0; i < net->layer_count; i++) {
        cnn__layer *l = &net->layers[i];
        cnn__tensor *parameters = net->tensors + net->tensor_count, *buffers = net->buffers + net->buffer_count;
        l->first_tensor = net->tensor_count;
        l->first_buffer = net->buffer_count;
        l->tensor_count = l->kind->tensors ? l->kind->tensors(l, parameters) : 0;
        l->buffer_count = l->kind->buffers ? l->kind->buffers(l, buffers) : 0;
        cnn__place_tensors(net, i, parameters, l->tensor_count, &net->parameter_count);
        for (k = 0; k < l->tensor_count; k++) net->state[net->state_count++] = &parameters[k];
        for (k = 0; k < l->buffer_count; k++) net->state[net->state_count++] = &buffers[k];
        net->tensor_count += l->tensor_count;
        net->buffer_count += l->buffer_count;
    }
    net->state_size = net->parameter_count;
    for (i = 0; i < net->layer_count; i++)
        cnn__place_tensors(net, i, net->buffers + net->layers[i].first_buffer, net->layers[i].buffer_count,
                           &net->state_size);
    return 1;
}

/* One tensor's first values: a function of (seed, number of the tensor, element). */
static void cnn__init_tensor(float *w, const cnn__tensor *t, uint64_t seed, int number)
{
    double bound = 1 / sqrt((double)t->fan_in), deviation = 0, a, b;       /* PyTorch: kaiming_uniform(a = sqrt 5) */
    size_t i;
    switch (t->init) {
    case CNN_KAIMING_UNIFORM: bound = sqrt(6.0 / (double)t->fan_in); break;
    case CNN_XAVIER_UNIFORM:  bound = sqrt(6.0 / (double)(t->fan_in + t->fan_out)); break;
    case CNN_KAIMING_NORMAL:  deviation = sqrt(2.0 / (double)t->fan_in); break;
    case CNN_XAVIER_NORMAL:   deviation = sqrt(2.0 / (double)(t->fan_in + t->fan_out)); break;
    default: break;
    }
    for (i = 0; !t->fan_in && i < t->count; i++) w[i] = t->first;
    for (i = 0; t->fan_in && i < t->count; i++) {
        uint32_t r[4];
        cnn_random(r, seed, CNN__STREAM_INIT, (uint64_t)number, (uint32_t)i);
        a = (double)cnn__unit(r[0]);
        b = (double)cnn__unit(r[1]);
        if (deviation > 0)                                 /* Box, Muller */
            w[i] = (float)(deviation * sqrt(-2 * log(1.0 - a)) * cos(6.283185307179586 * b));
        else
            w[i] = (float)(bound * (2.0 * a - 1));
    }
}

static int cnn__frozen(const cnn_net *net, const cnn__tensor *t) { return net->layers[t->layer].frozen[t->place]; }

/* The spans as a new optimizer finds them: no parameter has been moved yet. */
static void cnn__new_spans(cnn_net *net)
{
    int i;
    for (i = 0; i < net->tensor_count; i++) {
        cnn_span span;
        memset(&span, 0, sizeof span);
        span.offset = net->tensors[i].offset;
        span.count = net->tensors[i].count;
        span.weight_decay = net->optimizer == CNN__SGD ? net->sgd.weight_decay : net->adam.weight_decay;
        span.trainable = !cnn__frozen(net, &net->tensors[i]);
        cnn__upload(net, net->spans + i, &span, sizeof span);
    }
}

static int cnn__init_parameters(cnn_net *net)
{
    float *host = (float *)cnn__alloc(net->state_size + 1, sizeof *host);
    int i;
    if (!host)
        return cnn__fail(net, "out of memory: the network's %.0f parameters need %.1f MB", (double)net->parameter_count,
                         4e-6 * (double)net->parameter_count);
    net->parameters = cnn__alloc_floats(net, net->state_size, "the parameters");
    net->pass.gradients = cnn__alloc_floats(net, net->parameter_count, "the gradients");
    net->pass.counters = (cnn_counters *)cnn__backend_alloc(net, 1, sizeof(cnn_counters), "the counters");
    net->look.counters = (cnn_counters *)cnn__backend_alloc(net, 1, sizeof(cnn_counters), "the counters");
    net->spans = (cnn_span *)cnn__backend_alloc(net, (size_t)net->tensor_count, sizeof(cnn_span), "the counters");
    if (!cnn__stopped(net)) {
        cnn_counters c;
        for (i = 0; i < net->tensor_count; i++)
            cnn__init_tensor(host + net->tensors[i].offset, &net->tensors[i], net->seed, i);
        for (i = 0; i < net->buffer_count; i++)
            cnn__init_tensor(host + net->buffers[i].offset, &net->buffers[i], net->seed, net->tensor_count + i);
        cnn__upload(net, net->parameters, host, sizeof *host * net->state_size);
        cnn__zero(net, net->pass.gradients, sizeof *host * net->parameter_count);
        cnn__zero(net, net->look.counters, sizeof c);
        memset(&c, 0, sizeof c);
        c.seed = net->seed;
        c.lr = net->lr;
        cnn__write_counters(net, &c);
        cnn__new_spans(net);
    }
    cnn__free(host);
    return !cnn__stopped(net);
}

/* Layer i alone, as an operation */
static cnn__op cnn__op_of(const cnn_net *net, int i)
{
    cnn__op op;
    memset(&op, 0, sizeof op);
    op.layer = &net->layers[i];
    op.first = op.last = i;
    op.shapes = op.layer->shapes;
    op.kept = op.layer->kept;
    return op;
}

/* Its parameters and buffers are in a block like net->parameters, which may be on the host. */
static void cnn__bind(const cnn_net *net, cnn__op *op, float *block)
{
    const cnn__layer *l = op->layer;
    int i;
    for (i = 0; i < l->tensor_count; i++) op->tensors[i] = block + net->tensors[l->first_tensor + i].offset;
    for (i = 0; i < l->buffer_count; i++) op->buffers[i] = block + net->buffers[l->first_buffer + i].offset;
}

static void cnn__set_batch(cnn__op *op, int batch, int training)
{
    cnn__shapes *s = &op->shapes;
    op->batch = batch;
    op->training = training;
    s->conv.batch = s->conv.pool.batch = s->pool.batch = s->linear.batch = batch;
    s->norm.batch = s->map.batch = s->pad.batch = batch;
    s->norm.training = training || !op->layer->buffer_count;
}

/* The operation that computes a layer's output; -1: the samples */
static int cnn__op_at(const cnn_net *net, int layer) { return layer < 0 ? -1 : net->layers[layer].op; }

static int cnn__only_reader(const cnn_net *net, int i)     /* the next layer is the only one that sees i's output */
{
    const cnn__layer *next = &net->layers[i + 1];
    return i + 1 < net->layer_count && net->layers[i].readers == 1 && next->input_count == 1 && next->inputs[0] == i;
}

/* The operation does the work of the layers after `last`, too, as far as its kind can. Returns the last of them. */
static int cnn__fuse_after(const cnn_net *net, cnn__op *op, int last)
{
    const cnn__kind *kind = op->layer->kind;
    while (kind->fuse && cnn__only_reader(net, last) && kind->fuse(op, &net->layers[last + 1])) last++;
    return last;
}

/* Layers become operations. */
static void cnn__fuse(cnn_net *net)
{
    int i, n;
    for (i = 0; i < net->layer_count; i++) {
        cnn__layer *l = &net->layers[i];
        cnn__op *op = &net->pass.ops[net->op_count];
        if (!l->kind->forward) {            /* its output is its input's */
            l->op = cnn__op_at(net, l->inputs[0]);
            continue;
        }
        *op = cnn__op_of(net, i);
        op->last = i = cnn__fuse_after(net, op, i);
        for (n = op->first; n <= i; n++) net->layers[n].op = net->op_count;
        net->op_count++;
    }
}

/* ---- folding: in evaluation, y = scale x + shift is work for the layer before ----

   While one evaluates or predicts, the running statistics stay as they are, and a batch normalisation is a scale and a
   shift of each channel. A convolution or linear layer before it does that with other weights and another bias,
   weight(k) scale(k) and bias(k) scale(k) + shift(k), and is fused with the activation and pooling that follow. So all
   of them cost what it costs alone. */

static int cnn__find_folds(cnn_net *net)
{
    const cnn__op *ops = net->pass.ops;
    int i;
    net->folds = (cnn__fold *)cnn__alloc((size_t)net->op_count + 1, sizeof *net->folds);
    if (!net->folds) return cnn__fail(net, "out of memory for the network's layers");
    for (i = 0; i < net->op_count; i++) {
        cnn__fold *fold = &net->folds[i];
        cnn__op op = ops[i];
        const cnn__layer *l = op.layer;
        fold->op = op;
        fold->op.last = -1;
        if (!l->takes_scale || op.last > op.first) continue;               /* an activation is between them */
        if (!cnn__only_reader(net, op.first) || !net->layers[op.first + 1].scale) continue;
        op.last = cnn__fuse_after(net, &op, op.first + 1);
        if (ops[net->layers[op.last].op].last > op.last) continue;         /* it would end within an operation */
        fold->op = op;
        fold->weight = net->folded_size;
        fold->bias = fold->weight + (net->tensors[l->first_tensor].count + 15) / 16 * 16;
        net->folded_size = fold->bias + ((size_t)l->out.channels + 15) / 16 * 16;
    }
    return 1;
}

static void cnn__fold_weights(const cnn_net *net, const cnn__fold *fold, float *state, float *to)
{
    cnn__op from = fold->op, scaled = cnn__op_of(net, from.first + 1);
    size_t rows = (size_t)from.layer->out.channels, row, i;
    cnn__bind(net, &from, state);
    cnn__bind(net, &scaled, state);
    row = net->tensors[from.layer->first_tensor].count / rows;
    for (i = 0; i < rows; i++) {
        double shift, scale = scaled.layer->scale(&scaled, (int)i, &shift);
        const float *w = from.tensors[0] + i * row;
        size_t k;
        for (k = 0; k < row; k++) to[fold->weight + i * row + k] = (float)((double)w[k] * scale);
        to[fold->bias + i] = (float)(shift + (from.tensors[1] ? (double)from.tensors[1][i] * scale : 0));
    }
}

static void cnn__weights_changed(cnn_net *net)
{
    net->folded_now = 0;
    net->weight_version++;
}

/* The weights of all folds, from the parameters and buffers as they are */
static int cnn__fold_all(cnn_net *net)
{
    float *state, *to;
    int i;
    if (net->folded_now || !net->folded_size) return 1;
    if (!net->folded) net->folded = cnn__alloc_floats(net, net->folded_size, "the folded weights");
    if (!net->folded) return 0;
    state = cnn__download(net, net->parameters, net->state_size);
    to = (float *)cnn__alloc(net->folded_size, sizeof *to);
    if (!to) cnn__fail(net, "out of memory for the folded weights");
    for (i = 0; state && to && i < net->op_count; i++)
        if (net->folds[i].op.last >= 0) cnn__fold_weights(net, &net->folds[i], state, to);
    if (state && to) cnn__upload(net, net->folded, to, sizeof *to * net->folded_size);
    net->folded_now = state && to;
    cnn__free(state);
    cnn__free(to);
    return net->folded_now;
}

/* ---- memory for batches ---- */

static int cnn__ready(cnn_net *net);

static size_t cnn__outputs(const cnn_net *net) { return cnn__size(net->layers[net->layer_count - 1].out); }

static int cnn__need_work(cnn_net *net, size_t bytes)  /* on failure the old memory stays: the operations count on it */
{
    void *work;
    if (bytes <= net->work_size) return 1;
    work = cnn__backend_alloc(net, bytes, 1, "the scratch memory");
    if (!work) return 0;
    cnn__backend_free(net, &net->work);
    net->work = work;
    net->work_size = bytes;
    return 1;
}

/* Fills in what the functions of its kind are called with. */
static void cnn__prepare(cnn_net *net, cnn__op *op, int batch)
{
    const cnn__layer *l = op->layer;
    int training = !net->pass.evaluating, i;
    cnn__set_batch(op, batch, training);
    op->shapes.conv.allow_tf32 = net->allow_tf32;
    op->shapes.conv.weight_version = net->looking && !training ? net->weight_version : 0;
    cnn__bind(net, op, net->parameters);
    for (i = 0; i < l->tensor_count; i++)
        op->gradients[i] = net->pass.gradients && !l->frozen[i]
                         ? net->pass.gradients + net->tensors[l->first_tensor + i].offset : NULL;
    if (net->looking && training) memset(op->buffers, 0, sizeof op->buffers);      /* a look moves none */
    op->b = &net->backend;
    op->counters = net->pass.counters;
    op->work = net->work;
}

static size_t cnn__op_work(cnn_net *net, cnn__op *op, int batch)
{
    cnn__prepare(net, op, batch);
    return op->layer->kind->work ? op->layer->kind->work(op) : 0;
}

static void cnn__free_batch_memory(cnn_net *net, cnn__pass *p)
{
    int i;
    cnn__backend_free(net, &p->x);
    cnn__backend_free(net, &p->dloss);
    cnn__backend_free(net, &p->targets);
    cnn__backend_free(net, &p->labels);
    cnn__free(p->dealt);
    for (i = 0; i < net->op_count; i++) {
        cnn__backend_free(net, &p->ops[i].output);
        cnn__backend_free(net, &p->ops[i].index);
    }
    while (p->flow_count) cnn__backend_free(net, &p->flows[--p->flow_count].memory);
    cnn__free(p->flows);
    p->dealt = NULL; p->flows = NULL;
    p->capacity = p->batch = p->has_loss = 0;              /* there is no last forward pass any more */
}

static int cnn__reserve_batch(cnn_net *net, int batch)
{
    size_t b = (size_t)batch;
    cnn__pass *p = &net->pass;
    int i;
    cnn__free_batch_memory(net, p);
    p->x = cnn__alloc_floats(net, cnn__size(net->input) * b, "the inputs");
    p->dloss = cnn__alloc_floats(net, cnn__outputs(net) * b, "the gradients");
    p->targets = cnn__alloc_floats(net, cnn__outputs(net) * b, "the targets");
    p->labels = (int *)cnn__backend_alloc(net, b, sizeof(int), "the labels");
    p->dealt = (int *)cnn__alloc(b, sizeof(int));
    p->flows = (cnn__flow *)cnn__alloc((size_t)net->op_count * CNN__INPUTS + 2, sizeof *p->flows);
    if (!p->dealt || !p->flows) cnn__fail(net, "out of memory for a batch of %d samples", batch);
    for (i = 0; i < net->op_count && !cnn__stopped(net); i++) {
        cnn__op *op = &p->ops[i];
        size_t index = op->index_size * b + op->kept;
        op->output = cnn__alloc_floats(net, cnn__size(net->layers[op->last].out) * b, "the outputs");
        if (index && !net->looking)
            op->index = (unsigned char *)cnn__backend_alloc(net, index, 1, "what backward needs");
    }
    if (!net->scale) net->scale = cnn__alloc_floats(net, 2 * (size_t)net->input.channels, "the inputs");
    p->capacity = cnn__stopped(net) ? 0 : batch;
    return p->capacity;
}

static int cnn__reserve_work(cnn_net *net, int batch)      /* a smaller batch may need more: sums are split otherwise */
{
    size_t work = 0;
    int i;
    for (i = 0; i < net->op_count; i++) {
        size_t size = cnn__op_work(net, &net->pass.ops[i], batch), folded = cnn__op_work(net, &net->folds[i].op, batch);
        work = size > work ? size : work;
        work = folded > work ? folded : work;
    }
    if (!cnn__need_work(net, work)) return 0;
    net->work_batch = batch;
    return 1;
}

/* Its outputs depend on all samples of the batch. */
static int cnn__mixes(const cnn__layer *l, int training) { return l->mixes_samples && (training || !l->buffer_count); }

static int cnn__enough_values(cnn_net *net, int batch)     /* for mean and variance of each channel */
{
    cnn__text label;
    int i;
    for (i = 0; i < net->layer_count && batch == 1; i++) {
        const cnn__layer *l = &net->layers[i];
        if (!cnn__mixes(l, !net->pass.evaluating) || l->in.height > 1 || l->in.width > 1) continue;
        return cnn__fail(net, "%s: expected more than 1 value per channel when training, but the batch is 1 sample of "
                         "1 pixel; use larger batches (.drop_last = 1 leaves out a last one that is smaller)%s",
                         cnn__label(l, i + 1, &label), l->buffer_count ? ", or call cnn_eval first" : "");
    }
    return 1;
}

/* Room for a forward pass of `batch` samples; nothing happens while that stays the same. */
static int cnn__reserve(cnn_net *net, int batch)
{
    return cnn__ready(net) && cnn__enough_values(net, batch)
        && (batch <= net->pass.capacity || cnn__reserve_batch(net, batch))
        && (batch == net->work_batch || cnn__reserve_work(net, batch));
}

/* ---- looking ----

   Evaluating, predicting, checking gradients and the like run in a pass of their own: the outputs, dropout masks,
   counters, gradients and mode of training stay. */

static void cnn__swap_passes(cnn_net *net)
{
    cnn__pass other = net->look;
    net->look = net->pass;
    net->pass = other;
    net->looking = !net->looking;
}

/* Until cnn__end_look all passes are the look's: without dropout or gradients. 0 and an error if it cannot be. */
static int cnn__begin_look(cnn_net *net)
{
    if (!cnn__ready(net) || !cnn__fold_all(net)) return 0;
    cnn__swap_passes(net);
    net->pass.evaluating = 1;
    return 1;
}

static void cnn__end_look(cnn_net *net) { cnn__swap_passes(net); }

static void cnn__release_pass(cnn_net *net, cnn__pass *p)
{
    cnn__free_batch_memory(net, p);
    cnn__backend_free(net, &p->gradients);
    cnn__backend_free(net, &p->counters);
    cnn__backend_free(net, &p->order);
    cnn__free(p->ops);
    p->ops = NULL;
    p->order_room = 0;
}

static void cnn__drop_resident(cnn_net *net, int i)
{
    cnn__backend_free(net, &net->resident[i].memory);
    cnn__data_forget(net->resident[i].of);
    net->resident[i] = net->resident[--net->resident_count];
}

/* Gives back all that cnn__make_ready and what followed it took. */
static void cnn__release(cnn_net *net)
{
    void *const blocks[] = { &net->work, &net->scale, &net->parameters, &net->folded, &net->moment1, &net->moment2,
                             &net->spans, &net->staged, &net->class_weight_sent };
    size_t i;
    cnn__release_pass(net, &net->pass);
    cnn__release_pass(net, &net->look);
    for (i = 0; i < sizeof blocks / sizeof *blocks; i++) cnn__backend_free(net, blocks[i]);
    while (net->resident_count) cnn__drop_resident(net, net->resident_count - 1);
    if (net->opened && net->backend.close) net->backend.close(net->backend.context);
    if (net->opened) cnn__close_pool();
    cnn__free(net->scaled);
    cnn__free(net->folds);
    cnn__free(net->tensors);
    cnn__free(net->buffers);
    cnn__free((void *)net->state);
    net->scaled = NULL; net->folds = NULL; net->tensors = net->buffers = NULL; net->state = NULL;
    net->op_count = net->tensor_count = net->buffer_count = net->state_count = net->opened = 0;
    net->parameter_count = net->state_size = 0;
}

static int cnn__make_ready(cnn_net *net)
{
    if (!net->layer_count) return cnn__fail(net, "the network has no layers");
    if (!cnn__list_tensors(net)) return 0;
    net->pass.ops = (cnn__op *)cnn__alloc((size_t)net->layer_count, sizeof *net->pass.ops);
    net->look.ops = (cnn__op *)cnn__alloc((size_t)net->layer_count, sizeof *net->look.ops);
    if (!net->pass.ops || !net->look.ops) return cnn__fail(net, "out of memory for the network's layers");
    if (!cnn__open_backend(net)) return 0;
    cnn__fuse(net);
    memcpy(net->look.ops, net->pass.ops, sizeof *net->look.ops * (size_t)net->op_count);
    return cnn__find_folds(net) && cnn__init_parameters(net);
}

static int cnn__ready(cnn_net *net)
{
    if (cnn__stopped(net)) return 0;
    if (net->ready) return 1;
    net->ready = cnn__make_ready(net);
    if (!net->ready) {
        net->broken = net->opened;                         /* its parameters do not fit: it will not get better */
        cnn__release(net);
    }
    return net->ready;
}

void cnn_free(cnn_net *net)
{
    if (!net) return;
    cnn__release(net);
    cnn__free(net->layers);
    cnn__free(net->history);
    cnn__free(net->resident);
    cnn__free(net->staging);
    cnn__free(net->reading.bytes);
    cnn__free((void *)net->cross_entropy.weight);
    cnn__free(net->trained_scale);
    cnn__free(net->best);
    cnn__free(net->metadata.at);
    cnn__free(net);
}

/* ---- forward ---- */

static int cnn__does_nothing(const cnn_net *net, const cnn__layer *l)      /* y = x */
{ return l->training_only && net->pass.evaluating; }

/* From op->x to op->y, in backend memory. op->index is filled where gradients will be wanted. */
static void cnn__op_forward(cnn_net *net, cnn__op *op, int batch)
{
    cnn__prepare(net, op, batch);
    op->layer->kind->forward(op);
}

/* From op->dy to op->dx; adds to the gradients of what is not frozen. */
static void cnn__op_backward(cnn_net *net, cnn__op *op, int batch)
{
    cnn__prepare(net, op, batch);
    op->layer->kind->backward(op);
}

/* What came out of an operation, or the samples */
static float *cnn__output_of(cnn_net *net, int op) { return op < 0 ? net->pass.x : net->pass.ops[op].y; }

static float *cnn__last_output(cnn_net *net) { return cnn__output_of(net, net->layers[net->layer_count - 1].op); }

/* Operation i and those that are folded into it; the last one's number. The outputs between them are not there. */
static int cnn__run_fold(cnn_net *net, int i, int batch)
{
    cnn__op one = net->folds[i].op, *ops = net->pass.ops;
    int last = net->layers[one.last].op;
    one.x[0] = ops[i].x[0];
    one.y = ops[last].y = ops[last].output;
    cnn__prepare(net, &one, batch);
    one.tensors[0] = net->folded + net->folds[i].weight;
    one.tensors[1] = net->folded + net->folds[i].bias;
    one.layer->kind->forward(&one);
    for (; i < last; i++) ops[i].y = NULL, ops[i + 1].x[0] = NULL;
    return last;
}

static void cnn__run(cnn_net *net, int batch)              /* from net->pass.x through all operations */
{
    int i, k;
    if (!net->pass.evaluating) cnn__weights_changed(net);  /* batch normalisation's running statistics */
    net->pass.batch = batch;
    net->pass.has_loss = 0;
    memset(&net->pass.last, 0, sizeof net->pass.last);
    for (i = 0; i < net->op_count; i++) {
        cnn__op *op = &net->pass.ops[i];
        const cnn__layer *l = &net->layers[op->first];
        for (k = 0; k < l->input_count; k++) op->x[k] = cnn__output_of(net, cnn__op_at(net, l->inputs[k]));
        op->y = cnn__does_nothing(net, l) ? (float *)op->x[0] : op->output;
        if (net->looking && net->folded_now && net->folds[i].op.last >= 0) i = cnn__run_fold(net, i, batch);
        else if (op->y == op->output) cnn__op_forward(net, op, batch);
    }
}

/* A host array that does not change, as the backend reads it: in place, or as a copy that is made once. */
static const void *cnn__reside(cnn_net *net, const cnn_data *data, const void *host, size_t bytes)
{
    cnn__resident *copy;
    int i;
    if (net->backend.reads_host || !host) return host;
    for (i = 0; i < net->resident_count; i++)
        if (net->resident[i].of == data->memory && net->resident[i].host == host) return net->resident[i].memory;
    net->resident = (cnn__resident *)cnn__grow(net->resident, net->resident_count, &net->resident_room, sizeof *copy);
    if (net->resident_count == net->resident_room) cnn__fail(net, "out of memory for the data set");
    if (cnn__stopped(net)) return NULL;
    copy = &net->resident[net->resident_count];
    copy->memory = cnn__backend_alloc(net, bytes, 1, "the samples");
    if (!copy->memory) return NULL;
    copy->of = cnn__data_keep(data);
    copy->host = host;
    cnn__upload(net, copy->memory, host, bytes);
    net->resident_count++;
    return copy->memory;
}

/* Sent batch by batch: the backend does not read the host, and nobody has said that the arrays stay as they are. */
static int cnn__is_sent(const cnn_net *net, const cnn_data *data)
{ return !net->backend.reads_host && !cnn__data_stays(data); }

/* The batch's rows, of `size` bytes each, one after the other on the host; NULL and an error without memory */
static void *cnn__stage(cnn_net *net, const void *from, int batch, size_t size)
{
    size_t bytes = size * (size_t)batch;
    int n;
    if (bytes > net->staging_size) {
        cnn__free(net->staging);
        net->staging = cnn__alloc(bytes, 1);
        net->staging_size = net->staging ? bytes : 0;
        if (!net->staging) cnn__fail(net, "out of memory: a batch of samples needs %.1f MB", (double)bytes / 1e6);
    }
    for (n = 0; net->staging && n < batch; n++)
        memcpy((char *)net->staging + size * (size_t)n, (const char *)from + size * (size_t)net->pass.dealt[n], size);
    return net->staging;
}

/* The batch's samples, one after the other, in memory that the backend reads; the order that goes with them is 0, 1,
   2, ... */
static const void *cnn__send_samples(cnn_net *net, const cnn_batch *batch, const void *from, size_t size)
{
    size_t bytes = size * (size_t)batch->size;
    const void *rows = batch->data->read ? cnn__read_samples(net, batch) : cnn__stage(net, from, batch->size, size);
    if (!rows || net->backend.reads_host) return rows;
    if (bytes > net->staged_size) {
        cnn__backend_free(net, &net->staged);
        net->staged = cnn__backend_alloc(net, bytes, 1, "the samples");
        net->staged_size = net->staged ? bytes : 0;
        if (!net->staged) return NULL;
    }
    cnn__upload(net, net->staged, rows, bytes);
    return net->staged;
}

/* Scale and shift of the channels, one behind the other in *to; 1, or 0 and an error without memory */
static int cnn__keep_scale(cnn_net *net, float **to, const float *scale, const float *shift)
{
    size_t channels = (size_t)net->input.channels, size = sizeof(float) * channels;
    if (!*to) *to = (float *)cnn__alloc(2 * channels, sizeof(float));
    if (!*to) return cnn__fail(net, "out of memory for the inputs' scale");
    memcpy(*to, scale, size);
    memcpy(*to + channels, shift, size);
    return 1;
}

/* All batches of a data set have the same scale, so it is sent with the first of them. */
static void cnn__send_scale(cnn_net *net, const cnn_data *data)
{
    size_t channels = (size_t)data->channels, size = sizeof(float) * channels;
    if (net->scaled && !memcmp(net->scaled, data->scale, size) && !memcmp(net->scaled + channels, data->shift, size))
        return;
    if (!cnn__keep_scale(net, &net->scaled, data->scale, data->shift)) return;
    cnn__upload(net, net->scale, net->scaled, 2 * size);
}

/* The samples of the next batches: one batch's, or a whole epoch's, after which nothing is sent from batch to batch. */
static void cnn__send_order(cnn_net *net, const int *order, int count)
{
    if (!cnn__ready(net)) return;
    net->pass.has_loss = 0;
    memset(&net->pass.last, 0, sizeof net->pass.last);               /* its order may not be there any more */
    if (count > net->pass.order_room) {
        int room = count > 4096 ? count : 4096;      /* for many single batches before the next one begins at 0 again */
        cnn__backend_free(net, &net->pass.order);
        net->pass.order = (int *)cnn__backend_alloc(net, (size_t)room, sizeof(int), "the samples' numbers");
        net->pass.order_room = net->pass.order_next = net->pass.order ? room : 0;
        if (!net->pass.order) return;
    }
    if (count > net->pass.order_room - net->pass.order_next) {
        uint64_t zero = 0;
        cnn__upload(net, &net->pass.counters->next_offset, &zero, sizeof zero);
        net->pass.order_next = 0;
    }
    cnn__upload(net, net->pass.order + net->pass.order_next, order, sizeof(int) * (size_t)count);
}

static int cnn__usable_count(cnn__text *error, const char *call, const cnn_data *data)
{
    if (data->count >= 1 && (size_t)data->count <= cnn__data_count(data)) return 1;
    return cnn__say(error, "%s: the count of %s was set to %d; it must be from 1 to its %.0f samples", call, data->name,
                    data->count, (double)cnn__data_count(data));
}

/* A batch and its data set are public: the program may have changed their numbers, so they are checked at each use. */
static int cnn__usable_batch(cnn_net *net, const cnn_batch *batch)
{
    const cnn_data *data = batch ? batch->data : NULL;
    if (cnn__stopped(net)) return 0;
    if (data && data->error) return cnn__take_over(&net->error, data->error), 0;
    if (!data || !batch->order || batch->size < 1)
        return cnn__fail(net, "cnn_forward: the batch is empty; take it from cnn_next, and use it only if that "
                         "returned 1");
    if (data->channels != net->input.channels || data->height != net->input.height || data->width != net->input.width)
        return cnn__fail(net, "cnn_forward: the samples of %s are %d x %d x %d, but the network's input is %d x %d x "
                         "%d", data->name, data->channels, data->height, data->width, net->input.channels,
                         net->input.height, net->input.width);
    if (!data->scale || !data->shift || !data->bytes + !data->floats + !data->read != 2
        || (data->read && !data->memory))
        return cnn__fail(net, "cnn_forward: the data set has no samples or no scale; make it with cnn_data_new");
    return cnn__usable_count(&net->error, "cnn_forward", data);
}

/* Which samples the batch has: checked, and kept for its labels. A loader's order ends with -1, where a batch that the
   program has made larger is noticed. */
static int cnn__take_order(cnn_net *net, const cnn_batch *batch)
{
    size_t count = cnn__data_count(batch->data);
    int n;
    for (n = 0; n < batch->size; n++) {
        net->pass.dealt[n] = batch->order[n];
        if (net->pass.dealt[n] < 0 || (size_t)net->pass.dealt[n] >= count)
            return cnn__fail(net, "cnn_forward: order[%d] of the batch of %d is %d, but the samples of %s go from 0 to "
                             "%.0f", n, batch->size, net->pass.dealt[n], batch->data->name, (double)count - 1);
    }
    return 1;
}

/* How a batch is to be augmented: only to train on. What changes with the epoch goes into the counters. */
static cnn_augment_options cnn__augment(cnn_net *net, const cnn_batch *batch)
{
    cnn_counters *c = net->pass.counters;
    cnn_augment_options o;
    uint64_t seed, epoch;
    memset((void *)&o, 0, sizeof o);
    if (net->looking || net->pass.evaluating || !batch->data->dealt_by) return o;
    o = cnn__augmentation(batch->data->dealt_by, &seed, &epoch);
    if (seed != net->pass.data_seed) cnn__upload(net, &c->data_seed, &seed, sizeof seed);
    if (epoch != net->pass.epoch) cnn__upload(net, &c->epoch, &epoch, sizeof epoch);
    net->pass.data_seed = seed;
    net->pass.epoch = epoch;
    return o;
}

/* order_sent: the batch is the next one of the order that was sent last */
static void cnn__forward(cnn_net *net, const cnn_batch *batch, int order_sent)
{
    const cnn_backend *b;
    const cnn_data *data;
    cnn_gather_shape s;
    const void *samples;
    size_t size;
    int i;
    if (!cnn__usable_batch(net, batch) || !cnn__reserve(net, batch->size)) return;
    net->pass.batch = net->pass.has_loss = 0;
    if (!cnn__take_order(net, batch)) return;
    b = &net->backend;
    data = batch->data;
    s.batch = batch->size; s.channels = data->channels; s.height = data->height; s.width = data->width;
    s.packed = data->read || cnn__is_sent(net, data);
    size = cnn__size(net->input) * (data->floats ? sizeof(float) : 1);
    samples = data->bytes ? (const void *)data->bytes : data->floats;
    for (i = net->resident_count - 1; i >= 0; i--)         /* a data set that was freed takes its copies along */
        if (cnn__data_freed(net->resident[i].of)) cnn__drop_resident(net, i);
    if (s.packed) samples = cnn__send_samples(net, batch, samples, size);
    else samples = cnn__reside(net, data, samples, size * cnn__data_count(data));
    if (!cnn__stopped(net) && !order_sent) cnn__send_order(net, net->pass.dealt, batch->size);
    if (!cnn__stopped(net)) cnn__send_scale(net, data);
    if (cnn__stopped(net)) return;
    s.augment = cnn__augment(net, batch);
    if (!net->looking && !net->pass.evaluating) {
        if (data->floats) cnn__free(net->trained_scale), net->trained_scale = NULL;
        else if (!cnn__keep_scale(net, &net->trained_scale, data->scale, data->shift)) return;
    }
    if (b->step_begin) b->step_begin(b->context);
    b->next_batch(b->context, net->pass.counters, batch->size, !net->pass.evaluating);
    net->pass.order_next += batch->size;
    b->gather(b->context, net->pass.counters, &s, net->pass.x, data->floats ? NULL : (const unsigned char *)samples,
              data->floats ? (const float *)samples : NULL, net->pass.order, net->scale,
              net->scale + net->input.channels);
    cnn__run(net, batch->size);
    net->pass.last = *batch;
}

void cnn_forward(cnn_net *net, const cnn_batch *batch) { cnn__forward(net, batch, 0); }

/* ---- losses ---- */

static int cnn__usable_loss(cnn_net *net, const char *call, const cnn_batch *batch)
{
    if (cnn__stopped(net)) return 0;
    if (!batch || !net->pass.batch || net->pass.last.data != batch->data || net->pass.last.order != batch->order
        || net->pass.last.size != batch->size || !batch->data)
        return cnn__fail(net, "%s: call cnn_forward with the same batch first", call);
    return 1;
}

/* Labels or targets of the batch, `width` values of 4 bytes each, into the backend's memory */
static void cnn__batch_rows(cnn_net *net, void *to, const cnn_batch *batch, const void *from, int width)
{
    const cnn_backend *b = &net->backend;
    size_t size = 4 * (size_t)width;
    if (cnn__is_sent(net, batch->data)) {
        void *rows = cnn__stage(net, from, batch->size, size);
        if (rows) cnn__upload(net, to, rows, size * (size_t)batch->size);
    } else {
        from = cnn__reside(net, batch->data, from, size * cnn__data_count(batch->data));
        if (!cnn__stopped(net))
            b->gather_rows(b->context, net->pass.counters, to, from, net->pass.order, batch->size, width);
    }
}

/* NULL without labels, or with an error. A label is checked when it is used: its owner may change it until then. */
static const int *cnn__batch_labels(cnn_net *net, const char *call, const cnn_batch *batch, const int *ignored)
{
    const cnn_data *data = batch->data;
    int n, outputs = (int)cnn__outputs(net), limit = data->classes < outputs ? data->classes : outputs;
    if (cnn__stopped(net) || !data->labels) return NULL;
    for (n = 0; n < batch->size; n++) {
        int label = data->labels[net->pass.dealt[n]];
        if ((label >= 0 && label < limit) || (ignored && label == *ignored)) continue;
        cnn__fail(net, "%s: label %d of sample %d of %s is outside 0 .. %d", call, label, net->pass.dealt[n],
                  data->name, limit - 1);
        return NULL;
    }
    cnn__batch_rows(net, net->pass.labels, batch, data->labels, 1);
    return net->pass.labels;
}

/* The targets: as many values of each sample as the network puts out, or NULL and an error */
static const float *cnn__batch_targets(cnn_net *net, const char *call, const cnn_batch *batch)
{
    const cnn_data *data = batch->data;
    int outputs = (int)cnn__outputs(net);
    if (data->outputs != outputs)
        cnn__fail(net, "%s: a target of %s has %d values, but the network has %d outputs; give it as many", call,
                  data->name, data->outputs, outputs);
    if (cnn__stopped(net)) return NULL;
    cnn__batch_rows(net, net->pass.targets, batch, data->targets, outputs);
    return net->pass.targets;
}

static const cnn__field cnn__cross_entropy_fields[] = {
    CNN__INT(cnn_cross_entropy_options, classes, 0), CNN__FLOAT(cnn_cross_entropy_options, label_smoothing, 0),
    CNN__INT(cnn_cross_entropy_options, ignore_index, CNN__IGNORED),
    CNN__INT(cnn_cross_entropy_options, probabilities, 0)
};

void cnn_set_cross_entropy_with(cnn_net *net, cnn_cross_entropy_options o)
{
    float *weight = NULL;
    int k;
    if (cnn__stopped(net) || !CNN__OPTIONS(&o, cnn__cross_entropy_fields, "cnn_set_cross_entropy", &net->error)) return;
    if (!(o.label_smoothing >= 0 && o.label_smoothing <= 1))
        cnn__fail(net, "cnn_set_cross_entropy: label_smoothing must be between 0 and 1, not %g",
                  (double)o.label_smoothing);
    if (!o.weight != !o.classes || o.classes < 0)
        cnn__fail(net, "cnn_set_cross_entropy: .weight and .classes, the number of its weights, go together; classes "
                  "is %d", o.classes);
    for (k = 0; k < o.classes && !cnn__stopped(net); k++)
        if (!(o.weight[k] >= 0 && o.weight[k] - o.weight[k] == 0))
            cnn__fail(net, "cnn_set_cross_entropy: weight %d must be a number of at least 0, not %g", k,
                      (double)o.weight[k]);
    if (cnn__stopped(net)) return;
    if (o.classes) weight = (float *)cnn__alloc((size_t)o.classes, sizeof *weight);
    if (weight) memcpy(weight, o.weight, sizeof *weight * (size_t)o.classes);
    else if (o.classes) cnn__fail(net, "cnn_set_cross_entropy: out of memory for %d weights", o.classes);
    if (cnn__stopped(net)) return;
    o.weight = weight;
    cnn__free((void *)net->cross_entropy.weight);
    if (net->opened) cnn__backend_free(net, &net->class_weight_sent);
    net->cross_entropy = o;
}

/* As the backend's entry takes them */
static int cnn__cross_entropy_now(cnn_net *net, cnn_cross_entropy_options *o)
{
    *o = net->cross_entropy;
    if (o->weight && !net->class_weight_sent) {
        size_t size = sizeof(float) * (size_t)o->classes;
        net->class_weight_sent = (float *)cnn__backend_alloc(net, size, 1, "the class weights");
        if (!net->class_weight_sent) return 0;
        cnn__upload(net, net->class_weight_sent, o->weight, size);
    }
    o->weight = net->class_weight_sent;
    return 1;
}

static void cnn__loss(cnn_net *net, const cnn_batch *batch, cnn_loss_kind kind)
{
    int mse = kind == CNN_MSE, outputs, soft;              /* soft: the targets are compared with, not the labels */
    const char *call = mse ? "cnn_mse_loss" : "cnn_cross_entropy";
    const cnn_data *data;
    cnn_cross_entropy_options o;
    const int *labels;
    const float *targets = NULL;
    float *dloss;
    memset((void *)&o, 0, sizeof o);                       /* the mean squared error has no options */
    if (!cnn__usable_loss(net, call, batch) || (!mse && !cnn__cross_entropy_now(net, &o))) return;
    data = batch->data;
    outputs = (int)cnn__outputs(net);
    dloss = net->looking ? NULL : net->pass.dloss;
    soft = data->targets && (mse || o.probabilities || !data->labels);
    if (!data->targets && !data->labels)
        cnn__fail(net, mse ? "%s: %s has neither targets nor labels to compare with"
                  : "%s: %s has no labels, and no targets that could be probabilities", call, data->name);
    else if (o.probabilities && !soft)
        cnn__fail(net, "%s: %s has no targets, but .probabilities was set", call, data->name);
    else if (!soft && data->classes > outputs && o.ignore_index < outputs)
        cnn__fail(net, "%s: %s has %d classes, but the network has only %d outputs", call, data->name, data->classes,
                  outputs);
    else if (o.weight && o.classes != outputs)
        cnn__fail(net, "%s: there are %d class weights, but the network has %d outputs; give one for each", call,
                  o.classes, outputs);
    if (soft) targets = cnn__batch_targets(net, call, batch);
    labels = cnn__batch_labels(net, call, batch, mse ? NULL : &o.ignore_index);
    if (cnn__stopped(net)) return;
    if (mse) net->backend.mse(net->backend.context, net->pass.counters, dloss, cnn__last_output(net), targets, labels,
                              batch->size, outputs);
    else net->backend.softmax_cross_entropy(net->backend.context, net->pass.counters, &o, dloss, cnn__last_output(net),
                                            targets, labels, batch->size, outputs);
    net->pass.has_loss = 1;
}

void cnn_cross_entropy(cnn_net *net, const cnn_batch *batch) { cnn__loss(net, batch, CNN_CROSS_ENTROPY); }
void cnn_mse_loss(cnn_net *net, const cnn_batch *batch) { cnn__loss(net, batch, CNN_MSE); }

/* ---- backward ---- */

void cnn_zero_grad(cnn_net *net)
{
    if (!cnn__ready(net)) return;
    cnn__zero(net, net->pass.gradients, sizeof(float) * net->parameter_count);
}

/* The operation that gives op its input k; NULL: the samples */
static cnn__op *cnn__producer(cnn_net *net, const cnn__op *op, int k)
{
    int from = cnn__op_at(net, net->layers[op->first].inputs[k]);
    return from < 0 ? NULL : &net->pass.ops[from];
}

/* Nobody needs gradients before the first layer that learns. 0: nothing does. */
static int cnn__find_learners(cnn_net *net)
{
    int any = 0, i, k;
    for (i = 0; i < net->op_count; i++) {
        cnn__op *op = &net->pass.ops[i], *from;
        const cnn__layer *l = &net->layers[op->first];
        op->wants_gradient = 0;
        for (k = 0; k < l->tensor_count; k++) op->wants_gradient |= !l->frozen[k];
        for (k = 0; k < l->input_count; k++)
            if ((from = cnn__producer(net, op, k)) != NULL) op->wants_gradient |= from->wants_gradient;
        any |= op->wants_gradient;
        op->dy = NULL;
    }
    return any;
}

static float *cnn__take_flow(cnn_net *net)                 /* NULL and an error without memory */
{
    size_t most = 1;
    cnn__flow *flow = net->pass.flows;
    int i;
    for (i = 0; i < net->pass.flow_count; i++, flow++)
        if (!flow->used) { flow->used = 1; return flow->memory; }
    for (i = 0; i < net->op_count; i++) {
        size_t size = cnn__size(net->layers[net->pass.ops[i].last].out);
        if (i != net->layers[net->layer_count - 1].op && size > most) most = size;         /* that one has dloss */
    }
    flow->memory = cnn__alloc_floats(net, most * (size_t)net->pass.capacity, "the gradients");
    flow->used = flow->memory != NULL;
    net->pass.flow_count += flow->used;
    return flow->memory;
}

static void cnn__give_flow(cnn_net *net, const float *memory)      /* dloss is none, and stays */
{
    int i;
    for (i = 0; i < net->pass.flow_count; i++) if (net->pass.flows[i].memory == memory) net->pass.flows[i].used = 0;
}

/* A reader's gradient for an output becomes its gradient, or is added to what other readers have given. */
static void cnn__add_gradient(cnn_net *net, cnn__op *to, float *dx)
{
    const cnn_backend *b = &net->backend;
    if (!to->dy) { to->dy = dx; return; }
    b->add(b->context, to->dy, to->dy, dx, cnn__size(net->layers[to->last].out) * (size_t)net->pass.batch);
    cnn__give_flow(net, dx);
}

/* From op->dy to what gave op its inputs */
static void cnn__go_back(cnn_net *net, cnn__op *op)
{
    int inputs = net->layers[op->first].input_count, k;
    cnn__op *from[CNN__INPUTS];
    for (k = 0; k < inputs; k++) {
        from[k] = cnn__producer(net, op, k);
        op->dx[k] = NULL;
        if (!from[k] || !from[k]->wants_gradient) from[k] = NULL;
        else op->dx[k] = op->y == op->output ? cnn__take_flow(net) : op->dy;      /* it did nothing: dx = dy */
    }
    if (cnn__stopped(net)) return;
    if (op->y == op->output) {
        cnn__op_backward(net, op, net->pass.batch);
        cnn__give_flow(net, op->dy);
    }
    for (k = 0; k < inputs; k++) if (from[k]) cnn__add_gradient(net, from[k], op->dx[k]);
}

void cnn_backward(cnn_net *net)
{
    int i;
    if (cnn__stopped(net)) return;
    if (!net->pass.has_loss)
        cnn__fail(net, "cnn_backward: there is no loss to go back from; call cnn_forward, then cnn_cross_entropy or "
                  "cnn_mse_loss, then cnn_backward");
    else if (!cnn__find_learners(net) && net->tensor_count)    /* PyTorch: "... does not require grad" */
        cnn__fail(net, "cnn_backward: all %d parameters are frozen, so there is nothing to learn; call "
                  "cnn_requires_grad(net, key, 1) for those that shall", net->tensor_count);
    if (cnn__stopped(net)) return;
    for (i = 0; i < net->pass.flow_count; i++) net->pass.flows[i].used = 0;
    i = net->layers[net->layer_count - 1].op;
    if (i >= 0) net->pass.ops[i].dy = net->pass.dloss;
    for (; i >= 0 && !cnn__stopped(net); i--)
        if (net->pass.ops[i].dy && net->pass.ops[i].wants_gradient) cnn__go_back(net, &net->pass.ops[i]);
    net->pass.has_loss = 0;
}

/* What layer i put out in the last forward pass. Inside a fused operation it is computed again, layer by layer, into
   *own, which the caller frees; elsewhere it is the operation's output. NULL and an error without memory. */
static const float *cnn__activation_of(cnn_net *net, int i, float **own)
{
    const cnn__layer *l = &net->layers[i];
    const float *x;
    int layer, op = l->op;
    *own = NULL;
    if (op < 0 || (net->pass.ops[op].last <= i && net->pass.ops[op].y)) return cnn__output_of(net, op);
    while (!net->pass.ops[op].x[0]) op--;                  /* folded into the one before */
    x = net->pass.ops[op].x[0];
    for (layer = net->pass.ops[op].first; layer <= i && x; layer++) {
        cnn__op one = cnn__op_of(net, layer);
        one.x[0] = x;
        one.y = cnn__alloc_floats(net, cnn__size(net->layers[layer].out) * (size_t)net->pass.batch, "the activations");
        if (one.y && !cnn__need_work(net, cnn__op_work(net, &one, net->pass.batch))) cnn__backend_free(net, &one.y);
        if (one.y) {
            cnn__prepare(net, &one, net->pass.batch);
            if (one.training) memset(one.buffers, 0, sizeof one.buffers);  /* it has moved them already */
            one.layer->kind->forward(&one);
        }
        cnn__backend_free(net, own);
        x = *own = one.y;
    }
    return *own;
}

/* ---- every number by name ---- */

static int cnn__find_layer(const cnn_net *net, const char *name)           /* -1: none */
{
    int i;
    for (i = 0; name && i < net->layer_count; i++) if (!strcmp(net->layers[i].name, name)) return i;
    return -1;
}

/* A parameter or buffer; or with .grad behind its key, a parameter's gradient. NULL: none has this key. */
static const cnn__tensor *cnn__find_tensor(const cnn_net *net, const char *key, int *gradient)
{
    size_t length = key ? strlen(key) : 0;
    int i;
    *gradient = length > 5 && !strcmp(key + length - 5, ".grad");
    if (*gradient) length -= 5;
    for (i = 0; i < net->tensor_count + (*gradient ? 0 : net->buffer_count); i++) {
        const cnn__tensor *t = i < net->tensor_count ? &net->tensors[i] : &net->buffers[i - net->tensor_count];
        if (strlen(t->key) == length && !strncmp(t->key, key, length)) return t;
    }
    return NULL;
}

/* what: "layer", "parameter", or more of them; lists those that there are */
static void cnn__no_such_key(cnn_net *net, const char *call, const char *what, const char *key)
{
    int layers = !net->tensor_count || !strcmp(what, "layer"), all = layers ? net->layer_count : net->tensor_count, i;
    cnn__text known = { "" };
    for (i = 0; i < all && strlen(known.s) < 200; i++)
        cnn__snprintf(known.s + strlen(known.s), sizeof known.s - strlen(known.s), "%s%.100s", i ? ", " : "",
                 layers ? net->layers[i].name : net->tensors[i].key);
    cnn__fail(net, "%s: there is no %s \"%.80s\"; %sthe %s are %.260s%s", call, what, key ? key : "", net->tensor_count
              || !net->ready ? "" : "the network has no parameters, and ", layers ? "layers" : "parameters", known.s,
              i < all ? ", ..." : "");
}

size_t cnn_get(cnn_net *net, const char *key, float *values, size_t room)
{
    const cnn__tensor *t;
    const float *from;
    float *own = NULL;
    size_t count;
    int gradient, layer;
    if (!cnn__ready(net)) return 0;
    t = cnn__find_tensor(net, key, &gradient);
    layer = t ? -1 : cnn__find_layer(net, key);
    if (!t && layer < 0) { cnn__no_such_key(net, "cnn_get", "parameter, gradient or layer", key); return 0; }
    if (!t && !net->pass.batch)
        return (size_t)cnn__fail(net, "cnn_get: layer \"%.80s\" has no output yet; call cnn_forward first", key);
    count = t ? t->count : cnn__size(net->layers[layer].out) * (size_t)net->pass.batch;
    if (!values) return count;
    if (room < count)
        return (size_t)cnn__fail(net, "cnn_get: \"%.80s\" has %.0f values, but there is room for %.0f", key,
                                 (double)count, (double)room);
    if (!t) from = cnn__activation_of(net, layer, &own);
    else from = (gradient ? net->pass.gradients : net->parameters) + t->offset;
    if (!from || !cnn__sync(net)) count = 0;
    else if (t && t->integer) {
        int64_t number;
        cnn__fetch(net, &number, from, sizeof number);
        values[0] = (float)number;
    } else cnn__fetch(net, values, from, sizeof *values * count);
    cnn__backend_free(net, &own);
    return count;
}

int cnn_set(cnn_net *net, const char *key, const float *values, size_t count)
{
    const cnn__tensor *t;
    int gradient;
    if (!cnn__ready(net)) return 0;
    t = cnn__find_tensor(net, key, &gradient);
    if (!t) return cnn__no_such_key(net, "cnn_set", "parameter", key), 0;
    if (gradient)
        return cnn__fail(net, "cnn_set: \"%.80s\" is a gradient, which comes from cnn_backward; set \"%.80s\" itself",
                         key, t->key);
    if (count != t->count)
        return cnn__fail(net, "cnn_set: \"%.80s\" has %.0f values, but %.0f were given", key, (double)t->count,
                         (double)count);
    if (t->integer) {
        int64_t number;
        if (!(values[0] >= 0 && values[0] < 1e15f && values[0] == floorf(values[0])))
            return cnn__fail(net, "cnn_set: \"%.80s\" is a whole number of at least 0, not %g", key, (double)values[0]);
        number = (int64_t)values[0];
        cnn__upload(net, net->parameters + t->offset, &number, sizeof number);
    } else cnn__upload(net, net->parameters + t->offset, values, sizeof *values * count);
    cnn__weights_changed(net);
    return 1;
}

int cnn_shape(cnn_net *net, const char *key, int shape[4])
{
    const cnn__tensor *t;
    int gradient, layer;
    if (!cnn__ready(net)) return 0;
    t = cnn__find_tensor(net, key, &gradient);
    if (t) {
        memcpy(shape, t->shape, sizeof t->shape);
        return t->ndim;
    }
    layer = cnn__find_layer(net, key);
    if (layer < 0) return cnn__no_such_key(net, "cnn_shape", "parameter, gradient or layer", key), 0;
    shape[0] = net->pass.batch;
    shape[1] = net->layers[layer].out.channels;
    shape[2] = net->layers[layer].out.height;
    shape[3] = net->layers[layer].out.width;
    return net->layers[layer].out.flat ? 2 : 4;
}

const char *cnn_key(cnn_net *net, int i)
{ return cnn__ready(net) && i >= 0 && i < net->tensor_count ? net->tensors[i].key : NULL; }

size_t cnn_num_parameters(cnn_net *net)
{
    size_t sum = 0;
    int i;
    if (!cnn__ready(net)) return 0;
    for (i = 0; i < net->tensor_count; i++) sum += net->tensors[i].count;
    return sum;
}

const char *cnn_layer_name(const cnn_net *net, int i)
{ return net && i >= 0 && i < net->layer_count ? net->layers[i].name : NULL; }

/* ============================================================================================
   >>train   Learning, and what was learned: optimizers, schedules of the learning rate, evaluating and
             predicting. cnn_fit is the loop that a program may write itself, with a log, a doctor and
             early stopping.

             In this section: optimizers; schedules; a step; evaluating and predicting; progress and log;
             the doctor; early stopping; the training loop.
   ============================================================================================ */

/* ---- optimizers ---- */

static void cnn__put_lr(cnn_net *net, double lr)          /* only the host changes it, so nobody waits to read it */
{
    net->lr = lr;
    if (net->ready) cnn__upload(net, &net->pass.counters->lr, &lr, sizeof lr);
}

/* Checks what all optimizers have; 0: that, or something before it, is an error. */
static int cnn__usable_rates(cnn_net *net, const char *call, float lr, float weight_decay)
{
    if (!(lr >= 0 && weight_decay >= 0))
        cnn__fail(net, "%s: needs a learning rate and a weight decay of at least 0, not %g and %g", call, (double)lr,
                  (double)weight_decay);
    return !cnn__stopped(net);
}

/* A second call is a new optimizer, as in PyTorch: whatever the old one counted or remembered begins anew, or half
   of it would go on. The schedule was the old one's. */
static void cnn__new_optimizer(cnn_net *net, cnn__optimizer optimizer, float lr)
{
    uint64_t no_steps = 0;
    net->optimizer = optimizer;
    net->schedule = CNN__CONSTANT;
    net->schedule_steps = 0;
    net->initial_lr = -1;
    if (net->ready) {
        cnn__backend_free(net, &net->moment1);
        cnn__backend_free(net, &net->moment2);
        cnn__upload(net, &net->pass.counters->step, &no_steps, sizeof no_steps);
        cnn__new_spans(net);
    }
    cnn__put_lr(net, (double)lr);
}

static const cnn__field cnn__sgd_fields[] = {
    CNN__FLOAT(cnn_sgd_options, lr, 1e-3), CNN__FLOAT(cnn_sgd_options, momentum, 0),
    CNN__FLOAT(cnn_sgd_options, weight_decay, 0), CNN__INT(cnn_sgd_options, nesterov, 0)
};

void cnn_sgd_with(cnn_net *net, cnn_sgd_options o)
{
    if (cnn__stopped(net) || !CNN__OPTIONS(&o, cnn__sgd_fields, "cnn_sgd", &net->error)) return;
    if (!(o.momentum >= 0) || (o.nesterov && o.momentum == 0))
        cnn__fail(net, "cnn_sgd: momentum must be at least 0, and above 0 for Nesterov's, but is %g",
                  (double)o.momentum);
    if (!cnn__usable_rates(net, "cnn_sgd", o.lr, o.weight_decay)) return;
    net->sgd = o;
    cnn__new_optimizer(net, CNN__SGD, o.lr);
}

#define CNN__ADAM_FIELDS(decay) \
    CNN__FLOAT(cnn_adam_options, lr, 1e-3), CNN__FLOAT(cnn_adam_options, beta1, 0.9), \
    CNN__FLOAT(cnn_adam_options, beta2, 0.999), CNN__FLOAT(cnn_adam_options, eps, 1e-8), \
    CNN__FLOAT(cnn_adam_options, weight_decay, decay)
static const cnn__field cnn__adam_fields[] = { CNN__ADAM_FIELDS(0) };
static const cnn__field cnn__adamw_fields[] = { CNN__ADAM_FIELDS(0.01) };

static void cnn__set_adam(cnn_net *net, const char *call, cnn__optimizer optimizer, const cnn__field *fields,
                          cnn_adam_options o)
{
    size_t count = sizeof cnn__adam_fields / sizeof *cnn__adam_fields;
    if (cnn__stopped(net) || !cnn__options(&o, fields, count, call, &net->error)) return;
    if (!(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1 && o.eps >= 0))
        cnn__fail(net, "%s: beta1 and beta2 must be in [0, 1) and eps at least 0, but are %g, %g and %g", call,
                  (double)o.beta1, (double)o.beta2, (double)o.eps);
    if (!cnn__usable_rates(net, call, o.lr, o.weight_decay)) return;
    net->adam = o;
    cnn__new_optimizer(net, optimizer, o.lr);
}

void cnn_adam_with(cnn_net *net, cnn_adam_options o)
{ cnn__set_adam(net, "cnn_adam", CNN__ADAM, cnn__adam_fields, o); }

void cnn_adamw_with(cnn_net *net, cnn_adam_options o)
{ cnn__set_adam(net, "cnn_adamw", CNN__ADAMW, cnn__adamw_fields, o); }

void cnn_set_lr(cnn_net *net, float lr)
{
    if (cnn__stopped(net)) return;
    if (lr >= 0 && lr - lr == 0) cnn__put_lr(net, (double)lr);
    else cnn__fail(net, "cnn_set_lr: the learning rate must be a finite number of at least 0, not %g", (double)lr);
}

float cnn_lr(const cnn_net *net) { return cnn__stopped(net) ? 0 : (float)net->lr; }

/* key: a parameter's, or a name whose parameters begin with it and a dot; NULL: every parameter's */
static int cnn__key_covers(const char *key, const char *layer, const char *parameter)
{
    char full[112];
    size_t length = key ? strlen(key) : 0;
    cnn__snprintf(full, sizeof full, "%s.%s", layer, parameter);
    return !key || (length && !strncmp(full, key, length) && (!full[length] || full[length] == '.'));
}

void cnn_requires_grad(cnn_net *net, const char *key, int requires_grad)
{
    cnn__tensor t[CNN__TENSORS];
    int found = 0, i, k;
    if (cnn__stopped(net)) return;
    for (i = 0; i < net->layer_count; i++) {
        cnn__layer *l = &net->layers[i];
        int count = l->kind->tensors ? l->kind->tensors(l, t) : 0;
        for (k = 0; k < count; k++)
            if (cnn__key_covers(key, l->name, t[k].name)) {
                l->frozen[k] = !requires_grad;
                found = 1;
            }
    }
    if (!found && cnn__find_layer(net, key) >= 0)
        cnn__fail(net, "cnn_requires_grad: layer \"%.80s\" has no parameters", key);
    else if (!found) cnn__no_such_key(net, "cnn_requires_grad", "parameter, layer or block", key);
    for (i = 0; net->ready && i < net->tensor_count; i++) {
        const cnn__tensor *tensor = &net->tensors[i];
        int trainable = !cnn__frozen(net, tensor);
        cnn__upload(net, &net->spans[i].trainable, &trainable, sizeof trainable);
        if (!trainable) cnn__zero(net, net->pass.gradients + tensor->offset, sizeof(float) * tensor->count);
    }
}

/* ---- schedules ---- */

static double cnn__cosine(double from, double to, double share)            /* half a cosine wave */
{ return to + (from - to) * (1 + cos(3.14159265358979323846 * share)) / 2; }

static double cnn__one_cycle_at(const cnn_one_cycle_lr_options *o, long t)
{
    double most = (double)o->max_lr, start = most / (double)o->div_factor, end = start / (double)o->final_div_factor;
    double at = (double)t;
    double top = (double)o->pct_start * o->total_steps - 1, last = o->total_steps - 1.0;
    if (at >= last) return end;
    return at <= top && top > 0 ? cnn__cosine(start, most, at / top)
                                : cnn__cosine(most, end, (at - top) / (last - top));
}

/* The rate after the schedule's t-th step, t = 1, 2, 3, ... Step and cosine are recursive, as PyTorch's: they change
   the rate that is set, whoever set it. One-cycle knows its rate from t alone. All in double: errors would add up. */
static double cnn__next_lr(const cnn_net *net, long t)
{
    const double pi = 3.14159265358979323846;
    double lr = net->lr, least = (double)net->cosine_lr.eta_min, half = net->cosine_lr.t_max, at = (double)t;
    switch (net->schedule) {
    case CNN__STEP_LR: return t % net->step_lr.step_size ? lr : lr * (double)net->step_lr.gamma;
    case CNN__COSINE_LR:
        if (fmod(at - 1 - half, 2 * half) == 0)                  /* it was at its least, where the quotient is 0 / 0 */
            return lr + (net->initial_lr - least) * (1 - cos(pi / half)) / 2;
        return (1 + cos(pi * at / half)) / (1 + cos(pi * (at - 1) / half)) * (lr - least) + least;
    case CNN__ONE_CYCLE_LR: return cnn__one_cycle_at(&net->one_cycle_lr, t);
    default: return lr;
    }
}

/* needs: the sentence if the options are not possible. 0 and an error then, or without an optimizer */
static int cnn__set_schedule(cnn_net *net, cnn__schedule schedule, int possible, const char *needs)
{
    if (!net->optimizer) needs = "a schedule needs an optimizer; call cnn_adam or cnn_sgd before it";
    if (!net->optimizer || !possible) return cnn__fail(net, "%s", needs);
    net->schedule = schedule;
    net->schedule_steps = 0;
    if (net->initial_lr < 0) net->initial_lr = net->lr;
    return 1;
}

static const cnn__field cnn__step_lr_fields[] = {
    CNN__INT(cnn_step_lr_options, step_size, 0), CNN__FLOAT(cnn_step_lr_options, gamma, 0.1)
};

void cnn_step_lr_with(cnn_net *net, cnn_step_lr_options o)
{
    if (cnn__stopped(net) || !CNN__OPTIONS(&o, cnn__step_lr_fields, "cnn_step_lr", &net->error)) return;
    if (cnn__set_schedule(net, CNN__STEP_LR, o.step_size > 0 && o.gamma >= 0,
                          "cnn_step_lr: needs .step_size of at least 1 and .gamma of at least 0"))
        net->step_lr = o;
}

static const cnn__field cnn__cosine_lr_fields[] = {
    CNN__INT(cnn_cosine_lr_options, t_max, 0), CNN__FLOAT(cnn_cosine_lr_options, eta_min, 0)
};

void cnn_cosine_lr_with(cnn_net *net, cnn_cosine_lr_options o)
{
    if (cnn__stopped(net) || !CNN__OPTIONS(&o, cnn__cosine_lr_fields, "cnn_cosine_lr", &net->error)) return;
    if (cnn__set_schedule(net, CNN__COSINE_LR, o.t_max > 0 && o.eta_min >= 0,
                          "cnn_cosine_lr: needs .t_max of at least 1 and .eta_min of at least 0"))
        net->cosine_lr = o;
}

static const cnn__field cnn__one_cycle_lr_fields[] = {
    CNN__FLOAT(cnn_one_cycle_lr_options, max_lr, 0), CNN__INT(cnn_one_cycle_lr_options, total_steps, 0),
    CNN__FLOAT(cnn_one_cycle_lr_options, pct_start, 0.3), CNN__FLOAT(cnn_one_cycle_lr_options, div_factor, 25),
    CNN__FLOAT(cnn_one_cycle_lr_options, final_div_factor, 1e4)
};

void cnn_one_cycle_lr_with(cnn_net *net, cnn_one_cycle_lr_options o)
{
    if (cnn__stopped(net) || !CNN__OPTIONS(&o, cnn__one_cycle_lr_fields, "cnn_one_cycle_lr", &net->error)) return;
    if (!cnn__set_schedule(net, CNN__ONE_CYCLE_LR, o.max_lr > 0 && o.total_steps > 1 && o.pct_start >= 0
                           && o.pct_start < 1 && o.div_factor > 0 && o.final_div_factor > 0,
                           "cnn_one_cycle_lr: needs .max_lr above 0, .total_steps of at least 2, .pct_start from 0 "
                           "to below 1, .div_factor and .final_div_factor above 0")) return;
    net->one_cycle_lr = o;
    cnn__put_lr(net, net->initial_lr = cnn__one_cycle_at(&o, 0));
}

void cnn_scheduler_step(cnn_net *net)
{
    if (cnn__stopped(net)) return;
    if (net->schedule) cnn__put_lr(net, cnn__next_lr(net, ++net->schedule_steps));
    else cnn__fail(net, "cnn_scheduler_step: the network has no schedule; call cnn_step_lr, cnn_cosine_lr or "
                   "cnn_one_cycle_lr");
}

/* ---- a step ---- */

static void cnn__clip(cnn_net *net, float max_norm)        /* does not read the norm: that would wait for the step */
{
    if (!cnn__ready(net)) return;
    if (!(max_norm > 0)) cnn__fail(net, "cnn_clip_grad_norm: max_norm must be above 0, not %g", (double)max_norm);
    else net->backend.clip_grad_norm(net->backend.context, net->pass.counters, net->pass.gradients,
                                     net->parameter_count, net->spans, net->tensor_count, max_norm);
}

float cnn_clip_grad_norm(cnn_net *net, float max_norm)
{
    cnn__clip(net, max_norm);
    return cnn__stopped(net) ? 0 : (float)cnn__read_counters(net).grad_norm;
}

static int cnn__need_moment(cnn_net *net, float **moment)
{
    if (*moment) return 1;
    *moment = cnn__alloc_floats(net, net->parameter_count, "the optimizer's moments");
    if (*moment) cnn__zero(net, *moment, sizeof(float) * net->parameter_count);
    return *moment != NULL;
}

void cnn_step(cnn_net *net)
{
    const cnn_backend *b;
    if (!cnn__ready(net)) return;
    b = &net->backend;
    cnn__weights_changed(net);
    if (!net->optimizer)
        cnn__fail(net, "cnn_step: the network has no optimizer; call cnn_adam, cnn_adamw or cnn_sgd");
    else if (net->optimizer == CNN__SGD) {
        if (net->sgd.momentum > 0 && !cnn__need_moment(net, &net->moment1)) return;
        b->sgd_step(b->context, net->pass.counters, &net->sgd, net->parameters, net->moment1, net->pass.gradients,
                    net->parameter_count, net->spans, net->tensor_count);
    } else {
        if (!cnn__need_moment(net, &net->moment1) || !cnn__need_moment(net, &net->moment2)) return;
        b->adam_step(b->context, net->pass.counters, &net->adam, net->optimizer == CNN__ADAMW, net->parameters,
                     net->moment1, net->moment2, net->pass.gradients, net->parameter_count, net->spans,
                     net->tensor_count);
    }
    if (b->step_end) b->step_end(b->context);
}

void cnn_train(cnn_net *net) { if (net) net->pass.evaluating = 0; }
void cnn_eval(cnn_net *net) { if (net) net->pass.evaluating = 1; }

static int cnn__has_result(cnn_net *net) { return !cnn__stopped(net) && net->ready && cnn__sync(net); }

float cnn_loss(cnn_net *net) { return cnn__has_result(net) ? (float)cnn__read_counters(net).loss : 0; }
int cnn_correct(cnn_net *net) { return cnn__has_result(net) ? cnn__read_counters(net).correct : 0; }

/* ---- evaluating and predicting ---- */

static cnn_score cnn__read_score(cnn_net *net)
{
    cnn_score score = { 0, 0, 0 };
    cnn_counters c;
    if (cnn__stopped(net) || !cnn__sync(net)) return score;
    c = cnn__read_counters(net);
    score.count = c.seen;
    if (c.weight_sum > 0) score.loss = c.loss_sum / c.weight_sum;
    if (c.seen) score.accuracy = (double)c.correct_sum / c.seen;
    return score;
}

static void cnn__reset_score(cnn_net *net)
{
    cnn_counters c;
    if (!cnn__ready(net)) return;
    c = cnn__read_counters(net);
    c.loss_sum = c.weight_sum = 0;
    c.correct_sum = c.seen = 0;
    cnn__write_counters(net, &c);
}

static void cnn__take_loss(cnn_net *net, const cnn_batch *batch, cnn_loss_kind loss)
{
    if (loss == CNN_MSE) cnn_mse_loss(net, batch);
    else cnn_cross_entropy(net, batch);
}

static int cnn__usable_loss_kind(cnn_net *net, const char *call, cnn_loss_kind loss)
{
    if (cnn__stopped(net)) return 0;
    if ((unsigned)loss <= CNN_MSE) return 1;
    return cnn__fail(net, "%s: loss %d is neither CNN_CROSS_ENTROPY nor CNN_MSE", call, (int)loss);
}

/* A look at all of data, in order; each batch goes to `see`. Returns the score of the losses that it took. */
static cnn_score cnn__look_through(cnn_net *net, const char *call, const cnn_data *data, int batch_size,
                                   void (*see)(cnn_net *, const cnn_batch *, void *), void *user)
{
    cnn_score score = { 0, 0, 0 };
    cnn_loader_options o;
    cnn_loader *loader;
    cnn_batch batch;
    if (!cnn__begin_look(net)) return score;
    cnn__reset_score(net);
    memset((void *)&o, 0, sizeof o);
    o.batch_size = batch_size ? batch_size : 256;
    loader = cnn__deal(call, data, o);
    cnn__take_over(&net->error, cnn_loader_error(loader));
    while (!cnn__stopped(net) && cnn__forward_next(net, loader, &batch)) {
        if (!cnn__stopped(net)) see(net, &batch, user);
        if (net->backend.step_end) net->backend.step_end(net->backend.context);
    }
    cnn_loader_free(loader);
    score = cnn__read_score(net);
    cnn__end_look(net);
    return score;
}

static void cnn__take_batch_loss(cnn_net *net, const cnn_batch *batch, void *loss)
{ cnn__take_loss(net, batch, *(cnn_loss_kind *)loss); }

cnn_score cnn_evaluate(cnn_net *net, const cnn_data *data, int batch_size, cnn_loss_kind loss)
{
    cnn_score none = { 0, 0, 0 };
    if (!cnn__usable_loss_kind(net, "cnn_evaluate", loss)) return none;
    return cnn__look_through(net, "cnn_evaluate", data, batch_size, cnn__take_batch_loss, &loss);
}

typedef struct cnn__classified { int *classes; float *probability; int done; } cnn__classified;

static void cnn__classify_batch(cnn_net *net, const cnn_batch *batch, void *user)
{
    cnn__classified *to = (cnn__classified *)user;
    int n, outputs = (int)cnn__outputs(net);
    float *y = (float *)cnn__alloc((size_t)batch->size * (size_t)outputs, sizeof *y);
    if (!y) { cnn__fail(net, "cnn_classify: out of memory"); return; }
    cnn__fetch(net, y, cnn__last_output(net), sizeof *y * (size_t)batch->size * (size_t)outputs);
    for (n = 0; n < batch->size; n++, to->done++) {
        const float *mine = y + (ptrdiff_t)n * outputs;
        int best = cnn__argmax(mine, outputs);
        cnn_map_shape one = { 1, 0, 1 };
        one.channels = outputs;
        to->classes[to->done] = best;
        if (to->probability) to->probability[to->done] = (float)cnn__softmax_at(&one, mine, 0, best, 0);
    }
    cnn__free(y);
}

int cnn_classify(cnn_net *net, int *classes, float *probability, const cnn_data *data, int batch_size)
{
    cnn__classified to = { NULL, NULL, 0 };
    to.classes = classes;
    to.probability = probability;
    cnn__look_through(net, "cnn_classify", data, batch_size, cnn__classify_batch, &to);
    return !cnn__stopped(net);
}

static int cnn__usable_arrays(cnn_net *net, const char *call, const void *x, const float *y, int count)
{
    if (cnn__stopped(net)) return 0;
    return (x && y && count > 0) || cnn__fail(net, "%s: needs arrays x and y and a count of at least 1, not %d", call,
                                              count);
}

int cnn_predict(cnn_net *net, float *y, const float *x, int count)
{
    int done, most = 256;
    if (!cnn__usable_arrays(net, "cnn_predict", x, y, count) || !cnn__begin_look(net)) return 0;
    for (done = 0; done < count && cnn__reserve(net, count - done < most ? count - done : most); done += most) {
        int size = count - done < most ? count - done : most;
        size_t in = cnn__size(net->input), out = cnn__outputs(net);
        cnn__upload(net, net->pass.x, x + in * (size_t)done, sizeof *x * in * (size_t)size);
        cnn__run(net, size);
        cnn__fetch(net, y + out * (size_t)done, cnn__last_output(net), sizeof *y * out * (size_t)size);
    }
    cnn__end_look(net);
    return !cnn__stopped(net) && cnn__sync(net);
}

static void cnn__predict_batch(cnn_net *net, const cnn_batch *batch, void *user)
{
    float **y = (float **)user;
    size_t count = cnn__outputs(net) * (size_t)batch->size;
    cnn__fetch(net, *y, cnn__last_output(net), sizeof **y * count);
    *y += count;
}

int cnn_predict_bytes(cnn_net *net, float *y, const unsigned char *x, int count)
{
    cnn_data data;
    if (!cnn__usable_arrays(net, "cnn_predict_bytes", x, y, count)) return 0;
    if (!net->trained_scale)
        return cnn__fail(net, "cnn_predict_bytes: the network was not trained on bytes in this program, so their scale "
                         "is not known; give it with cnn_set_scale");
    memset(&data, 0, sizeof data);
    data.name = "the bytes";
    data.count = count;
    data.channels = net->input.channels; data.height = net->input.height; data.width = net->input.width;
    data.bytes = x;
    data.scale = net->trained_scale;
    data.shift = net->trained_scale + net->input.channels;
    cnn__look_through(net, "cnn_predict_bytes", &data, 256, cnn__predict_batch, &y);
    return !cnn__stopped(net);
}

/* cnn_normalize's scale, and behind it the shift; 0 and an error if a deviation cannot be */
static int cnn__scale_of(float *scale, int channels, float whole, const float *mean, const float *std,
                         const char *call, cnn__text *error)
{
    int c;
    for (c = 0; std && c < channels; c++)
        if (!(std[c] > 0))
            return cnn__say(error, "%s: the deviation of channel %d must be above 0, not %g", call, c, (double)std[c]);
    for (c = 0; c < channels; c++) {
        scale[c] = std ? whole / std[c] : whole;
        scale[channels + c] = std ? -mean[c] / std[c] : 0;
    }
    return 1;
}

void cnn_set_scale(cnn_net *net, const float *mean, const float *std)
{
    int channels;
    float *both;
    if (cnn__stopped(net)) return;
    if (!mean != !std) { cnn__fail(net, "cnn_set_scale: give both mean and std, or neither"); return; }
    channels = net->input.channels;
    both = (float *)cnn__alloc(2 * (size_t)channels, sizeof *both);
    if (!both) cnn__fail(net, "out of memory for the inputs' scale");
    else if (cnn__scale_of(both, channels, 1.0f / 255, mean, std, "cnn_set_scale", &net->error))
        cnn__keep_scale(net, &net->trained_scale, both, both + channels);
    cnn__free(both);
}

/* ---- progress and log ---- */

static double cnn__seconds(void)                           /* wall clock */
{
#if defined(_WIN32)
    return (double)clock() / CLOCKS_PER_SEC;               /* on Windows this is wall-clock time */
#else
    struct timeval now;
    gettimeofday(&now, NULL);
    return (double)now.tv_sec + 1e-6 * (double)now.tv_usec;
#endif
}

static int cnn__remember_epoch(cnn_net *net, const cnn_epoch *epoch)
{
    net->history = (cnn_epoch *)cnn__grow(net->history, net->history_count, &net->history_room, sizeof *epoch);
    if (net->history_count == net->history_room) return cnn__fail(net, "cnn_fit: out of memory for the history");
    net->history[net->history_count++] = *epoch;
    return 1;
}

const cnn_epoch *cnn_history(const cnn_net *net, int *count)
{
    *count = net ? net->history_count : 0;
    return net ? net->history : NULL;
}

typedef struct cnn__progress { double begun, shown; int quarter, length; } cnn__progress;

/* `epoch 3/30 [=====>    ] 52% 9000 samples/s 0:12 left loss 0.1234 acc 97.12%` in fewer columns than the terminal
   has: a full line would wrap, and be drawn anew on the next. Where room is short, the rate goes first, then the
   time. */
static int cnn__progress_line(char line[400], int columns, const char *head, double share, const char *rate,
                              const char *left, const char *score)
{
    enum { fewest = 5, most = 24 };
    static const char arrow[] = "========================>";     /* `most` cells and the point */
    int detail, cells = 0, done;
    char bar[most + 4] = "", tail[300] = "";
    for (detail = 2; detail >= 0 && cells < fewest; detail--) {
        cnn__snprintf(tail, sizeof tail, "%3.0f%% %s%s%s", 100 * share, detail > 1 ? rate : "", detail > 0 ? left : "",
                      score);
        cells = columns - 1 - (int)(strlen(head) + strlen(tail) + strlen("[] "));
    }
    if (cells > most) cells = most;
    done = (int)(cells * share);
    if (cells >= fewest) cnn__snprintf(bar, sizeof bar, "[%-*.*s] ", cells, cells, arrow + most - done);
    cnn__snprintf(line, (size_t)columns, "%s%s%s", head, bar, tail);
    return (int)strlen(line);
}

static void cnn__show_progress(cnn_net *net, const cnn_fit_options *o, cnn__progress *p, int epoch, int done, int all,
                               int batch_size)
{
    double now = cnn__seconds(), share = (double)done / all, spent = now - p->begun, left = spent / done * (all - done);
    cnn_score score;
    char line[400], head[40], rate[60], time_left[40], scores[100];
    int columns = o->progress_width > 0 ? o->progress_width : 80, length;
    if (o->progress_bar ? now - p->shown < 0.1 && done < all : (int)(4 * share) == p->quarter) return;
    p->shown = now;
    p->quarter = (int)(4 * share);
    score = cnn__read_score(net);
    cnn__snprintf(head, sizeof head, "epoch %d/%d ", epoch, o->epochs);
    cnn__snprintf(rate, sizeof rate, "%.0f samples/s ", spent > 0 ? (double)done * batch_size / spent : 0.0);
    cnn__snprintf(time_left, sizeof time_left, "%.0f:%02d left ", floor(left / 60), (int)fmod(left, 60));
    cnn__snprintf(scores, sizeof scores, "loss %.4f acc %.2f%%", score.loss, 100 * score.accuracy);
    if (!o->progress_bar)
        cnn__fprintf(o->progress, "%s%3.0f%% %s%s%s\n", head, 100 * share, rate, time_left, scores);
    else {                                  /* blanks erase what was longer: a console may know no escape codes */
        length = cnn__progress_line(line, columns < 400 ? columns : 400, head, share, rate, time_left, scores);
        cnn__fprintf(o->progress, "\r%s%*s", line, p->length > length ? p->length - length : 0, "");
        p->length = length;
        if (done == all) cnn__fprintf(o->progress, "\r%*s\r", length, "");       /* the epoch's line takes its place */
    }
    fflush(o->progress);
}

static void cnn__log_epoch(FILE *log, const cnn_epoch *e, int epochs, int tested)
{
    cnn__fprintf(log, "epoch %d/%d train_loss %.4f train_acc %.2f%%", e->epoch, epochs, e->train.loss,
                 100 * e->train.accuracy);
    if (tested) cnn__fprintf(log, " test_loss %.4f test_acc %.2f%%", e->test.loss, 100 * e->test.accuracy);
    cnn__fprintf(log, " seconds %.1f\n", e->seconds);
    fflush(log);
}

/* ---- the doctor: what a lecturer would say on looking over a student's shoulder ---- */

enum {
    CNN__SAID_SOFTMAX = 1, CNN__SAID_UNSCALED = 2, CNN__SAID_NAN = 4, CNN__SAID_STUCK = 8, CNN__SAID_DEAD = 16,
    CNN__SAID_RATE = 32, CNN__SAID_OVERFIT = 64, CNN__SAID_CLASSES = 128
};

typedef struct cnn__doctor { FILE *out; int said; double best_loss; } cnn__doctor;

static void cnn__advise(cnn__doctor *d, int what, const char *format, ...) CNN__PRINTF(3, 4);
static void cnn__advise(cnn__doctor *d, int what, const char *format, ...)
{
    va_list arguments;
    if (d->said & what) return;                            /* once is enough */
    d->said |= what;
    cnn__fprintf(d->out, "doctor: ");
    va_start(arguments, format);
    cnn__vfprintf(d->out, format, arguments);
    va_end(arguments);
    cnn__fprintf(d->out, "\n");
    fflush(d->out);
}

static void cnn__doctor_before(cnn__doctor *d, const cnn_net *net, const cnn_data *train, cnn_loss_kind loss)
{
    int outputs = (int)cnn__outputs(net);
    if (loss == CNN_CROSS_ENTROPY && net->layers[net->layer_count - 1].sums_to_one)
        cnn__advise(d, CNN__SAID_SOFTMAX, "the network ends with softmax, and the cross-entropy takes softmax once "
                    "more; gradients become small. Leave the last cnn_softmax out.");
    if (train->labels && train->classes < outputs)
        cnn__advise(d, CNN__SAID_CLASSES, "the network has %d outputs, but the labels go only from 0 to %d; give the "
                    "last layer .out_features = %d.", outputs, train->classes - 1, train->classes);
}

static void cnn__doctor_first_batch(cnn__doctor *d, cnn_net *net)
{
    size_t i, n = cnn__size(net->input) * (size_t)net->pass.batch;
    float *x = cnn__download(net, net->pass.x, n), most = 0;
    for (i = 0; x && i < n; i++) if (fabsf(x[i]) > most) most = fabsf(x[i]);
    if (most > 20)
        cnn__advise(d, CNN__SAID_UNSCALED, "the inputs reach %g; networks learn from values around 0 to 1. Give bytes "
                    "as .bytes, which are divided by 255, or call cnn_normalize.", (double)most);
    cnn__free(x);
}

static void cnn__doctor_loss(cnn__doctor *d, const cnn_net *net, double loss)
{
    if (!(loss - loss == 0))
        cnn__advise(d, CNN__SAID_NAN,
                    "the loss is %g: the numbers have overflowed. Try a learning rate ten times smaller than %g, "
                    "clip_grad_norm = 1, and look for NaN in the inputs.", loss, net->lr);
}

/* Are all values of y at most 0? Asked sample by sample, as most layers answer with the first one. */
static int cnn__all_off(cnn_net *net, const float *y, size_t size)
{
    size_t k = size;
    int sample;
    for (sample = 0; sample < net->pass.batch && k == size; sample++) {
        float *one = cnn__download(net, y + size * (size_t)sample, size);
        for (k = 0; one && k < size && one[k] <= 0; k++) ;
        cnn__free(one);
    }
    return k == size;
}

/* A layer of ReLUs that gave nothing but zeros for the whole last batch learns no more. */
static void cnn__doctor_dead(cnn__doctor *d, cnn_net *net)
{
    int i;
    for (i = 0; i < net->layer_count && !(d->said & CNN__SAID_DEAD) && !cnn__stopped(net); i++) {
        float *own;
        const float *y;
        if (net->layers[i].activation != CNN_RELU) continue;
        y = cnn__activation_of(net, i, &own);
        if (y && cnn__all_off(net, y, cnn__size(net->layers[i].out)))
            cnn__advise(d, CNN__SAID_DEAD, "all ReLUs of layer %d (\"%s\") are dead: they give 0 for every sample, and "
                        "no gradient comes through. Use a smaller learning rate, Kaiming initialisation, or "
                        "leaky_relu.", i + 1, net->layers[i].name);
        cnn__backend_free(net, &own);
    }
}

static void cnn__doctor_epoch(cnn__doctor *d, const cnn_net *net, const cnn_epoch *e, int classes, cnn_loss_kind loss,
                              int batches)
{
    double chance = log(classes > 1 ? classes : 2);
    cnn__doctor_loss(d, net, e->train.loss);
    if (loss == CNN_CROSS_ENTROPY && classes > 1) {
        if (batches >= 50 && fabs(e->train.loss - chance) < 0.02 * chance && e->train.accuracy < 1.5 / classes)
            cnn__advise(d, CNN__SAID_STUCK, "after epoch %d the loss is still near ln(%d) = %.3f, which is guessing. "
                        "Look at the labels and at the inputs' scale, and try another learning rate than %g.", e->epoch,
                        classes, chance, (double)e->lr);
        if (e->train.loss > 1.5 * chance)
            cnn__advise(d, CNN__SAID_RATE, "the loss of epoch %d, %.3g, is worse than guessing (%.3g): the learning "
                        "rate %g is likely too high. Try a tenth of it.", e->epoch, e->train.loss, chance,
                        (double)e->lr);
    }
    if (d->best_loss > 0 && e->train.loss > 1.5 * d->best_loss && e->train.loss - d->best_loss > 0.1)
        cnn__advise(d, CNN__SAID_RATE, "the training loss rose from %.3g to %.3g: the learning rate %g is likely too "
                    "high. Try a tenth of it, or a schedule.", d->best_loss, e->train.loss, (double)e->lr);
    if (!(d->best_loss > 0) || e->train.loss < d->best_loss) d->best_loss = e->train.loss;
    if (e->test.count && e->train.accuracy - e->test.accuracy > 0.1)
        cnn__advise(d, CNN__SAID_OVERFIT, "after epoch %d the network knows the training samples (%.1f %%) far better "
                    "than new ones (%.1f %%): it overfits. Use dropout, weight decay, augmentation, more data, or "
                    "fewer epochs.", e->epoch, 100 * e->train.accuracy, 100 * e->test.accuracy);
}

/* ---- early stopping ----

   When to stop and which epoch was best both follow from the history, so a checkpoint needs no more than that. */

static int cnn__is_better(const cnn_epoch *e, const cnn_epoch *than, int by_accuracy)      /* than NULL: no other yet */
{
    if (by_accuracy) return !than || e->test.accuracy > than->test.accuracy;
    return e->test.loss == e->test.loss && (!than || e->test.loss < than->test.loss);      /* NaN is never better */
}

static int cnn__best_of_history(const cnn_net *net, int by_accuracy)       /* from 1; of equals the first; 0: none */
{
    int best = 0, i;
    for (i = 0; i < net->history_count; i++)
        if (cnn__is_better(&net->history[i], best ? &net->history[best - 1] : NULL, by_accuracy)) best = i + 1;
    return best;
}

static void cnn__keep_best(cnn_net *net, int by_accuracy)  /* the last epoch's weights, if better than those kept */
{
    const cnn_epoch *last = &net->history[net->history_count - 1];
    if (!cnn__is_better(last, net->best_epoch ? &net->history[net->best_epoch - 1] : NULL, by_accuracy)) return;
    if (!net->best) net->best = (float *)cnn__alloc(net->state_size, sizeof(float));
    if (!net->best) { cnn__fail(net, "cnn_fit: out of memory for the best epoch's weights"); return; }
    cnn__fetch(net, net->best, net->parameters, sizeof(float) * net->state_size);
    net->best_epoch = net->history_count;
}

int cnn_best_epoch(const cnn_net *net) { return net ? net->best_epoch : 0; }

static void cnn__end_with_best(cnn_net *net, const cnn_fit_options *o)
{
    int best = cnn__best_of_history(net, o->by_accuracy), without = net->history_count - best;
    if (o->log && o->patience && without >= o->patience && net->history_count < o->epochs)
        cnn__fprintf(o->log, "stopped after epoch %d: none of the last %d had a better test %s than epoch %d\n",
                net->history_count, without, o->by_accuracy ? "accuracy" : "loss", best);
    if (!o->keep_best || !net->best_epoch) return;
    cnn__upload(net, net->parameters, net->best, sizeof(float) * net->state_size);
    cnn__weights_changed(net);
    if (o->log) cnn__fprintf(o->log, "the weights are those of epoch %d\n", net->best_epoch);
}

/* ---- the training loop ---- */

/* 1 after a whole epoch; 0 where it was cut off. */
static int cnn__train_epoch(cnn_net *net, cnn_loader *loader, const cnn_fit_options *o, int epoch, cnn__doctor *doctor)
{
    cnn__progress progress = { 0, 0, 0, 0 };
    cnn_batch batch;
    int done = 0, all = cnn_batches(loader);
    progress.begun = progress.shown = cnn__seconds();
    cnn__reset_score(net);
    cnn_train(net);
    /* The lecture's five lines: forward (cnn__forward_next: the next batch, through the network), loss, zero_grad,
       backward, step. The rest is advice and display. */
    while (!cnn__stopped(net) && !(o->interrupted && done < all && o->interrupted(o->user))
           && cnn__forward_next(net, loader, &batch)) {
        cnn__take_loss(net, &batch, o->loss);
        cnn_zero_grad(net);
        cnn_backward(net);
        if (o->clip_grad_norm > 0) cnn__clip(net, o->clip_grad_norm);
        cnn_step(net);
        if (doctor->out && epoch == 1 && !done && !cnn__stopped(net)) cnn__doctor_first_batch(doctor, net);
        /* every 50 batches only: reading the loss waits for a GPU to finish the step */
        if (doctor->out && done % 50 == 0 && !cnn__stopped(net)) cnn__doctor_loss(doctor, net, (double)cnn_loss(net));
        if (net->schedule == CNN__ONE_CYCLE_LR) cnn_scheduler_step(net);
        done++;
        if (o->progress && !cnn__stopped(net)) cnn__show_progress(net, o, &progress, epoch, done, all, o->batch_size);
    }
    if (progress.length && done < all) cnn__fprintf(o->progress, "\r%*s\r", progress.length, "");
    if (doctor->out && done == all && !cnn__stopped(net)) cnn__doctor_dead(doctor, net);
    return done == all && !cnn__stopped(net);
}

static const cnn__field cnn__fit_fields[] = {
    CNN__INT(cnn_fit_options, epochs, 1), CNN__INT(cnn_fit_options, batch_size, 128),
    CNN__INT(cnn_fit_options, test_batch_size, 256), CNN__INT(cnn_fit_options, loss, CNN_CROSS_ENTROPY),
    CNN__FLOAT(cnn_fit_options, clip_grad_norm, 0), CNN__INT(cnn_fit_options, keep_order, 0),
    CNN__INT(cnn_fit_options, keep_last, 0), CNN__INT(cnn_fit_options, progress_bar, 0),
    CNN__INT(cnn_fit_options, progress_width, 80), CNN__INT(cnn_fit_options, patience, 0),
    CNN__INT(cnn_fit_options, keep_best, 0), CNN__INT(cnn_fit_options, by_accuracy, 0),
    CNN__AUGMENT(cnn_fit_options)
};

static int cnn__usable_fit(cnn_net *net, const cnn_data *test, const cnn_fit_options *o)
{
    if (!cnn__usable_loss_kind(net, "cnn_fit", o->loss)) return 0;
    if (o->epochs < 0) return cnn__fail(net, "cnn_fit: epochs must be at least 0, not %d", o->epochs);
    if (o->batch_size < 1) return cnn__fail(net, "cnn_fit: batch_size must be at least 1, not %d", o->batch_size);
    if (o->test_batch_size < 1)
        return cnn__fail(net, "cnn_fit: test_batch_size must be at least 1, not %d", o->test_batch_size);
    if (o->clip_grad_norm < 0)
        return cnn__fail(net, "cnn_fit: clip_grad_norm must be above 0, or 0 for no clipping, not %g",
                         (double)o->clip_grad_norm);
    if (o->patience < 0) return cnn__fail(net, "cnn_fit: patience must be at least 1 epoch, not %d", o->patience);
    if ((o->patience || o->keep_best) && !test)
        return cnn__fail(net, "cnn_fit: .patience and .keep_best judge an epoch by the test data, but there is none; "
                         "hold some samples back with cnn_random_split");
    if (!net->optimizer)
        return cnn__fail(net, "cnn_fit: the network has no optimizer; call cnn_adam, cnn_adamw or cnn_sgd");
    if (test && test->error) cnn__take_over(&net->error, test->error);
    return !cnn__stopped(net);
}

int cnn_fit_with(cnn_net *net, const cnn_data *train, const cnn_data *test, cnn_fit_options o)
{
    cnn_loader *loader;
    cnn_loader_options lo;
    cnn__doctor doctor = { NULL, 0, 0 };
    if (!cnn__ready(net) || !CNN__OPTIONS(&o, cnn__fit_fields, "cnn_fit", &net->error)
        || !cnn__usable_fit(net, test, &o))
        return 0;
    memset((void *)&lo, 0, sizeof lo);
    lo.batch_size = o.batch_size;
    lo.shuffle = !o.keep_order;
    lo.drop_last = !o.keep_last;
    lo.augment = o.augment;
    lo.seed = net->seed;
    loader = cnn__deal("cnn_fit", train, lo);
    cnn__take_over(&net->error, cnn_loader_error(loader));
    doctor.out = o.doctor;
    if (doctor.out && !cnn__stopped(net)) cnn__doctor_before(&doctor, net, train, o.loss);
    while (!cnn__stopped(net) && net->history_count < o.epochs
           && !(o.patience && net->history_count - cnn__best_of_history(net, o.by_accuracy) >= o.patience)) {
        cnn_epoch e;
        double begun = cnn__seconds();
        memset(&e, 0, sizeof e);
        e.epoch = net->history_count + 1;
        e.lr = cnn_lr(net);
        cnn_set_epoch(loader, e.epoch - 1);
        if (!cnn__train_epoch(net, loader, &o, e.epoch, &doctor)) break;
        e.train = cnn__read_score(net);
        e.seconds = cnn__seconds() - begun;
        if (test) e.test = cnn_evaluate(net, test, o.test_batch_size, o.loss);
        if (cnn__stopped(net)) break;
        if (net->schedule == CNN__STEP_LR || net->schedule == CNN__COSINE_LR) cnn_scheduler_step(net);
        if (!cnn__remember_epoch(net, &e)) break;
        if (o.keep_best) cnn__keep_best(net, o.by_accuracy);
        if (o.log) cnn__log_epoch(o.log, &e, o.epochs, test != NULL);
        if (doctor.out) cnn__doctor_epoch(&doctor, net, &e, train->classes, o.loss, cnn_batches(loader));
        if (o.each_epoch) o.each_epoch(net, &e, o.user);
    }
    if (!cnn__stopped(net)) cnn__end_with_best(net, &o);
    cnn_loader_free(loader);
    return !cnn__stopped(net);
}

/* ============================================================================================
   >>data   Samples, in memory or read when their batch comes; the files they come from; the loader that deals them out.
            Loading never returns NULL: a data set that could not be loaded has the reason in ->error
            and no samples, so that a program needs one check, at its end.
   ============================================================================================ */

typedef struct cnn__file { char *path; int label; } cnn__file;
typedef struct cnn__files { cnn__file *at; int count, room; } cnn__files;              /* pictures, or folders */

struct cnn__data_memory {
    cnn_data data;                          /* what the program has */
    cnn__text error, name;
    int count, classes;                     /* as they were at first: a program may change the public ones */
    int constant;                           /* the caller's arrays do not change                          */
    int users, freed;                       /* users: the data set and networks with a copy; both atomic  */
    void *owned[8]; int owns;               /* the arrays freed with it, this among them                  */
    float *scale;                           /* of the channels, and behind it their shift                 */
    /* samples that are read, if not by the caller's function: of picture files, or as samples `order` of another set */
    cnn__files files; cnn_image_options image;
    cnn__data_memory *from; int *order;
    cnn__files folders; const char **names;                /* of pictures: the classes' folders, and their names */
};

static const char *const cnn__digit_names[10] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" };
static const char *const cnn__fashion_names[10] = {
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot" };
static const char *const cnn__cifar10_names[10] = {
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck" };
static const char *const cnn__cifar100_fine[100] = {
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger",
    "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm" };
static const char *const cnn__cifar100_coarse[20] = {
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables",
    "household_electrical_devices", "household_furniture", "insects", "large_carnivores",
    "large_man-made_outdoor_things", "large_natural_outdoor_scenes", "large_omnivores_and_herbivores",
    "medium_mammals", "non-insect_invertebrates", "people", "reptiles", "small_mammals", "trees", "vehicles_1",
    "vehicles_2" };

/* ---- a data set ---- */

static size_t cnn__data_count(const cnn_data *data)
{
    return (size_t)(data->memory ? data->memory->count : data->count);
}

static size_t cnn__sample_values(const cnn_data *data)
{ return (size_t)data->channels * (size_t)data->height * (size_t)data->width; }

static int cnn__data_stays(const cnn_data *data) { return data->memory && data->memory->constant; }

/* A network recognises a data set by the address of its memory block. The block is therefore kept until no network has
   a copy of the arrays: otherwise a new one could get the same address. A split one keeps that of the one it reads. */
static cnn__data_memory *cnn__data_keep(const cnn_data *data)
{
    cnn__add_atomic(&data->memory->users, 1);              /* networks in several threads may use one data set */
    return data->memory;
}

static void cnn__free_files(cnn__files *list);             /* at the pictures */

static void cnn__data_forget(cnn__data_memory *memory)
{
    if (cnn__add_atomic(&memory->users, -1) != 1) return;
    cnn__free_files(&memory->files);
    cnn__free_files(&memory->folders);
    cnn__free(memory->names);
    cnn__free(memory->order);
    if (memory->from) cnn__data_forget(memory->from);
    cnn__free(memory);
}

static int cnn__data_freed(cnn__data_memory *memory) { return cnn__read_atomic(&memory->freed); }

static cnn_data *cnn__data_empty(const char *name)
{
    /* for when there is not even memory for the message */
    static cnn_data none = { 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, "",
                             "out of memory for a data set", 0, NULL, NULL };
    cnn__data_memory *memory = (cnn__data_memory *)cnn__alloc(1, sizeof *memory);
    if (!memory) {
        CNN_ON_ERROR(none.error);
        return &none;
    }
    memory->constant = memory->users = 1;
    cnn__snprintf(memory->name.s, sizeof memory->name.s, "%.200s", name);
    memory->data.memory = memory;
    memory->data.name = memory->name.s;
    return &memory->data;
}

void cnn_data_free(cnn_data *data)
{
    if (!data || !data->memory) return;
    cnn__halt_jobs(data->memory);                          /* a loader may be reading ahead */
    while (data->memory->owns) cnn__free(data->memory->owned[--data->memory->owns]);
    cnn__add_atomic(&data->memory->freed, 1);
    cnn__data_forget(data->memory);
}

static void *cnn__data_need(cnn_data *data, size_t count, size_t size)     /* NULL and an error without memory */
{
    void *array = cnn__alloc(count, size);
    if (!array) cnn__say(&data->memory->error, "%s: out of memory: its samples need %.1f MB", data->name,
                         (double)count * (double)size / 1e6);
    return array;
}

static void *cnn__data_own(cnn_data *data, void *array)    /* to be freed with the data set */
{
    if (array) data->memory->owned[data->memory->owns++] = array;
    return array;
}

static void *cnn__data_alloc(cnn_data *data, size_t count, size_t size)
{ return cnn__data_own(data, cnn__data_need(data, count, size)); }

/* Labels must be from 0 to classes - 1. to: the call that takes more classes, for the message; NULL: the format fixes
   their number. own: the caller's labels, in which a negative one may be the cross-entropy's ignore_index. */
static void cnn__check_labels(cnn_data *data, const char *to, int own)
{
    cnn__text advice;
    int i, bad = -1, smallest = 0, largest = 0;
    for (i = 0; data->labels && i < data->count; i++) {
        if (data->labels[i] < smallest) smallest = data->labels[i];
        if (data->labels[i] > largest) largest = data->labels[i];
        if (bad < 0 && ((data->labels[i] < 0 && !own) || data->labels[i] >= data->classes)) bad = i;
    }
    if (bad < 0) return;
    if (!to) cnn__snprintf(advice.s, sizeof advice.s, ": the file is damaged, or of another data set");
    else if (smallest < 0 || largest == INT_MAX)
        cnn__snprintf(advice.s, sizeof advice.s, "; labels go from %d to %d", smallest, largest);
    else
        cnn__snprintf(advice.s, sizeof advice.s, "; the largest is %d: give %d classes%s", largest, largest + 1, to);
    cnn__say(&data->memory->error, "%s: label %d of sample %d is outside 0 .. %d%s", data->name, data->labels[bad], bad,
             data->classes - 1, advice.s);
}

/* The last step of making a data set: checks the labels (to, own: see cnn__check_labels) and allocates the scaling. If
   this or something before was an error, the data set has that and no samples. */
static cnn_data *cnn__data_complete(cnn_data *data, const char *to, int own)
{
    cnn__data_memory *m = data->memory;
    m->count = data->count;
    m->classes = data->classes;
    if (!m->error.s[0]) cnn__check_labels(data, to, own);
    if (!m->error.s[0]) {
        data->scale = m->scale = (float *)cnn__data_alloc(data, 2 * (size_t)data->channels, sizeof *m->scale);
        data->shift = m->scale ? m->scale + data->channels : NULL;
    }
    cnn_normalize(data, NULL, NULL);
    return data;
}

static cnn_data *cnn__data_in_error(const char *name, const char *message)         /* a new one, with that message */
{
    cnn_data *data = cnn__data_empty(name);
    if (!data->memory) return data;
    cnn__take_over(&data->memory->error, message);
    return cnn__data_complete(data, NULL, 0);
}

void cnn_normalize(cnn_data *data, const float *mean, const float *std)
{
    cnn__text *error;
    if (!data || data->error) return;
    error = &data->memory->error;
    if (!error->s[0])
        cnn__scale_of(data->memory->scale, data->channels, data->floats ? 1 : 1.0f / 255, mean, std, "cnn_normalize",
                      error);
    if (!error->s[0]) return;
    data->error = error->s;
    data->count = 0;
}

static const cnn__field cnn__data_fields[] = {
    CNN__INT(cnn_data_options, count, 0), CNN__INT(cnn_data_options, channels, 0),
    CNN__INT(cnn_data_options, height, 0), CNN__INT(cnn_data_options, width, 0),
    CNN__INT(cnn_data_options, classes, 0), CNN__INT(cnn_data_options, outputs, 0),
    CNN__INT(cnn_data_options, constant, 0)
};

cnn_data *cnn_data_new_with(cnn_data_options o)
{
    cnn_data *data = cnn__data_empty("your data set");
    if (!data->memory) return data;
    CNN__OPTIONS(&o, cnn__data_fields, "cnn_data_new", &data->memory->error);
    data->count = o.count; data->channels = o.channels; data->height = o.height; data->width = o.width;
    data->classes = o.labels ? o.classes : 0;
    data->outputs = o.targets ? o.outputs : 0;
    data->bytes = o.bytes; data->floats = o.floats; data->labels = o.labels; data->targets = o.targets;
    data->read = o.read; data->user = o.user;
    data->class_names = o.class_names;
    data->memory->constant = o.constant;
    if (o.count < 1 || o.channels < 1 || o.height < 1 || o.width < 1
        || (double)o.channels * o.height * o.width > INT_MAX)
        cnn__say(&data->memory->error,
                 "cnn_data_new: %d samples of %d x %d x %d are not possible; all must be at least 1",
                 o.count, o.channels, o.height, o.width);
    else if (!o.bytes + !o.floats + !o.read != 2)
        cnn__say(&data->memory->error, "cnn_data_new: needs either .bytes or .floats, or .read, a function that gives "
                 "a sample's bytes");
    else if ((o.labels && o.classes < 1) || (o.targets && o.outputs < 1))
        cnn__say(&data->memory->error,
                 "cnn_data_new: .labels need .classes of at least 1, and .targets .outputs of at least 1");
    return cnn__data_complete(data, "", 1);
}

/* ---- files ---- */

/* A whole number of so many bytes, its lowest or its highest byte first. */
static uint64_t cnn__little(const unsigned char *b, int bytes)
{
    uint64_t number = 0;
    while (bytes--) number = number << 8 | b[bytes];
    return number;
}

static uint64_t cnn__big(const unsigned char *b, int bytes)
{
    uint64_t number = 0;
    while (bytes--) number = number << 8 | *b++;
    return number;
}

static double cnn__ieee(uint64_t bits, int bytes)          /* a float (4 bytes) or a double (8) */
{
    uint32_t word = (uint32_t)bits;
    float single;
    double number;
    if (bytes == 4) memcpy(&single, &word, sizeof single);
    else memcpy(&number, &bits, sizeof number);
    return bytes == 4 ? (double)single : number;
}

/* The CRC-32 of ZIP, gzip and PNG; crc is 0 or the CRC of the bytes before. Many bytes are read eight at a time:
   table[k][b] is what byte b does to the remainder when k bytes follow it (Kounavis, Berry: slicing, 2005). */
static uint32_t cnn__crc32(uint32_t crc, const unsigned char *bytes, size_t count)
{
    uint32_t table[8][256];
    int b, k, bit;
    crc = ~crc;
    if (count > 4096) {                     /* fewer do not pay for the table; it is local, so threads share nothing */
        for (b = 0; b < 256; b++) {
            table[0][b] = (uint32_t)b;
            for (bit = 0; bit < 8; bit++) table[0][b] = table[0][b] >> 1 ^ (table[0][b] & 1 ? 0xEDB88320u : 0);
        }
        for (k = 1; k < 8; k++)
            for (b = 0; b < 256; b++) table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 255];
        for (; count >= 8; count -= 8, bytes += 8) {
            crc ^= (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
            crc = table[7][crc & 255] ^ table[6][crc >> 8 & 255] ^ table[5][crc >> 16 & 255] ^ table[4][crc >> 24]
                ^ table[3][bytes[4]] ^ table[2][bytes[5]] ^ table[1][bytes[6]] ^ table[0][bytes[7]];
        }
    }
    while (count--) {
        crc ^= *bytes++;
        for (bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

#ifdef CNN_NO_FILES
static FILE *cnn__open_to_read(const char *path, size_t *size, cnn__text *error)
{
    *size = 0;
    cnn__say(error, "%.300s: cannot be opened: compiled without files (CNN_NO_FILES)", path ? path : "(no path)");
    return NULL;
}
#else

enum { CNN__PATH = 4096 };                                 /* the longest path, with its 0: Linux's PATH_MAX */

#ifdef _WIN32
static wchar_t *cnn__wide(const char *path, wchar_t wide[CNN__PATH])
{
    if (!MultiByteToWideChar(65001, 8, path, -1, wide, CNN__PATH)          /* 65001: UTF-8; 0: the code page */
        && !MultiByteToWideChar(0, 0, path, -1, wide, CNN__PATH))
        wide[0] = 0;
    return wide;
}
#endif

/* open() for every file: a descriptor, negative if it fails. On Windows a path is UTF-8, or else of the code page. */
static int cnn__open(const char *path, int flags, int mode)
{
#ifdef _WIN32
    wchar_t wide[CNN__PATH];
    mode = mode & 0200 ? _S_IREAD | _S_IWRITE : _S_IREAD;
    return _wopen(cnn__wide(path, wide), flags | _O_BINARY | _O_NOINHERIT, mode);
#elif defined(O_CLOEXEC)
    return open(path, flags | O_CLOEXEC, mode);
#else
    return open(path, flags, mode);
#endif
}

/* Opens a file for reading and finds its size; NULL and a message if it fails. Only regular files are read: reading a
   FIFO may never return, and a device may have no end. */
static FILE *cnn__open_to_read(const char *path, size_t *size, cnn__text *error)
{
    FILE *file = NULL;
#ifdef _WIN32
    struct _stat64 status;
    int d = path ? cnn__open(path, _O_RDONLY, 0) : -1;
    int good = d >= 0 && !_fstat64(d, &status), regular = good && (status.st_mode & _S_IFMT) == _S_IFREG;
#else
    struct stat status;
    int d = path ? cnn__open(path, O_RDONLY | O_NONBLOCK, 0) : -1;
    int good = d >= 0 && !fstat(d, &status), regular = good && S_ISREG(status.st_mode);
#endif
    if (!path) cnn__say(error, "(no path): cannot be opened: there is no path");
    else if (good && !regular)
        cnn__say(error, "%.300s: is a directory, pipe or device, not a regular file", path);
    else if (good && (uint64_t)status.st_size >= (size_t)-1 / 2)
        cnn__say(error, "%.300s: has %.1f MB, too many for this machine", path, (double)status.st_size / 1e6);
    else if (!good || !(file = fdopen(d, "rb")))
        cnn__say(error, "%.300s: cannot be opened: %s", path, strerror(errno));
    if (file) *size = (size_t)status.st_size;
    else if (d >= 0) close(d);
    return file;
}
#endif

/* All bytes of a file, freed by cnn__free; NULL and a message if it cannot be read. */
static unsigned char *cnn__read_file(const char *path, size_t *size, cnn__text *error)
{
    unsigned char *bytes = NULL;
    FILE *file = cnn__open_to_read(path, size, error);
    if (!file) return NULL;
    if (!(bytes = (unsigned char *)cnn__alloc_raw(*size + 1)))             /* + 1: text must end in 0 */
        cnn__say(error, "%.300s: out of memory: the file has %.1f MB", path, (double)*size / 1e6);
    else if (errno = 0, fread(bytes, 1, *size, file) != *size) {
        cnn__say(error, "%.300s: cannot be read to its end: %s", path, errno ? strerror(errno) : "it became shorter");
        cnn__free(bytes);
        bytes = NULL;
    }
    else bytes[*size] = 0;
    fclose(file);
    return bytes;
}

static int cnn__exists(const char *path)                   /* and can be opened for reading */
{
    size_t size;
    FILE *file = cnn__open_to_read(path, &size, NULL);
    if (file) fclose(file);
    return file != NULL;
}

/* The split, which every loader names the same way: 0 train, 1 test; -1 and a message for anything else. */
static int cnn__split(const char *call, const char *split, cnn__text *error)
{
    if (!split) split = "";
    if (!strcmp(split, "train")) return 0;
    if (!strcmp(split, "test") || !strcmp(split, "t10k")) return 1;
    cnn__say(error, "%s: the split is \"train\" or \"test\" (\"t10k\" is the same), not \"%.60s\"", call, split);
    return -1;
}

/* Files of other kinds that are given in place of a data set or of weights, recognised by their first bytes. */
enum { CNN__DATA = 1, CNN__WEIGHTS = 2, CNN__PICTURE = 4, CNN__EITHER = 7 };

static const struct cnn__other_file { int given, at, length; const char *bytes, *is, *advice; } cnn__other_files[] = {
    { CNN__EITHER, 0, 2, "\037\213", "gzip-compressed", "unpack it: gzip -d, after giving it the ending .gz" },
    { CNN__EITHER, 0, 23, "version https://git-lfs", "a placeholder of Git LFS", "get the file itself: git lfs pull" },
    { CNN__DATA, 0, 6, "\3757zXZ\0", "xz-compressed", "unpack it: xz -d, after giving it the ending .xz" },
    { CNN__DATA, 0, 3, "BZh", "bzip2-compressed", "unpack it: bzip2 -d, after giving it the ending .bz2" },
    { CNN__DATA, 0, 4, "\050\265\057\375", "zstd-compressed", "unpack it: zstd -d, after giving it the ending .zst" },
    { CNN__DATA, 0, 4, "PK\3\4", "a zip archive", "unpack it: unzip" },
    { CNN__DATA, 0, 4, "7z\274\257", "a 7-Zip archive", "unpack it: 7z x" },
    { CNN__DATA, 257, 5, "ustar", "a tar archive", "unpack it: tar xf" },
    { CNN__DATA, 0, 6, "\223NUMPY", "a NumPy array", "pass the numbers to cnn_data_new" },
    { CNN__DATA, 0, 4, "\211PNG", "a PNG picture", "a data set is one file of all images" },
    { CNN__DATA, 0, 3, "\377\330\377", "a JPEG picture", "a data set is one file of all images" },
    { CNN__WEIGHTS, 0, 6, "\211HDF\r\n", "an HDF5 file, as Keras writes", ".safetensors and PyTorch's .pth are read" },
    { CNN__WEIGHTS, 0, 4, "GGUF", "a GGUF file", ".safetensors and PyTorch's .pth are read" },
    { CNN__PICTURE, 4, 4, "ftyp", "a HEIC, AVIF or video file", "make a JPEG or PNG of it" },
    { CNN__PICTURE, 8, 4, "WEBP", "a WebP picture", "make a JPEG or PNG of it" },
    { CNN__PICTURE, 0, 4, "II*\0", "a TIFF picture", "make a JPEG or PNG of it" },
    { CNN__PICTURE, 0, 4, "MM\0*", "a TIFF picture", "make a JPEG or PNG of it" }
};

/* Whether the first characters of a are those of b, in capitals or not. b: small letters */
static int cnn__alike(const char *a, const char *b, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++)
        if ((a[i] >= 'A' && a[i] <= 'Z' ? (char)(a[i] - 'A' + 'a') : a[i]) != b[i]) return 0;
    return 1;
}

static int cnn__ends_in(const char *path, const char *endings)             /* in one of ".jpg .png" */
{
    size_t length = strlen(path), count;
    for (; *endings; endings += count + strspn(endings + count, " ")) {
        count = strcspn(endings, " ");
        if (count <= length && cnn__alike(path + length - count, endings, count)) return 1;
    }
    return 0;
}

static int cnn__is_web_page(const unsigned char *file, size_t size)
{
    static const char *const begins[] = { "<!doctype", "<html", "<?xml", "<head", "<!--" };
    size_t at = size >= 3 && !memcmp(file, "\357\273\277", 3) ? 3 : 0, i, count;            /* a byte-order mark */
    while (at < size && (file[at] == ' ' || (file[at] >= '\t' && file[at] <= '\r'))) at++;
    for (i = 0; i < sizeof begins / sizeof *begins; i++) {
        count = strlen(begins[i]);
        if (count <= size - at && cnn__alike((const char *)file + at, begins[i], count)) return 1;
    }
    return 0;
}

/* 1 if the file is of one of these kinds and not what is wanted: the message says what it is and what to do. */
static int cnn__is_other_file(const char *path, const unsigned char *file, size_t size, int given, const char *wanted,
                              cnn__text *error)
{
    const struct cnn__other_file *k = cnn__other_files, *end = k + sizeof cnn__other_files / sizeof *k;
    if (cnn__is_web_page(file, size)) {
        cnn__say(error, "%.300s: is a web page, not %s: the download failed, or got the page about the file; "
                        "get it again", path, wanted);
        return 1;
    }
    while (k < end && (!(k->given & given) || size < (size_t)(k->at + k->length)
                       || memcmp(file + k->at, k->bytes, (size_t)k->length)))
        k++;
    if (k < end) cnn__say(error, "%.300s: is %s, not %s; %s", path, k->is, wanted, k->advice);
    return k < end;
}

#if defined(STBI_INCLUDE_STB_IMAGE_H) && !defined(STBI_NO_ZLIB)
#define CNN__GUNZIP                         /* stb_image.h was included before: its zlib decoder unpacks .gz files */

/* The contents of a gzip file (RFC 1952): a header, a deflate stream, its CRC and its length. Frees `file`. */
static unsigned char *cnn__gunzip(const char *path, unsigned char *file, size_t *size, cnn__text *error)
{
    size_t at = 10, length = 0;
    const unsigned char *end = file + *size;
    unsigned char *plain = NULL;
    int flags = *size > 18 ? file[3] : 0, written = -1;
    if (flags & 4) at += 2u + file[at] + 256u * file[at + 1];                             /* extra field */
    if (flags & 8) while (at < *size && file[at++]) {}                                    /* file name */
    if (flags & 16) while (at < *size && file[at++]) {}                                   /* comment */
    if (flags & 2) at += 2;                                                               /* header CRC */
    if (at + 8 < *size) {
        length = (size_t)cnn__little(end - 4, 4);
        if (length < INT_MAX && *size < INT_MAX && length / 1032 <= *size)         /* deflate's limit is 1032 to 1 */
            plain = (unsigned char *)cnn__alloc(length + 1, 1);
    }
    if (plain)
        written = stbi_zlib_decode_noheader_buffer((char *)plain, (int)length, (const char *)file + at,
                                                   (int)(*size - at));
    if (written < 0 || (size_t)written != length || cnn__crc32(0, plain, length) != cnn__little(end - 8, 4)) {
        cnn__say(error, "%.300s: cannot be unpacked: it is cut off or damaged; get it again", path);
        cnn__free(plain);
        plain = NULL;
    }
    cnn__free(file);
    *size = length;
    return plain;
}
#endif

/* ---- IDX: LeCun's format of MNIST ----

       | 0 | 0 | type of the numbers | number of dimensions | the size of each dimension, 4 bytes | the numbers |

   Sizes and numbers have their highest byte first. */

/* sizes: 1 between the first and the others where there are fewer: (n, 1, h, w), (n, 1, 1, values) */
typedef struct cnn__idx { unsigned char *file; int type, bytes, dimensions, sizes[4]; size_t begin; } cnn__idx;

enum { CNN__IDX_UINT8 = 0x08, CNN__IDX_FLOAT = 0x0d, CNN__IDX_DOUBLE };    /* the types; between are signed ones */

static double cnn__idx_at(const cnn__idx *idx, size_t i)
{
    uint64_t word = cnn__big(idx->file + idx->begin + i * (size_t)idx->bytes, idx->bytes);
    if (idx->type == CNN__IDX_UINT8) return (double)word;
    if (idx->type >= CNN__IDX_FLOAT) return cnn__ieee(word, idx->bytes);
    return (double)word - (word >> (8 * idx->bytes - 1) ? ldexp(1, 8 * idx->bytes) : 0);   /* two's complement */
}

/* Reads and checks the header; 0 and a message if it is not one of images or of labels. */
static int cnn__read_idx_header(cnn__idx *idx, const char *path, size_t size, int labels, cnn__text *error)
{
    static const int bytes[] = { 1, 1, 0, 2, 4, 4, 8 };    /* of a number of types 8 to 14 */
    const unsigned char *file = idx->file;
    size_t expected;
    int i;
    if (size >= 8) {
        idx->type = file[2];
        idx->dimensions = file[3];
        if (!file[0] && !file[1] && idx->type >= CNN__IDX_UINT8 && idx->type <= CNN__IDX_DOUBLE)
            idx->bytes = bytes[idx->type - CNN__IDX_UINT8];
    }
    /* labels have one dimension, the samples; images have rows and columns, too, and in colour channels */
    if (size >= 8 && (!idx->bytes || (labels ? idx->dimensions != 1 : idx->dimensions < 2 || idx->dimensions > 4)))
        return cnn__say(error, "%.300s: begins with %02x %02x %02x %02x, but an IDX file of %s begins with "
                               "00 00 08 %02x%s",
                        path, file[0], file[1], file[2], file[3], labels ? "labels" : "images", labels ? 1 : 3,
                        !idx->bytes ? "" : labels ? "; are the two paths swapped? Labels have one dimension"
                        : idx->dimensions == 1 ? "; it has one dimension, as labels have: are the two paths swapped?"
                        : "; it has too many dimensions");
    idx->begin = 4 + 4 * (size_t)idx->dimensions;
    if (size < 8 || size < idx->begin)
        return cnn__say(error, "%.300s: has only %.0f bytes, too few for an IDX file; is it a broken download?", path,
                        (double)size);
    for (expected = (size_t)idx->bytes, i = 0; i < idx->dimensions; i++) {
        uint32_t n = (uint32_t)cnn__big(file + 4 + 4 * i, 4);
        if (n < 1 || n > INT_MAX)
            return cnn__say(error, "%.300s: its header claims a size of %.0f, which is not possible", path, (double)n);
        idx->sizes[i ? 4 - idx->dimensions + i : 0] = (int)n;
        if (!cnn__mul(&expected, expected, n)) expected = (size_t)-1 / 2;
    }
    expected += idx->begin;
    if (expected != size)
        return cnn__say(error, "%.300s: its header promises %.0f bytes, but it has %.0f; is it a broken download?",
                        path, (double)expected, (double)size);
    return 1;
}

/* Reads an IDX file of images or of labels, or the same path with .gz. The caller frees idx->file. */
static int cnn__read_idx(cnn__idx *idx, const char *path, int labels, cnn__text *error)
{
    const char *wanted = labels ? "an IDX file of labels" : "an IDX file of images";
    char packed[420];
    size_t size;
    cnn__snprintf(packed, sizeof packed, "%.400s.gz", path ? path : "");
    if (path && !cnn__exists(path) && cnn__exists(packed)) path = packed;
    idx->file = cnn__read_file(path, &size, error);
    if (idx->file && size >= 2 && idx->file[0] == 0x1f && idx->file[1] == 0x8b) {
#ifdef CNN__GUNZIP
        idx->file = cnn__gunzip(path, idx->file, &size, error);
#else
        if (cnn__ends_in(path, ".gz"))
            cnn__say(error, "%.200s is packed; unpack it: gzip -dk %.200s", path, path);
#endif
    }
    return idx->file && !cnn__is_other_file(path, idx->file, size, CNN__DATA, wanted, error)
        && cnn__read_idx_header(idx, path, size, labels, error);
}

/* Makes the images the samples: bytes in the right order stay where the file was read, others are converted. */
static void cnn__take_images(cnn_data *data, cnn__idx *idx)
{
    /* the channels are second, or last: whichever gives a small number, as of grey, grey and alpha, RGB, RGBA */
    const int *s = idx->sizes;
    int last = s[1] > 4 && s[3] <= 4, is_bytes = idx->type == CNN__IDX_UINT8, c, n;
    unsigned char *bytes = NULL;
    float *floats = NULL;
    size_t pixels, p, to = 0;
    data->count = s[0];
    data->channels = last ? s[3] : s[1];
    data->height = last ? s[1] : s[2];
    data->width = last ? s[2] : s[3];
    pixels = (size_t)data->height * (size_t)data->width;
    if (is_bytes && !last) {
        data->bytes = (unsigned char *)cnn__data_own(data, idx->file) + idx->begin;
        idx->file = NULL;
        return;
    }
    /* the products cannot overflow: the file has as many numbers */
    p = (size_t)data->count * (size_t)data->channels * pixels;
    if (is_bytes) data->bytes = bytes = (unsigned char *)cnn__data_alloc(data, p, 1);
    else data->floats = floats = (float *)cnn__data_alloc(data, p, sizeof *floats);
    for (n = 0; (bytes || floats) && n < data->count; n++)
        for (c = 0; c < data->channels; c++)
            for (p = 0; p < pixels; p++, to++) {
                size_t from = last ? ((size_t)n * pixels + p) * (size_t)data->channels + (size_t)c : to;
                if (bytes) bytes[to] = (unsigned char)cnn__idx_at(idx, from);
                else floats[to] = (float)cnn__idx_at(idx, from);
            }
}

static void cnn__take_labels(cnn_data *data, const cnn__idx *idx, const char *path)
{
    int i, *labels = (int *)cnn__data_alloc(data, (size_t)data->count, sizeof *labels);
    data->labels = labels;
    for (i = 0; !data->memory->error.s[0] && i < data->count; i++) {
        double label = cnn__idx_at(idx, (size_t)i);
        if (label > -2147483648.0 && label < 2147483648.0 && label == floor(label)) labels[i] = (int)label;
        else cnn__say(&data->memory->error, "%.300s: label %g of sample %d is not a whole number", path, label, i);
    }
}

static cnn_data *cnn__load_idx(const char *images, const char *labels, int classes, const char *to)
{
    cnn_data *data = cnn__data_empty(images ? images : "");
    cnn__idx x = { NULL, 0, 0, 0, { 1, 1, 1, 1 }, 0 }, y = x;
    cnn__text *error;
    if (!data->memory) return data;
    error = &data->memory->error;
    data->classes = classes;
    if (classes < 1)
        cnn__say(error, "cnn_load_idx: classes must be at least 1, as labels are 0 .. classes - 1, but is %d", classes);
    else if (cnn__read_idx(&x, images, 0, error) && cnn__read_idx(&y, labels, 1, error)) {
        if (y.sizes[0] != x.sizes[0])
            cnn__say(error, "%.200s has %d labels, but %.200s has %d images", labels, y.sizes[0], images, x.sizes[0]);
        cnn__take_images(data, &x);
        cnn__take_labels(data, &y, labels);
    }
    cnn__free(x.file);
    cnn__free(y.file);
    return cnn__data_complete(data, to, 0);
}

cnn_data *cnn_load_idx(const char *images, const char *labels, int classes)
{
    return cnn__load_idx(images, labels, classes, "");
}

typedef struct cnn__mnist {
    const char *call, *folders[4], *holds; const char *const *names;
    double least_zeros, most_zeros;         /* the share of its pixels that are 0, by which the two are told apart: */
} cnn__mnist;                               /* the files have the same names and sizes                              */

static const cnn__mnist cnn__mnists[2] = {
    { "cnn_load_mnist", { "", "/raw", "/MNIST/raw", "/mnist" }, "MNIST's digits", cnn__digit_names, 0.7, 1 },
    { "cnn_load_fashion_mnist", { "", "/raw", "/FashionMNIST/raw", "/fashion-mnist" }, "Fashion-MNIST's clothes",
      cnn__fashion_names, 0.45, 0.55 } };

/* Whether there is such a file, and its path */
static int cnn__has_file(char path[420], const char *directory, const char *folder, const char *file)
{
    cnn__snprintf(path, 420, "%.350s%s/%s", directory, folder, file);
    return cnn__exists(path);
}

/* The path of a split's images or labels: the first that exists of the names and folders that mirrors, torchvision and
   `make mnist` use, unpacked before packed; else the usual name, and opening it fails with a message. */
static void cnn__find_mnist(char path[420], const char *directory, const cnn__mnist *m, int test, const char *what)
{
    static const char *const stems[3] = { "train", "t10k", "test" };
    char name[40];
    int packed, f, stem, dot;
    for (packed = 0; packed < 2; packed++)
        for (f = 0; f < 4; f++)
            for (stem = test; stem <= 2 * test; stem++)
                for (dot = 0; dot < 2; dot++) {            /* train-images-idx3-ubyte, train-images.idx3-ubyte */
                    cnn__snprintf(name, sizeof name, "%s-%.6s%c%s%s", stems[stem], what, dot ? '.' : '-', what + 7,
                                  packed ? ".gz" : "");
                    if (!cnn__has_file(path, directory, m->folders[f], name)) continue;
                    if (packed) path[strlen(path) - 3] = 0;                /* cnn__read_idx finds it again */
                    return;
                }
    cnn__snprintf(path, 420, "%.350s/%s-%s", directory, stems[test], what);
}

static double cnn__share_of_zeros(const cnn_data *data)
{
    size_t all = (size_t)data->count * cnn__sample_values(data), i, zeros = 0;
    for (i = 0; i < all; i++) if (data->bytes ? !data->bytes[i] : data->floats[i] == 0) zeros++;
    return (double)zeros / (double)all;
}

static cnn_data *cnn__load_mnist(int which, const char *directory, const char *split)
{
    const cnn__mnist *m = &cnn__mnists[which], *other = &cnn__mnists[!which];
    char images[420], labels[420];
    cnn__text wrong = { "" };
    int test = cnn__split(m->call, split, &wrong);
    cnn_data *data;
    double zeros;
    if (!directory) directory = "(no folder)";
    if (test < 0) return cnn__data_in_error(directory, wrong.s);
    cnn__find_mnist(images, directory, m, test, "images-idx3-ubyte");
    cnn__find_mnist(labels, directory, m, test, "labels-idx1-ubyte");
    data = cnn__load_idx(images, labels, 10, " to cnn_load_idx, as it is another data set");
    if (data->memory) data->class_names = m->names;
    if (data->error) return data;
    zeros = cnn__share_of_zeros(data);
    if (zeros < other->least_zeros || zeros > other->most_zeros) return data;
    cnn__say(&data->memory->error, "%.200s holds %s, not %s, to judge by the share of pixels that are 0; the files "
             "have the same names. Any other data set: cnn_load_idx", data->name, other->holds, m->holds);
    return cnn__data_complete(data, NULL, 0);
}

cnn_data *cnn_load_mnist(const char *directory, const char *split) { return cnn__load_mnist(0, directory, split); }

cnn_data *cnn_load_fashion_mnist(const char *directory, const char *split)
{
    return cnn__load_mnist(1, directory, split);
}

/* ---- CIFAR, binary version (Krizhevsky 2009): each row has the labels and 3 x 32 x 32 bytes, red, green, blue ---- */

enum { CNN__CIFAR_VALUES = 3 * 32 * 32 };

typedef struct cnn__cifar {
    const char *call, *title, *folders[3];
    int labels, train_files; const char *files[6];         /* labels: bytes of each row; behind the files of the */
    const char *archive, *python[4];                       /* training split is the one of the test split        */
} cnn__cifar;                                              /* python: files of that version, which is not read   */

static const cnn__cifar cnn__cifar10 = {
    "cnn_load_cifar10", "CIFAR-10", { "", "/cifar-10-batches-bin", "/cifar-10" },
    1, 5, { "data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin",
            "test_batch.bin" },
    "cifar-10-binary.tar.gz",
    { "data_batch_1", "test_batch", "cifar-10-batches-py/test_batch", "cifar-10-python.tar.gz" } };
static const cnn__cifar cnn__cifar100 = {
    "cnn_load_cifar100", "CIFAR-100", { "", "/cifar-100-binary", "/cifar-100" },
    2, 1, { "train.bin", "test.bin", NULL, NULL, NULL, NULL },
    "cifar-100-binary.tar.gz",
    { "train", "test", "cifar-100-python/test", "cifar-100-python.tar.gz" } };

/* The folder below `directory` that has `file`; else "", and a message if there is something else. */
static const char *cnn__find_cifar(const cnn__cifar *c, const char *directory, const char *file, cnn__text *error)
{
    char path[420];
    int i;
    for (i = 0; i < 3; i++) if (cnn__has_file(path, directory, c->folders[i], file)) return c->folders[i];
    if (cnn__exists(directory))
        cnn__say(error, "%.200s is a file; unpack it (tar xf %.200s) and give the folder that comes out", directory,
                 directory);
    if (cnn__has_file(path, directory, "", c->archive))
        cnn__say(error, "%.200s is packed; unpack it: tar xf %.200s -C %.80s", path, path, directory);
    for (i = 0; i < 4; i++)
        if (cnn__has_file(path, directory, "", c->python[i]))
            cnn__say(error, "%.200s is of the Python version of %s; this reads the binary version, %s, from "
                            "https://www.cs.toronto.edu/~kriz/cifar.html", path, c->title, c->archive);
    return "";
}

/* Reads one file of `rows` rows into bytes and labels. which: the label byte of a row to take, 0 or 1 */
static void cnn__read_batch(const cnn__cifar *c, const char *path, int rows, int which, unsigned char *bytes,
                            int *labels, cnn__text *error)
{
    size_t row = (size_t)c->labels + CNN__CIFAR_VALUES, expected = row * (size_t)rows, size, i;
    unsigned char *file = cnn__read_file(path, &size, error);
    int good = file && size == expected;
    if (file && !good && !cnn__is_other_file(path, file, size, CNN__DATA, "a CIFAR batch", error))
        cnn__say(error, "%.300s: has %.0f bytes, but a %s batch has %.0f; is it a broken download?", path, (double)size,
                 c->title, (double)expected);
    for (i = 0; good && i < (size_t)rows; i++) {
        labels[i] = file[i * row + (size_t)which];
        memcpy(bytes + i * CNN__CIFAR_VALUES, file + i * row + c->labels, CNN__CIFAR_VALUES);
    }
    cnn__free(file);
}

static cnn_data *cnn__load_cifar(const cnn__cifar *c, const char *directory, const char *split, int which, int classes,
                                 const char *const *class_names)
{
    cnn_data *data = cnn__data_empty(directory ? directory : "(no folder)");
    cnn__text *error;
    const char *folder = "";
    char path[420];
    int test, first, files, rows, f, *labels;
    unsigned char *bytes;
    if (!data->memory) return data;
    error = &data->memory->error;
    test = cnn__split(c->call, split, error);
    first = test ? c->train_files : 0;
    files = test ? 1 : c->train_files;
    if (!error->s[0]) folder = cnn__find_cifar(c, data->name, c->files[first], error);
    if (error->s[0]) return cnn__data_complete(data, NULL, 0);
    data->count = test ? 10000 : 50000;
    rows = data->count / files;
    data->channels = 3; data->height = data->width = 32;
    data->classes = classes;
    data->class_names = class_names;
    data->bytes = bytes = (unsigned char *)cnn__data_alloc(data, (size_t)data->count, CNN__CIFAR_VALUES);
    data->labels = labels = (int *)cnn__data_alloc(data, (size_t)data->count, sizeof *labels);
    for (f = 0; f < files && !error->s[0]; f++, bytes += (size_t)rows * CNN__CIFAR_VALUES, labels += rows) {
        cnn__snprintf(path, sizeof path, "%.350s%s/%s", data->name, folder, c->files[first + f]);
        cnn__read_batch(c, path, rows, which, bytes, labels, error);
    }
    return cnn__data_complete(data, NULL, 0);
}

cnn_data *cnn_load_cifar10(const char *directory, const char *split)
{
    return cnn__load_cifar(&cnn__cifar10, directory, split, 0, 10, cnn__cifar10_names);
}

cnn_data *cnn_load_cifar100(const char *directory, const char *split, cnn_cifar100_labels labels)
{
    cnn__text wrong = { "" };
    if (labels == CNN_COARSE) return cnn__load_cifar(&cnn__cifar100, directory, split, 0, 20, cnn__cifar100_coarse);
    if (labels == CNN_FINE) return cnn__load_cifar(&cnn__cifar100, directory, split, 1, 100, cnn__cifar100_fine);
    cnn__say(&wrong, "cnn_load_cifar100: labels %d are neither CNN_FINE nor CNN_COARSE", (int)labels);
    return cnn__data_in_error("CIFAR-100", wrong.s);
}

/* ---- pictures: one folder a class, as torchvision's ImageFolder ---- */

#define CNN__PICTURES ".jpg .jpeg .png .ppm .bmp .pgm"

enum {
    CNN__MOST_PIXELS = 178956970,                          /* of a picture, as PIL */
    CNN__MOST_FOLDERS = 32,                                /* in one another, below a class */
    CNN__WEIGHT_BITS = 22                                  /* of a resampling weight, a fixed-point number, as PIL's */
};

static void cnn__free_files(cnn__files *list)
{
    while (list->count) cnn__free(list->at[--list->count].path);
    cnn__free(list->at);
    list->at = NULL;
}

static int cnn__is_folder(const char *path)
{
#ifdef CNN_NO_FILES
    (void)path;
    return 0;
#elif defined(_WIN32)
    wchar_t wide[CNN__PATH];
    struct _stat64 status;
    return !_wstat64(cnn__wide(path, wide), &status) && (status.st_mode & _S_IFMT) == _S_IFDIR;
#else
    struct stat status;
    return !stat(path, &status) && S_ISDIR(status.st_mode);
#endif
}

/* The names of all that is in a folder, each ended by 0. */
static void cnn__list_folder(cnn__bytes *names, const char *folder, cnn__text *error)
{
#ifdef CNN_NO_FILES
    (void)names;
    cnn__say(error, "%.300s: cannot be opened as a folder: compiled without files (CNN_NO_FILES)", folder);
#elif defined(_WIN32)
    wchar_t wide[CNN__PATH];
    struct _wfinddata64_t entry;
    char name[4 * 260];
    intptr_t search;
    if (wcslen(cnn__wide(folder, wide)) + 3 < CNN__PATH) wcscat(wide, L"/*");
    search = _wfindfirst64(wide, &entry);
    if (search == -1) cnn__say(error, "%.300s: cannot be opened as a folder: %s", folder, strerror(errno));
    else {
        do if (WideCharToMultiByte(65001, 0, entry.name, -1, name, sizeof name, NULL, NULL))
            cnn__put(names, name, strlen(name) + 1);
        while (!_wfindnext64(search, &entry));
        _findclose(search);
    }
#else
    DIR *directory = opendir(folder);
    struct dirent *entry;
    if (!directory) cnn__say(error, "%.300s: cannot be opened as a folder: %s", folder, strerror(errno));
    while (directory && (entry = readdir(directory))) cnn__put(names, entry->d_name, strlen(entry->d_name) + 1);
    if (directory) closedir(directory);
#endif
}

/* Lists the folders in `folder`, or (label >= 0) the pictures in it and in what lies below. */
static void cnn__find_files(cnn__files *list, const char *folder, int label, int depth, cnn__text *error)
{
    cnn__bytes names = { NULL, 0, 0, 0 };
    const char *name;
    size_t at, room;
    cnn__list_folder(&names, folder, error);
    for (at = 0; at < names.count && !names.failed && !error->s[0]; at += strlen(name) + 1) {
        cnn__file file = { NULL, 0 };
        int is_folder;
        name = (const char *)names.at + at;
        if (*name == '.') continue;                        /* a hidden file, this folder, the one above */
        room = strlen(folder) + strlen(name) + 2;
        list->at = (cnn__file *)cnn__grow(list->at, list->count, &list->room, sizeof file);
        file.path = list->count < list->room ? (char *)cnn__alloc_raw(room) : NULL;
        file.label = label;
        names.failed = !file.path;
        if (names.failed) break;
        cnn__snprintf(file.path, room, "%s/%s", folder, name);
        is_folder = cnn__is_folder(file.path);
        if (label < 0 ? is_folder : !is_folder && cnn__ends_in(name, CNN__PICTURES)) {
            list->at[list->count++] = file;
            continue;
        }
        if (is_folder && depth < CNN__MOST_FOLDERS) cnn__find_files(list, file.path, label, depth + 1, error);
        else if (is_folder)
            cnn__say(error, "%.300s: lies in more than %d folders; does a link lead back to one of them?", file.path,
                     depth);
        cnn__free(file.path);
    }
    if (names.failed) cnn__say(error, "%.300s: out of memory for the list of its files", folder);
    cnn__free(names.at);
}

/* As ImageFolder sorts: by the class, the folder, the name in it. */
static int cnn__by_path(const void *a, const void *b)
{
    const cnn__file *s = (const cnn__file *)a, *t = (const cnn__file *)b;
    const char *p = s->path, *q = t->path;
    size_t m = (size_t)(strrchr(p, '/') - p), n = (size_t)(strrchr(q, '/') - q);
    int order = s->label != t->label ? s->label - t->label : memcmp(p, q, m < n ? m : n);
    return order ? order : m != n ? (m < n ? -1 : 1) : strcmp(p + m, q + n);
}

/* Finds the class folders and the pictures of each, sorted; a message if there are none. */
static void cnn__find_images(cnn__files *classes, cnn__files *pictures, const char *folder, cnn__text *error)
{
    int c, before = 0;
    cnn__find_files(classes, folder, -1, 0, error);
    if (!classes->count)
        cnn__say(error, "%.300s: has no folder in it; each class needs one of its pictures, such as cat and dog",
                 folder);
    else qsort(classes->at, (size_t)classes->count, sizeof *classes->at, cnn__by_path);
    for (c = 0; c < classes->count && !error->s[0]; c++, before = pictures->count) {
        cnn__find_files(pictures, classes->at[c].path, c, 1, error);
        if (pictures->count == before)
            cnn__say(error, "%.300s: has no picture (" CNN__PICTURES "), and each folder is a class; put some into it, "
                     "or take it away", classes->at[c].path);
    }
    if (pictures->count) qsort(pictures->at, (size_t)pictures->count, sizeof *pictures->at, cnn__by_path);
}

/* ---- a picture: its file, decoded, upright, resized ---- */

/* Pixel (y, x) begins at first + y * down + x * right. */
typedef struct cnn__photo {
    unsigned char *pixels; int height, width, orientation;
    const unsigned char *first; ptrdiff_t down, right;
} cnn__photo;

/* Results of reading a picture. A broken file may be left out; that memory is missing is always an error. */
enum { CNN__NO_MEMORY = -1, CNN__BROKEN = 0, CNN__READ = 1 };

#ifdef STBI_INCLUDE_STB_IMAGE_H
/* Exif's orientation, 1 to 8: tag 0x0112 of the first directory of TIFF data. */
static int cnn__exif(const unsigned char *tiff, size_t size)
{
    uint64_t (*number)(const unsigned char *, int) = *tiff == 'I' ? cnn__little : cnn__big;
    uint64_t at = number(tiff + 4, 4), tags = at + 2 <= size ? number(tiff + at, 2) : 0, value;
    for (at += 2; tags && at + 12 <= size; tags--, at += 12)
        if (number(tiff + at, 2) == 0x0112) {
            value = number(tiff + at + 8, 2);
            return value >= 1 && value <= 8 ? (int)value : 1;
        }
    return 1;
}

/* A JPEG's segments up to its data (ITU-T T.81, annex B); in APP1 its orientation. Whether the data has an end, EOI. */
static int cnn__jpeg_ends(const unsigned char *file, size_t size, int *orientation)
{
    size_t at = 2, length;
    while (size - at > 4 && file[at] == 0xff && file[at + 1] != 0xda) {
        if (file[at + 1] == 0xff) { at++; continue; }      /* a marker may have more of them before it */
        length = 2 + (size_t)cnn__big(file + at + 2, 2);
        if (length > size - at) return 0;
        if (file[at + 1] == 0xe1 && length > 18 && !memcmp(file + at + 4, "Exif\0", 6))
            *orientation = cnn__exif(file + at + 10, length - 10);
        at += length;
    }
    for (; at + 1 < size; at++) if (file[at] == 0xff && file[at + 1] == 0xd9) return 1;
    return 0;
}

/* Where the pixels of a PPM or PGM begin: after "P6", width, height and the largest value. */
static size_t cnn__netpbm_header(const unsigned char *file, size_t size)
{
    size_t at = 2;
    int words = 0;
    while (words < 3 && at < size)
        if (file[at] == '#') while (at < size && file[at] != '\n') at++;
        else if (file[at] <= ' ') at++;
        else for (words++; at < size && file[at] > ' '; ) at++;
    return at + 1;
}

/* 1 if the file breaks off: stb_image makes a picture of what it has, and grey or chance of the rest. */
static int cnn__breaks_off(const unsigned char *file, size_t size, size_t bytes, int *orientation)
{
    if (size < 8) return 1;
    if (file[0] == 0xff && file[1] == 0xd8) return !cnn__jpeg_ends(file, size, orientation);
    if (file[0] == 'B' && file[1] == 'M') return cnn__little(file + 2, 4) > size;
    if (file[0] == 'P' && (file[1] == '5' || file[1] == '6')) return cnn__netpbm_header(file, size) + bytes > size;
    return 0;
}

/* Whether the head of the file is that of a picture that is read. Its pixels are not decoded. */
static int cnn__look_at(const char *path)
{
    size_t size;
    int height, width, channels, known;
#ifdef STBI_NO_STDIO                        /* then stb_image reads from memory alone */
    unsigned char *file = cnn__read_file(path, &size, NULL);
    if (!file) return cnn__exists(path) ? CNN__NO_MEMORY : CNN__BROKEN;
    known = stbi_info_from_memory(file, size < INT_MAX ? (int)size : INT_MAX, &width, &height, &channels);
    cnn__free(file);
#else
    FILE *file = cnn__open_to_read(path, &size, NULL);
    if (!file) return CNN__BROKEN;
    known = stbi_info_from_file(file, &width, &height, &channels);
    fclose(file);
#endif
    known = known && (int64_t)height * width > 1 && (int64_t)height * width <= CNN__MOST_PIXELS;
    return known ? CNN__READ : CNN__BROKEN;
}

/* pixels: (height, width, 3). Alpha is dropped, as PIL's convert("RGB") does; of 16 bits the upper 8 stay; CMYK becomes
   red = (255 - C) (255 - K) / 255, and so on. */
static int cnn__decode(cnn__photo *p, const char *path, const unsigned char *file, size_t size, cnn__text *error)
{
    const char *why;
    int channels, length = size < INT_MAX ? (int)size : INT_MAX;
    int known = stbi_info_from_memory(file, length, &p->width, &p->height, &channels);
    if (known && (int64_t)p->width * p->height > CNN__MOST_PIXELS)
        return cnn__say(error, "%.300s: has %d x %d pixels, and at most %d are read: make it smaller", path, p->height,
                        p->width, CNN__MOST_PIXELS);
    if (known && (int64_t)p->width * p->height <= 1)       /* stb_image lets a PPM have 0 rows */
        return cnn__say(error, "%.300s: has %d x %d pixel, which shows nothing: take it away", path, p->height,
                        p->width);
    if (known && cnn__breaks_off(file, size, (size_t)p->width * (size_t)p->height * (size_t)channels, &p->orientation))
        return cnn__say(error, "%.300s: breaks off before the end of its %d x %d pixels; get it again", path, p->height,
                        p->width);
    p->pixels = known ? stbi_load_from_memory(file, length, &p->width, &p->height, &channels, 3) : NULL;
    if (p->pixels) return CNN__READ;
    why = stbi_failure_reason();
    if (!why) why = "it does not say why";
    if (!strcmp(why, "outofmem") || !strcmp(why, "Out of memory")) {
        cnn__say(error, "%.300s: out of memory for its %d x %d pixels", path, p->height, p->width);
        return CNN__NO_MEMORY;
    }
    if (!cnn__is_other_file(path, file, size, CNN__PICTURE, "a picture that stb_image reads", error))
        cnn__say(error, "%.300s: stb_image cannot decode it: %s", path, size ? why : "it has 0 bytes");
    return CNN__BROKEN;
}

/* (height, width, 3) becomes (height, width): the luma of ITU-R 601-2 in 16 bits, as PIL's convert("L"). */
static void cnn__make_grey(cnn__photo *p)
{
    size_t count = (size_t)p->height * (size_t)p->width, i;
    const unsigned char *rgb = p->pixels;
    for (i = 0; i < count; i++, rgb += 3)
        p->pixels[i] = (unsigned char)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000) >> 16);
}

/* The pixels, of `bytes` each, stay as the camera had them; height, width and the way through them become the upright
   picture's. */
static void cnn__upright(cnn__photo *p, int bytes)
{
    int o = p->orientation, height = p->height;
    int from_below = o == 3 || o == 4 || o == 6 || o == 7, from_right = o == 2 || o == 3 || o == 7 || o == 8;
    ptrdiff_t row = (ptrdiff_t)bytes * p->width, down = from_below ? -row : row, right = from_right ? -bytes : bytes;
    p->first = p->pixels + (from_below ? row * (height - 1) : 0) + (from_right ? row - bytes : 0);
    p->down = o >= 5 ? right : down;                       /* from 5 on rows become columns */
    p->right = o >= 5 ? down : right;
    p->height = o >= 5 ? p->width : height;
    p->width = o >= 5 ? height : p->width;
}

/* Weights of one axis: `size` samples become `scaled`, of which `count` from `cut` on are wanted. An output is a mean
   of the inputs around its place, weighted by a triangle: 1 at the place, 0 one sample away (of the input or of the
   output, the larger). The table has *stride numbers an output: the first input, how many, their weights. */
static int *cnn__triangles(int size, int64_t scaled, int64_t cut, int count, size_t *stride)
{
    double scale = size / (double)scaled, reach = scale > 1 ? scale : 1, sum;
    int *table, *row, i, k;
    *stride = 2 * (size_t)ceil(reach) + 1 + 2;
    table = (int *)cnn__alloc((size_t)count, *stride * sizeof *table);
    for (i = 0, row = table; table && i < count; i++, row += *stride) {
        double middle = ((double)(cut + i) + 0.5) * scale;
        int first = (int)(middle - reach + 0.5), end = (int)(middle + reach + 0.5);
        if (first < 0) first = 0;
        if (end > size) end = size;
        row[0] = first;
        row[1] = end - first;
#define CNN__TRIANGLE(k) fmax(0, 1 - fabs((first + (k) - middle + 0.5) * (1 / reach)))
        for (sum = 0, k = 0; k < row[1]; k++) sum += CNN__TRIANGLE(k);
        for (k = 0; k < row[1]; k++) row[2 + k] = (int)(CNN__TRIANGLE(k) / sum * (1 << CNN__WEIGHT_BITS) + 0.5);
#undef CNN__TRIANGLE
    }
    return table;
}

/* The weighted sum of samples that lie `step` apart, in bytes again. row: of cnn__triangles */
static unsigned char cnn__weighted(const unsigned char *from, ptrdiff_t step, const int *row)
{
    int sum = 1 << (CNN__WEIGHT_BITS - 1), k;
    for (k = 0; k < row[1]; k++, from += step) sum += *from * row[2 + k];
    return (unsigned char)(sum >> CNN__WEIGHT_BITS);
}

/* Where a centre crop begins: int(round(more / 2)), which rounds a half to the even number. */
static int64_t cnn__half(int64_t more) { return more / 2 + (more & more / 2 & 1); }

/* to: (channels, o->height, o->width). torchvision's Resize of a PIL picture to the smallest size that covers the
   target, along rows and then along columns with bytes between, and CenterCrop. Only what the crop needs is calculated.
   (PIL 13 begins with the columns of a picture more than twice as high as wide, which may round to the next level.) */
static int cnn__resize(unsigned char *to, const cnn__photo *p, const cnn_image_options *o)
{
    int wider = (int64_t)o->width * p->height >= (int64_t)o->height * p->width;    /* it needs the larger scale */
    int64_t scaled_height = wider ? (int64_t)o->width * p->height / p->width : o->height;
    int64_t scaled_width = wider ? o->width : (int64_t)o->height * p->width / p->height;
    size_t xs, ys, width = (size_t)o->width, height = (size_t)o->height, values = width * (size_t)o->channels;
    size_t rows = 0, x, y;
    int *across = cnn__triangles(p->width, scaled_width, cnn__half(scaled_width - o->width), o->width, &xs), c;
    int *down = cnn__triangles(p->height, scaled_height, cnn__half(scaled_height - o->height), o->height, &ys);
    const int *row = down ? down + (height - 1) * ys : NULL;
    unsigned char *part = NULL, *next = NULL;              /* (rows, o->width, channels) */
    if (down) rows = (size_t)(row[0] + row[1] - down[0]);
    if (across && down) part = next = (unsigned char *)cnn__alloc(rows, values);
    for (y = 0; part && y < rows; y++)
        for (x = 0, row = across; x < width; x++, row += xs)
            for (c = 0; c < o->channels; c++)
                *next++ = cnn__weighted(p->first + (down[0] + (ptrdiff_t)y) * p->down + row[0] * p->right + c,
                                        p->right, row);
    for (c = 0; part && c < o->channels; c++)
        for (y = 0, row = down; y < height; y++, row += ys)
            for (x = 0; x < width; x++)
                *to++ = cnn__weighted(part + (size_t)(row[0] - down[0]) * values + x * (size_t)o->channels + (size_t)c,
                                      (ptrdiff_t)values, row);
    cnn__free(across);
    cnn__free(down);
    cnn__free(part);
    return part != NULL;
}

/* to: (channels, height, width) of the options. error: NULL where only the result is asked for */
static int cnn__read_image(unsigned char *to, const char *path, const cnn_image_options *o, cnn__text *error)
{
    cnn__photo p = { NULL, 0, 0, 1, NULL, 0, 0 };
    size_t size;
    unsigned char *file = cnn__read_file(path, &size, error);
    int result;
    if (!file) return cnn__exists(path) ? CNN__NO_MEMORY : CNN__BROKEN;
    result = cnn__decode(&p, path, file, size, error);
    cnn__free(file);
    if (result != CNN__READ) return result;
    if (o->channels == 1) cnn__make_grey(&p);
    cnn__upright(&p, o->channels);
    if (!cnn__resize(to, &p, o)) {
        cnn__say(error, "%.300s: out of memory for its %d x %d pixels", path, p.height, p.width);
        result = CNN__NO_MEMORY;
    }
    stbi_image_free(p.pixels);
    return result;
}
#else
static int cnn__look_at(const char *path) { (void)path; return CNN__BROKEN; }

static int cnn__read_image(unsigned char *to, const char *path, const cnn_image_options *o, cnn__text *error)
{
    (void)to; (void)path; (void)o; (void)error;
    return CNN__BROKEN;
}
#endif

/* ---- a data set of pictures ---- */

static const cnn__field cnn__image_fields[] = {
    CNN__INT(cnn_image_options, height, 0), CNN__INT(cnn_image_options, width, 0),
    CNN__INT(cnn_image_options, channels, 3), CNN__INT(cnn_image_options, skip_broken, 0),
    CNN__INT(cnn_image_options, keep, 1)
};

/* A data set that has no samples so far, or is in error. */
static cnn_data *cnn__images_new(const char *call, const char *path, cnn_image_options *o)
{
    cnn_data *data = cnn__data_empty(path ? path : "(no path)");
    cnn__text *error;
    if (!data->memory) return data;
    error = &data->memory->error;
    CNN__OPTIONS(o, cnn__image_fields, call, error);
    if (o->height < 1 || o->width < 1 || (o->channels != 1 && o->channels != 3)
        || (double)o->channels * o->height * o->width > INT_MAX)
        cnn__say(error, "%s: samples of %d x %d x %d are not possible; .height and .width must be at least 1, and "
                        ".channels 3 (colour) or 1 (grey)", call, o->channels, o->height, o->width);
#ifndef STBI_INCLUDE_STB_IMAGE_H
    cnn__say(error, "%s: the program must include stb_image.h, which decodes pictures, before cnn.h: "
                    "#define STB_IMAGE_IMPLEMENTATION, #include <stb_image.h> (Debian: libstb-dev)", call);
#endif
    if (!path) cnn__say(error, "%s: there is no path, only NULL", call);
    data->channels = o->channels; data->height = o->height; data->width = o->width;
    return error->s[0] ? cnn__data_complete(data, NULL, 0) : data;
}

typedef struct cnn__images_job { const cnn__data_memory *m; unsigned char *bytes; int *result, first; } cnn__images_job;

static void cnn__image_piece(void *arguments, int piece, int thread)
{
    const cnn__images_job *job = (const cnn__images_job *)arguments;
    const cnn_image_options *o = &job->m->image;
    int i = job->first + piece;
    const char *path = job->m->files.at[i].path;
    size_t values = cnn__sample_values(&job->m->data);
    (void)thread;
    if (!o->keep) job->result[i] = cnn__look_at(path);
    else job->result[i] = cnn__read_image(job->bytes + (size_t)i * values, path, o, NULL);
}

/* Reads all files, some at a time on all threads. What could not be read is left out, or read once more for its
   message: so the first broken file is named, however many threads there are. The files used come to the front. */
static void cnn__read_images(cnn_data *data, int threads)
{
    cnn__images_job job;
    cnn__text *error = &data->memory->error;
    const cnn_image_options *o = &data->memory->image;
    size_t values = cnn__sample_values(data);
    int count = data->memory->files.count, i, next, *labels;
    unsigned char *bytes;
    cnn__file *files = data->memory->files.at;
    data->labels = labels = (int *)cnn__data_alloc(data, (size_t)count, sizeof *labels);
    data->bytes = bytes = (unsigned char *)cnn__data_alloc(data, o->keep ? (size_t)count : 1, values);
    job.m = data->memory;
    job.bytes = bytes;
    job.result = labels;                    /* each is read before a label is put into its place */
    cnn__open_pool(threads);
    for (job.first = 0; job.first < count && !error->s[0]; job.first = next) {
        next = count - job.first < 16 * threads ? count : job.first + 16 * threads;
        cnn__parallel(threads, next - job.first, cnn__image_piece, &job);
        for (i = job.first; i < next; i++) {
            unsigned char *sample = bytes + (o->keep ? (size_t)i * values : 0);
            cnn__file file = files[i];
            if (job.result[i] == CNN__BROKEN && o->skip_broken) {
                data->skipped++;
                if (o->progress) cnn__fprintf(o->progress, "%s: left out\n", file.path);
                continue;
            }
            if (job.result[i] != CNN__READ && cnn__read_image(sample, file.path, o, error) != CNN__READ) break;
            if (o->keep) memmove(bytes + (size_t)data->count * values, sample, values);
            files[i] = files[data->count];
            files[data->count] = file;
            labels[data->count++] = file.label;
        }
        if (o->progress && (int)(10.0 * job.first / count) < (int)(10.0 * next / count)) {
            cnn__fprintf(o->progress, "%s: %d of %d pictures\n", data->name, next, count);
            fflush(o->progress);
        }
    }
    cnn__close_pool();
}

/* Reads a sample that is not in memory. With error, it is one that could not be read: a picture is tried once more, for
   its message, and 1 if it can be read now. */
static int cnn__read_sample(const cnn__data_memory *m, int sample, unsigned char *bytes, cnn__text *error)
{
    for (; m->from; m = m->from) sample = m->order[sample];                /* of the data set that was split */
    if (m->files.count) return cnn__read_image(bytes, m->files.at[sample].path, &m->image, error) == CNN__READ;
    if (!error) return m->data.read(m->data.user, sample, bytes);
    return cnn__say(error, "%s: sample %d cannot be read: its .read returned 0", m->name.s, sample);
}

static int cnn__read_from(void *memory, int sample, unsigned char *bytes)  /* cnn_data.read of pictures and splits */
{
    return cnn__read_sample((const cnn__data_memory *)memory, sample, bytes, NULL);
}

static cnn_data *cnn__load_images(const char *folder, cnn_image_options o, int threads)
{
    cnn_data *data = cnn__images_new("cnn_load_images", folder, &o);
    cnn__data_memory *m = data->memory;
    int c, i;
    if (data->error) return data;
    m->image = o;
    cnn__find_images(&m->folders, &m->files, folder, &m->error);
    data->classes = m->folders.count;
    data->class_names = m->names = (const char **)cnn__data_need(data, (size_t)data->classes, sizeof *m->names);
    for (c = 0; m->names && c < data->classes; c++) m->names[c] = strrchr(m->folders.at[c].path, '/') + 1;
    if (!m->error.s[0]) cnn__read_images(data, threads);
    for (c = i = 0; i < data->count; i++) if (data->labels[i] == c) c++;
    if (c < data->classes)
        cnn__say(&m->error, "%.300s: none of its pictures can be read, and each folder is a class; mend them, or take "
                            "it away", m->folders.at[c].path);
    if (o.keep) cnn__free_files(&m->files);
    else {
        data->bytes = NULL;
        data->read = cnn__read_from; data->user = m;
    }
    return cnn__data_complete(data, NULL, 0);
}

cnn_data *cnn_load_images_with(const char *folder, cnn_image_options o)
{
    return cnn__load_images(folder, o, cnn_num_threads(NULL));
}

cnn_data *cnn_load_image_with(const char *path, cnn_image_options o)
{
    cnn_data *data = cnn__images_new("cnn_load_image", path, &o);
    unsigned char *bytes;
    if (data->error) return data;
    data->count = 1;
    data->bytes = bytes = (unsigned char *)cnn__data_alloc(data, 1, cnn__sample_values(data));
    if (bytes) cnn__read_image(bytes, path, &o, &data->memory->error);
    return cnn__data_complete(data, NULL, 0);
}

/* ---- splitting a data set ---- */

/* Rows order[0 .. count-1] of an array, of `size` bytes each; NULL if there is no such array. */
static void *cnn__pick_rows(cnn_data *data, const void *from, size_t size, const int *order, int count)
{
    unsigned char *rows = from ? (unsigned char *)cnn__data_alloc(data, (size_t)count, size) : NULL;
    int i;
    for (i = 0; rows && i < count; i++)
        memcpy(rows + (size_t)i * size, (const unsigned char *)from + (size_t)order[i] * size, size);
    return rows;
}

/* A new data set of the samples order[0 .. count-1]. */
static cnn_data *cnn__data_pick(const cnn_data *from, const int *order, int count)
{
    cnn_data *data = cnn__data_empty(from->name);
    size_t values = cnn__sample_values(from);
    cnn__data_memory *m = data->memory;
    if (!m) return data;
    data->count = count;
    data->channels = from->channels; data->height = from->height; data->width = from->width;
    data->outputs = from->outputs; data->class_names = from->class_names;
    data->classes = from->class_names ? from->memory->classes : from->classes;     /* as many as there are names */
    m->from = cnn__data_keep(from);                        /* it holds the names of pictures' classes */
    data->bytes = (unsigned char *)cnn__pick_rows(data, from->bytes, values, order, count);
    data->floats = (float *)cnn__pick_rows(data, from->floats, values * sizeof(float), order, count);
    data->labels = (int *)cnn__pick_rows(data, from->labels, sizeof(int), order, count);
    data->targets = (float *)cnn__pick_rows(data, from->targets, (size_t)from->outputs * sizeof(float), order, count);
    if (from->read) {
        data->read = cnn__read_from; data->user = m;
        m->order = (int *)cnn__data_need(data, (size_t)count, sizeof *order);
        if (m->order) memcpy(m->order, order, (size_t)count * sizeof *order);
    }
    cnn__data_complete(data, "", 1);
    if (data->error) return data;
    memcpy(m->scale, from->scale, (size_t)data->channels * sizeof *m->scale);
    memcpy(m->scale + data->channels, from->shift, (size_t)data->channels * sizeof *m->scale);
    return data;
}

void cnn_random_split(const cnn_data *data, int count, uint64_t seed, cnn_data **first, cnn_data **second)
{
    cnn__text wrong = { "" };
    int *order = NULL, i;
    cnn__take_over(&wrong, data->error);
    if (cnn__usable_count(&wrong, "cnn_random_split", data) && (count < 1 || count >= data->count))
        cnn__say(&wrong, "cnn_random_split: cannot take %d of %d samples; at least 1 must be on each side", count,
                 data->count);
    if (!wrong.s[0] && !(order = (int *)cnn__alloc((size_t)data->count, sizeof *order)))
        cnn__say(&wrong, "cnn_random_split: out of memory for the order of %d samples", data->count);
    for (i = 0; order && i < data->count; i++) order[i] = i;
    if (order) cnn__shuffle(order, data->count, seed, CNN__STREAM_SPLIT, 0);
    *first = order ? cnn__data_pick(data, order + count, data->count - count) : cnn__data_in_error(data->name, wrong.s);
    *second = order ? cnn__data_pick(data, order, count) : cnn__data_in_error(data->name, wrong.s);
    cnn__free(order);
}

/* ---- the loader ---- */

struct cnn_loader {
    const cnn_data *data;
    cnn_loader_options options;
    int *order;
    int count;                              /* of samples                                                */
    int epoch, at;                          /* the current epoch, and its samples so far                 */
    int begun;
    cnn__text error;
    cnn_data own;                           /* of its batches: in error an empty one with the message; or
                                               the data set, augmented or read                            */
    cnn__reading reading[2];                /* of the epoch's even batches, and of its odd ones          */
};

static const cnn__field cnn__loader_fields[] = {
    CNN__INT(cnn_loader_options, batch_size, 1), CNN__INT(cnn_loader_options, shuffle, 0),
    CNN__INT(cnn_loader_options, drop_last, 0), CNN__AUGMENT(cnn_loader_options),
    { "seed", offsetof(cnn_loader_options, seed), 'u', 0, -1 }
};

static int cnn__loader_fits(const char *call, const cnn_data *data, const cnn_loader_options *o, cnn__text *error)
{
    const cnn_augment_options *a = &o->augment;
    int side;
    if (!data)
        return cnn__say(error, "%s: there is no data set, only NULL; load one, or make one with cnn_data_new", call);
    if (data->error) return cnn__take_over(error, data->error);
    side = data->height < data->width ? data->height : data->width;
    cnn__usable_count(error, call, data);
    if (o->batch_size < 1) cnn__say(error, "%s: batch_size must be at least 1, not %d", call, o->batch_size);
    if (o->drop_last && o->batch_size > data->count)
        cnn__say(error, "%s: %d samples do not fill one batch of %d; use a smaller batch_size, or keep the incomplete "
                        "last batch", call, data->count, o->batch_size);
    if (a->padding < 0 || a->padding >= side)
        cnn__say(error, "%s: .augment.padding is %d, but must be from 0 to %d, so that a crop of the %d x %d samples "
                        "still meets the picture", call, a->padding, side - 1, data->height, data->width);
    if (a->rotation < 0 || a->rotation > 180)
        cnn__say(error, "%s: .augment.rotation is %g, but must be from 0 to 180 degrees", call, (double)a->rotation);
    if (a->scale < 0 || a->scale >= 1)
        cnn__say(error, "%s: .augment.scale is %g, but must be from 0 to below 1: 0.1 is 0.9 to 1.1 times as large",
                 call, (double)a->scale);
    return !error->s[0];
}

static cnn_loader *cnn__deal(const char *call, const cnn_data *data, cnn_loader_options o)
{
    cnn_loader *loader = (cnn_loader *)cnn__alloc(1, sizeof *loader);
    if (!loader) {
        CNN_ON_ERROR(cnn_loader_error(NULL));
        return NULL;
    }
    CNN__OPTIONS(&o, cnn__loader_fields, call, &loader->error);
    loader->data = data;
    loader->options = o;
    if (cnn__loader_fits(call, data, &o, &loader->error)) {
        loader->count = data->count;
        loader->order = (int *)cnn__alloc((size_t)loader->count + 1, sizeof *loader->order);
        if (!loader->order) cnn__say(&loader->error, "out of memory for the order of %d samples", data->count);
        else loader->order[loader->count] = -1;            /* is no sample: shows that batch.size was set too high */
    }
    loader->own.error = cnn_loader_error(loader);
    return loader;
}

cnn_loader *cnn_loader_new_with(const cnn_data *data, cnn_loader_options o)
{
    return cnn__deal("cnn_loader_new", data, o);
}

const char *cnn_loader_error(const cnn_loader *loader)
{
    if (!loader) return "out of memory for the loader";
    return loader->error.s[0] ? loader->error.s : NULL;
}

void cnn_set_epoch(cnn_loader *loader, int epoch)
{
    if (!loader) return;
    loader->epoch = epoch;
    loader->begun = 0;
}

int cnn_batches(const cnn_loader *loader)
{
    if (cnn_loader_error(loader)) return 0;
    return loader->count / loader->options.batch_size
        + (!loader->options.drop_last && loader->count % loader->options.batch_size);
}

static int cnn__next_size(const cnn_loader *loader)        /* of the next batch; 0 at the end of the epoch */
{
    int left = loader->count - loader->at, size = loader->options.batch_size;
    return left >= size ? size : loader->options.drop_last ? 0 : left;
}

static void cnn__stop_reading(cnn__reading *r)
{
    if (r->size && !r->done) cnn__drop_job(&r->job);
    r->size = 0;
}

int cnn_next(cnn_loader *loader, cnn_batch *batch)
{
    int i;
    memset(batch, 0, sizeof *batch);
    if (!loader) return 0;
    if (loader->own.error) {
        batch->data = &loader->own;
        return loader->begun = !loader->begun;
    }
    if (!loader->begun) {
        for (i = 0; i < 2; i++) cnn__stop_reading(&loader->reading[i]);
        for (i = 0; i < loader->count; i++) loader->order[i] = i;
        if (loader->options.shuffle)
            cnn__shuffle(loader->order, loader->count, loader->options.seed, CNN__STREAM_SHUFFLE,
                         (uint64_t)loader->epoch);
        loader->at = 0;
        loader->begun = 1;
    }
    batch->size = cnn__next_size(loader);
    if (!batch->size) {
        cnn_set_epoch(loader, loader->epoch < INT_MAX ? loader->epoch + 1 : 0);
        return 0;
    }
    batch->data = loader->data;
    if (cnn__augments(&loader->options.augment) || loader->data->read) {
        loader->own = *loader->data;
        loader->own.dealt_by = loader;
        batch->data = &loader->own;
    }
    batch->order = loader->order + loader->at;
    loader->at += batch->size;
    return 1;
}

static cnn_augment_options cnn__augmentation(const cnn_loader *loader, uint64_t *seed, uint64_t *epoch)
{
    *seed = loader->options.seed;
    *epoch = (uint64_t)loader->epoch;
    return loader->options.augment;
}

static void cnn__read_piece(void *arguments, int n, int thread)
{
    const cnn__reading *r = (const cnn__reading *)arguments;
    (void)thread;
    r->bytes[(size_t)r->size * r->values + (size_t)n] =
        r->read(r->user, r->order[n], r->bytes + (size_t)n * r->values) != 0;
}

/* The pool's workers begin, unless they have already; whoever needs the samples ends the job, and takes part in it. */
static int cnn__start_reading(cnn_net *net, cnn__reading *r, const cnn_data *data, const int *order, int size)
{
    size_t bytes;
    if (r->size == size && r->order == order) return 1;
    cnn__stop_reading(r);
    r->values = cnn__size(net->input);
    if (!cnn__mul(&bytes, r->values + 1, (size_t)size)) bytes = (size_t)-1;
    if (bytes > r->room) {
        cnn__free(r->bytes);
        r->bytes = (unsigned char *)cnn__alloc_raw(bytes);
        r->room = r->bytes ? bytes : 0;
        if (!r->bytes) return cnn__fail(net, "out of memory: a batch of samples needs %.1f MB", (double)bytes / 1e6);
    }
    r->read = data->read; r->user = data->user;
    r->order = order; r->size = size;
    r->done = 0;
    cnn__begin_job(&r->job, cnn_num_threads(net), size, cnn__read_piece, r, data->memory);
    return 1;
}

/* While the network computes a batch, the one that its loader deals next is read. */
static const unsigned char *cnn__read_samples(cnn_net *net, const cnn_batch *batch)
{
    const cnn_data *data = batch->data;
    cnn_loader *loader = data->dealt_by;
    cnn__reading *r = &net->reading;
    int n, odd, next;
    if (loader && batch->order + batch->size != loader->order + loader->at) loader = NULL;       /* not dealt last */
    odd = loader ? (int)(batch->order - loader->order) / loader->options.batch_size % 2 : 0;
    if (loader) r = &loader->reading[odd];
    else cnn__stop_reading(r);                             /* what stands in its order may have changed */
    if (!cnn__start_reading(net, r, data, batch->order, batch->size)) return NULL;
    if (!r->done) cnn__end_job(&r->job);
    r->done = 1;
    for (n = 0; n < r->size; n++)
        if (!r->bytes[(size_t)r->size * r->values + (size_t)n]
            && !cnn__read_sample(data->memory, r->order[n], r->bytes + (size_t)n * r->values, &net->error)) {
            r->size = 0;
            return NULL;
        }
    next = loader ? cnn__next_size(loader) : 0;
    if (next && !cnn__start_reading(net, &loader->reading[!odd], data, loader->order + loader->at, next)) return NULL;
    return r->bytes;
}

/* cnn_next and cnn_forward for a loader that only this network uses: the order of a whole epoch is uploaded at once */
static int cnn__forward_next(cnn_net *net, cnn_loader *loader, cnn_batch *batch)
{
    if (!cnn_next(loader, batch)) return 0;
    if (batch->order == loader->order && !cnn__stopped(net))
        cnn__send_order(net, loader->order, loader->count);
    cnn__forward(net, batch, 1);
    return 1;
}

void cnn_loader_free(cnn_loader *loader)
{
    int i;
    if (!loader) return;
    for (i = 0; i < 2; i++) {
        cnn__stop_reading(&loader->reading[i]);
        cnn__free(loader->reading[i].bytes);
    }
    cnn__free(loader->order);
    cnn__free(loader);
}

/* ============================================================================================
   >>file   Saving and loading weights and checkpoints. A state dict is a list of named tensors,
            cnn__stored; each format, .safetensors and PyTorch's .pth, turns the list into bytes and
            back. A checkpoint is a .safetensors file with the rest of the training's state. Every
            number in a file is checked before it is used, and the network changes only when all fits.
   ============================================================================================ */

/* ---- writing a file: afterwards the path has the old contents or the new, complete ----

   The contents go to a temporary file in the same directory, which is flushed to the disk and renamed. Its name differs
   from save to save and must be new (O_EXCL): two programs that save to one path do not write to one file, and a link
   that somebody put there is not followed. A symbolic link is kept, and the file it points to is replaced. A pipe or
   device cannot be replaced and is written to directly: part is "". */

#ifdef CNN_NO_FILES
typedef struct cnn__writer { FILE *file; } cnn__writer;

static int cnn__begin_file(cnn__writer *w, const char *path, cnn__text *error)
{
    w->file = NULL;
    return cnn__say(error, "%.300s: cannot be written: compiled without files (CNN_NO_FILES)",
                    path ? path : "(no path)");
}

static void cnn__abandon_file(cnn__writer *w) { (void)w; }
static int cnn__end_file(cnn__writer *w, cnn__text *error) { (void)w; (void)error; return 0; }
#else

typedef struct cnn__writer { FILE *file; char path[CNN__PATH], part[CNN__PATH]; } cnn__writer;

#ifdef _WIN32
static int cnn__flush_file(FILE *file) { return !fflush(file) && !_commit(_fileno(file)); }

static int cnn__renamed(const char *part, const char *path, cnn__text *why)
{
    wchar_t from[CNN__PATH], to[CNN__PATH];
    unsigned long code = 0, length;
    int tries;
    cnn__wide(part, from);
    cnn__wide(path, to);
    for (tries = 0; tries < 200; tries++) {                /* for two seconds */
        if (MoveFileExW(from, to, 1 | 8)) return 1;        /* 1: replace the file; 8: return when it is on the disk */
        code = GetLastError();
        if (code != 5 && code != 32) break;                /* 5, 32: another program has the file open */
        Sleep(10);
    }
    length = FormatMessageA(0x1000 | 0x200, NULL, code, 0, why->s, sizeof why->s, NULL);   /* errno is not set */
    while (length && (unsigned char)why->s[length - 1] <= ' ') length--;
    why->s[length] = 0;
    if (!length) cnn__snprintf(why->s, sizeof why->s, "Windows error %lu", code);
    return 0;
}

static void cnn__remove(const char *path)
{
    wchar_t wide[CNN__PATH];
    _wremove(cnn__wide(path, wide));
}

/* What the path is: a regular file (returns its mode), nothing (0), or something else (-1). */
static int cnn__follow(char path[CNN__PATH], int *descriptor)
{
    wchar_t wide[CNN__PATH];
    struct _stat64 status;
    (void)descriptor;
    if (_wstat64(cnn__wide(path, wide), &status)) return 0;
    return (status.st_mode & _S_IFMT) == _S_IFREG ? status.st_mode & 0777 : -1;
}
#else
static int cnn__flush_file(FILE *file) { return !fflush(file) && !fsync(fileno(file)); }

static int cnn__renamed(const char *part, const char *path, cnn__text *why)
{
    if (!rename(part, path)) return 1;
    cnn__snprintf(why->s, sizeof why->s, "%.400s", strerror(errno));
    return 0;
}

static void cnn__remove(const char *path) { remove(path); }

/* Replaces the path by what its symbolic links point to, which need not exist: a regular file (returns its mode),
   nothing (0), or something else (-1). A descriptor of this process (/dev/stdout is a link to /proc/self/fd/1) is
   duplicated, so that the new output follows what was written to it before. */
static int cnn__follow(char path[CNN__PATH], int *descriptor)
{
    char target[CNN__PATH], *name;
    struct stat status;
    ssize_t length;
    int links, d;
    for (links = 0; links < 40; links++) {
        char more;
        if (sscanf(path, "/proc/self/fd/%d%c", &d, &more) == 1 || sscanf(path, "/dev/fd/%d%c", &d, &more) == 1) {
            if (d == 1) fflush(stdout);                    /* output that was printed before comes first */
            *descriptor = dup(d);
            return -1;
        }
        length = readlink(path, target, sizeof target - 1);
        if (length < 0) break;                             /* not a link */
        target[length] = 0;
        name = strrchr(path, '/');
        name = *target == '/' || !name ? path : name + 1;  /* a target is relative to the link's directory */
        if ((size_t)(name - path) + (size_t)length >= CNN__PATH) break;
        strcpy(name, target);
    }
    if (stat(path, &status)) return errno == ENOENT ? 0 : -1;      /* -1: opening it will fail and say why */
    return S_ISREG(status.st_mode) ? (int)(status.st_mode & 07777) | 1 << 16 : -1;
}
#endif

static int cnn__begin_file(cnn__writer *w, const char *path, cnn__text *error)
{
    const char *name;
    int mode, d = -1, tries;
    if (!path || strlen(path) >= sizeof w->path - 32)
        return cnn__say(error, "a path may have at most %d characters", (int)sizeof w->path - 33);
    strcpy(w->path, path);
    w->part[0] = 0;
    w->file = NULL;
    errno = 0;
    mode = cnn__follow(w->path, &d);
    name = strrchr(w->path, '/') ? strrchr(w->path, '/') + 1 : w->path;
    if (mode < 0 && d < 0) d = cnn__open(w->path, O_WRONLY, 0);
    for (tries = 0; mode >= 0 && d < 0 && tries < 100 && (!tries || errno == EEXIST); tries++) {
        uint64_t seed = (uint64_t)time(NULL) << 20 ^ (uint64_t)clock(), address = (uint64_t)(uintptr_t)&address;
        uint32_t word = cnn__word(seed, (uint32_t)getpid(), address, (size_t)tries);       /* need not be secret */
        cnn__snprintf(w->part, sizeof w->part, "%.*s%.200s.%08x.part", (int)(name - w->path), w->path, name,
                      (unsigned)word);
        d = cnn__open(w->part, O_WRONLY | O_CREAT | O_EXCL, mode ? mode & 0777 : 0666);
    }
#ifndef _WIN32
    if (d >= 0 && mode > 0) fchmod(d, (mode_t)(mode & 07777));     /* as the old file: open() applied the umask */
#endif
    if (d >= 0 && !(w->file = fdopen(d, "wb"))) {
        close(d);
        if (w->part[0]) cnn__remove(w->part);
    }
    if (!w->file) cnn__say(error, "%.300s: cannot be written: %s", path, strerror(errno));
    return w->file != NULL;
}

static void cnn__abandon_file(cnn__writer *w)              /* keeps the old file */
{
    fclose(w->file);
    if (w->part[0]) cnn__remove(w->part);
}

/* Flushes the new name to the disk: 1, or 0 and errno. EINVAL: the file system cannot flush directories. */
static int cnn__flush_directory(const char *path)
{
#ifdef _WIN32
    (void)path;                                            /* MoveFileExW has flushed it */
    return 1;
#else
    char directory[CNN__PATH];
    const char *slash = strrchr(path, '/');
    int d, good, cause;
    cnn__snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    d = cnn__open(directory, O_RDONLY, 0);
    if (d < 0) return errno == EACCES;                     /* the directory can be written to but not opened */
    good = !fsync(d) || errno == EINVAL;
    cause = errno;
    close(d);
    errno = cause;                                         /* for the message */
    return good;
#endif
}

static int cnn__end_file(cnn__writer *w, cnn__text *error)
{
    cnn__text why;
    int part = w->part[0] != 0, good = !ferror(w->file) && (part ? cnn__flush_file(w->file) : !fflush(w->file));
    int cause = errno;
    if (fclose(w->file) && good) good = 0, cause = errno;
    cnn__snprintf(why.s, sizeof why.s, "%.400s", strerror(cause));
    if (part && good) good = cnn__renamed(w->part, w->path, &why);
    if (part && !good) cnn__remove(w->part);
    if (!good)
        return cnn__say(error, "%.300s: cannot be written: %.150s%s", w->path, why.s,
                        part ? "; what was there before is unchanged" : "");
    if (!part || cnn__flush_directory(w->path)) return 1;
    return cnn__say(error, "%.300s: is written, but its directory cannot be flushed to the disk: %s; a power failure "
                           "may undo it", w->path, strerror(errno));
}
#endif

/* ---- numbers and text at the end of an array; in all these formats numbers have their lowest byte first ---- */

static void cnn__put_number(cnn__bytes *b, uint64_t number, int bytes)
{
    unsigned char lowest;
    for (; bytes--; number >>= 8) {
        lowest = (unsigned char)number;
        cnn__put(b, &lowest, 1);
    }
}

static void cnn__print(cnn__bytes *b, const char *format, ...) CNN__PRINTF(2, 3);
static void cnn__print(cnn__bytes *b, const char *format, ...)             /* up to 511 characters */
{
    cnn__text text;
    va_list arguments;
    va_start(arguments, format);
    cnn__vsnprintf(text.s, sizeof text.s, format, arguments);
    va_end(arguments);
    cnn__put(b, text.s, strlen(text.s));
}

/* ---- a state dict ---- */

typedef struct cnn__dtype { const char *name, *storage; unsigned bits; } cnn__dtype;

static const cnn__dtype cnn__dtypes[] = {                  /* name in .safetensors, in .pth, bits of a value */
    { "F32", "torch.FloatStorage", 32 }, { "F64", "torch.DoubleStorage", 64 }, { "F16", "torch.HalfStorage", 16 },
    { "BF16", "torch.BFloat16Storage", 16 },               /* these four are read, and I64 for counts; others skipped */
    { "I64", "torch.LongStorage", 64 }, { "I32", "torch.IntStorage", 32 }, { "I16", "torch.ShortStorage", 16 },
    { "I8", "torch.CharStorage", 8 }, { "U8", "torch.ByteStorage", 8 }, { "BOOL", "torch.BoolStorage", 8 },
    { "C64", "torch.ComplexFloatStorage", 64 }, { "U64", "", 64 }, { "U32", "", 32 }, { "U16", "", 16 },
    { "F8_E5M2", "", 8 }, { "F8_E4M3", "", 8 }, { "F8_E8M0", "", 8 }, { "F8_E4M3FNUZ", "", 8 },
    { "F8_E5M2FNUZ", "", 8 }, { "F6_E2M3", "", 6 }, { "F6_E3M2", "", 6 }, { "F4", "", 4 },
    { "an unknown type", "", 8 }                           /* the last */
};
enum { CNN__F32, CNN__F64, CNN__F16, CNN__BF16, CNN__I64, CNN__UNKNOWN = sizeof cnn__dtypes / sizeof *cnn__dtypes - 1 };
enum { CNN__DIMS = 8 };                     /* sizes kept of a tensor: no layer has a tensor with more   */

typedef struct cnn__stored {                /* a tensor in a file                                        */
    const char *key, *prefix;               /* written as prefix and key; read as key alone              */
    const cnn__dtype *dtype;
    int ndim; size_t shape[CNN__DIMS], stride[CNN__DIMS], count;
    const unsigned char *data; size_t bytes, begin;        /* its storage; .safetensors: where that begins */
    size_t first;                           /* its first value in that storage                           */
    const char *entry; size_t dict;         /* .pth: the storage's name; the dict that has the key       */
    const cnn__tensor *of; int block;       /* the network's, or NULL; its block, -1: of another shape   */
} cnn__stored;

typedef struct cnn__state {                 /* a file that is being read or written                      */
    const char *path; cnn__text *error; const cnn_net *net;
    cnn__stored *tensors; int count, room;  /* what it holds                                             */
    cnn__bytes metadata;                    /* pairs of strings                                          */
    const unsigned char *bytes; size_t size;               /* the contents: the file's or the caller's   */
    void *mapped; cnn__bytes owned;         /* unmapped and freed by cnn__close_state: see cnn__own      */
    char *text, *at;                        /* .safetensors: the header, decoded in place; its next character */
    const unsigned char *directory; size_t directory_size; /* .pth: of the ZIP                           */
    int pth;                                /* whether PyTorch's format is written                       */
    size_t dict, preferred;                 /* .pth: the dict that is searched; the one called "state_dict" */
    const char *model;                      /* .pth: the class of a whole model                          */
} cnn__state;

static int cnn__wrong(cnn__state *s, const char *format, ...) CNN__PRINTF(2, 3);
static int cnn__wrong(cnn__state *s, const char *format, ...)              /* returns 0, always */
{
    cnn__text what;
    va_list arguments;
    size_t i;
    va_start(arguments, format);
    cnn__vsnprintf(what.s, sizeof what.s, format, arguments);
    va_end(arguments);
    for (i = 0; what.s[i]; i++)             /* names from the file may have control characters */
        if ((unsigned char)what.s[i] < ' ' || what.s[i] == 127) what.s[i] = '?';
    return cnn__say(s->error, "%.150s: %s", s->path, what.s);
}

static int cnn__failed(const cnn__state *s) { return s->error->s[0] != 0; }

/* Keeps an allocated block until cnn__close_state; says so where it is NULL. */
static void *cnn__own(cnn__state *s, void *block)
{
    if (block) cnn__put(&s->owned, &block, sizeof block);
    if (block && !s->owned.failed) return block;
    cnn__wrong(s, "out of memory");
    cnn__free(block);
    return NULL;
}

static void cnn__add_stored(cnn__state *s, const cnn__stored *t)
{
    s->tensors = (cnn__stored *)cnn__grow(s->tensors, s->count, &s->room, sizeof *t);
    if (s->count < s->room) s->tensors[s->count++] = *t;
    else cnn__wrong(s, "out of memory");
}

static int cnn__by_key(const void *a, const void *b)       /* of tensors and of metadata: both begin with the key */
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int cnn__by_dict(const void *a, const void *b)
{
    const cnn__stored *s = (const cnn__stored *)a, *t = (const cnn__stored *)b;
    return s->dict != t->dict ? (s->dict < t->dict ? -1 : 1) : cnn__by_key(a, b);
}

static int cnn__sort(cnn__state *s, void *list, size_t count, size_t size)         /* by key; none may be repeated */
{
    const unsigned char *at = (const unsigned char *)list;
    if (count) qsort(list, count, size, cnn__by_key);
    for (; count > 1; count--, at += size)
        if (!cnn__by_key(at, at + size))
            return cnn__wrong(s, "has \"%.100s\" twice", *(const char *const *)(const void *)at);
    return 1;
}

static cnn__stored cnn__stored_of(const char *key, const cnn__dtype *dtype)
{
    cnn__stored t;
    memset(&t, 0, sizeof t);
    t.key = key;
    t.prefix = "";
    t.dtype = dtype;
    t.count = 1;
    return t;
}

static cnn__stored *cnn__find_stored(const cnn__state *s, const char *prefix, const char *key)
{
    char name[200];
    cnn__stored sought;
    cnn__snprintf(name, sizeof name, "%s%s", prefix, key);
    sought = cnn__stored_of(name, NULL);
    sought.dict = s->dict;
    if (!s->count) return NULL;
    return (cnn__stored *)bsearch(&sought, s->tensors, (size_t)s->count, sizeof sought, cnn__by_dict);
}

static int cnn__add_dimension(cnn__stored *t, size_t size)                 /* 0: too many values */
{
    if (t->ndim < CNN__DIMS) t->shape[t->ndim] = size;
    t->ndim++;
    return cnn__mul(&t->count, t->count, size) && t->count <= (size_t)-1 / 64;
}

static double cnn__value(const cnn__dtype *dtype, const unsigned char *b)
{
    uint64_t bits = cnn__little(b, (int)dtype->bits / 8);
    uint32_t word = (uint32_t)bits, exponent = word >> 10 & 31, fraction = word & 1023;
    double number;
    switch (dtype - cnn__dtypes) {
    case CNN__F64:  return cnn__ieee(bits, 8);
    case CNN__F32:  return cnn__ieee(bits, 4);
    case CNN__BF16: return cnn__ieee(bits << 16, 4);       /* the upper half of a float */
    }
    number = exponent == 31 ? (fraction ? (double)NAN : HUGE_VAL)          /* F16: 5 bits of exponent, 10 of fraction */
           : exponent       ? ldexp(1024.0 + fraction, (int)exponent - 25)
                            : ldexp(fraction, -24);
    return word >> 15 ? -number : number;
}

static int cnn__is_little(void)                            /* whether this machine stores the lowest byte first */
{
    const uint32_t one = 1;
    return *(const unsigned char *)&one;
}

/* Whether the bytes in the file are the machine's floats in row-major order, so that they need no conversion. */
static int cnn__is_plain(const cnn__stored *t)
{
    size_t stride = 1;
    int d;
    for (d = t->ndim - 1; d >= 0; stride *= t->shape[d--]) if (t->shape[d] > 1 && t->stride[d] != stride) return 0;
    return t->dtype == &cnn__dtypes[CNN__F32] && cnn__is_little();
}

/* Copies the values in row-major order, whatever their type and their strides in the storage. */
static void cnn__take_values(const cnn__stored *t, float *to, void (*upload)(void *, void *, const void *, size_t),
                             void *context)
{
    float values[1024];
    size_t index[CNN__DIMS] = { 0 }, size = t->dtype->bits / 8, at = t->first, i, n = 0;
    int d;
    for (i = 1; i <= t->count; i++) {
        values[n++] = (float)cnn__value(t->dtype, t->data + at * size);
        if (n == 1024 || i == t->count) {
            upload(context, to, values, n * sizeof *values);
            to += n;
            n = 0;
        }
        for (d = t->ndim - 1; d >= 0; d--) {               /* the next index, as an odometer turns */
            at += t->stride[d];
            if (++index[d] < t->shape[d]) break;
            at -= t->stride[d] * t->shape[d];
            index[d] = 0;
        }
    }
}

/* A copy of the values with the bytes of each the other way round. */
static const unsigned char *cnn__swapped(cnn__state *s, const cnn__stored *t)
{
    size_t size = t->dtype->bits / 8, i;
    unsigned char *copy = (unsigned char *)cnn__own(s, cnn__alloc_raw(t->bytes));
    for (i = 0; copy && i < t->bytes; i++) copy[i] = t->data[i / size * size + size - 1 - i % size];
    return copy;
}

/* Adds a tensor to what will be written. t->data: the machine's values, which are not copied. */
static void cnn__add_values(cnn__state *s, cnn__stored *t)
{
    t->bytes = t->count * (t->dtype->bits / 8);
    if (!cnn__is_little()) t->data = cnn__swapped(s, t);
    cnn__add_stored(s, t);
}

/* ---- .safetensors ----

       | 8 bytes: N | N bytes of JSON, UTF-8, spaces at the end | the values of all tensors |

       {"__metadata__": {"format": "pt"},
        "classifier.weight": {"dtype": "F32", "shape": [10, 84], "data_offsets": [0, 3360]}, ...}

   Offsets are a tensor's first byte and the one after its last, counted from the end of the header. All tensors
   together fill the rest of the file, without holes or overlaps. N is at most 100 million and written as a multiple
   of 8. Source: github.com/huggingface/safetensors, README.md and safetensors/src/tensor.rs.                */

static int cnn__expected(cnn__state *s, const char *what)
{
    return cnn__wrong(s, "byte %.0f: the header is broken: expected %s", (double)(s->at - s->text + 8), what);
}

static int cnn__json_has(cnn__state *s, char c)            /* steps over c if it is next */
{
    s->at += strspn(s->at, " \t\r\n");
    return *s->at == c && (s->at++, 1);
}

static int cnn__json_needs(cnn__state *s, const char *what)                /* a character in quotes */
{ return cnn__json_has(s, what[1]) || cnn__expected(s, what); }

/* Steps through [a, b] or {"k": a}: returns 1 before each element and counts it in *n; 0 at the end or at an error. */
static int cnn__json_next(cnn__state *s, const char *brackets, size_t *n)
{
    if (!*n && !cnn__json_needs(s, brackets[0] == '{' ? "'{'" : "'['")) return 0;
    if (cnn__json_has(s, brackets[1]) || (*n && !cnn__json_needs(s, "','"))) return 0;
    return ++*n, 1;
}

static int cnn__json_hex(cnn__state *s, uint32_t *code)    /* \u1234 */
{
    char digits[5] = { 0 };
    if (strncmp(s->at, "\\u", 2) || strspn(s->at + 2, "0123456789abcdefABCDEF") < 4)
        return cnn__expected(s, "\\u and four hexadecimal digits");
    *code = (uint32_t)strtoul((char *)memcpy(digits, s->at + 2, 4), NULL, 16);
    return s->at += 6, 1;
}

/* A string, decoded in place, as decoding never makes it longer, and ended by 0. */
static int cnn__json_string(cnn__state *s, const char **text)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char *to;
    if (!cnn__json_needs(s, "'\"'")) return 0;
    *text = to = s->at;
    while (*s->at != '"') {
        const char *escape = *s->at == '\\' && s->at[1] ? strchr(escapes, s->at[1]) : NULL;
        uint32_t c, low, more;
        if ((unsigned char)*s->at < ' ') return cnn__expected(s, "the end of the string");
        if (escape) { *to++ = meanings[escape - escapes]; s->at += 2; continue; }
        if (*s->at != '\\') { *to++ = *s->at++; continue; }
        if (!cnn__json_hex(s, &c)) return 0;
        if (c >> 10 == 0x36) {                             /* a surrogate pair: a character beyond 0xffff */
            if (!cnn__json_hex(s, &low)) return 0;
            c = low >> 10 == 0x37 ? 0x10000 + ((c & 1023) << 10 | (low & 1023)) : 0;
        }
        if (!c || c >> 11 == 0x1b)
            return cnn__expected(s, "before it a character that is not \\u0000 or half a surrogate pair");
        more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;         /* UTF-8: bytes that follow the first */
        *to++ = (char)(more ? 0xf80 >> more | c >> 6 * more : c);
        while (more--) *to++ = (char)(0x80 | (c >> 6 * more & 0x3f));
    }
    s->at++;
    *to = 0;
    return 1;
}

static int cnn__json_key(cnn__state *s, const char **key)
{ return cnn__json_string(s, key) && cnn__json_needs(s, "':'"); }

static int cnn__json_digits(cnn__state *s)
{
    size_t count = strspn(s->at, "0123456789");
    if (!count) return cnn__expected(s, "a digit");
    return s->at += count, 1;
}

static int cnn__json_whole(cnn__state *s) { return *s->at == '0' ? s->at++, 1 : cnn__json_digits(s); }

static int cnn__json_size(cnn__state *s, size_t *size)     /* a whole number, not negative */
{
    const char *digits = s->at += strspn(s->at, " \t\r\n");
    unsigned long long number;
    if (!cnn__json_whole(s)) return 0;
    errno = 0;
    number = strtoull(digits, NULL, 10);
    *size = (size_t)number;
    return (!errno && *size == number) || cnn__wrong(s, "a number in its header overflows");
}

static int cnn__json_skip(cnn__state *s, int depth)        /* steps over any value */
{
    const char *brackets = cnn__json_has(s, '{') ? "{}" : cnn__json_has(s, '[') ? "[]" : NULL, *key;
    size_t n = 0;
    if (depth > 100) return cnn__expected(s, "at most 100 nested brackets");
    if (brackets) {
        for (s->at--; cnn__json_next(s, brackets, &n); )
            if ((*brackets == '{' && !cnn__json_key(s, &key)) || !cnn__json_skip(s, depth + 1)) return 0;
        return !cnn__failed(s);
    }
    if (*s->at == '"') return cnn__json_string(s, &key);
    if (!strncmp(s->at, "true", 4) || !strncmp(s->at, "null", 4)) return s->at += 4, 1;
    if (!strncmp(s->at, "false", 5)) return s->at += 5, 1;
    if (*s->at == '-') s->at++;
    if (!cnn__json_whole(s)) return 0;
    if (*s->at == '.' && (s->at++, !cnn__json_digits(s))) return 0;
    if (*s->at != 'e' && *s->at != 'E') return 1;
    s->at += s->at[1] == '+' || s->at[1] == '-' ? 2 : 1;
    return cnn__json_digits(s);
}

static int cnn__json_tensor(cnn__state *s, const char *key)
{
    static const char *const fields[] = { "dtype", "shape", "data_offsets" };
    cnn__stored t = cnn__stored_of(key, cnn__dtypes);
    size_t n = 0, k, size, bits, offsets[2] = { 0, 0 };
    const char *field, *name;
    int i, seen[4] = { 0, 0, 0, 0 };
    while (cnn__json_next(s, "{}", &n)) {
        if (!cnn__json_key(s, &field)) return 0;
        for (i = 0; i < 3 && strcmp(field, fields[i]); i++) { }
        if (seen[i]++ && i < 3) return cnn__wrong(s, "tensor \"%.100s\" has %s twice", key, field);
        k = 0;
        if (i == 0) {
            if (!cnn__json_string(s, &name)) return 0;
            while (t.dtype < &cnn__dtypes[CNN__UNKNOWN] && strcmp(t.dtype->name, name)) t.dtype++;
            if (t.dtype == &cnn__dtypes[CNN__UNKNOWN])
                cnn__wrong(s, "tensor \"%.100s\" has the unknown dtype %.40s", key, name);
        } else if (i == 3) cnn__json_skip(s, 0);
        else while (cnn__json_next(s, "[]", &k) && cnn__json_size(s, &size)) {
            if (i == 2) offsets[k > 1] = size;
            else if (!cnn__add_dimension(&t, size))
                cnn__wrong(s, "tensor \"%.100s\": the product of its sizes overflows", key);
        }
        if (i == 2 && k != 2)
            cnn__wrong(s, "tensor \"%.100s\" has %.0f data_offsets, not 2", key, (double)k);
    }
    if (cnn__failed(s)) return 0;
    for (i = 0; i < 3; i++) if (!seen[i]) return cnn__wrong(s, "tensor \"%.100s\" has no %s", key, fields[i]);
    t.begin = offsets[0];
    t.bytes = offsets[1] - offsets[0];
    if (offsets[1] < offsets[0] || !cnn__mul(&bits, t.count, t.dtype->bits) || bits % 8 || bits / 8 != t.bytes)
        return cnn__wrong(s, "tensor \"%.100s\": its data_offsets %.0f and %.0f do not hold its %.0f values of %s", key,
                          (double)offsets[0], (double)offsets[1], (double)t.count, t.dtype->name);
    for (size = 1, i = t.ndim - 1; i >= 0; i--) if (i < CNN__DIMS) { t.stride[i] = size; size *= t.shape[i]; }
    cnn__add_stored(s, &t);
    return 1;
}

static int cnn__json_metadata(cnn__state *s)               /* strings by name, or null */
{
    const char *pair[2];
    size_t n = 0;
    if (cnn__json_has(s, 'n')) return s->at--, cnn__json_skip(s, 0);
    while (cnn__json_next(s, "{}", &n)) {
        if (!cnn__json_key(s, &pair[0]) || !cnn__json_string(s, &pair[1])) return 0;
        cnn__put(&s->metadata, pair, sizeof pair);
    }
    if (s->metadata.failed) return cnn__wrong(s, "out of memory");
    return !cnn__failed(s) && cnn__sort(s, s->metadata.at, s->metadata.count / sizeof pair, sizeof pair);
}

static int cnn__utf8(const unsigned char *s, size_t count)
{
    static const uint32_t least[4] = { 0, 0x80, 0x800, 0x10000 };
    size_t i, more, k;
    for (i = 0; i < count; i += more + 1) {
        uint32_t c = s[i];
        more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : count;
        if (more >= count - i) return 0;
        c &= more ? 0x3fu >> more : 0x7fu;
        for (k = 1; k <= more; k++) {
            if (s[i + k] >> 6 != 2) return 0;
            c = c << 6 | (s[i + k] & 0x3f);
        }
        if (c < least[more] || c > 0x10ffff || c >> 11 == 0x1b) return 0;
    }
    return 1;
}

static int cnn__by_begin(const void *a, const void *b)
{
    const cnn__stored *s = (const cnn__stored *)a, *t = (const cnn__stored *)b;
    if (s->begin != t->begin) return s->begin < t->begin ? -1 : 1;
    return s->bytes < t->bytes ? -1 : s->bytes > t->bytes;
}

static int cnn__read_safetensors(cnn__state *s)
{
    uint64_t length = s->size < 8 ? 0 : cnn__little(s->bytes, 8);
    size_t n = 0, at = 0, data, metadata = 0;
    const char *key;
    int i;
    if (s->size < 8)
        return cnn__wrong(s, "has only %.0f bytes, but a .safetensors file begins with 8 for the length of its header",
                          (double)s->size);
    if (length > 100000000)
        return cnn__wrong(s, "its header would have %.0f bytes, but 100 million is the limit; is it a .safetensors "
                             "file?", (double)length);
    data = s->size - 8;
    if (length > data)
        return cnn__wrong(s, "its header has %.0f bytes, but the file ends after %.0f; is it a broken download?",
                          (double)length, (double)data);
    data -= (size_t)length;
    if (!cnn__utf8(s->bytes + 8, (size_t)length)) return cnn__wrong(s, "its header is not UTF-8");
    if (!(s->text = (char *)cnn__own(s, cnn__alloc_raw((size_t)length + 1)))) return 0;
    s->at = (char *)memcpy(s->text, s->bytes + 8, (size_t)length);
    s->at[length] = 0;
    while (cnn__json_next(s, "{}", &n)) {
        if (!cnn__json_key(s, &key)) return 0;
        if (strcmp(key, "__metadata__")) { if (!cnn__json_tensor(s, key)) return 0; }
        else if (metadata++) return cnn__wrong(s, "has \"__metadata__\" twice");
        else if (!cnn__json_metadata(s)) return 0;
    }
    s->at += strspn(s->at, " \t\r\n");
    if (cnn__failed(s) || s->at != s->text + length)
        return cnn__expected(s, "nothing but spaces after the last }");
    if (s->count) qsort(s->tensors, (size_t)s->count, sizeof *s->tensors, cnn__by_begin);
    for (i = 0; i < s->count && at <= data; at += s->tensors[i++].bytes) {
        cnn__stored *t = &s->tensors[i];
        if (t->begin != at)
            return cnn__wrong(s, "tensor \"%.100s\" begins at %.0f, but the one before it ends at %.0f", t->key,
                              (double)t->begin, (double)at);
        t->data = s->bytes + 8 + length + at;
    }
    if (at != data)
        return cnn__wrong(s, "its tensors do not fill the %.0f bytes after the header; is it a broken download?",
                          (double)data);
    return 1;
}

static void cnn__print_json(cnn__bytes *b, const char *prefix, const char *text)   /* both together as one string */
{
    for (cnn__print(b, "\"%s", prefix); *text; text++)
        if ((unsigned char)*text < ' ') cnn__print(b, "\\u%04x", (unsigned)*text);
        else cnn__print(b, "%s%c", *text == '"' || *text == '\\' ? "\\" : "", *text);
    cnn__print(b, "\"");
}

static void cnn__write_safetensors(cnn__state *s, cnn__sink *out)
{
    const char *const *pair = (const char *const *)(void *)s->metadata.at;
    const cnn__stored *t = s->tensors;
    size_t at[2] = { 0, 0 };                            /* values of 8 bytes come first: all are aligned then */
    int count = s->count, narrow, d, i;
    cnn__bytes header = { NULL, 0, 0, 0 }, *h = &header;
    for (i = 0; i < count; i++) if (t[i].dtype->bits == 64) at[1] += t[i].bytes;
    cnn__put_number(h, 0, 8);
    cnn__print(h, "{\"__metadata__\":{");
    for (i = 0; i < (int)(s->metadata.count / sizeof *pair); i++) {
        cnn__print(h, i % 2 ? ":" : i ? "," : "");
        cnn__print_json(h, "", pair[i]);
    }
    cnn__print(h, "}");
    for (i = 0; i < count; i++, t++) {
        narrow = t->dtype->bits < 64;
        cnn__print(h, ",");
        cnn__print_json(h, t->prefix, t->key);
        cnn__print(h, ":{\"dtype\":\"%s\",\"shape\":[", t->dtype->name);
        for (d = 0; d < t->ndim; d++) cnn__print(h, "%s%.0f", d ? "," : "", (double)t->shape[d]);
        cnn__print(h, "],\"data_offsets\":[%.0f,%.0f]}", (double)at[narrow], (double)(at[narrow] + t->bytes));
        at[narrow] += t->bytes;
    }
    cnn__print(h, "}");
    cnn__put(h, "       ", (8 - h->count % 8) % 8);
    if (h->failed) cnn__wrong(s, "out of memory");
    else if (h->count > 100000008)
        cnn__wrong(s, "its header would have %.0f bytes, and 100 million is the limit: give it less metadata",
                   (double)(h->count - 8));
    else {
        for (i = 0; i < 8; i++) h->at[i] = (unsigned char)((uint64_t)(h->count - 8) >> 8 * i);
        cnn__emit(out, h->at, h->count);
        for (narrow = 0; narrow < 2; narrow++)
            for (i = 0, t = s->tensors; i < count; i++, t++)
                if ((t->dtype->bits < 64) == narrow) cnn__emit(out, t->data, t->bytes);
    }
    cnn__free(h->at);
}

/* ---- .pth ----

   torch.save writes a ZIP whose entries are not compressed and lie in one folder of any name:

       | header, name, padding to 64 | bytes | ... | directory: name, size, CRC-32 and place of each | end |

       net/data.pkl      the state dict as a pickle        net/data/0, net/data/1, ...  the tensors' values
       net/byteorder     "little"                          net/version                  "3"

   A pickle is a program for a machine with a stack and a memo. Python's machine calls whatever function the program
   names; this one calls nothing. It knows the functions that make dicts and tensors, lists the tensors, and skips the
   rest:

       c collections.OrderedDict ) R                                   OrderedDict()
       (                                                               mark
         X "classifier.weight"                                         key
         c torch._utils._rebuild_tensor_v2
         ( ( X "storage" c torch.FloatStorage X "0" X "cpu" K 840 t Q  data/0, 840 floats,
           K 0  ( K 10 K 84 t  ( K 84 K 1 t  \x89 ... t R              first value, sizes, strides: a tensor
         ...
       u .                                                             dict[key] = tensor, back to the mark; end

   Sources: PKWARE's APPNOTE.TXT 4.3, 4.5.3; Python's Lib/pickletools.py; PyTorch's torch/serialization.py.    */

/* So many bytes at that place of the file; NULL if they are not all in it. */
static const unsigned char *cnn__within(const cnn__state *s, uint64_t place, uint64_t bytes)
{ return place <= s->size && bytes <= s->size - place ? s->bytes + place : NULL; }

static int cnn__open_zip(cnn__state *s)
{
    const unsigned char *end, *wide;
    uint64_t bytes, place;
    size_t back;
    for (back = 22; ; back++) {                            /* a comment may follow the end record */
        if (back > s->size || back > 22 + 65535)
            return cnn__wrong(s, "is not a ZIP archive, which torch.save writes; is it a broken download?");
        end = s->bytes + s->size - back;
        if (cnn__little(end, 4) == 0x06054b50 && cnn__little(end + 20, 2) == back - 22) break;
    }
    bytes = cnn__little(end + 12, 4);
    place = cnn__little(end + 16, 4);
    if (s->size - back >= 20 && cnn__little(end - 20, 4) == 0x07064b50) {  /* ZIP64: the same numbers in 8 bytes */
        if (!(wide = cnn__within(s, cnn__little(end - 12, 8), 56)))
            return cnn__wrong(s, "its ZIP64 record lies outside the file");
        bytes = cnn__little(wide + 40, 8);
        place = cnn__little(wide + 48, 8);
    }
    s->directory = cnn__within(s, place, bytes);
    s->directory_size = (size_t)bytes;
    return s->directory || cnn__wrong(s, "its ZIP directory lies outside the file");
}

/* The bytes of the entry `name`, in any folder; 0 and no message if it does not exist. */
static int cnn__find_entry(cnn__state *s, const char *name, const unsigned char **bytes, size_t *size)
{
    static const int places[3] = { 24, 20, 42 };
    const unsigned char *e = s->directory, *end = e + s->directory_size, *found = NULL, *slash, *extra, *value, *local;
    size_t length, whole;
    uint64_t field[3], crc;                                /* size, packed size, place of the local header */
    int i;
    for (; e < end; e += whole) {
        length = end - e < 46 ? 0 : (size_t)cnn__little(e + 28, 2);
        whole = end - e < 46 ? 46 : 46 + length + (size_t)(cnn__little(e + 30, 2) + cnn__little(e + 32, 2));
        if (whole > (size_t)(end - e) || cnn__little(e, 4) != 0x02014b50)
            return cnn__wrong(s, "its ZIP directory is broken");
        slash = (const unsigned char *)memchr(e + 46, '/', length);
        if (!slash || (size_t)(e + 46 + length - slash - 1) != strlen(name) || memcmp(slash + 1, name, strlen(name)))
            continue;
        if (found) return cnn__wrong(s, "has two entries %.80s", name);
        found = e;
    }
    if (!found) return 0;
    for (i = 0; i < 3; i++) field[i] = cnn__little(found + places[i], 4);
    extra = found + 46 + cnn__little(found + 28, 2);
    for (end = extra + cnn__little(found + 30, 2); end - extra >= 4; extra += length) {
        length = 4 + (size_t)cnn__little(extra + 2, 2);
        if (length > (size_t)(end - extra)) break;
        for (value = extra + 4, i = 0; i < 3 && cnn__little(extra, 2) == 1; i++)   /* ZIP64: those above 4 bytes */
            if (field[i] == 0xffffffffu && extra + length - value >= 8) field[i] = cnn__little(value, 8), value += 8;
    }
    if (cnn__little(found + 10, 2) || cnn__little(found + 8, 2) & 1 || field[0] != field[1])
        return cnn__wrong(s, "its entry %.80s is compressed or encrypted; torch.save writes neither", name);
    local = cnn__within(s, field[2], 30);
    if (!local || cnn__little(local, 4) != 0x04034b50)
        return cnn__wrong(s, "its entry %.80s is not where the ZIP directory says", name);
    *bytes = cnn__within(s, field[2] + 30 + cnn__little(local + 26, 2) + cnn__little(local + 28, 2), field[0]);
    if (!*bytes) return cnn__wrong(s, "its entry %.80s reaches beyond the file", name);
    *size = (size_t)field[0];
    crc = cnn__little(found + 16, 4);
    if (crc && crc != cnn__crc32(0, *bytes, *size))        /* 0: the writer computed none */
        return cnn__wrong(s, "its entry %.80s is damaged: its CRC is wrong", name);
    return 1;
}

typedef enum cnn__object_kind {
    CNN__OTHER,                             /* None, a float, bytes: nothing of it is kept               */
    CNN__NAME, CNN__INSTANCE,               /* of a function or class; of that class: none of its code is run */
    CNN__MARK, CNN__NUMBER, CNN__STRING, CNN__TUPLE, CNN__LIST, CNN__DICT, CNN__STORAGE, CNN__TENSOR
} cnn__object_kind;

typedef struct cnn__object {                /* a Python object, on the stack or in a tuple               */
    cnn__object_kind kind;
    const char *text;                       /* a string; "module.name" of a name and of an instance's class */
    size_t n, count;                        /* a number; a tuple's first part and how many; else which list, dict, */
} cnn__object;                              /* instance, storage or tensor it is                         */

static const cnn__object cnn__nothing = { CNN__OTHER, "", 0, 0 };

typedef struct cnn__pickle {
    cnn__state *s;
    unsigned char *at, *end, *begin;
    cnn__bytes stack, parts, memo, listed;  /* of cnn__object; parts: of tuples; listed: strings in lists */
    size_t made, parameters;                /* lists, dicts and instances so far; the dict that has "_parameters" */
} cnn__pickle;

static const char cnn__how[] = "in Python: torch.save(torch.load(\"old.pth\", weights_only=False), \"new.pth\")";

static cnn__object *cnn__objects(const cnn__bytes *b) { return (cnn__object *)(void *)b->at; }
static size_t cnn__depth(const cnn__pickle *p) { return p->stack.count / sizeof(cnn__object); }
static cnn__object *cnn__top(const cnn__pickle *p) { return cnn__objects(&p->stack) + cnn__depth(p) - 1; }

static int cnn__refuse(cnn__pickle *p, int opcode, const char *on)
{
    static const char names[] = " FFLOAT IINT LLONG PPERSID QBINPERSID RREDUCE SSTRING VUNICODE bBUILD dDICT gGET "
                                "iINST lLIST oOBJ pPUT \202EXT1 \203EXT2 \204EXT4 \227NEXT_BUFFER \230READONLY_BUFFER ";
    char sought[3] = " ";
    const char *name;
    sought[1] = (char)opcode;
    name = opcode ? strstr(names, sought) : NULL;
    return cnn__wrong(p->s, "data.pkl: opcode 0x%02x (%.*s)%s%.80s is refused: a state dict does not need it; %s",
                      (unsigned)opcode, name ? (int)strcspn(name + 2, " ") : 7, name ? name + 2 : "unknown",
                      on[0] ? " on " : "", on, cnn__how);
}

static int cnn__broken(cnn__pickle *p, const char *what)
{
    return cnn__wrong(p->s, "data.pkl is broken %.0f bytes before its end: %s", (double)(p->end - p->at), what);
}

static unsigned char *cnn__take(cnn__pickle *p, uint64_t count)            /* the next bytes; NULL past the end */
{
    unsigned char *bytes = p->at;
    if (count > (uint64_t)(p->end - p->at)) {
        cnn__broken(p, "it ends in the middle of an opcode");
        return NULL;
    }
    p->at += (size_t)count;
    return bytes;
}

static uint64_t cnn__take_number(cnn__pickle *p, int bytes)
{
    const unsigned char *b = cnn__take(p, (uint64_t)bytes);
    return b ? cnn__little(b, bytes) : 0;
}

static void cnn__push_object(cnn__pickle *p, const cnn__object *o) { cnn__put(&p->stack, o, sizeof *o); }

static void cnn__push(cnn__pickle *p, cnn__object_kind kind, const char *text, size_t n)
{
    cnn__object o = { kind, text, n, 0 };
    cnn__push_object(p, &o);
}

/* Takes the last objects off the stack; they stay valid until something is pushed. NULL: there are fewer. */
static cnn__object *cnn__drop(cnn__pickle *p, size_t count)
{
    if (count > cnn__depth(p)) {
        cnn__broken(p, "its stack is empty");
        return NULL;
    }
    if (!p->stack.at) return NULL;                         /* nothing was ever on it */
    p->stack.count -= count * sizeof(cnn__object);
    return cnn__objects(&p->stack) + cnn__depth(p);
}

static cnn__object cnn__pop(cnn__pickle *p)
{
    const cnn__object *last = cnn__drop(p, 1);
    return last ? *last : cnn__nothing;
}

static size_t cnn__since_mark(cnn__pickle *p)              /* removes the mark; how many objects followed it */
{
    size_t count = 0, depth = cnn__depth(p);
    cnn__object *stack = cnn__objects(&p->stack);
    while (count < depth && stack[depth - 1 - count].kind != CNN__MARK) count++;
    if (count == depth) return (size_t)cnn__broken(p, "there is no mark");
    memmove(stack + depth - 1 - count, stack + depth - count, count * sizeof *stack);
    p->stack.count -= sizeof *stack;
    return count;
}

static void cnn__push_tuple(cnn__pickle *p, size_t count)  /* of the last objects */
{
    cnn__object t = { CNN__TUPLE, "", p->parts.count / sizeof t, count };
    const cnn__object *last = cnn__drop(p, count);
    if (count && !last) return;
    cnn__put(&p->parts, last, count * sizeof t);
    cnn__push_object(p, &t);
}

static void cnn__take_name(cnn__pickle *p)                 /* module \n name \n: "module.name" */
{
    char *name = (char *)p->at;
    unsigned char *dot = (unsigned char *)memchr(p->at, '\n', (size_t)(p->end - p->at));
    unsigned char *end = dot ? (unsigned char *)memchr(dot + 1, '\n', (size_t)(p->end - dot - 1)) : NULL;
    if (!end) { cnn__take(p, (uint64_t)(p->end - p->at) + 1); return; }
    *dot = '.';
    *end = 0;
    p->at = end + 1;
    cnn__push(p, CNN__NAME, name, 0);
}

static void cnn__join_name(cnn__pickle *p)                 /* of two strings on the stack; no known name is as long */
{
    enum { room = 128 };
    const cnn__object *name = cnn__drop(p, 2);
    char *whole = name ? (char *)cnn__own(p->s, cnn__alloc_raw(room)) : NULL;
    if (!whole) return;
    if (name[0].kind != CNN__STRING || name[1].kind != CNN__STRING) cnn__broken(p, "a name is not a string");
    cnn__snprintf(whole, room, "%.60s.%.60s", name[0].text, name[1].text);
    cnn__push(p, CNN__NAME, whole, 0);
}

static void cnn__take_string(cnn__pickle *p, uint64_t count)               /* moved over its length: room for a 0 */
{
    char *text = (char *)cnn__take(p, count);
    if (!text) return;
    if (memchr(text, 0, (size_t)count)) {                  /* protocol 2 writes bytes as strings */
        cnn__push(p, CNN__OTHER, "", 0);
        return;
    }
    text--;
    memmove(text, text + 1, (size_t)count);
    text[count] = 0;
    cnn__push(p, CNN__STRING, text, 0);
}

/* A whole number. Python's may be negative or larger than size_t; a state dict needs none of those. */
static void cnn__take_whole(cnn__pickle *p, uint64_t bytes)
{
    const unsigned char *b = cnn__take(p, bytes);
    uint64_t number = b && bytes <= 8 ? cnn__little(b, (int)bytes) : 0;
    int fits = b && bytes <= 8 && (!bytes || b[bytes - 1] < 128) && number <= (size_t)-1;
    cnn__push(p, fits ? CNN__NUMBER : CNN__OTHER, "", (size_t)number);
}

/* By its description: ("storage", type, entry, device, number of values). */
static void cnn__take_storage(cnn__pickle *p)
{
    cnn__object id = cnn__pop(p);
    const cnn__object *a = id.kind == CNN__TUPLE && id.count ? cnn__objects(&p->parts) + id.n : &cnn__nothing;
    cnn__stored t = cnn__stored_of(NULL, cnn__dtypes);
    if (id.count >= 5 && a[0].kind == CNN__STRING && !strcmp(a[0].text, "storage") && a[1].kind == CNN__NAME
        && a[2].kind == CNN__STRING && a[4].kind == CNN__NUMBER) {
        while (t.dtype < &cnn__dtypes[CNN__UNKNOWN] && strcmp(t.dtype->storage, a[1].text)) t.dtype++;
        t.entry = a[2].text;
        if (cnn__mul(&t.bytes, a[4].n, t.dtype->bits / 8)) {
            cnn__push(p, CNN__STORAGE, "", (size_t)p->s->count);
            cnn__add_stored(p->s, &t);
            return;
        }
    }
    if (id.count >= 2 && a[1].kind == CNN__NAME)           /* ("module", class, its source): before PyTorch 1.6 */
        cnn__push_object(p, &a[1]);
    else cnn__push(p, CNN__OTHER, "", 0);
}

/* The arguments: (storage, first value, sizes, strides, ...). */
static int cnn__make_tensor(cnn__pickle *p, const cnn__object *a, size_t count)
{
    const cnn__object *size, *stride;
    cnn__stored t;
    size_t i;
    if (count < 4 || a[0].kind != CNN__STORAGE || a[1].kind != CNN__NUMBER || a[2].kind != CNN__TUPLE
        || a[3].kind != CNN__TUPLE || a[2].count != a[3].count)
        return 0;
    t = p->s->tensors[a[0].n];
    t.first = a[1].n;
    size = cnn__objects(&p->parts) + a[2].n;
    stride = cnn__objects(&p->parts) + a[3].n;
    for (i = 0; i < a[2].count; i++) {
        if (size[i].kind != CNN__NUMBER || stride[i].kind != CNN__NUMBER) return 0;
        if (!cnn__add_dimension(&t, size[i].n)) return 0;
        if (i < CNN__DIMS) t.stride[i] = stride[i].n;
    }
    cnn__push(p, CNN__TENSOR, "", (size_t)p->s->count);
    cnn__add_stored(p->s, &t);
    return 1;
}

static int cnn__either(const char *text, const char *a, const char *b) { return !strcmp(text, a) || !strcmp(text, b); }

/* name(arguments): known names make dicts and tensors; any other makes an instance of which nothing is known. */
static void cnn__reduce(cnn__pickle *p)
{
    cnn__object arguments = cnn__pop(p), name = cnn__pop(p);
    const cnn__object *a = cnn__objects(&p->parts);
    if (arguments.kind != CNN__TUPLE || name.kind != CNN__NAME) {
        cnn__refuse(p, 'R', name.kind == CNN__NAME ? name.text : "something that is not a name");
        return;
    }
    if (arguments.count) a += arguments.n;
    if (!strcmp(name.text, "torch._tensor._rebuild_from_type_v2") && arguments.count >= 3 && a[0].kind == CNN__NAME
        && a[2].kind == CNN__TUPLE) {                      /* (function, type, its arguments, attributes) */
        name = a[0];
        arguments = a[2];
        a = cnn__objects(&p->parts) + arguments.n;
    }
    if (cnn__either(name.text, "collections.OrderedDict", "collections.defaultdict"))
        cnn__push(p, CNN__DICT, "", ++p->made);
    else if (arguments.count && a->kind == CNN__TENSOR && cnn__either(name.text, "torch._utils._rebuild_parameter",
                                                                      "torch._utils._rebuild_parameter_with_state"))
        cnn__push_object(p, a);
    else if (!cnn__either(name.text, "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"))
        cnn__push(p, CNN__INSTANCE, name.text, ++p->made);
    else if (!cnn__make_tensor(p, a, arguments.count)) cnn__refuse(p, 'R', name.text);
}

static void cnn__new_instance(cnn__pickle *p, size_t arguments)            /* class, arguments */
{
    const cnn__object *last = cnn__drop(p, arguments + 1);
    if (last) cnn__push(p, CNN__INSTANCE, last->kind == CNN__NAME ? last->text : "", ++p->made);
}

static void cnn__append(cnn__pickle *p, size_t count)      /* to the list before them; an instance may be a list, too */
{
    const cnn__object *item = cnn__drop(p, count);
    if (!item) return;
    if (!p->stack.count || (item[-1].kind != CNN__LIST && item[-1].kind != CNN__INSTANCE))
        cnn__broken(p, "it appends to something that is not a list");
    else for (; count; count--, item++)
        if (item->kind == CNN__STRING) cnn__put(&p->listed, item, sizeof *item);
}

static void cnn__set_items(cnn__pickle *p, size_t count)   /* key, value, key, value, ... of the dict before them */
{
    cnn__state *s = p->s;
    cnn__object *item = cnn__drop(p, count);
    size_t owner;
    if (!item) return;
    if (count % 2 || !p->stack.count || (item[-1].kind != CNN__DICT && item[-1].kind != CNN__INSTANCE)) {
        cnn__broken(p, "it sets items of something that is not a dict");
        return;
    }
    for (owner = item[-1].n; count; count -= 2, item += 2) {
        cnn__stored t;
        if (item[0].kind != CNN__STRING) continue;         /* a state dict's keys are strings */
        if (!strcmp(item[0].text, "_parameters")) p->parameters = owner;
        if (item[1].kind == CNN__DICT && !s->preferred && (!strcmp(item[0].text, "state_dict")
            || cnn__either(item[0].text, "model_state_dict", "model"))) s->preferred = item[1].n;
        if (item[1].kind != CNN__TENSOR || cnn__failed(s)) continue;
        t = s->tensors[item[1].n];
        t.key = item[0].text;
        t.dict = owner;
        cnn__add_stored(s, &t);
    }
}

static void cnn__build(cnn__pickle *p)                     /* sets the state of the object before it */
{
    cnn__object state = cnn__pop(p);
    const char *dot;
    if (!p->stack.count) { cnn__broken(p, "its stack is empty"); return; }
    if (state.kind != CNN__DICT || state.n != p->parameters || cnn__top(p)->kind != CNN__INSTANCE) return;
    dot = strrchr(cnn__top(p)->text, '.');                 /* an nn.Module: a whole model was saved */
    p->s->model = dot ? dot + 1 : cnn__top(p)->text;
}

static void cnn__use_memo(cnn__pickle *p, uint64_t n, int get)             /* gets place n, or puts the top there */
{
    if (n >= (uint64_t)(p->at - p->begin) || (!p->stack.count && !get)) {  /* each place took a byte at least */
        cnn__broken(p, "its memo has no such place");
        return;
    }
    while (p->memo.count / sizeof cnn__nothing <= n && !p->memo.failed)
        cnn__put(&p->memo, &cnn__nothing, sizeof cnn__nothing);
    if (p->memo.failed) return;
    if (get) cnn__push_object(p, cnn__objects(&p->memo) + n);
    else cnn__objects(&p->memo)[n] = *cnn__top(p);
}

static int cnn__run_pickle(cnn__pickle *p, cnn__object *result)            /* until its end, '.' */
{
    static const char *const with_number[9] = {            /* opcodes, by the bytes of the number that follows */
        "", "\x80KCUqh\x8a\x8c", "M", "", "BTXrj\x8b", "", "", "", "G\x8d\x8e\x95\x96"
    };
    cnn__object top;
    uint64_t n;
    int op, bytes;
    p->stack.count = p->memo.count = p->listed.count = 0;  /* each pickle begins anew */
    for (;;) {
        op = (int)cnn__take_number(p, 1);
        for (bytes = 8; bytes && (!op || !strchr(with_number[bytes], op)); bytes--) { }
        n = cnn__take_number(p, bytes);
        if (p->stack.failed || p->parts.failed || p->memo.failed || p->listed.failed)
            cnn__wrong(p->s, "out of memory");
        if (cnn__failed(p->s)) return 0;
        switch (op) {
        case 0x80: case 0x95: break;                                               /* protocol; a frame's length */
        case '(': cnn__push(p, CNN__MARK, "", 0); break;
        case '0': cnn__pop(p); break;
        case '1': cnn__drop(p, cnn__since_mark(p)); break;
        case '2':
            top = cnn__pop(p);
            cnn__push_object(p, &top);
            cnn__push_object(p, &top);
            break;
        case 'N': case 0x88: case 0x89:                                            /* None, True, False */
        case 'G': cnn__push(p, CNN__OTHER, "", 0); break;                          /* a float */
        case 'K': case 'M': cnn__push(p, CNN__NUMBER, "", (size_t)n); break;
        case 'J': cnn__take_whole(p, 4); break;
        case 0x8a: case 0x8b: cnn__take_whole(p, n); break;
        case 'T': case 'U': case 'X': case 0x8c: case 0x8d: cnn__take_string(p, n); break;
        case 'B': case 'C': case 0x8e: case 0x96: cnn__take(p, n); cnn__push(p, CNN__OTHER, "", 0); break;   /* bytes */
        case 'c': cnn__take_name(p); break;
        case 0x93: cnn__join_name(p); break;
        case ']': case 0x8f: cnn__push(p, CNN__LIST, "", ++p->made); break;        /* a list, a set */
        case '}': cnn__push(p, CNN__DICT, "", ++p->made); break;
        case ')': cnn__push_tuple(p, 0); break;
        case 0x85: case 0x86: case 0x87: cnn__push_tuple(p, (size_t)(op - 0x84)); break;
        case 't': cnn__push_tuple(p, cnn__since_mark(p)); break;
        case 0x91: cnn__drop(p, cnn__since_mark(p)); cnn__push(p, CNN__OTHER, "", 0); break;      /* a frozen set */
        case 'a': cnn__append(p, 1); break;
        case 'e': case 0x90: cnn__append(p, cnn__since_mark(p)); break;
        case 'q': case 'r': cnn__use_memo(p, n, 0); break;
        case 0x94: cnn__use_memo(p, p->memo.count / sizeof top, 0); break;         /* its next place */
        case 'h': case 'j': cnn__use_memo(p, n, 1); break;
        case 'Q': cnn__take_storage(p); break;
        case 'R': cnn__reduce(p); break;
        case 0x81: cnn__new_instance(p, 1); break;
        case 0x92: cnn__new_instance(p, 2); break;
        case 's': cnn__set_items(p, 2); break;
        case 'u': cnn__set_items(p, cnn__since_mark(p)); break;
        case 'b': cnn__build(p); break;
        case '.':
            *result = cnn__pop(p);
            return !cnn__failed(p->s);
        default: cnn__refuse(p, op, "");
        }
    }
}

/* The format of torch.save until PyTorch 1.5: five pickles (a magic number, a version, sizes, the state dict, the
   storages' names), then each storage: its number of values in 8 bytes, its values. */
static int cnn__is_legacy(const cnn__state *s)             /* the magic number, after protocol and frame */
{
    static const char magic[] = "\212\nl\374\234F\371 j\250P\031.";
    size_t i;
    for (i = 2; i < 16 && i + sizeof magic <= s->size; i++)
        if (s->bytes[0] == 0x80 && !memcmp(s->bytes + i, magic, sizeof magic - 1)) return 1;
    return 0;
}

static int cnn__read_storages(cnn__state *s, cnn__pickle *p)
{
    cnn__object list;
    cnn__stored *t;
    size_t k;
    int i;
    if (!cnn__run_pickle(p, &list)) return 0;
    t = s->tensors;
    for (k = 0; k < p->listed.count / sizeof list; k++) {
        const char *name = cnn__objects(&p->listed)[k].text;
        uint64_t values = cnn__take_number(p, 8);
        const cnn__stored *one = NULL;
        for (i = 0; i < s->count; i++) {
            if (!t[i].entry || strcmp(t[i].entry, name)) continue;
            if (t[i].bytes / (t[i].dtype->bits / 8) != values) break;
            t[i].data = p->at - p->begin + s->bytes;
            t[i].entry = NULL;
            one = &t[i];
        }
        if (!one || i < s->count) return cnn__broken(p, "a storage has another size than its description");
        if (!cnn__take(p, one->bytes)) return 0;
    }
    for (i = 0; i < s->count; i++)
        if (t[i].entry) return cnn__wrong(s, "a storage of \"%.100s\" is missing", t[i].key ? t[i].key : "");
    return 1;
}

static int cnn__read_pickles(cnn__state *s, const unsigned char *bytes, size_t size, int legacy)
{
    cnn__pickle p;
    cnn__object result;
    int good = 1, kept = 0, known, i;
    memset(&p, 0, sizeof p);
    p.s = s;
    p.begin = p.at = (unsigned char *)cnn__own(s, cnn__alloc_raw(size + 1));
    if (!p.at) return 0;
    memcpy(p.at, bytes, size);                             /* a copy, in which strings get their ends */
    p.end = p.at + size;
    for (i = legacy ? 0 : 3; i < 4 && good; i++) good = cnn__run_pickle(&p, &result);
    good = good && (!legacy || cnn__read_storages(s, &p));
    cnn__free(p.stack.at);
    cnn__free(p.parts.at);
    cnn__free(p.memo.at);
    cnn__free(p.listed.at);
    if (!good) return 0;
    for (i = 0; i < s->count; i++) if (s->tensors[i].key) s->tensors[kept++] = s->tensors[i];
    s->count = kept;                                       /* those that are in a dict */
    if (kept || result.kind == CNN__DICT) return 1;
    known = (result.kind == CNN__NAME || result.kind == CNN__INSTANCE) && result.text[0];
    return cnn__wrong(s, "is not a state dict but %.100s, which has no tensors by name and is not run; in Python: "
                         "torch.save(model.state_dict(), \"net.pth\")", known ? result.text : "something else");
}

static int cnn__read_pth(cnn__state *s)
{
    const unsigned char *bytes;
    size_t size;
    if (!cnn__open_zip(s)) return 0;
    if (cnn__find_entry(s, "constants.pkl", &bytes, &size))
        return cnn__wrong(s, "is a TorchScript program, not a state dict; in Python: "
                             "torch.save(torch.jit.load(\"old.pt\").state_dict(), \"new.pth\")");
    if (cnn__find_entry(s, "byteorder", &bytes, &size) && (size != 6 || memcmp(bytes, "little", 6)))
        return cnn__wrong(s, "was written on a big-endian machine");
    if (!cnn__find_entry(s, "data.pkl", &bytes, &size))
        return cnn__wrong(s, "has no data.pkl: torch.save did not write it");
    if (size > 1 << 26) return cnn__wrong(s, "its data.pkl has %.0f bytes, more than a state dict needs", (double)size);
    return cnn__read_pickles(s, bytes, size, 0);
}

typedef struct cnn__zip { cnn__sink *out; cnn__bytes header, directory; int entries; } cnn__zip;

/* Writes an entry and lists it in the directory. Its bytes begin at a multiple of 64, as torch.save writes them. */
static void cnn__add_entry(cnn__zip *zip, const char *name, const void *bytes, size_t count)
{
    static const char zeros[64] = { 0 };
    size_t length = strlen(name), place = zip->out->count, filled = (64 - (place + 34 + length) % 64) % 64;
    cnn__bytes *h = &zip->header, *d = &zip->directory;
    h->count = 0;
    cnn__put_number(h, 0x04034b50, 4);
    cnn__put_number(h, 20, 2);                             /* needs version 2.0 */
    cnn__put_number(h, (uint64_t)33 << 48, 8);             /* flags, method 0: stored; time, date 1980-01-01 */
    cnn__put_number(h, cnn__crc32(0, (const unsigned char *)bytes, count), 4);
    cnn__put_number(h, count, 4);                          /* packed size */
    cnn__put_number(h, count, 4);                          /* size */
    cnn__put_number(h, length, 2);
    if (h->failed) return;
    cnn__put_number(d, 0x02014b50, 4);
    cnn__put_number(d, 20, 2);                             /* made for version 2.0 */
    cnn__put(d, h->at + 4, 24);                            /* the same numbers */
    cnn__put(d, zeros, 12);                                /* no extra field, no comment; disk, attributes */
    cnn__put_number(d, place, 4);
    cnn__put(d, name, length);
    cnn__put_number(h, 4 + filled, 2);                     /* the extra field, PyTorch's own: padding */
    cnn__put(h, name, length);
    cnn__put(h, "FB", 2);
    cnn__put_number(h, filled, 2);
    cnn__put(h, zeros, filled);
    cnn__emit(zip->out, h->at, h->count);
    cnn__emit(zip->out, bytes, count);
    zip->entries++;
}

/* Writes the directory and the end record; 0 without memory. */
static int cnn__end_zip(cnn__zip *zip)
{
    size_t place = zip->out->count, count = zip->directory.count;
    cnn__bytes *d = &zip->directory;
    cnn__put_number(d, 0x06054b50, 8);                     /* its mark; this disk and the first: 0 */
    cnn__put_number(d, (uint64_t)zip->entries, 2);         /* on this disk */
    cnn__put_number(d, (uint64_t)zip->entries, 2);         /* in all */
    cnn__put_number(d, count, 4);
    cnn__put_number(d, place, 4);
    cnn__put_number(d, 0, 2);                              /* length of a comment */
    cnn__emit(zip->out, d->at, d->count);
    cnn__free(zip->header.at);
    cnn__free(d->at);
    return !zip->header.failed && !d->failed;
}

/* An opcode and the four bytes of its number. */
static void cnn__put_opcode(cnn__bytes *b, unsigned char op, size_t n) { cnn__put_number(b, (uint64_t)n << 8 | op, 5); }

static void cnn__put_string(cnn__bytes *b, const char *text)
{
    cnn__put_opcode(b, 'X', strlen(text));
    cnn__put(b, text, strlen(text));
}

static void cnn__write_pth(cnn__state *s, cnn__sink *out)
{
    cnn__zip zip;
    cnn__bytes pickle = { NULL, 0, 0, 0 }, *p = &pickle;
    const cnn__stored *t = s->tensors;
    char name[40];
    size_t stride;
    int count = s->count, i, d;
    memset(&zip, 0, sizeof zip);
    zip.out = out;
    cnn__print(p, "\200\002ccollections\nOrderedDict\n)R(");
    for (i = 0; i < count; i++) {
        cnn__snprintf(name, sizeof name, "%d", i);
        cnn__put_string(p, t[i].key);
        cnn__print(p, "ctorch._utils\n_rebuild_tensor_v2\n((");
        cnn__put_string(p, "storage");
        cnn__print(p, "ctorch\n%s\n", t[i].dtype->storage + 6);             /* behind "torch." */
        cnn__put_string(p, name);
        cnn__put_string(p, "cpu");
        cnn__put_opcode(p, 'J', t[i].count);
        cnn__print(p, "tQ");
        cnn__put_opcode(p, 'J', 0);
        cnn__print(p, "(");
        for (d = 0; d < t[i].ndim; d++) cnn__put_opcode(p, 'J', t[i].shape[d]);
        cnn__print(p, "t(");
        for (stride = t[i].count, d = 0; d < t[i].ndim; d++) cnn__put_opcode(p, 'J', stride /= t[i].shape[d]);
        cnn__print(p, "t\211ccollections\nOrderedDict\n)RtR");
    }
    cnn__print(p, "u.");
    cnn__add_entry(&zip, "net/data.pkl", p->at, p->count);
    cnn__add_entry(&zip, "net/byteorder", "little", 6);
    for (i = 0; i < count; i++) {
        cnn__snprintf(name, sizeof name, "net/data/%d", i);
        cnn__add_entry(&zip, name, t[i].data, t[i].bytes);
    }
    cnn__add_entry(&zip, "net/version", "3\n", 2);
    if (!cnn__end_zip(&zip) || p->failed) cnn__wrong(s, "out of memory");
    if (count > 65000 || (double)out->count > 4294967295.0)
        cnn__wrong(s, "a .pth holds up to 65000 tensors and 4 GB; save it as .safetensors");
    cnn__free(p->at);
}

/* ---- a network's state dict ---- */

static cnn__state cnn__state_of(const cnn_net *net, const char *path, cnn__text *error)
{
    cnn__state s;
    memset(&s, 0, sizeof s);
    s.path = path ? path : "";
    s.error = error;
    s.net = net;
    return s;
}

static int cnn__close_state(cnn__state *s, int result)
{
    void **owned = (void **)(void *)s->owned.at;
    size_t i;
#if !defined(_WIN32) && !defined(CNN_NO_FILES)
    if (s->mapped) munmap(s->mapped, s->size);
#endif
    for (i = 0; i < s->owned.count / sizeof *owned; i++) cnn__free(owned[i]);
    cnn__free(s->owned.at);
    cnn__free(s->tensors);
    cnn__free(s->metadata.at);
    return result;
}

static int cnn__ends_as_pth(const char *path) { return cnn__ends_in(path, ".pth .pt .pth.tar .bin .ckpt"); }

/* Whether a tensor in a file has the shape of the network's. */
static int cnn__same_shape(const cnn__stored *stored, const cnn__tensor *t)
{
    int d;
    for (d = 0; d < t->ndim && d < stored->ndim; d++) if (stored->shape[d] != (size_t)t->shape[d]) return 0;
    return stored->ndim == t->ndim;
}

/* How well a dict with such a prefix fits the network: a point for each key it has, two where the shape fits, too. */
static int cnn__fit(cnn__state *s, size_t dict, const char *prefix)
{
    int score = 0, i;
    s->dict = dict;
    for (i = 0; i < s->net->state_count; i++) {
        const cnn__stored *stored = cnn__find_stored(s, prefix, s->net->state[i]->key);
        score += !stored ? 0 : cnn__same_shape(stored, s->net->state[i]) ? 2 : 1;
    }
    return score;
}

/* A checkpoint may have several dicts with tensors (an optimizer's, an average of the weights), and all keys may have a
   prefix: DataParallel writes "module.", torch.compile "_orig_mod.", a class around a model "model.". Each dict is
   tried without a prefix, and with each that stands before one of the network's first four keys. What fits best is
   kept; of equals the dict called state_dict, model_state_dict or model, else the first, and the first key's prefix. */
static int cnn__choose_dict(cnn__state *s)
{
    cnn__stored *t = s->tensors;
    char prefix[100], best[100] = "";
    size_t chosen = 0;
    int most = 0, first = -1, tried = 0, kept = 0, score, length, i, k;
    if (s->count) {
        qsort(t, (size_t)s->count, sizeof *t, cnn__by_dict);
        chosen = t[0].dict;
    }
    for (k = 0; k < s->count; k++)
        for (i = -1; i < 4 && i < s->net->state_count; i++) {
            const char *key = i < 0 ? t[k].key : s->net->state[i]->key;
            length = (int)strlen(t[k].key) - (int)strlen(key);
            if (i < 0 ? k && t[k].dict == t[k - 1].dict    /* no prefix: once for each dict */
                      : length < 1 || length >= 100 || t[k].key[length - 1] != '.' || strcmp(t[k].key + length, key)
                        || tried++ > 1000)
                continue;
            cnn__snprintf(prefix, sizeof prefix, "%.*s", length, t[k].key);
            score = cnn__fit(s, t[k].dict, prefix);
            if (score == most ? t[k].dict == chosen ? i >= first : t[k].dict != s->preferred : score < most) continue;
            most = score;
            first = i;
            chosen = t[k].dict;
            strcpy(best, prefix);
        }
    if (!most && s->model)
        return cnn__wrong(s, "is a whole model (class %.60s), not its weights; in Python, where that class is known: "
                             "torch.save(torch.load(\"old.pth\", weights_only=False).state_dict(), \"new.pth\")",
                          s->model);
    for (k = 0; k < s->count; k++) {
        if (t[k].dict != chosen) continue;
        t[kept] = t[k];
        if (!strncmp(t[kept].key, best, strlen(best))) t[kept].key += strlen(best);
        kept++;
    }
    s->count = kept;
    s->dict = chosen;
    return cnn__sort(s, t, (size_t)s->count, sizeof *t);
}

/* The contents tell the format; where they do not, the path's ending does. */
static int cnn__parse_file(cnn__state *s)
{
    if (cnn__is_other_file(s->path, s->bytes, s->size, CNN__WEIGHTS, "a state dict", s->error)) return 0;
    if (cnn__is_legacy(s)) return cnn__read_pickles(s, s->bytes, s->size, 1);
    if (s->size >= 4 && !memcmp(s->bytes, "PK", 2)) return cnn__read_pth(s);
    if (cnn__ends_as_pth(s->path) && !(s->size > 8 && s->bytes[8] == '{')) return cnn__read_pth(s);
    return cnn__read_safetensors(s);
}

/* A large file is mapped, which saves copying it. That is safe while this library saves to the same path: it never
   changes a file in place. */
static int cnn__read_contents(cnn__state *s)
{
#if !defined(_WIN32) && !defined(CNN_NO_FILES)
    FILE *file = s->bytes || cnn__failed(s) ? NULL : cnn__open_to_read(s->path, &s->size, NULL);
    void *map = file && s->size >= 1 << 20 ? mmap(NULL, s->size, PROT_READ, MAP_PRIVATE, fileno(file), 0) : MAP_FAILED;
    if (map != MAP_FAILED) s->bytes = (const unsigned char *)(s->mapped = map);
    if (file) fclose(file);
#endif
    if (!s->bytes && !cnn__failed(s))
        s->bytes = (unsigned char *)cnn__own(s, cnn__read_file(s->path, &s->size, s->error));
    return s->bytes != NULL;
}

static int cnn__read_state(cnn__state *s) { return cnn__read_contents(s) && cnn__parse_file(s) && cnn__choose_dict(s); }

/* To a file or to memory, or (with neither) to count the bytes. */
static int cnn__write_to(cnn__sink *out, cnn__state *s)
{
    if (s->metadata.failed) cnn__wrong(s, "out of memory");
    if (cnn__failed(s)) return 0;
    if (s->pth) cnn__write_pth(s, out);
    else cnn__write_safetensors(s, out);
    return !cnn__failed(s);
}

static int cnn__write_state(cnn__state *s)
{
    cnn__sink out = { NULL, NULL, 0, 0 };
    cnn__writer w;
    if (cnn__failed(s) || !cnn__begin_file(&w, s->path, s->error)) return 0;
    out.file = w.file;
    if (cnn__write_to(&out, s)) return cnn__end_file(&w, s->error);
    cnn__abandon_file(&w);
    return 0;
}

/* A block has one value for each parameter: the parameters themselves, the moments, the best weights. Its tensors have
   the parameters' keys after the block's prefix. Buffers are behind the parameters and the best weights. */
enum { CNN__PARAMETERS, CNN__MOMENT1, CNN__MOMENT2, CNN__BEST, CNN__BLOCKS };
static const char *const cnn__prefix[CNN__BLOCKS] = { "", "cnn.h/moment1/", "cnn.h/moment2/", "cnn.h/best/" };

static float **cnn__block(cnn_net *net, int block)         /* on the backend; the best weights: on the host */
{
    if (block == CNN__PARAMETERS) return &net->parameters;
    return block == CNN__MOMENT1 ? &net->moment1 : block == CNN__MOMENT2 ? &net->moment2 : &net->best;
}

static size_t cnn__block_size(const cnn_net *net, int block)
{
    return block == CNN__PARAMETERS || block == CNN__BEST ? net->state_size : net->parameter_count;
}

/* Adds a block to what will be written: itself where it is in the host's memory, else a copy. */
static void cnn__add_block(cnn_net *net, cnn__state *s, int block)
{
    const float *values = *cnn__block(net, block);
    size_t size = cnn__block_size(net, block);
    int i, d;
    if (values && block != CNN__BEST && net->backend.download != cnn__host_copy)
        values = (float *)cnn__own(s, cnn__download(net, values, size));
    for (i = 0; values && i < net->state_count; i++) {
        const cnn__tensor *t = net->state[i];
        cnn__stored stored = cnn__stored_of(t->key, &cnn__dtypes[t->integer ? CNN__I64 : CNN__F32]);
        if (t->offset >= size) continue;
        stored.prefix = cnn__prefix[block];
        stored.data = (const unsigned char *)(values + t->offset);
        for (d = 0; d < t->ndim; d++) cnn__add_dimension(&stored, (size_t)t->shape[d]);
        if (!cnn__utf8((const unsigned char *)t->key, strlen(t->key)))
            cnn__wrong(s, "the name \"%.100s\" is not UTF-8", t->key);
        cnn__add_values(s, &stored);
    }
}

/* Lists what cnn_save writes. The path's ending chooses the format. */
static int cnn__begin_save(cnn_net *net, const char *path, cnn__state *s)
{
    const char *pair[2] = { "format", "pt" };
    size_t at = 0;
    if (!cnn__ready(net) || !cnn__sync(net)) return 0;
    *s = cnn__state_of(net, path, &net->error);
    cnn__put(&s->metadata, pair, sizeof pair);
    while (at < net->metadata.count) {
        pair[0] = (const char *)net->metadata.at + at;
        pair[1] = pair[0] + strlen(pair[0]) + 1;
        cnn__put(&s->metadata, pair, sizeof pair);
        at += strlen(pair[0]) + strlen(pair[1]) + 2;
    }
    cnn__add_block(net, s, CNN__PARAMETERS);
    s->pth = cnn__ends_as_pth(s->path);
    if (s->pth && at)
        cnn__wrong(s, "PyTorch's format has no place for metadata (\"%.80s\"); save it as .safetensors, or take it "
                      "away: cnn_set_metadata(net, key, NULL)", (const char *)net->metadata.at);
    if (!s->pth && !cnn__ends_in(s->path, ".safetensors"))
        cnn__wrong(s, "the ending chooses the format: .safetensors, or .pth, .pt, .pth.tar, .bin, .ckpt for PyTorch's");
    return 1;
}

int cnn_save(cnn_net *net, const char *path)
{
    cnn__state s;
    return cnn__begin_save(net, path, &s) && cnn__close_state(&s, cnn__write_state(&s));
}

size_t cnn_save_memory(cnn_net *net, const char *ending, void *bytes, size_t room)
{
    cnn__state s;
    cnn__sink counted = { NULL, NULL, 0, 0 }, out = { NULL, NULL, 0, 0 };
    int good;
    if (!cnn__begin_save(net, ending, &s)) return 0;
    good = cnn__write_to(&counted, &s);
    out.to = (char *)bytes;
    out.room = room;
    if (good && bytes && counted.count <= room) good = cnn__write_to(&out, &s);
    return cnn__close_state(&s, good) ? counted.count : 0;
}

typedef struct cnn__list { int count; char names[110]; } cnn__list;        /* names, "..." after the last that fits */

static void cnn__add_name(cnn__list *list, const char *name)
{
    size_t used = strlen(list->names), room = sizeof list->names - used;
    if (!list->count++) cnn__snprintf(list->names, room, "%.90s", name);
    else if (used + strlen(name) + 8 < sizeof list->names) cnn__snprintf(list->names + used, room, ", %s", name);
    else if (used < 3 || strcmp(list->names + used - 3, "...")) cnn__snprintf(list->names + used, room, ", ...");
}

/* How the shapes of a tensor in the file and in the network differ. */
static void cnn__compare_shapes(const cnn__stored *found, const cnn__tensor *t, cnn__text *text)
{
    char *end = text->s + cnn__snprintf(text->s, 120, "%s: ", t->key);
    int d;
    if (!found->ndim) end += cnn__snprintf(end, 24, "one value");
    for (d = 0; d < found->ndim && d < CNN__DIMS; d++)
        end += cnn__snprintf(end, 24, "%s%.0f", d ? " x " : "", (double)found->shape[d]);
    for (d = 0; d < t->ndim; d++) end += cnn__snprintf(end, 36, "%s%d", d ? " x " : " instead of ", t->shape[d]);
}

/* Finds the block's tensors in the file, and lists what does not fit; "" if all does. Old files count no batches: as
   with PyTorch, that is no misfit. */
static void cnn__compare(cnn_net *net, cnn__state *s, int block, cnn__text *misfits)
{
    static const char *const what[3] = { "missing", "unexpected", "mis-shaped" };
    static const char *const layers[3][2] = {
        { ".running_mean", "a BatchNorm" },
        { ".weight_ih_l0", "a recurrent layer (LSTM, GRU or RNN)" },
        { ".in_proj_weight", "a MultiheadAttention" },
    };
    cnn__list lists[3];
    cnn__text shapes, lacking = { "" };
    cnn__stored *found;
    int i, k;
    memset(lists, 0, sizeof lists);
    for (i = 0; i < net->state_count; i++) {
        const cnn__tensor *of = net->state[i];
        if (of->offset >= cnn__block_size(net, block)) continue;
        found = cnn__find_stored(s, cnn__prefix[block], of->key);
        if (!found && !of->integer) cnn__add_name(&lists[0], of->key);
        if (!found) continue;
        found->of = of;
        found->block = cnn__same_shape(found, of) ? block : -1;
        if (found->block == block) continue;
        cnn__compare_shapes(found, of, &shapes);
        cnn__add_name(&lists[2], shapes.s);
    }
    for (k = 0; k < s->count && block == CNN__PARAMETERS; k++) {
        const char *key = s->tensors[k].key;
        if (s->tensors[k].of || !strncmp(key, "cnn.h/", 6)) continue;
        cnn__add_name(&lists[1], key);
        for (i = 0; i < 3 && !lacking.s[0]; i++) {         /* "features.1 is a BatchNorm" */
            int length = (int)(strlen(key) - strlen(layers[i][0]));
            if (!cnn__ends_in(key, layers[i][0])) continue;
            cnn__snprintf(lacking.s, sizeof lacking.s, "; %.*s is %s, which the network lacks",
                          length < 60 ? length : 60, key, layers[i][1]);
        }
    }
    misfits->s[0] = 0;
    for (i = 0; i < 3; i++)
        if (lists[i].count)
            cnn__snprintf(misfits->s + strlen(misfits->s), 140, "%s%d %s (%s)", misfits->s[0] ? ", " : "",
                          lists[i].count, what[i], lists[i].names);
    cnn__snprintf(misfits->s + strlen(misfits->s), 140, "%s", lacking.s);
}

/* Finds the bytes of a tensor and checks that they are enough. before: the tensor of a .pth found before, or NULL; the
   storage that consecutive tensors share is found, and its CRC computed, once. */
static int cnn__locate(cnn__state *s, cnn__stored *t, const cnn__stored *before)
{
    char name[100];
    size_t size = before ? before->bytes : 0, most, last = t->first, step;
    int found = before && t->entry && !strcmp(t->entry, before->entry), d;
    if (t->of->integer ? t->dtype != &cnn__dtypes[CNN__I64] : t->dtype - cnn__dtypes > CNN__BF16)
        return cnn__wrong(s, "\"%.100s\" is of %s; %s", t->key, t->dtype->name,
                          t->of->integer ? "it must be of I64" : "F32, F64, F16 and BF16 are read");
    if (t->entry) {
        cnn__snprintf(name, sizeof name, "data/%.80s", t->entry);
        if (found) t->data = before->data;
        else found = cnn__find_entry(s, name, &t->data, &size);
        if (!found || size != t->bytes)
            return cnn__wrong(s, "\"%.100s\" should have %.0f bytes in the entry %.90s, which has %.0f", t->key,
                              (double)t->bytes, name, found ? (double)size : 0.0);
    }
    most = t->bytes / (t->dtype->bits / 8);
    for (d = 0; d < t->ndim && t->count; d++)
        if (!cnn__mul(&step, t->shape[d] - 1, t->stride[d]) || step > most || (last += step) > most) last = most;
    if (t->count && last >= most)
        return cnn__wrong(s, "\"%.100s\" reaches beyond its storage of %.0f values", t->key, (double)most);
    return 1;
}

/* Finds and checks a block; how many parameters fit, or -1 and a message. misfits: gets those that do not; NULL: they
   are an error. Nothing changes yet. */
static int cnn__match_block(cnn_net *net, cnn__state *s, int block, cnn__text *misfits)
{
    const cnn__stored *last = NULL;
    cnn__text list;
    int fitting = 0, i;
    cnn__compare(net, s, block, &list);
    if (misfits) *misfits = list;
    else if (list.s[0]) cnn__wrong(s, "does not fit the network: %s%s", cnn__prefix[block], list.s);
    for (i = 0; i < s->count && !cnn__failed(s); i++) {
        cnn__stored *t = &s->tensors[i];
        if (!t->of || t->block != block || !cnn__locate(s, t, last)) continue;
        if (t->entry) last = t;
        fitting += t->of->offset < net->parameter_count;
    }
    return cnn__failed(s) ? -1 : fitting;
}

/* Copies a block's tensors into the network. Values that are not the machine's floats in order are converted. */
static void cnn__take_block(cnn_net *net, cnn__state *s, int block)
{
    void (*upload)(void *context, void *to, const void *host, size_t bytes) = net->backend.upload;
    int i;
    if (block == CNN__BEST) upload = cnn__host_copy;
    cnn__weights_changed(net);
    for (i = 0; i < s->count; i++) {
        const cnn__stored *t = &s->tensors[i];
        float *to = t->of ? *cnn__block(net, block) + t->of->offset : NULL;
        if (!to || t->block != block) continue;
        if (t->of->integer) {
            int64_t number = (int64_t)cnn__little(t->data + 8 * t->first, 8);
            upload(net->backend.context, to, &number, sizeof number);
        } else if (cnn__is_plain(t))
            upload(net->backend.context, to, t->data + t->first * sizeof(float), t->count * sizeof(float));
        else cnn__take_values(t, to, upload, net->backend.context);
    }
}

/* Loads from bytes in memory, or, where they are NULL, from the file at the path. */
static int cnn__load(cnn_net *net, const char *path, const void *bytes, size_t size, int partly, char *report,
                     size_t room)
{
    cnn__state s;
    cnn__text misfits = { "" };
    int count = -1;
    if (report && room) report[0] = 0;
    if (!cnn__ready(net)) return 0;
    s = cnn__state_of(net, path, &net->error);
    s.bytes = (const unsigned char *)bytes;
    s.size = size;
    if (cnn__read_state(&s)) count = cnn__match_block(net, &s, CNN__PARAMETERS, partly ? &misfits : NULL);
    if (!count && misfits.s[0]) cnn__wrong(&s, "nothing in it fits the network: %s", misfits.s);
    if (cnn__failed(&s)) return cnn__close_state(&s, 0);
    cnn__take_block(net, &s, CNN__PARAMETERS);
    if (report && room)
        cnn__snprintf(report, room, "%d of %d parameters loaded%s%s", count, net->tensor_count,
                      misfits.s[0] ? "; skipped: " : "", misfits.s);
    return cnn__close_state(&s, 1);
}

int cnn_load(cnn_net *net, const char *path) { return cnn__load(net, path, NULL, 0, 0, NULL, 0); }

int cnn_load_partly(cnn_net *net, const char *path, char *report, size_t room)
{
    return cnn__load(net, path, NULL, 0, 1, report, room);
}

int cnn_load_memory(cnn_net *net, const void *bytes, size_t size)
{
    return cnn__load(net, "the weights in memory", bytes ? bytes : "", bytes ? size : 0, 0, NULL, 0);
}

/* ---- metadata ---- */

int cnn_set_metadata(cnn_net *net, const char *key, const char *value)
{
    cnn__bytes kept = { NULL, 0, 0, 0 };
    size_t at, length;
    if (cnn__stopped(net)) return 0;
    if (!key || !*key || !strcmp(key, "format"))
        return cnn__fail(net, "cnn_set_metadata: the key \"%s\" cannot be set; give a name, and not the file's own, "
                         "format", key ? key : "");
    if (!cnn__utf8((const unsigned char *)key, strlen(key)))
        return cnn__fail(net, "cnn_set_metadata: the key \"%.80s\" is not UTF-8", key);
    if (value && !cnn__utf8((const unsigned char *)value, strlen(value)))
        return cnn__fail(net, "cnn_set_metadata: the value of \"%.80s\" is not UTF-8: \"%.80s\"", key, value);
    for (at = 0; at < net->metadata.count; at += length) { /* a copy without the key's old value */
        const char *pair = (const char *)net->metadata.at + at;
        length = strlen(pair) + 1;
        length += strlen(pair + length) + 1;
        if (strcmp(pair, key)) cnn__put(&kept, pair, length);
    }
    if (value) {
        cnn__put(&kept, key, strlen(key) + 1);
        cnn__put(&kept, value, strlen(value) + 1);
    }
    cnn__free(kept.failed ? kept.at : net->metadata.at);
    if (kept.failed) return cnn__fail(net, "cnn_set_metadata: out of memory for the value of \"%.80s\"", key);
    net->metadata = kept;
    return 1;
}

static const char *cnn__find_metadata(const cnn__state *s, const char *key)        /* NULL: there is none */
{
    const char *const *pair = (const char *const *)(void *)s->metadata.at;
    size_t k;
    for (k = 0; k < s->metadata.count / sizeof *pair; k += 2) if (!strcmp(pair[k], key)) return pair[k + 1];
    return NULL;
}

int cnn_read_metadata(const char *path, const char *key, char *value, size_t room)
{
    cnn__text error = { "" };
    cnn__list keys = { 0, "" };
    cnn__state s = cnn__state_of(NULL, path, &error);
    const char *const *pair, *found;
    size_t k;
    if (!key) key = "";
    if (cnn__read_contents(&s) && cnn__parse_file(&s) && !s.text)
        cnn__wrong(&s, "has no metadata: it is of PyTorch's format; only .safetensors files have a place for it");
    pair = (const char *const *)(void *)s.metadata.at;
    for (k = 0; k < s.metadata.count / sizeof *pair; k += 2) cnn__add_name(&keys, pair[k]);
    if (!(found = cnn__find_metadata(&s, key)))
        cnn__wrong(&s, "has no metadata \"%.80s\"; %s%s", key, k ? "it has " : "it has none", keys.names);
    else if (!value || strlen(found) >= room)
        cnn__wrong(&s, "its \"%.80s\" takes %.0f bytes, but there is room for %.0f", key, (double)strlen(found) + 1,
                   (double)room);
    if (value) cnn__snprintf(value, room, "%s", cnn__failed(&s) ? error.s : found);
    return cnn__close_state(&s, !cnn__failed(&s));
}

/* ---- checkpoints ----

   A .safetensors file with the parameters under their keys and these tensors, those of numbers in F64:

       cnn.h/moment1/KEY, cnn.h/moment2/KEY    the optimizer's moments, if it has any
       cnn.h/best/KEY, cnn.h/best_epoch        the best epoch's weights and its number, if they are kept
       cnn.h/training                          the numbers below
       cnn.h/steps                             the optimizer's steps of each parameter; version 1 has none
       cnn.h/scale                             scale and shift of each channel of the training data, if trained
       cnn.h/history                           a row for each epoch: see cnn__epoch_to_row

   "__metadata__" has what must be the same in the program that continues the training.                      */

enum {                                      /* the numbers in cnn.h/training */
    CNN__SEED_HIGH, CNN__SEED_LOW, CNN__PASS, CNN__STEP, CNN__SCHEDULE_STEPS, CNN__LR, CNN__INITIAL_LR, CNN__NUMBERS
};
enum { CNN__TRAINING, CNN__SCALE, CNN__HISTORY, CNN__STEPS, CNN__BEST_EPOCH, CNN__ARRAYS, CNN__COLUMNS = 9 };

/* kinds: what may stand in each column. u: a whole number up to 2^32 - 1; i: up to INT_MAX; f: from 0 to FLT_MAX;
   *: anything, in all columns. at NULL: the file has no such array. */
typedef struct cnn__array { const char *key, *kinds; size_t rows, columns; double *at; } cnn__array;

typedef struct cnn__checkpoint { cnn__array arrays[CNN__ARRAYS]; int has[CNN__BLOCKS]; } cnn__checkpoint;

static void cnn__list_arrays(const cnn_net *net, cnn__array arrays[CNN__ARRAYS])
{
    const cnn__array list[CNN__ARRAYS] = {
        { "cnn.h/training", "uuuuiff", 1, CNN__NUMBERS, NULL },
        { "cnn.h/scale", "*", 2, (size_t)net->input.channels, NULL },
        { "cnn.h/history", "i****i**i", (size_t)net->history_count, CNN__COLUMNS, NULL },
        { "cnn.h/steps", "u", (size_t)net->tensor_count, 1, NULL },
        { "cnn.h/best_epoch", "i", 1, 1, NULL }
    };
    memcpy(arrays, list, sizeof list);
}

static void cnn__epoch_to_row(double h[CNN__COLUMNS], const cnn_epoch *e)
{
    h[0] = e->epoch;      h[1] = e->seconds;        h[2] = (double)e->lr;
    h[3] = e->train.loss; h[4] = e->train.accuracy; h[5] = e->train.count;
    h[6] = e->test.loss;  h[7] = e->test.accuracy;  h[8] = e->test.count;
}

static void cnn__epoch_from_row(cnn_epoch *e, const double h[CNN__COLUMNS])
{
    e->epoch = (int)h[0];   e->seconds = h[1];        e->lr = (float)h[2];
    e->train.loss = h[3];   e->train.accuracy = h[4]; e->train.count = (int)h[5];
    e->test.loss = h[6];    e->test.accuracy = h[7];  e->test.count = (int)h[8];
}

static void cnn__checkpoint_facts(const cnn_net *net, const char *facts[8])        /* for "__metadata__" */
{
    static const char *const optimizers[] = { "none", "sgd", "adam", "adamw" };
    static const char *const schedules[] = { "none", "step_lr", "cosine_lr", "one_cycle_lr" };
    facts[0] = "format";    facts[1] = "cnn.h checkpoint";
    facts[2] = "optimizer"; facts[3] = optimizers[net->optimizer];
    facts[4] = "schedule";  facts[5] = schedules[net->schedule];
    facts[6] = "version";   facts[7] = "2";
}

static cnn_span *cnn__read_spans(cnn_net *net)              /* a host copy, freed by cnn__free; NULL without memory */
{
    cnn_span *spans = (cnn_span *)cnn__alloc((size_t)net->tensor_count + 1, sizeof *spans);
    if (spans) cnn__fetch(net, spans, net->spans, sizeof *spans * (size_t)net->tensor_count);
    return spans;
}

static void cnn__add_training(cnn_net *net, cnn__state *s)
{
    cnn_counters c = cnn__read_counters(net);
    cnn_span *spans = (cnn_span *)cnn__own(s, cnn__read_spans(net));
    cnn__array a[CNN__ARRAYS];
    cnn__stored t;
    double *n;
    int i;
    cnn__list_arrays(net, a);
    for (i = 0; i < CNN__ARRAYS; i++)
        a[i].at = (double *)cnn__own(s, cnn__alloc(a[i].rows * a[i].columns, sizeof(double)));
    if (cnn__failed(s)) return;
    n = a[CNN__TRAINING].at;
    n[CNN__SEED_HIGH] = (double)(net->seed >> 32);
    n[CNN__SEED_LOW] = (double)(uint32_t)net->seed;
    n[CNN__PASS] = (double)c.pass;
    n[CNN__STEP] = (double)c.step;
    n[CNN__SCHEDULE_STEPS] = (double)net->schedule_steps;
    n[CNN__LR] = c.lr;
    n[CNN__INITIAL_LR] = net->initial_lr < 0 ? net->lr : net->initial_lr;
    for (i = 0; net->trained_scale && i < 2 * net->input.channels; i++)
        a[CNN__SCALE].at[i] = (double)net->trained_scale[i];
    for (i = 0; i < net->history_count; i++)
        cnn__epoch_to_row(a[CNN__HISTORY].at + i * CNN__COLUMNS, &net->history[i]);
    for (i = 0; i < net->tensor_count; i++) a[CNN__STEPS].at[i] = (double)spans[i].step;
    a[CNN__BEST_EPOCH].at[0] = net->best_epoch;
    for (i = 0; i < CNN__ARRAYS; i++) {
        if ((i == CNN__SCALE && !net->trained_scale) || (i == CNN__BEST_EPOCH && !net->best_epoch)) continue;
        if (i == CNN__BEST_EPOCH) cnn__add_block(net, s, CNN__BEST);
        t = cnn__stored_of(a[i].key, &cnn__dtypes[CNN__F64]);
        t.data = (const unsigned char *)a[i].at;
        cnn__add_dimension(&t, a[i].rows);
        cnn__add_dimension(&t, a[i].columns);
        cnn__add_values(s, &t);
    }
}

int cnn_checkpoint_save(cnn_net *net, const char *path)
{
    cnn__state s;
    const char *facts[8];
    int block;
    if (!cnn__ready(net) || !cnn__sync(net)) return 0;
    s = cnn__state_of(net, path, &net->error);
    cnn__checkpoint_facts(net, facts);
    cnn__put(&s.metadata, facts, sizeof facts);
    for (block = CNN__PARAMETERS; block <= CNN__MOMENT2; block++) cnn__add_block(net, &s, block);
    cnn__add_training(net, &s);
    return cnn__close_state(&s, cnn__write_state(&s));
}

static int cnn__check_facts(const cnn_net *net, cnn__state *s)
{
    const char *facts[8], *fact;
    int i;
    cnn__checkpoint_facts(net, facts);
    for (i = 0; i < 8; i += 2) {
        fact = cnn__find_metadata(s, facts[i]);
        if (!fact) fact = "none";
        if (strcmp(fact, facts[i + 1]) && !(i == 6 && !strcmp(fact, "1")))         /* version 1 is read, too */
            return cnn__wrong(s, "does not fit this program: its %s is %.40s, the program's is %s", facts[i], fact,
                              facts[i + 1]);
    }
    return 1;
}

static int cnn__read_array(cnn__state *s, cnn__array *a, int i)
{
    const cnn__stored *t = cnn__find_stored(s, "", a->key);
    size_t k;
    if (!t && i != CNN__TRAINING && i != CNN__HISTORY) return 1;
    if (t && i == CNN__HISTORY) a->rows = t->shape[0];
    if (!t || t->dtype != &cnn__dtypes[CNN__F64] || t->ndim != 2 || t->shape[0] != a->rows || t->shape[1] != a->columns
        || a->rows > INT_MAX - 1)
        return cnn__wrong(s, "its %s is missing or broken: it is not a whole checkpoint", a->key);
    a->at = (double *)cnn__own(s, cnn__alloc(t->count, sizeof(double)));
    for (k = 0; a->at && k < t->count; k++) {
        char kind = a->kinds[k % strlen(a->kinds)];
        double most = kind == 'u' ? 4294967295.0 : kind == 'i' ? INT_MAX : (double)FLT_MAX;
        double n = a->at[k] = cnn__value(t->dtype, t->data + 8 * k);
        if (kind != '*' && !(n >= 0 && n <= most && (kind == 'f' || n == floor(n))))
            return cnn__wrong(s, "%s has the impossible number %g", a->key, n);
    }
    return a->at != NULL;
}

/* Reads and checks all that is in the file. */
static int cnn__read_checkpoint(cnn_net *net, cnn__state *s, cnn__checkpoint *c)
{
    const cnn__array *a = c->arrays;
    const double *best;
    int i, block, stepped;
    if (!cnn__read_state(s) || !cnn__check_facts(net, s)) return 0;
    if (cnn__match_block(net, s, CNN__PARAMETERS, NULL) < 0) return 0;
    cnn__list_arrays(net, c->arrays);
    for (i = 0; i < CNN__ARRAYS; i++) if (!cnn__read_array(s, &c->arrays[i], i)) return 0;
    best = a[CNN__BEST_EPOCH].at;
    if (best && (*best < 1 || *best > (double)a[CNN__HISTORY].rows))
        return cnn__wrong(s, "cnn.h/best_epoch has the impossible number %g", *best);
    stepped = net->optimizer >= CNN__ADAM && a[CNN__TRAINING].at[CNN__STEP] > 0;
    for (block = 0; block < CNN__BLOCKS; block++) {
        c->has[block] = block == CNN__PARAMETERS || (block == CNN__BEST ? best != NULL : stepped
                        || (net->tensor_count && cnn__find_stored(s, cnn__prefix[block], net->tensors[0].key)));
        if (block && c->has[block] && cnn__match_block(net, s, block, NULL) < 0) return 0;
    }
    return 1;
}

/* Sets the network to what was read. All memory is there before the first change, so that it cannot fail half-way. */
static int cnn__resume(cnn_net *net, cnn__state *s, const cnn__checkpoint *c)
{
    const double *n = c->arrays[CNN__TRAINING].at, *history = c->arrays[CNN__HISTORY].at;
    const double *steps = c->arrays[CNN__STEPS].at, *scale = c->arrays[CNN__SCALE].at;
    int rows = (int)c->arrays[CNN__HISTORY].rows, scales = 2 * net->input.channels, i, block;
    cnn_counters counters = cnn__read_counters(net);
    cnn_span *spans = (cnn_span *)cnn__own(s, cnn__read_spans(net));
    cnn_epoch *epochs = (cnn_epoch *)cnn__alloc((size_t)rows + 1, sizeof *epochs);
    float *trained = scale ? (float *)cnn__alloc((size_t)scales, sizeof *trained) : NULL;
    if (!net->best) net->best = (float *)cnn__alloc(net->state_size + 1, sizeof *net->best);
    if (!epochs || !net->best || (scale && !trained)) cnn__wrong(s, "out of memory");
    for (block = CNN__MOMENT1; block <= CNN__MOMENT2; block++)
        if (c->has[block] && !cnn__failed(s)) cnn__need_moment(net, cnn__block(net, block));
    if (cnn__failed(s)) {
        cnn__free(epochs);
        cnn__free(trained);
        return 0;
    }
    for (block = 0; block < CNN__BLOCKS; block++)
        if (c->has[block]) cnn__take_block(net, s, block);
        else if (block != CNN__BEST) cnn__backend_free(net, cnn__block(net, block));
    net->seed = counters.seed = (uint64_t)n[CNN__SEED_HIGH] << 32 | (uint64_t)n[CNN__SEED_LOW];
    counters.pass = (uint64_t)n[CNN__PASS];
    counters.step = (uint64_t)n[CNN__STEP];
    counters.lr = net->lr = n[CNN__LR];
    cnn__write_counters(net, &counters);
    for (i = 0; i < net->tensor_count; i++) spans[i].step = (uint64_t)(steps ? steps[i] : n[CNN__STEP]);
    cnn__upload(net, net->spans, spans, sizeof *spans * (size_t)net->tensor_count);
    net->schedule_steps = (long)n[CNN__SCHEDULE_STEPS];
    net->initial_lr = net->schedule ? n[CNN__INITIAL_LR] : -1;
    net->best_epoch = c->has[CNN__BEST] ? (int)c->arrays[CNN__BEST_EPOCH].at[0] : 0;
    for (i = 0; scale && i < scales; i++) trained[i] = (float)scale[i];
    cnn__free(net->trained_scale);
    net->trained_scale = trained;
    for (i = 0; i < rows; i++) cnn__epoch_from_row(&epochs[i], history + i * CNN__COLUMNS);
    cnn__free(net->history);
    net->history = epochs;
    net->history_count = rows;
    net->history_room = rows + 1;
    return 1;
}

int cnn_checkpoint_load(cnn_net *net, const char *path)
{
    cnn__state s;
    cnn__checkpoint c;
    if (!cnn__ready(net)) return 0;
    s = cnn__state_of(net, path, &net->error);
    return cnn__close_state(&s, cnn__read_checkpoint(net, &s, &c) && cnn__resume(net, &s, &c));
}

/* ---- the network as one C file ----

   A layer's kind writes the body of its function. Here is the rest: what the file is, the function that calls the
   layers in order, and the numbers, last. Outputs share buffers: one is free again after its last reader. */

typedef struct cnn__export {
    cnn_net *net;
    FILE *file;
    char name[64];
    int *buffer, *last_reader;              /* (layer_count): where a layer's output lies, -1: y; who needs it last */
    int buffer_count;
    float *parameters;                      /* and buffers, on the host */
} cnn__export;

static const char *cnn__thousands(double n, cnn__text *text);      /* >>look */

static int cnn__has_code(const cnn__layer *l) { return l->kind->forward && !l->training_only; }

/* The layer whose function writes the output of `layer`: itself or an earlier one; -1: it is x. */
static int cnn__writer_of(const cnn__export *e, int layer)
{
    while (layer >= 0 && !cnn__has_code(&e->net->layers[layer])) layer = e->net->layers[layer].inputs[0];
    return layer;
}

static size_t cnn__buffer_size(const cnn__export *e, int buffer)           /* floats: the largest output in it */
{
    size_t most = 0, size;
    int i;
    for (i = 0; i < e->net->layer_count; i++) {
        size = cnn__size(e->net->layers[i].out);
        if (e->buffer[i] == buffer && size > most) most = size;
    }
    return most;
}

/* For the output of layer i: the buffer of its input, if it may lie there, else the free one that grows least. */
static int cnn__choose_buffer(const cnn__export *e, int i)
{
    const cnn__layer *l = &e->net->layers[i];
    int from = cnn__writer_of(e, l->inputs[0]), best = -1, b, k;
    size_t size = cnn__size(l->out), least = 0;
    if (l->value_by_value && from >= 0 && e->last_reader[from] == i && e->buffer[from] >= 0) return e->buffer[from];
    for (b = 0; b < e->buffer_count; b++) {
        size_t has = cnn__buffer_size(e, b), growth = size > has ? size - has : 0;
        for (k = 0; k < i && (e->buffer[k] != b || e->last_reader[k] < i); k++) { }
        if (k == i && (best < 0 || growth < least)) best = b, least = growth;
    }
    return best < 0 ? e->buffer_count : best;
}

static void cnn__choose_buffers(cnn__export *e)
{
    int count = e->net->layer_count, i, n;
    for (i = 0; i < count; i++) {
        const cnn__layer *l = &e->net->layers[i];
        e->buffer[i] = -1;
        for (n = 0; cnn__has_code(l) && n < l->input_count; n++) {
            int from = cnn__writer_of(e, l->inputs[n]);
            if (from >= 0) e->last_reader[from] = i;
        }
    }
    for (i = 0; i < count; i++) {
        if (!cnn__has_code(&e->net->layers[i]) || i == cnn__writer_of(e, count - 1)) continue;
        e->buffer[i] = cnn__choose_buffer(e, i);
        if (e->buffer[i] == e->buffer_count) e->buffer_count++;
    }
}

/* `x`, `y` or `buffer1`: where the output of a layer (-1: the sample) is found */
static const char *cnn__place_name(const cnn__export *e, int layer, cnn__text *text)
{
    int writer = cnn__writer_of(e, layer);
    if (writer < 0 || e->buffer[writer] < 0) return writer < 0 ? "x" : "y";
    cnn__snprintf(text->s, sizeof text->s, "buffer%d", e->buffer[writer] + 1);
    return text->s;
}

/* ---- names ---- */

#define CNN__LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define CNN__IN_NAMES CNN__LETTERS "0123456789_"

static void cnn__to_c_name(char *name)                      /* what is no part of names becomes _ */
{
    while (*(name += strspn(name, CNN__IN_NAMES))) *name = '_';
}

static int cnn__is_c_name(const char *name)                 /* of a function, beside those that the file has */
{
    static const char words[] = " auto break case char const continue default do double else enum extern float for "
        "goto if inline int long main register restrict return short signed sizeof static struct switch typedef union "
        "unsigned void volatile while expf fmaxf tanhf ";
    char word[80];
    size_t length = strspn(name, CNN__IN_NAMES);
    cnn__snprintf(word, sizeof word, " %s ", name);
    return length && length < 64 && !name[length] && strspn(name, CNN__LETTERS) && !strstr(words, word)
        && (strncmp(name, "layer", 5) || name[5] < '0' || name[5] > '9');
}

static int cnn__name_export(cnn__export *e, const char *path, const char *name)
{
    char file[60];
    const char *c, *dot;
    if (name && !cnn__is_c_name(name))
        return cnn__fail(e->net, "cnn_export_c: \"%.80s\" cannot be the function's name; give up to 63 letters, digits "
                         "and _, a letter first, and no word that C or the file needs itself, as float, expf or layer1",
                         name);
    for (c = path; *c; c++) if (*c == '/' || *c == '\\') path = c + 1;
    dot = strrchr(path, '.');
    cnn__snprintf(file, sizeof file, "%.*s", dot && dot - path < 50 ? (int)(dot - path) : 50, path);
    cnn__to_c_name(file);
    if (name) cnn__snprintf(e->name, sizeof e->name, "%s", name);
    else cnn__snprintf(e->name, sizeof e->name, "%s%s", cnn__is_c_name(file) ? "" : "net_", file);
    return 1;
}

/* ---- writing it ---- */

/* Number i of what is written of the parameters, and behind them the buffers; NULL: it is a count, which is not. */
static const cnn__tensor *cnn__written(const cnn__export *e, int i)
{
    const cnn_net *net = e->net;
    const cnn__tensor *t = i < net->tensor_count ? &net->tensors[i] : &net->buffers[i - net->tensor_count];
    return t->integer ? NULL : t;
}

static void cnn__export_signature(const cnn__export *e, const char *end)
{
    cnn__fprintf(e->file, "void %s(float y[%d], const float x[%d])%s", e->name, (int)cnn__outputs(e->net),
                 (int)cnn__size(e->net->input), end);
}

static void cnn__export_head(const cnn__export *e)
{
    const cnn_net *net = e->net;
    double memory = 0, numbers = 0;
    const cnn__tensor *t;
    cnn__text text;
    int i;
    for (i = 0; i < e->buffer_count; i++) memory += 4 * (double)cnn__buffer_size(e, i);
    for (i = 0; i < net->state_count; i++) if ((t = cnn__written(e, i))) numbers += 4 * (double)t->count;
    cnn__fprintf(e->file, "/* A trained network, written by cnn.h. This is all of it: C99 that needs math.h alone.\n\n"
                 "       ");
    cnn__export_signature(e, ";\n\n");
    cnn__fprintf(e->file, "   x: %s, one sample (channels, rows, columns), scaled as the network saw them in training",
                 cnn__dims_text(net->input, &text));
    for (i = 0; net->trained_scale && i < net->input.channels; i++)
        cnn__fprintf(e->file, "%s\n      channel %d: %.9g byte + %.9g", i ? "" : ":", i,
                     (double)net->trained_scale[i], (double)net->trained_scale[net->input.channels + i]);
    cnn__fprintf(e->file, "\n   Its numbers take %s bytes", cnn__thousands(numbers, &text));
    cnn__fprintf(e->file, ", its buffers %s bytes of RAM. They are static: one call at a time.\n\n",
                 cnn__thousands(memory, &text));
    cnn_summary(e->net, e->file);
    cnn__fprintf(e->file, "*/\n#include <math.h>\n\n");
    cnn__export_signature(e, ";\n");
}

static void cnn__export_array(const cnn__export *e, const cnn__tensor *t, const char *end)
{
    int d;
    cnn__fprintf(e->file, "static const float layer%d_%s", t->layer + 1, t->name);
    for (d = 0; d < t->ndim; d++) cnn__fprintf(e->file, "[%d]", t->shape[d]);
    cnn__fprintf(e->file, "%s", end);
}

/* The next values in braces, one pair for each row of each matrix ...; returns what follows them */
static const float *cnn__export_values(const cnn__export *e, const cnn__tensor *t, const float *values, int depth)
{
    enum { in_a_line = 7 };
    int in_a_row = depth + 1 >= t->ndim, i;
    cnn__text text;
    cnn__fprintf(e->file, "%*s{", 4 * depth, "");
    for (i = 0; i < t->shape[depth]; i++) {
        if (i) cnn__fprintf(e->file, ",");
        if (!in_a_row) {
            cnn__fprintf(e->file, "\n");
            values = cnn__export_values(e, t, values, depth + 1);
            continue;
        }
        if (i && i % in_a_line == 0) cnn__fprintf(e->file, "\n%*s", 4 * depth + 1, "");
        if (!(*values - *values == 0))
            cnn__fail(e->net, "cnn_export_c: value %.0f of %.80s is %g, which C has no number for; train again, or "
                      "load weights that are finite", (double)(values - (e->parameters + t->offset)), t->key,
                      (double)*values);
        cnn__fprintf(e->file, " %s", cnn__c_number(*values++, &text));
    }
    if (in_a_row) cnn__fprintf(e->file, " }");
    else cnn__fprintf(e->file, "\n%*s}", 4 * depth, "");
    return values;
}

static const char *cnn__function_name(const cnn__layer *l, int number, cnn__text *text)
{
    cnn__snprintf(text->s, sizeof text->s, "layer%d_%s", number, l->type);
    cnn__to_c_name(text->s);
    return text->s;
}

/* Writes the function of layer i, if it has one; 0 and a message if it cannot be written. */
static int cnn__export_function(const cnn__export *e, int i)
{
    const cnn__layer *l = &e->net->layers[i];
    const cnn__tensor *t;
    cnn__text name, in, out;
    int n;
    cnn__label(l, i + 1, &name);
    if (cnn__has_code(l) && !l->kind->export_c)
        return cnn__fail(e->net, "cnn_export_c: %.150s has no C code: its kind lacks the function export_c", name.s);
    if (l->mixes_samples && !l->buffer_count)
        return cnn__fail(e->net, "cnn_export_c: %.150s has no running statistics: what it puts out depends on the "
                         "other samples of the batch; train it with them", name.s);
    if (strstr(l->name, "*/") || strstr(l->name, "/*"))
        return cnn__fail(e->net, "cnn_export_c: %.150s: its name would begin or end a comment of C", name.s);
    if (!cnn__has_code(l)) return 1;
    cnn__fprintf(e->file, "\n/* ---- %s: %s to %s ---- */\n\n", name.s, cnn__dims_text(l->in, &in),
                 cnn__dims_text(l->out, &out));
    for (n = 0; n < e->net->state_count; n++)
        if ((t = cnn__written(e, n)) && t->layer == i) cnn__export_array(e, t, ";\n");
    cnn__fprintf(e->file, "%sstatic void %s(float *out, const float *in", l->tensor_count + l->buffer_count ? "\n" : "",
                 cnn__function_name(l, i + 1, &name));
    for (n = 1; n < l->input_count; n++) cnn__fprintf(e->file, ", const float *in%d", n + 1);
    cnn__fprintf(e->file, ")\n{\n");
    l->kind->export_c(l, i + 1, e->file);
    cnn__fprintf(e->file, "}\n");
    return 1;
}

static void cnn__export_main(const cnn__export *e)
{
    cnn__text name, at, call, dims;
    char *end = call.s + sizeof call.s, *to;
    int count = e->net->layer_count, i, n;
    cnn__fprintf(e->file, "\n/* ---- the network ---- */\n\n");
    cnn__export_signature(e, "\n{\n");
    for (i = 0; i < e->buffer_count; i++)
        cnn__fprintf(e->file, "    static float buffer%d[%d];\n", i + 1, (int)cnn__buffer_size(e, i));
    if (e->buffer_count) cnn__fprintf(e->file, "\n");
    for (i = 0; i < count; i++) {
        const cnn__layer *l = &e->net->layers[i];
        if (!cnn__has_code(l)) continue;
        to = call.s + cnn__snprintf(call.s, sizeof call.s, "%.200s(%s", cnn__function_name(l, i + 1, &name),
                                    cnn__place_name(e, i, &at));
        for (n = 0; n < l->input_count; n++)
            to += cnn__snprintf(to, (size_t)(end - to), ", %s", cnn__place_name(e, l->inputs[n], &at));
        cnn__snprintf(to, (size_t)(end - to), ");");
        cnn__fprintf(e->file, "    %-48s /* %s */\n", call.s, cnn__dims_text(l->out, &dims));
    }
    if (cnn__writer_of(e, count - 1) < 0)                  /* no layer changes anything */
        cnn__fprintf(e->file, "    int i;\n    for (i = 0; i < %d; i++) y[i] = x[i];\n", (int)cnn__outputs(e->net));
    cnn__fprintf(e->file, "}\n");
}

static int cnn__write_export(cnn__export *e, const char *path)
{
    cnn_net *net = e->net;
    const cnn__tensor *t;
    cnn__writer w;
    int i;
    if (!cnn__begin_file(&w, path, &net->error)) return 0;
    e->file = w.file;
    cnn__choose_buffers(e);
    cnn__export_head(e);
    for (i = 0; i < net->layer_count && cnn__export_function(e, i); i++) { }
    cnn__export_main(e);
    if (net->state_count) cnn__fprintf(e->file, "\n/* ---- what was learned ---- */\n");
    for (i = 0; i < net->state_count; i++) {
        if (!(t = cnn__written(e, i))) continue;
        cnn__fprintf(e->file, "\n/* %s */\n", t->key);
        cnn__export_array(e, t, " =\n");
        cnn__export_values(e, t, e->parameters + t->offset, 0);
        cnn__fprintf(e->file, ";\n");
    }
    if (!cnn__stopped(net)) return cnn__end_file(&w, &net->error);
    cnn__abandon_file(&w);
    return 0;
}

int cnn_export_c(cnn_net *net, const char *path, const char *name)
{
    cnn__export e;
    int good;
    if (!cnn__ready(net) || !cnn__sync(net)) return 0;
    memset((void *)&e, 0, sizeof e);
    e.net = net;
    if (!path) return cnn__fail(net, "cnn_export_c: there is no path");
    if (!cnn__name_export(&e, path, name)) return 0;
    e.buffer = (int *)cnn__alloc(2 * (size_t)net->layer_count, sizeof *e.buffer);
    e.last_reader = e.buffer ? e.buffer + net->layer_count : NULL;
    e.parameters = cnn__download(net, net->parameters, net->state_size);
    if (!e.buffer) cnn__fail(net, "out of memory");
    good = !cnn__stopped(net) && cnn__write_export(&e, path);
    cnn__free(e.buffer);
    cnn__free(e.parameters);
    return good;
}

/* ============================================================================================
   >>look   Seeing what a network is and does: summary, gradient check, learning curves, one output value
            explained, the report.
   ============================================================================================ */

/* ---- summary ---- */

static double cnn__layer_parameters(const cnn__layer *l)   /* how many numbers; more layers may still be added */
{
    cnn__tensor t[CNN__TENSORS];
    double sum = 0, count;
    int tensors = l->kind->tensors ? l->kind->tensors(l, t) : 0, k, i;
    for (k = 0; k < tensors; k++, sum += count)
        for (count = 1, i = 0; i < t[k].ndim; i++) count *= t[k].shape[i];
    return sum;
}

static double cnn__layer_multiply_adds(const cnn__layer *l)                 /* of one sample, forward */
{ return (double)cnn__size(l->out) * l->multiply_adds; }

static const char *cnn__thousands(double n, cnn__text *text)                /* 1,234,567 */
{
    char digits[64];
    int length = cnn__snprintf(digits, sizeof digits, "%.0f", n), i, to = 0;
    for (i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) text->s[to++] = ',';
        text->s[to++] = digits[i];
    }
    text->s[to] = 0;
    return text->s;
}

static double cnn__output_bytes(const cnn_net *net, int i) { return 4.0 * (double)cnn__size(cnn__dims_at(net, i)); }

/* ` 3  conv2 (conv2d)`, and the rows that it reads where they are not the one above alone; -1: ` 0  input`. Returns its
   length. */
static int cnn__row_label(const cnn_net *net, int i, cnn__text *text)
{
    const cnn__layer *l;
    int k, length;
    if (i < 0) return cnn__snprintf(text->s, sizeof text->s, " 0  input");
    l = &net->layers[i];
    length = cnn__snprintf(text->s, sizeof text->s, "%2d  %s (%s)", i + 1, l->name, l->type);
    for (k = 0; k < l->input_count && (l->input_count > 1 || l->inputs[0] != i - 1); k++)
        length += cnn__snprintf(text->s + length, sizeof text->s - (size_t)length, "%s %d", k ? "," : " from",
                                l->inputs[k] + 1);
    return length;
}

typedef struct cnn__columns { int label, output, bytes; } cnn__columns;    /* their widths, in characters */

static void cnn__widen(int *width, const char *text)
{ if (*width < (int)strlen(text)) *width = (int)strlen(text); }

/* Numbers below `least` are left out. */
static void cnn__summary_row(FILE *out, const cnn__columns *width, const char *label, const char *output,
                             double parameters, double work, double bytes, double least)
{
    cnn__text p, w, b;
    if ((int)strlen(label) > width->label) {               /* a line of its own */
        cnn__fprintf(out, "%s\n", label);
        label = "";
    }
    cnn__fprintf(out, "%-*s %*s %10s %13s %*s\n", width->label, label, width->output, output,
                 parameters < least ? "" : cnn__thousands(parameters, &p),
                 work < least ? "" : cnn__thousands(work, &w), width->bytes, cnn__thousands(bytes, &b));
}

/* The table fits a terminal of 80 columns. */
void cnn_summary(cnn_net *net, FILE *out)
{
    cnn__columns width = { 25, 12, 8 };                    /* the least: the longest text of the last line, ... */
    cnn__text dims, label;
    double all_work = 0, all_parameters = 0, all_bytes = 0;
    int i, length, room;
    if (cnn__stopped(net)) return;
    if (!net->layer_count) { cnn__fail(net, "the network has no layers"); return; }
    for (i = -1; i < net->layer_count; i++) {
        all_bytes += cnn__output_bytes(net, i);
        cnn__widen(&width.output, cnn__dims_text(cnn__dims_at(net, i), &dims));
    }
    cnn__widen(&width.bytes, cnn__thousands(all_bytes, &dims));
    room = 80 - width.output - 10 - 13 - width.bytes - 4;
    for (i = 0; i < net->layer_count; i++) {
        length = cnn__row_label(net, i, &label);
        if (length > width.label && length <= room) width.label = length;
    }
    cnn__fprintf(out, "%-*s %*s %10s %13s %*s\n", width.label, "    layer", width.output, "output", "parameters",
                 "multiply-adds", width.bytes, "bytes");
    for (i = -1; i < net->layer_count; i++) {
        const cnn__layer *l = i < 0 ? NULL : &net->layers[i];
        double p = l ? cnn__layer_parameters(l) : 0, m = l ? cnn__layer_multiply_adds(l) : 0;
        cnn__row_label(net, i, &label);
        cnn__summary_row(out, &width, label.s, cnn__dims_text(cnn__dims_at(net, i), &dims), p, m,
                         cnn__output_bytes(net, i), 1);
        all_work += m;
        all_parameters += p;
    }
    cnn__summary_row(out, &width, "    total, for one sample", "", all_parameters, all_work, all_bytes, 0);
}

static size_t cnn__input_size(const cnn__layer *l, int k) { return cnn__size(k ? l->other : l->in); }

/* Input k of layer `number` in the last forward pass, in backend memory; *own, if it had to be computed again, is the
   caller's to free. */
static const float *cnn__input_of(cnn_net *net, int number, int k, float **own)
{
    int from = net->layers[number].inputs[k];
    return from < 0 ? net->pass.x : cnn__activation_of(net, from, own);
}

/* Layer `number` with its inputs and all parameters copied to the host, as `at` and `explain` want it */
static cnn__op cnn__op_on_host(const cnn_net *net, int number, float *const x[CNN__INPUTS], float *parameters,
                               const cnn_counters *counters)
{
    cnn__op op = cnn__op_of(net, number);
    int i;
    cnn__set_batch(&op, net->pass.batch, !net->pass.evaluating);
    cnn__bind(net, &op, parameters);
    op.counters = counters;
    for (i = 0; i < op.layer->input_count; i++) op.x[i] = x[i];
    return op;
}

/* ---- gradient check ---- */

/* sum of dy * layer(x), in double, over the samples n0 .. n1-1: the loss whose gradients backward should give */
static double cnn__check_loss(const cnn__op *c, int n0, int n1)
{
    cnn__dims out = c->layer->out;
    const float *dy = c->dy + cnn__size(out) * (size_t)n0;
    double sum = 0;
    int n, k, row, column;
    for (k = 0; c->moments && k < out.channels; k++) c->moments[k].var = -1;
    for (n = n0; n < n1; n++)
        for (k = 0; k < out.channels; k++)
            for (row = 0; row < out.height; row++)
                for (column = 0; column < out.width; column++)
                    sum += (double)*dy++ * (c->layer->kind->at)(c, n, k, row, column);      /* `at` may be a macro */
    return sum;
}

/* NaN is the worst */
static int cnn__is_worse(double error, double worst) { return worst == worst && !(error <= worst); }

/* values: an input of the layer or a parameter, as c points to them; one at a time is moved. per_sample: how many
   values a sample of that input has; 0 for a parameter */
static void cnn__check_tensor(const cnn__op *c, const char *what, float *values, const float *gradient, size_t count,
                              size_t per_sample, int samples, cnn_gradcheck_result *result, FILE *out)
{
    int checked = 0, kinks = 0, failed = 0, s;
    double scale = 0, worst = 0;
    size_t i;
    for (i = 0; i < count; i++) if (fabs((double)gradient[i]) > scale) scale = fabs((double)gradient[i]);
    for (s = 0; s < samples && (size_t)s < count; s++) {
        size_t drawn = cnn__word(0, CNN__STREAM_CHECK, (uint64_t)c->first, (size_t)s) % count;
        size_t at = (size_t)samples >= count ? (size_t)s : drawn;
        int alone = per_sample && !cnn__mixes(c->layer, c->training);
        int n0 = alone ? (int)(at / per_sample) : 0, n1 = alone ? n0 + 1 : c->batch;
        float value = values[at], h = 0.0009765625f * (1 + (float)fabs((double)value));
        double here, above, below, slope, up, down, error;
        volatile float higher = value + h, lower = value - h;      /* as floats: the step that is really taken */
        here = cnn__check_loss(c, n0, n1);
        values[at] = higher; above = cnn__check_loss(c, n0, n1);
        values[at] = lower;  below = cnn__check_loss(c, n0, n1);
        values[at] = value;
        up = (above - here) / ((double)higher - (double)value);
        down = (here - below) / ((double)value - (double)lower);
        slope = (above - below) / ((double)higher - (double)lower);
        if (c->layer->has_kinks && fabs(up - down) > 1e-6 * scale) {       /* these layers are straight elsewhere */
            kinks++;
            continue;
        }
        /* 1: just tolerated */
        error = fabs((double)gradient[at] - slope) / (1e-3 * fabs(slope) + 1e-4 * scale + 1e-12);
        checked++;
        if (!(error <= 1)) failed++;
        if (cnn__is_worse(error, worst)) worst = error;
    }
    if (out)
        cnn__fprintf(out, "%2d  %-28s %-7s %4d checked %3d kinks %3d failed, worst at %.3f of the tolerance\n",
                     c->first + 1, c->layer->name, what, checked, kinks, failed, worst);
    result->checked += checked;
    result->kinks += kinks;
    result->failed += failed;
    if (cnn__is_worse(worst, result->worst)) {
        result->worst = worst;
        result->where = c->layer->name;
    }
}

/* Runs a layer forward and backward on op->x: its dx, on the host, and the net's gradients. The caller frees dx. */
static void cnn__check_backward(cnn_net *net, cnn__op *op, const float *dy, float **dx)
{
    const cnn__layer *l = &net->layers[op->first];
    size_t batch = (size_t)net->pass.batch, outs = cnn__size(l->out) * batch;
    float *gradient = cnn__alloc_floats(net, outs, "the gradient check");
    int k;
    op->y = cnn__alloc_floats(net, outs, "the gradient check");
    op->index = op->kept ? (unsigned char *)cnn__backend_alloc(net, op->kept, 1, "the gradient check") : NULL;
    for (k = 0; k < l->input_count; k++)
        op->dx[k] = cnn__alloc_floats(net, cnn__input_size(l, k) * batch, "the gradient check");
    if (!cnn__stopped(net) && cnn__need_work(net, cnn__op_work(net, op, net->pass.batch))) {
        cnn__upload(net, gradient, dy, sizeof *dy * outs);
        cnn__zero(net, net->pass.gradients, sizeof(float) * net->parameter_count);
        cnn__op_forward(net, op, net->pass.batch);
        op->dy = gradient;
        cnn__op_backward(net, op, net->pass.batch);
        for (k = 0; k < l->input_count; k++) dx[k] = cnn__download(net, op->dx[k], cnn__input_size(l, k) * batch);
    }
    for (k = 0; k < l->input_count; k++) cnn__backend_free(net, &op->dx[k]);
    cnn__backend_free(net, &gradient);
    cnn__backend_free(net, &op->y);
    cnn__backend_free(net, &op->index);
}

static void cnn__check_layer(cnn_net *net, int number, int samples, cnn_gradcheck_result *result, FILE *out)
{
    static const char *const names[CNN__INPUTS] = { "input", "other" };
    const cnn__layer *l = &net->layers[number];
    size_t batch = (size_t)net->pass.batch, outs = cnn__size(l->out) * batch, i;
    float *x[CNN__INPUTS] = { NULL }, *dx[CNN__INPUTS] = { NULL }, *own[CNN__INPUTS] = { NULL };
    float *dy = (float *)cnn__alloc(outs, sizeof *dy), *gradients = NULL, *parameters = NULL;
    cnn__moments *moments = (cnn__moments *)cnn__alloc((size_t)l->in.channels, sizeof *moments);
    cnn__op op = cnn__op_of(net, number);
    int k;
    if (!dy || !moments) cnn__fail(net, "out of memory");
    for (i = 0; dy && i < outs; i++) dy[i] = 2 * cnn__unit(cnn__word(1, CNN__STREAM_CHECK, (uint64_t)number, i)) - 1;
    for (k = 0; k < l->input_count && !cnn__stopped(net); k++)
        if ((op.x[k] = cnn__input_of(net, number, k, &own[k])) != NULL)
            x[k] = cnn__download(net, op.x[k], cnn__input_size(l, k) * batch);
    if (!cnn__stopped(net)) cnn__check_backward(net, &op, dy, dx);
    if (!cnn__stopped(net)) gradients = cnn__download(net, net->pass.gradients, net->parameter_count);
    if (!cnn__stopped(net)) parameters = cnn__download(net, net->parameters, net->state_size);
    if (!cnn__stopped(net)) {
        cnn_counters counters = cnn__read_counters(net);
        cnn__op c = cnn__op_on_host(net, number, x, parameters, &counters);
        const cnn__tensor *t = net->tensors + l->first_tensor;
        c.dy = dy;
        c.moments = l->mixes_samples ? moments : NULL;
        for (k = 0; k < l->input_count; k++)
            cnn__check_tensor(&c, names[k], x[k], dx[k], cnn__input_size(l, k) * batch, cnn__input_size(l, k), samples,
                              result, out);
        for (k = 0; k < l->tensor_count; k++, t++)
            if (!l->frozen[k])
                cnn__check_tensor(&c, t->name, c.tensors[k], gradients + t->offset, t->count, 0, samples, result, out);
    }
    for (k = 0; k < l->input_count; k++) cnn__free(x[k]), cnn__free(dx[k]), cnn__backend_free(net, &own[k]);
    cnn__free(dy); cnn__free(gradients); cnn__free(parameters); cnn__free(moments);
}

cnn_gradcheck_result cnn_gradcheck(cnn_net *net, const cnn_batch *batch, int samples, FILE *out)
{
    cnn_gradcheck_result result = { 0, 0, 0, 0, "" };
    cnn_counters c;
    int i, tf32;
    if (cnn__begin_look(net)) {                            /* now net->look is training's pass */
        tf32 = net->allow_tf32;
        net->allow_tf32 = 0;                               /* its rounding is larger than what a check lets pass */
        net->pass.evaluating = net->look.evaluating;       /* in training's mode, with its next dropout masks */
        cnn__fetch(net, &c, net->look.counters, sizeof c);
        c.batch_offset = c.next_offset = 0;
        net->pass.order_next = 0;
        cnn__write_counters(net, &c);
        if (!net->pass.gradients)
            net->pass.gradients = cnn__alloc_floats(net, net->parameter_count, "the gradient check");
        cnn_forward(net, batch);
        for (i = 0; !cnn__stopped(net) && i < net->layer_count; i++)
            if (net->layers[i].kind->forward && !cnn__does_nothing(net, &net->layers[i]))
                cnn__check_layer(net, i, samples > 0 ? samples : 10, &result, out);
        net->allow_tf32 = tf32;
        cnn__end_look(net);
    }
    if (cnn__stopped(net)) result.failed++;
    return result;
}

/* ---- learning curves ---- */

/* A loss or an accuracy, in training or test. Infinite, which is not drawn, where an epoch was not tested. */
static double cnn__curve_at(const cnn_net *net, int accuracy, int test, int i)
{
    const cnn_score *score = test ? &net->history[i].test : &net->history[i].train;
    if (test && !score->count) return HUGE_VAL;
    return accuracy ? 100 * score->accuracy : score->loss;
}

static int cnn__has_test(const cnn_net *net)               /* in any epoch: not all need one */
{
    int i = 0;
    while (i < net->history_count && !net->history[i].test.count) i++;
    return i < net->history_count;
}

/* Round numbers for an axis: the step is 1, 2 or 5 times a power of ten, about four to a side. */
static double cnn__axis_step(double low, double high)
{
    double raw = (high - low) / 4 * (1 - 1e-9), power = pow(10, floor(log10(raw)));      /* less than rounding adds */
    return raw / power > 5 ? 10 * power : raw / power > 2 ? 5 * power : raw / power > 1 ? 2 * power : power;
}

static int cnn__order(double x) { return (int)floor(log10(x) + 1e-9); }    /* 3 for 1000 to 9999, -1 for 0.1 to 0.99 */

/* A number at an axis, of at most 9 characters. All of one axis have the decimals that tell neighbours `step` apart. */
static const char *cnn__axis_text(double v, double low, double high, double step, cnn__text *text)
{
    double largest = fabs(low) > fabs(high) ? fabs(low) : fabs(high);
    int order = cnn__order(step);
    if (largest >= 1e6 || largest < 1e-3)
        cnn__snprintf(text->s, sizeof text->s, "%.*e", cnn__order(largest) - order, v);
    else
        cnn__snprintf(text->s, sizeof text->s, "%.*f", order < 0 ? -order : 0, v);
    if (strlen(text->s) > 9) cnn__snprintf(text->s, sizeof text->s, "%.2e", v);            /* the sketch's margin */
    return text->s;
}

/* returns the axis's step */
static double cnn__curve_range(const cnn_net *net, int accuracy, double *low, double *high)
{
    int i, test;
    double step;
    *low = HUGE_VAL;
    *high = -HUGE_VAL;
    for (test = 0; test < 2; test++)
        for (i = 0; i < net->history_count; i++) {
            double v = cnn__curve_at(net, accuracy, test, i);
            if (!(v - v == 0)) continue;                                   /* NaN, infinity */
            if (v < *low) *low = v;
            if (v > *high) *high = v;
        }
    if (!(*low <= *high)) *low = 0, *high = 1;
    if (*high - *low < 1e-6 * (1 + fabs(*low))) *high = *low + 1e-3 * (1 + fabs(*low));
    step = cnn__axis_step(*low, *high);
    *low = floor(*low / step) * step;
    *high = ceil(*high / step) * step;
    return step;
}

/* The text between two pieces of HTML or SVG, its <, >, & and " as they want them; NULL is "" */
static void cnn__put_text(FILE *f, const char *before, const char *text, const char *after)
{
    fputs(before, f);
    for (; text && *text; text++)
        if (*text == '<') fputs("&lt;", f);
        else if (*text == '>') fputs("&gt;", f);
        else if (*text == '&') fputs("&amp;", f);
        else if (*text == '"') fputs("&quot;", f);
        else fputc(*text, f);
    fputs(after, f);
}

static double cnn__epoch_x(int epochs, int i)              /* one epoch alone stands in the middle */
{ return 320 * (epochs > 1 ? (double)i / (epochs - 1) : 0.5); }

/* A plot of 320 x 220: the losses, or on their right the accuracies */
static void cnn__svg_plot(FILE *f, const cnn_net *net, int accuracy)
{
    static const char *const colour[2] = { "#1f77b4", "#d95f02" }, *const legend[2] = { "train", "test" };
    double low, high, step = cnn__curve_range(net, accuracy, &low, &high), v, x = 0, y = 0;
    int c, i, n = net->history_count, every = n > 10 ? (int)cnn__axis_step(0, 0.4 * n) : 1;
    cnn__text text;
    cnn__fprintf(f, "<g transform=\"translate(%d 70)\">\n<text x=\"160\" y=\"-12\" text-anchor=\"middle\" "
                 "font-size=\"15\">%s</text>\n", accuracy ? 480 : 70, accuracy ? "Accuracy" : "Loss");
    for (i = 0; i <= (int)((high - low) / step + 0.5); i++) {
        v = low + i * step;
        y = 220 * (high - v) / (high - low);
        cnn__fprintf(f, "<line x1=\"0\" x2=\"320\" y1=\"%.1f\" y2=\"%.1f\" class=\"grid\"/><text x=\"-8\" y=\"%.1f\" "
                     "text-anchor=\"end\">%s</text>\n", y, y, y + 4, cnn__axis_text(v, low, high, step, &text));
    }
    for (i = 0; i < n; i++) {                              /* at most ten numbers, all as far apart */
        if (net->history[i].epoch % every) continue;
        x = cnn__epoch_x(n, i);
        cnn__fprintf(f, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"220\" class=\"grid\"/><text x=\"%.1f\" y=\"238\" "
                     "text-anchor=\"middle\">%d</text>\n", x, x, x, net->history[i].epoch);
    }
    cnn__fprintf(f, "<rect width=\"320\" height=\"220\" class=\"axis\"/>\n<text x=\"160\" y=\"258\" "
                 "text-anchor=\"middle\">epoch</text>\n<text transform=\"translate(-46 110) rotate(-90)\" "
                 "text-anchor=\"middle\">%s</text>\n", accuracy ? "accuracy, %" : "mean loss per sample");
    for (c = 0; c < 1 + cnn__has_test(net); c++) {
        int at = 18 * c + (accuracy ? 190 : 20), points = 0;
        cnn__fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour[c]);
        for (i = 0; i < n; i++) {
            v = cnn__curve_at(net, accuracy, c, i);
            if (!(v - v == 0)) continue;
            x = cnn__epoch_x(n, i);
            y = 220 * (high - v) / (high - low);
            cnn__fprintf(f, "%.1f,%.1f ", x, y);
            points++;
        }
        cnn__fprintf(f, "\"/>\n");
        if (points == 1)                                   /* one point makes no line */
            cnn__fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", x, y, colour[c]);
        cnn__fprintf(f, "<line x1=\"240\" x2=\"264\" y1=\"%d\" y2=\"%d\" stroke=\"%s\" stroke-width=\"2\"/>"
                     "<text x=\"272\" y=\"%d\">%s</text>\n", at, at, colour[c], at + 4, legend[c]);
    }
    cnn__fprintf(f, "</g>\n");
}

static void cnn__write_curves_svg(FILE *f, const cnn_net *net, const char *title)
{
    cnn__put_text(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 350\" font-family=\"sans-serif\" "
                  "font-size=\"12\">\n<style>.grid{stroke:#ddd}.axis{fill:none;stroke:#444}text{fill:#222}</style>\n"
                  "<rect width=\"820\" height=\"350\" fill=\"#fff\"/>\n"
                  "<text x=\"410\" y=\"26\" text-anchor=\"middle\" font-size=\"18\">", title, "</text>\n");
    cnn__svg_plot(f, net, 0);
    cnn__svg_plot(f, net, 1);
    cnn__fprintf(f, "</svg>\n");
}

static int cnn__has_history(cnn_net *net, const char *call)
{
    if (cnn__stopped(net)) return 0;
    if (!net->history_count) cnn__fail(net, "%s: there are no epochs to draw; call cnn_fit first", call);
    return net->history_count;
}

int cnn_save_curves_svg(cnn_net *net, const char *path, const char *title)
{
    cnn__writer w;
    if (!cnn__has_history(net, "cnn_save_curves_svg") || !cnn__begin_file(&w, path, &net->error)) return 0;
    cnn__write_curves_svg(w.file, net, title);
    return cnn__end_file(&w, &net->error);
}

int cnn_save_curves_csv(cnn_net *net, const char *path)
{
    cnn__writer w;
    int i;
    if (!cnn__has_history(net, "cnn_save_curves_csv") || !cnn__begin_file(&w, path, &net->error)) return 0;
    cnn__fprintf(w.file, "epoch,train_loss,train_acc,test_loss,test_acc,lr,seconds\n");
    for (i = 0; i < net->history_count; i++) {
        const cnn_epoch *e = &net->history[i];
        cnn__fprintf(w.file, "%d,%.9g,%.9g,", e->epoch, e->train.loss, e->train.accuracy);
        if (e->test.count) cnn__fprintf(w.file, "%.9g,%.9g", e->test.loss, e->test.accuracy);
        else cnn__fprintf(w.file, ",");
        cnn__fprintf(w.file, ",%.9g,%.3f\n", (double)e->lr, e->seconds);
    }
    return cnn__end_file(&w, &net->error);
}

/* One mark an epoch, in its column; one epoch alone stands in the middle, as in the SVG. */
static void cnn__sketch(const cnn_net *net, FILE *out, int accuracy)
{
    enum { width = 60, height = 9 };
    char cell[height][width];
    double low, high, step = cnn__curve_range(net, accuracy, &low, &high);
    int test, i, row, column, n = net->history_count;
    cnn__text text;
    memset(cell, ' ', sizeof cell);
    for (test = 0; test < 2; test++)
        for (i = 0; i < n; i++) {
            double v = cnn__curve_at(net, accuracy, test, i);
            char mark = test ? 'o' : '.', *at;
            if (!(v - v == 0)) continue;
            column = n > 1 ? (int)((double)i * (width - 1) / (n - 1) + 0.5) : width / 2;
            row = (int)((high - v) / (high - low) * (height - 1) + 0.5);
            at = &cell[row][column];
            *at = *at == ' ' || *at == mark ? mark : '8';
        }
    cnn__fprintf(out, "%s%s\n", accuracy ? "accuracy, %" : "loss",
                 cnn__has_test(net) ? ": . train  o test  8 both" : " (training)");
    for (row = 0; row < height; row++) {                   /* a number at the top, in the middle and at the bottom */
        double v = high - (high - low) * row / (height - 1);
        cnn__fprintf(out, "%9s |%.*s\n", row % (height / 2) ? "" : cnn__axis_text(v, low, high, step / 10, &text),
                     width, cell[row]);
    }
    cnn__fprintf(out, "          +------------------------------------------------------------\n");
    if (n > 1)
        cnn__fprintf(out, "           epoch %-3d%*d\n", net->history[0].epoch, width - 9, net->history[n - 1].epoch);
    else
        cnn__fprintf(out, "%*s %d\n", 10 + width / 2, "epoch", net->history[0].epoch);  /* the number below the mark */
}

void cnn_print_curves(const cnn_net *net, FILE *out)
{
    if (cnn__stopped(net) || !net->history_count) return;
    cnn__sketch(net, out, 0);
    cnn__sketch(net, out, 1);
}

/* ---- explain: one output value, with its numbers ---- */

int cnn_explain(cnn_net *net, const char *layer, int channel, int row, int column, FILE *out)
{
    const cnn__layer *l;
    float *x[CNN__INPUTS] = { NULL }, *own = NULL, *parameters;
    const float *input;
    int number, samples, k;
    cnn__text dims;
    if (!cnn__ready(net)) return 0;
    number = cnn__find_layer(net, layer);
    if (number < 0) return cnn__no_such_key(net, "cnn_explain", "layer", layer), 0;
    if (!net->pass.batch)
        return cnn__fail(net, "cnn_explain: layer \"%.80s\" has no output yet; call cnn_forward first", layer);
    l = &net->layers[number];
    if (channel < 0 || row < 0 || column < 0 || channel >= l->out.channels || row >= l->out.height
        || column >= l->out.width)
        return cnn__fail(net, "cnn_explain: layer \"%.80s\" puts out %s; there is no value (%d, %d, %d)", layer,
                         cnn__dims_text(l->out, &dims), channel, row, column);
    samples = cnn__mixes(l, !net->pass.evaluating) ? net->pass.batch : 1;
    for (k = 0; k < l->input_count; k++, cnn__backend_free(net, &own))
        if ((input = cnn__input_of(net, number, k, &own)) != NULL)
            x[k] = cnn__download(net, input, cnn__input_size(l, k) * (size_t)samples);
    parameters = cnn__download(net, net->parameters, net->state_size);
    if (!cnn__stopped(net)) {
        cnn_counters counters = cnn__read_counters(net);
        cnn__op c = cnn__op_on_host(net, number, x, parameters, &counters);
        cnn__fprintf(out, "layer %d (%s \"%s\"): ", number + 1, l->type, l->name);
        l->kind->explain(&c, out, channel, row, column);
    }
    for (k = 0; k < l->input_count; k++) cnn__free(x[k]);
    cnn__free(parameters);
    return !cnn__stopped(net);
}

/* ---- the report: one page, with everything in it ---- */

typedef struct cnn__page { FILE *file; unsigned bits; int count; uint32_t crc; } cnn__page;

static void cnn__base64(cnn__page *page, int byte)         /* three bytes go out as four digits; -1: the end */
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int k;
    if (byte >= 0) page->bits |= (unsigned)byte << (16 - 8 * page->count++);
    if (!page->count || (byte >= 0 && page->count < 3)) return;
    for (k = 0; k < 4; k++) fputc(k <= page->count ? digit[page->bits >> (18 - 6 * k) & 63] : '=', page->file);
    page->bits = 0;
    page->count = 0;
}

static void cnn__png_word(cnn__page *page, uint32_t word, int bytes)       /* highest byte first */
{
    while (bytes--) {
        unsigned char byte = (unsigned char)(word >> 8 * bytes);
        page->crc = cnn__crc32(page->crc, &byte, 1);
        cnn__base64(page, byte);
    }
}

/* A chunk: its length, its kind, its bytes, and the CRC of kind and bytes. This begins one. */
static void cnn__png_chunk(cnn__page *page, size_t length, uint32_t kind)
{
    cnn__png_word(page, (uint32_t)length, 4);
    page->crc = 0;
    cnn__png_word(page, kind, 4);
}

/* An <img> of a PNG (RFC 2083) whose pixels, (height, width, channels) with 1 or 3 channels, are stored uncompressed.
   It is shown as large as whole pixels fit into `side`; what has one row is stretched, or it could not be seen. */
static void cnn__picture(FILE *file, const unsigned char *pixels, int width, int height, int channels, int side,
                         const char *alt)
{
    const size_t most = 65535;                             /* the bytes that a stored block of deflate can hold */
    int larger = width > height ? width : height, zoom = side > larger ? side / larger : 1, least = 16;
    cnn__page page = { file, 0, 0, 0 };
    size_t row = (size_t)width * (size_t)channels + 1, all = row * (size_t)height, i;
    uint32_t a = 1, b = 0;
    cnn__fprintf(file, "<img width=\"%d\" height=\"%d\" alt=\"%s\" src=\"data:image/png;base64,",
            width * zoom > least ? width * zoom : least, height * zoom > least ? height * zoom : least, alt);
    cnn__png_word(&page, 0x89504e47u, 4); cnn__png_word(&page, 0x0d0a1a0au, 4);
    cnn__png_chunk(&page, 13, 0x49484452u);                /* IHDR: width, height, 8 bits, grey or RGB */
    cnn__png_word(&page, (uint32_t)width, 4); cnn__png_word(&page, (uint32_t)height, 4);
    cnn__png_word(&page, channels == 3 ? 0x0802u : 0x0800u, 2); cnn__png_word(&page, 0, 3);
    cnn__png_word(&page, page.crc, 4);
    cnn__png_chunk(&page, 2 + all + 5 * ((all + most - 1) / most) + 4, 0x49444154u);       /* IDAT: a zlib stream */
    cnn__png_word(&page, 0x7801u, 2);
    for (i = 0; i < all; i++) {
        uint32_t byte = i % row ? *pixels++ : 0;           /* each row begins with filter 0 */
        if (i % most == 0) {                               /* a block: is it the last, its length, and inverted */
            uint32_t length = (uint32_t)(all - i < most ? all - i : most);
            uint32_t low_first = (length << 8 | length >> 8) & 0xffff;
            cnn__png_word(&page, all - i <= most, 1);
            cnn__png_word(&page, low_first << 16 | (low_first ^ 0xffff), 4);
        }
        cnn__png_word(&page, byte, 1);
        a = (a + byte) % 65521;
        b = (b + a) % 65521;
    }
    cnn__png_word(&page, b << 16 | a, 4); cnn__png_word(&page, page.crc, 4);
    cnn__png_chunk(&page, 0, 0x49454e44u); cnn__png_word(&page, page.crc, 4);              /* IEND */
    cnn__base64(&page, -1);
    cnn__fprintf(file, "\">\n");
}

/* Numbers (channels, area) as bytes (area, channels), from black, the smallest of all, to white; NaN is black.
   centred: 0 is grey */
static void cnn__grey_pixels(unsigned char *pixels, const float *maps, int area, int channels, int centred)
{
    float low = (float)HUGE_VAL, high = -low;              /* NaN is neither, wherever it stands */
    int i, c;
    for (i = 0; i < channels * area; i++) {
        if (maps[i] < low) low = maps[i];
        if (maps[i] > high) high = maps[i];
    }
    if (centred) {
        high = high > -low ? high : -low;
        low = -high;
    }
    for (c = 0; c < channels; c++)
        for (i = 0; i < area; i++) {
            float share = high > low ? (maps[c * area + i] - low) / (high - low) : 0;
            pixels[i * channels + c] = (unsigned char)(share > 0 ? 255 * (share < 1 ? share : 1) : 0);
        }
}

/* A sample of the data set as bytes, (height, width, channels): grey or RGB; of other channel numbers the first one.
   0 and an error if it cannot be read. */
static int cnn__sample_pixels(cnn_net *net, unsigned char *pixels, const cnn_data *data, int sample, int *channels)
{
    int map = data->height * data->width, c, i;
    size_t first = (size_t)sample * (size_t)data->channels * (size_t)map;
    const unsigned char *bytes = data->bytes ? data->bytes + first : NULL;
    if (data->read) {
        cnn_batch one;
        one.data = data; one.order = &sample; one.size = 1;
        if (!(bytes = cnn__read_samples(net, &one))) return 0;
    }
    *channels = data->channels == 3 ? 3 : 1;
    if (data->floats) cnn__grey_pixels(pixels, data->floats + first, map, *channels, 0);
    for (c = 0; bytes && c < *channels; c++)
        for (i = 0; i < map; i++) pixels[i * *channels + c] = bytes[c * map + i];
    return 1;
}

static const int cnn__map_side = 56, cnn__sample_side = 84;                /* of a picture, in pixels of the page */

/* Maps (count, channels, height, width) as pictures, each from black to white */
static void cnn__map_pictures(FILE *f, cnn_net *net, const float *maps, int count, int height, int width, int channels,
                              int centred, const char *alt)
{
    int area = height * width, m;
    unsigned char *pixels = (unsigned char *)cnn__alloc((size_t)area, (size_t)channels);
    if (!pixels) { cnn__fail(net, "cnn_report: out of memory"); return; }
    cnn__fprintf(f, "<div class=\"maps\">\n");
    for (m = 0; m < count; m++, maps += channels * area) {
        cnn__grey_pixels(pixels, maps, area, channels, centred);
        cnn__picture(f, pixels, width, height, channels, cnn__map_side, alt);
    }
    cnn__fprintf(f, "</div>\n");
    cnn__free(pixels);
}

static const char *cnn__class_name(const cnn_data *data, int class_number, cnn__text *text)
{
    if (data->class_names && class_number >= 0
        && class_number < data->memory->classes) return data->class_names[class_number];
    cnn__snprintf(text->s, sizeof text->s, "%d", class_number);
    return text->s;
}

/* Which lane each input comes in, lane[layer * CNN__INPUTS + input], for those that are not the row above. Readers take
   lanes from top to bottom, each the first in which the shortcuts so far have ended where its own begins; so one that
   lies within another is nearer to the boxes. until: scratch, where each lane ends. Returns how many there are. */
static int cnn__graph_lanes(const cnn_net *net, int *lane, int *until)
{
    int lanes = 0, i, k, n;
    for (i = 0; i < net->layer_count; i++)
        for (k = 0; k < net->layers[i].input_count; k++) {
            int from = net->layers[i].inputs[k];
            if (from == i - 1) continue;
            for (n = 0; n < lanes && until[n] > from; n++) {}
            if (n == lanes) lanes++;
            until[n] = i;
            lane[i * CNN__INPUTS + k] = n;
        }
    return lanes;
}

/* A box for the samples and for each layer; lines between boxes, and beside them the shortcuts */
static void cnn__report_graph(FILE *f, cnn_net *net)
{
    enum { letter = 7, box = 16, row = box + 6, left = 36, gap = 14, apart = 10 };         /* in pixels */
    size_t most = (size_t)net->layer_count * CNN__INPUTS;
    int *lane = (int *)cnn__alloc(most, 2 * sizeof *lane), name = 0, kind = 0, output = 0, right, width, i, k;
    cnn__text dims;
    if (!lane) { cnn__fail(net, "cnn_report: out of memory"); return; }
    for (i = -1; i < net->layer_count; i++) {              /* the longest texts */
        cnn__widen(&name, i < 0 ? "input" : net->layers[i].name);
        cnn__widen(&kind, i < 0 ? "" : net->layers[i].type);
        cnn__widen(&output, cnn__dims_text(cnn__dims_at(net, i), &dims));
    }
    right = left + (name + kind + output) * letter + 4 * gap;
    width = right + (cnn__graph_lanes(net, lane, lane + most) + 1) * apart;
    cnn__fprintf(f, "<svg class=\"graph\" role=\"img\" width=\"%d\" viewBox=\"0 0 %d %d\">\n<title>The network's graph"
                 "</title><desc>%d layers from top to bottom, and what each reads</desc>\n", width, width,
                 (net->layer_count + 1) * row, net->layer_count);
    for (i = -1; i < net->layer_count; i++) {
        const cnn__layer *l = i < 0 ? NULL : &net->layers[i];
        int y = (i + 1) * row + row - box - 1;
        cnn__fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"%s/><text y=\"%d\"><tspan x=\"%d\" "
                     "text-anchor=\"end\">%d</tspan><tspan x=\"%d\">", left, y, right - left, box,
                     l && l->tensor_count ? " class=\"learns\"" : "", y + 12, left - 8, i + 1, left + gap / 2);
        cnn__put_text(f, "", l ? l->name : "input", "</tspan>");
        cnn__fprintf(f, "<tspan x=\"%d\">%s</tspan><tspan x=\"%d\" text-anchor=\"end\">%s</tspan></text>\n",
                     left + gap / 2 + name * letter + gap, l ? l->type : "", right - 3 * gap / 2,
                     cnn__dims_text(cnn__dims_at(net, i), &dims));
        for (k = 0; l && k < l->input_count; k++)
            if (l->inputs[k] == i - 1)
                cnn__fprintf(f, "<path d=\"M%d %dV%d\"/>\n", right - gap / 2 * (k + 1), y - row + box, y);
            else                                           /* out below the middle of a box, in above it, with a tip */
                cnn__fprintf(f, "<path d=\"M%d %dH%dq6 0 6 6V%dq0 6 -6 6H%dl4 -3m-4 3l4 3\"/>\n",
                             right, y + (l->inputs[k] - i) * row + 11,
                             right + (lane[i * CNN__INPUTS + k] + 1) * apart - 6, y - 1, right);
    }
    cnn__fprintf(f, "</svg>\n");
    cnn__free(lane);
}

static void cnn__report_network(FILE *f, cnn_net *net)
{
    cnn__text a, b, c;
    double work = 0;
    int i;
    cnn__fprintf(f, "<h2>The network</h2>\n<p>A line brings a layer what it reads, from the one above or from further "
                 "up. Layers with parameters are tinted.</p>\n");
    cnn__report_graph(f, net);
    cnn__fprintf(f, "<div class=\"scroll\"><table class=\"network\"><tr><th>layer<th>kind<th>output"
                 "<th>parameters<th>multiply-adds</tr>\n<tr><td>input<td><td>%s<td><td></tr>\n",
                 cnn__dims_text(net->input, &a));
    for (i = 0; i < net->layer_count; i++) {
        const cnn__layer *l = &net->layers[i];
        double parameters = cnn__layer_parameters(l), m = cnn__layer_multiply_adds(l);
        cnn__fprintf(f, "<tr><td>%d. ", i + 1);
        cnn__put_text(f, "", l->name, "<td>");
        cnn__fprintf(f, "%s<td>%s<td>%s<td>%s</tr>\n", l->type, cnn__dims_text(l->out, &a),
                parameters > 0 ? cnn__thousands(parameters, &b) : "", m > 0 ? cnn__thousands(m, &c) : "");
        work += m;
    }
    cnn__fprintf(f, "<tr class=\"sum\"><td>total<td><td><td>%s<td>%s</tr></table></div>\n",
            cnn__thousands((double)cnn_num_parameters(net), &a), cnn__thousands(work, &b));
}

/* A network may have more outputs than the data set has classes: those are counted together, in a last column. */
static void cnn__report_classes(FILE *f, cnn_net *net, const cnn_data *data, const int *guess)
{
    int k = data->classes, other = (int)cnn__outputs(net) > k, columns = k + other, t, g, n, most = 1;
    int *counts = (int *)cnn__alloc((size_t)k * (size_t)columns, sizeof *counts);       /* (classes, columns) */
    cnn__text text;
    if (!counts) { cnn__fail(net, "cnn_report: out of memory"); return; }
    for (n = 0; n < data->count; n++)
        if (data->labels[n] != net->cross_entropy.ignore_index)
            counts[data->labels[n] * columns + cnn__smaller(guess[n], k)]++;
    for (t = 0; t < k; t++)
        for (g = 0; g < columns; g++) if (t != g && counts[t * columns + g] > most) most = counts[t * columns + g];
    cnn__fprintf(f, "<h2>Confusion matrix</h2>\n<p>Each row is a true class, each column what the network "
                 "said.</p>\n<div class=\"scroll\"><table class=\"confusion\"><tr><th>");
    for (g = 0; g < k; g++) cnn__put_text(f, "<th>", cnn__class_name(data, g, &text), "");
    cnn__fprintf(f, "%s</tr>\n", other ? "<th>other" : "");
    for (t = 0; t < k; t++) {
        cnn__put_text(f, "<tr><th>", cnn__class_name(data, t, &text), "");
        for (g = 0; g < columns; g++) {
            int c = counts[t * columns + g];
            if (t == g) cnn__fprintf(f, "<td class=\"right\">%d", c);
            else if (c) cnn__fprintf(f, "<td style=\"background:rgba(217,95,2,%.2f)\">%d", 0.12 + 0.7 * c / most, c);
            else cnn__fprintf(f, "<td class=\"none\">0");
        }
        cnn__fprintf(f, "</tr>\n");
    }
    cnn__fprintf(f, "</table></div>\n<h2>Class by class</h2>\n<p>Precision: of those called so, the share that are. "
                 "Recall: of those that are, the share called so.</p>\n<div "
                 "class=\"scroll\"><table><tr><th>class<th>precision<th>recall<th>samples</tr>\n");
    for (t = 0; t < k; t++) {
        int called = 0, are = 0;
        for (g = 0; g < k; g++) called += counts[g * columns + t];
        for (g = 0; g < columns; g++) are += counts[t * columns + g];
        cnn__put_text(f, "<tr><td>", cnn__class_name(data, t, &text), "");
        if (called) cnn__fprintf(f, "<td>%.2f %%", 100.0 * counts[t * columns + t] / called);
        else cnn__fprintf(f, "<td>-");
        if (are) cnn__fprintf(f, "<td>%.2f %%", 100.0 * counts[t * columns + t] / are);
        else cnn__fprintf(f, "<td>-");
        cnn__fprintf(f, "<td>%d</tr>\n", are);
    }
    cnn__fprintf(f, "</table></div>\n");
    cnn__free(counts);
}

static void cnn__report_mistakes(FILE *f, cnn_net *net, const cnn_data *data, const int *guess,
                                 const float *probability, unsigned char *pixels)
{
    enum { most = 24 };                                    /* whole rows of six, four, three or two */
    int shown[most], count = 0, n, k, channels, all = 0;
    double score[most];
    cnn__text text;
    for (n = 0; n < data->count; n++) {
        if (guess[n] == data->labels[n] || data->labels[n] == net->cross_entropy.ignore_index) continue;
        all++;
        count = cnn__rank(shown, score, count, most, n, (double)probability[n]);
    }
    cnn__fprintf(f, "<h2>The most confident mistakes</h2>\n<p>");
    if (!all) {
        cnn__fprintf(f, "No mistakes: all %d samples are right.</p>\n", data->count);
        return;
    }
    cnn__fprintf(f, "%d of %d samples %s wrong", all, data->count, all == 1 ? "is" : "are");
    if (all > most) cnn__fprintf(f, "; these %d it was surest of", most);
    else if (all > 1) cnn__fprintf(f, "; those it was surest of come first");
    cnn__fprintf(f, ".</p>\n<div class=\"cards\">\n");
    for (k = 0; k < count; k++) {
        n = shown[k];
        if (!cnn__sample_pixels(net, pixels, data, n, &channels)) break;
        cnn__fprintf(f, "<figure>");
        cnn__picture(f, pixels, data->width, data->height, channels, cnn__sample_side, "sample");
        cnn__put_text(f, "<figcaption>said <b>", cnn__class_name(data, guess[n], &text), "</b>");
        cnn__fprintf(f, " (%.1f&nbsp;%%)<br>", 100 * score[k]);
        cnn__put_text(f, "is <b>", cnn__class_name(data, data->labels[n], &text), "</b><br>");
        cnn__fprintf(f, "sample %d</figcaption></figure>\n", n);
    }
    cnn__fprintf(f, "</div>\n");
}

static void cnn__report_kernels(FILE *f, cnn_net *net)
{
    const cnn__layer *l = &net->layers[0];
    const cnn__tensor *t = net->tensors;    /* (kernels, depth, height, width); of conv1d without height */
    int colour, height, width;
    float *parameters;
    if (!l->tensor_count || t->ndim < 3) return;
    height = t->ndim > 3 ? t->shape[2] : 1;
    width = t->shape[t->ndim - 1];
    colour = t->shape[1] == 3;
    parameters = cnn__download(net, net->parameters, net->parameter_count);
    if (!parameters) return;
    cnn__fprintf(f, "<h2>The first layer's kernels</h2>\n<p>%d kernel%s of %d x %d x %d, %s.</p>\n", t->shape[0],
                 t->shape[0] == 1 ? "" : "s", t->shape[1], height, width,
                 colour ? "red, green and blue together; grey is 0" : "dark is negative, grey 0, bright positive");
    cnn__map_pictures(f, net, parameters + t->offset, t->shape[0] * (colour ? 1 : t->shape[1]), height, width,
                      colour ? 3 : 1, 1, "kernel");
    cnn__free(parameters);
}

static void cnn__report_maps(FILE *f, cnn_net *net, const cnn_data *data, unsigned char *pixels)
{
    enum { samples = 3, most_maps = 32 };
    int order[samples], count = 0, n, i, channels;
    cnn_batch batch;
    cnn__text text;
    for (n = 0; n < data->count && count < samples; n++) {                 /* of different classes */
        for (i = 0; i < count && data->labels[order[i]] != data->labels[n]; i++) {}
        if (i == count) order[count++] = n;
    }
    batch.data = data; batch.order = order; batch.size = count;
    if (!cnn__begin_look(net)) return;
    cnn_forward(net, &batch);
    cnn__fprintf(f, "<h2>What each layer sees</h2>\n<p>The maps of every layer for a few samples, each map from its "
                 "smallest value (black) to its largest (white); of more than %d maps the first.</p>\n", most_maps);
    for (n = 0; n < count && !cnn__stopped(net); n++) {
        cnn__fprintf(f, "<details%s><summary>sample %d: ", n ? "" : " open", order[n]);
        cnn__put_text(f, "", cnn__class_name(data, data->labels[order[n]], &text), "</summary>\n");
        if (!cnn__sample_pixels(net, pixels, data, order[n], &channels)) break;
        cnn__picture(f, pixels, data->width, data->height, channels, cnn__sample_side, "input");
        for (i = 0; i < net->layer_count; i++) {
            const cnn__layer *l = &net->layers[i];
            size_t size = cnn__size(l->out);
            float *own, *maps;
            const float *from;
            if (l->out.flat || l->training_only) continue;
            from = cnn__activation_of(net, i, &own);
            maps = from ? cnn__download(net, from + size * (size_t)n, size) : NULL;
            cnn__backend_free(net, &own);
            if (!maps) break;
            cnn__put_text(f, "<h3>", l->name, "");
            cnn__fprintf(f, " (%s), %s</h3>\n", l->type, cnn__dims_text(l->out, &text));
            cnn__map_pictures(f, net, maps, l->out.channels < most_maps ? l->out.channels : most_maps, l->out.height,
                              l->out.width, 1, 0, "map");
            cnn__free(maps);
        }
        cnn__fprintf(f, "</details>\n");
    }
    cnn__end_look(net);
}

int cnn_report(cnn_net *net, const cnn_data *data, const char *path, const char *title)
{
    static const char *const style =
        ":root{color-scheme:light dark;--ink:#222;--paper:#fff;--line:#ddd;--soft:#f4f4f2}"
        "@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#181a1b;--line:#3a3d3f;--soft:#232628}}"
        "body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;"
        "margin:0 auto;padding:1rem}h1{line-height:1.2}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}"
        "h3{font-size:.95rem;font-weight:600;margin:1rem 0 .3rem}.scroll{overflow-x:auto}"
        "table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}"
        "th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}"
        "th:first-child,td:first-child,.network :nth-child(2){text-align:left}.sum td{font-weight:600}"
        ".confusion td{text-align:center;min-width:2.2rem}"
        ".confusion .right{background:rgba(27,158,119,.28);font-weight:600}.confusion .none{opacity:.35}"
        ".cards{display:grid;grid-template-columns:repeat(6,1fr);gap:.8rem}"
        "@media(max-width:54rem){.cards{grid-template-columns:repeat(4,1fr)}}"
        "@media(max-width:36rem){.cards{grid-template-columns:repeat(2,1fr)}}"
        "figure{margin:0;padding:.6rem;background:var(--soft);border-radius:.5rem;font-size:.8rem}"
        "img{max-width:100%;image-rendering:pixelated;display:block;margin-bottom:.4rem}"
        ".maps{display:flex;flex-wrap:wrap;gap:4px}.maps img{margin:0;outline:1px solid var(--line)}"
        "svg{max-width:100%;height:auto;border-radius:.5rem}summary{cursor:pointer;font-weight:600;margin:.6rem 0}"
        ".graph{font:11px ui-monospace,monospace;display:block;margin-bottom:1rem}.graph text{fill:var(--ink)}"
        ".graph rect{fill:var(--soft);stroke:var(--line)}.graph .learns{fill:rgba(31,119,180,.2)}"
        ".graph path{fill:none;stroke:#1f77b4;stroke-width:1.5}"
        ".numbers{display:flex;flex-wrap:wrap;gap:.8rem}"
        ".numbers div{background:var(--soft);border-radius:.5rem;padding:.6rem 1rem}"
        ".numbers b{display:block;font-size:1.5rem}";
    cnn__writer w;
    cnn_score score;
    cnn__text text;
    int *guess;
    float *probability;
    unsigned char *pixels;
    if (!cnn__ready(net)) return 0;
    if (data && data->error) return cnn__take_over(&net->error, data->error), 0;
    if (!data || !data->labels || data->classes > (int)cnn__outputs(net))
        return cnn__fail(net, "cnn_report: needs a labelled data set with no more classes than the network has "
                         "outputs");
    score = cnn_evaluate(net, data, 0, CNN_CROSS_ENTROPY);
    guess = (int *)cnn__alloc((size_t)data->count, sizeof *guess);
    probability = (float *)cnn__alloc((size_t)data->count, sizeof *probability);
    pixels = (unsigned char *)cnn__alloc((size_t)data->height * (size_t)data->width, 3);
    if (!guess || !probability || !pixels) cnn__fail(net, "cnn_report: out of memory");
    else if (!cnn__stopped(net) && cnn_classify(net, guess, probability, data, 0)
             && cnn__begin_file(&w, path, &net->error)) {
        FILE *f = w.file;
        cnn__put_text(f, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
                      "content=\"width=device-width,initial-scale=1\"><title>", title, "</title>\n");
        cnn__fprintf(f, "<style>%s</style></head>\n<body>\n", style);
        cnn__put_text(f, "<h1>", title, "</h1>\n");
        cnn__fprintf(f, "<div class=\"numbers\"><div>accuracy<b>%.2f %%</b></div><div>loss<b>%.4f</b></div>"
                     "<div>samples<b>%s</b></div>", 100 * score.accuracy, score.loss,
                     cnn__thousands(score.count, &text));
        cnn__fprintf(f, "<div>parameters<b>%s</b></div><div>epochs<b>%d</b></div></div>\n",
                cnn__thousands((double)cnn_num_parameters(net), &text), net->history_count);
        if (net->history_count) {
            cnn__fprintf(f, "<h2>Learning curves</h2>\n");
            cnn__write_curves_svg(f, net, title);
        }
        cnn__report_classes(f, net, data, guess);
        cnn__report_mistakes(f, net, data, guess, probability, pixels);
        cnn__report_network(f, net);
        cnn__report_kernels(f, net);
        cnn__report_maps(f, net, data, pixels);
        cnn__fprintf(f, "</body></html>\n");
        if (cnn__stopped(net)) cnn__abandon_file(&w);
        else cnn__end_file(&w, &net->error);
    }
    cnn__free(guess);
    cnn__free(probability);
    cnn__free(pixels);
    return !cnn__stopped(net);
}

#if defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__)
#pragma GCC pop_options
#endif
#ifdef __cplusplus
}
#endif
#endif /* CNN_IMPLEMENTATION */

/* ============================================================================================
   Licence: MIT

   Copyright (c) 2026 the cnn.h authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
   associated documentation files (the "Software"), to deal in the Software without restriction,
   including without limitation the rights to use, copy, modify, merge, publish, distribute,
   sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
   furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or
   substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
   NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
   OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
   CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
   ============================================================================================ */
