import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tiny import draw_bumps

from mfimage import ModelConfig, build, denoise, score
from mfimage.errors import DataError, UsageError
from mfimage.eval.image_metrics import mse
from mfimage.inputs import given_sigma, in_batches, model_input

pytestmark = [  # a grey model drops colour, and these images are none that it knows
    pytest.mark.filterwarnings("ignore::mfimage.errors.ChangedWarning"),
    pytest.mark.filterwarnings("ignore::mfimage.errors.UnfamiliarWarning"),
]

GREY = draw_bumps(3, seed=5)
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], -1)


@pytest.fixture(scope="module")
def colour_model():
    model = build(ModelConfig((3, 8, 8), 2, width=2, hidden=8, density_steps=1)).eval()
    model.chart.initialise(torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    return model


def picture_file(folder, array, name="image.png"):
    path = folder / name
    Image.fromarray(array).save(path)
    return path


ARRAYS = {
    "uint8 (H, W)": GREY[0],
    "uint8 (H, W, 1)": GREY[0][..., None],
    "uint8 (H, W, C)": COLOUR[0],
    "uint8 (H, W, 4)": np.concatenate([COLOUR[0], np.full((8, 8, 1), 255, np.uint8)], -1),
    "uint16 (H, W)": GREY[0].astype(np.uint16) * 257,
    "float32 (H, W)": (GREY[0] / 255).astype(np.float32),
    "float64 (H, W, C)": COLOUR[0] / 255,
    "uint8 (B, H, W, C)": COLOUR,
    "float32 (B, H, W, 1)": (GREY[..., None] / 255).astype(np.float32),
}
TENSORS = {
    "float32 (C, H, W)": torch.from_numpy(GREY[:1] / 255).float(),
    "uint8 (C, H, W)": torch.from_numpy(COLOUR[0]).movedim(-1, 0),
    "float64 (H, W)": torch.from_numpy(GREY[0] / 255),
    "float16 (B, C, H, W)": torch.from_numpy(COLOUR / 255).movedim(-1, 1).half(),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("of_colour", [False, True])
def test_an_array_comes_back_as_it_was(kind, of_colour, model, colour_model):
    image, clean = ARRAYS[kind], denoise(ARRAYS[kind], colour_model if of_colour else model)
    assert isinstance(clean, np.ndarray)
    assert (clean.shape, clean.dtype) == (image.shape, image.dtype)
    assert clean.max() <= (1 if image.dtype.kind == "f" else np.iinfo(image.dtype).max)


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("of_colour", [False, True])
def test_a_tensor_comes_back_as_it_was(kind, of_colour, model, colour_model):
    image, clean = TENSORS[kind], denoise(TENSORS[kind], colour_model if of_colour else model)
    assert isinstance(clean, torch.Tensor)
    assert (clean.shape, clean.dtype, clean.requires_grad) == (image.shape, image.dtype, False)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P", "LA"])
def test_a_picture_comes_back_as_it_was(mode, model):
    clean = denoise(Image.fromarray(COLOUR[0]).convert(mode), model)
    assert isinstance(clean, Image.Image)
    assert (clean.mode, clean.size) == (mode, (8, 8))


@pytest.mark.parametrize(("array", "mode"), [(GREY[0], "L"), (COLOUR[0], "RGB")])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path_gives_a_picture(array, mode, kind, model, tmp_path):
    clean = denoise(kind(picture_file(tmp_path, array)), model)
    assert (clean.mode, clean.size) == (mode, (8, 8))


def test_every_kind_of_the_same_image_gives_the_same_result(model, tmp_path):
    array = denoise(GREY[0], model)
    assert np.array_equal(denoise(Image.fromarray(GREY[0]), model), array)
    assert np.array_equal(denoise(picture_file(tmp_path, GREY[0]), model), array)
    assert np.array_equal(denoise(torch.from_numpy(GREY[:1]), model)[0], array)
    assert np.array_equal(denoise(GREY[..., None], model)[0, ..., 0], array)


def test_denoising_is_the_projection_cut_to_the_unit_interval(model):
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        projected = model.project(x)
    assert projected.min() < 0  # so that there is something to cut
    torch.testing.assert_close(denoise(x, model), projected.clamp(0, 1))


def test_denoising_brings_noisy_images_nearer_to_the_clean(model, generator):
    clean = torch.from_numpy(draw_bumps(50, seed=9))[:, None] / 255
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    before, after = (noisy - clean).square().mean(), (denoise(noisy, model) - clean).square().mean()
    assert after < 0.6 * before


@pytest.mark.parametrize("use", [denoise, score])
def test_the_batch_size_changes_nothing(use, model):
    x = torch.rand(7, 1, 8, 8)
    torch.testing.assert_close(use(x, model, batch_size=2), use(x, model), atol=1e-6, rtol=0)


@pytest.mark.parametrize("use", [denoise, score])
@pytest.mark.parametrize("shape", [(9, 8), (8, 9, 3), (2, 16, 16, 1)])
def test_another_size_is_an_error_with_both_sizes(use, shape, model):
    with pytest.raises(DataError, match=r"image: \d+ × \d+ pixels, but the model was trained on 8 × 8"):
        use(np.zeros(shape, np.uint8), model)


def test_a_file_of_another_size_is_named(model, tmp_path):
    path = picture_file(tmp_path, np.zeros((9, 8), np.uint8), "tall.png")
    with pytest.raises(DataError, match=r"tall\.png: 9 × 8 pixels"):
        score(path, model)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((8, 8), 200.0), r"lie outside \["),
        (np.full((8, 8), np.nan), "not finite"),
        (np.ones((8, 8), np.int64), "int64"),
        ("nowhere.png", "nowhere.png"),
        (3, "an image is a path"),
    ],
)
@pytest.mark.parametrize("use", [denoise, score])
def test_what_is_no_image_is_an_error(use, image, message, model):
    with pytest.raises(DataError, match=message):
        use(image, model)


def test_one_image_scores_as_a_number_and_a_batch_as_what_it_was(model, tmp_path):
    one = score(GREY[0], model)
    assert isinstance(one, float)
    for same in (Image.fromarray(GREY[0]), picture_file(tmp_path, GREY[0]), torch.from_numpy(GREY[:1])):
        assert score(same, model) == pytest.approx(one, rel=1e-5)
    array, tensor = score(GREY[..., None], model), score(torch.from_numpy(GREY)[:, None], model)
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    assert array.shape == tensor.shape == (3,)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, tensor.numpy())
    assert array[0] == pytest.approx(one, rel=1e-5)


def test_what_lies_on_the_manifold_scores_nothing_and_noise_much(model):
    on = model.sample(20, torch.Generator().manual_seed(0))
    familiar = mse(model.project(on), on).detach()
    strange = score(torch.rand(20, 1, 8, 8), model)
    assert familiar.max() < 1e-8
    assert strange.min() > 1e-2


def test_the_score_is_the_mean_squared_residual_a_pixel(model):
    x = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        residual = (x - model.project(x)).square().mean((1, 2, 3))
    torch.testing.assert_close(score(x, model), residual)


def test_unseen_images_score_below_other_things(model):
    familiar = score(draw_bumps(40, seed=7)[..., None], model)
    inverted = score(255 - draw_bumps(40, seed=7)[..., None], model)
    assert familiar.max() < inverted.min()


def test_grey_is_repeated_for_a_colour_model(colour_model):
    x, _ = model_input(GREY[..., None], colour_model)
    assert x.shape == (3, 3, 8, 8)
    assert torch.equal(x[:, 0], x[:, 2])


def test_colour_becomes_luma_for_a_grey_model(model):
    floats, _ = model_input(COLOUR / 255, model)
    expected = (COLOUR @ np.array([0.299, 0.587, 0.114]))[:, None] / 255
    torch.testing.assert_close(floats, torch.from_numpy(expected).float(), atol=1e-6, rtol=0)
    bytes_, _ = model_input(COLOUR, model)  # as Pillow has it, and with it every data set
    pillow = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in COLOUR])
    assert torch.equal(bytes_[:, 0], torch.from_numpy(pillow) / 255)
    noisy, _ = model_input(np.full((8, 8, 3), 1.5), model, beyond=1)
    torch.testing.assert_close(noisy, torch.full((1, 1, 8, 8), 1.5))


def test_a_grey_picture_stays_grey_through_a_colour_model(colour_model):
    assert denoise(Image.fromarray(GREY[0]), colour_model).mode == "L"


def test_gradients_are_not_kept(model):
    assert not in_batches(model.project, torch.rand(2, 1, 8, 8)).requires_grad


SCALES = {
    "uint8 array": (np.zeros((8, 8), np.uint8), 255),
    "uint16 array": (np.zeros((8, 8), np.uint16), 65535),
    "float array": (np.zeros((8, 8)), 1),
    "int16 array": (np.zeros((8, 8), np.int16), 32767),
    "boolean array": (np.zeros((8, 8), bool), 1),
    "uint8 tensor": (torch.zeros(1, 8, 8, dtype=torch.uint8), 255),
    "int16 tensor": (torch.zeros(1, 8, 8, dtype=torch.int16), 32767),
    "float tensor": (torch.zeros(1, 8, 8), 1),
    "grey picture": (Image.new("L", (8, 8)), 255),
    "16-bit picture": (Image.new("I;16", (8, 8)), 65535),
    "float picture": (Image.new("F", (8, 8)), 1),
}


@pytest.mark.parametrize("kind", SCALES)
def test_noise_is_named_in_the_scale_of_the_image(kind):
    image, white = SCALES[kind]
    torch.testing.assert_close(given_sigma(0.1 * white, image, 1), torch.tensor([0.1]))


def test_a_file_has_the_scale_of_its_pixels(tmp_path):
    for name, array, white in (
        ("a.png", np.zeros((8, 8), np.uint8), 255),
        ("b.png", np.zeros((8, 8), np.uint16), 65535),
    ):
        Image.fromarray(array).save(tmp_path / name)
        for path in (tmp_path / name, str(tmp_path / name)):
            torch.testing.assert_close(given_sigma(0.1 * white, path, 1), torch.tensor([0.1]))


@pytest.mark.parametrize(
    ("array", "white"),
    [
        (np.zeros((8, 8), np.int16), 32767),
        (np.zeros((8, 8), np.int8), 127),
        (np.zeros((8, 8), np.uint32), 2**32 - 1),
        (np.zeros((8, 8, 3), np.uint16), 65535),
        (np.zeros((8, 8), "f4"), 1),
    ],
)
def test_a_deep_file_has_the_scale_in_which_it_is_decoded(array, white, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", array)
    torch.testing.assert_close(given_sigma(0.1 * white, tmp_path / "a.tif", 1), torch.tensor([0.1]))


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


@pytest.mark.parametrize(("image", "white"), [(draw_bumps(1)[0] / 255, "1"), (draw_bumps(1)[0], "255")])
def test_noise_far_above_white_is_of_another_scale(image, white):
    assert given_sigma(4 * float(white), image, 1) == 4
    with pytest.raises(UsageError, match=f"another scale than the image, whose white is {white}"):
        given_sigma(4.01 * float(white), image, 1)
