"""The page of scored images: histogram, ROC curves, and the strangest and least strange of them."""

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
from mfimage.ood.places import Place, outlined
from mfimage.ood.verdicts import ALPHAS, Drift, Verdicts, power

_SHOWN = 12  # images of the strangest, and of the least strange
_HEAT = (
    "Beside each, where there are maps, where it is strange: white is what no pixel of other familiar images "
    "reaches, but for the share that α allows, and a red line goes around such places. Then what the model "
    "would have there."
)


def score_page(
    images: ImageSet,
    verdicts: Verdicts,
    calibration: DetectorCalibration,
    drift: Drift | None = None,
    strange: Mapping[str, Tensor] = {},
) -> Page:
    """Put verdicts on a page, with ROC curves against scores (M,) of sets known to be strange, by name."""
    shift = "" if drift is None else f" The set has {drift.outcome}."
    lead = f"{verdicts.counted} by the score {calibration.score}; {calibration.promise}.{shift}"
    groups = {"familiar (calibration)": calibration.scores, images.name: verdicts.scores, **strange}
    order = verdicts.scores.argsort(descending=True)
    drawn = histogram_plot(groups, f"score {calibration.score}", calibration.threshold)
    said = "How often each score comes up; higher is stranger. Images above the threshold are called strange."
    sections = [
        Section("Scores", said, [drawn]),
        _against(images.name, verdicts.scores, strange, calibration),
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


def _against(
    name: str, scores: Tensor, strange: Mapping[str, Tensor], calibration: DetectorCalibration
) -> Section:
    """ROC curves against sets of strange images, how well each is told apart, and how many are flagged."""
    heading = "Against images known to be strange"
    if not strange:
        return Section(heading, "", [])
    curves = {other: roc_curve(scores, values) for other, values in strange.items()}
    rows = [
        Row(other, [*_separation(scores, values), *_flagged(values, calibration)])
        for other, values in strange.items()
    ]
    flagged = (f"flagged at α = {alpha:.1%}" for alpha in ALPHAS)
    columns = [Column(n) for n in (f"{name} against", "AUROC", "AUPR", "FPR at 95 % TPR", *flagged)]
    drawn = lines_plot("ROC", "share of familiar images flagged", "share of strange images flagged", curves)
    return Section(heading, "", [drawn, Table(columns, rows, "In small print 95 % bootstrap intervals.")])


def _separation(scores: Tensor, strange: Tensor) -> list[Cell]:
    found = separation(scores, strange)
    names = ("auroc", "aupr", "fpr95")
    return [Cell(f"{found[n]:.4f}", small=("{:.4f}–{:.4f}".format(*found[f"{n}_interval"]),)) for n in names]


def _flagged(strange: Tensor, calibration: DetectorCalibration) -> list[Cell]:
    """The share called strange at each of `ALPHAS`, where there are calibration images enough for it."""
    found = power(calibration.scores, strange)
    return [Cell("" if found[alpha] is None else f"{found[alpha]:.1%}") for alpha in ALPHAS]


def _gallery(images: ImageSet, verdicts: Verdicts, rows: Tensor) -> Pictures:
    """Images with what is said of them; beside each its map and what the model knows of it, if there are."""
    sentences, shown = verdicts.sentences, []
    for row in rows.tolist():
        score = Cell(number(float(verdicts.scores[row])), True)
        together = _beside(images.batch([row])[0], verdicts.places[row] if verdicts.places else None)
        shown.append(picture(together, "pictures", 0, images.paths[row], score, sentences[row]))
    return Pictures(shown, grid=True)


def _beside(x: Tensor, place: Place | None) -> Tensor:
    """An image (C, H, W), outlined where it is strange, its map and what the model knows of it."""
    if place is None:
        return x[None]
    parts = outlined(x, place.mask), place.heat[None].clamp(0, 1), place.repaired
    return torch.stack([part.expand(3, -1, -1) for part in parts])


def _drift(drift: Drift | None) -> Section:
    """Tests of the whole set: corrected p-value, and whether it rejects."""
    p_values, changed = (drift.p_values, drift.changed) if drift else ({}, ())
    rows = [
        Row(name, [Cell(f"{p:.3g}"), Cell("shifted" if name in changed else "")])
        for name, p in p_values.items()
    ]
    said = "Kolmogorov–Smirnov tests against the calibration images, corrected for their number after Holm."
    return Section("The set as a whole", said, [Table([Column(name) for name in ("of", "p", "")], rows)])
