"""What `ood.py` measures, part by part, in steps that are kept one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from harness import LeftOutError, say
from strange.families import read_families
from strange.measures import expected_alarms
from strange.place import FITTED, Place, calibrated, detector_of, model_of, task_of
from strange.sets import Task, cifar10, named, without
from strange.tables import scorers_of, table_of

from mfimage import Detector
from mfimage.datasets import ImageSet
from mfimage.files import file_hash, read_json, write_json
from mfimage.ood.verdicts import power

SEEDS = 5  # of the test of false alarms
ALARMS_FITTED = 20_000  # training images that a density of that test is fitted on
TREATED = "-treated"


@dataclass(frozen=True)
class Step:
    """One file of results."""

    part: str
    name: str
    asked: Callable[[], dict[str, Any]]  # what the results hang on
    measure: Callable[[], dict[str, Any]]

    def found(self, place: Place, anew: bool = False) -> dict[str, Any]:
        """Measure it and keep it, or read what is kept of the same; says why it is left out, as a result."""
        path = place.folder / "found" / self.part / f"{self.name}.json"
        if path.exists() and not anew:
            stored = read_json(path)
            if stored["asked"] == self.asked() and "left_out" not in stored["found"]:
                say(f"{self.part}, {self.name}: kept in {path}")
                return stored["found"]
        try:
            found = self.measure()
        except LeftOutError as reason:
            say(f"{self.part}, {self.name}: left out: {reason}")
            found = {"left_out": str(reason)}
        write_json(path, {"asked": self.asked(), "found": found})
        return found


def tables(place: Place, name: str) -> Iterator[Step]:
    """A set as it is, by all rows."""

    def measure() -> dict[str, Any]:
        task = task_of(place, name)
        scorers = scorers_of(place, name, task, partial(detector_of, place, name), place.peers)
        components = len(detector_of(place, name).calibration.evidence.mixture.weights)
        return {**table_of(task, scorers), "components": components}

    yield Step(name, name, lambda: {**place.asked(name), "peers": list(place.peers)}, measure)


def treated_tables(place: Place, name: str) -> Iterator[Step]:
    """A set after the same resampling and JPEG of all sides; the model is the same, the detector is not."""

    def measure() -> dict[str, Any]:
        task = task_of(place, name).treated(FITTED)
        detector = calibrated(model_of(place, name), task)
        return table_of(task, scorers_of(place, name, task, lambda: detector, ["neighbours"]))

    yield Step(name + TREATED, name, lambda: place.asked(name), measure)


def leave_out(place: Place, part: str, sets: Callable[[], tuple[ImageSet, ImageSet]]) -> Iterator[Step]:
    """Each class of a labelled set in turn: learned without it, and told from the others."""
    try:
        training, test = sets()
    except LeftOutError as reason:
        said = {"left_out": str(reason)}
        say(f"{part}: left out: {reason}")
        yield Step(part, "all", dict, lambda: said)
        return
    classes = {"classes": list(training.classes)}
    yield Step(part, "all", lambda: classes, dict)  # in the place of an earlier reason
    if place.quick:
        training = training.subset(range(1000))
    for kind, name in list(enumerate(training.classes))[: 1 if place.quick else None]:
        model = f"{training.name}-without-{name.replace(' ', '-')}"

        def measure(kind: int = kind, name: str = name, model: str = model) -> dict[str, Any]:
            task = without(training, test, kind, name)
            detector = calibrated(place.train(task.training, model), task)
            return table_of(task, scorers_of(place, model, task, lambda: detector, ["neighbours"]))

        yield Step(part, name, partial(place.asked, model), measure)


def false_alarms(place: Place) -> Iterator[Step]:
    """How many fresh familiar images are flagged, beside what chance allows, by set and seed."""
    for name in place.data:
        for seed in range(2 if place.quick else SEEDS):

            def measure(name: str = name, seed: int = seed) -> dict[str, Any]:
                return alarms_of(model_of(place, name), task_of(place, name), seed)

            yield Step("false-alarms", f"{name}-{seed}", partial(place.asked, name), measure)


def alarms_of(model: Any, task: Task, seed: int) -> dict[str, Any]:
    """Divide familiar images and draw training images by a seed, calibrate on one half, judge the other.

    Given the images, such divisions are independent, and each count follows its Beta-binomial law exactly.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.cat([task.known, task.fresh])
    known, fresh = images[torch.randperm(len(images), generator=generator)].chunk(2)
    few = task.training.subset(torch.randperm(len(task.training), generator=generator)[:ALARMS_FITTED])
    detector = Detector(model).calibrate(known, 0.05, few, seed)
    shares, found = power(detector.calibration.scores, detector.score(fresh).scores), {}
    for alpha, share in shares.items():
        if share is None:
            found[f"{alpha:g}"] = None
            continue
        low, high = expected_alarms(len(known), len(fresh), alpha)
        count = round(share * len(fresh))
        found[f"{alpha:g}"] = {"count": count, "low": low, "high": high, "inside": low <= count <= high}
    return {"alphas": found, "calibration": len(known), "fresh": len(fresh)}


def families(place: Place) -> Iterator[Step]:
    """Families of a file, on each set."""
    if place.families is None:
        return
    path, said = place.families, read_families(place.families)
    digest = file_hash(path)
    for name in place.data:

        def measure(name: str = name) -> dict[str, Any]:
            task = task_of(place, name).with_families(said)
            if not task.strange:
                raise LeftOutError("; ".join(task.notes))
            scorers = scorers_of(place, name, task, partial(detector_of, place, name), ["neighbours"])
            words = {key: str(family) for key, family in said.items()}
            return {**table_of(task, scorers), "families": words, "sha256": digest}

        asked = partial(lambda name: {**place.asked(name), "families": digest}, name)
        yield Step("families", f"{path.stem}-{name}", asked, measure)


def speed(place: Place) -> Iterator[Step]:
    """How many images of a set `auto` judges in a CPU second, on one thread."""
    for name in place.data:

        def measure(name: str = name) -> dict[str, Any]:
            detector, x = detector_of(place, name), task_of(place, name).fresh[:2000]
            detector.score(x[:64])
            began = time.process_time()
            detector.score(x)
            return {"images": len(x), "rate": len(x) / (time.process_time() - began)}

        yield Step("speed", name, partial(place.asked, name), measure)


def _labelled(place: Place) -> tuple[ImageSet, ImageSet]:
    name = "fashion-mini" if place.quick else "fashion-mnist"
    return named(name, "train"), named(name, "test")


PARTS: dict[str, Callable[[Place], Iterator[Step]]] = {
    **{name: partial(tables, name=name) for name in ("clothes", "digits", "faces")},
    **{name + TREATED: partial(treated_tables, name=name) for name in ("clothes", "digits", "faces")},
    "leave-out": lambda place: leave_out(place, "leave-out", lambda: _labelled(place)),
    "cifar": lambda place: leave_out(place, "cifar", lambda: cifar10(place.cifar)),
    "false-alarms": false_alarms,
    "families": families,
    "speed": speed,
}
