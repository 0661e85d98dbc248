"""The demonstration: learn the bundled clothes, use and measure the model, show everything on one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from mfimage.config import Config
from mfimage.datasets import gaussian_noise
from mfimage.eval import PCA, Evaluation, auroc, evaluate, mse, psnr, squared_error
from mfimage.eval.evaluation import sections_of
from mfimage.eval.page import Page, Pictures, Section, picture, strip
from mfimage.eval.plots import curve_plot, histogram_plot
from mfimage.eval.table import Column, Row, Table, marked
from mfimage.files import read_json
from mfimage.inputs import in_batches, load_like
from mfimage.models import GenerativeModel
from mfimage.run import Run
from mfimage.training import hold_out, train_or_reuse

Areas: TypeAlias = dict[str, tuple[float, float]]  # under ROC curves, of the model and of PCA
SIGMAS = (0.1, 0.2, 0.3, 0.5)
SHOWN = 12  # images in a row of the page
NOISY = 1000  # images that are denoised
_PHASES = {
    "manifold": ("Phase 1: reconstruction", "squared error an image", True),
    "density": ("Phase 2: likelihood", "nats an image", False),
}
_NOTES = (
    "All numbers are means over images. Log-densities are exact, by volume on the manifold, and not "
    "comparable with those of other models.",
    "Projection alone denoises no better than clean images are reconstructed: at little noise it loses "
    "detail that the noisy image still has.",
)


def run_demo(
    outdir: Path, config: Config, data: str = "fashion-mini", device: str = "auto", quiet: bool = False
) -> tuple[Path, str]:
    """Train, if OUTDIR holds no finished run, and write its report.html; give its path and a sentence."""
    run = Run(outdir)
    model = train_or_reuse(data, outdir, config, device=device, quiet=quiet)
    training, test = (load_like(data, split, model) for split in ("train", "test"))
    metrics = evaluate(test, model, training, metrics=("reconstruction", "density"), seed=config.seed)
    pca, x = PCA.fit(training.batch(slice(None)), model.dim), test.batch(slice(None))
    scores, areas = _strangers(model, pca, x)
    lead = _sentence(metrics, areas["digits"], len(hold_out(training, config)[0]))
    run.write("metrics.json", {**metrics.as_json(), "auroc": areas, "sentence": lead})
    sections = [*sections_of(metrics), _reconstructions(x, _project(model, x).clamp(0, 1))]
    sections += [_denoising(model, pca, x[:NOISY], config.seed), _strange_images(scores, areas), _curves(run)]
    fid = f"FID takes many minutes of Inception on a CPU: mfimage evaluate {outdir} {data} --metrics fid"
    page = Page(
        "An image manifold learned from clothes", lead, sections, _settings(run, config), (fid, *_NOTES)
    )
    return page.write(run.directory / "report.html"), lead


def _project(model: GenerativeModel, x: Tensor) -> Tensor:
    return in_batches(lambda part: model.project(part.to(model.device)), x)


def _strangers(model: GenerativeModel, pca: PCA, x: Tensor) -> tuple[dict[str, Tensor], Areas]:
    """Score the test images and strangers; also the area under each ROC curve (model, PCA)."""
    sets = {
        "clothes (test)": x,
        "digits": load_like("digits", "all", model).batch(slice(None)),
        "turned by 90°": x.rot90(1, (2, 3)),
        "upside down": x.flip(2),
        "inverted": 1 - x,
    }
    ours = {name: mse(_project(model, y), y) for name, y in sets.items()}
    theirs = {name: squared_error(y, pca.project(y)) / x[0].numel() for name, y in sets.items()}
    home, *others = sets
    return ours, {name: (auroc(ours[home], ours[name]), auroc(theirs[home], theirs[name])) for name in others}


def _sentence(metrics: Evaluation, digits: tuple[float, float], seen: int) -> str:
    error, quality, dim = metrics.numbers["mse"], metrics.numbers["psnr"], metrics.model["dim"]
    return (
        f"A manifold of {dim} dimensions learned from {seen:,} images reconstructs {quality.n:,} unseen "
        f"ones at {quality.value:.2f} dB, where {dim} principal components reach "
        f"{quality.beside['pca']:.2f} dB ({error.value / error.beside['pca']:.2f} of their squared error), "
        f"and its reconstruction error tells digits from clothes with an AUROC of {digits[0]:.3f} "
        f"(PCA {digits[1]:.3f})."
    )


def _reconstructions(x: Tensor, projected: Tensor) -> Section:
    order = squared_error(x, projected).argsort()
    middle = len(order) // 2 - SHOWN // 2
    chosen = {"Best": order[:SHOWN], "Median": order[middle : middle + SHOWN], "Worst": order[-SHOWN:]}
    parts = [strip({"image": x[i], "projection": projected[i]}, title) for title, i in chosen.items()]
    said = "Images, and what is left of them after projection onto the manifold."
    return Section("From best to worst", said, parts)


def _denoising(model: GenerativeModel, pca: PCA, clean: Tensor, seed: int) -> Section:
    """Clean, noisy and denoised images below one another, with the PSNR of each."""
    parts = []
    for sigma in SIGMAS:
        noisy = gaussian_noise(clean, sigma, torch.Generator().manual_seed(seed))
        ours, linear = _project(model, noisy).clamp(0, 1), pca.project(noisy).clamp(0, 1)
        rows = {"noisy": noisy, "M-flow": ours, "PCA": linear}
        cells = marked([float(psnr(y, clean).mean()) for y in rows.values()], "higher", size=10.0)
        named = zip({"clean": clean, **rows}.items(), [None, *cells], strict=True)
        shown = [picture(y[:SHOWN], f"images, {name}", 0, name, cell, "dB") for (name, y), cell in named]
        parts.append(Pictures(shown, f"σ = {sigma:g}"))
    said = (
        "Gaussian noise of standard deviation σ, for pixel values from 0 to 1; the best PSNR, the mean over "
        f"{len(clean):,} images, is bold."
    )
    return Section("Denoising", said, parts)


def _strange_images(scores: dict[str, Tensor], areas: Areas) -> Section:
    rows = [Row(name, marked(pair, "higher")) for name, pair in areas.items()]
    below = "The chance that a strange image scores above a familiar one: 1 is perfect, 0.5 is guessing."
    table = Table([Column(name) for name in ("AUROC against", "M-flow", "PCA")], rows, below)
    said = "How often each score comes up; higher is stranger, and the filled set is the familiar one."
    return Section("Strange images", said, [histogram_plot(scores), table])


def _curves(run: Run) -> Section:
    records = [json.loads(line) for line in (run.directory / "stats.jsonl").read_text().splitlines()]
    curves = []
    for phase, (title, unit, log) in _PHASES.items():
        own = [r for r in records if r["phase"] == phase]
        watched = [(float(r["step"]), r["validation"]) for r in own if "validation" in r]
        line = [float(r["step"]) for r in own], [r["loss"] for r in own]
        curves.append(curve_plot(title, unit, line, watched, log))
    return Section("Training", "", curves)


def _settings(run: Run, config: Config) -> dict[str, object]:
    environment, data = (read_json(run.directory / f"{name}.json") for name in ("environment", "data"))
    codes = 2 * config.batch_size
    return {
        "data": f"{data['data']}, {data['count']:,} images of shape {tuple(data['shape'])}",
        "data sha256": data["sha256"][:16],
        "dimension": config.dim,
        "manifold phase": f"{config.steps:,} steps of {config.batch_size} images, lr {config.lr:g}",
        "density phase": f"{config.density_steps:,} steps of {codes} codes, lr {config.density_lr:g}",
        "seed": config.seed,
        "machine": f"{environment['processor']}, {environment['cores']} cores",
        "torch": environment["packages"]["torch"],
    }
