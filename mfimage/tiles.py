"""Apply a function of images to larger ones, in overlapping tiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from mfimage.errors import DataError, UsageError
from mfimage.modes import plainly

OVERLAP = 0.5  # share of a tile that its neighbour covers


@plainly
@torch.no_grad()
def in_tiles(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: tuple[int, int],
    overlap: float = OVERLAP,
    batch_size: int = 256,
) -> Tensor:
    """Apply a function of (N, C, h, w) → (N, C', h, w) to images (B, C, H, W), no smaller, in tiles (h, w).

    out = Σ_t w_t · function(x_t) / Σ_t w_t,   w = hann ⊗ hann,   hann_i = sin²(π (i + ½)/n)

    Of a tile its neighbour covers at least the share `overlap` in [0, 1): more is smoother and slower. The
    result is x itself, bit for bit, where the function returns what it is given.
    """
    height, width = tile
    if x.shape[-2] < height or x.shape[-1] < width:
        raise DataError(
            f"image: {x.shape[-2]} × {x.shape[-1]} pixels are less than a tile of {height} × {width}: "
            "enlarge it first"
        )
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap: a share from 0 to below 1, not {overlap}")
    tops, lefts = starts(x.shape[-2], height, overlap), starts(x.shape[-1], width, overlap)
    places = list(product(range(len(x)), tops, lefts))
    window = (hann(height)[:, None] * hann(width)).to(x.device)
    total = x.new_zeros(0, dtype=torch.float64)  # in which w·x/w is x again, once it is rounded
    weight = torch.zeros_like(x[0, 0], dtype=torch.float64)
    for top, left in product(tops, lefts):
        weight[top : top + height, left : left + width] += window
    for begin in range(0, len(places), batch_size):
        part = places[begin : begin + batch_size]
        results = function(torch.stack([x[i, :, a : a + height, b : b + width] for i, a, b in part]))
        if not begin:
            total = total.new_zeros(len(x), results.shape[1], *x.shape[-2:])
        for (i, a, b), result in zip(part, results, strict=True):
            total[i, :, a : a + height, b : b + width] += window * result.to(total)
    return (total / weight).to(x.dtype)


def starts(length: int, tile: int, overlap: float) -> list[int]:
    """Choose where tiles begin on a line: first at 0, last flush with the end, spread evenly between.

    The positions are as few as allow neighbours to have at least the share `overlap` in common.
    """
    step = max(1, math.floor(tile * (1 - overlap)))
    count = 1 + math.ceil((length - tile) / step)
    return [round(i * (length - tile) / max(1, count - 1)) for i in range(count)]


def hann(length: int) -> Tensor:
    """Make a window sin²(π (i + ½)/n), shape (n,), float64: positive, and 1 with its copy moved by n/2."""
    return torch.sin(math.pi * (torch.arange(length, dtype=torch.float64) + 0.5) / length).square()
