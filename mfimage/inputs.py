"""Any image, and the noise in it, for a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mfimage.config import Reading
from mfimage.datasets.convert import ImageLike, to_batch, white
from mfimage.datasets.decode import IMAGE_SUFFIXES
from mfimage.datasets.loading import Data, load
from mfimage.datasets.sets import Dataset
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.luma import GAIN, becomes_luma
from mfimage.models import GenerativeModel
from mfimage.noise import Gaussian, Noise, Poisson, PoissonGaussian
from mfimage.settings import whole_number

BEYOND = 8.0  # how far noise may carry a float outside [0, 1] if it is not told; up to 255 is another scale
AnyImages: TypeAlias = ImageLike | Data
Sigma: TypeAlias = float | Sequence[float] | np.ndarray | Tensor


def require_images(model: GenerativeModel) -> None:
    """Raise ModelError for models of vectors."""
    if len(model.shape) != 3:
        raise ModelError(f"a model of vectors, of length {model.shape[0]}: it takes no images")


def require_image_manifold(model: GenerativeModel) -> None:
    """Raise ModelError for models of vectors, and for flows that are their own projection."""
    require_images(model)
    if not model.has_manifold:
        raise ModelError(
            "an ambient flow has no manifold to project onto: denoise with method tweedie, score in Python "
            "with model.log_prob"
        )


def model_input(
    image: ImageLike, model: GenerativeModel, beyond: float = 0.0, projects: bool = True
) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Turn an image, or a batch, into what a model takes: (B, C, H, W) on its device, and the way back.

    Grey is repeated for a colour model, and the noise in it is then the same in all channels, which is not
    what the model was trained with; colour becomes luma for a grey one, see `luma`. Floats may lie
    `beyond` outside [0, 1]; with `projects` the model must have a manifold. Numbers are of the model's type.
    """
    (require_image_manifold if projects else require_images)(model)
    channels, height, width = model.shape
    x, restore = to_batch(image, beyond, channels)
    if x.shape[-2:] != (height, width):
        name = image if isinstance(image, str | Path) else "image"
        raise DataError(
            f"{name}: {x.shape[-2]} × {x.shape[-1]} pixels, but the model was trained on {height} × {width}: "
            "resize it first"
        )
    return x.to(model.device, _number_type(model)), restore


def _number_type(model: GenerativeModel) -> torch.dtype:
    """The type of a model's weights; ModelError for one in which a CPU cannot compute all that is needed."""
    found = next(model.parameters()).dtype
    if found in (torch.float16, torch.bfloat16):
        raise ModelError(
            f"a model of {str(found).removeprefix('torch.')} weights is too coarse: model.float()"
        )
    return found


def reach_of(noise: Noise | None) -> float:
    """Say how far outside [0, 1] noise may carry a float: 8 deviations of white, and 16 photons more."""
    if noise is None:
        return BEYOND
    reach = 8 * float(noise.variance(torch.ones(1, 1, 1, 1, dtype=torch.float64)).sqrt())
    return max(BEYOND, reach + (16 / noise.peak[0] if isinstance(noise, Poisson | PoissonGaussian) else 0.0))


def sigma_reach(sigma: Sigma | None, image: ImageLike) -> float:
    """Say the same of Gaussian noise, whose deviation is told in the image's scale."""
    if sigma is None or not isinstance(image, ImageLike):
        return BEYOND
    most = float(_deviations(sigma, image).max())
    return reach_of(Gaussian((most, most)))


def cleared(image: ImageLike, model: GenerativeModel, sigma: Sigma | None, size: int) -> Tensor:
    """Turn an image, or a batch, into what is scored, (B, C, H, W): cleared of noise if σ is given."""
    x, _ = model_input(image, model, beyond=0.0 if sigma is None else sigma_reach(sigma, image))
    if (known := model_sigma(sigma, image, model, len(x))) is None:
        return x
    rows = torch.arange(len(x))
    return in_batches(lambda part: model.clear(x[part], known[part]), rows, size).clamp(0, 1).to(x)


def image_batches(
    images: AnyImages, model: GenerativeModel, size: int, sigma: Sigma | None = None
) -> Iterator[Tensor]:
    """Give images as a model with a manifold takes them, `size` at a time, cleared of noise if σ is given.

    They are an image or a batch as for `model_input`; or a set, read a batch at a time; or what `load` takes:
    all splits, scaled and cropped to the model's size.
    """
    for part in _parts(images, model, size):
        yield from cleared(part, model, sigma, size).split(size)


def _parts(images: AnyImages, model: GenerativeModel, size: int) -> Iterable[ImageLike]:
    """An image, or a batch, as it is; a set a batch at a time."""
    if isinstance(images, Image.Image) or (
        isinstance(images, str | Path) and Path(images).suffix.lower() in IMAGE_SUFFIXES
    ):
        return [images]
    if isinstance(images, np.ndarray | Tensor):
        channels = images.shape[-1 if isinstance(images, np.ndarray) else 0] if images.ndim == 3 else 1
        if channels <= 4:  # more are a stack (N, H, W)
            return [images]
    if not isinstance(images, Dataset):
        images = load_like(images, "all", model)
    return images.batches(size)


def load_like(
    data: Data, split: str, model: GenerativeModel, reading: Reading = Reading(), limit: int | None = None
) -> Dataset:
    """Load a split in the shape of the images that a model takes; a `Dataset` must have it."""
    require_images(model)
    channels, height, width = model.shape
    if not isinstance(data, Dataset):
        return load(data, split, (height, width), channels, reading=reading, limit=limit)
    if data.shape != model.shape:
        raise DataError(f"{data.name}: images of shape {data.shape}, but the model's have {model.shape}")
    return data


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, size: int = 256) -> Tensor:
    """Apply a function of batches to many rows, `size` at a time, without gradients; results on the CPU."""
    return torch.cat([function(part).cpu() for part in x.split(whole_number("batch_size", size, 1))])


def given_sigma(sigma: Sigma | None, image: ImageLike, count: int) -> Tensor | None:
    """Bring the noise that a user names to units in which images lie in [0, 1], shape (count,); None stays.

    It is one number, or one an image, in the image's own scale: 0 … 255 for 8 bits, 0 … 65,535 for 16.
    """
    if sigma is None:
        return None
    values = _deviations(sigma, image)
    if len(values) not in (1, count):
        raise UsageError(f"sigma: one number or {count} are needed, one an image, not {len(values)}")
    return values.float().expand(count)


def model_sigma(sigma: Sigma | None, image: ImageLike, model: GenerativeModel, count: int) -> Tensor | None:
    """Give the noise that a user names as it is in what the model is given, which of colours may be luma."""
    known = given_sigma(sigma, image, count)
    if known is None or model.shape[0] != 1:
        return known
    return torch.where(becomes_luma(image, count), GAIN * known, known)


def _deviations(sigma: Sigma, image: ImageLike) -> Tensor:
    """Deviations on the scale of [0, 1], one or several, float64."""
    given = np.asarray(sigma.tolist() if isinstance(sigma, Tensor) else sigma)
    if given.dtype.kind not in "uif":
        raise UsageError(f"sigma {sigma}: a standard deviation is a number from 0")
    values = torch.from_numpy(given.astype(np.float64)).flatten() / white(image)
    if not len(values) or not bool((values.isfinite() & (values >= 0)).all()):
        raise UsageError(f"sigma {sigma}: a standard deviation is a number from 0")
    if bool((values > 4).any()):  # white noise of more leaves nothing to be seen
        raise UsageError(f"sigma {sigma}: of another scale than the image, whose white is {white(image):g}")
    return values
