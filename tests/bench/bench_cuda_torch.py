#!/usr/bin/env python3
"""bench_cuda_torch.py - a training step of the lecture's networks on a GPU, with cnn.h and with PyTorch's best, in turn.

usage: make bench-cuda PYTHON=... BENCH='--rounds 5'
       python3 tests/bench/bench_cuda_torch.py [--rounds N] [--steps N] [--net NAME] [--mnist DIR]

PyTorch goes four ways: eager, compiled (torch.compile, reduce-overhead), and as one CUDA graph of the whole step, captured by
hand, with images as they are and with channels last. In all of them, and in cnn.h, the data set lies on the GPU as bytes, a
step gathers 128 samples, Adam is fused, the losses are added up there, and the host waits only after the last step.
The default precision is PyTorch's: TF32 in convolutions, float32 elsewhere. Each round measures all contestants once; of the
rounds, the median counts. Last come 30 epochs of LeNet-5 on MNIST, from the start of training to the last evaluation.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import time

from bench_torch import NETWORKS, fail

try:
    import torch
    from torch import nn
except ImportError:
    torch = None

BATCH, BATCHES = 128, 100
PRECISIONS = {'default': 'tf32', 'float32': 'float32'}          # PyTorch's name and cnn.h's
SHAPES = {'lenet5': (1, 28, 28), 'mnist_cnn': (1, 28, 28), 'cifar10_cnn': (3, 32, 32)}


def conv(inputs, outputs, kernel):
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU()]


def new_net(name):
    torch.manual_seed(0)
    pool = nn.MaxPool2d(2)
    if name == 'lenet5':
        return nn.Sequential(*conv(1, 6, 5), pool, *conv(6, 16, 5), pool, *conv(16, 120, 5), nn.Flatten(),
                             nn.Linear(5880, 84), nn.ReLU(), nn.Linear(84, 10))
    if name == 'mnist_cnn':
        return nn.Sequential(*conv(1, 32, 3), *conv(32, 64, 3), pool, nn.Dropout(0.25), nn.Flatten(),
                             nn.Linear(12544, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))
    return nn.Sequential(*conv(3, 32, 3), *conv(32, 32, 3), pool, nn.Dropout(0.25), *conv(32, 64, 3), *conv(64, 64, 3), pool,
                         nn.Dropout(0.25), nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10))


class Training:
    """A network, its optimizer and its data; step(order) trains on the samples that order names."""

    def __init__(self, name, device, compiled=False, layout=None):
        layout = layout or torch.contiguous_format
        net = new_net(name)                                     # data are its buffers: so compiled code reads them in place
        net.register_buffer('pixels', torch.randint(256, (BATCHES * BATCH, *SHAPES[name]), dtype=torch.uint8))
        net.register_buffer('labels', torch.randint(10, (BATCHES * BATCH,)))
        net.to(device, memory_format=layout)
        self.adam = torch.optim.Adam(net.parameters(), 1e-3, fused=True, capturable=device == 'cuda')
        self.sum = torch.zeros((), device=device)

        def loss_of(order):
            x = (net.pixels[order].float() / 255).contiguous(memory_format=layout)
            return nn.functional.cross_entropy(net(x), net.labels[order])

        self.loss_of = torch.compile(loss_of, mode='reduce-overhead') if compiled else loss_of

    def step(self, order):
        self.adam.zero_grad()
        loss = self.loss_of(order)
        loss.backward()
        self.adam.step()
        self.sum += loss.detach()


def captured(training):
    """training.step as one CUDA graph, by https://docs.pytorch.org/docs/stable/notes/cuda.html (whole-network capture)."""
    order = torch.arange(BATCH, device='cuda')                  # the graph reads the batch from here
    side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):                               # what is chosen or allocated once is not to be recorded
        for _ in range(11):
            training.step(order)
    torch.cuda.current_stream().wait_stream(side)
    training.adam.zero_grad()                                   # to None: backward makes gradients in the graph's own memory
    with torch.cuda.graph(graph):
        training.step(order)

    def step(batch):
        order.copy_(batch)
        graph.replay()
    return step


def ways(name, device):
    """{way: (what it trains, its step)}"""
    made = {'eager': Training(name, device), 'compiled': Training(name, device, compiled=True)}
    steps = {way: (training, training.step) for way, training in made.items()}
    for way, layout in (('graph', None), ('graph, NHWC', torch.channels_last)) if device == 'cuda' else ():
        training = Training(name, device, layout=layout)
        steps[way] = training, captured(training)
    return steps


def milliseconds(training, step, orders, steps):
    """A step's mean over so many, all under way at once."""
    training.sum.zero_()
    training.sum.item()                                         # waits
    start = time.perf_counter()
    for i in range(steps):
        step(orders[i % BATCHES])
    loss = training.sum.item() / steps
    spent = time.perf_counter() - start
    if not 0 < loss < 4:                                        # of random labels it is near ln 10
        fail('PyTorch has not trained: its mean loss is %g' % loss)
    return 1e3 * spent / steps


def ours(options, what, of, precision, count, pattern):
    """The number that bench_cuda prints; None and its sentence if there is none."""
    run = subprocess.run([options.bench, what, of, PRECISIONS[precision], str(count), options.backend], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, universal_newlines=True)
    found = re.search(pattern, run.stdout)
    if not found:
        print('cnn.h, %s, %s: %s' % (of, precision, run.stdout.strip()[-300:]))
    return float(found.group(1)) if found else None


def compare(options, name, precision):
    """{contestant: median ms a step}"""
    times = {'cnn.h': []}
    if torch:
        torch.backends.cudnn.allow_tf32 = precision == 'default'
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True                   # it tries its algorithms and keeps the fastest
        torch._dynamo.reset()
        orders = torch.randperm(BATCHES * BATCH, device=options.device).split(BATCH)
        trainings = ways(name, options.device)
        for way, (training, step) in trainings.items():
            times[way] = []
            milliseconds(training, step, orders, options.steps // 4 + 3)
    for _ in range(options.rounds):
        for way in list(times):
            ms = milliseconds(*trainings[way], orders, options.steps) if way != 'cnn.h' else \
                ours(options, 'step', name, precision, options.steps, r'([0-9.]+) ms/step')
            if ms is None:
                del times[way]                                  # the next round would say the same
            else:
                times[way].append(ms)
    return {way: statistics.median(column) for way, column in times.items()}


def print_row(name, precision, medians, all_ways):
    peers = [ms for way, ms in medians.items() if way != 'cnn.h']
    ratio = '%.2f' % (medians['cnn.h'] / min(peers)) if peers and 'cnn.h' in medians else '-'
    cells = ['%.4f' % medians[way] if way in medians else '-' for way in all_ways]
    print(('%-14s%-10s' + '%12s' * len(cells) + '%20s') % (NETWORKS[name], precision, *cells, ratio), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--bench', default='build/cuda/bench_cuda')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--net', choices=NETWORKS)
    parser.add_argument('--mnist', default=os.path.join(os.environ.get('CNN_DATA') or 'data', 'mnist'))
    parser.add_argument('--device', default='cuda', help='of PyTorch; cpu, to try this script where there is no GPU')
    parser.add_argument('--backend', default='cuda', help='of cnn.h; simd, likewise')
    options = parser.parse_args()
    if torch and options.device == 'cuda' and not torch.cuda.is_available():
        fail('PyTorch %s sees no GPU' % torch.__version__)
    device = torch.cuda.get_device_name() if torch and options.device == 'cuda' else options.device
    print('PyTorch %s on %s' % (torch.__version__, device) if torch else
          'PyTorch was not measured: %s has no torch; say which Python has it with PYTHON=...' % sys.executable)
    print('a training step, batch %d, in milliseconds: medians of %d rounds of %d steps, all contestants in turn'
          % (BATCH, options.rounds, options.steps))
    all_ways = ['cnn.h', 'eager', 'compiled', 'graph', 'graph, NHWC']
    print(('%-14s%-10s' + '%12s' * len(all_ways) + '%20s') % ('', 'precision', *all_ways, 'cnn.h / their best'))
    for name in [options.net] if options.net else NETWORKS:
        for precision in PRECISIONS:
            print_row(name, precision, compare(options, name, precision), all_ways)
    if not os.path.isdir(options.mnist):
        fail('30 epochs of LeNet-5 were not measured: there is no MNIST in %s; get it with: make mnist' % options.mnist)
    for precision in PRECISIONS:
        seconds = ours(options, 'fit', options.mnist, precision, 30, r'([0-9.]+) seconds')
        if seconds is not None:
            print('LeNet-5, 30 epochs of MNIST, %s precision: %.3f s' % (precision, seconds))


if __name__ == '__main__':
    main()
