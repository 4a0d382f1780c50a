/* cnn.h - convolutional neural networks in one C header.

   Do this:
       #define CNN_IMPLEMENTATION
   before you include this file in *one* C or C++ file to create the implementation:
       cc -O2 program.c -lm                 (add -fopenmp for threads: the same bits, sooner)
   Every other file includes it plainly.

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
       >>error      one sentence that stays until it is read
       >>memory     allocation whose sizes cannot wrap around
       >>random     Philox4x32-10: random numbers as a pure function
       >>textbook   `direct`: one card a layer, equation, shapes, forward, backward
       >>gemm       `gemm`: the same operations as matrix products on vectors and threads
       >>net        building, running, training
       >>data       IDX, CIFAR-10, one's own arrays, the loader
       >>file       state dicts (.safetensors, .pth) and checkpoints
       >>look       summary, gradient check, explain, curves, report, doctor

   CONFIGURATION: macros, defined before the #include that has CNN_IMPLEMENTATION

       CNN_MALLOC(bytes), CNN_FREE(pointer)   the allocator; both or neither
       CNN_ON_ERROR(sentence)                 run once for each mistake, e.g. (puts(sentence), exit(1)), not again
                                              where a loader or network takes the sentence over. Without it the
                                              library never prints or exits.

   CONVENTIONS

       Numbers are float32. Tensors are row-major (batch, channels, height, width), "NCHW"; a kernel
       tensor is (out_channels, in_channels / groups, kernel_height, kernel_width). So weights travel
       to and from PyTorch as they are, and names and defaults are PyTorch's.
       "Convolution" is the textbook's  f(j,i) = sum_y sum_x z(j+y, i+x) u(y,x)  (6.2): the kernel is
       not mirrored. Signal processing calls this cross-correlation; deep learning never mirrors.
       dx is the gradient of the loss with respect to x. Outputs come before inputs in every call.
       Random numbers are a pure function of (seed, stream, step, index): the same weights, shuffles
       and dropout masks on every backend and for any number of threads.

   WHAT IT DOES NOT DO

       No graphs with branches: a network is a chain of layers. No normalisation layers, no recurrence,
       no transposed convolution. No float16 or int8 arithmetic. No distributed training.
       -ffast-math is refused: it may not keep NaN, infinity and the order of sums.
*/
#ifndef CNN_H
#define CNN_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __FAST_MATH__
#error "cnn.h: compile without -ffast-math; it breaks NaN checks and reproducible sums, and is not needed for speed"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ============================================================================================
   >>api   Everything a program calls. Options are structs in which zero means PyTorch's default;
           the macros below let C write them like keyword arguments: cnn_linear(net, .out_features = 10).
           Where there is none to give, write 0: cnn_adam(net, 0). C99 wants something for the dots.
           C++ fills the struct and calls the function that ends in _with.
   ============================================================================================ */

typedef struct cnn_net cnn_net;             /* layers, parameters, optimizer: one model               */
typedef struct cnn_loader cnn_loader;       /* deals a data set out in batches                        */
typedef struct cnn_backend cnn_backend;     /* the table of operations; at the end of this section    */

/* ---- building a network: a chain of layers, each fitted to the shape that arrives ---- */

typedef enum cnn_padding_mode { CNN_ZEROS, CNN_REPLICATE, CNN_REFLECT, CNN_CIRCULAR } cnn_padding_mode;
typedef enum cnn_activation { CNN_NO_ACTIVATION, CNN_RELU, CNN_LEAKY_RELU, CNN_SIGMOID, CNN_TANH } cnn_activation;
typedef enum cnn_init {                     /* how weights begin; fan_in = inputs of one output value */
    CNN_INIT_DEFAULT,                       /* PyTorch's: uniform within 1 / sqrt(fan_in), biases too */
    CNN_KAIMING_UNIFORM, CNN_KAIMING_NORMAL,/* He et al. 2015: variance 2 / fan_in, for ReLU          */
    CNN_XAVIER_UNIFORM, CNN_XAVIER_NORMAL   /* Glorot, Bengio 2010: variance 2 / (fan_in + fan_out)   */
} cnn_init;

enum { CNN_SAME = -1 };                     /* .padding = CNN_SAME: output as large as the input      */

typedef struct cnn_conv2d_options {
    int out_channels;                       /* number of kernels = number of feature maps             */
    int kernel_size, kernel_height, kernel_width;        /* one number for both, or height and width   */
    int stride, stride_height, stride_width;             /* default 1                                  */
    int padding, padding_height, padding_width;          /* default 0; CNN_SAME                        */
    int dilation, dilation_height, dilation_width;       /* default 1                                  */
    int groups;                                          /* default 1                                  */
    cnn_padding_mode padding_mode;                       /* default CNN_ZEROS                          */
    int no_bias;
    cnn_init init;
    int in_channels;                        /* may be given as a check; otherwise taken from the input */
} cnn_conv2d_options;

typedef struct cnn_pool2d_options {
    int kernel_size, kernel_height, kernel_width;
    int stride, stride_height, stride_width;             /* default: the kernel size                   */
    int padding, padding_height, padding_width;          /* at most half the kernel                    */
    int ceil_mode;                                       /* round the output size up                   */
    int exclude_padding;                                 /* average only: PyTorch's count_include_pad = False */
} cnn_pool2d_options;

typedef struct cnn_linear_options {
    int out_features;
    int no_bias;
    cnn_init init;
    int in_features;                        /* may be given as a check                                */
} cnn_linear_options;

typedef struct cnn_leaky_relu_options { float negative_slope; /* default 0.01 */ } cnn_leaky_relu_options;
typedef struct cnn_dropout_options { float p; /* share of values set to 0, default 0.5; for none, leave the layer out */ } cnn_dropout_options;

cnn_net *cnn_new(int channels, int height, int width);  /* the shape of one sample; NULL only without memory */
void cnn_free(cnn_net *net);

/* output size per side:  out = floor((in + 2 padding - dilation (kernel - 1) - 1) / stride) + 1       */
void cnn_conv2d_with(cnn_net *net, cnn_conv2d_options o);      /* y = b + sum_c sum_y sum_x z u   (6.2) */
void cnn_conv1d_with(cnn_net *net, cnn_conv2d_options o);      /* the same along width only       (6.1) */
void cnn_max_pool2d_with(cnn_net *net, cnn_pool2d_options o);  /* y = max of the window    (figure 6-8) */
void cnn_avg_pool2d_with(cnn_net *net, cnn_pool2d_options o);  /* y = mean of the window                */
void cnn_global_avg_pool2d(cnn_net *net);                      /* (c, h, w) -> (c, 1, 1): mean of each map */
void cnn_linear_with(cnn_net *net, cnn_linear_options o);      /* y = W x + b                           */
void cnn_relu(cnn_net *net);                                   /* y = max(0, x)                   (6.3) */
void cnn_leaky_relu_with(cnn_net *net, cnn_leaky_relu_options o); /* y = x > 0 ? x : slope x            */
void cnn_sigmoid(cnn_net *net);                                /* y = 1 / (1 + exp(-x))                 */
void cnn_tanh(cnn_net *net);                                   /* y = tanh x                            */
void cnn_softmax(cnn_net *net);                                /* y_c = exp(x_c) / sum_k exp(x_k)       */
void cnn_flatten(cnn_net *net);                                /* (c, h, w) -> (c h w)                  */
void cnn_dropout_with(cnn_net *net, cnn_dropout_options o);    /* training: y = x m / (1-p), m = 0 with probability p */

void cnn_block(cnn_net *net, const char *name); /* a building block (section 6.2.3.1): the layers that follow
                                                   are name.0, name.1, ... as in nn.Sequential           */
void cnn_name(cnn_net *net, const char *name);  /* names the next layer alone                            */

#ifndef __cplusplus
#define cnn_conv2d(net, ...)     cnn_conv2d_with(net, (cnn_conv2d_options){ __VA_ARGS__ })
#define cnn_conv1d(net, ...)     cnn_conv1d_with(net, (cnn_conv2d_options){ __VA_ARGS__ })
#define cnn_max_pool2d(net, ...) cnn_max_pool2d_with(net, (cnn_pool2d_options){ __VA_ARGS__ })
#define cnn_avg_pool2d(net, ...) cnn_avg_pool2d_with(net, (cnn_pool2d_options){ __VA_ARGS__ })
#define cnn_linear(net, ...)     cnn_linear_with(net, (cnn_linear_options){ __VA_ARGS__ })
#define cnn_leaky_relu(net, ...) cnn_leaky_relu_with(net, (cnn_leaky_relu_options){ __VA_ARGS__ })
#define cnn_dropout(net, ...)    cnn_dropout_with(net, (cnn_dropout_options){ __VA_ARGS__ })
#define cnn_sgd(net, ...)        cnn_sgd_with(net, (cnn_sgd_options){ __VA_ARGS__ })
#define cnn_adam(net, ...)       cnn_adam_with(net, (cnn_adam_options){ __VA_ARGS__ })
#define cnn_adamw(net, ...)      cnn_adamw_with(net, (cnn_adam_options){ __VA_ARGS__ })
#define cnn_step_lr(net, ...)    cnn_step_lr_with(net, (cnn_step_lr_options){ __VA_ARGS__ })
#define cnn_cosine_lr(net, ...)  cnn_cosine_lr_with(net, (cnn_cosine_lr_options){ __VA_ARGS__ })
#define cnn_one_cycle_lr(net, ...) cnn_one_cycle_lr_with(net, (cnn_one_cycle_lr_options){ __VA_ARGS__ })
#define cnn_loader_new(data, ...) cnn_loader_new_with(data, (cnn_loader_options){ __VA_ARGS__ })
#define cnn_data_new(...)        cnn_data_new_with((cnn_data_options){ __VA_ARGS__ })
#define cnn_fit(net, train, test, ...) cnn_fit_with(net, train, test, (cnn_fit_options){ __VA_ARGS__ })
#endif

/* ---- errors: the first mistake is kept as one sentence, and later calls do nothing ---- */

const char *cnn_error(const cnn_net *net);  /* NULL while all is well                                  */
void cnn_clear_error(cnn_net *net);         /* after a failed load or save; a network whose building
                                               failed stays in error                                   */

/* ---- where and how it computes; but for the last, before the first forward pass ---- */

void cnn_to(cnn_net *net, const char *backend);       /* "gemm" (default), "direct", "cuda" when linked  */
void cnn_use_backend(cnn_net *net, const cnn_backend *backend);           /* one of your own             */
const cnn_backend *cnn_find_backend(const char *name);                    /* NULL if there is none       */
void cnn_set_num_threads(cnn_net *net, int threads);  /* default: all cores; changes no result           */
void cnn_manual_seed(cnn_net *net, uint64_t seed);    /* weights and dropout; default 0                  */
/* torch.backends.cudnn.allow_tf32, but off by default: from the next pass on, convolutions may round their factors to 10 bits
   of mantissa, which tensor cores multiply faster. A permission: a backend that has no TF32 calculates in float32.       */
void cnn_allow_tf32(cnn_net *net, int allow);

/* ---- data ---- */

typedef struct cnn_data {                   /* samples in memory; read it freely                        */
    int count, channels, height, width;     /* count may be lowered, to use the first samples only      */
    int classes;                            /* labels are 0 .. classes-1; 0: no labels                  */
    int outputs;                            /* length of one target; 0: no targets                      */
    const unsigned char *bytes;             /* (count, channels, height, width) as bytes, or            */
    const float *floats;                    /* the same as floats                                       */
    const int *labels;                      /* (count)                                                  */
    const float *targets;                   /* (count, outputs), for the mean squared error             */
    const char *const *class_names;         /* (classes), or NULL                                       */
    const float *scale, *shift;             /* (channels): the network sees  scale x + shift            */
    const char *name;                       /* where it came from, for messages                         */
    const char *error;                      /* one sentence if it could not be read, else NULL          */
    struct cnn__data_memory *memory;        /* what cnn_data_free releases                              */
} cnn_data;

typedef struct cnn_data_options {           /* your own arrays; they are used in place, so keep them    */
    int count, channels, height, width, classes, outputs;
    const unsigned char *bytes;             /* one of these two                                         */
    const float *floats;
    const int *labels;                      /* either or both                                           */
    const float *targets;
    const char *const *class_names;
} cnn_data_options;

/* These never return NULL; a failure is a sentence in data->error, and a loader or a network that is
   given such data takes the sentence over. */
cnn_data *cnn_load_mnist(const char *directory, const char *split);    /* "train" or "t10k"              */
cnn_data *cnn_load_fashion_mnist(const char *directory, const char *split);  /* each refuses the other's files */
cnn_data *cnn_load_cifar10(const char *directory, const char *split);  /* "train" or "test"              */
cnn_data *cnn_load_idx(const char *images, const char *labels, int classes); /* IDX files by path        */
cnn_data *cnn_data_new_with(cnn_data_options o);
void cnn_data_free(cnn_data *data);

/* bytes become (x / 255 - mean[c]) / std[c], floats (x - mean[c]) / std[c]; without this call bytes
   become x / 255 (torchvision's ToTensor) and floats stay. mean, std: (channels).                      */
void cnn_normalize(cnn_data *data, const float *mean, const float *std);

/* Two new data sets: *second has `count` samples drawn by seed, *first the others (train and validation).  */
void cnn_random_split(const cnn_data *data, int count, uint64_t seed, cnn_data **first, cnn_data **second);

typedef struct cnn_batch {                  /* some samples of a data set                               */
    const cnn_data *data;
    const int *order;                       /* (size): which ones                                       */
    int size;
} cnn_batch;

typedef struct cnn_loader_options {
    int batch_size;                         /* default 1                                                */
    int shuffle;                            /* a new order each epoch                                   */
    int drop_last;                          /* leave an incomplete last batch out                       */
    uint64_t seed;                          /* of the shuffle                                           */
} cnn_loader_options;

cnn_loader *cnn_loader_new_with(const cnn_data *data, cnn_loader_options o);
int cnn_next(cnn_loader *loader, cnn_batch *batch);   /* 1 and a batch; 0 at the end of the epoch, after
                                                         which the next call begins a new one. In error it
                                                         deals out one empty batch, from which cnn_forward
                                                         takes the sentence over                        */
void cnn_set_epoch(cnn_loader *loader, int epoch);    /* the order depends on (seed, epoch) alone        */
int cnn_batches(const cnn_loader *loader);            /* batches in an epoch                             */
const char *cnn_loader_error(const cnn_loader *loader);  /* NULL while all is well                       */
void cnn_loader_free(cnn_loader *loader);

/* ---- training, step by step: forward, loss, zero_grad, backward, step ---- */

typedef struct cnn_sgd_options { float lr /* 1e-3 */, momentum, weight_decay; int nesterov; } cnn_sgd_options;
typedef struct cnn_adam_options {
    float lr /* 1e-3 */, beta1 /* 0.9 */, beta2 /* 0.999 */, eps /* 1e-8 */, weight_decay /* adam 0, adamw 0.01 */;
} cnn_adam_options;

void cnn_sgd_with(cnn_net *net, cnn_sgd_options o);     /* v = m v + g;  w = w - lr v       (Sutskever 2013)        */
void cnn_adam_with(cnn_net *net, cnn_adam_options o);   /* w = w - lr m' / (sqrt(v') + eps) (Kingma, Ba 2015)       */
void cnn_adamw_with(cnn_net *net, cnn_adam_options o);  /* w = (1 - lr decay) w first       (Loshchilov, Hutter 2019) */

/* Learning-rate schedules: each cnn_scheduler_step() moves on by one; cnn_fit does that itself, once an
   epoch for step and cosine, once a step for one-cycle. As PyTorch's, one-cycle with cycle_momentum=False. */
typedef struct cnn_step_lr_options { int step_size; float gamma /* 0.1 */; } cnn_step_lr_options;
typedef struct cnn_cosine_lr_options { int t_max; float eta_min; } cnn_cosine_lr_options;
typedef struct cnn_one_cycle_lr_options { float max_lr; int total_steps; float pct_start /* 0.3 */, div_factor /* 25 */,
                                          final_div_factor /* 1e4 */; } cnn_one_cycle_lr_options;
void cnn_step_lr_with(cnn_net *net, cnn_step_lr_options o);           /* lr gamma^floor(t / step_size)      */
void cnn_cosine_lr_with(cnn_net *net, cnn_cosine_lr_options o);       /* min + (lr-min) (1+cos(pi t/T)) / 2 */
void cnn_one_cycle_lr_with(cnn_net *net, cnn_one_cycle_lr_options o); /* up to max_lr, down to almost 0 (Smith 2018) */
void cnn_scheduler_step(cnn_net *net);
void cnn_set_lr(cnn_net *net, float lr);
float cnn_lr(const cnn_net *net);

void cnn_train(cnn_net *net);               /* dropout on: the mode that a new network is in            */
void cnn_eval(cnn_net *net);                /* dropout off                                              */
void cnn_forward(cnn_net *net, const cnn_batch *batch);        /* pred = model(x)                       */
void cnn_cross_entropy(cnn_net *net, const cnn_batch *batch);  /* -1/N sum_n log softmax(pred_n)[label_n] */
void cnn_mse_loss(cnn_net *net, const cnn_batch *batch);       /* 1/(N K) sum (pred - target)^2; labels
                                                                  without targets become one-hot vectors */
void cnn_zero_grad(cnn_net *net);
void cnn_backward(cnn_net *net);            /* adds to the gradients, as PyTorch does                   */
float cnn_clip_grad_norm(cnn_net *net, float max_norm);  /* g *= min(1, max_norm / |g|); returns |g|     */
void cnn_step(cnn_net *net);
float cnn_loss(cnn_net *net);               /* of the last batch, mean per sample                       */
int cnn_correct(cnn_net *net);              /* of the last batch: where the largest output is the label's */

/* ---- training, all at once ---- */

typedef enum cnn_loss_kind { CNN_CROSS_ENTROPY, CNN_MSE } cnn_loss_kind;
typedef struct cnn_score { double loss, accuracy; int count; } cnn_score;  /* means over count samples    */
typedef struct cnn_epoch {                  /* one line of the history                                  */
    int epoch; cnn_score train, test; double seconds; float lr;  /* seconds in training alone            */
} cnn_epoch;

typedef struct cnn_fit_options {
    int epochs, batch_size;                 /* default 1 and 128                                        */
    int test_batch_size;                    /* default 256                                              */
    cnn_loss_kind loss;
    float clip_grad_norm;                   /* 0: no clipping                                           */
    int keep_order, keep_last;              /* default: shuffled, the incomplete last batch dropped      */
    FILE *log;                              /* one line an epoch, e.g. stdout                           */
    FILE *progress;                         /* e.g. stderr                                              */
    int progress_bar;                       /* redraw one line (a terminal) instead of writing several   */
    FILE *doctor;                           /* where advice goes when training looks ill, e.g. stderr     */
    void (*each_epoch)(cnn_net *net, const cnn_epoch *epoch, void *user); void *user;
} cnn_fit_options;

/* test may be NULL. Returns 1, or 0 with the net in error. Trains on from net's last epoch up to `epochs`. */
int cnn_fit_with(cnn_net *net, const cnn_data *train, const cnn_data *test, cnn_fit_options o);
const cnn_epoch *cnn_history(const cnn_net *net, int *count);  /* every epoch of cnn_fit so far             */
cnn_score cnn_evaluate(cnn_net *net, const cnn_data *data, int batch_size, cnn_loss_kind loss);
/* y: (count, outputs); x: (count, channels, height, width), already scaled as in training                   */
int cnn_predict(cnn_net *net, float *y, const float *x, int count);
/* classes: (data->count), probability: (data->count) of that class by softmax, or NULL                      */
int cnn_classify(cnn_net *net, int *classes, float *probability, const cnn_data *data, int batch_size);

/* ---- every number by name ---- */

/* Keys: "input_layer.0.weight", "input_layer.0.weight.grad", and "input_layer.0" for what that layer put
   out in the last forward pass (inside a fused operation it is computed again, with the weights of now). Returns the number of floats; copies them if `values` has room for all
   (NULL: only count). 0 and an error if there is no such thing. */
size_t cnn_get(cnn_net *net, const char *key, float *values, size_t room);
int cnn_set(cnn_net *net, const char *key, const float *values, size_t count);  /* parameters; 1 or 0      */
int cnn_shape(cnn_net *net, const char *key, int shape[4]);    /* number of dimensions, or 0 and an error   */
const char *cnn_key(cnn_net *net, int i);                      /* the i-th parameter's key; NULL past the last */
size_t cnn_num_parameters(cnn_net *net);                       /* numbers to be learned                     */
const char *cnn_layer_name(const cnn_net *net, int i);         /* NULL past the last layer                  */

/* ---- looking ---- */

void cnn_summary(cnn_net *net, FILE *out);  /* a row a layer: name, output, parameters, multiply-adds, bytes */

/* Compares the backend's gradients with central differences of the textbook's forward pass in double
   precision, layer by layer, at `samples` random places of each tensor, on the given batch. An
   element that sits at a kink of ReLU or max pooling has no gradient and is counted apart. Layers run one
   by one here; that fused operations do the same is for tests/test_backends.c.                          */
typedef struct cnn_gradcheck_result { int checked, failed, kinks; double worst; const char *where; } cnn_gradcheck_result;
cnn_gradcheck_result cnn_gradcheck(cnn_net *net, const cnn_batch *batch, int samples, FILE *out /* or NULL */);

/* Learning curves of cnn_history; 1, or 0 and an error. Each file is written whole or not at all.       */
int cnn_save_curves_svg(cnn_net *net, const char *path, const char *title);
int cnn_save_curves_csv(cnn_net *net, const char *path);
void cnn_print_curves(const cnn_net *net, FILE *out);          /* a sketch of 72 columns in characters      */

/* Prints, for one output value of a layer and the first sample of the last batch, the equation with its
   numbers: the window and what of it fell beyond the border, each product, the sum, the bias, the result. */
int cnn_explain(cnn_net *net, const char *layer, int channel, int row, int column, FILE *out);

/* Writes one self-contained HTML page: scores on data, learning curves, confusion matrix, precision and
   recall, the most confident mistakes, the layers, the first kernels, every layer's feature maps.       */
int cnn_report(cnn_net *net, const cnn_data *data, const char *path, const char *title);


/* ---- files: state dicts that PyTorch reads and writes too, and checkpoints ---- */

/* The ending chooses the format: .safetensors, or .pth and .pt as torch.save(model.state_dict(), path)
   writes them; keys and shapes are PyTorch's. In Python:
       model.load_state_dict(torch.load("net.pth", weights_only=True))
       model.load_state_dict(safetensors.torch.load_file("net.safetensors"))
   F32 is written; F32, F64, F16 and BF16 are read. Reading a .pth runs nothing that stands in it. Each returns
   1, or 0 and an error; then network and file are as they were. A file is replaced whole or not at all.  */
int cnn_save(cnn_net *net, const char *path);
int cnn_load(cnn_net *net, const char *path);   /* every key must be there and fit, and none be left over   */
/* Loads the keys that fit and skips the others; an error only if none fits. report (or NULL) becomes one
   sentence: how many were loaded, and which are missing, unexpected or mis-shaped.                        */
int cnn_load_partly(cnn_net *net, const char *path, char *report, size_t room);

/* Everything that training needs to go on: parameters, the optimizer's moments, steps, learning rate, place
   in the schedule, seed and history. Call cnn_checkpoint_load after the same building calls, cnn_adam (or
   another) and schedule as in the program that saved it; cnn_fit then goes on after the last epoch and ends with
   the same bits as a run that was never stopped. The options given to cnn_adam and the schedule stay the
   program's, so that they can be changed; learning rate and seed come from the file (to change the rate: cnn_set_lr
   afterwards). Another network, optimizer or schedule is refused. The file is a .safetensors file, whatever its ending. */
int cnn_checkpoint_save(cnn_net *net, const char *path);
int cnn_checkpoint_load(cnn_net *net, const char *path);

/* ---- the backend table: every operation, to be filled by `direct`, `gemm`, `cuda` or by you ---- */

/* One operation may fuse several layers: a convolution with its activation and its max pooling, a linear
   layer with its activation. `direct` composes them from its cards; others may do them in one pass.     */

typedef struct cnn_pool2d_shape {
    int batch, channels, in_height, in_width, out_height, out_width;
    int kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
    int average, exclude_padding;           /* average: 0 for max pooling                               */
} cnn_pool2d_shape;

typedef struct cnn_conv2d_shape {
    int batch, in_channels, in_height, in_width;
    int out_channels, out_height, out_width;             /* of the convolution, before any pooling       */
    int kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int pad_top, pad_left, pad_bottom, pad_right, groups;
    cnn_padding_mode padding_mode;
    cnn_activation activation; float slope;              /* applied to the sum                           */
    cnn_pool2d_shape pool;                               /* then max pooling, if pool.kernel_height > 0   */
    int allow_tf32;                                      /* conv2d_work must not depend on it             */
} cnn_conv2d_shape;

typedef struct cnn_linear_shape {
    int batch, in_features, out_features;
    cnn_activation activation; float slope;
} cnn_linear_shape;

typedef struct cnn_map_shape { int batch, channels, pixels; } cnn_map_shape;  /* for what works value by value */

/* What changes from step to step. It lives in backend memory and goes to operations by pointer, so that a
   recorded step can be replayed.                                                                        */
typedef struct cnn_counters {
    uint64_t seed;
    uint64_t pass;                          /* training passes so far: keys the dropout masks            */
    uint64_t step;                          /* optimizer steps so far: Adam's t                          */
    uint64_t batch_offset, next_offset;     /* where in `order` the batch begins, and the next one will   */
    double lr;
    double loss, loss_sum;                  /* last batch: mean; since the last reset: sum over samples   */
    double grad_norm;                       /* of the last clipping                                      */
    int correct;                            /* last batch                                                */
    int correct_sum, seen;                  /* since the last reset                                      */
} cnn_counters;

enum { CNN_BACKEND_VERSION = 3 };

/* Rules. Outputs come first. Sizes are in one struct. No operation allocates: scratch comes as `work`, of
   the bytes that *_work asked for. Pointers are the backend's memory; nobody else looks behind them. Every
   entry overwrites its outputs, but for dweight and dbias, to which it adds. The dx of conv2d and linear
   may be NULL: not needed. A backend is made by copying cnn_find_backend("direct") and replacing entries, or
   filled completely. Entries marked (optional) may be NULL; a network refuses a backend in which another one
   is missing, by name.                                                                                   */
struct cnn_backend {
    int version;                            /* CNN_BACKEND_VERSION, or the table is refused              */
    const char *name;
    void *context;                          /* yours, or what `open` returned; handed to every entry      */
    /* open may fail: then it returns NULL and has written one sentence                                   */
    void *(*open)(int threads, char *sentence, size_t room);                                /* (optional) */
    void (*close)(void *context);                                                           /* (optional) */
    /* memory: alloc returns 64-byte aligned bytes or NULL                                                */
    void *(*alloc)(void *context, size_t bytes);
    void (*free)(void *context, void *memory);
    void (*upload)(void *context, void *to, const void *host, size_t bytes);
    void (*download)(void *context, void *host, const void *from, size_t bytes);
    void (*zero)(void *context, void *memory, size_t bytes);
    const char *(*sync)(void *context);     /* (optional) waits; NULL, or what went wrong                 */
    int reads_host;                         /* 1: the samples of a data set are read where they lie       */

    /* y: (n, k, h', w') after activation and pooling; index: (n, k, h', w'), the winner's place in its window,
       row * kernel_width + column (NULL: not wanted, or no pooling); x: (n, c, h, w);
       weight: (k, c / groups, kh, kw); bias: (k) or NULL                                                 */
    size_t (*conv2d_work)(void *context, const cnn_conv2d_shape *s);
    void (*conv2d_forward)(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index,
                           const float *x, const float *weight, const float *bias, void *work);
    void (*conv2d_backward)(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias,
                            const float *dy, const float *y, const unsigned char *index,
                            const float *x, const float *weight, void *work);
    /* y: (n, c, h', w'); x: (n, c, h, w) */
    void (*pool2d_forward)(void *context, const cnn_pool2d_shape *s, float *y, const float *x);
    void (*pool2d_backward)(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x);
    /* y: (n, out); x: (n, in); weight: (out, in); bias: (out) or NULL */
    size_t (*linear_work)(void *context, const cnn_linear_shape *s);
    void (*linear_forward)(void *context, const cnn_linear_shape *s, float *y, const float *x, const float *weight,
                           const float *bias, void *work);
    void (*linear_backward)(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias,
                            const float *dy, const float *y, const float *x, const float *weight, void *work);
    /* x, y: (n). The backward passes read y alone, so x and y, dx and dy may be the same memory. */
    void (*activation_forward)(void *context, cnn_activation f, float slope, float *y, const float *x, size_t n);
    void (*activation_backward)(void *context, cnn_activation f, float slope, float *dx, const float *dy, const float *y, size_t n);
    /* x, y: (batch, channels, pixels), over the channels of each pixel */
    void (*softmax_forward)(void *context, const cnn_map_shape *s, float *y, const float *x);
    void (*softmax_backward)(void *context, const cnn_map_shape *s, float *dx, const float *dy, const float *y);
    /* x, y: (n). The mask is a function of (c->seed, layer, c->pass, element): backward makes it again. */
    void (*dropout_forward)(void *context, const cnn_counters *c, int layer, float p, float *y, const float *x, size_t n);
    void (*dropout_backward)(void *context, const cnn_counters *c, int layer, float p, float *dx, const float *dy, size_t n);
    /* the loss and its gradient: dy, y: (batch, outputs); labels: (batch); adds to c's sums. dy NULL: not wanted. */
    void (*softmax_cross_entropy)(void *context, cnn_counters *c, float *dy, const float *y, const int *labels, int batch, int outputs);
    /* target: (batch, outputs), or NULL for the one-hot vectors of labels; labels: (batch) or NULL */
    void (*mse)(void *context, cnn_counters *c, float *dy, const float *y, const float *target, const int *labels, int batch, int outputs);
    /* a new batch: c->batch_offset = c->next_offset, c->next_offset += size; training (1 or 0): c->pass += 1, so new masks */
    void (*next_batch)(void *context, cnn_counters *c, int size, int training);
    /* x: (batch, channels, pixels) = scale[c] * sample[o[n]] + shift[c], where o = order + k->batch_offset;
       samples: bytes or floats (the other NULL) */
    void (*gather)(void *context, const cnn_counters *k, const cnn_map_shape *s, float *x, const unsigned char *bytes,
                   const float *floats, const int *order, const float *scale, const float *shift);
    /* to: (batch, width) = from[o[n]]: labels and targets, 4 bytes a value */
    void (*gather_rows)(void *context, const cnn_counters *k, void *to, const void *from, const int *order, int batch,
                        int width);
    /* one flat block of all parameters: w, g, v, m: (n); v of the momentum may be NULL when there is none */
    void (*clip_grad_norm)(void *context, cnn_counters *c, float *g, size_t n, float max_norm);
    void (*sgd_step)(void *context, cnn_counters *c, const cnn_sgd_options *o, float *w, float *v, const float *g, size_t n);
    void (*adam_step)(void *context, cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w, float *m, float *v,
                      const float *g, size_t n);
    void (*step_begin)(void *context);      /* (optional) a step of training or evaluation begins: cnn_forward ...    */
    void (*step_end)(void *context);        /* (optional) ... and ends: cnn_step, or a batch of cnn_evaluate. Not every
                                               step comes to its end.                                                 */
};

/* Makes a backend known to cnn_to() by its name. 1; or 0 where it has no name, its name is taken, or 8 are
   known already. cnn_cuda.cu calls it before main() begins.                                              */
int cnn_register_backend(const cnn_backend *backend);

/* The random numbers of the library (Philox4x32-10, Salmon et al. 2011): four words of a pure function.    */
void cnn_random(uint32_t out[4], uint64_t seed, uint32_t stream, uint64_t step, uint32_t index);

#ifdef __cplusplus
}
#endif
#endif /* CNN_H */

/* ==================== stop here if you only want to use it ==================================== */

#if defined(CNN_IMPLEMENTATION) && !defined(CNN__IMPLEMENTED) && !defined(CNN__ISA)

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <io.h>
__declspec(dllimport) int __stdcall MoveFileExA(const char *from, const char *to, unsigned long flags);     /* <windows.h> */
#else
#include <fcntl.h>
#include <sys/time.h>
#include <unistd.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(CNN_MALLOC) != defined(CNN_FREE)
#error "cnn.h: define both CNN_MALLOC and CNN_FREE, or neither"
#endif
#ifndef CNN_MALLOC
#define CNN_MALLOC(bytes) malloc(bytes)
#define CNN_FREE(pointer) free(pointer)
#endif
#ifndef CNN_ON_ERROR
#define CNN_ON_ERROR(sentence) ((void)0)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ============================================================================================
   >>error   The first mistake is kept as one sentence. Whoever holds one is in error; its calls do
             nothing from then on. There is no global state: each network has its own sentence.
   ============================================================================================ */

typedef struct cnn__text { char s[512]; } cnn__text;

#if defined(__GNUC__)
#define CNN__PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define CNN__PRINTF(text, first)
#endif

static void cnn__say(cnn__text *error, const char *format, ...) CNN__PRINTF(2, 3);
static void cnn__say(cnn__text *error, const char *format, ...)
{
    va_list arguments;
    if (!error || error->s[0]) return;                     /* the first one is the cause */
    va_start(arguments, format);
    vsnprintf(error->s, sizeof error->s, format, arguments);
    va_end(arguments);
    CNN_ON_ERROR(error->s);
}

/* Takes over what another holder has said (NULL: nothing): one mistake is heard once. */
static void cnn__take_over(cnn__text *error, const char *sentence)
{
    if (sentence && !error->s[0]) snprintf(error->s, sizeof error->s, "%s", sentence);
}

/* ============================================================================================
   >>memory   Sizes are products of what a caller or a file says: each is checked before it is
              allocated. Blocks are zeroed and begin at a multiple of 64 bytes, a cache line.
   ============================================================================================ */

static int cnn__mul(size_t *product, size_t a, size_t b)   /* 1, or 0 if a * b does not fit */
{
    if (b && a > (size_t)-1 / b) return 0;
    *product = a * b;
    return 1;
}

static void *cnn__alloc(size_t count, size_t size)
{
    size_t bytes;
    unsigned char *block, *aligned;
    if (!cnn__mul(&bytes, count, size) || bytes > (size_t)-1 / 2) return NULL;
    block = (unsigned char *)CNN_MALLOC(bytes + 64 + sizeof(void *));
    if (!block) return NULL;
    aligned = (unsigned char *)(((uintptr_t)block + sizeof(void *) + 63) & ~(uintptr_t)63);
    memcpy(aligned - sizeof(void *), &block, sizeof(void *));      /* where the block really begins */
    memset(aligned, 0, bytes);
    return aligned;
}

static void cnn__free(void *memory)
{
    void *block;
    if (!memory) return;
    memcpy(&block, (unsigned char *)memory - sizeof(void *), sizeof(void *));
    CNN_FREE(block);
}

/* ============================================================================================
   >>random   Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3;
              2011): ten rounds of multiply and swap turn a counter into four random words. No state:
              whoever knows (seed, stream, step, index) knows the number, on any backend and thread.
   ============================================================================================ */

enum {                                                     /* streams 0 .. 2^16 - 1: dropout, by layer */
    CNN__STREAM_INIT = 0x10000, CNN__STREAM_SHUFFLE, CNN__STREAM_SPLIT, CNN__STREAM_CHECK
};

void cnn_random(uint32_t out[4], uint64_t seed, uint32_t stream, uint64_t step, uint32_t index)
{
    uint32_t c0 = index, c1 = stream, c2 = (uint32_t)step, c3 = (uint32_t)(step >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    int round;
    for (round = 0; round < 10; round++) {
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

static float cnn__unit(uint32_t word) { return (float)(word >> 8) * (1.0f / 16777216.0f); }    /* [0, 1) */

/* the i-th random word of a stream */
static uint32_t cnn__word(uint64_t seed, uint32_t stream, uint64_t step, size_t i)
{
    uint32_t out[4];
    cnn_random(out, seed, stream, step, (uint32_t)(i / 4));
    return out[i % 4];
}

static void cnn__shuffle(int *order, int count, uint64_t seed, uint32_t stream, uint64_t step)  /* Fisher, Yates */
{
    int i;
    for (i = count - 1; i > 0; i--) {
        int j = (int)(((uint64_t)cnn__word(seed, stream, step, (size_t)i) * (uint64_t)(i + 1)) >> 32);
        int swap = order[i]; order[i] = order[j]; order[j] = swap;
    }
}

/* ============================================================================================
   >>textbook   The backend `direct`: the specification of every operation, one card a layer. A card has
             the equation, the shapes, one output value as the equation gives it (in double, named
             _at), then forward and backward as plain loops. No threads, no vectors, no tricks: the
             other backends are proved against these lines.
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
   Convolution (6.1), (6.2): slide a kernel u over the input z; each output is their linear combination.

       1D    f(i)      =       sum_x z(i+x)      u(x)                                        (6.1)
       2D    f(j,i)    = sum_y sum_x z(j+y, i+x) u(y,x)                                      (6.2)
       here  f(n,k,j,i) = b(k) + sum_c sum_y sum_x  z(n, c, sj + dy - p, si + dx - p)  u(k,c,y,x)

   with stride s, dilation d and padding p; the lecture counts y and x from the kernel's centre, this
   code from its corner, and p makes up for it. k kernels, each as deep as its input, give k feature
   maps (figure 6-7). With g groups, each kernel sees only its group's c / g input channels.

       f  (n, k, h', w')   z  (n, c, h, w)   u  (k, c/g, kh, kw)   b  (k)
       h' = floor((h + p_top + p_bottom - d (kh - 1) - 1) / s) + 1

   Each product z u of the sum has two partial derivatives, so, over all products:
       du += df z        dz += df u        db(k) += df
   -------------------------------------------------------------------------------------------- */
static double cnn__conv2d_at(const cnn_conv2d_shape *s, const float *z, const float *u, const float *b,
                             int n, int k, int j, int i)
{
    int depth = s->in_channels / s->groups, first = k / (s->out_channels / s->groups) * depth;
    int top = j * s->stride_height - s->pad_top, left = i * s->stride_width - s->pad_left, c, y, x;
    double f = b ? b[k] : 0;
    for (c = 0; c < depth; c++) {
        const float *map = z + ((size_t)n * s->in_channels + first + c) * s->in_height * s->in_width;
        const float *kernel = u + ((size_t)k * depth + c) * s->kernel_height * s->kernel_width;
        for (y = 0; y < s->kernel_height; y++) {
            int row = cnn__border(top + y * s->dilation_height, s->in_height, s->padding_mode);
            if (row < 0) continue;
            for (x = 0; x < s->kernel_width; x++) {
                int column = cnn__border(left + x * s->dilation_width, s->in_width, s->padding_mode);
                if (column < 0) continue;
                f += (double)map[(size_t)row * s->in_width + column] * kernel[y * s->kernel_width + x];
            }
        }
    }
    return f;
}

static void cnn__conv2d_forward(const cnn_conv2d_shape *s, float *f, const float *z, const float *u, const float *b)
{
    int n, k, j, i;
    for (n = 0; n < s->batch; n++)
        for (k = 0; k < s->out_channels; k++)
            for (j = 0; j < s->out_height; j++)
                for (i = 0; i < s->out_width; i++)
                    *f++ = (float)cnn__conv2d_at(s, z, u, b, n, k, j, i);
}

static void cnn__conv2d_backward(const cnn_conv2d_shape *s, float *dz, float *du, float *db,
                                 const float *df, const float *z, const float *u)
{
    int depth = s->in_channels / s->groups;
    size_t in_map = (size_t)s->in_height * s->in_width, out_map = (size_t)s->out_height * s->out_width;
    int n, k, c, y, x, j, i;
    if (dz) memset(dz, 0, sizeof *dz * s->batch * s->in_channels * in_map);
    for (k = 0; k < s->out_channels; k++) {
        int first = k / (s->out_channels / s->groups) * depth;
        double sum = 0;
        for (n = 0; db && n < s->batch; n++)
            for (i = 0; i < (int)out_map; i++) sum += df[((size_t)n * s->out_channels + k) * out_map + i];
        if (db) db[k] += (float)sum;
        for (c = 0; c < depth; c++)
            for (y = 0; y < s->kernel_height; y++)
                for (x = 0; x < s->kernel_width; x++) {
                    size_t at = (((size_t)k * depth + c) * s->kernel_height + y) * s->kernel_width + x;
                    int down = y * s->dilation_height - s->pad_top, right = x * s->dilation_width - s->pad_left;
                    sum = 0;
                    for (n = 0; n < s->batch; n++) {
                        const float *g = df + ((size_t)n * s->out_channels + k) * out_map;
                        size_t map = ((size_t)n * s->in_channels + first + c) * in_map;
                        for (j = 0; j < s->out_height; j++) {
                            int row = cnn__border(j * s->stride_height + down, s->in_height, s->padding_mode);
                            if (row < 0) continue;
                            for (i = 0; i < s->out_width; i++) {
                                int column = cnn__border(i * s->stride_width + right, s->in_width, s->padding_mode);
                                size_t place = map + (size_t)row * s->in_width + column;
                                if (column < 0) continue;
                                sum += (double)g[(size_t)j * s->out_width + i] * z[place];
                                if (dz) dz[place] += g[(size_t)j * s->out_width + i] * u[at];
                            }
                        }
                    }
                    du[at] += (float)sum;
                }
    }
}

/* --------------------------------------------------------------------------------------------
   Activation (6.3): each element of the feature map on its own, y = tau(x).

       relu        max(0, x)             tau' = y > 0 ? 1 : 0
       leaky relu  x > 0 ? x : a x       tau' = y > 0 ? 1 : a          (a >= 0)
       sigmoid     1 / (1 + exp(-x))     tau' = y (1 - y)
       tanh        tanh x                tau' = 1 - y^2

   All derivatives are written with y, so x need not be kept.      dx = dy tau'
   -------------------------------------------------------------------------------------------- */
static double cnn__activation_at(cnn_activation tau, double slope, double x)
{
    switch (tau) {
    case CNN_RELU:       return x <= 0 ? 0 : x;                    /* NaN stays NaN */
    case CNN_LEAKY_RELU: return x <= 0 ? slope * x : x;
    case CNN_SIGMOID:    return 1 / (1 + exp(-x));
    case CNN_TANH:       return tanh(x);
    default:             return x;
    }
}

static double cnn__activation_slope(cnn_activation tau, double slope, double y)
{
    switch (tau) {
    case CNN_RELU:       return y > 0 ? 1 : 0;
    case CNN_LEAKY_RELU: return y > 0 ? 1 : slope;
    case CNN_SIGMOID:    return y * (1 - y);
    case CNN_TANH:       return 1 - y * y;
    default:             return 1;
    }
}

static void cnn__activation_forward(cnn_activation tau, float slope, float *y, const float *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = (float)cnn__activation_at(tau, slope, x[i]);
}

static void cnn__activation_backward(cnn_activation tau, float slope, float *dx, const float *dy, const float *y, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) dx[i] = (float)(dy[i] * cnn__activation_slope(tau, slope, y[i]));
}

/* --------------------------------------------------------------------------------------------
   Pooling (figure 6-8): a summary of each window, its largest value or its mean.

       max       y(j,i) = x(winner),  the first largest value of the window      dx(winner) += dy
       average   y(j,i) = 1/m sum x   over the window                            dx += dy / m

       y  (n, c, h', w')   x  (n, c, h, w)     h' = floor or ceil((h + 2p - kh) / s) + 1

   Padding never wins; for the average it counts as zeros (m = kh kw) unless it is to be excluded. With
   ceil_mode a window may hang over even the padding, and what hangs over is not counted in m.
   -------------------------------------------------------------------------------------------- */
typedef struct cnn__window { int top, bottom, left, right, count; } cnn__window;  /* rows top .. bottom-1 */

static cnn__window cnn__pool2d_window(const cnn_pool2d_shape *s, int j, int i)
{
    cnn__window w;
    w.top = j * s->stride_height - s->pad_height;
    w.left = i * s->stride_width - s->pad_width;
    w.bottom = w.top + s->kernel_height;
    w.right = w.left + s->kernel_width;
    if (w.bottom > s->in_height + s->pad_height) w.bottom = s->in_height + s->pad_height;
    if (w.right > s->in_width + s->pad_width) w.right = s->in_width + s->pad_width;
    w.count = (w.bottom - w.top) * (w.right - w.left);
    if (w.top < 0) w.top = 0;
    if (w.left < 0) w.left = 0;
    if (w.bottom > s->in_height) w.bottom = s->in_height;
    if (w.right > s->in_width) w.right = s->in_width;
    if (s->exclude_padding) w.count = (w.bottom - w.top) * (w.right - w.left);
    return w;
}

static size_t cnn__pool2d_winner(const cnn_pool2d_shape *s, const float *map, cnn__window w)
{
    size_t winner = (size_t)w.top * s->in_width + w.left;
    int row, column;
    for (row = w.top; row < w.bottom; row++)
        for (column = w.left; column < w.right; column++) {
            size_t at = (size_t)row * s->in_width + column;
            if (map[at] > map[winner] || map[at] != map[at]) winner = at;      /* a NaN wins, as in PyTorch */
        }
    return winner;
}

/* A place within its window, as the byte that the table's `index` holds */
static unsigned char cnn__pool2d_place(const cnn_pool2d_shape *s, size_t winner, int j, int i)
{
    int row = (int)(winner / s->in_width) - (j * s->stride_height - s->pad_height);
    int column = (int)(winner % s->in_width) - (i * s->stride_width - s->pad_width);
    return (unsigned char)(row * s->kernel_width + column);
}

static double cnn__pool2d_at(const cnn_pool2d_shape *s, const float *map, int j, int i)
{
    cnn__window w = cnn__pool2d_window(s, j, i);
    double sum = 0;
    int row, column;
    if (!s->average) return map[cnn__pool2d_winner(s, map, w)];
    for (row = w.top; row < w.bottom; row++)
        for (column = w.left; column < w.right; column++) sum += map[(size_t)row * s->in_width + column];
    return sum / w.count;
}

static void cnn__pool2d_forward(const cnn_pool2d_shape *s, float *y, const float *x)
{
    int m, j, i;
    for (m = 0; m < s->batch * s->channels; m++, x += (size_t)s->in_height * s->in_width)
        for (j = 0; j < s->out_height; j++)
            for (i = 0; i < s->out_width; i++)
                *y++ = (float)cnn__pool2d_at(s, x, j, i);
}

static void cnn__pool2d_backward(const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x)
{
    size_t map = (size_t)s->in_height * s->in_width;
    int m, j, i, row, column;
    memset(dx, 0, sizeof *dx * s->batch * s->channels * map);
    for (m = 0; m < s->batch * s->channels; m++, x += map, dx += map)
        for (j = 0; j < s->out_height; j++)
            for (i = 0; i < s->out_width; i++, dy++) {
                cnn__window w = cnn__pool2d_window(s, j, i);
                if (!s->average) dx[cnn__pool2d_winner(s, x, w)] += *dy;
                else
                    for (row = w.top; row < w.bottom; row++)
                        for (column = w.left; column < w.right; column++)
                            dx[(size_t)row * s->in_width + column] += *dy / (float)w.count;
            }
}

/* --------------------------------------------------------------------------------------------
   Linear, "fully connected": every output sees every input.

       y(n,o) = b(o) + sum_i W(o,i) x(n,i)         y  (n, out)   x  (n, in)   W  (out, in)   b  (out)

       dW(o,i) += sum_n dy(n,o) x(n,i)      db(o) += sum_n dy(n,o)      dx(n,i) = sum_o dy(n,o) W(o,i)
   -------------------------------------------------------------------------------------------- */
static double cnn__linear_at(const cnn_linear_shape *s, const float *x, const float *w, const float *b, int n, int o)
{
    double y = b ? b[o] : 0;
    int i;
    for (i = 0; i < s->in_features; i++)
        y += (double)w[(size_t)o * s->in_features + i] * x[(size_t)n * s->in_features + i];
    return y;
}

static void cnn__linear_forward(const cnn_linear_shape *s, float *y, const float *x, const float *w, const float *b)
{
    int n, o;
    for (n = 0; n < s->batch; n++)
        for (o = 0; o < s->out_features; o++) *y++ = (float)cnn__linear_at(s, x, w, b, n, o);
}

static void cnn__linear_backward(const cnn_linear_shape *s, float *dx, float *dw, float *db,
                                 const float *dy, const float *x, const float *w)
{
    int n, o, i;
    for (o = 0; o < s->out_features; o++) {
        double sum = 0;
        for (n = 0; db && n < s->batch; n++) sum += dy[(size_t)n * s->out_features + o];
        if (db) db[o] += (float)sum;
        for (i = 0; i < s->in_features; i++) {
            sum = 0;
            for (n = 0; n < s->batch; n++)
                sum += (double)dy[(size_t)n * s->out_features + o] * x[(size_t)n * s->in_features + i];
            dw[(size_t)o * s->in_features + i] += (float)sum;
        }
    }
    for (n = 0; dx && n < s->batch; n++)
        for (i = 0; i < s->in_features; i++) {
            double sum = 0;
            for (o = 0; o < s->out_features; o++)
                sum += (double)dy[(size_t)n * s->out_features + o] * w[(size_t)o * s->in_features + i];
            dx[(size_t)n * s->in_features + i] = (float)sum;
        }
}

/* --------------------------------------------------------------------------------------------
   Softmax over the channels c of each pixel: positive, and sums to 1.

       y_c = exp(x_c - max x) / sum_k exp(x_k - max x)         x, y  (n, channels, pixels)

   Taking the largest x out changes nothing but keeps exp within range.
       dx_c = y_c (dy_c - sum_k dy_k y_k)
   -------------------------------------------------------------------------------------------- */
static double cnn__softmax_at(const cnn_map_shape *s, const float *x, int n, int c, int pixel)
{
    double largest = -HUGE_VAL, sum = 0;
    int k;
    x += (size_t)n * s->channels * s->pixels + pixel;
    for (k = 0; k < s->channels; k++) if (x[(size_t)k * s->pixels] > largest) largest = x[(size_t)k * s->pixels];
    for (k = 0; k < s->channels; k++) sum += exp(x[(size_t)k * s->pixels] - largest);
    return exp(x[(size_t)c * s->pixels] - largest) / sum;
}

static void cnn__softmax_forward(const cnn_map_shape *s, float *y, const float *x)
{
    int n, c, p;
    for (n = 0; n < s->batch; n++)
        for (c = 0; c < s->channels; c++)
            for (p = 0; p < s->pixels; p++) *y++ = (float)cnn__softmax_at(s, x, n, c, p);
}

static void cnn__softmax_backward(const cnn_map_shape *s, float *dx, const float *dy, const float *y)
{
    int n, c, p;
    for (n = 0; n < s->batch; n++)
        for (p = 0; p < s->pixels; p++) {
            size_t first = (size_t)n * s->channels * s->pixels + p;
            double sum = 0;
            for (c = 0; c < s->channels; c++)
                sum += (double)dy[first + (size_t)c * s->pixels] * y[first + (size_t)c * s->pixels];
            for (c = 0; c < s->channels; c++) {
                size_t at = first + (size_t)c * s->pixels;
                dx[at] = (float)(y[at] * (dy[at] - sum));
            }
        }
}

/* --------------------------------------------------------------------------------------------
   Dropout (Srivastava et al. 2014), in training only: each value is dropped with probability p, and
   those that stay grow by 1 / (1 - p), so that the expected sum is the same.

       y = m x / (1 - p)     m = 0 with probability p, else 1          dx = m dy / (1 - p)

   The mask m is a function of (seed, layer, pass, element): backward asks for the same one again.
   -------------------------------------------------------------------------------------------- */
static double cnn__dropout_at(const cnn_counters *c, int layer, float p, float x, size_t i)
{
    int keep = cnn__unit(cnn__word(c->seed, (uint32_t)layer, c->pass, i)) >= p;
    return keep ? x / (1.0 - p) : 0;
}

static void cnn__dropout_forward(const cnn_counters *c, int layer, float p, float *y, const float *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = (float)cnn__dropout_at(c, layer, p, x[i], i);
}

static void cnn__dropout_backward(const cnn_counters *c, int layer, float p, float *dx, const float *dy, size_t n)
{
    cnn__dropout_forward(c, layer, p, dx, dy, n);
}

/* --------------------------------------------------------------------------------------------
   Cross-entropy of the softmax: how surprised the network is by the true label t.

       loss = -1/N sum_n log softmax(y_n)[t_n]         dy(n,o) = (softmax(y_n)[o] - [o = t_n]) / N

   Mean squared error:
       loss = 1/(N K) sum_n sum_o (y(n,o) - target(n,o))^2       dy = 2 (y - target) / (N K)

       y, dy, target  (N, K)       labels t  (N);  without targets, the one-hot vector of t is the target
   -------------------------------------------------------------------------------------------- */
static int cnn__argmax(const float *y, int count)
{
    int best = 0, o;
    for (o = 1; o < count; o++) if (y[o] > y[best]) best = o;
    return best;
}

static void cnn__count_loss(cnn_counters *c, double loss, int correct, int batch)
{
    c->loss = loss;
    c->correct = correct;
    c->loss_sum += loss * batch;
    c->correct_sum += correct;
    c->seen += batch;
}

static void cnn__softmax_cross_entropy(cnn_counters *c, float *dy, const float *y, const int *labels, int batch, int outputs)
{
    double loss = 0;
    int correct = 0, n, o;
    for (n = 0; n < batch; n++, y += outputs) {
        double largest = y[cnn__argmax(y, outputs)], sum = 0;
        for (o = 0; o < outputs; o++) sum += exp(y[o] - largest);
        loss += log(sum) - (y[labels[n]] - largest);
        correct += cnn__argmax(y, outputs) == labels[n];
        for (o = 0; dy && o < outputs; o++)
            *dy++ = (float)((exp(y[o] - largest) / sum - (o == labels[n])) / batch);
    }
    cnn__count_loss(c, loss / batch, correct, batch);
}

static void cnn__mse(cnn_counters *c, float *dy, const float *y, const float *target, const int *labels, int batch, int outputs)
{
    double loss = 0, count = (double)batch * outputs;
    int correct = 0, n, o;
    for (n = 0; n < batch; n++, y += outputs) {
        correct += labels && cnn__argmax(y, outputs) == labels[n];
        for (o = 0; o < outputs; o++) {
            double error = y[o] - (target ? target[(size_t)n * outputs + o] : (double)(o == labels[n]));
            loss += error * error;
            if (dy) *dy++ = (float)(2 * error / count);
        }
    }
    cnn__count_loss(c, loss / count, correct, batch);
}

/* --------------------------------------------------------------------------------------------
   Optimizers: one step on the flat block of all parameters w with gradients g, t = 1, 2, 3, ...

       SGD     g = g + decay w;   v = momentum v + g;   w = w - lr v      (Nesterov: w - lr (g + momentum v))
       Adam    g = g + decay w;   m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
               w = w - lr m' / (sqrt(v') + eps),  m' = m / (1 - b1^t),  v' = v / (1 - b2^t)
       AdamW   the same without g + decay w, but first  w = w - lr decay w

   Clipping: |g| is the length of the block as one vector;  g = g min(1, max_norm / (|g| + 1e-6)).
   -------------------------------------------------------------------------------------------- */
static void cnn__sgd_step(cnn_counters *c, const cnn_sgd_options *o, float *w, float *v, const float *g, size_t n)
{
    float lr = (float)c->lr;
    size_t i;
    for (i = 0; i < n; i++) {
        float d = g[i] + o->weight_decay * w[i];
        if (v) {
            v[i] = o->momentum * v[i] + d;
            d = o->nesterov ? d + o->momentum * v[i] : v[i];
        }
        w[i] -= lr * d;
    }
    c->step++;
}

typedef struct cnn__adam_factors { float shrink, decay, lr, root; } cnn__adam_factors;

static cnn__adam_factors cnn__adam_at_step(const cnn_counters *c, const cnn_adam_options *o, int decoupled)
{
    cnn__adam_factors f;                                   /* what is the same for every parameter */
    double t = (double)(c->step + 1);
    f.shrink = decoupled ? (float)(1 - c->lr * o->weight_decay) : 1;
    f.decay = decoupled ? 0 : o->weight_decay;
    f.lr = (float)(c->lr / (1 - pow(o->beta1, t)));        /* lr and the correction of m */
    f.root = (float)(1 / sqrt(1 - pow(o->beta2, t)));      /* the correction of sqrt(v) */
    return f;
}

static void cnn__adam_step(cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w, float *m, float *v,
                           const float *g, size_t n)
{
    cnn__adam_factors f = cnn__adam_at_step(c, o, decoupled);
    size_t i;
    for (i = 0; i < n; i++) {
        float d = g[i] + f.decay * w[i];
        m[i] = o->beta1 * m[i] + (1 - o->beta1) * d;
        v[i] = o->beta2 * v[i] + (1 - o->beta2) * d * d;
        w[i] = w[i] * f.shrink - f.lr * m[i] / (sqrtf(v[i]) * f.root + o->eps);
    }
    c->step++;
}

static void cnn__clip_grad_norm(cnn_counters *c, float *g, size_t n, float max_norm)
{
    double sum = 0, factor;
    size_t i;
    for (i = 0; i < n; i++) sum += (double)g[i] * g[i];
    c->grad_norm = sqrt(sum);
    factor = max_norm / (c->grad_norm + 1e-6);
    for (i = 0; factor < 1 && i < n; i++) g[i] *= (float)factor;
}

/* --------------------------------------------------------------------------------------------
   Gathering a batch: the chosen samples, scaled to what the network sees.
       x(n,c,p) = scale(c) sample(order(n),c,p) + shift(c)
   -------------------------------------------------------------------------------------------- */
static void cnn__gather(const cnn_map_shape *s, float *x, const unsigned char *bytes, const float *floats,
                        const int *order, const float *scale, const float *shift)
{
    int n, c, p;
    for (n = 0; n < s->batch; n++)
        for (c = 0; c < s->channels; c++) {
            size_t first = ((size_t)order[n] * s->channels + c) * s->pixels;
            for (p = 0; p < s->pixels; p++)
                *x++ = scale[c] * (bytes ? (float)bytes[first + p] : floats[first + p]) + shift[c];
        }
}

/* --------------------------------------------------------------------------------------------
   The table `direct`. A fused entry is its cards one after the other: convolution, activation, pooling.
   Backward, with y = max of the window of tau(f): only the winner is moved, so  df(winner) += dy tau'(y).
   -------------------------------------------------------------------------------------------- */
static size_t cnn__conv2d_outputs(const cnn_conv2d_shape *s)       /* before pooling */
{
    return (size_t)s->batch * s->out_channels * s->out_height * s->out_width;
}

static size_t cnn__pool2d_outputs(const cnn_pool2d_shape *s)
{
    return (size_t)s->batch * s->channels * s->out_height * s->out_width;
}

static void cnn__pool2d_index(const cnn_pool2d_shape *s, unsigned char *index, const float *x)
{
    size_t map = (size_t)s->in_height * s->in_width;
    int m, j, i;
    for (m = 0; m < s->batch * s->channels; m++, x += map)
        for (j = 0; j < s->out_height; j++)
            for (i = 0; i < s->out_width; i++)
                *index++ = cnn__pool2d_place(s, cnn__pool2d_winner(s, x, cnn__pool2d_window(s, j, i)), j, i);
}

static void cnn__pool2d_unpool(const cnn_pool2d_shape *s, float *dx, const float *dy, const unsigned char *index)
{
    size_t map = (size_t)s->in_height * s->in_width;
    int m, j, i;
    memset(dx, 0, sizeof *dx * s->batch * s->channels * map);
    for (m = 0; m < s->batch * s->channels; m++, dx += map)
        for (j = 0; j < s->out_height; j++)
            for (i = 0; i < s->out_width; i++, index++, dy++) {
                int row = j * s->stride_height - s->pad_height + *index / s->kernel_width;
                int column = i * s->stride_width - s->pad_width + *index % s->kernel_width;
                dx[(size_t)row * s->in_width + column] += *dy;
            }
}

static size_t cnn__direct_conv2d_work(void *context, const cnn_conv2d_shape *s)
{
    (void)context;
    return sizeof(float) * (cnn__conv2d_outputs(s) + (s->pool.kernel_height ? cnn__pool2d_outputs(&s->pool) : 0));
}

static void cnn__direct_conv2d_forward(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index,
                                       const float *x, const float *weight, const float *bias, void *work)
{
    float *f = s->pool.kernel_height ? (float *)work : y;
    (void)context;
    cnn__conv2d_forward(s, f, x, weight, bias);
    if (s->activation) cnn__activation_forward(s->activation, s->slope, f, f, cnn__conv2d_outputs(s));
    if (s->pool.kernel_height) cnn__pool2d_forward(&s->pool, y, f);
    if (s->pool.kernel_height && index) cnn__pool2d_index(&s->pool, index, f);
}

static void cnn__direct_conv2d_backward(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias,
                                        const float *dy, const float *y, const unsigned char *index,
                                        const float *x, const float *weight, void *work)
{
    float *df = (float *)work, *dpooled = df + cnn__conv2d_outputs(s);
    (void)context;
    if (s->pool.kernel_height) {
        cnn__activation_backward(s->activation, s->slope, dpooled, dy, y, cnn__pool2d_outputs(&s->pool));
        cnn__pool2d_unpool(&s->pool, df, dpooled, index);
    } else
        cnn__activation_backward(s->activation, s->slope, df, dy, y, cnn__conv2d_outputs(s));
    cnn__conv2d_backward(s, dx, dweight, dbias, df, x, weight);
}

static size_t cnn__direct_linear_work(void *context, const cnn_linear_shape *s)
{
    (void)context;
    return sizeof(float) * s->batch * s->out_features;
}

static void cnn__direct_linear_forward(void *context, const cnn_linear_shape *s, float *y, const float *x,
                                       const float *weight, const float *bias, void *work)
{
    (void)context; (void)work;
    cnn__linear_forward(s, y, x, weight, bias);
    if (s->activation) cnn__activation_forward(s->activation, s->slope, y, y, (size_t)s->batch * s->out_features);
}

static void cnn__direct_linear_backward(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias,
                                        const float *dy, const float *y, const float *x, const float *weight, void *work)
{
    float *df = (float *)work;
    (void)context;
    cnn__activation_backward(s->activation, s->slope, df, dy, y, (size_t)s->batch * s->out_features);
    cnn__linear_backward(s, dx, dweight, dbias, df, x, weight);
}

/* The other entries are one card each. */
static void cnn__direct_pool2d_forward(void *context, const cnn_pool2d_shape *s, float *y, const float *x)
{ (void)context; cnn__pool2d_forward(s, y, x); }

static void cnn__direct_pool2d_backward(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x)
{ (void)context; cnn__pool2d_backward(s, dx, dy, x); }

static void cnn__direct_activation_forward(void *context, cnn_activation f, float slope, float *y, const float *x, size_t n)
{ (void)context; cnn__activation_forward(f, slope, y, x, n); }

static void cnn__direct_activation_backward(void *context, cnn_activation f, float slope, float *dx, const float *dy,
                                            const float *y, size_t n)
{ (void)context; cnn__activation_backward(f, slope, dx, dy, y, n); }

static void cnn__direct_softmax_forward(void *context, const cnn_map_shape *s, float *y, const float *x)
{ (void)context; cnn__softmax_forward(s, y, x); }

static void cnn__direct_softmax_backward(void *context, const cnn_map_shape *s, float *dx, const float *dy, const float *y)
{ (void)context; cnn__softmax_backward(s, dx, dy, y); }

static void cnn__direct_dropout_forward(void *context, const cnn_counters *c, int layer, float p, float *y, const float *x,
                                        size_t n)
{ (void)context; cnn__dropout_forward(c, layer, p, y, x, n); }

static void cnn__direct_dropout_backward(void *context, const cnn_counters *c, int layer, float p, float *dx, const float *dy,
                                         size_t n)
{ (void)context; cnn__dropout_backward(c, layer, p, dx, dy, n); }

static void cnn__direct_softmax_cross_entropy(void *context, cnn_counters *c, float *dy, const float *y, const int *labels,
                                              int batch, int outputs)
{ (void)context; cnn__softmax_cross_entropy(c, dy, y, labels, batch, outputs); }

static void cnn__direct_mse(void *context, cnn_counters *c, float *dy, const float *y, const float *target, const int *labels,
                            int batch, int outputs)
{ (void)context; cnn__mse(c, dy, y, target, labels, batch, outputs); }

static void cnn__direct_next_batch(void *context, cnn_counters *c, int size, int training)
{
    (void)context;
    c->batch_offset = c->next_offset;
    c->next_offset += (uint64_t)size;
    c->pass += (uint64_t)training;
}

static void cnn__direct_gather(void *context, const cnn_counters *k, const cnn_map_shape *s, float *x,
                               const unsigned char *bytes, const float *floats, const int *order, const float *scale,
                               const float *shift)
{ (void)context; cnn__gather(s, x, bytes, floats, order + k->batch_offset, scale, shift); }

static void cnn__direct_gather_rows(void *context, const cnn_counters *k, void *to, const void *from, const int *order,
                                    int batch, int width)
{
    int n;
    (void)context;
    order += k->batch_offset;
    for (n = 0; n < batch; n++)
        memcpy((char *)to + (size_t)n * width * 4, (const char *)from + (size_t)order[n] * width * 4, (size_t)width * 4);
}

static void cnn__direct_clip_grad_norm(void *context, cnn_counters *c, float *g, size_t n, float max_norm)
{ (void)context; cnn__clip_grad_norm(c, g, n, max_norm); }

static void cnn__direct_sgd_step(void *context, cnn_counters *c, const cnn_sgd_options *o, float *w, float *v, const float *g,
                                 size_t n)
{ (void)context; cnn__sgd_step(c, o, w, v, g, n); }

static void cnn__direct_adam_step(void *context, cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w, float *m,
                                  float *v, const float *g, size_t n)
{ (void)context; cnn__adam_step(c, o, decoupled, w, m, v, g, n); }

static void *cnn__host_alloc(void *context, size_t bytes) { (void)context; return cnn__alloc(bytes, 1); }
static void cnn__host_free(void *context, void *memory) { (void)context; cnn__free(memory); }
static void cnn__host_copy(void *context, void *to, const void *from, size_t bytes) { (void)context; memcpy(to, from, bytes); }
static void cnn__host_zero(void *context, void *memory, size_t bytes) { (void)context; memset(memory, 0, bytes); }

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
    b.conv2d_work = cnn__direct_conv2d_work;
    b.conv2d_forward = cnn__direct_conv2d_forward;
    b.conv2d_backward = cnn__direct_conv2d_backward;
    b.pool2d_forward = cnn__direct_pool2d_forward;
    b.pool2d_backward = cnn__direct_pool2d_backward;
    b.linear_work = cnn__direct_linear_work;
    b.linear_forward = cnn__direct_linear_forward;
    b.linear_backward = cnn__direct_linear_backward;
    b.activation_forward = cnn__direct_activation_forward;
    b.activation_backward = cnn__direct_activation_backward;
    b.softmax_forward = cnn__direct_softmax_forward;
    b.softmax_backward = cnn__direct_softmax_backward;
    b.dropout_forward = cnn__direct_dropout_forward;
    b.dropout_backward = cnn__direct_dropout_backward;
    b.softmax_cross_entropy = cnn__direct_softmax_cross_entropy;
    b.mse = cnn__direct_mse;
    b.gather = cnn__direct_gather;
    b.gather_rows = cnn__direct_gather_rows;
    b.next_batch = cnn__direct_next_batch;
    b.clip_grad_norm = cnn__direct_clip_grad_norm;
    b.sgd_step = cnn__direct_sgd_step;
    b.adam_step = cnn__direct_adam_step;
    return b;
}

#endif /* CNN_IMPLEMENTATION, first part: the vector kernels stand between the two */

/* ============================================================================================
   >>gemm   The backend `gemm`: convolutions and linear layers as products of matrices. The cards above
             say what is computed; this section only changes the order and the place of the sums.

             1. The vector kernels, the innermost loops. This part of the file is included once for each
                instruction set (cnn.h includes itself); the best one is chosen when a network starts.
             2. Threads: work in pieces that do not depend on how many threads there are, so that the
                results do not either.
             3. Convolution, with one image in each lane of a vector: the loops are the card's, with
                vectors in place of numbers, and maps of any size fill the vectors. Kernels of 3 x 3
                and 5 x 5 go forward, and back to the input, with Winograd's fewer multiplications.
                The gradient of the weights leaves out what ReLU and max pooling have set to zero.
             4. The linear layer, and what works value by value.
   ============================================================================================ */

#ifdef CNN__ISA                             /* the name of the instruction set that this pass is for */

#define CNN__K(name) CNN__JOIN(name, CNN__ISA)

#if CNN__LANES > 1
typedef float CNN__K(cnn__v) __attribute__((vector_size(4 * CNN__LANES)));
typedef float CNN__K(cnn__vu) __attribute__((vector_size(4 * CNN__LANES), aligned(4), may_alias));     /* at any address */
typedef int32_t CNN__K(cnn__vi) __attribute__((vector_size(4 * CNN__LANES)));
#else
typedef float CNN__K(cnn__v), CNN__K(cnn__vu);
#endif

#if CNN__LANES > 1
#define CNN__SELECT(mask, a, b) \
    ((CNN__K(cnn__v))(((CNN__K(cnn__vi))(mask) & (CNN__K(cnn__vi))(a)) | (~(CNN__K(cnn__vi))(mask) & (CNN__K(cnn__vi))(b))))
#define CNN__RELU(y) ((CNN__K(cnn__v))((CNN__K(cnn__vi))(y) & ~(CNN__K(cnn__vi))((y) <= 0)))     /* lets NaN through, as the card's */
#define CNN__LOWER(a, b) CNN__SHUFFLE(a, b, CNN__K(cnn__vi), CNN__LOW)    /* a0 b0 a1 b1 ..., the first half of both interleaved */
#define CNN__UPPER(a, b) CNN__SHUFFLE(a, b, CNN__K(cnn__vi), CNN__HIGH)   /* and the second */
#else
#define CNN__SELECT(mask, a, b) ((mask) ? (a) : (b))
#define CNN__RELU(y) ((y) <= 0 ? 0 : (y))
#define CNN__LOWER(a, b) (a)
#define CNN__UPPER(a, b) (b)
#endif

/* Transposes LANES x LANES values: log2(LANES) times, vector i is interleaved with vector i + LANES / 2. */
static CNN__INLINE void CNN__K(cnn__transpose)(CNN__K(cnn__v) *r)
{
#if CNN__LANES > 1
    CNN__K(cnn__v) t[CNN__LANES];
    int i, round;
    CNN__UNROLL for (round = CNN__LANES; round > 1; round /= 2) {
        CNN__UNROLL for (i = 0; i < CNN__LANES / 2; i++) {
            t[2 * i] = CNN__LOWER(r[i], r[i + CNN__LANES / 2]);
            t[2 * i + 1] = CNN__UPPER(r[i], r[i + CNN__LANES / 2]);
        }
        CNN__UNROLL for (i = 0; i < CNN__LANES; i++) r[i] = t[i];
    }
#else
    (void)r;
#endif
}

/* C = init + A B as outer products: a tile of ROWS rows and `vectors` vectors stays in registers.
       a[r]  row r of A       b + where[k]  row k of B, its vectors `spacing` apart
       c     the tile's corner, its rows `ldc` apart; only the first `rows` rows are written
   A step loads one row of B and one value of each row of A for ROWS * vectors multiply-adds.
   init is bias[r], or what c holds (accumulate), or 0.                                                */
static CNN__INLINE void CNN__K(cnn__tile_of)(int vectors, int depth, const float *const *a, const float *b, const size_t *where,
                                             size_t spacing, float *c, size_t ldc, int rows, const float *bias, int accumulate,
                                             int relu)
{
    CNN__K(cnn__v) sum[CNN__ROWS][CNN__VECTORS], line[CNN__VECTORS], zero = { 0 };
    int k, r, v;
    CNN__UNROLL for (r = 0; r < CNN__ROWS; r++)
        CNN__UNROLL for (v = 0; v < vectors; v++) sum[r][v] = zero + (bias ? bias[r] : 0);
    for (k = 0; k < depth; k++) {
        CNN__UNROLL for (v = 0; v < vectors; v++) line[v] = *(const CNN__K(cnn__vu) *)(b + where[k] + v * spacing);
        CNN__UNROLL for (r = 0; r < CNN__ROWS; r++) {
            float value = a[r][k];
            CNN__UNROLL for (v = 0; v < vectors; v++) sum[r][v] += line[v] * value;
        }
    }
    CNN__UNROLL for (r = 0; r < CNN__ROWS; r++)
        CNN__UNROLL for (v = 0; v < vectors; v++) {
            CNN__K(cnn__vu) *to = (CNN__K(cnn__vu) *)(c + (size_t)r * ldc + v * CNN__LANES);
            if (r >= rows) break;
            if (accumulate) sum[r][v] += *to;
            *to = relu ? CNN__RELU(sum[r][v]) : sum[r][v];
        }
}

static void CNN__K(cnn__tile)(int vectors, int depth, const float *const *a, const float *b, const size_t *where, size_t spacing,
                              float *c, size_t ldc, int rows, const float *bias, int accumulate, int relu)
{
    if (vectors == 1)
        CNN__K(cnn__tile_of)(1, depth, a, b, where, spacing, c, ldc, rows, bias, accumulate, relu);
    else if (vectors == 2)
        CNN__K(cnn__tile_of)(2, depth, a, b, where, spacing, c, ldc, rows, bias, accumulate, relu);
    else CNN__K(cnn__tile_of)(CNN__VECTORS, depth, a, b, where, spacing, c, ldc, rows, bias, accumulate, relu);
}

/* to(r, i) += sum over n of values[n] x[places[n] + r pitch + i]: windows of `rows` lines of `vectors` vectors, weighed and
   added up. As many of the sums as there are registers go together: for each value, one load a multiply-add. Few sums would
   wait for themselves, so they are made in two `ways`, of the windows with even and with odd numbers. */
static CNN__INLINE void CNN__K(cnn__add_windows_of)(int rows, int vectors, size_t ways, float *to, size_t line, const float *x,
                                                    size_t pitch, const float *values, const int32_t *places, size_t count)
{
    CNN__K(cnn__v) sum[2][CNN__SUMS], zero = { 0 };
    size_t n, way;
    int r, v;
    CNN__UNROLL for (way = 0; way < ways; way++)
        CNN__UNROLL for (r = 0; r < rows * vectors; r++) sum[way][r] = zero;
    for (n = 0; n < count; n += ways)
        CNN__UNROLL for (way = 0; way < ways; way++) {
            const float *at;
            float value;
            if (n + way >= count) break;
            at = x + places[n + way];
            value = values[n + way];
            CNN__UNROLL for (r = 0; r < rows; r++, at += pitch)
                CNN__UNROLL for (v = 0; v < vectors; v++)
                    sum[way][r * vectors + v] += *(const CNN__K(cnn__vu) *)(at + v * CNN__LANES) * value;
        }
    CNN__UNROLL for (r = 0; r < rows; r++, to += line)
        CNN__UNROLL for (v = 0; v < vectors; v++) {
            if (ways == 2) sum[0][r * vectors + v] += sum[1][r * vectors + v];
            *(CNN__K(cnn__vu) *)(to + v * CNN__LANES) += sum[0][r * vectors + v];
        }
}

static void CNN__K(cnn__add_windows)(int rows, int vectors, float *to, const float *x, size_t pitch, const float *values,
                                     const int32_t *places, size_t count)
{
    size_t line = (size_t)vectors * CNN__LANES;
    int row, high, v;
    for (row = 0; row < rows; row += high) {
        high = rows - row >= 5 ? 5 : rows - row >= 3 ? 3 : 1;
        for (v = 0; v < vectors;) {
            float *t = to + row * line + v * CNN__LANES;
            const float *from = x + row * pitch + v * CNN__LANES;
#define CNN__BLOCK(h, w)                                                                                           \
            if (high == h && vectors - v >= w && h * w <= CNN__SUMS) {                                             \
                CNN__K(cnn__add_windows_of)(h, w, h * w <= CNN__SUMS / 2 ? 2 : 1, t, line, from, pitch, values, places, count);  \
                v += w;                                                                                            \
                continue;                                                                                          \
            }
            CNN__BLOCK(5, 5) CNN__BLOCK(5, 2) CNN__BLOCK(5, 1)
            CNN__BLOCK(3, 8) CNN__BLOCK(3, 4) CNN__BLOCK(3, 2) CNN__BLOCK(3, 1)
            CNN__BLOCK(1, 4) CNN__BLOCK(1, 2) CNN__BLOCK(1, 1)
#undef CNN__BLOCK
        }
    }
}

/* Lists those of n values that are not 0, and where in X their windows begin: at a corner, or if they were pooled, at the tap
   that won there. Returns how many. */
static CNN__INLINE size_t CNN__K(cnn__nonzeros_of)(float *values, int32_t *places, const float *df, const int32_t *corners,
                                                   const unsigned char *index, const int32_t *taps, int32_t begin, size_t n)
{
    size_t count = 0, i;
    for (i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, df + i, sizeof bits);
        memcpy(values + count, &bits, sizeof bits);
        places[count] = begin + corners[i] + (index ? taps[index[i]] : 0);
        count += bits << 1 != 0;                           /* no branch, which would be guessed wrong half the time */
    }
    return count;
}

static size_t CNN__K(cnn__nonzeros)(float *values, int32_t *places, const float *df, const int32_t *corners,
                                    const unsigned char *index, const int32_t *taps, int32_t begin, size_t n)
{
    if (index) return CNN__K(cnn__nonzeros_of)(values, places, df, corners, index, taps, begin, n);
    return CNN__K(cnn__nonzeros_of)(values, places, df, corners, NULL, taps, begin, n);
}

/* Pixel p of each image becomes one vector: image l in lane l. Maps of rows x width pixels lie `image` values apart; pixel
   (j, i) goes to to[j pitch + i step]. Lanes past the last image repeat it. From floats, or from bytes (the other NULL). */
static CNN__INLINE void CNN__K(cnn__lanes_in_of)(float *to, size_t pitch, size_t step, const float *floats,
                                                 const unsigned char *bytes, size_t image, int images, int rows, int width)
{
    size_t count = (size_t)rows * width, first = 0, starts[CNN__LANES];
    CNN__K(cnn__v) r[CNN__LANES];
    int l, p;
    for (l = 0; l < CNN__LANES; l++) starts[l] = image * (size_t)(l < images ? l : images - 1);
    while (first < count) {
        size_t row, column;
        int block = CNN__LANES;
        if (count < CNN__LANES) {
            block = (int)count;
            for (p = 0; p < block; p++)
                for (l = 0; l < CNN__LANES; l++)
                    ((float *)&r[p])[l] = floats ? floats[starts[l] + p] : (float)bytes[starts[l] + p];
        } else {
            if (first + CNN__LANES > count) first = count - CNN__LANES;            /* the last block overlaps the one before */
            for (l = 0; l < CNN__LANES; l++)
                if (floats) r[l] = *(const CNN__K(cnn__vu) *)(floats + starts[l] + first);
                else for (p = 0; p < CNN__LANES; p++) ((float *)&r[l])[p] = (float)bytes[starts[l] + first + p];
            CNN__K(cnn__transpose)(r);
        }
        row = first / (size_t)width; column = first % (size_t)width;
        for (p = 0; p < block; p++) {
            *(CNN__K(cnn__vu) *)(to + row * pitch + column * step) = r[p];
            if (++column == (size_t)width) { column = 0; row++; }
        }
        first += block;
    }
}

static void CNN__K(cnn__lanes_in)(float *to, size_t pitch, size_t step, const float *from, size_t image, int images, int rows,
                                  int width)
{
    CNN__K(cnn__lanes_in_of)(to, pitch, step, from, NULL, image, images, rows, width);
}

static void CNN__K(cnn__places_in)(float *to, const unsigned char *from, size_t image, int images, int count)
{
    CNN__K(cnn__lanes_in_of)(to, 0, CNN__LANES, NULL, from, image, images, 1, count);
}

/* The way back: `count` vectors, `step` apart, to each image's `count` values; images lie `image` apart. */
static CNN__INLINE void CNN__K(cnn__lanes_out_of)(float *floats, unsigned char *bytes, size_t image, int images,
                                                  const float *from, size_t step, size_t count)
{
    CNN__K(cnn__v) r[CNN__LANES];
    size_t first;
    int l, p;
    if (count < CNN__LANES) {
        for (l = 0; l < images; l++)
            for (first = 0; first < count; first++) {
                float value = from[first * step + l];
                if (floats) floats[l * image + first] = value; else bytes[l * image + first] = (unsigned char)value;
            }
        return;
    }
    for (first = 0; first < count; first += CNN__LANES) {
        if (first + CNN__LANES > count) first = count - CNN__LANES;
        for (p = 0; p < CNN__LANES; p++) r[p] = *(const CNN__K(cnn__vu) *)(from + (first + p) * step);
        CNN__K(cnn__transpose)(r);
        for (l = 0; l < CNN__LANES; l++) {
            if (l >= images) break;
            if (floats) *(CNN__K(cnn__vu) *)(floats + l * image + first) = r[l];
            else for (p = 0; p < CNN__LANES; p++) bytes[l * image + first + p] = (unsigned char)((const float *)&r[l])[p];
        }
    }
}

static void CNN__K(cnn__lanes_out)(float *to, size_t image, int images, const float *from, size_t step, size_t count)
{
    CNN__K(cnn__lanes_out_of)(to, NULL, image, images, from, step, count);
}

static void CNN__K(cnn__places_out)(unsigned char *to, size_t image, int images, const float *from, size_t count)
{
    CNN__K(cnn__lanes_out_of)(NULL, to, image, images, from, CNN__LANES, count);
}

/* max pooling of one image a lane; place (NULL: not wanted) is the winner's number in its window */
static void CNN__K(cnn__max_pool)(const cnn_pool2d_shape *s, float *y, float *place, const float *z)
{
    size_t map = (size_t)s->in_height * s->in_width * CNN__LANES;
    int c, j, i, row, column;
    for (c = 0; c < s->channels; c++, z += map)
        for (j = 0; j < s->out_height; j++)
            for (i = 0; i < s->out_width; i++, y += CNN__LANES) {
                cnn__window w = cnn__pool2d_window(s, j, i);
                int top = j * s->stride_height - s->pad_height, left = i * s->stride_width - s->pad_width;
                int start = (w.top - top) * s->kernel_width + w.left - left;
                CNN__K(cnn__v) zero = { 0 };
                CNN__K(cnn__v) best = *(const CNN__K(cnn__vu) *)(z + ((size_t)w.top * s->in_width + w.left) * CNN__LANES);
                CNN__K(cnn__v) winner = zero + (float)start;
                for (row = w.top; row < w.bottom; row++)
                    for (column = w.left; column < w.right; column++) {
                        CNN__K(cnn__v) next = *(const CNN__K(cnn__vu) *)(z + ((size_t)row * s->in_width + column) * CNN__LANES);
                        CNN__K(cnn__v) number = zero + (float)((row - top) * s->kernel_width + column - left);
                        winner = CNN__SELECT(CNN__WINS(next, best), number, winner);
                        best = CNN__SELECT(CNN__WINS(next, best), next, best);
                    }
                *(CNN__K(cnn__vu) *)y = best;
                if (place) { *(CNN__K(cnn__vu) *)place = winner; place += CNN__LANES; }
            }
}

/* its way back: each gradient is added at its window's winner. d: maps of `map` values, rows `pitch`, columns `step` apart */
static void CNN__K(cnn__max_unpool)(const cnn_pool2d_shape *s, float *d, size_t map, size_t pitch, size_t step, const float *dy,
                                    const float *place)
{
    int c, j, i, row, column;
    for (c = 0; c < s->channels; c++, d += map)
        for (j = 0; j < s->out_height; j++)
            for (i = 0; i < s->out_width; i++, dy += CNN__LANES, place += CNN__LANES) {
                cnn__window w = cnn__pool2d_window(s, j, i);
                int top = j * s->stride_height - s->pad_height, left = i * s->stride_width - s->pad_width;
                CNN__K(cnn__v) g = *(const CNN__K(cnn__vu) *)dy, winner = *(const CNN__K(cnn__vu) *)place, zero = { 0 };
                for (row = w.top; row < w.bottom; row++)
                    for (column = w.left; column < w.right; column++) {
                        float number = (float)((row - top) * s->kernel_width + column - left);
                        CNN__K(cnn__vu) *to = (CNN__K(cnn__vu) *)(d + (size_t)row * pitch + (size_t)column * step);
                        *to += CNN__SELECT(winner == zero + number, g, zero);
                    }
            }
}

/* ---- Winograd's transforms, for one image (or one channel) a lane ---- */

/* One dimension: out = T in, T rows x columns. T is known when this is compiled: what remains is a line of multiplications
   and additions for each row. */
static CNN__INLINE void CNN__K(cnn__transform_line)(const float *T, int rows, int columns, CNN__K(cnn__v) *out,
                                                    const CNN__K(cnn__v) *in)
{
    int j, k;
    CNN__UNROLL for (j = 0; j < rows; j++) {
        int begun = 0;
        CNN__UNROLL for (k = 0; k < columns; k++)
            if (T[j * columns + k] != 0) {
                out[j] = begun ? out[j] + in[k] * T[j * columns + k] : in[k] * T[j * columns + k];
                begun = 1;
            }
    }
}

/* to = T from TT: columns x columns values, rows `pitch` and columns `step` apart, become rows x rows values `apart`. */
static CNN__INLINE void CNN__K(cnn__transform)(const float *T, int rows, int columns, float *to, size_t apart,
                                               const float *from, size_t pitch, size_t step)
{
    CNN__K(cnn__v) half[8][8], in[8], out[8];
    int i, k;
    for (i = 0; i < columns; i++) {
        CNN__UNROLL for (k = 0; k < columns; k++) in[k] = *(const CNN__K(cnn__vu) *)(from + k * pitch + i * step);
        CNN__K(cnn__transform_line)(T, rows, columns, out, in);
        CNN__UNROLL for (k = 0; k < rows; k++) half[k][i] = out[k];
    }
    for (i = 0; i < rows; i++) {
        CNN__K(cnn__transform_line)(T, rows, columns, out, half[i]);
        CNN__UNROLL for (k = 0; k < rows; k++) *(CNN__K(cnn__vu) *)(to + (i * rows + k) * apart) = out[k];
    }
}

/* U = G u GT of each kernel u: (out_channels, in_channels, r, r), LANES channels side by side.
   to[point][k][c], a point's matrix `apart` values from the next, its rows `pitch` */
static void CNN__K(cnn__winograd_u)(int points, float *to, size_t apart, size_t pitch, const float *weight, int out_channels,
                                      int in_channels)
{
    int r = points - 3, k, c;
    float taps[25 * CNN__LANES];
    for (k = 0; k < out_channels; k++, to += pitch)
        for (c = 0; c < in_channels; c += CNN__LANES, weight += r * r * CNN__LANES) {
            int there = in_channels - c < CNN__LANES ? in_channels - c : CNN__LANES;
            CNN__K(cnn__lanes_in)(taps, 0, CNN__LANES, weight, (size_t)r * r, there, 1, r * r);
            if (points == 6) CNN__K(cnn__transform)(cnn__G6, 6, 3, to + c, apart, taps, 3 * CNN__LANES, CNN__LANES);
            else CNN__K(cnn__transform)(cnn__G8, 8, 5, to + c, apart, taps, 5 * CNN__LANES, CNN__LANES);
            if (there < CNN__LANES) weight += r * r * (there - CNN__LANES);
        }
}

/* V = BT z B of the windows of `count` tiles from number `first` on, of each channel. to[point][channel][tile] */
static void CNN__K(cnn__winograd_v)(int points, float *to, size_t apart, const float *in, size_t map, size_t pitch,
                                    int channels, int across, int first, int count)
{
    int c, t;
    for (c = 0; c < channels; c++, in += map)
        for (t = first; t < first + count; t++, to += CNN__LANES) {
            const float *window = in + (size_t)(t / across * 4) * pitch + (size_t)(t % across * 4) * CNN__LANES;
            if (points == 6) CNN__K(cnn__transform)(cnn__BT6, 6, 6, to, apart, window, pitch, CNN__LANES);
            else CNN__K(cnn__transform)(cnn__BT8, 8, 8, to, apart, window, pitch, CNN__LANES);
        }
}

/* f = [relu] (bias + AT M A): each tile's 4 x 4 outputs, cut off at the map's edges. from[point][channel][tile] */
static void CNN__K(cnn__winograd_f)(int points, float *out, size_t map, int height, int width, const float *from, size_t apart,
                                     const float *bias, int relu, int channels, int across, int first, int count)
{
    float tile[16 * CNN__LANES];
    int c, t, i, j;
    for (c = 0; c < channels; c++, out += map)
        for (t = first; t < first + count; t++, from += CNN__LANES) {
            int top = t / across * 4, left = t % across * 4;
            if (points == 6) CNN__K(cnn__transform)(cnn__AT6, 4, 6, tile, CNN__LANES, from, 6 * apart, apart);
            else CNN__K(cnn__transform)(cnn__AT8, 4, 8, tile, CNN__LANES, from, 8 * apart, apart);
            for (j = 0; j < 4 && top + j < height; j++)
                for (i = 0; i < 4 && left + i < width; i++) {
                    CNN__K(cnn__v) sum = *(const CNN__K(cnn__vu) *)(tile + (4 * j + i) * CNN__LANES) + (bias ? bias[c] : 0);
                    *(CNN__K(cnn__vu) *)(out + ((size_t)(top + j) * width + left + i) * CNN__LANES) = relu ? CNN__RELU(sum) : sum;
                }
        }
}

static float CNN__K(cnn__total)(const float *x, size_t n)
{
    CNN__K(cnn__v) sum[4], zero = { 0 };
    float total = 0;
    size_t i;
    int v, l;
    for (v = 0; v < 4; v++) sum[v] = zero;
    for (i = 0; i + 4 * CNN__LANES <= n; i += 4 * CNN__LANES)
        CNN__UNROLL for (v = 0; v < 4; v++) sum[v] += *(const CNN__K(cnn__vu) *)(x + i + v * CNN__LANES);
    for (v = 0; v < 4; v++)
        for (l = 0; l < CNN__LANES; l++) total += ((const float *)&sum[v])[l];
    for (; i < n; i++) total += x[i];
    return total;
}

/* Loops that the compiler turns into this instruction set's vectors by itself. */

static void CNN__K(cnn__relu_forward)(float *y, const float *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) y[i] = x[i] <= 0 ? 0 : x[i];
}

static void CNN__K(cnn__relu_backward)(float *dx, const float *dy, const float *y, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) dx[i] = y[i] > 0 ? dy[i] : 0;
}

static void CNN__K(cnn__sum_into)(float *to, const float *from, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) to[i] += from[i];
}

static void CNN__K(cnn__scale_bytes)(float *to, const unsigned char *from, float scale, float shift, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) to[i] = scale * (float)from[i] + shift;
}

/* square roots of numbers >= 0, as no compiler makes of sqrtf(), which may set errno: a first guess of 1 / sqrt x from the bits,
   then Newton's steps */
static CNN__INLINE CNN__K(cnn__v) CNN__K(cnn__sqrt)(CNN__K(cnn__v) x)
{
#if CNN__LANES > 1
    CNN__K(cnn__v) r = (CNN__K(cnn__v))(0x5f375a86 - ((CNN__K(cnn__vi))x >> 1)), root;
    int n;
    CNN__UNROLL for (n = 0; n < 3; n++) r = r * (1.5f - 0.5f * x * r * r);
    root = x * r;
    root += 0.5f * r * (x - root * root);
    return CNN__SELECT(x <= 3e38f, root, x);               /* infinity and NaN are their own */
#else
    return sqrtf(x);
#endif
}

static CNN__INLINE void CNN__K(cnn__adam_vector)(const cnn__adam_factors *f, const cnn_adam_options *o, float *w, float *m,
                                                 float *v, const float *g)
{
    CNN__K(cnn__v) weight = *(const CNN__K(cnn__vu) *)w, d = *(const CNN__K(cnn__vu) *)g + f->decay * weight;
    CNN__K(cnn__v) mean = o->beta1 * *(const CNN__K(cnn__vu) *)m + (1 - o->beta1) * d;
    CNN__K(cnn__v) square = o->beta2 * *(const CNN__K(cnn__vu) *)v + (1 - o->beta2) * d * d;
    *(CNN__K(cnn__vu) *)m = mean;
    *(CNN__K(cnn__vu) *)v = square;
    *(CNN__K(cnn__vu) *)w = weight * f->shrink - f->lr * mean / (CNN__K(cnn__sqrt)(square) * f->root + o->eps);
}

static void CNN__K(cnn__adam_part)(const cnn__adam_factors *f, const cnn_adam_options *o, float *w, float *m, float *v,
                                   const float *g, size_t n)
{
    cnn__adam_factors factors = *f;
    cnn_adam_options options = *o;
    float rest[4][CNN__LANES] = { { 0 } };
    size_t i, left = n % CNN__LANES, bytes = left * sizeof *w;
    for (i = 0; i < n - left; i += CNN__LANES) CNN__K(cnn__adam_vector)(&factors, &options, w + i, m + i, v + i, g + i);
    memcpy(rest[0], w + i, bytes); memcpy(rest[1], m + i, bytes); memcpy(rest[2], v + i, bytes); memcpy(rest[3], g + i, bytes);
    CNN__K(cnn__adam_vector)(&factors, &options, rest[0], rest[1], rest[2], rest[3]);
    memcpy(w + i, rest[0], bytes); memcpy(m + i, rest[1], bytes); memcpy(v + i, rest[2], bytes);
}

/* y = x grow where cnn_random's word number 4 index, 4 index + 1, ... is at least limit, else 0: LANES counters side by side */
static void CNN__K(cnn__dropout_part)(float *y, const float *x, size_t n, uint64_t seed, uint32_t stream, uint64_t step,
                                      uint32_t index, uint32_t limit, float grow)
{
    uint32_t c0[CNN__LANES], c1[CNN__LANES], c2[CNN__LANES], c3[CNN__LANES], words[4 * CNN__LANES];
    size_t at, i, left;
    int l, round;
    for (at = 0; at < n; at += left, index += CNN__LANES) {
        uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
        left = n - at < 4 * CNN__LANES ? n - at : 4 * CNN__LANES;
        for (l = 0; l < CNN__LANES; l++) {
            c0[l] = index + (uint32_t)l;
            c1[l] = stream;
            c2[l] = (uint32_t)step;
            c3[l] = (uint32_t)(step >> 32);
        }
        for (round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
            for (l = 0; l < CNN__LANES; l++) {
                uint64_t p0 = (uint64_t)0xD2511F53u * c0[l], p1 = (uint64_t)0xCD9E8D57u * c2[l];
                c0[l] = (uint32_t)(p1 >> 32) ^ c1[l] ^ k0;
                c2[l] = (uint32_t)(p0 >> 32) ^ c3[l] ^ k1;
                c1[l] = (uint32_t)p1;
                c3[l] = (uint32_t)p0;
            }
        for (l = 0; l < CNN__LANES; l++) {
            words[4 * l] = c0[l]; words[4 * l + 1] = c1[l]; words[4 * l + 2] = c2[l]; words[4 * l + 3] = c3[l];
        }
        for (i = 0; i < left; i++) y[at + i] = words[i] >> 8 >= limit ? x[at + i] * grow : 0;
    }
}

static const cnn__kernels CNN__K(cnn__kernels) = {
    CNN__TEXT(CNN__ISA), CNN__LANES, CNN__ROWS, CNN__VECTORS,
    CNN__K(cnn__tile), CNN__K(cnn__add_windows), CNN__K(cnn__nonzeros), CNN__K(cnn__lanes_in), CNN__K(cnn__places_in),
    CNN__K(cnn__lanes_out), CNN__K(cnn__places_out), CNN__K(cnn__max_pool), CNN__K(cnn__max_unpool), CNN__K(cnn__winograd_u),
    CNN__K(cnn__winograd_v), CNN__K(cnn__winograd_f), CNN__K(cnn__total),
    CNN__K(cnn__relu_forward), CNN__K(cnn__relu_backward), CNN__K(cnn__sum_into), CNN__K(cnn__scale_bytes),
    CNN__K(cnn__adam_part), CNN__K(cnn__dropout_part)
};

#undef CNN__K
#undef CNN__RELU
#undef CNN__SELECT
#undef CNN__LOWER
#undef CNN__UPPER
#undef CNN__LOW
#undef CNN__HIGH
#undef CNN__ISA
#undef CNN__LANES
#undef CNN__ROWS
#undef CNN__VECTORS
#undef CNN__SUMS
#elif defined(CNN_IMPLEMENTATION) && !defined(CNN__IMPLEMENTED)        /* second part */
#define CNN__IMPLEMENTED

/* ---- the kernels of each instruction set ---- */

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
#define CNN__WINS(b, a) (((b) > (a)) | ((b) != (b)))          /* b is larger than the earlier a, or NaN: as the card's winner */

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define CNN__SHUFFLE(a, b, integers, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#elif defined(__GNUC__)
#define CNN__SHUFFLE(a, b, integers, ...) __builtin_shuffle(a, b, (integers){ __VA_ARGS__ })
#endif

static int cnn__smaller(int a, int b) { return a < b ? a : b; }
static int cnn__round_up(int n, int to) { return (n + to - 1) / to * to; }
static int cnn__pieces(int n, int size) { return (n + size - 1) / size; }

/* An equal share of what is left for each tile: 7 columns by at most 3 are 3 + 2 + 2. */
static int cnn__share(int left, int most) { return cnn__pieces(left, cnn__pieces(left, most)); }

/* A correlation: every output is the sum over taps (c, y, x) of  weight(k, c, y, x) in(c, j s + y d, i s + x d), without
   borders, because the maps of `in` are padded beforehand. The forward pass is one; so is the way back to the input. */
typedef struct cnn__correlation {
    int groups, in_channels, out_channels;                 /* of one group */
    int kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
    int high, wide;                                        /* of a map of `in` */
    int out_height, out_width;
    int points;                                            /* 6 or 8: by Winograd; or 0 */
} cnn__correlation;

/* Winograd's matrices for 4 x 4 outputs. A kernel row u and a window row z are polynomials; their product is found from its values
   at the points 0, 1, -1, 1/2, -2 and infinity (r = 3) or 0, 1, -1, 2, -2, 1/2, -1/2 and infinity (r = 5). Row i of G holds
   the powers of point i (over a constant), column i of AT too. These points lose the fewest digits: the error is 4 to 7 times
   that of the plain sum. */
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

typedef struct cnn__kernels {
    const char *name;
    int lanes, rows, vectors;
    void (*tile)(int vectors, int depth, const float *const *a, const float *b, const size_t *where, size_t spacing, float *c,
                 size_t ldc, int rows, const float *bias, int accumulate, int relu);
    void (*add_windows)(int rows, int vectors, float *to, const float *x, size_t pitch, const float *values,
                        const int32_t *places, size_t count);
    size_t (*nonzeros)(float *values, int32_t *places, const float *df, const int32_t *corners, const unsigned char *index,
                       const int32_t *taps, int32_t begin, size_t n);
    void (*lanes_in)(float *to, size_t pitch, size_t step, const float *from, size_t image, int images, int rows, int width);
    void (*places_in)(float *to, const unsigned char *from, size_t image, int images, int count);
    void (*lanes_out)(float *to, size_t image, int images, const float *from, size_t step, size_t count);
    void (*places_out)(unsigned char *to, size_t image, int images, const float *from, size_t count);
    void (*max_pool)(const cnn_pool2d_shape *s, float *y, float *place, const float *z);
    void (*max_unpool)(const cnn_pool2d_shape *s, float *d, size_t map, size_t pitch, size_t step, const float *dy,
                       const float *place);
    void (*winograd_u)(int points, float *to, size_t apart, size_t pitch, const float *weight, int out_channels, int in_channels);
    void (*winograd_v)(int points, float *to, size_t apart, const float *in, size_t map, size_t pitch, int channels, int across,
                       int first, int count);
    void (*winograd_f)(int points, float *out, size_t map, int height, int width, const float *from, size_t apart,
                        const float *bias, int relu, int channels, int across, int first, int count);
    float (*total)(const float *x, size_t n);
    void (*relu_forward)(float *y, const float *x, size_t n);
    void (*relu_backward)(float *dx, const float *dy, const float *y, size_t n);
    void (*sum_into)(float *to, const float *from, size_t n);
    void (*scale_bytes)(float *to, const unsigned char *from, float scale, float shift, size_t n);
    void (*adam_part)(const cnn__adam_factors *f, const cnn_adam_options *o, float *w, float *m, float *v, const float *g,
                      size_t n);
    void (*dropout_part)(float *y, const float *x, size_t n, uint64_t seed, uint32_t stream, uint64_t step, uint32_t index,
                         uint32_t limit, float grow);
} cnn__kernels;

enum { CNN__MOST_ROWS = 8, CNN__MOST_PANEL = 48 };         /* of all instruction sets */

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("O2", "tree-vectorize", "vect-cost-model=dynamic", "fp-contract=fast", "no-math-errno", "no-trapping-math")
#endif

#if defined(__GNUC__)
#define CNN__ISA baseline                   /* SSE2, NEON: what every machine of this kind has */
#define CNN__LANES 4
#define CNN__LOW 0, 4, 1, 5
#define CNN__HIGH 2, 6, 3, 7
#if defined(__aarch64__)
#define CNN__ROWS 8
#define CNN__VECTORS 3
#define CNN__SUMS 25
#else
#define CNN__ROWS 4
#define CNN__VECTORS 2
#define CNN__SUMS 12
#endif
#else                                       /* a compiler without vector extensions: one float is a vector */
#define CNN__ISA baseline
#define CNN__LANES 1
#define CNN__ROWS 4
#define CNN__VECTORS 2
#define CNN__SUMS 12
#endif
#include "cnn.h"

#if defined(__GNUC__) && defined(__x86_64__)
#define CNN__X86

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,tune=generic")    /* tuned for Zen 4, -march=native makes the tiles a tenth slower */
#endif
#define CNN__ISA avx2
#define CNN__LANES 8
#define CNN__LOW 0, 8, 1, 9, 2, 10, 3, 11
#define CNN__HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define CNN__ROWS 4
#define CNN__VECTORS 3
#define CNN__SUMS 12
#include "cnn.h"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512,tune=generic")
#endif
#define CNN__ISA avx512
#define CNN__LANES 16
#define CNN__LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define CNN__HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define CNN__ROWS 8
#define CNN__VECTORS 3
#define CNN__SUMS 25
#include "cnn.h"
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
#pragma GCC optimize("O1")                  /* nothing below is hot: half a second less to compile */
#endif

/* The best that this machine has; CNN_ISA=baseline, avx2 or avx512 in the environment asks for a lesser one. */
static const cnn__kernels *cnn__choose_kernels(char *sentence, size_t room)
{
    const cnn__kernels *list[3];
    const char *asked = getenv("CNN_ISA");
    int count = 0, i;
    list[count++] = &cnn__kernels_baseline;
#ifdef CNN__X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list[count++] = &cnn__kernels_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl"))
        list[count++] = &cnn__kernels_avx512;
#endif
    if (!asked || !*asked) return list[count - 1];
    for (i = 0; i < count; i++) if (!strcmp(asked, list[i]->name)) return list[i];
    snprintf(sentence, room, "CNN_ISA=%.40s is not an instruction set of this machine; it has%s%s%s%s%s", asked, " baseline",
             count > 1 ? ", " : "", count > 1 ? list[1]->name : "", count > 2 ? ", " : "", count > 2 ? list[2]->name : "");
    return NULL;
}

/* ---- threads ---- */

typedef struct cnn__gemm_context { int threads; const cnn__kernels *kernels; } cnn__gemm_context;

/* Numbers below 1e-38 (denormals) count as 0 while the pieces are worked on: Adam's moments of a dead unit end there, and a
   processor is several times slower with them. Returns the mode of before. */
static unsigned cnn__flush_denormals(void)
{
#ifdef CNN__X86
    unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040);
    return before;
#elif defined(__GNUC__) && defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | 1u << 24));
    return (unsigned)before;
#else
    return 0;
#endif
}

static void cnn__restore_denormals(unsigned before)
{
#ifdef CNN__X86
    __builtin_ia32_ldmxcsr(before);
#elif defined(__GNUC__) && defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)before));
#else
    (void)before;
#endif
}

/* Runs job(arguments, piece, thread) for every piece. Which thread takes which piece changes no result. */
static void cnn__parallel(int threads, int pieces, void (*job)(void *arguments, int piece, int thread), void *arguments)
{
    int i;
    unsigned before = cnn__flush_denormals();
    if (threads > pieces) threads = pieces;
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
            unsigned here = cnn__flush_denormals();
#pragma omp for schedule(static)
            for (i = 0; i < pieces; i++) job(arguments, i, omp_get_thread_num());
            cnn__restore_denormals(here);
        }
    } else
#endif
    for (i = 0; i < pieces; i++) job(arguments, i, 0);
    cnn__restore_denormals(before);
}

/* Row pointers for a tile: rows first .. of a matrix with rows `ld` apart; past `count` the last one again. */
static int cnn__rows(const float **rows, int most, const float *matrix, size_t ld, int first, int count)
{
    int r, there = cnn__smaller(most, count - first);
    for (r = 0; r < most; r++) rows[r] = matrix + ld * (size_t)(first + (r < there ? r : there - 1));
    return there;
}

/* ---- convolution ---- */

static size_t cnn__taps(const cnn__correlation *g) { return (size_t)g->in_channels * g->kernel_height * g->kernel_width; }
static size_t cnn__pixels(const cnn__correlation *g) { return (size_t)g->out_height * g->out_width; }
static size_t cnn__line_up(size_t floats) { return (floats + 15) / 16 * 16; }

/* What is where, in vectors of one image a lane. A unit is LANES images; all is done unit by unit.
       X (c, high, wide)  the input with its borders        D  the gradient before pooling and activation, with zeros around it
                                                               (and between its values, if there is a stride)
       Z  outputs: f, or dx                                  P  f after pooling, or the gradient before it, and the places
       V, M  Winograd's input and products, for `block` tiles
   The gradient of the weights is the sum of the windows of x, each times its df. Most df are zero (a ReLU was off, a pixel did
   not win its pool), each at another place in each image, so this goes image by image, without the zeros. X is then
   (images, groups, high, wide, c): what a line of a kernel sees lies side by side, and fills vectors.                       */
typedef struct cnn__window_lines {          /* of one channel of df */
    const cnn__kernels *kernels;            /* whose vectors are no longer than a line needs                           */
    int sets, lines, vectors;               /* one set, a line a row of the kernel; or a set a row, a line a tap, if dilated    */
    size_t pitch, set_pitch;                /* from line to line and from set to set of X, in floats                   */
    size_t down, right, sums;               /* from tap to tap of the sums, and all of them                            */
} cnn__window_lines;

typedef struct cnn__conv_plan {
    cnn__correlation there, back;           /* forward; from D to dx                                                */
    int lanes, units, chunks;
    int df_top, df_left;                    /* where df(0, 0) lies in D                                             */
    int back_top, back_left;                /* where the way back to dx begins in D                                 */
    int whole;                              /* dx comes with its borders, which are then folded in                  */
    size_t pixels, image;                   /* of a map and of an image of y, which is behind the pool              */
    size_t u, sums;                         /* floats: the transformed kernels; a chunk's sums of dweight and dbias */
    cnn__window_lines window;
    int images;                             /* in X at once, for dweight                                            */
    size_t x, d, z, p, v, m, where, list, corners;         /* floats of each array of one thread                    */
    size_t per_thread;
} cnn__conv_plan;

enum { CNN__CHUNKS = 16, CNN__TILES = 6, CNN__BLOCK_ROWS = 16, CNN__X_CACHED = 4096,
       CNN__POOL_TAPS = 256 };             /* at most, of a fused pool: its index is a byte */

static size_t cnn__channel_pitch(int channels, int lanes) { return (size_t)cnn__round_up(channels, lanes); }
static int cnn__tiles(int n) { return cnn__pieces(n, 4); }

/* Winograd's way is taken where it saves a third of the multiplications or more. */
static int cnn__winograd_points(const cnn__correlation *g)
{
    int r = g->kernel_height, n = r + 3;
    if (r != g->kernel_width || (r != 3 && r != 5) || g->stride_height != 1 || g->stride_width != 1) return 0;
    if (g->dilation_height != 1 || g->dilation_width != 1 || g->in_channels < 4 || g->out_channels < 4) return 0;
    return 1.5 * n * n * cnn__tiles(g->out_height) * cnn__tiles(g->out_width) < (double)r * r * g->out_height * g->out_width
             ? n : 0;
}

/* floats of a group's transformed kernels: points x points matrices of out_channels x in_channels */
static size_t cnn__winograd_apart(const cnn__correlation *g, int lanes)
{
    return g->out_channels * cnn__channel_pitch(g->in_channels, lanes) + 16;
}
static size_t cnn__winograd_kernels(const cnn__correlation *g, int lanes)
{
    return g->points * g->points * cnn__winograd_apart(g, lanes);
}

/* so many tiles at once that V stays in the second cache */
static int cnn__winograd_block(const cnn__correlation *g, int lanes)
{
    size_t tile = sizeof(float) * g->points * g->points * g->in_channels * lanes;
    int tiles = cnn__tiles(g->out_height) * cnn__tiles(g->out_width), block = CNN__TILES;
    while (block > 2 && block * tile > 600 * 1024) block--;
    return cnn__pieces(tiles, cnn__pieces(tiles, block));
}

static size_t cnn__most(size_t a, size_t b) { return a > b ? a : b; }

static void cnn__plan_winograd(cnn__conv_plan *p, const cnn__correlation *g)
{
    size_t values = (size_t)g->points * g->points * p->lanes, block;
    if (!g->points) return;
    block = cnn__winograd_block(g, p->lanes);
    p->v = cnn__most(p->v, cnn__line_up(values * (g->in_channels * block + 1)));
    p->m = cnn__most(p->m, cnn__line_up(values * (CNN__BLOCK_ROWS * block + 1)));
}

/* The way back to dx: D correlated with the mirrored kernels. Around df there are as many zeros as a kernel reaches. */
static void cnn__plan_back(cnn__conv_plan *p, const cnn_conv2d_shape *s)
{
    int rows = s->dilation_height * (s->kernel_height - 1), columns = s->dilation_width * (s->kernel_width - 1), top, left;
    p->whole = s->padding_mode != CNN_ZEROS;
    top = p->whole ? 0 : s->pad_top;                       /* dx(0, 0), counted with the borders that are not wanted */
    left = p->whole ? 0 : s->pad_left;
    p->df_top = rows > top ? rows - top : 0;
    p->df_left = columns > left ? columns - left : 0;
    p->back_top = p->df_top + top - rows;
    p->back_left = p->df_left + left - columns;
    p->back = p->there;
    p->back.in_channels = p->there.out_channels; p->back.out_channels = p->there.in_channels;
    p->back.stride_height = p->back.stride_width = 1;
    p->back.out_height = s->in_height + (p->whole ? s->pad_top + s->pad_bottom : 0);
    p->back.out_width = s->in_width + (p->whole ? s->pad_left + s->pad_right : 0);
    p->back.points = cnn__winograd_points(&p->back);
    p->back.high = p->back_top + rows + (p->back.points ? 4 * cnn__tiles(p->back.out_height) : p->back.out_height);
    p->back.wide = p->back_left + columns + (p->back.points ? 4 * cnn__tiles(p->back.out_width) : p->back.out_width);
    p->back.high = (int)cnn__most(p->back.high, p->df_top + (s->out_height - 1) * s->stride_height + 1);
    p->back.wide = (int)cnn__most(p->back.wide, p->df_left + (s->out_width - 1) * s->stride_width + 1);
}

static size_t cnn__x_image(const cnn__correlation *g) { return (size_t)g->groups * g->in_channels * g->high * g->wide; }

static const cnn__kernels *cnn__narrow_kernels(const cnn__kernels *k, int floats)
{
    if (floats <= cnn__kernels_baseline.lanes) return &cnn__kernels_baseline;
#ifdef CNN__X86
    if (floats <= cnn__kernels_avx2.lanes && k->lanes > cnn__kernels_avx2.lanes) return &cnn__kernels_avx2;
#endif
    return k;
}

static void cnn__plan_dweight(cnn__conv_plan *p, const cnn_conv2d_shape *s, const cnn__kernels *k)
{
    const cnn__correlation *g = &p->there;
    cnn__window_lines *w = &p->window;
    size_t row = (size_t)g->dilation_height * g->wide * g->in_channels, image = cnn__x_image(g), line;
    int dilated = g->dilation_width > 1, floats = g->in_channels * (dilated ? 1 : g->kernel_width);
    w->kernels = cnn__narrow_kernels(k, floats);
    w->sets = dilated ? g->kernel_height : 1;
    w->lines = dilated ? g->kernel_width : g->kernel_height;
    w->vectors = cnn__pieces(floats, w->kernels->lanes);
    w->pitch = dilated ? (size_t)g->dilation_width * g->in_channels : row;
    w->set_pitch = row;
    line = (size_t)w->vectors * w->kernels->lanes;
    w->right = dilated ? line : (size_t)g->in_channels;
    w->down = dilated ? g->kernel_width * line : line;
    w->sums = w->sets * w->lines * line;
    p->images = cnn__smaller(p->lanes, (int)cnn__most(1, CNN__X_CACHED / image));
    p->x = cnn__line_up(p->images * image + p->lanes);     /* a last vector may hang over */
    if (p->whole) p->x = cnn__most(p->x, (size_t)s->in_channels * s->in_height * s->in_width * p->lanes);
    p->list = cnn__line_up(p->images * p->pixels + p->lanes);
    p->corners = cnn__line_up(p->pixels) + CNN__POOL_TAPS;
    p->sums = cnn__line_up(s->out_channels * (w->sums + p->lanes));
}

static cnn__conv_plan cnn__plan_conv(const cnn_conv2d_shape *s, const cnn__gemm_context *g, int backward)
{
    cnn__conv_plan p;
    int lanes = g->kernels->lanes;
    memset(&p, 0, sizeof p);
    p.lanes = lanes;
    p.units = cnn__pieces(s->batch, lanes);
    p.chunks = cnn__smaller(p.units, CNN__CHUNKS);
    p.there.groups = s->groups;
    p.there.in_channels = s->in_channels / s->groups; p.there.out_channels = s->out_channels / s->groups;
    p.there.kernel_height = s->kernel_height; p.there.kernel_width = s->kernel_width;
    p.there.stride_height = s->stride_height; p.there.stride_width = s->stride_width;
    p.there.dilation_height = s->dilation_height; p.there.dilation_width = s->dilation_width;
    p.there.high = s->in_height + s->pad_top + s->pad_bottom; p.there.wide = s->in_width + s->pad_left + s->pad_right;
    p.there.out_height = s->out_height; p.there.out_width = s->out_width;
    p.pixels = s->pool.kernel_height ? (size_t)s->pool.out_height * s->pool.out_width : cnn__pixels(&p.there);
    p.image = s->out_channels * p.pixels;
    p.where = cnn__taps(&p.there);
    if (!backward) {
        p.there.points = cnn__winograd_points(&p.there);
        if (p.there.points) {                              /* the last tiles hang over */
            p.there.high = 4 * cnn__tiles(s->out_height) + s->kernel_height - 1;
            p.there.wide = 4 * cnn__tiles(s->out_width) + s->kernel_width - 1;
            p.u = cnn__line_up(s->groups * cnn__winograd_kernels(&p.there, lanes));
        }
        p.x = cnn__line_up(cnn__x_image(&p.there) * lanes);
        p.z = cnn__line_up(s->out_channels * cnn__pixels(&p.there) * lanes);
        p.p = s->pool.kernel_height ? 2 * cnn__line_up(p.image * lanes) : 0;
        cnn__plan_winograd(&p, &p.there);
    } else {
        cnn__plan_back(&p, s);
        if (p.back.points) p.u = cnn__line_up(s->groups * cnn__winograd_kernels(&p.back, lanes));
        p.d = cnn__line_up((size_t)s->out_channels * p.back.high * p.back.wide * lanes);
        p.z = cnn__line_up(s->in_channels * cnn__pixels(&p.back) * lanes);
        p.p = 3 * cnn__line_up(p.image * lanes);
        p.where = cnn__most(p.where, cnn__taps(&p.back));
        cnn__plan_winograd(&p, &p.back);
        cnn__plan_dweight(&p, s, g->kernels);
    }
    p.where = cnn__line_up(p.where * (sizeof(size_t) / sizeof(float)));
    p.per_thread = p.x + p.d + p.z + p.p + p.v + p.m + p.where + 2 * p.list + p.corners;
    return p;
}

typedef struct cnn__conv_job {
    const cnn__gemm_context *g;
    const cnn_conv2d_shape *s;
    cnn__conv_plan p;
    float *out; unsigned char *place;                      /* forward: y and index */
    const float *bias;
    float *dx; const float *dy, *y; const unsigned char *index;            /* backward */
    float *sums;                                           /* of dweight and dbias, chunk by chunk */
    const float *x, *weight, *u;                           /* backward: weight is mirrored; u: its transforms */
    float *scratch;
} cnn__conv_job;

typedef struct cnn__conv_arrays {
    float *x, *d, *z, *p, *v, *m;
    size_t *where;
    float *values; int32_t *places, *corners, *taps;
} cnn__conv_arrays;

static cnn__conv_arrays cnn__conv_arrays_of(const cnn__conv_job *job, int thread)
{
    const cnn__conv_plan *p = &job->p;
    cnn__conv_arrays a;
    a.x = job->scratch + p->per_thread * thread;
    a.d = a.x + p->x; a.z = a.d + p->d; a.p = a.z + p->z; a.v = a.p + p->p; a.m = a.v + p->v;
    a.where = (size_t *)(void *)(a.m + p->m);
    a.values = a.m + p->m + p->where;
    a.places = (int32_t *)(void *)(a.values + p->list);
    a.taps = a.places + p->list; a.corners = a.taps + CNN__POOL_TAPS;
    return a;
}

/* The borders of a map of X, as the card's cnn__border says; zeros where the last tiles hang over. A pixel is `size` floats. */
static void cnn__fill_borders(const cnn_conv2d_shape *s, const cnn__correlation *g, float *map, int size)
{
    const float *inside = map + ((size_t)s->pad_top * g->wide + s->pad_left) * size;
    size_t pixel = sizeof *map * size;
    int j, i;
    for (j = 0; j < g->high; j++, map += (size_t)g->wide * size) {
        int below = j >= s->pad_top + s->in_height + s->pad_bottom;
        int row = below ? -1 : cnn__border(j - s->pad_top, s->in_height, s->padding_mode);
        if (row < 0) { memset(map, 0, pixel * g->wide); continue; }
        for (i = 0; i < g->wide; i++) {
            int column;
            if (i == s->pad_left && j == s->pad_top + row) i += s->in_width;
            if (i >= g->wide) break;
            column = i < s->pad_left + s->in_width + s->pad_right ? cnn__border(i - s->pad_left, s->in_width, s->padding_mode) : -1;
            if (column < 0) memset(map + (size_t)i * size, 0, pixel);
            else memcpy(map + (size_t)i * size, inside + ((size_t)row * g->wide + column) * size, pixel);
        }
    }
}

/* X forward: the unit's images, one a lane */
static void cnn__pad_images(const cnn_conv2d_shape *s, const cnn__correlation *g, const cnn__kernels *k, float *to, const float *x,
                            int images)
{
    int c, lanes = k->lanes;
    size_t pixels = (size_t)s->in_height * s->in_width, line = (size_t)g->wide * lanes;
    for (c = 0; c < s->in_channels; c++, x += pixels, to += g->high * line) {
        k->lanes_in(to + s->pad_top * line + (size_t)s->pad_left * lanes, line, (size_t)lanes, x, s->in_channels * pixels, images,
                    s->in_height, s->in_width);
        cnn__fill_borders(s, g, to, lanes);
    }
}

/* X for dweight: one image, one channel a lane. The last channels go first, because they write past the pixel's end. */
static void cnn__pad_channels(const cnn_conv2d_shape *s, const cnn__correlation *g, const cnn__kernels *k, float *to,
                              const float *x)
{
    int group, c, depth = g->in_channels;
    size_t pixels = (size_t)s->in_height * s->in_width, line = (size_t)g->wide * depth;
    for (group = 0; group < g->groups; group++, x += depth * pixels, to += g->high * line) {
        for (c = (depth - 1) / k->lanes * k->lanes; c >= 0; c -= k->lanes)
            k->lanes_in(to + s->pad_top * line + (size_t)s->pad_left * depth + c, line, (size_t)depth, x + c * pixels, pixels,
                        cnn__smaller(k->lanes, depth - c), s->in_height, s->in_width);
        cnn__fill_borders(s, g, to, depth);
    }
}

/* The reverse: the gradient of a border is added to that of the value which it was copied from. to: (c, h, w) of vectors */
static void cnn__fold_borders(const cnn_conv2d_shape *s, const cnn__conv_plan *p, const cnn__kernels *k, float *to,
                              const float *from)
{
    int c, j, i, lanes = p->lanes;
    size_t map = (size_t)s->in_height * s->in_width * lanes;
    memset(to, 0, sizeof *to * s->in_channels * map);
    for (c = 0; c < s->in_channels; c++, to += map)
        for (j = 0; j < p->back.out_height; j++)
            for (i = 0; i < p->back.out_width; i++, from += lanes) {
                int row = cnn__border(j - s->pad_top, s->in_height, s->padding_mode);
                int column = cnn__border(i - s->pad_left, s->in_width, s->padding_mode);
                k->sum_into(to + ((size_t)row * s->in_width + column) * lanes, from, (size_t)lanes);
            }
}

/* out (k, j, i) = [relu] (bias + sum over taps of weight(k, tap) in(c, j s + y d, i s + x d)): the card's loops. A tile of `rows`
   kernels and `vectors` neighbouring outputs is summed up in registers; a tap is a place in `in`, as far from the output's. */
static void cnn__correlate(const cnn__kernels *k, const cnn__correlation *g, float *out, const float *in, const float *weight,
                           const float *bias, int relu, size_t *where)
{
    int lanes = k->lanes, taps = (int)cnn__taps(g), c, y, x, j, i, row, r, t = 0, across;
    size_t map = cnn__pixels(g) * lanes;
    for (c = 0; c < g->in_channels; c++)
        for (y = 0; y < g->kernel_height; y++)
            for (x = 0; x < g->kernel_width; x++)
                where[t++] = (((size_t)c * g->high + (size_t)y * g->dilation_height) * g->wide + (size_t)x * g->dilation_width)
                             * lanes;
    for (j = 0; j < g->out_height; j++)
        for (row = 0; row < g->out_channels; row += k->rows) {
            const float *rows[CNN__MOST_ROWS];
            float begin[CNN__MOST_ROWS];
            int there = cnn__rows(rows, k->rows, weight, (size_t)taps, row, g->out_channels);
            for (r = 0; bias && r < k->rows; r++) begin[r] = bias[row + (r < there ? r : 0)];
            for (i = 0; i < g->out_width; i += across) {
                across = cnn__share(g->out_width - i, k->vectors);
                k->tile(across, taps, rows, in + ((size_t)j * g->stride_height * g->wide + (size_t)i * g->stride_width) * lanes,
                        where, (size_t)g->stride_width * lanes, out + row * map + ((size_t)j * g->out_width + i) * lanes, map,
                        there, bias ? begin : NULL, 0, relu);
            }
        }
}

/* The same by Winograd, `block` tiles at a time: to each point belongs a product of matrices, M = U V. map: of `in` */
static void cnn__winograd(const cnn__kernels *k, const cnn__correlation *g, float *out, const float *in, const float *u,
                          const float *bias, int relu, const cnn__conv_arrays *a)
{
    int lanes = k->lanes, across = cnn__tiles(g->out_width), tiles = cnn__tiles(g->out_height) * across, first, count, row, c;
    int block = cnn__winograd_block(g, lanes);
    size_t pitch = cnn__channel_pitch(g->in_channels, lanes), apart = cnn__winograd_apart(g, lanes), line = (size_t)g->wide * lanes;
    size_t map = cnn__pixels(g) * lanes;
    for (first = 0; first < tiles; first += count) {
        size_t v_apart;
        count = cnn__smaller(block, tiles - first);
        v_apart = ((size_t)g->in_channels * count + 1) * lanes;
        k->winograd_v(g->points, a->v, v_apart, in, g->high * line, line, g->in_channels, across, first, count);
        for (c = 0; c < g->in_channels; c++) a->where[c] = (size_t)c * count * lanes;
        for (row = 0; row < g->out_channels; row += CNN__BLOCK_ROWS) {
            int there = cnn__smaller(CNN__BLOCK_ROWS, g->out_channels - row), point, r, t, wide;
            size_t m_apart = ((size_t)there * count + 1) * lanes;
            for (point = 0; point < g->points * g->points; point++)
                for (r = 0; r < there; r += k->rows) {
                    const float *rows[CNN__MOST_ROWS];
                    int high = cnn__rows(rows, k->rows, u + point * apart + row * pitch, pitch, r, there);
                    for (t = 0; t < count; t += wide) {
                        wide = cnn__share(count - t, k->vectors);
                        k->tile(wide, g->in_channels, rows, a->v + point * v_apart + (size_t)t * lanes, a->where, (size_t)lanes,
                                a->m + point * m_apart + ((size_t)r * count + t) * lanes, (size_t)count * lanes, high, NULL, 0, 0);
                    }
                }
            k->winograd_f(g->points, out + row * map, map, g->out_height, g->out_width, a->m, m_apart, bias ? bias + row : NULL,
                           relu, there, across, first, count);
        }
    }
}

/* one of the two ways, group by group: out (groups * out_channels, out_height, out_width) of vectors */
static void cnn__correlate_groups(const cnn__kernels *k, const cnn__correlation *g, float *out, const float *in, size_t offset,
                                  const float *weight, const float *u, const float *bias, int relu, const cnn__conv_arrays *a)
{
    int group;
    for (group = 0; group < g->groups; group++) {
        float *to = out + (size_t)group * g->out_channels * cnn__pixels(g) * k->lanes;
        const float *from = in + offset + (size_t)group * g->in_channels * g->high * g->wide * k->lanes;
        const float *b = bias ? bias + group * g->out_channels : NULL;
        if (g->points) cnn__winograd(k, g, to, from, u + group * cnn__winograd_kernels(g, k->lanes), b, relu, a);
        else cnn__correlate(k, g, to, from, weight + group * g->out_channels * cnn__taps(g), b, relu, a->where);
    }
}

/* The card of convolution for one unit of images: pad, correlate, activate, pool. */
static void cnn__conv_forward_unit(void *arguments, int unit, int thread)
{
    const cnn__conv_job *job = (const cnn__conv_job *)arguments;
    const cnn_conv2d_shape *s = job->s;
    const cnn__kernels *k = job->g->kernels;
    cnn__conv_arrays a = cnn__conv_arrays_of(job, thread);
    int lanes = job->p.lanes, first = unit * lanes, images = cnn__smaller(lanes, s->batch - first);
    size_t image = job->p.image, before = s->out_channels * cnn__pixels(&job->p.there);
    cnn__pad_images(s, &job->p.there, k, a.x, job->x + (size_t)first * s->in_channels * s->in_height * s->in_width, images);
    cnn__correlate_groups(k, &job->p.there, a.z, a.x, 0, job->weight, job->u, job->bias, s->activation == CNN_RELU, &a);
    if (s->activation && s->activation != CNN_RELU) cnn__activation_forward(s->activation, s->slope, a.z, a.z, before * lanes);
    if (s->pool.kernel_height) {
        float *place = job->place ? a.p + job->p.p / 2 : NULL;
        k->max_pool(&s->pool, a.p, place, a.z);
        if (place) k->places_out(job->place + first * image, image, images, place, image);
    }
    k->lanes_out(job->out + first * image, image, images, s->pool.kernel_height ? a.p : a.z, (size_t)lanes, image);
}

/* df: the gradient before activation, but behind the pool, of a unit's images. Those that are missing get zeros. */
static void cnn__conv_df(const cnn__conv_job *job, float *df, int first, int images)
{
    const cnn_conv2d_shape *s = job->s;
    size_t image = job->p.image;
    const float *dy = job->dy + first * image, *y = job->y + first * image;
    if (s->activation == CNN_RELU) job->g->kernels->relu_backward(df, dy, y, image * images);
    else cnn__activation_backward(s->activation, s->slope, df, dy, y, image * images);
    memset(df + image * images, 0, sizeof *df * (job->p.lanes - images) * image);
}

/* D: df before pooling, one image a lane */
static void cnn__conv_d(const cnn__conv_job *job, const cnn__conv_arrays *a, const float *df, int first, int images, int fresh)
{
    const cnn_conv2d_shape *s = job->s;
    const cnn__conv_plan *p = &job->p;
    const cnn__kernels *k = job->g->kernels;
    int lanes = p->lanes, pooled = s->pool.kernel_height > 0, c;
    size_t map = (size_t)p->back.high * p->back.wide * lanes, image = p->image;
    size_t pitch = (size_t)s->stride_height * p->back.wide * lanes, step = (size_t)s->stride_width * lanes;
    float *lanes_df = a->p + p->p / 3, *place = lanes_df + p->p / 3;
    float *to = a->d + ((size_t)p->df_top * p->back.wide + p->df_left) * lanes;
    if (pooled || fresh) memset(a->d, 0, sizeof *a->d * p->d);
    if (pooled) {
        k->lanes_in(lanes_df, 0, (size_t)lanes, df, image, lanes, 1, (int)image);
        k->places_in(place, job->index + first * image, image, images, (int)image);
        k->max_unpool(&s->pool, to, map, pitch, step, lanes_df, place);
    } else
        for (c = 0; c < s->out_channels; c++)
            k->lanes_in(to + c * map, pitch, step, df + c * p->pixels, image, lanes, s->out_height, s->out_width);
}

/* Where in X the window of each value of df begins: at its corner, and if it was pooled, at the tap that won. */
static void cnn__conv_places(const cnn_conv2d_shape *s, const cnn__correlation *g, int32_t *corners, int32_t *taps)
{
    const cnn_pool2d_shape *p = &s->pool;
    int pooled = p->kernel_height > 0, high = pooled ? p->out_height : s->out_height, wide = pooled ? p->out_width : s->out_width;
    int down = s->stride_height * g->wide * g->in_channels, right = s->stride_width * g->in_channels, j, i;
    for (j = 0; j < high; j++)
        for (i = 0; i < wide; i++)
            *corners++ = (pooled ? j * p->stride_height - p->pad_height : j) * down
                       + (pooled ? i * p->stride_width - p->pad_width : i) * right;
    for (j = 0; j < p->kernel_height; j++)
        for (i = 0; i < p->kernel_width; i++) *taps++ = j * down + i * right;
}

/* dweight(k, tap) += sum over images and pixels of df(k) x(tap), for the images of a unit; only df that are not 0 are listed */
static void cnn__conv_dweight(const cnn__conv_job *job, const cnn__conv_arrays *a, float *sums, const float *df, int first,
                              int images)
{
    const cnn_conv2d_shape *s = job->s;
    const cnn__conv_plan *p = &job->p;
    const cnn__correlation *g = &p->there;
    const cnn__window_lines *w = &p->window;
    const cnn__kernels *k = job->g->kernels;
    size_t in = (size_t)s->in_channels * s->in_height * s->in_width, x_image = cnn__x_image(g);
    size_t image = p->image, pixels = p->pixels;
    int n, b, c, set, there, pooled = s->pool.kernel_height > 0;
    for (n = 0; n < images; n += there) {
        float *to = sums, *dbias = sums + s->out_channels * w->sums;
        there = cnn__smaller(p->images, images - n);
        for (b = 0; b < there; b++) cnn__pad_channels(s, g, k, a->x + b * x_image, job->x + (first + n + b) * in);
        for (c = 0; c < s->out_channels; c++, to += w->sums, dbias += p->lanes) {
            const float *x = a->x + (size_t)(c / g->out_channels) * g->in_channels * g->high * g->wide;
            size_t count = 0, i;
            for (b = 0; b < there; b++) {
                const float *d = df + (n + b) * image + c * pixels;
                const unsigned char *index = pooled ? job->index + (first + n + b) * image + c * pixels : NULL;
                count += k->nonzeros(a->values + count, a->places + count, d, a->corners, index, a->taps, (int32_t)(b * x_image),
                                     pixels);
            }
            for (set = 0; set < w->sets; set++)
                w->kernels->add_windows(w->lines, w->vectors, to + set * w->down, x + set * w->set_pitch, w->pitch, a->values,
                                        a->places, count);
            memset(a->values + count, 0, sizeof *a->values * p->lanes);
            for (i = 0; i < count; i += (size_t)p->lanes) k->sum_into(dbias, a->values + i, (size_t)p->lanes);
        }
    }
}

/* dweight(k, c, y, x) += what add_windows made of it, (k, y, x, c); dbias(k) += its lanes */
static void cnn__conv_add_sums(const cnn__conv_plan *p, int out_channels, float *dweight, float *dbias, const float *sums)
{
    const cnn__correlation *g = &p->there;
    const cnn__window_lines *w = &p->window;
    int k, c, y, x, l;
    for (k = 0; k < out_channels; k++, sums += w->sums)
        for (c = 0; c < g->in_channels; c++)
            for (y = 0; y < g->kernel_height; y++)
                for (x = 0; x < g->kernel_width; x++) *dweight++ += sums[y * w->down + x * w->right + c];
    for (k = 0; dbias && k < out_channels; k++)
        for (l = 0; l < p->lanes; l++) dbias[k] += *sums++;
}

/* The card's backward for the units of one chunk. The chunks are the same for any number of threads; each has its own sums
   of dweight and dbias, which are added up in order at the end. */
static void cnn__conv_backward_chunk(void *arguments, int chunk, int thread)
{
    const cnn__conv_job *job = (const cnn__conv_job *)arguments;
    const cnn_conv2d_shape *s = job->s;
    const cnn__conv_plan *p = &job->p;
    const cnn__kernels *k = job->g->kernels;
    cnn__conv_arrays a = cnn__conv_arrays_of(job, thread);
    int lanes = p->lanes, begin = (int)((long)chunk * p->units / p->chunks), unit;
    size_t in = (size_t)s->in_channels * s->in_height * s->in_width;
    float *sums = job->sums + p->sums * chunk;
    memset(sums, 0, sizeof *sums * p->sums);
    cnn__conv_places(s, &p->there, a.corners, a.taps);
    for (unit = begin; unit < (int)((long)(chunk + 1) * p->units / p->chunks); unit++) {
        int first = unit * lanes, images = cnn__smaller(lanes, s->batch - first);
        cnn__conv_df(job, a.p, first, images);
        cnn__conv_dweight(job, &a, sums, a.p, first, images);
        if (!job->dx) continue;
        cnn__conv_d(job, &a, a.p, first, images, unit == begin);
        cnn__correlate_groups(k, &p->back, a.z, a.d, ((size_t)p->back_top * p->back.wide + p->back_left) * lanes, job->weight,
                              job->u, NULL, 0, &a);
        if (p->whole) cnn__fold_borders(s, p, k, a.x, a.z);
        k->lanes_out(job->dx + first * in, in, images, p->whole ? a.x : a.z, (size_t)lanes, in);
    }
}

/* to: (groups, c, k, kh, kw), each kernel mirrored and k and c exchanged: what leads from df back to dx */
static void cnn__mirror(const cnn__correlation *g, float *to, const float *weight)
{
    int group, k, c, area = g->kernel_height * g->kernel_width, at;
    for (group = 0; group < g->groups; group++)
        for (c = 0; c < g->in_channels; c++)
            for (k = 0; k < g->out_channels; k++)
                for (at = 0; at < area; at++)
                    *to++ = weight[((size_t)(group * g->out_channels + k) * g->in_channels + c) * area + area - 1 - at];
}

static void cnn__transform_kernels(const cnn__kernels *k, const cnn__correlation *g, float *u, const float *weight)
{
    int group;
    for (group = 0; g->points && group < g->groups; group++)
        k->winograd_u(g->points, u + group * cnn__winograd_kernels(g, k->lanes), cnn__winograd_apart(g, k->lanes),
                        cnn__channel_pitch(g->in_channels, k->lanes), weight + group * g->out_channels * cnn__taps(g),
                        g->out_channels, g->in_channels);
}

static size_t cnn__gemm_conv2d_work(void *context, const cnn_conv2d_shape *s)
{
    const cnn__gemm_context *g = (const cnn__gemm_context *)context;
    cnn__conv_plan forward = cnn__plan_conv(s, g, 0), backward = cnn__plan_conv(s, g, 1);
    size_t weights = cnn__line_up(s->out_channels * cnn__taps(&forward.there));
    return sizeof(float) * cnn__most(forward.u + forward.per_thread * g->threads,
                                     weights + backward.u + backward.sums * backward.chunks + backward.per_thread * g->threads);
}

static void cnn__gemm_conv2d_forward(void *context, const cnn_conv2d_shape *s, float *y, unsigned char *index,
                                     const float *x, const float *weight, const float *bias, void *work)
{
    cnn__conv_job job;
    memset(&job, 0, sizeof job);
    job.g = (const cnn__gemm_context *)context;
    job.s = s;
    job.p = cnn__plan_conv(s, job.g, 0);
    job.out = y; job.place = index; job.x = x; job.weight = weight; job.bias = bias;
    job.u = (float *)work;
    job.scratch = (float *)work + job.p.u;
    cnn__transform_kernels(job.g->kernels, &job.p.there, (float *)work, weight);
    cnn__parallel(job.g->threads, job.p.units, cnn__conv_forward_unit, &job);
}

static void cnn__gemm_conv2d_backward(void *context, const cnn_conv2d_shape *s, float *dx, float *dweight, float *dbias,
                                      const float *dy, const float *y, const unsigned char *index,
                                      const float *x, const float *weight, void *work)
{
    cnn__conv_job job;
    float *mirrored = (float *)work, *u;
    int chunk;
    memset(&job, 0, sizeof job);
    job.g = (const cnn__gemm_context *)context;
    job.s = s;
    job.p = cnn__plan_conv(s, job.g, 1);
    job.dx = dx; job.dy = dy; job.y = y; job.index = index; job.x = x;
    u = mirrored + cnn__line_up(s->out_channels * cnn__taps(&job.p.there));
    job.weight = mirrored; job.u = u;
    job.sums = u + job.p.u;
    job.scratch = job.sums + job.p.sums * job.p.chunks;
    if (dx) {
        cnn__mirror(&job.p.there, mirrored, weight);
        cnn__transform_kernels(job.g->kernels, &job.p.back, u, mirrored);
    }
    cnn__parallel(job.g->threads, job.p.chunks, cnn__conv_backward_chunk, &job);
    for (chunk = 1; chunk < job.p.chunks; chunk++)
        job.g->kernels->sum_into(job.sums, job.sums + job.p.sums * chunk, job.p.sums);
    cnn__conv_add_sums(&job.p, s->out_channels, dweight, dbias, job.sums);
}

/* ---- the linear layer ---- */

/* the next `floats` of `work`, on a cache line of their own */
static float *cnn__next(float **work, size_t floats)
{
    float *here = *work;
    *work += cnn__line_up(floats);
    return here;
}

/* values(r, 0 .. counts(r) - 1) are what is not 0 in row r of df, or of its transpose; places says where they stood */
typedef struct cnn__sparse { int rows, depth; float *values; int32_t *places; size_t *counts; } cnn__sparse;

typedef struct cnn__linear_job {
    const cnn__gemm_context *g;
    const cnn_linear_shape *s;
    float *y, *dx, *dweight, *scratch;
    float *columns; size_t *where;                         /* forward: x with one sample a lane; where its rows are */
    cnn__sparse df[2];                                     /* backward: transposed, for dweight; as it is, for dx */
    const float *x, *weight, *bias;
} cnn__linear_job;

enum { CNN__LINEAR_ROWS = 48, CNN__LINEAR_DEPTH = 1024,    /* forward: outputs of a piece; how much of the sum fits the cache */
       CNN__LINEAR_VECTORS = 4 };                          /* backward: inputs of a piece, so few that its panel fits the cache */

static size_t cnn__linear_scratch(int panel, int longest)  /* floats of one thread: a packed panel, and a line of it */
{
    return cnn__line_up((size_t)panel * ((size_t)longest + 1));
}

static void cnn__linear_transpose(void *arguments, int unit, int thread)
{
    const cnn__linear_job *job = (const cnn__linear_job *)arguments;
    int lanes = job->g->kernels->lanes, in = job->s->in_features, first = unit * lanes;
    (void)thread;
    job->g->kernels->lanes_in(job->columns + (size_t)first * in, 0, (size_t)lanes, job->x + (size_t)first * in, (size_t)in,
                              cnn__smaller(lanes, job->s->batch - first), 1, in);
}

/* The card of the linear layer for some samples, one a lane, and LINEAR_ROWS outputs: a convolution whose map is one pixel. */
static void cnn__linear_forward_block(void *arguments, int block, int thread)
{
    const cnn__linear_job *job = (const cnn__linear_job *)arguments;
    const cnn_linear_shape *s = job->s;
    const cnn__kernels *k = job->g->kernels;
    int lanes = k->lanes, units = cnn__pieces(s->batch, lanes), panels = cnn__pieces(units, k->vectors), panel = block % panels;
    int unit = panel * units / panels, wide = (panel + 1) * units / panels - unit, v, i, o, r;
    int o0 = block / panels * CNN__LINEAR_ROWS, rows = cnn__smaller(CNN__LINEAR_ROWS, s->out_features - o0);
    size_t pitch = (size_t)wide * lanes, in = (size_t)s->in_features;
    float *result = job->scratch + (size_t)thread * CNN__LINEAR_ROWS * CNN__MOST_PANEL;
    for (i = 0; i < s->in_features; i += CNN__LINEAR_DEPTH)
        for (o = 0; o < rows; o += k->rows) {
            const float *a[CNN__MOST_ROWS];
            float begin[CNN__MOST_ROWS];
            int there = cnn__rows(a, k->rows, job->weight + i, in, o0 + o, o0 + rows), last = i + CNN__LINEAR_DEPTH >= s->in_features;
            for (r = 0; job->bias && r < k->rows; r++) begin[r] = job->bias[o0 + o + (r < there ? r : 0)];
            k->tile(wide, cnn__smaller(CNN__LINEAR_DEPTH, s->in_features - i), a, job->columns + (unit * in + i) * lanes, job->where,
                    in * lanes, result + o * pitch, pitch, there, job->bias && !i ? begin : NULL, i > 0,
                    last && s->activation == CNN_RELU);
        }
    if (s->activation && s->activation != CNN_RELU)
        cnn__activation_forward(s->activation, s->slope, result, result, rows * pitch);
    for (v = 0; v < wide; v++)
        k->lanes_out(job->y + (size_t)(unit + v) * lanes * s->out_features + o0, (size_t)s->out_features,
                     cnn__smaller(lanes, s->batch - (unit + v) * lanes), result + v * lanes, pitch, (size_t)rows);
}

/* Backward for one panel of inputs:  dW += df^T x,  dx = df W, without the zeros of df: as many as a ReLU and dropout leave.
   The panel of x, then of W, is packed once and used by all rows. */
static void cnn__linear_backward_panel(void *arguments, int piece, int thread)
{
    const cnn__linear_job *job = (const cnn__linear_job *)arguments;
    const cnn_linear_shape *s = job->s;
    const cnn__kernels *k = job->g->kernels;
    int panel = k->lanes * CNN__LINEAR_VECTORS, first = piece * panel, width = cnn__smaller(panel, s->in_features - first);
    int longest = s->batch > s->out_features ? s->batch : s->out_features, pass, r, cut = width % k->lanes;
    float *packed = job->scratch + (size_t)thread * cnn__linear_scratch(panel, longest), *result = packed + (size_t)panel * longest;
    for (pass = 0; pass < (job->dx ? 2 : 1); pass++) {
        const cnn__sparse *df = &job->df[pass];
        const float *from = (pass ? job->weight : job->x) + first;
        float *to = (pass ? job->dx : job->dweight) + first;
        for (r = 0; r < df->depth; r++) {
            memcpy(packed + (size_t)r * panel, from + (size_t)r * s->in_features, sizeof *packed * width);
            if (cut) memset(packed + (size_t)r * panel + width, 0, sizeof *packed * (panel - width));
        }
        for (r = 0; r < df->rows; r++, to += s->in_features) { /* kernels write whole vectors: a cut panel goes by way of `result` */
            float *line = cut ? result : to;
            if (cut || pass) memset(line, 0, sizeof *line * cnn__round_up(width, k->lanes));
            k->add_windows(1, cnn__pieces(width, k->lanes), line, packed, 0, df->values + (size_t)r * df->depth,
                           df->places + (size_t)r * df->depth, df->counts[r]);
            if (cut && pass) memcpy(to, result, sizeof *to * width);
            else if (cut) k->sum_into(to, result, (size_t)width);
        }
    }
}

static void cnn__list_nonzeros(const cnn__kernels *k, cnn__sparse *to, const float *df, int rows, int depth, float **work)
{
    int32_t *corners;
    int r;
    to->rows = rows; to->depth = depth;
    to->values = cnn__next(work, (size_t)rows * depth);
    to->places = (int32_t *)(void *)cnn__next(work, (size_t)rows * depth);
    to->counts = (size_t *)(void *)cnn__next(work, rows * (sizeof(size_t) / sizeof(float)));
    corners = (int32_t *)(void *)cnn__next(work, (size_t)depth);
    for (r = 0; r < depth; r++) corners[r] = r * k->lanes * CNN__LINEAR_VECTORS;
    for (r = 0; r < rows; r++)
        to->counts[r] = k->nonzeros(to->values + (size_t)r * depth, to->places + (size_t)r * depth, df + (size_t)r * depth,
                                    corners, NULL, NULL, 0, (size_t)depth);
}

static size_t cnn__gemm_linear_work(void *context, const cnn_linear_shape *s)
{
    const cnn__gemm_context *g = (const cnn__gemm_context *)context;
    int longest = s->batch > s->out_features ? s->batch : s->out_features;
    size_t forward = (size_t)cnn__round_up(s->batch, g->kernels->lanes) * s->in_features
                     + CNN__LINEAR_DEPTH * (sizeof(size_t) / sizeof(float)) + 16
                     + (size_t)g->threads * CNN__LINEAR_ROWS * CNN__MOST_PANEL;
    size_t backward = 6 * cnn__line_up((size_t)s->batch * s->out_features) + 4 * cnn__line_up(s->batch + s->out_features)
                      + g->threads * cnn__linear_scratch(g->kernels->lanes * CNN__LINEAR_VECTORS, longest);
    return sizeof(float) * cnn__most(forward, backward);
}

static void cnn__gemm_linear_forward(void *context, const cnn_linear_shape *s, float *y, const float *x,
                                     const float *weight, const float *bias, void *work)
{
    cnn__linear_job job;
    int lanes, units, i;
    memset(&job, 0, sizeof job);
    job.g = (const cnn__gemm_context *)context;
    job.s = s; job.y = y; job.x = x; job.weight = weight; job.bias = bias;
    lanes = job.g->kernels->lanes;
    units = cnn__pieces(s->batch, lanes);
    job.where = (size_t *)work;
    job.columns = (float *)work + CNN__LINEAR_DEPTH * (sizeof(size_t) / sizeof(float));
    job.scratch = job.columns + cnn__line_up((size_t)units * lanes * s->in_features);
    for (i = 0; i < CNN__LINEAR_DEPTH; i++) job.where[i] = (size_t)i * lanes;
    cnn__parallel(job.g->threads, units, cnn__linear_transpose, &job);
    cnn__parallel(job.g->threads, cnn__pieces(units, job.g->kernels->vectors) * cnn__pieces(s->out_features, CNN__LINEAR_ROWS),
                  cnn__linear_forward_block, &job);
}

static void cnn__gemm_linear_backward(void *context, const cnn_linear_shape *s, float *dx, float *dweight, float *dbias,
                                      const float *dy, const float *y, const float *x, const float *weight, void *work)
{
    cnn__linear_job job;
    size_t values = cnn__line_up((size_t)s->batch * s->out_features);
    float *df = (float *)work, *turned = df + values, *next = turned + values;
    int panel, n, o;
    memset(&job, 0, sizeof job);
    job.g = (const cnn__gemm_context *)context;
    job.s = s; job.dx = dx; job.dweight = dweight; job.x = x; job.weight = weight;
    panel = job.g->kernels->lanes * CNN__LINEAR_VECTORS;
    cnn__activation_backward(s->activation, s->slope, df, dy, y, (size_t)s->batch * s->out_features);
    for (n = 0; n < s->batch; n++)
        for (o = 0; o < s->out_features; o++) turned[(size_t)o * s->batch + n] = df[(size_t)n * s->out_features + o];
    for (o = 0; dbias && o < s->out_features; o++)
        dbias[o] += job.g->kernels->total(turned + (size_t)o * s->batch, (size_t)s->batch);
    cnn__list_nonzeros(job.g->kernels, &job.df[0], turned, s->out_features, s->batch, &next);
    if (dx) cnn__list_nonzeros(job.g->kernels, &job.df[1], df, s->batch, s->out_features, &next);
    job.scratch = next;
    cnn__parallel(job.g->threads, cnn__pieces(s->in_features, panel), cnn__linear_backward_panel, &job);
}

/* ---- value by value, in pieces of a fixed size ---- */

enum { CNN__PIECE = 1 << 14 };

typedef struct cnn__each_job {
    const cnn__gemm_context *g;
    size_t n;
    float *y; const float *x, *dy;
    cnn_activation activation; float slope;
    const cnn_counters *c; int layer; float p;
    cnn__adam_factors factors; const cnn_adam_options *adam; float *w, *m, *v;
    const cnn_map_shape *map; const unsigned char *bytes; const float *floats; const int *order; const float *scale, *shift;
    const cnn_pool2d_shape *pool;
} cnn__each_job;

static size_t cnn__piece_of(const cnn__each_job *job, int piece, size_t *first)
{
    *first = (size_t)piece * CNN__PIECE;
    return job->n - *first < (size_t)CNN__PIECE ? job->n - *first : (size_t)CNN__PIECE;
}

static void cnn__each(cnn__each_job *job, void *context, size_t n, void (*part)(void *, int, int))
{
    job->g = (const cnn__gemm_context *)context;
    job->n = n;
    cnn__parallel(job->g->threads, (int)((n + CNN__PIECE - 1) / CNN__PIECE), part, job);
}

static void cnn__activation_forward_part(void *arguments, int piece, int thread)
{
    cnn__each_job *job = (cnn__each_job *)arguments;
    size_t first, n = cnn__piece_of(job, piece, &first);
    (void)thread;
    if (job->activation == CNN_RELU) job->g->kernels->relu_forward(job->y + first, job->x + first, n);
    else cnn__activation_forward(job->activation, job->slope, job->y + first, job->x + first, n);
}

static void cnn__gemm_activation_forward(void *context, cnn_activation f, float slope, float *y, const float *x, size_t n)
{
    cnn__each_job job;
    memset(&job, 0, sizeof job);
    job.activation = f; job.slope = slope; job.y = y; job.x = x;
    cnn__each(&job, context, n, cnn__activation_forward_part);
}

static void cnn__activation_backward_part(void *arguments, int piece, int thread)
{
    cnn__each_job *job = (cnn__each_job *)arguments;
    size_t first, n = cnn__piece_of(job, piece, &first);
    (void)thread;
    if (job->activation == CNN_RELU) job->g->kernels->relu_backward(job->y + first, job->dy + first, job->x + first, n);
    else cnn__activation_backward(job->activation, job->slope, job->y + first, job->dy + first, job->x + first, n);
}

static void cnn__gemm_activation_backward(void *context, cnn_activation f, float slope, float *dx, const float *dy,
                                          const float *y, size_t n)
{
    cnn__each_job job;
    memset(&job, 0, sizeof job);
    job.activation = f; job.slope = slope; job.y = dx; job.dy = dy; job.x = y;
    cnn__each(&job, context, n, cnn__activation_backward_part);
}

static void cnn__dropout_piece(void *arguments, int piece, int thread)
{
    cnn__each_job *job = (cnn__each_job *)arguments;
    size_t first, n = cnn__piece_of(job, piece, &first);
    (void)thread;
    job->g->kernels->dropout_part(job->y + first, job->x + first, n, job->c->seed, (uint32_t)job->layer, job->c->pass,
                                  (uint32_t)(first / 4), (uint32_t)ceil(job->p * 16777216.0), (float)(1 / (1.0 - job->p)));
}

static void cnn__gemm_dropout_forward(void *context, const cnn_counters *c, int layer, float p, float *y, const float *x,
                                      size_t n)
{
    cnn__each_job job;
    memset(&job, 0, sizeof job);
    job.c = c; job.layer = layer; job.p = p; job.y = y; job.x = x;
    cnn__each(&job, context, n, cnn__dropout_piece);
}

static void cnn__gemm_dropout_backward(void *context, const cnn_counters *c, int layer, float p, float *dx, const float *dy,
                                       size_t n)
{
    cnn__gemm_dropout_forward(context, c, layer, p, dx, dy, n);
}

static void cnn__adam_step_part(void *arguments, int piece, int thread)
{
    cnn__each_job *job = (cnn__each_job *)arguments;
    size_t first, n = cnn__piece_of(job, piece, &first);
    (void)thread;
    job->g->kernels->adam_part(&job->factors, job->adam, job->w + first, job->m + first, job->v + first, job->x + first, n);
}

static void cnn__gemm_adam_step(void *context, cnn_counters *c, const cnn_adam_options *o, int decoupled, float *w, float *m,
                                float *v, const float *g, size_t n)
{
    cnn__each_job job;
    memset(&job, 0, sizeof job);
    job.factors = cnn__adam_at_step(c, o, decoupled);
    job.adam = o; job.w = w; job.m = m; job.v = v; job.x = g;
    cnn__each(&job, context, n, cnn__adam_step_part);
    c->step++;
}

static void cnn__gather_sample(void *arguments, int n, int thread)
{
    cnn__each_job *job = (cnn__each_job *)arguments;
    const cnn_map_shape *s = job->map;
    int c, p;
    (void)thread;
    for (c = 0; c < s->channels; c++) {
        size_t from = ((size_t)job->order[n] * s->channels + c) * s->pixels;
        float *to = job->y + ((size_t)n * s->channels + c) * s->pixels;
        if (job->bytes) job->g->kernels->scale_bytes(to, job->bytes + from, job->scale[c], job->shift[c], (size_t)s->pixels);
        else for (p = 0; p < s->pixels; p++) to[p] = job->scale[c] * job->floats[from + p] + job->shift[c];
    }
}

static void cnn__gemm_gather(void *context, const cnn_counters *k, const cnn_map_shape *s, float *x, const unsigned char *bytes,
                             const float *floats, const int *order, const float *scale, const float *shift)
{
    cnn__each_job job;
    memset(&job, 0, sizeof job);
    job.g = (const cnn__gemm_context *)context;
    job.map = s; job.y = x; job.bytes = bytes; job.floats = floats; job.scale = scale; job.shift = shift;
    job.order = order + k->batch_offset;
    cnn__parallel(job.g->threads, s->batch, cnn__gather_sample, &job);
}

static void cnn__pool_forward_sample(void *arguments, int n, int thread)
{
    cnn__each_job *job = (cnn__each_job *)arguments;
    cnn_pool2d_shape one = *job->pool;
    (void)thread;
    one.batch = 1;
    cnn__pool2d_forward(&one, job->y + (size_t)n * cnn__pool2d_outputs(&one),
                        job->x + (size_t)n * one.channels * one.in_height * one.in_width);
}

static void cnn__gemm_pool2d_forward(void *context, const cnn_pool2d_shape *s, float *y, const float *x)
{
    cnn__each_job job;
    memset(&job, 0, sizeof job);
    job.pool = s; job.y = y; job.x = x;
    cnn__parallel(((const cnn__gemm_context *)context)->threads, s->batch, cnn__pool_forward_sample, &job);
}

static void cnn__pool_backward_sample(void *arguments, int n, int thread)
{
    cnn__each_job *job = (cnn__each_job *)arguments;
    cnn_pool2d_shape one = *job->pool;
    size_t in = (size_t)n * one.channels * one.in_height * one.in_width;
    (void)thread;
    one.batch = 1;
    cnn__pool2d_backward(&one, job->y + in, job->dy + (size_t)n * cnn__pool2d_outputs(&one), job->x + in);
}

static void cnn__gemm_pool2d_backward(void *context, const cnn_pool2d_shape *s, float *dx, const float *dy, const float *x)
{
    cnn__each_job job;
    memset(&job, 0, sizeof job);
    job.pool = s; job.y = dx; job.dy = dy; job.x = x;
    cnn__parallel(((const cnn__gemm_context *)context)->threads, s->batch, cnn__pool_backward_sample, &job);
}

/* ---- the table `gemm`: `direct`, with what is faster in its place ---- */

static void *cnn__gemm_open(int threads, char *sentence, size_t room)
{
    const cnn__kernels *kernels = cnn__choose_kernels(sentence, room);
    cnn__gemm_context *g = kernels ? (cnn__gemm_context *)cnn__alloc(1, sizeof *g) : NULL;
    if (kernels && !g) snprintf(sentence, room, "out of memory");
    if (!g) return NULL;
    g->threads = threads;
    g->kernels = kernels;
    return g;
}

static void cnn__gemm_close(void *context) { cnn__free(context); }

static cnn_backend cnn__gemm(void)
{
    cnn_backend b = cnn__direct();
    b.name = "gemm";
    b.open = cnn__gemm_open;
    b.close = cnn__gemm_close;
    b.conv2d_work = cnn__gemm_conv2d_work;
    b.conv2d_forward = cnn__gemm_conv2d_forward;
    b.conv2d_backward = cnn__gemm_conv2d_backward;
    b.pool2d_forward = cnn__gemm_pool2d_forward;
    b.pool2d_backward = cnn__gemm_pool2d_backward;
    b.linear_work = cnn__gemm_linear_work;
    b.linear_forward = cnn__gemm_linear_forward;
    b.linear_backward = cnn__gemm_linear_backward;
    b.activation_forward = cnn__gemm_activation_forward;
    b.activation_backward = cnn__gemm_activation_backward;
    b.dropout_forward = cnn__gemm_dropout_forward;
    b.dropout_backward = cnn__gemm_dropout_backward;
    b.gather = cnn__gemm_gather;
    b.adam_step = cnn__gemm_adam_step;
    return b;
}

/* ============================================================================================
   >>net   Building a chain of layers, running it forward and backward, training it. The net owns
           everything: one block of parameters, one of gradients, the outputs of each operation.
   ============================================================================================ */

static uint64_t cnn__data_serial(const cnn_data *data);    /* at >>data: tells one data set from another at the same address */
static size_t cnn__data_count(const cnn_data *data);       /* samples in its arrays, however `count` was lowered */
static cnn_loader *cnn__deal(const char *call, const cnn_data *data, cnn_loader_options o);    /* cnn_loader_new for `call` */
static int cnn__forward_next(cnn_net *net, cnn_loader *loader, cnn_batch *batch);

typedef enum cnn__kind {
    CNN__CONV2D, CNN__POOL2D, CNN__LINEAR, CNN__ACTIVATION, CNN__SOFTMAX, CNN__FLATTEN, CNN__DROPOUT
} cnn__kind;

typedef struct cnn__dims { int channels, height, width, flat; } cnn__dims;     /* flat: (channels, 1, 1), a vector */

typedef struct cnn__layer {
    cnn__kind kind;
    const char *type;                       /* "conv2d", "max_pool2d", ... for messages and tables       */
    char name[96];
    int named;                              /* by the caller, so that messages repeat it                 */
    cnn__dims in, out;
    cnn_conv2d_options conv_options; int conv1d;
    cnn_pool2d_options pool_options; int average, global;
    cnn_linear_options linear_options;
    cnn_conv2d_shape conv;                  /* fitted to the input, batch still 0                        */
    cnn_pool2d_shape pool;
    cnn_linear_shape linear;
    cnn_activation activation; float slope;
    float p;
} cnn__layer;

typedef struct cnn__tensor {                /* one parameter                                             */
    char key[112];
    int layer, ndim, shape[4];
    size_t offset, count;                   /* in the blocks of parameters and gradients                 */
    size_t fan_in, fan_out;
    cnn_init init;                          /* biases: CNN_INIT_DEFAULT                                  */
} cnn__tensor;

typedef struct cnn__op {                    /* the layers first .. last, run as one operation            */
    int first, last;
    cnn_conv2d_shape conv;
    cnn_linear_shape linear;
    float *output;                          /* (batch, out), the op's own memory                         */
    unsigned char *index;                   /* of fused max pooling                                      */
    const float *x;                         /* of the last forward pass: what came in                    */
    float *y;                               /* what went out: output, or x where the op did nothing      */
} cnn__op;

typedef struct cnn__resident { const void *host; uint64_t serial; void *memory; } cnn__resident;

typedef enum cnn__optimizer { CNN__NO_OPTIMIZER, CNN__SGD, CNN__ADAM, CNN__ADAMW } cnn__optimizer;
typedef enum cnn__schedule { CNN__CONSTANT, CNN__STEP_LR, CNN__COSINE_LR, CNN__ONE_CYCLE_LR } cnn__schedule;

struct cnn_net {
    cnn__text error;
    int broken;                             /* building failed: the error stays                          */
    /* layers */
    cnn__dims input;
    cnn__layer *layers; int layer_count, layer_room;
    char block[64], next_name[96]; int block_layers;
    /* backend */
    cnn_backend backend; int opened, threads;
    uint64_t seed;
    /* parameters: there once `ready` */
    int ready;
    cnn__tensor *tensors; int tensor_count;
    size_t parameter_count;                 /* floats in each block, gaps between tensors included       */
    float *parameters, *gradients, *moment1, *moment2;
    cnn_counters *counters;                 /* in backend memory                                         */
    cnn__op *ops; int op_count;
    /* for batches of up to `capacity` samples */
    int capacity, index_capacity, backward_capacity;
    float *x, *dloss, *targets, *dflow[2];  /* dflow: gradients on their way back, in turn               */
    int *labels;
    float *scale, *shift, *scaled;          /* scaled: both, on the host, as they were sent              */
    void *work; size_t work_size; int work_batch;          /* work_batch: it is large enough for this one     */
    int *order, order_room, order_next;     /* the numbers of samples; order_next: the counters' next_offset */
    cnn__resident *resident; int resident_count;
    /* state */
    int evaluating, no_grad, allow_tf32;    /* dropout off; no gradients wanted; of convolutions         */
    int batch, has_loss;                    /* samples of the last forward pass; its loss was taken      */
    cnn_batch last;                         /* what cnn_forward was given for it                         */
    cnn__optimizer optimizer; cnn_sgd_options sgd; cnn_adam_options adam;
    float base_lr;
    cnn__schedule schedule; long schedule_steps;
    cnn_step_lr_options step_lr; cnn_cosine_lr_options cosine_lr; cnn_one_cycle_lr_options one_cycle_lr;
    cnn_epoch *history; int history_count, history_room;
};

const char *cnn_error(const cnn_net *net)
{
    if (!net) return "out of memory for the network";
    return net->error.s[0] ? net->error.s : NULL;
}

void cnn_clear_error(cnn_net *net) { if (net && !net->broken) net->error.s[0] = 0; }

static int cnn__stopped(const cnn_net *net) { return !net || net->error.s[0]; }

static size_t cnn__size(cnn__dims d) { return (size_t)d.channels * d.height * d.width; }

cnn_net *cnn_new(int channels, int height, int width)
{
    cnn_net *net = (cnn_net *)cnn__alloc(1, sizeof *net);
    if (!net) {
        CNN_ON_ERROR(cnn_error(NULL));
        return NULL;
    }
    net->input.channels = channels; net->input.height = height; net->input.width = width;
    net->backend = *cnn_find_backend("gemm");
    if (channels < 1 || height < 1 || width < 1 || (double)channels * height * width > INT_MAX) {
        net->broken = 1;
        cnn__say(&net->error,
                 "cnn_new: a sample of %d x %d x %d is not possible; channels, height and width must be at least 1 "
                 "and their product at most %d",
                 channels, height, width, INT_MAX);
    }
    return net;
}

/* ---- layers: each is fitted to the shape that arrives ---- */

/* `layer 7 (linear "classifier")` */
static const char *cnn__label(const cnn__layer *layer, int number, cnn__text *text)
{
    snprintf(text->s, sizeof text->s, layer->named ? "layer %d (%s \"%s\")" : "layer %d (%s)", number, layer->type,
             layer->name);
    return text->s;
}

static const char *cnn__dims_text(cnn__dims d, cnn__text *text)
{
    if (d.flat) snprintf(text->s, sizeof text->s, "%d", d.channels);
    else snprintf(text->s, sizeof text->s, "%d x %d x %d", d.channels, d.height, d.width);
    return text->s;
}

/* The size of one side after a convolution or pooling; 0 and an error if the window does not fit. */
static int cnn__output_size(const char *side, int in, int pad_before, int pad_after, int dilation, int kernel, int stride,
                            int ceil_mode, const char *label, cnn__text *error)
{
    double span = (double)in + pad_before + pad_after - (double)dilation * (kernel - 1) - 1;
    int out = span < 0 ? 0 : (int)(span / stride) + 1;
    if (span >= 0 && ceil_mode && (int)span % stride && (double)out * stride < (double)in + pad_before) out++;
    if (out < 1)
        cnn__say(error,
                 "%s: its window does not fit: output %s = floor((in + padding - dilation * (kernel - 1) - 1) / stride) + 1 = "
                 "floor((%d + %d - %d * (%d - 1) - 1) / %d) + 1 < 1; give more padding, a smaller kernel, or a larger input",
                 label, side, in, pad_before + pad_after, dilation, kernel, stride);
    return out;
}

static int cnn__either(int one, int both, int otherwise) { return one ? one : both ? both : otherwise; }

static int cnn__usable_init(cnn_init init, const char *label, cnn__text *error)
{
    if ((unsigned)init <= CNN_XAVIER_NORMAL) return 1;
    return cnn__say(error,
                    "%s: init %d is none of CNN_INIT_DEFAULT, CNN_KAIMING_UNIFORM, CNN_KAIMING_NORMAL, CNN_XAVIER_UNIFORM, "
                    "CNN_XAVIER_NORMAL",
                    label, (int)init),
           0;
}

static int cnn__fit_conv2d(cnn__layer *layer, const char *label, cnn__text *error)
{
    const cnn_conv2d_options *o = &layer->conv_options;
    cnn_conv2d_shape *s = &layer->conv;
    int same = o->padding == CNN_SAME, pad_height, pad_width;
    memset(s, 0, sizeof *s);
    s->in_channels = layer->in.channels; s->in_height = layer->in.height; s->in_width = layer->in.width;
    s->out_channels = o->out_channels;
    s->kernel_height = layer->conv1d ? 1 : cnn__either(o->kernel_height, o->kernel_size, 0);
    s->kernel_width = cnn__either(o->kernel_width, o->kernel_size, 0);
    s->stride_height = layer->conv1d ? 1 : cnn__either(o->stride_height, o->stride, 1);
    s->stride_width = cnn__either(o->stride_width, o->stride, 1);
    s->dilation_height = layer->conv1d ? 1 : cnn__either(o->dilation_height, o->dilation, 1);
    s->dilation_width = cnn__either(o->dilation_width, o->dilation, 1);
    s->groups = cnn__either(o->groups, 0, 1);
    s->padding_mode = o->padding_mode;
    if (layer->in.flat)
        return cnn__say(error,
                        "%s: needs channels x height x width, but its input is flat, a vector of %d values; put it before "
                        "cnn_flatten",
                        label, layer->in.channels),
               0;
    if (layer->conv1d && layer->in.height != 1)
        return cnn__say(error, "%s: needs an input of height 1, but gets %d x %d x %d; use conv2d for images", label,
                        layer->in.channels, layer->in.height, layer->in.width), 0;
    if (s->out_channels < 1 || s->kernel_height < 1 || s->kernel_width < 1)
        return cnn__say(
                   error,
                   "%s: needs .out_channels and .kernel_size of at least 1, but has out_channels %d and a kernel of %d x %d",
                   label, s->out_channels, s->kernel_height, s->kernel_width),
               0;
    if (s->stride_height < 1 || s->stride_width < 1 || s->dilation_height < 1 || s->dilation_width < 1)
        return cnn__say(error, "%s: stride and dilation must be at least 1, but are %d x %d and %d x %d", label,
                        s->stride_height, s->stride_width, s->dilation_height, s->dilation_width), 0;
    if (o->in_channels && o->in_channels != s->in_channels)
        return cnn__say(error, "%s: expects %d input channels, but gets %d", label, o->in_channels, s->in_channels), 0;
    if (s->groups < 1) return cnn__say(error, "%s: groups must be at least 1, but is %d", label, s->groups), 0;
    if (s->in_channels % s->groups || s->out_channels % s->groups)
        return cnn__say(error, "%s: %d groups do not divide %d input and %d output channels", label,
                        s->groups, s->in_channels, s->out_channels), 0;
    if ((unsigned)s->padding_mode > CNN_CIRCULAR)
        return cnn__say(error, "%s: padding_mode %d is none of CNN_ZEROS, CNN_REPLICATE, CNN_REFLECT, CNN_CIRCULAR", label,
                        (int)s->padding_mode),
               0;
    if (!cnn__usable_init(o->init, label, error)) return 0;
    if (same) {
        double total_height = (double)s->dilation_height * (s->kernel_height - 1),
               total_width = (double)s->dilation_width * (s->kernel_width - 1);
        if (s->stride_height != 1 || s->stride_width != 1)
            return cnn__say(error, "%s: padding CNN_SAME needs stride 1, but the stride is %d x %d", label, s->stride_height,
                            s->stride_width),
                   0;
        if (total_height > INT_MAX / 4 || total_width > INT_MAX / 4)
            return cnn__say(error, "%s: the kernel spans %.0f x %.0f values, too many", label, total_height + 1,
                            total_width + 1),
                   0;
        s->pad_top = (int)total_height / 2; s->pad_bottom = (int)total_height - s->pad_top;
        s->pad_left = (int)total_width / 2; s->pad_right = (int)total_width - s->pad_left;
    } else {
        pad_height = layer->conv1d ? 0 : cnn__either(o->padding_height, o->padding, 0);
        pad_width = cnn__either(o->padding_width, o->padding, 0);
        if (pad_height < 0 || pad_width < 0 || pad_height > INT_MAX / 4 || pad_width > INT_MAX / 4)
            return cnn__say(error,
                            "%s: padding must be at least 0 or CNN_SAME, and no more than the input could need, but is %d x %d",
                            label, pad_height, pad_width),
                   0;
        s->pad_top = s->pad_bottom = pad_height;
        s->pad_left = s->pad_right = pad_width;
    }
    if (s->padding_mode != CNN_ZEROS) {     /* reflect leaves the border value out, circular goes around once */
        int less = s->padding_mode == CNN_REFLECT;
        int most = s->padding_mode == CNN_REPLICATE ? INT_MAX : 0;
        if ((most ? most : s->in_height - less) < s->pad_bottom || (most ? most : s->in_width - less) < s->pad_right)
            return cnn__say(error, "%s: %s padding of %d x %d needs a larger input than %d x %d", label,
                            less ? "reflect" : "circular", s->pad_bottom, s->pad_right, s->in_height, s->in_width),
                   0;
    }
    s->out_height = cnn__output_size("height", s->in_height, s->pad_top, s->pad_bottom, s->dilation_height, s->kernel_height,
                                     s->stride_height, 0, label, error);
    s->out_width = cnn__output_size("width", s->in_width, s->pad_left, s->pad_right, s->dilation_width, s->kernel_width,
                                    s->stride_width, 0, label, error);
    layer->out.channels = s->out_channels;
    layer->out.height = s->out_height;
    layer->out.width = s->out_width;
    layer->out.flat = 0;
    return s->out_height > 0 && s->out_width > 0;
}

static int cnn__fit_pool2d(cnn__layer *layer, const char *label, cnn__text *error)
{
    const cnn_pool2d_options *o = &layer->pool_options;
    cnn_pool2d_shape *s = &layer->pool;
    memset(s, 0, sizeof *s);
    s->channels = layer->in.channels; s->in_height = layer->in.height; s->in_width = layer->in.width;
    s->kernel_height = layer->global ? s->in_height : cnn__either(o->kernel_height, o->kernel_size, 0);
    s->kernel_width = layer->global ? s->in_width : cnn__either(o->kernel_width, o->kernel_size, 0);
    s->stride_height = cnn__either(o->stride_height, o->stride, s->kernel_height);
    s->stride_width = cnn__either(o->stride_width, o->stride, s->kernel_width);
    s->pad_height = cnn__either(o->padding_height, o->padding, 0);
    s->pad_width = cnn__either(o->padding_width, o->padding, 0);
    s->average = layer->average;
    s->exclude_padding = o->exclude_padding;
    if (layer->in.flat)
        return cnn__say(error,
                        "%s: needs channels x height x width, but its input is flat, a vector of %d values; put it before "
                        "cnn_flatten",
                        label, layer->in.channels),
               0;
    if (s->kernel_height < 1 || s->kernel_width < 1 || s->stride_height < 1 || s->stride_width < 1)
        return cnn__say(error, "%s: needs .kernel_size and stride of at least 1, but has %d x %d and %d x %d", label,
                        s->kernel_height, s->kernel_width, s->stride_height, s->stride_width), 0;
    if ((double)s->kernel_height * s->kernel_width > INT_MAX)
        return cnn__say(error, "%s: a window of %d x %d has too many values", label, s->kernel_height, s->kernel_width), 0;
    if (s->pad_height < 0 || s->pad_width < 0 || s->pad_height > s->kernel_height / 2 || s->pad_width > s->kernel_width / 2)
        return cnn__say(error, "%s: padding must be between 0 and half the kernel, but is %d x %d for a kernel of %d x %d",
                        label, s->pad_height, s->pad_width, s->kernel_height, s->kernel_width),
               0;
    s->out_height = cnn__output_size("height", s->in_height, s->pad_height, s->pad_height, 1, s->kernel_height,
                                     s->stride_height, o->ceil_mode, label, error);
    s->out_width = cnn__output_size("width", s->in_width, s->pad_width, s->pad_width, 1, s->kernel_width, s->stride_width,
                                    o->ceil_mode, label, error);
    layer->out.channels = s->channels; layer->out.height = s->out_height; layer->out.width = s->out_width; layer->out.flat = 0;
    return s->out_height > 0 && s->out_width > 0;
}

static int cnn__fit_linear(cnn__layer *layer, const char *label, cnn__text *error)
{
    int in_features = layer->linear_options.in_features;
    cnn__text dims;
    if (!layer->in.flat && (layer->in.height != 1 || layer->in.width != 1))
        return cnn__say(error, "%s: needs a flat input, but gets %s; call cnn_flatten before it", label,
                        cnn__dims_text(layer->in, &dims)),
               0;
    if (layer->linear_options.out_features < 1)
        return cnn__say(error, "%s: needs .out_features of at least 1, but has %d", label, layer->linear_options.out_features),
               0;
    if (!cnn__usable_init(layer->linear_options.init, label, error)) return 0;
    memset(&layer->linear, 0, sizeof layer->linear);
    layer->linear.in_features = layer->in.channels;
    layer->linear.out_features = layer->linear_options.out_features;
    layer->out.channels = layer->linear.out_features; layer->out.height = layer->out.width = 1; layer->out.flat = 1;
    return !in_features || in_features == layer->in.channels;      /* cnn__add has the sentence: it knows the layer before */
}

/* Fits a layer to its input: fills its shape and its output in. 0 and an error (NULL: quietly) if it cannot be. */
static int cnn__fit_layer(cnn__layer *layer, cnn__dims in, const char *label, cnn__text *error)
{
    layer->in = layer->out = in;
    switch (layer->kind) {
    case CNN__CONV2D:  return cnn__fit_conv2d(layer, label, error);
    case CNN__POOL2D:  return cnn__fit_pool2d(layer, label, error);
    case CNN__LINEAR:  return cnn__fit_linear(layer, label, error);
    case CNN__FLATTEN:
        layer->out.channels = (int)cnn__size(in); layer->out.height = layer->out.width = 1; layer->out.flat = 1;
        return 1;
    case CNN__ACTIVATION:
        if (layer->slope >= 0) return 1;
        return cnn__say(error, "%s: negative_slope must be at least 0, but is %g", label, layer->slope), 0;
    case CNN__DROPOUT:
        if (layer->p >= 0 && layer->p <= 1) return 1;
        return cnn__say(error, "%s: p must be between 0 and 1, but is %g", label, layer->p), 0;
    default:           return 1;
    }
}

/* The square input size with which the last layer would get `features` values; 0 if none. */
static int cnn__size_that_fits(const cnn_net *net, int features)
{
    int size, i;
    for (size = 1; size <= 512; size++) {
        cnn__dims d = net->input;
        d.height = d.width = size;
        for (i = 0; i < net->layer_count; i++) {
            cnn__layer layer = net->layers[i];
            if (!cnn__fit_layer(&layer, d, "", NULL)) break;
            d = layer.out;
        }
        if (i == net->layer_count && d.channels == features) return size;
    }
    return 0;
}

static void cnn__features_differ(cnn_net *net, const cnn__layer *layer, const char *label)
{
    int count = net->layer_count, before = count - 1, size = cnn__size_that_fits(net, layer->linear_options.in_features);
    cnn__text source = { "the input" }, dims, guess = { "" };
    if (count) {
        cnn__label(&net->layers[before], count, &source);
        if (net->layers[before].kind == CNN__FLATTEN && !net->layers[before].in.flat)
            cnn__dims_text(net->layers[before].in, &dims);
        else
            dims.s[0] = 0;
    } else
        dims.s[0] = 0;
    if (size)
        snprintf(guess.s, sizeof guess.s, ". The input is %d x %d; this network was drawn for %d x %d?",
                 net->input.height, net->input.width, size, size);
    cnn__say(&net->error, "%s: expects %d inputs, but %.80s gives %.60s%s%d%s", label, layer->linear_options.in_features,
             source.s, dims.s, dims.s[0] ? " = " : "", layer->in.channels, guess.s);
}

static void cnn__name_layer(cnn_net *net, cnn__layer *layer)
{
    if (net->next_name[0]) {
        snprintf(layer->name, sizeof layer->name, "%s", net->next_name);
        layer->named = 1;
        net->next_name[0] = 0;
    } else if (net->block[0]) {
        snprintf(layer->name, sizeof layer->name, "%s.%d", net->block, net->block_layers++);
        layer->named = 1;
    } else
        snprintf(layer->name, sizeof layer->name, "%d", net->block_layers++);
}

static void cnn__add(cnn_net *net, cnn__layer *layer)
{
    cnn__text label;
    int i;
    if (cnn__stopped(net)) return;
    net->broken = 1;                                       /* until the layer is in its place */
    cnn__name_layer(net, layer);
    cnn__label(layer, net->layer_count + 1, &label);
    if (net->ready) {
        cnn__say(&net->error,
                 "%s: the network is already in use; add all layers before the first forward pass or look at its parameters",
                 label.s);
        return;
    }
    for (i = 0; i < net->layer_count; i++)
        if (!strcmp(net->layers[i].name, layer->name)) {
            cnn__say(&net->error, "%s: there is a layer of that name already, layer %d", label.s, i + 1);
            return;
        }
    if (!cnn__fit_layer(layer, net->layer_count ? net->layers[net->layer_count - 1].out : net->input, label.s, &net->error)) {
        if (layer->kind == CNN__LINEAR && !net->error.s[0]) cnn__features_differ(net, layer, label.s);
        return;
    }
    if ((double)layer->out.channels * layer->out.height * layer->out.width > INT_MAX) {
        cnn__say(&net->error, "%s: its output of %d x %d x %d is larger than %d values a sample", label.s,
                 layer->out.channels, layer->out.height, layer->out.width, INT_MAX);
        return;
    }
    if (net->layer_count == net->layer_room) {
        int room = net->layer_room ? 2 * net->layer_room : 16;
        cnn__layer *larger = (cnn__layer *)cnn__alloc((size_t)room, sizeof *larger);
        if (!larger) { cnn__say(&net->error, "%s: out of memory", label.s); return; }
        if (net->layers) memcpy(larger, net->layers, sizeof *larger * net->layer_count);
        cnn__free(net->layers);
        net->layers = larger;
        net->layer_room = room;
    }
    net->layers[net->layer_count++] = *layer;
    net->broken = 0;
}

static cnn__layer cnn__layer_of(cnn__kind kind, const char *type)
{
    cnn__layer layer;
    memset(&layer, 0, sizeof layer);
    layer.kind = kind;
    layer.type = type;
    return layer;
}

static void cnn__add_conv(cnn_net *net, cnn_conv2d_options o, int conv1d)
{
    cnn__layer layer = cnn__layer_of(CNN__CONV2D, conv1d ? "conv1d" : "conv2d");
    layer.conv_options = o;
    layer.conv1d = conv1d;
    cnn__add(net, &layer);
}

static void cnn__add_pool(cnn_net *net, cnn_pool2d_options o, const char *type, int average, int global)
{
    cnn__layer layer = cnn__layer_of(CNN__POOL2D, type);
    layer.pool_options = o;
    layer.average = average;
    layer.global = global;
    cnn__add(net, &layer);
}

static void cnn__add_activation(cnn_net *net, cnn_activation activation, const char *type, float slope)
{
    cnn__layer layer = cnn__layer_of(CNN__ACTIVATION, type);
    layer.activation = activation;
    layer.slope = slope;
    cnn__add(net, &layer);
}

static void cnn__add_plain(cnn_net *net, cnn__kind kind, const char *type)
{
    cnn__layer layer = cnn__layer_of(kind, type);
    cnn__add(net, &layer);
}

void cnn_conv2d_with(cnn_net *net, cnn_conv2d_options o) { cnn__add_conv(net, o, 0); }
void cnn_conv1d_with(cnn_net *net, cnn_conv2d_options o) { cnn__add_conv(net, o, 1); }
void cnn_max_pool2d_with(cnn_net *net, cnn_pool2d_options o) { cnn__add_pool(net, o, "max_pool2d", 0, 0); }
void cnn_avg_pool2d_with(cnn_net *net, cnn_pool2d_options o) { cnn__add_pool(net, o, "avg_pool2d", 1, 0); }
void cnn_relu(cnn_net *net) { cnn__add_activation(net, CNN_RELU, "relu", 0); }
void cnn_sigmoid(cnn_net *net) { cnn__add_activation(net, CNN_SIGMOID, "sigmoid", 0); }
void cnn_tanh(cnn_net *net) { cnn__add_activation(net, CNN_TANH, "tanh", 0); }
void cnn_softmax(cnn_net *net) { cnn__add_plain(net, CNN__SOFTMAX, "softmax"); }
void cnn_flatten(cnn_net *net) { cnn__add_plain(net, CNN__FLATTEN, "flatten"); }

void cnn_leaky_relu_with(cnn_net *net, cnn_leaky_relu_options o)
{
    cnn__add_activation(net, CNN_LEAKY_RELU, "leaky_relu", o.negative_slope != 0 ? o.negative_slope : 0.01f);
}

void cnn_global_avg_pool2d(cnn_net *net)
{
    cnn_pool2d_options o;
    memset(&o, 0, sizeof o);
    cnn__add_pool(net, o, "global_avg_pool2d", 1, 1);
}

void cnn_linear_with(cnn_net *net, cnn_linear_options o)
{
    cnn__layer layer = cnn__layer_of(CNN__LINEAR, "linear");
    layer.linear_options = o;
    cnn__add(net, &layer);
}

void cnn_dropout_with(cnn_net *net, cnn_dropout_options o)
{
    cnn__layer layer = cnn__layer_of(CNN__DROPOUT, "dropout");
    layer.p = o.p != 0 ? o.p : 0.5f;
    cnn__add(net, &layer);
}

static int cnn__usable_name(cnn_net *net, const char *call, const char *name)
{
    if (cnn__stopped(net)) return 0;
    if (name && name[0] && strlen(name) < 60) return 1;
    net->broken = 1;
    cnn__say(&net->error, "%s: a name has between 1 and 59 characters", call);
    return 0;
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

/* ---- the backend of a net ---- */

enum { CNN__BACKENDS = 8 };

static cnn_backend *cnn__backends(int *count)              /* filled before main() by those that are linked in */
{
    static cnn_backend list[CNN__BACKENDS];
    static int filled;
    if (!filled) {
        list[0] = cnn__direct();
        list[1] = cnn__gemm();
        filled = 2;
    }
    if (*count > filled) filled = *count;
    *count = filled;
    return list;
}

int cnn_register_backend(const cnn_backend *backend)
{
    int count = 0;
    cnn_backend *list = cnn__backends(&count);
    if (!backend || !backend->name || cnn_find_backend(backend->name) || count == CNN__BACKENDS) return 0;
    list[count++] = *backend;
    cnn__backends(&count);
    return 1;
}

const cnn_backend *cnn_find_backend(const char *name)
{
    int count = 0, i;
    const cnn_backend *list = cnn__backends(&count);
    for (i = 0; name && i < count; i++) if (!strcmp(list[i].name, name)) return &list[i];
    return NULL;
}

static int cnn__still_open(cnn_net *net, const char *call)
{
    if (cnn__stopped(net)) return 0;
    if (net->ready)
        cnn__say(&net->error,
                 "%s: the network is already in use; call it before the first forward pass or look at its parameters", call);
    return !net->ready;
}

void cnn_to(cnn_net *net, const char *name)
{
    const cnn_backend *backend = cnn_find_backend(name);
    cnn__text known = { "" };
    int count = 0, i;
    const cnn_backend *list = cnn__backends(&count);
    if (!cnn__still_open(net, "cnn_to")) return;
    if (backend) { net->backend = *backend; return; }
    for (i = 0; i < count; i++)
        snprintf(known.s + strlen(known.s), sizeof known.s - strlen(known.s), "%s%.40s", i ? ", " : "", list[i].name);
    cnn__say(&net->error, "cnn_to: there is no backend \"%.60s\"; this program has %.300s%s", name ? name : "", known.s,
             name && !strcmp(name, "cuda") ? " (link cnn_cuda.o: make CUDA=1)" : "");
}

void cnn_use_backend(cnn_net *net, const cnn_backend *backend)
{
    if (!cnn__still_open(net, "cnn_use_backend")) return;
    if (backend) net->backend = *backend;
    else cnn__say(&net->error, "cnn_use_backend: there is no backend");
}

void cnn_set_num_threads(cnn_net *net, int threads)
{
    if (!cnn__still_open(net, "cnn_set_num_threads")) return;
    if (threads < 1) cnn__say(&net->error, "cnn_set_num_threads: needs at least 1 thread, not %d", threads);
    else net->threads = threads;
}

void cnn_manual_seed(cnn_net *net, uint64_t seed) { if (cnn__still_open(net, "cnn_manual_seed")) net->seed = seed; }

void cnn_allow_tf32(cnn_net *net, int allow) { if (!cnn__stopped(net)) net->allow_tf32 = allow != 0; }

static const char *cnn__missing_entry(const cnn_backend *b)
{
#define CNN__NEEDS(entry) if (!b->entry) return #entry;
    CNN__NEEDS(alloc)
    CNN__NEEDS(free) CNN__NEEDS(upload) CNN__NEEDS(download) CNN__NEEDS(zero) CNN__NEEDS(conv2d_work) CNN__NEEDS(conv2d_forward)
        CNN__NEEDS(conv2d_backward) CNN__NEEDS(pool2d_forward) CNN__NEEDS(pool2d_backward) CNN__NEEDS(linear_work)
            CNN__NEEDS(linear_forward) CNN__NEEDS(linear_backward) CNN__NEEDS(activation_forward)
                CNN__NEEDS(activation_backward) CNN__NEEDS(softmax_forward) CNN__NEEDS(softmax_backward)
                    CNN__NEEDS(dropout_forward) CNN__NEEDS(dropout_backward) CNN__NEEDS(softmax_cross_entropy) CNN__NEEDS(mse)
                        CNN__NEEDS(next_batch) CNN__NEEDS(gather) CNN__NEEDS(gather_rows) CNN__NEEDS(clip_grad_norm)
                            CNN__NEEDS(sgd_step) CNN__NEEDS(adam_step)
#undef CNN__NEEDS
                                return NULL;
}

static int cnn__open_backend(cnn_net *net)
{
    cnn_backend *b = &net->backend;
    const char *missing;
    char sentence[256] = "";
    int threads = net->threads;
    if (b->version != CNN_BACKEND_VERSION) {
        cnn__say(&net->error,
                 "backend \"%s\": its table has version %d, but this cnn.h has version %d; build both from the same sources",
                 b->name, b->version, CNN_BACKEND_VERSION);
        return 0;
    }
    missing = cnn__missing_entry(b);
    if (missing) {
        cnn__say(&net->error, "backend \"%s\": its table has no %s; copy cnn_find_backend(\"direct\") and replace entries",
                 b->name, missing);
        return 0;
    }
#ifdef _OPENMP
    if (!threads) threads = omp_get_max_threads();
#else
    threads = 1;
#endif
    if (b->open) {
        b->context = b->open(threads, sentence, sizeof sentence);
        if (!b->context) {
            cnn__say(&net->error, "backend \"%s\" cannot start: %s", b->name, sentence);
            return 0;
        }
    }
    net->opened = 1;
    return 1;
}

static int cnn__sync(cnn_net *net)
{
    const char *wrong = net->backend.sync ? net->backend.sync(net->backend.context) : NULL;
    if (wrong) cnn__say(&net->error, "backend \"%s\": %s", net->backend.name, wrong);
    return !wrong;
}

static void *cnn__backend_alloc(cnn_net *net, size_t count, size_t size, const char *what)
{
    size_t bytes;
    void *memory = cnn__mul(&bytes, count, size) && bytes <= (size_t)-1 / 2
                     ? net->backend.alloc(net->backend.context, bytes ? bytes : 1)
                     : NULL;
    if (!memory)
        cnn__say(&net->error,
                 "out of memory: %s of the network need %.1f MB on backend \"%s\"; use smaller layers or a smaller batch", what,
                 (double)count * (double)size / 1e6, net->backend.name);
    return memory;
}

static void cnn__backend_free(cnn_net *net, void *pointer_to_pointer)
{
    void *memory;
    memcpy(&memory, pointer_to_pointer, sizeof memory);
    if (memory) net->backend.free(net->backend.context, memory);
    memset(pointer_to_pointer, 0, sizeof memory);
}

static cnn_counters cnn__read_counters(cnn_net *net)
{
    cnn_counters c;
    net->backend.download(net->backend.context, &c, net->counters, sizeof c);
    return c;
}

static void cnn__write_counters(cnn_net *net, const cnn_counters *c)
{
    net->backend.upload(net->backend.context, net->counters, c, sizeof *c);
}

/* ---- ready: parameters in one block, layers fused into operations ---- */

static void cnn__add_tensor(cnn_net *net, int layer, const char *suffix, int ndim, const int *shape, size_t fan_in,
                            size_t fan_out, cnn_init init)
{
    cnn__tensor *t = &net->tensors[net->tensor_count++];
    int i;
    snprintf(t->key, sizeof t->key, "%s.%s", net->layers[layer].name, suffix);
    t->layer = layer;
    t->ndim = ndim;
    t->count = 1;
    for (i = 0; i < ndim; i++) {
        t->shape[i] = shape[i];
        if (!cnn__mul(&t->count, t->count, (size_t)shape[i])) t->count = (size_t)-1 / 64;
    }
    t->fan_in = fan_in;
    t->fan_out = fan_out;
    t->init = init;
    t->offset = net->parameter_count;
    net->parameter_count += (t->count + 15) / 16 * 16;     /* each tensor begins at a cache line */
    if (net->parameter_count > (size_t)-1 / 64) net->parameter_count = (size_t)-1 / 64;
}

static void cnn__list_tensors(cnn_net *net)
{
    int i, shape[4];
    for (i = 0; i < net->layer_count; i++) {
        const cnn__layer *l = &net->layers[i];
        if (l->kind == CNN__CONV2D) {
            size_t area = (size_t)l->conv.kernel_height * l->conv.kernel_width;
            size_t fan_in = (size_t)(l->conv.in_channels / l->conv.groups) * area,
                   fan_out = (size_t)l->conv.out_channels * area;
            shape[0] = l->conv.out_channels; shape[1] = l->conv.in_channels / l->conv.groups;
            shape[2] = l->conv1d ? l->conv.kernel_width : l->conv.kernel_height; shape[3] = l->conv.kernel_width;
            cnn__add_tensor(net, i, "weight", l->conv1d ? 3 : 4, shape, fan_in, fan_out, l->conv_options.init);
            if (!l->conv_options.no_bias) cnn__add_tensor(net, i, "bias", 1, shape, fan_in, fan_out, CNN_INIT_DEFAULT);
        } else if (l->kind == CNN__LINEAR) {
            shape[0] = l->linear.out_features; shape[1] = l->linear.in_features;
            cnn__add_tensor(net, i, "weight", 2, shape, (size_t)shape[1], (size_t)shape[0], l->linear_options.init);
            if (!l->linear_options.no_bias)
                cnn__add_tensor(net, i, "bias", 1, shape, (size_t)shape[1], (size_t)shape[0], CNN_INIT_DEFAULT);
        }
    }
}

/* One parameter's first values: a function of (seed, number of the tensor, element). */
static void cnn__init_tensor(float *w, const cnn__tensor *t, uint64_t seed, int number)
{
    double bound = 1 / sqrt((double)t->fan_in), deviation = 0;             /* PyTorch: kaiming_uniform(a = sqrt 5) */
    size_t i;
    switch (t->init) {
    case CNN_KAIMING_UNIFORM: bound = sqrt(6.0 / (double)t->fan_in); break;
    case CNN_XAVIER_UNIFORM:  bound = sqrt(6.0 / (double)(t->fan_in + t->fan_out)); break;
    case CNN_KAIMING_NORMAL:  deviation = sqrt(2.0 / (double)t->fan_in); break;
    case CNN_XAVIER_NORMAL:   deviation = sqrt(2.0 / (double)(t->fan_in + t->fan_out)); break;
    default: break;
    }
    for (i = 0; i < t->count; i++) {
        uint32_t r[4];
        cnn_random(r, seed, CNN__STREAM_INIT, (uint64_t)number, (uint32_t)i);
        if (deviation > 0)                                                 /* Box, Muller */
            w[i] = (float)(deviation * sqrt(-2 * log(1.0 - cnn__unit(r[0]))) * cos(6.283185307179586 * cnn__unit(r[1])));
        else
            w[i] = (float)(bound * (2.0 * cnn__unit(r[0]) - 1));
    }
}

static int cnn__init_parameters(cnn_net *net)
{
    float *host = (float *)cnn__alloc(net->parameter_count + 1, sizeof *host);
    int i;
    if (!host) {
        cnn__say(&net->error, "out of memory: the network's %.0f parameters need %.1f MB", (double)net->parameter_count,
                 4e-6 * (double)net->parameter_count);
        return 0;
    }
    net->parameters = (float *)cnn__backend_alloc(net, net->parameter_count, sizeof(float), "the parameters");
    net->gradients = (float *)cnn__backend_alloc(net, net->parameter_count, sizeof(float), "the gradients");
    net->counters = (cnn_counters *)cnn__backend_alloc(net, 1, sizeof(cnn_counters), "the counters");
    if (!cnn__stopped(net)) {
        cnn_counters c;
        for (i = 0; i < net->tensor_count; i++) cnn__init_tensor(host + net->tensors[i].offset, &net->tensors[i], net->seed, i);
        net->backend.upload(net->backend.context, net->parameters, host, sizeof *host * net->parameter_count);
        net->backend.zero(net->backend.context, net->gradients, sizeof *host * net->parameter_count);
        memset(&c, 0, sizeof c);
        c.seed = net->seed;
        c.lr = net->base_lr;
        cnn__write_counters(net, &c);
    }
    cnn__free(host);
    return !cnn__stopped(net);
}

static int cnn__fusible_pool(const cnn__layer *l)          /* the winner's place must fit one byte */
{
    return l->kind == CNN__POOL2D && !l->average && (double)l->pool.kernel_height * l->pool.kernel_width <= 256;
}

/* conv + activation + max pooling become one operation, and so do linear + activation. Flatten is none. */
static void cnn__fuse(cnn_net *net)
{
    int i = 0;
    while (i < net->layer_count) {
        const cnn__layer *l = &net->layers[i];
        cnn__op *op = &net->ops[net->op_count];
        if (l->kind == CNN__FLATTEN) { i++; continue; }
        memset(op, 0, sizeof *op);
        op->first = op->last = i;
        op->conv = l->conv;
        op->linear = l->linear;
        if (l->kind == CNN__CONV2D || l->kind == CNN__LINEAR) {
            if (i + 1 < net->layer_count && l[1].kind == CNN__ACTIVATION) {
                op->conv.activation = op->linear.activation = l[1].activation;
                op->conv.slope = op->linear.slope = l[1].slope;
                op->last++;
            }
            if (l->kind == CNN__CONV2D && op->last + 1 < net->layer_count && cnn__fusible_pool(&net->layers[op->last + 1]))
                op->conv.pool = net->layers[++op->last].pool;
        }
        i = op->last + 1;
        net->op_count++;
    }
}

/* ---- memory for batches ---- */

static int cnn__ready(cnn_net *net);

static size_t cnn__outputs(const cnn_net *net) { return cnn__size(net->layers[net->layer_count - 1].out); }

static void cnn__op_batch(cnn_net *net, cnn__op *op, int batch)
{
    op->conv.allow_tf32 = net->allow_tf32;
    op->conv.batch = op->conv.pool.batch = op->linear.batch = batch;
}

static int cnn__need_work(cnn_net *net, size_t bytes)      /* on failure the old memory stays: the operations count on it */
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

static size_t cnn__op_work(cnn_net *net, const cnn__op *op)
{
    const cnn_backend *b = &net->backend;
    switch (net->layers[op->first].kind) {
    case CNN__CONV2D: return b->conv2d_work(b->context, &op->conv);
    case CNN__LINEAR: return b->linear_work(b->context, &op->linear);
    default:          return 0;
    }
}

static void cnn__free_batch_memory(cnn_net *net)
{
    int i;
    cnn__backend_free(net, &net->x);
    cnn__backend_free(net, &net->dloss);
    cnn__backend_free(net, &net->targets);
    cnn__backend_free(net, &net->labels);
    for (i = 0; i < net->op_count; i++) cnn__backend_free(net, &net->ops[i].output);
    net->capacity = 0;
    net->batch = net->has_loss = 0;                        /* there is no last forward pass any more */
}

static void cnn__free_backward_memory(cnn_net *net)
{
    cnn__backend_free(net, &net->dflow[0]);
    cnn__backend_free(net, &net->dflow[1]);
    net->backward_capacity = 0;
}

static void cnn__free_index_memory(cnn_net *net)
{
    int i;
    for (i = 0; i < net->op_count; i++) cnn__backend_free(net, &net->ops[i].index);
    net->index_capacity = 0;
}

/* Room for a forward pass of `batch` samples; nothing happens while it stays the same. */
static int cnn__reserve(cnn_net *net, int batch)
{
    size_t b = (size_t)batch, size, work = 0;
    int i;
    if (!cnn__ready(net)) return 0;
    if (batch > net->capacity) {
        cnn__free_batch_memory(net);
        net->x = (float *)cnn__backend_alloc(net, cnn__size(net->input) * b, sizeof(float), "the inputs");
        net->dloss = (float *)cnn__backend_alloc(net, cnn__outputs(net) * b, sizeof(float), "the gradients");
        net->targets = (float *)cnn__backend_alloc(net, cnn__outputs(net) * b, sizeof(float), "the targets");
        net->labels = (int *)cnn__backend_alloc(net, b, sizeof(int), "the labels");
        for (i = 0; i < net->op_count && !cnn__stopped(net); i++) {
            cnn__op *op = &net->ops[i];
            op->output =
                (float *)cnn__backend_alloc(net, cnn__size(net->layers[op->last].out) * b, sizeof(float), "the outputs");
        }
        if (!net->scale)
            net->scale = (float *)cnn__backend_alloc(net, (size_t)net->input.channels, sizeof(float), "the inputs");
        if (!net->shift)
            net->shift = (float *)cnn__backend_alloc(net, (size_t)net->input.channels, sizeof(float), "the inputs");
        if (cnn__stopped(net)) return 0;
        net->capacity = batch;
    }
    if (batch != net->work_batch) {         /* a smaller one may need more: how a sum is split depends on it */
        for (i = 0; i < net->op_count; i++) {
            cnn__op *op = &net->ops[i];
            cnn__op_batch(net, op, batch);
            size = cnn__op_work(net, op);
            if (size > work) work = size;
        }
        if (!cnn__need_work(net, work)) return 0;
        net->work_batch = batch;
    }
    if (!net->no_grad && batch > net->index_capacity) {
        cnn__free_index_memory(net);
        for (i = 0; i < net->op_count; i++) {
            cnn__op *op = &net->ops[i];
            if (!op->conv.pool.kernel_height) continue;
            op->index =
                (unsigned char *)cnn__backend_alloc(net, cnn__size(net->layers[op->last].out) * b, 1, "the pooling indices");
            if (!op->index) return 0;
        }
        net->index_capacity = batch;
    }
    return 1;
}

static int cnn__reserve_backward(cnn_net *net)
{
    size_t most = 1;
    int i;
    if (net->batch <= net->backward_capacity) return 1;
    cnn__free_backward_memory(net);
    for (i = 1; i < net->op_count; i++) {
        size_t size = cnn__size(net->layers[net->ops[i].first].in);
        if (size > most) most = size;
    }
    for (i = 0; i < 2; i++) {
        net->dflow[i] = (float *)cnn__backend_alloc(net, most * (size_t)net->batch, sizeof(float), "the gradients");
        if (!net->dflow[i]) return 0;
    }
    net->backward_capacity = net->batch;
    return 1;
}

/* Gives back all that cnn__make_ready and what followed it took. */
static void cnn__release(cnn_net *net)
{
    int i;
    if (net->opened) {
        cnn__free_batch_memory(net);
        cnn__free_backward_memory(net);
        cnn__free_index_memory(net);
        cnn__backend_free(net, &net->work);
        cnn__backend_free(net, &net->scale);
        cnn__backend_free(net, &net->shift);
        cnn__backend_free(net, &net->parameters);
        cnn__backend_free(net, &net->gradients);
        cnn__backend_free(net, &net->moment1);
        cnn__backend_free(net, &net->moment2);
        cnn__backend_free(net, &net->counters);
        cnn__backend_free(net, &net->order);
        for (i = 0; i < net->resident_count; i++) cnn__backend_free(net, &net->resident[i].memory);
        if (net->backend.close) net->backend.close(net->backend.context);
    }
    cnn__free(net->scaled);
    cnn__free(net->resident);
    cnn__free(net->tensors);
    cnn__free(net->ops);
    net->scaled = NULL; net->resident = NULL; net->tensors = NULL; net->ops = NULL;
    net->resident_count = net->tensor_count = net->op_count = net->opened = 0;
    net->order_room = net->order_next = net->work_batch = 0;
    net->parameter_count = 0;
}

static int cnn__make_ready(cnn_net *net)
{
    if (!net->layer_count) return cnn__say(&net->error, "the network has no layers"), 0;
    net->tensors = (cnn__tensor *)cnn__alloc((size_t)net->layer_count * 2, sizeof *net->tensors);
    net->ops = (cnn__op *)cnn__alloc((size_t)net->layer_count, sizeof *net->ops);
    if (!net->tensors || !net->ops) return cnn__say(&net->error, "out of memory for the network's layers"), 0;
    if (!cnn__open_backend(net)) return 0;
    cnn__list_tensors(net);
    cnn__fuse(net);
    return cnn__init_parameters(net);
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
    cnn__free(net);
}

/* ---- forward and backward ---- */

static float *cnn__parameter(cnn_net *net, int layer, const char *suffix, float *block)    /* NULL: a layer without bias */
{
    int i;
    for (i = 0; i < net->tensor_count; i++) {
        const cnn__tensor *t = &net->tensors[i];
        if (t->layer == layer && !strcmp(t->key + strlen(t->key) - strlen(suffix), suffix)) return block + t->offset;
    }
    return NULL;
}

static int cnn__does_nothing(const cnn_net *net, const cnn__layer *l)
{
    return l->kind == CNN__DROPOUT && net->evaluating;
}

/* Runs an operation on backend memory: y = op(x). op->index is filled where gradients will be wanted. */
static void cnn__op_forward(cnn_net *net, cnn__op *op, float *y, const float *x, int batch)
{
    const cnn_backend *b = &net->backend;
    const cnn__layer *l = &net->layers[op->first];
    const float *weight = cnn__parameter(net, op->first, "weight", net->parameters);
    const float *bias = cnn__parameter(net, op->first, "bias", net->parameters);
    size_t n = cnn__size(l->out) * (size_t)batch;
    cnn_pool2d_shape pool = l->pool;
    cnn_map_shape map;
    cnn__op_batch(net, op, batch);
    pool.batch = map.batch = batch;
    map.channels = l->in.channels;
    map.pixels = l->in.height * l->in.width;
    switch (l->kind) {
    case CNN__CONV2D:
        b->conv2d_forward(b->context, &op->conv, y, net->no_grad ? NULL : op->index, x, weight, bias, net->work);
        break;
    case CNN__POOL2D:     b->pool2d_forward(b->context, &pool, y, x); break;
    case CNN__LINEAR:     b->linear_forward(b->context, &op->linear, y, x, weight, bias, net->work); break;
    case CNN__ACTIVATION: b->activation_forward(b->context, l->activation, l->slope, y, x, n); break;
    case CNN__SOFTMAX:    b->softmax_forward(b->context, &map, y, x); break;
    case CNN__DROPOUT:    b->dropout_forward(b->context, net->counters, op->first, l->p, y, x, n); break;
    case CNN__FLATTEN:    break;                           /* is no operation */
    }
}

/* dx = gradient with respect to the input (NULL: not needed); adds to the gradients of its parameters. */
static void cnn__op_backward(cnn_net *net, cnn__op *op, float *dx, const float *dy, const float *y, const float *x, int batch)
{
    const cnn_backend *b = &net->backend;
    const cnn__layer *l = &net->layers[op->first];
    const float *weight = cnn__parameter(net, op->first, "weight", net->parameters);
    float *dweight = cnn__parameter(net, op->first, "weight", net->gradients);
    float *dbias = cnn__parameter(net, op->first, "bias", net->gradients);
    size_t n = cnn__size(l->out) * (size_t)batch;
    cnn_pool2d_shape pool = l->pool;
    cnn_map_shape map;
    cnn__op_batch(net, op, batch);
    pool.batch = map.batch = batch;
    map.channels = l->in.channels;
    map.pixels = l->in.height * l->in.width;
    switch (l->kind) {
    case CNN__CONV2D:
        b->conv2d_backward(b->context, &op->conv, dx, dweight, dbias, dy, y, op->index, x, weight, net->work);
        break;
    case CNN__POOL2D:     b->pool2d_backward(b->context, &pool, dx, dy, x); break;
    case CNN__LINEAR:     b->linear_backward(b->context, &op->linear, dx, dweight, dbias, dy, y, x, weight, net->work); break;
    case CNN__ACTIVATION: b->activation_backward(b->context, l->activation, l->slope, dx, dy, y, n); break;
    case CNN__SOFTMAX:    b->softmax_backward(b->context, &map, dx, dy, y); break;
    case CNN__DROPOUT:    b->dropout_backward(b->context, net->counters, op->first, l->p, dx, dy, n); break;
    case CNN__FLATTEN:    break;
    }
}

static void cnn__run(cnn_net *net, int batch)              /* from net->x through all operations */
{
    const float *x = net->x;
    int i;
    net->batch = batch;
    net->has_loss = 0;
    memset(&net->last, 0, sizeof net->last);
    for (i = 0; i < net->op_count; i++) {
        cnn__op *op = &net->ops[i];
        op->x = x;
        op->y = cnn__does_nothing(net, &net->layers[op->first]) ? (float *)x : op->output;
        if (op->y == op->output) cnn__op_forward(net, op, op->y, x, batch);
        x = op->y;
    }
}

static float *cnn__last_output(cnn_net *net) { return net->op_count ? net->ops[net->op_count - 1].y : net->x; }

/* A host array that does not change, as the backend reads it: in place, or as a copy that is made once. */
static const void *cnn__reside(cnn_net *net, const void *host, uint64_t serial, size_t bytes)
{
    cnn__resident *larger;
    int i;
    if (net->backend.reads_host || !host) return host;
    for (i = 0; i < net->resident_count; i++)
        if (net->resident[i].host == host && net->resident[i].serial == serial) return net->resident[i].memory;
    larger = (cnn__resident *)cnn__alloc((size_t)net->resident_count + 1, sizeof *larger);
    if (!larger) return cnn__say(&net->error, "out of memory for the data set"), (const void *)NULL;
    if (net->resident) memcpy(larger, net->resident, sizeof *larger * net->resident_count);
    cnn__free(net->resident);
    net->resident = larger;
    larger += net->resident_count;
    larger->host = host;
    larger->serial = serial;
    larger->memory = cnn__backend_alloc(net, bytes, 1, "the samples");
    if (!larger->memory) return NULL;
    net->backend.upload(net->backend.context, larger->memory, host, bytes);
    net->resident_count++;
    return larger->memory;
}

/* They are the same for all batches of a data set, so they are sent only where they are not there yet. */
static void cnn__send_scale(cnn_net *net, const cnn_data *data)
{
    size_t channels = (size_t)data->channels, size = sizeof(float) * channels;
    if (net->scaled && !memcmp(net->scaled, data->scale, size) && !memcmp(net->scaled + channels, data->shift, size)) return;
    if (!net->scaled) net->scaled = (float *)cnn__alloc(2 * channels, sizeof(float));
    if (!net->scaled) { cnn__say(&net->error, "out of memory for the inputs' scale"); return; }
    memcpy(net->scaled, data->scale, size);
    memcpy(net->scaled + channels, data->shift, size);
    net->backend.upload(net->backend.context, net->scale, data->scale, size);
    net->backend.upload(net->backend.context, net->shift, data->shift, size);
}

/* The samples of the next batches: one batch's, or a whole epoch's, after which nothing is sent from batch to batch. */
static void cnn__send_order(cnn_net *net, const int *order, int count)
{
    const cnn_backend *b;
    if (!cnn__ready(net)) return;
    b = &net->backend;
    net->has_loss = 0;
    memset(&net->last, 0, sizeof net->last);               /* its order may not be there any more */
    if (count > net->order_room) {
        int room = count > 4096 ? count : 4096;            /* for many single batches before the next one begins at 0 again */
        cnn__backend_free(net, &net->order);
        net->order = (int *)cnn__backend_alloc(net, (size_t)room, sizeof(int), "the samples' numbers");
        net->order_room = net->order_next = net->order ? room : 0;
        if (!net->order) return;
    }
    if (count > net->order_room - net->order_next) {
        uint64_t zero = 0;
        b->upload(b->context, &net->counters->next_offset, &zero, sizeof zero);
        net->order_next = 0;
    }
    b->upload(b->context, net->order + net->order_next, order, sizeof(int) * (size_t)count);
}

static int cnn__usable_batch(cnn_net *net, const cnn_batch *batch)
{
    const cnn_data *data = batch ? batch->data : NULL;
    if (cnn__stopped(net)) return 0;
    if (data && data->error) return cnn__take_over(&net->error, data->error), 0;
    if (!data || !batch->order || batch->size < 1)
        return cnn__say(&net->error,
                        "cnn_forward: the batch is empty; take it from cnn_next, and use it only if that returned 1"),
               0;
    if (data->channels != net->input.channels || data->height != net->input.height || data->width != net->input.width)
        return cnn__say(&net->error, "cnn_forward: the samples of %s are %d x %d x %d, but the network's input is %d x %d x %d",
                        data->name, data->channels, data->height, data->width, net->input.channels, net->input.height,
                        net->input.width),
               0;
    return 1;
}

/* order_sent: the batch is the next one of the order that was sent last */
static void cnn__forward(cnn_net *net, const cnn_batch *batch, int order_sent)
{
    const cnn_backend *b;
    const cnn_data *data;
    cnn_map_shape map;
    size_t values;
    const unsigned char *bytes;
    const float *floats;
    if (!cnn__usable_batch(net, batch) || !cnn__reserve(net, batch->size)) return;
    b = &net->backend;
    data = batch->data;
    map.batch = batch->size; map.channels = data->channels; map.pixels = data->height * data->width;
    values = cnn__data_count(data) * (size_t)data->channels * (size_t)map.pixels;
    bytes = (const unsigned char *)cnn__reside(net, data->bytes, cnn__data_serial(data), values);
    floats = (const float *)cnn__reside(net, data->floats, cnn__data_serial(data), values * sizeof(float));
    if (!cnn__stopped(net)) cnn__send_scale(net, data);
    if (!cnn__stopped(net) && !order_sent) cnn__send_order(net, batch->order, batch->size);
    if (cnn__stopped(net)) return;
    if (b->step_begin) b->step_begin(b->context);
    b->next_batch(b->context, net->counters, batch->size, !net->evaluating);
    net->order_next += batch->size;
    b->gather(b->context, net->counters, &map, net->x, bytes, floats, net->order, net->scale, net->shift);
    cnn__run(net, batch->size);
    net->last = *batch;
}

void cnn_forward(cnn_net *net, const cnn_batch *batch) { cnn__forward(net, batch, 0); }

static int cnn__usable_loss(cnn_net *net, const char *call, const cnn_batch *batch)
{
    if (cnn__stopped(net)) return 0;
    if (!batch || !net->batch || net->last.data != batch->data || net->last.order != batch->order
        || net->last.size != batch->size || !batch->data)
        return cnn__say(&net->error, "%s: call cnn_forward with the same batch first", call), 0;
    return 1;
}

static const int *cnn__batch_labels(cnn_net *net, const cnn_batch *batch)
{
    const cnn_data *data = batch->data;
    const void *labels = cnn__reside(net, data->labels, cnn__data_serial(data), cnn__data_count(data) * sizeof(int));
    if (!labels) return NULL;
    net->backend.gather_rows(net->backend.context, net->counters, net->labels, labels, net->order, batch->size, 1);
    return net->labels;
}

void cnn_cross_entropy(cnn_net *net, const cnn_batch *batch)
{
    const int *labels;
    int outputs;
    if (!cnn__usable_loss(net, "cnn_cross_entropy", batch)) return;
    outputs = (int)cnn__outputs(net);
    if (!batch->data->labels) {
        cnn__say(&net->error, "cnn_cross_entropy: %s has no labels; use cnn_mse_loss for targets", batch->data->name);
        return;
    }
    if (batch->data->classes > outputs) {
        cnn__say(&net->error, "cnn_cross_entropy: %s has %d classes, but the network has only %d outputs", batch->data->name,
                 batch->data->classes, outputs);
        return;
    }
    labels = cnn__batch_labels(net, batch);
    if (cnn__stopped(net)) return;
    net->backend.softmax_cross_entropy(net->backend.context, net->counters, net->no_grad ? NULL : net->dloss,
                                       cnn__last_output(net), labels, batch->size, outputs);
    net->has_loss = 1;
}

void cnn_mse_loss(cnn_net *net, const cnn_batch *batch)
{
    const cnn_data *data;
    const int *labels;
    const float *targets = NULL;
    int outputs;
    if (!cnn__usable_loss(net, "cnn_mse_loss", batch)) return;
    data = batch->data;
    outputs = (int)cnn__outputs(net);
    if (data->targets && data->outputs != outputs) {
        cnn__say(&net->error, "cnn_mse_loss: a target of %s has %d values, but the network has %d outputs; give it as many",
                 data->name, data->outputs, outputs);
        return;
    }
    if (!data->targets && (!data->labels || data->classes > outputs)) {
        cnn__say(&net->error, "cnn_mse_loss: %s has %d classes, but the network has only %d outputs", data->name, data->classes,
                 outputs);
        return;
    }
    labels = cnn__batch_labels(net, batch);
    if (data->targets) {
        targets = (const float *)cnn__reside(net, data->targets, cnn__data_serial(data),
                                             cnn__data_count(data) * (size_t)outputs * sizeof(float));
        if (cnn__stopped(net)) return;
        net->backend.gather_rows(net->backend.context, net->counters, net->targets, targets, net->order, batch->size,
                                 outputs);
        targets = net->targets;
    }
    if (cnn__stopped(net)) return;
    net->backend.mse(net->backend.context, net->counters, net->no_grad ? NULL : net->dloss, cnn__last_output(net), targets,
                     labels, batch->size, outputs);
    net->has_loss = 1;
}

void cnn_zero_grad(cnn_net *net)
{
    if (!cnn__ready(net)) return;
    net->backend.zero(net->backend.context, net->gradients, sizeof(float) * net->parameter_count);
}

void cnn_backward(cnn_net *net)
{
    const float *dy;
    int i, first = 0;
    if (cnn__stopped(net)) return;
    if (!net->has_loss || net->no_grad) {
        cnn__say(&net->error, "cnn_backward: there is no loss to go back from; call cnn_forward, then cnn_cross_entropy or "
                              "cnn_mse_loss, then cnn_backward");
        return;
    }
    if (!cnn__reserve_backward(net)) return;
    while (first < net->op_count && !cnn__parameter(net, net->ops[first].first, "weight", net->parameters)) first++;
    dy = net->dloss;
    for (i = net->op_count - 1; i >= first; i--) {         /* nobody needs gradients before the first parameters */
        cnn__op *op = &net->ops[i];
        float *dx = i == first ? NULL : net->dflow[dy == net->dflow[0]];
        if (op->y != op->output) continue;                 /* did nothing: dx = dy */
        cnn__op_backward(net, op, dx, dy, op->y, op->x, net->batch);
        dy = dx;
    }
    net->has_loss = 0;
}

/* What layer i put out in the last forward pass. Inside a fused operation it is computed again, layer by layer, and goes to
   *own, which the caller frees; elsewhere it is the operation's output. NULL and an error without memory. */
static const float *cnn__activation_of(cnn_net *net, int i, float **own)
{
    int k, layer;
    const float *x = net->x;
    *own = NULL;
    for (k = 0; k < net->op_count && net->ops[k].last <= i; k++) x = net->ops[k].y;
    if (k == net->op_count || net->ops[k].first > i) return x;             /* the end of an operation, or a flatten after it */
    for (layer = net->ops[k].first; layer <= i; layer++) {
        cnn__op one;
        const cnn__layer *l = &net->layers[layer];
        float *y = (float *)cnn__backend_alloc(net, cnn__size(l->out) * (size_t)net->batch, sizeof(float), "the activations");
        if (!y) break;
        memset(&one, 0, sizeof one);
        one.first = one.last = layer;
        one.conv = l->conv;
        one.linear = l->linear;
        cnn__op_batch(net, &one, net->batch);
        if (!cnn__need_work(net, cnn__op_work(net, &one))) {
            cnn__backend_free(net, &y);
            break;
        }
        cnn__op_forward(net, &one, y, *own ? *own : x, net->batch);
        cnn__backend_free(net, own);
        *own = y;
    }
    if (layer <= i) cnn__backend_free(net, own);
    return *own;
}

static float *cnn__download(cnn_net *net, const float *from, size_t count)  /* a host copy, freed by cnn__free */
{
    float *copy = (float *)cnn__alloc(count, sizeof *copy);
    if (copy) net->backend.download(net->backend.context, copy, from, sizeof *copy * count);
    else cnn__say(&net->error, "out of memory");
    return copy;
}

/* ---- optimizers and schedules ---- */

static void cnn__set_optimizer(cnn_net *net, cnn__optimizer optimizer, float lr, float weight_decay)
{
    if (cnn__stopped(net)) return;
    if (!(lr > 0) || !(weight_decay >= 0)) {
        cnn__say(&net->error, "the optimizer needs a learning rate above 0 and a weight decay of at least 0, not %g and %g", lr,
                 weight_decay);
        return;
    }
    net->optimizer = optimizer;
    net->base_lr = lr;
    if (net->opened) {
        cnn__backend_free(net, &net->moment1);
        cnn__backend_free(net, &net->moment2);
    }
    cnn_set_lr(net, lr);
}

static float cnn__or(float value, float otherwise) { return value != 0 ? value : otherwise; }

void cnn_sgd_with(cnn_net *net, cnn_sgd_options o)
{
    o.lr = cnn__or(o.lr, 1e-3f);
    if (!cnn__stopped(net)) {
        if (!(o.momentum >= 0) || (o.nesterov && o.momentum == 0)) {
            cnn__say(&net->error, "cnn_sgd: momentum must be at least 0, and above 0 for Nesterov's, but is %g", o.momentum);
            return;
        }
        net->sgd = o;
    }
    cnn__set_optimizer(net, CNN__SGD, o.lr, o.weight_decay);
}

static void cnn__set_adam(cnn_net *net, cnn__optimizer optimizer, cnn_adam_options o)
{
    o.lr = cnn__or(o.lr, 1e-3f);
    o.beta1 = cnn__or(o.beta1, 0.9f);
    o.beta2 = cnn__or(o.beta2, 0.999f);
    o.eps = cnn__or(o.eps, 1e-8f);
    if (cnn__stopped(net)) return;
    if (!(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1 && o.eps > 0)) {
        cnn__say(&net->error, "%s: beta1 and beta2 must be in [0, 1) and eps above 0, but are %g, %g and %g",
                 optimizer == CNN__ADAMW ? "cnn_adamw" : "cnn_adam", o.beta1, o.beta2, o.eps);
        return;
    }
    net->adam = o;
    cnn__set_optimizer(net, optimizer, o.lr, o.weight_decay);
}

void cnn_adam_with(cnn_net *net, cnn_adam_options o) { cnn__set_adam(net, CNN__ADAM, o); }

void cnn_adamw_with(cnn_net *net, cnn_adam_options o)
{
    o.weight_decay = cnn__or(o.weight_decay, 0.01f);
    cnn__set_adam(net, CNN__ADAMW, o);
}

void cnn_set_lr(cnn_net *net, float lr)
{
    if (cnn__stopped(net)) return;
    if (!(lr >= 0)) { cnn__say(&net->error, "cnn_set_lr: the learning rate must be at least 0, not %g", lr); return; }
    if (net->ready) {                       /* the rate alone: to read the counters would be to wait for the step */
        double rate = lr;
        net->backend.upload(net->backend.context, &net->counters->lr, &rate, sizeof rate);
    } else
        net->base_lr = lr;
}

float cnn_lr(const cnn_net *net)
{
    if (cnn__stopped(net)) return 0;
    return net->ready ? (float)cnn__read_counters((cnn_net *)net).lr : net->base_lr;
}

static double cnn__cosine(double from, double to, double share)            /* half a cosine wave */
{
    return to + (from - to) * (1 + cos(3.14159265358979323846 * share)) / 2;
}

static double cnn__scheduled_lr(const cnn_net *net, long t)
{
    double lr = net->base_lr;
    if (net->schedule == CNN__STEP_LR) return lr * pow(net->step_lr.gamma, (double)(t / net->step_lr.step_size));
    if (net->schedule == CNN__COSINE_LR) return cnn__cosine(lr, net->cosine_lr.eta_min, (double)t / net->cosine_lr.t_max);
    if (net->schedule == CNN__ONE_CYCLE_LR) {
        const cnn_one_cycle_lr_options *o = &net->one_cycle_lr;
        double start = o->max_lr / o->div_factor, end = start / o->final_div_factor;
        double top = o->pct_start * o->total_steps - 1, last = o->total_steps - 1.0;
        if (t >= last) return end;
        return t <= top && top > 0 ? cnn__cosine(start, o->max_lr, t / top)
                                   : cnn__cosine(o->max_lr, end, (t - top) / (last - top));
    }
    return lr;
}

static void cnn__set_schedule(cnn_net *net, cnn__schedule schedule)
{
    net->schedule = schedule;
    net->schedule_steps = 0;
    cnn_set_lr(net, (float)cnn__scheduled_lr(net, 0));
}

/* cnn_set_lr before `ready` sets base_lr itself, from which a schedule is computed: so a network gets ready first */
static int cnn__schedulable(cnn_net *net, int possible, const char *sentence)
{
    if (cnn__stopped(net)) return 0;
    if (!net->optimizer || !possible)
        return cnn__say(&net->error, "%s",
                        net->optimizer ? sentence : "a schedule needs an optimizer; call cnn_adam or cnn_sgd before it"),
               0;
    return cnn__ready(net);
}

void cnn_step_lr_with(cnn_net *net, cnn_step_lr_options o)
{
    o.gamma = cnn__or(o.gamma, 0.1f);
    if (!cnn__schedulable(net, o.step_size > 0, "cnn_step_lr: needs .step_size of at least 1")) return;
    net->step_lr = o;
    cnn__set_schedule(net, CNN__STEP_LR);
}

void cnn_cosine_lr_with(cnn_net *net, cnn_cosine_lr_options o)
{
    if (!cnn__schedulable(net, o.t_max > 0 && o.eta_min >= 0,
                          "cnn_cosine_lr: needs .t_max of at least 1 and .eta_min of at least 0"))
        return;
    net->cosine_lr = o;
    cnn__set_schedule(net, CNN__COSINE_LR);
}

void cnn_one_cycle_lr_with(cnn_net *net, cnn_one_cycle_lr_options o)
{
    o.pct_start = cnn__or(o.pct_start, 0.3f);
    o.div_factor = cnn__or(o.div_factor, 25);
    o.final_div_factor = cnn__or(o.final_div_factor, 1e4f);
    if (!cnn__schedulable(net,
                          o.max_lr > 0 && o.total_steps > 1 && o.pct_start > 0 && o.pct_start < 1 && o.div_factor > 0
                              && o.final_div_factor > 0,
                          "cnn_one_cycle_lr: needs .max_lr above 0, .total_steps of at least 2 and .pct_start between 0 and 1"))
        return;
    net->one_cycle_lr = o;
    cnn__set_schedule(net, CNN__ONE_CYCLE_LR);
}

void cnn_scheduler_step(cnn_net *net)
{
    if (cnn__stopped(net)) return;
    if (!net->schedule) {
        cnn__say(&net->error,
                 "cnn_scheduler_step: the network has no schedule; call cnn_step_lr, cnn_cosine_lr or cnn_one_cycle_lr");
        return;
    }
    cnn_set_lr(net, (float)cnn__scheduled_lr(net, ++net->schedule_steps));
}

static void cnn__clip(cnn_net *net, float max_norm)        /* without reading the norm, for which one would have to wait */
{
    if (!cnn__ready(net)) return;
    if (!(max_norm > 0)) { cnn__say(&net->error, "cnn_clip_grad_norm: max_norm must be above 0, not %g", max_norm); return; }
    net->backend.clip_grad_norm(net->backend.context, net->counters, net->gradients, net->parameter_count, max_norm);
}

float cnn_clip_grad_norm(cnn_net *net, float max_norm)
{
    cnn__clip(net, max_norm);
    return cnn__stopped(net) ? 0 : (float)cnn__read_counters(net).grad_norm;
}

static int cnn__need_moment(cnn_net *net, float **moment)
{
    if (*moment) return 1;
    *moment = (float *)cnn__backend_alloc(net, net->parameter_count, sizeof(float), "the optimizer's moments");
    if (*moment) net->backend.zero(net->backend.context, *moment, sizeof(float) * net->parameter_count);
    return *moment != NULL;
}

void cnn_step(cnn_net *net)
{
    const cnn_backend *b;
    if (!cnn__ready(net)) return;
    b = &net->backend;
    switch (net->optimizer) {
    case CNN__NO_OPTIMIZER:
        cnn__say(&net->error, "cnn_step: the network has no optimizer; call cnn_adam, cnn_adamw or cnn_sgd");
        break;
    case CNN__SGD:
        if (net->sgd.momentum > 0 && !cnn__need_moment(net, &net->moment1)) return;
        b->sgd_step(b->context, net->counters, &net->sgd, net->parameters, net->moment1, net->gradients, net->parameter_count);
        break;
    default:
        if (!cnn__need_moment(net, &net->moment1) || !cnn__need_moment(net, &net->moment2)) return;
        b->adam_step(b->context, net->counters, &net->adam, net->optimizer == CNN__ADAMW, net->parameters, net->moment1,
                     net->moment2, net->gradients, net->parameter_count);
    }
    if (b->step_end) b->step_end(b->context);
}

void cnn_train(cnn_net *net) { if (net) net->evaluating = 0; }
void cnn_eval(cnn_net *net) { if (net) net->evaluating = 1; }

float cnn_loss(cnn_net *net)
{
    if (cnn__stopped(net) || !net->ready || !cnn__sync(net)) return 0;
    return (float)cnn__read_counters(net).loss;
}

int cnn_correct(cnn_net *net)
{
    if (cnn__stopped(net) || !net->ready || !cnn__sync(net)) return 0;
    return cnn__read_counters(net).correct;
}

/* ---- training, all at once ---- */

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

static cnn_score cnn__read_score(cnn_net *net)
{
    cnn_score score = { 0, 0, 0 };
    cnn_counters c;
    if (cnn__stopped(net) || !cnn__sync(net)) return score;
    c = cnn__read_counters(net);
    score.count = c.seen;
    if (c.seen) {
        score.loss = c.loss_sum / c.seen;
        score.accuracy = (double)c.correct_sum / c.seen;
    }
    return score;
}

static void cnn__reset_score(cnn_net *net)
{
    cnn_counters c;
    if (!cnn__ready(net)) return;
    c = cnn__read_counters(net);
    c.loss_sum = 0;
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
    return cnn__say(&net->error, "%s: loss %d is neither CNN_CROSS_ENTROPY nor CNN_MSE", call, (int)loss), 0;
}

/* All of data in order, without dropout or gradients; each batch goes to `look`. */
static void cnn__each_batch(cnn_net *net, const char *call, const cnn_data *data, int batch_size,
                            void (*look)(cnn_net *, const cnn_batch *, void *), void *user)
{
    int evaluating, no_grad;
    cnn_loader_options o;
    cnn_loader *loader;
    cnn_batch batch;
    if (cnn__stopped(net)) return;
    memset(&o, 0, sizeof o);
    o.batch_size = batch_size ? batch_size : 256;
    loader = cnn__deal(call, data, o);
    cnn__take_over(&net->error, cnn_loader_error(loader));
    evaluating = net->evaluating;
    no_grad = net->no_grad;
    net->evaluating = net->no_grad = 1;
    while (!cnn__stopped(net) && cnn__forward_next(net, loader, &batch)) {
        if (!cnn__stopped(net)) look(net, &batch, user);
        if (net->backend.step_end) net->backend.step_end(net->backend.context);
    }
    net->evaluating = evaluating;
    net->no_grad = no_grad;
    net->has_loss = 0;
    memset(&net->last, 0, sizeof net->last);               /* its batches are not for training */
    cnn_loader_free(loader);
}

static void cnn__take_batch_loss(cnn_net *net, const cnn_batch *batch, void *loss)
{
    cnn__take_loss(net, batch, *(cnn_loss_kind *)loss);
}

cnn_score cnn_evaluate(cnn_net *net, const cnn_data *data, int batch_size, cnn_loss_kind loss)
{
    if (cnn__usable_loss_kind(net, "cnn_evaluate", loss)) {
        cnn__reset_score(net);
        cnn__each_batch(net, "cnn_evaluate", data, batch_size, cnn__take_batch_loss, &loss);
    }
    return cnn__read_score(net);
}

typedef struct cnn__classified { int *classes; float *probability; int done; } cnn__classified;

static void cnn__classify_batch(cnn_net *net, const cnn_batch *batch, void *user)
{
    cnn__classified *to = (cnn__classified *)user;
    int n, outputs = (int)cnn__outputs(net);
    float *y = (float *)cnn__alloc((size_t)batch->size * outputs, sizeof *y);
    if (!y) { cnn__say(&net->error, "cnn_classify: out of memory"); return; }
    net->backend.download(net->backend.context, y, cnn__last_output(net), sizeof *y * batch->size * outputs);
    for (n = 0; n < batch->size; n++, to->done++) {
        int best = cnn__argmax(y + (size_t)n * outputs, outputs);
        cnn_map_shape one = { 1, 0, 1 };
        one.channels = outputs;
        to->classes[to->done] = best;
        if (to->probability) to->probability[to->done] = (float)cnn__softmax_at(&one, y + (size_t)n * outputs, 0, best, 0);
    }
    cnn__free(y);
}

int cnn_classify(cnn_net *net, int *classes, float *probability, const cnn_data *data, int batch_size)
{
    cnn__classified to = { NULL, NULL, 0 };
    to.classes = classes;
    to.probability = probability;
    cnn__each_batch(net, "cnn_classify", data, batch_size, cnn__classify_batch, &to);
    return !cnn__stopped(net);
}

int cnn_predict(cnn_net *net, float *y, const float *x, int count)
{
    int evaluating, no_grad, done, most = 256;
    if (cnn__stopped(net)) return 0;
    if (!x || !y || count < 1)
        return cnn__say(&net->error, "cnn_predict: needs arrays x and y and a count of at least 1, not %d", count), 0;
    evaluating = net->evaluating;
    no_grad = net->no_grad;
    net->evaluating = net->no_grad = 1;
    for (done = 0; done < count && cnn__reserve(net, count - done < most ? count - done : most); done += most) {
        int size = count - done < most ? count - done : most;
        size_t in = cnn__size(net->input), out = cnn__outputs(net);
        net->backend.upload(net->backend.context, net->x, x + in * done, sizeof *x * in * size);
        cnn__run(net, size);
        net->backend.download(net->backend.context, y + out * done, cnn__last_output(net), sizeof *y * out * size);
    }
    net->evaluating = evaluating;
    net->no_grad = no_grad;
    return !cnn__stopped(net) && cnn__sync(net);
}

static int cnn__remember_epoch(cnn_net *net, const cnn_epoch *epoch)
{
    if (net->history_count == net->history_room) {
        int room = net->history_room ? 2 * net->history_room : 32;
        cnn_epoch *larger = (cnn_epoch *)cnn__alloc((size_t)room, sizeof *larger);
        if (!larger) return cnn__say(&net->error, "cnn_fit: out of memory for the history"), 0;
        if (net->history) memcpy(larger, net->history, sizeof *larger * net->history_count);
        cnn__free(net->history);
        net->history = larger;
        net->history_room = room;
    }
    net->history[net->history_count++] = *epoch;
    return 1;
}

const cnn_epoch *cnn_history(const cnn_net *net, int *count)
{
    *count = net ? net->history_count : 0;
    return net ? net->history : NULL;
}

typedef struct cnn__progress { double begun, shown; int quarter; } cnn__progress;

static void cnn__show_progress(cnn_net *net, const cnn_fit_options *o, cnn__progress *p, int epoch, int done, int all,
                               int batch_size)
{
    double now = cnn__seconds(), share = (double)done / all, spent = now - p->begun, left = spent / done * (all - done);
    cnn_score score;
    char bar[25];
    int i;
    if (o->progress_bar ? now - p->shown < 0.1 && done < all : (int)(4 * share) == p->quarter) return;
    p->shown = now;
    p->quarter = (int)(4 * share);
    score = cnn__read_score(net);
    for (i = 0; i < 24; i++) bar[i] = i < (int)(24 * share) ? '=' : i == (int)(24 * share) ? '>' : ' ';
    bar[24] = 0;
    fprintf(o->progress, "%sepoch %d/%d %s%s%s %3.0f%% %.0f samples/s %d:%02d left loss %.4f acc %.2f%%%s",
            o->progress_bar ? "\r" : "", epoch, o->epochs, o->progress_bar ? "[" : "", o->progress_bar ? bar : "",
            o->progress_bar ? "]" : "", 100 * share, spent > 0 ? (double)done * batch_size / spent : 0.0, (int)left / 60,
            (int)left % 60, score.loss, 100 * score.accuracy, o->progress_bar ? " \033[K" : "\n");
    if (o->progress_bar && done == all) fprintf(o->progress, "\r\033[K");    /* the epoch's line takes its place */
    fflush(o->progress);
}

static void cnn__log_epoch(FILE *log, const cnn_epoch *e, int epochs, int tested)
{
    fprintf(log, "epoch %d/%d train_loss %.4f train_acc %.2f%%", e->epoch, epochs, e->train.loss, 100 * e->train.accuracy);
    if (tested) fprintf(log, " test_loss %.4f test_acc %.2f%%", e->test.loss, 100 * e->test.accuracy);
    fprintf(log, " seconds %.1f\n", e->seconds);
    fflush(log);
}

/* ---- the training doctor: what a lecturer would say on looking over a student's shoulder ---- */

enum {
    CNN__SAID_SOFTMAX = 1,
    CNN__SAID_UNSCALED = 2,
    CNN__SAID_NAN = 4,
    CNN__SAID_STUCK = 8,
    CNN__SAID_DEAD = 16,
    CNN__SAID_RATE = 32,
    CNN__SAID_OVERFIT = 64,
    CNN__SAID_CLASSES = 128
};

typedef struct cnn__doctor { FILE *out; int said; double best_loss; } cnn__doctor;

static void cnn__advise(cnn__doctor *d, int what, const char *format, ...) CNN__PRINTF(3, 4);
static void cnn__advise(cnn__doctor *d, int what, const char *format, ...)
{
    va_list arguments;
    if (d->said & what) return;                            /* once is enough */
    d->said |= what;
    fprintf(d->out, "doctor: ");
    va_start(arguments, format);
    vfprintf(d->out, format, arguments);
    va_end(arguments);
    fprintf(d->out, "\n");
    fflush(d->out);
}

static void cnn__doctor_before(cnn__doctor *d, const cnn_net *net, const cnn_data *train, cnn_loss_kind loss)
{
    int outputs = (int)cnn__outputs(net);
    if (loss == CNN_CROSS_ENTROPY && net->layers[net->layer_count - 1].kind == CNN__SOFTMAX)
        cnn__advise(d, CNN__SAID_SOFTMAX,
                    "the network ends with softmax, and the cross-entropy takes softmax once more; gradients become small. "
                    "Leave the last cnn_softmax out.");
    if (train->labels && train->classes < outputs)
        cnn__advise(d, CNN__SAID_CLASSES,
                    "the network has %d outputs, but the labels go only from 0 to %d; give the last layer .out_features = %d.",
                    outputs, train->classes - 1, train->classes);
}

static void cnn__doctor_first_batch(cnn__doctor *d, cnn_net *net)
{
    size_t i, n = cnn__size(net->input) * (size_t)net->batch;
    float *x = cnn__download(net, net->x, n), most = 0;
    for (i = 0; x && i < n; i++) if (fabsf(x[i]) > most) most = fabsf(x[i]);
    if (most > 20)
        cnn__advise(d, CNN__SAID_UNSCALED,
                    "the inputs reach %g; networks learn from values around 0 to 1. Give bytes as .bytes, which are divided by "
                    "255, or call cnn_normalize.",
                    most);
    cnn__free(x);
}

static void cnn__doctor_loss(cnn__doctor *d, const cnn_net *net, double loss)
{
    if (!(loss - loss == 0))
        cnn__advise(d, CNN__SAID_NAN,
                    "the loss is %g: the numbers have overflowed. Try a learning rate ten times smaller than %g, "
                    "clip_grad_norm = 1, and look for NaN in the inputs.",
                    loss, net->base_lr);
}

/* A layer of ReLUs that gave nothing but zeros for the whole last batch learns no more. */
static void cnn__doctor_dead(cnn__doctor *d, cnn_net *net)
{
    int i;
    for (i = 0; i < net->layer_count && !cnn__stopped(net); i++) {
        size_t k = 0, n = cnn__size(net->layers[i].out) * (size_t)net->batch;
        float *own, *y;
        const float *from;
        if (net->layers[i].activation != CNN_RELU) continue;
        from = cnn__activation_of(net, i, &own);
        y = from ? cnn__download(net, from, n) : NULL;
        while (y && k < n && y[k] <= 0) k++;
        if (y && k == n)
            cnn__advise(d, CNN__SAID_DEAD,
                        "all ReLUs of layer %d (\"%s\") are dead: they give 0 for every sample, and no gradient comes through. "
                        "Use a smaller learning rate, Kaiming initialisation, or leaky_relu.",
                        i + 1, net->layers[i].name);
        cnn__free(y);
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
            cnn__advise(d, CNN__SAID_STUCK,
                        "after epoch %d the loss is still near ln(%d) = %.3f, which is guessing. Look at the labels and at the "
                        "inputs' scale, "
                        "and try another learning rate than %g.",
                        e->epoch, classes, chance, net->base_lr);
        if (e->train.loss > 1.5 * chance)
            cnn__advise(d, CNN__SAID_RATE,
                        "the loss of epoch %d, %.3g, is worse than guessing (%.3g): the learning rate %g is likely too high. "
                        "Try a tenth of it.",
                        e->epoch, e->train.loss, chance, e->lr);
    }
    if (d->best_loss > 0 && e->train.loss > 1.5 * d->best_loss && e->train.loss - d->best_loss > 0.1)
        cnn__advise(d, CNN__SAID_RATE,
                    "the training loss rose from %.3g to %.3g: the learning rate %g is likely too high. Try a tenth of it, or "
                    "a schedule.",
                    d->best_loss, e->train.loss, e->lr);
    if (!(d->best_loss > 0) || e->train.loss < d->best_loss) d->best_loss = e->train.loss;
    if (e->test.count && e->train.accuracy - e->test.accuracy > 0.1)
        cnn__advise(d, CNN__SAID_OVERFIT,
                    "after epoch %d the network knows the training samples (%.1f %%) far better than new ones (%.1f %%): it "
                    "overfits. Use dropout, weight decay, "
                    "more data, or fewer epochs.",
                    e->epoch, 100 * e->train.accuracy, 100 * e->test.accuracy);
}

static void cnn__train_epoch(cnn_net *net, cnn_loader *loader, const cnn_fit_options *o, int epoch, cnn__doctor *doctor)
{
    cnn__progress progress = { 0, 0, 0 };
    cnn_batch batch;
    int done = 0, all = cnn_batches(loader);
    progress.begun = progress.shown = cnn__seconds();
    cnn__reset_score(net);
    cnn_train(net);
    while (!cnn__stopped(net) && cnn__forward_next(net, loader, &batch)) {
        cnn__take_loss(net, &batch, o->loss);
        cnn_zero_grad(net);
        cnn_backward(net);
        if (o->clip_grad_norm > 0) cnn__clip(net, o->clip_grad_norm);
        cnn_step(net);                      /* the doctor looks after it, and seldom: who looks, waits */
        if (doctor->out && epoch == 1 && !done && !cnn__stopped(net)) cnn__doctor_first_batch(doctor, net);
        if (doctor->out && done % 50 == 0 && !cnn__stopped(net)) cnn__doctor_loss(doctor, net, cnn_loss(net));
        if (net->schedule == CNN__ONE_CYCLE_LR) cnn_scheduler_step(net);
        done++;
        if (o->progress && !cnn__stopped(net)) cnn__show_progress(net, o, &progress, epoch, done, all, o->batch_size);
    }
    if (doctor->out && !cnn__stopped(net)) cnn__doctor_dead(doctor, net);
}

int cnn_fit_with(cnn_net *net, const cnn_data *train, const cnn_data *test, cnn_fit_options o)
{
    cnn_loader *loader;
    cnn_loader_options lo;
    cnn__doctor doctor = { NULL, 0, 0 };
    if (!cnn__ready(net) || !cnn__usable_loss_kind(net, "cnn_fit", o.loss)) return 0;
    if (!o.epochs) o.epochs = 1;
    if (!o.batch_size) o.batch_size = 128;
    if (o.epochs < 0) return cnn__say(&net->error, "cnn_fit: epochs must be at least 1, not %d", o.epochs), 0;
    if (o.test_batch_size < 0)
        return cnn__say(&net->error, "cnn_fit: test_batch_size must be at least 1, not %d", o.test_batch_size), 0;
    if (!net->optimizer)
        return cnn__say(&net->error, "cnn_fit: the network has no optimizer; call cnn_adam, cnn_adamw or cnn_sgd"), 0;
    if (test && test->error) return cnn__take_over(&net->error, test->error), 0;
    memset(&lo, 0, sizeof lo);
    lo.batch_size = o.batch_size;
    lo.shuffle = !o.keep_order;
    lo.drop_last = !o.keep_last;
    lo.seed = net->seed;
    loader = cnn__deal("cnn_fit", train, lo);
    cnn__take_over(&net->error, cnn_loader_error(loader));
    doctor.out = o.doctor;
    if (doctor.out && !cnn__stopped(net)) cnn__doctor_before(&doctor, net, train, o.loss);
    while (!cnn__stopped(net) && net->history_count < o.epochs) {
        cnn_epoch e;
        double begun = cnn__seconds();
        memset(&e, 0, sizeof e);
        e.epoch = net->history_count + 1;
        e.lr = cnn_lr(net);
        cnn_set_epoch(loader, e.epoch - 1);
        cnn__train_epoch(net, loader, &o, e.epoch, &doctor);
        e.train = cnn__read_score(net);
        e.seconds = cnn__seconds() - begun;
        if (test) e.test = cnn_evaluate(net, test, o.test_batch_size, o.loss);
        if (cnn__stopped(net)) break;
        if (net->schedule == CNN__STEP_LR || net->schedule == CNN__COSINE_LR) cnn_scheduler_step(net);
        if (!cnn__remember_epoch(net, &e)) break;
        if (o.log) cnn__log_epoch(o.log, &e, o.epochs, test != NULL);
        if (doctor.out) cnn__doctor_epoch(&doctor, net, &e, train->classes, o.loss, cnn_batches(loader));
        if (o.each_epoch) o.each_epoch(net, &e, o.user);
    }
    cnn_loader_free(loader);
    return !cnn__stopped(net);
}

/* ---- every number by name ---- */

static int cnn__find_layer(const cnn_net *net, const char *name)           /* -1: none */
{
    int i;
    for (i = 0; name && i < net->layer_count; i++) if (!strcmp(net->layers[i].name, name)) return i;
    return -1;
}

static const cnn__tensor *cnn__find_tensor(const cnn_net *net, const char *key, int *gradient)
{
    size_t length = key ? strlen(key) : 0;
    int i;
    *gradient = length > 5 && !strcmp(key + length - 5, ".grad");
    if (*gradient) length -= 5;
    for (i = 0; i < net->tensor_count; i++)
        if (strlen(net->tensors[i].key) == length && !strncmp(net->tensors[i].key, key, length)) return &net->tensors[i];
    return NULL;
}

/* what: "layer", "parameter", or more of them; lists those that there are */
static void cnn__no_such_key(cnn_net *net, const char *call, const char *what, const char *key)
{
    int layers = !net->tensor_count || !strcmp(what, "layer"), all = layers ? net->layer_count : net->tensor_count, i;
    cnn__text known = { "" };
    for (i = 0; i < all && strlen(known.s) < 200; i++)
        snprintf(known.s + strlen(known.s), sizeof known.s - strlen(known.s), "%s%.100s", i ? ", " : "",
                 layers ? net->layers[i].name : net->tensors[i].key);
    cnn__say(&net->error, "%s: there is no %s \"%.80s\"; %sthe %s are %.260s%s", call, what, key ? key : "",
             net->tensor_count ? "" : "the network has no parameters, and ", layers ? "layers" : "parameters", known.s,
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
    if (!t && !net->batch) {
        cnn__say(&net->error, "cnn_get: layer \"%.80s\" has no output yet; call cnn_forward first", key);
        return 0;
    }
    count = t ? t->count : cnn__size(net->layers[layer].out) * (size_t)net->batch;
    if (!values) return count;
    if (room < count) {
        cnn__say(&net->error, "cnn_get: \"%.80s\" has %.0f values, but there is room for %.0f", key, (double)count,
                 (double)room);
        return 0;
    }
    from = t ? (gradient ? net->gradients : net->parameters) + t->offset : cnn__activation_of(net, layer, &own);
    if (from && cnn__sync(net)) net->backend.download(net->backend.context, values, from, sizeof *values * count);
    else count = 0;
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
        return cnn__say(&net->error, "cnn_set: \"%.80s\" is a gradient, which comes from cnn_backward; set \"%.80s\" itself",
                        key, t->key),
               0;
    if (count != t->count)
        return cnn__say(&net->error, "cnn_set: \"%.80s\" has %.0f values, but %.0f were given", key, (double)t->count,
                        (double)count),
               0;
    net->backend.upload(net->backend.context, net->parameters + t->offset, values, sizeof *values * count);
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
    shape[0] = net->batch;
    shape[1] = net->layers[layer].out.channels;
    shape[2] = net->layers[layer].out.height;
    shape[3] = net->layers[layer].out.width;
    return net->layers[layer].out.flat ? 2 : 4;
}

const char *cnn_key(cnn_net *net, int i)
{
    return cnn__ready(net) && i >= 0 && i < net->tensor_count ? net->tensors[i].key : NULL;
}

size_t cnn_num_parameters(cnn_net *net)
{
    size_t sum = 0;
    int i;
    if (!cnn__ready(net)) return 0;
    for (i = 0; i < net->tensor_count; i++) sum += net->tensors[i].count;
    return sum;
}

const char *cnn_layer_name(const cnn_net *net, int i)
{
    return net && i >= 0 && i < net->layer_count ? net->layers[i].name : NULL;
}

/* ============================================================================================
   >>data   Samples in memory and the loader that deals them out. A data set that could not be read
            exists all the same, with the reason in ->error, so that one check at the end is enough.
   ============================================================================================ */

struct cnn__data_memory {
    cnn__text error, name;
    uint64_t serial;
    int count;
    void *bytes, *floats, *labels, *targets, *scale, *shift;      /* those that belong to the data set */
};

static const char *const cnn__digit_names[10] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" };
static const char *const cnn__fashion_names[10] = {
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot" };
static const char *const cnn__cifar10_names[10] = {
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck" };

static uint64_t cnn__data_serial(const cnn_data *data) { return data->memory ? data->memory->serial : 0; }
static size_t cnn__data_count(const cnn_data *data) { return data->memory ? (size_t)data->memory->count : (size_t)data->count; }

static cnn_data *cnn__data_empty(const char *name)
{
    static cnn_data none;                                  /* when there is no memory even for the error */
    static uint64_t serial;
    cnn_data *data = (cnn_data *)cnn__alloc(1, sizeof *data);
    struct cnn__data_memory *memory = (struct cnn__data_memory *)cnn__alloc(1, sizeof *memory);
    if (!data || !memory) {
        cnn__free(data);
        cnn__free(memory);
        none.error = "out of memory for a data set";
        none.name = "";
        CNN_ON_ERROR(none.error);
        return &none;
    }
    data->memory = memory;
    memory->serial = ++serial;
    snprintf(memory->name.s, sizeof memory->name.s, "%.200s", name);
    data->name = memory->name.s;
    return data;
}

void cnn_data_free(cnn_data *data)
{
    if (!data || !data->memory) return;
    cnn__free(data->memory->bytes);
    cnn__free(data->memory->floats);
    cnn__free(data->memory->labels);
    cnn__free(data->memory->targets);
    cnn__free(data->memory->scale);
    cnn__free(data->memory->shift);
    cnn__free(data->memory);
    cnn__free(data);
}

static cnn_data *cnn__data_fails(cnn_data *data)           /* after cnn__say to its error */
{
    if (data->memory) data->error = data->memory->error.s;
    data->count = 0;
    return data;
}

static cnn_data *cnn__data_without_memory(cnn_data *data, double bytes)
{
    if (data->memory) cnn__say(&data->memory->error, "%s: out of memory: its samples need %.1f MB", data->name, bytes / 1e6);
    return cnn__data_fails(data);
}

/* Checks the labels, makes room for the scaling. What a reader calls last. */
static cnn_data *cnn__data_complete(cnn_data *data)
{
    float *scale, *shift;
    int i;
    data->memory->count = data->count;
    for (i = 0; data->labels && i < data->count; i++)
        if (data->labels[i] < 0 || data->labels[i] >= data->classes) {
            cnn__say(&data->memory->error, "%s: label %d of sample %d is outside 0 .. %d", data->name, data->labels[i], i,
                     data->classes - 1);
            return cnn__data_fails(data);
        }
    scale = (float *)cnn__alloc((size_t)data->channels, sizeof *scale);
    shift = (float *)cnn__alloc((size_t)data->channels, sizeof *shift);
    data->memory->scale = scale;
    data->memory->shift = shift;
    if (!scale || !shift) return cnn__data_without_memory(data, 8.0 * data->channels);
    for (i = 0; i < data->channels; i++) scale[i] = data->bytes ? 1.0f / 255 : 1;
    data->scale = scale;
    data->shift = shift;
    return data;
}

void cnn_normalize(cnn_data *data, const float *mean, const float *std)
{
    int c;
    if (!data || data->error) return;
    for (c = 0; c < data->channels; c++)
        if (!(std[c] > 0)) {
            cnn__say(&data->memory->error, "cnn_normalize: the deviation of channel %d must be above 0, not %g", c, std[c]);
            cnn__data_fails(data);
            return;
        }
    for (c = 0; c < data->channels; c++) {
        ((float *)data->memory->scale)[c] = (data->bytes ? 1.0f / 255 : 1) / std[c];
        ((float *)data->memory->shift)[c] = -mean[c] / std[c];
    }
}

cnn_data *cnn_data_new_with(cnn_data_options o)
{
    cnn_data *data = cnn__data_empty("your data set");
    if (!data->memory) return data;
    data->count = o.count; data->channels = o.channels; data->height = o.height; data->width = o.width;
    data->classes = o.labels ? o.classes : 0;
    data->outputs = o.targets ? o.outputs : 0;
    data->bytes = o.bytes; data->floats = o.floats; data->labels = o.labels; data->targets = o.targets;
    data->class_names = o.class_names;
    if (o.count < 1 || o.channels < 1 || o.height < 1 || o.width < 1 || (double)o.channels * o.height * o.width > INT_MAX)
        cnn__say(&data->memory->error, "cnn_data_new: %d samples of %d x %d x %d are not possible; all must be at least 1",
                 o.count, o.channels, o.height, o.width);
    else if (!o.bytes == !o.floats)
        cnn__say(&data->memory->error, "cnn_data_new: needs either .bytes or .floats");
    else if ((!o.labels && !o.targets) || (o.labels && o.classes < 1) || (o.targets && o.outputs < 1))
        cnn__say(&data->memory->error,
                 "cnn_data_new: needs .labels with .classes of at least 1, or .targets with .outputs of at least 1");
    return data->memory->error.s[0] ? cnn__data_fails(data) : cnn__data_complete(data);
}

/* ---- files ---- */

static uint32_t cnn__crc32(uint32_t crc, const unsigned char *bytes, size_t count)        /* as in ZIP, gzip and PNG; begins with 0 */
{
    int bit;
    crc = ~crc;
    while (count--) {
        crc ^= *bytes++;
        for (bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static uint32_t cnn__big_endian(const unsigned char *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* All bytes of a file; NULL and a sentence if it cannot be read. Freed by cnn__free. */
static unsigned char *cnn__read_file(const char *path, size_t *size, cnn__text *error)
{
    unsigned char *bytes = NULL;
    long length = -1;
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file) {
        cnn__say(error, "%.300s: cannot be opened: %s", path ? path : "(no path)", path ? strerror(errno) : "there is no path");
        return NULL;
    }
    if (!fseek(file, 0, SEEK_END)) length = ftell(file);
    if (length < 0 || length == LONG_MAX || fseek(file, 0, SEEK_SET))
        cnn__say(error, "%.300s: cannot be read as a file", path);
    else if (!(bytes = (unsigned char *)cnn__alloc((size_t)length + 1, 1)))        /* + 1: ends in 0, for text */
        cnn__say(error, "%.300s: out of memory: the file has %.1f MB", path, length / 1e6);
    else if (fread(bytes, 1, (size_t)length, file) != (size_t)length) {
        cnn__say(error, "%.300s: cannot be read to its end: %s", path, strerror(errno));
        cnn__free(bytes);
        bytes = NULL;
    }
    fclose(file);
    *size = (size_t)length;
    return bytes;
}

static int cnn__exists(const char *path)
{
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (file) fclose(file);
    return file != NULL;
}

#if defined(STBI_INCLUDE_STB_IMAGE_H) && !defined(STBI_NO_ZLIB)
#define CNN__GUNZIP                         /* stb_image.h stands before this file: its zlib decoder unpacks .gz files */

/* The contents of a gzip file (RFC 1952): a header, a deflate stream, its CRC and its length. Frees `file`. */
static unsigned char *cnn__gunzip(const char *path, unsigned char *file, size_t *size, cnn__text *error)
{
    size_t at = 10, length = 0;
    const unsigned char *end = file + *size;
    unsigned char *plain = NULL;
    int flags = *size > 18 ? file[3] : 0, written = -1;
    if (flags & 4 && at + 2 <= *size) at += 2u + file[at] + 256u * file[at + 1];          /* extra field */
    if (flags & 8) while (at < *size && file[at++]) {}                                    /* file name */
    if (flags & 16) while (at < *size && file[at++]) {}                                   /* comment */
    if (flags & 2) at += 2;                                                               /* header CRC */
    if (*size > 18 && at + 8 < *size) {
        length = end[-4] | (size_t)end[-3] << 8 | (size_t)end[-2] << 16 | (size_t)end[-1] << 24;
        if (length < INT_MAX && *size < INT_MAX && length / 1032 <= *size) plain = (unsigned char *)cnn__alloc(length + 1, 1);
    }
    if (plain)
        written = stbi_zlib_decode_noheader_buffer((char *)plain, (int)length, (const char *)file + at, (int)(*size - at));
    if (written < 0 || (size_t)written != length
        || cnn__crc32(0, plain, length)
               != ((uint32_t)end[-8] | (uint32_t)end[-7] << 8 | (uint32_t)end[-6] << 16 | (uint32_t)end[-5] << 24)) {
        cnn__say(error, "%.300s: cannot be unpacked: it is cut off or damaged; get it again", path);
        cnn__free(plain);
        plain = NULL;
    }
    cnn__free(file);
    *size = length;
    return plain;
}
#endif

/* An IDX file (LeCun's MNIST format): 0, 0, type 8 for bytes, number of dimensions; each size as 4 bytes,
   highest first; the values. Returns the whole file and the sizes, or NULL and a sentence. */
static unsigned char *cnn__read_idx(const char *path, int dimensions, int sizes[3], cnn__text *error)
{
    unsigned char *file;
    size_t size, expected = 1;
    char packed[420];
    int i;
    snprintf(packed, sizeof packed, "%.400s.gz", path);
    if (!cnn__exists(path) && cnn__exists(packed)) path = packed;
    file = cnn__read_file(path, &size, error);
#ifdef CNN__GUNZIP
    if (file && size >= 2 && file[0] == 0x1f && file[1] == 0x8b) file = cnn__gunzip(path, file, &size, error);
#endif
    if (!file) return NULL;
    if (size >= 2 && file[0] == 0x1f && file[1] == 0x8b) {
        if (path == packed) cnn__say(error, "%.200s is there only packed; unpack it: gzip -dk %.200s", path, path);
        else
            cnn__say(error, "%.200s is gzip-compressed; unpack it: mv %.80s %.80s.gz && gzip -d %.80s.gz", path, path, path,
                     path);
    }
    else if (size < 4 + 4 * (size_t)dimensions)
        cnn__say(error, "%.300s: has only %.0f bytes, too few for an IDX file; is it a broken download?", path, (double)size);
    else if (file[0] || file[1] || file[2] != 8 || file[3] != dimensions)
        cnn__say(error, "%.300s: begins with %02x %02x %02x %02x, but an IDX file of %s begins with 00 00 08 %02x", path,
                 file[0], file[1], file[2], file[3], dimensions == 3 ? "images" : "labels", dimensions);
    else {
        for (i = 0; i < dimensions; i++) {
            uint32_t n = cnn__big_endian(file + 4 + 4 * i);
            sizes[i] = n > INT_MAX ? 0 : (int)n;
            if (!cnn__mul(&expected, expected, n)) expected = (size_t)-1 / 2;
        }
        for (i = 0; i < dimensions; i++)
            if (sizes[i] < 1)
                cnn__say(error, "%.300s: its header claims a size of %.0f, which is not possible", path,
                         (double)cnn__big_endian(file + 4 + 4 * i));
        expected += 4 + 4 * (size_t)dimensions;
        if (expected != size)
            cnn__say(error, "%.300s: its header promises %.0f bytes, but it has %.0f; is it a broken download?", path,
                     (double)expected, (double)size);
    }
    if (error->s[0]) {
        cnn__free(file);
        return NULL;
    }
    return file;
}

cnn_data *cnn_load_idx(const char *images, const char *labels, int classes)
{
    cnn_data *data = cnn__data_empty(images ? images : "");
    unsigned char *label_file;
    int sizes[3], label_count[3], i, *numbers;
    if (!data->memory) return data;
    if (classes < 1) {
        cnn__say(&data->memory->error, "cnn_load_idx: classes must be at least 1, as labels are 0 .. classes - 1, but is %d",
                 classes);
        return cnn__data_fails(data);
    }
    data->memory->bytes = cnn__read_idx(images, 3, sizes, &data->memory->error);
    if (!data->memory->bytes) return cnn__data_fails(data);
    label_file = cnn__read_idx(labels, 1, label_count, &data->memory->error);
    if (!label_file) return cnn__data_fails(data);
    if (label_count[0] != sizes[0]) {
        cnn__say(&data->memory->error, "%.200s has %d labels, but %.200s has %d images", labels, label_count[0], images,
                 sizes[0]);
        cnn__free(label_file);
        return cnn__data_fails(data);
    }
    data->memory->labels = numbers = (int *)cnn__alloc((size_t)sizes[0], sizeof *numbers);
    for (i = 0; numbers && i < sizes[0]; i++) numbers[i] = label_file[8 + i];
    cnn__free(label_file);
    if (!numbers) return cnn__data_without_memory(data, 4.0 * sizes[0]);
    data->count = sizes[0];
    data->channels = 1; data->height = sizes[1]; data->width = sizes[2];
    data->classes = classes;
    data->bytes = (unsigned char *)data->memory->bytes + 16;
    data->labels = numbers;
    return cnn__data_complete(data);
}

static cnn_data *cnn__load_mnist_like(const char *directory, const char *split, const char *const *class_names)
{
    char images[420], labels[420];
    cnn_data *data;
    if (!directory) directory = "(no folder)";
    if (!split) split = "(no split)";
    snprintf(images, sizeof images, "%.300s/%.80s-images-idx3-ubyte", directory, split);
    snprintf(labels, sizeof labels, "%.300s/%.80s-labels-idx1-ubyte", directory, split);
    data = cnn_load_idx(images, labels, 10);
    if (data->memory) data->class_names = class_names;
    return data;
}

/* The files of MNIST and Fashion-MNIST have the same names and sizes. Four fifths of MNIST's pixels are 0, half of
   Fashion-MNIST's. Is that share from `low` to `high`? */
static int cnn__zeros_within(const cnn_data *data, double low, double high)
{
    size_t i, zeros = 0, all = (size_t)data->count * data->height * data->width;
    for (i = 0; i < all; i++) zeros += !data->bytes[i];
    return (double)zeros >= low * (double)all && (double)zeros <= high * (double)all;
}

static cnn_data *cnn__other_mnist(cnn_data *data, const char *there, const char *wanted)
{
    cnn__say(&data->memory->error,
             "%.200s holds %s, not %s, to judge by the share of pixels that are 0; the files have the same names. Any other "
             "data set: cnn_load_idx",
             data->name, there, wanted);
    return cnn__data_fails(data);
}

cnn_data *cnn_load_mnist(const char *directory, const char *split)
{
    cnn_data *data = cnn__load_mnist_like(directory, split, cnn__digit_names);
    if (data->error || !cnn__zeros_within(data, 0.45, 0.55)) return data;
    return cnn__other_mnist(data, "Fashion-MNIST's clothes", "MNIST's digits");
}

cnn_data *cnn_load_fashion_mnist(const char *directory, const char *split)
{
    cnn_data *data = cnn__load_mnist_like(directory, split, cnn__fashion_names);
    if (data->error || !cnn__zeros_within(data, 0.7, 1)) return data;
    return cnn__other_mnist(data, "MNIST's digits", "Fashion-MNIST's clothes");
}

/* CIFAR-10, binary version (Krizhevsky 2009): rows of a label and 3 x 32 x 32 bytes, red, green, blue. */
cnn_data *cnn_load_cifar10(const char *directory, const char *split)
{
    enum { ROW = 3073, ROWS = 10000 };
    int training = split && !strcmp(split, "train"), files = training ? 5 : 1, f, i, *labels;
    cnn_data *data = cnn__data_empty(directory ? directory : "");
    unsigned char *bytes;
    if (!data->memory) return data;
    if (!training && (!split || strcmp(split, "test"))) {
        cnn__say(&data->memory->error, "cnn_load_cifar10: the split is \"train\" or \"test\", not \"%.60s\"",
                 split ? split : "");
        return cnn__data_fails(data);
    }
    data->memory->bytes = bytes = (unsigned char *)cnn__alloc((size_t)files * ROWS * (ROW - 1), 1);
    data->memory->labels = labels = (int *)cnn__alloc((size_t)files * ROWS, sizeof *labels);
    if (!bytes || !labels) return cnn__data_without_memory(data, (double)((size_t)files * ROWS * ROW));
    for (f = 0; f < files; f++) {
        char path[420], batch[32];
        unsigned char *file;
        size_t size;
        snprintf(batch, sizeof batch, training ? "data_batch_%d.bin" : "test_batch.bin", f + 1);
        snprintf(path, sizeof path, "%.350s/%s", directory ? directory : "(no folder)", batch);
        file = cnn__read_file(path, &size, &data->memory->error);
        if (!file) return cnn__data_fails(data);
        if (size != (size_t)ROW * ROWS) {
            cnn__say(&data->memory->error, "%.300s: has %.0f bytes, but a CIFAR-10 batch has %d; is it a broken download?",
                     path, (double)size, ROW * ROWS);
            cnn__free(file);
            return cnn__data_fails(data);
        }
        for (i = 0; i < ROWS; i++) {
            labels[f * ROWS + i] = file[(size_t)i * ROW];
            memcpy(bytes + ((size_t)f * ROWS + i) * (ROW - 1), file + (size_t)i * ROW + 1, ROW - 1);
        }
        cnn__free(file);
    }
    data->count = files * ROWS;
    data->channels = 3; data->height = data->width = 32;
    data->classes = 10;
    data->bytes = bytes;
    data->labels = labels;
    data->class_names = cnn__cifar10_names;
    return cnn__data_complete(data);
}

/* A new data set of the samples order[0 .. count-1]. */
static cnn_data *cnn__data_pick(const cnn_data *from, const int *order, int count)
{
    cnn_data *data = cnn__data_empty(from->name);
    size_t values = (size_t)from->channels * from->height * from->width, bytes = from->bytes ? 1 : sizeof(float);
    const unsigned char *samples = from->bytes ? from->bytes : (const unsigned char *)from->floats;
    unsigned char *copy;
    int i, *labels, c;
    float *targets;
    if (!data->memory) return data;
    data->count = count;
    data->channels = from->channels; data->height = from->height; data->width = from->width;
    data->classes = from->classes; data->outputs = from->outputs; data->class_names = from->class_names;
    copy = (unsigned char *)cnn__alloc((size_t)count * values, bytes);
    labels = (int *)cnn__alloc((size_t)count, sizeof *labels);
    targets = (float *)cnn__alloc((size_t)count * from->outputs, sizeof *targets);
    *(from->bytes ? &data->memory->bytes : &data->memory->floats) = copy;
    data->memory->labels = labels;
    data->memory->targets = targets;
    if (!copy || !labels || !targets) return cnn__data_without_memory(data, (double)count * (double)(values * bytes));
    for (i = 0; i < count; i++) {
        memcpy(copy + (size_t)i * values * bytes, samples + (size_t)order[i] * values * bytes, values * bytes);
        if (from->labels) labels[i] = from->labels[order[i]];
        if (from->targets)
            memcpy(targets + (size_t)i * from->outputs, from->targets + (size_t)order[i] * from->outputs,
                   sizeof *targets * from->outputs);
    }
    data->bytes = (unsigned char *)data->memory->bytes;
    data->floats = (float *)data->memory->floats;
    data->labels = from->labels ? labels : NULL;
    data->targets = from->targets ? targets : NULL;
    cnn__data_complete(data);
    for (c = 0; !data->error && c < data->channels; c++) {
        ((float *)data->memory->scale)[c] = from->scale[c];
        ((float *)data->memory->shift)[c] = from->shift[c];
    }
    return data;
}

void cnn_random_split(const cnn_data *data, int count, uint64_t seed, cnn_data **first, cnn_data **second)
{
    int *order = NULL, i;
    if (!data->error && count > 0 && count < data->count) order = (int *)cnn__alloc((size_t)data->count, sizeof *order);
    if (!order) {
        *first = cnn__data_empty(data->name);
        *second = cnn__data_empty(data->name);
        for (i = 0; i < 2; i++) {
            cnn_data *d = i ? *second : *first;
            if (!d->memory) continue;
            if (data->error || i) cnn__take_over(&d->memory->error, data->error ? data->error : (*first)->error);
            else if (count > 0 && count < data->count)
                cnn__say(&d->memory->error, "cnn_random_split: out of memory for the order of %d samples", data->count);
            else
                cnn__say(&d->memory->error, "cnn_random_split: cannot take %d of %d samples; at least 1 must be on each side",
                         count, data->count);
            cnn__data_fails(d);
        }
        return;
    }
    for (i = 0; i < data->count; i++) order[i] = i;
    cnn__shuffle(order, data->count, seed, CNN__STREAM_SPLIT, 0);
    *first = cnn__data_pick(data, order + count, data->count - count);
    *second = cnn__data_pick(data, order, count);
    cnn__free(order);
}

/* ---- the loader ---- */

struct cnn_loader {
    const cnn_data *data;
    cnn_loader_options options;
    int *order;
    int count;                              /* of samples                                                */
    int epoch, at;                          /* the epoch that is being dealt out, and how far             */
    int begun;
    cnn__text error;
    cnn_data failed;                        /* in error, what the empty batch is of: it has the sentence  */
};

static cnn_loader *cnn__deal(const char *call, const cnn_data *data, cnn_loader_options o)
{
    cnn_loader *loader = (cnn_loader *)cnn__alloc(1, sizeof *loader);
    if (!loader) {
        CNN_ON_ERROR(cnn_loader_error(NULL));
        return NULL;
    }
    loader->data = data;
    loader->options = o;
    if (!loader->options.batch_size) loader->options.batch_size = 1;
    if (!data)
        cnn__say(&loader->error, "%s: there is no data set, only NULL; load one, or make one with cnn_data_new", call);
    else if (data->error) cnn__take_over(&loader->error, data->error);
    else if (data->count < 1 || (size_t)data->count > cnn__data_count(data))
        cnn__say(&loader->error, "%s: the count of %s was set to %d; it must be from 1 to its %.0f samples", call, data->name,
                 data->count, (double)cnn__data_count(data));
    else if (o.batch_size < 0) cnn__say(&loader->error, "%s: batch_size must be at least 1, not %d", call, o.batch_size);
    else if (o.drop_last && o.batch_size > data->count)
        cnn__say(&loader->error,
                 "%s: %d samples do not fill one batch of %d; use a smaller batch_size, or keep the incomplete last batch",
                 call, data->count, o.batch_size);
    else if (!(loader->order = (int *)cnn__alloc((size_t)data->count, sizeof *loader->order)))
        cnn__say(&loader->error, "out of memory for the order of %d samples", data->count);
    else loader->count = data->count;
    loader->failed.error = cnn_loader_error(loader);
    return loader;
}

cnn_loader *cnn_loader_new_with(const cnn_data *data, cnn_loader_options o) { return cnn__deal("cnn_loader_new", data, o); }

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
    int count, size;
    if (cnn_loader_error(loader)) return 0;
    count = loader->count;
    size = loader->options.batch_size;
    return count / size + (!loader->options.drop_last && count % size);
}

int cnn_next(cnn_loader *loader, cnn_batch *batch)
{
    int left, i;
    memset(batch, 0, sizeof *batch);
    if (!loader) return 0;
    if (loader->failed.error) {
        batch->data = &loader->failed;
        return loader->begun = !loader->begun;
    }
    if (!loader->begun) {
        for (i = 0; i < loader->count; i++) loader->order[i] = i;
        if (loader->options.shuffle)
            cnn__shuffle(loader->order, loader->count, loader->options.seed, CNN__STREAM_SHUFFLE, (uint64_t)loader->epoch);
        loader->at = 0;
        loader->begun = 1;
    }
    left = loader->count - loader->at;
    if (left < 1 || (loader->options.drop_last && left < loader->options.batch_size)) {
        cnn_set_epoch(loader, loader->epoch + 1);
        return 0;
    }
    batch->data = loader->data;
    batch->order = loader->order + loader->at;
    batch->size = left < loader->options.batch_size ? left : loader->options.batch_size;
    loader->at += batch->size;
    return 1;
}

/* cnn_next and cnn_forward, for a loader that deals to nobody else: the order of an epoch is sent as a whole */
static int cnn__forward_next(cnn_net *net, cnn_loader *loader, cnn_batch *batch)
{
    if (!cnn_next(loader, batch)) return 0;
    if (batch->order == loader->order) cnn__send_order(net, loader->order, loader->count);
    cnn__forward(net, batch, 1);
    return 1;
}

void cnn_loader_free(cnn_loader *loader)
{
    if (!loader) return;
    cnn__free(loader->order);
    cnn__free(loader);
}

/* ============================================================================================
   >>file   What is written to disk. A state dict is a list of named tensors; each format turns the
            list into bytes and back. Nothing that was read is believed before it was checked, and the
            network changes only when all of it fits.
   ============================================================================================ */

/* ---- the old file or the new one, whole: written beside its place, flushed to the disk, renamed ---- */

typedef struct cnn__writer { FILE *file; char path[480], part[500]; } cnn__writer;

#if !defined(_WIN32) && !defined(__cplusplus) && defined(__STRICT_ANSI__)
int fsync(int descriptor);                                 /* POSIX; strict C99 hides them */
int fileno(FILE *file);
#endif

static int cnn__begin_file(cnn__writer *w, const char *path, cnn__text *error)
{
    if (!path || strlen(path) >= sizeof w->path)
        return cnn__say(error, "a path may have at most %d characters", (int)sizeof w->path - 1), 0;
    strcpy(w->path, path);
    snprintf(w->part, sizeof w->part, "%s.part", path);
    w->file = fopen(w->part, "wb");
    if (!w->file) cnn__say(error, "%.300s: cannot be written: %s", path, strerror(errno));
    return w->file != NULL;
}

static int cnn__flush_file(FILE *file)
{
#ifdef _WIN32
    return !fflush(file) && !_commit(_fileno(file));
#else
    return !fflush(file) && !fsync(fileno(file));
#endif
}

static int cnn__replace_file(const char *part, const char *path)
{
#ifdef _WIN32
    return MoveFileExA(part, path, 1 | 8);                 /* replace what is there; return when it is on the disk */
#else
    const char *slash = strrchr(path, '/');
    char directory[480];
    int d;
    if (rename(part, path)) return 0;
    snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    d = open(directory, O_RDONLY);
    if (d >= 0) { fsync(d); close(d); }                    /* the new name too, where directories can be flushed */
    return 1;
#endif
}

static void cnn__abandon_file(cnn__writer *w)              /* what was there before stays */
{
    fclose(w->file);
    remove(w->part);
}

static int cnn__end_file(cnn__writer *w, cnn__text *error)
{
    int good = !ferror(w->file) && cnn__flush_file(w->file), cause = errno;
    if (fclose(w->file) && good) good = 0, cause = errno;
    if (good && cnn__replace_file(w->part, w->path)) return 1;
    if (good) cause = errno;
    cnn__say(error, "%.300s: cannot be written: %s; what was there before is unchanged", w->path, strerror(cause));
    remove(w->part);
    return 0;
}

/* ---- bytes that grow; numbers with their lowest byte first, as in all these formats ---- */

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

static void cnn__put_number(cnn__bytes *b, uint64_t number, int bytes)
{
    unsigned char little[8];
    int i;
    for (i = 0; i < bytes; i++) little[i] = (unsigned char)(number >> 8 * i);
    cnn__put(b, little, (size_t)bytes);
}

static uint64_t cnn__little(const unsigned char *b, int bytes)
{
    uint64_t number = 0;
    while (bytes--) number = number << 8 | b[bytes];
    return number;
}

static void cnn__print(cnn__bytes *b, const char *format, ...) CNN__PRINTF(2, 3);
static void cnn__print(cnn__bytes *b, const char *format, ...)             /* up to 511 characters */
{
    cnn__text text;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text.s, sizeof text.s, format, arguments);
    va_end(arguments);
    cnn__put(b, text.s, strlen(text.s));
}

/* ---- a state dict ---- */

typedef struct cnn__dtype { const char *name, *storage; unsigned bits; } cnn__dtype;

static const cnn__dtype cnn__dtypes[] = {                  /* name in .safetensors, in .pth, bits of a value */
    { "F32", "torch.FloatStorage", 32 }, { "F64", "torch.DoubleStorage", 64 }, { "F16", "torch.HalfStorage", 16 },
    { "BF16", "torch.BFloat16Storage", 16 },               /* these four are read; the others only stepped over */
    { "I64", "torch.LongStorage", 64 }, { "I32", "torch.IntStorage", 32 }, { "I16", "torch.ShortStorage", 16 },
    { "I8", "torch.CharStorage", 8 }, { "U8", "torch.ByteStorage", 8 }, { "BOOL", "torch.BoolStorage", 8 },
    { "C64", "torch.ComplexFloatStorage", 64 }, { "U64", "", 64 }, { "U32", "", 32 }, { "U16", "", 16 },
    { "F8_E5M2", "", 8 }, { "F8_E4M3", "", 8 }, { "F8_E8M0", "", 8 }, { "F8_E4M3FNUZ", "", 8 }, { "F8_E5M2FNUZ", "", 8 },
    { "F6_E2M3", "", 6 }, { "F6_E3M2", "", 6 }, { "F4", "", 4 }, { NULL, NULL, 0 }
};
enum { CNN__F32, CNN__F64, CNN__F16, CNN__BF16, CNN__DIMS = 8 };

typedef struct cnn__stored {                /* a tensor as a file has it                                 */
    const char *key, *prefix;               /* written as prefix, key; read without prefix               */
    const cnn__dtype *dtype;
    int ndim; size_t shape[CNN__DIMS], stride[CNN__DIMS], count;   /* a tensor of more dimensions is never wanted */
    const unsigned char *data; size_t bytes, begin;        /* the storage that holds it, and where it begins */
    size_t first;                           /* its first value in that storage                           */
    const char *entry; size_t dict;         /* .pth: the storage's name, the dict that has the key       */
} cnn__stored;

typedef struct cnn__state {
    const char *path; cnn__text *error;
    cnn__bytes tensors, metadata;           /* of cnn__stored; of pairs of strings                       */
    unsigned char *file; size_t size;       /* of one that is read                                       */
    char *at;                               /* .safetensors: the next character of the header            */
    const unsigned char *directory; size_t directory_size; /* .pth: of the ZIP                           */
} cnn__state;

static int cnn__wrong(cnn__state *s, const char *format, ...) CNN__PRINTF(2, 3);
static int cnn__wrong(cnn__state *s, const char *format, ...)              /* always 0 */
{
    cnn__text what;
    va_list arguments;
    size_t i;
    va_start(arguments, format);
    vsnprintf(what.s, sizeof what.s, format, arguments);
    va_end(arguments);
    for (i = 0; what.s[i]; i++) if ((unsigned char)what.s[i] < ' ' || what.s[i] == 127) what.s[i] = '?';   /* the file's own words */
    cnn__say(s->error, "%.150s: %s", s->path, what.s);
    return 0;
}

static int cnn__failed(const cnn__state *s) { return s->error->s[0] != 0; }

static cnn__stored *cnn__tensors(const cnn__state *s, size_t *count)
{
    *count = s->tensors.count / sizeof(cnn__stored);
    return (cnn__stored *)(void *)s->tensors.at;
}

static int cnn__by_key(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static int cnn__sort(cnn__state *s, cnn__bytes *list, size_t size)         /* by key; each may be there once */
{
    size_t i;
    if (list->failed) return cnn__wrong(s, "out of memory");
    if (list->count) qsort(list->at, list->count / size, size, cnn__by_key);
    for (i = size; i < list->count; i += size)
        if (!cnn__by_key(list->at + i - size, list->at + i))
            return cnn__wrong(s, "has \"%.100s\" twice", *(const char **)(void *)(list->at + i));
    return 1;
}

static const cnn__stored *cnn__find_stored(const cnn__state *s, const char *prefix, const char *key)
{
    char name[200];
    const char *sought = name;
    size_t count;
    const cnn__stored *tensors = cnn__tensors(s, &count);
    snprintf(name, sizeof name, "%s%s", prefix, key);
    return count ? (const cnn__stored *)bsearch(&sought, tensors, count, sizeof *tensors, cnn__by_key) : NULL;
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
    float f;
    switch (dtype - cnn__dtypes) {
    case CNN__F64:
        memcpy(&number, &bits, sizeof number);
        return number;
    case CNN__F16:                                         /* sign, 5 bits of exponent, 10 of fraction */
        number = exponent == 31 ? (fraction ? NAN : HUGE_VAL)
               : exponent       ? ldexp(1024.0 + fraction, (int)exponent - 25)
                                : ldexp(fraction, -24);
        return word >> 15 ? -number : number;
    case CNN__BF16:                                        /* the upper half of a float */
        word <<= 16;
    }
    memcpy(&f, &word, sizeof f);
    return f;
}

/* The values in row-major order, however they lie in their storage. */
static int cnn__read_values(cnn__state *s, const cnn__stored *t, float *values)
{
    size_t index[CNN__DIMS] = { 0 }, size = t->dtype->bits / 8, most = t->bytes / size, last = t->first, at = t->first, step, i;
    int d;
    for (d = 0; d < t->ndim && t->count; d++)
        if (!cnn__mul(&step, t->shape[d] - 1, t->stride[d]) || step > most || (last += step) > most) last = most;
    if (t->count && last >= most)
        return cnn__wrong(s, "\"%.100s\" reaches beyond its storage of %.0f values", t->key, (double)most);
    for (i = 0; i < t->count; i++) {
        values[i] = (float)cnn__value(t->dtype, t->data + at * size);
        for (d = t->ndim - 1; d >= 0; d--) {               /* the next index, as an odometer turns */
            at += t->stride[d];
            if (++index[d] < t->shape[d]) break;
            at -= t->stride[d] * t->shape[d];
            index[d] = 0;
        }
    }
    return 1;
}

static void cnn__put_values(cnn__bytes *b, const cnn__stored *t)           /* F32 or F64 */
{
    size_t i;
    for (i = 0; i < t->count; i++) {
        uint64_t number;
        uint32_t word;
        if (t->dtype->bits == 64) memcpy(&number, t->data + 8 * i, 8);
        else memcpy(&word, t->data + 4 * i, 4), number = word;
        cnn__put_number(b, number, (int)t->dtype->bits / 8);
    }
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
    return cnn__wrong(s, "byte %.0f: the header is broken: expected %s", (double)(s->at + 1 - (char *)s->file), what);
}

static int cnn__json_has(cnn__state *s, char c)            /* steps over c, if it is next */
{
    s->at += strspn(s->at, " \t\r\n");
    return *s->at == c && (s->at++, 1);
}

static int cnn__json_needs(cnn__state *s, char c)
{
    char what[4] = { '\'', 0, '\'', 0 };
    what[1] = c;
    return cnn__json_has(s, c) || cnn__expected(s, what);
}

/* Steps through [a, b] or {"k": a}: 1 before each element, the *n-th; 0 at the end or a mistake. */
static int cnn__json_next(cnn__state *s, const char *brackets, size_t *n)
{
    if (!*n && !cnn__json_needs(s, brackets[0])) return 0;
    if (cnn__json_has(s, brackets[1]) || (*n && !cnn__json_needs(s, ','))) return 0;
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

/* A string, decoded where it stands, which never makes it longer, and ended by 0. */
static int cnn__json_string(cnn__state *s, const char **text)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char *to;
    if (!cnn__json_needs(s, '"')) return 0;
    *text = to = s->at;
    while (*s->at != '"') {
        const char *escape = *s->at == '\\' && s->at[1] ? strchr(escapes, s->at[1]) : NULL;
        uint32_t c, low, more;
        if ((unsigned char)*s->at < ' ') return cnn__expected(s, "the end of the string");
        if (escape) { *to++ = meanings[escape - escapes]; s->at += 2; continue; }
        if (*s->at != '\\') { *to++ = *s->at++; continue; }
        if (!cnn__json_hex(s, &c)) return 0;
        if (c >> 10 == 0x36) {                             /* a surrogate pair: two halves of a character beyond 0xffff */
            if (!cnn__json_hex(s, &low)) return 0;
            c = low >> 10 == 0x37 ? 0x10000 + ((c & 1023) << 10 | (low & 1023)) : 0;
        }
        if (!c || c >> 11 == 0x1b) return cnn__expected(s, "before it neither \\u0000 nor half a surrogate pair");
        more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;         /* UTF-8: so many bytes follow the first */
        *to++ = (char)(more ? 0xf80 >> more | c >> 6 * more : c);
        while (more--) *to++ = (char)(0x80 | (c >> 6 * more & 0x3f));
    }
    s->at++;
    *to = 0;
    return 1;
}

static int cnn__json_digits(cnn__state *s)
{
    size_t count = strspn(s->at, "0123456789");
    if (!count) return cnn__expected(s, "a digit");
    return s->at += count, 1;
}

static int cnn__json_size(cnn__state *s, size_t *size)     /* a whole number from 0 */
{
    const char *digit = s->at += strspn(s->at, " \t\r\n");
    if (*digit == '0') return *size = 0, s->at++, 1;
    if (!cnn__json_digits(s)) return 0;
    for (*size = 0; digit < s->at; digit++) {
        size_t d = (size_t)(*digit - '0');
        if (*size > ((size_t)-1 - d) / 10) return cnn__wrong(s, "a number in its header overflows");
        *size = *size * 10 + d;
    }
    return 1;
}

static int cnn__json_skip(cnn__state *s, int depth)        /* any value */
{
    const char *brackets = cnn__json_has(s, '{') ? "{}" : cnn__json_has(s, '[') ? "[]" : NULL, *key;
    size_t n = 0;
    if (depth > 100) return cnn__expected(s, "fewer brackets within brackets");
    if (brackets) {
        for (s->at--; cnn__json_next(s, brackets, &n); )
            if ((*brackets == '{' && (!cnn__json_string(s, &key) || !cnn__json_needs(s, ':'))) || !cnn__json_skip(s, depth + 1))
                return 0;
        return !cnn__failed(s);
    }
    if (*s->at == '"') return cnn__json_string(s, &key);
    if (!strncmp(s->at, "true", 4) || !strncmp(s->at, "null", 4)) return s->at += 4, 1;
    if (!strncmp(s->at, "false", 5)) return s->at += 5, 1;
    if (*s->at == '-') s->at++;
    if (*s->at == '0') s->at++;
    else if (!cnn__json_digits(s)) return 0;
    if (*s->at == '.' && (s->at++, !cnn__json_digits(s))) return 0;
    if (*s->at == 'e' || *s->at == 'E') {
        s->at += s->at[1] == '+' || s->at[1] == '-' ? 2 : 1;
        return cnn__json_digits(s);
    }
    return 1;
}

static int cnn__json_tensor(cnn__state *s, const char *key)
{
    static const char *const fields[] = { "dtype", "shape", "data_offsets" };
    cnn__stored t = cnn__stored_of(key, cnn__dtypes);
    size_t n = 0, k, size, bits, offsets[2] = { 0, 0 };
    const char *field, *name;
    int i, seen[4] = { 0, 0, 0, 0 };
    while (cnn__json_next(s, "{}", &n)) {
        if (!cnn__json_string(s, &field) || !cnn__json_needs(s, ':')) return 0;
        for (i = 0; i < 3 && strcmp(field, fields[i]); i++) { }
        if (seen[i]++ && i < 3) return cnn__wrong(s, "tensor \"%.100s\" has %s twice", key, field);
        k = 0;
        switch (i) {
        case 0:
            if (!cnn__json_string(s, &name)) return 0;
            while (t.dtype->name && strcmp(t.dtype->name, name)) t.dtype++;
            if (!t.dtype->name) return cnn__wrong(s, "tensor \"%.100s\" has the dtype %.40s, which there is not", key, name);
            break;
        case 1:
            while (cnn__json_next(s, "[]", &k))
                if (!cnn__json_size(s, &size)) return 0;
                else if (!cnn__add_dimension(&t, size))
                    return cnn__wrong(s, "tensor \"%.100s\": the product of its sizes overflows", key);
            break;
        case 2:
            while (cnn__json_next(s, "[]", &k)) if (!cnn__json_size(s, &offsets[k > 1])) return 0;
            if (k != 2 && !cnn__failed(s))
                return cnn__wrong(s, "tensor \"%.100s\" has %.0f data_offsets, not 2", key, (double)k);
            break;
        default:
            if (!cnn__json_skip(s, 0)) return 0;
        }
    }
    if (cnn__failed(s)) return 0;
    for (i = 0; i < 3; i++) if (!seen[i]) return cnn__wrong(s, "tensor \"%.100s\" has no %s", key, fields[i]);
    t.begin = offsets[0];
    t.bytes = offsets[1] - offsets[0];
    if (offsets[1] < offsets[0] || !cnn__mul(&bits, t.count, t.dtype->bits) || bits % 8 || bits / 8 != t.bytes)
        return cnn__wrong(s, "tensor \"%.100s\": its data_offsets %.0f and %.0f do not hold its %.0f values of %s", key,
                          (double)offsets[0], (double)offsets[1], (double)t.count, t.dtype->name);
    for (size = 1, i = t.ndim - 1; i >= 0; i--) if (i < CNN__DIMS) { t.stride[i] = size; size *= t.shape[i]; }
    cnn__put(&s->tensors, &t, sizeof t);
    return 1;
}

static int cnn__json_metadata(cnn__state *s)               /* strings by name, or null */
{
    const char *pair[2];
    size_t n = 0;
    if (cnn__json_has(s, 'n')) return s->at--, cnn__json_skip(s, 0);
    while (cnn__json_next(s, "{}", &n)) {
        if (!cnn__json_string(s, &pair[0]) || !cnn__json_needs(s, ':') || !cnn__json_string(s, &pair[1])) return 0;
        cnn__put(&s->metadata, pair, sizeof pair);
    }
    return !cnn__failed(s) && cnn__sort(s, &s->metadata, sizeof pair);
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

static int cnn__by_place(const void *a, const void *b)
{
    const cnn__stored *s = (const cnn__stored *)a, *t = (const cnn__stored *)b;
    if (s->begin != t->begin) return s->begin < t->begin ? -1 : 1;
    return s->bytes < t->bytes ? -1 : s->bytes > t->bytes;
}

static int cnn__read_safetensors(cnn__state *s)
{
    uint64_t length = s->size < 8 ? 0 : cnn__little(s->file, 8);
    size_t n = 0, i, count, at = 0, data, metadata = 0;
    const char *key;
    cnn__stored *t;
    if (s->size < 8)
        return cnn__wrong(s, "has only %.0f bytes, but a .safetensors file begins with 8 for the length of its header",
                          (double)s->size);
    if (length > 100000000)
        return cnn__wrong(s, "its header would have %.0f bytes, and 100 million is the most; is it a .safetensors file?",
                          (double)length);
    data = s->size - 8;
    if (length > data)
        return cnn__wrong(s, "its header has %.0f bytes, but the file ends after %.0f; is it a broken download?",
                          (double)length, (double)data);
    data -= (size_t)length;
    if (!cnn__utf8(s->file + 8, (size_t)length)) return cnn__wrong(s, "its header is not UTF-8");
    s->at = (char *)memmove(s->file + 7, s->file + 8, (size_t)length);     /* one back, to end in 0 */
    s->at[length] = 0;
    while (cnn__json_next(s, "{}", &n)) {
        if (!cnn__json_string(s, &key) || !cnn__json_needs(s, ':')) return 0;
        if (strcmp(key, "__metadata__")) { if (!cnn__json_tensor(s, key)) return 0; }
        else if (metadata++) return cnn__wrong(s, "has \"__metadata__\" twice");
        else if (!cnn__json_metadata(s)) return 0;
    }
    s->at += strspn(s->at, " \t\r\n");
    if (cnn__failed(s) || s->at != (char *)s->file + 7 + length) return cnn__expected(s, "nothing but spaces after the last }");
    if (s->tensors.failed) return cnn__wrong(s, "out of memory");
    t = cnn__tensors(s, &count);
    if (count) qsort(t, count, sizeof *t, cnn__by_place);
    for (i = 0; i < count; at += t[i++].bytes) {
        if (t[i].begin != at)
            return cnn__wrong(s, "tensor \"%.100s\" begins at %.0f, but the one before it ends at %.0f", t[i].key,
                              (double)t[i].begin, (double)at);
        if (t[i].bytes > data - at) break;
        t[i].data = s->file + 8 + length + at;
    }
    if (i < count || at < data)
        return cnn__wrong(s, "its tensors do not fill the %.0f bytes after the header; is it a broken download?", (double)data);
    return 1;
}

static void cnn__print_json(cnn__bytes *b, const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ') cnn__print(b, "\\u%04x", (unsigned)*text);
        else cnn__print(b, "%s%c", *text == '"' || *text == '\\' ? "\\" : "", *text);
}

static void cnn__compose_safetensors(cnn__state *s, cnn__bytes *out)
{
    const char *const *pair = (const char *const *)(void *)s->metadata.at;
    size_t i, count, at = 0, size;
    int d;
    const cnn__stored *t = cnn__tensors(s, &count);
    cnn__put_number(out, 0, 8);
    cnn__print(out, "{\"__metadata__\":{");
    for (i = 0; i < s->metadata.count / sizeof *pair; i += 2)
        cnn__print(out, "%s\"%s\":\"%s\"", i ? "," : "", pair[i], pair[i + 1]);
    cnn__print(out, "}");
    for (i = 0; i < count; i++, t++, at += size) {
        cnn__print(out, ",\"%s", t->prefix);
        cnn__print_json(out, t->key);
        cnn__print(out, "\":{\"dtype\":\"%s\",\"shape\":", t->dtype->name);
        for (d = 0; d < t->ndim; d++) cnn__print(out, "%c%.0f", d ? ',' : '[', (double)t->shape[d]);
        size = t->count * t->dtype->bits / 8;
        cnn__print(out, "],\"data_offsets\":[%.0f,%.0f]}", (double)at, (double)(at + size));
    }
    cnn__print(out, "}");
    cnn__put(out, "       ", (8 - out->count % 8) % 8);
    for (i = 0; i < 8 && !out->failed; i++) out->at[i] = (unsigned char)((uint64_t)(out->count - 8) >> 8 * i);
    for (t = cnn__tensors(s, &count), i = 0; i < count; i++) cnn__put_values(out, t + i);
}

/* ---- .pth ----

   torch.save writes a ZIP whose entries are not compressed and lie in one folder of any name:

       | header, name, padding to 64 | bytes | ... | directory: name, size, CRC-32 and place of each | end |

       net/data.pkl      the state dict as a pickle        net/data/0, net/data/1, ...  the tensors' values
       net/byteorder     "little"                          net/version                  "3"

   A pickle is a program for a machine with a stack and a memo; Python's machine runs whatever the program names. The
   one here knows the opcodes and names that a state dict needs, makes a list of tensors, and refuses the rest:

       c collections.OrderedDict ) R                                   OrderedDict()
       (                                                               mark
         X "classifier.weight"                                         key
         c torch._utils._rebuild_tensor_v2
         ( ( X "storage" c torch.FloatStorage X "0" X "cpu" K 840 t Q  data/0, 840 floats,
           K 0  ( K 10 K 84 t  ( K 84 K 1 t  \x89 ... t R              first value, sizes, strides: a tensor
         ...
       u .                                                             dict[key] = tensor, since the mark; end

   Sources: PKWARE's APPNOTE.TXT 4.3, 4.5.3; Python's Lib/pickletools.py; PyTorch's torch/serialization.py.    */

static int cnn__open_zip(cnn__state *s)
{
    const unsigned char *end;
    uint64_t bytes, place;
    size_t back;
    if (s->size > 13 && !memcmp(s->file, "\200\002\212\nl\374\234F\371 j\250P", 13))
        return cnn__wrong(s,
                          "was written by a PyTorch before 1.6 and is no ZIP; in Python: torch.save(torch.load(path), path)");
    for (back = 22; ; back++) {                            /* a comment may follow the end record */
        if (back > s->size || back > 22 + 65535)
            return cnn__wrong(s, "is no ZIP archive, as torch.save writes it; is it a broken download?");
        end = s->file + s->size - back;
        if (cnn__little(end, 4) == 0x06054b50 && cnn__little(end + 20, 2) == back - 22) break;
    }
    bytes = cnn__little(end + 12, 4);
    place = cnn__little(end + 16, 4);
    if (s->size - back >= 20 && cnn__little(end - 20, 4) == 0x07064b50) {  /* ZIP64: the same in 8 bytes each */
        place = cnn__little(end - 12, 8);
        if (s->size < 56 || place > s->size - 56) return cnn__wrong(s, "its ZIP64 record lies outside the file");
        bytes = cnn__little(s->file + place + 40, 8);
        place = cnn__little(s->file + place + 48, 8);
    }
    if (place > s->size || bytes > s->size - place) return cnn__wrong(s, "its ZIP directory lies outside the file");
    s->directory = s->file + place;
    s->directory_size = (size_t)bytes;
    return 1;
}

/* The bytes of the entry `name`, in whatever folder; 0 without a sentence if there is none. */
static int cnn__find_entry(cnn__state *s, const char *name, unsigned char **bytes, size_t *size)
{
    static const int order[3] = { 1, 0, 2 };
    const unsigned char *e = s->directory, *end = e + s->directory_size, *found = NULL, *slash, *extra, *value;
    size_t length, whole;
    uint64_t field[3];                                     /* packed size, size, place of the local header */
    int i;
    for (; e < end; e += whole) {
        length = end - e < 46 ? 0 : (size_t)cnn__little(e + 28, 2);
        whole = end - e < 46 ? 46 : 46 + length + (size_t)(cnn__little(e + 30, 2) + cnn__little(e + 32, 2));
        if (whole > (size_t)(end - e) || cnn__little(e, 4) != 0x02014b50) return cnn__wrong(s, "its ZIP directory is broken");
        slash = (const unsigned char *)memchr(e + 46, '/', length);
        if (!slash || (size_t)(e + 46 + length - slash - 1) != strlen(name) || memcmp(slash + 1, name, strlen(name))) continue;
        if (found) return cnn__wrong(s, "has two entries %.80s", name);
        found = e;
    }
    if (!found) return 0;
    for (i = 0; i < 3; i++) field[i] = cnn__little(found + (i < 2 ? 20 + 4 * i : 42), 4);
    extra = found + 46 + cnn__little(found + 28, 2);
    for (end = extra + cnn__little(found + 30, 2); end - extra >= 4; extra += length) {
        length = 4 + (size_t)cnn__little(extra + 2, 2);    /* ZIP64: size, packed size, place, those that do not fit 4 bytes */
        if (length > (size_t)(end - extra)) break;
        for (value = extra + 4, i = 0; i < 3 && cnn__little(extra, 2) == 1; i++)
            if (field[order[i]] == 0xffffffffu && extra + length - value >= 8)
                field[order[i]] = cnn__little(value, 8), value += 8;
    }
    if (cnn__little(found + 10, 2) || cnn__little(found + 8, 2) & 1 || field[0] != field[1])
        return cnn__wrong(s, "its entry %.80s is compressed or encrypted; torch.save writes neither", name);
    if (field[2] > s->size || s->size - field[2] < 30 || cnn__little(s->file + field[2], 4) != 0x04034b50)
        return cnn__wrong(s, "its entry %.80s is not where the ZIP directory says", name);
    field[2] += 30 + cnn__little(s->file + field[2] + 26, 2) + cnn__little(s->file + field[2] + 28, 2);
    if (field[2] > s->size || field[0] > s->size - field[2])
        return cnn__wrong(s, "its entry %.80s reaches beyond the file", name);
    *bytes = s->file + field[2];
    *size = (size_t)field[0];
    if (cnn__little(found + 16, 4) && cnn__little(found + 16, 4) != cnn__crc32(0, *bytes, *size))     /* 0: it was not computed */
        return cnn__wrong(s, "its entry %.80s is damaged: its CRC is another", name);
    return 1;
}

typedef enum cnn__thing_kind {
    CNN__OTHER,
    CNN__MARK,
    CNN__NUMBER,
    CNN__STRING,
    CNN__NAME,
    CNN__TUPLE,
    CNN__DICT,
    CNN__STORAGE,
    CNN__TENSOR
} cnn__thing_kind;

typedef struct cnn__thing {                 /* on the stack                                              */
    cnn__thing_kind kind;
    const char *text;                       /* of a string or name                                       */
    size_t n, count;                        /* the number; which dict, which tensor; a tuple's first part and how many */
} cnn__thing;

typedef struct cnn__pickle {
    cnn__state *s;
    unsigned char *at, *end;
    cnn__thing *stack, *parts, *memo;       /* an opcode makes at most one thing: room for as many as data.pkl has bytes */
    size_t depth, part_count, length, dicts;
} cnn__pickle;

static const char cnn__ordered_dict[] = "collections.OrderedDict", cnn__rebuild_tensor[] = "torch._utils._rebuild_tensor_v2",
                  cnn__rebuild_parameter[] = "torch._utils._rebuild_parameter",
                  cnn__how[] = "in Python: torch.save(model.state_dict(), path)";

static int cnn__refuse(cnn__pickle *p, int opcode, const char *on)
{
    static const char names[] = " 0POP 1POP_MARK 2DUP BBINBYTES CSHORT_BINBYTES FFLOAT GBINFLOAT IINT LLONG PPERSID QBINPERSID "
                                "RREDUCE SSTRING TBINSTRING"
                                " USHORT_BINSTRING VUNICODE ]EMPTY_LIST aAPPEND bBUILD cGLOBAL dDICT eAPPENDS gGET iINST lLIST "
                                "oOBJ pPUT \201NEWOBJ \202EXT1 \203EXT2 \204EXT4"
                                " \212LONG1 \213LONG4 \214SHORT_BINUNICODE \215BINUNICODE8 \216BINBYTES8 \217EMPTY_SET "
                                "\220ADDITEMS \221FROZENSET \222NEWOBJ_EX"
                                " \223STACK_GLOBAL \224MEMOIZE \225FRAME \226BYTEARRAY8 \227NEXT_BUFFER \230READONLY_BUFFER ";
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

static unsigned char *cnn__take(cnn__pickle *p, size_t count)              /* the next bytes; NULL past the end */
{
    unsigned char *bytes = p->at;
    if (count > (size_t)(p->end - p->at)) return cnn__broken(p, "it ends in the middle of an opcode"), (unsigned char *)NULL;
    p->at += count;
    return bytes;
}

static size_t cnn__take_number(cnn__pickle *p, int bytes)
{
    const unsigned char *b = cnn__take(p, (size_t)bytes);
    return b ? (size_t)cnn__little(b, bytes) : 0;
}

static void cnn__push(cnn__pickle *p, cnn__thing_kind kind, const char *text, size_t n)
{
    cnn__thing *t = &p->stack[p->depth++];
    t->kind = kind; t->text = text; t->n = n; t->count = 0;
}

static cnn__thing cnn__pop(cnn__pickle *p)
{
    cnn__thing none = { CNN__OTHER, "", 0, 0 };
    if (p->depth) return p->stack[--p->depth];
    cnn__broken(p, "its stack is empty");
    return none;
}

static size_t cnn__since_mark(cnn__pickle *p)              /* how many things; the mark goes away */
{
    size_t count = 0;
    while (count < p->depth && p->stack[p->depth - 1 - count].kind != CNN__MARK) count++;
    if (count == p->depth) return (size_t)cnn__broken(p, "there is no mark");
    p->depth--;
    memmove(p->stack + p->depth - count, p->stack + p->depth - count + 1, count * sizeof *p->stack);
    return count;
}

static void cnn__push_tuple(cnn__pickle *p, size_t count)  /* of the last things */
{
    if (count > p->depth) { cnn__broken(p, "its stack is empty"); return; }
    p->depth -= count;
    memcpy(p->parts + p->part_count, p->stack + p->depth, count * sizeof *p->parts);
    cnn__push(p, CNN__TUPLE, "", p->part_count);
    p->stack[p->depth - 1].count = count;
    p->part_count += count;
}

static int cnn__is(const cnn__thing *t, cnn__thing_kind kind, const char *text)
{
    return t->kind == kind && !strcmp(t->text, text);
}

static const cnn__dtype *cnn__storage_type(const char *name)               /* NULL: it is none */
{
    const cnn__dtype *dtype;
    for (dtype = cnn__dtypes; dtype->name; dtype++) if (name[0] && !strcmp(dtype->storage, name)) return dtype;
    return NULL;
}

static void cnn__take_name(cnn__pickle *p)                 /* module \n name \n */
{
    char *name = (char *)p->at;
    unsigned char *dot = (unsigned char *)memchr(p->at, '\n', (size_t)(p->end - p->at));
    unsigned char *end = dot ? (unsigned char *)memchr(dot + 1, '\n', (size_t)(p->end - dot - 1)) : NULL;
    if (!end) { cnn__take(p, (size_t)(p->end - p->at) + 1); return; }
    *dot = '.';
    *end = 0;
    p->at = end + 1;
    if (!strcmp(name, cnn__ordered_dict) || !strcmp(name, cnn__rebuild_tensor) || !strcmp(name, cnn__rebuild_parameter)
        || cnn__storage_type(name))
        cnn__push(p, CNN__NAME, name, 0);
    else
        cnn__refuse(p, 'c', name);
}

static void cnn__take_string(cnn__pickle *p)               /* moved onto its length, to end in 0 */
{
    char *to = (char *)p->at;
    size_t count = cnn__take_number(p, 4);
    unsigned char *text = cnn__take(p, count);
    if (!text || cnn__failed(p->s)) return;
    if (memchr(text, 0, count)) { cnn__broken(p, "a string has a zero byte"); return; }
    memmove(to, text, count);
    to[count] = 0;
    cnn__push(p, CNN__STRING, to, 0);
}

static void cnn__take_storage(cnn__pickle *p)              /* ("storage", type, entry, device, number of values) */
{
    cnn__thing id = cnn__pop(p);
    const cnn__thing *a = id.kind == CNN__TUPLE ? p->parts + id.n : NULL;
    if (a && id.count == 5 && cnn__is(a, CNN__STRING, "storage") && a[1].kind == CNN__NAME && cnn__storage_type(a[1].text) &&
        a[2].kind == CNN__STRING && a[4].kind == CNN__NUMBER)
        cnn__push(p, CNN__STORAGE, "", id.n);
    else
        cnn__refuse(p, 'Q', "what is no storage");
}

static int cnn__make_tensor(cnn__pickle *p, const cnn__thing *a, size_t count)     /* (storage, first, sizes, strides, gradient wanted, hooks) */
{
    const cnn__thing *storage, *size, *stride;
    cnn__stored t;
    size_t i;
    if (count < 6 || a[0].kind != CNN__STORAGE || a[1].kind != CNN__NUMBER || a[2].kind != CNN__TUPLE || a[3].kind != CNN__TUPLE
        || a[2].count != a[3].count)
        return 0;
    storage = p->parts + a[0].n;
    t = cnn__stored_of(NULL, cnn__storage_type(storage[1].text));
    t.entry = storage[2].text;
    t.first = a[1].n;
    if (!cnn__mul(&t.bytes, storage[4].n, t.dtype->bits / 8)) return 0;
    for (i = 0; i < a[2].count; i++) {
        size = p->parts + a[2].n + i;
        stride = p->parts + a[3].n + i;
        if (size->kind != CNN__NUMBER || stride->kind != CNN__NUMBER || !cnn__add_dimension(&t, size->n)) return 0;
        if (i < CNN__DIMS) t.stride[i] = stride->n;
    }
    cnn__push(p, CNN__TENSOR, "", p->s->tensors.count / sizeof t);
    cnn__put(&p->s->tensors, &t, sizeof t);
    return 1;
}

static void cnn__reduce(cnn__pickle *p)                    /* name(arguments) */
{
    cnn__thing arguments = cnn__pop(p), name = cnn__pop(p);
    const cnn__thing *a = arguments.kind == CNN__TUPLE ? p->parts + arguments.n : NULL;
    if (a && cnn__is(&name, CNN__NAME, cnn__ordered_dict)) cnn__push(p, CNN__DICT, "", ++p->dicts);
    else if (a && cnn__is(&name, CNN__NAME, cnn__rebuild_parameter) && arguments.count && a->kind == CNN__TENSOR)
        p->stack[p->depth++] = *a;
    else if (!a || !cnn__is(&name, CNN__NAME, cnn__rebuild_tensor) || !cnn__make_tensor(p, a, arguments.count))
        cnn__refuse(p, 'R', name.kind == CNN__NAME ? name.text : "what is no name");
}

static void cnn__set_items(cnn__pickle *p, size_t count)   /* key, value, key, value, ... of the dict before them */
{
    cnn__state *s = p->s;
    cnn__thing *item = p->stack + p->depth - (count < p->depth ? count : 0);
    if (count % 2 || count >= p->depth || item[-1].kind != CNN__DICT) {
        cnn__broken(p, "it sets items of what is no dict");
        return;
    }
    for (p->depth -= count; count; count -= 2, item += 2) {
        cnn__stored t = cnn__stored_of(NULL, NULL);
        if (item[0].kind != CNN__STRING) { cnn__broken(p, "a key is no string"); return; }
        if (item[1].kind == CNN__TENSOR && !s->tensors.failed) memcpy(&t, s->tensors.at + item[1].n * sizeof t, sizeof t);
        t.key = item[0].text;
        t.dict = p->stack[p->depth - 1].n;
        cnn__put(&s->tensors, &t, sizeof t);
    }
}

static int cnn__end_pickle(cnn__pickle *p)                 /* keeps the tensors of the dict that is left */
{
    cnn__state *s = p->s;
    cnn__thing dict = cnn__pop(p);
    size_t i, count, kept = 0;
    cnn__stored *t = cnn__tensors(s, &count);
    if (dict.kind != CNN__DICT) return cnn__wrong(s, "is no state dict; %s", cnn__how);
    for (i = 0; i < count; i++) {
        if (t[i].dict != dict.n) continue;
        if (!t[i].dtype) return cnn__wrong(s, "is no state dict: \"%.100s\" is no tensor; %s", t[i].key, cnn__how);
        t[kept++] = t[i];
    }
    s->tensors.count = kept * sizeof *t;
    return 1;
}

static int cnn__run_pickle(cnn__pickle *p)
{
    size_t n;
    int op;
    for (;;) {
        op = (int)cnn__take_number(p, 1);
        if (cnn__failed(p->s)) return 0;
        switch (op) {
        case 0x80: cnn__take(p, 1); break;                                         /* protocol */
        case '(': cnn__push(p, CNN__MARK, "", 0); break;
        case 'N': case 0x88: case 0x89: cnn__push(p, CNN__OTHER, "", 0); break;    /* None, True, False */
        case 'K': cnn__push(p, CNN__NUMBER, "", cnn__take_number(p, 1)); break;
        case 'M': cnn__push(p, CNN__NUMBER, "", cnn__take_number(p, 2)); break;
        case 'J': case 0x8a:                                                       /* 4 bytes; as many as it says */
            n = op == 'J' ? 4 : cnn__take_number(p, 1);
            if (n > sizeof n) { cnn__refuse(p, op, "so large a number"); break; }
            cnn__push(p, n && n <= (size_t)(p->end - p->at) && p->at[n - 1] >> 7 ? CNN__OTHER : CNN__NUMBER, "", 0);      /* negative: of no use */
            p->stack[p->depth - 1].n = cnn__take_number(p, (int)n);
            break;
        case 'X': cnn__take_string(p); break;
        case 'c': cnn__take_name(p); break;
        case '}': cnn__push(p, CNN__DICT, "", ++p->dicts); break;
        case ')': cnn__push_tuple(p, 0); break;
        case 0x85: case 0x86: case 0x87: cnn__push_tuple(p, (size_t)(op - 0x84)); break;
        case 't': cnn__push_tuple(p, cnn__since_mark(p)); break;
        case 'q': case 'r': case 'h': case 'j':                                    /* into the memo, out of it */
            n = cnn__take_number(p, op == 'q' || op == 'h' ? 1 : 4);
            if (n >= p->length || !p->depth) cnn__broken(p, "its memo has no such place");
            else if (op == 'q' || op == 'r') p->memo[n] = p->stack[p->depth - 1];
            else p->stack[p->depth++] = p->memo[n];
            break;
        case 'Q': cnn__take_storage(p); break;
        case 'R': cnn__reduce(p); break;
        case 's': cnn__set_items(p, 2); break;
        case 'u': cnn__set_items(p, cnn__since_mark(p)); break;
        case 'b':                                          /* a state dict has an attribute, _metadata, that is not needed */
            if (cnn__pop(p).kind != CNN__DICT || !p->depth || p->stack[p->depth - 1].kind != CNN__DICT)
                cnn__refuse(p, op, "what is no dict");
            break;
        case '.': return cnn__end_pickle(p);
        default: cnn__refuse(p, op, "");
        }
    }
}

static int cnn__read_pth(cnn__state *s)
{
    cnn__pickle p;
    unsigned char *bytes;
    size_t size;
    int good;
    memset(&p, 0, sizeof p);
    p.s = s;
    if (!cnn__open_zip(s)) return 0;
    if (cnn__find_entry(s, "constants.pkl", &bytes, &size))
        return cnn__wrong(s, "is a TorchScript program, no state dict; %s", cnn__how);
    if (cnn__find_entry(s, "byteorder", &bytes, &size) && (size != 6 || memcmp(bytes, "little", 6)))
        return cnn__wrong(s, "was written on a big-endian machine");
    if (!cnn__find_entry(s, "data.pkl", &p.at, &p.length)) return cnn__wrong(s, "has no data.pkl: torch.save did not write it");
    if (p.length > 1 << 20) return cnn__wrong(s, "its data.pkl has %.0f bytes, more than a state dict needs", (double)p.length);
    p.end = p.at + p.length;
    p.stack = (cnn__thing *)cnn__alloc(3 * p.length + 1, sizeof *p.stack);
    if (!p.stack) return cnn__wrong(s, "out of memory");
    p.parts = p.stack + p.length;
    p.memo = p.parts + p.length;
    good = cnn__run_pickle(&p);
    cnn__free(p.stack);
    return good;
}

static void cnn__add_entry(cnn__bytes *out, cnn__bytes *directory, const char *name, const void *bytes, size_t count)
{
    static const char padding[64] = { 0 };
    size_t place = out->count, filled = (64 - (place + 34 + strlen(name)) % 64) % 64;
    uint32_t crc = cnn__crc32(0, (const unsigned char *)bytes, count);
    int central;
    for (central = 0; central < 2; central++) {            /* the local header, and what the directory repeats of it */
        cnn__bytes *b = central ? directory : out;
        cnn__put_number(b, central ? 0x02014b50 : 0x04034b50, 4);
        if (central) cnn__put_number(b, 20, 2);            /* made for version 2.0 */
        cnn__put_number(b, 20, 2);                         /* needs version 2.0 */
        cnn__put_number(b, (uint64_t)33 << 48, 8);         /* flags, method 0: stored; time, date 1980-01-01 */
        cnn__put_number(b, crc, 4);
        cnn__put_number(b, count, 4);                      /* packed and not */
        cnn__put_number(b, count, 4);
        cnn__put_number(b, strlen(name), 2);
        cnn__put_number(b, central ? 0 : 4 + filled, 2);   /* the extra field */
        if (central) cnn__put(b, padding, 10);             /* comment, disk, attributes */
        if (central) cnn__put_number(b, place, 4);
        cnn__put(b, name, strlen(name));
    }
    cnn__print(out, "FB");                                 /* PyTorch's own extra field: padding */
    cnn__put_number(out, filled, 2);
    cnn__put(out, padding, filled);
    cnn__put(out, bytes, count);
}

static void cnn__pickle_string(cnn__bytes *b, const char *text)
{
    cnn__print(b, "X");
    cnn__put_number(b, strlen(text), 4);
    cnn__put(b, text, strlen(text));
}

static void cnn__pickle_number(cnn__bytes *b, size_t number)
{
    cnn__print(b, "J");
    cnn__put_number(b, number, 4);
}

static void cnn__compose_pth(cnn__state *s, cnn__bytes *out)
{
    cnn__bytes pickle, directory, values;
    char name[40];
    size_t i, count, place, stride;
    int d;
    const cnn__stored *t = cnn__tensors(s, &count);
    memset(&pickle, 0, sizeof pickle);
    memset(&directory, 0, sizeof directory);
    memset(&values, 0, sizeof values);
    cnn__print(&pickle, "\200\002ccollections\nOrderedDict\n)R(");
    for (i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%.0f", (double)i);
        cnn__pickle_string(&pickle, t[i].key);
        cnn__print(&pickle, "ctorch._utils\n_rebuild_tensor_v2\n((");
        cnn__pickle_string(&pickle, "storage");
        cnn__print(&pickle, "ctorch\nFloatStorage\n");
        cnn__pickle_string(&pickle, name);
        cnn__pickle_string(&pickle, "cpu");
        cnn__pickle_number(&pickle, t[i].count);
        cnn__print(&pickle, "tQ");
        cnn__pickle_number(&pickle, 0);
        cnn__print(&pickle, "(");
        for (d = 0; d < t[i].ndim; d++) cnn__pickle_number(&pickle, t[i].shape[d]);
        cnn__print(&pickle, "t(");
        for (stride = t[i].count, d = 0; d < t[i].ndim; d++) cnn__pickle_number(&pickle, stride /= t[i].shape[d]);
        cnn__print(&pickle, "t\211ccollections\nOrderedDict\n)RtR");
    }
    cnn__print(&pickle, "u.");
    cnn__add_entry(out, &directory, "net/data.pkl", pickle.at, pickle.count);
    cnn__add_entry(out, &directory, "net/byteorder", "little", 6);
    for (i = 0; i < count; i++) {
        values.count = 0;
        cnn__put_values(&values, t + i);
        snprintf(name, sizeof name, "net/data/%.0f", (double)i);
        cnn__add_entry(out, &directory, name, values.at, values.count);
    }
    cnn__add_entry(out, &directory, "net/version", "3\n", 2);
    place = out->count;
    cnn__put(out, directory.at, directory.count);
    cnn__put_number(out, 0x06054b50, 8);                   /* the end: number of the disk, and where the directory begins, */
    cnn__put_number(out, count + 3, 2);                    /* entries on this disk, */
    cnn__put_number(out, count + 3, 2);                    /* and in all */
    cnn__put_number(out, directory.count, 4);
    cnn__put_number(out, place, 4);
    cnn__put_number(out, 0, 2);                            /* no comment */
    out->failed |= pickle.failed | values.failed | directory.failed;
    if (count > 65000 || (double)out->count > 4294967295.0)
        cnn__wrong(s, "a .pth holds up to 65000 tensors and 4 GB; save it as .safetensors");
    cnn__free(pickle.at);
    cnn__free(values.at);
    cnn__free(directory.at);
}

/* ---- a network's state dict ---- */

static cnn__state cnn__state_of(cnn_net *net, const char *path)
{
    cnn__state s;
    memset(&s, 0, sizeof s);
    s.path = path ? path : "";
    s.error = &net->error;
    return s;
}

static int cnn__close_state(cnn__state *s, int result)
{
    cnn__free(s->file);
    cnn__free(s->tensors.at);
    cnn__free(s->metadata.at);
    return result;
}

static int cnn__is_pth(cnn__state *s)                      /* the ending chooses the format */
{
    const char *ending = strrchr(s->path, '.');
    if (ending && (!strcmp(ending, ".pth") || !strcmp(ending, ".pt"))) return 1;
    if (!ending || strcmp(ending, ".safetensors")) cnn__wrong(s, "the ending chooses the format: .safetensors, .pth or .pt");
    return 0;
}

static int cnn__read_state(cnn__state *s, int pth)
{
    s->file = cnn__failed(s) ? NULL : cnn__read_file(s->path, &s->size, s->error);
    return s->file && (pth ? cnn__read_pth(s) : cnn__read_safetensors(s)) && cnn__sort(s, &s->tensors, sizeof(cnn__stored));
}

static int cnn__write_state(cnn__state *s, int pth)
{
    cnn__bytes out;
    cnn__writer w;
    int good = 0;
    memset(&out, 0, sizeof out);
    if (cnn__failed(s)) return 0;
    if (pth) cnn__compose_pth(s, &out);
    else cnn__compose_safetensors(s, &out);
    if (out.failed || s->tensors.failed || s->metadata.failed) cnn__wrong(s, "out of memory");
    if (!cnn__failed(s) && cnn__begin_file(&w, s->path, s->error)) {
        fwrite(out.at, 1, out.count, w.file);
        good = cnn__end_file(&w, s->error);
    }
    cnn__free(out.at);
    return good;
}

static const char *const cnn__prefix[3] = { "", "cnn.h/moment1/", "cnn.h/moment2/" };      /* of parameters and what a checkpoint has for each */

/* Adds a block of the net's, one value a parameter, to what will be written. It stays until then: freed by the caller. */
static float *cnn__add_block(cnn_net *net, cnn__state *s, int block, const float *from)
{
    float *values = cnn__download(net, from, net->parameter_count);
    int i, d;
    for (i = 0; values && i < net->tensor_count; i++) {
        const cnn__tensor *t = &net->tensors[i];
        cnn__stored stored = cnn__stored_of(t->key, &cnn__dtypes[CNN__F32]);
        stored.prefix = cnn__prefix[block];
        stored.data = (const unsigned char *)(values + t->offset);
        for (d = 0; d < t->ndim; d++) cnn__add_dimension(&stored, (size_t)t->shape[d]);
        if (!cnn__utf8((const unsigned char *)t->key, strlen(t->key)))
            cnn__wrong(s, "the name \"%.100s\" is not UTF-8", t->key);
        cnn__put(&s->tensors, &stored, sizeof stored);
    }
    return values;
}

int cnn_save(cnn_net *net, const char *path)
{
    static const char *const format[2] = { "format", "pt" };
    cnn__state s;
    float *values;
    int good;
    if (!cnn__ready(net) || !cnn__sync(net)) return 0;
    s = cnn__state_of(net, path);
    cnn__put(&s.metadata, format, sizeof format);
    values = cnn__add_block(net, &s, 0, net->parameters);
    good = cnn__write_state(&s, cnn__is_pth(&s));
    cnn__free(values);
    return cnn__close_state(&s, good);
}

/* The tensor of the file for one of the net's; NULL if it is not there or of another shape. */
static const cnn__stored *cnn__fitting(const cnn__state *s, const char *prefix, const cnn__tensor *t)
{
    const cnn__stored *stored = cnn__find_stored(s, prefix, t->key);
    int d;
    for (d = 0; stored && d < t->ndim; d++)
        if (stored->ndim != t->ndim || stored->shape[d] != (size_t)t->shape[d]) return NULL;
    return stored;
}

typedef struct cnn__list { int count; char names[110]; } cnn__list;

static void cnn__add_name(cnn__list *list, const char *name)               /* as many as there is room for */
{
    size_t used = strlen(list->names), room = sizeof list->names - used;
    if (!list->count++) snprintf(list->names, room, "%.90s", name);
    else if (used + strlen(name) + 8 < sizeof list->names) snprintf(list->names + used, room, ", %s", name);
    else if (strcmp(list->names + used - 3, "...")) snprintf(list->names + used, room, ", ...");
}

/* Says in one sentence what does not fit; "" if all does. */
static void cnn__compare(cnn_net *net, cnn__state *s, const char *prefix, cnn__text *sentence)
{
    static const char *const what[3] = { "missing", "unexpected", "mis-shaped" };
    cnn__list lists[3];
    cnn__text name;
    size_t k, count;
    const cnn__stored *stored = cnn__tensors(s, &count), *found;
    int i, d;
    memset(lists, 0, sizeof lists);
    for (i = 0; i < net->tensor_count; i++) {
        const cnn__tensor *t = &net->tensors[i];
        char *end = name.s + snprintf(name.s, 120, "%s: ", t->key);
        if (!(found = cnn__find_stored(s, prefix, t->key))) cnn__add_name(&lists[0], t->key);
        else if (!cnn__fitting(s, prefix, t)) {
            if (!found->ndim) end += snprintf(end, 24, "one value");
            for (d = 0; d < found->ndim && d < CNN__DIMS; d++)
                end += snprintf(end, 24, "%s%.0f", d ? " x " : "", (double)found->shape[d]);
            for (d = 0; d < t->ndim; d++) end += snprintf(end, 36, "%s%d", d ? " x " : " instead of ", t->shape[d]);
            cnn__add_name(&lists[2], name.s);
        }
    }
    for (k = 0; k < count && !prefix[0]; k++) {
        for (i = 0; i < net->tensor_count && strcmp(net->tensors[i].key, stored[k].key); i++) { }
        if (i == net->tensor_count && strncmp(stored[k].key, "cnn.h/", 6)) cnn__add_name(&lists[1], stored[k].key);
    }
    sentence->s[0] = 0;
    for (i = 0; i < 3; i++)
        if (lists[i].count)
            snprintf(sentence->s + strlen(sentence->s), 140, "%s%d %s (%s)", sentence->s[0] ? ", " : "", lists[i].count,
                     what[i], lists[i].names);
}

/* Reads all that fit into values; how many, or -1 and a sentence. */
static int cnn__read_block(cnn_net *net, cnn__state *s, const char *prefix, float *values)
{
    int i, count = 0;
    for (i = 0; i < net->tensor_count; i++) {
        const cnn__stored *fitting = cnn__fitting(s, prefix, &net->tensors[i]);
        char name[100];
        cnn__stored t;
        size_t size = 0;
        unsigned char *bytes;
        if (!fitting) continue;
        t = *fitting;
        if (t.dtype - cnn__dtypes > CNN__BF16)
            return cnn__wrong(s, "\"%.100s\" is of %s; F32, F64, F16 and BF16 are read", t.key, t.dtype->name) - 1;
        if (t.entry) {
            snprintf(name, sizeof name, "data/%.80s", t.entry);
            if (!cnn__find_entry(s, name, &bytes, &size) || size != t.bytes)
                return cnn__wrong(s, "\"%.100s\" should have %.0f bytes in the entry %.90s, which has %.0f", t.key,
                                  (double)t.bytes, name, (double)size)
                     - 1;
            t.data = bytes;
        }
        if (!cnn__read_values(s, &t, values + net->tensors[i].offset)) return -1;
        count++;
    }
    return count;
}

static int cnn__load(cnn_net *net, const char *path, int partly, char *report, size_t room)
{
    cnn__state s;
    cnn__text misfits = { "" };
    float *values;
    int i, count = -1;
    if (report && room) report[0] = 0;
    if (!cnn__ready(net)) return 0;
    s = cnn__state_of(net, path);
    values = (float *)cnn__alloc(net->parameter_count, sizeof *values);
    if (!values) cnn__wrong(&s, "out of memory");
    if (cnn__read_state(&s, cnn__is_pth(&s))) {
        cnn__compare(net, &s, "", &misfits);
        if (misfits.s[0] && !partly) cnn__wrong(&s, "does not fit the network: %s", misfits.s);
        else count = cnn__read_block(net, &s, "", values);
        if (!count && misfits.s[0]) count = cnn__wrong(&s, "nothing in it fits the network: %s", misfits.s) - 1;
    }
    for (i = 0; i < net->tensor_count && count >= 0; i++) {
        const cnn__tensor *t = &net->tensors[i];
        if (cnn__fitting(&s, "", t))
            net->backend.upload(net->backend.context, net->parameters + t->offset, values + t->offset,
                                t->count * sizeof *values);
    }
    if (report && room && count >= 0)
        snprintf(report, room, "%d of %d parameters loaded%s%s", count, net->tensor_count, misfits.s[0] ? "; skipped: " : "",
                 misfits.s);
    cnn__free(values);
    return cnn__close_state(&s, count >= 0);
}

int cnn_load(cnn_net *net, const char *path) { return cnn__load(net, path, 0, NULL, 0); }
int cnn_load_partly(cnn_net *net, const char *path, char *report, size_t room) { return cnn__load(net, path, 1, report, room); }

/* ---- checkpoints ----

   A .safetensors file with the parameters under their keys, and beside them

       cnn.h/moment1/KEY, cnn.h/moment2/KEY    the optimizer's moments, if it has any
       cnn.h/training                          the numbers below, F64
       cnn.h/history                           a row an epoch: epoch, seconds, lr; loss, accuracy, count of training and of test

   In "__metadata__" stands what must be the same in the program that goes on.                               */

enum {
    CNN__SEED_HIGH,
    CNN__SEED_LOW,
    CNN__PASS,
    CNN__STEP,
    CNN__SCHEDULE_STEPS,
    CNN__LR,
    CNN__BASE_LR,
    CNN__NUMBERS,
    CNN__COLUMNS = 9
};

static void cnn__checkpoint_facts(const cnn_net *net, const char *facts[8])
{
    static const char *const optimizers[] = { "none", "sgd", "adam", "adamw" }, *const schedules[] = { "none", "step_lr",
                                                                                                       "cosine_lr",
                                                                                                       "one_cycle_lr" };
    facts[0] = "format";    facts[1] = "cnn.h checkpoint";
    facts[2] = "optimizer"; facts[3] = optimizers[net->optimizer];
    facts[4] = "schedule";  facts[5] = schedules[net->schedule];
    facts[6] = "version";   facts[7] = "1";
}

static void cnn__add_numbers(cnn__state *s, const char *key, const double *numbers, size_t rows, size_t columns)
{
    cnn__stored t = cnn__stored_of(key, &cnn__dtypes[CNN__F64]);
    t.data = (const unsigned char *)numbers;
    cnn__add_dimension(&t, rows);
    cnn__add_dimension(&t, columns);
    cnn__put(&s->tensors, &t, sizeof t);
}

int cnn_checkpoint_save(cnn_net *net, const char *path)
{
    cnn__state s;
    cnn_counters c;
    const char *facts[8];
    float *values[3] = { NULL, NULL, NULL };
    double numbers[CNN__NUMBERS], *history, *h;
    int i, good;
    if (!cnn__ready(net) || !cnn__sync(net)) return 0;
    s = cnn__state_of(net, path);
    cnn__checkpoint_facts(net, facts);
    cnn__put(&s.metadata, facts, sizeof facts);
    for (i = 0; i < 3; i++) {
        const float *from = i == 0 ? net->parameters : i == 1 ? net->moment1 : net->moment2;
        if (from) values[i] = cnn__add_block(net, &s, i, from);
    }
    c = cnn__read_counters(net);
    numbers[CNN__SEED_HIGH] = (double)(net->seed >> 32);
    numbers[CNN__SEED_LOW] = (double)(uint32_t)net->seed;
    numbers[CNN__PASS] = (double)c.pass;
    numbers[CNN__STEP] = (double)c.step;
    numbers[CNN__SCHEDULE_STEPS] = (double)net->schedule_steps;
    numbers[CNN__LR] = c.lr;
    numbers[CNN__BASE_LR] = net->base_lr;
    history = h = (double *)cnn__alloc((size_t)net->history_count * CNN__COLUMNS + 1, sizeof *history);
    if (!history) cnn__wrong(&s, "out of memory");
    for (i = 0; history && i < net->history_count; i++, h += CNN__COLUMNS) {
        const cnn_epoch *e = &net->history[i];
        h[0] = e->epoch;      h[1] = e->seconds;        h[2] = e->lr;
        h[3] = e->train.loss; h[4] = e->train.accuracy; h[5] = e->train.count;
        h[6] = e->test.loss;  h[7] = e->test.accuracy;  h[8] = e->test.count;
    }
    cnn__add_numbers(&s, "cnn.h/training", numbers, 1, CNN__NUMBERS);
    cnn__add_numbers(&s, "cnn.h/history", history, (size_t)net->history_count, CNN__COLUMNS);
    good = cnn__write_state(&s, 0);
    for (i = 0; i < 3; i++) cnn__free(values[i]);
    cnn__free(history);
    return cnn__close_state(&s, good);
}

/* Rows of numbers, copied; NULL and a sentence. Where `whole` has a column's bit, they must be whole, from 0 to `most`. */
static double *cnn__find_numbers(cnn__state *s, const char *key, size_t columns, unsigned whole, double most, size_t *rows)
{
    const cnn__stored *t = cnn__find_stored(s, "", key);
    double *numbers = NULL, n;
    size_t i;
    if (!t || t->dtype != &cnn__dtypes[CNN__F64] || t->ndim != 2 || t->shape[1] != columns || t->shape[0] > INT_MAX - 1)
        cnn__wrong(s, "has no proper %s: it is no whole checkpoint", key);
    else if (!(numbers = (double *)cnn__alloc(t->count + 1, sizeof *numbers))) cnn__wrong(s, "out of memory");
    for (i = 0; numbers && i < t->count; i++) {
        n = numbers[i] = cnn__value(t->dtype, t->data + 8 * i);
        if (whole >> i % columns & 1 && !(n >= 0 && n <= most && n == floor(n)))
            cnn__wrong(s, "%s has the number %g, which cannot be", key, n);
    }
    if (numbers) *rows = t->shape[0];
    return numbers;
}

typedef struct cnn__resumed {
    float *values;
    int blocks;
    double *numbers, *history;
    cnn_epoch *epochs;
    size_t count;
} cnn__resumed;

static int cnn__read_checkpoint(cnn_net *net, cnn__state *s, cnn__resumed *r)      /* all that is in it, checked */
{
    const char *facts[8], *const *pair, *fact;
    cnn__text misfits;
    size_t rows = 0, k;
    int i;
    if (!cnn__read_state(s, 0)) return 0;
    cnn__checkpoint_facts(net, facts);
    for (i = 0; i < 8; i += 2) {
        pair = (const char *const *)(void *)s->metadata.at;
        for (fact = "none", k = 0; k < s->metadata.count / sizeof *pair; k += 2)
            if (!strcmp(pair[k], facts[i])) fact = pair[k + 1];
        if (strcmp(fact, facts[i + 1]))
            return cnn__wrong(s, "does not fit this program: its %s is %.40s, the program's is %s", facts[i], fact,
                              facts[i + 1]);
    }
    r->numbers = cnn__find_numbers(s, "cnn.h/training", CNN__NUMBERS, (1u << CNN__LR) - 1, 4294967295.0, &rows);
    r->history = cnn__find_numbers(s, "cnn.h/history", CNN__COLUMNS, 1u << 0 | 1u << 5 | 1u << 8, INT_MAX, &r->count);
    if (cnn__failed(s)) return 0;
    if (rows != 1 || r->numbers[CNN__SCHEDULE_STEPS] > INT_MAX || !(r->numbers[CNN__LR] >= 0)
        || !(r->numbers[CNN__BASE_LR] >= 0))
        return cnn__wrong(s, "cnn.h/training has a number that cannot be");
    for (r->blocks = 0; r->blocks < 3; r->blocks++) {
        int needed = !r->blocks || (net->optimizer >= CNN__ADAM && r->numbers[CNN__STEP] > 0);
        if (!needed && net->tensor_count && !cnn__find_stored(s, cnn__prefix[r->blocks], net->tensors[0].key)) break;
        cnn__compare(net, s, cnn__prefix[r->blocks], &misfits);
        if (misfits.s[0]) return cnn__wrong(s, "does not fit the network: %s%s", cnn__prefix[r->blocks], misfits.s);
        if (cnn__read_block(net, s, cnn__prefix[r->blocks], r->values + (size_t)r->blocks * net->parameter_count) < 0) return 0;
    }
    r->epochs = (cnn_epoch *)cnn__alloc(r->count + 1, sizeof *r->epochs);
    for (k = 0; r->epochs && k < r->count; k++) {
        const double *h = r->history + k * CNN__COLUMNS;
        cnn_epoch *e = &r->epochs[k];
        e->epoch = (int)h[0];   e->seconds = h[1];        e->lr = (float)h[2];
        e->train.loss = h[3];   e->train.accuracy = h[4]; e->train.count = (int)h[5];
        e->test.loss = h[6];    e->test.accuracy = h[7];  e->test.count = (int)h[8];
    }
    return r->epochs || cnn__wrong(s, "out of memory");
}

int cnn_checkpoint_load(cnn_net *net, const char *path)
{
    cnn__state s;
    cnn__resumed r;
    int i, good;
    if (!cnn__ready(net)) return 0;
    s = cnn__state_of(net, path);
    memset(&r, 0, sizeof r);
    r.values = (float *)cnn__alloc(net->parameter_count * 3 + 1, sizeof *r.values);
    if (!r.values) cnn__wrong(&s, "out of memory");
    good = cnn__read_checkpoint(net, &s, &r) && (r.blocks < 2 || cnn__need_moment(net, &net->moment1))
        && (r.blocks < 3 || cnn__need_moment(net, &net->moment2));
    if (good) {
        cnn_counters c = cnn__read_counters(net);
        for (i = 0; i < 3; i++) {
            float **to = i == 0 ? &net->parameters : i == 1 ? &net->moment1 : &net->moment2;
            if (i >= r.blocks) cnn__backend_free(net, to);
            else
                net->backend.upload(net->backend.context, *to, r.values + (size_t)i * net->parameter_count,
                                    net->parameter_count * sizeof **to);
        }
        net->seed = c.seed = (uint64_t)r.numbers[CNN__SEED_HIGH] << 32 | (uint64_t)r.numbers[CNN__SEED_LOW];
        c.pass = (uint64_t)r.numbers[CNN__PASS];
        c.step = (uint64_t)r.numbers[CNN__STEP];
        c.lr = r.numbers[CNN__LR];
        cnn__write_counters(net, &c);
        net->schedule_steps = (long)r.numbers[CNN__SCHEDULE_STEPS];
        net->base_lr = (float)r.numbers[CNN__BASE_LR];
        cnn__free(net->history);
        net->history = r.epochs;
        net->history_count = (int)r.count;
        net->history_room = (int)r.count + 1;
        r.epochs = NULL;
    }
    cnn__free(r.values); cnn__free(r.numbers); cnn__free(r.history); cnn__free(r.epochs);
    return cnn__close_state(&s, good);
}

/* ============================================================================================
   >>look   Seeing what a network is and does: summary, gradient check, learning curves.
   ============================================================================================ */

/* ---- summary ---- */

static size_t cnn__layer_parameters(const cnn_net *net, int layer)
{
    size_t sum = 0;
    int i;
    for (i = 0; i < net->tensor_count; i++) if (net->tensors[i].layer == layer) sum += net->tensors[i].count;
    return sum;
}

static double cnn__layer_multiply_adds(const cnn__layer *l)                 /* of one sample, forward */
{
    if (l->kind == CNN__CONV2D)
        return (double)cnn__size(l->out) * (l->conv.in_channels / l->conv.groups) * l->conv.kernel_height
             * l->conv.kernel_width;
    return l->kind == CNN__LINEAR ? (double)l->in.channels * l->out.channels : 0;
}

static const char *cnn__thousands(double n, cnn__text *text)                /* 1,234,567 */
{
    char digits[64];
    int length = snprintf(digits, sizeof digits, "%.0f", n), i, to = 0;
    for (i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) text->s[to++] = ',';
        text->s[to++] = digits[i];
    }
    text->s[to] = 0;
    return text->s;
}

void cnn_summary(cnn_net *net, FILE *out)
{
    cnn__text dims, parameters, work, bytes, label;
    double all_work = 0, all_bytes;
    int i, width = 12;
    if (!cnn__ready(net)) return;
    for (i = 0; i < net->layer_count; i++) {
        int length = snprintf(label.s, sizeof label.s, "%s (%s)", net->layers[i].name, net->layers[i].type);
        if (length > width) width = length;
    }
    all_bytes = 4.0 * (double)cnn__size(net->input);
    fprintf(out, "%-*s  %14s %12s %14s %12s\n", width, "layer", "output", "parameters", "multiply-adds", "bytes");
    fprintf(out, "%-*s  %14s %12s %14s %12s\n", width, "input", cnn__dims_text(net->input, &dims), "", "",
            cnn__thousands(all_bytes, &bytes));
    for (i = 0; i < net->layer_count; i++) {
        const cnn__layer *l = &net->layers[i];
        double values = 4.0 * (double)cnn__size(l->out), p = (double)cnn__layer_parameters(net, i),
               m = cnn__layer_multiply_adds(l);
        snprintf(label.s, sizeof label.s, "%s (%s)", l->name, l->type);
        fprintf(out, "%-*s  %14s %12s %14s %12s\n", width, label.s, cnn__dims_text(l->out, &dims),
                p > 0 ? cnn__thousands(p, &parameters) : "", m > 0 ? cnn__thousands(m, &work) : "",
                cnn__thousands(values, &bytes));
        all_work += m;
        all_bytes += values;
    }
    fprintf(out, "%-*s  %14s %12s %14s %12s\n", width, "total, for one sample", "",
            cnn__thousands((double)cnn_num_parameters(net), &parameters), cnn__thousands(all_work, &work),
            cnn__thousands(all_bytes, &bytes));
}

/* ---- gradient check ---- */

typedef struct cnn__check {
    cnn_net *net;
    const cnn__layer *layer;
    int number, batch;
    float *x, *weight, *bias, *dy;          /* on the host; one value at a time is moved                 */
    cnn_counters counters;
} cnn__check;

/* sum of dy * layer(x), in double, over the samples n0 .. n1-1: the loss whose gradients backward should give */
static double cnn__check_loss(const cnn__check *c, int n0, int n1)
{
    const cnn__layer *l = c->layer;
    size_t in = cnn__size(l->in), out = cnn__size(l->out), i = out * n0;
    cnn_map_shape map;
    double sum = 0;
    int n, k, row, column;
    map.batch = c->batch; map.channels = l->in.channels; map.pixels = l->in.height * l->in.width;
    for (n = n0; n < n1; n++)
        for (k = 0; k < l->out.channels; k++)
            for (row = 0; row < l->out.height; row++)
                for (column = 0; column < l->out.width; column++, i++) {
                    double y = 0;
                    switch (l->kind) {
                    case CNN__CONV2D:     y = cnn__conv2d_at(&l->conv, c->x, c->weight, c->bias, n, k, row, column); break;
                    case CNN__POOL2D:
                        y = cnn__pool2d_at(&l->pool, c->x + in * n + (size_t)k * l->in.height * l->in.width, row, column);
                        break;
                    case CNN__LINEAR:     y = cnn__linear_at(&l->linear, c->x, c->weight, c->bias, n, k); break;
                    case CNN__ACTIVATION: y = cnn__activation_at(l->activation, l->slope, c->x[i]); break;
                    case CNN__SOFTMAX:    y = cnn__softmax_at(&map, c->x, n, k, row * l->out.width + column); break;
                    case CNN__DROPOUT:
                        y = c->net->evaluating ? c->x[i] : cnn__dropout_at(&c->counters, c->number, l->p, c->x[i], i);
                        break;
                    case CNN__FLATTEN:    y = c->x[i]; break;
                    }
                    sum += c->dy[i] * y;
                }
    return sum;
}

static int cnn__is_worse(double error, double worst) { return worst == worst && !(error <= worst); }   /* NaN is the worst */

static void cnn__check_tensor(cnn__check *c, const char *what, float *values, const float *gradient, size_t count, int samples,
                              cnn_gradcheck_result *result, FILE *out)
{
    int checked = 0, kinks = 0, failed = 0, s, is_x = values == c->x;
    int has_kinks = c->layer->activation == CNN_RELU || c->layer->activation == CNN_LEAKY_RELU
                 || (c->layer->kind == CNN__POOL2D && !c->layer->average);
    double scale = 0, worst = 0;
    size_t i, per_sample = cnn__size(c->layer->in);
    for (i = 0; i < count; i++) if (fabs(gradient[i]) > scale) scale = fabs(gradient[i]);
    for (s = 0; s < samples && (size_t)s < count; s++) {
        size_t at =
            (size_t)samples >= count ? (size_t)s : cnn__word(0, CNN__STREAM_CHECK, (uint64_t)c->number, (size_t)s) % count;
        int n0 = is_x ? (int)(at / per_sample) : 0, n1 = is_x ? n0 + 1 : c->batch;
        float value = values[at], h = 0.0009765625f * (1 + (float)fabs(value));
        double here, above, below, slope, up, down, error;
        volatile float higher = value + h, lower = value - h;              /* as floats: the step that is really taken */
        here = cnn__check_loss(c, n0, n1);
        values[at] = higher; above = cnn__check_loss(c, n0, n1);
        values[at] = lower;  below = cnn__check_loss(c, n0, n1);
        values[at] = value;
        up = (above - here) / ((double)higher - value);
        down = (here - below) / ((double)value - lower);
        slope = (above - below) / ((double)higher - lower);
        if (has_kinks && fabs(up - down) > 1e-6 * scale) { kinks++; continue; }       /* these layers are straight elsewhere */
        error = fabs(gradient[at] - slope) / (1e-3 * fabs(slope) + 1e-4 * scale + 1e-12);        /* 1: just tolerated */
        checked++;
        if (!(error <= 1)) failed++;
        if (cnn__is_worse(error, worst)) worst = error;
    }
    if (out)
        fprintf(out, "%-32s %-7s %4d checked %3d kinks %3d failed, worst at %.3f of the tolerance\n", c->layer->name, what,
                checked, kinks, failed, worst);
    result->checked += checked;
    result->kinks += kinks;
    result->failed += failed;
    if (cnn__is_worse(worst, result->worst)) {
        result->worst = worst;
        result->where = c->layer->name;
    }
}

static void cnn__check_layer(cnn_net *net, int number, int samples, cnn_gradcheck_result *result, FILE *out)
{
    const cnn__layer *l = &net->layers[number];
    size_t in = cnn__size(l->in) * (size_t)net->batch, outs = cnn__size(l->out) * (size_t)net->batch, weights = 0, biases = 0,
           i;
    const float *from = net->x;
    float *own = NULL, *x, *y = NULL, *dx = NULL, *dy = NULL, *dx_host = NULL, *gradients = NULL, *parameters = NULL;
    cnn__check c;
    cnn__op op;
    if (number) from = cnn__activation_of(net, number - 1, &own);
    memset(&c, 0, sizeof c);
    memset(&op, 0, sizeof op);
    op.first = op.last = number;
    op.conv = l->conv;
    op.linear = l->linear;
    cnn__op_batch(net, &op, net->batch);
    if (!from || !cnn__need_work(net, cnn__op_work(net, &op))) {
        cnn__backend_free(net, &own);
        return;
    }
    c.net = net; c.layer = l; c.number = number; c.batch = net->batch;
    c.counters = cnn__read_counters(net);
    c.x = cnn__download(net, from, in);
    c.dy = (float *)cnn__alloc(outs, sizeof *c.dy);
    x = (float *)cnn__backend_alloc(net, in, sizeof *x, "the gradient check");
    y = (float *)cnn__backend_alloc(net, outs, sizeof *y, "the gradient check");
    dx = (float *)cnn__backend_alloc(net, in, sizeof *dx, "the gradient check");
    dy = (float *)cnn__backend_alloc(net, outs, sizeof *dy, "the gradient check");
    cnn__backend_free(net, &own);
    if (!c.dy) cnn__say(&net->error, "out of memory");
    if (!cnn__stopped(net)) {
        const cnn_backend *b = &net->backend;
        for (i = 0; i < outs; i++) c.dy[i] = 2 * cnn__unit(cnn__word(1, CNN__STREAM_CHECK, (uint64_t)number, i)) - 1;
        b->upload(b->context, x, c.x, sizeof *x * in);
        b->upload(b->context, dy, c.dy, sizeof *dy * outs);
        b->zero(b->context, net->gradients, sizeof(float) * net->parameter_count);
        cnn__op_forward(net, &op, y, x, net->batch);
        cnn__op_backward(net, &op, dx, dy, y, x, net->batch);
        dx_host = cnn__download(net, dx, in);
        gradients = cnn__download(net, net->gradients, net->parameter_count);
        parameters = cnn__download(net, net->parameters, net->parameter_count);
    }
    if (!cnn__stopped(net)) {
        const float *dweight = cnn__parameter(net, number, "weight", gradients),
                    *dbias = cnn__parameter(net, number, "bias", gradients);
        int t;
        for (t = 0; t < net->tensor_count; t++)
            if (net->tensors[t].layer == number) *(weights ? &biases : &weights) = net->tensors[t].count;
        c.weight = cnn__parameter(net, number, "weight", parameters);
        c.bias = cnn__parameter(net, number, "bias", parameters);
        cnn__check_tensor(&c, "input", c.x, dx_host, in, samples, result, out);
        if (c.weight) cnn__check_tensor(&c, "weight", c.weight, dweight, weights, samples, result, out);
        if (c.bias) cnn__check_tensor(&c, "bias", c.bias, dbias, biases, samples, result, out);
    }
    cnn__free(c.x); cnn__free(c.dy); cnn__free(dx_host); cnn__free(gradients); cnn__free(parameters);
    cnn__backend_free(net, &x); cnn__backend_free(net, &y); cnn__backend_free(net, &dx); cnn__backend_free(net, &dy);
}

cnn_gradcheck_result cnn_gradcheck(cnn_net *net, const cnn_batch *batch, int samples, FILE *out)
{
    cnn_gradcheck_result result = { 0, 0, 0, 0, "" };
    int i, tf32 = net ? net->allow_tf32 : 0;
    cnn_allow_tf32(net, 0);                                /* its rounding is larger than what a check lets pass */
    cnn_forward(net, batch);
    for (i = 0; !cnn__stopped(net) && i < net->layer_count; i++)
        if (net->layers[i].kind != CNN__FLATTEN && !cnn__does_nothing(net, &net->layers[i]))
            cnn__check_layer(net, i, samples > 0 ? samples : 10, &result, out);
    cnn_zero_grad(net);
    if (cnn__stopped(net)) result.failed++;
    if (!net) return result;
    net->has_loss = 0;
    net->allow_tf32 = tf32;
    return result;
}

/* ---- learning curves ---- */

typedef enum cnn__curve { CNN__TRAIN_LOSS, CNN__TEST_LOSS, CNN__TRAIN_ACCURACY, CNN__TEST_ACCURACY } cnn__curve;

/* Infinite, which is not drawn, where an epoch was not tested. */
static double cnn__curve_at(const cnn_net *net, cnn__curve curve, int i)
{
    const cnn_epoch *e = &net->history[i];
    if (!e->test.count && (curve == CNN__TEST_LOSS || curve == CNN__TEST_ACCURACY)) return HUGE_VAL;
    switch (curve) {
    case CNN__TRAIN_LOSS:     return e->train.loss;
    case CNN__TEST_LOSS:      return e->test.loss;
    case CNN__TRAIN_ACCURACY: return 100 * e->train.accuracy;
    default:                  return 100 * e->test.accuracy;
    }
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
        snprintf(text->s, sizeof text->s, "%.*e", cnn__order(largest) - order, v);
    else
        snprintf(text->s, sizeof text->s, "%.*f", order < 0 ? -order : 0, v);
    if (strlen(text->s) > 9) snprintf(text->s, sizeof text->s, "%.2e", v);
    return text->s;
}

static double cnn__curve_range(const cnn_net *net, cnn__curve first, double *low, double *high)      /* returns the axis's step */
{
    int i, c;
    double step;
    *low = HUGE_VAL;
    *high = -HUGE_VAL;
    for (c = 0; c < 1 + cnn__has_test(net); c++)
        for (i = 0; i < net->history_count; i++) {
            double v = cnn__curve_at(net, (cnn__curve)(first + c), i);
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

static void cnn__svg_text(FILE *f, const char *text)                       /* <, >, & and " as SVG wants them; NULL is "" */
{
    for (; text && *text; text++)
        if (*text == '<') fputs("&lt;", f);
        else if (*text == '>') fputs("&gt;", f);
        else if (*text == '&') fputs("&amp;", f);
        else if (*text == '"') fputs("&quot;", f);
        else fputc(*text, f);
}

static const int cnn__plot_width = 320, cnn__plot_height = 220;

static double cnn__epoch_x(int epochs, int i)              /* one epoch alone stands in the middle */
{
    return cnn__plot_width * (epochs > 1 ? (double)i / (epochs - 1) : 0.5);
}

static void cnn__svg_plot(FILE *f, const cnn_net *net, int left, int top, cnn__curve first, const char *title, const char *unit)
{
    static const char *const colour[2] = { "#1f77b4", "#d95f02" }, *const legend[2] = { "train", "test" };
    double low, high, step, v, x, y;
    int c, i, n = net->history_count, every = n > 10 ? (int)cnn__axis_step(0, 0.4 * n) : 1;
    cnn__text text;
    step = cnn__curve_range(net, first, &low, &high);
    fprintf(f,
            "<g transform=\"translate(%d %d)\">\n<text x=\"%d\" y=\"-12\" text-anchor=\"middle\" font-size=\"15\">%s</text>\n",
            left, top, cnn__plot_width / 2, title);
    for (i = 0; i <= (int)((high - low) / step + 0.5); i++) {
        v = low + i * step;
        y = cnn__plot_height * (high - v) / (high - low);
        fprintf(
            f,
            "<line x1=\"0\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" class=\"grid\"/><text x=\"-8\" y=\"%.1f\" text-anchor=\"end\">",
            cnn__plot_width, y, y, y + 4);
        fprintf(f, "%s</text>\n", cnn__axis_text(v, low, high, step, &text));
    }
    for (i = 0; i < n; i++) {                              /* at most ten numbers, all as far apart */
        if (net->history[i].epoch % every) continue;
        x = cnn__epoch_x(n, i);
        fprintf(f,
                "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"%d\" class=\"grid\"/><text x=\"%.1f\" y=\"%d\" "
                "text-anchor=\"middle\">%d</text>\n",
                x, x, cnn__plot_height, x, cnn__plot_height + 18, net->history[i].epoch);
    }
    fprintf(f,
            "<rect width=\"%d\" height=\"%d\" class=\"axis\"/>\n<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">epoch</text>\n"
            "<text transform=\"translate(-46 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n",
            cnn__plot_width, cnn__plot_height, cnn__plot_width / 2, cnn__plot_height + 38, cnn__plot_height / 2, unit);
    for (c = 0; c < 1 + cnn__has_test(net); c++) {
        int at = first == CNN__TRAIN_LOSS ? 20 + 18 * c : cnn__plot_height - 30 + 18 * c, points = 0;
        fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour[c]);
        for (i = 0; i < n; i++) {
            v = cnn__curve_at(net, (cnn__curve)(first + c), i);
            if (!(v - v == 0)) continue;
            x = cnn__epoch_x(n, i);
            y = cnn__plot_height * (high - v) / (high - low);
            fprintf(f, "%.1f,%.1f ", x, y);
            points++;
        }
        fprintf(f, "\"/>\n");
        if (points == 1)                                   /* one point makes no line */
            fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", x, y, colour[c]);
        fprintf(f,
                "<line x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\" stroke=\"%s\" stroke-width=\"2\"/><text x=\"%d\" "
                "y=\"%d\">%s</text>\n",
                cnn__plot_width - 80, cnn__plot_width - 56, at, at, colour[c], cnn__plot_width - 48, at + 4, legend[c]);
    }
    fprintf(f, "</g>\n");
}

static void cnn__write_curves_svg(FILE *f, const cnn_net *net, const char *title)
{
    int width = 2 * cnn__plot_width + 180, height = cnn__plot_height + 130;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n"
            "<style>.grid{stroke:#ddd}.axis{fill:none;stroke:#444}text{fill:#222}</style>\n<rect width=\"%d\" height=\"%d\" "
            "fill=\"#fff\"/>\n"
            "<text x=\"%d\" y=\"26\" text-anchor=\"middle\" font-size=\"18\">",
            width, height, width, height, width / 2);
    cnn__svg_text(f, title);
    fprintf(f, "</text>\n");
    cnn__svg_plot(f, net, 70, 70, CNN__TRAIN_LOSS, "Loss", "mean loss per sample");
    cnn__svg_plot(f, net, 70 + cnn__plot_width + 90, 70, CNN__TRAIN_ACCURACY, "Accuracy", "accuracy, %");
    fprintf(f, "</svg>\n");
}

static int cnn__has_history(cnn_net *net, const char *call)
{
    if (cnn__stopped(net)) return 0;
    if (!net->history_count) cnn__say(&net->error, "%s: there are no epochs to draw; call cnn_fit first", call);
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
    fprintf(w.file, "epoch,train_loss,train_acc,test_loss,test_acc,lr,seconds\n");
    for (i = 0; i < net->history_count; i++) {
        const cnn_epoch *e = &net->history[i];
        fprintf(w.file, "%d,%.9g,%.9g,", e->epoch, e->train.loss, e->train.accuracy);
        if (e->test.count) fprintf(w.file, "%.9g,%.9g", e->test.loss, e->test.accuracy);
        else fprintf(w.file, ",");
        fprintf(w.file, ",%.9g,%.3f\n", e->lr, e->seconds);
    }
    return cnn__end_file(&w, &net->error);
}

/* One mark an epoch, in its column; one epoch alone stands in the middle, as in the SVG. */
static void cnn__sketch(const cnn_net *net, FILE *out, cnn__curve first, const char *title)
{
    enum { WIDTH = 60, HEIGHT = 9 };
    char cell[HEIGHT][WIDTH + 1];
    double low, high, step = cnn__curve_range(net, first, &low, &high);
    int c, i, row, column, n = net->history_count;
    cnn__text text;
    for (row = 0; row < HEIGHT; row++) {
        memset(cell[row], ' ', WIDTH);
        cell[row][WIDTH] = 0;
    }
    for (c = 0; c < 1 + cnn__has_test(net); c++)
        for (i = 0; i < n; i++) {
            double v = cnn__curve_at(net, (cnn__curve)(first + c), i);
            char mark = c ? 'o' : '.', *at;
            if (!(v - v == 0)) continue;
            column = n > 1 ? (int)((double)i * (WIDTH - 1) / (n - 1) + 0.5) : WIDTH / 2;
            row = (int)((high - v) / (high - low) * (HEIGHT - 1) + 0.5);
            at = &cell[row][column];
            *at = *at == ' ' || *at == mark ? mark : '8';
        }
    fprintf(out, "%s\n", title);
    for (row = 0; row < HEIGHT; row++)
        if (row == 0 || row == HEIGHT / 2 || row == HEIGHT - 1)
            fprintf(out, "%9s |%s\n",
                    cnn__axis_text(high - (high - low) * row / (HEIGHT - 1), low, high, step / 10, &text), cell[row]);
        else
            fprintf(out, "          |%s\n", cell[row]);
    fprintf(out, "          +------------------------------------------------------------\n");
    if (n > 1)
        fprintf(out, "           epoch %-3d%*d\n", net->history[0].epoch, WIDTH - 9, net->history[n - 1].epoch);
    else
        fprintf(out, "%*s %d\n", 10 + WIDTH / 2, "epoch", net->history[0].epoch);      /* the number below the mark */
}

void cnn_print_curves(const cnn_net *net, FILE *out)
{
    if (cnn__stopped(net) || !net->history_count) return;
    cnn__sketch(net, out, CNN__TRAIN_LOSS, cnn__has_test(net) ? "loss: . train  o test  8 both" : "loss (training)");
    cnn__sketch(net, out, CNN__TRAIN_ACCURACY,
                cnn__has_test(net) ? "accuracy, %: . train  o test  8 both" : "accuracy, % (training)");
}

/* ---- explain: one output value, with its numbers ---- */

static void cnn__explain_conv(FILE *out, const cnn__layer *l, const float *x, const float *weight, const float *bias, int k,
                              int row, int column)
{
    const cnn_conv2d_shape *s = &l->conv;
    int depth = s->in_channels / s->groups, first = k / (s->out_channels / s->groups) * depth, c, y, u;
    double sum = 0;
    fprintf(out, "f(%d, %d, %d) = b(%d) + sum over c, y, x of  z(c, %d + y%s, %d + x%s) u(%d, c, y, x)\n", k, row, column, k,
            row * s->stride_height - s->pad_top, s->dilation_height > 1 ? " d" : "", column * s->stride_width - s->pad_left,
            s->dilation_width > 1 ? " d" : "", k);
    for (c = 0; c < depth; c++) {
        double part = 0;
        fprintf(out, "  c = %d\n", first + c);
        for (y = 0; y < s->kernel_height; y++) {
            int j = row * s->stride_height + y * s->dilation_height - s->pad_top,
                from = cnn__border(j, s->in_height, s->padding_mode);
            fprintf(out, "   ");
            for (u = 0; u < s->kernel_width; u++) {
                int i = column * s->stride_width + u * s->dilation_width - s->pad_left,
                    at = cnn__border(i, s->in_width, s->padding_mode);
                double z = from < 0 || at < 0 ? 0 : x[((size_t)(first + c) * s->in_height + from) * s->in_width + at];
                double w = weight[(((size_t)k * depth + c) * s->kernel_height + y) * s->kernel_width + u];
                int padded = j < 0 || i < 0 || j >= s->in_height || i >= s->in_width;
                fprintf(out, " %s%8.4f%s*%8.4f", padded ? "[" : " ", z, padded ? "]" : " ", w);
                part += z * w;
            }
            fprintf(out, "\n");
        }
        fprintf(out, "    sum of these products: %.6f\n", part);
        sum += part;
    }
    fprintf(out, "  sum %.6f %c bias %.6f = %.6f        ([ ]: beyond the border)\n", sum, bias && bias[k] < 0 ? '-' : '+',
            bias ? fabs(bias[k]) : 0, sum + (bias ? bias[k] : 0));
}

static void cnn__explain_pool(FILE *out, const cnn__layer *l, const float *x, int k, int row, int column)
{
    const cnn_pool2d_shape *s = &l->pool;
    cnn__window w = cnn__pool2d_window(s, row, column);
    const float *map = x + (size_t)k * s->in_height * s->in_width;
    size_t winner = cnn__pool2d_winner(s, map, w);
    int j, i;
    fprintf(out, "y(%d, %d, %d) = %s of the window: rows %d to %d, columns %d to %d\n", k, row, column,
            s->average ? "mean" : "largest value", w.top, w.bottom - 1, w.left, w.right - 1);
    for (j = w.top; j < w.bottom; j++) {
        fprintf(out, "   ");
        for (i = w.left; i < w.right; i++) {
            size_t at = (size_t)j * s->in_width + i;
            fprintf(out, " %8.4f%c", map[at], !s->average && at == winner ? '*' : ' ');
        }
        fprintf(out, "\n");
    }
    if (s->average) fprintf(out, "  sum / %d = %.6f\n", w.count, cnn__pool2d_at(s, map, row, column));
    else fprintf(out, "  largest (*): %.6f\n", map[winner]);
}

/* A linear layer may have thousands of products: the largest are written out, the others summed. */
static void cnn__explain_linear(FILE *out, const cnn__layer *l, const float *x, const float *weight, const float *bias, int o)
{
    enum { SHOWN = 12 };
    int n = l->linear.in_features, shown[SHOWN], count = 0, i, k;
    double sum = 0, rest = 0;
    const float *w = weight + (size_t)o * n;
    for (i = 0; i < n; i++) {
        double product = fabs((double)x[i] * w[i]);
        for (k = count; k > 0 && product > fabs((double)x[shown[k - 1]] * w[shown[k - 1]]); k--)
            if (k < SHOWN) shown[k] = shown[k - 1];
        if (k < SHOWN) shown[k] = i;
        if (count < SHOWN && k < SHOWN) count++;
        sum += (double)x[i] * w[i];
    }
    rest = sum;
    fprintf(out, "y(%d) = b(%d) + sum over i = 0 .. %d of  W(%d, i) x(i)%s\n", o, o, n - 1, o,
            n > SHOWN ? "; the largest products:" : "");
    for (k = 0; k < count; k++) {
        double product = (double)x[shown[k]] * w[shown[k]];
        fprintf(out, "    i = %-5d %8.4f *%8.4f = %9.6f\n", shown[k], w[shown[k]], x[shown[k]], product);
        rest -= product;
    }
    if (n > SHOWN) fprintf(out, "    the other %d together:       %9.6f\n", n - SHOWN, rest);
    fprintf(out, "  sum %.6f %c bias %.6f = %.6f\n", sum, bias && bias[o] < 0 ? '-' : '+', bias ? fabs(bias[o]) : 0,
            sum + (bias ? bias[o] : 0));
}

int cnn_explain(cnn_net *net, const char *layer, int channel, int row, int column, FILE *out)
{
    static const char *const tau[] = { "", "max(0, x)", "x > 0 ? x : slope x", "1 / (1 + exp(-x))", "tanh x" };
    const cnn__layer *l;
    const float *from, *weight, *bias;
    float *own = NULL, *x, *parameters;
    size_t at;
    int number;
    cnn__text dims;
    if (!cnn__ready(net)) return 0;
    number = cnn__find_layer(net, layer);
    if (number < 0) return cnn__no_such_key(net, "cnn_explain", "layer", layer), 0;
    if (!net->batch)
        return cnn__say(&net->error, "cnn_explain: layer \"%.80s\" has no output yet; call cnn_forward first", layer), 0;
    l = &net->layers[number];
    if (channel < 0 || row < 0 || column < 0 || channel >= l->out.channels || row >= l->out.height || column >= l->out.width)
        return cnn__say(&net->error, "cnn_explain: layer \"%.80s\" puts out %s; there is no value (%d, %d, %d)", layer,
                        cnn__dims_text(l->out, &dims), channel, row, column),
               0;
    from = number ? cnn__activation_of(net, number - 1, &own) : net->x;
    if (!from) return 0;
    x = cnn__download(net, from, cnn__size(l->in));        /* the first sample of the batch */
    parameters = cnn__download(net, net->parameters, net->parameter_count);
    cnn__backend_free(net, &own);
    if (!cnn__stopped(net)) {
        at = ((size_t)channel * l->out.height + row) * l->out.width + column;
        weight = cnn__parameter(net, number, "weight", parameters);
        bias = cnn__parameter(net, number, "bias", parameters);
        fprintf(out, "layer %d (%s \"%s\"): ", number + 1, l->type, l->name);
        switch (l->kind) {
        case CNN__CONV2D:     cnn__explain_conv(out, l, x, weight, bias, channel, row, column); break;
        case CNN__POOL2D:     cnn__explain_pool(out, l, x, channel, row, column); break;
        case CNN__LINEAR:     cnn__explain_linear(out, l, x, weight, bias, channel); break;
        case CNN__ACTIVATION:
            fprintf(out, "y = %s\n  x = %.6f, y = %.6f\n", tau[l->activation], x[at],
                    cnn__activation_at(l->activation, l->slope, x[at]));
            break;
        case CNN__SOFTMAX: {
            cnn_map_shape map = { 1, 0, 0 };
            int k;
            map.channels = l->in.channels;
            map.pixels = l->in.height * l->in.width;
            fprintf(out, "y_c = exp(x_c) / sum_k exp(x_k)\n");
            for (k = 0; k < map.channels; k++) {
                double y = cnn__softmax_at(&map, x, 0, k, row * l->in.width + column);
                fprintf(out, "    k = %-4d x = %9.4f  y = %.6f%s\n", k, x[(size_t)k * map.pixels + row * l->in.width + column],
                        y, k == channel ? "  <" : "");
            }
            break;
        }
        case CNN__FLATTEN:
            fprintf(out, "value %d is x(%d, %d, %d) = %.6f\n", channel, channel / (l->in.height * l->in.width),
                    channel / l->in.width % l->in.height, channel % l->in.width, x[channel]);
            break;
        case CNN__DROPOUT: {
            cnn_counters c = cnn__read_counters(net);
            double y = net->evaluating ? x[at] : cnn__dropout_at(&c, number, l->p, x[at], at);
            fprintf(out, "%s\n  x = %.6f, y = %.6f\n",
                    net->evaluating ? "evaluation: y = x" : "training: y = m x / (1 - p), m = 0 with probability p", x[at], y);
        }
        }
    }
    cnn__free(x);
    cnn__free(parameters);
    return !cnn__stopped(net);
}

/* ---- the report: one page, with everything in it ---- */

typedef struct cnn__page { FILE *file; unsigned char three[3]; int count; } cnn__page;    /* bytes go out as base64 */

static void cnn__base64(cnn__page *page, int byte)         /* -1: the end */
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int n = page->count, k;
    unsigned bits;
    if (byte >= 0) {
        page->three[page->count++] = (unsigned char)byte;
        if (page->count < 3) return;
        n = 3;
    } else if (!n)
        return;
    for (k = n; k < 3; k++) page->three[k] = 0;
    bits = (unsigned)page->three[0] << 16 | (unsigned)page->three[1] << 8 | page->three[2];
    for (k = 0; k < 4; k++) fputc(k <= n ? digit[bits >> (18 - 6 * k) & 63] : '=', page->file);
    page->count = 0;
}

static void cnn__png_word(cnn__page *page, uint32_t *crc, uint32_t word, int bytes)       /* highest byte first */
{
    unsigned char byte;
    while (bytes--) {
        byte = (unsigned char)(word >> 8 * bytes);
        if (crc) *crc = cnn__crc32(*crc, &byte, 1);
        cnn__base64(page, byte);
    }
}

enum { CNN__STORED = 65535 };                              /* the most that a stored block of deflate holds */

/* The head of a stored block for as much of the row as it can hold; `left`: the bytes to the row's end. */
static void cnn__png_block(cnn__page *page, uint32_t *crc, size_t left, int last_row)
{
    uint32_t most = CNN__STORED, length = left < most ? (uint32_t)left : most, both = length | (length ^ 0xffff) << 16;
    int k;
    cnn__png_word(page, crc, last_row && left == length, 1);
    for (k = 0; k < 4; k++) cnn__png_word(page, crc, both >> 8 * k & 255, 1);              /* lowest byte first */
}

/* An <img> of a PNG (RFC 2083) whose pixels, (height, width, channels) with 1 or 3 channels, are stored uncompressed.
   It is shown as large as whole pixels fit into `side`; what has one row is stretched, or it could not be seen. */
static void cnn__picture(FILE *file, const unsigned char *pixels, int width, int height, int channels, int side,
                         const char *alt)
{
    enum { LEAST = 16 };
    int larger = width > height ? width : height, zoom = side > larger ? side / larger : 1;
    cnn__page page = { NULL, { 0 }, 0 };
    uint32_t crc = 0, a = 1, b = 0;
    size_t row = (size_t)width * channels, blocks = row / CNN__STORED + 1;
    int j;
    page.file = file;
    fprintf(file, "<img width=\"%d\" height=\"%d\" alt=\"%s\" src=\"data:image/png;base64,",
            width * zoom > LEAST ? width * zoom : LEAST, height * zoom > LEAST ? height * zoom : LEAST, alt);
    cnn__png_word(&page, NULL, 0x89504e47u, 4); cnn__png_word(&page, NULL, 0x0d0a1a0au, 4);
    cnn__png_word(&page, NULL, 13, 4);
    cnn__png_word(&page, &crc, 0x49484452u, 4);            /* IHDR: width, height, 8 bits, grey or RGB */
    cnn__png_word(&page, &crc, (uint32_t)width, 4); cnn__png_word(&page, &crc, (uint32_t)height, 4);
    cnn__png_word(&page, &crc, 0x0800u | (channels == 3 ? 2 : 0), 2); cnn__png_word(&page, &crc, 0, 3);
    cnn__png_word(&page, NULL, crc, 4);
    crc = 0;
    cnn__png_word(&page, NULL, (uint32_t)(2 + (size_t)height * (row + 1 + 5 * blocks) + 4), 4);
    cnn__png_word(&page, &crc, 0x49444154u, 4);            /* IDAT: a zlib stream of stored blocks; each row begins one */
    cnn__png_word(&page, &crc, 0x7801u, 2);
    for (j = 0; j < height; j++, pixels += row) {
        size_t i;
        for (i = 0; i <= row; i++) {
            uint32_t byte = i ? pixels[i - 1] : 0;         /* each row begins with filter 0 */
            if (i % CNN__STORED == 0) cnn__png_block(&page, &crc, row + 1 - i, j == height - 1);
            cnn__png_word(&page, &crc, byte, 1);
            a = (a + byte) % 65521;
            b = (b + a) % 65521;
        }
    }
    cnn__png_word(&page, &crc, b << 16 | a, 4);
    cnn__png_word(&page, NULL, crc, 4);
    cnn__png_word(&page, NULL, 0, 4); cnn__png_word(&page, NULL, 0x49454e44u, 4); cnn__png_word(&page, NULL, 0xae426082u, 4);      /* IEND */
    cnn__base64(&page, -1);
    fprintf(file, "\">\n");
}

static unsigned char cnn__grey(float value, float low, float high)         /* from black to white; NaN is black */
{
    float share = high > low ? (value - low) / (high - low) : 0;
    return (unsigned char)(share > 0 ? 255 * (share < 1 ? share : 1) : 0);
}

/* A sample of the data set as bytes, (height, width, channels): grey or RGB; of other channel numbers the first one. */
static void cnn__sample_pixels(unsigned char *pixels, const cnn_data *data, int sample, int *channels)
{
    int map = data->height * data->width, c, i;
    size_t first = (size_t)sample * data->channels * map;
    float low = 0, high = 1;
    *channels = data->channels == 3 ? 3 : 1;
    if (data->floats) {
        low = (float)HUGE_VAL;
        high = -low;
        for (i = 0; i < *channels * map; i++) {
            float v = data->floats[first + i];
            if (v < low) low = v;
            if (v > high) high = v;
        }
    }
    for (c = 0; c < *channels; c++)
        for (i = 0; i < map; i++)
            pixels[i * *channels + c] =
                data->bytes
                    ? data->bytes[first + (size_t)c * map + i]
                    : cnn__grey(data->floats[first + (size_t)c * map + i], low, high);
}

static const int cnn__map_side = 56, cnn__sample_side = 84;                /* of a picture, in pixels of the page */

/* Maps (count, channels, height, width) as pictures, each from black (its smallest value) to white; with 0 grey where `centred`. */
static void cnn__map_pictures(FILE *f, cnn_net *net, const float *maps, int count, int height, int width, int channels,
                              int centred, const char *alt)
{
    int area = height * width, m, i, c;
    unsigned char *pixels = (unsigned char *)cnn__alloc((size_t)area, (size_t)channels);
    if (!pixels) { cnn__say(&net->error, "cnn_report: out of memory"); return; }
    fprintf(f, "<div class=\"maps\">\n");
    for (m = 0; m < count; m++, maps += channels * area) {
        float low = (float)HUGE_VAL, high = -low;          /* NaN is neither, wherever it stands */
        for (i = 0; i < channels * area; i++) {
            if (maps[i] < low) low = maps[i];
            if (maps[i] > high) high = maps[i];
        }
        if (centred) {
            high = high > -low ? high : -low;
            low = -high;
        }
        for (c = 0; c < channels; c++)
            for (i = 0; i < area; i++)
                pixels[i * channels + c] = cnn__grey(maps[c * area + i], low, high);
        cnn__picture(f, pixels, width, height, channels, cnn__map_side, alt);
    }
    fprintf(f, "</div>\n");
    cnn__free(pixels);
}

static const char *cnn__class_name(const cnn_data *data, int class_number, cnn__text *text)
{
    if (data->class_names && class_number < data->classes) return data->class_names[class_number];
    snprintf(text->s, sizeof text->s, "%d", class_number);
    return text->s;
}

static void cnn__report_network(FILE *f, cnn_net *net)
{
    cnn__text a, b, c;
    double work = 0;
    int i;
    fprintf(f,
            "<h2>The network</h2>\n<div class=\"scroll\"><table "
            "class=\"network\"><tr><th>layer<th>kind<th>output<th>parameters<th>multiply-adds</tr>\n"
            "<tr><td>input<td><td>%s<td><td></tr>\n",
            cnn__dims_text(net->input, &a));
    for (i = 0; i < net->layer_count; i++) {
        const cnn__layer *l = &net->layers[i];
        double parameters = (double)cnn__layer_parameters(net, i), m = cnn__layer_multiply_adds(l);
        fprintf(f, "<tr><td>");
        cnn__svg_text(f, l->name);
        fprintf(f, "<td>%s<td>%s<td>%s<td>%s</tr>\n", l->type, cnn__dims_text(l->out, &a),
                parameters > 0 ? cnn__thousands(parameters, &b) : "", m > 0 ? cnn__thousands(m, &c) : "");
        work += m;
    }
    fprintf(f, "<tr class=\"sum\"><td>total<td><td><td>%s<td>%s</tr></table></div>\n",
            cnn__thousands((double)cnn_num_parameters(net), &a), cnn__thousands(work, &b));
}

/* A network may have more outputs than the data set has classes: those are counted together, in a last column. */
static void cnn__report_classes(FILE *f, cnn_net *net, const cnn_data *data, const int *guess)
{
    int k = data->classes, other = (int)cnn__outputs(net) > k, columns = k + other, t, g, n, most = 1,
        *counts = (int *)cnn__alloc((size_t)k * columns, sizeof *counts);
    cnn__text text;
    if (!counts) { cnn__say(&net->error, "cnn_report: out of memory"); return; }
    for (n = 0; n < data->count; n++) counts[data->labels[n] * columns + (guess[n] < k ? guess[n] : k)]++;
    for (t = 0; t < k; t++)
        for (g = 0; g < columns; g++) if (t != g && counts[t * columns + g] > most) most = counts[t * columns + g];
    fprintf(f, "<h2>Confusion matrix</h2>\n<p>Each row is a true class, each column what the network said.</p>\n<div "
               "class=\"scroll\"><table class=\"confusion\"><tr><th>");
    for (g = 0; g < k; g++) { fprintf(f, "<th>"); cnn__svg_text(f, cnn__class_name(data, g, &text)); }
    fprintf(f, "%s</tr>\n", other ? "<th>other" : "");
    for (t = 0; t < k; t++) {
        fprintf(f, "<tr><th>");
        cnn__svg_text(f, cnn__class_name(data, t, &text));
        for (g = 0; g < columns; g++) {
            int c = counts[t * columns + g];
            if (t == g) fprintf(f, "<td class=\"right\">%d", c);
            else if (c) fprintf(f, "<td style=\"background:rgba(217,95,2,%.2f)\">%d", 0.12 + 0.7 * c / most, c);
            else fprintf(f, "<td class=\"none\">0");
        }
        fprintf(f, "</tr>\n");
    }
    fprintf(f, "</table></div>\n<h2>Class by class</h2>\n<p>Precision: of those called so, the share that are. Recall: of "
               "those that are, the share called so.</p>\n"
               "<div class=\"scroll\"><table><tr><th>class<th>precision<th>recall<th>samples</tr>\n");
    for (t = 0; t < k; t++) {
        int called = 0, are = 0;
        for (g = 0; g < k; g++) called += counts[g * columns + t];
        for (g = 0; g < columns; g++) are += counts[t * columns + g];
        fprintf(f, "<tr><td>");
        cnn__svg_text(f, cnn__class_name(data, t, &text));
        if (called) fprintf(f, "<td>%.2f %%", 100.0 * counts[t * columns + t] / called);
        else fprintf(f, "<td>-");
        if (are) fprintf(f, "<td>%.2f %%", 100.0 * counts[t * columns + t] / are);
        else fprintf(f, "<td>-");
        fprintf(f, "<td>%d</tr>\n", are);
    }
    fprintf(f, "</table></div>\n");
    cnn__free(counts);
}

static void cnn__report_mistakes(FILE *f, const cnn_data *data, const int *guess, const float *probability,
                                 unsigned char *pixels)
{
    enum { SHOWN = 24 };                                   /* whole rows of six, four, three or two */
    int shown[SHOWN], count = 0, n, k, channels, all = 0;
    cnn__text a, b;
    for (n = 0; n < data->count; n++) {
        if (guess[n] == data->labels[n]) continue;
        all++;
        for (k = count; k > 0 && probability[n] > probability[shown[k - 1]]; k--) if (k < SHOWN) shown[k] = shown[k - 1];
        if (k < SHOWN) {
            shown[k] = n;
            if (count < SHOWN) count++;
        }
    }
    fprintf(f, "<h2>The most confident mistakes</h2>\n<p>");
    if (!all) {
        fprintf(f, "No mistakes: all %d samples are right.</p>\n", data->count);
        return;
    }
    fprintf(f, "%d of %d samples %s wrong", all, data->count, all == 1 ? "is" : "are");
    if (all > SHOWN) fprintf(f, "; these %d it was surest of", SHOWN);
    else if (all > 1) fprintf(f, "; those it was surest of come first");
    fprintf(f, ".</p>\n<div class=\"cards\">\n");
    for (k = 0; k < count; k++) {
        n = shown[k];
        cnn__sample_pixels(pixels, data, n, &channels);
        fprintf(f, "<figure>");
        cnn__picture(f, pixels, data->width, data->height, channels, cnn__sample_side, "sample");
        fprintf(f, "<figcaption>said <b>");
        cnn__svg_text(f, cnn__class_name(data, guess[n], &a));
        fprintf(f, "</b> (%.1f&nbsp;%%)<br>is <b>", 100 * probability[n]);
        cnn__svg_text(f, cnn__class_name(data, data->labels[n], &b));
        fprintf(f, "</b><br>sample %d</figcaption></figure>\n", n);
    }
    fprintf(f, "</div>\n");
}

static void cnn__report_kernels(FILE *f, cnn_net *net)
{
    const cnn__layer *l = &net->layers[0];
    float *parameters;
    int colour = l->kind == CNN__CONV2D && l->conv.in_channels / l->conv.groups == 3;
    if (l->kind != CNN__CONV2D) return;
    parameters = cnn__download(net, net->parameters, net->parameter_count);
    if (!parameters) return;
    fprintf(f, "<h2>The first layer's kernels</h2>\n<p>%d kernel%s of %d x %d x %d, %s.</p>\n", l->conv.out_channels,
            l->conv.out_channels == 1 ? "" : "s", l->conv.in_channels / l->conv.groups, l->conv.kernel_height,
            l->conv.kernel_width,
            colour ? "red, green and blue together; grey is 0" : "dark is negative, grey 0, bright positive");
    cnn__map_pictures(f, net, cnn__parameter(net, 0, "weight", parameters),
                      l->conv.out_channels * (colour ? 1 : l->conv.in_channels / l->conv.groups), l->conv.kernel_height,
                      l->conv.kernel_width, colour ? 3 : 1, 1, "kernel");
    cnn__free(parameters);
}

static void cnn__report_maps(FILE *f, cnn_net *net, const cnn_data *data, unsigned char *pixels)
{
    enum { SAMPLES = 3, MAPS = 32 };
    int order[SAMPLES], count = 0, n, i, channels, evaluating = net->evaluating;
    cnn_batch batch;
    cnn__text text;
    for (n = 0; n < data->count && count < SAMPLES; n++) {                 /* of different classes */
        for (i = 0; i < count && data->labels[order[i]] != data->labels[n]; i++) {}
        if (i == count) order[count++] = n;
    }
    batch.data = data; batch.order = order; batch.size = count;
    net->evaluating = 1;
    cnn_forward(net, &batch);
    fprintf(f,
            "<h2>What each layer sees</h2>\n<p>The maps of every layer for a few samples, each map from its smallest value "
            "(black) to its largest (white); of more than %d maps the first.</p>\n",
            MAPS);
    for (n = 0; n < count && !cnn__stopped(net); n++) {
        fprintf(f, "<details%s><summary>sample %d: ", n ? "" : " open", order[n]);
        cnn__svg_text(f, cnn__class_name(data, data->labels[order[n]], &text));
        fprintf(f, "</summary>\n");
        cnn__sample_pixels(pixels, data, order[n], &channels);
        cnn__picture(f, pixels, data->width, data->height, channels, cnn__sample_side, "input");
        for (i = 0; i < net->layer_count; i++) {
            const cnn__layer *l = &net->layers[i];
            size_t size = cnn__size(l->out);
            float *own, *maps;
            const float *from;
            if (l->out.flat || l->kind == CNN__DROPOUT) continue;
            from = cnn__activation_of(net, i, &own);
            maps = from ? cnn__download(net, from + size * n, size) : NULL;
            cnn__backend_free(net, &own);
            if (!maps) break;
            fprintf(f, "<h3>");
            cnn__svg_text(f, l->name);
            fprintf(f, " (%s), %s</h3>\n", l->type, cnn__dims_text(l->out, &text));
            cnn__map_pictures(f, net, maps, l->out.channels < MAPS ? l->out.channels : MAPS, l->out.height, l->out.width, 1, 0,
                              "map");
            cnn__free(maps);
        }
        fprintf(f, "</details>\n");
    }
    net->evaluating = evaluating;
}

int cnn_report(cnn_net *net, const cnn_data *data, const char *path, const char *title)
{
    static const char *const style =
        ":root{color-scheme:light "
        "dark;--ink:#222;--paper:#fff;--line:#ddd;--soft:#f4f4f2}@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:"
        "#181a1b;--line:#3a3d3f;--soft:#232628}}"
        "body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:0 "
        "auto;padding:1rem}h1{line-height:1.2}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}"
        "h3{font-size:.95rem;font-weight:600;margin:1rem 0 "
        ".3rem}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}"
        "th,td{padding:.25rem .6rem;border-bottom:1px solid "
        "var(--line);text-align:right;white-space:nowrap}th:first-child,td:first-child,.network "
        ":nth-child(2){text-align:left}.sum td{font-weight:600}"
        ".confusion td{text-align:center;min-width:2.2rem}.confusion "
        ".right{background:rgba(27,158,119,.28);font-weight:600}.confusion .none{opacity:.35}"
        ".cards{display:grid;grid-template-columns:repeat(6,1fr);gap:.8rem}"
        "@media(max-width:54rem){.cards{grid-template-columns:repeat(4,1fr)}}"
        "@media(max-width:36rem){.cards{grid-template-columns:repeat(2,1fr)}}"
        "figure{margin:0;padding:.6rem;background:var(--soft);border-radius:.5rem;font-size:.8rem}"
        "img{max-width:100%;image-rendering:pixelated;display:block;margin-bottom:.4rem}"
        ".maps{display:flex;flex-wrap:wrap;gap:4px}.maps "
        "img{margin:0;outline:1px solid var(--line)}"
        "svg{max-width:100%;height:auto;border-radius:.5rem}summary{cursor:pointer;font-weight:600;margin:.6rem 0}"
        ".numbers{display:flex;flex-wrap:wrap;gap:.8rem}.numbers div{background:var(--soft);border-radius:.5rem;padding:.6rem "
        "1rem}.numbers b{display:block;font-size:1.5rem}";
    cnn__writer w;
    cnn_score score;
    cnn__text text;
    int *guess;
    float *probability;
    unsigned char *pixels;
    if (!cnn__ready(net)) return 0;
    if (data && data->error) return cnn__take_over(&net->error, data->error), 0;
    if (!data || !data->labels || data->classes > (int)cnn__outputs(net))
        return cnn__say(&net->error, "cnn_report: needs a labelled data set with no more classes than the network has outputs"),
               0;
    score = cnn_evaluate(net, data, 0, CNN_CROSS_ENTROPY);
    guess = (int *)cnn__alloc((size_t)data->count, sizeof *guess);
    probability = (float *)cnn__alloc((size_t)data->count, sizeof *probability);
    pixels = (unsigned char *)cnn__alloc((size_t)data->height * data->width, 3);
    if (!guess || !probability || !pixels) cnn__say(&net->error, "cnn_report: out of memory");
    else if (cnn_classify(net, guess, probability, data, 0) && cnn__begin_file(&w, path, &net->error)) {
        FILE *f = w.file;
        fprintf(f, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
                   "content=\"width=device-width,initial-scale=1\"><title>");
        cnn__svg_text(f, title);
        fprintf(f, "</title>\n<style>%s</style></head>\n<body>\n<h1>", style);
        cnn__svg_text(f, title);
        fprintf(f,
                "</h1>\n<div class=\"numbers\"><div>accuracy<b>%.2f "
                "%%</b></div><div>loss<b>%.4f</b></div><div>samples<b>%s</b></div>",
                100 * score.accuracy, score.loss, cnn__thousands(score.count, &text));
        fprintf(f, "<div>parameters<b>%s</b></div><div>epochs<b>%d</b></div></div>\n",
                cnn__thousands((double)cnn_num_parameters(net), &text), net->history_count);
        if (net->history_count) {
            fprintf(f, "<h2>Learning curves</h2>\n");
            cnn__write_curves_svg(f, net, title);
        }
        cnn__report_classes(f, net, data, guess);
        cnn__report_mistakes(f, data, guess, probability, pixels);
        cnn__report_network(f, net);
        cnn__report_kernels(f, net);
        cnn__report_maps(f, net, data, pixels);
        fprintf(f, "</body></html>\n");
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
