"""The density h on manifold coordinates: a small flow of nflows' parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms import (
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    PiecewiseRationalQuadraticCouplingTransform,
)
from nflows.transforms.made import MADE, MaskedLinear
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.duals import Dual, by_jvp, push
from mfimage.models.layers import ActNorm, CompositeTransform, Transform, Value, start
from mfimage.models.linear import LULinear
from mfimage.models.splines import spline
from mfimage.modes import plainly


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
    dim: int,
    steps: int = 5,
    width: int = 128,
    bins: int = 4,
    tail_bound: float = 5.0,
    context: int = 0,
    autoregressive: bool = False,
) -> Density:
    """Build h: ActNorm, then [LU linear, rational-quadratic splines] × steps, and a last LU linear.

    The splines of a step are a coupling, of which half of the numbers move given the others, or, where h is
    autoregressive, each number moves given those before it: better for the time that it takes to learn, and
    d times slower to invert. The LU linear maps of an autoregressive h stand between its steps alone.

    Args:
        dim: d ≥ 1. A single dimension has nothing to couple: its splines' parameters depend on θ alone.
        steps: Number of layers of splines. Without any, h is a Gaussian, after `initialise` without
            correlations.
        width: Hidden features of the residual conditioners.
        bins: Spline segments in [−tail_bound, tail_bound]; outside the map is the identity.
        tail_bound: In standard deviations of the codes.
        context: Length P of the parameters θ of a conditional density, 0 for none.
        autoregressive: Whether the splines are; else they are couplings.

    Reference:
        Durkan, Bekasov, Murray, Papamakarios, Neural spline flows, 2019, arXiv 1906.04032.
    """
    layers: list[Transform] = [ActNorm(dim)]
    for step in range(steps):
        if autoregressive:
            layers += [LULinear(dim)] if step else []
            layers.append(AutoregressiveSplines(dim, width, 2, bins, tail_bound, context))
        elif dim == 1:
            layers.append(AutoregressiveSplines(1, width, 1, bins, tail_bound, context))
        else:
            layers += [LULinear(dim), _coupling(dim, step, width, bins, tail_bound, context)]
    last = [] if autoregressive and steps else [LULinear(dim)]
    return Density(CompositeTransform([*layers, *last]), dim, context)


def _coupling(dim: int, step: int, width: int, bins: int, tail_bound: float, context: int) -> SplineCoupling:
    """Move every other element, the even ones in odd steps."""

    def conditioner(inputs: int, outputs: int) -> ResidualNet:
        return ResidualNet(inputs, outputs, width, context or None, num_blocks=1)

    mask = [int(i % 2 == step % 2) for i in range(dim)]  # 1 where the spline moves
    return SplineCoupling(mask, conditioner, num_bins=bins, tails="linear", tail_bound=tail_bound)


class SplineCoupling(PiecewiseRationalQuadraticCouplingTransform):
    """nflows' coupling with our `spline`."""

    def _piecewise_cdf(self, inputs: Tensor, transform_params: Tensor, inverse: bool = False) -> Value:
        split, unit = 2 * self.num_bins, math.sqrt(self.transform_net.hidden_features)
        shares, slopes = transform_params[..., :split] / unit, transform_params[..., split:]
        return spline(inputs, torch.cat([shares, slopes], -1), self.tail_bound, inverse)


class AutoregressiveSplines(MaskedPiecewiseRationalQuadraticAutoregressiveTransform):
    """z_i = spline(u_i; numbers that a masked network makes of u_1 … u_(i−1) and θ).

    nflows' own inverts all d splines in each of d passes; here pass i inverts the i-th, by our `spline`.

    Args:
        dim: d.
        width: Hidden features of the network.
        blocks: Its residual blocks.
        bins: Spline segments in [−tail_bound, tail_bound]; outside the map is the identity.
        tail_bound: In units of u.
        context: Length of θ, 0 for none.

    Reference:
        Germain, Gregor, Murray, Larochelle, MADE, 2015, arXiv 1502.03509.
    """

    def __init__(
        self, dim: int, width: int, blocks: int, bins: int, tail_bound: float, context: int = 0
    ) -> None:
        shape = {"num_blocks": blocks, "num_bins": bins}
        super().__init__(dim, width, context or None, **shape, tails="linear", tail_bound=tail_bound)
        for layer in self.modules() if dim > 1 else ():  # files of a single dimension hold floats
            if isinstance(layer, MaskedLinear):
                layer.mask = layer.mask.bool()  # a quarter of the bytes

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        last, each = self.autoregressive_net.final_layer, self._output_dim_multiplier()
        weights, biases = (last.weight * last.mask).split(each), last.bias.split(each)
        found: list[Tensor] = []
        ladj = z.new_zeros(len(z))
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            u = torch.cat([*found, torch.zeros_like(z[:, i:])], 1)
            numbers = F.linear(self._hidden(u, context), weight, bias)
            u_i, ladj_i = self._elementwise_inverse(z[:, i : i + 1], numbers)
            found.append(u_i)
            ladj = ladj + ladj_i
        return torch.cat(found, 1), ladj

    def _elementwise(self, inputs: Tensor, autoregressive_params: Tensor, inverse: bool = False) -> Value:
        numbers = autoregressive_params.unflatten(1, (inputs.shape[1], -1))
        y, ladj = spline(inputs, numbers, self.tail_bound, inverse)
        return y, ladj.sum(1)

    def _hidden(self, u: Tensor, context: Tensor | None) -> Tensor:
        """What the last layer of the network is given."""
        net: MADE = self.autoregressive_net
        hidden = net.initial_layer(u)
        if context is not None:
            hidden = hidden + net.activation(net.context_layer(context))
        for block in net.blocks:
            hidden = block(hidden, context)
        return hidden


def _push(transform: Transform, x: Dual) -> Dual:
    """Push a dual number through a transform's forward direction."""
    rule = _RULES.get(type(transform))
    return rule(transform, x) if rule else by_jvp(lambda value: transform(value)[0], x)


def _push_composite(transform: CompositeTransform, x: Dual) -> Dual:
    for part in transform._transforms:
        x = _push(part, x)
    return x


def _push_coupling(coupling: SplineCoupling, x: Dual) -> Dual:
    """Push through y_b = spline(x_b; numbers of x_a)."""
    kept, moved = coupling.identity_features, coupling.transform_features
    given = _push_net(coupling.transform_net, Dual(x.value[:, kept], x.tangent[:, :, kept]))
    old = Dual(x.value[:, moved], x.tangent[:, :, moved])
    new = _push_splines(coupling._coupling_transform_forward, old, given)
    value, tangent = x.value.clone(), x.tangent.clone()
    value[:, moved], tangent[:, :, moved] = new.value, new.tangent
    return Dual(value, tangent)


def _push_autoregressive(splines: AutoregressiveSplines, x: Dual) -> Dual:
    """Push through y_i = spline(x_i; numbers of x_1 … x_(i−1))."""
    return _push_splines(splines._elementwise_forward, x, _push_net(splines.autoregressive_net, x))


def _push_splines(function: Callable[[Tensor, Tensor], Value], x: Dual, given: Dual) -> Dual:
    """Push through y = spline(x; p):  ẏ = ∂y/∂x·ẋ + ∂y/∂p·ṗ, one call for all slopes.

    Each element of y sees its own of x and its own row of p alone.
    """
    with torch.enable_grad():
        before, numbers = x.value.detach().requires_grad_(), given.value.detach().requires_grad_()
        after, _ = function(before, numbers)
        slope, steep = torch.autograd.grad(
            after.sum(), (before, numbers), allow_unused=True, materialize_grads=True
        )
    turned = (given.tangent * steep[:, None]).unflatten(2, (x.value.shape[1], -1)).sum(3)
    return Dual(after.detach(), x.tangent * slope[:, None] + turned)


def _push_net(net: ResidualNet | MADE, x: Dual) -> Dual:
    """Push through a residual network without parameters θ, as `latent_density` makes it."""
    relu = nn.ReLU()
    x = _push_linear(net.initial_layer, x)
    for block in net.blocks:
        first, second = block.linear_layers
        x = x.plus(_push_linear(second, push(relu, _push_linear(first, push(relu, x)))))
    return _push_linear(net.final_layer, x)


def _push_linear(layer: nn.Linear, x: Dual) -> Dual:
    weight = layer.weight * layer.mask if isinstance(layer, MaskedLinear) else layer.weight
    return Dual(layer(x.value), F.linear(x.tangent, weight))


_RULES: dict[type, Callable[[Any, Dual], Dual]] = {
    CompositeTransform: _push_composite,
    ActNorm: lambda norm, x: Dual(norm(x.value)[0], x.tangent * torch.exp(-norm.log_scale)),
    LULinear: lambda linear, x: Dual(linear(x.value)[0], linear.turn(x.tangent)),
    SplineCoupling: _push_coupling,
    AutoregressiveSplines: _push_autoregressive,
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
