"""Where error curves bend, and what is recommended."""

import math

import pytest

from mfimage.eval.elbow import curve_figure, find_elbow, recommend


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


def test_where_both_agree_the_range_of_the_neighbours_decides():
    verdict = recommend(7.6, 8.1, 8, bent(8, 16))
    assert (verdict.dim, verdict.agree) == (8, True)
    assert "they agree" in verdict.reason


def test_a_later_bend_wins_over_neighbours_that_fall_short():
    verdict = recommend(9.0, 10.0, 16, bent(16, 30))
    assert (verdict.dim, verdict.agree) == (16, False)
    assert "disagree" in verdict.reason


def test_an_early_bend_wins_only_over_noise():
    flat = bent(2, 20, after=0.001)
    assert recommend(12.0, 14.0, 2, flat).dim == 2
    falling = bent(2, 20, after=0.2)
    assert recommend(12.0, 14.0, 2, falling).dim == 12


def test_without_a_bend_the_neighbours_decide():
    verdict = recommend(11.6, 20.0, None, [1 / (k + 1) for k in range(30)])
    assert (verdict.dim, verdict.agree) == (12, None)
    assert "choice of fidelity" in verdict.reason


def test_the_figure_is_a_picture():
    assert curve_figure(bent(3, 8), bent(3, 8, 0.5), (2.8, 3.1), 3, 3)[:4] == b"\x89PNG"
