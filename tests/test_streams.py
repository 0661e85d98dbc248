"""Streams that are closed, full, broken, or of a terminal that cannot print everything."""

import errno
import io
import logging
import os
import shlex
import signal
import subprocess
import sys

import pytest
from tiny import ONE_THREAD

from mfimage import signals, streams
from mfimage.console import Late, optional
from mfimage.streams import printable, put, row, say

PRINT = "train --print-config"  # a result on stdout, for which nothing heavy is imported
WRONG = "train --bogus"
DEFAULTS = '"batch_size": '


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


def in_shell(command, redirection, **environment):
    """Run `mfimage COMMAND REDIRECTION` in a shell: its exit code, and what came on both streams."""
    line = f"exec {shlex.quote(sys.executable)} -m mfimage {command} {redirection}"
    done = subprocess.run(
        ["sh", "-c", line], env=ONE_THREAD | environment, capture_output=True, timeout=300, check=False
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a\nb.png\t0", r"a\nb.png\t0"),
        ("\x1b[2J\x9b31m\r.png", r"\x1b[2J\x9b31m\r.png"),
        ("a\u2028b\x0cc\u202egnp.exe", r"a\u2028b\x0cc\u202egnp.exe"),
        ("größe …\udce9.png", "größe …\udce9.png"),
    ],
)
def test_a_name_takes_one_line_and_moves_no_cursor(name, line):
    assert printable(name) == line
    assert row(name, 0.5).split("\t") == [line, "0.5"]


def test_talk_that_looks_like_another_message_is_indented_and_tamed(capsys):
    say("mfimage: a\nb\udce9.png\x1b]0;title\x07: is damaged\n  and more")
    assert capsys.readouterr().err == "mfimage: a\n  b\\udce9.png\\x1b]0;title\\x07: is damaged\n  and more\n"


@pytest.mark.parametrize("stream", [Broken(errno.EPIPE), Broken(errno.ENOSPC), Broken(errno.EIO), None])
def test_talk_that_does_not_arrive_stops_nothing(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    say("nobody hears this")
    with optional("page"):
        raise ValueError("nor this")


def test_a_program_with_handlers_of_its_own_hears_it_there(monkeypatch, capsys, caplog):
    monkeypatch.setattr(streams.LOG, "propagate", True)
    say("a step")
    with optional("page"):
        raise ValueError("too wide")
    warned = ("mfimage", logging.WARNING, "warning: no page: too wide")
    assert {*caplog.record_tuples} == {("mfimage", logging.INFO, "a step"), warned}
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(logging.root, "handlers", [])
    say("another")
    assert capsys.readouterr().err == "another\n"


def test_a_result_that_does_not_arrive_is_an_error_that_says_where(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    with pytest.raises(OSError, match="standard output"):
        put("result")


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("ascii", rb"\u2026 \u2193 28 \xd7"), ("cp1252", b"\x85 \\u2193 28 \xd7")],
)
def test_what_a_terminal_cannot_print_is_escaped(monkeypatch, encoding, expected):
    content = io.BytesIO()
    stdout = io.TextIOWrapper(content, encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stdout)
    streams.prepare_streams()
    put("… ↓ 28 ×")
    put("caf\udce9.png")  # a name that is no text comes out as its bytes
    assert content.getvalue() == expected + b"\ncaf\xe9.png\n"


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("2>&-", 0, ""),
        (">/dev/full", 6, "mfimage: standard output: No space left on device\n"),
        ("</dev/null 1</dev/null", 2, "mfimage: standard output: Bad file descriptor\n"),
    ],
)
def test_a_result_goes_where_its_stream_goes(redirection, code, said):
    status, out, err = in_shell(PRINT, redirection)
    assert (status, err) == (code, said)
    assert (DEFAULTS in out) == (redirection == "2>&-")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- >&-"])
def test_a_failure_keeps_its_code_when_nobody_hears_of_it(redirection):
    assert in_shell(WRONG, redirection) == (2, "", "")


def test_a_reader_who_leaves_is_no_traceback():
    process = subprocess.Popen(
        [sys.executable, "-m", "mfimage", *PRINT.split()],
        env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    assert (process.wait(timeout=300), process.stderr.read()) == (1, b"")
    process.stderr.close()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_help_is_printed_on_any_terminal(encoding):
    status, out, err = in_shell("denoise --help", "", PYTHONIOENCODING=encoding)
    assert (status, err) == (0, "")
    assert "--sigma" in out


def test_a_list_that_is_closed_is_bad_data():
    status, out, err = in_shell("denoise - -m nowhere", "<&-")
    assert (status, out) == (3, "")
    assert err == "mfimage: standard input: no paths, one a line, are listed here\n"


def test_a_lost_terminal_ends_work_unless_it_is_ignored_as_below_nohup():
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert signals.endings() == [signal.SIGTERM]
        with signals.caught_signals() as caught:
            signal.raise_signal(signal.SIGHUP)
        assert caught == []
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with signals.caught_signals() as caught:
            signal.raise_signal(signal.SIGHUP)
        assert caught == [signal.SIGHUP]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_late_errors_wait_for_the_result_and_the_first_is_raised():
    late, done = Late(), []
    for number in (1, 2):
        with late:
            raise ValueError(number)
    with late:
        done.append("told")
    with pytest.raises(ValueError, match="1"):
        late.end()
    assert done == ["told"]
    with pytest.raises(KeyboardInterrupt), Late():
        raise KeyboardInterrupt
