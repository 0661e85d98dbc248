"""Couplings at every level of a wavelet pyramid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mfimage.models.duals import Dual, join
from mfimage.models.layers import AffineCoupling, Transform, Value
from mfimage.models.wavelets import Wavelets


class LevelCouplings(nn.Module):
    """Rounds of couplings between the averages of a wavelet level and its details, both ways.

    details ← details·exp(s(low)) + t(low),  then  low ← low·exp(s(details)) + t(details).

    Args:
        channels: C of the averages; the details have 3C.
        rounds: How many, 0 or more.
        mask: 1 where there is a detail; see `Wavelets.mask`.
        net: Makes a network (B, in, h, w) to (B, out, h, w) of the numbers of channels, in and out.
    """

    fine: Any  # lists of AffineCoupling
    coarse: Any

    def __init__(
        self, channels: int, rounds: int, mask: Tensor | None, net: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        c = channels
        self.fine = nn.ModuleList(AffineCoupling(net(c, 6 * c), mask=mask) for _ in range(rounds))
        self.coarse = nn.ModuleList(AffineCoupling(net(3 * c, 2 * c)) for _ in range(rounds))

    def forward(self, low: Tensor, details: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map averages and details; the third is ladj, (B,)."""
        ladj = low.new_zeros(low.shape[0])
        for fine, coarse in zip(self.fine, self.coarse, strict=True):
            details, first = fine(details, low)
            low, second = coarse(low, details)
            ladj = ladj + first + second
        return low, details, ladj

    def inverse(self, low: Tensor, details: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map back."""
        ladj = low.new_zeros(low.shape[0])
        for fine, coarse in zip(reversed(self.fine), reversed(self.coarse), strict=True):
            low, first = coarse.inverse(low, details)
            details, second = fine.inverse(details, low)
            ladj = ladj + first + second
        return low, details, ladj

    def push(self, low: Dual, details: Dual) -> tuple[Dual, Dual]:
        """Push through `inverse`."""
        for fine, coarse in zip(reversed(self.fine), reversed(self.coarse), strict=True):
            low = coarse.push(low, details)
            details = fine.push(details, low)
        return low, details


class Multiscale(Transform):
    """Wavelet levels with couplings: images (B, C, H, W) to vectors (B, C·H·W), as `Wavelets` orders them.

    Each level halves the resolution and couples averages and details;
    then the details leave and the averages go on. An offset, an image, is taken off first. It
    starts as the fixed pyramid. Dinh, Sohl-Dickstein, Bengio, Density estimation using Real NVP, 2016, arXiv
    1605.08803, §3.6; Yu, Derpanis, Brubaker, Wavelet flow, 2020, arXiv 2010.13821.

    Args:
        wavelets: The pyramid.
        couplings: Of each level, the finest first.
    """

    couplings: Any  # a list of LevelCouplings
    offset: Tensor

    def __init__(self, wavelets: Wavelets, couplings: Sequence[LevelCouplings]) -> None:
        super().__init__()
        self.wavelets, self.couplings = wavelets, nn.ModuleList(couplings)
        self.register_buffer("offset", torch.zeros(wavelets.shape))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        x, ladj, details = x - self.offset, x.new_zeros(x.shape[0]), []
        for level, couple in enumerate(self.couplings):
            x, fine = self.wavelets.split(x, level)
            x, fine, step = couple(x, fine)
            ladj = ladj + step
            details.append(fine)
        return self.wavelets.pack(x, details), ladj

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        ladj = x.new_zeros(x.shape[0])
        image, details = self.wavelets.unpack(x)
        for level in reversed(range(len(details))):
            image, fine, step = self.couplings[level].inverse(image, details[level])
            image, ladj = self.wavelets.join(image, fine, level), ladj + step
        return image + self.offset, ladj

    @property
    def straight(self) -> bool:
        """Whether it is the fixed pyramid, a rotation."""
        return not any(len(couple.fine) for couple in self.couplings)

    def push(self, z: Dual, rotated: bool = False) -> Dual:
        """Push through the inverse; with `rotated` all but the last rotation, or nothing if that is all."""
        if rotated and self.straight:
            return z
        (low, details), (slopes, steep) = self.wavelets.unpack(z.value), self.wavelets.unpack(z.tangent)
        image = Dual(low, slopes)
        for level in reversed(range(len(details))):
            image, fine = self.couplings[level].push(image, Dual(details[level], steep[level]))
            both = join(image, fine)
            image = both if rotated and level == 0 else self.wavelets.haar[level].push(both)
        return image if rotated else Dual(image.value + self.offset, image.tangent)
