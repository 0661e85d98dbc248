"""The verb that chooses d: dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfimage import console
from mfimage.cli.options import Data, Json, MaxBad, MaxPixels, Quiet, Seed, ValueRange, Verbose


def dimension(
    data: Data,
    max_dim: Annotated[int, typer.Option(min=1, help="The largest d to consider.")] = 64,
    examples: Annotated[int, typer.Option(min=100, help="At most so many images, drawn at random.")] = 10_000,
    steps: Annotated[int, typer.Option(min=1, help="Of the short fit behind the curve.")] = 2000,
    size: Annotated[int | None, typer.Option(min=1, help="Resize and crop to SIZE × SIZE.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 grey, 3 colour.")] = None,
    outdir: Annotated[
        Path | None, typer.Option("--outdir", "-o", help="Where dimension.json and dimension.png go.")
    ] = None,
    max_bad: MaxBad = 0.05,
    max_pixels: MaxPixels = 64_000_000,
    value_range: ValueRange = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Recommend the dimension of the manifold: by nearest neighbours, and by held-out error against d."""
    from mfimage.config import Reading
    from mfimage.eval.dimension_choice import choose_dimension
    from mfimage.files import whole, write_text

    with console.progress_bar("fit", steps, quiet) as report:
        found = choose_dimension(
            data, max_dim=max_dim, examples=examples, steps=steps, seed=seed or 0, size=size,
            channels=channels,  # type: ignore[arg-type]
            tell=lambda message: console.say(message, quiet), report=report,
            reading=Reading(max_bad, max_pixels, console.pair(value_range)),
        )  # fmt: skip
    values = found.as_json()
    if outdir is not None:
        write_text(outdir / "dimension.json", console.json_text(values, indent=2) + "\n")
        with whole(outdir / "dimension.png") as temporary:
            temporary.write_bytes(found.figure())
        console.say(f"dimension.json and dimension.png in {outdir}", quiet)
    for sentence in (found.reason, *found.notes):
        console.say(sentence, quiet)
    console.put(values, str(found.dim), as_json)
