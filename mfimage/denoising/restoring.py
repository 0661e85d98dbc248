"""Denoise, inpaint and enlarge images: any kind of image in, the same kind out."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.datasets.convert import floats_like, kind_of, to_batch, white
from mfimage.datasets.pixels import unit
from mfimage.denoising.examination import how_strange
from mfimage.denoising.inverse import agreed, require_posterior, solve
from mfimage.denoising.kinds import fixed_noise
from mfimage.denoising.operators import Downsample, Mask
from mfimage.denoising.removal import remove_noise
from mfimage.denoising.uncertainty import calibration_of
from mfimage.errors import ChangedWarning, DataError, UnfamiliarWarning, UsageError
from mfimage.inputs import ImageLike, Sigma, model_input, model_sigma, reach_of, require_images, sigma_reach
from mfimage.luma import becomes_luma, in_luma, unscaled
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.noise import Gaussian, Noise

_NAMED = 10  # images of a batch that a warning names
_ROUNDS = 20  # of filling a hole from the projection before the search


def denoise(
    image: ImageLike,
    model: GenerativeModel,
    sigma: Sigma | None = None,
    method: str = "auto",
    batch_size: int = 256,
    noise: str | None = None,
    uncertainty: bool = False,
) -> Any:
    """Remove noise with a model of what such images look like; the result is cut to [0, 1].

    Args:
        image: A path, PIL image, numpy array (H, W), (H, W, C) or (B, H, W, C), or torch tensor (C, H, W) or
            (B, C, H, W); integers span their type's range. Floats of clean images lie in [0, 1]; where noise
            carries them beyond they are best left there, since cutting them off loses what they tell.
        model: Trained on images of this height and width.
        sigma: Standard deviation of the noise in the image's own scale (0 … 255 for uint8), one number or
            one an image, of Gaussian noise; None to estimate from the images what noise they have. It is that
            of each channel: where colour becomes luma for a grey model it is scaled so, by .669, and so is
            `noise`. A grey image is repeated for a model of colours, with the same noise in all channels.
        method: "projection" to the manifold, "refined" (what a network that knows the noise leaves, near the
            manifold), "soft" (its coordinates shrunk), "map" (the most probable point of the
            manifold), "tweedie" (one step up the density), or "auto": the best of them by the model's own
            validation curve (`map` apart, which takes far longer), or the image as it is, where the noise is
            less than the model's error.
        batch_size: Images at a time.
        noise: In the place of sigma, on the scale of [0, 1]: "poisson:30" (photons of white),
            "poisson-gaussian:30,0.02", "salt-pepper:0.1", …; see `mfimage.noise`.
        uncertainty: Tell, too, how far the result may be from the truth.

    Returns:
        The same kind, dimensions and dtype (a PIL image for a path). With `uncertainty` a pair: that, and the
        standard deviation of each value's error in the image's own scale, floats of the same dimensions (an
        array for a picture). Of images like those trained on, with Gaussian noise, 68 % of the values are
        within one, and 95 % within two.

    Raises:
        DataError: If the image cannot be read, is out of range, or is not of the model's size.
        ModelError: If the model has not what the method needs, is one of vectors, or gives no finite image;
            if its uncertainty with this method was not measured at the end of training.
        UsageError: If there is no such method or noise, or sigma is no deviation of these images.

    Warns:
        UnfamiliarWarning: Images are far from what the model was trained on, see `familiarity.strangeness`;
            with noise other than Gaussian only if the model has measured that.
        ChangedWarning: Colour or transparency is lost, or what luma does not tell of the noise.

    Example:
        >>> clean = denoise("shoe.png", model)  # doctest: +SKIP
        >>> clean = denoise(noisy_uint8, model, sigma=25)  # doctest: +SKIP
        >>> clean, std = denoise(noisy_uint8, model, uncertainty=True)  # doctest: +SKIP
    """
    named = None if noise is None else fixed_noise(noise)
    if named is not None and sigma is not None:
        raise UsageError("sigma and noise both say what noise there is: choose one")
    beyond = max(sigma_reach(sigma, image), reach_of(named))
    y, restore = model_input(image, model, beyond, projects=False)
    if (errors := calibration_of(model) if uncertainty else None) is not None:
        errors.require(method)
    known = _noise_of_each(image, model, sigma, named, len(y))
    denoised = remove_noise(y, model, known, method, batch_size)
    _warn(image, model, how_strange(y, model, denoised), named)
    result = restore(denoised.image.cpu())  # which cuts
    if errors is None:
        return result
    return result, floats_like(result, denoised.deviation(y, errors).cpu(), white(image))


def _noise_of_each(
    image: ImageLike, model: GenerativeModel, sigma: Sigma | None, named: Noise | None, count: int
) -> list[Noise] | None:
    """The noise that is told of each image, as it is in what the model is given; None if none is."""
    if (deviation := model_sigma(sigma, image, model, count)) is not None:
        return [Gaussian((s, s)) for s in deviation.tolist()]
    if named is None:
        return None
    if model.shape[0] != 1:
        return [named] * count
    return [in_luma(named) if luma else named for luma in becomes_luma(image, count).tolist()]


def _warn(
    image: ImageLike, model: GenerativeModel, strange: Tensor | None = None, noise: Noise | None = None
) -> None:
    """Warn of what results cannot keep, and of images that the model does not know."""
    kind = kind_of(image)
    if kind.colour and model.shape[0] == 1:
        warnings.warn("the model is one of grey images: colour is lost", ChangedWarning, stacklevel=3)
        if noise is not None and (words := unscaled(noise)):
            warnings.warn(words, ChangedWarning, stacklevel=3)
    if kind.clear:
        warnings.warn("transparency is laid on white: the result is opaque", ChangedWarning, stacklevel=3)
    far = [] if strange is None else (strange.isfinite() & (strange > 1)).nonzero().flatten().tolist()
    if strange is None or not far:
        return
    which = f"{image}: " if isinstance(image, str | Path) else ""
    if len(strange) > 1:
        listed = ", ".join(map(str, far[:_NAMED])) + ", …" * (len(far) > _NAMED)
        which = f"{len(far)} of {len(strange)} images ({listed}): "
    times = f"{float(strange[far].max()):.1f} times the limit"
    words = f"{which}far from what the model was trained on ({times}): what is made of it may be invented"
    warnings.warn(words, UnfamiliarWarning, stacklevel=3)


def inpaint(
    image: ImageLike, mask: np.ndarray | Tensor, model: GenerativeModel, sigma: Sigma | None = None
) -> Any:
    """Fill in missing pixels from the most probable point of the manifold, and from those around them.

    x̂ = y where known, g(u*) where missing,   u* = argmin ‖A g(u) − y‖²/2σ² − log p_h(u),   A clears the rest;
    a model that learned noise then clears away what does not fit between the two, see `inverse.agreed`.

    Args:
        image: As for `denoise`; what the missing pixels hold does not matter, NaN neither. The known ones lie
            in [0, 1], unless `sigma` tells of noise.
        mask: True (not 0) where a pixel is missing, (H, W), or (B, H, W) for a batch, as in
            `skimage.restoration.inpaint_biharmonic`.
        model: A manifold and a density on it.
        sigma: Standard deviation of the noise in the known pixels, as for `denoise`; they too are then taken
            from the manifold. None: they are clean and stay, and σ is the model's own misfit on them.

    Returns:
        The same kind, dimensions and dtype (a PIL image for a path).

    Raises:
        DataError: If the image cannot be read, or it or the mask is not of the model's size.
        ModelError: If the model has no manifold of images, or no density on its codes.
        UsageError: If sigma is not positive.

    Warns:
        ChangedWarning: Colour or transparency is lost.
    """
    x, restore = model_input(image, model, beyond=math.inf)
    missing = mask_of(mask, x)
    known = known_pixels(x, missing, 0.0 if sigma is None else sigma_reach(sigma, image))
    filled = restore(fill(known, missing, model, model_sigma(sigma, image, model, len(x))))
    _warn(image, model)
    return filled


def known_pixels(x: Tensor, missing: Tensor, beyond: float) -> Tensor:
    """Clear missing pixels; DataError unless the others are finite and at most so far outside [0, 1]."""
    known = x.masked_fill(missing, 0.0)
    unit(known.cpu().numpy(), "known pixels", beyond=beyond)
    return known if beyond else known.clamp(0, 1)


def mask_of(mask: np.ndarray | Tensor, x: Tensor) -> Tensor:
    """Turn a mask (H, W) or (B, H, W) into (B, 1, H, W), bool, for images x; DataError if it does not fit."""
    given = mask if isinstance(mask, Tensor) else torch.from_numpy(_numbers_of(mask))
    missing = given.to(x.device) != 0
    missing = missing[None] if missing.ndim == 2 else missing
    if missing.ndim != 3 or missing.shape[1:] != x.shape[2:] or len(missing) not in (1, len(x)):
        raise DataError(
            f"mask: shape {tuple(given.shape)}, but {len(x)} images of {x.shape[-2]} × "
            f"{x.shape[-1]} pixels need (H, W) or (B, H, W)"
        )
    return missing[:, None].expand(len(x), -1, -1, -1)


def _numbers_of(mask: Any) -> np.ndarray:
    numbers = np.asarray(mask)
    if numbers.dtype.kind not in "buif":
        raise DataError(f"mask: True or not 0 where a pixel is missing, not {numbers.dtype}")
    return numbers != 0


@plainly
@torch.no_grad()
def fill(y: Tensor, missing: Tensor, model: GenerativeModel, sigma: Tensor | float | None = None) -> Tensor:
    """Inpaint a batch (B, C, H, W) under a mask (B, 1, H, W), bool; see `inpaint`. The result is not clipped.

    The search starts where the hole, first filled from the middle of the model's density, no longer changes
    much when it is filled from its own projection.
    """
    require_posterior(model)
    middle = model.decode(model.push_forward(y.new_zeros(1, model.dim)))
    mask, filled = Mask(missing), middle.where(missing, y)
    for _ in range(_ROUNDS):
        filled = mask.completed(model.project(filled), y)
    start = model.encode(filled)
    known = (~missing).sum((1, 2, 3)) * y.shape[1]
    misfit = mask.forward(model.decode(start) - y).square().sum((1, 2, 3)) / known.clamp_min(1)
    found = solve(mask.forward(y), mask, model, _deviation(sigma, misfit), start)
    return agreed(found, y, mask, model) if sigma is None else found


def super_resolve(image: ImageLike, factor: int, model: GenerativeModel, sigma: Sigma | None = None) -> Any:
    """Enlarge images to the model's size by the most probable point of the manifold.

    x̂ = argmin ‖x − g(u*)‖ over x in [0, 1] with A x = y,   u* = argmin ‖A g(u) − y‖²/2σ² − log p_h(u),
    where A averages blocks; a model that learned noise first clears g(u*) of what images do not have, see
    `inverse.agreed`.

    Args:
        image: As for `denoise`, but smaller than the model by the factor.
        factor: Of both sides; 2 and 4 are usual.
        model: A manifold and a density on it.
        sigma: Noise in the image, as for `denoise`; the result is then g(u*) alone. None: it is
            clean, the result has these block means, in the model's channels and but for rounding, and σ is
            the model's own misfit.

    Returns:
        The same kind and dtype, factor times as high and wide.

    Raises:
        DataError: If the image cannot be read, or is not of the model's size over the factor.
        ModelError: If the model has no manifold of images, or no density on its codes.
        UsageError: If the factor does not divide the model's size, or sigma is not positive.

    Warns:
        ChangedWarning: Colour or transparency is lost.
    """
    operator = Downsample(factor)
    beyond = 0.0 if sigma is None else sigma_reach(sigma, image)
    x, restore = to_batch(image, beyond)
    require_images(model)
    small = operator.size(*model.shape[-2:])
    if tuple(x.shape[-2:]) != small:
        name = image if isinstance(image, str | Path) else "image"
        raise DataError(
            f"{name}: {x.shape[-2]} × {x.shape[-1]} pixels, but a model of {model.shape[1]} × "
            f"{model.shape[2]} makes its images from {small[0]} × {small[1]} by a factor of {factor}"
        )
    enlarged, _ = model_input(operator.enlarged(x), model, beyond)  # for its channels and device
    known = model_sigma(sigma, image, model, len(x))
    large = restore(enlarge(operator.forward(enlarged), operator.factor, model, known))
    _warn(image, model)
    return large


@plainly
@torch.no_grad()
def enlarge(y: Tensor, factor: int, model: GenerativeModel, sigma: Tensor | float | None = None) -> Tensor:
    """Super-resolve a batch (B, C, h, w); see `super_resolve`. The search starts at the bicubic image."""
    require_posterior(model)
    operator = Downsample(factor)
    smooth = F.interpolate(y, scale_factor=factor, mode="bicubic", align_corners=False)
    start = model.encode(smooth)
    misfit = (operator.forward(model.decode(start)) - y).square().mean((1, 2, 3))
    found = solve(y, operator, model, _deviation(sigma, misfit), start)
    if sigma is not None:
        return found
    return operator.completed_within(agreed(found, y, operator, model), y)


def _deviation(sigma: Tensor | float | None, misfit: Tensor) -> Tensor:
    """The noise that is known, or the model's mean squared misfit, as a deviation an image."""
    if sigma is None:
        return misfit.sqrt().clamp_min(1e-3)
    given = torch.as_tensor(sigma).to(misfit).expand(misfit.shape)
    if not bool((given > 0).all()):
        raise UsageError("sigma: the noise's standard deviation is positive; leave it out for clean images")
    return given
