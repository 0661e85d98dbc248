"""Images of soft blobs: smooth image manifolds whose coordinates, density and distance are known."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn import functional as F

from mfimage.errors import UsageError
from mfimage.experiments.simulators.image_manifold import ImageManifold

# By d: rows and columns of cells, which hold one blob each, and the blobs' width as a share of the image's.
_SCENES = {2: (1, 1, 0.1), 8: (1, 2, 0.1), 16: (2, 2, 0.09), 64: (4, 4, 0.08)}
_REACH = (0.45, 0.45, 0.25, 0.5)  # of x and y in cells, of log width and log depth: < ½, so that cells part
_WEIGHTS = (0.6, 0.4)
_CORRELATIONS = (0.5, -0.5)
_SHIFT = 0.7
_NUMBERS_AT_ONCE = 2**22  # of a Jacobian: 32 MiB


class Rendered(ImageManifold):
    """Images of soft coloured blobs, one in each cell of a grid, before a faint gradient.

        x = 1 − (1 − background) exp(−Σ_k palette_k depth_k G_k),  G_k(p) = exp(−½ |p − centre_k|² / width_k²)
        (centre, log width, log depth)_k = middle_k + reach tanh(z_k / 2)

    At d = 2 one blob has a place only; else d / 4 blobs have a place, a width and a depth. Blobs overlap
    like coats of thin paint, so that values stay in [0, 1) without clipping, and −log((1 − x) /
    (1 − background)) is a mixture of Gaussians. Those are linearly independent and no blob leaves its cell,
    so different z give different images.

        z ~ 0.6 N(m, C(½)) + 0.4 N(−m, C(−½)),   C(ρ)_ij = ρ^|i−j|,   m = (0.7, −0.7, 0, …, 0)

    Computed on the CPU in float64.

    Args:
        dim: d, one of 2, 8, 16, 64: 1, 2, 4 or 16 blobs.
        size: Height and width of the images, a multiple of 16, at least 32.
        channels: 1 or 3.

    Raises:
        UsageError: If there is no such scene.
    """

    name = "rendered"
    bank_size, thumbnail = 4096, 16
    bound = 8.0  # |z_k| above it has a probability of about 1e-12

    def __init__(self, dim: int = 2, size: int = 32, channels: int = 1) -> None:
        if dim not in _SCENES or size < 32 or size % self.thumbnail or channels not in (1, 3):
            raise UsageError(
                f"images are rendered with d = {', '.join(map(str, _SCENES))}, a size that is a multiple of "
                f"{self.thumbnail} and at least 32, and 1 or 3 channels; not d = {dim}, {size} and {channels}"
            )
        self.dim, self.shape = dim, (channels, size, size)
        self._middle, self._reach = _cells(dim)
        self._free = dim // len(self._middle)  # factors of a blob that z moves
        self._palette = _palette(len(self._middle), channels)
        self._grid = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        self._clear = 0.95 - 0.05 * (self._grid[:, None] + self._grid)
        self._means, self._roots = _modes(dim)

    @property
    def rows_at_once(self) -> int:
        """As many as 32 MiB of Jacobians hold."""
        return max(1, _NUMBERS_AT_ONCE // (self.dim * math.prod(self.shape)))

    def draw(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Tensor:
        """Draw latents z, shape (n, d), float64."""
        mode = (torch.rand(n, generator=generator, dtype=torch.float64) >= _WEIGHTS[0]).long()
        noise = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        both = self._means[:, None] + noise @ self._roots.mT
        return both[mode, torch.arange(n)]

    def render(self, z: Tensor) -> Tensor:
        """Compute the images of latents (n, d): (n, C, H, W), float64 in [0, 1)."""
        depth = torch.einsum("nkhw,kc->nchw", self._depths(self._factors(z)), self._palette)
        return 1 - self._clear * torch.exp(-depth)

    def jacobian(self, z: Tensor) -> Tensor:
        """Compute J = ∂ render / ∂z by forward mode.

        A factor moves one blob only, so that four directions, each for all blobs at once, give every column.
        """
        z = z.double().unflatten(1, (-1, self._free))

        def depths(v: Tensor) -> Tensor:
            return self._depths(self._factors(v.flatten(1)))

        def along(direction: Tensor) -> Tensor:
            return jvp(depths, (z,), (direction.expand_as(z),))[1]

        moved = vmap(along, out_dims=2)(torch.eye(self._free, dtype=torch.float64))  # (n, K, factors, H, W)
        light = 1 - self.render(z.flatten(1))
        columns = torch.einsum("nkfhw,kc,nchw->nkfchw", moved, self._palette, light)
        return columns.flatten(3).flatten(1, 2).mT

    def log_density(self, z: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute log p(z) of latents (n, d): (n,) float64, nats, with respect to dz."""
        logs = []
        for weight, mean, root in zip(_WEIGHTS, self._means, self._roots, strict=True):
            white = torch.linalg.solve_triangular(root, (z.double() - mean).mT, upper=False)
            volume = root.diagonal().log().sum() + 0.5 * self.dim * math.log(2 * math.pi)
            logs.append(math.log(weight) - 0.5 * white.square().sum(0) - volume)
        return torch.stack(logs).logsumexp(0)

    def sample_ood(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n scenes with one blob too many: white, half as wide as the others, anywhere on the image."""
        x = self.sample(n, generator).x.double()
        middle = self._middle[:1].expand(n, 1, 4).clone()
        middle[..., :2] = torch.rand(n, 1, 2, generator=generator, dtype=torch.float64)
        middle[..., 2] -= math.log(2)
        return (1 - (1 - x) * torch.exp(-self._depths(middle))).float()

    def _factors(self, z: Tensor) -> Tensor:
        """(x, y, log width, log depth) of every blob, (n, K, 4); places and widths in sides of the image."""
        share = torch.tanh(z.double().unflatten(1, (-1, self._free)) / 2)
        return self._middle + self._reach * F.pad(share, (0, 4 - self._free))

    def _depths(self, factors: Tensor) -> Tensor:
        """Optical depth of every blob at every pixel, (n, K, H, W)."""
        x, y, log_width, log_depth = factors.unbind(2)
        precision = (-2 * log_width)[..., None].exp() / 2
        across = torch.exp(-precision * (self._grid - x[..., None]).square())
        down = torch.exp(log_depth[..., None] - precision * (self._grid - y[..., None]).square())
        return down[..., :, None] * across[..., None, :]


def _cells(dim: int) -> tuple[Tensor, Tensor]:
    """Middles and reaches of the blobs' factors, (K, 4) each."""
    rows, columns, width = _SCENES[dim]
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    middle = torch.stack([x / columns, y / rows, torch.full_like(x, math.log(width)), torch.zeros_like(x)], 2)
    reach = torch.tensor(_REACH) / torch.tensor([columns, rows, 1, 1])
    return middle.double().flatten(0, 1), reach.double().expand(rows * columns, 4)


def _palette(blobs: int, channels: int) -> Tensor:
    """How much of a blob's depth each channel sees, (K, C) in [0.2, 1]: a walk around the circle of hues."""
    if channels == 1:
        return torch.ones(blobs, 1, dtype=torch.float64)
    hue = torch.arange(blobs, dtype=torch.float64)[:, None] / blobs
    return 0.6 + 0.4 * torch.cos(2 * math.pi * (hue + torch.arange(3) / 3))


def _modes(dim: int) -> tuple[Tensor, Tensor]:
    """Means (2, d) and Cholesky factors (2, d, d) of the two normal densities of z."""
    mean = F.pad(torch.tensor([_SHIFT, -_SHIFT], dtype=torch.float64), (0, dim - 2))
    steps = (torch.arange(dim)[:, None] - torch.arange(dim)).abs()
    covariances = [torch.tensor(rho, dtype=torch.float64) ** steps for rho in _CORRELATIONS]
    return torch.stack([mean, -mean]), torch.linalg.cholesky(torch.stack(covariances))
