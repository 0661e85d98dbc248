"""What an experiment is: a simulator, the algorithms to compare, and what is measured of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mfimage.algorithms import ALGORITHMS, check_score
from mfimage.config import Config
from mfimage.datasets.points import Points
from mfimage.errors import UsageError
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.experiments.tables import Figure, Metric
from mfimage.models import GenerativeModel
from mfimage.settings import from_json, to_json

BUDGETS = ("quick", "paper")
VARIANTS = (
    "scandal",
    "theta",
)  # NAME+scandal has the joint score in the loss, NAME+theta a chart that sees θ


@dataclass(frozen=True)
class Experiment:
    """An experiment of the paper, or one of its kind.

    Attributes:
        title: In words.
        simulator: Budget to the data's truth.
        count: Budget to the number of training examples.
        algorithms: What "all" means, in the order of the table; names of ALGORITHMS, with variants.
        config: Budget to the settings that all algorithms share.
        changes: Budget to settings by algorithm that differ from those.
        metrics: What is measured.
        measure: (model, simulator, test, generator) to the metrics' values; what a model does not
            have is left out.
        published: Values by algorithm and metric.
        figures: (models of the first run by algorithm, simulator, test) to pictures.
    """

    title: str
    simulator: Callable[[str], Simulator]
    count: Mapping[str, int]
    algorithms: tuple[str, ...]
    config: Callable[[str], Config]
    changes: Callable[[str], Mapping[str, Mapping[str, Any]]]
    metrics: tuple[Metric, ...]
    measure: Callable[[GenerativeModel, Simulator, Points, torch.Generator], dict[str, float]]
    figures: Callable[[Mapping[str, GenerativeModel], Simulator, Points], list[Figure]]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    test_count: int = 10_000

    def config_of(self, algorithm: str, budget: str, seed: int) -> Config:
        """Put together the settings of one training.

        Raises:
            UsageError: If there is no such algorithm in this experiment.
        """
        base, *variants = algorithm.split("+")
        if base not in ALGORITHMS or not set(variants) <= set(VARIANTS) or len(set(variants)) < len(variants):
            raise UsageError(
                f"no algorithm {algorithm!r}: choose all, or of {', '.join(ALGORITHMS)}, with +scandal where "
                "the data give a score and +theta for a chart that sees the parameters"
            )
        values = to_json(self.config(budget))
        changes = {**self.changes(budget).get(base, {}), **self.changes(budget).get(algorithm, {})}
        model = {**values["model"], **changes.pop("model", {})}
        if "theta" in variants:
            model["chart_context"] = True
        if "scandal" in variants:
            values["scandal"] = 2.0
        config = from_json(Config, {**values, **changes, "algorithm": base, "seed": seed, "model": model})
        self._check(algorithm, config, self.simulator(budget))
        return config

    def _check(self, algorithm: str, config: Config, simulator: Simulator) -> None:
        """Refuse variants that would change nothing, or that the model does not know."""
        sees = config.model.get("chart_context", False)
        kind = ALGORITHMS[config.algorithm].kind
        config.model_config(simulator.shape, kind, simulator.parameters)
        if sees and not simulator.parameters:
            raise UsageError(f"{algorithm}: {simulator.name} has no parameters")
        check_score(config, simulator.scores)
