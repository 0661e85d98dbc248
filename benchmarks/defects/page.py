"""The page and the picture of `textures.py`, from its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from defects.drawing import KINDS
from defects.tiles import Task
from torch import Tensor

from mfimage.eval.localisation import MEASURES
from mfimage.files import write_text

PAGE = Path(__file__).parents[1] / "textures.md"
FIGURE_ROWS = {"ours": "our map", "PatchCore": "PatchCore"}  # rows whose maps are drawn
_COLOURS = ("gray", "gray", "magma", "magma")
WORDS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}


def write_page(
    results: dict[str, Any], about: str, tasks: Sequence[Task], maps: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write benchmarks/textures.md and its picture, of maps by row and texture."""
    rows, sizes = results["rows"], results["sizes"]
    lines = [
        "# Defects in textures", "", *about.rstrip().splitlines(), "",
        "![The first of each kind of defect](textures.png)", "",
        f"{sizes['training']} tiles of a texture to learn from and {sizes['held']} held out; tested on "
        f"{sizes['good']} good ones and {sizes['each']} with each kind of defect. Means over "
        f"{len(tasks)} × {len(KINDS)} kinds with 95 % bootstrap intervals; CPU seconds.", "",
        *_means(rows), "",
    ]  # fmt: skip
    for one in tasks:
        said = f"## {one.name}"
        lines += [said, "", f"{', '.join(WORDS.values())}:", "", *_cells(rows, one.name), ""]
    lines += [f"Left out: {row}, as {reason}." for row, reason in results["left_out"].items()]
    write_text(PAGE, "\n".join(lines).rstrip() + "\n")
    draw(tasks, maps)


def _means(rows: dict[str, Any]) -> list[str]:
    head = ["", *WORDS.values(), "CPU seconds to fit", "to score an image"]
    body = []
    for name, row in rows.items():
        cells = ["{:.3f} ({:.3f}–{:.3f})".format(*row["mean"][key]) for key in WORDS]
        body.append([name, *cells, f"{row['cpu_seconds']:.3g}", f"{row['seconds_an_image']:.2g}"])
    return _lines(head, body)


def _cells(rows: dict[str, Any], texture: str) -> list[str]:
    """All measures of a texture, by row and kind of defect, and their means."""
    body = []
    for name, row in rows.items():
        if texture not in row["cells"]:
            continue
        table = np.array([[row["cells"][texture][kind][key] for key in MEASURES] for kind in KINDS])
        found = [*table, table.mean(0)]
        body.append([name, *(" / ".join(f"{value:.3f}" for value in values) for values in found)])
    return _lines(["", *KINDS, "mean"], body)


def _lines(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def draw(tasks: Sequence[Task], maps: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Draw the first tile of each kind of defect, its mask, and maps, each toned as `_toned` says."""
    from matplotlib.figure import Figure

    columns = [(one, kind) for one in tasks for kind in KINDS]
    words = ["image", "mask", *(FIGURE_ROWS[name] for name in maps)]
    figure = Figure(figsize=(len(columns), 1.05 * len(words) + 0.4), layout="constrained")
    axes = figure.subplots(len(words), len(columns), squeeze=False)
    for column, (one, kind) in enumerate(columns):
        image, mask = one.defects[kind][0][0, 0], one.defects[kind][1][0].float()
        found = [_toned(of[one.name], _first(one, kind)) for of in maps.values()]
        axes[0][column].set_title(f"{one.name}\n{kind}", fontsize=8)
        for axis, drawn, colours in zip(axes[:, column], (image, mask, *found), _COLOURS, strict=False):
            axis.imshow(drawn.numpy(), cmap=colours, vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
    for axis, word in zip(axes[:, 0], words, strict=True):
        axis.set_ylabel(word, fontsize=8)
    figure.savefig(PAGE.with_suffix(".png"), dpi=110)


def _first(one: Task, kind: str) -> int:
    """The place of the first tile with a kind of defect among a texture's test tiles."""
    before = list(one.defects)[: list(one.defects).index(kind)]
    return len(one.good) + sum(len(one.defects[other][0]) for other in before)


def _toned(maps: Tensor, row: int) -> Tensor:
    """One of a texture's maps, from 0 at their median to 1 at what one pixel in 200 reaches."""
    low, high = (maps.flatten()[::7].quantile(share) for share in (0.5, 0.995))
    return ((maps[row] - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
