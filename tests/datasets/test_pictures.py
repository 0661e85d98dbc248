import doctest
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mfimage.datasets import pictures, save_png, save_pngs, sheet, to_batch
from mfimage.datasets.pictures import gaussian_noise, missing_pixels
from mfimage.errors import DataError, ResourceError, UsageError

X = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("shape", "mode"), [((3, 5, 7), "RGB"), ((1, 5, 7), "L"), ((5, 7), "L")])
def test_png_is_rounded_and_exact(tmp_path, shape, mode):
    image = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))
    save_png(image / 255 + 0.4 / 255, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.mode == mode
        back = np.asarray(picture).reshape(5, 7, -1)
    assert (back == image.reshape(-1, 5, 7).movedim(0, -1).numpy()).all()
    assert os.listdir(tmp_path) == ["x.png"]


def test_png_clips(tmp_path):
    save_png(torch.tensor([[[-1.0, 2.0]]]), tmp_path / "x.png")
    assert np.asarray(Image.open(tmp_path / "x.png")).tolist() == [[0, 255]]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    save_png(torch.ones(1, 4, 4), tmp_path / "x.png")
    old = (tmp_path / "x.png").read_bytes()

    def full(path, content):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match=r"x\.png: cannot be written: No space left"):
        save_png(torch.zeros(1, 4, 4), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == old
    assert os.listdir(tmp_path) == ["x.png"]


def test_missing_folders_are_made(tmp_path):
    save_png(torch.zeros(1, 4, 4), tmp_path / "none" / "x.png")
    assert os.listdir(tmp_path / "none") == ["x.png"]


@pytest.mark.parametrize(
    "image", [torch.zeros(2, 4, 4), torch.zeros(1, 1, 4, 4), torch.full((1, 4, 4), torch.nan)]
)
def test_what_is_no_picture(tmp_path, image):
    with pytest.raises(DataError, match="is needed"):
        save_png(image, tmp_path / "x.png")
    assert not os.listdir(tmp_path)


def test_sheet():
    images = torch.arange(1, 6).reshape(5, 1, 1, 1).expand(5, 1, 2, 3) / 10
    whole = sheet(images, columns=3, pad=1)
    assert whole.shape == (1, 2 * 3 + 1, 3 * 4 + 1)
    assert (whole[0, 1:3, 5:8] == 0.2).all()
    assert (whole[0, 4:6, 1:4] == 0.4).all()
    assert (whole[0, 4:6, 9:12] == 1).all()
    assert (whole[0, 0] == 1).all()
    assert (whole[0, :, 4] == 1).all()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_examples():
    assert doctest.testmod(pictures).attempted > 3
    assert not doctest.testmod(pictures).failed


def test_noise_has_the_stated_deviation():
    x = torch.full((4, 3, 64, 64), 0.5)
    noise = gaussian_noise(x, 0.3, seeded(0), clip=False) - x
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert abs(noise.mean().item()) < 0.01


def test_clipping_is_all_that_clip_does():
    free = gaussian_noise(X, 0.5, seeded(7), clip=False)
    assert torch.equal(gaussian_noise(X, 0.5, seeded(7)), free.clamp(0, 1))
    assert free.max() > 1
    assert torch.equal(gaussian_noise(X, 0.0, seeded(7)), X)


@pytest.mark.parametrize("damage", [gaussian_noise, lambda *given: missing_pixels(*given)[0]])
def test_a_seed_gives_the_same_damage_and_leaves_the_image(damage):
    before = X.clone()
    first, again, other = (damage(X, 0.4, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(X, before)
    assert (first.shape, first.dtype) == (X.shape, X.dtype)
    assert first.min() >= 0
    assert first.max() <= 1


def test_the_mask_says_which_pixels_are_missing():
    x = torch.rand(3, 3, 40, 40, generator=seeded(1)) + 0.01
    y, mask = missing_pixels(x, 0.25, seeded(0))
    assert (mask.shape, mask.dtype) == ((3, 1, 40, 40), torch.bool)
    assert torch.equal(y == 0, mask.expand_as(x))
    assert torch.equal(y[~mask.expand_as(x)], x[~mask.expand_as(x)])
    assert mask.float().mean().item() == pytest.approx(0.25, abs=0.03)
    for share in (0.0, 1.0):
        assert missing_pixels(x, share, seeded(0))[1].float().mean() == share


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_lies_between_0_and_1(share):
    with pytest.raises(UsageError):
        missing_pixels(X, share, seeded(0))


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "x" * 250])
def test_names_that_leave_no_room_for_a_suffix_are_cut(tmp_path, name):
    first, second = save_pngs(X, [name, name], tmp_path)
    assert first.name == f"{first.stem}.png"
    assert second.name == f"{first.stem}-2.png"
    assert name.startswith(first.stem)
    assert 230 < len(os.fsencode(first.stem)) <= 240


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 5, 7), (5, 7)])
def test_png_of_16_bits_is_rounded_and_exact(tmp_path, shape):
    image = torch.randint(0, 65536, shape, generator=torch.Generator().manual_seed(0))
    save_png(image / 65535, tmp_path / "x.png", deep=True)
    back = to_batch(tmp_path / "x.png")[0][0] * 65535
    assert torch.equal(back.round().int(), image.reshape(-1, 5, 7).int())
    first, second = save_pngs(torch.zeros(2, 1, 4, 4), ["a", "b"], tmp_path, deep=[True, False])
    with Image.open(first) as deep, Image.open(second) as shallow:
        assert (deep.mode, shallow.mode) == ("I;16", "L")
