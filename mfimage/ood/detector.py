"""A detector of strange images: scores that are calibrated on familiar ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets import ImageSet
from mfimage.datasets.stored import StoredSet
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.inputs import ImageLike, model_input, require_image_manifold
from mfimage.models import GenerativeModel
from mfimage.ood import mixture
from mfimage.ood.calibration import CHOICES, Calibration, rank, read
from mfimage.ood.scores import SCORES, VOLUME, Seen
from mfimage.ood.seeing import features, heat_scale, see, usual_of
from mfimage.ood.verdicts import Verdicts
from mfimage.run import CALIBRATION, weights_hash

_FULL = 10  # images a feature, from which on the density sees codes and places
_FIT = 0.6  # share of the calibration images that the density is fitted on, unless it is given its own

Images = ImageLike | ImageSet | StoredSet


class Detector:
    """Score images by how strange they are to a model, and decide at a known rate of false alarms.

    Args:
        model: A trained flow with a manifold of images.
        score: A name in `scores.SCORES`, or "auto": −log density of all statistics on familiar images.
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
        if score not in CHOICES:
            raise UsageError(f"score {score!r}: choose from {', '.join(CHOICES)}")
        require_image_manifold(model)
        if model.conditional:
            raise ModelError("a conditional model: its density needs parameters, and images come without")
        self.model: Any = model
        self.score_name, self.batch_size = score, batch_size
        self._calibration: Calibration | None = None

    def calibrate(
        self, images: Images, alpha: float = 0.01, density_images: Images | None = None, seed: int = 0
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
        seen = self._see(images)
        if density_images is None:
            order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(seed))
            cut = round(_FIT * len(seen))
            _require(len(seen) - cut, alpha, 1 / (1 - _FIT))
            part, seen = seen.take(order[:cut]), seen.take(order[cut:])
        else:
            _require(len(seen), alpha, 1.0)
            part = self._see(density_images)
        if len(part) < 2:
            raise UsageError("a density needs at least 2 images to be fitted on")
        full = len(part) >= _FULL * features(part, True).shape[1]
        draft = Calibration(
            weights_hash(self.model), self.score_name, alpha, torch.zeros(0), torch.zeros(0),
            part.values.mean(0), part.values.std(0).clamp_min(1e-6), usual_of(part),
            heat_scale(seen), full,
            mixture.fit(features(part, full), seed) if self.score_name == "auto" else None,
        )  # fmt: skip
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

    def score(self, images: Images) -> Verdicts:
        """Score a batch of images, or one.

        Raises:
            UsageError: Before `calibrate`.
            DataError: If images are not of the model's size.
        """
        known = self.calibration
        seen = self._see(images)
        scores = self._scores(seen, known)
        return Verdicts(
            scores, known.p_values(scores), scores > known.threshold,
            (seen.values - known.centre) / known.spread, seen.values, (seen.smooth / known.heat).clamp(0, 1),
        )  # fmt: skip

    def decision_function(self, images: Images) -> np.ndarray:
        """Return scores (B,) as pyod does: higher is stranger."""
        return self.score(images).scores.numpy()

    def predict(self, images: Images) -> np.ndarray:
        """Return 0 for familiar and 1 for strange images, (B,), as pyod does."""
        return self.score(images).is_ood.long().numpy()

    def save(self, directory: str | Path) -> Path:
        """Write calibration.json into the model's directory; return its path."""
        return self.calibration.save(directory)

    @classmethod
    def load(cls, directory: str | Path, model: GenerativeModel) -> Detector:
        """Read calibration.json from the directory that the model was read from.

        Raises:
            ModelError: If it is missing, damaged, or was made for a model of other weights.
        """
        path = Path(directory) / CALIBRATION
        known = read(path)
        if known.model != weights_hash(model):
            raise ModelError(f"{path}: was made for another model: calibrate this one (mfimage calibrate)")
        detector = cls(model, known.score)
        detector._calibration = known
        return detector

    def _batches(self, images: Images) -> Iterable[Tensor]:
        """Give images as the model takes them, a batch at a time: sets need not fit into memory as floats."""
        given = images.batches(self.batch_size) if isinstance(images, ImageSet | StoredSet) else [images]
        for part in given:
            yield from model_input(part, self.model)[0].split(self.batch_size)

    def _see(self, images: Images) -> Seen:
        volume = self.score_name in VOLUME
        parts = [see(x, self.model, volume) for x in self._batches(images) if len(x)]
        if not parts:
            raise DataError("no images")
        return Seen.join(parts)

    def _scores(self, seen: Seen, known: Calibration) -> Tensor:
        if known.mixture is not None:
            return known.mixture.nll(features(seen, known.full))
        return SCORES[self.score_name](seen, known.usual)


def _require(held: int, alpha: float, share: float) -> None:
    """Raise UsageError with the number of images that must be given, of which 1/share are held out."""
    try:
        rank(held, alpha)
    except UsageError as error:
        if share == 1 or not 0 < alpha < 1:
            raise
        given = math.ceil((math.ceil(1 / alpha - 1e-9) - 1) * share) + 1
        raise UsageError(f"{error} ({given} in all, as 60 % go into the density)") from None
