"""A sharper drawing: the same codes and density, another manifold, exact as the first; and its training."""

from dataclasses import replace

import pytest
import torch
from tiny import SHORT, learn
from torch import nn

from mfimage import ModelConfig, build, from_pretrained, load, save_pretrained
from mfimage.algorithms import ALGORITHMS
from mfimage.budget import MEASURING, shares_of
from mfimage.config import Config
from mfimage.errors import ModelError, UsageError
from mfimage.losses import sharpening
from mfimage.models.contest import Contest, Discriminator
from mfimage.training import baseline

SMALL = {"sharp_width": 4, "width": 2, "hidden": 8, "density_steps": 1, "density_width": 8}
SHARP = {
    "colour": ModelConfig((3, 16, 16), 6, sharp=True, near=40, **SMALL),
    "odd": ModelConfig((1, 9, 7), 3, sharp=True, near=6, **SMALL),
    "straight": ModelConfig((1, 8, 8), 2, sharp=True, steps=0, bends=0, **SMALL),
}


def made(config):
    """A model whose networks have random weights, those that sharpen the larger, and images."""
    torch.manual_seed(0)
    model, x = build(config).double(), torch.rand(80, *config.shape, dtype=torch.float64)
    model.initialise(x)
    for part, spread in ((model.sharpener, 0.2), (model.chart.multiscale, 0.1)):
        for weight in part.parameters():
            nn.init.normal_(weight, std=spread)
    return model, x[:3]


@pytest.mark.parametrize("name", SHARP)
def test_codes_stand_still_and_the_chart_stays_a_bijection(name):
    model, x = made(SHARP[name])
    sharp, u = model.sharpened(), model.encode(x)
    drawn = sharp.decode(u)
    assert torch.equal(sharp.encode(x), u)
    assert (drawn - model.decode(u)).abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(model.encode(drawn), u)
    z, ladj = sharp.chart(drawn)
    torch.testing.assert_close(z, nn.functional.pad(u, (0, sharp.chart.features - model.dim)))
    z, ladj = sharp.chart(x)
    back, again = sharp.chart.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(again, -ladj)
    torch.testing.assert_close(sharp.project(drawn), drawn)


@pytest.mark.parametrize("name", SHARP)
def test_the_density_has_the_volume_of_the_sharper_drawing(name):
    model, x = made(SHARP[name])
    sharp, u = model.sharpened(), model.encode(x).detach()

    def volume(code):
        jacobian = torch.autograd.functional.jacobian(lambda v: sharp.decode(v[None]).flatten(), code)
        return torch.linalg.slogdet(jacobian.T @ jacobian)[1] / 2

    expected = model.density.log_prob(u) - torch.stack([volume(code) for code in u])
    torch.testing.assert_close(sharp.log_prob(x), expected)
    assert (sharp.log_prob(x) - model.log_prob(x)).abs().min() > 1e-3


def test_before_training_it_draws_what_the_model_draws():
    model = build(SHARP["colour"])
    model.initialise(torch.rand(80, 3, 16, 16))
    assert torch.equal(model.sharpened().decode(torch.ones(1, 6)), model.decode(torch.ones(1, 6)))


def test_centred_it_leaves_no_picture_in_the_mean():
    model, _ = made(SHARP["colour"])
    x = torch.rand(300, 3, 16, 16, dtype=torch.float64)
    sharp = model.sharpened()

    def left():
        return (x - sharp.project(x)).mean(0).square().sum()

    u, before = sharp.encode(x), left()
    sharp.chart.centre(x)
    assert left() < 0.05 * before
    assert torch.equal(sharp.encode(x), u)
    z, _ = sharp.chart(x[:3])
    torch.testing.assert_close(sharp.chart.inverse(z)[0], x[:3])


def test_samples_and_ways_are_drawn_sharply_unless_it_is_not_wanted(tmp_path):
    model, x = made(SHARP["odd"])
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double()
    u = model.push_forward(noise)

    def drawn(**how):
        return model.sample(2, torch.Generator().manual_seed(0), **how)

    torch.testing.assert_close(drawn(), model.sharpened().decode(u))
    torch.testing.assert_close(drawn(sharp=False), model.decode(u))
    way = model.interpolate(x[0], x[1], 3)
    torch.testing.assert_close(way[[0, -1]], model.sharpened().project(x[:2]))
    save_pretrained(model.float(), tmp_path)
    read = from_pretrained(tmp_path).sample(2, torch.Generator().manual_seed(0))
    assert torch.equal(read, drawn())
    assert "sharpened samples" in repr(model)


def test_who_did_not_learn_it_says_so():
    model = build(ModelConfig((1, 8, 8), 2, **SMALL))
    assert model.shown is model
    for one in (model, build(ModelConfig((1, 8, 8), 2, kind="autoencoder", **SMALL))):
        with pytest.raises(ModelError, match="did not learn to draw sharply: mfimage train --sharp"):
            one.sharpened()
    for impossible in ({"shape": (4,)}, {"kind": "autoencoder"}):
        with pytest.raises(UsageError, match="sharp is true only for"):
            ModelConfig(**{"shape": (1, 8, 8), "dim": 2, "sharp": True, **impossible})


def test_no_weight_is_moved_by_both_sides_of_the_game():
    model, x = made(SHARP["colour"])
    contest = Contest(model.requires_grad_(False)).double().train()
    contest.requires_grad_()
    noise = torch.randn(3, 6, dtype=torch.float64)
    with torch.no_grad():
        u = torch.cat([model.encode(x[:2]), model.push_forward(noise[2:])])
    drawn, judge = model.sharpened().decode(u), contest.discriminator
    error = (drawn[:2] - x[:2]).square().flatten(1).sum(1).mean()
    ours = 3 * error.log() + nn.functional.softplus(-judge(drawn)).mean()
    expected = torch.autograd.grad(ours, list(model.sharpener.parameters()))
    sharpening(contest, x, noise).backward()
    for weight, slope in zip(model.sharpener.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, slope)
    seen = x[:1].clone().requires_grad_()
    (steep,) = torch.autograd.grad(judge(seen).sum(), seen, create_graph=True)
    theirs = nn.functional.softplus(judge(drawn.detach())).mean() + nn.functional.softplus(-judge(x)).mean()
    theirs = theirs + 1e-5 * 768 / 8 * steep.square().sum()
    for weight, slope in zip(
        judge.parameters(), torch.autograd.grad(theirs, list(judge.parameters())), strict=True
    ):
        torch.testing.assert_close(weight.grad, slope)
    assert all(weight.grad is None for weight in model.chart.parameters())
    torch.testing.assert_close(
        sharpening(contest.eval(), x, noise), (model.sharpened().project(x) - x).square().sum() / 3
    )


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 64, 48), (1, 28, 28)])
def test_a_discriminator_of_any_size(shape):
    judge = Discriminator(shape)
    assert judge(torch.rand(2, *shape)).shape == (2,)
    assert sum(weight.numel() for weight in judge.parameters()) < 500_000


def test_a_training_sharpens_last_and_moves_nothing_else(bumps, tmp_path, capsys):
    config = replace(SHORT, sharp=True, model={**SHORT.model, "sharp_width": 2})
    plain = learn(bumps, tmp_path / "plain", SHORT)
    sharp = learn(bumps, tmp_path / "sharp", config, quiet=False)
    assert "(held out squared error " in capsys.readouterr().err
    assert {path.name.split("-")[0] for path in (tmp_path / "sharp/pictures").glob("*.png")} >= {"sharpening"}
    still = {name: weight for name, weight in sharp.state_dict().items() if not name.startswith("sharpener")}
    assert still.keys() == plain.state_dict().keys()
    assert all(torch.equal(weight, plain.state_dict()[name]) for name, weight in still.items())
    assert sharp.sharpener.last.weight.abs().max() > 0
    assert baseline("pca", tmp_path / "sharp", load(bumps, "train"), tmp_path / "pca").sharpener is None
    with pytest.raises(UsageError, match="sharp drawing is not learned by pae"):
        learn(bumps, tmp_path / "pae", replace(config, algorithm="pae", model=SHORT.model))


def test_sharpening_takes_its_time_from_all_phases_alike():
    phases = [phase for phase in ALGORITHMS["m-flow"].phases if phase.name not in ("classes", "refinement")]
    phases = [phases[0], *phases[2:]]  # one that learns the manifold
    shares, without = shares_of(phases), shares_of(phases[:-1])
    assert phases[-1].name == "sharpening"
    assert sum(shares.values()) == pytest.approx(1 - MEASURING)
    assert all(shares[name] == pytest.approx(0.6 * without[name], abs=0.03) for name in without)
    assert Config().sharp is False
