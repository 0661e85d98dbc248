"""Manifolds and charts: the interfaces, and the chart of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.errors import ModelError
from mfimage.models.bent import BentSubspace
from mfimage.models.denoiser import SIGMAS, Denoiser
from mfimage.models.duals import Dual, by_jvp
from mfimage.models.layers import Transform, Value, full_precision
from mfimage.models.multiscale import Multiscale

Window = tuple[slice, slice]  # rows and columns of images

_FITTED = 500  # images that gains are fitted to, each at one σ
_AT_ONCE = 40  # of them for each σ, or fewer
NO_GAINS = (
    "this model was not trained with noise, so it cannot shrink it: train one that is told of it (mfimage "
    "train --noise 0-0.5)"
)


class Manifold(nn.Module):
    """Interface of d-dimensional manifolds { decode(u) } in the space of the data."""

    dim: int  # d
    features: int  # D, the number of elements of an example
    context_features: int = 0  # number of parameters θ that it depends on
    noise_aware: bool = False  # whether it can `clear` and `shrink` noise

    def initialise(self, x: Tensor) -> None:
        """Start from data, shape (N, …) with N > d; one that is prescribed stays as it is."""

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data (B, …) to u, shape (B, d)."""
        raise NotImplementedError

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """Map u, shape (B, d), to the manifold, (B, …)."""
        raise NotImplementedError

    def squared_error(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute ‖x − decode(codes(x))‖², summed over an example, shape (B,)."""
        return (self.decode(self.codes(x, context), context) - x).square().flatten(1).sum(1)

    def push_codes(self, u: Dual, context: Tensor | None = None, rotated: bool = False) -> Dual:
        """Push u, shape (B, d), and its tangents through `decode`, or `decode` and a rotation of R^D.

        A rotation leaves all lengths and angles; `rotated` allows one where that is less work.
        """
        return by_jvp(lambda value: self.decode(value, context), u)

    def initialise_denoiser(self, x: Tensor) -> None:
        """Start what removes noise from clean images, (N, C, H, W); ModelError if there is nothing."""
        raise ModelError(NO_GAINS)

    def fit_gains(self, x: Tensor) -> None:
        """Fit the gains of `shrink` to what `clear` leaves of noise on clean images, (N, C, H, W)."""
        raise ModelError(NO_GAINS)

    def clear(self, y: Tensor, sigma: Tensor, window: Window | None = None) -> Tensor:
        """Remove noise of σ, (B,) or (B, 1, H, W), from images, or give a window of the result alone.

        ModelError if that was not learned.
        """
        raise ModelError(NO_GAINS)

    def shrink(self, cleared: Tensor, sigma: Tensor) -> Tensor:
        """Remove what `clear` has left of noise of σ, (B,), in the coordinates; ModelError as there."""
        raise ModelError(NO_GAINS)


class Chart(Manifold, Transform):
    """Interface of charts f, bijections whose first d coordinates describe a manifold, { f(u, 0) }.

    forward, f⁻¹, maps data to coordinates (u, v), shape (B, D); inverse, f, maps back.
    """

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        raise NotImplementedError

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self(x, context)[0][:, : self.dim]

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        return self.inverse(F.pad(u, (0, self.features - self.dim)), context)[0]


class ImageChart(Chart):
    """The image chart: couplings at every level of a wavelet pyramid, then a bent linear subspace.

    x ↦ multiscale Haar with couplings ↦ bent subspace = (u, v),  u ∈ R^d: a bijection of images of any size.

    After `initialise` and before training, { f(u, 0) } is exactly the PCA subspace of the images given. With
    a denoiser the chart can `clear` and `shrink` noise.
    """

    def __init__(
        self, multiscale: Multiscale, subspace: BentSubspace, denoiser: Denoiser | None = None
    ) -> None:
        super().__init__()
        self.multiscale, self.subspace, self.denoiser = multiscale, subspace, denoiser
        self.dim, self.features, self.noise_aware = subspace.dim, subspace.features, denoiser is not None

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        self.subspace.initialise(torch.cat([self.multiscale(part)[0] for part in x.split(256)]))

    @torch.no_grad()
    def initialise_denoiser(self, x: Tensor) -> None:
        """Start Wiener's filters at what images (N, C, H, W) are."""
        denoiser = _able(self.denoiser)
        squares = [[z.square().sum(0) for z in self._linear(part)] for part in x.split(256)]
        for wiener, sums in zip((denoiser.principal, denoiser.rest), zip(*squares, strict=True), strict=True):
            wiener.power.copy_((sum(sums) / len(x)).clamp_min(1e-8))

    @torch.no_grad()
    def fit_gains(self, x: Tensor) -> None:
        denoiser, generator = _able(self.denoiser), torch.Generator().manual_seed(0)
        sigmas = x.new_tensor(SIGMAS)
        both, squares = x.new_zeros(2, len(sigmas), self.features)
        rows = torch.arange(_FITTED) * len(x) // _FITTED
        for part in rows.split(len(sigmas) * _AT_ONCE):
            clean = x[part]
            level = torch.arange(len(clean), device=x.device) % len(sigmas)  # one an image
            noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32).to(clean)
            noisy, sigma = clean + sigmas[level].view(-1, 1, 1, 1) * noise, sigmas[level]
            z, cleared = self(clean)[0], self(self.clear(noisy, sigma))[0]
            both.index_add_(0, level, cleared * z)
            squares.index_add_(0, level, cleared.square())
        denoiser.gains.fit(both / squares.clamp_min(1e-12), sigmas)

    @torch.no_grad()
    def centre(self, x: Tensor) -> None:
        """Make the residuals of images (N, C, H, W) zero in the mean, by moving the chart.

        Networks on wavelets leave a faint grid there, which would be in every picture.
        """
        self.multiscale.offset += mean_residual(self, x)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        vectors, ladj = self.multiscale(x)
        z, step = self.subspace(vectors)
        return z, ladj + step

    def codes(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.subspace.codes(self.multiscale(x)[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        vectors, ladj = self.subspace.inverse(z)
        x, step = self.multiscale.inverse(vectors)
        return x, ladj + step

    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        return self.multiscale.inverse(self.subspace.decode(u))[0]

    def squared_error(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if self.multiscale.straight:
            return self.subspace.squared_error(self.multiscale(x)[0])  # a rotation leaves lengths
        return super().squared_error(x, context)

    def push_codes(self, u: Dual, context: Tensor | None = None, rotated: bool = False) -> Dual:
        vectors = self.subspace.push_codes(u, rotated and self.multiscale.straight)
        return self.multiscale.push(vectors, rotated)

    def clear(self, y: Tensor, sigma: Tensor, window: Window | None = None) -> Tensor:
        """Remove noise before images are encoded, by a `Denoiser`, whose linear estimate x̂ is Wiener's.

        w = wavelets of y less their mean,  q = Uᵀw of the first principal components U,
        x̂ = mean + U (q·s²/(s² + σ²)) + (w − Uq)·r²/(r² + σ²),   s² and r² mean squares on clean images
        """
        denoiser, rotation = _able(self.denoiser), self.subspace.rotation
        sigma = sigma.to(y).view(y.shape[0], 1, *(sigma.shape[2:] or (1, 1)))
        typical = sigma.square().flatten(1).mean(1).sqrt()
        principal, rest = self._linear(y)
        with full_precision(y):
            w = denoiser.principal(principal, typical) @ rotation.basis.T + denoiser.rest(rest, typical)
        estimate = self.multiscale.wavelets.synthesis(w + rotation.mean)
        rows, columns = window or (slice(None), slice(None))
        parts, mean = (y, estimate, sigma.expand(-1, 1, *y.shape[2:])), estimate.mean((2, 3), keepdim=True)
        y, estimate, sigma = (part[..., rows, columns] for part in parts)
        return denoiser.clear(y, estimate, sigma, mean)

    def _linear(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Principal coordinates of images, and the wavelets of what these leave."""
        rotation = self.subspace.rotation
        with full_precision(x):
            w = self.multiscale.wavelets.analysis(x) - rotation.mean
            principal = w @ rotation.basis
            return principal, w - principal @ rotation.basis.T

    def shrink(self, cleared: Tensor, sigma: Tensor) -> Tensor:
        """Shrink what `clear` gave, c, in the coordinates: x̂ = f(γ(σ)·f⁻¹(c)), f that of clean images."""
        denoiser = _able(self.denoiser)
        return self.inverse(denoiser.gains(self(cleared)[0], sigma.to(cleared)))[0]


def mean_residual(chart: Manifold, x: Tensor) -> Tensor:
    """The mean of x − decode(codes(x)) over images (N, C, H, W)."""
    left = [(part - chart.decode(chart.codes(part))).double().sum(0) for part in x.split(256)]
    return sum(left, torch.zeros(())) / len(x)


def _able(denoiser: Denoiser | None) -> Denoiser:
    if denoiser is None:
        raise ModelError(NO_GAINS)
    return denoiser
