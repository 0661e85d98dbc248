"""The verb that prepares large sets: pack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfimage import console
from mfimage.cli.options import Json, MaxBad, MaxPixels, Quiet, ValueRange, Verbose


def pack(
    source: Annotated[str, typer.Argument(help="Folder, Parquet files, celeba, celeba-178 or imagenet.")],
    outdir: Annotated[Path, typer.Argument(help="Where the shards go.")],
    size: Annotated[int | None, typer.Option(min=1, help="Resize and crop to SIZE × SIZE.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 grey, 3 colour.")] = None,
    shard_mb: Annotated[int, typer.Option(min=1, help="Megabytes a shard, at most about.")] = 256,
    max_bad: MaxBad = 0.05,
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write images as Parquet shards, for `train` and for Hugging Face datasets.

    Without --size and --channels the files are copied as they are, else they become PNG. What is broken off
    goes on where it stopped when it is asked for again.
    """
    from mfimage.config import Reading
    from mfimage.datasets import Skipped
    from mfimage.datasets.packing import pack as pack_

    manifest = pack_(
        source, outdir, size, channels, shard_bytes=shard_mb * 1_000_000,
        reading=Reading(max_bad, max_pixels, console.pair(value_range)),
        tell=lambda message: console.say(message, quiet),
    )  # fmt: skip
    console.list_skipped([Skipped(**bad) for bad in manifest["skipped"]])
    if manifest["left_out"]:
        console.say(f"{manifest['left_out']} images lie beside the folders of splits: left out", quiet)
    console.put(manifest, str(outdir), as_json)
