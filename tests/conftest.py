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
from tiny import TINY, draw_bumps

from mfimage import cli, from_pretrained, train

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


@pytest.fixture
def mfimage(monkeypatch, capfd, tmp_path):
    """Run the command in this process, in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # which the command changes
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def call(*arguments, given=""):
        monkeypatch.setattr(sys, "argv", ["mfimage", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(given))))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (stop.value.code, *capfd.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
