import pytest
import torch
from laws import jacobians, pca, perturb

from mfimage.errors import DataError
from mfimage.models import VectorChart

SIZES = [(2, 1), (3, 2), (7, 1), (9, 4), (6, 5)]
PARAMETERS = 2


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(features, dim, bends=2, context=0, scale=0.3):
    """A bent chart whose scales of u and v are not one."""
    chart = VectorChart(features, dim, 16, bends, context)
    chart.rest_scale.fill_(0.4)
    chart.code_scale.copy_(torch.linspace(0.5, 2, dim))
    return perturb(chart, scale)


def data(features, count=200):
    curve = torch.randn(count, 1) * torch.linspace(3, 0.1, features)
    return curve.sin() + torch.randn(count, features) * torch.linspace(2, 0.1, features) + 3


def context_of(given, count):
    return torch.randn(count, PARAMETERS) if given else None


@pytest.mark.parametrize("given", [False, True], ids=["plain", "conditional"])
@pytest.mark.parametrize("bends", [1, 2, 3])
@pytest.mark.parametrize(("features", "dim"), SIZES)
def test_laws(features, dim, bends, given):
    chart, x = make(features, dim, bends, PARAMETERS * given), torch.randn(3, features)
    theta = context_of(given, 3)
    z, ladj = chart(x, theta)
    back, back_ladj = chart.inverse(z, theta)
    torch.testing.assert_close(back, x, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(back_ladj, -ladj, atol=1e-9, rtol=0)
    forwards = jacobians(lambda v, c: chart(v, c)[0], x, theta)
    torch.testing.assert_close(torch.linalg.slogdet(forwards).logabsdet, ladj, atol=1e-9, rtol=0)
    backwards = jacobians(lambda v, c: chart.inverse(v, c)[0], z, theta)
    torch.testing.assert_close(torch.linalg.slogdet(backwards).logabsdet, back_ladj, atol=1e-9, rtol=0)
    torch.testing.assert_close(chart.codes(x, theta), z[:, :dim], atol=1e-12, rtol=0)
    assert ladj.abs().min() > 1e-6


@pytest.mark.parametrize("given", [False, True], ids=["plain", "conditional"])
@pytest.mark.parametrize("bends", [0, 1, 2])
def test_decoding_puts_zero_off_the_manifold_and_is_undone(bends, given):
    chart, u = make(9, 4, bends, PARAMETERS * given), torch.randn(5, 4)
    theta = context_of(given, 5)
    x = chart.decode(u, theta)
    torch.testing.assert_close(x, chart.inverse(torch.cat([u, torch.zeros(5, 5)], 1), theta)[0])
    torch.testing.assert_close(chart.codes(x, theta), u, atol=1e-9, rtol=0)
    torch.testing.assert_close(chart(x, theta)[0][:, 4:], torch.zeros(5, 5), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("features", "dim"), SIZES)
@pytest.mark.parametrize("bends", [0, 1, 3])
def test_training_starts_at_the_principal_components(features, dim, bends):
    chart, x = VectorChart(features, dim, 16, bends), data(features)
    chart.initialise(x)
    torch.testing.assert_close(chart.decode(chart.codes(x)), pca(x, dim), atol=1e-9, rtol=0)
    assert (x - pca(x, dim)).abs().max() > 0.05


def test_a_conditional_chart_starts_there_for_every_parameter():
    chart, x = VectorChart(9, 4, 16, 2, PARAMETERS), data(9)
    chart.initialise(x)
    theta = torch.randn(len(x), PARAMETERS)
    torch.testing.assert_close(chart.decode(chart.codes(x, theta), theta), pca(x, 4), atol=1e-9, rtol=0)


def test_initialise_measures_the_scales_of_both_sides():
    chart, x = VectorChart(9, 4, 16, 1), data(9)
    chart.initialise(x)
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    torch.testing.assert_close(chart.code_scale, values[:4].sqrt())
    torch.testing.assert_close(chart.rest_scale, values[4:].mean().sqrt())


def test_the_networks_see_what_has_scale_one():
    """Data in other units make the same chart in those units."""
    x, unit = data(6), 1e3
    small, large = VectorChart(6, 2, 16, 2), VectorChart(6, 2, 16, 2)
    large.load_state_dict(small.state_dict())
    for chart, rows in ((small, x), (large, unit * x)):
        chart.initialise(rows)
        networks = torch.nn.ModuleList([chart.encoders, chart.decoders])
        perturb(networks)
    torch.testing.assert_close(large(unit * x)[0], unit * small(x)[0], rtol=1e-7, atol=1e-7)
    assert (small(x)[0] - small.rotation(x)[0]).abs().max() > 0.1


def test_without_bends_it_is_linear():
    chart, x, y = make(6, 3, 0), torch.randn(4, 6), torch.randn(4, 6)
    z, ladj = chart(0.3 * x + 0.7 * y)
    torch.testing.assert_close(z, 0.3 * chart(x)[0] + 0.7 * chart(y)[0])
    assert not ladj.any()
    bent = make(6, 3, 1)
    assert not torch.allclose(bent(0.3 * x + 0.7 * y)[0], 0.3 * bent(x)[0] + 0.7 * bent(y)[0], atol=1e-2)


def test_parameters_move_a_conditional_chart_alone():
    x, theta = torch.randn(4, 6), torch.randn(4, PARAMETERS)
    conditional, plain = make(6, 3, 1, PARAMETERS), make(6, 3, 1)
    assert (conditional(x, theta)[0] - conditional(x, theta + 1)[0]).abs().max() > 0.01
    assert torch.equal(plain(x, theta)[0], plain(x)[0])
    torch.testing.assert_close(
        conditional(x, theta)[0][2:], conditional(x[2:], theta[2:])[0], atol=1e-12, rtol=0
    )


def test_scales_are_bounded():
    chart = VectorChart(3, 2, 4, 1, bound=0.5)
    with torch.no_grad():
        for parameter in [*chart.encoders.parameters(), *chart.decoders.parameters()]:
            parameter.fill_(100.0)
    assert 1.0 < chart(torch.ones(1, 3))[1].abs().item() <= 3 * 0.5


def test_it_comes_back_in_single_precision():
    chart, x = make(40, 14, 2).float(), torch.randn(50, 40, dtype=torch.float32)
    torch.testing.assert_close(chart.inverse(chart(x)[0])[0], x, atol=1e-3, rtol=0)


def test_too_few_vectors_say_so():
    with pytest.raises(DataError, match="cannot span 5"):
        VectorChart(20, 5).initialise(torch.rand(5, 20))
