"""A set of images that stay where they are, and are decoded when they are wanted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mfimage.datasets.decode import Preparation
from mfimage.datasets.pixels import Pixels, as_float, check_size
from mfimage.datasets.prefetch import Ahead, ahead
from mfimage.datasets.sets import BadFiles, Dataset, ImageSet, Rows, Skipped
from mfimage.datasets.stores import Store
from mfimage.errors import DataError

SAMPLED = 256  # images that a set is judged by before it is used
_CHUNK = 16  # images a thread takes at once where a batch is read alone


class _Glance(NamedTuple):
    """What a sample of images is judged by."""

    path: str
    shape: tuple[int, ...]
    mean: float
    square: float


@dataclass(frozen=True, eq=False)
class StoredSet(Dataset):
    """Images of one size, read when they are wanted: an `ImageSet` that takes no memory.

    An image that cannot be read is replaced by the next one of the set that can, so that every batch is
    whole and follows from its rows alone.

    Attributes:
        store: Where they lie.
        rows: (N,) int64, which of the store's they are.
        prepare: How they are decoded and scaled; its channels are settled.
        image_shape: Channels, height and width of every image.
        mean, std: Of all values of a sample.
        bad: The files that could not be read so far; all subsets share it.
    """

    store: Store
    rows: NDArray[np.int64]
    prepare: Preparation
    name: str
    split: str
    image_shape: tuple[int, int, int]
    mean: float
    std: float
    bad: BadFiles

    @classmethod
    def open(
        cls, store: Store, rows: Sequence[int], prepare: Preparation, split: str, max_bad: float
    ) -> StoredSet:
        """Look at some images of a set, evenly over all, and settle what they have in common.

        Args:
            store: Where they lie.
            rows: Which of them are meant.
            prepare: How they are read; channels None become 3 if any of the sample has colour and else 1.
            split: Name of the part that the rows are.
            max_bad: Largest share of bad files, in [0, 1], of those that have been read.

        Raises:
            DataError: Too many of the sample cannot be read.
            MixedSizesError: They differ in size and none is asked for.
        """
        bad, chosen = BadFiles(max_bad), np.asarray(rows, np.int64)
        whole = cls(store, chosen, prepare, store.name, split, (0, 0, 0), 0.0, 0.0, bad)
        sample = np.unique(np.linspace(0, len(chosen) - 1, min(SAMPLED, len(chosen))).round().astype(int))
        bad.count(len(sample))
        seen = [one for one in ahead(whole._glance, chosen[sample].tolist()) if one is not None]
        if not seen:
            raise DataError(f"{store.name}: none of {len(sample)} images that were tried can be read")
        for one in seen:
            check_size(seen[0].shape, seen[0].path, one.shape, one.path)
        height, width = seen[0].shape[:2]
        channels = max(one.shape[2] for one in seen)
        mean = sum(one.mean for one in seen) / len(seen)
        variance = sum(one.square for one in seen) / len(seen) - mean**2
        prepare = replace(prepare, channels=channels)
        shape, std = (channels, height, width), math.sqrt(max(0.0, variance))
        return replace(whole, prepare=prepare, image_shape=shape, mean=mean, std=std)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.image_shape

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The files that could not be read so far, as they were met."""
        return self.bad.skipped

    @property
    def nbytes(self) -> int:
        """What the images would take in memory at 8 bits."""
        return len(self) * math.prod(self.shape)

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
            DataError: More images than the share of `open` have turned out bad.
            MixedSizesError: An image is of another size than the sample.
        """
        positions = self.positions(rows)
        images = torch.empty(len(positions), *self.shape)
        for begin, part in enumerate(ahead(self.read, positions.split(_CHUNK))):
            images[begin * _CHUNK : (begin + 1) * _CHUNK] = part
        return images

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images in order, `size` at a time; the next are read meanwhile."""
        yield from ahead(self.read, torch.arange(len(self)).split(size))

    def subset(self, rows: Rows) -> StoredSet:
        """Some of the images as a set."""
        return replace(self, rows=self.rows[self.positions(rows).numpy()])

    @contextmanager
    def prefetched(self, rows: Callable[[int], Tensor], steps: int) -> Iterator[Callable[[int], Tensor]]:
        """Give the batches of a training, step to batch, decoded in threads ahead of the steps."""
        with closing(Ahead(self.read, rows, steps)) as batches:
            yield batches

    def in_memory(self) -> ImageSet:
        """The same images in memory."""
        images = self.batch(slice(None))
        exact = (images * 255).round().to(torch.uint8)
        kept = exact if torch.equal(exact.float() / 255, images) else images
        paths = tuple(self.store.path(row) for row in self.rows.tolist())
        return ImageSet(kept, self.name, self.split, paths, self.skipped)

    def statistics(self) -> dict[str, Any]:
        """Of `sampled` images; sha256 is of the files (names, sizes), the rows and the preparation."""
        how = f"{asdict(self.prepare)}\0{self.store.fingerprint()}\0"
        return {
            "dtype": "uint8",
            "sha256": hashlib.sha256(how.encode() + self.rows.tobytes()).hexdigest(),
            "mean": self.mean,
            "std": self.std,
            "sampled": min(SAMPLED, len(self)),
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

    def _glance(self, row: int) -> _Glance | None:
        if (values := self._decoded(row)) is None:
            return None
        x = as_float(values).astype(np.float64)
        return _Glance(self.store.path(row), values.shape, float(x.mean()), float(np.square(x).mean()))

    def _decoded(self, row: int) -> Pixels | None:
        """An image of the store, None if it cannot be read."""
        path = self.store.path(row)
        if path in self.bad:
            return None
        try:
            return self.prepare(self.store.content(row, self.prepare.max_bytes), path)
        except DataError as error:
            self.bad.add(path, error)
            self.bad.check_so_far()
            return None
