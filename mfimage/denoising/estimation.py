"""What the noise in an image is: how its variance rises with brightness, and which values are lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_NORMAL = 0.6745  # median |N(0, 1)|
_BINS = 8  # of brightness, with as many blocks each
_ROUNDS = 6  # of weighing the bins by what they should vary
_FAR = 0.15  # how far from those around it a lost value lies at least
_ALONE, _FEWEST = 0.5, 3  # how far a value alone is from all its neighbours but two
_LOST, _MORE = 0.02, 4  # share of values alone, and how many more are 0 or 1, from which they count as lost
_MANY = 0.1  # share of values that are lost, from which none need be alone
_LEEWAY = 1.3  # times as many values are white, or black, as are lost to it, at most, to be taken for these


def variance_line(y: Tensor) -> tuple[Tensor, Tensor]:
    """Fit variance = a·x + b, a and b from 0, to the noise of images (B, C, H, W); a and b, (B,), float64.

    Blocks of 2 × 2 pixels are sorted by their mean, smoothed over 3 × 3 of them, into 8 bins; of each the
    diagonal details w tell the variance, (median |w| / 0.6745)². The line is that of least squares, each bin
    weighed by what its variance should vary. Where an image is cut to [0, 1] blocks that are all white are
    left out, and means and variances near black and white are those that would be cut to what is seen.

    Reference:
        Foi, Trimeche, Katkovnik, Egiazarian, Practical Poissonian-Gaussian noise modeling and fitting for
        single-image raw-data, IEEE TIP 17, 2008; Foi, Clipped noisy images, Signal Processing 89, 2009.
    """
    mean, variance = _bins(y)
    known = variance.isfinite()
    mean, variance = mean.nan_to_num(0.0).clamp_min(0), variance.nan_to_num(0.0)
    level = variance.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
    fitted = level.expand_as(variance)
    for _ in range(_ROUNDS):
        weight = known / (fitted + 1e-3 * level).clamp_min(1e-12).square()
        a, b = _line(mean, variance, weight)
        fitted = a[:, None] * mean + b[:, None]
    return a, b


def _line(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Fit y = a·x + b with a, b ≥ 0 by weighted least squares, rows of (B, K)."""
    total = weight.sum(1).clamp_min(1e-300)
    x_mean, y_mean = (weight * x).sum(1) / total, (weight * y).sum(1) / total
    off = x - x_mean[:, None]
    a = (weight * off * (y - y_mean[:, None])).sum(1) / (weight * off.square()).sum(1).clamp_min(1e-300)
    through = (weight * x * y).sum(1) / (weight * x.square()).sum(1).clamp_min(1e-300)
    a = torch.where(y_mean < a * x_mean, through, a).clamp_min(0)
    return a, (y_mean - a * x_mean).clamp_min(0)


def _bins(y: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances of the noise, (B, K) float64, by brightness; NaN where a bin is empty."""
    if min(y.shape[-2:]) < 2:
        empty = y.new_full((len(y), 1), math.nan).double()
        return empty, empty
    corners = [y[..., i : y.shape[-2] - 1 + i, j : y.shape[-1] - 1 + j] for i in (0, 1) for j in (0, 1)]
    a, b, c, d = corners
    details = ((a - b - c + d) / 2).flatten(1)
    mean = F.avg_pool2d((a + b + c + d) / 4, 3, 1, 1, count_include_pad=False).flatten(1)
    flat = y.flatten(1)
    cut = (flat.amin(1) >= 0) & (flat.amax(1) <= 1)
    white = (torch.stack(corners).amin(0).flatten(1) >= 1) & cut[:, None]
    order = mean.masked_fill(white, torch.inf).argsort(1)
    details, mean = details.masked_fill(white, torch.nan).gather(1, order), mean.gather(1, order)
    parts = list(zip(mean.tensor_split(_BINS, 1), details.tensor_split(_BINS, 1), strict=True))
    means = torch.stack([part.mean(1) for part, _ in parts if part.shape[1]], 1).double()
    deviations = torch.stack([part.abs().nanmedian(1).values for _, part in parts if part.shape[1]], 1)
    variances = (deviations.double() / _NORMAL).square()
    whole = _uncut(means, variances)
    return torch.where(cut[:, None], whole[0], means), torch.where(cut[:, None], whole[1], variances)


def _uncut(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of what is cut to [0, 1], from those after it, each at the end that is near."""
    low, at_low = _uncut_at_black(mean, variance)
    high, at_high = _uncut_at_black(1 - mean, variance)
    dark = mean < 0.5
    return torch.where(dark, low, 1 - high), torch.where(dark, at_low, at_high)


def _uncut_at_black(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The same where values below 0 became 0, by the ratio of mean and deviation; see Foi, 2009."""
    seen = (mean / variance.clamp_min(1e-12).sqrt()).cpu().numpy()
    factor = torch.from_numpy(np.interp(seen, _RATIO, 1 / _CUT_VARIANCE)).to(variance)
    level = torch.from_numpy(np.interp(seen, _RATIO, _LEVEL)).to(variance)
    whole = variance * factor
    return torch.where(torch.from_numpy(seen).to(mean) < _RATIO[-1], level * whole.sqrt(), mean), whole


def _cut_normal() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of N(ξ, 1) cut below 0, ξ in 0 … 6: ξ, mean over deviation, and variance."""
    level = np.linspace(0, 6, 601)
    bell = np.exp(-(level**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([(1 + math.erf(one / math.sqrt(2))) / 2 for one in level])
    mean = bell + level * below
    variance = (1 + level**2) * below + level * bell - mean**2
    return level, mean / np.sqrt(variance), variance


_LEVEL, _RATIO, _CUT_VARIANCE = _cut_normal()


def lost_values(y: Tensor, shares: Sequence[float] | None = None) -> Tensor:
    """Find values of images (B, C, H, W) that salt and pepper has replaced, True there.

    They are 0 or 1 exactly. With its share p known, of each image, half of it are white and half black: where
    at most 1.3 p/2 of the values are white, all of these are lost, and black ones so too; with p = 0 none is.
    Otherwise they are lost where they lie further from the median of the nine around them than the other
    noise reaches: four times its deviation, 0.15 at least. That median itself fails where p is high.
    """
    extreme = (y == 0) | (y == 1)
    if not extreme.any():
        return extreme
    off = (y - _around(y).median(-1).values).abs()
    details = (y - _around(y.masked_fill(extreme, torch.nan)).nanmedian(-1).values).abs()
    lost = extreme & (off > _beyond(details, extreme, 4, _FAR))
    if shares is None:
        return lost
    share = torch.tensor(shares, dtype=y.dtype, device=y.device).view(-1, 1, 1, 1)
    for value in (0.0, 1.0):
        equal = y == value
        lost |= equal & (equal.to(y).mean((1, 2, 3), keepdim=True) <= _LEEWAY * share / 2)
    return lost & (share > 0)


def _beyond(details: Tensor, extreme: Tensor, times: float, least: float) -> Tensor:
    """Some times the deviation of what is not extreme, by its details, or `least`; (B, 1, 1, 1)."""
    middle = details.masked_fill(extreme, torch.nan).flatten(1).nanmedian(1).values.nan_to_num(1.0)
    return (times * middle / _NORMAL).clamp_min(least).view(-1, 1, 1, 1)


def lost_share(y: Tensor) -> Tensor:
    """Estimate the share of values that salt and pepper has replaced, (B,); 0 without clear evidence of it.

    White ones are seen where it is not white, black ones where it is not black, and there must be both. Of
    few the evidence is values 0 and 1 that stand alone: fewer than three of their eight neighbours are within
    0.5, or four deviations of the other noise, if that is more. Structure has lines and areas, and what
    stands alone in it is seldom 0 or 1: they must be 2 %, and four more than other values alone. Where many
    are lost they are not alone: they must be 10 %, and as many must stand out from the median, by two
    deviations and 0.15, as other values do by 0.15; nor may four deviations reach from black to white, as
    then other noise makes most values 0 or 1.

    The share is twice that of values 0 or of values 1, whichever is less, as there may be black and white in
    the image; but where that is more than twice of what is seen it is what is seen.
    """
    extreme, middle = (y == 0) | (y == 1), _around(y).median(-1).values
    if not extreme.any():
        return y.new_zeros(len(y))
    others = _neighbours(y.masked_fill(extreme, torch.nan)).nanmedian(-1).values
    details = (y - others).abs()
    apart = (y[..., None] - _neighbours(y)).abs().kthvalue(_FEWEST, -1).values
    reach = _beyond(details, extreme, 4, _ALONE)
    alone = apart > reach
    share, both = _seen(y, alone & extreme, middle, _ALONE)
    count, other = ((alone & kind).flatten(1).sum(1) for kind in (extreme, ~extreme))
    few = both & (share >= _LOST) & (count >= other + _MORE)
    off = (y - middle).abs()
    out, standing = extreme & (off > _beyond(details, extreme, 2, _FAR)), ~extreme & (off > _FAR)
    seen, both = _seen(y, out, middle, 0.2)
    many = both & (seen >= _MANY) & (out.flatten(1).sum(1) >= standing.flatten(1).sum(1))
    many &= reach.flatten() < 1
    share = torch.maximum(share, seen)
    least = torch.minimum(*((y == value).to(y).flatten(1).mean(1) for value in (0.0, 1.0)))
    return torch.where(few | many, torch.where(least <= share, 2 * least, share), 0.0)


def _seen(y: Tensor, hit: Tensor, middle: Tensor, far: float) -> tuple[Tensor, Tensor]:
    """Share of white and black values where the median is that far from them, and if there are both; (B,)."""
    halves = []
    for value in (0.0, 1.0):
        where = (middle - value).abs() > far
        halves.append((hit & where & (y == value)).flatten(1).sum(1) / where.flatten(1).sum(1).clamp_min(1))
    return halves[0] + halves[1], torch.minimum(*halves) > 0.2 * torch.maximum(*halves)


def fill_lost(y: Tensor, lost: Tensor) -> Tensor:
    """Fill in lost values of images (B, C, H, W) by means of neighbours weighed by a Gaussian."""
    return torch.where(lost, _guess(y, lost), y)


def guess_error(y: Tensor, lost: Tensor) -> Tensor:
    """Root mean square of what is wrong with such a guess, on values that are not lost, (B,)."""
    error = (_guess(y, lost) - y).square().masked_fill(lost, 0.0).flatten(1).sum(1)
    return (error / (~lost).flatten(1).sum(1).clamp_min(1)).sqrt()


def _guess(y: Tensor, lost: Tensor) -> Tensor:
    """Mean of the neighbours that are known, in 3 × 3, and where there is none in up to 15 × 15."""
    known, channels = (~lost).to(y), y.shape[1]
    guess = y.new_full(y.shape, 0.5)
    for reach in (7, 3, 1):
        place = torch.arange(-reach, reach + 1, dtype=y.dtype, device=y.device)
        line = torch.exp(-(place / (0.7 * reach)).square())
        kernel = line[:, None] * line
        kernel[reach, reach] = 0
        kernel = kernel.expand(channels, 1, -1, -1)
        total = F.conv2d(known, kernel, padding=reach, groups=channels)
        mean = F.conv2d(known * y, kernel, padding=reach, groups=channels) / total.clamp_min(1e-6)
        guess = torch.where(total > 0.1, mean, guess)
    return guess


def _around(y: Tensor, beyond: str = "replicate") -> Tensor:
    """The 3 × 3 values around each, (B, C, H, W, 9), those beyond the borders as `F.pad` makes them."""
    return F.pad(y, (1, 1, 1, 1), beyond).unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)


def _neighbours(y: Tensor) -> Tensor:
    """The eight values around each, (B, C, H, W, 8), at the borders mirrored."""
    square = _around(y, "reflect" if min(y.shape[-2:]) > 1 else "replicate")
    return torch.cat([square[..., :4], square[..., 5:]], -1)
