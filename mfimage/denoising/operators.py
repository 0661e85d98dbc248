"""Linear operators: what is seen of an image, where pixels are missing or it is small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.errors import UsageError
from mfimage.settings import whole_number

_HALVINGS = 40  # after which means are exact but for rounding


class LinearOperator:
    """A linear map A of images to what is seen of them, y = A x + noise, each row alone; here A x = x."""

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to A x."""
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """Map what is seen by Aᵀ."""
        return y

    def rows(self, chosen: Tensor) -> LinearOperator:
        """Take the operator of some rows of the batch, where it differs between them."""
        return self


@dataclass(frozen=True, eq=False)
class Mask(LinearOperator):
    """A x = x where a pixel is known and 0 where it is missing."""

    missing: Tensor  # (B, 1, H, W) or (B, C, H, W), bool, True where a pixel is missing
    factor = 1  # pixels between neighbours in y

    def forward(self, x: Tensor) -> Tensor:
        """Clear the missing pixels."""
        return x * (~self.missing).to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map what is seen by Aᵀ, which is A."""
        return self.forward(y)

    def rows(self, chosen: Tensor) -> Mask:
        """Take the masks of some rows."""
        return Mask(self.missing[chosen])

    def known(self, y: Tensor) -> Tensor:
        """Tell which values of y are seen."""
        return (~self.missing).expand_as(y)

    def completed(self, x: Tensor, y: Tensor) -> Tensor:
        """Find the image nearest to x of which y is seen: y where it is known, x where not."""
        return x.where(self.missing, y)


@dataclass(frozen=True)
class Downsample(LinearOperator):
    """A x = means of blocks of factor × factor pixels, as `skimage.transform.downscale_local_mean`."""

    factor: int  # from 1; it divides height and width

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", whole_number("factor", self.factor, 1))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Scale a height and a width; UsageError if the factor does not divide both."""
        if height % self.factor or width % self.factor:
            raise UsageError(
                f"images of {height} × {width} pixels cannot be scaled by 1/{self.factor}: "
                "the factor must divide both sides"
            )
        return height // self.factor, width // self.factor

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/factor, W/factor)."""
        self.size(*x.shape[-2:])
        return F.avg_pool2d(x, self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map (B, C, h, w) by Aᵀ."""
        return self.enlarged(y) / self.factor**2

    def known(self, y: Tensor) -> Tensor:
        """Tell which values of y are seen: all."""
        return torch.ones_like(y, dtype=torch.bool)

    def enlarged(self, y: Tensor) -> Tensor:
        """Repeat every pixel factor × factor times, which `forward` undoes."""
        return y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)

    def completed(self, x: Tensor, y: Tensor) -> Tensor:
        """Find the image nearest to x of which y is seen: x + Aᵀ(A Aᵀ)⁻¹(y − A x)."""
        return x + self.enlarged(y - self.forward(x))

    def completed_within(self, x: Tensor, y: Tensor) -> Tensor:
        """Find the image in [0, 1] nearest to x of which y, in [0, 1] too, is seen.

        It is x + λ, cut to [0, 1], with a λ of its own for each block, found by halving: means rise with it.
        """
        low, high = -F.max_pool2d(x, self.factor), 1 + F.max_pool2d(-x, self.factor)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = self.forward((x + self.enlarged(middle)).clamp(0, 1)) < y
            low, high = middle.where(below, low), high.where(below, middle)
        return (x + self.enlarged((low + high) / 2)).clamp(0, 1)
