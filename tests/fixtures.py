"""Writes fixtures.bin: what PyTorch computes, in float64, for small cases of all that cnn.h can do.

    python3 tests/fixtures.py [tests/fixtures.bin]          needs torch; the same bytes each time

test_fixtures.c reads the file, without Python. It is a line of text, `cases N`, then N times:

    case KIND batch=2 channels=4 height=9 width=7           what kind of comparison; the network's input
    conv2d out_channels=4 kernel_size=3 groups=2            cnn.h's calls, one a line, with their options
    array x 2 4 9 7                                         name and size; its float32 values follow,
    ...                                                     little-endian, without a gap
    end

Inputs and parameters are float32 numbers, so both sides begin with the same ones. A network is one
operation, of which y, dy (given), dx and the parameters' gradients are listed; see each function below.
"""
import itertools
import random
import sys
from pathlib import Path

import torch
from torch import nn

cases = []
choose = random.Random(6)                        # options; torch's own generator draws the values


def normal(*shape):
    return torch.randn(shape, dtype=torch.float32).double()


def add(kind, shape, calls, arrays, **options):
    """One record of the file; shape: (batch, channels, height, width)."""
    def line(name, options):
        return " ".join([name, *(f"{key}={value}" for key, value in options.items())]) + "\n"

    text = line(f"case {kind}", dict(zip(("batch", "channels", "height", "width"), shape), **options))
    record = (text + "".join(line(name, options) for name, options in calls)).encode()
    for name, values in arrays.items():
        values = torch.as_tensor(values).detach()
        record += " ".join(["array", name, *map(str, values.shape)]).encode() + b"\n"
        record += values.numpy().astype("<f4").tobytes()
    cases.append(record + b"end\n")


# ---- one operation: forward, and backward from a given dy ----

class Conv1d(nn.Conv1d):                         # cnn.h's has height 1
    def forward(self, x):
        return super().forward(x.squeeze(2)).unsqueeze(2)


def module(name, o, channels):
    """PyTorch's module for one of cnn.h's calls."""
    def pair(option, default=None):
        both = o.get("kernel_size" if option == "kernel" else option, default)
        return o.get(option + "_height", both), o.get(option + "_width", both)

    if name in ("conv2d", "conv1d"):
        kernel, stride, dilation = pair("kernel"), pair("stride", 1), pair("dilation", 1)
        padding = "same" if o.get("padding") == "same" else pair("padding", 0)
        rest = o.get("groups", 1), not o.get("no_bias"), o.get("padding_mode", "zeros")
        if name == "conv2d":
            return nn.Conv2d(channels, o["out_channels"], kernel, stride, padding, dilation, *rest)
        padding = padding if padding == "same" else padding[1]
        return Conv1d(channels, o["out_channels"], kernel[1], stride[1], padding, dilation[1], *rest)
    if name in ("max_pool2d", "avg_pool2d"):
        kernel, padding, ceil_mode = pair("kernel"), pair("padding", 0), bool(o.get("ceil_mode"))
        stride = tuple(s or k for s, k in zip(pair("stride"), kernel))
        if name == "max_pool2d":
            return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode)
        return nn.AvgPool2d(kernel, stride, padding, ceil_mode, not o.get("exclude_padding"))
    if name == "linear":
        return nn.Linear(channels, o["out_features"], not o.get("no_bias"))
    return {"global_avg_pool2d": lambda: nn.AdaptiveAvgPool2d(1), "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh,
            "leaky_relu": lambda: nn.LeakyReLU(o.get("negative_slope", 0.01)), "softmax": lambda: nn.Softmax(1),
            "flatten": nn.Flatten}[name]()


def network(shape, calls):
    net, x = nn.Sequential(), torch.zeros(shape)
    for name, o in calls:
        net.append(module(name, o, x.shape[1]))
        x = net[-1](x)
    return net.double()


def gradients(net, x, dy):
    net.zero_grad()
    x = x.clone().requires_grad_()
    net(x).backward(dy)
    return x.grad


def operation(kind, shape, *calls, integers=False):
    """integers: small ones, so that every sum is exact and max pooling meets many ties."""
    net = network(shape, calls)
    draw = (lambda *shape: torch.randint(-2, 3, shape).double()) if integers else normal
    while True:
        for p in net.parameters():
            fan_in = p[0].numel()
            p.data = draw(*p.shape) if integers else (draw(*p.shape) / fan_in ** 0.5).float().double()
        x = draw(*shape)
        y = net(x)
        dy = normal(*y.shape)
        jump = (gradients(net, x + 1e-5 * normal(*shape), dy) - gradients(net, x, dy)).abs().max()
        if integers or jump < 1e-3:              # else a kink of ReLU or max lies too near for float32
            break
    arrays = {"x": x, "y": y, "dy": dy, "dx": gradients(net, x, dy)}
    for key, p in net.named_parameters():
        arrays |= {key: p, key + ".grad": p.grad}
    add(kind, shape, calls, arrays)


def sides(option, height, width):
    """One number where both sides are equal, so that each way to give an option is used."""
    if height == width:
        return {"kernel_size" if option == "kernel" else option: height}
    return {option + "_height": height, option + "_width": width}


def fits(o, height, width, kernel, padding, dilation):
    limit = {"zeros": 99, "replicate": 99, "reflect": -1, "circular": 0}[o["padding_mode"]]
    return all(size + 2 * p > d * (k - 1) and p <= size + limit
               for size, k, p, d in zip((height, width), kernel, padding, dilation))


def channels_for(groups):
    """groups, channels, out_channels"""
    if groups == "depthwise":
        channels = choose.choice((2, 3))
        return channels, channels, channels * choose.choice((1, 2))
    return groups, groups * choose.choice((1, 2, 3)), groups * choose.choice((1, 2, 3))


def convolutions():
    modes = "zeros", "replicate", "reflect", "circular"
    kinds = 1, 2, "depthwise"
    kernels = (1, 1), (2, 2), (3, 3), (5, 5), (3, 2), (1, 4), (2, 5), (4, 3)
    paddings = (0, 0), (1, 1), (2, 1), (0, 2), (3, 2)
    strides = (1, 1), (2, 2), (2, 1), (1, 3)
    for mode, stride, dilation, kind in itertools.product(modes, strides, ((1, 1), (2, 2), (1, 2), (3, 1)), kinds):
        groups, channels, out_channels = channels_for(kind)
        o = {"out_channels": out_channels, "groups": groups, "padding_mode": mode, "no_bias": choose.choice((0, 0, 1))}
        while True:
            batch, height, width = choose.choice(((1, 7, 6), (2, 6, 7), (1, 5, 9), (3, 5, 4), (1, 8, 8)))
            kernel, padding = choose.choice(kernels), choose.choice(paddings[mode != "zeros":])
            if fits(o, height, width, kernel, padding, dilation):
                break
        o |= sides("kernel", *kernel) | sides("stride", *stride) | sides("padding", *padding) | sides("dilation", *dilation)
        operation("convolution", (batch, channels, height, width), ("conv2d", o))
    for mode, kernel, dilation in itertools.product(modes, ((2, 2), (3, 3), (4, 3), (2, 5), (1, 4)), ((1, 1), (2, 1), (1, 3))):
        groups, channels, out_channels = channels_for(choose.choice(kinds))
        o = {"out_channels": out_channels, "groups": groups, "padding_mode": mode, "padding": "same"}
        o |= sides("kernel", *kernel) | sides("dilation", *dilation)
        operation("convolution", (choose.choice((1, 2)), channels, 7, 8), ("conv2d", o))
    for mode, stride, dilation in itertools.product(modes, (1, 2), (1, 3)):
        groups, channels, out_channels = channels_for(choose.choice(kinds))
        o = {"out_channels": out_channels, "groups": groups, "padding_mode": mode, "stride": stride, "dilation": dilation,
             "kernel_size": choose.choice((2, 3)), "padding": choose.choice((1, 2, 3)) if stride == 2 else "same"}
        operation("convolution", (choose.choice((1, 2)), channels, 1, 11), ("conv1d", o))
    # larger than the tiles and units that a fast convolution works on, and no multiple of them
    for shape, o in (((3, 7, 12, 11), {"out_channels": 19, "kernel_size": 3, "padding": 1}),
                     ((2, 33, 7, 9), {"out_channels": 10, "kernel_size": 1}),
                     ((5, 2, 17, 14), {"out_channels": 6, "kernel_size": 5, "padding": 2, "stride": 2}),
                     ((7, 1, 16, 15), {"out_channels": 2, "kernel_size": 3, "padding": 1}),
                     ((2, 20, 5, 13), {"out_channels": 5, "kernel_height": 3, "kernel_width": 4, "padding": "same", "dilation_width": 2}),
                     ((1, 32, 5, 13), {"out_channels": 6, "kernel_height": 2, "kernel_width": 3, "padding": 1, "groups": 2}),
                     ((1, 17, 6, 13), {"out_channels": 28, "kernel_height": 2, "kernel_width": 5, "padding": 1})):
        operation("convolution", shape, ("conv2d", o))


def pools():
    for name, kernel, stride, ceil_mode in itertools.product(
            ("max_pool2d", "avg_pool2d", "without padding"), ((2, 2), (3, 3), (2, 3), (3, 1), (4, 5)), (None, (1, 1), (2, 2), (2, 3)), (0, 1)):
        o = sides("kernel", *kernel) | sides("padding", *(choose.randint(0, k // 2) for k in kernel)) | {"ceil_mode": ceil_mode}
        if stride:
            o |= sides("stride", *stride)
        if name == "without padding":
            name, o["exclude_padding"] = "avg_pool2d", 1
        batch, height, width = choose.choice(((1, 7, 6), (2, 6, 7), (1, 5, 9), (1, 8, 8)))
        operation("pooling", (batch, 2, height, width), (name, o), integers=name == "max_pool2d" and ceil_mode == 1)
    operation("pooling", (3, 4, 5, 6), ("global_avg_pool2d", {}))
    operation("pooling", (1, 2, 7, 1), ("global_avg_pool2d", {}))


def activations():
    for name, o in (("relu", {}), ("leaky_relu", {}), ("leaky_relu", {"negative_slope": 0.2}), ("sigmoid", {}), ("tanh", {}), ("softmax", {})):
        operation("activation", (2, 5, 3, 4), (name, o))                            # softmax: over the channels of maps
        operation("activation", (3, 7, 1, 1), ("flatten", {}), (name, o))


def linears():
    shapes = (1, 1, 1), (1, 7, 3), (2, 33, 10), (5, 130, 17), (37, 6, 50)           # batch, inputs, outputs
    for (batch, inputs, outputs), no_bias in itertools.product(shapes, (0, 1)):
        operation("linear", (batch, inputs, 1, 1), ("flatten", {}), ("linear", {"out_features": outputs, "no_bias": no_bias}))
    for name in ("relu", "leaky_relu", "sigmoid", "tanh"):
        operation("linear", (3, 4, 3, 2), ("flatten", {}), ("linear", {"out_features": 9}), (name, {}))


def chains():
    """Convolution, activation and max pooling, which cnn.h runs as one operation."""
    conv = {"out_channels": 3, "kernel_size": 3, "padding": 1}
    for name in (None, "relu", "leaky_relu", "sigmoid", "tanh"):
        activation = [(name, {})] if name else []
        for pool in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2}, {"kernel_size": 3, "stride": 1, "padding": 1},
                     {"kernel_height": 2, "kernel_width": 3, "stride_height": 1, "stride_width": 2, "ceil_mode": 1}):
            operation("chain", (2, 2, 7, 8), ("conv2d", conv), *activation, ("max_pool2d", pool))
            operation("chain", (1, 2, 6, 9), ("conv2d", conv | {"no_bias": 1}), *activation, ("max_pool2d", pool))
        if name:
            operation("chain", (2, 2, 6, 5), ("conv2d", conv), *activation)
    options = {"out_channels": 4, "kernel_height": 2, "kernel_width": 3, "stride_width": 2, "dilation_height": 2, "padding": 2,
               "groups": 2, "padding_mode": "circular"}
    operation("chain", (3, 4, 9, 10), ("conv2d", options), ("relu", {}), ("max_pool2d", {"kernel_size": 2, "ceil_mode": 1}))
    operation("chain", (1, 3, 1, 20), ("conv1d", {"out_channels": 4, "kernel_size": 3}), ("relu", {}), ("max_pool2d", {"kernel_height": 1, "kernel_width": 2}))
    for pool in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2}):
        operation("chain", (2, 2, 9, 9), ("conv2d", conv), ("relu", {}), ("max_pool2d", pool), integers=True)


# ---- losses: x are the logits ----

def losses():
    for batch, classes, scale in ((1, 2, 1), (4, 10, 1), (3, 7, 30), (2, 5, 1000)):
        x = (normal(batch, classes, 1, 1) * scale).float().double()
        labels, targets = torch.randint(classes, (batch,)), normal(batch, classes)
        hot = nn.functional.one_hot(labels, classes).double()
        for kind, loss_of, given in (("cross_entropy", lambda y: nn.functional.cross_entropy(y, labels), {"labels": labels}),
                                     ("mse", lambda y: nn.functional.mse_loss(y, hot), {"labels": labels}),
                                     ("mse", lambda y: nn.functional.mse_loss(y, targets), {"targets": targets})):
            y = x.flatten(1).requires_grad_()
            loss = loss_of(y)
            loss.backward()
            correct = (y.argmax(1) == labels).sum() if "labels" in given else 0
            add(kind, x.shape, [("flatten", {})], {"x": x, "loss": [loss.item()], "correct": [float(correct)], "dx": y.grad} | given)


# ---- optimizers and schedules: parameters after each step, from given gradients ----

def optimizer_of(name, o, parameters):
    if name == "sgd":
        return torch.optim.SGD(parameters, **(o | {"nesterov": bool(o.get("nesterov"))}))
    o = dict(o)
    betas = o.pop("beta1", 0.9), o.pop("beta2", 0.999)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](parameters, betas=betas, **o)


def schedule_of(name, o, optimizer):
    if name == "step_lr":
        return torch.optim.lr_scheduler.StepLR(optimizer, **o)
    if name == "cosine_lr":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, o["t_max"], o.get("eta_min", 0))
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, **o, cycle_momentum=False)


def optimizer(name, o, schedule=None, steps=5, **options):
    """gradients: what clipping, if any, is given; clipped: what it makes of them; parameters: after each step."""
    shape, calls = (1, 3, 1, 1), [("flatten", {}), ("linear", {"out_features": 4})]
    net = network(shape, calls)
    for p in net.parameters():
        p.data = normal(*p.shape)
    arrays = {key: p.detach().clone() for key, p in net.named_parameters()}
    chosen = optimizer_of(name, o, net.parameters())
    scheduler = schedule_of(*schedule, chosen) if schedule else None
    rows = {key: [] for key in ("lr", "gradients", "norms", "clipped", "parameters")}
    for step in range(steps):
        rows["lr"].append(torch.tensor(chosen.param_groups[0]["lr"], dtype=torch.float64))
        for p in net.parameters():
            p.grad = (normal(*p.shape) * choose.choice((0.1, 1, 3))).float().double()
        rows["gradients"].append(torch.cat([p.grad.flatten() for p in net.parameters()]))
        if "max_norm" in options:
            rows["norms"].append(nn.utils.clip_grad_norm_(net.parameters(), options["max_norm"]))
            rows["clipped"].append(torch.cat([p.grad.flatten() for p in net.parameters()]))
        chosen.step()
        rows["parameters"].append(torch.cat([p.detach().flatten() for p in net.parameters()]))
        if scheduler and step + 1 < steps:
            scheduler.step()
    arrays |= {key: torch.stack(values) for key, values in rows.items() if values}
    add("optimizer", shape, calls + [(name, o)] + ([schedule] if schedule else []), arrays, **options)


def optimizers():
    for o in ({}, {"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.01}, {"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9, "nesterov": 1},
              {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.05}, {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.05, "nesterov": 1}):
        optimizer("sgd", o)
    for o in ({}, {"lr": 0.01}, {"lr": 0.01, "weight_decay": 0.1}, {"lr": 0.02, "beta1": 0.8, "beta2": 0.99, "eps": 0.001}):
        optimizer("adam", o)
    for o in ({}, {"lr": 0.02, "weight_decay": 0.2}):
        optimizer("adamw", o)
    for max_norm in (0.5, 4, 1000):
        optimizer("sgd", {"lr": 0.1}, max_norm=max_norm)
    for schedule in (("step_lr", {"step_size": 3, "gamma": 0.5}), ("step_lr", {"step_size": 7}), ("cosine_lr", {"t_max": 20}),
                     ("cosine_lr", {"t_max": 8, "eta_min": 0.01}), ("one_cycle_lr", {"max_lr": 0.5, "total_steps": 20}),
                     ("one_cycle_lr", {"max_lr": 0.5, "total_steps": 20, "pct_start": 0.45, "div_factor": 10, "final_div_factor": 100})):
        optimizer("sgd", {"lr": 0.1}, schedule, steps=20)
    optimizer("adamw", {"lr": 0.1}, ("one_cycle_lr", {"max_lr": 0.2, "total_steps": 10}), steps=10)


# ---- a whole LeNet-5 for 20 steps; parameters and images by formula, test_fixtures.c has the same ----

def random_numbers(state=1):
    """24 bits each (Numerical Recipes' generator)."""
    while True:
        state = (state * 1664525 + 1013904223) % 2 ** 32
        yield state >> 8


def parameter(shape, fan_in, numbers):
    bound = 1.0
    while bound * bound * fan_in > 6:            # He et al. 2015, but a power of two: the products are exact
        bound /= 2
    values = [(next(numbers) / 2 ** 23 - 1) * bound for _ in range(shape.numel())]
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def image(label, numbers):
    """Stripes whose direction tells the label, and noise."""
    return [(row * label + column * (9 - label)) // 8 % 2 * 128 + (next(numbers) >> 17)
            for row in range(28) for column in range(28)]


def digest(tensor):
    """The length of the vector, and the sums of every eighth value from 0, from 1, ..."""
    values = tensor.detach().flatten()
    return torch.stack([values.norm(), *(values[i::8].sum() for i in range(8))])


def lenet(batch=16, steps=20):
    calls = []
    for out_channels in (6, 16, 120):
        calls += [("conv2d", {"out_channels": out_channels, "kernel_size": 5, "padding": 2}), ("relu", {})]
        calls += [("max_pool2d", {"kernel_size": 2})] if out_channels < 120 else [("flatten", {})]
    calls += [("linear", {"out_features": 84}), ("relu", {}), ("linear", {"out_features": 10})]
    net = network((batch, 1, 28, 28), calls)
    numbers = random_numbers()
    for layer in net:
        for p in layer.parameters():
            p.data = parameter(p.shape, layer.weight[0].numel(), numbers)
    arrays, seen = {}, []
    # A ReLU or a pooling that rounding decides changes all that follows: at lr 1e-3 PyTorch's own float32 leaves its float64 by
    # 4e-4 to 3e-2 within these 20 steps, from 3 of 8 states of the generator. At 1e-4, from this one, nothing is that close.
    options = {"lr": 0.0001}
    adam = torch.optim.Adam(net.parameters(), **options)
    for step in range(steps):
        labels = [(step * batch + n) % 10 for n in range(batch)]
        pixels = torch.tensor([image(label, numbers) for label in labels], dtype=torch.float32)
        x = (pixels * (torch.tensor(1.0) / 255)).double().reshape(batch, 1, 28, 28)
        loss = nn.functional.cross_entropy(net(x), torch.tensor(labels))
        adam.zero_grad()
        loss.backward()
        if step == 0:
            arrays |= {key + ".grad": digest(p.grad) for key, p in net.named_parameters()}
        adam.step()
        seen.append(loss.item())
    arrays |= {key: digest(p) for key, p in net.named_parameters()}
    add("lenet", (batch, 1, 28, 28), calls + [("adam", options)], arrays | {"losses": seen})


if __name__ == "__main__":
    torch.manual_seed(6)
    torch.set_num_threads(1)
    for part in (convolutions, pools, activations, linears, chains, losses, optimizers, lenet):
        part()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("fixtures.bin")
    path.write_bytes(f"cases {len(cases)}\n".encode() + b"".join(cases))
    print(f"{path}: {len(cases)} cases, {path.stat().st_size / 1e6:.2f} MB")
