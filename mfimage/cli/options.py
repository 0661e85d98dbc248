"""Options that several verbs share: what is said, how models and images are read, settings as flags."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, make_dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from cyclopts import Parameter, Token, validators
from docstring_parser import parse

from mfimage import console, outputs, streams
from mfimage.cli.values import DEVICE, DURATION, NOISE, PAIR
from mfimage.config import Reading
from mfimage.errors import Interrupted

if TYPE_CHECKING:
    from mfimage.datasets import Dataset, ImageSet
    from mfimage.models import GenerativeModel


def comma_separated(names: object = None) -> Parameter:
    """Make the parameter of a list in one argument, separated by commas, of the names of a Literal if any."""

    def convert(kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
        found = tuple(part.strip() for token in tokens for part in token.value.split(","))
        if unknown := [name for name in found if names is not None and name not in get_args(names)]:
            raise ValueError(f"{', '.join(unknown)}: choose from {', '.join(get_args(names))}")
        return found

    return Parameter(converter=convert, n_tokens=1, allow_leading_hyphen=True, show_default=False)


def at_least(least: int, most: int = 2**31 - 1) -> Parameter:
    """Make the parameter of a number from `least` to `most`."""
    return Parameter(validator=validators.Number(gte=least, lte=most))


def _helps(settings: type) -> dict[str, str]:
    """Take what a docstring says in its Args of each field."""
    known = parse(settings.__doc__ or "").params
    return {one.arg_name: " ".join((one.description or "").split()) for one in known}


def given(*paths: str | Path | None) -> None:
    """Note what a verb reads, so that nothing is written over it."""
    from mfimage.datasets.decode import IMAGE_SUFFIXES
    from mfimage.datasets.index import matches
    from mfimage.datasets.listing import links_in
    from mfimage.files import user_path

    named = [user_path(path) for path in paths if path]
    found = chain.from_iterable([one] if os.path.exists(one) else map(Path, matches(one)) for one in named)
    outputs.given(found, (*IMAGE_SUFFIXES, ".npy", ".npz", ".zip", ".parquet"), links_in)


Flag = Annotated[bool, Parameter(show_default=False)]
Data = Annotated[
    str, Parameter(required=True, help="Named set, hf:NAME, folder, zip or array file; several are joined.")
]
Inputs = Annotated[str, Parameter(required=True, help="Image files, folders or glob patterns.")]
Model = Annotated[
    str, Parameter(alias="-m", help="Run directory, model directory or Hub id (user/name@revision).")
]
Outdir = Annotated[Path, Parameter(alias="-o", help="Where results go.")]
OwnOutdir = Annotated[Path | None, Parameter(alias="-o")]  # whose default the verb explains
ConfigFile = Annotated[Path | None, Parameter(name="--config", help="JSON file of settings.")]
Size = Annotated[int | None, at_least(1, 2**14), Parameter(help="Resize and crop to SIZE × SIZE.")]
Channels = Annotated[Literal[1, 3] | None, Parameter(help="1 grey, 3 colour.")]
Seed = Annotated[int, Parameter(validator=validators.Number(gte=0, lt=2**63), help="Of everything random.")]
Device = Annotated[str, DEVICE]
BatchSize = Annotated[int, at_least(1), Parameter(help="Images at a time.")]


@contextmanager
def advising(how: str) -> Iterator[None]:
    """Say with a training that a signal stops how the verb goes on with it."""
    try:
        yield
    except Interrupted as stopped:
        raise Interrupted(stopped.exit_code - 128, f"{stopped}; {how}") from stopped


SAME_COMMAND = "the same command goes on"


@Parameter(name="*")
@dataclass(frozen=True)
class ReadingOptions(Reading):
    """How image files are read; see `Reading`."""

    value_range: Annotated[
        tuple[float, float] | None, PAIR, Parameter(help=_helps(Reading)["value_range"])
    ] = None
    verify: Annotated[Flag, Parameter(help=_helps(Reading)["verify"])] = False


@Parameter(name="*")
@dataclass(frozen=True)
class Talk:
    """What a verb says, and where.

    Args:
        json: One JSON object on stdout.
        quiet: No talk on stderr but errors.
        verbose: Show the traceback of an error.
    """

    json: Flag = False
    quiet: Annotated[Flag, Parameter(alias="-q")] = False
    verbose: Annotated[Flag, Parameter(alias="-v")] = False

    def say(self, message: str) -> None:
        """Talk on stderr."""
        streams.say(message)

    def notes(self, notes: Sequence[str]) -> None:
        """Say on stderr what a user should know of what was read."""
        for note in notes:
            self.say(f"note: {note}")

    def caution(self, model: GenerativeModel) -> None:
        """Say where training has found nothing better than principal components."""
        from mfimage.eval.verdict import verdict_of

        found = verdict_of(model)
        if found is not None and not (found.better or found.linear):
            self.say(f"note on this model: {found}")

    def put(self, values: Mapping[str, Any], lines: Iterable[object]) -> None:
        """Print a result on stdout, as JSON or as lines, each something with a name or a tuple of cells."""
        text = "\n".join(streams.row(*(line if isinstance(line, tuple) else (line,))) for line in lines)
        streams.put(console.json_text(values) if self.json else text)

    def progress(self, what: str, total: int | None = None) -> AbstractContextManager[console.Advance]:
        """Show a progress bar on stderr."""
        return console.progress(what, total, self.quiet)


@dataclass(frozen=True)
class _Source:
    reading: ReadingOptions = ReadingOptions()
    device: Device = "auto"


@Parameter(name="*")
@dataclass(frozen=True)
class Options(Talk, _Source):
    """What most verbs share: how images are read, where a model computes, and what is said."""

    def load(self, source: str, projects: bool = False) -> GenerativeModel:
        """Read the model that --model names; with `projects`, refuse one that cannot project images."""
        from mfimage.inputs import require_image_manifold
        from mfimage.pretrained import from_pretrained

        model = from_pretrained(source, self.device)
        if projects:
            require_image_manifold(model)
        return model

    def split(
        self, data: Sequence[str], split: str, model: GenerativeModel, limit: int | None = None
    ) -> Dataset:
        """Load the images of a split in a model's shape, and list what is skipped."""
        from mfimage.inputs import load_like

        given(*data)
        images = load_like(data, split, model, self.reading, limit)
        self.notes(images.notes)
        console.list_skipped(images.skipped)
        return images

    def inputs(self, paths: Sequence[str], model: GenerativeModel) -> ImageSet:
        """Load the images that files, folders and patterns name, in a model's shape; list what is skipped."""
        from mfimage.datasets import load_files

        given(*paths)
        channels, height, width = model.shape
        images = load_files(paths, (height, width), channels, reading=self.reading)
        self.notes(images.notes)
        console.list_skipped(images.skipped)
        return images


def flags(settings: type, leave_out: Container[str] = (), **nested: type) -> Any:
    """Make of a dataclass of settings one of flags, explained by its docstring; None where one is not given.

    Fields in `leave_out` get none; those that are settings themselves are `nested`: --FIELD.NAME.
    """
    helps, hints = _helps(settings), get_type_hints(settings)
    made: list[tuple[str, Any, Any]] = []
    for one in fields(settings):
        name, hint, default = one.name, hints[one.name], one.default
        if name in nested:
            made.append((name, nested[name], field(default_factory=nested[name])))
        elif name not in leave_out:
            shown = False if default is None or default is False else str(default)
            parameter = Parameter(help=helps[name], negative_bool="no-", show_default=shown)
            special = {"time": DURATION, "noise": NOISE}.get(name, Parameter())
            made.append((name, Annotated[hint | None, special, parameter], field(default=None)))
    names = {"__module__": __name__}  # else it passes for a class of the standard library
    return make_dataclass(f"{settings.__name__}Flags", made, frozen=True, namespace=names)
