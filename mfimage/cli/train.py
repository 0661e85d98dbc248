"""The verbs from data to a model: pack, dimension, train, demo, reproduce."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from mfimage import console
from mfimage.cli import options as opt
from mfimage.config import SETTLED, BudgetName, Config, ModelConfig, PresetName, presets
from mfimage.errors import UsageError
from mfimage.outputs import claim, hold
from mfimage.settings import read_settings
from mfimage.streams import put

ExperimentName = Literal[
    "circle", "sphere", "surface", "lorenz", "collider", "image-manifold", "stylegan-2d", "stylegan-64d"
]
_Flags: Any = opt.flags(Config, model=opt.flags(ModelConfig, SETTLED))


@Parameter(name="*")
class Settings(_Flags):
    """Settings of a training, as far as they are given."""

    def over(self, base: Config) -> Config:
        """Put what is given in the place of what a configuration says."""
        model = {name: value for name, value in vars(self.model).items() if value is not None}
        return base.with_(**{**vars(self), "model": {**base.model, **model}})

    def longer(self, outdir: Path) -> Config:
        """Take the settings of a run, with more steps or time if they are given."""
        from mfimage.run import Run

        given = {name: value for name, value in vars(self).items() if value is not None and name != "model"}
        if self.model != NONE.model or set(given) - {"steps", "density_steps", "time"}:
            raise UsageError(_RESUMED)
        return Run(outdir).config().longer(**given)


NONE = Settings()
_RESUMED = (
    "--resume takes the settings of the run in --outdir; only --steps, --density-steps and --time may grow"
)


def pack(
    source: str,
    outdir: Path,
    /,
    *,
    size: opt.Size = None,
    channels: opt.Channels = None,
    shard_mb: Annotated[int, opt.at_least(1)] = 256,
    reading: opt.ReadingOptions = opt.ReadingOptions(),
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Write images as Parquet shards, for `train` and for Hugging Face datasets.

    Without --size and --channels the files are copied as they are, else they become PNG. What is broken off
    goes on where it stopped when it is asked for again.

    Args:
        source: Folder, Parquet files, celeba, celeba-178 or imagenet.
        outdir: Where the shards go.
        shard_mb: Megabytes a shard, at most about.
    """
    from mfimage.datasets.packing import pack as pack_
    from mfimage.errors import Skipped

    opt.given(source)
    manifest = pack_(
        source, outdir, size, channels, shard_bytes=shard_mb * 1_000_000, reading=reading, tell=talk.say
    )
    console.list_skipped([Skipped(**bad) for bad in manifest["skipped"]])
    if manifest["left_out"]:
        talk.say(f"{manifest['left_out']} images lie beside the folders of splits: left out")
    talk.put(manifest, [outdir])


def dimension(
    *data: opt.Data,
    max_dim: Annotated[int, opt.at_least(1)] = 64,
    examples: Annotated[int, opt.at_least(100)] = 10_000,
    steps: Annotated[int, opt.at_least(1)] = 2000,
    size: opt.Size = None,
    channels: opt.Channels = None,
    outdir: opt.OwnOutdir = None,
    reading: opt.ReadingOptions = opt.ReadingOptions(),
    seed: opt.Seed = 0,
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Recommend the dimension of the manifold: by nearest neighbours, and by held-out error against d.

    Args:
        max_dim: The largest d to consider.
        examples: At most so many images, drawn at random.
        steps: Of the short fit behind the curve.
        outdir: Where dimension.json and dimension.png go; they are not written if none.
    """
    from mfimage.eval.dimension_choice import choose_dimension
    from mfimage.files import whole, write_json

    opt.given(*data)
    hold(outdir)
    claim(*([outdir / "dimension.json", outdir / "dimension.png"] if outdir else []))
    with talk.progress("fit", steps) as advance:
        found = choose_dimension(
            data, max_dim=max_dim, examples=examples, steps=steps, seed=seed, size=size, channels=channels,
            tell=talk.say, report=lambda step, record: advance(step, note=console.rates(record)),
            reading=reading,
        )  # fmt: skip
    values = found.as_json()
    late = console.Late()
    with late:
        if outdir is not None:
            write_json(outdir / "dimension.json", values)
            with whole(outdir / "dimension.png") as temporary:
                temporary.write_bytes(found.figure())
            talk.say(f"dimension.json and dimension.png in {outdir}")
    for sentence in (found.reason, *found.notes):
        talk.say(sentence)
    talk.put(values, [found.dim])
    late.end()


def train(
    *data: Annotated[opt.Data, Parameter(required=False)],
    outdir: opt.Outdir = Path("runs/latest"),
    preset: PresetName | None = None,
    config: opt.ConfigFile = None,
    settings: Settings = NONE,
    print_config: opt.Flag = False,
    resume: opt.Flag = False,
    options: opt.Options = opt.Options(),
) -> None:
    """Learn the manifold of images, and the density on it; the run's directory holds everything.

    An .npz file with an array x, vectors or images, and where they are known theta and score, is data too.

    Args:
        preset: Settings to start from, by name; flags override them.
        config: Settings to start from, in a JSON file; flags override them.
        print_config: Print the settings as JSON, for --config to read, and stop.
        resume: Continue the run in --outdir, with its settings; it may get more --steps, --density-steps or
            --time.
    """
    if resume and (preset or config):
        raise UsageError(_RESUMED)
    if preset and config:
        raise UsageError("--preset and --config both give settings: choose one")
    if resume:
        chosen = settings.longer(outdir)
    else:
        chosen = settings.over(read_settings(Config, config) if config else presets[preset or "default"])
        if print_config:
            put(console.json_text(asdict(chosen), indent=2))
            return
    if not data:
        raise UsageError("train: DATA is missing: a named set, folder, zip or array file")
    from mfimage.results import closing
    from mfimage.run import Run
    from mfimage.training import train as train_

    opt.given(*data, config)
    with opt.advising("continue with --resume"):
        model = train_(
            data, outdir, chosen, device=options.device, resume=resume, quiet=options.quiet,
            reading=options.reading,
        )  # fmt: skip
    path = outdir / "model"
    for line in closing(model, Run(outdir)):
        options.say(line)
    options.put({"model": str(path), "dim": model.dim, "shape": list(model.shape)}, [path])


def demo(
    *,
    outdir: opt.Outdir = Path("runs/demo"),
    config: opt.ConfigFile = None,
    seed: opt.Seed | None = None,
    device: opt.Device = "auto",
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Train on the bundled clothes, use and measure the model, and write report.html."""
    from mfimage.clothes_demo import run_demo

    opt.given(config)
    hold(outdir)
    settings = read_settings(Config, config) if config else presets["demo"]
    with opt.advising(opt.SAME_COMMAND):
        report, sentence = run_demo(outdir, settings.with_(seed=seed), device=device, quiet=talk.quiet)
    talk.say(sentence)
    talk.put({"report": str(report), "sentence": sentence}, [report])


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
    opt.given(weights)
    hold(outdir)
    with opt.advising(opt.SAME_COMMAND):
        report = reproduce_(
            experiment, outdir, algorithms=() if algorithm == ("all",) else algorithm, runs=runs,
            budget=budget, scene={name: value for name, value in scene.items() if value is not None},
            device=device, quiet=talk.quiet, tell=talk.say,
        )  # fmt: skip
    talk.say(f"{outdir / 'report.html'}")
    talk.put(report.as_json(), report.table().text().split("\n"))
