"""One tiny run that several tests read."""

import os

os.environ["COLUMNS"] = "110"
os.environ.pop("FORCE_COLOR", None)  # else continuous integration gets messages in colour

import io
import signal
import sys
import threading

import numpy as np
import pytest
import torch
from tiny import SMALL_MODEL, TINY, bump_images, draw_bumps, learn, write_array

from mfimage import build, cli, from_pretrained, save_pretrained, train
from mfimage.datasets.points import Points
from mfimage.experiments.simulators import Sphere, Surface
from mfimage.streams import LOG

LOG.propagate = False  # as on the command line: pytest has handlers of its own

NOISE_AWARE = TINY.with_(
    steps=150, noise=(0.0, 0.5), every=50, lr=1e-2, batch_size=32, model={**TINY.model, "noise_width": 8}
)

if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what runs the tests may ignore it, as nohup does


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


@pytest.fixture(scope="session")
def noise_aware(tmp_path_factory):
    """A model that learned to remove Gaussian noise."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("noise")
    path = write_array(directory / "bumps.npy", draw_bumps(400))
    return learn(path, directory / "run", NOISE_AWARE)


@pytest.fixture(scope="session")
def circle():
    return Sphere(1).sample(200, torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def surface():
    """Points whose density depends on θ."""
    return Surface().sample(200, torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def scored():
    """Numbers around θ on a bent line, and the score of their density N(θ, 1)."""
    generator = torch.Generator().manual_seed(0)
    theta = 2 * torch.rand(400, 1, generator=generator) - 1
    z = theta + torch.randn(400, 1, generator=generator)
    return Points(torch.cat([z, 0.1 * z**2], 1), "scored", theta, z - theta)


@pytest.fixture(scope="session")
def images():
    """Sixty bumps in memory."""
    return Points(bump_images(60, seed=0), "bumps")


@pytest.fixture
def saved_model(tmp_path):
    """The directory of an untrained model, saved; seed 3."""
    return save_pretrained(build(SMALL_MODEL, seed=3), tmp_path / "model")


@pytest.fixture
def double():
    """Float64 by default, and seed 0."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def mfimage(monkeypatch, capfd, tmp_path):
    """Run the command in this process, in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # which the command changes
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in endings}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background

    def call(*arguments, given=""):
        monkeypatch.setattr(sys, "argv", ["mfimage", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(given))))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (stop.value.code, *capfd.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
