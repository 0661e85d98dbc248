"""Image manifold-learning flows: denoise by projection, sample, and score out-of-distribution images.

>>> import mfimage
>>> model = mfimage.from_pretrained("runs/clothes")  # doctest: +SKIP
>>> clean = mfimage.denoise("shoe.png", model)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {  # where each public name lives; imported at first use, so that `mfimage --help` is quick
    "Config": "config",
    "ModelConfig": "model_config",
    "Reading": "config",
    "Dataset": "datasets",
    "presets": "config",
    "ManifoldFlow": "models",
    "build": "models.build",
    "from_pretrained": "pretrained",
    "save_pretrained": "pretrained",
    "push_to_hub": "sharing",
    "load": "datasets",
    "loader": "datasets.loader",
    "train": "training",
    "denoise": "denoising",
    "inpaint": "denoising",
    "super_resolve": "denoising",
    "Detector": "ood",
    "score": "ood.scores",
    "evaluate": "eval",
    "compare": "eval",
    "choose_dimension": "eval.dimension_choice",
    "MfimageError": "errors",
    "UnfamiliarWarning": "errors",
    "ChangedWarning": "errors",
}
__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'mfimage' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mfimage.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
