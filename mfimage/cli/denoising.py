"""The verb that removes noise: denoise."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfimage import console
from mfimage.cli.loading import check_outdir, load_model
from mfimage.cli.options import (
    BatchSize,
    Device,
    Inputs,
    Json,
    MaxBad,
    MaxPixels,
    Model,
    Outdir,
    Quiet,
    ValueRange,
    Verbose,
)
from mfimage.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from mfimage.datasets import Skipped
    from mfimage.denoising.files import FileReader
    from mfimage.denoising.tiles import Restorer

_WARNED = 5  # strange images that are named on stderr


def denoise(
    inputs: Inputs,
    model: Model = "runs/latest",
    outdir: Outdir = Path("denoised"),
    method: Annotated[str, typer.Option(help="auto, projection, soft, cycle-spin, map or tweedie.")] = "auto",
    sigma: Annotated[
        float | None, typer.Option(help="Noise's deviation on the scale of [0, 1]; estimated if not given.")
    ] = None,
    resize: Annotated[bool, typer.Option("--resize", help="Scale and crop to the model's size.")] = False,
    tile: Annotated[bool, typer.Option("--tile", help="Treat large images in overlapping tiles.")] = False,
    mask: Annotated[Path | None, typer.Option(help="Image, white where pixels are to be filled in.")] = None,
    factor: Annotated[int | None, typer.Option("--super", min=2, help="Enlarge to the model's size.")] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Folder of clean images of the same names, to measure PSNR and SSIM.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for denoised.csv and sheet.png (before, after).")
    ] = None,
    max_bad: MaxBad = 0.05,
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    device: Device = "auto",
    batch_size: BatchSize = 256,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Remove noise from images, fill in what a mask hides, or enlarge, and write PNG under their own names.

    An input - stands for a list of paths on standard input, one a line. What is far from what the model was
    trained on is named on standard error: there the result may be invented.
    """
    from mfimage.config import Reading
    from mfimage.datasets import iter_files
    from mfimage.denoising import files
    from mfimage.denoising.files import FileReader, find_clean
    from mfimage.denoising.inverse import Downsample
    from mfimage.denoising.tiles import Restorer
    from mfimage.inputs import require_images

    if resize and tile:
        raise UsageError("--resize and --tile: choose one")
    flow = load_model(model, device)
    require_images(flow)
    channels, height, width = flow.shape
    size = (height, width) if factor is None else Downsample(factor).size(height, width)
    reading = Reading(max_bad, max_pixels, console.pair(value_range))
    reader = FileReader(channels, size, reading, resize, tile)
    missing = None if mask is None else reader.mask(mask)
    restorer = Restorer(flow, method, sigma, missing, factor, tile, batch_size or 256)
    paths = [str(path) for path in iter_files(_listed(inputs))]
    truths = None if clean is None else dict(zip(paths, find_clean(clean, paths), strict=True))
    check_outdir([*paths, *(truths or {}).values(), *([mask] if mask else [])], outdir)
    skipped: list[Skipped] = []
    rows: list[dict[str, Any]] = []
    groups: list[Tensor] = []
    for found, shown in _restored(restorer, reader, paths, truths, outdir, skipped):
        rows += found
        groups += shown[: files.SHOWN - len(groups)]
    console.list_skipped(skipped)
    if report is not None:
        files.write_csv(rows, report / "denoised.csv")
        files.write_sheet(groups, report / "sheet.png")
    console.say(f"{len(rows)} images in {outdir}", quiet)
    if truths is not None:
        console.say(files.mean_quality(rows), quiet)
    _warn([row["warning"] for row in rows if row["warning"]])
    pairs = [{"input": row.pop("path"), **row} for row in rows]
    text = "\n".join(row["output"] for row in rows)
    console.put({"images": pairs, "skipped": console.as_json(skipped)}, text, as_json)


def _restored(
    restorer: Restorer,
    reader: FileReader,
    paths: list[str],
    truths: dict[str, Path] | None,
    outdir: Path,
    skipped: list[Skipped],
) -> Iterator[tuple[list[dict[str, Any]], list[Tensor]]]:
    """Read, treat and write, batch by batch: rows of the table, and groups for the sheet."""
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


def _listed(inputs: list[str]) -> list[str]:
    """Put the lines of standard input in the place of -."""
    given: list[str] = []
    for one in inputs:
        lines = os.fsdecode(sys.stdin.buffer.read()).splitlines() if one == "-" else [one]
        given += [line for line in lines if line]
    if not given:
        raise DataError("standard input: no paths, one a line, are listed here")
    return given


def _warn(messages: list[str]) -> None:
    """Name the strangest few on standard error, quiet or not: what they became is not to be trusted."""
    for message in messages[:_WARNED]:
        print(f"warning: {message}", file=sys.stderr)
    if len(messages) > _WARNED:
        print(f"warning: and {len(messages) - _WARNED} more", file=sys.stderr)
