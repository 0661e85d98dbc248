"""Experiments, and models of points, as typed."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from commands import fails
from PIL import Image
from tiny import VECTORS, shrink_circle

from mfimage import from_pretrained
from mfimage.datasets.points import load_points


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    shrink_circle(monkeypatch)


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
        (["circle", "--device", "tpu"], ["--device: tpu: auto, cpu, cuda or cuda:N is expected"]),
        ([], ["EXPERIMENT requires an argument"]),
    ],
)
def test_wrong_requests_are_code_2_and_nothing_is_trained(mfimage, arguments, words):
    assert fails(mfimage("reproduce", *arguments), 2, *words)
    assert not list(Path().rglob("config.json"))


def test_reproduce_prints_json_alone_on_stdout(mfimage):
    code, out, err = mfimage("reproduce", "circle", "--algorithm", "fom,pca", "--json", "--device", "cpu")
    table = json.loads(out)
    assert code == 0
    assert table == json.loads(Path("runs/circle/results.json").read_text())["table"]
    assert list(table) == ["fom", "pca"]
    assert "circle: fom, run 1 of 1" in err
    assert "runs/circle/report.html" in err


def test_reproduce_prints_a_table_and_is_quiet_when_asked(mfimage):
    command = ["reproduce", "circle", "--algorithm", "pca", "-o", "out", "--device", "cpu", "-q"]
    code, out, err = mfimage(*command)
    assert (code, err) == (0, "")
    assert all(word in out for word in ("pca", "distance", "reconstruction", "auc"))


@pytest.fixture
def trained(mfimage):
    """Train on points as typed, for a moment."""
    Path("short.json").write_text(json.dumps(asdict(VECTORS)))

    def call(points, *arguments):
        points.save("points.npz")
        return mfimage("train", "points.npz", "--config", "short.json", "-o", "run", "-q", *arguments)

    return call


def test_train_takes_a_file_of_points(mfimage, trained, circle):
    code, out, _ = trained(circle, "--algorithm", "pie", "--json")
    assert code == 0
    assert json.loads(out) == {"model": "run/model", "dim": 1, "shape": [2]}
    assert json.loads(Path("run/config.json").read_text())["algorithm"] == "pie"
    assert json.loads(Path("run/model/config.json").read_text())["kind"] == "pie"
    assert mfimage("train", "points.npz", "-o", "run", "--resume", "-q")[:2] == (0, "run/model\n")
    unknown = mfimage("train", "points.npz", "--algorithm", "nonsense", "-o", "other")
    assert fails(unknown, 2, '"nonsense" for --algorithm')
    flat = mfimage("train", "points.npz", "--dim", 2, "-o", "other")
    assert fails(flat, 2, "dim must lie in 1 … 1 for vectors of length 2")
    assert not Path("other").exists()


def test_a_model_of_vectors_is_sampled_and_refused_by_the_verbs_for_images(mfimage, circle):
    circle.save("points.npz")
    assert mfimage("train", "points.npz", "--algorithm", "pca", "--dim", 1, "-o", "run", "-q")[0] == 0
    code, out, _ = mfimage("sample", "-m", "run", "-n", 5, "-o", "out", "--seed", 3)
    assert (code, out) == (0, "out/sample-3.npz\n")
    drawn = load_points(out.strip())
    expected = from_pretrained("run").sample(5, torch.Generator().manual_seed(3))
    assert torch.equal(drawn.x, expected)
    Image.new("L", (8, 8)).save("a.png")
    for verb in (["denoise", "a.png"], ["score", "a.png"], ["evaluate", "points.npz"]):
        status, out, err = mfimage(*verb, "-m", "run")
        assert status in (2, 4)
        assert out == ""
        assert "images" in err
        assert "internal error" not in err


def test_a_model_with_parameters_is_sampled_at_them_and_not_without(mfimage, trained, images):
    theta = torch.linspace(-1, 1, 60)[:, None]
    assert trained(replace(images, theta=theta), "--algorithm", "pie")[0] == 0
    assert fails(mfimage("sample", "-m", "run"), 2, "--theta", "1 parameters")
    assert fails(mfimage("sample", "-m", "run", "--theta", "1,2"), 2, "--theta")
    assert mfimage("sample", "-m", "run", "--theta", "0.5", "-n", 2, "-q")[0] == 0
    assert Path("samples/sample-0-00001.png").exists()
