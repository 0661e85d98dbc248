"""A sharper drawing of the same codes."""

from __future__ import annotations

from torch import Tensor, nn

from mfimage.models.charts import Chart, ImageChart
from mfimage.models.duals import Dual, push
from mfimage.models.layers import Value, full_precision

NOT_SHARP = "this model did not learn to draw sharply: mfimage train --sharp makes one that does"


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
