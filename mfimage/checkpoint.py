"""Weights on disk: safetensors and JSON only, written whole or not at all, and checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .config import ModelConfig, from_json, to_json
from .errors import ModelError, UsageError
from .models import ManifoldFlow, manifold_flow

FORMAT = "mfimage-1"
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def build(config: ModelConfig, seed: int = 0) -> ManifoldFlow:
    """Make a model with seeded initial weights; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return manifold_flow(**{k: v for k, v in vars(config).items()})


def save_pretrained(model: ManifoldFlow, directory: str | Path) -> Path:
    """Write model.safetensors and config.json into a directory, which is made if need be; return it."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _save_tensors(model.state_dict(), directory / WEIGHTS, {})
    config = {"format": FORMAT, **to_json(from_json(ModelConfig, model.settings))}
    write_text(directory / CONFIG, json.dumps(config, indent=2) + "\n")
    return directory


def from_pretrained(source: str | Path, device: str | torch.device = "cpu") -> ManifoldFlow:
    """Read a model from a directory, or from the Hugging Face Hub where huggingface_hub is installed.

    Args:
        source: A directory that `save_pretrained` or a training run wrote, or a Hub id such as "user/name".
        device: Where the weights go.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: If files are missing, damaged, of another format, or do not fit together.
    """
    directory = _locate(source)
    path = directory / CONFIG
    try:
        values = json.loads(path.read_text())
        written_by = values.pop("format", None)
        if written_by != FORMAT:
            raise ModelError(
                f"{path}: format {written_by!r} is not {FORMAT!r}: written by another program or version"
            )
        model = build(from_json(ModelConfig, values))
    except (OSError, ValueError, AttributeError, UsageError) as error:
        raise ModelError(f"{path}: not a readable model configuration ({error})") from error
    _load_state(model, _read_tensors(directory / WEIGHTS), directory / WEIGHTS)
    return model.to(device).eval()


def weights_hash(model: nn.Module) -> str:
    """Hash a module's tensors by name, shape and bytes (sha256, hexadecimal)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Snapshots:
    """The checkpoints of one training phase: the newest three, and a copy of the best.

    Each is one safetensors file with the module, the optimiser's moments, and the progress in its header.

    Args:
        directory: Where they lie; made when the first is written.
        phase: Leading part of their names.
        keep: How many of the newest stay.
    """

    def __init__(self, directory: Path, phase: str, keep: int = 3) -> None:
        self.directory, self.phase, self.keep = directory, phase, keep

    @property
    def best(self) -> Path:
        """Where the copy of the best checkpoint lies."""
        return self.directory / f"best-{self.phase}.safetensors"

    def all(self) -> list[Path]:
        """List the checkpoints by step."""
        return sorted(self.directory.glob(f"{self.phase}-*.safetensors"))

    def newest(self) -> Path | None:
        """Return the last checkpoint, None before the first."""
        return max(self.all(), default=None)

    def save(self, module: nn.Module, optimiser: torch.optim.Optimizer, progress: Any, best: bool) -> None:
        """Write a checkpoint, copy it if it is the best, and remove what is older than the newest three."""
        self.directory.mkdir(parents=True, exist_ok=True)
        tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
        path = self.directory / f"{self.phase}-{progress.step:08d}.safetensors"
        _save_tensors(tensors, path, {"progress": json.dumps(vars(progress))})
        if best:
            temporary = self.best.with_suffix(".tmp")
            shutil.copyfile(path, temporary)
            os.replace(temporary, self.best)
        for old in self.all()[: -self.keep]:
            old.unlink()

    def restore(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """Load the newest checkpoint in place and return its progress; an empty dict if there is none."""
        path = self.newest()
        if path is None:
            return {}
        tensors = _read_tensors(path)
        _load_state(module, _part(tensors, "module."), path)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimiser.").items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = tensor
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["progress"])

    def restore_best(self, module: nn.Module) -> None:
        """Load the module of the best checkpoint in place, if there is one."""
        if self.best.exists():
            _load_state(module, _part(_read_tensors(self.best), "module."), self.best)


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that it is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _locate(source: str | Path) -> Path:
    directory = Path(source)
    for candidate in (directory, directory / "model"):
        if (candidate / CONFIG).exists() and (candidate / WEIGHTS).exists():
            return candidate
    if directory.exists() or not _looks_like_hub_id(str(source)):
        raise ModelError(f"{source}: no model here ({WEIGHTS} and {CONFIG} are expected in this directory)")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(source), allow_patterns=[WEIGHTS, CONFIG]))
    except ImportError as error:
        raise ModelError(f"{source}: no such directory; for a Hub id, pip install huggingface_hub") from error
    except Exception as error:  # huggingface_hub raises many kinds: no network, no such repository, no access
        raise ModelError(f"{source}: no such directory, and the Hub did not give it ({error})") from error


def _looks_like_hub_id(source: str) -> bool:
    parts = source.split("/")
    return len(parts) == 2 and all(part and not part.startswith(".") for part in parts)


def _save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)
    os.replace(temporary, path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: damaged or not a safetensors file ({error})") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_state(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ModelError(f"{path}: non-finite numbers in {', '.join(broken[:3])}")
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{path}: does not fit the model it should fill: {error}") from error
