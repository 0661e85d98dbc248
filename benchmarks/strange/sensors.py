"""What cameras, sensors and files do to images, and images that show nothing; see `changes`."""

from __future__ import annotations

import numpy as np
import torch
from strange.changes import Change, within
from torch import Tensor

from mfimage.errors import UsageError
from mfimage.eval.features import through_jpeg
from mfimage.noise import parse_noise


def jpeg(x: Tensor, draw: np.random.Generator, *, quality: int = 10) -> Tensor:
    """Through a JPEG file of Pillow's quality."""
    within("quality", quality, 1, 95)
    return through_jpeg(x, quality)


def noise(x: Tensor, draw: np.random.Generator, *, model: str = "gaussian:0.1") -> Tensor:
    """Noise by the words that `mfimage train --noise` takes: gaussian:0.1, poisson:30, … ."""
    return parse_noise(model).add(x, torch.Generator().manual_seed(int(draw.integers(2**31))))[0]


def moire(x: Tensor, draw: np.random.Generator, *, period: float = 1.9, strength: float = 0.2) -> Tensor:
    """A grating before the scene, at any angle, which pixels see at their centres alone.

    x·(1 + strength·sin(2π·r/period)), r in pixels; below a period of 2 the coarse pattern of moiré.
    """
    within("period", period, 0.1, 1000)
    within("strength", strength, 0, 1)
    rows, columns = (torch.arange(n).double() for n in x.shape[-2:])
    angle, phase = (torch.from_numpy(draw.uniform(0, 2 * np.pi, (len(x), 1, 1, 1))) for _ in range(2))
    along = rows[:, None] * angle.sin() + columns * angle.cos()
    return x * (1 + strength * torch.sin(2 * np.pi * along / period + phase)).float()


def dead_lines(
    x: Tensor, draw: np.random.Generator, *, count: int = 1, tone: float = 0.0, columns: bool = True
) -> Tensor:
    """So many columns, or rows, of one tone, in other places in each image."""
    sides = x.shape[-1] if columns else x.shape[-2]
    within("count", count, 1, sides)
    within("tone", tone, 0, 1)
    out = (x if columns else x.mT).clone()
    for image in out:
        image[..., torch.from_numpy(draw.permutation(sides)[:count])] = tone
    return out if columns else out.mT.contiguous()


def row_jitter(x: Tensor, draw: np.random.Generator, *, pixels: float = 1.0) -> Tensor:
    """Each row is read too early or too late, by normal errors of a deviation in pixels."""
    within("pixels", pixels, 0, 1000)
    return _read(x, pixels * draw.normal(size=(len(x), x.shape[2])))


def clock_drift(x: Tensor, draw: np.random.Generator, *, pixels: float = 4.0) -> Tensor:
    """The clock of the pixels is too fast or too slow: the last row is off by so many, the first by none."""
    within("pixels", pixels, 0, 1000)
    way = draw.choice([-1.0, 1.0], (len(x), 1))
    return _read(x, way * np.linspace(0, pixels, x.shape[2]))


def clock_slip(x: Tensor, draw: np.random.Generator, *, pixels: float = 3.0) -> Tensor:
    """From some row on, the clock of the pixels is off by so many."""
    within("pixels", pixels, 0, 1000)
    first = draw.integers(1, x.shape[2], (len(x), 1)) if x.shape[2] > 1 else np.zeros((len(x), 1))
    way = draw.choice([-1.0, 1.0], (len(x), 1))
    return _read(x, way * pixels * (np.arange(x.shape[2]) >= first))


def _read(x: Tensor, late: np.ndarray) -> Tensor:
    """Read rows of images (B, C, H, W) late by so many pixels (B, H); edges are drawn out."""
    width = x.shape[-1]
    where = torch.from_numpy(np.clip(np.arange(width) + late[..., None], 0, width - 1))
    left = where.floor().long()
    part = (where - left).float()[:, None]
    near, far = (x.gather(3, at[:, None].expand_as(x)) for at in (left, (left + 1).clamp_max(width - 1)))
    return torch.lerp(near, far, part.expand_as(x))


def stuck_bit(x: Tensor, draw: np.random.Generator, *, bit: int = 6) -> Tensor:
    """A bit of the 8 of each value is always 1; 7 is the highest."""
    within("bit", bit, 0, 7)
    return (x.mul(255).round().byte() | (1 << bit)).float() / 255


def constant(x: Tensor, draw: np.random.Generator) -> Tensor:
    """One grey for an image, any of them."""
    return torch.from_numpy(draw.random((len(x), 1, 1, 1))).float().expand_as(x).contiguous()


def uniform_noise(x: Tensor, draw: np.random.Generator) -> Tensor:
    """Nothing but values drawn evenly from 0 to 1."""
    return torch.from_numpy(draw.random(x.shape))


def gaussian_noise(x: Tensor, draw: np.random.Generator, *, mean: float = 0.5, sigma: float = 0.25) -> Tensor:
    """Nothing but normal values, cut to [0, 1]."""
    if sigma < 0:
        raise UsageError(f"sigma is no less than 0, and is not {sigma:g}")
    return torch.from_numpy(draw.normal(mean, sigma, x.shape))


SENSORS: dict[str, Change] = {
    one.__name__: one
    for one in (
        jpeg, noise, moire, dead_lines, row_jitter, clock_drift, clock_slip, stuck_bit, constant,
        uniform_noise, gaussian_noise,
    )
}  # fmt: skip
