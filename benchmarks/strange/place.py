"""Where models and results are kept, and the models, detectors and sets that several parts share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness import BUDGETS, trained, training_config
from strange.sets import SETS, Task

from mfimage import Detector, from_pretrained
from mfimage.datasets import ImageSet

FITTED = 60_000  # training images that densities and neighbours are fitted on
ALPHA = 0.05  # for which detectors are calibrated; p-values give what is flagged at others
PEERS = ("formulas", "neighbours", "outliers", "trained")  # rows beside ours and those that cost nothing
FOLDERS = {"clothes": "fashion-mnist", "digits": "mnist", "faces": "celeba"}  # of models, by set


@dataclass(frozen=True)
class Place:
    """What the command line says."""

    folder: Path
    quick: bool = False
    time: float | None = None  # seconds of a training, in the place of `BUDGETS`
    class_time: float = 240.0  # of a training without one class
    mnist: Path | None = None
    cifar: Path | None = None
    families: Path | None = None
    model: str | None = None  # a run, in the place of the trained model of clothes
    data: tuple[str, ...] = ("clothes", "faces")  # sets of families, false alarms and speed
    peers: tuple[str, ...] = PEERS

    def run_of(self, name: str) -> Path:
        """The folder of our model of a set."""
        return self.folder / FOLDERS.get(name, name) / "m-flow"

    def seconds_of(self, name: str) -> float:
        """How long a model of a set is trained."""
        if self.quick:
            return BUDGETS["quick"]
        if name not in FOLDERS:
            return self.class_time
        return BUDGETS[FOLDERS[name]] if self.time is None else self.time

    def train(self, images: ImageSet, name: str, algorithm: str = "m-flow") -> Any:
        """Train a model of a set, or read it."""
        colour = images.shape[0] == 3
        config = training_config("celeba" if colour else "fashion-mnist", self.quick).with_(
            algorithm=algorithm
        )
        return trained(images, config, self.run_of(name).with_name(algorithm), self.seconds_of(name))[0]

    def asked(self, name: str) -> dict[str, Any]:
        """What results of a model hang on: another training, or other rows, make them be measured again."""
        spent = self.run_of(name) / "cpu_seconds.json"
        took = json.loads(spent.read_text()) if spent.exists() else None
        other = self.model if name == "clothes" else None
        return {"quick": self.quick, "model": other, "trained_cpu_seconds": None if other else took}


@cache
def task_of(place: Place, name: str) -> Task:
    """A set of `SETS`; LeftOutError if it cannot be had."""
    return SETS[name](place.quick, place.mnist)


@cache
def model_of(place: Place, name: str) -> Any:
    """Our model of a set, trained at first."""
    if name == "clothes" and place.model is not None:
        return from_pretrained(place.model)
    return place.train(task_of(place, name).training, name)


@cache
def detector_of(place: Place, name: str) -> Detector:
    """The detector of a set as it is."""
    return calibrated(model_of(place, name), task_of(place, name))


def calibrated(model: Any, task: Task) -> Detector:
    """Calibrate on what is known; the density is that of the training images."""
    few = task.training.subset(range(min(FITTED, len(task.training))))
    return Detector(model).calibrate(task.known, ALPHA, few)
