"""The verbs that ask a model: sample, log-prob, directions, interpolate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from cyclopts import Parameter, validators

from mfimage.cli import options as opt
from mfimage.cli.values import NUMBERS
from mfimage.console import Late, counted
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.outputs import claim, hold

if TYPE_CHECKING:
    from torch import Tensor

    from mfimage.models.flow import ManifoldFlow

_MEASURES = {"manifold": "{d}-dimensional volume in the image space", "latent": "du in R^{d}"}


def sample(
    *,
    model: opt.Model = "runs/latest",
    count: Annotated[int, Parameter(alias="-n"), opt.at_least(1)] = 64,
    theta: Annotated[tuple[float, ...], NUMBERS] = (),
    detail: Annotated[float, Parameter(validator=validators.Number(gte=0, lte=1))] = 0.0,
    temperature: Annotated[float, Parameter(validator=validators.Number(gt=0, lte=10))] = 1.0,
    label: str | None = None,
    dim: Annotated[int | None, opt.at_least(1)] = None,
    sharp: Annotated[bool, Parameter(negative_bool="no-")] = True,
    outdir: opt.Outdir = Path("samples"),
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = 256,
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Draw new images; the same seed gives the same images at any batch size. Vectors go to one .npz file.

    On a GPU, images of another batch size may differ by a grey level here and there; on a CPU they do not.

    Args:
        count: Number of images.
        theta: Parameters of a conditional model, comma-separated.
        detail: σ of noise from which what the manifold leaves out is drawn, such as 0.5: sharper images, near
            the manifold, by a model that learned to remove noise; 0 stays on it.
        temperature: Factor of the base noise; below 1 images are more usual and less varied than learned.
        label: A class, by its name or number, of a model that learned classes in training.
        dim: Draw from the first so many codes alone, of a model that learned nested ones in training.
        sharp: Draw sharply where the model learned that in training (train --sharp).
    """
    import torch

    from mfimage.datasets import Points, save_png, save_pngs, sheet
    from mfimage.pretrained import from_pretrained

    hold(outdir)
    flow = from_pretrained(model, device)
    if len(theta) != flow.context_features:
        raise UsageError(f"--theta: the model takes {flow.context_features} parameters, not {len(theta)}")
    context = torch.tensor([theta], dtype=torch.float32) if theta else None
    start = f"sample-{seed}" if label is None else f"class-{flow.class_number(label)}-{seed}"
    names = [f"{start}-{i:05d}" for i in range(count)]
    together, points = outdir / "sheet.png", outdir / f"{start}.npz"
    claim(*(outdir / f"{name}.png" for name in names), together, points)
    generator = torch.Generator().manual_seed(seed)
    drawn = flow.sample(count, generator, batch_size, context, detail, temperature, label, dim, sharp)
    drawn = _finite(drawn.cpu(), model)
    if len(flow.shape) == 1:
        rows = None if context is None else context.expand(count, -1)
        path = Points(drawn, "samples", rows).save(points)
        talk.put({"points": str(path)}, [path])
        return
    images = drawn.clamp(0, 1)
    paths = save_pngs(images, names, outdir)
    late = Late()
    with late:
        save_png(sheet(images, max(1, round(count**0.5))), together)
        how = f" of class {label}" if label else ""
        how += f", from the first {counted(dim, 'code')}" if dim else ""
        how += f", at temperature {temperature:g}" if temperature != 1 else ""
        how += ", drawn sharply" if sharp and flow.sharpener is not None else ""
        how += f", with detail from σ = {detail:g}: near the manifold, not on it" if detail else ""
        talk.say(f"{counted(count, 'sample')} and sheet.png in {outdir}{how}")
    talk.caution(flow)
    talk.put({"images": paths}, paths)
    late.end()


def log_prob(
    *inputs: opt.Inputs,
    model: opt.Model = "runs/latest",
    method: Literal["auto", "exact", "lanczos"] = "auto",
    measure: Literal["manifold", "latent"] = "manifold",
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 64,
    options: opt.Options = opt.Options(),
) -> None:
    """Give the exact log-density of images on the manifold, in nats: path, value and standard error a line.

    It compares images under one model, never models.

    Args:
        method: lanczos is an estimate for large d.
        measure: manifold: per volume in the image space; latent: per du.
    """
    import torch

    flow = _manifold_flow(model, options)
    files = options.inputs(inputs, flow)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for begin in range(0, len(files), batch_size):
        part = slice(begin, begin + batch_size)
        with torch.no_grad():
            found = flow.log_density(files.batch(part).to(flow.device), None, method, measure, generator)
        for path, value, error in zip(files.paths[part], found.log_prob, found.standard_error, strict=True):
            rows.append({"path": str(path), "log_prob": float(value), "standard_error": float(error)})
    lines = [(row["path"], f"{row['log_prob']:.6g}", f"{row['standard_error']:.2g}") for row in rows]
    options.say(f"{found.method}; nats with respect to {_MEASURES[measure].format(d=flow.dim)}")
    head = {"method": found.method, "measure": measure, "dim": flow.dim}
    options.put({**head, "densities": rows, "skipped": files.skipped}, lines)


def directions(
    *inputs: opt.Inputs,
    model: opt.Model = "runs/latest",
    count: Annotated[int, opt.at_least(1)] = 8,
    outdir: opt.Outdir = Path("directions"),
    options: opt.Options = opt.Options(),
) -> None:
    """Draw in which ways images can change most on the manifold; strongest first, a row an image.

    A row of directions.png is the projection of an image and then the singular vectors of the decoder's
    Jacobian there: grey stays, bright and dark change in opposite senses.

    Args:
        count: Directions an image.
    """
    import torch

    from mfimage.datasets import save_png, sheet
    from mfimage.inputs import in_batches

    path = outdir / "directions.png"
    opt.given(*inputs)
    hold(outdir)
    claim(path)
    flow = _manifold_flow(model, options)
    files = options.inputs(inputs, flow)
    x = files.batch(slice(None)).to(flow.device)
    count = min(count, flow.dim)
    found = [flow.principal_directions(part, count) for part in x.split(16)]
    maps = _finite(torch.cat([part.images for part in found]).cpu(), model)
    strengths = torch.cat([part.strength for part in found]).tolist()
    peak = maps.abs().flatten(2).amax(2)[..., None, None, None].clamp_min(1e-12)
    projected = in_batches(flow.project, x).clamp(0, 1)
    picture = torch.cat([projected[:, None], 0.5 + maps / peak / 2], 1).flatten(0, 1)
    late = Late()
    with late:
        save_png(sheet(picture, count + 1), path)
    rows = [{"path": source, "strength": s} for source, s in zip(files.paths, strengths, strict=True)]
    options.say("strength: change of the image (root of the summed squares) a unit of u")
    options.caution(flow)
    lines = [(row["path"], *(f"{s:.4g}" for s in row["strength"])) for row in rows]
    options.put({"sheet": path, "directions": rows}, lines if late.error else [*lines, path])
    late.end()


def interpolate(
    first: Path,
    last: Path,
    /,
    *,
    model: opt.Model = "runs/latest",
    points: Annotated[int, opt.at_least(2)] = 9,
    gif: opt.Flag = False,
    outdir: opt.Outdir = Path("interpolated"),
    options: opt.Options = opt.Options(),
) -> None:
    """Go from one image to another on a shortest way along the manifold, in equal steps.

    Args:
        first: Image file.
        last: Another.
        points: Images on the way, both ends included.
        gif: Write the way there and back as way.gif too.
    """
    from mfimage.datasets import save_gif, save_png, save_pngs, sheet

    names, together = [f"step-{i:02d}" for i in range(points)], outdir / "sheet.png"
    moving = outdir / "way.gif"
    opt.given(first, last)
    hold(outdir)
    claim(*(outdir / f"{name}.png" for name in names), together, *[moving] * gif)
    flow = _manifold_flow(model, options)
    ends = options.inputs([str(first), str(last)], flow)
    if len(ends) != 2:
        raise DataError(f"{first}, {last}: two images are needed, not {len(ends)}")
    x = ends.batch(slice(None)).to(flow.device)
    way = _finite(flow.interpolate(x[0], x[1], points).clamp(0, 1).cpu(), model)
    options.caution(flow)
    paths = save_pngs(way, names, outdir)
    late = Late()
    with late:
        save_png(sheet(way, points), together)
        if gif:
            save_gif(way, moving)
    options.put({"images": paths}, paths)
    late.end()


def _finite(images: Tensor, source: str) -> Tensor:
    """Return what a model made; ModelError if it is no finite numbers, which files would show as black."""
    if lost := int((~images.flatten(1).isfinite().all(1)).sum()):
        raise ModelError(f"{source}: gives no finite numbers for {lost} of {len(images)} images")
    return images


def _manifold_flow(source: str, options: opt.Options) -> ManifoldFlow:
    flow = options.load(source, projects=True)
    if not flow.has_manifold_density or flow.conditional:
        raise UsageError(f"{source}: this needs an M-flow or Me-flow of images without parameters")
    return cast("ManifoldFlow", flow)
