"""The verb that draws from a model: sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfimage import console
from mfimage.cli.loading import load_model
from mfimage.cli.options import (
    BatchSize,
    Device,
    Json,
    Model,
    Outdir,
    Quiet,
    Seed,
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
    context = console.parameters(theta, flow.context_features)
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
