"""Vectors or images as float tensors with what made them; in memory, .npz files and folders of these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets.recorded import require_recorded
from mfimage.datasets.sets import Dataset, Rows
from mfimage.datasets.splits import choose
from mfimage.errors import DataError, boundary
from mfimage.files import open_npz, read_json, whole

FIELDS = ("x", "theta", "score", "latents")
MANIFEST = "points.json"  # of a folder
SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False, repr=False)
class Points(Dataset):
    """Vectors or images in memory, and what belongs to each.

    Attributes:
        x: (N, D) or (N, C, H, W) float32.
        latents: (N, d) float32, true coordinates, None if unknown.
        labels: (N,) int64 class indices; files do not hold them.
    """

    x: Tensor
    name: str
    theta: Tensor | None = None
    score: Tensor | None = None
    latents: Tensor | None = None
    split: str = "train"
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    def batch(self, rows: Rows) -> Tensor:
        return self.x[rows if isinstance(rows, slice) else self.positions(rows)]

    def subset(self, rows: Rows) -> Points:
        chosen = self.positions(rows)
        changes: dict[str, Any] = {name: tensor[chosen] for name, tensor in self._tensors().items()}
        return replace(self, **changes, labels=None if self.labels is None else self.labels[chosen])

    def statistics(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for name, tensor in self._tensors().items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return {
            "dtype": str(self.x.dtype).removeprefix("torch."),
            "sha256": digest.hexdigest(),
            "mean": float(self.x.double().mean()) if len(self) else 0.0,
            "std": float(self.x.double().std(unbiased=False)) if len(self) else 0.0,
        }

    def save(self, path: str | Path) -> Path:
        """Write an .npz file that `load_points` reads, whole or not at all; return its path."""
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in self._tensors().items()}
        with whole(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        return Path(path)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: tensor for name in FIELDS if (tensor := getattr(self, name)) is not None}


def join_points(parts: Sequence[Points], name: str, split: str) -> Points:
    """Points one after the other; DataError if they differ in shape or in what is known of them."""
    fields = parts[0]._tensors()
    if any((part.shape, *part._tensors()) != (parts[0].shape, *fields) for part in parts):
        raise DataError(f"{name}: these points differ in shape, or in what is known of them")
    tensors: dict[str, Any] = {one: torch.cat([getattr(part, one) for part in parts]) for one in fields}
    return Points(**tensors, name=name, split=split)


def holds_points(path: str | Path) -> bool:
    """Whether a path is a folder of `write_points`, or an .npz file with x of vectors or floats (N, C, H, W).

    Other files hold images: integers, or with the channels last, under whatever name.
    """
    if (Path(path) / MANIFEST).is_file():
        return True
    if Path(path).suffix.lower() != ".npz":
        return False
    with suppress(DataError), boundary(DataError, str(path)), open_npz(path) as arrays:
        x = arrays["x"]
        return x.ndim == 2 or (x.ndim == 4 and x.dtype.kind == "f" and x.shape[1] in (1, 3))
    return False  # whoever reads images will say what is wrong with it


def load_points(path: str | Path, split: str = "train", verify: bool = False) -> Points:
    """Read points from an .npz file, or from a folder that `drawn.write_points` completed.

    Args:
        path: Of a folder, or of a file with an array x, (N, D) or (N, C, H, W), and where they are known
            theta (N, P), score (N, P) and latents (N, d), all real numbers.
        split: "train", "test" or "all" of a folder; a file is not divided, and is "train" or "all".
        verify: As of `Reading`, for the files of a folder.

    Raises:
        DataError: If a file cannot be read or holds something else, the folder is incomplete, or there is
            no such split.
    """
    if (Path(path) / MANIFEST).is_file():
        return _load_folder(Path(path), split, verify)
    choose({"train": [path], "all": [path]}, split, str(path))
    with boundary(DataError, f"{path}: cannot be read"), open_npz(path) as arrays:
        found = {name: arrays[name] for name in FIELDS if name in arrays.files}
    if "x" not in found or found["x"].ndim not in (2, 4):
        raise DataError(f"{path}: an array x of shape (N, D) or (N, C, H, W) is expected")
    count = len(found["x"])
    tensors: dict[str, Any] = {name: finite_tensor(array, name, count, path) for name, array in found.items()}
    return Points(name=str(path), split=split, **tensors)


def finite_tensor(array: np.ndarray, name: str, rows: int, where: object) -> Tensor:
    """One of the FIELDS as float32; DataError if it holds no finite numbers, or x no images in [0, 1]."""
    sound = array.dtype.kind in "fiu" and array.shape[:1] == (rows,) and array.size > 0
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        values = array.astype(np.float32) if sound else array
    if not sound or (name != "x" and array.ndim != 2) or not np.isfinite(values).all():
        found = f"not {array.dtype} of shape {array.shape}"
        raise DataError(f"{where}: {name} must hold {rows} rows of finite numbers, {found}")
    if array.ndim == 4 and not (array.min() >= 0 and array.max() <= 1):
        raise DataError(f"{where}: images x hold {array.min():g} … {array.max():g}, not values in [0, 1]")
    return torch.from_numpy(values)


def list_shards(manifest: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Give split, number and size of every file of a folder."""
    for split in SPLITS:
        count, size = manifest["counts"][split], manifest["shard"]
        for number, begin in enumerate(range(0, count, size)):
            yield split, number, min(size, count - begin)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what a folder of points is to hold; DataError if that is damaged."""
    manifest = read_json(folder / MANIFEST, "list of examples")
    with boundary(DataError, f"{folder / MANIFEST}: not a readable list of examples"):
        if not all(isinstance(manifest.get(name, {}), dict) for name in ("files", "written")):
            raise TypeError("its hashes are no table")
        if not isinstance(manifest["shape"], list):
            raise TypeError("its shape is no list")
        manifest = {**manifest, "counts": {split: int(manifest["counts"][split]) for split in SPLITS}}
        if min(manifest["counts"].values()) < 0:
            raise ValueError("it counts less than nothing")
        files = sum(len(range(0, count, manifest["shard"])) for count in manifest["counts"].values())
        if files != len(manifest.get("files", range(files))):
            raise ValueError(f"{files} files are meant, {len(manifest['files'])} are listed")
        return manifest


def _load_folder(folder: Path, split: str, verify: bool) -> Points:
    manifest = read_manifest(folder)
    if "files" not in manifest:
        raise DataError(f"{folder}: was not completed; run the command that wrote it again")
    files = [(one, folder / f"{one}-{number:04d}.npz", rows) for one, number, rows in list_shards(manifest)]
    divided = {name: [file for file in files if name in (file[0], "all")] for name in (*SPLITS, "all")}
    chosen, parts = choose(divided, split, str(folder)), []
    recorded = {path.name: manifest["files"].get(path.name, "") for _, path, _ in chosen}
    require_recorded(folder, recorded, "remove it, and run the command that wrote the folder again", verify)
    for _, path, rows in chosen:
        parts.append(load_points(path))
        if len(parts[-1]) != rows or parts[-1].shape != tuple(manifest["shape"]):
            raise DataError(f"{path}: holds other examples than {MANIFEST} says")
    return join_points(parts, str(folder), split)
