"""The layers of StyleGAN2: linear maps, modulated convolutions, the filter between resolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TAPS = (1 / 4, 3 / 4, 3 / 4, 1 / 4)  # [1, 3, 3, 1], of sum 2: zeros inserted between pixels halve the mean
_EPSILON = 1e-8

Noise = bool | torch.Generator


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Make a linear map of zeros, without drawing random numbers."""
    module = nn.Linear(inputs, outputs, device="meta").to_empty(device=torch.get_default_device())
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def normalise(x: Tensor) -> Tensor:
    """Scale rows to a mean square of one: x / √(mean x² + 10⁻⁸)."""
    return x * (x.square().mean(1, keepdim=True) + _EPSILON).rsqrt()


def activate(x: Tensor) -> Tensor:
    """Apply √2 · leaky ReLU of slope 0.2, which about keeps the variance."""
    return F.leaky_relu(x, 0.2) * 2**0.5


def smooth(x: Tensor) -> Tensor:
    """Filter (n, C, H + 1, W + 1) by [1, 3, 3, 1] / 4 in both directions, zero outside: (n, C, H, W)."""
    channels = x.shape[1]
    return F.conv2d(x, _kernel(x).expand(channels, 1, 4, 4), padding=1, groups=channels)


def upsample(x: Tensor) -> Tensor:
    """Double height and width: zeros between the pixels, then the filter of `smooth`."""
    channels = x.shape[1]
    kernel = _kernel(x).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


def _kernel(like: Tensor) -> Tensor:
    taps = torch.tensor(_TAPS, dtype=like.dtype, device=like.device)
    return torch.outer(taps, taps)


class Convolution(nn.Module):
    """A 3×3 convolution whose input is scaled by a style and whose output is brought to unit variance.

        s = A w + a,   d_o = (Σ_i s_i² Σ_k K_oik² + 10⁻⁸)^−½
        y_o = clip √2 leaky_relu(d_o Σ_i K_oi ∗ (s_i x_i) + strength · noise + b_o)

    Scaling before and after one shared convolution equals a convolution with a kernel of each image's own,
    and is faster on a CPU. With `up`, zeros are inserted between pixels, ∗ is a true convolution, and
    `smooth` follows it; else ∗ is a correlation, as in PyTorch.

    Args:
        inputs: Channels of x.
        outputs: Channels of y.
        style: Length of w.
        resolution: Height and width of y.
        up: Whether x has half of them.
        limit: |y| is clipped to it; None does not clip.

    Reference:
        Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, Analyzing and Improving the Image Quality of
        StyleGAN, 2020, arXiv 1912.04958, section 2.
    """

    def __init__(
        self, inputs: int, outputs: int, style: int, resolution: int, up: bool, limit: float | None
    ) -> None:
        super().__init__()
        self.style = linear(style, inputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.strength = nn.Parameter(torch.zeros(()))
        self.noise: Tensor
        self.register_buffer("noise", torch.zeros(resolution, resolution))
        self.up, self.limit = up, limit

    def forward(self, x: Tensor, w: Tensor, noise: Noise = True) -> Tensor:
        """Compute y, shape (n, outputs, resolution, resolution), from x and w, shape (n, style)."""
        style = self.style(w)
        demodulation = (style.square() @ self.weight.square().sum((2, 3)).mT + _EPSILON).rsqrt()
        x = x * style[:, :, None, None]
        if self.up:
            x = smooth(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2))
        else:
            x = F.conv2d(x, self.weight, padding=1)
        x = x * demodulation[:, :, None, None] + self.bias[:, None, None]
        if noise is not False:
            x = x + self.strength * self._noise(len(x), noise)
        x = activate(x)
        return x if self.limit is None else x.clamp(-self.limit, self.limit)

    def _noise(self, count: int, noise: Noise) -> Tensor:
        if not isinstance(noise, torch.Generator):
            return self.noise
        shape = (count, 1, *self.noise.shape)
        return torch.randn(shape, generator=noise, dtype=self.noise.dtype, device=noise.device).to(self.noise)


class Colour(nn.Module):
    """A 1×1 convolution from features to colours, modulated but not brought to unit variance.

        y_c = clip(Σ_i K_ci s_i x_i + b_c),   s = A w + a

    Args:
        inputs: Channels of x.
        outputs: Channels of the image.
        style: Length of w.
        limit: |y| is clipped to it; None does not clip.
    """

    def __init__(self, inputs: int, outputs: int, style: int, limit: float | None) -> None:
        super().__init__()
        self.style = linear(style, inputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.limit = limit

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Compute y, shape (n, outputs, H, W), from x and w, shape (n, style)."""
        x = x * self.style(w)[:, :, None, None]
        x = F.conv2d(x, self.weight[:, :, None, None], self.bias)
        return x if self.limit is None else x.clamp(-self.limit, self.limit)
