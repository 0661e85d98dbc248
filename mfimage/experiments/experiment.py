"""What an experiment is: a simulator, the algorithms to compare, and what is measured of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TypeAlias, get_args

import torch

from mfimage.algorithms import ALGORITHMS, check_score
from mfimage.config import BudgetName, Config
from mfimage.datasets.points import Points
from mfimage.errors import UsageError
from mfimage.eval.page import Part
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.experiments.tables import Metric
from mfimage.models import GenerativeModel
from mfimage.settings import from_json

BUDGETS: tuple[str, ...] = get_args(BudgetName)
VARIANTS = ("scandal", "theta")  # +scandal has the joint score in the loss, +theta a chart that sees θ

Models: TypeAlias = Mapping[str, GenerativeModel]
Measure: TypeAlias = Callable[[GenerativeModel, Simulator, Points, torch.Generator], dict[str, float]]
Changes: TypeAlias = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Budget:
    """On how many examples, and how long, is trained.

    Attributes:
        count: Training examples.
        config: Settings that all algorithms share.
        changes: Settings by algorithm that differ from those.
    """

    count: int
    config: Config
    changes: Changes = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """An experiment of the paper, or one of its kind.

    Attributes:
        title: In words.
        simulator: The data's truth.
        budgets: By name, one for each of BUDGETS.
        algorithms: What "all" means, in the order of the table; names of ALGORITHMS, with variants.
        metrics: Columns of the table.
        measure: Gives the metrics' values; what a model does not have is left out.
        figures: Draws models of the first run.
        published: Values by algorithm and metric.
        test_count: Test examples.
    """

    title: str
    simulator: Simulator
    budgets: Mapping[str, Budget]
    algorithms: tuple[str, ...]
    metrics: tuple[Metric, ...]
    measure: Measure
    figures: Callable[[Models, Simulator, Points], list[Part]]
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
