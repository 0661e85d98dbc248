"""Families of strange images by name: what makes them, and its settings, from a file at run time."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from strange.changes import CHANGES
from strange.sensors import SENSORS
from torch import Tensor

from mfimage.errors import UsageError
from mfimage.eval.features import quantise
from mfimage.files import read_json

KINDS = {**CHANGES, **SENSORS}


@dataclass(frozen=True)
class Family:
    """A kind of `KINDS` and settings of it; UsageError for others than it has.

    The settings that are not given are its own, see `described`.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"there is no kind {self.kind!r}; there are {', '.join(KINDS)}")
        known = settings_of(self.kind)
        for name, value in self.settings.items():
            if name not in known:
                raise UsageError(f"{self.kind} has no setting {name!r}; it has {', '.join(known) or 'none'}")
            if not _fits(value, known[name]):
                kind = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
                raise UsageError(f"{name} of {self.kind} is {kind[type(known[name])]}, not {value!r}")

    def of(self, x: Tensor, seed: int = 0) -> Tensor:
        """Make strange images of x (B, C, H, W), cut to [0, 1] and rounded to 8 bits as files hold them.

        What is drawn follows from the seed and the kind. UsageError if a setting, or the kind, is not for
        these images.
        """
        draw = np.random.default_rng([seed, zlib.crc32(self.kind.encode())])
        return quantise(KINDS[self.kind](x, draw, **self.settings))

    def __str__(self) -> str:
        given = {**settings_of(self.kind), **self.settings}
        said = ", ".join(
            f"{name} {value:g}" if _fits(value, 0.0) else f"{name} {value}" for name, value in given.items()
        )
        return f"{self.kind} ({said})" if said else self.kind


def settings_of(kind: str) -> dict[str, Any]:
    """Give the settings of a kind, with what they are unless given."""
    parameters = inspect.signature(KINDS[kind]).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def _fits(value: Any, known: Any) -> bool:
    """Whether a value is of the type of a setting; a whole number is a number, and true is none."""
    if isinstance(known, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
    return type(value) is type(known)


def read_families(path: Path) -> dict[str, Family]:
    """Read {"NAME": {"kind": KIND, SETTING: VALUE, …}, …}.

    Raises:
        DataError: The file is no JSON object.
        UsageError: A family is not of this form, of an unknown kind, or has an unknown or wrong setting.
    """
    found = {}
    for name, said in read_json(path, "file of families").items():
        if not isinstance(said, dict) or not isinstance(said.get("kind"), str):
            raise UsageError(f'{path}: {name}: {{"kind": KIND, SETTING: VALUE, …}} is expected, not {said!r}')
        try:
            found[name] = Family(said["kind"], {key: value for key, value in said.items() if key != "kind"})
        except UsageError as error:
            raise UsageError(f"{path}: {name}: {error}") from error
    if not found:
        raise UsageError(f"{path}: holds no families")
    return found


def described() -> str:
    """Say what kinds there are, with their settings, a line each."""
    lines = []
    for kind, function in KINDS.items():
        first = (inspect.getdoc(function) or "").splitlines()[0]
        lines.append(f"  {Family(kind)}: {first}")
    return "\n".join(lines)
