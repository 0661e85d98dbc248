"""Measured numbers: their intervals, what they were measured by, and the evaluation that they make up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mfimage.errors import DataError, UsageError, boundary
from mfimage.eval.table import ARROWS, Better, Cell, Column, Row, Table, marked, number
from mfimage.files import require_regular, write_json

REPEATS = 200  # of a bootstrap
FORMAT = "mfimage-evaluation-5"
_PLAIN = ("model", "data", "protocol", "asked", "skipped")  # of an evaluation, as JSON has them


class Interval(NamedTuple):
    """A value, and the lower and the upper end of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends, None unless they are known."""
        return (self.low, self.high) if math.isfinite(self.high - self.low) else None

    def cut(self, least: float, most: float = math.inf) -> Interval:
        """Cut the ends to what the value can be."""
        return self._replace(low=min(max(self.low, least), most), high=min(max(self.high, least), most))


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
    half = 1.96 * float(values.std()) / len(values) ** 0.5 if len(values) > 1 else math.nan
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half)


def ratio_of_means(a: Tensor, b: Tensor) -> Interval:
    """Compute the ratio of two means over the same N images, shapes (N,), and its 95 % interval.

        r = ā/b̄ ± 1.96 s/(b̄ √N),   s the standard deviation of aᵢ − r bᵢ

    Pairs that rise and fall together, as errors of two models on the same image do, leave a narrow interval.

    Reference:
        Cochran, Sampling techniques, 3rd edition, 1977, §2.11.
    """
    a, b = a.double(), b.double()
    mean = b.mean()
    ratio = float(a.mean() / mean)
    _, low, high = mean_interval((a - ratio * b) / mean)  # around 0
    return Interval(ratio, ratio + low, ratio + high)


def quantiles(values: Tensor) -> tuple[float, float, float]:
    """Compute the 5 %, 50 % and 95 % quantiles of finite values (N,), N at least 1, linearly interpolated."""
    shares = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64, device=values.device)
    low, median, high = values.double().quantile(shares).tolist()
    return low, median, high


@dataclass(frozen=True)
class Number:
    """A measured number."""

    value: float
    n: int  # images that it was measured on
    interval: tuple[float, float] | None = None  # of 95 % under another draw of the images
    unit: str = ""
    better: Better = None  # "lower", "higher", or None where models cannot be ranked by it
    protocol: str = ""  # its name
    weights: str = ""  # first digits of the hash of weights: the feature network's, else the model's
    beside: Mapping[str, float] = field(default_factory=dict)  # PCA's value, quantiles, what chance gives

    def __post_init__(self) -> None:
        if self.interval is not None and not all(map(math.isfinite, self.interval)):
            object.__setattr__(self, "interval", None)  # ends that are not known, as of one image

    def label(self, name: str) -> str:
        """Write the name that it has in an evaluation, and its unit."""
        arrow = ARROWS.get(self.better or "", "")
        return name.replace("_", " ") + arrow + (f", {self.unit}" if self.unit else "")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of `evaluate`."""

    model: Mapping[str, Any]  # dim, shape, kind, number of parameters, sha256
    data: Mapping[str, Any]  # summaries of the test and the training images
    protocol: Mapping[str, str]  # of the distances: its name and what it says
    numbers: Mapping[str, Number]
    skipped: Mapping[str, str]  # by name of a metric why it was not measured
    asked: Mapping[str, Any] = field(default_factory=dict)  # metrics, samples, density_images, seed
    verdict: str = ""  # the outcome in a few sentences
    pictures: Mapping[str, Tensor] = field(default_factory=dict)  # (N, C, H, W) for the page; not in the JSON

    def as_json(self) -> dict[str, Any]:
        """Return what json.dump takes, without the pictures."""
        numbers = {name: asdict(n) for name, n in self.numbers.items()}
        plain = {name: dict(getattr(self, name)) for name in _PLAIN}
        return {"format": FORMAT, "verdict": self.verdict, **plain, "numbers": numbers}

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole or not at all; infinite values become null. Return the path."""
        return write_json(path, self.as_json())

    def table(self, narrow: bool = False) -> Table:
        """Put the numbers, beside those of principal components, into a table; `narrow`: intervals below."""
        rows, pca = [], any("pca" in n.beside for n in self.numbers.values())
        for name, n in self.numbers.items():
            value, other = marked([n.value, n.beside.get("pca")], n.better)
            ends = " … ".join(map(number, n.interval or ()))
            shown = [replace(value, small=(ends,) * bool(ends)) if narrow else value]
            shown += [other if "pca" in n.beside else Cell("")] * pca
            shown += [Cell(ends)] * (not narrow) + [Cell(f"{n.n:,}")]
            beside = ", ".join(f"{k} {number(v)}" for k, v in n.beside.items() if k != "pca")
            rows.append(Row(n.label(name), shown, words=beside))
        columns = [Column(""), Column("value", "95 % interval" if narrow else "")]
        columns += [Column("PCA")] * pca + [Column("95 % interval")] * (not narrow) + [Column("N")]
        below = "↑ higher is better, ↓ lower is better; the better of the two is bold." if pca else ""
        said = (
            "Intervals of 95 % say how far a number would move with other images, not with another training."
        )
        return Table(columns, rows, f"{below} {said}".strip())

    def text(self) -> str:
        """Write it for a terminal: the verdict, and a table."""
        lines = [self.verdict] * bool(self.verdict)
        lines += [self.table().text(), *self.reasons()]
        return "\n".join([*lines, f"protocol {self.protocol['name']}; {self.weights_text()}"])

    def reasons(self) -> list[str]:
        """Say why metrics were not measured, those of one reason together."""
        found: dict[str, list[str]] = {}
        for name, reason in self.skipped.items():
            found.setdefault(reason, []).append(name)
        return [f"{', '.join(names)}: {reason}" for reason, names in found.items()]

    def weights_text(self) -> str:
        """Write which weights the numbers come from."""
        own = self.model["sha256"][:12]
        found: dict[str, str] = {}
        for name, n in self.numbers.items():
            if n.weights != own:
                found.setdefault(n.weights, name.split("_")[0])
        return ", ".join([f"model {own}", *(f"features of {name} {w}" for w, name in found.items())])


def read_evaluation(path: Path) -> Evaluation:
    """Read what `Evaluation.save` wrote.

    Raises:
        DataError: If there is nothing, it is damaged, or was written by another version.
    """
    require_regular(path)
    with boundary(DataError, f"{path}: no evaluation can be read: run mfimage evaluate"):
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r} is not {FORMAT!r}")
        numbers = {name: _number(n) for name, n in values["numbers"].items()}
        values["data"]["test"]["sha256"], values["model"]["dim"], values["protocol"]["name"]
        return Evaluation(
            numbers=numbers, verdict=values["verdict"], **{name: values[name] for name in _PLAIN}
        )


def _number(values: dict[str, Any]) -> Number:
    def known(value: float | None) -> float:
        return math.nan if value is None else value + 0

    ends, beside = values["interval"], {name: known(v) for name, v in values["beside"].items()}
    interval = None if ends is None or None in ends else (float(ends[0]), float(ends[1]))
    value = float(known(values["value"]))
    return Number(**{**values, "value": value, "interval": interval, "beside": beside})
