import io

import numpy as np
import pytest
import tifffile
import torch
from imagefiles import content
from PIL import Image

from mfimage.datasets import to_batch
from mfimage.errors import DataError, ModelError

RNG = np.random.default_rng(0)


def values(shape, dtype):
    if np.dtype(dtype).kind == "f":
        return RNG.random(shape).astype(dtype)
    most = 1 if dtype is bool else np.iinfo(dtype).max
    return RNG.integers(0, most + 1, shape).astype(dtype)


@pytest.mark.parametrize(
    "dtype",
    [bool, np.uint8, np.int8, np.uint16, ">u2", np.int16, np.uint32, np.float16, np.float32, np.float64],
)
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (2, 5, 7, 3), (2, 5, 7, 1)])
def test_numpy_round_trip(shape, dtype):
    image = values(shape, dtype)
    batch, restore = to_batch(image)
    assert batch.dtype == torch.float32
    assert batch.shape == (shape[0] if len(shape) == 4 else 1, shape[-1] if len(shape) > 2 else 1, 5, 7)
    back = restore(batch)
    assert back.dtype == image.dtype
    assert back.shape == image.shape
    if image.dtype.kind == "f":
        np.testing.assert_allclose(back, image, atol=1e-6)
    elif image.dtype.itemsize > 2:  # as near as float32 has it
        np.testing.assert_allclose(back, image, rtol=1e-6, atol=256)
    else:
        assert (back == image).all()


def test_numpy_is_channels_last_and_copied():
    image = values((5, 7, 3), np.uint8)
    batch, _ = to_batch(image[:, ::-1, ::-1])
    np.testing.assert_allclose(batch[0, 0], image[:, ::-1, 2] / 255, atol=1e-7)
    floats = values((5, 7), np.float32)
    before = floats.copy()
    to_batch(floats)[0].zero_()
    assert (floats == before).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.bool])
def test_whole_numbers_of_torch_span_their_type_as_those_of_numpy_do(dtype):
    image = (torch.rand(3, 5, 7) * (1.99 if dtype == torch.bool else torch.iinfo(dtype).max)).to(dtype)
    batch, restore = to_batch(image)
    torch.testing.assert_close(batch, to_batch(image.movedim(0, -1).numpy())[0])
    assert batch.max() > 0.9
    assert restore(batch).dtype == dtype
    assert torch.equal(restore(batch).int(), image.int())


def test_the_whitest_64_bit_number_stays_white():
    image = np.array([[0, np.iinfo(np.int64).max]])
    batch, restore = to_batch(image)
    assert batch.flatten().tolist() == [0, 1]
    assert (restore(batch) == image).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (3, 5, 7), (2, 3, 5, 7), (2, 1, 5, 7)])
def test_torch_round_trip(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator)
    image = (image * 255).to(dtype) if dtype == torch.uint8 else image.to(dtype)
    batch, restore = to_batch(image)
    assert batch.dtype == torch.float32
    assert batch.ndim == 4
    back = restore(batch)
    assert back.dtype == dtype
    assert back.shape == image.shape
    torch.testing.assert_close(back, image, atol=1e-6, rtol=0)


def test_torch_input_is_not_changed():
    image = torch.zeros(3, 4, 4)
    to_batch(image)[0].fill_(1)
    assert (image == 0).all()


@pytest.mark.parametrize(
    "mode", ["L", "RGB", "1", "I;16", "I;16B", "F", "CMYK", "YCbCr", "HSV", "LAB", "P", "LA", "RGBA", "PA"]
)
def test_pil_gives_the_same_mode_back(mode):
    grey = Image.fromarray(values((5, 7), np.uint8))
    colour = Image.fromarray(values((5, 7, 3), np.uint8))
    if mode == "I;16":
        image = Image.fromarray(values((5, 7), np.uint16))
    elif mode == "I;16B":
        image = Image.frombytes(mode, (7, 5), values((5, 7), ">u2").tobytes())
    elif mode == "F":
        image = Image.fromarray(values((5, 7), np.float32))
    elif mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(colour, *profiles, outputMode="LAB")
    else:
        image = (grey if mode in ("L", "1", "LA", "PA") else colour).convert(mode)
    batch, restore = to_batch(image)
    back = restore(batch)
    assert back.mode == ("RGBA" if mode == "PA" else mode)
    assert back.size == image.size
    again = to_batch(back)[0]
    tolerance = {"LAB": 0.2, "P": 0.5}.get(mode, 0.02)
    assert (again - batch).abs().max() < tolerance
    if mode in ("L", "RGB", "1", "I;16", "I;16B", "F", "LA", "RGBA"):
        assert torch.equal(again, batch)


def test_pil_integers_need_a_known_range():
    with pytest.raises(DataError, match="mode I does not tell its range"):
        to_batch(Image.fromarray(np.zeros((4, 4), np.int32)))


def test_alpha_comes_back_opaque():
    clear = np.zeros((4, 4, 4), np.uint8)
    batch, restore = to_batch(clear)
    assert batch.shape == (1, 3, 4, 4)
    assert (batch == 1).all()
    assert (restore(batch) == 255).all()
    assert restore(batch).shape == (4, 4, 4)
    image = torch.zeros(2, 4, 4)
    batch, restore = to_batch(image)
    assert batch.shape == (1, 1, 4, 4)
    assert torch.equal(restore(batch), torch.ones(2, 4, 4))


def test_path_gives_a_picture(tmp_path):
    path = tmp_path / "x.png"
    for image, mode in (
        (values((5, 7), np.uint8), "L"),
        (values((5, 7, 3), np.uint8), "RGB"),
        (values((5, 7), np.uint16), "I;16"),
    ):
        Image.fromarray(image).save(path)
        for source in (path, str(path)):
            batch, restore = to_batch(source)
            assert restore(batch).mode == mode
            assert (np.asarray(restore(batch)) == image).all()
    with pytest.raises(DataError, match="No such file"):
        to_batch(tmp_path / "none.png")


def test_a_float_file_gives_a_float_picture_and_keeps_its_noise(tmp_path):
    image = np.linspace(-0.5, 1.5, 35, dtype=np.float32).reshape(5, 7)
    Image.fromarray(image).save(tmp_path / "x.tif")
    for given in (tmp_path / "x.tif", Image.open(tmp_path / "x.tif"), image):
        with pytest.raises(DataError, match=r"outside \[0, 1\]"):
            to_batch(given)
        batch, restore = to_batch(given, beyond=1)
        assert (batch[0, 0].numpy() == image).all()
        assert (np.asarray(restore(batch)) == image.clip(0, 1)).all()
    assert restore(batch).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32])
def test_deeper_pictures_come_back_in_their_own_numbers(dtype, tmp_path):
    image = values((5, 7), dtype) % np.iinfo(dtype).max
    tifffile.imwrite(tmp_path / "x.tif", image)
    picture = Image.open(tmp_path / "x.tif")
    batch, restore = to_batch(picture)
    np.testing.assert_allclose(batch[0, 0], image / np.iinfo(dtype).max, atol=1e-6)
    back = np.asarray(restore(batch))
    assert restore(batch).mode == "I"
    np.testing.assert_allclose(back.astype(dtype), image, rtol=1e-6, atol=256 if dtype != np.int16 else 0)


def test_open_picture_with_lazy_content():
    image = values((5, 7, 3), np.uint8)
    batch, restore = to_batch(Image.open(io.BytesIO(content(image))))
    assert (np.asarray(restore(batch)) == image).all()


def test_open_picture_that_is_truncated():
    data = content(values((50, 50, 3), np.uint8))
    with pytest.raises(DataError, match="image: is damaged"):
        to_batch(Image.open(io.BytesIO(data[:2000])))


def test_result_is_rounded_and_clipped():
    image = np.zeros((1, 4), np.uint8)
    _, restore = to_batch(image)
    result = torch.tensor([0.9 / 255, 1.4 / 255, -3, 3]).reshape(1, 1, 1, 4)
    assert restore(result).tolist() == [[1, 1, 0, 255]]
    _, restore = to_batch(image.astype(np.float64))
    assert restore(result)[0, 2:].tolist() == [0, 1]
    _, restore = to_batch(torch.zeros(1, 4, dtype=torch.uint8))
    assert restore(result).tolist() == [[1, 1, 0, 255]]


def test_result_of_other_size_and_channels_fits():
    result = torch.rand(1, 1, 3, 2, generator=torch.Generator().manual_seed(0))
    _, restore = to_batch(values((5, 7, 3), np.uint8))
    assert restore(result).shape == (3, 2, 3)
    _, restore = to_batch(torch.zeros(5, 7))
    assert restore(result.expand(1, 3, 3, 2)).shape == (3, 2)
    torch.testing.assert_close(restore(result.expand(1, 3, 3, 2)), result[0, 0])


def test_result_that_is_not_finite_is_refused():
    _, restore = to_batch(np.zeros((4, 4), np.uint8))
    with pytest.raises(ModelError, match="not finite"):
        restore(torch.full((1, 1, 4, 4), torch.nan))


def test_one_image_needs_one_result():
    _, restore = to_batch(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="2 came back"):
        restore(torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"not \(H, W\), \(H, W, C\)"),
        (np.zeros(8, np.uint8), "shape"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), "shape"),
        (np.ones((8, 8), np.int64), "int64 values up to 1 are all black"),
        (np.full((8, 8), -1, np.int16), r"lie outside \[0, 32767\]"),
        (np.zeros((8, 8), complex), "complex128 values, which are no pixels"),
        (np.ma.masked_less(np.arange(64).reshape(8, 8) / 64, 0.5), "masked out"),
        (np.full((8, 8), 1.5), r"outside \[0, 1\]"),
        (np.full((8, 8), np.nan), "not finite"),
        (np.zeros((0, 8, 3)), "holds no pixels"),
        (torch.zeros(8, 8, 3), r"not \(H, W\), \(C, H, W\)"),
        (torch.zeros(8), "shape"),
        (torch.ones(8, 8, dtype=torch.int64), "int64 values up to 1 are all black"),
        (torch.full((8, 8), -1, dtype=torch.int8), r"lie outside \[0, 127\]"),
        (torch.full((8, 8), -0.5), r"outside \[0, 1\]"),
        ([[0, 1]], "not list"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_image(image, reason):
    with pytest.raises(DataError, match=reason):
        to_batch(image)
