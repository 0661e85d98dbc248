"""The density h on manifold coordinates: a small flow of nflows' parts."""

from __future__ import annotations

import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms import LULinear
from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform as Splines
from nflows.transforms import PiecewiseRationalQuadraticCouplingTransform as SplineCoupling
from nflows.utils import create_alternating_binary_mask
from torch import Tensor

from mfimage.models.layers import ActNorm, CompositeTransform, Transform, Value, invert, start


class Density(Flow):
    """A flow on R^d: u ↦ z ~ N(0, I), whose samples are made from noise that the caller gives.

    Args:
        transform: Data to noise.
        dim: d.
        context_features: Number of parameters θ that the transform takes.

    >>> h = latent_density(2)
    >>> h.log_prob(torch.zeros(5, 2)).shape, h.push_forward(torch.zeros(5, 2)).shape
    (torch.Size([5]), torch.Size([5, 2]))
    """

    def __init__(self, transform: Transform, dim: int, context_features: int = 0) -> None:
        super().__init__(transform, StandardNormal([dim]))
        self.dim, self.context_features = dim, context_features

    def push_forward(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Turn base noise z, shape (B, d), into samples u, shape (B, d)."""
        return invert(self.transform, noise, context)[0]

    @property
    def transform(self) -> Transform:
        return self._transform

    def initialise(self, codes: Tensor) -> None:
        """Start from codes (N, d): the ActNorm in front gives them zero mean and unit variance."""
        start(self.transform, codes)


def latent_density(
    dim: int, steps: int = 5, width: int = 128, bins: int = 8, tail_bound: float = 5.0, context: int = 0
) -> Density:
    """Build h: ActNorm, then [LU linear, rational-quadratic spline coupling] × steps, and a last LU linear.

    Args:
        dim: d ≥ 1. A single dimension has nothing to couple: its splines' parameters depend on θ alone.
        steps: Number of splines. Without any, h is a Gaussian, after `initialise` without correlations.
        width: Hidden features of the residual conditioners.
        bins: Spline segments in [−tail_bound, tail_bound]; outside the map is the identity.
        tail_bound: In standard deviations of the codes.
        context: Length P of the parameters θ of a conditional density, 0 for none.

    Reference:
        Durkan, Bekasov, Murray, Papamakarios, Neural spline flows, 2019, arXiv 1906.04032.
    """
    bounds = {"num_bins": bins, "tails": "linear", "tail_bound": tail_bound}

    def conditioner(inputs: int, outputs: int) -> ResidualNet:
        return ResidualNet(inputs, outputs, width, context or None, num_blocks=1)

    layers: list[Transform] = [ActNorm(dim)]
    for step in range(steps):
        if dim == 1:
            layers.append(Splines(1, width, context or None, num_blocks=1, **bounds))
        else:
            mask = create_alternating_binary_mask(dim, even=step % 2 == 0)
            layers += [LULinear(dim, identity_init=True), SplineCoupling(mask, conditioner, **bounds)]
    return Density(CompositeTransform([*layers, LULinear(dim, identity_init=True)]), dim, context)


class Parted(Transform):
    """y = (head(x_a, θ), tail(x_b)): two transforms side by side on vectors, x_a the `first` elements."""

    def __init__(self, first: int, head: Transform, tail: Transform) -> None:
        super().__init__()
        self.first, self.head, self.tail = first, head, tail

    def initialise(self, x: Tensor) -> None:
        start(self.head, x[:, : self.first])
        start(self.tail, x[:, self.first :])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        return _joined(self.head(x[:, : self.first], context), self.tail(x[:, self.first :]))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        return _joined(self.head.inverse(x[:, : self.first], context), self.tail.inverse(x[:, self.first :]))


def _joined(head: Value, tail: Value) -> Value:
    return torch.cat([head[0], tail[0]], 1), head[1] + tail[1]
