"""The collider experiment: pp → h(γγ) jj in 40 observables, two parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mfimage.config import Config
from mfimage.datasets.points import Points
from mfimage.experiments import pictures
from mfimage.experiments.experiment import Experiment
from mfimage.experiments.measures import common, posterior
from mfimage.experiments.simulators import Collider, Simulator
from mfimage.experiments.tables import Figure, Metric
from mfimage.experiments.vectors import AUC, MMD, RECONSTRUCTION
from mfimage.models import GenerativeModel

CLOSURE = Metric("distance", "closure", "lower")
LOG_POSTERIOR = Metric("log_posterior", "at true θ", "higher")
TRUE_LOG_POSTERIOR = Metric("true_log_posterior", "truth", None)


def _config(budget: str) -> Config:
    quick = budget == "quick"
    return Config(
        dim=14, steps=2000 if quick else 6000, density_steps=1000 if quick else 3000, batch_size=512,
        lr=6e-3, density_lr=2e-3, clip=10.0, every=500, weight=100.0,
        model={"bends": 2, "hidden": 128, "density_steps": 5, "density_width": 64, "epsilon": 0.1},
    )  # fmt: skip


def _measure(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    return common(model, simulator, test, generator) | posterior(model, simulator, test, generator)


def _figures(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> list[Figure]:
    return [pictures.posteriors(models, simulator, test)]


COLLIDER = Experiment(
    title="Higgs bosons at a collider",
    simulator=lambda budget: Collider(),
    count={"quick": 50_000, "paper": 500_000},
    algorithms=(
        "af",
        "pie",
        "pie+theta",
        "m-flow",
        "me-flow",
        "m-flow+scandal",
        "me-flow+scandal",
        "pae",
        "pca",
    ),
    config=_config,
    changes=lambda budget: {"af": {"clip": 1000.0, "noise": 0.01}, "pie": {"clip": 1000.0}},
    metrics=(CLOSURE, RECONSTRUCTION, LOG_POSTERIOR, TRUE_LOG_POSTERIOR, MMD, AUC),
    measure=_measure,
    figures=_figures,
    published={
        "af": {"distance": 0.0019, "reconstruction": 0.0, "log_posterior": -3.94},
        "pie+theta": {"distance": 0.0023, "reconstruction": 2.05, "log_posterior": -4.68},
        "pie": {"distance": 0.0022, "reconstruction": 1.68, "log_posterior": -1.82},
        "m-flow": {"distance": 0.0045, "reconstruction": 0.012, "log_posterior": -1.71},
        "me-flow": {"distance": 0.0046, "reconstruction": 0.029, "log_posterior": -1.44},
        "m-flow+scandal": {"distance": 0.037, "reconstruction": 0.011, "log_posterior": 0.11},
        "me-flow+scandal": {"distance": 0.029, "reconstruction": 0.030, "log_posterior": 0.14},
    },
)
