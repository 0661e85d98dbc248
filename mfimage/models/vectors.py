"""The vector chart: a linear subspace bent by affine couplings with fully connected networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mfimage.errors import UsageError
from mfimage.models.charts import Chart
from mfimage.models.layers import Householder, Value
from mfimage.models.linear import principal_components
from mfimage.models.nets import MLP


class VectorChart(Chart):
    """A d-dimensional linear subspace of R^D, bent by affine couplings between it and its complement.

    (u, v) = Qᵀ(x − m),  then for each pair of networks
    u ← (u − t_a(v))·exp(−s_a(v)),  v ← (v − t_b(u))·exp(−s_b(u));  ladj = −Σ s_a − Σ s_b.

    After `initialise` and before training, { f(u, 0) } is exactly the PCA subspace. The scale s_a lets a
    subspace curl up: with u ← u/(1 + v) one pair is the stereographic projection of a sphere.

    Args:
        features: D.
        dim: d < D.
        hidden: Width of the networks.
        bends: Pairs of networks; 0 leaves the subspace straight.
        context: Length of the parameters θ that the networks see too, 0 for none.
        bound: Largest |s| = c of each, s = c·tanh(r/c). Far outside the data two pairs of networks at their
            bound can cost float32 all its digits.

    Reference:
        Dinh, Sohl-Dickstein, Bengio, Density estimation using Real NVP, 2016, arXiv 1605.08803 (the
        coupling); the split along principal components is that of `BentSubspace`.
    """

    code_scale: Tensor
    rest_scale: Tensor

    def __init__(
        self, features: int, dim: int, hidden: int = 128, bends: int = 1, context: int = 0, bound: float = 3.0
    ) -> None:
        super().__init__()
        self.features, self.dim, self.bound = features, dim, bound
        self.conditional = context > 0
        self.rotation = Householder(features, dim)
        rest = features - dim
        self.encoders = nn.ModuleList(MLP(rest + context, 2 * dim, hidden) for _ in range(bends))
        self.decoders = nn.ModuleList(MLP(dim + context, 2 * rest, hidden) for _ in range(bends))
        self.register_buffer("code_scale", torch.ones(dim))
        self.register_buffer("rest_scale", torch.ones(()))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start at the principal components of vectors (N, D), and measure the scales of u and v on them."""
        self.rotation.initialise(*principal_components(x, self.dim))
        z, _ = self.rotation(x)
        self.code_scale.copy_(z[:, : self.dim].std(0, unbiased=False).clamp_min(1e-6))
        self.rest_scale.copy_(z[:, self.dim :].square().mean().sqrt().clamp_min(1e-6))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Map vectors (B, D) to coordinates (u, v)."""
        u, v = self._split(x)
        ladj = x.new_zeros(x.shape[0])
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            log_scale, shift = self._see(encoder, v, context)
            u, ladj = (u - shift) * torch.exp(-log_scale), ladj - log_scale.sum(1)
            log_scale, shift = self._draw(decoder, u, context)
            v, ladj = (v - shift) * torch.exp(-log_scale), ladj - log_scale.sum(1)
        return torch.cat([u, v], 1), ladj

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map vectors (B, D) to u, shape (B, d), without the last network, which only v needs."""
        u, v = self._split(x)
        for i, encoder in enumerate(self.encoders):
            if i > 0:
                log_scale, shift = self._draw(self.decoders[i - 1], u, context)
                v = (v - shift) * torch.exp(-log_scale)
            log_scale, shift = self._see(encoder, v, context)
            u = (u - shift) * torch.exp(-log_scale)
        return u

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        """Map coordinates (u, v), shape (B, D), to vectors (B, D)."""
        u, v = z[:, : self.dim], z[:, self.dim :]
        ladj = z.new_zeros(z.shape[0])
        for encoder, decoder in zip(reversed(self.encoders), reversed(self.decoders), strict=True):
            log_scale, shift = self._draw(decoder, u, context)
            v, ladj = v * torch.exp(log_scale) + shift, ladj + log_scale.sum(1)
            log_scale, shift = self._see(encoder, v, context)
            u, ladj = u * torch.exp(log_scale) + shift, ladj + log_scale.sum(1)
        return self.rotation.inverse(torch.cat([u, v], 1))[0], ladj

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, _ = self.rotation(x)
        return z[:, : self.dim], z[:, self.dim :]

    def _see(self, encoder: nn.Module, v: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._affine(encoder, v / self.rest_scale, context)
        return log_scale, shift * self.code_scale

    def _draw(self, decoder: nn.Module, u: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._affine(decoder, u / self.code_scale, context)
        return log_scale, shift * self.rest_scale

    def _affine(self, net: nn.Module, given: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.conditional:
            given = torch.cat([given, self.parameters_of(context)], 1)
        raw, shift = net(given).chunk(2, 1)
        return self.bound * torch.tanh(raw / self.bound), shift

    @staticmethod
    def parameters_of(context: Tensor | None) -> Tensor:
        """Return θ; UsageError if it is missing."""
        if context is None:
            raise UsageError("this chart depends on parameters: give them as context")
        return context
