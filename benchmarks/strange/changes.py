"""What is done to familiar images to make strange ones: to their tones, to where things are, to what is seen.

Each takes images x (B, C, H, W) in [0, 1], what draws, and settings, of which it raises UsageError for those
that make no sense; values may leave [0, 1], see `families.Family.of`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor
from torch.nn import functional as F

from mfimage.errors import UsageError

Change = Callable[..., Tensor]


def within(name: str, value: float, low: float, high: float) -> None:
    """Raise UsageError unless a setting lies in [low, high]."""
    if not low <= value <= high:
        raise UsageError(f"{name} lies between {low:g} and {high:g}, and is not {value:g}")


def blend(x: Tensor, draw: np.random.Generator, *, weight: float = 0.5) -> Tensor:
    """(1 − weight)·x + weight·y, y another of the images."""
    within("weight", weight, 0, 1)
    return torch.lerp(x, another(x, draw), weight)


def another(x: Tensor, draw: np.random.Generator) -> Tensor:
    """Give each image another one: each stands for one, and none for itself."""
    if len(x) < 2:
        raise UsageError("another image is needed, and there is one alone")
    order = torch.from_numpy(draw.permutation(len(x)))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return x[partner]


def contrast(x: Tensor, draw: np.random.Generator, *, factor: float = 0.6) -> Tensor:
    """Nearer to the image's mean m, or farther: m + factor·(x − m)."""
    within("factor", factor, 0, 20)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + factor * (x - mean)


def brightness(x: Tensor, draw: np.random.Generator, *, shift: float = 0.2) -> Tensor:
    """Brighter, or darker: x + shift."""
    within("shift", shift, -1, 1)
    return x + shift


def gamma(x: Tensor, draw: np.random.Generator, *, gamma: float = 2.0) -> Tensor:
    """Values to the power of gamma."""
    within("gamma", gamma, 0.01, 100)
    return x**gamma


def hue(x: Tensor, draw: np.random.Generator, *, turn: float = 0.25) -> Tensor:
    """Colours turned by a part of the circle of hues."""
    from skimage.color import hsv2rgb, rgb2hsv

    if x.shape[1] != 3:
        raise UsageError("hue is of images in colour, and these are grey")
    hsv = rgb2hsv(x.numpy(), channel_axis=1)
    hsv[:, 0] = (hsv[:, 0] + turn) % 1
    return torch.from_numpy(hsv2rgb(hsv, channel_axis=1))


def posterise(x: Tensor, draw: np.random.Generator, *, levels: int = 4) -> Tensor:
    """So many levels of each value."""
    within("levels", levels, 2, 256)
    return (x * (levels - 1)).round() / (levels - 1)


def blur(x: Tensor, draw: np.random.Generator, *, sigma: float = 1.5) -> Tensor:
    """Gaussian blur of a deviation in pixels."""
    within("sigma", sigma, 0, 100)
    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="nearest"))


def pixelate(x: Tensor, draw: np.random.Generator, *, block: int = 2) -> Tensor:
    """Squares of so many pixels, each of one value."""
    within("block", block, 1, min(x.shape[-2:]))
    small = F.avg_pool2d(x, block, ceil_mode=True, count_include_pad=False)
    return small.repeat_interleave(block, 2).repeat_interleave(block, 3)[..., : x.shape[2], : x.shape[3]]


def elastic(x: Tensor, draw: np.random.Generator, *, strength: float = 1.5, smooth: float = 4.0) -> Tensor:
    """Pixels moved by smooth noise: `strength` pixels in the mean square, the same over `smooth` pixels."""
    within("strength", strength, 0, 1000)
    within("smooth", smooth, 0, 1000)
    height, width = x.shape[-2:]
    grid, moved = np.mgrid[:height, :width].astype(float), []
    for image in x.numpy():
        field = gaussian_filter(draw.normal(size=(2, height, width)), (0, smooth, smooth), mode="wrap")
        where = grid + strength * field / np.sqrt(np.mean(field**2) + 1e-30)
        moved.append([map_coordinates(plane, where, order=1, mode="nearest") for plane in image])
    return torch.from_numpy(np.array(moved))


def cut_and_paste(
    x: Tensor, draw: np.random.Generator, *, share: float = 0.15, other: bool = False
) -> Tensor:
    """A rectangle of a share of the area, from elsewhere in the image or from any place of another one.

    Li, Sohn, Yoon, Pfister, CutPaste, 2021, arXiv 2104.04015.
    """
    within("share", share, 0, 1)
    source, out = (another(x, draw) if other else x), x.clone()
    sides = np.array(x.shape[-2:])
    for image, origin in zip(out, source, strict=True):
        shape = math.sqrt(share) * sides * np.exp(draw.uniform(-0.35, 0.35) * np.array([1, -1]))
        h, w = np.clip(shape.round().astype(int), 1, sides)
        (top, to), (left, there) = (
            draw.integers(0, side - n + 1, 2) for side, n in zip(sides, (h, w), strict=True)
        )
        image[:, to : to + h, there : there + w] = origin[:, top : top + h, left : left + w]
    return out


def text(
    x: Tensor, draw: np.random.Generator, *, words: str = "SAMPLE", size: int = 10, opacity: float = 1.0,
    tone: float = 1.0,
) -> Tensor:  # fmt: skip
    """Words laid over each image, somewhere; `size` in pixels, `tone` from black, 0, to white, 1."""
    within("size", size, 1, 1000)
    within("opacity", opacity, 0, 1)
    within("tone", tone, 0, 1)
    font, (height, width) = ImageFont.load_default(size), x.shape[-2:]
    left, top, right, bottom = font.getbbox(words)
    masks = []
    for _ in range(len(x)):
        mask = Image.new("L", (width, height))
        place = [draw.uniform(*sorted((0, free))) for free in (width - right + left, height - bottom + top)]
        ImageDraw.Draw(mask).text((place[0] - left, place[1] - top), words, 255, font)
        masks.append(np.asarray(mask))
    return torch.lerp(x, torch.full_like(x, tone), opacity * torch.from_numpy(np.stack(masks))[:, None] / 255)


def upside_down(x: Tensor, draw: np.random.Generator) -> Tensor:
    """Top and bottom exchanged."""
    return x.flip(2)


def mirror(x: Tensor, draw: np.random.Generator) -> Tensor:
    """Left and right exchanged."""
    return x.flip(3)


def turn(x: Tensor, draw: np.random.Generator, *, degrees: float = 90.0) -> Tensor:
    """Turned to the left; by other than right angles between pixels, with edges drawn out."""
    if degrees % 90 == 0 and x.shape[2] == x.shape[3]:
        return x.rot90(int(degrees // 90), (2, 3))
    from scipy.ndimage import rotate

    return torch.from_numpy(rotate(x.numpy(), degrees, (3, 2), reshape=False, order=1, mode="nearest"))


def shuffle(x: Tensor, draw: np.random.Generator) -> Tensor:
    """Pixels in another order, the same for all images."""
    return x.flatten(2)[..., torch.from_numpy(draw.permutation(x[0, 0].numel()))].view_as(x)


def hide(x: Tensor, draw: np.random.Generator, *, share: float = 0.5, tone: float = 0.0) -> Tensor:
    """A share of each image, from the left, of one tone."""
    within("share", share, 0, 1)
    within("tone", tone, 0, 1)
    out = x.clone()
    out[..., : round(share * x.shape[-1])] = tone
    return out


CHANGES: dict[str, Change] = {
    one.__name__: one
    for one in (
        blend, contrast, brightness, gamma, hue, posterise, blur, pixelate, elastic, cut_and_paste, text,
        upside_down, mirror, turn, shuffle, hide,
    )
}  # fmt: skip
