"""The verb that removes noise: denoise."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mfimage import console
from mfimage.cli import options as opt
from mfimage.config import MethodName
from mfimage.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from mfimage.datasets import Skipped
    from mfimage.denoising.files import FileReader
    from mfimage.denoising.tiles import Restorer

_WARNED = 5  # strange images that are named on stderr


def denoise(
    *inputs: Annotated[opt.Inputs, Parameter(allow_leading_hyphen=True)],  # - is standard input
    model: opt.Model = "runs/latest",
    outdir: opt.Outdir = Path("denoised"),
    method: MethodName = "auto",
    sigma: float | None = None,
    resize: opt.Flag = False,
    tile: opt.Flag = False,
    mask: Path | None = None,
    factor: Annotated[int | None, Parameter(name="--super"), opt.at_least(2)] = None,
    clean: Path | None = None,
    report: Path | None = None,
    reading: opt.ReadingOptions = opt.ReadingOptions(),
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = 256,
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Remove noise from images, fill in what a mask hides, or enlarge, and write PNG under their own names.

    An input - stands for a list of paths on standard input, one a line. What is far from what the model was
    trained on is named on standard error: there the result may be invented.

    Args:
        method: auto takes what did best at this noise on held-out images.
        sigma: Noise's deviation on the scale of [0, 1]; estimated if not given.
        resize: Scale and crop to the model's size.
        tile: Treat large images in overlapping tiles.
        mask: Image, white where pixels are to be filled in.
        factor: Enlarge by this factor to the model's size.
        clean: Folder of clean images of the same names, to measure PSNR and SSIM.
        report: Folder for denoised.csv and sheet.png (before, after).
    """
    from mfimage.datasets import iter_files
    from mfimage.denoising import files
    from mfimage.denoising.inverse import Downsample
    from mfimage.denoising.tiles import Restorer
    from mfimage.files import write_csv
    from mfimage.inputs import require_images

    if resize and tile:
        raise UsageError("--resize and --tile: choose one")
    listed = _listed(inputs)
    flow = opt.load_model(model, device)
    require_images(flow)
    channels, height, width = flow.shape
    size = (height, width) if factor is None else Downsample(factor).size(height, width)
    reader = files.FileReader(channels, size, reading, resize, tile)
    missing = None if mask is None else reader.mask(mask)
    restorer = Restorer(flow, method, sigma, missing, factor, tile, batch_size)
    paths = [str(path) for path in iter_files(listed)]
    truths = None if clean is None else dict(zip(paths, files.find_clean(clean, paths), strict=True))
    opt.check_outdir([*paths, *(truths or {}).values(), *([mask] if mask else [])], outdir)
    skipped: list[Skipped] = []
    rows: list[dict[str, Any]] = []
    groups: list[Tensor] = []
    for found, shown in _restored(restorer, reader, paths, truths, outdir, skipped):
        rows += found
        groups += shown[: files.SHOWN - len(groups)]
    console.list_skipped(skipped)
    if report is not None:
        write_csv(report / "denoised.csv", rows, digits=6)
        files.save_sheet(groups, report / "sheet.png")
    talk.say(f"{len(rows)} images in {outdir}")
    if truths is not None:
        talk.say(files.mean_quality(rows))
    _warn([row["warning"] for row in rows if row["warning"]])
    pairs = [{"input": row.pop("path"), **row} for row in rows]
    talk.put({"images": pairs, "skipped": skipped}, "\n".join(row["output"] for row in rows))


def _restored(
    restorer: Restorer,
    reader: FileReader,
    paths: list[str],
    truths: dict[str, Path] | None,
    outdir: Path,
    skipped: list[Skipped],
) -> Iterator[tuple[list[dict[str, Any]], list[Tensor]]]:
    """Read, restore and write, batch by batch: rows of the table, and groups for the sheet."""
    from mfimage.datasets import save_pngs
    from mfimage.denoising import files

    device = restorer.model.device
    used: set[str] = set()
    height, width = restorer.model.shape[1:]
    for y, names in reader.batches(paths, skipped):
        restored = restorer(y.to(device))
        truth = None
        if truths is not None:
            rows, columns = restored.after.shape[-2:]
            truth = reader.clean([truths[name] for name in names], (rows, columns))
        written = save_pngs(restored.after, [Path(name).stem for name in names], outdir, used)
        yield (
            files.rows_of(restored, names, written, truth),
            files.thumbnails(restored, truth, (height, width), files.SHOWN),
        )


def _listed(inputs: Sequence[str]) -> list[str]:
    """Put the lines of standard input in the place of -."""
    listed: list[str] = []
    for one in inputs:
        if one.startswith("-") and one != "-" and not Path(one).exists():
            raise UsageError(f"Unknown option: {one}.")
        lines = os.fsdecode(sys.stdin.buffer.read()).splitlines() if one == "-" else [one]
        listed += [line for line in lines if line]
    if not listed:
        raise DataError("standard input: no paths, one a line, are listed here")
    return listed


def _warn(messages: list[str]) -> None:
    """Name the strangest few on standard error, quiet or not: what they became is not to be trusted."""
    for message in messages[:_WARNED]:
        print(f"warning: {message}", file=sys.stderr)
    if len(messages) > _WARNED:
        print(f"warning: and {len(messages) - _WARNED} more", file=sys.stderr)
