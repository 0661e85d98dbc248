"""Train a model on images or vectors: from data and a configuration to a run's directory."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from mfimage.account import found, linear_error
from mfimage.algorithms import ALGORITHMS, check_nested, check_score, check_sharp
from mfimage.card import write_card
from mfimage.config import BASELINES, NOISE_AWARE, Config, Reading
from mfimage.console import counted, list_skipped, optional
from mfimage.datasets.loading import MEMORY, Data, load_for_training, load_watching, typed
from mfimage.datasets.sets import Dataset
from mfimage.datasets.splits import drawn_rows, validation_rows
from mfimage.decisions import classes_of, decide
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.eval.image_metrics import PCA
from mfimage.eval.verdict import TRAINED
from mfimage.fit import make_accelerator, quickest_precision
from mfimage.models import GenerativeModel
from mfimage.models.build import build
from mfimage.modes import plainly
from mfimage.outputs import owned, refuse_within
from mfimage.phases import Trainer
from mfimage.pretrained import (
    WEIGHTS,
    from_pretrained,
    read_calibration,
    save_pretrained,
    write_calibration,
)
from mfimage.results import REPORT, Results, still_true, tell_if_worse
from mfimage.run import Run
from mfimage.streams import say
from mfimage.tensors import save_tensors


@plainly
def train(
    data: Data,
    outdir: str | Path,
    config: Config | None = None,
    *,
    model: GenerativeModel | None = None,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = True,
    reading: Reading = Reading(),
    memory: int | None = MEMORY,
    root: str | Path | None = None,
) -> GenerativeModel:
    """Train a model on images or vectors and write a run's directory.

    Args:
        data: What `load` takes, its split "train"; θ of Points conditions the density. Images of more than
            `memory` bytes of pixels (2 GiB) are read while the model trains, in threads, ahead of it.
            Photographs (images of several sizes, or above 128 pixels) are taken at 64 × 64 if config.size
            does not say otherwise.
        outdir: The run's directory; see `run.Run`.
        config: Settings; what they leave open is decided from the data. Its algorithm says what is built.
            With `resume` those of the run, with more steps, density_steps or time; None: as they are.
        model: Train this one instead, put together by hand of what the algorithm trains; only its weights are
            saved.
        device: "auto" (a CUDA device if there is one, else the CPU), "cpu", "cuda" or "cuda:1".
        resume: Continue the run in outdir from its newest checkpoint, bit for bit. One that is given more
            goes on as one that was planned so; phases after the first that goes on are trained anew.
        quiet: Without a progress bar on stderr.
        reading: How files are read, and how many may be bad.
        memory: Most bytes of pixels that are held in memory.
        root: Where named sets lie that are not bundled; $MFIMAGE_DATA, else ~/.cache/mfimage, if None.

    Returns:
        The trained model in evaluation mode, as saved in outdir/model.

    Raises:
        DataError: If the images cannot be had, are too few, or are not those of the resumed run.
        UsageError: If outdir already holds a run, or with `resume` holds none; if another process writes
            there, or it lies in a folder of images that is read.
        DivergedError: If the loss becomes non-finite.
        Interrupted: After SIGINT, SIGTERM or SIGHUP, once the step is saved.
    """
    run = Run(outdir)
    for folder in (run.directory, run.pictures):
        refuse_within(folder, data if isinstance(data, list | tuple) else [data])
    accelerator = make_accelerator(device, _settings(run, config, resume).precision)
    with owned(outdir) if accelerator.is_main_process else nullcontext():
        return _train(
            data, run, _settings(run, config, resume), accelerator, model, device, resume, quiet, reading,
            memory, root,
        )  # fmt: skip


def _settings(run: Run, config: Config | None, resume: bool) -> Config:
    """Take the settings that are given; of a run that is resumed its own, with what may grow."""
    if not resume:
        return config or Config()
    return run.config() if config is None else run.config().longer(**vars(config))


def _train(
    data: Data,
    run: Run,
    config: Config,
    accelerator: Accelerator,
    model: GenerativeModel | None,
    device: str,
    resume: bool,
    quiet: bool,
    reading: Reading,
    memory: int | None,
    root: str | Path | None,
) -> GenerativeModel:
    """Train in a directory that nobody else writes to."""
    main = accelerator.is_main_process
    if main and not resume:
        run.require_unused()
    if main:
        run.tidy()
    images, config = load_for_training(data, config, reading, memory, root)
    valid = load_watching(data, images, config, reading, memory, root)
    known = images.skipped
    if main:
        _tell_what_was_read(images, valid, quiet)
    check_score(config, images.score is not None)
    check_nested(config)
    check_sharp(config)
    if config.precision is None:
        config = replace(config, precision=quickest_precision(len(images.shape) == 3, accelerator.device))
        accelerator = make_accelerator(device, config.precision)
    began = time.monotonic()
    if len(images.shape) != 3 and (config.flip or config.shift):
        raise UsageError(
            f"{images.name}: {'flip' if config.flip else 'shift'} is for images, not for vectors"
        )
    config = config if model is None else replace(config, dim=model.dim)
    training, held_out = hold_out(images, config, valid)
    about = _about(images, valid, held_out)
    config, decisions = decide(training, held_out, config)
    model = model or _build(training, config)  # before anything is written: settings may not fit the data
    if resume:
        run.require_same_data(about)
        if main:
            run.write("config.json", asdict(config))
    elif main:
        run.begin(asdict(config), {"data": images.name, "sources": typed(data), **about}, decisions)
    compared = len(model.shape) == 3 and model.has_manifold and not model.conditional
    pca = PCA.of(training, model.dim) if compared and main else None
    linear = linear_error(pca, held_out) if pca else None
    trainer = Trainer(model.to(accelerator.device), config, run, accelerator, quiet, linear, began)
    trainer.account.open([found(training, held_out), *(run.decisions() if main else ())])
    trainer.run_phases(training, held_out)
    list_skipped(images.skipped[len(known) :])  # what a stored set met later
    if main:
        trainer.account.say("measuring what was learned")
        _finish(Results(model.eval(), run, config, training, held_out, pca))
    return model.eval()


def _tell_what_was_read(images: Dataset, valid: Dataset | None, quiet: bool) -> None:
    for read in (images,) if valid is None else (images, valid):
        for note in () if quiet else read.notes:
            say(f"note: {note}")
        list_skipped(read.skipped)


def _about(images: Dataset, valid: Dataset | None, held_out: Dataset) -> dict[str, Any]:
    """What a run records of its data, and of what watches its error where that comes from elsewhere."""
    return {**images.summary(), "valid": None if valid is None else held_out.summary()["sha256"]}


def train_or_reuse(
    data: Data,
    outdir: str | Path,
    config: Config,
    *,
    device: str = "auto",
    quiet: bool = True,
    reading: Reading = Reading(),
) -> GenerativeModel:
    """Train a model, go on with a run that was broken off, or read that of a finished one; see `train`."""
    run = Run(outdir)
    if not run.begun:
        return train(data, outdir, config, device=device, quiet=quiet, reading=reading)
    images, settled = load_for_training(data, config, reading)
    if not settled.allows(run.config()):
        raise UsageError(f"{outdir} holds a run with other settings: choose another --outdir")
    if not run.finished:
        return train(images, outdir, device=device, resume=True, quiet=quiet)
    run.require_same_data(images.summary())
    told = TRAINED in read_calibration(run.model) and (run.directory / REPORT).exists()
    if len(images.shape) == 3 and not told:  # ended while it was measured
        return train(images, outdir, device=device, resume=True, quiet=quiet)
    return from_pretrained(run.model, make_accelerator(device, config.precision).device)


def hold_out(images: Dataset, config: Config, valid: Dataset | None = None) -> tuple[Dataset, Dataset]:
    """Tell the images to learn from and those that watch the error: `validation` of them, drawn by the seed.

    The latter come from `valid`, see `load_watching`; without it they are split off, at most a tenth.
    """
    learned = images
    if valid is None:
        rows, watched = validation_rows(len(images), config.validation, config.seed)
        learned = images.subset(rows)
    else:
        watched = drawn_rows(len(valid), config.validation, config.seed)
    if len(learned) <= (dim := config.dim or 1):
        least = dim + 1  # more than d, without those that watch
        least += max(1, min(config.validation, dim // 9)) if valid is None else 0
        raise DataError(
            f"{images.name}: {counted(len(images), 'image')} in its training split"
            f"{', of which a tenth or more is held out,' if valid is None else ''} are too few for "
            f"{counted(dim, 'dimension')}: there must be {least}{', or fewer dimensions' if dim > 1 else ''}"
        )
    held_out = (images if valid is None else valid).subset(watched)
    return learned, held_out.in_memory()  # few, looked at again and again


def _build(data: Dataset, config: Config) -> GenerativeModel:
    kind = ALGORITHMS[config.algorithm].kind
    context = 0 if data.theta is None or kind == "linear" else data.theta.shape[1]
    classes = classes_of(data, config)
    return build(config.model_config(data.shape, kind, context, classes), config.seed)


def _finish(results: Results) -> None:
    """Write the model, with what is measured of it on images held out, its page and its card."""
    model, run = results.model, results.run
    if model.config is None:  # put together by hand
        save_tensors(model.state_dict(), run.model / WEIGHTS, {})
        return
    known: dict[str, Any] = {}
    with suppress(ModelError):  # of a finished run that was resumed
        known = read_calibration(run.model)
    model.measured = still_true(known, model)
    save_pretrained(model, run.model)  # first: measuring may fail, or be killed
    if len(model.shape) == 3:
        results.measure()
        tell_if_worse(known, model)
        measured = model.measured
        model.measured = {name: measured[name] for name in (*known, *measured) if name in measured}
        write_calibration(run.model, model.measured)
        with optional(REPORT):
            results.write_report()
    with optional("model card"):
        write_card(model, run.model, run, f"user/{run.directory.resolve().name}")


def baseline(
    name: str, run: str | Path, data: Dataset, outdir: str | Path, device: str = "auto", quiet: bool = True
) -> GenerativeModel:
    """Train a baseline with the settings of a run and on its images `data`, as a run of its own in outdir.

    "pca" is principal components and a Gaussian; "ae" a convolutional autoencoder of networks as wide as the
    run's, with splines for the density of its codes; "af" a flow on the whole space; "pie" one that is told
    which coordinates lie on the manifold.
    """
    if name not in BASELINES:
        raise UsageError(f"no baseline {name!r}: there are {', '.join(BASELINES)}")
    config, algorithm = Run(run).config(), BASELINES[name]
    Run(run).require_same_data(data.summary())
    if config.noise_aware and algorithm not in NOISE_AWARE:
        config = config.with_(noise=0.0)
    config = config.with_(algorithm=algorithm, classes=False, nested=False, sharp=False)
    return train_or_reuse(data, outdir, config, device=device, quiet=quiet)
