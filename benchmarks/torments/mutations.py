"""Damage to files: of their bytes anywhere, or of what lies inside archives, chunks, JSON and tensors."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

NUMBERS = (0, 1, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
DIGITS = (b"0", b"-1", b"7", b"65536", b"99999999999", b"1e999", b"NaN", b"-1e-320", b"0.5", b"1" * 5000)
NONSENSE: tuple[Any, ...] = (
    0, -1, 1, 3, 2.5, 1e-320, 1e308, -1e308, 10**30, 2**63, float("nan"), float("inf"), -float("inf"), True,
    False, None, "", "x", "1", "\ud800", [], [1], [1, 2, 3], [0.5, 0.1], [[[]]], {}, {"a": 1},
)  # fmt: skip
LEVELS = 10**5  # of a nest that is deeper than any reader's recursion


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change bytes in a few places, of which the beginning and the end are the likeliest."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        size = max(1, len(out))
        near = int(chance.expovariate(1 / 24)) % size
        at = chance.choice((chance.randrange(size), near, size - 1 - near))
        length = chance.choice((1, 4, 30, size // 4))
        chance.choice(_CHANGES)(out, at, length, chance)
    return bytes(out)


def _flip(out: bytearray, at: int, length: int, chance: random.Random) -> None:
    if out:
        out[at] ^= 1 << chance.randrange(8)


def _byte(out: bytearray, at: int, length: int, chance: random.Random) -> None:
    out[at : at + 1] = chance.choice((b"\0", b"\1", b"\x7f", b"\x80", b"\xff"))


def _number(out: bytearray, at: int, length: int, chance: random.Random) -> None:
    width = chance.choice((2, 4, 8))
    value = chance.choice(NUMBERS) % 256**width
    out[at : at + width] = value.to_bytes(width, chance.choice(("little", "big")))


def _digits(out: bytearray, at: int, length: int, chance: random.Random) -> None:
    if found := re.compile(rb"\d+").search(out, at):
        out[found.start() : found.end()] = chance.choice(DIGITS)


def _cut(out: bytearray, at: int, length: int, chance: random.Random) -> None:
    del out[at : at + length]


def _end(out: bytearray, at: int, length: int, chance: random.Random) -> None:
    del out[at:]


def _double(out: bytearray, at: int, length: int, chance: random.Random) -> None:
    out[at:at] = out[at : at + length]


def _insert(out: bytearray, at: int, length: int, chance: random.Random) -> None:
    out[at:at] = chance.randbytes(min(length, 40))


def _move(out: bytearray, at: int, length: int, chance: random.Random) -> None:
    start = chance.randrange(max(1, len(out)))
    part = out[start : start + length]
    out[at : at + length] = part


_CHANGES = (_flip, _flip, _byte, _number, _number, _digits, _cut, _end, _double, _insert, _move)


def inside(name: str, data: bytes, chance: random.Random) -> bytes:
    """Change what lies inside a file, and leave what encloses it right: sums, sizes and compression."""
    suffix = name.rpartition(".")[2]
    return _INSIDE.get(suffix, mutated)(data, chance)


def _png(data: bytes, chance: random.Random) -> bytes:
    chunks, at = [], 8
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        chunks.append([kind, data[at + 8 : at + 8 + size]])
        at += 12 + size
    chosen = chance.choice(chunks)
    packed = chosen[0] == b"IDAT" and chance.random() < 0.7
    inner = mutated(zlib.decompress(chosen[1]) if packed else chosen[1], chance)
    chosen[1] = zlib.compress(inner) if packed else inner
    sums = ((kind, body, zlib.crc32(kind + body)) for kind, body in chunks)
    return data[:8] + b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", s) for k, b, s in sums)


def _zip(data: bytes, chance: random.Random) -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(stream, "w") as new,
        warnings.catch_warnings(action="ignore"),  # of names that come twice
    ):
        members = [(member, old.read(member)) for member in old.infolist()]
        chosen = chance.randrange(len(members))
        for number, (member, content) in enumerate(members):
            made = zipfile.ZipInfo(member.filename)
            made.compress_type = member.compress_type
            if number == chosen and chance.random() < 0.1:
                made.filename = chance.choice(("x", "../x", "/", "", "x" * 60_000, members[0][0].filename))
            new.writestr(made, inside(member.filename, content, chance) if number == chosen else content)
    return stream.getvalue()


def _gzip(data: bytes, chance: random.Random) -> bytes:
    return gzip.compress(mutated(gzip.decompress(data), chance))


def _json(data: bytes, chance: random.Random) -> bytes:
    root: Any = [json.loads(data)]
    holder, key = root, 0
    while (at := holder[key]) and isinstance(at, dict | list) and chance.random() < 0.8:
        holder, key = at, chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
    holder[key] = chance.choice(NONSENSE)
    return (b"[" * LEVELS * (chance.random() < 0.02)) + json.dumps(root[0]).encode()


def _tensors(data: bytes, chance: random.Random) -> bytes:
    """Change numbers, shape or type of a tensor, and make the checksum that of what is there now."""
    import torch
    from safetensors.torch import load, save

    from mfimage.tensors import CHECKSUM, checksum

    tensors = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    header.pop(CHECKSUM, None)
    name = chance.choice(sorted(tensors))
    one = tensors[name]
    wild = chance.choice((0.0, -1.0, 1e-38, 1e10, 1e20, 3e38, -3e38, float("nan"), float("inf")))
    change = chance.choice(("scale", "scale", "one", "one", "fill", "type", "shape", "drop", "turn"))
    if change == "scale":
        one = (one.double() * 10.0 ** chance.uniform(-30, 30)).to(one.dtype)
    elif change == "one" and one.numel() and one.is_floating_point():
        one.view(-1)[chance.randrange(one.numel())] = wild
    elif change == "fill" and one.is_floating_point():
        one = torch.full_like(one, wild)
    elif change == "type":
        one = one.to(chance.choice((torch.float64, torch.float16, torch.int32, torch.bool, torch.complex64)))
    elif change == "shape":
        one = one.reshape(chance.choice(((-1,), (1, *one.shape), (*one.shape, 1))))
    elif change == "turn":
        one = -one if one.dtype != torch.bool else ~one
    tensors[name] = one.contiguous()
    if change == "drop":
        del tensors[name]
    return save(tensors, {**header, CHECKSUM: checksum(tensors, header)})


_INSIDE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "png": _png, "zip": _zip, "npz": _zip, "pt": _zip, "gz": _gzip, "json": _json,
    "safetensors": _tensors,
}  # fmt: skip
