"""Images of any kind become a batch for a model, and a model's result becomes an image of that kind.

| given | read as | given back |
|---|---|---|
| path | any image file, upright by its EXIF | PIL image, mode L, I;16 (deeper grey), F (floats) or RGB |
| PIL image | any mode as it lies (EXIF is not applied) | PIL image of that mode |
| numpy (H, W), (H, W, C), (B, H, W, C) | see `unit` | same dimensions and type |
| torch (H, W), (C, H, W), (B, C, H, W) | see `unit` | same dimensions, type and device |

Numbers span their type: booleans are black and white, floats lie in [0, 1], integers from 0 to their maximum.
C is 1 (grey), 2 (grey, alpha), 3 (colour) or 4 (colour, alpha). So numpy is channels last and torch channels
first, always: three dimensions are never a batch of grey images, and an array that fits only the other
order is refused. Transparency is laid on white, and what is given back is opaque. Palette images (mode P)
come back with a new palette of at most 256 colours. Integers are rounded to the nearest, floats clipped to
[0, 1]. A result with another number of channels than was given is made grey or repeated to fit; height and
width may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mfimage.datasets.decode import file_white, open_picture, picture_values, picture_white, read_file
from mfimage.datasets.from_python import array_of_images, pixels_of
from mfimage.datasets.pixels import Pixels, as_float, type_white, with_channels
from mfimage.errors import DataError, ModelError

ImageLike: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor
Restore: TypeAlias = Callable[[Tensor], Image.Image | np.ndarray | Tensor]

_GREY = ("1", "L", "LA", "La", "I", "F")  # modes of Pillow
# Pillow converts to the straight form of these only.
_STRAIGHT = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}


def to_batch(image: ImageLike, beyond: float = 0.0, channels: int | None = None) -> tuple[Tensor, Restore]:
    """Turn an image, or a batch of them, into a batch; see the table above.

    Args:
        image: Path, PIL image, numpy array or torch tensor.
        beyond: How far floats may lie outside [0, 1], as noise puts them; they stay there. At infinity they
            may be anything, NaN too.
        channels: 1 for luma (rounded in images of 8 bits, as a data set has it), 3 for colour, None for 1
            where the image is grey and 3 where not.

    Returns:
        The batch, (B, C, H, W) float32 in [0, 1] with C = 1 or 3 (on the tensor's device, else the CPU), and
        a function that takes a result (B, C', H', W') and gives it back as the kind of thing `image` is.

    Raises:
        DataError: The image is of another kind, shape or type, or its values lie outside their range.
    """
    if isinstance(image, str | Path):
        values, mode = read_file(image, str(image), beyond=beyond)
        return _tensor(values[None], channels), lambda x: _picture(x, mode, 65535.0)
    if isinstance(image, Image.Image):
        values, mode = picture_values(image, "image", beyond=beyond), _STRAIGHT.get(image.mode, image.mode)
        return _tensor(values[None], channels), lambda x: _picture(x, mode, picture_white(image, "image"))
    if isinstance(image, np.ndarray | Tensor):
        return _from_array(image, beyond, channels)
    raise DataError(
        f"an image is a path, a PIL image, a numpy array or a torch tensor, not {type(image).__name__}"
    )


def white(image: ImageLike) -> float:
    """Give the value of white in an image's own scale: 255 of 8 bits, 65,535 of 16, 1 of floats."""
    if isinstance(image, str | Path):
        return file_white(image)
    if isinstance(image, Image.Image):
        return picture_white(image, "image")
    return type_white(_numpy_type(image))


def floats_like(result: Image.Image | np.ndarray | Tensor, x: Tensor, white: float) -> np.ndarray | Tensor:
    """Give numbers about an image, such as deviations, its dimensions and scale: floats, arrays for pictures.

    Args:
        result: What `to_batch` gave back.
        x: A number for each value of the batch it came from, (B, C, H, W), where white is 1, in [0, 1].
        white: In the scale of the result.

    Returns:
        float32 (of float64 images that), a tensor for a tensor, of the result's dimensions; of a picture
        (H, W), or (H, W, 3). Transparency has 0.
    """
    like: Any
    if isinstance(result, Image.Image):
        like = np.zeros((result.height, result.width, *((3,) if kind_of(result).colour else ())), np.float32)
    elif isinstance(result, Tensor):
        like = torch.zeros_like(result, dtype=result.dtype if result.is_floating_point() else torch.float32)
    else:
        like = np.zeros_like(result, dtype=result.dtype if result.dtype.kind == "f" else np.float32)
    out: Any = to_batch(like)[1](x)
    axis = -1 if isinstance(out, np.ndarray) else -3
    if out.ndim > 2 and out.shape[axis] in (2, 4):
        (out[..., -1] if axis == -1 else out[..., -1, :, :])[...] = 0
    return out * white


@dataclass(frozen=True)
class Kind:
    """What an image has besides its grey values."""

    colour: bool
    clear: bool  # whether it may be transparent


def kind_of(image: ImageLike) -> Kind:
    """Tell what an image, or a batch, has besides grey values; of a file by its header."""
    if isinstance(image, str | Path):
        with open_picture(image, str(image)) as picture:
            return kind_of(picture)
    if isinstance(image, Image.Image):
        grey = image.mode in _GREY or image.mode.startswith("I;16")
        return Kind(not grey, image.has_transparency_data)
    channels = image.shape[-1 if isinstance(image, np.ndarray) else -3] if image.ndim > 2 else 1
    return Kind(channels > 2, channels in (2, 4))


def _numpy_type(image: np.ndarray | Tensor) -> np.dtype:
    if isinstance(image, np.ndarray):
        return image.dtype
    return np.dtype(np.float32) if image.is_floating_point() else image[:0].cpu().numpy().dtype


def _from_array(image: np.ndarray | Tensor, beyond: float, wanted: int | None) -> tuple[Tensor, Restore]:
    what, order = ("torch image", "(C, H, W)") if isinstance(image, Tensor) else ("numpy image", "(H, W, C)")
    batch = array_of_images(image if image.ndim == 4 else image[None])
    batch = batch[..., None] if image.ndim == 2 else batch
    channels = batch.shape[-1] if batch.ndim == 4 else 0
    if channels not in (1, 2, 3, 4):
        raise DataError(
            f"{what}: shape {tuple(image.shape)} is not (H, W), {order} or a batch of {order}, "
            "with C from 1 to 4"
        )
    values = pixels_of(batch, what, beyond=beyond)

    def restore(x: Tensor) -> np.ndarray | Tensor:
        out = with_channels(_array(x, image.ndim < 4), 1 if channels < 3 else 3)
        if channels in (2, 4):
            out = np.concatenate([out, np.ones_like(out[..., :1])], axis=-1)
        return _like(image, out[0, ..., 0] if image.ndim == 2 else out[0] if image.ndim == 3 else out)

    device = image.device if isinstance(image, Tensor) else None
    return _tensor(values, wanted).to(device), restore


def _like(image: np.ndarray | Tensor, values: Pixels) -> np.ndarray | Tensor:
    """Floats in [0, 1] of an image's rank, channels last, as a thing of its kind and type."""
    scaled = _scaled(values, _numpy_type(image))
    if isinstance(image, np.ndarray):
        return scaled
    out = torch.from_numpy(scaled)
    out = out if image.ndim < 3 else out.movedim(-1, -3)
    return out.contiguous().to(image.device, image.dtype)


def _scaled(values: Pixels, dtype: np.dtype) -> Pixels:
    """Floats in [0, 1] as numbers of a type, rounded to the nearest where they are whole."""
    if dtype.kind == "f":
        return values.astype(dtype)
    scaled = np.rint(values * np.float64(type_white(dtype)))
    top = scaled >= type_white(dtype)  # which in 64 bits is rounded to more than there is
    out = (scaled * ~top).astype(dtype)
    out[top] = 1 if dtype.kind == "b" else np.iinfo(dtype).max
    return out


def _tensor(values: Pixels, channels: int | None) -> Tensor:
    """(B, H, W, C) uint8 or float32 as a new (B, C, H, W) float32 in [0, 1], grey or colour as wanted."""
    values = as_float(with_channels(values, channels))
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 1)))


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


def _picture(x: Tensor, mode: str, white: float) -> Image.Image:
    """(1, C, H, W) in [0, 1] as a PIL image of a mode; `white` is for mode I."""
    grey = mode in ("1", "L", "LA", "I", "F") or mode.startswith("I;16")
    values = with_channels(_array(x, single=True)[0], 1 if grey else 3)
    if mode == "F":
        return Image.fromarray(values[..., 0])
    if mode == "I":  # which has the numbers of uint32 as those of int32
        whole = np.rint(values[..., 0] * np.float64(white)).astype(np.int64)
        return Image.fromarray(whole.astype(np.int32))
    if mode.startswith("I"):
        order = {"B": ">u2", "N": "=u2"}.get(mode[-1], "<u2")
        deep = _scaled(values[..., 0], np.dtype(np.uint16)).astype(order)
        return Image.frombytes(mode, deep.shape[::-1], deep.tobytes())
    bytes_ = np.rint((values[..., 0] if grey else values) * np.float32(255)).astype(np.uint8)
    picture = Image.fromarray(bytes_)
    if mode == picture.mode:
        return picture
    return picture.convert(mode, dither=Image.Dither.NONE, palette=Image.Palette.ADAPTIVE)
