"""The verbs that measure: evaluate, compare."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import Parameter

from mfimage import console
from mfimage.cli import options as opt
from mfimage.errors import UsageError
from mfimage.outputs import claim, hold
from mfimage.streams import printable

if TYPE_CHECKING:
    from torch import Tensor

    from mfimage.eval import Comparison

MetricName = Literal[
    "reconstruction", "density", "geometry", "latent", "memorisation", "fd", "fid", "kid", "prdc"
]
ProtocolName = Literal["mfimage", "brehmer2020", "clean-fid"]


@Parameter(name="*")
@dataclass(frozen=True)
class Measuring:
    """What is measured, and how.

    Args:
        metrics: Comma-separated; all by default.
        protocol: How images are treated before they are measured.
        samples: Samples, and real images, in distances; as many as there are by default.
        density_images: Images whose exact log-density is computed.
        inception_weights: Genuine FID Inception weights.
        seed: Of everything random.
        batch_size: Images at a time.
    """

    metrics: Annotated[tuple[str, ...], opt.comma_separated(MetricName)] = get_args(MetricName)
    protocol: ProtocolName = "mfimage"
    samples: Annotated[int | None, opt.at_least(2)] = None
    density_images: Annotated[int, opt.at_least(1)] = 500
    inception_weights: Path | None = None
    seed: opt.Seed = 0
    batch_size: opt.BatchSize = 256


def evaluate(
    *inputs: Annotated[opt.Data, Parameter(name="[MODEL]-DATA", required=False)],
    model: Annotated[str | None, Parameter(alias="-m")] = None,
    outdir: opt.OwnOutdir = None,
    ood: Path | None = None,
    masks: Path | None = None,
    measuring: Measuring = Measuring(),
    options: opt.Options = opt.Options(),
) -> None:
    """Measure a model on the test split: samples, reconstruction, density, geometry, with intervals.

    A broken-off evaluation goes on where it was. Several processes share the work
    (accelerate launch -m mfimage evaluate ...).

    With --ood it measures, instead, how well a calibrated model finds defects, and where: AUROC of images and
    of pixels and AUPRO, for each kind, on images laid out as for anomalib: test/good, test/DEFECT,
    ground_truth/DEFECT. DATA that is a folder with train/good too is taken so, unless --metrics are chosen.

    Args:
        inputs: Run, model directory or Hub id, then a named set, folder, zip or array file; several sets are
            joined. A run alone is measured on its own data.
        model: The model; all arguments are data then.
        outdir: Where metrics.json and evaluation.html go, to the run itself if none; with --ood where
            defects.json goes, nowhere if none.
        ood: Folder that holds test, or is it: good images in good, a folder for each kind of defect.
        masks: Folder of a folder for each kind, where NAME_mask.png or NAME.png is the mask of NAME.png,
            white in the defect; ground_truth beside test if none.
    """
    from mfimage.eval import evaluate as evaluate_
    from mfimage.eval.cache import is_main
    from mfimage.eval.evaluation import page_of
    from mfimage.ood.defects import is_defect_root

    if ood is not None or masks is not None:
        _evaluate_defects(inputs, model, outdir, ood, masks, measuring, options)
        return
    model, inputs = _named(inputs, model, options)
    if len(inputs) == 1 and is_defect_root(inputs[0]) and measuring.metrics == get_args(MetricName):
        options.notes([f"laid out as for anomalib: --ood {shlex.quote(inputs[0])} is meant"])
        _evaluate_defects((), model, outdir, Path(inputs[0]), masks, measuring, options)
        return
    _choose_gpu()
    if outdir is None and (Path(model) / "checkpoints").is_dir():
        outdir = Path(model)  # a run keeps its own measurements
    if outdir is not None and is_main():
        opt.given(*inputs, measuring.inception_weights)
        hold(outdir)
        claim(outdir / "metrics.json", outdir / "evaluation.html")
    flow = options.load(model)
    test, training = (options.split(inputs, split, flow) for split in ("test", "train"))
    tell = options.say if is_main() else lambda message: None
    report = evaluate_(test, flow, training, **asdict(measuring), tell=tell)
    if not is_main():
        return
    lines: list[object] = [*report.text().split("\n")]
    late = console.Late()
    with late:
        if outdir is not None:
            report.save(outdir / "metrics.json")
            lines.append(page_of(report, Path(model).name).write(outdir / "evaluation.html"))
    options.put(report.as_json(), lines)
    late.end()


def _named(inputs: tuple[str, ...], model: str | None, options: opt.Options) -> tuple[str, tuple[str, ...]]:
    """Tell the model from the data; of a run alone these are its own."""
    from mfimage.pretrained import WEIGHTS
    from mfimage.run import Run

    if not inputs and model is None:
        raise UsageError("name images to measure a model on, or a run alone: mfimage evaluate [MODEL] DATA")
    if model is None:
        learned = any(Path(inputs[0], name).is_file() for name in ("data.json", WEIGHTS))
        model, inputs = (inputs[0], inputs[1:]) if learned or inputs[1:] else ("runs/latest", inputs)
    if not inputs:
        inputs = tuple(Run(model).sources())
        if "DATA" in inputs:
            raise UsageError(f"{model}: name images to measure it on: mfimage evaluate {model} DATA")
        options.say(f"on what the run was given: {shlex.join(inputs)}")
    return model, inputs


def _evaluate_defects(
    inputs: Sequence[str],
    model: str | None,
    outdir: Path | None,
    ood: Path | None,
    masks: Path | None,
    measuring: Measuring,
    options: opt.Options,
) -> None:
    """Measure how well a calibrated model finds the defects of a folder, and where."""
    from mfimage.ood import Detector
    from mfimage.ood.defects import evaluate_defects, read_defects
    from mfimage.pretrained import locate

    if ood is None:
        raise UsageError("--masks goes with --ood: the folder of images with defects")
    if len(inputs) + (model is not None) > 1:
        raise UsageError("--ood is the data: name the model alone, mfimage evaluate MODEL --ood FOLDER")
    place = locate(model or (inputs[0] if inputs else "runs/latest"))
    opt.given(ood, masks)
    path = None if outdir is None else outdir / "defects.json"
    hold(outdir)
    claim(path)
    flow = options.load(str(place), projects=True)
    detector = Detector.load(place, flow)
    detector.batch_size = measuring.batch_size
    images = read_defects(ood, masks, flow.shape, options.reading)
    console.list_skipped(images.skipped)
    report, late = evaluate_defects(detector, images, measuring.seed), console.Late()
    lines: list[object] = [*report.table().text().split("\n")]
    with late:
        if path is not None:
            lines.append(report.save(path))
    options.put(report.as_json(), lines)
    late.end()


def compare(
    *runs: Annotated[str, Parameter(required=True)],
    data: list[str] | None = None,
    by: str | None = None,
    outdir: opt.Outdir = Path("comparison"),
    measuring: Measuring = Measuring(),
    options: opt.Options = opt.Options(),
) -> None:
    """Put models side by side: a table (also as JSON, Markdown, HTML) and a sheet of pictures.

    Baselines are trained with the settings of the first run. What cannot be ranked is not.

    Args:
        runs: Run directories; with --data also the baselines pca, ae, af and pie.
        data: Evaluate on these images, instead of reading what evaluate left.
        by: Only rank, by the number of this name, such as mse or fid.
        outdir: Where tables and baselines go.
    """
    from mfimage.config import BASELINES
    from mfimage.eval import compare as compare_
    from mfimage.eval import read_evaluation

    opt.given(*(data or ()), *(Path(run) / "metrics.json" for run in runs))
    if data is not None or by is None:
        hold(outdir)
        evaluated = {_evaluation(outdir, run) for run in runs if data is not None}
        tables = [outdir / f"comparison.{kind}" for kind in ("json", "md", "html")]
        claim(*evaluated, *tables, outdir / "sheet.png")
    if data is None:
        if untrained := [run for run in runs if run in BASELINES and not Path(run).exists()]:
            raise UsageError(f"{untrained[0]}: is trained first, on the images that --data names")
        compared = compare_({printable(run): read_evaluation(Path(run) / "metrics.json") for run in runs})
    else:
        compared = _evaluated(runs, data, outdir, measuring, options)
    if by is not None:
        ranked = compared.ranking(by)
        rows = [{"run": run, by: value} for run, value in ranked]
        options.put({"ranking": rows}, [(f"{value:.6g}", run) for run, value in ranked])
        return
    lines: list[object] = [*compared.text().split("\n")]
    late = console.Late()
    with late:
        lines.append(compared.save(outdir))
    options.put(compared.as_json(), lines)
    late.end()


def _evaluated(
    runs: Sequence[str], data: list[str], outdir: Path, measuring: Measuring, options: opt.Options
) -> Comparison:
    """Evaluate runs and baselines, which are trained first; what was evaluated so before is read."""
    from mfimage.config import BASELINES
    from mfimage.eval import compare as compare_
    from mfimage.eval.comparison import picture_rows
    from mfimage.eval.evaluation import evaluate_once
    from mfimage.training import baseline

    wanted = [run for run in runs if Path(run).exists() or run not in BASELINES]
    if not wanted:
        raise UsageError("baselines are trained with the settings of a run: name one before them")
    first = options.load(wanted[0])
    test, training = (options.split(data, split, first) for split in ("test", "train"))
    reports: dict[str, Any] = {}
    models = {}
    for run in runs:
        options.say(run)
        if run not in wanted:
            with opt.advising(opt.SAME_COMMAND):
                flow = baseline(run, wanted[0], training, outdir / run, options.device, options.quiet)
        else:
            flow = first if run == wanted[0] else options.load(run)
        file, name = _evaluation(outdir, run), printable(run)
        models[name] = flow
        reports[name] = evaluate_once(file, test, flow, training, **asdict(measuring), tell=options.say)
    pictures: dict[str, Tensor] = {}
    with console.optional("pictures"):
        pictures = picture_rows(models, test, measuring.seed)
    return compare_(reports, pictures)


def _evaluation(outdir: Path, run: str) -> Path:
    """Where the evaluation of a run is kept."""
    return outdir / f"{run.strip('/').replace('/', '-')}.json"


def _choose_gpu() -> None:
    """Of several processes, each takes its own."""
    import torch

    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
