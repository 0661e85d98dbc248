"""What a sharper drawing is trained against."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.flow import ManifoldFlow
from mfimage.modes import Making

_SLOPE = 0.2  # of the rectifiers below 0


class Discriminator(nn.Module):
    """Tells images, (B, C, H, W) in [0, 1], from drawings: a logit each, (B,), above 0 for images.

    Strided 4 × 4 convolutions with leaky rectifiers down to about 4 × 4, and two more layers; weights as of
    He, Zhang, Ren, Sun, Delving deep into rectifiers, 2015, arXiv 1502.01852.
    """

    def __init__(self, shape: tuple[int, ...], channels: int = 32, most: int = 128) -> None:
        super().__init__()
        halvings = max(1, round(math.log2(min(shape[1:]) / 4)))
        widths = [shape[0], *(min(channels * 2**i, most) for i in range(halvings))]
        self.halving = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.last = nn.Conv2d(widths[-1], 48, 3, padding=1)
        self.out = nn.Linear(48 * math.prod(side >> halvings for side in shape[1:]), 1)
        for layer in (*self.halving, self.last):
            nn.init.kaiming_normal_(layer.weight, _SLOPE)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.out.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        x = 2 * x - 1
        for layer in (*self.halving, self.last):
            x = F.leaky_relu(layer(x), _SLOPE)
        return self.out(x.flatten(1))[:, 0]


class Contest(nn.Module):
    """A model's network that sharpens, and a new discriminator: what is trained together.

    Args:
        model: One that has such a network; its other parts stand still.
        seed: Of the discriminator's first weights.
    """

    def __init__(self, model: ManifoldFlow, seed: int = 0) -> None:
        super().__init__()
        self.sharpener = model.sharpener
        with Making(torch.Generator().manual_seed(seed)):
            self.discriminator = Discriminator(model.shape)
        self.discriminator.to(model.device)
        self._model = (model,)  # in a tuple, so that it is not a part of this

    @property
    def model(self) -> ManifoldFlow:
        """The model."""
        return self._model[0]
