"""Defects drawn into a tile: foreign texture, scratches, stains, missing parts, shifted patches.

Each is what the tile would show there, y, and how much of it is seen, w in [0, 1]: (1 − w)·x + w·y. Sizes and
contrasts are drawn from wide ranges, contrasts in standard deviations of the tile. The mask is where w is not
0, and nothing is changed elsewhere. What is drawn stays in the range of the tile's own values: no defect can
be found by the brightest or the darkest pixel.

In the manner of DRAEM: Zavrtanik, Kristan, Skočaj, DRAEM – a discriminatively trained reconstruction
embedding for surface anomaly detection, 2021, arXiv 2108.07610, §3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, label, map_coordinates

FAINT = 0.15  # weight below which nothing is drawn
LEAST, MOST = 10, 0.3  # pixels of a defect, and the share of the tile
VISIBLE = 0.4  # mean change within a defect, in standard deviations of the tile
Drawn = tuple[np.ndarray, np.ndarray]  # y and w


@dataclass(frozen=True)
class Place:
    """A tile x (S, S) in [0, 1], at a corner of a picture, and pictures of other things."""

    picture: np.ndarray
    row: int
    column: int
    side: int
    others: Sequence[np.ndarray]

    @property
    def tile(self) -> np.ndarray:
        """The tile as it is."""
        return self.picture[self.row : self.row + self.side, self.column : self.column + self.side]


def defect(kind: str, place: Place, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a defect of a kind of `KINDS` that can be seen: the tile with it, rounded to 8 bits, and its mask.

    Defects that are too small, too large or too faint (`LEAST`, `MOST`, `VISIBLE`) are drawn anew.
    """
    x = place.tile
    for _ in range(1000):
        y, w = KINDS[kind](place, draw)
        mask = _large_pieces(w >= FAINT)
        w = np.clip(w, 0, 1) * mask
        made = np.round(255 * ((1 - w) * x + w * np.clip(y, x.min(), x.max()))) / 255
        if LEAST <= mask.sum() <= MOST * mask.size and np.abs(made - x)[mask].mean() >= VISIBLE * x.std():
            return made.astype(np.float32), mask
    raise RuntimeError(f"no {kind} can be seen in this tile")


def foreign(place: Place, draw: np.random.Generator) -> Drawn:
    """Another texture in patches of smooth noise, enlarged or not, of another tone or contrast."""
    x, s, size = place.tile, place.side, _between(draw, 3.5, 10)
    noise = _noise(draw, s, size, size * draw.uniform(1, 2))
    inside = noise > np.quantile(noise, 1 - _between(draw, 0.03, 0.25))
    w = draw.uniform(0.7, 1) * gaussian_filter(inside.astype(float), 0.7)
    other = place.others[draw.integers(len(place.others))]
    middle = [draw.uniform(s, n - s) for n in other.shape]
    y = _seen(other, middle, draw.uniform(0, 2 * np.pi), draw.choice([0.5, 1, 1, 2]), s)
    y = (y - y.mean()) / (y.std() + 1e-3)
    tone = draw.choice([-1, 1]) * draw.uniform(0.5, 2)
    return x.mean() + x.std() * (draw.uniform(0.2, 1) * y + tone), w


def scratch(place: Place, draw: np.random.Generator) -> Drawn:
    """One to three fine curves, darker or brighter, that taper off; some have a rim of the opposite tone."""
    x, s = place.tile, place.side
    length, angle, width = _between(draw, 28, 90), draw.uniform(0, np.pi), _between(draw, 0.6, 2)
    t = np.linspace(0, 1, 120)
    along, across = np.stack([np.cos(angle), np.sin(angle)]), np.stack([-np.sin(angle), np.cos(angle)])
    bend = length * draw.uniform(-0.2, 0.2) * 4 * t * (1 - t) + 0.06 * np.cumsum(draw.normal(size=120))
    curve = draw.uniform(0.15 * s, 0.85 * s, 2) + np.outer(length * (t - 0.5), along) + np.outer(bend, across)
    strength = np.minimum(1, 5 * np.minimum(t + 0.05, 1.05 - t)) * draw.uniform(0.8, 1)
    beside = 6 * width * across * np.arange(draw.choice([1, 1, 1, 2, 3]))[:, None]
    w = np.max([_stroke(s, curve + shift, width, strength) for shift in beside], 0)
    y = x.mean() + 0.3 * (x - x.mean()) + draw.choice([-1, 1]) * _between(draw, 1.3, 4) * x.std()
    if draw.random() < 0.4:
        rim = _stroke(s, curve + 2 * width * across, width, 0.6 * strength)
        y, w = np.where(rim > w, 2 * x.mean() - y, y), np.maximum(w, rim)
    return y, w


def stain(place: Place, draw: np.random.Generator) -> Drawn:
    """A drop with soft edges, through which the tile can be seen; some have spatters or a rim."""
    x, radius = place.tile, _between(draw, 5, 16)
    w = _blot(draw, place.side, radius, 0.3, radius * draw.uniform(0.15, 0.5))
    if draw.random() < 0.3:
        for _ in range(draw.integers(2, 6)):
            w = np.maximum(w, _blot(draw, place.side, _between(draw, 2, 4), 0.2, 1))
    if draw.random() < 0.3:
        w = w * (1 - 0.5 * gaussian_filter(w, 1 + radius / 6) ** 2)
    tone = draw.choice([-1, 1], p=[0.65, 0.35]) * _between(draw, 1.2, 3)
    y = x.mean() + draw.uniform(0.05, 0.5) * (x - x.mean()) + tone * x.std()
    return y, draw.uniform(0.7, 1) * w


def missing(place: Place, draw: np.random.Generator) -> Drawn:
    """A part broken out: a ragged hole with a darker ground, light and shadow on its edges."""
    x = place.tile
    w = _blot(draw, place.side, _between(draw, 5, 14), 0.45, 1.2)
    ground = np.quantile(x, draw.uniform(0.0, 0.15)) + 0.3 * (gaussian_filter(x, 6) - x.mean())
    grain = _noise(draw, place.side, 1.0, 1.0) * draw.uniform(0.1, 0.4)
    light = draw.uniform(0, 2 * np.pi)
    down, across = np.gradient(gaussian_filter(w, 1.2))
    relief = 5 * (np.sin(light) * down + np.cos(light) * across)
    return ground + x.std() * (grain + draw.uniform(0.5, 1.5) * relief), w


def shifted(place: Place, draw: np.random.Generator) -> Drawn:
    """A patch that shows a place near by, perhaps turned, its edge in shadow."""
    x, s, radius = place.tile, place.side, _between(draw, 6, 17)
    w = _blot(draw, s, radius, 0.15, 1.2) if draw.random() < 0.5 else _rectangle(draw, s, radius)
    way, distance = draw.uniform(0, 2 * np.pi), _between(draw, 6, 40)
    middle = np.array([place.row, place.column]) + s / 2 + distance * np.array([np.sin(way), np.cos(way)])
    y = _seen(place.picture, middle, draw.choice([0, 1]) * draw.uniform(-1.2, 1.2), 1.0, s)
    edge = np.clip(3 * (w - gaussian_filter(w, draw.uniform(1, 2))), 0, 1)
    if draw.random() < 0.5:  # the shadow lies on one side, else all around
        edge = edge * (1 - np.roll(w, draw.integers(-3, 4, 2), (0, 1)))
    tone = draw.choice([-1, 1]) * draw.uniform(0, 1.2)
    return y + x.std() * (tone - draw.uniform(0.7, 2.5) * edge), w


KINDS: dict[str, Callable[[Place, np.random.Generator], Drawn]] = {
    "foreign": foreign, "scratch": scratch, "stain": stain, "missing": missing, "shifted": shifted,
}  # fmt: skip


def _large_pieces(mask: np.ndarray) -> np.ndarray:
    """Leave out pieces of fewer than `LEAST` pixels."""
    pieces, count = label(mask, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    return mask & (sizes >= LEAST)[pieces]


def _between(draw: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform: small ones are as common as large ones."""
    return float(np.exp(draw.uniform(np.log(low), np.log(high))))


def _noise(draw: np.random.Generator, side: int, down: float, across: float) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, (side, side), correlated over so many pixels."""
    noise = gaussian_filter(draw.normal(size=(2 * side, 2 * side)), (down, across), mode="wrap")
    return noise[:side, :side] / noise.std()


def _blot(draw: np.random.Generator, side: int, radius: float, ragged: float, soft: float) -> np.ndarray:
    """Weights of an irregular ellipse anywhere, whose edge is `soft` pixels wide, (side, side)."""
    along, across = _axes(draw, side, np.pi)
    size = max(1.0, radius / 3)
    inside = 1 - np.hypot(along, across) / radius + ragged * _noise(draw, side, size, size)
    return np.clip(inside * radius / max(soft, 0.5) + 0.5, 0, 1)


def _rectangle(draw: np.random.Generator, side: int, radius: float) -> np.ndarray:
    """Weights of a rectangle anywhere, somewhat turned, (side, side)."""
    along, across = _axes(draw, side, 0.4)
    return np.clip(radius - np.maximum(np.abs(along), np.abs(across)) + 0.5, 0, 1)


def _axes(draw: np.random.Generator, side: int, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of pixels from a place in the tile, turned and stretched at random."""
    rows, columns = np.mgrid[:side, :side] - draw.uniform(0.1 * side, 0.9 * side, (2, 1, 1))
    angle, stretch = draw.uniform(-turn, turn), np.exp(draw.uniform(-0.45, 0.45))
    along = np.cos(angle) * rows - np.sin(angle) * columns
    across = np.sin(angle) * rows + np.cos(angle) * columns
    return along / stretch, across * stretch


def _seen(picture: np.ndarray, middle: Sequence[float], angle: float, zoom: float, side: int) -> np.ndarray:
    """A square (side, side) of a picture around a place, turned and enlarged; mirrored beyond its edges."""
    rows, columns = (np.mgrid[:side, :side] - (side - 1) / 2) / zoom
    turned = (
        middle[0] + np.cos(angle) * rows - np.sin(angle) * columns,
        middle[1] + np.sin(angle) * rows + np.cos(angle) * columns,
    )
    return map_coordinates(picture, turned, order=1, mode="mirror")


def _stroke(side: int, curve: np.ndarray, width: float, strength: np.ndarray) -> np.ndarray:
    """Weights of a line of Gaussian section along points (n, 2), each of its strength, (side, side)."""
    pixels = np.stack(np.mgrid[:side, :side], -1).reshape(-1, 1, 2)
    square = ((pixels - curve) ** 2).sum(-1)
    return (strength * np.exp(-square / (2 * width**2))).max(1).reshape(side, side)
