"""Features of sets of images, computed in chunks: cached, resumed, and shared out between processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from mfimage.errors import ModelError, ResourceError, UsageError, boundary
from mfimage.eval.features import FeatureExtractor
from mfimage.files import cache_folder
from mfimage.outputs import sweep
from mfimage.tensors import read_tensors, save_tensors

CHUNK = 500  # images; their features are a file
PATIENCE = 600.0  # seconds without a new file after which the first process computes what is missing


class FeatureStore:
    """Features by what they are of, under a directory that several processes see.

    A chunk is a file, written whole or not at all: what is there is not computed again, whoever computed it.
    Several processes, told apart by the RANK and WORLD_SIZE that launchers set, each compute their share.
    The directory is features/ in `files.cache_folder` if None, a temporary one where that cannot be written,
    or the extractor has no hash of weights that tells it from others.
    What cannot be written later, on a full disk, is kept in memory.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        directory: Path | None = None,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.extractor, self.tell = extractor, tell
        kept = bool(extractor.weights)
        self.directory = self._writable((directory or cache_folder("features")) if kept else None)
        self._unwritten: dict[Path, Tensor] = {}

    def _writable(self, folder: Path | None) -> Path:
        """A folder if it can be written, else a temporary one."""
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    return folder
        except OSError as error:
            self.tell(f"{folder}: cannot be written ({error.strerror}): features are not kept")
        if _rank_and_world()[1] > 1:
            raise UsageError(
                "several processes share features in a folder: set XDG_CACHE_HOME to one; an extractor of "
                "your own must be a module with weights"
            )
        try:
            temporary = Path(tempfile.mkdtemp())
        except OSError:  # nothing can be written anywhere
            return Path(os.devnull) / "features"
        weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
        return temporary

    def features(self, key: str, count: int, images: Callable[[range], Tensor], what: str) -> Tensor:
        """Compute, or read, the features (count, dim) of a set; of several processes the first gets them.

        The key says everything that the images follow from; `images` gives those of a range of positions.
        """
        places = [range(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
        chunks = [(self._folder(key) / f"{i:05d}.safetensors", rows) for i, rows in enumerate(places)]
        rank, world = _rank_and_world()
        sweep(self._folder(key), PATIENCE)
        began = told = time.perf_counter()
        done = 0
        for path, rows in chunks[rank::world]:
            if self._known(path, rows) is None:
                self._compute(path, images(rows))
                done += len(rows)
                left = (count - rows.stop) / world * (time.perf_counter() - began) / done
                if time.perf_counter() - told > 10 or rows.start + world * CHUNK >= count:
                    told = time.perf_counter()
                    self.tell(f"features of {what}: {rows.stop:,} of {count:,}, {left / 60:.1f} min left")
        return torch.empty(0, 0) if rank > 0 else self._collected(chunks, images)

    def _collected(self, chunks: list[tuple[Path, range]], images: Callable[[range], Tensor]) -> Tensor:
        """The features of all chunks, once every process has computed its share."""
        arrived, parts = time.perf_counter(), []
        patience = PATIENCE if _rank_and_world()[1] > 1 else 0.0
        for path, rows in chunks:
            while (part := self._known(path, rows)) is None and time.perf_counter() - arrived < patience:
                time.sleep(0.2)
            if part is None:  # whoever should have computed it is gone
                part = self._compute(path, images(rows))
            else:
                arrived = time.perf_counter()
            parts.append(part)
        return torch.cat(parts)

    def _compute(self, path: Path, images: Tensor) -> Tensor:
        features = self.extractor(images)
        try:
            save_tensors({"features": features}, path, {})
        except (OSError, ResourceError) as error:
            if _rank_and_world()[1] > 1:  # who waits for it would not see it
                raise
            if not self._unwritten:
                self.tell(f"features are not kept: {error}")
            self._unwritten[path] = features
        return features

    def _known(self, path: Path, rows: range) -> Tensor | None:
        """The features of a chunk, as far as they were computed."""
        return self._unwritten[path] if path in self._unwritten else _read(path, rows)

    def forget(self, key: str) -> None:
        """Remove the files of a set that will not be asked for again."""
        folder = self._folder(key)
        self._unwritten = {path: part for path, part in self._unwritten.items() if path.parent != folder}
        if is_main():
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, key: str) -> Path:
        text = f"{self.extractor.name}\n{self.extractor.weights}\n{CHUNK}\n{key}"
        return self.directory / hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(path: Path, rows: range) -> Tensor | None:
    """The features in a file; None if it is missing, damaged, or of another number of images."""
    with suppress(ModelError), boundary(ModelError, str(path)):
        features = read_tensors(path)["features"]
        return features if len(features) == len(rows) else None
    return None


def is_main() -> bool:
    """Whether this is the only process, or the first of several."""
    return _rank_and_world()[0] == 0


def _rank_and_world() -> tuple[int, int]:
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
