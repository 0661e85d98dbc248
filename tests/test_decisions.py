import time
from dataclasses import replace

import pytest
import torch
from tiny import TINY, draw_bumps

from mfimage import Config, decisions, load, train
from mfimage.algorithms import ALGORITHMS
from mfimage.augmentation import mirrored, shifted
from mfimage.budget import MEASURING, TimeBudget, shares_of
from mfimage.datasets.points import Points
from mfimage.decisions import DROPOUT, augmentation, choose_dim, decide, weight_decay
from mfimage.errors import UsageError
from mfimage.run import Run

# The second is for other charts, in the place of the first; the last learns classes, where there are some.
_BENT, _, *_REST, _, _ = ALGORITHMS["m-flow"].phases
OF_IMAGES = (_BENT, *_REST)


def bumps(count, seed=0):
    return Points(torch.from_numpy(draw_bumps(count, seed=seed)).float().div(255)[:, None], "bumps")


def lopsided(count, seed=0):
    """Images that are bright on the left, of a few directions that all lie there."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(count, 12, generator=generator)
    shapes = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(99))
    shapes[..., 4:] = 0
    return Points(torch.einsum("nd,dchw->nchw", codes, shapes), "lopsided")


def test_what_is_given_is_not_decided():
    config = replace(TINY, dim=5, flip=True, shift=0.5)
    assert decide(bumps(50), bumps(20, 1), config) == (config, [])


def test_everything_left_open_is_decided_and_said():
    config, said = decide(bumps(400), bumps(100, 1), Config())
    assert None not in (config.dim, config.flip, config.shift, config.time)
    assert config.time == 600
    assert Config().allows(replace(config, noise=0.0))
    assert not Config(model={"dropout": 0.2}).allows(replace(config, noise=0.0))
    assert config.weight_decay == weight_decay(400) == 0.4
    assert config.model == {"dropout": DROPOUT[True]}
    assert config.flip  # bumps are anywhere
    assert config.shift == augmentation(400) == 1.0
    assert [sentence.split()[0] for sentence in said] == ["mirroring", "d", "400"]
    assert said[0].startswith("mirroring helps: on (with mirror images 8 principal components leave ")
    assert f"d = {config.dim}: {config.dim} principal components leave" in said[1]
    assert decide(bumps(400), bumps(100, 1), Config(steps=10))[0].density_steps == 5


def test_few_images_are_learned_with_more_decay_and_dropout():
    decays = [weight_decay(count) for count in (100, 1500, 3000, 60_000)]
    assert decays == [0.4, 0.4, pytest.approx(0.4 / 2 ** (1 / 3), abs=1e-3), 0.117]
    many = decide(bumps(5000), bumps(20, 1), Config(dim=2, flip=False))[0]
    assert (many.shift, many.model["dropout"]) == (0.0, DROPOUT[False])
    given = Config(weight_decay=0.0, model={"dropout": 0.0})
    few = decide(bumps(100), bumps(20, 1), given)[0]
    assert (few.weight_decay, few.model) == (0.0, {"dropout": 0.0})


def test_mirroring_is_off_where_it_does_not_help():
    config, said = decide(lopsided(300), lopsided(100, 1), Config())
    assert not config.flip
    assert any(s.startswith("mirroring does not help: off (with") and "% more of" in s for s in said)


def test_mirroring_may_cost_few_images_a_little(monkeypatch):
    def tilted(count, seed):
        x = bumps(count, seed).x
        return Points(x * torch.linspace(1, 1.05, x.shape[-1]), "tilted")

    config, said = decide(tilted(400, 0), tilted(100, 1), Config())
    assert config.flip
    assert said[0].startswith("mirroring costs little, and 400 images are few: on (with mirror images 8 ")
    assert said[0].endswith("% more of images held out)")
    monkeypatch.setattr(decisions, "FEW", 400)
    config, said = decide(tilted(400, 0), tilted(100, 1), Config())
    assert not config.flip
    assert said[0].startswith("mirroring does not help: off")


def test_parameters_and_vectors_are_never_moved():
    x = bumps(100).x
    with_theta = Points(x, "bumps", torch.rand(100, 1))
    vectors = Points(x.flatten(1), "vectors")
    for data in (with_theta, vectors):
        config, _ = decide(data, data, Config())
        assert (config.flip, config.shift) == (False, 0.0)
    assert decide(vectors, vectors, Config())[0].weight_decay == 0.05
    assert 1 <= decide(vectors, vectors, Config())[0].dim < 64
    assert decide(Points(torch.randn(50, 4), "sphere"), vectors, Config(algorithm="fom"))[0].dim == 3


@pytest.mark.parametrize(
    ("decay", "count", "dim", "why"),
    [
        (0.9, 10_000, 21, "the fewest below 12 %"),
        (0.5, 10_000, 8, "the least that is chosen"),
        (0.99, 10_000, 64, "the most that is chosen"),
        (0.99, 1080, 54, "the most that is chosen for 1,080 images"),
        (0.5, 100, 5, "the most that is chosen for 100 images"),
        (0.9, 10, 1, "the most that is chosen for 10 images"),
    ],
)
def test_d_leaves_an_eighth_of_the_variance_within_bounds(decay, count, dim, why):
    errors = 3.0 * decay ** torch.arange(65.0)
    found, said = choose_dim(errors, count)
    assert found == dim
    assert said.startswith(f"d = {dim}: {dim} principal components leave ")
    assert said.endswith(why)


def test_deciding_takes_seconds_at_64_by_64_in_colour():
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randn(100, 3 * 64 * 64, generator=generator)
    codes = torch.randn(1500, 100, generator=generator) * 0.9 ** torch.arange(100)
    images = Points((codes @ shapes).view(-1, 3, 64, 64), "images")
    began = time.process_time()
    decide(images.subset(slice(1349)), images.subset(slice(1349, None)), Config())
    assert time.process_time() - began < 30  # 3 on a quiet core


def test_images_are_shifted_by_the_pixels_that_are_drawn():
    x = torch.arange(6.0).view(1, 1, 1, 6).expand(2, 1, 5, 6).contiguous()
    draw = torch.tensor([[0.0, 1.0, 0.5, 0.5], [0.9, 1.0, 0.5, 0.5]])
    moved = shifted(x, 1.0, draw)
    torch.testing.assert_close(moved[0, 0, 2], torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 5.0]))
    assert torch.equal(moved[1], x[1])
    half = shifted(x, 0.5, draw)
    torch.testing.assert_close(half[0, 0, 2, :5], x[0, 0, 2, :5] + 0.5)
    zoomed = shifted(x, 10.0, torch.tensor([[0.0, 0.5, 0.5, 1.0]] * 2))
    torch.testing.assert_close(zoomed[0, 0, 2, 2:4], 2.5 + 1.1 * torch.tensor([-0.5, 0.5]))


def test_images_are_mirrored_where_the_number_is_below_a_half():
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(mirrored(x, torch.tensor([0.4, 0.6])), torch.stack([x[0].flip(2), x[1]]))


def test_time_is_shared_and_what_is_left_over_goes_on(tmp_path):
    phases = OF_IMAGES
    shares = shares_of(phases)
    assert sum(shares.values()) + MEASURING == pytest.approx(1)
    assert list(shares) == [phase.name for phase in phases]
    assert shares_of(ALGORITHMS["pie"].phases) == {"likelihood": 0.95}
    clock = iter([0.0, 10.0, 400.0]).__next__
    budget = TimeBudget(1000.0, phases, Run(tmp_path), clock=clock)
    assert budget.grant("manifold") == pytest.approx(990 * shares["manifold"])
    left = shares["density"] + MEASURING
    assert budget.grant("density") == pytest.approx(600 * shares["density"] / left)
    assert budget.grant("manifold") == pytest.approx(990 * shares["manifold"])
    budget.note()
    resumed = TimeBudget(1000.0, phases, Run(tmp_path), clock=lambda: 0.0)
    assert resumed.granted == budget.granted
    longer = TimeBudget(2000.0, phases, Run(tmp_path), clock=lambda: 0.0)
    assert longer.grant("manifold") == pytest.approx(2000 * shares["manifold"])


def test_a_late_phase_still_gets_half_of_its_share(tmp_path):
    clock = iter([0.0, 5000.0]).__next__
    budget = TimeBudget(1000.0, OF_IMAGES, Run(tmp_path), clock=clock)
    assert budget.grant("density") == pytest.approx(1000 * budget.shares["density"] / 2)


def test_a_training_by_the_clock_settles_everything_and_is_reused(tmp_path, capfd):
    from mfimage.training import baseline, train_or_reuse

    data = load(bumps(150).x, "all")
    config = Config(time=3.0, batch_size=32, model=TINY.model)
    began = time.monotonic()
    model = train(data, tmp_path / "run", config, device="cpu")
    assert time.monotonic() - began < 60
    run = Run(tmp_path / "run")
    settled = run.config()
    assert (settled.time, settled.steps, settled.dim) == (3.0, None, model.dim)
    assert isinstance(settled.flip, bool)
    assert len(run.decisions()) == 3
    assert (run.directory / "clock.json").exists()
    assert train_or_reuse(data, tmp_path / "run", config, device="cpu").dim == model.dim
    with pytest.raises(UsageError, match="other settings"):
        train_or_reuse(data, tmp_path / "run", replace(config, time=4.0), device="cpu")
    pca = baseline("pca", tmp_path / "run", data, tmp_path / "pca", device="cpu")
    assert pca.dim == model.dim
    assert Run(tmp_path / "pca").config() == replace(settled, algorithm="pca", noise=0.0)


def test_mirror_images_join_the_principal_components_that_training_starts_from(tmp_path):
    data = lopsided(60)
    config = replace(TINY, steps=0, density_steps=0, dim=4, validation=5)
    plain, both = (
        train(data, tmp_path / str(flip), replace(config, flip=flip), device="cpu") for flip in (False, True)
    )
    with torch.no_grad():
        errors = [(m.project(y) - y).square().sum() for m in (plain, both) for y in (data.x, data.x.flip(3))]
    assert errors[0] < errors[2]
    assert errors[3] < errors[1]
    assert errors[2] == pytest.approx(float(errors[3]), rel=0.05)
