"""The verbs that find what does not belong: calibrate, score."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfimage import console
from mfimage.cli.loading import load_model
from mfimage.cli.options import (
    BatchSize,
    Data,
    Device,
    Inputs,
    Json,
    MaxBad,
    MaxPixels,
    Model,
    Quiet,
    Seed,
    ValueRange,
    Verbose,
)
from mfimage.errors import ModelError, UsageError

if TYPE_CHECKING:
    from mfimage.datasets import ImageSet
    from mfimage.models import GenerativeModel
    from mfimage.ood import Detector, Drift, Verdicts

_STRANGE = 10  # exit code of --fail-on-ood
_DENSITY, _BYTES = 60_000, 2**29  # of training images, at most, that the density is fitted on


def calibrate(
    data: Data,
    model: Model = "runs/latest",
    alpha: Annotated[float, typer.Option(help="Share of familiar images that may be called strange.")] = 0.01,
    kind: Annotated[
        str,
        typer.Option(
            "--score",
            help="auto, reconstruction, two-sided, latent, density, joint, typicality, complexity, "
            "neighbours or local-dimension.",
        ),
    ] = "auto",
    split: Annotated[
        str, typer.Option(help="Images not trained on: test, valid, or all of a set of its own.")
    ] = "test",
    max_bad: MaxBad = 0.05,
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = 256,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Learn from familiar images what is usual, and write calibration.json beside the model.

    The threshold comes from the split, and the density from the training split, unless the split is all.
    """
    from mfimage.config import Reading
    from mfimage.datasets import load
    from mfimage.ood import Detector
    from mfimage.run import locate

    if not Path(model).is_dir():
        raise UsageError(
            f"--model {model}: a calibration lies beside the weights: give a directory of this machine"
        )
    flow = load_model(model, device, projects=True)
    detector = Detector(flow, kind, batch_size or 256)
    channels, height, width = flow.shape

    def read(name: str, limit: int | None) -> Any:
        found = load(
            data, name, (height, width), channels,
            reading=Reading(max_bad, max_pixels, console.pair(value_range)), limit=limit,
        )  # fmt: skip
        console.list_skipped(found.skipped)
        return found

    density = None if split == "all" else read("train", min(_DENSITY, _BYTES // math.prod(flow.shape)))
    detector.calibrate(read(split, None), alpha, density, seed or 0)
    path = detector.save(locate(model))
    known = detector.calibration
    values = {"calibration": str(path), "threshold": known.threshold, "images": len(known.scores)}
    console.say(f"threshold {known.threshold:.6g} from {len(known.scores)} images, alpha {alpha:g}", quiet)
    console.put(values, str(path), as_json)


def score(
    inputs: Inputs,
    model: Model = "runs/latest",
    table: Annotated[Path | None, typer.Option("--csv", help="Write the rows here as CSV.")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="A JSON object a line on stdout.")] = False,
    heatmaps: Annotated[Path | None, typer.Option(help="Folder for PNG maps of what is strange.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page here: histogram, strangest images, ROC.")
    ] = None,
    ood: Annotated[
        list[str] | None, typer.Option(help="Images known to be strange, for the ROC curves of --report.")
    ] = None,
    batch: Annotated[bool, typer.Option("--batch", help="Test whether the set has shifted.")] = False,
    fail_on_ood: Annotated[bool, typer.Option(help="Exit with code 10 if any image is strange.")] = False,
    max_bad: MaxBad = 0.05,
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    device: Device = "auto",
    batch_size: BatchSize = 256,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score images (higher is stranger), a line each: path and score; of a calibrated model also p-value,
    verdict and reason. Without a calibration the score is the reconstruction error a pixel.
    """  # noqa: D205
    from mfimage.config import Reading
    from mfimage.datasets import load_files, save_pngs
    from mfimage.ood import drift_of
    from mfimage.ood.report import ScoreReport, write_score_report

    if jsonl and as_json:
        raise UsageError("--json and --jsonl: choose one")
    if ood and report is None:
        raise UsageError("--ood is for the curves of a page: say where with --report")
    flow = load_model(model, device, projects=True)
    detector = _detector(model, flow, batch_size or 256)
    channels, height, width = flow.shape

    def read(paths: list[str]) -> ImageSet:
        files = load_files(
            paths, (height, width), channels,
            reading=Reading(max_bad, max_pixels, console.pair(value_range)),
        )  # fmt: skip
        console.list_skipped(files.skipped)
        return files

    if detector is None:
        if heatmaps or batch or fail_on_ood or report:
            raise ModelError(f"{model}: not calibrated: mfimage calibrate comes before verdicts")
        files = read(inputs)
        _print(_errors(files, flow, batch_size or 256), None, files, as_json, jsonl, quiet, table)
        return
    files = read(inputs)
    found = detector.score(files)
    rows = _rows(files, found)
    drift = drift_of(found, detector.calibration) if batch else None
    if heatmaps is not None:
        paths = save_pngs(found.heatmaps, [Path(path).stem for path in files.paths], heatmaps)
        rows = [row | {"heatmap": str(path)} for row, path in zip(rows, paths, strict=True)]
    if report is not None:
        strange = {name: detector.score(read([name])).scores for name in ood or []}
        page = ScoreReport(files, found, detector.calibration, drift, strange)
        console.say(f"{write_score_report(report, page)}: the page", quiet)
    _print(rows, drift, files, as_json, jsonl, quiet, table)
    if fail_on_ood and bool(found.is_ood.any()):
        raise typer.Exit(_STRANGE)


def _detector(model: str, flow: GenerativeModel, batch_size: int) -> Detector | None:
    """Read the calibration beside a model, if there is one."""
    from mfimage.ood import Detector
    from mfimage.ood.detector import DETECTOR
    from mfimage.run import locate

    if DETECTOR not in flow.measured:
        return None
    detector = Detector.load(locate(model), flow)
    detector.batch_size = batch_size
    return detector


def _errors(files: ImageSet, flow: GenerativeModel, batch_size: int) -> list[dict[str, Any]]:
    """Rows of reconstruction errors, for a model without a calibration."""
    from mfimage.ood.scores import score as score_

    values = [value for x in files.batches(batch_size) for value in score_(x, flow, batch_size).tolist()]
    return [{"path": path, "score": float(s)} for path, s in zip(files.paths, values, strict=True)]


def _rows(files: ImageSet, found: Verdicts) -> list[dict[str, Any]]:
    columns = (
        files.paths,
        found.scores.tolist(),
        found.p_values.tolist(),
        ["strange" if strange else "familiar" for strange in found.is_ood.tolist()],
        found.reasons,
    )
    names = ("path", "score", "p_value", "verdict", "reason")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _print(
    rows: list[dict[str, Any]],
    drift: Drift | None,
    files: ImageSet,
    as_json: bool,
    jsonl: bool,
    quiet: bool,
    table: Path | None,
) -> None:
    if table is not None:
        _write_csv(rows, table)
    values: dict[str, Any] = {"scores": rows, "skipped": console.as_json(files.skipped)}
    if drift is not None:
        values["drift"] = vars(drift)
        console.say(f"the set has {drift.outcome}; {drift.is_ood:.1%} of its images are strange", quiet)
    if jsonl:
        text = "\n".join(console.json_text(row) for row in rows)
    else:
        text = "\n".join("\t".join(_word(value) for value in row.values()) for row in rows)
    console.put(values, text, as_json)


def _word(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    from mfimage.files import write_text

    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())
