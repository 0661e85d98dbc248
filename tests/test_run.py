import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tiny import TINY
from torch.utils.tensorboard import SummaryWriter

from mfimage.errors import ResourceError, UsageError
from mfimage.files import write_json
from mfimage.run import Run

DATA = {"data": "bumps.npy", "sha256": "0" * 64, "name": "bumps.npy"}


@pytest.mark.parametrize("written", range(5))
def test_a_run_that_was_killed_between_its_first_files_is_begun_anew(tmp_path, monkeypatch, written):
    run, replace, done = Run(tmp_path / "run"), os.replace, []

    def kill(*paths):
        if len(done) == written:
            raise KeyboardInterrupt
        done.append(replace(*paths))

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        run.begin(asdict(TINY), DATA)
    monkeypatch.undo()
    run.require_unused()
    with pytest.raises(UsageError, match="nothing to resume here"):
        run.config()
    run.begin(asdict(TINY), DATA)
    assert run.config() == TINY
    run.require_same_data(DATA)
    with pytest.raises(UsageError, match="already holds a run"):
        run.require_unused()


def test_settings_without_data_are_of_a_run_that_never_began(tmp_path):
    run = Run(tmp_path)
    run.begin(asdict(TINY), DATA)
    (tmp_path / "data.json").unlink()
    assert not run.begun
    with pytest.raises(UsageError, match=r"nothing to resume here \(data\.json is missing\)"):
        run.config()


@pytest.mark.parametrize(
    "name", ["config.json", "data.json", "model.safetensors", "model/x", "checkpoints/manifold-00000001.x"]
)
def test_what_is_of_no_run_is_not_written_over(tmp_path, name):
    write_json(tmp_path / name, {"of": "somebody else"})
    with pytest.raises(UsageError, match="but no run that can be resumed: choose another --outdir"):
        Run(tmp_path).require_unused()


def test_what_killed_processes_left_is_swept_up(tmp_path):
    run = Run(tmp_path)
    left = [
        run.checkpoints / "manifold-00000002.safetensors.mf-01234567.tmp",
        run.model / "config.json.mf-01234567.tmp", run.pictures / "a.png.mf-01234567.tmp",
    ]  # fmt: skip
    kept = [
        run.checkpoints / "manifold.safetensors",
        run.model / "notes.tmp",
        run.model / "model.safetensors",
    ]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    run.tidy()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_curves_that_cannot_be_written_stop_nothing(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    run = Run(tmp_path)
    run.scalars("manifold", 1, {"loss": 2.0})
    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    for step in (2, 3):
        run.scalars("manifold", step, {"loss": 2.0})
    run.picture("manifold", 3, torch.zeros(2, 1, 4, 4), 2)
    run.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
    ]
    assert (tmp_path / "pictures" / "manifold-00000003.png").exists()
    assert capsys.readouterr().err == "note: no curves for TensorBoard: No space left on device\n"  # once


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_with_the_name_of_the_curve(tmp_path, monkeypatch, number):
    def full(*_, **__):
        raise OSError(number, "No room")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ResourceError, match=r"stats\.jsonl: cannot be written: No room"):
        Run(tmp_path).scalars("manifold", 1, {"loss": 2.0})
