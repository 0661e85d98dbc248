"""A run's directory: what was asked and given, curves and pictures, and the checkpoints to resume from."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfimage import __version__
from mfimage.config import Config
from mfimage.datasets.pictures import save_png, sheet
from mfimage.errors import DataError, UsageError, boundary, reason_of
from mfimage.files import read_json, room_for, write_json, write_text
from mfimage.outputs import sweep
from mfimage.pretrained import CONFIG, WEIGHTS
from mfimage.settings import read_settings
from mfimage.streams import say


class Run:
    """A run's directory.

    config.json, command.txt, environment.json, data.json   what was asked and given
    decisions.json, clock.json                              what was decided and why, seconds of each phase
    stats.jsonl, tensorboard/                               a line, and scalars, at every report
    checkpoints/                                            to resume from
    model/                                                  model.safetensors, config.json, calibration.json;
                                                            README.md, its card, and samples.png
    pictures/                                               PNG sheets while it trains
    report.html                                             what was learned, when training ends
    metrics.json                                            what `evaluate` measured last
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.checkpoints = self.directory / "checkpoints"
        self.model = self.directory / "model"
        self.pictures = self.directory / "pictures"
        self._curved = True

    @property
    def begun(self) -> bool:
        """Whether the directory holds a run, that is all of what `begin` writes first and last."""
        return all((self.directory / name).exists() for name in ("data.json", "config.json"))

    @property
    def finished(self) -> bool:
        """Whether it holds the model of a finished run."""
        return (self.model / WEIGHTS).exists() and (self.model / CONFIG).exists()

    def require_unused(self) -> None:
        """Raise UsageError if the directory already holds a run, or what a run would write over.

        A run that was killed before all its first files were there has not begun, and is no hindrance.
        """
        if self.begun:
            raise UsageError(f"{self.directory} already holds a run: choose another --outdir, or --resume it")
        data, there = self.directory / "data.json", self.directory.joinpath
        foreign = [name for name in ("checkpoints", "model", WEIGHTS) if there(name).exists()]
        foreign += ["config.json"] if there(CONFIG).exists() and not there("decisions.json").exists() else []
        foreign += ["data.json"] if data.exists() and not _is_of_run(data) else []
        if foreign:
            raise UsageError(
                f"{self.directory} holds {foreign[0]} but no run that can be resumed: choose another --outdir"
            )

    def config(self) -> Config:
        """Read the settings of the run that is there; UsageError if there is none."""
        for name in ("config.json", "data.json"):
            if not (self.directory / name).exists():
                raise UsageError(f"{self.directory}: nothing to resume here ({name} is missing)")
        return read_settings(Config, self.directory / "config.json")

    def decisions(self) -> list[str]:
        """Read what was decided from the data when the run began, in words."""
        path = self.directory / "decisions.json"
        with boundary(UsageError, f"{path}: cannot be read"):
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def sources(self) -> list[str]:
        """Name the data of the run as they are typed on the command line; DATA stands for those of Python."""
        path = self.directory / "data.json"
        return read_json(path).get("sources", ["DATA"]) if path.exists() else ["DATA"]

    def require_same_data(self, data: dict[str, Any]) -> None:
        """Raise DataError unless these are the images that the run began with."""
        path = self.directory / "data.json"
        with boundary(UsageError, f"{path}: cannot be read, so the run cannot be resumed"):
            began_with = json.loads(path.read_text(encoding="utf-8"))
            same = all(began_with.get(key) == data[key] for key in ("sha256", "valid") if key in data)
        if not same:
            raise DataError(f"{data['name']}: not the images that the run in {self.directory} began with")

    def begin(self, config: dict[str, Any], data: dict[str, Any], decisions: Sequence[str] = ()) -> None:
        """Write down the data, the environment, the command, the settings and why.

        The settings come last: before they are there the run has not begun, and can be begun anew.
        """
        self.write("data.json", data)
        self.write("environment.json", environment())
        write_text(self.directory / "command.txt", shlex.join(sys.argv) + "\n")
        self.write("decisions.json", decisions)
        self.write("config.json", config)

    def write(self, name: str, values: Any) -> Path:
        """Write a JSON file into the directory, whole and durable, or not at all; return its path."""
        return write_json(self.directory / name, values, durable=True)

    def tidy(self) -> None:
        """Remove what a process that was killed left half written."""
        for folder in (self.checkpoints, self.model, self.pictures):
            sweep(folder)

    def scalars(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Append a line to stats.jsonl and points to TensorBoard's curves."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "stats.jsonl"
        with room_for(path), path.open("a") as file:
            file.write(json.dumps({"phase": phase, "step": step, **values}) + "\n")
        self._curves(lambda board: [board.add_scalar(f"{phase}/{n}", v, step) for n, v in values.items()])

    def picture(self, name: str, step: int, images: Tensor, columns: int) -> None:
        """Write a sheet of images (N, C, H, W) as pictures/NAME-STEP.png and to TensorBoard."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        grid = sheet(images.clamp(0, 1).cpu(), columns)
        save_png(grid, self.pictures / f"{name}-{step:08d}.png")
        self._curves(lambda board: board.add_image(name, grid, step))

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if "_tensorboard" in vars(self):
            self._curves(lambda board: board.close())

    def _curves(self, write: Callable[[Any], object]) -> None:
        """Write for TensorBoard; where that fails there are no more curves, and the work goes on.

        It cannot name a folder whose name is no UTF-8.
        """
        if not self._curved:
            return
        try:
            write(self._tensorboard)
        except (OSError, UnicodeEncodeError) as error:
            self._curved = False
            unnamed = "the name of the run's directory is no UTF-8"
            why = reason_of(error) if isinstance(error, OSError) else unnamed
            say(f"note: no curves for TensorBoard: {why}", logging.WARNING)

    @cached_property
    def _tensorboard(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.directory / "tensorboard"))


def _is_of_run(data: Path) -> bool:
    try:
        return "sha256" in read_json(data)
    except DataError:
        return False


def trim_stats(path: Path, phase: str, step: int) -> None:
    """Drop from stats.jsonl what a phase wrote after a step: a resumed run writes it again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(Exception):  # of a line that a crash cut off
            record = json.loads(line)
            if record["phase"] != phase or record["step"] <= step:
                kept.append(line + "\n")
    write_text(path, "".join(kept))


def environment() -> dict[str, Any]:
    """Describe the machine and the libraries."""
    from importlib.metadata import version

    names = ("torch", "nflows", "numpy", "pillow", "accelerate")
    cpu: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # which older torch has not
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": cpu.get("cpu_name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {"mfimage": __version__, **{name: version(name) for name in names}},
    }
