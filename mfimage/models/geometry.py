"""Geometry of the manifold that a decoder draws: tangents, metric, volume, directions and shortest ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap

from mfimage.models.charts import Manifold
from mfimage.models.duals import Dual, by_jvp
from mfimage.models.layers import in_rows
from mfimage.modes import plainly

_BUDGET = {"cpu": 2**28, "cuda": 2**31}  # bytes that the tangents in flight may take, about
_ACTIVATIONS = 16  # numbers in flight a pixel and direction; the default charts take some 10

Decode = Manifold | Callable[[Tensor], Tensor]  # a function maps (B, d) to (B, …), each row on its own


@plainly
def tangents(decode: Decode, u: Tensor, context: Tensor | None = None) -> Tensor:
    """Compute the decoder's Jacobian by forward mode, a whole batch at once.

    J[b, :, k] = ∂ decode(u)[b] / ∂u_k. As many directions are pushed at a time as about 256 MiB (on CUDA
    2 GiB) hold beside J itself.

    Args:
        decode: A manifold, or a function that maps (B, d) to (B, …), each row on its own.
        u: Coordinates, shape (B, d).
        context: θ, shape (B, P), for a manifold that depends on it.

    Returns:
        J, shape (B, D, d).
    """
    return _transposed(decode, u, context).mT


def _transposed(decode: Decode, u: Tensor, context: Tensor | None, rotated: bool = False) -> Tensor:
    """Compute Jᵀ, shape (B, d, D), or Jᵀ times a rotation; see `Manifold.push_codes`."""
    directions = torch.eye(u.shape[1], dtype=u.dtype, device=u.device).expand(len(u), -1, -1)
    parts = directions.split(_at_once(decode, u, max(1, len(u))), 1)
    return torch.cat([_push(decode, Dual(u, part), context, rotated).tangent.flatten(2) for part in parts], 1)


def _push(decode: Decode, u: Dual, context: Tensor | None, rotated: bool = False) -> Dual:
    if isinstance(decode, Manifold):
        return decode.push_codes(u, context, rotated)
    return by_jvp(_function(decode, context), u)


def _function(decode: Decode, context: Tensor | None) -> Callable[[Tensor], Tensor]:
    """The decoder as a function of u alone."""
    return partial(decode.decode, context=context) if hasattr(decode, "decode") else decode


def _at_once(decode: Decode, u: Tensor, others: int) -> int:
    """How many directions of `others` rows, or rows of `others` directions, are pushed together."""
    features = getattr(decode, "features", None) or 4 * u.shape[1]
    budget = _BUDGET.get(u.device.type, _BUDGET["cpu"])
    return max(1, budget // (_ACTIVATIONS * features * u.element_size() * others))


@plainly
def metric(decode: Decode, u: Tensor, context: Tensor | None = None) -> Tensor:
    """Compute the metric that the data space gives the coordinates, JᵀJ, from what `tangents` takes.

    Shape (B, d, d), float64: the squared condition number does no harm there. Tangents are in the type of u.
    """

    def product(u: Tensor, context: Tensor | None) -> Tensor:
        j = _transposed(decode, u, context, rotated=True).double()
        return j @ j.mT

    return in_rows(product, u, context, _at_once(decode, u, u.shape[1]))


def log_volume(jacobian: Tensor) -> Tensor:
    """Compute ½ log det(JᵀJ), the log-volume that a unit cube of coordinates has on the manifold.

    Returns:
        Of J, shape (B, D, d), shape (B,), float64, nats; −inf where J has lost rank, NaN where J is.
    """
    j = jacobian.double()
    return metric_log_volume(j.mT @ j)


def metric_log_volume(gram: Tensor) -> Tensor:
    """Compute ½ log det G of metrics G = JᵀJ, shape (B, d, d), float64; see `log_volume`."""
    factor, info = torch.linalg.cholesky_ex(gram)
    volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.where(gram.isfinite().all((-2, -1)), torch.where(info == 0, volume, -torch.inf), torch.nan)


class VolumeEstimate(NamedTuple):
    """A stochastic estimate of the log-volume: value and standard error, shape (B,), float64.

    Student's factor widens the error, so that two of it hold the truth in 95.4 % of draws of any few probes.
    """

    value: Tensor
    standard_error: Tensor


@plainly
@torch.no_grad()
def estimate_log_volume(
    decode: Decode,
    u: Tensor,
    context: Tensor | None = None,
    probes: int = 32,
    steps: int = 40,
    generator: torch.Generator | None = None,
) -> VolumeEstimate:
    """Estimate ½ log det(JᵀJ) without J, by stochastic Lanczos quadrature.

    log det G = tr log G = E[zᵀ (log G) z], z of independent signs; each quadratic form by Gauss quadrature
    with `steps` Lanczos steps, which needs as many products G z = Jᵀ(J z): one push forwards, one pull back.
    Exact up to the probes' chance where steps ≥ d; with fewer the quadrature errs too, by about
    exp(−4·steps/√κ) relative at condition number κ of G, which the standard error does not see.

    Takes what `tangents` takes, and at least 2 probes z; the generator is one on the CPU. Ubaru, Chen, Saad,
    Fast estimation of tr(f(A)) via stochastic Lanczos quadrature, 2017, SIMAX 38.
    """
    from scipy.stats import norm, t

    batch, d = u.shape
    signs = torch.randint(0, 2, (batch, probes, d), generator=generator).to(u) * 2 - 1
    pull = vmap(vjp(_function(decode, context), u)[1], in_dims=1, out_dims=1)
    alphas, betas = _lanczos(
        lambda z: pull(_push(decode, Dual(u, z), context).tangent)[0], signs, min(steps, d)
    )
    triangular = torch.diag_embed(alphas) + torch.diag_embed(betas, 1) + torch.diag_embed(betas, -1)
    nodes, vectors = torch.linalg.eigh(triangular)
    nodes = torch.maximum(nodes, torch.finfo(u.dtype).eps * nodes[..., -1:])  # what rounding made of zero
    forms = d * (vectors[..., 0, :].square() * nodes.log()).sum(-1)
    factor = float(t.ppf(norm.cdf(2), probes - 1)) / 2
    return VolumeEstimate(forms.mean(1) / 2, factor * forms.std(1) / 2 / probes**0.5)


def _lanczos(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Tridiagonalise symmetric maps of (B, K, d): diagonals (B, K, m), off-diagonals (B, K, m − 1)."""
    basis = [start.double() / start.double().norm(dim=-1, keepdim=True)]
    alphas, betas = [], []
    for step in range(steps):
        w = product(basis[-1].to(start)).double()
        alphas.append((w * basis[-1]).sum(-1))
        for _ in range(2):  # against all earlier ones, twice: once leaves what rounding adds
            span = torch.stack(basis, -2)
            w = w - ((span @ w[..., None]).mT @ span)[..., 0, :]
        if step < steps - 1:
            betas.append(w.norm(dim=-1))
            basis.append(w / betas[-1].clamp_min(1e-300)[..., None])
    empty = start.new_zeros(*start.shape[:-1], 0, dtype=torch.float64)
    return torch.stack(alphas, -1), torch.stack(betas, -1) if betas else empty


class Directions(NamedTuple):
    """The directions in which an image changes most along the manifold."""

    strength: Tensor  # singular values of J, falling, (B, k): change of the image a unit step in u
    images: Tensor  # left singular vectors, of unit length, (B, k, …)
    coordinates: Tensor  # right singular vectors, of unit length, (B, k, d)


@plainly
def principal_directions(
    decode: Decode, u: Tensor, shape: tuple[int, ...], count: int, context: Tensor | None = None
) -> Directions:
    """Find the directions of strongest change at points u, (B, d), of the manifold: singular vectors of J.

    Signs are chosen so that the largest entry of each `coordinates` is positive.
    """
    j = tangents(decode, u, context).double()
    vectors = torch.linalg.eigh(j.mT @ j).eigenvectors.flip(-1)[..., :count]
    peak = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * peak.sign()
    moved = j @ vectors
    strength = moved.norm(dim=1)
    images = (moved / strength.clamp_min(1e-300)[:, None]).mT.unflatten(2, shape)
    return Directions(strength.to(u), images.to(u), vectors.mT.to(u))


@plainly
def geodesic(
    decode: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, points: int = 9, iterations: int = 100
) -> Tensor:
    """Find a shortest way on the manifold between two points u_0 and u_{n−1} of it, shape (d,) to (n, d).

    Minimises the energy Σ_i ‖g(u_{i+1}) − g(u_i)‖² over the inner points, from the straight line in u, by
    L-BFGS; a minimum has equal steps and, for many points, the length of a geodesic. It is a local one, of
    no more energy than the straight line. Shao, Kumar, Fletcher, The Riemannian geometry of deep generative
    models, 2017, arXiv 1711.08014.
    """
    shares = torch.linspace(0, 1, points, dtype=start.dtype, device=start.device)[:, None]
    line = (start + shares * (end - start)).detach()
    return line if points < 3 else _relaxed(decode, line, iterations)


def _relaxed(decode: Callable[[Tensor], Tensor], line: Tensor, steps: int) -> Tensor:
    """Move the inner points of a line to where its energy is least."""
    unit = line.std().clamp_min(1e-12)
    moved = torch.zeros_like(line[1:-1]).requires_grad_()
    lbfgs = torch.optim.LBFGS([moved], max_iter=steps, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def bent() -> Tensor:
        return torch.cat([line[:1], line[1:-1] + unit * moved, line[-1:]])

    def energy(path: Tensor) -> Tensor:
        return decode(path).flatten(1).diff(dim=0).square().sum()

    def closure() -> Tensor:
        loss = energy(bent()) / straight
        (moved.grad,) = torch.autograd.grad(loss, moved)
        return loss

    with torch.no_grad():
        straight = energy(line).clamp_min(1e-12)
    with torch.enable_grad():
        lbfgs.step(closure)
    with torch.no_grad():
        path = bent()
        return path if energy(path) <= straight else line
