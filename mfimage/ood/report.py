"""One page on the scores of a set of images: self-contained HTML, no scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfimage.datasets import ImageSet
from mfimage.eval.charts import AREA, histogram_chart, lines_chart
from mfimage.eval.page import picture, render, settings_text
from mfimage.eval.ranking import roc_curve, separation
from mfimage.eval.table import number
from mfimage.files import write_text
from mfimage.ood.calibration import DetectorCalibration
from mfimage.ood.verdicts import Drift, Verdicts

_SHOWN = 12  # images of the strangest, and of the least strange


@dataclass(frozen=True, eq=False)
class ScoreReport:
    """What the page shows.

    Args:
        images: That were scored.
        verdicts: Of the images.
        calibration: Of the detector.
        drift: The test of the whole set, if it was asked for.
        strange: Scores (M,) of images known to be strange, by the name of their set, for ROC curves.
        notes: What else the reader must know.
    """

    images: ImageSet
    verdicts: Verdicts
    calibration: DetectorCalibration
    drift: Drift | None = None
    strange: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def title(self) -> str:
        """Of the page."""
        return f"Scores of {self.images.name}"

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        count, strange = len(self.verdicts.scores), int(self.verdicts.is_ood.sum())
        shift = "" if self.drift is None else f" The set has {self.drift.outcome}."
        return (
            f"{strange} of {count} images are strange by the score {self.calibration.score}; of familiar "
            f"ones {self.calibration.alpha:.1%} would be.{shift}"
        )


def write_score_report(path: str | Path, report: ScoreReport) -> Path:
    """Write the page, whole or not at all; return its path.

    Raises:
        ResourceError: The file cannot be written.
    """
    known, scores = report.calibration, report.verdicts.scores
    groups = {"familiar (calibration)": known.scores, report.images.name: scores, **report.strange}
    curves = {name: roc_curve(scores, others) for name, others in report.strange.items()}
    separations = {name: separation(scores, others) for name, others in report.strange.items()}
    settings = {
        "score": known.score, "threshold": known.threshold, "alpha": known.alpha,
        "calibration images": len(known.scores), "model": known.model[:12],
    }  # fmt: skip
    order = scores.argsort(descending=True)
    axes = ("ROC", "share of familiar images flagged", "share of strange images flagged")
    values = {
        "report": report,
        "area": AREA,
        "settings": settings_text(settings),
        "histogram": histogram_chart(groups, f"score {known.score}", known.threshold),
        "roc": lines_chart(*axes, curves) if curves else None,
        "separation": {name: _cells(found) for name, found in separations.items()},
        "strangest": _shown(report, order[:_SHOWN]),
        "usual": _shown(report, order.flip(0)[:_SHOWN]),
        "drift": None if report.drift is None else _tests(report.drift),
        "skipped": [(one.path, one.reason) for one in report.images.skipped],
    }
    return write_text(path, render("scores.html", values))


def _cells(found: dict[str, Any]) -> list[str]:
    """AUROC, AUPR and FPR@95 with their intervals."""
    names = ("auroc", "aupr", "fpr95")
    return ["{:.4f} ({:.4f}–{:.4f})".format(found[n], *found[f"{n}_interval"]) for n in names]


def _shown(report: ScoreReport, rows: Tensor) -> list[dict[str, Any]]:
    """Images beside their heat-maps, with what is said of them; one an entry."""
    verdicts, reasons, shown = report.verdicts, report.verdicts.reasons, []
    for row in rows.tolist():
        x, heat = report.images.batch([row]), verdicts.heatmaps[row : row + 1]
        pair = torch.cat([x, heat.expand_as(x)])
        shown.append(
            {
                "path": report.images.paths[row],
                "score": number(float(verdicts.scores[row])),
                "p": number(float(verdicts.p_values[row])),
                "reason": reasons[row] or "familiar",
                "picture": picture(pair, 2, "image and heat-map"),
            }
        )
    return shown


def _tests(drift: Drift) -> list[tuple[str, str, bool]]:
    """Tests of the whole set: name, corrected p-value, whether it rejects."""
    return [(name, f"{p:.3g}", name in drift.changed) for name, p in drift.p_values.items()]
