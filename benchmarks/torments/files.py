"""Damaged files of every format that is read: they end in a right result, or in the documented error."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torments.children import tried
from torments.mutations import inside, mutated
from torments.place import Place, Torment, Trial, blobs

PROMISE = "a damaged file is read rightly or refused"
FORMATS = {
    "png": ("PNG", {}), "jpg": ("JPEG", {"quality": 60}), "webp": ("WEBP", {}), "bmp": ("BMP", {}),
    "gif": ("GIF", {}), "tif": ("TIFF", {"compression": "tiff_lzw"}), "tiff": ("TIFF", {}),
}  # fmt: skip
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F")

MODEL = ("model.safetensors", "config.json", "calibration.json")

_IN_USE = re.compile(r"calibration\.json|the model cannot be used")  # which no longer knows where it lay

Folder = dict[str, bytes]  # of files, of which the first is damaged and read


class Kind(NamedTuple):
    """What is damaged, and how it is read: what `read` gives must be finite numbers."""

    seeds: list[Folder]
    read: Callable[[Path], Iterator[Any]]
    data: bool = True  # whether its error is a DataError, else a ModelError


def read_image(path: Path) -> Iterator[Any]:
    """Read one image file."""
    from mfimage.datasets import load_files

    yield load_files([path]).images


def read_set(path: Path) -> Iterator[Any]:
    """Read a set in memory and where it lies."""
    from mfimage import load

    source = path.parent if (path.parent / "manifest.json").exists() else path
    for memory in (2**31, 0):
        yield load(source, "all", memory=memory).batch(slice(None))


def read_points(path: Path) -> Iterator[Any]:
    """Read a file of points, or the folder of one."""
    from mfimage import load

    folder = (path.parent / "points.json").exists()
    points = load(path.parent if folder else path, "all")
    yield from (one for one in (points.x, points.theta, points.score, points.latents) if one is not None)


def read_idx(path: Path) -> Iterator[Any]:
    """Read a file of MNIST's format."""
    from mfimage.datasets.named import read_idx

    yield read_idx(path) / 255.0


def read_cifar(path: Path) -> Iterator[Any]:
    """Read a batch of CIFAR-10."""
    from mfimage.datasets.named import read_cifar

    rows, labels = read_cifar(path)
    yield rows / 255.0
    yield labels / 9.0


def read_model(path: Path) -> Iterator[Any]:
    """Read a model and use it: its scores may be infinite where the image is called strange."""
    import torch

    from mfimage import Detector, denoise, from_pretrained, score

    model, x = from_pretrained(path.parent), torch.from_numpy(blobs(3)[:, None])
    yield denoise(x / 255, model)
    found = Detector.load(path.parent, model).score(x)
    for scores, strange in ((found.scores, found.is_ood), (score(x, model), True)):
        yield scores.masked_fill((scores == torch.inf) & strange, 0)


def read_inception(path: Path) -> Iterator[Any]:
    """Read tensors of PyTorch; those of the seeds are not the Inception's, which is an error too."""
    from mfimage.eval.inception import load_inception_weights

    yield from load_inception_weights(path).tensors.values()


def read_network(path: Path) -> Iterator[Any]:
    """Read a StyleGAN2 from its pickle or its safetensors, and draw."""
    import torch

    from mfimage.datasets.stylegan import Styled, import_network, load_generator

    network = (load_generator if path.suffix == ".safetensors" else import_network)(path)
    label = 0 if network.architecture.labels else None
    with torch.no_grad():
        generator = Styled(network, label=label)
        yield torch.nan_to_num(generator.synthesis(generator.mapping(torch.zeros(1, generator.z_dim))))


@cache
def kinds(folder: Path) -> dict[str, Kind]:
    """Give what is damaged, made once of the place in a folder."""
    place = Place(folder)
    files = {name: (place.run / "model" / name).read_bytes() for name in MODEL}
    shards = {path.name: path.read_bytes() for path in sorted(place.shards.iterdir()) if path.is_file()}
    return {
        **{f"image {suffix}": Kind(list(_pictures(suffix)), read_image) for suffix in FORMATS},
        "array": Kind([{"x.npy": _arrays("npy")}, {"x.npz": _arrays("npz")}], read_set),
        "zip": Kind([{"x.zip": place.zip.read_bytes()}], read_set),
        "parquet": Kind([{"x.parquet": place.parquet.read_bytes()}], read_set),
        "shards": Kind(list(_turns(shards)), read_set),
        "idx": Kind([{"x": _idx()}, {"x.gz": gzip.compress(_idx())}], read_idx),
        "cifar": Kind([{"x.bin": bytes(3073) * 3}, {"x": _batch(3)}, {"x": _batch(4)}], read_cifar),
        "points": Kind(list(_points(place)), read_points),
        "torch": Kind(list(_torch()), read_inception, False),
        "model": Kind(list(_turns(files)), read_model, False),
        "stylegan": Kind(
            [{"x.pkl": place.pickle.read_bytes()}, {"x.safetensors": place.generator.read_bytes()}],
            read_network, False,
        ),
    }  # fmt: skip


def _turns(files: Folder) -> Iterator[Folder]:
    """Each file of a folder as the first."""
    for name in files:
        yield {name: files[name], **files}


def _pictures(suffix: str) -> Iterator[Folder]:
    kind, how = FORMATS[suffix]
    values = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    for mode in MODES:
        stream, picture = io.BytesIO(), Image.fromarray(values).convert("L" if mode == "I;16" else mode)
        with suppress(OSError, ValueError, KeyError):  # a format that has no such mode
            picture.convert(mode).save(stream, kind, **how)
            yield {f"x.{suffix}": stream.getvalue()}


def _arrays(suffix: str) -> bytes:
    stream = io.BytesIO()
    if suffix == "npy":
        np.save(stream, blobs(5))
    else:
        np.savez_compressed(stream, images=blobs(5), labels=np.arange(5))
    return stream.getvalue()


def _idx() -> bytes:
    return struct.pack(">HBBIII", 0, 8, 3, 5, 16, 16) + blobs(5).tobytes()


def _batch(protocol: int) -> bytes:
    return pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [1, 2, 3]}, protocol)


def _points(place: Place) -> Iterator[Folder]:
    from mfimage.datasets.drawn import write_points
    from mfimage.experiments.simulators.surfaces import Sphere

    with place.fresh() as folder:
        write_points(Sphere(), folder / "new", {"train": 20, "test": 5})
        files = {path.name: path.read_bytes() for path in sorted((folder / "new").iterdir())}
    yield from _turns(files)
    yield {"x.npz": files["train-0000.npz"]}


def _torch() -> Iterator[Folder]:
    import torch

    for suffix, new in (("pt", True), ("pth", False)):
        stream = io.BytesIO()
        tensors = {"Conv2d_1a_3x3.conv.weight": torch.ones(3, 2), "more": torch.arange(5)}
        torch.save(tensors, stream, _use_new_zipfile_serialization=new)
        yield {f"x.{suffix}": stream.getvalue()}


def attempt(kind: Kind, folder: Path, files: Folder) -> str:
    """Lay files out in a folder and read the first; tell what is wrong with what comes of it."""
    from mfimage.errors import DataError, ModelError

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        for values in kind.read(folder / next(iter(files))):
            found = np.asarray(values)
            if found.dtype.kind == "f" and not np.isfinite(found).all():
                return f"numbers that are not finite: {found.ravel()[:4]}"
    except (DataError, ModelError) as error:
        if isinstance(error, DataError) != kind.data:
            return f"{type(error).__name__}: {error}"
        named = str(folder) in str(error) or (kind.read is read_model and _IN_USE.search(str(error)))
        return "" if named else f"the message names no file: {error}"
    return ""


def damaged(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Damage files of one kind, of their bytes or of what lies inside."""
    name, kind = chance.choice(list(kinds(place.folder).items()))
    things = []
    for number in range(60):
        files = dict(chance.choice(kind.seeds))
        first = next(iter(files))
        whole = files[first]
        files[first] = inside(first, whole, chance) if chance.random() < 0.4 else mutated(whole, chance)
        things.append((f"{name}: {first} damaged ({number})", files))
    with place.fresh() as folder:
        yield from tried(PROMISE, lambda files: attempt(kind, folder / "x", files), things)


TORMENTS: dict[str, Torment] = {"files": damaged}
