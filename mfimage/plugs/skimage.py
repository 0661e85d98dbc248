"""A denoiser in the style of `skimage.restoration`, which `calibrate_denoiser` can calibrate."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from skimage.util import img_as_float

from mfimage.denoising.restorer import Restorer
from mfimage.errors import DataError, UnfamiliarWarning
from mfimage.inputs import given_sigma, require_images
from mfimage.models import GenerativeModel

# Without a number, so that Python shows it once where many parameters are tried.
_UNFAMILIAR = "image far from what the model was trained on: what is made of it may be invented"


def denoise_mflow(
    image: np.ndarray,
    model: GenerativeModel,
    sigma: float | None = None,
    *,
    method: str = "auto",
    channel_axis: int | None = None,
) -> np.ndarray:
    """Remove noise with a manifold-learning flow.

    Args:
        image: (H, W), or with 3 channels (H, W, 3), of any type that `img_as_float` takes. An image larger
            than the model's is denoised in overlapping tiles.
        model: Of images with as many channels, such as `mfimage.from_pretrained` reads.
        sigma: Standard deviation of Gaussian noise in the image's own scale (0 … 255 for uint8); None to
            estimate what noise there is.
        method: As of `mfimage.denoise`.
        channel_axis: The axis of the channels; None if the image is grey.

    Returns:
        The image without noise, floats in [0, 1] of the same shape.

    Raises:
        DataError: If the image has other channels than the model's, or is smaller.
        UsageError: If there is no such method, or sigma is no deviation of this image.

    Warns:
        UnfamiliarWarning: The image is far from what the model was trained on.

    Example:
        >>> from functools import partial
        >>> from skimage.restoration import calibrate_denoiser
        >>> best = calibrate_denoiser(  # doctest: +SKIP
        ...     noisy, partial(denoise_mflow, model=model), {"sigma": [0.05, 0.1, 0.2]}
        ... )  # for colours also "channel_axis": [-1]
    """
    require_images(model)
    x = img_as_float(image)
    x = x[..., None] if channel_axis is None else np.moveaxis(x, channel_axis, -1)
    channels, height, width = model.shape
    if x.ndim != 3 or x.shape[2] != channels or x.shape[0] < height or x.shape[1] < width:
        raise DataError(
            f"image of shape {np.shape(image)} with channel_axis {channel_axis}: the model takes images of "
            f"{channels} channels and at least {height} × {width} pixels"
        )
    if not np.isfinite(x).all():
        raise DataError("image: holds values that are not finite (NaN or infinite)")
    level = given_sigma(sigma, np.asarray(image), 1)
    y = torch.from_numpy(x).movedim(-1, 0)[None].to(next(model.parameters()))
    tiled = x.shape[:2] != (height, width)
    restored = Restorer(model, method, None if level is None else float(level), tiled=tiled)(y)
    if float(restored.examination.strangeness) > 1:
        warnings.warn(_UNFAMILIAR, UnfamiliarWarning, stacklevel=2)
    clean = restored.after[0].movedim(0, -1).numpy().astype(x.dtype)
    return clean[..., 0] if channel_axis is None else np.moveaxis(clean, -1, channel_axis)
