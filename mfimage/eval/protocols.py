"""How a model is measured: protocols of distances by name, and the setup that all metrics share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mfimage.datasets.sets import Dataset
from mfimage.eval.cache import CHUNK
from mfimage.eval.numbers import Interval, Number, mean_interval, quantiles
from mfimage.eval.table import Better
from mfimage.files import stream
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel

MOST = 50_000  # images in a distance


@dataclass(frozen=True)
class Protocol:
    """What happens to images before their features are taken, and how many; numbers compare within one."""

    name: str  # stands beside every number
    says: str  # the same in a sentence
    samples: int | None = None  # and real images; None for as many as are held out, 50,000 at most
    resize: str = "pytorch-fid"  # to the 299 × 299 of the Inception; see `features.InceptionFeatures`
    jpeg: bool = False  # whether both sides go through JPEG files
    norm256: bool = False  # whether reconstruction is also told as ‖x − x̂‖ with pixels in 0 … 256


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "mfimage", "8-bit PNG on both sides; pytorch-fid's Inception and resizing; as many samples as "
            "held-out images, 50,000 at most",
        ),
        Protocol(
            "brehmer2020", "as published by Brehmer and Cranmer, 2020: 1,000 samples and 1,000 real images, "
            "JPEG on both sides; reconstruction error as a norm with pixels in 0 … 256",
            samples=1000, jpeg=True, norm256=True,
        ),
        Protocol(
            "clean-fid", "as mfimage, but resized as by Parmar, Zhang and Zhu, 2022: bicubic and antialiased",
            resize="clean-fid",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Setup:
    """What is measured, on which data, and how."""

    model: GenerativeModel
    test: Dataset
    train: Dataset
    learned: Dataset  # of train, what the model has learned from: without what watched its error
    protocol: Protocol
    samples: int  # how many, and at most how many real images, a distance compares
    density_images: int  # held-out images whose exact log-density is computed
    seed: int
    batch_size: int
    weights: str  # first digits of the model's hash
    tell: Callable[[str], None]

    def drawn(self, data: Dataset, most: int) -> Tensor:
        """Draw the positions of at most `most` images: files lie in order of their classes."""
        return torch.randperm(len(data), generator=torch.Generator().manual_seed(self.seed))[:most]

    def project(self, x: Tensor, shown: bool = False) -> Tensor:
        """Project images, drawn as samples are if `shown`, and cut them to [0, 1] as writing a file would."""
        model = self.model.shown if shown else self.model
        device = self.model.device
        return in_batches(lambda part: model.project(part.to(device)), x, self.batch_size).clamp(0, 1)

    def sample(self, rows: range, detail: float = 0.0) -> Tensor:
        """Draw samples, cut to [0, 1]; those of a chunk follow from the seed and its place."""
        chunks = range(rows.start // CHUNK, (rows.stop - 1) // CHUNK + 1)
        drawn = [
            self.model.sample(CHUNK, stream(self.seed, i), self.batch_size, detail=detail).cpu()
            for i in chunks
        ]
        return torch.cat(drawn)[rows.start % CHUNK :][: len(rows)].clamp(0, 1)

    def number(
        self,
        value: float | Interval,
        n: int,
        unit: str = "",
        better: Better = None,
        beside: Mapping[str, float] | None = None,
        weights: str | None = None,
    ) -> Number:
        """Make a number by the protocol; its weights are the model's if none are given."""
        value, ends = (value.value, (value.low, value.high)) if isinstance(value, Interval) else (value, None)
        weights = self.weights if weights is None else weights
        return Number(value, n, ends, unit, better, self.protocol.name, weights, beside or {})

    def mean(
        self, values: Tensor, unit: str = "", better: Better = None, beside: Mapping[str, float] | None = None
    ) -> Number:
        """Make a number of the mean over images, with quantiles beside it."""
        low, median, high = quantiles(values) if values.isfinite().all() else (math.nan,) * 3
        beside = {**(beside or {}), "q05": low, "median": median, "q95": high}
        return self.number(mean_interval(values), len(values), unit, better, beside)
