#!/usr/bin/env python3
"""bench_infer.py - inference with cnn.h, PyTorch, ONNX Runtime and OpenVINO, in turn: ms a batch, medians of the rounds.

usage: make bench-infer PYTHON=...     or     python3 tests/bench/bench_infer.py [--rounds N] [--threads N] [--seconds S] [--batch N ...]

PYTHON has torch; onnx and onnxruntime, openvino where they are to be compared (PyPI). All compute in float32. The networks and
the program that times cnn.h are those of ../shared/peers/sweep.py, or of what PEER in the environment says.
"""
import argparse
import importlib.util
import io
import os
import statistics
import subprocess
import sys
import tempfile

import torch


def peer(path):
    if not os.path.exists(path):
        sys.exit('bench_infer.py: the peer program %s is not there; say where it is with PEER=...' % path)
    spec = importlib.util.spec_from_file_location('sweep', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contestants(model, x, threads):
    """{name: a function that computes one batch}, of the packages that are there"""
    model.eval()

    def run_torch():
        with torch.no_grad():
            model(x)

    found = {'PyTorch': run_torch}
    try:
        import onnx  # noqa: F401    torch's exporter needs it
    except ImportError:
        return found
    file = io.BytesIO()
    torch.onnx.export(model, (x,), file, input_names=['x'], output_names=['y'], dynamo=False)
    try:
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(file.getvalue(), options, providers=['CPUExecutionProvider'])
        feed = {'x': x.numpy()}
        found['ONNX Runtime'] = lambda: session.run(None, feed)
    except ImportError:
        pass
    try:
        import openvino
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(file.getvalue()), 'CPU', {
            'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY'})
        request, tensor = compiled.create_infer_request(), openvino.Tensor(x.numpy())
        found['OpenVINO'] = lambda: request.infer({0: tensor})
    except ImportError:
        pass
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--seconds', type=float, default=.3)
    parser.add_argument('--batch', type=int, nargs='+', default=[1])
    options = parser.parse_args()
    sweep_path = os.environ.get('PEER') or '../shared/peers/sweep.py'
    sweep = peer(sweep_path)
    torch.set_num_threads(options.threads)
    networks = (('LeNet-5', 1, 28, 28, sweep.LENET), ('MNIST CNN', 1, 28, 28, sweep.MNIST), ('CIFAR-10 CNN', 3, 32, 32, sweep.CIFAR),
                ('VGG', 3, 32, 32, sweep.VGG))
    with tempfile.TemporaryDirectory() as folder:
        program = folder + '/sweep'
        subprocess.run(['cc', '-O2', '-I.', os.path.dirname(sweep_path) + '/sweep.c', '-o', program, '-lm', '-pthread'], check=True)
        for batch in options.batch:
            for name, channels, height, width, layers in networks:
                model, _ = sweep.network(channels, height, width, layers)
                others = contestants(model, torch.rand(batch, channels, height, width) - .3, options.threads)
                times = {name: [] for name in ('cnn.h', *others)}
                for _ in range(options.rounds):
                    ours = subprocess.run([program, *map(str, (channels, height, width, batch, options.threads, options.seconds)), layers],
                                          stdout=subprocess.PIPE, universal_newlines=True, check=True)
                    times['cnn.h'].append(float(ours.stdout.split()[1]))
                    for other, run in others.items():
                        times[other].append(sweep.median_ms(run, options.seconds))
                print('%-13s batch %3d, %d threads: ' % (name, batch, options.threads)
                      + ', '.join('%s %.3f ms' % (who, statistics.median(values)) for who, values in times.items()), flush=True)


if __name__ == '__main__':
    main()
