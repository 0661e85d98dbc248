"""The experiments on points in a few dimensions: circle, sphere, polynomial surface, Lorenz attractor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mfimage.config import Config
from mfimage.datasets.points import Points
from mfimage.experiments import pictures
from mfimage.experiments.experiment import Experiment
from mfimage.experiments.measures import common, posterior
from mfimage.experiments.simulators import Lorenz, Simulator, Sphere, Surface
from mfimage.experiments.tables import Figure, Metric
from mfimage.models import GenerativeModel

DISTANCE = Metric("distance", "of samples", "lower")
RECONSTRUCTION = Metric("reconstruction", "‖x − x̂‖", "lower")
AUC = Metric("auc", "of strangers", "higher")
MMD = Metric("mmd", "² of posterior", "lower")
EVERY = ("af", "pie", "pae", "m-flow", "m-flow-a", "m-flow-s", "m-flow-ot", "me-flow", "me-flow-a",
         "me-flow-s", "free-form", "denoising", "pca")  # fmt: skip
JOINT = ("m-flow-a", "m-flow-s", "me-flow-a", "me-flow-s", "free-form")  # chart and density in one phase


def _changes(budget: str, joint_steps: int) -> dict[str, dict[str, Any]]:
    """Choose the steps of joint phases, and room for the steep gradients of narrow likelihoods."""
    return {
        **{name: {"steps": joint_steps} for name in JOINT},
        "af": {"steps": joint_steps, "clip": 1000.0},
        "pie": {"steps": joint_steps, "clip": 1000.0},
        "denoising": {"noise": 0.05, "steps": joint_steps},
        "m-flow-ot": {"steps": min(joint_steps, 1000), "batch_size": 256},
    }


def _circle_config(budget: str) -> Config:
    return Config(
        dim=1, steps=2000 if budget == "quick" else 10_000, density_steps=800, batch_size=512, lr=3e-3,
        density_lr=3e-3, clip=10.0, every=500,
        model={"density_steps": 2, "density_width": 32, "epsilon": 0.1},
    )  # fmt: skip


def _circle_figures(
    models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points
) -> list[Figure]:
    return [pictures.plane(name, model, test) for name, model in models.items()]


CIRCLE = Experiment(
    title="A circle with noise",
    simulator=lambda budget: Sphere(1),
    count={"quick": 10_000, "paper": 100_000},
    algorithms=("fom", *EVERY),
    config=_circle_config,
    changes=lambda budget: _changes(budget, 2000),
    metrics=(DISTANCE, RECONSTRUCTION, AUC),
    measure=common,
    figures=_circle_figures,
    published={
        "af": {"distance": 0.58},
        "fom": {"distance": 0.0},
        "pie": {"distance": 0.015},
        "m-flow": {"distance": 0.038},
        "m-flow-ot": {"distance": 0.007},
        "pae": {"distance": 0.029},
    },
)


def _sphere_config(budget: str) -> Config:
    return Config(
        dim=2, steps=3000 if budget == "quick" else 10_000, density_steps=1500, batch_size=512, lr=3e-3,
        density_lr=3e-3, clip=10.0, every=500, model={"density_steps": 3, "density_width": 32},
    )  # fmt: skip


def _space_figures(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> list[Figure]:
    return [pictures.space(models, simulator, test)]


SPHERE = Experiment(
    title="A sphere with noise",
    simulator=lambda budget: Sphere(2),
    count={"quick": 10_000, "paper": 100_000},
    algorithms=("fom", *EVERY),
    config=_sphere_config,
    changes=lambda budget: _changes(budget, 2000),
    metrics=(DISTANCE, RECONSTRUCTION, AUC),
    measure=common,
    figures=_space_figures,
)


def _surface_config(budget: str) -> Config:
    quick = budget == "quick"
    return Config(
        dim=2, steps=2500 if quick else 8000, density_steps=1000 if quick else 3000, batch_size=512, lr=5e-3,
        density_lr=1e-2, clip=10.0, every=500, validation=2000 if quick else 10_000,
        model={"density_steps": 3, "density_width": 32, "epsilon": 0.01},
    )  # fmt: skip


def _surface_changes(budget: str) -> dict[str, dict[str, Any]]:
    changes = _changes(budget, 2000 if budget == "quick" else 3000)
    changes["af"]["noise"] = 2e-3  # the data have none, and the likelihood no bound
    if budget == "paper":
        changes["af"]["steps"] = changes["pie"]["steps"] = 8000
    return changes


def _surface_measure(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    return common(model, simulator, test, generator) | posterior(model, simulator, test, generator)


def _surface_figures(
    models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points
) -> list[Figure]:
    return [pictures.space(models, simulator, test), pictures.posteriors(models, simulator, test)]


SURFACE = Experiment(
    title="A polynomial surface",
    simulator=lambda budget: Surface(),
    count={"quick": 20_000, "paper": 100_000},
    algorithms=EVERY,
    config=_surface_config,
    changes=_surface_changes,
    metrics=(DISTANCE, RECONSTRUCTION, MMD, AUC),
    measure=_surface_measure,
    figures=_surface_figures,
    published={
        "af": {"distance": 0.005, "reconstruction": 0.0, "mmd": 0.071, "auc": 0.990},
        "pie": {"distance": 0.006, "reconstruction": 1.253, "mmd": 0.075, "auc": 0.972},
        "pae": {"distance": 0.002, "reconstruction": 0.002, "auc": 0.990},
        "m-flow-s": {"distance": 0.006, "reconstruction": 0.011, "mmd": 0.026, "auc": 0.974},
        "m-flow-a": {"distance": 0.002, "reconstruction": 0.003, "mmd": 0.020, "auc": 0.986},
        "m-flow": {"distance": 0.009, "reconstruction": 0.013, "mmd": 0.017, "auc": 0.961},
        "m-flow-ot": {"distance": 0.089, "reconstruction": 0.433, "mmd": 0.134, "auc": 0.647},
        "me-flow-s": {"distance": 0.005, "reconstruction": 0.006, "mmd": 0.033, "auc": 0.975},
        "me-flow-a": {"distance": 0.003, "reconstruction": 0.003, "mmd": 0.030, "auc": 0.985},
        "me-flow": {"distance": 0.002, "reconstruction": 0.002, "mmd": 0.007, "auc": 0.987},
    },
)


def _lorenz_config(budget: str) -> Config:
    quick = budget == "quick"
    return Config(
        dim=2, steps=3000 if quick else 10_000, density_steps=1500 if quick else 5000, batch_size=512,
        lr=3e-3, density_lr=3e-3, clip=10.0, every=500,
        model={"bends": 2, "hidden": 128, "density_steps": 5, "density_width": 64, "epsilon": 0.01},
    )  # fmt: skip


def _lorenz_figures(
    models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points
) -> list[Figure]:
    assert isinstance(simulator, Lorenz)
    return [pictures.trajectories(models, simulator), pictures.space(models, simulator, test)]


LORENZ = Experiment(
    title="The Lorenz attractor",
    simulator=lambda budget: Lorenz(),
    count={"quick": 100_000, "paper": 900_000},
    algorithms=EVERY,
    config=_lorenz_config,
    changes=lambda budget: _changes(budget, 2000 if budget == "quick" else 5000),
    metrics=(DISTANCE, RECONSTRUCTION, AUC),
    measure=common,
    figures=_lorenz_figures,
)
