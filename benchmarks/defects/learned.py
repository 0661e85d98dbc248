"""What is fitted to the good tiles: ours, an autoencoder, principal components, a Gaussian of patches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from mfimage import Detector
from mfimage.eval.image_metrics import PCA
from mfimage.inputs import in_batches

Scorer = Callable[[Tensor], tuple[Tensor, Tensor]]  # tiles (B, 1, S, S) → scores (B,), maps (B, S, S)

ALPHA = 0.05  # rate of false alarms for which ours is calibrated
SMOOTH = 1.0  # pixels of the Gaussian by which maps are smoothed
_PATCH = 8


def strongest(maps: Tensor, sigma: float = SMOOTH) -> tuple[Tensor, Tensor]:
    """Smooth maps (B, S, S); the largest value of each is its score."""
    smooth = torch.from_numpy(gaussian_filter(maps.numpy(), (0, sigma, sigma), mode="nearest"))
    return smooth.flatten(1).amax(1), smooth


def ours(detector: Detector) -> Scorer:
    """Score by the detector's verdict, with its map."""

    def score(x: Tensor) -> tuple[Tensor, Tensor]:
        verdicts = detector.score(x, maps=True)
        return verdicts.scores, torch.stack([place.heat for place in verdicts.places])

    return score


def by_map(scorer: Scorer) -> Scorer:
    """Score by the largest value of the same map, as the others do."""
    return lambda x: strongest(scorer(x)[1], 0)


def by_error(project: Callable[[Tensor], Tensor]) -> Scorer:
    """Score by the squared error of reconstruction."""
    return lambda x: strongest(in_batches(lambda part: (project(part) - part).square()[:, 0], x))


def principal(familiar: Tensor, dim: int) -> Scorer:
    """Score by the error of so many principal components of good tiles."""
    return by_error(PCA.fit(familiar, dim).project)


def patches(familiar: Tensor) -> Scorer:
    """Score patches 8 × 8 by Mahalanobis' distance: Σ c²/λ of their PCA coordinates c.

    One Gaussian for all places; a pixel has the mean of all patches that cover it.
    """
    seen = torch.cat([F.unfold(x[None], _PATCH, stride=4)[0].T for x in familiar[:1000]]).double()
    variances, basis = torch.linalg.eigh(torch.cov(seen.T))
    whiten = (basis / variances.clamp_min(1e-8).sqrt()).T.float().view(-1, 1, _PATCH, _PATCH)
    shift = F.conv2d(seen.mean(0).float().view(1, 1, _PATCH, _PATCH), whiten).flatten()
    everywhere = torch.ones(1, 1, _PATCH, _PATCH)

    def distance(x: Tensor) -> Tensor:
        square = F.conv2d(x, whiten, -shift).square().sum(1, keepdim=True)
        cover = F.conv_transpose2d(torch.ones_like(square[:1]), everywhere)
        return (F.conv_transpose2d(square, everywhere) / cover)[:, 0]

    return lambda x: strongest(in_batches(distance, x, 50), 0)
