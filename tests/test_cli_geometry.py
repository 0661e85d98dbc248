"""The verbs that look at the manifold, as typed, and what cannot be compared."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import draw_bumps

from mfimage import cli, evaluate, load
from mfimage.comparison import compare, read_evaluation
from mfimage.errors import DataError, UsageError


@pytest.fixture
def mfimage(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mfimage", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (stop.value.code, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for index, image in enumerate(draw_bumps(3, seed=9)):
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


def test_log_prob_is_that_of_the_model(mfimage, tiny_run, model, pictures):
    code, out, err = mfimage("log-prob", pictures, "--model", tiny_run, "--device", "cpu", "--batch-size", 2)
    assert code == 0, err
    assert "exact; nats with respect to 2-dimensional volume" in err
    lines = [line.split("\t") for line in out.splitlines()]
    assert [Path(line[0]).name for line in lines] == ["0.png", "1.png", "2.png"]
    expected = model.log_prob(load(pictures, "all").batch(slice(None)))
    assert [float(line[1]) for line in lines] == pytest.approx(expected.tolist(), rel=1e-4)
    assert {line[2] for line in lines} == {"0"}


def test_log_prob_estimated_and_in_latent_measure(mfimage, tiny_run, model, pictures):
    def densities(*options):
        _, out, _ = mfimage("log-prob", pictures, "-m", tiny_run, "--json", "--device", "cpu", *options)
        return json.loads(out)

    rough, again, latent = (
        densities("--method", "lanczos"),
        densities("--method", "lanczos"),
        densities("--measure", "latent"),
    )
    assert rough == again
    assert (rough["method"], rough["dim"], latent["measure"]) == ("lanczos", 2, "latent")
    assert max(row["standard_error"] for row in rough["densities"]) > 0
    u = model.encode(load(pictures, "all").batch(slice(None)))
    found = [row["log_prob"] for row in latent["densities"]]
    assert found == pytest.approx(model.density.log_prob(u).tolist(), rel=1e-4)


def test_directions_are_drawn_strongest_first(mfimage, tiny_run, pictures):
    code, out, err = mfimage("directions", pictures, "-m", tiny_run, "-o", "out", "--json", "--device", "cpu")
    assert code == 0, err
    result = json.loads(out)
    with Image.open(result["sheet"]) as sheet:
        assert sheet.size == (3 * (8 + 2) + 2, 3 * (8 + 2) + 2)  # the projection and d = 2 directions
    for row in result["directions"]:
        strongest, other = row["strength"]
        assert strongest >= other > 0


def test_interpolate_writes_the_way(mfimage, tiny_run, pictures):
    code, out, err = mfimage(
        "interpolate",
        pictures / "0.png",
        pictures / "2.png",
        "-m",
        tiny_run,
        "--points",
        5,
        "--device",
        "cpu",
    )
    assert code == 0, err
    assert len(out.splitlines()) == 5
    assert all(Path(line).is_file() for line in out.splitlines())
    assert Path("interpolated/sheet.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["log-prob", "nowhere.png"], 3, "nowhere.png"),
        (["log-prob", ".", "--method", "guess"], 2, "guess"),
        (["interpolate", "0.png", "nowhere.png"], 3, "nowhere.png"),
        (["directions", "0.png", "--model", "nowhere"], 4, "nowhere"),
    ],
)
def test_what_goes_wrong_is_told(mfimage, tiny_run, pictures, monkeypatch, arguments, code, word):
    monkeypatch.chdir(pictures)
    more = [] if "--model" in arguments else ["--model", tiny_run]
    status, out, err = mfimage(*arguments, *more)
    assert (status, out) == (code, "")
    assert word in err
    assert "Traceback" not in err


def fake(error, fid=None, sha="a", dim=2):
    return {
        "model": {"dim": dim},
        "data": {"test": {"sha256": sha}},
        "reconstruction": {"model": {"squared_error": {"mean": error}}},
        "fid": {"value": fid} if fid else {"skipped": "no weights"},
    }


def test_models_are_ranked_by_what_compares():
    runs = {"a": fake(3.0, 10.0), "b": fake(2.0, 30.0), "c": fake(4.0, 20.0)}
    assert compare(runs) == [("b", 2.0), ("a", 3.0), ("c", 4.0)]
    assert [name for name, _ in compare(runs, "fid")] == ["a", "c", "b"]


def test_densities_of_different_models_are_never_ranked():
    with pytest.raises(UsageError, match=r"cannot be ranked \(a: d = 2, b: d = 3\): each is per volume"):
        compare({"a": fake(1.0), "b": fake(1.0, dim=3)}, "density")


def test_what_was_not_measured_alike_is_refused():
    with pytest.raises(DataError, match="different images"):
        compare({"a": fake(1.0), "b": fake(1.0, sha="b")})
    with pytest.raises(DataError, match="a: was not measured by fid"):
        compare({"a": fake(1.0), "b": fake(1.0, 3.0)}, "fid")
    with pytest.raises(UsageError, match="not by 'beauty'"):
        compare({"a": fake(1.0)}, "beauty")


def test_compare_as_typed(mfimage, model, bumps):
    test, train = load(bumps, "test"), load(bumps, "train")
    result = evaluate(model, test, train, metrics=("reconstruction",))
    for name, worse in {"one": 1.0, "two": 2.0}.items():
        Path(name).mkdir()
        result["reconstruction"]["model"]["squared_error"]["mean"] *= worse
        Path(name, "metrics.json").write_text(json.dumps(result))
    code, out, _ = mfimage("compare", "two", "one")
    assert code == 0
    assert [line.split("\t")[1] for line in out.splitlines()] == ["one", "two"]
    assert json.loads(mfimage("compare", "one", "--json")[1])["ranking"][0]["run"] == "one"
    code, out, err = mfimage("compare", "one", "two", "--by", "density")
    assert (code, out) == (2, "")
    assert "cannot be ranked" in err
    assert mfimage("compare", "nowhere")[0] == 3


def test_a_damaged_evaluation_is_named(tmp_path):
    for text in ("{", "[]", '{"data": {}}'):
        (tmp_path / "metrics.json").write_text(text)
        with pytest.raises(DataError, match=r"metrics\.json"):
            read_evaluation(tmp_path)


def test_log_prob_refuses_what_has_no_manifold(mfimage, tmp_path):
    from mfimage import build, save_pretrained
    from mfimage.config import ModelConfig

    flow = build(ModelConfig((1, 8, 8), 2, kind="pie", width=2, hidden=8))
    flow.initialise(torch.rand(40, 1, 8, 8))
    save_pretrained(flow, tmp_path / "pie")
    code, _, err = mfimage("log-prob", tmp_path, "--model", tmp_path / "pie")
    assert code == 2
    assert "M-flow" in err
