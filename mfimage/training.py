"""Training an M-flow: the manifold by reconstruction, then the density by likelihood on fixed codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from mfimage import losses
from mfimage.checkpoint import build, save_pretrained
from mfimage.config import Config, to_json
from mfimage.console import list_skipped, progress_bar
from mfimage.datasets.images import ImageSet, load
from mfimage.errors import DataError, MixedSizesError, UsageError
from mfimage.fitting import Progress, Schedule, fit, shuffled
from mfimage.models import ManifoldFlow
from mfimage.runs import Run, trim_stats
from mfimage.snapshots import Snapshots

PHOTO_SIZE = 64  # pixels; what a first manifold of photographs is learned at
PREVIEW = 32  # images on a sheet
PCA_FLOATS = 50_000_000  # numbers that the principal components are taken from: 200 MB


def train(
    data: str | Path | Sequence[str | Path] | ImageSet,
    outdir: str | Path,
    config: Config | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = True,
    **load_options: Any,
) -> ManifoldFlow:
    """Train an M-flow on images and write a run's directory.

    Args:
        data: A named set, folder, zip or array file (its split "train"), several of these, or an ImageSet.
            Photographs (images of several sizes, or above 128 pixels) are taken at 64 × 64 if config.size
            does not say otherwise.
        outdir: The run's directory; see `runs.Run`.
        config: Settings; with `resume`, those of the run are taken instead.
        device: "auto", "cpu" or "cuda".
        resume: Continue the run in outdir from its newest checkpoint, bit for bit.
        quiet: Without a progress bar on stderr.
        load_options: Passed to `datasets.load` (max_pixels, max_bad, value_range).

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
    if accelerator.is_main_process:
        list_skipped(images.skipped)
    training, held_out = hold_out(images, config)
    summary = {"data": _name(data), **images.summary()}
    if resume:
        run.require_same_data(summary)
    elif accelerator.is_main_process:
        run.begin(to_json(config), summary)
    model = build(config.model_config(training.shape), config.seed).to(accelerator.device)
    trainer = _Trainer(model, config, run, accelerator, quiet)
    try:
        trainer.manifold(training, held_out)
        trainer.density(training, held_out)
    finally:
        run.close()
    if accelerator.is_main_process:
        save_pretrained(model, run.model)
    return model.eval()


def hold_out(images: ImageSet, config: Config) -> tuple[ImageSet, ImageSet]:
    """Split off the images that watch the error: `validation` of them, at most a fifth, drawn by the seed."""
    count = max(1, min(config.validation, len(images) // 5))
    if len(images) - count <= config.dim:
        raise DataError(
            f"{images.name}: {len(images)} images are too few for a manifold of {config.dim} dimensions: "
            f"give more than {config.dim * 5 // 4 + 1}, or lower --dim"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed))
    return images.subset(order[count:].sort().values), images.subset(order[:count].sort().values)


class _Trainer:
    """The two phases on one model, sharing the run, the accelerator and the settings."""

    def __init__(
        self, model: ManifoldFlow, config: Config, run: Run, accelerator: Accelerator, quiet: bool
    ) -> None:
        self.model, self.config, self.run, self.accelerator, self.quiet = (
            model,
            config,
            run,
            accelerator,
            quiet,
        )

    def manifold(self, training: ImageSet, held_out: ImageSet) -> None:
        """Phase 1: the chart, by reconstruction of images."""
        if Snapshots(self.run.checkpoints, "manifold").newest() is None:
            most = max(PCA_FLOATS // self.model.chart.features, 2 * self.config.dim + 32)
            self.model.chart.initialise(
                training.batch(_spread(len(training), most)).to(self.accelerator.device)
            )
        rows = self._indices(len(training), self.config.batch_size)
        preview = held_out.batch(torch.arange(min(PREVIEW // 2, len(held_out))))

        def validate() -> float:
            return self._mean(losses.reconstruction, self.model.chart, held_out.batches(256), len(held_out))

        def picture(step: int) -> None:
            with torch.no_grad():
                projected = self.model.project(preview.to(self.accelerator.device)).cpu()
            self.run.picture("reconstructions", step, torch.cat([preview, projected]), len(preview))

        self._fit(
            "manifold",
            self.model.chart,
            losses.reconstruction,
            lambda step: training.batch(rows(step)).to(self.accelerator.device),
            validate,
            self._schedule(self.config.steps, self.config.lr),
            picture,
        )

    def density(self, training: ImageSet, held_out: ImageSet) -> None:
        """Phase 2: h, by likelihood of the codes, which are computed once since the manifold stands still."""
        codes, held_codes = self._codes(training), self._codes(held_out)
        self.model.density.initialise(codes)
        rows = self._indices(len(codes), 2 * self.config.batch_size)
        generator_seed = self.config.seed

        def validate() -> float:
            return self._mean(
                losses.negative_log_likelihood, self.model.density, held_codes.split(1024), len(held_codes)
            )

        def picture(step: int) -> None:
            samples = self.model.sample(PREVIEW, torch.Generator().manual_seed(generator_seed))
            self.run.picture("samples", step, samples, PREVIEW // 2)

        self._fit(
            "density",
            self.model.density,
            losses.negative_log_likelihood,
            lambda step: codes[rows(step).to(codes.device)],
            validate,
            self._schedule(self.config.density_steps, self.config.density_lr),
            picture,
        )

    def _fit(
        self,
        phase: str,
        module: torch.nn.Module,
        loss: Callable[[Any, Tensor], Tensor],
        batches: Callable[[int], Tensor],
        validate: Callable[[], float],
        schedule: Schedule,
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

            fit(module, loss, batches, validate, schedule, snapshots, self.accelerator, report)

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

    def _schedule(self, steps: int, lr: float) -> Schedule:
        c = self.config
        return Schedule(steps, lr, c.warmup, c.clip, c.weight_decay, c.every)

    @torch.no_grad()
    def _codes(self, images: ImageSet) -> Tensor:
        return torch.cat([self.model.encode(x.to(self.accelerator.device)) for x in images.batches(512)])

    @torch.no_grad()
    def _mean(
        self, loss: Callable[[Any, Tensor], Tensor], module: torch.nn.Module, batches: Any, count: int
    ) -> float:
        total = sum(float(loss(module, x.to(self.accelerator.device))) * len(x) for x in batches)
        return total / count


def _images(data: Any, config: Config, load_options: dict[str, Any]) -> tuple[ImageSet, Config]:
    """Load the images, and settle their size in the configuration."""
    if isinstance(data, ImageSet):
        return data, config
    if config.size is None:
        config = replace(config, size=_photo_size(data, load_options))
    try:
        return load(data, "train", config.size, config.channels, **load_options), config
    except MixedSizesError:  # the first few were alike
        config = replace(config, size=PHOTO_SIZE)
        return load(data, "train", config.size, config.channels, **load_options), config


def _photo_size(data: Any, load_options: dict[str, Any]) -> int | None:
    """Choose a size where none is given: images as they are, but photographs at 64 × 64.

    Photographs are images of several sizes, or larger than 128 pixels.
    """
    try:
        shape = load(data, "train", limit=4, **{**load_options, "max_bad": 1.0}).shape
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
    if isinstance(data, ImageSet):
        return data.name
    return [str(d) for d in data] if isinstance(data, list | tuple) else str(data)
