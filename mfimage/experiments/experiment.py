"""What an experiment is: a simulator, the algorithms to compare, and what is measured of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeAlias, get_args

import torch
from torch import Tensor

from mfimage.algorithms import ALGORITHMS, check_score
from mfimage.config import BudgetName, Config
from mfimage.datasets.points import Points
from mfimage.errors import UsageError
from mfimage.eval.page import Part
from mfimage.eval.score_metrics import auroc
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.experiments.tables import Metric
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel
from mfimage.settings import from_json

BUDGETS: tuple[str, ...] = get_args(BudgetName)
PAPER: dict[str, Any] = {  # trained plainly, whatever the defaults for photographs
    "weight_decay": 0.0, "ema": 0.0, "patience": 0, "noise": 0.0, "flip": False, "shift": 0.0,
}  # fmt: skip
VARIANTS = ("scandal", "theta")  # +scandal has the joint score in the loss, +theta a chart that sees θ

Models: TypeAlias = Mapping[str, GenerativeModel]
Measure: TypeAlias = Callable[[GenerativeModel, Simulator, Points, torch.Generator], dict[str, float]]
Draw: TypeAlias = Callable[[Models, Simulator, Points], Sequence[Part]]

DISTANCE = Metric("distance", "of samples", "lower")
RECONSTRUCTION = Metric("reconstruction", "‖x − x̂‖", "lower")
AUC = Metric("auc", "of strangers", "higher")


@dataclass(frozen=True)
class Budget:
    """On how many examples, and how long, is trained."""

    count: int  # training examples
    config: Config  # shared by all algorithms
    changes: Mapping[str, Mapping[str, object]] = field(
        default_factory=dict
    )  # by algorithm, where they differ


@dataclass(frozen=True)
class Experiment:
    """An experiment of the paper, or one of its kind."""

    title: str
    simulator: Simulator
    budgets: Mapping[str, Budget]  # one for each of BUDGETS
    algorithms: tuple[
        str, ...
    ]  # what "all" means, in the order of the table; names of ALGORITHMS, with variants
    metrics: tuple[Metric, ...]  # columns of the table
    measure: Measure  # gives their values; what a model does not have is left out
    figures: tuple[Draw, ...]  # of the models of the first run
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by algorithm and metric
    test_count: int = 10_000

    def config_of(self, algorithm: str, budget: str, seed: int) -> Config:
        """Put together the settings of one training."""
        base, *variants = algorithm.split("+")
        if base not in ALGORITHMS or not set(variants) <= set(VARIANTS) or len(set(variants)) < len(variants):
            raise UsageError(
                f"no algorithm {algorithm!r}: choose all, or of {', '.join(ALGORITHMS)}, with +scandal where "
                "the data give a score and +theta for a chart that sees the parameters"
            )
        given = self.budgets[budget]
        values = {**asdict(given.config), **given.changes.get(base, {}), "algorithm": base, "seed": seed}
        if "theta" in variants:
            values["model"] = {**values["model"], "chart_context": True}
        if "scandal" in variants:
            values["scandal"] = 2.0
        config = from_json(Config, values)
        # Variants that would change nothing, or that the model does not know, are refused.
        truth = self.simulator
        config.model_config(truth.shape, ALGORITHMS[base].kind, truth.parameters)
        if "theta" in variants and not truth.parameters:
            raise UsageError(f"{algorithm}: {truth.name} has no parameters")
        check_score(config, truth.scores)
        return config


# What is measured


def context(simulator: Simulator, n: int) -> Tensor | None:
    """θ = 0, n times: where the models are compared. None where there are no parameters."""
    return torch.zeros(n, simulator.parameters) if simulator.parameters else None


def samples(model: GenerativeModel, simulator: Simulator, n: int, generator: torch.Generator) -> Tensor:
    """Draw n points from a model, at θ = 0."""
    return model.sample(n, generator, 2000, context(simulator, 1)).cpu()


def log_prob(model: GenerativeModel, simulator: Simulator, x: Tensor) -> Tensor:
    """Compute a model's log-density of points, at θ = 0."""
    return model.log_prob(x, context(simulator, len(x)))


def errors(model: GenerativeModel, simulator: Simulator, x: Tensor) -> Tensor:
    """Compute ‖x − x̂‖ of points, shape (n,)."""

    def error(part: Tensor) -> Tensor:
        projected = model.project(part, context(simulator, len(part)))
        return (projected - part).flatten(1).norm(dim=1)

    return in_batches(error, x, 2000)


def stranger_score(model: GenerativeModel, simulator: Simulator, x: Tensor) -> Tensor:
    """Score points, higher is stranger: by reconstruction error, or −log p where nothing is projected."""
    if not model.has_manifold:
        return -in_batches(partial(log_prob, model, simulator), x, 2000)
    return errors(model, simulator, x)


def common(
    model: GenerativeModel, simulator: Simulator, test: Points, generator: torch.Generator, most: int = 10_000
) -> dict[str, float]:
    """Measure the distance of samples (at most `most`), reconstruction, and the AUC against strangers."""
    strangers = simulator.sample_ood(len(test), generator)
    drawn = samples(model, simulator, min(most, len(test)), generator)
    return {
        "distance": float(simulator.distance(drawn).mean()),
        "reconstruction": float(errors(model, simulator, test.x).mean()),
        "auc": auroc(stranger_score(model, simulator, test.x), stranger_score(model, simulator, strangers)),
    }
