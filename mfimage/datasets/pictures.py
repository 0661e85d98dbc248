"""Images as tensors: write them as PNG files, put many into one, damage them to see it undone.

>>> import torch
>>> from mfimage.datasets.pictures import gaussian_noise, missing_pixels
>>> x, generator = torch.full((1, 1, 28, 28), 0.5), torch.Generator().manual_seed(0)
>>> noisy = gaussian_noise(x, 0.1, generator)  # for denoise(noisy, model, sigma=0.1)
>>> holed, mask = missing_pixels(x, 0.3, generator)  # for inpaint(holed, mask, model)
>>> f"{(noisy - x).std():.2f} {mask.float().mean():.2f}"
'0.10 0.30'
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mfimage.datasets.formats import encode_png
from mfimage.errors import DataError, UsageError
from mfimage.files import whole

_FRAME = 100  # milliseconds of an image that moves
_LONGEST = 240  # bytes of a name before its number and its suffix


def array_of(image: Tensor, name: str = "image", white: int = 255) -> np.ndarray:
    """Turn an image (C, H, W) or (H, W) into the array that Pillow takes, (H, W) or (H, W, 3).

    It is uint8 with 255 for white, or uint16 with 65,535.

    C is 1 or 3; values are clipped to [0, 1] and rounded to the nearest. DataError, with the name, for other
    shapes and values that are not finite.
    """
    values = image.detach().to("cpu", torch.float32)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or len(values) not in (1, 3) or not values.isfinite().all():
        raise DataError(
            f"{name}: an image of shape {tuple(image.shape)} with finite values is needed: (1 or 3, H, W)"
        )
    scaled = values.clamp(0, 1).mul(white).round().movedim(0, -1).numpy()
    pixels = scaled.astype(np.uint8 if white == 255 else np.uint16)
    return np.ascontiguousarray(pixels[..., 0] if len(values) == 1 else pixels)


def save_png(image: Tensor, path: str | Path, deep: bool = False) -> None:
    """Write an image as a PNG of 8 bits, or 16 if `deep`, whole or not at all.

    See `array_of`, and `files.whole` for errors.
    """
    content = encode_png(array_of(image, str(path), 65535 if deep else 255))
    with whole(Path(path)) as temporary:
        temporary.write_bytes(content)


def save_gif(images: Iterable[Tensor], path: str | Path) -> None:
    """Write images, as `save_png` takes them, as a GIF that runs there and back without an end, or nothing.

    A GIF has 256 colours, which are scattered.
    """
    there = [Image.fromarray(array_of(image, str(path))) for image in images]
    frames, stream = [*there, *there[-2:0:-1]], io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=_FRAME, loop=0)
    with whole(Path(path)) as temporary:
        temporary.write_bytes(stream.getvalue())


def save_pngs(
    images: Iterable[Tensor],
    names: Sequence[str],
    folder: str | Path,
    used: set[str] | None = None,
    deep: Sequence[bool] = (),
) -> list[Path]:
    """Write images as FOLDER/NAME.png, numbered where a name comes again; return the paths.

    Args:
        images: As `save_png` takes them; a tensor (N, C, H, W) is so many.
        names: One an image.
        folder: Is made if need be.
        used: Names of earlier calls for this folder, to which those of this one are added.
        deep: Which of them get 16 bits a channel; none if empty.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    written = png_paths(names, folder, set() if used is None else used)
    for image, path, more in zip(images, written, deep or [False] * len(written), strict=True):
        save_png(image, path, more)
    return written


def png_paths(names: Sequence[str], folder: str | Path, used: set[str]) -> list[Path]:
    """Return FOLDER/NAME.png of each name, numbered where it was used before; `used` gets them all."""
    paths = []
    for name in map(_short, names):
        unique, number = name, 1
        while unique in used:
            number += 1
            unique = f"{name}-{number}"
        used.add(unique)
        paths.append(Path(folder) / f"{unique}.png")
    return paths


def _short(name: str) -> str:
    """Cut a name so that a number and a suffix fit after it, as file systems limit names to 255 bytes."""
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return name


def sheet(images: Tensor, columns: int, pad: int = 2) -> Tensor:
    """Put images into one picture, row by row, on white.

    Args:
        images: (N, C, H, W) floats in [0, 1], N ≥ 1.
        columns: How many beside each other.
        pad: White pixels between and around them.

    Returns:
        (C, rows · (H + pad) + pad, columns · (W + pad) + pad) of the same type and device, where rows is
        N / columns rounded up.
    """
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    out = images.new_ones(channels, rows * (height + pad) + pad, columns * (width + pad) + pad)
    for i, image in enumerate(images):
        top, left = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        out[:, top : top + height, left : left + width] = image
    return out


def gaussian_noise(x: Tensor, sigma: float, generator: torch.Generator, clip: bool = True) -> Tensor:
    """Add independent normal noise to every value.

    y = x + σ ε,   ε ~ N(0, 1)

    Args:
        x: Images of any shape, floats in [0, 1].
        sigma: Standard deviation σ ≥ 0 on the scale of [0, 1].
        generator: Draws the noise on its own device, so that a CPU generator gives the same on any.
        clip: Clip the result to [0, 1], as a camera would; without it the noise stays exactly Gaussian.

    Returns:
        The shape, type and device of x.
    """
    noise = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
    noisy = x + sigma * noise.to(x.device)
    return noisy.clamp(0, 1) if clip else noisy


def missing_pixels(x: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lose pixels of images (B, C, H, W), in all channels at once; UsageError for a share outside [0, 1].

    y = 0 where the mask m is True, else x;   m ~ Bernoulli(share)

    Returns y, like x, and m, (B, 1, H, W) bool, True where a pixel is missing, as scikit-image has it.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"share: between 0 and 1, not {share}")
    size = (x.shape[0], 1, *x.shape[2:])
    drawn = torch.rand(size, generator=generator, device=generator.device, dtype=x.dtype)
    mask = (drawn < share).to(x.device)
    return x.masked_fill(mask, 0.0), mask
