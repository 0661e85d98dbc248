import pytest
import torch

from mfimage import Config, build
from mfimage.experiments import image_experiments, measures
from mfimage.experiments.image_experiments import image_manifold
from mfimage.experiments.measures import common, recovery
from mfimage.experiments.simulators import Sphere, Surface
from mfimage.models import ManifoldFlow, Spherical, latent_density

MODEL = {"hidden": 8, "density_steps": 1, "density_width": 8}


def test_the_true_circle_has_no_distance_and_reconstructs_the_noise(generator):
    flow = ManifoldFlow(Spherical(1), latent_density(1, 1, 8), (2,))
    data = Sphere(1).sample(2000, generator)
    flow.initialise(data.x)
    found = common(flow, Sphere(1), data, generator)
    assert found["distance"] < 1e-6
    assert found["reconstruction"] == pytest.approx(0.01 * (2 / torch.pi) ** 0.5, rel=0.1)  # E|N(0, ε²)|
    assert found["auc"] > 0.6


def test_strangeness_is_the_error_or_where_nothing_is_projected_the_density():
    x = Surface().sample(100, torch.Generator().manual_seed(1), torch.zeros(1, 1)).x

    def strangeness(kind):
        flow = build(Config(dim=2, model=MODEL).model_config((3,), kind, 1)).eval()
        flow.initialise(x)
        with torch.no_grad():
            return flow, measures.stranger_score(flow, Surface(), x)

    flow, found = strangeness("manifold-flow")
    torch.testing.assert_close(found, measures.errors(flow, Surface(), x))
    flow, found = strangeness("ambient-flow")
    with torch.no_grad():
        torch.testing.assert_close(found, -flow.log_prob(x, torch.zeros(100, 1)))
    assert measures.errors(flow, Surface(), x).max() < 1e-4


def test_densities_are_compared_of_manifold_flows_of_images(generator, monkeypatch):
    monkeypatch.setattr(image_experiments, "RENDERED", 20)
    experiment = image_manifold()
    simulator = experiment.simulator
    test = simulator.sample(40, generator)
    monkeypatch.setattr(type(simulator), "distance", lambda scene, x: torch.zeros(len(x)))
    tiny = {**MODEL, "levels": ((2, 0),), "width": 2}
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
