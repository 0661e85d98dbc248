"""Tangents, volumes, directions and ways, against closed forms and brute force."""

import math
from dataclasses import replace

import pytest
import torch
from laws import perturb

from mfimage.config import ModelConfig
from mfimage.errors import UsageError
from mfimage.models import geometry
from mfimage.models.build import build
from mfimage.models.duals import Dual
from mfimage.models.geometry import (
    estimate_log_volume,
    geodesic,
    log_volume,
    metric,
    principal_directions,
    tangents,
)

CONFIG = ModelConfig((1, 8, 8), 5, width=2, hidden=8, near=20, density_width=8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    flow = build(CONFIG).double()
    flow.initialise(torch.rand(60, 1, 8, 8, dtype=torch.float64))
    return perturb(flow, 0.2)


@pytest.fixture
def u(model):
    return model.encode(torch.rand(4, 1, 8, 8, dtype=torch.float64)).detach()


def sphere(angles):
    polar, azimuth = angles.unbind(1)
    return torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], 1)


def test_little_memory_changes_nothing(model, u, monkeypatch):
    whole, product = tangents(model.chart, u), metric(model.chart, u)
    monkeypatch.setitem(geometry._BUDGET, "cpu", 1)
    pushed, push = [], model.chart.push_codes
    monkeypatch.setattr(
        model.chart, "push_codes", lambda x, *rest: pushed.append(x.tangent.shape) or push(x, *rest)
    )
    torch.testing.assert_close(tangents(model.chart, u), whole)
    assert pushed == [(4, 1, 5)] * 5
    torch.testing.assert_close(metric(model.chart, u), product)
    assert pushed[5:] == [(1, 1, 5)] * 20


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, (4, 4, 4)),
        ({"shape": (1, 7, 8)}, (4, 4, 4)),
        ({"steps": 0}, (25,)),
    ],
)
def test_rotating_spares_what_is_a_rotation(settings, left):
    flow = build(replace(CONFIG, **settings)).double()
    dual = Dual(torch.zeros(2, 5).double(), torch.eye(5).double().expand(2, -1, -1))
    assert flow.chart.push_codes(dual, rotated=True).value.shape[1:] == left


def test_the_volume_is_accurate_at_a_large_condition_number():
    q = torch.linalg.qr(torch.randn(50, 8, dtype=torch.float64)).Q
    scales = torch.logspace(0, -4, 8, dtype=torch.float64)
    torch.testing.assert_close(log_volume((q * scales)[None])[0], scales.log().sum(), atol=1e-6, rtol=0)


def test_metric_of_a_sphere_is_known():
    angles = torch.tensor([[0.3, 1.0], [1.2, -2.0]], dtype=torch.float64)
    found = metric(sphere, angles)
    expected = torch.diag_embed(torch.stack([torch.ones(2, dtype=torch.float64), angles[:, 0].sin() ** 2], 1))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        log_volume(tangents(sphere, angles)), angles[:, 0].sin().log(), atol=1e-12, rtol=0
    )


def test_metric_in_float32_is_float64_and_that_of_the_tangents(model, u):
    model, u = model.float(), u.float()
    j = tangents(model.chart, u).double()
    found = metric(model.chart, u)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, j.mT @ j, rtol=1e-5, atol=1e-6)


def test_nothing_has_no_metric(model):
    assert metric(model.chart, torch.empty(0, 5, dtype=torch.float64)).shape == (0, 5, 5)


def test_lost_rank_and_nan_are_told_apart():
    j = torch.eye(3, 2, dtype=torch.float64).repeat(3, 1, 1)
    j[1, :, 1] = 0
    j[2, 0, 0] = math.nan
    found = log_volume(j)
    assert found[0] == 0
    assert found[1] == -math.inf
    assert found[2].isnan()


def test_the_estimate_errs_as_often_as_it_says(model, u):
    exact = log_volume(tangents(model.chart, u))
    generator = torch.Generator().manual_seed(0)
    draws = [estimate_log_volume(model.chart, u, probes=6, generator=generator) for _ in range(50)]
    inside = torch.stack([(d.value - exact).abs() <= 2 * d.standard_error for d in draws]).double().mean()
    assert 0.90 <= inside <= 0.99  # 200 draws; chance alone leaves 0.954 ± 0.015
    spread = torch.stack([d.value for d in draws]).std(0)
    said = torch.stack([d.standard_error for d in draws]).mean(0)
    assert (said / spread).min() > 0.8
    assert (said / spread).max() < 2


def test_more_probes_err_less_and_the_mean_is_the_volume(model, u):
    exact = log_volume(tangents(model.chart, u))
    few, many = (
        estimate_log_volume(model.chart, u, probes=n, generator=torch.Generator().manual_seed(0))
        for n in (8, 2000)
    )
    assert ((many.value - exact).abs() < 3 * many.standard_error).all()
    assert many.standard_error.max() < 0.02
    assert (few.standard_error / many.standard_error).min() > 8


def test_few_lanczos_steps_come_close(model, u):
    def draw(steps):
        return estimate_log_volume(
            model.chart, u, probes=8, steps=steps, generator=torch.Generator().manual_seed(0)
        ).value

    full, some, one = draw(5), draw(3), draw(1)
    torch.testing.assert_close(draw(50), full)
    assert (some - full).abs().max() < 0.3 * (one - full).abs().max()


def test_the_estimate_of_an_isometry_is_exact():
    straight = build(ModelConfig((1, 8, 8), 5, kind="linear")).double()
    straight.initialise(torch.rand(60, 1, 8, 8, dtype=torch.float64))
    found = estimate_log_volume(straight.chart, torch.randn(2, 5, dtype=torch.float64), probes=3)
    assert found.value.abs().max() < 1e-12
    assert found.standard_error.abs().max() < 1e-12


def test_the_estimate_sees_the_parameters():
    torch.manual_seed(0)
    config = ModelConfig((6,), 3, hidden=8, context=2, chart_context=True)
    flow = perturb(build(config).double(), 0.5)
    u, theta = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    exact = log_volume(tangents(flow.chart, u, theta))
    found = estimate_log_volume(flow.chart, u, theta, probes=500)
    assert ((found.value - exact).abs() < 4 * found.standard_error).all()
    assert (exact - log_volume(tangents(flow.chart, u, theta + 1))).abs().min() > 1e-3


def test_principal_directions_are_singular_vectors(model, u):
    j = tangents(model.chart, u)
    strength, images, coordinates = principal_directions(model.chart, u, model.shape, 3)
    torch.testing.assert_close(strength, torch.linalg.svdvals(j)[:, :3])
    moved = (j @ coordinates.mT).mT.unflatten(2, model.shape)
    torch.testing.assert_close(images * strength[:, :, None, None, None], moved)
    torch.testing.assert_close(coordinates.norm(dim=2), torch.ones(4, 3, dtype=torch.float64))
    assert (coordinates.gather(2, coordinates.abs().argmax(2, keepdim=True)) > 0).all()


def test_a_geodesic_of_the_sphere_is_a_great_circle():
    start, end = torch.tensor([[0.5, 0.0], [0.5, 2.5]], dtype=torch.float64)
    path = geodesic(sphere, start, end, points=41)
    arc = torch.arccos((sphere(start[None]) * sphere(end[None])).sum())
    torch.testing.assert_close(path[[0, -1]], torch.stack([start, end]))
    steps = sphere(path).diff(dim=0).norm(dim=1)
    assert float(steps.sum()) == pytest.approx(float(arc), rel=1e-3)
    straight = start + torch.linspace(0, 1, 41, dtype=torch.float64)[:, None] * (end - start)
    assert sphere(straight).diff(dim=0).norm(dim=1).sum() > 1.05 * arc
    assert steps.max() / steps.min() < 1.01


def test_a_way_of_two_points_is_its_ends():
    ends = torch.tensor([[0.5, 0.0], [0.5, 2.5]])
    torch.testing.assert_close(geodesic(sphere, *ends, points=2), ends)
    torch.testing.assert_close(geodesic(sphere, ends[0], ends[0], points=3), ends[:1].expand(3, -1))


def test_models_give_metric_directions_and_ways(model):
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    u = model.encode(x)
    torch.testing.assert_close(model.metric(u), metric(model.chart, u))
    assert model.principal_directions(x, 99).images.shape == (2, 5, 1, 8, 8)
    way = model.interpolate(x[0], x[1], 7)
    torch.testing.assert_close(way[[0, -1]], model.project(x))
    straight = model.decode(u[0] + torch.linspace(0, 1, 7, dtype=torch.float64)[:, None] * (u[1] - u[0]))
    energies = [w.diff(dim=0).square().sum() for w in (way, straight)]
    assert energies[0] < energies[1]
    assert not way.requires_grad


def test_ways_of_conditional_models():
    torch.manual_seed(0)
    config = ModelConfig((6,), 3, hidden=8, context=2, chart_context=True)
    flow = perturb(build(config).double(), 0.5)
    x, theta = torch.randn(2, 6, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    way = flow.interpolate(x[0], x[1], 4, theta)
    torch.testing.assert_close(way[[0, -1]], flow.project(x, theta.expand(2, -1)))


def test_densities_say_how_they_were_computed(model):
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    exact = model.log_density(x)
    assert (exact.method, exact.measure) == ("exact", "manifold")
    assert (exact.standard_error == 0).all()
    torch.testing.assert_close(exact.log_prob, model.log_prob(x))
    latent = model.log_density(x, measure="latent")
    volume = log_volume(tangents(model.chart, model.encode(x)))
    torch.testing.assert_close(latent.log_prob - volume, exact.log_prob)
    rough = model.log_density(x, method="lanczos", generator=torch.Generator().manual_seed(0))
    assert rough.method == "lanczos"
    assert ((rough.log_prob - exact.log_prob).abs() < 4 * rough.standard_error).all()
    again = model.log_density(x, method="lanczos", generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rough.log_prob, again.log_prob)


def test_auto_warns_of_an_estimate(model, monkeypatch):
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    monkeypatch.setattr("mfimage.models.flow.EXACT_DIM", 4)
    with pytest.warns(UserWarning, match=r"d = 5 is an estimate \(lanczos\)"):
        model.log_prob(x)
    assert model.log_density(x).method == "lanczos"
    assert model.log_density(x, method="exact").method == "exact"


@pytest.mark.parametrize("wrong", [{"method": "exacd"}, {"measure": "ambient"}])
def test_unknown_methods_and_measures_are_refused(model, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong.values()))):
        model.log_density(torch.rand(1, 1, 8, 8, dtype=torch.float64), **wrong)


def test_gradients_of_the_exact_volume_are_those_of_finite_differences(model):
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    parameters = [p for p in model.chart.parameters() if p.requires_grad]
    torch.manual_seed(1)
    directions = [torch.randn_like(p) for p in parameters]

    def moved(step):
        with torch.no_grad():
            for p, direction in zip(parameters, directions, strict=True):
                p.add_(step * direction)
        return model.log_prob(x).sum()

    gradients = torch.autograd.grad(model.log_prob(x).sum(), parameters)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    step = 1e-5
    up, down = moved(step), moved(-2 * step)
    moved(step)
    assert float(slope) == pytest.approx(float((up - down).detach()) / (2 * step), rel=1e-6)
