import pytest
import torch

from mfimage.errors import UsageError
from mfimage.eval import density_summary


def test_known_values():
    result = density_summary(torch.arange(101.0), dim=10)
    assert result == {
        "n": 101,
        "n_finite": 101,
        "n_nan": 0,
        "n_plus_inf": 0,
        "n_minus_inf": 0,
        "mean": pytest.approx(50),
        "per_dim": pytest.approx(5),
        "median": pytest.approx(50),
        "q05": pytest.approx(5),
        "q95": pytest.approx(95),
        "standard_error": pytest.approx((101 * 102 / 12) ** 0.5 / 101**0.5),
    }


def test_values_that_are_not_finite_are_counted_by_kind():
    inf, nan = torch.inf, torch.nan
    result = density_summary(torch.tensor([-3.0, nan, -5.0, inf, -inf, -inf]), dim=2)
    counts = [result[key] for key in ("n", "n_finite", "n_nan", "n_plus_inf", "n_minus_inf")]
    assert counts == [6, 2, 1, 1, 2]
    assert result["mean"] == -4
    assert result["per_dim"] == -2


def test_nothing_finite_gives_no_statistics():
    result = density_summary(torch.tensor([torch.nan]), dim=2)
    assert result["n_nan"] == 1
    assert result["mean"] is result["median"] is result["per_dim"] is result["standard_error"] is None


def test_large_float32_values_are_averaged_in_float64():
    values = torch.full((4096,), 16777216.0)
    values[0] += 4096
    assert density_summary(values, dim=1)["mean"] == 16777217


@pytest.mark.parametrize(("values", "dim"), [(torch.zeros(2, 1), 2), (torch.zeros(2), 0)])
def test_misuse(values, dim):
    with pytest.raises(UsageError):
        density_summary(values, dim)
