"""The command `mfimage`: results on stdout, talk on stderr, nothing heavy imported before a verb runs.

Exit codes: 0 done, 1 internal error, 2 usage, 3 bad data, 4 bad model, 5 diverged, 6 disk or memory full,
130/143 interrupted by SIGINT/SIGTERM (training has saved its step).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve a shared machine

import typer

from mfimage import console
from mfimage.errors import DataError, MixedSizesError, UsageError
from mfimage.options import (
    BatchSize,
    ConfigFile,
    Data,
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

if TYPE_CHECKING:
    from mfimage.datasets import ImageSet
    from mfimage.models import GenerativeModel

app = typer.Typer(
    help="Image manifold-learning flows: learn the manifold of a folder of images, then denoise by "
    "projection, sample, and score what does not belong.",
    epilog="Exit codes: 0 done, 1 internal error, 2 usage, 3 bad data, 4 bad model, 5 training diverged, "
    "6 disk or memory full, 130/143 interrupted (training has saved its step).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    data: Data,
    outdir: Outdir = Path("runs/latest"),
    preset: Annotated[str | None, typer.Option(help="Settings to start from: see mfimage.presets.")] = None,
    config: ConfigFile = None,
    algorithm: Annotated[
        str | None, typer.Option(help="m-flow (the default), me-flow, pie, af, pae, pca, …: see the README.")
    ] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Dimension of the manifold.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Resize and crop to SIZE × SIZE.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 grey, 3 colour.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of the manifold phase.")] = None,
    density_steps: Annotated[int | None, typer.Option(min=0, help="Steps of the density phase.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of the manifold phase.")] = None,
    noise: Annotated[float | None, typer.Option(help="Of af, pie and denoising: added in training.")] = None,
    weight: Annotated[float | None, typer.Option(help="Of the squared error beside a likelihood.")] = None,
    scandal: Annotated[float | None, typer.Option(help="Of the error of the joint score.")] = None,
    precision: Annotated[str | None, typer.Option(help="no or bf16.")] = None,
    every: Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --outdir.")] = False,
    max_bad: MaxBad = 0.05,
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    seed: Seed = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Learn the manifold of images, and the density on it; the run's directory holds everything.

    An .npz file with an array x, vectors or images, and where they are known theta and score, is data too.
    """
    from mfimage.config import preset_config, read_config
    from mfimage.training import train as train_

    changes = {
        "dim": dim, "size": size, "channels": channels, "steps": steps, "density_steps": density_steps,
        "lr": lr, "precision": precision, "every": every, "seed": seed, "batch_size": batch_size,
        "algorithm": algorithm, "noise": noise, "weight": weight, "scandal": scandal,
    }  # fmt: skip
    if resume and (preset or config or any(value is not None for value in changes.values())):
        raise UsageError("--resume takes the settings of the run in --outdir; give no others")
    if preset and config:
        raise UsageError("--preset and --config both give settings: choose one")
    settings = preset_config(preset) if preset else read_config(config) if config else None
    settings = None if resume else (settings or preset_config("default")).with_(**changes)
    model = train_(
        data, outdir, settings, device=device, resume=resume, quiet=quiet,
        max_bad=max_bad, max_pixels=max_pixels, value_range=console.pair(value_range),
    )  # fmt: skip
    path = outdir / "model"
    console.put({"model": str(path), "dim": model.dim, "shape": list(model.shape)}, str(path), as_json)


@app.command()
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

    flow = _load_model(model, device)
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


@app.command()
def denoise(
    inputs: Inputs,
    model: Model = "runs/latest",
    outdir: Outdir = Path("denoised"),
    resize: Annotated[bool, typer.Option("--resize", help="Scale and crop to the model's size.")] = False,
    max_bad: MaxBad = 0.05,
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    device: Device = "auto",
    batch_size: BatchSize = 256,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Project images onto the manifold and write them as PNG under their own names."""
    from mfimage.datasets import load_files, save_pngs
    from mfimage.denoising import denoise as denoise_

    flow = _load_model(model, device, projects=True)
    channels, height, width = flow.shape
    size = (height, width) if resize else None
    try:
        files = load_files(
            inputs, size, channels,
            max_bad=max_bad, max_pixels=max_pixels, value_range=console.pair(value_range),
        )  # fmt: skip
    except MixedSizesError as error:
        raise DataError(f"the inputs differ in size, the model takes {height} × {width}: --resize") from error
    console.list_skipped(files.skipped)
    _check_fit(files, flow, outdir)
    clean = denoise_(files.batch(slice(None)), flow, batch_size or 256)
    written = save_pngs(clean, [Path(path).stem for path in files.paths], outdir)
    console.say(f"{len(written)} images in {outdir}", quiet)
    pairs = [{"input": str(a), "output": str(b)} for a, b in zip(files.paths, written, strict=True)]
    console.put(
        {"images": pairs, "skipped": console.as_json(files.skipped)}, "\n".join(map(str, written)), as_json
    )


@app.command()
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

    flow = _load_model(model, device, projects=True)
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


@app.command()
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
    flow = _load_model(model, device)
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


@app.command()
def demo(
    outdir: Outdir = Path("runs/demo"),
    config: ConfigFile = None,
    seed: Seed = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train on the bundled clothes, use and measure the model, and write report.html."""
    from mfimage.config import preset_config, read_config
    from mfimage.demo import run_demo

    settings = read_config(config) if config else preset_config("demo")
    report, sentence = run_demo(outdir, settings.with_(seed=seed), device=device, quiet=quiet)
    console.say(sentence, quiet)
    console.put({"report": str(report), "sentence": sentence}, str(report), as_json)


@app.command()
def reproduce(
    experiment: Annotated[
        str, typer.Argument(help="circle, sphere, surface, lorenz, collider or image-manifold.")
    ],
    algorithm: Annotated[str, typer.Option(help="Comma-separated, or all of the experiment.")] = "all",
    runs: Annotated[int, typer.Option(min=1, help="Trainings of each algorithm, by seed.")] = 1,
    budget: Annotated[str, typer.Option(help="quick or paper.")] = "quick",
    dim: Annotated[int | None, typer.Option(help="Factors of image-manifold: 2, 8, 16 or 64.")] = None,
    size: Annotated[int | None, typer.Option(help="Its images' sides: 32 or 64.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 grey, 3 colour.")] = None,
    outdir: Annotated[Path | None, typer.Option("--outdir", "-o", help="runs/EXPERIMENT if none.")] = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run an experiment of the paper where the truth is known: a table with the published numbers beside.

    What is finished in --outdir is not trained again: a broken-off experiment goes on, and rows can be
    added one --algorithm at a time.
    """
    from mfimage.eval.experiment import table_json, table_text
    from mfimage.reproduce import reproduce as reproduce_

    given = {"dim": dim, "size": size, "channels": channels}
    outdir = outdir or Path("runs") / experiment
    report = reproduce_(
        experiment, outdir, algorithms=() if algorithm == "all" else algorithm.split(","), runs=runs,
        budget=budget, scene={name: value for name, value in given.items() if value is not None},
        device=device, quiet=quiet, tell=lambda message: console.say(message, quiet),
    )  # fmt: skip
    console.say(f"{outdir / 'report.html'}", quiet)
    console.put(table_json(report), table_text(report), as_json)


def _load_model(source: str, device: str, projects: bool = False) -> GenerativeModel:
    import torch

    from mfimage.checkpoint import from_pretrained
    from mfimage.inputs import require_image_manifold

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is visible to PyTorch")
    model = from_pretrained(source, "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if projects:
        require_image_manifold(model)
    return model


def _check_fit(files: ImageSet, model: GenerativeModel, outdir: Path) -> None:
    """Refuse images of another size than the model's, and an output that would overwrite an input."""
    height, width = files.shape[1:]
    if (height, width) != model.shape[1:]:
        raise DataError(
            f"{files.paths[0]}: {height} × {width} pixels, but the model takes "
            f"{model.shape[1]} × {model.shape[2]}: --resize scales and crops"
        )
    targets = {(outdir / f"{Path(path).stem}.png").resolve() for path in files.paths}
    if targets & {Path(path).resolve() for path in files.paths}:
        raise UsageError(f"--outdir {outdir}: the inputs lie there and would be overwritten; choose another")


def main() -> NoReturn:
    """Run the command line; every failure becomes a message and a documented exit code."""
    console.run(app)
