"""Whether the numbers of `mfimage evaluate` are right, what they cost, and tables of models by them.

parity: 600 and 600 clothes as PNG files, by `python -m pytorch_fid` and by this package; KID and precision,
recall, density and coverage of the same features by torch-fidelity and prdc, where these are installed.
ordering: 500 CelebA validation faces against 500 others, the same others with noise of σ = 25/255, and
Tiny-ImageNet. rates: the Inception's features of images against a bare forward pass on images that have their
size already; the Fréchet distance of 5,000 and 5,000 features of length 2,048 on two cores.
fashion-mnist, celeba: models of equal d, each trained for the CPU time of `harness.BUDGETS` or --time (what
it took in the end, with validation and the measurement of denoising, stands in the table), by protocol
mfimage with 1,000 samples; "detail" is drawn from σ = .5; the row --sharp learns no noise. Beside ours those
of pythae on the networks of our autoencoder (VAE; WAE; RAE with a mixture of Gaussians), and a small U-Net of
denoising-diffusion-pytorch, sampled in 50 steps. AUROC: whether digits are told from clothes by the squared
reconstruction error, by an ambient flow with −log p. The models are trained at first and kept in --models
FOLDER; what is found is kept in evaluations/rows, so that a table may be made row by row (--only), and the
page is written of all that is there. Others' packages are needed for their rows alone:

    pip install --no-deps pythae pydantic pydantic-core annotated-types typing-inspection cloudpickle \
        denoising-diffusion-pytorch ema-pytorch einops tqdm
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from evaluations.peers import PEERS, trained_peer
from evaluations.soundness import Values, ordering, parity, rates
from harness import BUDGETS, LeftOutError, celeba, put, say, trained, training_config
from torch import Tensor

from mfimage.datasets import load
from mfimage.errors import MfimageError
from mfimage.eval import (
    METRICS,
    Comparison,
    Number,
    auroc,
    compare,
    read_evaluation,
)
from mfimage.eval.evaluation import evaluate_once
from mfimage.eval.image_metrics import mse
from mfimage.inputs import in_batches
from mfimage.run import environment

SOUNDNESS, TABLES = ("parity", "rates", "ordering"), ("fashion-mnist", "celeba")
OWN: dict[str, dict[str, Any]] = {  # folder of a model → its settings
    "m-flow": {},
    "m-flow-sharp": {"sharp": True, "noise": 0.0},
    "me-flow": {"algorithm": "me-flow"},
    "pie": {"algorithm": "pie"},
    "af": {"algorithm": "af"},
    "pae": {"algorithm": "pae"},
    "pca": {"algorithm": "pca"},
}
ROWS = {
    "M-flow": "m-flow", "M-flow --sharp": "m-flow-sharp", "Me-flow": "me-flow", "PIE": "pie", "AF": "af",
    "ae": "pae", "PCA": "pca", **{row: name for name, (row, *_) in PEERS.items()},
}  # fmt: skip
KEPT = Path(__file__).parent / "evaluations" / "rows"  # a file a part; a folder a data set, a file a row
OF_DENSITIES = ("density", "geometry", "latent")  # metrics of models that have one
SHOWN = (  # with intervals
    "fid", "fid_detail", "fid_reconstructions", "fid_floor", "kid", "kid_detail", "recall", "recall_detail",
    "psnr",
)  # fmt: skip


def strange(mnist: Path | None, shape: tuple[int, ...]) -> tuple[str, Tensor]:
    """Digits in the shape of the images, MNIST's if they are there."""
    try:
        return "MNIST", load("mnist", "test", root=mnist).batch(slice(0, 2000))
    except MfimageError as error:
        say(f"the small digits in place of MNIST: {str(error).splitlines()[0]}")
        return "digits", load("digits", "all", shape[1:], shape[0]).batch(slice(None))


def strangeness(model: Any, x: Tensor) -> Tensor:
    """Squared reconstruction error; of an ambient flow −log p, dequantised."""
    if model.has_ambient_density:
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
        return -in_batches(model.log_prob, (x * 255 + noise) / 256)
    return in_batches(lambda part: mse(part, model.project(part)), x)


def table(
    name: str, folder: Path, quick: bool, mnist: Path | None, only: list[str], time: float | None
) -> Values:
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
    config, seconds = training_config(name, quick), time or BUDGETS["quick" if quick else name]
    rows: Values = {}
    metrics = ("reconstruction", "fd") if quick else METRICS
    what, digits = ("", None) if name == "celeba" else strange(mnist, training.shape)
    for row, which in ROWS.items():
        if only and which not in only:
            continue
        try:
            if which in PEERS:
                model, spent = trained_peer(which, training, config.dim or 0, seconds, folder / which, quick)
            else:
                own = config.with_(**OWN[which], steps=20 if quick else None)
                free = quick or which == "pca"
                model, spent = trained(training, own, folder / which, None if free else seconds)
        except LeftOutError as reason:
            say(f"{name} {row}: left out: {reason}")
            continue
        say(f"{name} {row}")
        report = evaluate_once(
            folder / f"{which}-evaluation.json", test, model, training,
            metrics=[one for one in metrics if which in OWN or one not in OF_DENSITIES],
            samples=100 if quick else 1000, density_images=100, tell=say,
        )  # fmt: skip
        rows[row] = {key: report.numbers[key].value for key in report.numbers}
        rows[row]["cpu_seconds"] = spent
        if digits is not None and (model.has_manifold or model.has_ambient_density):
            inside, outside = strangeness(model, test.batch(slice(0, 2000))), strangeness(model, digits)
            rows[row][f"auroc {what}"] = auroc(inside, outside)
        if not quick:
            keep(KEPT / name / f"{which}.json", rows[row], folder / f"{which}-evaluation.json")
    return rows


def keep(path: Path, values: dict[str, float], evaluation: Path) -> None:
    """Keep a row: its evaluation, what that lacks, and the machine; of paths the last part alone."""
    known = json.loads(evaluation.read_text())
    for data in known["data"].values():
        data["name"] = " + ".join(Path(one).name for one in data["name"].split(" + "))
    beside = {key: value for key, value in values.items() if key not in known["numbers"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"values": beside, "machine": environment()["processor"], "evaluation": known}
    path.write_text(json.dumps(found) + "\n")


def kept_rows(name: str) -> dict[str, dict[str, Any]]:
    """Read the rows of a table that were found, by their titles."""
    paths = {row: KEPT / name / f"{which}.json" for row, which in ROWS.items()}
    return {row: json.loads(path.read_text()) for row, path in paths.items() if path.exists()}


def row_of(values: Values, columns: list[str]) -> str:
    """A line of a table."""
    cells = [f"{values[c]:.4g}" if c in values else "–" for c in columns]
    return " | ".join(cells)


def with_interval(n: Number | None) -> str:
    """A number and its 95 % interval."""
    if n is None:
        return "–"
    return f"{n.value:.4g}" + ("" if n.interval is None else " ({:.4g}–{:.4g})".format(*n.interval))


def write_page() -> None:
    """benchmarks/evaluation.md: all figures that are kept."""
    paths = {name: KEPT / f"{name}.json" for name in SOUNDNESS}
    found = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
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
    for name in TABLES:
        if not (rows := kept_rows(name)):
            continue
        first = next(iter(rows.values()))["values"]
        extra = [key for key in first if key.startswith("auroc")] + ["cpu_seconds"]
        side = compared(rows)
        lines += [
            f"## {name}", "", "| | " + " | ".join(c.replace("_", " ") for c in (*SHOWN, *extra)) + " |",
            "|---" * (len(SHOWN) + len(extra) + 1) + "|",
        ]  # fmt: skip
        for row, one in rows.items():
            cells = [with_interval(side.reports[row].numbers.get(c)) for c in SHOWN]
            lines.append(f"| {row} | " + " | ".join(cells) + f" | {row_of(one['values'], extra)} |")
        lines += ["", f"On {', '.join(sorted({one['machine'] for one in rows.values()}))}.", ""]
        lines += [side.markdown(), ""]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def compared(rows: dict[str, dict[str, Any]]) -> Comparison:
    """The evaluations side by side, as `mfimage compare` would."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {row: Path(folder, ROWS[row]) for row in rows}
        for row, path in paths.items():
            path.write_text(json.dumps(rows[row]["evaluation"]))
        return compare({row: read_evaluation(path) for row, path in paths.items()})


def main() -> None:
    """Each part, kept as a file; the page is written from what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute or two, for a look")
    parser.add_argument("--models", type=Path, default=Path("runs/benchmarks"), help="where models are kept")
    parser.add_argument(
        "--parts", default=",".join(SOUNDNESS + TABLES), help="which parts, comma-separated; or none"
    )
    parser.add_argument("--only", default="", help="which models of a table, comma-separated")
    parser.add_argument("--time", type=float, help="CPU seconds of a training")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's idx files ($MFIMAGE_DATA)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quick, folder = arguments.quick, arguments.models
    folder = Path(tempfile.mkdtemp()) if quick else folder
    only = [name for name in arguments.only.split(",") if name]
    parts: dict[str, Callable[[], Values]] = {
        "parity": lambda: parity(quick),
        "rates": lambda: rates(quick),
        "ordering": lambda: ordering(quick),
        "fashion-mnist": lambda: table(
            "fashion-mnist", folder / "fashion-mnist", quick, arguments.mnist, only, arguments.time
        ),
        "celeba": lambda: table("celeba", folder / "celeba", quick, None, only, arguments.time),
    }
    found = {name: parts[name]() for name in arguments.parts.split(",") if name in parts}
    tables = {name: found.pop(name) for name in TABLES if name in found}
    if not quick:
        for name, values in found.items():
            (KEPT / f"{name}.json").write_text(json.dumps(values) + "\n")
        write_page()
    put(quick, tables=tables, **{name: found.get(name, {}) for name in SOUNDNESS})


if __name__ == "__main__":
    main()
