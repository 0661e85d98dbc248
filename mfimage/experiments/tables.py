"""An experiment of several algorithms: its table as a page with pictures, as text and as JSON."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mfimage.errors import DataError
from mfimage.eval.page import COLUMN, data_uri, render, settings_text
from mfimage.eval.table import DASH, number
from mfimage.files import write_text

ARROWS = {"lower": " ↓", "higher": " ↑"}


@dataclass(frozen=True)
class Metric:
    """What is measured: its name, its unit, which way is better, how many significant digits are shown."""

    name: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    digits: int = 3


@dataclass(frozen=True)
class Cell:
    """One metric of one algorithm: a value a run, NaN where it diverged or has none; and the published."""

    values: tuple[float, ...]
    published: float | None = None

    @property
    def finite(self) -> tuple[float, ...]:
        """The values that are numbers."""
        return tuple(float(v) for v in self.values if math.isfinite(v))

    @property
    def diverged(self) -> int:
        """How many runs gave no number."""
        return len(self.values) - len(self.finite)

    @property
    def median(self) -> float:
        """The median of the finite values; NaN without one."""
        return self._quantile(0.5)

    @property
    def low(self) -> float:
        """The least finite value; of five and more their 16 % quantile."""
        return self._quantile(0.0 if len(self.finite) < 5 else 0.16)

    @property
    def high(self) -> float:
        """The greatest finite value; of five and more their 84 % quantile."""
        return self._quantile(1.0 if len(self.finite) < 5 else 0.84)

    def _quantile(self, share: float) -> float:
        return float(np.quantile(self.finite, share)) if self.finite else math.nan


@dataclass(frozen=True)
class Figure:
    """A picture, its title, and what it shows.

    Args:
        title: Above the picture, and instead of it where it cannot be seen.
        caption: Below it.
        png: Two pixels to a CSS pixel.
        pixelated: Whether it is rather a sheet of small images, shown as large as the page permits, with
            every pixel sharp.
    """

    title: str
    caption: str
    png: bytes
    pixelated: bool = False


@dataclass(frozen=True)
class ExperimentReport:
    """What the page shows; an empty part is left out.

    Args:
        title: Of the page.
        sentence: The results in one sentence.
        settings: What was trained, on what, where.
        metrics: Columns of the table.
        rows: By the name of an algorithm, its cells by the name of their metric.
        diverged: How many runs of an algorithm diverged; none where it is not named.
        figures: Pictures, in order.
        notes: What else the reader must know.
    """

    title: str
    sentence: str
    settings: Mapping[str, object] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()
    rows: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)
    diverged: Mapping[str, int] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()

    def runs(self, algorithm: str) -> int:
        """How often an algorithm was trained."""
        cells = self.rows[algorithm].values()
        return max([self.diverged.get(algorithm, 0), *(len(cell.values) for cell in cells)])


def write_experiment(path: str | Path, report: ExperimentReport) -> Path:
    """Write the page: self-contained, without scripts, and never half a file.

    Args:
        path: Where to.
        report: What to show.

    Returns:
        The path.

    Raises:
        DataError: A figure is not a PNG.
        ResourceError: The disk is full.
    """
    values = {
        "report": report,
        "arrows": ARROWS,
        "rows": _rows(report) if report.metrics else [],
        "runs": max(map(report.runs, report.rows), default=0),
        "published": {m.name for m in report.metrics if _any_published(report, m)},
        "figures": [_picture(figure) for figure in report.figures],
        "settings": settings_text(report.settings),
    }
    return write_text(path, render("experiment.html", values))


def table_json(report: ExperimentReport) -> dict[str, dict[str, list[float | None]]]:
    """Return the table as {algorithm: {metric: [median, low, high]}}, with None for what is not a number."""
    return {
        algorithm: {
            name: [None if math.isnan(v) else v for v in (cell.median, cell.low, cell.high)]
            for name, cell in cells.items()
        }
        for algorithm, cells in report.rows.items()
    }


def table_text(report: ExperimentReport) -> str:
    """Return the table in aligned columns: medians, published numbers in brackets, spreads below."""
    lines = [["algorithm"], [""]]
    for metric in report.metrics:
        lines[0] += [metric.name + ARROWS.get(metric.better or "", ""), ""]
        lines[1] += [metric.unit, ""]
    for algorithm, lost, cells in _rows(report):
        lines.append([algorithm])
        lines.append([f"  {lost}" if lost else ""])
        for cell in cells:
            lines[-2] += [cell.median, f"[{cell.published}]" if cell.published else ""]
            lines[-1] += [", ".join(filter(None, (cell.spread, cell.note))), ""]
    return _aligned([line for line in lines if any(line)])


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Put cells under each other: the first column and every other after it flush left, the rest right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for line in lines:
        parts = [line[0].ljust(widths[0])]
        for i, cell in enumerate(line[1:], 1):
            gap = "  " if i % 2 else " " * bool(widths[i])
            parts.append(gap + (cell.rjust(widths[i]) if i % 2 else cell.ljust(widths[i])))
        text.append("".join(parts).rstrip())
    return "\n".join(text)


# Cells as text


@dataclass(frozen=True)
class _Shown:
    median: str
    spread: str
    published: str
    note: str
    best: bool


def _rows(report: ExperimentReport) -> list[tuple[str, str, list[_Shown]]]:
    """Name of each algorithm, how many of its runs diverged, and its cells in the order of the metrics."""
    best = {metric.name: _best(report, metric) for metric in report.metrics}
    rows = []
    for algorithm in report.rows:
        lost, runs = report.diverged.get(algorithm, 0), report.runs(algorithm)
        cells = [_shown(report, algorithm, m, algorithm in best[m.name]) for m in report.metrics]
        rows.append((algorithm, f"{lost} of {runs} diverged" if lost else "", cells))
    return rows


def _shown(report: ExperimentReport, algorithm: str, metric: Metric, best: bool) -> _Shown:
    cell = report.rows[algorithm].get(metric.name, Cell(()))
    runs, lost = report.runs(algorithm), report.diverged.get(algorithm, 0)
    published = "" if cell.published is None else f"{cell.published:g}".replace("-", "−")
    if not cell.finite:
        return _Shown("diverged" if lost == runs > 0 else DASH, "", published, "", False)
    low, high = (number(v, metric.digits, abs(cell.median)) for v in (cell.low, cell.high))
    between = f" {DASH} " if "−" in low + high else DASH
    # A run that went well may still lack one number, which its row does not say.
    note = f"{len(cell.finite)} of {runs} runs" if len(cell.finite) < runs - lost else ""
    spread = f"{low}{between}{high}" if len(cell.finite) > 1 else ""
    return _Shown(number(cell.median, metric.digits), spread, published, note, best)


def _best(report: ExperimentReport, metric: Metric) -> set[str]:
    """Algorithms whose median reads as the best one does; none where all read the same."""
    medians = {a: cells[metric.name].median for a, cells in report.rows.items() if metric.name in cells}
    found = {a: v for a, v in medians.items() if not math.isnan(v)}
    if metric.better is None or not found:
        return set()
    texts = {a: number(v, metric.digits) for a, v in found.items()}
    first = min(found, key=lambda a: found[a] if metric.better == "lower" else -found[a])
    best = {a for a, text in texts.items() if text == texts[first]}
    return best if len(best) < len(texts) else set()


def _any_published(report: ExperimentReport, metric: Metric) -> bool:
    cells = (cells.get(metric.name) for cells in report.rows.values())
    return any(cell is not None and cell.published is not None for cell in cells)


def _picture(figure: Figure) -> dict[str, Any]:
    try:
        with Image.open(io.BytesIO(figure.png), formats=["PNG"]) as picture:
            picture.load()
    except (OSError, SyntaxError) as error:
        raise DataError(f"the figure {figure.title!r} of the page is not a readable PNG: {error}") from error
    width = picture.width
    shown = width * max(COLUMN // width, 1) if figure.pixelated else width // 2
    return {"figure": figure, "uri": data_uri(figure.png), "size": picture.size, "shown": min(shown, COLUMN)}
