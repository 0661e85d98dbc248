import numpy as np
import pytest
import torch
from PIL import Image
from tiny import draw_bumps

from mfimage.datasets.pictures import missing_pixels
from mfimage.denoising.inverse import Downsample
from mfimage.denoising.restoring import denoise, enlarge, fill, inpaint, super_resolve
from mfimage.denoising.tiles import Restorer
from mfimage.errors import DataError, ModelError, UsageError

GREY = draw_bumps(20, seed=9)
X = torch.from_numpy(GREY)[:, None] / 255


def error(a):
    return float((a.clamp(0, 1) - X).square().mean())


def half():
    mask = np.zeros((8, 8), bool)
    mask[:, 4:] = True
    return mask


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_missing_pixels_are_found_and_known_ones_stay(model, share, generator):
    y, mask = missing_pixels(X, share, generator)
    filled = fill(y, mask, model)
    assert torch.equal(filled[~mask], X[~mask])
    assert error(filled) < 0.04 * error(y)


def test_half_an_image_is_found_better_than_by_scikit_image(model):
    from skimage.restoration import inpaint_biharmonic

    y = X.masked_fill(torch.from_numpy(half()), 0.0)
    theirs = torch.from_numpy(np.stack([inpaint_biharmonic(image[0].numpy(), half()) for image in y]))
    assert error(inpaint(y, half(), model)) < 0.3 * error(theirs[:, None])


def test_what_missing_pixels_hold_does_not_matter(model):
    kept, other = X.clone(), X.clone()
    other[..., 4:] = torch.rand(20, 1, 8, 4)
    torch.testing.assert_close(inpaint(other, half(), model), inpaint(kept, half(), model), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_the_same_kind_comes_back(model, kind):
    image = GREY[0] if kind is np.uint8 else (GREY[0] / 255).astype(kind)
    filled = inpaint(image, half(), model)
    assert isinstance(filled, np.ndarray)
    assert (filled.shape, filled.dtype) == (image.shape, image.dtype)
    np.testing.assert_allclose(filled[:, :4], image[:, :4], atol=1e-6)
    assert isinstance(inpaint(Image.fromarray(GREY[0]), half(), model), Image.Image)


def test_masks_of_a_batch_and_of_numbers(model, generator):
    y, mask = missing_pixels(X, 0.5, generator)
    batch = inpaint(y, mask[:, 0], model)
    one = inpaint(y[3], mask[3, 0].numpy().astype(np.uint8) * 255, model)
    torch.testing.assert_close(batch[3], one, atol=1e-4, rtol=0)


def test_nothing_missing_changes_nothing(model):
    assert torch.equal(inpaint(X, np.zeros((8, 8), bool), model), X)


def test_everything_missing_gives_an_image_of_the_model(model):
    filled = inpaint(X[:1], np.ones((8, 8), bool), model)
    with torch.no_grad():
        assert (model.project(filled) - filled).square().mean() < 1e-3


def test_noise_in_the_known_pixels_is_removed_too(model, generator):
    noisy = (X + 0.2 * torch.randn(X.shape, generator=generator)).clamp(0, 1)
    kept, cleaned = inpaint(noisy, half(), model), inpaint(noisy, half(), model, sigma=0.2)
    assert torch.equal(kept[..., :4], noisy[..., :4])
    assert error(cleaned) < 0.7 * error(kept)


@pytest.mark.parametrize("shape", [(8,), (7, 8), (2, 8, 8), (1, 1, 8, 8)])
def test_a_mask_that_does_not_fit_is_refused(model, shape):
    with pytest.raises(DataError, match="mask: shape"):
        inpaint(X, np.zeros(shape, bool), model)


@pytest.mark.parametrize("factor", [2, 4])
def test_enlarged_images_have_the_given_means_and_more(model, factor):
    y = Downsample(factor).forward(X)
    large = enlarge(y, factor, model)
    torch.testing.assert_close(Downsample(factor).forward(large), y, atol=1e-5, rtol=0)
    smooth = torch.nn.functional.interpolate(y, scale_factor=factor, mode="bicubic", align_corners=False)
    assert error(large) < 0.3 * error(smooth)


def test_the_same_kind_comes_back_larger(model):
    small = np.rint(Downsample(2).forward(X)[0, 0].numpy() * 255).astype(np.uint8)
    for image in (small, Image.fromarray(small)):
        large = super_resolve(image, 2, model)
        assert type(large) is type(image)
        assert np.asarray(large).shape == (8, 8)
        assert np.asarray(large).dtype == np.uint8
    assert super_resolve(np.stack([small] * 3, -1), 2, model).shape == (8, 8, 3)


def test_wrong_sizes_and_factors_are_refused(model):
    with pytest.raises(DataError, match=r"8 × 8 pixels, .* from 4 × 4 by a factor of 2"):
        super_resolve(GREY[0], 2, model)
    with pytest.raises(UsageError, match="must divide both sides"):
        super_resolve(GREY[0], 3, model)
    for sigma in (0.0, -1.0):
        with pytest.raises(UsageError, match="deviation"):
            inpaint(X, half(), model, sigma)


@pytest.fixture
def broken(model, monkeypatch):
    """A model that draws no numbers of some of the images."""
    decode, middle = model.chart.decode, model.encode(X)[:, 0].median().detach()

    def nowhere(u, context=None):
        return decode(u, context).where((u[:, 0] <= middle).view(-1, 1, 1, 1), torch.nan)

    monkeypatch.setattr(model.chart, "decode", nowhere)
    return model


@pytest.mark.filterwarnings("ignore::mfimage.errors.UnfamiliarWarning")
def test_no_image_comes_back_that_is_not_finite(broken):
    for call in (
        lambda: denoise(X, broken, 0.1, "projection"),
        lambda: denoise(X, broken, 0.1, "map"),
        lambda: inpaint(X, half(), broken, 0.1),
        lambda: super_resolve(torch.nn.functional.avg_pool2d(X, 2), 2, broken, 0.1),
    ):
        with pytest.raises(ModelError, match="values that are not finite"):
            call()


def test_of_many_files_those_without_a_finite_result_are_left_as_they_are_and_named(broken):
    found = Restorer(broken, "projection", 0.1)(X)
    lost = ~broken.project(X).flatten(1).isfinite().all(1)
    assert 0 < lost.sum() < 20
    assert torch.equal(found.after[lost], X[lost])
    assert [method == "noisy" for method in found.methods] == lost.tolist()
    words = found.examination.messages(["x"] * 20, [method != "noisy" for method in found.methods])
    said = "x: the model gives no finite numbers for it: it is left as it is"
    assert [said == one for one in words] == lost.tolist()


@pytest.mark.parametrize("hidden", [float("nan"), float("inf"), -1.0, 255.0])
@pytest.mark.parametrize("kind", ["torch", "numpy", "picture", "file"])
def test_missing_pixels_may_hold_anything(model, hidden, kind, tmp_path):
    expected = inpaint(X[0, 0], half(), model).numpy()
    y = X[0, 0].masked_fill(torch.from_numpy(half()), hidden).numpy()
    Image.fromarray(y).save(tmp_path / "y.tif")
    given = {
        "torch": torch.from_numpy(y), "numpy": y, "picture": Image.fromarray(y), "file": tmp_path / "y.tif"
    }[kind]  # fmt: skip
    np.testing.assert_allclose(np.asarray(inpaint(given, half(), model)), expected, atol=1e-5)


def test_known_pixels_may_not(model):
    for value, words in ((float("nan"), "known pixels: holds values that are not finite"), (1.5, "outside")):
        y = X[0, 0].clone()
        y[2, 1] = value
        with pytest.raises(DataError, match=words):
            inpaint(y, half(), model)
    inpaint(y, half(), model, sigma=0.3)  # noise may have put it there
    with pytest.raises(DataError, match="outside"):
        super_resolve(y[:4, :4], 2, model)
    super_resolve(y[:4, :4], 2, model, sigma=0.3)
