"""The verb that finds what does not belong: score."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter

from mfimage import console
from mfimage.cli import options as opt
from mfimage.cli.lists import refuse_options
from mfimage.cli.rows import judged, word
from mfimage.cli.stream import Streaming, score_stream
from mfimage.cli.values import DEVIATION
from mfimage.errors import ModelError, UsageError
from mfimage.outputs import claim, hold

if TYPE_CHECKING:
    from mfimage.datasets import ImageSet
    from mfimage.models import GenerativeModel
    from mfimage.ood import Detector, Verdicts
    from mfimage.ood.large import LargePictures

_PICTURES = {"heatmap": "", "mask": "-mask", "repaired": "-repaired"}  # column → what the name ends in
_STRANGE = 10  # exit code of --fail-on-ood


def score(
    *inputs: Annotated[opt.Inputs, Parameter(required=False, allow_leading_hyphen=True)],  # - is a stream
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
    streaming: Streaming = Streaming(),
    options: opt.Options = opt.Options(),
) -> None:
    """Score images (higher is stranger), a line each; of a calibrated model also p-value, verdict and reason.

    Without a calibration the score is the reconstruction error a pixel. It is inf, with a reason, where the
    model gives no finite numbers. An input - stands for paths on standard input, one a line, that are scored
    as they come; what cannot be read has a line with its reason, and a drift is told at the image at which it
    is noticed. Of a folder laid out as for anomalib (train/good, test/good) the images of test are scored,
    with the name of their folder as class.

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
    from mfimage.pretrained import FILES, locate

    if jsonl and options.json:
        raise UsageError("--json and --jsonl: choose one")
    refuse_options(inputs)
    if streaming.asked(inputs):
        whole = {"--csv": table, "--heatmaps": heatmaps, "--report": report, "--ood": ood, "--batch": batch}
        _refuse_of_streams({**whole, "--tiles": tiles, "--json": options.json})
        strange = score_stream(model, streaming, sigma, jsonl, fail_on_ood, batch_size, options)
        sys.exit(_STRANGE if strange and fail_on_ood else 0)
    if ood and report is None:
        raise UsageError("--ood is for the curves of a page: say where with --report")
    if tiles and (batch or report is not None or sigma is not None):
        raise UsageError("--tiles goes with none of --batch, --report and --sigma")
    inputs, classed = _to_be_scored(inputs)
    place = locate(model)
    opt.given(*inputs, *(ood or ()), *(place / name for name in FILES))
    iter_files(ood or ())  # not to find out at the end that they are not there
    claim(table, report)
    hold(heatmaps)
    flow = options.load(str(place), projects=True)
    detector = Detector.load(place, flow) if DETECTOR in flow.measured else None
    asked = {
        "--heatmaps": heatmaps, "--tiles": tiles, "--batch": batch, "--fail-on-ood": fail_on_ood,
        "--report": report, "--budget": streaming.budget is not None,
    }  # fmt: skip
    mapped = _require_learned(model, detector, asked, options)
    more, late = dict[str, Any](), console.Late()
    files = LargePictures.listed(inputs, options.reading) if tiles else options.inputs(inputs, flow)
    claim(table, report, *png_paths(_names(files.paths) if heatmaps else [], heatmaps or Path(), set()))
    if detector is not None:
        detector = streaming.retuned(detector)
        detector.batch_size = batch_size
    if isinstance(files, LargePictures):
        rows = _scored_large(files, cast("Detector", detector), heatmaps, late)
        console.list_skipped(files.skipped)
    elif detector is None:
        rows = _errors(files, flow, batch_size, sigma)
    else:
        found = detector.score(files, sigma, mapped)
        rows = judged(files.paths, found)
        options.say(f"{found.counted}; {detector.calibration.promise}")
        with late:
            _draw(rows, found, heatmaps, set())
        with late:
            more = _of_the_set(detector, files, found, batch, report, ood or [], sigma, options)
    _add_classes(rows if classed else [], options)
    with late:
        if table is not None:
            write_csv(table, rows)
    lines = [console.json_text(row) if jsonl else tuple(map(word, row.values())) for row in rows]
    options.put({"scores": rows, "skipped": files.skipped, **more}, lines)
    late.end()
    if fail_on_ood and any(row["verdict"] == "strange" for row in rows):
        sys.exit(_STRANGE)


def _refuse_of_streams(whole: dict[str, Any]) -> None:
    """Raise UsageError if something is asked for that is of a set which has an end."""
    if of_a_set := [name for name, value in whole.items() if value]:
        raise UsageError(f"{' and '.join(of_a_set)}: not of a stream, which has no end; use --jsonl")


def _errors(
    files: ImageSet, flow: GenerativeModel, batch_size: int, sigma: float | None
) -> list[dict[str, Any]]:
    """Give the row of each image where nothing was calibrated: its reconstruction error."""
    from mfimage.ood.scores import score
    from mfimage.ood.statistics import UNSOUND

    errors = [float(error) for x in files.batches(batch_size) for error in score(x, flow, batch_size, sigma)]
    rows: list[dict[str, Any]] = [
        {"path": path, "score": error} for path, error in zip(files.paths, errors, strict=True)
    ]
    for row in rows if math.inf in errors else ():
        row["reason"] = UNSOUND if row["score"] == math.inf else ""
    return rows


def _to_be_scored(inputs: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Put the test images in the place of folders laid out as for anomalib; say whether there are some."""
    from mfimage.ood.defects import is_defect_root

    found = tuple(str(Path(one, "test")) if is_defect_root(one) else one for one in inputs)
    return found, found != inputs


def _add_classes(rows: list[dict[str, Any]], options: opt.Options) -> None:
    """Add to each row the folder that its image lies in, and tell how many of each are strange."""
    for row in rows:
        row["class"] = Path(row["path"]).parent.name
    for name in sorted({row["class"] for row in rows}):
        verdicts = [row.get("verdict") for row in rows if row["class"] == name]
        if None not in verdicts:
            options.say(f"  {name}: {verdicts.count('strange')} of {len(verdicts)} strange")


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


def _scored_large(
    files: LargePictures, detector: Detector, heatmaps: Path | None, late: console.Late
) -> list[dict[str, Any]]:
    """Give the row of each large picture, and draw where it is strange before the next one is read."""
    rows, used = list[dict[str, Any]](), set[str]()
    for path, found in files.scored(detector):
        rows += judged([path], found)
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
    from mfimage.ood.page import score_page

    drift = drift_of(found, detector.calibration) if batch else None
    if drift is not None:
        options.say(f"the set has {drift.outcome}; {drift.is_ood:.1%} of its images are strange")
    if report is not None:
        sets = {name: options.inputs([name], detector.model) for name in ood}
        strange = {name: detector.score(images, sigma).scores for name, images in sets.items()}
        page = score_page(files, found, detector.calibration, drift, strange)
        options.say(f"{page.write(report)}: the page")
    return {} if drift is None else {"drift": vars(drift)}
