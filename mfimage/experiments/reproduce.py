"""Running an experiment: train, measure, and put the published numbers beside."""

from __future__ import annotations

import inspect
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.linalg import LinAlgError

from mfimage.config import Config
from mfimage.console import json_text
from mfimage.datasets.points import Points
from mfimage.errors import DataError, DivergedError, ModelError, UsageError
from mfimage.experiments import BUDGETS, EXPERIMENTS, Experiment
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.experiments.tables import Cell, ExperimentReport, table_json, write_experiment
from mfimage.files import write_text
from mfimage.models import GenerativeModel
from mfimage.run import Run, environment, from_pretrained
from mfimage.settings import to_json
from mfimage.training import train

TEST_SEED = 1_000_000  # of the test data, apart from every run's

Result = dict[str, Any]  # of one run: "metrics", "cpu_seconds", or "diverged" and why


def reproduce(
    name: str,
    outdir: str | Path,
    *,
    algorithms: Sequence[str] = (),
    runs: int = 1,
    budget: str = "quick",
    scene: Mapping[str, Any] | None = None,
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
        device: "auto", "cpu" or "cuda".
        quiet: Without progress bars.
        tell: Is told in words what goes on.

    Returns:
        The table and the pictures; `eval.experiment.table_text` and `table_json` write the table out.

    Raises:
        UsageError: If there is no such experiment, algorithm or budget, or outdir holds other settings.
        Interrupted: After SIGINT or SIGTERM, once the step is saved.
    """
    experiment = _experiment(name, budget, scene or {})
    chosen = tuple(dict.fromkeys(a.strip() for a in algorithms)) or experiment.algorithms
    for algorithm in chosen:
        experiment.config_of(algorithm, budget, 0)  # a name that does not exist is told before any work
    simulator, outdir = experiment.simulator(budget), Path(outdir)
    _claim(outdir, {"experiment": experiment.title, "budget": budget})
    test = _test(experiment, simulator)
    for seed in range(runs):
        for algorithm in chosen:
            tell(f"{name}: {algorithm}, run {seed + 1} of {runs}")
            folder = outdir / algorithm / f"run-{seed}"
            config = experiment.config_of(algorithm, budget, seed)
            _run(experiment, config, budget, simulator, test, folder, device, quiet)
    results = _finished(experiment, outdir)
    options = {"algorithm": ",".join(results), "runs": runs, "budget": budget, **(scene or {})}
    command = " ".join([f"mfimage reproduce {name}", *(f"--{key} {value}" for key, value in options.items())])
    report = _report(experiment, command, budget, results, simulator, test, outdir)
    record = {"command": command, "experiment": name, "budget": budget, "scene": dict(scene or {})}
    record |= {"table": table_json(report), "values": results, "environment": environment()}
    write_text(outdir / "results.json", json_text(record, indent=2) + "\n")
    write_experiment(outdir / "report.html", report)
    return report


def _experiment(name: str, budget: str, scene: Mapping[str, Any]) -> Experiment:
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
        write_text(path, json_text(what, indent=2) + "\n")
    elif (there := _read(path)) != what:
        raise UsageError(f"{outdir} holds {', '.join(map(str, there.values()))}: choose another --outdir")


def _test(experiment: Experiment, simulator: Simulator) -> Points:
    """Draw test data, at θ = 0 where there are parameters."""
    theta = torch.zeros(1, simulator.parameters) if simulator.parameters else None
    return simulator.sample(experiment.test_count, torch.Generator().manual_seed(TEST_SEED), theta)


def _run(
    experiment: Experiment,
    config: Config,
    budget: str,
    simulator: Simulator,
    test: Points,
    folder: Path,
    device: str,
    quiet: bool,
) -> None:
    """Train and measure once, unless that is done."""
    run, path = Run(folder), folder / "metrics.json"
    began = (folder / "config.json").exists()
    if began and run.config() != config:
        raise UsageError(f"{folder} holds a run with other settings: choose another --outdir")
    if began and path.exists():
        return
    data = simulator.sample(experiment.count[budget], torch.Generator().manual_seed(config.seed))
    started = time.process_time()
    generator = torch.Generator().manual_seed(config.seed)
    try:
        model = train(data, folder, config, device=device, resume=began, quiet=quiet)
        spent = None if began else time.process_time() - started
        metrics = experiment.measure(model.cpu(), simulator, test, generator)
        result: Result = {"metrics": metrics, "cpu_seconds": spent}
    except (
        DivergedError,
        DataError,
        ModelError,
        LinAlgError,
    ) as error:
        # the last three come from measuring what is not finite
        result = {"diverged": str(error), "metrics": {}}
    run.write("metrics.json", result)


def _finished(experiment: Experiment, outdir: Path) -> dict[str, list[Result]]:
    """Read what all finished runs measured, by algorithm and in the order of seeds."""
    found: dict[str, list[Result]] = {}
    for path in outdir.glob("*/run-*/metrics.json"):
        found[path.parts[-3]] = []
    own = [algorithm for algorithm in experiment.algorithms if algorithm in found]
    for algorithm in (ordered := dict.fromkeys([*own, *sorted(found)])):
        paths = outdir.glob(f"{algorithm}/run-*/metrics.json")
        found[algorithm] = [_read(p) for p in sorted(paths, key=lambda p: int(p.parts[-2].split("-")[1]))]
    return {algorithm: found[algorithm] for algorithm in ordered}


def _read(path: Path) -> Result:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}): remove it to measure again") from error


def _report(
    experiment: Experiment,
    command: str,
    budget: str,
    results: Mapping[str, list[Result]],
    simulator: Simulator,
    test: Points,
    outdir: Path,
) -> ExperimentReport:
    rows = {}
    for algorithm, found in results.items():
        published = experiment.published.get(algorithm, {})
        rows[algorithm] = {
            metric.name: Cell(
                tuple(_value(result, metric.name) for result in found), published.get(metric.name)
            )
            for metric in experiment.metrics
        }
    models = _models(outdir, results)
    machine = environment()
    spent = [r["cpu_seconds"] for found in results.values() for r in found if r.get("cpu_seconds")]
    return ExperimentReport(
        title=experiment.title,
        sentence=f"{len(results)} algorithms, {sum(map(len, results.values()))} trainings, budget {budget}.",
        settings={
            "command": command,
            "training examples": experiment.count[budget],
            "test examples": len(test),
            "longest training, CPU seconds": max(spent, default=math.nan),
            "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads",
            "torch": machine["packages"]["torch"],
            **{f"shared: {key}": value for key, value in _shared(experiment.config(budget)).items()},
        },
        metrics=experiment.metrics,
        rows=rows,
        diverged={a: n for a, found in results.items() if (n := sum("diverged" in r for r in found))},
        figures=experiment.figures(models, simulator, test) if models else [],
        notes=[
            "Published numbers are those of Brehmer & Cranmer, 2020, arXiv 2003.13913, where they gave any.",
            "Log-densities of different models are never compared: their manifolds differ.",
        ],
    )


def _value(result: Result, metric: str) -> float:
    value = result["metrics"].get(metric)
    return math.nan if value is None else value


def _models(outdir: Path, results: Mapping[str, list[Result]]) -> dict[str, GenerativeModel]:
    """Read the first run of every algorithm that has not diverged."""
    models = {}
    for algorithm, found in results.items():
        if "diverged" not in found[0]:
            try:
                models[algorithm] = from_pretrained(outdir / algorithm / "run-0")
            except ModelError as error:
                raise ModelError(f"{error}; remove {outdir / algorithm} to train it again") from error
    return models


def _shared(config: Config) -> dict[str, object]:
    values = to_json(config)
    names = ("dim", "steps", "density_steps", "batch_size", "lr", "density_lr", "model")
    return {name: json.dumps(values[name]) for name in names}
