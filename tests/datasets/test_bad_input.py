"""Files as they come, a test for each row of docs/promises.md, which `tests/test_promises.py` compares."""

import re
import zlib

import numpy as np
import pytest
import torch
from imagefiles import bomb, content, noise, pixels, tiff
from PIL import Image, ImageCms
from pngs import key, png

from mfimage.datasets import load
from mfimage.errors import DataError

RED = (200, 30, 40)


@pytest.fixture
def folder(tmp_path):
    return noise(tmp_path / "set", [f"good{i}.png" for i in range(30)], (8, 8, 3))


def reason(folder, data, name="bad.png"):
    """Why a file among thirty good ones is skipped."""
    (folder / name).write_bytes(data)
    images = load(folder, "all")
    assert len(images) == 30
    (bad,) = images.skipped
    assert bad.path == f"{folder}/{name}"
    return bad.reason


def alone(tmp_path, data, name="one.png", **how):
    """One file read by itself through a folder."""
    (tmp_path / "alone").mkdir(exist_ok=True)
    (tmp_path / "alone" / name).write_bytes(data)
    return load(tmp_path / "alone", "all", **how)


def test_corrupt(folder):
    data = bytearray(content(pixels(8, 8, 3)))
    data[60:90] = bytes(30)
    assert "is damaged" in reason(folder, bytes(data))


def test_truncated(folder):
    for kind in ("png", "jpeg", "webp", "bmp", "gif", "tiff"):
        data = content(pixels(40, 40, 3), kind.upper())
        assert "is damaged" in reason(folder, data[: len(data) // 2], f"bad.{kind}")
        (folder / f"bad.{kind}").unlink()


def test_zero_byte(folder):
    assert reason(folder, b"") == "is empty (0 bytes)"


def test_renamed_text(folder):
    assert reason(folder, b"Dear Sir or Madam").startswith("is not an image in a format that mfimage reads")


def test_decompression_bomb(folder):
    assert "60000×60000 pixels are more than the limit of 64,000,000" in reason(folder, bomb(60_000))


def test_16_bit_grey(tmp_path):
    values = pixels(8, 8, dtype=np.uint16)
    images = alone(tmp_path, content(values))
    assert images.images.dtype == torch.float32
    np.testing.assert_allclose(images.batch([0])[0, 0], values / 65535, atol=1e-6)


def test_16_bit_colour(tmp_path):
    values = pixels(8, 8, 3, dtype=np.uint16)
    images = alone(tmp_path, tiff(values, photometric="rgb"), "one.tif")
    assert images.images.dtype == torch.float32
    np.testing.assert_allclose(images.batch([0])[0], values.transpose(2, 0, 1) / 65535, atol=1e-6)


def test_tiff_of_numbers_that_pillow_does_not_read(folder):
    assert reason(folder, tiff(np.zeros((8, 8))), "bad.tif").startswith("is damaged, or a TIFF of numbers")


def test_32_bit_integers_of_small_values(folder, tmp_path):
    """The same from a TIFF and from an array."""
    ramp = np.arange(64, dtype=np.int32).reshape(8, 8)
    words = "int32 values up to 63 are all black on a scale to 2.14748e+09"
    assert words in reason(folder, tiff(ramp), "bad.tif")
    np.save(tmp_path / "bad.npy", ramp[None])
    with pytest.raises(DataError, match=re.escape(words)):
        load(tmp_path / "bad.npy", "all")


def cmyk(tmp_path, profile):
    data = content(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF", icc_profile=profile)
    return alone(tmp_path, data, "one.tif").images[0, :, 0, 0].tolist()


def test_cmyk_without_profile(tmp_path):
    assert cmyk(tmp_path, None) == [255, 0, 0]


def test_cmyk_with_profile(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    assert cmyk(tmp_path, profile.tobytes()) == [255, 0, 0]


def test_palette_with_transparency(tmp_path):
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([10, 20, 30, *RED])
    picture.paste(1, (0, 0, 4, 8))
    x = alone(tmp_path, content(picture, transparency=0)).images[0]
    assert x[:, 0, 0].tolist() == list(RED)
    assert x[:, 0, 7].tolist() == [255, 255, 255]


def test_transparent_colour_of_a_png_at_any_depth(tmp_path):
    values = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint16)
    x = alone(tmp_path, png(values, 16, key(values[0, 1]))).batch([0])[0]
    np.testing.assert_allclose(x[:, 0], [[1 / 65535, 1], [2 / 65535, 1], [3 / 65535, 1]], atol=1e-7)


def test_alpha(tmp_path):
    x = alone(tmp_path, content(Image.new("RGBA", (8, 8), (*RED, 51)))).images[0]
    expected = [round(0.2 * c + 0.8 * 255) for c in RED]
    assert np.abs(x[:, 3, 3].numpy().astype(int) - expected).max() <= 1


def test_megabytes_of_text_in_a_png(tmp_path):
    data = png(np.full((8, 8), 7), 8, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000))))
    assert (alone(tmp_path, data).images == 7).all()


def test_exif_rotation(tmp_path):
    picture = Image.new("RGB", (8, 8))
    picture.paste(RED, (0, 0, 8, 4))  # the upper half; by tag 6 it belongs on the right
    exif = Image.Exif()
    exif[274] = 6
    x = alone(tmp_path, content(picture, exif=exif)).images[0]
    assert x[:, 0, 7].tolist() == list(RED)
    assert x[:, 7, 7].tolist() == list(RED)
    assert x[:, 0, 0].tolist() == [0, 0, 0]


def of_three_pages(tmp_path, kind):
    pages = [Image.new("RGB", (8, 8), colour) for colour in (RED, "blue", "green")]
    data = content(pages[0], kind, save_all=True, append_images=pages[1:])
    return alone(tmp_path, data, f"one.{kind.lower()}").images[:, :, 0, 0].tolist()


def test_animated_gif(tmp_path):
    assert of_three_pages(tmp_path, "GIF") == [[*RED]]


def test_multi_page_tiff(tmp_path):
    assert of_three_pages(tmp_path, "TIFF") == [[*RED]]


def test_1_1_image(tmp_path):
    x = alone(tmp_path, content(Image.new("RGB", (1, 1), RED))).images[0]
    assert x.flatten().tolist() == list(RED)


def test_20_000_3_image(tmp_path):
    strip = content(Image.new("RGB", (20_000, 3), RED))
    assert alone(tmp_path, strip).shape == (3, 3, 20_000)
    assert alone(tmp_path, strip, size=8).images[0, :, 4, 4].tolist() == list(RED)
