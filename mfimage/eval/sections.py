"""The groups of numbers of an evaluation, each a function to numbers by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mfimage.datasets import Dataset
from mfimage.eval.bootstrap import Interval, bootstrap, mean_interval, quantiles
from mfimage.eval.image_metrics import PCA, copies, mse, nearest, psnr, squared_error, ssim
from mfimage.eval.manifold import geometry, normality
from mfimage.eval.numbers import Number
from mfimage.eval.set_metrics import coverage, feature_distance, kernel_distance
from mfimage.inputs import in_batches
from mfimage.losses import dequantise
from mfimage.models import bits_per_dim
from mfimage.models.geometry import metric
from mfimage.models.subspace import enough_rows

Images = Dataset
_DRAWS = 10  # of a bootstrap of Fréchet distances, each of which takes about a second
_SUBSETS = 100
Better = Literal["lower", "higher"] | None


@dataclass(frozen=True)
class Setting:
    """What all groups share.

    Attributes:
        model: That is evaluated.
        device: Of its weights.
        batch_size: Images at a time.
        seed: Of draws.
        weights: First digits of the model's hash.
        protocol: Its name.
    """

    model: Any
    device: torch.device
    batch_size: int
    seed: int
    weights: str
    protocol: str

    def number(
        self,
        value: float | Interval,
        n: int,
        least: float = -math.inf,
        most: float = math.inf,
        **more: Any,
    ) -> Number:
        """Make a number of this model; the ends of its interval are cut to what it can be."""
        ends = value.cut(least, most) if isinstance(value, Interval) else None
        value = value.value if isinstance(value, Interval) else value
        return Number(value, n, ends, protocol=self.protocol, **{"weights": self.weights, **more})

    def mean(
        self,
        values: Tensor,
        unit: str = "",
        better: Better = None,
        beside: Mapping[str, float] | None = None,
    ) -> Number:
        """Make a number of the mean over images, with quantiles beside it."""
        low, median, high = quantiles(values) if values.isfinite().all() else (math.nan,) * 3
        quant = {"q05": low, "median": median, "q95": high}
        given = {**(beside or {}), **quant}
        return self.number(mean_interval(values), len(values), unit=unit, better=better, beside=given)

    def drawn(self, images: Images, most: int) -> Tensor:
        """Positions of at most `most` images, at random: files lie in order of their classes."""
        return torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))[:most]

    def project(self, x: Tensor) -> Tensor:
        """Project images, and cut the result to [0, 1] as writing a file would."""
        return in_batches(lambda part: self.model.project(part.to(self.device)), x, self.batch_size).clamp(
            0, 1
        )


def reconstruction(s: Setting, test: Images, train: Images, norm256: bool) -> dict[str, Number]:
    """Reconstruction of held-out images, and that of PCA at equal d beside it."""
    rows = s.drawn(train, enough_rows(math.prod(test.shape), s.model.dim))
    pca = PCA.fit(train.batch(rows), s.model.dim, s.seed)
    measures: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str, Better]] = {
        "squared_error": (squared_error, "an image", "lower"),
        "mse": (mse, "a pixel", "lower"),
        "psnr": (psnr, "dB", "higher"),
        "ssim": (ssim, "", "higher"),
    }
    if norm256:
        norm = "norm, pixels in 0 … 256"
        measures["norm256"] = (lambda x, y: 256 * squared_error(x, y).sqrt(), norm, "lower")
    found: dict[str, list[Tensor]] = {name: [] for name in measures}
    linear: dict[str, list[Tensor]] = {name: [] for name in measures}
    for x in test.batches(s.batch_size):
        ours, theirs = s.project(x).double(), pca.project(x).clamp(0, 1).double()
        for name, (function, _, _) in measures.items():
            found[name].append(function(x.double(), ours))
            linear[name].append(function(x.double(), theirs))
    return {
        name: s.mean(torch.cat(found[name]), unit, better, {"pca": float(torch.cat(linear[name]).mean())})
        for name, (_, unit, better) in measures.items()
    }


def density(s: Setting, test: Images, most: int) -> dict[str, Number]:
    """Log-density of held-out images, exact; on the whole space that of dequantised ones."""
    x = test.batch(s.drawn(test, most)).to(s.device)
    whole = s.model.has_ambient_density
    if whole:
        x = dequantise(x, torch.rand(x.shape, generator=torch.Generator().manual_seed(s.seed)).to(x))
    log_prob = in_batches(s.model.log_prob, x, min(s.batch_size, 32))
    finite = log_prob[log_prob.isfinite()]
    if not len(finite):
        return {"log_prob": s.number(math.nan, 0, unit="nats", beside={"not_finite": len(log_prob)})}
    lost: dict[str, float] = (
        {"not_finite": len(log_prob) - len(finite)} if len(finite) < len(log_prob) else {}
    )
    dim = math.prod(s.model.shape) if whole else s.model.dim
    found = {
        "log_prob": s.mean(finite, "nats", beside=lost),
        "log_prob_per_dim": s.mean(finite / dim, "nats a dimension", beside=lost),
    }
    if whole:
        found["bits_per_dim"] = s.mean(bits_per_dim(finite, x[0].numel()), "bits, dequantised", "lower")
    return found


def shape(s: Setting, test: Images, most: int) -> dict[str, Number]:
    """Rank and condition of J at held-out images."""
    x = test.batch(s.drawn(test, most)).to(s.device)
    with torch.no_grad():
        u = s.model.encode(x)
        found = geometry(metric(s.model.chart, u))
    rank, condition = found.rank.double(), found.condition
    middle: float | Interval = float(condition.median())
    if condition.isfinite().all():
        middle = bootstrap(lambda c: float(c.median()), condition)
    return {
        "rank": s.mean(rank, f"of {s.model.dim}"),
        "condition": s.number(
            middle, len(x), 1.0, unit="median over images", beside={"largest": float(condition.max())}
        ),
    }


def latent(s: Setting, test: Images) -> dict[str, Number]:
    """How normal the base codes of held-out images are."""
    codes = []
    with torch.no_grad():
        for x in test.batches(s.batch_size):
            u = s.model.encode(x.to(s.device))
            codes.append(s.model.density.transform(u)[0].cpu())
    z = torch.cat(codes)
    chance = {"chance": normality(z).expected}
    unit = "Kolmogorov distance"
    return {
        f"latent_{name}": s.number(
            bootstrap(lambda c, name=name: getattr(normality(c), name), z, repeats=20),
            len(z), 0.0, unit=unit, better="lower", beside=chance,
        )
        for name in ("coordinates", "radius")
    }  # fmt: skip


def distances(
    s: Setting, name: str, features: Mapping[str, Tensor], weights: str, tell: Callable[[str], None]
) -> dict[str, Number]:
    """Fréchet distances to the held-out images: of samples, of reconstructions, of training images.

    Args:
        s: What all groups share.
        name: "fid", or the name of another feature space.
        features: "real" and any of "samples", "reconstructions" and "floor", (N, dim).
        weights: Of the features.
        tell: Is told what goes on.
    """
    labels = {"samples": name, "reconstructions": f"{name}_reconstructions", "floor": f"{name}_floor"}
    found = {}
    for kind, label in labels.items():
        if kind in features:
            tell(f"{label} of {len(features[kind])} {'training images' if kind == 'floor' else kind}")
            a, b = features[kind], features["real"]
            found[label] = s.number(
                bootstrap(feature_distance, a, b, repeats=_DRAWS, seed=s.seed), len(a), 0.0,
                better=None if kind == "floor" else "lower", weights=weights, beside={"real images": len(b)},
            )  # fmt: skip
    return found


def kernel(s: Setting, features: Mapping[str, Tensor], weights: str) -> dict[str, Number]:
    """KID of samples, with the deviation over its subsets."""
    a, b = features["samples"], features["real"]
    size = max(2, min(1000, min(len(a), len(b)) // 2))
    value, spread = kernel_distance(a, b, _SUBSETS, size)
    half = 1.96 * spread * (size / min(len(a), len(b))) ** 0.5
    return {
        "kid": s.number(
            Interval(value, value - half, value + half), len(a), better="lower", weights=weights,
            beside={"deviation over subsets": spread, "subset": size},
        )
    }  # fmt: skip


def prdc(s: Setting, features: Mapping[str, Tensor], weights: str) -> dict[str, Number]:
    """Precision, recall, density and coverage of samples, five neighbours."""
    found = coverage(features["real"], features["samples"])._asdict()
    names = {"density": "prdc_density"}
    return {
        names.get(name, name): s.number(
            mean_interval(v),
            len(v),
            0.0,
            math.inf if name == "density" else 1.0,
            better="higher",
            weights=weights,
        )
        for name, v in found.items()
    }


def memorisation(
    s: Setting, samples: Tensor, test: Images, train: Images, most: int
) -> tuple[dict[str, Number], Tensor]:
    """Whether samples are copies of training images, by distances of pixels; also the nearest ones."""
    rows = s.drawn(train, most)
    known = train.batch(rows).flatten(1)
    held_out = test.batch(s.drawn(test, most)).flatten(1)
    near, which = nearest(samples.flatten(1), known)
    usual, _ = nearest(held_out, known)
    nearer = copies(near, usual).nearer
    ratio = bootstrap(lambda a, b: copies(a, b).ratio, near, usual, seed=s.seed)
    chance = {"chance": 0.01, "training images": len(known)}
    unit = "nearest training image, over held-out images'"
    return {
        "copies": s.number(mean_interval(nearer), len(samples), 0.0, 1.0, unit="share", beside=chance),
        "copies_ratio": s.number(ratio, len(samples), 0.0, unit=unit),
    }, train.batch(rows[which[:16]])
