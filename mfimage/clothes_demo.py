"""The demonstration: learn the bundled clothes, use and measure the model, show everything on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from mfimage.config import Config
from mfimage.datasets import NAMED, Dataset, gaussian_noise
from mfimage.datasets.sources import named_set
from mfimage.denoising.curve import denoise_batch
from mfimage.eval import PCA, Evaluation, auroc, evaluate, mse, psnr, squared_error
from mfimage.eval.evaluation import sections_of
from mfimage.eval.page import Page, Pictures, Section, picture, strip
from mfimage.eval.plots import histogram_plot
from mfimage.eval.table import Column, Row, Table, marked, number
from mfimage.eval.verdict import learned_of
from mfimage.inputs import in_batches, load_like
from mfimage.models import GenerativeModel
from mfimage.results import settings_of, training_curves
from mfimage.run import Run
from mfimage.training import train_or_reuse

Areas: TypeAlias = dict[str, tuple[float, float]]  # under ROC curves, of the model and of PCA
SIGMAS = (0.1, 0.2, 0.3, 0.5)
SHOWN = 12  # images in a row of the page
NOISY = 1000  # images that are denoised
_NOTES = (
    "All numbers are means over images. Log-densities are exact, by volume on the manifold, and not "
    "comparable with those of other models.",
    "Denoised is what mfimage denoise makes of the images when it is told σ. Projection alone denoises no "
    "better than clean images are reconstructed: at little noise it loses detail that the noisy image has.",
)


def run_demo(
    outdir: Path, config: Config, data: str = "fashion-mini", device: str = "auto", quiet: bool = False
) -> tuple[Path, str]:
    """Train, if OUTDIR holds no finished run, and write its report.html; give its path and a sentence."""
    run = Run(outdir)
    # Not by name alone, since a folder here may be called like it.
    clothes = named_set(data, "train", config.size, config.channels) if data in NAMED else data
    model = train_or_reuse(clothes, outdir, config, device=device, quiet=quiet)
    config = run.config()  # with what was decided
    training, test = load_like(clothes, "train", model), _named_like(data, "test", model)
    metrics = evaluate(test, model, training, metrics=("reconstruction", "density"), seed=config.seed)
    pca, x = PCA.of(learned_of(training, model), model.dim), test.batch(slice(None))
    scores, areas = _strangers(model, pca, x)
    lead = _sentence(metrics, areas["digits"])
    run.write("metrics.json", {**metrics.as_json(), "auroc": areas, "sentence": lead})
    sections = [*sections_of(metrics), _reconstructions(x, _project(model, x).clamp(0, 1))]
    sections += [_denoising(model, pca, x[:NOISY], config.seed), _strange_images(scores, areas)]
    sections.append(training_curves(run))
    fid = f"FID takes many minutes of Inception on a CPU: mfimage evaluate {outdir} {data} --metrics fid"
    settings = settings_of(run, config, model)
    page = Page("An image manifold learned from clothes", lead, sections, settings, (fid, *_NOTES))
    return page.write(run.directory / "report.html"), lead


def _named_like(data: str, split: str, model: GenerativeModel) -> Dataset:
    channels, height, width = model.shape
    named = data in NAMED
    return load_like(named_set(data, split, (height, width), channels) if named else data, split, model)


def _project(model: GenerativeModel, x: Tensor) -> Tensor:
    return in_batches(lambda part: model.project(part.to(model.device)), x)


def _strangers(model: GenerativeModel, pca: PCA, x: Tensor) -> tuple[dict[str, Tensor], Areas]:
    """Score the test images and strangers; also the area under each ROC curve (model, PCA)."""
    sets = {
        "clothes (test)": x,
        "digits": _named_like("digits", "all", model).batch(slice(None)),
        "turned by 90°": x.rot90(1, (2, 3)),
        "upside down": x.flip(2),
        "inverted": 1 - x,
    }
    ours = {name: mse(_project(model, y), y) for name, y in sets.items()}
    theirs = {name: squared_error(y, pca.project(y)) / x[0].numel() for name, y in sets.items()}
    home, *others = sets
    return ours, {name: (auroc(ours[home], ours[name]), auroc(theirs[home], theirs[name])) for name in others}


def _sentence(metrics: Evaluation, digits: tuple[float, float]) -> str:
    quality, pca = (
        number(value) for value in (metrics.numbers["psnr"].value, metrics.numbers["psnr"].beside["pca"])
    )
    return (
        f"{metrics.verdict} That is {quality} dB against {pca}. Its reconstruction error tells digits from "
        f"clothes with an AUROC of {digits[0]:.3f} (PCA {digits[1]:.3f})."
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
        known = torch.full((len(noisy),), sigma, device=model.device)
        best = denoise_batch(noisy.to(model.device), model, known).image.cpu()
        ways = {"denoised": best, "projection": _project(model, noisy), "PCA": pca.project(noisy)}
        rows = {"noisy": noisy, **{name: y.clamp(0, 1) for name, y in ways.items()}}
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
