"""A linear subspace that couplings bend into a manifold."""

from __future__ import annotations

import math

import torch
from nflows.transforms import Transform
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.layers import Householder, Value
from mfimage.models.linear import principal_components
from mfimage.models.nets import Decoder, Encoder


class BentSubspace(Transform):
    """Additive couplings between a d-dimensional subspace and its orthogonal complement.

    (u, v) = Qᵀ(c − m),  then for each pair of networks
    u ← u − s·a(Q(0, v)/s)          the codes learn to see what the subspace leaves out,
    v ← v − s·[Qᵀ b(u/σ)]_v         and to draw it;  ladj = 0.

    Decoding (u, 0) runs b and then a: with one pair, c = m + Q(u + s·a(·), s·[Qᵀ b(u/σ)]_v), the principal
    components plus any smooth function of the codes. Both networks are convolutional: Q turns their side of
    the split into coefficients on the image grid and back. Each starts at zero and Q at the principal
    components, so training begins exactly at the best linear manifold.

    Args:
        features: D, length of the coefficient vectors c.
        dim: d.
        grid: (C, H, W) of the leading C·H·W ≤ D coefficients that the networks see and draw.
        width: Channels of the convolutions, in units (2, 4 and 8 times as many are used).
        hidden: Features of the fully connected layer.
        steps: Pairs of networks; 0 leaves the subspace straight.

    Reference:
        Dinh, Krueger, Bengio, NICE: non-linear independent components estimation, 2014, arXiv 1410.8516
        (the additive coupling); its split along principal components is ours.
    """

    code_scale: Tensor
    rest_scale: Tensor

    def __init__(
        self, features: int, dim: int, grid: tuple[int, int, int], width: int, hidden: int, steps: int
    ) -> None:
        super().__init__()
        self.features, self.dim, self.grid = features, dim, grid
        self.rotation = Householder(features, dim)
        self.encoders = nn.ModuleList(Encoder(grid, dim, width, hidden) for _ in range(steps))
        self.decoders = nn.ModuleList(Decoder(dim, grid, width, hidden) for _ in range(steps))
        self.register_buffer("code_scale", torch.ones(dim))
        self.register_buffer("rest_scale", torch.ones(()))

    @torch.no_grad()
    def initialise(self, vectors: Tensor) -> None:
        """Start at the principal components of vectors (N, D), and measure the scales σ and s on them."""
        self.rotation.initialise(*principal_components(vectors, self.dim))
        rotated, _ = self.rotation(vectors)
        self.code_scale.copy_(rotated[:, : self.dim].std(0, unbiased=False).clamp_min(1e-6))
        self.rest_scale.copy_(rotated[:, self.dim :].square().mean().sqrt().clamp_min(1e-6))

    def codes(self, c: Tensor) -> Tensor:
        """Map vectors (B, D) to u, shape (B, d), without the last drawing, which only v needs."""
        u, v = self._split(c)
        for i, encoder in enumerate(self.encoders):
            if i > 0:
                v = v - self._draw(self.decoders[i - 1], u)
            u = u - self._see(encoder, v)
        return u

    def forward(self, c: Tensor, context: Tensor | None = None) -> Value:
        """Map vectors (B, D) to coordinates (u, v)."""
        u, v = self._split(c)
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            u = u - self._see(encoder, v)
            v = v - self._draw(decoder, u)
        return torch.cat([u, v], 1), c.new_zeros(c.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        """Map coordinates (u, v), shape (B, D), to vectors (B, D)."""
        u, v = z[:, : self.dim], z[:, self.dim :]
        for encoder, decoder in zip(reversed(self.encoders), reversed(self.decoders), strict=True):
            v = v + self._draw(decoder, u)
            u = u + self._see(encoder, v)
        return self.rotation.inverse(torch.cat([u, v], 1))[0], z.new_zeros(z.shape[0])

    def _split(self, c: Tensor) -> tuple[Tensor, Tensor]:
        z, _ = self.rotation(c)
        return z[:, : self.dim], z[:, self.dim :]

    def _see(self, encoder: nn.Module, v: Tensor) -> Tensor:
        image = self.rotation.back(F.pad(v / self.rest_scale, (self.dim, 0)))
        return self.rest_scale * encoder(image[:, : math.prod(self.grid)].unflatten(1, self.grid)).to(v)

    def _draw(self, decoder: nn.Module, u: Tensor) -> Tensor:
        image = decoder(u / self.code_scale).flatten(1).to(u)
        vectors = F.pad(image, (0, self.features - image.shape[1]))
        return self.rest_scale * self.rotation.turn(vectors)[:, self.dim :]
