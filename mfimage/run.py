"""A run's directory: what was asked and given, curves and pictures, and the checkpoints to resume from."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfimage import __version__
from mfimage.config import Config
from mfimage.datasets.pictures import save_png, sheet
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.files import load_state, part, read_metadata, read_tensors, save_tensors, write_json, write_text
from mfimage.pretrained import CONFIG, WEIGHTS
from mfimage.schedule import Average
from mfimage.settings import read_settings


class Run:
    """A run's directory.

    config.json, command.txt, environment.json, data.json   what was asked and given
    decisions.json, clock.json                              what was decided and why, seconds of each phase
    stats.jsonl, tensorboard/                               a line, and scalars, at every report
    checkpoints/                                            to resume from
    model/                                                  model.safetensors, config.json, calibration.json
    pictures/                                               PNG sheets while it trains
    report.html                                             what was learned, when training ends
    metrics.json                                            what `evaluate` measured last
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.checkpoints = self.directory / "checkpoints"
        self.model = self.directory / "model"
        self.pictures = self.directory / "pictures"
        self._writer: Any = None

    @property
    def begun(self) -> bool:
        """Whether the directory holds a run."""
        return (self.directory / "config.json").exists()

    @property
    def finished(self) -> bool:
        """Whether it holds the model of a finished run."""
        return (self.model / WEIGHTS).exists() and (self.model / CONFIG).exists()

    def require_unused(self) -> None:
        """Raise UsageError if the directory already holds a run."""
        if self.begun:
            raise UsageError(f"{self.directory} already holds a run: choose another --outdir, or --resume it")

    def config(self) -> Config:
        """Read the settings of the run that is there; UsageError if there is none."""
        path = self.directory / "config.json"
        if not path.exists():
            raise UsageError(f"{self.directory}: nothing to resume here (config.json is missing)")
        return read_settings(Config, path)

    def decisions(self) -> list[str]:
        """Read what was decided from the data when the run began, in words."""
        path = self.directory / "decisions.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def require_same_data(self, data: dict[str, Any]) -> None:
        """Raise DataError unless these are the images that the run began with."""
        path = self.directory / "data.json"
        try:
            began_with = json.loads(path.read_text())["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: cannot be read, so the run cannot be resumed ({error})") from error
        if began_with != data["sha256"]:
            raise DataError(f"{data['name']}: not the images that the run in {self.directory} began with")

    def begin(self, config: dict[str, Any], data: dict[str, Any], decisions: Sequence[str] = ()) -> None:
        """Write down the settings and why, the command, the environment and the data."""
        self.write("decisions.json", decisions)
        self.write("config.json", config)
        self.write("data.json", data)
        self.write("environment.json", environment())
        write_text(self.directory / "command.txt", shlex.join(sys.argv) + "\n")

    def write(self, name: str, values: Any) -> Path:
        """Write a JSON file into the directory, whole or not at all; return its path."""
        return write_json(self.directory / name, values)

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
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        with suppress(ValueError, TypeError, KeyError):  # of a line that a crash cut off
            record = json.loads(line)
            if record["phase"] != phase or record["step"] <= step:
                kept.append(line + "\n")
    write_text(path, "".join(kept))


class Snapshots:
    """The checkpoints of one training phase: the newest three, and a copy of the best.

    Each is one safetensors file with the module, its average, the optimiser's moments, and the progress in
    its header; the best has no moments. The phase is the leading part of their names; the directory is made
    when the first is written.
    """

    def __init__(self, directory: Path, phase: str, keep: int = 3) -> None:
        self.directory, self.phase, self.keep = directory, phase, keep
        self.best = directory / f"best-{phase}.safetensors"  # the copy

    def all(self) -> list[Path]:
        """List the checkpoints by step."""
        return sorted(self.directory.glob(f"{self.phase}-*.safetensors"))

    @staticmethod
    def step_of(path: Path) -> int:
        """Return the step after which a checkpoint was written."""
        return int(path.stem.rsplit("-", 1)[1])

    def newest(self) -> Path | None:
        """Return the last checkpoint, None before the first."""
        return max(self.all(), default=None)

    def progress(self) -> dict[str, Any]:
        """Return the progress in the newest checkpoint; an empty dict if there is none."""
        path = self.newest()
        return {} if path is None else json.loads(read_metadata(path).get("progress", "{}"))

    def save_best(self, module: nn.Module, progress: Any) -> None:
        """Write a module as the best so far."""
        tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
        save_tensors(tensors, self.best, {"progress": json.dumps(vars(progress))})

    def save(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        progress: Any,
        average: Average | None = None,
    ) -> None:
        """Write a checkpoint, and remove what is older than the newest three."""
        for left_over in self.directory.glob(f"*{self.phase}*.tmp"):  # of a process that was killed
            left_over.unlink()
        tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
        if average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in average.tensors.items()}
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
        path = self.directory / f"{self.phase}-{progress.step:08d}.safetensors"
        save_tensors(tensors, path, {"progress": json.dumps(vars(progress))})
        for old in self.all()[: -self.keep]:
            old.unlink()

    def clear(self) -> None:
        """Remove all checkpoints."""
        for path in (*self.all(), self.best):
            path.unlink(missing_ok=True)

    def restore(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, average: Average | None = None
    ) -> dict[str, Any]:
        """Load the newest checkpoint in place and return its progress; an empty dict if there is none."""
        path = self.newest()
        if path is None:
            return {}
        try:
            tensors, progress = read_tensors(path), read_metadata(path).get("progress")
            if progress is None:
                raise ModelError(f"{path}: not a checkpoint of a training run")
            load_state(module, part(tensors, "module."), path)
            if average is not None:
                average.load(part(tensors, "average."))
        except ModelError as error:
            raise ModelError(f"{error}; remove this file to resume from the checkpoint before it") from error
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part(tensors, "optimiser.").items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = tensor
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
        return json.loads(progress)

    def restore_best(self, module: nn.Module) -> None:
        """Load the module of the best checkpoint in place, if there is one."""
        if self.best.exists():
            load_state(module, part(read_tensors(self.best), "module."), self.best)


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
