"""One tiny run that several tests read."""

import os

os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"  # else continuous integration gets messages in colour
os.environ["TERMINAL_WIDTH"] = "110"
os.environ.pop("FORCE_COLOR", None)

import numpy as np
import pytest
import torch
from tiny import TINY, draw_bumps

from mfimage import from_pretrained, train


@pytest.fixture(scope="session")
def bumps(tmp_path_factory):
    """The path of an array file of 220 images."""
    path = tmp_path_factory.mktemp("data") / "bumps.npy"
    np.save(path, draw_bumps(220))
    return path


@pytest.fixture(scope="session")
def tiny_run(bumps, tmp_path_factory):
    """The directory of an unbroken run of TINY on the bumps; not to be written to."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("runs") / "unbroken"
    train(bumps, directory, TINY, device="cpu")
    return directory


@pytest.fixture
def model(tiny_run):
    return from_pretrained(tiny_run)
