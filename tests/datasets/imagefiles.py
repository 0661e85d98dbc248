"""Image files: their bytes, folders of them, and what goes wrong with them."""

import io
import struct
import threading
import zlib

import numpy as np
import tifffile
from PIL import Image
from pngs import chunk

RNG = np.random.default_rng(0)


def content(picture, kind="PNG", **how):
    """The bytes of a file of a picture, or of an array."""
    stream = io.BytesIO()
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(stream, kind, **how)
    return stream.getvalue()


def tiff(array, **how):
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **how)
    return stream.getvalue()


def bomb(side):
    """A small PNG whose header announces a picture of side × side."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def pixels(*shape, dtype=np.uint8):
    """Random numbers of the whole range of their type."""
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def noise(folder, names, shape=(6, 6, 3), dtype=np.uint8):
    """Write random images below a folder, and return it; a number of names stands for 0.png, 1.png, …"""
    for name in [f"{i}.png" for i in range(names)] if isinstance(names, int) else names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(*shape, dtype=dtype)).save(folder / name)
    return folder


def touch(folder, *names):
    """Write small images, whatever their names end in."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), len(name)).save(path, "PNG")


def flip(path):
    """Change a byte in the middle, and not the size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def readers():
    """The threads that read ahead."""
    return [t for t in threading.enumerate() if t.name.startswith("mfimage-read")]
