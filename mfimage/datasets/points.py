"""Vectors or images as float tensors, with the parameters that made them where they are known."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets.sets import Dataset, Rows, Skipped
from mfimage.datasets.splits import choose
from mfimage.errors import DataError
from mfimage.files import whole

FIELDS = ("x", "theta", "score", "latents")
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, RuntimeError, BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Points(Dataset):
    """Vectors or images in memory, and what belongs to each.

    Attributes:
        x: (N, D) or (N, C, H, W) float32.
        name: Where they came from.
        theta: (N, P) float32, the parameters that condition their density.
        score: (N, P) float32, the joint score ∇_θ log p(x, z|θ).
        latents: (N, d) float32, true coordinates.
        split: Which part of a set they are.
    """

    x: Tensor
    name: str
    theta: Tensor | None = None
    score: Tensor | None = None
    latents: Tensor | None = None
    split: str = "train"
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one."""
        return tuple(self.x.shape[1:])

    def batch(self, rows: Rows) -> Tensor:
        """Some of them, (B, …) float32."""
        return self.x[rows if isinstance(rows, slice) else self.positions(rows)]

    def subset(self, rows: Rows) -> Points:
        """Some of them as a set."""
        chosen = self.positions(rows)
        changes: dict[str, Any] = {name: tensor[chosen] for name, tensor in self._tensors().items()}
        return replace(self, **changes)

    def statistics(self) -> dict[str, Any]:
        """Of all values of x; sha256 is of all tensors."""
        digest = hashlib.sha256()
        for name, tensor in self._tensors().items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return {
            "dtype": str(self.x.dtype).removeprefix("torch."),
            "sha256": digest.hexdigest(),
            "mean": float(self.x.double().mean()),
            "std": float(self.x.double().std(unbiased=False)),
        }

    def save(self, path: str | Path) -> Path:
        """Write an .npz file that `load_points` reads, whole or not at all; return its path.

        Raises:
            ResourceError: If the disk is full.
        """
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in self._tensors().items()}
        with whole(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        return Path(path)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: tensor for name in FIELDS if (tensor := getattr(self, name)) is not None}


def joined(parts: Sequence[Points], name: str, split: str) -> Points:
    """Points one after the other; DataError if they differ in shape or in what is known of them."""
    first = parts[0]
    for part in parts:
        if (part.shape, part._tensors().keys()) != (first.shape, first._tensors().keys()):
            raise DataError(f"{part.name}: holds other points than {first.name}")
    tensors: dict[str, Any] = {
        field: torch.cat([getattr(part, field) for part in parts]) for field in first._tensors()
    }
    return Points(**tensors, name=name, split=split)


def holds_points(path: str | Path) -> bool:
    """Whether a path is an .npz file for `load_points`: with x of vectors, or of floats (N, C, H, W).

    Other files hold images: integers, or with the channels last, under whatever name.
    """
    if Path(path).suffix.lower() != ".npz" or not is_zipfile(path):
        return False
    try:
        with open(path, "rb") as stream, np.load(stream) as arrays:
            x = arrays["x"] if "x" in arrays.files else None
            return x is not None and (
                x.ndim == 2 or (x.ndim == 4 and x.dtype.kind == "f" and x.shape[1] in (1, 3))
            )
    except _UNREADABLE:
        return False  # whoever reads images will say what is wrong with it


def load_points(path: str | Path, split: str = "train") -> Points:
    """Read points from an .npz file.

    Args:
        path: Of a file with an array x, (N, D) or (N, C, H, W), and where they are known theta (N, P),
            score (N, P) and latents (N, d), all real numbers.
        split: "train" or "all": a file is not divided.

    Raises:
        DataError: If the file cannot be read or holds something else, or another split is asked for.
    """
    choose({"train": [path], "all": [path]}, split, str(path))
    try:
        if not is_zipfile(path) and Path(path).is_file():
            raise BadZipFile("not an .npz file, or cut off")
        # Opened here because numpy leaves a damaged one open.
        with open(path, "rb") as stream, np.load(stream) as arrays:
            found = {name: arrays[name] for name in FIELDS if name in arrays.files}
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if "x" not in found or found["x"].ndim not in (2, 4):
        raise DataError(f"{path}: an array x of shape (N, D) or (N, C, H, W) is expected")
    tensors: dict[str, Any] = {
        name: checked(array, name, len(found["x"]), path) for name, array in found.items()
    }
    return Points(name=str(path), split=split, **tensors)


def checked(array: np.ndarray, name: str, rows: int, where: object) -> Tensor:
    """One of the FIELDS as float32; DataError if it holds no finite numbers, or x no images in [0, 1]."""
    sound = array.dtype.kind in "fiu" and array.shape[:1] == (rows,) and array.size > 0
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        values = array.astype(np.float32) if sound else array
    if not sound or (name != "x" and array.ndim != 2) or not np.isfinite(values).all():
        raise DataError(
            f"{where}: {name} must hold {rows} rows of finite numbers, "
            f"not {array.dtype} of shape {array.shape}"
        )
    if array.ndim == 4 and not (array.min() >= 0 and array.max() <= 1):
        raise DataError(f"{where}: images x hold {array.min():g} … {array.max():g}, not values in [0, 1]")
    return torch.from_numpy(values)
