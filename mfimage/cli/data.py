"""The verbs of data alone: pack, dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mfimage import console
from mfimage.cli import options as opt


def pack(
    source: str,
    outdir: Path,
    /,
    *,
    size: opt.Size = None,
    channels: opt.Channels = None,
    shard_mb: Annotated[int, opt.at_least(1)] = 256,
    reading: opt.ReadingOptions = opt.ReadingOptions(),
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Write images as Parquet shards, for `train` and for Hugging Face datasets.

    Without --size and --channels the files are copied as they are, else they become PNG. What is broken off
    goes on where it stopped when it is asked for again.

    Args:
        source: Folder, Parquet files, celeba, celeba-178 or imagenet.
        outdir: Where the shards go.
        shard_mb: Megabytes a shard, at most about.
    """
    from mfimage.datasets import Skipped
    from mfimage.datasets.packing import pack as pack_

    manifest = pack_(
        source, outdir, size, channels, shard_bytes=shard_mb * 1_000_000, reading=reading, tell=talk.say
    )
    console.list_skipped([Skipped(**bad) for bad in manifest["skipped"]])
    if manifest["left_out"]:
        talk.say(f"{manifest['left_out']} images lie beside the folders of splits: left out")
    talk.put(manifest, str(outdir))


def dimension(
    *data: opt.Data,
    max_dim: Annotated[int, opt.at_least(1)] = 64,
    examples: Annotated[int, opt.at_least(100)] = 10_000,
    steps: Annotated[int, opt.at_least(1)] = 2000,
    size: opt.Size = None,
    channels: opt.Channels = None,
    outdir: opt.OwnOutdir = None,
    reading: opt.ReadingOptions = opt.ReadingOptions(),
    seed: opt.Seed = 0,
    talk: opt.Talk = opt.Talk(),
) -> None:
    """Recommend the dimension of the manifold: by nearest neighbours, and by held-out error against d.

    Args:
        max_dim: The largest d to consider.
        examples: At most so many images, drawn at random.
        steps: Of the short fit behind the curve.
        outdir: Where dimension.json and dimension.png go; they are not written if none.
    """
    from mfimage.eval.dimension_choice import choose_dimension
    from mfimage.files import whole, write_json

    with talk.progress("fit", steps) as advance:
        found = choose_dimension(
            data, max_dim=max_dim, examples=examples, steps=steps, seed=seed, size=size, channels=channels,
            tell=talk.say, report=lambda step, record: advance(step, note=console.rates(record)),
            reading=reading,
        )  # fmt: skip
    values = found.as_json()
    if outdir is not None:
        write_json(outdir / "dimension.json", values)
        with whole(outdir / "dimension.png") as temporary:
            temporary.write_bytes(found.figure())
        talk.say(f"dimension.json and dimension.png in {outdir}")
    for sentence in (found.reason, *found.notes):
        talk.say(sentence)
    talk.put(values, str(found.dim))
