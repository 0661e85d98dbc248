import os
from dataclasses import asdict

import pytest
from tiny import TINY

from mfimage.errors import UsageError
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
