import pytest
import torch

from mfimage.datasets import gaussian_noise


def test_noise_has_the_stated_deviation():
    x = torch.full((4, 3, 64, 64), 0.5)
    noise = gaussian_noise(x, 0.3, torch.Generator().manual_seed(0), clip=False) - x
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert abs(noise.mean().item()) < 0.01


def test_noise_is_seeded_and_clipped():
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    first, second = (gaussian_noise(x, 0.5, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, gaussian_noise(x, 0.5, torch.Generator().manual_seed(8)))
    free = gaussian_noise(x, 0.5, torch.Generator().manual_seed(7), clip=False)
    assert torch.equal(first, free.clamp(0, 1))
    assert not torch.equal(first, free)
    assert torch.equal(x, before)
    assert torch.equal(gaussian_noise(x, 0.0, torch.Generator().manual_seed(7)), x)
