"""How far a number would move with another draw of the images it was measured on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mfimage.errors import UsageError

REPEATS = 200


class Interval(NamedTuple):
    """A value, and the lower and the upper end of its 95 % interval."""

    value: float
    low: float
    high: float

    def cut(self, least: float, most: float = float("inf")) -> tuple[float, float]:
        """Return the ends, cut to what the value can be."""
        return min(max(self.low, least), most), min(max(self.high, least), most)


def bootstrap(
    statistic: Callable[..., float], *samples: Tensor, repeats: int = REPEATS, seed: int = 0
) -> Interval:
    """Compute a statistic and its 95 % interval, by drawing its samples anew, each with replacement.

        t ± 1.96 s,   s the standard deviation of the statistic over the draws

    The interval is around the value itself and not one of percentiles: distances between sets, which
    duplicates drive up, would leave percentiles that do not hold the value.

    Args:
        statistic: Of as many tensors as there are samples, to a float.
        samples: Each (N, …), resampled independently along the first axis.
        repeats: Draws, at least 2.
        seed: Of the draws.

    Raises:
        UsageError: If there are fewer than two repeats.

    Reference:
        Efron, Tibshirani, An introduction to the bootstrap, 1993, §13.3.
    """
    if repeats < 2:
        raise UsageError(f"a bootstrap needs at least 2 repeats, not {repeats}")
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(repeats):
        rows = [torch.randint(len(s), (len(s),), generator=generator) for s in samples]
        draws.append(statistic(*(s[r] for s, r in zip(samples, rows, strict=True))))
    spread = 1.96 * float(torch.tensor(draws, dtype=torch.float64).std())
    value = statistic(*samples)
    return Interval(value, value - spread, value + spread)


def mean_interval(values: Tensor) -> Interval:
    """Compute a mean and its 95 % interval, m ± 1.96 s/√N, which resampling would only repeat."""
    values = values.double()
    half = 1.96 * float(values.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half)


def quantiles(values: Tensor) -> tuple[float, float, float]:
    """The 5 %, 50 % and 95 % quantiles, linearly interpolated.

    Args:
        values: (N,), N at least 1, finite.

    Returns:
        Low, median and high, in the unit of the values.
    """
    shares = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64, device=values.device)
    low, median, high = values.double().quantile(shares).tolist()
    return low, median, high
