"""Noise as it is: what kind it is, and how what knows Gaussian noise, or this kind, removes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
_AT_ONE = ("projection", "map", NOISY)  # methods that do not ask for σ, or search, or leave an image
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
def remove_noise(
    y: Tensor,
    model: GenerativeModel,
    noise: Sequence[Noise] | None = None,
    method: str = "auto",
    batch_size: int = 256,
    seen: Evidence | None = None,
) -> Denoised:
    """Denoise images (B, C, H, W), clean ones in [0, 1], of the noise that each has; None: it is estimated.

    Gaussian noise is that of `denoise_batch`, and correlated noise is treated so. Where the variance differs
    between places, an image is denoised at a few σ and each pixel taken from that of its own: with photons
    √(a·x̂ + b), x̂ the image denoised at the mean; of lost values, which are filled in from their neighbours,
    the error of such a guess. All is done by the method that suits the mean; where that is to leave the
    image as it is, it is left. Where there is more noise in colours than in brightness, the image with the
    colours that were found is denoised again, at the σ of brightness. A model that has learned noise of this
    kind, or of one of which it is a case, gets the image as it is.

    What looks like photons' noise may be structure of bright things: if the denoiser takes off far less than
    that much, the noise counts as Gaussian. Five images or more are judged together, as from one camera, if
    half of them look so: by the median of those that do. Otherwise a large image is judged alone, and a small
    one counts as Gaussian. Images of a run that come in batches are judged with those before them, if `seen`,
    made once for the run, is given to each batch.
    """
    if noise is not None:
        return _by_kind(y, model, noise, method, batch_size)
    seen = Evidence() if seen is None else seen
    done = _by_kind(y, model, estimate_noise(y, model, seen), method, batch_size)
    wrong = structure(y, done, seen)
    if wrong:
        other = denoise_batch(y[wrong], model, None, method, batch_size)
        done.image[wrong], done.sigma[wrong] = other.image, other.sigma
        for i, way, kind in zip(wrong, other.methods, other.noise, strict=True):
            done.methods[i], done.noise[i] = way, kind
    return done


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
    a, b = _together(a, b, photons, Evidence() if seen is None else seen)
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
    few = sigma < _LEAST / 2
    return Poisson((peak, peak)) if few else PoissonGaussian((peak, peak), (min(sigma, 1.0),) * 2)


def structure(y: Tensor, done: Denoised, seen: Evidence | None = None) -> list[int]:
    """Name the rows that were taken for photons' noise, or colours', and keep too much: structure."""
    seen = Evidence() if seen is None else seen
    rows = [i for i, one in enumerate(done.noise) if isinstance(one, Poisson | PoissonGaussian)]
    taken = (y - done.image).flatten(1).square().mean(1) / done.sigma.square().clamp_min(1e-12)
    kept = [i for i, one in enumerate(done.noise) if isinstance(one, Colour) and not taken[i] >= _TAKEN_OFF]
    seen.images += len(y)
    seen.taken += taken[rows].nan_to_num(0, 0, 0).tolist()
    together = seen.images >= _SEVERAL and 2 * len(seen.taken) >= seen.images
    if together and taken.new_tensor(seen.taken).median() >= _USUALLY_OFF:
        return kept
    return kept + [i for i in rows if y[i].numel() < _ALONE or not taken[i] >= _TAKEN_OFF]


def _by_kind(
    y: Tensor, model: GenerativeModel, noise: Sequence[Noise], method: str, batch_size: int
) -> Denoised:
    """Denoise images each by the way for its kind of noise."""
    image, sigma, methods = torch.empty_like(y), y.new_empty(len(y)), [""] * len(y)
    known = learned(model)
    meant = [in_terms_of(one, known) for one in noise]
    for kind in dict.fromkeys(one.kind for one in meant):
        rows = [i for i, one in enumerate(meant) if one.kind == kind]
        way = _as_learned if kind == known else _WAYS[kind]
        part = way(y[rows], model, [meant[i] for i in rows], method, batch_size)
        image[rows], sigma[rows] = part.image, part.sigma
        for i, name in zip(rows, part.methods, strict=True):
            methods[i] = name
    return Denoised(image, sigma, methods, list(noise))


def learned(model: GenerativeModel) -> str | None:
    """The kind of noise that a model has learned to remove, where it is not Gaussian."""
    text = model.measured.get(TRAINED, {}).get("noise", "gaussian")
    kind = str(text).partition(":")[0]
    return None if kind == Gaussian.kind else kind


def in_terms_of(noise: Noise, kind: str | None) -> Noise:
    """Turn noise into the kind that a model has learned, if it is a case of that: photons with or without σ.

    Gaussian noise stays: the curve was measured with it, whatever the model has learned.
    """
    if isinstance(noise, Poisson) and kind == PoissonGaussian.kind:
        return PoissonGaussian(noise.peak, (0.0, 0.0))
    if isinstance(noise, PoissonGaussian) and kind == Poisson.kind and noise.sigma[1] == 0:
        return Poisson(noise.peak)
    return noise


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
    return _at_levels(y, model, torch.maximum(local, least).sqrt(), first, batch_size)


def _lost_values(
    y: Tensor, model: GenerativeModel, noise: Sequence[Noise], method: str, batch_size: int
) -> Denoised:
    lost = lost_values(y, torch.stack([y.new_full((), one.ranges[0][0]) for one in noise]))
    whole = fill_lost(y, lost)
    sigma, guess = blind_sigma(whole, model), guess_error(whole, lost)
    first = denoise_batch(whole, model, sigma, method, batch_size)
    if not model.noise_aware or method in _AT_ONE:
        return first
    names = [method if name == NOISY else name for name in first.methods]
    again = _each(whole, model, guess, names, batch_size)
    local = torch.where(lost, guess.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)).to(y)
    image = torch.where(lost, again.image, first.image)
    return Denoised(image, _root_mean_square(local), again.methods, first.noise)


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
    y: Tensor, model: GenerativeModel, local: Tensor, first: Denoised, batch_size: int
) -> Denoised:
    """Denoise at a few σ, and take each pixel from that of its own, `local` (B, C, H, W), straight in log σ.

    `first` is the image denoised at one σ, and all is done by its method. It stays where that does not ask
    for σ, searches or leaves the image as it is, and where σ is nowhere 0.005.
    """
    most = local.flatten(1).amax(1).tolist()
    rows = [i for i, name in enumerate(first.methods) if name not in _AT_ONE and most[i] >= _LEAST]
    if not model.noise_aware or not rows:
        return first
    local = local[rows].clamp_min(_LEAST)
    low, high = local.flatten(1).amin(1), local.flatten(1).amax(1)
    ratio = (high / low).clamp_min(1.001)
    place = (local / low.view(-1, 1, 1, 1)).log() / ratio.log().view(-1, 1, 1, 1) * (LEVELS - 1)
    names, total = [first.methods[i] for i in rows], torch.zeros_like(local)
    for level in range(LEVELS):
        sigma = low * ratio ** (level / (LEVELS - 1))
        part = _each(y[rows], model, sigma, names, batch_size).image
        total += part * (1 - (place - level).abs()).clamp_min(0)
    image, deviation = first.image.clone(), first.sigma.clone()
    image[rows], deviation[rows] = total, _root_mean_square(local)
    return Denoised(image, deviation, first.methods, first.noise)


def _each(
    y: Tensor, model: GenerativeModel, sigma: Tensor, methods: Sequence[str], batch_size: int
) -> Denoised:
    """Denoise images (B, C, H, W) each by a method of its own."""
    image, used = torch.empty_like(y), [""] * len(y)
    for name in dict.fromkeys(methods):
        rows = [i for i, other in enumerate(methods) if other == name]
        part = denoise_batch(y[rows], model, sigma[rows], name, batch_size)
        image[rows] = part.image
        for i, method in zip(rows, part.methods, strict=True):
            used[i] = method
    return Denoised(image, sigma, used, [])


def _root_mean_square(local: Tensor) -> Tensor:
    return local.square().flatten(1).mean(1).sqrt()


def without_lost(y: Tensor, noise: Sequence[Noise]) -> Tensor:
    """Fill in the values that images (B, C, H, W) have lost to salt and pepper; the others stay."""
    shares = [one.ranges[0][0] if one.kind == SaltPepper.kind else 0.0 for one in noise]
    return (
        fill_lost(y, lost_values(y, torch.stack([y.new_full((), one) for one in shares])))
        if any(shares)
        else y
    )


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
