"""A training loop that knows steps, checkpoints and signals, and nothing about flows."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn

from mfimage.checkpoints import Snapshots
from mfimage.errors import DivergedError, Interrupted, UsageError
from mfimage.files import stream
from mfimage.modes import drawing
from mfimage.muon import Muon
from mfimage.pretrained import find_device
from mfimage.schedule import Average, Progress, Schedule
from mfimage.signals import caught_signals

_MAKING = threading.Lock()  # held while an accelerator is made, whose state all threads share


def quickest_precision(images: bool, device: torch.device) -> Literal["no", "bf16"]:
    """Return what trains quickest: bf16 for images on a CPU that multiplies matrices in it (AMX)."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if images and device.type == "cpu" and known.get("amx_bf16") else "no"


def make_accelerator(device: str, precision: str | None = None) -> Accelerator:
    """Make what knows the device (auto, cpu, cuda or cuda:N), the processes and the precision.

    Raises:
        UsageError: For another device, or one that is not there.
    """
    wanted = torch.device(find_device(device))
    if wanted.type not in ("cpu", "cuda"):
        raise UsageError(f"device {device}: training runs on auto, cpu, cuda or cuda:N")
    alike = DistributedDataParallelKwargs(broadcast_buffers=False)  # buffers stand still in training
    cpu, precision = wanted.type == "cpu", precision or "no"
    with _MAKING:
        known, alone = AcceleratorState._shared_state, not torch.distributed.is_initialized()
        other = (known.get("_cpu"), known.get("_mixed_precision")) != (cpu, precision)
        if known and (other or (alone and wanted.index != known["device"].index)):
            AcceleratorState._shared_state = {}  # not cleared: its run may go on in another thread
            if alone:
                PartialState._shared_state = {}
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[alike])
        if wanted.index is not None and accelerator.num_processes == 1:
            accelerator.state.device = wanted
        return accelerator


class ModuleWithLoss(nn.Module):
    """A loss with the module it trains, as one module: what data-parallel wrappers need."""

    def __init__(self, module: nn.Module, loss: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, batch: Any) -> Tensor:
        """Evaluate the loss of a batch."""
        return self.loss(self.module, batch)


@torch.enable_grad()
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
    clock: Callable[[], float] = time.monotonic,
    globally: bool = True,
) -> Progress:
    """Minimise a loss; at the end the module holds the weights of the best validation or the last.

    With `schedule.ema` these are averages over the steps, which are validated too. Whoever passes only a part
    of a model freezes the rest. A resumed run equals an unbroken one bit for bit (on one thread, and by the
    clock if that reads the same), because a batch is a function of the step alone.

    The newest checkpoint of `snapshots` is continued, and a phase that had ended goes on if its schedule has
    grown. A non-finite loss or gradient stops it before it reaches the weights, a non-finite validation error
    before it is saved, SIGINT, SIGTERM and SIGHUP once the step is finished and saved. `batches` maps a step
    (from 0) to this process's batch on the device: a tensor, or a tuple with one first. `validate` gives the
    error to watch, lower is better, whenever `schedule.due`; `report` is called after every step with the
    progress and {loss, grad_norm, lr[, validation]}, where there is a validation with the weights that it
    saw. The module is in training mode during a step, where dropout draws from (seed, step), and so do
    layers of others, if `globally`; in evaluation mode else. `clock` gives seconds.
    """
    optimiser = _optimiser(module, schedule)
    average = Average(module, schedule.ema)
    progress = Progress(**snapshots.restore(module, optimiser, average))
    progress.go_on(schedule.extent)
    main, stop, began = accelerator.is_main_process, 0, clock() - progress.seconds
    watch = partial(_watch, validate, progress, snapshots, accelerator, lambda: clock() - began)
    accelerator.wait_for_everyone()  # no process may write what another still reads
    if progress.step == 0 and schedule.extent:
        watch()
        if main:
            snapshots.save_best(module, progress)
            snapshots.save(module, optimiser, progress, average)
    objective, optimiser_ = accelerator.prepare(ModuleWithLoss(module, loss), optimiser)
    progress.ended |= schedule.over(progress, patient=not keep_best)
    with caught_signals() as caught:
        while not progress.ended and not stop:
            lr = schedule.lr_at(progress.step, schedule.planned(progress))
            for group in optimiser.param_groups:
                group["lr"] = lr
            batch = batches(progress.step)
            module.train()
            number = progress.step * accelerator.num_processes + accelerator.process_index + 2**42
            with drawing(stream(seed, number).initial_seed(), accelerator.device, globally):
                record = _step(objective, optimiser_, batch, schedule.clip, accelerator, progress, snapshots)
            module.eval()
            progress.step += 1
            average.update(progress.step)
            stop, progress.seconds = agreed(caught, clock() - began, accelerator)
            if due := schedule.due(progress):
                with average.applied():
                    record["validation"] = watch()
                    if main and progress.best_step == progress.step:
                        # first: a crash before the checkpoint then repeats this step, and keeps no older best
                        snapshots.save_best(module, progress)
                progress.ended = schedule.over(progress, patient=not keep_best)
                stop = agreed(caught, 0, accelerator)[0]
            try:  # first, so that what a checkpoint stands for is on record whenever a process dies
                with average.applied() if due else nullcontext():
                    report(progress, record)
            finally:
                if main and (due or stop):
                    snapshots.save(module, optimiser, progress, average)
    accelerator.wait_for_everyone()
    if stop := stop or agreed(caught, 0, accelerator)[0]:  # also one that came after the last step
        saved = f"saved step {progress.step} as {snapshots.newest()}"
        raise Interrupted(stop, f"{signal.Signals(stop).name}: {saved}")
    average.keep()
    if keep_best:
        snapshots.restore_best(module)
    return progress


def _optimiser(module: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.muon:
        return Muon(module.parameters(), schedule.lr)
    betas = schedule.momentum, 0.99
    return torch.optim.AdamW(_groups(module, schedule.weight_decay), lr=schedule.lr, betas=betas)


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Apart what decays, matrices and kernels, from what does not."""
    weights = list(module.parameters())
    if not weight_decay:
        return [{"params": weights, "weight_decay": 0.0}]
    decay = {weight_decay: [p for p in weights if p.dim() > 1], 0.0: [p for p in weights if p.dim() <= 1]}
    return [{"params": some, "weight_decay": rate} for rate, some in decay.items() if some]


def _step(
    objective: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Any,
    clip: float,
    accelerator: Accelerator,
    progress: Progress,
    snapshots: Snapshots,
) -> dict[str, float]:
    started = time.perf_counter()
    x = batch if isinstance(batch, Tensor) else batch[0]
    optimiser.zero_grad(set_to_none=True)
    value = objective(batch)
    accelerator.backward(value)
    norm = accelerator.clip_grad_norm_(objective.parameters(), clip)
    record = {"loss": float(value.detach()), "grad_norm": float(norm), "lr": optimiser.param_groups[0]["lr"]}
    if not (math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"])):
        raise DivergedError(
            f"loss {record['loss']:g}, gradient norm {record['grad_norm']:g} at step {progress.step} "
            f"(batch {progress.step}: {len(x)} rows, values {float(x.min()):.3g} … {float(x.max()):.3g}). "
            f"{_last_good(snapshots)}"
        )
    optimiser.step()
    record["images_per_second"] = len(x) * accelerator.num_processes / (time.perf_counter() - started)
    return record


def _watch(
    validate: Callable[[], float],
    progress: Progress,
    snapshots: Snapshots,
    accelerator: Accelerator,
    now: Callable[[], float],
) -> float:
    """Validate, and note the error and the time in the progress."""
    before = agreed([], now(), accelerator)[1]
    error = validate()
    if not math.isfinite(error):
        raise DivergedError(f"validation error {error:g} after step {progress.step}. {_last_good(snapshots)}")
    progress.validated(error, before, agreed([], now(), accelerator)[1])
    return error


def _last_good(snapshots: Snapshots) -> str:
    return (
        f"The last good checkpoint is {snapshots.newest() or 'none: nothing was saved'}. Resuming would "
        "repeat these steps: train anew with a lower learning rate (mfimage train --lr), and look at the "
        "images if that does not help"
    )


def agreed(caught: list[int], seconds: float, accelerator: Accelerator) -> tuple[int, float]:
    """Return a signal that some process caught (0: none) and the first one's clock, so that all act alike."""
    number = caught[0] if caught else 0
    if accelerator.num_processes == 1:
        return number, seconds
    mine = torch.tensor([[number, seconds]], dtype=torch.float64, device=accelerator.device)
    all_ = accelerator.gather(mine)
    return int(all_[:, 0].max()), float(all_[0, 1])


def shuffled(
    count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1
) -> Callable[[int], Tensor]:
    """Make indices of batches a function of (seed, step): every epoch is a permutation of its own.

    Process `rank` of `world` gets the int64 indices of its share of a step, shape (batch_size / world,).
    """

    @lru_cache(2)
    def permutation(epoch: int) -> Tensor:
        return torch.randperm(count, generator=stream(seed, epoch))

    def indices(step: int) -> Tensor:
        positions = torch.arange(step * batch_size + rank, (step + 1) * batch_size, world)
        epochs = range(int(positions[0]) // count, int(positions[-1]) // count + 1)
        return torch.cat([permutation(e)[positions[positions // count == e] % count] for e in epochs])

    return indices


@contextmanager
def alone(model: nn.Module, part: nn.Module) -> Iterator[None]:
    """Compute gradients of no parameters of a model but those of a part."""
    own = {id(parameter) for parameter in part.parameters()}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
