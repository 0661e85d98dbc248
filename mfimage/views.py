"""Codes or principal coordinates of all examples, computed once for a phase that is trained on them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mfimage.augmentation import shifted
from mfimage.datasets.points import Points
from mfimage.datasets.sets import Dataset
from mfimage.files import stream

MANY = 20_000  # images, to which shifted copies complete fewer
COPIES = 15  # at most

View = Callable[[Tensor, Tensor | None], Tensor]  # (examples, θ) to points (B, k)


def copies_of(count: int) -> int:
    """Return how many shifted copies of so many images are looked at."""
    return max(0, min(COPIES, MANY // count - 1))


@torch.no_grad()
def points_seen(
    data: Dataset,
    view: View,
    device: torch.device,
    mirror: bool = False,
    shift: float = 0.0,
    copies: int = 0,
    seed: int = 0,
    classes: bool = False,
) -> Points:
    """Map all data to points; after those of all come those of shifted copies, and of the mirror images.

    Their class indices come along where `classes` are asked for.
    """
    found: list[list[Tensor]] = []
    begin = 0
    for x in data.batches(256):
        rows = slice(begin, begin + len(x))
        theta = None if data.theta is None else data.theta[rows].to(device)
        images = [x]
        for copy in range(copies):
            draw = torch.rand(
                len(x), 4, generator=stream(seed, 2**44 + 2**30 * copy + begin), dtype=torch.float32
            )
            images.append(shifted(x, shift, draw))
        if mirror:
            images += [image.flip(-1) for image in images]
        found.append([view(image.to(device), theta).cpu() for image in images])
        begin += len(x)
    points = torch.cat([torch.cat(part) for part in zip(*found, strict=True)])
    times = len(points) // len(data)
    known = data.theta, data.score, data.labels if classes else None
    theta, score, labels = (None if t is None else torch.cat([t] * times) for t in known)
    return Points(points, data.name, theta, score, labels=labels)
