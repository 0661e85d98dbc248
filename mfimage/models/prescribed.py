"""Charts that are given and not learned."""

from __future__ import annotations

import math

import torch
from nflows.transforms import Transform
from torch import Tensor

from mfimage.models.charts import Chart
from mfimage.models.layers import Value, invert


class Prescribed(Chart):
    """Any transform as a chart, held as it is: its first d outputs are u, and its parameters are not trained.

    Args:
        transform: Data (B, …) to coordinates (B, D), with ladj.
        dim: d.
        features: D.
    """

    def __init__(self, transform: Transform, dim: int, features: int) -> None:
        super().__init__()
        self.transform, self.dim, self.features = transform.requires_grad_(False), dim, features

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Map data to coordinates."""
        return self.transform(x, context)

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to u, shape (B, d)."""
        return self.transform(x, context)[0][:, : self.dim]

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        """Map coordinates to data."""
        return invert(self.transform, z, context)


class Spherical(Chart):
    """The n-sphere's spherical coordinates: R^(n+1) to (φ_0, …, φ_(n−1), r − 1).

    x_0 = r cos φ_0,  x_1 = r sin φ_0 cos φ_1,  …,  x_n = r sin φ_0 ⋯ sin φ_(n−1);
    ladj = −n log r − Σ_i (n − 1 − i) log|sin φ_i|.

    The polar angles lie in [0, π]; the azimuth, the last, in [c − π, c + π). A manifold flow counts one tuple
    of angles a point: what h puts outside these ranges is folded back by decode and missing from log_prob.

    Args:
        n: Dimension of the sphere; D = n + 1.
        centre: c, in radians: the azimuth jumps opposite to it.
    """

    def __init__(self, n: int, centre: float = math.pi / 2) -> None:
        super().__init__()
        self.dim, self.features, self.centre = n, n + 1, centre

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Map points (B, n + 1), not the origin, to angles and r − 1."""
        squares = x.square().flip(1).cumsum(1).flip(1)
        tails = squares[:, :-1].sqrt()  # ‖(x_i, …, x_n)‖, i < n: at the last, |x_n|, a root has no derivative
        polar = torch.atan2(tails[:, 1:], x[:, :-2])
        azimuth = torch.atan2(x[:, -1], x[:, -2])
        azimuth = torch.remainder(azimuth - self.centre + math.pi, 2 * math.pi) + self.centre - math.pi
        angles = torch.cat([polar, azimuth[:, None]], 1)
        r = tails[:, :1]
        return torch.cat([angles, r - 1], 1), -self._ladj(angles, r)

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map points to angles, shape (B, n)."""
        return self.forward(x)[0][:, :-1]

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        """Map angles and r − 1, shape (B, n + 1), to points."""
        angles, r = z[:, :-1], 1 + z[:, -1:]
        sines = torch.cat([torch.ones_like(r), torch.sin(angles).cumprod(1)], 1)
        cosines = torch.cat([torch.cos(angles), torch.ones_like(r)], 1)
        return r * sines * cosines, self._ladj(angles, r)

    def _ladj(self, angles: Tensor, r: Tensor) -> Tensor:
        powers = torch.arange(self.dim - 1, 0, -1, device=angles.device, dtype=angles.dtype)
        volume = (powers * torch.sin(angles[:, :-1]).abs().log()).sum(1)
        return self.dim * r[:, 0].abs().log() + volume
