"""Batches of any data for a training loop of your own: decoded ahead in threads, shuffled by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from mfimage.config import Reading
from mfimage.datasets.loading import MEMORY, Data, load
from mfimage.datasets.pixels import Size
from mfimage.datasets.sets import Dataset
from mfimage.errors import DataError
from mfimage.files import stream
from mfimage.settings import whole_number


class Loader:
    """Batches of a data set, epoch after epoch: each `for` goes once through all of it.

    A batch follows from the seed, the epoch and its place alone, and so is the same again in another process.
    Images that stay in files are read ahead by threads, as in `mfimage.train`; what cannot be read is in
    `data.skipped`, and the next image takes its place.

    Attributes:
        data: The `Dataset`.
        epoch: Which comes next; set it to go on where another process stopped.
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int = 64,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        labels: bool = False,
    ) -> None:
        self.data, self.batch_size = data, whole_number("batch_size", batch_size, 1)
        self.shuffle, self.seed, self.drop_last = shuffle, whole_number("seed", seed), drop_last
        self.epoch = 0
        self._labels = data.labels if labels else None
        if labels and self._labels is None:
            raise DataError(f"{data.name}: has no labels: they are folders, or those of a named set")

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return (len(self.data) + (0 if self.drop_last else self.batch_size - 1)) // self.batch_size

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
        """Give the batches of the next epoch."""
        count, epoch = len(self.data), self.epoch
        self.epoch += 1
        order = (
            torch.randperm(count, generator=stream(self.seed, epoch)) if self.shuffle else torch.arange(count)
        )
        rows = order.split(self.batch_size)[: len(self)]
        with self.data.prefetched(rows.__getitem__, len(rows)) as batch:
            for step, chosen in enumerate(rows):
                yield batch(step) if self._labels is None else (batch(step), self._labels[chosen])


def loader(
    source: Data,
    batch_size: int = 64,
    size: Size | None = None,
    channels: int | None = None,
    split: str = "train",
    *,
    shuffle: bool = True,
    seed: int = 0,
    drop_last: bool = False,
    labels: bool = False,
    reading: Reading = Reading(),
    memory: int | None = MEMORY,
    root: str | Path | None = None,
) -> Loader:
    """Give the batches of any data that `mfimage.load` takes, for a training loop of your own.

    Args:
        source: A named set, folder, zip, Parquet file, array, data set, …: see `mfimage.load`.
        batch_size: Examples a batch; the last of an epoch may have fewer.
        size: In pixels, see `load`.
        channels: 1 for luma, 3 for colour, see `load`.
        split: "train", "valid", "test" or "all".
        shuffle: Whether every epoch has an order of its own.
        seed: Of these orders.
        drop_last: Leave out a last batch that is not full.
        labels: Give (x, labels (B,) int64) in the place of x.
        reading: How files are read, and how many may be bad.
        memory: Most bytes of pixels that are held in memory; more are read where they lie.
        root: Where named sets lie that are not bundled, see `load`.

    Returns:
        An iterable with a length: of float32 tensors (B, C, H, W) in [0, 1], or (B, D) of vectors.

    Raises:
        DataError: The data cannot be had, see `load`, or have no labels.

    >>> batches = loader("fashion-mini", batch_size=256, size=16, labels=True)
    >>> len(batches)
    40
    >>> for x, kind in batches:
    ...     pass
    >>> x.shape, kind.shape, batches.epoch
    (torch.Size([16, 1, 16, 16]), torch.Size([16]), 1)
    """
    data = load(source, split, size, channels, reading=reading, memory=memory, root=root)
    return Loader(data, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, labels=labels)
