"""The plots: where lines, bars, ticks and thresholds stand."""

import io
import math
import re

import numpy as np
import pytest
import torch
from pages import Drawing
from PIL import Image

from mfimage.eval.figures import SERIES, Key
from mfimage.eval.plots import curve_plot, dimension_figure, histogram_plot, lines_plot

NAN, INF = math.nan, math.inf


def drawing(plot, panel=0):
    return Drawing(plot.panels[panel][1])


def test_curves_are_drawn_to_scale():
    curve = [0.0, 400.0, 800.0], [1.0, 10.0, 100.0]
    drawn = drawing(curve_plot("loss", "nats", curve, [(400.0, 100.0)], log=True))
    ((x0, y0), (x1, y1), (x2, y2)) = drawn.paths("s0")[0]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.1)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.1) != 0  # decades are equal
    _, dot = drawn.paths("s1")
    assert dot.mean(0) == pytest.approx((x1, y2), abs=0.5)
    assert drawn.ticks("x")["400"] == pytest.approx(x1, abs=0.1)
    assert drawn.ticks("x")["800"] == pytest.approx(x2, abs=0.1)
    assert drawn.ticks("y")["10"] == pytest.approx(y1, abs=6)  # the foot of its letters
    assert {"nats, log scale", "step"} <= drawn.texts()
    plain = drawing(curve_plot("loss", "nats", curve))
    assert "nats" in plain.texts()
    assert np.ptp(plain.paths("s0")[0][:2, 1]) < 0.2 * np.ptp(plain.paths("s0")[0][:, 1])


def test_long_curves_are_averaged_and_gaps_left_out():
    plot = curve_plot("c", "nats", (range(3000), [2.0, NAN, 4.0, NAN, 9.0, -9.0, 1.0, 8.0] * 375))
    assert plot.keys == [Key("training (a point is the mean of 15)", "line", "var(--s0)")]
    assert 100 < len(drawing(plot).paths("s0")[0]) <= 151  # the last one comes twice
    assert not re.search(r"nan|inf", plot.panels[0][1])
    assert curve_plot("c", "nats", ([1.0], [NAN])) is None


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values", [[3.0], [3.0, 3.0], [0.0, 0.0], [-1.0, 5.0], [1e-9, 1e9], [0.5, 0.6], [-1e30, 1e30]]
)
def test_odd_ranges_are_drawn(values, log):
    drawn = drawing(curve_plot("c", "nats", (range(len(values)), values), log=log))
    numbers = [text for text in drawn.texts() if text not in ("step", "nats", "nats, log scale")]
    assert 3 <= len(numbers) <= 22
    width, height = drawn.size
    x, y = drawn.paths("s0")[0].T
    assert x.min() >= 0
    assert x.max() <= width
    assert y.min() >= 0
    assert y.max() <= height
    assert all(0 <= x <= width for x in drawn.ticks("x").values())
    assert all(0 < y <= height for y in drawn.ticks("y").values())


def test_histogram_fills_the_familiar_set_and_chooses_its_scale():
    familiar, strange = torch.linspace(0.01, 0.02, 50), torch.linspace(0.2, 0.9, 50)
    wide = histogram_plot({"clothes": familiar, "digits": strange}, mark=0.1)
    assert [(key.label, key.shape) for key in wide.keys] == [
        ("clothes", "area"), ("digits", "line"), ("threshold", "dash")
    ]  # fmt: skip
    drawn = drawing(wide)
    assert "reconstruction error a pixel, log scale" in drawn.texts()
    (filled,), (outline,) = drawn.paths("s0", "fill"), drawn.paths("s1")
    (mark,) = drawn.paths("ink")
    assert filled[:, 0].max() < mark[0, 0] < outline[:, 0].min()  # separate sets do not touch
    assert mark[0, 0] == mark[1, 0] == pytest.approx(drawn.ticks("x")["0.1"], abs=0.1)
    assert outline[:, 1].min() == pytest.approx(filled[:, 1].min(), abs=0.1)  # each to its own peak
    narrow = drawing(histogram_plot({"a": familiar, "b": familiar * 2}, "score"))
    assert "score" in narrow.texts()


def test_scores_that_are_not_finite_are_counted_not_hidden():
    scores = {"clothes": torch.tensor([0.0, 1.0, INF]), "digits": torch.tensor([NAN])}
    assert histogram_plot(scores).keys[0].label == "clothes (1 of 3 not finite, left out)"
    assert histogram_plot({"a": torch.tensor([NAN])}) is None
    assert histogram_plot({"a": torch.ones(9)}, mark=-1.0).keys[0].label == "a"


def test_lines_share_their_axes():
    plot = lines_plot(
        "ROC", "flagged", "found", {"<b>$1$": ([0.0, 0, 1], [0.0, 1, 1]), "b": ([0.0, 1], [0.0, 1])}
    )
    assert [key.label for key in plot.keys] == ["<b>$1$", "b"]
    assert plot.panels[0][2] == "ROC: found by flagged"
    first, second = (drawing(plot).paths(colour)[0] for colour in ("s0", "s1"))
    assert first[0] == pytest.approx(second[0])
    assert first[-1] == pytest.approx(second[-1])
    assert first[1] == pytest.approx((first[0, 0], first[-1, 1]))


def test_the_dimension_curve_is_a_picture():
    falling, pca = [2.7**-k for k in range(9)], [1.6**-k for k in range(9)]
    with Image.open(io.BytesIO(dimension_figure(falling, pca, (2.8, 3.1), 3, 3))) as picture:
        assert picture.size == (1440, 800)
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    for colour in SERIES[:2]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - rgb).sum(-1) < 12).sum() > 300
    assert dimension_figure(falling, pca, (2.8, 3.1), None, 3) != dimension_figure(
        falling, pca, (2.8, 3.1), 3, 3
    )
