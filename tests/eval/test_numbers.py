import math

import pytest
import torch

from mfimage.errors import UsageError
from mfimage.eval.numbers import Interval, Number, bootstrap, mean_interval


def test_a_mean_moves_by_its_standard_error():
    x = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, low, high = found = bootstrap(lambda v: float(v.mean()), x, repeats=2000)
    assert (low + high) / 2 == pytest.approx(value) == pytest.approx(float(x.mean()))
    assert high - low == pytest.approx(2 * 1.96 * float(x.std()) / 20, rel=0.06)
    assert mean_interval(x) == pytest.approx(found, abs=0.01)


def test_samples_are_drawn_apart_and_by_the_seed():
    a, b = torch.arange(5.0), torch.arange(5.0)
    _, low, high = bootstrap(lambda x, y: float((x - y).abs().sum()), a, b)
    assert high > low  # the same draw of both would leave no difference
    assert bootstrap(lambda x: float(x.mean()), a, seed=3) == bootstrap(lambda x: float(x.mean()), a, seed=3)


def test_ends_are_cut_to_what_can_be():
    assert Interval(0.9, 0.7, 1.1).cut(0, 1) == (0.9, 0.7, 1)


def test_one_draw_tells_nothing():
    with pytest.raises(UsageError, match="at least 2"):
        bootstrap(float, torch.ones(1), repeats=1)


@pytest.mark.parametrize("ends", [(math.nan, math.nan), (0.0, math.inf), None])
def test_ends_that_are_not_known_are_none_as_when_they_are_read_again(ends):
    assert Number(1.0, 1, ends).interval is None
    assert Number(1.0, 2, (0.5, 1.5)).interval == (0.5, 1.5)
