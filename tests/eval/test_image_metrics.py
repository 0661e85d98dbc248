import math

import pytest
import torch
from skimage.metrics import structural_similarity

from mfimage.errors import DataError
from mfimage.eval import PCA, copies, mse, nearest, psnr, squared_error, ssim
from mfimage.models import subspace


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

    monkeypatch.setattr(subspace, "EXACT_FEATURES", exact_pixels)
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
    monkeypatch.setattr(subspace, "EXACT_FEATURES", exact_pixels)
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
    monkeypatch.setattr(subspace, "EXACT_FEATURES", exact_pixels)
    x = (0.5 + (rand(40, 3) - 0.5) @ (rand(3, 64, seed=1) - 0.5) / 3).view(40, 1, 8, 8)
    assert squared_error(PCA.fit(x, 3).project(x), x).max() < 1e-9
    assert squared_error(PCA.fit(x, 2).project(x), x).mean() > 1e-3


@pytest.mark.parametrize("dim", [0, 10, 65])
def test_pca_dimensions_that_do_not_exist(dim):
    with pytest.raises(DataError, match="cannot span"):
        PCA.fit(rand(10, 1, 8, 8), dim)


def test_nearest_and_copies():
    def randn(*size, seed=0):
        return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    train, held_out = randn(500, 3), randn(400, 3, seed=1)
    distances, which = nearest(train[:7], train)
    assert which.tolist() == list(range(7))
    assert distances.max() < 1e-3
    usual = nearest(held_out, train)[0]
    learned_by_heart = torch.cat([train[:50] + 1e-6, randn(50, 3, seed=2)])
    nearer, ratio = copies(nearest(randn(400, 3, seed=3), train)[0], usual)
    assert nearer.mean() < 0.04
    assert ratio == pytest.approx(1, abs=0.15)
    assert copies(nearest(learned_by_heart, train)[0], usual)[0].mean() >= 0.5
