"""The surrogate of the log-volume, beside the exact one."""

import copy
import math

import pytest
import torch
from laws import COUNT, DIM, FEATURES, PARAMETERS, batch, close, encoder_flow, flow, gradients
from torch import nn

from mfimage import losses
from mfimage.models import log_volume, tangents

pytestmark = pytest.mark.usefixtures("double")


class Inverse(nn.Module):
    """g a small network R² → R⁵ and, to first order about codes u₀, its pseudo-inverse, of the same weights.

    encode(x) = u₀ + J⁺(x − g(u₀)),  J = ∂g/∂u at u₀.
    """

    def __init__(self, scale, codes, holds_still=True):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(DIM, 8), nn.Tanh(), nn.Linear(8, FEATURES))
        self.scale, self.anchor, self.holds_still = scale, codes, holds_still

    def decode(self, u, context=None):
        return self.scale * self.net(u)

    def encode(self, x, context=None):
        j = tangents(self.decode, self.anchor, None)
        middle = self.decode(self.anchor)
        if self.holds_still:  # the code of a point of the manifold stays as the weights move
            middle = middle.detach()
        return self.anchor + (torch.linalg.pinv(j) @ (x - middle)[:, :, None])[:, :, 0]


def orthonormal(count=COUNT):
    """Probes (d, B, d): for each example an orthonormal basis, times √d."""
    return math.sqrt(DIM) * torch.linalg.qr(torch.randn(count, DIM, DIM)).Q.permute(2, 0, 1)


def surrogate_gradients(model, x, probes):
    value = sum(losses.volume_surrogate(model, x, probe).mean() for probe in probes) / DIM
    return gradients(value, model)


def exact_gradients(model, x):
    volume = log_volume(tangents(lambda u: model.decode(u), model.encode(x), None))
    return gradients(volume.mean(), model)


@pytest.mark.parametrize(("scale", "expands"), [(30.0, True), (0.03, False)], ids=["expands", "contracts"])
def test_surrogate_gradients_average_to_those_of_the_volume(scale, expands):
    u, probes = torch.randn(COUNT, DIM), orthonormal()
    model = Inverse(scale, u)
    x = model.decode(u).detach()
    j = tangents(model.decode, u, None)
    for probe in probes:  # the branch meant is the one taken
        assert (((j @ probe[:, :, None]).norm(dim=1)[:, 0] > probe.norm(dim=1)) == expands).all()
    expected = exact_gradients(model, x)
    assert close(surrogate_gradients(model, x, probes), expected)
    assert max(g.abs().max() for g in expected.values()) > 0.1
    alone = gradients(losses.volume_surrogate(model, x, probes[0]).mean(), model)
    assert any(not torch.allclose(alone[n], expected[n], rtol=1e-2) for n in expected)


def test_the_decoder_form_follows_the_codes():
    """Where the codes of x move with the weights, the gradient has their share too."""
    u = torch.randn(COUNT, DIM)
    model = Inverse(30.0, u, holds_still=False)
    x = model.decode(u).detach()
    still = copy.deepcopy(model)
    still.holds_still = True
    expected = exact_gradients(model, x)
    assert close(surrogate_gradients(model, x, orthonormal()), expected)
    other = exact_gradients(still, x)
    assert any(not torch.allclose(expected[n], other[n], rtol=1e-2) for n in expected)


class Diagonal(nn.Module):
    """g(u) = (a·u, 0), e(x) = b·x, with weights of their own."""

    def __init__(self, scales):
        super().__init__()
        self.a, self.b = nn.Parameter(scales.clone()), nn.Parameter(1 / scales)

    def encode(self, x, context=None):
        return self.b * x[:, :DIM]

    def decode(self, u, context=None):
        return nn.functional.pad(self.a * u, (0, FEATURES - DIM))


def test_the_switch_takes_the_decoder_where_it_expands_the_probe_and_the_encoder_elsewhere():
    model, x = Diagonal(torch.tensor([4.0, 0.25])), torch.zeros(2, FEATURES)
    probe = math.sqrt(2) * torch.eye(2)
    value = losses.volume_surrogate(model, x, probe)
    torch.testing.assert_close(value, torch.tensor([2.0, -2.0]))  # ±‖v‖²
    expands, contracts = (gradients(v, model) for v in value)
    torch.testing.assert_close(expands["a"], torch.tensor([2 / 4.0, 0.0]))  # 2·∂ log a₀
    torch.testing.assert_close(contracts["b"], torch.tensor([0.0, -2 * 0.25]))  # −2·∂ log b₁
    assert not expands["b"].any()
    assert not contracts["a"].any()


def test_surrogate_sees_the_parameters():
    model, (x, theta) = flow(PARAMETERS), batch(PARAMETERS)
    probe = torch.randn(COUNT, DIM)
    one, other = (losses.volume_surrogate(model, x, probe, c) for c in (theta, theta + 1))
    found = [gradients(value.mean(), model.chart) for value in (one, other)]
    assert any(not torch.allclose(found[0][n], found[1][n], rtol=1e-2) for n in found[0])


def test_surrogate_gives_gradients_to_the_loss_where_they_are_off():
    model, (x, _) = flow(), batch()
    probe = torch.randn(COUNT, DIM)
    with torch.no_grad():
        off = losses.volume_surrogate(model, x, probe)
    torch.testing.assert_close(off, losses.volume_surrogate(model, x, probe).detach())


@pytest.mark.parametrize("make", [flow, encoder_flow])
def test_free_form_is_error_likelihood_and_surrogate(make):
    model, (x, _) = make(), batch()
    probe = torch.randn(COUNT, DIM)
    value = losses.free_form(model, x, probe, None, 3.0)
    u = model.encode(x)
    rest = (3 * (model.decode(u) - x).square().sum(1) - model.density.log_prob(u)).mean()
    surrogate = losses.volume_surrogate(model, x, probe).mean()
    torch.testing.assert_close(value, rest + surrogate)
    assert close(gradients(value, model), gradients(rest + surrogate, model))
