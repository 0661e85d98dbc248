"""The objectives, one short function each: (module, batch) to a scalar."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mfimage.models.bijections import full_precision
from mfimage.models.charts import Chart
from mfimage.models.density import Density


def reconstruction(chart: Chart, x: Tensor) -> Tensor:
    """Mean over images of ‖x − x̂‖², x̂ = f(u, 0), summed over pixels.

    Args:
        chart: f⁻¹ forwards, f backwards.
        x: Images, shape (B, C, H, W), in [0, 1].

    Reference:
        Brehmer, Cranmer, 2020, arXiv 2003.13913, §2.3 (manifold phase).
    """
    z = F.pad(chart.codes(x), (0, chart.features - chart.dim))
    return (chart.inverse(z)[0] - x).square().flatten(1).sum(1).mean()


def negative_log_likelihood(density: Density, u: Tensor) -> Tensor:
    """Mean over codes of −log p_h(u), in nats; u has shape (B, d).

    On a frozen manifold this is the M-flow's likelihood up to a constant, the mean log-volume.

    Reference:
        Brehmer, Cranmer, 2020, arXiv 2003.13913, §2.3 (density phase).
    """
    with full_precision(u):
        return -density.log_prob(u).mean()
