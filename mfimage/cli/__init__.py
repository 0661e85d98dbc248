"""The command `mfimage`: results on stdout, talk on stderr, nothing heavy imported before a verb runs.

Exit codes: 0 done, 1 internal error, 2 usage, 3 bad data, 4 bad model, 5 diverged, 6 disk or memory full,
10 strange images found (score --fail-on-ood), 130/143 interrupted by SIGINT/SIGTERM (training has saved
its step).
"""

from __future__ import annotations

import os
from typing import NoReturn

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve a shared machine

import typer

from mfimage import console
from mfimage.cli import stylegan
from mfimage.cli.denoising import denoise
from mfimage.cli.dimension import dimension
from mfimage.cli.geometry import directions, interpolate, log_prob
from mfimage.cli.manifolds import manifold
from mfimage.cli.measuring import compare, evaluate
from mfimage.cli.pack import pack
from mfimage.cli.scoring import calibrate, score
from mfimage.cli.training import demo, reproduce, train
from mfimage.cli.using import sample

app = typer.Typer(
    help="Image manifold-learning flows: learn the manifold of a folder of images, then denoise by "
    "projection, sample, and score what does not belong.",
    epilog="Exit codes: 0 done, 1 internal error, 2 usage, 3 bad data, 4 bad model, 5 training diverged, "
    "6 disk or memory full, 10 strange images (score --fail-on-ood), 130/143 interrupted "
    "(training has saved its step).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (
    train, sample, denoise, calibrate, score, log_prob, directions, interpolate, dimension, evaluate, compare,
    pack, reproduce, demo,
):  # fmt: skip
    app.command()(verb)
stylegan.app.command()(manifold)
app.add_typer(stylegan.app, name="stylegan")


def main() -> NoReturn:
    """Run the command line; every failure becomes a message and a documented exit code."""
    console.run(app)
