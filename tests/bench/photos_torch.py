#!/usr/bin/env python3
"""photos_torch.py - the yardstick for examples/photos.c: the same narrow ResNet-18 on the same folder, in PyTorch with torchvision.

usage: python3 photos_torch.py --data FOLDER [--epochs 30] [--seed 0] [--threads N] [--no-flip]

Pictures of 64 x 64 (Resize, CenterCrop), ImageNet's mean and deviation removed; crops padded by 8 zeros, rotations of up to 10
degrees, scales of 0.9 to 1.1, flips; batches of 32, AdamW 2e-3 with a cosine over the epochs. A fifth is kept for the test,
drawn by PyTorch: not the fifth that photos.c draws.
"""
import argparse
import time

import torch
from torch import nn
from torch.nn import functional as F
from torchvision import datasets, transforms
from torchvision.models.resnet import BasicBlock

SIZE, WIDTH = 64, 16


def resnet18(classes):
    layers = [nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = WIDTH
    for stage in range(4):
        for i in range(2):
            outputs, stride = WIDTH << stage, 2 if stage and not i else 1
            smaller = None
            if stride != 1:
                smaller = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            layers.append(BasicBlock(inputs, outputs, stride, smaller))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--data', required=True)
    parser.add_argument('--epochs', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--threads', type=int)
    parser.add_argument('--no-flip', action='store_true')
    o = parser.parse_args()
    torch.manual_seed(o.seed)
    if o.threads:
        torch.set_num_threads(o.threads)
    picture = transforms.Compose([transforms.Resize(SIZE), transforms.CenterCrop(SIZE), transforms.ToTensor(),
                                  transforms.Normalize((.485, .456, .406), (.229, .224, .225))])
    changed = [transforms.RandomAffine(10, scale=(.9, 1.1), interpolation=transforms.InterpolationMode.BILINEAR),
               transforms.RandomCrop(SIZE, padding=SIZE // 8)]
    if not o.no_flip:
        changed.append(transforms.RandomHorizontalFlip())
    changed = transforms.Compose(changed)
    data = datasets.ImageFolder(o.data, picture)
    x, y = torch.stack([sample for sample, _ in data]), torch.tensor(data.targets)
    order = torch.randperm(len(x))
    test, train = order[:(len(x) + 4) // 5], order[(len(x) + 4) // 5:]
    model = resnet18(len(data.classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, o.epochs)
    for epoch in range(1, o.epochs + 1):
        begun = time.perf_counter()
        model.train()
        for batch in train[torch.randperm(len(train))].split(32):
            loss = F.cross_entropy(model(torch.stack([changed(sample) for sample in x[batch]])), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x[batch]).argmax(1) == y[batch]).sum()) for batch in test.split(256))
        print('epoch %d/%d test_acc %.2f%% seconds %.1f' % (epoch, o.epochs, 100 * right / len(test), time.perf_counter() - begun),
              flush=True)


main()
