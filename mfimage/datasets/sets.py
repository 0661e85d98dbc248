"""A set of images in memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read."""

    path: str
    reason: str


class Dataset(ABC):
    """Data to learn from or to measure on: images (C, H, W) in [0, 1], or vectors (D,), all of one shape.

    Attributes:
        name: Where they came from.
        split: Which part of it they are.
        shape: Of one example.
        skipped: What could not be read, with the reason.
        labels: (N,) int64 class indices, None if unknown.
        theta: (N, P) float32 parameters that condition the density, None if there are none.
        score: (N, P) float32 joint score ∇_θ log p(x, z|θ) of a simulator, None if unknown.
    """

    name: str
    split: str
    labels: Tensor | None = None
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

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, rows: Sequence[int] | Tensor | slice) -> Tensor:
        """Examples at these positions, in any order, repeats allowed: (B, …) float32, images in [0, 1]."""

    @abstractmethod
    def subset(self, rows: Sequence[int] | Tensor) -> Dataset:
        """The examples at these positions as a set."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """What a run records of its data, ready for JSON: name, split, count, shape, sha256, mean, std, …."""

    def __getitem__(self, index: int) -> Tensor:
        """One example."""
        return self.batch([range(len(self))[index]])[0]

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


@dataclass(frozen=True, eq=False)
class ImageSet(Dataset):
    """Images of one size in memory, with what is known of each.

    Attributes:
        images: (N, C, H, W), uint8 in 0..255, or float32 in [0, 1] where a source was deeper than 8 bits.
        name: Where they came from.
        split: Which part of it they are.
        paths: One an image: its file, or `name[index]` for rows of an array.
        skipped: The files that could not be read.
        labels: (N,) int64 class indices, None if unknown.
    """

    images: Tensor
    name: str
    split: str
    paths: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def batch(self, indices: Sequence[int] | Tensor | slice) -> Tensor:
        """Some of the images, as the models take them.

        Args:
            indices: (B,) positions in 0..N − 1, in any order, repeats allowed.

        Returns:
            (B, C, H, W) float32 in [0, 1].
        """
        if not isinstance(indices, slice):
            indices = torch.as_tensor(indices).long()
        chosen = self.images[indices]
        return chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen

    def subset(self, indices: Sequence[int] | Tensor) -> ImageSet:
        """The set of the images at these positions; what was skipped stays on record."""
        chosen = torch.as_tensor(indices).long()
        return replace(
            self,
            images=self.images[chosen],
            paths=tuple(self.paths[i] for i in chosen.tolist()),
            labels=None if self.labels is None else self.labels[chosen],
        )

    def summary(self) -> dict[str, Any]:
        """What a run records of its data, ready for JSON.

        Returns:
            name, split, count, shape [C, H, W], dtype, skipped (how many) and skipped_first (up to 5 of
            them), sha256 of the pixel bytes in the order (N, C, H, W), mean and std of all values in [0, 1].
        """
        digest, total, squares = hashlib.sha256(), 0.0, 0.0
        for start in range(0, len(self), 1024):
            digest.update(self.images[start : start + 1024].contiguous().numpy().data)
            values = self.batch(slice(start, start + 1024)).double()
            total += values.sum().item()
            squares += values.square().sum().item()
        mean = total / self.images.numel()
        return {
            "name": self.name,
            "split": self.split,
            "count": len(self),
            "shape": list(self.shape),
            "dtype": str(self.images.dtype).removeprefix("torch."),
            "skipped": len(self.skipped),
            "skipped_first": [{"path": one.path, "reason": one.reason} for one in self.skipped[:5]],
            "sha256": digest.hexdigest(),
            "mean": mean,
            "std": max(squares / self.images.numel() - mean**2, 0.0) ** 0.5,
        }
