"""What can be exported of a model: fixed computations of tensors, without branches on data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mfimage.denoising.curve import NOISY, DenoisingCurve, PsnrCurve, curve_of
from mfimage.denoising.methods import is_cut, quick_methods, quick_results
from mfimage.errors import ModelError, UsageError, boundary
from mfimage.inputs import require_image_manifold, require_images
from mfimage.models import ChartedModel, GenerativeModel, ManifoldFlow
from mfimage.models.charts import Manifold
from mfimage.models.duals import Dual
from mfimage.models.flow import EXACT_DIM
from mfimage.models.geometry import metric_log_volume
from mfimage.ood.calibration import DetectorCalibration, parse_calibration
from mfimage.ood.detector import DETECTOR
from mfimage.ood.statistics import HUGE, finite
from mfimage.plugs.fixed import while_loop
from mfimage.pretrained import CALIBRATION, weights_hash

_SCORE = "reconstruction"  # the score that a program can compute

Function = Callable[..., Any]  # of a model and tensors, θ last where it is conditional, to one or several


@dataclass(frozen=True)
class Program:
    """A function of a model, with names for what goes in and comes out, each with the batch first."""

    function: Function
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    facts: dict[str, str] = field(default_factory=dict)  # what else a user should know


def program_of(model: GenerativeModel, what: str, onnx: bool = False) -> Program:
    """Find the program of a function of a model, one of `PROGRAMS`.

    Raises:
        UsageError: If it cannot be exported; the message says why.
        ModelError: If the model lacks what it needs.
    """
    made = PROGRAMS[what](model, onnx)
    return replace(made, inputs=(*made.inputs, "theta")) if model.conditional else made


def _encode(model: GenerativeModel, onnx: bool) -> Program:
    return Program(lambda m, *x: m.encode(*x), ("x",), ("u",))


def _decode(model: GenerativeModel, onnx: bool) -> Program:
    return Program(lambda m, *u: m.decode(*u), ("u",), ("x",))


def _project(model: GenerativeModel, onnx: bool) -> Program:
    return Program(lambda m, *x: m.project(*x), ("x",), ("projection",))


def _sample(model: GenerativeModel, onnx: bool) -> Program:
    def draw(model: GenerativeModel, z: Tensor, *theta: Tensor) -> Tensor:
        return model.shown.decode(model.push_forward(z, *theta), *theta)

    return Program(draw, ("z",), ("x",), {"z": "independent numbers of N(0, 1)"})


def _log_prob(model: GenerativeModel, onnx: bool) -> Program:
    if not isinstance(model, ManifoldFlow):
        return Program(lambda m, *x: m.log_prob(*x), ("x",), ("log_prob",))
    if model.dim > EXACT_DIM:
        raise UsageError(f"log-prob at d = {model.dim} is an estimate by random probes, no fixed computation")
    if type(model.chart).push_codes is Manifold.push_codes:
        raise UsageError(
            "log-prob of this manifold differentiates the decoder, which no exported program can"
        )
    volume = _pivots if onnx else metric_log_volume

    def log_prob(model: ManifoldFlow, x: Tensor, *theta: Tensor) -> Tensor:
        u = model.encode(x, *theta)
        directions = torch.eye(model.dim, dtype=u.dtype).expand(u.shape[0], -1, -1)
        j = model.chart.push_codes(Dual(u, directions), theta[0] if theta else None, rotated=True)
        rows = j.tangent.flatten(2).double()
        return model.density.log_prob(u, *theta).double() - volume(rows @ rows.mT)

    return Program(log_prob, ("x",), ("log_prob",), {"unit": "nats"})


def _pivots(gram: Tensor) -> Tensor:
    """½ log det G, (B,), by elimination: half the sum of the logarithms of its pivots.

    What `metric_log_volume` computes by a factorisation that ONNX has not.
    """
    last = gram.shape[-1]

    def eliminate(k: Tensor, rest: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        row = rest.index_select(1, k)
        pivot = row.index_select(2, k)
        return k + 1, rest - row.mT * row / pivot, total + pivot[:, 0, 0].log() / 2

    start = torch.zeros(1, dtype=torch.long), gram, gram.new_zeros(gram.shape[0])
    return while_loop(lambda k, rest, total: (k < last).all(), eliminate, start)[2]


def _denoise(model: GenerativeModel, onnx: bool) -> Program:
    require_images(model)
    if model.conditional:
        raise ModelError("a conditional model: images to be denoised come without parameters")
    if "tweedie" in quick_methods(model):
        raise UsageError(
            "denoise by tweedie follows the gradient of log_prob, which exported programs have not"
        )
    curve = curve_of(model)
    choice = None if curve is None else _Choice(curve)

    def remove(model: GenerativeModel, y: Tensor, sigma: Tensor) -> Tensor:
        results = {NOISY: y, **quick_results(y, model, sigma)}
        if choice is None:
            return results[quick_methods(model)[0]].clamp(0, 1)
        chosen = choice(is_cut(y), sigma).view(1, -1, 1, 1, 1).expand(1, *y.shape)
        return torch.stack([results[name] for name in choice.names]).gather(0, chosen)[0].clamp(0, 1)

    methods = quick_methods(model)[:1] if choice is None else choice.names
    facts = {"sigma": "of the noise in each image, where white is 1", "methods": ", ".join(methods)}
    return Program(remove, ("y", "sigma"), ("x",), facts)


class _Choice:
    """The place among `names` of the method that suits each image, as `DenoisingCurve.best` finds it."""

    def __init__(self, curve: DenoisingCurve) -> None:
        known = curve.whole.psnr
        self.names = [name for name in known if name != "projection" or "soft" not in known]
        self.curves = [self._rows(part) for part in (curve.whole, curve.cut)]

    def _rows(self, part: PsnrCurve) -> tuple[Tensor, Tensor]:
        """The log of each σ where the curve is known, (S,), and decibels there, (S, M)."""
        decibels = torch.tensor([part.psnr[name] for name in self.names], dtype=torch.float64)
        return torch.tensor(part.sigmas, dtype=torch.float64).log(), decibels.T.contiguous()

    def __call__(self, cut: Tensor, sigma: Tensor) -> Tensor:
        where = sigma.double().clamp_min(1e-9).log()[:, None]
        whole, clipped = (self._read(where, *rows).argmax(1) for rows in self.curves)
        return torch.where(cut, clipped, whole)

    @staticmethod
    def _read(where: Tensor, knots: Tensor, decibels: Tensor) -> Tensor:
        """Interpolate at places (B, 1); beyond the ends that of the end."""
        shares = ((where - knots[:-1]) / knots.diff()).clamp(0, 1)
        return decibels[0] + shares @ decibels.diff(dim=0)


def _score(model: GenerativeModel, onnx: bool) -> Program:
    require_image_manifold(model)
    if model.conditional:
        raise ModelError("a conditional model: images to be scored come without parameters")
    known = _calibration(model)
    if known is None:
        return Program(_error, ("x",), ("score",))
    scores, threshold, most = known.scores, known.threshold, len(known.scores) + 1
    facts = {"threshold": repr(threshold), "alpha": repr(known.alpha), "familiar_images": str(len(scores))}

    def judge(model: ChartedModel, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u = model.encode(x)
        left, rarity = x - model.decode(finite(u, HUGE)), model.density.log_prob(finite(u, HUGE))
        sound = torch.cat([u, left.flatten(1), rarity[:, None]], 1).isfinite().all(1)
        score = torch.where(sound, finite(left, 1e3).double().square().flatten(1).mean(1), torch.inf)
        above = (scores >= score[:, None]).sum(1)
        return score, (1 + above).double() / most, score > threshold

    return Program(judge, ("x",), ("score", "p_value", "strange"), facts)


def _error(model: GenerativeModel, x: Tensor) -> Tensor:
    """The mean squared error of the projection a value, (B,); see `ood.score`."""
    return (x - model.project(x)).square().flatten(1).mean(1).nan_to_num(torch.inf, torch.inf)


def _calibration(model: GenerativeModel) -> DetectorCalibration | None:
    """What was calibrated, if that is of the score that is exported."""
    stored = model.measured.get(DETECTOR)
    if stored is None:
        return None
    with boundary(ModelError, f"{CALIBRATION}: damaged: calibrate the model again"):
        known = parse_calibration(stored)
    if known.score != _SCORE:
        return None
    if known.model != weights_hash(model):
        raise ModelError("the calibration was made for another model: calibrate this one (mfimage calibrate)")
    return known


PROGRAMS: dict[str, Callable[[GenerativeModel, bool], Program]] = {
    "project": _project, "encode": _encode, "decode": _decode, "denoise": _denoise, "score": _score,
    "log-prob": _log_prob, "sample": _sample,
}  # fmt: skip
