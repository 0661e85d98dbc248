"""Points that are computed once: of all data, of shifted copies and of mirror images."""

import pytest
import torch
from tiny import bump_images

from mfimage.datasets import Points
from mfimage.views import COPIES, MANY, copies_of, points_seen

CPU = torch.device("cpu")


def of_pixels(x, theta):
    return x.flatten(1) if theta is None else torch.cat([x.flatten(1), theta], 1)


def test_points_of_all_come_in_their_order():
    theta = torch.rand(300, 1)  # more than are mapped at once
    data = Points(bump_images(300), "bumps", theta)
    found = points_seen(data, of_pixels, CPU)
    assert torch.equal(found.x, torch.cat([data.x.flatten(1), theta], 1))
    assert torch.equal(found.theta, theta)


def test_shifted_copies_and_mirror_images_of_all_follow_with_what_belongs_to_them():
    data = Points(bump_images(300), "bumps", torch.rand(300, 1))
    found, again = (points_seen(data, of_pixels, CPU, True, 1.0, 2, 3) for _ in range(2))
    other = points_seen(data, of_pixels, CPU, True, 1.0, 2, 4)
    assert torch.equal(found.x, again.x)
    assert not torch.equal(found.x, other.x)
    assert torch.equal(found.theta, data.theta.repeat(6, 1))
    images = found.x[:, :-1].view(6, 300, 1, 8, 8)
    assert torch.equal(images[0], data.x)
    assert torch.equal(images[3:], images[:3].flip(-1))
    moved = (images[1:3] - data.x).flatten(2).square().sum(2)
    assert (moved > 0).float().mean() > 0.5
    assert moved.mean() < data.x.flatten(1).square().sum(1).mean() / 4  # a pixel at most
    assert not torch.equal(images[1], images[2])


@pytest.mark.parametrize(("count", "copies"), [(10, COPIES), (MANY // 4, 3), (MANY // 2, 1), (MANY, 0)])
def test_copies_complete_few_images(count, copies):
    assert copies_of(count) == copies
    assert copies_of(10 * MANY) == 0
