"""The verbs that find what does not belong: calibrate, score."""

from __future__ import annotations

import csv
import io
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
    from torch import Tensor

    from mfimage.models import GenerativeModel
    from mfimage.ood import Detector, Drift

_STRANGE = 10  # exit code of --fail-on-ood
_DENSITY = 20_000  # training images, at most, that the density is fitted on


def calibrate(
    data: Data,
    model: Model = "runs/latest",
    alpha: Annotated[float, typer.Option(help="Share of familiar images that may be called strange.")] = 0.01,
    kind: Annotated[
        str,
        typer.Option(
            "--score", help="auto, reconstruction, two-sided, latent, joint, typicality, complexity."
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
    from mfimage.datasets import load
    from mfimage.ood import Detector

    flow = load_model(model, device, projects=True)
    detector = Detector(flow, kind, batch_size or 256)
    channels, height, width = flow.shape

    def read(name: str, limit: int | None) -> Any:
        found = load(
            data, name, (height, width), channels,
            max_bad=max_bad, max_pixels=max_pixels, value_range=console.pair(value_range), limit=limit,
        )  # fmt: skip
        console.list_skipped(found.skipped)
        return found

    density = None if split == "all" else read("train", _DENSITY)
    detector.calibrate(read(split, None), alpha, density, seed or 0)
    path = detector.save(_home(model))
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
    from mfimage.datasets import load_files

    if jsonl and as_json:
        raise UsageError("--json and --jsonl: choose one")
    flow = load_model(model, device, projects=True)
    detector = _detector(model, flow, batch_size or 256)
    if detector is None and (heatmaps or batch or fail_on_ood):
        raise ModelError(f"{model}: not calibrated: mfimage calibrate comes before verdicts")
    channels, height, width = flow.shape
    files = load_files(
        inputs, (height, width), channels,
        max_bad=max_bad, max_pixels=max_pixels, value_range=console.pair(value_range),
    )  # fmt: skip
    console.list_skipped(files.skipped)
    x = files.batch(slice(None))
    rows, drift = _rows([str(path) for path in files.paths], x, flow, detector, batch, batch_size or 256)
    if table is not None:
        _write_csv(rows, table)
    if heatmaps is not None and detector is not None:
        _write_heatmaps(detector, x, rows, heatmaps)
    _print(rows, drift, console.as_json(files.skipped), as_json, jsonl, quiet)
    if fail_on_ood and any(row["verdict"] == "strange" for row in rows):
        raise typer.Exit(_STRANGE)


def _home(model: str) -> Path:
    """Find the directory in which a model's weights lie."""
    for candidate in (Path(model), Path(model) / "model"):
        if (candidate / "model.safetensors").exists():
            return candidate
    raise UsageError(
        f"--model {model}: a calibration lies beside the weights: give a directory of this machine"
    )


def _detector(model: str, flow: GenerativeModel, batch_size: int) -> Detector | None:
    """Read the calibration beside a model, if there is one."""
    from mfimage.ood import Detector

    for candidate in (Path(model), Path(model) / "model"):
        if (candidate / "calibration.json").exists():
            detector = Detector.load(candidate, flow)
            detector.batch_size = batch_size
            return detector
    return None


def _rows(
    paths: list[str], x: Tensor, flow: GenerativeModel, detector: Detector | None, batch: bool, size: int
) -> tuple[list[dict[str, Any]], Drift | None]:
    """Score images; a row each, and the test of the whole set where it is asked for."""
    from mfimage.ood import drift_of
    from mfimage.scoring import score as score_

    if detector is None:
        values = score_(x, flow, size).tolist()
        return [{"path": path, "score": float(s)} for path, s in zip(paths, values, strict=True)], None
    found = detector.score(x)
    columns = (
        paths,
        found.scores.tolist(),
        found.p_values.tolist(),
        ["strange" if strange else "familiar" for strange in found.is_ood.tolist()],
        found.reasons,
    )
    names = ("path", "score", "p_value", "verdict", "reason")
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows, drift_of(found, detector.calibration) if batch else None


def _print(
    rows: list[dict[str, Any]],
    drift: Drift | None,
    skipped: list[dict[str, str]],
    as_json: bool,
    jsonl: bool,
    quiet: bool,
) -> None:
    values: dict[str, Any] = {"scores": rows, "skipped": skipped}
    if drift is not None:
        values["drift"] = vars(drift)
        outcome = f"shifted in {', '.join(drift.changed)}" if drift.shifted else "not shifted"
        console.say(f"the set has {outcome}; {drift.is_ood:.1%} of its images are strange", quiet)
    if jsonl:
        text = "\n".join(console.json_text(row) for row in rows)
    else:
        text = "\n".join("\t".join(_word(value) for value in row.values()) for row in rows)
    console.put(values, text, as_json)


def _word(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    from mfimage.storage import write_text

    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def _write_heatmaps(detector: Detector, x: Tensor, rows: list[dict[str, Any]], folder: Path) -> None:
    from mfimage.datasets import save_pngs

    maps = detector.heatmaps(x)
    for row, path in zip(
        rows, save_pngs(maps, [Path(row["path"]).stem for row in rows], folder), strict=True
    ):
        row["heatmap"] = str(path)
