"""A picture of what was given beside what was made of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mfimage.datasets.pictures import save_png, sheet
from mfimage.datasets.pixels import resize
from mfimage.denoising.restorer import Restored

SHOWN = 32  # groups on the sheet, at most
_GROUPS = 4  # images beside each other on the sheet, each with what it was
_NAMED = 48  # pixels that the name of a column needs
_HEAD, _PAD = 18, 2  # pixels of the line of names, and between images


def thumbnails(restored: Restored, clean: Tensor | None, size: tuple[int, int], most: int) -> list[Tensor]:
    """Scale before, after and, if known, clean of the first images to a size: each (2 or 3, C, h, w)."""

    def scaled(image: Tensor) -> Tensor:
        values = np.ascontiguousarray(image.movedim(0, -1).float().numpy())
        return torch.from_numpy(resize(values, size)).movedim(-1, 0)

    rows = [restored.before, restored.after, *([] if clean is None else [clean])]
    return [torch.stack([scaled(row[i]) for row in rows]) for i in range(min(most, len(restored.after)))]


def save_sheet(groups: Sequence[Tensor], path: Path) -> None:
    """Write a picture of groups, a few beside each other, columns under their names: before, after, clean."""
    names = ("before", "after", "clean")[: len(groups[0])] * min(_GROUPS, len(groups))
    images, across = torch.cat(list(groups)), len(names)
    times = -(-_NAMED // images.shape[3])
    images = images.repeat_interleave(times, 2).repeat_interleave(times, 3)
    drawn = sheet(images, across, _PAD)
    head = Image.new("L", (drawn.shape[2], _HEAD), "white")
    for column, name in enumerate(names):
        left = _PAD + column * (images.shape[3] + _PAD)
        ImageDraw.Draw(head).text((left, 2), name, "black", ImageFont.load_default(12))
    above = torch.from_numpy(np.array(head)).expand(len(drawn), -1, -1) / 255
    save_png(torch.cat([above, drawn], 1), path)
