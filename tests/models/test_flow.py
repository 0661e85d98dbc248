import math

import pytest
import torch
from torch.autograd.functional import jacobian

from mfimage.models import ManifoldFlow, image_chart, latent_density, log_volume, tangents

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def model(dim=3, bends=2, perturb=0.2, density_steps=2):
    chart = image_chart(SHAPE, dim, ((1, 1), (1, 1)), 0.5, 4, 16, bends)
    flow = ManifoldFlow(chart, latent_density(dim, density_steps, 16), SHAPE)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(perturb * torch.randn_like(parameter))
    return flow.eval()


def test_projection_is_idempotent_and_decoding_is_undone():
    flow, x = model(), torch.rand(4, *SHAPE)
    projected = flow.project(x)
    torch.testing.assert_close(flow.project(projected), projected, atol=1e-9, rtol=0)
    u = torch.randn(4, 3)
    torch.testing.assert_close(flow.encode(flow.decode(u)), u, atol=1e-9, rtol=0)


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_tangents_are_the_jacobian(chunk):
    flow, u = model(), torch.randn(2, 3)
    expected = torch.stack([jacobian(lambda v: flow.decode(v[None])[0].flatten(), row) for row in u])
    torch.testing.assert_close(tangents(flow.decode, u, chunk), expected, atol=1e-9, rtol=0)


def test_log_prob_is_the_change_of_variables_by_brute_force():
    flow, x = model(), torch.rand(3, *SHAPE)
    u = flow.encode(x)
    for row, value in zip(u, flow.log_prob(x), strict=True):
        j = jacobian(lambda v: flow.decode(v[None])[0].flatten(), row)
        expected = flow.density.log_prob(row[None])[0] - 0.5 * torch.linalg.slogdet(j.T @ j).logabsdet
        torch.testing.assert_close(value, expected, atol=1e-9, rtol=0)


def test_log_prob_of_a_linear_gaussian_manifold_in_closed_form():
    flow = model(bends=0, perturb=0.0, density_steps=0)
    x = torch.rand(500, *SHAPE)
    flow.chart.initialise(x)
    u = flow.encode(x)
    flow.density.initialise(u)
    mean, std = u.mean(0), u.std(0, unbiased=False)
    tangent = jacobian(lambda v: flow.decode(v[None])[0].flatten(), u[0])
    covariance = tangent @ torch.diag(std**2) @ tangent.T
    values = torch.linalg.eigvalsh(covariance)[-3:]
    mahalanobis = ((u - mean) / std).square().sum(1)
    expected = -0.5 * (mahalanobis + values.log().sum() + 3 * math.log(2 * math.pi))
    torch.testing.assert_close(flow.log_prob(x), expected, atol=1e-9, rtol=0)


def test_density_integrates_to_one_on_a_curve():
    chart = image_chart((1, 2, 2), 1, ((1, 0),), 1.0, 2, 8, 1)
    flow = ManifoldFlow(chart, latent_density(1, 2, 8), (1, 2, 2))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        u = torch.linspace(-12, 12, 4001)[:, None]
        points = flow.decode(u)
        density = flow.log_prob(points).exp()
    length = (points[1:] - points[:-1]).flatten(1).norm(dim=1)
    assert abs(float(((density[1:] + density[:-1]) / 2 * length).sum()) - 1) < 1e-3


def test_log_volume_is_accurate_at_a_large_condition_number():
    q = torch.linalg.qr(torch.randn(50, 8)).Q
    scales = torch.logspace(0, -4, 8)
    torch.testing.assert_close(log_volume((q * scales)[None])[0], scales.log().sum(), atol=1e-6, rtol=0)
    assert log_volume(torch.zeros(1, 5, 2)).item() == -math.inf


def test_samples_depend_on_the_seed_and_not_on_the_batch_size():
    flow = model()

    def draw(seed, batch_size):
        return flow.sample(7, torch.Generator().manual_seed(seed), batch_size)

    torch.testing.assert_close(draw(1, 7), draw(1, 2), atol=1e-9, rtol=0)
    assert (draw(1, 7) - draw(2, 7)).abs().max() > 1e-3
    assert flow.sample(0).shape == (0, *SHAPE)


def test_density_initialise_standardises_and_its_samples_follow():
    density = latent_density(4)
    codes = torch.randn(5000, 4) * torch.tensor([0.1, 1, 10, 100]) + 3
    density.initialise(codes)
    samples = density.push_forward(torch.randn(5000, 4)).detach()
    torch.testing.assert_close(samples.std(0), codes.std(0), rtol=0.05, atol=0)
