"""Detail that a manifold leaves out, drawn by the network that removes noise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

DETAIL = 0.5  # σ of the noise that detail is drawn from, the most that charts learn by default
SAMPLES, DETAILED = "samples", "samples with detail"  # what is drawn, in words
STEPS = 16
CHURN = 0.5  # share of fresh noise in that of each step
LEAST = 0.01  # σ of the last step


def draw_detail(clear: Callable[[Tensor, float], Tensor], x: Tensor, sigma: float, seeds: Tensor) -> Tensor:
    """Give images noise of σ and clear them of it step by step, so that what is likely takes its place.

    x₁ = x + σ₁ε₁,  x̂_k = clear(x_k, σ_k),  x_{k+1} = x̂_k + σ_{k+1}(√(1 − c²)·(x_k − x̂_k)/σ_k + c·ε_{k+1}),
    σ₁ = σ … σ_K = 0.01 in equal ratios; the result is x̂_K.

    One step alone gives the mean of all images that are possible, which is blurred; small ones follow the
    density of noisy images down to one of them. Meng et al., SDEdit: guided image synthesis and editing with
    stochastic differential equations, 2022, arXiv 2108.01073; Song, Meng, Ermon, Denoising diffusion implicit
    models, 2021, arXiv 2010.02502 (the steps).

    Args:
        clear: Removes noise of a σ from images.
        x: Images, shape (B, C, H, W).
        sigma: Of the first noise; what is finer than it is drawn anew, what is coarser stays.
        seeds: Of the noise of each image, (B,).
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]

    def noise() -> Tensor:
        drawn = [torch.randn(x.shape[1:], generator=one, dtype=torch.float32) for one in generators]
        return torch.stack(drawn).to(x)

    last = min(LEAST, sigma)
    levels = [sigma * (last / sigma) ** (step / (STEPS - 1)) for step in range(STEPS)]
    y = x + sigma * noise()
    for level, following in pairwise(levels):
        cleared = clear(y, level)
        kept = (y - cleared) / level
        y = cleared + following * ((1 - CHURN**2) ** 0.5 * kept + CHURN * noise())
    return clear(y, levels[-1])


def ways_to_sample(noise_aware: bool) -> dict[str, float]:
    """Give by name the σ of detail with which a model draws; one that has not learned noise draws none."""
    return {SAMPLES: 0.0, DETAILED: DETAIL} if noise_aware else {SAMPLES: 0.0}
