"""Posteriors of parameters: Markov chains, and how far two sets of samples are apart."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mfimage.errors import DataError

_AIM = 0.3  # acceptance that the step size is adapted to
_BLOCK = 1000


@torch.no_grad()
def metropolis(
    log_prob: Callable[[Tensor], Tensor],
    start: Tensor,
    steps: int,
    step_size: float,
    generator: torch.Generator,
    burn_in: int = 0,
) -> tuple[Tensor, float]:
    """Draw from a density by random-walk Metropolis, many chains at once.

    θ′ = θ + s·N(0, I), taken with probability min(1, p(θ′)/p(θ)). During the burn-in s is adapted, the same for
    all chains, towards an acceptance of 0.3; afterwards it stands still.

    Args:
        log_prob: (chains, P) to (chains,), up to a constant; −∞ where the density is zero.
        start: Where the chains begin, shape (chains, P).
        steps: Draws kept of each chain.
        step_size: s at the start.
        generator: Of all randomness.
        burn_in: Draws thrown away before.

    Returns:
        Samples, shape (chains, steps, P), and the share of kept steps that moved.

    Raises:
        DataError: If a log-density is NaN.

    Reference:
        Roberts, Gelman, Gilks, Weak convergence and optimal scaling of random walk Metropolis algorithms, 1997.
    """
    here, value = start.clone(), _checked(log_prob(start))
    kept, moved = [], 0.0
    for step in range(burn_in + steps):
        noise = torch.randn(here.shape, generator=generator, dtype=here.dtype)
        there = here + step_size * noise
        reached = _checked(log_prob(there))
        uniform = torch.rand(len(here), generator=generator, dtype=torch.float64)
        taken = uniform.log() < (reached - value).nan_to_num(nan=torch.inf)  # from −∞ to −∞: go on
        here = torch.where(taken[:, None], there, here)
        value = torch.where(taken, reached, value)
        share = float(taken.double().mean())
        if step < burn_in:
            step_size *= 2.0 ** (share - _AIM)
        else:
            kept.append(here)
            moved += share
    return torch.stack(kept, 1), moved / max(1, steps)


def _checked(values: Tensor) -> Tensor:
    if values.isnan().any():
        raise DataError(f"{int(values.isnan().sum())} of {len(values)} log-densities are NaN")
    return values.double()


def squared_mmd(x: Tensor, y: Tensor, scale: float | None = None) -> float:
    """Estimate the squared maximum mean discrepancy of two samples, without bias.

    k(a, b) = exp(−‖a − b‖²/2s²);  MMD² = E k(x, x′) + E k(y, y′) − 2 E k(x, y), x ≠ x′, y ≠ y′.

    Args:
        x: (n, P), n ≥ 2.
        y: (m, P), m ≥ 2: the truth.
        scale: s; the median distance between two of y if None.

    Returns:
        About zero, and possibly below, for equal distributions.

    Reference:
        Gretton et al., A kernel two-sample test, 2012, JMLR 13, eq. 3.
    """
    x, y = x.double(), y.double()
    if scale is None:
        scale = float(torch.pdist(y[torch.linspace(0, len(y) - 1, min(len(y), 2000)).long()]).median())

    def kernel(a: Tensor, b: Tensor) -> float:
        parts = (torch.cdist(part, b) / scale for part in a.split(_BLOCK))
        return sum(float(torch.exp(-0.5 * part.square()).sum()) for part in parts)

    n, m = len(x), len(y)
    own = (kernel(x, x) - n) / (n * (n - 1)) + (kernel(y, y) - m) / (m * (m - 1))
    return own - 2 * kernel(x, y) / (n * m)
