"""The pictures of the experiments: what was learned, beside the truth."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.eval.figures import PANEL, WIDE, Plot, plot
from mfimage.eval.page import Pictures, picture, strip
from mfimage.experiments import manifold_plots
from mfimage.experiments.experiment import Models, log_prob, samples
from mfimage.experiments.posterior import likelihood, posterior_samples
from mfimage.experiments.simulators.lorenz import Lorenz
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.inputs import in_batches

SHOWN = 3000  # points in a cloud
SHEET = 12  # images in a row
SIDE = 11  # images along the side of a grid
SCATTERED = 500  # images whose densities are plotted


def planes(models: Models, simulator: Simulator, test: Points) -> list[Plot]:
    """Show learned curves in the plane: data, the manifold between the outermost codes, and samples."""
    drawn = []
    for name, model in models.items():
        x = model.sample(SHOWN, torch.Generator().manual_seed(0))
        curve = None
        if model.dim == 1:
            u = in_batches(model.encode, test.x)
            line = torch.linspace(float(u.quantile(0.001)), float(u.quantile(0.999)), 500)[:, None]
            curve = in_batches(model.decode, line)
        panels = manifold_plots.plot_plane(test.x[:SHOWN], curve, x)
        drawn.append(plot(name, panels, "Data, the learned manifold and samples.", PANEL))
    return drawn


def space(models: Models, simulator: Simulator, test: Points) -> list[Plot]:
    """Show samples of every model in space, coloured by their log-density, beside the data."""
    panels: list[tuple[str, Tensor, Tensor | None]] = [("data", test.x[:SHOWN], None)]
    for name, model in models.items():
        x = samples(model, simulator, SHOWN, torch.Generator().manual_seed(0))
        colours = in_batches(partial(log_prob, model, simulator), x) if model.has_manifold else None
        panels.append((name, x, colours))
    caption = "Samples at θ = 0, coloured by the model's own log-density, which no other model's compares to."
    return [plot("Samples in space", manifold_plots.plot_space(panels), caption, PANEL)]


def trajectories(models: Models, simulator: Simulator, test: Points) -> list[Plot]:
    """Show a trajectory of the Lorenz attractor and its projection by every model."""
    if not isinstance(simulator, Lorenz):
        return []
    path = simulator.trajectory(0)[:1500]
    panels = manifold_plots.plot_trajectories(
        [(name, path, in_batches(model.project, path)) for name, model in models.items()]
    )
    return [plot("A trajectory", panels, "A trajectory and its projections.", PANEL)]


def posteriors(models: Models, simulator: Simulator, test: Points) -> list[Plot]:
    """Show the posteriors of θ after 20 data, beside the true one."""
    x = test.x[:20]
    truth = posterior_samples(simulator.log_prob, x, simulator, torch.Generator().manual_seed(0))
    found = {
        name: posterior_samples(*likelihood(model, x), simulator, torch.Generator().manual_seed(0))
        for name, model in models.items()
        if model.conditional
    }
    panels = manifold_plots.plot_posterior(truth, found, torch.zeros(simulator.parameters))
    width = WIDE if simulator.parameters == 1 else PANEL
    return [plot("Posterior", panels, "Posterior of θ after 20 data of θ = 0.", width)]


def images(models: Models, simulator: Simulator, test: Points) -> list[Pictures]:
    """Show test images, and a row of samples of every model, the first of their seed."""
    rows = {"test images": test.x[:SHEET]}
    for name, model in models.items():
        rows[name] = samples(model, simulator, SHEET, torch.Generator().manual_seed(0)).clamp(0, 1)
    caption = f"Test images, and below them the first samples of {', '.join(models)}."
    return [strip(rows, "Samples", caption)]


def grids(models: Models, simulator: Simulator, test: Points) -> list[Pictures]:
    """Show what every model of two dimensions draws on a grid over the codes of the data."""
    steps, found = torch.linspace(0, 1, SIDE), []
    caption = (
        "The learned chart: g(u) on a grid between the outer 2 % of the codes, first across, second down."
    )
    for name, model in models.items():
        if model.dim == 2:
            u = in_batches(model.encode, test.x)
            low, high = u.quantile(0.02, 0), u.quantile(0.98, 0)
            codes = low + torch.cartesian_prod(steps, steps).flip(1) * (high - low)
            drawn = picture(in_batches(model.decode, codes).clamp(0, 1), "images on a grid of codes", SIDE)
            found.append(Pictures([drawn], f"Chart of {name}", caption))
    return found


def densities(models: Models, simulator: Simulator, test: Points) -> list[Plot]:
    """Plot learned against true log-densities of held-out images, of every model whose are of volume."""
    x = test.x[:SCATTERED]
    labels, drawn = ("true log-density, nats", "learned log-density, nats"), []
    for name, model in models.items():
        if model.has_manifold_density:
            true, learned = simulator.log_prob(x), in_batches(model.log_prob, x, 64)
            correlation = float(torch.corrcoef(torch.stack([learned, true]))[0, 1])
            panels = manifold_plots.plot_scatter(true, learned, labels, correlation)
            drawn.append(plot(f"Density of {name}", panels, f"{len(x)} held-out images.", PANEL))
    return drawn
