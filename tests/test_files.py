import csv
import json
import math
import os
import threading
from pathlib import Path

import pytest
import torch

from mfimage.errors import DataError, ModelError, ResourceError
from mfimage.files import (
    cache_folder,
    read_json,
    stream,
    whole,
    write_csv,
    write_json,
    write_text,
)


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "chunk"
    with whole(path) as first, whole(path) as second:
        assert first != second
        assert first.parent == second.parent == tmp_path
        first.write_text("one")
        second.write_text("two")
    assert path.read_text() == "one"  # the one that finished last
    assert os.listdir(tmp_path) == ["chunk"]


def test_many_threads_leave_one_whole_file(tmp_path):
    texts = [str(i) * 10_000 for i in range(8)]
    threads = [threading.Thread(target=write_text, args=(tmp_path / "file", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in texts
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = write_text(tmp_path / "new" / "note", "old")
    with pytest.raises(KeyError), whole(path) as temporary:
        raise KeyError(temporary.write_text("half"))
    with pytest.raises(ResourceError, match=r"note: cannot be written: No space left"), whole(path):
        raise OSError(28, "No space left on device")
    with pytest.raises(PermissionError), whole(path):
        raise PermissionError(13, "Permission denied")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["note"]


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("é" * 127)
    assert write_text(path, "x").read_text() == "x"


def test_json_has_null_for_what_is_not_finite(tmp_path):
    path = write_json(tmp_path / "a.json", {"x": math.inf, "y": [1, math.nan], "path": Path("p")})
    assert path.read_text().endswith("}\n")
    assert read_json(path) == {"x": None, "y": [1, None], "path": "p"}


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", "[" * 100_000, "\xff"])
def test_what_is_no_json_object_is_named(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"a\.json: not a readable JSON file"):
        read_json(path)
    with pytest.raises(ModelError, match=r"a\.json: not a readable card \("):
        read_json(path, "card", ModelError)


def test_the_cache_lies_where_the_user_wants_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mfimage"
    assert cache_folder("features", "x") == tmp_path / "mfimage" / "features" / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("index") == tmp_path / ".cache" / "mfimage" / "index"

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() is None


def test_a_stream_is_that_of_the_seed_and_the_number():
    def draw(generator):
        return torch.rand(3, generator=generator).tolist()

    assert draw(stream(7, 5)) == draw(torch.Generator().manual_seed(7 * 1_000_003 + 5))
    assert draw(stream(0, -1)) == draw(torch.Generator().manual_seed(2**63 - 1))
    assert draw(stream(2**63 - 1, 1)) == draw(stream(2**63 - 1, 1)) != draw(stream(2**63 - 1, 2))
    assert json.dumps(draw(stream(0, 0))) != json.dumps(draw(stream(1, 0)))


def test_a_table_has_a_head_and_nothing_for_none(tmp_path):
    rows = [{"path": "a,b", "x": 1 / 3, "n": None}, {"path": "c", "x": math.inf, "n": 2}]
    assert write_csv(tmp_path / "a.csv", rows, digits=3).read_text() == 'path,x,n\n"a,b",0.333,\nc,inf,2\n'
    assert "0.3333333333333333" in write_csv(tmp_path / "b.csv", rows).read_text()


def test_a_table_holds_no_formulas_and_splits_no_rows(tmp_path):
    texts = ["=1+1", "+a", "-a", "@a", "\ta", "\ra", "a\rb", "a\nb", "-1.5", "+3", "-1e-5", "a=b"]
    rows = [{"text": text, "n": -1.5} for text in texts]
    with open(write_csv(tmp_path / "a.csv", rows), newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["text"] for row in found] == [f"'{text}" for text in texts[:6]] + texts[6:]
    assert {row["n"] for row in found} == {"-1.5"}
