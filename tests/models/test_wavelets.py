"""Wavelets of any size: what they give, and that they are isometries."""

import math

import pytest
import torch

from mfimage.models.wavelets import Haar, Wavelets

pytestmark = pytest.mark.usefixtures("double")
SHAPES = [(1, 27, 27), (3, 25, 33), (1, 64, 49), (3, 28, 28), (2, 1, 1), (1, 1, 6), (2, 2, 3)]


def test_haar_puts_the_averages_of_all_channels_first():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    y, _ = Haar(4, 4)(x)
    torch.testing.assert_close(y[:, :2], 2 * torch.nn.functional.avg_pool2d(x, 2))
    assert math.isclose(float(y.square().sum()), float(x.square().sum()), rel_tol=1e-6)


def test_what_an_odd_side_leaves_over_goes_on_as_it_is():
    x = torch.rand(1, 1, 3, 5)
    y, _ = Haar(3, 5)(x)
    assert y.shape == (1, 4, 2, 3)
    torch.testing.assert_close(y[0, 0, 1, 2], x[0, 0, 2, 4])
    torch.testing.assert_close(y[0, 0, 0, 2], (x[0, 0, 0, 4] + x[0, 0, 1, 4]) / math.sqrt(2))
    torch.testing.assert_close(y[0, 2, 0, 2], (x[0, 0, 0, 4] - x[0, 0, 1, 4]) / math.sqrt(2))
    assert not y[0, 1, :, 2].any()  # no details across columns of a last column
    assert not y[0, 2, 1].any()
    assert not y[0, 3, 1].any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("levels", [1, 3])
def test_the_pyramid_is_an_isometry_that_is_undone(shape, levels):
    wavelets, x = Wavelets(shape, levels), torch.rand(3, *shape)
    vectors = wavelets.analysis(x)
    assert vectors.shape == (3, math.prod(shape))
    torch.testing.assert_close(vectors.norm(dim=1), x.flatten(1).norm(dim=1), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(wavelets.synthesis(vectors), x, atol=1e-12, rtol=0)
    some = torch.randn_like(vectors)
    torch.testing.assert_close(wavelets.analysis(wavelets.synthesis(some)), some, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 24)], ids=str)
def test_coarsest_coordinates_come_first(shape):
    vectors = Wavelets(shape, 3).analysis(torch.full((1, *shape), 0.5))
    coarse = math.prod(shape) // 64
    torch.testing.assert_close(vectors[:, :coarse], torch.full((1, coarse), 4.0))
    assert vectors[0, coarse:].abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(1, 5, 7), (2, 4, 3)], ids=str)
def test_a_mask_tells_where_there_are_details(shape):
    wavelets, x = Wavelets(shape, 1), torch.rand(2, *shape)
    _, details = wavelets.split(x, 0)
    assert torch.equal(details.ne(0).all(0).double(), wavelets.mask(0))
    assert Wavelets((1, 4, 6), 1).mask(0) is None
