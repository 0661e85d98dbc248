"""A detector of strange images: scores that are calibrated on familiar ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets.sets import Dataset
from mfimage.errors import DataError, ModelError, UsageError, boundary
from mfimage.inputs import AnyImages, Sigma, image_batches, require_image_manifold
from mfimage.models import ChartedModel, GenerativeModel
from mfimage.ood.calibration import (
    NO_MAPS,
    DetectorCalibration,
    check_alpha,
    conformal_rank,
    parse_calibration,
)
from mfimage.ood.checks import FIT, require_enough, require_fit, require_sound
from mfimage.ood.evidence import SHARES, combined, fit_evidence
from mfimage.ood.maps import Surroundings, describe, learn_maps
from mfimage.ood.outliers import SHOWN, Outlier, outliers, to_drop
from mfimage.ood.places import Place
from mfimage.ood.scores import CHOICES, SCORES, VOLUME, reference_of
from mfimage.ood.statistics import WORDS, Statistics, statistics_of
from mfimage.ood.verdicts import Verdicts
from mfimage.pretrained import CALIBRATION, read_calibration, weights_hash, write_calibration
from mfimage.settings import plain, whole_number

DETECTOR = "detector"  # the section of a detector in `model.measured` and calibration.json


class Detector:
    """Score images by how strange they are to a model, and decide at a known rate of false alarms.

    Args:
        model: A trained flow with a manifold of images.
        score: A name in `scores.SCORES`, or "auto": too far out or too ordinary by all statistics, see
            `evidence.Evidence`; four fifths of α are for the first.
        batch_size: Images at a time.

    Attributes:
        threshold_: Score above which an image is strange.
        strangest_: Of the images it was calibrated on, strangest first; empty where that is not known.

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
        self.model = cast(ChartedModel, model)
        self.score_name, self.batch_size = score, whole_number("batch_size", batch_size, 1)
        self._calibration: DetectorCalibration | None = None
        self.strangest_: list[Outlier] = []

    def calibrate(
        self,
        images: AnyImages,
        alpha: float = 0.01,
        density_images: AnyImages | None = None,
        seed: int = 0,
        drop: int | Sequence[int] = 0,
        maps: bool = False,
    ) -> Detector:
        """Learn from familiar images what is usual, and set the threshold; return the detector.

        Args:
            images: Images that the model was not trained on, like those to come: a batch, or whatever
                `mfimage.load` takes, of which all splits are used.
            alpha: Share of familiar images that may be called strange.
            density_images: What the density is fitted on, such as the training images. If not given, 60 % of
                `images`, drawn at random, which then leave 40 % for the threshold.
            seed: Of the draw and the fit.
            drop: How many of the strangest images are left out of the scores, or which, as positions among
                the images; what is promised then says so.
            maps: Whether it also learns to say where images are strange, from some of `images`: those that
                the density is fitted on, or half of them, and the others set the levels.

        Raises:
            UsageError: If the images are too few for α; the message says how many are needed.
            DataError: If images are not of the model's size.
            ModelError: If the model gives no finite numbers for some of them.
        """
        alpha, seed = plain(alpha), whole_number("seed", seed)
        check_alpha(alpha)
        if isinstance(images, Dataset):  # what is known is said before any work
            require_enough(len(images), alpha, density_images is None)
        held = self._statistics(images)
        require_enough(len(held), alpha, density_images is None)
        strangest, dropped = to_drop(drop, len(held))
        order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
        cut = round(FIT * len(held)) if density_images is None else len(held) // 2
        halves = [half[~torch.isin(half, dropped)] for half in (order[:cut], order[cut:])]
        if density_images is None:
            fitted, rows = held.subset(halves[0]), halves[1]
        else:
            fitted, rows = self._statistics(density_images), torch.cat(halves).sort().values
        draft = replace(self._draft(fitted, alpha, seed), dropped=strangest + len(dropped))
        known, left_out = self._known(held.subset(rows), rows, draft, strangest)
        if maps:
            first, second = (half[~torch.isin(half, left_out)] for half in halves)
            learned = learn_maps(images, (first, second), self.model, self.batch_size, seed)
            known = replace(known, maps=learned)
        self._calibration = known
        return self

    def _draft(self, fitted: Statistics, alpha: float, seed: int) -> DetectorCalibration:
        """What is learned before any score."""
        if len(fitted) < 2:
            raise UsageError("a density needs at least 2 images to be fitted on")
        require_sound(fitted.sound)
        none = torch.zeros(0).double()
        return DetectorCalibration(
            weights_hash(self.model), self.score_name, alpha, none, none.new_zeros(0, len(WORDS)),
            none.new_zeros(0, len(SHARES)), fitted.values.mean(0), fitted.values.std(0).clamp_min(1e-6),
            reference_of(fitted), fit_evidence(fitted, seed) if self.score_name == "auto" else None,
        )  # fmt: skip

    def _known(
        self, held: Statistics, rows: Tensor, draft: DetectorCalibration, strangest: int
    ) -> tuple[DetectorCalibration, Tensor]:
        """Set the threshold by images in these rows; return the rows of the strangest, which are left out."""
        scores, surprises = self._scores(held, draft)
        require_sound(held.sound & scores.isfinite())
        order = scores.argsort(descending=True)
        conformal_rank(max(0, len(order) - strangest), draft.alpha)
        kept, shown = order[strangest:], order[: max(SHOWN, strangest)]
        known = draft.joined(
            scores[kept], held.values[kept], surprises[kept] if len(surprises) else surprises
        )
        verdicts = self._verdicts(held.subset(shown), known)
        self.strangest_ = outliers(verdicts, rows[shown].tolist(), len(order), strangest)
        return known, rows[order[:strangest]]

    def update(self, images: AnyImages) -> Detector:
        """Let more familiar images join those that the threshold comes from; return the detector.

        The density stays as it is, so that the scores are those that calibrating on both sets together would
        give with the same `density_images`; so do maps.

        Args:
            images: Familiar images, seen neither in training nor in a calibration before, as for `calibrate`.

        Raises:
            UsageError: Before `calibrate`.
            DataError: If images are not of the model's size.
            ModelError: If the model gives no finite numbers for some of them.
        """
        known, held = self.calibration, self._statistics(images)
        scores, surprises = self._scores(held, known)
        require_sound(held.sound & scores.isfinite())
        self._calibration, self.strangest_ = known.joined(scores, held.values, surprises), []
        return self

    def with_alpha(self, alpha: float) -> Detector:
        """Return a detector that calls another share of familiar images strange; UsageError if too small."""
        known, other = self.calibration, copy(self)
        conformal_rank(len(known.scores), alpha)
        other._calibration = replace(known, alpha=float(alpha))
        return other

    @property
    def calibration(self) -> DetectorCalibration:
        """What was learned; UsageError before `calibrate`."""
        if self._calibration is None:
            raise UsageError("the detector is not calibrated: call calibrate(images) first")
        return self._calibration

    @property
    def threshold_(self) -> float:
        """Score above which an image is strange."""
        return self.calibration.threshold

    def score(self, images: AnyImages, sigma: Sigma | None = None, maps: bool = False) -> Verdicts:
        """Score images, one or many: a batch, or whatever `mfimage.load` takes.

        An image of which the model gives no finite numbers has the score ∞, and is strange.

        Args:
            images: As they are, clean or noisy.
            sigma: Standard deviation of noise in them, in their own scale ([0, 1] for sets), as for
                `denoise`: they are cleared of it, and judged as clean images are. None: they are clean.
            maps: Whether it also says where they are strange.

        Raises:
            UsageError: Before `calibrate`, or with `maps` if that was not learned.
            DataError: If images are not of the model's size.
            ModelError: If sigma is given to a model that was not trained with noise.
        """
        known, places = self.calibration, list[Place]()
        if maps:
            self._maps()  # which says now if that was not learned
        found = self._statistics(
            images, sigma, lambda x: places.extend(known.places(self.look(x)) if maps else ())
        )
        return self._verdicts(found, known, places)

    def _verdicts(
        self, found: Statistics, known: DetectorCalibration, places: Sequence[Place] = ()
    ) -> Verdicts:
        scores, surprises = self._scores(found, known)
        sound = found.sound & scores.isfinite()
        scores = scores.where(sound, torch.inf)
        return Verdicts(
            scores, known.p_values(scores), ~(scores <= known.threshold),
            (found.values - known.centre) / known.spread, found.values,
            known.p_values_of_ways(surprises), places,
        )  # fmt: skip

    def look(self, x: Tensor) -> Tensor:
        """Map how far out each pixel of images (B, C, H, W) is, and project them: (B, 1 + C, H, W)."""
        features, projection = describe(x, self.model)
        return torch.cat([self._maps().distances(features)[:, None].float(), projection], 1)

    def decision_function(self, images: AnyImages) -> np.ndarray:
        """Return scores (B,) as pyod does: higher is stranger."""
        return self.score(images).scores.numpy()

    def predict(self, images: AnyImages) -> np.ndarray:
        """Return 0 for familiar and 1 for strange images, (B,), as pyod does."""
        return self.score(images).is_ood.long().numpy()

    def save(self, directory: str | Path) -> Path:
        """Write what was learned into calibration.json in the model's directory; return its path.

        What else the file holds stays, and the model carries what was learned from now on.
        """
        self.model.measured[DETECTOR] = self.calibration.to_json()
        sections = {**read_calibration(directory), DETECTOR: self.model.measured[DETECTOR]}
        return write_calibration(directory, sections)

    @classmethod
    def load(cls, directory: str | Path, model: GenerativeModel) -> Detector:
        """Read calibration.json from the directory that the model was read from.

        Raises:
            ModelError: If it holds no detector, is damaged, or was made for a model of other weights.
        """
        path = Path(directory) / CALIBRATION
        stored = read_calibration(directory).get(DETECTOR)
        if stored is None:
            raise ModelError(f"{path}: no detector there: calibrate the model first (mfimage calibrate)")
        damaged = f"{path}: damaged: calibrate the model again"
        with boundary(ModelError, damaged):
            known = parse_calibration(stored)
        if known.model != weights_hash(model):
            raise ModelError(f"{path}: was made for another model: calibrate this one (mfimage calibrate)")
        detector = cls(model, known.score)
        with boundary(ModelError, damaged):
            require_fit(known, detector.model)
        detector._calibration = known
        return detector

    def _statistics(
        self, images: AnyImages, sigma: Sigma | None = None, see: Callable[[Tensor], None] = lambda x: None
    ) -> Statistics:
        """Measure images; each batch is also given to `see`."""
        volume, parts = self.score_name in VOLUME, []
        for x in image_batches(images, self.model, self.batch_size, sigma):
            if len(x):
                parts.append(statistics_of(x, self.model, volume))
                see(x)
        if not parts:
            raise DataError("no images")
        return Statistics.joined(parts)

    def _maps(self) -> Surroundings:
        if self.calibration.maps is None:
            raise UsageError(NO_MAPS)
        return self.calibration.maps

    def _scores(self, found: Statistics, known: DetectorCalibration) -> tuple[Tensor, Tensor]:
        """Scores, (B,), and of `auto` the surprises in both ways, (B, 2), else (0, 2)."""
        if known.evidence is None:
            return SCORES[self.score_name](found, known.usual), torch.zeros(0, len(SHARES)).double()
        surprises = known.evidence.surprises(found)
        return combined(surprises), surprises
