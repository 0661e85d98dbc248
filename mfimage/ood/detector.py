"""A detector of strange images: scores that are calibrated on familiar ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.checkpoint import weights_hash
from mfimage.datasets import ImageSet
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.inputs import ImageLike, model_input, require_image_manifold
from mfimage.models import GenerativeModel
from mfimage.ood import mixture
from mfimage.ood.calibration import FILE, SCORES, Calibration, rank, read
from mfimage.ood.scores import WORDS, see, spatial, summary

_CODES = 32  # first coordinates, coarsest, of which the density is made
_FULL = 10  # images a feature, from which on the density sees codes and places
_FIT = 0.6  # share of the calibration images that the density is fitted on, unless it is given its own
_PIXELS = 2_000_000  # of which the scale of heat-maps is the quantile


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a detector says of each image of a batch.

    Attributes:
        scores: Shape (B,) float64, higher is stranger.
        p_values: Share of familiar images that are at least as strange, (B,) in (0, 1].
        is_ood: Whether the score is above the threshold, (B,) bool.
        statistics: Named statistics in standard deviations of familiar images, (B, 7).
        values: Named statistics themselves, (B, 7).
    """

    scores: Tensor
    p_values: Tensor
    is_ood: Tensor
    statistics: Tensor
    values: Tensor

    @property
    def reasons(self) -> list[str]:
        """Say in words which statistic is out most; empty for familiar images."""
        words = list(WORDS.values())
        found = []
        for row, strange in zip(self.statistics, self.is_ood.tolist(), strict=True):
            most = int(row.abs().argmax())
            low, high = words[most]
            unusual = (high if row[most] > 0 else low) if row[most].abs() > 2 else "an unusual combination"
            found.append(unusual if strange else "")
        return found


class Detector:
    """Score images by how strange they are to a model, and decide at a known rate of false alarms.

    Args:
        model: A trained flow with a manifold of images.
        score: "reconstruction", "two-sided" (|log residual − usual|), "latent", "joint", "typicality",
            "complexity" (see `scores`), or "auto": −log density of all statistics on familiar images.
        batch_size: Images at a time.

    Attributes:
        threshold_: Score above which an image is strange.

    Raises:
        UsageError: If there is no such score.
        ModelError: If the model has no manifold of images, or is conditional.

    Reference:
        Morningstar, Ham, Gallagher, Lakshminarayanan, Alemi, Dillon, Density of states estimation for
        out-of-distribution detection, 2020, arXiv 2006.09273.
    """

    def __init__(self, model: GenerativeModel, score: str = "auto", batch_size: int = 256) -> None:
        if score not in SCORES:
            raise UsageError(f"score {score!r}: choose from {', '.join(SCORES)}")
        require_image_manifold(model)
        if model.settings.get("context"):
            raise ModelError("a conditional model: its density needs parameters, and images come without")
        self.model: Any = model
        self.score_name, self.batch_size = score, batch_size
        self._calibration: Calibration | None = None

    def calibrate(
        self,
        images: ImageLike | ImageSet,
        alpha: float = 0.01,
        density_images: ImageLike | ImageSet | None = None,
        seed: int = 0,
    ) -> Detector:
        """Learn from familiar images what is usual, and set the threshold; return the detector.

        Args:
            images: A batch that the model was not trained on, like those to come.
            alpha: Share of familiar images that may be called strange.
            density_images: What the density is fitted on, such as the training images. If not given, 60 % of
                `images`, drawn at random, which then leave 40 % for the threshold.
            seed: Of the draw and the fit.

        Raises:
            UsageError: If the images are too few for α; the message says how many are needed.
            DataError: If images are not of the model's size.
        """
        held = self._tensor(images)
        if density_images is None:
            order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
            cut = round(_FIT * len(held))
            part, held = held[order[:cut]], held[order[cut:]]
            _require(len(held), alpha, 1 / (1 - _FIT))
        else:
            part = self._tensor(density_images)
            _require(len(held), alpha, 1.0)
        if len(part) < 2:
            raise UsageError("a density needs at least 2 images to be fitted on")
        usual = self._measure(part)
        full = len(part) >= _FULL * (usual.values.shape[1] + usual.features.shape[1])
        density = mixture.fit(_features(usual, full), seed) if self.score_name == "auto" else None
        free = max(1, math.prod(self.model.shape) - self.model.dim)
        draft = Calibration(
            weights_hash(self.model), self.score_name, alpha, torch.zeros(0), torch.zeros(0),
            usual.values.mean(0), usual.values.std(0).clamp_min(1e-6),
            max(math.sqrt(float(usual.squares.mean()) / free), 1e-4), self._heat(held), full, density,
        )  # fmt: skip
        seen = self._measure(held)
        scores, order = self._scores(seen, draft).sort()
        self._calibration = replace(draft, scores=scores, values=seen.values[order])
        return self

    @property
    def calibration(self) -> Calibration:
        """What was learned; UsageError before `calibrate`."""
        if self._calibration is None:
            raise UsageError("the detector is not calibrated: call calibrate(images) first")
        return self._calibration

    @property
    def threshold_(self) -> float:
        """Score above which an image is strange."""
        return self.calibration.threshold

    def score(self, images: ImageLike | ImageSet) -> Verdicts:
        """Score a batch of images, or one.

        Raises:
            UsageError: Before `calibrate`.
            DataError: If images are not of the model's size.
        """
        known = self.calibration
        seen = self._measure(self._tensor(images))
        scores = self._scores(seen, known)
        return Verdicts(
            scores, known.p_values(scores), scores > known.threshold,
            (seen.values - known.centre) / known.spread, seen.values,
        )  # fmt: skip

    def decision_function(self, images: ImageLike | ImageSet) -> np.ndarray:
        """Return scores (B,) as pyod does: higher is stranger."""
        return self.score(images).scores.numpy()

    def predict(self, images: ImageLike | ImageSet) -> np.ndarray:
        """Return 0 for familiar and 1 for strange images, (B,), as pyod does."""
        return self.score(images).is_ood.long().numpy()

    @torch.no_grad()
    def heatmaps(self, images: ImageLike | ImageSet) -> Tensor:
        """Show where images differ from their projections.

        Returns:
            (B, 1, H, W) in [0, 1]: squared residuals, mean over 3 × 3 pixels, 1 where they reach what only
            one in a thousand pixels of familiar images does.
        """
        x, scale = self._tensor(images), self.calibration.heat
        return torch.cat([(self._smooth(part) / scale).clamp(0, 1) for part in x.split(self.batch_size)])

    def save(self, directory: str | Path) -> Path:
        """Write calibration.json into the model's directory; return its path."""
        return self.calibration.save(directory)

    @classmethod
    def load(cls, directory: str | Path, model: GenerativeModel) -> Detector:
        """Read calibration.json from the directory that the model was read from.

        Raises:
            ModelError: If it is missing, damaged, or was made for a model of other weights.
        """
        path = Path(directory) / FILE
        known = read(path)
        if known.model != weights_hash(model):
            raise ModelError(f"{path}: was made for another model: calibrate this one (mfimage calibrate)")
        detector = cls(model, known.score)
        detector._calibration = known
        return detector

    def _tensor(self, images: ImageLike | ImageSet) -> Tensor:
        given = images.batch(slice(None)) if isinstance(images, ImageSet) else images
        x = model_input(given, self.model)[0]
        if not len(x):
            raise DataError("no images")
        return x.cpu()

    def _on_device(self, x: Tensor) -> Tensor:
        return x.to(next(self.model.parameters()).device)

    @torch.no_grad()
    def _measure(self, x: Tensor) -> _Measured:
        parts = []
        for part in x.split(self.batch_size):
            seen = see(self._on_device(part), self.model)
            values = torch.stack(list(summary(seen).values()), 1)
            features = torch.cat([seen.u[:, :_CODES].double(), spatial(seen)], 1)
            squares = seen.off.double().square().flatten(1).sum(1)
            parts.append([t.cpu() for t in (values, features, seen.nll.double(), squares)])
        return _Measured(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _scores(self, seen: _Measured, known: Calibration) -> Tensor:
        free = math.prod(self.model.shape) - self.model.dim
        names = list(WORDS)
        usual = dict(zip(names, known.centre.tolist(), strict=True))
        value = dict(zip(names, seen.values.T, strict=True))
        if known.mixture is not None:
            return known.mixture.nll(_features(seen, known.full))
        joint = seen.nll + seen.squares / (2 * known.sigma**2) + free * math.log(known.sigma)
        return {
            "reconstruction": seen.squares / math.prod(self.model.shape),
            "two-sided": (value["residual"] - usual["residual"]).abs(),
            "latent": seen.nll,
            "joint": joint,
            "typicality": (seen.nll - usual["latent"]).abs(),
            "complexity": value["complexity"],
        }[known.score]

    def _smooth(self, x: Tensor) -> Tensor:
        off = see(self._on_device(x), self.model).off.square().mean(1, keepdim=True)
        return F.avg_pool2d(off, 3, 1, 1, count_include_pad=False).cpu()

    @torch.no_grad()
    def _heat(self, x: Tensor) -> float:
        few = x[: max(1, _PIXELS // math.prod(x.shape[-2:]))]
        pixels = np.concatenate([self._smooth(part).flatten().numpy() for part in few.split(self.batch_size)])
        return max(float(np.quantile(pixels, 0.999)), 1e-8)


class _Measured(NamedTuple):
    """Of images: named statistics (B, 7), features (B, K), −log p_h(u) (B,), ‖x − x̂‖² (B,), on the CPU."""

    values: Tensor
    features: Tensor
    nll: Tensor
    squares: Tensor


def _features(seen: _Measured, full: bool) -> Tensor:
    return torch.cat([seen.values, seen.features], 1) if full else seen.values


def _require(held: int, alpha: float, share: float) -> None:
    """Raise UsageError with the number of images that must be given, of which 1/share are held out."""
    try:
        rank(held, alpha)
    except UsageError as error:
        if share == 1 or not 0 < alpha < 1:
            raise
        given = math.ceil((math.ceil(1 / alpha - 1e-9) - 1) * share) + 1
        raise UsageError(f"{error} ({given} in all, as 60 % go into the density)") from None
