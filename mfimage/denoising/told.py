"""What is told of restored images: a row of the table for each, and in words what was done."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mfimage.console import counted
from mfimage.denoising.curve import NOISY
from mfimage.denoising.restorer import Restored
from mfimage.eval.image_metrics import LEAST_SIDE, mse, psnr, ssim
from mfimage.noise import SaltPepper
from mfimage.streams import printable

Row: TypeAlias = dict[str, Any]

FEW = 12  # images of which each is told; more are summed up by method
FILLED = "lost values filled in"  # and no method makes the rest better
_NO_METHOD = "no method of this model makes {} better"


def rows_of(
    restored: Restored,
    paths: Sequence[str],
    whites: Sequence[float],
    written: Iterable[object],
    clean: Tensor | None,
) -> list[Row]:
    """Describe each image of a batch for the table.

    Args:
        restored: The batch.
        paths: Its files.
        whites: The value of white in each, see `decode.file_white`.
        written: The files of the results.
        clean: The true images (B, C, H, W); without them PSNR and SSIM are None.
    """
    found, before, after = restored.examination, restored.before, restored.after
    same = _same(before, after, whites)
    filled = [one.kind == SaltPepper.kind and not s for one, s in zip(restored.noise, same, strict=True)]
    methods = [FILLED if m == NOISY and f else m for m, f in zip(restored.methods, filled, strict=True)]
    small = min(after.shape[-2:]) < LEAST_SIDE
    columns: dict[str, Sequence[Any]] = {
        "path": paths, "output": [*map(str, written)],
        "sigma": found.sigma.tolist(), "noise": [one.brief for one in restored.noise],
        "white": whites, "method": methods,
        "change": mse(after, before).sqrt().tolist(), "same": same,
        "psnr_before": _unknown(paths) if clean is None else psnr(before, clean).tolist(),
        "psnr": _unknown(paths) if clean is None else psnr(after, clean).tolist(),
        "ssim": _unknown(paths) if clean is None or small else ssim(after, clean).tolist(),
        "distance": found.distance.tolist(), "residual": found.residual.tolist(),
        "score": found.score.tolist(), "score_after": found.score_after.tolist(),
        "strangeness": found.strangeness.tolist(),
        "warning": found.messages(paths, [method != NOISY for method in methods]),
    }  # fmt: skip
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _unknown(paths: Sequence[str]) -> list[None]:
    return [None] * len(paths)


def _same(before: Tensor, after: Tensor, whites: Sequence[float]) -> list[bool]:
    """Tell which results have in their files the numbers of the image as it was given."""
    steps = torch.tensor([255.0 if white == 255 else 65535.0 for white in whites]).view(-1, 1, 1, 1)
    rounded = ((image.clamp(0, 1) * steps).round() for image in (before, after))
    return [torch.equal(one, other) for one, other in zip(*rounded, strict=True)]


def is_left(row: Row) -> bool:
    """Tell whether an image was left as it is."""
    return bool(row["method"] == NOISY)


def came_out_the_same(row: Row) -> bool:
    """Tell whether a method was used on an image, and gave in the numbers of its file what was there."""
    return bool(row["same"]) and not is_left(row)


def headline(rows: Sequence[Row], outdir: object) -> str:
    """Say how many images there are, and of how many nothing became."""
    left, same = (sum(map(check, rows)) for check in (is_left, came_out_the_same))
    said = f", {left:,} left as they are" if left else ""
    said += f", {same:,} equal to what was given" if same else ""
    return f"{counted(len(rows), 'image')} in {outdir}{said}"


def opaque(clear: int, count: int) -> list[str]:
    """Say of how many images results are not transparent."""
    images = f"{clear:,} of {counted(count, 'image')}"
    words = f"{images} may be transparent: they are laid on white, and their results are opaque"
    return [words] if clear else []


def told(rows: Sequence[Row], estimated: bool) -> list[str]:
    """Say what was done, a line each: of few images one by one, of many by method."""
    return _one_by_one(rows, estimated) if len(rows) <= FEW else _by_method(rows, estimated)


def _one_by_one(rows: Sequence[Row], estimated: bool) -> list[str]:
    lines = []
    for row in rows:
        lines.append([printable(row["path"]), noise_of(row, estimated), outcome(row)])
    return _aligned(lines)


def noise_of(row: Row, estimated: bool) -> str:
    """Say what noise was removed from an image, nothing if it was left as it is, or none was asked for."""
    if is_left(row) or not row["sigma"]:
        return ""
    return f"σ {amount(row['sigma'], row['white'])}{' estimated' * estimated}"


def outcome(row: Row) -> str:
    """Say what became of one image."""
    if is_left(row) and not math.isfinite(row["strangeness"]):
        return "left as it is: the model gives no finite numbers for it"
    if is_left(row):
        return f"left as it is: at σ = {row['sigma']:.2g} {_NO_METHOD.format('it')}"
    change = "the result equals it" if row["same"] else f"changed by {amount(row['change'], row['white'])}"
    return f"{row['method']}: {change}"


def quality_of(row: Row) -> str:
    """Say how near one image is to the clean one, before and after; nothing where that is not known."""
    if row["psnr"] is None:
        return ""
    return f"{row['psnr_before']:.1f} dB before, {row['psnr']:.1f} after"


def summary(rows: Sequence[Row]) -> list[Row]:
    """Sum up by method, the most used first: images, σ least, median and most, change in the median."""
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        sigma, change = ([row[key] for row in own] for key in ("sigma", "change"))
        found.append({
            "method": method, "images": len(own),
            "sigma_least": min(sigma), "sigma": median(sigma), "sigma_most": max(sigma),
            "change": median(change), "same": sum(row["same"] for row in own),
        })  # fmt: skip
    return sorted(found, key=lambda one: -int(one["images"]))


def _by_method(rows: Sequence[Row], estimated: bool) -> list[str]:
    lines, white = [], _common(row["white"] for row in rows)
    for one in summary(rows):
        noise = f"σ {_range(one, white)}{' estimated' * estimated}"
        if one["method"] == NOISY:
            what, done = "left as they are", f"at their noise {_NO_METHOD.format('them')}"
        else:
            what, done = one["method"], f"changed by {amount(one['change'], white)} in the median"
            done += f"; {_equal(one['same'])}" if one["same"] else ""
        lines.append([f"{one['images']:,}", what, noise, done])
    return _aligned(lines)


def _equal(count: int) -> str:
    return "1 result equals its input" if count == 1 else f"{count:,} results equal their inputs"


def _range(one: Mapping[str, Any], white: float) -> str:
    least, most = (amount(one[key], white) for key in ("sigma_least", "sigma_most"))
    return least if least == most else f"{one['sigma_least']:.2g} … {most}"


def _common(whites: Iterable[float]) -> float:
    """The white of all files, or 1, in whose units nothing needs be said, where they differ."""
    found = set(whites)
    return found.pop() if len(found) == 1 else 1.0


def amount(value: float, white: float) -> str:
    """Say a deviation on the scale of [0, 1], and in the units of the file.

    >>> amount(0.1, 255.0), amount(0.1, 1.0)
    ('0.1 (25/255)', '0.1')
    """
    if white == 1:
        return f"{value:.2g}"
    units = value * white
    return f"{value:.2g} ({units:.{0 if units >= 10 else 1}f}/{white:.0f})"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Put cells below one another; a column in which none says anything is left out."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([c.ljust(w) for c, w in zip(line, widths, strict=True) if w] for line in lines)
    return [f"  {'  '.join(cells)}".rstrip() for cells in padded]


def mean_quality(rows: Sequence[Row]) -> str:
    """Say how good the results are on average, and how much better than what was given."""
    measured = [row for row in rows if row["psnr"] is not None]
    finite = [row for row in measured if math.isfinite(row["psnr"])]
    if not measured:
        return "PSNR and SSIM: not measured"
    if not finite:
        return "PSNR infinite: the results are the clean images"
    reached, similar = _mean(finite, "psnr"), [row for row in measured if row["ssim"] is not None]
    words = f"PSNR {reached:.2f} dB{_gain(finite, reached)}"
    words += f", SSIM {_mean(similar, 'ssim'):.4f}" if similar else ""
    return f"{words}, mean over {counted(len(finite), 'image')}"


def _gain(rows: Sequence[Row], reached: float) -> str:
    given = _mean(rows, "psnr_before")
    if not math.isfinite(given):
        return ""
    gain = reached - given
    return f" ({abs(gain):.2f} dB {'above' if gain >= 0 else 'BELOW'} the {given:.2f} dB of the input)"


def _mean(rows: Sequence[Row], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)
