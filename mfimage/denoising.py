"""Denoising by projection to the manifold."""

from __future__ import annotations

from typing import Any

from mfimage.inputs import ImageLike, in_batches, model_input
from mfimage.models import GenerativeModel


def denoise(image: ImageLike, model: GenerativeModel, batch_size: int = 256) -> Any:
    """Remove what does not lie on the manifold: x̂ = decode(encode(y)), cut to [0, 1].

    Args:
        image: A path, PIL image, numpy array (H, W), (H, W, C) or (B, H, W, C), or torch tensor (C, H, W) or
            (B, C, H, W); integers span their type's range, floats lie in [0, 1].
        model: A trained M-flow of the image's height and width.
        batch_size: Images at a time.

    Returns:
        The same kind, dimensions and dtype (a PIL image for a path).

    Raises:
        DataError: If the image cannot be read, is out of range, or is not of the model's size.
        ModelError: If the model has no manifold of images.

    Reference:
        Brehmer, Cranmer, 2020, arXiv 2003.13913, §2.2.
    """
    x, restore = model_input(image, model)
    return restore(in_batches(model.project, x, batch_size))  # which cuts
