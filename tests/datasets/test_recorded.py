"""A file is read again only if it looks new, and what is not as it was recorded is an error."""

import os

import pytest

from mfimage.datasets import recorded as module
from mfimage.datasets.recorded import recorded_hashes, require_recorded
from mfimage.errors import DataError
from mfimage.files import file_hash, write_json


@pytest.fixture
def read(tmp_path, monkeypatch):
    """The names of the files whose content was read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SETTLED", 0)
    names = []
    monkeypatch.setattr(module, "file_hash", lambda path: names.append(path.name) or file_hash(path))
    return names


@pytest.fixture
def hashes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    return {name: file_hash(tmp_path / name) for name in ("a", "b")}


def test_what_looks_the_same_is_not_read_again(tmp_path, hashes, read):
    for _ in range(3):
        require_recorded(tmp_path, hashes, "advice")
    assert read == ["a", "b"]
    require_recorded(tmp_path, hashes, "advice", verify=True)
    assert read == ["a", "b"] * 2
    os.utime(tmp_path / "a", (5, 5))
    require_recorded(tmp_path, hashes, "advice")
    assert read == [*["a", "b"] * 2, "a"]


@pytest.mark.parametrize("same_time", [True, False])
def test_what_was_altered_is_an_error_each_time(tmp_path, hashes, read, same_time):
    require_recorded(tmp_path, hashes, "advice")
    known = (tmp_path / "b").stat()
    (tmp_path / "b").write_bytes(b"b" * 999 + b"c")
    if same_time:
        os.utime(tmp_path / "b", ns=(known.st_atime_ns, known.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(
            DataError, match="b: is not as it was written, by the hash recorded then; do this"
        ):
            require_recorded(tmp_path, hashes, "do this")
    (tmp_path / "b").unlink()
    with pytest.raises(DataError, match="b: cannot be read: No such file"):
        require_recorded(tmp_path, hashes, "advice")


def test_what_has_just_changed_is_not_trusted(tmp_path, hashes, read, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 10**12)
    for _ in range(2):
        require_recorded(tmp_path, hashes, "advice")
    assert read == ["a", "b"] * 2


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000])
def test_a_damaged_memory_is_done_without(tmp_path, hashes, read, content):
    require_recorded(tmp_path, hashes, "advice")
    (kept,) = (tmp_path / "cache" / "mfimage" / "hashes").iterdir()
    kept.write_bytes(content)
    require_recorded(tmp_path, hashes, "advice")
    assert read == ["a", "b"] * 2


def test_without_a_place_for_it_files_are_read_each_time(tmp_path, hashes, read, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    for _ in range(2):
        require_recorded(tmp_path, hashes, "advice")
    monkeypatch.setattr(module, "kept_file", lambda *of: None)
    require_recorded(tmp_path, hashes, "advice")
    assert read == ["a", "b"] * 3


def test_manifests(tmp_path):
    assert recorded_hashes(tmp_path) == {}
    write_json(tmp_path / "manifest.json", {"shards": [{"file": "a", "sha256": "1"}, {"file": 3}, "x"]})
    assert recorded_hashes(tmp_path) == {"a": "1"}
    write_json(tmp_path / "manifest.json", {"name": "somebody else's"})
    assert recorded_hashes(tmp_path) == {}
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="not a readable list of shards"):
        recorded_hashes(tmp_path)
