"""Import torchvision also where its compiled operators do not match the installed torch."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# torch drops the operators of a Library when it is collected, so this module keeps it.
_declared: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """Import torchvision, which on PyPI is built for CUDA and fails beside a CPU build of torch.

    There its Python side describes operators that its unloadable C++ side should have declared, and the
    import stops with `operator torchvision::nms does not exist`. Declaring them is enough for data sets,
    models and transforms; `torchvision.io` and `torchvision.ops` stay without code.
    """
    global _declared
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _declared is not None:
            raise
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        _declared.define(schema)
    return importlib.import_module("torchvision")
