"""Evaluation: numbers that say how they were measured, by named protocols."""

from __future__ import annotations

from mfimage.evaluation.comparing import Comparison, compare
from mfimage.evaluation.measuring import METRICS, evaluate
from mfimage.evaluation.protocols import PROTOCOLS, Protocol
from mfimage.evaluation.report import Number, Report, read_report

__all__ = [
    "METRICS", "PROTOCOLS", "Comparison", "Number", "Protocol", "Report", "compare", "evaluate",
    "read_report",
]  # fmt: skip
