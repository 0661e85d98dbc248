"""What `mfimage denoise` tells of its images: a row each, a file of comma-separated values, a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfimage.datasets.pictures import save_png, sheet
from mfimage.datasets.pixels import resize
from mfimage.denoising.work import Done
from mfimage.eval.image_metrics import psnr, ssim
from mfimage.files import write_text

COLUMNS = (
    "path", "output", "sigma", "method", "psnr", "ssim", "distance", "residual", "score", "score_after",
    "warning",
)  # fmt: skip
SHOWN = 32  # groups on the sheet, at most
_GROUPS = 4  # images beside each other on the sheet, each with what it was


def rows_of(
    done: Done, paths: Sequence[str], written: Sequence[Path], clean: Tensor | None
) -> list[dict[str, Any]]:
    """Describe each image of a batch.

    Args:
        done: What was made of them.
        paths: Of the inputs.
        written: Of the results.
        clean: The clean images, shape (B, C, H, W), in [0, 1], if they are known.

    Returns:
        By `COLUMNS`: sigma, distance, residual and scores as in `report.Report`; psnr (dB) and ssim None
        without clean images; warning empty where the image is familiar.
    """
    report = done.report
    quality: tuple[Sequence[float | None], ...] = ([None] * len(paths),) * 2
    if clean is not None:
        quality = psnr(done.after, clean).tolist(), ssim(done.after, clean).tolist()
    columns = (
        paths, map(str, written), report.sigma.tolist(), done.methods, *quality, report.distance.tolist(),
        report.residual.tolist(), report.score.tolist(), report.score_after.tolist(), report.messages(paths),
    )  # fmt: skip
    return [dict(zip(COLUMNS, values, strict=True)) for values in zip(*columns, strict=True)]


def write_csv(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write rows with a head, numbers with 6 digits, nothing for None, whole or not at all."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in (row[name] for name in COLUMNS)])
    write_text(path, stream.getvalue())


def thumbnails(done: Done, clean: Tensor | None, size: tuple[int, int], most: int) -> list[Tensor]:
    """Scale before, after and, if known, clean of the first images to a size: each (2 or 3, C, h, w)."""
    rows = [done.before, done.after, *([] if clean is None else [clean])]
    return [torch.stack([_scaled(row[i], size) for row in rows]) for i in range(min(most, len(done.after)))]


def _scaled(image: Tensor, size: tuple[int, int]) -> Tensor:
    values = np.ascontiguousarray(image.movedim(0, -1).float().numpy())
    return torch.from_numpy(resize(values, size)).movedim(-1, 0)


def write_sheet(groups: Sequence[Tensor], path: Path) -> None:
    """Write a picture of groups (before, after, clean), a few beside each other."""
    save_png(sheet(torch.cat(list(groups)), len(groups[0]) * min(_GROUPS, len(groups))), path)


def means(rows: Sequence[dict[str, Any]]) -> str:
    """Say how good the results are on average."""
    finite = [row["psnr"] for row in rows if math.isfinite(row["psnr"])]
    if not finite:
        return "PSNR infinite: the results are the clean images"
    similar = sum(row["ssim"] for row in rows) / len(rows)
    return f"PSNR {sum(finite) / len(finite):.2f} dB, SSIM {similar:.4f}, mean over {len(finite)} images"
