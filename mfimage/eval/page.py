"""What the HTML pages share: templates, how a number is written, and a file that is never half there."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import jinja2

from mfimage.errors import ResourceError
from mfimage.eval.charts import scientific

DASH = "–"
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


def write_page(path: str | Path, page: str) -> Path:
    """Write a page under a temporary name that is then changed: never half a file.

    Args:
        path: Where to; its folder must exist.
        page: HTML.

    Returns:
        The path.

    Raises:
        ResourceError: The file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def data_uri(png: bytes) -> str:
    """Write a PNG as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def number(value: float | str | None, digits: int = 4, size: float | None = None) -> str:
    """Write a number with some significant digits, or as many decimals as one of another size has.

    Args:
        value: The number; a text stays as it is, and None and NaN become a dash.
        digits: How many, at least 1.
        size: A positive number whose decimals are taken, if given and not zero.

    Returns:
        The text, with a true minus sign.
    """
    if value is None or isinstance(value, str):
        return value or DASH
    if not math.isfinite(value):
        return DASH if math.isnan(value) else "−∞" if value < 0 else "∞"
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}".replace("-", "−")
    exponent = math.floor(math.log10(size or abs(value)))
    plain = -5 < exponent < 7
    text = f"{value:,.{max(digits - 1 - exponent, 0)}f}" if plain else scientific(value, digits - 1)
    return text.replace("-", "−")


def settings_text(settings: Mapping[str, object]) -> dict[str, str]:
    """Write settings as text, fractions with four significant digits."""
    return {name: number(v) if isinstance(v, float) else str(v) for name, v in settings.items()}
