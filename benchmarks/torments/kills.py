"""Verbs that are killed at any moment, and two that write into one place."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence

from torments.place import DOCUMENTED, INTERRUPTED, Place, Process, Torment, Trial, mfimage
from torments.verbs import VERBS, Contents, any_verb, contents, differences, is_left_over, lay_out, reference

KILLED, WRITERS = "a killed verb loses nothing", "a folder has one writer"


def kill(place: Place, chance: random.Random, name: str) -> Iterator[Trial]:
    """Kill a verb at any moment, then type it again."""
    verb, whole = VERBS[name], reference(place, name)
    old, new = not verb.stepwise and chance.random() < 0.5, chance.random() < 0.2
    moment = chance.uniform(0.1, 6) if new else chance.uniform(0.01, 1.1) * whole.seconds
    number = chance.choice([signal.SIGKILL] * 3 + list(INTERRUPTED))
    what = f"{name}, {signal.Signals(number).name} after {moment:.2f} s"
    what += " of a new process" * new + " over earlier results" * old
    with place.fresh() as folder:
        before = lay_out(place, verb, whole.contents, folder, old)
        process = Process(*verb.words(place, 0), cwd=folder, forked=not new)
        time.sleep(moment)
        process.kill(number)
        ended, found = process.end(), contents(folder)
        wrong = _after(number, ended.code, found, before, whole.contents, verb.stepwise)
        if not wrong and ended.code:
            for half in filter(is_left_over, found):  # which beside a lone result are kept for ten minutes
                os.utime(folder / half, (0, 0))
            ended = mfimage(*verb.again(place, folder), cwd=folder, forked=True)
            wrong = f"again {ended.said}" if ended.code else differences(contents(folder), whole.contents)
        yield Trial(KILLED, not wrong, f"{what}: {wrong}; {ended.said}" if wrong else what)


def _after(number: int, code: int, found: Contents, before: Contents, whole: Contents, stepwise: bool) -> str:
    """Say what is wrong after a signal, "" if nothing is."""
    if code not in {0, -number, INTERRUPTED.get(number, 0)}:
        return f"exit {code}"
    if code == 0:
        return differences(found, whole)
    halves = {name for name in found if is_left_over(name)}
    if code > 0 and halves:
        return f"left over: {', '.join(sorted(halves))}"
    kept = {name: one for name, one in found.items() if name not in halves}
    return "" if stepwise else differences(kept, whole, before)


def kills(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Kill any verb."""
    yield from kill(place, chance, any_verb(chance))


def kills_of_training(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Kill a training."""
    yield from kill(place, chance, chance.choice(["train", "train longer"]))


def writers(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Start two variants of a verb in one place at nearly one time: the result is that of one, or of both."""
    name = any_verb(chance)
    verb, references = VERBS[name], [reference(place, name, v) for v in (0, 1)]
    late = chance.random() ** 2 * references[0].seconds
    with place.fresh() as folder:
        verb.begin(place, folder)
        processes = [Process(*verb.words(place, 0), cwd=folder, forked=True)]
        time.sleep(late)
        processes.append(Process(*verb.words(place, 1), cwd=folder, forked=True))
        ends, found = [process.end() for process in processes], contents(folder)
    wrong = [f"exit {one.code}" for one in ends if one.code not in DOCUMENTED]
    won = [whole.contents for whole, one in zip(references, ends, strict=True) if one.code == 0]
    wrong += [] if won else ["nobody wrote"]
    wrong += filter(None, [_hybrid(found, won)] if won else [])
    told = f"two times {name}, the second {late:.2f} s later"
    said = "; ".join(one.said for one in ends)
    yield Trial(WRITERS, not wrong, f"{told}: {', '.join(wrong)}; {said}" if wrong else told)


def _hybrid(found: Contents, won: Sequence[Contents]) -> str:
    """Name what is of neither writer, or all that both wrote if it is of both."""
    wrong = differences(found, *won) or ", ".join(won[0].keys() - found.keys())
    both = {name for name in won[0] if won[0][name] != won[-1].get(name) and name in won[-1]}
    whole = any(all(found[name] == one[name] for name in both) for one in won) if not wrong else True
    return wrong if whole else f"hybrid of {', '.join(sorted(both))}"


TORMENTS: dict[str, Torment] = {"kills": kills, "kills-of-training": kills_of_training, "writers": writers}
