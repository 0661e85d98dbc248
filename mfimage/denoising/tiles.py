"""Restore batches of images, whole or in overlapping tiles: denoise, fill in, or enlarge."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.denoising.curve import NOISY, Denoised, blind_sigma
from mfimage.denoising.examination import Examination, examine
from mfimage.denoising.removal import Evidence, estimate_noise, remove_noise, structure
from mfimage.denoising.restoring import enlarge, fill
from mfimage.denoising.uncertainty import calibration_of
from mfimage.errors import DataError, UsageError
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.noise import Gaussian, Noise

Everywhere: TypeAlias = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]

OVERLAP = 0.5  # share of a tile that its neighbour covers


@plainly
@torch.no_grad()
def in_tiles(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: tuple[int, int],
    overlap: float = OVERLAP,
    batch_size: int = 256,
) -> Tensor:
    """Apply a function of (N, C, h, w) → same shape to images (B, C, H, W), no smaller, in tiles (h, w).

    out = Σ_t w_t · function(x_t) / Σ_t w_t,   w = hann ⊗ hann,   hann_i = sin²(π (i + ½)/n)

    Of a tile its neighbour covers at least the share `overlap` in [0, 1): more is smoother and slower. The
    result is x itself, bit for bit, where the function returns what it is given.
    """
    height, width = tile
    if x.shape[-2] < height or x.shape[-1] < width:
        raise DataError(
            f"image: {x.shape[-2]} × {x.shape[-1]} pixels are less than a tile of {height} × {width}: "
            "enlarge it first"
        )
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap: a share from 0 to below 1, not {overlap}")
    tops, lefts = starts(x.shape[-2], height, overlap), starts(x.shape[-1], width, overlap)
    places = list(product(range(len(x)), tops, lefts))
    window = (hann(height)[:, None] * hann(width)).to(x.device)
    total = torch.zeros_like(x, dtype=torch.float64)  # in which w·x/w is x again, once it is rounded
    weight = torch.zeros_like(x[0, 0], dtype=torch.float64)
    for top, left in product(tops, lefts):
        weight[top : top + height, left : left + width] += window
    for begin in range(0, len(places), batch_size):
        part = places[begin : begin + batch_size]
        results = function(torch.stack([x[i, :, a : a + height, b : b + width] for i, a, b in part]))
        for (i, a, b), result in zip(part, results, strict=True):
            total[i, :, a : a + height, b : b + width] += window * result.to(total)
    return (total / weight).to(x.dtype)


def starts(length: int, tile: int, overlap: float) -> list[int]:
    """Choose where tiles begin on a line: first at 0, last flush with the end, spread evenly between.

    The positions are as few as allow neighbours to have at least the share `overlap` in common.
    """
    step = max(1, math.floor(tile * (1 - overlap)))
    count = 1 + math.ceil((length - tile) / step)
    return [round(i * (length - tile) / max(1, count - 1)) for i in range(count)]


def hann(length: int) -> Tensor:
    """Make a window sin²(π (i + ½)/n), shape (n,), float64: positive, and 1 with its copy moved by n/2."""
    return torch.sin(math.pi * (torch.arange(length, dtype=torch.float64) + 0.5) / length).square()


@dataclass(frozen=True, eq=False)
class Restored:
    """A batch before and after, on the CPU."""

    before: Tensor  # what was given, at the size of the result, (B, C, H, W)
    after: Tensor  # the result, in [0, 1]
    methods: list[str]  # by which each was made
    noise: list[Noise]  # that was assumed of each
    examination: Examination  # what happened to each
    deviation: Tensor | None = None  # of each value's error, if that was asked for, (B, C, H, W)


@dataclass(frozen=True, eq=False)
class Restorer:
    """Denoise, fill in or enlarge batches of images."""

    model: GenerativeModel
    method: str = "auto"  # see `curve.denoise_batch`
    sigma: float | None = None  # on the scale of [0, 1]; None: estimated, or, with a mask or a factor, none
    missing: Tensor | None = None  # pixels to be filled in, (H, W), bool
    factor: int | None = None  # by which images are enlarged
    tiled: bool = False  # whether images are larger than the model's
    batch_size: int = 256  # images, or tiles, at a time
    uncertain: bool = False  # whether results come with their deviations
    advance: Callable[[int], None] = lambda count: None  # told how many images, or tiles, are done
    noise: Noise | None = None  # in the place of sigma; None: estimated, if there is no sigma
    seen: Evidence | None = None  # of the noise in a run's images, to which each call adds

    def __post_init__(self) -> None:
        if self.inverse and self.method not in ("auto", "map"):
            raise UsageError(
                "--mask and --super draw the most probable image: they go with --method map only"
            )
        if self.factor is not None and (self.missing is not None or self.tiled):
            raise UsageError("--super goes with neither --mask nor --tile")
        if self.noise is not None and (self.inverse or self.sigma is not None):
            raise UsageError("--noise goes with neither --sigma, --mask nor --super")
        if self.uncertain and self.inverse:
            raise UsageError("--uncertainty goes with neither --mask nor --super")
        if self.uncertain:
            calibration_of(self.model).require(self.method)

    @property
    def inverse(self) -> bool:
        """Whether something is missing, and noise not all that there is."""
        return self.missing is not None or self.factor is not None

    def steps(self, height: int, width: int) -> int:
        """Count what `advance` is told of an image of this size: one, or its tiles."""
        tall, wide = self.model.shape[-2:]
        if not self.tiled or height < tall or width < wide:
            return 1
        return len(starts(height, tall, OVERLAP)) * len(starts(width, wide, OVERLAP))

    def __call__(self, y: Tensor) -> Restored:
        """Restore images (B, C, H, W) in [0, 1] of the size that the attributes say."""
        if self.factor is not None:
            return self._enlarged(y, self.factor)
        if self.missing is not None:
            return self._filled(y, self.missing)
        denoised = self._denoised(y, self.noise if self.sigma is None else Gaussian((self.sigma, self.sigma)))
        restored = self._examined(y, denoised)
        if not self.uncertain:
            return restored
        return replace(restored, deviation=denoised.deviation(y, calibration_of(self.model)).cpu())

    def _denoised(self, y: Tensor, noise: Noise | None) -> Denoised:
        if not self.tiled:
            known = None if noise is None else [noise] * len(y)
            denoised = remove_noise(y, self.model, known, self.method, self.batch_size, self.seen)
            self.advance(len(y))
            return denoised
        parts = [self._in_tiles(one, noise) for one in y.split(1)]
        image, sigma = (torch.cat([getattr(part, name) for part in parts]) for name in ("image", "sigma"))
        methods, found = [part.methods[0] for part in parts], [part.noise[0] for part in parts]
        return Denoised(image, sigma, methods, found)

    def _in_tiles(self, y: Tensor, noise: Noise | None) -> Denoised:
        """Denoise one large image, all tiles of the noise that the whole has, and so by one method."""
        assumed = noise or estimate_noise(y, self.model, self.seen)[0]
        done = self._of_noise(y, assumed, self._stepwise)
        if noise is None and structure(y, done, self.seen):
            sigma = float(blind_sigma(y, self.model))
            done = self._of_noise(y, Gaussian((sigma, sigma)), self._everywhere)
        return done

    def _of_noise(self, y: Tensor, noise: Noise, everywhere: Everywhere) -> Denoised:
        parts: list[Denoised] = []

        def function(x: Tensor) -> Tensor:
            parts.append(remove_noise(x, self.model, [noise] * len(x), self.method, self.batch_size))
            return parts[-1].image

        image = everywhere(function, y)
        sigma = torch.cat([part.sigma for part in parts]).square().mean(0, keepdim=True).sqrt()
        return Denoised(image, sigma, parts[0].methods[:1], [noise])

    def _filled(self, y: Tensor, missing: Tensor) -> Restored:
        mask = missing.to(y.device).expand(len(y), 1, -1, -1)
        both = torch.cat([y, mask.to(y)], 1)  # so that a tile brings its part of the mask

        def function(x: Tensor) -> Tensor:
            return torch.cat([fill(x[:, :-1], x[:, -1:] > 0.5, self.model, self.sigma), x[:, -1:]], 1)

        x_hat = self._stepwise(function, both)[:, :-1]
        hidden = y.masked_fill(mask, 0.5)
        known = x_hat.where(mask & x_hat.isfinite(), hidden)  # what a hole holds is neither noise nor strange
        return replace(self._examined(known, self._drawn(x_hat)), before=hidden.cpu())

    def _enlarged(self, y: Tensor, factor: int) -> Restored:
        x_hat = self._stepwise(lambda x: enlarge(x, factor, self.model, self.sigma), y)
        smooth = F.interpolate(y, scale_factor=factor, mode="bicubic", align_corners=False).clamp(0, 1)
        return self._examined(smooth, self._drawn(x_hat))

    def _drawn(self, x_hat: Tensor) -> Denoised:
        count, sigma = len(x_hat), self.sigma or 0.0
        noise: list[Noise] = [Gaussian((sigma, sigma))] * count
        return Denoised(x_hat, x_hat.new_full((count,), sigma), ["map"] * count, noise)

    def _stepwise(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply a function in batches, or in tiles, and tell how many are done."""

        def told(part: Tensor) -> Tensor:
            result = function(part)
            self.advance(len(part))
            return result

        return self._everywhere(told, x)

    def _everywhere(
        self, function: Callable[[Tensor], Tensor], x: Tensor, overlap: float = OVERLAP
    ) -> Tensor:
        """Apply a function in batches, or in tiles."""
        height, width = self.model.shape[-2:]
        if self.tiled:
            return in_tiles(function, x, (height, width), overlap, self.batch_size)
        return torch.cat([function(part) for part in x.split(self.batch_size)])

    def _examined(self, y: Tensor, denoised: Denoised) -> Restored:
        """Look at results; an image whose result is not finite is left as it is, which is said of it."""
        sound = denoised.image.flatten(1).isfinite().all(1)
        after = denoised.image.where(sound.view(-1, 1, 1, 1), y).clamp(0, 1)
        methods = [m if s else NOISY for m, s in zip(denoised.methods, sound.tolist(), strict=True)]

        def project(x: Tensor) -> Tensor:
            return self._everywhere(self.model.project, x, 0.0)  # means of several fit what none does

        examination = examine(y, after, self.model, denoised.sigma, project, not self.inverse, denoised.noise)
        strange = examination.strangeness.where(sound, torch.inf).nan_to_num(torch.inf, torch.inf)
        told = replace(examination, strangeness=strange)
        return Restored(y.cpu(), after.cpu(), methods, denoised.noise, told)
