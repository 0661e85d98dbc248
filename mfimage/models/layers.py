"""Bijections with nflows' interface: forward maps data towards coordinates, inverse maps back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from nflows.transforms import CompositeTransform, Transform
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.duals import Dual, by_jvp, join, push

Value = tuple[Tensor, Tensor]  # the mapped batch, and log|det| of the direction called, shape (B,)


def full_precision(x: Tensor) -> torch.autocast:
    """Shield from mixed precision what must be inverted or summed exactly; networks need no such care."""
    return torch.autocast(x.device.type, enabled=False)


def invert(transform: Transform, x: Tensor, context: Tensor | None = None) -> Value:
    """Invert a transform that may hold nflows' LU linear map, without the warning that this gives."""
    with warnings.catch_warnings():  # nflows 0.14 calls what torch will remove after the bound we set
        warnings.filterwarnings("ignore", message="torch.triangular_solve is deprecated")
        return transform.inverse(x, context)


def push_inverse(transform: Any, z: Dual, rotated: bool = False) -> Dual:
    """Push a dual number through the inverse of a transform, by its method `push` or torch's forward mode.

    Where the result may be `rotated`, the isometries that the inverse of a composite ends with are spared.
    """
    if isinstance(transform, CompositeTransform):
        parts = list(transform._transforms)
        while rotated and parts and isinstance(parts[0], Haar | OrthogonalConv1x1):
            parts.pop(0)
        for part in reversed(parts):
            z = push_inverse(part, z)
        return z
    if hasattr(transform, "push"):
        return transform.push(z)
    return by_jvp(lambda value: invert(transform, value)[0], z)


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


class Haar(Transform):
    """One orthonormal Haar wavelet step: (B, C, H, W) to (B, 4C, H/2, W/2), averages of all channels first.

    Each 2 × 2 block (a b; c d) becomes ½(a+b+c+d), ½(a−b+c−d), ½(a+b−c−d), ½(a−b−c+d); ladj = 0.
    Ardizzone et al., Guided image generation with conditional INNs, 2019, arXiv 1907.02392.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        if x.shape[-1] % 2 or x.shape[-2] % 2:
            raise ValueError(f"Haar needs an even height and width, got {tuple(x.shape[-2:])}")
        blocks = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))
        return torch.cat(_butterfly(*blocks.unbind(2)), 1), x.new_zeros(len(x))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        return self._synthesise(x), x.new_zeros(len(x))

    def push(self, z: Dual) -> Dual:
        return z.linear(self._synthesise)

    @staticmethod
    def _synthesise(x: Tensor) -> Tensor:
        blocks = torch.stack(_butterfly(*x.chunk(4, 1)), 2)  # the butterfly is its own inverse
        return F.pixel_shuffle(blocks.flatten(1, 2), 2)


def _butterfly(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> list[Tensor]:
    ab, cd, a_b, c_d = (a + b) / 2, (c + d) / 2, (a - b) / 2, (c - d) / 2
    return [ab + cd, a_b + c_d, ab - cd, a_b - c_d]


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


class OrthogonalConv1x1(Transform):
    """Mix channels by an orthogonal matrix: y = Q x at every pixel, Q = P·exp(A − Aᵀ), P a fixed permutation.

    ladj = 0, and the inverse is the transpose: no matrix is ever inverted. Hoogeboom, van den Berg, Welling,
    Emerging convolutions for generative normalizing flows, 2019, arXiv 1901.11137, §4.
    """

    permutation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skew = nn.Parameter(torch.zeros(channels, channels))
        self.register_buffer("permutation", torch.randperm(channels))

    def undo(self, mixed: Sequence[OrthogonalConv1x1]) -> OrthogonalConv1x1:
        """Make this one start as the inverse of others in a row; return it."""
        order = torch.arange(len(self.permutation))
        for other in mixed:
            order = order[other.permutation]
        self.permutation.copy_(order.argsort())
        return self

    def matrix(self) -> Tensor:
        return torch.matrix_exp(self.skew - self.skew.T)[self.permutation]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        with full_precision(x):
            return F.conv2d(x, self.matrix()[:, :, None, None]), x.new_zeros(len(x))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        with full_precision(x):
            return F.conv2d(x, self.matrix().T[:, :, None, None]), x.new_zeros(len(x))

    def push(self, z: Dual) -> Dual:
        kernel = self.matrix().T[:, :, None, None]
        return z.linear(lambda x: F.conv2d(x, kernel))


class AffineCoupling(Transform):
    """y_a = x_a,  y_b = x_b·exp(s(x_a)) + t(x_a);  ladj = Σ s.

    s is bounded smoothly, s = c·tanh(r/c), so that the inverse stays accurate in float32. Dinh,
    Sohl-Dickstein, Bengio, Density estimation using Real NVP, 2016, arXiv 1605.08803, eq. 4.

    Args:
        first: Size of the leading part x_a of dimension 1.
        net: (r, t), from the shape of x_a to twice the size of x_b in dimension 1; given the context, if any.
        bound: c > 0, in nats an element.
    """

    def __init__(self, first: int, net: nn.Module, bound: float = 1.0) -> None:
        super().__init__()
        self.first, self.net, self.bound = first, net, bound

    def _parts(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x_a, x_b, s and t."""
        head, tail = x[:, : self.first], x[:, self.first :]
        raw, shift = (self.net(head) if context is None else self.net(head, context)).chunk(2, 1)
        return head, tail, self.bound * torch.tanh(raw / self.bound), shift

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        head, tail, log_scale, shift = self._parts(x, context)
        return torch.cat([head, tail * torch.exp(log_scale) + shift], 1), log_scale.flatten(1).sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        head, tail, log_scale, shift = self._parts(x, context)
        return torch.cat([head, (tail - shift) * torch.exp(-log_scale)], 1), -log_scale.flatten(1).sum(1)

    def push(self, z: Dual) -> Dual:
        """x_b = (y_b − t)/eˢ,  ẋ_b = (ẏ_b − ṫ)/eˢ − x_b·ṡ,  ṡ = (1 − (s/c)²)·ṙ."""
        head, tail = z.part(None, self.first), z.part(self.first, None)
        raw = push(self.net, head)
        size = tail.value.shape[1]
        bounded = torch.tanh(raw.value[:, :size] / self.bound)
        scale = torch.exp(-self.bound * bounded)
        x = (tail.value - raw.value[:, size:]) * scale
        moved = (tail.tangent - raw.tangent[:, :, size:]) * scale[:, None]
        moved = moved - raw.tangent[:, :, :size] * (x * (1 - bounded.square()))[:, None]
        return join(head, Dual(x, moved))
