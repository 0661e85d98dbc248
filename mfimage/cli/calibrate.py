"""The verb that learns what is usual: calibrate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from mfimage import console
from mfimage.cli import options as opt
from mfimage.cli.values import RATE, check_budget
from mfimage.errors import NoSplitError, UsageError
from mfimage.outputs import hold

if TYPE_CHECKING:
    from mfimage.datasets import Dataset
    from mfimage.models import GenerativeModel
    from mfimage.ood import Detector

ScoreName = Literal[
    "auto", "reconstruction", "two-sided", "latent", "density", "joint", "typicality", "complexity",
    "neighbours", "local-dimension",
]  # fmt: skip
_DENSITY, _BYTES = 60_000, 2**29  # of training images, at most, that the density is fitted on


def calibrate(
    *data: opt.Data,
    model: opt.Model = "runs/latest",
    alpha: float | None = None,
    kind: Annotated[ScoreName | None, Parameter(name="--score")] = None,
    split: str | None = None,
    update: opt.Flag = False,
    drop: list[str] | None = None,
    budget: Annotated[float | None, RATE] = None,
    per_day: float | None = None,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 256,
    options: opt.Options = opt.Options(),
) -> None:
    """Learn from familiar images what is usual, and write calibration.json beside the model.

    The threshold and maps come from the split, and the density from the training split, unless the split is
    all. Of a folder laid out as for anomalib (train/good, test/good), whose test is left for evaluate, they
    come from those of train that watched the error of the training. The strangest of the images are named:
    what does not belong among them may be dropped.

    Args:
        alpha: Share of familiar images that may be called strange; 0.01 if neither it nor a budget is given.
        kind: What is calibrated; auto, the density of all statistics, if not given.
        split: Images not trained on, test if not given (see above): test, valid, or all of a set of its own.
        update: Let images, all of them if no split is given, join those of the calibration that is there.
        drop: How many of the strangest images are left out, or the name of one that is; what is promised says
            so.
        budget: Strange verdicts that familiar images may give, as 3/day, of --per-day images, in the place of
            alpha.
        per_day: Images a day.
    """
    from mfimage.pretrained import locate

    if not Path(model).is_dir():
        raise UsageError(
            f"--model {model}: a calibration lies beside the weights: give a directory of this machine"
        )
    alpha = _alpha(alpha, budget, per_day)
    hold(locate(model))  # not to find out at the end that nothing may be written there
    if update:
        if kind or drop:
            raise UsageError("--update: the score stays as it is calibrated, and nothing is dropped")
        detector = _updated(data, model, split or "all", alpha, batch_size, options)
    else:
        how = kind or "auto", split, 0.01 if alpha is None else alpha, seed, batch_size
        detector = _calibrated(data, model, how, drop or [], options)
    path, known = detector.save(locate(model)), detector.calibration
    low, high = known.false_alarms
    values = {
        "calibration": str(path), "threshold": known.threshold, "images": len(known.scores),
        "false_alarms": [low, high], "dropped": known.dropped,
        "strangest": [vars(one) for one in detector.strangest_],
    }  # fmt: skip
    images = console.counted(len(known.scores), "image")
    options.say(f"threshold {known.threshold:.6g} from {images}, alpha {known.alpha:g}: {known.promise}")
    options.put(values, [path])


def _alpha(alpha: float | None, budget: float | None, per_day: float | None) -> float | None:
    """The share of familiar images that may be called strange, if one is given."""
    from mfimage.ood.rates import budget_alpha

    check_budget(budget, per_day)
    if budget is None or per_day is None:
        return alpha
    if alpha is not None:
        raise UsageError("--alpha and --budget: choose one")
    return budget_alpha(budget, per_day)


def _updated(
    data: Sequence[str], model: str, split: str, alpha: float | None, batch_size: int, options: opt.Options
) -> Detector:
    """Let more familiar images join the calibration of a model."""
    from mfimage.ood import Detector
    from mfimage.pretrained import locate

    flow = options.load(model, projects=True)
    detector = Detector.load(locate(model), flow)
    detector.batch_size = batch_size
    before = len(detector.calibration.scores)
    detector.update(options.split(data, split, flow))
    joined = len(detector.calibration.scores) - before
    options.say(f"{console.counted(joined, 'image')} joined the {before:,} that were there")
    return detector if alpha is None else detector.with_alpha(alpha)


def _calibrated(
    data: Sequence[str],
    model: str,
    how: tuple[ScoreName, str | None, float, int, int],
    drop: Sequence[str],
    options: opt.Options,
) -> Detector:
    """Calibrate anew, and tell which images were the strangest."""
    from mfimage.ood import Detector

    kind, split, alpha, seed, batch_size = how
    flow = options.load(model, projects=True)
    detector = Detector(flow, kind, batch_size)
    held, density = _familiar(data, split, flow, alpha, options)
    dropped = _rows(drop, held)
    detector.calibrate(held, alpha, density, seed, dropped, maps=True)
    options.say("the strangest of these images:")
    names = _names(held)
    for one in detector.strangest_:
        options.say(f"  {names[one.row] if names else f'image {one.row}'}: {one}")
    for row in dropped if isinstance(dropped, list) else ():
        options.say(f"  {names[row]}: dropped by name")
    return detector


def _familiar(
    data: Sequence[str], split: str | None, flow: GenerativeModel, alpha: float, options: opt.Options
) -> tuple[Dataset, Dataset | None]:
    """Load what sets the threshold, and what the density is of; None where that takes some of the former."""
    from mfimage.ood.checks import require_enough
    from mfimage.ood.defects import is_defect_root

    if split is None and any(map(is_defect_root, data)):
        held, density = _familiar_of_root(data, flow, options)
        require_enough(len(held), alpha, density is None)
        return held, density
    held = options.split(data, split or "test", flow)
    require_enough(len(held), alpha, split == "all")
    return held, None if split == "all" else options.split(data, "train", flow, _most(flow))


def _familiar_of_root(
    data: Sequence[str], flow: GenerativeModel, options: opt.Options
) -> tuple[Dataset, Dataset | None]:
    """The same of a folder laid out as for anomalib: valid, or what watched the training, or all of train."""
    from mfimage.eval.verdict import learned_of, watched_of

    with suppress(NoSplitError):
        valid = options.split(data, "valid", flow)
        options.notes(["laid out as for anomalib: calibrated on valid"])
        return valid, options.split(data, "train", flow, _most(flow))
    images = options.split(data, "train", flow)
    watched = watched_of(images, flow)
    words = "which the model has not learned from" if watched is None else "of it what watched the training"
    options.notes([f"laid out as for anomalib: calibrated on train, {words}"])
    if watched is None:
        return images, None
    return watched, learned_of(images, flow).subset(slice(_most(flow)))


def _most(flow: GenerativeModel) -> int:
    return min(_DENSITY, _BYTES // math.prod(flow.shape))


def _names(images: Dataset) -> Sequence[str]:
    """The name of each image of a set; empty if they have none."""
    return getattr(images, "paths", ())


def _rows(drop: Sequence[str], images: Dataset) -> int | list[int]:
    """Read what is to be dropped: so many of the strangest, or the rows of images by their names."""
    if len(drop) == 1 and drop[0].isdecimal() and not Path(drop[0]).exists():
        return int(drop[0])
    names, rows = _names(images), []
    for wanted in drop:
        found = [row for row, name in enumerate(names) if name == wanted or name.endswith(f"/{wanted}")]
        if len(found) != 1:
            many = f"{len(found)} images are called so: write the path" if found else "no image is called so"
            raise UsageError(f"--drop {wanted}: {many} among those that are calibrated on")
        rows += found
    return rows
