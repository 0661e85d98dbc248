"""The verbs that look at the manifold, as typed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails, pixels_of
from PIL import Image
from tiny import draw_bumps, write_images

from mfimage import ManifoldFlow, ModelConfig, build, load, save_pretrained


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("pictures"), draw_bumps(3, seed=9))


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

    rough, again = (densities("--method", "lanczos") for _ in range(2))
    latent = densities("--measure", "latent")
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
    ends = pictures / "0.png", pictures / "2.png"
    code, out, err = mfimage("interpolate", *ends, "-m", tiny_run, "--points", 5, "--device", "cpu")
    assert code == 0, err
    assert len(out.splitlines()) == 5
    assert all(Path(line).is_file() for line in out.splitlines())
    assert Path("interpolated/sheet.png").is_file()
    assert not Path("interpolated/way.gif").exists()
    assert mfimage("interpolate", *ends, "-m", tiny_run, "--points", 5, "--gif", "-o", "moving")[0] == 0
    with Image.open("moving/way.gif") as moving:
        assert (moving.n_frames, moving.info["loop"], moving.size) == (8, 0, (8, 8))
        moving.seek(3)
        frame = np.asarray(moving.convert("L")) / 255.0
    np.testing.assert_allclose(frame, pixels_of("moving/step-03.png"), atol=0.02)


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
    assert fails(mfimage(*arguments, *more), code, word)


def test_log_prob_refuses_what_has_no_manifold(mfimage, tmp_path):
    flow = build(ModelConfig((1, 8, 8), 2, kind="pie", width=2, hidden=8))
    flow.initialise(torch.rand(40, 1, 8, 8))
    save_pretrained(flow, tmp_path / "pie")
    assert fails(mfimage("log-prob", tmp_path, "--model", tmp_path / "pie"), 2, "M-flow")


@pytest.fixture
def as_good_as_pca(tiny_run, tmp_path):
    """A run whose training found nothing better than principal components."""
    run = shutil.copytree(tiny_run, tmp_path / "plain")
    path = run / "model" / "calibration.json"
    known = json.loads(path.read_text())
    known["verdict"] |= {"error": known["verdict"]["pca"], "interval": [0.99, 1.01], "best": "start"}
    path.write_text(json.dumps(known))
    return run


def test_samples_are_sharp_where_that_was_learned_unless_it_is_not_wanted(mfimage, tmp_path, tiny_run):
    model = build(ModelConfig((1, 8, 8), 2, sharp=True, width=2, hidden=8))
    torch.nn.init.normal_(model.sharpener.last.weight)
    save_pretrained(model, tmp_path / "sharp")
    drawn = {}
    for name, options in (("sharp", ()), ("plain", ("--no-sharp",))):
        command = ("sample", "-m", tmp_path / "sharp", "-n", 2, "-o", tmp_path / name, *options)
        code, _, err = mfimage(*command)
        assert (code, "drawn sharply" in err) == (0, name == "sharp")
        drawn[name] = (tmp_path / name / "sample-0-00000.png").read_bytes()
    assert drawn["sharp"] != drawn["plain"]
    assert "drawn sharply" not in mfimage("sample", "-m", tiny_run, "-n", 1, "-o", tmp_path / "other")[2]


def test_a_model_that_is_principal_components_is_never_so_in_silence(
    mfimage, as_good_as_pca, tiny_run, pictures
):
    verbs = (["sample", "-n", 2], ["directions", pictures], ["denoise", pictures, "-o", "clean"])
    verbs += (["interpolate", pictures / "0.png", pictures / "1.png"],)
    for verb in verbs:
        for run, told in ((as_good_as_pca, True), (tiny_run, False)):
            code, _, err = mfimage(*verb, "-m", run)
            assert code == 0
            assert ("note on this model: Is its start, 2 principal components" in err) == told
    assert mfimage("sample", "-n", 1, "-m", as_good_as_pca, "-q")[2] == ""


def test_what_is_no_finite_numbers_is_not_drawn(mfimage, tiny_run, pictures, monkeypatch):
    lost = torch.zeros(4, 1, 8, 8)
    lost[1:3, 0, 0] = torch.nan
    monkeypatch.setattr(ManifoldFlow, "sample", lambda *_: lost)
    monkeypatch.setattr(ManifoldFlow, "interpolate", lambda *_: lost)
    ends = (pictures / "0.png", pictures / "1.png")
    for command in (("sample", "-n", 4), ("interpolate", *ends, "--points", 4)):
        ended = mfimage(*command, "-m", tiny_run, "-o", "out")
        assert fails(ended, 4, f"{tiny_run}: gives no finite numbers for 2 of 4 images")
        assert not Path("out").exists()
