"""Orthonormal wavelets of images of any size: a level, and the pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.duals import Dual
from mfimage.models.layers import Transform, Value, full_precision
from mfimage.models.nets import Shape, halved

_BUTTERFLY = [[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5], [0.5, 0.5, -0.5, -0.5], [0.5, -0.5, -0.5, 0.5]]


class Haar(Transform):
    """One orthonormal Haar wavelet step, (B, C, H, W) to (B, 4C, ⌈H/2⌉, ⌈W/2⌉): averages first.

    Each 2 × 2 block (a b; c d) becomes ½(a+b+c+d), ½(a−b+c−d), ½(a+b−c−d), ½(a−b−c+d); ladj = 0. The last row
    or column of an odd side goes on as it is, transformed along the other axis alone, with zeros in place of
    details across its own. Ardizzone et al., Guided image generation with conditional INNs, 2019, arXiv
    1907.02392.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.odd = height % 2, width % 2
        self.register_buffer("matrix", torch.tensor(_BUTTERFLY), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        if any(self.odd):
            x = F.pad(x, (0, self.odd[1], 0, self.odd[0]), "replicate")
        batch, channels, height, width = x.shape
        blocks = x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
        with full_precision(x):
            y = (self.matrix @ blocks.reshape(batch, 4, -1)).view(batch, -1, height // 2, width // 2)
        return self._at_borders(y, math.sqrt(0.5)), x.new_zeros(batch)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        return self._synthesise(x), x.new_zeros(x.shape[0])

    def push(self, z: Dual) -> Dual:
        return z.linear(self._synthesise)

    def _synthesise(self, y: Tensor) -> Tensor:
        batch, channels, height, width = y.shape
        y = self._at_borders(y, math.sqrt(2))
        with full_precision(y):
            blocks = self.matrix @ y.reshape(batch, 4, -1)  # the butterfly is its own inverse
        blocks = blocks.view(batch, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
        x = blocks.reshape(batch, channels // 4, 2 * height, 2 * width)
        return x[..., : 2 * height - self.odd[0], : 2 * width - self.odd[1]]

    def _at_borders(self, y: Tensor, factor: float) -> Tensor:
        """Scale the last row and the last column where they hold what odd sides left over."""
        if not any(self.odd):
            return y
        scale = y.new_ones(y.shape[-2:])
        scale[-1] *= factor ** self.odd[0]
        scale[:, -1] *= factor ** self.odd[1]
        return y * scale


class Wavelets(nn.Module):
    """The orthonormal Haar pyramid of images (C, H, W) of any size, as a map to vectors and back.

    A vector holds C·H·W coefficients: the coarsest averages, then the details from coarse to fine.
    """

    haar: Any  # a list of Haar

    def __init__(self, shape: Shape, levels: int) -> None:
        super().__init__()
        self.shape, self.sizes = shape, halved(shape[1:], levels)
        self.haar = nn.ModuleList(Haar(*size) for size in self.sizes[:-1])

    def split(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Take an image that went through so many levels apart: averages, C channels, and details, 3C."""
        y, _ = self.haar[level](x)
        return y[:, : self.shape[0]], y[:, self.shape[0] :]

    def join(self, low: Tensor, details: Tensor, level: int) -> Tensor:
        """Undo `split`."""
        return self.haar[level].inverse(torch.cat([low, details], 1))[0]

    def analysis(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to vectors (B, C·H·W)."""
        details = []
        for level in range(len(self.haar)):
            x, fine = self.split(x, level)
            details.append(fine)
        return self.pack(x, details)

    def synthesis(self, vectors: Tensor) -> Tensor:
        """Map vectors (B, C·H·W) to images (B, C, H, W)."""
        x, details = self.unpack(vectors)
        for level in reversed(range(len(self.haar))):
            x = self.join(x, details[level], level)
        return x

    def mask(self, level: int) -> Tensor | None:
        """1 where a level has a detail, 0 where an odd side leaves none, (3C, h, w); None if it has all."""
        if not any(self.haar[level].odd):
            return None
        return torch.cat([self._widen(torch.full(band, 1.0), level) for band in self._bands(level)])

    def pack(self, low: Tensor, details: Sequence[Tensor]) -> Tensor:
        """Make vectors (…, C·H·W) of averages and the details of the levels, the finest first."""
        rows = [low.flatten(-3)]
        for level in reversed(range(len(self.haar))):
            bands = self._bands(level)
            parts = details[level].split([band[0] for band in bands], -3)
            rows += [part[..., :h, :w].flatten(-3) for part, (_, h, w) in zip(parts, bands, strict=True)]
        return torch.cat(rows, -1)

    def unpack(self, vectors: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Undo `pack`, with zeros where there is no detail."""
        whole, details = (self.shape[0], *self.sizes[-1]), []
        end = math.prod(whole)
        low = vectors[..., :end].unflatten(-1, whole)
        for level in reversed(range(len(self.haar))):
            parts = []
            for band in self._bands(level):
                begin, end = end, end + math.prod(band)
                parts.append(self._widen(vectors[..., begin:end].unflatten(-1, band), level))
            details.append(parts[0] if len(parts) == 1 else torch.cat(parts, -3))
        return low, details[::-1]

    def _bands(self, level: int) -> list[Shape]:
        """The shapes of the details across columns, across rows and across both; one where all are alike."""
        channels, (height, width), (rows, columns) = self.shape[0], *self.sizes[level : level + 2]
        if not any(self.haar[level].odd):
            return [(3 * channels, rows, columns)]
        sizes = [(rows, width // 2), (height // 2, columns), (height // 2, width // 2)]
        return [(channels, *size) for size in sizes]

    def _widen(self, band: Tensor, level: int) -> Tensor:
        """Put zeros where an odd side leaves no detail."""
        rows, columns = self.sizes[level + 1]
        more = columns - band.shape[-1], rows - band.shape[-2]
        return F.pad(band, (0, more[0], 0, more[1])) if any(more) else band
