import pytest
import torch

from mfimage.errors import DataError
from mfimage.eval.kernel import kernel_distance


def randn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_points_by_hand():
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    # k(x, y) = (xy + 1)³: within a 1, within b 7³; across 1, 1, 3³, 4³.
    value, _ = kernel_distance(a, b, subsets=1)
    assert value == pytest.approx(1 + 343 - 2 * (1 + 1 + 27 + 64) / 4)


def test_it_is_unbiased():
    values = [kernel_distance(randn(40, 3, seed=i), randn(40, 3, seed=1000 + i), 1)[0] for i in range(400)]
    spread = torch.tensor(values)
    assert abs(spread.mean()) < 4 * spread.std() / 20


def test_a_shift_of_gaussians_has_its_analytic_value():
    # E k = E (xy + 1)³ = E (xy)³ + 3 E (xy)² + 3 E xy + 1 for x, y ~ N(m, 1) and N(n, 1) of one dimension.
    def expected(m, n):
        second, third = (lambda v: v**2 + 1), (lambda v: v**3 + 3 * v)
        return third(m) * third(n) + 3 * second(m) * second(n) + 3 * m * n + 1

    truth = expected(0, 0) + expected(0.5, 0.5) - 2 * expected(0, 0.5)
    value, spread = kernel_distance(randn(20_000, 1), randn(20_000, 1, seed=1) + 0.5, 40, 2000)
    assert abs(value - truth) < 4 * spread * (2000 / 20_000) ** 0.5
    assert spread < 0.5 * truth


def test_against_torch_fidelity():
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = randn(300, 64), randn(250, 64, seed=1) + 0.1
    theirs = kid.kid_features_to_metric(a, b, verbose=False, kid_subsets=7, kid_subset_size=100)
    value, spread = kernel_distance(a, b, 7, 100)
    assert value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert spread == pytest.approx(theirs["kernel_inception_distance_std"], rel=0.1)  # theirs by 1/N


@pytest.mark.parametrize(("a", "b"), [((1, 2), (5, 2)), ((5, 2), (5, 3)), ((5,), (5,))])
def test_what_cannot_be_compared(a, b):
    with pytest.raises(DataError):
        kernel_distance(torch.zeros(a), torch.zeros(b))
