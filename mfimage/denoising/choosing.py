"""Which method suits a model at which noise: its validation curve, and the choice that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfimage.denoising.methods import METHODS, leave, quick_methods
from mfimage.denoising.sigma import wavelet_sigma
from mfimage.errors import ModelError, UsageError
from mfimage.models import GenerativeModel

NOISY = "noisy"  # the image as it is, among the methods of a curve
SIGMAS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)  # where a curve is measured
ENOUGH = 100  # images for a curve
_KEY = "denoising"  # of the curve in what is measured of a model


@dataclass(frozen=True)
class Line:
    """What each method achieves, and what the noise looks like, at some levels of noise.

    Attributes:
        sigmas: Rising, in units of the images.
        psnr: Mean PSNR in dB at each, by method; `noisy` is the image as it is.
        wavelet: Mean of `wavelet_sigma` at each.
    """

    sigmas: tuple[float, ...]
    psnr: Mapping[str, tuple[float, ...]]
    wavelet: tuple[float, ...]

    def best(self, sigma: float) -> str:
        """Name the method with the highest PSNR, interpolated in log σ; beyond the ends that of the end."""
        where, known = math.log(max(sigma, 1e-9)), np.log(self.sigmas)
        return max(self.psnr, key=lambda method: float(np.interp(where, known, self.psnr[method])))

    def blind(self, seen: Tensor) -> Tensor:
        """Turn `wavelet_sigma`, shape (B,), into the σ at which images look like this on average."""
        rising = np.maximum.accumulate(self.wavelet)
        found = torch.from_numpy(np.interp(seen.double().cpu().numpy(), rising, self.sigmas)).to(seen)
        beyond = seen * (self.sigmas[-1] / rising[-1])
        return torch.where(seen > rising[-1], beyond, found)


@dataclass(frozen=True)
class Curve:
    """Validation of a model's methods, for images with all their noise and for those cut to [0, 1].

    In a file black and white hold half the noise, and in the mean are no longer black and white: wavelets see
    less noise in it, and another method may be the best.
    """

    whole: Line
    cut: Line

    def blind(self, y: Tensor) -> Tensor:
        """Estimate the noise of images (B, C, H, W), shape (B,)."""
        seen = wavelet_sigma(y)
        return torch.where(is_cut(y), self.cut.blind(seen), self.whole.blind(seen))

    def best(self, y: Tensor, sigma: Tensor) -> list[str]:
        """Name the method that suits each image (B, C, H, W) with noise σ, shape (B,)."""
        lines = [self.cut if cut else self.whole for cut in is_cut(y)]
        return [line.best(float(s)) for line, s in zip(lines, sigma, strict=True)]


def is_cut(y: Tensor) -> Tensor:
    """Tell of each image (B, C, H, W) whether no value lies beyond [0, 1], shape (B,)."""
    flat = y.flatten(1)
    return (flat.amin(1) >= 0) & (flat.amax(1) <= 1)


def measure_curve(model: GenerativeModel, clean: Tensor, seed: int = 0, batch_size: int = 100) -> Curve:
    """Measure a model's curve on clean images that it has not seen.

    Args:
        model: Of images.
        clean: Shape (N, C, H, W), in [0, 1]; the first 100 are taken.
        seed: Of the noise.
        batch_size: Images at a time.
    """
    x = clean[:ENOUGH].to(model.device)
    return Curve(*(_line(model, x, seed, batch_size, cut) for cut in (False, True)))


@torch.no_grad()
def _line(model: GenerativeModel, x: Tensor, seed: int, batch_size: int, cut: bool) -> Line:
    generator = torch.Generator().manual_seed(seed)
    functions = {NOISY: leave, **{name: METHODS[name] for name in quick_methods(model)}}
    psnr: dict[str, list[float]] = {name: [] for name in functions}
    wavelet = []
    for sigma in SIGMAS:
        y = x + sigma * torch.randn(x.shape, generator=generator).to(x)
        y = y.clamp(0, 1) if cut else y
        wavelet.append(float(wavelet_sigma(y).mean()))
        for name, function in functions.items():
            parts = [
                function(part, model, part.new_full((len(part),), sigma)) for part in y.split(batch_size)
            ]
            error = (torch.cat(parts).clamp(0, 1) - x).square().flatten(1).mean(1)
            psnr[name].append(float(-10 * error.clamp_min(1e-12).log10().mean()))
    return Line(SIGMAS, {name: tuple(values) for name, values in psnr.items()}, tuple(wavelet))


def store_curve(model: GenerativeModel, curve: Curve) -> None:
    """Keep a curve with its model; `save_pretrained` writes it."""
    model.measured[_KEY] = asdict(curve)


def stored_curve(model: GenerativeModel) -> Curve | None:
    """Return a model's curve, None if it was never measured.

    Raises:
        ModelError: If what is stored is no curve of methods that the model has.
    """
    stored = model.measured.get(_KEY)
    if stored is None:
        return None
    try:
        return Curve(*(_read_line(stored[part], quick_methods(model)) for part in ("whole", "cut")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"the model's curve of denoising is damaged ({error!r})") from error


def _read_line(stored: Any, methods: list[str]) -> Line:
    sigmas, wavelet = (tuple(float(value) for value in stored[key]) for key in ("sigmas", "wavelet"))
    psnr = {str(name): tuple(float(v) for v in values) for name, values in stored["psnr"].items()}
    if len({len(values) for values in (sigmas, wavelet, *psnr.values())}) != 1 or not psnr or not sigmas:
        raise ValueError("lengths differ")
    if unknown := set(psnr) - {NOISY, *methods}:
        raise ValueError(f"methods {unknown}")
    return Line(sigmas, psnr, wavelet)


def blind_sigma(y: Tensor, model: GenerativeModel) -> Tensor:
    """Estimate the noise of images (B, C, H, W), by the model's curve if it has one; shape (B,)."""
    curve = stored_curve(model)
    return wavelet_sigma(y) if curve is None else curve.blind(y)


@dataclass(frozen=True, eq=False)
class Denoised:
    """Images without noise, and how it was done.

    Attributes:
        image: Shape (B, C, H, W), not clipped to [0, 1].
        sigma: The noise that was given, or estimated, shape (B,).
        methods: By which each was made; `noisy` if it was left as it is.
    """

    image: Tensor
    sigma: Tensor
    methods: list[str]


def apply(
    y: Tensor,
    model: GenerativeModel,
    sigma: Tensor | None = None,
    method: str = "auto",
    batch_size: int = 256,
) -> Denoised:
    """Denoise a batch by a method, or each image by the one that suits its noise.

    Args:
        y: Noisy images (B, C, H, W), in units in which clean ones lie in [0, 1].
        model: Of images of this shape.
        sigma: Of the noise, shape (B,); None to estimate it.
        method: A key of `METHODS`, or "auto": the best by the model's curve; without one, the first of
            `quick_methods`.
        batch_size: Images at a time.

    Raises:
        UsageError: If there is no such method.
        ModelError: If the model cannot be denoised with by this method.
    """
    if method != "auto" and method not in METHODS:
        raise UsageError(f"method {method!r}: choose from auto, {', '.join(METHODS)}")
    curve = stored_curve(model)
    sigma = (blind_sigma(y, model) if sigma is None else sigma).to(y)
    if method != "auto":
        chosen = [method] * len(y)
    elif curve is None:
        chosen = [quick_methods(model)[0]] * len(y)
    else:
        chosen = curve.best(y, sigma)
    out = torch.empty_like(y)
    for name in sorted(set(chosen)):
        function = METHODS.get(name, leave)
        rows = torch.tensor([name == other for other in chosen]).nonzero().flatten().to(y.device)
        for part in rows.split(batch_size):
            out[part] = function(y[part], model, sigma[part])
    return Denoised(out, sigma, chosen)
