"""What is said of a training while it goes on: what was found, how far it is, how long the rest takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from mfimage.algorithms import MANIFOLD, Phase
from mfimage.budget import MEASURING, shares_of
from mfimage.config import Config
from mfimage.console import counted, duration, progress
from mfimage.datasets.sets import Dataset
from mfimage.denoising.curve import ENOUGH, SIGMAS
from mfimage.eval.image_metrics import PCA, squared_error
from mfimage.schedule import Progress, Schedule
from mfimage.streams import say

Report: TypeAlias = Callable[[Progress, dict[str, float]], None]

_PARTS = 1000  # of a bar
_SMOOTH = 20  # steps over which the loss is averaged
# projections that all methods, and what is familiar, take about, by noise-awareness
_METHODS = {False: 4, True: 12}


class Account:
    """Says what a training does, on stderr.

    Args:
        config: Settings, all decided.
        phases: Those that are trained.
        quiet: Whether nothing is said.
        linear: Squared error of images held out by principal components, the mean over images; None for
            other data.
        clock: Gives seconds.
    """

    def __init__(
        self,
        config: Config,
        phases: Sequence[Phase],
        quiet: bool = True,
        linear: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.phases, self.quiet, self.linear, self.clock = config, phases, quiet, linear, clock
        self.began, self.measuring = clock(), 0.0
        self.paces: dict[str, float] = {}  # seconds a step of each phase, where that was tried

    def say(self, text: str) -> None:
        """Say a line."""
        if not self.quiet:
            say(text)

    def open(self, lines: Sequence[str]) -> None:
        """Say what was found and decided, and how long it takes where that is known."""
        for line in lines:
            self.say(line)
        if self.config.seconds and not all(phase.closed for phase in self.phases):
            given = duration(self.config.seconds, given=True)
            self.say(f"training for {given}; mfimage train --time sets how long")

    @contextmanager
    def phase(self, phase: Phase, schedule: Schedule, held_out: int) -> Iterator[Report]:
        """Show a phase: a bar on a terminal, else a line every ten seconds."""
        losses: deque[float] = deque(maxlen=_SMOOTH)
        validation = ""
        with progress(phase.name, _PARTS, self.quiet, own_words=True) as advance:

            def report(reached: Progress, record: dict[str, float]) -> None:
                nonlocal validation
                losses.append(record["loss"])
                if "validation" in record:
                    validation = (
                        f" (held out {phase.watched}{record['validation']:.4g}{self._beside(phase, record)})"
                    )
                    self._plan_measuring(phase, reached, held_out)
                share, left = schedule.done(reached), self._left(phase, schedule, reached)
                what = "error" if phase.name in MANIFOLD else "loss"
                words = f"{share:4.0%}".replace("%", " %") + f"  step {reached.step:,}"
                words += f"  {what} {sum(losses) / len(losses):.4g}{validation}  {self._time(left)}"
                advance(round(_PARTS * share), note=words)

            yield report

    def _beside(self, phase: Phase, record: dict[str, float]) -> str:
        """Say how a validation error compares with that of principal components."""
        if self.linear is None or phase.name not in MANIFOLD:
            return ""
        return f", {record['validation'] / self.linear:.2f} of PCA's"

    def _time(self, left: float) -> str:
        total = self.config.seconds or self.clock() - self.began + left
        return f"{duration(left)} left of {duration(total)}"

    def _left(self, phase: Phase, schedule: Schedule, reached: Progress) -> float:
        """Return the seconds that the phase, those after it and the measurements take, as far as is known."""
        later = self.phases[self.phases.index(phase) + 1 :]
        if self.config.seconds is not None:
            shares = shares_of(self.phases)
            rest = MEASURING + sum(shares[one.name] for one in later)
            return schedule.seconds * (1 - schedule.done(reached)) + self.config.seconds * rest
        pace = reached.pace or max(reached.seconds - reached.watched, 0) / max(1, reached.step)
        rest = sum(self._steps(one) * self.paces.get(one.name, pace) for one in later)
        return pace * ((schedule.steps or 0) - reached.step) + rest + self.measuring

    def _steps(self, phase: Phase) -> int:
        return (self.config.density_steps if phase.codes else self.config.steps) or 0

    def _plan_measuring(self, phase: Phase, reached: Progress, held_out: int) -> None:
        """Estimate the seconds of the measurements at the end from those of a validation on images."""
        if phase.points is None and self.linear is not None:
            tries = 2 * len(SIGMAS) * min(held_out, ENOUGH) / held_out
            passes = tries * _METHODS[self.config.noise_aware]
            self.measuring = reached.watched * (passes + 1) + 2


def found(training: Dataset, held_out: Dataset) -> str:
    """Say what there is to learn from."""
    what = f"{counted(len(training), 'image')} to learn from, {len(held_out):,} held out"
    if len(training.shape) != 3:
        return f"{what.replace('image', 'vector')}, of length {training.shape[0]}"
    channels, height, width = training.shape
    return f"{what}, {width}×{height} {'grey' if channels == 1 else 'colour'}"


def linear_error(pca: PCA, held_out: Dataset) -> float:
    """Return the squared error of images by principal components, not cut to [0, 1], the mean over images."""
    errors = [squared_error(x, pca.project(x)).double().sum() for x in held_out.batches(256)]
    return float(sum(errors)) / len(held_out)
