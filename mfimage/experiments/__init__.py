"""The experiments: what is learned, by which algorithms, and what is measured where the truth is known."""

from collections.abc import Callable
from functools import partial

from mfimage.experiments.collider import COLLIDER
from mfimage.experiments.experiment import BUDGETS, Experiment
from mfimage.experiments.generated import stylegan
from mfimage.experiments.images import image_manifold
from mfimage.experiments.vectors import CIRCLE, LORENZ, SPHERE, SURFACE

EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    "circle": lambda: CIRCLE,
    "sphere": lambda: SPHERE,
    "surface": lambda: SURFACE,
    "lorenz": lambda: LORENZ,
    "collider": lambda: COLLIDER,
    "image-manifold": image_manifold,
    "stylegan-2d": partial(stylegan, 2),
    "stylegan-64d": partial(stylegan, 64),
}

__all__ = ["BUDGETS", "EXPERIMENTS", "Experiment", "image_manifold", "stylegan"]
