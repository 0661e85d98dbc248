import numpy as np
import pytest
import torch
from commands import raising
from PIL import Image
from tiny import draw_bumps

from mfimage import score
from mfimage.datasets.pictures import missing_pixels
from mfimage.denoising import restoring
from mfimage.denoising.operators import Downsample
from mfimage.denoising.removal import remove_noise
from mfimage.denoising.restorer import Restorer
from mfimage.denoising.restoring import denoise, enlarge, fill, inpaint, super_resolve
from mfimage.errors import ChangedWarning, DataError, ModelError, UsageError
from mfimage.inputs import model_sigma
from mfimage.noise import parse_noise

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
    with pytest.warns(ChangedWarning, match="colour is lost"):
        assert super_resolve(np.stack([small] * 3, -1), 2, model).shape == (8, 8, 3)


def test_no_restoration_loses_colour_or_transparency_without_a_word(model):
    image = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    for call in (
        lambda: denoise(image, model, 0.1),
        lambda: inpaint(image, half(), model),
        lambda: super_resolve(image[:, ::2, ::2], 2, model),
    ):
        with pytest.warns() as caught:
            call()
        said = [str(one.message) for one in caught if one.category is ChangedWarning]
        assert len(said) == 2
        assert "colour is lost" in said[0]
        assert "opaque" in said[1]
        assert all(one.filename == __file__ for one in caught)


@pytest.mark.parametrize("factor", [2, 4])
def test_means_are_the_given_ones_in_the_picture_too(model, factor, generator):
    y = Downsample(factor).forward(torch.bernoulli(torch.full((20, 1, 8, 8), 0.5), generator=generator))
    large = super_resolve(y, factor, model)
    assert large.min() >= 0
    assert large.max() <= 1
    torch.testing.assert_close(Downsample(factor).forward(large), y, atol=1e-6, rtol=0)


def test_what_is_nearest_within_black_and_white(generator):
    """No other image with these means lies nearer: what is moved within a block takes it away."""
    operator = Downsample(2)
    x, y = 1.5 * torch.randn(30, 1, 8, 8, generator=generator), torch.rand(30, 1, 4, 4, generator=generator)
    found = operator.completed_within(x, y)
    torch.testing.assert_close(operator.forward(found), y, atol=1e-6, rtol=0)
    for _ in range(20):
        other = (found + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
        other = operator.completed(other, y)
        inside = (other >= 0).flatten(1).all(1) & (other <= 1).flatten(1).all(1)
        nearer = (other - x).square().sum((1, 2, 3)) < (found - x).square().sum((1, 2, 3)) - 1e-4
        assert not (inside & nearer).any()


def test_uncertainty_is_refused_before_the_search(model, monkeypatch):
    monkeypatch.setattr(restoring, "remove_noise", raising(AssertionError("it was denoised")))
    with pytest.raises(ModelError, match="method map"):
        denoise(X, model, 0.1, "map", uncertainty=True)


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_a_model_of_doubles_takes_any_image(model, kind):
    image = GREY[0] if kind is np.uint8 else (GREY[0] / 255).astype(kind)
    single = [denoise(image, model, uncertainty=True)[0], inpaint(image, half(), model)]
    single.append(super_resolve(image[::2, ::2], 2, model))
    model.double()
    double = [denoise(image, model, uncertainty=True)[0], inpaint(image, half(), model)]
    double.append(super_resolve(image[::2, ::2], 2, model))
    for one, other in zip(single, double, strict=True):
        assert one.dtype == other.dtype == kind
        np.testing.assert_allclose(one / 1.0, other, atol=2 if kind is np.uint8 else 0.01)


@pytest.mark.parametrize("change", [torch.half, torch.bfloat16])
def test_a_model_of_halves_is_refused_in_words(model, change):
    kind = torch.float16 if change is torch.half else change
    for call in (lambda: denoise(GREY[0], model.to(kind)), lambda: score(GREY[0], model.to(kind))):
        with pytest.raises(ModelError, match=r"16 weights .*model\.float\(\)"):
            call()


@pytest.mark.filterwarnings("ignore::mfimage.errors.UnfamiliarWarning")
@pytest.mark.parametrize(
    ("noise", "sigma"),
    [("poisson:1", None), ("poisson:0.1", None), ("gaussian:2", None), (None, 2.0), (None, 1.0)],
)
def test_all_that_noise_can_do_that_is_told_may_be_in_an_image(model, noise, sigma):
    clean = X.repeat(40, 1, 1, 1)
    law = parse_noise(noise or f"gaussian:{sigma}")
    y, _ = law.add(clean, torch.Generator().manual_seed(0))
    denoise(y, model, sigma, noise=noise)


@pytest.mark.filterwarnings("ignore::mfimage.errors.UnfamiliarWarning")
def test_another_scale_is_refused_and_the_noise_asked_for(model):
    denoise(1 + 7 * X, model)  # σ = 1, the most that is estimated, does as much
    for call in (lambda: denoise(100 * X, model), lambda: denoise(100 * X, model, 0.1)):
        with pytest.raises(DataError, match=r"outside \[0, 1\] by .* name noise that is stronger, or scale"):
            call()
    with pytest.raises(DataError, match="an image is a path"):
        denoise(3, model, 0.1)


@pytest.mark.filterwarnings(
    "ignore::mfimage.errors.ChangedWarning", "ignore::mfimage.errors.UnfamiliarWarning"
)
def test_the_noise_of_colours_is_less_in_luma(model, monkeypatch, generator):
    """√(.299² + .587² + .114²) of it where the channels have noise of their own; all where they are equal."""
    told = []

    def note(y, model, noise, method, batch_size):
        told.append([str(one) for one in noise])
        return remove_noise(y, model, noise, method, batch_size)

    monkeypatch.setattr(restoring, "remove_noise", note)
    colour = X[:2].repeat(1, 3, 1, 1)
    y = colour.clone()
    y[0] += 0.1 * torch.randn(3, 8, 8, generator=generator)
    denoise(y, model, 0.1)
    denoise(y, model, noise="gaussian:0.1")
    for one in told:
        low, high = (float(text.removeprefix("gaussian:")) for text in one)
        assert (low, high) == pytest.approx((0.0669, 0.1), abs=1e-4)
    assert float(model_sigma(0.1, y, model, 2)[0]) == pytest.approx(0.0669, abs=1e-4)
    with pytest.warns(ChangedWarning, match="photons counted in three colours"):
        denoise(y, model, noise="poisson:30")
    with pytest.warns(ChangedWarning, match="lost in single colours"):
        denoise(y, model, noise="salt-pepper:0.1")


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
