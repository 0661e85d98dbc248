import pytest
import torch

from mfimage.errors import DataError
from mfimage.models.subspace import Householder, principal_components


def test_householder_starts_at_the_given_subspace():
    basis = torch.linalg.qr(torch.randn(9, 3, dtype=torch.float64)).Q
    mean = torch.randn(9, dtype=torch.float64)
    rotation = Householder(9, 3).double()
    rotation.initialise(mean, basis)
    inside = mean + torch.randn(4, 3, dtype=torch.float64) @ basis.T
    assert rotation(inside)[0][:, 3:].abs().max() < 1e-12
    outside = torch.randn(4, 9, dtype=torch.float64)
    coordinates = rotation(outside)[0]
    coordinates[:, 3:] = 0
    projected = mean + (outside - mean) @ basis @ basis.T
    torch.testing.assert_close(rotation.inverse(coordinates)[0], projected)


def test_principal_components_agree_between_the_exact_and_the_randomised_way(monkeypatch):
    x = torch.randn(200, 2).double() @ torch.randn(2, 60).double() + 0.1 * torch.randn(200, 60).double()
    mean, exact = principal_components(x, 2)
    monkeypatch.setattr("mfimage.models.subspace.EXACT_FEATURES", 1)
    mean_, randomised = principal_components(x, 2)
    torch.testing.assert_close(mean, mean_)
    torch.testing.assert_close(exact @ exact.T, randomised @ randomised.T, atol=1e-6, rtol=0)


def test_too_few_images_say_so():
    with pytest.raises(DataError, match="cannot span 5"):
        principal_components(torch.rand(5, 20), 5)
