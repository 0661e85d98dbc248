"""How strange each pixel of an image is: a density of what a model takes off around it.

Residuals r are x − project(x) and, of a model that removes noise, x − soft(x, σ) at several σ, as if a clean
image had so much noise: −σ² times the gradient of the log-density of noisy images, of which small σ see
details and large ones tones. Around a pixel they are described by averages of r, which have signs, and by
logarithms of averages of r² in Gaussian windows, in standard deviations of that pixel on familiar images.

Mahmood, Oliva, Styner, Multiscale score matching for out-of-distribution detection, 2021, arXiv 2010.13132.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from mfimage.datasets.sets import Dataset
from mfimage.errors import UsageError
from mfimage.inputs import AnyImages, image_batches
from mfimage.models import ChartedModel
from mfimage.modes import plainly
from mfimage.ood.evidence import Mixture, fit_mixture
from mfimage.ood.statistics import TINY, finite

SIGMAS = (0.05, 0.1, 0.2, 0.4)  # of noise that is taken off, on the scale of [0, 1]
MEANS, ENERGIES = (1.0, 3.0), (1.5, 4.0)  # pixels: deviations of the windows for averages of r and of r²
SMOOTH = 1.0  # pixels by which a map is smoothed
FAMILIAR_PIXELS = 0.99  # share of those of familiar images below the level at which a place ends
_PRIOR = 10  # images that the variance over all pixels counts for, beside that of a pixel
_LEAST = 0.1  # of the deviation over all pixels, which is left to each
_PIXELS = 1_000_000  # of images from which is learned, and of those that set the levels
_GRID = 64  # cells a side, at most, in which means and deviations are kept
_SAMPLE, _COMPONENTS = 12_000, 16  # pixels that the density is fitted to, and the most components it has
_DIGITS = 4  # after the point, of what is kept of each pixel in units of 1


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What is usual around each pixel of familiar images: t = ((features − shift)/scale − mean)/spread.

    A pixel is as far out as √(2·(least − log p(t))), in standard deviations; of a single Gaussian this is the
    distance of Mahalanobis. The map is smoothed.
    """

    shift: Tensor  # of each feature, over all pixels, (F,)
    scale: Tensor  # their deviations, (F,)
    mean: Tensor  # of each place, (F, h, w)
    spread: Tensor  # its deviations, (F, h, w)
    mixture: Mixture  # of t, the same everywhere
    middle: float  # median of maps of other familiar images
    edge: float  # their quantile `FAMILIAR_PIXELS`
    peaks: Tensor  # the largest value of each of these maps, ascending, (n,)

    @property
    def least(self) -> float:
        """The largest log p at the centre of a component."""
        centres = self.mixture.means * self.mixture.scale + self.mixture.shift
        return -float(self.mixture.nll(centres).min())

    def standardised(self, features: Tensor) -> Tensor:
        """Bring features (B, F, H, W) to units of familiar deviations, float64."""
        size = features.shape[-2:]
        column = (slice(None), None, None)
        t = (features.double() - self.shift[column]) / self.scale[column]
        return (t - _at_size(self.mean, size)) / _at_size(self.spread, size)

    def distances(self, features: Tensor) -> Tensor:
        """Map how far out each pixel is, (B, H, W) float64, from features (B, F, H, W)."""
        count, _, height, width = features.shape
        t = self.standardised(features).movedim(1, -1).reshape(count * height * width, -1)
        far = torch.cat([self.mixture.nll(part) for part in t.split(_SAMPLE)])
        away = (2 * (far + self.least).clamp_min(0)).sqrt().view(count, height, width)
        return _blurred(away, SMOOTH)


@plainly
@torch.no_grad()
def describe(x: Tensor, model: ChartedModel) -> tuple[Tensor, Tensor]:
    """Describe what is around each pixel of images (B, C, H, W) in [0, 1], and project them.

    Returns:
        Features, (B, F, H, W) float64, finite for any input, and projections like x, which where they are not
        finite are x; both on the CPU.
    """
    projection = model.project(x)
    left = [x - projection]
    for sigma in SIGMAS if model.noise_aware else ():
        level = x.new_full((len(x),), sigma)
        left.append(x - model.chart.shrink(model.clear(x, level), level))
    features = []
    for residual in left:
        r = finite(residual, 1e3).double().cpu()
        energy = r.square().mean(1, keepdim=True)
        features += [_blurred(r, size) for size in MEANS]
        features += [(_blurred(energy, size).clamp_min(0) + TINY).log() for size in ENERGIES]
    return torch.cat(features, 1), projection.where(projection.isfinite(), x).clamp(0, 1).cpu()


def learn_maps(
    images: AnyImages, rows: tuple[Tensor, Tensor], model: ChartedModel, batch_size: int = 256, seed: int = 0
) -> Surroundings:
    """Learn what is usual around pixels from some familiar images, and from others how far out they are.

    Of both only the first are used, if they are many; UsageError if they are fewer than 2 and 1. The model
    has learned from neither.
    """
    enough = max(2, _PIXELS // math.prod(model.shape[1:]))
    if len(rows[0]) < 2 or not len(rows[1]):
        raise UsageError("maps need 2 familiar images to be learned from, and others for their levels")
    fitted, others = (_some(images, part[:enough], model, batch_size) for part in rows)
    features = torch.cat([describe(part, model)[0].float() for part in fitted.split(batch_size)])
    draft = _fitted(features, torch.Generator().manual_seed(seed), seed)
    parts = others.split(batch_size)
    found = torch.cat([draft.distances(describe(part, model)[0]).float() for part in parts])
    middle, edge = np.quantile(found.numpy(), (0.5, FAMILIAR_PIXELS))
    peaks = found.flatten(1).amax(1).double().sort().values
    return replace(draft, middle=float(middle), edge=float(edge), peaks=peaks)


def _some(images: AnyImages, rows: Tensor, model: ChartedModel, batch_size: int) -> Tensor:
    """Some of the images, as a model takes them, (N, C, H, W)."""
    if isinstance(images, Dataset):
        images, rows = images.subset(rows), torch.arange(len(rows))
    at, parts = 0, list[Tensor]()
    for x in image_batches(images, model, batch_size):
        parts.append(x[rows[(rows >= at) & (rows < at + len(x))] - at])
        at += len(x)
    return torch.cat(parts)


def _fitted(features: Tensor, generator: torch.Generator, seed: int) -> Surroundings:
    """Fit means, deviations and the density to features (N, F, H, W) float32, without the levels."""
    count, size = len(features), features.shape[-2:]
    column = (slice(None), None, None)
    mean, variance = features.mean(0).double(), features.var(0).double()
    shift = mean.mean((1, 2))
    scale = (variance + (mean - shift[column]).square()).mean((1, 2)).sqrt().clamp_min(1e-6)
    mean, variance = (mean - shift[column]) / scale[column], variance / scale[column].square()
    shrunk = (count * variance + _PRIOR * variance.mean((1, 2), keepdim=True)) / (count + _PRIOR)
    spread = _on_grid(shrunk).sqrt().clamp_min(_LEAST)
    none = Mixture(*[torch.zeros(0)] * 5)
    draft = Surroundings(shift, scale, _on_grid(mean), spread, none, 0.0, 0.0, torch.zeros(0))
    every = count * size[0] * size[1]
    rows = torch.randint(every, (min(_SAMPLE, every),), generator=generator).sort().values
    picked = []
    for i in range(count):
        inside = rows[rows // (size[0] * size[1]) == i] % (size[0] * size[1])
        if len(inside):
            picked.append(draft.standardised(features[i : i + 1])[0].flatten(1)[:, inside].T)
    # Pixels of an image are alike: how many components there are is chosen by other images than they are of.
    return replace(draft, mixture=fit_mixture(torch.cat(picked), seed, _COMPONENTS, mixed=False))


def _on_grid(values: Tensor) -> Tensor:
    """Average (F, H, W) over cells, at most `_GRID` a side, and round it, as it is kept."""
    height, width = (min(_GRID, n) for n in values.shape[-2:])
    return F.adaptive_avg_pool2d(values[None], (height, width))[0].mul(10**_DIGITS).round() / 10**_DIGITS


def _at_size(grid: Tensor, size: torch.Size) -> Tensor:
    if grid.shape[-2:] == size:
        return grid
    return F.interpolate(grid[None], size, mode="bilinear", align_corners=False)[0]


def _blurred(x: Tensor, deviation: float) -> Tensor:
    """Average (…, H, W) in a Gaussian window, at the borders over what is mirrored."""
    sigmas = [*[0.0] * (x.ndim - 2), deviation, deviation]
    return torch.from_numpy(gaussian_filter(x.numpy(), sigmas, mode="reflect", truncate=3))
