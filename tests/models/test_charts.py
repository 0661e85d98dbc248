import pytest
import torch

from mfimage.errors import DataError
from mfimage.models.charts import image_chart, padding
from mfimage.models.linear import principal_components


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
    z = chart(x)[0]
    z[:, 3:] = 0
    mean, basis = principal_components(x.flatten(1), 3)
    pca = mean + (x.flatten(1) - mean) @ basis @ basis.T
    torch.testing.assert_close(chart.inverse(z)[0].flatten(1), pca, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7), (2, 9, 16), (1, 1, 1)])
def test_any_shape_comes_back(shape):
    x = torch.rand(4, *shape)
    chart = image_chart(shape, 1, ((1, 1), (1, 1)), 0.5, 4, 8, 1)
    with torch.no_grad():
        for parameter in chart.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    z, _ = chart(x)
    assert z.shape == (4, chart.features)
    torch.testing.assert_close(chart.inverse(z)[0], x, atol=1e-5, rtol=0)


def test_codes_are_the_first_coordinates():
    chart = image_chart((1, 8, 8), 3, ((1, 1), (1, 0)), 1.0, 4, 16, 2)
    with torch.no_grad():
        for parameter in chart.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(chart.codes(x), chart(x)[0][:, :3])
    without = image_chart((1, 8, 8), 3, ((1, 1),), 1.0, 4, 16, 0)
    torch.testing.assert_close(without.codes(x), without(x)[0][:, :3])


def test_padding_is_split_over_both_sides():
    assert padding(28, 28, 3) == (2, 2, 2, 2)
    assert padding(5, 8, 2) == (0, 0, 1, 2)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_coarsest_coordinates_come_first(steps):
    chart = image_chart((1, 8, 8), 1, ((1, steps), (1, steps), (1, 0)), 0.25, 4, 8, 0)
    flat = torch.full((1, 1, 8, 8), 0.5)
    coordinates = chart.multiscale(flat)[0]
    torch.testing.assert_close(coordinates[0, 0], torch.tensor(4.0))
    assert coordinates[0, 1:].abs().max() < 1e-6


def test_principal_components_agree_between_the_exact_and_the_randomised_way(monkeypatch):
    x = images(200).flatten(1).double()
    mean, exact = principal_components(x, 2)
    monkeypatch.setattr("mfimage.models.linear.EXACT_FEATURES", 1)
    mean_, randomised = principal_components(x, 2)
    torch.testing.assert_close(mean, mean_)
    torch.testing.assert_close(exact @ exact.T, randomised @ randomised.T, atol=1e-6, rtol=0)


def test_too_few_images_say_so():
    with pytest.raises(DataError, match="cannot span 5"):
        principal_components(torch.rand(5, 20), 5)
