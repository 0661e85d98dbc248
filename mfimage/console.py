"""The terminal: what is said where, and how failures end."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from mfimage.errors import MfimageError, UsageError

if TYPE_CHECKING:
    from mfimage.datasets import Skipped

verbose = False  # whether a failure shows its traceback


def note_verbose(value: bool) -> bool:
    """Remember -v before anything can fail."""
    global verbose
    verbose = value
    return value


def run(app: Callable[[], object]) -> NoReturn:
    """Run a command line; every failure becomes a message and a documented exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that clean-up runs
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names that are no UTF-8
    try:
        app()
    except MfimageError as error:
        _fail(str(error), error.exit_code)
    except MemoryError as error:
        _fail(f"out of memory: {error or 'lower --batch-size'}", 6)
    except Exception as error:
        _fail(*_diagnose(error))
    sys.exit(0)


def _diagnose(error: Exception) -> tuple[str, int]:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        code = 6 if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM) else 2
        return f"{where}{error.strerror or text}", code
    if "out of memory" in text.lower() or "can't allocate memory" in text:
        return f"out of memory: lower --batch-size ({text.splitlines()[0]})", 6
    return f"{text} (an internal error; -v shows the traceback)", 1


def _fail(message: str, code: int) -> NoReturn:
    if verbose:
        traceback.print_exc()
    print(f"mfimage: {message}", file=sys.stderr)
    sys.exit(code)


def pair(text: str | None) -> tuple[float, float] | None:
    """Read LOW,HIGH; UsageError if it is anything else."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--value-range {text}: two numbers are expected, LOW,HIGH") from error
    return low, high


def parameters(text: str | None, count: int) -> Any:
    """Read the parameters θ of a conditional model, as a tensor (1, P); None for any other model.

    Raises:
        UsageError: If there are not as many numbers as the model takes.
    """
    try:
        values = [float(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise UsageError(f"--theta {text}: comma-separated numbers are expected") from error
    if len(values) != count:
        raise UsageError(f"--theta: the model takes {count} parameters, not {len(values)}")
    if not values:
        return None
    import torch

    return torch.tensor([values])


def put(values: dict[str, Any], text: str, as_json: bool) -> None:
    """Print a result on stdout, as JSON or as text."""
    if os.environ.get("RANK", "0") == "0":  # of several processes the first speaks
        print(json_text(values) if as_json else text)


def json_text(values: Any, indent: int | None = None) -> str:
    """Write values as JSON; what it has no word for, such as an infinite PSNR, becomes null."""
    return json.dumps(_finite(values), indent=indent, allow_nan=False, default=str)


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def say(message: str, quiet: bool) -> None:
    """Talk on stderr."""
    if not quiet:
        print(message, file=sys.stderr)


def as_json(skipped: Sequence[Skipped]) -> list[dict[str, str]]:
    """Describe skipped files for JSON."""
    return [vars(bad) for bad in skipped]


def list_skipped(skipped: Sequence[Skipped]) -> None:
    """List skipped files, with the reasons, on stderr."""
    if skipped:
        print(f"{len(skipped)} files skipped:", file=sys.stderr)
        for bad in skipped:
            print(f"  {bad.path}: {bad.reason}", file=sys.stderr)


@contextmanager
def progress_bar(phase: str, steps: int, quiet: bool) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A progress bar on stderr with loss, images a second and the time left."""
    if quiet:
        yield lambda step, record: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4g}  {task.fields[rate]:.0f} images/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), refresh_per_second=2) as bar:
        task = bar.add_task(phase, total=steps, loss=float("nan"), rate=0.0)
        yield lambda step, record: bar.update(
            task, completed=step, loss=record["loss"], rate=record["images_per_second"]
        )


@contextmanager
def counter(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr that is told how many are done, of how many."""
    if quiet:
        yield lambda done, count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), refresh_per_second=2) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, count: bar.update(task, completed=done, total=count)
