#!/bin/sh
# State dicts between PyTorch and cnn.h, in both formats and both directions: torch_roundtrip.py says what is compared.
# Skipped where $PYTHON (default: python3) has no torch.
cd "$(dirname "$0")" || exit 1
python=${PYTHON:-python3}
if ! "$python" -c 'import torch' 2>/dev/null; then
    echo "SKIP torch round trip: $python has no torch"
    echo "torch: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
if ! ${CC:-cc} -std=c99 -O2 state_dict_tool.c -o "$folder/tool" -lm; then
    echo "FAIL torch round trip: state_dict_tool.c does not compile"
    echo "torch: 0 passed, 1 failed"
    exit 1
fi
"$python" -W ignore torch_roundtrip.py "$folder/tool" "$folder"
