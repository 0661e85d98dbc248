import builtins
import json

import numpy as np
import pytest
import torch
from imagefiles import content

from mfimage.config import Reading
from mfimage.datasets import load, parquet, shards, stores
from mfimage.errors import DataError, UsageError

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 5, 5, 3), np.uint8)


def write(path, columns, features=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features:
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    pq.write_table(table, path, **{"row_group_size": 4, **options})


def structs(images=IMAGES):
    return [{"bytes": content(image), "path": None} for image in images]


@pytest.mark.parametrize(
    ("columns", "features"),
    [
        ({"image": structs()}, None),
        ({"img": [content(image) for image in IMAGES], "other": ["x"] * 20}, None),
        ({"image": ["caption"] * 20, "photo": structs()}, {"photo": {"_type": "Image"}}),
        ({"image": structs()}, {"image": "nonsense"}),
    ],
)
def test_columns_of_images(tmp_path, columns, features):
    write(tmp_path / "x.parquet", columns, features)
    images = load(tmp_path / "x.parquet", "all")
    assert (images.images.movedim(1, -1).numpy() == IMAGES).all()
    assert images.paths[7] == f"{tmp_path}/x.parquet[7]"
    assert images.labels is None
    assert len(load(tmp_path / "x.parquet")) + len(load(tmp_path / "x.parquet", "test")) == 20


def test_files_are_splits_by_their_names(tmp_path):
    for name, part in (("train-00000-of-00002", IMAGES[:3]), ("train-00001-of-00002", IMAGES[3:8])):
        write(
            tmp_path / "data" / f"{name}.parquet", {"image": structs(part), "label": list(range(len(part)))}
        )
    write(tmp_path / "data" / "validation-0.parquet", {"image": structs(IMAGES[8:9]), "label": [7]})
    train = load(tmp_path)
    assert (train.images.movedim(1, -1).numpy() == IMAGES[:8]).all()
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert load(tmp_path, "valid").labels.tolist() == [7]
    with pytest.raises(DataError, match="there are train, valid, all"):
        load(tmp_path, "test")


def test_folders_are_splits_too(tmp_path):
    write(tmp_path / "train" / "0.parquet", {"image": structs(IMAGES[:3])})
    write(tmp_path / "test" / "0.parquet", {"image": structs(IMAGES[3:5])})
    assert [len(load(tmp_path, split)) for split in ("train", "test", "all")] == [3, 2, 5]


def test_labels_with_gaps_are_none(tmp_path):
    write(tmp_path / "x.parquet", {"image": structs(IMAGES[:3]), "label": [0, None, 1]})
    assert load(tmp_path / "x.parquet", "all").labels is None


def test_many_files_are_kept_open_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_OPEN", 2)
    for i in range(10):
        write(tmp_path / f"{i}.parquet", {"image": structs(IMAGES[2 * i : 2 * i + 2])})
    stored = load(tmp_path, "all", memory=0)
    for rows in (torch.arange(20), torch.arange(20).flip(0)):
        assert (stored.read(rows).movedim(1, -1) * 255).round().byte().equal(torch.from_numpy(IMAGES)[rows])


def test_rows_without_an_image_are_replaced_and_reported(tmp_path):
    rows = structs()
    rows[3]["bytes"] = None
    rows[4] = None
    write(tmp_path / "x.parquet", {"image": rows})
    stored = load(tmp_path / "x.parquet", "all", memory=0, reading=Reading(max_bad=0.2))
    assert torch.equal(stored.batch([3, 4]), stored.batch([5, 5]))
    assert {bad.path for bad in stored.skipped} == {f"{tmp_path}/x.parquet[{i}]" for i in (3, 4)}
    assert stored.skipped[0].reason == "holds no bytes of an image"


def test_the_fingerprint_follows_the_content(tmp_path):
    hashes = set()
    for count in (5, 6, 6):
        write(tmp_path / "x.parquet", {"image": structs(IMAGES[:count])})
        hashes.add(load(tmp_path / "x.parquet", "all", memory=0).summary()["sha256"])
    assert len(hashes) == 2


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b"PAR1 text", lambda b: b[:-10], lambda b: b[:40]]
)
def test_damaged_files_are_named(tmp_path, damage):
    write(tmp_path / "x.parquet", {"image": structs()})
    (tmp_path / "x.parquet").write_bytes(damage((tmp_path / "x.parquet").read_bytes()))
    with pytest.raises(DataError, match=r"x\.parquet: is not a readable Parquet file"):
        load(tmp_path, "all")


def test_a_damaged_group_is_told_when_it_is_read(tmp_path):
    write(tmp_path / "x.parquet", {"image": structs()})
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    data[4:60] = b"\xff" * 56
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.parquet\[0\]: .*is not a readable Parquet file"):
        load(tmp_path, "all")


def test_files_of_something_else(tmp_path):
    write(tmp_path / "x.parquet", {"text": ["a"], "image": ["b"]})
    with pytest.raises(DataError, match="has no column `image` of encoded images; there are text, image"):
        load(tmp_path)
    write(tmp_path / "x.parquet", {"image": pa.array([], pa.binary())})
    with pytest.raises(DataError, match="holds no images"):
        load(tmp_path)


def test_groups_too_large_to_read_at_random(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_GROUP", 100)
    write(tmp_path / "x.parquet", {"image": structs()})
    with pytest.raises(DataError, match=r"row groups .* too large to be read at random"):
        load(tmp_path, "all")


def test_a_dictionary_that_says_much_in_few_bytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_GROUP", 400_000)
    value = content(IMAGES[0]) + bytes(100_000)
    write(tmp_path / "x.parquet", {"image": [value] * 1000}, row_group_size=1000, compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 20_000
    read, tried = parquet.Shard.read, []
    monkeypatch.setattr(parquet.Shard, "read", lambda *a: tried.append(a) or read(*a))
    monkeypatch.setattr(stores, "workers", lambda: 1)
    with pytest.raises(DataError, match=r"x\.parquet\[0\]: .*claims more bytes than such a file may become"):
        load(tmp_path, "all")
    assert len(tried) == 1  # not for each of its rows
    write(tmp_path / "x.parquet", {"image": [value] * 7}, row_group_size=1000)
    assert (load(tmp_path, "all").images.movedim(1, -1).numpy() == IMAGES[:1]).all()


def varint(number, length=None):
    """A number of Thrift's, in so many bytes: the last of them say nothing."""
    groups, value = [], number << 1
    while value or not groups or len(groups) < (length or 0):
        groups.append(value & 127)
        value >>= 7
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def lie(path, true, told):
    """Put another number into the footer of a file."""
    data, old = path.read_bytes(), varint(true)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    assert old in data[footer:]
    path.write_bytes(data[:footer] + data[footer:].replace(old, varint(told, len(old))))


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}])
@pytest.mark.parametrize("column", ["image", "label"])
def test_a_footer_that_lies_about_its_pages_is_refused_before_they_are_unpacked(
    tmp_path, monkeypatch, column, options
):
    path, rows, number = tmp_path / "x.parquet", 400_000, ("image", "label").index(column)
    value = content(IMAGES[0]) + bytes(3_000_000)
    table = {"image": [value, *[b""] * (rows - 1)], "label": range(rows)}
    write(path, table, row_group_size=rows, compression="zstd", **options)
    monkeypatch.setattr(parquet, "ROWS", rows)
    monkeypatch.setattr(parquet, "MAX_GROUP", 2_000_000)
    lie(path, pq.read_metadata(path).row_group(0).column(number).total_uncompressed_size, 1000)
    shard = parquet.Shard(path)
    assert shard.metadata.row_group(0).column(number).total_uncompressed_size == 1000
    for reader in ("read_row_group", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, reader, lambda *_, **__: pytest.fail("it is unpacked"))
    with pytest.raises(DataError, match=r"row groups of [3-9] MB are too large to be read at random"):
        shard.read(shard.open(), 0, column)


def test_the_headers_of_pages_are_read_as_pyarrow_reads_them(tmp_path):
    for options in ({}, {"use_dictionary": False}, {"data_page_version": "2.0", "data_page_size": 50}):
        columns = {"image": structs(), "label": [1, 2] * 10}
        write(tmp_path / "x.parquet", columns, compression="zstd", write_page_checksum=True, **options)
        shard, said = parquet.Shard(tmp_path / "x.parquet"), pq.read_metadata(tmp_path / "x.parquet")
        for group in range(said.num_row_groups):
            for number, column in ((0, "image.bytes"), (2, "label")):
                chunk = said.row_group(group).column(number)
                headers = chunk.total_uncompressed_size - shard._unpacked(group, column)
                assert -50 < headers < 2000  # what does not compress has a few bytes more in the file


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_large_pages_of_deltas_are_refused(tmp_path, monkeypatch, encoding):
    for version in ("1.0", "2.0"):
        options = {"column_encoding": {"image": encoding}, "data_page_version": version}
        columns = {"image": [content(image) for image in IMAGES]}
        write(tmp_path / "x.parquet", columns, use_dictionary=False, **options)
        assert (load(tmp_path, "all").images.movedim(1, -1).numpy() == IMAGES).all()
        with monkeypatch.context() as patch:
            patch.setattr(parquet, "_MOST_DELTAS", 100)
            with pytest.raises(DataError, match="a page of deltas"):
                load(tmp_path, "all")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("15 00 15 14 15 14 2c 15 04 15 00 00 00", ""),
        ("15 00 15 13 15 14 2c 15 04 15 00 00 00", "less than nothing"),
        ("15 00 15 14 15 14 19 00", "no header"),  # a list
        ("15 00 15 14 15 14 05 d0 0f 02 00", "no header"),  # a field of a far number
        ("15 00 15 14 15 14 2c 15", "index out of range"),
    ],
)
def test_a_header_of_a_page(header, words):
    data = bytes.fromhex(header)
    if words:
        with pytest.raises((ValueError, IndexError), match=words):
            parquet.PageHeader(data)
    else:
        found = parquet.PageHeader(data + b"page")
        assert (found.size, found.stored, found.values, found.length) == (10, 10, 2, len(data))


def test_groups_are_read_a_few_rows_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS", 3)
    write(tmp_path / "x.parquet", {"image": structs(), "label": list(range(20))}, row_group_size=8)
    images = load(tmp_path, "all")
    assert (images.images.movedim(1, -1).numpy() == IMAGES).all()
    assert images.labels.tolist() == list(range(20))


def test_more_rows_than_bytes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS", 1000)
    write(tmp_path / "x.parquet", {"image": pa.nulls(200_000, pa.binary())}, row_group_size=200_000)
    with pytest.raises(DataError, match="claims more rows than such a file can hold"):
        load(tmp_path, "all")


def test_images_beside_shards_are_told(tmp_path):
    write(tmp_path / "x.parquet", {"image": structs()})
    (tmp_path / "a").mkdir()
    for i in range(3):
        (tmp_path / "a" / f"{i}.png").write_bytes(content(IMAGES[i]))
    images = load(tmp_path, "all")
    assert len(images) == 20
    assert [(bad.path, bad.reason) for bad in images.skipped] == [
        (f"{tmp_path}/a/0.png", "lies beside Parquet files, as do 2 more: they are read, and not the images")
    ]
    assert not load(tmp_path / "x.parquet", "all").skipped


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "x.parquet", {"image": structs()})
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match=r"pip install 'mfimage\[large\]'"):
        load(tmp_path)
