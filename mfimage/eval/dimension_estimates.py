"""Estimates of the dimension of data: from distances to nearest neighbours, and from a curve of errors.

With N points the neighbours of a point on a d-dimensional manifold are not near once d exceeds some 8, and
every estimate that takes them for near falls short. What an estimator says is therefore translated into the
d of the isotropic normal sample, of as many points, of which it says the same. (scikit-dimension has the
estimators too: two formulas, for which it brings numba and LLVM.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mfimage.errors import DataError

NEIGHBOURS = 10
QUERIES = 4096  # points whose neighbours are sought: the estimate's own error is then 2 % of d
LEAST = 100  # points
EMBEDDING = 4  # coordinates a dimension: generically 2 embed a manifold (Whitney), with as many to spare
NOISE = 1.5  # equalised over plain estimate, above which the narrow directions count as noise
_KNOWN = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96)
_NARROW = 1e-5  # of the widest direction: below it lies float32's rounding
_BLOCK = 512
_ROUNDS = 8
_FLOOR = 1e-7  # of the variance: what float32 leaves of a perfect reconstruction
_SHARPER = 3.0  # times as well as by a power law must a bent line fit
_FLATTER = 4.0  # times as steep before the bend as after it


@dataclass(frozen=True)
class DimensionEstimate:
    """The intrinsic dimension of data by nearest neighbours."""

    two_nn: float
    mle: float  # by `mean_levina_bickel`
    dimension: float  # mean of both, each corrected by an `EstimatorBias`
    coordinates: int  # how many principal components the distances were taken in


@dataclass(frozen=True, eq=False)
class EstimatorBias:
    """What the estimators say of isotropic normal samples of N points whose dimension is known.

    Reference:
        Camastra, Vinciarelli, Estimating the intrinsic dimension of data with a fractal-based method, 2002,
        IEEE Transactions on Pattern Analysis and Machine Intelligence 24 (an estimate is read off from
        synthetic samples of the same size and known dimension).
    """

    known: np.ndarray  # (M,) dimensions, rising, from 0
    two_nn: np.ndarray  # (M,)
    mle: np.ndarray  # (M,)

    @classmethod
    def measure(cls, points: int, most: int, seed: int = 0) -> EstimatorBias:
        """Run the estimators on samples of N points, of dimensions up to `most`, the data's coordinates."""
        generator = torch.Generator().manual_seed(seed)
        known = [d for d in _KNOWN if d < most] + [min(most, _KNOWN[-1])]
        rows = [
            (0.0, 0.0),
            *(_both(torch.randn(points, dim, generator=generator, dtype=torch.float32)) for dim in known),
        ]
        said = np.maximum.accumulate(np.array(rows), 0)
        return cls(np.array([0.0, *known]), said[:, 0], said[:, 1])

    def correct(self, two: float, mle: float) -> float:
        """Translate both estimates into dimensions, beyond the largest known in proportion; average them."""
        pairs = ((two, self.two_nn), (mle, self.mle))
        return 0.5 * sum(float(np.interp(v, s, self.known)) * max(1.0, v / s[-1]) for v, s in pairs)


def estimate(points: Tensor, bias: EstimatorBias) -> DimensionEstimate:
    """Estimate the intrinsic dimension of points (N, K), in random order, by both estimators."""
    both = _both(points)
    return DimensionEstimate(*both, bias.correct(*both), points.shape[1])


def _both(points: Tensor) -> tuple[float, float]:
    distances = neighbour_distances(points)
    return two_nn(distances), mean_levina_bickel(distances)


def estimates(codes: Tensor, bias: EstimatorBias) -> tuple[DimensionEstimate, DimensionEstimate]:
    """Estimate the dimension as the data lie, and with their directions equalised.

    Neighbours see only the directions in which the data are wide. In the second estimate the leading K
    principal components have unit variance, K = 4 d as it says itself: as many linear coordinates as embed
    the manifold and as many again. Fewer would fold it, many more would be its overtones, and noise. If it
    exceeds 1.5 times the first, the narrow directions are noise: they would count however many coordinates
    are given, and the search for K stops.

    Args:
        codes: Principal components, shape (N, K), by falling variance, rows in random order.
        bias: For N points.
    """
    spread = codes.double().std(0, unbiased=False)
    wide = int((spread > _NARROW * spread[0]).sum())
    if len(codes) < LEAST or not wide:
        what = f"{len(codes)} different ones are too few" if wide else "all are the same"
        raise DataError(f"the intrinsic dimension cannot be estimated: {what}; give {LEAST} or more")
    plain = estimate(codes[:, :wide], bias)
    unit = codes[:, :wide] / spread[:wide]
    size, found = 0, plain
    for _ in range(_ROUNDS):
        wanted = min(wide, math.ceil(EMBEDDING * 0.5 * (found.two_nn + found.mle)))
        if abs(wanted - size) <= 1 or (size and found.dimension > NOISE * plain.dimension):
            break
        size = wanted
        found = estimate(unit[:, :size], bias)
    return plain, found


def neighbour_distances(points: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Compute the distances of the first 4,096 points to their nearest neighbours among all.

    Points (N, K) in random order give distances (Q, k) in float64, rising along each row, in units of the
    points; points that have a double are left out.
    """
    if len(points) <= neighbours:
        raise DataError(f"{len(points)} points are too few for {neighbours} neighbours of each")
    x = points.double()
    x = x - x.mean(0)
    norms = x.square().sum(1)
    found = []
    for rows in torch.arange(min(len(x), QUERIES)).split(_BLOCK):
        squares = norms[rows, None] + norms - 2 * x[rows] @ x.T
        squares[torch.arange(len(rows)), rows] = torch.inf
        found.append(squares.topk(neighbours, largest=False).values)
    squares = torch.cat(found)
    apart = squares[:, 0] > 1e-13 * norms.max()  # less is what the subtraction above loses
    if apart.sum() < max(2, len(squares) // 2):
        raise DataError("most images or vectors have doubles: their distances say nothing of a dimension")
    return squares[apart].sqrt()


def two_nn(distances: Tensor) -> float:
    """Estimate d from the ratio μ of the distances to the second and the first neighbour.

    −log(1 − F(μ)) = d log μ, F the empirical distribution: a line through 0, without the tenth of largest μ;
    infinite where no two distances (Q, k ≥ 2) of a row differ.

    Reference:
        Facco, d'Errico, Rodriguez, Laio, Estimating the intrinsic dimension of datasets by a minimal
        neighborhood information, 2017, arXiv 1803.06992.
    """
    logs = (distances[:, 1] / distances[:, 0]).log().sort().values
    kept = logs[: int(0.9 * len(logs))]
    ranks = torch.arange(1, len(kept) + 1, dtype=kept.dtype) / len(logs)
    below = kept.square().sum()
    return float(-(kept * torch.log1p(-ranks)).sum() / below) if below > 0 else math.inf


def levina_bickel(distances: Tensor) -> Tensor:
    """Estimate d at each point by the likelihood of a Poisson process.

    1/d = mean over j < k of log(T_k / T_j),  T_j the distance to the j-th neighbour; (Q, k ≥ 2), rising and
    positive, gives (Q,), infinite where all distances of a row are equal.

    Reference:
        Levina, Bickel, Maximum likelihood estimation of intrinsic dimension, 2004, NeurIPS 17, equation 8.
    """
    return (distances[:, -1:] / distances[:, :-1]).log().mean(1).reciprocal()


def mean_levina_bickel(distances: Tensor) -> float:
    """Estimate one d of all points: the harmonic mean of `levina_bickel` (MacKay, Ghahramani, 2005)."""
    return float(levina_bickel(distances).reciprocal().mean().reciprocal())


def find_elbow(errors: Sequence[float]) -> int | None:
    """Find the d at which the squared error at d = 0, 1, 2, … stops falling fast.

    Two lines are fitted to log error against d, joined at d; the best d is taken if they fit three times as
    well as a power law, log error against log d, and the first is four times as steep as the second. None
    where there is no such bend, or the curve has fewer than five points.
    """
    falling = np.minimum.accumulate(np.asarray(errors, np.float64))
    if len(falling) < 5 or not falling[0] > 0:
        return None
    logs = np.log(np.maximum(falling / falling[0], _FLOOR))
    dims = np.arange(len(logs), dtype=np.float64)
    bends = [np.stack([dims**0, np.minimum(dims - b, 0), np.maximum(dims - b, 0)], 1) for b in dims[1:-1]]
    fits = [_least_squares(terms, logs) for terms in bends]
    best = min(range(len(fits)), key=lambda i: fits[i][1])
    (_, before, after), residue = fits[best]
    power = _least_squares(np.stack([dims[1:] ** 0, np.log(dims[1:])], 1), logs[1:])[1]
    sharp = residue * _SHARPER < power and before < min(0.0, _FLATTER * after)
    return best + 1 if sharp else None


def _least_squares(terms: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    weights = np.linalg.lstsq(terms, values, rcond=None)[0]
    return weights, float(np.square(terms @ weights - values).mean())
