"""Tensors that claim to be on another device, so that what mixes devices fails without a GPU.

Numbers are not to be trusted, only which device each tensor is on.
"""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")  # which needs no hardware
_BETWEEN = ("_to_copy", "copy_", "_local_scalar_dense")  # operators that take tensors of both


class Elsewhere(Tensor):
    """A tensor on the CPU that says it is on `DEVICE`."""

    @staticmethod
    def __new__(cls, held):
        return Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), dtype=held.dtype, device=DEVICE, requires_grad=held.requires_grad
        )

    def __init__(self, held):
        self.held = held

    def tolist(self):
        return self.held.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("a tensor of another device is no numpy array: copy it to the CPU first")

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _call(function, args, kwargs or {})


def _call(function, args, kwargs):
    """Compute on the CPU; RuntimeError where tensors of both devices meet, other than single numbers."""
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    away = [one for one in tensors if isinstance(one, Elsewhere)]
    name = function.overloadpacket.__name__
    indices = name in ("index", "index_put_", "index_put", "_unsafe_index")
    here = [one for one in tensors if not isinstance(one, Elsewhere) and one.ndim > 0]
    if name not in _BETWEEN and here and away and not (indices and isinstance(args[0], Elsewhere)):
        raise RuntimeError(f"{name}: tensors on the CPU and on another device")
    to = kwargs.get("device")
    if to is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    held = tree_map(lambda one: one.held if isinstance(one, Elsewhere) else one, (args, kwargs))
    out = function(*held[0], **held[1])
    if name == "copy_" or (tensors and out is held[0][0]):
        return args[0]
    there = torch.device(to) == DEVICE if to is not None else bool(away)
    return tree_map(lambda one: Elsewhere(one) if there and isinstance(one, Tensor) else one, out)


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _call(function, args, kwargs or {})


@contextmanager
def elsewhere(model):
    """Move a model to that device for a while; what is computed meanwhile is checked."""
    autocast, tensor = torch.autocast, torch.tensor

    def from_numbers(*data, device=None, **how):  # whose numbers torch does not copy to this device
        made = tensor(*data, **how)
        return made if device is None else made.to(device)

    with pytest.MonkeyPatch.context() as patch, _Factories():
        patch.setattr(
            torch,
            "autocast",
            lambda kind, **how: nullcontext() if kind == DEVICE.type else autocast(kind, **how),
        )
        patch.setattr(torch, "tensor", from_numbers)
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            model._apply(lambda one: Elsewhere(one.detach()))
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)
        yield model.requires_grad_(False)
