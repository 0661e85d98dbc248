"""What a detector learned from familiar images, checked when it is read back."""

from __future__ import annotations

import math
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mfimage.console import counted
from mfimage.errors import UsageError
from mfimage.ood.evidence import SHARES, Evidence, Mixture, Tail
from mfimage.ood.maps import Surroundings
from mfimage.ood.places import Place, place_of
from mfimage.ood.scores import CHOICES, Reference
from mfimage.ood.statistics import WORDS
from mfimage.settings import is_number, whole_number

NO_MAPS = "calibrated without maps of where images are strange: calibrate again, with maps"
_POSITIVE = ("spread", "sigma", "scale", "excess", "last")


@dataclass(frozen=True, eq=False)
class DetectorCalibration:
    """What is usual for a model, on images that it has not seen."""

    model: str  # hash of its weights
    score: str  # one of `CHOICES`
    alpha: float  # share of familiar images that may be called strange
    scores: Tensor  # of the calibration images, ascending, (n,)
    values: Tensor  # their named statistics, (n, 8), for tests of drift
    surprises: Tensor  # of `auto`, in each of the ways of `SHARES`, each ascending, (n, 2); (0, 2) of others
    centre: Tensor  # means of the named statistics of familiar images, (8,)
    spread: Tensor  # their standard deviations, (8,)
    usual: Reference  # what scores other than `auto` compare with
    evidence: Evidence | None  # what `auto` knows; None for other scores
    dropped: int = 0  # calibration images that were left out on request
    maps: Surroundings | None = None  # what is usual around each pixel; None if that was not learned

    @property
    def threshold(self) -> float:
        """The ⌈(n + 1)(1 − α)⌉-th smallest calibration score."""
        return float(self.scores[conformal_rank(len(self.scores), self.alpha) - 1])

    @property
    def false_alarms(self) -> tuple[float, float]:
        """Where the share of familiar images above the threshold lies, with 95 % probability.

        Of n calibration images that are drawn like those to come, with the threshold the r-th smallest score,
        it follows Beta(n + 1 − r, r). Vovk, Conditional validity of inductive conformal predictors, 2013.
        """
        return self._share_above(len(self.scores))

    def _share_above(self, count: int) -> tuple[float, float]:
        """Where the share above the threshold lies, had it been found among so many images."""
        from scipy.stats import beta

        rank = conformal_rank(len(self.scores), self.alpha)
        low, high = beta.ppf((0.025, 0.975), count + 1 - rank, rank)
        return float(low), float(high)

    @property
    def promise(self) -> str:
        """How many false alarms there will be, in words."""
        low, high = self.false_alarms
        share = f"{low:.2%} to {high:.2%} will be called strange (with 95 % probability)"
        if not self.dropped:
            return f"of familiar images {share}"
        low, high = self._share_above(len(self.scores) + self.dropped)
        left = f"{counted(self.dropped, 'calibration image')} dropped on request"
        return f"of images like those kept {share}; {left}: if such are familiar too, {low:.2%} to {high:.2%}"

    def joined(self, scores: Tensor, values: Tensor, surprises: Tensor) -> DetectorCalibration:
        """Let more familiar images join: their scores, (m,), named statistics, (m, 8), and surprises."""
        scores, order = torch.cat([self.scores, scores.double()]).sort(stable=True)
        return replace(
            self, scores=scores, values=torch.cat([self.values, values])[order],
            surprises=torch.cat([self.surprises, surprises]).sort(0).values,
        )  # fmt: skip

    def places(self, looked: Tensor) -> list[Place]:
        """Say where images are strange, of what `Detector.look` gave, whole or joined of tiles.

        A pixel is above the ⌈(n + 1)(1 − α)⌉-th smallest peak of n familiar images, or above all of fewer
        than 1/α − 1: so a share α of familiar images, or 1/(n + 1) if that is more, has a strange place.
        UsageError without maps.
        """
        if (known := self.maps) is None:
            raise UsageError(NO_MAPS)
        count = len(known.peaks)
        rank = min(math.ceil((count + 1) * (1 - self.alpha) - 1e-9), count)
        scale = max(float(known.peaks[rank - 1]) - known.middle, 1e-9)
        heat, edge = (looked[:, 0].double() - known.middle) / scale, (known.edge - known.middle) / scale
        return [place_of(one, edge, repaired) for one, repaired in zip(heat, looked[:, 1:], strict=True)]

    def p_values(self, scores: Tensor) -> Tensor:
        """Compute p = (1 + #{calibration scores ≥ s}) / (n + 1), shape (B,): uniform for familiar images.

        Vovk, Gammerman, Shafer, Algorithmic learning in a random world, 2005, §2.
        """
        return conformal_p_values(self.scores, scores)

    def p_values_of_ways(self, surprises: Tensor) -> Tensor:
        """The same of each way to be strange, (B, 2); of scores other than `auto` (B, 0)."""
        ways = zip(self.surprises.T, surprises.T, strict=True)
        return torch.stack([conformal_p_values(known, found) for known, found in ways], 1)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it; `parse_calibration` is the inverse."""
        return _plain(self)


def conformal_p_values(known: Tensor, scores: Tensor) -> Tensor:
    """(1 + #{known ≥ s}) / (n + 1) of scores s, (B,), and known ones, ascending, (n,); of NaN as of ∞."""
    below = torch.searchsorted(known.contiguous(), scores.double().contiguous(), side="left")
    return (1 + len(known) - below).double() / (len(known) + 1)


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


def parse_calibration(values: dict[str, Any]) -> DetectorCalibration:
    """Read what `to_json` gave; ValueError, KeyError, TypeError or UsageError if it is anything else."""
    if values["score"] not in CHOICES:
        raise ValueError(f"there is no score {values['score']!r}")
    if (values["score"] == "auto") != (values["evidence"] is not None):
        raise ValueError("what it knows does not belong to its score")
    scores, names = _tensor(values, "scores", -1), len(WORDS)
    conformal_rank(len(scores), values["alpha"])
    ways = len(SHARES)
    auto = values["score"] == "auto"
    surprises = _tensor(values, "surprises", len(scores), ways) if auto else torch.zeros(0, ways).double()
    if (scores.diff() < 0).any() or (surprises.diff(dim=0) < 0).any():
        raise ValueError("scores are not ascending")
    return DetectorCalibration(
        str(values["model"]), values["score"], float(values["alpha"]), scores,
        _tensor(values, "values", len(scores), names), surprises, _tensor(values, "centre", names),
        _tensor(values, "spread", names), _reference(values["usual"]),
        None if values["evidence"] is None else _evidence(values["evidence"]),
        whole_number("dropped", values.get("dropped", 0)),
        None if values.get("maps") is None else _surroundings(values["maps"]),  # older ones have none
    )  # fmt: skip


def _reference(values: dict[str, Any]) -> Reference:
    codes = _tensor(values, "codes", -1, -1)
    numbers = {n: float(_tensor(values, n)) for n in ("residual", "entropy", "sigma", "bits", "dimension")}
    return Reference(**numbers, codes=codes, scale=_tensor(values, "scale", codes.shape[1]))


def _evidence(values: dict[str, Any]) -> Evidence:
    energy = _tensor(values, "energy", -1)
    if type(values["full"]) is not bool:
        raise ValueError("it does not say what its density sees")
    return Evidence(
        values["full"], _mixture(values["mixture"]), _tail(values["edges"], 2 * len(WORDS)),
        energy, _tensor(values, "weights", len(energy)), _tail(values["ways"], 3),
    )  # fmt: skip


def _surroundings(values: dict[str, Any]) -> Surroundings:
    shift, mean, peaks = (_tensor(values, n, *[-1] * k) for n, k in (("shift", 1), ("mean", 3), ("peaks", 1)))
    mixture, count = _mixture(values["mixture"]), len(shift)
    middle, edge = (float(_tensor(values, name)) for name in ("middle", "edge"))
    if not len(peaks) or (peaks.diff() < 0).any() or not middle <= edge:
        raise ValueError("levels of maps are not ascending")
    if mixture.means.shape[1] != count or len(mean) != count:
        raise ValueError("maps see different numbers of features")
    return Surroundings(
        shift, _tensor(values, "scale", count), mean, _tensor(values, "spread", *mean.shape), mixture,
        middle, edge, peaks,
    )  # fmt: skip


def _tail(values: dict[str, Any], columns: int) -> Tail:
    knots = _tensor(values, "knots", -1, columns)
    if len(knots) < 2 or (knots.diff(dim=0) < 0).any():
        raise ValueError("quantiles are not ascending")
    return Tail(knots, float(_tensor(values, "last")), _tensor(values, "excess", columns))


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


def _plain(value: Any) -> Any:
    """Dataclasses, dicts and tensors as JSON takes them."""
    if isinstance(value, Tensor):
        return value.tolist()
    if is_dataclass(value):
        value = vars(value)
    return {name: _plain(one) for name, one in value.items()} if isinstance(value, dict) else value
