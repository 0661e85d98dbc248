"""The data protocol: what every data set can do, images in memory, and a record of the files that are bad."""

from __future__ import annotations

import hashlib
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mfimage.errors import DataError, Skipped, UsageError

Rows: TypeAlias = Sequence[int] | Tensor | slice
"""Positions in any order, repeats allowed, negative ones from the end; or a boolean mask of all examples."""


class Dataset(ABC):
    """Data to learn from or to measure on: images (C, H, W) in [0, 1], or vectors (D,), all of one shape.

    A map-style data set as PyTorch's DataLoader takes it, of float32 tensors.

    Attributes:
        name: Where they came from.
        split: Which part of it they are.
        shape: Of one example.
        skipped: What could not be read, with the reason.
        notes: What a user should know of how they were chosen and prepared, a sentence each.
        labels: (N,) int64 class indices, None if unknown.
        classes: What the indices mean; empty if unknown.
        theta: (N, P) float32 parameters that condition the density, None if there are none.
        score: (N, P) float32 joint score ∇_θ log p(x, z|θ) of a simulator, None if unknown.
    """

    name: str
    split: str
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    theta: Tensor | None = None
    score: Tensor | None = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What could not be read."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how the examples were chosen and prepared."""
        return ()

    @abstractmethod
    def __len__(self) -> int: ...

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {self.split}: {len(self)} of shape {self.shape}>"

    @abstractmethod
    def batch(self, rows: Rows) -> Tensor:
        """Some of the examples, (B, …) float32, images in [0, 1]."""

    @abstractmethod
    def subset(self, rows: Rows) -> Dataset:
        """Some of the examples as a set, with what belongs to them; what was skipped stays on record."""

    @abstractmethod
    def statistics(self) -> dict[str, Any]:
        """What the examples hold: dtype, sha256, mean and std of all values, ready for JSON."""

    def summary(self) -> dict[str, Any]:
        """What a run records of its data, for JSON: name, split, …, skipped (how many), `statistics`."""
        found = self.statistics()
        return {
            "name": self.name,
            "split": self.split,
            "count": len(self),
            "shape": list(self.shape),
            "dtype": found.pop("dtype"),
            "skipped": len(self.skipped),
            "skipped_first": [vars(one) for one in self.skipped[:5]],
            **found,
            "notes": list(self.notes),
        }

    def __getitem__(self, index: int) -> Tensor:
        """One example."""
        return self.batch(self.positions([index]))[0]

    def batches(self, size: int) -> Iterator[Tensor]:
        """All examples in order, `size` at a time; the last batch may be shorter."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    @contextmanager
    def prefetched(self, rows: Callable[[int], Tensor], steps: int) -> Iterator[Callable[[int], Tensor]]:
        """Give the batches of a training, step to batch; those of a stored set ahead of the steps."""
        yield lambda step: self.batch(rows(step))

    def in_memory(self) -> Dataset:
        """The same examples in memory."""
        return self

    def positions(self, rows: Rows) -> Tensor:
        """Rows as (B,) int64; UsageError for a mask of another length, and for what is not integers."""
        if isinstance(rows, slice):
            return torch.arange(*rows.indices(len(self)))
        index = _as_array(rows)
        if index.dtype == bool and index.shape == (len(self),):
            return torch.from_numpy(index.nonzero()[0])
        if index.ndim != 1 or (index.dtype.kind not in "iu" and index.size) or index.dtype == bool:
            raise UsageError(
                f"{self.name}: rows are integers, or a mask of all {len(self)} examples, "
                f"not {index.dtype} of shape {index.shape}"
            )
        return torch.from_numpy(index.astype(np.int64))


def _as_array(rows: Any) -> np.ndarray:
    """Rows as an array; of objects where truth values stand among numbers, or lengths differ."""
    if isinstance(rows, Tensor):
        return (rows.float() if rows.is_floating_point() else rows).detach().cpu().numpy()
    kinds = {isinstance(row, bool | np.bool_) for row in rows} if isinstance(rows, list | tuple) else set()
    try:
        return np.asarray(rows, object if len(kinds) > 1 else None)
    except ValueError:
        return np.asarray(None)


def identity(summary: Mapping[str, Any]) -> str:
    """Tell the examples of a summary from others; those read in place also by when they were written."""
    return f"{summary['sha256']}{summary.get('written', '')}"


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet(Dataset):
    """Images of one size in memory, with what is known of each.

    Attributes:
        images: (N, C, H, W), uint8 in 0..255, or float32 in [0, 1] where a source was deeper than 8 bits.
        paths: One an image: its file, or `name[index]` for rows of an array.
    """

    images: Tensor
    name: str
    split: str
    paths: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    labels: Tensor | None = None
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def batch(self, rows: Rows) -> Tensor:
        chosen = self.images[rows if isinstance(rows, slice) else self.positions(rows)]
        return chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen

    def subset(self, rows: Rows) -> ImageSet:
        chosen = self.positions(rows)
        return replace(
            self,
            images=self.images[chosen],
            paths=tuple(self.paths[i] for i in chosen.tolist()),
            labels=None if self.labels is None else self.labels[chosen],
        )

    def statistics(self) -> dict[str, Any]:
        digest, total, squares = hashlib.sha256(), 0.0, 0.0
        for start in range(0, len(self), 1024):
            digest.update(self.images[start : start + 1024].contiguous().numpy().data)
            values = self.batch(slice(start, start + 1024)).double()
            total += values.sum().item()
            squares += values.square().sum().item()
        count = max(1, self.images.numel())  # of no images
        mean = total / count
        return {
            "dtype": str(self.images.dtype).removeprefix("torch."),
            "sha256": digest.hexdigest(),
            "mean": mean,
            "std": max(squares / count - mean**2, 0.0) ** 0.5,
        }


class BadFiles:
    """The files that could not be read so far, and whether they are too many; threads may share it."""

    def __init__(self, max_bad: float, skipped: Iterable[Skipped] = ()) -> None:
        self.max_bad, self.tried = max_bad, 0
        self._bad = {one.path: one for one in skipped}
        self._lock = threading.Lock()

    def __contains__(self, path: str) -> bool:
        return path in self._bad

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The bad files, as they were met."""
        return tuple(self._bad.copy().values())

    def count(self, files: int) -> None:
        """Count so many more files as tried."""
        with self._lock:
            self.tried += files

    def add(self, path: str, error: DataError) -> Skipped:
        """Note a bad file; one that is met again counts once."""
        with self._lock:
            self._bad[path] = Skipped(path, str(error).removeprefix(f"{path}: "))
            return self._bad[path]

    def check(self, good: int) -> None:
        """Raise DataError if, once all is read, no file was good or more than the share was bad."""
        if not good or len(self._bad) > self.max_bad * (good + len(self._bad)):
            self._refuse(good + len(self._bad))

    def check_so_far(self) -> None:
        """Raise DataError if more are bad than the share allows for the files tried, while others follow."""
        allowed = self.max_bad * self.tried
        # Three standard deviations more than the share: of the first few a bad one may be among them.
        if len(self._bad) > allowed + 3 * math.sqrt(allowed):
            self._refuse(self.tried)

    def _refuse(self, files: int) -> None:
        first = "".join(f"\n  {one.path}: {one.reason}" for one in self.skipped[:5])
        raise DataError(
            f"{len(self._bad)} of {files} files cannot be used, more than the share of {self.max_bad:g} "
            f"that is skipped; the first:{first}"
        )
