"""What a calibration must be: of images enough, finite, and of the sizes of its model."""

from __future__ import annotations

import torch
from torch import Tensor

from mfimage.errors import ModelError
from mfimage.models import ChartedModel
from mfimage.ood.calibration import DetectorCalibration, conformal_rank
from mfimage.ood.evidence import features
from mfimage.ood.maps import describe
from mfimage.ood.statistics import statistics_of

FIT = 0.6  # share of the calibration images that the density is fitted on, unless it is given its own


def require_fit(known: DetectorCalibration, model: ChartedModel) -> None:
    """Raise ValueError unless what was learned has the sizes of a model's statistics."""
    grey = torch.full((1, *model.shape), 0.5, dtype=torch.float32, device=model.device)
    found = statistics_of(grey, model)
    if known.usual.codes.shape[1] != found.u.shape[1]:
        raise ValueError(f"it has codes of {known.usual.codes.shape[1]} numbers")
    if known.maps is not None and len(known.maps.shift) != (seen := describe(grey, model)[0].shape[1]):
        raise ValueError(f"its maps see {len(known.maps.shift)} features, the model gives {seen}")
    if known.evidence is None:
        return
    count = known.evidence.mixture.means.shape[1]
    if count != features(found, known.evidence.full).shape[1]:
        raise ValueError(f"its density sees {count} statistics")
    if len(known.evidence.energy) != found.energies.shape[1]:
        raise ValueError(f"it has {len(known.evidence.energy)} energies")


def require_sound(sound: Tensor) -> None:
    """Raise ModelError unless all of the calibration images have finite numbers."""
    if lost := int((~sound).sum()):
        raise ModelError(
            f"the model gives no finite numbers for {lost} of {len(sound)} calibration images: it is "
            "damaged, or these are not such images as it was trained on"
        )


def require_enough(count: int, alpha: float, divided: bool) -> None:
    """Raise UsageError if images are too few to calibrate on; `divided`: the density takes some of them."""
    if divided:
        conformal_rank(count - round(FIT * count), alpha, 1 - FIT)
    else:
        conformal_rank(count, alpha)
