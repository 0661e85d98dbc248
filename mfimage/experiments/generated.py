"""The experiments on images that a generator makes of a few latents: the paper's StyleGAN manifolds."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mfimage.config import Config
from mfimage.datasets.points import Points
from mfimage.datasets.stylegan import Generator, Styled, load_generator, seeded_generator
from mfimage.eval.ranking import auroc
from mfimage.experiments import pictures
from mfimage.experiments.experiment import Experiment
from mfimage.experiments.images import CORRELATION, DENSITY_ERROR
from mfimage.experiments.measures import errors, recovery, samples, strangeness
from mfimage.experiments.simulators import Generated, Simulator
from mfimage.experiments.tables import Figure, Metric
from mfimage.experiments.vectors import AUC, DISTANCE, RECONSTRUCTION
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel, ManifoldFlow

DISTANCES, DENSITIES = 200, 500  # samples whose nearest image is searched, images whose density is compared

PAPER_RE = Metric("re_256", "0–256", "lower")  # the paper's: ‖x − x̂‖ with pixels in 0 … 256
RECOVERY = Metric("recovery", "R²", "higher")


def default_generator(dim: int, size: int) -> Generator:
    """Make the generator that is used where no weights are given: seeded, never trained, 2·d + 4 latents."""
    resolution = 1 << max(2, (size - 1).bit_length())
    return seeded_generator(resolution, seed=0, z_dim=2 * dim + 4)


def scene(dim: int, size: int, weights: str | None = None) -> Generated:
    """Set up the manifold of `dim` latents of a generator, or of the file of `mfimage stylegan import`."""
    generator = Styled(load_generator(weights)) if weights else default_generator(dim, size)
    return Generated(generator, dim, size, conditional=dim > 2)


def _config(budget: str, dim: int) -> Config:
    quick = budget == "quick"
    return Config(
        dim=dim, steps=1000 if quick else 6000, density_steps=800 if quick else 4000, batch_size=128, lr=3e-3,
        density_lr=5e-3, every=200, model={"density_steps": 4, "density_width": 64},
    )  # fmt: skip


def _measure(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    error = errors(model, simulator, test.x)
    strangers = simulator.sample_ood(len(test), generator)
    drawn = samples(model, simulator, min(DISTANCES, len(test)), generator)
    found = {
        "reconstruction": float(error.mean()),
        "re_256": 256 * float(error.mean()),
        "distance": float(simulator.distance(drawn).mean()),
        "auc": auroc(strangeness(model, simulator, test.x), strangeness(model, simulator, strangers)),
    }
    assert isinstance(simulator, Generated)
    assert test.latents is not None
    if model.has_manifold:
        found["recovery"] = recovery(in_batches(model.encode, test.x), test.latents)
    if isinstance(model, ManifoldFlow) and not simulator.parameters:
        learned = in_batches(model.log_prob, test.x[:DENSITIES], 64)
        true = simulator.log_prob_at(test.latents[:DENSITIES])
        found["correlation"] = float(torch.corrcoef(torch.stack([learned, true]))[0, 1])
        found["density_error"] = float((learned - true).abs().mean() / model.dim)
    return found


def _figures(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> list[Figure]:
    drawn = [pictures.images(models, simulator, test)]
    drawn += [pictures.chart(name, model, test) for name, model in models.items() if model.dim == 2]
    return drawn


def stylegan(dim: int, size: int = 64, weights: str | None = None) -> Experiment:
    """Set up the experiment for `dim` latents of a generator; from 3 on with a parameter θ."""
    published = {
        2: {"pie": 5539.0, "m-flow": 332.0, "me-flow": 303.0},
        64: {"pie": 4155.0, "m-flow": 1432.0, "me-flow": 1559.0},
    }
    return generated(scene(dim, size, weights), published.get(dim, {}))


def generated(made: Generated, published: Mapping[str, float] | None = None) -> Experiment:
    """Set up the experiment for any generator; `published` are errors of pixels in 0 … 256 by algorithm."""
    dim = made.dim
    return Experiment(
        title=f"{dim} latents of {made.generator.name}, {made.shape[1]} × {made.shape[2]}",
        simulator=lambda budget: made,
        count={"quick": 5_000, "paper": 10_000 if dim == 2 else 20_000},
        algorithms=("m-flow", "me-flow", "pae", "af", "pie", "pca"),
        config=lambda budget: _config(budget, dim),
        changes=lambda budget: {"af": {"lr": 1e-3}, "pie": {"lr": 1e-3}},
        metrics=(PAPER_RE, RECONSTRUCTION, DISTANCE, RECOVERY, CORRELATION, DENSITY_ERROR, AUC),
        measure=_measure,
        figures=_figures,
        published={name: {"re_256": value} for name, value in (published or {}).items()},
        test_count=1000,
    )
