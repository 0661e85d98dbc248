"""The verbs that find what does not belong: calibrate, score."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cyclopts import Parameter

from mfimage import console
from mfimage.cli import options as opt
from mfimage.cli.values import DEVIATION
from mfimage.errors import ModelError, UsageError
from mfimage.outputs import claim, hold

if TYPE_CHECKING:
    from mfimage.datasets import ImageSet
    from mfimage.ood import Detector, Verdicts
    from mfimage.ood.large import LargePictures

ScoreName = Literal[
    "auto", "reconstruction", "two-sided", "latent", "density", "joint", "typicality", "complexity",
    "neighbours", "local-dimension",
]  # fmt: skip
_PICTURES = {"heatmap": "", "mask": "-mask", "repaired": "-repaired"}  # column → what the name ends in
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

    The threshold and maps come from the split, and the density from the training split, unless the split is
    all.

    Args:
        alpha: Share of familiar images that may be called strange.
        kind: What is calibrated; auto is the density of all statistics.
        split: Images not trained on: test, valid, or all of a set of its own.
    """
    from mfimage.ood import Detector
    from mfimage.ood.detector import require_enough
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
    detector.calibrate(held, alpha, density, seed, maps=True)
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
    tiles: opt.Flag = False,
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
        heatmaps: Folder for PNG files of where each image is strange: NAME.png the map, NAME-mask.png the
            mask, NAME-repaired.png the image as the model knows it. Rows get boxes, left top right bottom.
        tiles: Score pictures larger than the model in overlapping windows of its size, with one map for the
            whole; the row is that of the strangest window.
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
    from mfimage.ood.large import LargePictures
    from mfimage.ood.scores import score as score_
    from mfimage.ood.statistics import UNSOUND
    from mfimage.pretrained import FILES, locate

    if jsonl and options.json:
        raise UsageError("--json and --jsonl: choose one")
    if ood and report is None:
        raise UsageError("--ood is for the curves of a page: say where with --report")
    if tiles and (batch or report is not None or sigma is not None):
        raise UsageError("--tiles goes with none of --batch, --report and --sigma")
    place = locate(model)
    opt.given(*inputs, *(ood or ()), *(place / name for name in FILES))
    iter_files(ood or ())  # not to find out at the end that they are not there
    claim(table, report)
    hold(heatmaps)
    flow = options.load(str(place), projects=True)
    detector = Detector.load(place, flow) if DETECTOR in flow.measured else None
    asked = {
        "--heatmaps": heatmaps, "--tiles": tiles, "--batch": batch, "--fail-on-ood": fail_on_ood,
        "--report": report,
    }  # fmt: skip
    mapped = _require_learned(model, detector, asked, options)
    more, late = dict[str, Any](), console.Late()
    files = LargePictures.listed(inputs, options.reading) if tiles else options.inputs(inputs, flow)
    claim(table, report, *png_paths(_names(files.paths) if heatmaps else [], heatmaps or Path(), set()))
    if isinstance(files, LargePictures):
        rows = _scored_large(files, cast("Detector", detector), heatmaps, late)
        console.list_skipped(files.skipped)
    elif detector is None:
        errors = [
            float(error) for x in files.batches(batch_size) for error in score_(x, flow, batch_size, sigma)
        ]
        rows = [{"path": path, "score": error} for path, error in zip(files.paths, errors, strict=True)]
        for row in rows if math.inf in errors else ():
            row["reason"] = UNSOUND if row["score"] == math.inf else ""
    else:
        detector.batch_size = batch_size
        found = detector.score(files, sigma, mapped)
        rows = _judged(files.paths, found)
        options.say(f"{found.counted}; {detector.calibration.promise}")
        with late:
            _draw(rows, found, heatmaps, set())
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


def _require_learned(
    model: str, detector: Detector | None, asked: dict[str, Any], options: opt.Options
) -> bool:
    """Raise ModelError if what is asked for needs what a model never learned; say whether maps are made."""
    from mfimage.ood.calibration import NO_MAPS

    wanted = [name for name, value in asked.items() if value]
    if detector is None and wanted:
        need = f"{' and '.join(wanted)} {'need' if len(wanted) > 1 else 'needs'}"
        raise ModelError(f"{model}: not calibrated, which {need}: mfimage calibrate IMAGES --model {model}")
    if detector is None or not {"--heatmaps", "--tiles", "--report"} & {*wanted}:
        return False
    known = detector.calibration.maps is not None
    if not known and {"--heatmaps", "--tiles"} & {*wanted}:
        raise ModelError(f"{model}: {NO_MAPS}: mfimage calibrate IMAGES --model {model}")
    if not known:
        options.say(f"note: {NO_MAPS}: the page has none")
    return known


def _judged(paths: Sequence[str], found: Verdicts) -> list[dict[str, Any]]:
    """Give the row of each image."""
    columns: dict[str, Any] = {
        "path": paths,
        "score": found.scores.tolist(),
        "p_value": found.p_values.tolist(),
        **dict(
            zip(("p_far_out", "p_ordinary"), found.ways.T.tolist(), strict=True) if len(found.ways) else ()
        ),
        "verdict": ["strange" if strange else "familiar" for strange in found.is_ood],
        "reason": found.reasons,
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _scored_large(
    files: LargePictures, detector: Detector, heatmaps: Path | None, late: console.Late
) -> list[dict[str, Any]]:
    """Give the row of each large picture, and draw where it is strange before the next one is read."""
    rows, used = list[dict[str, Any]](), set[str]()
    for path, found in files.scored(detector):
        rows += _judged([path], found)
        with late:
            _draw(rows[-1:], found, heatmaps, used)
    return rows


def _names(paths: Sequence[str]) -> list[str]:
    """The names of the pictures of each image, in the order in which they are written."""
    return [f"{Path(path).stem}{ending}" for path in paths for ending in _PICTURES.values()]


def _draw(rows: list[dict[str, Any]], found: Verdicts, folder: Path | None, used: set[str]) -> None:
    """Add to rows the boxes of strange places, if they are known, and pictures where a folder is named."""
    from mfimage.datasets import save_pngs

    for row, place in zip(rows, found.places, strict=True) if found.places else ():
        if folder is not None:
            pictures = place.heat.clamp(0, 1), place.mask.float(), place.repaired
            paths = save_pngs(pictures, _names([row["path"]]), folder, used)
            row.update(zip(_PICTURES, map(str, paths), strict=True))
        row["boxes"] = [list(box) for box in place.boxes]


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
