"""Masks and boxes, by hand."""

import torch

from mfimage.ood.places import outlined, place_of


def test_parts_that_somewhere_exceed_the_level_are_places():
    heat = torch.zeros(7, 9)
    heat[0, 0], heat[1, 1] = 0.6, 1.5  # they touch at a corner
    heat[5, 2:6] = torch.tensor([0.7, 3.0, 0.7, 0.4])
    heat[0, 7:9] = 0.9  # nowhere above 1
    heat[3, 8] = 1.0  # not above it
    found = place_of(heat, 0.5, torch.ones(1, 7, 9))
    assert found.boxes == [(2, 5, 5, 6), (0, 0, 2, 2)]  # the strongest first
    expected = torch.zeros(7, 9, dtype=torch.bool)
    expected[0, 0] = expected[1, 1] = True
    expected[5, 2:5] = True
    assert torch.equal(found.mask, expected)
    assert torch.equal(found.heat, heat)
    assert found.heat.dtype == torch.float32


def test_nothing_strange_is_no_box():
    found = place_of(torch.zeros(3, 3, dtype=torch.float64), 2.0, torch.ones(1, 3, 3))
    assert found.boxes == []
    assert not found.mask.any()
    assert len(place_of(torch.full((3, 3), 1.5), 2.0, torch.ones(1, 3, 3)).boxes) == 1  # an edge above 1 is 1


def test_an_outline_goes_around_a_mask():
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[2, 2] = True
    drawn = outlined(torch.full((1, 5, 5), 0.5), mask)
    assert drawn.shape == (3, 5, 5)
    changed = (drawn != 0.5).any(0)
    assert int(changed.sum()) == 8
    assert not changed[2, 2]
    assert (drawn[0, changed] > drawn[1, changed]).all()
