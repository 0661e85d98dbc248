"""What is asked, and whether it was found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from strange.rows import AUTO
from strange.sets import MIRRORED

Found = dict[str, dict[str, dict[str, Any]]]  # by part and step

CLOTHES = {"mean": 0.992, "worst": 0.97}  # AUROC over the list of nine
MNIST = 0.999
LEAVE_OUT = 0.8  # mean AUROC over the classes
FACES = {"upside down": 0.92, "blurred": 0.99, "blends of two": 0.80, "contrast × 0.6": 0.90}
TREATED_FACES = {"Tiny-ImageNet": 0.985}
INSIDE = (14, 15)  # of rates of false alarms, inside of what chance allows
FLAGGED = {"uniform noise": 0.95, "MNIST": 0.99, "upside down": 0.70}  # of clothes, at α = 1 %
RATES = {"clothes": 300, "faces": 40}  # images a CPU second


class Bar(NamedTuple):
    """What is asked at least, and what was found; None where it is not measured."""

    name: str
    asked: float
    found: float | None

    @property
    def met(self) -> bool | None:
        """Whether it was found; None where it is not measured."""
        return None if self.found is None else self.found >= self.asked


def mean_and_worst(cells: dict[str, dict[str, Any]], counted: list[str]) -> tuple[float, float]:
    """Mean and least AUROC of a row over the sets that count; NaN where there are none."""
    areas = [cells[name]["auroc"] for name in counted if name in cells and name != MIRRORED]
    return (float(np.mean(areas)), min(areas)) if areas else (float("nan"), float("nan"))


def bars(found: Found) -> list[Bar]:
    """Compare with all that is asked, in the order of the list."""
    return [
        *_clothes(found),
        *_faces(found),
        *_classes(found),
        *_alarms(found),
        *_power(found),
        *_rates(found),
    ]


def auto_of(found: Found, part: str, step: str) -> dict[str, dict[str, Any]]:
    """The cells of `auto` by strange set; none where the part is not measured."""
    return found.get(part, {}).get(step, {}).get("rows", {}).get(AUTO, {})


def areas_of_classes(found: Found, part: str, row: str) -> dict[str, float]:
    """AUROC of a row, as PCA's dimension may follow its name, by the class that was left out."""
    areas = {}
    for kind, one in found.get(part, {}).items():
        for name, cells in one.get("rows", {}).items():
            if name == row or name.startswith(f"{row}, PCA-"):
                areas[kind] = cells[kind]["auroc"]
    return areas


def _area(cells: dict[str, dict[str, Any]], name: str) -> float | None:
    return cells[name]["auroc"] if name in cells else None


def _clothes(found: Found) -> Iterator[Bar]:
    cells = auto_of(found, "clothes", "clothes")
    counted = found.get("clothes", {}).get("clothes", {}).get("counted", [])
    whole = len(counted) == 9  # without digits it is another list
    values = mean_and_worst(cells, counted) if whole else (None, None)
    for (name, asked), value in zip(CLOTHES.items(), values, strict=True):
        yield Bar(f"clothes, {name} AUROC of nine", asked, value)
    yield Bar("clothes, AUROC of MNIST", MNIST, _area(cells, "MNIST"))


def _faces(found: Found) -> Iterator[Bar]:
    for part, said, asked in (
        ("faces-treated", ", all treated alike", TREATED_FACES),
        ("faces", "", FACES),
    ):
        cells = auto_of(found, part, "faces")
        for name, area in asked.items():
            yield Bar(f"faces, AUROC of {name}{said}", area, _area(cells, name))


def _classes(found: Found) -> Iterator[Bar]:
    areas = areas_of_classes(found, "leave-out", AUTO)
    mean = float(np.mean(list(areas.values()))) if len(areas) == 10 else None
    yield Bar("clothes, mean AUROC of ten classes left out", LEAVE_OUT, mean)


def inside_of(found: Found, name: str) -> list[bool]:
    """Whether each rate of false alarms of a set lies inside of what chance allows."""
    steps = found.get("false-alarms", {})
    every = [one for step, one in steps.items() if step.rpartition("-")[0] == name and "alphas" in one]
    return [cell["inside"] for one in every for cell in one["alphas"].values() if cell is not None]


def _alarms(found: Found) -> Iterator[Bar]:
    asked, of = INSIDE
    for name in RATES:
        inside = inside_of(found, name)
        value = float(sum(inside)) if len(inside) == of else None
        yield Bar(f"{name}, rates of false alarms inside their interval, of {of}", asked, value)


def _power(found: Found) -> Iterator[Bar]:
    cells = auto_of(found, "clothes", "clothes")
    for name, share in FLAGGED.items():
        value = cells[name]["flagged"]["0.01"] if name in cells else None
        yield Bar(f"clothes, share of {name} flagged at α = 1 %", share, value)


def _rates(found: Found) -> Iterator[Bar]:
    for name, rate in RATES.items():
        value = found.get("speed", {}).get(name, {}).get("rate")
        yield Bar(f"{name} a CPU second", rate, value)
