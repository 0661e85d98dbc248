"""What is pushed by hand is what forward-mode autograd pushes."""

import pytest
import torch
from laws import jacobians, perturb
from torch import nn

from mfimage.config import ModelConfig
from mfimage.models import duals
from mfimage.models.build import build
from mfimage.models.duals import Dual, back_through, by_jvp, decoded, through
from mfimage.models.encoders import LinearPlus
from mfimage.models.nets import MLP, ConvNet, Decoder, Encoder

CLOSE = {"atol": 1e-10, "rtol": 1e-10}
MODELS = {
    "image": ModelConfig((1, 8, 8), 3, width=2, hidden=8),
    "padded": ModelConfig((1, 6, 7), 3, width=2, hidden=8),
    "colour, levels": ModelConfig((3, 8, 8), 4, ((1, 1), (1, 2)), 0.5, 2, 8, 2),
    "no coupling": ModelConfig((1, 8, 8), 3, ((2, 0),), width=2, hidden=8),
    "noise-aware": ModelConfig((1, 8, 8), 3, ((1, 2), (1, 1)), width=2, hidden=8, noise_aware=True),
    "vectors": ModelConfig((7,), 3, hidden=8, bends=2),
    "vectors, parameters": ModelConfig((6,), 2, hidden=8, context=2, chart_context=True),
    "encoder": ModelConfig((1, 8, 8), 3, width=2, hidden=8, kind="encoder-flow"),
    "autoencoder": ModelConfig((3, 8, 8), 3, width=2, hidden=8, kind="autoencoder"),
    "autoencoder of vectors": ModelConfig((5,), 2, hidden=8, kind="autoencoder"),
    "straight": ModelConfig((1, 8, 8), 3, kind="linear"),
    "sphere": ModelConfig((4,), 3, kind="sphere"),
}


def made(config):
    torch.manual_seed(0)
    model = build(config).double()
    x = torch.rand(60, *config.shape, dtype=torch.float64)
    theta = torch.randn(60, config.context, dtype=torch.float64) if config.context else None
    model.initialise(x, theta)
    perturb(model, 0.5)
    theta = None if theta is None else theta[:2]
    return model, model.encode(x[:2], theta).detach(), theta


def random_dual(*shape, directions=3):
    torch.manual_seed(1)
    value = torch.randn(2, *shape, dtype=torch.float64)
    return Dual(value, torch.randn(2, directions, *shape, dtype=torch.float64))


def assert_same(found, expected):
    torch.testing.assert_close(found.value, expected.value, **CLOSE)
    torch.testing.assert_close(found.tangent, expected.tangent, **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_every_decoder(name):
    model, u, theta = made(MODELS[name])
    directions = torch.randn(2, 4, model.dim, dtype=torch.float64)
    found = decoded(model.chart, Dual(u, directions), theta)
    expected = jacobians(lambda v, c: model.decode(v, c), u, theta)
    torch.testing.assert_close(found.value, model.decode(u, theta), **CLOSE)
    torch.testing.assert_close(found.tangent.flatten(2), directions @ expected.mT, **CLOSE)
    assert expected.abs().max() > 1e-2


@pytest.mark.parametrize("name", MODELS)
def test_turning_leaves_lengths_and_angles(name):
    model, u, theta = made(MODELS[name])
    directions = torch.eye(model.dim, dtype=torch.float64).expand(2, -1, -1)
    plain, turned = (
        decoded(model.chart, Dual(u, directions), theta, turned).tangent.flatten(2)
        for turned in (False, True)
    )
    torch.testing.assert_close(turned @ turned.mT, plain @ plain.mT, **CLOSE)


def test_turning_spares_the_last_wavelets_where_nothing_is_cropped():
    for name, spared in {"image": True, "padded": False}.items():
        model, u, _ = made(MODELS[name])
        dual = Dual(u, torch.eye(model.dim, dtype=torch.float64).expand(2, -1, -1))
        assert (decoded(model.chart, dual, turned=True).value.shape[1:] != model.shape) is spared


NETS = {
    "ConvNet": (lambda: ConvNet(2, 4, 6), (2, 4, 4)),
    "MLP": (lambda: MLP(5, 4, 8), (5,)),
    "Encoder": (lambda: Encoder((2, 4, 4), 3, 2, 8), (2, 4, 4)),
    "Decoder, odd": (lambda: Decoder(3, (2, 5, 3), 2, 8), (3,)),
    "LinearPlus": (lambda: LinearPlus(5, 2, MLP(5, 2, 8)), (5,)),
    "grouped, dilated": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)),
        (4, 5, 5),
    ),
    "circular": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (2, 4, 4)),
    "no rule": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.LayerNorm(4)), (4,)),
}


@pytest.mark.parametrize("name", NETS)
def test_every_network(name):
    torch.manual_seed(0)
    make, shape = NETS[name]
    net = perturb(make().double())
    x = random_dual(*shape)
    assert_same(through(net, x), by_jvp(net, x))


def test_a_transform_without_a_rule_is_inverted_by_jvp():
    from mfimage.models.layers import ActNorm

    norm = perturb(ActNorm(3).double())
    z = random_dual(3)
    assert_same(back_through(norm, z), by_jvp(lambda value: norm.inverse(value)[0], z))


def test_a_subclass_is_not_taken_for_its_parent():
    class Odd(nn.SiLU):
        def forward(self, x):
            return x**3

    x = random_dual(3)
    assert type(Odd()) not in duals.NETS
    assert_same(through(Odd(), x), by_jvp(Odd(), x))


def test_the_generic_way_keeps_rows_apart():
    x = random_dual(3)
    pushed = by_jvp(lambda v: v.cumsum(1), x)
    torch.testing.assert_close(pushed.tangent, x.tangent.cumsum(2))
