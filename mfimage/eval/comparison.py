"""Evaluations side by side, ranked as far as they can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfimage.datasets.sets import Dataset
from mfimage.errors import DataError, UsageError
from mfimage.eval.numbers import Evaluation, Number
from mfimage.eval.page import Page, Section, strip, write_labelled_sheet
from mfimage.eval.table import DASH, Cell, Column, Row, Table, marked
from mfimage.files import write_json, write_text
from mfimage.models import GenerativeModel, ways_to_sample

SHOWN = 12  # images in a row of the sheet
_HEADLINES = ("psnr", "fid", "fd-scattering")  # whose best models the page names first
_VOLUME = (
    "each density is per volume of its own manifold, so the numbers of different models have different units "
    "even at equal d"
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Evaluations by the name of their model, on the same images by the same protocol."""

    reports: Mapping[str, Evaluation]
    pictures: Mapping[str, Tensor] = field(default_factory=dict)  # rows (n, C, H, W) by name, for the sheet

    @property
    def names(self) -> list[str]:
        """Of all numbers, in the order of the reports."""
        return list(dict.fromkeys(name for report in self.reports.values() for name in report.numbers))

    def numbers(self, name: str) -> dict[str, Number]:
        """One number of each model that has it."""
        return {run: r.numbers[name] for run, r in self.reports.items() if name in r.numbers}

    def why_unranked(self, name: str) -> str:
        """Say why models cannot be ranked by a number; empty if they can."""
        found = self.numbers(name)
        if name.startswith("log_prob"):
            return _VOLUME
        if any(n.better is None for n in found.values()):
            return "neither more nor less of it is better"
        if len({n.n for n in found.values()}) > 1:
            return "measured on different numbers of images"
        own = {run: report.model["sha256"][:12] for run, report in self.reports.items()}
        if len({n.weights for run, n in found.items() if n.weights != own[run]}) > 1:
            return "measured with different weights of the feature network"
        return ""

    def ranking(self, by: str) -> list[tuple[str, float]]:
        """Rank the models by a number, best first.

        Raises:
            UsageError: If no model can be ranked by it; a density never.
            DataError: If a model was not measured by it.
        """
        if by == "density":
            by = "log_prob"
        if by not in self.names and by != "log_prob":
            raise UsageError(f"models are compared by {', '.join(self._ranked())}, not by {by!r}")
        if reason := self.why_unranked(by):
            dims = ", ".join(f"{run}: d = {report.model['dim']}" for run, report in self.reports.items())
            raise UsageError(f"models cannot be ranked by {by} ({dims}): {reason}")
        found = self.numbers(by)
        if missing := [run for run in self.reports if run not in found]:
            skipped = self.reports[missing[0]].skipped
            reasons = [f": {reason}" for metric, reason in skipped.items() if by.startswith(metric)]
            raise DataError(f"{missing[0]}: was not measured by {by}{''.join(reasons[:1])}")
        sign = 1 if next(iter(found.values())).better == "lower" else -1
        return sorted(((run, n.value) for run, n in found.items()), key=lambda row: sign * row[1])

    def best(self, name: str) -> list[str]:
        """The best model by a number, and those whose intervals reach that of the best."""
        return [run for run, cell in zip(self.reports, self._cells(name), strict=True) if cell.best]

    def table(self) -> Table:
        """Put the numbers into a table: on how many images each was measured, and each model's value."""
        rows = []
        for name in self.names:
            found = list(self.numbers(name).values())
            counts = sorted({n.n for n in found})
            ends = DASH.join(f"{n:,}" for n in dict.fromkeys([counts[0], counts[-1]]))
            rows.append(Row(found[0].label(name), [Cell(ends), *self._cells(name)]))
        return Table([Column(name) for name in ("", "N", *self.reports)], rows)

    def _cells(self, name: str) -> list[Cell]:
        found = self.numbers(name)
        values = [found[run].value if run in found else None for run in self.reports]
        intervals = [found[run].interval if run in found else None for run in self.reports]
        better = None if self.why_unranked(name) else next((n.better for n in found.values()), None)
        return marked(values, better, intervals)

    def notes(self) -> list[str]:
        """What must be read with the table."""
        first = next(iter(self.reports.values()))
        data, rules = first.data, first.protocol
        unranked: dict[str, list[str]] = {}
        for name in self.names:
            if reason := self.why_unranked(name):
                unranked.setdefault(reason, []).append(name)
        sizes = ", ".join(f"{run} {r.model['parameters']:,}" for run, r in self.reports.items())
        notes = [
            f"protocol {rules['name']}: {rules['says']}",
            f"{data['test']['count']:,} held-out images {data['test']['sha256'][:12]}; parameters: {sizes}",
            "marked: the best, and those whose 95 % intervals meet the best's",
        ]
        notes += [f"not ranked: {', '.join(names)}: {reason}" for reason, names in unranked.items()]
        for run, report in self.reports.items():
            notes += [f"{run}: no {name}: {why}" for name, why in report.skipped.items()]
        return notes

    def as_json(self) -> dict[str, Any]:
        """Return what json.dump takes."""
        rankings = {name: [{"run": r, "value": v} for r, v in self.ranking(name)] for name in self._ranked()}
        reports = {run: report.as_json() for run, report in self.reports.items()}
        return {"reports": reports, "rankings": rankings, "notes": self.notes()}

    def text(self) -> str:
        """Write it as a table for a terminal, the best marked by a star."""
        return "\n".join([self.table().text(), *self.notes()])

    def markdown(self) -> str:
        """Write it as a Markdown table, the best in bold, and notes."""
        return "\n".join([self.table().markdown(), "", *(f"- {note}" for note in self.notes())])

    def page(self) -> Page:
        """Put the table and the rows of pictures on a page."""
        lead = f"{', '.join(self.reports)}, on the same images."
        for name in _HEADLINES:
            best = self.best(name)
            if len(best) == len(self.reports):
                lead += f" Not told apart by {name}."
            elif best:
                lead += f" Best by {name}: {', '.join(best)}."
        numbers = Section("Numbers", "", [self.table()])
        pictures = Section("Pictures", "Unselected.", [strip(self.pictures)])
        return Page("Models side by side", lead, [numbers, pictures], notes=self.notes())

    def save(self, outdir: str | Path) -> Path:
        """Write comparison.json, .md, .html, and, of pictures, sheet.png; return the page's path."""
        outdir = Path(outdir)
        write_json(outdir / "comparison.json", self.as_json())
        write_text(outdir / "comparison.md", self.markdown() + "\n")
        if self.pictures:
            write_labelled_sheet(outdir / "sheet.png", self.pictures)
        return self.page().write(outdir / "comparison.html")

    def _ranked(self) -> list[str]:
        """Numbers that every model has and can be ranked by."""
        everywhere = [name for name in self.names if len(self.numbers(name)) == len(self.reports)]
        return [name for name in everywhere if not self.why_unranked(name)]


def picture_rows(models: Mapping[str, GenerativeModel], test: Dataset, seed: int) -> dict[str, Tensor]:
    """Rows of images for the sheet: those that `evaluate` shows of a seed; reconstructions; samples."""
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    x = test.batch(order[:SHOWN])
    rows = {"held-out images": x}
    for name, model in models.items():
        if model.has_manifold:
            with torch.no_grad():
                rows[f"{name}: reconstructions"] = model.project(x.to(model.device)).cpu()
    for name, model in models.items():
        if not model.conditional:
            for way, detail in ways_to_sample(model.noise_aware).items():
                drawn = model.sample(SHOWN, torch.Generator().manual_seed(seed), detail=detail)
                rows[f"{name}: {way}"] = drawn.cpu()
    return {name: images.clamp(0, 1) for name, images in rows.items()}


def compare(reports: Mapping[str, Evaluation], pictures: Mapping[str, Tensor] | None = None) -> Comparison:
    """Put evaluations side by side.

    Densities are never ranked: each model's is per d-dimensional volume of its own manifold. On another
    manifold, or at another d, the number has another unit, and no zero in common; a thinner manifold would
    win by being thin. Under one model they compare images; between models, compare reconstructions, samples
    or scores.

    Args:
        reports: What `evaluate` gave, by the model's name.
        pictures: Rows of images (n, C, H, W) by name, for the sheet.

    Raises:
        UsageError: If there is none.
        DataError: If the models were measured on different images, or by different protocols.
    """
    if not reports:
        raise UsageError("nothing to compare: name at least one evaluated run")
    if len({report.data["test"]["sha256"] for report in reports.values()}) > 1:
        raise DataError(f"{', '.join(reports)}: were measured on different images; evaluate them on the same")
    protocols = {name: report.protocol["name"] for name, report in reports.items()}
    if len(set(protocols.values())) > 1:
        told = ", ".join(f"{name} by {rules}" for name, rules in protocols.items())
        raise DataError(f"measured by different protocols: {told}; evaluate them by the same")
    return Comparison(dict(reports), dict(pictures or {}))
