"""What a denoiser did, and whether the image was one that its model knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mfimage.errors import ModelError, boundary
from mfimage.eval.image_metrics import mse
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.pretrained import CALIBRATION

USUAL = "familiar"  # the section of `model.measured` that `measure_misfit` gives
_CELLS = 7  # blocks along the shorter side of the model's images, of which the coarse picture is made
_SHARE = 0.25  # of the coarse picture's variance that is off the manifold, at which any image is far


@dataclass(frozen=True, eq=False)
class Examination:
    """What happened to each image of a batch.

    Attributes:
        sigma: Noise that was assumed, shape (B,), on the scale of [0, 1].
        residual: Root mean square of y − project(y) a value, shape (B,): about σ for images of the manifold.
        distance: ‖x̂ − y‖, shape (B,): how far the image was moved, the root of the summed squares.
        score: Out-of-distribution score of the input, ‖y − project(y)‖² a value, shape (B,), noise included.
        score_after: The same of the result.
        strangeness: Misfit of the coarse picture over its limit, shape (B,): above 1 is far, and ∞ where the
            model gave no finite numbers.
    """

    sigma: Tensor
    residual: Tensor
    distance: Tensor
    score: Tensor
    score_after: Tensor
    strangeness: Tensor

    def messages(self, names: Sequence[str], changed: Sequence[bool] | None = None) -> list[str]:
        """Say in words, an image each, what is wrong; empty where nothing is."""
        changed = [True] * len(names) if changed is None else changed
        return [
            _message(name, float(s), new)
            for name, s, new in zip(names, self.strangeness, changed, strict=True)
        ]


def _message(name: str, strangeness: float, changed: bool) -> str:
    if strangeness <= 1:
        return ""
    what = "the result may be invented" if changed else "it is left as it is"
    if not math.isfinite(strangeness):
        return f"{name}: the model gives no finite numbers for it: {what}"
    return f"{name}: far from what the model was trained on ({strangeness:.1f} times the limit): {what}"


@plainly
@torch.no_grad()
def examine(
    y: Tensor,
    x_hat: Tensor,
    model: GenerativeModel,
    sigma: Tensor | float,
    usual: float | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Examination:
    """Compare an input with its result.

    Args:
        y: Noisy images (B, C, H, W) in [0, 1].
        x_hat: What a denoiser made of them.
        model: Whose manifold is meant.
        sigma: Noise in y, one or an image each, shape (B,).
        usual: See `usual_misfit`; None if it is not known.
        project: Onto the manifold, for images of another size than the model's; `model.project` if None.
    """
    onto = project or model.project
    projected = onto(y)
    deviation = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).expand(len(y))
    score = mse(y, projected)
    return Examination(
        deviation,
        score.sqrt(),
        (x_hat - y).flatten(1).norm(dim=1),
        score,
        mse(x_hat, onto(x_hat)),
        strangeness(y, y - projected, deviation, (model.shape[-2], model.shape[-1]), usual),
    )


@plainly
@torch.no_grad()
def measure_misfit(clean: Tensor, model: GenerativeModel) -> dict[str, float]:
    """Measure what misfit is usual on clean images (N, C, H, W) of the model's size that it has not seen.

    "score" is the mean of ‖x − project(x)‖² a value, "coarse" what 99 % stay below with the mean r² of
    `strangeness`.
    """
    projected = torch.cat([model.project(part) for part in clean.split(256)])
    coarse = _coarse(clean - projected, min(model.shape[-2:])).square().flatten(1).mean(1)
    return {"score": float(mse(clean, projected).mean()), "coarse": float(coarse.double().quantile(0.99))}


def usual_misfit(model: GenerativeModel) -> float | None:
    """Return the coarse misfit that is usual for a model, None if never measured; ModelError if damaged."""
    stored = model.measured.get(USUAL)
    with boundary(ModelError, f"{CALIBRATION}: what is usual for the model is damaged"):
        usual = None if stored is None else float(stored["coarse"])
        if usual is not None and not 0 <= usual < math.inf:
            raise ValueError(f"{usual} is no mean square")
        return usual


def strangeness(y: Tensor, off: Tensor, sigma: Tensor, size: tuple[int, int], usual: float | None) -> Tensor:
    """Judge by the coarse picture whether images are far from the manifold: (B,), above 1 is far.

    With the means r of y − project(y), and t of y, over blocks of k × k pixels, k = side/7, n of them:
    strangeness = max(0, mean r² − (1 + 2 √(2/n)) σ²/k²) / limit,   limit = min(usual r², var(t)/4)

    Blocks, because noise averages out in them by k², while what the manifold cannot draw – another object –
    does not: of the error of clean familiar images they hold a tenth, of that of strange ones half. σ²/k² is
    what noise leaves at most, √(2/n) the relative deviation of its mean. At the limit the misfit is that of
    one in a hundred familiar images (if that is known), or a quarter of the coarse picture's variance. A
    large image is as strange as the median of its parts of the model's size (height, width), side by side.
    """
    count, side = len(y), min(size)
    y, off = _parts(y, size), _parts(off, size)
    sigma = sigma.repeat_interleave(len(y) // count)
    coarse = _coarse(off, side)
    noise = (1 + 2 * (2 / coarse[0].numel()) ** 0.5) * sigma.square() / max(1, side // _CELLS) ** 2
    excess = (coarse.square().flatten(1).mean(1) - noise).clamp_min(0)
    spread = _coarse(y, side).flatten(1).var(1, unbiased=False)
    limit = (_SHARE * spread).clamp_max(torch.inf if usual is None else usual)
    return (excess / limit.clamp_min(1e-6)).view(count, -1).median(1).values


def _parts(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut (B, C, H, W) into parts (B·n, C, h, w), leaving out what is over on the right and below."""
    cut = x.unfold(2, size[0], size[0]).unfold(3, size[1], size[1])
    return cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def _coarse(x: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(x, max(1, side // _CELLS))
