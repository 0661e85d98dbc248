"""A linear subspace in principal coordinates, bent by networks on vectors and on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.duals import Dual, join, push
from mfimage.models.layers import Transform, Value, full_precision
from mfimage.models.nets import MLP, Decoder, Encoder
from mfimage.models.subspace import Householder, principal_components
from mfimage.models.wavelets import Wavelets


class _Pair(nn.Module):
    """Two networks between codes u and the rest v, in units σ and s that are measured on data."""

    code_scale: Tensor
    rest_scale: Tensor

    def __init__(self, encoder: nn.Module, decoder: nn.Module, dim: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.dim = encoder, decoder, dim
        self.register_buffer("code_scale", torch.ones(dim))
        self.register_buffer("rest_scale", torch.ones(()))

    @torch.no_grad()
    def measure(self, u: Tensor, v: Tensor) -> None:
        """Take σ, the deviation of each of u, (N, d), and s, the root mean square of v, (N, …)."""
        self.code_scale.copy_(u.std(0, unbiased=False).clamp_min(1e-6))
        self.rest_scale.copy_(v.square().mean().sqrt().clamp_min(1e-6))


class DensePair(_Pair, Transform):
    """u ← u − s·a(v/s),  v ← v − s·b(u/σ) on (u, v), the d + K leading principal coordinates; ladj = 0.

    Args:
        dim: d.
        near: K.
        hidden: Features of the two hidden layers of a and of b.
        dropout: Rate at which b's are dropped in training; a's twice as often, at most at 0.8.
    """

    def __init__(self, dim: int, near: int, hidden: int, dropout: float = 0.0) -> None:
        encoder = MLP(near, dim, hidden, 2, min(2 * dropout, 0.8))
        super().__init__(encoder, MLP(dim, near, hidden, 2, dropout), dim)
        self.near = near

    def codes(self, z: Tensor) -> Tensor:
        """Map (u, v) to the new u alone."""
        u, v = z[:, : self.dim], z[:, self.dim :]
        return u - self.rest_scale * self.encoder(v / self.rest_scale).to(u)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        u = self.codes(x)
        v = x[:, self.dim :] - self._drawn(u)
        return torch.cat([u, v], 1), x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        u, v = z[:, : self.dim], z[:, self.dim :]
        v = v + self._drawn(u)
        u = u + self.rest_scale * self.encoder(v / self.rest_scale).to(u)
        return torch.cat([u, v], 1), z.new_zeros(len(z))

    def push(self, z: Dual) -> Dual:
        u, v = z.part(None, self.dim), z.part(self.dim, None)
        v = v.plus(push(self.decoder, u.times(1 / self.code_scale)).times(self.rest_scale))
        seen = push(self.encoder, v.times(1 / self.rest_scale))
        return join(u.plus(seen.times(self.rest_scale)), v)

    def _drawn(self, u: Tensor) -> Tensor:
        return self.rest_scale * self.decoder(u / self.code_scale).to(u)


class DrawnPair(_Pair):
    """Networks that see and draw images at full size, for vectors of their wavelet coefficients.

    Arguments as of `Encoder` and `Decoder`; d, and the wavelets between images and vectors.
    """

    def __init__(self, wavelets: Wavelets, dim: int, channels: int, hidden: int, dropout: float) -> None:
        shape, halvings = wavelets.shape, len(wavelets.haar)
        decoder = Decoder(dim, shape, channels, halvings, hidden, dropout)
        super().__init__(Encoder(shape, dim, channels, halvings), decoder, dim)
        self.wavelets = wavelets

    def sees(self, w: Tensor) -> Tensor:
        """s·a(image of w/s): vectors (B, D) to (B, d)."""
        return self.rest_scale * self.encoder(self.wavelets.synthesis(w / self.rest_scale)).to(w)

    def draws(self, u: Tensor) -> Tensor:
        """s·(vector of b(u/σ)): codes (B, d) to (B, D)."""
        return self.rest_scale * self.wavelets.analysis(self.decoder(u / self.code_scale).to(u))

    def push_sees(self, w: Dual) -> Dual:
        """Push through `sees`."""
        image = w.times(1 / self.rest_scale).linear(self.wavelets.synthesis)
        return push(self.encoder, image).times(self.rest_scale)

    def push_draws(self, u: Dual) -> Dual:
        """Push through `draws`."""
        image = push(self.decoder, u.times(1 / self.code_scale))
        return image.linear(self.wavelets.analysis).times(self.rest_scale)


class BentSubspace(Transform):
    """Additive couplings between a d-dimensional subspace and its orthogonal complement; ladj = 0.

    (u, v) = Qᵀ(c − m), the first d + K coordinates the principal components; then, each if there is one,
    dense pairs   u ← u − s·a(v₁/s),  v₁ ← v₁ − s·b(u/σ),  v₁ the next K coordinates, and
    a drawn pair  u ← u − s·a(image of Q(0, v)/s),  v ← v − s·[Qᵀ vector of b(u/σ)]_v.

    The codes depend on what the subspace leaves out, and decoding restores it, exactly, whatever the networks
    are. These start at zero, so that training begins at the best linear manifold; Q stands still, since
    turning it overfits. Decoding never turns all of v: with U the first d + K columns of Q, w = Q(0, v) and
    q = Uᵀw, the couplings act on the d + K numbers (u, v₁) and on w. The additive coupling is that of Dinh,
    Krueger, Bengio, NICE: non-linear independent components estimation, 2014, arXiv 1410.8516; its split
    along principal components is ours.

    Args:
        features: D.
        dim: d.
        dense: Dense pairs of one K.
        drawn: The drawn pair.
    """

    dense: Any  # a list of DensePair

    def __init__(
        self, features: int, dim: int, dense: Sequence[DensePair] = (), drawn: DrawnPair | None = None
    ) -> None:
        super().__init__()
        self.features, self.dim = features, dim
        self.rank = dim + (dense[0].near if dense else 0)
        self.rotation = Householder(features, self.rank, fixed=True)
        self.dense, self.drawn = nn.ModuleList(dense), drawn

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
        if self.drawn is not None:
            self.drawn.measure(z[:, : self.dim], z[:, self.dim :])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        if self.drawn is None:
            z, ladj = self.rotation(x)
            return torch.cat([self._bend(z[:, : self.rank]), z[:, self.rank :]], 1), ladj
        u, w = self._seen(x)
        v = self.rotation.turn(w - self.drawn.draws(u))[:, self.dim :]
        return torch.cat([u, v], 1), x.new_zeros(len(x))

    def codes(self, x: Tensor) -> Tensor:
        """Map vectors (B, D) to u, (B, d), without the last decoder, which only v needs."""
        if self.drawn is not None:
            return self._seen(x)[0]
        return self._head_codes(_times(x - self.rotation.mean, self.rotation.basis))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        ladj = z.new_zeros(len(z))
        if self.drawn is None:
            whole = torch.cat([self._straighten(z[:, : self.rank]), z[:, self.rank :]], 1)
            return self.rotation.inverse(whole)[0], ladj
        u, v = z[:, : self.dim], z[:, self.dim :]
        return self._restored(u, self.rotation.back(F.pad(v, (self.dim, 0)))), ladj

    def decode(self, u: Tensor) -> Tensor:
        """Map codes u, shape (B, d), to the vector of (u, 0), shape (B, D)."""
        if self.drawn is not None:
            return self._restored(u, None)
        head = self._straighten(F.pad(u, (0, self.rank - self.dim)))
        return _times(head, self.rotation.basis.T) + self.rotation.mean

    def push_codes(self, u: Dual, rotated: bool = False) -> Dual:
        """Push codes u, shape (B, d), through `decode`; with `rotated`, a rotation of R^D may be left out."""
        basis, mean = self.rotation.basis, self.rotation.mean
        if self.drawn is None:
            head = u.both(lambda x: F.pad(x, (0, self.rank - self.dim)))
            for pair in reversed(self.dense):
                head = pair.push(head)
            return head if rotated else Dual(head.value @ basis.T + mean, head.tangent @ basis.T)
        w = self.drawn.push_draws(u)
        q = w.both(lambda x: x @ basis)
        off = q.part(None, self.dim).both(lambda x: x @ basis[:, : self.dim].T).times(-1.0)
        u = u.plus(self.drawn.push_sees(w.plus(off)))
        head = join(u, q.part(self.dim, None))
        for pair in reversed(self.dense):
            head = pair.push(head)
        c = w.plus(head.plus(q.times(-1.0)).both(lambda x: x @ basis.T))
        return Dual(c.value + mean, c.tangent)

    def squared_error(self, x: Tensor) -> Tensor:
        """‖x − decode(codes(x))‖² of vectors, (B,), where no pair draws: ‖x − m‖² − ‖q‖² + ‖q − q̂‖²."""
        centred = x - self.rotation.mean
        q = _times(centred, self.rotation.basis)
        head = self._straighten(F.pad(self._head_codes(q), (0, self.rank - self.dim)))
        off = centred.square().sum(1) - q.square().sum(1)
        return off + (q - head).square().sum(1)

    def _head_codes(self, head: Tensor) -> Tensor:
        """The codes of d + K principal coordinates that dense pairs alone bend."""
        for i, pair in enumerate(self.dense):
            head = pair(head)[0] if i < len(self.dense) - 1 else pair.codes(head)
        return head

    def _bend(self, head: Tensor) -> Tensor:
        for pair in self.dense:
            head, _ = pair(head)
        return head

    def _straighten(self, head: Tensor) -> Tensor:
        for pair in reversed(self.dense):
            head, _ = pair.inverse(head)
        return head

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The codes u, and w = Q(0, v) before the drawn pair's decoder."""
        basis, centred = self.rotation.basis, x - self.rotation.mean
        q = _times(centred, basis)
        head = self._bend(q)
        left = torch.cat([q[:, : self.dim], q[:, self.dim :] - head[:, self.dim :]], 1)
        w = centred - _times(left, basis.T)
        return head[:, : self.dim] - cast(DrawnPair, self.drawn).sees(w), w

    def _restored(self, u: Tensor, w: Tensor | None) -> Tensor:
        """The vector of (u, v), given w = Q(0, v), none if v = 0."""
        basis, drawn = self.rotation.basis, cast(DrawnPair, self.drawn)
        more = drawn.draws(u)
        w = more if w is None else w + more
        q = _times(w, basis)
        u = u + drawn.sees(w - _times(q[:, : self.dim], basis[:, : self.dim].T))
        head = self._straighten(torch.cat([u, q[:, self.dim :]], 1))
        return w + _times(head - q, basis.T) + self.rotation.mean


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    with full_precision(x):
        return x @ matrix
