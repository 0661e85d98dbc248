"""The experiments on images of known factors: rendered ones, and those of a generator's latents."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mfimage.config import Config
from mfimage.datasets.points import Points
from mfimage.datasets.stylegan import Styled, load_generator, manifold_generator
from mfimage.eval.page import Part
from mfimage.experiments import pictures
from mfimage.experiments.experiment import Budget, Experiment, Models
from mfimage.experiments.measures import (
    AUC,
    CORRELATION,
    DENSITY_ERROR,
    DISTANCE,
    PAPER_RE,
    RECONSTRUCTION,
    RECOVERY,
    common,
    compare_densities,
    recovery,
)
from mfimage.experiments.simulators import Generated, Rendered, Simulator
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel

ALGORITHMS_OF_IMAGES = ("m-flow", "me-flow", "pae", "af", "pie", "pca")
DISTANCES = 200  # samples of a generator's manifold whose nearest image is searched
RENDERED, GENERATED = 1000, 500  # held-out images whose log-density is compared

_SHARED = Config(dim=2, batch_size=128, lr=3e-3, density_lr=5e-3, every=200)
_CHANGES = {"af": {"lr": 1e-3}, "pie": {"lr": 1e-3}}


def image_manifold(dim: int = 2, size: int = 32, channels: int = 1) -> Experiment:
    """Set up the experiment for images of d known factors; see `Rendered` for what there is."""
    network = {"density_steps": 3 if dim == 2 else 8, "density_width": 64}
    config = _SHARED.with_(dim=dim, steps=600, density_steps=600, model=network)

    def figures(models: Models, simulator: Simulator, test: Points) -> list[Part]:
        return [pictures.images(models, simulator, test), *pictures.densities(models, simulator, test)]

    return Experiment(
        title=f"Rendered images, {dim} factors, {size} × {size}, {'grey' if channels == 1 else 'colour'}",
        simulator=Rendered(dim, size, channels),
        budgets={
            "quick": Budget(10_000, config, _CHANGES),
            "paper": Budget(200_000, config.with_(steps=3500, density_steps=6500), _CHANGES),
        },
        algorithms=ALGORITHMS_OF_IMAGES,
        metrics=(CORRELATION, DENSITY_ERROR, DISTANCE, RECONSTRUCTION, AUC),
        measure=_measure_rendered,
        figures=figures,
        test_count=1000,
    )


def _measure_rendered(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    return common(model, simulator, test, generator) | compare_densities(model, simulator, test, RENDERED)


def stylegan(dim: int, size: int = 64, weights: str | None = None) -> Experiment:
    """Set up the experiment for `dim` latents of a generator; from 3 on with a parameter θ."""
    published = {
        2: {"pie": 5539.0, "m-flow": 332.0, "me-flow": 303.0},
        64: {"pie": 4155.0, "m-flow": 1432.0, "me-flow": 1559.0},
    }
    return generated(scene(dim, size, weights), published.get(dim, {}))


def scene(dim: int, size: int, weights: str | None = None) -> Generated:
    """Set up the manifold of `dim` latents of a generator, or of the file of `mfimage stylegan import`."""
    generator = Styled(load_generator(weights)) if weights else manifold_generator(dim, size)
    return Generated(generator, dim, size, conditional=dim > 2)


def generated(made: Generated, published: Mapping[str, float] | None = None) -> Experiment:
    """Set up the experiment for any generator; `published` are errors of pixels in 0 … 256 by algorithm."""
    config = _SHARED.with_(
        dim=made.dim, steps=1000, density_steps=800, model={"density_steps": 4, "density_width": 64}
    )
    return Experiment(
        title=f"{made.dim} latents of {made.generator.name}, {made.shape[1]} × {made.shape[2]}",
        simulator=made,
        budgets={
            "quick": Budget(5_000, config, _CHANGES),
            "paper": Budget(
                10_000 if made.dim == 2 else 20_000, config.with_(steps=6000, density_steps=4000), _CHANGES
            ),
        },
        algorithms=ALGORITHMS_OF_IMAGES,
        metrics=(PAPER_RE, RECONSTRUCTION, DISTANCE, RECOVERY, CORRELATION, DENSITY_ERROR, AUC),
        measure=_measure_generated,
        figures=_draw_generated,
        published={name: {"re_256": value} for name, value in (published or {}).items()},
        test_count=1000,
    )


def _measure_generated(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    found = common(model, simulator, test, generator, DISTANCES)
    found["re_256"] = 256 * found["reconstruction"]
    if model.has_manifold and test.latents is not None:
        found["recovery"] = recovery(in_batches(model.encode, test.x), test.latents)
    return found | ({} if simulator.parameters else compare_densities(model, simulator, test, GENERATED))


def _draw_generated(models: Models, simulator: Simulator, test: Points) -> list[Part]:
    grids = [pictures.grid(name, model, test) for name, model in models.items() if model.dim == 2]
    return [pictures.images(models, simulator, test), *grids]
