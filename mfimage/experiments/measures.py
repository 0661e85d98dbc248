"""What is measured of a model where the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.eval.ranking import auroc
from mfimage.experiments.posterior import log_posterior, metropolis, squared_mmd
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel

OBSERVED, SETS = 20, 5  # data of which a posterior is taken, and how many such sets
CHAINS, BURN_IN, STEPS, THIN, STEP_SIZE = 100, 75, 100, 10, 0.3

LogLikelihood = Callable[[Tensor, Tensor], Tensor]


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


def strangeness(model: GenerativeModel, simulator: Simulator, x: Tensor) -> Tensor:
    """Score points, higher is stranger: by reconstruction error, or −log p where nothing is projected."""
    if not model.has_manifold:
        return in_batches(lambda part: -model.log_prob(part, context(simulator, len(part))), x, 2000)
    return errors(model, simulator, x)


def common(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    """Measure the distance of samples from the manifold, reconstruction, and the AUC against strangers."""
    strangers = simulator.sample_ood(len(test), generator)
    return {
        "distance": float(simulator.distance(samples(model, simulator, len(test), generator)).mean()),
        "reconstruction": float(errors(model, simulator, test.x).mean()),
        "auc": auroc(strangeness(model, simulator, test.x), strangeness(model, simulator, strangers)),
    }


def recovery(u: Tensor, latents: Tensor) -> float:
    """Measure whether codes determine the true coordinates: R² of a nearest-neighbour regression.

    The mean of the 5 nearest of the first half of the codes, each coordinate over its spread, predicts the
    second half. 1 where they do, 0 where the mean of all does as well; noise of the neighbours' own distance
    keeps it below 1, the more so the larger d.

    Args:
        u: Codes, shape (N, d).
        latents: Shape (N, n).
    """
    from sklearn.neighbors import KNeighborsRegressor

    scaled = ((u - u.mean(0)) / u.std(0).clamp_min(1e-12)).numpy()
    half, truth = len(u) // 2, latents.numpy()
    found = KNeighborsRegressor(5, weights="distance").fit(scaled[:half], truth[:half])
    return float(found.score(scaled[half:], truth[half:]))


def likelihood(model: GenerativeModel, x: Tensor) -> tuple[LogLikelihood, Tensor]:
    """Give a function of (observations, θ) that is log p(x|θ) up to a constant in θ, and its observations.

    On a manifold that does not depend on θ, the codes and the volume are the same for every θ, and only h is
    evaluated; elsewhere it is the model's log_prob, of x.
    """
    chart: Any = getattr(model, "chart", None)
    module: Any = model
    with torch.no_grad():
        if hasattr(model, "density") and not getattr(chart, "conditional", False):
            module, x = model.density, model.encode(x)

    @torch.no_grad()
    def log_likelihood(observed: Tensor, theta: Tensor) -> Tensor:
        return module.log_prob(observed, theta.to(observed))

    return log_likelihood, x


def posterior_samples(
    log_likelihood: LogLikelihood, observed: Tensor, simulator: Simulator, generator: torch.Generator
) -> Tensor:
    """Draw θ from the posterior by Markov chains from the prior, shape (CHAINS·STEPS / THIN, P)."""
    log_prob = log_posterior(log_likelihood, simulator.log_prior, observed)
    start = simulator.prior(CHAINS, generator)
    chains, _ = metropolis(log_prob, start, STEPS, STEP_SIZE, generator, BURN_IN, target=0.4)
    return chains[:, THIN - 1 :: THIN].flatten(0, 1)


def posterior(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator
) -> dict[str, float]:
    """Compare the posterior of θ after 20 data with the true one, by squared MMD; and at the true θ = 0.

    The means of five such sets of data; a single one, as in the paper, is mostly chance. The log posterior
    density at θ = 0 is that of a kernel estimate of the samples.
    """
    if not model.conditional:
        return {}
    values = []
    for x in test.x[: SETS * OBSERVED].split(OBSERVED):
        found = posterior_samples(*likelihood(model, x), simulator, generator)
        truth = posterior_samples(simulator.log_prob, x, simulator, generator)
        at_truth = [log_density_at(draws, torch.zeros(simulator.parameters)) for draws in (found, truth)]
        values.append((squared_mmd(found, truth), *at_truth))
    names = ("mmd", "log_posterior", "true_log_posterior")
    return dict(zip(names, torch.tensor(values, dtype=torch.float64).mean(0).tolist(), strict=True))


def log_density_at(draws: Tensor, theta: Tensor) -> float:
    """Log of a Gaussian kernel estimate (Scott's rule) from draws (n, P) at one θ, shape (P,)."""
    from scipy.stats import gaussian_kde

    return float(gaussian_kde(draws.T.numpy()).logpdf(theta.double().numpy())[0])
