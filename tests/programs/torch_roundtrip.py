"""torch_roundtrip.py TOOL FOLDER - state dicts between PyTorch and cnn.h, in both formats and both directions.

TOOL is the compiled state_dict_tool.c. The classes are the lecture's, with its attributes in its order
(programs 6-1 to 6-5), and torchvision's ResNet-18. .safetensors is read and written here with json and struct, and by the safetensors package
too where it is installed. The last line counts: "torch: N passed, N failed[, N skipped]".
"""
import argparse
import array
import collections
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile

import torch
from torch import nn

TOOL, FOLDER = sys.argv[1:3]
passed = failed = skipped = 0


class LeNet5(nn.Module):
    def __init__(self):
        super(LeNet5, self).__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(in_channels=1, out_channels=6, kernel_size=(5, 5), stride=1, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=(2, 2)))
        self.hidden_layer_1 = nn.Sequential(
            nn.Conv2d(in_channels=6, out_channels=16, kernel_size=(5, 5), stride=1, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=(2, 2)))
        self.hidden_layer_2 = nn.Sequential(
            nn.Conv2d(in_channels=16, out_channels=120, kernel_size=(5, 5), stride=1, padding=2),
            nn.ReLU())
        self.Flatten = nn.Flatten()
        self.hidden_layer_3 = nn.Sequential(
            nn.Linear(in_features=120*7*7, out_features=84),
            nn.ReLU())
        self.classifier = nn.Linear(in_features=84, out_features=10)

    def forward(self, input):
        x = self.input_layer(input)
        x = self.hidden_layer_1(x)
        x = self.hidden_layer_2(x)
        x = self.Flatten(x)
        x = self.hidden_layer_3(x)
        return self.classifier(x)


class MnistCNN(nn.Module):                                  # CNN of programs 6-2 and 6-3
    def __init__(self):
        super(MnistCNN, self).__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(in_channels=1, out_channels=32, kernel_size=(3, 3), stride=1, padding=1),
            nn.ReLU())
        self.hidden_layer_1 = nn.Sequential(
            nn.Conv2d(in_channels=32, out_channels=64, kernel_size=(3, 3), stride=1, padding=1),
            nn.ReLU())
        self.maxpool = nn.MaxPool2d(kernel_size=(2, 2))
        self.dropout_1 = nn.Dropout(p=0.25)
        self.flatten = nn.Flatten()
        self.hidden_layer_2 = nn.Sequential(
            nn.Linear(in_features=64*14*14, out_features=128),
            nn.ReLU())
        self.dropout_2 = nn.Dropout(p=0.5)
        self.classifier = nn.Linear(in_features=128, out_features=10)

    def forward(self, input):
        x = self.input_layer(input)
        x = self.hidden_layer_1(x)
        x = self.maxpool(x)
        x = self.dropout_1(x)
        x = self.flatten(x)
        x = self.hidden_layer_2(x)
        x = self.dropout_2(x)
        return self.classifier(x)


class Cifar10CNN(nn.Module):                                # CNN of programs 6-4 and 6-5
    def __init__(self):
        super(Cifar10CNN, self).__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(in_channels=3, out_channels=32, kernel_size=(3, 3), stride=1, padding=1),
            nn.ReLU())
        self.hidden_layer_1 = nn.Sequential(
            nn.Conv2d(in_channels=32, out_channels=32, kernel_size=(3, 3), stride=1, padding=1),
            nn.ReLU())
        self.maxpool = nn.MaxPool2d(kernel_size=(2, 2))
        self.dropout_1 = nn.Dropout(p=0.25)
        self.hidden_layer_2 = nn.Sequential(
            nn.Conv2d(in_channels=32, out_channels=64, kernel_size=(3, 3), stride=1, padding=1),
            nn.ReLU(),
            nn.Conv2d(in_channels=64, out_channels=64, kernel_size=(3, 3), stride=1, padding=1),
            nn.ReLU())
        self.flatten = nn.Flatten()
        self.hidden_layer_3 = nn.Sequential(
            nn.Linear(in_features=64*8*8, out_features=512),
            nn.ReLU())
        self.dropout_2 = nn.Dropout(p=0.5)
        self.classifier = nn.Linear(in_features=512, out_features=10)

    def forward(self, input):
        x = self.input_layer(input)
        x = self.hidden_layer_1(x)
        x = self.maxpool(x)
        x = self.dropout_1(x)
        x = self.hidden_layer_2(x)
        x = self.maxpool(x)
        x = self.dropout_1(x)
        x = self.flatten(x)
        x = self.hidden_layer_3(x)
        x = self.dropout_2(x)
        return self.classifier(x)


class Normalised(nn.Module):                                # with int64 among its buffers, and a BatchNorm that has none
    def __init__(self):
        super(Normalised, self).__init__()
        self.conv1 = nn.Conv2d(1, 7, kernel_size=3, bias=False)
        self.bn1 = nn.BatchNorm2d(7)
        self.layer1 = nn.Sequential(
            nn.Conv2d(7, 5, kernel_size=3, stride=2),
            nn.BatchNorm2d(5, eps=0.01, affine=False),
            nn.ReLU())
        self.layer2 = nn.Sequential(
            nn.Linear(5*12*12, 9),
            nn.BatchNorm1d(9),
            nn.BatchNorm1d(9, track_running_stats=False),
            nn.Tanh())
        self.classifier = nn.Linear(in_features=9, out_features=10)
        for _ in range(3):
            self(torch.randn(4, 1, 28, 28))                 # moves the running statistics

    def forward(self, input):
        x = torch.relu(self.bn1(self.conv1(input)))
        x = self.layer1(x)
        x = self.layer2(torch.flatten(x, 1))
        return self.classifier(x)


class Block(nn.Module):                                     # torchvision's BasicBlock
    def __init__(self, inputs, outputs, stride):
        super(Block, self).__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs, momentum=0.5)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, momentum=0.5)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs, momentum=0.5))

    def forward(self, input):
        x = torch.relu(self.bn1(self.conv1(input)))
        x = self.bn2(self.conv2(x))
        return torch.relu(x + (self.downsample(input) if self.downsample else input))


class ResNet18(nn.Module):                                  # torchvision's resnet18, with 10 classes
    def __init__(self):
        super(ResNet18, self).__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64, momentum=0.5)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for stage in range(4):
            inputs, outputs = max(64, 32 << stage), 64 << stage
            blocks = nn.Sequential(Block(inputs, outputs, 2 if stage else 1), Block(outputs, outputs, 1))
            setattr(self, 'layer%d' % (stage + 1), blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, 10)
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        for _ in range(5):                                  # moves weights, biases and running statistics
            optimizer.zero_grad()
            nn.functional.cross_entropy(self(torch.randn(8, 3, 64, 64)), torch.randint(10, (8,))).backward()
            optimizer.step()

    def forward(self, input):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(input))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


NETWORKS = {'lenet5': (LeNet5, (1, 28, 28)), 'mnist_cnn': (MnistCNN, (1, 28, 28)), 'cifar10': (Cifar10CNN, (3, 32, 32)),
            'normalised': (Normalised, (1, 28, 28)), 'resnet18': (ResNet18, (3, 224, 224))}


def check(good, what):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print('FAIL ' + what)


def skip(what):
    global skipped
    skipped += 1
    print('SKIP ' + what)


def path(name):
    return os.path.join(FOLDER, name)


def tool(name, *words):
    """The logits that the C program prints, or None and its complaint."""
    run = subprocess.run([TOOL, name, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    if run.returncode:
        print(run.stderr.strip())
        return None
    return torch.tensor([float(line) for line in run.stdout.split()], dtype=torch.float64)


def logits(model, shape):
    size = shape[0] * shape[1] * shape[2]
    x = torch.tensor([i * 7919 % 1021 / 1024 - 0.5 for i in range(2 * size)], dtype=torch.float32)
    with torch.no_grad():
        return model.eval()(x.reshape(2, *shape)).double().reshape(-1)


def same(a, b, tolerance=1e-5):
    """Of the largest logit; between the two inputs lies a hundred times as much."""
    most = b.abs().max().item() * tolerance
    return a is not None and a.shape == b.shape and (b[:10] - b[10:]).abs().max().item() > 100 * most and (a - b).abs().max().item() <= most


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def read_safetensors(name):
    data = open(name, 'rb').read()
    length, = struct.unpack('<Q', data[:8])
    tensors = collections.OrderedDict()
    for key, t in json.loads(data[8:8 + length].decode()).items():
        if key != '__metadata__':
            begin, end = t['data_offsets']
            size, dtype = (8, torch.int64) if t['dtype'] == 'I64' else (4, torch.float32)
            check(begin % size == 0, key + ' is not aligned')
            values = bytearray(data[8 + length + begin:8 + length + end])
            tensors[key] = torch.frombuffer(values, dtype=dtype).reshape(t['shape'])
    return tensors


def write_safetensors(tensors, name):
    header, data = {}, b''
    for key, t in tensors.items():
        form, dtype = ('q', 'I64') if t.dtype == torch.int64 else ('f', 'F32')
        values = array.array(form, t.reshape(-1).tolist()).tobytes()
        header[key] = {'dtype': dtype, 'shape': list(t.shape), 'data_offsets': [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    open(name, 'wb').write(struct.pack('<Q', len(text)) + text + data)


def both_ways(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(1)
    model = make()
    ours, theirs = {}, {}
    for ending in '.pth', '.safetensors':
        ours[ending], theirs[ending] = path(name + '_c' + ending), path(name + '_torch' + ending)

        # from C to PyTorch
        said = tool(name, 'save', ours[ending])
        if ending == '.pth':
            with zipfile.ZipFile(ours[ending]) as archive:
                check(archive.testzip() is None, name + ': a CRC in the .pth differs')
            state = torch.load(ours[ending], weights_only=True)
        else:
            state = read_safetensors(ours[ending])
        check(list(state) == list(model.state_dict()), '%s%s: keys %s' % (name, ending, list(state)))
        other = make()
        other.load_state_dict(state, strict=True)
        check(same(said, logits(other, shape)), '%s%s: written by C, PyTorch computes other logits' % (name, ending))

        # from PyTorch to C
        if ending == '.pth':
            torch.save(model.state_dict(), theirs[ending])
        else:
            write_safetensors(model.state_dict(), theirs[ending])
        check(same(tool(name, 'load', theirs[ending]), logits(model, shape)), '%s%s: written by PyTorch, C computes other logits' % (name, ending))

        # there and back: not a bit changes
        tool(name, 'load', theirs[ending], 'save', path('back.pth'), 'load', path('back.pth'), 'save', path('back.safetensors'))
        check(equal(torch.load(path('back.pth'), weights_only=True), model.state_dict()), name + ending + ': changed on the way back to .pth')
        check(equal(read_safetensors(path('back.safetensors')), model.state_dict()), name + ending + ': changed on the way back to .safetensors')
    return ours['.pth'], ours['.safetensors']


METADATA = {'classes': 'cat\ndog\n고양이 🐱', 'size': '224', 'mean': '0.485 0.456 0.406', 'quote " \\ / \x01\x1f\x7f': '{"a": "b\\n"}\t', 'empty': ''}


def metadata():
    """Strings of ours are read by json and by the safetensors package; and C reads theirs."""
    def header(name):
        data = open(name, 'rb').read()
        length, = struct.unpack('<Q', data[:8])
        return json.loads(data[8:8 + length].decode())['__metadata__']

    def read_by_c(name, what):
        for key, value in METADATA.items():
            run = subprocess.run([TOOL, 'metadata', name, key], stdout=subprocess.PIPE)
            check(run.returncode == 0 and run.stdout.decode() == value, '%s: C reads %s as %r' % (what, key, run.stdout))

    ours, theirs = path('ours.safetensors'), path('theirs.safetensors')
    words = [word for pair in METADATA.items() for word in pair]
    said = tool('lenet5', *words, 'save', ours)
    check(header(ours) == {'format': 'pt', **METADATA}, 'metadata by C: %s' % header(ours))
    read_by_c(ours, 'by C')
    check(same(tool('lenet5', 'load', ours), said), 'a file with metadata is loaded')
    try:
        import safetensors.torch
    except ImportError:
        return
    with safetensors.safe_open(ours, 'pt') as file:
        check(file.metadata() == {'format': 'pt', **METADATA}, 'metadata by C, in the safetensors package: %s' % file.metadata())
    safetensors.torch.save_file(safetensors.torch.load_file(ours), theirs, metadata=METADATA)
    read_by_c(theirs, 'by the safetensors package')
    check(same(tool('lenet5', 'load', theirs), said), 'a file of the safetensors package with metadata is loaded')


def unusual():
    """State dicts that torch.save can write and a careless reader gets wrong."""
    make, shape = NETWORKS['lenet5']
    torch.manual_seed(2)
    model = make()
    state = model.state_dict()
    expected = logits(model, shape)

    def loads(what, tensors, tolerance=1e-5, reference=None):
        torch.save(tensors, path('unusual.pth'))
        check(same(tool('lenet5', 'load', path('unusual.pth')), expected if reference is None else reference, tolerance), what)

    loads('a plain dict', dict(state))
    loads('parameters instead of tensors', collections.OrderedDict(model.named_parameters()))
    loads('state_dict(keep_vars=True)', model.state_dict(keep_vars=True))
    loads('another order of the keys', dict(reversed(list(state.items()))))
    loads('double', {k: v.double() for k, v in state.items()})
    loads('transposed', {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in state.items()})
    loads('channels_last', {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in state.items()})
    block = torch.cat([v.reshape(-1) for v in state.values()])
    offsets = [0]
    for v in state.values():
        offsets.append(offsets[-1] + v.numel())
    loads('views of one storage', {k: block[offsets[i]:offsets[i + 1]].view(v.shape) for i, (k, v) in enumerate(state.items())})
    loads('every second value', {k: torch.stack([v, -v], -1)[..., 0] for k, v in state.items()})
    for dtype in torch.half, torch.bfloat16:
        rounded = make()
        rounded.load_state_dict({k: v.to(dtype).float() for k, v in state.items()})
        loads(str(dtype), {k: v.to(dtype) for k, v in state.items()}, reference=logits(rounded, shape))
    expanded = dict(state)
    expanded['classifier.bias'] = torch.tensor(0.25).expand(10)
    reference = make()
    reference.load_state_dict(expanded)
    loads('an expanded bias', expanded, reference=logits(reference, shape))

    # what people have: checkpoints around a state dict, other protocols, what stands before the keys
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(2, *shape)).sum().backward()
    moments = optimizer.state_dict()
    loads('a number beside the tensors', {**state, 'epoch': 3})
    for protocol in 2, 3, 4, 5:
        for new in True, False:
            for what, tensors in (('a state dict', state), ('a checkpoint', {'epoch': 3, 'best': 0.5, 'args': argparse.Namespace(lr=0.1, list=[1, None]), 'state_dict': state,
                                   'optimizer': moments, 'size': torch.Size([1, 2]), 'type': torch.float32, 'bytes': b'a\0b', 'set': {1, 2}, 'large': 2 ** 70}),
                                  ('an average first', {'ema': {k: -v for k, v in state.items()}, 'model': state}), ('DataParallel', {'module.' + k: v for k, v in state.items()}),
                                  ('torch.compile', {'module._orig_mod.' + k: v for k, v in state.items()}), ('Lightning', {'state_dict': {'model.' + k: v for k, v in state.items()}}),
                                  ('a type that is not read, unused', {'other': {'x': torch.zeros(3).to(getattr(torch, 'float8_e5m2', torch.bool)), 'y': torch.zeros(2, dtype=torch.complex64)}, 'model': state})):
                torch.save(tensors, path('unusual.pth'), pickle_protocol=protocol, _use_new_zipfile_serialization=new)
                check(same(tool('lenet5', 'load', path('unusual.pth')), expected), '%s, protocol %d%s' % (what, protocol, '' if new else ', before 1.6'))

    def refused(what, words):
        run = subprocess.run([TOOL, 'lenet5', 'load', path('unusual.pth')], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        check(run.returncode == 1 and all(word in run.stderr for word in words), '%s: %s' % (what, run.stderr.strip()))

    for new in True, False:
        torch.save(model, path('unusual.pth'), _use_new_zipfile_serialization=new)
        refused('a whole model', ('LeNet5', 'torch.save(torch.load('))
    torch.save({'model': model, 'epoch': 3}, path('unusual.pth'))
    refused('a whole model in a dict', ('LeNet5', 'torch.save(torch.load('))
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, *shape)), path('unusual.pth'))
    refused('TorchScript', ('TorchScript', 'torch.save(torch.jit.load('))
    normalized = dict(state)
    normalized.update(('input_layer.1.' + k, v) for k, v in nn.BatchNorm2d(6).state_dict().items())
    torch.save(normalized, path('unusual.pth'))
    refused('BatchNorm', ('input_layer.1.num_batches_tracked', 'input_layer.1 is a BatchNorm'))

    # before PyTorch 0.4.1 nobody counted batches; the rest of the state dict is needed
    make, shape = NETWORKS['normalised']
    model = make()
    torch.save({k: v for k, v in model.state_dict().items() if 'tracked' not in k}, path('unusual.pth'))
    check(same(tool('normalised', 'load', path('unusual.pth')), logits(model, shape)), 'without num_batches_tracked')
    torch.save({k: v for k, v in model.state_dict().items() if k != 'bn1.running_var'}, path('unusual.pth'))
    check(tool('normalised', 'load', path('unusual.pth')) is None, 'without a running variance')


def with_other_programs(pth, safetensors_file):
    if shutil.which('unzip'):
        run = subprocess.run(['unzip', '-t', pth], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        check(run.returncode == 0, 'unzip -t: ' + run.stdout)
    else:
        skip('unzip is not installed')
    try:
        import safetensors.torch
    except ImportError:
        skip('the safetensors package is not installed')
        return
    make, shape = NETWORKS['lenet5']
    model = make()
    model.load_state_dict(safetensors.torch.load_file(safetensors_file), strict=True)
    check(same(tool('lenet5', 'load', safetensors_file), logits(model, shape)), 'the safetensors package reads other values')
    for dtype in torch.float32, torch.float64, torch.half, torch.bfloat16:
        rounded = make()
        rounded.load_state_dict({k: v.to(dtype).float() for k, v in model.state_dict().items()})
        safetensors.torch.save_file({k: v.to(dtype) for k, v in model.state_dict().items()}, path('package.safetensors'))
        check(same(tool('lenet5', 'load', path('package.safetensors')), logits(rounded, shape)), 'written by the safetensors package as ' + str(dtype))


for network in NETWORKS:
    files = both_ways(network)
    if network == 'lenet5':
        with_other_programs(*files)
metadata()
unusual()
print('torch: %d passed, %d failed%s' % (passed, failed, ', %d skipped' % skipped if skipped else ''))
sys.exit(failed != 0 or passed == 0)
