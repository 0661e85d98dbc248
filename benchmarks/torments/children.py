"""Trials in children that this process forks: thousands a minute, each with its time and its memory."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from torments.place import BYTES, SECONDS, Trial, preloaded

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a fork keeps only the thread that made it
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

Thing = TypeVar("Thing")

_ADDRESSES = 10 * 2**30  # bytes that a child may have, so that nothing else on the machine suffers
_WAIT = 600  # seconds by the clock, of what waits for ever: other work on the machine may take it all


def bounded() -> None:
    """Let this process have no more addresses than it may need: nothing else on the machine is to suffer."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))


def tried(
    promise: str,
    attempt: Callable[[Thing], str],
    things: Sequence[tuple[str, Thing]],
    at_once: int = 50,
    seconds: float = SECONDS,
) -> Iterator[Trial]:
    """Try things, each named, in children that take `at_once` of them each.

    `attempt` returns what is wrong, or nothing; wrong is too what it raises or dies of, and what it takes
    beyond `seconds` of CPU time and BYTES.
    """
    preloaded()
    left = list(things)
    while left:
        part = left[:at_once]
        found, end = _child(attempt, [thing for _, thing in part], seconds)
        for (what, _), (wrong, taken, peak) in zip(part, found, strict=False):
            much = f"{peak / 2**20:.0f} MiB" if peak > BYTES else ""
            said = "; ".join(filter(None, (wrong, much)))
            yield Trial(promise, not said, f"{what}: {said}" if said else what, taken, peak)
        left = left[len(found) :]
        if end or not found:
            yield Trial(promise, False, f"{left[0][0]}: the process died: {end or 'for no known reason'}")
            left = left[1:]


def _child(attempt: Callable[[Thing], str], things: Sequence[Thing], seconds: float) -> tuple[list[Any], str]:
    """Try in one child as many as it survives; return what it told of each, and what it died of."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 99
        with suppress(BaseException):
            _work(attempt, things, writing, seconds)
            code = 0
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as lines:
        found = [json.loads(line) for line in lines if line.endswith("\n")]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    names = {-signal.SIGPROF: f"over {seconds:.0f} s of CPU time", -signal.SIGALRM: f"over {_WAIT} s"}
    return found, "" if code == 0 else names.get(code, f"code {code}")


def _work(attempt: Callable[[Thing], str], things: Sequence[Thing], to: int, seconds: float) -> None:
    bounded()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in C talk
    for thing in things:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # whose signal, like that of the alarm, kills
        signal.alarm(max(_WAIT, int(4 * seconds)))
        began = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wrong = attempt(thing)
        except BaseException as error:
            wrong = f"{type(error).__name__}: {str(error)[:300]}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        line = json.dumps([wrong, time.process_time() - began, peak]) + "\n"
        os.write(to, line.encode())
        if peak > BYTES:  # the next would be blamed for it
            break
