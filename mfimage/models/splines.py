"""Monotonic rational-quadratic splines without branches on data, that can be exported and compiled."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST = 1e-3  # width and height of a bin, of all as 1, and slope at a knot


def spline(x: Tensor, numbers: Tensor, bound: float, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Map each number by a monotonic spline of its own in [−bound, bound], and by the identity outside.

    y = y_k + h (s ξ² + δ_k ξ(1 − ξ)) / (s + c ξ(1 − ξ)),   ξ = (x − x_k)/w in bin k of width w and height h,
    dy/dx = s² (δ_(k+1) ξ² + 2s ξ(1 − ξ) + δ_k (1 − ξ)²) / (s + c ξ(1 − ξ))²,
    s = h/w,   δ_k the slope at knot k, 1 at both ends,   c = δ_k + δ_(k+1) − 2s

    Widths and heights are softmax of the first 2K numbers, slopes softplus of the others. Of the inverse ξ is
    the root of a quadratic.

    Args:
        x: Shape (…).
        numbers: For K widths, K heights and K − 1 slopes between the bins, shape (…, 3K − 1).
        bound: > 0.
        inverse: Map y back to x.

    Returns:
        The mapped numbers, and the log of the derivative of the direction called, both of the shape of x.

    Reference:
        Durkan, Bekasov, Murray, Papamakarios, Neural spline flows, 2019, arXiv 1906.04032, §3.1.
    """
    numbers = numbers.movedim(-1, 0).contiguous()  # several times as quick as along a short last axis
    bins = (len(numbers) + 1) // 3
    xs, ys = (_knots(part, bound) for part in (numbers[:bins], numbers[bins : 2 * bins]))
    slopes = F.pad(F.softplus(numbers[2 * bins :]) + LEAST, (*[0, 0] * x.dim(), 1, 1), value=1.0)
    inside = (x >= -bound) & (x <= bound)
    held = torch.where(inside, x, 0.0)  # what is outside has neither a value nor a gradient from here
    k = (held >= (ys if inverse else xs)[1:-1]).sum(0, keepdim=True)
    x0, y0, d0, x1, y1, d1 = (v.gather(0, i)[0] for i in (k, k + 1) for v in (xs, ys, slopes))
    w, h = x1 - x0, y1 - y0
    s = h / w
    c = d0 + d1 - 2 * s
    xi = _root(held - y0, h, s, d0, c) if inverse else (held - x0) / w
    both = xi * (1 - xi)
    below = s + c * both
    steep = s.square() * (d1 * xi.square() + 2 * s * both + d0 * (1 - xi).square())
    ladj = steep.log() - 2 * below.log()
    found = x0 + xi * w if inverse else y0 + h * (s * xi.square() + d0 * both) / below
    return torch.where(inside, found, x), torch.where(inside, -ladj if inverse else ladj, 0.0)


def _knots(numbers: Tensor, bound: float) -> Tensor:
    """Turn the numbers of K bins, shape (K, …), into the places of K + 1 knots from −bound to bound.

    Softmax by hand: torch's own rounds a column by its place among others, so that a value would depend on
    the batch that it comes in.
    """
    weights = (numbers - numbers.amax(0)).exp()
    softmax = weights / weights.cumsum(0)[-1]
    shares = LEAST + (1 - LEAST * len(numbers)) * softmax[:-1]
    inner, ends = 2 * bound * shares.cumsum(0) - bound, [0, 0] * (numbers.dim() - 1)
    return F.pad(F.pad(inner, (*ends, 1, 0), value=-bound), (*ends, 0, 1), value=bound)


def _root(y: Tensor, h: Tensor, s: Tensor, d0: Tensor, c: Tensor) -> Tensor:
    """Find ξ in [0, 1] at a height y above the lower end of its bin, from a ξ² + b ξ = s y."""
    a, b, rest = y * c + h * (s - d0), h * d0 - y * c, s * y
    return 2 * rest / (b + (b.square() + 4 * a * rest).clamp_min(0).sqrt())
