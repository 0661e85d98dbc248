import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from tiny import ONE_THREAD

from mfimage import ModelConfig, build, outputs, save_pretrained
from mfimage.cli import options as opt
from mfimage.datasets import save_png
from mfimage.errors import UsageError
from mfimage.files import whole, write_text
from mfimage.outputs import claim, owned, refuse_within
from mfimage.tensors import save_tensors


def refused(path):
    before = Path(path).read_bytes()
    with pytest.raises(UsageError, match="would be overwritten"):
        claim(Path(path))
    with pytest.raises(UsageError, match="would be overwritten"):
        write_text(path, "new")
    return Path(path).read_bytes() == before


def test_an_input_is_not_written_over_by_whatever_name_it_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "c.txt", "d.png"):
        Path(name).write_text(name)
    for folder in ("deep/er", "store", "other/one"):
        Path(folder).mkdir(parents=True)
    Path("deep/er/e.PNG").write_text("e")
    Path("deep/er/notes.txt").write_text("notes")
    os.link("a.png", "hard")
    os.symlink("a.png", "soft")
    os.symlink("deep", "link")
    for target in ("store/f.png", "store/blob", "store/free.png", "other/one/g.png", "other/one/h.png"):
        Path(target).write_text(target)
    os.symlink("../store/f.png", "deep/f.png")
    os.symlink("../store/blob", "deep/blob.png")
    os.symlink("../other", "deep/other")
    os.symlink("..", "deep/around")
    with outputs.command():
        opt.given("a.png", "[b-c].*", None, "no such file")
        opt.given("link")
        assert all(refused(path) for path in ("a.png", tmp_path / "a.png", "hard", "soft", "b.png", "c.txt"))
        assert refused("deep/er/e.PNG")
        assert refused("link/er/e.PNG")
        assert all(refused(f"deep/{name}") for name in ("f.png", "blob.png", "other/one/g.png"))
        assert all(refused(name) for name in ("store/f.png", "other/one/h.png"))  # which links lead to
        with pytest.raises(UsageError, match="would be overwritten"):
            claim(Path("store/blob"))
        write_text("store/free.png", "new")
        write_text("deep/er/notes.txt", "new")  # no image, so no input
        write_text("deep/er/new.png", "new")  # nothing is lost
        write_text("d.png", "new")
    write_text("a.png", "new")  # another command


def test_from_python_files_may_be_replaced(tmp_path):
    outputs.given([write_text(tmp_path / "a", "old")])
    assert write_text(tmp_path / "a", "new").read_text() == "new"


def test_what_cannot_be_written_is_told_before_any_work(tmp_path):
    file = write_text(tmp_path / "file", "")
    with pytest.raises(UsageError, match="is a folder"):
        claim(tmp_path)
    with pytest.raises(UsageError, match=r"a folder is needed, and .*file is a file"):
        claim(file / "x.csv")
    with pytest.raises(UsageError, match="two results would be written here"):
        claim(tmp_path / "x", None, tmp_path / ".." / tmp_path.name / "x")
    os.mkfifo(tmp_path / "pipe")
    for special in (Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(UsageError, match="a device or a pipe"), whole(special):
            pass
    with pytest.raises(UsageError, match=r"a folder is needed, and .*file is a file"), owned(file):
        pass
    with pytest.raises(UsageError, match="a folder is needed"), owned(file / "below"):
        pass
    claim(tmp_path / "new" / "x", tmp_path / "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_told_before_any_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="no right to write"):
        claim(tmp_path / "x")
    with pytest.raises(UsageError, match="no right to write"), owned(tmp_path / "below"):
        pass


def test_a_folder_has_one_owner(tmp_path):
    told = []

    def intrude():
        try:
            with owned(tmp_path / "deep" / "out"):
                told.append("nothing")
        except UsageError as error:
            told.append(str(error))

    with owned(tmp_path / "deep" / "out"), owned(tmp_path / "deep" / ".." / "deep" / "out"):
        for _ in range(2):  # to be refused does not take the lock away
            thread = threading.Thread(target=intrude)
            thread.start()
            thread.join()
    assert f"out: process {os.getpid()} of " in told[0]
    assert ", since 20" in told[0]
    assert told[0] == told[1]
    assert os.listdir(tmp_path) == []  # what was made for nothing is gone
    intrude()
    assert told[2] == "nothing"


def test_a_folder_with_results_stays_and_holds_nothing_else(tmp_path):
    with owned(tmp_path / "out"):
        write_text(tmp_path / "out" / "result", "x")
    assert os.listdir(tmp_path / "out") == ["result"]
    (tmp_path / "empty").mkdir()
    with owned(tmp_path / "empty"):
        pass
    assert os.listdir(tmp_path / "empty") == []  # which was there before


HOLDER = """
import sys, time
from pathlib import Path
from mfimage.files import whole
from mfimage.outputs import owned
with owned(sys.argv[1]), whole(Path(sys.argv[1]) / "result") as temporary:
    temporary.write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_dead_process_leaves_neither_a_lock_nor_halves(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], env=ONE_THREAD, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=f"process {process.pid} of .* is writing there"), owned(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    with owned(tmp_path):
        write_text(tmp_path / "other", "x")
    assert os.listdir(tmp_path) == ["other"]


def test_files_have_the_mode_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        save_pretrained(build(ModelConfig((1, 8, 8), 2, width=2, hidden=8)), tmp_path / "model")
        save_tensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors", {})
        save_png(torch.zeros(1, 4, 4), tmp_path / "a.png")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_tensors_are_on_the_disk_before_they_take_their_name(tmp_path, monkeypatch):
    seen, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: seen.append("disk") or sync(number))
    monkeypatch.setattr(os, "replace", lambda *paths: seen.append("name") or replace(*paths))
    save_tensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors", {})
    assert seen == ["disk", "name", "disk"]  # the folder last
    write_text(tmp_path / "a.txt", "x")
    assert seen[3:] == ["name"]


def test_results_do_not_lie_among_the_images_that_are_read(tmp_path):
    (tmp_path / "images").mkdir()
    for folder in ("images", "images/run", "images/../images/deep/run"):
        with pytest.raises(UsageError, match=r"images, whose images are read"):
            refuse_within(tmp_path / folder, ["digits", torch.zeros(1), tmp_path / "images"])
    refuse_within(tmp_path / "run", [tmp_path / "images"])
    refuse_within(tmp_path / "images-run", [str(tmp_path / "images")])
