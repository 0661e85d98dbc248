"""Experiments that are trained, measured, and go on where they were broken off."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from commands import raising
from tiny import VECTORS, shrink_circle

import mfimage.experiments.reproduce as module
from mfimage import losses
from mfimage.errors import UsageError
from mfimage.experiments.experiment import Budget
from mfimage.experiments.reproduce import reproduce
from mfimage.experiments.vector_experiments import circle

METRICS = {"distance", "reconstruction", "auc"}
never = raising(AssertionError("trained again"))


def run(outdir, *algorithms, **options):
    return reproduce("circle", outdir, algorithms=algorithms, device="cpu", **options)


def results(outdir):
    return json.loads((outdir / "results.json").read_text())


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    shrink_circle(monkeypatch)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The directory of a circle of two algorithms, two runs each; not to be written to."""
    torch.set_num_threads(1)
    outdir = tmp_path_factory.mktemp("reproduce") / "circle"
    with pytest.MonkeyPatch.context() as patch:
        shrink_circle(patch)
        run(outdir, "fom", "pca", runs=2)
    return outdir


@pytest.fixture
def outdir(done, tmp_path):
    """A copy of it, to be written to."""
    return shutil.copytree(done, tmp_path / "circle")


def test_an_experiment_leaves_a_table_a_page_and_its_runs(done):
    found = results(done)
    assert found["command"] == "mfimage reproduce circle --algorithm fom,pca --runs 2 --budget quick"
    assert (found["experiment"], found["budget"], found["scene"]) == ("circle", "quick", {})
    assert list(found["table"]) == list(found["values"]) == ["fom", "pca"]
    assert all(set(row) == METRICS for row in found["table"].values())
    assert found["environment"]["packages"]["torch"] == torch.__version__
    page = (done / "report.html").read_text()
    assert all(word in page for word in ("A circle with noise", "fom", "pca", "data:image/png"))
    for algorithm in ("fom", "pca"):
        for seed in (0, 1):
            folder = done / algorithm / f"run-{seed}"
            assert json.loads((folder / "config.json").read_text())["seed"] == seed
            assert {"model", "metrics.json", "data.json"} <= {path.name for path in folder.iterdir()}
    assert not list(done.rglob("*.tmp"))


def test_the_table_is_the_median_and_the_range_of_the_runs(done):
    found = results(done)
    for algorithm, row in found["table"].items():
        assert len(found["values"][algorithm]) == 2
        for metric, (median, low, high) in row.items():
            values = sorted(run["metrics"][metric] for run in found["values"][algorithm])
            assert [low, high] == pytest.approx(values)
            assert median == pytest.approx(sum(values) / 2)
    assert found["table"]["fom"]["distance"][0] < 1e-6
    assert found["table"]["pca"]["distance"][0] > 0.1


def test_seeds_draw_data_of_their_own_and_the_test_data_are_the_same(done):
    hashes = [
        json.loads((done / algorithm / f"run-{seed}" / "data.json").read_text())["sha256"]
        for seed in (0, 1)
        for algorithm in ("fom", "pca")
    ]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]
    assert torch.equal(module._test(circle()).x, module._test(circle()).x)


def test_the_published_numbers_stand_beside(tmp_path):
    report = run(tmp_path, "af", "pca")
    assert report.rows["af"]["distance"].published == 0.58
    assert report.rows["af"]["auc"].published is None
    assert report.rows["pca"]["distance"].published is None
    assert "0.58" in (tmp_path / "report.html").read_text()


def test_what_is_finished_is_not_trained_again(outdir, monkeypatch):
    before = results(outdir)
    monkeypatch.setattr(module, "train_or_reuse", never)
    run(outdir, "fom", "pca", runs=2)
    assert results(outdir) == before
    run(outdir, "pca")
    assert results(outdir)["values"] == before["values"]
    with pytest.raises(AssertionError, match="trained again"):
        run(outdir, "pca", runs=3)


def test_a_run_that_was_broken_off_goes_on(outdir):
    before, broken, told = results(outdir), outdir / "fom" / "run-1", []
    (broken / "metrics.json").unlink()
    shutil.rmtree(broken / "model")
    for path in (broken / "checkpoints").glob("density-00000004*"):
        path.unlink()
    run(outdir, "fom", "pca", runs=2, tell=told.append)
    assert results(outdir)["table"] == before["table"]
    assert results(outdir)["values"]["fom"][1]["cpu_seconds"] is None  # what it took in all is not known
    assert told[:2] == ["circle: fom, run 1 of 2", "circle: pca, run 1 of 2"]


def test_other_settings_in_the_same_directory_are_refused(outdir, monkeypatch):
    before = results(outdir)
    shrink_circle(monkeypatch, budgets={"quick": Budget(100, replace(VECTORS, steps=5))})
    with pytest.raises(UsageError, match="run-0 holds a run with other settings: choose another --outdir"):
        run(outdir, "fom")
    assert results(outdir) == before


def test_another_budget_or_experiment_in_the_same_directory_is_refused(outdir, done, monkeypatch):
    monkeypatch.setattr(module, "train_or_reuse", never)
    with pytest.raises(UsageError, match="holds A circle with noise, quick: choose another --outdir"):
        run(outdir, "fom", budget="paper")
    with pytest.raises(UsageError, match="holds A circle with noise, quick"):
        reproduce("image-manifold", outdir, algorithms=("pca",), device="cpu")
    assert results(outdir) == results(done)


def test_another_scene_in_the_same_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_train_and_measure", lambda *_: None)
    reproduce("image-manifold", tmp_path, algorithms=("pca",), scene={"size": 32})
    reproduce("image-manifold", tmp_path, algorithms=("pca",))  # which is the same
    with pytest.raises(UsageError, match="32 × 32, grey, quick: choose another --outdir"):
        reproduce("image-manifold", tmp_path, algorithms=("pca",), scene={"size": 48})


def test_a_damaged_measurement_is_named(outdir):
    (outdir / "pca" / "run-0" / "metrics.json").write_text("{")
    with pytest.raises(UsageError, match=r"metrics\.json: not a readable .*remove it to measure again"):
        run(outdir, "pca")


def test_a_run_that_diverges_is_counted_and_shown_and_the_others_go_on(tmp_path, monkeypatch):
    exact, seen = losses.negative_log_likelihood, []

    def diverging(model, x, context):
        first = type(model).__name__ == "AmbientFlow" and len(seen) < 2
        seen.extend([1] * first)
        return exact(model, x, context) * (float("nan") if first and len(seen) == 2 else 1)

    monkeypatch.setattr(losses, "negative_log_likelihood", diverging)
    report = run(tmp_path, "af", "fom", runs=2)
    assert report.diverged == {"af": 1}
    first, second = results(tmp_path)["values"]["af"]
    assert "loss nan" in first["diverged"]
    assert first["metrics"] == {}
    assert set(second["metrics"]) == METRICS
    assert len(report.rows["af"]["distance"].finite) == 1
    assert results(tmp_path)["table"]["af"]["distance"][0] == second["metrics"]["distance"]
    assert len(report.rows["fom"]["distance"].finite) == 2
    assert "diverged" in (tmp_path / "report.html").read_text()
    monkeypatch.setattr(module, "train_or_reuse", never)
    again = run(tmp_path, "af", "fom", runs=2)
    assert again.diverged == {"af": 1}


def test_an_experiment_of_which_every_run_diverges_still_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "negative_log_likelihood", lambda model, x, context: x.sum() * float("nan"))
    report = run(tmp_path, "af", "fom")
    assert report.diverged == {"af": 1, "fom": 1}
    assert report.figures == []
    assert results(tmp_path)["table"]["fom"]["distance"] == [None, None, None]
    assert (tmp_path / "report.html").exists()


def test_names_that_do_not_exist_are_told(tmp_path):
    with pytest.raises(UsageError, match="no experiment 'nothing': there are circle, sphere"):
        reproduce("nothing", tmp_path)
    with pytest.raises(UsageError, match="budget must be one of quick, paper, not 'huge'"):
        reproduce("circle", tmp_path, budget="huge")
    with pytest.raises(UsageError, match="1 or 3 channels"):
        reproduce("image-manifold", tmp_path, scene={"channels": 2})
    assert not list(tmp_path.iterdir())
