"""The experiments on vectors: circle, sphere, polynomial surface, Lorenz attractor, collider."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mfimage.config import Config
from mfimage.datasets.points import Points
from mfimage.experiments import pictures
from mfimage.experiments.experiment import (
    AUC,
    DISTANCE,
    PAPER,
    RECONSTRUCTION,
    Budget,
    Draw,
    Experiment,
    common,
)
from mfimage.experiments.posterior import LOG_POSTERIOR, MMD, TRUE_LOG_POSTERIOR, posterior_metrics
from mfimage.experiments.simulators import Collider, Lorenz, Simulator, Sphere, Surface
from mfimage.experiments.tables import Metric
from mfimage.models import GenerativeModel

CLOSURE = Metric("distance", "closure", "lower")
EVERY = ("af", "pie", "pae", "m-flow", "m-flow-a", "m-flow-s", "m-flow-ot", "me-flow", "me-flow-a",
         "me-flow-s", "free-form", "denoising", "pca")  # fmt: skip
JOINT = ("m-flow-a", "m-flow-s", "me-flow-a", "me-flow-s", "free-form")  # chart and density in one phase
_SHARED = Config(dim=1, batch_size=512, lr=3e-3, density_lr=3e-3, clip=10.0, every=500, **PAPER)


def _changes(joint_steps: int) -> dict[str, dict[str, object]]:
    """Choose the steps of joint phases, and room for the steep gradients of narrow likelihoods."""
    return {
        **{name: {"steps": joint_steps} for name in JOINT},
        "af": {"steps": joint_steps, "clip": 1000.0},
        "pie": {"steps": joint_steps, "clip": 1000.0},
        "denoising": {"noise": 0.05, "steps": joint_steps},
        "m-flow-ot": {"steps": min(joint_steps, 1000), "batch_size": 256},
    }


def _measure_posterior(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    return common(model, simulator, test, generator) | posterior_metrics(model, simulator, test, generator)


def circle() -> Experiment:
    """Set up the circle with noise."""
    network = {"density_steps": 2, "density_width": 32, "epsilon": 0.1}
    config = _SHARED.with_(steps=2000, density_steps=800, model=network)
    distances = {"af": 0.58, "fom": 0.0, "pie": 0.015, "m-flow": 0.038, "m-flow-ot": 0.007, "pae": 0.029}
    return _sphere(Sphere(1), config, pictures.planes, distances)


def sphere() -> Experiment:
    """Set up the sphere with noise, which the paper does not have."""
    network = {"density_steps": 3, "density_width": 32}
    config = _SHARED.with_(dim=2, steps=3000, density_steps=1500, model=network)
    return _sphere(Sphere(2), config, pictures.space, {})


def _sphere(simulator: Sphere, config: Config, figure: Draw, distances: Mapping[str, float]) -> Experiment:
    long, changes = config.with_(steps=10_000), _changes(2000)
    return Experiment(
        title=f"A {simulator.name} with noise",
        simulator=simulator,
        budgets={"quick": Budget(10_000, config, changes), "paper": Budget(100_000, long, changes)},
        algorithms=("fom", *EVERY),
        metrics=(DISTANCE, RECONSTRUCTION, AUC),
        measure=common,
        figures=(figure,),
        published={name: {"distance": value} for name, value in distances.items()},
    )


def surface() -> Experiment:
    """Set up the polynomial surface."""
    network = {"density_steps": 3, "density_width": 32, "epsilon": 0.01}
    quick = _SHARED.with_(dim=2, steps=2500, density_steps=1000, lr=5e-3, density_lr=1e-2, model=network)
    quick = quick.with_(validation=2000)
    few, many = _changes(2000), _changes(3000)
    few["af"]["noise"] = many["af"]["noise"] = 2e-3  # the data have none, and the likelihood no bound
    many["af"]["steps"] = many["pie"]["steps"] = 8000

    return Experiment(
        title="A polynomial surface",
        simulator=Surface(),
        budgets={
            "quick": Budget(20_000, quick, few),
            "paper": Budget(100_000, quick.with_(steps=8000, density_steps=3000, validation=10_000), many),
        },
        algorithms=EVERY,
        metrics=(DISTANCE, RECONSTRUCTION, MMD, AUC),
        measure=_measure_posterior,
        figures=(pictures.space, pictures.posteriors),
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


def lorenz() -> Experiment:
    """Set up the Lorenz attractor."""
    network = {"bends": 2, "hidden": 128, "density_steps": 5, "density_width": 64, "epsilon": 0.01}
    config = _SHARED.with_(dim=2, steps=3000, density_steps=1500, model=network)
    long = config.with_(steps=10_000, density_steps=5000)
    return Experiment(
        title="The Lorenz attractor",
        simulator=Lorenz(),
        budgets={
            "quick": Budget(100_000, config, _changes(2000)),
            "paper": Budget(900_000, long, _changes(5000)),
        },
        algorithms=EVERY,
        metrics=(DISTANCE, RECONSTRUCTION, AUC),
        measure=common,
        figures=(pictures.trajectories, pictures.space),
    )


def collider() -> Experiment:
    """Set up pp → h(γγ) jj in 40 observables, with two parameters."""
    network = {"bends": 2, "hidden": 128, "density_steps": 5, "density_width": 64, "epsilon": 0.1}
    config = _SHARED.with_(dim=14, lr=6e-3, density_lr=2e-3, weight=100.0, model=network)
    quick = config.with_(steps=2000, density_steps=1000)
    long = config.with_(steps=6000, density_steps=3000)
    changes = {"af": {"clip": 1000.0, "noise": 0.01}, "pie": {"clip": 1000.0}}
    return Experiment(
        title="Higgs bosons at a collider",
        simulator=Collider(),
        budgets={"quick": Budget(50_000, quick, changes), "paper": Budget(500_000, long, changes)},
        algorithms=("af", "pie", "pie+theta", "m-flow", "me-flow", "m-flow+scandal", "me-flow+scandal",
                    "pae", "pca"),
        metrics=(CLOSURE, RECONSTRUCTION, LOG_POSTERIOR, TRUE_LOG_POSTERIOR, MMD, AUC),
        measure=_measure_posterior,
        figures=(pictures.posteriors,),
        published={
            "af": {"distance": 0.0019, "reconstruction": 0.0, "log_posterior": -3.94},
            "pie+theta": {"distance": 0.0023, "reconstruction": 2.05, "log_posterior": -4.68},
            "pie": {"distance": 0.0022, "reconstruction": 1.68, "log_posterior": -1.82},
            "m-flow": {"distance": 0.0045, "reconstruction": 0.012, "log_posterior": -1.71},
            "me-flow": {"distance": 0.0046, "reconstruction": 0.029, "log_posterior": -1.44},
            "m-flow+scandal": {"distance": 0.037, "reconstruction": 0.011, "log_posterior": 0.11},
            "me-flow+scandal": {"distance": 0.029, "reconstruction": 0.030, "log_posterior": 0.14},
        },
    )  # fmt: skip
