"""bench_file.py PROGRAM FOLDER - saving and loading 400 MB, cnn.h (bench_file.c) beside PyTorch and safetensors.

Each figure is the median of five, with the file in the page cache. cnn.h's save waits until the disk has the file (fsync);
PyTorch's does not, so the same is timed with an fsync after it. safetensors.load_file maps the file; what it costs to have
the values is timed by copying them into a model, as load_state_dict does, for torch.load too.
"""
import os
import statistics
import subprocess
import sys
import time

import torch

PROGRAM, FOLDER = sys.argv[1:3]
model = torch.nn.Linear(10000, 10000)


def timed(call):
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def bench(name, save, load):
    path = os.path.join(FOLDER, 'bench_torch.' + name)
    saves, flushed, loads = [], [], []
    for _ in range(5):
        saves.append(timed(lambda: save(path)))
        flushed.append(saves[-1] + timed(lambda: flush(path)))
        loads.append(timed(lambda: model.load_state_dict(load(path))))
    os.remove(path)
    print('%s: PyTorch save %.2f (with fsync %.2f) load %.2f' % (name, *map(statistics.median, (saves, flushed, loads))), flush=True)


print(subprocess.run([PROGRAM, FOLDER], stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout, end='', flush=True)
bench('pth', lambda path: torch.save(model.state_dict(), path), lambda path: torch.load(path, weights_only=True))
try:
    import safetensors.torch
    bench('safetensors', lambda path: safetensors.torch.save_file(model.state_dict(), path), safetensors.torch.load_file)
except ImportError:
    print('safetensors: the package is not installed')
