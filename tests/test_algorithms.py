"""What each algorithm builds and learns, of vectors and of images, with parameters and without."""

import json
from dataclasses import replace

import pytest
import torch
from tiny import TINY, VECTORS, broken_off, curve, learn, learned, model_weights, watched

from mfimage import ManifoldFlow, build, from_pretrained
from mfimage.algorithms import ALGORITHMS
from mfimage.datasets.points import Points
from mfimage.errors import Interrupted, ModelError, UsageError
from mfimage.eval import PCA
from mfimage.models import Prescribed, Spherical, latent_density
from mfimage.pretrained import weights_hash
from mfimage.tensors import read_metadata

CIRCLE = replace(VECTORS, noise=0.05)
SURFACE = replace(CIRCLE, dim=2)
SEEING = replace(SURFACE, model={**SURFACE.model, "chart_context": True})
IMAGES = replace(SURFACE, steps=2, density_steps=2, model=TINY.model)
BUT_FOM = [name for name in ALGORITHMS if name != "fom"]  # which is for points on a sphere


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_learns_vectors(circle, tmp_path, algorithm):
    model = learned(circle, tmp_path / "run", CIRCLE, algorithm)
    assert model.config.kind == ALGORITHMS[algorithm].kind


@pytest.mark.parametrize("algorithm", BUT_FOM)
def test_every_algorithm_learns_vectors_with_parameters(surface, tmp_path, algorithm):
    model = learned(surface, tmp_path / "run", SURFACE, algorithm)
    assert model.conditional == (algorithm != "pca")


@pytest.mark.parametrize("algorithm", BUT_FOM)
def test_every_algorithm_learns_images(images, tmp_path, algorithm):
    assert learned(images, tmp_path / "run", IMAGES, algorithm)
    assert (tmp_path / "run" / "pictures").is_dir() == (algorithm != "pca")


@pytest.mark.parametrize("algorithm", ["pie", "m-flow-a", "af"])
def test_a_chart_may_see_the_parameters(surface, tmp_path, algorithm):
    assert learned(surface, tmp_path / "run", SEEING, algorithm)


def test_a_chart_that_sees_the_parameters_depends_on_them(surface, tmp_path):
    model = learned(surface, tmp_path / "run", SEEING)
    low, high = (torch.full((20, 1), theta) for theta in (-1.0, 1.0))
    with torch.no_grad():
        assert not torch.allclose(model.encode(surface.x[:20], low), model.encode(surface.x[:20], high))


@pytest.mark.parametrize("algorithm", ["me-flow", "pae", "fom"])
def test_settings_that_do_not_fit_the_data_are_told_before_a_run_begins(surface, images, tmp_path, algorithm):
    with pytest.raises(UsageError, match=r"chart_context|sphere"):
        learn(images if algorithm == "fom" else surface, tmp_path / "run", SEEING, algorithm)
    assert not (tmp_path / "run").exists()


def test_pca_needs_no_steps_and_is_pca(images, tmp_path):
    model = learn(images, tmp_path / "run", IMAGES, "pca")
    assert not (tmp_path / "run" / "stats.jsonl").exists()
    training = torch.cat([images.x, images.x.flip(3)])
    order = torch.randperm(60, generator=torch.Generator().manual_seed(IMAGES.seed))
    seen = images.x[order[6:].sort().values]  # a tenth is held out
    with torch.no_grad():
        expected = PCA.fit(seen, 2).project(training)
        torch.testing.assert_close(model.project(training), expected, atol=1e-5, rtol=0)
        codes = model.encode(seen)
    normal = torch.distributions.Normal(codes.mean(0), codes.std(0, unbiased=False))
    expected = normal.log_prob(codes).sum(1)
    torch.testing.assert_close(model.log_prob(seen).float(), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("algorithm", ["denoising", "free-form"])
def test_a_resumed_run_equals_an_unbroken_one_although_its_batches_are_random(circle, tmp_path, algorithm):
    whole = learn(circle, tmp_path / "whole", CIRCLE, algorithm)
    with broken_off(2, error=Interrupted(2, "saved step 2")):
        learn(circle, tmp_path / "broken", CIRCLE, algorithm)
    assert [line["step"] for line in curve(tmp_path / "broken")] == [2]
    resumed = learn(circle, tmp_path / "broken", resume=True)
    assert weights_hash(resumed) == weights_hash(whole)
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")
    assert len(watched(tmp_path / "whole", ALGORITHMS[algorithm].phases[0].name)) == 2


def test_a_part_that_wakes_up_in_its_phase_sleeps_before(images, tmp_path, monkeypatch):
    def woken(model):
        return model.chart.requires_grad_()

    phases = {phase.name: phase for phase in ALGORITHMS["m-flow"].phases}
    late = replace(phases["refinement"], name="late", part=woken)
    algorithm = replace(ALGORITHMS["m-flow"], phases=(*phases.values(), late))
    monkeypatch.setitem(ALGORITHMS, "m-flow", algorithm)
    model = build(replace(IMAGES, noise=0.0).model_config((1, 8, 8)), 0)
    model.chart.requires_grad_(False)
    learn(images, tmp_path, IMAGES, model=model)
    lines = [line["phase"] for line in curve(tmp_path)]
    assert "late" in lines
    assert not {"manifold", "refinement"} & set(lines)


def test_random_numbers_differ_by_step_and_by_seed(circle, tmp_path, monkeypatch):
    from mfimage import losses

    exact, seen = losses.sinkhorn, []

    def note(model, x, noise, context):
        seen.append(noise) if torch.is_grad_enabled() else None
        return exact(model, x, noise, context)

    monkeypatch.setattr(losses, "sinkhorn", note)
    for seed in (0, 0, 1):
        learn(circle, tmp_path / f"{len(seen)}", replace(CIRCLE, seed=seed, steps=2), "m-flow-ot")
    assert [n.shape for n in seen] == [(32, 1)] * 6
    assert torch.equal(torch.stack(seen[:2]), torch.stack(seen[2:4]))
    different = [seen[0], seen[1], seen[4], seen[5]]
    assert not any(torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


@pytest.mark.parametrize("algorithm", ["m-flow", "af", "denoising"])
def test_images_may_have_parameters(images, tmp_path, algorithm):
    x = images.batch(slice(None))
    theta = torch.linspace(-1, 1, len(x))[:, None]
    model = learn(Points(x, "bumps", theta), tmp_path / "run", IMAGES, algorithm)
    assert model.sample(2, context=theta[:1]).shape == (2, *model.shape)
    assert (tmp_path / "run" / "pictures").is_dir()


def test_images_of_odd_sides_have_a_density_on_the_whole_space(tmp_path):
    odd = Points(torch.rand(60, 1, 9, 7, generator=torch.Generator().manual_seed(0)), "odd")
    assert learned(odd, tmp_path / "run", IMAGES, "pie")


def test_a_chart_without_networks_starts_from_the_data_too(images, tmp_path):
    straight = {**IMAGES.model, "steps": 0, "bends": 0}
    model = learn(images, tmp_path, replace(IMAGES, noise=0.0, model=straight))
    error = (model.project(images.x) - images.x).square().mean()
    assert float(error) < 0.5 * float(images.x.var(0).mean())


def own():
    """A circle of the user's own making, with a density on it."""
    return ManifoldFlow(Prescribed(Spherical(1), 1, 2), latent_density(1, 1, 8), (2,))


@pytest.mark.parametrize("algorithm", ["fom", "m-flow"])
def test_a_model_put_together_by_hand_is_trained_and_its_weights_are_saved(circle, tmp_path, algorithm):
    model = own()
    trained = learn(circle, tmp_path / "run", CIRCLE, algorithm, model=model)
    assert trained is model
    assert [path.name for path in (tmp_path / "run" / "model").iterdir()] == ["model.safetensors"]
    assert {line["phase"] for line in curve(tmp_path / "run")} == {"density"}
    again = own()
    again.load_state_dict(model_weights(tmp_path / "run"))
    assert weights_hash(again) == weights_hash(trained)
    with pytest.raises(ModelError, match="only the weights of a model put together by hand"):
        from_pretrained(tmp_path / "run")


def test_a_run_of_a_model_put_together_by_hand_is_resumed(circle, tmp_path):
    whole = learn(circle, tmp_path / "run", CIRCLE, "fom", model=own())
    torch.manual_seed(5)
    assert weights_hash(learn(circle, tmp_path / "run", model=own(), resume=True)) == weights_hash(whole)


def test_a_model_that_build_made_is_saved_whole(circle, tmp_path):
    model = build(CIRCLE.model_config((2,)), seed=7)
    assert learned(circle, tmp_path / "run", CIRCLE, model=model) is model


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "pca"])
def test_training_lowers_every_loss(circle, scored, tmp_path, algorithm):
    straight = algorithm.endswith("-a")  # while a chart unrolls a circle, the entropy of its codes grows
    settings = replace(CIRCLE, steps=20, density_steps=20, every=20, lr=1e-2, density_lr=1e-2, batch_size=64)
    learn(scored if straight else circle, tmp_path / "run", settings, algorithm)
    for phase in ALGORITHMS[algorithm].phases:
        if phase.name in ("noise", "refinement", "classes", "sharpening"):  # of images
            continue
        start = tmp_path / "run" / "checkpoints" / f"{phase.name}-00000000.safetensors"
        before = json.loads(read_metadata(start)["progress"])["best"]
        (after,) = watched(tmp_path / "run", phase.name)
        assert after < before - 1e-3


@pytest.mark.parametrize("algorithm", ["m-flow", "af"])
def test_samples_follow_the_parameters(scored, tmp_path, algorithm):
    settings = replace(CIRCLE, steps=60, density_steps=60, every=60, lr=5e-3, density_lr=1e-2, warmup=10)
    model = learn(scored, tmp_path / "run", settings, algorithm)
    low, high = (
        model.sample(500, torch.Generator().manual_seed(0), context=torch.tensor([[theta]]))[:, 0].mean()
        for theta in (-1.0, 1.0)
    )
    assert high - low > 1.0  # the truth is 2


def test_each_sample_has_the_parameters_of_its_own(scored, tmp_path):
    model = learn(scored, tmp_path / "run", CIRCLE)
    theta = torch.tensor([[-1.0], [0.0], [1.0]])
    together = model.sample(3, torch.Generator().manual_seed(0), context=theta)
    for i, row in enumerate(theta):
        alone = model.sample(3, torch.Generator().manual_seed(0), context=row[None])
        torch.testing.assert_close(together[i], alone[i])
