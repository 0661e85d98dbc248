"""The noise that is found in images: its line of variance, and lost values."""

import pytest
import torch

from mfimage.denoising.estimation import fill_lost, guess_error, lost_share, lost_values, variance_line
from mfimage.noise import parse_noise


def textured(count, side=64, seed=3):
    """Smooth light over the whole range with fine texture in it, (N, 1, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 1, 5, 5, generator=generator)
    light = torch.nn.functional.interpolate(small, (side, side), mode="bicubic", align_corners=True)
    waves = 0.03 * torch.sin(torch.arange(side) * 1.3) * torch.sin(torch.arange(side) * 0.9)[:, None]
    return (light + waves).clamp(0, 1)


def noisy(text, count=40, cut=False):
    x = textured(count)
    y = parse_noise(text).add(x, torch.Generator().manual_seed(0))[0]
    return x, ((255 * y.clamp(0, 1)).round() / 255 if cut else y)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    ("text", "a", "b"),
    [
        ("poisson:30", 1 / 30, 0.0),
        ("poisson:100", 1 / 100, 0.0),
        ("poisson-gaussian:30,0.05", 1 / 30, 0.05**2),
        ("gaussian:0.1", 0.0, 0.1**2),
    ],
)
def test_the_line_of_the_variance_is_found(text, a, b, cut):
    """Its value at brightness ½ within 10 %, each end within 15 % of that; also where it is cut to 8 bits."""
    found_a, found_b = (values.median().item() for values in variance_line(noisy(text, cut=cut)[1]))
    middle = a / 2 + b
    assert found_a / 2 + found_b == pytest.approx(middle, rel=0.1)
    assert found_b == pytest.approx(b, abs=0.15 * middle)
    assert found_a == pytest.approx(a, abs=0.3 * middle)


def test_a_line_has_no_negative_numbers_and_images_too_small_have_none():
    darker = textured(20)
    y = darker + 0.2 * (1 - darker) * torch.randn(darker.shape, generator=torch.Generator().manual_seed(0))
    a, b = variance_line(y)
    assert (a >= 0).all()
    assert (b >= 0).all()
    assert a.median() == 0
    for shape in ((2, 1, 1, 5), (2, 3, 2, 2), (2, 1, 3, 3)):
        for found in variance_line(torch.full(shape, 0.5)):
            assert torch.equal(found, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_the_share_of_lost_values_is_found(share):
    x, y = noisy(f"salt-pepper:{share}")
    lost = lost_values(y)
    assert lost_share(y).median() == pytest.approx(share, rel=0.15)
    really = (y != x) & ((y - x).abs() > 0.2)
    assert (lost & really).sum() > (0.95 if share < 0.2 else 0.85) * really.sum()
    assert (lost & (y == x)).sum() < 0.01 * lost.sum()
    whole = fill_lost(y, lost)
    assert torch.equal(whole[~lost], y[~lost])
    error = (whole - x)[lost].square().mean().sqrt()
    assert error < 0.35 * (y - x)[lost].square().mean().sqrt()
    assert guess_error(whole, lost).median() == pytest.approx(float(error), rel=0.6)


@pytest.mark.parametrize("text", ["gaussian:0", "gaussian:0.1", "gaussian:0.3", "poisson:5", "poisson:30"])
@pytest.mark.parametrize("cut", [False, True])
def test_nothing_is_lost_where_noise_is_of_another_kind(text, cut):
    y = noisy(text, cut=cut)[1]
    assert torch.equal(lost_share(y), torch.zeros(len(y)))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_where_the_share_is_known_all_lost_values_are_found(share):
    x, y = noisy(f"salt-pepper:{share}")
    lost = lost_values(y, [share] * len(y))
    plain = (x > 0).flatten(1).all(1) & (x < 1).flatten(1).all(1)
    assert plain.any()
    assert torch.equal(lost[plain], (y != x)[plain])
    assert ((lost & (y != x)).sum() > 0.9 * (y != x).sum()).item()
    assert not lost_values(y, [0.0] * len(y)).any()


def test_what_is_black_and_white_itself_is_not_lost_because_a_share_is_known():
    x = 0.8 * textured(40)
    x[..., :20] = 0
    y = parse_noise("salt-pepper:0.05").add(x, torch.Generator().manual_seed(0))[0]
    lost = lost_values(y, [0.05] * len(y))
    assert not lost[..., 2:18][y[..., 2:18] == 0].any()
    assert (lost & (y == 1)).sum() > 0.95 * (y == 1).sum()


def bright_things(count=40, side=28, seed=3):
    """Textured things on black."""
    x = textured(count, side, seed) * 0.7 + 0.25
    x[..., :7], x[..., 21:] = 0, 0
    return x


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_lost_values_are_seen_on_black_in_small_images(share):
    y = parse_noise(f"salt-pepper:{share}").add(bright_things(), torch.Generator().manual_seed(0))[0]
    found = lost_share(y)
    assert (found > 0).sum() >= 0.85 * len(y)
    assert found.median() == pytest.approx(share, rel=0.2)


@pytest.mark.parametrize("level", [0, 0.05, 0.1, 0.3, 0.5, 1, 2])
def test_noise_that_is_cut_is_not_salt_and_pepper(level):
    """Though most values are 0 or 1 where it is much."""
    x = bright_things()
    y = x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lost_share(y.clamp(0, 1)), torch.zeros(len(y)))
