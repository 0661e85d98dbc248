"""Models of noise: their text, and the moments of what they add."""

import pytest
import torch

from mfimage.config import Config
from mfimage.errors import UsageError
from mfimage.noise import parse_noise
from mfimage.settings import from_json

FIXED = (
    "gaussian:0.1", "poisson:30", "poisson-gaussian:30,0.02", "salt-pepper:0.1", "correlated:0.1,1.5",
    "colour:0.05,0.1",
)  # fmt: skip
RANGES = (
    "gaussian:0-0.5", "poisson:10-100", "poisson-gaussian:5-50,0-0.1", "salt-pepper:0-0.3",
    "colour:0-0.1,0-0.4",
)  # fmt: skip


def added(text, level, count=40, side=64, seed=0):
    """Noise on even images of a level."""
    x = torch.full((count, 3 if text.startswith("colour") else 1, side, side), level)
    y, sigma = parse_noise(text).add(x, torch.Generator().manual_seed(seed))
    return y - x, sigma


@pytest.mark.parametrize("text", [*FIXED, *RANGES, "correlated:0-0.2,0.5-2"])
def test_the_text_is_read_back(text):
    noise = parse_noise(text)
    assert str(noise) == text
    assert parse_noise(str(noise)) == noise
    assert noise.fixed == (text in FIXED)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("0.1", "gaussian:0.1"), ("0-0.5", "gaussian:0-0.5"), ("1e-3-5e-1", "gaussian:0.001-0.5"),
        (".1", "gaussian:0.1"), ("poisson:1e1-1e+2", "poisson:10-100"), ("gaussian:2-2", "gaussian:2"),
        ("gaussian:1e-05", "gaussian:1e-05"),
    ],
)  # fmt: skip
def test_numbers_are_read_in_every_way_to_write_them(text, same):
    assert str(parse_noise(text)) == same


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blur:3", "there is no noise 'blur': choose from gaussian:SIGMA, poisson:PEAK,"),
        ("poisson", "poisson:PEAK is expected"),
        ("poisson:1,2", "poisson:PEAK is expected"),
        ("poisson:0", "peak must be a number from 0.1"),
        ("poisson:30-10", "low first"),
        ("salt-pepper", "salt-pepper:SHARE is expected"),
        ("poisson-gaussian", "poisson-gaussian:PEAK,SIGMA is expected"),
        ("snow-1", "there is no noise 'snow-1'"),
        ("poisson-gaussian:30", "poisson-gaussian:PEAK,SIGMA is expected"),
        ("salt-pepper:2", "share must be a number from 0 to 1"),
        ("salt-pepper:-1", "SHARE is expected"),
        ("0-0.5-1", "a range LOW-HIGH"),
        ("gaussian:1e400", "SIGMA is expected"),
        ("nan", "there is no noise 'nan'"),
        ("", "SIGMA is expected"),
    ],
)
def test_other_text_is_refused(text, words):
    for read in (parse_noise, lambda noise: from_json(Config, {"noise": noise})):
        with pytest.raises(UsageError, match="noise") as caught:
            read(text)
        assert words in str(caught.value)


@pytest.mark.parametrize("level", [0.1, 0.5])
@pytest.mark.parametrize("text", FIXED)
def test_noise_has_the_moments_that_it_says(text, level):
    noise, sigma = added(text, level)
    variance = {
        "gaussian": 0.1**2, "poisson": level / 30, "poisson-gaussian": level / 30 + 0.02**2,
        "salt-pepper": 0.1 * (level**2 + (1 - level) ** 2) / 2, "correlated": 0.1**2,
        "colour": (0.05**2 + 2 * 0.1**2) / 3,
    }[text.split(":")[0]]  # fmt: skip
    torch.testing.assert_close(sigma, torch.full((40,), variance**0.5))
    torch.testing.assert_close(
        parse_noise(text).deviation(torch.full((2, noise.shape[1], 3, 3), level)), sigma[:2]
    )
    assert noise.square().mean() == pytest.approx(variance, rel=0.03)
    bias = 0.1 * (0.5 - level) if text.startswith("salt") else 0.0
    assert noise.mean() == pytest.approx(bias, abs=0.004)


@pytest.mark.parametrize("level", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("text", [*FIXED, "poisson:2", "poisson-gaussian:1,0.5", "salt-pepper:0.3"])
def test_noisy_images_tell_the_deviation_of_their_noise(text, level):
    noise, sigma = added(text, level)
    torch.testing.assert_close(parse_noise(text).deviation_seen(level + noise), sigma, rtol=0.1, atol=0)


def test_where_all_values_are_lost_the_deviation_is_between_the_least_and_the_most():
    y = torch.rand(3, 1, 8, 8).round()
    assert parse_noise("salt-pepper:1").deviation_seen(y).square().tolist() == pytest.approx([0.25] * 3)
    assert torch.equal(parse_noise("salt-pepper:0").deviation_seen(y), torch.zeros(3))


@pytest.mark.parametrize("text", [text for text in FIXED if not text.startswith("correlated")])
def test_neighbours_are_independent(text):
    noise = added(text, 0.5)[0]
    assert (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean() == pytest.approx(0, abs=0.02)


def test_correlated_noise_is_that_of_a_blur():
    """The correlation of noise blurred by a Gaussian of w pixels is exp(−t²/4w²) at t pixels."""
    noise = added("correlated:0.1,1.5", 0.5)[0]
    for t in (1, 2):
        found = (noise[..., t:] * noise[..., :-t]).mean() / noise.square().mean()
        assert found == pytest.approx(torch.exp(torch.tensor(-(t**2) / 9.0)).item(), abs=0.02)


def test_noise_of_colour_has_one_deviation_in_brightness_and_one_in_every_colour():
    noise = added("colour:0.05,0.1", 0.5)[0].double()
    along = torch.linalg.qr(torch.tensor([[1.0, 1, 0], [1, -1, 1], [1, 0, 2]], dtype=torch.float64))[0]
    found = torch.einsum("nchw,ck->nkhw", noise, along).transpose(0, 1).flatten(1).cov()
    expected = torch.tensor([0.05, 0.1, 0.1], dtype=torch.float64).square().diag()
    torch.testing.assert_close(found, expected, rtol=0.03, atol=3e-4)
    grey = parse_noise("colour:0.1,0.3").deviation(torch.full((2, 1, 8, 8), 0.5))
    torch.testing.assert_close(grey, torch.tensor([0.1, 0.1]))


@pytest.mark.parametrize("text", RANGES)
def test_each_image_draws_its_own_numbers_from_the_range(text):
    noise, sigma = added(text, 0.4, count=300, side=32)
    found = noise.flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(found, sigma, rtol=0.35, atol=0.01)
    ends = [parse_noise(f"{text.split(':')[0]}:{','.join(map(str, r))}") for r in _corners(text)]
    least, most = sorted(float(one.deviation(torch.full((1, noise.shape[1], 1, 1), 0.4))) for one in ends)
    assert least <= sigma.min() < least + 0.1 * (most - least)
    assert most - 0.1 * (most - least) < sigma.max() <= most


def _corners(text):
    """The numbers that make the least and the most noise."""
    ranges = parse_noise(text).ranges
    photons = text.startswith("poisson")  # of which fewer are noisier
    return [[(r[::-1] if photons and i == 0 else r)[end] for i, r in enumerate(ranges)] for end in (0, 1)]


def test_a_seed_gives_the_same_and_another_does_not():
    for text in (*FIXED, *RANGES):
        first, again, other = (added(text, 0.5, seed=seed)[0] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_gaussian_noise_of_a_configuration_is_what_it_was(generator):
    """The very numbers that were drawn before there were other kinds."""
    x, same = torch.rand(5, 1, 4, 4), torch.Generator().manual_seed(generator.initial_seed())
    y, sigma = Config(noise=(0.1, 0.4)).noise_model.add(x, generator)
    expected = 0.1 + (0.4 - 0.1) * torch.rand(5, generator=same, dtype=torch.float32)
    assert torch.equal(sigma, expected)
    assert torch.equal(y, x + expected.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=same))


@pytest.mark.parametrize(
    ("noise", "algorithm", "kept", "aware"),
    [
        ("0-0.5", "m-flow", (0.0, 0.5), True),
        ("gaussian:0-0.5", "me-flow", (0.0, 0.5), True),
        ("gaussian:0.1", "m-flow", "gaussian:0.1", True),
        ("gaussian:0.1", "af", 0.1, False),
        ("0.1", "pie", 0.1, False),
        ("0", "m-flow", 0.0, False),
        ("gaussian:0", "m-flow", 0.0, False),
        ("poisson:1e1-100", "m-flow", "poisson:10-100", True),
        ("salt-pepper:.1", "me-flow", "salt-pepper:0.1", True),
    ],
)
def test_a_configuration_keeps_noise_in_one_form(noise, algorithm, kept, aware):
    config = Config(noise=noise, algorithm=algorithm)
    assert config.noise == kept
    assert config.noise_aware == aware
    assert not aware or config.noise_model == parse_noise(noise)


@pytest.mark.parametrize("noise", ["poisson:30", "salt-pepper:0-0.1"])
def test_other_noise_is_for_charts_that_can_learn_it(noise):
    with pytest.raises(UsageError, match=f"noise {noise} is for m-flow and me-flow, not for pie"):
        Config(noise=noise, algorithm="pie")
