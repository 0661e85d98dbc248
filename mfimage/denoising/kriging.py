"""What a manifold leaves out of an image, predicted from where it is seen: linear, by its own correlation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.denoising.operators import Downsample, Mask
from mfimage.models.layers import full_precision

_NUGGET = 1e-3  # variance of what is seen that no neighbour shares
_ITERATIONS = 30  # of conjugate gradients
_RANGE = (0.02, 0.95)  # of the correlation of neighbours
_HALVINGS = 30


def predicted(residual: Tensor, operator: Mask | Downsample) -> Tensor:
    """Predict images r, (B, C, H, W), from A r, (B, C, h, w), by the best linear estimate.

    r̂ = C Aᵀ(A C Aᵀ + 10⁻³)⁻¹ A r,   C_ij = (1 + a|i − j|) exp(−a|i − j|) within a colour

    a is such that C, at the distance of neighbours in A r, is their correlation, measured in each image:
    where nothing correlates, nothing is predicted beyond what is seen. C is applied by Fourier transforms,
    and the equations are solved by conjugate gradients. Simple kriging with Matérn's covariance of ν = 3/2:
    Cressie, Statistics for spatial data, 1993, §3.4.5; Stein, Interpolation of spatial data, 1999.
    """
    known = operator.known(residual)
    residual = residual.where(known, 0)
    decay = _decay(_neighbours(residual, known)) / operator.factor
    covariance = _Covariance(operator.adjoint(residual).shape[-2:], decay)

    def seen(x: Tensor) -> Tensor:
        return operator.forward(covariance(operator.adjoint(x))) + _NUGGET * x

    with full_precision(residual):
        return covariance(operator.adjoint(_solved(seen, residual)))


def _neighbours(x: Tensor, known: Tensor) -> Tensor:
    """The correlation of values beside each other, of pairs of known ones in each image, (B,)."""
    product = power = x.new_zeros(len(x))
    for axis in (2, 3):
        count = x.shape[axis] - 1
        first, second = x.narrow(axis, 0, count), x.narrow(axis, 1, count)
        both = known.narrow(axis, 0, count) & known.narrow(axis, 1, count)
        product = product + (first * second * both).sum((1, 2, 3))
        power = power + ((first.square() + second.square()) / 2 * both).sum((1, 2, 3))
    return product / power.clamp_min(1e-12)


def _decay(correlation: Tensor) -> Tensor:
    """Find a > 0 with (1 + a) exp(−a) = ρ, by halving."""
    wanted = correlation.clamp(*_RANGE)
    low, high = torch.zeros_like(wanted), torch.full_like(wanted, 16.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = (1 + middle) * torch.exp(-middle) > wanted
        low, high = middle.where(above, low), high.where(above, middle)
    return (low + high) / 2


class _Covariance:
    """x ↦ C x for images (B, C, H, W), C_ij = (1 + a|i − j|) exp(−a|i − j|), a (B,)."""

    def __init__(self, size: tuple[int, ...], decay: Tensor) -> None:
        self.size = height, width = size
        rows, columns = (torch.arange(2 * n, device=decay.device) for n in (height, width))
        y, x = (
            rows.minimum(2 * height - rows),
            columns.minimum(2 * width - columns),
        )  # on a torus twice as wide
        far = (y[:, None].square() + x.square()).to(decay).sqrt() * decay[:, None, None, None]
        kernel = (1 + far) * torch.exp(-far)
        self.spectrum = torch.fft.rfft2(kernel).real.clamp_min(0)

    def __call__(self, x: Tensor) -> Tensor:
        height, width = self.size
        waves = torch.fft.rfft2(F.pad(x, (0, width, 0, height))) * self.spectrum
        return torch.fft.irfft2(waves, (2 * height, 2 * width))[..., :height, :width]


def _solved(function: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """Solve function(x) = b for each colour (B, C, h, w) by conjugate gradients, from 0."""
    x, residual, direction = torch.zeros_like(b), b, b
    power = b.square().sum((2, 3), True)
    for _ in range(_ITERATIONS):
        pushed = function(direction)
        step = power / (direction * pushed).sum((2, 3), True).clamp_min(1e-12)
        x, residual = x + step * direction, residual - step * pushed
        following = residual.square().sum((2, 3), True)
        direction, power = residual + following / power.clamp_min(1e-12) * direction, following
    return x
