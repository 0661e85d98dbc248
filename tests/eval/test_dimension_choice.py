"""Choosing d, from Python and as typed, on data whose dimension is known."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails
from PIL import Image

from mfimage import choose_dimension
from mfimage.datasets import Points
from mfimage.errors import DataError
from mfimage.eval.dimension_choice import recommend


def swiss(n=1500, copies=0):
    generator = torch.Generator().manual_seed(0)
    t, y = 1.5 * torch.pi * (1 + 2 * torch.rand(n, generator=generator)), torch.rand(n, generator=generator)
    x = torch.stack([t * t.cos(), 20 * y, t * t.sin()], 1)
    lift = torch.linalg.qr(torch.randn(8, 3, generator=generator)).Q
    x = x @ lift.T
    return Points(torch.cat([x, x[:copies]]), "swiss roll")


def test_a_surface_has_two_dimensions_and_a_reason():
    found = choose_dimension(swiss(copies=7), steps=150)
    assert found.dim in (2, 3)
    assert found.plain.dimension == pytest.approx(2, abs=0.4)
    assert (found.examples, found.repeated, found.features) == (1500, 7, 8)
    assert "Nearest neighbours" in found.reason
    assert len(found.errors) == len(found.pca)
    assert found.errors[0] == pytest.approx(found.pca[0], rel=0.05)
    assert found.errors[-1] < found.errors[0] / 10
    json.dumps(found.as_json())


def test_the_same_seed_says_the_same():
    one, two = (choose_dimension(swiss(400), steps=20, seed=3) for _ in range(2))
    assert one == two


def test_the_largest_dimension_is_kept_to():
    found = choose_dimension(Points(torch.randn(500, 12), "noise"), steps=10, max_dim=4)
    assert found.dim == 4
    assert any("largest d considered" in note for note in found.notes)


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(DataError, match="50 examples"):
        choose_dimension(Points(torch.randn(50, 4), "few"))
    with pytest.raises(DataError, match="copies"):
        choose_dimension(Points(torch.ones(300, 4), "flat"))
    with pytest.raises(DataError, match="1 values"):
        choose_dimension(Points(torch.randn(300, 1), "line"))


def bent(at, last, before=1.0, after=0.05):
    return [math.exp(-before * min(k, at) - after * max(0, k - at)) for k in range(last + 1)]


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


def test_as_typed_with_a_plot(mfimage, bumps):
    code, out, err = mfimage("dimension", bumps, "--steps", 30, "-o", "out")
    assert code == 0, err
    assert int(out) == json.loads(Path("out/dimension.json").read_text())["dim"]
    assert "Nearest neighbours estimate" in err
    with Image.open("out/dimension.png") as picture:
        assert picture.format == "PNG"
    code, out, err = mfimage("dimension", bumps, "--steps", 30, "--json", "-q")
    assert (code, err) == (0, "")
    assert json.loads(out)["reason"]


def test_as_typed_on_bad_data(mfimage):
    np.save("flat.npy", np.zeros((200, 8, 8), np.uint8))
    assert fails(mfimage("dimension", "flat.npy"), 3, "copies")
