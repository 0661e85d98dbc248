import numpy as np
import pytest
import torch

from mfimage.denoising.operators import Blur, Downsample, Identity, Mask
from mfimage.errors import UsageError

SHAPE = (3, 2, 12, 8)
OPERATORS = {
    "identity": Identity(),
    "mask": Mask(torch.rand(3, 1, 12, 8, generator=torch.Generator().manual_seed(0)) < 0.4),
    "down 2": Downsample(2),
    "down 4": Downsample(4),
    "blur": Blur(1.3),
}


def images():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_adjoint_passes_the_dot_product_test(name):
    operator, x = OPERATORS[name], images()
    seen = operator.forward(x)
    y = torch.randn(seen.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    left, right = (seen * y).sum(), (x * operator.adjoint(y)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=0)
    assert operator.adjoint(y).shape == x.shape


@pytest.mark.parametrize("name", OPERATORS)
def test_it_is_linear_and_takes_parts(name):
    operator, x = OPERATORS[name], images()
    torch.testing.assert_close(
        operator.forward(2 * x - x.flip(1)), 2 * operator.forward(x) - operator.forward(x.flip(1))
    )
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(operator.part(rows).forward(x[rows]), operator.forward(x)[rows])


@pytest.mark.parametrize("factor", [2, 4])
def test_scaling_down_is_scikit_images(factor):
    from skimage.transform import downscale_local_mean

    x = images()
    expected = downscale_local_mean(x.numpy(), (1, 1, factor, factor))
    np.testing.assert_allclose(Downsample(factor).forward(x), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["mask", "down 2", "down 4"])
def test_completion_agrees_with_what_is_seen_and_moves_least(name):
    operator, x = OPERATORS[name], images()
    truth = images().flip(0)
    y = operator.forward(truth)
    completed = operator.completed(x, y)
    torch.testing.assert_close(operator.forward(completed), y)
    off = completed - x  # orthogonal to the null space: a projection never moves away from the truth
    assert abs(float((off * (truth - completed)).sum())) < 1e-10
    assert (completed - truth).norm() < (x - truth).norm()


def test_what_does_not_divide_is_refused():
    with pytest.raises(UsageError, match="12 × 8 pixels cannot be scaled by 1/5"):
        Downsample(5).forward(images())
    with pytest.raises(UsageError, match="factor"):
        Downsample(0)
