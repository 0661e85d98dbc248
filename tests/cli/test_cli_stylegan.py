"""The verbs of generators as typed, to a training on what they wrote."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails
from PIL import Image
from tiny import TINY

from mfimage import console
from mfimage.cli.stylegan import seed_list
from mfimage.datasets.points import load_points
from mfimage.datasets.stylegan import load_generator, save_generator, seeded_generator
from mfimage.errors import UsageError


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.fixture
def weights(tmp_path):
    save_generator(seeded_generator(8, 0), tmp_path / "seeded.safetensors")
    return tmp_path / "seeded.safetensors"


def test_sample_writes_an_image_a_seed_and_a_sheet(mfimage, weights, tmp_path):
    command = ("stylegan", "sample", weights, "--json", "-q")
    code, out, _ = mfimage(*command, "--seeds", "3,0-1", "--outdir", "out")
    written = json.loads(out)["images"]
    assert (code, written) == (0, [f"out/seed-{seed}.png" for seed in ("0003", "0000", "0001")])
    images = [pixels(path) for path in written]
    assert all(image.shape == (8, 8, 3) for image in images)
    assert (images[0] != images[1]).any()
    assert pixels("out/sheet.png").shape == (2 * 10 + 2, 2 * 10 + 2, 3)
    assert mfimage(*command, "--seeds", "1", "--outdir", "alone")[0] == 0
    assert np.abs(pixels("alone/seed-0001.png") - images[2]).max() <= 1


def test_truncation_to_nothing_gives_the_mean(mfimage, weights):
    assert mfimage("stylegan", "sample", weights, "--seeds", "0-1", "--truncation", "0", "-o", ".")[0] == 0
    first, second = (pixels(f"seed-000{k}.png") for k in (0, 1))
    assert (first == second).all()


def test_import_refuses_what_is_no_network_and_writes_nothing(mfimage, weights, tmp_path):
    bad = tmp_path / "bad.pkl"
    bad.write_bytes(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.")
    assert fails(mfimage("stylegan", "import", bad, "out.safetensors"), 4, "asks for a call of os.system")
    assert not (tmp_path / "out.safetensors").exists()
    assert mfimage("stylegan", "import", weights, weights)[0] == 2
    assert load_generator(weights)


@pytest.mark.parametrize(
    "arguments",
    [["--label", "1"], ["--seeds", "x"], ["--seeds", "3-1"], ["--seeds", "1,,2"], ["--truncation", "2"]],
)
def test_a_wrong_request_is_a_usage_error(mfimage, arguments, weights, tmp_path):
    code, out, err = mfimage("stylegan", "sample", weights, "--outdir", "out", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "out").exists()


def test_seed_lists():
    assert seed_list("0-3, 7,2,10-10") == [0, 1, 2, 3, 7, 10]
    assert len(seed_list("0-99999")) == 100_000
    for bad in ("", "-1", "1-", "0-100000", "1e3", "٣", "0-4294967296", "1" * 5000):
        with pytest.raises(UsageError, match="--seeds"):
            seed_list(bad)


def test_a_file_s_manifold_is_written_and_learned(mfimage, monkeypatch):
    monkeypatch.setattr(console, "FIRST", 0.0)  # progress is shown however fast it goes
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
    assert load_points("g-2d-8").latents.shape == (40, 2)
    Path("short.json").write_text(
        json.dumps(asdict(TINY) | {"steps": 2, "density_steps": 2, "validation": 4})
    )
    assert mfimage("train", "g-2d-8", "-o", "run", "--config", "short.json", "-q", "--device", "cpu")[0] == 0
    assert fails(mfimage(*arguments, "--seed", 1), 2, "seed")


def test_the_seeded_generator_says_that_it_was_never_trained(mfimage):
    code, out, _ = mfimage(
        "stylegan", "manifold", "seeded", "--dim", 3, "--count", 4, "--test-count", 0, "--size", 8,
        "--conditional", "--json", "-q", "-o", "set",
    )  # fmt: skip
    assert code == 0
    assert "never trained" in json.loads(out)["card"]
    points = load_points("set")
    assert points.theta.shape == (4, 1)
    assert torch.isfinite(points.x).all()


def test_what_goes_wrong_is_told(mfimage):
    save_generator(seeded_generator(8, 3, channels=1, z_dim=2), "small.safetensors")
    for source, code, word in (
        ("nowhere.safetensors", 4, "nowhere"),
        ("small.safetensors", 2, "cannot vary"),
    ):
        assert fails(mfimage("stylegan", "manifold", source, "--size", 16), code, word)
