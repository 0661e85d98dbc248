"""What the figures are drawn on: sizes, colours, limits and labels, without matplotlib's global state."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mfimage.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
INCH = 200  # pixels; a page shows half as many CSS pixels
WIDE = 7.2  # inches of a page's text column
MARGIN = 0.75  # inches beside panels in space, for a bar of colours
INK, QUIET, GRID, TRUTH = "#1c1e21", "#62676d", "#dcdfe3", "#a8aeb5"
# Okabe and Ito's, which stay apart for colour-blind readers; without the yellow, too light on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MAP = "viridis"


def canvas(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches that arranges its axes itself."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=INCH, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Draw a figure as a PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=INCH, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def array(values: Tensor) -> Array:
    """Take a tensor of any device and type as float64."""
    return values.detach().cpu().double().numpy()


def points(values: Tensor, dim: int) -> Array:
    """Take points (..., dim) as float64 (n, dim)."""
    if not values.numel() or values.shape[-1] != dim:
        raise UsageError(f"this figure shows points of {dim} coordinates; got shape {tuple(values.shape)}")
    return array(values).reshape(-1, dim)


def spread(values: ArrayLike, tail: float) -> tuple[float, float]:
    """Return the range of the finite values but for a share at either end; never an empty one."""
    given = np.asarray(values, np.float64)
    finite = given[np.isfinite(given)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.quantile(finite, [tail, 1 - tail]).tolist()
    least = 1e-6 * max(abs(low), abs(high), 1e-6)
    return (low, high) if high - low > least else (low - max(0.5, least), high + max(0.5, least))


def limits(cloud: Array, margin: float) -> Array:
    """Return low and high (2, dim) of the axes for points, some share of their range wider on either side."""
    low, high = np.array([spread(axis, 0.0) for axis in cloud.T]).T
    wider = margin * (high - low)
    return np.stack([low - wider, high + wider])


def inside(cloud: Array, box: Array) -> NDArray[np.bool_]:
    """Tell which points lie in the limits; NaN does not."""
    return ((cloud >= box[0]) & (cloud <= box[1])).all(1)


def counted(title: str, shown: NDArray[np.bool_]) -> str:
    """Say in a title how many points lie outside of the picture."""
    lost = int((~shown).sum())
    return f"{title}\n({lost:,} of {len(shown):,} outside)".strip() if lost else title


def label(axes: Any, names: tuple[str, str], title: str) -> None:
    """Write the names of both axes, and the title above them."""
    axes.set_xlabel(names[0], fontsize=9, color=INK)
    axes.set_ylabel(names[1], fontsize=9, color=INK)
    axes.set_title(title, fontsize=10, color=INK)
    axes.tick_params(labelsize=8, color=QUIET, labelcolor=QUIET)
    for spine in axes.spines.values():
        spine.set_color(GRID)


def legend(owner: Any, **place: Any) -> None:
    """Explain the colours, without a frame."""
    owner.legend(fontsize=9, frameon=False, labelcolor=INK, **place)


def bar(figure: Figure, coloured: Any, name: str, axes: Any = None, place: Any = None) -> None:
    """Explain the scale of colours beside some axes, or at a place of its own."""
    beside = {"cax": place} if axes is None else {"ax": axes, "shrink": 0.7, "aspect": 25}
    scale = figure.colorbar(coloured, extend="both", **beside)
    scale.set_label(name, fontsize=9, color=INK)
    scale.ax.tick_params(labelsize=8, color=QUIET, labelcolor=QUIET)
    scale.outline.set_visible(False)


def rooms(count: int, beside: float, below: float) -> tuple[Figure, list[Any]]:
    """Make axes in space, two or three a row, with some inches free on the right and below."""
    if not count:
        raise UsageError("there is nothing to draw: a figure in space needs a panel")
    columns = 3 if count == 3 or count > 4 else min(count, 2)
    side = (WIDE - beside) / max(columns, 2)
    width, height = columns * side + beside, -(-count // columns) * side + below
    figure = canvas(width, height)
    figure.set_layout_engine("none")
    grid = []
    for i in range(count):
        left, bottom = i % columns * side, height - (i // columns + 1) * side
        area = (left / width, bottom / height, side / width, 0.92 * side / height)
        grid.append(figure.add_axes(area, projection="3d"))
    return figure, grid


def furnish(axes: Any, box: Array, title: str, eye: tuple[float, float]) -> None:
    """Give axes in space their limits, title, names and the place of the eye."""
    axes.set(xlim=box[:, 0], ylim=box[:, 1], zlim=box[:, 2])
    axes.view_init(*eye)
    axes.set_box_aspect((1, 1, 0.9), zoom=0.97)
    axes.set_title(title, fontsize=9.5, color=INK, y=1.06, va="top", linespacing=1.1)
    for name, axis in zip("₀₁₂", (axes.xaxis, axes.yaxis, axes.zaxis), strict=True):
        axis.set_label_text(f"x{name}", fontsize=8, color=INK)
        axis.labelpad = -9
        axis.set_major_locator(_locator())
        axis.set_pane_color((0, 0, 0, 0.02))
        axis.line.set_color(QUIET)
        axis._axinfo["grid"].update(color=GRID, linewidth=0.5)
    axes.tick_params(labelsize=6.5, pad=-3, color=QUIET, labelcolor=QUIET)


def _locator() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)
