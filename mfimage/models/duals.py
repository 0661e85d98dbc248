"""Forward mode by hand: values and tangents pushed together through the decoders.

Generic forward mode recomputes what all directions share, and takes the derivative of each activation in
many passes over all of them. Here a layer's slope is computed once, from the value, and its linear part runs
once, as one batch of B·K rows. Whatever has no rule is pushed by `torch.func.jvp`, so everything can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from nflows.transforms import CompositeTransform
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn import functional as F

from mfimage.models.charts import ImageChart, Multiscale
from mfimage.models.couplings import AffineCoupling
from mfimage.models.encoders import Autoencoder, EncodedChart, LinearPlus
from mfimage.models.layers import Haar, OrthogonalConv1x1
from mfimage.models.nets import MLP, ConvNet, Decoder, Encoder, NoiseConvNet
from mfimage.models.subspace import BentSubspace
from mfimage.models.vectors import VectorChart


@dataclass(frozen=True)
class Dual:
    """A batch and its derivatives along K directions, each row with its own.

    Attributes:
        value: Shape (B, …).
        tangent: Shape (B, K, …).
    """

    value: Tensor
    tangent: Tensor

    def linear(self, function: Callable[[Tensor], Tensor]) -> Dual:
        """Apply a linear function of batches, without an offset."""
        pushed = function(self.tangent.flatten(0, 1))
        return Dual(function(self.value), pushed.unflatten(0, self.tangent.shape[:2]))

    def part(self, begin: int | None, end: int | None) -> Dual:
        """Take features, or channels, begin … end."""
        return Dual(self.value[:, begin:end], self.tangent[:, :, begin:end])

    def view(self, shape: tuple[int, ...]) -> Dual:
        """Give each row a shape."""
        return Dual(self.value.unflatten(1, shape), self.tangent.unflatten(2, shape))

    def times(self, factor: Tensor | float) -> Dual:
        """Multiply by what does not move."""
        return Dual(self.value * factor, self.tangent * factor)

    def plus(self, other: Dual) -> Dual:
        """Add another."""
        return Dual(self.value + other.value, self.tangent + other.tangent)


def join(first: Dual, second: Dual) -> Dual:
    """Put the features, or channels, of two beside each other."""
    return Dual(torch.cat([first.value, second.value], 1), torch.cat([first.tangent, second.tangent], 2))


def through(net: Any, x: Dual) -> Dual:
    """Push through a network (B, …) → (B, …) that treats each row on its own."""
    rule = NETS.get(type(net))
    return rule(net, x) if rule else by_jvp(net, x)


def back_through(transform: Any, z: Dual) -> Dual:
    """Push through the inverse of a transform."""
    rule = INVERSES.get(type(transform))
    return rule(transform, z) if rule else by_jvp(lambda value: transform.inverse(value)[0], z)


def decoded(manifold: Any, u: Dual, context: Tensor | None = None, turned: bool = False) -> Dual:
    """Push through the decoder of a manifold.

    Args:
        manifold: What has `decode`, as a chart or a pair of networks; or a function of u alone.
        u: Coordinates (B, d) and their tangents (B, K, d).
        context: θ, shape (B, P).
        turned: Whether the result may be rotated, which leaves all lengths and angles: spares the last
            wavelets where nothing is cropped after them.
    """
    if rule := DECODERS.get(type(manifold)):
        return rule(manifold, u, context, turned)
    if hasattr(manifold, "decode"):
        return by_jvp(lambda value: manifold.decode(value, context), u)
    return by_jvp(manifold, u)


def by_jvp(function: Callable[[Tensor], Tensor], x: Dual) -> Dual:
    """Push through any function that treats each row on its own, by forward-mode derivatives."""

    def along(direction: Tensor) -> Tensor:
        return jvp(function, (x.value,), (direction,))[1]

    return Dual(function(x.value), vmap(along, in_dims=1, out_dims=1)(x.tangent))


def _sequence(net: Any, x: Dual) -> Dual:
    for layer in net:
        x = through(layer, x)
    return x


def _conv(layer: nn.Conv2d, x: Dual) -> Dual:
    pushed = layer._conv_forward(x.tangent.flatten(0, 1), layer.weight, None)
    return Dual(layer(x.value), pushed.unflatten(0, x.tangent.shape[:2]))


def _silu(layer: nn.SiLU, x: Dual) -> Dual:
    gate = torch.sigmoid(x.value)
    slope = gate * (1 + x.value * (1 - gate))
    return Dual(x.value * gate, x.tangent * slope[:, None])


def _decoder(net: Decoder, u: Dual) -> Dual:
    image = through(net.layers, u)
    height, width = net.height, net.width_px
    return Dual(image.value[..., :height, :width], image.tangent[..., :height, :width])


def _linear_plus(net: LinearPlus, x: Dual) -> Dual:
    rows = Dual(x.value.flatten(1), x.tangent.flatten(2))
    scaled = Dual((rows.value - net.mean) / net.scale, rows.tangent / net.scale)
    bent = through(net.net, scaled.view(x.value.shape[1:]))
    flat = Dual(bent.value.flatten(1), bent.tangent.flatten(2))
    return through(net.linear, rows).plus(flat.times(net.out_scale))


NETS: dict[type, Callable[[Any, Dual], Dual]] = {
    nn.Sequential: _sequence,
    nn.Linear: lambda layer, x: Dual(layer(x.value), F.linear(x.tangent, layer.weight)),
    nn.Conv2d: _conv,
    nn.SiLU: _silu,
    nn.PixelShuffle: lambda layer, x: Dual(layer(x.value), layer(x.tangent)),
    nn.Flatten: lambda layer, x: Dual(x.value.flatten(1), x.tangent.flatten(2)),
    nn.Unflatten: lambda layer, x: x.view(layer.unflattened_size),
    ConvNet: lambda net, x: through(net.layers, x),
    NoiseConvNet: lambda net, x: through(net.layers, x),
    MLP: lambda net, x: through(net.layers, x),
    Encoder: lambda net, x: through(net.layers, x),
    Decoder: _decoder,
    LinearPlus: _linear_plus,
}


def _composite(transform: Any, z: Dual, turned: bool = False) -> Dual:
    parts = list(getattr(transform, "_transforms", [transform]))
    while turned and parts and isinstance(parts[0], Haar | OrthogonalConv1x1):
        parts.pop(0)  # an isometry, and the last of the inverse
    for part in reversed(parts):
        z = back_through(part, z)
    return z


def _unmix(mix: OrthogonalConv1x1, z: Dual) -> Dual:
    kernel = mix.matrix().T[:, :, None, None]
    return z.linear(lambda x: F.conv2d(x, kernel))


def _uncouple(coupling: AffineCoupling, z: Dual) -> Dual:
    """y_b = (x_b − t)/eˢ,  dy_b = (dx_b − dt)/eˢ − y_b·ds,  s = c·tanh(r/c),  ds = (1 − (s/c)²)·dr."""
    head, tail = z.part(None, coupling.first), z.part(coupling.first, None)
    raw = through(coupling.net, head)
    size, bound = tail.value.shape[1], coupling.bound
    bounded = torch.tanh(raw.value[:, :size] / bound)
    scale = torch.exp(-bound * bounded)
    y = (tail.value - raw.value[:, size:]) * scale
    moved = (tail.tangent - raw.tangent[:, :, size:]) * scale[:, None]
    moved = moved - raw.tangent[:, :, :size] * (y * (1 - bounded.square()))[:, None]
    return join(head, Dual(y, moved))


def _synthesise(multiscale: Multiscale, z: Dual, turned: bool = False) -> Dual:
    size = math.prod(multiscale.shapes[-1])
    image, rest = z.part(None, size).view(multiscale.shapes[-1]), z.part(size, None)
    for i in reversed(range(len(multiscale.levels))):
        level: Any = multiscale.levels[i]
        image = _composite(level, image, turned and i == 0)
        if i > 0:
            channels, height, width = multiscale.shapes[i - 1]
            detail = (channels - multiscale.keep[i - 1], height, width)
            size = math.prod(detail)
            image, rest = join(image, rest.part(None, size).view(detail)), rest.part(size, None)
    return image


INVERSES: dict[type, Callable[[Any, Dual], Dual]] = {
    CompositeTransform: _composite,
    Haar: lambda haar, z: z.linear(lambda x: haar.inverse(x)[0]),
    OrthogonalConv1x1: _unmix,
    AffineCoupling: _uncouple,
}


def _bent(subspace: BentSubspace, u: Dual) -> Dual:
    """(u, 0) through the inverse: with U the subspace's basis, w = v in R^D over s, c = m + U u + s·w.

    w ← w + (I − U Uᵀ) b(u/σ),  u ← u + s·a(w): rotations into and out of (u, v) are left out.
    """
    d, features, grid = subspace.dim, subspace.features, subspace.grid
    scale = subspace.rest_scale
    eye = torch.eye(d, features, dtype=u.value.dtype, device=u.value.device)
    basis = subspace.rotation.back(eye)  # Uᵀ
    w: Dual | None = None
    for encoder, decoder in zip(reversed(subspace.encoders), reversed(subspace.decoders), strict=True):
        image = through(decoder, u.times(1 / subspace.code_scale))
        drawn = Dual(image.value.flatten(1), image.tangent.flatten(2))
        size = drawn.value.shape[1]
        drawn = Dual(*(F.pad(x, (0, features - size)) for x in (drawn.value, drawn.tangent)))
        drawn = Dual(*(x - (x @ basis.T) @ basis for x in (drawn.value, drawn.tangent)))
        w = drawn if w is None else w.plus(drawn)
        u = u.plus(through(encoder, w.part(None, size).view(grid)).times(scale))
    c = Dual(u.value @ basis + subspace.rotation.mean, u.tangent @ basis)
    return c if w is None else c.plus(w.times(scale))


def _image_chart(chart: ImageChart, u: Dual, context: Tensor | None, turned: bool) -> Dual:
    image = _synthesise(chart.multiscale, _bent(chart.subspace, u), turned and not any(chart.pad))
    left, right, top, bottom = chart.pad
    height, width = image.value.shape[-2:]
    rows, columns = slice(top, height - bottom), slice(left, width - right)
    return Dual(image.value[..., rows, columns], image.tangent[..., rows, columns])


def _vector_chart(chart: VectorChart, u: Dual, context: Tensor | None, turned: bool) -> Dual:
    batch, directions = u.tangent.shape[:2]
    rest = chart.features - chart.dim
    v = Dual(u.value.new_zeros(batch, rest), u.value.new_zeros(batch, directions, rest))
    for encoder, decoder in zip(reversed(chart.encoders), reversed(chart.decoders), strict=True):
        v = _affine(chart, decoder, u.times(1 / chart.code_scale), context, v, chart.rest_scale)
        u = _affine(chart, encoder, v.times(1 / chart.rest_scale), context, u, chart.code_scale)
    z = join(u, v)
    if turned:
        return z
    return Dual(chart.rotation.inverse(z.value)[0], z.linear(chart.rotation.back).tangent)


def _affine(
    chart: VectorChart, net: nn.Module, given: Dual, context: Tensor | None, x: Dual, unit: Tensor
) -> Dual:
    """x·exp(s) + unit·t with (s, t) from a network of `given` and θ."""
    if chart.conditional:
        fixed = chart.parameters_of(context)
        still = fixed.new_zeros(*given.tangent.shape[:2], fixed.shape[1])
        given = join(given, Dual(fixed, still))
    raw = through(net, given)
    size = x.value.shape[1]
    bounded = torch.tanh(raw.value[:, :size] / chart.bound)
    scaled = x.value * torch.exp(chart.bound * bounded)
    tangent = x.tangent * torch.exp(chart.bound * bounded)[:, None] + unit * raw.tangent[:, :, size:]
    tangent = tangent + raw.tangent[:, :, :size] * (scaled * (1 - bounded.square()))[:, None]
    return Dual(scaled + unit * raw.value[:, size:], tangent)


def _autoencoder(pair: Autoencoder, u: Dual, context: Tensor | None, turned: bool) -> Dual:
    return through(pair.decoder, u).view(pair.shape)


DECODERS: dict[type, Callable[[Any, Dual, Tensor | None, bool], Dual]] = {
    ImageChart: _image_chart,
    VectorChart: _vector_chart,
    EncodedChart: lambda chart, u, context, turned: decoded(chart.chart, u, context, turned),
    Autoencoder: _autoencoder,
}
