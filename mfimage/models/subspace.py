"""Linear subspaces: principal components, and the rotation onto them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mfimage.errors import DataError
from mfimage.models.duals import Dual
from mfimage.models.layers import Transform, Value, full_precision

EXACT_FEATURES = 2048  # above it the covariance's eigenvectors, of cubic cost, give way to subspace iteration
PCA_FLOATS = 50_000_000  # numbers that the principal components are taken from: 200 MB


def pca_rows(count: int, features: int, dim: int) -> Tensor:
    """Choose vectors for d principal components: evenly over all, at most about `PCA_FLOATS` numbers."""
    most = min(count, max(PCA_FLOATS // features, 2 * dim + 32))
    return torch.linspace(0, count - 1, most, dtype=torch.float64).round().long()


@torch.no_grad()
def principal_components(
    rows: Tensor, dim: int, seed: int = 0, exact: int = EXACT_FEATURES, rounds: int = 8
) -> tuple[Tensor, Tensor]:
    """Find the best d-dimensional affine subspace for a set of vectors.

    Rows (N, D), N > d, give their mean, (D,), and orthonormal columns by falling variance, (D, d). Up to
    `exact` features by the eigenvectors of the float64 covariance; above, by so many rounds of subspace
    iteration from a random start, with a Rayleigh–Ritz step last. Halko, Martinsson, Tropp, Finding structure
    with randomness, 2009, arXiv 0909.4061.
    """
    count, features = rows.shape
    if not 1 <= dim <= min(count - 1, features):
        raise DataError(
            f"{count} images of {features} pixels cannot span {dim} principal components: "
            "give more images, or ask for fewer dimensions"
        )
    mean = rows.mean(0, dtype=torch.float64)
    basis = _exact(rows, mean, dim) if features <= exact else _iterated(rows, mean, dim, seed, rounds)
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


def _iterated(rows: Tensor, mean: Tensor, dim: int, seed: int, rounds: int) -> Tensor:
    """Orthogonal iteration on XᵀX without forming it; the centring is applied to the small factors."""
    shift = mean.to(rows)
    width = min(dim + 16, *rows.shape)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(rows.shape[1], width, generator=generator, dtype=torch.float32)
    basis = torch.linalg.qr(start.to(rows)).Q
    for _ in range(rounds):
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
    normalises gradients turns the subspace little, whatever D. One that is `fixed` has no parameters, and
    keeps what follows from V. Tomczak, Welling, Improving variational auto-encoders using Householder flow,
    2016, arXiv 1611.09630; Joffrain et al., Accumulating Householder transformations, revisited, 2006 (the
    form of T).
    """

    mean: Tensor
    vectors: Tensor

    def __init__(self, features: int, dim: int, fixed: bool = False) -> None:
        super().__init__()
        mean, vectors = torch.zeros(features), math.sqrt(features) / 4 * torch.eye(features, dim)
        self._kept: tuple[Tensor, int, Tensor, Tensor] | None = None
        if fixed:
            self.register_buffer("mean", mean)
            self.register_buffer("vectors", vectors)
        else:
            self.mean, self.vectors = nn.Parameter(mean), nn.Parameter(vectors)

    @torch.no_grad()
    def initialise(self, mean: Tensor, basis: Tensor) -> None:
        """Start at offset m, (D,), and orthonormal columns, (D, k ≤ d), up to signs; others complete them."""
        self.mean.copy_(mean)
        factors, _ = torch.geqrf(basis)
        unit = torch.eye(*self.vectors.shape, dtype=basis.dtype, device=basis.device)
        unit[:, : basis.shape[1]] += factors.tril(-1)
        self.vectors.copy_(math.sqrt(len(basis)) / 4 * unit)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._kept = None  # in inference mode V changes without a new version

    @property
    def basis(self) -> Tensor:
        """The first d columns of Q, orthonormal, shape (D, d)."""
        return self._derived()[1]

    def _derived(self) -> tuple[Tensor, Tensor]:
        """T, and the first d columns of Q; kept, if V is fixed, until V changes."""
        v = self.vectors
        if v.requires_grad or v.is_inference():
            return self._derive(v)
        kept = self._kept  # once: another thread may replace it
        if kept is None or kept[0] is not v or kept[1] != v._version:
            with torch.inference_mode(False), torch.no_grad():
                coefficients, basis = (t.to(v) for t in self._derive(v.double()))
            self._kept = kept = v, v._version, coefficients, basis
        return kept[2:]

    @staticmethod
    def _derive(vectors: Tensor) -> tuple[Tensor, Tensor]:
        gram = vectors.T @ vectors
        inverse = gram.triu(1) + torch.diag(gram.diagonal() / 2)
        identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        coefficients = torch.linalg.solve_triangular(inverse, identity, upper=True)
        unit = torch.eye(*vectors.shape, dtype=gram.dtype, device=gram.device)
        return coefficients, unit - vectors @ (coefficients @ vectors[: len(gram)].T)

    def turn(self, x: Tensor) -> Tensor:
        """Qᵀx for every row of (B, D)."""
        with full_precision(x):
            return x - (x @ self.vectors @ self._derived()[0]) @ self.vectors.T

    def back(self, x: Tensor) -> Tensor:
        """Q x for every row of (B, D)."""
        with full_precision(x):
            return x - (x @ self.vectors @ self._derived()[0].T) @ self.vectors.T

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        return self.turn(x - self.mean), x.new_zeros(x.shape[0])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        return self.back(x) + self.mean, x.new_zeros(x.shape[0])

    def push(self, z: Dual) -> Dual:
        return Dual(self.back(z.value) + self.mean, z.linear(self.back).tangent)
