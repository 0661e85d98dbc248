"""Image bijections with nflows' interface: forward maps data towards coordinates, inverse maps back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from nflows.transforms import CompositeTransform, Transform
from torch import Tensor, nn
from torch.nn import functional as F

Value = tuple[Tensor, Tensor]  # the mapped batch, and log|det| of the direction called, shape (B,)


def full_precision(x: Tensor) -> torch.autocast:
    """Shield from mixed precision what must be inverted or summed exactly; networks need no such care."""
    return torch.autocast(x.device.type, enabled=False)


def invert(transform: Transform, x: Tensor, context: Tensor | None = None) -> Value:
    """Invert a transform that may hold nflows' LU linear map, without the warning that this gives."""
    with warnings.catch_warnings():  # nflows 0.14 calls what torch will remove after the bound we set
        warnings.filterwarnings("ignore", message="torch.triangular_solve is deprecated")
        return transform.inverse(x, context)


def _zeros(x: Tensor) -> Tensor:
    return x.new_zeros(x.shape[0])


def in_rows(
    function: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, context: Tensor | None, size: int = 256
) -> Tensor:
    """Apply a function of (x, θ) to many rows, `size` at a time."""
    parts = []
    for begin in range(0, len(x), size):
        rows = slice(begin, begin + size)
        parts.append(function(x[rows], None if context is None else context[rows]))
    return torch.cat(parts)


def _value(transform: Transform, x: Tensor, context: Tensor | None) -> Tensor:
    return transform(x, context)[0]


@torch.no_grad()
def start(transform: Transform, x: Tensor, context: Tensor | None = None) -> None:
    """Let a transform, or each part of a composite, start from the data that reach it."""
    if hasattr(transform, "initialise"):
        transform.initialise(x)
    elif isinstance(transform, CompositeTransform):
        parts = list(transform._transforms)
        while parts and not hasattr(parts[-1], "initialise"):
            parts.pop()
        for i, part in enumerate(parts):
            start(part, x, context)
            if i < len(parts) - 1:
                x = in_rows(partial(_value, part), x, context)


class Haar(Transform):
    """One orthonormal Haar wavelet step: (B, C, H, W) to (B, 4C, H/2, W/2), averages of all channels first.

    Each 2 × 2 block (a b; c d) becomes ½(a+b+c+d), ½(a−b+c−d), ½(a+b−c−d), ½(a−b−c+d); ladj = 0.

    Raises:
        ValueError: If H or W is odd.

    Reference:
        Ardizzone, Lüth, Kruse, Rother, Köthe, Guided image generation with conditional invertible neural
        networks, 2019, arXiv 1907.02392.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Map (B, C, H, W) to (B, 4C, H/2, W/2)."""
        if x.shape[-1] % 2 or x.shape[-2] % 2:
            raise ValueError(f"Haar needs an even height and width, got {tuple(x.shape[-2:])}")
        blocks = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))
        return torch.cat(_butterfly(*blocks.unbind(2)), 1), _zeros(x)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Map (B, 4C, H, W) to (B, C, 2H, 2W)."""
        blocks = torch.stack(_butterfly(*x.chunk(4, 1)), 2)  # the butterfly is its own inverse
        return F.pixel_shuffle(blocks.flatten(1, 2), 2), _zeros(x)


def _butterfly(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> list[Tensor]:
    ab, cd, a_b, c_d = (a + b) / 2, (c + d) / 2, (a - b) / 2, (c - d) / 2
    return [ab + cd, a_b + c_d, ab - cd, a_b - c_d]


class ActNorm(Transform):
    """Affine map a feature (channel): y = (x − m)·exp(−s), initialised from a batch by `initialise`.

    ladj of the forward direction is −P·Σ s, with P the number of pixels that share a feature.

    Args:
        features: Size of dimension 1 of the input, (B, features) or (B, features, H, W).

    Reference:
        Kingma, Dhariwal, Glow: generative flow with invertible 1×1 convolutions, 2018,
        arXiv 1807.03039, §3.1.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))

    @torch.no_grad()
    def initialise(self, x: Tensor, floor: float = 1e-6) -> None:
        """Give each feature of x zero mean and unit variance; a deviation below `floor` counts as `floor`."""
        rows = x.transpose(0, 1).flatten(1)
        self.shift.copy_(rows.mean(1))
        self.log_scale.copy_(rows.std(1, unbiased=False).clamp_min(floor).log())

    def _parameters_for(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = (1, -1, *([1] * (x.dim() - 2)))
        ladj = self.log_scale.sum() * x[0, 0].numel()
        return self.shift.view(shape), self.log_scale.view(shape), ladj.expand(x.shape[0])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Normalise."""
        shift, log_scale, ladj = self._parameters_for(x)
        return (x - shift) * torch.exp(-log_scale), -ladj

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Undo the normalisation."""
        shift, log_scale, ladj = self._parameters_for(x)
        return x * torch.exp(log_scale) + shift, ladj


class OrthogonalConv1x1(Transform):
    """Mix channels by an orthogonal matrix: y = Q x at every pixel, Q = P·exp(A − Aᵀ), P a fixed permutation.

    ladj = 0, and the inverse is the transpose: no matrix is ever inverted.

    Args:
        channels: Number of channels C of the input (B, C, H, W).

    Reference:
        Hoogeboom, van den Berg, Welling, Emerging convolutions for generative normalizing flows, 2019,
        arXiv 1901.11137, §4 (orthogonal parametrisation of the 1 × 1 convolution).
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
        """Return Q, shape (C, C)."""
        return torch.matrix_exp(self.skew - self.skew.T)[self.permutation]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Mix the channels."""
        with full_precision(x):
            return F.conv2d(x, self.matrix()[:, :, None, None]), _zeros(x)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Unmix the channels."""
        with full_precision(x):
            return F.conv2d(x, self.matrix().T[:, :, None, None]), _zeros(x)


class Householder(Transform):
    """Rotate vectors so that a chosen d-dimensional subspace becomes the first d coordinates.

    y = Qᵀ(x − m),  Q = H₁…H_d = I − V T Vᵀ,  T⁻¹ = striu(VᵀV) + ½ diag(VᵀV);  ladj = 0.

    Q is orthogonal for every V with non-zero columns, and costs O(D·d) to apply. It depends on the directions
    of the columns alone; their length, √D/4, makes the entries of order one, so that a step of an
    optimiser that normalises gradients turns the subspace little, whatever D.

    Args:
        features: Dimension D of the vectors.
        dim: Dimension d of the subspace, 1 … D.

    Reference:
        Tomczak, Welling, Improving variational auto-encoders using Householder flow, 2016, arXiv 1611.09630;
        Joffrain, Low, Quintana-Ortí, van de Geijn, Van Zee, Accumulating Householder transformations,
        revisited, 2006 (the form of T).
    """

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(features))
        self.vectors = nn.Parameter(math.sqrt(features) / 4 * torch.eye(features, dim))

    @torch.no_grad()
    def initialise(self, mean: Tensor, basis: Tensor) -> None:
        """Start at a given affine subspace.

        Args:
            mean: Its offset m, shape (D,).
            basis: Orthonormal columns that span it, shape (D, d). Column signs are not kept.
        """
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
        """Rotate differences: Qᵀx for every row of (B, D)."""
        with full_precision(x):
            return x - (x @ self.vectors @ self._coefficients()) @ self.vectors.T

    def back(self, x: Tensor) -> Tensor:
        """Rotate differences back: Q x for every row of (B, D)."""
        with full_precision(x):
            return x - (x @ self.vectors @ self._coefficients().T) @ self.vectors.T

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Rotate (B, D) towards the subspace."""
        return self.turn(x - self.mean), _zeros(x)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        """Rotate back."""
        return self.back(x) + self.mean, _zeros(x)
