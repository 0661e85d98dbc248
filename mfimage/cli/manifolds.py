"""The verb that makes data of a generator: stylegan manifold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfimage import console
from mfimage.cli.options import Json, Quiet, Seed, Verbose

if TYPE_CHECKING:
    from mfimage.datasets.stylegan import Generator


def manifold(
    source: Annotated[
        str,
        typer.Argument(
            help="Generator of `mfimage stylegan import`, or `seeded` (never trained), or `mobile`."
        ),
    ],
    dim: Annotated[int, typer.Option(min=1, help="Latents that vary; the others are fixed.")] = 2,
    count: Annotated[int, typer.Option(min=1, help="Training images.")] = 10_000,
    test_count: Annotated[int, typer.Option(min=0, help="Test images.")] = 1_000,
    size: Annotated[int, typer.Option(min=1, help="Shrink to SIZE × SIZE.")] = 64,
    conditional: Annotated[
        bool, typer.Option("--conditional", help="Shift the latents by a θ ~ N(0, 1).")
    ] = False,
    truncation: Annotated[float, typer.Option(min=0, max=1, help="ψ of a StyleGAN2.")] = 1.0,
    label: Annotated[int | None, typer.Option(min=0, help="Class of a network with labels.")] = None,
    seed: Seed = 0,
    outdir: Annotated[Path | None, typer.Option("--outdir", "-o", help="NAME-DIMd-SIZE if none.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the images of a few varying latents, with their true coordinates: a data set for `train`.

    A broken-off folder is completed by the same command. Its points.json says which generator it was.
    """
    from mfimage.datasets.pointset import write_points
    from mfimage.datasets.stylegan import SEEDED_CARD
    from mfimage.experiments.simulators import Generated

    generator = _generator(source, dim, size, truncation, label)
    scene = Generated(generator, dim, size, seed or 0, conditional)
    outdir = outdir or Path(f"{generator.name}-{dim}d-{size}")
    about = {
        "generator": generator.name, "fingerprint": generator.fingerprint(), "conditional": conditional,
        "latents": "the first d vary as N(θ/√d, 1); the others are fixed by the seed",
        **({"card": SEEDED_CARD} if source == "seeded" else {}),
    }  # fmt: skip
    with console.counter("images", quiet) as tell:
        write_points(scene, outdir, {"train": count, "test": test_count}, seed or 0, about, tell)
    console.put({"points": str(outdir), **about}, str(outdir), as_json)


def _generator(source: str, dim: int, size: int, truncation: float, label: int | None) -> Generator:
    from mfimage.datasets.stylegan import Styled, load_generator, manifold_generator
    from mfimage.datasets.stylegan.mobile import MobileStyleGAN

    if source == "seeded":
        return manifold_generator(dim, size)
    return MobileStyleGAN() if source == "mobile" else Styled(load_generator(source), truncation, label=label)
