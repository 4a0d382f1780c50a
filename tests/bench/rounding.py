#!/usr/bin/env python3
"""How far rounding alone carries one epoch of LeNet-5 on MNIST apart, in PyTorch: the same weights and batches in float32
with two of its convolutions, and in float64. What two float32 engines can be asked to agree on is no more than this.

usage: rounding.py lecture_pytorch.py DIR [SEED...]          the lecture's PyTorch program, and MNIST; takes minutes a seed
"""
import importlib.util
import sys

import torch
from torch.nn.functional import cross_entropy

STEPS, BATCH = 468, 128


def one_epoch(lecture, train, test, seed, dtype, onednn):
    torch.manual_seed(seed)
    net = lecture.lenet5().to(dtype)
    torch.backends.mkldnn.enabled = onednn
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    order = torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(seed))
    losses = []
    for step in range(STEPS):
        batch = order[step * BATCH:(step + 1) * BATCH]
        loss = cross_entropy(net((train[0][batch].float() / 255).to(dtype)), train[1][batch])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    with torch.no_grad():
        parts = zip(test[0].split(250), test[1].split(250))
        total = sum(cross_entropy(net((x.float() / 255).to(dtype)), y, reduction="sum").item() for x, y in parts)
    return losses, total / len(test[1])


def main():
    spec = importlib.util.spec_from_file_location("lecture", sys.argv[1])
    lecture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lecture)
    train, test = lecture.load(sys.argv[2], "train"), lecture.load(sys.argv[2], "test")
    for seed in map(int, sys.argv[3:] or ["0"]):
        exact = None
        for name, dtype, onednn in (("float64", torch.float64, True), ("float32, oneDNN", torch.float32, True),
                                    ("float32, native", torch.float32, False)):
            losses, tested = one_epoch(lecture, train, test, seed, dtype, onednn)
            exact = exact or losses
            apart = next((i + 1 for i in range(STEPS) if abs(losses[i] - exact[i]) > 5e-5), "none")
            print(f"seed {seed} {name:16} train_loss {sum(losses) / STEPS:.4f} test_loss {tested:.4f}  "
                  f"first step that is 5e-5 from float64: {apart}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main()
