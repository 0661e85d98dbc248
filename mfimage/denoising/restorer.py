"""Restore batches of images, whole or in tiles: denoise, fill in, or enlarge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.denoising.curve import NOISY, Denoised, blind_sigma
from mfimage.denoising.examination import Examination, examine
from mfimage.denoising.kinds import Evidence, estimate_noise, structure
from mfimage.denoising.removal import remove_noise, suited, without_lost
from mfimage.denoising.restoring import enlarge, fill
from mfimage.denoising.uncertainty import calibration_of
from mfimage.errors import UsageError
from mfimage.luma import in_luma
from mfimage.models import GenerativeModel
from mfimage.noise import Gaussian, Noise
from mfimage.tiles import OVERLAP, in_tiles, starts

Everywhere: TypeAlias = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


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
    def estimates(self) -> bool:
        """Whether the noise is estimated: it is not told, and is all that there is to remove."""
        return self.sigma is None and self.noise is None and not self.inverse

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

    def __call__(self, y: Tensor, luma: Sequence[bool] | None = None) -> Restored:
        """Restore images (B, C, H, W) in [0, 1] of the size that the attributes say.

        `luma` tells which of them had colours, see `luma.becomes_luma`: the noise that is told is that of
        their channels.
        """
        told = self._told(len(y) * [False] if luma is None else luma)
        if self.inverse:
            sigma = None if told is None else y.new_tensor([one.ranges[0][0] for one in told])
            return self._filled(y, sigma) if self.factor is None else self._enlarged(y, self.factor, sigma)
        denoised = self.denoised(y, told)
        restored = self._examined(y, denoised)
        if not self.uncertain:
            return restored
        return replace(restored, deviation=denoised.deviation(y, calibration_of(self.model)).cpu())

    def _told(self, luma: Sequence[bool]) -> list[Noise] | None:
        """The noise that is told, of each image; None if none is."""
        noise = self.noise if self.sigma is None else Gaussian((self.sigma, self.sigma))
        return None if noise is None else [in_luma(noise) if one else noise for one in luma]

    def denoised(self, y: Tensor, noise: Sequence[Noise] | None) -> Denoised:
        """Denoise images of the noise that each has, None: it is estimated; nothing is examined."""
        if not self.tiled:
            denoised = remove_noise(y, self.model, noise, self.method, self.batch_size, self.seen)
            self.advance(len(y))
            return denoised
        known = len(y) * [None] if noise is None else noise
        parts = [self._in_tiles(one, own) for one, own in zip(y.split(1), known, strict=True)]
        image, sigma = (torch.cat([getattr(part, name) for part in parts]) for name in ("image", "sigma"))
        methods, found = [part.methods[0] for part in parts], [part.noise[0] for part in parts]
        return Denoised(image, sigma, methods, found)

    def _in_tiles(self, y: Tensor, noise: Noise | None) -> Denoised:
        """Denoise one large image, all tiles of the noise that the whole has, and by one method."""
        assumed = noise or estimate_noise(y, self.model, self.seen)[0]
        done = self._of_noise(y, assumed, self._stepwise)
        if noise is None and structure(y, done, self.seen):
            sigma = float(blind_sigma(y, self.model))
            done = self._of_noise(y, Gaussian((sigma, sigma)), self._everywhere)
        return done

    def _of_noise(self, y: Tensor, noise: Noise, everywhere: Everywhere) -> Denoised:
        """Denoise one large image of this noise by one method, which under "auto" suits the whole of it."""
        method, sigma = suited(y, self.model, noise)
        method = method if self.method == "auto" else self.method
        if method == NOISY:
            return Denoised(everywhere(lambda x: x, without_lost(y, [noise])), sigma, [method], [noise])
        sigmas = list[Tensor]()

        def function(x: Tensor) -> Tensor:
            part = remove_noise(x, self.model, [noise] * len(x), method, self.batch_size)
            sigmas.append(part.sigma)
            return part.image

        image = everywhere(function, y)
        return Denoised(image, torch.cat(sigmas).square().mean(0, keepdim=True).sqrt(), [method], [noise])

    def _filled(self, y: Tensor, sigma: Tensor | None) -> Restored:
        missing = cast(Tensor, self.missing)
        mask = missing.to(y.device).expand(len(y), 1, -1, -1)

        def function(x: Tensor, level: Tensor | None) -> Tensor:
            return torch.cat([fill(x[:, :-1], x[:, -1:] > 0.5, self.model, level), x[:, -1:]], 1)

        both = torch.cat([y, mask.to(y)], 1)  # so that a tile brings its part of the mask
        x_hat = self._at_own(function, both, sigma)[:, :-1]
        hidden = y.masked_fill(mask, 0.5)
        known = x_hat.where(mask & x_hat.isfinite(), hidden)  # what a hole holds is neither noise nor strange
        return replace(self._examined(known, self._searched(x_hat, sigma)), before=hidden.cpu())

    def _enlarged(self, y: Tensor, factor: int, sigma: Tensor | None) -> Restored:
        def function(x: Tensor, level: Tensor | None) -> Tensor:
            return enlarge(x, factor, self.model, level)

        x_hat = self._at_own(function, y, sigma)
        smooth = F.interpolate(y, scale_factor=factor, mode="bicubic", align_corners=False).clamp(0, 1)
        return self._examined(smooth, self._searched(x_hat, sigma))

    def _at_own(
        self, function: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, sigma: Tensor | None
    ) -> Tensor:
        """Apply a function of images and their σ, or None, to those of each σ."""
        if sigma is None:
            return self._stepwise(partial(_with, function, None), x)
        results: list[Tensor] = [x] * len(x)
        for level in sigma.unique():
            rows = (sigma == level).nonzero().flatten()
            found = self._stepwise(partial(_with, function, level), x[rows])
            for i, one in zip(rows.tolist(), found, strict=True):
                results[i] = one
        return torch.stack(results)

    def _searched(self, x_hat: Tensor, sigma: Tensor | None) -> Denoised:
        level = x_hat.new_zeros(len(x_hat)) if sigma is None else sigma
        noise: list[Noise] = [Gaussian((one, one)) for one in level.tolist()]
        return Denoised(x_hat, level, ["map"] * len(x_hat), noise)

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

        examination = examine(y, after, self.model, denoised.sigma, project, not self.inverse, denoised)
        strange = examination.strangeness.where(sound.cpu(), torch.inf).nan_to_num(torch.inf, torch.inf)
        told = replace(examination, strangeness=strange)
        return Restored(y.cpu(), after.cpu(), methods, denoised.noise, told)


def _with(function: Callable[[Tensor, Tensor | None], Tensor], sigma: Tensor | None, x: Tensor) -> Tensor:
    return function(x, sigma)
