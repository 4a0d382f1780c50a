"""shapes.py - prints tests/shapes.h: what PyTorch makes of many pooling options, small inputs above all.
   python3 tests/shapes.py >tests/shapes.h"""
import random
import torch
from torch import nn

torch.set_default_dtype(torch.float64)
random.seed(12)


def outputs(side, kernel, stride, padding, ceil_mode):
    """The output's side, or 0 where PyTorch refuses."""
    try:
        return nn.MaxPool1d(kernel, stride, padding, ceil_mode=bool(ceil_mode))(torch.zeros(1, 1, side)).shape[2]
    except RuntimeError:
        return 0


def case(one_d):
    """As many values as a test can tell apart: sums of y and dx, each value times its number, counted from 1."""
    while True:
        average = random.randrange(2)
        size = (1 if one_d else random.randint(1, 7), random.randint(1, 7))
        kernel = (1 if one_d else random.randint(1, 5), random.randint(1, 5))
        stride = (1 if one_d else random.randint(1, 4), random.randint(1, 4))
        padding = tuple(random.randint(0, k // 2) for k in kernel)
        ceil_mode, exclude = random.randrange(4) > 0, random.randrange(2) if average else 0
        last = slice(1, 2) if one_d else slice(2)
        x = torch.tensor([(7 * i * i + 3 * i) % 23 - 11.0 for i in range(6 * size[0] * size[1])])
        x = x.reshape(2, 3, *size[last]).requires_grad_()
        kind = getattr(nn, ("Avg" if average else "Max") + ("Pool1d" if one_d else "Pool2d"))
        options = {"count_include_pad": not exclude} if average else {}
        values = [a[last] if not one_d else a[1] for a in (kernel, stride, padding)]
        try:
            y = kind(*values, ceil_mode=ceil_mode, **options)(x)
        except RuntimeError:
            continue
        y.backward(torch.arange(y.numel()).remainder(7).add(1.0).reshape(y.shape))
        numbers = [(t.detach().flatten() * torch.arange(1, t.numel() + 1)).sum().item() for t in (y, x.grad)]
        out = y.shape[2:] if not one_d else (1, y.shape[2])
        whole = (*size, *kernel, *stride, *padding, int(ceil_mode), average, exclude, int(one_d), *out)
        return "    { " + ", ".join(map(str, whole)) + ", %.12g, %.12g }," % tuple(numbers)


print("/* shapes.h - printed by tests/shapes.py with PyTorch %s; do not edit */\n" % torch.__version__.split("+")[0])
print("/* outputs of a pooling: for side 1 .. 8, kernel 1 .. 6, stride 1 .. 5, padding 0 .. kernel / 2, ceil_mode 0 and 1; 0: refused */")
print("static const char shapes_outputs[] =")
for side in range(1, 9):
    digits = [outputs(side, k, s, p, c) for k in range(1, 7) for s in range(1, 6) for p in range(k // 2 + 1) for c in (0, 1)]
    line = "".join(map(str, digits))
    for part in range(0, len(line), 100):
        print('    "%s"' % line[part:part + 100])
print("    ;\n")
print("static const struct shapes_case {")
print("    int height, width, kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width;")
print("    int ceil_mode, average, exclude_padding, one_d, out_height, out_width;")
print("    double y, dx;                           /* sums of value times number, counted from 1 */")
print("} shapes_cases[] = {")
for one_d in [False] * 90 + [True] * 40:
    print(case(one_d))
print("};")
