"""Network pickles of the same structure as NVIDIA's, written by stand-ins for their classes."""

import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import torch

SOURCE = "raise SystemExit('the source code in a pickle was executed')\n"
TAPS = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


class Part:
    """A module that pickles as theirs do: a call of `_reconstruct_persistent_obj` with source and state."""

    def __init__(self, kind, parameters=None, buffers=None, parts=None, **attributes):
        self.kind = kind
        self.state = {
            "training": False,
            "_parameters": OrderedDict(
                (k, None if v is None else torch.nn.Parameter(v, False))
                for k, v in (parameters or {}).items()
            ),
            "_buffers": OrderedDict(buffers or {}),
            "_non_persistent_buffers_set": set(),
            "_backward_hooks": OrderedDict(),
            "_modules": OrderedDict(parts or {}),
            **attributes,
        }

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
            "class_name": self.kind,
            "state": self.state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


class EasyDict(dict):
    pass


def dense(inputs, outputs, generator, activation="linear", slow=1.0):
    return Part(
        "FullyConnectedLayer",
        {
            "weight": torch.randn(outputs, inputs, generator=generator) / slow,
            "bias": _randn(generator, outputs),
        },
        activation=activation,
        weight_gain=np.float64(slow / np.sqrt(inputs)),
        bias_gain=slow,
    )


def convolution(inputs, outputs, w_dim, size, up, generator, limit):
    return Part(
        "SynthesisLayer",
        {
            "weight": torch.randn(outputs, inputs, 3, 3, generator=generator).to(
                memory_format=torch.channels_last
            ),
            "noise_strength": _randn(generator),
            "bias": _randn(generator, outputs),
        },
        {"resample_filter": TAPS.clone(), "noise_const": _randn(generator, size, size)},
        {"affine": dense(w_dim, inputs, generator)},
        up=up,
        activation="lrelu",
        conv_clamp=limit,
        act_gain=np.sqrt(2),
    )


def colours(inputs, channels, w_dim, generator, limit):
    return Part(
        "ToRGBLayer",
        {
            "weight": torch.randn(channels, inputs, 1, 1, generator=generator),
            "bias": _randn(generator, channels),
        },
        parts={"affine": dense(w_dim, inputs, generator)},
        conv_clamp=limit,
        weight_gain=np.float64(1 / np.sqrt(inputs)),
    )


def network(seed=0, widths=(4, 3), labels=0, limit=256, depth=2, z_dim=5, w_dim=6, channels=3, **changes):
    generator = torch.Generator().manual_seed(seed)
    blocks = {}
    for k, (before, width) in enumerate(zip((0, *widths[:-1]), widths, strict=True)):
        size = 4 * 2**k
        parts = {}
        if before:
            parts["conv0"] = convolution(before, width, w_dim, size, 2, generator, limit)
        parts["conv1"] = convolution(width, width, w_dim, size, 1, generator, limit)
        parts["torgb"] = colours(width, channels, w_dim, generator, limit)
        const = {} if before else {"const": _randn(generator, width, 4, 4)}
        blocks[f"b{size}"] = Part(
            "SynthesisBlock",
            const,
            {"resample_filter": TAPS.clone()},
            parts,
            architecture="skip",
            resolution=size,
        )
    first = z_dim + (w_dim if labels else 0)
    layers = {"embed": dense(labels, w_dim, generator)} if labels else {}
    for k in range(depth):
        layers[f"fc{k}"] = dense(w_dim if k else first, w_dim, generator, "lrelu", 0.01)
    parts = {
        "synthesis": Part("SynthesisNetwork", parts=blocks),
        "mapping": Part("MappingNetwork", {}, {"w_avg": _randn(generator, w_dim)}, layers, num_layers=depth),
    }
    sizes = {"z_dim": z_dim, "c_dim": labels, "w_dim": w_dim, "img_resolution": 4 * 2 ** (len(widths) - 1)}
    return Part("Generator", parts=parts, **(sizes | {"img_channels": channels} | changes))


def snapshot(**arguments):
    """What a training run saves: the discriminator stands for the modules that nobody reads."""
    return {
        "training_set_kwargs": EasyDict(class_name="training.dataset.ImageFolderDataset", resolution=8),
        "G": network(seed=99, **arguments),
        "D": Part("Discriminator", {"weight": torch.randn(3)}),
        "G_ema": network(**arguments),
        "augment_pipe": None,
    }


def dumps(content, protocol=4):
    """Pickle with their modules' names in place of ours."""
    modules = {name: types.ModuleType(name) for name in ("torch_utils", "torch_utils.persistence")}
    modules |= {name: types.ModuleType(name) for name in ("dnnlib", "dnnlib.util")}

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("a call in a pickle was made")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    modules["dnnlib.util"].EasyDict = EasyDict
    EasyDict.__module__ = "dnnlib.util"
    sys.modules.update(modules)
    try:
        return pickle.dumps(content, protocol)
    finally:
        EasyDict.__module__ = __name__
        for name in modules:
            del sys.modules[name]


def _randn(generator, *shape):
    return torch.randn(shape, generator=generator)
