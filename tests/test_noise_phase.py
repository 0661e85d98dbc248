"""Charts of images that learn to remove noise, in a phase of their own."""

from dataclasses import replace

import pytest
import torch
from tiny import TINY, VECTORS, broken_off, curve, learn, learned

from mfimage import Config, from_pretrained
from mfimage.algorithms import ALGORITHMS, Batch
from mfimage.errors import Interrupted, UsageError
from mfimage.pretrained import weights_hash
from mfimage.run import Run

IMAGES = replace(VECTORS, dim=2, steps=2, density_steps=2, model=TINY.model)
NOISE_AWARE = ["m-flow", "me-flow"]


@pytest.mark.parametrize("algorithm", NOISE_AWARE)
def test_a_range_of_noise_makes_a_chart_that_shrinks_it(images, tmp_path, algorithm):
    settings = replace(IMAGES, noise=(0.1, 0.5), every=1)
    model = learned(images, tmp_path / "run", settings, algorithm)
    assert model.noise_aware
    (phase,) = [phase for phase in ALGORITHMS[algorithm].phases if phase.name == "noise"]
    generator = torch.Generator().manual_seed(0)
    batches = [phase.disturb(Batch(images.x), settings, generator, 2) for _ in range(3)]
    deviations = torch.cat([(batch.x - batch.clean).flatten(1).std(1) for batch in batches])
    assert 0.07 < deviations.min() < 0.15
    assert 0.4 < deviations.max() < 0.6
    stored = from_pretrained(tmp_path / "run")
    y, sigma = images.x[:5] + 0.1, torch.full((5,), 0.1)
    with torch.no_grad():
        cleared, again = (one.chart.clear(y, sigma) for one in (model, stored))
        assert torch.equal(cleared, again)
        assert torch.equal(model.chart.shrink(cleared, sigma), stored.chart.shrink(again, sigma))


@pytest.mark.parametrize(
    "noise",
    ["gaussian:0.2", "poisson:5-50", "poisson-gaussian:30,0-0.1", "salt-pepper:0.1", "correlated:0.2,1"],
)
def test_a_chart_learns_to_remove_the_noise_that_is_named(images, tmp_path, noise):
    settings = replace(IMAGES, noise=noise)
    model = learned(images, tmp_path / "run", settings)
    assert model.noise_aware
    config = Run(tmp_path / "run").config()
    assert str(config.noise_model) == noise
    assert model.measured["training"]["noise"] == noise
    phase = next(phase for phase in ALGORITHMS["m-flow"].phases if phase.name == "noise")
    generator, x = torch.Generator().manual_seed(0), images.x.repeat(20, 1, 1, 1)
    seen = phase.disturb(Batch(x), config, generator, 2)
    squares = (seen.x - x).square().flatten(1).mean(1)
    kept = ((seen.x < 0) | (seen.x > 1)).flatten(1).any(1) if noise != "salt-pepper:0.1" else squares >= 0
    assert squares[kept].mean() == pytest.approx(float(seen.sigma[kept].square().mean()), rel=0.1)
    assert torch.equal(seen.clean, x)


@pytest.mark.parametrize("algorithm", NOISE_AWARE)
def test_learning_to_remove_noise_leaves_the_chart_alone(images, tmp_path, algorithm):
    plain = learn(images, tmp_path / "plain", replace(IMAGES, noise=0.0), algorithm)
    aware = learn(images, tmp_path / "aware", replace(IMAGES, noise=(0.0, 0.5)), algorithm)
    with torch.no_grad():
        assert torch.equal(plain.encode(images.x), aware.encode(images.x))
        assert torch.equal(plain.project(images.x), aware.project(images.x))
    first = ["manifold", "refinement"] if algorithm == "m-flow" else ["manifold"]
    assert [line["phase"] for line in curve(tmp_path / "plain")] == [*first, "density"]
    assert [line["phase"] for line in curve(tmp_path / "aware")] == [*first, "noise", "density"]


def test_charts_of_images_learn_to_remove_noise_without_being_told(images, circle, tmp_path):
    settings = replace(IMAGES, noise=None)
    assert learn(images, tmp_path / "images", settings).noise_aware
    assert Run(tmp_path / "images").config().noise == (0.0, 0.5)
    assert not learn(images, tmp_path / "pca", settings, "pca").noise_aware
    assert not learn(circle, tmp_path / "circle", VECTORS).noise_aware
    assert Run(tmp_path / "circle").config().noise == 0.0


def test_filters_start_from_what_images_are_and_gains_end_at_what_is_left(images, tmp_path):
    settings = replace(IMAGES, noise=(0.0, 0.5), lr=0.05, steps=6, every=6)
    learn(images, tmp_path / "run", settings)
    model = from_pretrained(tmp_path / "run")
    order = torch.randperm(60, generator=torch.Generator().manual_seed(settings.seed))
    x, chart = images.x[order[6:].sort().values], model.chart
    vectors = chart.multiscale.wavelets.analysis(x) - chart.subspace.rotation.mean
    power = (vectors @ chart.subspace.rotation.basis).square().mean(0).clamp_min(1e-8)
    torch.testing.assert_close(chart.denoiser.principal.power, power, rtol=1e-3, atol=1e-7)
    gains = chart.denoiser.gains
    before = gains.level.clone(), gains.log_slope.clone()
    chart.fit_gains(x)
    torch.testing.assert_close((gains.level, gains.log_slope), before)


def test_a_step_looks_at_a_window_of_large_images():
    (phase,) = [phase for phase in ALGORITHMS["m-flow"].phases if phase.name == "noise"]
    generator, settings = torch.Generator().manual_seed(0), IMAGES.with_(noise=(0.1, 0.5))
    x = torch.arange(40.0).view(1, 1, 40, 1).expand(2, 1, 40, 20)
    windows = [phase.disturb(Batch(x), settings, generator, 2).window for _ in range(200)]
    seen = [x[(..., *window)] for window in windows]
    assert {tuple(part.shape) for part in seen} == {(2, 1, 32, 20)}
    assert {int(part[0, 0, 0, 0]) for part in seen} == set(range(9))


def test_a_resumed_noise_aware_run_equals_an_unbroken_one(images, tmp_path):
    settings = replace(IMAGES, noise=(0.0, 0.5), steps=4)
    whole = learn(images, tmp_path / "whole", settings)
    with broken_off(2, error=Interrupted(2, "saved step 2")):
        learn(images, tmp_path / "broken", settings)
    again = learn(images, tmp_path / "broken", resume=True)
    assert weights_hash(again) == weights_hash(whole)
    assert again.measured == whole.measured


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in NOISE_AWARE])
def test_a_range_of_noise_is_for_those_whose_chart_can_shrink_it(algorithm):
    with pytest.raises(UsageError, match="a range of noise is for m-flow and me-flow"):
        Config(algorithm=algorithm, noise=(0.0, 0.5))


def test_a_range_of_noise_is_for_images(circle, tmp_path):
    with pytest.raises(UsageError, match="a range of noise"):
        learn(circle, tmp_path / "run", replace(VECTORS, noise=(0.0, 0.5)))
