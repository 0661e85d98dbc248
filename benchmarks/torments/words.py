"""Nonsense in configurations and on command lines: it ends with a documented exit code, soon."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from torments.children import bounded, tried
from torments.files import Kind, attempt, read_model
from torments.mutations import NONSENSE
from torments.place import DOCUMENTED, SETTINGS, Ended, Place, Torment, Trial, mfimage, refusal
from torments.verbs import VERBS, typed

FIELDS = "a nonsense configuration is refused"
LINES = "a nonsense command line ends with a documented exit code"
LARGE = (64, 4096, 2**16, 10**6)  # of a configuration beside small weights
WORDS: tuple[str | bytes, ...] = (
    "", " ", "0", "-1", "1", "2", "nan", "inf", "-inf", "1e-320", "1e20", "1e308", "1e400", "-1e308,1e308",
    "nan,nan", "0,1", "1,0", "1,2,3", ",", "0.5", "-0.0", "0x10", "1_0", "\u0663", "0-1", "1-0", "5-",
    "2147483648",
    "9" * 40, "9" * 5000, "true", "None", "x", "X" * 5000, "\x1b[31m", "a\nb", "\u202e", "é", b"\xff\xfe",
    "=1+1", "@x", "%s", "{0}", "*", "[", "**/*", "~", "~nobody/x", "-", "--", "-x", "--x", "--=", "--quiet=",
    ".", "pipe", "loop", "dead", "file", "folder", "images", "file/x", "loop/x", "a/b/c/d", "user/model",
    "https://example.invalid/x", "all", "auto", "train", "cpu", "cuda", "cuda:9", "run", "settings.json",
)  # fmt: skip
_ENDLESS = {"--steps", "--density-steps", "--time"}  # what is large there is meant, and takes as long
_WAYS = {
    **{name: verb.text for name, verb in VERBS.items()},
    "log-prob": "log-prob @images -m @run",
    "demo": "demo --config dead",
}


def settings(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Train with a field or two of a configuration replaced; what comes of it can be used."""
    from mfimage import Config, ModelConfig

    own, inner = ([one.name for one in fields(kind)] for kind in (Config, ModelConfig))
    with place.fresh() as folder:
        for number in range(20):
            made: dict[str, Any] = {**SETTINGS, "model": dict(SETTINGS["model"])}
            said = []
            for _ in range(chance.choice((1, 1, 1, 2))):
                of, name = chance.choice(
                    [*((made, one) for one in own), *((made["model"], one) for one in inner)]
                )
                of[name] = chance.choice(NONSENSE)
                said.append(f"{'' if of is made else 'model.'}{name} = {of[name]!r}")
                if not isinstance(made["model"], dict):
                    break
            what = f"train with {', '.join(said)}"
            (folder / "new.json").write_text(json.dumps(made))
            ended = _in(folder, "train", place.npy, "-o", f"run-{number}", "--config", "new.json", "-q")
            yield refusal(FIELDS, ended, what, DOCUMENTED)
            if ended.code == 0:
                ended = _in(folder, "score", place.images, "-m", f"run-{number}", "--json")
                yield refusal(FIELDS, ended, f"score after {what}", frozenset({0, 4}))


def _in(folder: Path, *words: object) -> Ended:
    return mfimage(*words, cwd=folder, stdin=b"images/blob-00.png\n", before=bounded, forked=True)


def models(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Read a model of whose configuration a field is replaced: it is refused, or gives finite numbers."""
    from mfimage import ModelConfig

    files = {path.name: path.read_bytes() for path in (place.run / "model").iterdir() if path.is_file()}
    known, things = json.loads(files["config.json"]), []
    for _ in range(60):
        name = chance.choice([one.name for one in fields(ModelConfig)])
        value = chance.choice((*NONSENSE, *LARGE))
        content = json.dumps({**known, name: value}).encode()
        things.append((f"read a model with {name} = {value!r}", {**files, "config.json": content}))
    with place.fresh() as folder:
        kind = Kind([], read_model, False)
        yield from tried(FIELDS, lambda made: attempt(kind, folder / "x", made), things, 20)


def options_of(verb: str) -> list[str]:
    """Name the long options of a verb, from the parser itself."""
    from mfimage.cli import app

    arguments = app.parse_commands(verb.split())[1][-1].assemble_argument_collection()
    return sorted(
        {name for argument in arguments for name in argument.names if name.startswith("--")} - {"--verbose"}
    )


def lines(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Add nonsense to command lines that work, and double or leave out some of their words."""
    own = {path: Path(path.name) for path in vars(place).values()}  # all that is read lies beside
    paths = {name: own[path] for name, path in vars(place).items()}
    for _ in range(20):
        name = chance.choice(list(_WAYS))
        words: list[Any] = [*typed(_WAYS[name], 0, paths)]
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            option, value = chance.choice(options_of(name)), chance.choice(WORDS)
            if option not in _ENDLESS or not str(value).isdigit():
                joined = isinstance(value, str) and chance.random() < 0.5
                words += [f"{option}={value}"] if joined else [option, value]
        for _ in range(chance.choice((0, 0, 0, 1, 2))):
            at = chance.randrange(len(name.split()), len(words) + 1)
            instead = chance.choice(([], [chance.choice(WORDS)], words[at : at + 1] * 2))
            words[at : at + chance.choice((0, 1))] = instead
        with place.fresh() as folder:
            _furnish(place, folder)
            said = " ".join(repr(word)[:60] for word in words)
            yield refusal(LINES, _in(folder, *words), f"mfimage {said}", DOCUMENTED)


def _furnish(place: Place, folder: Path) -> None:
    """Put into a folder what is read, and what cannot be."""
    for path in set(vars(place).values()) - {place.folder}:
        if path.exists():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "dead").symlink_to("nowhere")
    (folder / "file").write_text("text")
    (folder / "folder").mkdir()


TORMENTS: dict[str, Torment] = {"settings": settings, "models": models, "lines": lines}
