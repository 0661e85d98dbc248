"""Where an image is strange: its map, a mask, boxes around connected parts, and the image without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation, find_objects, label, maximum
from torch import Tensor

_AROUND = np.ones((3, 3))  # pixels that touch at a corner belong together
_RED = (1.0, 0.1, 0.1)


@dataclass(frozen=True, eq=False)
class Place:
    """Where an image is strange.

    Attributes:
        heat: Shape (H, W) float32, not clipped: 0 at the median of familiar pixels, 1 at the level that no
            pixel exceeds in a share 1 − α of familiar images.
        mask: Pixels of strange places, (H, W) bool: connected ones above what one pixel in a hundred of
            familiar images reaches, where one of them exceeds 1.
        boxes: (left, top, right, bottom) of each, in pixels, right and bottom just outside; the strongest
            first.
        repaired: The image as the model knows it, its projection, (C, H, W) in [0, 1].
    """

    heat: Tensor
    mask: Tensor
    boxes: Sequence[tuple[int, int, int, int]]
    repaired: Tensor


def place_of(heat: Tensor, edge: float, repaired: Tensor) -> Place:
    """Find the connected parts of a map (H, W) above `edge` ≤ 1 that somewhere exceed 1."""
    values = heat.numpy()
    pieces, count = label(values > min(edge, 1.0), _AROUND)
    strongest = np.atleast_1d(maximum(values, pieces, range(1, count + 1))) if count else np.zeros(0)
    found = [i for i in np.argsort(-strongest, kind="stable").tolist() if strongest[i] > 1]
    slices = find_objects(pieces)
    boxes = [(slices[i][1].start, slices[i][0].start, slices[i][1].stop, slices[i][0].stop) for i in found]
    mask = torch.from_numpy(np.isin(pieces, np.array(found, int) + 1))
    return Place(heat.float(), mask, boxes, repaired)


def outlined(x: Tensor, mask: Tensor) -> Tensor:
    """Draw a red line around a mask (H, W) into an image (1 or 3, H, W), shape (3, H, W)."""
    line = torch.from_numpy(binary_dilation(mask.numpy(), _AROUND)) & ~mask
    return torch.where(line, x.new_tensor(_RED).view(3, 1, 1), x.expand(3, -1, -1))
