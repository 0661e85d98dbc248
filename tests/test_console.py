"""What is said on a terminal, and where there is none."""

import io
import signal
import sys
import threading

import pytest

from mfimage import console
from mfimage.console import counted, duration, percent, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def run(clock, seconds, steps, total=100, first=1, **settings):
    with progress("manifold", total, **settings) as advance:
        for step in range(first, steps + 1):
            clock[0] += seconds
            advance(step, note=f"step {step}")


def test_without_a_terminal_a_line_is_said_every_ten_seconds_and_at_the_end(clock, capsys):
    run(clock, 2.0, 12)
    assert capsys.readouterr().err.splitlines() == [
        "manifold  1/100  step 1",
        "manifold  6/100  step 6  3 min left",
        "manifold  11/100  step 11  3 min left",
        "manifold  12/100  step 12  3 min left",
    ]
    run(clock, 0.1, 100, own_words=True)
    assert capsys.readouterr().err.splitlines()[-1] == "manifold  step 100"


def test_a_total_may_be_unknown(clock, capsys):
    run(clock, 11.0, 2, total=None)
    assert capsys.readouterr().err.splitlines() == ["manifold  1  step 1", "manifold  2  step 2"]


def test_what_has_nothing_to_do_says_nothing(clock, capsys, monkeypatch):
    run(clock, 1.0, 0)
    run(clock, 20.0, 50, quiet=True)
    run(clock, 0.1, 15)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    run(clock, 1.0, 0)
    assert sys.stderr.getvalue() == ""


def test_a_terminal_has_a_bar(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    run(clock, 1.0, 100, first=51)
    last = sys.stderr.getvalue()
    assert "manifold" in last
    assert "100/100" in last
    assert "step 100" in last


def test_times_and_counts_are_said_as_a_person_would():
    assert [duration(s) for s in (-1, 45, 100, 360, 5400)] == ["0 s", "45 s", "2 min", "6 min", "1.5 h"]
    assert [duration(s, given=True) for s in (45, 100, 360)] == ["45 s", "100 s", "6 min"]
    assert [counted(n, "image") for n in (0, 1, 1349)] == ["0 images", "1 image", "1,349 images"]
    assert [percent(x) for x in (0.014, 0.0996, 0.18, 0.6)] == ["1.4 %", "10 %", "18 %", "60 %"]


def test_what_fails_in_a_thread_is_told_in_a_line(monkeypatch, capsys):
    def fail():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(console, "prepare_streams", lambda: None)
    console.prepare()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert capsys.readouterr().err == "warning: No space left on device\n"
