"""Runs that were broken off, or are given more, go on as if nothing had been."""

import json
import shutil
import signal
import time
from dataclasses import asdict, replace
from functools import partial

import pytest
from tiny import (
    SHORT,
    TINY,
    broken_off,
    changed_at,
    contents,
    curve,
    draw_bumps,
    learn,
    model_weights,
    run_command,
    same_tensors,
    write_array,
)

from mfimage import from_pretrained
from mfimage.checkpoints import Snapshots
from mfimage.errors import DataError, UsageError
from mfimage.eval.table import number
from mfimage.pretrained import weights_hash, write_calibration
from mfimage.run import Run
from mfimage.training import train_or_reuse


def is_whole(directory, unbroken):
    assert same_tensors(model_weights(directory), model_weights(unbroken))
    assert curve(directory) == curve(unbroken)
    return True


def test_resuming_nothing_is_an_error(bumps, tmp_path):
    with pytest.raises(UsageError, match="nothing to resume here"):
        learn(bumps, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_resuming_with_other_images_is_an_error(tmp_path, bumps):
    other = write_array(tmp_path / "other.npy", draw_bumps(220, seed=1))
    learn(bumps, tmp_path / "run", SHORT)
    with pytest.raises(DataError, match=r"other\.npy: not the images that the run in .* began with"):
        learn(other, tmp_path / "run", resume=True)


def test_resuming_a_finished_run_changes_nothing(bumps, tmp_path):
    learn(bumps, tmp_path, SHORT)
    model = from_pretrained(tmp_path)
    write_calibration(tmp_path / "model", {**model.measured, "detector": {"model": weights_hash(model)}})
    kept = ("*.safetensors", "calibration.json")
    before, lines = contents(tmp_path, *kept), curve(tmp_path)
    learn(bumps, tmp_path, resume=True)
    assert contents(tmp_path, *kept) == before
    assert curve(tmp_path) == lines


def test_what_was_measured_of_another_model_goes_and_a_better_one_is_remembered(bumps, tmp_path, capsys):
    learn(bumps, tmp_path, SHORT)
    verdict = from_pretrained(tmp_path).measured["verdict"]
    earlier = {"detector": {"model": "another"}, "verdict": {**verdict, "error": verdict["error"] / 2}}
    write_calibration(tmp_path / "model", earlier)
    learn(bumps, tmp_path, resume=True)
    measured = from_pretrained(tmp_path).measured
    assert measured["verdict"] == verdict
    assert "detector" not in measured
    told = capsys.readouterr().err
    assert "the model has changed, so its calibration is gone: mfimage calibrate makes one anew" in told
    assert f"was better: squared error {number(verdict['error'] / 2)} an image held out, now " in told


@pytest.mark.parametrize("name", ["manifold", "refinement"])
def test_a_run_that_crashed_between_checkpoints_is_resumed_from_the_last(bumps, tiny_run, tmp_path, name):
    with broken_off(50, name):
        learn(bumps, tmp_path, TINY)
    (tmp_path / "checkpoints" / f"{name}-00000050.safetensors").unlink()  # as if killed before
    assert curve(tmp_path)[-1]["step"] == 50
    learn(bumps, tmp_path, resume=True)
    assert is_whole(tmp_path, tiny_run)


@pytest.mark.parametrize("phase", ["noise", "density", "sharpening"])
def test_what_removes_noise_and_sharpens_is_that_of_an_unbroken_run(bumps, tmp_path, phase):
    config = replace(SHORT, noise=(0.0, 0.5), sharp=True)
    learn(bumps, tmp_path / "whole", config)
    with broken_off(2, phase):
        learn(bumps, tmp_path / "broken", config)
    learn(bumps, tmp_path / "broken", resume=True)
    assert is_whole(tmp_path / "broken", tmp_path / "whole")


def test_a_kill_right_after_a_checkpoint_leaves_nothing_off_the_record(bumps, tmp_path, monkeypatch):
    save, config = Snapshots.save, replace(TINY, steps=20, density_steps=10, precision="no")

    def kill(snapshots, module, optimiser, progress, average):
        save(snapshots, module, optimiser, progress, average)
        if (snapshots.phase, progress.step) == ("refinement", 10):
            raise KeyboardInterrupt

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    learn(bumps, whole, config)
    monkeypatch.setattr(Snapshots, "save", kill)
    with pytest.raises(KeyboardInterrupt):
        learn(bumps, broken, config)
    monkeypatch.undo()
    learn(bumps, broken, resume=True)
    drawn = contents(broken / "pictures")
    assert len(drawn) == 5
    assert drawn == contents(whole / "pictures")
    assert curve(broken) == curve(whole)


def wait_for_checkpoint(directory, phase, process, seconds=300):
    """Wait until a training process has saved more than the beginning of a phase."""
    limit = time.monotonic() + seconds
    while not set(directory.glob(f"{phase}-*.safetensors")) - {directory / f"{phase}-00000000.safetensors"}:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit, f"no {phase} checkpoint in {directory}"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("number", "code", "phase"), [(signal.SIGINT, 130, "manifold"), (signal.SIGTERM, 143, "density")]
)
def test_a_real_signal_saves_and_the_resumed_run_equals_an_unbroken_one(
    bumps, tiny_run, tmp_path, number, code, phase
):
    outdir, settings = tmp_path / "run", tmp_path / "tiny.json"
    settings.write_text(json.dumps(asdict(TINY)))
    process = run_command("train", bumps, "--outdir", outdir, "--config", settings, "--device", "cpu", "-q")
    wait_for_checkpoint(outdir / "checkpoints", phase, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert out == ""
    assert f"mfimage: {number.name}: saved step " in err
    assert "Traceback" not in err
    assert not list(outdir.rglob("*.tmp"))
    learn(bumps, outdir, resume=True)
    assert is_whole(outdir, tiny_run)


def test_a_run_that_is_given_more_steps_equals_one_that_was_planned_so_from_the_checkpoint_on(
    bumps, tmp_path
):
    config, short, planned = (
        replace(TINY, steps=20, density_steps=20),
        tmp_path / "short",
        tmp_path / "planned",
    )
    learn(bumps, short, config)
    shutil.copytree(short, planned)
    shutil.rmtree(planned / "model")
    longer = replace(config, steps=40, density_steps=30)
    (planned / "config.json").write_text(json.dumps(asdict(longer)))
    for name in ("refinement", "density"):
        for path in (planned / "checkpoints").glob(f"*{name}*"):
            path.unlink()
    before = curve(short)
    learn(bumps, short, longer, resume=True)
    learn(bumps, planned, resume=True)
    assert same_tensors(model_weights(short), model_weights(planned))
    lines = curve(short)
    assert lines[:2] == before[:2]  # of the manifold; what was learned after it is of another manifold
    learned = [(phase, step) for phase in ("manifold", "refinement") for step in (10, 20, 30, 40)]
    assert [(line["phase"], line["step"]) for line in lines] == [
        *learned, *(("density", step) for step in (10, 20, 30))
    ]  # fmt: skip
    assert Run(short).config() == longer


def test_more_steps_for_the_density_leave_the_manifold_alone(bumps, tmp_path):
    config = replace(TINY, steps=20, density_steps=20)
    before = learn(bumps, tmp_path, config)
    longer = replace(config, density_steps=40)
    after = learn(bumps, tmp_path, longer, resume=True)
    assert weights_hash(before.chart) == weights_hash(after.chart)
    assert [line["step"] for line in curve(tmp_path, "density")] == [10, 20, 30, 40]
    with pytest.raises(UsageError, match="can only grow"):
        learn(bumps, tmp_path, config, resume=True)
    with pytest.raises(UsageError, match="keeps its settings, seed among them"):
        learn(bumps, tmp_path, replace(longer, seed=3), resume=True)


def test_a_run_is_trained_once_and_goes_on_where_it_was_broken_off(bumps, tmp_path):
    once, run = partial(train_or_reuse, device="cpu"), tmp_path / "run"
    first = once(bumps, run, SHORT)
    before = changed_at(run)
    again = once(bumps, run, SHORT)
    assert not again.training
    assert weights_hash(first) == weights_hash(again)
    assert changed_at(run) == before
    shutil.rmtree(run / "model")
    assert weights_hash(once(bumps, run, SHORT)) == weights_hash(first)
    with pytest.raises(UsageError, match="holds a run with other settings: choose another --outdir"):
        once(bumps, run, replace(SHORT, seed=1))
    other = write_array(tmp_path / "other.npy", draw_bumps(220, seed=1))
    with pytest.raises(DataError, match="not the images that the run in"):
        once(other, run, SHORT)
