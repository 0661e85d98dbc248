"""Data whose manifold and density are known."""

from mfimage.datasets.synthetic.collider import Collider
from mfimage.datasets.synthetic.generated import Generated
from mfimage.datasets.synthetic.lorenz import Lorenz
from mfimage.datasets.synthetic.rendered import Rendered
from mfimage.datasets.synthetic.simulator import Simulator
from mfimage.datasets.synthetic.sphere import Sphere
from mfimage.datasets.synthetic.surface import Surface

__all__ = ["Collider", "Generated", "Lorenz", "Rendered", "Simulator", "Sphere", "Surface"]
