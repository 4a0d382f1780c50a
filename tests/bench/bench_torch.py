#!/usr/bin/env python3
"""bench_torch.py - the same networks with cnn.h and with PyTorch, in turn, and the ratio of their times.

usage: make bench-torch          or          python3 tests/bench/bench_torch.py [--rounds N] [--steps N] [--threads N] [--net NAME]

Each round runs build/bench --short and the peer program with --steps, one after the other, so that a machine that
gets slower for a while does so for both. Each run warms up and gives its median; of the rounds, the median counts.
The peer is ../shared/peers/lecture_pytorch.py, or what PEER in the environment says.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys

NETWORKS = {'lenet5': 'LeNet-5', 'mnist_cnn': 'MNIST CNN', 'cifar10_cnn': 'CIFAR-10 CNN'}
TIMES = re.compile(r'train ([0-9.]+) ms/step, infer ([0-9.]+) ms/batch')


def fail(sentence):
    sys.exit('%s: %s' % (os.path.basename(sys.argv[0]), sentence))


def times(command):
    """(ms a training step, ms an inference batch) that the command prints."""
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    found = TIMES.search(run.stdout)
    if run.returncode or not found:
        fail('%s ended with %d: %s' % (' '.join(command), run.returncode, (run.stderr or run.stdout).strip()[-300:]))
    return float(found.group(1)), float(found.group(2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--bench', default='build/bench')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--net', choices=NETWORKS)
    options = parser.parse_args()
    peer = os.environ.get('PEER') or '../shared/peers/lecture_pytorch.py'
    if not os.path.exists(peer):
        fail('the peer program %s is not there; say where it is with PEER=...' % peer)
    try:
        import torch
    except ImportError:
        fail('%s has no torch; say which Python has it with PYTHON=...' % sys.executable)
    print('PyTorch %s and cnn.h in turn, batch 128, medians of %d rounds of %d steps'
          % (torch.__version__, options.rounds, options.steps))
    print('  %-14s threads   step: cnn.h  PyTorch  ratio   inference: cnn.h  PyTorch  ratio' % '')
    for threads in options.threads:
        for net in [options.net] if options.net else NETWORKS:
            ours, theirs = [], []
            for _ in range(options.rounds):
                ours.append(times([options.bench, '--short', '--net', net, '--threads', str(threads),
                                   '--repeats', str(options.steps)]))
                theirs.append(times([sys.executable, peer, net, '--threads', str(threads), '--steps', str(options.steps)]))
            (step, infer), (torch_step, torch_infer) = ([statistics.median(column) for column in zip(*side)]
                                                        for side in (ours, theirs))
            print('  %-14s %7d %13.2f %8.2f %6.2f %18.2f %8.2f %6.2f' % (
                NETWORKS[net], threads, step, torch_step, step / torch_step, infer, torch_infer, infer / torch_infer),
                flush=True)


if __name__ == '__main__':
    main()
