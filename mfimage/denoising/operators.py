"""Linear operators A between an image and what is seen of it, y = A x + noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from mfimage.datasets.noise import blur_matrix
from mfimage.errors import UsageError


class LinearOperator(Protocol):
    """A linear map of images, each row of a batch on its own: ⟨A x, y⟩ = ⟨x, Aᵀ y⟩."""

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to A x."""

    def adjoint(self, y: Tensor) -> Tensor:
        """Map what is seen to Aᵀ y, shape (B, C, H, W)."""

    def part(self, rows: Tensor) -> LinearOperator:
        """Take the operator of some rows of the batch, as int64 positions."""


@dataclass(frozen=True)
class Identity:
    """A x = x."""

    def forward(self, x: Tensor) -> Tensor:
        """Map images to themselves."""
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """Map images to themselves."""
        return y

    def part(self, rows: Tensor) -> Identity:
        """Take the same for all rows."""
        return self


@dataclass(frozen=True, eq=False)
class Mask:
    """A x = x where a pixel is known and 0 where it is missing.

    Attributes:
        missing: (B, 1, H, W) or (B, C, H, W), bool, True where a pixel is missing.
    """

    missing: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Clear the missing pixels."""
        return x * (~self.missing).to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Clear the missing pixels."""
        return self.forward(y)

    def part(self, rows: Tensor) -> Mask:
        """Take the masks of some rows."""
        return Mask(self.missing[rows])

    def completed(self, x: Tensor, y: Tensor) -> Tensor:
        """Find the image nearest to x of which y is seen: y where it is known, x where not."""
        return x.where(self.missing, y)


@dataclass(frozen=True)
class Downsample:
    """A x = means of blocks of factor × factor pixels, as `skimage.transform.downscale_local_mean`.

    Attributes:
        factor: 2 or more; it divides height and width.
    """

    factor: int

    def __post_init__(self) -> None:
        """Refuse what is no factor."""
        if self.factor < 1:
            raise UsageError(f"factor: a whole number from 1 up, not {self.factor}")

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
        """Share every value out among its block: (B, C, h, w) to (B, C, h·factor, w·factor)."""
        return self.enlarged(y) / self.factor**2

    def part(self, rows: Tensor) -> Downsample:
        """Take the same for all rows."""
        return self

    def enlarged(self, y: Tensor) -> Tensor:
        """Repeat every pixel factor × factor times, which `forward` undoes."""
        return y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)

    def completed(self, x: Tensor, y: Tensor) -> Tensor:
        """Find the image nearest to x of which y is seen: x + Aᵀ(A Aᵀ)⁻¹(y − A x)."""
        return x + self.enlarged(y - self.forward(x))


@dataclass(frozen=True)
class Blur:
    """A x = K_H x K_Wᵀ, a Gaussian blur; see `datasets.corrupt.blur_matrix`.

    Attributes:
        sigma: Standard deviation in pixels, ≥ 0.
    """

    sigma: float

    def forward(self, x: Tensor) -> Tensor:
        """Blur (B, C, H, W)."""
        rows, columns = self._matrices(x)
        return rows @ x @ columns.T

    def adjoint(self, y: Tensor) -> Tensor:
        """Blur by the transposed matrices, which differ at the borders."""
        rows, columns = self._matrices(y)
        return rows.T @ y @ columns

    def part(self, rows: Tensor) -> Blur:
        """Take the same for all rows."""
        return self

    def _matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        return blur_matrix(height, self.sigma).to(x), blur_matrix(width, self.sigma).to(x)
