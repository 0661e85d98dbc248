import numpy as np
import pytest
import torch

from mfimage.datasets.pixels import as_float, box_of, over_white, resize, unit, with_channels
from mfimage.errors import DataError, UsageError


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.int32, np.int64, np.int8])
def test_integers_scale_by_the_maximum_of_their_type(dtype):
    top = np.iinfo(dtype).max
    values = unit(np.array([0, top // 3, top], dtype), "x")
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [0, 1 / 3, 1], atol=4e-3)


def test_uint8_stays_and_booleans_are_black_and_white():
    values = np.array([0, 7, 255], np.uint8)
    assert unit(values, "x") is values
    assert unit(np.array([False, True]), "x").tolist() == [0, 255]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats(dtype):
    assert unit(np.array([0, 0.5, 1], dtype), "x").tolist() == [0, 0.5, 1]
    for bad in (-0.01, 1.01, 255):
        with pytest.raises(DataError, match=r"x: .*outside \[0, 1\].*value_range"):
            unit(np.array([0, bad], dtype), "x")
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(DataError, match="not finite"):
            unit(np.array([0, bad], dtype), "x")


def test_rounding_errors_are_clipped():
    assert unit(np.array([-5e-7, 1 + 5e-7]), "x").tolist() == [0, 1]


def test_declared_range():
    assert unit(np.array([-1.0, 0, 1]), "x", (-1, 1)).tolist() == [0, 0.5, 1]
    assert unit(np.array([0, 4095], np.uint16), "x", (0, 4095)).tolist() == [0, 1]
    assert unit(np.array([0, 100], np.uint8), "x", (0, 100)).tolist() == [0, 1]
    with pytest.raises(DataError, match=r"outside \[-1, 1\]$"):
        unit(np.array([2.0]), "x", (-1, 1))
    with pytest.raises(UsageError, match="value range"):
        unit(np.array([2.0]), "x", (1, 1))


def test_wide_integers_that_would_all_be_black():
    with pytest.raises(DataError, match=r"int64 values up to 255 are all black.*value_range"):
        unit(np.array([0, 255]), "x")
    assert unit(np.array([0, 255]), "x", (0, 255)).tolist() == [0, 1]


@pytest.mark.parametrize("values", [np.array([1j]), np.array(["a"]), np.zeros((0, 4), np.uint8)])
def test_no_pixels(values):
    with pytest.raises(DataError, match="pixels"):
        unit(values, "x")


def test_over_white_rounds_to_nearest():
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    exact = 255 - alpha / 255 * (255 - colour)
    stacked = np.stack([colour, alpha], -1)
    assert np.abs(over_white(stacked.astype(np.uint8))[..., 0] - exact).max() <= 0.5 + 1e-9
    floats = over_white((stacked / 255).astype(np.float32))
    np.testing.assert_allclose(floats[..., 0], exact / 255, atol=1e-6)


def test_luma_keeps_grey():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    assert (with_channels(ramp, 1)[:, 0] == ramp[:, 0]).all()
    floats = (ramp / 255).astype(np.float32)
    np.testing.assert_allclose(with_channels(floats, 1)[:, 0], floats[:, 0], atol=1e-6)
    assert with_channels(floats, 1).max() <= 1


def test_as_float_is_the_division_that_torch_does():
    values = np.arange(256, dtype=np.uint8)
    assert (as_float(values) == (torch.from_numpy(values).float() / 255).numpy()).all()
    assert as_float(values).dtype == np.float32
    deep = np.linspace(0, 1, 5, dtype=np.float32)
    assert as_float(deep) is deep


def test_resize_covers_and_keeps_the_centre():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (resize(wide, 10) == 200).all()
    assert resize(wide, (20, 60)).shape == (20, 60, 3)
    assert resize(wide, (3, 5)).shape == (3, 5, 3)
    assert resize(wide, (10, 30)) is wide


def test_what_is_kept_lies_in_the_image_for_every_size():
    """Pillow refuses a box that a rounding error carries over an edge, in float32, as it has it."""
    shapes = [(columns, rows) for rows in range(1, 401) for columns in (225, 300, rows, 401 - rows)]
    for side in (28, 56, 84, 100, (112, 84), 200, 224, 299):
        height, width = side if isinstance(side, tuple) else (side, side)
        found = np.array([box_of(rows, columns, height, width) for columns, rows in shapes], np.float32)
        assert (found[:, :2] >= 0).all()
        assert (found[:, 2:] <= shapes).all()
        assert (found[:, :2] < found[:, 2:]).all()
        sizes = found[:, 2:].astype(float) - found[:, :2]
        np.testing.assert_allclose(sizes[:, 0] / sizes[:, 1], width / height, rtol=1e-4)


@pytest.mark.parametrize("shape", [(300, 225), (225, 300), (1, 400), (400, 1), (399, 398), (137, 211)])
def test_ordinary_sizes_are_resized(shape):
    for size in (1, 28, 84, 224, (299, 100)):
        sides = size if isinstance(size, tuple) else (size, size)
        for values in (np.full((*shape, 1), 9, np.uint8), np.full((*shape, 1), 0.5, np.float32)):
            found = resize(values, size)
            assert found.shape == (*sides, 1)
            np.testing.assert_allclose(found, values[0, 0, 0], atol=1e-6)


def test_what_lies_beyond_black_and_white_stays_there():
    noisy = np.random.default_rng(0).normal(0.5, 1, (64, 64, 1)).astype(np.float32)
    assert resize(noisy, 60).min() < -0.5
    assert unit(noisy, "x", beyond=9) is not noisy
    assert (unit(noisy, "x", beyond=9) == noisy).all()
    holed = np.where(noisy > 1, np.nan, noisy)
    np.testing.assert_array_equal(unit(holed, "x", beyond=np.inf), holed)
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        unit(noisy, "x", beyond=0.1)
    with pytest.raises(DataError, match="not finite"):
        unit(holed, "x", beyond=9)


@pytest.mark.parametrize("ends", [(-1e300, 1e300), (0, 1e-300), (1e30, 3e30)])
@pytest.mark.parametrize("dtype", [np.float64, np.int8])
def test_no_range_is_too_wide_or_too_narrow(ends, dtype):
    low, high = ends
    given = np.array([low, high]) if dtype == np.float64 else np.array([0], dtype)
    if dtype == np.int8 and not low <= 0 <= high:
        return
    expected = [0, 1] if dtype == np.float64 else [(0 - low) / (high - low)]
    np.testing.assert_allclose(unit(given, "x", ends), expected)


def test_resize_is_antialiased_and_stays_in_range():
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, 16)[2:-2, 2:-2]
    assert np.abs(small.astype(int) - 128).max() < 6
    floats = (stripes / 255).astype(np.float32)
    large = resize(floats, 150)
    assert large.dtype == np.float32
    assert large.min() == 0
    assert large.max() == 1


@pytest.mark.parametrize("size", [0, (4, -1)])
def test_resize_to_nothing(size):
    with pytest.raises(UsageError, match="at least 1"):
        resize(np.zeros((4, 4, 1), np.uint8), size)
