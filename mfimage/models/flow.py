"""The models: the M-flow and its relatives on a manifold, and flows with a density on the whole space."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from mfimage.errors import ModelError, UsageError
from mfimage.models.base import GenerativeModel
from mfimage.models.charted import ChartedModel
from mfimage.models.charts import Chart, ImageChart
from mfimage.models.density import Density
from mfimage.models.geometry import estimate_log_volume, metric, metric_log_volume
from mfimage.models.layers import Transform, in_rows, start
from mfimage.models.sharpening import NOT_SHARP, SharpenedChart
from mfimage.modes import plainly

EXACT_DIM = 4096  # above it J of an image fills memory, and the estimate is quicker (benchmarks/density.py)


@dataclass(frozen=True)
class LogDensity:
    """Log-densities, and how they were computed."""

    log_prob: Tensor  # shape (B,), float64, nats
    standard_error: Tensor  # of each, shape (B,), nats; 0 where exact
    method: str  # "exact" or "lanczos"
    measure: str  # "manifold", per d-dimensional volume in the data space, or "latent", per du


class ManifoldFlow(ChartedModel):
    """An M-flow: the manifold { g(u) } with the density h on its coordinates.

    log p(x) = log p_h(u) − ½ log det(JᵀJ),  J = ∂g/∂u,  u = encode(x).

    Args:
        chart: The manifold. A `Chart` makes this the M-flow (g(u) = f(u, 0), u from f⁻¹), or the FOM where
            the chart is prescribed; an `EncodedChart` the Me-flow.
        density: h on R^d.
        shape: Of the data.

    Reference:
        Brehmer, Cranmer, Flows for simultaneous manifold learning and density estimation, 2020,
        arXiv 2003.13913, eqs. 4–6.
    """

    has_manifold_density = True

    def sharpened(self) -> ManifoldFlow:
        if self.sharpener is None:
            raise ModelError(NOT_SHARP)
        assert isinstance(self.chart, ImageChart)
        sharp = ManifoldFlow(SharpenedChart(self.chart, self.sharpener), self.density, self.shape)
        sharp.config, sharp.classifier = self.config, self.classifier
        return sharp.train(self.training)

    def log_prob(self, x: Tensor, context: Tensor | None = None, method: str = "auto") -> Tensor:
        """Compute the log-density at the projections of x; arguments as of `log_density`.

        Where "auto" takes the estimate, a warning says so.

        Returns:
            Shape (B,), float64: nats with respect to d-dimensional volume on the manifold, in units of the
            data (pixels in [0, 1]). Comparable between data under one model, never between models.
        """
        result = self.log_density(x, context, method)
        if method == "auto" and result.method != "exact":
            warnings.warn(
                f"log_prob at d = {self.dim} is an estimate ({result.method}) with standard errors up to "
                f'{float(result.standard_error.max()):.2g} nats; method="exact" has none, and takes longer',
                stacklevel=2,
            )
        return result.log_prob

    @plainly
    def log_density(
        self,
        x: Tensor,
        context: Tensor | None = None,
        method: str = "auto",
        measure: str = "manifold",
        generator: torch.Generator | None = None,
    ) -> LogDensity:
        """Compute the log-density at the projections of x, and say how.

        Args:
            x: Data, shape (B, …); images in [0, 1].
            context: θ, shape (B, P), for a conditional model.
            method: "exact" (the whole Jacobian, d pushes), "lanczos" (`geometry.estimate_log_volume`: no
                Jacobian is kept, and no gradient is given) or "auto": exact up to d = 4,096.
            measure: "manifold", with respect to d-dimensional volume in the data space, or "latent",
                log p_h(u), with respect to du, which other coordinates on the same manifold would change.
            generator: Of the estimate's probes.

        Raises:
            UsageError: If a method or measure is not one of these.
        """
        if method not in ("auto", "exact", "lanczos") or measure not in ("manifold", "latent"):
            raise UsageError(
                "method must be auto, exact or lanczos and measure manifold or latent, "
                f"not {method!r} and {measure!r}"
            )
        u = in_rows(self.encode, x, context)
        value = self.density.log_prob(u, context).double()
        none = torch.zeros_like(value)
        if measure == "latent":
            return LogDensity(value, none, "exact", measure)
        if method == "lanczos" or (method == "auto" and self.dim > EXACT_DIM):
            volume, error = estimate_log_volume(self.chart, u, context, generator=generator)
            return LogDensity(value - volume, error, "lanczos", measure)
        return LogDensity(value - metric_log_volume(metric(self.chart, u, context)), none, "exact", measure)


class ProbabilisticAutoencoder(ChartedModel):
    """An autoencoder with a density on its codes; a row to compare with.

    "log p(x)" = log p_h(u), in nats with respect to du: the decoder's volume is left out, so this is not a
    density of x.

    Reference:
        Böhm, Seljak, Probabilistic autoencoder, 2020, arXiv 2006.05479.
    """

    @plainly
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.density.log_prob(self.encode(x, context), context)


class PIE(ChartedModel):
    """The M-flow's network with a density on the whole space, narrow off the manifold.

    log p(x) = log p_h(u) + log N(v; 0, ε²) + ladj,  (u, v) = f⁻¹(x),  ε > 0.

    `sample` draws from the manifold, v = 0. Arguments as of `ChartedModel`, and ε.

    Reference:
        Beitler, Sosnovik, Smeulders, PIE: pseudo-invertible encoder, 2018, openreview SkgiX2Aqtm; Brehmer,
        Cranmer, 2020, arXiv 2003.13913, eq. 3.
    """

    has_ambient_density = True
    chart: Chart

    def __init__(self, chart: Chart, density: Density, shape: tuple[int, ...], epsilon: float) -> None:
        super().__init__(chart, density, shape)
        self.epsilon = epsilon

    @plainly
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        z, ladj = self.chart(x, context)
        u, v = z[:, : self.dim], z[:, self.dim :]
        off = _normal(v / self.epsilon) - v.shape[1] * math.log(self.epsilon)
        return self.density.log_prob(u, context) + off + ladj


class AmbientFlow(GenerativeModel):
    """A full-dimensional flow: log p(x) = log N(z; 0, I) + ladj, z = f⁻¹(x) ∈ R^D.

    Its codes are z, so that every x is its own projection.

    Args:
        transform: Data (B, …) to noise (B, D).
        shape: Of the data.
        context_features: Number of parameters θ on which the transform is conditioned.
    """

    has_manifold, has_ambient_density = False, True

    def __init__(self, transform: Transform, shape: tuple[int, ...], context_features: int = 0) -> None:
        super().__init__(shape, math.prod(shape), context_features)
        self.transform = transform

    @plainly
    def initialise(self, x: Tensor, context: Tensor | None = None) -> None:
        start(self.transform, x, context)

    @plainly
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform(x, context)[0]

    @plainly
    def decode(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.inverse(u, context)[0]

    def push_forward(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return noise

    @plainly
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        z, ladj = self.transform(x, context)
        return _normal(z) + ladj


def _normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


@plainly
def tweedie(
    y: Tensor, model: GenerativeModel, sigma: float | Tensor, context: Tensor | None = None
) -> Tensor:
    """Denoise by one step up the density: x̂ = y + σ²·∇ log p(y).

    The mean of x given y, if the flow was trained on data with noise N(0, σ²) of the same σ.

    Args:
        y: Noisy data, shape (B, …).
        model: One with a density on the whole space (af, pie, denoising).
        sigma: Standard deviation of the noise, in units of the data: one number, or one an example, (B,).
        context: θ, shape (B, P).

    Raises:
        ModelError: If the model's density lives on its manifold alone.

    Reference:
        Efron, Tweedie's formula and selection bias, 2011, JASA 106; Zhai et al., Normalizing flows are
        capable generative models, 2024, arXiv 2412.06329.
    """
    if not model.has_ambient_density:
        raise ModelError(
            "method tweedie needs a density on the whole space, and this model's lies on its manifold: "
            "choose another method, or train by af, pie or denoising"
        )
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        (slope,) = torch.autograd.grad(model.log_prob(y, context).sum(), y)
    variance = torch.as_tensor(sigma).to(y).square().view(-1, *[1] * (y.dim() - 1))
    return (y + variance * slope).detach()


def bits_per_dim(log_prob: Tensor, features: int) -> Tensor:
    """Compute the cost of coding images at 256 levels: 8 − log₂ p(x)/D, shape (B,).

    Args:
        log_prob: Shape (B,), nats, on R^D, at dequantised images (k + U)/256, k = 0 … 255 and U ~ U(0, 1);
            see `losses.dequantise`.
        features: D.

    Reference:
        Theis, van den Oord, Bethge, A note on the evaluation of generative models, 2015, arXiv 1511.01844.

    >>> bits_per_dim(torch.zeros(1), 784)  # the uniform density
    tensor([8.])
    """
    return 8 - log_prob / (features * math.log(2))
