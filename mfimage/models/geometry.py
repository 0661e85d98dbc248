"""Tangents, metric and volume of the manifold that a decoder draws, and the shortest ways on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap

from mfimage.models.duals import Dual, decoded

_BUDGET = {"cpu": 2**28, "cuda": 2**31}  # bytes that the tangents in flight may take, about
_ACTIVATIONS = 16  # numbers in flight a pixel and direction; the default charts take some 10


def tangents(
    decode: Any, u: Tensor, chunk: int | str | None = "auto", context: Tensor | None = None
) -> Tensor:
    """Compute the decoder's Jacobian by forward mode, a whole batch at once.

    J[b, :, k] = ∂ decode(u)[b] / ∂u_k. What the directions share is computed once for all of them where a
    layer has a rule (`duals`), by `torch.func.jvp` where not.

    Args:
        decode: A chart, or another manifold with `decode`; or a function that maps (B, d) to (B, …), each row
            on its own.
        u: Coordinates, shape (B, d).
        chunk: Directions at a time (memory grows with it); None takes all at once, "auto" as many as about
            256 MiB (on CUDA 2 GiB) hold beside J itself.
        context: θ, shape (B, P), for a manifold that depends on it.

    Returns:
        J, shape (B, D, d).
    """
    return torch.cat(list(_pushed(decode, u, chunk, context, turned=False)), 1).mT


def _pushed(
    decode: Any, u: Tensor, chunk: int | str | None, context: Tensor | None, turned: bool
) -> Iterator[Tensor]:
    """Rows of Jᵀ, shape (B, K, D), a few directions at a time."""
    directions = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
    if chunk == "auto":
        chunk = _at_once(decode, u, max(1, len(u)))
    for part in directions.split(len(directions) if chunk is None else int(chunk)):
        pushed = decoded(decode, Dual(u, part.expand(len(u), -1, -1)), context, turned)
        yield pushed.tangent.flatten(2)


def _at_once(decode: Any, u: Tensor, others: int) -> int:
    """How many directions of `others` rows, or rows of `others` directions, are pushed together."""
    features = getattr(decode, "features", None) or 4 * u.shape[1]
    budget = _BUDGET.get(u.device.type, _BUDGET["cpu"])
    return max(1, budget // (_ACTIVATIONS * features * u.element_size() * others))


def metric(decode: Any, u: Tensor, context: Tensor | None = None) -> Tensor:
    """Compute the metric that the data space gives the coordinates, JᵀJ.

    Tangents are in the type of u, their products in float64: the squared condition number does no harm there.
    Rows and directions are taken as many at a time as the memory of `tangents` allows.

    Args:
        decode: As for `tangents`.
        u: Shape (B, d).
        context: θ, shape (B, P).

    Returns:
        Shape (B, d, d), float64, squared units of the data over squared units of u.
    """
    rows = _at_once(decode, u, u.shape[1])
    parts = []
    for begin in range(0, len(u), rows):
        given = None if context is None else context[begin : begin + rows]
        columns = torch.cat(list(_pushed(decode, u[begin : begin + rows], "auto", given, turned=True)), 1)
        columns = columns.double()
        parts.append(columns @ columns.mT)
    return torch.cat(parts) if parts else u.new_zeros(0, u.shape[1], u.shape[1], dtype=torch.float64)


def log_volume(jacobian: Tensor) -> Tensor:
    """Compute ½ log det(JᵀJ), the log-volume that a unit cube of coordinates has on the manifold.

    Args:
        jacobian: J, shape (B, D, d).

    Returns:
        Shape (B,), float64, nats; −inf where the factorisation fails because J has lost rank, NaN where J is.
    """
    j = jacobian.double()
    return metric_log_volume(j.mT @ j)


def metric_log_volume(gram: Tensor) -> Tensor:
    """Compute ½ log det G of metrics G = JᵀJ, shape (B, d, d), float64; see `log_volume`."""
    factor, info = torch.linalg.cholesky_ex(gram)
    volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.where(gram.isfinite().all((-2, -1)), torch.where(info == 0, volume, -torch.inf), torch.nan)


class Estimate(NamedTuple):
    """A stochastic estimate.

    Attributes:
        value: Shape (B,), float64.
        standard_error: Shape (B,), float64: times Student's factor of the number of probes, so that the
            truth lies within two of them in 95.4 % of draws however few the probes are.
    """

    value: Tensor
    standard_error: Tensor


@torch.no_grad()
def estimate_log_volume(
    decode: Any,
    u: Tensor,
    context: Tensor | None = None,
    probes: int = 32,
    steps: int = 40,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Estimate ½ log det(JᵀJ) without J, by stochastic Lanczos quadrature.

    log det G = tr log G = E[zᵀ (log G) z], z of independent signs; each quadratic form by Gauss quadrature
    with `steps` Lanczos steps, which needs as many products G z = Jᵀ(J z): one push forwards, one pull back.
    Exact up to the probes' chance where steps ≥ d; with fewer the quadrature errs too, by about
    exp(−4·steps/√κ) relative at condition number κ of G, which the standard error does not see. Without
    gradients.

    Args:
        decode: As for `tangents`.
        u: Shape (B, d).
        context: θ, shape (B, P).
        probes: Number of z, at least 2.
        steps: Lanczos steps, at most d are taken.
        generator: Source of randomness, on the CPU; the global one if None.

    Reference:
        Ubaru, Chen, Saad, Fast estimation of tr(f(A)) via stochastic Lanczos quadrature, 2017, SIAM J. Matrix
        Anal. Appl. 38 (algorithm and bound); the reorthogonalisation is the usual one.
    """
    from scipy.stats import norm, t

    batch, d = u.shape
    signs = torch.randint(0, 2, (batch, probes, d), generator=generator).to(u) * 2 - 1
    product = _metric_product(decode, u, context)
    alphas, betas = _lanczos(product, signs, min(steps, d))
    triangular = torch.diag_embed(alphas) + torch.diag_embed(betas, 1) + torch.diag_embed(betas, -1)
    nodes, vectors = torch.linalg.eigh(triangular)
    nodes = torch.maximum(nodes, torch.finfo(u.dtype).eps * nodes[..., -1:])  # what rounding made of zero
    forms = d * (vectors[..., 0, :].square() * nodes.log()).sum(-1)
    factor = float(t.ppf(norm.cdf(2), probes - 1)) / 2
    return Estimate(forms.mean(1) / 2, factor * forms.std(1) / 2 / probes**0.5)


def _metric_product(decode: Any, u: Tensor, context: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Make the function that maps K vectors a row, shape (B, K, d), to (JᵀJ) of them."""
    function: Callable[[Tensor], Tensor] = decode
    if hasattr(decode, "decode"):

        def function(value: Tensor) -> Tensor:
            return decode.decode(value, context)

    pull = vmap(vjp(function, u)[1], in_dims=1, out_dims=1)

    def product(z: Tensor) -> Tensor:
        return pull(decoded(decode, Dual(u, z), context).tangent)[0]

    return product


def _lanczos(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Tridiagonalise symmetric maps from unit starts: diagonals (B, K, m) and off-diagonals (B, K, m − 1)."""
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
    """The directions in which an image changes most along the manifold.

    Attributes:
        strength: Singular values of J, falling, shape (B, k): change of the image, as the root of the summed
            squares of its pixels, a unit step in u.
        images: Left singular vectors, of unit length, shape (B, k, …).
        coordinates: Right singular vectors, of unit length, shape (B, k, d).
    """

    strength: Tensor
    images: Tensor
    coordinates: Tensor


def principal_directions(
    decode: Any, u: Tensor, shape: tuple[int, ...], count: int, context: Tensor | None = None
) -> Directions:
    """Find the directions of strongest change at points of the manifold: the singular vectors of J.

    Signs are chosen so that the largest entry of each `coordinates` is positive.

    Args:
        decode: As for `tangents`.
        u: Shape (B, d).
        shape: Of the data.
        count: k, at most d.
        context: θ, shape (B, P).
    """
    j = tangents(decode, u, context=context).double()
    vectors = torch.linalg.eigh(j.mT @ j).eigenvectors.flip(-1)[..., :count]
    peak = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * peak.sign()
    moved = j @ vectors
    strength = moved.norm(dim=1)
    images = (moved / strength.clamp_min(1e-300)[:, None]).mT.unflatten(2, shape)
    return Directions(strength.to(u), images.to(u), vectors.mT.to(u))


def path_length(decode: Callable[[Tensor], Tensor], path: Tensor) -> Tensor:
    """Measure a polygon of coordinates (n, d) in the data space: the sum of ‖g(u_{i+1}) − g(u_i)‖."""
    return decode(path).flatten(1).diff(dim=0).norm(dim=1).sum()


def geodesic(
    decode: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, points: int = 9, iterations: int = 100
) -> Tensor:
    """Find a shortest way on the manifold between two points of it.

    Minimises the energy Σ_i ‖g(u_{i+1}) − g(u_i)‖² over the inner points, from the straight line in u, by
    L-BFGS; a minimum has equal steps and, for many points, the length of a geodesic. It is a local one.

    Args:
        decode: Maps (n, d) to (n, …).
        start: u_0, shape (d,).
        end: u_{n−1}, shape (d,).
        points: n ≥ 2, both ends included.
        iterations: Of L-BFGS, at most.

    Returns:
        Coordinates, shape (n, d), whose energy is never above the straight line's.

    Reference:
        Shao, Kumar, Fletcher, The Riemannian geometry of deep generative models, 2017, arXiv 1711.08014.
    """
    shares = torch.linspace(0, 1, points, dtype=start.dtype, device=start.device)[:, None]
    line = (start + shares * (end - start)).detach()
    if points < 3:
        return line
    unit = line.std().clamp_min(1e-12)
    moved = torch.zeros_like(line[1:-1]).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [moved], max_iter=iterations, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def bent() -> Tensor:
        return torch.cat([line[:1], line[1:-1] + unit * moved, line[-1:]])

    def energy(path: Tensor) -> Tensor:
        return decode(path).flatten(1).diff(dim=0).square().sum()

    with torch.no_grad():
        straight = energy(line).clamp_min(1e-12)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = energy(bent()) / straight
        (moved.grad,) = torch.autograd.grad(loss, moved)
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    with torch.no_grad():
        path = bent()
        return path if energy(path) <= straight else line
