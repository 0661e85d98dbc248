"""The charts of the report: their geometry here, their markup in the template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mfimage.eval.ranking import histogram
from mfimage.eval.table import scientific

CHART = (440, 250)  # width and height of a chart's own coordinates
LEFT, RIGHT, TOP, BOTTOM = 46, 420, 22, 212  # its plotting area
AREA = {"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM, "size": CHART}
POINTS = 150  # a curve of more is averaged down to at most so many


@dataclass(frozen=True)
class Curve:
    """A quantity watched over steps x, and (step, value) points of its validation."""

    name: str
    unit: str
    x: Sequence[float]
    y: Sequence[float]
    points: Sequence[tuple[float, float]] = ()
    log: bool = False


@dataclass(frozen=True)
class _Axis:
    """Values from low to high, on pixels from start to end."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Position and text of some five round values."""
        values = self._round_logs() if self.log else []
        if len(values) < 3:
            step = _round_step((self.high - self.low) / 5)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            values = [i * step for i in range(first, last + 1)]
        return [(self(v), _tick(v)) for v in values]

    def _round_logs(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values: list[float] = []
        for factors in ((1, 2, 5), (1, 3), (1,)):
            values = [v for k in decades for f in factors if self.low <= (v := f * 10.0**k) <= self.high]
            if len(values) <= 7:
                return values
        return values[:: math.ceil(len(values) / 7)]


def _round_step(least: float) -> float:
    decade = 10.0 ** math.floor(math.log10(least))
    return next(f * decade for f in (1, 2, 5, 10) if f * decade >= least * (1 - 1e-9))


def _tick(value: float) -> str:
    plain = value == 0 or 1e-4 < abs(value) < 1e7
    text = f"{value:,.7g}" if plain else scientific(value, 0)
    return text.replace("-", "−")


def _axis(values: Sequence[float], start: float, end: float, log: bool = False, pad: float = 0.0) -> _Axis:
    low, high = min(values), max(values)
    log = log and low > 0
    if log:
        margin = max((high / low) ** pad, 1.2 if low == high else 1.0)
        return _Axis(low / margin, high * margin, start, end, log)
    margin = (high - low) * pad or (0.5 * abs(low) or 0.5 if low == high else 0.0)
    return _Axis(low - margin, high + margin, start, end)


def curve_chart(curve: Curve) -> dict[str, Any] | None:
    """Chart a curve; None where it has no finite value."""
    pairs = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y)]
    together = math.ceil(len(pairs) / POINTS) or 1
    groups = [pairs[i : i + together] for i in range(0, len(pairs), together)]
    line = [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
    watched = [(x, y) for x, y in curve.points if math.isfinite(y)]
    if not line and not watched:
        return None
    x = _axis([p for p, _ in line + watched], LEFT, RIGHT)
    y = _axis([p for _, p in line + watched], BOTTOM, TOP, curve.log, 0.04)
    training = "training" if together == 1 else f"training (a point is the mean of {together})"
    series = [(training, "line", line), ("validation", "dots", watched)]
    return {
        "name": curve.name,
        "x": ("step", x.ticks()),
        "y": (f"{curve.unit}, log scale" if y.log else curve.unit, y.ticks()),
        "series": [
            {"name": name, "kind": kind, "path": _polyline(at), "dots": at if kind == "dots" else []}
            for name, kind, values in series
            if (at := [(x(a), y(b)) for a, b in values])
        ],
    }


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def lines_chart(
    name: str, x: str, y: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> dict[str, Any]:
    """Chart lines (x, y) of finite values by name over common axes."""
    across = _axis([v for xs, _ in lines.values() for v in xs], LEFT, RIGHT)
    up = _axis([v for _, ys in lines.values() for v in ys], BOTTOM, TOP, pad=0.04)
    series: list[dict[str, Any]] = []
    for label, (xs, ys) in lines.items():
        path = _polyline([(across(a), up(b)) for a, b in zip(xs, ys, strict=True)])
        series.append({"name": label, "kind": "line", "path": path, "dots": []})
    return {"name": name, "x": (x, across.ticks()), "y": (y, up.ticks()), "series": series}


def histogram_chart(
    groups: Mapping[str, Tensor], what: str = "reconstruction error a pixel", mark: float | None = None
) -> dict[str, Any] | None:
    """Chart groups of scores as outlines over one axis; None where there is no finite score.

    Args:
        groups: Scores (N,) by the name of their set, the familiar one first.
        what: The scores are.
        mark: A threshold, drawn as an upright line.
    """
    finite = {name: v[v.isfinite()].double() for name, v in groups.items()}
    finite = {name: v for name, v in finite.items() if len(v)}
    if not finite:
        return None
    pooled = torch.cat(list(finite.values()))
    log = bool(pooled.min() > 0 and pooled.max() > 10 * pooled.min())
    bins = histogram({name: v.log10() if log else v for name, v in finite.items()}, bins=50)
    edges = [10.0**e if log else e for e in bins["edges"]]
    # Each to its own peak: a set whose scores hardly differ would flatten all others.
    heights = {name: [share / max(shares) for share in shares] for name, shares in bins["shares"].items()}
    marked = [] if mark is None or (log and mark <= 0) else [mark]
    x, y = _axis([*edges, *marked], LEFT, RIGHT, log), _Axis(0.0, 1.05, BOTTOM, TOP)
    series: list[dict[str, Any]] = [
        {
            "name": _counted(name, groups[name]),
            "kind": "line" if i else "area",
            "path": _outline(edges, bars, x, y),
            "dots": [],
        }
        for i, (name, bars) in enumerate(heights.items())
    ]
    for at in marked:
        series.append({"name": "threshold", "kind": "line", "path": f"M{x(at):g} {TOP}V{BOTTOM}", "dots": []})
    return {
        "name": "Scores of familiar and strange images",
        "x": (what + ", log scale" * log, x.ticks()),
        "y": ("share of the set, its highest bar = 1", y.ticks()),
        "series": series,
    }


def _counted(name: str, scores: Tensor) -> str:
    lost = int((~scores.isfinite()).sum())
    return f"{name} ({lost:,} of {len(scores):,} not finite, left out)" if lost else name


def _outline(edges: Sequence[float], bars: Sequence[float], x: _Axis, y: _Axis) -> str:
    # Without the empty bars at its ends, so that sets do not lie over each other on the axis.
    used = [i for i, bar in enumerate(bars) if bar]
    first, last = used[0], used[-1] + 1
    steps = "".join(f"V{y(bars[i]):g}H{x(edges[i + 1]):g}" for i in range(first, last))
    return f"M{x(edges[first]):g} {BOTTOM}{steps}V{BOTTOM}"
