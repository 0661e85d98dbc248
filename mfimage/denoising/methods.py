"""Estimators: of the noise in an image, and by several methods of the image without it.

A method maps noisy images y, shape (B, C, H, W), in units in which clean ones lie in [0, 1], a model, and the
standard deviation σ of the noise, shape (B,), in the same units, to clean images x̂, shape (B, C, H, W), not
clipped to [0, 1]. It raises ModelError where the model lacks what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from mfimage.denoising.inverse import map_denoise
from mfimage.errors import ModelError
from mfimage.models import ChartedModel, GenerativeModel, tweedie
from mfimage.models.charts import NO_GAINS

_NORMAL = 0.6745  # median |N(0, 1)|


def wavelet_sigma(y: Tensor) -> Tensor:
    """Estimate the noise of images (B, C, H, W) from the finest diagonal details; shape (B,).

    σ̂ = median |w| / 0.6745,   w = ½(a − b − c + d) over every block (a b; c d) of 2 × 2 pixels, overlapping:
    of a small image each shift's quarter alone would give twice the error. It is too high where the image
    itself is finely structured, too low where noise was cut off at black or white. In one row or column of
    pixels w = (a − b)/√2; a single pixel tells of no noise. Donoho, Johnstone, Ideal spatial adaptation by
    wavelet shrinkage, 1994, §4.2.
    """
    details, sides = y, [side for side in (-2, -1) if y.shape[side] > 1]
    if not sides:
        return y.new_zeros(len(y))
    for side in sides:
        details = details.diff(dim=side)
    details = details / 2 ** (len(sides) / 2)
    return details.flatten(1).abs().median(1).values / _NORMAL


def is_cut(y: Tensor) -> Tensor:
    """Tell of each image (B, C, H, W) whether no value lies beyond [0, 1], shape (B,)."""
    flat = y.flatten(1)
    return (flat.amin(1) >= 0) & (flat.amax(1) <= 1)


Method = Callable[[Tensor, GenerativeModel, Tensor], Tensor]


def leave(y: Tensor, model: GenerativeModel, sigma: Tensor) -> Tensor:
    """Leave the image as it is: x̂ = y, the best where the noise is less than a model's error."""
    return y


def projection(y: Tensor, model: GenerativeModel, sigma: Tensor) -> Tensor:
    """Remove what does not lie on the manifold: x̂ = decode(encode(y)) (arXiv 2003.13913, §2.2).

    A model that was trained with noise is told of it, x̂ = decode(encode(c_σ(y))); see `Denoiser`.
    """
    if not model.has_manifold:
        raise ModelError("an ambient flow has no manifold to project onto: choose method tweedie")
    with torch.no_grad():
        return model.project(y, sigma=sigma if model.noise_aware else None)


def refined(y: Tensor, model: GenerativeModel, sigma: Tensor) -> Tensor:
    """Take off what a network of its own sees as noise: x̂ = c_σ(y), near the manifold but not on it.

    The network (`models.denoiser.UNet`) is trained beside the chart, on the same images, and has no part in
    the density. It is given σ, so the model is an M-flow or Me-flow trained with a range of noise.
    """
    with torch.no_grad():
        return model.clear(y, sigma)


def soft(y: Tensor, model: GenerativeModel, sigma: Tensor) -> Tensor:
    """Shrink the coordinates of what `refined` gives: x̂ = f(γ(σ)·f⁻¹(c_σ(y))), γ = sigmoid(a − b·log σ).

    Cutting off v, as projection does, loses what the manifold does not know of the clean image; shrinking
    loses it only where the noise has drowned it. At σ → 0 the image comes back, at σ → ∞ the centre of the
    chart. γ is Wiener's filter of what c_σ leaves (see `ImageChart.shrink`).
    """
    if not model.noise_aware:
        raise ModelError(NO_GAINS)
    with torch.no_grad():
        return cast(ChartedModel, model).chart.shrink(model.clear(y, sigma), sigma)


METHODS: dict[str, Method] = {
    "projection": projection,
    "map": map_denoise,
    "refined": refined,
    "soft": soft,
    "tweedie": tweedie,
}


@torch.no_grad()
def quick_results(y: Tensor, model: GenerativeModel, sigma: Tensor) -> dict[str, Tensor]:
    """Denoise by each of `quick_methods`; what several of them need is done once."""
    if not model.noise_aware:
        return {name: METHODS[name](y, model, sigma) for name in quick_methods(model)}
    cleared, chart = model.clear(y, sigma), cast(ChartedModel, model).chart
    return {"projection": model.project(cleared), "refined": cleared, "soft": chart.shrink(cleared, sigma)}


def quick_methods(model: GenerativeModel) -> list[str]:
    """Name the methods that a model can be denoised with at once: `map` searches, for those who name it."""
    able = {
        "projection": model.has_manifold,
        "refined": model.noise_aware,
        "soft": model.noise_aware,
        "tweedie": model.has_ambient_density,
    }
    return [name for name, can in able.items() if can]
