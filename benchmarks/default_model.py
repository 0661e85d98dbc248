"""What the defaults give on the data of a user: `mfimage train DATA -o RUN --dim D --time T --seed S`.

Nothing else is set, but for --more. DATA is a folder of PNG files, all of them to learn from, or a named set;
T in seconds is such that no more CPU time is used than a data set allows. Of every run, on images that it has
not seen:

ratio: squared error over that of as many principal components of the images that the run learned from.
lattice: with P the periodogram of x − x̂, mean over images, channels and the frequencies of the other axis,
    the largest P(1/p) / ½(P(1/p − 1/S) + P(1/p + 1/S)) of both axes (S pixels) and the periods p = 8, 4, 2.
    lattice_mean is the same of the mean residual image, x̂ by PCA in the `_pca` numbers.
denoising: mean PSNR in dB of 100 images, σ = 25/255 and 50/255, known to `auto` and to non-local means, not
    to `blind`. Noisy values are not clipped, results are.

odd: largest |encode(decode(u)) − u| of charts with perturbed parameters and sides that are no powers of two.
Every finished run is a line of rows.jsonl in --folder, at once, and is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from denoisers.classics import non_local_means
from denoisers.sets import Noise
from harness import put, say
from torch import Tensor
from user_data import CASES, QUICK, Case

from mfimage import from_pretrained
from mfimage.config import ModelConfig
from mfimage.datasets import load
from mfimage.datasets.pictures import save_pngs
from mfimage.datasets.sets import Dataset
from mfimage.denoising.curve import denoise_batch
from mfimage.errors import DataError
from mfimage.eval.image_metrics import PCA, psnr, squared_error
from mfimage.eval.numbers import ratio_of_means
from mfimage.eval.verdict import learned_of, projections, verdict_of
from mfimage.models.build import build
from mfimage.run import Run

PERIODS = (8, 4, 2)
SIGMAS = (25, 50)  # of 255
ODD = ((1, 27, 27), (3, 25, 33), (3, 64, 49))
BARS = {"lattice": 1.1, "gain": 3.0, "over_nlm": 0.0, "odd_float32": 1e-4, "odd_float64": 1e-9}


def command(data: str, run: Path, case: Case, seed: int, more: str) -> list[str]:
    """What a user would type."""
    settings = ["--dim", str(case.dim), "--time", f"{case.time:g}", "--seed", str(seed), *more.split()]
    return [sys.executable, "-m", "mfimage", "train", data, "-o", str(run), *settings]


def train_by_command(
    case: Case, training: Dataset | str, run: Path, seed: int, threads: int, more: str
) -> tuple[Any, PCA, dict[str, Any]]:
    """Train, and measure what the unseen images do not enter; the folder of images is there meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        data = training if isinstance(training, str) else folder
        if not isinstance(training, str):
            names = [f"{i:05d}" for i in range(len(training))]
            save_pngs(training.batch(slice(None)), names, Path(folder) / "train")
        shutil.rmtree(run, ignore_errors=True)  # one that was broken off
        environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command(data, run, case, seed, more), env=environment, stdout=sys.stderr, check=True)
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        model, cpu = from_pretrained(run), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        learned = learned_of(load(data, "train"), model)
        pca = PCA.of(learned, model.dim)
    found = {"cpu_seconds": round(cpu, 1), "wall_seconds": round(wall, 1), "learned": len(learned)}
    found |= {"verdict": str(verdict_of(model)), "decisions": Run(run).decisions()}
    return model, pca, found


@torch.no_grad()
def on_unseen(model: Any, pca: PCA, unseen: Dataset) -> dict[str, Any]:
    """Errors, lattices and denoising of one model."""
    x, ours, linear = (torch.cat(part) for part in zip(*projections(model, pca, unseen, 256), strict=True))
    error, pca_error = squared_error(x, ours), squared_error(x, linear)
    ratio = ratio_of_means(error, pca_error)
    found: dict[str, Any] = {"error": float(error.mean()), "pca": float(pca_error.mean())}
    found |= {"ratio": ratio[0], "interval": list(ratio.ends or ()), "unseen": len(x)}
    for name, residual in (("", x - ours), ("_pca", x - linear)):
        found[f"lattice{name}"] = lattice(residual)
        found[f"lattice_mean{name}"] = lattice(residual.mean(0, keepdim=True))
    return found | {"denoising": {str(s): denoised(model, x[:100].float(), s / 255) for s in SIGMAS}}


def lattice(residual: Tensor) -> float:
    """How far the power at any of `PERIODS` stands out of its neighbours in residuals (N, C, H, W)."""
    found = []
    for rows in (residual, residual.mT):
        side = rows.shape[-1]
        at = torch.tensor([[1 / p - 1 / side, 1 / p, 1 / p + 1 / side] for p in PERIODS], dtype=torch.float64)
        waves = torch.exp(-2j * torch.pi * at.flatten()[:, None] * torch.arange(side))
        power = (rows.double().to(waves.dtype) @ waves.T).abs().square().mean((0, 1, 2)).view(-1, 3)
        found.append(2 * power[:, 1] / (power[:, 0] + power[:, 2]).clamp_min(1e-300))
    return float(torch.cat(found).max())


def denoised(model: Any, x: Tensor, sigma: float) -> dict[str, Any]:
    """Mean PSNR of what there is, of ours and of non-local means, and the methods that `auto` took."""
    y = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    known, blind = denoise_batch(y, model, torch.full((len(y),), sigma)), denoise_batch(y, model)
    images = {"noisy": y, "auto": known.image, "blind": blind.image}
    images["nlm"] = non_local_means()[""](y, Noise(sigma))
    found: dict[str, Any] = {name: float(psnr(x, z.clamp(0, 1)).mean()) for name, z in images.items()}
    found |= {"gain": found["auto"] - found["noisy"], "over_nlm": found["auto"] - found["nlm"]}
    return found | {"methods": {name: known.methods.count(name) for name in sorted(set(known.methods))}}


@torch.no_grad()
def odd_sides() -> dict[str, dict[str, float]]:
    """Errors of u by size and precision, of charts that are moved away from where they start."""
    table: dict[str, dict[str, float]] = {}
    generator = torch.Generator().manual_seed(0)
    for shape in ODD:
        chart = build(ModelConfig(shape, 16), seed=0).chart
        coarse = torch.rand(400, shape[0], 8, 8, generator=generator)
        x = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
        chart.initialise(x)
        for p in chart.parameters():
            fan = p[0].numel() if p.dim() > 1 and len(p) else max(1, p.numel())
            p.add_(0.3 / fan**0.5 * torch.randn(p.shape, generator=generator))
        name = "×".join(map(str, shape[1:]))
        for dtype in (torch.float32, torch.float64):
            u = chart.to(dtype).codes(x[:16].to(dtype))
            error = float((chart.codes(chart.decode(u)) - u).abs().max())
            table.setdefault(name, {})[str(dtype).removeprefix("torch.")] = error
    return table


def marks(row: dict[str, Any], case: Case) -> dict[str, bool]:
    """Which bars a run meets."""
    cells = row["denoising"].values()
    return {
        "ratio": row["ratio"] <= case.bar,
        **({"goal": row["ratio"] <= case.goal} if case.goal is not None else {}),
        "never_worse": row["ratio"] <= 1,
        "cpu": row["cpu_seconds"] <= case.cpu,
        "lattice": row["lattice"] <= BARS["lattice"],
        "gain": all(cell["gain"] >= BARS["gain"] for cell in cells),
        "over_nlm": all(cell["over_nlm"] > BARS["over_nlm"] for cell in cells),
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fill(name: str, case: Case, seeds: list[int], folder: Path, threads: int, more: str) -> str | None:
    """Append the rows of a data set that are not there yet, or say why it is skipped."""
    rows = folder / "rows.jsonl"
    done = {row["seed"] for row in read_rows(rows) if (row["name"], row["more"]) == (name, more)}
    if not (seeds := [seed for seed in seeds if seed not in done]):
        return None
    try:
        training, unseen = case.make(case.count)
    except DataError as error:
        say(f"{name}: skipped: {error}")
        return str(error)
    for seed in seeds:
        say(f"{name}, seed {seed}: {case.time:g} s on {threads} threads {more}")
        run = folder / f"{name}{more}-{seed}".replace(" ", "")
        model, pca, found = train_by_command(case, training, run, seed, threads, more)
        row = {
            "name": name,
            "seed": seed,
            "threads": threads,
            "dim": case.dim,
            "time": case.time,
            "more": more,
        }
        row |= found | on_unseen(model, pca, unseen)
        row["met"] = marks(row, case)
        with rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        say(f"  {row['ratio']:.4f} of PCA's error, lattice {row['lattice']:.2f}, met: {row['met']}")
    return None


def table(rows: list[dict[str, Any]], cases: dict[str, Case]) -> str:
    """Write the rows as Markdown."""
    gains = " | ".join(f"gain at {s}/255 (over NLM), dB" for s in SIGMAS)
    lines = [
        f"| data | d | seed | CPU (wall) s | ratio (bar) | lattice, of mean (PCA) | {gains} | missed |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        cells = [f"{c['gain']:.2f} ({c['over_nlm']:+.2f})" for c in row["denoising"].values()]
        missed = ", ".join(name for name, met in row["met"].items() if not met and name != "goal")
        spent = f"{row['cpu_seconds']:.0f} ({row['wall_seconds']:.0f})"
        data = f"{row['name']}{f' `{more}`' if (more := row['more']) else ''}"
        first = f"| {data} | {row['dim']} | {row['seed']} | {spent}"
        ratio = f"{row['ratio']:.3f} ({cases[row['name']].bar:.2f})"
        linear = f"({row['lattice_pca']:.2f}, {row['lattice_mean_pca']:.2f})"
        shown = f"{row['lattice']:.2f}, {row['lattice_mean']:.2f} {linear}"
        lines.append(" | ".join([first, ratio, shown, *cells, f"{missed or '–'} |"]))
    return "\n".join(lines)


def main() -> None:
    """Measure what is asked for and not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, for a look")
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(CASES)}")
    parser.add_argument(
        "--seeds", help="comma-separated; without it three of short trainings, one of long ones"
    )
    parser.add_argument("--threads", type=int, default=2, help="of every command")
    parser.add_argument("--more", default="", help="more settings of every command, in one argument")
    parser.add_argument("--folder", type=Path, default=Path("runs/default-model"), help="where runs are kept")
    parser.add_argument("--table", action="store_true", help="print what is there as Markdown, and stop")
    given = parser.parse_args()
    cases = QUICK if given.quick else CASES
    names = given.only.split(",") if given.only else list(cases)
    if unknown := set(names) - set(cases):
        parser.error(f"--only {', '.join(sorted(unknown))}: there are {', '.join(cases)}")
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if given.quick else given.folder
        folder.mkdir(parents=True, exist_ok=True)
        skipped: dict[str, str] = {}
        for name in [] if given.table else names:
            case_seeds = [0] if given.quick else cases[name].seeds
            seeds = [int(seed) for seed in given.seeds.split(",")] if given.seeds else case_seeds
            if reason := fill(name, cases[name], seeds, folder, given.threads, given.more):
                skipped[name] = reason
        rows = [row for row in read_rows(folder / "rows.jsonl") if row["name"] in names]
        rows.sort(key=lambda row: (list(cases).index(row["name"]), row["more"], row["seed"]))
    if given.table:
        print(table(rows, cases) if rows else f"nothing was measured yet in {given.folder}")
        return
    say(table(rows, cases))
    odd = odd_sides()
    met = {
        kind: all(errors[kind] <= BARS[f"odd_{kind}"] for errors in odd.values())
        for kind in ("float32", "float64")
    }
    put(given.quick, rows=rows, skipped=skipped, odd=odd, odd_met=met, bars=BARS, threads=given.threads)


if __name__ == "__main__":
    main()
