import io
import zipfile

import pytest
import torch
from PIL import Image

from mfimage.datasets import StoredSet, load
from mfimage.datasets.stores import ZipStore
from mfimage.errors import DataError


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_zip(tmp_path):
    names = ("d/2.png", "d/10.png", "__MACOSX/d/._2.png", "labels.txt")
    store = ZipStore(zipped(tmp_path / "x.zip", dict.fromkeys(names, b"12345")))
    assert [store.path(row) for row in range(len(store))] == [
        f"{tmp_path}/x.zip/d/2.png",
        f"{tmp_path}/x.zip/d/10.png",
    ]
    assert store.content(0, 5) == b"12345"
    with pytest.raises(DataError, match=r"d/2\.png: unpacks to more than 4 bytes"):
        store.content(0, 4)


def test_damaged_zips(tmp_path):
    path = zipped(tmp_path / "x.zip", {"1.png": b"some content"})
    path.write_bytes(path.read_bytes().replace(b"some content", b"some cOntent"))
    with pytest.raises(DataError, match=r"1\.png: cannot be unpacked: Bad CRC"):
        ZipStore(path).content(0, 100)
    path.write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="not a readable zip"):
        ZipStore(path)
    with pytest.raises(DataError, match=r"zip file .*x\.zip: holds no images"):
        ZipStore(zipped(path, {"a.txt": b""}))


def test_a_zip_that_does_not_fit_into_memory_is_read_in_place(tmp_path):
    members = {}
    for i in range(30):
        stream = io.BytesIO()
        Image.new("L", (5, 4), i).save(stream, "PNG")
        members[f"{i}.png"] = stream.getvalue()
    path = zipped(tmp_path / "x.zip", members)
    stored, memory = load(path, "all", memory=0), load(path, "all")
    assert isinstance(stored, StoredSet)
    assert torch.equal(stored.batch(slice(None)), memory.images.float() / 255)
    hashes = {load(path, split, memory=0).summary()["sha256"] for split in ("all", "train", "all")}
    assert len(hashes) == 2
    loader = torch.utils.data.DataLoader(
        stored, 4, num_workers=2, multiprocessing_context="fork", collate_fn=torch.stack
    )
    assert torch.equal(torch.cat(list(loader)), memory.batch(slice(None)))
