"""The density h on manifold coordinates: a small flow of nflows' parts."""

from __future__ import annotations

from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    CompositeTransform,
    LULinear,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    PiecewiseRationalQuadraticCouplingTransform,
    Transform,
)
from nflows.utils import create_alternating_binary_mask
from torch import Tensor

from mfimage.models.layers import ActNorm, invert, start


class Density(Flow):
    """A flow on R^d: u ↦ z ~ N(0, I), whose samples are made from noise that the caller gives.

    Args:
        transform: Data to noise.
        dim: d.
    """

    def __init__(self, transform: Transform, dim: int) -> None:
        super().__init__(transform, StandardNormal([dim]))
        self.dim = dim

    def push_forward(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Turn base noise z, shape (B, d), into samples u, shape (B, d)."""
        return invert(self.transform, noise, context)[0]

    @property
    def transform(self) -> Transform:
        """Data to noise."""
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
        steps: Number of splines. Without any, h is a Gaussian, after `initialise` the best one without
            correlations.
        width: Hidden features of the residual conditioners.
        bins: Spline segments in [−tail_bound, tail_bound]; outside the map is the identity.
        tail_bound: In standard deviations of the codes.
        context: Length P of the parameters θ of a conditional density, 0 for none.

    Reference:
        Durkan, Bekasov, Murray, Papamakarios, Neural spline flows, 2019, arXiv 1906.04032.
    """

    def conditioner(inputs: int, outputs: int) -> ResidualNet:
        return ResidualNet(
            inputs, outputs, hidden_features=width, context_features=context or None, num_blocks=1
        )

    layers: list[Transform] = [ActNorm(dim)]
    for step in range(steps):
        if dim == 1:
            layers.append(
                MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                    1, width, context or None, bins, "linear", tail_bound, num_blocks=1
                )
            )
            continue
        layers += [
            LULinear(dim, identity_init=True),
            PiecewiseRationalQuadraticCouplingTransform(
                create_alternating_binary_mask(dim, even=step % 2 == 0),
                conditioner,
                num_bins=bins,
                tails="linear",
                tail_bound=tail_bound,
            ),
        ]
    return Density(CompositeTransform([*layers, LULinear(dim, identity_init=True)]), dim)
