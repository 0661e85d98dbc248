"""A run's directory: who writes in it, what is refused, and what is on record."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from commands import raising
from PIL import Image
from tiny import SHORT, TINY, changed_at, curve, draw_bumps, learn, write_images
from torch.utils.tensorboard import SummaryWriter

from mfimage.config import Reading
from mfimage.errors import ResourceError, UsageError
from mfimage.files import write_json
from mfimage.outputs import LOCK, OWNER, owned
from mfimage.run import Run, trim_stats

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
    run = Run(tmp_path)
    run.scalars("manifold", 1, {"loss": 2.0})
    full = raising(OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    for step in (2, 3):
        run.scalars("manifold", step, {"loss": 2.0})
    run.picture("manifold", 3, torch.zeros(2, 1, 4, 4), 2)
    run.close()
    assert [line["step"] for line in curve(tmp_path)] == [1, 2, 3]
    assert (tmp_path / "pictures" / "manifold-00000003.png").exists()
    assert capsys.readouterr().err == "note: no curves for TensorBoard: No space left on device\n"  # once


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_with_the_name_of_the_curve(tmp_path, monkeypatch, number):
    monkeypatch.setattr(Path, "open", raising(OSError(number, "No room")))
    with pytest.raises(ResourceError, match=r"stats\.jsonl: cannot be written: No room"):
        Run(tmp_path).scalars("manifold", 1, {"loss": 2.0})


def test_statistics_after_the_checkpoint_are_dropped_and_half_lines_too(tmp_path):
    path = tmp_path / "stats.jsonl"
    lines = [{"phase": p, "step": s} for p in ("manifold", "density") for s in (10, 20, 30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"phase": "dens')
    trim_stats(path, "density", 20)
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines[:-1]
    trim_stats(tmp_path / "none.jsonl", "density", 20)
    assert not (tmp_path / "none.jsonl").exists()


def test_a_used_directory_is_refused_and_left_alone(bumps, tiny_run):
    before = changed_at(tiny_run)
    with pytest.raises(UsageError, match=r"already holds a run: choose another --outdir, or --resume it"):
        learn(bumps, tiny_run, SHORT)
    assert changed_at(tiny_run) == before


def test_a_run_has_one_writer(bumps, tmp_path):
    run = tmp_path / "run"

    def refused(**options):
        with ThreadPoolExecutor(1) as other:
            error = other.submit(learn, bumps, run, **options).exception()
        return isinstance(error, UsageError) and "is writing there" in str(error)

    with owned(run):
        assert refused(config=SHORT)
        assert sorted(os.listdir(run)) == [LOCK, OWNER]
    learn(bumps, run, SHORT)
    before = changed_at(run)
    with owned(run):
        assert refused(resume=True)
    assert changed_at(run) == before


def test_results_among_the_images_are_refused(tmp_path):
    photos = write_images(tmp_path / "photos", draw_bumps(20))
    with pytest.raises(UsageError, match="whose images are read"):
        learn(photos, photos / "run", SHORT)
    photos.rename(tmp_path / "pictures")  # as a run calls what it draws
    with pytest.raises(UsageError, match="whose images are read"):
        learn(tmp_path / "pictures", tmp_path, SHORT)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".png"] * 20


def test_a_folder_in_which_a_run_never_began_is_trained_in(bumps, tmp_path):
    (tmp_path / "decisions.json").write_text("[]")  # as earlier versions left it when they were killed there
    (tmp_path / "config.json").write_text(json.dumps(asdict(SHORT)))
    learn(bumps, tmp_path, SHORT)
    assert Run(tmp_path).finished


def test_skipped_files_are_on_record(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, image in enumerate(draw_bumps(60)):
        Image.fromarray(image).save(folder / f"{index}.{'png' if index % 2 else 'jpg'}")
    (folder / "zero.png").touch()
    learn(folder, tmp_path / "run", SHORT, reading=Reading(max_bad=0.1))
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert data["skipped"] == 1
    assert data["skipped_first"] == [{"path": f"{folder}/zero.png", "reason": "is empty (0 bytes)"}]
