"""An optimiser of kernels and matrices, whose updates are orthogonal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOMENTUM = 0.95
COLOURS = 4  # outputs of a kernel up to which it is taken for one that draws an image
_DRAWING = 2.0  # norm of the update of each of its outputs
_STEPS = 5  # of Newton and Schulz
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Descend along the nearest orthogonal matrix to the momentum of each kernel, a row an output.

    M ← 0.95 M + G,   W ← (1 − lr·λ) W − lr · √max(1, rows/columns) · U Vᵀ,   U S Vᵀ = G + 0.95 M

    All singular values of an update are about 1, so that no direction that the gradient favours, as that of
    what all inputs have in common, drowns the others: of rectified units few die. U Vᵀ is approximated by
    five steps of Newton and Schulz, to singular values of .7 to 1.2, in the weights' own precision. Of a
    kernel that draws an image each output is only scaled: orthogonal, its update would move the differences
    of colours as much as brightness.
    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024. J. Liu et al., Muon is
    scalable for LLM training, 2025, arXiv 2502.16982 (the decay). `torch.optim.Muon` takes matrices alone,
    and computes in bfloat16.

    Args:
        parameters: Each of two dimensions or more; those behind the first count as one.
        lr: Learning rate.
        weight_decay: λ.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        if any(weight.dim() < 2 for group in self.param_groups for weight in group["params"]):
            raise ValueError("Muon is for weights of two dimensions or more")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step down the gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].mul_(MOMENTUM).add_(weight.grad)
                matrix = (weight.grad + MOMENTUM * momentum).flatten(1)
                rows, columns = matrix.shape
                if rows <= COLOURS:
                    update = _DRAWING * F.normalize(matrix)
                else:
                    update = max(1.0, rows / columns) ** 0.5 * orthogonalised(matrix)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view_as(weight), alpha=-group["lr"])


def orthogonalised(matrix: Tensor) -> Tensor:
    """Approximate U Vᵀ of a matrix U S Vᵀ, (rows, columns); 0 stays 0."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    x = wide / wide.norm().clamp_min(1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide is matrix else x.mT).contiguous()
