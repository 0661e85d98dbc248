"""The experiment on a generator's manifold, with a generator and budgets that take seconds."""

from dataclasses import replace

import pytest
import torch
from tiny import TINY

from mfimage import Config, build
from mfimage.datasets.stylegan import manifold_generator, save_generator, seeded_generator
from mfimage.errors import UsageError
from mfimage.experiments import EXPERIMENTS, image_experiments
from mfimage.experiments.experiment import Budget
from mfimage.experiments.image_experiments import image_manifold, recovery, stylegan
from mfimage.experiments.reproduce import reproduce


def test_without_weights_the_generator_is_seeded_and_large_enough():
    generator = manifold_generator(2, 24)
    assert generator.shape == (3, 32, 32)
    assert generator.z_dim == 8
    assert stylegan(2, 24).simulator.shape == (3, 24, 24)


def test_weights_are_read_from_a_file(tmp_path):
    save_generator(seeded_generator(8, 3, channels=1, z_dim=6), tmp_path / "g.safetensors")
    made = stylegan(2, 8, str(tmp_path / "g.safetensors")).simulator
    assert made.shape == (1, 8, 8)
    assert made.parameters == 0
    assert stylegan(3, 8, str(tmp_path / "g.safetensors")).simulator.parameters == 1


def test_the_paper_s_two_sets_are_there_with_its_numbers():
    two = EXPERIMENTS["stylegan-2d"](size=32)
    assert two.published["m-flow"]["re_256"] == 332
    assert two.published["me-flow"]["re_256"] == 303
    many = stylegan(64, 8)
    assert many.published["m-flow"]["re_256"] == 1432
    assert many.simulator.parameters == 1


def test_it_runs_and_measures_what_the_truth_allows(tmp_path, monkeypatch):
    small = {"steps": 30, "density_steps": 30, "batch_size": 32, "validation": 20}
    tiny = replace(
        stylegan(2, 8),
        budgets={"quick": Budget(150, TINY.with_(**small))},
        test_count=30,
    )
    monkeypatch.setitem(EXPERIMENTS, "stylegan-2d", lambda: tiny)
    report = reproduce("stylegan-2d", tmp_path, algorithms=("m-flow", "pae"), device="cpu")
    flow, other = ({name: cell[0] for name, cell in row.items()} for row in report.as_json().values())
    assert flow["re_256"] == pytest.approx(256 * flow["reconstruction"])
    assert 0 < flow["distance"] < 5
    assert 0 < flow["recovery"] <= 1
    assert -1 <= flow["correlation"] <= 1
    assert other["correlation"] is None  # no density of x
    assert (tmp_path / "report.html").read_text().count("Chart of") >= 2


def test_settings_of_another_experiment_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"channels: stylegan-2d takes size, weights"):
        reproduce("stylegan-2d", tmp_path, scene={"channels": 1})


def test_densities_are_compared_of_manifold_flows_of_images(generator, monkeypatch):
    monkeypatch.setattr(image_experiments, "RENDERED", 20)
    experiment = image_manifold()
    simulator = experiment.simulator
    test = simulator.sample(40, generator)
    monkeypatch.setattr(type(simulator), "distance", lambda scene, x: torch.zeros(len(x)))
    tiny = {"hidden": 8, "density_steps": 1, "density_width": 8, "levels": 2, "steps": 0}
    for kind, expected in (("manifold-flow", True), ("autoencoder", False)):
        flow = build(Config(dim=2, model=tiny).model_config(simulator.shape, kind)).eval()
        flow.initialise(test.x)
        found = experiment.measure(flow, simulator, test, generator)
        assert ("correlation" in found) == ("density_error" in found) == expected


def test_codes_that_determine_the_latents_recover_them():
    torch.manual_seed(0)
    latents = torch.randn(2000, 2)
    bent = torch.stack([latents[:, 0] + 0.3 * latents[:, 1] ** 2, 100 * latents[:, 1]], 1)
    assert recovery(bent, latents) > 0.97
    assert recovery(torch.randn(2000, 2), latents) < 0.1
    assert recovery(latents[:, :1], latents) < 0.7
