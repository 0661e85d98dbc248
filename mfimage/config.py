"""What a run is made of: the model's architecture and the training's settings, and the presets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .errors import UsageError


@dataclass(frozen=True)
class ModelConfig:
    """The architecture; `build` turns it into a ManifoldFlow. Saved as config.json beside the weights.

    `levels` lists (Haar halvings, coupling steps) a level. See `models.image_chart`, `models.latent_density`.
    """

    shape: tuple[int, int, int]
    dim: int = 32
    levels: tuple[tuple[int, int], ...] = ((2, 1),)
    keep: float = 1.0
    width: int = 24
    hidden: int = 512
    bends: int = 1
    density_steps: int = 5
    density_width: int = 128

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise UsageError(f"shape must be (channels, height, width), all positive, not {self.shape}")
        pixels = self.shape[0] * self.shape[1] * self.shape[2]
        if not 1 <= self.dim < pixels:
            raise UsageError(
                f"dim must lie in 1 … {pixels - 1} for images of shape {self.shape}, not {self.dim}"
            )
        if not self.levels or any(halvings < 0 or steps < 0 for halvings, steps in self.levels):
            raise UsageError(f"levels must be pairs of non-negative numbers, not {self.levels}")
        if not 0 < self.keep <= 1:
            raise UsageError(f"keep must lie in (0, 1], not {self.keep}")


@dataclass(frozen=True)
class Config:
    """Everything `train` needs beside the images; a run's config.json holds one.

    Args:
        dim: Dimension d of the manifold.
        size: Images are resized and cropped to size × size; None takes them as they are.
        channels: 1, 3, or None for what the images have.
        steps: Optimiser steps of the manifold phase (reconstruction).
        density_steps: Optimiser steps of the density phase (likelihood on fixed codes).
        batch_size: Images a step, over all processes together; the density phase takes 2 × as many codes.
        lr: Peak learning rate of AdamW, after a linear warm-up of `warmup` steps and before a cosine to 0.
        clip: Largest norm of the gradient.
        weight_decay: AdamW's.
        precision: "no" (float32) or "bf16": conditioner networks in bfloat16, everything else in float32.
        every: Steps between validations, checkpoints and pictures.
        validation: Images of the training split held out to watch the error and to keep the best.
        seed: Of the initial weights, the batches and the samples.
        model: Architecture fields of `ModelConfig` that differ from its defaults.
    """

    dim: int = 32
    size: int | None = None
    channels: int | None = None
    steps: int = 2000
    density_steps: int = 1000
    batch_size: int = 128
    lr: float = 2e-3
    density_lr: float = 2e-3
    warmup: int = 100
    clip: float = 20.0
    weight_decay: float = 0.0
    precision: str = "no"
    every: int = 500
    validation: int = 1000
    seed: int = 0
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        for name in ("dim", "batch_size", "every", "validation"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("steps", "density_steps", "warmup", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("lr", "density_lr", "clip"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive, not {getattr(self, name)}")
        if self.precision not in ("no", "bf16"):
            raise UsageError(f'precision must be "no" or "bf16", not {self.precision!r}')

    def model_config(self, shape: tuple[int, int, int]) -> ModelConfig:
        """Complete the architecture with the images' shape."""
        return from_json(ModelConfig, {"shape": shape, "dim": self.dim, **self.model})

    def with_(self, **changes: Any) -> Config:
        """Return a copy in which the given settings that are not None replace the old."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


def from_json(kind: type, values: Mapping[str, Any]) -> Any:
    """Make a configuration of a kind from what json.load gave.

    Raises:
        UsageError: If a name is unknown or a value out of range.
    """
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            f"unknown setting {', '.join(unknown)}: {kind.__name__} knows {', '.join(sorted(known))}"
        )
    try:
        return kind(**{name: _tuples(value) for name, value in values.items()})
    except TypeError as error:
        raise UsageError(f"{kind.__name__}: {error}") from error


def read_config(path: Path) -> Config:
    """Read a Config from a JSON file; missing settings keep their defaults.

    Raises:
        UsageError: If the file cannot be read or says something a Config cannot be.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a readable JSON configuration ({error})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a configuration is one JSON object, not {type(values).__name__}")
    return from_json(Config, values)


def to_json(config: Config | ModelConfig) -> dict[str, Any]:
    """Return a configuration as what json.dump takes."""
    return asdict(config)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def default() -> Config:
    """Settings for a few thousand images or more at up to 64 × 64; the command line's defaults."""
    return Config()


def demo() -> Config:
    """`mfimage demo`: d = 32 on the bundled 10,000 clothes, minutes on two cores."""
    return Config(steps=2000, density_steps=1000)


presets = {"default": default, "demo": demo}


def preset_config(name: str) -> Config:
    """Return a preset by name.

    Raises:
        UsageError: If there is none of this name.
    """
    if name not in presets:
        raise UsageError(f"no preset {name!r}: there are {', '.join(presets)}")
    return presets[name]()
