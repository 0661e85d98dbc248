"""Parameters whose value is written in one argument in a way of its own: numbers, times, noise."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from contextlib import suppress
from typing import Any

from cyclopts import Parameter, Token

from mfimage.errors import UsageError
from mfimage.noise import parse_noise


def _numbers(what: str, counts: Container[int] = range(1, 1000)) -> Parameter:
    """Make the parameter of a few numbers in one argument."""

    def convert(kind: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
        text = tokens[-1].value
        with suppress(ValueError):
            numbers = tuple(float(part) for part in text.split(","))
            if len(numbers) in counts and all(map(math.isfinite, numbers)):
                return numbers
        raise ValueError(f"{text}: {what} is expected")

    return Parameter(
        converter=convert, n_tokens=1, allow_leading_hyphen=True, metavar=what, show_default=False
    )


NUMBERS = _numbers("NUMBER,NUMBER,…")
PAIR = _numbers("LOW,HIGH", counts=(2,))


def _noise() -> Parameter:
    """Make the parameter of noise: a deviation, a range of it, or the text of a model of noise."""

    def convert(kind: Any, tokens: Sequence[Token]) -> str:
        try:
            parse_noise(tokens[-1].value)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return tokens[-1].value

    form = "NUMBER|LOW-HIGH|KIND:…"
    return Parameter(converter=convert, n_tokens=1, allow_leading_hyphen=True, metavar=form)


NOISE = _noise()


def _duration() -> Parameter:
    """Make the parameter of a time in one argument, in seconds, or with s, m or h after it."""

    def convert(kind: Any, tokens: Sequence[Token]) -> float:
        text, units = tokens[-1].value, {"": 1, "s": 1, "m": 60, "h": 3600}
        if found := re.fullmatch(r"(\d+\.?\d*|\.\d+)([smh]?)", text):
            return float(found[1]) * units[found[2]]
        raise ValueError(f"{text}: a time is expected, as 90, 90s, 20m or 1.5h")

    return Parameter(converter=convert, n_tokens=1, allow_leading_hyphen=True, metavar="SECONDS|20m|1.5h")


DURATION = _duration()


def _rate() -> Parameter:
    """Make the parameter of a rate in one argument, as 3/day; it is told a day."""

    def convert(kind: Any, tokens: Sequence[Token]) -> float:
        text = tokens[-1].value
        days = {"hour": 1 / 24, "day": 1, "week": 7, "month": 30, "year": 365}
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)/(hour|day|week|month|year)", text)
        if found and float(found[1]) > 0:
            return float(found[1]) / days[found[2]]
        raise ValueError(f"{text}: a rate above 0 is expected, as 3/day, 1/week or 1/month")

    return Parameter(converter=convert, n_tokens=1, allow_leading_hyphen=True, metavar="3/day|1/month")


RATE = _rate()


def _deviation() -> Parameter:
    """Make the parameter of a noise's deviation on the scale of [0, 1], as a number or a quotient."""

    def convert(kind: Any, tokens: Sequence[Token]) -> float:
        text = tokens[-1].value
        value = math.nan
        with suppress(ValueError, ZeroDivisionError):
            first, *others = map(float, text.split("/"))
            value = first / math.prod(others)
        if 0 < value <= 1:
            return value
        advice = f"; of 8-bit values write {text}/255" if 1 < value <= 255 and "/" not in text else ""
        raise ValueError(f"{text}: a deviation above 0, white being 1, as 0.1 or 25/255, is expected{advice}")

    return Parameter(converter=convert, n_tokens=1, allow_leading_hyphen=True, metavar="0.1|25/255")


DEVIATION = _deviation()


def _device() -> Parameter:
    """Make the parameter of a device."""

    def convert(kind: Any, tokens: Sequence[Token]) -> str:
        if re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", text := tokens[-1].value):  # why not mps is told later
            return text
        raise ValueError(f"{text}: auto, cpu, cuda or cuda:N is expected")

    said = "auto takes a CUDA GPU if there is one."
    return Parameter(converter=convert, n_tokens=1, metavar="auto|cpu|cuda|cuda:N", help=said)


DEVICE = _device()


def check_budget(budget: float | None, per_day: float | None) -> None:
    """Raise UsageError for one without the other."""
    if (budget is None) != (per_day is None):
        raise UsageError("--budget and --per-day belong together: 3/day of how many images a day?")
