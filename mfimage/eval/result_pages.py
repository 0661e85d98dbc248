"""Pages on an evaluation and on a comparison: self-contained HTML, no scripts; and the sheet of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from mfimage.datasets.pictures import save_png, sheet
from mfimage.eval.numbers import Evaluation
from mfimage.eval.page import picture, render
from mfimage.files import write_text

if TYPE_CHECKING:
    from mfimage.eval.comparison import Comparison

_HEAD = ("", "value", "95 % interval", "N", "beside")


def write_evaluation(path: str | Path, report: Evaluation, name: str) -> Path:
    """Write the page of one model's numbers and unselected pictures, whole or not at all; return its path.

    Args:
        path: Where to.
        report: The evaluation.
        name: Of the model.

    Raises:
        ResourceError: The file cannot be written.
    """
    data, model, seed = report.data, report.model, report.asked.get("seed", 0)
    lead = (
        f"{len(report.numbers)} numbers of a model of {model['dim']} dimensions and {model['parameters']:,} "
        f"parameters on {data['test']['count']:,} held-out images."
    )
    settings = {
        "weights": report.weights_text(), "kind": model["kind"],
        "held-out images": f"{data['test']['count']:,}, sha256 {data['test']['sha256']}",
        "training images": f"{data['train']['count']:,}, sha256 {data['train']['sha256']}",
        "protocol": f"{report.protocol['name']}: {report.protocol['says']}", "seed": seed,
    }  # fmt: skip
    values = {
        "title": f"Evaluation of {name}", "lead": lead, "head": _HEAD,
        "rows": [
            [(row.name, False), *((c.text, c.best) for c in row.cells), (row.words, False)]
            for row in report.table().rows
        ],
        "below": "Intervals say how far a number would move with other images, not with another training.",
        "pictures": _pictures(report.pictures, seed), "settings": settings,
        "report": {"notes": [f"no {metric}: {reason}" for metric, reason in report.skipped.items()]},
    }  # fmt: skip
    return write_text(path, render("measured.html", values))


def _pictures(pictures: Mapping[str, Tensor], seed: int) -> list[dict[str, Any]]:
    """Sections of the page: title, caption, rows of pictures."""
    sections = []
    samples, near = pictures.get("samples"), pictures.get("nearest training images")
    if samples is not None:
        caption = f"The first {len(samples)} samples of seed {seed}, unselected."
        sections.append(("samples", "Samples", caption, [("", picture(samples, 8, "samples"))]))
    if "reconstructions" in pictures:
        rows = {name: pictures[name] for name in ("held-out images", "reconstructions")}
        sections.append(("reconstructions", "Reconstructions", "Drawn at random, unselected.", _rows(rows)))
    if samples is not None and near is not None:
        rows = {"samples": samples[: len(near)], "nearest training images": near}
        caption = "The first samples, and below each the training image of the smallest distance in pixels."
        sections.append(("memorisation", "Nearest training images", caption, _rows(rows)))
    return [dict(zip(("id", "title", "caption", "rows"), section, strict=True)) for section in sections]


def _rows(rows: Mapping[str, Tensor]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, picture(images, len(images), name)) for name, images in rows.items()]


def write_comparison(path: str | Path, comparison: Comparison) -> Path:
    """Write the page of several models side by side, whole or not at all; return its path.

    Raises:
        ResourceError: The file cannot be written.
    """
    table = comparison.table()
    rows = [[(row.name, False), *((c.text, c.best) for c in row.cells)] for row in table.rows]
    shown = {
        "id": "pictures",
        "title": "Pictures",
        "caption": "Unselected.",
        "rows": _rows(comparison.pictures),
    }
    values = {
        "title": "Models side by side", "lead": f"{', '.join(comparison.reports)}, on the same images.",
        "head": [column.name for column in table.columns], "rows": rows, "below": "",
        "pictures": [shown] if comparison.pictures else [], "settings": {},
        "report": {"notes": comparison.notes()},
    }  # fmt: skip
    return write_text(path, render("measured.html", values))


def write_sheet(path: str | Path, rows: Mapping[str, Tensor]) -> None:
    """Write rows of images (n, C, H, W) below one another as one PNG, the name of each above it.

    Raises:
        ResourceError: The disk is full.
    """
    font = ImageFont.load_default(12)
    strips = [sheet(images.clamp(0, 1).cpu().expand(-1, 3, -1, -1), len(images)) for images in rows.values()]
    width = max(strip.shape[2] for strip in strips)
    parts = []
    for name, strip in zip(rows, strips, strict=True):
        label = Image.new("RGB", (width, 18), "white")
        ImageDraw.Draw(label).text((2, 2), name, "black", font)
        parts.append(torch.from_numpy(np.array(label)).movedim(2, 0) / 255)
        parts.append(functional.pad(strip, (0, width - strip.shape[2]), value=1.0))
    save_png(torch.cat(parts, 1), path)
