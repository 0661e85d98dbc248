"""Ours: every method of one M-flow, and what else is asked of it."""

from __future__ import annotations

from typing import Any

import torch
from denoisers.classics import Family
from denoisers.sets import GAUSSIAN, Noise
from harness import LeftOutError
from torch import Tensor

from mfimage import denoise
from mfimage.denoising.curve import blind_sigma, denoise_batch
from mfimage.denoising.examination import examine
from mfimage.denoising.methods import quick_methods
from mfimage.models import GenerativeModel


def by_method(model: GenerativeModel, method: str) -> Family:
    """Denoise by a method of `METHODS`, σ known."""
    if method not in (*quick_methods(model), "map"):
        raise LeftOutError("the model has not what it needs")
    return {"": lambda y, noise: denoise_batch(y, model, y.new_full((len(y),), noise.sigma), method).image}


def auto(model: GenerativeModel, known: bool) -> Family:
    """Denoise as a user does, who knows the noise or leaves it to be estimated."""

    def filtered(y: Tensor, noise: Noise) -> Tensor:
        if known and noise.gain:
            return denoise(y, model, noise=str(noise))
        return denoise(y, model, noise.sigma if known else None)

    return {"": filtered}


def facts(model: GenerativeModel, clean: Tensor) -> dict[str, dict[str, Any]]:
    """What is asked beside the quality, at each σ, of images (B, C, H, W) that the model has not seen.

    `sigma_found` is the mean of the estimate; `false_alarms` the share of them called far from what the model
    knows, and `false_alarms_cut` that where noise is cut to [0, 1] as in files; `off_manifold` max
    |project(x̂) − x̂| of the results x̂ of projection; `within_1` and `within_2` the shares of values whose
    error is at most one and two of the deviations that auto gives.
    """
    return {str(noise): _facts_at(noise.sigma, noise.add(clean), model, clean) for noise in GAUSSIAN}


def _facts_at(sigma: float, y: Tensor, model: GenerativeModel, clean: Tensor) -> dict[str, Any]:
    level = clean.new_full((len(clean),), sigma)
    projected = denoise_batch(y, model, level, "projection").image
    with torch.no_grad():
        again = torch.cat([model.project(part) for part in projected.split(100)])
    found = {
        "sigma_found": float(blind_sigma(y, model).mean()),
        "false_alarms": _alarms(y, model, level),
        "false_alarms_cut": _alarms(y.clamp(0, 1), model, level),
        "off_manifold": float((again - projected).abs().max()),
    }
    x_hat, deviation = denoise(y, model, sigma, uncertainty=True)
    error = (x_hat - clean).abs()
    found |= {f"within_{k}": float((error <= k * deviation).float().mean()) for k in (1, 2)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def _alarms(y: Tensor, model: GenerativeModel, level: Tensor) -> float:
    after = denoise_batch(y, model, level).image.clamp(0, 1)
    strangeness = examine(y, after, model, level).strangeness
    return float((strangeness > 1).float().mean())
