"""The verb that finds what does not belong: score."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from mfimage.ood import Detector, Verdicts

_STRANGE = 10  # exit code of --fail-on-ood


def score(
    *inputs: Annotated[opt.Inputs, Parameter(required=False, allow_leading_hyphen=True)],  # - is a stream
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
    streaming: Streaming = Streaming(),
    options: opt.Options = opt.Options(),
) -> None:
    """Score images (higher is stranger), a line each; of a calibrated model also p-value, verdict and reason.

    Without a calibration the score is the reconstruction error a pixel. It is inf, with a reason, where the
    model gives no finite numbers. An input - stands for paths on standard input, one a line, that are scored
    as they come; what cannot be read has a line with its reason, and a drift is told at the image at which it
    is noticed.

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
    refuse_options(inputs)
    if streaming.asked(inputs):
        whole = {"--csv": table, "--heatmaps": heatmaps, "--report": report, "--ood": ood, "--batch": batch}
        whole["--json"] = options.json
        if of_a_set := [name for name, value in whole.items() if value]:
            raise UsageError(f"{' and '.join(of_a_set)}: not of a stream, which has no end; use --jsonl")
        strange = score_stream(model, streaming, sigma, jsonl, fail_on_ood, batch_size, options)
        sys.exit(_STRANGE if strange and fail_on_ood else 0)
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
    asked["--budget"] = streaming.budget is not None
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
        detector = streaming.retuned(detector)
        detector.batch_size = batch_size
        found = detector.score(files, sigma)
        rows = judged(files.paths, found)
        options.say(f"{found.counted}; {detector.calibration.promise}")
        with late:
            _draw(rows, files, found, heatmaps)
        with late:
            more = _of_the_set(detector, files, found, batch, report, ood or [], sigma, options)
    with late:
        if table is not None:
            write_csv(table, rows)
    lines = [console.json_text(row) if jsonl else tuple(map(word, row.values())) for row in rows]
    options.put({"scores": rows, "skipped": files.skipped, **more}, lines)
    late.end()
    if fail_on_ood and any(row["verdict"] == "strange" for row in rows):
        sys.exit(_STRANGE)


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
