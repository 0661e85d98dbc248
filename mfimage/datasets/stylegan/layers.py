"""The layers of StyleGAN2: modulated convolutions, the filter between resolutions, the mapping network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.errors import UsageError
from mfimage.modes import plainly

_TAPS = (1 / 4, 3 / 4, 3 / 4, 1 / 4)  # [1, 3, 3, 1], of sum 2: zeros inserted between pixels halve the mean
_EPSILON = 1e-8

Noise = bool | torch.Generator


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Make a linear map of zeros, without drawing random numbers."""
    module = nn.Linear(inputs, outputs, device="meta", dtype=torch.float32)
    module = module.to_empty(device=torch.get_default_device())
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
    return F.conv2d(x, _kernel(x), padding=1, groups=x.shape[1])


def upsample(x: Tensor) -> Tensor:
    """Double height and width: zeros between the pixels, then the filter of `smooth`."""
    return F.conv_transpose2d(x, _kernel(x), stride=2, padding=1, groups=x.shape[1])


def _kernel(x: Tensor) -> Tensor:
    taps = torch.tensor(_TAPS, dtype=x.dtype, device=x.device)
    return torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)


class Convolution(nn.Module):
    """A 3×3 convolution whose input is scaled by a style and whose output is brought to unit variance.

        s = A w + a,   d_o = (Σ_i s_i² Σ_k K_oik² + 10⁻⁸)^−½
        y_o = clip √2 leaky_relu(d_o Σ_i K_oi ∗ (s_i x_i) + strength · noise + b_o)

    Scaling before and after one shared convolution equals a convolution with a kernel of each image's own,
    and is faster on a CPU. With `up`, x has half the resolution of y: zeros are inserted between pixels, ∗
    is a true convolution, and `smooth` follows it; else ∗ is a correlation, as in PyTorch. |y| is clipped
    to `limit`. Karras et al., 2020, arXiv 1912.04958, section 2.
    """

    def __init__(
        self, inputs: int, outputs: int, style: int, resolution: int, up: bool, limit: float | None
    ) -> None:
        super().__init__()
        self.style = linear(style, inputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float32))
        self.strength = nn.Parameter(torch.zeros((), dtype=torch.float32))
        self.noise: Tensor
        self.register_buffer("noise", torch.zeros(resolution, resolution, dtype=torch.float32))
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
    """

    def __init__(self, inputs: int, outputs: int, style: int, limit: float | None) -> None:
        super().__init__()
        self.style = linear(style, inputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float32))
        self.limit = limit

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Compute y, shape (n, outputs, H, W), from x and w, shape (n, style)."""
        x = x * self.style(w)[:, :, None, None]
        x = F.conv2d(x, self.weight[:, :, None, None], self.bias)
        return x if self.limit is None else x.clamp(-self.limit, self.limit)


class Mapping(nn.Module):
    """The mapping network: w = layer_depth(… layer_1([z / rms z, e / rms e])), e = E label + b.

    The scales by which training slows these layers down are part of the weights here. `count` styles make
    an image; the other sizes are those of `Architecture`. Karras, Laine, Aila, 2019, arXiv 1812.04948,
    sections 2 and B; labels: Karras et al., 2020, arXiv 2006.06676, section D.1.
    """

    def __init__(self, z_dim: int, w_dim: int, depth: int, labels: int, count: int) -> None:
        super().__init__()
        self.labels, self.z_dim, self.count = labels, z_dim, count
        self.embed = linear(labels, w_dim) if labels else None
        first = z_dim + (w_dim if labels else 0)
        self.layers = nn.ModuleList(linear(w_dim if k else first, w_dim) for k in range(depth))
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(w_dim, dtype=torch.float32))

    @plainly
    def forward(
        self, z: Tensor, labels: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """Compute the styles w, (n, count, w_dim), of latents z, (n, z_dim), standard normal.

        Truncation draws the first `cutoff` of them (None: all) to their mean: mean + ψ (w − mean), ψ in [0,
        1]. Labels, (n, labels), are one-hot as a rule; None for a generator without labels.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise UsageError(f"latents of shape (n, {self.z_dim}) are expected, not {tuple(z.shape)}")
        given = 0 if labels is None else labels.shape[-1]
        if given != self.labels or (labels is not None and labels.shape != (len(z), given)):
            shape = None if labels is None else tuple(labels.shape)
            raise UsageError(f"labels of shape ({len(z)}, {self.labels}) are expected, not {shape}")
        parts = [normalise(z)]
        if self.embed is not None:
            parts.append(normalise(self.embed(labels)))
        w = torch.cat(parts, 1)
        for layer in self.layers:
            w = activate(layer(w))
        w = w[:, None].expand(-1, self.count, -1)
        if psi == 1:
            return w
        drawn = torch.arange(self.count, device=w.device) < (self.count if cutoff is None else cutoff)
        return torch.where(drawn[:, None], self.mean + psi * (w - self.mean), w)
