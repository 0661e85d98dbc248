import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mfimage.cli.pack import pack
from mfimage.datasets import load
from mfimage.errors import UsageError

pytest.importorskip("pyarrow")

app = typer.Typer()
app.command()(pack)


@pytest.fixture
def folder(tmp_path):
    for name in ("train/1.png", "train/2.png", "test/3.png", "beside.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(len(name)).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(values).save(tmp_path / "set" / name)
    return tmp_path / "set"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_pack(folder, tmp_path):
    (folder / "train" / "0.png").write_bytes(b"")
    done = run(folder, tmp_path / "out", "--size", 4, "--channels", 1, "--max-bad", 0.5)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path}/out\n"
    assert "train-00000.parquet, 1 of 2" in done.stderr
    assert "train/0.png: is empty (0 bytes)" in done.stderr
    assert "1 images lie beside the folders of splits: left out" in done.stderr
    assert load(tmp_path / "out").images.shape == (2, 1, 4, 4)


def test_pack_as_json(folder, tmp_path):
    done = run(folder, tmp_path / "out", "--json", "--quiet", "--shard-mb", 1)
    assert json.loads(done.stdout)["images"] == 3
    assert done.stderr == ""


def test_errors_are_raised_for_the_command_line_to_tell(folder, tmp_path):
    run(folder, tmp_path / "out")
    assert isinstance(run(folder, tmp_path / "out", "--size", 4).exception, UsageError)
