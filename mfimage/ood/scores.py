"""How strange an image is: each score a function of what a model makes of images; higher is stranger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

TINY = 1e-6  # mean square below which an 8-bit image holds nothing but rounding
HUGE = 1e6  # what codes and log-densities of absurd images are clipped to, so that nothing is NaN
_NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model makes of images: all that scores need to know of them.

    Attributes:
        u: Codes (B, d), clipped to ±10⁶.
        squares: ‖x − x̂‖² over all D pixels and channels, (B,).
        pixels: D.
        nll: −log p_h(u), shape (B,), nats, clipped to ±10⁶.
        volume: ½ log det(JᵀJ) at u, shape (B,), nats; NaN where it was not asked for.
        bits: That zlib needs a value of the 8-bit image, (B,).
        values: Named statistics, (B, 7), see `statistics.summary`.
        places: Statistics of where things are, (B, K), see `statistics.spatial`.
        smooth: Squared residual, mean over channels and 3 × 3 pixels, (B, 1, H, W) float32.
    """

    u: Tensor
    squares: Tensor
    pixels: int
    nll: Tensor
    volume: Tensor
    bits: Tensor
    values: Tensor
    places: Tensor
    smooth: Tensor

    def __len__(self) -> int:
        return len(self.u)

    def take(self, rows: Tensor) -> Seen:
        """What was seen of some of the images."""
        parts: dict[str, Any] = {n: v[rows] for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **parts)

    @staticmethod
    def join(parts: Sequence[Seen]) -> Seen:
        """What was seen of several batches as one."""
        names = [name for name, value in vars(parts[0]).items() if isinstance(value, Tensor)]
        joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return replace(parts[0], **joined)


@dataclass(frozen=True, eq=False)
class Usual:
    """What scores know of familiar images.

    Attributes:
        residual: Mean log of the mean squared residual a pixel.
        entropy: Mean of −log p_h(u), nats.
        sigma: Deviation of a residual in a direction off the manifold, √(mean ‖x − x̂‖² / (D − d)).
        bits: Mean of the bits a value that zlib needs.
        dimension: Mean log of the local dimension of codes.
        codes: (M, d) codes to be neighbours of.
        scale: (d,) their deviations.
    """

    residual: float
    entropy: float
    sigma: float
    bits: float
    dimension: float
    codes: Tensor
    scale: Tensor


def log_residual(seen: Seen) -> Tensor:
    """Compute the log of the mean squared residual a pixel, shape (B,)."""
    return (seen.squares / seen.pixels + TINY).log()


def reconstruction(seen: Seen, usual: Usual) -> Tensor:
    """Compute the mean squared residual a pixel, ‖x − x̂‖²/(C·H·W), shape (B,).

    Reference:
        Brehmer, Cranmer, Flows for simultaneous manifold learning and density estimation, 2020,
        arXiv 2003.13913, §2.2.
    """
    return seen.squares / seen.pixels


def two_sided(seen: Seen, usual: Usual) -> Tensor:
    """Compute |log r − E log r| of the mean squared residual r, shape (B,): too good is strange too."""
    return (log_residual(seen) - usual.residual).abs()


def latent(seen: Seen, usual: Usual) -> Tensor:
    """Compute −log p_h(u), shape (B,), nats with respect to du: one pass of the encoder, no Jacobian."""
    return seen.nll


def density(seen: Seen, usual: Usual) -> Tensor:
    """Compute −log p(x̂) = −log p_h(u) + ½ log det(JᵀJ), shape (B,), nats; d pushes of a tangent an image."""
    return seen.nll + seen.volume


def joint(seen: Seen, usual: Usual) -> Tensor:
    """Compute −log p(x̂) + ‖x − x̂‖²/2σ² + (D − d) log σ, shape (B,), nats up to a constant.

    The density on the manifold times a Gaussian of deviation σ off it; d pushes of a tangent an image.
    """
    free = seen.pixels - seen.u.shape[1]
    return density(seen, usual) + seen.squares / (2 * usual.sigma**2) + free * math.log(usual.sigma)


def typicality(seen: Seen, usual: Usual) -> Tensor:
    """Compute |−log p_h(u) − H|, shape (B,), nats: codes too likely are strange too.

    Reference:
        Nalisnick, Matsukawa, Teh, Lakshminarayanan, Detecting out-of-distribution inputs to deep generative
        models using typicality, 2019, arXiv 1906.02994.
    """
    return (seen.nll - usual.entropy).abs()


def complexity(seen: Seen, usual: Usual) -> Tensor:
    """Compute |b − E b| of the bits a value b that zlib needs for the 8-bit images, shape (B,).

    Reference:
        Serrà, Álvarez, Gómez, Slizovskaia, Núñez, Luque, Input complexity and out-of-distribution detection
        with likelihood-based generative models, 2019, arXiv 1909.11480.
    """
    return (seen.bits - usual.bits).abs()


def neighbours(seen: Seen, usual: Usual) -> Tensor:
    """Compute the distance of u to the tenth nearest familiar code, in deviations, shape (B,).

    Reference:
        Sun, Ming, Zhu, Li, Out-of-distribution detection with deep nearest neighbors, 2022, arXiv 2204.06507.
    """
    return _distances(seen.u, usual)[:, -1]


def local_dimension(seen: Seen, usual: Usual) -> Tensor:
    """Compute |log m − E log m| of the dimension m of the familiar codes around u, shape (B,)."""
    return (log_dimension(seen.u, usual) - usual.dimension).abs()


SCORES: dict[str, Callable[[Seen, Usual], Tensor]] = {
    "reconstruction": reconstruction,
    "two-sided": two_sided,
    "latent": latent,
    "density": density,
    "joint": joint,
    "typicality": typicality,
    "complexity": complexity,
    "neighbours": neighbours,
    "local-dimension": local_dimension,
}
VOLUME = ("density", "joint")  # which of them need the volume


def log_dimension(u: Tensor, usual: Usual) -> Tensor:
    """Estimate the log of the local dimension at codes (B, d): 1/m = mean over j < k of log(T_k / T_j).

    T_j is the distance to the j-th nearest familiar code.

    Reference:
        Levina, Bickel, Maximum likelihood estimation of intrinsic dimension, NIPS 2004, equation 8.
    """
    distances = _distances(u, usual).clamp_min(1e-9)
    return -(distances[:, -1:] / distances[:, :-1]).log().mean(1).clamp_min(1e-9).log()


def _distances(u: Tensor, usual: Usual) -> Tensor:
    """Distances to the nearest familiar codes, ascending (B, k); a code is not its own neighbour."""
    scale = usual.scale.to(u.device)
    each = torch.cdist(u.double() / scale, usual.codes.to(u.device) / scale)
    each = each.masked_fill(each < 1e-9, torch.inf)
    nearest = each.topk(min(_NEIGHBOURS, each.shape[1]), largest=False).values
    return nearest.clamp_max(HUGE)


def _tame(values: Tensor, limit: float) -> Tensor:
    return values.nan_to_num(limit, limit, -limit).clamp(-limit, limit)
