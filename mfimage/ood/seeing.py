"""What a model makes of images, once for all scores, and what is usual among familiar ones."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.models.flow import ChartedModel
from mfimage.models.geometry import metric, metric_log_volume
from mfimage.ood.scores import HUGE, Seen, Usual, log_dimension, log_residual
from mfimage.ood.statistics import spatial, summary, zlib_bits

_REFERENCES = 2000  # familiar codes that are kept to be neighbours of
_PIXELS = 2_000_000  # of which the scale of heat-maps is the quantile


@torch.no_grad()
def see(x: Tensor, model: ChartedModel, volume: bool = False) -> Seen:
    """Encode, project and weigh images once, for all scores; the results are on the CPU.

    Args:
        x: Images (B, C, H, W) in [0, 1], on the model's device.
        model: With a manifold of images and a density.
        volume: Whether `Seen.volume` is needed: d pushes of a tangent an image.
    """
    u = _tame(model.encode(x), HUGE)
    off = _tame(x - model.decode(u), 1e3)
    nll = _tame(-model.density.log_prob(u), HUGE).double()
    log_volume = metric_log_volume(metric(model.chart, u)) if volume else None
    known = torch.full_like(nll, math.nan) if log_volume is None else _tame(log_volume, HUGE)
    bits = zlib_bits(x)
    found = {
        "u": u.double(), "nll": nll, "volume": known, "bits": bits,
        "squares": off.double().square().flatten(1).sum(1),
        "values": summary(x, off, nll, bits),
        "places": spatial(x, off, u),
        "smooth": F.avg_pool2d(off.square().mean(1, keepdim=True), 3, 1, 1, count_include_pad=False),
    }  # fmt: skip
    return Seen(**{name: value.cpu() for name, value in found.items()}, pixels=x[0].numel())


def usual_of(seen: Seen) -> Usual:
    """Find what is usual among familiar images."""
    free = max(1, seen.pixels - seen.u.shape[1])
    codes = seen.u[:_REFERENCES]
    draft = Usual(
        float(log_residual(seen).mean()), float(seen.nll.mean()),
        max(math.sqrt(float(seen.squares.mean()) / free), 1e-4), float(seen.bits.mean()), 0.0,
        codes, seen.u.std(0).clamp_min(1e-6),
    )  # fmt: skip
    return replace(draft, dimension=float(log_dimension(codes, draft).mean()))


def features(seen: Seen, full: bool) -> Tensor:
    """What the density of `auto` sees, (B, K) float64: named statistics, and with `full` places and codes."""
    return torch.cat([seen.values, seen.places], 1) if full else seen.values


def heat_scale(seen: Seen) -> float:
    """Smoothed squared residual that 99.9 % of familiar pixels stay below."""
    few = seen.smooth[: max(1, _PIXELS // seen.smooth[0].numel())]
    return max(float(np.quantile(few.numpy(), 0.999)), 1e-8)


def _tame(values: Tensor, limit: float) -> Tensor:
    return values.nan_to_num(limit, limit, -limit).clamp(-limit, limit)
