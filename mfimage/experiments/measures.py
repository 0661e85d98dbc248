"""What is measured of a model where the truth is known: samples, reconstruction, codes and densities."""

from __future__ import annotations

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.eval.score_metrics import auroc
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.experiments.tables import Metric
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel

DISTANCE = Metric("distance", "of samples", "lower")
RECONSTRUCTION = Metric("reconstruction", "‖x − x̂‖", "lower")
PAPER_RE = Metric("re_256", "0–256", "lower")  # the paper's: ‖x − x̂‖ with pixels in 0 … 256
AUC = Metric("auc", "of strangers", "higher")
RECOVERY = Metric("recovery", "R²", "higher")
CORRELATION = Metric("correlation", "of log p", "higher")
DENSITY_ERROR = Metric("density_error", "nats/d", "lower")


def context(simulator: Simulator, n: int) -> Tensor | None:
    """θ = 0, n times: where the models are compared. None where there are no parameters."""
    return torch.zeros(n, simulator.parameters) if simulator.parameters else None


def samples(model: GenerativeModel, simulator: Simulator, n: int, generator: torch.Generator) -> Tensor:
    """Draw n points from a model, at θ = 0."""
    return model.sample(n, generator, 2000, context(simulator, 1)).cpu()


def errors(model: GenerativeModel, simulator: Simulator, x: Tensor) -> Tensor:
    """Compute ‖x − x̂‖ of points, shape (n,)."""

    def error(part: Tensor) -> Tensor:
        projected = model.project(part, context(simulator, len(part)))
        return (projected - part).flatten(1).norm(dim=1)

    return in_batches(error, x, 2000)


def stranger_score(model: GenerativeModel, simulator: Simulator, x: Tensor) -> Tensor:
    """Score points, higher is stranger: by reconstruction error, or −log p where nothing is projected."""
    if not model.has_manifold:
        return in_batches(lambda part: -model.log_prob(part, context(simulator, len(part))), x, 2000)
    return errors(model, simulator, x)


def common(
    model: GenerativeModel,
    simulator: Simulator,
    test: Points,
    generator: torch.Generator,
    most: int | None = None,
) -> dict[str, float]:
    """Measure the distance of samples (at most `most`), reconstruction, and the AUC against strangers."""
    strangers = simulator.sample_ood(len(test), generator)
    drawn = samples(model, simulator, min(most or len(test), len(test)), generator)
    return {
        "distance": float(simulator.distance(drawn).mean()),
        "reconstruction": float(errors(model, simulator, test.x).mean()),
        "auc": auroc(stranger_score(model, simulator, test.x), stranger_score(model, simulator, strangers)),
    }


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
