"""Folders of simulated examples with their true coordinates, written in shards and read as `Points`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mfimage.datasets.points import FIELDS, Points, load_points
from mfimage.errors import DataError, UsageError
from mfimage.files import write_text

if TYPE_CHECKING:
    from mfimage.experiments.simulators.simulator import Simulator

MANIFEST = "points.json"
_SHARD = 1000
_SPLITS = ("train", "test")


def write_points(
    simulator: Simulator,
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
        simulator: Draws the examples.
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
    what = {
        "name": simulator.name, "shape": list(simulator.shape), "dim": simulator.dim, "seed": seed,
        "counts": {split: counts.get(split, 0) for split in _SPLITS}, "shard": shard, **(source or {}),
    }  # fmt: skip
    what = json.loads(json.dumps(what))
    _claim(folder, what)
    done, whole, files = 0, sum(what["counts"].values()), {}
    for split, number, rows in _shards(what):
        path = folder / f"{split}-{number:04d}.npz"
        if not path.exists():
            drawn = simulator.sample(rows, _source(seed, split, number))
            (replace(drawn, x=drawn.x.half()) if drawn.x.ndim == 4 else drawn).save(path)
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        done += rows
        tell(done, whole)
    _note(folder, {**what, "files": files})
    return folder


def _shards(what: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Split, number and size of every file."""
    for split in _SPLITS:
        count, size = what["counts"][split], what["shard"]
        for number, begin in enumerate(range(0, count, size)):
            yield split, number, min(size, count - begin)


def _source(seed: int, split: str, number: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {split} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _claim(folder: Path, what: dict[str, Any]) -> None:
    manifest = folder / MANIFEST
    if manifest.exists():
        there = _read(folder)
        there.pop("files", None)
        if there != what:
            differs = sorted(key for key in {*there, *what} if there.get(key) != what.get(key))
            raise UsageError(f"{folder} holds other examples ({', '.join(differs)}): choose another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty; choose another folder")
    else:
        _note(folder, what)


def _note(folder: Path, what: Mapping[str, Any]) -> None:
    write_text(folder / MANIFEST, json.dumps(what, indent=2) + "\n")


def _read(folder: Path) -> dict[str, Any]:
    try:
        what = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {**what, "counts": {split: int(what["counts"][split]) for split in _SPLITS}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / MANIFEST}: cannot be read ({error})") from error


def holds_point_set(path: str | Path) -> bool:
    """Whether a path is a folder that `write_points` wrote."""
    return (Path(path) / MANIFEST).is_file()


def load_point_set(folder: str | Path, split: str = "train") -> Points:
    """Read the examples of a split from a folder that `write_points` completed.

    Raises:
        DataError: If the folder is incomplete, a file is damaged, or the split is empty.
    """
    folder = Path(folder)
    what = _read(folder)
    if "files" not in what:
        raise DataError(f"{folder}: was not completed; run the command that wrote it again")
    wanted = _SPLITS if split == "all" else (split,)
    parts = []
    for one, number, rows in _shards(what):
        if one in wanted:
            part = load_points(folder / f"{one}-{number:04d}.npz")
            if len(part) != rows or part.shape != tuple(what["shape"]):
                raise DataError(f"{part.name}: holds other examples than {MANIFEST} says")
            parts.append(part)
    if not parts:
        raise DataError(f"{folder}: has no examples of the split {split!r}")
    joined: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in FIELDS
        if getattr(parts[0], name) is not None
    }
    return Points(**joined, name=str(folder), split=split)
