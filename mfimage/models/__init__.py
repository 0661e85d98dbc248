"""Charts, densities and the manifold flow that joins them."""

from .charts import image_chart
from .density import Density, latent_density
from .geometry import log_volume, tangents
from .manifold import ManifoldFlow, manifold_flow

__all__ = [
    "Density",
    "ManifoldFlow",
    "image_chart",
    "latent_density",
    "log_volume",
    "manifold_flow",
    "tangents",
]
