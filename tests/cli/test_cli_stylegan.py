import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mfimage.cli.stylegan import app, seed_list
from mfimage.datasets.stylegan import load_generator, save_generator, seeded_generator
from mfimage.errors import ModelError, UsageError


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.fixture
def weights(tmp_path):
    save_generator(seeded_generator(8, 0), tmp_path / "seeded.safetensors")
    return tmp_path / "seeded.safetensors"


def test_sample_writes_an_image_a_seed_and_a_sheet(weights, tmp_path):
    done = run("sample", weights, "--seeds", "3,0-1", "--outdir", tmp_path / "out", "--json", "-q")
    assert done.exit_code == 0
    written = json.loads(done.stdout)["images"]
    assert [path.rsplit("/", 1)[-1] for path in written] == [
        "seed-0003.png",
        "seed-0000.png",
        "seed-0001.png",
    ]
    images = [pixels(path) for path in written]
    assert all(image.shape == (8, 8, 3) for image in images)
    assert (images[0] != images[1]).any()
    assert pixels(tmp_path / "out" / "sheet.png").shape == (2 * 10 + 2, 2 * 10 + 2, 3)
    run("sample", weights, "--seeds", "1", "--outdir", tmp_path / "alone")
    alone = pixels(tmp_path / "alone" / "seed-0001.png")
    assert np.abs(alone - images[2]).max() <= 1


def test_truncation_to_nothing_gives_the_mean(weights, tmp_path):
    run("sample", weights, "--seeds", "0-1", "--truncation", "0", "--outdir", tmp_path)
    first, second = (pixels(tmp_path / f"seed-000{k}.png") for k in (0, 1))
    assert (first == second).all()


def test_import_refuses_what_is_no_network_and_writes_nothing(weights, tmp_path):
    bad = tmp_path / "bad.pkl"
    bad.write_bytes(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.")
    done = run("import", bad, tmp_path / "out.safetensors")
    assert isinstance(done.exception, ModelError)
    assert done.exception.exit_code == 4
    assert "asks for a call of os.system" in str(done.exception)
    assert not (tmp_path / "out.safetensors").exists()
    done = run("import", weights, weights)
    assert isinstance(done.exception, UsageError)
    assert load_generator(weights)


@pytest.mark.parametrize(
    "arguments", [["--label", "1"], ["--seeds", "x"], ["--seeds", "3-1"], ["--seeds", "1,,2"]]
)
def test_a_wrong_request_is_a_usage_error(arguments, weights, tmp_path):
    done = run("sample", weights, "--outdir", tmp_path / "out", *arguments)
    assert isinstance(done.exception, UsageError)
    assert not (tmp_path / "out").exists()


def test_seed_lists():
    assert seed_list("0-3, 7,2,10-10") == [0, 1, 2, 3, 7, 10]
    assert len(seed_list("0-99999")) == 100_000
    for bad in ("", "-1", "1-", "0-100000", "1e3", "٣", "0-4294967296", "1" * 5000):
        with pytest.raises(UsageError, match="--seeds"):
            seed_list(bad)
