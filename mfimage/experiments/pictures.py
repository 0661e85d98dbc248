"""The pictures of the experiments: what was learned, beside the truth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from mfimage.datasets.pictures import png_bytes, sheet
from mfimage.datasets.points import Points
from mfimage.experiments import figures
from mfimage.experiments.measures import context
from mfimage.experiments.measures import samples as draw
from mfimage.experiments.posterior import likelihood, posterior_samples
from mfimage.experiments.simulators.lorenz import Lorenz
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.experiments.tables import Figure
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel, ManifoldFlow

SHOWN = 3000  # points in a cloud
SHEET = 12  # images in a row
SCATTERED = 500  # images whose densities are plotted


def plane(name: str, model: GenerativeModel, test: Points) -> Figure:
    """Show a learned curve in the plane: data, the manifold between the outermost codes, and samples."""
    samples = model.sample(SHOWN, torch.Generator().manual_seed(0))
    curve = None
    if model.dim == 1:
        u = in_batches(model.encode, test.x)
        line = torch.linspace(float(u.quantile(0.001)), float(u.quantile(0.999)), 500)[:, None]
        curve = in_batches(model.decode, line)
    return Figure(
        name, "Data, the learned manifold and samples.", figures.plane(test.x[:SHOWN], curve, samples)
    )


def space(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> Figure:
    """Show samples of every model in space, coloured by their log-density, beside the data."""
    panels: list[tuple[str, Tensor, Tensor | None]] = [("data", test.x[:SHOWN], None)]
    for name, model in models.items():
        x = draw(model, simulator, SHOWN, torch.Generator().manual_seed(0))
        colours = None
        if model.has_manifold:
            colours = in_batches(partial(_log_prob, model, simulator), x)
        panels.append((name, x, colours))
    caption = "Samples at θ = 0, coloured by the model's own log-density, which no other model's compares to."
    return Figure("Samples in space", caption, figures.space(panels))


def _log_prob(model: GenerativeModel, simulator: Simulator, x: Tensor) -> Tensor:
    return model.log_prob(x, context(simulator, len(x)))


def trajectories(models: Mapping[str, GenerativeModel], simulator: Lorenz) -> Figure:
    """Show a trajectory and its projection by every model."""
    path = simulator.trajectory(0)[:1500]
    panels = [(name, path, in_batches(model.project, path)) for name, model in models.items()]
    return Figure("A trajectory", "A trajectory and its projections.", figures.trajectories(panels))


def posteriors(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> Figure:
    """Show the posteriors of θ after 20 data, beside the true one."""
    x = test.x[:20]
    truth = posterior_samples(simulator.log_prob, x, simulator, torch.Generator().manual_seed(0))
    found = {
        name: posterior_samples(*likelihood(model, x), simulator, torch.Generator().manual_seed(0))
        for name, model in models.items()
        if model.conditional
    }
    caption = "Posterior of θ after 20 data of θ = 0."
    return Figure("Posterior", caption, figures.posterior(truth, found, torch.zeros(simulator.parameters)))


def images(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> Figure:
    """Show test images, and a row of samples of every model, the first of their seed."""
    rows = [test.x[:SHEET]]
    rows += [draw(model, simulator, SHEET, torch.Generator().manual_seed(0)) for model in models.values()]
    grid = sheet(torch.cat(rows).clamp(0, 1), SHEET)
    caption = f"First row: test images. Below: the first samples of {', '.join(models)}."
    return Figure("Samples", caption, png_bytes(grid), pixelated=True)


def chart(name: str, model: GenerativeModel, test: Points, side: int = 11) -> Figure:
    """Show what a model of two dimensions draws on a grid over the codes of the data."""
    u = in_batches(model.encode, test.x)
    low, high = u.quantile(0.02, 0), u.quantile(0.98, 0)
    steps = torch.linspace(0, 1, side)
    grid = low + torch.cartesian_prod(steps, steps).flip(1) * (high - low)
    drawn = sheet(in_batches(model.decode, grid).clamp(0, 1), side)
    caption = (
        "The learned chart: g(u) on a grid between the outer 2 % of the codes, first across, second down."
    )
    return Figure(f"Chart of {name}", caption, png_bytes(drawn), pixelated=True)


def densities(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> list[Figure]:
    """Plot learned against true log-densities of held-out images, of every model whose are of volume."""
    x = test.x[:SCATTERED]
    labels = ("true log-density, nats", "learned log-density, nats")
    drawn = []
    for name, model in models.items():
        if isinstance(model, ManifoldFlow):
            true, learned = simulator.log_prob(x), in_batches(model.log_prob, x, 64)
            correlation = float(torch.corrcoef(torch.stack([learned, true]))[0, 1])
            png = figures.scatter(true, learned, labels, correlation)
            drawn.append(Figure(f"Density of {name}", f"{len(x)} held-out images.", png))
    return drawn
