"""The public function: any kind of image in, the same kind out."""

from __future__ import annotations

from typing import Any

from mfimage.denoising.choosing import apply
from mfimage.denoising.sigma import Sigma, given_sigma
from mfimage.inputs import ImageLike, model_input
from mfimage.models import GenerativeModel

_BEYOND = 4.0  # how far noise may carry a float outside [0, 1]; values up to 255 are another scale


def denoise(
    image: ImageLike,
    model: GenerativeModel,
    sigma: Sigma | None = None,
    method: str = "auto",
    batch_size: int = 256,
) -> Any:
    """Remove noise with a model of what such images look like; the result is cut to [0, 1].

    Args:
        image: A path, PIL image, numpy array (H, W), (H, W, C) or (B, H, W, C), or torch tensor (C, H, W) or
            (B, C, H, W); integers span their type's range. Floats of clean images lie in [0, 1]; where noise
            carries them beyond they are best left there, since cutting them off loses what they tell.
        model: Trained on images of this height and width.
        sigma: Standard deviation of the noise in the image's own scale (0 … 255 for uint8), one number or
            one an image; None to estimate it from the image.
        method: "projection" to the manifold, "soft" shrinkage of the coordinates, "cycle-spin" (soft,
            averaged over shifts), "map" (the most probable point of the manifold), "tweedie" (one step up the
            density), or "auto": the best of them by the model's own validation curve (`map` apart, which
            takes far longer), or the image as it is, where the noise is less than the model's error.
        batch_size: Images at a time.

    Returns:
        The same kind, dimensions and dtype (a PIL image for a path).

    Raises:
        DataError: If the image cannot be read, is out of range, or is not of the model's size.
        ModelError: If the model has not what the method needs, or is one of vectors.
        UsageError: If there is no such method, or sigma is no deviation of these images.

    Example:
        >>> clean = denoise("shoe.png", model)  # doctest: +SKIP
        >>> clean = denoise(noisy_uint8, model, sigma=25)  # doctest: +SKIP
    """
    y, restore = model_input(image, model, beyond=_BEYOND, projects=False)
    known = None if sigma is None else given_sigma(sigma, image, len(y))
    return restore(apply(y, model, known, method, batch_size).image.cpu())  # which cuts
