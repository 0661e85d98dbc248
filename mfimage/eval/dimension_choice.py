"""Which dimension the manifold of a data set should have."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from mfimage.checkpoints import Snapshots
from mfimage.config import Config, ModelConfig, Reading
from mfimage.datasets.loading import Data, load_for_training
from mfimage.datasets.sets import Dataset
from mfimage.errors import DataError, Interrupted
from mfimage.eval.dimension_estimates import LEAST, DimensionEstimate, EstimatorBias, estimates, find_elbow
from mfimage.eval.plots import dimension_figure
from mfimage.files import stream
from mfimage.fit import fit, make_accelerator, shuffled
from mfimage.losses import reconstruction
from mfimage.models import ChartedModel
from mfimage.models.build import build
from mfimage.models.subspace import principal_components
from mfimage.schedule import Schedule
from mfimage.settings import whole_number

COMPONENTS = 256  # principal components that stand for the data
HIDDEN = 384
BATCH = 256
LR = 2e-3
_LONGER = 2.0  # times the neighbours' estimate does the curve go on
_SHORTEST = 8  # but to this at least
_ROUND_UP = 0.25  # a fraction above it is rounded up: a dimension too many costs less than one too few
_AGREE = 0.25  # of the larger
_ABOVE = (
    "the held-out error still falls fast up to {}. Neighbours fall short where some directions are far "
    "narrower than others or images are few, and a dimension too few loses more than one too many: the curve "
    "decides."
)

OnStep: TypeAlias = Callable[[int, dict[str, float]], None]  # step, and what was measured in it


@dataclass(frozen=True)
class Dimension:
    """What is known of the dimension of a data set."""

    dim: int  # recommended
    reason: str
    agree: bool | None  # whether neighbours and curve say the same; None if the curve has no bend
    plain: DimensionEstimate  # by neighbours, as the data lie
    equalised: DimensionEstimate  # the same with equalised directions
    elbow: int | None  # where the curve of nested codes bends
    errors: tuple[float, ...]  # squared, of held-out examples, at d = 0, 1, 2, … nested codes
    pca: tuple[float, ...]  # the same by principal components
    examples: int  # different ones that were used
    repeated: int  # exact copies besides
    held_out: int  # how many of them the errors are of
    features: int  # D, pixels times channels
    seed: int
    notes: tuple[str, ...] = ()  # what to keep in mind

    def as_json(self) -> dict[str, Any]:
        """What json.dump takes."""
        return asdict(self)

    def figure(self) -> bytes:
        """Draw the curves as a PNG."""
        low, high = sorted((self.plain.dimension, self.equalised.dimension))
        return dimension_figure(self.errors, self.pca, (low, high), self.elbow, self.dim)


def choose_dimension(
    data: Data,
    *,
    max_dim: int = 64,
    examples: int = 10_000,
    steps: int = 2000,
    seed: int = 0,
    size: int | None = None,
    channels: Literal[1, 3] | None = None,
    tell: Callable[[str], None] = lambda message: None,
    report: OnStep = lambda step, record: None,
    reading: Reading = Reading(),
) -> Dimension:
    """Recommend a dimension for the manifold of images or vectors, in a minute or two on one core.

    Nearest neighbours estimate it twice (`estimates`); one short fit of nested codes gives the error of
    held-out examples against d, whose bend is the third opinion (`find_elbow`).

    Args:
        data: As `train` takes it.
        max_dim: The largest d to consider.
        examples: At most so many are used, drawn at random.
        steps: Of the short fit, 256 examples each.
        seed: Of everything random.
        size: As in `Config`.
        channels: As in `Config`.
        tell: Is told in words what goes on.
        report: Called after every step of the fit with the step and {loss, grad_norm, …}.
        reading: How files are read, and how many may be bad.

    Raises:
        DataError: If the data cannot be had, are fewer than 100 different examples, or have one value only.
        Interrupted: After SIGINT or SIGTERM during the fit.
    """
    max_dim, examples = whole_number("max_dim", max_dim, 1), whole_number("examples", examples, 1)
    steps, seed = whole_number("steps", steps), whole_number("seed", seed)
    images, _ = load_for_training(data, Config(size=size, channels=channels), reading)
    for note in (*images.notes, *(f"skipped: {bad.path}: {bad.reason}" for bad in images.skipped)):
        tell(note)
    rows, repeated = _different(images, examples, seed)
    held_out = min(1000, len(rows) // 5)
    count = min(COMPONENTS, len(rows) - held_out - 1, rows.shape[1])
    mean, basis = principal_components(rows[held_out:], count)
    codes = (rows - mean) @ basis
    train, test = codes[held_out:], codes[:held_out]
    tell(f"nearest neighbours of {len(rows):,} examples in {count} principal components")
    plain, equalised = estimates(codes, EstimatorBias.measure(len(rows), count, seed))
    longest = min(max_dim, count - 1, max(_SHORTEST, math.ceil(_LONGER * plain.dimension)))
    tell(f"one fit of {longest} nested codes")
    variance = (rows[:held_out] - mean).double().square().sum(1).mean()
    outside = max(float(variance - test.double().square().sum(1).mean()), 0.0)
    curve = tuple(e + outside for e in _nested_errors(train, test, longest, steps, seed, report))
    energy = test.double().square().mean(0)
    left = (energy.sum() - energy.cumsum(0))[:longest]
    pca = tuple(float(e) + outside for e in (energy.sum(), *left))
    elbow = find_elbow(curve)
    best = recommend(plain.dimension, equalised.dimension, elbow, curve)
    most = min(max_dim, rows.shape[1] - 1)
    return Dimension(
        min(best.dim, most), best.reason, best.agree, plain, equalised, elbow, curve, pca,
        len(rows), repeated, held_out, rows.shape[1], seed, _notes(best, most, *rows.shape),
    )  # fmt: skip


def _different(images: Dataset, most: int, seed: int) -> tuple[Tensor, int]:
    """Draw examples at random, flat, without copies of each other; and how many copies there were."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:most]
    rows = torch.cat([images.batch(part).flatten(1) for part in chosen.split(1024)])
    seen: dict[bytes, int] = {}
    for i, row in enumerate(rows.numpy()):
        seen.setdefault(row.tobytes(), i)
    if len(seen) < LEAST or rows.shape[1] < 2:
        copies = f", {len(rows) - len(seen)} of them copies" if len(seen) < len(rows) else ""
        raise DataError(
            f"{images.name}: {len(rows)} examples of {rows.shape[1]} values{copies}: the dimension cannot be "
            f"estimated; give {LEAST} different ones or more, of 2 values at least"
        )
    return rows[list(seen.values())], len(rows) - len(seen)


def _nested_errors(
    train: Tensor, test: Tensor, longest: int, steps: int, seed: int, report: OnStep
) -> list[float]:
    """Fit nested codes; squared errors of `test` for the first 0, 1, 2 … of them."""
    unit = float(train.square().sum(1).mean().sqrt())
    train, test = train / unit, test / unit
    config = ModelConfig((train.shape[1],), longest, kind="autoencoder", hidden=HIDDEN, density_steps=0)
    chart = cast(ChartedModel, build(config, seed)).chart
    chart.initialise(train)
    rows = shuffled(len(train), min(BATCH, len(train)), seed)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        chosen = rows(step)
        return train[chosen], torch.randint(1, longest + 1, (len(chosen),), generator=stream(seed, step))

    @torch.no_grad()
    def error(k: int) -> float:
        return float(reconstruction(chart, test, None, torch.full((len(test),), k)))

    schedule = Schedule(steps, LR, warmup=min(100, steps // 10), clip=1.0, every=max(steps, 1))
    with tempfile.TemporaryDirectory() as folder:
        snapshots = Snapshots(Path(folder), "nested")
        try:
            fit(
                chart, lambda chart, batch: reconstruction(chart, batch[0], None, batch[1]), batches,
                lambda: error(longest), schedule, snapshots, make_accelerator("cpu"),
                lambda progress, record: report(progress.step, record), keep_best=False,
            )  # fmt: skip
        except Interrupted as stop:
            raise Interrupted(stop.exit_code - 128, "stopped before anything could be recommended") from stop
    return [unit**2 * error(k) for k in range(longest + 1)]


def _notes(recommended: Recommended, most: int, examples: int, features: int) -> tuple[str, ...]:
    notes = []
    if recommended.dim > most == features - 1:
        notes.append(f"the data seem to fill their space of {features} dimensions: no manifold is smaller")
    elif recommended.dim > most:
        notes.append(f"more than the largest d considered: the estimate is {recommended.dim}")
    if examples < 1000:
        notes.append(f"{examples} examples are few: the estimates are rough")
    return tuple(notes)


class Recommended(NamedTuple):
    """A recommended d, whether neighbours and curve agree (None without a bend), and the reason in words."""

    dim: int
    agree: bool | None
    reason: str


def recommend(plain: float, equalised: float, elbow: int | None, errors: Sequence[float]) -> Recommended:
    """Choose d from the neighbours' two estimates, which span a range, and the bend of the error curve."""
    low, high = sorted((plain, equalised))
    span = f"{low:.1f}" if high - low < 0.15 else f"{low:.1f} to {high:.1f}"
    said = f"Nearest neighbours estimate {span} dimensions"
    if elbow is None:
        dim, last = _rounded(plain), len(errors) - 1
        at = min(dim, last)
        why = (
            "the held-out error falls without a bend, as that of photographs does, so that they alone decide "
            f"and d is a choice of fidelity: {errors[at] / errors[0]:.1%} of the variance are left at {at}, "
            f"{min(errors) / errors[0]:.1%} at best up to {last}."
        )
        return Recommended(dim, None, f"{said}; {why}")
    within = min(max(float(elbow), low), high)
    if abs(within - elbow) <= max(1.0, _AGREE * max(within, elbow)):
        bends = f", and the held-out error bends at {elbow}: they agree."
        return Recommended(_rounded(within), True, said + bends)
    if elbow > high:
        dim, why = elbow, _ABOVE.format(elbow)
    else:  # noise, or details that a fit draws late
        dim, why = _below(elbow, low, errors)
    return Recommended(dim, False, f"{said}, but {why} They disagree, so try a d on either side too.")


def _below(elbow: int, low: float, errors: Sequence[float]) -> tuple[int, str]:
    there = min(_rounded(low), len(errors) - 1)
    gain = 1 - errors[there] / errors[elbow]
    bends = f"the held-out error bends at {elbow} already, and from there to {there} falls by {gain:.0%}"
    if gain < 0.1:
        return elbow, f"{bends}: further dimensions look like noise, and the curve decides."
    return _rounded(low), f"{bends}: there is more to draw, and the neighbours decide."


def _rounded(dimension: float) -> int:
    return max(1, math.ceil(dimension - _ROUND_UP))
