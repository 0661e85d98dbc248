import io

import numpy as np
import pytest
from imagefiles import bomb, content, tiff
from PIL import Image, ImageCms

from mfimage.datasets.decode import decode
from mfimage.errors import DataError, UsageError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_8_bit_grey_is_exact(kind):
    how = {"lossless": True} if kind == "WEBP" else {}
    values = decode(content(GREY, kind, **how), "x", channels=1)
    assert values.dtype == np.uint8
    assert (values[..., 0] == GREY).all()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_8_bit_colour_is_exact_from_bytes_stream_and_path(kind, tmp_path):
    how = {"lossless": True} if kind == "WEBP" else {}
    data = content(COLOUR, kind, **how)
    path = tmp_path / "x.any"
    path.write_bytes(data)
    for source in (data, io.BytesIO(data), path, str(path)):
        assert (decode(source, "x") == COLOUR).all()


def test_channels():
    colour, grey = content(COLOUR), content(GREY)
    assert decode(colour, "x").shape == (5, 7, 3)
    assert decode(grey, "x").shape == (5, 7, 1)
    assert (decode(grey, "x", channels=3) == GREY[..., None]).all()
    assert (decode(colour, "x", channels=1)[..., 0] == np.asarray(Image.fromarray(COLOUR).convert("L"))).all()
    with pytest.raises(UsageError, match="channels"):
        decode(colour, "x", channels=2)


def test_inverted_16_bit_tiff():
    inverted = decode(tiff(DEEP, photometric="miniswhite"), "x")
    np.testing.assert_allclose(inverted[..., 0], 1 - DEEP / 65535, atol=1e-7)


def test_signed_16_bit_tiff_scales_by_32767():
    values = decode(tiff((DEEP // 2).astype(np.int16)), "x")
    np.testing.assert_allclose(values[..., 0], (DEEP // 2) / 32767, atol=1e-7)


def test_noise_carries_floats_beyond_black_and_white_where_it_may():
    noisy = np.linspace(-0.5, 1.5, 35, dtype=np.float32).reshape(5, 7)
    data = tiff(noisy)
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        decode(data, "x", beyond=0.4)
    assert (decode(data, "x", beyond=0.6)[..., 0] == noisy).all()


def test_float_tiff_needs_the_unit_interval_or_a_range():
    unit = RNG.random((5, 7), dtype=np.float32)
    assert (decode(content(Image.fromarray(unit), "TIFF"), "x")[..., 0] == unit).all()
    data = content(Image.fromarray(unit * 200 - 50), "TIFF")
    with pytest.raises(DataError, match=r"x: values from .* outside \[0, 1\].*value_range"):
        decode(data, "x")
    np.testing.assert_allclose(decode(data, "x", value_range=(-50, 150))[..., 0], unit, atol=1e-6)


def test_nan_in_float_tiff():
    values = np.full((2, 2), np.nan, np.float32)
    with pytest.raises(DataError, match="not finite"):
        decode(content(values, "TIFF"), "x")


def test_1_bit():
    bits = GREY > 128
    assert (decode(content(bits), "x")[..., 0] == bits * 255).all()


def test_palette_with_and_without_transparency():
    picture = Image.new("P", (3, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.putdata([0, 1, 2])
    colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert decode(content(picture), "x")[0].tolist() == colours
    for transparency in (1, bytes([255, 0, 255])):
        values = decode(content(picture, transparency=transparency), "x")
        assert values[0].tolist() == [colours[0], [255, 255, 255], colours[2]]


def test_cmyk_jpeg_has_the_right_colours():
    flat = Image.new("RGB", (16, 16), (200, 60, 20))
    values = decode(content(flat.convert("CMYK"), "JPEG", quality=100), "x")
    assert np.abs(values.astype(int) - [200, 60, 20]).max() <= 3


def test_lab_tiff():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    flat = ImageCms.profileToProfile(Image.new("RGB", (4, 4), (200, 60, 20)), srgb, lab, outputMode="LAB")
    values = decode(content(flat, "TIFF"), "x")
    assert np.abs(values.astype(int) - [200, 60, 20]).max() <= 3


ORIENTED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", [1, *ORIENTED])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(kind, orientation):
    picture = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[274] = orientation
    how = {"lossless": True} if kind == "WEBP" else {}
    values = decode(content(picture, kind, exif=exif, **how), "x")
    expected = picture.transpose(ORIENTED[orientation]) if orientation > 1 else picture
    assert (values == np.asarray(expected)).all()


def test_exif_rotated_jpeg_and_16_bit_png():
    exif = Image.Exif()
    exif[274] = 6
    left_dark = Image.fromarray(np.repeat([[0, 255]], 16, axis=0).repeat(8, axis=1).astype(np.uint8))
    values = decode(content(left_dark, "JPEG", exif=exif, quality=100), "x")[..., 0]
    assert values[:7].max() < 30
    assert values[9:].min() > 225
    deep = decode(content(DEEP, exif=exif), "x")
    np.testing.assert_allclose(deep[..., 0], np.rot90(DEEP, -1) / 65535, atol=1e-7)


def test_damaged_exif_does_not_lose_the_picture():
    data = content(GREY, "JPEG", exif=b"Exif\x00\x00not a tiff header")
    assert decode(data, "x").shape == (5, 7, 1)


def test_first_frame_or_page():
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        how = {"lossless": True} if kind == "WEBP" else {}
        data = content(frames[0], kind, save_all=True, append_images=frames[1:], **how)
        assert (decode(data, "x") == [255, 0, 0]).all(), kind


def test_jpeg_of_several_pictures_as_phones_write_it():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    values = decode(content(frames[0], "MPO", save_all=True, append_images=frames[1:]), "x")
    assert np.abs(values.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_at_any_place_is_an_error(kind):
    noise = Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    data = content(noise, kind)
    for share in (0.0, 0.02, 0.3, 0.6, 0.9):
        with pytest.raises(DataError, match=r"^some\.file: "):
            decode(data[: int(share * len(data))], "some.file")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"hello, I am text", "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
    ],
)
def test_no_image(data, reason):
    with pytest.raises(DataError, match=f"^a.png: {reason}"):
        decode(data, "a.png")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        decode(tmp_path / "none.png", "none.png")
    with pytest.raises(DataError, match="cannot be read"):
        decode(tmp_path, "folder.png")


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_too_many_pixels_are_refused_by_the_header_alone(side):
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(
        DataError, match=f"{side}×{side} pixels are more than the limit of 64,000,000.*--max-pixels"
    ):
        decode(bomb(side), "x")
    assert before == Image.MAX_IMAGE_PIXELS


def test_max_pixels_can_be_changed():
    data = content(GREY)
    assert decode(data, "x", max_pixels=35).shape == (5, 7, 1)
    with pytest.raises(DataError, match="7×5"):
        decode(data, "x", max_pixels=34)


def test_a_jpeg_that_is_drawn_again_and_again_is_refused():
    whole = content(Image.new("L", (16, 16), 99), "JPEG", progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    expected = decode(whole, "x.jpg")
    assert np.array_equal(decode(whole[:-2] + scan * 99 + whole[-2:], "x.jpg"), expected)
    with pytest.raises(DataError, match=r"x\.jpg: is damaged: it draws its image more than 500 times"):
        decode(whole[:-2] + scan * 500 + whole[-2:], "x.jpg")
