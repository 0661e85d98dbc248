"""The verbs of a generator of images: stylegan import, stylegan sample."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from mfimage import console
from mfimage.cli.options import Json, Outdir, Quiet, Verbose
from mfimage.errors import UsageError

app = typer.Typer(
    help="StyleGAN2 generators: read a network pickle without executing it, and draw images.",
    no_args_is_help=True,
)
_AT_ONCE = 8
_MOST = 100_000

Weights = Annotated[Path, typer.Argument(help="Generator that `mfimage stylegan import` wrote.")]


@app.command("import")
def import_(
    network: Annotated[Path, typer.Argument(help="Pickle of stylegan2-ada-pytorch or stylegan3.")],
    out: Annotated[Path, typer.Argument(help="Where the generator goes, as .safetensors.")],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read the StyleGAN2 generator of a network pickle, executing nothing, and write it as safetensors."""
    from dataclasses import asdict

    from mfimage.datasets.stylegan import import_network, save_generator

    if out.resolve() == network.resolve():
        raise UsageError(f"{out}: the network itself would be overwritten; choose another")
    generator = import_network(network)
    save_generator(generator, out)
    sizes = asdict(generator.architecture)
    size, labels = sizes["resolution"], sizes["labels"]
    console.say(f"{size} × {size} pixels, z in R^{sizes['z_dim']}, {labels or 'no'} labels", quiet)
    console.put(
        {"generator": str(out), "fingerprint": generator.fingerprint(), "architecture": sizes},
        str(out),
        as_json,
    )


@app.command()
def sample(
    weights: Weights,
    seeds: Annotated[str, typer.Option(help="Seeds, an image each: 0-63, or 1,5,7-9.")] = "0-63",
    truncation: Annotated[float, typer.Option(min=0, max=1, help="ψ: 1 leaves w, 0 gives the mean.")] = 1.0,
    label: Annotated[int | None, typer.Option(min=0, help="Class of a network with labels.")] = None,
    outdir: Outdir = Path("samples"),
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw an image of each seed, the one that NVIDIA's generate.py gives, as PNG, and a sheet of all."""
    import numpy as np
    import torch

    from mfimage.datasets import save_png, save_pngs, sheet
    from mfimage.datasets.stylegan import Styled, load_generator

    numbers = seed_list(seeds)
    generator = Styled(load_generator(weights), truncation, label=label)
    written: list[Path] = []
    small = []
    for some in (numbers[i : i + _AT_ONCE] for i in range(0, len(numbers), _AT_ONCE)):
        rows = [np.random.RandomState(s).randn(generator.z_dim) for s in some]  # as they draw
        z = torch.tensor(np.stack(rows), dtype=torch.float32)
        with torch.no_grad():
            images = generator.synthesis(generator.mapping(z))
        written += save_pngs(images, [f"seed-{s:04d}" for s in some], outdir)
        step = max(1, images.shape[-1] // 128)  # else a sheet of large images would not be seen at once
        small.append(torch.nn.functional.avg_pool2d(images, step))
    save_png(sheet(torch.cat(small), max(1, round(len(numbers) ** 0.5))), outdir / "sheet.png")
    console.say(f"{len(written)} images and sheet.png in {outdir}", quiet)
    console.put({"images": [str(path) for path in written]}, "\n".join(map(str, written)), as_json)


def seed_list(text: str) -> list[int]:
    """Read 0-63, or 1,5,7-9, as numbers in the order given, each once.

    Raises:
        UsageError: It is something else, or gives too many.
    """
    numbers: dict[int, None] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,10})(?:-([0-9]{1,10}))?\s*", part)
        if found is None:
            raise UsageError(f"--seeds {text}: numbers and ranges are expected, such as 0-63 or 1,5,7-9")
        start, stop = int(found[1]), int(found[2] or found[1])
        if stop < start or stop >= 2**32 or stop - start + len(numbers) >= _MOST:
            raise UsageError(
                f"--seeds {text}: ranges go upwards, below 2^32, and {_MOST} images are the most"
            )
        numbers.update(dict.fromkeys(range(start, stop + 1)))
    return list(numbers)
