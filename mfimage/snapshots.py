"""The checkpoints that training leaves and resumes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfimage.errors import ModelError
from mfimage.storage import load_state, part, read_metadata, read_tensors, whole, write_tensors


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
        with whole(path) as temporary:
            write_tensors(tensors, temporary, {"progress": json.dumps(vars(progress))})
            if best:  # first: a crash between the two then repeats this step, and never keeps an older best
                with whole(self.best) as copy:
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
        tensors, progress = read_tensors(path), read_metadata(path).get("progress")
        if progress is None:
            raise ModelError(f"{path}: not a checkpoint of a training run")
        load_state(module, part(tensors, "module."), path)
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
