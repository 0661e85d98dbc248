"""How well defects are found, and where: AUROC of images, AUROC and per-region overlap (AUPRO) of pixels.

Pixels are counted between levels once, image by image; measures of images drawn again, with replacement, are
then sums of counts. A draw is how often each image is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.ndimage import label
from torch import Tensor

from mfimage.eval.numbers import REPEATS, Interval

LEVELS = 2000  # of which no two neighbours have more than a share 1/2000 of the pixels between them
LIMIT = 0.3  # share of good pixels called bad, up to which overlap is averaged
MEASURES = ("image_auroc", "pixel_auroc", "aupro")


@dataclass(frozen=True)
class Counts:
    """Pixels of each of n images between K levels, the highest first."""

    good: Tensor  # outside of defects, (n, K)
    bad: Tensor  # in defects, (n, K)
    regions: Tensor  # sum over the image's defects, which are connected pixels, of the share in each, (n, K)
    number: Tensor  # of its defects, (n,)

    @staticmethod
    def joined(*parts: Counts) -> Counts:
        """Counts of several sets of images as one."""
        return Counts(*(torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])))


def levels_of(maps: Tensor) -> Tensor:
    """Choose levels, descending: all values of maps (B, H, W), or `LEVELS` quantiles where they are more."""
    values = maps.double().flatten().unique()
    if len(values) > LEVELS:
        ordered = maps.double().flatten().sort().values
        values = ordered[torch.linspace(0, len(ordered) - 1, LEVELS).round().long()].unique()
    return values.flip(0)


def counted(maps: Tensor, masks: Tensor, levels: Tensor) -> Counts:
    """Count pixels of maps (B, H, W), higher is stranger, with defects where masks are True."""
    places = len(levels) - torch.searchsorted(levels.flip(0).contiguous(), maps.double(), right=True)
    good, bad, regions, number = [], [], [], []
    for place, mask in zip(places.clamp(max=len(levels) - 1), masks, strict=True):
        pieces, count = label(mask.numpy(), torch.ones(3, 3).numpy())
        pieces = torch.from_numpy(pieces)
        good.append(_histogram(place[~mask], len(levels)))
        bad.append(_histogram(place[mask], len(levels)))
        shares = [_histogram(place[pieces == i + 1], len(levels)) for i in range(count)]
        regions.append(sum((h / h.sum() for h in shares), torch.zeros(len(levels)).double()))
        number.append(float(count))
    return Counts(torch.stack(good), torch.stack(bad), torch.stack(regions), torch.tensor(number).double())


def _histogram(places: Tensor, size: int) -> Tensor:
    return torch.bincount(places, minlength=size).double()


def pixel_auroc(counts: Counts, draws: Tensor) -> Tensor:
    """Compute the chance that a pixel of a defect is above a good one, of draws (R, n), shape (R,)."""
    good, bad = _curve(draws @ counts.good), _curve(draws @ counts.bad)
    return torch.trapezoid(bad, good, dim=1)


def aupro(counts: Counts, draws: Tensor, limit: float = LIMIT) -> Tensor:
    """Compute the mean share of a defect's pixels above a level, averaged over false alarms up to a limit.

    Of draws (R, n), shape (R,): 1 is best, limit/2 chance. Bergmann, Batzner, Fauser, Sattlegger, Steger, The
    MVTec anomaly detection dataset, 2021, International Journal of Computer Vision 129, §5.2.
    """
    alarms = _curve(draws @ counts.good)
    overlap = (draws @ counts.regions).cumsum(1) / (draws @ counts.number)[:, None]
    overlap = torch.cat([overlap.new_zeros(len(overlap), 1), overlap], 1)
    left, right = alarms[:, :-1], alarms[:, 1:]
    width = (right.clamp(max=limit) - left).clamp_min(0)
    end = overlap[:, :-1] + overlap.diff(dim=1) * width / (right - left).clamp_min(1e-300)
    return (width * (overlap[:, :-1] + end) / 2).sum(1) / limit


def _curve(histograms: Tensor) -> Tensor:
    """Shares above each level, from 0 to 1, (R, K + 1)."""
    shares = histograms.cumsum(1) / histograms.sum(1, keepdim=True)
    return torch.cat([shares.new_zeros(len(shares), 1), shares], 1)


@dataclass(frozen=True)
class Detection:
    """How good images and those with one kind of defect are scored."""

    above: Tensor  # whether a defect's score is above a good image's, ½ if they are equal, (good, defects)
    good: Counts
    bad: Counts

    def measures(self, good: Tensor, bad: Tensor) -> Tensor:
        """Compute `MEASURES` of draws (R, n) of good images and (R, m) of defects, shape (R, 3)."""
        image = ((good @ self.above) * bad).sum(1) / (good.sum(1) * bad.sum(1))
        counts, draws = Counts.joined(self.good, self.bad), torch.cat([good, bad], 1)
        return torch.stack([image, pixel_auroc(counts, draws), aupro(counts, draws)], 1)

    @property
    def values(self) -> dict[str, float]:
        """`MEASURES` of the images as they are."""
        once = [torch.ones(1, n, dtype=torch.float64) for n in self.above.shape]
        return dict(zip(MEASURES, self.measures(*once)[0].tolist(), strict=True))


def detections(scores: Tensor, maps: Tensor, masks: Mapping[str, Tensor]) -> dict[str, Detection]:
    """Compare good images with each kind of defect by scores (N,) and maps (N, H, W).

    The good images are the first, then those of each kind follow, of which there are masks (m, H, W).
    """
    levels, counts = levels_of(maps), [len(mask) for mask in masks.values()]
    familiar, *strange = scores.double().split([len(scores) - sum(counts), *counts])
    known, *others = maps.split([len(familiar), *counts])
    good = counted(known, torch.zeros_like(known, dtype=torch.bool), levels)
    found = {}
    for (kind, mask), outside, seen in zip(masks.items(), strange, others, strict=True):
        found[kind] = Detection(above(familiar, outside), good, counted(seen, mask, levels))
    return found


def above(good: Tensor, bad: Tensor) -> Tensor:
    """Whether each of the scores of defects (m,) is above each of good images (n,), ½ if equal, (n, m)."""
    return (bad > good[:, None]).double() + 0.5 * (bad == good[:, None])


def means(groups: Sequence[Sequence[Detection]], seed: int = 0) -> dict[str, Interval]:
    """Compute means over kinds of defects and their intervals: m ± 1.96 s over draws of images.

    The kinds of a group have the same good images, which are drawn once for all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for kinds in groups:
        good = _draws(len(kinds[0].above), generator)
        found += [kind.measures(good, _draws(kind.above.shape[1], generator)) for kind in kinds]
    values = torch.stack(found).mean(0)
    spread = 1.96 * values[1:].std(0)
    triples = zip(MEASURES, values[0].tolist(), spread.tolist(), strict=True)
    return {name: Interval(value, value - s, value + s).cut(0.0, 1.0) for name, value, s in triples}


def _draws(count: int, generator: torch.Generator) -> Tensor:
    """Every image once, and then `REPEATS` draws with replacement, as counts (1 + R, count) float64."""
    rows = torch.randint(count, (REPEATS, count), generator=generator)
    drawn = torch.zeros(REPEATS, count).scatter_add_(1, rows, torch.ones(REPEATS, count))
    return torch.cat([torch.ones(1, count), drawn]).double()
