"""Noise of every kind, removed by what knows Gaussian noise, or has learned this kind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mfimage.denoising.curve import NOISY, Denoised, blind_sigma, curve_of, denoise_batch
from mfimage.denoising.estimation import fill_lost, guess_error, lost_values
from mfimage.denoising.kinds import Evidence, estimate_noise, structure
from mfimage.denoising.methods import quick_methods
from mfimage.eval.verdict import training_of
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.noise import Gaussian, Noise, Poisson, PoissonGaussian, SaltPepper

LEVELS = 6  # of noise, at which an image is denoised where its noise is not the same everywhere
_RATIO = 5.0  # of the most to the least of them with photons: less tells the network nothing more
_LEAST = 0.005  # σ of the lowest
_LEARNED = "refined"  # the method of "auto" for noise that the model was trained with
_AT_ONE = ("projection", "map", NOISY)  # methods that do not ask for σ, or search, or leave an image


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
    seen = seen or Evidence()
    done = _by_kind(y, model, estimate_noise(y, model, seen), method, batch_size)
    wrong = structure(y, done, seen)
    if wrong:
        other = denoise_batch(y[wrong], model, None, method, batch_size)
        done.image[wrong], done.sigma[wrong] = other.image, other.sigma
        for i, way, kind in zip(wrong, other.methods, other.noise, strict=True):
            done.methods[i], done.noise[i] = way, kind
    return done


def _by_kind(
    y: Tensor, model: GenerativeModel, noise: Sequence[Noise], method: str, batch_size: int
) -> Denoised:
    """Denoise images each by the way for its kind of noise."""
    image, sigma, methods = torch.empty_like(y), y.new_empty(len(y)), [""] * len(y)
    known = [_in_learned_terms(one, model) for one in noise]
    ways = [_as_learned if one else _WAYS[other.kind] for one, other in zip(known, noise, strict=True)]
    for way in dict.fromkeys(ways):
        rows = [i for i, other in enumerate(ways) if other is way]
        part = way(y[rows], model, [known[i] or noise[i] for i in rows], method, batch_size)
        image[rows], sigma[rows] = part.image, part.sigma
        for i, name in zip(rows, part.methods, strict=True):
            methods[i] = name
    return Denoised(image, sigma, methods, list(noise))


def _in_learned_terms(noise: Noise, model: GenerativeModel) -> Noise | None:
    """Turn noise into the kind that a model has learned to remove; None where it is no case of that.

    None too where that is Gaussian: the curve was measured with it. Photons' noise comes with σ or without.
    """
    kind = str(training_of(model).get("noise", Gaussian.kind)).partition(":")[0]
    if isinstance(noise, Poisson) and kind == PoissonGaussian.kind:
        return PoissonGaussian(noise.peak, (0.0, 0.0))
    if isinstance(noise, PoissonGaussian) and kind == Poisson.kind and noise.sigma[1] == 0:
        return Poisson(noise.peak)
    return noise if noise.kind == kind != Gaussian.kind else None


def suited(y: Tensor, model: GenerativeModel, noise: Noise) -> tuple[str, Tensor]:
    """Name the method that suits an image (1, C, H, W) of any size on the whole, and its noise, (1,)."""
    sigma = _whole_deviation(y, noise, model)
    if _in_learned_terms(noise, model):
        return _LEARNED, sigma
    curve = curve_of(model)
    return quick_methods(model)[0] if curve is None else curve.best(y, sigma)[0], sigma


def _whole_deviation(y: Tensor, noise: Noise, model: GenerativeModel) -> Tensor:
    """Deviation of an image's noise, and of what it has lost that of what is filled in; (1,)."""
    if noise.kind != SaltPepper.kind:
        return noise.deviation_seen(y)
    lost = lost_values(y, [noise.ranges[0][0]])
    filled = fill_lost(y, lost)
    local = torch.where(lost, guess_error(filled, lost), blind_sigma(filled, model))
    return _root_mean_square(local)


def _deviations(y: Tensor, noise: Sequence[Noise]) -> Tensor:
    return torch.cat([one.deviation_seen(x[None]) for one, x in zip(noise, y, strict=True)])


def _as_learned(
    y: Tensor, model: GenerativeModel, noise: Sequence[Noise], method: str, batch_size: int
) -> Denoised:
    return _even(y, model, noise, _LEARNED if method == "auto" else method, batch_size)


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
    lost = lost_values(y, [one.ranges[0][0] for one in noise])
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
    return fill_lost(y, lost_values(y, shares)) if any(shares) else y
