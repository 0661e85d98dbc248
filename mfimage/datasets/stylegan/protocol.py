"""The protocol of generators of images, and what follows it: any function, StyleGAN2, MobileStyleGAN."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from mfimage.datasets.stylegan.generator import StyleGAN2
from mfimage.errors import ModelError, UsageError, boundary
from mfimage.settings import is_number

_PROBES = 4
_INSTALL = "pip install openvino && pip install --no-deps random-face==2021.7.21.1"
_NETWORKS = ("MappingNetwork", "SynthesisNetwork")
_LATENTS = 512
_SIZE = 1024


@runtime_checkable
class Generator(Protocol):
    """Images from latents in two steps: z of independent standard normals to w, and w to an image.

    Attributes:
        name: What a card or an error calls it.
        z_dim: Length of z.
        shape: (C, H, W) of its images.
    """

    name: str
    z_dim: int
    shape: tuple[int, int, int]

    @property
    def mapping(self) -> Callable[[Tensor], Tensor]:
        """The function from z, shape (n, z_dim), to w, a tensor of n rows of any shape."""

    @property
    def synthesis(self) -> Callable[[Tensor], Tensor]:
        """The function from w to images, shape (n, C, H, W), floats in [0, 1]."""

    def fingerprint(self) -> str:
        """Compute a SHA-256 that changes when the images do."""


class Custom:
    """Any function from latents to images, as a `Generator`.

    Args:
        synthesis: From w to images (n, C, H, W), floats in [0, 1]; C = 1 or 3.
        z_dim: Length of z.
        mapping: From z (n, z_dim) to w; None where w = z.
        name: What a card or an error calls it.
        fingerprint: Names the function and its weights; None: the SHA-256 of four of its images in 8 bits.

    Raises:
        ModelError: The functions do not give such images.

    Examples:
        >>> ramp = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
        >>> Custom(lambda w: torch.sigmoid(w[:, :1, None, None] + ramp), z_dim=2).shape
        (1, 8, 8)
    """

    def __init__(
        self,
        synthesis: Callable[[Tensor], Tensor],
        z_dim: int,
        mapping: Callable[[Tensor], Tensor] | None = None,
        name: str = "custom",
        fingerprint: str | None = None,
    ) -> None:
        self.name, self.z_dim = name, z_dim
        self.mapping: Callable[[Tensor], Tensor] = mapping or nn.Identity()
        self.synthesis = synthesis
        z = torch.randn(_PROBES, z_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        with torch.no_grad():
            images = synthesis(self.mapping(z))
        _check(images, name)
        self.shape: tuple[int, int, int] = (images.shape[1], images.shape[2], images.shape[3])
        pixels = images.detach().mul(255).round().byte().cpu().contiguous()
        seen = str(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()
        self._fingerprint = fingerprint or hashlib.sha256(seen).hexdigest()

    def fingerprint(self) -> str:
        return self._fingerprint


class Styled:
    """A StyleGAN2 with its label and its truncation fixed, as a `Generator`.

    Args:
        generator: The network.
        psi: Truncation ψ: w is drawn to its mean, 1 leaves it.
        cutoff: Only the first so many styles are; None: all.
        label: Number of the class; None for a network without labels.

    Raises:
        UsageError: The network has labels and none was given, has none, or has fewer; ψ is no number.
    """

    def __init__(
        self, generator: StyleGAN2, psi: float = 1.0, cutoff: int | None = None, label: int | None = None
    ) -> None:
        labels = generator.architecture.labels
        if not is_number(psi):
            raise UsageError(f"a truncation is a number, and not {psi!r}")
        if (label is None) == (labels > 0) or not 0 <= (label or 0) < max(labels, 1):
            raise UsageError(f"{generator.name}: it has {labels} labels, and label {label} was asked for")
        self.name, self.z_dim, self.shape = generator.name, generator.z_dim, generator.shape
        self.generator, self.psi, self.cutoff, self.label = generator, psi, cutoff, label
        self.synthesis: Callable[[Tensor], Tensor] = generator.synthesis

    def mapping(self, z: Tensor) -> Tensor:
        """Compute w, shape (n, count, w_dim), of latents (n, z_dim)."""
        labels: Tensor | None = None
        if self.label is not None:
            labels = z.new_zeros(len(z), self.generator.architecture.labels)
            labels[:, self.label] = 1
        return self.generator.mapping(z, labels, self.psi, self.cutoff)

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the network, the truncation and the label."""
        settings = (self.generator.fingerprint(), self.psi, self.cutoff, self.label)
        return hashlib.sha256(repr(settings).encode()).hexdigest()


class MobileStyleGAN:
    """The generator of the package `random-face`, a `Generator`: FFHQ faces, 1024 × 1024, z and w in R⁵¹².

    Only the package's files are read, its code is not imported. One image takes about 2 s on two cores. The
    weights come from FFHQ, whose licence is non-commercial: so should be what is made with them. The folder
    holds MappingNetwork and SynthesisNetwork as .xml and .bin; None: that in the package. Belousov,
    MobileStyleGAN, 2021, arXiv 2104.04767.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise UsageError(f"MobileStyleGAN needs OpenVINO: {_INSTALL}") from error
        core = openvino.Core()
        self.folder = Path(folder) if folder is not None else _installed()
        self.name, self.z_dim, self.shape = "mobilestylegan-ffhq", _LATENTS, (3, _SIZE, _SIZE)
        self._mapping, self._synthesis = (_compile(core, self.folder / f"{name}.xml") for name in _NETWORKS)

    def mapping(self, z: Tensor) -> Tensor:
        """Compute w, shape (n, 512), float32, of latents (n, 512)."""
        return _by_row(self._mapping, z)

    def synthesis(self, w: Tensor) -> Tensor:
        """Compute images (n, 3, 1024, 1024) in [0, 1] of w (n, 512); there are no gradients."""
        return (_by_row(self._synthesis, w) + 1).div(2).clamp(0, 1)

    def fingerprint(self) -> str:
        """Compute the SHA-256 of the networks' files."""
        digest = hashlib.sha256()
        for name in _NETWORKS:
            for suffix in ("xml", "bin"):
                digest.update((self.folder / f"{name}.{suffix}").read_bytes())
        return digest.hexdigest()


def _check(images: object, name: str) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != _PROBES:
        raise ModelError(f"{name}: {_PROBES} latents should give a tensor ({_PROBES}, C, H, W) of images")
    if images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise ModelError(f"{name}: images of floats with 1 or 3 channels are expected, not {images.shape[1]}")
    if not (images.isfinite().all() and images.min() >= 0 and images.max() <= 1):
        raise ModelError(f"{name}: the values of its images do not lie in [0, 1]")


def _installed() -> Path:
    found = importlib.util.find_spec("random_face")
    if found is None or found.origin is None:
        raise UsageError(f"MobileStyleGAN's weights are not installed: {_INSTALL}")
    return Path(found.origin).parent / "data"


def _compile(core: Any, path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    with boundary(ModelError, f"{path}: OpenVINO cannot read it"):
        return core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _by_row(network: Any, rows: Tensor) -> Tensor:
    """Apply a network of one input and one output row by row: its batch size is fixed at one."""
    if rows.ndim != 2 or rows.shape[1] != _LATENTS:
        raise UsageError(f"rows of {_LATENTS} numbers are expected, not {tuple(rows.shape)}")
    values = rows.detach().cpu().numpy().astype(np.float32)
    results = [np.array(network(row[None])[network.output(0)]) for row in values]
    return torch.from_numpy(np.concatenate(results))
