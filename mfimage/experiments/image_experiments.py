"""The experiments on images of known factors: rendered ones, and those of a generator's latents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mfimage.config import Config
from mfimage.datasets.points import Points
from mfimage.datasets.stylegan import Styled, load_generator, manifold_generator
from mfimage.experiments import pictures
from mfimage.experiments.experiment import AUC, DISTANCE, PAPER, RECONSTRUCTION, Budget, Experiment, common
from mfimage.experiments.simulators import Generated, Rendered, Simulator
from mfimage.experiments.tables import Metric
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel

ALGORITHMS_OF_IMAGES = ("m-flow", "me-flow", "pae", "af", "pie", "pca")
DISTANCES = 200  # samples of a generator's manifold whose nearest image is searched
PAPER_RE = Metric("re_256", "0–256", "lower")  # the paper's: ‖x − x̂‖ with pixels in 0 … 256
RECOVERY = Metric("recovery", "R²", "higher")
CORRELATION = Metric("correlation", "of log p", "higher")
DENSITY_ERROR = Metric("density_error", "nats/d", "lower")

RENDERED, GENERATED = 1000, 500  # held-out images whose log-density is compared

_SHARED = Config(dim=2, batch_size=128, lr=3e-3, density_lr=5e-3, every=200, **PAPER)
_CHANGES = {"af": {"lr": 1e-3}, "pie": {"lr": 1e-3}}


def image_manifold(dim: int = 2, size: int = 32, channels: int = 1) -> Experiment:
    """Set up the experiment for images of d known factors; see `Rendered` for what there is."""
    network = {"density": "coupling", "density_steps": 3 if dim == 2 else 8, "density_width": 64}
    config = _SHARED.with_(dim=dim, steps=600, density_steps=600, model=network)
    long = config.with_(steps=3500, density_steps=6500)
    return Experiment(
        title=f"Rendered images, {dim} factors, {size} × {size}, {'grey' if channels == 1 else 'colour'}",
        simulator=Rendered(dim, size, channels),
        budgets={"quick": Budget(10_000, config, _CHANGES), "paper": Budget(200_000, long, _CHANGES)},
        algorithms=ALGORITHMS_OF_IMAGES,
        metrics=(CORRELATION, DENSITY_ERROR, DISTANCE, RECONSTRUCTION, AUC),
        measure=_measure_rendered,
        figures=(pictures.images, pictures.densities),
        test_count=1000,
    )


def _measure_rendered(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    return common(model, simulator, test, generator) | compare_densities(model, simulator, test, RENDERED)


def stylegan(dim: int, size: int = 64, weights: str | None = None) -> Experiment:
    """Set up the experiment for `dim` latents of a generator; from 3 on with a parameter θ.

    The generator is seeded, or read from `weights`, a file of `mfimage stylegan import`.
    """
    published = {
        2: {"pie": 5539.0, "m-flow": 332.0, "me-flow": 303.0},
        64: {"pie": 4155.0, "m-flow": 1432.0, "me-flow": 1559.0},
    }
    generator = Styled(load_generator(weights)) if weights else manifold_generator(dim, size)
    return generated(Generated(generator, dim, size, conditional=dim > 2), published.get(dim, {}))


def generated(made: Generated, published: Mapping[str, float] | None = None) -> Experiment:
    """Set up the experiment for any generator; `published` are errors of pixels in 0 … 256 by algorithm."""
    network = {"density": "coupling", "density_steps": 4, "density_width": 64}
    config = _SHARED.with_(dim=made.dim, steps=1000, density_steps=800, model=network)
    long, count = config.with_(steps=6000, density_steps=4000), 10_000 if made.dim == 2 else 20_000
    return Experiment(
        title=f"{made.dim} latents of {made.generator.name}, {made.shape[1]} × {made.shape[2]}",
        simulator=made,
        budgets={"quick": Budget(5_000, config, _CHANGES), "paper": Budget(count, long, _CHANGES)},
        algorithms=ALGORITHMS_OF_IMAGES,
        metrics=(PAPER_RE, RECONSTRUCTION, DISTANCE, RECOVERY, CORRELATION, DENSITY_ERROR, AUC),
        measure=_measure_generated,
        figures=(pictures.images, pictures.grids),
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


def recovery(u: Tensor, latents: Tensor) -> float:
    """Measure whether codes determine the true coordinates: R² of a nearest-neighbour regression.

    The mean of the 5 nearest of the first half of the codes, each coordinate over its spread, predicts the
    second half. 1 where they do, 0 where the mean of all does as well; noise of the neighbours' own distance
    keeps it below 1, the more so the larger d. Codes are (N, d), latents (N, n).
    """
    from sklearn.neighbors import KNeighborsRegressor

    scaled = ((u - u.mean(0)) / u.std(0).clamp_min(1e-12)).numpy()
    half, truth = len(u) // 2, latents.numpy()
    found = KNeighborsRegressor(5, weights="distance").fit(scaled[:half], truth[:half])
    return float(found.score(scaled[half:], truth[half:]))


def compare_densities(
    model: GenerativeModel, simulator: Simulator, test: Points, most: int
) -> dict[str, float]:
    """Compare learned with true log-densities of up to `most` held-out data, where both are of volume."""
    if not model.has_manifold_density or test.latents is None:
        return {}
    learned = in_batches(model.log_prob, test.x[:most], 64)
    true = simulator.log_prob_at(test.latents[:most].double())
    return {
        "correlation": float(torch.corrcoef(torch.stack([learned, true]))[0, 1]),
        "density_error": float((learned - true).abs().mean() / model.dim),
    }
