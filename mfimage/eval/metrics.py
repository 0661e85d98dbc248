"""The metrics of an evaluation by name, each a function to numbers.

`MODEL_METRICS` need model and data, and give pictures too; `FEATURE_METRICS` compare sets of features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias, cast

import torch
from numpy.linalg import LinAlgError
from torch import Tensor

from mfimage.console import counted
from mfimage.errors import DataError, ModelError, reason_of
from mfimage.eval.features import FeatureExtractor
from mfimage.eval.image_metrics import LEAST_SIDE, PCA, copies, mse, nearest, psnr, squared_error, ssim
from mfimage.eval.numbers import Interval, Number, bootstrap, mean_interval, ratio_of_means
from mfimage.eval.protocols import MOST, Setup
from mfimage.eval.set_metrics import coverage, frechet_distance, kernel_distance, normality
from mfimage.eval.table import Better
from mfimage.eval.verdict import RATIO, projections
from mfimage.inputs import in_batches
from mfimage.losses import dequantise
from mfimage.models import DETAILED, SAMPLES, ChartedModel, GenerativeModel, bits_per_dim
from mfimage.models.geometry import metric

Numbers: TypeAlias = dict[str, Number]
Pictures: TypeAlias = dict[str, Tensor]
ImageError: TypeAlias = tuple[Callable[[Tensor, Tensor], Tensor], str, Better]  # and its unit

ERRORS: dict[str, ImageError] = {
    "squared_error": (squared_error, "an image", "lower"),
    "mse": (mse, "a pixel", "lower"),
    "psnr": (psnr, "dB", "higher"),
    "ssim": (ssim, "", "higher"),
    "norm256": (lambda x, y: 256 * squared_error(x, y).sqrt(), "norm, pixels in 0 … 256", "lower"),
}
_NO_MANIFOLD = {
    "reconstruction": "an ambient flow is its own projection",
    "geometry": "there is no manifold",
    "latent": "there is no manifold",
}
_SHOWN = 12  # reconstructions on the page
_NEAREST = 16  # samples on the page with their nearest training images
_CHECKED = 1000  # samples that are looked for among the training images
_GEOMETRY = 100  # images at which J is looked at
_DRAWS = 10  # of a bootstrap of Fréchet distances, each of which takes about a second
_SUBSETS = 100  # of a kernel distance


def ruled_out(model: GenerativeModel, metrics: Sequence[str]) -> dict[str, str]:
    """Say by name of a metric, or of a number, why it cannot be measured of a model."""
    lacking = {} if model.has_manifold else _NO_MANIFOLD
    found = {name: why for name, why in lacking.items() if name in metrics}
    height, width = model.shape[1:]
    if "reconstruction" in metrics and min(height, width) < LEAST_SIDE:
        found["ssim"] = f"needs {LEAST_SIDE} × {LEAST_SIDE} pixels, the images have {height} × {width}"
    return found


@contextmanager
def noted(name: str, failed: dict[str, str]) -> Iterator[None]:
    """Note why a metric cannot be measured, as of too few images: the others stand."""
    try:
        yield
    except (DataError, ModelError, ArithmeticError, LinAlgError, torch.linalg.LinAlgError) as error:
        failed[name] = reason_of(error)


def measure_reconstruction(s: Setup) -> tuple[Numbers, Pictures]:
    """Measure reconstructions of held-out images, and those by PCA at equal d beside them."""
    s.tell(f"reconstruction of {counted(len(s.test), 'image')}")
    pca = PCA.of(s.learned, s.model.dim)
    left_out = {*ruled_out(s.model, ["reconstruction"]), *([] if s.protocol.norm256 else ["norm256"])}
    errors = {name: error for name, error in ERRORS.items() if name not in left_out}
    found: dict[str, list[Tensor]] = {name: [] for name in errors}
    for x, *both in projections(s.model, pca, s.test, s.batch_size):
        for name, (error, _, _) in errors.items():
            found[name].append(torch.stack([error(x, y) for y in both]))
    numbers, shown = {}, s.test.batch(s.drawn(s.test, _SHOWN))
    for name, (_, unit, better) in errors.items():
        ours, linear = torch.cat(found[name], 1)
        numbers[name] = s.mean(ours, unit, better, {"pca": float(linear.mean())})
        if name == "squared_error":
            numbers[RATIO] = s.number(ratio_of_means(ours, linear), len(ours), better="lower")
    return numbers, {"held-out images": shown, "reconstructions": s.project(shown)}


def measure_density(s: Setup) -> tuple[Numbers, Pictures]:
    """Compute the exact log-density of held-out images; on the whole space that of dequantised ones."""
    s.tell(f"exact log-density of {counted(min(s.density_images, len(s.test)), 'image')}")
    x = s.test.batch(s.drawn(s.test, s.density_images)).to(s.model.device)
    whole = s.model.has_ambient_density
    if whole:
        x = dequantise(
            x, torch.rand(x.shape, generator=torch.Generator().manual_seed(s.seed), dtype=torch.float32).to(x)
        )
    log_prob = in_batches(s.model.log_prob, x, min(s.batch_size, 32))
    finite = log_prob[log_prob.isfinite()]
    not_finite = len(log_prob) - len(finite)
    lost = {"not_finite": not_finite} if not_finite else {}
    if not len(finite):
        return {"log_prob": s.number(math.nan, 0, "nats", beside=lost)}, {}
    dim = math.prod(s.model.shape) if whole else s.model.dim
    numbers = {
        "log_prob": s.mean(finite, "nats", beside=lost),
        "log_prob_per_dim": s.mean(finite / dim, "nats a dimension", beside=lost),
    }
    if whole:
        numbers["bits_per_dim"] = s.mean(bits_per_dim(finite, dim), "bits, dequantised", "lower")
    return numbers, {}


@torch.no_grad()
def measure_geometry(s: Setup) -> tuple[Numbers, Pictures]:
    """Measure rank and condition of J at held-out images, from the eigenvalues of JᵀJ."""
    model = cast(ChartedModel, s.model)
    x = s.test.batch(s.drawn(s.test, _GEOMETRY)).to(model.device)
    rank, condition = rank_and_condition(metric(model.chart, model.encode(x)))
    middle: float | Interval = float(condition.median())
    if condition.isfinite().all():
        middle = bootstrap(lambda c: float(c.median()), condition).cut(1.0)
    beside = {"largest": float(condition.max())}
    return {
        "rank": s.mean(rank.double(), f"of {model.dim}"),
        "condition": s.number(middle, len(x), "median over images", beside=beside),
    }, {}


def rank_and_condition(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Take the rank and the condition number of J, both (B,), from JᵀJ, shape (B, d, d), float64."""
    squares = torch.linalg.eigvalsh(gram).clamp_min(0)
    largest, smallest = squares[:, -1], squares[:, 0]
    # J is of float32: below 1e-5 of the largest, a singular value is its rounding.
    return (squares > 1e-10 * largest[:, None]).sum(1), (largest / smallest).sqrt()


@torch.no_grad()
def measure_latent(s: Setup) -> tuple[Numbers, Pictures]:
    """Measure how normal the base codes of held-out images are."""
    model = cast(ChartedModel, s.model)
    batches = (x.to(model.device) for x in s.test.batches(s.batch_size))
    z = torch.cat([model.density.transform(model.encode(x))[0].cpu() for x in batches])
    beside, numbers = {"chance": normality(z).expected}, {}
    for name in ("coordinates", "radius"):
        distance = bootstrap(lambda c, name=name: getattr(normality(c), name), z, repeats=20).cut(0.0)
        numbers[f"latent_{name}"] = s.number(distance, len(z), "Kolmogorov distance", "lower", beside)
    return numbers, {}


def measure_memorisation(s: Setup) -> tuple[Numbers, Pictures]:
    """Measure whether samples are copies of training images, by distances of pixels."""
    s.tell("nearest training images of samples")
    samples = s.sample(range(min(s.samples, _CHECKED)))
    rows = s.drawn(s.train, MOST)
    known = s.train.batch(rows).flatten(1)
    held_out = s.test.batch(s.drawn(s.test, MOST)).flatten(1)
    near, which = nearest(samples.flatten(1), known)
    usual, _ = nearest(held_out, known)
    nearer = mean_interval(copies(near, usual)[0]).cut(0.0, 1.0)
    ratio = bootstrap(lambda a, b: copies(a, b)[1], near, usual, seed=s.seed).cut(0.0)
    beside = {"chance": 0.01, "training images": len(known)}
    return {
        "copies": s.number(nearer, len(samples), "share", beside=beside),
        "copies_ratio": s.number(ratio, len(samples), "nearest training image, over held-out images'"),
    }, {"nearest training images": s.train.batch(rows[which[:_NEAREST]])}


class FeatureSpace(NamedTuple):
    """A feature space, and the metrics that are measured in it."""

    name: str  # of its distances: "fid", or another that is not to be called so
    extractor: FeatureExtractor
    metrics: list[str]
    own: str = ""  # what the names of its other numbers end in, where it is neither of ours


FeatureSets: TypeAlias = dict[str, Tensor]  # features (N, dim): "real", and perhaps each of SETS
SETS = {  # what is compared with the held-out images, and the ending of its numbers
    SAMPLES: "",
    DETAILED: "_detail",
    "reconstructions": "_reconstructions",  # of training images, so that no image is compared with itself
    "training images": "_floor",
}


def compared(sets: FeatureSets) -> Iterator[tuple[Tensor, str, str, bool]]:
    """Give features of each set, its name, the ending of its numbers, and whether it is the model's."""
    for kind, ending in SETS.items():
        if kind in sets:
            yield sets[kind], kind, ending, kind != "training images"


def measure_frechet(s: Setup, space: FeatureSpace, sets: FeatureSets) -> Numbers:
    """Measure Fréchet distances to the held-out images."""
    real, numbers = sets["real"], {}
    for found, kind, ending, ours in compared(sets):
        s.tell(f"{space.name}{ending} of {len(found)} {kind}")
        distance = bootstrap(frechet_distance, found, real, repeats=_DRAWS, seed=s.seed).cut(0.0)
        beside, weights = {"real images": len(real)}, space.extractor.weights
        better: Better = "lower" if ours else None
        numbers[f"{space.name}{ending}"] = s.number(distance, len(found), "", better, beside, weights)
    return numbers


def measure_kid(s: Setup, space: FeatureSpace, sets: FeatureSets) -> Numbers:
    """Measure kernel distances to the held-out images, with their deviations over subsets."""
    real, numbers = sets["real"], {}
    for found, kind, ending, ours in compared(sets):
        name = f"kid{space.own}{ending}"
        s.tell(f"{name} of {len(found)} {kind}")
        least = min(len(found), len(real))
        size = max(2, min(1000, least // 2))
        value, spread = kernel_distance(found, real, _SUBSETS, size)
        half = 1.96 * spread * (size / least) ** 0.5
        beside = {"deviation over subsets": spread, "subset": size}
        distance = Interval(value, value - half, value + half)
        better: Better = "lower" if ours else None
        numbers[name] = s.number(distance, len(found), "", better, beside, space.extractor.weights)
    return numbers


def measure_prdc(s: Setup, space: FeatureSpace, sets: FeatureSets) -> Numbers:
    """Measure precision, recall, density and coverage of the held-out images by five neighbours."""
    numbers = {}
    for found, _, ending, ours in compared(sets):
        for name, values in coverage(sets["real"], found)._asdict().items():
            share = mean_interval(values).cut(0.0, math.inf if name == "density" else 1.0)
            name = f"{'prdc_density' if name == 'density' else name}{space.own}{ending}"
            better: Better = "higher" if ours else None
            numbers[name] = s.number(share, len(values), better=better, weights=space.extractor.weights)
    return numbers


MODEL_METRICS: dict[str, Callable[[Setup], tuple[Numbers, Pictures]]] = {
    "reconstruction": measure_reconstruction,
    "density": measure_density,
    "geometry": measure_geometry,
    "latent": measure_latent,
    "memorisation": measure_memorisation,
}
FEATURE_METRICS: dict[str, Callable[[Setup, FeatureSpace, FeatureSets], Numbers]] = {
    "fd": measure_frechet, "fid": measure_frechet, "kid": measure_kid, "prdc": measure_prdc,
}  # fmt: skip
METRICS = (*MODEL_METRICS, *FEATURE_METRICS)
