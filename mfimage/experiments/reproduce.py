"""Running an experiment: train, measure, and put the published numbers beside."""

from __future__ import annotations

import inspect
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict, cast

import torch
from numpy.linalg import LinAlgError

from mfimage.config import Config
from mfimage.datasets.points import Points
from mfimage.errors import DataError, DivergedError, ModelError, UsageError
from mfimage.experiments import BUDGETS, EXPERIMENTS, Experiment
from mfimage.experiments.experiment import Models, context
from mfimage.experiments.tables import ExperimentReport, Runs
from mfimage.files import read_json, write_json
from mfimage.models import GenerativeModel
from mfimage.pretrained import from_pretrained
from mfimage.run import Run, environment
from mfimage.training import train_or_reuse

TEST_SEED = 1_000_000  # of the test data, apart from every run's
_SHARED = (
    "dim",
    "steps",
    "density_steps",
    "batch_size",
    "lr",
    "density_lr",
    "model",
)  # settings that are shown
_NOTES = (
    "Published numbers are those of Brehmer & Cranmer, 2020, arXiv 2003.13913, where they gave any.",
    "Log-densities of different models are never compared: their manifolds differ.",
)


class Result(TypedDict, total=False):
    """What one run gave; a run that diverged has no metrics, but says why."""

    metrics: dict[str, float]
    cpu_seconds: float | None
    diverged: str


Results = Mapping[str, list[Result]]  # by algorithm, in the order of seeds


def reproduce(
    name: str,
    outdir: str | Path,
    *,
    algorithms: Sequence[str] = (),
    runs: int = 1,
    budget: str = "quick",
    scene: Mapping[str, object] | None = None,
    device: str = "auto",
    quiet: bool = True,
    tell: Callable[[str], None] = lambda message: None,
) -> ExperimentReport:
    """Run an experiment and write OUTDIR/results.json and OUTDIR/report.html.

    Every training is a run of its own, OUTDIR/ALGORITHM/run-SEED; what is there already, with the same
    settings, is not trained again, so that an interrupted experiment goes on where it stopped. A run that
    diverges is counted and shown.

    Args:
        name: Of EXPERIMENTS.
        outdir: Where everything goes.
        algorithms: Names of ALGORITHMS; empty means those of the experiment.
        runs: Trainings of each, with seeds 0 … runs − 1, which also draw their data.
        budget: "quick" or "paper".
        scene: For image-manifold: dim, size and channels; for stylegan-2d and -64d: size, and weights, the
            path of a generator.
        device: "auto", "cpu", "cuda" or "cuda:1".
        quiet: Without progress bars.
        tell: Is told in words what goes on.

    Returns:
        The table and the pictures.

    Raises:
        UsageError: If there is no such experiment, algorithm or budget, or outdir holds other settings.
        Interrupted: After SIGINT or SIGTERM, once the step is saved.
    """
    experiment, outdir, scene = _experiment(name, budget, scene or {}), Path(outdir), dict(scene or {})
    chosen = tuple(dict.fromkeys(a.strip() for a in algorithms)) or experiment.algorithms
    configs = {a: experiment.config_of(a, budget, 0) for a in chosen}  # all names are known before any work
    _claim(outdir, {"experiment": experiment.title, "budget": budget})
    test = _test(experiment)
    for seed in range(runs):
        for algorithm, config in configs.items():
            tell(f"{name}: {algorithm}, run {seed + 1} of {runs}")
            run = Run(outdir / algorithm / f"run-{seed}")
            _train_and_measure(experiment, run, config.with_(seed=seed), budget, test, device, quiet)
    results = _finished(experiment, outdir)
    options = {"algorithm": ",".join(results), "runs": runs, "budget": budget, **scene}
    command = " ".join([f"mfimage reproduce {name}", *(f"--{key} {value}" for key, value in options.items())])
    report = _report(experiment, command, budget, results, test, _models(outdir, results))
    record = {"command": command, "experiment": name, "budget": budget, "scene": scene}
    record |= {"table": report.as_json(), "values": results, "environment": environment()}
    write_json(outdir / "results.json", record)
    report.page().write(outdir / "report.html")
    return report


def _experiment(name: str, budget: str, scene: Mapping[str, object]) -> Experiment:
    if name not in EXPERIMENTS:
        raise UsageError(f"no experiment {name!r}: there are {', '.join(EXPERIMENTS)}")
    if budget not in BUDGETS:
        raise UsageError(f"budget must be one of {', '.join(BUDGETS)}, not {budget!r}")
    known = inspect.signature(EXPERIMENTS[name]).parameters
    if unknown := [key for key in scene if key not in known]:
        raise UsageError(f"{', '.join(unknown)}: {name} takes {', '.join(known) or 'no settings'}")
    return EXPERIMENTS[name](**scene)


def _claim(outdir: Path, what: dict[str, str]) -> None:
    """Note what a directory holds: settings alone do not tell a budget's data or a scene from another's."""
    path = outdir / "experiment.json"
    if not path.exists():
        write_json(path, what)
    elif (there := read_json(path, "note of an experiment", UsageError)) != what:
        raise UsageError(f"{outdir} holds {', '.join(map(str, there.values()))}: choose another --outdir")


def _test(experiment: Experiment) -> Points:
    """Draw test data, at θ = 0 where there are parameters."""
    simulator, generator = experiment.simulator, torch.Generator().manual_seed(TEST_SEED)
    return simulator.sample(experiment.test_count, generator, context(simulator, 1))


def _train_and_measure(
    experiment: Experiment, run: Run, config: Config, budget: str, test: Points, device: str, quiet: bool
) -> None:
    """Train and measure once, unless that is done."""
    begun = run.begun
    if begun and not config.allows(run.config()):
        raise UsageError(f"{run.directory} holds a run with other settings: choose another --outdir")
    if begun and (run.directory / "metrics.json").exists():
        return
    count, simulator = experiment.budgets[budget].count, experiment.simulator
    data = simulator.sample(count, torch.Generator().manual_seed(config.seed))
    started = time.process_time()
    try:
        model = train_or_reuse(data, run.directory, config, device=device, quiet=quiet)
        spent = None if begun else time.process_time() - started
        generator = torch.Generator().manual_seed(config.seed)
        metrics = experiment.measure(model.cpu(), simulator, test, generator)
        result: Result = {"metrics": metrics, "cpu_seconds": spent}
    except (DivergedError, DataError, ModelError, LinAlgError) as error:
        # The last three come from measuring what is not finite.
        result = {"diverged": str(error), "metrics": {}}
    run.write("metrics.json", result)


def _finished(experiment: Experiment, outdir: Path) -> dict[str, list[Result]]:
    """Read what all finished runs measured, by algorithm, those of the experiment first."""

    def place(path: Path) -> tuple[str, int]:
        algorithm, run = path.parts[-3:-1]
        return algorithm, int(run.split("-")[1])

    found: dict[str, list[Result]] = {algorithm: [] for algorithm in experiment.algorithms}
    for path in sorted(outdir.glob("*/run-*/metrics.json"), key=place):
        result = read_json(path, "measurement: remove it to measure again", UsageError)
        found.setdefault(place(path)[0], []).append(cast(Result, result))
    return {algorithm: results for algorithm, results in found.items() if results}


def _report(
    experiment: Experiment, command: str, budget: str, results: Results, test: Points, models: Models
) -> ExperimentReport:
    machine, given = environment(), experiment.budgets[budget]
    shared, drawings = asdict(given.config), experiment.figures if models else ()
    spent = [seconds for found in results.values() for r in found if (seconds := r.get("cpu_seconds"))]
    return ExperimentReport(
        title=experiment.title,
        sentence=f"{len(results)} algorithms, {sum(map(len, results.values()))} trainings, budget {budget}.",
        settings={
            "command": command,
            "training examples": given.count,
            "test examples": len(test),
            "longest training, CPU seconds": max(spent, default=math.nan),
            "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads",
            "torch": machine["packages"]["torch"],
            **{f"shared: {key}": json.dumps(shared[key]) for key in _SHARED},
        },
        metrics=experiment.metrics,
        rows={algorithm: _row(experiment, algorithm, found) for algorithm, found in results.items()},
        diverged={a: n for a, found in results.items() if (n := sum("diverged" in r for r in found))},
        figures=[part for draw in drawings for part in draw(models, experiment.simulator, test)],
        notes=_NOTES,
    )


def _row(experiment: Experiment, algorithm: str, found: Sequence[Result]) -> dict[str, Runs]:
    """One algorithm's runs by metric: a value of every run, NaN where it has none, and the published one."""
    published, runs = experiment.published.get(algorithm, {}), {}
    for name in (metric.name for metric in experiment.metrics):
        values = (result["metrics"].get(name) for result in found)
        runs[name] = Runs(tuple(math.nan if v is None else v for v in values), published.get(name))
    return runs


def _models(outdir: Path, results: Results) -> dict[str, GenerativeModel]:
    """Read the first run of every algorithm that has not diverged."""
    models = {}
    for algorithm, found in results.items():
        if "diverged" not in found[0]:
            try:
                models[algorithm] = from_pretrained(outdir / algorithm / "run-0")
            except ModelError as error:
                raise ModelError(f"{error}; remove {outdir / algorithm} to train it again") from error
    return models
