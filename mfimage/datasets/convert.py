"""Images of any kind become a batch for a model, and a model's result becomes an image of that kind.

| given | read as | given back |
|---|---|---|
| path | any image file, upright by its EXIF | PIL image, mode L or RGB |
| PIL image | any mode as it lies (EXIF is not applied) | PIL image of that mode |
| numpy (H, W), (H, W, C), (B, H, W, C) | uint8, uint16, or floats in [0, 1] | same dimensions and type |
| torch (H, W), (C, H, W), (B, C, H, W) | uint8, or floats in [0, 1] | same dimensions, type and device |

C is 1 (grey), 2 (grey, alpha), 3 (colour) or 4 (colour, alpha). So numpy is channels last and torch channels
first, always: three dimensions are never a batch of grey images, and an array that fits only the other
order is refused. Transparency is laid on white, and what is given back is opaque. Palette images (mode P)
come back with a new palette of at most 256 colours. Integers are rounded to the nearest, floats clipped to
[0, 1]. A result with another number of channels than was given is made grey or repeated to fit; height and
width may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mfimage.datasets.decode import decode, open_picture, picture_values, picture_white
from mfimage.datasets.from_python import array_of_images
from mfimage.datasets.pixels import Pixels, as_float, over_white, type_white, unit, with_channels
from mfimage.errors import DataError, ModelError

ImageLike: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor
Restore: TypeAlias = Callable[[Tensor], Image.Image | np.ndarray | Tensor]

# Pillow converts to the straight form of these only.
_STRAIGHT = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}


def to_batch(image: ImageLike, beyond: float = 0.0) -> tuple[Tensor, Restore]:
    """Turn an image, or a batch of them, into a batch; see the table above.

    Args:
        image: Path, PIL image, numpy array or torch tensor.
        beyond: How far the floats of an array may lie outside [0, 1], as noise puts them; they stay there.

    Returns:
        The batch, (B, C, H, W) float32 in [0, 1] with C = 1 or 3 (on the tensor's device, else the CPU), and
        a function that takes a result (B, C', H', W') and gives it back as the kind of thing `image` is.

    Raises:
        DataError: The image is of another kind, shape or type, or its values lie outside their range.
    """
    if isinstance(image, str | Path):
        values = decode(image, str(image))
        return _tensor(values[None]), lambda x: _picture(x, "RGB" if values.shape[-1] == 3 else "L")
    if isinstance(image, Image.Image):
        mode = _STRAIGHT.get(image.mode, image.mode)
        return _tensor(picture_values(image, "image")[None]), lambda x: _picture(x, mode)
    if isinstance(image, np.ndarray | Tensor):
        return _from_array(image, beyond)
    raise DataError(
        f"an image is a path, a PIL image, a numpy array or a torch tensor, not {type(image).__name__}"
    )


def white(image: ImageLike) -> float:
    """Give the value of white in an image's own scale: 255 of 8 bits, 65,535 of 16, 1 of floats."""
    if isinstance(image, str | Path):
        with open_picture(image, str(image)) as picture:
            return picture_white(picture, str(image))
    if isinstance(image, Image.Image):
        return picture_white(image, "image")
    if isinstance(image, Tensor):
        return 255.0 if image.dtype == torch.uint8 else 1.0
    return type_white(image.dtype)


def _from_array(image: np.ndarray | Tensor, beyond: float) -> tuple[Tensor, Restore]:
    if isinstance(image, Tensor):
        what, order, types = "torch image", "(C, H, W)", "uint8"
        sound = image.dtype == torch.uint8 or image.is_floating_point()
    else:
        what, order, types = "numpy image", "(H, W, C)", "uint8, uint16"
        sound = image.dtype.kind == "f" or image.dtype.newbyteorder("=") in (np.uint8, np.uint16)
    if not sound:
        raise DataError(f"{what}: type {image.dtype} is not {types} or floating; convert it first")
    batch = array_of_images(image if image.ndim == 4 else image[None])
    batch = batch[..., None] if image.ndim == 2 else batch
    channels = batch.shape[-1] if batch.ndim == 4 else 0
    if channels not in (1, 2, 3, 4):
        raise DataError(
            f"{what}: shape {tuple(image.shape)} is not (H, W), {order} or a batch of {order}, "
            "with C from 1 to 4"
        )
    noisy = beyond > 0 and batch.dtype.kind == "f"
    values = unit(batch, what, (-beyond, 1 + beyond) if noisy else None)  # refuses what lies outside
    values = batch.astype(np.float32) if noisy else values
    values = over_white(values) if channels in (2, 4) else values

    def restore(x: Tensor) -> np.ndarray | Tensor:
        out = with_channels(_array(x, image.ndim < 4), 1 if channels < 3 else 3)
        if channels in (2, 4):
            out = np.concatenate([out, np.ones_like(out[..., :1])], axis=-1)
        return _like(image, out[0, ..., 0] if image.ndim == 2 else out[0] if image.ndim == 3 else out)

    device = image.device if isinstance(image, Tensor) else None
    return _tensor(values).to(device), restore


def _like(image: np.ndarray | Tensor, values: Pixels) -> np.ndarray | Tensor:
    """Floats in [0, 1] of an image's rank, channels last, as a thing of its kind and type."""
    if isinstance(image, np.ndarray):
        scaled = values if image.dtype.kind == "f" else np.rint(values * np.float64(white(image)))
        return scaled.astype(image.dtype)
    out = torch.from_numpy(values)
    out = out if image.ndim < 3 else out.movedim(-1, -3)
    out = (out * 255).round() if image.dtype == torch.uint8 else out
    return out.contiguous().to(image.device, image.dtype)


def _tensor(values: Pixels) -> Tensor:
    """(B, H, W, C) uint8 or float32 as a new (B, C, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(as_float(values), -1, 1)))


def _array(x: Tensor, single: bool) -> Pixels:
    """(B, C, H, W), of a single image with B = 1, as (B, H, W, C) float32 clipped to [0, 1]."""
    if single and len(x) != 1:
        raise ValueError(f"one image was given, {len(x)} came back")
    values = x.detach().to("cpu", torch.float32)
    if not values.isfinite().all():
        raise ModelError(
            "the resulting image holds values that are not finite; the model cannot be used on it"
        )
    return values.clamp(0, 1).movedim(1, -1).numpy()


def _picture(x: Tensor, mode: str) -> Image.Image:
    """(1, C, H, W) in [0, 1] as a PIL image of a mode."""
    grey = mode in ("1", "L", "LA", "I", "F") or mode.startswith("I;16")
    values = with_channels(_array(x, single=True)[0], 1 if grey else 3)
    if mode == "F":
        return Image.fromarray(values[..., 0])
    if mode.startswith("I"):
        deep = np.rint(values[..., 0] * np.float32(65535)).astype(np.uint16)
        return Image.fromarray(deep) if mode != "I" else Image.fromarray(deep.astype(np.int32))
    bytes_ = np.rint((values[..., 0] if grey else values) * np.float32(255)).astype(np.uint8)
    picture = Image.fromarray(bytes_)
    if mode == picture.mode:
        return picture
    return picture.convert(mode, dither=Image.Dither.NONE, palette=Image.Palette.ADAPTIVE)
