"""The verbs that measure: evaluate, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfimage import console
from mfimage.cli.loading import load_model
from mfimage.cli.options import (
    BatchSize,
    Data,
    Device,
    Json,
    MaxBad,
    MaxPixels,
    Model,
    Quiet,
    Seed,
    ValueRange,
    Verbose,
)
from mfimage.errors import UsageError


def evaluate(
    data: Data,
    model: Model = "runs/latest",
    outdir: Annotated[
        Path | None, typer.Option("--outdir", "-o", help="Where metrics.json goes; to the run itself.")
    ] = None,
    metrics: Annotated[str, typer.Option(help="Comma-separated.")] = "reconstruction,density,fid",
    samples: Annotated[int, typer.Option(min=2, help="Samples, and real images, in the FID.")] = 2000,
    inception_weights: Annotated[Path | None, typer.Option(help="Genuine FID Inception weights.")] = None,
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
    """Measure a model on the test split: reconstruction beside PCA, density on the manifold, FID."""
    from mfimage.datasets import load
    from mfimage.evaluation import METRICS, describe
    from mfimage.evaluation import evaluate as evaluate_
    from mfimage.inputs import require_images
    from mfimage.storage import write_text

    chosen = tuple(name.strip() for name in metrics.split(","))
    if unknown := set(chosen) - set(METRICS):
        raise UsageError(f"--metrics {', '.join(sorted(unknown))}: choose from {', '.join(METRICS)}")
    flow = load_model(model, device)
    require_images(flow)
    channels, height, width = flow.shape
    test, training = (
        load(
            data, split, (height, width), channels,
            max_bad=max_bad, max_pixels=max_pixels, value_range=console.pair(value_range),
        )
        for split in ("test", "train")
    )  # fmt: skip
    console.list_skipped([*test.skipped, *training.skipped])
    result = evaluate_(
        flow, test, training, metrics=chosen, samples=samples, seed=seed or 0,
        inception_weights=inception_weights, batch_size=batch_size or 256,
        tell=lambda message: console.say(message, quiet),
    )  # fmt: skip
    if outdir is None and (Path(model) / "checkpoints").is_dir():
        outdir = Path(model)  # a run keeps its own measurements
    if outdir is not None:
        write_text(outdir / "metrics.json", console.json_text(result, indent=2) + "\n")
    rows = [("", "model", f"PCA-{flow.settings['dim']}"), *describe(result)]
    console.put(result, "\n".join(f"{name:<40} {ours:>12} {pca:>12}" for name, ours, pca in rows), as_json)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directories that evaluate has measured.")],
    by: Annotated[
        str, typer.Option(help="reconstruction or fid; densities cannot be ranked.")
    ] = "reconstruction",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Rank evaluated models, best first, by what can be compared between them."""
    from mfimage.comparison import compare as compare_
    from mfimage.comparison import read_evaluation

    ranked = compare_({str(run): read_evaluation(run) for run in runs}, by)
    rows = [{"run": run, by: value} for run, value in ranked]
    console.put({"ranking": rows}, "\n".join(f"{value:.6g}\t{run}" for run, value in ranked), as_json)
