"""Results of an experiment with several algorithms: medians over runs, as table, JSON and page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mfimage.eval.page import Page, Part, Section
from mfimage.eval.table import ARROWS, DASH, Better, Cell, Column, Row, Table, mark_best, number

_DIGITS = 3  # significant ones that are shown


@dataclass(frozen=True)
class Metric:
    """What is measured: its name, its unit, which way is better."""

    name: str
    unit: str = ""
    better: Better = None


@dataclass(frozen=True)
class Runs:
    """One metric of one algorithm: a value a run, NaN where it diverged or has none; and the published."""

    values: tuple[float, ...]
    published: float | None = None

    @property
    def finite(self) -> tuple[float, ...]:
        """The values that are numbers."""
        return tuple(float(v) for v in self.values if math.isfinite(v))

    def summary(self) -> tuple[float, float, float]:
        """Median, least and greatest of the finite values, of five and more their 16 % and 84 % quantiles."""
        if not self.finite:
            return math.nan, math.nan, math.nan
        tail = 0.0 if len(self.finite) < 5 else 0.16
        median, low, high = np.quantile(self.finite, [0.5, tail, 1 - tail]).tolist()
        return median, low, high


@dataclass(frozen=True)
class ExperimentReport:
    """What an experiment found: its table and its page."""

    title: str
    sentence: str  # what was run
    settings: Mapping[str, object] = field(default_factory=dict)  # what was trained, on what, where
    metrics: Sequence[Metric] = ()  # columns of the table
    rows: Mapping[str, Mapping[str, Runs]] = field(default_factory=dict)  # by algorithm and metric
    diverged: Mapping[str, int] = field(default_factory=dict)  # runs by algorithm; none where it is not named
    figures: Sequence[Part] = ()
    notes: Sequence[str] = ()

    def trainings(self, algorithm: str) -> int:
        """How often an algorithm was trained."""
        found = self.rows[algorithm].values()
        return max([self.diverged.get(algorithm, 0), *(len(runs.values) for runs in found)])

    def as_json(self) -> dict[str, dict[str, list[float | None]]]:
        """Return {algorithm: {metric: [median, low, high]}}, with None for what is not a number."""
        return {
            algorithm: {
                name: [None if math.isnan(v) else v for v in runs.summary()] for name, runs in found.items()
            }
            for algorithm, found in self.rows.items()
        }

    def table(self) -> Table:
        """Put medians into a table, with spreads below them and published numbers beside them."""
        columns, cells = [Column("algorithm")], []
        for metric in self.metrics:
            columns.append(Column(metric.name + ARROWS.get(metric.better or "", ""), metric.unit))
            cells.append(self._medians(metric))
            published = [self._runs(algorithm, metric).published for algorithm in self.rows]
            if any(v is not None for v in published):
                columns.append(Column("", "published", cited=True))
                cells.append([Cell("" if v is None else f"{v:g}".replace("-", "−")) for v in published])
        rows = []
        for i, algorithm in enumerate(self.rows):
            lost = self.diverged.get(algorithm, 0)
            small = f"{lost} of {self.trainings(algorithm)} diverged" if lost else ""
            rows.append(Row(algorithm, [column[i] for column in cells], small))
        return Table(columns, rows, self._legend(any(column.cited for column in columns)))

    def page(self) -> Page:
        """Put the table, the plots and the pictures on a page."""
        best = []
        for metric in self.metrics:
            marks = zip(self.rows, self._medians(metric), strict=True)
            if names := [algorithm for algorithm, cell in marks if cell.best]:
                best.append(f"{metric.name} {', '.join(names)}")
        lead = self.sentence + (f" Best by {'; '.join(best)}." if best else "")
        numbers = self.table() if self.metrics and self.rows else None
        sections = [Section("Numbers", "", [numbers]), Section("Pictures", "", self.figures)]
        return Page(self.title, lead, sections, self.settings, self.notes)

    def _runs(self, algorithm: str, metric: Metric) -> Runs:
        return self.rows[algorithm].get(metric.name, Runs(()))

    def _medians(self, metric: Metric) -> list[Cell]:
        """A cell for each algorithm; those are best whose median reads as the best one does."""
        medians = [self._runs(algorithm, metric).summary()[0] for algorithm in self.rows]
        marks = mark_best(medians, metric.better, [number(v, _DIGITS) for v in medians])
        return [self._median(a, metric, mark) for a, mark in zip(self.rows, marks, strict=True)]

    def _median(self, algorithm: str, metric: Metric, best: bool) -> Cell:
        runs = self._runs(algorithm, metric)
        all_runs, lost = self.trainings(algorithm), self.diverged.get(algorithm, 0)
        if not runs.finite:
            return Cell("diverged" if lost == all_runs > 0 else DASH)
        median, *ends = runs.summary()
        low, high = (number(end, _DIGITS, abs(median)) for end in ends)
        between = f" {DASH} " if "−" in low + high else DASH
        spread = f"{low}{between}{high}" if len(runs.finite) > 1 else ""
        # A run that went well may still lack one number, which its row does not say.
        note = f"{len(runs.finite)} of {all_runs} runs" if len(runs.finite) < all_runs - lost else ""
        return Cell(number(median, _DIGITS), best, tuple(filter(None, (spread, note))))

    def _legend(self, published: bool) -> str:
        """Say how the table is read."""
        most = max(map(self.trainings, self.rows), default=0)
        spread = "the lowest and the highest"
        if most >= 5:
            spread = f"16 % to 84 % of them, or where fewer than five are left {spread}"
        words = [f"Median of {most} runs; below it {spread}." if most > 1 else "One run each."]
        if any(self.diverged.values()):
            words.append("Runs that diverged are counted under the name and have no part in the numbers.")
        words.append("↑ higher is better, ↓ lower is better; the best of each column is bold.")
        return " ".join([*words, "Grey: as published."] if published else words)
