"""Try, round after round, to make mfimage lose or falsify something; the README says by what."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from harness import put, say
from torments import bombs, checkpoints, files, kills, limits, streams, threads, words
from torments.place import Place, Torment, Trial

SHARES = {  # of the time
    kills: 4.0, limits: 3.0, files: 2.0, bombs: 1.0, checkpoints: 1.0, words: 2.0, streams: 2.0, threads: 2.0
}  # fmt: skip
TORMENTS: dict[str, Torment] = {name: one for module in SHARES for name, one in module.TORMENTS.items()}
SLOW = {  # not for --quick
    "little-memory", "bombs", "checkpoints", "settings", "ways", "locked", "threads", "threads-200"
}  # fmt: skip
BESIDE = 2  # rounds at once
SHOWN = 100  # failures that are kept


class Round(NamedTuple):
    """What came of a torment once, and in which time."""

    name: str
    seed: int
    trials: list[Trial]
    seconds: float


def play(name: str, seed: int, folder: Path) -> Round:
    """Run a torment once; what it does follows from its name and the seed."""
    began, trials = time.monotonic(), list[Trial]()
    try:
        trials.extend(TORMENTS[name](Place(folder), random.Random(f"{name} {seed}")))
    except Exception:
        trials.append(Trial("the torture runs", False, traceback.format_exc()))
    return Round(name, seed, trials, time.monotonic() - began)


class Account:
    """What was tried and what held."""

    def __init__(self) -> None:
        self.promises: dict[str, Counter[str]] = defaultdict(Counter)
        self.rounds, self.spent, self.failures = Counter[str](), Counter[str](), list[dict[str, Any]]()
        self.slowest, self.largest = 0.0, 0

    def add(self, done: Round) -> None:
        """Count a round, and tell at once what did not hold."""
        self.rounds[done.name] += 1
        self.spent[done.name] += round(done.seconds)
        for trial in done.trials:
            self.promises[trial.promise].update(tried=1, held=int(trial.held))
            self.slowest, self.largest = max(self.slowest, trial.seconds), max(self.largest, trial.peak)
            if not trial.held:
                again = f"--only '{done.name}' --seed {done.seed}"
                say(f"NOT HELD: {trial.promise} ({again}): {trial.what}")
                self.failures.append({"promise": trial.promise, "again": again, "what": trial.what})

    def as_json(self) -> dict[str, Any]:
        """Everything, for the last line."""
        tried, held = (sum(one[what] for one in self.promises.values()) for what in ("tried", "held"))
        return {
            "tried": tried, "held": held, "promises": self.promises, "rounds": self.rounds,
            "spent": self.spent, "failures": self.failures[:SHOWN],
            "slowest_seconds": round(self.slowest, 1), "largest_mb": round(self.largest / 2**20),
        }  # fmt: skip


class Turns:
    """Whose turn it is: of the kinds of torments, and then within, what had least of its time."""

    def __init__(self, names: Sequence[str], most: int | None) -> None:
        self.spent, self.begun, self.most = dict.fromkeys(names, 0.0), Counter[str](), most
        ours = [(share, [*module.TORMENTS]) for module, share in SHARES.items()]
        self.kinds = [(share, [name for name in kind if name in names]) for share, kind in ours]

    def next(self) -> str | None:
        """Name a torment, None if all had `most` rounds."""
        open_ = [kind for kind in self.kinds if any(map(self._may, kind[1]))]
        if not open_:
            return None
        _, names = min(open_, key=lambda kind: sum(self.spent[name] for name in kind[1]) / kind[0])
        name = min(filter(self._may, names), key=self.spent.__getitem__)
        self.begun[name] += 1
        self.spent[name] += 1.0  # until it is known
        return name

    def _may(self, name: str) -> bool:
        return self.most is None or self.begun[name] < self.most


def torture(
    folder: Path, names: Sequence[str], deadline: float, seed: int, most: int | None = None
) -> Account:
    """Go through torments until a time, or for `most` rounds of each, whose seeds are `seed` and so on."""
    account, turns, pool = Account(), Turns(names, most), _pool()
    running: dict[Future[Round], str] = {}
    while True:
        while len(running) < BESIDE and time.monotonic() < deadline and (name := turns.next()):
            running[pool.submit(play, name, seed + turns.begun[name] - 1, folder)] = name
        if not running:
            pool.shutdown()
            return account
        for ended in wait(running, return_when=FIRST_COMPLETED).done:
            name = running.pop(ended)
            try:
                done = ended.result()
            except BrokenProcessPool as error:
                done = Round(name, seed, [Trial("the torture runs", False, f"{name}: {error}")], 0.0)
                pool = _pool()
            turns.spent[name] += done.seconds - 1.0
            account.add(done)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(BESIDE, multiprocessing.get_context("spawn"))


def main() -> None:
    """Read the command line, torture, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--only", nargs="+", choices=TORMENTS, default=list(TORMENTS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="with --only, that of a failure repeats it first")
    parser.add_argument("--quick", action="store_true", help="one round of the cheap ones")
    given = parser.parse_args()
    began, names = time.monotonic(), [name for name in given.only if not (given.quick and name in SLOW)]
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        os.environ["XDG_CACHE_HOME"] = os.path.join(folder, "cache")
        place = Place.prepare(Path(folder) / "place")
        deadline = began + 60 * given.minutes
        account = torture(place.folder, names, deadline, given.seed, 1 if given.quick else None)
    put(given.quick, **account.as_json(), seconds=round(time.monotonic() - began))
    sys.exit(1 if account.failures else 0)


if __name__ == "__main__":
    main()
