import pytest
import torch
from laws import pca, perturb

from mfimage.errors import ModelError
from mfimage.models import image_chart
from mfimage.models.charts import padded
from mfimage.models.nets import noise_features


def images(count=300, shape=(1, 12, 10)):
    """Images near a curved two-dimensional manifold."""
    angle = 6.28 * torch.rand(count, 1)
    basis = torch.randn(3, torch.Size(shape).numel()) / 8
    curve = torch.cat([angle.cos(), angle.sin(), (2 * angle).sin()], 1) @ basis
    return (0.5 + curve + 0.01 * torch.randn_like(curve)).view(-1, *shape).clamp(0, 1)


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_training_starts_at_the_principal_components(keep):
    x = images()
    chart = image_chart((1, 12, 10), 3, ((1, 1), (1, 1)), keep, 4, 16, 2)
    chart.initialise(x)
    torch.testing.assert_close(chart.decode(chart.codes(x)), pca(x, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7), (2, 9, 16), (1, 1, 1)])
def test_any_shape_comes_back(shape):
    x = torch.rand(4, *shape)
    chart = image_chart(shape, 1, ((1, 1), (1, 1)), 0.5, 4, 8, 1)
    z, _ = perturb(chart, 0.2)(x)
    assert z.shape == (4, chart.features)
    torch.testing.assert_close(chart.inverse(z)[0], x, atol=1e-5, rtol=0)


def noisy_chart():
    torch.manual_seed(0)
    chart = image_chart((1, 10, 8), 3, ((1, 2), (1, 1)), 1.0, 4, 16, 1, noise=True)
    chart.initialise(images(100, (1, 10, 8)))
    return perturb(chart, 0.3).double()


def test_told_of_noise_the_couplings_map_otherwise():
    chart, x = noisy_chart(), torch.rand(4, 1, 12, 8, dtype=torch.double)
    seen = noise_features(torch.tensor([0.0, 0.1, 0.2, 0.5], dtype=torch.double))
    vectors, clean = chart.multiscale(x, seen)[0], chart.multiscale(x)[0]
    torch.testing.assert_close(vectors[0], clean[0])  # σ = 0 is the chart of clean images
    assert (vectors[1:] - clean[1:]).abs().amax(1).min() > 1e-3


def test_shrinking_without_noise_is_the_identity_where_nothing_is_dropped():
    chart, x = noisy_chart(), torch.rand(4, 1, 10, 8, dtype=torch.double)
    with torch.no_grad():
        chart.gains.level.fill_(9.0)
    torch.testing.assert_close(chart.shrink(x, torch.zeros(4)), x, atol=1e-6, rtol=0)
    assert (chart.shrink(x, torch.full((4,), 9.0)) - x).abs().mean() > 1e-2


def test_the_gains_start_at_the_spread_of_the_coordinates():
    torch.manual_seed(0)
    chart, x = image_chart((1, 8, 8), 3, ((1, 1),), 1.0, 4, 16, 1, noise=True), images(300, (1, 8, 8))
    chart.initialise(x)
    torch.testing.assert_close(chart.gains.level.exp(), chart(x)[0].square().mean(0).clamp_min(1e-6))


def test_a_chart_without_gains_cannot_shrink():
    with pytest.raises(ModelError, match="train it with --noise"):
        image_chart((1, 8, 8), 3).shrink(torch.rand(1, 1, 8, 8), torch.ones(1))


def test_padding_is_split_over_both_sides():
    assert padded((3, 28, 28), 3) == ((2, 2, 2, 2), (3, 32, 32))
    assert padded((1, 5, 8), 2) == ((0, 0, 1, 2), (1, 8, 8))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_coarsest_coordinates_come_first(steps):
    chart = image_chart((1, 8, 8), 1, ((1, steps), (1, steps), (1, 0)), 0.25, 4, 8, 0)
    flat = torch.full((1, 1, 8, 8), 0.5)
    coordinates = chart.multiscale(flat)[0]
    torch.testing.assert_close(coordinates[0, 0], torch.tensor(4.0))
    assert coordinates[0, 1:].abs().max() < 1e-6
