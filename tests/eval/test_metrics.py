import pytest
import torch

from mfimage.errors import DataError
from mfimage.eval.metrics import normality, rank_and_condition


def test_rank_and_condition_of_known_metrics():
    gram = torch.stack([torch.diag(torch.tensor([4.0, 1.0, 9.0])), torch.diag(torch.tensor([1.0, 0.0, 4.0]))])
    rank, condition = rank_and_condition(gram.double())
    assert rank.tolist() == [3, 2]
    assert condition.tolist() == [3, torch.inf]


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
