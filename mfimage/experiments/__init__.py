"""The experiments: what is learned, by which algorithms, and what is measured where the truth is known."""

from collections.abc import Callable
from functools import partial

from mfimage.experiments.experiment import BUDGETS, Experiment
from mfimage.experiments.image_experiments import image_manifold, stylegan
from mfimage.experiments.vector_experiments import circle, collider, lorenz, sphere, surface

EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    "circle": circle,
    "sphere": sphere,
    "surface": surface,
    "lorenz": lorenz,
    "collider": collider,
    "image-manifold": image_manifold,
    "stylegan-2d": partial(stylegan, 2),
    "stylegan-64d": partial(stylegan, 64),
}

__all__ = ["BUDGETS", "EXPERIMENTS", "Experiment"]
