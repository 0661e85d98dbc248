"""A sharper drawing of the same codes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mfimage.models.charts import Chart, ImageChart, mean_residual
from mfimage.models.denoiser import UNet
from mfimage.models.duals import Dual, push
from mfimage.models.layers import Value

NOT_SHARP = "this model did not learn to draw sharply: mfimage train --sharp makes one that does"


class SharpenedChart(Chart):
    """The chart f of images, with a network N that draws what its codes leave open: another manifold.

    f_s(u, v) = f(u, v + g(u)),  g(u) = [Qᵀ A N(S w)]_v,  w the vector of (u, 0)

    A and S are wavelets of images and back, and Q the rotation of the bent subspace. The codes of f see of
    its own drawing nothing, so that they are those of f_s too, whatever N is, which is 0 before training;
    ladj is that of f.

    Args:
        chart: f, whose parts it shares.
        net: N, images (B, C, H, W) to images.
    """

    net: Any  # a SmoothUNet

    def __init__(self, chart: ImageChart, net: nn.Module) -> None:
        super().__init__()
        self.chart, self.net = chart, net
        self.dim, self.features = chart.dim, chart.features

    @torch.no_grad()
    def centre(self, x: Tensor) -> None:
        """Make residuals of images (N, C, H, W) about zero in the mean, as far as the codes leave it open.

        Of about 2,000 of them, and in two steps, since the subspace bends what is added.
        """
        x = x[:: max(1, len(x) // 2000)]
        for _ in range(2):
            self.net.offset += mean_residual(self, x)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        z, ladj = self.chart(x)
        u, v = z[:, : self.dim], z[:, self.dim :]
        return torch.cat([u, v - self._rest(u)], 1), ladj

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.chart.codes(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        u, v = z[:, : self.dim], z[:, self.dim :]
        return self.chart.inverse(torch.cat([u, v + self._rest(u)], 1))

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        return self.chart.multiscale.inverse(self.chart.subspace.beside(u, self._drawn(u)))[0]

    def push_codes(self, u: Dual, context: Tensor | None = None, rotated: bool = False) -> Dual:
        subspace, wavelets = self.chart.subspace, self.chart.multiscale.wavelets
        seen = subspace.push_codes(u).linear(wavelets.synthesis)
        drawn = push(self.net, seen).linear(wavelets.analysis)
        return self.chart.multiscale.push(subspace.push_beside(u, drawn), rotated)

    def _drawn(self, u: Tensor) -> Tensor:
        """A N(S w), (B, D)."""
        wavelets = self.chart.multiscale.wavelets
        return wavelets.analysis(self.net(wavelets.synthesis(self.chart.subspace.decode(u))).to(u))

    def _rest(self, u: Tensor) -> Tensor:
        return self.chart.subspace.rotation.turn(self._drawn(u))[:, self.dim :]


class SmoothUNet(UNet):
    """A U-Net that enlarges by interpolation, (B, C, H, W) to the same; it gives 0 before training.

    Transposed convolutions, of which they are in the place, draw a lattice, which stays where an image is
    smooth. Odena, Dumoulin, Olah, Deconvolution and checkerboard artifacts, 2016, Distill.

    Args:
        shape: C, H, W.
        widths: Channels at full size, half of it and so on.
    """

    offset: Tensor  # an image that is added to all

    def __init__(self, shape: tuple[int, ...], widths: Sequence[int]) -> None:
        super().__init__(shape[0], shape[0], widths)
        self.register_buffer("offset", torch.zeros(shape))
        self.doubling = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(coarse, fine, 1, bias=False), nn.Upsample(scale_factor=2, mode="bilinear")
            )
            for fine, coarse in pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.offset

    def push(self, x: Dual) -> Dual:
        drawn = super().push(x)
        return Dual(drawn.value + self.offset, drawn.tangent)
