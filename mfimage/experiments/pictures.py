"""The pictures of the experiments: what was learned, beside the truth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from mfimage.datasets.points import Points
from mfimage.eval.figures import PANEL, WIDE, Plot, plot
from mfimage.eval.page import Pictures, picture, strip
from mfimage.experiments import point_plots
from mfimage.experiments.measures import context
from mfimage.experiments.measures import samples as draw
from mfimage.experiments.posterior import likelihood, posterior_samples
from mfimage.experiments.posterior_plots import plot_posterior
from mfimage.experiments.simulators.lorenz import Lorenz
from mfimage.experiments.simulators.simulator import Simulator
from mfimage.inputs import in_batches
from mfimage.models import GenerativeModel

SHOWN = 3000  # points in a cloud
SHEET = 12  # images in a row
SCATTERED = 500  # images whose densities are plotted


def plane(name: str, model: GenerativeModel, test: Points) -> Plot:
    """Show a learned curve in the plane: data, the manifold between the outermost codes, and samples."""
    samples = model.sample(SHOWN, torch.Generator().manual_seed(0))
    curve = None
    if model.dim == 1:
        u = in_batches(model.encode, test.x)
        line = torch.linspace(float(u.quantile(0.001)), float(u.quantile(0.999)), 500)[:, None]
        curve = in_batches(model.decode, line)
    panels = point_plots.plot_plane(test.x[:SHOWN], curve, samples)
    return plot(name, panels, "Data, the learned manifold and samples.", PANEL)


def space(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> Plot:
    """Show samples of every model in space, coloured by their log-density, beside the data."""
    panels: list[tuple[str, Tensor, Tensor | None]] = [("data", test.x[:SHOWN], None)]
    for name, model in models.items():
        x = draw(model, simulator, SHOWN, torch.Generator().manual_seed(0))
        colours = None
        if model.has_manifold:
            colours = in_batches(partial(_log_prob, model, simulator), x)
        panels.append((name, x, colours))
    caption = "Samples at θ = 0, coloured by the model's own log-density, which no other model's compares to."
    return plot("Samples in space", point_plots.plot_space(panels), caption, PANEL)


def _log_prob(model: GenerativeModel, simulator: Simulator, x: Tensor) -> Tensor:
    return model.log_prob(x, context(simulator, len(x)))


def trajectories(models: Mapping[str, GenerativeModel], simulator: Lorenz) -> Plot:
    """Show a trajectory and its projection by every model."""
    path = simulator.trajectory(0)[:1500]
    panels = [(name, path, in_batches(model.project, path)) for name, model in models.items()]
    return plot(
        "A trajectory", point_plots.plot_trajectories(panels), "A trajectory and its projections.", PANEL
    )


def posteriors(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> Plot:
    """Show the posteriors of θ after 20 data, beside the true one."""
    x = test.x[:20]
    truth = posterior_samples(simulator.log_prob, x, simulator, torch.Generator().manual_seed(0))
    found = {
        name: posterior_samples(*likelihood(model, x), simulator, torch.Generator().manual_seed(0))
        for name, model in models.items()
        if model.conditional
    }
    caption = "Posterior of θ after 20 data of θ = 0."
    panels = plot_posterior(truth, found, torch.zeros(simulator.parameters))
    return plot("Posterior", panels, caption, WIDE if simulator.parameters == 1 else PANEL)


def images(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> Pictures:
    """Show test images, and a row of samples of every model, the first of their seed."""
    rows = {"test images": test.x[:SHEET]}
    for name, model in models.items():
        rows[name] = draw(model, simulator, SHEET, torch.Generator().manual_seed(0)).clamp(0, 1)
    return strip(rows, "Samples", f"Test images, and below them the first samples of {', '.join(models)}.")


def grid(name: str, model: GenerativeModel, test: Points, side: int = 11) -> Pictures:
    """Show what a model of two dimensions draws on a grid over the codes of the data."""
    u = in_batches(model.encode, test.x)
    low, high = u.quantile(0.02, 0), u.quantile(0.98, 0)
    steps = torch.linspace(0, 1, side)
    codes = low + torch.cartesian_prod(steps, steps).flip(1) * (high - low)
    drawn = in_batches(model.decode, codes).clamp(0, 1)
    caption = (
        "The learned chart: g(u) on a grid between the outer 2 % of the codes, first across, second down."
    )
    return Pictures([picture(drawn, "images on a grid of codes", side)], f"Chart of {name}", caption)


def densities(models: Mapping[str, GenerativeModel], simulator: Simulator, test: Points) -> list[Plot]:
    """Plot learned against true log-densities of held-out images, of every model whose are of volume."""
    x = test.x[:SCATTERED]
    labels = ("true log-density, nats", "learned log-density, nats")
    drawn = []
    for name, model in models.items():
        if model.has_manifold_density:
            true, learned = simulator.log_prob(x), in_batches(model.log_prob, x, 64)
            correlation = float(torch.corrcoef(torch.stack([learned, true]))[0, 1])
            panels = point_plots.plot_scatter(true, learned, labels, correlation)
            drawn.append(plot(f"Density of {name}", panels, f"{len(x)} held-out images.", PANEL))
    return drawn
