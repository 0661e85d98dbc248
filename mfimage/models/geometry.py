"""Tangents and volume of the manifold that a decoder draws."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vmap


def tangents(decode: Callable[[Tensor], Tensor], u: Tensor, chunk: int | None = 8) -> Tensor:
    """Compute the decoder's Jacobian by forward mode, a whole batch at once.

    J[b, :, k] = ∂ decode(u)[b] / ∂u_k, one Jacobian-vector product a direction, vmapped over directions.

    Args:
        decode: Maps (B, d) to (B, …), each row on its own.
        u: Coordinates, shape (B, d).
        chunk: Directions at a time (memory grows with it); None takes all at once.

    Returns:
        J, shape (B, D, d).
    """
    directions = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)

    def along(direction: Tensor) -> Tensor:
        return jvp(decode, (u,), (direction.expand_as(u),))[1].flatten(1)

    return vmap(along, out_dims=2, chunk_size=chunk)(directions)


def log_volume(jacobian: Tensor) -> Tensor:
    """Compute ½ log det(JᵀJ), the log-volume that a unit cube of coordinates has on the manifold.

    The Gram matrix is formed and factored in float64, where the squared condition number does no harm.

    Args:
        jacobian: J, shape (B, D, d).

    Returns:
        Shape (B,), float64, nats; −inf where the factorisation fails because J has lost rank, NaN where J is.
    """
    j = jacobian.double()
    factor, info = torch.linalg.cholesky_ex(j.mT @ j)
    volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.where(j.isfinite().all((-2, -1)), torch.where(info == 0, volume, -torch.inf), torch.nan)
