"""A sharper drawing of the same codes, and what it is trained against."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.charts import Chart, ImageChart
from mfimage.models.duals import Dual, push
from mfimage.models.layers import Value, full_precision
from mfimage.modes import Making

if TYPE_CHECKING:
    from mfimage.models.flow import ManifoldFlow

NOT_SHARP = "this model did not learn to draw sharply: mfimage train --sharp makes one that does"
_SLOPE = 0.2  # of the rectifiers below 0


class SharpenedChart(Chart):
    """The chart of images, with a network that draws what its codes leave open: another manifold.

    x = M(w + (1 − P) A N(S P w)),  w = B(u, v)

    M and B are multiscale and bent subspace of the chart, A and S wavelets of images and back, P the
    projection onto the first principal components, to which the codes are bound. N draws outside of them
    only: codes and inverse are the chart's, whatever N is, which is 0 before training.

    Args:
        chart: Whose parts it shares.
        net: N, images (B, C, H, W) to images.
    """

    def __init__(self, chart: ImageChart, net: nn.Module) -> None:
        super().__init__()
        self.chart, self.net = chart, net
        self.dim, self.features = chart.dim, chart.features

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        w, ladj = self.chart.multiscale(x)
        z, more = self.chart.subspace(w - self._drawn(w))
        return z, ladj + more

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.chart.codes(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        w, ladj = self.chart.subspace.inverse(z)
        x, more = self.chart.multiscale.inverse(w + self._drawn(w))
        return x, ladj + more

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        w = self.chart.subspace.decode(u)
        return self.chart.multiscale.inverse(w + self._drawn(w))[0]

    def push_codes(self, u: Dual, context: Tensor | None = None, rotated: bool = False) -> Dual:
        w, wavelets = self.chart.subspace.push_codes(u), self.chart.multiscale.wavelets
        mean = self.chart.subspace.rotation.mean
        seen = Dual(self._within(w.value - mean) + mean, w.linear(self._within).tangent)
        drawn = push(self.net, seen.linear(wavelets.synthesis)).linear(wavelets.analysis)
        outside = drawn.plus(drawn.linear(self._within).times(-1.0))
        return self.chart.multiscale.push(w.plus(outside), rotated)

    def _within(self, w: Tensor) -> Tensor:
        """The part of vectors (B, D) in the span of the first principal components."""
        basis = self.chart.subspace.rotation.basis
        with full_precision(w):
            return w @ basis @ basis.T

    def _drawn(self, w: Tensor) -> Tensor:
        mean, wavelets = self.chart.subspace.rotation.mean, self.chart.multiscale.wavelets
        drawn = wavelets.analysis(self.net(wavelets.synthesis(self._within(w - mean) + mean)).to(w))
        return drawn - self._within(drawn)


class Discriminator(nn.Module):
    """Tells images, (B, C, H, W) in [0, 1], from drawings: a logit each, (B,), above 0 for images.

    Strided 4 × 4 convolutions with leaky rectifiers down to about 4 × 4, and two more layers; weights as of
    He, Zhang, Ren, Sun, Delving deep into rectifiers, 2015, arXiv 1502.01852.
    """

    def __init__(self, shape: tuple[int, ...], channels: int = 32, most: int = 128) -> None:
        super().__init__()
        halvings = max(1, round(math.log2(min(shape[1:]) / 4)))
        widths = [shape[0], *(min(channels * 2**i, most) for i in range(halvings))]
        self.halving = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.last = nn.Conv2d(widths[-1], 48, 3, padding=1)
        self.out = nn.Linear(48 * math.prod(side >> halvings for side in shape[1:]), 1)
        for layer in (*self.halving, self.last):
            nn.init.kaiming_normal_(layer.weight, _SLOPE)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.out.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        x = 2 * x - 1
        for layer in (*self.halving, self.last):
            x = F.leaky_relu(layer(x), _SLOPE)
        return self.out(x.flatten(1))[:, 0]


class Contest(nn.Module):
    """A model's network that sharpens, and a new discriminator: what is trained together.

    Args:
        model: One that has such a network; its other parts stand still.
        seed: Of the discriminator's first weights.
    """

    def __init__(self, model: ManifoldFlow, seed: int = 0) -> None:
        super().__init__()
        self.sharpener = model.sharpener
        with Making(torch.Generator().manual_seed(seed)):
            self.discriminator = Discriminator(model.shape)
        self.discriminator.to(model.device)
        self._model = (model,)  # in a tuple, so that it is not a part of this

    @property
    def model(self) -> ManifoldFlow:
        """The model."""
        return self._model[0]
