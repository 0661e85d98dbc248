"""The end of a training: what is measured of the model, and the page that shows it."""

from __future__ import annotations

import json
import logging
import math
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfimage.account import found
from mfimage.algorithms import ALGORITHMS, MANIFOLD
from mfimage.budget import MEASURING
from mfimage.checkpoints import Snapshots
from mfimage.config import Config
from mfimage.console import counted, duration, optional, percent
from mfimage.datasets.sets import Dataset
from mfimage.denoising.curve import CURVE, NOISY, calibrate_denoising, denoise_batch
from mfimage.denoising.familiarity import FAMILIAR
from mfimage.denoising.uncertainty import UNCERTAINTY
from mfimage.errors import ModelError
from mfimage.eval.image_metrics import PCA, psnr
from mfimage.eval.page import Files, Page, Part, Pictures, Section, picture, strip
from mfimage.eval.plots import curve_plot
from mfimage.eval.table import marked, number
from mfimage.eval.verdict import TRAINED, VERDICT, Best, judge, read_verdict, verdict_of
from mfimage.files import read_json
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel, ways_to_sample
from mfimage.ood.detector import DETECTOR
from mfimage.pretrained import weights_hash
from mfimage.run import Run
from mfimage.streams import say

REPORT = "report.html"
CLASSES = "classes"  # how often the class of images held out is told
# Sections of `model.measured` that training measures.
MEASURED = (TRAINED, CURVE, UNCERTAINTY, FAMILIAR, VERDICT, CLASSES)
SIGMAS = (25 / 255, 50 / 255)  # of noise on the page
_WIDTH = 722  # pixels that a row of images may take
_CLASSES_SHOWN = 20
_SAMPLES = 400_000  # values of samples at most
_LABELS = {  # title, unit and whether on a log scale, of the curve of each phase; others are losses
    "manifold": ("Reconstruction", "squared error an image", True),
    "refinement": ("Reconstruction, refined", "squared error an image", True),
    "noise": ("Denoising", "log of the squared error", False),
    "density": ("Likelihood", "nats an image", False),
    "sharpening": ("Sharpening", "loss of both sides; held out, squared error an image", True),
}


@dataclass(frozen=True, eq=False)
class Results:
    """A trained model of images, and what it was trained on and beside: to be measured and shown.

    Principal components of the images to learn from are None for models without a manifold.
    """

    model: GenerativeModel
    run: Run
    config: Config
    training: Dataset
    held_out: Dataset
    pca: PCA | None

    def measure(self) -> None:
        """Measure the model on images held out, and keep in `model.measured` what was found.

        What cannot be measured is told on stderr, and left out.
        """
        model, config = self.model, self.config
        about = read_json(self.run.directory / "data.json")
        model.measured[TRAINED] = {
            "sha256": about["sha256"], "seed": config.seed,
            "validation": None if about.get("valid") else config.validation,  # of the training split
            **({"noise": str(config.noise_model)} if model.noise_aware else {}),
        }  # fmt: skip
        with optional("curve of denoising"):
            calibrate_denoising(self.held_out, model, config.seconds and MEASURING * config.seconds)
        with optional("verdict on the model"):
            if self.pca is not None:
                best, passes = _course(self.run, config, len(self.training))
                verdict = judge(model, self.pca, self.held_out, len(self.training), best, passes)
                model.measured[VERDICT] = asdict(verdict)
        if model.classifier is not None and self.held_out.labels is not None:
            x, labels = self.held_out.batch(slice(None)), self.held_out.labels
            told = in_batches(lambda part: model.classify(part.to(model.device)), x).argmax(1).cpu()
            right = float((told == labels).double().mean())
            model.measured[CLASSES] = {"accuracy": right, "images": len(labels)}

    def write_report(self) -> Path:
        """Write the run's report.html: the verdict, pictures of what the model does, curves, settings."""
        count = _columns(self.held_out.shape[-1])
        x = self.held_out.batch(torch.arange(min(count, len(self.held_out))))
        commands = [(command, f"to {what}") for what, command in next_commands(self.run).items()]
        sections = [
            *self._manifold(x), Section("Samples", "Unselected.", [_samples(self.model, self.config, count)]),
            *_of_classes(self.model, self.config, count), training_curves(self.run),
            Section("What to type next", "", [Files(commands)]),
        ]  # fmt: skip
        settings = settings_of(self.run, self.config, self.model)
        title = f"What was learned from {self.training.name}"
        page = Page(title, self._lead(), sections, settings, self.run.decisions())
        return page.write(self.run.directory / REPORT)

    def _lead(self) -> str:
        said, verdict = found(self.training, self.held_out), verdict_of(self.model)
        return f"{verdict} {said}." if verdict else f"{said}."

    def _manifold(self, x: Tensor) -> list[Section]:
        """Show images of the manifold: those held out, projected and denoised."""
        if self.pca is None:
            return []
        rows = {"unseen images": x, "projections": _project(self.model, x), "PCA": self.pca.project(x)}
        said = "Images held out, drawn at random, and what is left of them on the manifold; below by PCA."
        noisy = "The same images with Gaussian noise, and what denoise makes of them, told σ."
        parts = [_denoised(self.model, x, sigma) for sigma in SIGMAS]
        return [Section("Reconstructions", said, [strip(rows)]), Section("Denoising", noisy, parts)]


def still_true(known: Mapping[str, Any], model: GenerativeModel) -> dict[str, Any]:
    """Leave out of what an earlier model of a run was measured to be what is no longer true, and tell."""
    kept = {name: found for name, found in known.items() if name not in MEASURED}
    detector = kept.pop(DETECTOR, None)
    if isinstance(detector, dict) and detector.get("model") == weights_hash(model):
        kept[DETECTOR] = detector
    elif detector is not None:
        say(
            "note: the model has changed, so its calibration is gone: mfimage calibrate makes one anew",
            logging.WARNING,
        )
    return kept


def tell_if_worse(known: Mapping[str, Any], model: GenerativeModel) -> None:
    """Say so if an earlier model of the run was better than what it has become."""
    with suppress(ModelError):  # of a damaged one
        before, now = read_verdict(known), verdict_of(model)
        if before and now and now.error > before.error:
            errors = f"squared error {number(before.error)} an image held out, now {number(now.error)}"
            say(f"note: the model that this run had before was better: {errors}", logging.WARNING)


def _course(run: Run, config: Config, count: int) -> tuple[Best, float]:
    """When in training the manifold came up that is kept, and how often each image was seen."""
    best: Best = ""
    passes = 0.0
    for phase in ALGORITHMS[config.algorithm].phases:
        snapshots = Snapshots(run.checkpoints, phase.name)
        newest = snapshots.newest()
        if phase.name not in MANIFOLD or newest is None or not snapshots.best.exists():
            continue
        step = snapshots.best_step()
        last = snapshots.step_of(newest)
        if step or not best:
            best = "start" if step == 0 else "end" if step == last else "middle"
        if passes == 0 or phase.name != "manifold":
            passes += last * config.batch_size * phase.batch / count
    return best, passes


def _columns(width: int) -> int:
    """How many images lie in a row."""
    return max(4, min(12, _WIDTH // (width + 2)))


def _project(model: GenerativeModel, x: Tensor) -> Tensor:
    return in_batches(lambda part: model.project(part.to(model.device)), x).clamp(0, 1)


def _samples(model: GenerativeModel, config: Config, columns: int) -> Pictures | None:
    if model.conditional:
        return None
    rows = max(1, min(4, _SAMPLES // (columns * math.prod(model.shape))))
    pictures = []
    for name, detail in ways_to_sample(model.noise_aware).items():
        drawn = model.sample(rows * columns, torch.Generator().manual_seed(config.seed), detail=detail)
        pictures.append(picture(drawn.clamp(0, 1), name, columns, name))
    return Pictures(pictures)


def _of_classes(model: GenerativeModel, config: Config, columns: int) -> list[Section]:
    """Show samples of each of the first classes, a row each."""
    if (classifier := model.classifier) is None:
        return []
    detail, rows, hardly = max(ways_to_sample(model.noise_aware).values()), dict[str, Tensor](), list[str]()
    for name in classifier.classes[:_CLASSES_SHOWN]:
        generator = torch.Generator().manual_seed(config.seed)
        try:
            rows[name] = model.sample(columns, generator, detail=detail, label=name).clamp(0, 1)
        except ModelError:
            hardly.append(name)
    said = "Unselected" + (f"; with detail from σ = {detail:g}." if detail else ".")
    if known := model.measured.get(CLASSES):
        told = f"{percent(known['accuracy'])} of {counted(known['images'], 'image')} held out"
        said += f" The codes of {told} tell the class."
    if (count := len(classifier.classes)) > _CLASSES_SHOWN:
        said += f" The first {_CLASSES_SHOWN} of {count} classes."
    said += f" Hardly ever drawn: {', '.join(hardly)}." if hardly else ""
    return [Section("Samples by class", said, [strip(rows)])]


@torch.no_grad()
def _denoised(model: GenerativeModel, x: Tensor, sigma: float) -> Pictures:
    """Noisy and denoised images below one another, with the mean PSNR."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    y = (x + sigma * noise).clamp(0, 1)
    done = denoise_batch(y.to(model.device), model, y.new_full((len(y),), sigma))
    rows = {"noisy": y, "denoised": done.image.clamp(0, 1).cpu()}
    quality = [float(psnr(z, x).mean()) for z in rows.values()]
    named = zip(rows.items(), marked(quality, "higher", size=10.0), strict=True)
    shown = [picture(z, f"{name} images", 0, name, cell, "dB") for (name, z), cell in named]
    left = sum(method == NOISY for method in done.methods)
    said = f"{left} of {len(x)} are left as they are: no method of this model helps there." if left else ""
    return Pictures(shown, f"σ = {255 * sigma:.0f}/255", said)


def _records(path: Path) -> list[dict[str, Any]]:
    """The lines of stats.jsonl, which a model without steps has not; one that a crash cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with suppress(Exception):
            record = json.loads(line)
            numbers = {key: float(record[key]) for key in ("step", "loss", "validation") if key in record}
            if {"step", "loss"} <= set(numbers):
                records.append({"phase": str(record["phase"]), **numbers})
    return records


def training_curves(run: Run) -> Section:
    """Plot the loss of each phase, and its validation, from stats.jsonl."""
    records = _records(run.directory / "stats.jsonl")
    curves: list[Part | None] = []
    for phase in dict.fromkeys(r["phase"] for r in records):
        title, unit, log = _LABELS.get(phase, (phase.capitalize(), "loss", False))
        own = [r for r in records if r["phase"] == phase]
        watched = [(r["step"], r["validation"]) for r in own if "validation" in r]
        line = [r["step"] for r in own], [r["loss"] for r in own]
        curves.append(curve_plot(title, unit, line, watched, log))
    return Section("Training", "", curves)


def settings_of(run: Run, config: Config, model: GenerativeModel) -> dict[str, object]:
    """What was learned from, how, and on which machine, for a page."""
    environment, data = (read_json(run.directory / f"{name}.json") for name in ("environment", "data"))
    codes = 2 * config.batch_size
    return {
        "data": f"{data['name']}, {counted(data['count'], 'image')} of shape {tuple(data['shape'])}",
        "data sha256": data["sha256"][:16],
        "dimension": model.dim,
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "algorithm": config.algorithm,
        **({"time": f"{duration(config.seconds, given=True)} in all"} if config.seconds else {}),
        "first phase": f"{_steps(config.steps)}{config.batch_size} images a step, lr {config.lr:g}",
        "density phase": f"{_steps(config.density_steps)}{codes} codes a step, lr {config.density_lr:g}",
        "seed": config.seed,
        "machine": f"{environment['processor']}, {counted(environment['cores'], 'core')}",
        "torch": environment["packages"]["torch"],
    }


def _steps(count: int | None) -> str:
    return "" if count is None else f"{count:,} steps, "


def closing(model: GenerativeModel, run: Run) -> list[str]:
    """Say what is to be said of a trained model of images, and what can be typed next."""
    if len(model.shape) != 3:
        return []
    verdict, page = verdict_of(model), run.directory / REPORT
    said = [str(verdict)] if verdict else []
    said += [f"Page: {page}"] if page.exists() else []
    return [*said, "Next:", *(f"  {command}" for command in next_commands(run).values())]


def next_commands(run: Run) -> dict[str, str]:
    """What can be typed next, by what it does."""
    where, data = shlex.quote(str(run.directory)), shlex.join(run.sources())
    return {
        "remove noise": f"mfimage denoise noisy/*.png --model {where} --outdir clean",
        "draw new images": f"mfimage sample -n 64 --model {where} --outdir samples",
        "find strange images": f"mfimage score new/*.png --model {where}",
        "measure more": f"mfimage evaluate {where} {data}",
    }
