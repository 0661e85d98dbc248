"""The page and the picture of `denoising.py`, from its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from denoisers.sets import GAUSSIAN, PHOTONS

from mfimage.files import write_text

Results = dict[str, dict[str, Any]]  # by set
PAGE = Path(__file__).parents[1] / "denoising.md"
LINES = {"auto": "C3", "CNN": "C0", "DnCNN": "C9", "FFDNet": "C4", "BM3D": "C2", "TV (best weight)": "0.5"}
UNDRAWN = ("noisy", "auto blind")  # where time is drawn: the one takes none, the other is auto again


def write_page(results: Results, about: str) -> None:
    """Write benchmarks/denoising.md and its picture."""
    lines = ["# Denoising", "", *about.splitlines(), "", "![PSNR against σ](denoising.png)", ""]
    for name, one in results.items():
        spent = ", ".join(f"{model} {s:.0f}" for model, s in one["trained_cpu_seconds"].items() if s)
        lines += [f"## {name}", "", f"CPU seconds of training: {spent or 'none'}.", ""]
        parts = (_table(one), _ahead(one), _photons(one), _facts(one), _bars(one))
        lines += [line for part in parts if part for line in (*part, "")]
        lines += [f"Left out: {reason} – {row}." for row, reason in one["left_out"].items()] + [""]
    write_text(PAGE, "\n".join(lines))
    draw(results)


def _table(one: dict[str, Any]) -> list[str]:
    levels = [str(noise) for noise in GAUSSIAN]
    head = ["method", "σ", *[f"σ = {level}" for level in levels], "seconds an image", "images"]
    rows = []
    for name, cells in one["rows"].items():
        seconds = np.mean([cells[level]["seconds"] for level in levels if level in cells])
        first = cells[levels[0]]
        shown = [_cell(cells.get(level)) for level in levels]
        rows.append([name, one["sigma"][name], *shown, f"{seconds:.2g}", str(first["images"])])
    return ["Gaussian noise: PSNR in dB ± half its 95 % interval / SSIM.", "", *_lines(head, rows)]


def _ahead(one: dict[str, Any]) -> list[str]:
    """How much better auto is than each row."""
    levels = [str(noise) for noise in GAUSSIAN]

    def shown(cell: dict[str, Any] | None) -> str:
        if cell is None or "auto_over" not in cell:
            return "–"
        return f"{cell['auto_over']:+.2f} ± {cell['auto_over'] - cell['auto_over_low']:.2f}"

    rows = [
        [name, *[shown(cells.get(level)) for level in levels]]
        for name, cells in one["rows"].items()
        if name != "auto"
    ]
    if "auto" not in one["rows"]:
        return []
    head = ["auto over", *[f"σ = {level}" for level in levels]]
    return ["What `auto` gains over each in dB, on the same images:", "", *_lines(head, rows)]


def _photons(one: dict[str, Any]) -> list[str]:
    noises = [str(noise) for noise in PHOTONS]
    rows = [
        [name, *[_cell(cells.get(noise)) for noise in noises], str(cells[noises[0]]["images"])]
        for name, cells in one["rows"].items()
        if noises[0] in cells
    ]
    return [
        "Photons, the peak at white, and Gaussian noise of the reading:",
        "",
        *_lines(["method", *noises, "images"], rows),
    ]


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    return f"{cell['psnr']:.2f} ± {cell['psnr'] - cell['low']:.2f} / {cell['ssim']:.3f}"


def _facts(one: dict[str, Any]) -> list[str]:
    if not one["facts"]:
        return []
    names = list(next(iter(one["facts"].values())))
    rows = [[noise, *[f"{values[name]:.3g}" for name in names]] for noise, values in one["facts"].items()]
    return _lines(["σ", *[name.replace("_", " ") for name in names]], rows)


def _bars(one: dict[str, Any]) -> list[str]:
    def found(bar: dict[str, Any]) -> str:
        ends = f" ({bar['low']:.4g} … {bar['high']:.4g})" if "low" in bar else ""
        return (f"**{bar['found']:.4g}**" if bar["met"] else f"{bar['found']:.4g}") + ends

    rows = [
        [name, bar["asked"], found(bar), "yes" if bar["met"] else "no"] for name, bar in one["bars"].items()
    ]
    return _lines(["asked of ours", "", "found", "met"], rows) if rows else []


def _lines(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def draw(results: Results) -> None:
    """Draw PSNR against σ, and against CPU seconds at σ = .1, a column a set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(results), 7.6), layout="constrained")
    grid = figure.subplots(2, len(results), squeeze=False)
    for column, (name, one) in enumerate(results.items()):
        _against_sigma(grid[0][column], name, one["rows"])
        _against_time(grid[1][column], one["rows"])
    figure.savefig(PAGE.with_suffix(".png"), dpi=110)


def _against_sigma(axes: Any, name: str, rows: dict[str, Any]) -> None:
    """A few lines, each named on the right; none where the noisy images were not measured."""
    if "noisy" not in rows:
        return
    drawn = {row: colour for row, colour in LINES.items() if row in rows}
    ends = {}
    for row, colour in drawn.items():
        levels = [str(noise) for noise in GAUSSIAN if str(noise) in rows[row]]
        gains = [rows[row][s]["over_noisy"] for s in levels]
        sigmas = [float(s) for s in levels]
        axes.plot(sigmas, gains, color=colour, marker="o", ms=3, lw=2.5 if row == "auto" else 1.3)
        ends[row] = (sigmas[-1], gains[-1])
    gap = 0.055 * np.ptp(axes.get_ylim())
    heights = spread({row: height for row, (_, height) in ends.items()}, gap)
    for row, (right, height) in ends.items():
        text = row if right == GAUSSIAN[-1].sigma else f"{row} (to {right:g})"
        place = (GAUSSIAN[-1].sigma + 0.015, heights[row])
        axes.annotate(text, (right, height), place, color=drawn[row], va="center", annotation_clip=False)
    axes.set(title=name, xlabel="σ of the noise", ylabel="PSNR over the noisy image, dB", xlim=(0.03, 0.7))
    axes.set_xticks([noise.sigma for noise in GAUSSIAN], [str(noise).lstrip("0") for noise in GAUSSIAN])
    axes.spines[["top", "right"]].set_visible(False)


def _against_time(axes: Any, rows: dict[str, Any], sigma: str = "0.1") -> None:
    """A point a row, named beside it."""
    shown = {name: cells[sigma] for name, cells in rows.items() if name not in UNDRAWN}
    least = min(cell["seconds"] for cell in shown.values()) if shown else 1.0
    for name, cell in shown.items():
        colour = LINES.get(name, "0.4")
        axes.plot(cell["seconds"], cell["psnr"], "o", color=colour, ms=4)
        axes.annotate(" " + name, (cell["seconds"], cell["psnr"]), color=colour, fontsize=8, va="center")
    axes.set(xscale="log", xlabel="CPU seconds an image", ylabel=f"PSNR at σ = {sigma}, dB")
    axes.set_xlim(least / 2, None)
    axes.margins(x=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def spread(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Move heights apart by at least a gap, upwards from the lowest."""
    moved: dict[str, float] = {}
    last = -np.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        last = max(height, last + gap)
        moved[name] = last
    return moved
