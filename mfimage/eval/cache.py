"""Features of sets of images, computed in chunks: cached, resumed, and shared out between processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mfimage.errors import ModelError
from mfimage.eval.features import FeatureExtractor
from mfimage.files import read_tensors, save_tensors

CHUNK = 500  # images; their features are a file
PATIENCE = 600.0  # seconds without a new file after which the first process computes what is missing


def cache_directory() -> Path:
    """$XDG_CACHE_HOME/mfimage, by default ~/.cache/mfimage."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mfimage"


class FeatureStore:
    """Features by what they are of, under a directory that several processes see.

    A chunk is a file, written whole or not at all: what is there is not computed again, whoever computed it.
    Several processes, told apart by the RANK and WORLD_SIZE that launchers set, each compute their share.

    Args:
        extractor: Images to features.
        directory: Of the files; `cache_directory()` / "features" if None.
        tell: Is told in words how far it is.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        directory: Path | None = None,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.extractor, self.tell = extractor, tell
        self.directory = directory or cache_directory() / "features"

    def features(self, key: str, count: int, images: Callable[[range], Tensor], what: str) -> Tensor:
        """Compute, or read, the features of a set.

        Args:
            key: Says everything that the images follow from.
            count: How many there are.
            images: Range of positions to images (B, C, H, W) in [0, 1].
            what: The images are, in words.

        Returns:
            (count, dim) float32 in the first process. The others compute their share and return none of it.
        """
        folder = self._folder(key)
        ranges = [range(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
        rank, world = _rank_and_world()
        began, done = time.perf_counter(), 0
        told = began
        for index in range(rank, len(ranges), world):
            if _read(_chunk(folder, index), ranges[index]) is None:
                self._compute(folder, index, images(ranges[index]))
                done += len(ranges[index])
                left = (count - ranges[index].stop) / world * (time.perf_counter() - began) / done
                if time.perf_counter() - told > 10 or index + world >= len(ranges):
                    told = time.perf_counter()
                    self.tell(
                        f"features of {what}: {ranges[index].stop:,} of {count:,}, {left / 60:.1f} min left"
                    )
        if rank > 0:
            return torch.empty(0, 0)
        arrived = time.perf_counter()
        parts: list[Tensor] = []
        while len(parts) < len(ranges):
            index = len(parts)
            part = _read(_chunk(folder, index), ranges[index])
            if part is not None:
                parts.append(part)
                arrived = time.perf_counter()
            elif time.perf_counter() - arrived < PATIENCE and world > 1:
                time.sleep(0.2)
            else:  # whoever should have computed it is gone
                self._compute(folder, index, images(ranges[index]))
        return torch.cat(parts)

    def _compute(self, folder: Path, index: int, images: Tensor) -> None:
        save_tensors({"features": self.extractor(images)}, _chunk(folder, index), {})

    def forget(self, key: str) -> None:
        """Remove the files of a set that will not be asked for again."""
        if is_main():
            shutil.rmtree(self._folder(key), ignore_errors=True)

    def _folder(self, key: str) -> Path:
        text = f"{self.extractor.name}\n{self.extractor.weights}\n{CHUNK}\n{key}"
        return self.directory / hashlib.sha256(text.encode()).hexdigest()[:24]


def _chunk(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.safetensors"


def _read(path: Path, rows: range) -> Tensor | None:
    """The features in a file; None if it is missing, damaged, or of another number of images."""
    if not path.exists():
        return None
    try:
        features = read_tensors(path)["features"]
    except (ModelError, KeyError):
        return None
    return features if len(features) == len(rows) else None


def is_main() -> bool:
    """Whether this is the only process, or the first of several."""
    return _rank_and_world()[0] == 0


def _rank_and_world() -> tuple[int, int]:
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
