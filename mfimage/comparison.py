"""Runs side by side, as far as they can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mfimage.errors import DataError, UsageError

_VALUES = {  # what is ranked, best first by the smallest value, and where an evaluation keeps it
    "reconstruction": ("reconstruction", "model", "squared_error", "mean"),
    "fid": ("fid", "value"),
}


def compare(
    evaluations: Mapping[str, Mapping[str, Any]], by: str = "reconstruction"
) -> list[tuple[str, float]]:
    """Rank models by a measurement of them on the same images.

    Densities are refused: each model's is per d-dimensional volume of its own manifold. On another manifold,
    or at another d, the number has another unit, and no zero in common; a thinner manifold would win by being
    thin. Under one model they compare images; between models, compare reconstructions, samples or scores.

    Args:
        evaluations: What `evaluate` gave, by the model's name.
        by: "reconstruction" (squared error an image) or "fid".

    Returns:
        Names and values, best first.

    Raises:
        UsageError: If `by` is "density", or unknown.
        DataError: If the models were measured on different images, or one was not measured.
    """
    if by == "density":
        dims = ", ".join(f"{name}: d = {each['model']['dim']}" for name, each in evaluations.items())
        raise UsageError(
            f"densities of different models cannot be ranked ({dims}): each is per volume of its own "
            "manifold, so the numbers have different units even at equal d; compare reconstruction or fid"
        )
    if by not in _VALUES:
        raise UsageError(f"models are compared by {', '.join(_VALUES)}, not by {by!r}")
    if len({each["data"]["test"]["sha256"] for each in evaluations.values()}) > 1:
        raise DataError(
            f"{', '.join(evaluations)}: were measured on different images; evaluate them on the same"
        )
    ranked = [(name, _value(each, by, name)) for name, each in evaluations.items()]
    return sorted(ranked, key=lambda row: row[1])


def _value(evaluation: Mapping[str, Any], by: str, name: str) -> float:
    value: Any = evaluation
    for key in _VALUES[by]:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, int | float):
        raise DataError(f"{name}: was not measured by {by}; run evaluate with --metrics {by}")
    return float(value)


def read_evaluation(run: Path) -> dict[str, Any]:
    """Read the metrics.json that `evaluate` left in a run.

    Raises:
        DataError: If there is none, or it is damaged.
    """
    path = run / "metrics.json"
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        evaluation["data"]["test"]["sha256"], evaluation["model"]["dim"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no evaluation can be read; run mfimage evaluate --model {run}") from error
    return evaluation
