"""Dual numbers: forward-mode derivatives along many directions, by hand where that is cheap.

f(x + ε·ẋ) = f(x) + ε·f′(x)·ẋ,  ε² = 0.

Generic forward mode recomputes for each direction what all of them share. Here a layer's slope is computed
once, from the value, and its linear part runs once, as one batch of B·K rows. A layer with such a rule has a
method `push`, a manifold `push_codes`; the rules of torch's layers stand below, and `torch.func.jvp` pushes
all else, one thread at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn import functional as F

FORWARD_MODE = threading.RLock()  # held where torch's forward mode runs: all threads share its levels


@dataclass(frozen=True)
class Dual:
    """A batch and its derivatives along K directions, each row with its own."""

    value: Tensor  # x, shape (B, …)
    tangent: Tensor  # ẋ, shape (B, K, …)

    def linear(self, function: Callable[[Tensor], Tensor]) -> Dual:
        """Apply a linear function of batches, without an offset."""
        pushed = function(self.tangent.flatten(0, 1))
        return Dual(function(self.value), pushed.unflatten(0, self.tangent.shape[:2]))

    def both(self, function: Callable[[Tensor], Tensor]) -> Dual:
        """Apply a linear function that acts on the last axes alone, however many are in front."""
        return Dual(function(self.value), function(self.tangent))

    def part(self, begin: int | None, end: int | None) -> Dual:
        """Take features, or channels, begin … end."""
        return Dual(self.value[:, begin:end], self.tangent[:, :, begin:end])

    def flat(self) -> Dual:
        """Make each row a vector."""
        return Dual(self.value.flatten(1), self.tangent.flatten(2))

    def view(self, shape: tuple[int, ...]) -> Dual:
        """Give each row, a vector, a shape."""
        return Dual(self.value.unflatten(1, shape), self.tangent.unflatten(2, shape))

    def times(self, factor: Tensor | float) -> Dual:
        return Dual(self.value * factor, self.tangent * factor)

    def plus(self, other: Dual) -> Dual:
        return Dual(self.value + other.value, self.tangent + other.tangent)


def join(first: Dual, second: Dual) -> Dual:
    """Concatenate the features, or channels, of two."""
    return Dual(torch.cat([first.value, second.value], 1), torch.cat([first.tangent, second.tangent], 2))


def push(net: Any, x: Dual) -> Dual:
    """Push a dual number through a network (B, …) → (B, …) that treats each row on its own."""
    if hasattr(net, "push"):
        return net.push(x)
    rule = RULES.get(type(net))
    return rule(net, x) if rule else by_jvp(net, x)


def by_jvp(function: Callable[[Tensor], Tensor], x: Dual) -> Dual:
    """Push through any function that treats each row on its own, by torch's forward mode."""
    along = vmap(lambda direction: jvp(function, (x.value,), (direction,))[1], in_dims=1, out_dims=1)
    value = function(x.value)
    with FORWARD_MODE:
        return Dual(value, along(x.tangent))


def _sequence(net: nn.Sequential, x: Dual) -> Dual:
    for layer in net:
        x = push(layer, x)
    return x


def _conv(layer: nn.Conv2d, x: Dual) -> Dual:
    pushed = layer._conv_forward(x.tangent.flatten(0, 1), layer.weight, None)
    return Dual(layer(x.value), pushed.unflatten(0, x.tangent.shape[:2]))


def _relu(layer: nn.ReLU, x: Dual) -> Dual:
    return Dual(x.value.clamp_min(0), x.tangent * (x.value > 0)[:, None])


def _silu(layer: nn.SiLU, x: Dual) -> Dual:
    gate = torch.sigmoid(x.value)
    slope = gate * (1 + x.value * (1 - gate))
    return Dual(x.value * gate, x.tangent * slope[:, None])


RULES: dict[type, Callable[[Any, Dual], Dual]] = {
    nn.Sequential: _sequence,
    nn.Linear: lambda layer, x: Dual(layer(x.value), F.linear(x.tangent, layer.weight)),
    nn.Conv2d: _conv,
    nn.ReLU: _relu,
    nn.SiLU: _silu,
    nn.PixelShuffle: lambda layer, x: x.both(layer),
    nn.Upsample: lambda layer, x: x.linear(layer),
    nn.Flatten: lambda layer, x: x.flat(),
    nn.Unflatten: lambda layer, x: x.view(layer.unflattened_size),
}
