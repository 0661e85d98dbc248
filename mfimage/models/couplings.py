"""Transforms that treat one part of the channels or features otherwise than the rest."""

from __future__ import annotations

import torch
from nflows.transforms import Transform
from torch import Tensor, nn

from mfimage.models.layers import Value, start


class AffineCoupling(Transform):
    """y_a = x_a,  y_b = x_b·exp(s(x_a)) + t(x_a);  ladj = Σ s.

    s is bounded smoothly, s = c·tanh(r/c), so that the inverse stays accurate in float32.

    Args:
        first: Size of the leading part x_a of dimension 1.
        net: (r, t), from the shape of x_a to twice the size of x_b in dimension 1. Where there is a context,
            it is given that too.
        bound: c > 0, in nats an element.

    Reference:
        Dinh, Sohl-Dickstein, Bengio, Density estimation using Real NVP, 2016, arXiv 1605.08803, eq. 4.
    """

    def __init__(self, first: int, net: nn.Module, bound: float = 1.0) -> None:
        super().__init__()
        self.first, self.net, self.bound = first, net, bound

    def _parameters_for(self, head: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        raw, shift = (self.net(head) if context is None else self.net(head, context)).chunk(2, 1)
        return self.bound * torch.tanh(raw / self.bound), shift

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Scale and shift the moving part."""
        head, tail = x[:, : self.first], x[:, self.first :]
        log_scale, shift = self._parameters_for(head, context)
        return torch.cat([head, tail * torch.exp(log_scale) + shift], 1), log_scale.flatten(1).sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Undo it."""
        head, tail = x[:, : self.first], x[:, self.first :]
        log_scale, shift = self._parameters_for(head, context)
        return torch.cat([head, (tail - shift) * torch.exp(-log_scale)], 1), -log_scale.flatten(1).sum(1)


class Parted(Transform):
    """y = (head(x_a), tail(x_b)): two transforms side by side on vectors; ladj is their sum.

    Args:
        first: Length of the leading part x_a.
        head: For x_a; the only one that is given the context.
        tail: For the rest.
    """

    def __init__(self, first: int, head: Transform, tail: Transform) -> None:
        super().__init__()
        self.first, self.head, self.tail = first, head, tail

    def initialise(self, x: Tensor) -> None:
        """Let both parts start from vectors (N, D)."""
        start(self.head, x[:, : self.first])
        start(self.tail, x[:, self.first :])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Map both parts of (B, D)."""
        head, ladj = self.head(x[:, : self.first], context)
        tail, step = self.tail(x[:, self.first :])
        return torch.cat([head, tail], 1), ladj + step

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Map both parts back."""
        head, ladj = self.head.inverse(x[:, : self.first], context)
        tail, step = self.tail.inverse(x[:, self.first :])
        return torch.cat([head, tail], 1), ladj + step
