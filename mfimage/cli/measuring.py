"""The verbs that measure: evaluate, compare."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfimage import console
from mfimage.cli.loading import load_model
from mfimage.cli.options import BatchSize, Device, Json, MaxBad, MaxPixels, Quiet, Seed, ValueRange, Verbose
from mfimage.errors import UsageError

if TYPE_CHECKING:
    from mfimage.datasets import Dataset
    from mfimage.models import GenerativeModel

Metrics = Annotated[
    str | None,
    typer.Option(help="Comma-separated; of reconstruction, density, geometry, latent, memorisation, fd, fid, "
    "kid, prdc. All by default."),
]  # fmt: skip
ProtocolName = Annotated[str, typer.Option("--protocol", help="mfimage, brehmer2020 or clean-fid.")]
Samples = Annotated[
    int | None,
    typer.Option(min=2, help="Samples, and real images, in distances; as many as there are by default."),
]
InceptionFile = Annotated[Path | None, typer.Option(help="Genuine FID Inception weights.")]
DensityImages = Annotated[int, typer.Option(min=1, help="Images whose exact log-density is computed.")]


def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] DATA...",
            help="Run, model directory or Hub id, then a named set, folder, "
            "zip or array file; several sets are joined.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model; all arguments are data then.")
    ] = None,
    metrics: Metrics = None,
    protocol: ProtocolName = "mfimage",
    samples: Samples = None,
    density_images: DensityImages = 500,
    outdir: Annotated[
        Path | None,
        typer.Option("--outdir", "-o", help="Where metrics.json and evaluation.html go; to the run itself."),
    ] = None,
    inception_weights: InceptionFile = None,
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
    """Measure a model on the test split: samples, reconstruction, density, geometry, with intervals.

    A broken-off evaluation goes on where it was. Several processes share the work
    (accelerate launch -m mfimage evaluate ...).
    """  # fmt: skip
    from mfimage.eval import evaluate as evaluate_
    from mfimage.eval.cache import is_main
    from mfimage.eval.result_pages import write_evaluation
    from mfimage.inputs import require_images

    if model is None:
        model, inputs = ("runs/latest", inputs) if len(inputs) == 1 else (inputs[0], inputs[1:])
    chosen = _metrics(metrics)
    _choose_gpu()
    flow = load_model(model, device)
    require_images(flow)
    test, training = (
        _load(inputs, split, flow, max_bad, max_pixels, value_range) for split in ("test", "train")
    )
    console.list_skipped([*test.skipped, *training.skipped])
    report = evaluate_(
        test, flow, training, metrics=chosen, protocol=protocol, samples=samples,
        density_images=density_images, seed=seed or 0, inception_weights=inception_weights,
        batch_size=batch_size or 256, tell=lambda message: console.say(message, quiet or not is_main()),
    )  # fmt: skip
    if not is_main():
        return
    if outdir is None and (Path(model) / "checkpoints").is_dir():
        outdir = Path(model)  # a run keeps its own measurements
    text = report.text()
    if outdir is not None:
        report.save(outdir / "metrics.json")
        text += f"\n{write_evaluation(outdir / 'evaluation.html', report, Path(model).name)}"
    console.put(report.as_json(), text, as_json)


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Run directories; with --data also the baselines pca, ae, af and pie.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="Evaluate on these images, instead of reading what evaluate left."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Only rank, by the number of this name, such as mse or fid.")
    ] = None,
    outdir: Annotated[Path, typer.Option("--outdir", "-o", help="Where tables and baselines go.")] = Path(
        "comparison"
    ),
    metrics: Metrics = None,
    protocol: ProtocolName = "mfimage",
    samples: Samples = None,
    density_images: DensityImages = 500,
    inception_weights: InceptionFile = None,
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
    """Put models side by side: a table (also as JSON, Markdown, HTML) and a sheet of pictures.

    Baselines are trained with the settings of the first run. What cannot be ranked is not.
    """
    from mfimage.eval import compare as compare_
    from mfimage.eval import read_evaluation

    if data is None:
        compared = compare_({run: read_evaluation(Path(run) / "metrics.json") for run in runs})
    else:
        asked = {
            "metrics": _metrics(metrics), "protocol": protocol, "samples": samples,
            "density_images": density_images, "seed": seed or 0, "inception_weights": inception_weights,
            "batch_size": batch_size or 256,
        }  # fmt: skip
        reading = (max_bad, max_pixels, value_range)
        compared = _evaluated(runs, data, outdir, device, asked, reading, quiet)
    if by is not None:
        ranked = compared.ranking(by)
        rows = [{"run": run, by: value} for run, value in ranked]
        console.put({"ranking": rows}, "\n".join(f"{value:.6g}\t{run}" for run, value in ranked), as_json)
        return
    page = compared.save(outdir)
    console.put(compared.as_json(), f"{compared.text()}\n{page}", as_json)


def _evaluated(
    runs: list[str],
    data: list[str],
    outdir: Path,
    device: str,
    asked: dict[str, Any],
    reading: Any,
    quiet: bool,
) -> Any:
    """Evaluate runs and baselines, which are trained first; what was evaluated so before is read."""
    from mfimage.eval import compare as compare_
    from mfimage.eval.comparison import picture_rows
    from mfimage.eval.evaluation import evaluate_once
    from mfimage.inputs import require_images
    from mfimage.training import BASELINES, baseline

    wanted = [run for run in runs if Path(run).exists() or run not in BASELINES]
    if not wanted:
        raise UsageError("baselines are trained with the settings of a run: name one before them")
    first = load_model(wanted[0], device)
    require_images(first)
    test, training = (_load(data, split, first, *reading) for split in ("test", "train"))
    console.list_skipped([*test.skipped, *training.skipped])
    reports, models = {}, {}
    for run in runs:
        console.say(run, quiet)
        if run not in wanted:
            flow = baseline(run, wanted[0], training, outdir / run, device, quiet)
        else:
            flow = first if run == wanted[0] else load_model(run, device)
        file = outdir / f"{run.strip('/').replace('/', '-')}.json"
        models[run] = flow
        reports[run] = evaluate_once(
            file, test, flow, training, **asked, tell=lambda message: console.say(message, quiet)
        )
    return compare_(reports, picture_rows(models, test, asked["seed"]))


def _metrics(text: str | None) -> tuple[str, ...]:
    from mfimage.eval import METRICS

    chosen = METRICS if text is None else tuple(name.strip() for name in text.split(","))
    if unknown := set(chosen) - set(METRICS):
        raise UsageError(f"--metrics {', '.join(sorted(unknown))}: choose from {', '.join(METRICS)}")
    return chosen


def _load(
    data: list[str],
    split: str,
    flow: GenerativeModel,
    max_bad: float,
    max_pixels: int,
    value_range: str | None,
) -> Dataset:
    """The images of a split in the model's shape."""
    from mfimage.config import Reading
    from mfimage.datasets import load

    channels, height, width = flow.shape
    return load(
        data, split, (height, width), channels,
        reading=Reading(max_bad, max_pixels, console.pair(value_range)),
    )  # fmt: skip


def _choose_gpu() -> None:
    """Of several processes, each takes its own."""
    import torch

    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
