"""The verbs that find what does not belong: calibrate, score."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from mfimage import console
from mfimage.cli import options as opt
from mfimage.cli.values import DEVIATION
from mfimage.errors import ModelError, UsageError
from mfimage.outputs import claim, hold

if TYPE_CHECKING:
    from mfimage.datasets import ImageSet
    from mfimage.ood import Detector, Verdicts

ScoreName = Literal[
    "auto", "reconstruction", "two-sided", "latent", "density", "joint", "typicality", "complexity",
    "neighbours", "local-dimension",
]  # fmt: skip
_STRANGE = 10  # exit code of --fail-on-ood
_DENSITY, _BYTES = 60_000, 2**29  # of training images, at most, that the density is fitted on


def calibrate(
    *data: opt.Data,
    model: opt.Model = "runs/latest",
    alpha: float = 0.01,
    kind: Annotated[ScoreName, Parameter(name="--score")] = "auto",
    split: str = "test",
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 256,
    options: opt.Options = opt.Options(),
) -> None:
    """Learn from familiar images what is usual, and write calibration.json beside the model.

    The threshold comes from the split, and the density from the training split, unless the split is all.

    Args:
        alpha: Share of familiar images that may be called strange.
        kind: What is calibrated; auto is the density of all statistics.
        split: Images not trained on: test, valid, or all of a set of its own.
    """
    from mfimage.ood import Detector
    from mfimage.ood.checks import require_enough
    from mfimage.pretrained import locate

    if not Path(model).is_dir():
        raise UsageError(
            f"--model {model}: a calibration lies beside the weights: give a directory of this machine"
        )
    hold(locate(model))  # not to find out at the end that nothing may be written there
    flow = options.load(model, projects=True)
    detector, density = Detector(flow, kind, batch_size), None
    held = options.split(data, split, flow)
    require_enough(len(held), alpha, split == "all")
    if split != "all":
        density = options.split(data, "train", flow, min(_DENSITY, _BYTES // math.prod(flow.shape)))
    detector.calibrate(held, alpha, density, seed)
    path = detector.save(locate(model))
    known = detector.calibration
    low, high = known.false_alarms
    values = {
        "calibration": str(path), "threshold": known.threshold, "images": len(known.scores),
        "false_alarms": [low, high],
    }  # fmt: skip
    images = console.counted(len(known.scores), "image")
    options.say(f"threshold {known.threshold:.6g} from {images}, alpha {alpha:g}: {known.promise}")
    options.put(values, [path])


def score(
    *inputs: opt.Inputs,
    model: opt.Model = "runs/latest",
    table: Annotated[Path | None, Parameter(name="--csv")] = None,
    jsonl: opt.Flag = False,
    heatmaps: Path | None = None,
    report: Path | None = None,
    ood: list[str] | None = None,
    sigma: Annotated[float | None, DEVIATION] = None,
    batch: opt.Flag = False,
    fail_on_ood: opt.Flag = False,
    batch_size: opt.BatchSize = 256,
    options: opt.Options = opt.Options(),
) -> None:
    """Score images (higher is stranger), a line each; of a calibrated model also p-value, verdict and reason.

    Without a calibration the score is the reconstruction error a pixel. It is inf, with a reason, where the
    model gives no finite numbers.

    Args:
        table: Write the rows here as CSV.
        jsonl: A JSON object a line on stdout.
        heatmaps: Folder for PNG maps of what is strange.
        report: Write a page here: histogram, strangest images, ROC.
        ood: Images known to be strange, for the ROC curves of --report.
        sigma: Deviation of noise on the scale of [0, 1], removed before images, --ood too, are judged.
        batch: Test whether the set has shifted.
        fail_on_ood: Exit with code 10 if any image is strange.
    """
    from mfimage.datasets import iter_files
    from mfimage.datasets.pictures import png_paths
    from mfimage.files import write_csv
    from mfimage.ood import Detector
    from mfimage.ood.detector import DETECTOR
    from mfimage.ood.scores import score as score_
    from mfimage.ood.statistics import UNSOUND
    from mfimage.pretrained import FILES, locate

    if jsonl and options.json:
        raise UsageError("--json and --jsonl: choose one")
    if ood and report is None:
        raise UsageError("--ood is for the curves of a page: say where with --report")
    place = locate(model)
    opt.given(*inputs, *(ood or ()), *(place / name for name in FILES))
    iter_files(ood or ())  # not to find out at the end that they are not there
    claim(table, report)
    hold(heatmaps)
    flow = options.load(str(place), projects=True)
    detector = Detector.load(place, flow) if DETECTOR in flow.measured else None
    asked = {"--heatmaps": heatmaps, "--batch": batch, "--fail-on-ood": fail_on_ood, "--report": report}
    if detector is None and (wanted := [name for name, value in asked.items() if value]):
        need = f"{' and '.join(wanted)} {'need' if len(wanted) > 1 else 'needs'}"
        raise ModelError(f"{model}: not calibrated, which {need}: mfimage calibrate IMAGES --model {model}")
    files, more, late = options.inputs(inputs, flow), {}, console.Late()
    stems = [Path(path).stem for path in files.paths] if heatmaps else []
    claim(table, report, *png_paths(stems, heatmaps or Path(), set()))
    if detector is None:
        errors = [
            float(error) for x in files.batches(batch_size) for error in score_(x, flow, batch_size, sigma)
        ]
        rows = [{"path": path, "score": error} for path, error in zip(files.paths, errors, strict=True)]
        for row in rows if math.inf in errors else ():
            row["reason"] = UNSOUND if row["score"] == math.inf else ""
    else:
        detector.batch_size = batch_size
        found = detector.score(files, sigma)
        rows = _judged(files, found)
        options.say(f"{found.counted}; {detector.calibration.promise}")
        with late:
            _draw(rows, files, found, heatmaps)
        with late:
            more = _of_the_set(detector, files, found, batch, report, ood or [], sigma, options)
    with late:
        if table is not None:
            write_csv(table, rows)
    lines = [console.json_text(row) if jsonl else tuple(map(_word, row.values())) for row in rows]
    options.put({"scores": rows, "skipped": files.skipped, **more}, lines)
    late.end()
    if fail_on_ood and any(row["verdict"] == "strange" for row in rows):
        sys.exit(_STRANGE)


def _judged(files: ImageSet, found: Verdicts) -> list[dict[str, Any]]:
    """Give the row of each image."""
    columns: dict[str, Any] = {
        "path": files.paths,
        "score": found.scores.tolist(),
        "p_value": found.p_values.tolist(),
        **dict(
            zip(("p_far_out", "p_ordinary"), found.ways.T.tolist(), strict=True) if len(found.ways) else ()
        ),
        "verdict": ["strange" if strange else "familiar" for strange in found.is_ood],
        "reason": found.reasons,
        "sentence": found.sentences,
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _draw(rows: list[dict[str, Any]], files: ImageSet, found: Verdicts, folder: Path | None) -> None:
    """Draw the heat maps where they are asked for, and add each to its row."""
    from mfimage.datasets import save_pngs

    if folder is not None:
        paths = save_pngs(found.heatmaps, [Path(path).stem for path in files.paths], folder)
        for row, path in zip(rows, paths, strict=True):
            row["heatmap"] = str(path)


def _of_the_set(
    detector: Detector,
    files: ImageSet,
    found: Verdicts,
    batch: bool,
    report: Path | None,
    ood: list[str],
    sigma: float | None,
    options: opt.Options,
) -> dict[str, Any]:
    """Tell whether the set has shifted, and write its page, where they are asked for."""
    from mfimage.ood import drift_of
    from mfimage.ood.verdicts import score_page

    drift = drift_of(found, detector.calibration) if batch else None
    if drift is not None:
        options.say(f"the set has {drift.outcome}; {drift.is_ood:.1%} of its images are strange")
    if report is not None:
        sets = {name: options.inputs([name], detector.model) for name in ood}
        strange = {name: detector.score(images, sigma).scores for name, images in sets.items()}
        page = score_page(files, found, detector.calibration, drift, strange)
        options.say(f"{page.write(report)}: the page")
    return {} if drift is None else {"drift": vars(drift)}


def _word(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
