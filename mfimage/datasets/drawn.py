"""Examples that a simulator draws, written as a folder of points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from mfimage.datasets.points import MANIFEST, SPLITS, Points, list_shards, read_manifest
from mfimage.datasets.recorded import require_recorded
from mfimage.errors import UsageError
from mfimage.files import file_hash, write_json
from mfimage.outputs import LOCK, OWNER, owned


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
    shard: int = 1000,
) -> Path:
    """Draw examples and write them in files of `shard` each; return the folder.

    What a file holds follows from the seed, the split and its number: a broken-off folder is completed by the
    same call. Images are kept in half precision: off by at most 0.00025, an eighth of a level of 256.

    Args:
        sampler: Draws the examples.
        folder: Where to; FOLDER/points.json says what it holds; UsageError if that is something else, or
            another process writes there.
        counts: Examples by split, "train" and "test".
        seed: Of everything drawn, below 2^31.
        source: What made them (a generator's fingerprint, fixed latents, …), for points.json.
        tell: Is told how many examples are there, of how many.
        shard: Examples a file.

    Raises:
        DataError: A file that is there is not as it was written.
    """
    folder = Path(folder)
    manifest = json.loads(json.dumps({
        "name": sampler.name, "shape": list(sampler.shape), "dim": sampler.dim, "seed": seed,
        "counts": {split: counts.get(split, 0) for split in SPLITS}, "shard": shard, **(source or {}),
    }))  # fmt: skip
    done, count, files = 0, sum(manifest["counts"].values()), {}
    with owned(folder):
        recorded = _claim(folder, manifest)
        for split, number, rows in list_shards(manifest):
            path = folder / f"{split}-{number:04d}.npz"
            if path.name not in recorded:
                _write_file(sampler, path, rows, f"{seed} {split} {number}")
                recorded[path.name] = file_hash(path)
                write_json(folder / MANIFEST, {**manifest, "written": recorded})
            files[path.name], done = recorded[path.name], done + rows
            tell(done, count)
        write_json(folder / MANIFEST, {**manifest, "files": files})
    return folder


def _write_file(sampler: Sampler, path: Path, rows: int, key: str) -> None:
    digest = hashlib.sha256(key.encode()).digest()
    drawn = sampler.sample(rows, torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
    (replace(drawn, x=drawn.x.half()) if drawn.x.ndim == 4 else drawn).save(path)


def _claim(folder: Path, manifest: dict[str, Any]) -> dict[str, str]:
    """Write the manifest of a new folder; UsageError if the folder holds something else.

    Returns the hashes of the files that are there, as they were recorded; DataError if one has another.
    """
    recorded: dict[str, str] = {}
    if (folder / MANIFEST).exists():
        there = read_manifest(folder)
        recorded = {**there.pop("written", {}), **there.pop("files", {})}
        if differs := sorted(key for key in {*there, *manifest} if there.get(key) != manifest.get(key)):
            raise UsageError(f"{folder} holds other examples ({', '.join(differs)}): choose another folder")
    elif any(path.name not in (LOCK, OWNER) for path in folder.iterdir()):
        raise UsageError(f"{folder}: is not empty; choose another folder")
    else:
        write_json(folder / MANIFEST, manifest)
    here = {name: sha256 for name, sha256 in recorded.items() if (folder / name).exists()}
    require_recorded(folder, here, "remove it to have it drawn anew", verify=True)
    return here
