"""The verbs that find what does not belong: calibrate, score."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mfimage import console
from mfimage.cli import options as opt
from mfimage.config import ScoreName
from mfimage.errors import ModelError, UsageError

if TYPE_CHECKING:
    from mfimage.datasets import ImageSet
    from mfimage.models import GenerativeModel
    from mfimage.ood import Detector, Verdicts

_STRANGE = 10  # exit code of --fail-on-ood
_DENSITY, _BYTES = 60_000, 2**29  # of training images, at most, that the density is fitted on


def calibrate(
    *data: opt.Data,
    model: opt.Model = "runs/latest",
    alpha: float = 0.01,
    kind: Annotated[ScoreName, Parameter(name="--score")] = "auto",
    split: str = "test",
    reading: opt.ReadingOptions = opt.ReadingOptions(),
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = 256,
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Learn from familiar images what is usual, and write calibration.json beside the model.

    The threshold comes from the split, and the density from the training split, unless the split is all.

    Args:
        alpha: Share of familiar images that may be called strange.
        kind: What is calibrated; auto is the density of all statistics.
        split: Images not trained on: test, valid, or all of a set of its own.
    """
    from mfimage.ood import Detector
    from mfimage.pretrained import locate

    if not Path(model).is_dir():
        raise UsageError(
            f"--model {model}: a calibration lies beside the weights: give a directory of this machine"
        )
    flow = opt.load_model(model, device, projects=True)
    detector, density = Detector(flow, kind, batch_size), None
    if split != "all":
        most = min(_DENSITY, _BYTES // math.prod(flow.shape))
        density = opt.load_split(data, "train", flow, reading, most)
    detector.calibrate(opt.load_split(data, split, flow, reading), alpha, density, seed)
    path = detector.save(locate(model))
    known = detector.calibration
    values = {"calibration": str(path), "threshold": known.threshold, "images": len(known.scores)}
    talk.say(f"threshold {known.threshold:.6g} from {len(known.scores)} images, alpha {alpha:g}")
    talk.put(values, str(path))


def score(
    *inputs: opt.Inputs,
    model: opt.Model = "runs/latest",
    table: Annotated[Path | None, Parameter(name="--csv")] = None,
    jsonl: opt.Flag = False,
    heatmaps: Path | None = None,
    report: Path | None = None,
    ood: list[str] | None = None,
    batch: opt.Flag = False,
    fail_on_ood: opt.Flag = False,
    reading: opt.ReadingOptions = opt.ReadingOptions(),
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = 256,
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Score images (higher is stranger), a line each; of a calibrated model also p-value, verdict and reason.

    Without a calibration the score is the reconstruction error a pixel.

    Args:
        table: Write the rows here as CSV.
        jsonl: A JSON object a line on stdout.
        heatmaps: Folder for PNG maps of what is strange.
        report: Write a page here: histogram, strangest images, ROC.
        ood: Images known to be strange, for the ROC curves of --report.
        batch: Test whether the set has shifted.
        fail_on_ood: Exit with code 10 if any image is strange.
    """
    from mfimage.datasets import save_pngs
    from mfimage.ood import drift_of
    from mfimage.ood.verdict_page import score_page

    if jsonl and talk.json:
        raise UsageError("--json and --jsonl: choose one")
    if ood and report is None:
        raise UsageError("--ood is for the curves of a page: say where with --report")
    flow = opt.load_model(model, device, projects=True)
    detector = _detector(model, flow, batch_size)
    if detector is None and (heatmaps or batch or fail_on_ood or report):
        raise ModelError(f"{model}: not calibrated: mfimage calibrate comes before verdicts")
    files = opt.load_inputs(inputs, flow, reading)
    if detector is None:
        _put(_errors(files, flow, batch_size), files, talk, jsonl, table)
        return
    found = detector.score(files)
    rows, more = _rows(files, found), {}
    drift = drift_of(found, detector.calibration) if batch else None
    if drift is not None:
        more["drift"] = vars(drift)
        talk.say(f"the set has {drift.outcome}; {drift.is_ood:.1%} of its images are strange")
    if heatmaps is not None:
        paths = save_pngs(found.heatmaps, [Path(path).stem for path in files.paths], heatmaps)
        rows = [row | {"heatmap": str(path)} for row, path in zip(rows, paths, strict=True)]
    if report is not None:
        strange = {name: detector.score(opt.load_inputs([name], flow, reading)).scores for name in ood or []}
        page = score_page(files, found, detector.calibration, drift, strange)
        talk.say(f"{page.write(report)}: the page")
    _put(rows, files, talk, jsonl, table, more)
    if fail_on_ood and bool(found.is_ood.any()):
        sys.exit(_STRANGE)


def _detector(model: str, flow: GenerativeModel, batch_size: int) -> Detector | None:
    """Read the calibration beside a model, if there is one."""
    from mfimage.ood import Detector
    from mfimage.ood.detector import DETECTOR
    from mfimage.pretrained import locate

    if DETECTOR not in flow.measured:
        return None
    detector = Detector.load(locate(model), flow)
    detector.batch_size = batch_size
    return detector


def _errors(files: ImageSet, flow: GenerativeModel, batch_size: int) -> list[dict[str, Any]]:
    """Give rows of reconstruction errors, for a model without a calibration."""
    from mfimage.ood.scores import score as score_

    values = [value for x in files.batches(batch_size) for value in score_(x, flow, batch_size).tolist()]
    return [{"path": path, "score": float(s)} for path, s in zip(files.paths, values, strict=True)]


def _rows(files: ImageSet, found: Verdicts) -> list[dict[str, Any]]:
    verdicts = ["strange" if strange else "familiar" for strange in found.is_ood.tolist()]
    columns = (files.paths, found.scores.tolist(), found.p_values.tolist(), verdicts, found.reasons)
    names = ("path", "score", "p_value", "verdict", "reason")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _put(
    rows: list[dict[str, Any]],
    files: ImageSet,
    talk: opt.Talk,
    jsonl: bool,
    table: Path | None,
    more: dict[str, Any] | None = None,
) -> None:
    """Print the rows, and write them as CSV where that is asked for."""
    if table is not None:
        from mfimage.files import write_csv

        write_csv(table, rows)
    if jsonl:
        text = "\n".join(console.json_text(row) for row in rows)
    else:
        text = "\n".join("\t".join(_word(value) for value in row.values()) for row in rows)
    talk.put({"scores": rows, "skipped": files.skipped, **(more or {})}, text)


def _word(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
