"""Denoising of unseen images, beside what a user would otherwise call.

The same images and noise for all, Gaussian, σ in units of [0, 1]; noisy values are not clipped, results are.
Of each method: mean PSNR (dB), mean SSIM and CPU seconds an image, in `data`[name][method][σ]. Ours is one
M-flow, trained with noise of random σ in 0 … 0.5: `auto, σ known` and `auto, blind` (which estimates σ
itself), `soft`, `projection` and `map`. `supervised CNN` is trained for the CPU seconds that our model took.
Both, and the PCA rows, have seen the training images; the classics have not, which is an advantage for the
former. TV takes the best of its weights, PCA the best of its d by the clean images (an oracle). Rows of the
packages PyWavelets and bm3d are there where these are installed; the package itself needs neither.

The models are trained at first and kept in --models FOLDER.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import celeba, put, say, trained
from torch import Tensor, nn

from mfimage.config import Config
from mfimage.datasets import ImageSet, load
from mfimage.denoising.curve import denoise_batch
from mfimage.eval.image_metrics import psnr, ssim

SIGMAS = (0.05, 0.1, 0.2, 0.3, 0.5)
DIMS = (8, 16, 32, 64, 128, 256, 512)  # of PCA; the best by the clean images
TV_WEIGHTS = (0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.7)
Filter = Callable[[Tensor, float], Tensor]


def one_by_one(function: Callable[[np.ndarray, float], np.ndarray]) -> Filter:
    """Make a filter of batches (B, C, H, W) from one of arrays (H, W) or (H, W, C)."""

    def filtered(y: Tensor, sigma: float) -> Tensor:
        arrays = [image.permute(1, 2, 0).squeeze(-1).numpy().astype(np.float64) for image in y]
        results = [np.atleast_3d(function(array, sigma)) for array in arrays]
        return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2).float()

    return filtered


def classics() -> dict[str, Filter]:
    """scikit-image's denoisers."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

    def axis(a: np.ndarray) -> int | None:
        return -1 if a.ndim == 3 else None

    def nlm(a: np.ndarray, s: float) -> np.ndarray:
        return denoise_nl_means(
            a, patch_size=5, patch_distance=6, h=0.8 * s, sigma=s, fast_mode=True, channel_axis=axis(a)
        )

    def wavelet(a: np.ndarray, s: float) -> np.ndarray:
        return denoise_wavelet(a, sigma=s, method="BayesShrink", rescale_sigma=True, channel_axis=axis(a))

    found = {"non-local means": one_by_one(nlm)}
    if find_spec("pywt"):
        found["wavelet"] = one_by_one(wavelet)
    for weight in TV_WEIGHTS:
        found[f"TV {weight}"] = one_by_one(
            lambda a, s, weight=weight: denoise_tv_chambolle(a, weight=weight, channel_axis=axis(a))
        )
    return found


def bm3d_filter() -> Filter | None:
    """BM3D, or None: its licence is non-commercial, and it is in no requirement of ours."""
    try:
        import bm3d
    except ImportError:
        say("bm3d is not installed: without its row")
        return None
    return one_by_one(lambda a, s: bm3d.bm3d_rgb(a, s) if a.ndim == 3 else bm3d.bm3d(a, s))


def principal(training: Tensor) -> dict[str, Filter]:
    """PCA's projection for several d, and its Wiener filter, in all coordinates."""
    flat = training.flatten(1)
    mean = flat.mean(0)
    if flat.shape[1] <= 2000:
        values, vectors = torch.linalg.eigh(torch.cov((flat - mean).T.double()))
        values, vectors = values.flip(0).clamp_min(0).float(), vectors.flip(1).float()
        rest = 0.0
    else:  # the first 600, and what is left spread evenly over the others
        _, singular, vectors = torch.svd_lowrank(flat - mean, 600)
        values = singular.square() / (len(flat) - 1)
        rest = float((flat.var(0).sum() - values.sum()).clamp_min(0)) / (flat.shape[1] - 600)

    def project(y: Tensor, sigma: float, dim: int) -> Tensor:
        basis = vectors[:, :dim]
        return (mean + (y.flatten(1) - mean) @ basis @ basis.T).view_as(y)

    def wiener(y: Tensor, sigma: float) -> Tensor:
        gain, other = values / (values + sigma**2), rest / (rest + sigma**2)
        centred = y.flatten(1) - mean
        return (mean + other * centred + (centred @ vectors * (gain - other)) @ vectors.T).view_as(y)

    found: dict[str, Filter] = {f"PCA {d}": partial(project, dim=d) for d in DIMS if d < flat.shape[1]}
    return {**found, "PCA-Wiener": wiener}


class Denoiser(nn.Module):
    """A plain supervised denoiser: y less what six convolutions see in (y, σ)."""

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__()
        sizes = [channels + 1, *[width] * 5, channels]
        layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes)]
        self.net = nn.Sequential(*[m for layer in layers for m in (layer, nn.SiLU())][:-1])

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Denoise (B, C, H, W), given σ, shape (B,)."""
        level = sigma.view(-1, 1, 1, 1).expand(-1, 1, *y.shape[2:])
        return y - self.net(torch.cat([y, level], 1))


def supervised(images: ImageSet, seconds: float, path: Path) -> Denoiser:
    """Train the plain denoiser for CPU seconds, or read what was trained; one cycle, log error as ours."""
    model = Denoiser(images.shape[0])
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    from mfimage.fit import shuffled

    generator, rows = torch.Generator().manual_seed(1), shuffled(len(images), 32, 0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0)
    began, step = time.process_time(), 0
    while (spent := time.process_time() - began) < seconds:
        done = spent / seconds
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1.0, 20 * done + 0.01) * (1 + math.cos(math.pi * done))
        x = images.batch(rows(step))
        sigma = 0.5 * torch.rand(len(x), generator=generator)
        y = x + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)
        error = (model(y, sigma) - x).square().flatten(1).mean(1)
        optimiser.zero_grad(set_to_none=True)
        (error + 1e-4).log().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        step += 1
    say(f"supervised CNN: {step} steps, {spent:.0f} CPU-seconds")
    torch.save(model.state_dict(), path)
    return model.eval()


def flow_filters(model: Any) -> dict[str, Filter]:
    """The ways to denoise with ours."""

    def by(method: str, known: bool) -> Filter:
        def filtered(y: Tensor, sigma: float) -> Tensor:
            level = torch.full((len(y),), sigma) if known else None
            return denoise_batch(y, model, level, method).image

        return filtered

    return {
        "auto, σ known": by("auto", True),
        "auto, blind": by("auto", False),
        "soft": by("soft", True),
        "projection": by("projection", True),
        "map": by("map", True),
    }


def measured(function: Filter, clean: Tensor, most: int) -> dict[float, dict[str, float]]:
    """PSNR, SSIM and CPU seconds an image at each σ, over the first `most` images."""
    found = {}
    for sigma in SIGMAS:
        generator = torch.Generator().manual_seed(round(1000 * sigma))
        y = clean + sigma * torch.randn(clean.shape, generator=generator)
        x, y = clean[:most], y[:most]
        began = time.process_time()
        with torch.no_grad():
            out = torch.cat([function(part, sigma) for part in y.split(250)])
        spent = time.process_time() - began
        out = out.clamp(0, 1)
        found[sigma] = {
            "psnr": round(float(psnr(x, out).mean()), 3),
            "ssim": round(float(ssim(x, out).mean()), 4),
            "seconds": round(spent / len(x), 6),
            "images": len(x),
        }
    return found


def best_of(rows: dict[str, dict[float, dict[str, float]]], prefix: str) -> dict[float, dict[str, float]]:
    """At each σ the best by PSNR of the rows whose names begin so: an oracle."""
    family = [row for name, row in rows.items() if name.startswith(prefix)]
    return {sigma: max((row[sigma] for row in family), key=lambda cell: cell["psnr"]) for sigma in SIGMAS}


def table_of(
    images: ImageSet, clean: Tensor, config: Config, folder: Path, quick: bool, classic: int, plain: bool
) -> dict[str, dict[float, dict[str, float]]]:
    """Every method on one data set, the slow classics on the first `classic` images only.

    It is kept as table.json beside the models.
    """
    model, seconds = trained(images, config, folder / "m-flow")
    say(f"M-flow: {seconds:.0f} CPU-seconds of training")
    filters: dict[str, tuple[Filter, int]] = {
        "noisy": (lambda y, sigma: y, len(clean)),
        **{name: (f, len(clean)) for name, f in flow_filters(model).items()},
        **{name: (f, len(clean)) for name, f in principal(images.batch(slice(0, 20_000))).items()},
        **{name: (f, classic) for name, f in classics().items()},
    }
    filters["map"] = (filters["map"][0], len(clean) if quick else classic // 10)
    if plain:
        net = supervised(images, seconds, folder / "supervised.pt")
        filters["supervised CNN"] = (lambda y, s: net(y, torch.full((len(y),), s)), len(clean))
    if bm3d := bm3d_filter():
        filters["BM3D"] = (bm3d, 2 if quick else classic // 20)
    rows = {}
    for name, (function, most) in filters.items():
        rows[name] = measured(function, clean, most)
        say(f"{name}: " + ", ".join(f"{s:g}: {cell['psnr']:.2f}" for s, cell in rows[name].items()))
    rows["TV (oracle weight)"], rows["PCA (best d)"] = best_of(rows, "TV "), best_of(rows, "PCA ")
    single = [f"TV {w}" for w in TV_WEIGHTS] + [f"PCA {d}" for d in DIMS]
    table = {name: row for name, row in rows.items() if name not in single}
    (folder / "table.json").write_text(json.dumps(table))
    return table


def read_table(path: Path) -> dict[str, dict[float, dict[str, float]]]:
    """What `table_of` kept."""
    stored = json.loads(path.read_text())
    return {method: {float(s): cell for s, cell in row.items()} for method, row in stored.items()}


def write_page(data: dict[str, dict[str, dict[float, dict[str, float]]]], trained: dict[str, float]) -> None:
    """benchmarks/denoising.md: the tables."""
    lines = ["# Denoising", "", *__doc__.split("\n\n")[1].splitlines(), ""]
    for name, rows in data.items():
        lines += [f"## {name}", "", f"Trained for {trained[name]:.0f} CPU seconds. PSNR in dB / SSIM.", ""]
        lines += ["| method | " + " | ".join(f"σ = {s:g}" for s in SIGMAS) + " | seconds an image | images |"]
        lines += ["|---" * (len(SIGMAS) + 3) + "|"]
        for method, row in rows.items():
            cells = [f"{row[s]['psnr']:.2f} / {row[s]['ssim']:.3f}" for s in SIGMAS]
            seconds = np.mean([row[s]["seconds"] for s in SIGMAS])
            lines += [f"| {method} | " + " | ".join(cells) + f" | {seconds:.2g} | {row[0.1]['images']} |"]
        lines += [""]
    lines += ["![PSNR against σ](denoising.png)"]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw(data: dict[str, dict[str, dict[float, dict[str, float]]]]) -> None:
    """benchmarks/denoising.png: gain in PSNR over the noisy image against σ."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(data), 4), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(data), squeeze=False)[0], data.items(), strict=True):
        for method, row in rows.items():
            if method not in ("noisy", "projection", "map"):
                gain = [row[s]["psnr"] - rows["noisy"][s]["psnr"] for s in SIGMAS]
                axes.plot(SIGMAS, gain, marker="o", ms=3, label=method, lw=2 if "auto" in method else 1)
        axes.set(title=name, xlabel="σ", ylabel="PSNR over the noisy image, dB")
        axes.legend(fontsize=7)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


def bars(rows: dict[str, dict[float, dict[str, float]]]) -> dict[str, float | None]:
    """What is asked of the clothes."""
    known, blind, noisy = rows["auto, σ known"], rows["auto, blind"], rows["noisy"]
    bm3d = rows.get("BM3D")
    return {
        "psnr_01": known[0.1]["psnr"],
        "psnr_02": known[0.2]["psnr"],
        "psnr_03": known[0.3]["psnr"],
        "least_gain": min(min(known[s]["psnr"], blind[s]["psnr"]) - noisy[s]["psnr"] for s in SIGMAS),
        "blind_loss": max(known[s]["psnr"] - blind[s]["psnr"] for s in SIGMAS),
        "speed_over_bm3d": bm3d[0.1]["seconds"] / known[0.1]["seconds"] if bm3d else None,
    }


def main() -> None:
    """Clothes, and faces where they are at hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute or two, for a look")
    parser.add_argument("--models", type=Path, default=Path("runs/denoising"), help="where models are kept")
    parser.add_argument("--data", default="fashion-mnist,celeba", help="which data, comma-separated")
    parser.add_argument("--no-supervised", action="store_true", help="do not train the network beside")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quick, folder, config = arguments.quick, arguments.models, Config(dim=32, time=1800.0)
    name = "fashion-mini" if quick else "fashion-mnist"
    if quick:
        config = config.with_(steps=20, density_steps=5, warmup=2, every=20, model={"width": 4, "hidden": 16})
    plain = not arguments.no_supervised
    if "fashion-mnist" in arguments.data:
        clean = load(name, "test").batch(slice(0, 20 if quick else 1000))
        table_of(load(name, "train"), clean, config, folder / name, quick, len(clean), plain)
    if "celeba" in arguments.data and not quick and (faces := celeba()):
        few = config.with_(dim=64, steps=600, flip=True)
        clean = faces[1].batch(slice(0, 500))
        table_of(faces[0], clean, few, folder / "celeba", quick, 100, plain)
    data = {n: read_table(path) for n in (name, "celeba") if (path := folder / n / "table.json").exists()}
    trained = {n: json.loads((folder / n / "m-flow" / "cpu_seconds.json").read_text()) for n in data}
    if not quick:
        write_page(data, trained)
        draw(data)
    put(quick, data=data, bars=bars(next(iter(data.values()))), trained_cpu_seconds=trained)


if __name__ == "__main__":
    main()
