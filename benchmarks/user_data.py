"""Data such as a user has: images to learn from, unseen ones, and what `default_model.py` asks of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from harness import SHARED

from mfimage.datasets import load
from mfimage.datasets.sets import Dataset
from mfimage.errors import DataError

Parts = tuple[Dataset | str, Dataset]  # images to learn from, or a named set; unseen ones


def faces(count: int) -> Parts:
    """CelebA: the first of the official train split; unseen are 2,044 of the validation split."""
    halves = [_shared(f"celeba64_train_{half}.zip") for half in "ab"]
    return load(halves, "all", limit=count), load(_shared("celeba64_valid.zip"), "all")


def clothes(count: int) -> Parts:
    """Fashion-MNIST: the first ones, or all as the named set; unseen are the first 2,000 test images."""
    if count == 60_000:
        load("fashion-mnist", "train", limit=1)  # DataError where it is not
        return "fashion-mnist", load("fashion-mnist", "test", limit=2000)
    return load("fashion-mini", "train", limit=count), load("fashion-mini", "test")


def tiny_imagenet(count: int) -> Parts:
    """Tiny-ImageNet's validation split: every eighth is unseen, the others are learned from."""
    images = load(_shared("tinyimagenet_val4000.zip"), "all", channels=3, limit=count)
    return _every(images, 8)


def olivetti(count: int) -> Parts:
    """40 people, ten pictures of each: the last of each is unseen."""
    images = np.load(_shared("olivetti64_gray.npz"))["images"]
    return _every(load(images, "all", limit=count + count // 9), 10)


def brick(count: int) -> Parts:
    """Tiles 64 × 64 of scikit-image's brick, 512 × 512 pixels, from anywhere in the left three quarters.

    500 unseen ones are from the right quarter: no pixel is in both.
    """
    from skimage.data import brick as picture

    wall, generator = picture(), np.random.default_rng(0)

    def tiles(number: int, left: int, right: int) -> Dataset:
        rows, columns = generator.integers(0, 449, number), generator.integers(left, right - 63, number)
        return load(
            np.stack([wall[y : y + 64, x : x + 64] for y, x in zip(rows, columns, strict=True)]), "all"
        )

    return tiles(count, 0, 384), tiles(500, 384, 512)


def synthetic(count: int) -> Parts:
    """Blots of one size anywhere on 25 × 33 pixels."""
    place = torch.rand(count + 100, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    y, x = torch.arange(25.0)[:, None] / 25 - place[:, 0], torch.arange(33.0) / 33 - place[:, 1]
    images = load((255 * (-20 * (y**2 + x**2)).exp()).byte().numpy(), "all")
    return images.subset(range(count)), images.subset(range(count, count + 100))


def _shared(name: str) -> str:
    if not (SHARED / name).exists():
        raise DataError(f"no {name} in {SHARED} (MFIMAGE_SHARED)")
    return str(SHARED / name)


def _every(images: Dataset, step: int) -> Parts:
    last = [i % step == step - 1 for i in range(len(images))]
    kept = [[i for i, unseen in enumerate(last) if unseen is wanted] for wanted in (False, True)]
    return images.subset(kept[0]), images.subset(kept[1])


@dataclass(frozen=True)
class Case:
    """A data set, the settings of its command, and what is asked of the ratio."""

    make: Callable[[int], Parts]
    count: int
    dim: int
    cpu: float  # seconds of CPU time that may be used
    time: float  # seconds that the command is given
    bar: float
    goal: float | None = None

    @property
    def seeds(self) -> list[int]:
        """Three where training takes less than ten minutes of CPU time."""
        return [0, 1, 2] if self.cpu < 600 else [0]


CASES = {
    "faces-1349": Case(faces, 1349, 32, 600, 440, 0.94, 0.90),
    "faces-15979": Case(faces, 15_979, 64, 1800, 600, 0.85, 0.80),
    "clothes-300s": Case(clothes, 60_000, 32, 300, 255, 0.48),
    "clothes-1200s": Case(clothes, 60_000, 32, 1200, 1100, 0.42),
    "clothes-1000": Case(clothes, 1000, 32, 300, 270, 0.90),
    "tiny-imagenet": Case(tiny_imagenet, 4000, 64, 900, 300, 1.00),
    "brick": Case(brick, 2000, 32, 300, 225, 0.95),
    "olivetti": Case(olivetti, 360, 16, 300, 150, 0.97),
}
QUICK = {"quick": Case(synthetic, 300, 3, 60, 3, 1.00)}
