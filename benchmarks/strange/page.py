"""The page of `ood.py`, from the results that are kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from strange.bars import Found, areas_of_classes, bars, inside_of, mean_and_worst
from strange.measures import BINS
from strange.parts import TREATED
from strange.rows import AUTO

from mfimage.files import write_text

NEIGHBOURS = "5 nearest neighbours"
SAID = (
    "In every cell AUROC, and behind it the share flagged, in percent, at α = 5, 1 and .1 % of false alarms, "
    "the threshold being set by other familiar images. ∅: a row that costs nothing (mean and contrast, zlib "
    f"bytes, gradient energy) does as well as `auto`; such a pair proves nothing. Same bits: familiar and "
    f"strange images of which as many lie between every two of {BINS} quantiles of zlib's bits."
)
OF_MIRRORS = (
    "Mirrored images are no failure and enter no mean: clothes and faces are nearly symmetric, so a mirrored "
    "one is as familiar as it was. Their row shows it."
)
LEFT_OUT = "left_out"


def write_page(path: Path, about: str, found: Found) -> Path:
    """Write the page of all parts that there are."""
    lines = [
        "# Strange images",
        "",
        *about.strip().splitlines(),
        "",
        *_bars(found),
        "",
        SAID,
        "",
        OF_MIRRORS,
        "",
    ]
    for name in ("clothes", "digits", "faces"):
        lines += _set(found, name)
    lines += [*_classes(found, "leave-out", "clothes"), *_classes(found, "cifar", "CIFAR-10")]
    lines += [*_alarms(found), *_families(found), *_left_out(found)]
    return write_text(path, "\n".join(lines).rstrip() + "\n")


def _bars(found: Found) -> list[str]:
    body = []
    for bar in bars(found):
        value = "not measured" if bar.found is None else f"{bar.found:.4g}"
        met = {None: "–", True: "pass", False: "miss"}[bar.met]
        body.append([bar.name, f"≥ {bar.asked:g}", f"**{value}**" if bar.met else value, met])
    return _table(["asked", "", "found", ""], body)


def _set(found: Found, name: str) -> list[str]:
    """A set: what there is, `auto` against each strange set, all rows."""
    one = found.get(name, {}).get(name, {})
    if "rows" not in one:
        return []
    spent = one["trained_cpu_seconds"]
    trained = "" if spent is None else f" The model was trained for {spent:.0f} CPU seconds."
    flagged = _percents(one["fresh_flagged"])
    lines = [
        f"## {name}", "",
        f"{one['calibration']} calibration and {one['fresh']} fresh familiar images; a mixture of "
        f"{one['components']} Gaussians.{trained} Of the fresh ones {flagged} % are flagged."
        + "".join(f" {note[0].upper()}{note[1:]}." for note in one["notes"]), "",
    ]  # fmt: skip
    treated = found.get(name + TREATED, {}).get(name, {})
    return [*lines, *_auto(one, treated if "rows" in treated else {}), "", *_rows(one), ""]


def _auto(one: dict[str, Any], treated: dict[str, Any]) -> list[str]:
    head = ["`auto` against", "AUROC", "AUPR", "FPR at 95 % TPR", "flagged"]
    head += ["same bits (images)", "best that costs nothing"]
    head += ["all treated alike", "best that costs nothing"] if treated else []
    body = []
    for name, cell in one["rows"][AUTO].items():
        area = "{:.4f} ({:.4f}–{:.4f})".format(cell["auroc"], *cell["auroc_interval"])
        numbers = [area, f"{cell['aupr']:.3f}", f"{cell['fpr95']:.4f}"]
        body.append([name, *numbers, _percents(cell["flagged"]), _same_bits(one, name), _nothing(one, name)])
        if treated:
            known = name in treated["rows"][AUTO]
            body[-1] += [_cell(treated["rows"][AUTO][name]), _nothing(treated, name)] if known else ["–"] * 2
    return _table(head, body)


def _rows(one: dict[str, Any]) -> list[str]:
    names, counted = list(one["rows"][AUTO]), one["counted"]
    body = []
    for row, cells in one["rows"].items():
        both = [f"{value:.3f}" for value in mean_and_worst(cells, counted)]
        body.append([row, *both, *(_cell(cells[name]) for name in names)])
    said = f"All rows; mean and worst are over {', '.join(counted)}:"
    return [said, "", *_table(["", "mean", "worst", *names], body)]


def _classes(found: Found, part: str, of: str) -> list[str]:
    """Classes left out: `auto` and neighbours, each class and their means."""
    steps = {kind: one for kind, one in found.get(part, {}).items() if "rows" in one}
    if not steps:
        return []
    body = []
    for kind, one in steps.items():
        beside = next(cells for row, cells in one["rows"].items() if row.startswith(NEIGHBOURS))
        cells = one["rows"][AUTO][kind], beside[kind]
        body.append([kind, *map(_cell, cells), _same_bits(one, kind), _nothing(one, kind)])
    means = [np.mean(list(areas_of_classes(found, part, row).values())) for row in (AUTO, NEIGHBOURS)]
    body.append([f"mean of {len(steps)}", *(f"{mean:.3f}" for mean in means), "", ""])
    head = ["class", "`auto`", f"{NEIGHBOURS}, PCA", "same bits (images)", "best that costs nothing"]
    spent = [one["trained_cpu_seconds"] for one in steps.values()]
    said = (
        f"Each class of {of} in turn is strange to a model that was trained without it for "
        f"{min(spent):.0f} to {max(spent):.0f} CPU seconds; the test images of the others are familiar."
    )
    return [f"## {of} without one class", "", said, "", *_table(head, body), ""]


def _alarms(found: Found) -> list[str]:
    """Counts of false alarms, by set and seed."""
    steps = {step: one for step, one in found.get("false-alarms", {}).items() if "alphas" in one}
    if not steps:
        return []
    alphas, body = list(next(iter(steps.values()))["alphas"]), []
    for step, one in steps.items():
        cells = []
        for cell in one["alphas"].values():
            said = (
                cell
                and f"{cell['count']} ({cell['low']}–{cell['high']}){'' if cell['inside'] else ' outside'}"
            )
            cells.append(said or "too few to calibrate")
        body.append([step, str(one["calibration"]), str(one["fresh"]), *cells])
    names = dict.fromkeys(step.rpartition("-")[0] for step in steps)
    counts = [
        f"{name} {sum(inside)} of {len(inside)}" for name in names if (inside := inside_of(found, name))
    ]
    said = (
        "Fresh familiar images that are flagged, of another division at each seed, with the 95 % interval of "
        f"the Beta-binomial law, in which the threshold is drawn too. Inside: {', '.join(counts)}."
    )
    head = ["set and seed", "calibration", "fresh", *(f"α = {float(alpha):.1%}" for alpha in alphas)]
    return ["## False alarms", "", said, "", *_table(head, body), ""]


def _families(found: Found) -> list[str]:
    lines = []
    for step, one in found.get("families", {}).items():
        if "rows" not in one:
            continue
        head = ["", "", "`auto`", "flagged", "same bits (images)", "best that costs nothing", NEIGHBOURS]
        beside = next(cells for row, cells in one["rows"].items() if row.startswith(NEIGHBOURS))
        body = [
            [name, one["families"][name], f"{cell['auroc']:.3f}", _percents(cell["flagged"]),
             _same_bits(one, name), _nothing(one, name), _cell(beside[name])]
            for name, cell in one["rows"][AUTO].items()
        ]  # fmt: skip
        notes = "".join(f" {note[0].upper()}{note[1:]}." for note in one["notes"])
        said = f"`--families`, a file of SHA-256 {one['sha256'][:12]}….{notes}"
        lines += [f"## Families: {step}", "", said, "", *_table(head, body), ""]
    return lines


def _left_out(found: Found) -> list[str]:
    lines = []
    for part, steps in found.items():
        reasons: dict[str, list[str]] = {}
        for step, one in steps.items():
            if LEFT_OUT in one:
                reasons.setdefault(" ".join(one[LEFT_OUT].split()), []).append(step)
        lines += [f"Left out: {part} ({', '.join(names)}): {reason}.\n" for reason, names in reasons.items()]
    return lines


def _cell(cell: dict[str, Any]) -> str:
    return f"{cell['auroc']:.3f} ({_percents(cell['flagged'])})"


def _percents(flagged: dict[str, float | None]) -> str:
    """Shares in percent, one an α."""
    return " / ".join("–" if share is None else f"{100 * share:.3g}" for share in flagged.values())


def _same_bits(one: dict[str, Any], name: str) -> str:
    cell = one["matched"][name]
    return "too few" if cell is None else f"{_cell(cell)} ({cell['images']})"


def _nothing(one: dict[str, Any], name: str) -> str:
    best = one["nothing"][name]
    cell = one["rows"][best["row"]][name]
    return f"{'∅ ' if best['wins'] else ''}{best['row']} {_cell(cell)}"


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
