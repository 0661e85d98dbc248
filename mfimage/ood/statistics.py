"""The statistics of which `auto` learns the joint density: some with a name, some with a place."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.ood.scores import TINY

_LEVELS = 4  # scales, halved each time, at which gradients are measured
_CODES = 32  # first coordinates, the coarsest, that the density sees

WORDS = {  # of `summary`: what is said of a value that is too low, and too high
    "residual": ("reconstructs better than familiar images", "reconstructs badly"),
    "share": ("reconstructs too well for its contrast", "loses most of its contrast in reconstruction"),
    "latent": ("an unusually common place on the manifold", "a rare place on the manifold"),
    "detail": ("smoother than familiar images", "rougher than familiar images"),
    "complexity": ("simpler than familiar images", "more complex than familiar images"),
    "brightness": ("darker than familiar images", "brighter than familiar images"),
    "contrast": ("less contrast than familiar images", "more contrast than familiar images"),
}


def summary(x: Tensor, off: Tensor, nll: Tensor, bits: Tensor) -> Tensor:
    """Take the statistics that have a name in words, shape (B, 7) float64, in the order of `WORDS`.

    Args:
        x: Images (B, C, H, W) in [0, 1].
        off: x − x̂, the same shape.
        nll: −log p_h(u), (B,).
        bits: See `zlib_bits`, (B,).
    """
    x = x.double()
    residual, contrast = _log(off.double().square().flatten(1).mean(1)), _log(x.flatten(1).var(1))
    detail, brightness = bands(x)[:, :2].mean(1), x.flatten(1).mean(1)
    return torch.stack([residual, residual - contrast, nll, detail, bits, brightness, contrast], 1)


def spatial(x: Tensor, off: Tensor, u: Tensor) -> Tensor:
    """Take the first codes, and statistics of where things are, shape (B, K) float64.

    Log residual energy in 4 × 4 cells, log energy of horizontal and of vertical steps in 3 × 3 cells, and
    `bands` of the image and of the residual: an image upside down has the same total of everything, and the
    parts of it in other places.
    """
    x, off = x.double(), off.double()
    across, down = x[..., 1:, 1:] - x[..., 1:, :-1], x[..., 1:, 1:] - x[..., :-1, 1:]
    places = [cells(off, 4), cells(across, 3), cells(down, 3), bands(x), bands(off)]
    return torch.cat([u[:, :_CODES].double(), *places], 1)


def zlib_bits(x: Tensor) -> Tensor:
    """Count the bits a value that zlib needs for 8-bit images (B, C, H, W) in [0, 1], shape (B,) float64."""
    pixels = x.detach().clamp(0, 1).mul(255).round().byte().cpu().flatten(1).numpy()
    bits = [8 * len(zlib.compress(row.tobytes(), 6)) / row.size for row in pixels]
    return torch.tensor(bits, dtype=torch.float64, device=x.device)


def bands(x: Tensor) -> Tensor:
    """Compute log mean squares of horizontal and of vertical steps between pixels at halved scales.

    Args:
        x: Images (B, C, H, W).

    Returns:
        (B, 2L): a pair a scale, finest first. A blurred image has less than usual in the first, a shuffled
        one more, a turned one has them exchanged.
    """
    found = []
    for _ in range(_LEVELS):
        found += [
            (x[..., 1:] - x[..., :-1]).square().flatten(1).mean(1),
            (x[..., 1:, :] - x[..., :-1, :]).square().flatten(1).mean(1),
        ]
        if min(x.shape[-2:]) < 6:
            break
        x = F.avg_pool2d(x, 2)
    return _log(torch.stack(found, 1))


def cells(x: Tensor, across: int) -> Tensor:
    """Compute the log mean square of each of `across`² cells of images (B, C, H, W), shape (B, across²)."""
    pooled = F.adaptive_avg_pool2d(x.square().mean(1, keepdim=True), min(across, *x.shape[-2:]))
    return _log(pooled.flatten(1))


def _log(mean_squares: Tensor) -> Tensor:
    return (mean_squares.double() + TINY).log()
