"""The architecture: what `build` makes a model of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mfimage.errors import UsageError
from mfimage.settings import check_fields, whole_numbers

KindName = Literal["manifold-flow", "encoder-flow", "linear", "sphere", "pie", "ambient-flow", "autoencoder"]
SETTLED = frozenset({"shape", "dim", "kind", "context", "noise_aware"})  # of a model, by the data and Config


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
