"""The method that suits the noise: a curve measured on images held out, and the choice read off it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets import Dataset
from mfimage.denoising.familiarity import FAMILIAR, features_of, measure_familiarity
from mfimage.denoising.methods import METHODS, is_cut, leave, quick_methods, quick_results, wavelet_sigma
from mfimage.denoising.uncertainty import Calibration, Collector, store
from mfimage.errors import ModelError, UsageError, boundary
from mfimage.eval.image_metrics import psnr
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.noise import Gaussian, Noise
from mfimage.pretrained import CALIBRATION
from mfimage.settings import whole_number

NOISY = "noisy"  # the image as it is, among the methods of a curve
SIGMAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)  # where a curve is measured
CURVE = "denoising"  # the section of the curve in `model.measured`
ENOUGH, FEWEST = 100, 24  # images on which all is measured; where time is short
_WORK = 7 * len(SIGMAS) + 6  # how often more than `features_of` that takes
_EXACT = 120.0  # dB, at which an image counts as the clean one

Watch = Callable[[str, float, Tensor, Tensor, Tensor], None]  # method, σ, y, x̂, x


def overlook(method: str, sigma: float, y: Tensor, x_hat: Tensor, x: Tensor) -> None:
    """Watch nothing."""


@dataclass(frozen=True)
class PsnrCurve:
    """What each method achieves, and what the noise looks like, at some levels of noise."""

    sigmas: tuple[float, ...]  # rising, in units of the images
    psnr: Mapping[str, tuple[float, ...]]  # mean in dB at each, by method
    wavelet: tuple[float, ...]  # mean of `wavelet_sigma` at each
    removed: tuple[float, ...] = ()  # mean of what `clear` takes off then, see `blind`; () if it cannot

    def best(self, sigma: float) -> str:
        """Name the method with the highest PSNR, interpolated in log σ; beyond the ends that of the end.

        Projection is left out where there is `soft`, whose gains are 0 where cutting off is right: what it
        has over that on images held out is seldom so on others.
        """
        where, known = math.log(max(sigma, 1e-9)), np.log(self.sigmas)
        able = [method for method in self.psnr if method != "projection" or "soft" not in self.psnr]
        return max(able, key=lambda method: float(np.interp(where, known, self.psnr[method])))

    def blind(self, y: Tensor, model: GenerativeModel) -> Tensor:
        """Estimate the noise of images (B, C, H, W), shape (B,).

        First it is the σ at which images have finest details like these on average. A model that can `clear`
        images of this size is told so, and then it is the σ at which it takes off as much: details of the
        image itself mislead that less.
        """
        sigma = self._read_off(self.wavelet, wavelet_sigma(y))
        if not self.removed or y.shape[1:] != model.shape:
            return sigma
        found = self._read_off(self.removed, taken_off(y, model, sigma))
        return found.where(found.isfinite(), sigma)

    def _read_off(self, seen: tuple[float, ...], found: Tensor) -> Tensor:
        """Turn what is found of images, (B,), into the σ at which it is seen on average."""
        rising, values = np.maximum.accumulate(seen), found.double().cpu().numpy()
        sigma = np.interp(values, rising, self.sigmas) * np.maximum(1, values / rising[-1])
        return torch.from_numpy(sigma).to(found)


@dataclass(frozen=True)
class DenoisingCurve:
    """Validation of a model's methods, for images with all their noise and for those cut to [0, 1].

    In a file black and white hold half the noise, and in the mean are no longer black and white: wavelets see
    less noise in it, and another method may be the best.
    """

    whole: PsnrCurve
    cut: PsnrCurve

    def blind(self, y: Tensor, model: GenerativeModel) -> Tensor:
        """Estimate the noise of images (B, C, H, W), shape (B,)."""
        found, cut = y.new_empty(len(y)), is_cut(y)
        for curve, rows in ((self.whole, ~cut), (self.cut, cut)):
            if rows.any():
                found[rows] = curve.blind(y[rows], model)
        return found

    def best(self, y: Tensor, sigma: Tensor) -> list[str]:
        """Name the method that suits each image (B, C, H, W) with noise σ, shape (B,)."""
        curves = [self.cut if cut else self.whole for cut in is_cut(y)]
        return [curve.best(float(s)) for curve, s in zip(curves, sigma, strict=True)]


def calibrate_denoising(held_out: Dataset, model: GenerativeModel, seconds: float | None = None) -> None:
    """Measure curve, uncertainty and what is familiar on the first images held out, for the model to keep.

    Of these are `ENOUGH`, or as many as some seconds allow, but `FEWEST` at least; what is familiar is
    measured on other ones at each level of noise.
    """
    if model.conditional:
        return
    most = min(len(held_out), ENOUGH * (len(SIGMAS) + 2))
    every = held_out.batch(torch.arange(most)).to(model.device)
    clean = every[:ENOUGH]
    if seconds is not None and model.has_manifold:
        clean = clean[: max(FEWEST, int(seconds / (_WORK * _pace(clean[:8], model))))]
    spreads = Collector(), Collector()
    curve = measure_curve(clean, model, watch=spreads)
    model.measured[CURVE] = asdict(curve)
    store(model, *spreads)
    if model.has_manifold:
        model.measured[FAMILIAR] = measure_familiarity(
            every, model, SIGMAS, lambda y: curve.blind(y, model), count=len(clean)
        )


def _pace(x: Tensor, model: GenerativeModel) -> float:
    """Seconds that the features of an image take."""
    sigma, seconds = x.new_full((len(x),), SIGMAS[0]), math.inf
    for _ in range(2):  # the first may set things up
        began = time.perf_counter()
        features_of(x, model, sigma).cpu()
        seconds = min(seconds, time.perf_counter() - began)
    return seconds / len(x)


def measure_curve(
    clean: Tensor, model: GenerativeModel, seed: int = 0, watch: tuple[Watch, Watch] = (overlook, overlook)
) -> DenoisingCurve:
    """Measure a model's curve by noise on clean images (N, C, H, W) in [0, 1] that it has not seen.

    Those who watch are shown each method's results, for whole noise and for noise that is cut to [0, 1].
    """
    x = clean.to(model.device)
    return DenoisingCurve(
        *(_measure(x, model, seed, *case) for case in zip((False, True), watch, strict=True))
    )


@plainly
@torch.no_grad()
def _measure(x: Tensor, model: GenerativeModel, seed: int, cut: bool, watch: Watch) -> PsnrCurve:
    generator = torch.Generator().manual_seed(seed)
    quality: dict[str, list[float]] = {name: [] for name in (NOISY, *quick_methods(model))}
    noisy = []
    for sigma in SIGMAS:
        y = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
        noisy.append(y.clamp(0, 1) if cut else y)
        results = quick_results(noisy[-1], model, y.new_full((len(y),), sigma))
        for name, result in ((NOISY, noisy[-1]), *results.items()):
            x_hat = result.nan_to_num(0, 1, 0)
            watch(name, sigma, noisy[-1], x_hat, x)
            quality[name].append(float(psnr(x_hat.clamp(0, 1), x).clamp_max(_EXACT).mean()))
    wavelet = tuple(float(wavelet_sigma(y).mean()) for y in noisy)
    curve = PsnrCurve(SIGMAS, {name: tuple(values) for name, values in quality.items()}, wavelet)
    if not model.noise_aware:
        return curve
    removed = [taken_off(y, model, curve.blind(y, model)).nan_to_num(0, 0, 0).mean() for y in noisy]
    return replace(curve, removed=tuple(map(float, removed)))


@torch.no_grad()
def taken_off(y: Tensor, model: GenerativeModel, sigma: Tensor) -> Tensor:
    """Measure the root mean square of what `clear` takes off images (B, C, H, W) told σ, both (B,)."""
    parts = [(part - model.clear(part, s)) for part, s in zip(y.split(256), sigma.split(256), strict=True)]
    return torch.cat(parts).square().flatten(1).mean(1).sqrt()


def curve_of(model: GenerativeModel) -> DenoisingCurve | None:
    """Return a model's curve, None if it was never measured; ModelError if what is stored is damaged."""
    stored = model.measured.get(CURVE)
    if stored is None:
        return None
    with boundary(ModelError, f"{CALIBRATION}: the model's curve of denoising is damaged"):
        return DenoisingCurve(*(_read(stored[part], quick_methods(model)) for part in ("whole", "cut")))


def _read(stored: dict[str, Any], methods: list[str]) -> PsnrCurve:
    sigmas, wavelet = (tuple(float(value) for value in stored[key]) for key in ("sigmas", "wavelet"))
    removed = tuple(float(value) for value in stored.get("removed", ()))
    quality = {str(name): tuple(float(v) for v in values) for name, values in stored["psnr"].items()}
    known = [wavelet, removed or wavelet, *quality.values()]
    if not sigmas or not quality or {len(sigmas)} != set(map(len, known)):
        raise ValueError("lengths differ")
    if not np.isfinite([sigmas, *known]).all() or not 0 < sigmas[0] <= min(sigmas):
        raise ValueError("numbers are not finite, or a deviation is not positive")
    if unknown := set(quality) - {NOISY, *methods}:
        raise ValueError(f"methods {unknown}")
    return PsnrCurve(sigmas, quality, wavelet, removed)


@plainly
def blind_sigma(y: Tensor, model: GenerativeModel) -> Tensor:
    """Estimate the noise of images (B, C, H, W), by the model's curve if it has one; shape (B,)."""
    curve = curve_of(model)
    return wavelet_sigma(y) if curve is None else curve.blind(y, model)


@dataclass(frozen=True, eq=False)
class Denoised:
    """Images without noise, and how it was done."""

    image: Tensor  # (B, C, H, W), not clipped to [0, 1]
    sigma: Tensor  # the noise that was given, or estimated, (B,)
    methods: list[str]  # by which each was made; `noisy` if it was left as it is
    noise: list[Noise]  # that was assumed of each

    def deviation(self, y: Tensor, errors: Calibration) -> Tensor:
        """Give the standard deviation of each value's error, (B, C, H, W), from what the images were made of.

        It is that of images cut to [0, 1]: 68 % of errors are within one, and 95 % within two, over images
        like those that the model was trained on. ModelError if that was not measured for a method.
        """
        return errors(y, self.image, self.sigma, self.methods, is_cut(y))


@plainly
def denoise_batch(
    y: Tensor,
    model: GenerativeModel,
    sigma: Tensor | None = None,
    method: str = "auto",
    batch_size: int = 256,
) -> Denoised:
    """Remove Gaussian noise from images (B, C, H, W) by a method of `METHODS`, or the one that suits each.

    "auto" takes the best by the model's curve; without one, the first of `quick_methods`. Clean images lie in
    [0, 1]; sigma, in their units, has shape (B,), or is None to be estimated.
    """
    if method != "auto" and method not in METHODS:
        raise UsageError(f"method {method!r}: choose from auto, {', '.join(METHODS)}")
    curve, batch_size = curve_of(model), whole_number("batch_size", batch_size, 1)
    sigma = (blind_sigma(y, model) if sigma is None else sigma).to(y)
    if method == "auto" and curve is not None:
        chosen = curve.best(y, sigma)
    else:
        chosen = [quick_methods(model)[0] if method == "auto" else method] * len(y)
    out = torch.empty_like(y)
    for name in sorted(set(chosen)):
        function = METHODS.get(name, leave)
        rows = torch.tensor([name == other for other in chosen]).nonzero().flatten().to(y.device)
        for part in rows.split(batch_size):
            out[part] = function(y[part], model, sigma[part])
    return Denoised(out, sigma, chosen, [Gaussian((s, s)) for s in sigma.tolist()])
