import math

import pytest
import torch
from skimage.metrics import structural_similarity

from mfimage.errors import DataError
from mfimage.eval import (
    PCA,
    mse,
    psnr,
    reconstruction_summary,
    reconstruction_table,
    squared_error,
    ssim,
)
from mfimage.models import linear


def rand(*size, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def decaying(n, shape, seed=0):
    """Images whose variance falls off along random directions, as that of real images does."""
    pixels = math.prod(shape)
    spread = rand(pixels, pixels, seed=seed + 1) - 0.5
    return (0.5 + (rand(n, pixels, seed=seed) - 0.5) / torch.arange(1, pixels + 1) @ spread).view(n, *shape)


def test_errors_of_a_constant_difference():
    x = rand(2, 3, 8, 8) * 0.5
    y = x + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert squared_error(x, y).tolist() == pytest.approx([1.92, 0.0192], rel=1e-4)
    assert mse(x, y).tolist() == pytest.approx([0.01, 0.0001], rel=1e-4)
    assert psnr(x, y).tolist() == pytest.approx([20, 40], rel=1e-5)


def test_psnr_of_equal_images_is_infinite():
    x = rand(1, 1, 4, 4)
    assert psnr(x, x).tolist() == [torch.inf]


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_scikit_images(channels):
    x, y = rand(2, channels, 12, 10), rand(2, channels, 12, 10, seed=1)
    expected = [
        sum(structural_similarity(a.numpy(), b.numpy(), data_range=1.0) for a, b in zip(i, j, strict=True))
        / channels
        for i, j in zip(x, y, strict=True)
    ]
    assert ssim(x, y).tolist() == pytest.approx(expected, abs=1e-6)
    assert ssim(x, x).tolist() == pytest.approx([1, 1])


def test_ssim_of_small_images():
    x = rand(1, 1, 4, 6)
    assert ssim(x, x).tolist() == pytest.approx([1])
    with pytest.raises(DataError, match="3×3"):
        ssim(rand(1, 1, 2, 8), rand(1, 1, 2, 8))


@pytest.mark.parametrize("measure", [squared_error, mse, psnr, ssim])
def test_shapes_must_agree(measure):
    with pytest.raises(DataError):
        measure(rand(2, 1, 8, 8), rand(1, 1, 8, 8))


@pytest.mark.parametrize("exact_pixels", [4096, 0])
def test_pca_is_scikit_learns(exact_pixels, monkeypatch):
    from sklearn.decomposition import PCA as Oracle

    monkeypatch.setattr(linear, "EXACT_FEATURES", exact_pixels)
    x, held_out = decaying(300, (2, 6, 7)), decaying(50, (2, 6, 7), seed=5)
    pca = PCA.fit(x, 5)
    oracle = Oracle(5, svd_solver="full").fit(x.flatten(1).double().numpy())
    flat = held_out.flatten(1).double().numpy()
    expected = torch.from_numpy(oracle.inverse_transform(oracle.transform(flat))).float()
    assert torch.allclose(pca.project(held_out).flatten(1), expected, atol=1e-4)
    overlap = (pca.components.double() @ torch.from_numpy(oracle.components_.T).double()).abs()
    assert torch.allclose(overlap, torch.eye(5, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize("exact_pixels", [4096, 0])
def test_pca_laws(exact_pixels, monkeypatch):
    monkeypatch.setattr(linear, "EXACT_FEATURES", exact_pixels)
    x = decaying(60, (1, 8, 8), seed=3)
    pca = PCA.fit(x, 4, seed=7)
    assert torch.allclose(pca.components @ pca.components.T, torch.eye(4), atol=1e-5)
    u = pca.encode(x)
    assert u.shape == (60, 4)
    assert torch.allclose(u.mean(0), torch.zeros(4), atol=1e-4)
    assert torch.all(u.var(0).diff() < 0)
    assert torch.allclose(pca.encode(pca.decode(u)), u, atol=1e-5)
    assert torch.equal(pca.project(x), pca.decode(u))
    assert torch.equal(PCA.fit(x, 4, seed=7).components, pca.components)


@pytest.mark.parametrize("exact_pixels", [4096, 0])
def test_pca_recovers_a_linear_manifold(exact_pixels, monkeypatch):
    monkeypatch.setattr(linear, "EXACT_FEATURES", exact_pixels)
    x = (0.5 + (rand(40, 3) - 0.5) @ (rand(3, 64, seed=1) - 0.5) / 3).view(40, 1, 8, 8)
    assert squared_error(PCA.fit(x, 3).project(x), x).max() < 1e-9
    assert squared_error(PCA.fit(x, 2).project(x), x).mean() > 1e-3


@pytest.mark.parametrize("dim", [0, 10, 65])
def test_pca_dimensions_that_do_not_exist(dim):
    with pytest.raises(DataError, match="cannot span"):
        PCA.fit(rand(10, 1, 8, 8), dim)


def test_table():
    x = rand(101, 1, 8, 8) * 0.5
    shift = torch.linspace(0.01, 0.11, 101).view(-1, 1, 1, 1)
    table = reconstruction_table(x, x + shift, x + 0.1)
    errors = 64 * shift.flatten().double().square()
    assert (table["n"], table["pixels"]) == (101, 64)
    assert table["ratio_to_pca"] == pytest.approx(float(errors.mean()) / 0.64, rel=1e-5)
    model = table["model"]
    assert model["squared_error"] == pytest.approx(
        {
            "mean": float(errors.mean()),
            "q05": 64 * 0.015**2,
            "median": 64 * 0.06**2,
            "q95": 64 * 0.105**2,
        },
        rel=1e-4,
    )
    assert model["mse"]["mean"] == pytest.approx(model["squared_error"]["mean"] / 64)
    assert model["psnr"]["median"] == pytest.approx(-20 * math.log10(0.06), abs=1e-3)
    assert model["psnr"]["mean"] > model["psnr_of_mean_mse"] + 0.5
    assert table["pca"]["psnr_of_mean_mse"] == pytest.approx(20, abs=1e-4)
    assert 0 < model["ssim"]["q05"] <= model["ssim"]["median"] <= model["ssim"]["q95"] <= 1


def test_table_where_pca_is_exact_has_no_ratio():
    x = rand(2, 1, 8, 8)
    assert reconstruction_table(x, x + 0.1, x)["ratio_to_pca"] is None


def test_reconstructions_that_are_not_finite():
    x = rand(3, 1, 8, 8)
    y = x.clone()
    y[1, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match="1 of 3"):
        reconstruction_summary(x, y)
    with pytest.raises(DataError, match="no images"):
        reconstruction_summary(x[:0], y[:0])
