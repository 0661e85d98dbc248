"""The clock of a training: how many seconds each of its phases may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from mfimage.algorithms import Phase
from mfimage.checkpoints import Snapshots
from mfimage.errors import DataError
from mfimage.files import read_json
from mfimage.run import Run

MEASURING = 0.05  # share of the time that is kept for measurements at the end
GRANTED = "clock.json"


class TimeBudget:
    """Seconds for the phases of a training, each when it begins.

    Of the time that is left, T minus what is used, a phase gets its share over the shares of all that is
    still to come, measurements included; so what one does not use goes to those after it. At least it gets
    half of T times its share. What was granted is kept in the run, where a resumed one finds it.
    """

    def __init__(
        self,
        total: float,
        phases: Sequence[Phase],
        run: Run,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.run, self.clock = total, run, clock
        self.began = clock() if began is None else began
        self.shares = shares_of(phases)
        progress = {name: Snapshots(run.checkpoints, name).progress() for name in self.shares}
        self._before = {name: float(found.get("seconds", 0)) for name, found in progress.items()}
        self.granted: dict[str, float] = {}
        with suppress(DataError):  # nothing was granted yet
            noted = read_json(run.directory / GRANTED)
            self.granted = noted["granted"] if noted["total"] == total else {}

    def grant(self, name: str) -> float:
        """Return the seconds of the phase that begins, or that began in a run that is resumed."""
        if name not in self.granted:
            names = list(self.shares)
            earlier, later = names[: names.index(name)], names[names.index(name) :]
            used = self.clock() - self.began + sum(self._before[one] for one in earlier)
            part = self.shares[name] / (sum(self.shares[one] for one in later) + MEASURING)
            self.granted[name] = max((self.total - used) * part, self.total * self.shares[name] / 2)
        return self.granted[name]

    def note(self) -> None:
        """Write down what was granted."""
        self.run.write(GRANTED, {"total": self.total, "granted": self.granted})


def shares_of(phases: Sequence[Phase]) -> dict[str, float]:
    """Return the share of each phase in the time of all, which is in proportion to what it is given.

    What is added takes its own from all of them alike.
    """
    added = sum(phase.share for phase in phases if phase.added)
    given = sum(phase.share for phase in phases if not phase.added)
    others = (1 - MEASURING - added) / given if given else 0.0
    return {phase.name: phase.share * (1 if phase.added else others) for phase in phases}
