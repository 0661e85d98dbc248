"""What is said of scored images: rows, one an image, and how their cells are written on a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mfimage.ood import Verdicts

WAYS = ("p_far_out", "p_ordinary")  # of the score auto


def judged(paths: Sequence[str], found: Verdicts) -> list[dict[str, Any]]:
    """Give the row of each image that a calibrated model has judged."""
    columns: dict[str, Any] = {
        "path": paths,
        "score": found.scores.tolist(),
        "p_value": found.p_values.tolist(),
        **dict(zip(WAYS, found.ways.T.tolist(), strict=True) if len(found.ways) else ()),
        "verdict": ["strange" if strange else "familiar" for strange in found.is_ood],
        "reason": found.reasons,
        "sentence": found.sentences,
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def unreadable(path: str, reason: str, ways: Sequence[str]) -> dict[str, Any]:
    """Give the row of an image that could not be read, with the columns of `judged`."""
    row = dict.fromkeys(("path", "score", "p_value", *ways))
    return row | {"path": path, "verdict": "unreadable", "reason": reason, "sentence": f"not read: {reason}"}


def word(value: object) -> str:
    """Write a cell: a number with six digits, nothing for None, all of a list."""
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
