"""What is asked, and whether it was found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from denoisers.sets import GAUSSIAN, PHOTONS, Task

from mfimage.eval.numbers import Interval, mean_interval

Cells = dict[str, dict[str, Any]]  # of a row, by noise
Bar = tuple[str, float, Interval, bool]  # what, asked, found, and whether it is asked at least (or at most)

LEVELS = tuple(str(noise) for noise in GAUSSIAN)
CLOTHES = {"0.05": 32.3, "0.1": 28.2, "0.2": 24.1, "0.3": 21.9, "0.5": 19.3}  # dB of auto
PROJECTION = {"0.2": 21.0, "0.3": 20.5, "0.5": 18.7}  # dB, clothes


def summary(cells: Cells, rows: dict[str, Cells]) -> Cells:
    """Replace the PSNR of each image by mean, interval, count, and gains: over noisy, and of auto over it.

    Gains are means over the images that both rows have.
    """
    found = {}
    for noise, cell in cells.items():
        mean, low, high = mean_interval(torch.tensor(cell["psnr"]))
        numbers = {"psnr": mean, "low": low, "high": high}
        if noise in rows.get("noisy", {}):
            numbers["over_noisy"] = gain(cell, rows["noisy"][noise]).value
        if noise in rows.get("auto", {}):
            ahead = gain(rows["auto"][noise], cell)
            numbers |= {"auto_over": ahead.value, "auto_over_low": ahead.low}
        rounded = {name: round(value, 3) for name, value in numbers.items()}
        found[noise] = {**cell, **rounded, "images": len(cell["psnr"])}
    return found


def gain(one: dict[str, Any], other: dict[str, Any]) -> Interval:
    """Mean gain in dB of one cell over another, on the images that both have, with its 95 % interval."""
    count = min(len(one["psnr"]), len(other["psnr"]))
    return mean_interval(torch.tensor(one["psnr"][:count]) - torch.tensor(other["psnr"][:count]))


def bars(
    task: Task, rows: dict[str, Cells], facts: Cells, seconds: float | None
) -> dict[str, dict[str, Any]]:
    """Compare with what is asked of a set, as far as it is measured: name → asked, found, met."""
    found = {}
    for name, asked, interval, least in _all(task, rows, facts, seconds):
        met = interval.value >= asked if least else interval.value <= asked
        sign = "≥" if least else "≤"
        value, low, high = (float(f"{number:.4g}") for number in interval)
        found[name] = {"asked": f"{sign} {asked:g}", "found": value, "met": met}
        if low != high:
            found[name] |= {"low": low, "high": high}
    return found


def _all(task: Task, rows: dict[str, Cells], facts: Cells, seconds: float | None) -> Iterator[Bar]:
    if seconds is not None:
        yield "CPU seconds of training", task.budget, _exact(seconds), False
    if task.name.startswith("fashion"):
        yield from _levels(rows, "auto", CLOTHES)
        yield from _better(rows, "auto", "CNN", dict.fromkeys(LEVELS, 0.0))
        yield from _levels(rows, "projection", PROJECTION)
    if task.name == "celeba":
        yield from _better(rows, "auto", "BM3D", {**dict.fromkeys(LEVELS, 0.0), "0.05": -0.3})
    yield from _better(rows, "auto blind", "auto", dict.fromkeys(LEVELS, -0.15))
    for name in ("auto", "auto blind"):
        yield from _better(rows, name, "BM3D", {str(noise): 0.0 for noise in PHOTONS})
    if "0.1" in rows.get("auto", {}) and "0.1" in rows.get("BM3D", {}):
        ratio = rows["BM3D"]["0.1"]["seconds"] / rows["auto"]["0.1"]["seconds"]
        yield "CPU seconds of BM3D over those of auto", 20.0, _exact(ratio), True
    yield from _of_facts(facts)


def _exact(value: float) -> Interval:
    return Interval(value, value, value)


def _levels(rows: dict[str, Cells], name: str, asked: dict[str, float]) -> Iterator[Bar]:
    """PSNR of a row."""
    for noise, level in asked.items():
        if noise in rows.get(name, {}):
            yield (
                f"{name}, dB at {noise}",
                level,
                mean_interval(torch.tensor(rows[name][noise]["psnr"])),
                True,
            )


def _better(rows: dict[str, Cells], name: str, other: str, asked: dict[str, float]) -> Iterator[Bar]:
    """Gain of a row over another."""
    for noise, level in asked.items():
        if noise in rows.get(name, {}) and noise in rows.get(other, {}):
            yield (
                f"{name} over {other}, dB at {noise}",
                level,
                gain(rows[name][noise], rows[other][noise]),
                True,
            )


def _of_facts(facts: Cells) -> Iterator[Bar]:
    for noise, one in facts.items():
        for name in ("false_alarms", "false_alarms_cut"):
            yield f"{name.replace('_', ' ')} at {noise}", 0.02, _exact(one[name]), False
        yield f"off the manifold after projection at {noise}", 1e-4, _exact(one["off_manifold"]), False
        for name, share, leeway in (("within_1", 0.68, 0.04), ("within_2", 0.95, 0.03)):
            if name in one:
                off = abs(one[name] - share)
                yield (
                    f"|coverage − {share:g}| {name.replace('_', ' ')} at {noise}",
                    leeway,
                    _exact(off),
                    False,
                )
