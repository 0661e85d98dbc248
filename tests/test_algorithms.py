import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, draw_bumps

from mfimage import Config, ManifoldFlow, build, from_pretrained, train
from mfimage.algorithms import ALGORITHMS, Batch
from mfimage.datasets.points import Points
from mfimage.errors import Interrupted, ModelError, UsageError
from mfimage.eval import PCA
from mfimage.experiments.simulators import Sphere, Surface
from mfimage.models import Prescribed, Spherical, latent_density
from mfimage.pretrained import weights_hash
from mfimage.run import Run
from mfimage.tensors import read_metadata

SHORT = Config(
    dim=2, steps=4, density_steps=4, batch_size=32, lr=3e-3, warmup=2, every=2, validation=20, noise=0.05,
    model={"hidden": 8, "density_steps": 1, "density_width": 8},
)  # fmt: skip
CIRCLE = replace(SHORT, dim=1)
IMAGES = replace(SHORT, steps=2, density_steps=2, model=TINY.model)


@pytest.fixture(scope="module")
def circle():
    return Sphere(1).sample(200, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def surface():
    """Points whose density depends on θ."""
    return Surface().sample(200, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def images():
    return Points(torch.from_numpy(draw_bumps(60)).float().div(255)[:, None], "bumps")


@pytest.fixture(scope="module")
def scored():
    """Numbers around θ on a bent line, and the score of their density N(θ, 1)."""
    generator = torch.Generator().manual_seed(0)
    theta = 2 * torch.rand(400, 1, generator=generator) - 1
    z = theta + torch.randn(400, 1, generator=generator)
    return Points(torch.cat([z, 0.1 * z**2], 1), "scored", theta, z - theta)


def run(data, outdir, settings, algorithm="m-flow", **others):
    return train(data, outdir, replace(settings, algorithm=algorithm), device="cpu", **others)


def curve(directory, phase=None):
    lines = [json.loads(line) for line in (directory / "stats.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]
    return [line for line in kept if phase in (None, line["phase"])]


def named(phases, name):
    return next(phase for phase in phases if phase.name == name)


def watched(directory, phase):
    return [line["validation"] for line in curve(directory, phase) if "validation" in line]


def holds_a_run_of(directory, model, data):
    """Hold that a directory has what a run promises, and that its model is the one given."""
    names = {path.name for path in directory.iterdir()}
    assert {"config.json", "command.txt", "environment.json", "data.json", "model"} <= names
    assert json.loads((directory / "data.json").read_text())["sha256"] == data.summary()["sha256"]
    again = from_pretrained(directory)
    x, theta = data.x[:6], None if data.theta is None else data.theta[:6]
    with torch.no_grad():
        found = model.log_prob(x, theta)
        assert found.shape == (6,)
        assert found.isfinite().all()
        assert torch.equal(again.log_prob(x, theta), found)
        assert torch.equal(again.project(x, theta), model.project(x, theta))
    first, second = (m.sample(6, torch.Generator().manual_seed(1), context=theta) for m in (model, again))
    assert first.shape == x.shape
    assert first.isfinite().all()
    assert torch.equal(first, second)
    return True


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_learns_vectors(circle, tmp_path, algorithm):
    model = run(circle, tmp_path / "run", CIRCLE, algorithm)
    assert model.config.kind == ALGORITHMS[algorithm].kind
    assert holds_a_run_of(tmp_path / "run", model, circle)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "fom"])
def test_every_algorithm_learns_vectors_with_parameters(surface, tmp_path, algorithm):
    model = run(surface, tmp_path / "run", SHORT, algorithm)
    assert model.conditional == (algorithm != "pca")
    assert holds_a_run_of(tmp_path / "run", model, surface)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "fom"])
def test_every_algorithm_learns_images(images, tmp_path, algorithm):
    model = run(images, tmp_path / "run", IMAGES, algorithm)
    assert holds_a_run_of(tmp_path / "run", model, images)
    assert (tmp_path / "run" / "pictures").is_dir() == (algorithm != "pca")


@pytest.mark.parametrize("algorithm", ["pie", "m-flow-a", "af"])
def test_a_chart_may_see_the_parameters(surface, tmp_path, algorithm):
    settings = replace(SHORT, model={**SHORT.model, "chart_context": True})
    model = run(surface, tmp_path / "run", settings, algorithm)
    assert holds_a_run_of(tmp_path / "run", model, surface)


def test_a_chart_that_sees_the_parameters_depends_on_them(surface, tmp_path):
    model = run(surface, tmp_path / "run", replace(SHORT, model={**SHORT.model, "chart_context": True}))
    assert holds_a_run_of(tmp_path / "run", model, surface)
    low, high = (torch.full((20, 1), theta) for theta in (-1.0, 1.0))
    with torch.no_grad():
        assert not torch.allclose(model.encode(surface.x[:20], low), model.encode(surface.x[:20], high))


@pytest.mark.parametrize("algorithm", ["me-flow", "pae", "fom"])
def test_settings_that_do_not_fit_the_data_are_told_before_a_run_begins(surface, images, tmp_path, algorithm):
    settings = replace(SHORT, model={**SHORT.model, "chart_context": True})
    with pytest.raises(UsageError, match=r"chart_context|sphere"):
        run(images if algorithm == "fom" else surface, tmp_path / "run", settings, algorithm)
    assert not (tmp_path / "run").exists()


def test_pca_needs_no_steps_and_is_pca(images, tmp_path):
    model = run(images, tmp_path / "run", IMAGES, "pca")
    assert not (tmp_path / "run" / "stats.jsonl").exists()
    training = torch.cat([images.x, images.x.flip(3)])
    held_out = set(
        torch.randperm(60, generator=torch.Generator().manual_seed(IMAGES.seed))[:6].tolist()
    )  # a tenth
    seen = images.x[[i for i in range(60) if i not in held_out]]
    with torch.no_grad():
        torch.testing.assert_close(
            model.project(training), PCA.fit(seen, 2).project(training), atol=1e-5, rtol=0
        )
        codes = model.encode(seen)
    normal = torch.distributions.Normal(codes.mean(0), codes.std(0, unbiased=False))
    expected = normal.log_prob(codes).sum(1)
    torch.testing.assert_close(model.log_prob(seen).float(), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("algorithm", ["denoising", "free-form"])
def test_a_resumed_run_equals_an_unbroken_one_although_its_batches_are_random(
    circle, tmp_path, monkeypatch, algorithm
):
    whole = run(circle, tmp_path / "whole", CIRCLE, algorithm)
    scalars, phase = Run.scalars, ALGORITHMS[algorithm].phases[0].name

    def interrupt(run, phase, step, values):
        scalars(run, phase, step, values)
        if step == 2:
            raise Interrupted(2, "saved step 2")

    monkeypatch.setattr(Run, "scalars", interrupt)
    with pytest.raises(Interrupted):
        run(circle, tmp_path / "broken", CIRCLE, algorithm)
    monkeypatch.undo()
    assert [line["step"] for line in curve(tmp_path / "broken")] == [2]
    resumed = train(circle, tmp_path / "broken", resume=True, device="cpu")
    assert weights_hash(resumed) == weights_hash(whole)
    assert curve(tmp_path / "broken") == curve(tmp_path / "whole")
    assert len(watched(tmp_path / "whole", phase)) == 2


def test_a_part_that_wakes_up_in_its_phase_sleeps_before(images, tmp_path, monkeypatch):
    def woken(model):
        return model.chart.requires_grad_()

    phases = ALGORITHMS["m-flow"].phases
    late = replace(named(phases, "refinement"), name="late", part=woken)
    monkeypatch.setitem(ALGORITHMS, "m-flow", replace(ALGORITHMS["m-flow"], phases=(*phases, late)))
    model = build(replace(IMAGES, noise=0.0).model_config((1, 8, 8)), 0)
    model.chart.requires_grad_(False)
    train(images, tmp_path / "run", IMAGES, model=model, device="cpu")
    lines = [line["phase"] for line in curve(tmp_path / "run")]
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
        run(circle, tmp_path / f"{len(seen)}", replace(CIRCLE, seed=seed, steps=2), "m-flow-ot")
    assert [n.shape for n in seen] == [(32, 1)] * 6
    assert torch.equal(torch.stack(seen[:2]), torch.stack(seen[2:4]))
    different = [seen[0], seen[1], seen[4], seen[5]]
    assert not any(torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_scandal_changes_the_density_phase_where_there_are_scores(scored, tmp_path):
    settings = replace(CIRCLE, every=6)
    plain, with_score = (
        run(scored, tmp_path / f"scored-{weight}", replace(settings, scandal=weight)) for weight in (0.0, 2.0)
    )
    assert weights_hash(plain.chart) == weights_hash(with_score.chart)
    assert weights_hash(plain.density) != weights_hash(with_score.density)


@pytest.mark.parametrize("without", [{"score": None}, {"score": None, "theta": None}])
def test_scandal_without_scores_is_refused(scored, tmp_path, without):
    with pytest.raises(UsageError, match="joint score of a simulator"):
        run(replace(scored, **without), tmp_path / "run", replace(CIRCLE, scandal=2.0))


@pytest.mark.parametrize("algorithm", ["m-flow-a", "denoising", "pca"])
def test_an_objective_that_does_not_know_the_score_says_so(scored, tmp_path, algorithm):
    with pytest.raises(UsageError, match="does not know the score"):
        run(scored, tmp_path / "run", replace(CIRCLE, scandal=2.0), algorithm)


@pytest.mark.parametrize("algorithm", ["m-flow", "af", "denoising"])
def test_images_may_have_parameters(images, tmp_path, algorithm):
    x = images.batch(slice(None))
    theta = torch.linspace(-1, 1, len(x))[:, None]
    model = run(Points(x, "bumps", theta), tmp_path / "run", IMAGES, algorithm)
    assert model.sample(2, context=theta[:1]).shape == (2, *model.shape)
    assert (tmp_path / "run" / "pictures").is_dir()


def test_images_of_odd_sides_have_a_density_on_the_whole_space(tmp_path):
    odd = Points(torch.rand(60, 1, 9, 7, generator=torch.Generator().manual_seed(0)), "odd")
    assert holds_a_run_of(tmp_path / "run", run(odd, tmp_path / "run", IMAGES, "pie"), odd)


def test_scandal_learns_the_score(scored, tmp_path):
    settings = replace(CIRCLE, steps=0, density_steps=100, every=100, density_lr=1e-2, warmup=10)
    errors = []
    for weight in (0.0, 10.0):
        model = run(scored, tmp_path / f"{weight}", replace(settings, scandal=weight))
        theta = scored.theta.clone().requires_grad_()
        codes = model.encode(scored.x).detach()
        (score,) = torch.autograd.grad(model.density.log_prob(codes, theta).sum(), theta)
        errors.append(float((score - scored.score).square().mean()))
    assert errors[1] < 0.7 * errors[0]
    assert errors[1] < 0.5  # that of no score at all is 1


@pytest.mark.parametrize("algorithm", ["m-flow", "me-flow"])
def test_a_range_of_noise_makes_a_chart_that_shrinks_it(images, tmp_path, algorithm):
    settings = replace(IMAGES, noise=(0.1, 0.5), every=1)
    model = run(images, tmp_path / "run", settings, algorithm)
    assert model.noise_aware
    assert holds_a_run_of(tmp_path / "run", model, images)
    seen = [b.x - b.clean for b in disturbed_batches(images, settings, algorithm)]
    deviations = torch.cat([s.flatten(1).std(1) for s in seen])
    assert 0.07 < deviations.min() < 0.15
    assert 0.4 < deviations.max() < 0.6
    stored = from_pretrained(tmp_path / "run")
    y, sigma = images.x[:5] + 0.1, torch.full((5,), 0.1)
    with torch.no_grad():
        assert torch.equal(stored.chart.shrink(y, sigma), model.chart.shrink(y, sigma))


@pytest.mark.parametrize("algorithm", ["m-flow", "me-flow"])
def test_learning_to_remove_noise_leaves_the_chart_alone(images, tmp_path, algorithm):
    plain, aware = (
        run(images, tmp_path / f"{noise}", replace(IMAGES, noise=noise), algorithm)
        for noise in (0.0, (0.0, 0.5))
    )
    with torch.no_grad():
        assert torch.equal(plain.encode(images.x), aware.encode(images.x))
        assert torch.equal(plain.project(images.x), aware.project(images.x))
    learned = ["manifold", "refinement"] if algorithm == "m-flow" else ["manifold"]
    assert [line["phase"] for line in curve(tmp_path / "0.0")] == [*learned, "density"]
    assert [line["phase"] for line in curve(tmp_path / "(0.0, 0.5)")] == [*learned, "noise", "density"]


def test_charts_of_images_learn_to_remove_noise_without_being_told(images, circle, tmp_path):
    settings = replace(IMAGES, noise=None)
    assert run(images, tmp_path / "images", settings).noise_aware
    assert Run(tmp_path / "images").config().noise == (0.0, 0.5)
    assert not run(images, tmp_path / "pca", settings, "pca").noise_aware
    assert not run(circle, tmp_path / "circle", replace(CIRCLE, noise=None)).noise_aware
    assert Run(tmp_path / "circle").config().noise == 0.0


def test_gains_start_from_the_coordinates_of_the_trained_chart(images, tmp_path):
    settings = replace(IMAGES, noise=(0.0, 0.5), lr=0.05, steps=6, every=6)
    run(images, tmp_path / "run", settings)
    start = load_file(tmp_path / "run" / "checkpoints" / "noise-00000000.safetensors")
    level = next(value for name, value in start.items() if name.endswith("gains.level"))
    model = from_pretrained(tmp_path / "run")
    order = torch.randperm(60, generator=torch.Generator().manual_seed(settings.seed))
    with torch.no_grad():
        power = model.chart(images.x[order[6:].sort().values])[0].square().mean(0)
    torch.testing.assert_close(level.exp(), power.clamp_min(1e-6), rtol=1e-3, atol=1e-6)


def test_a_chart_without_networks_starts_from_the_data_too(images, tmp_path):
    straight = {**IMAGES.model, "steps": 0, "bends": 0}
    model = run(images, tmp_path / "run", replace(IMAGES, noise=0.0, model=straight))
    assert float((model.project(images.x) - images.x).square().mean()) < 0.5 * float(images.x.var(0).mean())


def disturbed_batches(data, settings, algorithm):
    phase, generator = named(ALGORITHMS[algorithm].phases, "noise"), torch.Generator().manual_seed(0)
    return [phase.disturb(Batch(data.x), settings, generator, 2) for _ in range(3)]


def test_a_resumed_noise_aware_run_equals_an_unbroken_one(images, tmp_path, monkeypatch):
    settings = replace(IMAGES, noise=(0.0, 0.5), steps=4)
    whole = run(images, tmp_path / "whole", settings)
    broken, scalars = tmp_path / "broken", Run.scalars

    def interrupt(run, phase, step, values):
        scalars(run, phase, step, values)
        if step == 2:
            raise Interrupted(2, "saved step 2")

    monkeypatch.setattr(Run, "scalars", interrupt)
    with pytest.raises(Interrupted):
        run(images, broken, settings)
    monkeypatch.undo()
    again = train(images, broken, resume=True, device="cpu")
    assert weights_hash(again) == weights_hash(whole)
    assert again.measured == whole.measured


@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if a not in ("m-flow", "me-flow")])
def test_a_range_of_noise_is_for_those_whose_chart_can_shrink_it(algorithm):
    with pytest.raises(UsageError, match="a range of noise is for m-flow and me-flow"):
        Config(algorithm=algorithm, noise=(0.0, 0.5))


def test_a_range_of_noise_is_for_images(circle, tmp_path):
    with pytest.raises(UsageError, match="a range of noise"):
        run(circle, tmp_path / "run", replace(CIRCLE, noise=(0.0, 0.5)))


def own():
    """A circle of the user's own making, with a density on it."""
    return ManifoldFlow(Prescribed(Spherical(1), 1, 2), latent_density(1, 1, 8), (2,))


@pytest.mark.parametrize("algorithm", ["fom", "m-flow"])
def test_a_model_put_together_by_hand_is_trained_and_its_weights_are_saved(circle, tmp_path, algorithm):
    model = own()
    trained = run(circle, tmp_path / "run", CIRCLE, algorithm, model=model)
    assert trained is model
    assert [path.name for path in (tmp_path / "run" / "model").iterdir()] == ["model.safetensors"]
    assert {line["phase"] for line in curve(tmp_path / "run")} == {"density"}
    again = own()
    again.load_state_dict(load_file(tmp_path / "run" / "model" / "model.safetensors"))
    assert weights_hash(again) == weights_hash(trained)
    with pytest.raises(ModelError, match="only the weights of a model put together by hand"):
        from_pretrained(tmp_path / "run")


def test_a_run_of_a_model_put_together_by_hand_is_resumed(circle, tmp_path):
    whole = run(circle, tmp_path / "run", CIRCLE, "fom", model=own())
    torch.manual_seed(5)
    assert weights_hash(train(circle, tmp_path / "run", model=own(), resume=True)) == weights_hash(whole)


def test_a_model_that_build_made_is_saved_whole(circle, tmp_path):
    model = build(CIRCLE.model_config((2,)), seed=7)
    holds_a_run_of(tmp_path / "run", run(circle, tmp_path / "run", CIRCLE, model=model), circle)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "pca"])
def test_training_lowers_every_loss(circle, scored, tmp_path, algorithm):
    straight = algorithm.endswith("-a")  # while a chart unrolls a circle, the entropy of its codes grows
    settings = replace(CIRCLE, steps=20, density_steps=20, every=20, lr=1e-2, density_lr=1e-2, batch_size=64)
    run(scored if straight else circle, tmp_path / "run", settings, algorithm)
    for phase in ALGORITHMS[algorithm].phases:
        if phase.name in ("noise", "refinement"):  # of images
            continue
        start = tmp_path / "run" / "checkpoints" / f"{phase.name}-00000000.safetensors"
        before = json.loads(read_metadata(start)["progress"])["best"]
        (after,) = watched(tmp_path / "run", phase.name)
        assert after < before - 1e-3


@pytest.mark.parametrize("algorithm", ["m-flow", "af"])
def test_samples_follow_the_parameters(scored, tmp_path, algorithm):
    settings = replace(CIRCLE, steps=60, density_steps=60, every=60, lr=5e-3, density_lr=1e-2, warmup=10)
    model = run(scored, tmp_path / "run", settings, algorithm)
    low, high = (
        model.sample(500, torch.Generator().manual_seed(0), context=torch.tensor([[theta]]))[:, 0].mean()
        for theta in (-1.0, 1.0)
    )
    assert high - low > 1.0  # the truth is 2


def test_each_sample_has_the_parameters_of_its_own(scored, tmp_path):
    model = run(scored, tmp_path / "run", CIRCLE)
    theta = torch.tensor([[-1.0], [0.0], [1.0]])
    together = model.sample(3, torch.Generator().manual_seed(0), context=theta)
    for i, row in enumerate(theta):
        alone = model.sample(3, torch.Generator().manual_seed(0), context=row[None])
        torch.testing.assert_close(together[i], alone[i])
