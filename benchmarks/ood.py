"""How well strange images are told from familiar ones, by one score for all pairs.

Familiar: images of the test split, half for the threshold, half fresh. Strange: another data set, or the
fresh images turned, blurred, hidden by half, shuffled (one permutation of pixels for all), or made of nothing
but a value or noise. `auto` learns the joint density of the statistics of 60,000 training images; no strange
image is used in any fit. AUROC is the chance that a strange image scores above a familiar one.

Beside it: the other scores of the same model; an autoencoder (`pae`) and an ambient flow (`af`) trained for
the same CPU time on the same images; on the same 60,000 training images PCA's reconstruction, nearest
neighbours among PCA's coordinates, Isolation Forest, and ECOD and COPOD where pyod is installed. `complexity`
is the deviation of zlib's bits from their mean. The rows `density` and `joint`, which need the exact volume,
are measured on the first 1,000 images of each set.

The models are trained at first and kept in --models FOLDER. --model RUN measures another one instead, of
Fashion-MNIST, by `auto` alone.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import BUDGETS, SHARED, celeba, put, say, trained, training_config
from scipy.ndimage import gaussian_filter
from torch import Tensor

from mfimage import Detector, from_pretrained
from mfimage.datasets import ImageSet, load
from mfimage.errors import MfimageError
from mfimage.eval.image_metrics import PCA
from mfimage.eval.score_metrics import auroc, separation
from mfimage.inputs import in_batches
from mfimage.ood.scores import SCORES, VOLUME, reference_of
from mfimage.ood.statistics import Statistics, statistics_of

FITTED, STRANGE, FEW = 60_000, 2000, 1000
Scorer = Callable[[Tensor], Tensor]


def others(x: Tensor, lists: str) -> dict[str, Tensor]:
    """Strange images made of familiar ones (B, C, H, W), or of nothing."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(x[0, 0].numel(), generator=generator)
    hidden = x.clone()
    hidden[..., : x.shape[-1] // 2] = 0
    constant = torch.rand(len(x), 1, 1, 1, generator=generator).expand_as(x).contiguous()
    made = {
        "upside down": x.flip(2),
        "turned by 90°": x.rot90(1, (2, 3)),
        "blurred": torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 1.5, 1.5), mode="nearest")),
        "constant": constant,
        "uniform noise": torch.rand(x.shape, generator=generator),
        "Gaussian noise": (0.5 + 0.25 * torch.randn(x.shape, generator=generator)).clamp(0, 1),
        "half hidden": hidden,
        "shuffled": x.flatten(2)[..., order].view_as(x),
    }
    return {name: images for name, images in made.items() if name in lists}


ALL = "upside down, turned by 90°, blurred, constant, uniform noise, Gaussian noise, half hidden, shuffled"


def optional(name: str, split: str, root: Path | None = None) -> ImageSet | None:
    """A named set, or None with the reason on stderr."""
    try:
        return load(name, split, root=root)
    except MfimageError as error:
        say(f"without {name}: {error}")
        return None


def data_of(name: str, quick: bool, mnist: Path | None) -> tuple[ImageSet, Tensor, dict[str, Tensor]] | None:
    """Training images, familiar test images, and strange ones by name."""
    if name == "celeba":
        if quick or not (faces := celeba()):
            return None
        familiar = faces[1].batch(slice(None))
        strange = others(familiar[1::2], "upside down, blurred")
        photographs = load(SHARED / "tinyimagenet_val4000.zip", "all", 64, 3)
        return faces[0], familiar, {"Tiny-ImageNet": photographs.batch(slice(0, STRANGE)), **strange}
    if quick:
        training, test = load("fashion-mini", "train"), load("fashion-mini", "test")
        familiar = test.batch(slice(0, 600))
        return training.subset(range(600)), familiar, others(familiar[1::2], ALL)
    other = {"fashion-mnist": "mnist", "mnist": "fashion-mnist"}[name]
    roots = {"mnist": mnist, "fashion-mnist": None}
    training, test, strange = (
        optional(name, "train", roots[name]),
        optional(name, "test", roots[name]),
        optional(other, "test", roots[other]),
    )
    if training is None or test is None:
        return None
    familiar = test.batch(slice(None))
    found = {} if strange is None else {other: strange.batch(slice(0, STRANGE))}
    if name == "fashion-mnist":
        found |= others(familiar[1::2][:STRANGE], ALL)
    return training, familiar, found


def beside(training: Tensor, dim: int) -> dict[str, Scorer]:
    """Detectors that a user would otherwise call, fitted on the training images (N, C, H, W)."""
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import NearestNeighbors

    pca = PCA.fit(training, dim)
    codes = pca.encode(training).numpy()
    nearest = NearestNeighbors(n_neighbors=5).fit(codes)
    forest = IsolationForest(random_state=0).fit(codes)
    found: dict[str, Scorer] = {
        f"PCA-{dim} reconstruction": lambda x: (x - pca.project(x)).square().flatten(1).mean(1),
        f"5 nearest neighbours, PCA-{dim}": lambda x: torch.from_numpy(
            nearest.kneighbors(pca.encode(x).numpy())[0].mean(1)
        ),
        f"Isolation Forest, PCA-{dim}": lambda x: torch.from_numpy(
            -forest.score_samples(pca.encode(x).numpy())
        ),
    }
    if not find_spec("pyod"):
        say("pyod is not installed: without ECOD and COPOD")
        return found
    from pyod.models.copod import COPOD
    from pyod.models.ecod import ECOD

    for name, detector in (("ECOD", ECOD()), ("COPOD", COPOD())):
        # Both rank new points among all that were fitted, so fewer keep the time bearable.
        detector.fit(codes[:5000])
        found[f"{name}, PCA-{dim}"] = lambda x, detector=detector: torch.from_numpy(
            detector.decision_function(pca.encode(x).numpy())
        )
    return found


def autoencoder(model: Any) -> Scorer:
    """Reconstruction error of an autoencoder."""
    return lambda x: in_batches(lambda part: (model.project(part) - part).square().flatten(1).mean(1), x)


def likelihood(model: Any) -> Scorer:
    """−log p of an ambient flow, of dequantised images."""

    def score(x: Tensor) -> Tensor:
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
        return -in_batches(model.log_prob, (x * 255 + noise) / 256)

    return score


def statistics(x: Tensor, model: Any, volume: bool) -> Statistics:
    """What a model makes of many images."""
    return Statistics.joined([statistics_of(part, model, volume) for part in x.split(250)])


def rows_of(
    model: Any, training: Tensor, fresh: Tensor, strange: dict[str, Tensor]
) -> dict[str, dict[str, Any]]:
    """The scores of ours by formula, each set seen once."""
    usual = reference_of(statistics(training, model, False))
    rows: dict[str, dict[str, Any]] = {}
    for volume in (False, True):
        most = FEW if volume else None
        familiar = statistics(fresh[:most], model, volume)
        sets = {name: statistics(x[:most], model, volume) for name, x in strange.items()}
        for score in [name for name in SCORES if (name in VOLUME) == volume]:
            inside = SCORES[score](familiar, usual)
            rows[score] = {name: auroc(inside, SCORES[score](found, usual)) for name, found in sets.items()}
    return rows


def auto_of(model: Any, data: Any) -> dict[str, Any]:
    """What `auto` makes of every strange set, and how many familiar images it calls strange."""
    images, familiar, strange = data
    few, known, fresh = images.subset(range(min(FITTED, len(images)))), familiar[::2], familiar[1::2]
    detector = Detector(model).calibrate(known, 0.05, few)
    inside = detector.score(fresh)
    five, one = (float((inside.p_values <= alpha).double().mean()) for alpha in (0.05, 0.01))
    found = {key: separation(inside.scores, detector.score(x).scores) for key, x in strange.items()}
    say("auto: " + ", ".join(f"{key} {cell['auroc']:.4f}" for key, cell in found.items()))
    return {
        "auto": found, "fpr_5": five, "fpr_1": one, "fresh": len(fresh), "calibration": len(known),
        "components": len(detector.calibration.evidence.mixture.weights),
    }  # fmt: skip


def table_of(name: str, data: Any, folder: Path, quick: bool) -> dict[str, Any]:
    """Every score against every strange set of one data set; kept as ood.json beside the models."""
    images, familiar, strange = data
    config, seconds = training_config(name, quick), BUDGETS["quick" if quick else name]
    model, spent = trained(images, config, folder / "m-flow", seconds)
    training, fresh = images.batch(slice(0, FITTED)), familiar[1::2]
    table = auto_of(model, data)
    scores = {"auto": {key: cell["auroc"] for key, cell in table["auto"].items()}}
    scores |= rows_of(model, training, fresh, strange)
    scorers = beside(training, model.dim)
    for algorithm, kind in (("pae", autoencoder), ("af", likelihood)):
        other, _ = trained(images, config.with_(algorithm=algorithm), folder / algorithm, seconds)
        scorers[{"pae": "autoencoder, equal time", "af": "ambient flow, equal time"}[algorithm]] = kind(other)
    for row, scorer in scorers.items():
        inside_row = scorer(fresh)
        scores[row] = {key: auroc(inside_row, scorer(x)) for key, x in strange.items()}
        say(f"{name} {row}: " + ", ".join(f"{key} {area:.3f}" for key, area in scores[row].items()))
    table |= {"scores": scores, "trained_cpu_seconds": spent}
    (folder / "ood.json").write_text(json.dumps(table))
    return table


def write_page(tables: dict[str, dict[str, Any]]) -> None:
    """benchmarks/ood.md: the tables."""
    lines = ["# Strange images", "", *"\n\n".join(__doc__.split("\n\n")[1:]).splitlines(), ""]
    for name, table in tables.items():
        fresh = table["fresh"]
        bounds = {a: 1.96 * math.sqrt(a * (1 - a) / fresh) for a in (0.05, 0.01)}
        lines += [
            f"## {name}", "",
            f"{table['calibration']} calibration and {fresh} fresh familiar images; a mixture of "
            f"{table['components']} Gaussians; the model was trained for "
            f"{table['trained_cpu_seconds']:.0f} CPU seconds. Share of fresh images called strange: "
            f"**{table['fpr_5']:.2%}** at α = 5 % (binomial interval ±{bounds[0.05]:.2%}), "
            f"**{table['fpr_1']:.2%}** at α = 1 % (±{bounds[0.01]:.2%}).", "",
            "`auto`, with 95 % bootstrap intervals:", "",
            "| against | AUROC | AUPR | FPR at 95 % TPR |", "|---|---|---|---|",
        ]  # fmt: skip
        for key, cell in table["auto"].items():
            cells = [
                "{:.4f} ({:.4f}–{:.4f})".format(cell[n], *cell[f"{n}_interval"])
                for n in ("auroc", "aupr", "fpr95")
            ]
            lines.append(f"| {key} | " + " | ".join(cells) + " |")
        keys = list(table["auto"])
        lines += ["", "AUROC of every score:", "", "| | mean | worst | " + " | ".join(keys) + " |"]
        lines.append("|---" * (len(keys) + 3) + "|")
        for row, areas in table["scores"].items():
            values = list(areas.values())
            cells = [f"{v:.3f}" for v in (np.mean(values), min(values), *values)]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        lines.append("")
    Path(__file__).with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def main() -> None:
    """Clothes, digits, and faces where they are at hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute or two, for a look")
    parser.add_argument("--models", type=Path, default=Path("runs/benchmarks"), help="where models are kept")
    parser.add_argument("--data", default="fashion-mnist,mnist,celeba", help="which data, comma-separated")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's idx files ($MFIMAGE_DATA)")
    parser.add_argument("--model", help="a run of another model of Fashion-MNIST, by auto alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quick, names = arguments.quick, arguments.data.split(",")
    if arguments.model:
        if data := data_of("fashion-mnist", quick, arguments.mnist):
            put(quick, **auto_of(from_pretrained(arguments.model), data))
        return
    for name in names[:1] if quick else names:
        if data := data_of(name, quick, arguments.mnist):
            table_of(name, data, arguments.models / ("quick" if quick else name), quick)
    folders = ["quick"] if quick else ["fashion-mnist", "mnist", "celeba"]
    files = {name: arguments.models / name / "ood.json" for name in folders}
    tables = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    if not quick:
        write_page(tables)
    first = next(iter(tables.values()))
    areas = list(first["scores"]["auto"].values())
    put(
        quick, scores={name: table["scores"] for name, table in tables.items()}, mean=float(np.mean(areas)),
        worst=min(areas), fpr_5=first["fpr_5"], fpr_1=first["fpr_1"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
