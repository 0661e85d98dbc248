"""Whether an image is one that a model knows, whatever noise is in it: measured on images held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.denoising.methods import is_cut
from mfimage.errors import ModelError, boundary
from mfimage.models import ChartedModel, GenerativeModel
from mfimage.modes import plainly
from mfimage.pretrained import CALIBRATION

FAMILIAR = "familiar"  # the section of what is usual in `model.measured`
OTHERS = "others"  # its part for noise that is not Gaussian
LEAST = 0.005  # σ below which an image is looked at as at this one
_REGION = 0.01  # of familiar images lies outside of the normal region
_DOUBT = 0.02  # chance that more than that are called far
_CELLS = 7  # blocks along the shorter side of the model's images, of which the coarse picture is made
_MUCH = 2.0  # times the variance that noise of another kind has, above which what was taken off is not noise
_PARTS = 64  # of a large image that are looked at, at most
_FEWEST = 10  # images of which something can be learned
_NARROWEST = 0.01  # deviation that is left to each feature
_LEAST = (1 / 255) ** 2 / 12  # mean square of rounding to 8 bits, below which nothing is told apart
_LITTLE = 0.001  # σ below the least level, that is told of an image


@dataclass(frozen=True)
class Region:
    """What features of familiar images are usual at some levels of noise, and how far is too far."""

    sigmas: tuple[float, ...]  # rising, in units of the images
    means: tuple[tuple[float, ...], ...]  # of k features at each
    covariances: tuple[tuple[tuple[float, ...], ...], ...]  # k × k
    limits: tuple[float, ...]  # of (f − mean)ᵀ·covariance⁻¹·(f − mean)

    def strangeness(self, features: Tensor, sigma: Tensor) -> Tensor:
        """Measure how far features (B, k) of images with noise σ (B,) are out over the limit, shape (B,).

        All is interpolated in log σ; beyond the ends it is that of the end.
        """
        where = np.log(sigma.double().clamp_min(LEAST).cpu().numpy())
        means, covariances, limits = (
            self._between(where, values) for values in (self.means, self.covariances, self.limits)
        )
        away = features.double().cpu() - means
        squares = (away * torch.linalg.solve(covariances, away[..., None])[..., 0]).sum(
            1
        )  # of each its own covariance
        return (squares / limits).float()

    def holding(self, features: Tensor, sigma: Tensor) -> Region:
        """Widen the limits until all these images (N, k) with noise σ (N,) are in.

        What is estimated of an image is not always its σ, and features there are others.
        """
        where = np.interp(sigma.double().cpu().numpy(), self.sigmas, range(len(self.sigmas)))
        out, limits = self.strangeness(features, sigma).double().numpy(), []
        for level, limit in enumerate(self.limits):
            near = out[np.abs(where - level) < 1]
            limits.append(limit * max(1.0, *near.tolist()))
        return replace(self, limits=tuple(limits))

    def _between(self, where: np.ndarray, values: Any) -> Tensor:
        table = np.array(values).reshape(len(self.sigmas), -1)
        found = [np.interp(where, np.log(self.sigmas), column) for column in table.T]
        return torch.from_numpy(np.stack(found, 1).reshape(len(where), *np.shape(values)[1:]))


@dataclass(frozen=True)
class Familiarity:
    """The region of images with all their noise, and that of those cut to [0, 1].

    Those of noise that is not Gaussian have one feature less, and are None where they were not measured.
    """

    whole: Region
    cut: Region
    other_whole: Region | None = None
    other_cut: Region | None = None


@torch.no_grad()
def features_of(y: Tensor, model: GenerativeModel, sigma: Tensor) -> Tensor:
    """Describe images (B, C, H, W) of the model's size with Gaussian noise σ (B,) for the question: (B, 5).

    With x̂ the image without noise (shrunk by a noise-aware model, else as it is): the four numbers of
    `drawn_features`, and log mean (y − x̂)²/σ², what was taken for noise. σ counts as 0.005 at least: below it
    what is taken off is the model's error, and says nothing of σ.
    """
    chart, sigma = cast(ChartedModel, model).chart, sigma.clamp_min(LEAST)
    x_hat = chart.shrink(model.clear(y, sigma), sigma) if model.noise_aware else y
    taken = (_log_square(y - x_hat) - 2 * sigma.log()).to(y)
    return torch.cat([drawn_features(x_hat, model), taken[:, None]], 1)


@torch.no_grad()
def drawn_features(x_hat: Tensor, model: GenerativeModel) -> Tensor:
    """Describe results (B, C, H, W) of the model's size: (B, 4).

    With r = x̂ − project(x̂): log mean r²; the same of means over blocks of side/7 pixels, of which what the
    manifold cannot draw – another object – leaves more than what is merely fine; log variance of those means
    of x̂; and −log p_h(u)/d of its codes.
    """
    u = model.encode(x_hat)
    off = x_hat - model.decode(u)
    nats = x_hat.new_zeros(len(x_hat))
    if model.has_manifold_density:
        nats = (-cast(ChartedModel, model).density.log_prob(u) / model.dim).to(x_hat)
    side = max(1, min(model.shape[-2:]) // _CELLS)
    return torch.stack([
        _log_square(off),
        _log_square(F.avg_pool2d(off, side)),
        F.avg_pool2d(x_hat, side).flatten(1).var(1, unbiased=False).clamp_min(_LEAST).log(),
        nats,
    ], 1)  # fmt: skip


def _log_square(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(1).clamp_min(_LEAST).log()


@plainly
def measure_familiarity(
    clean: Tensor,
    model: GenerativeModel,
    sigmas: Sequence[float],
    estimate: Callable[[Tensor], Tensor],
    seed: int = 0,
    count: int | None = None,
) -> dict[str, Any]:
    """Measure what is usual, by noise on clean images (N, C, H, W) of the model's size that it has not seen.

    At each level of noise it is on the next `count` of them, so that all levels together tell of many; on all
    if None. Every other one is judged by the σ that is estimated of it, the rest by its own; clean ones, and
    those with less noise than the least of σ, by both. Empty where there are too few images, or the model
    gives no finite numbers for them. Other noise is left out where the model does not know noise.
    """
    count = len(clean) if count is None else min(count, len(clean))
    if count < _FEWEST:
        return {}
    regions: dict[str, Any] = {OTHERS: {}} if model.noise_aware else {}
    for name in ("whole", "cut"):
        generator, features, levels = torch.Generator().manual_seed(seed), [], []
        for level, sigma in enumerate((0.0, *sigmas, _LITTLE)):
            x = clean[(torch.arange(count) + level * count) % len(clean)]
            y = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
            y = y.clamp(0, 1) if name == "cut" else y
            told = y.new_full((len(y),), sigma)
            mixed = told.clone()
            mixed[1::2] = estimate(y[1::2])
            both = [mixed] if sigma in sigmas else [told, estimate(y)]
            levels.append(torch.cat(both))
            features.append(torch.cat([features_of(y, model, one).double().cpu() for one in both]))
        every, all_levels = torch.cat(features), torch.cat(levels)
        if not every.isfinite().all():
            return {}
        usual = features[1:-1]
        regions[name] = asdict(region_of(sigmas, usual).holding(every, all_levels))
        if model.noise_aware:
            drawn = region_of(sigmas, [one[:, :-1] for one in usual])
            regions[OTHERS][name] = asdict(drawn.holding(every[:, :-1], all_levels))
    return regions


def region_of(sigmas: Sequence[float], features: Sequence[Tensor]) -> Region:
    """Learn a region from features (N, k) of familiar images at each level of noise.

    Outside of the region lies the next of 1 % of normal ones (Hotelling 1931). It is widened by what the
    farthest image of the level is out over that, each from the mean and covariance of the others; and, as N
    may be small, by what those of all levels are out, but for so many that with 98 % certainty at most 1 %
    of others are (Wilks, Determination of sample sizes for setting tolerance limits, 1941).
    """
    from scipy.stats import binom

    learned = [_normal(one) for one in features]
    normal = [_normal_limit(*one.shape) for one in features]
    out = [_from_others(one) / limit for one, limit in zip(features, normal, strict=True)]
    together = torch.cat(out).sort(descending=True).values
    left = max(1, int(binom.ppf(_DOUBT, len(together), _REGION)))
    widened = max(1.0, float(together[left - 1]))
    limits = [limit * max(widened, float(one.max())) for limit, one in zip(normal, out, strict=True)]
    means = tuple(tuple(mean.tolist()) for mean, _ in learned)
    covariances = tuple(tuple(map(tuple, covariance.tolist())) for _, covariance in learned)
    return Region(tuple(sigmas), means, covariances, tuple(limits))


def _normal(features: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a mean (k,) and a covariance (k, k)."""
    centred = features - features.mean(0)
    covariance = centred.T @ centred / (len(features) - 1)
    return features.mean(0), covariance + (1e-3 * covariance.diagonal() + _NARROWEST**2).diag()


def _from_others(features: Tensor) -> Tensor:
    """How far each (N, k) is out, by the mean and covariance of the others: (N,)."""
    count = len(features)
    mean, covariance = _normal(features)
    step = features - mean
    inner = (step * torch.linalg.solve(covariance, step.T).T).sum(1)
    # Sherman and Morrison's formula leaves it out of their mean and covariance.
    outer = inner / (1 - count / (count - 1) ** 2 * inner)
    return count**2 * (count - 2) / (count - 1) ** 3 * outer


def _normal_limit(count: int, size: int) -> float:
    from scipy.stats import f

    return size * (count**2 - 1) / (count * (count - size)) * float(f.ppf(1 - _REGION, size, count - size))


def familiarity_of(model: GenerativeModel) -> Familiarity | None:
    """Return what is usual for a model, None if it was never measured; ModelError if it is damaged."""
    stored = model.measured.get(FAMILIAR)
    if not stored or (isinstance(stored, Mapping) and "coarse" in stored):  # which 0.1.0 measured at first
        return None
    with boundary(ModelError, f"{CALIBRATION}: what is usual for the model is damaged"):
        others = stored.get(OTHERS) or {}  # a model of 0.1.0 has none
        parts = [(part, name) for part in (stored, others) for name in ("whole", "cut") if part]
        return Familiarity(*(_read(part[name]) for part, name in parts))


def _read(stored: Mapping[str, Any]) -> Region:
    arrays = [np.array(stored[name], float) for name in ("sigmas", "means", "covariances", "limits")]
    sigmas, means, covariances, limits = arrays
    size = means.shape[-1]
    if (covariances.shape, limits.shape) != ((len(sigmas), size, size), sigmas.shape) or not len(sigmas):
        raise ValueError("lengths differ")
    if not all(np.isfinite(array).all() for array in arrays[:3]) or not (limits > 0).all():
        raise ValueError("numbers are not finite, or a limit is not positive")
    if not 0 < sigmas[0] <= sigmas.min():
        raise ValueError("deviations are positive, and rise")
    return Region(*(_tuples(array.tolist()) for array in arrays))


def _tuples(values: Any) -> Any:
    return tuple(map(_tuples, values)) if isinstance(values, list) else values


@plainly
@torch.no_grad()
def strangeness(
    y: Tensor, model: GenerativeModel, sigma: Tensor, x_hat: Tensor | None = None
) -> Tensor | None:
    """Say how unfamiliar images (B, C, H, W) with noise σ (B,) are: (B,), above 1 is far, ∞ not finite.

    Of familiar images with Gaussian noise at most 2 % are far, as measured at each level of noise. With noise
    of another kind, σ its deviation, an image is judged by what was drawn of it, `x_hat`, and is far too if
    more was taken off than twice the noise's variance. A large image is as strange as the median of its parts
    of the model's size, side by side. None where what is familiar was not measured, for noise of this kind.
    """
    known = familiarity_of(model)
    if known is None or (x_hat is not None and known.other_whole is None):
        return None
    size = (model.shape[-2], model.shape[-1])
    parts = torch.cat([parts_of(one, size) for one in y])
    count = len(parts) // len(y)
    whole, levels = ((~is_cut(y)).repeat_interleave(count), sigma.repeat_interleave(count))
    if x_hat is None:
        pairs = zip(parts.split(256), levels.split(256), strict=True)
        features = torch.cat([features_of(part, model, level) for part, level in pairs])
        apart, cut = (region.strangeness(features, levels) for region in (known.whole, known.cut))
    else:
        drawn = torch.cat([parts_of(one, size) for one in x_hat])
        features = torch.cat([drawn_features(part, model) for part in drawn.split(256)])
        excess = (parts - drawn).square().flatten(1).mean(1) / (_MUCH * levels.clamp_min(LEAST).square())
        others = cast(Region, known.other_whole), cast(Region, known.other_cut)
        apart, cut = (torch.maximum(one.strangeness(features, levels), excess.cpu()) for one in others)
    found = apart.where(whole.cpu(), cut).nan_to_num(torch.inf, torch.inf)
    return found.view(len(y), count).median(1).values


def parts_of(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut an image (C, H, W) into parts (n, C, h, w), without what is over; of many take some, evenly."""
    cut = x.unfold(1, size[0], size[0]).unfold(2, size[1], size[1]).permute(1, 2, 0, 3, 4).flatten(0, 1)
    return cut[torch.linspace(0, len(cut) - 1, min(len(cut), _PARTS)).round().long().to(cut.device)]
