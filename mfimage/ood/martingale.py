"""Drift in a stream: exact p-values in fixed memory, and bets against their being uniform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfimage.settings import whole_number

Numbers = NDArray[np.float64]

# Bets on a share w of images: f(q) = 1 − w + w κ q^(κ − 1) on many that are somewhat out, and
# f(q) = 1 − w + w/a where q ≤ a, else 1 − w, on few that are far out.
_POWERS = ((1.0, 0.7), (1.0, 0.3), (0.3, 0.2))  # w, κ
_STEPS = ((0.1, 0.01), (0.03, 0.003))  # w, a
_BETS = len(_POWERS) + len(_STEPS)  # on large values, and as many on small ones
_LEAST = 1e-12  # a p-value is not taken to be smaller
_PART = 256  # images that are compared with one another at once


class Ranks:
    """P-values of a stream against known values and all of the stream before, in memory that does not grow.

    n known values leave n + 1 gaps. Where the stream goes on like them, the next falls into gap K with
    probability (c_K + 1)/(m + n + 1), with c_K of the m before it there (Pólya's urn); so that

        p = (Σ_{k > K} (c_k + 1) + θ (c_K + 1)) / (m + n + 1),   θ uniform in (0, 1]

    is uniform, given all p-values before, whatever the distribution. A comparison with the known values alone
    is not: in a long stream their own chance deviations pass for drift. Ties are broken at random.

    Args:
        known: What is familiar, (n, J); each of the J columns has p-values of its own.
        seed: Of θ and of the ties.

    Reference:
        Vovk, Gammerman, Shafer, Algorithmic learning in a random world, 2005, §2.2, §7.1.
    """

    def __init__(self, known: Numbers, seed: int = 0) -> None:
        self.random = np.random.default_rng(whole_number("seed", seed))
        marks = self.random.random(known.shape)
        order = np.lexsort((marks, known), axis=0)
        self.known = np.take_along_axis(known, order, 0).T.copy()
        self.marks = np.take_along_axis(marks, order, 0).T.copy()
        self.counts = np.ones((self.known.shape[0], self.known.shape[1] + 1), np.int64)  # c_k + 1

    def __call__(self, values: Numbers) -> Numbers:
        """Compute the p-values of the next of the stream, (B, J), in (0, 1]: small where a value is large."""
        parts = (values[begin : begin + _PART] for begin in range(0, len(values), _PART))
        return np.concatenate([self._next(part) for part in parts])

    def _next(self, values: Numbers) -> Numbers:
        gaps = np.stack([self._gaps(j, column) for j, column in enumerate(values.T)])
        above = self.counts.sum(1, keepdims=True) - self.counts.cumsum(1)
        higher, same = (np.take_along_axis(known, gaps, 1) for known in (above, self.counts))
        before = np.tri(len(values), k=-1, dtype=bool)  # those of the same batch that came earlier
        higher += ((gaps[:, None, :] > gaps[:, :, None]) & before).sum(2)
        same += ((gaps[:, None, :] == gaps[:, :, None]) & before).sum(2)
        total = self.counts[0].sum() + np.arange(len(values))
        np.add.at(self.counts, (np.arange(len(gaps))[:, None], gaps), 1)
        return ((higher + (1 - self.random.random(gaps.shape)) * same) / total).T

    def _gaps(self, column: int, values: Numbers) -> NDArray[np.int64]:
        """In which gap each value (B,) lies; among known ones that are equal, by a mark that it draws."""
        known, marks = self.known[column], self.marks[column]
        gaps, end = np.searchsorted(known, values), np.searchsorted(known, values, "right")
        for row in np.flatnonzero(end > gaps):
            gaps[row] += np.searchsorted(marks[gaps[row] : end[row]], self.random.random())
        return gaps


@dataclass(frozen=True)
class Alarm:
    """A column of p-values is no longer uniform.

    Attributes:
        column: Which of them.
        high: Whether its values have become larger, and not smaller.
        since: The number of the image, from 1, with which this seems to have begun.
        name: What this image is called.
        noticed: The number of the image which told.
    """

    column: int
    high: bool
    since: int
    name: str
    noticed: int


class Bets:
    """Capital that is bet against uniform p-values; where it reaches 1 there is an alarm, and it is 0 again.

        R ← (R + g) f(p)   for every bet f,  ∫ f = 1;  an alarm where Σ R ≥ 1

    With uniform p-values nothing is won on average, so that there are never more alarms to be expected than
    money was given: E #alarms ≤ Σ g, in any number of images, if each g is fixed before its p-value is known.
    All columns share what is given. The money given before a change is lost, what is given at its beginning
    grows (Shiryaev and Roberts); the bet that has won most tells by its largest partial sum when that was.

    Args:
        columns: J.

    Reference:
        Vovk, Petej, Nouretdinov, Ahlberg, Carlsson, Gammerman, Retrain or not retrain: conformal test
        martingales for change-point detection, 2021, arXiv 2102.10439.
    """

    def __init__(self, columns: int) -> None:
        shape = columns, 2 * _BETS  # on large values, then on small ones
        self.capital = np.zeros(shape)
        self.sums = np.zeros(shape)  # of log f since the best beginning
        self.since = np.ones(shape, np.int64)
        self.names = np.full(shape, "", object)  # of the images of `since`
        self.seen = 0

    def __call__(self, p: Numbers, given: Numbers, names: Sequence[str]) -> list[Alarm]:
        """Take the next p-values, (B, J), and of each image what is given, ≥ 0, and its name; tell alarms."""
        won = _paid(p)
        rows = zip(won, np.log(won), given / self.capital.size, names, strict=True)
        return [alarm for row in rows for alarm in self._next(*row)]

    def _next(self, won: Numbers, logs: Numbers, gift: float, name: str) -> list[Alarm]:
        self.seen += 1
        self.capital = (self.capital + gift) * won
        begins = self.sums <= 0
        self.since[begins], self.names[begins] = self.seen, name
        self.sums = np.maximum(self.sums, 0) + logs
        return [self._alarm(int(column)) for column in np.flatnonzero(self.capital.sum(1) >= 1)]

    def _alarm(self, column: int) -> Alarm:
        best = int(self.capital[column].argmax())
        since, name = int(self.since[column, best]), str(self.names[column, best])
        self.capital[column] = self.sums[column] = 0
        return Alarm(column, best < _BETS, since, name, self.seen)


def _paid(p: Numbers) -> Numbers:
    """What each bet pays for p-values (B, J), shape (B, J, K)."""
    ends = np.stack([p, 1 - p], 2).clip(_LEAST)
    paid: list[np.ndarray] = [1 - w + w * k * ends ** (k - 1) for w, k in _POWERS]
    paid += [1 - w + w / a * (ends <= a) for w, a in _STEPS]
    return np.stack(paid, 3).reshape(*p.shape, -1)
