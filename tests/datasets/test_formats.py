"""What Pillow alone reads wrongly, not at all, or not to its depth."""

import io
import zlib

import numpy as np
import pytest
from imagefiles import tiff
from PIL import Image
from pngs import key, png

from mfimage.datasets import to_batch
from mfimage.datasets.decode import decode
from mfimage.datasets.formats import encode_png
from mfimage.errors import DataError

RNG = np.random.default_rng(0)


def numbers(bits, *channels):
    return RNG.integers(0, 2**bits, (5, 7, *channels))


def shares(values):
    """Pixels as shares of white."""
    return values / 255 if values.dtype == np.uint8 else values


def opened(data):
    """The same file through Pillow, which has not read its pixels yet."""
    return to_batch(Image.open(io.BytesIO(data)))[0][0].movedim(0, -1).numpy()


@pytest.mark.parametrize(
    ("bits", "channels"), [(1, ()), (2, ()), (4, ()), (8, ()), (16, ()), (8, (3,)), (16, (3,))]
)
def test_the_transparent_grey_or_colour_of_a_png_is_white_at_every_depth(bits, channels):
    raw = numbers(bits, *channels)
    raw[0, 0] = 1
    raw[1, 1] = 0  # which differs in the last bit alone, and stays
    raw[2, 2] = raw[0, 0]
    data = png(raw, bits, key(raw[0, 0]))
    expected = np.atleast_3d(raw / (2**bits - 1))
    expected[(np.atleast_3d(raw) == raw[0, 0]).all(-1)] = 1
    np.testing.assert_allclose(shares(decode(data, "x")), expected, atol=1e-6)
    np.testing.assert_allclose(opened(data), expected, atol=1e-6)
    assert (expected[2, 2] == 1).all()
    assert (expected[1, 1] == 0).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_laid_on_white_at_every_depth(bits, channels):
    raw = numbers(bits, channels)
    colour, alpha = raw[..., :-1] / (2**bits - 1), raw[..., -1:] / (2**bits - 1)
    values = decode(png(raw, bits), "x")
    assert values.shape == (5, 7, channels - 1)
    np.testing.assert_allclose(
        shares(values), 1 - alpha * (1 - colour), atol=1e-6 if bits == 16 else 0.51 / 255
    )
    np.testing.assert_allclose(opened(png(raw, bits)), shares(values), atol=1e-6)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_16_bits_are_all_read(channels, tmp_path):
    raw = numbers(16, *channels).astype(np.uint16)
    expected = np.atleast_3d(raw / 65535)
    kinds = {"photometric": "rgb"} if channels else {}
    planes = [tiff(np.moveaxis(raw, -1, 0), planarconfig="separate", **kinds)] if channels else []
    files = [tiff(raw, byteorder=order, compression=how, **kinds) for order in "<>" for how in (None, "zlib")]
    for data in (png(raw, 16), encode_png(raw), *files, *planes):
        np.testing.assert_allclose(decode(data, "x"), expected, atol=1e-7)
        np.testing.assert_allclose(opened(data), expected, atol=1e-7)
        (tmp_path / "x.any").write_bytes(data)
        np.testing.assert_allclose(decode(tmp_path / "x.any", "x"), expected, atol=1e-7)


def test_a_picture_is_as_good_after_its_low_bytes_are_read():
    raw = numbers(16, 3)
    picture = Image.open(io.BytesIO(png(raw, 16)))
    to_batch(picture)
    assert (np.asarray(picture) == raw >> 8).all()
    assert picture.size == (7, 5)


LONG = b"\0" * 3_000_000
TEXTS = {
    "text": (b"tEXt", b"Comment\0" + LONG),
    "packed text": (b"zTXt", b"Comment\0\0" + zlib.compress(LONG)),
    "packed international text": (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LONG)),
    "profile": (b"iCCP", b"icc\0\0" + zlib.compress(LONG)),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_long_texts_and_profiles_of_a_png_are_passed_over(kind):
    raw = numbers(8, 3)
    for data in (png(raw, 8, TEXTS[kind]), png(raw, 8, after=[TEXTS[kind]] * 30)):
        assert (decode(data, "x") == raw).all()
        assert (decode(io.BytesIO(data), "x") == raw).all()


def test_a_text_that_says_which_way_is_up_is_read():
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>' + b" " * 5000
    raw = numbers(8, 3)
    assert (
        decode(png(raw, 8, (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)), "x") == np.rot90(raw, -1)
    ).all()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.uint32, np.float32])
def test_numbers_of_a_tiff_span_their_type(dtype, order, compression):
    raw = RNG.random((5, 7))
    raw[0, :2] = 0, 1
    whole = np.dtype(dtype).kind != "f"
    array = (raw * np.iinfo(dtype).max).astype(dtype) if whole else raw.astype(dtype)
    data = tiff(array, byteorder=order, compression=compression)
    if dtype is np.uint32 and order == ">":
        with pytest.raises(DataError, match="a TIFF of numbers or channels that Pillow does not read"):
            decode(data, "x")
        return
    np.testing.assert_allclose(decode(data, "x")[..., 0], raw, atol=2e-7 if array.itemsize > 2 else 1e-4)
    np.testing.assert_allclose(opened(data), decode(data, "x"), atol=1e-7)


def test_int8_is_not_taken_for_uint8():
    ramp = np.arange(128, dtype=np.int8).reshape(8, 16)
    np.testing.assert_allclose(decode(tiff(ramp), "x")[..., 0], ramp / 127, atol=1e-7)
    with pytest.raises(DataError, match=r"x: values from -1 to 127 lie outside \[0, 127\]"):
        decode(tiff(np.where(ramp == 5, np.int8(-1), ramp)), "x")


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_a_tiff_is_as_black_as_the_same_array(dtype):
    ramp = np.arange(256, dtype=dtype).reshape(16, 16)
    with pytest.raises(DataError, match=r"values up to 255 are all black.*value_range"):
        decode(tiff(ramp), "x")
    np.testing.assert_allclose(decode(tiff(ramp), "x", value_range=(0, 255))[..., 0], ramp / 255, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint64, np.int64, np.complex64])
def test_what_pillow_does_not_read_of_a_tiff_is_told(dtype):
    with pytest.raises(DataError, match=r"^x: is damaged, or a TIFF of numbers or channels"):
        decode(tiff(np.zeros((4, 4), dtype)), "x")
