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
from mfimage.modes import plainly

TINY = 1e-6  # mean square below which an 8-bit image holds nothing but rounding
HUGE = 1e6  # what codes and log-densities of absurd images are clipped to, so that nothing is NaN
_LEVELS = 4  # scales, halved each time, at which gradients are measured
_CODES = 32  # first coordinates, the coarsest, that the density sees

WORDS = {  # of `summary`: what is said of a value that is too low, and too high
    "residual": ("reconstructs better than familiar images", "reconstructs badly"),
    "share": ("reconstructs too well for its contrast", "loses most of its contrast in reconstruction"),
    "latent": ("an unusually common place on the manifold", "a rare place on the manifold"),
    "fit": ("more evenly placed than chance on the manifold", "coordinates that the density does not expect"),
    "detail": ("smoother than familiar images", "rougher than familiar images"),
    "complexity": ("simpler than familiar images", "more complex than familiar images"),
    "brightness": ("darker than familiar images", "brighter than familiar images"),
    "contrast": ("less contrast than familiar images", "more contrast than familiar images"),
}
UNSOUND = "the model gives no finite numbers for it"  # of an image whose score is ∞


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a model makes of images: all that scores need to know of them."""

    u: Tensor  # codes (B, d), clipped to ±10⁶
    squares: Tensor  # ‖x − x̂‖² over all D pixels and channels, (B,)
    pixels: int  # D
    nll: Tensor  # −log p_h(u), (B,), nats, clipped to ±10⁶
    volume: Tensor  # ½ log det(JᵀJ) at u, (B,), nats; NaN where it was not asked for
    bits: Tensor  # that zlib needs a value of the 8-bit image, (B,)
    values: Tensor  # named statistics, (B, 8), see `summary`
    places: Tensor  # statistics of where things are, (B, K), see `spatial`
    energies: Tensor  # logarithms of what falls when an image loses contrast, (B, E), see `statistics_of`
    sound: Tensor  # whether codes, projection and log-density are finite, (B,) bool

    def __len__(self) -> int:
        return len(self.u)

    def subset(self, rows: Tensor) -> Statistics:
        """The statistics of some of the images."""
        return Statistics(**{n: v if n == "pixels" else v[rows] for n, v in vars(self).items()})

    @staticmethod
    def joined(parts: Sequence[Statistics]) -> Statistics:
        """The statistics of several batches as one."""
        names = [name for name in vars(parts[0]) if name != "pixels"]
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return Statistics(**joined, pixels=parts[0].pixels)


@plainly
@torch.no_grad()
def statistics_of(x: Tensor, model: ChartedModel, volume: bool = False) -> Statistics:
    """Encode, project and weigh images (B, C, H, W) in [0, 1] once, for all scores; results on the CPU.

    With `volume` it is computed too, by d pushes of a tangent an image.
    """
    codes = model.encode(x)
    u = finite(codes, HUGE)
    left, rarity = x - model.decode(u), -model.density.log_prob(u)
    off, nll = finite(left, 1e3), finite(rarity, HUGE).double()
    unknown = torch.full_like(nll, math.nan)
    bits, z = zlib_bits(x), finite(model.density.transform_to_noise(u), HUGE).double()
    named, edges = summary(x, off, nll, bits, z), bands(x.double())
    values = {
        "u": u.double(), "nll": nll, "bits": bits,
        "volume": finite(metric_log_volume(metric(model.chart, u)), HUGE) if volume else unknown,
        "squares": off.double().square().flatten(1).sum(1),
        "values": named,
        "places": spatial(x, off, u),
        "energies": torch.cat([_log(z.square().mean(1, True)), named[:, [0, -1]], edges], 1),
        "sound": torch.cat([codes, left.flatten(1), rarity[:, None]], 1).isfinite().all(1),
    }  # fmt: skip
    return Statistics(**{name: value.cpu() for name, value in values.items()}, pixels=x[0].numel())


def summary(x: Tensor, off: Tensor, nll: Tensor, bits: Tensor, z: Tensor) -> Tensor:
    """Compute the statistics in the order of `WORDS`, (B, 8) float64.

    Of images x, their residuals x − x̂, −log p_h(u), what zlib needs, and z = h(u).
    """
    x = x.double()
    residual, contrast = _log(off.double().square().flatten(1).mean(1)), _log(x.flatten(1).var(1))
    detail, brightness = bands(x)[:, :2].mean(1), x.flatten(1).mean(1)
    named = [residual, residual - contrast, nll, anderson_darling(z), detail, bits, brightness, contrast]
    return torch.stack(named, 1)


def anderson_darling(z: Tensor) -> Tensor:
    """Compute log A² of each row of z, (B, d), which is normal noise if codes are of the density; (B,).

    A² = −d − Σ (2i − 1)/d · [log Φ(z_i) + log Φ(−z_{d+1−i})], z ascending. Anderson, Darling, A test of
    goodness of fit, 1954, Journal of the American Statistical Association 49.
    """
    z, d = z.sort(1).values, z.shape[1]
    odd = 2 * torch.arange(d, device=z.device, dtype=z.dtype) + 1
    logs = torch.special.log_ndtr(z) + torch.special.log_ndtr(-z.flip(1))
    return _log(-d - (odd * logs).sum(1) / d)


def spatial(x: Tensor, off: Tensor, u: Tensor) -> Tensor:
    """Join the first codes, and statistics of where things are, shape (B, K) float64.

    Log residual energy in 4 × 4 cells, log energy of horizontal and of vertical steps in 3 × 3 cells, and
    `bands` of image and residual: upside down an image has the same total of everything, in other places.
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
    """Compute log mean squares of horizontal and vertical steps between pixels at halved scales, (B, 2L).

    They are a pair a scale, finest first: a blurred image has less than usual in the first, a shuffled one
    more, a turned one has them exchanged.
    """
    found = []
    for _ in range(_LEVELS):
        for step in (x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]):
            found.append(step.square().flatten(1).mean(1))
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
