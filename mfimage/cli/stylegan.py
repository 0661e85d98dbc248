"""The verbs of a generator of images: stylegan import, sample and manifold."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter, validators

from mfimage import console
from mfimage.cli import options as opt
from mfimage.errors import UsageError
from mfimage.outputs import claim, hold

if TYPE_CHECKING:
    from mfimage.datasets.stylegan import Generator

app = App(
    name="stylegan", help="StyleGAN2 generators: read a network pickle without executing it, and draw images."
)
_AT_ONCE = 8
_MOST = 100_000

Truncation = Annotated[
    float, Parameter(validator=validators.Number(gte=0, lte=1), help="ψ: 1 leaves w, 0 gives the mean.")
]
Label = Annotated[int | None, opt.at_least(0), Parameter(help="Class of a network with labels.")]


@app.command(name="import")
def import_(network: Path, out: Path, /, *, talk: opt.Talk = opt.Talk()) -> None:
    """Read the StyleGAN2 generator of a network pickle, executing nothing, and write it as safetensors.

    Args:
        network: Pickle of stylegan2-ada-pytorch or stylegan3.
        out: Where the generator goes, as .safetensors.
    """
    from mfimage.datasets.stylegan import import_network, save_generator

    opt.given(network)
    claim(out)
    generator = import_network(network)
    save_generator(generator, out)
    sizes = asdict(generator.architecture)
    size, labels = sizes["resolution"], sizes["labels"]
    talk.say(f"{size} × {size} pixels, z in R^{sizes['z_dim']}, {labels or 'no'} labels")
    values = {"generator": str(out), "fingerprint": generator.fingerprint(), "architecture": sizes}
    talk.put(values, [out])


@app.command
def sample(
    weights: Path,
    /,
    *,
    seeds: str = "0-63",
    truncation: Truncation = 1.0,
    label: Label = None,
    outdir: opt.Outdir = Path("samples"),
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Draw an image of each seed, the one that NVIDIA's generate.py gives, as PNG, and a sheet of all.

    Args:
        weights: Generator that `mfimage stylegan import` wrote.
        seeds: Seeds, an image each: 0-63, or 1,5,7-9.
    """
    import numpy as np
    import torch

    from mfimage.datasets import save_png, save_pngs, sheet
    from mfimage.datasets.stylegan import Styled, load_generator

    numbers = seed_list(seeds)
    opt.given(weights)
    hold(outdir)
    claim(*(outdir / f"seed-{number:04d}.png" for number in numbers), outdir / "sheet.png")
    generator = Styled(load_generator(weights), truncation, label=label)
    written: list[Path] = []
    small = []
    for part in (numbers[i : i + _AT_ONCE] for i in range(0, len(numbers), _AT_ONCE)):
        rows = [np.random.RandomState(s).randn(generator.z_dim) for s in part]  # as they draw
        z = torch.tensor(np.stack(rows), dtype=torch.float32)
        with torch.no_grad():
            images = generator.synthesis(generator.mapping(z))
        written += save_pngs(images, [f"seed-{s:04d}" for s in part], outdir)
        step = max(1, images.shape[-1] // 128)  # else a sheet of large images would not be seen at once
        small.append(torch.nn.functional.avg_pool2d(images, step))
    late = console.Late()
    with late:
        save_png(sheet(torch.cat(small), max(1, round(len(numbers) ** 0.5))), outdir / "sheet.png")
        talk.say(f"{console.counted(len(written), 'image')} and sheet.png in {outdir}")
    talk.put({"images": written}, written)
    late.end()


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


@app.command
def manifold(
    source: str,
    /,
    *,
    dim: Annotated[int, opt.at_least(1)] = 2,
    count: Annotated[int, opt.at_least(1)] = 10_000,
    test_count: Annotated[int, opt.at_least(0)] = 1_000,
    size: Annotated[int, opt.at_least(1, 2**14)] = 64,
    conditional: opt.Flag = False,
    truncation: Truncation = 1.0,
    label: Label = None,
    seed: opt.Seed = 0,
    outdir: opt.OwnOutdir = None,
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Write the images of a few varying latents, with their true coordinates: a data set for `train`.

    A broken-off folder is completed by the same command. Its points.json says which generator it was.

    Args:
        source: Generator of `mfimage stylegan import`, or `seeded` (never trained), or `mobile`.
        dim: Latents that vary; the others are fixed.
        count: Training images.
        test_count: Test images.
        size: Shrink to SIZE × SIZE.
        conditional: Shift the latents by a θ ~ N(0, 1).
        outdir: Where they go; NAME-DIMd-SIZE if none.
    """
    from mfimage.datasets.drawn import write_points
    from mfimage.datasets.stylegan import SEEDED_CARD
    from mfimage.experiments.simulators import Generated

    opt.given(source)
    hold(outdir)
    generator = _generator(source, dim, size, truncation, label)
    scene = Generated(generator, dim, size, seed, conditional)
    outdir = outdir or Path(f"{generator.name}-{dim}d-{size}")
    about = {
        "generator": generator.name, "fingerprint": generator.fingerprint(), "conditional": conditional,
        "latents": "the first d vary as N(θ/√d, 1); the others are fixed by the seed",
        **({"card": SEEDED_CARD} if source == "seeded" else {}),
    }  # fmt: skip
    with talk.progress("images") as advance:
        write_points(scene, outdir, {"train": count, "test": test_count}, seed, about, advance)
    talk.put({"points": str(outdir), **about}, [outdir])


def _generator(source: str, dim: int, size: int, truncation: float, label: int | None) -> Generator:
    from mfimage.datasets.stylegan import Styled, load_generator, manifold_generator
    from mfimage.datasets.stylegan.protocol import MobileStyleGAN

    if source == "seeded":
        return manifold_generator(dim, size)
    return MobileStyleGAN() if source == "mobile" else Styled(load_generator(source), truncation, label=label)
