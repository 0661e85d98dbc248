"""One table: every row on every strange set of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from harness import say
from strange import rows
from strange.measures import cell_of, flagged, matched_cell, proves_nothing
from strange.place import FITTED, Place
from strange.rows import AUTO, FREE
from strange.sets import Task
from torch import Tensor

from mfimage import Detector
from mfimage.ood.statistics import zlib_bits

Make = Callable[[], rows.Scorer]
Rows = dict[str, dict[str, dict[str, Any]]]  # cells by row and strange set


def table_of(task: Task, scorers: Sequence[Make]) -> dict[str, Any]:
    """Measure all rows on all strange sets, and `auto` where both sides are of the same bits too."""
    found: dict[str, Any] = {"rows": {}, "matched": {}, "notes": list(task.notes)}
    bits = {name: zlib_bits(x) for name, x in {"": task.fresh, **task.strange}.items()}
    for make in scorers:
        scorer = make()
        known, fresh = scorer(task.known), scorer(task.fresh)
        for name, x in task.strange.items():
            scores = scorer(x)
            for row in scores:
                cell = cell_of(known[row], fresh[row], scores[row], row == AUTO)
                found["rows"].setdefault(row, {})[name] = cell
            if AUTO in scores:
                sides = (fresh[AUTO], scores[AUTO]), (bits[""], bits[name])
                found["matched"][name] = matched_cell(*sides, known[AUTO])
        if AUTO in known:
            found["fresh_flagged"] = flagged(known[AUTO], fresh[AUTO])
        _tell(task.name, known, found["rows"])
    counts = {"calibration": len(task.known), "fresh": len(task.fresh), "counted": list(task.counted)}
    return {**found, **counts, "nothing": _nothing(found["rows"])}


def _nothing(cells: Rows) -> dict[str, dict[str, Any]]:
    """What the best row that costs nothing does on each strange set."""
    return {
        name: proves_nothing(cell, {row: cells[row][name]["auroc"] for row in FREE})
        for name, cell in cells[AUTO].items()
    }


def _tell(name: str, names: Iterable[str], cells: Rows) -> None:
    for row in names:
        areas = ", ".join(f"{kind} {cell['auroc']:.3f}" for kind, cell in cells[row].items())
        say(f"{name}, {row}: {areas}")


def scorers_of(
    place: Place, name: str, task: Task, detector: Callable[[], Detector], peers: Sequence[str]
) -> list[Make]:
    """Ours, rows that cost nothing, and the peers asked for; each is made when it is called."""

    def training() -> Tensor:
        return task.training.batch(slice(0, FITTED))

    def model() -> Any:
        return detector().model

    makes: dict[str, list[Make]] = {
        "formulas": [lambda: rows.formulas(model(), training())],
        "neighbours": [lambda: rows.neighbours(training(), model().dim)],
        "outliers": [lambda: rows.outliers(training(), model().dim)],
        "trained": [
            lambda: rows.autoencoder(place.train(task.training, name, "pae")),
            lambda: rows.likelihood(place.train(task.training, name, "af")),
        ],
    }
    chosen = [make for peer in peers for make in makes[peer]]
    return [lambda: rows.ours(detector()), lambda: rows.free(training()), *chosen]
