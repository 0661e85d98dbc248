import math

import pytest
import torch
from nflows.transforms import CompositeTransform

from mfimage.models.charts import Multiscale, coupling_steps, image_chart
from mfimage.models.couplings import AffineCoupling
from mfimage.models.layers import ActNorm, Haar, Householder, OrthogonalConv1x1
from mfimage.models.nets import ConvNet
from mfimage.models.subspace import BentSubspace

linear = torch.nn.Linear
IMAGE = (4, 4, 4)
BIJECTIONS = {
    "haar": (IMAGE, lambda: Haar()),
    "actnorm-image": (IMAGE, lambda: ActNorm(4)),
    "actnorm-vector": ((6,), lambda: ActNorm(6)),
    "conv1x1": (IMAGE, lambda: OrthogonalConv1x1(4)),
    "householder": ((9,), lambda: Householder(9, 3)),
    "householder-full": ((5,), lambda: Householder(5, 5)),
    "subspace": ((12,), lambda: BentSubspace(12, 3, (1, 3, 4), 2, 8, 2)),
    "subspace-partial-grid": ((12,), lambda: BentSubspace(12, 3, (2, 2, 2), 2, 8, 1)),
    "affine-image": (IMAGE, lambda: AffineCoupling(2, ConvNet(2, 4, 8))),
    "affine-vector": ((7,), lambda: AffineCoupling(3, linear(3, 8))),
    "steps": (IMAGE, lambda: CompositeTransform(coupling_steps(4, 2, 8, True))),
    "multiscale": (
        (1, 8, 8),
        lambda: Multiscale(
            [
                CompositeTransform([Haar(), *coupling_steps(4, 1, 8, True)]),
                CompositeTransform([Haar(), *coupling_steps(8, 1, 8, False)]),
            ],
            [(4, 4, 4), (8, 2, 2)],
            [2],
        ),
    ),
    "chart": ((1, 8, 8), lambda: image_chart((1, 8, 8), 3, ((1, 1), (1, 1)), 0.5, 4, 16, 2)),
    "chart-colour": ((3, 4, 8), lambda: image_chart((3, 4, 8), 5, ((2, 1),), 1.0, 4, 16, 1)),
}


def perturbed(make, scale=0.3):
    """A new coupling is the identity and proves nothing: move every parameter."""
    module = make().double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("name", BIJECTIONS)
def test_inverse_undoes_forward(name):
    shape, make = BIJECTIONS[name]
    bijection, x = perturbed(make), torch.randn(5, *shape, dtype=torch.float64)
    y, ladj = bijection(x)
    back, back_ladj = bijection.inverse(y)
    torch.testing.assert_close(back, x, atol=1e-9, rtol=0)
    torch.testing.assert_close(back_ladj, -ladj, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", BIJECTIONS)
def test_ladj_is_that_of_autograd(name):
    shape, make = BIJECTIONS[name]
    bijection, x = perturbed(make), torch.randn(shape, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda v: bijection(v.view(1, *shape))[0].flatten(), x.flatten()
    )
    torch.testing.assert_close(
        bijection(x[None])[1][0], torch.linalg.slogdet(jacobian).logabsdet, atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("name", BIJECTIONS)
def test_a_batch_is_its_rows(name):
    shape, make = BIJECTIONS[name]
    bijection, x = perturbed(make), torch.randn(3, *shape, dtype=torch.float64)
    alone = torch.cat([bijection(row[None])[0] for row in x])
    torch.testing.assert_close(bijection(x)[0], alone, atol=1e-10, rtol=1e-10)


def test_haar_puts_the_averages_of_all_channels_first():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    y, _ = Haar()(x)
    torch.testing.assert_close(y[:, :2], 2 * torch.nn.functional.avg_pool2d(x, 2))
    assert math.isclose(float(y.square().sum()), float(x.square().sum()), rel_tol=1e-6)


def test_haar_refuses_odd_sizes():
    with pytest.raises(ValueError, match="even"):
        Haar()(torch.zeros(1, 1, 5, 4))


def test_actnorm_initialise_standardises_and_leaves_dead_features_alone():
    x = torch.randn(500, 3, 2, 2) * torch.tensor([0.3, 5.0, 0.0]).view(3, 1, 1) + 2
    norm = ActNorm(3)
    norm.initialise(x, floor=0.1)
    y, _ = norm(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3))[:2], torch.ones(2), atol=1e-3, rtol=0)
    assert y[:, 2].abs().max() < 1e-3
    assert norm.log_scale.exp().min() >= 0.0999


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


def test_affine_scale_is_bounded():
    coupling = AffineCoupling(1, linear(1, 2), bound=0.5)
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.fill_(100.0)
    assert coupling(torch.ones(1, 2))[1].abs().max() <= 0.5
