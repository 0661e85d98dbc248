"""What a denoiser did, and whether the image was one that its model knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mfimage.denoising.curve import NOISY, Denoised
from mfimage.denoising.familiarity import parts_of, strangeness
from mfimage.denoising.removal import remove_noise, without_lost
from mfimage.eval.image_metrics import mse
from mfimage.models import GenerativeModel
from mfimage.modes import plainly
from mfimage.noise import Gaussian, Noise

_DRAWN = (NOISY, "refined", "soft")  # methods after which a result is as the network draws it


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
    done: Denoised | None = None,
) -> Examination:
    """Compare an input with its result.

    Args:
        y: Noisy images (B, C, H, W) in [0, 1].
        x_hat: What a denoiser made of them.
        model: Whose manifold is meant.
        sigma: Noise in y, one or an image each, shape (B,).
        project: Onto the manifold, for images of another size than the model's; `model.project` if None.
        judged: Whether it is asked how strange they are; what is filled in or enlarged was not measured.
        done: What the denoiser found and drew, where the noise may be other than Gaussian.
    """
    onto = project or model.project
    projected = onto(y)
    deviation = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).expand(len(y))
    score, strange = mse(y, projected), None
    if judged:
        strange = strangeness(y, model, deviation) if done is None else how_strange(y, model, done)
    return Examination(
        deviation,
        score.sqrt(),
        (x_hat - y).flatten(1).norm(dim=1),
        score,
        mse(x_hat, onto(x_hat)),
        torch.zeros(len(y)) if strange is None else strange,
    )


@plainly
@torch.no_grad()
def how_strange(y: Tensor, model: GenerativeModel, done: Denoised) -> Tensor | None:
    """Say how unfamiliar images (B, C, H, W) are, by the noise that was found in each; see `strangeness`.

    With noise other than Gaussian an image is judged by its result; what another method drew than the network
    that knows the noise is drawn by that one again. It is 0 where the model cannot tell with such noise.
    """
    gaussian = [one.kind == Gaussian.kind for one in done.noise]
    usable = [
        is_plain or not model.noise_aware or method in _DRAWN
        for is_plain, method in zip(gaussian, done.methods, strict=True)
    ]
    found: list[Tensor | None] = [None] * len(y)
    for plain in (True, False):
        rows = [i for i in range(len(y)) if gaussian[i] == plain and usable[i]]
        if rows:
            given = without_lost(y[rows], [done.noise[i] for i in rows])
            drawn = None if plain else done.image[rows] if model.noise_aware else given
            strange = strangeness(given, model, done.sigma[rows], drawn)
            for i, one in zip(rows, strange if strange is not None else [None] * len(rows), strict=True):
                found[i] = one
    for i in range(len(y)):
        if not usable[i]:
            found[i] = _drawn_again(y[i], model, done.sigma[i], done.noise[i])
    if all(one is None for one in found):
        return None
    return torch.stack([torch.zeros(()) if one is None else one for one in found])


def _drawn_again(y: Tensor, model: GenerativeModel, sigma: Tensor, noise: Noise) -> Tensor | None:
    """Judge an image (C, H, W) by what the network that knows the noise draws of its parts."""
    parts = parts_of(y, (model.shape[-2], model.shape[-1]))
    known = [noise] * len(parts)
    drawn = remove_noise(parts, model, known, "soft").image
    strange = strangeness(without_lost(parts, known), model, sigma.expand(len(parts)), drawn)
    return None if strange is None else strange.median()
