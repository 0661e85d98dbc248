"""Images of latents: soft blobs whose truth is known in closed form, and what a generator makes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn import functional as F

from mfimage.datasets.stylegan.protocol import Generator
from mfimage.errors import UsageError
from mfimage.experiments.simulators.image_manifold import ImageManifold, area_weights
from mfimage.models.duals import FORWARD_MODE

_STEP = 1e-2  # of finite differences, for generators without derivatives
# By d: rows and columns of cells, which hold one blob each, and the blobs' width as a share of the image's.
_SCENES = {2: (1, 1, 0.1), 8: (1, 2, 0.1), 16: (2, 2, 0.09), 64: (4, 4, 0.08)}
_REACH = (0.45, 0.45, 0.25, 0.5)  # of x and y in cells, of log width and log depth: < ½, so that cells part
_WEIGHTS = (0.6, 0.4)
_CORRELATIONS = (0.5, -0.5)
_SHIFT = 0.7
_NUMBERS_AT_ONCE = 2**22  # of a Jacobian: 32 MiB


def _slopes(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Compute derivatives of function(z) (n, k, …) by each z_j, in forward mode, shape (n, k, d, …)."""

    def along(direction: Tensor) -> Tensor:
        return jvp(function, (z,), (direction.expand_as(z),))[1]

    with FORWARD_MODE:
        return vmap(along, out_dims=2, chunk_size=4)(torch.eye(z.shape[-1], dtype=z.dtype))


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
        self.rows_at_once = max(1, _NUMBERS_AT_ONCE // (dim * channels * size * size))
        self._middle, self._reach = _cells(dim)
        self._free = dim // len(self._middle)  # factors of a blob that z moves
        self._palette = _palette(len(self._middle), channels)
        self._grid = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        self._clear = 0.95 - 0.05 * (self._grid[:, None] + self._grid)
        self._means, self._roots = _modes(dim)

    def draw(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Tensor:
        mode = (torch.rand(n, generator=generator, dtype=torch.float64) >= _WEIGHTS[0]).long()
        noise = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        both = self._means[:, None] + noise @ self._roots.mT
        return both[mode, torch.arange(n)]

    def render(self, z: Tensor) -> Tensor:
        depth = torch.einsum("nkhw,kc->nchw", self._depths(self._factors(z)), self._palette)
        return 1 - self._clear * torch.exp(-depth)

    def jacobian(self, z: Tensor) -> Tensor:
        # A factor moves one blob only: four directions, each for all blobs at once, give every column.
        z = z.double().unflatten(1, (-1, self._free))

        def depths(v: Tensor) -> Tensor:
            return self._depths(self._factors(v.flatten(1)))

        moved = _slopes(depths, z)  # (n, K, factors, H, W)
        light = 1 - self.render(z.flatten(1))
        columns = torch.einsum("nkfhw,kc,nchw->nkfchw", moved, self._palette, light)
        return columns.flatten(3).flatten(1, 2).mT

    def log_density(self, z: Tensor, theta: Tensor | None = None) -> Tensor:
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


class Generated(ImageManifold):
    """The manifold of images that a generator makes as its first d latents vary, the others fixed by a seed.

        x = shrink(synthesis(mapping(z_1, …, z_d, c_{d+1}, …))),  z ~ N(θ·1/√d, I),  c ~ N(0, I) once

    θ is 0, or where it is conditional θ ~ N(0, 1): it shifts the latents along their diagonal by θ in all.
    `shrink` averages areas, once, in floating point: a pixel is the mean of what it covers.

    Args:
        generator: Any `Generator`.
        dim: d, how many latents vary.
        size: Height and width of the images, at most the generator's.
        seed: Of the fixed latents.
        conditional: Whether there is a θ.
        batch: Images made at a time.

    Raises:
        UsageError: If the generator has too few latents or pixels.

    Reference:
        Brehmer, Cranmer, 2020, arXiv 2003.13913, §4.4 (which latents vary there, and how its θ acts, is not
        published; this is ours).
    """

    bank_size, thumbnail = 1024, 8
    bound = 6.0  # |z_k| above it has a probability of 2e-9
    tolerance, floor = 1e-7, 1e-8  # of squared distances: the generator computes in float32

    def __init__(
        self,
        generator: Generator,
        dim: int = 2,
        size: int = 64,
        seed: int = 0,
        conditional: bool = False,
        batch: int = 16,
    ) -> None:
        channels, height, width = generator.shape
        if not 1 <= dim <= generator.z_dim or not 1 <= size <= min(height, width):
            raise UsageError(
                f"{generator.name} has {generator.z_dim} latents and images of {height} × {width}: "
                f"{dim} of them cannot vary, or images not be {size} × {size}"
            )
        self.name = f"{generator.name}-{dim}d"
        self.shape, self.dim, self.parameters = (channels, size, size), dim, int(conditional)
        self.generator, self.batch, self.rows_at_once = generator, batch, 4 * batch
        self._fixed = torch.randn(generator.z_dim, generator=torch.Generator().manual_seed(seed))
        self._rows, self._columns = area_weights(height, size), area_weights(width, size)

    def draw(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Tensor:
        noise = torch.randn(n, self.dim, generator=generator)
        return noise if theta is None else noise + theta / math.sqrt(self.dim)

    @torch.no_grad()
    def render(self, z: Tensor) -> Tensor:
        return torch.cat([self._images(part) for part in z.float().split(self.batch)])

    def jacobian(self, z: Tensor) -> Tensor:
        return torch.cat([self._jacobian(part.float()).double() for part in z.split(self.batch)])

    def log_density(self, z: Tensor, theta: Tensor | None = None) -> Tensor:
        moved = z.double() if theta is None else z.double() - theta.double() / math.sqrt(self.dim)
        return -0.5 * (moved.square() + math.log(2 * math.pi)).sum(1)

    def sample_ood(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n images of the same generator with all its latents free: alike in kind, off the manifold."""
        z = torch.randn(n, self.generator.z_dim, generator=generator)
        with torch.no_grad():
            return torch.cat([self._shrink(self._made(part)) for part in z.split(self.batch)])

    def _made(self, latents: Tensor) -> Tensor:
        return self.generator.synthesis(self.generator.mapping(latents))

    def _shrink(self, images: Tensor) -> Tensor:
        return self._rows.to(images) @ images @ self._columns.to(images).mT

    def _images(self, z: Tensor) -> Tensor:
        rest = self._fixed[self.dim :].expand(len(z), -1)
        return self._shrink(self._made(torch.cat([z, rest], 1)))

    def _jacobian(self, z: Tensor) -> Tensor:
        """In forward mode; of a generator without derivatives by central differences. float32."""
        with torch.enable_grad():
            if self._images(z[:1].clone().requires_grad_()).requires_grad:
                return _slopes(lambda z: self._images(z).flatten(1), z).detach()
        steps = [self.render(z + _STEP * e) - self.render(z - _STEP * e) for e in torch.eye(self.dim)]
        return torch.stack([step.flatten(1) for step in steps], 2) / (2 * _STEP)
