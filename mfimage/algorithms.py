"""The algorithms: what each builds, and the phases in which it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from mfimage import losses
from mfimage.config import AlgorithmName, Config, KindName
from mfimage.errors import UsageError
from mfimage.models.charts import Window
from mfimage.models.contest import Contest

DENOISING_NOISE = 0.1  # σ of the denoising flow where none is given: its paper's σ² = 0.01
MANIFOLD = ("manifold", "refinement")  # phases in which reconstruction is learned
SHOWN_NOISE = 0.2  # σ of the noise on sheets
CUT = 1 / 3  # share of noisy images that are cut to [0, 1] in training
WINDOW = 32  # pixels a side of large images that a step of this training looks at


class Batch(NamedTuple):
    """Some examples: data or codes, and what belongs to each."""

    x: Tensor  # data (B, …), or codes (B, d) in a phase on codes
    context: Tensor | None = None  # θ, shape (B, P)
    score: Tensor | None = None  # the simulator's joint score, shape (B, P)
    label: Any = None  # class indices, shape (B,)
    clean: Any = None  # what x was before noise was added
    noise: Any = None  # random numbers of the step, shape (B, d)
    sigma: Any = None  # deviation of the noise that was added to each, shape (B,), where it varies
    window: Any = None  # rows and columns of images that the step looks at; None: all
    kept: Any = None  # how many leading codes of each are kept, shape (B,); None: all


def _projections(model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
    """Data and their projections."""
    return torch.cat([batch.x, model.project(batch.x, batch.context)])


def _denoised(model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
    """Images with noise, and what the chart makes of them."""
    y = batch.x + SHOWN_NOISE * torch.randn(batch.x.shape, generator=generator, dtype=torch.float32).to(
        batch.x
    )
    return torch.cat([y, model.clear(y, SHOWN_NOISE)])


def _samples(model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
    """Twice as many samples as data."""
    theta = None if batch.context is None else torch.cat([batch.context, batch.context])
    return model.sample(2 * len(batch.x), generator, context=theta)


def _by_class(model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
    """Images, and the same in the order of the classes that they are taken for."""
    return torch.cat([batch.x, batch.x[model.classify(batch.x).argmax(1).argsort(stable=True)]])


Sheet: TypeAlias = Callable[[Any, Batch, torch.Generator], Tensor]
Loss: TypeAlias = Callable[[Any, Batch, Config], Tensor]
Disturb: TypeAlias = Callable[[Batch, Config, torch.Generator, int], Batch]


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one objective.

    `keep_best` tells whether the weights of the best validation are kept, or the last: where the objective
    holds the likelihood of codes that move, its values at different times do not compare.
    """

    name: str  # of its checkpoints and curves
    part: Callable[[Any], nn.Module | None]  # the submodule that is trained; without one there is no phase
    loss: Loss  # (submodule, batch, config) to a scalar
    start: Callable[[Any, Batch], None]  # first values, from many data or, on codes, from codes
    finish: Callable[[Any, Batch], None] | None = None  # a last touch, from the data of `start`
    codes: bool = False  # whether it is trained on the codes of a manifold that stands still, computed once
    points: Callable[[Any, Tensor, Tensor | None], Tensor] | None = None  # (model, data, θ): trained on these
    closed: bool = False  # whether `start` already solves it, without steps
    scores: bool = False  # whether its loss knows the simulator's joint score
    keep_best: bool = True
    disturb: Disturb | None = None  # (batch, config, generator, d) adds the step's random numbers
    within: Callable[[Any], nn.Module] | None = None  # what the loss is given instead of the submodule
    share: float = 0.25  # of the time of a training by the clock, in proportion to those of the other phases
    batch: float = 1.0  # examples a step, in units of the configuration's
    lr: float = 1.0  # learning rate, in units of the configuration's
    decay: float = 1.0  # weight decay, in units of the configuration's
    muon: bool = False  # whether it is trained with Muon, and not AdamW
    momentum: float = 0.9  # β₁ of AdamW
    added: bool = False  # whether it takes its share of the time from all others alike
    watched: str = ""  # what is measured of examples held out, where that is not the loss; in words, a space
    sheet: Sheet = _projections  # what is shown of images held out while it is trained
    shifts: bool = False  # whether images may be shifted a little: not where a density of pixels is learned
    nests: bool = False  # whether codes may be cut, so that their leading parts are manifolds too


@contextmanager
def awake(model: nn.Module, phase: Phase) -> Iterator[nn.Module]:
    """The part that a phase trains, an empty one if there is none; what wakes up for it sleeps again."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield phase.part(model) or nn.Module()
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


@dataclass(frozen=True)
class Algorithm:
    """A way to learn a manifold and a density: the kind of model that is built, and how it is trained."""

    kind: KindName
    phases: tuple[Phase, ...]


def _likelihood(module: Any, batch: Batch, config: Config) -> Tensor:
    """−log p, with the score's error where the data give a score and `scandal` asks for it."""
    if config.scandal and batch.context is not None and batch.score is not None:
        return losses.scandal(module, batch.x, batch.context, batch.score, config.scandal)
    return losses.negative_log_likelihood(module, batch.x, batch.context)


def _dequantised(batch: Batch, config: Config, generator: torch.Generator, dim: int) -> Batch:
    """Dequantise images, and add Gaussian noise if there is any."""
    x = batch.x
    if x.dim() == 4:
        x = losses.dequantise(x, torch.rand(x.shape, generator=generator, dtype=torch.float32).to(x))
    return _disturbed(batch._replace(x=x), config.sigma, generator)


def _noisy(batch: Batch, config: Config, generator: torch.Generator, dim: int) -> Batch:
    """Add Gaussian noise, of the paper's size if none is given."""
    return _disturbed(batch, config.sigma or DENOISING_NOISE, generator)


def _disturbed(batch: Batch, sigma: float, generator: torch.Generator) -> Batch:
    """Add noise N(0, σ²), and keep the clean data."""
    noise = torch.randn(batch.x.shape, generator=generator, dtype=torch.float32).to(batch.x)
    return batch._replace(x=batch.x + sigma * noise, clean=batch.x)


def _of_random_noise(batch: Batch, config: Config, generator: torch.Generator, dim: int) -> Batch:
    """Add noise of the configuration's model, whose numbers are random, to each image.

    Every third image is cut to [0, 1] after that, as files are: there black and white hold half the noise.
    Of large images a step looks at a window: what is learned of their noise is learned from more of them.
    """
    noisy, sigma = config.noise_model.add(batch.x, generator)
    cut = (
        (torch.rand(len(noisy), generator=generator, dtype=torch.float32) < CUT)
        .to(noisy.device)
        .view(-1, 1, 1, 1)
    )
    noisy = torch.where(cut, noisy.clamp(0, 1), noisy)
    return batch._replace(x=noisy, clean=batch.x, sigma=sigma, window=_window(noisy, generator))


def _window(x: Tensor, generator: torch.Generator) -> Window:
    """Draw a window of images (B, C, H, W), `WINDOW` pixels a side at most."""
    places = torch.rand(2, generator=generator, dtype=torch.float32)
    starts = [int(p * max(1, side - WINDOW + 1)) for p, side in zip(places, x.shape[-2:], strict=True)]
    rows, columns = (slice(start, start + WINDOW) for start in starts)
    return rows, columns


def _draw(batch: Batch, config: Config, generator: torch.Generator, dim: int) -> Batch:
    """Draw base noise, or probes, of the codes' length."""
    return batch._replace(
        noise=torch.randn(len(batch.x), dim, generator=generator, dtype=torch.float32).to(batch.x)
    )


def _whole(name: str, loss: Loss, disturb: Disturb | None = None, likelihood: bool = False) -> Phase:
    """A phase in which the whole model is trained at once."""
    return Phase(
        name, lambda m: m, loss, lambda m, b: m.initialise(b.x, b.context),
        scores=likelihood, keep_best=likelihood, disturb=disturb,
    )  # fmt: skip


def _bent(model: Any) -> Any:
    """The subspace of an image chart that dense pairs bend, None of other models."""
    subspace = getattr(model.chart, "subspace", None)
    return subspace if getattr(subspace, "dense", None) and len(model.shape) == 3 else None


def _dense(model: Any) -> nn.Module | None:
    subspace = _bent(model)
    return None if subspace is None else subspace.dense


def _rest(model: Any) -> nn.Module | None:
    """The chart of images, where it has more networks than the dense pairs."""
    return None if _bent(model) is None or model.chart.multiscale.straight else model.chart


_BENDING = Phase(
    "manifold", _dense, lambda m, b, c: m.head_error(b.x, b.kept).mean(),
    lambda m, b: m.chart.initialise(b.x),
    points=lambda m, x, c: m.chart.subspace.heads(m.chart.multiscale(x)[0]), within=_bent, batch=4.0, lr=2.0,
    decay=4.0, nests=True, share=0.16,
)  # fmt: skip
_MANIFOLD = Phase(
    "manifold", lambda m: m.chart if _bent(m) is None else None,
    lambda m, b, c: losses.reconstruction(m, b.x, b.context, b.kept), lambda m, b: m.chart.initialise(b.x),
    shifts=True, nests=True, share=0.6,
)  # fmt: skip
_REFINEMENT = replace(
    _MANIFOLD, name="refinement", part=_rest, start=lambda m, b: None, share=0.26,
    batch=2.0, lr=0.8, decay=4.0, finish=lambda m, b: m.chart.centre(b.x),
)  # fmt: skip
_NOISE = Phase(
    "noise", lambda m: m.chart.denoiser.net.requires_grad_() if m.noise_aware else None,
    lambda m, b, c: losses.noise_aware(m, b.x, b.clean, b.sigma, b.window),
    lambda m, b: m.chart.initialise_denoiser(b.x), disturb=_of_random_noise, within=lambda m: m.chart,
    batch=0.25, lr=5.0, decay=0.0, muon=True, share=0.4, shifts=True, sheet=_denoised,
    finish=lambda m, b: m.chart.fit_gains(b.x),
)  # fmt: skip
_DENSITY = Phase(
    "density", lambda m: m.density, _likelihood, lambda m, b: m.density.initialise(b.x),
    codes=True, points=lambda m, x, c: m.encode(x, c), scores=True, share=0.15, batch=2.0, sheet=_samples,
)  # fmt: skip
_CLASSES = replace(
    _DENSITY, name="classes", part=lambda m: m.classifier, start=lambda m, b: m.classifier.initialise(b.x),
    loss=lambda m, b, c: losses.misclassification(m, b.x, b.label), scores=False, share=0.03, sheet=_by_class,
)  # fmt: skip
_SHARPENING = Phase(
    "sharpening", lambda m: None if m.sharpener is None else Contest(m),
    lambda m, b, c: losses.sharpening(m, b.x, b.noise), lambda m, b: None, disturb=_draw, keep_best=False,
    share=0.4, added=True, batch=0.25, lr=1 / 6, decay=0.0, momentum=0.0, sheet=_samples,
    watched="squared error ", finish=lambda m, b: m.sharpened().chart.centre(b.x),
)  # fmt: skip
_ALTERNATING = _whole("alternating", lambda m, b, c: losses.alternating(m, b.x, b.context))
_SIMULTANEOUS = _whole("simultaneous", lambda m, b, c: losses.simultaneous(m, b.x, b.context, c.weight))
_TRANSPORT = _whole("transport", lambda m, b, c: losses.sinkhorn(m, b.x, b.noise, b.context), _draw)
_LIKELIHOOD = _whole("likelihood", _likelihood, _dequantised, likelihood=True)
_DENOISING = _whole(
    "denoising", lambda m, b, c: losses.denoising(m, b.x, b.clean, b.context, c.weight), _noisy
)
_FREE_FORM = _whole(
    "free-form", lambda m, b, c: losses.free_form(m, b.x, b.noise, b.context, c.weight), _draw
)
_PRINCIPAL = replace(_whole("principal", _likelihood), closed=True, keep_best=True)


def check_score(config: Config, known: bool) -> None:
    """Raise UsageError where `scandal` would change nothing, or fit what is not the score of the data."""
    if not config.scandal:
        return
    phases = ALGORITHMS[config.algorithm].phases
    if not known:
        raise UsageError("scandal needs data with the joint score of a simulator")
    if not any(phase.scores for phase in phases):
        raise UsageError(f"{config.algorithm}: its objective does not know the score; leave scandal at 0")
    if config.model.get("chart_context") and any(phase.codes for phase in phases):
        raise UsageError("the score of codes is that of the data only where the chart sees no θ")


def check_nested(config: Config) -> None:
    """Raise UsageError where `nested` is asked of an algorithm that cannot cut codes."""
    if config.nested and not any(phase.nests for phase in ALGORITHMS[config.algorithm].phases):
        raise UsageError(f"nested codes are not learned by {config.algorithm}")


def check_sharp(config: Config) -> None:
    """Raise UsageError where `sharp` is asked of an algorithm that cannot draw sharply."""
    if config.sharp and _SHARPENING not in ALGORITHMS[config.algorithm].phases:
        raise UsageError(f"sharp drawing is not learned by {config.algorithm}")


ALGORITHMS: dict[AlgorithmName, Algorithm] = {
    "m-flow": Algorithm(
        "manifold-flow", (_BENDING, _MANIFOLD, _REFINEMENT, _NOISE, _DENSITY, _CLASSES, _SHARPENING)
    ),  # M-flow, sequential
    "m-flow-a": Algorithm("manifold-flow", (_ALTERNATING,)),  # alternating
    "m-flow-s": Algorithm("manifold-flow", (_SIMULTANEOUS,)),  # simultaneous
    "m-flow-ot": Algorithm("manifold-flow", (_TRANSPORT,)),  # by optimal transport
    "me-flow": Algorithm(
        "encoder-flow", (_MANIFOLD, _NOISE, _DENSITY, _CLASSES)
    ),  # Me-flow: a separate encoder
    "me-flow-a": Algorithm("encoder-flow", (_ALTERNATING,)),
    "me-flow-s": Algorithm("encoder-flow", (_SIMULTANEOUS,)),
    "free-form": Algorithm("encoder-flow", (_FREE_FORM,)),  # Me-flow by a surrogate of the volume
    "denoising": Algorithm("pie", (_DENOISING,)),
    "pie": Algorithm("pie", (_LIKELIHOOD,)),  # pseudo-invertible encoder
    "af": Algorithm("ambient-flow", (_LIKELIHOOD,)),  # ambient flow
    "fom": Algorithm("sphere", (_DENSITY,)),  # flow on a manifold that is given
    "pae": Algorithm("autoencoder", (_MANIFOLD, _DENSITY, _CLASSES)),  # probabilistic autoencoder
    "pca": Algorithm("linear", (_PRINCIPAL,)),  # principal components and a Gaussian
}
