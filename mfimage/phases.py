"""Training by phases: one model through those of its algorithm, with checkpoints, curves and pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mfimage.account import Account
from mfimage.algorithms import ALGORITHMS, Batch, Phase, awake
from mfimage.augmentation import mirrored, shifted
from mfimage.budget import TimeBudget
from mfimage.checkpoints import Snapshots
from mfimage.config import Config
from mfimage.datasets.points import Points
from mfimage.datasets.sets import Dataset
from mfimage.errors import UsageError
from mfimage.files import stream
from mfimage.fit import agreed, alone, fit, shuffled
from mfimage.models import GenerativeModel
from mfimage.models.subspace import pca_rows
from mfimage.run import Run, trim_stats
from mfimage.schedule import Progress, Schedule
from mfimage.views import copies_of, points_seen

COLUMNS = 16  # of a sheet of images
NESTED = 0.5  # share of the images of a step whose codes are cut, where nested ones are learned
ENDLESS = 2**62  # steps, as many as the clock allows


class Trainer:
    """The phases of an algorithm on one model, sharing the run, the accelerator and the settings."""

    def __init__(
        self,
        model: GenerativeModel,
        config: Config,
        run: Run,
        accelerator: Accelerator,
        quiet: bool = True,
        linear: float | None = None,
        began: float | None = None,
    ) -> None:
        self.model, self.config, self.run, self.accelerator = model.eval(), config, run, accelerator
        self._codes: tuple[Dataset, Dataset] | None = (
            None  # of data to learn from and held out, once they are known
        )
        self.phases = [phase for phase in ALGORITHMS[config.algorithm].phases if self._learns(phase)]
        self.account = Account(config, self.phases, quiet or not accelerator.is_main_process, linear)
        self.budget = None if config.seconds is None else TimeBudget(config.seconds, self.phases, run, began)

    def run_phases(self, training: Dataset, held_out: Dataset) -> None:
        """Train all phases of the configuration's algorithm, or go on with them where they stopped."""
        self.account.paces = self._paces(training)
        try:
            for phase in ALGORITHMS[self.config.algorithm].phases:
                if phase in self.phases:
                    self._run_phase(phase, training, held_out)
                elif not phase.codes and phase.part(self.model) is not None:
                    # a chart without networks, or a prescribed one
                    phase.start(self.model, self._seen(phase, training))
        finally:
            self.run.close()

    def _paces(self, training: Dataset) -> dict[str, float]:
        """Try how many seconds a step of each phase takes, where steps are counted and somebody is told."""
        paces: dict[str, float] = {}
        if self.account.quiet or self.budget is not None:
            return paces
        for phase in self.phases:
            rows = self._rows(phase, len(training))(0)
            data = training.subset(rows)
            if phase.points:
                data = self._points(phase, data)
            batch = self._training_batch(phase, data, torch.arange(len(rows)), data.batch(slice(None)), 0)
            with awake(self.model, phase) as module, alone(self.model, module):
                whole = phase.within(self.model) if phase.within else module
                for _ in range(2):  # the first has caches to fill
                    began = time.perf_counter()
                    phase.loss(whole, batch, self.config).backward()
                    paces[phase.name] = time.perf_counter() - began
        self.model.zero_grad(set_to_none=True)
        return paces

    def _learns(self, phase: Phase) -> bool:
        """Whether a model has what a phase trains: a prescribed chart has nothing to learn."""
        with awake(self.model, phase) as module:
            return any(p.requires_grad for p in module.parameters())

    def _run_phase(self, phase: Phase, training: Dataset, held_out: Dataset) -> None:
        module = phase.part(self.model) or nn.Module()
        snapshots, main = Snapshots(self.run.checkpoints, phase.name), self.accelerator.is_main_process
        images = held_out
        training, held_out = self._prepared(phase, training, held_out)
        schedule, rows = self._schedule(phase), self._rows(phase, len(training))
        if main:
            self._clear(phase, snapshots, schedule)
        whole = phase.within(self.model) if phase.within else None
        with (
            alone(self.model, module),
            training.prefetched(rows, ENDLESS if schedule.steps is None else schedule.steps) as read,
            self.account.phase(phase, schedule, len(held_out)) as tell,
        ):

            def batches(step: int) -> Batch:
                return self._training_batch(phase, training, rows(step), read(step), step)

            def loss(module: nn.Module, batch: Batch) -> Tensor:
                return phase.loss(whole or module, batch, self.config)

            def validate() -> float:
                return self._validation(phase, whole or module, held_out)

            def report(reached: Progress, record: dict[str, float]) -> None:
                tell(reached, record)
                if main:
                    self._record(phase, reached.step, record, images)

            fit(
                module, loss, batches, validate, schedule, snapshots, self.accelerator, report,
                phase.keep_best, self.config.seed, globally=self.model.config is None,
            )  # fmt: skip
        if phase.finish:
            phase.finish(self.model, self._seen(phase, training))

    def _prepared(self, phase: Phase, training: Dataset, held_out: Dataset) -> tuple[Dataset, Dataset]:
        """Start what a phase trains; and map data to what it is trained on, if that is not the data.

        Also where a checkpoint takes the place of the first weights: what stands still is in none.
        """
        if not phase.codes:
            phase.start(self.model, self._seen(phase, training))
        if phase.codes and self._codes:
            training, held_out = self._codes
        elif phase.points:
            c = self.config
            shift = 0.0 if phase.codes else c.shift or 0.0
            copies = copies_of(len(training)) if shift else 0
            training = self._points(phase, training, bool(c.flip), shift, copies)
            held_out = self._points(phase, held_out)
        if phase.codes:
            self._codes = training, held_out
            phase.start(self.model, self._seen(phase, training))
        return training, held_out

    def _points(
        self, phase: Phase, data: Dataset, mirror: bool = False, shift: float = 0.0, copies: int = 0
    ) -> Points:
        """Map data, and copies of them, to what a phase is trained on."""
        assert phase.points is not None
        view, classes = partial(phase.points, self.model), self.model.classifier is not None
        device, seed = self.accelerator.device, self.config.seed
        return points_seen(data, view, device, mirror, shift, copies, seed, classes)

    def _clear(self, phase: Phase, snapshots: Snapshots, schedule: Schedule) -> None:
        """Remove what the curves hold after the checkpoint, and later phases where this one goes on."""
        curves, newest = self.run.directory / "stats.jsonl", snapshots.newest()
        if newest is None:
            return
        trim_stats(curves, phase.name, snapshots.step_of(newest))
        reached = Progress(**snapshots.progress())
        reached.go_on(schedule.extent)
        if reached.ended or schedule.over(reached, patient=not phase.keep_best):
            return
        for later in self.phases[self.phases.index(phase) + 1 :]:
            Snapshots(self.run.checkpoints, later.name).clear()
            trim_stats(curves, later.name, -1)

    def _seen(self, phase: Phase, training: Dataset) -> Batch:
        """Examples evenly over all, and their mirror images: what a phase starts from and ends with."""
        count, mirror = len(training), self._mirrors(phase)
        features = math.prod(self.model.shape) * (1 + mirror)
        rows = torch.arange(count) if phase.codes else pca_rows(count, features, self.model.dim)
        x = training.batch(rows)
        if mirror:
            x, rows = torch.cat([x, x.flip(3)]), torch.cat([rows, rows])
        return self._batch(training, rows, x)

    def _mirrors(self, phase: Phase) -> bool:
        """Whether a phase sees mirror images; codes hold theirs already, and PCA is that of the images."""
        return bool(self.config.flip) and not phase.codes and not phase.closed

    def _schedule(self, phase: Phase) -> Schedule:
        c = self.config
        steps, lr = (c.density_steps, c.density_lr) if phase.codes else (c.steps, c.lr * phase.lr)
        seconds = 0.0
        if phase.closed:
            steps = 0
        elif self.budget is not None:
            seconds = agreed([], self.budget.grant(phase.name), self.accelerator)[1]
            if self.accelerator.is_main_process:
                self.budget.note()
        decay = (c.weight_decay or 0.0) * phase.decay
        return Schedule(
            steps, lr, c.warmup, c.clip, decay, c.every, c.ema, c.patience, seconds,
            phase.muon, phase.momentum,
        )  # fmt: skip

    def _rows(self, phase: Phase, count: int) -> Callable[[int], Tensor]:
        """Step to the rows of this process's share of a batch."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        batch_size = max(1, round(self.config.batch_size * phase.batch))
        if batch_size % world:
            raise UsageError(f"batches of {batch_size} cannot be shared by {world} processes")
        return shuffled(count, min(batch_size, count // world * world), self.config.seed, rank, world)

    def _batch(self, data: Dataset, rows: Tensor, x: Tensor) -> Batch:
        """Put examples, and what belongs to them, on the device."""
        label = (
            data.labels if isinstance(data, Points) else None
        )  # of codes; others may have to be read for it
        known = (None if t is None else self._to_device(t[rows]) for t in (data.theta, data.score, label))
        return Batch(self._to_device(x), *known)

    def _training_batch(self, phase: Phase, data: Dataset, rows: Tensor, x: Tensor, step: int) -> Batch:
        batch = self._batch(data, rows, x)
        if self._mirrors(phase) and not phase.points:
            batch = batch._replace(x=mirrored(batch.x, self._drawn(batch.x, 1, step + 2**41)[:, 0]))
        if phase.shifts and self.config.shift:
            draw = self._drawn(batch.x, 4, step + 2**43)
            batch = batch._replace(x=shifted(batch.x, self.config.shift, draw))
        if phase.nests and self.config.nested:
            whole, share = self._drawn(batch.x, 2, step + 2**44).T
            kept = (1 + share * self.model.dim).long().where(whole < NESTED, self.model.dim)
            batch = batch._replace(kept=self._to_device(kept))
        return self._disturbed(phase, batch, step)

    def _drawn(self, x: Tensor, count: int, number: int) -> Tensor:
        """Draw numbers in [0, 1) for every image, by the seed, a number and its place in the whole batch."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        return torch.rand(
            len(x) * world, count, generator=stream(self.config.seed, number), dtype=torch.float32
        )[rank::world]

    def _disturbed(self, phase: Phase, batch: Batch, step: int) -> Batch:
        """Add the random numbers of a step, which follow from the seed and the step."""
        if phase.disturb is None:
            return batch
        number = step * self.accelerator.num_processes + self.accelerator.process_index
        generator = stream(self.config.seed, number + 2**40)
        return phase.disturb(batch, self.config, generator, self.model.dim)

    @torch.no_grad()
    def _validation(self, phase: Phase, module: nn.Module, held_out: Dataset) -> float:
        """Average the loss of held-out examples, with the same random numbers every time."""
        total, size = 0.0, 1024 if phase.codes or len(held_out.shape) == 1 else 256
        for i, rows in enumerate(torch.arange(len(held_out)).split(size)):
            batch = self._disturbed(phase, self._batch(held_out, rows, held_out.batch(rows)), -1 - i)
            total += float(phase.loss(module, batch, self.config)) * len(rows)
        return total / len(held_out)

    def _record(self, phase: Phase, step: int, record: dict[str, float], held_out: Dataset) -> None:
        """Write a line of the curves every ten steps, and pictures after every validation."""
        if step % 10 == 0 or "validation" in record:
            self.run.scalars(phase.name, step, record)
        if "validation" in record and len(self.model.shape) == 3:
            self._draw(phase, step, held_out)

    @torch.no_grad()
    def _draw(self, phase: Phase, step: int, held_out: Dataset) -> None:
        """Draw a sheet of two rows of what a phase changes."""
        rows = torch.arange(min(COLUMNS, len(held_out)))
        batch = self._batch(held_out, rows, held_out.batch(rows))
        generator = torch.Generator().manual_seed(self.config.seed)
        self.run.picture(phase.name, step, phase.sheet(self.model, batch, generator), len(rows))

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.accelerator.device)
