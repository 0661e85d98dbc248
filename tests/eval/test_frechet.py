import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from mfimage.errors import DataError
from mfimage.eval import Moments, feature_distance, frechet_distance


def randn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of(features):
    result = Moments(features.shape[1])
    result.update(features)
    return result


def exactly(mean, std, n=50, seed=0):
    """Points whose mean and (diagonal) covariance are exactly the given ones."""
    centred = randn(n, len(mean), seed=seed)
    white = torch.linalg.qr(centred - centred.mean(0)).Q * (n - 1) ** 0.5
    return torch.tensor(mean, dtype=torch.float64) + white * torch.tensor(std, dtype=torch.float64)


def correlated(n, dim, seed):
    return randn(n, dim, seed=seed) @ randn(dim, dim, seed=seed + 100) + randn(dim, seed=seed + 200)


def test_moments_are_those_of_all_batches_together():
    x = correlated(37, 5, 1)
    result = Moments(5)
    for part in x.split([1, 20, 0, 16]):
        result.update(part)
    assert result.n == 37
    assert torch.allclose(result.mean, x.mean(0), rtol=1e-13)
    assert torch.allclose(result.cov, torch.cov(x.T), rtol=1e-12)


def test_merge_is_concatenation_and_leaves_the_other():
    x = correlated(30, 4, 2)
    left, right, empty = of(x[:9]), of(x[9:]), Moments(4)
    before = right.cov
    left.merge(empty)
    left.merge(right)
    empty.merge(right)
    assert left.n == 30
    assert torch.allclose(left.mean, x.mean(0), rtol=1e-13)
    assert torch.allclose(left.cov, torch.cov(x.T), rtol=1e-12)
    assert torch.equal(right.cov, before)
    assert torch.allclose(empty.cov, before, rtol=1e-15)


def test_moments_are_stable_far_from_zero():
    x = randn(1000, 3, seed=3)
    shifted = Moments(3)
    for part in (x + 1e8).split(64):
        shifted.update(part)
    # float64 keeps 1e8 + x to 1.5e-8; E[x²] − E[x]² would be off by 1 and more.
    assert torch.allclose(shifted.cov, torch.cov(x.T), atol=1e-6)


def test_float32_features_are_accumulated_in_float64():
    assert of(randn(8, 3).float()).mean.dtype == torch.float64


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_features_that_are_not_finite(bad):
    x = randn(5, 3)
    x[2, 1] = bad
    with pytest.raises(DataError, match="1 of 5"):
        Moments(3).update(x)


def test_misuse():
    with pytest.raises(DataError, match=r"\(2, 4\)"):
        Moments(3).update(randn(2, 4))
    with pytest.raises(DataError, match="at least two images; there are 1"):
        frechet_distance(of(randn(1, 3)), of(randn(5, 3)))
    with pytest.raises(DataError, match="3 and 4"):
        frechet_distance(of(randn(5, 3)), of(randn(5, 4)))
    with pytest.raises(DataError, match="4 into 3"):
        Moments(3).merge(Moments(4))


def test_closed_form_of_diagonal_gaussians():
    a = of(exactly([0.0, 1.0, -2.0], [1.0, 2.0, 0.5], seed=1))
    b = of(exactly([3.0, 1.0, 0.0], [1.5, 0.1, 0.5], seed=2))
    expected = (9 + 0 + 4) + (0.5**2 + 1.9**2 + 0)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_closed_form_with_extreme_variances():
    a = of(exactly([0.0, 0.0], [1e4, 1e-3], seed=1))
    b = of(exactly([0.0, 0.0], [1e4, 2e-3], seed=2))
    # 1e-6 beside traces of 1e8: the rounding of the traces is all that remains.
    assert frechet_distance(a, b) == pytest.approx(1e-6, abs=1e-6)


def test_matrix_square_root_of_scipy():
    a, b = of(correlated(200, 12, 4)), of(correlated(100, 12, 5))
    c1, c2 = a.cov.numpy(), b.cov.numpy()
    root = sqrtm(c1)
    cross = np.trace(np.real(sqrtm(root @ c2 @ root)))
    expected = float((a.mean - b.mean).square().sum()) + np.trace(c1) + np.trace(c2) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pytorch-fid calls sqrtm the old way
def test_pytorch_fid():
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    from pytorch_fid.fid_score import calculate_frechet_distance

    a, b = of(correlated(300, 20, 6)), of(correlated(150, 20, 7))
    args = (t.numpy() for t in (a.mean, a.cov, b.mean, b.cov))
    assert frechet_distance(a, b) == pytest.approx(calculate_frechet_distance(*args), rel=1e-9)


def test_fewer_images_than_dimensions():
    x, y = correlated(5, 64, 8), correlated(7, 64, 9)
    basis = torch.linalg.qr(torch.cat([x, y]).T).Q
    values, vectors = torch.linalg.eigh(torch.cov((x @ basis).T))
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ torch.cov((y @ basis).T) @ root).clamp(min=0).sqrt().sum()
    traces = x.var(0).sum() + y.var(0).sum()
    expected = float((x.mean(0) - y.mean(0)).square().sum() + traces - 2 * cross)
    assert frechet_distance(of(x), of(y)) == pytest.approx(expected, rel=1e-6)


def test_laws():
    x, y = correlated(50, 8, 10), correlated(60, 8, 11)
    assert frechet_distance(of(x), of(y)) == pytest.approx(frechet_distance(of(y), of(x)), rel=1e-12)
    assert 0 <= frechet_distance(of(x), of(x)) < 1e-10
    assert frechet_distance(of(x), of(x + 2)) == pytest.approx(8 * 4, rel=1e-10)
    assert frechet_distance(of(torch.ones(5, 8)), of(torch.zeros(5, 8))) == pytest.approx(8)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (60, 30), (200, 300)])
def test_distances_of_features_are_those_of_their_moments(n, m):
    a, b = correlated(n, 40, 1), correlated(m, 40, 2)
    assert feature_distance(a, b) == pytest.approx(frechet_distance(of(a), of(b)), rel=1e-8)
    assert feature_distance(a, a) < 1e-6 * float(a.square().sum())


def test_features_that_are_none():
    for bad in (randn(1, 40), randn(30, 39), torch.full((30, 40), torch.nan)):
        with pytest.raises(DataError):
            feature_distance(bad, randn(30, 40))
