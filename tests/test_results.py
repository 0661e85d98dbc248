"""The end of a training: the model is there first, whatever fails of what is measured of it."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from commands import raising
from tiny import SHORT, draw_bumps, learn, write_array

from mfimage import from_pretrained, outputs
from mfimage.datasets.loading import typed
from mfimage.eval.verdict import TRAINED, verdict_of
from mfimage.pretrained import weights_hash
from mfimage.results import CLASSES, MEASURED, Results, next_commands
from mfimage.run import Run
from mfimage.training import train_or_reuse

WITHOUT_CLASSES = set(MEASURED) - {CLASSES}


@pytest.mark.parametrize(
    ("target", "lost"),
    [("calibrate_denoising", {"denoising", "uncertainty", "familiar"}), ("judge", {"verdict"})],
)
def test_a_measurement_that_fails_is_reported_and_the_model_is_there(
    bumps, tmp_path, monkeypatch, capsys, target, lost
):
    monkeypatch.setattr(f"mfimage.results.{target}", raising(IndexError("an accident")))
    model = learn(bumps, tmp_path / "run", SHORT)
    assert "IndexError: an accident" in capsys.readouterr().err
    again = from_pretrained(tmp_path / "run")
    assert weights_hash(again) == weights_hash(model)
    assert set(again.measured) == WITHOUT_CLASSES - lost
    assert (tmp_path / "run" / "report.html").exists()


def test_what_was_broken_off_while_it_was_measured_is_measured_when_asked_for(bumps, tmp_path, monkeypatch):
    monkeypatch.setattr(Results, "measure", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        learn(bumps, tmp_path / "run", SHORT)
    there = from_pretrained(tmp_path / "run")
    assert TRAINED not in there.measured
    monkeypatch.undo()
    with outputs.command():  # which would not write over a model that it reads
        model = train_or_reuse(bumps, tmp_path / "run", SHORT, device="cpu")
    assert weights_hash(model) == weights_hash(there)
    assert set(model.measured) == set(from_pretrained(tmp_path / "run").measured) == WITHOUT_CLASSES


def test_what_can_be_typed_next_names_the_data_as_they_were_given(tmp_path):
    run = Run(tmp_path / "a run")
    for given, typed_ in (
        (["x + y", Path("c.npy")], "'x + y' c.npy"),
        ("fashion-mini", "fashion-mini"),
        ([np.zeros((2, 4, 4)), "d"], "DATA d"),
    ):
        run.write("data.json", {"data": "whatever + it is called", "sources": typed(given)})
        assert next_commands(run)["measure more"] == f"mfimage evaluate '{tmp_path}/a run' {typed_}"


def test_a_page_that_a_full_disk_lost_is_written_when_the_model_is_asked_for(bumps, tmp_path, monkeypatch):
    monkeypatch.setattr(Results, "write_report", raising(OSError(errno.ENOSPC, "No space left")))
    model = learn(bumps, tmp_path / "run", SHORT)
    assert not (tmp_path / "run" / "report.html").exists()
    monkeypatch.undo()
    with outputs.command():
        again = train_or_reuse(bumps, tmp_path / "run", SHORT, device="cpu")
    assert weights_hash(again) == weights_hash(model)
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 9)])
def test_images_of_one_row_or_column_train_and_are_measured(tmp_path, capsys, shape):
    side = max(shape)
    row = draw_bumps(90, side=side)[:, side // 2]
    strip = write_array(tmp_path / "strip.npy", row.reshape(90, *shape))
    model = learn(strip, tmp_path / "run", SHORT)
    assert capsys.readouterr().err == ""
    assert from_pretrained(tmp_path / "run").shape == model.shape == (1, *shape)
    assert set(model.measured) == WITHOUT_CLASSES
    assert verdict_of(model).n > 0
    curve = model.measured["denoising"]["whole"]
    assert curve["sigmas"][-1] == 1.0
    assert curve["wavelet"][-1] == pytest.approx(1.0, rel=0.25)  # the noise is seen
    assert (tmp_path / "run" / "report.html").exists()
    assert json.loads((tmp_path / "run" / "data.json").read_text())["shape"] == [1, *shape]
