"""Standard streams, which may be closed, full or broken, or of a terminal that cannot print everything."""

from __future__ import annotations

import codecs
import io
import logging
import os
import re
import sys
from contextlib import suppress

_BREAKS = "\t\n"
# controls, line breaks that only some know, and what turns the direction of writing
_HIDDEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
_IN_NAMES, _IN_TEXT = re.compile(f"[{_BREAKS}{_HIDDEN}]"), re.compile(f"[{_HIDDEN}]")
_IN_TALK = re.compile(f"[{_HIDDEN}\ud800-\udfff]")  # and what no handler could write: names that are no text
_ERRORS = "mfimage"  # how stdout writes what its encoding has not


def printable(value: object) -> str:
    r"""Write a name on one line: what would break, move or colour the line, as Python escapes it.

    >>> print(printable("a\nb\x1b[31m.png"))
    a\nb\x1b[31m.png
    """
    return _IN_NAMES.sub(_escape, str(value))


def row(*cells: object) -> str:
    """Write cells, each `printable`, as a line of a table separated by tabs."""
    return "\t".join(map(printable, cells))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class _ToStderr(logging.Handler):
    """Writes what the package says on stderr, as long as no program that uses it has handlers of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        heard_elsewhere = LOG.propagate and logging.root.handlers
        if sys.stderr is not None and not heard_elsewhere:
            with suppress(OSError, ValueError):  # it is broken, full or closed: what cannot be said is not
                print(record.getMessage(), file=sys.stderr, flush=True)


LOG = logging.getLogger("mfimage")
LOG.setLevel(logging.INFO)
LOG.addHandler(_ToStderr())


def say(text: str, level: int = logging.INFO) -> None:
    """Talk: through the logger "mfimage", which writes on stderr where `logging` is not set up.

    Lines after the first are indented: no name with a line break in it looks like a message of its own.
    """
    LOG.log(level, "%s", re.sub(r"\n(?!  )", "\n  ", _IN_TALK.sub(_escape, text)))


def put(text: str, end: str = "\n") -> None:
    """Print a result on stdout at once; OSError if it does not arrive. Of several processes the first speaks.

    Names in it are `printable` already, so that each stands on its own line.
    """
    if os.environ.get("RANK", "0") != "0" or sys.stdout is None:
        return
    try:
        print(_IN_TEXT.sub(_escape, text), end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def prepare_streams() -> None:
    """Open nowhere in the place of closed streams, let stdout write names that are no text, talk on stderr.

    Else the next file that is opened would take a closed one's number, and get what is printed.
    """
    LOG.propagate = False
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w" if number else "r", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nowhere)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace" if sys.stdout.isatty() else _ERRORS)


def settle_streams() -> None:
    """Send what does not arrive nowhere, or the interpreter would end with an exit code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """Give back the bytes of a name that is no text; write other characters as Python escapes them."""
    if not isinstance(error, UnicodeEncodeError):  # of who reads what was printed
        return codecs.lookup_error("surrogateescape")(error)
    one = error.object[error.start]
    if "\udc80" <= one <= "\udcff":
        return bytes([ord(one) - 0xDC00]), error.start + 1
    return one.encode("ascii", "backslashreplace").decode(), error.start + 1


codecs.register_error(_ERRORS, _escaped)
