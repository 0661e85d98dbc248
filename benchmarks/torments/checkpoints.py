"""Runs that were broken off and whose checkpoints are damaged: nothing goes on from them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torments.mutations import mutated
from torments.place import Ended, Place, Torment, Trial, mfimage, refusal

PROMISE = "nothing goes on from a damaged checkpoint"
_WEIGHTS = Path("model", "model.safetensors")


def checkpoints(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Damage a file of a run that was broken off, and resume it: it is refused, or goes on as if whole."""
    saves = chance.randint(2, 8)
    with place.fresh() as folder:
        begun, again = folder / "begun", folder / "again"
        mfimage(
            "train", place.images, "-o", begun, "--config", place.settings, "-q",
            before=lambda: _break_off(saves), forked=True,
        )  # fmt: skip
        whole, expected = _resume(place, begun, again)
        yield refusal(PROMISE, whole, f"resumed after {saves} checkpoints", frozenset({0}))
        names = [path.name for path in sorted((begun / "checkpoints").iterdir())]
        for number in range(8):
            name = chance.choice(names)
            changed = mutated((begun / "checkpoints" / name).read_bytes(), chance)
            ended, found = _resume(place, begun, again, name, changed)
            what = f"resumed after {saves} checkpoints, {name} damaged ({number})"
            if ended.code == 0 and found != expected:
                yield Trial(PROMISE, False, f"{what}: gave another model")
            elif ended.code and name.encode() not in ended.err:
                yield Trial(PROMISE, False, f"{what}: is not named; {ended.said}")
            else:
                yield refusal(PROMISE, ended, what, frozenset({0, 4}))


def _break_off(saves: int) -> None:
    """Let this process end without a farewell after so many checkpoints."""
    from mfimage.checkpoints import Snapshots

    left, save = iter(range(saves - 1)), Snapshots.save

    def last(*arguments: Any) -> None:
        save(*arguments)
        if next(left, None) is None:
            raise SystemExit

    Snapshots.save = last  # type: ignore[method-assign]


def _resume(place: Place, begun: Path, to: Path, name: str = "", changed: bytes = b"") -> tuple[Ended, bytes]:
    """Resume a copy of a run; return how that ended, and the weights."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(begun, to)
    if name:
        (to / "checkpoints" / name).write_bytes(changed)
    ended = mfimage("train", place.images, "-o", to, "--resume", "-q", forked=True)
    return ended, (to / _WEIGHTS).read_bytes() if (to / _WEIGHTS).exists() else b""


TORMENTS: dict[str, Torment] = {"checkpoints": checkpoints}
