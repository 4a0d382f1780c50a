"""torch_files.py - writes tests/torch_files.h: what torch.save makes of a state dict and of what people put around it.

    python tests/torch_files.py >tests/torch_files.h

The network is fc = nn.Linear(2, 3) with the weights 1 ... 6 and the biases 7, 8, 9. Of a ZIP only data.pkl is kept: its
storages 0 and 1 are the weights and the biases, and the others are never looked at.
"""
import argparse
import collections
import io
import pathlib
import sys
import zipfile

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)


model = Net()
with torch.no_grad():
    model.fc.weight.copy_(torch.arange(1., 7.).reshape(3, 2))
    model.fc.bias.copy_(torch.arange(7., 10.))
state = model.state_dict()
adam = torch.optim.Adam(model.parameters())
model.fc(torch.ones(1, 2)).sum().backward()
adam.step()
with torch.no_grad():                                       # Adam's moments are there; the weights are whole numbers again
    model.fc.weight.copy_(torch.arange(1., 7.).reshape(3, 2))
    model.fc.bias.copy_(torch.arange(7., 10.))

around = collections.OrderedDict(
    state_dict=state, epoch=3, best=0.5, done=False, none=None, big=2 ** 70, negative=-5, name='net', data=b'a\0b',
    tuple=(1, 2, 3, 4), set={1, 2}, list=[1, [2.5]], args=argparse.Namespace(lr=0.1, layers=[1, 2]), size=torch.Size([1, 2]),
    device=torch.device('cpu'), dtype=torch.float32, path=pathlib.PurePosixPath('a/b'), optimizer=adam.state_dict())
normalized = collections.OrderedDict(state)
for key, value in nn.BatchNorm1d(3).state_dict().items():
    normalized['bn.' + key] = value
prefixed = lambda prefix: {prefix + key: value for key, value in state.items()}
CASES = [('a checkpoint', around, None), ('"model"', {'model': state, 'optimizer': adam.state_dict()}, None),
         ('"model_state_dict"', {'model_state_dict': state}, None), ('in a tuple', (3, state), None), ('in a list', [state], None),
         ('an average first', {'model': state, 'ema': {k: -v for k, v in state.items()}}, None),
         ('DataParallel', prefixed('module.'), None), ('torch.compile', prefixed('_orig_mod.'), None),
         ('both', prefixed('module._orig_mod.'), None), ('Lightning', {'state_dict': prefixed('model.')}, None),
         ('parameters', collections.OrderedDict(model.named_parameters()), None), ('a number beside them', {**state, 'epoch': 3}, None),
         ('BatchNorm', normalized, '5 unexpected (bn.bias, bn.num_batches_tracked, bn.running_mean, bn.running_var, bn.weight); '
          'bn is a BatchNorm, which the network lacks'),
         ('a whole model', model, 'whole model (class Net)'), ('a whole model in a dict', {'model': model}, 'weights_only=False).state_dict()'),
         ('no tensors', {'epoch': 3}, '2 missing'), ('a list of numbers', [1, 2], 'torch.save(model.state_dict()')]


def literal(data):
    text, line = [], ''
    for i, byte in enumerate(data):
        c = chr(byte)
        line += c if byte < 128 and c.isalnum() or c in ' ._(){}[]-' else '\\%03o' % byte
        if len(line) > 105 or i == len(data) - 1:
            text.append('      "%s"' % line)
            line = ''
    return '\n'.join(text)


print('/* Written by tests/torch_files.py with PyTorch %s. */' % torch.__version__.split('+')[0])
print('static const struct { const char *name; int legacy; const char *words; size_t size; const char *bytes; } torch_files[] = {')
for name, what, words in CASES:
    for protocol in (2, 4, 5) if name == 'a checkpoint' else (2, 4) if name in ('a whole model', 'DataParallel') else (4,):
        for legacy in (0, 1) if name == 'DataParallel' or (name, protocol) == ('a checkpoint', 4) else (0,):
            file = io.BytesIO()
            torch.save(what, file, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
            data = file.getvalue() if legacy else zipfile.ZipFile(file).read('archive/data.pkl')
            label = '%s, protocol %d%s' % (name, protocol, ', as before 1.6' if legacy else '')
            quoted = 'NULL' if words is None else '"%s"' % words.replace('"', '\\"')
            print('    { "%s", %d, %s, %d,\n%s },' % (label.replace('"', '\\"'), legacy, quoted, len(data), literal(data)))
print('};')
