"""Images that a generator makes while a few of its latents vary: the paper's StyleGAN manifolds."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.func import jvp, vmap

from mfimage.datasets.stylegan.protocol import Generator
from mfimage.errors import UsageError
from mfimage.experiments.simulators.image_manifold import ImageManifold, area_weights

_STEP = 1e-2  # of finite differences, for generators without derivatives


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
        self.generator, self.batch = generator, batch
        self._fixed = torch.randn(generator.z_dim, generator=torch.Generator().manual_seed(seed))
        self._rows, self._columns = area_weights(height, size), area_weights(width, size)

    @property
    def rows_at_once(self) -> int:
        """Four batches."""
        return 4 * self.batch

    def draw(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Tensor:
        """Draw z ~ N(θ·1/√d, I), shape (n, d), float32."""
        noise = torch.randn(n, self.dim, generator=generator)
        return noise if theta is None else noise + theta / math.sqrt(self.dim)

    @torch.no_grad()
    def render(self, z: Tensor) -> Tensor:
        """Compute the images of latents (n, d): (n, C, H, W), float32 in [0, 1]."""
        return torch.cat([self._images(part) for part in z.float().split(self.batch)])

    def jacobian(self, z: Tensor) -> Tensor:
        """Compute J = ∂ render / ∂z, shape (n, C·H·W, d), float64.

        By forward mode, of one generator in float32; of one without derivatives by central differences.
        """
        return torch.cat([self._jacobian(part.float()).double() for part in z.split(self.batch)])

    def log_density(self, z: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute log p(z|θ) of latents (n, d); θ, shape (n, 1), is 0 if None."""
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
        directions = torch.eye(self.dim)

        def along(direction: Tensor) -> Tensor:
            return jvp(self._images, (z,), (direction.expand_as(z),))[1].flatten(1)

        with torch.enable_grad():
            if self._images(z[:1].clone().requires_grad_()).requires_grad:
                return vmap(along, out_dims=2, chunk_size=4)(directions).detach()
        steps = [self.render(z + _STEP * e) - self.render(z - _STEP * e) for e in directions]
        return torch.stack([step.flatten(1) for step in steps], 2) / (2 * _STEP)
