"""Manifolds of images that are drawn from latents: density, projection and distance of all of them."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.errors import UsageError
from mfimage.experiments.simulators.simulator import Simulator, nearest_point

_USUAL = 3.0  # |z_k| that a search may start from


class ImageManifold(Simulator):
    """Images render(z) of latents z whose density is known."""

    bank_size: int  # known images among which a search looks for its start
    thumbnail: int  # height and width to which images are shrunk for that
    rows_at_once: int  # how many Jacobians are held at a time
    bound: float  # the largest |z_k| with which the nearest image is sought
    tolerance: float = 1e-14  # of `nearest_point`: what float64 allows
    floor: float = 1e-24

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Tensor:
        """Draw latents z, shape (n, d), given θ, (n, P); 0 if None."""

    @abstractmethod
    def render(self, z: Tensor) -> Tensor:
        """Compute the images of latents (n, d): (n, C, H, W) in [0, 1]."""

    @abstractmethod
    def jacobian(self, z: Tensor) -> Tensor:
        """Compute J = ∂ render / ∂z of latents (n, d), shape (n, C·H·W, d), float64."""

    @abstractmethod
    def log_density(self, z: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute log p(z|θ) of latents (n, d): (n,) float64, nats, with respect to dz."""

    def sample(self, n: int, generator: torch.Generator, theta: Tensor | None = None) -> Points:
        """Draw n images with their latents, and θ where there is one."""
        if theta is not None or self.parameters:
            theta = self.prior(n, generator) if theta is None else self._theta(theta, n)
            theta = theta.float().expand(n, -1)
        latents = self.draw(n, generator, theta).float()
        images = [self.render(part).float() for part in latents.split(self.rows_at_once)]
        x = torch.cat(images) if n else torch.zeros(0, *self.shape)
        return Points(x, self.name, theta, latents=latents)

    def log_prob_at(self, z: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute log p(x|θ) = log p(z|θ) − ½ log det(JᵀJ) of the images x of known latents; θ = 0 if None.

        In nats with respect to the d-dimensional volume of the manifold in the space of images, a pixel's
        value 0 … 1 being the unit of length.
        """
        volumes = [torch.zeros(0, dtype=torch.float64)]
        for part in z.split(self.rows_at_once):
            j = self.jacobian(part)
            volumes.append(0.5 * torch.linalg.slogdet(j.mT @ j).logabsdet)
        return self.log_density(z, theta) - torch.cat(volumes)

    def log_prob(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Compute `log_prob_at` of the points on the manifold nearest to images (n, C, H, W)."""
        return self.log_prob_at(self.project(x)[0], theta)

    def distance(self, x: Tensor) -> Tensor:
        """Compute min_z ‖x − render(z)‖ of images (n, C, H, W), shape (n,), float64."""
        return self.project(x)[1]

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest point of images (n, C, H, W), starting from a known image or from a regression.

        Returns z (n, d) and the Euclidean distance of all pixels (n,), float64: a minimum over |z_k| ≤ bound.
        For images on or near the manifold it is the minimum; far off it may be a local one, as a rule a
        little above. Both are NaN where an image is not finite.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise UsageError(f"images of shape {self.shape} are expected, not {tuple(x.shape[1:])}")
        x = x.detach().to("cpu", torch.float64)
        z = x.new_full((len(x), self.dim), torch.nan)
        distance = x.new_full((len(x),), torch.nan)
        for rows in x.flatten(1).isfinite().all(1).nonzero()[:, 0].split(self.rows_at_once):
            z[rows], squared = nearest_point(
                self._flat, self.jacobian, x[rows].flatten(1), self._start(x[rows]), self.bound,
                tolerance=self.tolerance, floor=self.floor,
            )  # fmt: skip
            distance[rows] = squared.sqrt()
        return z, distance

    def _flat(self, z: Tensor) -> Tensor:
        return self.render(z).double().flatten(1)

    def _start(self, x: Tensor) -> Tensor:
        """Latents (n, d) near those of images (n, C, H, W): the better one of two guesses.

        Those of the most similar known image are best where the manifold is strongly curved; those by ridge
        regression, not far from 0, where d is too large to fill a bank.
        """
        small, (features, z, slope) = self._thumbnails(x), self._bank
        similar = z[torch.cdist(small.float(), features.float()).argmin(1)]
        regressed = (z.mean(0) + (small - features.mean(0)) @ slope).clamp(-_USUAL, _USUAL)
        first, second = ((x - self.render(u)).flatten(1).square().sum(1) for u in (similar, regressed))
        return torch.where((first < second)[:, None], similar, regressed)

    @cached_property
    def _bank(self) -> tuple[Tensor, Tensor, Tensor]:
        """Thumbnails (N, F) of N ≫ F images, latents (N, d), and slopes (F, d) of a ridge regression."""
        drawn = self.draw(self.bank_size, torch.Generator().manual_seed(0))
        parts = [self._thumbnails(self.render(part)) for part in drawn.split(self.rows_at_once)]
        features, z = torch.cat(parts).double(), drawn.double()
        centred = features - features.mean(0)
        ridge = 1e-6 * centred.square().sum() / features.shape[1] * torch.eye(features.shape[1]).double()
        slope = torch.linalg.solve(centred.mT @ centred + ridge, centred.mT @ (z - z.mean(0)))
        return features, z, slope

    def _thumbnails(self, x: Tensor) -> Tensor:
        rows = area_weights(x.shape[-1], min(self.thumbnail, x.shape[-1])).to(x)
        return (rows @ x @ rows.mT).flatten(1)


def area_weights(before: int, after: int) -> Tensor:
    """The matrix (after, before) that averages a line of pixels over equal stretches, in float64."""
    edges = torch.arange(after + 1, dtype=torch.float64) * before / after
    pixels = torch.arange(before, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp_min(0) * after / before
