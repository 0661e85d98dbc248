"""`mfimage stylegan manifold` as typed, to a training on what it wrote."""

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny import TINY

from mfimage import cli
from mfimage.datasets.pointset import load_point_set
from mfimage.datasets.stylegan import save_generator, seeded_generator
from mfimage.settings import to_json


@pytest.fixture
def mfimage(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mfimage", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (stop.value.code, *capfd.readouterr())

    return call


def test_a_file_s_manifold_is_written_and_learned(mfimage):
    save_generator(seeded_generator(8, 3, channels=1, z_dim=6), "g.safetensors")
    arguments = ("stylegan", "manifold", "g.safetensors", "--count", 40, "--test-count", 5, "--size", 8)
    code, out, err = mfimage(*arguments)
    assert (code, out) == (0, "g-2d-8\n"), err
    assert "45/45" in err
    again = mfimage(*arguments, "-q")
    assert (again[0], again[2]) == (0, "")
    there = json.loads(Path("g-2d-8/points.json").read_text())
    assert there["fingerprint"]
    assert "card" not in there
    assert load_point_set("g-2d-8").latents.shape == (40, 2)
    Path("short.json").write_text(
        json.dumps(to_json(TINY) | {"steps": 2, "density_steps": 2, "validation": 4})
    )
    assert mfimage("train", "g-2d-8", "-o", "run", "--config", "short.json", "-q", "--device", "cpu")[0] == 0
    code, _, err = mfimage(*arguments, "--seed", 1)
    assert code == 2
    assert "seed" in err


def test_the_seeded_generator_says_that_it_was_never_trained(mfimage):
    code, out, _ = mfimage(
        "stylegan", "manifold", "seeded", "--dim", 3, "--count", 4, "--test-count", 0, "--size", 8,
        "--conditional", "--json", "-q", "-o", "set",
    )  # fmt: skip
    assert code == 0
    assert "never trained" in json.loads(out)["card"]
    points = load_point_set("set")
    assert points.theta.shape == (4, 1)
    assert torch.isfinite(points.x).all()


def test_what_goes_wrong_is_told(mfimage):
    save_generator(seeded_generator(8, 3, channels=1, z_dim=2), "small.safetensors")
    for source, code, word in (
        ("nowhere.safetensors", 4, "nowhere"),
        ("small.safetensors", 2, "cannot vary"),
    ):
        status, out, err = mfimage("stylegan", "manifold", source, "--size", 16)
        assert (status, out) == (code, "")
        assert word in err
        assert "Traceback" not in err
