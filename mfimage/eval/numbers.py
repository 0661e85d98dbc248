"""What an evaluation found: numbers that say how they came about, and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mfimage.errors import DataError
from mfimage.eval.table import Better, Cell, Column, Row, Table, number
from mfimage.files import write_text

FORMAT = "mfimage-evaluation-3"


@dataclass(frozen=True)
class Number:
    """A measured number.

    Attributes:
        value: The number.
        n: Images that it was measured on.
        interval: 95 % interval of the value under another draw of the images; None where it makes no sense.
        unit: Of the value; empty for a pure number.
        better: "lower", "higher", or None where models cannot be ranked by it.
        protocol: Name of the protocol.
        weights: First digits of the hash of weights: the feature network's, else the model's.
        beside: Other values to read it with, such as PCA's, quantiles, or what chance gives.
    """

    value: float
    n: int
    interval: tuple[float, float] | None = None
    unit: str = ""
    better: Better = None
    protocol: str = ""
    weights: str = ""
    beside: Mapping[str, float] = field(default_factory=dict)

    def label(self, name: str) -> str:
        """Write the name that it has in an evaluation, and its unit."""
        return name.replace("_", " ") + (f", {self.unit}" if self.unit else "")

    def cells(self) -> tuple[Cell, Cell, Cell]:
        """Write the value, the interval and N for a table."""
        ends = self.interval if self.interval and all(map(math.isfinite, self.interval)) else ()
        return Cell(number(self.value)), Cell(" … ".join(map(number, ends))), Cell(f"{self.n:,}")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        model: dim, shape, kind, number of parameters, sha256.
        data: Summaries of the test and the training images.
        protocol: Of the distances: its name and what it says.
        numbers: By name.
        skipped: By name of a metric why it was not measured.
        asked: The arguments that numbers depend on: metrics, samples, density_images, seed.
        pictures: Sheets for the page, (N, C, H, W) by name; not in the JSON.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    protocol: Mapping[str, str]
    numbers: Mapping[str, Number]
    skipped: Mapping[str, str]
    asked: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Tensor] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what json.dump takes, without the pictures."""
        return {
            "format": FORMAT, "model": dict(self.model), "data": dict(self.data),
            "protocol": dict(self.protocol), "asked": dict(self.asked),
            "numbers": {name: asdict(n) for name, n in self.numbers.items()}, "skipped": dict(self.skipped),
        }  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole or not at all; infinite values become null. Return the path."""
        from mfimage.console import json_text

        write_text(Path(path), json_text(self.as_json(), indent=2) + "\n")
        return Path(path)

    def table(self) -> Table:
        """Put the numbers into a table, with the values to read them with as words."""
        rows = []
        for name, n in self.numbers.items():
            beside = ", ".join(f"{k} {number(v)}" for k, v in n.beside.items())
            rows.append(Row(n.label(name), n.cells(), words=beside))
        return Table([Column(name) for name in ("", "value", "95 % interval", "N")], rows)

    def text(self) -> str:
        """Write it as a table for a terminal."""
        lines = [self.table().text(), *(f"{name}: {reason}" for name, reason in self.skipped.items())]
        return "\n".join([*lines, f"protocol {self.protocol['name']}; {self.weights_text()}"])

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
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r} is not {FORMAT!r}")
        numbers = {name: _number(n) for name, n in values["numbers"].items()}
        values["data"]["test"]["sha256"], values["model"]["dim"], values["protocol"]["name"]
        return Evaluation(
            values["model"], values["data"], values["protocol"], numbers, values["skipped"], values["asked"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: no evaluation can be read: run mfimage evaluate ({error})") from error


def _number(values: dict[str, Any]) -> Number:
    nan = math.nan
    ends = values["interval"]
    beside = {name: nan if v is None else v + 0 for name, v in values["beside"].items()}
    return Number(
        **{
            **values,
            "value": nan if values["value"] is None else float(values["value"]),
            "interval": None if ends is None or None in ends else (float(ends[0]), float(ends[1])),
            "beside": beside,
        }
    )
