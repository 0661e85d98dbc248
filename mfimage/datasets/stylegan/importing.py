"""Import StyleGAN2 generators from the network pickles of NVIDIA's stylegan2-ada-pytorch and stylegan3."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from mfimage.datasets.pickles import ARRAYS, Calls, Stub, Unpickler, instance, keys
from mfimage.datasets.stylegan.generator import RESOLUTIONS, Architecture, StyleGAN2, fill_generator
from mfimage.datasets.torch_pickles import (
    TENSORS,
    TensorPart,
    load_storage,
    make_tensors,
    modules,
    named_parts,
)
from mfimage.errors import ModelError
from mfimage.limits import Allowance, Refused

_PREFERRED = ("G_ema", "G")  # the moving average of the weights gives the better images
_SCALARS = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "u1": "<B", "b1": "<?"}
_DTYPE = "numpy.dtype "
_OUTER = {
    r"mapping\.embed\.(weight|bias)": r"mapping.embed.\1",
    r"mapping\.fc(\d+)\.(weight|bias)": r"mapping.layers.\1.\2",
    r"mapping\.w_avg": r"mapping.mean",
    r"synthesis\.b4\.const": r"synthesis.constant",
}
_LAYER = re.compile(r"synthesis\.b(\d{1,4})\.(conv0|conv1|torgb)\.(.+)")
_LAYERS = {"conv0": "up", "conv1": "convolution", "torgb": "colour"}
_INNER = {
    "affine.weight": "style.weight",
    "affine.bias": "style.bias",
    "noise_const": "noise",
    "noise_strength": "strength",
}


def import_network(path: str | Path) -> StyleGAN2:
    """Read the generator of a network pickle, executing nothing of it.

    Taken is `G_ema`, else `G`, of a training snapshot, or a generator that was pickled alone. The scales by
    which training slows layers down are multiplied into the weights.

    Args:
        path: A pickle of stylegan2-ada-pytorch, or of stylegan3 with a StyleGAN2 configuration.

    Returns:
        The generator, float32, on the CPU.

    Raises:
        ModelError: The file is missing or damaged, asks for a call, or holds another kind of network.
    """
    path = Path(path)
    network = _choose(read_network_pickle(path), path)
    try:
        states = dict(modules(network, lambda s: {n: v for n, v in s["_modules"].items() if v is not None}))
        architecture = _architecture(states)
        tensors = _tensors(states, path.stat().st_size)
    except (ModelError, Refused) as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:  # attributes of any type, that somebody else wrote
        what = f"{type(error).__name__}: {str(error)[:100]}"
        raise ModelError(
            f"{path}: not a StyleGAN2 generator of stylegan2-ada-pytorch or stylegan3 ({what})"
        ) from error
    return fill_generator(architecture, tensors, path)


def read_network_pickle(path: Path) -> Any:
    """Read a pickle as numbers, strings, bytes, containers, `TensorPart`s and `Stub` objects.

    It is of protocol 3 to 5 as soon as it holds tensors.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    allowance = Allowance()
    load: Calls = {("torch.storage", "_load_from_bytes"): lambda data: load_storage(data, allowance)}
    try:
        with path.open("rb") as file:
            stream = cast(IO[bytes], _Bounded(file, path.stat().st_size))
            return Unpickler(stream, {**_CALLS, **load}, allowance).load()
    except Refused as error:
        raise ModelError(f"{path}: refused, because {error}; nothing in it was executed") from error
    except Exception as error:  # a damaged pickle raises nearly every type
        what = f"{type(error).__name__}: {str(error)[:100]}"
        raise ModelError(f"{path}: damaged, or not the pickle of a network ({what})") from error


class _Bounded:
    """A file of which no more is asked than it holds, whatever length a pickle claims."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size, self.readline = file, size, file.readline

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self._file.tell()))


def _choose(content: object, path: Path) -> Stub:
    if isinstance(content, tuple) and content and isinstance(content[0], Stub):
        advice = "convert it with legacy.py of stylegan2-ada-pytorch"
        raise ModelError(f"{path}: a network of the TensorFlow releases; {advice}")
    if isinstance(content, dict):
        content = next((content[name] for name in _PREFERRED if content.get(name) is not None), None)
    if not isinstance(content, Stub) or not isinstance(content.state, dict):
        raise ModelError(f"{path}: no generator in it, neither G_ema nor G")
    return content


def _architecture(states: dict[str, dict[str, Any]]) -> Architecture:
    """Read the sizes from attributes and shapes; refuse what this package's StyleGAN2 does not have."""
    if "mapping" not in states or "synthesis.b4" not in states:
        raise ModelError("another kind of network: only StyleGAN2 is read, not StyleGAN3 or a discriminator")
    top, mapping = states[""], states["mapping"]
    if top["img_resolution"] not in RESOLUTIONS:
        raise ModelError("its images are not of a power of two from 4 to 1024 pixels")
    names = [f"synthesis.b{size}" for size in RESOLUTIONS if size <= top["img_resolution"]]
    layers = {name: states[name] for name in states if re.fullmatch(r"synthesis\.b\d+\.conv[01]", name)}
    colours = [states[f"{name}.torgb"] for name in names]
    limits = {layer.get("conv_clamp") for layer in (*layers.values(), *colours)}
    if {states[name]["architecture"] for name in names} != {"skip"}:
        raise ModelError(
            "a generator without skip outputs (architecture 'orig' or 'resnet'), which is not read"
        )
    fully = [states[f"mapping.fc{k}"] for k in range(mapping["num_layers"])]
    if {layer["activation"] for layer in (*layers.values(), *fully)} != {"lrelu"} or len(limits) != 1:
        raise ModelError("a generator whose layers differ from StyleGAN2's in activation or bound")
    _require_usual(states, layers)
    widths = [states[f"{name}.conv1"]["_parameters"]["bias"].size[0] for name in names]
    limit = limits.pop()
    return Architecture(
        z_dim=top["z_dim"],
        w_dim=top["w_dim"],
        resolution=top["img_resolution"],
        channels=top["img_channels"],
        widths=tuple(widths),
        depth=mapping["num_layers"],
        labels=top["c_dim"],
        limit=None if limit is None else float(limit),
    )


def _require_usual(states: dict[str, dict[str, Any]], layers: dict[str, dict[str, Any]]) -> None:
    """Refuse what this package's layers take for granted and a network has changed."""
    straight = [name for name in states if name.endswith(".affine") or name == "mapping.embed"]
    if any(states[name]["activation"] != "linear" for name in straight):
        raise ModelError("a generator whose styles or labels go through an activation")
    for name, layer in layers.items():
        if not math.isclose(float(layer["act_gain"]), 2**0.5, rel_tol=1e-6):
            raise ModelError(f"a generator with another gain than √2 after an activation ({name}.act_gain)")
        if layer["up"] != (2 if name.endswith("conv0") else 1) or not layer.get("use_noise", True):
            raise ModelError(f"a generator with a layer that enlarges or is noised otherwise ({name})")
    styles = states["mapping"].get("num_ws")
    blocks = sum(name.endswith(".torgb") for name in states)
    if styles is not None and styles != 2 * blocks:
        raise ModelError(f"a generator of {styles} styles, where StyleGAN2 has {2 * blocks}")


def _tensors(states: dict[str, dict[str, Any]], size: int) -> dict[str, Tensor]:
    held = ((module, {**state["_parameters"], **state["_buffers"]}) for module, state in states.items())
    out, taps = {}, torch.tensor((1.0, 3.0, 3.0, 1.0), dtype=torch.float32)
    for place, stored in make_tensors(named_parts(held), size).items():
        module, _, name = place.rpartition(".")
        tensor = stored.float()
        if name != "resample_filter":
            out[_rename(place)] = _scaled(tensor, module, name, states[module])
        elif tensor.shape != (4, 4) or not torch.allclose(tensor, torch.outer(taps, taps) / 64):
            raise ModelError("a generator with another filter between resolutions than [1, 3, 3, 1]")
    return out


def _scaled(tensor: Tensor, module: str, name: str, state: dict[str, Any]) -> Tensor:
    """Multiply the scales of training into linear maps and colours; convolutions are normalised anyway."""
    if name in ("weight", "bias") and (".affine" in module or "mapping." in module):
        return tensor * float(state[f"{name}_gain"])
    if name == "weight" and module.endswith("torgb"):
        return tensor.flatten(1) * float(state["weight_gain"])
    return tensor


def _rename(name: str) -> str:
    """Translate the name of a tensor; an unknown one stays, and is named when the network is filled."""
    layer = _LAYER.fullmatch(name)
    if layer is not None:
        block = int(layer[1]).bit_length() - 3  # 4 pixels are block 0
        return f"synthesis.blocks.{block}.{_LAYERS[layer[2]]}.{_INNER.get(layer[3], layer[3])}"
    for theirs, ours in _OUTER.items():
        if re.fullmatch(theirs, name):
            return re.sub(theirs, ours, name)
    return name


def _parameter(data: object, *_: object) -> TensorPart:
    if not isinstance(data, TensorPart):
        raise Refused("a parameter in it is no tensor")
    return data


def _scalar(dtype: object, data: bytes) -> float:
    """Read a NumPy number: gains are of this kind."""
    state = dtype.state if isinstance(dtype, Stub) and dtype.of.startswith(_DTYPE) else None
    if not (isinstance(dtype, Stub) and isinstance(state, tuple) and state[1] in ("<", "|", "=")):
        raise Refused("a NumPy number in it is of no known type")
    return struct.unpack(_SCALARS[dtype.of.removeprefix(_DTYPE)], data)[0]


def _network(meta: Any) -> Stub:
    """Take class name and attributes; the source code that lies beside them is not read."""
    if not (isinstance(meta["class_name"], str) and isinstance(meta["state"], dict)):
        raise Refused("a network in it has no attributes")
    return Stub(meta["class_name"], meta["state"])


def _set(values: object = ()) -> set[object]:
    if not isinstance(values, (list, tuple)):
        raise Refused("it makes a set of what is no list")
    return set(keys(values))


_CALLS: Calls = {
    **TENSORS,
    **ARRAYS,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _network,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("copyreg", "_reconstructor"): instance,
    ("copy_reg", "_reconstructor"): instance,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
