"""The architecture: what `build` makes a model of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mfimage.errors import UsageError
from mfimage.settings import check_fields, whole_numbers

DensityName = Literal["coupling", "autoregressive"]
KindName = Literal["manifold-flow", "encoder-flow", "linear", "sphere", "pie", "ambient-flow", "autoencoder"]
_LAYERS = 64  # levels, rounds, pairs and couplings, at most: far above what any image needs
_LONGEST = 2**16  # of any length of a layer, and side of an image
_PIXELS = 2**28  # numbers of an example
MOST_CLASSES = 1000  # at most
MOST = {
    **dict.fromkeys(("steps", "bends", "density_steps"), _LAYERS),
    "levels": _LONGEST.bit_length(),
    **dict.fromkeys(("dim", "width", "near", "hidden", "density_width", "density_bins", "context"), _LONGEST),
    **dict.fromkeys(("noise_width", "sharp_width"), _LONGEST),
}
# Settings of a model that the data and Config decide.
SETTLED = frozenset({"shape", "dim", "kind", "context", "noise_aware", "classes", "nested", "sharp"})


@dataclass(frozen=True)
class ModelConfig:
    """The architecture; `build` makes a model of it. Saved as config.json beside the weights.

    Args:
        shape: Of the data, (C, H, W) for images, (D,) for vectors.
        dim: d, the dimension of the manifold.
        levels: Of images, how often wavelets halve them; 0 means as often as brings the shorter side to about
            8, once at least. What follows, to noise_width, is of image charts alone.
        steps: Rounds of couplings between averages and details at each level.
        width: Hidden channels of their networks at the finest level; at coarser ones up to four times that.
        near: Principal coordinates after the first d that the dense networks see and draw.
        dropout: Rate at which hidden features of the dense networks are dropped in training.
        noise_width: Channels, at full size, of the network that removes noise; 2, 3, 4 times as many below.
        sharp_width: The same of the network that sharpens samples; 3, 6, 12 times as many below.
        hidden: Width of fully connected layers; 0 means 512 for images and 64 for vectors.
        bends: Pairs of dense networks that bend the linear subspace.
        density: How the splines of h see the codes, see `models.latent_density`; None means autoregressive
            for images, coupling for vectors and for what has parameters θ.
        density_steps: Layers of splines of h; None means 1 autoregressive one, or 5 couplings.
        density_width: Width of their networks; 0 means 256 of autoregressive ones, 128 of couplings.
        density_bins: Segments of each spline.
        kind: What is built; see `models.build`.
        context: Length of the parameters θ that condition h, 0 for none.
        chart_context: Whether θ conditions the chart of vectors too.
        epsilon: Standard deviation of PIE's density off the manifold.
        noise_aware: Whether an image chart can shrink noise; see `models.charts.ImageChart.shrink`.
        classes: Names of the classes that a classifier of the codes tells apart; see `models.classes`.
        nested: Whether the first k codes are a manifold of their own, for every k.
        sharp: Whether an M-flow of images has a network that draws sharply; see `models.sharpening`.
    """

    shape: tuple[int, ...]
    dim: int = 32
    levels: int = 0
    steps: int = 1
    width: int = 8
    near: int = 256
    dropout: float = 0.1
    noise_width: int = 32
    sharp_width: int = 8
    hidden: int = 0
    bends: int = 1
    density: DensityName | None = None
    density_steps: int | None = None
    density_width: int = 0
    density_bins: int = 4
    kind: KindName = "manifold-flow"
    context: int = 0
    chart_context: bool = False
    epsilon: float = 0.1
    noise_aware: bool = False
    classes: tuple[str, ...] = ()
    nested: bool = False
    sharp: bool = False

    def __post_init__(self) -> None:
        positive = "dim", "width", "noise_width", "sharp_width", "density_bins", "epsilon"
        check_fields(self, positive, shares=("dropout",), most=MOST)
        if not (whole_numbers(self.shape, 3, 1) or whole_numbers(self.shape, 1, 1)):
            raise UsageError(
                f"shape must be (channels, height, width) or (features,), all positive, not {self.shape}"
            )
        pixels = math.prod(self.shape)
        if pixels > _PIXELS or (self.images and max(self.shape) > _LONGEST):
            raise UsageError(f"shape must be of no more than {_PIXELS:,} numbers, and sides to {_LONGEST:,}")
        if not 1 <= self.dim < pixels:
            what = f"images of shape {self.shape}" if self.images else f"vectors of length {pixels}"
            raise UsageError(f"dim must lie in 1 … {pixels - 1} for {what}, not {self.dim}")
        if self.kind == "sphere" and self.shape != (self.dim + 1,):
            raise UsageError(f"a sphere of dimension {self.dim} lies in R^{self.dim + 1}, not {self.shape}")
        if self.chart_context and (self.images or self.kind not in ("manifold-flow", "pie", "ambient-flow")):
            raise UsageError("chart_context is true only for charts of vectors that encode")
        self._check_abilities()
        _check_classes(self.classes)
        if self.classes and (self.kind in ("linear", "sphere", "ambient-flow") or self.context):
            raise UsageError(f"classes are learned of codes without parameters, which {self.kind} has not")
        object.__setattr__(self, "hidden", self.hidden or (512 if self.images else 64))
        self._settle_density()
        if self.images:
            levels = self.levels or max(1, round(math.log2(min(self.shape[1:]) / 8)))
            object.__setattr__(self, "levels", levels)
        elif self.levels:
            raise UsageError(f"levels are of images, not of vectors of length {pixels}")

    def _settle_density(self) -> None:
        """Decide what was left open of h."""
        kind = self.density or ("autoregressive" if self.images and not self.context else "coupling")
        steps, width = (1, 256) if kind == "autoregressive" else (5, 128)
        object.__setattr__(self, "density", kind)
        object.__setattr__(self, "density_steps", steps if self.density_steps is None else self.density_steps)
        object.__setattr__(self, "density_width", self.density_width or width)

    def _check_abilities(self) -> None:
        """Raise UsageError where a model of this kind cannot have what is asked of it."""
        if self.noise_aware and not (self.images and self.kind in ("manifold-flow", "encoder-flow")):
            raise UsageError("noise_aware (a range of noise) is true only for an M-flow or Me-flow of images")
        if self.sharp and not (self.images and self.kind == "manifold-flow" and not self.context):
            raise UsageError("sharp is true only for an M-flow of images without parameters")

    @property
    def images(self) -> bool:
        """Whether the data are images."""
        return len(self.shape) == 3

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of images, (C, H, W)."""
        return self.shape[0], self.shape[1], self.shape[2]


def _check_classes(classes: object) -> None:
    """Raise UsageError unless classes are none, or from two names on that differ."""
    names = classes if isinstance(classes, tuple) and all(isinstance(one, str) for one in classes) else ("",)
    if "" in names or len(set(names)) < len(names) or not (names == () or 2 <= len(names) <= MOST_CLASSES):
        raise UsageError(f"classes must be 2 … {MOST_CLASSES:,} names that differ, not {classes!r:.80}")
