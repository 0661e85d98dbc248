"""One page that shows what a trained manifold-learning flow can do: self-contained HTML, no scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mfimage.eval.charts import AREA, Curve, curve_chart, histogram_chart
from mfimage.eval.page import picture, render, settings_text
from mfimage.eval.table import Better, mark_best, number, numbers_alike
from mfimage.files import write_text


@dataclass(frozen=True)
class Row:
    """A number of the model, and PCA's beside it."""

    name: str
    unit: str
    model: float | str | None
    pca: float | str | None
    better: Better
    note: str = ""


@dataclass(frozen=True)
class Strip:
    """Rows of images (n, C, H, W) by name, at one level of noise, and the PSNR of some of them in dB."""

    sigma: float
    rows: Mapping[str, Tensor]
    psnr: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What the page shows, from top to bottom apart from the settings; an empty part is left out.

    Args:
        title: Of the page.
        sentence: The results in one sentence.
        settings: What was trained, on what, where.
        numbers: Rows of the table that compares the model with PCA.
        curves: Of the training.
        samples: (N, C, H, W) in [0, 1].
        samples_caption: That they are unselected, and of which seed.
        reconstructions: By name ("best", ...) images (n, C, H, W) and their projections.
        denoising: A strip for each level of noise.
        ood_scores: Scores (N,) by the name of their set, the familiar one first.
        ood_auroc: By the name of a strange set, the model's and PCA's area under the ROC curve.
        notes: What else the reader must know.
    """

    title: str
    sentence: str
    settings: Mapping[str, object] = field(default_factory=dict)
    numbers: Sequence[Row] = ()
    curves: Sequence[Curve] = ()
    samples: Tensor | None = None
    samples_caption: str = ""
    reconstructions: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    denoising: Sequence[Strip] = ()
    ood_scores: Mapping[str, Tensor] = field(default_factory=dict)
    ood_auroc: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write_report(path: str | Path, report: Report) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: Where to.
        report: What to show.

    Returns:
        The path.

    Raises:
        DataError: Images are not (N, 1 or 3, H, W), or have values that are not finite.
        ResourceError: The disk is full.
    """
    return write_text(path, _page(report))


def _page(report: Report) -> str:
    samples = report.samples if report.samples is not None and len(report.samples) else None
    values = {
        "report": report,
        "area": AREA,
        "settings": settings_text(report.settings),
        "numbers": [(row, *_pair(row.model, row.pca, row.better)) for row in report.numbers],
        "curves": [chart for curve in report.curves if (chart := curve_chart(curve))],
        "samples": None if samples is None else picture(samples, 8, "samples"),
        "reconstructions": {
            name: [("image", None, _row(images, "images")), ("projection", None, _row(others, "projections"))]
            for name, (images, others) in report.reconstructions.items()
            if len(images)
        },
        "denoising": [(strip.sigma, _strip(strip)) for strip in report.denoising],
        "ood": histogram_chart(report.ood_scores),
        "auroc": {name: _pair(*areas, "higher") for name, areas in report.ood_auroc.items()},
    }
    return render("report.html", values)


# Numbers


def _pair(model: float | str | None, pca: float | str | None, better: Better) -> list[tuple[str, bool]]:
    """Text of the model's number and of PCA's, each with whether it is the better one."""
    texts = numbers_alike([model, pca])
    return list(zip(texts, mark_best([model, pca], better, texts), strict=True))


# Pictures


def _row(images: Tensor, name: str) -> dict[str, Any]:
    return picture(images, len(images), name)


def _strip(strip: Strip) -> list[tuple[str, tuple[str, bool] | None, dict[str, Any]]]:
    finite = [v for v in strip.psnr.values() if math.isfinite(v)]
    best = max(finite, default=None)
    return [
        (name, (number(v, size=10.0), v == best) if v is not None else None, _row(images, f"images, {name}"))
        for name, images in strip.rows.items()
        if len(images)
        for v in [strip.psnr.get(name)]
    ]
