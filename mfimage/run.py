"""The directory of a run and that of a model: written whole, read safely."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfimage import __version__
from mfimage.config import Config, ModelConfig, read_config
from mfimage.datasets.pictures import save_png, sheet
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.files import load_state, read_json, read_tensors, save_tensors, write_json, write_text
from mfimage.models import GenerativeModel
from mfimage.models.build import build
from mfimage.settings import from_json, to_json


class Run:
    """A run's directory.

    config.json, command.txt, environment.json, data.json   what was asked and given
    stats.jsonl, tensorboard/                               a line, and scalars, at every report
    checkpoints/                                            to resume from
    model/                                                  model.safetensors, config.json, calibration.json
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
        return read_config(path)

    def require_same_data(self, data: dict[str, Any]) -> None:
        """Raise DataError unless these are the images that the run began with."""
        path = self.directory / "data.json"
        try:
            began_with = json.loads(path.read_text())["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: cannot be read, so the run cannot be resumed ({error})") from error
        if began_with != data["sha256"]:
            raise DataError(f"{data['name']}: not the images that the run in {self.directory} began with")

    def begin(self, config: dict[str, Any], data: dict[str, Any]) -> None:
        """Write down the settings, the command, the environment and the data."""
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


FORMAT = "mfimage-1"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
CALIBRATION, _SECTIONS = "calibration.json", "mfimage-calibration-3"  # its format: a section for each finding


def save_pretrained(model: GenerativeModel, directory: str | Path) -> Path:
    """Write model.safetensors, config.json and, if anything was measured, calibration.json; return the path.

    Args:
        model: What it carries in `measured` is the whole calibration.json.
        directory: Is made if need be.

    Raises:
        ModelError: If the model was put together by hand, so that no configuration describes it.
        ResourceError: If the files cannot be written; what was there before stays whole.
    """
    if model.config is None:
        raise ModelError("only a model that mfimage.build or train made has a configuration to be saved with")
    directory = Path(directory)
    save_tensors(model.state_dict(), directory / WEIGHTS, {})
    write_json(directory / CONFIG, {"format": FORMAT, **to_json(model.config)})
    write_calibration(directory, model.measured)
    return directory


def from_pretrained(source: str | Path, device: str | torch.device = "cpu") -> GenerativeModel:
    """Read a model from a directory, or from the Hugging Face Hub where huggingface_hub is installed.

    Args:
        source: A directory that `save_pretrained` or a training run wrote, or a Hub id such as "user/name".
        device: Where the weights go: "auto" (a GPU if there is one), "cpu", "cuda", or as torch names it.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: If files are missing, damaged, of another format, or do not fit together.
        UsageError: If there is no CUDA device where one is asked for.
    """
    device = _device(device)
    directory = locate(source)
    config, measured = _read_config(directory / CONFIG)
    model = build(config)
    model.measured = measured | read_calibration(directory)
    load_state(model, read_tensors(directory / WEIGHTS), directory / WEIGHTS)
    return model.to(device).eval()


def write_calibration(directory: str | Path, sections: dict[str, Any]) -> Path:
    """Write what was found out about a model after training, as `model.measured` has it; return the path.

    Whole or not at all; without sections a file of a model that was there before goes.
    """
    path = Path(directory) / CALIBRATION
    if sections:
        return write_text(path, json.dumps({"format": _SECTIONS, **sections}) + "\n")
    path.unlink(missing_ok=True)
    return path


def read_calibration(directory: str | Path) -> dict[str, Any]:
    """Read what was found out about the model in a directory, by section; nothing if there is no file.

    Raises:
        ModelError: If the file is no JSON object.
    """
    path = Path(directory) / CALIBRATION
    if not path.exists():
        return {}
    try:
        sections = read_json(path, "calibration", ModelError)
    except ModelError as error:
        raise ModelError(f"{error}: delete it, and calibrate the model again") from error
    before = sections.pop("format", None) != _SECTIONS  # when the file was a detector's alone
    return {"detector": sections} if before else sections


def _device(name: str | torch.device) -> str | torch.device:
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UsageError("--device cuda: no CUDA device is visible to PyTorch")
    return ("cuda" if there else "cpu") if name == "auto" else name


def weights_hash(model: nn.Module) -> str:
    """Hash a module's tensors by name, shape and bytes (sha256, hexadecimal)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def locate(source: str | Path) -> Path:
    """Find the directory that holds a model's files; one of the Hub is fetched first.

    Raises:
        ModelError: If there is no finished model there.
    """
    directory = Path(source)
    for candidate in (directory, directory / "model"):
        if (candidate / CONFIG).exists() and (candidate / WEIGHTS).exists():
            return candidate
    if (directory / "model" / WEIGHTS).exists():
        raise ModelError(
            f"{source}: only the weights of a model put together by hand: make it again, and load_state_dict"
        )
    if (directory / "checkpoints").is_dir():
        raise ModelError(f"{source}: this run has not finished: continue it with mfimage train --resume")
    if directory.exists():
        raise ModelError(f"{source}: no model here ({WEIGHTS} and {CONFIG} are expected in this directory)")
    if not _looks_like_hub_id(str(source)):
        raise ModelError(f"{source}: no such directory; a run or a model that mfimage wrote is expected")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(source), allow_patterns=[WEIGHTS, CONFIG, CALIBRATION]))
    except ImportError as error:
        raise ModelError(f"{source}: no such directory; for a Hub id, pip install huggingface_hub") from error
    except Exception as error:  # huggingface_hub raises many kinds: no network, no such repository, no access
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(f"{source}: no such directory, and the Hub did not give it ({reason})") from error


def _looks_like_hub_id(source: str) -> bool:
    """Whether a name is user/model and not a path that was mistyped; runs/ is where training writes."""
    user, _, name = source.partition("/")
    local = user == "runs" or user.startswith(".") or Path(user).is_dir()
    return bool(user and name) and "/" not in name and not local


def _read_config(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    values = read_json(path, "model configuration", ModelError)
    written_by = values.pop("format", None)
    if written_by != FORMAT:
        raise ModelError(
            f"{path}: format {written_by!r} is not {FORMAT!r}: written by another program or version"
        )
    measured = values.pop("measured", {})  # where it stood before there was calibration.json
    if not isinstance(measured, dict):
        raise ModelError(f"{path}: measured is one JSON object, not {type(measured).__name__}")
    try:
        return from_json(ModelConfig, values), measured
    except UsageError as error:
        raise ModelError(f"{path}: not a model configuration ({error})") from error
