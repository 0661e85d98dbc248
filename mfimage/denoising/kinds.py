"""What kind of noise images have: as it is named, as they show it themselves, as it is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mfimage.console import counted
from mfimage.denoising.curve import Denoised, blind_sigma
from mfimage.denoising.estimation import lost_share, variance_line
from mfimage.denoising.methods import wavelet_sigma
from mfimage.errors import UsageError
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.noise import Colour, Gaussian, Noise, Poisson, PoissonGaussian, SaltPepper, parse_noise

_PHOTONS = 0.7  # share of the variance that rises with brightness, from which it is taken for photons'
_TAKEN_OFF = 0.65  # share of such variance that is taken off where it is noise; of structure it is less
_SEVERAL, _USUALLY_OFF = 5, 0.45  # images that are judged together, by the median of that share
_ENOUGH, _ALONE = 400, 4000  # values of an image, from which it tells more than σ; and tells photons alone
_ALIKE = 2.0  # ratio of quartiles of the gain a, below which such images have one line together
_NO_READING = 0.0025  # σ of reading below which noise is that of photons alone
_COLOURED = 1.5  # times the noise in brightness that is in colours, from which they differ


def fixed_noise(text: str) -> Noise:
    """Read the noise of images to be denoised, of one number each; UsageError for a range."""
    noise = parse_noise(text)
    if not noise.fixed:
        raise UsageError(
            f"noise {text}: one number is needed, not a range; without it the noise is estimated"
        )
    return noise


@dataclass
class Evidence:
    """What the images of a run have shown of their noise: each batch adds to it and is judged by all."""

    images: int = 0  # that were judged
    lines: list[tuple[float, float]] = field(default_factory=list)  # a and b of those that look like photons
    taken: list[float] = field(default_factory=list)  # share of that variance that was taken off, of each


@plainly
@torch.no_grad()
def estimate_noise(y: Tensor, model: GenerativeModel, seen: Evidence | None = None) -> list[Noise]:
    """Find the kind of noise of each image (B, C, H, W) and its numbers; Gaussian without clear evidence.

    Structure is nearly all in brightness: colours with more of the finest details than that have noise of
    their own. More noise in brightness cannot be told from structure. A model that can only project has no
    use for more than σ, and a very small image does not tell it. What earlier images have shown helps.
    """
    gaussian: list[Noise] = [Gaussian((s, s)) for s in blind_sigma(y, model).tolist()]
    if not model.noise_aware or y[:1].numel() < _ENOUGH:
        return gaussian
    a, b = variance_line(y)
    bright = a * y.flatten(1).mean(1).clamp_min(0)
    photons = (bright > 0) & (bright >= _PHOTONS * (bright + b))
    lost = lost_share(y)
    photons &= lost == 0
    a, b = _together(a, b, photons, seen or Evidence())
    columns = (values.tolist() for values in (photons, lost, a, b.sqrt()))
    numbers = zip(_coloured(y, gaussian), *columns, strict=True)
    found: list[Noise] = []
    for even, many, share, gain, rest in numbers:
        of_photons = _photons(1 / gain, rest) if many and even.kind == Gaussian.kind else even
        found.append(SaltPepper((share, share)) if share > 0 else of_photons)
    return found


def _coloured(y: Tensor, gaussian: Sequence[Noise]) -> list[Noise]:
    """Replace the noise of images (B, C, H, W) that have clearly more of it in their colours."""
    channels, grey = y.shape[1], y.mean(1, keepdim=True)
    if channels == 1:
        return list(gaussian)
    luminance = wavelet_sigma(grey * channels**0.5)
    chroma = wavelet_sigma((y - grey) * (channels / (channels - 1)) ** 0.5)
    pairs = zip(gaussian, luminance.clamp_max(1.0).tolist(), chroma.clamp_max(1.0).tolist(), strict=True)
    return [
        even if high <= _COLOURED * low else Colour((low, low), (high, high)) for even, low, high in pairs
    ]


def _together(a: Tensor, b: Tensor, photons: Tensor, seen: Evidence) -> tuple[Tensor, Tensor]:
    """Take the median line of images with photons' noise, and of those seen, if their gains are alike."""
    seen.lines += zip(a[photons].tolist(), b[photons].tolist(), strict=True)
    if len(seen.lines) < _SEVERAL:
        return a, b
    gains, rests = a.new_tensor(seen.lines).unbind(1)
    if not gains.quantile(0.75) < _ALIKE * gains.quantile(0.25):
        return a, b
    return a.where(~photons, gains.median()), b.where(~photons, rests.median())


def _photons(peak: float, sigma: float) -> Noise:
    peak = min(max(peak, Poisson.limits[0][0]), Poisson.limits[0][1])
    return (
        Poisson((peak, peak))
        if sigma < _NO_READING
        else PoissonGaussian((peak, peak), (min(sigma, 1.0),) * 2)
    )


def structure(y: Tensor, done: Denoised, seen: Evidence | None = None) -> list[int]:
    """Name the rows that were taken for photons' noise, or colours', and keep too much: structure."""
    seen = seen or Evidence()
    rows = [i for i, one in enumerate(done.noise) if isinstance(one, Poisson | PoissonGaussian)]
    taken = (y - done.image).flatten(1).square().mean(1) / done.sigma.square().clamp_min(1e-12)
    kept = [i for i, one in enumerate(done.noise) if isinstance(one, Colour) and not taken[i] >= _TAKEN_OFF]
    seen.images += len(y)
    seen.taken += taken[rows].nan_to_num(0, 0, 0).tolist()
    together = seen.images >= _SEVERAL and 2 * len(seen.taken) >= seen.images
    if together and taken.new_tensor(seen.taken).median() >= _USUALLY_OFF:
        return kept
    return kept + [i for i in rows if y[i].numel() < _ALONE or not taken[i] >= _TAKEN_OFF]


def assumed(noise: Sequence[str]) -> str:
    """Say what noise, as `Noise.brief`, was assumed of how many images; nothing where it was all Gaussian."""
    kinds = [text.partition(":")[0] for text in noise]
    if set(kinds) <= {Gaussian.kind}:
        return ""
    parts = []
    for kind in dict.fromkeys(kinds):
        own = [text for text, other in zip(noise, kinds, strict=True) if other == kind]
        name = own[0] if len(set(own)) == 1 else kind
        parts.append(f"{name} in {counted(len(own), 'image')}")
    return f"noise: {', '.join(parts)}"
