"""A training loop that knows steps, checkpoints and signals, and nothing about flows."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from mfimage.config import DeviceName
from mfimage.errors import DivergedError, Interrupted
from mfimage.files import stream
from mfimage.pretrained import find_device
from mfimage.run import Snapshots
from mfimage.settings import check_name


def make_accelerator(device: str, precision: str = "no") -> Accelerator:
    """Make what knows the device (auto, cpu or cuda), the processes and the precision."""
    check_name("device", device, DeviceName)
    find_device(device)
    # another run of this process may have had another precision or device
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(cpu=device == "cpu", mixed_precision=precision)


@dataclass(frozen=True)
class Schedule:
    """Steps, learning rate (linear warm-up, then cosine to zero), clipping and how often to validate."""

    steps: int
    lr: float
    warmup: int = 100
    clip: float = 200.0
    weight_decay: float = 0.0
    every: int = 500

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        ramp = min(1.0, (step + 1) / max(1, self.warmup))
        return self.lr * ramp * 0.5 * (1 + math.cos(math.pi * step / max(1, self.steps)))


@dataclass
class Progress:
    """Where a phase stands; what a checkpoint remembers beside tensors."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0


class ModuleWithLoss(nn.Module):
    """A loss with the module it trains, as one module: what data-parallel wrappers need."""

    def __init__(self, module: nn.Module, loss: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, batch: Any) -> Tensor:
        """Evaluate the loss of a batch."""
        return self.loss(self.module, batch)


def fit(
    module: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batches: Callable[[int], Any],
    validate: Callable[[], float],
    schedule: Schedule,
    snapshots: Snapshots,
    accelerator: Accelerator,
    report: Callable[[Progress, dict[str, float]], None] = lambda progress, record: None,
    keep_best: bool = True,
    seed: int = 0,
) -> Progress:
    """Minimise a loss with AdamW; at the end the module holds the weights of the best validation or the last.

    Whoever passes only a part of a model freezes the rest. A resumed run equals an unbroken one bit for bit
    (on one thread), because a batch is a function of the step alone.

    The newest checkpoint of `snapshots` is continued. A non-finite loss or gradient stops it before it
    reaches the weights, a non-finite validation error before it is saved, SIGINT and SIGTERM once the step is
    finished and saved. `batches` maps a step (from 0) to this process's batch on the device: a tensor, or a
    tuple with one first. `validate` gives the error to watch, lower is better, after every `schedule.every`
    steps and the last; `report` is called after every step with the progress and {loss, grad_norm, lr[,
    validation]}. The module is in training mode during a step, where dropout draws from (seed, step), and in
    evaluation mode else.
    """
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=schedule.lr, betas=(0.9, 0.99), weight_decay=schedule.weight_decay
    )
    progress = Progress(**snapshots.restore(module, optimiser))
    main, stop = accelerator.is_main_process, 0
    accelerator.wait_for_everyone()  # no process may write what another still reads
    if progress.step == 0 and schedule.steps:
        progress.best = _validated(validate, progress, snapshots)
        if main:
            snapshots.save(module, optimiser, progress, best=True)
    objective, optimiser_ = accelerator.prepare(ModuleWithLoss(module, loss), optimiser)
    with _signals() as caught:
        while progress.step < schedule.steps and not stop:
            for group in optimiser.param_groups:
                group["lr"] = schedule.lr_at(progress.step)
            batch = batches(progress.step)
            module.train()
            with _dropout(seed, progress.step, accelerator):
                record = _step(objective, optimiser_, batch, schedule, accelerator, progress, snapshots)
            module.eval()
            progress.step += 1
            due = progress.step % schedule.every == 0 or progress.step == schedule.steps
            if due:
                record["validation"] = _validated(validate, progress, snapshots)
                if record["validation"] < progress.best:
                    progress.best, progress.best_step = record["validation"], progress.step
            stop = _signal_of_any(caught, accelerator)
            if main and (due or stop):
                snapshots.save(module, optimiser, progress, best=due and progress.best_step == progress.step)
            report(progress, record)
    accelerator.wait_for_everyone()
    if stop := stop or _signal_of_any(caught, accelerator):  # also one that came after the last step
        raise Interrupted(
            stop,
            f"{signal.Signals(stop).name}: saved step {progress.step} as {snapshots.newest()}; "
            "continue with --resume",
        )
    if keep_best:
        snapshots.restore_best(module)
    return progress


def _step(
    objective: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Any,
    schedule: Schedule,
    accelerator: Accelerator,
    progress: Progress,
    snapshots: Snapshots,
) -> dict[str, float]:
    started = time.perf_counter()
    x = batch if isinstance(batch, Tensor) else batch[0]
    optimiser.zero_grad(set_to_none=True)
    value = objective(batch)
    accelerator.backward(value)
    norm = accelerator.clip_grad_norm_(objective.parameters(), schedule.clip)
    record = {"loss": float(value.detach()), "grad_norm": float(norm), "lr": schedule.lr_at(progress.step)}
    if not (math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"])):
        raise DivergedError(
            f"loss {record['loss']:g}, gradient norm {record['grad_norm']:g} at step {progress.step} "
            f"(batch {progress.step}: {len(x)} rows, values {float(x.min()):.3g} … {float(x.max()):.3g}). "
            f"{_last_good(snapshots)}"
        )
    optimiser.step()
    record["images_per_second"] = len(x) * accelerator.num_processes / (time.perf_counter() - started)
    return record


@contextmanager
def _dropout(seed: int, step: int, accelerator: Accelerator) -> Iterator[None]:
    """Let what a step draws from the global random state follow from (seed, step); it is left as it was."""
    device = accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        number = step * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(stream(seed, number + 2**42).initial_seed())
        yield


def _validated(validate: Callable[[], float], progress: Progress, snapshots: Snapshots) -> float:
    error = validate()
    if not math.isfinite(error):
        raise DivergedError(f"validation error {error:g} after step {progress.step}. {_last_good(snapshots)}")
    return error


def _last_good(snapshots: Snapshots) -> str:
    return (
        f"The last good checkpoint is {snapshots.newest() or 'none: nothing was saved'}. Resuming would "
        "repeat these steps: train anew with a lower --lr, and look at the images if that does not help"
    )


def _signal_of_any(caught: list[int], accelerator: Accelerator) -> int:
    """Return the number of a signal that some process has caught, 0 without one: all stop together."""
    number = caught[0] if caught else 0
    if accelerator.num_processes == 1:
        return number
    return int(accelerator.gather(torch.tensor([number], device=accelerator.device)).max())


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; a second one is not held back."""
    caught: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, previous[number] or signal.SIG_DFL)

    with suppress(ValueError):  # not the main thread: whoever runs it there handles its signals
        for wanted in (signal.SIGINT, signal.SIGTERM):
            previous[wanted] = signal.signal(wanted, note)
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)


def shuffled(
    count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1
) -> Callable[[int], Tensor]:
    """Make indices of batches a function of (seed, step): every epoch is a permutation of its own.

    Process `rank` of `world` gets the int64 indices of its share of a step, shape (batch_size / world,).
    """
    cache: dict[int, Tensor] = {}

    def permutation(epoch: int) -> Tensor:
        if epoch not in cache:
            if len(cache) > 1:
                cache.clear()
            cache[epoch] = torch.randperm(count, generator=stream(seed, epoch))
        return cache[epoch]

    def indices(step: int) -> Tensor:
        positions = torch.arange(step * batch_size + rank, (step + 1) * batch_size, world)
        epochs = range(int(positions[0]) // count, int(positions[-1]) // count + 1)
        return torch.cat([permutation(e)[positions[positions // count == e] % count] for e in epochs])

    return indices
