import copy
import math

import pytest
import torch
from laws import jacobians, perturb
from nflows.transforms import Transform
from torch import nn

from mfimage import ModelConfig, build, losses
from mfimage.models import (
    PIE,
    AmbientFlow,
    Density,
    EncodedChart,
    Manifold,
    ManifoldFlow,
    VectorChart,
    latent_density,
    log_volume,
    tangents,
)
from mfimage.models.encoders import vector_net
from mfimage.models.layers import ActNorm

FEATURES, DIM, PARAMETERS, COUNT = 5, 2, 2, 6


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def flow(given=0):
    chart, h = VectorChart(FEATURES, DIM, 8, 1, given), latent_density(DIM, 1, 8, 4, context=given)
    return perturb(ManifoldFlow(chart, h, (FEATURES,)), 0.3)


def encoder_flow(given=0):
    chart = EncodedChart(vector_net(FEATURES, DIM, 8), VectorChart(FEATURES, DIM, 8, 1))
    return perturb(ManifoldFlow(chart, latent_density(DIM, 1, 8, 4, context=given), (FEATURES,)), 0.3)


def pie(given=0):
    chart, h = VectorChart(FEATURES, DIM, 8, 1, given), latent_density(DIM, 1, 8, 4, context=given)
    return perturb(PIE(chart, h, (FEATURES,), 0.5), 0.3)


def batch(given=0):
    x = torch.randn(COUNT, FEATURES)
    return x, torch.randn(COUNT, given) if given else None


def gradients(value, module):
    """By parameters' names; zero where the value does not depend on one."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return {
        n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)
    }


def close(found, expected, atol=1e-10):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], atol=atol, rtol=1e-8, msg=lambda m, n=name: n + m
        )
    return True


def agrees_with_finite_differences(loss, module, step=1e-5):
    """Each parameter on its own, along a random direction."""
    found = gradients(loss(), module)
    for name, p in module.named_parameters():
        if not p.numel():
            continue
        along, start, sides = torch.randn_like(p), p.detach().clone(), []
        for sign in (1, -1):
            with torch.no_grad():
                p.copy_(start + sign * step * along)
            sides.append(loss().detach())
        with torch.no_grad():
            p.copy_(start)
        slope = (sides[0] - sides[1]) / (2 * step)
        torch.testing.assert_close((found[name] * along).sum(), slope, atol=1e-6, rtol=1e-5, msg=name)
    return sum(float(g.abs().max()) > 1e-6 for g in found.values())


# Reconstruction and likelihood


def test_reconstruction_sums_pixels_and_averages_examples():
    class Half(Manifold):
        def codes(self, x, context=None):
            return x.flatten(1)

        def decode(self, u, context=None):
            return u.view(-1, 1, 2, 2) / 2 + (0 if context is None else context.view(-1, 1, 1, 1))

    x = torch.tensor([[1.0, 1, 1, 1], [2.0, 0, 0, 0]]).view(2, 1, 2, 2)
    assert losses.reconstruction(Half(), x).item() == 1.0
    assert losses.reconstruction(Half(), x, torch.tensor([[0.5], [0.0]])).item() == 0.5


def test_noise_aware_by_hand():
    class Shifted(Manifold):
        def shrink(self, y, sigma):
            return y - sigma.view(-1, 1, 1, 1)

    clean = torch.rand(8, 1, 2, 2)
    noisy, sigma = clean + 2.0, torch.tensor([2.0, 1.0, *[2.0] * 6])  # shrunken right, but for the second
    expected = (math.log(4 + 4e-4) + 7 * math.log(4e-4)) / 8
    assert losses.noise_aware(Shifted(), noisy, clean, sigma).item() == pytest.approx(expected)


def test_noise_aware_gradients_are_those_of_finite_differences():
    """Of the denoiser, through the chart."""
    small = {"width": 2, "noise_width": 2, "hidden": 4, "near": 4}
    model = perturb(build(ModelConfig((1, 5, 4), 2, noise_aware=True, **small)).double(), 0.3)
    clean, sigma = torch.rand(COUNT, 1, 5, 4), torch.linspace(0.05, 0.5, COUNT)
    noisy = clean + sigma.view(-1, 1, 1, 1) * torch.randn(clean.shape)

    def loss():
        return losses.noise_aware(model.chart, noisy, clean, sigma)

    assert agrees_with_finite_differences(loss, model.chart.denoiser.requires_grad_()) == 10


def test_negative_log_likelihood_of_a_normal_by_hand():
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    expected = 1.0 + math.log(2 * math.pi)  # the mean of 0 and 2, and the constant of two dimensions
    for module in (AmbientFlow(ActNorm(2), (2,)), Density(ActNorm(2), 2)):
        torch.testing.assert_close(losses.negative_log_likelihood(module, x).item(), expected)


def test_negative_log_likelihood_depends_on_the_parameters_of_each_example():
    density, u, theta = flow(PARAMETERS).density, torch.randn(COUNT, DIM), torch.randn(COUNT, PARAMETERS)
    found = losses.negative_log_likelihood(density, u, theta)
    torch.testing.assert_close(found, -density.log_prob(u, theta).mean())
    assert abs(found - losses.negative_log_likelihood(density, u, theta.flip(0))) > 1e-4


# Alternating and simultaneous


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_alternating_has_no_gradient_across(given):
    model, (x, theta) = flow(given), batch(given)
    value = losses.alternating(model, x, theta)
    error = losses.reconstruction(model.chart, x, theta)
    likelihood = losses.negative_log_likelihood(model.density, model.encode(x, theta).detach(), theta)
    torch.testing.assert_close(value, error + likelihood)
    assert close(gradients(value, model.chart), gradients(error, model.chart))
    assert close(gradients(value, model.density), gradients(likelihood, model.density))
    leak = gradients(
        losses.negative_log_likelihood(model.density, model.encode(x, theta), theta), model.chart
    )
    assert max(g.abs().max() for g in leak.values()) > 1e-2  # what is kept out


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_simultaneous_is_what_it_says(given):
    model, (x, theta) = flow(given), batch(given)
    u = model.encode(x, theta)
    volume = torch.linalg.svdvals(jacobians(model.decode, u, theta)).log().sum(1)
    error = (model.decode(u, theta) - x).square().sum(1)
    expected = (3 * error - model.density.log_prob(u, theta) + volume).mean()
    torch.testing.assert_close(losses.simultaneous(model, x, theta, 3.0), expected)


@pytest.mark.parametrize(("make", "given"), [(flow, PARAMETERS), (encoder_flow, 0)])
def test_simultaneous_gradients_are_those_of_finite_differences(make, given):
    model, (x, theta) = make(given), batch(given)
    seen = agrees_with_finite_differences(lambda: losses.simultaneous(model, x, theta, 3.0), model)
    assert seen > 15


# The score


class Location(Transform):
    """u ~ N(W θ, 1)."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x, context=None):
        return x - context @ self.weight.T, x.new_zeros(len(x))


def test_scandal_of_a_normal_location_family_by_hand():
    weight = torch.randn(DIM, PARAMETERS)
    density = Density(Location(weight), DIM)
    u, theta, score = torch.randn(COUNT, DIM), torch.randn(COUNT, PARAMETERS), torch.randn(COUNT, PARAMETERS)
    off = u - theta @ weight.T
    likelihood = (0.5 * off.square().sum(1) + DIM / 2 * math.log(2 * math.pi)).mean()
    error = (off @ weight - score).square().sum(1).mean()
    torch.testing.assert_close(losses.scandal(density, u, theta, score, 2.0), likelihood + 2 * error)
    exact = losses.scandal(density, u, theta, off @ weight, 2.0)
    torch.testing.assert_close(exact, likelihood)
    assert not theta.requires_grad


def test_scandal_gradients_are_those_of_finite_differences():
    """Twice through the splines."""
    density = flow(PARAMETERS).density
    u, theta, score = torch.randn(COUNT, DIM), torch.randn(COUNT, PARAMETERS), torch.randn(COUNT, PARAMETERS)
    seen = agrees_with_finite_differences(lambda: losses.scandal(density, u, theta, score, 2.0), density)
    assert seen > 8


@pytest.mark.parametrize("make", [flow, pie])
def test_scandal_takes_whole_models_too(make):
    model, (x, theta) = make(PARAMETERS), batch(PARAMETERS)
    score, h = torch.randn(COUNT, PARAMETERS), 1e-5
    found = []
    for i in range(PARAMETERS):
        step = h * torch.eye(PARAMETERS)[i]
        found.append((model.log_prob(x, theta + step) - model.log_prob(x, theta - step)) / (2 * h))
    error = (torch.stack(found, 1) - score).square().sum(1).mean()
    expected = -model.log_prob(x, theta).mean() + 2 * error
    value = losses.scandal(model, x, theta, score, 2.0)
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    value.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert sum(p.grad is not None and bool(p.grad.any()) for p in model.chart.parameters()) > 3


def test_scandal_works_where_gradients_are_off():
    density = flow(PARAMETERS).density
    arguments = torch.randn(COUNT, DIM), torch.randn(COUNT, PARAMETERS), torch.randn(COUNT, PARAMETERS), 2.0
    with torch.no_grad():
        off = losses.scandal(density, *arguments)
    torch.testing.assert_close(off, losses.scandal(density, *arguments))


# Optimal transport


def cloud(noise, samples):
    """A model whose samples for this noise are these."""

    class Cloud(nn.Module):
        def push_forward(self, z, context=None):
            return z

        def decode(self, u, context=None):
            assert torch.equal(u, noise)
            return samples

    return Cloud()


def test_sinkhorn_is_zero_for_equal_clouds_in_any_order():
    x, noise = torch.rand(40, 1, 2, 2), torch.randn(40, DIM)
    assert losses.sinkhorn(cloud(noise, x), x, noise).abs() < 1e-9
    assert losses.sinkhorn(cloud(noise, x.flip(0)), x, noise).abs() < 1e-9


def test_sinkhorn_of_a_shift_is_half_its_square():
    x, noise = torch.rand(40, 3), torch.randn(40, DIM)
    shift = torch.tensor([3.0, 4.0, 0.0])
    found = losses.sinkhorn(cloud(noise, x + shift), x, noise)
    torch.testing.assert_close(found.item(), 12.5, rtol=1e-3, atol=0)


def test_sinkhorn_compares_pairs_where_there_are_parameters():
    x, noise, theta = torch.rand(40, 3), torch.randn(40, DIM), torch.linspace(-2, 2, 40)[:, None]
    permuted = cloud(noise, x.flip(0))
    assert losses.sinkhorn(permuted, x, noise).abs() < 1e-9
    assert losses.sinkhorn(permuted, x, noise, theta) > 1e-2
    assert losses.sinkhorn(cloud(noise, x), x, noise, theta).abs() < 1e-9


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_sinkhorn_descends(given):
    model, (x, theta) = flow(given), batch(given)
    noise = torch.randn(COUNT, DIM)
    value = losses.sinkhorn(model, x, noise, theta)
    assert value > 0
    found = gradients(value, model)
    assert min(g.abs().max() for n, g in found.items() if g.numel() and "encoders" not in n) > 0
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.sub_(1e-5 * found[name])
    slope = sum(g.square().sum() for g in found.values())
    fall = value - losses.sinkhorn(model, x, noise, theta)
    assert 0.5 < fall / (1e-5 * slope) < 2  # iterations that stop early have no better gradient


# Denoising


@pytest.mark.parametrize("given", [0, PARAMETERS], ids=["plain", "conditional"])
def test_denoising_by_hand(given):
    model, (clean, theta) = pie(given), batch(given)
    noisy = clean + 0.1 * torch.randn_like(clean)
    u = model.chart.codes(noisy, theta)
    error = (model.chart.decode(u, theta) - clean).square().sum(1).mean()
    expected = 3 * error - model.log_prob(noisy, theta).mean()
    torch.testing.assert_close(losses.denoising(model, noisy, clean, theta, 3.0), expected)


def test_denoising_gradients_are_those_of_finite_differences():
    model, (clean, _) = pie(), batch()
    noisy = clean + 0.1 * torch.randn_like(clean)
    assert (
        agrees_with_finite_differences(lambda: losses.denoising(model, noisy, clean, None, 3.0), model) > 15
    )


# The surrogate of the volume


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


# Dequantisation


def test_dequantised_levels_fill_the_unit_interval():
    levels = torch.arange(256.0) / 255
    torch.testing.assert_close(losses.dequantise(levels, torch.zeros(256)), torch.arange(256.0) / 256)
    u = torch.rand(256)
    x = losses.dequantise(levels, u)
    torch.testing.assert_close(x, (torch.arange(256) + u) / 256)
    assert ((x >= 0) & (x < 1)).all()
    torch.testing.assert_close((256 * x).floor(), torch.arange(256.0), atol=0, rtol=0)
