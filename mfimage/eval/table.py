"""How a number is written, which is the best, and tables of numbers as text, Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

Better: TypeAlias = Literal["lower", "higher"] | None

DASH = "–"
ARROWS = {"lower": " ↓", "higher": " ↑"}
_POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | str | None, digits: int = 4, size: float | None = None) -> str:
    """Write a number with some significant digits, or as many decimals as one of another size has.

    A text stays as it is, None and NaN become a dash, and a minus is a true one.
    """
    if value is None or isinstance(value, str):
        return value or DASH
    if not math.isfinite(value):
        return DASH if math.isnan(value) else "−∞" if value < 0 else "∞"
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}".replace("-", "−")
    exponent = int(f"{size or value:.{digits - 1}e}".split("e")[1])  # of the rounded one: 0.99996 is 1.000
    plain = -5 < exponent < 7
    text = f"{value:,.{max(digits - 1 - exponent, 0)}f}" if plain else scientific(value, digits - 1)
    return text.replace("-", "−")


def scientific(value: float, digits: int) -> str:
    """Write a number as a × 10ⁿ with a number of digits after the point."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    power = "10" + str(int(exponent)).translate(_POWERS)
    return power if mantissa == "1" else f"{mantissa} × {power}"


def mark_best(
    values: Sequence[float | str | None],
    better: Better,
    texts: Sequence[str],
    intervals: Sequence[tuple[float, float] | None] = (),
) -> list[bool]:
    """Mark the best value, and those that cannot be told from it: they read alike, or their intervals meet.

    None, NaN and texts take no part. Nothing is marked without a better side, nor where all values read
    alike. A value without an interval reaches from itself to itself.
    """
    found = {i: v for i, v in enumerate(values) if isinstance(v, float | int) and not math.isnan(v)}
    if better is None or len({texts[i] for i in found}) < 2:
        return [False] * len(values)
    ends = {i: (intervals[i] if intervals else None) or (v, v) for i, v in found.items()}
    first = (min if better == "lower" else max)(found, key=lambda i: found[i])
    low, high = ends[first]
    same = {i for i in found if texts[i] == texts[first]}
    return [
        i in same or (i in found and ends[i][0] <= high and ends[i][1] >= low) for i in range(len(values))
    ]


@dataclass(frozen=True)
class Cell:
    """A number as text, whether it is the best of those it is compared with, and small print below it."""

    text: str
    best: bool = False
    small: tuple[str, ...] = ()


def marked(
    values: Sequence[float | None],
    better: Better,
    intervals: Sequence[tuple[float, float] | None] = (),
    size: float | None = None,
) -> list[Cell]:
    """Write values of the same quantity, the best of them marked; see `mark_best` and `number`."""
    texts = [number(value, size=size) for value in values]
    return list(map(Cell, texts, mark_best(values, better, texts, intervals)))


@dataclass(frozen=True)
class Column:
    """The head of a column: its name, small print below it, and whether its numbers are only cited."""

    name: str
    small: str = ""
    cited: bool = False


@dataclass(frozen=True)
class Row:
    """A row: its name, a cell for each further column, small print below the name, words about all of it."""

    name: str
    cells: Sequence[Cell]
    small: str = ""
    words: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first column holds the names of the rows."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    below: str = ""  # a sentence below it, on a page
    title: str = ""  # above it, on a page
    kind: ClassVar = "table"

    def __len__(self) -> int:
        return len(self.rows)

    def text(self) -> str:
        """Write it in aligned columns: a star marks the best, brackets what is cited, small print below."""
        lines = [[c.name for c in self.columns], ["" if c.cited else c.small for c in self.columns]]
        for row in self.rows:
            lines.append([row.name, *map(_terminal, self.columns[1:], row.cells)])
            lines.append([f"  {row.small}" if row.small else "", *(", ".join(c.small) for c in row.cells)])
        columns = []
        for i, entries in enumerate(zip(*lines, strict=True)):
            cited = self.columns[i].cited
            gap = "" if i == 0 else " " * any(entries) if cited else "  "
            columns.append([gap + entry for entry in _aligned(entries, right=i > 0 and not cited)])
        words = ["", "", *(text for row in self.rows for text in (row.words and f"  {row.words}", ""))]
        text = ["".join(parts).rstrip() for parts in zip(*columns, words, strict=True)]
        return "\n".join(line for line in text if line)

    def markdown(self) -> str:
        """Write it in Markdown: the best in bold, small print in brackets."""
        told = any(row.words for row in self.rows)
        lines = [[f"{c.name} ({c.small})" if c.small else c.name for c in self.columns] + [""] * told]
        for row in self.rows:
            cells = [f"**{cell.text}**" if cell.best else cell.text for cell in row.cells]
            small = [f" ({', '.join(cell.small)})" if cell.small else "" for cell in row.cells]
            name = f"{row.name} ({row.small})" if row.small else row.name
            lines.append([name, *map(str.__add__, cells, small), *[row.words] * told])
        text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        text.insert(1, "|---" + "|---:" * (len(self.columns) - 1) + "|---" * told + "|")
        return "\n".join(text)


def _terminal(column: Column, cell: Cell) -> str:
    return f"[{cell.text}]" if column.cited and cell.text else cell.text + "*" * cell.best


def _aligned(entries: Sequence[str], right: bool) -> list[str]:
    """Pad entries to one width; what has no star keeps its place free, so that numbers stay in line."""
    if any(entry.endswith("*") for entry in entries):
        entries = [entry if entry.endswith("*") else f"{entry} " for entry in entries]
    width = max(map(len, entries))
    return [entry.rjust(width) if right else entry.ljust(width) for entry in entries]
