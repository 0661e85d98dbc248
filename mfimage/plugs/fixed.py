"""A model that stands still: nothing is derived again from its weights, and loops are loops of the graph."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.nn import functional as F

from mfimage.models import GenerativeModel
from mfimage.models.density import AutoregressiveSplines
from mfimage.models.layers import Transform, Value
from mfimage.models.linear import LULinear
from mfimage.models.subspace import Householder

__all__ = ["fixed", "plain", "while_loop"]


def plain(model: GenerativeModel) -> GenerativeModel:
    """Copy a model for inference, in float32 on the CPU."""
    return deepcopy(model).cpu().float().eval().requires_grad_(False)


def fixed(model: GenerativeModel) -> GenerativeModel:
    """Copy it so, with parts that need neither a solver nor an unrolled loop."""
    copy = plain(model)
    _fix(copy)
    for tensor in (*copy.parameters(), *copy.buffers()):  # .pt2 files want them in order
        tensor.data = tensor.clone(memory_format=torch.contiguous_format)
    return copy


def _fix(module: nn.Module) -> None:
    for name, part in module.named_children():
        kind = _FIXED.get(type(part))
        if kind is None:
            _fix(part)
        else:
            setattr(module, name, kind(part))


class FixedHouseholder(Householder):
    """A rotation with what follows from its vectors at hand."""

    coefficients: Tensor
    columns: Tensor

    def __init__(self, rotation: Householder) -> None:
        nn.Module.__init__(self)
        coefficients, columns = (t.to(rotation.mean) for t in rotation._derive(rotation.vectors.double()))
        self.register_buffer("mean", rotation.mean)
        self.register_buffer("vectors", rotation.vectors)
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("columns", columns)

    def _derived(self) -> tuple[Tensor, Tensor]:
        return self.coefficients, self.columns


class FixedLinear(Transform):
    """y = A x + b, with the inverse of A at hand."""

    bias: Tensor
    matrix: Tensor
    inverted: Tensor
    ladj: Tensor

    def __init__(self, linear: LULinear) -> None:
        super().__init__()
        exact = deepcopy(linear).double()
        lower, upper, diagonal = exact._factors()
        matrix = lower @ upper
        parts = {"matrix": matrix, "inverted": torch.linalg.inv(matrix), "ladj": diagonal.log().sum()}
        for name, tensor in {**parts, "bias": exact.bias}.items():
            self.register_buffer(name, tensor.detach().to(linear.bias))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Value:
        return F.linear(x, self.matrix, self.bias), self.ladj.expand(x.shape[0])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Value:
        return F.linear(x - self.bias, self.inverted), -self.ladj.expand(x.shape[0])


class LoopedSplines(Transform):
    """Autoregressive splines whose inverse is a loop in the graph, not d copies of a pass."""

    def __init__(self, splines: AutoregressiveSplines) -> None:
        super().__init__()
        self.splines = splines

    def forward(self, u: Tensor, context: Tensor | None = None) -> Value:
        return self.splines(u, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Value:
        last, dim = self.splines.autoregressive_net.final_layer, z.shape[1]
        weights, biases = (t.unflatten(0, (dim, -1)) for t in (last.weight * last.mask, last.bias))

        def invert(i: Tensor, u: Tensor, ladj: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            weight, bias = (t.index_select(0, i)[0] for t in (weights, biases))
            numbers = F.linear(self.splines._hidden(u, context), weight, bias)
            u_i, ladj_i = self.splines._elementwise_inverse(z.index_select(1, i), numbers)
            return i + 1, torch.where(torch.arange(dim) == i, u_i, u), ladj + ladj_i

        start = torch.zeros(1, dtype=torch.long), torch.zeros_like(z), z.new_zeros(z.shape[0])
        return while_loop(lambda i, u, ladj: (i < dim).all(), invert, start)[1:]


_FIXED: dict[type, Any] = {
    Householder: FixedHouseholder,
    LULinear: FixedLinear,
    AutoregressiveSplines: LoopedSplines,
}
