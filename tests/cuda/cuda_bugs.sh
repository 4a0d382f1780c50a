#!/bin/sh
# cuda_bugs.sh - are the tests of cnn_cuda.cu able to fail? Plants one bug at a time into a copy of it and runs the copy through
# cuda_shim.h: the test named for it must find it, in the way it says. Run from the repository root; GXX is the compiler.
# cuda_bugs.sh LANE LANES: of the bugs, numbered from 0, those that are LANE modulo LANES; without, all, a lane a processor.
work=build/cuda-bugs
gxx=${GXX:-g++}
passed=0 failed=0
if ! command -v "$gxx" >/dev/null; then
    echo "SKIP cuda_bugs: $gxx is not there"
    echo "cuda_bugs: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
mkdir -p $work
if [ -z "$tests_are_built" ]; then
    for test in test_augment test_backends cuda/test_cuda test_numbers; do
        ${CC:-cc} -std=c99 -O2 -DCUDA_ON_CPU -c tests/$test.c -o $work/${test#cuda/}.o || exit 1
    done
fi
if [ $# -eq 0 ]; then
    lanes=$(nproc 2>/dev/null || echo 1) lane=0
    rm -f $work/lane*
    while [ $lane -lt "$lanes" ]; do
        tests_are_built=yes "$0" $lane "$lanes" >$work/lane$lane &
        lane=$((lane + 1))
    done
    wait
    cat $work/lane*
    awk '/^cuda_bugs: / { passed += $2; failed += $4; ended++ }
        END { failed += lanes - ended; print "cuda_bugs: " passed + 0 " passed, " failed " failed"; exit failed > 0 }
        ' lanes="$lanes" $work/lane*
    exit
fi
lane=$1 lanes=$2 number=-1

# finds NAME FLAGS ORDER 'TEST ARGUMENTS' PATTERN SED...: with the bug planted, TEST fails and says PATTERN
finds() {
    number=$((number + 1))
    [ $((number % lanes)) -eq "$lane" ] || return
    name=$1 flags=$2 order=$3 test=$4 pattern=$5
    shift 5
    sed "$@" cnn_cuda.cu >$work/$name.cu
    program=$work/$name
    if cmp -s cnn_cuda.cu $work/$name.cu; then
        said="the bug was not planted: cnn_cuda.cu has changed"
    elif ! "$gxx" -std=c++17 -O1 -I. -Wno-unknown-pragmas $flags -include tests/cuda/cuda_shim.h -x c++ -c $work/$name.cu \
            -o $program.o \
        || ! "$gxx" $flags $work/${test%% *}.o $program.o -o $program -lm; then
        said="it does not compile"
    else
        said=$(export CUDA_SHIM_ORDER=$order; timeout 300 $program ${test#* } 2>&1)
        status=$?
        if [ $status -ne 0 ] && printf '%s\n' "$said" | grep -q -e "$pattern"; then
            passed=$((passed + 1))
            echo "found: $name: $(printf '%s\n' "$said" | grep -m 1 -e "$pattern" | cut -c 1-150)"
            return
        fi
        said="status $status: $(printf '%s\n' "$said" | tail -n 3)"
    fi
    failed=$((failed + 1))
    echo "FAIL cuda_bugs: $name: $said"
}

finds missing_barrier_in_the_product '' shuffled 'test_backends cuda 2' 'FAIL .*by direct' \
    -e 's,__syncthreads();  *\(/\* nobody reads it any more\),\1,'
finds missing_barrier_seen_as_a_race '-g -fsanitize=thread' forward 'test_backends cuda 1' 'ThreadSanitizer: data race' \
    -e 's,__syncthreads();  *\(/\* nobody reads it any more\),\1,'
finds another_lanes_value_in_tf32 '' forward 'test_backends cuda 16' 'FAIL .*TF32.*by direct' \
    -e '/ lane_b(/,/^}/s,at\[i \* deep,at[(1 - i) * deep,'
finds another_lanes_result_in_tf32 '' forward 'test_backends cuda 16' 'FAIL .*TF32.*by direct' \
    -e 's,d = e % 2 \* 2\, row,d = 2 - e % 2 * 2\, row,'
finds factors_cut_off_in_tf32 '' forward 'test_backends cuda 16' 'FAIL .*TF32, rounded\|FAIL .*TF32.*by direct' \
    -e 's,return tf32 ? float_of(to_tf32(x)) : x;,return x;,'
finds missing_barrier_in_the_pooling '' reversed 'test_backends cuda 2' 'FAIL .*dx' \
    -e '/^pool2d_backward(/,/^}/s/__syncthreads();//'
finds missing_barrier_in_a_block_sum '' forward 'test_backends cuda 2' 'FAIL .*the loss' \
    -e '/double block_sum/,/^}/s/^    __syncthreads();$//'
finds divergent_barrier '' forward 'test_backends cuda 1' 'cuda_shim: .*\(divergent __syncthreads\|never come\)' \
    -e '/double block_sum/,/^}/s/^        __syncthreads();$/        if (threadIdx.x < half) __syncthreads();/'
finds read_out_of_bounds '-g -fsanitize=address' forward 'test_backends cuda 2' 'AddressSanitizer: heap-buffer-overflow' \
    -e 's/top + at < job.m/top + at <= job.m/'
finds write_out_of_bounds '' forward 'test_backends cuda 2' 'FAIL .*it wrote past the end of' \
    -e '/^pool2d_backward(/,/^}/s/i < pixels/i <= pixels/'
finds read_of_unwritten_shared_memory '' forward 'test_backends cuda 2' 'FAIL .* is -*nan, but by direct' \
    -e '/b\[k\]\[at\] = next_b/s,/ THREADS;,/ THREADS - 1;,'
finds read_of_unwritten_device_memory '' forward 'test_backends cuda 2' 'FAIL .* is -*nan, but by direct' \
    -e '/^pool2d_backward(/,/^}/s/^    for (size_t i = threadIdx.x; .*$//'
finds wrong_pixel_un_pooled '' forward 'test_backends cuda 2' 'FAIL .*dweight' \
    -e 's/j % 2 \* 2 + i % 2 };/i % 2 * 2 + j % 2 };/'
finds taps_not_turned_around '' forward 'test_backends cuda 2' 'FAIL .*dx' \
    -e 's/taps + taps - 1 - tap/taps + tap/'
finds channels_summed_twice '' forward 'test_backends cuda 4' 'FAIL .*dx' \
    -e 's/int begin = (int)blockIdx.z \* job.share/int begin = 0/'
finds another_lanes_channel_in_squares '' forward 'test_backends cuda 3' 'FAIL .*TF32.*by direct' \
    -e '/ lane_a(/,/^}/s,i / 2 \* deep,(1 - i / 2) * deep,'
finds missing_barrier_in_squares '' shuffled 'test_backends cuda 2' 'FAIL .*by direct' \
    -e 's,__syncthreads();  *\(/\* squares and kernels are there\),\1,'
finds missing_barrier_between_squares '' shuffled 'test_backends cuda 12' 'FAIL .*dweight' \
    -e 's,__syncthreads();  *\(/\* all have read it \),\1,'
finds squares_of_another_block '' forward 'test_backends cuda 12' 'FAIL .*dweight' \
    -e 's/int n = split \* job.share;/int n = split;/'
finds frozen_arguments_in_a_graph '-g -fsanitize=address' forward 'test_cuda' 'AddressSanitizer: heap-' \
    -e 's/!(c->graphs\[i\].list == c->list)/c->graphs[i].list.size() != c->list.size()/'
finds frozen_counter_in_a_graph '' forward 'test_cuda' 'FAIL .*replayed steps' \
    -e 's/!(c->graphs\[i\].list == c->list)/c->graphs[i].list.size() != c->list.size()/' \
    -e 's/^\(static __global__ void next_batch\)(cnn_counters \*c, int size, int training)/\1(cnn_counters *c, int size, uint64_t pass)/' \
    -e 's/c->pass += (uint64_t)training/c->pass = pass/' \
    -e '/^static __global__ void next_batch/s/^/static uint64_t passes;\n/' \
    -e 's/LAUNCH(of(context), next_batch, 1, c, size, training)/LAUNCH(of(context), next_batch, 1, c, size, ++passes)/'
finds the_same_batch_in_every_step '' forward 'test_cuda' 'FAIL .*from those by direct' \
    -e 's/c->batch_offset = c->next_offset/c->batch_offset = 0/'
finds labels_of_another_batch '' forward 'test_cuda' 'FAIL .*from those by direct' \
    -e '/^static __global__ void gather_rows/,/^}/s/k->batch_offset + //'
finds the_same_pictures_in_every_epoch '' forward test_augment 'FAIL .*cuda: ' \
    -e 's/STREAM_AUGMENT, k->epoch/STREAM_AUGMENT, 0/'
finds packed_samples_by_their_numbers '' forward test_augment 'FAIL .*cuda' \
    -e '/gather_augmented(/,/^}/s/s.packed ? at . sample : number/number/'
finds loss_without_the_largest_logit '' forward test_numbers 'FAIL .*cross-entropy' \
    -e '/softmax_cross_entropy(/,/^}/s/largest = row\[best\]/largest = 0/'
finds softmax_without_the_largest '' forward test_numbers 'FAIL .*softmax' \
    -e '/ softmax_forward(/,/^}/s/ - largest//'
finds norm_of_the_first_65536 '' forward test_numbers 'FAIL .*their norm is' \
    -e '/clip_squares(/,/^}/s/i < n; i += /i < n \&\& i < THREADS * THREADS; i += /'
finds not_all_are_clipped '' forward test_numbers 'FAIL .*are wrong' \
    -e 's/LAUNCH(of(context), clip_scale, threads_for(n)/LAUNCH(of(context), clip_scale, threads_for(n - n % THREADS)/'
finds loss_of_the_first_block '' forward test_numbers 'FAIL .*cross-entropy' \
    -e '/softmax_cross_entropy(/,/^}/s/n < batch; n += THREADS/n < batch \&\& n < THREADS; n += THREADS/'
finds correct_of_the_first_block '' forward test_numbers 'FAIL .*mse of labels.* correct' \
    -e '/mse_loss(/,/^}/s/labels && n < batch;/labels \&\& n < batch \&\& n < THREADS;/'
finds targets_in_place_of_labels '' forward test_numbers 'FAIL .*mse of targets and labels' \
    -e '/ cuda_mse(/,/^}/s/y, labels, batch/y, target ? NULL : labels, batch/'
finds sum_of_correct_begins_anew '' forward test_numbers 'FAIL .* in all ' \
    -e 's/c->correct_sum += correct/c->correct_sum = correct/'
finds steps_of_whole_blocks '' forward test_numbers "FAIL .*SGD's step" \
    -e 's/LAUNCH(of(context), sgd_step, threads_for(n)/LAUNCH(of(context), sgd_step, dim3((unsigned)(n \/ THREADS))/'

finds squares_of_the_first_block '' forward test_numbers 'FAIL .*mse' \
    -e '/mse_loss(/,/^}/s/threadIdx.x < blocks/threadIdx.x < 1/'
finds one_part_is_left_out '' forward 'test_backends cuda 6' 'FAIL .*by direct' \
    -e 's/split < job.splits ? job.parts/split + 1 < job.splits ? job.parts/'
finds missing_barrier_between_groups '' forward 'test_backends cuda 12' 'FAIL .*dweight' \
    -e 's,__syncthreads();  *\(/\* all have written\),\1,'
finds bias_of_the_first_square '' forward 'test_backends cuda 12' 'FAIL .*dbias' \
    -e 's/first . Tile::PIXELS \* M + map/map/'
finds missing_barrier_in_dropout '' forward 'test_backends cuda 4' 'FAIL .*y\[' \
    -e 's,__syncthreads();  *\(/\* all have drawn\),\1,'
finds recorded_before_it_has_run '' forward test_cuda 'FAIL .*capturing' \
    -e 's/if (!known) run_calls(c);/if (!known) graph->run = record(c);/'
finds refused_for_ever '' forward test_cuda 'FAIL .*told again' \
    -e 's/c->refusal\[0\] = 0;//'
finds fault_called_the_copys '' forward test_cuda 'FAIL .*CUDA_SHIM_FAULT' \
    -e '/^static void cuda_download/,/^}/s/    wait(c);.*//' -e '/^static const char .cuda_sync/,/^}/s/    wait(c);//'
finds slopes_of_positive_inputs '' forward 'test_backends cuda 4' 'FAIL .*dweight' \
    -e '/ prelu_da(/,/^}/s/if (!(x\[at\] > 0))//'
finds gelu_without_its_density '' forward 'test_backends cuda 8' 'FAIL .*dx' \
    -e '/ gelu_backward(/,/^}/s/ + x\[i\] \* expf.*0.39894228f//'
finds shares_that_do_not_overlap '' forward 'test_backends cuda 8' 'FAIL .*adaptive' \
    -e '/ pool2d_window(/,/^}/s/s.in_height + s.out_height - 1/s.in_height/'
finds padded_on_the_wrong_side '' forward 'test_backends cuda 4' 'FAIL .*to\[' \
    -e '/ pad2d(/,/^}/s/s.out_width - s.left/s.out_width/'

echo "cuda_bugs: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
