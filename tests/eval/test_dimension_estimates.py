"""Nearest neighbours on clouds whose dimension is known, and where error curves bend."""

import math

import pytest
import torch

from mfimage.errors import DataError
from mfimage.eval.dimension_estimates import (
    EstimatorBias,
    estimate,
    estimates,
    find_elbow,
    levina_bickel,
    mean_levina_bickel,
    neighbour_distances,
    two_nn,
)


def cloud(n, dim, features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(features, dim, generator=generator)).Q
    return torch.randn(n, dim, generator=generator) @ basis.T


def test_distances_are_those_of_brute_force():
    x = torch.randn(60, 4, dtype=torch.float64)
    brute = torch.cdist(x, x).fill_diagonal_(torch.inf).sort(1).values[:, :5]
    torch.testing.assert_close(neighbour_distances(x, 5), brute)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_both_estimators_know_small_dimensions(dim):
    x = torch.rand(3000, dim, generator=torch.Generator().manual_seed(0))
    distances = neighbour_distances(torch.cat([x, x.sum(1, keepdim=True)], 1))
    assert two_nn(distances) == pytest.approx(dim, rel=0.1)
    assert mean_levina_bickel(distances) == pytest.approx(dim, rel=0.1)


def test_calibration_lifts_what_falls_short():
    x = cloud(2000, 20, 40, seed=1)
    raw = mean_levina_bickel(neighbour_distances(x))
    found = estimate(x, EstimatorBias.measure(2000, 40))
    assert raw < 17
    assert found.dimension == pytest.approx(20, rel=0.1)
    assert found.mle == pytest.approx(raw)


def test_calibration_beyond_its_table_goes_on_in_proportion():
    table = EstimatorBias.measure(300, 8)
    assert table.known[-1] == 8
    assert table.correct(2 * table.two_nn[-1], 2 * table.mle[-1]) == pytest.approx(16)


def test_equalised_directions_count_narrow_ones():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 6, generator=generator) * torch.tensor([1, 1, 1, 0.02, 0.02, 0.02])
    plain, equalised = estimates(x, EstimatorBias.measure(3000, 6))
    assert plain.dimension < 5
    assert equalised.dimension == pytest.approx(6, rel=0.1)


def test_formulas_by_hand():
    distances = torch.tensor([[1.0, 2.0, 4.0]])
    assert levina_bickel(distances).tolist() == pytest.approx([2 / (math.log(4) + math.log(2))])
    assert levina_bickel(torch.ones(3, 3)).tolist() == [math.inf] * 3
    both = torch.cat([distances, torch.tensor([[1.0, 1.0, 3.0]])])
    assert mean_levina_bickel(both) == pytest.approx(4 / (math.log(8) + 2 * math.log(3)))
    assert mean_levina_bickel(torch.ones(3, 3)) == math.inf
    assert two_nn(torch.ones(20, 2)) == math.inf


def test_too_few_or_equal_points_are_refused():
    table = EstimatorBias.measure(200, 3)
    with pytest.raises(DataError, match="too few"):
        estimates(torch.randn(50, 3), table)
    with pytest.raises(DataError, match="all are the same"):
        estimates(torch.ones(200, 3), table)
    with pytest.raises(DataError, match="too few for 10 neighbours"):
        neighbour_distances(torch.randn(10, 2))
    with pytest.raises(DataError, match="doubles"):
        neighbour_distances(torch.randn(30, 2).repeat(4, 1))


def bent(at, last, before=1.0, after=0.05):
    return [math.exp(-before * min(k, at) - after * max(0, k - at)) for k in range(last + 1)]


@pytest.mark.parametrize(("at", "last"), [(2, 8), (8, 16), (16, 32)])
def test_the_bend_of_two_lines_is_found(at, last):
    assert find_elbow(bent(at, last)) == at


def test_a_power_law_and_a_straight_line_have_no_bend():
    assert find_elbow([2.0, *(1 / k for k in range(1, 30))]) is None
    assert find_elbow([math.exp(-0.3 * k) for k in range(20)]) is None
    assert find_elbow([1.0, 0.5, 0.1]) is None
    assert find_elbow([0.0] * 9) is None
