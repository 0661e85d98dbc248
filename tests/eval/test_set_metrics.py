import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from mfimage.errors import DataError
from mfimage.eval import (
    Moments,
    coverage,
    feature_distance,
    frechet_distance,
    kernel_distance,
    set_metrics,
    squared_mmd,
)


def randn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


def test_moments_are_stable_far_from_zero():
    x = randn(1000, 3, seed=3)
    shifted = Moments(3)
    for part in (x + 1e8).split(64):
        shifted.update(part)
    # float64 keeps 1e8 + x to 1.5e-8; E[x²] − E[x]² would be off by 1 and more.
    assert torch.allclose(shifted.cov, torch.cov(x.T), atol=1e-6)


def test_float32_features_are_accumulated_in_float64():
    assert Moments.of(randn(8, 3).float()).mean.dtype == torch.float64


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
        frechet_distance(Moments.of(randn(1, 3)), Moments.of(randn(5, 3)))
    with pytest.raises(DataError, match="3 and 4"):
        frechet_distance(Moments.of(randn(5, 3)), Moments.of(randn(5, 4)))


def test_closed_form_of_diagonal_gaussians():
    a = Moments.of(exactly([0.0, 1.0, -2.0], [1.0, 2.0, 0.5], seed=1))
    b = Moments.of(exactly([3.0, 1.0, 0.0], [1.5, 0.1, 0.5], seed=2))
    expected = (9 + 0 + 4) + (0.5**2 + 1.9**2 + 0)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_closed_form_with_extreme_variances():
    a = Moments.of(exactly([0.0, 0.0], [1e4, 1e-3], seed=1))
    b = Moments.of(exactly([0.0, 0.0], [1e4, 2e-3], seed=2))
    # 1e-6 beside traces of 1e8: the rounding of the traces is all that remains.
    assert frechet_distance(a, b) == pytest.approx(1e-6, abs=1e-6)


def test_matrix_square_root_of_scipy():
    a, b = Moments.of(correlated(200, 12, 4)), Moments.of(correlated(100, 12, 5))
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

    a, b = Moments.of(correlated(300, 20, 6)), Moments.of(correlated(150, 20, 7))
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
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(expected, rel=1e-6)


def test_laws():
    x, y = correlated(50, 8, 10), correlated(60, 8, 11)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(
        frechet_distance(Moments.of(y), Moments.of(x)), rel=1e-12
    )
    assert 0 <= frechet_distance(Moments.of(x), Moments.of(x)) < 1e-10
    assert frechet_distance(Moments.of(x), Moments.of(x + 2)) == pytest.approx(8 * 4, rel=1e-10)
    assert frechet_distance(Moments.of(torch.ones(5, 8)), Moments.of(torch.zeros(5, 8))) == pytest.approx(8)


@pytest.mark.parametrize(("n", "m"), [(20, 30), (60, 30), (200, 300)])
def test_distances_of_features_are_those_of_their_moments(n, m):
    a, b = correlated(n, 40, 1), correlated(m, 40, 2)
    assert feature_distance(a, b) == pytest.approx(frechet_distance(Moments.of(a), Moments.of(b)), rel=1e-8)
    assert feature_distance(a, a) < 1e-6 * float(a.square().sum())


def test_features_that_are_none():
    for bad in (randn(1, 40), randn(30, 39), torch.full((30, 40), torch.nan)):
        with pytest.raises(DataError):
            feature_distance(bad, randn(30, 40))


def test_squared_mmd_leaves_out_the_pairs_of_equal_index(monkeypatch):
    monkeypatch.setattr(set_metrics, "_ROWS", 4)
    x, y = randn(10, 2), randn(7, 2, seed=1) + 1

    def kernel(p, q):
        return torch.exp(-torch.cdist(p, q)) + 1

    within = [
        sum(kernel(z[[i]], z[[j]]).item() for i in range(len(z)) for j in range(len(z)) if i != j)
        / (len(z) * (len(z) - 1))
        for z in (x, y)
    ]
    assert squared_mmd(x, y, kernel) == pytest.approx(sum(within) - 2 * float(kernel(x, y).mean()))


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


def means(real, samples, k=5):
    found = coverage(real, samples, k)._asdict()
    return {name: float(values.mean()) for name, values in found.items()}


def test_on_a_line_by_hand():
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    samples = torch.tensor([[0.5], [1.5], [5.0], [100.0]])
    # With one neighbour real balls have radii 1, 1, 1, 8 and those of samples 1, 1, 3.5, 95.
    found = coverage(real, samples, k=1)
    assert found.precision.tolist() == [1, 1, 1, 0]
    assert found.density.tolist() == [2, 2, 1, 0]
    assert found.recall.tolist() == [1, 1, 1, 1]  # 10 lies in the ball of 100
    assert found.coverage.tolist() == [1, 1, 1, 1]
    # 0.5 lies in the balls of 0 and 1; 1.5 in those of 1 and 2; 5 in that of 10; 100 in none.


def test_the_same_set_and_sets_far_apart():
    x = randn(60, 4)
    assert means(x, x) == pytest.approx({"precision": 1, "recall": 1, "density": 1, "coverage": 1}, abs=0.21)
    assert set(means(x, x + 100).values()) == {0}


def test_samples_of_a_part_are_precise_and_do_not_cover():
    found = means(randn(300, 2), 0.1 * randn(300, 2, seed=1))
    assert found["precision"] > 0.98
    assert found["recall"] < 0.2
    assert found["coverage"] < 0.2


def test_against_prdc():
    prdc = pytest.importorskip("prdc")
    real, samples = randn(200, 16), 0.9 * randn(170, 16, seed=1) + 0.2
    theirs = prdc.compute_prdc(real.numpy(), samples.numpy(), nearest_k=5)
    assert means(real, samples) == pytest.approx(theirs, abs=1e-9)


def test_too_few():
    with pytest.raises(DataError, match="more than 5"):
        coverage(randn(5, 2), randn(9, 2))
