"""Charts of vectors: a bent linear subspace, the sphere, and any transform that is given."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mfimage.errors import UsageError
from mfimage.models.charts import Chart
from mfimage.models.duals import Dual, join, push
from mfimage.models.layers import Transform, Value
from mfimage.models.nets import MLP
from mfimage.models.subspace import Householder, principal_components


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

    >>> x = torch.randn(5, 3)
    >>> chart = VectorChart(3, 2)
    >>> z, ladj = chart(x)
    >>> torch.allclose(chart.inverse(z)[0], x, atol=1e-6)
    True
    """

    code_scale: Tensor
    rest_scale: Tensor

    def __init__(
        self, features: int, dim: int, hidden: int = 128, bends: int = 1, context: int = 0, bound: float = 3.0
    ) -> None:
        super().__init__()
        self.features, self.dim, self.bound, self.context_features = features, dim, bound, context
        self.rotation, rest = Householder(features, dim), features - dim
        self.register_buffer("code_scale", torch.ones(dim))
        self.register_buffer("rest_scale", torch.ones(()))
        self.encoders = nn.ModuleList(MLP(rest + context, 2 * dim, hidden) for _ in range(bends))
        self.decoders = nn.ModuleList(MLP(dim + context, 2 * rest, hidden) for _ in range(bends))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start at the principal components of x, shape (N, D), and measure the scales of u and v on it."""
        self.rotation.initialise(*principal_components(x, self.dim))
        z, _ = self.rotation(x)
        self.code_scale.copy_(z[:, : self.dim].std(0, unbiased=False).clamp_min(1e-6))
        self.rest_scale.copy_(z[:, self.dim :].square().mean().sqrt().clamp_min(1e-6))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        u, v, ladj = self._bend(x, context, len(self.decoders))
        return torch.cat([u, v], 1), ladj

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self._bend(x, context, len(self.decoders) - 1)[0]  # only v needs the last decoder

    def _bend(self, x: Tensor, context: Tensor | None, decoders: int) -> tuple[Tensor, Tensor, Tensor]:
        """Run all encoders, and as many decoders as are asked for: u, v and ladj."""
        z, ladj = self.rotation(x)
        u, v = z[:, : self.dim], z[:, self.dim :]
        for i, (encoder, decoder) in enumerate(zip(self.encoders, self.decoders, strict=True)):
            log_scale, shift = self._affine(encoder, v / self.rest_scale, context, self.code_scale)
            u, ladj = (u - shift) * torch.exp(-log_scale), ladj - log_scale.sum(1)
            if i < decoders:
                log_scale, shift = self._affine(decoder, u / self.code_scale, context, self.rest_scale)
                v, ladj = (v - shift) * torch.exp(-log_scale), ladj - log_scale.sum(1)
        return u, v, ladj

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        u, v = z[:, : self.dim], z[:, self.dim :]
        ladj = z.new_zeros(z.shape[0])
        for encoder, decoder in zip(reversed(self.encoders), reversed(self.decoders), strict=True):
            log_scale, shift = self._affine(decoder, u / self.code_scale, context, self.rest_scale)
            v, ladj = v * torch.exp(log_scale) + shift, ladj + log_scale.sum(1)
            log_scale, shift = self._affine(encoder, v / self.rest_scale, context, self.code_scale)
            u, ladj = u * torch.exp(log_scale) + shift, ladj + log_scale.sum(1)
        return self.rotation.inverse(torch.cat([u, v], 1))[0], ladj

    def push_codes(self, u: Dual, context: Tensor | None = None, rotated: bool = False) -> Dual:
        batch, directions = u.tangent.shape[:2]
        rest = self.features - self.dim
        v = Dual(u.value.new_zeros(batch, rest), u.value.new_zeros(batch, directions, rest))
        for encoder, decoder in zip(reversed(self.encoders), reversed(self.decoders), strict=True):
            v = self._push_affine(decoder, u.times(1 / self.code_scale), context, v, self.rest_scale)
            u = self._push_affine(encoder, v.times(1 / self.rest_scale), context, u, self.code_scale)
        return join(u, v) if rotated else self.rotation.push(join(u, v))

    def _push_affine(
        self, net: nn.Module, given: Dual, context: Tensor | None, x: Dual, unit: Tensor
    ) -> Dual:
        """Push through y = x·eˢ + unit·t, (s, t) = net(given, θ):  ẏ = ẋ·eˢ + unit·ṫ + x·eˢ·ṡ."""
        if self.context_features:
            theta = self._required(context)
            still = theta.new_zeros(*given.tangent.shape[:2], theta.shape[1])
            given = join(given, Dual(theta, still))
        raw = push(net, given)
        size = x.value.shape[1]
        bounded = torch.tanh(raw.value[:, :size] / self.bound)
        scaled = x.value * torch.exp(self.bound * bounded)
        tangent = x.tangent * torch.exp(self.bound * bounded)[:, None] + unit * raw.tangent[:, :, size:]
        tangent = tangent + raw.tangent[:, :, :size] * (scaled * (1 - bounded.square()))[:, None]
        return Dual(scaled + unit * raw.value[:, size:], tangent)

    def _affine(
        self, net: nn.Module, given: Tensor, context: Tensor | None, unit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The logarithm of the scale, and the shift in its unit."""
        if self.context_features:
            given = torch.cat([given, self._required(context)], 1)
        raw, shift = net(given).chunk(2, 1)
        return self.bound * torch.tanh(raw / self.bound), shift * unit

    @staticmethod
    def _required(context: Tensor | None) -> Tensor:
        if context is None:
            raise UsageError("this chart depends on parameters: give them as context")
        return context


class Prescribed(Chart):
    """Any transform as a chart, held as it is: its first d outputs are u, and its parameters are not trained.

    Args:
        transform: Data (B, …) to coordinates (B, D), with ladj.
        dim: d.
        features: D.
    """

    def __init__(self, transform: Transform, dim: int, features: int) -> None:
        super().__init__()
        self.transform, self.dim, self.features = transform.requires_grad_(False), dim, features

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        return self.transform(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        return self.transform.inverse(z, context)


class Spherical(Chart):
    """The n-sphere's spherical coordinates: R^(n+1) without the origin to (φ_0, …, φ_(n−1), r − 1).

    x_0 = r cos φ_0,  x_1 = r sin φ_0 cos φ_1,  …,  x_n = r sin φ_0 ⋯ sin φ_(n−1);
    ladj = −n log r − Σ_i (n − 1 − i) log|sin φ_i|.

    The polar angles lie in [0, π]; the azimuth, the last, in [c − π, c + π). A manifold flow counts one tuple
    of angles a point: what h puts outside these ranges is folded back by decode and missing from log_prob.

    Args:
        n: Dimension of the sphere; D = n + 1.
        centre: c, in radians: the azimuth jumps opposite to it.

    >>> Spherical(1).decode(torch.tensor([[0.0]]))
    tensor([[1., 0.]])
    """

    def __init__(self, n: int, centre: float = math.pi / 2) -> None:
        super().__init__()
        self.dim, self.features, self.centre = n, n + 1, centre

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        squares = x.square().flip(1).cumsum(1).flip(1)
        tails = squares[:, :-1].sqrt()  # ‖(x_i, …, x_n)‖, i < n: at the last, |x_n|, a root has no derivative
        polar = torch.atan2(tails[:, 1:], x[:, :-2])
        azimuth = torch.atan2(x[:, -1], x[:, -2])
        azimuth = torch.remainder(azimuth - self.centre + math.pi, 2 * math.pi) + self.centre - math.pi
        angles = torch.cat([polar, azimuth[:, None]], 1)
        r = tails[:, :1]
        return torch.cat([angles, r - 1], 1), -self._ladj(angles, r)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        angles, r = z[:, :-1], 1 + z[:, -1:]
        sines = torch.cat([torch.ones_like(r), torch.sin(angles).cumprod(1)], 1)
        cosines = torch.cat([torch.cos(angles), torch.ones_like(r)], 1)
        return r * sines * cosines, self._ladj(angles, r)

    def _ladj(self, angles: Tensor, r: Tensor) -> Tensor:
        powers = torch.arange(self.dim - 1, 0, -1, device=angles.device, dtype=angles.dtype)
        volume = (powers * torch.sin(angles[:, :-1]).abs().log()).sum(1)
        return self.dim * r[:, 0].abs().log() + volume
