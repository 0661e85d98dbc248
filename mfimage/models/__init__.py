"""Charts, densities and the manifold flow that joins them."""

from mfimage.models.charts import image_chart
from mfimage.models.density import Density, latent_density
from mfimage.models.geometry import log_volume, tangents
from mfimage.models.manifold import ManifoldFlow, manifold_flow

__all__ = [
    "Density",
    "ManifoldFlow",
    "image_chart",
    "latent_density",
    "log_volume",
    "manifold_flow",
    "tangents",
]
