"""The page of `mfimage denoise`: images before and after, and what was taken from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mfimage.denoising.restorer import Restored
from mfimage.denoising.told import Row, noise_of, outcome, quality_of
from mfimage.eval.page import Page, Picture, Section, Slider, picture

SLIDES = 24  # images on the page, at most
_SIDE = 512  # pixels; of a larger image the middle is shown, since a smaller copy would have less noise
_PIXELS = 3_000_000  # of all pictures on the page, about
_STEP = 1 / 255  # of a difference, which is not magnified beyond


@dataclass(frozen=True, eq=False)
class Slide:
    """An image before and after, (C, H, W); if known, how unsure the model is, and the clean image."""

    before: Tensor
    after: Tensor
    unsure: Tensor | None = None
    clean: Tensor | None = None

    @property
    def size(self) -> int:
        """Pixels of its pictures."""
        return (3 + (self.unsure is not None) + (self.clean is not None)) * self.after[0].numel()


def slides_of(restored: Restored, taken: Sequence[Slide], clean: Tensor | None = None) -> list[Slide]:
    """Take the first images of a batch, of large ones the middle, while there is room beside those taken."""
    slides, room = list[Slide](), _PIXELS - sum(slide.size for slide in taken)
    for i, (before, after) in enumerate(zip(restored.before, restored.after, strict=True)):
        count = len(taken) + len(slides)
        if count == SLIDES or (count and room <= 0):
            break
        unsure = None if restored.deviation is None else _middle(restored.deviation[i]).mean(0, keepdim=True)
        true = None if clean is None else _middle(clean[i].cpu())
        slides.append(Slide(_middle(before).clamp(0, 1), _middle(after), unsure, true))
        room -= slides[-1].size
    return slides


def _middle(image: Tensor) -> Tensor:
    top, left = (max(0, side - _SIDE) // 2 for side in image.shape[-2:])
    return image[..., top : top + _SIDE, left : left + _SIDE].clone()


def page_of(
    slides: Sequence[Slide],
    rows: Sequence[Row],
    lead: str,
    estimated: bool,
    settings: Mapping[str, object],
    notes: Sequence[str] = (),
) -> Page:
    """Make the page of the first images of a table."""
    parts = [_slider(slide, row, estimated) for slide, row in zip(slides, rows, strict=False)]
    said = (
        "Move the slider, or focus it and use the arrow keys: left of the line is before, right of it after. "
    )
    said += "In the residual, before − after, grey is nothing."
    if any(max(slide.after.shape[-2:]) == _SIDE for slide in slides):
        said += f" Of larger images the middle {_SIDE} × {_SIDE} pixels are shown."
    counted = f"The first {len(slides)} of {len(rows):,}" if len(slides) < len(rows) else "All"
    return Page("What denoise did", lead, [Section("Images", f"{counted}. {said}", parts)], settings, notes)


def _slider(slide: Slide, row: Row, estimated: bool) -> Slider:
    beside = [_residual(slide)]
    if slide.unsure is not None:
        most = max(float(slide.unsure.max()), _STEP)
        label = f"where the model was unsure: white is ±{most:.2g}"
        beside.append(picture((slide.unsure / most)[None], "map of uncertainty", label=label))
    if slide.clean is not None:
        beside.append(picture(slide.clean[None], "clean image", label="the clean image"))
    before = picture(slide.before[None], "image before", label="before")
    after = picture(slide.after[None], "image after", label="after")
    words = [noise_of(row, estimated), outcome(row), quality_of(row)]
    return Slider(before, after, beside, row["path"], f"{'; '.join(filter(None, words))}.", row["warning"])


def _residual(slide: Slide) -> Picture:
    """Draw before − after about grey, three deviations to black and to white."""
    off = slide.before - slide.after
    most = max(3 * float(off.square().mean().sqrt()), _STEP)
    drawn = (0.5 + 0.5 * off / most).clamp(0, 1)
    return picture(torch.as_tensor(drawn)[None], "residual", label=f"residual: white is +{most:.2g}")
