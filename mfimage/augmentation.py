"""Images as they might have been taken: mirrored, shifted and scaled a little, at random by (seed, step)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHIFTED = 0.7  # share of images
ZOOM = 0.01  # most change of size, for every pixel of the largest shift


def mirrored(x: Tensor, draw: Tensor) -> Tensor:
    """Mirror those images (B, C, H, W) left to right whose number in [0, 1), shape (B,), is below ½."""
    return torch.where((draw < 0.5).to(x.device).view(-1, 1, 1, 1), x.flip(3), x)


def shifted(x: Tensor, most: float, draw: Tensor) -> Tensor:
    """Shift images by up to `most` pixels and scale them by as many hundredths, between pixels bilinearly.

    What comes in at a border is reflected. `draw`, (B, 4) in [0, 1): whether an image is changed, right,
    down, size.
    """
    chosen = draw[:, 0] < SHIFTED
    amounts = (most * (2 * draw[chosen, 1:] - 1)).to(x)
    matrix = x.new_zeros(len(amounts), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 + ZOOM * amounts[:, 2]
    matrix[:, 0, 2], matrix[:, 1, 2] = 2 * amounts[:, 0] / x.shape[3], 2 * amounts[:, 1] / x.shape[2]
    grid = F.affine_grid(matrix, [len(amounts), *x.shape[1:]], align_corners=False)
    moved = F.grid_sample(x[chosen.to(x.device)], grid, padding_mode="reflection", align_corners=False)
    return x.index_put((chosen.nonzero()[:, 0].to(x.device),), moved)
