"""The checkpoints of a training phase: written whole, checked when they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfimage.errors import ModelError, boundary
from mfimage.muon import Muon
from mfimage.schedule import Average, Progress
from mfimage.tensors import load_state, part, read_metadata, read_tensors, save_tensors

_MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's, of every parameter that was trained; beside them, step


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
        name = re.compile(rf"{re.escape(self.phase)}-\d{{8,}}\.safetensors")
        found = self.directory.glob(f"{self.phase}-*.safetensors")
        return sorted((path for path in found if name.fullmatch(path.name)), key=self.step_of)

    @staticmethod
    def step_of(path: Path) -> int:
        """Return the step after which a checkpoint was written."""
        return int(path.stem.rsplit("-", 1)[1])

    def newest(self) -> Path | None:
        """Return the last checkpoint, None before the first."""
        return next(reversed(self.all()), None)

    def progress(self) -> dict[str, Any]:
        """Return the progress in the newest checkpoint, if that is whole; an empty dict if there is none."""
        path = self.newest()
        if path is None:
            return {}
        with _with_way_out():
            read_tensors(path)  # nothing, such as what comes after it, is removed for a damaged one
            return _progress(path, self.step_of(path))

    def best_step(self) -> int:
        """Return the step of the copy of the best."""
        return int(_progress(self.best)["best_step"])

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
        """Load the newest checkpoint in place and return its progress; an empty dict if there is none.

        Raises:
            ModelError: It is damaged or incomplete; then nothing is loaded.
        """
        path = self.newest()
        if path is None:
            return {}
        with _with_way_out():
            tensors, progress = read_tensors(path), _progress(path, self.step_of(path))
            moments = _moments(part(tensors, "optimiser."), optimiser, progress["step"], path)
            averages = part(tensors, "average.")
            if average is not None:
                _require_alike(average.tensors, averages, "average", path)
            load_state(module, part(tensors, "module."), path)
        if average is not None:
            average.load(averages)
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
        return progress

    def restore_best(self, module: nn.Module) -> None:
        """Load the module of the best checkpoint in place; ModelError if only others are there."""
        newest = self.newest()
        if newest is not None and not self.best.exists():
            raise ModelError(
                f"{self.best}: is missing, the best of its phase: remove {newest.parent}/{self.phase}-* to "
                "train this phase anew"
            )
        if newest is not None:
            load_state(module, part(read_tensors(self.best), "module."), self.best)


@contextmanager
def _with_way_out() -> Iterator[None]:
    """Say what to do about a checkpoint that cannot be read."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{error}; remove this file to resume from the checkpoint before it") from error


def _progress(path: Path, step: int | None = None) -> dict[str, Any]:
    """Read the progress in a checkpoint's header; ModelError if there is none, or of another step."""
    text = read_metadata(path).get("progress")
    if text is None:
        raise ModelError(f"{path}: not a checkpoint of a training run")
    with boundary(ModelError, f"{path}: damaged: its progress cannot be read"):
        values = json.loads(text)
        Progress(**values)
    kinds = {one.name: type(one.default) for one in fields(Progress)}
    for name, value in values.items():
        if type(value) is not kinds[name] and (type(value), kinds[name]) != (int, float):
            raise ModelError(f"{path}: damaged: its progress says {name} = {value!r}")
    if step is not None and values.get("step") != step:
        raise ModelError(f"{path}: damaged: by its progress it is of step {values.get('step')}")
    return values


def _moments(
    saved: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, step: int, path: Path
) -> dict[int, dict[str, Tensor]]:
    """Put the moments in order; ModelError unless each has the shape of its parameter, and is finite."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in saved.items():
        index, _, key = name.partition(".")
        if not index.isdecimal() or int(index) >= len(weights):
            raise ModelError(f"{path}: damaged: optimiser.{name} is unknown")
        moments.setdefault(int(index), {})[key] = tensor
    if step and weights and not moments:
        raise ModelError(f"{path}: incomplete: the optimiser's moments are missing")
    for number, found in moments.items():
        wanted: dict[str, Tensor] = {"momentum": weights[number]}
        if not isinstance(optimiser, Muon):
            wanted = {"step": torch.zeros(()), **dict.fromkeys(_MOMENTS, weights[number])}
        _require_alike(wanted, found, f"optimiser.{number}", path)
    return moments


def _require_alike(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], what: str, path: Path) -> None:
    """Raise ModelError unless tensors have these names and shapes, and are finite."""
    if wrong := sorted(wanted.keys() ^ found.keys()):
        raise ModelError(
            f"{path}: incomplete: {what}.{wrong[0]} is {'missing' if wrong[0] in wanted else 'unknown'}"
        )
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape or not torch.isfinite(tensor).all():
            shape = tuple(wanted[name].shape)
            raise ModelError(f"{path}: damaged: {what}.{name} is not finite numbers of shape {shape}")
