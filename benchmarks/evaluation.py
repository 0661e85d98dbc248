"""Whether the numbers of `mfimage evaluate` are right, what they cost, and tables of models by them.

parity: 600 and 600 clothes as PNG files, by `python -m pytorch_fid` and by this package; KID and precision,
recall, density and coverage of the same features by torch-fidelity and prdc, where these are installed.
ordering: 500 CelebA validation faces against 500 others, the same others with noise of σ = 25/255, and
Tiny-ImageNet. rates: the Inception's features of images against a bare forward pass on images that have their
size already; the Fréchet distance of 5,000 and 5,000 features of length 2,048 on two cores.
fashion-mnist, celeba: models of equal d, each trained for the CPU time of `harness.BUDGETS` (what it took in
the end, with validation and the measurement of denoising, stands in the table), by protocol mfimage with
1,000 samples. AUROC: whether digits are told from clothes by the squared reconstruction error, by an ambient
flow with −log p. The models are trained at first and kept in --models FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from harness import BUDGETS, SHARED, celeba, put, say, trained, training_config
from torch import Tensor

from mfimage.datasets import gaussian_noise, load
from mfimage.datasets.pictures import save_pngs
from mfimage.errors import MfimageError
from mfimage.eval import (
    METRICS,
    Comparison,
    FeatureExtractor,
    InceptionFeatures,
    InceptionUnavailable,
    Number,
    auroc,
    compare,
    coverage,
    find_inception_weights,
    frechet_distance,
    kernel_distance,
    read_evaluation,
)
from mfimage.eval.evaluation import evaluate_once
from mfimage.eval.features import ScatteringFeatures, quantise
from mfimage.eval.image_metrics import mse
from mfimage.eval.inception import build_inception
from mfimage.inputs import in_batches

PARTS = ("parity", "rates", "ordering", "fashion-mnist", "celeba")
MODELS = {"AF": "af", "PIE": "pie", "M-flow": "m-flow", "Me-flow": "me-flow", "PCA": "pca", "ae": "pae"}
SHOWN = ("fid", "fid_reconstructions", "kid", "mse", "psnr")  # with intervals
Values = dict[str, Any]
PYTORCH_FID = (
    "import sys, runpy; from mfimage._torchvision import import_torchvision; import_torchvision(); "
    "runpy.run_module('pytorch_fid', run_name='__main__')"
)


def inception() -> InceptionFeatures | None:
    """The Inception, or None with the reason on stderr."""
    try:
        return InceptionFeatures(find_inception_weights())
    except InceptionUnavailable as error:
        say(f"without Inception: {error}")
        return None


def parity(quick: bool) -> Values:
    """Distances by other programs, beside ours."""
    count = 100 if quick else 600
    images = load("fashion-mini", "train").batch(slice(0, 2 * count))
    a, b = images[:count], gaussian_noise(images[count:], 0.1, torch.Generator().manual_seed(0))
    net: FeatureExtractor | None = None if quick else inception()
    found: Values = {}
    if net is not None:
        weights = find_inception_weights()
        with tempfile.TemporaryDirectory() as folder:
            hub = Path(folder) / "hub" / "checkpoints"
            hub.mkdir(parents=True)
            last = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
            torch.save({**weights.tensors, **last}, hub / "pt_inception-2015-12-05-6726825d.pth")
            for name, x in (("a", a), ("b", b)):
                save_pngs(x, [f"{i:05d}" for i in range(len(x))], Path(folder) / name)
            told = subprocess.run(
                [sys.executable, "-c", PYTORCH_FID, "a", "b", "--device", "cpu", "--num-workers", "0"],
                capture_output=True, text=True, check=True, cwd=folder,
                env={**os.environ, "TORCH_HOME": folder, "PYTHONPATH": str(Path(__file__).parents[1])},
            )  # fmt: skip
        found["pytorch_fid"] = float(told.stdout.split()[-1])
    net = net or ScatteringFeatures(1)
    x, y = net(a), net(b)
    if "pytorch_fid" in found:
        found["fid"] = frechet_distance(x, y)
        found["fid_difference"] = abs(found["fid"] - found["pytorch_fid"])
    found |= others(x, y)
    say(f"parity: {found}")
    return found


def others(x: Tensor, y: Tensor) -> Values:
    """KID and neighbour counts by their own packages: the largest differences."""
    found: Values = {}
    if find_spec("torch_fidelity"):
        from mfimage._torchvision import import_torchvision

        import_torchvision()
        from torch_fidelity.metric_kid import kid_features_to_metric

        size = len(x) // 2
        theirs = kid_features_to_metric(x, y, verbose=False, kid_subsets=20, kid_subset_size=size)
        ours, _ = kernel_distance(x, y, 20, size)
        found["kid"] = ours
        found["kid_difference"] = abs(ours - theirs["kernel_inception_distance_mean"])
    if find_spec("prdc"):
        from prdc import compute_prdc

        expected = compute_prdc(x.numpy(), y.numpy(), nearest_k=5)
        ours_too = {k: float(v.double().mean()) for k, v in coverage(x, y)._asdict().items()}
        found["prdc_difference"] = max(abs(ours_too[k] - float(v)) for k, v in expected.items())
    return found


def rates(quick: bool) -> Values:
    """What features and distances cost."""
    dim, count = (256, 600) if quick else (2048, 5000)
    torch.set_num_threads(2)
    sets = [torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    began, cpu = time.perf_counter(), time.process_time()
    frechet_distance(*sets)
    found: Values = {
        "frechet_seconds": time.perf_counter() - began, "frechet_cpu_seconds": time.process_time() - cpu,
    }  # fmt: skip
    torch.set_num_threads(1)
    net = None if quick else inception()
    if net is not None:
        x = load("fashion-mini", "train").batch(slice(0, 64))
        bare = build_inception(find_inception_weights().tensors)
        bare = bare.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        large = torch.nn.functional.interpolate(quantise(x), (299, 299), mode="bilinear").expand(
            -1, 3, -1, -1
        )
        large = (2 * large - 1).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            pairs = [(cpu_of(lambda: net(x)), cpu_of(lambda: bare_pass(bare, large))) for _ in range(5)]
        ratios = sorted(theirs / ours for ours, theirs in pairs)
        found["inception_rate"] = ratios[2]  # of the bare one
        found["inception_images_per_second"] = 64 / sorted(ours for ours, _ in pairs)[2]
    say(f"rates: {found}")
    return found


def bare_pass(net: Any, x: Tensor) -> None:
    """Forward and nothing else, 32 at a time as ours."""
    for part in x.split(32):
        net(part)


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds that something takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def ordering(quick: bool) -> Values:
    """Whether distances grow as sets grow apart."""
    count = 60 if quick else 500
    if quick:
        images = load("fashion-mini", "test").batch(slice(0, 2 * count))
        far, what = images.roll(7, 3).flip(2)[:count], "upside down"
    else:
        if not (faces := celeba()):
            return {}
        images = faces[1].batch(slice(0, 2 * count))
        far, what = (
            load(SHARED / "tinyimagenet_val4000.zip", "all", 64, 3).batch(slice(0, count)),
            "Tiny-ImageNet",
        )
    real, same = images[:count], images[count:]
    noisy = gaussian_noise(same, 25 / 255, torch.Generator().manual_seed(0))
    spaces: dict[str, FeatureExtractor] = {"fd-scattering": ScatteringFeatures(images.shape[1])}
    net = None if quick else inception()
    if net is not None:
        spaces["fid"] = net
    found: Values = {}
    for space, extractor in spaces.items():
        known = extractor(real)
        for name, x in {"other faces": same, "noise 25/255": noisy, what: far}.items():
            features = extractor(x)
            cell = found.setdefault(name, {})
            cell[space] = frechet_distance(features, known)
            if space == "fid":
                cell["kid"] = kernel_distance(features, known, 50, count // 2)[0]
                parts = coverage(known, features)._asdict()
                cell |= {k: float(v.double().mean()) for k, v in parts.items()}
            say(f"ordering {name}: {cell}")
    return found


def strange(mnist: Path | None, shape: tuple[int, ...]) -> tuple[str, Tensor]:
    """Digits in the shape of the images, MNIST's if they are there."""
    try:
        return "MNIST", load("mnist", "test", root=mnist).batch(slice(0, 2000))
    except MfimageError as error:
        say(f"the small digits in place of MNIST: {str(error).splitlines()[0]}")
        return "digits", load("digits", "all", shape[1:], shape[0]).batch(slice(None))


def strangeness(model: Any, x: Tensor) -> Tensor:
    """Squared reconstruction error; of an ambient flow −log p, dequantised."""
    if model.config.kind == "ambient-flow":
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
        return -in_batches(model.log_prob, (x * 255 + noise) / 256)
    return in_batches(lambda part: mse(part, model.project(part)), x)


def table(name: str, folder: Path, quick: bool, mnist: Path | None, only: list[str]) -> Values:
    """Train, or read, and evaluate every model of one data set."""
    if name == "celeba":
        if quick or not (faces := celeba()):
            return {}
        training, test = faces
    else:
        which = "fashion-mini" if quick else name
        training, test = load(which, "train"), load(which, "test")
        if quick:
            training, test = training.subset(range(600)), test.subset(range(200))
    config, seconds = training_config(name, quick), None if quick else BUDGETS[name]
    rows: Values = {}
    metrics = ("reconstruction", "fd") if quick else METRICS
    what, digits = ("", None) if name == "celeba" else strange(mnist, training.shape)
    for row, algorithm in MODELS.items():
        if only and algorithm not in only:
            continue
        own = config.with_(algorithm=algorithm, steps=20 if quick else None)
        model, spent = trained(training, own, folder / algorithm, None if algorithm == "pca" else seconds)
        say(f"{name} {row}")
        report = evaluate_once(
            folder / f"{algorithm}-evaluation.json", test, model, training, metrics=metrics,
            samples=100 if quick else 1000, density_images=100, tell=say,
        )  # fmt: skip
        rows[row] = {key: report.numbers[key].value for key in report.numbers}
        rows[row]["cpu_seconds"] = spent
        if digits is not None:
            inside, outside = strangeness(model, test.batch(slice(0, 2000))), strangeness(model, digits)
            rows[row][f"auroc {what}"] = auroc(inside, outside)
        (folder / f"{algorithm}-row.json").write_text(json.dumps(rows[row]))
    return rows


def row_of(values: Values, columns: list[str]) -> str:
    """A line of a table."""
    cells = [f"{values[c]:.4g}" if c in values else "–" for c in columns]
    return " | ".join(cells)


def with_interval(n: Number | None) -> str:
    """A number and its 95 % interval."""
    if n is None:
        return "–"
    return f"{n.value:.4g}" + ("" if n.interval is None else " ({:.4g}–{:.4g})".format(*n.interval))


def write_page(found: dict[str, Values], folder: Path) -> None:
    """benchmarks/evaluation.md: all figures."""
    lines = ["# Evaluation", "", *__doc__.splitlines(), ""]
    for name, what in (("parity", "Against other programs"), ("rates", "Rates")):
        if values := found.get(name):
            lines += [f"## {what}", "", "| | |", "|---|---|"]
            lines += [*(f"| {key.replace('_', ' ')} | {value:.4g} |" for key, value in values.items()), ""]
    if values := found.get("ordering"):
        columns = list(next(iter(values.values())))
        lines += [
            "## CelebA against",
            "",
            "| | " + " | ".join(columns) + " |",
            "|---" * (len(columns) + 1) + "|",
        ]
        lines += [*(f"| {name} | {row_of(row, columns)} |" for name, row in values.items()), ""]
    for name in ("fashion-mnist", "celeba"):
        if not (rows := found.get(name)):
            continue
        extra = [key for key in next(iter(rows.values())) if key.startswith("auroc")] + ["cpu_seconds"]
        side = compared(rows, folder / name)
        lines += [
            f"## {name}", "", "| | " + " | ".join(c.replace("_", " ") for c in (*SHOWN, *extra)) + " |",
            "|---" * (len(SHOWN) + len(extra) + 1) + "|",
        ]  # fmt: skip
        for row, values in rows.items():
            cells = [with_interval(side.reports[row].numbers.get(c)) for c in SHOWN]
            lines.append(f"| {row} | " + " | ".join(cells) + f" | {row_of(values, extra)} |")
        lines += ["", side.markdown(), ""]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def compared(rows: Values, folder: Path) -> Comparison:
    """The evaluations side by side, as `mfimage compare` would."""
    return compare({row: read_evaluation(folder / f"{MODELS[row]}-evaluation.json") for row in rows})


def main() -> None:
    """Each part, kept as a file; the page is written from what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute or two, for a look")
    parser.add_argument("--models", type=Path, default=Path("runs/benchmarks"), help="where models are kept")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, comma-separated; or none")
    parser.add_argument("--only", default="", help="which algorithms of a table, comma-separated")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's idx files ($MFIMAGE_DATA)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quick, folder = arguments.quick, arguments.models
    folder = Path(tempfile.mkdtemp()) if quick else folder
    only = [name for name in arguments.only.split(",") if name]
    kept = folder / "evaluation"
    kept.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], Values]] = {
        "parity": lambda: parity(quick),
        "rates": lambda: rates(quick),
        "ordering": lambda: ordering(quick),
        "fashion-mnist": lambda: table(
            "fashion-mnist", folder / "fashion-mnist", quick, arguments.mnist, only
        ),
        "celeba": lambda: table("celeba", folder / "celeba", quick, None, only),
    }
    for name in arguments.parts.split(","):
        if name in parts:
            (kept / f"{name}.json").write_text(json.dumps(parts[name]()))
    found = {
        name: json.loads((kept / f"{name}.json").read_text())
        for name in PARTS
        if (kept / f"{name}.json").exists()
    }
    if not quick:
        write_page(found, folder)
    tables = {name: found[name] for name in ("fashion-mnist", "celeba") if name in found}
    put(quick, tables=tables, **{name: found.get(name, {}) for name in ("parity", "rates", "ordering")})


if __name__ == "__main__":
    main()
