"""`mfimage doctor`: what is installed, and whether it works."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from mfimage import __version__, doctor
from mfimage.errors import ModelError, reason_of
from mfimage.eval.inception import InceptionWeights


@pytest.fixture
def untried(monkeypatch):
    monkeypatch.setattr(doctor, "_try", lambda device, home: iter(["nothing"]))


def test_an_installation_is_told_and_tried(mfimage):
    code, out, err = mfimage("doctor", "--device", "cpu")
    found = dict(line.split("\t", 1) for line in out.splitlines())
    assert (code, err) == (0, "")
    assert found["mfimage"].startswith(f"{__version__} in ")
    assert found["torch"] == metadata.version("torch")
    assert found["trial"].startswith("passed in ")
    assert "30 steps on cpu; inverse off by " in found["trial"]
    assert {"python", "processor", "devices", "cache", "named data sets", "inception weights"} <= set(found)


def test_what_is_wrong_is_told_and_ends_with_1(mfimage, untried, monkeypatch):
    class About:
        def get_all(self, name, otherwise):
            return {"Provides-Extra": ["large"]}.get(
                name,
                [
                    "numpy<1",
                    "no-such-package>=2",
                    'pyarrow>=99; extra == "large"',
                    'nowhere; extra == "large"',
                ],
            )

    monkeypatch.setattr(doctor, "metadata", lambda name: About())
    code, out, err = mfimage("doctor", "--json")
    found = json.loads(out)
    assert (code, err) == (1, "wrong: numpy, no-such-package, pyarrow (optional: large)\n")
    assert "but <1 is asked for" in found["numpy"]["found"]
    assert found["no-such-package"]["found"] == "missing: pip install 'no-such-package>=2'"
    assert found["nowhere (optional: large)"] == {
        "found": "missing: pip install 'mfimage[large]'",
        "wrong": False,
    }


def test_weights_that_are_found_are_named_and_damaged_ones_are_wrong(mfimage, untried, monkeypatch):
    weights = InceptionWeights({}, Path("inception.pth"), "")
    monkeypatch.setattr(doctor, "find_inception_weights", lambda download: weights)
    assert "inception weights\tinception.pth\n" in mfimage("doctor")[1]
    monkeypatch.undo()
    Path("damaged.pth").write_bytes(b"no weights")
    monkeypatch.setenv("MFIMAGE_INCEPTION", "damaged.pth")
    monkeypatch.setattr(doctor, "_try", lambda device, home: iter(["nothing"]))
    code, out, _ = mfimage("doctor")
    assert code == 1
    assert "inception weights\tWRONG: damaged.pth: cannot be read as Inception weights" in out


@pytest.mark.parametrize("error", [AssertionError("the metric is off by 2"), ModelError("no finite numbers")])
def test_a_trial_that_fails_is_told(mfimage, monkeypatch, error):
    def fail(device, home):
        yield "30 steps"
        raise error

    monkeypatch.setattr(doctor, "_try", fail)
    code, out, _ = mfimage("doctor")
    assert code == 1
    assert f"trial\tWRONG: failed: {reason_of(error)}\n" in out


def test_what_was_not_installed_is_told(mfimage, untried, monkeypatch):
    def nobody(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "metadata", nobody)
    code, out, _ = mfimage("doctor")
    assert code == 1
    assert "packages\tWRONG: none is known: this package lies in a folder and was not installed" in out
