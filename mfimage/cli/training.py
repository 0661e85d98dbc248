"""The verbs that train: train, demo, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfimage import console
from mfimage.cli.options import (
    BatchSize,
    ConfigFile,
    Data,
    Device,
    Json,
    MaxBad,
    MaxPixels,
    Outdir,
    Quiet,
    Seed,
    ValueRange,
    Verbose,
)
from mfimage.config import PresetName
from mfimage.errors import UsageError


def train(
    data: Data,
    outdir: Outdir = Path("runs/latest"),
    preset: Annotated[
        PresetName | None, typer.Option(help="Settings to start from: see mfimage.presets.")
    ] = None,
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
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror images at random in training.")
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            help="Added in training of af, pie and denoising; a range, 0-0.5, for m-flow and me-flow."
        ),
    ] = None,
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
    from mfimage.config import Reading, preset_config, read_config
    from mfimage.training import train as train_

    changes = {
        "dim": dim, "size": size, "channels": channels, "steps": steps, "density_steps": density_steps,
        "lr": lr, "precision": precision, "every": every, "seed": seed, "batch_size": batch_size,
        "algorithm": algorithm, "flip": flip, "noise": _noise(noise), "weight": weight, "scandal": scandal,
    }  # fmt: skip
    if resume and (preset or config or any(value is not None for value in changes.values())):
        raise UsageError("--resume takes the settings of the run in --outdir; give no others")
    if preset and config:
        raise UsageError("--preset and --config both give settings: choose one")
    settings = preset_config(preset) if preset else read_config(config) if config else None
    settings = None if resume else (settings or preset_config("default")).with_(**changes)
    model = train_(
        data, outdir, settings, device=device, resume=resume, quiet=quiet,
        reading=Reading(max_bad, max_pixels, console.pair(value_range)),
    )  # fmt: skip
    path = outdir / "model"
    console.put({"model": str(path), "dim": model.dim, "shape": list(model.shape)}, str(path), as_json)


def _noise(text: str | None) -> float | tuple[float, float] | None:
    """A number, or a range with a hyphen."""
    try:
        numbers = [float(part) for part in text.split("-")] if text is not None else []
    except ValueError:
        numbers = []
    if text is not None and len(numbers) not in (1, 2):
        raise UsageError(f"--noise {text}: a number, or a range such as 0-0.5, is expected")
    return (numbers[0], numbers[1]) if len(numbers) == 2 else numbers[0] if numbers else None


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


def reproduce(
    experiment: Annotated[
        str,
        typer.Argument(
            help="circle, sphere, surface, lorenz, collider, image-manifold or stylegan-2d, -64d."
        ),
    ],
    algorithm: Annotated[str, typer.Option(help="Comma-separated, or all of the experiment.")] = "all",
    runs: Annotated[int, typer.Option(min=1, help="Trainings of each algorithm, by seed.")] = 1,
    budget: Annotated[str, typer.Option(help="quick or paper.")] = "quick",
    dim: Annotated[int | None, typer.Option(help="Factors of image-manifold: 2, 8, 16 or 64.")] = None,
    size: Annotated[int | None, typer.Option(help="Sides of the images.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 grey, 3 colour.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Generator of stylegan-2d and -64d; a seeded one if none.")
    ] = None,
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
    from mfimage.experiments.reproduce import reproduce as reproduce_
    from mfimage.experiments.tables import table_json, table_text

    given = {"dim": dim, "size": size, "channels": channels, "weights": weights and str(weights)}
    outdir = outdir or Path("runs") / experiment
    report = reproduce_(
        experiment, outdir, algorithms=() if algorithm == "all" else algorithm.split(","), runs=runs,
        budget=budget, scene={name: value for name, value in given.items() if value is not None},
        device=device, quiet=quiet, tell=lambda message: console.say(message, quiet),
    )  # fmt: skip
    console.say(f"{outdir / 'report.html'}", quiet)
    console.put(table_json(report), table_text(report), as_json)
