"""What a detector learned from familiar images, checked when it is read back, and the density among it."""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mfimage.errors import UsageError
from mfimage.ood.scores import CHOICES, Reference
from mfimage.ood.statistics import WORDS, finite
from mfimage.settings import is_number

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

_REGULAR = 1e-3  # added to variances of standardised features, so that no component collapses
_PART = 20_000  # examples, about, that one of the mixtures is fitted on
_POSITIVE = ("spread", "heat", "sigma", "scale")
_FILTERS = threading.Lock()  # filters of warnings belong to all threads: one at a time changes them
_FAR = 1e5  # standard deviations beyond which features are clipped: far enough, and squares stay finite


@dataclass(frozen=True, eq=False)
class Mixture:
    """p(t) = Σ w N(t; m, (L Lᵀ)⁻¹) of standardised features t = (features − shift) / scale."""

    shift: Tensor  # (K,)
    scale: Tensor  # (K,), positive
    weights: Tensor  # (k,), summing to 1
    means: Tensor  # (k, K)
    factors: Tensor  # L of each precision, (k, K, K)

    def nll(self, features: Tensor) -> Tensor:
        """Compute −log p, shape (B,) float64, nats, of features (B, K); finite for any input."""
        t = finite((features.double() - self.shift) / self.scale, _FAR)
        logs = []
        for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True):
            square = ((t - mean) @ factor).square().sum(1)
            logs.append(weight.log() - 0.5 * square + factor.diagonal().log().sum())
        return -torch.stack(logs).logsumexp(0) + 0.5 * t.shape[1] * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class DetectorCalibration:
    """What is usual for a model, on images that it has not seen."""

    model: str  # hash of its weights
    score: str  # one of `CHOICES`
    alpha: float  # share of familiar images that may be called strange
    scores: Tensor  # of the calibration images, ascending, (n,)
    values: Tensor  # their named statistics, (n, 7), for tests of drift
    centre: Tensor  # means of the named statistics of familiar images, (7,)
    spread: Tensor  # their standard deviations, (7,)
    usual: Reference  # what scores other than `auto` compare with
    heat: float  # see `heat_scale`
    full: bool  # whether the density also sees codes and places, or the named statistics alone
    mixture: Mixture | None  # the density of `auto`; None for other scores

    @property
    def threshold(self) -> float:
        """The ⌈(n + 1)(1 − α)⌉-th smallest calibration score."""
        return float(self.scores[conformal_rank(len(self.scores), self.alpha) - 1])

    def p_values(self, scores: Tensor) -> Tensor:
        """Compute p = (1 + #{calibration scores ≥ s}) / (n + 1), shape (B,): uniform for familiar images.

        Vovk, Gammerman, Shafer, Algorithmic learning in a random world, 2005, §2.
        """
        below = torch.searchsorted(self.scores, scores.double().contiguous(), side="left")
        return (1 + len(self.scores) - below).double() / (len(self.scores) + 1)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it; `parse_calibration` is the inverse."""
        mixture = None if self.mixture is None else _lists(self.mixture)
        return {**_lists(self), "usual": _lists(self.usual), "mixture": mixture}


def check_alpha(alpha: float) -> None:
    """Raise UsageError unless α is a share of false alarms that can be held."""
    if not (is_number(alpha) and 1e-9 <= alpha < 1):
        raise UsageError(f"alpha lies between 0 and 1, at least a billionth, and is not {alpha}")


def conformal_rank(count: int, alpha: float, held: float = 1.0) -> int:
    """Return ⌈(n + 1)(1 − α)⌉ for n calibration images, which are the share `held` of those given."""
    check_alpha(alpha)
    needed = math.ceil(1 / alpha - 1e-9) - 1
    if count < needed:
        given = math.ceil(needed / held) + 1
        more = f" ({given} in all, as {100 * (1 - held):.0f} % go into the density)" if held < 1 else ""
        raise UsageError(
            f"{count} held-out calibration images are too few for alpha = {alpha:g}: "
            f"{needed} are needed{more}, or an alpha of {math.ceil(1000 / (count + 1)) / 1000:g} or more"
        )
    return math.ceil((count + 1) * (1 - alpha) - 1e-9)


def fit_mixture(features: Tensor, seed: int = 0) -> Mixture:
    """Fit a mixture to features (N, K): the mean of mixtures of random parts of about 20,000 examples.

    Each has 1, 2, 4, … components: doubling ends where the likelihood of a tenth of the examples, held out,
    falls, or where a component would have fewer than 5 K examples of the first part. Ormoneit, Tresp,
    Improved Gaussian mixture density estimates using Bayesian penalty terms and network averaging, NeurIPS
    1995.
    """
    features = features.double()
    shift, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    given = ((features - shift) / scale)[order]
    held, rest = given[: len(given) // 10].numpy(), given[len(given) // 10 :]
    first, *others = (part.numpy() for part in rest.chunk(math.ceil(len(rest) / _PART)))
    best = _fitted(first, 1, seed)
    while len(first) >= 10 * first.shape[1] * best.n_components:
        more = _fitted(first, 2 * best.n_components, seed)
        if more.score(held) <= best.score(held):
            break
        best = more
    found = [best, *(_fitted(part, best.n_components, seed) for part in others)]
    weights, means, factors = (
        torch.cat([torch.from_numpy(getattr(one, name)) for one in found])
        for name in ("weights_", "means_", "precisions_cholesky_")
    )
    return Mixture(shift, scale, weights / len(found), means, factors)


def _fitted(given: np.ndarray, count: int, seed: int) -> GaussianMixture:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(count, tol=1e-2, reg_covar=_REGULAR, random_state=seed, max_iter=60)
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 60 steps are enough for a density
        return mixture.fit(given)


def parse_calibration(values: dict[str, Any]) -> DetectorCalibration:
    """Read what `to_json` gave; ValueError, KeyError, TypeError or UsageError if it is anything else."""
    if values["score"] not in CHOICES:
        raise ValueError(f"there is no score {values['score']!r}")
    if (values["score"] == "auto") != (values["mixture"] is not None):
        raise ValueError("its density does not belong to its score")
    if type(values["full"]) is not bool:
        raise ValueError("it does not say what its density sees")
    scores, names = _tensor(values, "scores", -1), len(WORDS)
    conformal_rank(len(scores), values["alpha"])
    if (scores.diff() < 0).any():
        raise ValueError("scores are not ascending")
    return DetectorCalibration(
        str(values["model"]), values["score"], float(values["alpha"]), scores,
        _tensor(values, "values", len(scores), names), _tensor(values, "centre", names),
        _tensor(values, "spread", names), _reference(values["usual"]),
        float(_tensor(values, "heat")), values["full"],
        None if values["mixture"] is None else _mixture(values["mixture"]),
    )  # fmt: skip


def _reference(values: dict[str, Any]) -> Reference:
    codes = _tensor(values, "codes", -1, -1)
    numbers = {n: float(_tensor(values, n)) for n in ("residual", "entropy", "sigma", "bits", "dimension")}
    return Reference(**numbers, codes=codes, scale=_tensor(values, "scale", codes.shape[1]))


def _mixture(values: dict[str, Any]) -> Mixture:
    means = _tensor(values, "means", -1, -1)
    count, size = means.shape
    return Mixture(
        _tensor(values, "shift", size), _tensor(values, "scale", size),
        _tensor(values, "weights", count), means, _tensor(values, "factors", count, size, size),
    )  # fmt: skip


def _tensor(values: dict[str, Any], name: str, *shape: int) -> Tensor:
    """Read finite numbers of a shape, in which -1 stands for any length."""
    tensor = torch.tensor(values[name], dtype=torch.float64)
    fits = tensor.ndim == len(shape) and all(w in (-1, n) for n, w in zip(tensor.shape, shape, strict=True))
    if not fits or not tensor.isfinite().all():
        raise ValueError(f"{name} is not finite, or not of shape {shape}")
    if name in _POSITIVE and not (tensor > 0).all():
        raise ValueError("a scale is not positive")
    return tensor


def _lists(parts: object) -> dict[str, Any]:
    return {n: v.tolist() if isinstance(v, Tensor) else v for n, v in vars(parts).items()}
