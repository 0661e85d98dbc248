"""Charts, densities and the models that join them."""

from mfimage.models.base import GenerativeModel
from mfimage.models.build import image_chart
from mfimage.models.charted import ChartedModel
from mfimage.models.charts import Chart, Manifold
from mfimage.models.density import Density, latent_density
from mfimage.models.detail import DETAIL, DETAILED, SAMPLES, ways_to_sample
from mfimage.models.encoders import Autoencoder, EncodedChart
from mfimage.models.flow import (
    PIE,
    AmbientFlow,
    ManifoldFlow,
    ProbabilisticAutoencoder,
    bits_per_dim,
    tweedie,
)
from mfimage.models.geometry import log_volume, tangents
from mfimage.models.vectors import Prescribed, Spherical, VectorChart

__all__ = [
    "DETAIL", "DETAILED", "PIE", "SAMPLES", "AmbientFlow", "Autoencoder", "Chart", "ChartedModel", "Density",
    "EncodedChart", "GenerativeModel", "Manifold", "ManifoldFlow", "Prescribed", "ProbabilisticAutoencoder",
    "Spherical", "VectorChart", "bits_per_dim", "image_chart", "latent_density", "log_volume",
    "tangents", "tweedie", "ways_to_sample",
]  # fmt: skip
