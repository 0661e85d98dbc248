"""The directory of a run: what was asked, on what machine, with what data, and what came of it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfimage import __version__
from mfimage.config import Config, read_config
from mfimage.console import json_text
from mfimage.datasets.pictures import save_png, sheet
from mfimage.errors import DataError, UsageError
from mfimage.storage import write_text


class Run:
    """A run's directory.

    config.json, command.txt, environment.json, data.json   what was asked and given
    stats.jsonl, tensorboard/                               a line, and scalars, at every report
    checkpoints/                                            to resume from
    model/                                                  model.safetensors and config.json
    pictures/                                               PNG sheets while it trains
    metrics.json                                            what `evaluate` measured last

    Args:
        directory: Made when something is first written.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.checkpoints = self.directory / "checkpoints"
        self.model = self.directory / "model"
        self.pictures = self.directory / "pictures"
        self._writer: Any = None

    def require_unused(self) -> None:
        """Raise UsageError if the directory already holds a run."""
        if (self.directory / "config.json").exists():
            raise UsageError(f"{self.directory} already holds a run: choose another --outdir, or --resume it")

    def config(self) -> Config:
        """Read the settings of the run that is there; UsageError if there is none."""
        path = self.directory / "config.json"
        if not path.exists():
            raise UsageError(f"{self.directory}: nothing to resume here (config.json is missing)")
        return read_config(path)

    def require_same_data(self, data: dict[str, Any]) -> None:
        """Raise DataError unless these are the images that the run began with."""
        path = self.directory / "data.json"
        try:
            began_with = json.loads(path.read_text())["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: cannot be read, so the run cannot be resumed ({error})") from error
        if began_with != data["sha256"]:
            raise DataError(f"{data['data']}: not the images that the run in {self.directory} began with")

    def begin(self, config: dict[str, Any], data: dict[str, Any]) -> None:
        """Write down the settings, the command, the environment and the data."""
        self.write("config.json", config)
        self.write("data.json", data)
        self.write("environment.json", environment())
        write_text(self.directory / "command.txt", shlex.join(sys.argv) + "\n")

    def write(self, name: str, values: Any) -> Path:
        """Write a JSON file into the directory, whole or not at all; return its path."""
        path = self.directory / name
        write_text(path, json_text(values, indent=2) + "\n")
        return path

    def scalars(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Append a line to stats.jsonl and points to TensorBoard's curves."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "stats.jsonl").open("a") as file:
            file.write(json.dumps({"phase": phase, "step": step, **values}) + "\n")
        for name, value in values.items():
            self._tensorboard().add_scalar(f"{phase}/{name}", value, step)

    def picture(self, name: str, step: int, images: Tensor, columns: int) -> None:
        """Write a sheet of images (N, C, H, W) as pictures/NAME-STEP.png and to TensorBoard."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        grid = sheet(images.clamp(0, 1).cpu(), columns)
        save_png(grid, self.pictures / f"{name}-{step:08d}.png")
        self._tensorboard().add_image(name, grid, step)

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()

    def _tensorboard(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.directory / "tensorboard"))
        return self._writer


def trim_stats(path: Path, phase: str, step: int) -> None:
    """Drop from stats.jsonl what a phase wrote after a step: a resumed run writes it again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if not _later(line, phase, step)]
        write_text(path, "".join(line + "\n" for line in lines))


def _later(line: str, phase: str, step: int) -> bool:
    try:
        record = json.loads(line)
        return record["phase"] == phase and record["step"] > step
    except (ValueError, TypeError, KeyError):  # cut off in the middle by a crash
        return True


def environment() -> dict[str, Any]:
    """Describe the machine and the libraries."""
    from importlib.metadata import version

    names = ("torch", "nflows", "numpy", "pillow", "accelerate")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {"mfimage": __version__, **{name: version(name) for name in names}},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
