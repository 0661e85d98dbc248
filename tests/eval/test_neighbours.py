import pytest
import torch

from mfimage.errors import DataError
from mfimage.eval.neighbours import copies, coverage, nearest


def means(real, samples, k=5):
    found = coverage(real, samples, k)._asdict()
    return {name: float(values.mean()) for name, values in found.items()}


def randn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


def test_nearest_and_copies():
    train, held_out = randn(500, 3), randn(400, 3, seed=1)
    distances, which = nearest(train[:7], train)
    assert which.tolist() == list(range(7))
    assert distances.max() < 1e-3
    usual = nearest(held_out, train)[0]
    learned_by_heart = torch.cat([train[:50] + 1e-6, randn(50, 3, seed=2)])
    fresh = copies(nearest(randn(400, 3, seed=3), train)[0], usual)
    assert fresh.nearer.mean() < 0.04
    assert fresh.ratio == pytest.approx(1, abs=0.15)
    assert copies(nearest(learned_by_heart, train)[0], usual).nearer.mean() >= 0.5
