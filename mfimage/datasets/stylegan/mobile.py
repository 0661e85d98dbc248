"""MobileStyleGAN: a trained generator of faces that pip installs and a CPU runs."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfimage.errors import ModelError, UsageError

_INSTALL = "pip install openvino && pip install --no-deps random-face==2021.7.21.1"
_NETWORKS = ("MappingNetwork", "SynthesisNetwork")
_LATENTS = 512
_SIZE = 1024


class MobileStyleGAN:
    """The generator of the package `random-face`, a `Generator`: FFHQ faces, 1024 × 1024, z and w in R⁵¹².

    Only the package's files are read, its code is not imported. One image takes about 2 s on two cores. The
    weights come from FFHQ, whose licence is non-commercial: so should be what is made with them. The folder
    holds MappingNetwork and SynthesisNetwork as .xml and .bin; None: that in the package. Belousov,
    MobileStyleGAN, 2021, arXiv 2104.04767.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        core = _core()
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


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UsageError(f"MobileStyleGAN needs OpenVINO: {_INSTALL}") from error
    return openvino.Core()


def _installed() -> Path:
    found = importlib.util.find_spec("random_face")
    if found is None or found.origin is None:
        raise UsageError(f"MobileStyleGAN's weights are not installed: {_INSTALL}")
    return Path(found.origin).parent / "data"


def _compile(core: Any, path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        return core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: OpenVINO cannot read it ({str(error).splitlines()[0][:100]})") from error


def _by_row(network: Any, rows: Tensor) -> Tensor:
    """Apply a network of one input and one output row by row: its batch size is fixed at one."""
    if rows.ndim != 2 or rows.shape[1] != _LATENTS:
        raise UsageError(f"rows of {_LATENTS} numbers are expected, not {tuple(rows.shape)}")
    values = rows.detach().cpu().numpy().astype(np.float32)
    results = [np.array(network(row[None])[network.output(0)]) for row in values]
    return torch.from_numpy(np.concatenate(results))
