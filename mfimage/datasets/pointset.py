"""Folders of simulated examples with their true coordinates, written in shards and read as `Points`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from mfimage.datasets.points import Points, joined, load_points
from mfimage.datasets.splits import choose
from mfimage.errors import DataError, UsageError
from mfimage.files import file_hash, read_json, write_json

MANIFEST = "points.json"
_SHARD = 1000
_SPLITS = ("train", "test")


class Sampler(Protocol):
    """What `write_points` draws examples from."""

    name: str
    shape: tuple[int, ...]
    dim: int

    def sample(self, n: int, generator: torch.Generator) -> Points:
        """Draw n examples."""


def write_points(
    sampler: Sampler,
    folder: str | Path,
    counts: Mapping[str, int],
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
    tell: Callable[[int, int], None] = lambda done, count: None,
    shard: int = _SHARD,
) -> Path:
    """Draw examples and write them with their latents, and θ where there is one, a thousand a file.

    What a shard holds follows from the seed, the split and its number, so that a broken-off folder is
    completed by the same call, and equals an unbroken one. Values are kept in half precision: off by at most
    0.00025, an eighth of a level of 256.

    Args:
        sampler: Draws the examples.
        folder: Where to; FOLDER/points.json says what it holds.
        counts: Examples by split, "train" and "test".
        seed: Of everything drawn, below 2^31.
        source: What made them (a generator's fingerprint, fixed latents, …), for points.json.
        tell: Is told how many examples are there, of how many.
        shard: Examples a file.

    Returns:
        The folder.

    Raises:
        UsageError: If the folder holds something else.
        ResourceError: If it cannot be written.
    """
    folder = Path(folder)
    manifest = {
        "name": sampler.name, "shape": list(sampler.shape), "dim": sampler.dim, "seed": seed,
        "counts": {split: counts.get(split, 0) for split in _SPLITS}, "shard": shard, **(source or {}),
    }  # fmt: skip
    manifest = json.loads(json.dumps(manifest))
    _claim(folder, manifest)
    done, count, files = 0, sum(manifest["counts"].values()), {}
    for split, number, rows in _shards(manifest):
        path = folder / f"{split}-{number:04d}.npz"
        if not path.exists():
            drawn = sampler.sample(rows, _shard_generator(seed, split, number))
            (replace(drawn, x=drawn.x.half()) if drawn.x.ndim == 4 else drawn).save(path)
        files[path.name] = file_hash(path)
        done += rows
        tell(done, count)
    write_json(folder / MANIFEST, {**manifest, "files": files})
    return folder


def _shards(manifest: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Split, number and size of every file."""
    for split in _SPLITS:
        count, size = manifest["counts"][split], manifest["shard"]
        for number, begin in enumerate(range(0, count, size)):
            yield split, number, min(size, count - begin)


def _shard_generator(seed: int, split: str, number: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {split} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a new folder; UsageError if the folder holds something else."""
    if (folder / MANIFEST).exists():
        there = _read_manifest(folder)
        there.pop("files", None)
        if there != manifest:
            differs = sorted(key for key in {*there, *manifest} if there.get(key) != manifest.get(key))
            raise UsageError(f"{folder} holds other examples ({', '.join(differs)}): choose another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty; choose another folder")
    else:
        write_json(folder / MANIFEST, manifest)


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest = read_json(folder / MANIFEST, "list of examples")
    try:
        return {**manifest, "counts": {split: int(manifest["counts"][split]) for split in _SPLITS}}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / MANIFEST}: not a readable list of examples ({error})") from error


def holds_point_set(path: str | Path) -> bool:
    """Whether a path is a folder that `write_points` wrote."""
    return (Path(path) / MANIFEST).is_file()


def load_point_set(folder: str | Path, split: str = "train") -> Points:
    """Read a split, "train", "test" or "all", from a folder that `write_points` completed.

    Raises:
        DataError: If the folder is incomplete, a file is damaged, or the split is empty.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    if "files" not in manifest:
        raise DataError(f"{folder}: was not completed; run the command that wrote it again")
    files: dict[str, list[tuple[Path, int]]] = {one: [] for one in (*_SPLITS, "all")}
    for one, number, rows in _shards(manifest):
        for name in (one, "all"):
            files[name].append((folder / f"{one}-{number:04d}.npz", rows))
    parts = []
    for path, rows in choose(files, split, str(folder)):
        part = load_points(path)
        if len(part) != rows or part.shape != tuple(manifest["shape"]):
            raise DataError(f"{part.name}: holds other examples than {MANIFEST} says")
        parts.append(part)
    return joined(parts, str(folder), split)
