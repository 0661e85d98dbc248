"""Pages of results: self-contained HTML of tables, pictures, plots and lists of files.

They hold no script but that of sliders, where there are some, and let no other run.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from mfimage.datasets.pictures import save_png, sheet
from mfimage.errors import DataError
from mfimage.eval.figures import PALETTE, Plot
from mfimage.eval.table import Cell, Table, number
from mfimage.files import write_text

COLUMN = 720  # CSS pixels of a page's text column


@dataclass(frozen=True)
class Picture:
    """Images as one PNG: its address that holds it itself, its size, and the width at which it is shown."""

    uri: str
    size: tuple[int, int]
    shown: int
    alt: str
    label: str = ""  # what stands beside it, or below it in a grid
    number: Cell | None = None
    words: str = ""  # that follow the number, such as its unit


@dataclass(frozen=True)
class Pictures:
    """Pictures below one another, for comparison, or in a grid."""

    pictures: Sequence[Picture]
    title: str = ""
    caption: str = ""
    grid: bool = False
    kind: ClassVar = "pictures"

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class Slider:
    """An image before and after, one over the other with a slider between, and pictures beside them."""

    before: Picture
    after: Picture
    beside: Sequence[Picture] = ()
    title: str = ""
    caption: str = ""
    warning: str = ""
    kind: ClassVar = "slider"

    def __len__(self) -> int:
        return 2 + len(self.beside)


SLIDE = (  # moves the border between the two with the slider's value, by mouse, finger or keys
    'document.documentElement.classList.add("live");'
    'addEventListener("input",e=>e.target.closest(".slider").style.setProperty("--at",e.target.value+"%"))'
)


@dataclass(frozen=True)
class Files:
    """Paths, and what is said of each."""

    files: Sequence[tuple[str, str]]
    title: str = ""
    kind: ClassVar = "files"

    def __len__(self) -> int:
        return len(self.files)


Part: TypeAlias = Table | Pictures | Plot | Slider | Files


@dataclass(frozen=True)
class Section:
    """A part of a page: its heading, what it shows, and its parts; those None or empty are left out."""

    heading: str
    sentence: str
    parts: Sequence[Part | None]


@dataclass(frozen=True)
class Page:
    """A page of results."""

    title: str
    lead: str  # the outcome in a sentence or two
    sections: Sequence[Section] = ()  # those without parts are left out
    settings: Mapping[str, object] = field(default_factory=dict)  # what was done, with what, where
    notes: Sequence[str] = ()  # what else the reader must know

    def html(self) -> str:
        """Write the page as HTML that needs nothing else; all text in it is escaped."""
        import jinja2

        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        source = resources.files("mfimage.eval").joinpath("templates/page.html").read_text(encoding="utf-8")
        settings = {k: number(v) if isinstance(v, float) else str(v) for k, v in self.settings.items()}
        filled = [replace(s, parts=[part for part in s.parts if part]) for s in self.sections]
        sections = [section for section in filled if section.parts]
        slid = any(isinstance(part, Slider) for section in sections for part in section.parts)
        script = SLIDE if slid else ""
        allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() if slid else ""
        return environment.from_string(source).render(
            page=self, sections=sections, settings=settings, palette=PALETTE, column=COLUMN, script=script,
            allowed=allowed,
        )  # fmt: skip

    def write(self, path: str | Path) -> Path:
        """Write the page as a file, whole or not at all; return its path."""
        return write_text(path, self.html())


def picture(
    images: Tensor, name: str, columns: int = 0, label: str = "", number: Cell | None = None, words: str = ""
) -> Picture:
    """Put images (N, 1 or 3, H, W) in [0, 1] into one picture, transparent between them.

    In a row lie `columns` images, all of them if 0; for the rest see `Picture`.
    """
    values = images.detach().to("cpu", torch.float32)
    if values.ndim != 4 or values.shape[1] not in (1, 3) or not values.isfinite().all():
        raise DataError(
            f"the {name} of a report have shape (N, 1 or 3, H, W) and finite values; "
            f"got {tuple(images.shape)}, {int((~values.isfinite()).sum())} values not finite"
        )
    columns, pad = min(columns or len(values), len(values)), 2
    opaque = 1 - sheet(torch.zeros_like(values[:, :1]), columns, pad)
    pixels = torch.cat([sheet(values.clamp(0, 1), columns, pad), opaque])[:, pad:-pad, pad:-pad]
    array = pixels.mul(255).round().byte().movedim(0, -1).contiguous().numpy()
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    height, width = array.shape[:2]
    scale = COLUMN / width
    # Whole multiples keep the pixels equal; below two that would waste half the page.
    shown = int(width * (math.floor(scale) if scale >= 2 else scale))
    return Picture(uri, (width, height), shown, f"{len(values)} {name}", label, number, words)


def strip(rows: Mapping[str, Tensor], title: str = "", caption: str = "") -> Pictures:
    """Put rows of images (n, C, H, W) by name below one another; rows without images are left out."""
    return Pictures([picture(x, name, label=name) for name, x in rows.items() if len(x)], title, caption)


def write_labelled_sheet(path: str | Path, rows: Mapping[str, Tensor]) -> None:
    """Write rows of images (n, C, H, W) below one another as one PNG, the name of each above it."""
    font = ImageFont.load_default(12)
    strips = [sheet(images.clamp(0, 1).cpu().expand(-1, 3, -1, -1), len(images)) for images in rows.values()]
    width = max(strip.shape[2] for strip in strips)
    parts = []
    for name, strip in zip(rows, strips, strict=True):
        label = Image.new("RGB", (width, 18), "white")
        ImageDraw.Draw(label).text((2, 2), name, "black", font)
        parts.append(torch.from_numpy(np.array(label)).movedim(2, 0) / 255)
        parts.append(functional.pad(strip, (0, width - strip.shape[2]), value=1.0))
    save_png(torch.cat(parts, 1), path)
