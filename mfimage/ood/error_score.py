"""Out-of-distribution scores."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mfimage.inputs import ImageLike, in_batches, model_input
from mfimage.models import GenerativeModel


def reconstruction_score(x: Tensor, model: GenerativeModel) -> Tensor:
    """Mean squared residual a pixel, ‖x − x̂‖²/(C·H·W), shape (B,), for x (B, C, H, W) in [0, 1]."""
    return (model.project(x) - x).square().flatten(1).mean(1)


def score(image: ImageLike, model: GenerativeModel, batch_size: int = 256) -> Any:
    """Score how strange images are to a model by reconstruction error; higher is stranger.

    Args:
        image: As for `denoise`.
        model: A trained M-flow of the image's height and width.
        batch_size: Images at a time.

    Returns:
        A float in [0, ∞) for one image; for a batch (B,) float32 values, in numpy or torch as they came: mean
        squared residual a pixel, for pixels in [0, 1].

    Raises:
        DataError: If the image cannot be read, is out of range, or is not of the model's size.
        ModelError: If the model has no manifold of images.

    Reference:
        Brehmer, Cranmer, 2020, arXiv 2003.13913, §2.2.
    """
    x, _ = model_input(image, model)
    values = in_batches(lambda part: reconstruction_score(part, model), x, batch_size)
    if getattr(image, "ndim", 2) < 4:
        return float(values[0])
    return values.to(image.device) if isinstance(image, Tensor) else values.numpy()
