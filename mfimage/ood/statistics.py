"""Statistics of an image and of what a model makes of it, of which scores are formulas."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.models import ChartedModel
from mfimage.models.geometry import metric, metric_log_volume

TINY = 1e-6  # mean square below which an 8-bit image holds nothing but rounding
HUGE = 1e6  # what codes and log-densities of absurd images are clipped to, so that nothing is NaN
_LEVELS = 4  # scales, halved each time, at which gradients are measured
_CODES = 32  # first coordinates, the coarsest, that the density sees

WORDS = {  # of `summary`: what is said of a value that is too low, and too high
    "residual": ("reconstructs better than familiar images", "reconstructs badly"),
    "share": ("reconstructs too well for its contrast", "loses most of its contrast in reconstruction"),
    "latent": ("an unusually common place on the manifold", "a rare place on the manifold"),
    "detail": ("smoother than familiar images", "rougher than familiar images"),
    "complexity": ("simpler than familiar images", "more complex than familiar images"),
    "brightness": ("darker than familiar images", "brighter than familiar images"),
    "contrast": ("less contrast than familiar images", "more contrast than familiar images"),
}


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a model makes of images: all that scores need to know of them.

    Attributes:
        u: Codes (B, d), clipped to ±10⁶.
        squares: ‖x − x̂‖² over all D pixels and channels, (B,).
        pixels: D.
        nll: −log p_h(u), shape (B,), nats, clipped to ±10⁶.
        volume: ½ log det(JᵀJ) at u, shape (B,), nats; NaN where it was not asked for.
        bits: That zlib needs a value of the 8-bit image, (B,).
        values: Named statistics, (B, 7), see `summary`.
        places: Statistics of where things are, (B, K), see `spatial`.
        smooth: Squared residual, mean over channels and 3 × 3 pixels, (B, 1, H, W) float32.
    """

    u: Tensor
    squares: Tensor
    pixels: int
    nll: Tensor
    volume: Tensor
    bits: Tensor
    values: Tensor
    places: Tensor
    smooth: Tensor

    def __len__(self) -> int:
        return len(self.u)

    def subset(self, rows: Tensor) -> Statistics:
        """The statistics of some of the images."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Statistics(**{name: value[rows] for name, value in tensors.items()}, pixels=self.pixels)

    @staticmethod
    def joined(parts: Sequence[Statistics]) -> Statistics:
        """The statistics of several batches as one."""
        names = [name for name, value in vars(parts[0]).items() if isinstance(value, Tensor)]
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return Statistics(**joined, pixels=parts[0].pixels)

    def features(self, full: bool) -> Tensor:
        """What the density of `auto` sees, (B, K) float64: named statistics, and with `full` all others."""
        return torch.cat([self.values, self.places], 1) if full else self.values


@torch.no_grad()
def statistics_of(x: Tensor, model: ChartedModel, volume: bool = False) -> Statistics:
    """Encode, project and weigh images once, for all scores; the results are on the CPU.

    Args:
        x: Images (B, C, H, W) in [0, 1], on the model's device.
        model: With a manifold of images and a density.
        volume: Whether `Statistics.volume` is needed: d pushes of a tangent an image.
    """
    u = finite(model.encode(x), HUGE)
    off = finite(x - model.decode(u), 1e3)
    nll = finite(-model.density.log_prob(u), HUGE).double()
    log_volume = metric_log_volume(metric(model.chart, u)) if volume else None
    known = torch.full_like(nll, math.nan) if log_volume is None else finite(log_volume, HUGE)
    bits = zlib_bits(x)
    values = {
        "u": u.double(), "nll": nll, "volume": known, "bits": bits,
        "squares": off.double().square().flatten(1).sum(1),
        "values": summary(x, off, nll, bits),
        "places": spatial(x, off, u),
        "smooth": F.avg_pool2d(off.square().mean(1, keepdim=True), 3, 1, 1, count_include_pad=False),
    }  # fmt: skip
    return Statistics(**{name: value.cpu() for name, value in values.items()}, pixels=x[0].numel())


def summary(x: Tensor, off: Tensor, nll: Tensor, bits: Tensor) -> Tensor:
    """Compute the statistics that have a name in words, shape (B, 7) float64, in the order of `WORDS`.

    Of images x, (B, C, H, W), off = x − x̂, nll = −log p_h(u), (B,), and `zlib_bits`, (B,).
    """
    x = x.double()
    residual, contrast = _log(off.double().square().flatten(1).mean(1)), _log(x.flatten(1).var(1))
    detail, brightness = bands(x)[:, :2].mean(1), x.flatten(1).mean(1)
    return torch.stack([residual, residual - contrast, nll, detail, bits, brightness, contrast], 1)


def spatial(x: Tensor, off: Tensor, u: Tensor) -> Tensor:
    """Join the first codes, and statistics of where things are, shape (B, K) float64.

    Log residual energy in 4 × 4 cells, log energy of horizontal and of vertical steps in 3 × 3 cells, and
    `bands` of the image and of the residual: an image upside down has the same total of everything, and the
    parts of it in other places.
    """
    x, off = x.double(), off.double()
    across, down = x[..., 1:, 1:] - x[..., 1:, :-1], x[..., 1:, 1:] - x[..., :-1, 1:]
    places = [cells(off, 4), cells(across, 3), cells(down, 3), bands(x), bands(off)]
    return torch.cat([u[:, :_CODES].double(), *places], 1)


def zlib_bits(x: Tensor) -> Tensor:
    """Count the bits a value that zlib needs for 8-bit images (B, C, H, W) in [0, 1], shape (B,) float64."""
    pixels = x.detach().clamp(0, 1).mul(255).round().byte().cpu().flatten(1).numpy()
    bits = [8 * len(zlib.compress(row.tobytes(), 6)) / row.size for row in pixels]
    return torch.tensor(bits, dtype=torch.float64, device=x.device)


def bands(x: Tensor) -> Tensor:
    """Compute log mean squares of horizontal and of vertical steps between pixels at halved scales.

    Of images (B, C, H, W) they are (B, 2L): a pair a scale, finest first. A blurred image has less than usual
    in the first, a shuffled one more, a turned one has them exchanged.
    """
    found = []
    for _ in range(_LEVELS):
        found += [
            (x[..., 1:] - x[..., :-1]).square().flatten(1).mean(1),
            (x[..., 1:, :] - x[..., :-1, :]).square().flatten(1).mean(1),
        ]
        if min(x.shape[-2:]) < 6:
            break
        x = F.avg_pool2d(x, 2)
    return _log(torch.stack(found, 1))


def cells(x: Tensor, across: int) -> Tensor:
    """Compute the log mean square of each of `across`² cells of images (B, C, H, W), shape (B, across²)."""
    pooled = F.adaptive_avg_pool2d(x.square().mean(1, keepdim=True), min(across, *x.shape[-2:]))
    return _log(pooled.flatten(1))


def _log(mean_squares: Tensor) -> Tensor:
    return (mean_squares.double() + TINY).log()


def finite(values: Tensor, limit: float) -> Tensor:
    """Clip to ±limit, and put the limit in the place of what is not a number."""
    return values.nan_to_num(limit, limit, -limit).clamp(-limit, limit)
