"""How far a result may be from the truth: a standard deviation for each value, learned from images held out.

No denoiser but the posterior mean itself has an error of known form, and none of ours is it exactly: so the
deviation is measured. It follows from what the result, and what was taken away, look like around a value.
Beside that σ² ∂x̂/∂y, the posterior's variance if x̂ were its mean, told nothing new (benchmarks/README.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mfimage.errors import ModelError, boundary
from mfimage.files import whole
from mfimage.models import GenerativeModel
from mfimage.pretrained import CALIBRATION

UNCERTAINTY = "uncertainty"  # the section of `model.measured` that `Calibration` gives
LEAST = 0.005  # σ below which deviations are those at this σ
_PIXELS = 10_000  # values to which deviations are fitted at a σ
_ROUNDS = 20  # of the fit, which by then stands still
_SHARES = ((1, 0.6827, 4.0), (2, 0.9545, 3.0))  # deviations, share of a normal law within, 1 over its leeway
_SMALL = 1e-3  # of the mean error: what differs by less is not told apart, exact values least of all
_FAR = 9.0  # beyond black and white, where a diverged result is looked at no closer
_FEATURES = 8


def describe(y: Tensor, x_hat: Tensor, sigma: Tensor) -> Tensor:
    """Describe what is around each value, from noisy images and results (B, C, H, W) and σ, (B,).

    1, how many σ it lies beyond black and beyond white, logarithms of its distance from both, of the variance
    of the result over 3 × 3 pixels, and of the mean square of what was taken away over 3 × 3 and 7 × 7.

    Returns:
        (B, C, H, W, 8).
    """
    sigma, x_hat = sigma.clamp_min(LEAST).view(-1, 1, 1, 1), x_hat.clamp(-_FAR, 1 + _FAR)
    cut, removed = x_hat.clamp(0, 1), (y - x_hat).square()
    variance = (_around(cut.square(), 3) - _around(cut, 3).square()).clamp_min(0)
    parts = [
        torch.ones_like(y),
        (x_hat / sigma).clamp(-3, 0.5),
        ((1 - x_hat) / sigma).clamp(-3, 0.5),
        (cut + 0.01).log(),
        (1.01 - cut).log(),
        (variance + 1e-5).log(),
        *((_around(removed, side) + (0.01 * sigma).square()).log() for side in (3, 7)),
    ]
    return torch.stack(parts, -1)


def _around(x: Tensor, side: int) -> Tensor:
    """Average over squares of some pixels a side, at the borders over what there is of them."""
    return F.avg_pool2d(x, side, 1, side // 2, count_include_pad=False)


@dataclass(frozen=True)
class Spread:
    """The deviation of a method's errors, fitted at some levels of noise.

    std = exp(w(σ) · features),   w linear in log σ between the levels, and beyond them that of the end

    It is at most what all but one in a thousand values had that it was fitted to.
    """

    sigmas: tuple[float, ...]  # rising
    weights: tuple[tuple[float, ...], ...]  # w at each
    most: tuple[float, ...]  # the largest deviation at each

    def __call__(self, y: Tensor, x_hat: Tensor, sigma: Tensor) -> Tensor:
        """Give the deviation, (B, C, H, W), of results, as `describe` takes them."""
        where, known = sigma.clamp_min(LEAST).log().cpu().numpy(), np.log(self.sigmas)
        columns = [np.interp(where, known, column) for column in zip(*self.weights, strict=True)]
        weights = torch.from_numpy(np.stack(columns, 1)).to(y).view(-1, 1, 1, 1, _FEATURES)
        most = torch.from_numpy(np.interp(where, known, np.log(self.most))).to(y).view(-1, 1, 1, 1)
        return torch.minimum((describe(y, x_hat, sigma) * weights).sum(-1), most).exp()


@dataclass(frozen=True)
class Calibration:
    """The deviations of a model's methods, for images with all their noise and for those cut to [0, 1]."""

    whole: Mapping[str, Spread]
    cut: Mapping[str, Spread]

    def __call__(
        self, y: Tensor, x_hat: Tensor, sigma: Tensor, methods: Sequence[str], cut: Tensor
    ) -> Tensor:
        """Give the deviation of results, each by its method and as its input is cut, (B,), or not.

        A result that is not finite is that of no method: the deviation is that of the image as it is.
        ModelError where there is none for a method.
        """
        sound = x_hat.flatten(1).isfinite().all(1)
        x_hat = x_hat.where(sound.view(-1, 1, 1, 1), y)
        methods = [m if s else "noisy" for m, s in zip(methods, sound.tolist(), strict=True)]
        out, kinds = torch.empty_like(y), list(zip(methods, cut.tolist(), strict=True))
        for method, is_cut in sorted(set(kinds)):
            self.require(method)
            known = self.cut if is_cut else self.whole
            rows = torch.tensor([kind == (method, is_cut) for kind in kinds], device=y.device)
            out[rows] = known[method](y[rows], x_hat[rows], sigma[rows])
        return out

    def require(self, method: str) -> None:
        """Raise ModelError where nothing is known of a method; "auto" takes none but those that are known."""
        if method != "auto" and not (method in self.cut and method in self.whole):
            raise ModelError(
                f"how far results of method {method} may be from the truth was not measured: choose from "
                f"{', '.join(['auto', *sorted(set(self.whole) - {'noisy'})])}"
            )


class Collector:
    """Fits the deviations of methods one level of noise after the other, rising, as errors come in."""

    def __init__(self) -> None:
        self.found: dict[str, list[tuple[float, tuple[float, ...], float]]] = {}

    def __call__(self, method: str, sigma: float, y: Tensor, x_hat: Tensor, x: Tensor) -> None:
        """Take results (N, C, H, W) of a method, from y with noise σ, of which the truth is x."""
        generator = torch.Generator().manual_seed(0)
        rows = torch.randint(x.numel(), (min(_PIXELS, x.numel()),), generator=generator).to(x.device)
        features = describe(y, x_hat, y.new_full((len(y),), sigma)).flatten(0, -2)[rows]
        errors = (x_hat.clamp(0, 1) - x).abs().flatten()[rows]
        weights = fit_spread(features, errors)
        most = float((features.double() @ weights).quantile(0.999).exp())
        rounded = tuple(round(value, 5) for value in weights.tolist())
        self.found.setdefault(method, []).append((sigma, rounded, min(max(most, 1e-6), 1.0)))

    def spreads(self) -> dict[str, Spread]:
        """What was fitted, by method."""
        return {name: Spread(*map(tuple, zip(*found, strict=True))) for name, found in self.found.items()}


def fit_spread(features: Tensor, errors: Tensor) -> Tensor:
    """Fit w of std = exp(w · features), so that errors lie within 1 and 2 std as often as normal ones.

    w = argmin Σ_k c_k Σ_i ρ_k(log |e_i| − log k − w·f_i),   ρ_k(r) = max(q_k r, (q_k − 1) r),  k = 1, 2

    at q = 68.27 % and 95.45 %: quantile regression of the logarithm. At its minimum the shares are exact or,
    where errors are not normal, off by amounts in the ratio 4 to 3. It does not mind errors that are far
    out, or exactly 0. Found by weighted least squares: |r| ≤ r²/2a + a/2, a = |r| of the round before.
    Koenker, Bassett, Regression quantiles, 1978; Hunter, Lange, Quantile regression via MM, 2000.

    Args:
        features: (N, F), the first of them 1.
        errors: |x̂ − x|, (N,).

    Returns:
        w, (F,), float64.
    """
    f, e = features.double(), errors.double()
    target = (e + _SMALL * e.mean() + 1e-9).log()
    ridge = 1e-6 * len(f) * torch.eye(f.shape[1], dtype=f.dtype, device=f.device)
    w = torch.zeros(f.shape[1], dtype=f.dtype, device=f.device)
    w[0] = target.median()
    for _ in range(_ROUNDS):
        matrix, vector = ridge.clone(), torch.zeros_like(w)
        for deviations, share, leeway in _SHARES:
            wanted = target - math.log(deviations)
            weight = 1 / (leeway * ((wanted - f @ w).abs() + 0.01))
            matrix += f.mT @ (f * weight[:, None])
            vector += f.mT @ (weight * wanted) + (2 * share - 1) / leeway * f.sum(0)
        w = torch.linalg.solve(matrix, vector)
    return w


def store(model: GenerativeModel, whole: Collector, cut: Collector) -> None:
    """Keep with a model what was fitted."""
    model.measured[UNCERTAINTY] = asdict(Calibration(whole.spreads(), cut.spreads()))


def calibration_of(model: GenerativeModel) -> Calibration:
    """Return what a model knows of its errors; ModelError if that was never measured, or is damaged."""
    stored = model.measured.get(UNCERTAINTY)
    if stored is None:
        raise ModelError(
            "how far this model's results may be from the truth was not measured at the end of its training: "
            "train it anew"
        )
    with boundary(ModelError, f"{CALIBRATION}: the model's uncertainty is damaged"):
        return Calibration(*({m: _read(s) for m, s in stored[part].items()} for part in ("whole", "cut")))


def _read(stored: dict[str, Any]) -> Spread:
    sigmas = tuple(float(value) for value in stored["sigmas"])
    weights = tuple(tuple(float(value) for value in row) for row in stored["weights"])
    most = tuple(float(value) for value in stored["most"])
    if not sigmas or not len(sigmas) == len(weights) == len(most) or {*map(len, weights)} != {_FEATURES}:
        raise ValueError("lengths differ")
    if not np.isfinite([*sigmas, *most]).all() or not np.isfinite(weights).all():
        raise ValueError("numbers are not finite")
    if min(*sigmas, *most) <= 0:
        raise ValueError("a deviation is not positive")
    return Spread(sigmas, weights, most)


def save_maps(deviation: Tensor, paths: Sequence[Path]) -> None:
    """Write maps (N, C, H, W) as TIFF files of floats, of colours the root mean square, each whole or not."""
    for one, path in zip(deviation.float().square().mean(1).sqrt(), paths, strict=True):
        with whole(path) as temporary:
            Image.fromarray(one.cpu().numpy()).save(temporary, format="TIFF")
