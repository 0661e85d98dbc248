"""The demonstration: learn the bundled clothes, use and measure the model, show everything on one page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from mfimage.config import Config
from mfimage.datasets import Dataset, gaussian_noise, load
from mfimage.errors import UsageError
from mfimage.eval import Evaluation, evaluate
from mfimage.eval.demo_page import Curve, Report, Row, Strip, write_report
from mfimage.eval.image_metrics import PCA, mse, squared_error
from mfimage.eval.ranking import auroc
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel
from mfimage.run import Run
from mfimage.training import hold_out, train

SIGMAS = (0.1, 0.2, 0.3, 0.5)
SHOWN = 12  # images in a row of the page


def run_demo(
    outdir: Path, config: Config, data: str = "fashion-mini", device: str = "auto", quiet: bool = False
) -> tuple[Path, str]:
    """Train on a set of images and write OUTDIR/report.html.

    Args:
        outdir: The run's directory; a finished run in it is not trained again.
        config: Settings of the training.
        data: What to learn, with the splits "train" and "test".
        device: "auto", "cpu" or "cuda".
        quiet: Without a progress bar.

    Returns:
        The page's path, and its results in one sentence.
    """
    run = Run(outdir)
    again = (outdir / "config.json").exists()
    if again and run.config() != config:
        raise UsageError(f"{outdir} holds a run with other settings: choose another --outdir")
    model = train(data, outdir, config, device=device, resume=again, quiet=quiet)
    training, test = (load(data, split, config.size, config.channels) for split in ("train", "test"))
    metrics = evaluate(test, model, training, metrics=("reconstruction", "density"))
    pca = PCA.fit(training.batch(slice(None)), model.dim)
    x = test.batch(slice(None))
    projected = _project(model, x)
    scores, areas = _strangers(model, pca, test)
    learned, _ = hold_out(training, config)
    sentence = _sentence(model, metrics, areas, len(learned), len(test))
    run.write("metrics.json", {**metrics.as_json(), "auroc": areas, "sentence": sentence})
    seed = config.seed
    report = Report(
        title="An image manifold learned from clothes",
        sentence=sentence,
        settings=_settings(run, config),
        numbers=_rows(metrics),
        curves=_curves(run.directory / "stats.jsonl"),
        samples=model.sample(64, torch.Generator().manual_seed(seed)).clamp(0, 1).cpu(),
        samples_caption=f"The first 64 samples of seed {seed}, unselected.",
        reconstructions=_reconstructions(x, projected),
        denoising=[_strip(model, pca, x, sigma, seed) for sigma in SIGMAS],
        ood_scores=scores,
        ood_auroc={name: (ours, other) for name, (ours, other) in areas.items()},
        notes=[
            "FID is left out here, because it takes many minutes of Inception on a CPU: "
            f"mfimage evaluate {outdir} {data} --metrics fid",
            "Projection alone denoises no better than clean images are reconstructed: at little noise it "
            "loses detail that the noisy image still has.",
        ],
    )
    return write_report(run.directory / "report.html", report), sentence


def _project(model: GenerativeModel, x: Tensor) -> Tensor:
    device = model.device
    return in_batches(lambda part: model.project(part.to(device)), x).clamp(0, 1)


def _strangers(
    model: GenerativeModel, pca: PCA, test: Dataset
) -> tuple[dict[str, Tensor], dict[str, tuple[float, float]]]:
    """Score the test images and strangers; also the area under each ROC curve (model, PCA)."""
    x = test.batch(slice(None))
    channels, height, width = test.shape
    sets = {
        "clothes (test)": x,
        "digits": load("digits", "all", (height, width), channels).batch(slice(None)),
        "turned by 90°": x.rot90(1, (2, 3)),
        "upside down": x.flip(2),
        "inverted": 1 - x,
    }
    pixels = x[0].numel()
    device = model.device
    ours = {
        name: in_batches(lambda part: mse(model.project(part.to(device)).cpu(), part), y)
        for name, y in sets.items()
    }
    theirs = {name: squared_error(y, pca.project(y)) / pixels for name, y in sets.items()}
    home = next(iter(sets))
    areas = {name: (auroc(ours[home], ours[name]), auroc(theirs[home], theirs[name])) for name in [*sets][1:]}
    return ours, areas


def _strip(model: GenerativeModel, pca: PCA, x: Tensor, sigma: float, seed: int) -> Strip:
    clean = x[:1000]
    noisy = gaussian_noise(clean, sigma, torch.Generator().manual_seed(seed))
    rows = {
        "clean": clean,
        "noisy": noisy,
        "M-flow": _project(model, noisy),
        "PCA": pca.project(noisy).clamp(0, 1),
    }
    decibels = {
        name: -10 * math.log10(float((y - clean).square().mean()))
        for name, y in rows.items()
        if name != "clean"
    }
    return Strip(sigma, {name: y[:SHOWN] for name, y in rows.items()}, decibels)


def _reconstructions(x: Tensor, projected: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    order = squared_error(x, projected).argsort()
    middle = len(order) // 2 - SHOWN // 2
    chosen = {"best": order[:SHOWN], "median": order[middle : middle + SHOWN], "worst": order[-SHOWN:]}
    return {name: (x[rows], projected[rows]) for name, rows in chosen.items()}


def _sentence(
    model: GenerativeModel,
    metrics: Evaluation,
    areas: dict[str, tuple[float, float]],
    seen: int,
    unseen: int,
) -> str:
    error = metrics.numbers["mse"]
    ours, pca = error.value, error.beside["pca"]
    digits = areas["digits"]
    return (
        f"A manifold of {model.dim} dimensions learned from {seen:,} images reconstructs {unseen:,} unseen "
        f"ones at {-10 * math.log10(ours):.2f} dB, where {model.dim} principal components reach "
        f"{-10 * math.log10(pca):.2f} dB ({ours / pca:.2f} of their squared error), and its "
        "reconstruction error tells digits from clothes with an AUROC of "
        f"{digits[0]:.3f} (PCA {digits[1]:.3f})."
    )


def _settings(run: Run, config: Config) -> dict[str, object]:
    environment = json.loads((run.directory / "environment.json").read_text())
    data = json.loads((run.directory / "data.json").read_text())
    return {
        "data": f"{data['data']}, {data['count']:,} images of shape {tuple(data['shape'])}",
        "data sha256": data["sha256"][:16],
        "dimension": config.dim,
        "manifold phase": f"{config.steps:,} steps of {config.batch_size} images, lr {config.lr:g}",
        "density phase": f"{config.density_steps:,} steps of {2 * config.batch_size} codes, "
        f"lr {config.density_lr:g}",
        "seed": config.seed,
        "machine": f"{environment['processor']}, {environment['cores']} cores",
        "torch": environment["packages"]["torch"],
    }


def _rows(metrics: Evaluation) -> list[Row]:
    names = {
        "squared_error": "squared error", "mse": "mean squared error", "psnr": "PSNR", "ssim": "SSIM",
        "log_prob": "log-density", "log_prob_per_dim": "log-density",
    }  # fmt: skip
    notes = {
        "psnr": "mean over images",
        "log_prob": f"{metrics.numbers['log_prob'].n} test images, exact, by volume on the manifold",
        "log_prob_per_dim": "of other models not comparable",
    }
    numbers = {name: metrics.numbers[name] for name in names}
    return [
        Row(names[name], n.unit, n.value, n.beside.get("pca"), n.better, notes.get(name, ""))
        for name, n in numbers.items()
    ]


def _curves(path: Path) -> list[Curve]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    curves = []
    for phase, name, unit, log in (
        ("manifold", "Phase 1: reconstruction", "squared error an image", True),
        ("density", "Phase 2: likelihood", "nats an image", False),
    ):
        own = [r for r in records if r["phase"] == phase]
        watched = [(float(r["step"]), r["validation"]) for r in own if "validation" in r]
        steps, losses = [float(r["step"]) for r in own], [r["loss"] for r in own]
        curves.append(Curve(name, unit, steps, losses, watched, log))
    return curves
