"""Generators as safetensors files: the weights, and the sizes in the header."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from mfimage.datasets.stylegan.generator import Architecture, StyleGAN2
from mfimage.errors import ModelError
from mfimage.files import load_state, read_metadata, read_tensors, save_tensors

_FORMAT = "mfimage-stylegan2"


def save_generator(generator: StyleGAN2, path: str | Path) -> None:
    """Write a generator as one safetensors file, whole or not at all.

    Raises:
        ResourceError: The disk is full.
    """
    sizes = json.dumps(asdict(generator.architecture))
    save_tensors(generator.state_dict(), Path(path), {"format": _FORMAT, "architecture": sizes})


def load_generator(path: str | Path) -> StyleGAN2:
    """Read a generator that `save_generator` wrote, onto the CPU, without gradients.

    Raises:
        ModelError: The file is missing, damaged, or not of this kind.
    """
    path = Path(path)
    header = read_metadata(path)
    if header.get("format") != _FORMAT:
        raise ModelError(
            f"{path}: not a generator; `mfimage stylegan import` makes one from a network pickle"
        )
    try:
        sizes = json.loads(header["architecture"])
        architecture = Architecture(**sizes | {"widths": tuple(sizes["widths"])})
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: damaged header ({type(error).__name__})") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return fill(architecture, read_tensors(path), path)


def fill(architecture: Architecture, tensors: dict[str, Tensor], path: Path) -> StyleGAN2:
    """Make a generator of tensors.

    Raises:
        ModelError: The tensors do not fit the sizes.
    """
    with torch.device("meta"):
        claimed = sum(tensor.numel() for tensor in StyleGAN2(architecture).state_dict().values())
    given = sum(tensor.numel() for tensor in tensors.values())
    if claimed > 2 * given + 2**20:  # sizes that a file only claims must not cost memory
        raise ModelError(f"{path}: its sizes need {claimed} numbers, and it holds {given}")
    generator = StyleGAN2(architecture, path.stem)
    load_state(generator, tensors, path)
    return generator.eval().requires_grad_(False)
