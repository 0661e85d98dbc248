"""What plots are drawn with: the SVG of a page, keys of legends, ranges of axes."""

import math
import re

import matplotlib
import pytest
from pages import Drawing

from mfimage.eval import figures
from mfimage.eval.figures import Key, spread
from mfimage.eval.plots import curve_plot

NAN, INF = math.nan, math.inf


def test_the_svg_is_text_in_the_colours_of_the_page_and_repeats():
    before = dict(matplotlib.rcParams)
    plot, again = (curve_plot("c", "x < y & $z$", ([0.0, 1.0], [1.0, 2.0]), [(0.5, 1.5)]) for _ in range(2))
    assert plot == again
    assert dict(matplotlib.rcParams) == before
    ((_, svg, about),) = plot.panels
    assert "x < y & $z$" in Drawing(svg).texts()  # not taken for a formula
    assert about == "c: x < y & $z$ by step"
    assert not re.search(r"#(?![mp]\w{10})|xlink|font-family|<style|<metadata|\bpt\b", svg)
    references = set(re.findall(r"#(\w+)", svg))
    assert references == set(re.findall(r' id="(\w+)"', svg))
    assert len(svg) < 9000


def test_keys_say_how_each_is_drawn():
    figure = figures.canvas()
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], ":", color=figures.INK, label="dots")
    axes.fill_between([0, 1], [0, 1], color=figures.TRUTH, label="area")
    axes.scatter([0, 1], [0, 1], color="#123456", label="points")
    axes.scatter([0, 1], [0, 1], c=[1.0, 2.5], cmap="gray", label="value")
    keys = {key.label: key for key in figures.plot("", {"": figure}).keys}
    assert keys["dots"] == Key("dots", "dash", "var(--ink)")
    assert keys["area"] == Key("area", "area", "var(--truth)")
    assert keys["points"] == Key("points", "dot", "#123456")
    scale = keys["value: 1.00 to 2.50"]
    assert (scale.shape, scale.colour[:34]) == ("scale", "linear-gradient(to right, #000000,")


@pytest.mark.parametrize(
    "values", [[], [NAN], [3.0], [3.0, 3.0], [0.0, 1e-20], [1e30, 1e30], [-math.inf, 1.0]]
)
def test_a_range_is_never_empty(values):
    low, high = spread(values, 0.0)
    assert math.isfinite(low)
    assert low < high < math.inf
