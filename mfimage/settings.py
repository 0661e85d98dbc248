"""Settings that users give: made plain, and checked by the types of their fields, or read from JSON."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Literal, TypeGuard, TypeVar, get_args, get_origin, get_type_hints

from mfimage.errors import UsageError, boundary

Settings = TypeVar("Settings")

_MOST = sys.float_info.max  # which whole numbers may exceed


def from_json(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Make settings from what json.load gave; UsageError for what is unknown or out of range."""
    if unknown := sorted(set(values) - (known := set(get_type_hints(kind)))):
        raise UsageError(
            f"unknown setting {', '.join(unknown)}: {kind.__name__} knows {', '.join(sorted(known))}"
        )
    with boundary(UsageError, f"no settings of {kind.__name__}"):
        return kind(**{name: plain(value) for name, value in values.items()})


def read_settings(kind: type[Settings], path: Path) -> Settings:
    """Read settings from a JSON file, UsageError if it holds none; what is missing keeps its default."""
    from mfimage.files import read_json  # here, because it imports torch

    values = read_json(path, "JSON configuration", UsageError)
    try:
        return from_json(kind, values)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def plain(value: Any) -> Any:
    """Turn scalars of numpy and torch into Python's, and lists into tuples, in mappings and tuples too."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def check_name(what: str, name: object, names: Any) -> None:
    """Raise UsageError unless a name, or a number, is one of a Literal's, and of its type."""
    known = get_args(names)
    if isinstance(name, bool) or not any(isinstance(name, type(one)) and name == one for one in known):
        raise UsageError(f"{what} must be one of {', '.join(map(str, known))}, not {name!r}")


def check_fields(
    config: Any,
    above_zero: Collection[str] = (),
    shares: Collection[str] = (),
    most: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Raise UsageError for a field that is not what it says, or below 0; some lie above it, shares to 1.

    Fields are made `plain` first. `most` says where whole numbers end.
    """
    for name, hint in get_type_hints(type(config)).items():
        value, least = plain(getattr(config, name)), int(name in above_zero)
        object.__setattr__(config, name, value)
        if value is None and NoneType in get_args(hint):
            continue
        if hint in (float, float | None):
            check_number(name, value, bool(least))
            if name in shares and value > 1:
                raise UsageError(f"{name} must lie in {'(' if least else '['}0, 1], not {value}")
        elif hint in (bool, bool | None) and type(value) is not bool:
            raise UsageError(f"{name} must be true or false, not {value!r}")
        elif named := [one for one in (hint, *get_args(hint)) if get_origin(one) is Literal]:
            check_name(name, value, named[0])
        elif hint in (int, int | None):
            whole_number(name, value, least)
        if name in most and value > most[name]:
            raise UsageError(f"{name} must be at most {most[name]:,}, not {value!r}")


def check_number(name: str, value: object, positive: bool = False) -> float:
    """Return a finite number from 0, or above it, made `plain`; UsageError for anything else."""
    value = plain(value)
    if not is_number(value) or value < 0 or (value == 0 and positive):
        raise UsageError(
            f"{name} must be a {'positive number' if positive else 'number from 0'}, not {value!r}"
        )
    return value


def whole_number(name: str, value: object, least: int = 0) -> int:
    """Return a whole number from `least`, made `plain`; UsageError for anything else."""
    value = plain(value)
    if type(value) is not int or value < least:
        raise UsageError(f"{name} must be a whole number from {least}, not {value!r}")
    return value


def check_range(value: object) -> tuple[float, float]:
    """Return the values of black and white, made `plain`; UsageError for anything else."""
    ends = plain(value)
    if isinstance(ends, tuple) and len(ends) == 2 and all(map(is_number, ends)):
        low, high = ends
        if low < high and is_number(high - low):
            return low, high
    raise UsageError(f"value range {value}: two numbers are needed, the first below the second")


def whole_numbers(values: Any, count: int, least: int = 0) -> bool:
    """Whether values are a tuple of so many whole numbers from `least`."""
    if not isinstance(values, tuple) or len(values) != count:
        return False
    return all(type(value) is int and value >= least for value in values)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST
