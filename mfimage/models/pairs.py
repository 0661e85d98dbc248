"""Pairs of networks between the codes of a subspace and the next principal coordinates."""

from __future__ import annotations

import torch
from torch import Tensor

from mfimage.models.duals import Dual, join, push
from mfimage.models.layers import Transform, Value
from mfimage.models.nets import MLP


class DensePair(Transform):
    """u ← u − s·a(v/s),  v ← v − s·b(u/σ) on (u, v), the d + K leading principal coordinates; ladj = 0.

    σ and s are units, measured on data.

    Args:
        dim: d.
        near: K.
        hidden: Features of the two hidden layers of a and of b.
        dropout: Rate at which b's are dropped in training; a's twice as often, at most at 0.8.
    """

    code_scale: Tensor
    rest_scale: Tensor

    def __init__(self, dim: int, near: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.near = dim, near
        self.encoder = MLP(near, dim, hidden, 2, min(2 * dropout, 0.8))
        self.decoder = MLP(dim, near, hidden, 2, dropout)
        self.register_buffer("code_scale", torch.ones(dim))
        self.register_buffer("rest_scale", torch.ones(()))

    @torch.no_grad()
    def measure(self, u: Tensor, v: Tensor) -> None:
        """Take σ, the deviation of each of u, (N, d), and s, the root mean square of v, (N, K)."""
        self.code_scale.copy_(u.std(0, unbiased=False).clamp_min(1e-6))
        self.rest_scale.copy_(v.square().mean().sqrt().clamp_min(1e-6))

    def codes(self, z: Tensor) -> Tensor:
        """Map (u, v) to the new u alone."""
        u, v = z[:, : self.dim], z[:, self.dim :]
        return u - self.rest_scale * self.encoder(v / self.rest_scale).to(u)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        u = self.codes(x)
        v = x[:, self.dim :] - self._drawn(u)
        return torch.cat([u, v], 1), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        u, v = z[:, : self.dim], z[:, self.dim :]
        v = v + self._drawn(u)
        u = u + self.rest_scale * self.encoder(v / self.rest_scale).to(u)
        return torch.cat([u, v], 1), z.new_zeros(z.shape[0])

    def push(self, z: Dual) -> Dual:
        u, v = z.part(None, self.dim), z.part(self.dim, None)
        v = v.plus(push(self.decoder, u.times(1 / self.code_scale)).times(self.rest_scale))
        seen = push(self.encoder, v.times(1 / self.rest_scale))
        return join(u.plus(seen.times(self.rest_scale)), v)

    def _drawn(self, u: Tensor) -> Tensor:
        return self.rest_scale * self.decoder(u / self.code_scale).to(u)
