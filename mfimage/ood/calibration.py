"""What a detector learned from familiar images, and its file calibration.json."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfimage.errors import ModelError, UsageError
from mfimage.files import write_text
from mfimage.ood.mixture import Mixture, from_lists
from mfimage.ood.scores import SCORES, Usual
from mfimage.ood.statistics import WORDS
from mfimage.run import CALIBRATION

FORMAT = "mfimage-calibration-2"
CHOICES = ("auto", *SCORES)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What is usual for a model, on images that it has not seen.

    Attributes:
        model: Hash of the model's weights.
        score: One of `CHOICES`.
        alpha: Share of familiar images that may be called strange.
        scores: Of the calibration images, ascending, (n,).
        values: Their named statistics, (n, 7), for tests of drift.
        centre: Means of the named statistics of familiar images, (7,).
        spread: Their standard deviations, (7,).
        usual: What scores other than `auto` compare with.
        heat: Smoothed squared residual that 99.9 % of familiar pixels stay below.
        full: Whether the density also sees codes and places, or the named statistics alone.
        mixture: The density of `auto`; None for other scores.
    """

    model: str
    score: str
    alpha: float
    scores: Tensor
    values: Tensor
    centre: Tensor
    spread: Tensor
    usual: Usual
    heat: float
    full: bool
    mixture: Mixture | None

    @property
    def threshold(self) -> float:
        """The ⌈(n + 1)(1 − α)⌉-th smallest calibration score."""
        return float(self.scores[rank(len(self.scores), self.alpha) - 1])

    def p_values(self, scores: Tensor) -> Tensor:
        """Compute p = (1 + #{calibration scores ≥ s}) / (n + 1), shape (B,): uniform for familiar images.

        Reference:
            Vovk, Gammerman, Shafer, Algorithmic learning in a random world, 2005, §2.
        """
        below = torch.searchsorted(self.scores, scores.double().contiguous(), side="left")
        return (1 + len(self.scores) - below).double() / (len(self.scores) + 1)

    def save(self, directory: str | Path) -> Path:
        """Write calibration.json into a model's directory, whole or not at all; return its path."""
        path = Path(directory) / CALIBRATION
        values: dict[str, Any] = {"format": FORMAT, **_lists(self), "usual": _lists(self.usual)}
        values["mixture"] = None if self.mixture is None else _lists(self.mixture)
        write_text(path, json.dumps(values, allow_nan=False) + "\n")
        return path


def rank(count: int, alpha: float) -> int:
    """Return ⌈(n + 1)(1 − α)⌉.

    Raises:
        UsageError: If α is not in (0, 1), or if n images are too few for it.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha lies between 0 and 1, and is not {alpha}")
    needed = math.ceil(1 / alpha - 1e-9) - 1
    if count < needed:
        raise UsageError(
            f"{count} held-out calibration images are too few for alpha = {alpha:g}: {needed} are needed"
        )
    return math.ceil((count + 1) * (1 - alpha) - 1e-9)


def read(path: Path) -> Calibration:
    """Read calibration.json; ModelError if it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _parse(values)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: not there: calibrate the model first (mfimage calibrate)") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UsageError) as error:
        raise ModelError(f"{path}: damaged: calibrate the model again ({error})") from error


def _lists(parts: Any) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, Tensor) else value for name, value in vars(parts).items()
    }


def _parse(values: dict[str, Any]) -> Calibration:
    if values["format"] != FORMAT:
        raise ValueError(f"format {values['format']!r} is not {FORMAT!r}")
    if values["score"] not in CHOICES:
        raise ValueError(f"there is no score {values['score']!r}")
    size = len(WORDS)
    scores, table, centre, spread = (
        torch.tensor(values[name], dtype=torch.float64) for name in ("scores", "values", "centre", "spread")
    )
    count = len(scores)
    for tensor, shape in ((scores, (count,)), (table, (count, size)), (centre, (size,)), (spread, (size,))):
        if tensor.shape != shape or not tensor.isfinite().all():
            raise ValueError("its numbers are of another shape, or not finite")
    if (scores.diff() < 0).any() or (spread <= 0).any() or not values["heat"] > 0:
        raise ValueError("its scores are not ascending, or its scales not positive")
    if (values["score"] == "auto") != (values["mixture"] is not None):
        raise ValueError("its density does not belong to its score")
    rank(count, values["alpha"])
    mixture = None if values["mixture"] is None else from_lists(values["mixture"])
    return Calibration(
        str(values["model"]), values["score"], float(values["alpha"]), scores, table, centre, spread,
        _usual(values["usual"]), float(values["heat"]), bool(values["full"]), mixture,
    )  # fmt: skip


def _usual(values: dict[str, Any]) -> Usual:
    codes, scale = (torch.tensor(values[name], dtype=torch.float64) for name in ("codes", "scale"))
    numbers = {n: float(values[n]) for n in ("residual", "entropy", "sigma", "bits", "dimension")}
    if codes.ndim != 2 or scale.shape != codes.shape[1:] or not all(map(math.isfinite, numbers.values())):
        raise ValueError("its codes are of another shape, or a number is not finite")
    if not (codes.isfinite().all() and (scale > 0).all() and numbers["sigma"] > 0):
        raise ValueError("its codes are not finite, or its scales not positive")
    return Usual(**numbers, codes=codes, scale=scale)
