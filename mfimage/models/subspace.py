"""Linear subspaces: principal components, the rotation onto them, and couplings that bend them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.errors import DataError
from mfimage.models.duals import Dual, push
from mfimage.models.layers import Transform, Value, full_precision
from mfimage.models.nets import Decoder, Encoder

EXACT_FEATURES = 4096  # above it the covariance's eigenvectors, of cubic cost, give way to subspace iteration
PCA_FLOATS = 50_000_000  # numbers that the principal components are taken from: 200 MB


def pca_rows(count: int, features: int, dim: int) -> Tensor:
    """Choose vectors for d principal components: evenly over all, at most about `PCA_FLOATS` numbers."""
    most = min(count, max(PCA_FLOATS // features, 2 * dim + 32))
    return torch.linspace(0, count - 1, most, dtype=torch.float64).round().long()


@torch.no_grad()
def principal_components(
    rows: Tensor, dim: int, seed: int = 0, exact: int = EXACT_FEATURES
) -> tuple[Tensor, Tensor]:
    """Find the best d-dimensional affine subspace for a set of vectors.

    Rows (N, D), N > d, give their mean, (D,), and orthonormal columns by falling variance, (D, d). Up to
    `exact` features by the eigenvectors of the float64 covariance; above, by subspace iteration from a random
    start, with a Rayleigh–Ritz step last. Halko, Martinsson, Tropp, Finding structure with randomness, 2009,
    arXiv 0909.4061.
    """
    count, features = rows.shape
    if not 1 <= dim <= min(count - 1, features):
        raise DataError(
            f"{count} images of {features} pixels cannot span {dim} principal components: "
            "give more images or lower --dim"
        )
    mean = rows.mean(0, dtype=torch.float64)
    basis = _exact(rows, mean, dim) if features <= exact else _iterated(rows, mean, dim, seed)
    return mean.to(rows), basis.to(rows)


def _exact(rows: Tensor, mean: Tensor, dim: int) -> Tensor:
    from scipy.linalg import eigh

    total = rows.shape[1]
    covariance = torch.zeros(total, total, dtype=torch.float64, device=rows.device)
    for part in rows.split(1024):
        centred = part.double() - mean
        covariance += centred.T @ centred
    _, vectors = eigh(covariance.cpu().numpy(), subset_by_index=[total - dim, total - 1])
    return torch.from_numpy(vectors).flip(1)


def _iterated(rows: Tensor, mean: Tensor, dim: int, seed: int) -> Tensor:
    """Orthogonal iteration on XᵀX without forming it; the centring is applied to the small factors."""
    shift = mean.to(rows)
    width = min(dim + 16, *rows.shape)
    start = torch.randn(rows.shape[1], width, generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(start.to(rows)).Q
    for _ in range(8):
        codes = rows @ basis - shift @ basis
        basis = torch.linalg.qr(rows.T @ codes - torch.outer(shift, codes.sum(0))).Q
    codes = (rows @ basis - shift @ basis).double()
    rotation = torch.linalg.eigh(codes.T @ codes).eigenvectors.flip(1)[:, :dim]
    return basis.double() @ rotation


class Householder(Transform):
    """Rotate vectors so that a chosen d-dimensional subspace becomes the first d coordinates.

    y = Qᵀ(x − m),  Q = H₁…H_d = I − V T Vᵀ,  T⁻¹ = striu(VᵀV) + ½ diag(VᵀV);  ladj = 0.

    Q is orthogonal for every V with non-zero columns, and costs O(D·d) to apply. It depends on the columns'
    directions alone; their length, √D/4, makes the entries of order one, so that a step of an optimiser that
    normalises gradients turns the subspace little, whatever D. Tomczak, Welling, Improving variational
    auto-encoders using Householder flow, 2016, arXiv 1611.09630; Joffrain et al., Accumulating Householder
    transformations, revisited, 2006 (the form of T).
    """

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(features))
        self.vectors = nn.Parameter(math.sqrt(features) / 4 * torch.eye(features, dim))

    @torch.no_grad()
    def initialise(self, mean: Tensor, basis: Tensor) -> None:
        """Start at the subspace of offset m, (D,), and orthonormal columns, (D, d), up to their signs."""
        self.mean.copy_(mean)
        factors, _ = torch.geqrf(basis)
        unit = torch.eye(*basis.shape, dtype=basis.dtype, device=basis.device)
        self.vectors.copy_(math.sqrt(len(basis)) / 4 * (factors.tril(-1) + unit))

    def _coefficients(self) -> Tensor:
        gram = self.vectors.T @ self.vectors
        inverse = gram.triu(1) + torch.diag(gram.diagonal() / 2)
        identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return torch.linalg.solve_triangular(inverse, identity, upper=True)

    def turn(self, x: Tensor) -> Tensor:
        """Qᵀx for every row of (B, D)."""
        with full_precision(x):
            return x - (x @ self.vectors @ self._coefficients()) @ self.vectors.T

    def back(self, x: Tensor) -> Tensor:
        """Q x for every row of (B, D)."""
        with full_precision(x):
            return x - (x @ self.vectors @ self._coefficients().T) @ self.vectors.T

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        return self.turn(x - self.mean), x.new_zeros(len(x))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        return self.back(x) + self.mean, x.new_zeros(len(x))

    def push(self, z: Dual) -> Dual:
        return Dual(self.back(z.value) + self.mean, z.linear(self.back).tangent)


class Subspace(Transform):
    """A d-dimensional affine subspace of R^D, and its complement, (u, v) = Qᵀ(x − m), bent by networks.

    The i-th encoder, given v, changes u, and then the i-th decoder, given u, changes v.
    """

    code_scale: Tensor
    rest_scale: Tensor
    encoders: nn.ModuleList
    decoders: nn.ModuleList

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.features, self.dim = features, dim
        self.rotation = Householder(features, dim)
        self.register_buffer("code_scale", torch.ones(dim))
        self.register_buffer("rest_scale", torch.ones(()))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start at the principal components of x, shape (N, D), and measure the scales of u and v on it."""
        self.rotation.initialise(*principal_components(x, self.dim))
        u, v = self.split(x)
        self.code_scale.copy_(u.std(0, unbiased=False).clamp_min(1e-6))
        self.rest_scale.copy_(v.square().mean().sqrt().clamp_min(1e-6))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate vectors (B, D) to u, shape (B, d), and v, shape (B, D − d)."""
        z, _ = self.rotation(x)
        return z[:, : self.dim], z[:, self.dim :]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        u, v, ladj = self._bend(x, context, len(self.decoders))
        return torch.cat([u, v], 1), ladj

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map vectors (B, D) to u, shape (B, d), without the last decoder, which only v needs."""
        return self._bend(x, context, len(self.decoders) - 1)[0]

    def _bend(self, x: Tensor, context: Tensor | None, decoders: int) -> tuple[Tensor, Tensor, Tensor]:
        """Run all encoders, and as many decoders as are asked for: u, v and ladj."""
        raise NotImplementedError


class BentSubspace(Subspace):
    """Additive couplings between a d-dimensional subspace and its orthogonal complement.

    (u, v) = Qᵀ(c − m), then for each pair of networks, with σ and s the scales of u and v,
    u ← u − s·a(Q(0, v)/s)          the codes depend on what the subspace leaves out,
    v ← v − s·[Qᵀ b(u/σ)]_v         and decoding restores it;  ladj = 0.

    Decoding (u, 0) runs b and then a: with one pair, c = m + Q(u + s·a(·), s·[Qᵀ b(u/σ)]_v), the principal
    components plus any smooth function of the codes. Both networks are convolutional: Q turns their side of
    the split into coefficients on the image grid and back. Each starts at zero and Q at the principal
    components, so training begins exactly at the best linear manifold.

    The networks see and draw the leading C·H·W ≤ D coefficients, the `grid`. Their convolutions have 2, 4 and
    8 times `width` channels, their fully connected layers `hidden` features; no `steps` leave the subspace
    straight. The additive coupling is that of Dinh, Krueger, Bengio, NICE: non-linear independent components
    estimation, 2014, arXiv 1410.8516; its split along principal components is ours.
    """

    def __init__(
        self, features: int, dim: int, grid: tuple[int, int, int], width: int, hidden: int, steps: int
    ) -> None:
        super().__init__(features, dim)
        self.grid = grid
        self.encoders = nn.ModuleList(Encoder(grid, dim, width, hidden) for _ in range(steps))
        self.decoders = nn.ModuleList(Decoder(dim, grid, width, hidden) for _ in range(steps))

    def _bend(self, x: Tensor, context: Tensor | None, decoders: int) -> tuple[Tensor, Tensor, Tensor]:
        u, v = self.split(x)
        for i, (encoder, decoder) in enumerate(zip(self.encoders, self.decoders, strict=True)):
            u = u - self._code_shift(encoder, v)
            if i < decoders:
                v = v - self._rest_shift(decoder, u)
        return u, v, x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        u, v = z[:, : self.dim], z[:, self.dim :]
        for encoder, decoder in zip(reversed(self.encoders), reversed(self.decoders), strict=True):
            v = v + self._rest_shift(decoder, u)
            u = u + self._code_shift(encoder, v)
        return self.rotation.inverse(torch.cat([u, v], 1))[0], z.new_zeros(len(z))

    def push_codes(self, u: Dual) -> Dual:
        """Push codes u, shape (B, d), through the inverse of (u, 0).

        With U the first d columns of Q and w = Q(0, v)/s, rotations into and out of (u, v) can be left out:
        w ← w + (I − U Uᵀ) b(u/σ),  u ← u + s·a(w),  c = m + U u + s·w.
        """
        eye = torch.eye(self.dim, self.features, dtype=u.value.dtype, device=u.value.device)
        basis = self.rotation.back(eye)  # Uᵀ
        size = math.prod(self.grid)
        w: Dual | None = None
        for encoder, decoder in zip(reversed(self.encoders), reversed(self.decoders), strict=True):
            drawn = push(decoder, u.times(1 / self.code_scale)).flat()
            drawn = drawn.both(lambda x: F.pad(x, (0, self.features - size)))
            drawn = drawn.both(lambda x: x - (x @ basis.T) @ basis)
            w = drawn if w is None else w.plus(drawn)
            u = u.plus(push(encoder, w.part(None, size).view(self.grid)).times(self.rest_scale))
        c = Dual(u.value @ basis + self.rotation.mean, u.tangent @ basis)
        return c if w is None else c.plus(w.times(self.rest_scale))

    def _code_shift(self, encoder: nn.Module, v: Tensor) -> Tensor:
        image = self.rotation.back(F.pad(v / self.rest_scale, (self.dim, 0)))
        return self.rest_scale * encoder(image[:, : math.prod(self.grid)].unflatten(1, self.grid)).to(v)

    def _rest_shift(self, decoder: nn.Module, u: Tensor) -> Tensor:
        image = decoder(u / self.code_scale).flatten(1).to(u)
        vectors = F.pad(image, (0, self.features - image.shape[1]))
        return self.rest_scale * self.rotation.turn(vectors)[:, self.dim :]
