"""What is pushed by hand is what forward-mode autograd pushes."""

import pytest
import torch
from laws import perturb
from torch import nn

from mfimage.models import duals
from mfimage.models.duals import Dual, by_jvp, push
from mfimage.models.encoders import image_decoder
from mfimage.models.nets import MLP, ConvNet, Decoder, Dropout, Encoder, LinearPlus

CLOSE = {"atol": 1e-10, "rtol": 1e-10}


def random_dual(*shape, directions=3):
    torch.manual_seed(1)
    value = torch.randn(2, *shape, dtype=torch.float64)
    return Dual(value, torch.randn(2, directions, *shape, dtype=torch.float64))


def assert_same(found, expected):
    torch.testing.assert_close(found.value, expected.value, **CLOSE)
    torch.testing.assert_close(found.tangent, expected.tangent, **CLOSE)


NETS = {
    "ConvNet": (lambda: ConvNet(2, 4, 6), (2, 4, 4)),
    "MLP": (lambda: MLP(5, 4, 8), (5,)),
    "MLP, dropout": (lambda: MLP(5, 4, 8, 2, 0.5), (5,)),
    "Encoder, odd": (lambda: Encoder((2, 5, 4), 3, 2, 2), (2, 5, 4)),
    "Decoder": (lambda: Decoder(3, (2, 8, 4), 2, 2, 8, 0.5), (3,)),
    "Decoder, odd": (lambda: Decoder(3, (2, 5, 3), 2, 2, 8), (3,)),
    "image decoder": (lambda: image_decoder((1, 5, 6), 3, 2, 2, 8), (3,)),
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
    assert_same(push(net, x), by_jvp(net, x))


def test_a_subclass_is_not_taken_for_its_parent():
    class Odd(nn.SiLU):
        def forward(self, x):
            return x**3

    x = random_dual(3)
    assert type(Odd()) not in duals.RULES
    assert_same(push(Odd(), x), by_jvp(Odd(), x))


def test_torchs_forward_mode_keeps_rows_apart():
    x = random_dual(3)
    pushed = by_jvp(lambda v: v.cumsum(1), x)
    torch.testing.assert_close(pushed.tangent, x.tangent.cumsum(2))


def test_dropout_drops_the_same_of_a_value_and_its_tangents():
    x = push(Dropout(0.5), Dual(torch.ones(2, 50), torch.ones(2, 3, 50)))
    assert set(x.value.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(x.tangent, x.value[:, None].expand(-1, 3, -1))
