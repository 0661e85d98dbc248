"""The verbs of data alone, as typed; `dimension` is tried beside the choice itself."""

import json

import numpy as np
import pytest
from PIL import Image

from mfimage.datasets import load

pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path):
    for name in ("train/1.png", "train/2.png", "test/3.png", "beside.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(len(name)).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(values).save(tmp_path / "set" / name)
    return tmp_path / "set"


def test_pack(mfimage, folder, tmp_path):
    (folder / "train" / "0.png").write_bytes(b"")
    code, out, err = mfimage("pack", folder, "out", "--size", 4, "--channels", 1, "--max-bad", 0.5)
    assert (code, out) == (0, "out\n"), err
    assert "train-00000.parquet, 1 of 2" in err
    assert "train/0.png: is empty (0 bytes)" in err
    assert "1 images lie beside the folders of splits: left out" in err
    assert load(tmp_path / "out").images.shape == (2, 1, 4, 4)


def test_pack_as_json_goes_on_and_refuses_other_settings(mfimage, folder):
    code, out, err = mfimage("pack", folder, "out", "--json", "--quiet", "--shard-mb", 1)
    assert (code, json.loads(out)["images"], err) == (0, 3, "")
    assert mfimage("pack", folder, "out", "--shard-mb", 1)[0] == 0
    assert mfimage("pack", folder, "out", "--size", 4)[0] == 2
