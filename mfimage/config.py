"""What a run is made of: the model's architecture and the training's settings, and the presets."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mfimage.errors import UsageError

ALGORITHMS = (
    "m-flow", "m-flow-a", "m-flow-s", "m-flow-ot", "me-flow", "me-flow-a", "me-flow-s", "free-form",
    "denoising", "pie", "af", "fom", "pae", "pca",
)  # fmt: skip
NOISE_AWARE = ("m-flow", "me-flow")  # whose chart can learn to remove noise
KINDS = ("manifold-flow", "encoder-flow", "linear", "sphere", "pie", "ambient-flow", "autoencoder")


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Args:
        max_bad: Largest share of unreadable files, in [0, 1], that is skipped rather than an error.
        max_pixels: Images with more pixels are not decoded, and count as bad.
        value_range: Values of black and white in arrays, and in image files deeper than 8 bits. Without it
            integers scale by their type's maximum, and floats must lie in [0, 1].
    """

    max_bad: float = 0.05
    max_pixels: int = 64_000_000
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class ModelConfig:
    """The architecture; `build` makes a model of it. Saved as config.json beside the weights.

    Args:
        shape: Of the data, (C, H, W) for images, (D,) for vectors.
        dim: d, the dimension of the manifold.
        levels: Of an image chart, (Haar halvings, coupling steps) a level; empty means one level of as many
            halvings as bring the shorter side to about 8, and one step; for noise_aware charts as many levels
            of one halving, the first of four steps and the others of two. See `models.image_chart`.
        keep: Of an image chart, the share of channels that go on to the next level.
        width: Channels of convolutions, in units.
        hidden: Width of fully connected layers; 0 means 512 for images and 64 for vectors.
        bends: Pairs of networks that bend the linear subspace.
        density_steps: Spline couplings of h; see `models.latent_density`.
        density_width: Width of their networks.
        kind: What is built; see `building`.
        context: Length of the parameters θ that condition h, 0 for none.
        chart_context: Whether θ conditions the chart of vectors too.
        epsilon: Standard deviation of PIE's density off the manifold.
        noise_aware: Whether an image chart can shrink noise; see `models.charts.ImageChart.shrink`.
    """

    shape: tuple[int, ...]
    dim: int = 32
    levels: tuple[tuple[int, int], ...] = ()
    keep: float = 1.0
    width: int = 24
    hidden: int = 0
    bends: int = 1
    density_steps: int = 5
    density_width: int = 128
    kind: str = "manifold-flow"
    context: int = 0
    chart_context: bool = False
    epsilon: float = 0.1
    noise_aware: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be built, and fill in what depends on the data."""
        if not (_whole_numbers(self.shape, 3) or _whole_numbers(self.shape, 1)) or min(self.shape) < 1:
            raise UsageError(
                f"shape must be (channels, height, width) or (features,), all positive, not {self.shape}"
            )
        _check_whole(self, 1, ("dim", "width", "density_width"))
        _check_whole(self, 0, ("hidden", "bends", "density_steps", "context"))
        pixels = math.prod(self.shape)
        if not 1 <= self.dim < pixels:
            what = f"images of shape {self.shape}" if self.images else f"vectors of length {pixels}"
            raise UsageError(f"dim must lie in 1 … {pixels - 1} for {what}, not {self.dim}")
        _check_positive(self, ("keep", "epsilon"))
        if self.keep > 1:
            raise UsageError(f"keep must lie in (0, 1], not {self.keep}")
        if self.kind not in KINDS:
            raise UsageError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.kind == "sphere" and self.shape != (self.dim + 1,):
            raise UsageError(
                f"a sphere of dimension {self.dim} lies in R^{self.dim + 1}, not in {self.shape}"
            )
        sees = not self.images and self.kind in ("manifold-flow", "pie", "ambient-flow")
        if not isinstance(self.chart_context, bool) or (self.chart_context and not sees):
            raise UsageError(
                "chart_context is true or false, and true only for charts of vectors that encode"
            )
        if not isinstance(self.noise_aware, bool) or (self.noise_aware and not self._can_be_noise_aware):
            raise UsageError(
                "noise_aware (a range of noise) is true or false, and true only for an M-flow or Me-flow of "
                "images"
            )
        object.__setattr__(self, "hidden", self.hidden or (512 if self.images else 64))
        if self.images:
            self._check_levels()
        elif self.levels:
            raise UsageError(f"levels are of images, not of vectors of length {pixels}")

    @property
    def images(self) -> bool:
        """Whether the data are images."""
        return len(self.shape) == 3

    @property
    def _can_be_noise_aware(self) -> bool:
        return self.images and self.kind in ("manifold-flow", "encoder-flow")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of images, (C, H, W)."""
        channels, height, width = self.shape
        return channels, height, width

    @property
    def halvings(self) -> int:
        """How often an image is halved before the networks see it."""
        return sum(halvings for halvings, _ in self.levels)

    def _check_levels(self) -> None:
        levels = self.levels
        if not isinstance(levels, tuple) or not all(_whole_numbers(level, 2) for level in levels):
            raise UsageError(f"levels must be pairs (halvings, steps) of whole numbers, not {levels!r}")
        if not levels:
            halvings = max(1, round(math.log2(min(self.shape[1:]) / 8)))
            fine = ((1, 4), *((1, 2),) * (halvings - 1))
            levels = fine if self.noise_aware else ((halvings, 1),)
            object.__setattr__(self, "levels", levels)
        if min(min(level) for level in levels) < 0:
            raise UsageError(f"levels must be pairs without negative numbers, not {levels}")
        channels = self.shape[0]
        for halvings, steps in levels:
            channels *= 4**halvings
            if steps and channels < 2:
                raise UsageError(f"levels {levels}: a single channel has nothing to couple; halve first")
            channels = max(1, round(channels * self.keep))


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
        clip: Largest norm of the gradient of the loss, which is summed over pixels.
        weight_decay: AdamW's.
        precision: "no" (float32) or "bf16": conditioner networks in bfloat16, everything else in float32.
        algorithm: What is built and by which objectives it is trained; see `algorithms.ALGORITHMS`.
        flip: Whether images are mirrored left to right at random in training, as suits faces and photographs.
        noise: Standard deviation of the Gaussian noise that likelihood on the whole space ("af", "pie") and
            "denoising" add to the data in training; 0 means 0.1 for "denoising", none elsewhere. For "m-flow"
            and "me-flow" of images a range (low, high): the chart also learns to remove noise whose σ is
            drawn from it.
        weight: Of the squared error beside the likelihood, where one objective holds both.
        scandal: α, the weight of the joint score's error, where the data give a score; 0 leaves it out.
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
    lr: float = 4e-3
    density_lr: float = 2e-3
    warmup: int = 100
    clip: float = 200.0
    weight_decay: float = 0.0
    precision: str = "no"
    algorithm: str = "m-flow"
    flip: bool = False
    noise: float | tuple[float, float] = 0.0
    weight: float = 1000.0
    scandal: float = 0.0
    every: int = 500
    validation: int = 1000
    seed: int = 0
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse settings outside their range."""
        _check_whole(self, 1, ("dim", "batch_size", "every", "validation"))
        _check_whole(self, 0, ("steps", "density_steps", "warmup", "seed"))
        _check_positive(self, ("lr", "density_lr", "clip"))
        if self.size is not None:
            _check_whole(self, 1, ("size",))
        _check_positive(self, ("weight_decay", "weight", "scandal"), zero=True)
        self._check_noise()
        if self.channels not in (None, 1, 3):
            raise UsageError(f"channels must be 1 (grey), 3 (colour) or null, not {self.channels!r}")
        if self.algorithm not in ALGORITHMS:
            raise UsageError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {self.algorithm!r}")
        if not isinstance(self.flip, bool):
            raise UsageError(f"flip must be true or false, not {self.flip!r}")
        if self.precision not in ("no", "bf16"):
            raise UsageError(f'precision must be "no" or "bf16", not {self.precision!r}')
        if self.seed >= 2**63:
            raise UsageError(f"seed must lie below 2^63, not {self.seed}")
        taken = {"shape", "dim", "kind", "context", "noise_aware"}
        if not isinstance(self.model, Mapping) or taken & set(self.model):
            raise UsageError(
                "model must hold settings of ModelConfig other than shape, dim, kind and context (and "
                f"noise_aware, which a range of noise sets), not {self.model!r}"
            )
        shape = (2,) if self.model.get("chart_context") else (3, 64, 64)
        from_json(ModelConfig, {"shape": shape, "dim": 1, **self.model})  # bad for any data: bad now

    @property
    def noise_aware(self) -> bool:
        """Whether noise is a range, which the chart learns to remove."""
        return isinstance(self.noise, tuple)

    @property
    def sigma(self) -> float:
        """The noise where it is one number, else 0."""
        return 0.0 if isinstance(self.noise, tuple) else self.noise

    @property
    def sigmas(self) -> tuple[float, float]:
        """The noise as a range."""
        return self.noise if isinstance(self.noise, tuple) else (self.noise, self.noise)

    def _check_noise(self) -> None:
        if not self.noise_aware:
            _check_positive(self, ("noise",), zero=True)
            return
        pair = self.sigmas
        if len(pair) != 2 or not all(map(_is_number, pair)) or not 0 <= pair[0] < pair[1]:
            raise UsageError(f"noise must be a number or a range 0 ≤ low < high, not {self.noise!r}")
        if self.algorithm not in NOISE_AWARE:
            raise UsageError(f"a range of noise is for {' and '.join(NOISE_AWARE)}, not for {self.algorithm}")

    def model_config(
        self, shape: tuple[int, ...], kind: str = "manifold-flow", context: int = 0
    ) -> ModelConfig:
        """Complete the architecture with the shape of the data, and what the algorithm builds."""
        known = {
            "shape": shape, "dim": self.dim, "kind": kind, "context": context, "noise_aware": self.noise_aware
        }  # fmt: skip
        return from_json(ModelConfig, {**known, **self.model})

    def with_(self, **changes: Any) -> Config:
        """Return a copy in which the given settings that are not None replace the old."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


def from_json(kind: type, values: Mapping[str, Any]) -> Any:
    """Make a configuration of a kind from what json.load gave.

    Raises:
        UsageError: If a name is unknown or a value out of range.
    """
    _check_known(kind, values)
    try:
        return kind(**{name: _tuples(value) for name, value in values.items()})
    except TypeError as error:
        raise UsageError(
            f"{kind.__name__}: {str(error).removeprefix(f'{kind.__name__}.__init__() ')}"
        ) from error


def read_config(path: Path) -> Config:
    """Read a Config from a JSON file; missing settings keep their defaults.

    Raises:
        UsageError: If the file cannot be read or says something a Config cannot be.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a readable JSON configuration ({error})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a configuration is one JSON object, not {type(values).__name__}")
    try:
        return from_json(Config, values)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def to_json(config: Config | ModelConfig) -> dict[str, Any]:
    """Return a configuration as what json.dump takes."""
    return asdict(config)


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _check_known(kind: type, values: Mapping[str, Any]) -> None:
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise UsageError(
            f"unknown setting {', '.join(unknown)}: {kind.__name__} knows {', '.join(sorted(known))}"
        )


def _check_whole(config: Any, least: int, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(config, name)
        if not _whole_numbers((value,), 1) or value < least:
            raise UsageError(f"{name} must be a whole number from {least}, not {value!r}")


def _check_positive(config: Any, names: tuple[str, ...], zero: bool = False) -> None:
    for name in names:
        value = getattr(config, name)
        if not _is_number(value) or value < 0 or (value == 0 and not zero):
            raise UsageError(
                f"{name} must be a {'number from 0' if zero else 'positive number'}, not {value!r}"
            )


def _whole_numbers(values: Any, count: int) -> bool:
    return isinstance(values, tuple) and len(values) == count and all(type(v) is int for v in values)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def default() -> Config:
    """Settings for some thousand images or more at up to 64 × 64; the command line's defaults.

    On CelebA faces 64 × 64 (16,000, d = 64, batch 64), 300 CPU seconds of one core of a Xeon leave a squared
    error of 106.2 on 256 unseen ones (benchmarks/step_cost.py); PCA-64 leaves 118.9 on the whole split.
    """
    return Config()


def demo() -> Config:
    """`mfimage demo`: d = 32 on the bundled 10,000 clothes.

    3 min 27 s and 0.69 GB on two idle cores of a Xeon, report included: 0.68 of PCA-32's squared error on the
    2,000 test images (benchmarks/README.md). More steps overfit 9,000 images.
    """
    return Config(steps=1000, density_steps=800, every=200)


def fashion_mnist() -> Config:
    """`mfimage train fashion-mnist --preset fashion-mnist`: d = 32 on all 60,000 clothes.

    As many steps as 1,200 CPU seconds of one core of a Xeon hold: 0.446 of PCA-32's squared error on
    the first 2,000 test images (benchmarks/reconstruction.py, which holds no image out). The preset itself
    was not run.
    """
    return Config(steps=9500, density_steps=3000, every=1000)


def denoising() -> Config:
    """`mfimage train fashion-mnist --preset denoising`: a manifold that also removes noise up to σ = 0.5.

    28 minutes of one core of a Xeon: 26.8, 23.3 and 21.5 dB at σ = 0.1, 0.2 and 0.3 on unseen clothes
    (benchmarks/denoising.md). The loss is of logarithms and its gradient small, hence the tight clip.
    """
    return Config(
        steps=4400, batch_size=32, lr=8e-3, warmup=300, clip=5.0, noise=(0.0, 0.5), every=1000,
        model={"width": 16, "hidden": 256},
    )  # fmt: skip


presets = {"default": default, "demo": demo, "fashion-mnist": fashion_mnist, "denoising": denoising}


def preset_config(name: str) -> Config:
    """Return a preset by name.

    Raises:
        UsageError: If there is none of this name.
    """
    if name not in presets:
        raise UsageError(f"no preset {name!r}: there are {', '.join(presets)}")
    return presets[name]()
