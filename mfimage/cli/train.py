"""The verbs that train: train, demo, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mfimage import console
from mfimage.cli import options as opt
from mfimage.config import (
    SETTLED,
    BudgetName,
    Config,
    ExperimentName,
    ModelConfig,
    PresetName,
    preset_config,
    read_config,
)
from mfimage.errors import UsageError
from mfimage.settings import to_json

_Flags: Any = opt.flags(Config, model=opt.flags(ModelConfig, SETTLED))


@Parameter(name="*")
class Settings(_Flags):
    """Settings of a training, as far as they are given."""

    def over(self, base: Config) -> Config:
        """Put what is given in the place of what a configuration says."""
        changes = opt.given(self)
        changes["model"] = {**base.model, **opt.given(changes["model"])}
        return base.with_(**changes)


NONE = Settings()


def train(
    *data: Annotated[opt.Data, Parameter(required=False)],
    outdir: opt.Outdir = Path("runs/latest"),
    preset: PresetName | None = None,
    config: opt.ConfigFile = None,
    settings: Settings = NONE,
    print_config: opt.Flag = False,
    resume: opt.Flag = False,
    device: opt.Device = "auto",
    reading: opt.ReadingOptions = opt.ReadingOptions(),
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Learn the manifold of images, and the density on it; the run's directory holds everything.

    An .npz file with an array x, vectors or images, and where they are known theta and score, is data too.

    Args:
        preset: Settings to start from, by name; flags override them.
        config: Settings to start from, in a JSON file; flags override them.
        print_config: Print the settings as JSON, for --config to read, and stop.
        resume: Continue the run in --outdir, with its settings.
    """
    if resume and (preset or config or settings != NONE):
        raise UsageError("--resume takes the settings of the run in --outdir; give no others")
    if preset and config:
        raise UsageError("--preset and --config both give settings: choose one")
    base = read_config(config) if config else preset_config(preset or "default")
    chosen = None if resume else settings.over(base)
    if chosen and print_config:
        console.put(console.json_text(to_json(chosen), indent=2))
        return
    if not data:
        raise UsageError("train: DATA is missing: a named set, folder, zip or array file")
    from mfimage.training import train as train_

    model = train_(data, outdir, chosen, device=device, resume=resume, quiet=talk.quiet, reading=reading)
    path = outdir / "model"
    talk.put({"model": str(path), "dim": model.dim, "shape": list(model.shape)}, str(path))


def demo(
    outdir: opt.Outdir = Path("runs/demo"),
    config: opt.ConfigFile = None,
    seed: opt.Seed | None = None,
    device: opt.Device = "auto",
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Train on the bundled clothes, use and measure the model, and write report.html."""
    from mfimage.clothes_demo import run_demo

    settings = read_config(config) if config else preset_config("demo")
    report, sentence = run_demo(outdir, settings.with_(seed=seed), device=device, quiet=talk.quiet)
    talk.say(sentence)
    talk.put({"report": str(report), "sentence": sentence}, str(report))


def reproduce(
    experiment: ExperimentName,
    /,
    *,
    algorithm: Annotated[tuple[str, ...], opt.comma_separated()] = ("all",),
    runs: Annotated[int, opt.at_least(1)] = 1,
    budget: BudgetName = "quick",
    dim: int | None = None,
    size: opt.Size = None,
    channels: opt.Channels = None,
    weights: Path | None = None,
    outdir: opt.OwnOutdir = None,
    device: opt.Device = "auto",
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Run an experiment of the paper where the truth is known: a table with the published numbers beside.

    What is finished in --outdir is not trained again: a broken-off experiment goes on, and rows can be
    added one --algorithm at a time.

    Args:
        experiment: Which one.
        algorithm: Comma-separated, or all of the experiment.
        runs: Trainings of each algorithm, by seed.
        budget: How much is trained and measured.
        dim: Factors of image-manifold: 2, 8, 16 or 64.
        weights: Generator of stylegan-2d and -64d; a seeded one if none.
        outdir: Where everything goes; runs/EXPERIMENT if none.
    """
    from mfimage.experiments.reproduce import reproduce as reproduce_

    scene = {"dim": dim, "size": size, "channels": channels, "weights": weights and str(weights)}
    outdir = outdir or Path("runs") / experiment
    report = reproduce_(
        experiment, outdir, algorithms=() if algorithm == ("all",) else algorithm, runs=runs, budget=budget,
        scene={name: value for name, value in scene.items() if value is not None},
        device=device, quiet=talk.quiet, tell=talk.say,
    )  # fmt: skip
    talk.say(f"{outdir / 'report.html'}")
    talk.put(report.as_json(), report.table().text())
