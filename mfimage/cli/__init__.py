"""The command `mfimage`: results on stdout, talk on stderr, nothing heavy imported before a verb runs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve a shared machine

from cyclopts import App, CycloptsError, Parameter

from mfimage import __version__, console, outputs
from mfimage.cli import calibrate, denoise, doctor, evaluate, export, manifold, push, score, stylegan, train
from mfimage.cli.options import Talk
from mfimage.errors import UsageError
from mfimage.streams import LOG, settle_streams

app = App(
    name="mfimage",
    help="Image manifold-learning flows: learn the manifold of a folder of images, then denoise by "
    "projection, sample, and score what does not belong.",
    help_epilogue="Exit codes: 0 done, 1 internal error or nobody reads the result, 2 usage, 3 bad data, "
    "4 bad model, 5 training diverged, 6 disk or memory full, 10 strange images (score --fail-on-ood), "
    "129/130/143 interrupted (training has saved its step).",
    help_format="markdown",
    version=__version__,
    default_parameter=Parameter(negative_bool=(), negative_iterable=()),
)
for verb in (
    train.train, manifold.sample, denoise.denoise, calibrate.calibrate, score.score, manifold.log_prob,
    manifold.directions, manifold.interpolate, train.dimension, evaluate.evaluate, evaluate.compare,
    push.push, export.export, train.pack, train.reproduce, train.demo, doctor.doctor,
):  # fmt: skip
    app.command(verb)
app["train"].usage = "Usage: mfimage train [OPTIONS] DATA..."  # which --print-config does without
app["evaluate"].usage = "Usage: mfimage evaluate [OPTIONS] [MODEL] [DATA...]"
app.command(stylegan.app)
app.register_install_completion_command()


def main() -> NoReturn:
    """Run the command line; every failure becomes a message and a documented exit code."""
    console.prepare()
    try:
        _run(sys.argv[1:])
    finally:
        settle_streams()


def _run(tokens: list[str]) -> NoReturn:
    with console.exit_codes():
        try:
            verb, given, _ = app.parse_args(tokens, print_error=False, exit_on_error=False)
        except CycloptsError as error:
            raise UsageError(" ".join(str(error).split())) from error
    talk = next((value for value in given.arguments.values() if isinstance(value, Talk)), Talk())
    LOG.setLevel(logging.WARNING if talk.quiet else logging.INFO)
    with console.exit_codes(talk.verbose, lambda: "--batch-size" in options_of(tokens)), outputs.command():
        verb(*given.args, **given.kwargs)
    unasked = getattr(verb, "__name__", "") == "help_print" and not {"-h", "--help"} & set(tokens)
    sys.exit(UsageError.exit_code if unasked else 0)


def options_of(tokens: Sequence[str]) -> set[str]:
    """Name the options of the verb that a command line begins with."""
    arguments = app.parse_commands(tokens)[1][-1].assemble_argument_collection()
    return {name for argument in arguments for name in argument.names if name.startswith("-")}
