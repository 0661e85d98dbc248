"""What all torments share: a place with images and a small model, and processes that are watched."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
DOCUMENTED = frozenset({0, 2, 3, 4, 5, 6, 10})  # exit codes; 1 is none, but where nobody reads the result
INTERRUPTED = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
SECONDS, BYTES = 20.0, 2 * 2**30  # of CPU time and memory that a refusal may take
_LATE = "results datasets.packing denoising.image_files ood.page eval experiments.reproduce datasets.stylegan"
SETTINGS = {
    "dim": 2, "steps": 12, "density_steps": 6, "every": 3, "batch_size": 8, "warmup": 2, "validation": 4,
    "flip": False, "shift": 0.0, "weight_decay": 0.05, "precision": "no", "noise": [0.0, 0.5],
    "model": {"width": 2, "noise_width": 4, "hidden": 8, "near": 8, "density_steps": 1, "density_width": 8},
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One try to break a promise."""

    promise: str  # short words, as docs/promises.md uses
    held: bool
    what: str = ""  # was done, and what came of it
    seconds: float = 0.0  # of CPU time
    peak: int = 0  # its bytes


class Ended(NamedTuple):
    """How a process ended; a negative code is the signal that killed it."""

    code: int
    out: bytes
    err: bytes
    seconds: float
    busy: float  # seconds of CPU time: others may be at work too
    peak: int  # bytes

    @property
    def said(self) -> str:
        """What it said last, on a line."""
        return f"exit {self.code}: {' | '.join(self.err.decode(errors='replace').splitlines()[-3:])[-300:]}"


class Place:
    """Images of each kind, a pack of them, and a trained and calibrated run; no torment changes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images, self.colour = folder / "images", folder / "colour"  # 40 PNG files 16 × 16
        self.zip, self.npz, self.npy = (folder / f"images.{kind}" for kind in ("zip", "npz", "npy"))  # grey
        self.many = folder / "many.npy"  # 120 of them
        self.shards, self.parquet = folder / "shards", folder / "images.parquet"  # a pack, and a file of it
        self.settings = folder / "settings.json"  # of a training of a second
        self.run = folder / "run"  # by these settings on the grey images; knows noise, and is calibrated
        self.generator, self.pickle = folder / "generator.safetensors", folder / "network.pkl"  # StyleGANs

    @classmethod
    def prepare(cls, folder: Path) -> Place:
        """Make everything in a folder, in this process."""
        from mfimage import Detector, train
        from mfimage.config import Config
        from mfimage.datasets.packing import pack
        from mfimage.datasets.stylegan import save_generator, seeded_generator
        from mfimage.settings import from_json

        place = cls(folder)
        grey = blobs(40)
        for where, images in ((place.images, grey), (place.colour, blobs(40, colour=True))):
            where.mkdir(parents=True)
            for i, image in enumerate(images):
                Image.fromarray(image).save(where / f"blob-{i:02d}.png")
        np.save(place.npy, grey)
        np.save(place.many, blobs(120))
        np.savez(place.npz, images=grey)
        shutil.make_archive(str(place.zip.with_suffix("")), "zip", place.images)
        pack(place.images, place.shards)
        shutil.copy(place.shards / "train-00000.parquet", place.parquet)
        save_generator(seeded_generator(8, 0), place.generator)
        sys.path.append(str(ROOT / "tests/datasets/stylegan"))
        from networks import dumps, snapshot

        place.pickle.write_bytes(dumps(snapshot()))
        place.settings.write_text(json.dumps(SETTINGS))
        model = train(place.images, place.run, from_json(Config, SETTINGS), device="cpu")
        Detector(model).calibrate(grey, 0.1, maps=True).save(place.run / "model")
        return place

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Give an empty folder, which is removed in the end."""
        made = Path(tempfile.mkdtemp(prefix="trial-", dir=self.folder))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


Torment: TypeAlias = Callable[[Place, random.Random], Iterator[Trial]]


def blobs(count: int, side: int = 16, colour: bool = False) -> np.ndarray:
    """(count, side, side) or (count, side, side, 3) uint8: a blob of light anywhere."""
    y, x = np.random.default_rng(0).uniform(0.2, 0.8, (2, count, 1, 1)) * side
    light = np.exp(-((np.arange(side)[:, None] - y) ** 2 + (np.arange(side) - x) ** 2) / (side / 2))
    images = np.rint(255 * light).astype(np.uint8)
    return images[..., None] // np.array([1, 2, 3], np.uint8) if colour else images


class Process:
    """A process of mfimage at work, on one thread; `forked` from this one it starts at once."""

    def __init__(
        self,
        *arguments: object,
        cwd: Path | None = None,
        timeout: float = 900,  # seconds after which it is killed, as it hangs
        stdin: bytes = b"",
        env: Mapping[str, str | None] | None = None,  # of which None removes one
        before: Callable[[], None] | None = None,  # called in the process
        forked: bool = False,
    ) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115
        os.pwrite(self._files[0].fileno(), stdin, 0)
        self._began, self._before, self._ended = time.monotonic(), before, False
        words = [one if isinstance(one, bytes) else str(one) for one in arguments]
        self.pid = (self._fork if forked else self._start)(words, cwd, environment(env or {}))
        self._timer = threading.Timer(timeout, self.kill)
        self._timer.start()

    def _start(self, words: list[Any], cwd: Path | None, variables: dict[str, str]) -> int:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mfimage", *words],
            cwd=cwd, env=variables, start_new_session=True, preexec_fn=self._prepare,
            stdin=self._files[0], stdout=self._files[1], stderr=self._files[2],
        )  # fmt: skip
        return self._process.pid

    def _prepare(self) -> None:
        for number in INTERRUPTED:
            signal.signal(number, signal.SIG_DFL)  # whatever started the torture may ignore some
        if self._before is not None:
            self._before()

    def _fork(self, words: list[Any], cwd: Path | None, variables: dict[str, str]) -> int:
        cli = preloaded()
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTED)
        if pid := os.fork():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTED)
            return pid
        code = 70  # of what never happens
        try:
            os.chdir(cwd or ".")
            os.environ.clear()
            os.environ.update(variables)
            for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
                os.dup2(self._files[number].fileno(), number)
                setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
            sys.argv = ["mfimage", *map(os.fsdecode, words)]
            self._prepare()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTED)
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, if the process is still there."""
        if not self._ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self) -> Ended:
        """Wait for the end."""
        _, status, usage = os.wait4(self.pid, 0)
        self._ended, code = True, os.waitstatus_to_exitcode(status)
        vars(self).get("_process", self).returncode = code  # which Popen does not learn otherwise
        self._timer.cancel()
        seconds, texts = time.monotonic() - self._began, []
        for file in self._files:
            with file:
                texts.append(os.pread(file.fileno(), 2**24, 0))
        return Ended(code, *texts[1:], seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


@cache
def preloaded() -> Any:
    """Import what the verbs import when they run, for all that are forked."""
    import torch

    torch.set_num_threads(1)
    for name in _LATE.split():
        importlib.import_module(f"mfimage.{name}")
    importlib.import_module("torch.utils.tensorboard")
    return importlib.import_module("mfimage.cli")


def mfimage(*arguments: object, **options: Any) -> Ended:
    """Run `python -m mfimage`, see `Process`, to its end."""
    return Process(*arguments, **options).end()


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables of a process: one thread, no network, and changes; None removes one."""
    changed = {
        **os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT), **changes,
    }  # fmt: skip
    return {name: value for name, value in changed.items() if value is not None}


def refusal(promise: str, ended: Ended, what: str, codes: frozenset[int] = DOCUMENTED - {0}) -> Trial:
    """Hold that a process ended with one of these codes, in its own words; a refusal soon and small."""
    wrong = [] if ended.code in codes else [f"exit {ended.code}"]
    wrong += ["a traceback"] * (b"Traceback" in ended.err)
    busy, peak = (ended.busy, ended.peak) if ended.code else (0.0, 0)  # work takes what it takes
    wrong += [f"{busy:.0f} s"] * (busy > SECONDS) + [f"{peak / 2**20:.0f} MiB"] * (peak > BYTES)
    told = f"{what}: {', '.join(wrong)}; {ended.said}" if wrong else what
    return Trial(promise, not wrong, told, busy, peak)
