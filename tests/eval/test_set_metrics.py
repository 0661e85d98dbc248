import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from mfimage.errors import DataError
from mfimage.eval import (
    coverage,
    frechet_distance,
    kernel_distance,
    set_metrics,
    squared_mmd,
)
from mfimage.eval.set_metrics import normality


def randn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(mean, std, n=50, seed=0):
    """Points whose mean and (diagonal) covariance are exactly the given ones."""
    centred = randn(n, len(mean), seed=seed)
    white = torch.linalg.qr(centred - centred.mean(0)).Q * (n - 1) ** 0.5
    return torch.tensor(mean, dtype=torch.float64) + white * torch.tensor(std, dtype=torch.float64)


def correlated(n, dim, seed):
    return randn(n, dim, seed=seed) @ randn(dim, dim, seed=seed + 100) + randn(dim, seed=seed + 200)


@pytest.mark.parametrize(("n", "m"), [(5, 7), (20, 30), (60, 30), (200, 300)])
def test_the_formula_by_eigenvalues_for_few_and_for_many_images(n, m):
    a, b = correlated(n, 40, 1), correlated(m, 40, 2)
    values, vectors = torch.linalg.eigh(torch.cov(a.T))
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ torch.cov(b.T) @ root).clamp(min=0).sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.var(0).sum() + b.var(0).sum() - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-6)
    assert frechet_distance(a, a) < 1e-6 * float(a.square().sum())


def test_distances_are_stable_far_from_zero():
    a, b = randn(1000, 3, seed=3), 2 * randn(900, 3, seed=4)
    # float64 keeps 1e8 + x to 1.5e-8; E[x²] − E[x]² would be off by 1 and more.
    assert frechet_distance(a + 1e8, b + 1e8) == pytest.approx(frechet_distance(a, b), abs=1e-6)


def test_float32_features_are_taken_in_float64():
    a, b = randn(30, 3).float(), randn(20, 3, seed=1).float()
    assert frechet_distance(a, b) == frechet_distance(a.double(), b.double())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("dim", [3, 40])
def test_features_that_are_not_finite(bad, dim):
    x = randn(5, dim)
    x[2, 1] = bad
    with pytest.raises(DataError, match="1 of 5"):
        frechet_distance(randn(9, dim), x)


def test_features_that_are_none():
    with pytest.raises(DataError, match="at least two images; there are 1"):
        frechet_distance(randn(1, 3), randn(5, 3))
    for shape in ((5, 4), (5,), (5, 3, 1)):
        with pytest.raises(DataError, match=r"\(N, dim\); got \(5, 3\) and \(5,"):
            frechet_distance(randn(5, 3), randn(*shape))


def test_closed_form_of_diagonal_gaussians():
    a = exactly([0.0, 1.0, -2.0], [1.0, 2.0, 0.5], seed=1)
    b = exactly([3.0, 1.0, 0.0], [1.5, 0.1, 0.5], seed=2)
    expected = (9 + 0 + 4) + (0.5**2 + 1.9**2 + 0)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_closed_form_with_extreme_variances():
    a = exactly([0.0, 0.0], [1e4, 1e-3], seed=1)
    b = exactly([0.0, 0.0], [1e4, 2e-3], seed=2)
    # 1e-6 beside traces of 1e8: the rounding of the traces is all that remains.
    assert frechet_distance(a, b) == pytest.approx(1e-6, abs=1e-6)


def test_matrix_square_root_of_scipy():
    a, b = correlated(200, 12, 4), correlated(100, 12, 5)
    c1, c2 = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    root = sqrtm(c1)
    cross = np.trace(np.real(sqrtm(root @ c2 @ root)))
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(c1) + np.trace(c2) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pytorch-fid calls sqrtm the old way
def test_pytorch_fid():
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    from pytorch_fid.fid_score import calculate_frechet_distance

    a, b = correlated(300, 20, 6), correlated(150, 20, 7)
    args = (t.numpy() for s in (a, b) for t in (s.mean(0), torch.cov(s.T)))
    assert frechet_distance(a, b) == pytest.approx(calculate_frechet_distance(*args), rel=1e-9)


def test_laws():
    x, y = correlated(50, 8, 10), correlated(60, 8, 11)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-12)
    assert 0 <= frechet_distance(x, x) < 1e-10
    assert frechet_distance(x, x + 2) == pytest.approx(8 * 4, rel=1e-10)
    assert frechet_distance(torch.ones(5, 8), torch.zeros(5, 8)) == pytest.approx(8)


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
    value, spread = kernel_distance(randn(20_000, 1), randn(20_000, 1, seed=1) + 0.5, 100, 500)
    assert abs(value - truth) < 4 * spread * (500 / 20_000) ** 0.5
    assert spread < truth


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


def test_normal_codes_are_as_near_as_chance_has_them():
    z = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    found = normality(z)
    assert found.coordinates == pytest.approx(found.expected, rel=0.35)
    assert found.radius < 2 * found.expected


@pytest.mark.parametrize("spoil", [lambda z: 2 * z, lambda z: z + 0.5, lambda z: z.abs()])
def test_codes_that_are_not_normal_are_far(spoil):
    z = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    assert normality(spoil(z)).coordinates > 5 * normality(z).expected


def test_dependent_codes_show_in_the_radius():
    z = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 6)
    assert normality(z).coordinates < 2 * normality(z).expected
    assert normality(z).radius > 5 * normality(z).expected


def test_codes_that_are_not_finite():
    with pytest.raises(DataError):
        normality(torch.full((3, 2), torch.nan))
