"""How strange an image is to a model: each score a function of images and a model; higher is stranger."""

from __future__ import annotations

import math
import zlib
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.models import GenerativeModel, ManifoldFlow
from mfimage.models.manifold import ChartedModel
from mfimage.scoring import reconstruction_score

_TINY = 1e-6  # mean square below which an 8-bit image holds nothing but rounding
_HUGE = 1e6  # what codes and log-densities of absurd images are clipped to, so that nothing is NaN
_LEVELS = 4  # scales, halved each time, at which gradients are measured


class Seen(NamedTuple):
    """What a model makes of images.

    Attributes:
        x: The images (B, C, H, W).
        u: Codes (B, d), clipped to ±10⁶.
        off: x − x̂ (B, C, H, W), clipped to ±10³.
        nll: −log p_h(u), shape (B,), nats, clipped to ±10⁶.
    """

    x: Tensor
    u: Tensor
    off: Tensor
    nll: Tensor


@torch.no_grad()
def see(x: Tensor, model: ChartedModel) -> Seen:
    """Encode, project and weigh images (B, C, H, W) in [0, 1] once, for all statistics."""
    codes = model.encode(x)
    u = _tame(codes, _HUGE)
    off = _tame(x - model.decode(u), 1e3)
    return Seen(x, u, off, _tame(-model.density.log_prob(u), _HUGE))


def reconstruction(x: Tensor, model: GenerativeModel) -> Tensor:
    """Compute the mean squared residual a pixel, ‖x − x̂‖²/(C·H·W), shape (B,).

    Reference:
        Brehmer, Cranmer, Flows for simultaneous manifold learning and density estimation, 2020,
        arXiv 2003.13913, §2.2.
    """
    return _tame(reconstruction_score(x, model), _HUGE)


def latent_density(x: Tensor, model: ChartedModel) -> Tensor:
    """Compute −log p_h(u), shape (B,), nats with respect to du: one pass of the encoder, no Jacobian."""
    return see(x, model).nll


def manifold_density(x: Tensor, model: ManifoldFlow) -> Tensor:
    """Compute −log p(x̂) = −log p_h(u) + ½ log det(JᵀJ), shape (B,), nats; d pushes of a tangent an image."""
    return _tame(-model.log_density(x).log_prob, _HUGE)


def joint_likelihood(x: Tensor, model: ChartedModel, sigma: float) -> Tensor:
    """Compute −log p_h(u) + ‖x − x̂‖²/2σ² + (D − d) log σ, shape (B,), nats up to a constant.

    The volume is left out: it asks for d pushes an image, see `manifold_density` for it.

    Args:
        x: Images (B, C, H, W) in [0, 1].
        model: With a manifold.
        sigma: Deviation of familiar residuals, √(mean ‖x − x̂‖²/(D − d)) on held-out images.
    """
    seen = see(x, model)
    free = math.prod(model.shape) - model.dim
    return seen.nll + seen.off.square().flatten(1).sum(1) / (2 * sigma**2) + free * math.log(sigma)


def typicality(x: Tensor, model: ChartedModel, entropy: float) -> Tensor:
    """Compute |−log p_h(u) − H|, shape (B,), nats: both too unlikely and too likely codes are strange.

    Args:
        x: Images (B, C, H, W) in [0, 1].
        model: With a density on codes.
        entropy: H, the mean of −log p_h(u) of familiar images.

    Reference:
        Nalisnick, Matsukawa, Teh, Lakshminarayanan, Detecting out-of-distribution inputs to deep generative
        models using typicality, 2019, arXiv 1906.02994.
    """
    return (see(x, model).nll - entropy).abs()


def complexity(x: Tensor, model: GenerativeModel | None = None) -> Tensor:
    """Compute the bits a value that zlib needs for the 8-bit image, shape (B,); the model is not asked.

    Reference:
        Serrà, Álvarez, Gómez, Slizovskaia, Núñez, Luque, Input complexity and out-of-distribution detection
        with likelihood-based generative models, 2019, arXiv 1909.11480.
    """
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


def summary(seen: Seen) -> dict[str, Tensor]:
    """Take the statistics that have a name in words, each of shape (B,); see `WORDS`."""
    x, off = seen.x.double(), seen.off.double()
    residual = off.square().flatten(1).mean(1)
    contrast = x.flatten(1).var(1)
    return {
        "residual": _log(residual),
        "share": _log(residual) - _log(contrast),
        "latent": seen.nll.double(),
        "detail": bands(x)[:, :2].mean(1),
        "complexity": complexity(seen.x),
        "brightness": x.flatten(1).mean(1),
        "contrast": _log(contrast),
    }


WORDS = {  # of `summary`: what is said of a value that is too low, and too high
    "residual": ("reconstructs better than familiar images", "reconstructs badly"),
    "share": ("reconstructs too well for its contrast", "loses most of its contrast in reconstruction"),
    "latent": ("an unusually common place on the manifold", "a rare place on the manifold"),
    "detail": ("smoother than familiar images", "rougher than familiar images"),
    "complexity": ("simpler than familiar images", "more complex than familiar images"),
    "brightness": ("darker than familiar images", "brighter than familiar images"),
    "contrast": ("less contrast than familiar images", "more contrast than familiar images"),
}


def statistics(x: Tensor, model: ChartedModel) -> tuple[Tensor, tuple[str, ...]]:
    """Compute the named statistics of images (B, C, H, W) in [0, 1]: (B, K) float64, and their names."""
    found = summary(see(x, model))
    return torch.stack(list(found.values()), 1), tuple(found)


def spatial(seen: Seen) -> Tensor:
    """Take statistics of where things are, shape (B, K) float64, for the density of `auto`.

    Log residual energy in 4 × 4 cells, log energy of horizontal and of vertical steps in 3 × 3 cells, and
    `bands` of the image and of the residual: an image upside down has the same total of everything, and the
    parts of it in other places.
    """
    x, off = seen.x.double(), seen.off.double()
    across, down = x[..., 1:, 1:] - x[..., 1:, :-1], x[..., 1:, 1:] - x[..., :-1, 1:]
    return torch.cat([cells(off, 4), cells(across, 3), cells(down, 3), bands(x), bands(off)], 1)


def _log(mean_squares: Tensor) -> Tensor:
    return (mean_squares.double() + _TINY).log()


def _tame(values: Tensor, limit: float) -> Tensor:
    return values.nan_to_num(limit, limit, -limit).clamp(-limit, limit)
