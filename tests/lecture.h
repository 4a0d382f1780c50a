/* lecture.h - what tests and benchmarks share of the lecture's networks: themselves, and their convolutions as shapes for a
   backend's table. */
#ifndef LECTURE_H
#define LECTURE_H

#include "../cnn.h"
#include "../examples/networks.h"

#include <string.h>

typedef struct layer { int in, size, out, kernel, pooled; } layer;     /* kernel 0: linear, from in to out */

static inline cnn_conv2d_shape lecture_conv2d(layer l, int batch)
{
    cnn_conv2d_shape s;
    memset(&s, 0, sizeof s);
    s.batch = batch; s.in_channels = l.in; s.out_channels = l.out; s.groups = 1;
    s.in_height = s.in_width = s.out_height = s.out_width = l.size;
    s.kernel_height = s.kernel_width = l.kernel;
    s.stride_height = s.stride_width = s.dilation_height = s.dilation_width = 1;
    s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = l.kernel / 2;
    s.activation = CNN_RELU;
    if (!l.pooled) return s;
    s.pool.batch = batch; s.pool.channels = l.out; s.pool.in_height = s.pool.in_width = l.size;
    s.pool.out_height = s.pool.out_width = l.size / 2;
    s.pool.kernel_height = s.pool.kernel_width = s.pool.stride_height = s.pool.stride_width = 2;
    return s;
}

#endif
