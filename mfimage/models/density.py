"""The density h on manifold coordinates: a small flow of nflows' parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform as Splines
from nflows.transforms import PiecewiseRationalQuadraticCouplingTransform as SplineCoupling
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.duals import Dual, by_jvp, push
from mfimage.models.layers import ActNorm, CompositeTransform, Transform, Value, start
from mfimage.modes import plainly

_LEAST = 1e-3  # that the diagonal of U holds


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
        return self.transform.inverse(noise, context)[0]

    @plainly
    @torch.no_grad()
    def push(self, u: Dual) -> Dual:
        """Push codes and their tangents to noise, z = h(u), of a density without parameters."""
        return _push(self.transform, u)

    @property
    def transform(self) -> Transform:
        return self._transform

    def initialise(self, codes: Tensor) -> None:
        """Start from codes (N, d): the ActNorm in front gives them zero mean and unit variance."""
        start(self.transform, codes)


def latent_density(
    dim: int, steps: int = 5, width: int = 128, bins: int = 4, tail_bound: float = 5.0, context: int = 0
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
            mask = [int(i % 2 == step % 2) for i in range(dim)]  # 1 where the spline moves
            layers += [LULinear(dim), SplineCoupling(mask, conditioner, **bounds)]
    return Density(CompositeTransform([*layers, LULinear(dim)]), dim, context)


class LULinear(Transform):
    """y = L U x + b, L lower triangular with ones, U upper with the diagonal softplus(s) + 10⁻³.

    ladj = Σ log U_ii. It starts as the identity. Of nflows' own this has the names of parameters; that one
    inverts by a call that torch will remove.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        entries = features * (features - 1) // 2
        self.bias = nn.Parameter(torch.zeros(features))
        self.lower_entries = nn.Parameter(torch.zeros(entries))
        self.upper_entries = nn.Parameter(torch.zeros(entries))
        self.unconstrained_upper_diag = nn.Parameter(
            nn.init.constant_(torch.empty(features), math.log(math.expm1(1 - _LEAST)))
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        lower, upper, diagonal = self._factors()
        return F.linear(F.linear(x, upper), lower, self.bias), diagonal.log().sum().expand(len(x))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        lower, upper, diagonal = self._factors()
        rows = torch.linalg.solve_triangular(lower, (x - self.bias).T, upper=False, unitriangular=True)
        rows = torch.linalg.solve_triangular(upper, rows, upper=True)
        return rows.T, -diagonal.log().sum().expand(len(x))

    def turn(self, x: Tensor) -> Tensor:
        """L U x for every row, without the offset."""
        lower, upper, _ = self._factors()
        return F.linear(F.linear(x, upper), lower)

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """L, U, and U's diagonal."""
        n, device = len(self.bias), self.bias.device
        diagonal = F.softplus(self.unconstrained_upper_diag) + _LEAST
        below, above = torch.tril_indices(n, n, -1, device=device), torch.triu_indices(n, n, 1, device=device)
        lower = torch.eye(n, dtype=self.bias.dtype, device=device)
        lower = lower.index_put((below[0], below[1]), self.lower_entries)
        upper = torch.diag(diagonal).index_put((above[0], above[1]), self.upper_entries)
        return lower, upper, diagonal


def _push(transform: Transform, x: Dual) -> Dual:
    """Push a dual number through a transform's forward direction."""
    rule = _RULES.get(type(transform))
    return rule(transform, x) if rule else by_jvp(lambda value: transform(value)[0], x)


def _push_composite(transform: CompositeTransform, x: Dual) -> Dual:
    for part in transform._transforms:
        x = _push(part, x)
    return x


def _push_coupling(coupling: SplineCoupling, x: Dual) -> Dual:
    """Push through y = spline(x_b; p), p = net(x_a):  ẏ = ∂y/∂x·ẋ_b + ∂y/∂p·ṗ, one call for all slopes.

    Each element of y sees its own of x_b and its own row of p alone.
    """
    kept, moved = coupling.identity_features, coupling.transform_features
    given = _push_net(coupling.transform_net, Dual(x.value[:, kept], x.tangent[:, :, kept]))
    old, shape = Dual(x.value[:, moved], x.tangent[:, :, moved]), (len(moved), -1)
    with torch.enable_grad():
        before, numbers = old.value.detach().requires_grad_(), given.value.detach().requires_grad_()
        after, _ = coupling._coupling_transform_forward(
            before, numbers.clone()
        )  # which changes them in place
        slope, steep = torch.autograd.grad(
            after.sum(), (before, numbers), allow_unused=True, materialize_grads=True
        )
    turned = (given.tangent * steep[:, None]).unflatten(2, shape).sum(3)
    value, tangent = x.value.clone(), x.tangent.clone()
    value[:, moved], tangent[:, :, moved] = after.detach(), old.tangent * slope[:, None] + turned
    return Dual(value, tangent)


def _push_net(net: ResidualNet, x: Dual) -> Dual:
    """Push through a residual network without parameters θ, as `latent_density` makes it."""
    relu = nn.ReLU()
    x = push(net.initial_layer, x)
    for block in net.blocks:
        first, second = block.linear_layers
        x = x.plus(push(second, push(relu, push(first, push(relu, x)))))
    return push(net.final_layer, x)


def _push_single(spline: Splines, x: Dual) -> Dual:
    """Push through a spline of one dimension, whose parameters do not depend on it."""
    with torch.enable_grad():
        before = x.value.detach().requires_grad_()
        after, _ = spline(before)
        (slope,) = torch.autograd.grad(after.sum(), before)
    return Dual(after.detach(), x.tangent * slope[:, None])


_RULES: dict[type, Callable[[Any, Dual], Dual]] = {
    CompositeTransform: _push_composite,
    ActNorm: lambda norm, x: Dual(norm(x.value)[0], x.tangent * torch.exp(-norm.log_scale)),
    LULinear: lambda linear, x: Dual(linear(x.value)[0], linear.turn(x.tangent)),
    SplineCoupling: _push_coupling,
    Splines: _push_single,
}


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
