import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
import torch
from commands import raising
from imagefiles import flip, noise
from PIL import Image
from pngs import png
from tiny import contents

from mfimage.config import Reading
from mfimage.datasets import load, packing, stores
from mfimage.datasets.packing import pack
from mfimage.errors import DataError, ResourceError, UsageError
from mfimage.outputs import owned

pq = pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    return noise(tmp_path / "set", [f"{kind}/{i}.png" for kind in ("cats", "ants") for i in range(30)])


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(packing, "_GROUP_BYTES", 500)
    monkeypatch.setattr(packing, "_GROUP_ROWS", 3)
    monkeypatch.setattr(stores, "CHUNK", 2)


def test_a_pack_holds_the_folder(folder, tmp_path, small_groups):
    manifest = pack(folder, tmp_path / "out", shard_bytes=2000)
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    files = [shard["file"] for shard in manifest["shards"]]
    assert files[:2] == ["train-00000.parquet", "train-00001.parquet"]
    assert files[-1].startswith("test-")
    assert len(files) > 4
    assert manifest["images"] == 60
    assert manifest["classes"] == ["ants", "cats"]
    assert pq.ParquetFile(tmp_path / "out" / files[0]).num_row_groups > 1
    for split in ("train", "test", "all"):
        packed, plain = load(tmp_path / "out", split), load(folder, split)
        if split != "all":
            assert torch.equal(packed.images, plain.images)
            assert packed.labels.tolist() == [int("cats" in path) for path in plain.paths]
        assert sorted(packed.images.flatten(1).tolist()) == sorted(plain.images.flatten(1).tolist())
    row = pq.read_table(tmp_path / "out" / files[0]).to_pylist()[0]
    assert row["image"]["bytes"] == (folder / row["image"]["path"]).read_bytes()


def test_rows_are_read_at_random_from_many_groups(folder, tmp_path, small_groups):
    pack(folder, tmp_path / "out", shard_bytes=2000)
    stored, memory = load(tmp_path / "out", memory=0), load(folder)
    rows = torch.randperm(len(memory), generator=torch.Generator().manual_seed(0))
    assert torch.equal(stored.batch(rows), memory.batch(rows))
    assert stored.subset([5]).store.path(5).endswith(".parquet[5]")


def test_sizes_and_channels_are_made_once(folder, tmp_path):
    pack(folder, tmp_path / "out", size=4, channels=1)
    assert torch.equal(load(tmp_path / "out").images, load(folder, size=4, channels=1).images)
    row = pq.read_table(tmp_path / "out" / "train-00000.parquet").to_pylist()[0]
    assert Image.open(io.BytesIO(row["image"]["bytes"])).format == "PNG"


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_16_bits_are_kept(shape, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "0.png").write_bytes(png(RNG.integers(0, 65536, shape, np.uint16), 16))
    pack(tmp_path / "set", tmp_path / "out", size=4)
    packed, plain = (load(tmp_path / name, "all", 4).images for name in ("out", "set"))
    assert packed.dtype == torch.float32
    assert (packed - plain).abs().max() <= 0.5 / 65535 + 1e-7


def test_splits_of_the_folder_are_those_of_the_pack(tmp_path):
    noise(tmp_path / "set", ["train/1.png", "train/2.png", "val/3.png", "test/4.png", "more/5.png"])
    manifest = pack(tmp_path / "set", tmp_path / "out")
    names = ["train-00000.parquet", "validation-00000.parquet", "test-00000.parquet"]
    assert [shard["file"] for shard in manifest["shards"]] == names
    assert manifest["left_out"] == 1
    assert manifest["classes"] == []
    assert [len(load(tmp_path / "out", split)) for split in ("train", "valid", "test", "all")] == [2, 1, 1, 4]


def test_a_pack_that_was_broken_off_goes_on(folder, tmp_path, monkeypatch):
    whole = pack(folder, tmp_path / "whole", shard_bytes=2000)
    real, written = packing.write_shard, []

    def stop(plan, rows, path, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        real(plan, rows, path, *rest)

    monkeypatch.setattr(packing, "write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        pack(folder, tmp_path / "out", shard_bytes=2000)
    assert sorted(contents(tmp_path / "out")) == sorted([*written, "manifest.json"])
    with pytest.raises(DataError, match=r"out: 2 of \d+ shards are there; run `mfimage pack` again"):
        load(tmp_path / "out")
    (tmp_path / "out" / "train-00005.parquet.0a1b.tmp").write_bytes(b"half")
    monkeypatch.setattr(packing, "write_shard", lambda *a: written.append(a[2].name) or real(*a))
    assert pack(folder, tmp_path / "out", shard_bytes=2000) == whole
    assert len(written) == len(set(written)) == len(whole["shards"])
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", [flip, lambda path: os.truncate(path, 700)])
def test_a_damaged_shard_is_neither_read_nor_signed_again(folder, tmp_path, damage):
    whole = pack(folder, tmp_path / "out", shard_bytes=2000)
    path = tmp_path / "out" / whole["shards"][1]["file"]
    before = path.read_bytes()
    load(tmp_path / "out")
    damage(path)
    for use in (
        lambda: load(tmp_path / "out"),
        lambda: load(tmp_path / "out", memory=0),
        lambda: load(path),
        lambda: pack(tmp_path / "out", tmp_path / "again"),
    ):
        with pytest.raises(DataError, match=rf"{path.name}: is not as it was written.*`mfimage pack` again"):
            use()
    with pytest.raises(DataError, match=path.name):
        pack(folder, tmp_path / "out", shard_bytes=2000)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == whole
    path.unlink()
    assert pack(folder, tmp_path / "out", shard_bytes=2000) == whole
    assert path.read_bytes() == before
    load(tmp_path / "out")


def test_a_shard_whose_hash_was_not_recorded_is_written_anew(folder, tmp_path):
    whole = pack(folder, tmp_path / "out", shard_bytes=2000)
    (tmp_path / "out" / "manifest.json").unlink()
    path = tmp_path / "out" / whole["shards"][1]["file"]
    flip(path)
    assert pack(folder, tmp_path / "out", shard_bytes=2000) == whole
    load(tmp_path / "out")


def test_what_a_pack_does_not_hold_is_listed(folder, tmp_path):
    (folder / "cats" / "x.heic").write_bytes(b"")
    manifest = pack(folder, tmp_path / "out", reading=Reading(max_bad=0.0))
    assert [bad["path"] for bad in manifest["skipped"]] == [f"{folder}/cats/x.heic"]


def test_two_packs_into_one_folder_do_not_mix(folder, tmp_path):
    with owned(tmp_path / "out"), ThreadPoolExecutor(1) as other:
        error = other.submit(pack, folder, tmp_path / "out").exception()
    assert isinstance(error, UsageError)
    assert "is writing there" in str(error)
    with pytest.raises(UsageError, match="is what is read"):
        pack(folder, folder)


def test_a_shard_is_whole_or_absent(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_groups", raising(OSError(28, "No space left on device")))
    with pytest.raises(ResourceError, match="No space"):
        pack(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_pack_is_not_mixed_with_it(folder, tmp_path):
    pack(folder, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(UsageError, match="is not of this pack: choose another folder"):
        pack(folder, tmp_path / "out", size=4)
    assert contents(tmp_path / "out") == before
    noise(folder, ["cats/31.png"])
    with pytest.raises(UsageError, match="is not of this pack"):
        pack(folder, tmp_path / "out")
    pack(folder, tmp_path / "new")
    os.rename(tmp_path / "out" / "train-00000.parquet", tmp_path / "new" / "train-00009.parquet")
    with pytest.raises(DataError, match="holds shards of several packs"):
        load(tmp_path / "new")


def test_bad_files_are_left_out_and_listed(folder, tmp_path):
    (folder / "cats" / "3.png").write_bytes(b"")
    for _ in range(2):
        manifest = pack(folder, tmp_path / "out", reading=Reading(max_bad=0.1))
        assert manifest["skipped"] == [{"path": f"{folder}/cats/3.png", "reason": "is empty (0 bytes)"}]
        assert manifest["images"] == 59
    assert len(load(tmp_path / "out", "all")) == 59
    with pytest.raises(DataError, match="cannot be used"):
        pack(folder, tmp_path / "none", reading=Reading(max_bad=0.0))


def test_what_cannot_be_packed(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(DataError, match="nowhere: no such file or folder, and no named set"):
        pack(tmp_path / "nowhere", tmp_path / "out")
    for source in (tmp_path / "x.npy", "digits"):
        with pytest.raises(DataError, match="is no folder, Parquet file or named set of photographs"):
            pack(source, tmp_path / "out")


def test_a_pack_is_packed_again(folder, tmp_path):
    pack(folder, tmp_path / "out")
    pack(tmp_path / "out", tmp_path / "small", size=4)
    again, plain = load(tmp_path / "small"), load(folder, size=4)
    assert torch.equal(again.images, plain.images)
    assert again.labels.tolist() == [int("cats" in path) for path in plain.paths]


def test_hugging_face_datasets_reads_it(folder, tmp_path):
    try:
        version("datasets")
    except PackageNotFoundError:
        pytest.skip("datasets is not installed")
    pack(folder, tmp_path / "out", shard_bytes=2000)
    code = (
        "import datasets, sys, numpy as np\n"
        "loaded = datasets.load_dataset(sys.argv[1], cache_dir=sys.argv[2])\n"
        "row = loaded['train'][0]\n"
        "print(len(loaded['train']), len(loaded['test']), loaded['train'].features['label'].names)\n"
        "print(np.asarray(row['image']).tolist(), row['label'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "cache")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env=environment | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain = load(folder)
    first, second = done.stdout.splitlines()[-2:]
    assert first == f"{len(plain)} {60 - len(plain)} ['ants', 'cats']"
    assert second == f"{plain.images[0].movedim(0, -1).tolist()} {int('cats' in plain.paths[0])}"
