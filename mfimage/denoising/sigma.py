"""How noisy an image is, where nobody says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mfimage.errors import UsageError
from mfimage.inputs import ImageLike

_NORMAL = 0.6745  # median |N(0, 1)|

Sigma = float | Sequence[float] | np.ndarray | Tensor


def wavelet_sigma(y: Tensor) -> Tensor:
    """Estimate the noise from the finest diagonal details: σ̂ = median |w| / 0.6745.

    w = ½(a − b − c + d) over every block (a b; c d) of 2 × 2 pixels, overlapping: of a small image each
    shift's quarter alone would give twice the error.

    Args:
        y: Images (B, C, H, W), H and W at least 2.

    Returns:
        Shape (B,), in units of the images; too high where the image itself is finely structured, too low
        where noise was cut off at black or white.

    Reference:
        Donoho, Johnstone, Ideal spatial adaptation by wavelet shrinkage, 1994, Biometrika 81, §4.2.
    """
    rows = y[..., 1:, :] - y[..., :-1, :]
    details = (rows[..., 1:] - rows[..., :-1]) / 2
    return details.flatten(1).abs().median(1).values / _NORMAL


def given_sigma(sigma: Sigma, image: ImageLike, count: int) -> Tensor:
    """Bring the noise that a user names to units in which images lie in [0, 1].

    Args:
        sigma: One number, or one an image, in the image's own scale: 0 … 255 for 8 bits, 0 … 65,535 for 16,
            0 … 1 for floats.
        image: Whose scale is meant.
        count: How many images there are.

    Returns:
        Shape (count,).

    Raises:
        UsageError: If a value is negative or not finite, or there are neither one nor `count`.
    """
    values = torch.as_tensor(np.asarray(sigma, dtype=np.float64)).flatten() / _white(image)
    if len(values) not in (1, count):
        raise UsageError(f"sigma: one number or {count} are needed, one an image, not {len(values)}")
    if not bool((values.isfinite() & (values >= 0)).all()):
        raise UsageError(f"sigma {sigma}: a standard deviation is a number from 0")
    return values.float().expand(count)


def _white(image: ImageLike) -> float:
    """The value of white in an image of this kind."""
    if isinstance(image, str | Path):
        with Image.open(image) as picture:
            return _white(picture)
    if isinstance(image, Image.Image):
        return 1.0 if image.mode == "F" else 65535.0 if image.mode.startswith("I") else 255.0
    if isinstance(image, Tensor):
        return 255.0 if image.dtype == torch.uint8 else 1.0
    return float(np.iinfo(image.dtype).max) if image.dtype.kind in "ui" else 1.0
