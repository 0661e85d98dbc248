"""Noise as it is: what kind it is, and how what knows Gaussian noise, or this kind, removes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mfimage.console import counted
from mfimage.denoising.curve import NOISY, Denoised, blind_sigma, denoise_batch
from mfimage.denoising.estimation import fill_lost, guess_error, lost_share, lost_values, variance_line
from mfimage.denoising.methods import wavelet_sigma
from mfimage.errors import UsageError
from mfimage.eval.verdict import TRAINED
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.noise import Colour, Gaussian, Noise, Poisson, PoissonGaussian, SaltPepper, parse_noise

LEVELS = 6  # of noise, at which an image is denoised where its noise is not the same everywhere
_RATIO = 5.0  # of the most to the least of them with photons: less tells the network nothing more
_LEAST = 0.005  # σ of the lowest
_PHOTONS = 0.7  # share of the variance that rises with brightness, from which it is taken for photons'
_TAKEN_OFF = 0.65  # share of such variance that is taken off where it is noise; of structure it is less
_SEVERAL, _USUALLY_OFF = 5, 0.45  # images that are judged together, by the median of that share
_ENOUGH, _ALONE = 400, 4000  # values of an image, from which it tells more than σ; and tells photons alone
_ALIKE = 2.0  # ratio of quartiles of the gain a, below which such images have one line together
_COLOURED = 1.5  # times the noise in brightness that is in colours, from which they differ


def fixed_noise(text: str) -> Noise:
    """Read the noise of images to be denoised, of one number each; UsageError for a range."""
    noise = parse_noise(text)
    if not noise.fixed:
        raise UsageError(
            f"noise {text}: one number is needed, not a range; without it the noise is estimated"
        )
    return noise


@plainly
@torch.no_grad()
def remove_noise(
    y: Tensor,
    model: GenerativeModel,
    noise: Sequence[Noise] | None = None,
    method: str = "auto",
    batch_size: int = 256,
) -> Denoised:
    """Denoise images (B, C, H, W), clean ones in [0, 1], of the noise that each has; None: it is estimated.

    Gaussian noise is that of `denoise_batch`, and correlated noise is treated so. Where the variance differs
    between places, an image is denoised at a few σ and each pixel taken from that of its own: with photons
    √(a·x̂ + b), x̂ the image denoised at the mean; of lost values, which are filled in from their neighbours,
    the error of such a guess. Where there is more noise in colours than in brightness, the image with the
    colours that were found is denoised again, at the σ of brightness. A model that has learned noise of this
    kind gets the image as it is.

    What looks like photons' noise may be structure of bright things: if the denoiser takes off far less than
    that much, the noise counts as Gaussian. Five images or more are judged together, as from one camera: half
    of them must look so. A small image is not judged alone.
    """
    if noise is not None:
        return _by_kind(y, model, noise, method, batch_size)
    done = _by_kind(y, model, estimate_noise(y, model), method, batch_size)
    wrong = structure(y, done)
    if wrong:
        other = denoise_batch(y[wrong], model, None, method, batch_size)
        done.image[wrong], done.sigma[wrong] = other.image, other.sigma
        for i, way, kind in zip(wrong, other.methods, other.noise, strict=True):
            done.methods[i], done.noise[i] = way, kind
    return done


@plainly
@torch.no_grad()
def estimate_noise(y: Tensor, model: GenerativeModel) -> list[Noise]:
    """Find the kind of noise of each image (B, C, H, W) and its numbers; Gaussian without clear evidence.

    Structure is nearly all in brightness: colours with more of the finest details than that have noise of
    their own. More noise in brightness cannot be told from structure. A model that can only project has no
    use for more than σ, and a very small image does not tell it.
    """
    gaussian: list[Noise] = [Gaussian((s, s)) for s in blind_sigma(y, model).tolist()]
    if not model.noise_aware or y[:1].numel() < _ENOUGH:
        return gaussian
    a, b = variance_line(y)
    bright = a * y.flatten(1).mean(1).clamp_min(0)
    photons = (bright > 0) & (bright >= _PHOTONS * (bright + b))
    lost = lost_share(y, lost_values(y)).tolist()
    a, b = _together(a, b, photons)
    numbers = zip(_coloured(y, gaussian), photons.tolist(), lost, a.tolist(), b.sqrt().tolist(), strict=True)
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


def _together(a: Tensor, b: Tensor, photons: Tensor) -> tuple[Tensor, Tensor]:
    """Take the median line of several images with photons' noise, if their gains are alike."""
    gains = a[photons]
    if len(gains) < _SEVERAL or not gains.quantile(0.75) < _ALIKE * gains.quantile(0.25):
        return a, b
    return a.where(~photons, gains.median()), b.where(~photons, b[photons].median())


def _photons(peak: float, sigma: float) -> Noise:
    peak = min(max(peak, Poisson.limits[0][0]), Poisson.limits[0][1])
    few = sigma < _LEAST / 2
    return Poisson((peak, peak)) if few else PoissonGaussian((peak, peak), (min(sigma, 1.0),) * 2)


def structure(y: Tensor, done: Denoised) -> list[int]:
    """Name the rows that were taken for photons' noise, or colours', and keep too much: structure."""
    rows = [i for i, one in enumerate(done.noise) if isinstance(one, Poisson | PoissonGaussian)]
    taken = (y - done.image).flatten(1).square().mean(1) / done.sigma.square().clamp_min(1e-12)
    kept = [i for i, one in enumerate(done.noise) if isinstance(one, Colour) and not taken[i] >= _TAKEN_OFF]
    if len(y) < _SEVERAL:
        return kept + [i for i in rows if y[i].numel() < _ALONE or not taken[i] >= _TAKEN_OFF]
    borne_out = 2 * len(rows) >= len(y) and taken[rows].median() >= _USUALLY_OFF
    return kept if borne_out else kept + rows


def _by_kind(
    y: Tensor, model: GenerativeModel, noise: Sequence[Noise], method: str, batch_size: int
) -> Denoised:
    """Denoise images each by the way for its kind of noise."""
    image, sigma, methods = torch.empty_like(y), y.new_empty(len(y)), [""] * len(y)
    known = _learned(model)
    for kind in dict.fromkeys(one.kind for one in noise):
        rows = [i for i, one in enumerate(noise) if one.kind == kind]
        way = _as_learned if kind == known else _WAYS[kind]
        part = way(y[rows], model, [noise[i] for i in rows], method, batch_size)
        image[rows], sigma[rows] = part.image, part.sigma
        for i, name in zip(rows, part.methods, strict=True):
            methods[i] = name
    return Denoised(image, sigma, methods, list(noise))


def _learned(model: GenerativeModel) -> str | None:
    """The kind of noise that a model has learned to remove, where it is not Gaussian."""
    text = model.measured.get(TRAINED, {}).get("noise", "gaussian")
    kind = str(text).partition(":")[0]
    return None if kind == Gaussian.kind else kind


def _deviations(y: Tensor, noise: Sequence[Noise]) -> Tensor:
    return torch.cat([one.deviation_seen(x[None]) for one, x in zip(noise, y, strict=True)])


def _as_learned(
    y: Tensor, model: GenerativeModel, noise: Sequence[Noise], method: str, batch_size: int
) -> Denoised:
    """Denoise noise of the kind that the model was trained with: "auto" is the network that learned it."""
    method = "refined" if method == "auto" else method
    return denoise_batch(y, model, _deviations(y, noise), method, batch_size)


def _even(
    y: Tensor, model: GenerativeModel, noise: Sequence[Noise], method: str, batch_size: int
) -> Denoised:
    return denoise_batch(y, model, _deviations(y, noise), method, batch_size)


def _photon_noise(
    y: Tensor, model: GenerativeModel, noise: Sequence[Noise], method: str, batch_size: int
) -> Denoised:
    first = denoise_batch(y, model, _deviations(y, noise), method, batch_size)
    local = torch.cat([one.variance(x[None]) for one, x in zip(noise, first.image.clamp(0, 1), strict=True)])
    least = local.flatten(1).amax(1).view(-1, 1, 1, 1) / _RATIO**2
    return _at_levels(y, model, torch.maximum(local, least).sqrt(), first, method, batch_size)


def _lost_values(
    y: Tensor, model: GenerativeModel, noise: Sequence[Noise], method: str, batch_size: int
) -> Denoised:
    lost = lost_values(y)
    whole = fill_lost(y, lost)
    sigma = blind_sigma(whole, model)
    first = denoise_batch(whole, model, sigma, method, batch_size)
    local = torch.where(lost, guess_error(whole, lost).view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)).to(y)
    return _at_levels(whole, model, local, first, method, batch_size)


def _colours_first(
    y: Tensor, model: GenerativeModel, noise: Sequence[Noise], method: str, batch_size: int
) -> Denoised:
    done = _even(y, model, noise, method, batch_size)
    luminance, chroma = (y.new_tensor([one.ranges[i][0] for one in noise]) for i in (0, 1))
    rows = (chroma > luminance) & model.noise_aware & (y.shape[1] > 1)
    if rows.any():
        near = y.mean(1, keepdim=True) + done.image - done.image.mean(1, keepdim=True)
        again = denoise_batch(near[rows], model, luminance[rows], method, batch_size)
        done.image[rows] = again.image
        for i, name in zip(rows.nonzero().flatten().tolist(), again.methods, strict=True):
            done.methods[i] = done.methods[i] if name == NOISY else name
    return done


_WAYS = {
    "gaussian": _even, "correlated": _even, "salt-pepper": _lost_values, "colour": _colours_first,
    "poisson": _photon_noise, "poisson-gaussian": _photon_noise,
}  # fmt: skip


def _at_levels(
    y: Tensor, model: GenerativeModel, local: Tensor, first: Denoised, method: str, batch_size: int
) -> Denoised:
    """Denoise at a few σ, and take each pixel from that of its own, `local` (B, C, H, W), straight in log σ.

    `first` is the image denoised at one σ: it stays where the method does not ask for σ, or searches.
    """
    if not model.noise_aware or method in ("projection", "map"):
        return first
    local = local.clamp_min(_LEAST)
    low, high = local.flatten(1).amin(1), local.flatten(1).amax(1)
    ratio = (high / low).clamp_min(1.001)
    place = (local / low.view(-1, 1, 1, 1)).log() / ratio.log().view(-1, 1, 1, 1) * (LEVELS - 1)
    image = torch.zeros_like(y)
    for level in range(LEVELS):
        sigma = low * ratio ** (level / (LEVELS - 1))
        part = denoise_batch(y, model, sigma, method, batch_size).image
        image += part * (1 - (place - level).abs()).clamp_min(0)
    deviation = local.square().flatten(1).mean(1).sqrt()
    return Denoised(image, deviation, first.methods, first.noise)


def without_lost(y: Tensor, noise: Sequence[Noise]) -> Tensor:
    """Fill in the values that images (B, C, H, W) have lost to salt and pepper; the others stay."""
    rows = torch.tensor([one.kind == SaltPepper.kind for one in noise], device=y.device)
    return torch.where(rows.view(-1, 1, 1, 1), fill_lost(y, lost_values(y)), y) if rows.any() else y


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
