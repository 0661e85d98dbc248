"""Noise of colour images in their luma, which is what a model of grey images is given of them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from mfimage.datasets.convert import ImageLike, kind_of, to_batch
from mfimage.noise import Colour, Correlated, Gaussian, Noise, Poisson, PoissonGaussian, Range, SaltPepper

WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R 601
GAIN = math.hypot(*WEIGHTS)  # deviation of white noise in luma, over that in each channel: .669

PHOTONS = "photons counted in three colours: the noise in their luma is taken for that of grey things"
LOST = "values lost in single colours cannot be found in the luma: use a model of colour images"


def becomes_luma(image: ImageLike, count: int) -> Tensor:
    """Tell of each image whether it has colours, and so noise of their own in its channels; (count,), bool.

    Where all channels of an image are equal, so is their noise, and luma has all of it.
    """
    if not kind_of(image).colour:
        return torch.zeros(count, dtype=torch.bool)
    x, _ = to_batch(image, math.inf)
    return (x != x[:, :1]).flatten(1).any(1).cpu()


def in_luma(noise: Noise) -> Noise:
    """Give the noise in luma Σ w_c y_c of channels with this noise, each with its own.

    White and correlated noise has √Σ w_c² = .669 times the deviation. Noise of colours is Gaussian there, of
    variance σ_L²/3 + σ_C² (Σ w_c² − 1/3). Photons count for 1/Σ w_c² as many, which is exact of grey things.
    What is lost to salt and pepper stays as it is. `unscaled` says of which noise this is not exact.
    """
    if isinstance(noise, Gaussian | Correlated):
        return replace(noise, sigma=_times(noise.sigma, GAIN))
    if isinstance(noise, Colour):
        ends = zip(noise.luminance, noise.chroma, strict=True)
        low, high = (math.sqrt(grey**2 / 3 + across**2 * (GAIN**2 - 1 / 3)) for grey, across in ends)
        return Gaussian((low, high))
    if isinstance(noise, Poisson):
        return replace(noise, peak=_times(noise.peak, GAIN**-2))
    if isinstance(noise, PoissonGaussian):
        return replace(noise, peak=_times(noise.peak, GAIN**-2), sigma=_times(noise.sigma, GAIN))
    return noise


def unscaled(noise: Noise) -> str:
    """Say what of this noise in colours luma does not tell; nothing where `in_luma` is exact."""
    if isinstance(noise, Poisson | PoissonGaussian):
        return PHOTONS
    return LOST if isinstance(noise, SaltPepper) else ""


def _times(ends: Range, factor: float) -> Range:
    return ends[0] * factor, ends[1] * factor
