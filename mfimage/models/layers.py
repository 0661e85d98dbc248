"""Bijections with nflows' interface: forward maps data towards coordinates, inverse maps back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nflows.transforms import CompositeTransform, Transform
from torch import Tensor, nn

from mfimage.models.duals import Dual, by_jvp, push

# The mapped batch, and log|det| of the direction called, shape (B,). Where models compute, B is x.shape[0]:
# of len(x) exported programs make a constant.
Value = tuple[Tensor, Tensor]


def full_precision(x: Tensor) -> torch.autocast:
    """Shield from mixed precision what must be inverted or summed exactly; networks need no such care."""
    return torch.autocast(x.device.type, enabled=False)


def leading(u: Tensor, kept: Tensor | int) -> Tensor:
    """Keep the first k of codes (B, d), k one for all or of each, (B,); the others become 0."""
    k = torch.as_tensor(kept, device=u.device).view(-1, 1)
    return u * (torch.arange(u.shape[1], device=u.device) < k)


def push_inverse(transform: Any, z: Dual) -> Dual:
    """Push a dual number through the inverse of a transform, by its method `push` or torch's forward mode."""
    if isinstance(transform, CompositeTransform):
        for part in reversed(list(transform._transforms)):
            z = push_inverse(part, z)
        return z
    if hasattr(transform, "push"):
        return transform.push(z)
    return by_jvp(lambda value: transform.inverse(value)[0], z)


def in_rows(
    function: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, context: Tensor | None, size: int = 256
) -> Tensor:
    """Apply a function of (x, θ) to many rows, `size` at a time."""
    parts = []
    for begin in range(0, max(1, len(x)), size):
        rows = slice(begin, begin + size)
        parts.append(function(x[rows], None if context is None else context[rows]))
    return torch.cat(parts)


@torch.no_grad()
def start(transform: Transform, x: Tensor, context: Tensor | None = None) -> None:
    """Start a transform, or each part of a composite, from the data that reach it."""
    if hasattr(transform, "initialise"):
        transform.initialise(x)
    elif isinstance(transform, CompositeTransform):
        parts = list(transform._transforms)
        while parts and not hasattr(parts[-1], "initialise"):
            parts.pop()
        for i, part in enumerate(parts):
            start(part, x, context)
            if i < len(parts) - 1:
                x = in_rows(lambda *rows, part=part: part(*rows)[0], x, context)


class ActNorm(Transform):
    """Affine map of each feature of (B, features) or (B, features, H, W): y = (x − m)·exp(−s).

    ladj of the forward direction is −P·Σ s, with P the number of pixels that share a feature. Kingma,
    Dhariwal, Glow: generative flow with invertible 1×1 convolutions, 2018, arXiv 1807.03039.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))

    @torch.no_grad()
    def initialise(self, x: Tensor, floor: float = 1e-6) -> None:
        """Give each feature zero mean and unit variance; a deviation below `floor` counts as that."""
        rows = x.transpose(0, 1).flatten(1)
        self.shift.copy_(rows.mean(1))
        self.log_scale.copy_(rows.std(1, unbiased=False).clamp_min(floor).log())

    def _parameters_for(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = (1, -1, *([1] * (x.dim() - 2)))
        ladj = self.log_scale.sum() * x[0, 0].numel()
        return self.shift.view(shape), self.log_scale.view(shape), ladj.expand(x.shape[0])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        shift, log_scale, ladj = self._parameters_for(x)
        return (x - shift) * torch.exp(-log_scale), -ladj

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        shift, log_scale, ladj = self._parameters_for(x)
        return x * torch.exp(log_scale) + shift, ladj


class AffineCoupling(Transform):
    """y = x·exp(s(c)) + t(c), with c, the context, the other part of what is coupled;  ladj = Σ s.

    s is bounded smoothly, s = tanh r nats, so that the inverse stays accurate in float32. Dinh,
    Sohl-Dickstein, Bengio, Density estimation using Real NVP, 2016, arXiv 1605.08803, eq. 4.

    Args:
        net: (r, t), from the shape of c to twice the size of x in dimension 1.
        mask: 1 where x has an element and 0 where there is none, which stays as it is; broadcast to x.
    """

    mask: Tensor | None

    def __init__(self, net: nn.Module, mask: Tensor | None = None) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mask", mask, persistent=False)

    def _affine(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute s and t."""
        raw, shift = self.net(context).chunk(2, 1)
        log_scale = torch.tanh(raw)
        return (log_scale, shift) if self.mask is None else (log_scale * self.mask, shift * self.mask)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        log_scale, shift = self._affine(context)
        return torch.addcmul(shift, x, torch.exp(log_scale)), log_scale.flatten(1).sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        log_scale, shift = self._affine(context)
        return (x - shift) * torch.exp(-log_scale), -log_scale.flatten(1).sum(1)

    def push(self, y: Dual, context: Dual) -> Dual:
        """Push through `inverse`: x = (y − t)/eˢ,  ẋ = (ẏ − ṫ)/eˢ − x·ṡ,  ṡ = (1 − s²)·ṙ."""
        raw = push(self.net, context)
        if (mask := self.mask) is not None:
            raw = raw.both(lambda value: value * torch.cat([mask, mask], -3))
        size = y.value.shape[1]
        bounded = torch.tanh(raw.value[:, :size])
        scale = torch.exp(-bounded)
        x = (y.value - raw.value[:, size:]) * scale
        moved = (y.tangent - raw.tangent[:, :, size:]) * scale[:, None]
        moved = moved - raw.tangent[:, :, :size] * (x * (1 - bounded.square()))[:, None]
        return Dual(x, moved)
