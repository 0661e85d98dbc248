"""Small files that ask for much, run code, or never end: each is refused in little time and memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torments.children import tried
from torments.files import (
    MODEL,
    Folder,
    Kind,
    attempt,
    read_cifar,
    read_idx,
    read_image,
    read_inception,
    read_model,
    read_network,
    read_points,
    read_set,
)
from torments.mutations import LEVELS
from torments.place import Place, Torment, Trial

PROMISE = "no file costs much more than it is, runs code or is waited for"
_PROTOCOL = b"\x80\x04"


def _png(width: int, height: int, bits: int = 8, kind: int = 2, rows: bytes = bytes(99)) -> bytes:
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""),
    )  # fmt: skip
    framed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _full(side: int, bits: int, channels: int, kind: int) -> bytes:
    """A PNG of zeros that is as large as it says."""
    return _png(side, side, bits, kind, bytes((1 + side * channels * bits // 8) * side))


def _saved(picture: Image.Image, kind: str, **how: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **how)
    return stream.getvalue()


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _zeros(name: str, head: bytes, megabytes: int) -> bytes:
    """An archive of one file of zeros after a head."""
    stream, part = io.BytesIO(), bytes(2**20)
    archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open(name, "w", force_zip64=True) as member:
        member.write(head)
        for _ in range(megabytes):
            member.write(part)
    return stream.getvalue()


def _npy(shape: object, dtype: str, content: bytes = bytes(64)) -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header = header.ljust(118) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + content


def _parquet() -> bytes:
    """A value of 1 MB in a dictionary, 7,000 times."""
    import pyarrow as pa
    from pyarrow import parquet

    values, rows = pa.array([bytes(2**20)], pa.binary()), pa.array([0] * 7000, pa.int32())
    stream = io.BytesIO()
    table = pa.table({"image": pa.DictionaryArray.from_arrays(rows, values)})
    parquet.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def _safetensors(header: bytes, claimed: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if claimed is None else claimed) + header + bytes(64)


def _text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def pickles(canary: Path) -> dict[str, bytes]:
    """Pickles that touch a file where they are executed, claim much, or are deep."""
    touch = f"touch {canary}"
    named = lambda module, name: _text(module) + _text(name) + b"\x93"  # noqa: E731
    itself: list[object] = []
    itself += [itself] * 1000
    doubled = b"N" + b"".join(b"q%ch%c\x86" % (k, k) for k in range(200))
    again = b"](" + b"K\1" * 100 + b"e\x94" + named("builtins", "set") + b"\x94" + b"h\1h\0\x85R" * 266_000
    return {
        "a call of system": _PROTOCOL + named("os", "system") + _text(touch) + b"\x85R.",
        "a call in a state": b"".join((
            _PROTOCOL, named("a", "b"), b")\x81}(", _text("__setstate__"), named("os", "abort"), b"ub.",
        )),
        "an object of Popen": _PROTOCOL + named("subprocess", "Popen") + _text(touch) + b"\x85\x81.",
        "2^62 bytes": _PROTOCOL + b"\x8e" + (2**62).to_bytes(8, "little") + b"x.",
        "a far place in the memo": _PROTOCOL + b"Nr\xff\xff\xff\x7f.",
        "doubled tuples": _PROTOCOL + doubled + b".",
        "a set made again and again": _PROTOCOL + again + b"N.",
        "a list that holds itself": pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": itself}),
        "a deep nest": _PROTOCOL + b"]" * LEVELS + b"a" * (LEVELS - 1) + b".",
        "a deep nest of tuples": _PROTOCOL + b"N" + b"\x85" * LEVELS + b".",
    }  # fmt: skip


def _model(place: Place, changes: Folder) -> Folder:
    """A model's files, the changed ones first."""
    return {**changes, **{name: (place.run / "model" / name).read_bytes() for name in MODEL}, **changes}


@cache
def _pictures() -> dict[str, bytes]:
    large = Image.new("L", (7900, 7900))
    saved = {kind: _saved(large, kind, progressive=True) for kind in ("WEBP", "GIF", "JPEG", "BMP")}
    scan = saved["JPEG"][saved["JPEG"].rindex(b"\xff\xda") : -2]  # the last
    return {
        "a png of 60,000²": _png(60_000, 60_000), "a png of 2³¹": _png(2**31 - 1, 2**31 - 1),
        "a png of 6,000² in colour and alpha of 16 bits": _full(6000, 16, 4, 6),
        "a png of 7,900² of 1 bit": _full(7900, 1, 1, 0),
        **{f"a {kind} of 7,900²": content for kind, content in saved.items()},
        "a deflated tiff of 7,900²": _saved(large, "TIFF", compression="tiff_adobe_deflate"),
        "a jpeg of 5,000 scans": saved["JPEG"][:-2] + scan * 5000 + b"\xff\xd9",
    }  # fmt: skip


@cache
def _sets() -> dict[str, Folder]:
    small, wide, cut = _png(1, 1, 8, 0, bytes(2)), _full(7900, 8, 1, 0), _full(7900, 8, 3, 2)[:-99]
    return {
        "an npz of 2.2 GB": {"x.npz": _zeros("images.npy", _npy((2200, 1024, 1024), "'|u1'", b""), 2200)},
        "an npy of 2⁶²": {"x.npy": _npy((2**31, 2**31), "'|u1'")},
        "an npy of objects": {"x.npy": _npy((1, 1, 1), "'|O'", b"\x80\x04N.")},
        "an npy with a deep header": {"x.npy": _npy("(" * 50 + "1" + ",)" * 50, "'|u1'")},
        "an npy of a wide type": {"x.npy": _npy((1,), "[('a', '|u1', (2147483647,))]")},
        "a zip with a small image and 60 large ones": {
            "x.zip": _zip({"0.png": small} | {f"{i}.png": wide for i in range(1, 61)})
        },
        "a zip of 12 large truncated ones": {"x.zip": _zip({f"{i}.png": cut for i in range(12)})},
        "a zip of 600 MB": {"x.zip": _zeros("0.png", b"", 600)},
        "a zip of 70,000 names": {"x.zip": _zip({f"{i}.png": b"" for i in range(70_000)})},
        "a parquet dictionary": {"x.parquet": _parquet()},
    }


def _lists(count: int, shard: int) -> Folder:
    manifest = {"counts": {"train": count, "test": 0}, "shard": shard, "shape": [2], "files": {}}
    return {"points.json": json.dumps(manifest).encode()}


def _heads() -> dict[str, bytes]:
    """Files of safetensors that claim what they have not."""
    one = b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,%d]}}'
    return {
        "a header of 2⁶³": _safetensors(b"{}", 2**63), "a header of 100 MB": _safetensors(b"{}", 10**8),
        "a deep header": _safetensors(b"[" * LEVELS),
        "a tensor of 2⁶²": _safetensors(one % (b"4611686018427387904", 64)),
        "a tensor of no numbers": _safetensors(one % (b"0,1099511627776", 0)),
    }  # fmt: skip


def _made(place: Place, canary: Path) -> Iterator[tuple[str, Kind, Folder]]:
    """Give each bomb: its name, how it is read, and its files."""
    data, model = (lambda read: Kind([], read)), (lambda read: Kind([], read, False))
    yield from ((name, data(read_image), {"x.png": content}) for name, content in _pictures().items())
    yield from ((name, data(read_set), files) for name, files in _sets().items())
    head = struct.pack(">HBB", 0, 8, 3)
    yield "an idx of 2⁹⁶", data(read_idx), {"x": head + b"\xff" * 12}
    yield "an idx of 255 dimensions", data(read_idx), {"x": b"\0\0\x08\xff" + b"\xff" * 1020}
    yield "a gzipped idx of 3 GB", data(read_idx), {"x.gz": gzip.compress(head + bytes(2**24)) * 200}
    yield "points of 10¹² files", data(read_points), _lists(10**12, 1)
    yield "points in files of none", data(read_points), _lists(10, 0)
    for name, content in pickles(canary).items():
        yield f"cifar: {name}", data(read_cifar), {"x": content}
        yield f"stylegan: {name}", model(read_network), {"x.pkl": content}
        yield f"torch: {name}", model(read_inception), {"x.pth": content}
        zipped = _zip({"x/data.pkl": content}, zipfile.ZIP_STORED)
        yield f"zipped torch: {name}", model(read_inception), {"x.pt": zipped}
    for name, content in _heads().items():
        yield f"weights with {name}", model(read_model), _model(place, {"model.safetensors": content})
        yield f"a generator with {name}", model(read_network), {"x.safetensors": content}
    texts = {"levels": b'{"a":' * LEVELS, "lists": b"[" * LEVELS, "digits": b'{"a":%s}' % (b"1" * 10**6)}
    for name, content in texts.items():
        yield f"a configuration of many {name}", model(read_model), _model(place, {"config.json": content})
        yield f"a calibration of many {name}", model(read_model), _model(place, {"calibration.json": content})


def bombs(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Try each."""
    with place.fresh() as folder:
        canary = folder / "canary"

        def _attempt(thing: tuple[Kind, Folder]) -> str:
            wrong = attempt(thing[0], folder / "x", thing[1])
            return wrong or ("it ran code" if canary.exists() else "")

        for name, kind, files in _made(place, canary):
            yield from tried(PROMISE, _attempt, [(name, (kind, files))])


def pipes(place: Place, chance: random.Random) -> Iterator[Trial]:
    """Give a pipe that nobody writes to in the place of every file that is read."""
    readers = {
        "x.png": (read_image, True), "points.json": (read_points, True), "x.pt": (read_inception, False),
        **{f"x.{kind}": (read_set, True) for kind in ("npy", "npz", "zip", "parquet")},
        **{f"x.{kind}": (read_network, False) for kind in ("pkl", "safetensors")},
        **{name: (read_model, False) for name in MODEL},
    }  # fmt: skip
    with place.fresh() as folder:

        def _attempt(name: str) -> str:
            read, data = readers[name]

            def _piped(path: Path) -> Iterator[Any]:
                path.unlink()
                os.mkfifo(path)
                yield from read(path)

            files = {name: b"", **(_model(place, {}) if read is read_model else {})}
            return attempt(Kind([], _piped, data), folder / "x", files)

        yield from tried(PROMISE, _attempt, [(f"{name} is a pipe", name) for name in readers])


TORMENTS: dict[str, Torment] = {"bombs": bombs, "pipes": pipes}
