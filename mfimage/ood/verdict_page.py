"""The page on the scores of a set of images: histogram, ROC curves, the strangest images, the drift."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mfimage.datasets import ImageSet
from mfimage.eval.page import Files, Page, Pictures, Section, picture
from mfimage.eval.plots import histogram_plot, lines_plot
from mfimage.eval.score_metrics import roc_curve, separation
from mfimage.eval.table import Cell, Column, Row, Table, number
from mfimage.ood.calibration import DetectorCalibration
from mfimage.ood.verdicts import Drift, Verdicts

_SHOWN = 12  # images of the strangest, and of the least strange
_HEAT = (
    "Beside each where it differs from its projection: white is what one in a thousand pixels of familiar "
    "images reaches."
)


def score_page(
    images: ImageSet,
    verdicts: Verdicts,
    calibration: DetectorCalibration,
    drift: Drift | None = None,
    strange: Mapping[str, Tensor] = {},
) -> Page:
    """Put verdicts on a page, with ROC curves against scores (M,) of sets known to be strange, by name."""
    count, strange_ones = len(verdicts.scores), int(verdicts.is_ood.sum())
    shift = "" if drift is None else f" The set has {drift.outcome}."
    lead = (
        f"{strange_ones} of {count} images are strange by the score {calibration.score}; of familiar ones "
        f"{calibration.alpha:.1%} would be.{shift}"
    )
    groups = {"familiar (calibration)": calibration.scores, images.name: verdicts.scores, **strange}
    order = verdicts.scores.argsort(descending=True)
    drawn = histogram_plot(groups, f"score {calibration.score}", calibration.threshold)
    said = "How often each score comes up; higher is stranger. Images above the threshold are called strange."
    sections = [
        Section("Scores", said, [drawn]),
        _against(images.name, verdicts.scores, strange),
        Section("Strangest images", _HEAT, [_gallery(images, verdicts, order[:_SHOWN])]),
        Section("Least strange images", "", [_gallery(images, verdicts, order.flip(0)[:_SHOWN])]),
        _drift(drift),
        Section("Files that could not be read", "", [Files([(s.path, s.reason) for s in images.skipped])]),
    ]
    settings = {
        "score": calibration.score, "threshold": calibration.threshold, "alpha": calibration.alpha,
        "calibration images": len(calibration.scores), "model": calibration.model[:12],
    }  # fmt: skip
    return Page(f"Scores of {images.name}", lead, sections, settings)


def _against(name: str, scores: Tensor, strange: Mapping[str, Tensor]) -> Section:
    """ROC curves against sets of strange images, and how well each is told apart."""
    heading = "Against images known to be strange"
    if not strange:
        return Section(heading, "", [])
    curves = {other: roc_curve(scores, values) for other, values in strange.items()}
    rows = [Row(other, _separation(scores, values)) for other, values in strange.items()]
    columns = [Column(n) for n in (f"{name} against", "AUROC", "AUPR", "FPR at 95 % TPR")]
    drawn = lines_plot("ROC", "share of familiar images flagged", "share of strange images flagged", curves)
    return Section(heading, "", [drawn, Table(columns, rows, "In small print 95 % bootstrap intervals.")])


def _separation(scores: Tensor, strange: Tensor) -> list[Cell]:
    found = separation(scores, strange)
    names = ("auroc", "aupr", "fpr95")
    return [Cell(f"{found[n]:.4f}", small=("{:.4f}–{:.4f}".format(*found[f"{n}_interval"]),)) for n in names]


def _gallery(images: ImageSet, verdicts: Verdicts, rows: Tensor) -> Pictures:
    """Images beside their heat-maps, with what is said of them."""
    reasons, shown = verdicts.reasons, []
    for row in rows.tolist():
        x, heat = images.batch([row]), verdicts.heatmaps[row : row + 1]
        score, p = (number(float(values[row])) for values in (verdicts.scores, verdicts.p_values))
        words = f"p {p}: {reasons[row] or 'familiar'}"
        pair = torch.cat([x, heat.expand_as(x)])
        shown.append(picture(pair, "image and heat-map", 2, images.paths[row], Cell(score, True), words))
    return Pictures(shown, grid=True)


def _drift(drift: Drift | None) -> Section:
    """Tests of the whole set: corrected p-value, and whether it rejects."""
    rows = []
    if drift is not None:
        for name, p in drift.p_values.items():
            rows.append(Row(name, [Cell(f"{p:.3g}"), Cell("shifted" if name in drift.changed else "")]))
    said = "Kolmogorov–Smirnov tests against the calibration images, corrected for their number after Holm."
    return Section("The set as a whole", said, [Table([Column(name) for name in ("of", "p", "")], rows)])
