"""What a denoiser did, and whether the image was one that its model knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mfimage.denoising.familiarity import strangeness
from mfimage.denoising.removal import without_lost
from mfimage.eval.image_metrics import mse
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.noise import Noise


@dataclass(frozen=True, eq=False)
class Examination:
    """What happened to each image of a batch.

    Attributes:
        sigma: Noise that was assumed, shape (B,), on the scale of [0, 1].
        residual: Root mean square of y − project(y) a value, shape (B,): about σ for images of the manifold.
        distance: ‖x̂ − y‖, shape (B,): how far the image was moved, the root of the summed squares.
        score: Out-of-distribution score of the input, ‖y − project(y)‖² a value, shape (B,), noise included.
        score_after: The same of the result.
        strangeness: See `familiarity.strangeness`, shape (B,): above 1 is far, ∞ where the model gave no
            finite numbers, and 0 where what is familiar was never measured.
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
    project: Callable[[Tensor], Tensor] | None = None,
    judged: bool = True,
    noise: Sequence[Noise] | None = None,
) -> Examination:
    """Compare an input with its result.

    Args:
        y: Noisy images (B, C, H, W) in [0, 1].
        x_hat: What a denoiser made of them.
        model: Whose manifold is meant.
        sigma: Noise in y, one or an image each, shape (B,).
        project: Onto the manifold, for images of another size than the model's; `model.project` if None.
        judged: Whether it is asked how strange they are; what is filled in or enlarged was not measured.
        noise: Of each image; values that it has lost do not make it strange.
    """
    onto = project or model.project
    projected = onto(y)
    deviation = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).expand(len(y))
    score, strange = mse(y, projected), None
    if judged:
        strange = strangeness(y if noise is None else without_lost(y, noise), model, deviation)
    return Examination(
        deviation,
        score.sqrt(),
        (x_hat - y).flatten(1).norm(dim=1),
        score,
        mse(x_hat, onto(x_hat)),
        torch.zeros(len(y)) if strange is None else strange,
    )
