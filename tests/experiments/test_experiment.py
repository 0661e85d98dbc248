from dataclasses import replace

import pytest
import torch
from tiny import VECTORS

from mfimage import build
from mfimage.algorithms import ALGORITHMS
from mfimage.errors import UsageError
from mfimage.experiments import BUDGETS, EXPERIMENTS
from mfimage.experiments.experiment import common, errors, stranger_score
from mfimage.experiments.image_experiments import image_manifold
from mfimage.experiments.simulators import Sphere, Surface
from mfimage.models import ManifoldFlow, Spherical, latent_density


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_training_of_every_experiment_has_settings_that_fit_its_data(name, budget):
    experiment = EXPERIMENTS[name]()
    simulator = experiment.simulator
    assert set(experiment.budgets) == set(BUDGETS)
    assert experiment.budgets[budget].count > experiment.budgets[budget].config.dim
    for algorithm in experiment.algorithms:
        config = experiment.config_of(algorithm, budget, 3)
        assert config.seed == 3
        assert config.algorithm == algorithm.split("+")[0]
        assert config.dim == simulator.dim
        kind = ALGORITHMS[config.algorithm].kind
        assert config.model_config(simulator.shape, kind, simulator.parameters).shape == simulator.shape
    assert set(experiment.published) <= set(experiment.algorithms)
    metrics = {metric.name for metric in experiment.metrics}
    assert all(set(values) <= metrics for values in experiment.published.values())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_budget_of_the_paper_is_the_larger_one(name):
    experiment = EXPERIMENTS[name]()
    quick, paper = (experiment.config_of("m-flow", budget, 0) for budget in BUDGETS)
    assert experiment.budgets["quick"].count < experiment.budgets["paper"].count
    assert quick.steps < paper.steps


def test_changes_reach_the_algorithms_they_name_and_no_other():
    surface = EXPERIMENTS["surface"]()
    shared = surface.budgets["quick"].config
    assert surface.config_of("m-flow", "quick", 0) == shared
    assert surface.config_of("af", "quick", 0).clip == 1000
    assert surface.config_of("af", "quick", 0).noise == 2e-3
    assert surface.config_of("denoising", "quick", 0).noise == 0.05
    assert surface.config_of("pie", "quick", 0).noise == 0
    assert surface.budgets["quick"].config == shared


def test_variants_change_what_they_say_and_nothing_else():
    collider = EXPERIMENTS["collider"]()
    names = ("pie", "pie+scandal", "pie+theta", "pie+scandal+theta")
    plain, scored, conditional, both = (collider.config_of(name, "quick", 0) for name in names)
    assert scored == replace(plain, scandal=2.0)
    assert conditional == replace(plain, model={**plain.model, "chart_context": True})
    assert both == replace(conditional, scandal=2.0)
    assert plain.clip == scored.clip == 1000  # what is changed for pie is changed for its variants


@pytest.mark.parametrize(
    ("experiment", "algorithm", "message"),
    [
        ("surface", "m-flow+scandal", "joint score of a simulator"),
        ("collider", "m-flow-a+scandal", "does not know the score"),
        ("circle", "pie+theta", "circle has no parameters"),
        ("collider", "me-flow+theta", "chart_context is true only for charts"),
        ("collider", "m-flow+theta+scandal", "only where the chart sees no θ"),
    ],
)
def test_variants_that_would_change_nothing_or_cannot_be_are_refused(experiment, algorithm, message):
    with pytest.raises(UsageError, match=message):
        EXPERIMENTS[experiment]().config_of(algorithm, "quick", 0)


@pytest.mark.parametrize(
    "algorithm", ["nonsense", "m-flow+nonsense", "pie+theta+theta", "", "+theta", "M-flow"]
)
def test_an_algorithm_that_does_not_exist_is_told(algorithm):
    with pytest.raises(UsageError, match=r"no algorithm '.*': choose all, or of m-flow, .*\+scandal"):
        EXPERIMENTS["circle"]().config_of(algorithm, "quick", 0)


def test_a_scene_reaches_the_images_and_the_model():
    experiment = image_manifold(dim=8, size=48, channels=3)
    assert experiment.simulator.shape == (3, 48, 48)
    assert experiment.config_of("pca", "paper", 0).dim == 8
    assert "8 factors, 48 × 48, colour" in experiment.title
    with pytest.raises(UsageError, match="d = 2, 8, 16, 64"):
        image_manifold(dim=3)


@pytest.mark.parametrize(
    ("name", "algorithm", "metric", "value"),
    [
        ("circle", "af", "distance", 0.58),
        ("circle", "m-flow-ot", "distance", 0.007),
        ("circle", "pae", "distance", 0.029),
        ("surface", "af", "mmd", 0.071),
        ("surface", "pie", "reconstruction", 1.253),
        ("surface", "m-flow", "mmd", 0.017),
        ("surface", "m-flow-s", "auc", 0.974),
        ("surface", "m-flow-a", "reconstruction", 0.003),
        ("surface", "m-flow-ot", "distance", 0.089),
        ("surface", "me-flow", "mmd", 0.007),
        ("collider", "af", "log_posterior", -3.94),
        ("collider", "pie+theta", "log_posterior", -4.68),
        ("collider", "pie", "reconstruction", 1.68),
        ("collider", "m-flow", "distance", 0.0045),
        ("collider", "me-flow", "log_posterior", -1.44),
        ("collider", "m-flow+scandal", "log_posterior", 0.11),
        ("collider", "me-flow+scandal", "distance", 0.029),
    ],
)
def test_published_numbers_are_those_of_the_paper(name, algorithm, metric, value):
    assert EXPERIMENTS[name]().published[algorithm][metric] == value


@pytest.mark.parametrize("name", ["sphere", "lorenz", "image-manifold"])
def test_what_the_paper_does_not_tabulate_has_no_published_numbers(name):
    assert EXPERIMENTS[name]().published == {}


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
        flow = build(VECTORS.with_(dim=2).model_config((3,), kind, 1)).eval()
        flow.initialise(x)
        with torch.no_grad():
            return flow, stranger_score(flow, Surface(), x)

    flow, found = strangeness("manifold-flow")
    torch.testing.assert_close(found, errors(flow, Surface(), x))
    flow, found = strangeness("ambient-flow")
    with torch.no_grad():
        torch.testing.assert_close(found, -flow.log_prob(x, torch.zeros(100, 1)))
    assert errors(flow, Surface(), x).max() < 1e-4
