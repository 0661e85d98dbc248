"""Tensors as safetensors files, checked when they are read: nothing is ever read from a pickle."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from mfimage.errors import ModelError, boundary
from mfimage.files import require_regular, whole

CHECKSUM = "crc32"  # of the tensors and the other strings, among those of a file's header


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write tensors and a header of strings as one safetensors file, whole, durable, or not at all."""
    with whole(path, durable=True) as temporary:
        write_tensors(tensors, temporary, metadata)


def write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file, with a checksum of what it holds in its header."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = bytearray(save(ready, {**metadata, CHECKSUM: checksum(ready, metadata)}))
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])  # of which `save` orders the strings by chance
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    content[8:end] = text.encode().ljust(end - 8)
    path.write_bytes(content)


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Compute the CRC-32 of strings, and of tensors on the CPU: their names, types, shapes and bytes."""
    code = 0
    for key, text in sorted(metadata.items()):
        code = zlib.crc32(f"{key}\0{text}\0".encode(), code)
    for name, tensor in sorted(tensors.items()):
        code = zlib.crc32(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode(), code)
        code = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, code)
    return f"{code:08x}"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; ModelError if it is missing or damaged."""
    with _readable(path):
        tensors = dict(sorted(load(path.read_bytes()).items()))  # which come in any order
    metadata = read_metadata(path)
    if metadata.pop(CHECKSUM, None) not in (None, checksum(tensors, metadata)):
        raise ModelError(f"{path}: damaged: it does not hold what was written (its checksum differs)")
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Read the header of a safetensors file; ModelError if it is missing or damaged."""
    with _readable(path), safe_open(path, "np") as file:  # torch's would need a name in UTF-8
        return file.metadata() or {}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    require_regular(path, ModelError)
    with boundary(ModelError, f"{path}: damaged or not a safetensors file"):
        yield


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take the tensors whose names begin with a prefix, and cut it off."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def require_fit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    """Compare tensors, or headers, with those of a module; ModelError names what differs.

    Names, shapes and kinds of numbers must be the same: reals may be of another precision, but no integers,
    truth values or complex numbers; and indices that a module keeps are no weights, and stay what they are.
    """
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is unknown" for name in given if name not in wanted]
    for name in [name for name in wanted if name in given]:
        ours, theirs = wanted[name], given[name]
        if theirs.shape != ours.shape:
            problems.append(f"{name} has shape {tuple(theirs.shape)}, not {tuple(ours.shape)}")
        elif theirs.dtype != ours.dtype and not (theirs.is_floating_point() and ours.is_floating_point()):
            problems.append(f"{name} is of type {_type(theirs)}, not {_type(ours)}")
        elif theirs.is_meta or ours.is_meta:
            continue
        elif not torch.isfinite(theirs.to(ours.dtype)).all():
            problems.append(f"{name} holds non-finite numbers")
        elif not ours.is_floating_point() and not torch.equal(ours.to(theirs.device), theirs):
            problems.append(f"{name} holds other indices")
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(f"{path}: does not fit the model to be filled: {'; '.join(problems[:3])}{more}")


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def load_state(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Fill a module; ModelError names what does not fit (see `require_fit`) or is not finite."""
    require_fit(module.state_dict(), tensors, path)
    module.load_state_dict(tensors)
