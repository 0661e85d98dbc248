"""Closed streams, odd locales, homes and names, and folders that may not be written to change no result."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torments.place import DOCUMENTED, Ended, Place, Torment, Trial, mfimage

PROMISE = "streams, locales, homes and names change no result"
_LOCALES = ("C", "POSIX", "tr_TR.UTF-8", "x" * 300, "")
_ENCODINGS = ("ascii", "latin-1", "cp1252", "cp437", "utf-8:strict", "utf-16")
_DROP, _RIGHTS = 24, (1, 2)  # PR_CAPBSET_DROP; the rights of root to read and write whatever it likes


def _close(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


def _break(number: int) -> Callable[[], None]:
    """Let a stream be a pipe that nobody reads."""

    def break_() -> None:
        reading, writing = os.pipe()
        os.dup2(writing, number)
        os.close(reading)
        os.close(writing)

    return break_


def without_rights() -> None:
    """Let this process, and what it starts, be stopped by the modes of files, though it is root's."""
    for right in _RIGHTS:
        ctypes.CDLL(None).prctl(_DROP, right, 0, 0, 0)


class Way(NamedTuple):
    """How a command is started, and what of it may differ."""

    env: Mapping[str, str | None] = {}
    before: Callable[[], None] | None = None
    code: int = 0
    silent: bool = False  # nothing arrives on stdout


def _ways(folder: Path) -> dict[str, Way]:
    """Give the ways; HOME and others may lie in a folder."""
    (folder / "file").write_text("no folder")
    (folder / "locked").mkdir(mode=0o500)
    locked, file, nowhere = (str(folder / name) for name in ("locked", "file", "no/where"))
    return {
        "stdin closed": Way(before=_close(0)), "stderr closed": Way(before=_close(2)),
        "stdin and stderr closed": Way(before=_close(0, 2)), "stderr broken": Way(before=_break(2)),
        "stdout closed": Way(before=_close(1), silent=True),
        "all closed": Way(before=_close(0, 1, 2), silent=True),
        "stdout broken": Way(before=_break(1), code=1, silent=True),
        **{f"LC_ALL = {value}": Way({"LC_ALL": value, "PYTHONUTF8": "0"}) for value in _LOCALES},
        **{f"encoding {value}": Way({"PYTHONIOENCODING": value, "PYTHONUTF8": "0"}) for value in _ENCODINGS},
        **{f"{name} = {value}": Way({name: value}) for name, value in (
            ("COLUMNS", "1"), ("COLUMNS", "x"), ("TERM", "dumb"), ("FORCE_COLOR", "1"), ("NO_COLOR", "1"),
            ("TZ", "x/y"), ("PYTHONHASHSEED", "7"), ("PYTHONOPTIMIZE", "1")
        )},
        "no HOME": Way({"HOME": None, "XDG_CACHE_HOME": None}),
        **{f"{name} in {what}": Way({"XDG_CACHE_HOME": None, name: where}, without_rights)
           for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR", "MPLCONFIGDIR")
           for what, where in (("a locked folder", locked), ("a file", file), ("nowhere", nowhere))},
        "umask 077": Way(before=lambda: os.umask(0o077) and None),
    }  # fmt: skip


def ways(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Score or denoise in odd circumstances, as new processes, and compare."""
    verb = chance.choice(("score", "denoise"))
    words = [verb, place.images, "-m", place.run, "--json", *(["-o", "out"] if verb == "denoise" else [])]
    with place.fresh() as folder:
        known = _ways(folder)
        _, expected, expected_files = _run(folder, words, Way())
        for name in chance.sample(list(known), 5):
            way = known[name]
            ended, shown, files = _run(folder, words, way)
            wrong = ended.said if ended.code != way.code or b"Traceback" in ended.err else ""
            wrong += "; other results" if shown != expected and not way.silent else ""
            wrong += "; other files" if files != expected_files else ""
            what = f"{verb} with {name}"
            yield Trial(PROMISE, not wrong, f"{what}: {wrong}" if wrong else what)


def _run(folder: Path, words: list[Any], way: Way) -> tuple[Ended, Any, dict[str, bytes]]:
    """Run a command; return how it ended, what it printed, and the files that it made."""
    at = folder / "here"
    at.mkdir()
    ended = mfimage(*words, cwd=at, env=way.env, before=way.before)
    files = {path.name: path.read_bytes() for path in sorted(at.rglob("*")) if path.is_file()}
    shutil.rmtree(at)
    encoding = (way.env.get("PYTHONIOENCODING") or "utf-8").partition(":")[0]
    try:
        return ended, json.loads(ended.out.decode(encoding)), files
    except ValueError:
        return ended, None, files


NAMES = (
    *(name.encode() for name in ("\u202egnp", "\u2028", "é", "e\u0301", "\ufeffx", "😀")),
    b"a\nb", b"a\rb", b"a\tb", b"\x1b[31mred", b"\x1b]0;x\x07", b"\x7f", b"\xff\xfe", b"=1+1", b"+1",
    b"@x", b"-rf", b"--csv", b"'q'", b'a,"b"', b" lead", b"trail ", b"[x]*?", b"~1", b"con", b"$(x)",
    b"%s", b"{0}", b"a\\b", b"a;b", b"#", b"a.png", b"x" * 250,
)  # fmt: skip


def names(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Give images odd names: they are scored and restored as ever, a line and a file each."""
    images = sorted(place.images.iterdir())
    chosen = chance.sample(NAMES, 8)
    with place.fresh() as folder:
        odd = os.fsencode(folder) + b"/" + chance.choice(NAMES)
        os.mkdir(odd)
        pairs = {odd + b"/" + name + b".png": image for name, image in zip(chosen, images, strict=False)}
        for path, image in pairs.items():
            shutil.copy(image, path)
        given = [odd] if chance.random() < 0.5 else list(pairs)
        flags = ("-m", place.run, "--json")
        for verb in ("score", "denoise"):
            more = ("-o", folder / "out") if verb == "denoise" else ("--csv", folder / "x.csv")
            ended = mfimage(verb, *flags, *more, "--", *given, cwd=folder, forked=True)
            what, wrong = f"{verb} of {', '.join(map(repr, (odd[-12:], *chosen)))}", ""
            if ended.code or b"Traceback" in ended.err or b"\x1b" in ended.err:
                wrong = ended.said
            elif verb == "score":
                rows = json.loads(ended.out)["scores"]
                found = [pairs.get(os.fsencode(row["path"])) for row in rows]
                if None in found or len(rows) != len(pairs):
                    wrong = "other paths"
                else:  # in the same order, since the last bit follows from the place in a batch
                    plain = _json("score", *found, *flags)["scores"]
                    same = [row["score"] for row in rows] == [row["score"] for row in plain]
                    wrong = "" if same else "other scores"
            else:
                wrong = _restored(place, folder, json.loads(ended.out)["images"], pairs)
            yield Trial(PROMISE, not wrong, f"{what}: {wrong}" if wrong else what)


def _restored(place: Place, folder: Path, rows: list[dict[str, Any]], pairs: Mapping[bytes, Path]) -> str:
    """Compare restored files with those of plain names."""
    expected = _json("denoise", *pairs.values(), "-m", place.run, "-o", folder / "plain", "--json")["images"]
    plain = {row["input"]: Path(row["output"]).read_bytes() for row in expected}
    for row in rows:
        image = pairs.get(os.fsencode(row["input"]))
        if image is None or Path(folder, row["output"]).read_bytes() != plain[str(image)]:
            return f"another image of {row['input']!r}"
    return "" if len(rows) == len(pairs) else f"{len(rows)} results of {len(pairs)}"


def _json(*words: object) -> Any:
    return json.loads(mfimage(*words, forked=True).out)


def locked(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Write into a folder, and read from one, without the right to: exit code 2 or 3, and nothing is lost."""
    with place.fresh() as folder:
        for verb, more in (("denoise", ["-o"]), ("score", ["--heatmaps"]), ("score", ["--csv"])):
            at = folder / verb
            shutil.rmtree(at, ignore_errors=True)
            at.mkdir()
            (at / "old").write_text("old")
            at.chmod(0o500)
            target = at / chance.choice(("new", "old", "a/b", "."))
            ended = mfimage(verb, place.images, "-m", place.run, *more, target, before=without_rights)
            left = [path.name for path in at.iterdir()]
            right = ended.code in DOCUMENTED - {0} and b"Traceback" not in ended.err and left == ["old"]
            at.chmod(0o700)
            what = f"{verb} {more[0]} {target.name} in a locked folder"
            yield Trial(PROMISE, right, what if right else f"{what}: {ended.said}; left {left}")


TORMENTS: dict[str, Torment] = {"ways": ways, "names": names, "locked": locked}
