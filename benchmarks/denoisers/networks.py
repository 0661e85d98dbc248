"""Denoisers that are trained here beside ours, for the CPU seconds that ours took."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from denoisers.classics import Family
from denoisers.sets import Noise
from harness import LeftOutError, trained_net
from torch import Tensor, nn

from mfimage.datasets import ImageSet


class PlainCnn(nn.Module):
    """A plain supervised denoiser: y less what six convolutions see in (y, σ)."""

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__()
        sizes = [channels + 1, *[width] * 5, channels]
        layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes)]
        self.net = nn.Sequential(*[m for layer in layers for m in (layer, nn.SiLU())][:-1])

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Denoise (B, C, H, W), given σ, shape (B,)."""
        level = sigma.view(-1, 1, 1, 1).expand(-1, 1, *y.shape[2:])
        return y - self.net(torch.cat([y, level], 1))


def deepinv_dncnn(channels: int, quick: bool) -> nn.Module:
    """Build deepinv's DnCNN, not pretrained: 20 convolutions of 64 channels, blind to σ."""
    try:
        from mfimage._torchvision import import_torchvision

        import_torchvision()
        from deepinv.models import DnCNN
    except ImportError as error:
        raise LeftOutError(f"the package deepinv cannot be imported: {error}") from error
    size = {"depth": 4, "nf": 8} if quick else {}
    return DnCNN(channels, channels, pretrained=None, **size)


def trained_network(
    build: Callable[[], nn.Module],
    images: ImageSet,
    seconds: float,
    folder: Path,
    batch_size: int,
    lr: float,
) -> Family:
    """Train a denoiser by the log of its squared error, as ours, with σ drawn from 0 … 0.5; or read it."""
    torch.manual_seed(0)
    net, generator = build(), torch.Generator().manual_seed(1)

    def loss(module: nn.Module, x: Tensor) -> Tensor:
        sigma = 0.5 * torch.rand(len(x), generator=generator)
        y = x + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)
        return ((module(y, sigma) - x).square().flatten(1).mean(1) + 1e-4).log().mean()

    trained_net(net, loss, images, seconds, folder, lr, batch_size)

    def filtered(y: Tensor, noise: Noise) -> Tensor:
        return net(y, y.new_full((len(y),), noise.sigma))

    return {"": filtered}
