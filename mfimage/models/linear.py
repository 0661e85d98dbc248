"""An invertible linear map of vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfimage.models.layers import Transform, Value

_LEAST = 1e-3  # that the diagonal of U holds


class LULinear(Transform):
    """y = L U x + b, L lower triangular with ones, U upper with the diagonal softplus(s) + 10⁻³.

    ladj = Σ log U_ii. It starts as the identity. Of nflows' own this has the names of parameters; that one
    inverts by a call that torch will remove.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        entries = features * (features - 1) // 2
        self.bias = nn.Parameter(torch.zeros(features))
        self.lower_entries = nn.Parameter(torch.zeros(entries))
        self.upper_entries = nn.Parameter(torch.zeros(entries))
        self.unconstrained_upper_diag = nn.Parameter(
            nn.init.constant_(torch.empty(features), math.log(math.expm1(1 - _LEAST)))
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        lower, upper, diagonal = self._factors()
        return F.linear(F.linear(x, upper), lower, self.bias), diagonal.log().sum().expand(len(x))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        lower, upper, diagonal = self._factors()
        rows = torch.linalg.solve_triangular(lower, (x - self.bias).T, upper=False, unitriangular=True)
        rows = torch.linalg.solve_triangular(upper, rows, upper=True)
        return rows.T, -diagonal.log().sum().expand(len(x))

    def turn(self, x: Tensor) -> Tensor:
        """L U x for every row, without the offset."""
        lower, upper, _ = self._factors()
        return F.linear(F.linear(x, upper), lower)

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """L, U, and U's diagonal."""
        n, device = len(self.bias), self.bias.device
        diagonal = F.softplus(self.unconstrained_upper_diag) + _LEAST
        below, above = torch.tril_indices(n, n, -1, device=device), torch.triu_indices(n, n, 1, device=device)
        lower = torch.eye(n, dtype=self.bias.dtype, device=device)
        lower = lower.index_put((below[0], below[1]), self.lower_entries)
        upper = torch.diag(diagonal).index_put((above[0], above[1]), self.upper_entries)
        return lower, upper, diagonal
