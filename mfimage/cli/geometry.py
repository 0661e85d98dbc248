"""The verbs that look at the manifold itself: log-prob, directions, interpolate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from mfimage.errors import UsageError

if TYPE_CHECKING:
    from mfimage.datasets import ImageSet
    from mfimage.models.flow import ManifoldFlow


def log_prob(
    inputs: Inputs,
    model: Model = "runs/latest",
    method: Annotated[str, typer.Option(help="auto, exact, or lanczos: an estimate for large d.")] = "auto",
    measure: Annotated[
        str, typer.Option(help="manifold: per volume in the image space; latent: per du.")
    ] = "manifold",
    max_bad: MaxBad = 0.05,
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = 64,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Give the exact log-density of images on the manifold, in nats: path, value and standard error a line.

    It compares images under one model, never models.
    """
    import torch

    flow = _manifold_flow(model, device)
    files = _files(inputs, flow, max_bad, max_pixels, console.pair(value_range))
    generator = torch.Generator().manual_seed(seed or 0)
    rows = []
    for begin in range(0, len(files), batch_size or 64):
        part = slice(begin, begin + (batch_size or 64))
        with torch.no_grad():
            x = files.batch(part).to(flow.device)
            found = flow.log_density(x, None, method, measure, generator)
        for path, value, error in zip(files.paths[part], found.log_prob, found.standard_error, strict=True):
            rows.append({"path": str(path), "log_prob": float(value), "standard_error": float(error)})
    lines = "\n".join(f"{row['path']}\t{row['log_prob']:.6g}\t{row['standard_error']:.2g}" for row in rows)
    console.say(f"{found.method}; nats with respect to {_MEASURES[measure].format(d=flow.dim)}", quiet)
    head = {"method": found.method, "measure": measure, "dim": flow.dim}
    console.put({**head, "densities": rows, "skipped": console.as_json(files.skipped)}, lines, as_json)


_MEASURES = {"manifold": "{d}-dimensional volume in the image space", "latent": "du in R^{d}"}


def directions(
    inputs: Inputs,
    model: Model = "runs/latest",
    count: Annotated[int, typer.Option(min=1, help="Directions an image.")] = 8,
    outdir: Outdir = Path("directions"),
    max_bad: MaxBad = 0.05,
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw in which ways images can change most on the manifold; strongest first, a row an image.

    A row of directions.png is the projection of an image and then the singular vectors of the decoder's
    Jacobian there: grey stays, bright and dark change in opposite senses.
    """
    import torch

    from mfimage.datasets import save_png, sheet

    flow = _manifold_flow(model, device)
    files = _files(inputs, flow, max_bad, max_pixels, console.pair(value_range))
    x = files.batch(slice(None)).to(flow.device)
    count = min(count, flow.dim)
    found = [flow.principal_directions(part, count) for part in x.split(16)]
    maps = torch.cat([part.images for part in found]).cpu()
    strengths = torch.cat([part.strength for part in found]).cpu()
    peak = maps.abs().flatten(2).amax(2)[..., None, None, None].clamp_min(1e-12)
    with torch.no_grad():
        projected = torch.cat([flow.project(part) for part in x.split(256)]).clamp(0, 1).cpu()
    picture = torch.cat([projected[:, None], 0.5 + maps / peak / 2], 1).flatten(0, 1)
    outdir.mkdir(parents=True, exist_ok=True)
    path = outdir / "directions.png"
    save_png(sheet(picture, count + 1), path)
    rows = [
        {"path": str(source), "strength": strength.tolist()}
        for source, strength in zip(files.paths, strengths, strict=True)
    ]
    console.say("strength: change of the image (root of the summed squares) a unit of u", quiet)
    lines = "\n".join(f"{row['path']}\t" + "\t".join(f"{s:.4g}" for s in row["strength"]) for row in rows)
    console.put({"sheet": str(path), "directions": rows}, f"{lines}\n{path}", as_json)


def interpolate(
    first: Annotated[Path, typer.Argument(help="Image file.")],
    last: Annotated[Path, typer.Argument(help="Another.")],
    model: Model = "runs/latest",
    points: Annotated[int, typer.Option(min=2, help="Images on the way, both ends included.")] = 9,
    outdir: Outdir = Path("interpolated"),
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Go from one image to another on a shortest way along the manifold, in equal steps."""
    from mfimage.datasets import save_png, save_pngs, sheet

    flow = _manifold_flow(model, device)
    files = _files([str(first), str(last)], flow, 0.0, max_pixels, console.pair(value_range))
    ends = files.batch(slice(None)).to(flow.device)
    way = flow.interpolate(ends[0], ends[1], points).clamp(0, 1).cpu()
    paths = save_pngs(way, [f"step-{i:02d}" for i in range(points)], outdir)
    save_png(sheet(way, points), outdir / "sheet.png")
    console.put({"images": [str(p) for p in paths]}, "\n".join(map(str, paths)), as_json)


def _manifold_flow(source: str, device: str) -> ManifoldFlow:
    from mfimage.models import ManifoldFlow

    flow = load_model(source, device, projects=True)
    if not isinstance(flow, ManifoldFlow) or flow.conditional:
        raise UsageError(f"{source}: this needs an M-flow or Me-flow of images without parameters")
    return flow


def _files(
    inputs: list[str],
    flow: ManifoldFlow,
    max_bad: float,
    max_pixels: int,
    value_range: tuple[float, float] | None,
) -> ImageSet:
    from mfimage.config import Reading
    from mfimage.datasets import load_files

    channels, height, width = flow.shape
    reading = Reading(max_bad, max_pixels, value_range)
    files = load_files(inputs, (height, width), channels, reading=reading)
    console.list_skipped(files.skipped)
    return files
