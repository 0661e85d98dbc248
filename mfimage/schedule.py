"""The schedule of a phase, by steps or by the clock, how far it has come, and an average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

MARKS = (0.01, 0.02, *(round(0.04 * i, 2) for i in range(1, 26)))  # shares of a phase: 1, 2, 4, 8, 12, … %
PATIENT = 0.2  # share of a phase before which it does not end
RISE = 0.05  # share of a phase by the clock that the warm-up takes at most
WATCHING = 0.1  # share of the clock that validations may take


@dataclass
class Progress:
    """Where a phase stands; what a checkpoint remembers beside tensors.

    Attributes:
        step: Steps made.
        best: The least validation error.
        best_step: Its step.
        stale: Validations since.
        seconds: Time used, validations and pictures included.
        mark_step: The step of the last validation.
        mark_seconds: The time used up to it, itself included.
        watched: Seconds that it took.
        pace: Seconds a step before it, 0 at first.
        extent: What the phase was planned for, in steps or seconds.
        ended: Whether it is over, by its schedule or for want of patience.
    """

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    stale: int = 0
    seconds: float = 0.0
    mark_step: int = 0
    mark_seconds: float = 0.0
    watched: float = 0.0
    pace: float = 0.0
    extent: float = 0.0
    ended: bool = False

    def go_on(self, extent: float) -> None:
        """Note what the phase is planned for; one that ended goes on when that has changed."""
        if self.extent != extent:
            self.extent, self.stale, self.ended = extent, 0, False

    def validated(self, error: float, before: float, now: float) -> None:
        """Note a validation error, and the time before and after it."""
        self.stale += 1
        if error < self.best:
            self.best, self.best_step, self.stale = error, self.step, 0
        if self.step > self.mark_step:
            self.pace = (now - self.mark_seconds) / (self.step - self.mark_step)
        self.mark_step, self.mark_seconds, self.watched, self.seconds = self.step, now, now - before, now


@dataclass(frozen=True)
class Schedule:
    """How long a phase trains, and at which learning rate: linear warm-up, then a cosine to zero.

    lr(step) = lr · min(1, (step + 1)/warmup) · ½ (1 + cos π·share)

    By steps, share = step/steps. By the clock the warm-up takes at most 5 % of the phase, and share is
    planned anew at every validation, from the time used and the seconds a step before; in between it follows
    from the step alone, so that a resumed phase goes on as the unbroken one would have.

    Args:
        steps: Optimiser steps; None goes by the clock.
        lr: Peak learning rate.
        warmup: Steps of the linear rise.
        clip: Largest norm of the gradient.
        weight_decay: AdamW's, of matrices and kernels; vectors (biases, offsets, scales) have none.
        every: Steps between validations; None validates at 1, 2, 4, 8 % of the phase and then every 4 %, by
            the clock at most so often that it takes a tenth of the time.
        ema: β of the average of the weights that is validated and kept; 0 keeps the weights themselves.
        patience: Validations without a better one that end the phase, after a fifth of it; 0 never does.
        seconds: Of the phase, by the clock.
        muon: Whether all weights, which are matrices and kernels, are updated by `Muon` and not by AdamW,
            with a decay of its own.
        momentum: β₁ of AdamW.
    """

    steps: int | None
    lr: float
    warmup: int = 100
    clip: float = 200.0
    weight_decay: float = 0.0
    every: int | None = None
    ema: float = 0.0
    patience: int = 0
    seconds: float = 0.0
    muon: bool = False
    momentum: float = 0.9

    @property
    def extent(self) -> float:
        """What the phase is planned for, in steps or seconds."""
        return self.seconds if self.steps is None else self.steps

    def done(self, progress: Progress) -> float:
        """Return the share of the phase that is done, in [0, 1]; by the clock as of the time used."""
        if not self.extent:
            return 1.0
        if self.steps is not None:
            return min(1.0, progress.step / self.steps)
        return min(1.0, progress.seconds / self._room(progress))

    def planned(self, progress: Progress) -> float:
        """Return the share of the phase by which the learning rate goes."""
        if self.steps is not None:
            return self.done(progress)
        seconds = progress.mark_seconds + (progress.step - progress.mark_step) * progress.pace
        return min(1.0, seconds / self._room(progress))

    def lr_at(self, step: int, share: float | None = None) -> float:
        """Return the learning rate of a step, counted from 0, when so much of the phase is done."""
        if share is None:
            share = step / max(1, self.steps or 0)
        ramp = min(1.0, (step + 1) / max(1, self.warmup))
        if self.steps is None:
            ramp = min(1.0, max(ramp, share / RISE))
        return self.lr * ramp * 0.5 * (1 + math.cos(math.pi * share))

    def due(self, progress: Progress) -> bool:
        """Whether to validate after the step that was made."""
        if self.done(progress) >= 1:
            return True
        if self.every is not None:
            return progress.step % self.every == 0
        if self.steps is not None:
            return progress.step in self._steps_of_marks
        passed = progress.mark_seconds / self._room(progress) + 1e-9
        reached = self.done(progress) >= next((mark for mark in MARKS if mark > passed), 1.0)
        since = progress.seconds - progress.mark_seconds
        return reached and WATCHING * since >= (1 - WATCHING) * progress.watched

    def over(self, progress: Progress, patient: bool) -> bool:
        """Whether a phase ends; a `patient` one only with its time."""
        share = self.done(progress)
        tired = not patient and 0 < self.patience <= progress.stale and share >= PATIENT
        return share >= 1 or tired

    def _room(self, progress: Progress) -> float:
        """The seconds before the last validation, which takes some itself."""
        return max(self.seconds - progress.watched, 1e-9)

    @cached_property
    def _steps_of_marks(self) -> frozenset[int]:
        return frozenset(max(1, round(mark * (self.steps or 0))) for mark in MARKS)


class Average:
    """An exponential moving average of what a module learns; none of it for β = 0.

    θ̄ ← β_t θ̄ + (1 − β_t) θ,  β_t = min(β, (1 + t)/(10 + t)) after step t.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        learned = {n: p for n, p in module.named_parameters() if p.requires_grad} if decay else {}
        self.decay: float = decay
        self._weights: list[Tensor] = list(learned.values())
        self.tensors = {name: parameter.detach().clone() for name, parameter in learned.items()}

    @torch.no_grad()
    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on with a saved average; what was not averaged begins with the weights as they are."""
        for (name, mine), weight in zip(self.tensors.items(), self._weights, strict=True):
            mine.copy_(saved.get(name, weight))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step."""
        if self._weights:
            torch._foreach_lerp_(self._averages, self._weights, 1 - min(self.decay, (1 + step) / (10 + step)))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the place of the weights for a while."""
        kept = [weight.detach().clone() for weight in self._weights]
        self.keep()
        try:
            yield
        finally:
            self._copy(self._weights, kept)

    def keep(self) -> None:
        """Put the average in the place of the weights."""
        self._copy(self._weights, self._averages)

    @property
    def _averages(self) -> list[Tensor]:
        return list(self.tensors.values())

    @staticmethod
    @torch.no_grad()
    def _copy(to: list[Tensor], source: list[Tensor]) -> None:
        for a, b in zip(to, source, strict=True):
            a.copy_(b)
