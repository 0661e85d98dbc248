"""One request to denoise, on batches of images: by any method, in tiles, through a mask, or enlarged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.denoising.choosing import Denoised, apply, stored_curve
from mfimage.denoising.methods import METHODS
from mfimage.denoising.report import Report, examine, stored_familiar
from mfimage.denoising.restoring import enlarge, fill
from mfimage.denoising.sigma import wavelet_sigma
from mfimage.denoising.tiles import in_tiles
from mfimage.errors import UsageError
from mfimage.models import GenerativeModel


@dataclass(frozen=True, eq=False)
class Done:
    """What was made of a batch.

    Attributes:
        before: What was given, at the size of the result, shape (B, C, H, W), on the CPU.
        after: The result, in [0, 1], on the CPU.
        methods: By which each was made.
        report: What happened to each.
    """

    before: Tensor
    after: Tensor
    methods: list[str]
    report: Report


@dataclass(frozen=True, eq=False)
class Work:
    """A request.

    Attributes:
        model: A manifold of images.
        method: See `choosing.apply`.
        sigma: Noise on the scale of [0, 1]; None to estimate it, or, with a mask or a factor, for none.
        missing: Pixels to be filled in, (H, W), bool; None for none.
        factor: By which images are enlarged; None for not.
        tiled: Whether images are larger than the model's.
        batch_size: Images, or tiles, at a time.
    """

    model: GenerativeModel
    method: str = "auto"
    sigma: float | None = None
    missing: Tensor | None = None
    factor: int | None = None
    tiled: bool = False
    batch_size: int = 256

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.method not in ("auto", *METHODS):
            raise UsageError(f"--method {self.method}: choose from auto, {', '.join(METHODS)}")
        if self.sigma is not None and not 0 < self.sigma <= 1:
            raise UsageError(
                f"--sigma {self.sigma}: a deviation above 0 on the scale of [0, 1] (8-bit values: over 255)"
            )
        inverse = self.missing is not None or self.factor is not None
        if inverse and self.method not in ("auto", "map"):
            raise UsageError(
                "--mask and --super draw the most probable image: they go with --method map only"
            )
        if self.factor is not None and (self.missing is not None or self.tiled):
            raise UsageError("--super goes with neither --mask nor --tile")

    def __call__(self, y: Tensor) -> Done:
        """Treat images (B, C, H, W) in [0, 1], of the size that the request says."""
        if self.factor is not None:
            return self._enlarged(y, self.factor)
        if self.missing is not None:
            return self._filled(y, self.missing)
        if self.tiled:
            parts = [self._in_tiles(one[None]) for one in y]
            x_hat = torch.cat([part.image for part in parts])
            sigma = torch.cat([part.sigma for part in parts])
            return self._done(y, x_hat, sigma, [part.methods[0] for part in parts])
        given = None if self.sigma is None else y.new_full((len(y),), self.sigma)
        done = apply(y, self.model, given, self.method, self.batch_size)
        return self._done(y, done.image, done.sigma, done.methods)

    def _in_tiles(self, y: Tensor) -> Denoised:
        """Treat one large image, all tiles at its noise, and so by one method."""
        height, width = self.model.shape[-2:]
        curve = stored_curve(self.model)
        if self.sigma is not None:
            sigma = y.new_full((1,), self.sigma)
        else:
            sigma = wavelet_sigma(y) if curve is None else curve.blind(y)
        methods: list[str] = []

        def tiles(x: Tensor) -> Tensor:
            done = apply(x, self.model, sigma.expand(len(x)), self.method, self.batch_size)
            methods.extend(done.methods)
            return done.image

        image = in_tiles(tiles, y, (height, width), batch_size=self.batch_size)
        return Denoised(image, sigma, methods[:1])

    def _filled(self, y: Tensor, missing: Tensor) -> Done:
        mask = missing.to(y.device).expand(len(y), 1, -1, -1)
        both = torch.cat([y, mask.to(y)], 1)  # so that a tile brings its part of the mask

        def function(x: Tensor) -> Tensor:
            return torch.cat([fill(x[:, :-1], x[:, -1:] > 0.5, self.model, self.sigma), x[:, -1:]], 1)

        x_hat = self._everywhere(function, both)[:, :-1]
        known = x_hat.where(mask, y)  # what a hole holds is neither noise nor strange
        done = self._done(known, x_hat, y.new_full((len(y),), self.sigma or 0.0), ["map"] * len(y))
        return Done(y.masked_fill(mask, 0.5).cpu(), done.after, done.methods, done.report)

    def _enlarged(self, y: Tensor, factor: int) -> Done:
        x_hat = self._everywhere(lambda x: enlarge(x, factor, self.model, self.sigma), y)
        smooth = F.interpolate(y, scale_factor=factor, mode="bicubic", align_corners=False).clamp(0, 1)
        return self._done(smooth, x_hat, y.new_full((len(y),), self.sigma or 0.0), ["map"] * len(y))

    def _everywhere(self, function: Callable[[Tensor], Tensor], x: Tensor, overlap: float = 0.5) -> Tensor:
        """Apply a function in batches, or in tiles."""
        height, width = self.model.shape[-2:]
        if self.tiled:
            return in_tiles(function, x, (height, width), overlap, self.batch_size)
        return torch.cat([function(part) for part in x.split(self.batch_size)])

    def _done(self, y: Tensor, x_hat: Tensor, sigma: Tensor, methods: list[str]) -> Done:
        after = x_hat.clamp(0, 1)

        def project(x: Tensor) -> Tensor:
            return self._everywhere(self.model.project, x, 0.0)  # means of several fit what none does

        report = examine(y, after, self.model, sigma, stored_familiar(self.model), project)
        return Done(y.cpu(), after.cpu(), methods, report)
