import json
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import draw_bumps

import mfimage.experiments.reproduce as module
from mfimage import Config, cli, from_pretrained, losses
from mfimage.datasets.points import Points, load_points
from mfimage.errors import UsageError
from mfimage.experiments import EXPERIMENTS
from mfimage.experiments.experiment import Budget
from mfimage.experiments.reproduce import reproduce
from mfimage.experiments.simulators import Sphere
from mfimage.experiments.vector_experiments import circle

CONFIG = Config(
    dim=1, steps=4, density_steps=4, batch_size=32, lr=3e-3, warmup=2, every=2, validation=20,
    model={"hidden": 8, "density_steps": 1, "density_width": 8},
)  # fmt: skip
METRICS = {"distance", "reconstruction", "auc"}


def shrink(monkeypatch, **changes):
    budgets = {"quick": Budget(100, CONFIG), "paper": Budget(150, CONFIG)}
    tiny = replace(circle(), **{"budgets": budgets, "test_count": 60, **changes})
    monkeypatch.setitem(EXPERIMENTS, "circle", lambda: tiny)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The directory of a circle of two algorithms, two runs each; not to be written to."""
    torch.set_num_threads(1)
    outdir = tmp_path_factory.mktemp("reproduce") / "circle"
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        reproduce("circle", outdir, algorithms=("fom", "pca"), runs=2, device="cpu")
    return outdir


@pytest.fixture
def mfimage(monkeypatch, capfd, tmp_path):
    """Run the command in this process: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mfimage", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (stop.value.code, *capfd.readouterr())

    yield call
    signal.signal(signal.SIGTERM, handler)


def results(outdir):
    return json.loads((outdir / "results.json").read_text())


def never(*_, **__):
    raise AssertionError("trained again")


def fails(result, *words):
    status, out, err = result
    assert (status, out) == (2, ""), err
    assert all(word in err for word in words), err
    assert "Traceback" not in err
    return True


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
    report = reproduce("circle", tmp_path, algorithms=("af", "pca"), device="cpu")
    assert report.rows["af"]["distance"].published == 0.58
    assert report.rows["af"]["auc"].published is None
    assert report.rows["pca"]["distance"].published is None
    assert "0.58" in (tmp_path / "report.html").read_text()


def test_what_is_finished_is_not_trained_again(done, tmp_path, monkeypatch):
    outdir, before = shutil.copytree(done, tmp_path / "circle"), results(done)
    monkeypatch.setattr(module, "train_or_reuse", never)
    reproduce("circle", outdir, algorithms=("fom", "pca"), runs=2, device="cpu")
    assert results(outdir) == before
    reproduce("circle", outdir, algorithms=("pca",), device="cpu")
    assert results(outdir)["values"] == before["values"]
    with pytest.raises(AssertionError, match="trained again"):
        reproduce("circle", outdir, algorithms=("pca",), runs=3, device="cpu")


def test_a_run_that_was_broken_off_goes_on(done, tmp_path):
    outdir, before = shutil.copytree(done, tmp_path / "circle"), results(done)
    run = outdir / "fom" / "run-1"
    (run / "metrics.json").unlink()
    shutil.rmtree(run / "model")
    for path in (run / "checkpoints").glob("density-00000004*"):
        path.unlink()
    told = []
    reproduce("circle", outdir, algorithms=("fom", "pca"), runs=2, device="cpu", tell=told.append)
    assert results(outdir)["table"] == before["table"]
    assert results(outdir)["values"]["fom"][1]["cpu_seconds"] is None  # what it took in all is not known
    assert told[:2] == ["circle: fom, run 1 of 2", "circle: pca, run 1 of 2"]


def test_other_settings_in_the_same_directory_are_refused(done, tmp_path, monkeypatch):
    outdir, before = shutil.copytree(done, tmp_path / "circle"), results(done)
    shrink(monkeypatch, budgets={"quick": Budget(100, replace(CONFIG, steps=5))})
    with pytest.raises(UsageError, match="run-0 holds a run with other settings: choose another --outdir"):
        reproduce("circle", outdir, algorithms=("fom",), device="cpu")
    assert results(outdir) == before


def test_another_budget_or_experiment_in_the_same_directory_is_refused(done, tmp_path, monkeypatch):
    outdir = shutil.copytree(done, tmp_path / "circle")
    monkeypatch.setattr(module, "train_or_reuse", never)
    with pytest.raises(UsageError, match="holds A circle with noise, quick: choose another --outdir"):
        reproduce("circle", outdir, algorithms=("fom",), budget="paper", device="cpu")
    with pytest.raises(UsageError, match="holds A circle with noise, quick"):
        reproduce("image-manifold", outdir, algorithms=("pca",), device="cpu")
    assert results(outdir) == results(done)


def test_another_scene_in_the_same_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_train_and_measure", lambda *_: None)
    reproduce("image-manifold", tmp_path, algorithms=("pca",), scene={"size": 32})
    reproduce("image-manifold", tmp_path, algorithms=("pca",))  # which is the same
    with pytest.raises(UsageError, match="32 × 32, grey, quick: choose another --outdir"):
        reproduce("image-manifold", tmp_path, algorithms=("pca",), scene={"size": 48})


def test_a_damaged_measurement_is_named(done, tmp_path):
    outdir = shutil.copytree(done, tmp_path / "circle")
    (outdir / "pca" / "run-0" / "metrics.json").write_text("{")
    with pytest.raises(UsageError, match=r"metrics\.json: not a readable .*remove it to measure again"):
        reproduce("circle", outdir, algorithms=("pca",), device="cpu")


def test_a_run_that_diverges_is_counted_and_shown_and_the_others_go_on(tmp_path, monkeypatch):
    exact, seen = losses.negative_log_likelihood, []

    def diverging(model, x, context):
        first = type(model).__name__ == "AmbientFlow" and len(seen) < 2
        seen.extend([1] * first)
        return exact(model, x, context) * (float("nan") if first and len(seen) == 2 else 1)

    monkeypatch.setattr(losses, "negative_log_likelihood", diverging)
    report = reproduce("circle", tmp_path, algorithms=("af", "fom"), runs=2, device="cpu")
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
    again = reproduce("circle", tmp_path, algorithms=("af", "fom"), runs=2, device="cpu")
    assert again.diverged == {"af": 1}


def test_an_experiment_of_which_every_run_diverges_still_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "negative_log_likelihood", lambda model, x, context: x.sum() * float("nan"))
    report = reproduce("circle", tmp_path, algorithms=("af", "fom"), device="cpu")
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], ['"nothing" for EXPERIMENT', '"circle"']),
        (["circle", "--budget", "huge"], ['"huge" for --budget', '"quick", "paper"']),
        (["circle", "--dim", "2"], ["dim: circle takes no settings"]),
        (["image-manifold", "--dim", "3"], ["d = 2, 8, 16, 64"]),
        (["image-manifold", "--size", "20"], ["a multiple of 16"]),
        (["image-manifold", "--channels", "2"], ['"2" for --channels', "1, 3"]),
        (["circle", "--algorithm", "fom,nonsense"], ["no algorithm 'nonsense': choose all, or of m-flow"]),
        (["circle", "--runs", "0"], ["--runs"]),
        (
            ["circle", "--device", "tpu", "--algorithm", "fom"],
            ['"tpu" for --device', '"auto", "cpu", "cuda"'],
        ),
        ([], ["EXPERIMENT requires an argument"]),
    ],
)
def test_wrong_requests_are_code_2_and_nothing_is_trained(mfimage, arguments, words):
    assert fails(mfimage("reproduce", *arguments), *words)
    assert not list(Path().rglob("config.json"))


def test_reproduce_prints_json_alone_on_stdout(mfimage):
    code, out, err = mfimage("reproduce", "circle", "--algorithm", "fom,pca", "--json", "--device", "cpu")
    table = json.loads(out)
    assert code == 0
    assert table == results(Path("runs/circle"))["table"]
    assert list(table) == ["fom", "pca"]
    assert "circle: fom, run 1 of 1" in err
    assert "runs/circle/report.html" in err


def test_reproduce_prints_a_table_and_is_quiet_when_asked(mfimage):
    command = ["reproduce", "circle", "--algorithm", "pca", "-o", "out", "--device", "cpu", "-q"]
    code, out, err = mfimage(*command)
    assert (code, err) == (0, "")
    assert "pca" in out
    assert all(metric in out for metric in METRICS)


def test_train_takes_a_file_of_points(mfimage):
    Sphere(1).sample(100, torch.Generator().manual_seed(0)).save("points.npz")
    Path("short.json").write_text(json.dumps(module.asdict(CONFIG)))
    code, out, _ = mfimage(
        "train", "points.npz", "--algorithm", "pie", "--config", "short.json", "-o", "run", "--json", "-q"
    )
    assert code == 0
    assert json.loads(out) == {"model": "run/model", "dim": 1, "shape": [2]}
    assert json.loads(Path("run/config.json").read_text())["algorithm"] == "pie"
    assert json.loads(Path("run/model/config.json").read_text())["kind"] == "pie"
    assert mfimage("train", "points.npz", "-o", "run", "--resume", "-q")[:2] == (0, "run/model\n")
    unknown = mfimage("train", "points.npz", "--algorithm", "nonsense", "-o", "other")
    assert fails(unknown, '"nonsense" for --algorithm')
    flat = mfimage("train", "points.npz", "--dim", 2, "-o", "other")
    assert fails(flat, "dim must lie in 1 … 1 for vectors of length 2")
    assert not Path("other").exists()


def test_a_model_of_vectors_is_sampled_and_refused_by_the_verbs_for_images(mfimage):
    Sphere(1).sample(100, torch.Generator().manual_seed(0)).save("points.npz")
    assert mfimage("train", "points.npz", "--algorithm", "pca", "--dim", 1, "-o", "run", "-q")[0] == 0
    code, out, _ = mfimage("sample", "-m", "run", "-n", 5, "-o", "out", "--seed", 3)
    assert (code, out) == (0, "out/sample-3.npz\n")
    drawn = load_points(out.strip())
    expected = from_pretrained("run").sample(5, torch.Generator().manual_seed(3))
    assert torch.equal(drawn.x, expected)
    for verb in (["denoise", "a.png"], ["score", "a.png"], ["evaluate", "points.npz"]):
        status, out, err = mfimage(*verb, "-m", "run")
        assert status in (2, 4)
        assert out == ""
        assert "images" in err
        assert "internal error" not in err


def test_a_model_with_parameters_is_sampled_at_them_and_not_without(mfimage):
    x = torch.from_numpy(draw_bumps(60)).float().div(255)[:, None]
    Points(x, "bumps", torch.linspace(-1, 1, 60)[:, None]).save("points.npz")
    Path("short.json").write_text(json.dumps(module.asdict(CONFIG)))
    train = ["train", "points.npz", "--algorithm", "pie", "--config", "short.json", "-o", "run", "-q"]
    assert mfimage(*train)[0] == 0
    assert fails(mfimage("sample", "-m", "run"), "--theta", "1 parameters")
    assert fails(mfimage("sample", "-m", "run", "--theta", "1,2"), "--theta")
    assert mfimage("sample", "-m", "run", "--theta", "0.5", "-n", 2, "-q")[0] == 0
    assert Path("samples/sample-0-00001.png").exists()
