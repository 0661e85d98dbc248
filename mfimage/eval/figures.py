"""What plots are drawn with: matplotlib, as SVG inside a page, which follows light and dark, or as PNG."""

from __future__ import annotations

import io
import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mfimage.eval.table import number, scientific

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = {  # colours of a page by name, in light and in dark; a plot is drawn in the light ones
    "paper": ("#ffffff", "#15171a"), "ink": ("#1c1e21", "#e4e6e9"), "quiet": ("#62676d", "#9aa0a7"),
    "line": ("#dcdfe3", "#34383d"), "truth": ("#a8aeb5", "#6b7178"),
    "s0": ("#1f6fb4", "#6cb2ee"), "s1": ("#cf5010", "#f58f55"), "s2": ("#0a8a63", "#4cc79c"),
    "s3": ("#a4479b", "#dc92d3"), "s4": ("#9a7400", "#d9b340"), "s5": ("#5b5f66", "#b3b8bf"),
}  # fmt: skip
INK, QUIET, LINE, TRUTH = (PALETTE[name][0] for name in ("ink", "quiet", "line", "truth"))
SERIES = tuple(PALETTE[f"s{i}"][0] for i in range(6))
TEXT = 12.0  # size of the text for which a plot leaves room; wide pages show it smaller
WIDE, PANEL = 600, 350  # CSS pixels that a plot, and one of several panels, takes on a page
_NAMES = {light: name for name, (light, _) in PALETTE.items()}
_DRAWING = threading.Lock()  # matplotlib takes its settings for SVG from one place for all threads


@dataclass(frozen=True)
class Key:
    """An entry of a legend: what a line, dash, dot, area or scale of colours stands for; colours in CSS."""

    label: str
    shape: str
    colour: str


@dataclass(frozen=True)
class Plot:
    """A plot of a page."""

    title: str
    panels: Sequence[tuple[str, str, str]]  # name, SVG and description of drawings beside each other
    keys: Sequence[Key]
    caption: str = ""
    width: int = WIDE  # CSS pixels that a panel takes, where there is room
    kind: ClassVar = "plot"


def canvas(width: float = 440, height: float = 240) -> Figure:
    """Make an empty figure, of a size in points, that arranges its axes itself."""
    from matplotlib.figure import Figure

    return Figure((width / 72, height / 72), layout="constrained")


def plot(title: str, panels: Mapping[str, Figure], caption: str = "", width: int = WIDE) -> Plot:
    """Make a plot of figures by name, under one legend of all that is labelled in them."""
    keys: dict[str, Key] = {}
    drawn = []
    for name, figure in panels.items():
        axes = figure.axes[0]
        for artist, label in zip(*axes.get_legend_handles_labels(), strict=True):
            keys.setdefault(label, _key(artist, label))
        about = ": ".join(filter(None, (title, name, f"{axes.get_title('left')} by {axes.get_xlabel()}")))
        drawn.append((name, draw_svg(figure), about))
    return Plot(title, drawn, list(keys.values()), caption, width)


def _key(artist: Any, label: str) -> Key:
    from matplotlib.collections import PathCollection
    from matplotlib.colors import to_hex
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if isinstance(artist, PathCollection) and artist.get_array() is not None:
        low, high = map(number, artist.get_clim(), (3, 3))
        steps = ", ".join(map(to_hex, artist.cmap(np.linspace(0, 1, 9))))
        return Key(f"{label}: {low} to {high}", "scale", f"linear-gradient(to right, {steps})")
    if isinstance(artist, Line2D):
        shape = {"None": "dot", "-": "line"}.get(str(artist.get_linestyle()), "dash")
        return Key(label, shape, _css(to_hex(artist.get_color())))
    if isinstance(artist, Patch):
        filled = artist.get_fill()
        colour = artist.get_facecolor() if filled else artist.get_edgecolor()
        return Key(label, "area" if filled else "line", _css(to_hex(colour)))
    shape = "dot" if isinstance(artist, PathCollection) else "area"
    return Key(label, shape, _css(to_hex(artist.get_facecolor()[0])))


def _css(colour: str) -> str:
    return f"var(--{_NAMES[colour]})" if colour in _NAMES else colour


def draw_svg(figure: Figure) -> str:
    """Draw a figure as SVG for a page: text is text, colours of the palette are the page's own.

    Layers that are rasterised keep their colours. The same figure gives the same SVG.
    """
    import matplotlib

    stream = io.StringIO()
    with _DRAWING, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mfimage"}):
        figure.savefig(stream, format="svg", dpi=144, transparent=True)
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r' (?:xmlns[:\w]*|version|width|height)="[^"]*(?:pt|1\.1|/\d{4}/\w*)"', "", text)
    used = set(re.findall(r"#([\w-]+)[\")]", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r">\s+<", "><", text)
    # Room above: browsers cut the name of the axis, which reaches up to the edge.
    text = re.sub(r'viewBox="0 0 ([\d.]+) (\d+)', lambda v: f'viewBox="0 -4 {v[1]} {int(v[2]) + 4}', text)
    return re.sub(r'="([^"]*)"', lambda found: f'="{_attribute(found[1])}"', text.replace("xlink:", ""))


def _attribute(value: str) -> str:
    """Shorten an attribute of SVG, and put the page's colours and size of text into it."""
    value = re.sub(r"(\d\.\d\d)\d+", r"\1", " ".join(value.split()) if "," not in value else value)
    value = re.sub(r"font-family: [^;]*; ", "", value)
    value = re.sub(r"font-size: ([\d.]+px)", r"font-size: calc(\1 * var(--text))", value)
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _css(found[0]), value)


def draw_png(figure: Figure) -> bytes:
    """Draw a figure as PNG, on white."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def furnish(axes: Axes, x: str, y: str) -> None:
    """Give axes round values, level lines, and the names of both quantities at their ends."""
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_xlabel(x, loc="right", fontsize=TEXT, color=QUIET, parse_math=False)
    axes.set_title(y, loc="left", fontsize=TEXT, color=QUIET, parse_math=False)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        values = _round_values(low, high, axis.get_scale() == "log")
        axis.set_ticks(values, [_tick(v) for v in values])
        axis.set_ticks([], minor=True)
    axes.tick_params(labelsize=TEXT, color=QUIET, labelcolor=QUIET)
    axes.tick_params(axis="y", length=0)


def _round_values(low: float, high: float, log: bool) -> list[float]:
    """Some five round values."""
    from matplotlib.ticker import MaxNLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) if log else ()
    values: list[float] = []
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [v for k in decades for f in factors if low <= (v := f * 10.0**k) <= high]
        if len(values) <= 7:
            break
    if len(values) < 3:
        even = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
        values = [v for v in even if low <= v <= high]
    return values[:: math.ceil(len(values) / 7) or 1]


def _tick(value: float) -> str:
    plain = value == 0 or 1e-4 < abs(value) < 1e7
    return (f"{value:,.7g}" if plain else scientific(value, 0)).replace("-", "−")


def spread(values: ArrayLike, tail: float = 0.0) -> tuple[float, float]:
    """Return the range of the finite values but for a share at either end; never an empty one."""
    given = np.asarray(values, np.float64)
    finite = given[np.isfinite(given)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.quantile(finite, [tail, 1 - tail]).tolist()
    least = 1e-6 * max(abs(low), abs(high), 1e-6)
    return (low, high) if high - low > least else (low - max(0.5, least), high + max(0.5, least))
