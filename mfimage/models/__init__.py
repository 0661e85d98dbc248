"""Charts, densities and the models that join them."""

from mfimage.models.ambient import PIE, AmbientFlow
from mfimage.models.charts import Chart, image_chart
from mfimage.models.density import Density, latent_density
from mfimage.models.encoders import Autoencoder, EncodedChart
from mfimage.models.flow import GenerativeModel, ManifoldFlow, ProbabilisticAutoencoder
from mfimage.models.geometry import log_volume, tangents
from mfimage.models.prescribed import Prescribed, Spherical
from mfimage.models.vectors import VectorChart

__all__ = [
    "PIE",
    "AmbientFlow",
    "Autoencoder",
    "Chart",
    "Density",
    "EncodedChart",
    "GenerativeModel",
    "ManifoldFlow",
    "Prescribed",
    "ProbabilisticAutoencoder",
    "Spherical",
    "VectorChart",
    "image_chart",
    "latent_density",
    "log_volume",
    "tangents",
]
