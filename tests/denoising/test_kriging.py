"""The linear prediction of what is not seen: against dense algebra, and on images of known covariance."""

import numpy as np
import pytest
import torch

from mfimage.denoising import kriging
from mfimage.denoising.kriging import predicted
from mfimage.denoising.operators import Downsample, Mask

SHAPE = (7, 10)


def covariance(decay):
    """C of all pixels of an image, (H·W, H·W)."""
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).reshape(-1, 2)
    far = decay * np.linalg.norm(places[:, None] - places[None], axis=-1)
    return (1 + far) * np.exp(-far)


def correlated(count, decay, generator):
    """Images (N, 2, H, W) of that covariance, float64."""
    factor = torch.from_numpy(np.linalg.cholesky(covariance(decay) + 1e-9 * np.eye(70)))
    noise = torch.randn(count, 2, 70, generator=generator, dtype=torch.float64)
    return (noise @ factor.T).view(-1, 2, *SHAPE)


def measured(x, known):
    """The correlation of neighbours among known values of an image (C, H, W)."""
    pairs = [
        (a[k], b[k])
        for a, b, k in (
            (x[:, 1:], x[:, :-1], known[:, 1:] & known[:, :-1]),
            (x[..., 1:], x[..., :-1], known[..., 1:] & known[..., :-1]),
        )
    ]
    first, second = (torch.cat(one) for one in zip(*pairs, strict=True))
    return float((first * second).sum() / ((first**2 + second**2) / 2).sum())


@pytest.mark.parametrize("name", ["mask", "blocks"])
def test_it_is_the_best_linear_estimate(name, generator, monkeypatch):
    monkeypatch.setattr(kriging, "_ITERATIONS", 200)
    x = correlated(3, 2.0, generator)
    if name == "blocks":
        x = x[..., :6, :]
    missing = torch.rand(3, 1, *SHAPE, generator=generator) < 0.4
    operator = Mask(missing) if name == "mask" else Downsample(2)
    y = operator.forward(x)
    known = operator.known(y)
    found = predicted(y, operator)
    for i in range(3):
        correlation = min(max(measured(y[i], known[i]), 0.02), 0.95)
        decays = np.linspace(1e-3, 16, 200_001)
        decay = np.interp(-correlation, -(1 + decays) * np.exp(-decays), decays) / operator.factor
        full = covariance(decay)[: x[0, 0].numel(), : x[0, 0].numel()]
        eye = torch.eye(len(full), dtype=torch.float64).view(-1, 1, *x.shape[2:])
        some = Mask(missing[i : i + 1]) if name == "mask" else operator
        a = some.forward(eye).flatten(1).T.numpy()  # (seen, pixels)
        inner = np.linalg.pinv(a @ full @ a.T + 1e-3 * np.eye(len(a)))
        truth = y[i].flatten(1).numpy() @ (full @ a.T @ inner).T
        np.testing.assert_allclose(found[i].flatten(1).numpy(), truth, atol=2e-3)


def test_what_is_smooth_is_predicted_and_noise_is_not(generator):
    missing = torch.rand(64, 1, *SHAPE, generator=generator) < 0.5
    mask = Mask(missing)
    errors = []
    for x in (correlated(64, 0.5, generator), torch.randn(64, 2, *SHAPE, generator=generator)):
        y = mask.forward(x)
        found = predicted(y, mask)
        hidden = missing.expand_as(x)
        errors.append(float((found - x)[hidden].square().mean() / x[hidden].square().mean()))
    assert errors[0] < 0.15
    assert 0.95 < errors[1] < 1.05


def test_nothing_seen_predicts_nothing(generator):
    mask = Mask(torch.ones(2, 1, *SHAPE, dtype=torch.bool))
    y = torch.zeros(2, 2, *SHAPE)
    assert torch.equal(predicted(y, mask), y)
