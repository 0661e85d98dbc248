"""What a user chooses: names, how files are read, the architecture, the settings of a training, presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mfimage.errors import UsageError
from mfimage.settings import check_fields, check_number, from_json, is_number, whole_numbers

AlgorithmName = Literal[
    "m-flow", "m-flow-a", "m-flow-s", "m-flow-ot", "me-flow", "me-flow-a", "me-flow-s", "free-form",
    "denoising", "pie", "af", "fom", "pae", "pca",
]  # fmt: skip
KindName = Literal["manifold-flow", "encoder-flow", "linear", "sphere", "pie", "ambient-flow", "autoencoder"]
DeviceName = Literal["auto", "cpu", "cuda"]
BudgetName = Literal["quick", "paper"]
PresetName = Literal["default", "demo", "fashion-mnist", "denoising"]

NOISE_AWARE = ("m-flow", "me-flow")  # algorithms whose chart can learn to remove noise
SETTLED = frozenset({"shape", "dim", "kind", "context", "noise_aware"})  # of a model, by the data and Config


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

    def __post_init__(self) -> None:
        check_fields(self, above_zero=("max_pixels",), shares=("max_bad",))


@dataclass(frozen=True)
class ModelConfig:
    """The architecture; `build` makes a model of it. Saved as config.json beside the weights.

    Args:
        shape: Of the data, (C, H, W) for images, (D,) for vectors.
        dim: d, the dimension of the manifold.
        levels: Of an image chart, (Haar halvings, coupling steps) a level: --model.levels 1 2 once for each.
            By default one level of as many halvings as bring the shorter side to about 8, and one step; for
            noise_aware charts as many levels of one halving, the first of four steps, the others of two.
        keep: Of an image chart, the share of channels that go on to the next level.
        width: Channels of convolutions, in units.
        hidden: Width of fully connected layers; 0 means 512 for images and 64 for vectors.
        bends: Pairs of networks that bend the linear subspace.
        density_steps: Spline couplings of h; see `models.latent_density`.
        density_width: Width of their networks.
        kind: What is built; see `models.build`.
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
    kind: KindName = "manifold-flow"
    context: int = 0
    chart_context: bool = False
    epsilon: float = 0.1
    noise_aware: bool = False

    def __post_init__(self) -> None:
        if not (whole_numbers(self.shape, 3, 1) or whole_numbers(self.shape, 1, 1)):
            raise UsageError(
                f"shape must be (channels, height, width) or (features,), all positive, not {self.shape}"
            )
        check_fields(self, ("dim", "width", "density_width", "keep", "epsilon"), shares=("keep",))
        pixels = math.prod(self.shape)
        if not 1 <= self.dim < pixels:
            what = f"images of shape {self.shape}" if self.images else f"vectors of length {pixels}"
            raise UsageError(f"dim must lie in 1 … {pixels - 1} for {what}, not {self.dim}")
        if self.kind == "sphere" and self.shape != (self.dim + 1,):
            raise UsageError(f"a sphere of dimension {self.dim} lies in R^{self.dim + 1}, not {self.shape}")
        if self.chart_context and (self.images or self.kind not in ("manifold-flow", "pie", "ambient-flow")):
            raise UsageError("chart_context is true only for charts of vectors that encode")
        if self.noise_aware and not (self.images and self.kind in ("manifold-flow", "encoder-flow")):
            raise UsageError("noise_aware (a range of noise) is true only for an M-flow or Me-flow of images")
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
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of images, (C, H, W)."""
        return self.shape[0], self.shape[1], self.shape[2]

    @property
    def halvings(self) -> int:
        """How often an image is halved before the networks see it."""
        return sum(level[0] for level in self.levels)

    def _check_levels(self) -> None:
        levels, channels = self.levels, self.shape[0]
        if not isinstance(levels, tuple) or not all(whole_numbers(level, 2) for level in levels):
            raise UsageError(f"levels must be pairs (halvings, steps) of numbers from 0, not {levels!r}")
        if not levels:
            halvings = max(1, round(math.log2(min(self.shape[1:]) / 8)))
            levels = ((1, 4), *((1, 2),) * (halvings - 1)) if self.noise_aware else ((halvings, 1),)
            object.__setattr__(self, "levels", levels)
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
        size: Images are resized and cropped to size × size; without it they are taken as they are.
        channels: 1 grey, 3 colour; without it what the images have.
        steps: Optimiser steps of the manifold phase (reconstruction).
        density_steps: Optimiser steps of the density phase (likelihood on fixed codes).
        batch_size: Images a step, over all processes together; the density phase takes 2 × as many codes.
        lr: Peak learning rate of AdamW in the manifold phase, before a cosine to 0.
        density_lr: The same in the density phase.
        warmup: Steps of the linear rise to the peak learning rate.
        clip: Largest norm of the gradient of the loss, which is summed over pixels.
        weight_decay: AdamW's.
        precision: no is float32; bf16 has conditioner networks in bfloat16, everything else in float32.
        algorithm: What is built and by which objectives it is trained; the README has a table.
        flip: Whether images are mirrored left to right at random in training, as suits faces and photographs.
        noise: Standard deviation of the Gaussian noise that af, pie and denoising add to the data in
            training; 0 means 0.1 for denoising, none elsewhere. For m-flow and me-flow of images a range
            (low, high): the chart also learns to remove noise whose σ is drawn from it. See `settled`.
        weight: Of the squared error beside the likelihood, where one objective holds both.
        scandal: α, the weight of the joint score's error, where the data give a score; 0 leaves it out.
        every: Steps between validations, checkpoints and pictures.
        validation: Images of the training split held out to watch the error and to keep the best.
        seed: Of the initial weights, the batches and the samples.
        model: Settings of `ModelConfig` that differ from its defaults.
    """

    dim: int = 32
    size: int | None = None
    channels: Literal[1, 3] | None = None
    steps: int = 2000
    density_steps: int = 1000
    batch_size: int = 128
    lr: float = 4e-3
    density_lr: float = 2e-3
    warmup: int = 100
    clip: float = 200.0
    weight_decay: float = 0.0
    precision: Literal["no", "bf16"] = "no"
    algorithm: AlgorithmName = "m-flow"
    flip: bool = False
    noise: float | tuple[float, float] | None = None
    weight: float = 1000.0
    scandal: float = 0.0
    every: int = 500
    validation: int = 1000
    seed: int = 0
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3):
            raise UsageError(f"channels must be 1 (grey), 3 (colour) or null, not {self.channels!r}")
        check_fields(
            self, above_zero=("dim", "size", "batch_size", "every", "validation", "lr", "density_lr", "clip")
        )
        noise = 0.0 if self.noise is None else self.noise
        if not isinstance(noise, tuple):
            check_number("noise", noise)
        elif len(noise) != 2 or not all(map(is_number, noise)) or not 0 <= noise[0] < noise[1]:
            raise UsageError(f"noise must be a number or a range 0 ≤ low < high, not {noise!r}")
        elif self.algorithm not in NOISE_AWARE:
            raise UsageError(f"a range of noise is for {' and '.join(NOISE_AWARE)}, not for {self.algorithm}")
        if self.seed >= 2**63:
            raise UsageError(f"seed must lie below 2^63, not {self.seed}")
        if not isinstance(self.model, Mapping) or set(self.model) & SETTLED:
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
        return self.noise if isinstance(self.noise, int | float) else 0.0

    def settled(self, images: bool) -> Config:
        """Decide what was left open, for images or for vectors: no noise without a word."""
        return replace(self, noise=0.0) if self.noise is None else self

    def model_config(
        self, shape: tuple[int, ...], kind: KindName = "manifold-flow", context: int = 0
    ) -> ModelConfig:
        """Complete the architecture with the shape of the data, and what the algorithm builds."""
        given = {"shape": shape, "dim": self.dim, "kind": kind, "context": context}
        return from_json(ModelConfig, {**given, "noise_aware": self.noise_aware, **self.model})

    def with_(self, **changes: Any) -> Config:
        """Return a copy in which the settings given that are not None replace the old."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


presets: dict[PresetName, Config] = {
    # d = 64 on 16,000 CelebA faces, 300 CPU-s: 106.2 on 256 unseen ones (benchmarks/step_cost.py); PCA 118.9.
    "default": Config(),
    # 3 min 27 s on two Xeon cores: 0.68 of PCA-32's squared error on the bundled test clothes
    # (benchmarks/README.md). More steps overfit 9,000 images.
    "demo": Config(steps=1000, density_steps=800, every=200),
    # As many steps as 1,200 CPU seconds of one Xeon core hold: 0.446 of PCA-32's squared error on the first
    # 2,000 test images (benchmarks/reconstruction.py, which holds no image out; the preset was not run).
    "fashion-mnist": Config(steps=9500, density_steps=3000, every=1000),
    # Removes noise up to σ = 0.5; after 28 minutes of one Xeon core 26.8, 23.3 and 21.5 dB at σ = 0.1, 0.2
    # and 0.3 on unseen clothes (benchmarks/denoising.md). Its loss of logarithms wants a tight clip.
    "denoising": Config(
        steps=4400, batch_size=32, lr=8e-3, warmup=300, clip=5.0, noise=(0.0, 0.5), every=1000,
        model={"width": 16, "hidden": 256},
    ),
}  # fmt: skip
