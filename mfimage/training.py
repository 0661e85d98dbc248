"""Training: the phases of an algorithm, one after the other, on images or vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from mfimage.algorithms import ALGORITHMS, Batch, Phase, check_score
from mfimage.config import NOISE_AWARE, Config, Reading, to_json
from mfimage.console import list_skipped, progress_bar
from mfimage.datasets.loading import ImageSet, load, open_images
from mfimage.datasets.points import Points, holds_points, load_points
from mfimage.datasets.pointset import holds_point_set, load_point_set
from mfimage.datasets.prefetch import Ahead
from mfimage.datasets.stored import StoredSet
from mfimage.denoising.choosing import ENOUGH, measure_curve, store_curve
from mfimage.denoising.report import measure, store_familiar
from mfimage.errors import DataError, MixedSizesError, UsageError
from mfimage.files import save_tensors, stream
from mfimage.fit import Progress, Schedule, Snapshots, fit, shuffled
from mfimage.models import GenerativeModel
from mfimage.models.build import build
from mfimage.run import WEIGHTS, Run, save_pretrained, trim_stats

Data: TypeAlias = ImageSet | StoredSet | Points

PHOTO_SIZE = 64  # pixels; what a first manifold of photographs is learned at
PREVIEW = 32  # images on a sheet
PCA_FLOATS = 50_000_000  # numbers that the principal components are taken from: 200 MB


def train(
    data: str | Path | Sequence[str | Path] | Data,
    outdir: str | Path,
    config: Config | None = None,
    *,
    model: GenerativeModel | None = None,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = True,
    **load_options: Any,
) -> GenerativeModel:
    """Train a model on images or vectors and write a run's directory.

    Args:
        data: A named set, folder, shards, zip or array file (its split "train"), several of these, or a set:
            an ImageSet, a StoredSet, or Points, whose θ conditions the density. An .npz file with an array x
            is read as Points. A folder or shards of more than `memory` bytes of pixels (2 GiB) are read
            while the model trains, in threads, ahead of it. Photographs (images of several sizes, or above
            128 pixels) are taken at 64 × 64 if config.size does not say otherwise.
        outdir: The run's directory; see `runs.Run`.
        config: Settings; with `resume`, those of the run are taken instead. Its algorithm says what is built.
        model: Train this one instead, put together by hand of what the algorithm trains; only its weights are
            saved.
        device: "auto", "cpu" or "cuda".
        resume: Continue the run in outdir from its newest checkpoint, bit for bit.
        quiet: Without a progress bar on stderr.
        load_options: Passed to `datasets.open_images` (reading, memory, root).

    Returns:
        The trained model in evaluation mode, as saved in outdir/model.

    Raises:
        DataError: If the images cannot be had, are too few, or are not those of the resumed run.
        UsageError: If outdir already holds a run, or with `resume` holds none.
        DivergedError: If the loss becomes non-finite.
        Interrupted: After SIGINT or SIGTERM, once the step is saved.
    """
    run = Run(outdir)
    config = run.config() if resume else config or Config()
    accelerator = _accelerator(device, config.precision)
    if accelerator.is_main_process and not resume:
        run.require_unused()
    images, config = _images(data, config, load_options)
    known = images.skipped
    if accelerator.is_main_process:
        list_skipped(known)
    check_score(config, getattr(images, "score", None) is not None)
    if config.flip and len(images.shape) != 3:
        raise UsageError(f"{images.name}: flip is for images, not for vectors")
    training, held_out = hold_out(images, config if model is None else replace(config, dim=model.dim))
    model = model or _build(training, config)  # before anything is written: settings may not fit the data
    summary = {"data": _name(data), **images.summary()}
    if resume:
        run.require_same_data(summary)
    elif accelerator.is_main_process:
        run.begin(to_json(config), summary)
    trainer = _Trainer(model.to(accelerator.device), config, run, accelerator, quiet)
    try:
        for phase in ALGORITHMS[config.algorithm].phases:
            trainer.run_phase(phase, training, held_out)
    finally:
        run.close()
    list_skipped(images.skipped[len(known) :])  # what a stored set met later
    if accelerator.is_main_process and model.config and len(model.shape) == 3:
        _measure(model.eval(), held_out)
    if accelerator.is_main_process and model.config:
        save_pretrained(model, run.model)
    elif accelerator.is_main_process:
        save_tensors(model.state_dict(), run.model / WEIGHTS, {})
    return model.eval()


def _build(data: Data, config: Config) -> GenerativeModel:
    theta = getattr(data, "theta", None)
    kind = ALGORITHMS[config.algorithm].kind
    context = 0 if theta is None or kind == "linear" else theta.shape[1]
    return build(config.model_config(data.shape, kind, context), config.seed)


def _measure(model: GenerativeModel, held_out: Data) -> None:
    """Find out on images held out at which noise which method of denoising suits the model."""
    if not model.conditional:
        clean = held_out.batch(torch.arange(min(len(held_out), ENOUGH)))
        store_curve(model, measure_curve(model, clean))
        if model.has_manifold:
            store_familiar(model, measure(model, clean.to(model.device)))


def hold_out(images: Data, config: Config) -> tuple[Any, Any]:
    """Split off the images that watch the error: `validation` of them, at most a fifth, drawn by the seed."""
    count = max(1, min(config.validation, len(images) // 5))
    if len(images) - count <= config.dim:
        raise DataError(
            f"{images.name}: {len(images)} images are too few for a manifold of {config.dim} dimensions: "
            f"give more than {config.dim * 5 // 4 + 1}, or lower --dim"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed))
    held_out = images.subset(order[:count].sort().values)
    if isinstance(held_out, StoredSet):
        held_out = held_out.load()  # few, and looked at again and again
    return images.subset(order[count:].sort().values), held_out


class _Trainer:
    """The phases of an algorithm on one model, sharing the run, the accelerator and the settings."""

    def __init__(
        self, model: GenerativeModel, config: Config, run: Run, accelerator: Accelerator, quiet: bool
    ) -> None:
        self.model, self.config, self.run = model, config, run
        self.accelerator, self.quiet = accelerator, quiet

    def run_phase(self, phase: Phase, training: Data, held_out: Data) -> None:
        """Train one phase, or go on with it."""
        module = phase.part(self.model)
        if not any(parameter.requires_grad for parameter in module.parameters()):
            return  # a prescribed chart has nothing to learn
        if phase.codes:
            training, held_out = self._codes(training, self.config.flip), self._codes(held_out)
        if phase.codes or Snapshots(self.run.checkpoints, phase.name).newest() is None:
            most = len(training) if phase.codes else self._enough()
            phase.start(self.model, self._batch(training, _spread(len(training), most)))
        batch_size, schedule = self.config.batch_size * (2 if phase.codes else 1), self._schedule(phase)
        rows = self._indices(len(training), batch_size)
        ahead = Ahead(training.read, rows, schedule.steps) if isinstance(training, StoredSet) else None

        def batches(step: int) -> Batch:
            batch = self._batch(training, rows(step), ahead(step) if ahead else None)
            if self.config.flip and not phase.codes:
                batch = batch._replace(x=self._flipped(batch.x, step))
            return self._disturbed(phase, batch, step)

        def loss(module: torch.nn.Module, batch: Batch) -> Tensor:
            return phase.loss(module, batch, self.config)

        with closing(ahead) if ahead else nullcontext():
            self._fit(
                phase.name,
                module,
                loss,
                batches,
                lambda: self._validation(phase, module, held_out),
                schedule,
                phase.keep_best,
                lambda step: self._picture(phase, step, held_out),
            )

    def _enough(self) -> int:
        features = math.prod(self.model.shape)
        return max(PCA_FLOATS // features, 2 * self.model.dim + 32)

    def _flipped(self, x: Tensor, step: int) -> Tensor:
        """Mirror half of a batch; which, follows from the seed, the step and the place in the whole batch."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        generator = stream(self.config.seed, step + 2**41)
        mirrored = torch.rand(len(x) * world, generator=generator)[rank::world] < 0.5
        return torch.where(mirrored.to(x.device).view(-1, 1, 1, 1), x.flip(3), x)

    def _disturbed(self, phase: Phase, batch: Batch, step: int) -> Batch:
        """Add the random numbers of a step, which follow from the seed and the step."""
        if phase.disturb is None:
            return batch
        c = self.config
        number = step * self.accelerator.num_processes + self.accelerator.process_index
        generator = stream(c.seed, number + 2**40)
        return phase.disturb(batch, c, generator, self.model.dim)

    def _batch(self, data: Data, rows: Tensor, x: Tensor | None = None) -> Batch:
        """Some rows and what belongs to them; x, where they have been read already."""
        theta, score = (getattr(data, name, None) for name in ("theta", "score"))
        return Batch(
            self._to_device(data.batch(rows) if x is None else x),
            None if theta is None else self._to_device(theta[rows]),
            None if score is None else self._to_device(score[rows]),
        )

    def _validation(self, phase: Phase, module: torch.nn.Module, held_out: Data) -> float:
        """The mean loss of held-out examples, with the same random numbers every time."""
        total, size = 0.0, 1024 if phase.codes or len(held_out.shape) == 1 else 256
        with torch.no_grad():
            for i, rows in enumerate(torch.arange(len(held_out)).split(size)):
                batch = self._disturbed(phase, self._batch(held_out, rows), -1 - i)
                total += float(phase.loss(module, batch, self.config)) * len(rows)
        return total / len(held_out)

    def _picture(self, phase: Phase, step: int, held_out: Data) -> None:
        """Show images while they are learned: reconstructions, or samples once the density is trained."""
        if len(self.model.shape) != 3:
            return
        theta = getattr(held_out, "theta", None)
        context = None if theta is None else self._to_device(theta[torch.arange(PREVIEW) % len(theta)])
        if phase.codes:
            generator = torch.Generator().manual_seed(self.config.seed)
            samples = self.model.sample(PREVIEW, generator, context=context)
            self.run.picture("samples", step, samples, PREVIEW // 2)
            return
        preview = held_out.batch(torch.arange(min(PREVIEW // 2, len(held_out))))
        with torch.no_grad():
            rows = None if context is None else context[: len(preview)]
            projected = self.model.project(self._to_device(preview), rows).cpu()
        self.run.picture("reconstructions", step, torch.cat([preview, projected]), len(preview))

    def _fit(
        self,
        phase: str,
        module: torch.nn.Module,
        loss: Callable[[Any, Any], Tensor],
        batches: Callable[[int], Any],
        validate: Callable[[], float],
        schedule: Schedule,
        keep_best: bool,
        picture: Callable[[int], None],
    ) -> None:
        snapshots = Snapshots(self.run.checkpoints, phase)
        main = self.accelerator.is_main_process
        if main and (newest := snapshots.newest()):
            trim_stats(self.run.directory / "stats.jsonl", phase, int(newest.stem.rsplit("-", 1)[1]))
        with progress_bar(phase, schedule.steps, self.quiet or not main) as advance:

            def report(progress: Progress, record: dict[str, float]) -> None:
                advance(progress.step, record)
                if main and (progress.step % 10 == 0 or "validation" in record):
                    self.run.scalars(phase, progress.step, record)
                if main and "validation" in record:
                    picture(progress.step)

            fit(module, loss, batches, validate, schedule, snapshots, self.accelerator, report, keep_best)

    def _indices(self, count: int, batch_size: int) -> Callable[[int], Tensor]:
        world = self.accelerator.num_processes
        if batch_size % world:
            raise UsageError(f"--batch-size {batch_size} cannot be shared by {world} processes")
        return shuffled(
            count,
            min(batch_size, count // world * world),
            self.config.seed,
            self.accelerator.process_index,
            world,
        )

    def _schedule(self, phase: Phase) -> Schedule:
        c = self.config
        steps, lr = (c.density_steps, c.density_lr) if phase.codes else (c.steps, c.lr)
        return Schedule(0 if phase.closed else steps, lr, c.warmup, c.clip, c.weight_decay, c.every)

    @torch.no_grad()
    def _codes(self, data: Data, both: bool = False) -> Points:
        """Put codes in the place of data, or those of data and then of their mirror images."""
        theta, score = (getattr(data, name, None) for name in ("theta", "score"))
        codes: list[Tensor] = []
        mirrored: list[Tensor] = []
        for rows, batch in zip(torch.arange(len(data)).split(512), data.batches(512), strict=True):
            x, context = self._to_device(batch), None if theta is None else self._to_device(theta[rows])
            codes.append(self.model.encode(x, context).cpu())
            if both:
                mirrored.append(self.model.encode(x.flip(-1), context).cpu())
        if both:
            theta, score = (None if t is None else torch.cat([t, t]) for t in (theta, score))
        return Points(torch.cat(codes + mirrored), data.name, theta, score)

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.accelerator.device)


def _images(data: Any, config: Config, load_options: dict[str, Any]) -> tuple[Data, Config]:
    """Load the images, and settle their size in the configuration; or the points."""
    if isinstance(data, ImageSet | StoredSet | Points):
        return data, config
    paths = [data] if isinstance(data, str | Path) else list(data)
    if len(paths) == 1 and (holds_points(paths[0]) or holds_point_set(paths[0])):
        if config.size or config.channels or load_options.get("reading", Reading()).value_range:
            raise UsageError(
                f"{paths[0]}: points are taken as they are, without size, channels or value range"
            )
        return (load_point_set if holds_point_set(paths[0]) else load_points)(paths[0]), config
    if config.size is None:
        config = replace(config, size=_photo_size(data, load_options))
    try:
        return open_images(data, "train", config.size, config.channels, **load_options), config
    except MixedSizesError:  # the first few were alike
        config = replace(config, size=PHOTO_SIZE)
        return open_images(data, "train", config.size, config.channels, **load_options), config


def _photo_size(data: Any, load_options: dict[str, Any]) -> int | None:
    """Choose a size where none is given: images as they are, but photographs at 64 × 64.

    Photographs are images of several sizes, or larger than 128 pixels.
    """
    try:
        options = {name: value for name, value in load_options.items() if name != "memory"}
        reading = replace(options.pop("reading", Reading()), max_bad=1.0)
        shape = load(data, "train", limit=4, reading=reading, **options).shape
    except MixedSizesError:
        return PHOTO_SIZE
    except DataError:  # none of these few can be read: loading all will tell
        return None
    return PHOTO_SIZE if max(shape[1:]) > 128 else None


def _spread(count: int, most: int) -> Tensor:
    """Indices of at most `most` items, evenly over all."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def _accelerator(device: str, precision: str) -> Accelerator:
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: choose auto, cpu or cuda")
    # another run of this process may have had another precision or device
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
    if device == "cuda" and accelerator.device.type != "cuda":
        raise UsageError("--device cuda: no CUDA device is visible to PyTorch")
    return accelerator


def _name(data: Any) -> Any:
    if isinstance(data, ImageSet | StoredSet | Points):
        return data.name
    return [str(d) for d in data] if isinstance(data, list | tuple) else str(data)


BASELINES = {"pca": "pca", "ae": "pae", "af": "af", "pie": "pie"}  # algorithms by name


def baseline(
    name: str, run: str | Path, data: Data, outdir: str | Path, device: str = "auto", quiet: bool = True
) -> GenerativeModel:
    """Train a baseline with the settings of a run: the same d, steps, widths and images.

    Args:
        name: "pca": principal components and a Gaussian. "ae": a convolutional autoencoder of networks as
            wide as the run's, with splines for the density of its codes. "af": a flow on the whole space.
            "pie": one that is told which coordinates lie on the manifold.
        run: The run's directory.
        data: The training images.
        outdir: Of the baseline's own run; a finished one is not trained again, and an unfinished one goes on.
        device: "auto", "cpu" or "cuda".
        quiet: Without a progress bar on stderr.

    Raises:
        UsageError: If there is no such baseline, no run, or another run in outdir.
        DataError: If the run was trained on other images.
    """
    if name not in BASELINES:
        raise UsageError(f"no baseline {name!r}: there are {', '.join(BASELINES)}")
    like, own = Run(run), Run(outdir)
    config = like.config()
    like.require_same_data({"data": data.name, **data.summary()})
    algorithm = BASELINES[name]
    if config.noise_aware and algorithm not in NOISE_AWARE:
        config = config.with_(noise=0.0)
    config = config.with_(algorithm=algorithm)
    begun = (own.directory / "config.json").exists()
    if begun and own.config() != config:
        raise UsageError(f"{outdir} holds a run with other settings: choose another --outdir")
    if begun and (own.model / WEIGHTS).exists():
        from mfimage.run import from_pretrained

        own.require_same_data({"data": data.name, **data.summary()})
        return from_pretrained(own.model)
    return train(data, outdir, config, device=device, resume=begun, quiet=quiet)
