"""A set of images that stay where they are, and are decoded when they are wanted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mfimage.datasets.changes import Changes
from mfimage.datasets.decode import Preparation
from mfimage.datasets.pixels import Pixels, as_float, check_size
from mfimage.datasets.sets import BadFiles, Dataset, ImageSet, Rows
from mfimage.datasets.stores import CHUNK, Store, ahead
from mfimage.errors import DataError, Skipped

SAMPLED = 256  # images that a set is judged by before it is used
_AT_ONCE = 2**20  # values of an image whose moments are computed together


class _Glance(NamedTuple):
    """What is seen of an image of the sample."""

    path: str
    shape: tuple[int, ...]
    mean: float
    square: float
    dtype: str


@dataclass(frozen=True, eq=False, repr=False)
class StoredSet(Dataset):
    """Images of one size, read when they are wanted: an `ImageSet` that takes no memory.

    An image that cannot be read is replaced by the next one of the set that can, so that every batch is
    whole and follows from its rows alone.
    """

    store: Store
    rows: NDArray[np.int64]  # (N,), of the store
    prepare: Preparation  # how they are decoded and scaled; its channels are settled
    name: str
    split: str
    image_shape: tuple[int, int, int]
    mean: float  # of all values of a sample, as is std
    std: float
    bad: BadFiles  # which could not be read so far; all subsets share it
    notes: tuple[str, ...] = ()
    dtype: str = "uint8"  # of the images of the sample, "float32" where one is deeper than 8 bits

    @classmethod
    def open(
        cls, store: Store, rows: Sequence[int], prepare: Preparation, split: str, max_bad: float
    ) -> StoredSet:
        """Look at some images of a set, evenly over all, and settle size and channels (3 for any colour)."""
        bad, chosen, changes = BadFiles(max_bad), np.asarray(rows, np.int64), Changes()
        whole = cls(store, chosen, prepare, store.name, split, (0, 0, 0), 0.0, 0.0, bad)
        sample = np.unique(np.linspace(0, len(chosen) - 1, min(SAMPLED, len(chosen))).round().astype(int))
        bad.count(len(sample))
        seen: list[_Glance] = []
        for one in ahead(lambda row: whole._glance(row, changes), chosen[sample].tolist()):
            if one is not None:
                seen.append(one)
                check_size(seen[0].shape, seen[0].path, one.shape, one.path)
        if not seen:
            raise DataError(f"{store.name}: none of {len(sample)} images that were tried can be read")
        _, shapes, means, squares, depths = zip(*seen, strict=True)
        channels, mean = max(shape[2] for shape in shapes), sum(means) / len(seen)
        std = math.sqrt(max(0.0, sum(squares) / len(seen) - mean**2))
        prepare = replace(prepare, channels=channels)
        shape, dtype = (channels, *shapes[0][:2]), "uint8" if set(depths) == {"uint8"} else "float32"
        return replace(
            whole, prepare=prepare, image_shape=shape, mean=mean, std=std, notes=changes.notes(), dtype=dtype
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.image_shape

    @cached_property
    def labels(self) -> Tensor | None:  # type: ignore[override]
        known = self.store.labels(self.rows)
        return None if known is None else torch.from_numpy(known)

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.store.class_names)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return (*self.store.unread, *self.bad.skipped)

    def read(self, positions: Tensor) -> Tensor:
        """Some of the images, read one after the other in this thread; else as `batch`."""
        self.bad.count(len(positions))
        images = np.empty((len(positions), *self.shape), np.float32)
        for image, position in zip(images, positions.tolist(), strict=True):
            image[:] = as_float(self._image(position)).transpose(2, 0, 1)
        return torch.from_numpy(images)

    def batch(self, rows: Rows) -> Tensor:
        """Some of the images, (B, C, H, W) float32 in [0, 1], read by several threads.

        Raises:
            DataError: More images than the share of `Reading.max_bad` have turned out bad.
            MixedSizesError: An image is of another size than the sample.
        """
        positions = self.positions(rows)
        images = torch.empty(len(positions), *self.shape, dtype=torch.float32)
        for part, read in zip(images.split(CHUNK), ahead(self.read, positions.split(CHUNK)), strict=True):
            part.copy_(read)
        return images

    def batches(self, size: int) -> Iterator[Tensor]:
        yield from ahead(self.read, torch.arange(len(self)).split(size))

    def subset(self, rows: Rows) -> StoredSet:
        return replace(self, rows=self.rows[self.positions(rows).numpy()])

    @contextmanager
    def prefetched(self, rows: Callable[[int], Tensor], steps: int) -> Iterator[Callable[[int], Tensor]]:
        """Give the batches of a training, of which the next are read while the present one trains.

        A batch follows from its step alone, as in a resumed training; steps in turn are the quick ones.
        """
        batches, due = ahead(self.read, map(rows, range(0))), -1

        def batch(step: int) -> Tensor:
            nonlocal batches, due
            if step != due:
                batches.close()
                batches = ahead(self.read, map(rows, range(step, max(step + 1, steps))))
            due = step + 1
            return next(batches)

        try:
            yield batch
        finally:
            batches.close()

    def in_memory(self) -> ImageSet:
        images = self.batch(slice(None))
        exact = (images * 255).round().to(torch.uint8)
        kept = exact if torch.equal(exact.float() / 255, images) else images
        known, paths = self.labels, self.paths
        return ImageSet(kept, self.name, self.split, paths, self.skipped, known, self.notes, self.classes)

    @property
    def paths(self) -> tuple[str, ...]:
        """What each image is called."""
        return tuple(self.store.path(row) for row in self.rows.tolist())

    def statistics(self) -> dict[str, Any]:
        """Of `sampled` images; sha256 is of the files (names, sizes), the rows and the preparation.

        `written` also tells when the files were written, where their sizes do not: of use to caches.
        """
        how = f"{asdict(self.prepare)}\0{self.store.fingerprint()}\0"
        return {
            "dtype": self.dtype,
            "sha256": hashlib.sha256(how.encode() + self.rows.tobytes()).hexdigest(),
            "mean": self.mean,
            "std": self.std,
            "sampled": min(SAMPLED, len(self)),
            "written": self.store.written(),
        }

    def _image(self, position: int) -> Pixels:
        """The image at a position, or the next that can be read."""
        position = range(len(self))[position]
        for step in range(len(self)):
            row = int(self.rows[(position + step) % len(self)])
            if (values := self._decoded(row)) is not None:
                check_size(self.shape[1:], self.name, values.shape, self.store.path(row))
                return values
        raise DataError(f"{self.name}: none of its images can be read")

    def _glance(self, row: int, changes: Changes) -> _Glance | None:
        """Look at an image; large ones are not turned into numbers as a whole."""
        if (values := self._decoded(row, changes)) is None:
            return None
        total = squares = 0.0
        for part in np.array_split(values, 1 + values.size // _AT_ONCE):
            x = as_float(part).astype(np.float64)
            total, squares = total + float(x.sum()), squares + float(np.square(x).sum())
        means = total / values.size, squares / values.size
        return _Glance(self.store.path(row), values.shape, *means, str(values.dtype))

    def _decoded(self, row: int, changes: Changes | None = None) -> Pixels | None:
        """An image of the store, None if it cannot be read."""
        path = self.store.path(row)
        if path in self.bad:
            return None
        try:
            return self.store.image(row, self.prepare, changes)
        except DataError as error:
            self.bad.add(path, error)
            self.bad.check_so_far()
            return None
