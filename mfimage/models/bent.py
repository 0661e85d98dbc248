"""A linear subspace in principal coordinates, bent by networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.duals import Dual, join
from mfimage.models.layers import Transform, Value, full_precision, leading
from mfimage.models.pairs import DensePair
from mfimage.models.subspace import Householder, principal_components


class BentSubspace(Transform):
    """Additive couplings between a d-dimensional subspace and its orthogonal complement; ladj = 0.

    (u, v) = Qᵀ(c − m), the first d + K coordinates the principal components; then each pair
    u ← u − s·a(v₁/s),  v₁ ← v₁ − s·b(u/σ),   v₁ the next K coordinates after u

    The codes depend on what the subspace leaves out, and decoding restores it, exactly, whatever the networks
    are. These start at zero, so that training begins at the best linear manifold; Q stands still, since
    turning it overfits. Codes, and what they decode to, take the first d + K columns of Q alone. The additive
    coupling is that of Dinh, Krueger, Bengio, NICE: non-linear independent components estimation, 2014, arXiv
    1410.8516; its split along principal components is ours.

    Args:
        features: D.
        dim: d.
        dense: Pairs of one K.
    """

    dense: Any  # a list of DensePair

    def __init__(self, features: int, dim: int, dense: Sequence[DensePair] = ()) -> None:
        super().__init__()
        self.features, self.dim = features, dim
        self.rank = dim + (dense[0].near if dense else 0)
        self.rotation = Householder(features, self.rank, fixed=True)
        self.dense = nn.ModuleList(dense)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start at the principal components of x, shape (N, D), and measure the scales on it.

        Fewer vectors than d + K + 1 leave the last of the K directions arbitrary.
        """
        known = max(self.dim, min(self.rank, len(x) - 1))
        rounds = 8 if known < 3 * self.dim else 4  # with many more beside them the first d are exact sooner
        self.rotation.initialise(*principal_components(x, known, rounds=rounds))
        z, _ = self.rotation(x)
        for pair in self.dense:
            pair.measure(z[:, : self.dim], z[:, self.dim : self.rank])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        z, ladj = self.rotation(x)
        head = z[:, : self.rank]
        for pair in self.dense:
            head, _ = pair(head)
        return torch.cat([head, z[:, self.rank :]], 1), ladj

    def codes(self, x: Tensor) -> Tensor:
        """Map vectors (B, D) to u, (B, d), without the last decoder, which only v needs."""
        return self._head_codes(_times(x - self.rotation.mean, self.rotation.basis))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        head = self._straighten(z[:, : self.rank])
        return self.rotation.inverse(torch.cat([head, z[:, self.rank :]], 1))

    def decode(self, u: Tensor) -> Tensor:
        """Map codes u, shape (B, d), to the vector of (u, 0), shape (B, D)."""
        head = self._straighten(F.pad(u, (0, self.rank - self.dim)))
        return _times(head, self.rotation.basis.T) + self.rotation.mean

    def beside(self, u: Tensor, w: Tensor) -> Tensor:
        """Map codes u, (B, d), and vectors w, (B, D), to the vector of (u, [Qᵀw]_v)."""
        q = _times(w, self.rotation.basis)
        head = self._straighten(torch.cat([u, q[:, self.dim :]], 1))
        return w + _times(head - q, self.rotation.basis.T) + self.rotation.mean

    def push_beside(self, u: Dual, w: Dual) -> Dual:
        """Push through `beside`."""
        basis = self.rotation.basis
        q = w.both(lambda x: x @ basis)
        head = self._push(join(u, q.part(self.dim, None)))
        moved = w.plus(head.plus(q.times(-1.0)).both(lambda x: x @ basis.T))
        return Dual(moved.value + self.rotation.mean, moved.tangent)

    def push_codes(self, u: Dual, rotated: bool = False) -> Dual:
        """Push codes u, shape (B, d), through `decode`; with `rotated`, a rotation of R^D may be left out."""
        head = self._push(u.both(lambda x: F.pad(x, (0, self.rank - self.dim))))
        basis, mean = self.rotation.basis, self.rotation.mean
        return head if rotated else Dual(head.value @ basis.T + mean, head.tangent @ basis.T)

    def squared_error(self, x: Tensor) -> Tensor:
        """‖x − decode(codes(x))‖² of vectors, (B,)."""
        return self.head_error(self.heads(x))

    def heads(self, x: Tensor) -> Tensor:
        """Map vectors (B, D) to what the pairs see, (B, d + K + 1): q = Uᵀ(x − m), ‖x − m‖² − ‖q‖²."""
        centred = x - self.rotation.mean
        q = _times(centred, self.rotation.basis)
        return torch.cat([q, centred.square().sum(1, True) - q.square().sum(1, True)], 1)

    def head_error(self, heads: Tensor, kept: Tensor | None = None) -> Tensor:
        """The squared error of vectors, (B,), of their heads: ‖x − m‖² − ‖q‖² + ‖q − q̂‖².

        `kept` tells how many of the first codes of each, (B,), q̂ is drawn from; all without it.
        """
        q, off = heads[:, :-1], heads[:, -1]
        codes = self._head_codes(q) if kept is None else leading(self._head_codes(q), kept)
        drawn = self._straighten(F.pad(codes, (0, self.rank - self.dim)))
        return off + (q - drawn).square().sum(1)

    def _head_codes(self, head: Tensor) -> Tensor:
        """The codes of d + K principal coordinates; v₁ of the last pair is not asked for."""
        for i, pair in enumerate(self.dense):
            head = pair(head)[0] if i < len(self.dense) - 1 else pair.codes(head)
        return head

    def _straighten(self, head: Tensor) -> Tensor:
        for pair in reversed(self.dense):
            head, _ = pair.inverse(head)
        return head

    def _push(self, head: Dual) -> Dual:
        for pair in reversed(self.dense):
            head = pair.push(head)
        return head


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    with full_precision(x):
        return x @ matrix
