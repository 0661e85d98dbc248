"""How strange an image is: each score a formula of its statistics; higher is stranger."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mfimage.eval.dimension_estimates import levina_bickel
from mfimage.eval.image_metrics import mse
from mfimage.inputs import ImageLike, Sigma, cleared, in_batches
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.ood.statistics import HUGE, TINY, Statistics

_NEIGHBOURS = 10
_REFERENCES = 2000  # familiar codes that are kept to be neighbours of


@plainly
def score(image: ImageLike, model: GenerativeModel, batch_size: int = 256, sigma: Sigma | None = None) -> Any:
    """Score how strange images are to a model by reconstruction error; higher is stranger.

    ‖c − decode(encode(c))‖² a pixel, c the image, or with σ given the image cleared of its noise, so that
    scores are those of clean images.

    Args:
        image: As for `denoise`.
        model: A trained M-flow of the image's height and width.
        batch_size: Images at a time.
        sigma: Standard deviation of noise, in the image's own scale, as for `denoise`; None: it is clean.

    Returns:
        A float in [0, ∞] for one image; for a batch (B,) float32 values, in numpy or torch as they came: mean
        squared residual a pixel, for pixels in [0, 1]; ∞ where the model gives no finite numbers.

    Raises:
        DataError: If the image cannot be read, is out of range, or is not of the model's size.
        ModelError: If the model has no manifold of images, or with sigma was not trained with noise.
        UsageError: If sigma is no deviation of these images.

    Reference:
        Brehmer, Cranmer, Flows for simultaneous manifold learning and density estimation, 2020,
        arXiv 2003.13913, §2.2.
    """
    x = cleared(image, model, sigma, batch_size)
    values = in_batches(lambda part: mse(part, model.project(part)), x, batch_size)
    values = values.nan_to_num(torch.inf, torch.inf)
    if getattr(image, "ndim", 2) < 4:
        return float(values[0])
    return values.to(image.device) if isinstance(image, Tensor) else values.numpy()


@dataclass(frozen=True, eq=False)
class Reference:
    """What scores know of familiar images."""

    residual: float  # mean log of the mean squared residual a pixel
    entropy: float  # mean of −log p_h(u), nats
    sigma: float  # deviation of a residual in a direction off the manifold, √(mean ‖x − x̂‖² / (D − d))
    bits: float  # mean of the bits a value that zlib needs
    dimension: float  # mean log of the local dimension of codes
    codes: Tensor  # (M, d), to be neighbours of
    scale: Tensor  # (d,), their deviations


def reference_of(s: Statistics) -> Reference:
    """Find what is usual among familiar images."""
    free = max(1, s.pixels - s.u.shape[1])
    codes, scale = s.u[:_REFERENCES], s.u.std(0).clamp_min(1e-6)
    sigma = max(math.sqrt(float(s.squares.mean()) / free), 1e-4)
    residual, nll, bits, dimension = (
        float(values.mean())
        for values in (log_residual(s), s.nll, s.bits, log_dimension(codes, codes, scale))
    )
    return Reference(residual, nll, sigma, bits, dimension, codes, scale)


def log_residual(s: Statistics) -> Tensor:
    """Compute the log of the mean squared residual a pixel, shape (B,)."""
    return (s.squares / s.pixels + TINY).log()


def joint(s: Statistics, usual: Reference) -> Tensor:
    """Compute −log p(x̂) + ‖x − x̂‖²/2σ² + (D − d) log σ, shape (B,), nats up to a constant.

    The density on the manifold times a Gaussian of deviation σ off it; d pushes of a tangent an image.
    """
    free = s.pixels - s.u.shape[1]
    return s.nll + s.volume + s.squares / (2 * usual.sigma**2) + free * math.log(usual.sigma)


SCORES: dict[str, Callable[[Statistics, Reference], Tensor]] = {  # each (B,)
    # Mean squared residual a pixel, ‖x − x̂‖²/(C·H·W); see `score`.
    "reconstruction": lambda s, usual: s.squares / s.pixels,
    # |log r − E log r| of the mean squared residual r: too good is strange too.
    "two-sided": lambda s, usual: (log_residual(s) - usual.residual).abs(),
    # −log p_h(u), nats with respect to du: one pass of the encoder, no Jacobian.
    "latent": lambda s, usual: s.nll,
    # −log p(x̂) = −log p_h(u) + ½ log det(JᵀJ), nats; d pushes of a tangent an image.
    "density": lambda s, usual: s.nll + s.volume,
    "joint": joint,
    # |−log p_h(u) − H|, nats: codes too likely are strange too. Nalisnick, Matsukawa, Teh, Lakshminarayanan,
    # 2019, arXiv 1906.02994.
    "typicality": lambda s, usual: (s.nll - usual.entropy).abs(),
    # |b − E b| of the bits a value b that zlib needs for the 8-bit images. Serrà, Álvarez, Gómez,
    # Slizovskaia, Núñez, Luque, 2019, arXiv 1909.11480.
    "complexity": lambda s, usual: (s.bits - usual.bits).abs(),
    # The distance of u to the tenth nearest familiar code, in deviations. Sun, Ming, Zhu, Li, 2022, arXiv
    # 2204.06507.
    "neighbours": lambda s, usual: _distances(s.u, usual.codes, usual.scale)[:, -1],
    # |log m − E log m| of the dimension m of the familiar codes around u.
    "local-dimension": lambda s, usual: abs(log_dimension(s.u, usual.codes, usual.scale) - usual.dimension),
}
VOLUME = ("density", "joint")  # which of them need the volume
CHOICES = ("auto", *SCORES)  # of a detector


def log_dimension(u: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """Estimate the log of the local dimension at codes (B, d): 1/m = mean over j < k of log(T_k / T_j).

    T_j is the distance to the j-th nearest familiar code; see `levina_bickel`.
    """
    return levina_bickel(_distances(u, codes, scale).clamp_min(1e-9)).clamp_max(1e9).log()


def _distances(u: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """Distances to the nearest familiar codes, ascending (B, k); a code is not its own neighbour."""
    each = torch.cdist(u.double() / scale, codes / scale)
    each = each.masked_fill(each < 1e-9, torch.inf)
    return each.topk(min(_NEIGHBOURS, each.shape[1]), largest=False).values.clamp_max(HUGE)
