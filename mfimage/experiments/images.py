"""The experiment on rendered images, whose manifold and density are known."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mfimage.config import Config
from mfimage.datasets.points import Points
from mfimage.experiments import pictures
from mfimage.experiments.experiment import Experiment
from mfimage.experiments.measures import common
from mfimage.experiments.simulators import Rendered, Simulator
from mfimage.experiments.tables import Figure, Metric
from mfimage.experiments.vectors import AUC, DISTANCE, RECONSTRUCTION
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel, ManifoldFlow

DENSITIES = 1000  # held-out images whose log-density is compared

CORRELATION = Metric("correlation", "of log p", "higher")
DENSITY_ERROR = Metric("density_error", "nats/d", "lower")


def _config(budget: str, dim: int) -> Config:
    quick = budget == "quick"
    return Config(
        dim=dim, steps=600 if quick else 3500, density_steps=600 if quick else 6500, batch_size=128, lr=3e-3,
        density_lr=5e-3, every=200, model={"density_steps": 3 if dim == 2 else 8, "density_width": 64},
    )  # fmt: skip


def _measure(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    found = common(model, simulator, test, generator)
    if isinstance(model, ManifoldFlow) and isinstance(simulator, Rendered) and test.latents is not None:
        learned = in_batches(model.log_prob, test.x[:DENSITIES], 64)
        true = simulator.log_prob_at(test.latents[:DENSITIES].double())
        found["correlation"] = float(torch.corrcoef(torch.stack([learned, true]))[0, 1])
        found["density_error"] = float((learned - true).abs().mean() / model.dim)
    return found


def _figures(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> list[Figure]:
    drawn = [pictures.images(models, simulator, test)]
    for name, model in models.items():
        if isinstance(model, ManifoldFlow) and isinstance(simulator, Rendered):
            drawn.append(pictures.densities(name, model, simulator, test))
    return drawn


def image_manifold(dim: int = 2, size: int = 32, channels: int = 1) -> Experiment:
    """Set up the experiment for images of d known factors; see `Rendered` for what there is."""
    scene = Rendered(dim, size, channels)
    return Experiment(
        title=f"Rendered images, {dim} factors, {size} × {size}, {'grey' if channels == 1 else 'colour'}",
        simulator=lambda budget: scene,
        count={"quick": 10_000, "paper": 200_000},
        algorithms=("m-flow", "me-flow", "pae", "af", "pie", "pca"),
        config=lambda budget: _config(budget, dim),
        changes=lambda budget: {"af": {"lr": 1e-3}, "pie": {"lr": 1e-3}},
        metrics=(CORRELATION, DENSITY_ERROR, DISTANCE, RECONSTRUCTION, AUC),
        measure=_measure,
        figures=_figures,
        test_count=1000,
    )
