import numpy as np
import pytest
import torch
from PIL import Image
from tiny import draw_bumps

from mfimage.denoising.sigma import given_sigma, wavelet_sigma
from mfimage.errors import UsageError


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_pure_noise_is_measured(sigma, channels, generator):
    y = 0.5 + sigma * torch.randn(50, channels, 28, 28, generator=generator)
    found = wavelet_sigma(y)
    assert found.shape == (50,)
    assert found.mean() == pytest.approx(sigma, rel=0.02)
    assert found.std() < 0.1 * sigma


def test_edges_and_slopes_are_no_noise():
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    slope, edge = (rows + 2 * columns) / 84, (rows > columns).float()
    assert wavelet_sigma(torch.stack([slope, edge])[:, None]).max() < 1e-6


def test_overlapping_blocks_tell_more_than_separate_ones(generator):
    y = torch.randn(400, 1, 28, 28, generator=generator)
    a, b, c, d = y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]
    separate = ((a - b - c + d) / 2).flatten(1).abs().median(1).values / 0.6745
    assert wavelet_sigma(y).std() < 0.8 * separate.std()


KINDS = {
    "uint8 array": (np.zeros((8, 8), np.uint8), 255),
    "uint16 array": (np.zeros((8, 8), np.uint16), 65535),
    "float array": (np.zeros((8, 8)), 1),
    "uint8 tensor": (torch.zeros(1, 8, 8, dtype=torch.uint8), 255),
    "float tensor": (torch.zeros(1, 8, 8), 1),
    "grey picture": (Image.new("L", (8, 8)), 255),
    "16-bit picture": (Image.new("I;16", (8, 8)), 65535),
    "float picture": (Image.new("F", (8, 8)), 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_named_in_the_scale_of_the_image(kind):
    image, white = KINDS[kind]
    torch.testing.assert_close(given_sigma(0.1 * white, image, 1), torch.tensor([0.1]))


def test_a_file_has_the_scale_of_its_pixels(tmp_path):
    for name, array, white in (
        ("a.png", np.zeros((8, 8), np.uint8), 255),
        ("b.png", np.zeros((8, 8), np.uint16), 65535),
    ):
        Image.fromarray(array).save(tmp_path / name)
        for path in (tmp_path / name, str(tmp_path / name)):
            torch.testing.assert_close(given_sigma(0.1 * white, path, 1), torch.tensor([0.1]))


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_each_image_of_a_batch_may_have_its_own(make):
    batch = np.zeros((3, 8, 8, 1), np.uint8)
    found = given_sigma(make([0.0, 51.0, 255.0]), batch, 3)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.2, 1.0]))
    torch.testing.assert_close(given_sigma(51, batch, 3), torch.full((3,), 0.2))


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), [1.0, 2.0], [1.0, -2.0, 3.0]])
def test_what_is_no_deviation_is_refused(wrong):
    with pytest.raises(UsageError, match="sigma"):
        given_sigma(wrong, draw_bumps(3)[..., None], 3)
