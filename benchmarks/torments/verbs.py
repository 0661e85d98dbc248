"""The verbs that write, what each writes undisturbed, and how what it left is compared with that."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torments.place import Place, mfimage

OLD = b"an earlier result"
_UNLIKE = {"environment.json", "command.txt", "clock.json"}  # of which it only counts that they are there
_SECONDS = re.compile(rb"CPU seconds</th><td>[^<]*")
_STEP = re.compile(r"-\d{8}\.safetensors$")
_TIMES = {"images_per_second", "seconds", "cpu_seconds", "environment"}

Contents: TypeAlias = Mapping[
    str, Any
]  # of the files in a folder, by their names, as far as two runs are alike


@dataclass(frozen=True)
class Verb:
    """A command that writes, as one of two variants, in a folder of its own; see `typed`.

    Args:
        text: What is typed.
        stepwise: It goes on where it was broken off: what it leaves then is not yet a result.
        copies: It writes into a run, of which the folder holds a copy.
        often: How often it is chosen.
    """

    text: str
    stepwise: bool = False
    copies: bool = False
    often: float = 1.0

    def words(self, place: Place, variant: int) -> list[str]:
        """What is typed."""
        return typed(self.text, variant, vars(place))

    def begin(self, place: Place, folder: Path) -> None:
        """Lay out what has to be there before."""
        if self.copies:
            shutil.copytree(place.run, folder / "run")

    def again(self, place: Place, folder: Path) -> list[str]:
        """What is typed after it was broken off."""
        if self.text == TRAIN and all(
            (folder / "out" / name).exists() for name in ("config.json", "data.json")
        ):
            return typed("train @images -o out --resume --device cpu -q", 0, vars(place))
        return self.words(place, 0)


def typed(text: str, variant: int, paths: Mapping[str, Path]) -> list[str]:
    """Divide a command line: of A|B one is taken, and @NAME is one of the paths."""
    words = []
    for word in text.split():
        one = word.split("|")[variant] if "|" in word else word
        name, slash, rest = one.removeprefix("@").partition("/")
        words.append(f"{paths[name]}{slash}{rest}" if one.startswith("@") else one)
    return words


TRAIN = "train @images -o out --config @settings --seed 0|1 --device cpu -q"
_NUMBERS = "--metrics reconstruction,density,fd"
VERBS = {
    "train": Verb(TRAIN, stepwise=True),
    "train longer": Verb(
        "train @images -o run --resume --steps 18 --device cpu -q", stepwise=True, copies=True
    ),
    "sample": Verb("sample -m @run -n 12 -o out --seed 0|1"),
    "denoise": Verb("denoise @images -m @run -o out --report table --sigma 0.1|0.2"),
    "score": Verb("score @images|@colour -m @run --csv scores.csv --heatmaps heat --report page.html"),
    "calibrate": Verb("calibrate @images -m run --split all --alpha 0.1|0.2", copies=True),
    "directions": Verb("directions @images/blob-00.png -m @run --count 1|2 -o out"),
    "interpolate": Verb("interpolate @images/blob-00.png @images/blob-01.png -m @run --points 3|4 -o out"),
    "dimension": Verb("dimension @many --steps 20 --max-dim 4 --seed 0|1 -o out -q"),
    "evaluate": Verb(f"evaluate @run @images {_NUMBERS} --seed 0|1 -o out"),
    "compare": Verb(f"compare @run pca --data @images {_NUMBERS} --seed 0|1 -o out", stepwise=True),
    "pack": Verb("pack @images out --size 8|12", stepwise=True),
    "reproduce": Verb("reproduce circle --algorithm pca -o out -q", stepwise=True),
    "demo": Verb("demo --config @settings --device cpu -o out -q", stepwise=True, often=0.1),  # slow
    "stylegan import": Verb("stylegan import @pickle out.safetensors"),
    "stylegan sample": Verb("stylegan sample @generator --seeds 0-11|20-31 -o out"),
    "stylegan manifold": Verb(
        "stylegan manifold @generator --size 8 --count 2500 --test-count 9 --seed 0|1 -o out -q",
        stepwise=True,
    ),
}


def any_verb(chance: random.Random) -> str:
    """Name one."""
    return chance.choices(list(VERBS), [verb.often for verb in VERBS.values()])[0]


def contents(folder: Path) -> Contents:
    """Read all files of a folder, without what differs from run to run, such as times.

    Of a phase's checkpoints the newest counts: a signal leaves one more, where it came.
    """
    found: dict[str, Any] = {}
    saved: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and "tensorboard/" not in name:
            if step := _STEP.search(name):
                found.pop(saved.get(name[: step.start()], ""), None)
                saved[name[: step.start()]] = name
            found[name] = None if path.name in _UNLIKE else _content(path)
    return found


def _content(path: Path) -> Any:
    content = path.read_bytes()
    try:
        if path.suffix == ".jsonl":
            return [_timeless(json.loads(line)) for line in content.splitlines()]
        if path.suffix == ".json":
            return _timeless(json.loads(content))
        if path.suffix == ".safetensors":
            end = 8 + int.from_bytes(content[:8], "little")
            head = {name: one for name, one in json.loads(content[8:end]).items() if name != "__metadata__"}
            return head, _digest(content[end:])
        if path.suffix == ".html":
            return _digest(_SECONDS.sub(b"", content))
    except ValueError:
        return f"damaged {_digest(content)}"
    return _digest(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items() if name not in _TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Reference:
    """What a verb writes undisturbed, how large the files are, and how long it takes."""

    contents: Contents
    sizes: Mapping[str, int]
    seconds: float


def reference(place: Place, name: str, variant: int = 0) -> Reference:
    """Run a verb undisturbed, once; what came of it is kept in the place."""

    def run(made: Path) -> None:
        with place.fresh() as folder:
            VERBS[name].begin(place, folder)
            ended = mfimage(*VERBS[name].words(place, variant), cwd=folder, forked=True)
            if ended.code:
                raise RuntimeError(f"{name}: {ended.said}")
            sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
            made.joinpath("it").write_bytes(pickle.dumps(Reference(contents(folder), sizes, ended.seconds)))

    return pickle.loads((kept(place, f"{name}-{variant}", run) / "it").read_bytes())


def kept(place: Place, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that is made once, by whichever process needs it first."""
    folder = place.folder / "kept" / name
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=place.folder))
        make(made)
        with suppress(OSError):  # another was quicker
            made.rename(folder)
    return folder


def lay_out(place: Place, verb: Verb, whole: Contents, folder: Path, old: bool) -> Contents:
    """Prepare a folder for a verb, with `old` files in the place of its results; return what is there."""
    verb.begin(place, folder)
    for name in whole if old else ():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_bytes(OLD)
    return contents(folder)


def differences(found: Contents, *allowed: Contents) -> str:
    """Name files that are in none of these states, or not there although they are in the last; "" if none."""
    wrong = {name for name, one in found.items() if not any(name in of and of[name] == one for of in allowed)}
    return ", ".join(sorted(wrong | (allowed[-1].keys() - found.keys()))[:5])


def is_left_over(name: str) -> bool:
    """Whether a file is a half, or a lock."""
    return name.endswith((".tmp", ".lock", ".owner"))
