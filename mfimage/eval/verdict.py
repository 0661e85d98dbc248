"""The verdict on a model: does it reconstruct unseen images better than principal components do?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from mfimage.console import counted, percent
from mfimage.datasets.sets import Dataset
from mfimage.datasets.splits import validation_rows
from mfimage.errors import ModelError, boundary
from mfimage.eval.image_metrics import PCA, squared_error
from mfimage.eval.numbers import Number, ratio_of_means
from mfimage.eval.table import number
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel
from mfimage.pretrained import CALIBRATION
from mfimage.settings import check_fields, from_json, is_number

Best: TypeAlias = Literal["", "start", "middle", "end"]  # when in training the weights that are kept came up

VERDICT = "verdict"  # the section of `model.measured` that holds a verdict
TRAINED = "training"  # the section that holds what the images to learn from are found again by
RATIO = "error_over_pca"  # the number of an evaluation that a verdict is read off
_LONGER = "train it for longer (mfimage train --time)"
LEAST = 0.01  # share of principal components' error below which a difference is none


@dataclass(frozen=True)
class Verdict:
    """Squared errors of unseen images, a model's and those of principal components of the same images.

    "Better" and "worse" are said of a difference of at least `LEAST`, where the 95 % interval of the ratio of
    the two errors, paired by images, leaves out 1.
    """

    error: float  # of the model, the mean over images of the sum over pixels
    pca: float  # of as many principal components
    interval: tuple[float, float] | None  # of error / pca; None where it is unknown, as with one image
    n: int  # unseen images
    dim: int
    learned: int  # images that were learned from
    linear: bool = False  # the model is principal components by its kind
    best: Best = ""  # unknown if empty
    passes: float = 0.0  # how often training has seen every image; unknown if 0

    @property
    def better(self) -> bool:
        """Whether the model beats principal components beyond chance."""
        return self.interval is not None and self.interval[1] < 1 and self.error <= (1 - LEAST) * self.pca

    @property
    def worse(self) -> bool:
        """Whether principal components beat the model beyond chance."""
        return self.interval is not None and self.interval[0] > 1 and self.error >= (1 + LEAST) * self.pca

    def __str__(self) -> str:
        """Say it in a sentence or two."""
        components = counted(self.dim, "principal component")
        seen = f"{counted(self.n, 'image')} held out"
        beside = f"({number(self.error)} against {number(self.pca)} an image, {seen})"
        share = abs(1 - self.error / self.pca) if self.pca else 0.0
        if self.linear:
            return f"Is {components}: squared error {number(self.error)} an image on unseen images ({seen})."
        if self.better or self.worse:
            side = "less" if self.better else "more"
            than = f"{percent(share)} {side} squared error than {components} {beside}"
            advice = "" if self.better else _sentence(self.advice)
            return f"Reconstructs unseen images with {than}. {advice}".rstrip()
        if self.best == "start":
            return (
                f"Is its start, {components}: training found nothing better on unseen images {beside}. "
                f"{_sentence(self.advice)}"
            )
        if share >= LEAST:
            return f"Not told from {components} on unseen images {beside}: the difference may be chance."
        return f"No better than {components} on unseen images {beside}. {_sentence(self.advice)}".rstrip()

    @property
    def advice(self) -> str:
        """What would help; empty where that is unknown."""
        if 0 < self.passes < 1:
            return f"training has not seen every image once: {_LONGER}"
        if self.best == "end":
            return f"it was still improving when training ended: {_LONGER}"
        too_few = f"{counted(self.learned, 'image')} to learn from are too few for this variety"
        fewer = ", or fewer dimensions (mfimage train --dim)" if self.dim > 1 else ""
        return f"{too_few}: add images{fewer}" if self.best else ""


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def judge(
    model: GenerativeModel,
    pca: PCA,
    held_out: Dataset,
    learned: int,
    best: Best = "",
    passes: float = 0.0,
    batch_size: int = 256,
) -> Verdict:
    """Measure a model with a manifold beside the principal components of the images that it learned from."""
    parts = projections(model, pca, held_out, batch_size)
    both = [torch.stack([squared_error(x, y), squared_error(x, z)]) for x, y, z in parts]
    ours, linear = torch.cat(both, 1)
    ends = ratio_of_means(ours, linear).ends
    error, pca_error = float(ours.mean()), float(linear.mean())
    return Verdict(error, pca_error, ends, len(ours), model.dim, learned, is_linear(model), best, passes)


def is_linear(model: GenerativeModel) -> bool:
    """Whether a model is principal components by its kind."""
    return model.config is not None and model.config.kind == "linear"


def projections(
    model: GenerativeModel, pca: PCA, data: Dataset, batch_size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Give images, their projections by a model, and by principal components, cut to [0, 1], in float64."""
    for x in data.batches(batch_size):
        ours = in_batches(lambda part: model.project(part.to(model.device)), x, batch_size)
        yield x.double(), ours.clamp(0, 1).double(), pca.project(x).clamp(0, 1).double()


def learned_of(train: Dataset, model: GenerativeModel) -> Dataset:
    """Leave out of a training split what watched the error of a model; all of it if that lay elsewhere."""
    rows = _divided(train, model)
    return train if rows is None else train.subset(rows[0])


def watched_of(train: Dataset, model: GenerativeModel) -> Dataset | None:
    """Give what of a training split watched the error of a model; None if it was trained on another."""
    rows = _divided(train, model)
    return None if rows is None else train.subset(rows[1])


def _divided(train: Dataset, model: GenerativeModel) -> tuple[Tensor, Tensor] | None:
    """Rows of a training split that a model learned from and that watched; None if these lay elsewhere."""
    known = training_of(model)
    with boundary(ModelError, f"{CALIBRATION}: what is kept of the model's training is damaged"):
        if not known or known["sha256"] != train.summary()["sha256"] or known["validation"] is None:
            return None
        return validation_rows(len(train), known["validation"], known["seed"])


def training_of(model: GenerativeModel) -> dict[str, Any]:
    """Return what is kept of a model's training, if it was trained; ModelError if that is damaged."""
    known = model.measured.get(TRAINED, {})
    if not isinstance(known, dict):
        raise ModelError(f"{CALIBRATION}: what is kept of the model's training is damaged")
    return known


def verdict_of(model: GenerativeModel) -> Verdict | None:
    """Return the verdict that training left with a model; ModelError if it is damaged."""
    return read_verdict(model.measured)


def read_verdict(measured: Mapping[str, Any]) -> Verdict | None:
    """Read the verdict among what was measured of a model; ModelError if it is damaged."""
    with boundary(ModelError, f"{CALIBRATION}: the model's verdict is damaged"):
        stored = measured.get(VERDICT)
        if stored is None:
            return None
        found = from_json(Verdict, stored)
        check_fields(found)
        if found.interval is not None and not (
            len(found.interval) == 2 and all(map(is_number, found.interval))
        ):
            raise ValueError(f"{found.interval} is no interval")
        return found


def in_words(numbers: Mapping[str, Number], model: GenerativeModel, learned: int) -> str:
    """Say how good reconstructions and samples are, as far as that was measured."""
    words = []
    if ratio := numbers.get(RATIO):
        error, known = numbers["squared_error"], verdict_of(model)
        found = Verdict(
            error.value, error.beside["pca"], ratio.interval, error.n, model.dim, learned, is_linear(model),
            known.best if known else "",
        )  # fmt: skip
        words.append(str(found))
    for name in [name for name in numbers if name == "fid" or name.startswith("fd-")][:1]:
        beside = {
            "_detail": "with detail",
            "_reconstructions": "reconstructions of training images",
            "_floor": "as many training images",
        }
        others = [
            f", {what} {number(numbers[name + end].value)}"
            for end, what in beside.items()
            if name + end in numbers
        ]
        words.append(f"Samples have a distance of {number(numbers[name].value)} ({name}){''.join(others)}.")
    return " ".join(words)
