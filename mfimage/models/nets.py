"""Conditioner networks of the couplings; each ends in zeros, so that a new coupling is the identity."""

from __future__ import annotations

import math

from torch import Tensor, nn

SILU_GAIN = 1.68  # 1/√E[SiLU(z)²] for z ~ N(0, 1): keeps the activations' variance from layer to layer


def _initialise(layers: nn.Sequential) -> nn.Sequential:
    linear = [m for m in layers if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in linear:
        nn.init.normal_(layer.weight, std=SILU_GAIN / math.sqrt(layer.weight[0].numel()))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    nn.init.zeros_(linear[-1].weight)
    return layers


class ConvNet(nn.Module):
    """3×3 – 1×1 – 3×3 convolutions with SiLU, (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        self.layers = _initialise(
            nn.Sequential(
                nn.Conv2d(in_channels, width, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(width, width, 1),
                nn.SiLU(),
                nn.Conv2d(width, out_channels, 3, padding=1),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the network."""
        return self.layers(x)


class MLP(nn.Module):
    """Two hidden layers with SiLU, (B, in) to (B, out)."""

    def __init__(self, in_features: int, out_features: int, width: int) -> None:
        super().__init__()
        self.layers = _initialise(
            nn.Sequential(
                nn.Linear(in_features, width),
                nn.SiLU(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Linear(width, out_features),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the network."""
        return self.layers(x)
