import threading
import time
import zipfile
from itertools import chain

import pytest
import torch
from imagefiles import content, readers
from PIL import Image

from mfimage.config import Reading
from mfimage.datasets import StoredSet, decode, load, stores
from mfimage.datasets.stores import ZipStore, ahead, read_chunks, workers
from mfimage.errors import DataError


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
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


def png(value):
    return content(Image.new("L", (5, 4), value))


def put(archive, name, data):
    """Add a member under exactly this name."""
    member = zipfile.ZipInfo("x")
    member.filename = name
    archive.writestr(member, data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_several_times_is_an_image_each_time(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for data in (png(1), b"", png(3)):
            put(archive, "a.png", data)
        put(archive, "a.png (2)", b"a name that is no image's")
        put(archive, "d\\b.png", png(4))
        put(archive, "d/b.png", png(5))
    for memory in (None, 0):
        images = load(tmp_path / "x.zip", "all", memory=memory, reading=Reading(max_bad=0.5))
        if memory is None:
            assert (images.images[:, 0, 0, 0]).tolist() == [1, 3, 4, 5]
            assert [path.removeprefix(f"{tmp_path}/x.zip/") for path in images.paths] == [
                "a.png", "a.png (3)", "d/b.png", "d/b.png (2)",
            ]  # fmt: skip
        assert [(bad.path, bad.reason) for bad in images.skipped] == [
            (f"{tmp_path}/x.zip/a.png (2)", "is empty (0 bytes)")
        ]


def test_back_slashes_are_between_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(6):
            put(archive, f"{'train' if i < 4 else 'test'}\\{i}.png", png(i))
        put(archive, "__MACOSX\\train\\._0.png", b"Mac OS X")
        put(archive, "train\\7.heic", b"")
    images = load(tmp_path / "x.zip")
    assert images.paths == tuple(f"{tmp_path}/x.zip/train/{i}.png" for i in range(4))
    assert [bad.path for bad in images.skipped] == [f"{tmp_path}/x.zip/train/7.heic"]
    assert load(tmp_path / "x.zip", "test").images[:, 0, 0, 0].tolist() == [4, 5]


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
    path = zipped(tmp_path / "x.zip", {f"{i}.png": png(i) for i in range(30)})
    stored, memory = load(path, "all", memory=0), load(path, "all")
    assert isinstance(stored, StoredSet)
    assert torch.equal(stored.batch(slice(None)), memory.images.float() / 255)
    hashes = {load(path, split, memory=0).summary()["sha256"] for split in ("all", "train", "all")}
    assert len(hashes) == 2
    loader = torch.utils.data.DataLoader(
        stored, 4, num_workers=2, multiprocessing_context="fork", collate_fn=torch.stack
    )
    assert torch.equal(torch.cat(list(loader)), memory.batch(slice(None)))


@pytest.fixture
def threads(monkeypatch):
    return lambda count: monkeypatch.setattr(stores, "workers", lambda: count)


def test_the_order_stays_whoever_is_first(threads):
    threads(4)

    def slow(i):
        time.sleep(0.002 * (i % 3))
        return i

    assert list(ahead(slow, range(30))) == list(range(30))
    assert not readers()


def test_at_least_one_thread_decodes():
    assert workers() >= 1


def test_no_more_is_read_than_two_a_thread(threads):
    threads(2)
    begun, drawn = [], []

    def keys():
        for i in range(100):
            drawn.append(i)
            yield i

    values = ahead(lambda i: begun.append(i) or i, keys())
    assert not begun  # nothing happens before the first is asked for
    assert [next(values) for _ in range(5)] == [0, 1, 2, 3, 4]
    time.sleep(0.02)
    assert len(drawn) == 5 + 4
    assert len(begun) <= 5 + 4
    values.close()
    assert not readers()


def test_an_error_comes_where_its_value_would_have(threads):
    threads(3)

    def read(i):
        if i == 3:
            raise DataError("three is bad")
        return i

    values, taken = ahead(read, range(10)), []
    with pytest.raises(DataError, match="three is bad"):
        taken.extend(values)
    assert taken == [0, 1, 2]
    values = ahead(read, range(10))
    assert [next(values) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="three is bad"):
        next(values)
    assert not readers()


def test_keys_are_drawn_by_the_caller(threads):
    threads(2)
    here, seen = threading.get_ident(), set()

    def keys():
        for i in range(9):
            seen.add(threading.get_ident())
            yield i

    list(ahead(lambda i: i, keys()))
    assert seen == {here}


ERRORS = [
    ValueError("Box offset can't be negative"),
    RecursionError(),
    OverflowError("big"),
    KeyError("x"),
    AssertionError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("memory", [None, 0])
def test_whatever_goes_wrong_with_one_file_is_its_own_reason(error, memory, tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    for i in range(30):
        Image.new("L", (9 if i == 7 else 8, 8), i).save(tmp_path / "set" / f"{i}.png")
    real = decode.resize

    def failing(values, size):
        if values.shape[1] == 9:
            raise error
        return real(values, size)

    monkeypatch.setattr(decode, "resize", failing)
    images = load(tmp_path / "set", "all", size=4, memory=memory)
    images.batch(slice(None))
    (bad,) = images.skipped
    assert bad.path == f"{tmp_path}/set/7.png"
    assert bad.reason == f"is damaged: {error if str(error) else type(error).__name__}"


@pytest.mark.parametrize("packed", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_a_member_that_cannot_be_unpacked_is_left_out(packed, tmp_path):
    data = content(Image.effect_noise((40, 40), 50))
    with zipfile.ZipFile(tmp_path / "x.zip", "w", packed) as archive:
        for i in range(30):
            archive.writestr(f"{i}.png", data)
        place = archive.getinfo("7.png").header_offset + 60
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[place : place + 400] = bytes(400)
    (tmp_path / "x.zip").write_bytes(data)
    images = load(tmp_path / "x.zip", "all")
    assert len(images) == 29
    assert [bad.path for bad in images.skipped] == [f"{tmp_path}/x.zip/7.png"]


def test_what_cannot_be_read_keeps_nothing_in_memory():
    def read(key):
        with decode.data_errors(f"{key}.png"):
            raise ValueError("no image")

    ((_, error),) = chain.from_iterable(read_chunks(read, [3]))
    assert str(error) == "3.png: is damaged: no image"
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
