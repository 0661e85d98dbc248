"""Weights on disk: safetensors and JSON only, written whole or not at all, and checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .config import ModelConfig, from_json, to_json
from .errors import ModelError, ResourceError, UsageError
from .models import ManifoldFlow, manifold_flow

FORMAT = "mfimage-1"
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def build(config: ModelConfig, seed: int = 0) -> ManifoldFlow:
    """Make a model with seeded initial weights; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return manifold_flow(**{k: v for k, v in vars(config).items()})


def save_pretrained(model: ManifoldFlow, directory: str | Path) -> Path:
    """Write model.safetensors and config.json into a directory, which is made if need be; return it.

    Raises:
        ModelError: If the model was put together by hand, so that no configuration describes it.
        ResourceError: If the files cannot be written; what was there before stays whole.
    """
    if not model.settings:
        raise ModelError("only a model that mfimage.build or train made has a configuration to be saved with")
    directory = Path(directory)
    config = {"format": FORMAT, **to_json(from_json(ModelConfig, model.settings))}
    _save_tensors(model.state_dict(), directory / WEIGHTS, {})
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
    model = build(_read_config(directory / CONFIG))
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
        for left_over in self.directory.glob(f"*{self.phase}*.tmp"):  # of a process that was killed
            left_over.unlink()
        tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in state.items()}
        path = self.directory / f"{self.phase}-{progress.step:08d}.safetensors"
        with _whole(path) as temporary:
            _write_tensors(tensors, temporary, {"progress": json.dumps(vars(progress))})
            if best:  # first: a crash between the two then repeats this step, and never keeps an older best
                with _whole(self.best) as copy:
                    shutil.copyfile(temporary, copy)
        for old in self.all()[: -self.keep]:
            old.unlink()

    def restore(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """Load the newest checkpoint in place and return its progress; an empty dict if there is none.

        Raises:
            ModelError: If it is damaged or of another model.
        """
        path = self.newest()
        if path is None:
            return {}
        try:
            return self._restore(path, module, optimiser)
        except ModelError as error:
            raise ModelError(f"{error}; remove this file to resume from the checkpoint before it") from error

    def _restore(self, path: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        tensors, progress = _read_tensors(path), _read_metadata(path).get("progress")
        if progress is None:
            raise ModelError(f"{path}: not a checkpoint of a training run")
        _load_state(module, _part(tensors, "module."), path)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimiser.").items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = tensor
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
        return json.loads(progress)

    def restore_best(self, module: nn.Module) -> None:
        """Load the module of the best checkpoint in place, if there is one."""
        if self.best.exists():
            _load_state(module, _part(_read_tensors(self.best), "module."), self.best)


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that it is whole or absent."""
    with _whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # names that are no UTF-8


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a path, whose file takes the path's name if all goes well, else none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # safetensors tells of a full disk in its own words
        raise ResourceError(f"{path}: cannot be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _locate(source: str | Path) -> Path:
    directory = Path(source)
    for candidate in (directory, directory / "model"):
        if (candidate / CONFIG).exists() and (candidate / WEIGHTS).exists():
            return candidate
    if (directory / "checkpoints").is_dir():
        raise ModelError(f"{source}: this run has not finished: continue it with mfimage train --resume")
    if directory.exists():
        raise ModelError(f"{source}: no model here ({WEIGHTS} and {CONFIG} are expected in this directory)")
    if not _looks_like_hub_id(str(source)):
        raise ModelError(f"{source}: no such directory; a run or a model that mfimage wrote is expected")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(source), allow_patterns=[WEIGHTS, CONFIG]))
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


def _read_config(path: Path) -> ModelConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"one JSON object is expected, not {type(values).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a readable model configuration ({error})") from error
    written_by = values.pop("format", None)
    if written_by != FORMAT:
        raise ModelError(
            f"{path}: format {written_by!r} is not {FORMAT!r}: written by another program or version"
        )
    try:
        return from_json(ModelConfig, values)
    except UsageError as error:
        raise ModelError(f"{path}: not a model configuration ({error})") from error


def _save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    with _whole(path) as temporary:
        _write_tensors(tensors, temporary, metadata)


def _write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path, metadata)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with _readable(path):
        return load_file(path)


def _read_metadata(path: Path) -> dict[str, str]:
    with _readable(path), safe_open(path, "pt") as file:
        return file.metadata() or {}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: damaged or not a safetensors file ({error})") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_state(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    wanted = module.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in wanted]
    for name in [name for name in wanted if name in tensors]:
        given, shape = tensors[name], wanted[name].shape
        if given.shape != shape:
            problems.append(f"{name} has shape {tuple(given.shape)}, not {tuple(shape)}")
        elif not torch.isfinite(given).all():
            problems.append(f"{name} holds non-finite numbers")
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(f"{path}: does not fit the model to be filled: {'; '.join(problems[:3])}{more}")
    module.load_state_dict(tensors)
