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

_FITTED = 1000  # images that gains are fitted to
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

    def clear(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Remove noise of σ, (B,) or (B, 1, H, W), from images; ModelError if that was not learned."""
        raise ModelError(NO_GAINS)

    def shrink(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Remove it in the coordinates too, σ of shape (B,); ModelError as of `clear`."""
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
        both = squares = x.new_zeros(len(sigmas), self.features)
        for clean in x[:: -(-len(x) // _FITTED)].split(256):
            noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32).to(clean)
            noisy = [self.clear(clean + sigma * noise, sigma.expand(len(clean))) for sigma in sigmas]
            z, cleared = self(clean)[0], torch.stack([self(image)[0] for image in noisy])
            both, squares = both + (cleared * z).sum(1), squares + cleared.square().sum(1)
        denoiser.gains.fit(both / squares.clamp_min(1e-12), sigmas)

    @torch.no_grad()
    def centre(self, x: Tensor) -> None:
        """Make the residuals of images (N, C, H, W) zero in the mean, by moving the chart.

        Networks on wavelets leave a faint grid there, which would be in every picture.
        """
        left = [(part - self.decode(self.codes(part))).double().sum(0) for part in x.split(256)]
        self.multiscale.offset += sum(left) / len(x)

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
        if self.multiscale.straight and self.subspace.drawn is None:
            return self.subspace.squared_error(self.multiscale(x)[0])  # a rotation leaves lengths
        return super().squared_error(x, context)

    def push_codes(self, u: Dual, context: Tensor | None = None, rotated: bool = False) -> Dual:
        vectors = self.subspace.push_codes(u, rotated and self.multiscale.straight)
        return self.multiscale.push(vectors, rotated)

    def clear(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Remove noise before images are encoded, by a `Denoiser`, whose linear estimate x̂ is Wiener's.

        w = wavelets of y less their mean,  q = Uᵀw of the first principal components U,
        x̂ = mean + U (q·s²/(s² + σ²)) + (w − Uq)·r²/(r² + σ²),   s² and r² mean squares on clean images
        """
        denoiser, rotation = _able(self.denoiser), self.subspace.rotation
        sigma = sigma.to(y).view(len(y), 1, *(sigma.shape[2:] or (1, 1)))
        typical = sigma.square().flatten(1).mean(1).sqrt()
        principal, rest = self._linear(y)
        with full_precision(y):
            w = denoiser.principal(principal, typical) @ rotation.basis.T + denoiser.rest(rest, typical)
        estimate = self.multiscale.wavelets.synthesis(w + rotation.mean)
        return denoiser.clear(y, estimate, sigma.expand(-1, 1, *y.shape[2:]))

    def _linear(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Principal coordinates of images, and the wavelets of what these leave."""
        rotation = self.subspace.rotation
        with full_precision(x):
            w = self.multiscale.wavelets.analysis(x) - rotation.mean
            principal = w @ rotation.basis
            return principal, w - principal @ rotation.basis.T

    def shrink(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Remove noise in the coordinates: x̂ = f(γ(σ)·f⁻¹(c_σ(y))), with c₀ the identity.

        f and f⁻¹ are the chart of clean images; c_σ is `clear`.
        """
        denoiser, sigma = _able(self.denoiser), sigma.to(y)
        return self.inverse(denoiser.gains(self(self.clear(y, sigma))[0], sigma))[0]


def _able(denoiser: Denoiser | None) -> Denoiser:
    if denoiser is None:
        raise ModelError(NO_GAINS)
    return denoiser
