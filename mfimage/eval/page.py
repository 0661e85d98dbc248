"""What the HTML pages share: templates, and how a number is written."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import torch
from PIL import Image
from torch import Tensor

from mfimage.datasets.pictures import sheet
from mfimage.errors import DataError
from mfimage.eval.table import number

COLUMN = 720  # CSS pixels of a page's text column


def render(template: str, values: Mapping[str, object]) -> str:
    """Fill a template of this package; a name that it uses and is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def _source(name: str) -> str:
    return resources.files("mfimage.eval").joinpath(name).read_text(encoding="utf-8")


def data_uri(png: bytes) -> str:
    """Write a PNG as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def settings_text(settings: Mapping[str, object]) -> dict[str, str]:
    """Write settings as text, fractions with four significant digits."""
    return {name: number(v) if isinstance(v, float) else str(v) for name, v in settings.items()}


def picture(images: Tensor, columns: int, name: str) -> dict[str, Any]:
    """Put images into one PNG as a data URI, transparent between them, for `picture` of parts.html.

    Args:
        images: (N, 1 or 3, H, W) in [0, 1].
        columns: Images in a row.
        name: Of what they are.

    Raises:
        DataError: Another shape, or values that are not finite.
    """
    values = images.detach().to("cpu", torch.float32)
    if values.ndim != 4 or values.shape[1] not in (1, 3) or not values.isfinite().all():
        raise DataError(
            f"the {name} of a report have shape (N, 1 or 3, H, W) and finite values; "
            f"got {tuple(images.shape)}, {int((~values.isfinite()).sum())} values not finite"
        )
    columns, pad = min(columns, len(values)), 2
    opaque = 1 - sheet(torch.zeros_like(values[:, :1]), columns, pad)
    pixels = torch.cat([sheet(values.clamp(0, 1), columns, pad), opaque])[:, pad:-pad, pad:-pad]
    array = pixels.mul(255).round().byte().movedim(0, -1).contiguous().numpy()
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", optimize=True)
    height, width = array.shape[:2]
    scale = COLUMN / width
    return {
        "uri": data_uri(stream.getvalue()),
        "size": (width, height),
        # Whole multiples keep the pixels equal; below two that would waste half the page.
        "shown": int(width * (math.floor(scale) if scale >= 2 else scale)),
        "alt": f"{len(values)} {name}",
    }
