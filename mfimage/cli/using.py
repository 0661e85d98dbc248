"""The verbs that use a model: sample, score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfimage import console
from mfimage.cli.loading import load_model
from mfimage.cli.options import (
    BatchSize,
    Device,
    Inputs,
    Json,
    MaxBad,
    MaxPixels,
    Model,
    Outdir,
    Quiet,
    Seed,
    ValueRange,
    Verbose,
)


def sample(
    model: Model = "runs/latest",
    n: Annotated[int, typer.Option("-n", "--count", min=1, help="Number of images.")] = 64,
    theta: Annotated[
        str | None, typer.Option(help="Parameters of a conditional model, comma-separated.")
    ] = None,
    outdir: Outdir = Path("samples"),
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = 256,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw new images; the same seed gives the same images at any batch size. Vectors go to one .npz file."""
    import torch

    from mfimage.datasets import Points, save_png, save_pngs, sheet

    flow = load_model(model, device)
    context = console.parameters(theta, flow.settings.get("context", 0))
    drawn = flow.sample(n, torch.Generator().manual_seed(seed or 0), batch_size or 256, context).cpu()
    if len(flow.shape) == 1:
        rows = None if context is None else context.expand(n, -1)
        path = Points(drawn, "samples", rows).save(outdir / f"sample-{seed}.npz")
        console.put({"points": str(path)}, str(path), as_json)
        return
    images = drawn.clamp(0, 1)
    paths = save_pngs(images, [f"sample-{seed}-{i:05d}" for i in range(n)], outdir)
    save_png(sheet(images, max(1, round(n**0.5))), outdir / "sheet.png")
    console.say(f"{n} samples and sheet.png in {outdir}", quiet)
    console.put({"images": [str(p) for p in paths]}, "\n".join(map(str, paths)), as_json)


def score(
    inputs: Inputs,
    model: Model = "runs/latest",
    max_bad: MaxBad = 0.05,
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    device: Device = "auto",
    batch_size: BatchSize = 256,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score images by reconstruction error a pixel (higher is stranger): path and score, a line each."""
    from mfimage.datasets import load_files
    from mfimage.scoring import score as score_

    flow = load_model(model, device, projects=True)
    channels, height, width = flow.shape
    files = load_files(
        inputs, (height, width), channels,
        max_bad=max_bad, max_pixels=max_pixels, value_range=console.pair(value_range),
    )  # fmt: skip
    console.list_skipped(files.skipped)
    scores = [float(s) for s in score_(files.batch(slice(None)), flow, batch_size or 256)]
    rows = [{"path": str(path), "score": s} for path, s in zip(files.paths, scores, strict=True)]
    lines = "\n".join(f"{row['path']}\t{row['score']:.6g}" for row in rows)
    console.put({"scores": rows, "skipped": console.as_json(files.skipped)}, lines, as_json)
