"""What is said about a set of log densities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mfimage.errors import UsageError


def density_summary(log_prob: Tensor, dim: int) -> dict[str, Any]:
    """Summarise on-manifold log densities.

    The statistics are of the finite values; how many values were not finite stands beside them, by kind, and
    a summary with any should be read as a fault of the model or of those images.

    Args:
        log_prob: (N,) in nats, with respect to d-dimensional volume.
        dim: d, by which the mean is divided for the value per dimension.

    Returns:
        `n`, `n_finite`, `n_nan`, `n_plus_inf`, `n_minus_inf`; `mean`, `per_dim`, `median`, `q05`, `q95` and
        `standard_error` of the mean, in nats. A statistic that the finite values do not define is None.

    Raises:
        UsageError: `log_prob` is not a vector or `dim` is not positive.
    """
    if log_prob.ndim != 1 or dim < 1:
        raise UsageError(f"log_prob is (N,) and dim positive; got {tuple(log_prob.shape)} and {dim}")
    values = log_prob.detach().to("cpu", torch.float64)
    finite = values[values.isfinite()]
    n = len(finite)
    low, median, high = quantiles(finite) if n else (None, None, None)
    mean = float(finite.mean()) if n else None
    return {
        "n": len(values),
        "n_finite": n,
        "n_nan": int(values.isnan().sum()),
        "n_plus_inf": int(values.isposinf().sum()),
        "n_minus_inf": int(values.isneginf().sum()),
        "mean": mean,
        "per_dim": None if mean is None else mean / dim,
        "median": median,
        "q05": low,
        "q95": high,
        "standard_error": float(finite.std() / n**0.5) if n > 1 else None,
    }


def quantiles(values: Tensor) -> tuple[float, float, float]:
    """The 5 %, 50 % and 95 % quantiles, linearly interpolated.

    Args:
        values: (N,), N at least 1, finite.

    Returns:
        Low, median and high, in the unit of the values.
    """
    shares = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64, device=values.device)
    low, median, high = values.double().quantile(shares).tolist()
    return low, median, high
